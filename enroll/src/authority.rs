//! The CA: issues from the template, for gateways, for plain PKCS#10, and signs revocation lists.

mod key;
mod revocation;
mod seal;

use std::net::IpAddr;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyUsagePurpose,
    SanType, SerialNumber, SubjectPublicKeyInfo,
};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use time::OffsetDateTime;

pub use key::{AuthorityAlgorithm, AuthorityKey};
pub use revocation::{Revocation, RevocationCause, Revocations};
pub use seal::{Opener, SealCost, SealError, open_key, seal_key};

use crate::certificate::CertificateFacts;
use crate::code::Role;
use crate::key::{PublicKey, RequestedKey};
use crate::mac::ReplyKey;
use crate::name::{ClientName, ClusterName, GatewayName};
use crate::pkcs10::SigningRequest;
use crate::private::PrivateKeyError;
use crate::refusal::Refusal;
use crate::reply::{CompleteReply, FullReply, ShortReply, ShortTerms, Terms};
use crate::template::{Serial, Validity};
use crate::ticket::{Grant, Replies};
use crate::time::SECONDS_OF_DAY;

/// A CA: its certificate and its key.
#[derive(Debug)]
pub struct Authority {
    cluster: ClusterName,
    rank: Rank,
    key: AuthorityKey,
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
    /// The CA's key has no number in the format, so that no complete reply carries its signature.
    #[error("this CA's key has no number in the format: use the full reply")]
    Unnumbered,
    /// A revocation list is malformed, or another CA's.
    #[error("this is no revocation list of this CA")]
    List,
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
        key: AuthorityKey,
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
    pub fn create_online(&self, key: AuthorityKey, serial: Serial, validity: Validity) -> Result<Self, AuthorityError> {
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
        key: AuthorityKey,
    ) -> Result<Self, AuthorityError> {
        let facts = CertificateFacts::decode(&certificate).map_err(|_| AuthorityError::Certificate)?;
        if facts.common_name != common_name(&cluster, rank) {
            return Err(AuthorityError::Certificate);
        }
        if facts.spki != key.spki() {
            return Err(AuthorityError::Key);
        }
        Ok(Self { cluster, rank, key, certificate })
    }

    /// The certificate in DER.
    #[must_use]
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// The key.
    #[must_use]
    pub const fn key(&self) -> &AuthorityKey {
        &self.key
    }

    /// Where it stands in its chain.
    #[must_use]
    pub const fn rank(&self) -> Rank {
        self.rank
    }

    /// The cluster whose CA it is.
    #[must_use]
    pub const fn cluster(&self) -> &ClusterName {
        &self.cluster
    }

    /// The day since 1970 on which the CA's certificate ends.
    ///
    /// # Errors
    /// The certificate is none.
    pub fn expiry_day(&self) -> Result<u64, AuthorityError> {
        CertificateFacts::decode(&self.certificate)
            .map(|facts| facts.expires.day())
            .map_err(|_| AuthorityError::Certificate)
    }

    /// Certifies the key of the CA that comes after this one, so that who trusts only this one takes the new one's
    /// certificates too: "new with old" of RFC 4210 §4.4.
    ///
    /// # Errors
    /// The CAs are not of one cluster and rank, the certificate would outlive this CA, or a library failed.
    pub fn certify_successor(
        &self,
        successor: &Self,
        serial: Serial,
        validity: Validity,
    ) -> Result<Vec<u8>, AuthorityError> {
        if successor.rank != self.rank || successor.cluster != self.cluster {
            return Err(AuthorityError::Rank);
        }
        self.outlived_by(validity)?;
        let mut params = ca_params(&self.cluster, self.rank, &successor.key, serial, validity)?;
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&successor.key, &self.issuer()).map_err(|_| AuthorityError::Library)?;
        Ok(certificate.der().to_vec())
    }

    /// Issues a client's or node's certificate from the template, in the form that a complete reply carries.
    ///
    /// # Errors
    /// This is a root or has a key without a number, the certificate would outlive the CA, the terms are another
    /// cluster's, or a library failed.
    pub fn issue(&self, role: Role, key: PublicKey, terms: &Terms) -> Result<(CompleteReply, Vec<u8>), AuthorityError> {
        self.may_issue(terms.validity)?;
        if terms.cluster != self.cluster {
            return Err(AuthorityError::Refused(Refusal::Name));
        }
        let own = self.key.numbered().ok_or(AuthorityError::Unnumbered)?;
        if key == *own.public() {
            return Err(AuthorityError::Refused(Refusal::CaKey));
        }
        let template = terms.template(role, key, *own.public());
        let signature = own.sign(&template.tbs())?;
        let certificate = template.certificate(&signature)?;
        Ok((CompleteReply { issuer_key: *own.public(), terms: terms.clone(), signature }, certificate))
    }

    /// Issues for a consumed ticket and writes all forms of the reply that there are for its key and this CA's.
    /// `chain` goes behind the CA's certificate in the full reply, `profile` is its last block.
    ///
    /// A key that is known by its hash only gets a short reply; [`Self::issue_hashed`] follows when the key comes.
    ///
    /// # Errors
    /// As [`Self::issue`]; or a block is too long.
    pub fn reply(
        &self,
        mac: &ReplyKey,
        grant: &Grant,
        key: &RequestedKey,
        terms: &Terms,
        chain: &[Vec<u8>],
        profile: &[u8],
    ) -> Result<Replies, AuthorityError> {
        let terms = Terms { serial: grant.serial, validity: grant.validity, ..terms.clone() };
        let short = ShortReply { terms: self.short_terms(&terms) }.compose(mac, &grant.hash);
        let RequestedKey::Whole(key) = key else {
            self.may_issue(terms.validity)?;
            return Ok(Replies { certificate: None, complete: None, short, full: None });
        };
        let (certificate, complete) = if self.key.numbered().is_some() {
            let (complete, certificate) = self.issue(mac.role(), *key, &terms)?;
            (certificate, Some(complete.compose(mac, &grant.hash)))
        } else {
            (self.issue_plain(mac.role(), &key.spki(), &terms.client, grant.serial, grant.validity)?, None)
        };
        let blocks = [certificate.clone(), self.certificate.clone()].into_iter().chain(chain.iter().cloned());
        let full = FullReply { blocks: blocks.chain([profile.to_vec()]).collect() };
        let full = (full.compose(mac, &grant.hash)?, full.blocks);
        Ok(Replies { certificate: Some(certificate), complete, short, full: Some(full) })
    }

    /// Issues on a grant whose request named its key by hash, once the key has come.
    ///
    /// # Errors
    /// The key is another, or as [`Self::issue`].
    pub fn issue_hashed(
        &self,
        role: Role,
        grant: &Grant,
        hash: &[u8; 32],
        spki: &[u8],
        client: &ClientName,
    ) -> Result<Vec<u8>, AuthorityError> {
        if !bool::from(<[u8; 32]>::from(Sha256::digest(spki)).ct_eq(hash)) {
            return Err(AuthorityError::Refused(Refusal::OtherKey));
        }
        self.issue_plain(role, spki, client, grant.serial, grant.validity)
    }

    /// What a short reply and the final words say of a certificate.
    #[must_use]
    pub fn short_terms(&self, terms: &Terms) -> ShortTerms {
        ShortTerms {
            ca_hash: ShortTerms::ca_hash(&self.key.spki_hash()),
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

    /// Issues a client's certificate for a PKCS#10 request (RFC 2986). Only its key is taken; the name is ours.
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
        let request = SigningRequest::decode(request)?;
        self.issue_plain(Role::Client, request.spki(), name, serial, validity)
    }

    /// Issues for any key, with the template's content but not octet for octet its form.
    ///
    /// # Errors
    /// As [`Self::issue`]; or the key is of no algorithm that certificates may have.
    pub fn issue_plain(
        &self,
        role: Role,
        spki: &[u8],
        name: &ClientName,
        serial: Serial,
        validity: Validity,
    ) -> Result<Vec<u8>, AuthorityError> {
        self.may_issue(validity)?;
        if spki == self.key.spki() {
            return Err(AuthorityError::Refused(Refusal::CaKey));
        }
        let mut params = leaf_params(name.as_str(), serial, validity)?;
        params.extended_key_usages = vec![match role {
            Role::Client => ExtendedKeyUsagePurpose::ClientAuth,
            Role::Node => ExtendedKeyUsagePurpose::Other(NODE_PURPOSE.to_vec()),
        }];
        params.subject_alt_names = vec![if name.as_str().contains('@') {
            SanType::Rfc822Name(name.as_str().try_into().map_err(|_| Refusal::Name)?)
        } else {
            let full = format!("{name}.{}.invalid", self.cluster);
            SanType::DnsName(full.try_into().map_err(|_| Refusal::Name)?)
        }];
        self.sign(&params, spki)
    }

    /// Issues a certificate that is good for signing profiles (RFC 8551 §4) and for nothing else.
    ///
    /// # Errors
    /// As [`Self::issue`].
    pub fn issue_signer(&self, key: &PublicKey, serial: Serial, validity: Validity) -> Result<Vec<u8>, AuthorityError> {
        self.may_issue(validity)?;
        let mut params = leaf_params(&format!("{} profiles", self.cluster), serial, validity)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::EmailProtection];
        self.sign(&params, &key.spki())
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

    fn issuer(&self) -> Issuer<'static, &AuthorityKey> {
        let mut params = CertificateParams::default();
        params.distinguished_name = distinguished_name(&common_name(&self.cluster, self.rank));
        params.key_identifier_method = KeyIdMethod::PreSpecified(self.key.identifier().to_vec());
        params.key_usages = CA_USAGES.to_vec();
        Issuer::new(params, &self.key)
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
    key: &AuthorityKey,
    serial: Serial,
    validity: Validity,
) -> Result<CertificateParams, AuthorityError> {
    let mut params = base_params(&common_name(cluster, rank), serial, validity)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(match rank {
        Rank::Root => 1,
        Rank::Sole | Rank::Online => 0,
    }));
    params.key_usages = CA_USAGES.to_vec();
    params.key_identifier_method = KeyIdMethod::PreSpecified(key.identifier().to_vec());
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
/// 2.25.1184207873, as in the template.
const NODE_PURPOSE: &[u64] = &[2, 25, 1_184_207_873];
