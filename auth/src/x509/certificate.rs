//! What a certificate says about its holder.

use super::*;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{BasicConstraints, SubjectAltName};

/// The parts of one certificate that IKE and the operator ask for. Nothing here was proven.
#[derive(Clone, Debug)]
pub struct Certificate {
    subject: Option<Identity>,
    alternative_names: Vec<Identity>,
    public_key: Vec<u8>,
    not_before: Duration,
    not_after: Duration,
    key_usage: Option<KeyUsage>,
    ca: bool,
}

impl Certificate {
    /// Reads a certificate in DER.
    ///
    /// # Errors
    /// [`Refusal::Malformed`].
    pub fn from_der(der: &[u8]) -> Result<Self, Refusal> {
        let certificate = x509_cert::Certificate::from_der(der).map_err(malformed)?;
        let body = certificate.tbs_certificate();
        let names = body.get_extension::<SubjectAltName>().map_err(malformed)?.map(|(_, names)| names.0);
        let key_usage = body.get_extension::<KeyUsage>().map_err(malformed)?.map(|(_, usage)| usage);
        let constraints = body.get_extension::<BasicConstraints>().map_err(malformed)?;
        let subject = body.subject().to_der().map_err(malformed)?;
        let validity = body.validity();
        Ok(Self {
            subject: Identity::decode(9, &subject).ok(),
            alternative_names: names.unwrap_or_default().iter().filter_map(identity_of).collect(),
            public_key: body.subject_public_key_info().to_der().map_err(malformed)?,
            not_before: validity.not_before.to_unix_duration(),
            not_after: validity.not_after.to_unix_duration(),
            key_usage,
            ca: constraints.is_some_and(|(_, constraints)| constraints.ca),
        })
    }

    /// The subject; `None` if it is empty.
    #[must_use]
    pub const fn subject(&self) -> Option<&Identity> {
        self.subject.as_ref()
    }

    /// The subject alternative names of the kinds that IKE knows.
    #[must_use]
    pub fn alternative_names(&self) -> &[Identity] {
        &self.alternative_names
    }

    /// The SubjectPublicKeyInfo in DER.
    #[must_use]
    pub fn public_key(&self) -> &[u8] {
        &self.public_key
    }

    /// First moment of validity, since 1970-01-01 UTC.
    #[must_use]
    pub const fn not_before(&self) -> Duration {
        self.not_before
    }

    /// Last moment of validity, since 1970-01-01 UTC.
    #[must_use]
    pub const fn not_after(&self) -> Duration {
        self.not_after
    }

    /// Checks the validity at `unix`, the time since 1970-01-01 UTC: how a node judges its own certificate at its start.
    ///
    /// # Errors
    /// [`Refusal::Expired`] or [`Refusal::NotYetValid`].
    pub fn check_validity(&self, unix: Duration) -> Result<(), Refusal> {
        if let Some(until) = self.not_before.checked_sub(unix).filter(|gap| !gap.is_zero()) {
            return Err(Refusal::NotYetValid { until });
        }
        match unix.checked_sub(self.not_after) {
            Some(since) if !since.is_zero() => Err(Refusal::Expired { since }),
            Some(_) | None => Ok(()),
        }
    }

    /// Whether the holder may call itself so: an alternative name says it, or it is the subject (RFC 4945 §3.1).
    #[must_use]
    pub fn names(&self, identity: &Identity) -> bool {
        self.subject.as_ref() == Some(identity) || self.alternative_names.contains(identity)
    }

    /// RFC 4945 §5.1.3.2: a key usage, if there is one, needs digitalSignature or nonRepudiation for IKE.
    pub(super) fn may_authenticate(&self) -> bool {
        self.key_usage.is_none_or(|usage| usage.digital_signature() || usage.non_repudiation())
    }

    /// RFC 5280 §4.2.1.3.
    pub(super) fn may_sign_certificates(&self) -> bool {
        self.key_usage.is_none_or(|usage| usage.key_cert_sign())
    }

    pub(super) fn is_ca(&self) -> bool {
        self.ca && self.may_sign_certificates()
    }
}

fn malformed<E>(_: E) -> Refusal {
    Refusal::Malformed
}

fn identity_of(name: &GeneralName) -> Option<Identity> {
    match name {
        GeneralName::DnsName(name) => Identity::decode(2, name.as_str().as_bytes()).ok(),
        GeneralName::Rfc822Name(name) => Identity::decode(3, name.as_str().as_bytes()).ok(),
        GeneralName::DirectoryName(name) => Identity::decode(9, &name.to_der().ok()?).ok(),
        GeneralName::IpAddress(octets) => {
            let octets = octets.as_bytes();
            let address = <[u8; 4]>::try_from(octets)
                .map(IpAddr::from)
                .or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from))
                .ok()?;
            Some(Identity::Address(address))
        }
        GeneralName::OtherName(_)
        | GeneralName::EdiPartyName(_)
        | GeneralName::UniformResourceIdentifier(_)
        | GeneralName::RegisteredId(_) => None,
    }
}
