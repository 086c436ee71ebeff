//! Private keys of clients and CAs.

use std::fmt;

use aws_lc_rs::agreement;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use rand::CryptoRng;
use wire::Secret;
use zeroize::Zeroizing;

use crate::key::{Algorithm, Parity, PublicKey};

/// A private key that this format has a number for. It never leaves its device, or it is sealed.
pub struct PrivateKey {
    pair: Pair,
    public: PublicKey,
}

enum Pair {
    Ed25519(Ed25519KeyPair),
    P256(EcdsaKeyPair),
}

/// Why a private key cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrivateKeyError {
    /// The octets are no PKCS#8 of an Ed25519 or P-256 key.
    #[error("this is no private key of Ed25519 or P-256 in PKCS#8")]
    Malformed,
    /// The library could not sign or export.
    #[error("the cryptographic library failed")]
    Library,
}

impl PrivateKey {
    /// Draws a key.
    ///
    /// # Errors
    /// The library failed.
    pub fn draw(algorithm: Algorithm, rng: &mut impl CryptoRng) -> Result<Self, PrivateKeyError> {
        let mut seed = Zeroizing::new([0; 32]);
        match algorithm {
            Algorithm::Ed25519 => {
                rng.fill_bytes(seed.as_mut());
                let pair = Ed25519KeyPair::from_seed_unchecked(seed.as_ref()).map_err(|_| PrivateKeyError::Library)?;
                Self::new(Pair::Ed25519(pair))
            }
            Algorithm::P256 => {
                // FIPS 186-5 §A.2.2: draw again while the number is not in 1 to n - 1; that happens once in 2^32.
                let scalar = loop {
                    rng.fill_bytes(seed.as_mut());
                    if let Ok(scalar) = agreement::PrivateKey::from_private_key(&agreement::ECDH_P256, seed.as_ref()) {
                        break scalar;
                    }
                };
                let public = scalar.compute_public_key().map_err(|_| PrivateKeyError::Library)?;
                let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
                let pair = EcdsaKeyPair::from_private_key_and_public_key(algorithm, seed.as_ref(), public.as_ref());
                Self::new(Pair::P256(pair.map_err(|_| PrivateKeyError::Library)?))
            }
        }
    }

    /// Reads a key from PKCS#8 (RFC 5958).
    ///
    /// # Errors
    /// It is of another algorithm, or malformed.
    pub fn from_pkcs8(pkcs8: &[u8]) -> Result<Self, PrivateKeyError> {
        if let Ok(pair) = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8) {
            return Self::new(Pair::P256(pair));
        }
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(pkcs8).map_err(|_| PrivateKeyError::Malformed)?;
        Self::new(Pair::Ed25519(pair))
    }

    /// The key in PKCS#8 (RFC 5958), version 1.
    ///
    /// # Errors
    /// The library failed.
    pub fn to_pkcs8(&self) -> Result<Secret, PrivateKeyError> {
        let document = match &self.pair {
            Pair::Ed25519(pair) => pair.to_pkcs8v1(),
            Pair::P256(pair) => pair.to_pkcs8v1(),
        };
        document.map(|octets| Secret::from_slice(octets.as_ref())).map_err(|_| PrivateKeyError::Library)
    }

    /// The public key.
    #[must_use]
    pub const fn public(&self) -> &PublicKey {
        &self.public
    }

    /// The bits of subjectPublicKey.
    pub(crate) fn raw_public(&self) -> &[u8] {
        match &self.pair {
            Pair::Ed25519(pair) => pair.public_key().as_ref(),
            Pair::P256(pair) => pair.public_key().as_ref(),
        }
    }

    /// Signs in the fixed form: r ‖ s, or Ed25519's 64 octets. The library draws the nonce of ECDSA itself.
    ///
    /// # Errors
    /// The library failed.
    pub fn sign(&self, message: &[u8]) -> Result<[u8; 64], PrivateKeyError> {
        let signature = match &self.pair {
            Pair::Ed25519(pair) => pair.try_sign(message),
            Pair::P256(pair) => pair.sign(&SystemRandom::new(), message),
        };
        let signature = signature.map_err(|_| PrivateKeyError::Library)?;
        signature.as_ref().try_into().map_err(|_| PrivateKeyError::Library)
    }

    fn new(pair: Pair) -> Result<Self, PrivateKeyError> {
        let public = match &pair {
            Pair::Ed25519(pair) => pair.public_key().as_ref().try_into().ok().map(PublicKey::ed25519),
            Pair::P256(pair) => pair
                .public_key()
                .as_ref()
                .split_first_chunk::<33>()
                .and_then(|(head, y)| Some(PublicKey::p256(*head.last_chunk()?, Parity::of(y)))),
        };
        match public {
            Some(Ok(public)) => Ok(Self { pair, public }),
            Some(Err(_)) | None => Err(PrivateKeyError::Malformed),
        }
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey({:?})", self.public.algorithm())
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn a_drawn_key_signs_and_comes_back_from_pkcs8() {
        let mut rng = StdRng::seed_from_u64(1);
        for algorithm in [Algorithm::Ed25519, Algorithm::P256] {
            let key = PrivateKey::draw(algorithm, &mut rng).unwrap();
            let again = PrivateKey::from_pkcs8(key.to_pkcs8().unwrap().expose()).unwrap();
            assert_eq!(again.public(), key.public());
            let signature = again.sign(b"message").unwrap();
            assert_eq!(key.public().verify(b"message", &signature), Ok(()));
            assert!(key.public().verify(b"massage", &signature).is_err());
            assert_eq!(format!("{key:?}"), format!("PrivateKey({algorithm:?})"));
        }
        assert_eq!(PrivateKey::from_pkcs8(b"x").unwrap_err(), PrivateKeyError::Malformed);
    }

    #[test]
    fn the_same_randomness_gives_the_same_key() {
        for algorithm in [Algorithm::Ed25519, Algorithm::P256] {
            let draw = || PrivateKey::draw(algorithm, &mut StdRng::seed_from_u64(2)).unwrap();
            assert_eq!(draw().public(), draw().public());
        }
    }
}
