//! What the CA does beside the format's own: other algorithms, hashed keys, rollover, PKCS#12, signed profiles; each
//! looked at by openssl.

use enroll::{
    Algorithm, Approval, Authority, AuthorityAlgorithm, AuthorityError, AuthorityKey, BundleCipher, BundleError,
    ClientName, Connection, GatewayName, Identity, ProfileFormat, Rank, Refusal, RequestedKey, Revocations, Role,
    Settings, SigningRequest, Words, check_successor, pkcs12, signed,
};
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::time::Duration;
use wire::Secret;

use crate::authority::{Files, cluster, days, draw, openssl_verify, serial, sole, terms, tool};
use crate::scene::{START, Scene};

fn ca(algorithm: AuthorityAlgorithm) -> Authority {
    let key = AuthorityKey::draw(algorithm, &mut StdRng::seed_from_u64(7)).unwrap();
    Authority::create(cluster(), Rank::Sole, key, serial(1), days(3650)).unwrap()
}

#[test]
fn cas_of_every_algorithm_come_back_issue_and_revoke() {
    let files = Files::new("algorithms");
    for algorithm in
        [AuthorityAlgorithm::P256, AuthorityAlgorithm::Ed25519, AuthorityAlgorithm::P384, AuthorityAlgorithm::Rsa3072]
    {
        let ca = ca(algorithm);
        let again = AuthorityKey::from_pkcs8(ca.key().to_pkcs8().unwrap().expose()).unwrap();
        assert_eq!((again.algorithm(), again.spki_hash()), (algorithm, ca.key().spki_hash()));
        let ca_file = files.pem("ca.pem", "CERTIFICATE", ca.certificate());
        let name = ClientName::new("alice-laptop").unwrap();
        let spki = draw(2, Algorithm::P256).public().spki();
        let client = ca.issue_plain(Role::Client, &spki, &name, serial(5), days(30)).unwrap();
        let client_file = files.pem("client.pem", "CERTIFICATE", &client);
        let (good, said) = openssl_verify(&["-CAfile", &ca_file, "-purpose", "sslclient", &client_file]);
        assert!(good, "{algorithm:?}: {said}");
        let gateway = GatewayName::new("vpn.example.org").unwrap();
        let key = draw(3, Algorithm::P256);
        let gateway = ca.issue_gateway(&gateway, key.public(), serial(6), days(30)).unwrap();
        let gateway_file = files.pem("gateway.pem", "CERTIFICATE", &gateway);
        let (good, said) = openssl_verify(&["-CAfile", &ca_file, "-purpose", "sslserver", &gateway_file]);
        assert!(good, "{algorithm:?}: {said}");
        let list = ca.revocation_list(&Revocations::default(), 1, START, Duration::from_hours(48)).unwrap();
        let list_file = files.pem("list.pem", "X509 CRL", &list);
        let (good, said) = tool("openssl", &["crl", "-in", &list_file, "-CAfile", &ca_file, "-noout"]);
        assert!(good && said.contains("verify OK"), "{algorithm:?}: {said}");
    }
}

#[test]
fn a_ca_without_a_number_answers_with_short_and_full_reply() {
    for algorithm in [AuthorityAlgorithm::P384, AuthorityAlgorithm::Rsa3072] {
        let mut scene = Scene::new(40, Role::Client, Approval::Auto);
        let ca = ca(algorithm);
        let (message, pending) = scene.request_of(&scene.client);
        let request = scene.read(&message);
        let grant = scene.grant(&request);
        let mac = scene.ticket.reply_key().unwrap();
        let replies = ca.reply(mac, &grant, &pending.key, &terms("alice-laptop", 1), &[], b"").unwrap();
        assert_eq!(replies.complete, None);
        assert!(pending.open(replies.short.symbols(), &[]).is_ok());
        let (line, blocks) = replies.full.unwrap();
        assert!(pending.open(line.symbols(), &blocks).is_ok(), "{algorithm:?}");
    }
}

#[test]
fn a_hashed_key_gets_a_short_reply_and_its_certificate_when_it_comes() {
    let mut scene = Scene::new(41, Role::Client, Approval::Auto);
    let ca = sole(Algorithm::P256);
    let (message, _) = scene.request_of(&scene.client);
    let grant = scene.grant(&scene.read(&message));
    let spki = AuthorityKey::draw(AuthorityAlgorithm::Rsa3072, &mut scene.rng).unwrap();
    let hash = spki.spki_hash();
    let key = RequestedKey::Hashed(hash);
    let mac = scene.ticket.reply_key().unwrap();
    let replies = ca.reply(mac, &grant, &key, &terms("alice-laptop", 1), &[], b"").unwrap();
    assert_eq!((replies.certificate, replies.complete, replies.full), (None, None, None));
    let name = ClientName::new("alice-laptop").unwrap();
    let issued = ca.issue_hashed(Role::Client, &grant, &hash, &spki.spki(), &name).unwrap();
    let facts = enroll::CertificateFacts::decode(&issued).unwrap();
    assert_eq!(facts.spki, spki.spki());
    let other = draw(9, Algorithm::P256).public().spki();
    let refused = ca.issue_hashed(Role::Client, &grant, &hash, &other, &name);
    assert_eq!(refused, Err(AuthorityError::Refused(Refusal::OtherKey)));
}

#[test]
fn after_a_rollover_who_trusts_only_the_old_ca_takes_the_new_ones_certificates() {
    let files = Files::new("rollover");
    let old = sole(Algorithm::P256);
    let new = ca(AuthorityAlgorithm::P384);
    let bridge = old.certify_successor(&new, serial(90), days(400)).unwrap();
    let name = ClientName::new("alice-laptop").unwrap();
    let client =
        new.issue_plain(Role::Client, &draw(2, Algorithm::P256).public().spki(), &name, serial(91), days(398)).unwrap();
    let old_file = files.pem("old.pem", "CERTIFICATE", old.certificate());
    let new_file = files.pem("new.pem", "CERTIFICATE", new.certificate());
    let bridge_file = files.pem("bridge.pem", "CERTIFICATE", &bridge);
    let client_file = files.pem("client.pem", "CERTIFICATE", &client);
    let (good, said) = openssl_verify(&["-CAfile", &new_file, &client_file]);
    assert!(good, "{said}");
    let (good, said) = openssl_verify(&["-CAfile", &old_file, "-untrusted", &bridge_file, &client_file]);
    assert!(good, "{said}");
    let (good, _) = openssl_verify(&["-CAfile", &old_file, &client_file]);
    assert!(!good, "the old CA alone must not vouch for the new one's certificates");
    assert_eq!(old.certify_successor(&new, serial(92), days(4000)).unwrap_err(), AuthorityError::Outlives);
}

#[test]
fn only_a_cas_certificate_hands_the_trust_on_to_the_next_ca() {
    let old = sole(Algorithm::P256);
    let new = ca(AuthorityAlgorithm::P384);
    let bridge = old.certify_successor(&new, serial(90), days(400)).unwrap();
    let check = |new: &Authority, bridge: &[u8], old: &Authority, day: u64| {
        let now = START.after(Duration::from_hours(24 * day));
        check_successor(new.certificate(), bridge, old.certificate(), now)
    };
    assert_eq!(check(&new, &bridge, &old, 0), Ok(()));
    assert_eq!(check(&new, &bridge, &old, 400), Err(Refusal::Days));
    // A client has a certificate of its key by the old CA too, and can make itself a CA with that key.
    let mallory = draw(2, Algorithm::P256);
    let own = old.issue(Role::Client, *mallory.public(), &terms("mallory", 91)).unwrap().1;
    let forged = Authority::create(cluster(), Rank::Sole, mallory.into(), serial(92), days(400)).unwrap();
    assert_eq!(check(&forged, &own, &old, 0), Err(Refusal::NoAuthority));
    assert_eq!(check(&forged, &bridge, &old, 0), Err(Refusal::OtherKey));
    assert_eq!(check(&forged, forged.certificate(), &old, 0), Err(Refusal::Signature));
    assert_eq!(check(&new, &bridge, &new, 0), Err(Refusal::Signature));
}

#[test]
fn pkcs12_opens_in_openssl_with_modern_and_old_ciphers_and_names_them() {
    let files = Files::new("pkcs12");
    let ca = sole(Algorithm::P256);
    let key = draw(2, Algorithm::P256);
    let certificate = ca.issue(Role::Client, *key.public(), &terms("alice-laptop", 4)).unwrap().1;
    let passphrase = Secret::from_slice(b"correct horse");
    let pkcs8 = key.to_pkcs8().unwrap();
    for (cipher, marks) in [
        (BundleCipher::Modern, ["PBES2", "AES-256-CBC", "sha256"]),
        (BundleCipher::Old, ["pbeWithSHA1And3-KeyTripleDES-CBC", "sha1", "MAC"]),
    ] {
        let bundle = pkcs12(cipher, &passphrase, "alice-laptop", &pkcs8, &[&certificate, ca.certificate()]).unwrap();
        let file = files.put("alice.p12", &bundle);
        let common = ["pkcs12", "-in", &file, "-passin", "pass:correct horse", "-nodes", "-info"];
        let legacy: &[&str] = if cipher == BundleCipher::Old { &["-legacy"] } else { &[] };
        let (good, said) = tool("openssl", &[&common[..], legacy].concat());
        assert!(good, "{cipher:?}: {said}");
        for mark in marks {
            assert!(said.contains(mark), "{cipher:?} lacks {mark}: {said}");
        }
        assert_eq!(said.matches("BEGIN CERTIFICATE").count(), 2, "{said}");
        assert_eq!(said.matches("BEGIN PRIVATE KEY").count(), 1, "{said}");
        let (good, _) = tool("openssl", &["pkcs12", "-in", &file, "-passin", "pass:wrong", "-nodes", "-legacy"]);
        assert!(!good, "a wrong passphrase opens it");
    }
    let empty = Secret::from_slice(b"");
    assert_eq!(pkcs12(BundleCipher::Modern, &empty, "a", &pkcs8, &[&certificate]), Err(BundleError::Passphrase));
}

#[test]
fn a_signed_apple_profile_is_verified_by_openssl_and_a_changed_one_is_not() {
    let files = Files::new("apple");
    let ca = sole(Algorithm::P256);
    let (key, signer) = (draw(2, Algorithm::P256), draw(3, Algorithm::P256));
    let certificate = ca.issue(Role::Client, *key.public(), &terms("alice-laptop", 4)).unwrap().1;
    let signer_certificate = ca.issue_signer(signer.public(), serial(5), days(90)).unwrap();
    let (client, gateway) = (ClientName::new("alice-laptop").unwrap(), GatewayName::new("vpn.example.org").unwrap());
    let settings = Settings::parse("routes=10.0.0.0/8\ndns=10.0.0.53").unwrap();
    let connection = Connection {
        cluster: &cluster(),
        gateway: &gateway,
        client: &client,
        settings: &settings,
        authority: ca.certificate(),
    };
    let (pkcs8, passphrase) = (key.to_pkcs8().unwrap(), Secret::from_slice(b"correct horse"));
    let identity =
        Identity { certificate: &certificate, chain: &[], key: Some((&pkcs8, BundleCipher::Modern, &passphrase)) };
    let written = connection.files(ProfileFormat::MobileConfig, &identity).unwrap();
    let list = plist::Value::from_reader_xml(&written[0].content[..]).unwrap();
    let payloads = list.as_dictionary().unwrap()["PayloadContent"].as_array().unwrap().clone();
    let kinds: Vec<_> = payloads
        .iter()
        .map(|payload| payload.as_dictionary().unwrap()["PayloadType"].as_string().unwrap().to_owned())
        .collect();
    assert_eq!(kinds, ["com.apple.security.pkcs12", "com.apple.security.root", "com.apple.vpn.managed"]);

    let signed = signed(&written[0].content, &signer, &[&signer_certificate, ca.certificate()]).unwrap();
    let file = files.put("alice.mobileconfig", &signed);
    let ca_file = files.pem("ca.pem", "CERTIFICATE", ca.certificate());
    let noon = (START.seconds + 43_200).to_string();
    let out = files.put("content", b"");
    let verify = |file: &str| {
        tool(
            "openssl",
            &[
                "cms", "-verify", "-inform", "DER", "-in", file, "-CAfile", &ca_file, "-attime", &noon, "-binary",
                "-out", &out,
            ],
        )
    };
    let (good, said) = verify(&file);
    assert!(good, "{said}");
    assert_eq!(std::fs::read(&out).unwrap(), written[0].content);
    let mut changed = signed.clone();
    let place = changed.windows(10).position(|window| window == b"alice-lapt").unwrap();
    changed[place] ^= 1;
    let (good, _) = verify(&files.put("changed.mobileconfig", &changed));
    assert!(!good, "a changed profile still verifies");
    // The signer's certificate opens no tunnel and no web session.
    let signer_file = files.pem("signer.pem", "CERTIFICATE", &signer_certificate);
    for purpose in ["sslclient", "sslserver"] {
        let (good, _) = openssl_verify(&["-CAfile", &ca_file, "-purpose", purpose, &signer_file]);
        assert!(!good, "{purpose}");
    }
}

#[test]
fn our_own_pkcs10_request_is_taken_by_openssl_and_has_words_to_compare() {
    let files = Files::new("request");
    for algorithm in [Algorithm::P256, Algorithm::Ed25519] {
        let key = draw(2, algorithm);
        let request = SigningRequest::compose(&key).unwrap();
        let file = files.put("request.der", &request);
        let (good, said) = tool("openssl", &["req", "-in", &file, "-inform", "DER", "-verify", "-noout"]);
        assert!(good, "{said}");
        let read = SigningRequest::decode(&request).unwrap();
        assert_eq!(read.spki(), key.public().spki());
        assert_eq!(Words::of_key(&read.spki_hash()), Words::of_key(&key.public().spki_hash()));
    }
}
