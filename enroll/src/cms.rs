//! CMS SignedData (RFC 5652 §5) with one signer: how Apple signs configuration profiles.

use sha2::{Digest, Sha256};
use x509_cert::Certificate;
use x509_cert::der::{Decode, Encode};

use crate::authority::AuthorityError;
use crate::der;
use crate::key::Algorithm;
use crate::private::PrivateKey;

/// Wraps `content` with the signature of `key`, whose certificate comes first among `certificates`.
///
/// # Errors
/// The first certificate is none, the key is no P-256 key, or a library failed.
pub fn signed(content: &[u8], key: &PrivateKey, certificates: &[&[u8]]) -> Result<Vec<u8>, AuthorityError> {
    if key.public().algorithm() != Algorithm::P256 {
        return Err(AuthorityError::Key);
    }
    let own = certificates.first().ok_or(AuthorityError::Certificate)?;
    let own = Certificate::from_der(own).map_err(|_| AuthorityError::Certificate)?;
    let issuer = own.tbs_certificate().issuer().to_der().map_err(|_| AuthorityError::Certificate)?;
    let serial = own.tbs_certificate().serial_number().to_der().map_err(|_| AuthorityError::Certificate)?;
    let digest: [u8; 32] = Sha256::digest(content).into();
    // RFC 5652 §5.3: a DER SET OF is sorted, and these two are in order.
    let attributes =
        [attribute(CONTENT_TYPE, &der::oid(DATA)), attribute(MESSAGE_DIGEST, &der::octet_string(&digest))].concat();
    // RFC 5652 §5.4: what is signed has the tag of a SET, not [0].
    let signature =
        rcgen::SigningKey::sign(key, &der::tlv(SET, &[&attributes])).map_err(|_| AuthorityError::Library)?;
    let sha256 = der::sequence(&[&der::oid(SHA256)]);
    let signer = der::sequence(&[
        VERSION_1,
        &der::sequence(&[&issuer, &serial]),
        &sha256,
        &der::tlv(CONTEXT_0, &[&attributes]),
        &der::sequence(&[&der::oid(ECDSA_WITH_SHA256)]),
        &der::octet_string(&signature),
    ]);
    let content = der::sequence(&[&der::oid(DATA), &der::tlv(CONTEXT_0, &[&der::octet_string(content)])]);
    let signed = der::sequence(&[
        VERSION_1,
        &der::tlv(SET, &[&sha256]),
        &content,
        &der::tlv(CONTEXT_0, certificates),
        &der::tlv(SET, &[&signer]),
    ]);
    Ok(der::sequence(&[&der::oid(SIGNED_DATA), &der::tlv(CONTEXT_0, &[&signed])]))
}

fn attribute(id: &[u8], value: &[u8]) -> Vec<u8> {
    der::sequence(&[&der::oid(id), &der::tlv(SET, &[value])])
}

const SET: u8 = 0x31;
/// `[0]`, constructed.
const CONTEXT_0: u8 = 0xa0;
/// INTEGER 1.
const VERSION_1: &[u8] = &[0x02, 0x01, 0x01];
/// RFC 5652 §4: 1.2.840.113549.1.7.1.
const DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x01];
/// RFC 5652 §5.1: 1.2.840.113549.1.7.2.
const SIGNED_DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x02];
/// RFC 5652 §11.1: 1.2.840.113549.1.9.3.
const CONTENT_TYPE: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x03];
/// RFC 5652 §11.2: 1.2.840.113549.1.9.4.
const MESSAGE_DIGEST: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x04];
/// RFC 5754 §2.2: 2.16.840.1.101.3.4.2.1.
const SHA256: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01];
/// RFC 5754 §3.3: 1.2.840.10045.4.3.2.
const ECDSA_WITH_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
