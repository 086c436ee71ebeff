use std::slice;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevocationReason, RevokedCertParams,
    SanType, SerialNumber,
};
use time::OffsetDateTime;

use super::*;

const NOW: Duration = Duration::from_secs(1_800_000_000);

fn at(seconds: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_800_000_000 + seconds).unwrap()
}

fn params(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    (params.not_before, params.not_after) = (at(-3600), at(3600));
    params
}

fn ca_params(name: &str) -> CertificateParams {
    let mut params = params(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn ca(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    CertifiedIssuer::self_signed(ca_params(name), KeyPair::generate().unwrap()).unwrap()
}

fn peer_params() -> CertificateParams {
    let mut params = params("carol");
    params.subject_alt_names = vec![
        SanType::Rfc822Name("carol@example.org".try_into().unwrap()),
        SanType::DnsName("carol.example.org".try_into().unwrap()),
        SanType::IpAddress("192.0.2.7".parse().unwrap()),
        SanType::IpAddress("2001:db8::7".parse().unwrap()),
    ];
    params
}

fn issue(params: CertificateParams, issuer: &Issuer<'_, KeyPair>) -> Vec<u8> {
    params.signed_by(&KeyPair::generate().unwrap(), issuer).unwrap().der().to_vec()
}

fn trusting(ca: &CertifiedIssuer<'_, KeyPair>) -> TrustAnchors {
    let mut trust = TrustAnchors::default();
    trust.add_pem(ca.pem().as_bytes()).unwrap();
    trust
}

fn carol() -> Identity {
    "carol@example.org".parse().unwrap()
}

#[test]
fn every_kind_of_identity_in_the_certificate_is_proven() {
    let ca = ca("CA");
    let leaf = issue(peer_params(), &ca);
    for name in ["carol@example.org", "CAROL.example.org", "192.0.2.7", "2001:db8::7", "CN=carol"] {
        let proof =
            trusting(&ca).validate(slice::from_ref(&leaf), &name.parse().unwrap(), Usage::Initiator, NOW).unwrap();
        assert_eq!(proof.subject, Some("CN=carol".parse().unwrap()), "{name}");
        assert_eq!(proof.public_key, Certificate::from_der(&leaf).unwrap().public_key());
    }
    for name in ["dave@example.org", "example.org", "192.0.2.8", "CN=CA", "carol", "keyid:00"] {
        let refused = trusting(&ca).validate(slice::from_ref(&leaf), &name.parse().unwrap(), Usage::Initiator, NOW);
        assert_eq!(refused, Err(Refusal::IdentityMissing), "{name}");
    }
}

#[test]
fn a_path_may_lead_over_an_intermediate_that_the_peer_sends() {
    let root = ca("root");
    let middle = CertifiedIssuer::signed_by(ca_params("middle"), KeyPair::generate().unwrap(), &root).unwrap();
    let leaf = issue(peer_params(), &middle);
    let trust = trusting(&root);
    let whole = [leaf.clone(), middle.der().to_vec()];
    assert!(trust.validate(&whole, &carol(), Usage::Initiator, NOW).is_ok());
    assert_eq!(trust.validate(&[leaf], &carol(), Usage::Initiator, NOW), Err(Refusal::UnknownIssuer));
}

#[test]
fn time_decides_on_both_sides() {
    let ca = ca("CA");
    let leaf = issue(peer_params(), &ca);
    let check = |unix| trusting(&ca).validate(slice::from_ref(&leaf), &carol(), Usage::Initiator, unix);
    let expired = check(NOW + Duration::from_secs(3660));
    assert_eq!(expired, Err(Refusal::Expired { since: Duration::from_secs(60) }));
    let early = check(NOW - Duration::from_secs(7200));
    assert_eq!(early, Err(Refusal::NotYetValid { until: Duration::from_secs(3600) }));
    assert_eq!(
        early.unwrap_err().to_string(),
        "a certificate is not valid yet, it begins in 60 minutes; check the clocks"
    );
    let own = Certificate::from_der(&leaf).unwrap();
    assert_eq!(own.check_validity(NOW), Ok(()));
    assert_eq!(
        own.check_validity(Duration::ZERO),
        Err(Refusal::NotYetValid { until: NOW - Duration::from_secs(3600) })
    );
    assert!(matches!(own.check_validity(NOW * 2), Err(Refusal::Expired { .. })));
}

#[test]
fn another_ca_of_the_same_name_proves_nothing() {
    let (ours, theirs) = (ca("CA"), ca("CA"));
    let leaf = issue(peer_params(), &theirs);
    let refused = trusting(&ours).validate(&[leaf], &carol(), Usage::Initiator, NOW);
    assert_eq!(refused, Err(Refusal::BadSignature));
    let stranger = issue(peer_params(), &ca("other"));
    let refused = trusting(&ours).validate(&[stranger], &carol(), Usage::Initiator, NOW);
    assert_eq!(refused, Err(Refusal::UnknownIssuer));
}

#[test]
fn purposes_must_fit_the_part() {
    let ca = ca("CA");
    let rows: [(&[ExtendedKeyUsagePurpose], bool, bool); 6] = [
        (&[], true, true),
        (&[ExtendedKeyUsagePurpose::Any], true, true),
        (&[ExtendedKeyUsagePurpose::ClientAuth], true, false),
        (&[ExtendedKeyUsagePurpose::ServerAuth], false, true),
        (&[ExtendedKeyUsagePurpose::CodeSigning], false, false),
        (
            &[ExtendedKeyUsagePurpose::CodeSigning, ExtendedKeyUsagePurpose::Other(vec![1, 3, 6, 1, 5, 5, 7, 3, 17])],
            true,
            true,
        ),
    ];
    for (purposes, initiator, responder) in rows {
        let mut params = peer_params();
        params.extended_key_usages = purposes.to_vec();
        let leaf = issue(params, &ca);
        for (usage, allowed) in [(Usage::Initiator, initiator), (Usage::Responder, responder)] {
            let verdict = trusting(&ca).validate(slice::from_ref(&leaf), &carol(), usage, NOW).map(|_| ());
            let expected = if allowed { Ok(()) } else { Err(Refusal::WrongUsage) };
            assert_eq!(verdict, expected, "{purposes:?} {usage:?}");
        }
    }
}

#[test]
fn a_key_usage_without_signatures_is_refused() {
    let ca = ca("CA");
    for (usage, allowed) in [(KeyUsagePurpose::KeyEncipherment, false), (KeyUsagePurpose::DigitalSignature, true)] {
        let mut params = peer_params();
        params.key_usages = vec![usage];
        let verdict = trusting(&ca).validate(&[issue(params, &ca)], &carol(), Usage::Initiator, NOW).map(|_| ());
        assert_eq!(verdict, if allowed { Ok(()) } else { Err(Refusal::WrongUsage) });
    }
}

#[test]
fn only_a_ca_may_issue() {
    let root = ca("root");
    let mut no_cert_sign = ca_params("middle");
    no_cert_sign.key_usages = vec![KeyUsagePurpose::CrlSign];
    for middle in [params("middle"), no_cert_sign] {
        let middle = CertifiedIssuer::signed_by(middle, KeyPair::generate().unwrap(), &root).unwrap();
        let chain = [issue(peer_params(), &middle), middle.der().to_vec()];
        let refused = trusting(&root).validate(&chain, &carol(), Usage::Initiator, NOW);
        assert_eq!(refused, Err(Refusal::Constraint));
        assert_eq!(TrustAnchors::default().add_der(middle.der()), Err(LoadError::NotCa(1)));
    }
}

#[test]
fn a_revoked_certificate_is_refused_and_so_is_a_stale_list() {
    let ca = ca("CA");
    let mut params = peer_params();
    params.serial_number = Some(SerialNumber::from(7_u64));
    let (leaf, other) = (issue(params, &ca), issue(peer_params(), &ca));
    let list = CertificateRevocationListParams {
        this_update: at(-60),
        next_update: at(60),
        crl_number: SerialNumber::from(1_u64),
        issuing_distribution_point: None,
        revoked_certs: vec![RevokedCertParams {
            serial_number: SerialNumber::from(7_u64),
            revocation_time: at(-120),
            reason_code: Some(RevocationReason::KeyCompromise),
            invalidity_date: None,
        }],
        key_identifier_method: KeyIdMethod::Sha256,
    };
    let mut trust = trusting(&ca);
    trust.add_crl_pem(list.signed_by(&ca).unwrap().pem().unwrap().as_bytes()).unwrap();
    assert_eq!(trust.validate(&[leaf], &carol(), Usage::Initiator, NOW), Err(Refusal::Revoked));
    assert!(trust.validate(slice::from_ref(&other), &carol(), Usage::Initiator, NOW).is_ok());
    let stale = trust.validate(&[other], &carol(), Usage::Initiator, NOW + Duration::from_secs(120));
    assert_eq!(stale, Err(Refusal::CrlExpired { since: Duration::from_secs(60) }));
}

#[test]
fn an_empty_endless_or_damaged_chain_is_refused() {
    let ca = ca("CA");
    let leaf = issue(peer_params(), &ca);
    let trust = trusting(&ca);
    assert_eq!(trust.validate(&[], &carol(), Usage::Initiator, NOW), Err(Refusal::NoCertificate));
    let endless = vec![leaf.clone(); TrustAnchors::CHAIN_LEN_MAX + 1];
    assert_eq!(trust.validate(&endless, &carol(), Usage::Initiator, NOW), Err(Refusal::TooMany));
    for len in 0..leaf.len() {
        let refused = trust.validate(&[leaf[..len].to_vec()], &carol(), Usage::Initiator, NOW);
        assert_eq!(refused, Err(Refusal::Malformed), "cut at {len}");
    }
}

#[test]
fn a_certreq_names_each_anchor_by_the_hash_of_its_key() {
    let (a, b) = (ca("a"), ca("b"));
    let mut trust = trusting(&a);
    trust.add_der(b.der()).unwrap();
    assert_eq!(trust.certification_authority().len(), 40);
    assert_eq!(TrustAnchors::default().add_pem(b"nothing"), Err(LoadError::Empty));
}
