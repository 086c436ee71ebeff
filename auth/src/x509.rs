//! Whether a chain of certificates proves an identity (RFC 5280, with the IKE profile of RFC 4945).
//!
//! Path building, signatures, validity, basic and name constraints, and revocation are `webpki`'s; key usage, purposes for
//! IKE and the identity rule are ours.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, TrustAnchor, UnixTime};
use webpki::{
    CertRevocationList, EndEntityCert, Error as PathError, ExpirationPolicy, ExtendedKeyUsageValidator,
    KeyPurposeIdIter, OwnedCertRevocationList, RevocationOptionsBuilder, UnknownStatusPolicy, VerifiedPath,
};
use x509_cert::der::{Decode, Encode};
use x509_cert::ext::pkix::KeyUsage;

use crate::Identity;

mod certificate;

pub use certificate::Certificate;

/// In which part of IKE the peer stands; its certificate must allow that part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// The peer opened the IKE SA: clientAuth serves.
    Initiator,
    /// We opened it: serverAuth serves.
    Responder,
}

/// Why a chain does not prove an identity. Each is one sentence that says what is wrong and, where it can be known, what
/// to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The peer sent none.
    #[error("no certificate was sent")]
    NoCertificate,
    /// More certificates than [`TrustAnchors::CHAIN_LEN_MAX`].
    #[error("the certificate chain is longer than {max} certificates", max = TrustAnchors::CHAIN_LEN_MAX)]
    TooMany,
    /// A certificate cannot be read, or carries a critical extension that we do not know.
    #[error("a certificate of the chain is malformed or has an unknown critical extension")]
    Malformed,
    /// A certificate of the path has ended.
    #[error("a certificate expired {} ago; renew it", Span(*since))]
    Expired {
        /// How long ago.
        since: Duration,
    },
    /// A certificate of the path begins later.
    #[error("a certificate is not valid yet, it begins in {}; check the clocks", Span(*until))]
    NotYetValid {
        /// In how long.
        until: Duration,
    },
    /// No path leads to a trust anchor.
    #[error(
        "the certificate's issuer is unknown; add its CA certificate to the trust anchors or send the intermediate"
    )]
    UnknownIssuer,
    /// A certificate's signature was not made by its issuer's key.
    #[error("a signature in the certificate chain is wrong")]
    BadSignature,
    /// A certificate is signed by an algorithm that we do not accept, such as SHA-1 or RSA below 2048 bits.
    #[error(
        "a certificate is signed by an algorithm that is too weak or unknown; issue it with SHA-256 and RSA-2048 or ECDSA P-256"
    )]
    WeakAlgorithm,
    /// A certificate revocation list names it.
    #[error("a certificate of the chain was revoked")]
    Revoked,
    /// The certificate revocation list is older than it says it may be.
    #[error("the certificate revocation list expired {} ago; fetch a new one", Span(*since))]
    CrlExpired {
        /// How long ago.
        since: Duration,
    },
    /// Key usage or purposes do not allow IKE in this part.
    #[error(
        "the certificate's key usage does not allow IKE; it needs digitalSignature and no other purpose than TLS or IPsec"
    )]
    WrongUsage,
    /// A CA certificate was sent as that of a peer, or the other way round, or a constraint of a CA is violated.
    #[error(
        "the certificate chain breaks the rules of one of its CAs (basic constraints, path length or name constraints)"
    )]
    Constraint,
    /// The identity stands neither in the alternative names nor is it the subject.
    #[error("the identity is not in the certificate: neither among its subject alternative names nor its subject")]
    IdentityMissing,
}

/// Why trust anchors, certificates or revocation lists cannot be loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// The file holds no PEM of the wanted kind.
    #[error("no PEM block of the expected kind (\"CERTIFICATE\" or \"X509 CRL\") found")]
    Empty,
    /// A block is damaged or not of the wanted kind.
    #[error("PEM block number {0} cannot be read")]
    Malformed(
        /// Counted from 1.
        usize,
    ),
    /// A certificate given as a trust anchor is no CA.
    #[error("certificate number {0} is not a CA certificate (basicConstraints CA, keyCertSign)")]
    NotCa(
        /// Counted from 1.
        usize,
    ),
}

/// What a chain proved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// The SubjectPublicKeyInfo in DER whose signature the peer must still show.
    pub public_key: Vec<u8>,
    /// The subject of the peer's certificate, for the operator; `None` if it is empty.
    pub subject: Option<Identity>,
}

/// The CAs that may vouch for peers, with their revocation lists. The default trusts nobody.
#[derive(Clone, Debug, Default)]
pub struct TrustAnchors {
    anchors: Vec<TrustAnchor<'static>>,
    key_hashes: Vec<[u8; 20]>,
    crls: Vec<Arc<CertRevocationList<'static>>>,
}

impl TrustAnchors {
    /// Most certificates that a peer may send. Our policy.
    pub const CHAIN_LEN_MAX: usize = 8;

    /// Adds a CA certificate in DER. Its own validity is not looked at (RFC 5280 §6.1.1 leaves that to whoever configures).
    ///
    /// # Errors
    /// It cannot be read, or is no CA.
    pub fn add_der(&mut self, der: &[u8]) -> Result<(), LoadError> {
        let number = self.anchors.len().saturating_add(1);
        let der = CertificateDer::from(der);
        let certificate = Certificate::from_der(&der).map_err(|_| LoadError::Malformed(number))?;
        if !certificate.is_ca() {
            return Err(LoadError::NotCa(number));
        }
        let anchor = webpki::anchor_from_trusted_cert(&der).map_err(|_| LoadError::Malformed(number))?;
        // RFC 7296 §3.7: the SHA-1 of the anchor's SubjectPublicKeyInfo; it names a key and protects nothing.
        let hash = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, certificate.public_key());
        self.key_hashes.push(hash.as_ref().try_into().map_err(|_| LoadError::Malformed(number))?);
        self.anchors.push(anchor.to_owned());
        Ok(())
    }

    /// Adds all CA certificates of a PEM file.
    ///
    /// # Errors
    /// There is none, one cannot be read, or is no CA.
    pub fn add_pem(&mut self, pem: &[u8]) -> Result<(), LoadError> {
        chain_from_pem(pem)?.iter().try_for_each(|der| self.add_der(der))
    }

    /// Adds all revocation lists of a PEM file. From then on a certificate whose issuer has a list must not stand on it.
    ///
    /// # Errors
    /// There is none, or one cannot be read.
    pub fn add_crl_pem(&mut self, pem: &[u8]) -> Result<(), LoadError> {
        let before = self.crls.len();
        for (index, der) in CertificateRevocationListDer::pem_slice_iter(pem).enumerate() {
            let malformed = LoadError::Malformed(index.saturating_add(1));
            let der = der.map_err(|_| malformed)?;
            let list = OwnedCertRevocationList::from_der(&der).map_err(|_| malformed)?;
            self.crls.push(Arc::new(CertRevocationList::Owned(list)));
        }
        if self.crls.len() == before { Err(LoadError::Empty) } else { Ok(()) }
    }

    /// Whether nobody is trusted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.anchors.is_empty()
    }

    /// The Certification Authority field of a CERTREQ payload for all anchors (RFC 7296 §3.7).
    #[must_use]
    pub fn certification_authority(&self) -> Vec<u8> {
        self.key_hashes.concat()
    }

    /// Decides whether `chain` (DER, the peer's own certificate first) proves `identity` at `unix`, the time since
    /// 1970-01-01 UTC.
    ///
    /// # Errors
    /// The first rule that the chain breaks.
    pub fn validate(
        &self,
        chain: &[Vec<u8>],
        identity: &Identity,
        usage: Usage,
        unix: Duration,
    ) -> Result<Proof, Refusal> {
        let chain: Vec<CertificateDer<'_>> = chain.iter().map(|der| CertificateDer::from(der.as_slice())).collect();
        let (leaf, intermediates) = chain.split_first().ok_or(Refusal::NoCertificate)?;
        if chain.len() > Self::CHAIN_LEN_MAX {
            return Err(Refusal::TooMany);
        }
        let certificate = Certificate::from_der(leaf)?;
        let end_entity = EndEntityCert::try_from(leaf).map_err(|error| refusal_of(&error))?;
        let crls: Vec<&CertRevocationList<'_>> = self.crls.iter().map(Arc::as_ref).collect();
        let revocation = RevocationOptionsBuilder::new(&crls).ok().map(|options| {
            options
                .with_status_policy(UnknownStatusPolicy::Allow)
                .with_expiration_policy(ExpirationPolicy::Enforce)
                .build()
        });
        end_entity
            .verify_for_usage(
                webpki::ALL_VERIFICATION_ALGS,
                &self.anchors,
                intermediates,
                UnixTime::since_unix_epoch(unix),
                IkePurposes { usage },
                revocation,
                Some(&issuers_may_sign),
            )
            .map_err(|error| refusal_of(&error))?;
        if !certificate.may_authenticate() {
            return Err(Refusal::WrongUsage);
        }
        if !certificate.names(identity) {
            return Err(Refusal::IdentityMissing);
        }
        Ok(Proof { public_key: certificate.public_key().to_vec(), subject: certificate.subject().cloned() })
    }
}

/// Reads all certificates of a PEM file, in its order.
///
/// # Errors
/// There is none, or one cannot be read.
pub fn chain_from_pem(pem: &[u8]) -> Result<Vec<Vec<u8>>, LoadError> {
    let mut chain = Vec::new();
    for (index, der) in CertificateDer::pem_slice_iter(pem).enumerate() {
        let der = der.map_err(|_| LoadError::Malformed(index.saturating_add(1)))?;
        chain.push(der.to_vec());
    }
    if chain.is_empty() { Err(LoadError::Empty) } else { Ok(chain) }
}

/// The purposes (extended key usage) that let a certificate serve in IKE (RFC 4945 §5.1.3.12); none at all lets it, too.
struct IkePurposes {
    usage: Usage,
}

impl ExtendedKeyUsageValidator for IkePurposes {
    fn validate(&self, purposes: KeyPurposeIdIter<'_, '_>) -> Result<(), PathError> {
        let mut named = false;
        for purpose in purposes {
            named = true;
            let oid = purpose?.to_decoded_oid();
            let tls: &[usize] = match self.usage {
                Usage::Initiator => &CLIENT_AUTH,
                Usage::Responder => &SERVER_AUTH,
            };
            if oid == tls || IPSEC_PURPOSES.contains(&oid.as_slice()) {
                return Ok(());
            }
        }
        if named { Err(PathError::EmptyEkuExtension) } else { Ok(()) }
    }
}

/// RFC 5280 §4.2.1.3: an issuer with a key usage needs keyCertSign in it.
fn issuers_may_sign(path: &VerifiedPath<'_>) -> Result<(), PathError> {
    for issuer in path.intermediate_certificates() {
        let certificate = Certificate::from_der(&issuer.der()).map_err(|_| PathError::BadDer)?;
        if !certificate.may_sign_certificates() {
            return Err(PathError::EndEntityUsedAsCa);
        }
    }
    Ok(())
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the enum is non-exhaustive; what we do not know refuses as malformed"
)]
fn refusal_of(error: &PathError) -> Refusal {
    match error {
        PathError::CertExpired { time, not_after } => Refusal::Expired { since: gap(*not_after, *time) },
        PathError::CertNotValidYet { time, not_before } => Refusal::NotYetValid { until: gap(*time, *not_before) },
        PathError::CertRevoked | PathError::CertDistrusted => Refusal::Revoked,
        PathError::CrlExpired { time, next_update } => Refusal::CrlExpired { since: gap(*next_update, *time) },
        PathError::UnknownIssuer => Refusal::UnknownIssuer,
        PathError::InvalidSignatureForPublicKey
        | PathError::InvalidCrlSignatureForPublicKey
        | PathError::SignatureAlgorithmMismatch => Refusal::BadSignature,
        PathError::UnsupportedSignatureAlgorithmContext(_)
        | PathError::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => Refusal::WeakAlgorithm,
        PathError::EmptyEkuExtension | PathError::RequiredEkuNotFoundContext(_) => Refusal::WrongUsage,
        PathError::CaUsedAsEndEntity
        | PathError::EndEntityUsedAsCa
        | PathError::IssuerNotCrlSigner
        | PathError::NameConstraintViolation
        | PathError::PathLenConstraintViolated
        | PathError::MaximumPathDepthExceeded
        | PathError::MaximumPathBuildCallsExceeded
        | PathError::MaximumSignatureChecksExceeded
        | PathError::MaximumNameConstraintComparisonsExceeded => Refusal::Constraint,
        _ => Refusal::Malformed,
    }
}

fn gap(from: UnixTime, to: UnixTime) -> Duration {
    Duration::from_secs(to.as_secs().saturating_sub(from.as_secs()))
}

/// A span in the unit that a person would use.
struct Span(Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_secs() {
            seconds @ 0..=119 => write!(f, "{seconds} seconds"),
            seconds @ 120..=7199 => write!(f, "{} minutes", seconds / 60),
            seconds @ 7200..=172_799 => write!(f, "{} hours", seconds / 3600),
            seconds => write!(f, "{} days", seconds / 86_400),
        }
    }
}

/// id-kp-serverAuth and id-kp-clientAuth (RFC 5280 §4.2.1.12).
const SERVER_AUTH: [usize; 9] = [1, 3, 6, 1, 5, 5, 7, 3, 1];
const CLIENT_AUTH: [usize; 9] = [1, 3, 6, 1, 5, 5, 7, 3, 2];
/// anyExtendedKeyUsage; id-kp-ipsecIKE (RFC 4945 §5.1.3.12); its predecessors ipsecEndSystem, ipsecTunnel and ipsecUser
/// (RFC 2459); and iKEIntermediate, which Windows and macOS look for.
const IPSEC_PURPOSES: [&[usize]; 6] = [
    &[2, 5, 29, 37, 0],
    &[1, 3, 6, 1, 5, 5, 7, 3, 17],
    &[1, 3, 6, 1, 5, 5, 7, 3, 5],
    &[1, 3, 6, 1, 5, 5, 7, 3, 6],
    &[1, 3, 6, 1, 5, 5, 7, 3, 7],
    &[1, 3, 6, 1, 5, 5, 8, 2, 2],
];

#[cfg(test)]
mod tests;
