//! Values that a configuration spells as text.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use crypto::{Encryption, Group, Integrity, Prf};
use ike::{EspProposal, IkeProposal};
use wire::Prefix;

/// An address with the prefix length of its network, such as `192.0.2.11/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InterfaceAddress {
    /// The address.
    pub address: IpAddr,
    /// Bits of the network's prefix.
    pub len: u8,
}

impl InterfaceAddress {
    /// Whether `other` lies in the same network.
    #[must_use]
    pub fn reaches(&self, other: IpAddr) -> bool {
        match (self.address, other) {
            (IpAddr::V4(ours), IpAddr::V4(theirs)) => {
                let differing = ours.to_bits() ^ theirs.to_bits();
                differing.leading_zeros() >= u32::from(self.len)
            }
            (IpAddr::V6(ours), IpAddr::V6(theirs)) => {
                let differing = ours.to_bits() ^ theirs.to_bits();
                differing.leading_zeros() >= u32::from(self.len)
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

impl fmt::Display for InterfaceAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.len)
    }
}

pub(super) const ADDRESS: &str = "write an IPv4 address with its prefix length, such as \"192.0.2.11/24\"";

/// An IPv4 address with prefix length; IPv6 is not served yet.
pub(super) fn interface_address(text: &str) -> Option<InterfaceAddress> {
    let (address, len) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let len: u8 = len.parse().ok().filter(|len| (1..=32).contains(len))?;
    address.is_ipv4().then_some(InterfaceAddress { address, len })
}

pub(super) const HOST: &str = "write an IPv4 address such as \"192.0.2.1\"";

pub(super) fn host(text: &str) -> Option<IpAddr> {
    IpAddr::from_str(text).ok().filter(IpAddr::is_ipv4)
}

pub(super) const PREFIX: &str = "write an IPv4 prefix with no bits set beyond its length, such as \"10.9.0.0/16\"";

pub(super) fn prefix(text: &str) -> Option<Prefix> {
    text.parse::<Prefix>().ok().filter(|prefix| prefix.address().is_ipv4())
}

pub(super) const SPAN: &str = "write a time such as \"90s\", \"15m\", \"4h\" or \"1d\"";

pub(super) fn span(text: &str) -> Option<Duration> {
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let amount: u64 = number.parse().ok()?;
    match text.get(number.len()..)? {
        "ms" => Some(Duration::from_millis(amount)),
        "s" => Some(Duration::from_secs(amount)),
        "m" => Some(Duration::from_secs(amount.checked_mul(60)?)),
        "h" => Some(Duration::from_secs(amount.checked_mul(3600)?)),
        "d" => Some(Duration::from_secs(amount.checked_mul(86_400)?)),
        _ => None,
    }
}

pub(super) const NAME: &str = "use 1 to 32 letters, digits, hyphens, dots or underscores";

pub(super) fn name(text: &str) -> Option<String> {
    let fits = (1..=32).contains(&text.len())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_'));
    fits.then(|| text.to_owned())
}

pub(super) const IKE_PROPOSAL: &str = "join a cipher (aes128gcm16, aes192gcm16, aes256gcm16; aes128, aes192, aes256), with an aes of \
    the second kind an integrity algorithm (sha256, sha384, sha512), a PRF (prfsha256, prfsha384, prfsha512; left out, that of the \
    integrity algorithm) and a group (x25519, ecp256, modp2048) by hyphens, such as \"aes128gcm16-prfsha256-x25519\"";

pub(super) fn ike_proposal(text: &str) -> Option<IkeProposal> {
    let words = Words::read(text)?;
    let prf = words.prf.or(words.integrity.map(|integrity| match integrity {
        Integrity::HmacSha2_256_128 => Prf::HmacSha2_256,
        Integrity::HmacSha2_384_192 => Prf::HmacSha2_384,
        Integrity::HmacSha2_512_256 => Prf::HmacSha2_512,
    }))?;
    Some(IkeProposal { encryption: words.encryption, integrity: words.integrity, prf, group: words.group? })
}

pub(super) const ESP_PROPOSAL: &str = "join a cipher (aes128gcm16, aes192gcm16, aes256gcm16; aes128, aes192, aes256), with an aes of \
    the second kind an integrity algorithm (sha256, sha384, sha512), and if rekeying shall exchange keys anew a group (x25519, ecp256, \
    modp2048) by hyphens, such as \"aes128gcm16-x25519\"";

pub(super) fn esp_proposal(text: &str) -> Option<EspProposal> {
    let words = Words::read(text)?;
    if words.prf.is_some() {
        return None;
    }
    Some(EspProposal { encryption: words.encryption, integrity: words.integrity, group: words.group })
}

/// Spells a suite as [`ike_proposal`] reads it.
pub(crate) fn spell_ike(suite: &IkeProposal) -> String {
    let prf = match suite.prf {
        Prf::HmacSha2_256 => "prfsha256",
        Prf::HmacSha2_384 => "prfsha384",
        Prf::HmacSha2_512 => "prfsha512",
    };
    let integrity = suite.integrity.map(spell_integrity);
    let cipher = spell_cipher(suite.encryption);
    let words = [Some(cipher.as_str()), integrity, Some(prf), Some(spell_group(suite.group))];
    words.into_iter().flatten().collect::<Vec<_>>().join("-")
}

/// Spells a suite as [`esp_proposal`] reads it.
pub(crate) fn spell_esp(suite: &EspProposal) -> String {
    let cipher = spell_cipher(suite.encryption);
    let words = [Some(cipher.as_str()), suite.integrity.map(spell_integrity), suite.group.map(spell_group)];
    words.into_iter().flatten().collect::<Vec<_>>().join("-")
}

fn spell_cipher(cipher: Encryption) -> String {
    match cipher {
        Encryption::AesGcm16(bits) => format!("aes{bits}gcm16"),
        Encryption::AesCbc(bits) => format!("aes{bits}"),
    }
}

const fn spell_integrity(integrity: Integrity) -> &'static str {
    match integrity {
        Integrity::HmacSha2_256_128 => "sha256",
        Integrity::HmacSha2_384_192 => "sha384",
        Integrity::HmacSha2_512_256 => "sha512",
    }
}

const fn spell_group(group: Group) -> &'static str {
    match group {
        Group::Curve25519 => "x25519",
        Group::Ecp256 => "ecp256",
        Group::Modp2048 => "modp2048",
    }
}

struct Words {
    encryption: Encryption,
    integrity: Option<Integrity>,
    prf: Option<Prf>,
    group: Option<Group>,
}

impl Words {
    fn read(text: &str) -> Option<Self> {
        let mut words = text.split('-');
        let encryption = match words.next()? {
            "aes128gcm16" | "aes128gcm" => Encryption::AesGcm16(128),
            "aes192gcm16" | "aes192gcm" => Encryption::AesGcm16(192),
            "aes256gcm16" | "aes256gcm" => Encryption::AesGcm16(256),
            "aes128" => Encryption::AesCbc(128),
            "aes192" => Encryption::AesCbc(192),
            "aes256" => Encryption::AesCbc(256),
            _ => return None,
        };
        let mut read = Self { encryption, integrity: None, prf: None, group: None };
        for word in words {
            let fresh = match word {
                "sha256" => read.integrity.replace(Integrity::HmacSha2_256_128).is_none(),
                "sha384" => read.integrity.replace(Integrity::HmacSha2_384_192).is_none(),
                "sha512" => read.integrity.replace(Integrity::HmacSha2_512_256).is_none(),
                "prfsha256" => read.prf.replace(Prf::HmacSha2_256).is_none(),
                "prfsha384" => read.prf.replace(Prf::HmacSha2_384).is_none(),
                "prfsha512" => read.prf.replace(Prf::HmacSha2_512).is_none(),
                "x25519" | "curve25519" => read.group.replace(Group::Curve25519).is_none(),
                "ecp256" => read.group.replace(Group::Ecp256).is_none(),
                "modp2048" => read.group.replace(Group::Modp2048).is_none(),
                _ => false,
            };
            if !fresh {
                return None;
            }
        }
        (encryption.is_aead() != read.integrity.is_some()).then_some(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proposals_read_as_strongswan_spells_them() {
        let gcm = ike_proposal("aes256gcm16-prfsha384-ecp256").unwrap();
        assert_eq!((gcm.encryption, gcm.integrity, gcm.prf), (Encryption::AesGcm16(256), None, Prf::HmacSha2_384));
        let cbc = ike_proposal("aes128-sha256-modp2048").unwrap();
        assert_eq!((cbc.integrity, cbc.prf), (Some(Integrity::HmacSha2_256_128), Prf::HmacSha2_256));
        for text in [
            "",
            "aes",
            "aes128-x25519",
            "aes128gcm16-x25519",
            "aes128gcm16-sha256-x25519",
            "aes128-sha256-sha256-x25519",
        ] {
            assert_eq!(ike_proposal(text), None, "{text}");
        }
        assert_eq!(esp_proposal("aes128gcm16").unwrap().group, None);
        assert_eq!(esp_proposal("aes128gcm16-prfsha256"), None);
    }

    #[test]
    fn what_is_spelled_reads_back() {
        for text in ["aes128gcm16-prfsha256-x25519", "aes256-sha512-prfsha384-modp2048", "aes192gcm16-prfsha512-ecp256"]
        {
            assert_eq!(spell_ike(&ike_proposal(text).unwrap()), text);
        }
        for text in ["aes128gcm16", "aes256-sha384", "aes256gcm16-ecp256"] {
            assert_eq!(spell_esp(&esp_proposal(text).unwrap()), text);
        }
    }

    #[test]
    fn spans_carry_a_unit() {
        assert_eq!(span("90s"), Some(Duration::from_secs(90)));
        assert_eq!(span("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(span("4h"), Some(Duration::from_secs(14_400)));
        for text in ["", "4", "h", "4 h", "-1s", "4w"] {
            assert_eq!(span(text), None, "{text}");
        }
    }

    #[test]
    fn an_interface_reaches_its_network_only() {
        let address = interface_address("192.0.2.11/24").unwrap();
        assert!(address.reaches("192.0.2.200".parse().unwrap()) && !address.reaches("192.0.3.1".parse().unwrap()));
        for text in ["192.0.2.11", "192.0.2.11/33", "192.0.2.11/0", "2001:db8::1/64", "x/24"] {
            assert_eq!(interface_address(text), None, "{text}");
        }
    }
}
