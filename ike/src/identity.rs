//! Who somebody is: the Identification payload's content (RFC 7296 §3.5).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An identity as IKE names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Identity {
    /// ID_IPV4_ADDR or ID_IPV6_ADDR.
    Address(IpAddr),
    /// ID_FQDN, for example `vpn.example.org`.
    Fqdn(String),
    /// ID_RFC822_ADDR, for example `anna@example.org`.
    Email(String),
    /// ID_DER_ASN1_DN: an X.501 distinguished name, DER.
    DistinguishedName(Box<[u8]>),
    /// ID_KEY_ID: octets that only the two ends understand.
    KeyId(Box<[u8]>),
}

impl Identity {
    /// Makes an identity of an ID Type and Identification Data; `None` if the data is not of that type.
    #[must_use]
    pub fn from_iana(id_type: u8, data: &[u8]) -> Option<Self> {
        let text = || std::str::from_utf8(data).ok().filter(|t| !t.is_empty() && !t.contains('\0')).map(str::to_owned);
        match id_type {
            1 => <[u8; 4]>::try_from(data).ok().map(|o| Self::Address(Ipv4Addr::from_octets(o).into())),
            2 => text().map(Self::Fqdn),
            3 => text().map(Self::Email),
            5 => <[u8; 16]>::try_from(data).ok().map(|o| Self::Address(Ipv6Addr::from_octets(o).into())),
            9 => (!data.is_empty()).then(|| Self::DistinguishedName(data.into())),
            11 => (!data.is_empty()).then(|| Self::KeyId(data.into())),
            _ => None,
        }
    }

    /// The ID Type.
    #[must_use]
    pub const fn iana(&self) -> u8 {
        match self {
            Self::Address(IpAddr::V4(_)) => 1,
            Self::Fqdn(_) => 2,
            Self::Email(_) => 3,
            Self::Address(IpAddr::V6(_)) => 5,
            Self::DistinguishedName(_) => 9,
            Self::KeyId(_) => 11,
        }
    }

    /// The Identification Data.
    #[must_use]
    pub fn data(&self) -> Vec<u8> {
        match self {
            Self::Address(IpAddr::V4(a)) => a.octets().to_vec(),
            Self::Address(IpAddr::V6(a)) => a.octets().to_vec(),
            Self::Fqdn(t) | Self::Email(t) => t.as_bytes().to_vec(),
            Self::DistinguishedName(d) | Self::KeyId(d) => d.to_vec(),
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(a) => write!(f, "{a}"),
            Self::Fqdn(t) | Self::Email(t) => write!(f, "{}", t.escape_debug()),
            Self::DistinguishedName(d) | Self::KeyId(d) => {
                f.write_str("#")?;
                d.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn type_and_data_lead_back_to_the_identity() {
        for identity in [
            Identity::Address("192.0.2.1".parse().unwrap()),
            Identity::Address("2001:db8::1".parse().unwrap()),
            Identity::Fqdn("vpn.example.org".into()),
            Identity::Email("anna@example.org".into()),
            Identity::DistinguishedName([0x30, 0].into()),
            Identity::KeyId([0, 1].into()),
        ] {
            assert_eq!(Identity::from_iana(identity.iana(), &identity.data()), Some(identity));
        }
    }

    #[test]
    fn empty_null_or_misfit_data_is_no_identity() {
        for (id_type, data) in [
            (1, &[1_u8, 2, 3][..]),
            (2, b""),
            (2, b"a\0b"),
            (3, b"\xff"),
            (5, &[0; 4]),
            (9, b""),
            (11, b""),
            (12, b"x"),
        ] {
            assert_eq!(Identity::from_iana(id_type, data), None, "{id_type}");
        }
    }

    #[test]
    fn a_name_with_control_characters_is_shown_harmless() {
        assert_eq!(Identity::Fqdn("a\u{1b}[2J\n".into()).to_string(), "a\\u{1b}[2J\\n");
    }
}
