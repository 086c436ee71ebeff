//! Public keys in messages: an algorithm number, a parity and 32 octets.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ED25519, UnparsedPublicKey};
use crypto_bigint::modular::ConstMontyForm;
use crypto_bigint::{Encoding, U256};
use curve25519_dalek::edwards::CompressedEdwardsY;
use sha1::Sha1;
use sha2::{Digest, Sha256};

use crate::refusal::{KeyRefusal, Refusal};

/// A signature algorithm with a number of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// Ed25519 (RFC 8032), number 0.
    Ed25519,
    /// ECDSA on P-256 with SHA-256, number 1.
    P256,
}

impl Algorithm {
    /// The number in a message.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Ed25519 => 0,
            Self::P256 => 1,
        }
    }
}

/// Which of the two points with one x coordinate is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parity {
    /// y is even.
    Even,
    /// y is odd.
    Odd,
}

impl Parity {
    /// The parity of a number in network byte order.
    pub(crate) fn of(octets: &[u8]) -> Self {
        if octets.last().is_some_and(|octet| octet & 1 == 1) { Self::Odd } else { Self::Even }
    }
}

/// A public key that passed every check: on the curve, reduced, canonical, not of small order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(Kind);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Kind {
    Ed25519([u8; 32]),
    P256 { x: [u8; 32], y: [u8; 32] },
}

impl PublicKey {
    /// Checks an Ed25519 key as RFC 8032 §5.1.2 writes it.
    ///
    /// # Errors
    /// It is no point, not written canonically, or of small order.
    pub fn ed25519(octets: [u8; 32]) -> Result<Self, KeyRefusal> {
        let compressed = CompressedEdwardsY(octets);
        let point = compressed.decompress().ok_or(KeyRefusal::NoPoint)?;
        // RFC 8032 §5.1.3: y ≥ p, and x = 0 with the sign bit, are other spellings of a point.
        if point.compress() != compressed {
            return Err(KeyRefusal::NotCanonical);
        }
        if point.is_small_order() {
            return Err(KeyRefusal::SmallOrder);
        }
        Ok(Self(Kind::Ed25519(octets)))
    }

    /// Finds the P-256 point of an x coordinate and the parity of y.
    ///
    /// # Errors
    /// x is not below the prime, or no point has it.
    pub fn p256(x: [u8; 32], parity: Parity) -> Result<Self, KeyRefusal> {
        let wide = U256::from_be_bytes(x.into());
        if wide >= PRIME {
            return Err(KeyRefusal::NotReduced);
        }
        let element = Element::new(&wide);
        let square = element * element * element - element.double() - element + Element::new(&B);
        // The prime is 3 modulo 4, so that a square's root is its power (p + 1) / 4.
        let root = square.pow(&ROOT_EXPONENT);
        if root * root != square {
            return Err(KeyRefusal::NoPoint);
        }
        let y = if Parity::of(&root.retrieve().to_be_bytes()) == parity { root } else { -root }.retrieve();
        Ok(Self(Kind::P256 { x, y: y.to_be_bytes().into() }))
    }

    /// Reads a key from a SubjectPublicKeyInfo (RFC 5280 §4.1.2.7) in DER; only the one form that [`Self::spki`] writes.
    ///
    /// # Errors
    /// It is another algorithm, another form, or no valid key.
    pub fn from_spki(spki: &[u8]) -> Result<Self, KeyRefusal> {
        let raw = |prefix: &[u8]| spki.strip_prefix(prefix);
        let key = if let Some(point) = raw(P256_SPKI_PREFIX) {
            let (x, y) = point.split_at_checked(32).ok_or(KeyRefusal::NoPoint)?;
            Self::p256(x.try_into().map_err(|_| KeyRefusal::NoPoint)?, Parity::of(y))?
        } else if let Some(octets) = raw(ED25519_SPKI_PREFIX) {
            Self::ed25519(octets.try_into().map_err(|_| KeyRefusal::NoPoint)?)?
        } else {
            return Err(KeyRefusal::Algorithm);
        };
        // A y that does not belong to x would have another SPKI.
        if key.spki() == spki { Ok(key) } else { Err(KeyRefusal::NoPoint) }
    }

    /// Which algorithm the key is for.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        match self.0 {
            Kind::Ed25519(_) => Algorithm::Ed25519,
            Kind::P256 { .. } => Algorithm::P256,
        }
    }

    /// The parity bit of a message.
    pub(crate) fn parity(&self) -> u8 {
        match self.0 {
            Kind::Ed25519(_) => 0,
            Kind::P256 { y, .. } => match Parity::of(&y) {
                Parity::Even => 0,
                Parity::Odd => 1,
            },
        }
    }

    /// The 32 octets of a message.
    #[must_use]
    pub const fn octets(&self) -> &[u8; 32] {
        match &self.0 {
            Kind::Ed25519(octets) | Kind::P256 { x: octets, .. } => octets,
        }
    }

    /// The bits of subjectPublicKey: an uncompressed point (RFC 5480 §2.2), or RFC 8032's octets (RFC 8410 §4).
    #[must_use]
    pub fn key_bits(&self) -> Vec<u8> {
        match &self.0 {
            Kind::Ed25519(octets) => octets.to_vec(),
            Kind::P256 { x, y } => [[UNCOMPRESSED].as_slice(), x, y].concat(),
        }
    }

    /// The SubjectPublicKeyInfo (RFC 5280 §4.1.2.7) in DER.
    #[must_use]
    pub fn spki(&self) -> Vec<u8> {
        match &self.0 {
            Kind::Ed25519(octets) => [ED25519_SPKI_PREFIX, octets].concat(),
            Kind::P256 { x, y } => [P256_SPKI_PREFIX, x, y].concat(),
        }
    }

    /// SHA-256 of the SPKI: how a key is named where it does not stand itself.
    #[must_use]
    pub fn spki_hash(&self) -> [u8; 32] {
        Sha256::digest(self.spki()).into()
    }

    /// The key identifier of RFC 5280 §4.2.1.2 (1): SHA-1 of the key bits.
    #[must_use]
    pub fn identifier(&self) -> [u8; 20] {
        Sha1::digest(self.key_bits()).into()
    }

    /// Checks a signature in the fixed form: r ‖ s, or Ed25519's 64 octets.
    ///
    /// # Errors
    /// It does not hold.
    pub fn verify(&self, message: &[u8], signature: &[u8; 64]) -> Result<(), Refusal> {
        let key_bits = self.key_bits();
        let held = match self.0 {
            Kind::Ed25519(_) => UnparsedPublicKey::new(&ED25519, key_bits).verify(message, signature),
            Kind::P256 { .. } => UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key_bits).verify(message, signature),
        };
        held.map_err(|_| Refusal::Signature)
    }
}

/// The key in a request: one that is sent whole, or the hash of one that follows at first contact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RequestedKey {
    /// An Ed25519 or P-256 key.
    Whole(PublicKey),
    /// SHA-256 of the SPKI of any other key; only a short reply can answer it.
    Hashed([u8; 32]),
}

impl RequestedKey {
    /// Reads algorithm, parity and octets.
    pub(crate) fn from_parts(algorithm: u8, parity: u8, octets: [u8; 32]) -> Result<Self, KeyRefusal> {
        match (algorithm, parity) {
            (0, 0) => PublicKey::ed25519(octets).map(Self::Whole),
            (1, 0) => PublicKey::p256(octets, Parity::Even).map(Self::Whole),
            (1, _) => PublicKey::p256(octets, Parity::Odd).map(Self::Whole),
            (HASHED, 0) => Ok(Self::Hashed(octets)),
            (0 | HASHED, _) => Err(KeyRefusal::NotCanonical),
            (_, _) => Err(KeyRefusal::Algorithm),
        }
    }

    /// Algorithm, parity and octets.
    pub(crate) fn parts(&self) -> (u8, u8, &[u8; 32]) {
        match self {
            Self::Whole(key) => (key.algorithm().number(), key.parity(), key.octets()),
            Self::Hashed(hash) => (HASHED, 0, hash),
        }
    }

    /// SHA-256 of the SPKI: how the store names every key it ever met.
    #[must_use]
    pub fn spki_hash(&self) -> [u8; 32] {
        match self {
            Self::Whole(key) => key.spki_hash(),
            Self::Hashed(hash) => *hash,
        }
    }
}

/// Algorithm number of a hashed key, and of messages without one.
pub(crate) const HASHED: u8 = 7;

/// First octet of an uncompressed point (SEC 1 §2.3.3).
const UNCOMPRESSED: u8 = 4;

/// DER before the 64 octets x ‖ y: id-ecPublicKey, secp256r1 (RFC 5480 §2.1.1), BIT STRING, uncompressed.
const P256_SPKI_PREFIX: &[u8] = &[
    0x30,
    0x59,
    0x30,
    0x13,
    0x06,
    0x07,
    0x2a,
    0x86,
    0x48,
    0xce,
    0x3d,
    0x02,
    0x01,
    0x06,
    0x08,
    0x2a,
    0x86,
    0x48,
    0xce,
    0x3d,
    0x03,
    0x01,
    0x07,
    0x03,
    0x42,
    0x00,
    UNCOMPRESSED,
];

/// DER before the 32 octets: id-Ed25519 (RFC 8410 §4), BIT STRING.
const ED25519_SPKI_PREFIX: &[u8] = &[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

crypto_bigint::const_monty_params!(
    P256Field,
    U256,
    "ffffffff00000001000000000000000000000000ffffffffffffffffffffffff",
    "The field of P-256 (FIPS 186-5, SP 800-186 §3.2.1.3)."
);
type Element = ConstMontyForm<P256Field, { U256::LIMBS }>;

const PRIME: U256 = U256::from_be_hex("ffffffff00000001000000000000000000000000ffffffffffffffffffffffff");
const B: U256 = U256::from_be_hex("5ac635d8aa3a93e7b3ebbd55769886bc651d06b0cc53b0f63bce3c3e27d2604b");
/// (p + 1) / 4.
const ROOT_EXPONENT: U256 = U256::from_be_hex("3fffffffc0000000400000000000000000000000400000000000000000000000");

#[cfg(test)]
mod tests {
    use super::*;

    fn octets(hex: &str) -> [u8; 32] {
        let octets: Vec<u8> = (0..64).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
        octets.try_into().unwrap()
    }

    /// SP 800-186 §3.2.1.3: the generator.
    const GX: &str = "6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296";
    const GY: &str = "4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5";

    #[test]
    fn the_generator_of_p256_is_found_from_its_x() {
        let key = PublicKey::p256(octets(GX), Parity::Odd).unwrap();
        assert_eq!(key.key_bits(), [&[4][..], &octets(GX), &octets(GY)].concat());
        let other = PublicKey::p256(octets(GX), Parity::Even).unwrap();
        assert_ne!(other, key);
        assert_eq!(PublicKey::from_spki(&key.spki()), Ok(key));
        assert_eq!(PublicKey::from_spki(&other.spki()), Ok(other));
    }

    #[test]
    fn a_p256_x_that_is_not_reduced_or_no_point_is_refused() {
        let five = U256::from_u8(5);
        for wide in [PRIME, PRIME.wrapping_add(&five), U256::MAX] {
            assert_eq!(PublicKey::p256(wide.to_be_bytes().into(), Parity::Even), Err(KeyRefusal::NotReduced));
        }
        let no_point = (0..u8::MAX).filter(|&x| {
            let mut octets = [0; 32];
            octets[31] = x;
            PublicKey::p256(octets, Parity::Even) == Err(KeyRefusal::NoPoint)
        });
        assert!((100..150).contains(&no_point.count()), "about every second x has no point");
    }

    #[test]
    fn small_order_and_non_canonical_ed25519_keys_are_refused() {
        let zeros = "00".repeat(32);
        let small = [
            format!("01{}", "00".repeat(31)),
            zeros,
            format!("ec{}7f", "ff".repeat(30)),
            "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05".to_owned(),
        ];
        for key in small {
            assert_eq!(PublicKey::ed25519(octets(&key)), Err(KeyRefusal::SmallOrder), "{key}");
        }
        for key in [format!("ed{}7f", "ff".repeat(30)), format!("01{}80", "00".repeat(30))] {
            assert!(
                matches!(PublicKey::ed25519(octets(&key)), Err(KeyRefusal::NotCanonical | KeyRefusal::NoPoint)),
                "{key}"
            );
        }
    }

    #[test]
    fn an_ed25519_key_with_a_parity_and_unassigned_algorithms_are_refused() {
        // RFC 8032 §7.1, test 1.
        let key = octets("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
        assert!(RequestedKey::from_parts(0, 0, key).is_ok());
        assert_eq!(RequestedKey::from_parts(0, 1, key), Err(KeyRefusal::NotCanonical));
        assert_eq!(RequestedKey::from_parts(7, 1, key), Err(KeyRefusal::NotCanonical));
        for algorithm in 2..7 {
            assert_eq!(RequestedKey::from_parts(algorithm, 0, key), Err(KeyRefusal::Algorithm));
        }
        let whole = PublicKey::ed25519(key).unwrap();
        assert_eq!(PublicKey::from_spki(&whole.spki()), Ok(whole));
        assert_eq!(PublicKey::from_spki(&whole.spki()[..43]), Err(KeyRefusal::NoPoint));
        assert_eq!(PublicKey::from_spki(b"0"), Err(KeyRefusal::Algorithm));
    }
}
