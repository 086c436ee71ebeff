//! What the CA issues, held against openssl, strongSwan's pki and rustls-webpki.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use enroll::{
    Algorithm, Answer, Approval, Authority, AuthorityError, AuthorityKey, ClientName, ClusterName, GatewayName,
    KeyStanding, Opener, PrivateKey, Profile, PublicKey, Rank, Refusal, Reply, RequestedKey, Revocation,
    RevocationCause, Revocations, Role, SealCost, Serial, Terms, UnixTime, Validity, open_key, pem_block, seal_key,
};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rustls_pki_types::{CertificateDer, UnixTime as PkiTime};
use webpki::{
    BorrowedCertRevocationList, EndEntityCert, KeyUsage, RevocationOptions, RevocationOptionsBuilder,
    anchor_from_trusted_cert,
};
use wire::Secret;

use crate::scene::{START, Scene};

const BOTH: [Algorithm; 2] = [Algorithm::P256, Algorithm::Ed25519];

pub(crate) fn cluster() -> ClusterName {
    ClusterName::new("hq-vpn").unwrap()
}

/// Days from yesterday on; the tools look at the real clock, so the start is this certificate's own.
pub(crate) fn days(count: u16) -> Validity {
    Validity::new(START.day() as u16 - 1, count).unwrap()
}

pub(crate) fn serial(number: u64) -> Serial {
    Serial::new(number).unwrap()
}

pub(crate) fn draw(seed: u64, algorithm: Algorithm) -> PrivateKey {
    PrivateKey::draw(algorithm, &mut StdRng::seed_from_u64(seed)).unwrap()
}

pub(crate) fn sole(algorithm: Algorithm) -> Authority {
    Authority::create(cluster(), Rank::Sole, draw(1, algorithm).into(), serial(1), days(3650)).unwrap()
}

pub(crate) fn terms(name: &str, number: u64) -> Terms {
    Terms {
        serial: serial(number),
        validity: days(398),
        cluster: cluster(),
        client: ClientName::new(name).unwrap(),
        gateway: GatewayName::new("vpn.example.org").unwrap(),
        profile: Profile::default(),
    }
}

fn issue(ca: &Authority, role: Role, key: &PublicKey, number: u64) -> Vec<u8> {
    ca.issue(role, *key, &terms("alice-laptop", number)).unwrap().1
}

/// A directory for one test's files.
pub(crate) struct Files(PathBuf);

impl Files {
    pub(crate) fn new(test: &str) -> Self {
        let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join(test);
        let _ = std::fs::remove_dir_all(&place);
        std::fs::create_dir_all(&place).unwrap();
        Self(place)
    }

    pub(crate) fn put(&self, name: &str, octets: &[u8]) -> String {
        let path = self.0.join(name);
        std::fs::write(&path, octets).unwrap();
        path.to_str().unwrap().to_owned()
    }

    pub(crate) fn pem(&self, name: &str, label: &str, der: &[u8]) -> String {
        self.put(name, pem_block(label, der).as_bytes())
    }
}

/// Runs a tool; says whether it was content, and what it said.
pub(crate) fn tool(program: &str, arguments: &[&str]) -> (bool, String) {
    let run = Command::new(program).args(arguments).output();
    let output = run.unwrap_or_else(|error| {
        panic!("{program} is needed to check certificates ({error}): install the packages openssl and strongswan-pki")
    });
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

/// The moment that openssl and webpki are told: noon of the first day.
fn noon() -> String {
    (START.seconds + 43_200).to_string()
}

pub(crate) fn openssl_verify(arguments: &[&str]) -> (bool, String) {
    let noon = noon();
    let start = ["verify", "-x509_strict", "-attime", &noon];
    tool("openssl", &start.iter().chain(arguments).copied().collect::<Vec<_>>())
}

fn webpki_takes(ca: &[u8], certificate: &[u8], usage: KeyUsage) -> bool {
    webpki_takes_with(ca, certificate, usage, None)
}

fn webpki_takes_with(ca: &[u8], certificate: &[u8], usage: KeyUsage, lists: Option<RevocationOptions<'_>>) -> bool {
    let (ca, certificate) = (CertificateDer::from(ca), CertificateDer::from(certificate));
    let anchor = anchor_from_trusted_cert(&ca).unwrap();
    let time = PkiTime::since_unix_epoch(Duration::from_secs(START.seconds));
    let end = EndEntityCert::try_from(&certificate).unwrap();
    end.verify_for_usage(webpki::ALL_VERIFICATION_ALGS, &[anchor], &[], time, usage, lists, None).is_ok()
}

#[test]
fn certificates_of_clients_pass_openssl_pki_and_webpki() {
    let files = Files::new("clients");
    for ca_algorithm in BOTH {
        let ca = sole(ca_algorithm);
        let ca_file = files.pem("ca.pem", "CERTIFICATE", ca.certificate());
        for algorithm in BOTH {
            let key = draw(2, algorithm);
            let certificate = issue(&ca, Role::Client, key.public(), 77);
            let file = files.pem("client.pem", "CERTIFICATE", &certificate);
            let (good, said) = openssl_verify(&["-CAfile", &ca_file, "-purpose", "sslclient", &file]);
            assert!(good, "{ca_algorithm:?} {algorithm:?}: {said}");
            let (good, said) = openssl_verify(&["-CAfile", &ca_file, "-purpose", "sslserver", &file]);
            assert!(!good, "a client is no server: {said}");
            let (_, said) = tool("openssl", &["x509", "-in", &file, "-noout", "-purpose"]);
            assert!(said.contains("SSL client : Yes") && said.contains("SSL server : No"), "{said}");
            let (_, said) = tool("openssl", &["x509", "-in", &file, "-noout", "-ext", "subjectAltName"]);
            assert!(said.contains("DNS:alice-laptop.hq-vpn.invalid"), "{said}");
            let (good, said) = tool("pki", &["--print", "--in", &file]);
            assert!(good && said.contains("CN=alice-laptop"), "{said}");
            assert!(webpki_takes(ca.certificate(), &certificate, KeyUsage::client_auth()));
            assert!(!webpki_takes(ca.certificate(), &certificate, KeyUsage::server_auth()));
        }
    }
}

#[test]
fn strongswan_verifies_what_is_valid_today() {
    // pki knows no other time than now: this one is valid for as long as 16 bits of days last.
    let files = Files::new("pki");
    let long = |start| Validity::new(start, 4095).unwrap();
    let now = START.day() as u16 - 1;
    for algorithm in BOTH {
        let ca = Authority::create(cluster(), Rank::Sole, draw(1, algorithm).into(), serial(1), long(now)).unwrap();
        let terms = Terms { validity: Validity::new(now, 4000).unwrap(), ..terms("alice", 3) };
        let (_, certificate) = ca.issue(Role::Client, *draw(2, algorithm).public(), &terms).unwrap();
        let (ca_file, file) =
            (files.pem("ca.pem", "CERTIFICATE", ca.certificate()), files.pem("c.pem", "CERTIFICATE", &certificate));
        let (good, said) = tool("pki", &["--verify", "--in", &file, "--ca", &ca_file]);
        assert!(good, "{algorithm:?}: {said}");
    }
}

#[test]
fn certificates_of_nodes_are_unusable_as_clients() {
    let ca = sole(Algorithm::P256);
    let certificate = issue(&ca, Role::Node, draw(2, Algorithm::P256).public(), 5);
    assert!(!webpki_takes(ca.certificate(), &certificate, KeyUsage::client_auth()));
    // 2.25.1184207873.
    let purpose = KeyUsage::required(&[0x69, 0x84, 0xb4, 0xd6, 0xa8, 0x01]);
    assert!(webpki_takes(ca.certificate(), &certificate, purpose));
}

#[test]
fn certificates_of_gateways_are_servers_and_ike_peers() {
    let files = Files::new("gateways");
    let ca = sole(Algorithm::P256);
    let ca_file = files.pem("ca.pem", "CERTIFICATE", ca.certificate());
    for (name, option) in
        [("vpn.example.org", "-verify_hostname"), ("2001:db8::1", "-verify_ip"), ("192.0.2.1", "-verify_ip")]
    {
        let gateway = GatewayName::new(name).unwrap();
        let certificate = ca.issue_gateway(&gateway, draw(3, Algorithm::P256).public(), serial(9), days(90)).unwrap();
        let file = files.pem("gateway.pem", "CERTIFICATE", &certificate);
        let (good, said) = openssl_verify(&["-CAfile", &ca_file, "-purpose", "sslserver", option, name, &file]);
        assert!(good, "{said}");
        let (_, said) = tool("openssl", &["x509", "-in", &file, "-noout", "-ext", "extendedKeyUsage"]);
        assert!(said.contains("ipsec Internet Key Exchange") || said.contains("1.3.6.1.5.5.7.3.17"), "{said}");
        let (good, _) = openssl_verify(&["-CAfile", &ca_file, "-purpose", "sslclient", &file]);
        assert!(!good, "a gateway is no client");
        assert!(!webpki_takes(ca.certificate(), &certificate, KeyUsage::client_auth()));
    }
}

#[test]
fn a_root_issues_an_online_ca_and_only_that() {
    let files = Files::new("chain");
    let root =
        Authority::create(cluster(), Rank::Root, draw(1, Algorithm::P256).into(), serial(1), days(3650)).unwrap();
    let online = root.create_online(draw(2, Algorithm::Ed25519).into(), serial(2), days(1000)).unwrap();
    let certificate = issue(&online, Role::Client, draw(3, Algorithm::P256).public(), 3);
    let root_file = files.pem("root.pem", "CERTIFICATE", root.certificate());
    let online_file = files.pem("online.pem", "CERTIFICATE", online.certificate());
    let file = files.pem("client.pem", "CERTIFICATE", &certificate);
    let (good, said) =
        openssl_verify(&["-CAfile", &root_file, "-untrusted", &online_file, "-purpose", "sslclient", &file]);
    assert!(good, "{said}");
    let key = draw(4, Algorithm::P256);
    let refused = root.issue(Role::Client, *key.public(), &terms("a", 4)).unwrap_err();
    assert_eq!(refused, AuthorityError::Rank);
    assert_eq!(online.create_online(key.into(), serial(5), days(10)).unwrap_err(), AuthorityError::Rank);
    let late = root.create_online(draw(5, Algorithm::P256).into(), serial(6), days(3651)).unwrap_err();
    assert_eq!(late, AuthorityError::Outlives);
}

#[test]
fn a_revoked_certificate_is_refused_by_openssl_and_webpki_and_the_others_are_not() {
    let files = Files::new("revoked");
    for algorithm in BOTH {
        let ca = sole(algorithm);
        let ca_file = files.pem("ca.pem", "CERTIFICATE", ca.certificate());
        let mut revocations = Revocations::default();
        revocations.revoke(serial(5), Revocation { at: START, cause: RevocationCause::Compromise });
        revocations.suspend(serial(6), START);
        let list = ca.revocation_list(&revocations, 7, START, Duration::from_hours(48)).unwrap();
        let list_file = files.pem("list.pem", "X509 CRL", &list);
        let (good, said) = tool("openssl", &["crl", "-in", &list_file, "-CAfile", &ca_file, "-noout", "-text"]);
        assert!(good && said.contains("verify OK") && said.contains("Key Compromise"), "{said}");
        for (number, counts) in [(4, true), (5, false), (6, false)] {
            let certificate = issue(&ca, Role::Client, draw(2, Algorithm::P256).public(), number);
            let file = files.pem("client.pem", "CERTIFICATE", &certificate);
            let (good, said) = openssl_verify(&["-CAfile", &ca_file, "-crl_check", "-CRLfile", &list_file, &file]);
            assert_eq!(good, counts, "{number}: {said}");
            let listed = BorrowedCertRevocationList::from_der(&list).unwrap().into();
            let lists = [&listed];
            let options = RevocationOptionsBuilder::new(&lists).unwrap().build();
            let taken = webpki_takes_with(ca.certificate(), &certificate, KeyUsage::client_auth(), Some(options));
            assert_eq!(taken, counts, "{number}");
        }
    }
}

#[test]
fn pkcs10_requests_of_any_algorithm_are_issued_under_the_name_of_the_ticket() {
    let files = Files::new("pkcs10");
    let ca = sole(Algorithm::P256);
    let ca_file = files.pem("ca.pem", "CERTIFICATE", ca.certificate());
    let name = ClientName::new("bob@example.org").unwrap();
    let request_file = files.put("request.der", b"");
    let key_file = files.put("key.pem", b"");
    let kinds: [&[&str]; 4] = [
        &["rsa:3072"],
        &["ec", "-pkeyopt", "ec_paramgen_curve:P-384"],
        &["ec", "-pkeyopt", "ec_paramgen_curve:P-256"],
        &["ed25519"],
    ];
    for kind in kinds {
        let start = [
            "req",
            "-new",
            "-nodes",
            "-subj",
            "/CN=root",
            "-outform",
            "DER",
            "-out",
            &request_file,
            "-keyout",
            &key_file,
        ];
        let arguments: Vec<_> = start.iter().copied().chain(["-newkey"]).chain(kind.iter().copied()).collect();
        let (good, said) = tool("openssl", &arguments);
        assert!(good, "{said}");
        let request = std::fs::read(&request_file).unwrap();
        let certificate = ca.issue_pkcs10(&request, &name, serial(8), days(30)).unwrap();
        let file = files.pem("client.pem", "CERTIFICATE", &certificate);
        let (good, said) = openssl_verify(&["-CAfile", &ca_file, "-purpose", "sslclient", &file]);
        assert!(good, "{kind:?}: {said}");
        let (_, said) = tool("openssl", &["x509", "-in", &file, "-noout", "-subject", "-ext", "subjectAltName"]);
        assert!(said.contains("bob@example.org") && said.contains("email:") && !said.contains("root"), "{said}");
        let mut changed = request.clone();
        let last = changed.len() - 3;
        changed[last] ^= 1;
        assert_eq!(ca.issue_pkcs10(&changed, &name, serial(8), days(30)), Err(AuthorityError::SigningRequest));
    }
    assert_eq!(ca.issue_pkcs10(b"x", &name, serial(8), days(30)), Err(AuthorityError::SigningRequest));
}

#[test]
fn whatever_a_pkcs10_request_asks_for_only_its_key_is_taken_and_weak_ones_are_not() {
    let files = Files::new("wishes");
    let ca = sole(Algorithm::P256);
    let name = ClientName::new("bob").unwrap();
    let (request_file, key_file) = (files.put("request.der", b""), files.put("key.pem", b""));
    let ask = |more: &[&str]| {
        let start = ["req", "-new", "-nodes", "-subj", "/CN=admin/O=x", "-outform", "DER", "-out", &request_file];
        let arguments: Vec<_> = start.into_iter().chain(["-keyout", &key_file]).chain(more.iter().copied()).collect();
        let (good, said) = tool("openssl", &arguments);
        assert!(good, "{said}");
        ca.issue_pkcs10(&std::fs::read(&request_file).unwrap(), &name, serial(8), days(30))
    };
    let wishes = [
        "subjectAltName=DNS:vpn.example.org",
        "basicConstraints=critical,CA:TRUE",
        "keyUsage=keyCertSign",
        "extendedKeyUsage=serverAuth,1.2.3.4",
        "certificatePolicies=1.2.3.4",
        "1.2.3.4.5=ASN1:UTF8String:whatever",
    ];
    let p256: [&str; 4] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];
    let wishes: Vec<_> = p256.into_iter().chain(wishes.into_iter().flat_map(|wish| ["-addext", wish])).collect();
    let file = files.pem("client.pem", "CERTIFICATE", &ask(&wishes).unwrap());
    let (_, said) = tool("openssl", &["x509", "-in", &file, "-noout", "-text"]);
    assert!(said.contains("DNS:bob.hq-vpn.invalid"), "{said}");
    for wish in ["admin", "vpn.example.org", "CA:TRUE", "Certificate Sign", "Server Authentication", "1.2.3.4"] {
        assert!(!said.contains(wish), "{wish} in {said}");
    }
    for weak in [&["-newkey", "rsa:1024"][..], &["-newkey", "rsa:2048", "-sha1"]] {
        assert_eq!(ask(weak), Err(AuthorityError::SigningRequest), "{weak:?}");
    }
}

#[test]
fn a_ca_comes_back_from_its_sealed_key_and_from_no_other() {
    let ca = sole(Algorithm::P256);
    let passphrase = Secret::from_slice(b"correct horse battery staple");
    let opener = Opener::Passphrase(&passphrase);
    let mut rng = StdRng::seed_from_u64(9);
    let sealed = seal_key(&ca.key().to_pkcs8().unwrap(), opener, SealCost::RECOMMENDED, &mut rng).unwrap();
    let opened = || AuthorityKey::from_pkcs8(open_key(&sealed, opener).unwrap().expose()).unwrap();
    let certificate = ca.certificate().to_vec();
    let load = |name: &str, rank, certificate: Vec<u8>, key| {
        Authority::load(ClusterName::new(name).unwrap(), rank, certificate, key).map(|ca| ca.key().spki_hash())
    };
    assert_eq!(load("hq-vpn", Rank::Sole, certificate.clone(), opened()), Ok(ca.key().spki_hash()));
    let other_key = draw(2, Algorithm::P256);
    assert_eq!(load("hq-vpn", Rank::Sole, certificate.clone(), other_key.into()), Err(AuthorityError::Key));
    assert_eq!(load("branch", Rank::Sole, certificate.clone(), opened()), Err(AuthorityError::Certificate));
    assert_eq!(load("hq-vpn", Rank::Root, certificate, opened()), Err(AuthorityError::Certificate));
    assert_eq!(load("hq-vpn", Rank::Sole, b"x".to_vec(), opened()), Err(AuthorityError::Certificate));
}

#[test]
fn the_ca_refuses_to_be_outlived_and_to_issue_for_its_own_key_or_another_cluster() {
    let ca = sole(Algorithm::P256);
    let key = *draw(2, Algorithm::P256).public();
    let late = Terms { validity: days(3651), ..terms("a", 2) };
    assert_eq!(ca.issue(Role::Client, key, &late).unwrap_err(), AuthorityError::Outlives);
    let own = ca.issue(Role::Client, *ca.key().public().unwrap(), &terms("a", 2)).unwrap_err();
    assert_eq!(own, AuthorityError::Refused(Refusal::CaKey));
    let foreign = Terms { cluster: ClusterName::new("branch").unwrap(), ..terms("a", 2) };
    assert_eq!(ca.issue(Role::Client, key, &foreign).unwrap_err(), AuthorityError::Refused(Refusal::Name));
    let online = Authority::create(cluster(), Rank::Online, draw(3, Algorithm::P256).into(), serial(1), days(1));
    assert_eq!(online.unwrap_err(), AuthorityError::Rank);
}

#[test]
fn a_ticket_runs_from_request_to_a_certificate_that_the_client_rebuilds_from_every_form() {
    for (role, ca_algorithm) in [(Role::Client, Algorithm::P256), (Role::Node, Algorithm::Ed25519)] {
        let mut scene = Scene::new(30, role, Approval::Ask);
        let ca = sole(ca_algorithm);
        let (message, pending) = scene.request_of(&scene.client);
        let request = scene.read(&message);
        let Answer::Compare(words) = scene.ticket.handle_request(START, &request, KeyStanding::New) else {
            panic!("words are asked for");
        };
        scene.ticket.handle_words(START, &words).unwrap();
        let grant = scene.grant(&request);
        let key = scene.ticket.consume(START, grant).unwrap();
        let terms = Terms { client: scene.ticket.order().name.clone(), ..terms("x", 1) };
        let mac = scene.ticket.reply_key().unwrap();
        let replies = ca.reply(mac, &grant, &key, &terms, &[], b"profile").unwrap();
        let replies = scene.ticket.store_replies(&grant, replies).unwrap().clone();

        let complete = replies.complete.clone().unwrap();
        let Ok(Reply::Complete(reply)) = pending.open(complete.symbols(), &[]) else {
            panic!("the complete reply is refused");
        };
        assert_eq!(reply.certificate(role, *scene.client.public()), Ok(replies.certificate.clone().unwrap()));
        let (line, blocks) = replies.full.clone().unwrap();
        let Ok(Reply::Full(full)) = pending.open(line.symbols(), &blocks) else {
            panic!("the full reply is refused");
        };
        assert_eq!(full.certificate(&pending.key), Ok(replies.certificate.as_deref().unwrap()));
        let other = RequestedKey::Whole(*scene.thief.public());
        assert_eq!(full.certificate(&other), Err(Refusal::OtherKey));
        let Ok(Reply::Short(short)) = pending.open(replies.short.symbols(), &[]) else {
            panic!("the short reply is refused");
        };
        let facts = enroll::CertificateFacts::decode(replies.certificate.as_deref().unwrap()).unwrap();
        assert_eq!(facts.common_name, "alice-laptop");
        let expiry = u16::try_from(facts.expires.day()).unwrap();
        assert!(short.terms.matches(&ca.key().spki_hash(), grant.serial, expiry));
        assert!(!short.terms.matches(&scene.ca.public().spki_hash(), grant.serial, expiry));
        scene.ticket.handle_proof(UnixTime { seconds: START.seconds + 5 }, &pending.key.spki_hash());
        assert_eq!(scene.ticket.state().status(), enroll::Status::Proven);
    }
}
