//! The key of a CA: one that the format has a number for, or P-384 or RSA for those whose rules demand it.

use std::fmt;

use rcgen::{KeyPair, PublicKeyData, RsaKeySize, SignatureAlgorithm, SigningKey};
use sha1::Sha1;
use sha2::{Digest, Sha256};
use wire::Secret;

use super::AuthorityError;
use crate::key::{Algorithm, PublicKey};
use crate::private::PrivateKey;
use crate::template::ecdsa_signature;

/// What a CA signs with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AuthorityAlgorithm {
    /// ECDSA on P-256 with SHA-256: the default, understood by all.
    P256,
    /// Ed25519.
    Ed25519,
    /// ECDSA on P-384 with SHA-384. No complete reply carries its signature.
    P384,
    /// RSA of 3072 bits, PKCS#1 v1.5 with SHA-256. No complete reply carries its signature.
    Rsa3072,
}

/// A CA's private key.
pub struct AuthorityKey(Kind);

enum Kind {
    Numbered(PrivateKey),
    P384(KeyPair),
    Rsa3072(KeyPair),
}

impl AuthorityKey {
    /// Draws a key. The library draws P-384 and RSA itself.
    ///
    /// # Errors
    /// The library failed.
    pub fn draw(algorithm: AuthorityAlgorithm, rng: &mut impl rand::CryptoRng) -> Result<Self, AuthorityError> {
        let library = |_| AuthorityError::Library;
        Ok(Self(match algorithm {
            AuthorityAlgorithm::P256 => Kind::Numbered(PrivateKey::draw(Algorithm::P256, rng)?),
            AuthorityAlgorithm::Ed25519 => Kind::Numbered(PrivateKey::draw(Algorithm::Ed25519, rng)?),
            AuthorityAlgorithm::P384 => {
                Kind::P384(KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).map_err(library)?)
            }
            AuthorityAlgorithm::Rsa3072 => {
                Kind::Rsa3072(KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_3072).map_err(library)?)
            }
        }))
    }

    /// Reads a key from PKCS#8 (RFC 5958).
    ///
    /// # Errors
    /// It is of no algorithm that a CA may have, or malformed.
    pub fn from_pkcs8(pkcs8: &[u8]) -> Result<Self, AuthorityError> {
        if let Ok(key) = PrivateKey::from_pkcs8(pkcs8) {
            return Ok(Self(Kind::Numbered(key)));
        }
        let read = |algorithm| KeyPair::from_pkcs8_der_and_sign_algo(&pkcs8.into(), algorithm);
        if let Ok(pair) = read(&rcgen::PKCS_ECDSA_P384_SHA384) {
            return Ok(Self(Kind::P384(pair)));
        }
        read(&rcgen::PKCS_RSA_SHA256).map(|pair| Self(Kind::Rsa3072(pair))).map_err(|_| AuthorityError::Key)
    }

    /// The key in PKCS#8 (RFC 5958), to be sealed.
    ///
    /// # Errors
    /// The library failed.
    pub fn to_pkcs8(&self) -> Result<Secret, AuthorityError> {
        match &self.0 {
            Kind::Numbered(key) => Ok(key.to_pkcs8()?),
            Kind::P384(pair) | Kind::Rsa3072(pair) => Ok(Secret::new(pair.serialize_der())),
        }
    }

    /// What it signs with.
    #[must_use]
    pub const fn algorithm(&self) -> AuthorityAlgorithm {
        match &self.0 {
            Kind::Numbered(key) => match key.public().algorithm() {
                Algorithm::Ed25519 => AuthorityAlgorithm::Ed25519,
                Algorithm::P256 => AuthorityAlgorithm::P256,
            },
            Kind::P384(_) => AuthorityAlgorithm::P384,
            Kind::Rsa3072(_) => AuthorityAlgorithm::Rsa3072,
        }
    }

    /// The public key, if the format has a number for it.
    #[must_use]
    pub const fn public(&self) -> Option<&PublicKey> {
        match self.numbered() {
            Some(key) => Some(key.public()),
            None => None,
        }
    }

    /// The SubjectPublicKeyInfo (RFC 5280 §4.1.2.7) in DER.
    #[must_use]
    pub fn spki(&self) -> Vec<u8> {
        match &self.0 {
            Kind::Numbered(key) => key.public().spki(),
            Kind::P384(pair) | Kind::Rsa3072(pair) => pair.subject_public_key_info(),
        }
    }

    /// SHA-256 of the SPKI.
    #[must_use]
    pub fn spki_hash(&self) -> [u8; 32] {
        Sha256::digest(self.spki()).into()
    }

    /// The key identifier of RFC 5280 §4.2.1.2 (1): SHA-1 of the key bits.
    #[must_use]
    pub fn identifier(&self) -> [u8; 20] {
        Sha1::digest(self.der_bytes()).into()
    }

    pub(super) const fn numbered(&self) -> Option<&PrivateKey> {
        match &self.0 {
            Kind::Numbered(key) => Some(key),
            Kind::P384(_) | Kind::Rsa3072(_) => None,
        }
    }
}

impl From<PrivateKey> for AuthorityKey {
    fn from(key: PrivateKey) -> Self {
        Self(Kind::Numbered(key))
    }
}

impl fmt::Debug for AuthorityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AuthorityKey({:?})", self.algorithm())
    }
}

impl PublicKeyData for AuthorityKey {
    fn der_bytes(&self) -> &[u8] {
        match &self.0 {
            Kind::Numbered(key) => key.der_bytes(),
            Kind::P384(pair) | Kind::Rsa3072(pair) => pair.der_bytes(),
        }
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        match &self.0 {
            Kind::Numbered(key) => PublicKeyData::algorithm(key),
            Kind::P384(pair) | Kind::Rsa3072(pair) => PublicKeyData::algorithm(pair),
        }
    }
}

impl SigningKey for AuthorityKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        match &self.0 {
            Kind::Numbered(key) => SigningKey::sign(key, message),
            Kind::P384(pair) | Kind::Rsa3072(pair) => pair.sign(message),
        }
    }
}

impl PublicKeyData for PrivateKey {
    fn der_bytes(&self) -> &[u8] {
        self.raw_public()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        match self.public().algorithm() {
            Algorithm::Ed25519 => &rcgen::PKCS_ED25519,
            Algorithm::P256 => &rcgen::PKCS_ECDSA_P256_SHA256,
        }
    }
}

impl SigningKey for PrivateKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let signature = Self::sign(self, message).map_err(|_| rcgen::Error::RemoteKeyError)?;
        Ok(match self.public().algorithm() {
            Algorithm::Ed25519 => signature.to_vec(),
            Algorithm::P256 => ecdsa_signature(&signature),
        })
    }
}
