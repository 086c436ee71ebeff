//! Which certificates and keys no longer count, and the list that says so (RFC 5280 §5).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rcgen::{CertificateRevocationListParams, KeyIdMethod, RevocationReason, RevokedCertParams, SerialNumber};
use time::OffsetDateTime;
use x509_cert::Certificate;
use x509_cert::crl::CertificateList;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::{Decode, Encode};

use super::{Authority, AuthorityError};
use crate::refusal::Refusal;
use crate::template::Serial;
use crate::time::UnixTime;

/// Why a certificate was revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RevocationCause {
    /// Nobody said.
    Unspecified,
    /// Somebody else has the key or the code.
    Compromise,
    /// A newer certificate took its place.
    Superseded,
    /// Its holder left, or it was never proven.
    Withdrawn,
}

/// One revocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revocation {
    /// When it was revoked.
    pub at: UnixTime,
    /// Why.
    pub cause: RevocationCause,
}

/// All revocations of a cluster. They only ever grow: merging never un-revokes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Revocations {
    serials: BTreeMap<Serial, Revocation>,
    /// SHA-256 of the SPKI of keys whose possession was proven.
    keys: BTreeSet<[u8; 32]>,
    suspended: BTreeMap<Serial, UnixTime>,
}

impl Revocations {
    /// Revokes a serial; the first revocation stands.
    pub fn revoke(&mut self, serial: Serial, revocation: Revocation) {
        self.suspended.remove(&serial);
        self.serials.entry(serial).or_insert(revocation);
    }

    /// Revokes a key whose possession was proven. Never by fingerprint of a certificate: ECDSA signatures have two forms.
    pub fn revoke_key(&mut self, spki_hash: [u8; 32]) {
        self.keys.insert(spki_hash);
    }

    /// Takes a certificate out of use until somebody decides.
    pub fn suspend(&mut self, serial: Serial, at: UnixTime) {
        if !self.serials.contains_key(&serial) {
            self.suspended.entry(serial).or_insert(at);
        }
    }

    /// Ends a suspension; a revocation stays.
    pub fn release(&mut self, serial: Serial) {
        self.suspended.remove(&serial);
    }

    /// Takes in what another member or a published list knows. The earlier of two revocations or suspensions stands.
    pub fn merge(&mut self, other: &Self) {
        for (&serial, &revocation) in &other.serials {
            self.suspended.remove(&serial);
            let own = self.serials.entry(serial).or_insert(revocation);
            *own = revocation.min(*own);
        }
        self.keys.extend(&other.keys);
        for (&serial, &at) in &other.suspended {
            self.suspend(serial, at);
            self.suspended.entry(serial).and_modify(|own| *own = at.min(*own));
        }
    }

    /// Whether a certificate no longer counts.
    #[must_use]
    pub fn refuses(&self, serial: Serial, spki_hash: &[u8; 32]) -> bool {
        self.serials.contains_key(&serial) || self.suspended.contains_key(&serial) || self.keys.contains(spki_hash)
    }

    /// The revoked keys, each by SHA-256 of its SPKI.
    pub fn keys(&self) -> impl Iterator<Item = &[u8; 32]> {
        self.keys.iter()
    }

    /// Reads a published list in DER whose signature by the CA with this certificate holds. A list names serials only.
    ///
    /// # Errors
    /// It is malformed, or not signed by that CA.
    pub fn of_list(list: &[u8], authority: &[u8]) -> Result<Self, AuthorityError> {
        let list: CertificateList = CertificateList::from_der(list).map_err(|_| AuthorityError::List)?;
        let authority = Certificate::from_der(authority).map_err(|_| AuthorityError::Certificate)?;
        let signed = list.tbs_cert_list.to_der().map_err(|_| AuthorityError::List)?;
        crate::certificate::verify(&authority, &list.signature_algorithm.oid, &signed, list.signature.raw_bytes())
            .map_err(|_| AuthorityError::List)?;
        let mut revocations = Self::default();
        for entry in list.tbs_cert_list.revoked_certificates.unwrap_or_default() {
            let octets = entry.serial_number.as_bytes();
            let number = octets.iter().try_fold(0_u64, |n, &octet| n.checked_mul(256).map(|n| n | u64::from(octet)));
            // A serial that is none of ours stands in no certificate of ours.
            let Some(serial) = number.and_then(Serial::new) else { continue };
            let at = UnixTime { seconds: entry.revocation_date.to_unix_duration().as_secs() };
            let reason = entry.crl_entry_extensions.iter().flatten().find(|extension| extension.extn_id == REASON);
            match reason.and_then(|extension| extension.extn_value.as_bytes().last()) {
                Some(6) => revocations.suspend(serial, at),
                reason => revocations.revoke(serial, Revocation { at, cause: cause(reason.copied()) }),
            }
        }
        Ok(revocations)
    }

    /// The suspended serials, and since when.
    pub fn suspended(&self) -> impl Iterator<Item = (Serial, UnixTime)> + '_ {
        self.suspended.iter().map(|(&serial, &at)| (serial, at))
    }

    /// The revoked serials.
    pub fn iter(&self) -> impl Iterator<Item = (Serial, Revocation)> + '_ {
        self.serials.iter().map(|(&serial, &revocation)| (serial, revocation))
    }
}

impl Authority {
    /// Signs the certificate revocation list (RFC 5280 §5) with the given number, valid for `life`.
    ///
    /// # Errors
    /// A time is out of range, or a library failed.
    pub fn revocation_list(
        &self,
        revocations: &Revocations,
        number: u64,
        now: UnixTime,
        life: Duration,
    ) -> Result<Vec<u8>, AuthorityError> {
        let mut revoked_certs = Vec::new();
        for (serial, revocation) in revocations.iter() {
            revoked_certs.push(entry(serial, revocation.at, reason(revocation.cause))?);
        }
        for (&serial, &at) in &revocations.suspended {
            revoked_certs.push(entry(serial, at, RevocationReason::CertificateHold)?);
        }
        let params = CertificateRevocationListParams {
            this_update: moment(now)?,
            next_update: moment(now.after(life))?,
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs,
            key_identifier_method: KeyIdMethod::PreSpecified(self.key.identifier().to_vec()),
        };
        let list = params.signed_by(&self.issuer()).map_err(|_| AuthorityError::Library)?;
        Ok(list.der().to_vec())
    }
}

fn entry(serial: Serial, at: UnixTime, reason: RevocationReason) -> Result<RevokedCertParams, AuthorityError> {
    Ok(RevokedCertParams {
        serial_number: SerialNumber::from(serial.value()),
        revocation_time: moment(at)?,
        // RFC 5280 §5.3.1: unspecified should be absent.
        reason_code: Some(reason).filter(|&reason| reason != RevocationReason::Unspecified),
        invalidity_date: None,
    })
}

const fn reason(cause: RevocationCause) -> RevocationReason {
    match cause {
        RevocationCause::Unspecified => RevocationReason::Unspecified,
        RevocationCause::Compromise => RevocationReason::KeyCompromise,
        RevocationCause::Superseded => RevocationReason::Superseded,
        RevocationCause::Withdrawn => RevocationReason::CessationOfOperation,
    }
}

/// CRLReason (RFC 5280 §5.3.1).
const fn cause(number: Option<u8>) -> RevocationCause {
    match number {
        Some(1 | 2) => RevocationCause::Compromise,
        Some(4) => RevocationCause::Superseded,
        Some(5) => RevocationCause::Withdrawn,
        Some(_) | None => RevocationCause::Unspecified,
    }
}

fn moment(time: UnixTime) -> Result<OffsetDateTime, AuthorityError> {
    let seconds = i64::try_from(time.seconds).map_err(|_| Refusal::Days)?;
    OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| AuthorityError::Refused(Refusal::Days))
}

/// id-ce-cRLReasons (RFC 5280 §5.3.1).
const REASON: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.21");

#[cfg(test)]
mod tests {
    use super::*;

    fn serial(number: u64) -> Serial {
        Serial::new(number).unwrap()
    }

    fn at(seconds: u64) -> Revocation {
        Revocation { at: UnixTime { seconds }, cause: RevocationCause::Withdrawn }
    }

    #[test]
    fn a_restored_backup_un_revokes_nothing() {
        let mut lists = Revocations::default();
        lists.revoke(serial(1), at(5));
        let backup = lists.clone();
        lists.revoke(serial(2), at(6));
        lists.revoke_key([7; 32]);
        let mut restored = backup;
        restored.merge(&lists);
        assert_eq!(restored, lists);
        assert!(restored.refuses(serial(2), &[0; 32]) && restored.refuses(serial(9), &[7; 32]));
        assert!(!restored.refuses(serial(9), &[0; 32]));
    }

    #[test]
    fn merging_is_the_same_in_any_order_and_keeps_the_earlier() {
        let mut a = Revocations::default();
        a.revoke(serial(1), at(5));
        a.suspend(serial(3), UnixTime { seconds: 1 });
        a.suspend(serial(7), UnixTime { seconds: 3 });
        let mut b = Revocations::default();
        b.revoke(serial(1), at(4));
        b.revoke(serial(3), at(9));
        b.suspend(serial(7), UnixTime { seconds: 2 });
        let (mut ab, mut ba) = (a.clone(), b.clone());
        ab.merge(&b);
        ba.merge(&a);
        assert_eq!(ab, ba);
        assert_eq!(ab.iter().collect::<Vec<_>>(), [(serial(1), at(4)), (serial(3), at(9))]);
        assert_eq!(ab.suspended().collect::<Vec<_>>(), [(serial(7), UnixTime { seconds: 2 })]);
    }

    #[test]
    fn a_suspension_ends_and_a_revocation_does_not() {
        let mut lists = Revocations::default();
        lists.suspend(serial(1), UnixTime { seconds: 1 });
        assert!(lists.refuses(serial(1), &[0; 32]));
        lists.release(serial(1));
        assert!(!lists.refuses(serial(1), &[0; 32]));
        lists.revoke(serial(1), at(2));
        lists.release(serial(1));
        lists.suspend(serial(1), UnixTime { seconds: 3 });
        lists.release(serial(1));
        assert!(lists.refuses(serial(1), &[0; 32]));
    }
}
