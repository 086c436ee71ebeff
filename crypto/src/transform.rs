//! The transforms that a policy can name, by their IANA numbers (IKEv2 parameters, transform types 1 to 4).

/// An encryption algorithm with its key length (transform type 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Encryption {
    /// ENCR_AES_CBC, 12 (RFC 3602); needs an integrity algorithm.
    AesCbc(
        /// Key length in bits: 128, 192 or 256.
        u16,
    ),
    /// ENCR_AES_GCM_16, 20 (RFC 4106, RFC 5282): AEAD with an ICV of 16 octets.
    AesGcm16(
        /// Key length in bits, the salt not counted: 128, 192 or 256.
        u16,
    ),
}

impl Encryption {
    /// Makes the algorithm with that IANA number and Key Length attribute; `None` if we do not have it.
    #[must_use]
    pub const fn from_iana(id: u16, key_bits: Option<u16>) -> Option<Self> {
        match (id, key_bits) {
            (12, Some(bits @ (128 | 192 | 256))) => Some(Self::AesCbc(bits)),
            (20, Some(bits @ (128 | 192 | 256))) => Some(Self::AesGcm16(bits)),
            _ => None,
        }
    }

    /// The IANA number.
    #[must_use]
    pub const fn iana(self) -> u16 {
        match self {
            Self::AesCbc(_) => 12,
            Self::AesGcm16(_) => 20,
        }
    }

    /// The Key Length attribute, in bits.
    #[must_use]
    pub const fn key_bits(self) -> u16 {
        match self {
            Self::AesCbc(bits) | Self::AesGcm16(bits) => bits,
        }
    }

    /// Octets of key material to draw: the key, and for an AEAD its salt (4 octets, RFC 4106 §8.1).
    #[must_use]
    pub const fn key_material_len(self) -> usize {
        let key = match self.key_bits() {
            128 => 16,
            192 => 24,
            _ => 32,
        };
        if self.is_aead() { key + Self::SALT_LEN } else { key }
    }

    /// Octets of the explicit IV in each packet.
    #[must_use]
    pub const fn iv_len(self) -> usize {
        match self {
            Self::AesCbc(_) => 16,
            Self::AesGcm16(_) => 8,
        }
    }

    /// The plaintext is padded to a multiple of this many octets (ESP needs 4 at the least, RFC 4303 §2.4).
    #[must_use]
    pub const fn block_len(self) -> usize {
        match self {
            Self::AesCbc(_) => 16,
            Self::AesGcm16(_) => 4,
        }
    }

    /// Whether the algorithm protects integrity by itself.
    #[must_use]
    pub const fn is_aead(self) -> bool {
        match self {
            Self::AesCbc(_) => false,
            Self::AesGcm16(_) => true,
        }
    }

    /// Octets of an AEAD's ICV.
    pub const AEAD_ICV_LEN: usize = 16;
    /// Octets of an AEAD's salt (RFC 4106 §4).
    pub const SALT_LEN: usize = 4;
}

/// An integrity algorithm (transform type 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Integrity {
    /// AUTH_HMAC_SHA2_256_128, 12 (RFC 4868).
    HmacSha2_256_128,
    /// AUTH_HMAC_SHA2_384_192, 13 (RFC 4868).
    HmacSha2_384_192,
    /// AUTH_HMAC_SHA2_512_256, 14 (RFC 4868).
    HmacSha2_512_256,
}

impl Integrity {
    /// Makes the algorithm with that IANA number; `None` if we do not have it.
    #[must_use]
    pub const fn from_iana(id: u16) -> Option<Self> {
        match id {
            12 => Some(Self::HmacSha2_256_128),
            13 => Some(Self::HmacSha2_384_192),
            14 => Some(Self::HmacSha2_512_256),
            _ => None,
        }
    }

    /// The IANA number.
    #[must_use]
    pub const fn iana(self) -> u16 {
        match self {
            Self::HmacSha2_256_128 => 12,
            Self::HmacSha2_384_192 => 13,
            Self::HmacSha2_512_256 => 14,
        }
    }

    /// Octets of the key.
    #[must_use]
    pub const fn key_len(self) -> usize {
        match self {
            Self::HmacSha2_256_128 => 32,
            Self::HmacSha2_384_192 => 48,
            Self::HmacSha2_512_256 => 64,
        }
    }

    /// Octets of the truncated ICV: half of the hash.
    #[must_use]
    pub const fn icv_len(self) -> usize {
        self.key_len() / 2
    }
}

/// A pseudo-random function (transform type 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Prf {
    /// PRF_HMAC_SHA2_256, 5 (RFC 4868).
    HmacSha2_256,
    /// PRF_HMAC_SHA2_384, 6 (RFC 4868).
    HmacSha2_384,
    /// PRF_HMAC_SHA2_512, 7 (RFC 4868).
    HmacSha2_512,
}

impl Prf {
    /// Makes the function with that IANA number; `None` if we do not have it.
    #[must_use]
    pub const fn from_iana(id: u16) -> Option<Self> {
        match id {
            5 => Some(Self::HmacSha2_256),
            6 => Some(Self::HmacSha2_384),
            7 => Some(Self::HmacSha2_512),
            _ => None,
        }
    }

    /// The IANA number.
    #[must_use]
    pub const fn iana(self) -> u16 {
        match self {
            Self::HmacSha2_256 => 5,
            Self::HmacSha2_384 => 6,
            Self::HmacSha2_512 => 7,
        }
    }

    /// Octets of output, and the preferred key length (RFC 4868 §2.1.2).
    #[must_use]
    pub const fn output_len(self) -> usize {
        match self {
            Self::HmacSha2_256 => 32,
            Self::HmacSha2_384 => 48,
            Self::HmacSha2_512 => 64,
        }
    }
}

/// A Diffie-Hellman group (transform type 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Group {
    /// 2048-bit MODP, 14 (RFC 3526 §3).
    Modp2048,
    /// 256-bit random ECP (P-256), 19 (RFC 5903).
    Ecp256,
    /// Curve25519, 31 (RFC 8031).
    Curve25519,
}

impl Group {
    /// Makes the group with that IANA number; `None` if we do not have it.
    #[must_use]
    pub const fn from_iana(id: u16) -> Option<Self> {
        match id {
            14 => Some(Self::Modp2048),
            19 => Some(Self::Ecp256),
            31 => Some(Self::Curve25519),
            _ => None,
        }
    }

    /// The IANA number.
    #[must_use]
    pub const fn iana(self) -> u16 {
        match self {
            Self::Modp2048 => 14,
            Self::Ecp256 => 19,
            Self::Curve25519 => 31,
        }
    }

    /// Octets of Key Exchange Data in a KE payload.
    #[must_use]
    pub const fn public_len(self) -> usize {
        match self {
            Self::Modp2048 => 256,
            Self::Ecp256 => 64,
            Self::Curve25519 => 32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_leads_back_to_its_transform() {
        for id in 0..=u16::from(u8::MAX) {
            for bits in [None, Some(128), Some(192), Some(256), Some(64)] {
                if let Some(e) = Encryption::from_iana(id, bits) {
                    assert_eq!((e.iana(), Some(e.key_bits())), (id, bits));
                }
            }
            if let Some(i) = Integrity::from_iana(id) {
                assert_eq!(i.iana(), id);
            }
            if let Some(p) = Prf::from_iana(id) {
                assert_eq!(p.iana(), id);
            }
            if let Some(g) = Group::from_iana(id) {
                assert_eq!(g.iana(), id);
            }
        }
    }
}
