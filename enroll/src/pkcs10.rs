//! PKCS#10 (RFC 2986), for plain PKI: read by a CA, written by a client that has no code.

use rcgen::{CertificateParams, CertificateSigningRequestParams};
use sha2::{Digest, Sha256};
use x509_cert::der::{Decode, Encode};
use x509_cert::request::CertReq;

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
        let signed = CertificateSigningRequestParams::from_der(&der.into());
        signed.map_err(|_| AuthorityError::SigningRequest)?;
        // rcgen takes the key's algorithm for the signature's, which differ in a P-384 request signed with SHA-256.
        let request = CertReq::from_der(der).map_err(|_| AuthorityError::SigningRequest)?;
        let spki = request.info.public_key.to_der().map_err(|_| AuthorityError::SigningRequest)?;
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
