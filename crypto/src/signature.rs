//! Digital signatures for IKE_AUTH: RSASSA-PSS and ECDSA P-256, as RFC 7427 and RFC 4754 spell them.
//!
//! Signing draws randomness inside its library, so only a driver calls [`SigningKey::sign`]; a protocol core asks for
//! a signature as an effect. Verifying is a pure function and strict: an AlgorithmIdentifier that is not on the list
//! below is refused, whatever the key could do.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeyPair as RsaKeyPair;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING,
    EcdsaKeyPair, KeyPair as _, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512,
    RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384,
    RSA_PSS_SHA512, RsaEncoding, UnparsedPublicKey, VerificationAlgorithm,
};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use wire::Writer;

/// What kind of key signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyKind {
    /// RSA with a modulus of 2048 to 8192 bits.
    Rsa,
    /// ECDSA on P-256.
    EcdsaP256,
}

/// A way to sign that we offer ourselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SignatureScheme {
    /// RSASSA-PSS with SHA-256, MGF1 with SHA-256 and a salt of 32 octets (RFC 7427 appendix A.4.3).
    RsaPssSha256,
    /// RSASSA-PSS with SHA-384, MGF1 with SHA-384 and a salt of 48 octets.
    RsaPssSha384,
    /// RSASSA-PSS with SHA-512, MGF1 with SHA-512 and a salt of 64 octets.
    RsaPssSha512,
    /// ECDSA on P-256 with SHA-256, the signature in DER (RFC 7427 appendix A.3.2).
    EcdsaP256Sha256,
    /// ECDSA on P-256 with SHA-256, the signature as r ‖ s in 64 octets (RFC 4754 §3, auth method 9).
    EcdsaP256Sha256Raw,
}

impl SignatureScheme {
    /// Chooses how a key of that kind signs for a peer that named these hash algorithms in
    /// SIGNATURE_HASH_ALGORITHMS (RFC 7427 §4); `None` if nothing fits.
    ///
    /// A peer that named none knows no Digital Signature method; an ECDSA key then signs by auth method 9.
    #[must_use]
    pub fn choose(kind: KeyKind, peer_hashes: &[u16]) -> Option<Self> {
        let candidates: &[Self] = match kind {
            KeyKind::Rsa => &[Self::RsaPssSha256, Self::RsaPssSha384, Self::RsaPssSha512],
            KeyKind::EcdsaP256 if peer_hashes.is_empty() => return Some(Self::EcdsaP256Sha256Raw),
            KeyKind::EcdsaP256 => &[Self::EcdsaP256Sha256],
        };
        candidates.iter().copied().find(|scheme| peer_hashes.contains(&scheme.hash()))
    }

    /// The IANA number of its hash (IKEv2 Hash Algorithms): SHA2-256 is 2, SHA2-384 is 3, SHA2-512 is 4.
    #[must_use]
    pub const fn hash(self) -> u16 {
        match self {
            Self::RsaPssSha256 | Self::EcdsaP256Sha256 | Self::EcdsaP256Sha256Raw => 2,
            Self::RsaPssSha384 => 3,
            Self::RsaPssSha512 => 4,
        }
    }

    /// The IANA number of the IKEv2 Authentication Method: 14, or 9 for the raw ECDSA form.
    #[must_use]
    pub const fn auth_method(self) -> u8 {
        match self {
            Self::RsaPssSha256 | Self::RsaPssSha384 | Self::RsaPssSha512 | Self::EcdsaP256Sha256 => 14,
            Self::EcdsaP256Sha256Raw => 9,
        }
    }

    /// The AlgorithmIdentifier in DER that stands before the signature (RFC 7427 §3); empty for auth method 9, which
    /// carries none.
    #[must_use]
    pub fn algorithm_identifier(self) -> Vec<u8> {
        match self {
            Self::RsaPssSha256 => pss_identifier(&SHA256_OID, 32, HashParameters::Null),
            Self::RsaPssSha384 => pss_identifier(&SHA384_OID, 48, HashParameters::Null),
            Self::RsaPssSha512 => pss_identifier(&SHA512_OID, 64, HashParameters::Null),
            Self::EcdsaP256Sha256 => ECDSA_WITH_SHA256.to_vec(),
            Self::EcdsaP256Sha256Raw => Vec::new(),
        }
    }
}

/// The hash algorithms that [`verify`] accepts, for our own SIGNATURE_HASH_ALGORITHMS (RFC 7427 §4).
pub const SIGNATURE_HASHES: [u16; 3] = [2, 3, 4];

/// Why a key cannot be used or a signature does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// The file is no PEM with a private key.
    #[error("no private key in PEM found")]
    NotPem,
    /// The key is in an older form than PKCS#8.
    #[error("the private key is not in PKCS#8; convert it with `openssl pkcs8 -topk8 -nocrypt`")]
    NotPkcs8,
    /// The key is neither ECDSA P-256 nor RSA of 2048 to 8192 bits, or damaged.
    #[error("the private key is neither ECDSA P-256 nor RSA of 2048 to 8192 bits")]
    UnsupportedKey,
    /// The key cannot sign by that scheme, or the library failed.
    #[error("the key cannot sign by that scheme")]
    Scheme,
    /// The AlgorithmIdentifier is not on the list.
    #[error("the signature algorithm is not RSASSA-PSS, RSASSA-PKCS1-v1_5 or ECDSA P-256 with SHA-2")]
    UnsupportedAlgorithm,
    /// The public key is not of the kind that the algorithm needs.
    #[error("the public key does not fit the signature algorithm")]
    KeyMismatch,
    /// The signature was not made over this message by this key.
    #[error("the signature is wrong")]
    Wrong,
}

/// A private key that signs; it has no readable form.
pub struct SigningKey {
    key: Key,
}

impl SigningKey {
    /// Reads the first private key of a PEM file; it must be PKCS#8 without a passphrase.
    ///
    /// # Errors
    /// There is no key, it is not PKCS#8, of another kind than ECDSA P-256 and RSA, or too small.
    pub fn from_pem(pem: &[u8]) -> Result<Self, SignatureError> {
        match PrivateKeyDer::from_pem_slice(pem) {
            Ok(PrivateKeyDer::Pkcs8(key)) => Self::from_pkcs8_der(key.secret_pkcs8_der()),
            Ok(_) => Err(SignatureError::NotPkcs8),
            Err(_) => Err(SignatureError::NotPem),
        }
    }

    /// Reads a PKCS#8 private key in DER.
    ///
    /// # Errors
    /// It is of another kind than ECDSA P-256 and RSA, damaged, or too small.
    pub fn from_pkcs8_der(der: &[u8]) -> Result<Self, SignatureError> {
        if let (Ok(der_form), Ok(raw_form)) = (
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, der),
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der),
        ) {
            return Ok(Self { key: Key::EcdsaP256 { der_form, raw_form } });
        }
        // The library takes 2048 to 8192 bits and nothing else.
        let pair = RsaKeyPair::from_pkcs8(der).map_err(|_| SignatureError::UnsupportedKey)?;
        Ok(Self { key: Key::Rsa(Box::new(pair)) })
    }

    /// What kind of key it is.
    #[must_use]
    pub const fn kind(&self) -> KeyKind {
        match self.key {
            Key::Rsa(_) => KeyKind::Rsa,
            Key::EcdsaP256 { .. } => KeyKind::EcdsaP256,
        }
    }

    /// Whether this is the private half of the key in that SubjectPublicKeyInfo.
    #[must_use]
    pub fn matches(&self, spki: &[u8]) -> bool {
        let ours = match &self.key {
            Key::Rsa(pair) => pair.public_key().as_ref(),
            Key::EcdsaP256 { der_form, .. } => der_form.public_key().as_ref(),
        };
        PublicKey::of(spki).is_ok_and(|public| public.kind == self.kind() && public.bytes == ours)
    }

    /// Signs `message`; the scheme's AlgorithmIdentifier is not part of the result.
    ///
    /// # Errors
    /// The scheme is for another kind of key, or the library failed.
    pub fn sign(&self, scheme: SignatureScheme, message: &[u8]) -> Result<Vec<u8>, SignatureError> {
        let rng = SystemRandom::new();
        match (&self.key, scheme) {
            (Key::Rsa(pair), SignatureScheme::RsaPssSha256) => sign_rsa(pair, &RSA_PSS_SHA256, message),
            (Key::Rsa(pair), SignatureScheme::RsaPssSha384) => sign_rsa(pair, &RSA_PSS_SHA384, message),
            (Key::Rsa(pair), SignatureScheme::RsaPssSha512) => sign_rsa(pair, &RSA_PSS_SHA512, message),
            (Key::EcdsaP256 { der_form: pair, .. }, SignatureScheme::EcdsaP256Sha256)
            | (Key::EcdsaP256 { raw_form: pair, .. }, SignatureScheme::EcdsaP256Sha256Raw) => {
                let signature = pair.sign(&rng, message).map_err(|_| SignatureError::Scheme)?;
                Ok(signature.as_ref().to_vec())
            }
            (Key::Rsa(_), SignatureScheme::EcdsaP256Sha256 | SignatureScheme::EcdsaP256Sha256Raw)
            | (
                Key::EcdsaP256 { .. },
                SignatureScheme::RsaPssSha256 | SignatureScheme::RsaPssSha384 | SignatureScheme::RsaPssSha512,
            ) => Err(SignatureError::Scheme),
        }
    }
}

/// Checks a signature of auth method 14 (RFC 7427 §3).
///
/// On the list: RSASSA-PSS and RSASSA-PKCS1-v1_5 with SHA-256, SHA-384 and SHA-512 (the hash also that of MGF1, the
/// salt as long as the hash), and ECDSA P-256 with SHA-256 in DER. We sign by PKCS1-v1_5 never, but charon does
/// unless it is told otherwise.
///
/// # Errors
/// The algorithm is not on the list, the key does not fit it, or the signature is wrong.
pub fn verify(
    algorithm_identifier: &[u8],
    spki: &[u8],
    message: &[u8],
    signature: &[u8],
) -> Result<(), SignatureError> {
    let (kind, algorithm) = algorithm_of(algorithm_identifier).ok_or(SignatureError::UnsupportedAlgorithm)?;
    check(kind, algorithm, spki, message, signature)
}

/// Checks a signature of auth method 9: ECDSA on P-256 with SHA-256, r ‖ s in 64 octets (RFC 4754 §3).
///
/// # Errors
/// The key is not on P-256, or the signature is wrong.
pub fn verify_ecdsa_p256_raw(spki: &[u8], message: &[u8], signature: &[u8]) -> Result<(), SignatureError> {
    check(KeyKind::EcdsaP256, &ECDSA_P256_SHA256_FIXED, spki, message, signature)
}

enum Key {
    Rsa(Box<RsaKeyPair>),
    /// The library binds the signature's form to the key, so there are two of one key.
    EcdsaP256 {
        der_form: EcdsaKeyPair,
        raw_form: EcdsaKeyPair,
    },
}

fn sign_rsa(pair: &RsaKeyPair, padding: &'static dyn RsaEncoding, message: &[u8]) -> Result<Vec<u8>, SignatureError> {
    let mut signature = vec![0; pair.public_modulus_len()];
    pair.sign(padding, &SystemRandom::new(), message, &mut signature).map_err(|_| SignatureError::Scheme)?;
    Ok(signature)
}

fn check(
    kind: KeyKind,
    algorithm: &'static dyn VerificationAlgorithm,
    spki: &[u8],
    message: &[u8],
    signature: &[u8],
) -> Result<(), SignatureError> {
    let public = PublicKey::of(spki)?;
    if public.kind != kind {
        return Err(SignatureError::KeyMismatch);
    }
    UnparsedPublicKey::new(algorithm, public.bytes).verify(message, signature).map_err(|_| SignatureError::Wrong)
}

/// The key inside a SubjectPublicKeyInfo (RFC 5280 §4.1.2.7): the point, or the RSAPublicKey.
struct PublicKey<'a> {
    kind: KeyKind,
    bytes: &'a [u8],
}

impl<'a> PublicKey<'a> {
    /// # Errors
    /// The kind is neither RSA (rsaEncryption) nor P-256 with an uncompressed point.
    fn of(spki: &'a [u8]) -> Result<Self, SignatureError> {
        if let Some(point) = spki.strip_prefix(&P256_SPKI_PREFIX)
            && point.len() == 65
            && point.first() == Some(&0x04)
        {
            return Ok(Self { kind: KeyKind::EcdsaP256, bytes: point });
        }
        let bytes = rsa_public_key(spki).ok_or(SignatureError::KeyMismatch)?;
        Ok(Self { kind: KeyKind::Rsa, bytes })
    }
}

fn rsa_public_key(spki: &[u8]) -> Option<&[u8]> {
    let (body, rest) = der_element(0x30, spki)?;
    let bit_string = body.strip_prefix(&RSA_ENCRYPTION)?;
    let (bits, after) = der_element(0x03, bit_string)?;
    let (unused, key) = bits.split_first()?;
    (rest.is_empty() && after.is_empty() && *unused == 0).then_some(key)
}

/// Splits a DER element with that tag into its content and what follows it.
fn der_element(tag: u8, der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (first, rest) = der.split_first()?;
    let (length, rest) = rest.split_first()?;
    let (length, rest) = match *length {
        short @ 0..=0x7f => (usize::from(short), rest),
        0x81 => {
            let (length, rest) = rest.split_first()?;
            (usize::from(*length), rest)
        }
        0x82 => {
            let (length, rest) = rest.split_first_chunk::<2>()?;
            (usize::from(u16::from_be_bytes(*length)), rest)
        }
        _ => return None,
    };
    (*first == tag).then(|| rest.split_at_checked(length))?
}

/// Whether a hash's AlgorithmIdentifier inside the PSS parameters carries a NULL or nothing; RFC 4055 §2.1 wants both
/// accepted.
#[derive(Clone, Copy)]
enum HashParameters {
    Null,
    Absent,
}

/// The AlgorithmIdentifier of RSASSA-PSS (RFC 4055 §3.1), hash and MGF1 hash alike. Every length stays below 128.
fn pss_identifier(hash: &[u8; 11], salt_len: u8, parameters: HashParameters) -> Vec<u8> {
    let hash_body = match parameters {
        HashParameters::Null => [hash.as_slice(), &[0x05, 0x00]].concat(),
        HashParameters::Absent => hash.to_vec(),
    };
    let hash_identifier = der(0x30, &hash_body);
    let mgf = der(0x30, &[MGF1_OID.as_slice(), &hash_identifier].concat());
    let fields = [der(0xa0, &hash_identifier), der(0xa1, &mgf), der(0xa2, &der(0x02, &[salt_len]))].concat();
    der(0x30, &[RSASSA_PSS_OID.as_slice(), &der(0x30, &fields)].concat())
}

fn der(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut w = Writer::with_capacity(body.len().saturating_add(2));
    w.u8(tag);
    w.u8(u8::try_from(body.len()).unwrap_or(u8::MAX));
    w.bytes(body);
    w.into_bytes()
}

fn algorithm_of(identifier: &[u8]) -> Option<(KeyKind, &'static dyn VerificationAlgorithm)> {
    if identifier == ECDSA_WITH_SHA256 {
        return Some((KeyKind::EcdsaP256, &ECDSA_P256_SHA256_ASN1));
    }
    let pkcs1: [(&[u8], &'static dyn VerificationAlgorithm); 3] = [
        (&SHA256_WITH_RSA, &RSA_PKCS1_2048_8192_SHA256),
        (&SHA384_WITH_RSA, &RSA_PKCS1_2048_8192_SHA384),
        (&SHA512_WITH_RSA, &RSA_PKCS1_2048_8192_SHA512),
    ];
    if let Some((_, algorithm)) = pkcs1.into_iter().find(|(known, _)| *known == identifier) {
        return Some((KeyKind::Rsa, algorithm));
    }
    let pss: [(&[u8; 11], u8, &'static dyn VerificationAlgorithm); 3] = [
        (&SHA256_OID, 32, &RSA_PSS_2048_8192_SHA256),
        (&SHA384_OID, 48, &RSA_PSS_2048_8192_SHA384),
        (&SHA512_OID, 64, &RSA_PSS_2048_8192_SHA512),
    ];
    pss.into_iter()
        .find(|(hash, salt_len, _)| {
            [HashParameters::Null, HashParameters::Absent]
                .into_iter()
                .any(|parameters| pss_identifier(hash, *salt_len, parameters) == identifier)
        })
        .map(|(_, _, algorithm)| (KeyKind::Rsa, algorithm))
}

/// ecdsa-with-SHA256 (RFC 7427 appendix A.3.2).
const ECDSA_WITH_SHA256: [u8; 12] = [0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
/// sha256WithRSAEncryption (RFC 7427 appendix A.1.2), sha384WithRSAEncryption, sha512WithRSAEncryption.
const SHA256_WITH_RSA: [u8; 15] = rsa_pkcs1(0x0b);
const SHA384_WITH_RSA: [u8; 15] = rsa_pkcs1(0x0c);
const SHA512_WITH_RSA: [u8; 15] = rsa_pkcs1(0x0d);
/// The hash OIDs of NIST, as elements (RFC 4055 §2.1).
const SHA256_OID: [u8; 11] = [0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01];
const SHA384_OID: [u8; 11] = [0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02];
const SHA512_OID: [u8; 11] = [0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x03];
/// id-RSASSA-PSS and id-mgf1, as elements (RFC 4055 §2.2, §3.1).
const RSASSA_PSS_OID: [u8; 11] = [0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0a];
const MGF1_OID: [u8; 11] = [0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x08];
/// The AlgorithmIdentifier rsaEncryption with its NULL (RFC 4055 §1.2).
const RSA_ENCRYPTION: [u8; 15] = rsa_pkcs1(0x01);
/// All of a P-256 SubjectPublicKeyInfo before its uncompressed point (RFC 5480 §2).
const P256_SPKI_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// An AlgorithmIdentifier under pkcs-1 (1.2.840.113549.1.1) with NULL parameters.
const fn rsa_pkcs1(last: u8) -> [u8; 15] {
    [0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, last, 0x05, 0x00]
}

#[cfg(test)]
mod tests;
