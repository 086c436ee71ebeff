//! The Configuration payload (RFC 7296 §3.15).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use wire::{Cause, DecodeError, Reader, Writer};

/// Attributes in one payload at the most. Our bound.
const ATTRIBUTES_MAX: usize = 64;

const INTERNAL_IP4_ADDRESS: u16 = 1;
const INTERNAL_IP4_DNS: u16 = 3;
const INTERNAL_IP6_ADDRESS: u16 = 8;
const INTERNAL_IP6_DNS: u16 = 10;

/// CFG Type (RFC 7296 §3.15).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConfigurationType {
    Request,
    Reply,
}

/// What of a Configuration payload we act on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Configuration {
    /// Whether INTERNAL_IP4_ADDRESS stands in it.
    pub(crate) wants_ipv4: bool,
    /// Whether INTERNAL_IP6_ADDRESS stands in it.
    pub(crate) wants_ipv6: bool,
    /// The first address that is neither empty nor unspecified.
    pub(crate) address: Option<IpAddr>,
    /// Name servers.
    pub(crate) dns: Vec<IpAddr>,
}

impl Configuration {
    /// Reads the payload; `None` if it is neither a request nor a reply.
    ///
    /// # Errors
    /// A length does not fit.
    pub(crate) fn decode(mut r: Reader<'_>) -> Result<Option<(ConfigurationType, Self)>, DecodeError> {
        let kind = match r.u8("CFG Type")? {
            1 => ConfigurationType::Request,
            2 => ConfigurationType::Reply,
            _ => return Ok(None),
        };
        r.bytes("RESERVED", 3)?;
        let mut configuration = Self::default();
        let mut count = 0_usize;
        while !r.is_empty() {
            count = count.saturating_add(1);
            if count > ATTRIBUTES_MAX {
                return Err(r.error("Configuration Attributes", Cause::Range));
            }
            let attribute = r.u16("Attribute Type")? & 0x7fff;
            let len = usize::from(r.u16("Length")?);
            let mut value = r.sub("Value", len)?;
            match attribute {
                INTERNAL_IP4_ADDRESS => {
                    configuration.wants_ipv4 = true;
                    configuration.take_address(ipv4(&mut value)?);
                }
                INTERNAL_IP6_ADDRESS => {
                    configuration.wants_ipv6 = true;
                    configuration.take_address(ipv6(&mut value)?);
                }
                INTERNAL_IP4_DNS => configuration.dns.extend(ipv4(&mut value)?),
                INTERNAL_IP6_DNS => configuration.dns.extend(ipv6(&mut value)?),
                _ => {}
            }
        }
        Ok(Some((kind, configuration)))
    }

    fn take_address(&mut self, address: Option<IpAddr>) {
        if self.address.is_none() {
            self.address = address.filter(|a| !a.is_unspecified());
        }
    }

    /// Writes a request for an IPv4 address, the name servers with it.
    pub(crate) fn encode_request(w: &mut Writer) {
        w.u8(1);
        w.bytes(&[0; 3]);
        for attribute in [INTERNAL_IP4_ADDRESS, INTERNAL_IP4_DNS] {
            w.u16(attribute);
            w.u16(0);
        }
    }

    /// Writes a reply with `address` and `dns`.
    pub(crate) fn encode_reply(w: &mut Writer, address: IpAddr, dns: &[IpAddr]) {
        w.u8(2);
        w.bytes(&[0; 3]);
        match address {
            IpAddr::V4(a) => {
                w.u16(INTERNAL_IP4_ADDRESS);
                w.prefixed_u16(|w| w.bytes(&a.octets()));
            }
            IpAddr::V6(a) => {
                w.u16(INTERNAL_IP6_ADDRESS);
                w.prefixed_u16(|w| {
                    w.bytes(&a.octets());
                    w.u8(128);
                });
            }
        }
        for server in dns.iter().take(ATTRIBUTES_MAX.saturating_sub(1)) {
            match server {
                IpAddr::V4(a) => {
                    w.u16(INTERNAL_IP4_DNS);
                    w.prefixed_u16(|w| w.bytes(&a.octets()));
                }
                IpAddr::V6(a) => {
                    w.u16(INTERNAL_IP6_DNS);
                    w.prefixed_u16(|w| w.bytes(&a.octets()));
                }
            }
        }
    }
}

fn ipv4(value: &mut Reader<'_>) -> Result<Option<IpAddr>, DecodeError> {
    if value.is_empty() {
        return Ok(None);
    }
    let address = Ipv4Addr::from_octets(value.array("IPv4 address")?);
    value.finish("IPv4 address")?;
    Ok(Some(address.into()))
}

fn ipv6(value: &mut Reader<'_>) -> Result<Option<IpAddr>, DecodeError> {
    if value.is_empty() {
        return Ok(None);
    }
    // With or without the prefix length behind it (RFC 7296 §3.15.1).
    Ok(Some(Ipv6Addr::from_octets(value.array("IPv6 address")?).into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reply: 10.77.0.2, name server 10.0.0.53.
    const REAL: [u8; 20] = [2, 0, 0, 0, 0, 1, 0, 4, 10, 77, 0, 2, 0, 3, 0, 4, 10, 0, 0, 53];

    #[test]
    fn real_octets_decode_and_a_reply_round_trips() {
        let (kind, configuration) = Configuration::decode(Reader::new(&REAL)).unwrap().unwrap();
        assert_eq!(kind, ConfigurationType::Reply);
        assert_eq!(configuration.address, Some("10.77.0.2".parse().unwrap()));
        let mut w = Writer::new();
        Configuration::encode_reply(&mut w, configuration.address.unwrap(), &configuration.dns);
        assert_eq!(w.as_slice(), REAL);
    }

    #[test]
    fn a_request_asks_for_an_ipv4_address() {
        let mut w = Writer::new();
        Configuration::encode_request(&mut w);
        let (kind, configuration) = Configuration::decode(Reader::new(w.as_slice())).unwrap().unwrap();
        assert_eq!(kind, ConfigurationType::Request);
        assert!(configuration.wants_ipv4 && !configuration.wants_ipv6 && configuration.address.is_none());
    }

    #[test]
    fn an_unspecified_address_is_no_wish() {
        let request = [1, 0, 0, 0, 0, 1, 0, 4, 0, 0, 0, 0];
        let (_, configuration) = Configuration::decode(Reader::new(&request)).unwrap().unwrap();
        assert!(configuration.wants_ipv4 && configuration.address.is_none());
    }

    #[test]
    fn cut_inside_an_attribute_is_an_error() {
        for len in [0, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19] {
            assert!(Configuration::decode(Reader::new(&REAL[..len])).is_err() || len == 0, "cut at {len}");
        }
        assert!(Configuration::decode(Reader::new(&[])).is_err());
    }

    #[test]
    fn misfit_address_lengths_and_too_many_attributes_are_refused() {
        for len in [3_u8, 5] {
            let bytes = [&[2, 0, 0, 0, 0, 1, 0, len][..], &vec![1; usize::from(len)]].concat();
            assert!(Configuration::decode(Reader::new(&bytes)).is_err(), "{len}");
        }
        let many = [&[1, 0, 0, 0][..], &[0, 7, 0, 0].repeat(ATTRIBUTES_MAX + 1)].concat();
        assert!(Configuration::decode(Reader::new(&many)).is_err());
    }
}
