//! A certificate authority for the lab, made anew in each run.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};
use time::{Duration, OffsetDateTime};

/// A certificate authority with its key.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    /// Makes an authority named `name`, with an ECDSA P-256 key.
    ///
    /// # Errors
    /// No randomness.
    pub fn new(name: &str) -> Result<Self> {
        let mut params = parameters(name)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Ok(Self { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate()?)? })
    }

    /// The authority's own certificate.
    #[must_use]
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// Issues a certificate for `name`, which becomes its common name and a DNS name in it.
    ///
    /// # Errors
    /// `name` is no DNS name, or this build cannot make such a key.
    pub fn issue(&self, name: &str, key: KeyKind, addresses: &[IpAddr]) -> Result<Certificate> {
        self.issue_from(name, key, addresses, OffsetDateTime::now_utc() - Duration::days(1))
    }

    /// As [`issue`](Self::issue), valid for 30 days from `start` on.
    ///
    /// # Errors
    /// As [`issue`](Self::issue).
    pub fn issue_from(
        &self,
        name: &str,
        key: KeyKind,
        addresses: &[IpAddr],
        start: OffsetDateTime,
    ) -> Result<Certificate> {
        let key = match key {
            KeyKind::EcdsaP256 => KeyPair::generate()?,
            KeyKind::Rsa2048 => KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256)?,
        };
        let mut params = parameters(name)?;
        (params.not_before, params.not_after) = (start, start + Duration::days(30));
        params.subject_alt_names.push(SanType::DnsName(name.try_into()?));
        params.subject_alt_names.extend(addresses.iter().map(|address| SanType::IpAddress(*address)));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Certificate { certificate: certificate.pem(), key: key.serialize_pem() })
    }
}

/// Which key a certificate is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// ECDSA on P-256.
    EcdsaP256,
    /// RSA with 2048 bits.
    Rsa2048,
}

/// A certificate and its private key, both in PEM.
pub struct Certificate {
    /// The certificate.
    pub certificate: String,
    /// The private key, PKCS #8.
    pub key: String,
}

impl Certificate {
    /// Writes both to files; the key can be read by root only.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn write(&self, certificate: &Path, key: &Path) -> Result<()> {
        use std::os::unix::fs::PermissionsExt as _;
        fs::write(certificate, &self.certificate).with_context(|| format!("write {}", certificate.display()))?;
        fs::write(key, &self.key).with_context(|| format!("write {}", key.display()))?;
        fs::set_permissions(key, fs::Permissions::from_mode(0o600))?;
        Ok(())
    }
}

fn parameters(name: &str) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(Vec::<String>::new())?;
    params.distinguished_name.push(DnType::CommonName, name);
    let now = OffsetDateTime::now_utc();
    params.not_before = now - Duration::days(1);
    params.not_after = now + Duration::days(30);
    Ok(params)
}
