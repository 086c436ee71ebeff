//! What a peer calls itself (RFC 7296 §3.5).

use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use x509_cert::der::{Decode, Encode, Tag, Tagged};
use x509_cert::name::{RdnSequence, RelativeDistinguishedName};

/// An identity as it stands in an Identification payload.
///
/// Equality is that of names, not of octets: FQDN, mail domain and distinguished names ignore the case of ASCII
/// letters. The octets that the peer sent are kept, because AUTH covers them.
#[derive(Clone, Debug)]
pub enum Identity {
    /// ID_IPV4_ADDR (1) or ID_IPV6_ADDR (5).
    Address(IpAddr),
    /// ID_FQDN (2): a domain name such as `gw.example.org`, without a final dot.
    Fqdn(String),
    /// ID_RFC822_ADDR (3): a mail address such as `carol@example.org`.
    Rfc822(String),
    /// ID_DER_ASN1_DN (9): the subject of a certificate.
    DistinguishedName(DistinguishedName),
    /// ID_KEY_ID (11): octets that mean something to the operator only.
    KeyId(Box<[u8]>),
}

/// Why an identity cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The ID type is none of ours.
    #[error("identity type {0} is not supported")]
    Type(
        /// The IANA number.
        u8,
    ),
    /// The data does not fit the type.
    #[error("the identity's data does not fit its type {0}")]
    Data(
        /// The IANA number.
        u8,
    ),
    /// The operator's text is no identity.
    #[error(
        "expected an identity: a host name, a mail address, an IP address, a distinguished name such as \
         \"C=CH, O=Example, CN=gw\", or keyid:HEX"
    )]
    Text,
}

impl Identity {
    /// Longest Identification Data that we take, in octets. Our policy.
    pub const DATA_LEN_MAX: usize = 1024;

    /// Reads what stands in an Identification payload.
    ///
    /// # Errors
    /// The type is none of ours, or the data does not fit it.
    pub fn decode(id_type: u8, data: &[u8]) -> Result<Self, IdentityError> {
        let unfit = IdentityError::Data(id_type);
        if data.is_empty() || data.len() > Self::DATA_LEN_MAX {
            return Err(unfit);
        }
        match id_type {
            1 => {
                let octets: [u8; 4] = data.try_into().map_err(|_| unfit)?;
                Ok(Self::Address(IpAddr::V4(Ipv4Addr::from_octets(octets))))
            }
            5 => {
                let octets: [u8; 16] = data.try_into().map_err(|_| unfit)?;
                Ok(Self::Address(IpAddr::V6(Ipv6Addr::from_octets(octets))))
            }
            2 => printable(data).map(|name| Self::Fqdn(name.into())).ok_or(unfit),
            3 => printable(data).filter(|name| name.contains('@')).map(|name| Self::Rfc822(name.into())).ok_or(unfit),
            9 => DistinguishedName::from_der(data).map(Self::DistinguishedName).ok_or(unfit),
            11 => Ok(Self::KeyId(data.into())),
            other => Err(IdentityError::Type(other)),
        }
    }

    /// The ID type by its IANA number.
    #[must_use]
    pub const fn id_type(&self) -> u8 {
        match self {
            Self::Address(IpAddr::V4(_)) => 1,
            Self::Fqdn(_) => 2,
            Self::Rfc822(_) => 3,
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
            Self::Fqdn(name) | Self::Rfc822(name) => name.as_bytes().to_vec(),
            Self::DistinguishedName(name) => name.der().to_vec(),
            Self::KeyId(octets) => octets.to_vec(),
        }
    }

    /// The form in which equal identities are equal octets.
    fn canonical(&self) -> Vec<u8> {
        match self {
            Self::Address(_) | Self::KeyId(_) => self.data(),
            Self::Fqdn(name) => name.to_ascii_lowercase().into_bytes(),
            // Only the domain ignores case (RFC 5321 §2.4).
            Self::Rfc822(name) => match name.rsplit_once('@') {
                Some((local, domain)) => format!("{local}@{}", domain.to_ascii_lowercase()).into_bytes(),
                None => name.clone().into_bytes(),
            },
            Self::DistinguishedName(name) => name.canonical.clone(),
        }
    }
}

impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        self.id_type() == other.id_type() && self.canonical() == other.canonical()
    }
}

impl Eq for Identity {}

impl Hash for Identity {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.id_type().hash(state);
        self.canonical().hash(state);
    }
}

/// As the operator writes it and logs show it.
impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{address}"),
            Self::Fqdn(name) | Self::Rfc822(name) => f.write_str(name),
            Self::DistinguishedName(name) => write!(f, "{name}"),
            Self::KeyId(octets) => {
                f.write_str("keyid:")?;
                octets.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
            }
        }
    }
}

/// Reads what an operator writes: the form tells the type.
impl FromStr for Identity {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let text = text.trim();
        if let Some(hex) = text.strip_prefix("keyid:") {
            let octets = from_hex(hex).filter(|octets| !octets.is_empty()).ok_or(IdentityError::Text)?;
            return Ok(Self::KeyId(octets.into()));
        }
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(address));
        }
        if text.contains('=') {
            return text.parse().map(Self::DistinguishedName);
        }
        let id_type = if text.contains('@') { 3 } else { 2 };
        let well_formed = !text.contains(char::is_whitespace) && !text.starts_with(['@', '.']) && !text.ends_with('@');
        if !well_formed {
            return Err(IdentityError::Text);
        }
        Self::decode(id_type, text.trim_end_matches('.').as_bytes()).map_err(|_| IdentityError::Text)
    }
}

/// A distinguished name (RFC 5280 §4.1.2.4) that is well-formed.
#[derive(Clone, Debug)]
pub struct DistinguishedName {
    der: Box<[u8]>,
    canonical: Vec<u8>,
    text: Box<str>,
}

impl DistinguishedName {
    /// Reads a Name in DER; `None` if it is none or empty.
    #[must_use]
    pub fn from_der(der: &[u8]) -> Option<Self> {
        let names = Vec::<RelativeDistinguishedName>::from_der(der).ok()?;
        if names.is_empty() {
            return None;
        }
        let mut canonical = Vec::new();
        // Each part stands behind its length: any octet may occur in a value, so none could keep them apart.
        let mut put = |part: &[u8]| {
            canonical.extend_from_slice(&part.len().to_be_bytes());
            canonical.extend_from_slice(part);
        };
        for name in &names {
            put(&name.len().to_be_bytes());
            for attribute in name.iter() {
                put(attribute.oid.as_bytes());
                let octets = attribute.value.value();
                let tag = attribute.value.tag();
                // RFC 5280 §7.1: of these kinds of string does not count which it is, nor does case, nor space at the ends.
                if matches!(tag, Tag::Utf8String | Tag::PrintableString | Tag::Ia5String | Tag::TeletexString) {
                    put(b"text");
                    put(&octets.trim_ascii().to_ascii_lowercase());
                } else {
                    put(tag.to_string().as_bytes());
                    put(octets);
                }
            }
        }
        let text = names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        Some(Self { der: der.into(), canonical, text: text.into() })
    }

    /// The Name in DER.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }
}

impl PartialEq for DistinguishedName {
    fn eq(&self, other: &Self) -> bool {
        self.canonical == other.canonical
    }
}

impl Eq for DistinguishedName {}

/// In the order of the certificate, as openssl and strongSwan print it.
impl fmt::Display for DistinguishedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Reads `C=CH, O=Example, CN=gw` in the order of the certificate, as openssl and strongSwan print it. Special characters
/// are escaped as in RFC 4514 §2.4.
impl FromStr for DistinguishedName {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let mut names = Vec::new();
        for part in split_unescaped(text) {
            let sequence: RdnSequence = part.trim().parse().map_err(|_| IdentityError::Text)?;
            let mut parts = sequence.iter().cloned();
            match (parts.next(), parts.next()) {
                (Some(name), None) => names.push(name),
                _ => return Err(IdentityError::Text),
            }
        }
        let der = names.to_der().map_err(|_| IdentityError::Text)?;
        Self::from_der(&der).ok_or(IdentityError::Text)
    }
}

/// Splits at commas that no backslash precedes.
fn split_unescaped(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = text;
    let mut escaped = false;
    let mut from = 0;
    for (at, c) in text.char_indices() {
        match (escaped, c) {
            (false, '\\') => escaped = true,
            (false, ',') => {
                let (part, _) = rest.split_at_checked(at.saturating_sub(from)).unwrap_or((rest, ""));
                parts.push(part);
                from = at.saturating_add(1);
                rest = text.get(from..).unwrap_or("");
            }
            (true | false, _) => escaped = false,
        }
    }
    parts.push(rest);
    parts
}

fn printable(data: &[u8]) -> Option<&str> {
    // RFC 7296 §3.5: no terminators such as NUL or CR in the string.
    std::str::from_utf8(data).ok().filter(|text| !text.chars().any(char::is_control))
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.chars().map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok())).collect::<Option<Vec<_>>>()?;
    let (pairs, rest) = digits.as_chunks::<2>();
    rest.is_empty().then(|| pairs.iter().map(|[high, low]| (high << 4) | low).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(text: &str) -> Identity {
        text.parse().unwrap()
    }

    #[test]
    fn the_operators_text_tells_the_type() {
        for (text, id_type) in [
            ("192.0.2.1", 1),
            ("gw.example.org", 2),
            ("carol@example.org", 3),
            ("2001:db8::1", 5),
            ("C=CH, O=Example, CN=gw", 9),
            ("keyid:00ff", 11),
        ] {
            let id = identity(text);
            assert_eq!((id.id_type(), id.to_string().as_str()), (id_type, text));
            assert_eq!(Identity::decode(id_type, &id.data()), Ok(id), "{text}");
        }
        for text in ["", "a b", "@example.org", "keyid:", "keyid:0", "keyid:xy", "CN", "=", "carol@"] {
            let read = text.parse::<Identity>();
            assert!(read.is_err() || text == "CN", "{text}: {read:?}");
        }
    }

    #[test]
    fn names_are_compared_without_case_and_string_kind_but_sent_as_they_came() {
        assert_eq!(identity("GW.Example.org"), identity("gw.example.ORG"));
        assert_eq!(identity("GW.Example.org").data(), b"GW.Example.org");
        assert_eq!(identity("carol@EXAMPLE.org"), identity("carol@example.org"));
        assert_ne!(identity("Carol@example.org"), identity("carol@example.org"));
        assert_ne!(identity("10.0.0.1"), Identity::Fqdn("10.0.0.1".into()));
        let utf8 = [0x30, 0x0d, 0x31, 0x0b, 0x30, 0x09, 0x06, 0x03, 0x55, 0x04, 0x03, 0x0c, 0x02, b'g', b'W'];
        let printable = [0x30, 0x0d, 0x31, 0x0b, 0x30, 0x09, 0x06, 0x03, 0x55, 0x04, 0x03, 0x13, 0x02, b'G', b'w'];
        assert_eq!(Identity::decode(9, &utf8), Identity::decode(9, &printable));
        assert_eq!(Identity::decode(9, &utf8), Ok(identity("CN=gw")));
        assert_ne!(identity("O=a, CN=b"), identity("CN=b, O=a"));
    }

    #[test]
    fn zero_octets_in_a_value_do_not_make_it_the_name_that_they_imitate() {
        // DC=gw, DC=org, and a single DC whose value holds what once stood between the two: OID and zero octets.
        let dc: [u8; 10] = [0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 0x01, 0x19];
        let name = |values: &[&[u8]]| {
            let rdns: Vec<u8> = values
                .iter()
                .flat_map(|value| {
                    let value = [&[0x0c, u8::try_from(value.len()).unwrap()], *value].concat();
                    let pair = [&[0x06, 10][..], &dc, &value].concat();
                    let pair = [&[0x30, u8::try_from(pair.len()).unwrap()], &pair[..]].concat();
                    [&[0x31, u8::try_from(pair.len()).unwrap()], &pair[..]].concat()
                })
                .collect();
            Identity::decode(9, &[&[0x30, u8::try_from(rdns.len()).unwrap()], &rdns[..]].concat()).unwrap()
        };
        let imitation = [&b"gw\0\0"[..], &dc, b"\0org"].concat();
        assert_ne!(name(&[b"gw", b"org"]), name(&[&imitation]));
        assert_eq!(name(&[b"GW", b"org "]), name(&[b"gw", b"Org"]));
    }

    #[test]
    fn an_escaped_comma_stays_in_its_name() {
        assert_eq!(identity(r"O=Example\, Inc., CN=gw").to_string(), r"O=Example\, Inc., CN=gw");
    }

    #[test]
    fn data_that_does_not_fit_its_type_is_refused() {
        for (id_type, data) in [
            (1, &[1, 2, 3][..]),
            (5, &[0; 15]),
            (2, b"gw\0"),
            (2, b""),
            (3, b"carol"),
            (9, &[0x30, 0x00]),
            (9, &[0x30, 0x01]),
            (2, &[b'a'; 1025]),
        ] {
            assert_eq!(Identity::decode(id_type, data), Err(IdentityError::Data(id_type)), "{id_type} {data:02x?}");
        }
        assert_eq!(Identity::decode(4, &[0; 8]), Err(IdentityError::Type(4)));
    }
}
