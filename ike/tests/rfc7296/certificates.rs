//! Signatures (RFC 7427) with chains of certificates, and the fragments (RFC 7383) that carry them.

use std::sync::Arc;
use std::time::Duration;

use auth::x509::TrustAnchors;
use crypto::{KeyKind, SigningKey};
use ike::{Config, Event, LocalAuth, Path, Reason, Refusal, RemoteAuth, RemoteIdentity};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose, SanType};
use time::OffsetDateTime;

use crate::pair::{INITIATOR, Node, Pair, RESPONDER, WALL_CLOCK, config, initiator_connection, responder_connection};

const LONG: Duration = Duration::from_secs(20);

struct Pki {
    root: CertifiedIssuer<'static, KeyPair>,
    middle: CertifiedIssuer<'static, KeyPair>,
}

struct Credential {
    chain: Vec<Vec<u8>>,
    key: Arc<SigningKey>,
    kind: KeyKind,
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    let now = i64::try_from(WALL_CLOCK.as_secs()).unwrap();
    params.not_before = OffsetDateTime::from_unix_timestamp(now - 3600).unwrap();
    params.not_after = OffsetDateTime::from_unix_timestamp(now + 36_000).unwrap();
    params
}

fn ca(name: &str) -> CertificateParams {
    let mut params = params(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

impl Pki {
    fn new() -> Self {
        Self::named("Example")
    }

    fn named(name: &str) -> Self {
        let key = || KeyPair::generate().unwrap();
        let root = CertifiedIssuer::self_signed(ca(&format!("{name} root")), key()).unwrap();
        let middle = CertifiedIssuer::signed_by(ca(&format!("{name} middle")), key(), &root).unwrap();
        Self { root, middle }
    }

    fn trust(&self) -> TrustAnchors {
        let mut trust = TrustAnchors::default();
        trust.add_der(self.root.der()).unwrap();
        trust
    }

    fn issue(&self, san: SanType, kind: KeyKind) -> Credential {
        let mut params = params("end");
        params.subject_alt_names = vec![san];
        let pair = match kind {
            KeyKind::EcdsaP256 => KeyPair::generate().unwrap(),
            KeyKind::Rsa => KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap(),
        };
        let leaf = params.signed_by(&pair, &self.middle).unwrap();
        Credential {
            chain: vec![leaf.der().to_vec(), self.middle.der().to_vec()],
            key: Arc::new(SigningKey::from_pkcs8_der(&pair.serialize_der()).unwrap()),
            kind,
        }
    }

    fn carol(&self, kind: KeyKind) -> Credential {
        self.issue(SanType::Rfc822Name("carol@example.org".try_into().unwrap()), kind)
    }

    fn gateway(&self, kind: KeyKind) -> Credential {
        self.issue(SanType::DnsName("gw.example.org".try_into().unwrap()), kind)
    }
}

fn pair_of(pki: &Pki, carol: &Credential, gateway: &Credential) -> Pair {
    let (mut initiator, mut responder) = (initiator_connection(), responder_connection());
    for (connection, credential) in [(&mut initiator, carol), (&mut responder, gateway)] {
        let (chain, kind) = (credential.chain.clone(), credential.kind);
        connection.local_auth = LocalAuth::Certificate { chain, key: "own".into(), kind };
        connection.remote_auth = RemoteAuth::Certificate;
    }
    let trusting = |config: Config| Config { trust_anchors: pki.trust(), ..config };
    let mut pair = Pair::with(trusting(config(initiator)), trusting(config(responder)));
    pair.nodes[INITIATOR].keys.insert("own".into(), Arc::clone(&carol.key));
    pair.nodes[RESPONDER].keys.insert("own".into(), Arc::clone(&gateway.key));
    pair
}

fn certificate_refusals(node: &Node) -> Vec<auth::x509::Refusal> {
    let of = |e: &Event| if let Event::Refused { certificate, .. } = e { certificate.clone() } else { None };
    node.events.iter().filter_map(of).collect()
}

#[test]
fn certificates_on_both_sides_open_a_session_with_either_kind_of_key() {
    let pki = Pki::new();
    for (a, b) in [
        (KeyKind::EcdsaP256, KeyKind::EcdsaP256),
        (KeyKind::Rsa, KeyKind::EcdsaP256),
        (KeyKind::EcdsaP256, KeyKind::Rsa),
    ] {
        let mut pair = pair_of(&pki, &pki.carol(a), &pki.gateway(b));
        pair.initiate();
        pair.run(LONG);
        assert_eq!(pair.nodes[INITIATOR].refused(), [], "{a:?} {b:?}");
        assert_eq!(pair.nodes[RESPONDER].ups(), 1, "{a:?} {b:?} {:?}", pair.nodes[RESPONDER].events);
        pair.assert_children_fit(1);
    }
}

#[test]
fn a_long_message_travels_in_fragments_and_survives_loss() {
    let pki = Pki::new();
    for seed in 0..10 {
        let mut pair = pair_of(&pki, &pki.carol(KeyKind::Rsa), &pki.gateway(KeyKind::EcdsaP256));
        pair.seed(seed);
        if seed > 0 {
            (pair.loss, pair.duplicates) = (50, 50);
        }
        pair.initiate();
        pair.run(Duration::from_secs(60));
        pair.assert_children_fit(1);
        assert!(pair.wire.iter().all(|(_, d)| d.len() <= 1200), "seed {seed}");
        assert!(pair.wire.iter().any(|(_, d)| d[16] == 53), "there were fragments");
    }
}

#[test]
fn a_certificate_of_another_ca_name_or_time_is_refused_with_its_reason() {
    let (pki, other) = (Pki::new(), Pki::named("Other"));
    let gateway = pki.gateway(KeyKind::EcdsaP256);

    let mut pair = pair_of(&pki, &other.carol(KeyKind::EcdsaP256), &gateway);
    pair.initiate();
    pair.run(LONG);
    assert_eq!(certificate_refusals(&pair.nodes[RESPONDER]), [auth::x509::Refusal::UnknownIssuer]);
    assert_eq!(pair.nodes[INITIATOR].closed(), [Reason::AuthenticationRefused]);

    let mallory = pki.issue(SanType::Rfc822Name("mallory@example.org".try_into().unwrap()), KeyKind::EcdsaP256);
    let mut pair = pair_of(&pki, &mallory, &gateway);
    pair.initiate();
    pair.run(LONG);
    assert_eq!(certificate_refusals(&pair.nodes[RESPONDER]), [auth::x509::Refusal::IdentityMissing]);

    let mut pair = pair_of(&pki, &pki.carol(KeyKind::EcdsaP256), &gateway);
    let early = WALL_CLOCK - Duration::from_secs(10 * 3600);
    pair.nodes[RESPONDER].endpoint.set_wall_clock(pair.now, early);
    pair.initiate();
    pair.run(LONG);
    assert!(matches!(certificate_refusals(&pair.nodes[RESPONDER])[..], [auth::x509::Refusal::NotYetValid { .. }]));
}

#[test]
fn a_key_that_is_not_the_certificates_proves_nothing() {
    let pki = Pki::new();
    let (carol, gateway) = (pki.carol(KeyKind::EcdsaP256), pki.gateway(KeyKind::EcdsaP256));
    let mut pair = pair_of(&pki, &carol, &gateway);
    pair.nodes[INITIATOR].keys.insert("own".into(), pki.carol(KeyKind::EcdsaP256).key);
    pair.initiate();
    pair.run(LONG);
    assert_eq!(pair.nodes[RESPONDER].refused(), [Refusal::AuthFailed]);
    pair.assert_children_fit(0);
}

#[test]
fn a_shared_key_does_not_serve_where_a_certificate_is_asked_for() {
    let pki = Pki::new();
    let mut pair = pair_of(&pki, &pki.carol(KeyKind::EcdsaP256), &pki.gateway(KeyKind::EcdsaP256));
    let mut initiator = initiator_connection();
    initiator.remote_identity = RemoteIdentity::Any;
    pair.nodes[INITIATOR].endpoint.set_config(Arc::new(config(initiator)));
    pair.initiate();
    pair.run(LONG);
    assert_eq!(pair.nodes[RESPONDER].refused(), [Refusal::AuthMethod]);
}

#[test]
fn a_signer_that_fails_ends_the_attempt() {
    let pki = Pki::new();
    for end in [INITIATOR, RESPONDER] {
        let mut pair = pair_of(&pki, &pki.carol(KeyKind::EcdsaP256), &pki.gateway(KeyKind::EcdsaP256));
        pair.nodes[end].keys.clear();
        pair.initiate();
        pair.run(Duration::from_secs(60));
        pair.assert_children_fit(0);
        assert!(pair.nodes.iter().all(|n| n.records.is_empty()));
        assert_eq!(pair.nodes[RESPONDER].addresses_out, 0);
    }
}

#[test]
fn a_node_may_die_after_any_output_of_a_login_by_certificate() {
    let pki = Pki::new();
    let (carol, gateway) = (pki.carol(KeyKind::Rsa), pki.gateway(KeyKind::EcdsaP256));
    for end in [INITIATOR, RESPONDER] {
        for at in 1..14 {
            let mut pair = pair_of(&pki, &carol, &gateway);
            pair.nodes[end].dies_at = Some(at);
            pair.initiate();
            pair.run(LONG);
            pair.assert_children_fit(1);
            assert_eq!(pair.nodes[end].closed(), []);
        }
    }
}

#[test]
fn fragments_of_a_forger_are_not_kept() {
    let pki = Pki::new();
    let mut pair = pair_of(&pki, &pki.carol(KeyKind::Rsa), &pki.gateway(KeyKind::EcdsaP256));
    pair.initiate();
    pair.run(Duration::from_millis(25));
    let fragment = pair.wire.iter().find(|(_, d)| d[16] == 53).unwrap().1.clone();
    let path = Path { local: "198.51.100.1:4500".parse().unwrap(), remote: "192.0.2.1:4500".parse().unwrap() };
    let before = pair.nodes[RESPONDER].endpoint.counters().refused(Refusal::Integrity);
    for octet in 36..60 {
        let mut forged = fragment.clone();
        forged[octet] ^= 1;
        pair.deliver(RESPONDER, path, &forged);
    }
    assert_eq!(pair.nodes[RESPONDER].endpoint.counters().refused(Refusal::Integrity), before + 24);
    pair.run(LONG);
    pair.assert_children_fit(1);
}
