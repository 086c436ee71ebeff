//! The certificate template: both sides build the same octets from the same fields.

use std::fmt;

use rand::CryptoRng;

use crate::code::Role;
use crate::der;
use crate::key::{Algorithm, PublicKey};
use crate::name::{ClientName, ClusterName};
use crate::refusal::Refusal;

/// A serial number: 63 random bits, not zero, drawn after the request is fixed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Serial(u64);

impl Serial {
    /// Bits of the number.
    pub(crate) const BITS: u32 = 63;

    /// Draws a serial. Drawn before the request is known, it would let a thief of the code look for a pair of
    /// requests with the same final words.
    pub fn draw(rng: &mut impl CryptoRng) -> Self {
        loop {
            if let Some(serial) = Self::new(rng.next_u64() >> 1) {
                return serial;
            }
        }
    }

    /// Makes a serial of 1 to 2^63 - 1.
    #[must_use]
    pub const fn new(serial: u64) -> Option<Self> {
        if serial == 0 || serial >> Self::BITS != 0 { None } else { Some(Self(serial)) }
    }

    /// The number.
    #[must_use]
    pub const fn value(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Serial {
    /// As lists and commands write it: sixteen hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A certificate's days: from 00:00:00 UTC of the first to 00:00:00 UTC of the expiry day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Validity {
    start_day: u16,
    days: u16,
}

impl Validity {
    /// Bits of the number of days.
    pub(crate) const DAYS_BITS: u32 = 12;

    /// Makes a validity of 1 to 4095 days that ends on a day that 16 bits can say.
    ///
    /// # Errors
    /// It does not.
    pub const fn new(start_day: u16, days: u16) -> Result<Self, Refusal> {
        if days == 0 || days >> Self::DAYS_BITS != 0 || start_day.checked_add(days).is_none() {
            return Err(Refusal::Days);
        }
        Ok(Self { start_day, days })
    }

    /// The first day, counted from 1970; at issue the day before, for clocks that are behind.
    #[must_use]
    pub const fn start_day(self) -> u16 {
        self.start_day
    }

    /// How many days.
    #[must_use]
    pub const fn days(self) -> u16 {
        self.days
    }

    /// The day that the certificate ends with its first second.
    #[must_use]
    pub const fn expiry_day(self) -> u16 {
        self.start_day.saturating_add(self.days)
    }
}

/// All that a certificate of this format says, except its signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// Decides on the extended key usage.
    pub role: Role,
    /// The cluster; its CA is the issuer.
    pub cluster: ClusterName,
    /// The subject.
    pub name: ClientName,
    /// The subject's key.
    pub key: PublicKey,
    /// The serial number.
    pub serial: Serial,
    /// From when to when.
    pub validity: Validity,
    /// The issuer's key.
    pub issuer_key: PublicKey,
}

impl Template {
    /// The TBSCertificate (RFC 5280 §4.1), which the CA signs.
    #[must_use]
    pub fn tbs(&self) -> Vec<u8> {
        let validity =
            der::sequence(&[&der::midnight(self.validity.start_day), &der::midnight(self.validity.expiry_day())]);
        der::sequence(&[
            VERSION_3,
            &der::unsigned(&self.serial.value().to_be_bytes()),
            &signature_algorithm(self.issuer_key.algorithm()),
            &common_name(&self.cluster.ca_common_name()),
            &validity,
            &common_name(self.name.as_str()),
            &self.key.spki(),
            &der::tlv(0xa3, &[&self.extensions()]),
        ])
    }

    /// The certificate with the CA's signature in the fixed form.
    ///
    /// # Errors
    /// The signature does not hold: the two programs build certificates differently.
    pub fn certificate(&self, signature: &[u8; 64]) -> Result<Vec<u8>, Refusal> {
        let tbs = self.tbs();
        self.issuer_key.verify(&tbs, signature)?;
        let algorithm = self.issuer_key.algorithm();
        let value = match algorithm {
            Algorithm::Ed25519 => signature.to_vec(),
            Algorithm::P256 => ecdsa_signature(signature),
        };
        Ok(der::sequence(&[&tbs, &signature_algorithm(algorithm), &der::bit_string(&value)]))
    }

    fn extensions(&self) -> Vec<u8> {
        let usage = der::sequence(&[&der::oid(match self.role {
            Role::Client => CLIENT_AUTH,
            Role::Node => NODE_PURPOSE,
        })]);
        let (name_tag, alternative) = if self.name.as_str().contains('@') {
            (RFC822_NAME, self.name.to_string())
        } else {
            (DNS_NAME, format!("{}.{}.invalid", self.name, self.cluster))
        };
        let alternative = der::sequence(&[&der::tlv(name_tag, &[alternative.as_bytes()])]);
        let authority = der::sequence(&[&der::tlv(0x80, &[&self.issuer_key.identifier()])]);
        der::sequence(&[
            &extension(BASIC_CONSTRAINTS, CRITICAL, &der::sequence(&[])),
            // RFC 5280 §4.2.1.3: digitalSignature is bit 0.
            &extension(KEY_USAGE, CRITICAL, &[0x03, 0x02, 0x07, 0x80]),
            &extension(EXTENDED_KEY_USAGE, &[], &usage),
            &extension(SUBJECT_ALT_NAME, &[], &alternative),
            &extension(AUTHORITY_KEY_IDENTIFIER, &[], &authority),
        ])
    }
}

/// r ‖ s as the ECDSA-Sig-Value of RFC 3279 §2.2.3.
pub(crate) fn ecdsa_signature(fixed: &[u8; 64]) -> Vec<u8> {
    let (r, s) = fixed.split_at(32);
    der::sequence(&[&der::unsigned(r), &der::unsigned(s)])
}

fn signature_algorithm(algorithm: Algorithm) -> Vec<u8> {
    der::sequence(&[&der::oid(match algorithm {
        Algorithm::Ed25519 => ID_ED25519,
        Algorithm::P256 => ECDSA_WITH_SHA256,
    })])
}

/// A Name of one commonName in UTF8String.
fn common_name(name: &str) -> Vec<u8> {
    let attribute = der::sequence(&[&der::oid(COMMON_NAME), &der::tlv(0x0c, &[name.as_bytes()])]);
    der::sequence(&[&der::tlv(0x31, &[&attribute])])
}

fn extension(id: &[u8], critical: &[u8], value: &[u8]) -> Vec<u8> {
    der::sequence(&[&der::oid(id), critical, &der::octet_string(value)])
}

/// `[0] EXPLICIT INTEGER 2`.
const VERSION_3: &[u8] = &[0xa0, 0x03, 0x02, 0x01, 0x02];
/// BOOLEAN TRUE.
const CRITICAL: &[u8] = &[0x01, 0x01, 0xff];

/// RFC 8410 §3: 1.3.101.112.
const ID_ED25519: &[u8] = &[0x2b, 0x65, 0x70];
/// RFC 5758 §3.2: 1.2.840.10045.4.3.2.
const ECDSA_WITH_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
/// RFC 5280, appendix A.1: 2.5.4.3.
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
/// RFC 5280 §4.2.1.9: 2.5.29.19.
const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x13];
/// RFC 5280 §4.2.1.3: 2.5.29.15.
const KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x0f];
/// RFC 5280 §4.2.1.12: 2.5.29.37.
const EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x25];
/// RFC 5280 §4.2.1.6: 2.5.29.17.
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];
/// RFC 5280 §4.2.1.1: 2.5.29.35.
const AUTHORITY_KEY_IDENTIFIER: &[u8] = &[0x55, 0x1d, 0x23];
/// RFC 5280 §4.2.1.12: 1.3.6.1.5.5.7.3.2.
const CLIENT_AUTH: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x02];
/// 2.25.1184207873, a stand-in until an enterprise number is registered.
const NODE_PURPOSE: &[u8] = &[0x69, 0x84, 0xb4, 0xd6, 0xa8, 0x01];
/// GeneralName rfc822Name, `[1]`.
const RFC822_NAME: u8 = 0x81;
/// GeneralName dNSName, `[2]`.
const DNS_NAME: u8 = 0x82;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serials_and_days_out_of_range_are_refused() {
        assert_eq!((Serial::new(0), Serial::new(1 << 63)), (None, None));
        assert_eq!(Serial::new((1 << 63) - 1).unwrap().value(), (1 << 63) - 1);
        assert_eq!(Serial::new(0xa2_58ef_7e7b_ab08).unwrap().to_string(), "00a258ef7e7bab08");
        assert_eq!(Validity::new(20_778, 0), Err(Refusal::Days));
        assert_eq!(Validity::new(20_778, 4096), Err(Refusal::Days));
        assert_eq!(Validity::new(65_000, 536), Err(Refusal::Days));
        assert_eq!(Validity::new(65_000, 535).unwrap().expiry_day(), 65_535);
    }
}
