//! Traffic selectors: what IKE negotiates, ESP enforces and the dispatch table holds.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// An address range with protocol and ports (RFC 7296 §3.13.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TrafficSelector {
    /// IP protocol; 0 means any.
    pub protocol: u8,
    /// First port, inclusive; for ICMP, type and code.
    pub port_first: u16,
    /// Last port, inclusive.
    pub port_last: u16,
    /// First address, inclusive, of the same family as `last`.
    pub first: IpAddr,
    /// Last address, inclusive.
    pub last: IpAddr,
}

impl TrafficSelector {
    /// Selects all traffic of a prefix.
    #[must_use]
    pub fn from_prefix(prefix: Prefix) -> Self {
        let (first, last) = prefix.range();
        Self { protocol: 0, port_first: 0, port_last: u16::MAX, first, last }
    }

    /// Selects all traffic of one address.
    #[must_use]
    pub const fn from_address(address: IpAddr) -> Self {
        Self { protocol: 0, port_first: 0, port_last: u16::MAX, first: address, last: address }
    }

    /// Whether a packet end with that address, protocol and port is selected.
    #[must_use]
    pub fn matches(&self, address: IpAddr, protocol: u8, port: u16) -> bool {
        self.first.is_ipv4() == address.is_ipv4()
            && self.first <= address
            && address <= self.last
            && (self.protocol == 0 || self.protocol == protocol)
            && self.port_first <= port
            && port <= self.port_last
    }

    /// Returns what both select, if anything (narrowing, RFC 7296 §2.9).
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Option<Self> {
        if self.first.is_ipv4() != other.first.is_ipv4() {
            return None;
        }
        let protocol = match (self.protocol, other.protocol) {
            (0, other) => other,
            (ours, 0) => ours,
            (ours, theirs) if ours == theirs => ours,
            _ => return None,
        };
        let narrowed = Self {
            protocol,
            port_first: self.port_first.max(other.port_first),
            port_last: self.port_last.min(other.port_last),
            first: self.first.max(other.first),
            last: self.last.min(other.last),
        };
        (narrowed.first <= narrowed.last && narrowed.port_first <= narrowed.port_last).then_some(narrowed)
    }

    /// Whether everything that `other` selects is selected.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        self.intersection(other) == Some(*other)
    }
}

impl fmt::Display for TrafficSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)?;
        } else {
            match Prefix::from_range(self.first, self.last) {
                Some(prefix) => write!(f, "{prefix}")?,
                None => write!(f, "{}-{}", self.first, self.last)?,
            }
        }
        if self.protocol != 0 || self.port_first != 0 || self.port_last != u16::MAX {
            write!(f, "[{}/{}-{}]", self.protocol, self.port_first, self.port_last)?;
        }
        Ok(())
    }
}

/// An address prefix; bits beyond its length are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    address: IpAddr,
    len: u8,
}

impl Prefix {
    /// Makes a prefix; bits beyond `len` must be zero and `len` within the family's width.
    #[must_use]
    pub fn new(address: IpAddr, len: u8) -> Option<Self> {
        let (value, width) = bits(address);
        if len > width {
            return None;
        }
        (value & host_mask(width, len) == 0).then_some(Self { address, len })
    }

    /// Makes the prefix of exactly one address.
    #[must_use]
    pub const fn host(address: IpAddr) -> Self {
        let len = match address {
            IpAddr::V4(_) => 32,
            IpAddr::V6(_) => 128,
        };
        Self { address, len }
    }

    /// Returns the prefix that covers exactly `first` to `last`, if there is one.
    #[must_use]
    pub fn from_range(first: IpAddr, last: IpAddr) -> Option<Self> {
        let ((low, width), (high, other)) = (bits(first), bits(last));
        if width != other {
            return None;
        }
        let len = u8::try_from((low ^ high).leading_zeros()).ok()?.saturating_sub(128_u8.saturating_sub(width));
        let prefix = Self::new(first, len.min(width))?;
        (prefix.range() == (first, last)).then_some(prefix)
    }

    /// The first address.
    #[must_use]
    pub const fn address(&self) -> IpAddr {
        self.address
    }

    /// The length in bits.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a prefix length is not a size")]
    pub const fn len(&self) -> u8 {
        self.len
    }

    /// The first and the last address.
    #[must_use]
    pub fn range(&self) -> (IpAddr, IpAddr) {
        let (value, width) = bits(self.address);
        (self.address, address_of(value | host_mask(width, self.len), width))
    }

    /// Whether `address` lies in the prefix.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let ((ours, width), (theirs, other)) = (bits(self.address), bits(address));
        width == other && theirs & !host_mask(width, self.len) == ours
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.len)
    }
}

/// The text is no prefix: address, slash, length, no bits set beyond it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a prefix such as 10.9.0.0/16, with no bits set beyond its length")]
pub struct PrefixError;

impl FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let (address, len) = match text.split_once('/') {
            Some((address, len)) => (address, Some(len)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| PrefixError)?;
        match len {
            None => Ok(Self::host(address)),
            Some(len) => Self::new(address, len.parse().map_err(|_| PrefixError)?).ok_or(PrefixError),
        }
    }
}

fn bits(address: IpAddr) -> (u128, u8) {
    match address {
        IpAddr::V4(a) => (u128::from(a.to_bits()), 32),
        IpAddr::V6(a) => (a.to_bits(), 128),
    }
}

fn address_of(value: u128, width: u8) -> IpAddr {
    match u32::try_from(value) {
        Ok(value) if width == 32 => IpAddr::V4(Ipv4Addr::from_bits(value)),
        _ => IpAddr::V6(Ipv6Addr::from_bits(value)),
    }
}

fn host_mask(width: u8, len: u8) -> u128 {
    let host = u32::from(width.saturating_sub(len));
    1_u128.checked_shl(host).map_or(u128::MAX, |bit| bit.wrapping_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    #[test]
    fn a_prefix_with_host_bits_is_refused() {
        for text in ["10.9.0.1/16", "10.0.0.0/33", "fe80::1/64", "x", "10.0.0.0/-1"] {
            assert_eq!(text.parse::<Prefix>(), Err(PrefixError), "{text}");
        }
        assert_eq!(prefix("0.0.0.0/0").range().1, "255.255.255.255".parse::<IpAddr>().unwrap());
        assert_eq!(prefix("::/0").range().1, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn range_and_prefix_agree_both_ways() {
        for text in ["0.0.0.0/0", "10.9.0.0/16", "10.9.1.4/30", "10.9.1.4/32", "2001:db8::/32", "::/0", "::1/128"] {
            let (first, last) = prefix(text).range();
            assert_eq!(Prefix::from_range(first, last), Some(prefix(text)), "{text}");
        }
        assert_eq!(Prefix::from_range("10.0.0.1".parse().unwrap(), "10.0.0.4".parse().unwrap()), None);
    }

    #[test]
    fn narrowing_keeps_what_both_select() {
        let all = TrafficSelector::from_prefix(prefix("0.0.0.0/0"));
        let net = TrafficSelector { protocol: 6, ..TrafficSelector::from_prefix(prefix("10.9.0.0/16")) };
        assert_eq!(all.intersection(&net), Some(net));
        assert!(all.covers(&net) && !net.covers(&all));
        let other = TrafficSelector::from_prefix(prefix("10.8.0.0/16"));
        assert_eq!(net.intersection(&other), None);
        let udp = TrafficSelector { protocol: 17, ..net };
        assert_eq!(net.intersection(&udp), None);
    }

    #[test]
    fn families_never_mix() {
        let v6 = TrafficSelector::from_prefix(prefix("::/0"));
        assert!(!v6.matches("10.0.0.1".parse().unwrap(), 6, 80));
    }
}
