//! The few facts of a certificate that this crate compares.

use x509_cert::Certificate;
use x509_cert::der::{Decode, Encode};

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
        let seconds = tbs.validity().not_after.to_unix_duration().as_secs();
        Ok(Self { spki, serial, common_name: common_name.to_owned(), expires: UnixTime { seconds } })
    }
}

impl FullReply {
    /// The certificate, its first block, checked to be for the client's own key.
    ///
    /// # Errors
    /// The block is no certificate, or for another key.
    pub fn certificate(&self, own_key: &RequestedKey) -> Result<&[u8], Refusal> {
        let block = self.blocks.first().ok_or(Refusal::Blocks)?;
        let facts = CertificateFacts::decode(block)?;
        if sha256(&facts.spki) == own_key.spki_hash() { Ok(block) } else { Err(Refusal::OtherKey) }
    }
}

fn sha256(octets: &[u8]) -> [u8; 32] {
    use sha2::Digest;
    sha2::Sha256::digest(octets).into()
}
