//! The few facts of a certificate that this crate compares.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ED25519, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey,
    VerificationAlgorithm,
};
use sha2::{Digest, Sha256};
use x509_cert::Certificate;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::{Decode, Encode};
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage};

use crate::key::RequestedKey;
use crate::refusal::Refusal;
use crate::reply::FullReply;
use crate::time::UnixTime;

/// What a certificate says that does not depend on its profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFacts {
    /// The SubjectPublicKeyInfo in DER.
    pub spki: Vec<u8>,
    /// The serial's octets, most significant first, without leading zeros.
    pub serial: Vec<u8>,
    /// The subject's common name; empty if it has none, or more than one.
    pub common_name: String,
    /// When it begins.
    pub starts: UnixTime,
    /// When it ends.
    pub expires: UnixTime,
}

impl CertificateFacts {
    /// Reads a certificate in DER.
    ///
    /// # Errors
    /// It is none.
    pub fn decode(der: &[u8]) -> Result<Self, Refusal> {
        let certificate = Certificate::from_der(der).map_err(|_| Refusal::Certificate)?;
        let tbs = certificate.tbs_certificate();
        let spki = tbs.subject_public_key_info().to_der().map_err(|_| Refusal::Certificate)?;
        let serial = tbs.serial_number().as_bytes().iter().copied().skip_while(|&octet| octet == 0).collect();
        let subject = tbs.subject().to_string();
        let common_name = subject.strip_prefix("CN=").filter(|name| !name.contains(['+', ','])).unwrap_or_default();
        let starts = UnixTime { seconds: tbs.validity().not_before.to_unix_duration().as_secs() };
        let expires = UnixTime { seconds: tbs.validity().not_after.to_unix_duration().as_secs() };
        Ok(Self { spki, serial, common_name: common_name.to_owned(), starts, expires })
    }
}

/// Checks that a certificate is signed with the key of a CA's certificate, both in DER. Dates and names are not looked at.
///
/// # Errors
/// One of them is no certificate, or the signature does not hold.
pub fn signed_by(certificate: &[u8], authority: &[u8]) -> Result<(), Refusal> {
    let decode = |der| Certificate::from_der(der).map_err(|_| Refusal::Certificate);
    let (certificate, authority): (Certificate, Certificate) = (decode(certificate)?, decode(authority)?);
    let signed = certificate.tbs_certificate().to_der().map_err(|_| Refusal::Certificate)?;
    let algorithm = certificate.signature_algorithm().oid;
    verify(&authority, &algorithm, &signed, certificate.signature().raw_bytes())
}

/// Checks that the CA of the certificate `old` certified by `bridge` the key of the CA that came after it, whose
/// certificate is `new`: "new with old" of RFC 4210 §4.4. All are in DER.
///
/// # Errors
/// One of them is no certificate; `bridge` is for another key or name than `new`, is not a CA's, is not valid on the day
/// of `now`, or is not signed by the old CA.
pub fn check_successor(new: &[u8], bridge: &[u8], old: &[u8], now: UnixTime) -> Result<(), Refusal> {
    let (successor, facts) = (CertificateFacts::decode(new)?, CertificateFacts::decode(bridge)?);
    if facts.spki != successor.spki {
        return Err(Refusal::OtherKey);
    }
    // Every client has a certificate of its key by the old CA: that alone must not make it the next one.
    if facts.common_name != successor.common_name || !may_sign_certificates(bridge)? {
        return Err(Refusal::NoAuthority);
    }
    if !(facts.starts.day()..facts.expires.day()).contains(&now.day()) {
        return Err(Refusal::Days);
    }
    signed_by(bridge, old)
}

/// Whether a certificate is a CA's (RFC 5280 §4.2.1.9) and its key may sign certificates (RFC 5280 §4.2.1.3).
fn may_sign_certificates(der: &[u8]) -> Result<bool, Refusal> {
    let certificate = Certificate::from_der(der).map_err(|_| Refusal::Certificate)?;
    let tbs = certificate.tbs_certificate();
    let constraints = tbs.get_extension::<BasicConstraints>().map_err(|_| Refusal::Certificate)?;
    let usage = tbs.get_extension::<KeyUsage>().map_err(|_| Refusal::Certificate)?;
    Ok(constraints.is_some_and(|(_, constraints)| constraints.ca)
        && usage.is_some_and(|(_, usage)| usage.key_cert_sign()))
}

/// Checks a signature by the key in a CA's certificate.
pub(crate) fn verify(
    authority: &Certificate,
    algorithm: &ObjectIdentifier,
    signed: &[u8],
    signature: &[u8],
) -> Result<(), Refusal> {
    let key = authority.tbs_certificate().subject_public_key_info().subject_public_key.raw_bytes();
    let (_, verifier) = VERIFIERS.iter().find(|(oid, _)| oid == algorithm).ok_or(Refusal::Algorithm)?;
    UnparsedPublicKey::new(*verifier, key).verify(signed, signature).map_err(|_| Refusal::Signature)
}

/// Signature algorithms of our CAs (RFC 5758 §3.2, RFC 8410 §3, RFC 4055 §5).
const VERIFIERS: [(ObjectIdentifier, &dyn VerificationAlgorithm); 4] = [
    (ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2"), &ECDSA_P256_SHA256_ASN1),
    (ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.3"), &ECDSA_P384_SHA384_ASN1),
    (ObjectIdentifier::new_unwrap("1.3.101.112"), &ED25519),
    (ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.11"), &RSA_PKCS1_2048_8192_SHA256),
];

impl FullReply {
    /// The certificate, its first block, checked to be for the client's own key.
    ///
    /// # Errors
    /// The block is no certificate, or for another key.
    pub fn certificate(&self, own_key: &RequestedKey) -> Result<&[u8], Refusal> {
        let block = self.blocks.first().ok_or(Refusal::Blocks)?;
        let facts = CertificateFacts::decode(block)?;
        if <[u8; 32]>::from(Sha256::digest(&facts.spki)) == own_key.spki_hash() {
            Ok(block)
        } else {
            Err(Refusal::OtherKey)
        }
    }
}
