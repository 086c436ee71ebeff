//! PKCS#10 (RFC 2986), for plain PKI: read by a CA, written by a client that has no code.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA384_ASN1, ECDSA_P384_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ED25519,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, UnparsedPublicKey,
    VerificationAlgorithm,
};
use rcgen::CertificateParams;
use sha2::{Digest, Sha256};
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::{Decode, Encode};
use x509_cert::request::CertReq;
use x509_cert::spki::AlgorithmIdentifierOwned;

use crate::authority::AuthorityError;
use crate::private::PrivateKey;

/// A request whose signature holds: somebody has the key. Whatever else it says is not looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SigningRequest {
    spki: Vec<u8>,
}

impl SigningRequest {
    /// Reads a request in DER and checks its signature.
    ///
    /// # Errors
    /// It is malformed, of an unknown algorithm, or not signed by its key.
    pub fn decode(der: &[u8]) -> Result<Self, AuthorityError> {
        // Not by rcgen, which refuses a request for any extension that it does not know.
        let refused = |_| AuthorityError::SigningRequest;
        let request = CertReq::from_der(der).map_err(refused)?;
        let key = &request.info.public_key;
        let (signed, spki) = (request.info.to_der().map_err(refused)?, key.to_der().map_err(refused)?);
        let verifier = verifier(&key.algorithm, request.algorithm.oid).ok_or(AuthorityError::SigningRequest)?;
        let held = UnparsedPublicKey::new(verifier, key.subject_public_key.raw_bytes())
            .verify(&signed, request.signature.raw_bytes());
        held.map_err(|_| AuthorityError::SigningRequest)?;
        Ok(Self { spki })
    }

    /// Writes the request of a key, in DER. The CA gives the name, so the subject is empty.
    ///
    /// # Errors
    /// The library failed.
    pub fn compose(key: &PrivateKey) -> Result<Vec<u8>, AuthorityError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        let request = params.serialize_request(key).map_err(|_| AuthorityError::Library)?;
        Ok(request.der().to_vec())
    }

    /// The SubjectPublicKeyInfo in DER.
    #[must_use]
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// SHA-256 of the SPKI.
    #[must_use]
    pub fn spki_hash(&self) -> [u8; 32] {
        Sha256::digest(&self.spki).into()
    }
}

/// What checks such a signature by such a key. The hash is the signer's choice: openssl signs with SHA-256 by any curve.
fn verifier(key: &AlgorithmIdentifierOwned, signature: ObjectIdentifier) -> Option<&'static dyn VerificationAlgorithm> {
    let curve = key.parameters.as_ref().and_then(|parameters| parameters.decode_as::<ObjectIdentifier>().ok());
    // The key of an elliptic curve is known by its curve.
    let kind = if key.oid == EC_PUBLIC_KEY { curve? } else { key.oid };
    let known = VERIFIERS.iter().find(|(keys, signatures, _)| *keys == kind && *signatures == signature);
    known.map(|(_, _, verifier)| *verifier)
}

/// id-ecPublicKey (RFC 5480 §2.1.1).
const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
/// secp256r1 and secp384r1 (RFC 5480 §2.1.1.1).
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
/// rsaEncryption (RFC 3279 §2.3.1).
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
/// id-Ed25519, of keys and signatures (RFC 8410 §3).
const ID_ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
/// RFC 5758 §3.2.
const ECDSA_WITH_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");
const ECDSA_WITH_SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.3");
/// RFC 4055 §5.
const RSA_WITH_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.11");
const RSA_WITH_SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.12");
const RSA_WITH_SHA512: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.13");

/// Key, signature, and what checks it. RSA has at least 2048 bits, and SHA-1 is none of them.
const VERIFIERS: [(ObjectIdentifier, ObjectIdentifier, &dyn VerificationAlgorithm); 8] = [
    (P256, ECDSA_WITH_SHA256, &ECDSA_P256_SHA256_ASN1),
    (P256, ECDSA_WITH_SHA384, &ECDSA_P256_SHA384_ASN1),
    (P384, ECDSA_WITH_SHA256, &ECDSA_P384_SHA256_ASN1),
    (P384, ECDSA_WITH_SHA384, &ECDSA_P384_SHA384_ASN1),
    (ID_ED25519, ID_ED25519, &ED25519),
    (RSA, RSA_WITH_SHA256, &RSA_PKCS1_2048_8192_SHA256),
    (RSA, RSA_WITH_SHA384, &RSA_PKCS1_2048_8192_SHA384),
    (RSA, RSA_WITH_SHA512, &RSA_PKCS1_2048_8192_SHA512),
];
