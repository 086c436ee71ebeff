//! The CA: issues from the template, for gateways, for plain PKCS#10, and signs revocation lists.

mod revocation;
mod seal;

use std::net::IpAddr;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyIdMethod, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber, SubjectPublicKeyInfo,
};
use time::OffsetDateTime;
use x509_cert::der::{Decode, Encode};
use x509_cert::request::CertReq;

pub use revocation::{Revocation, RevocationCause, Revocations};
pub use seal::{Opener, SealCost, SealError, open_key, seal_key};

use crate::certificate::CertificateFacts;
use crate::code::Role;
use crate::key::{Algorithm, PublicKey, RequestedKey};
use crate::mac::ReplyKey;
use crate::name::{ClientName, ClusterName, GatewayName};
use crate::private::{PrivateKey, PrivateKeyError};
use crate::refusal::Refusal;
use crate::reply::{CompleteReply, FullReply, ShortReply, ShortTerms, Terms};
use crate::template::{Serial, Validity, ecdsa_signature};
use crate::ticket::{Grant, Replies};
use crate::time::SECONDS_OF_DAY;

/// A CA: its certificate and its key.
#[derive(Debug)]
pub struct Authority {
    cluster: ClusterName,
    rank: Rank,
    key: PrivateKey,
    /// The certificate in DER.
    certificate: Vec<u8>,
}

/// Where a CA stands in its chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rank {
    /// Self-signed and issuing: small clusters have only this one.
    Sole,
    /// Self-signed, kept offline, issues only the online CA.
    Root,
    /// Issued by the root; the one that the nodes have.
    Online,
}

/// Why a CA could not do something.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthorityError {
    /// The certificate is none, or not of this cluster's CA.
    #[error("this is not the certificate of this cluster's CA")]
    Certificate,
    /// The key is not the certificate's.
    #[error("the key does not belong to the CA's certificate")]
    Key,
    /// A root does not issue to clients, and only a root makes an online CA.
    #[error("this CA does not issue such certificates")]
    Rank,
    /// The certificate would outlive the CA's.
    #[error("the certificate would outlive the CA: renew the CA first")]
    Outlives,
    /// A PKCS#10 request is malformed, or its signature does not hold.
    #[error("the PKCS#10 request is malformed or not signed by its key")]
    SigningRequest,
    /// The requested key is only known by its hash; its certificate waits for the key.
    #[error("the key itself is not known yet, only its hash")]
    KeyUnknown,
    /// What was to be issued is refused by the template.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A private key could not be used.
    #[error(transparent)]
    PrivateKey(#[from] PrivateKeyError),
    /// The certificate library failed.
    #[error("the certificate library failed")]
    Library,
}

impl Authority {
    /// Makes a self-signed CA: [`Rank::Sole`] or [`Rank::Root`].
    ///
    /// # Errors
    /// The rank is [`Rank::Online`], or a library failed.
    pub fn create(
        cluster: ClusterName,
        rank: Rank,
        key: PrivateKey,
        serial: Serial,
        validity: Validity,
    ) -> Result<Self, AuthorityError> {
        if rank == Rank::Online {
            return Err(AuthorityError::Rank);
        }
        let params = ca_params(&cluster, rank, &key, serial, validity)?;
        let certificate = params.self_signed(&key).map_err(|_| AuthorityError::Library)?;
        Ok(Self { certificate: certificate.der().to_vec(), cluster, rank, key })
    }

    /// Makes the online CA of this root.
    ///
    /// # Errors
    /// This is no root, the certificate would outlive it, or a library failed.
    pub fn create_online(&self, key: PrivateKey, serial: Serial, validity: Validity) -> Result<Self, AuthorityError> {
        if self.rank != Rank::Root {
            return Err(AuthorityError::Rank);
        }
        self.outlived_by(validity)?;
        let mut params = ca_params(&self.cluster, Rank::Online, &key, serial, validity)?;
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &self.issuer()).map_err(|_| AuthorityError::Library)?;
        let certificate = certificate.der().to_vec();
        Ok(Self { certificate, cluster: self.cluster.clone(), rank: Rank::Online, key })
    }

    /// Brings back a CA from its certificate and key.
    ///
    /// # Errors
    /// The certificate is not of this cluster's CA of that rank, or the key is another's.
    pub fn load(
        cluster: ClusterName,
        rank: Rank,
        certificate: Vec<u8>,
        key: PrivateKey,
    ) -> Result<Self, AuthorityError> {
        let facts = CertificateFacts::decode(&certificate).map_err(|_| AuthorityError::Certificate)?;
        if facts.common_name != common_name(&cluster, rank) {
            return Err(AuthorityError::Certificate);
        }
        if facts.spki != key.public().spki() {
            return Err(AuthorityError::Key);
        }
        Ok(Self { cluster, rank, key, certificate })
    }

    /// The certificate in DER.
    #[must_use]
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// The public key.
    #[must_use]
    pub const fn public(&self) -> &PublicKey {
        self.key.public()
    }

    /// The key in PKCS#8, to be sealed.
    ///
    /// # Errors
    /// The library failed.
    pub fn private_key(&self) -> Result<wire::Secret, AuthorityError> {
        Ok(self.key.to_pkcs8()?)
    }

    /// Issues a client's or node's certificate from the template, in the form that a complete reply carries.
    ///
    /// # Errors
    /// This is a root, the certificate would outlive the CA, the terms are another cluster's, or a library failed.
    pub fn issue(&self, role: Role, key: PublicKey, terms: &Terms) -> Result<(CompleteReply, Vec<u8>), AuthorityError> {
        self.may_issue(terms.validity)?;
        if terms.cluster != self.cluster {
            return Err(AuthorityError::Refused(Refusal::Name));
        }
        if key == *self.public() {
            return Err(AuthorityError::Refused(Refusal::CaKey));
        }
        let template = terms.template(role, key, *self.public());
        let signature = self.key.sign(&template.tbs())?;
        let certificate = template.certificate(&signature)?;
        Ok((CompleteReply { issuer_key: *self.public(), terms: terms.clone(), signature }, certificate))
    }

    /// Issues for a consumed ticket and writes all forms of the reply. `chain` goes behind the CA's certificate in the
    /// full reply, `profile` is its last block.
    ///
    /// # Errors
    /// As [`Self::issue`]; or the key is only known by its hash, or a block is too long.
    pub fn reply(
        &self,
        mac: &ReplyKey,
        grant: &Grant,
        key: &RequestedKey,
        terms: &Terms,
        chain: &[Vec<u8>],
        profile: &[u8],
    ) -> Result<Replies, AuthorityError> {
        let RequestedKey::Whole(key) = key else {
            return Err(AuthorityError::KeyUnknown);
        };
        let terms = Terms { serial: grant.serial, validity: grant.validity, ..terms.clone() };
        let (complete, certificate) = self.issue(mac.role(), *key, &terms)?;
        let blocks = [certificate.clone(), self.certificate.clone()].into_iter().chain(chain.iter().cloned());
        let full = FullReply { blocks: blocks.chain([profile.to_vec()]).collect() };
        let short = ShortReply { terms: self.short_terms(&terms) };
        Ok(Replies {
            certificate,
            complete: Some(complete.compose(mac, &grant.hash)),
            short: short.compose(mac, &grant.hash),
            full: (full.compose(mac, &grant.hash)?, full.blocks),
        })
    }

    /// What a short reply and the final words say of a certificate.
    #[must_use]
    pub fn short_terms(&self, terms: &Terms) -> ShortTerms {
        ShortTerms {
            ca_hash: ShortTerms::ca_hash(&self.public().spki_hash()),
            serial: terms.serial,
            expiry_day: terms.validity.expiry_day(),
            gateway: terms.gateway.clone(),
        }
    }

    /// Issues a gateway's certificate: serverAuth and id-kp-ipsecIKE (RFC 4945 §5.1.3.12), the name or address as SAN.
    ///
    /// # Errors
    /// As [`Self::issue`].
    pub fn issue_gateway(
        &self,
        name: &GatewayName,
        key: &PublicKey,
        serial: Serial,
        validity: Validity,
    ) -> Result<Vec<u8>, AuthorityError> {
        self.may_issue(validity)?;
        let alternative = match name.as_str().parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(name.as_str().try_into().map_err(|_| Refusal::Name)?),
        };
        let mut params = leaf_params(name.as_str(), serial, validity)?;
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::Other(IPSEC_IKE.to_vec())];
        params.subject_alt_names = vec![alternative];
        self.sign(&params, &key.spki())
    }

    /// Issues a client's certificate for a PKCS#10 request (RFC 2986). Only its key is taken; the name is the ticket's.
    ///
    /// # Errors
    /// As [`Self::issue`]; or the request is malformed or not signed by its key.
    pub fn issue_pkcs10(
        &self,
        request: &[u8],
        name: &ClientName,
        serial: Serial,
        validity: Validity,
    ) -> Result<Vec<u8>, AuthorityError> {
        self.may_issue(validity)?;
        let signed = CertificateSigningRequestParams::from_der(&request.into());
        signed.map_err(|_| AuthorityError::SigningRequest)?;
        // rcgen takes the key's algorithm for the signature's, which differ in a P-384 request signed with SHA-256.
        let request = CertReq::from_der(request).map_err(|_| AuthorityError::SigningRequest)?;
        let spki = request.info.public_key.to_der().map_err(|_| AuthorityError::SigningRequest)?;
        let mut params = leaf_params(name.as_str(), serial, validity)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.subject_alt_names = vec![if name.as_str().contains('@') {
            SanType::Rfc822Name(name.as_str().try_into().map_err(|_| Refusal::Name)?)
        } else {
            let full = format!("{name}.{}.invalid", self.cluster);
            SanType::DnsName(full.try_into().map_err(|_| Refusal::Name)?)
        }];
        self.sign(&params, &spki)
    }

    fn sign(&self, params: &CertificateParams, spki: &[u8]) -> Result<Vec<u8>, AuthorityError> {
        let key = SubjectPublicKeyInfo::from_der(spki).map_err(|_| AuthorityError::SigningRequest)?;
        let certificate = params.signed_by(&key, &self.issuer()).map_err(|_| AuthorityError::Library)?;
        let certificate = certificate.der().to_vec();
        let facts = CertificateFacts::decode(&certificate).map_err(|_| AuthorityError::Library)?;
        if facts.spki == spki { Ok(certificate) } else { Err(AuthorityError::SigningRequest) }
    }

    fn may_issue(&self, validity: Validity) -> Result<(), AuthorityError> {
        match self.rank {
            Rank::Root => Err(AuthorityError::Rank),
            Rank::Sole | Rank::Online => self.outlived_by(validity),
        }
    }

    fn outlived_by(&self, validity: Validity) -> Result<(), AuthorityError> {
        let facts = CertificateFacts::decode(&self.certificate).map_err(|_| AuthorityError::Certificate)?;
        if u64::from(validity.expiry_day()) > facts.expires.day() {
            return Err(AuthorityError::Outlives);
        }
        Ok(())
    }

    fn issuer(&self) -> Issuer<'static, &PrivateKey> {
        let mut params = CertificateParams::default();
        params.distinguished_name = distinguished_name(&common_name(&self.cluster, self.rank));
        params.key_identifier_method = KeyIdMethod::PreSpecified(self.public().identifier().to_vec());
        params.key_usages = CA_USAGES.to_vec();
        Issuer::new(params, &self.key)
    }
}

impl PublicKeyData for PrivateKey {
    fn der_bytes(&self) -> &[u8] {
        self.raw_public()
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        match self.public().algorithm() {
            Algorithm::Ed25519 => &rcgen::PKCS_ED25519,
            Algorithm::P256 => &rcgen::PKCS_ECDSA_P256_SHA256,
        }
    }
}

impl rcgen::SigningKey for PrivateKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let signature = Self::sign(self, message).map_err(|_| rcgen::Error::RemoteKeyError)?;
        Ok(match self.public().algorithm() {
            Algorithm::Ed25519 => signature.to_vec(),
            Algorithm::P256 => ecdsa_signature(&signature),
        })
    }
}

fn common_name(cluster: &ClusterName, rank: Rank) -> String {
    match rank {
        Rank::Sole | Rank::Online => cluster.ca_common_name(),
        Rank::Root => format!("{cluster} root CA"),
    }
}

fn ca_params(
    cluster: &ClusterName,
    rank: Rank,
    key: &PrivateKey,
    serial: Serial,
    validity: Validity,
) -> Result<CertificateParams, AuthorityError> {
    let mut params = base_params(&common_name(cluster, rank), serial, validity)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(match rank {
        Rank::Root => 1,
        Rank::Sole | Rank::Online => 0,
    }));
    params.key_usages = CA_USAGES.to_vec();
    params.key_identifier_method = KeyIdMethod::PreSpecified(key.public().identifier().to_vec());
    Ok(params)
}

fn leaf_params(name: &str, serial: Serial, validity: Validity) -> Result<CertificateParams, AuthorityError> {
    let mut params = base_params(name, serial, validity)?;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn base_params(name: &str, serial: Serial, validity: Validity) -> Result<CertificateParams, AuthorityError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = distinguished_name(name);
    params.serial_number = Some(SerialNumber::from(serial.value()));
    params.not_before = midnight(validity.start_day())?;
    params.not_after = midnight(validity.expiry_day())?;
    Ok(params)
}

fn distinguished_name(name: &str) -> rcgen::DistinguishedName {
    let mut distinguished = rcgen::DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

fn midnight(day: u16) -> Result<OffsetDateTime, AuthorityError> {
    let seconds = i64::try_from(u64::from(day).saturating_mul(SECONDS_OF_DAY)).map_err(|_| Refusal::Days)?;
    OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| AuthorityError::Refused(Refusal::Days))
}

const CA_USAGES: [KeyUsagePurpose; 2] = [KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];

/// id-kp-ipsecIKE (RFC 4945 §5.1.3.12).
const IPSEC_IKE: [u64; 9] = [1, 3, 6, 1, 5, 5, 7, 3, 17];
