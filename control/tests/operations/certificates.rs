//! Certificates without a code, their end, and the CAs above them.

use std::time::Duration;

use control::{
    Approvals, CaOrder, CertificateKind, CertificateStanding, CertificateWish, ControlError, Renewal, ReplyForm,
    RootKeeping, Store,
};
use enroll::{Approval, AuthorityAlgorithm, Opener, ProfileFormat, RevocationCause, SigningRequest, pem_blocks};
use wire::Secret;

use crate::desk::{Desk, Device, KEY_FILE, WithKeyFile, at, authority, client, suspended, wish};

#[tokio::test]
async fn renewal_keeps_the_name_and_the_old_certificate_until_it_is_revoked() {
    let (_desk, mut store) = Desk::new().await;
    let ca = authority(&mut store).await;
    let old = store.issue_with_key(&at(1), &ca, client("alice")).await.unwrap();
    let key = desk_key(5);
    let request = SigningRequest::compose(&key).unwrap();
    let which = old.serial.to_string();
    let renewal = Renewal { which: "alice", days: 60 };
    let new = store.renew(&at(2), &ca, renewal, &request).await.unwrap();
    let listed = store.certificates(&at(3)).await.unwrap();
    assert!(listed.iter().all(|entry| entry.name == "alice" && entry.standing == CertificateStanding::Good));
    assert!(listed.iter().any(|entry| entry.renews.as_ref() == Some(&which)));
    assert!(matches!(store.certificate(&at(3), "alice").await, Err(ControlError::SeveralCertificates(_))));
    let report = store.revoke(&at(4), &which, RevocationCause::Superseded).await.unwrap();
    assert!(report.key, "its key was proven when it was made here");
    assert!(matches!(store.revoke(&at(5), &which, RevocationCause::Superseded).await, Err(ControlError::Revoked(_))));
    let left = store.certificate(&at(6), "alice").await.unwrap();
    assert_eq!(left.serial, new.serial.to_string());
    let lists = store.revocation_lists(&at(7), Duration::from_hours(48), &mut WithKeyFile).await.unwrap();
    let read = enroll::Revocations::of_list(&lists[0], ca.certificate()).unwrap();
    assert_eq!(read.iter().map(|(serial, _)| serial).collect::<Vec<_>>(), [old.serial]);
}

#[tokio::test]
async fn what_is_revoked_or_suspended_is_not_renewed() {
    let (_desk, mut store) = Desk::new().await;
    let ca = authority(&mut store).await;
    let gone = store.issue_with_key(&at(1), &ca, client("gone")).await.unwrap();
    store.revoke(&at(1), "gone", RevocationCause::Withdrawn).await.unwrap();
    suspended(&mut store, &ca, "n1").await;
    let request = SigningRequest::compose(&desk_key(5)).unwrap();
    let mut renew = async |which: &str| store.renew(&at(6), &ca, Renewal { which, days: 30 }, &request).await;
    assert!(matches!(renew("n1").await, Err(ControlError::Suspended(_))));
    let revoked = renew(&gone.serial.to_string()).await;
    assert!(matches!(revoked, Err(ControlError::Revoked(_))), "{revoked:?}");
}

#[tokio::test]
async fn a_released_certificate_is_on_the_next_list_no_more_and_its_ticket_suspends_it_no_second_time() {
    let (desk, mut store) = Desk::new().await;
    let ca = authority(&mut store).await;
    let stolen = suspended(&mut store, &ca, "n1").await;
    let held = async |store: &mut Store| {
        let lists = store.revocation_lists(&at(6), Duration::from_hours(48), &mut WithKeyFile).await.unwrap();
        enroll::Revocations::of_list(&lists[0], ca.certificate()).unwrap().suspended().count()
    };
    assert_eq!(held(&mut store).await, 1);
    // As if the program were killed before the last thing that a release writes.
    let mut raw = desk.raw().await;
    let kill = "CREATE TRIGGER kill BEFORE INSERT ON journal BEGIN SELECT RAISE(ABORT, 'killed'); END;";
    sqlx::raw_sql(kill).execute(&mut raw).await.unwrap();
    store.release(&at(6), "n1").await.unwrap_err();
    sqlx::raw_sql("DROP TRIGGER kill").execute(&mut raw).await.unwrap();
    assert_eq!(store.certificate(&at(6), "n1").await.unwrap().standing, CertificateStanding::Suspended);

    let report = store.release(&at(7), "n1").await.unwrap();
    assert_eq!(report.name.as_deref(), Some("n1"));
    assert_eq!(store.certificate(&at(8), "n1").await.unwrap().standing, CertificateStanding::Unproven);
    assert_eq!(held(&mut store).await, 0);
    let entries = store.journal(1).await.unwrap();
    let noted = entries.iter().filter(|entry| entry.act == "certificate.release").collect::<Vec<_>>();
    assert!(noted.len() == 1 && noted[0].subject == report.serial, "{noted:?}");
    let stolen = store.read_request(&stolen).await.unwrap();
    store.accept(&at(9), &stolen, Approvals::Code, None, 30, ReplyForm::Complete).await.unwrap();
    assert_eq!(store.confirm(&at(10), "n1").await.unwrap().standing, CertificateStanding::Good);
}

#[tokio::test]
async fn what_is_revoked_good_or_unknown_is_not_released() {
    let (_desk, mut store) = Desk::new().await;
    let ca = authority(&mut store).await;
    let good = store.issue_with_key(&at(1), &ca, client("good")).await.unwrap();
    suspended(&mut store, &ca, "n1").await;
    let revoked = store.revoke(&at(6), "n1", RevocationCause::Compromise).await.unwrap().serial;
    for which in ["n1", revoked.as_str()] {
        let refused = store.release(&at(7), which).await;
        assert!(matches!(refused, Err(ControlError::Revoked(_))), "{which}: {refused:?}");
    }
    for which in ["good", &good.serial.to_string()] {
        let refused = store.release(&at(7), which).await;
        assert!(matches!(refused, Err(ControlError::NotSuspended(_))), "{which}: {refused:?}");
    }
    for which in ["nobody", "0123456789abcdef"] {
        let refused = store.release(&at(7), which).await;
        assert!(matches!(refused, Err(ControlError::NoCertificate(_))), "{which}: {refused:?}");
    }
    assert!(store.journal(1).await.unwrap().iter().all(|entry| entry.act != "certificate.release"));
}

fn desk_key(seed: u64) -> enroll::PrivateKey {
    use rand::SeedableRng as _;
    let mut rng = rand::rngs::StdRng::seed_from_u64(seed);
    enroll::PrivateKey::draw(enroll::Algorithm::P256, &mut rng).unwrap()
}

#[tokio::test]
async fn after_a_rollover_both_cas_sign_their_lists_and_the_new_one_issues() {
    let (_desk, mut store) = Desk::new().await;
    let old = authority(&mut store).await;
    let first = store.issue_with_key(&at(1), &old, client("alice")).await.unwrap();
    let key = Secret::from_slice(&KEY_FILE);
    let order = CaOrder {
        algorithm: AuthorityAlgorithm::P384,
        days: 3650,
        opener: Opener::KeyFile(&key),
        root: RootKeeping::None,
    };
    let made = store.roll_over(&at(2), &order, &mut WithKeyFile).await.unwrap();
    assert_eq!((made.standing.as_str(), made.algorithm.as_str()), ("issuing", "p384"));
    let with_root = CaOrder { root: RootKeeping::File("root.sealed".as_ref()), ..order };
    assert!(matches!(store.roll_over(&at(2), &with_root, &mut WithKeyFile).await, Err(ControlError::NoRoot)));
    let new = authority(&mut store).await;
    let second = store.issue_with_key(&at(3), &new, client("bob")).await.unwrap();
    for (issued, ca) in [(&first, &old), (&second, &new)] {
        let der = pem_blocks(&issued.certificate).remove(0);
        enroll::signed_by(&der, ca.certificate()).unwrap();
    }
    let bridge = pem_blocks(&made.bridge.unwrap()).remove(0);
    enroll::signed_by(&bridge, old.certificate()).unwrap();
    assert!(second.chain.matches("BEGIN").count() == 2, "the new CA and its key's certificate by the old one");
    for which in ["alice", "bob"] {
        store.revoke(&at(4), which, RevocationCause::Compromise).await.unwrap();
    }
    let lists = store.revocation_lists(&at(5), Duration::from_hours(48), &mut WithKeyFile).await.unwrap();
    let serials = |list: &[u8], ca: &enroll::Authority| -> Vec<_> {
        enroll::Revocations::of_list(list, ca.certificate()).unwrap().iter().map(|(serial, _)| serial).collect()
    };
    assert_eq!(serials(&lists[0], &new), [second.serial]);
    assert_eq!(serials(&lists[1], &old), [first.serial]);
    assert!(enroll::Revocations::of_list(&lists[0], old.certificate()).is_err());
    let calendar = store.calendar(&at(6)).await.unwrap();
    assert_eq!(calendar.iter().filter(|entry| entry.kind == "ca").count(), 2);
}

fn rollover(key: &Secret) -> CaOrder<'_> {
    let (algorithm, opener) = (AuthorityAlgorithm::P256, Opener::KeyFile(key));
    CaOrder { algorithm, days: 3650, opener, root: RootKeeping::None }
}

#[tokio::test]
async fn an_issue_that_is_finished_after_a_rollover_is_the_new_cas_and_on_its_list() {
    let (desk, mut store) = Desk::new().await;
    let old = authority(&mut store).await;
    let ticket = store.new_ticket(&at(1), &wish("alice", Approval::Auto)).await.unwrap();
    let device = Device::new(&ticket, 1);
    let incoming = store.read_request(&device.request).await.unwrap();
    // As if the program were killed between the ticket's use and the signature.
    let mut raw = desk.raw().await;
    let kill = "CREATE TRIGGER kill BEFORE UPDATE OF der ON certificate BEGIN SELECT RAISE(ABORT, 'killed'); END;";
    sqlx::raw_sql(kill).execute(&mut raw).await.unwrap();
    let form = ReplyForm::Full;
    store.accept(&at(2), &incoming, Approvals::Code, Some(&old), 398, form).await.unwrap_err();
    sqlx::raw_sql("DROP TRIGGER kill").execute(&mut raw).await.unwrap();
    assert_eq!(store.certificate(&at(3), "alice").await.unwrap().standing, CertificateStanding::Unsigned);
    let refused = store.export_profile(&at(3), "alice", ProfileFormat::Pem, None, None).await;
    assert!(matches!(refused, Err(ControlError::Unsigned(_))), "{refused:?}");

    let key = Secret::from_slice(&KEY_FILE);
    store.roll_over(&at(3), &rollover(&key), &mut WithKeyFile).await.unwrap();
    let refused = store.accept(&at(4), &incoming, Approvals::Code, Some(&old), 398, form).await;
    assert!(matches!(refused, Err(ControlError::AuthorityChanged)), "{refused:?}");
    let new = authority(&mut store).await;
    let accepted = store.accept(&at(5), &incoming, Approvals::Code, Some(&new), 398, form).await.unwrap();
    let der = pem_blocks(&accepted.blocks).remove(0);
    enroll::signed_by(&der, new.certificate()).unwrap();
    let serial = accepted.serial.unwrap();
    store.revoke(&at(6), "alice", RevocationCause::Compromise).await.unwrap();
    let lists = store.revocation_lists(&at(7), Duration::from_hours(48), &mut WithKeyFile).await.unwrap();
    let listed = enroll::Revocations::of_list(&lists[0], new.certificate()).unwrap();
    assert_eq!(listed.iter().map(|(serial, _)| serial).collect::<Vec<_>>(), [serial]);
}

#[tokio::test]
async fn a_ca_that_was_opened_before_a_rollover_issues_no_more() {
    let (_desk, mut store) = Desk::new().await;
    let old = authority(&mut store).await;
    let key = Secret::from_slice(&KEY_FILE);
    store.roll_over(&at(1), &rollover(&key), &mut WithKeyFile).await.unwrap();
    let refused = store.issue_with_key(&at(2), &old, client("alice")).await;
    assert!(matches!(refused, Err(ControlError::AuthorityChanged)), "{refused:?}");
    let ticket = store.new_ticket(&at(3), &wish("bob", Approval::Auto)).await.unwrap();
    let incoming = store.read_request(&Device::new(&ticket, 1).request).await.unwrap();
    let form = ReplyForm::Complete;
    let refused = store.accept(&at(4), &incoming, Approvals::Code, Some(&old), 398, form).await;
    assert!(matches!(refused, Err(ControlError::AuthorityChanged)), "{refused:?}");
    assert_eq!(store.ticket(&at(5), &ticket.number).await.unwrap().status, "open");
}

#[tokio::test]
async fn a_store_with_a_root_keeps_its_key_elsewhere_and_issues_from_the_online_ca() {
    let desk = Desk::bare();
    std::fs::create_dir_all(&desk.directory).unwrap();
    let root = desk.directory.join("root.sealed");
    let key = Secret::from_slice(&KEY_FILE);
    let order = CaOrder {
        algorithm: AuthorityAlgorithm::P384,
        days: 3650,
        opener: Opener::KeyFile(&key),
        root: RootKeeping::File(&root),
    };
    let (cluster, gateway) =
        (enroll::ClusterName::new("hq-vpn").unwrap(), enroll::GatewayName::new("192.0.2.1").unwrap());
    let mut store = Store::create(&at(0), &desk.directory, &cluster, &gateway, &order).await.unwrap();
    let listed = store.authorities().await.unwrap();
    let ranks: Vec<_> = listed.iter().map(|entry| (entry.rank.as_str(), entry.standing.as_str())).collect();
    assert_eq!(ranks, [("online", "issuing"), ("root", "root")]);
    let sealed = std::fs::read(&root).unwrap();
    enroll::open_key(&sealed, Opener::KeyFile(&key)).unwrap();
    let ca = authority(&mut store).await;
    let made = store.issue_with_key(&at(1), &ca, client("alice")).await.unwrap();
    let chain = pem_blocks(&made.chain);
    enroll::signed_by(&chain[0], &chain[1]).unwrap();

    let without = CaOrder { root: RootKeeping::None, ..order };
    assert!(matches!(store.roll_over(&at(2), &without, &mut WithKeyFile).await, Err(ControlError::RootNeeded)));
    // A year later the root has fewer days left than are asked for.
    let later = at(365 * 86_400);
    let made = store.roll_over(&later, &CaOrder { days: 4000, ..order }, &mut WithKeyFile).await.unwrap();
    let listed = store.authorities().await.unwrap();
    let ranks: Vec<_> = listed.iter().map(|entry| (entry.rank.as_str(), entry.standing.as_str())).collect();
    assert_eq!(ranks, [("online", "issuing"), ("online", "retiring"), ("root", "root")]);
    assert_eq!(made.expires, listed[2].expires);
    let new = authority(&mut store).await;
    let issued = store.issue_with_key(&later, &new, client("bob")).await.unwrap();
    let [leaf] = &pem_blocks(&issued.certificate)[..] else { panic!("{}", issued.certificate) };
    let [online, bridge, root] = &pem_blocks(&issued.chain)[..] else { panic!("{}", issued.chain) };
    for (signed, signer) in [(leaf, online.as_slice()), (online, root), (bridge, ca.certificate())] {
        enroll::signed_by(signed, signer).unwrap();
    }
    enroll::signed_by(leaf, bridge).unwrap();
}

#[tokio::test]
async fn cas_whose_key_has_no_number_answer_in_full_and_issue_for_every_kind() {
    for algorithm in [AuthorityAlgorithm::Rsa3072, AuthorityAlgorithm::Ed25519] {
        let desk = Desk::bare();
        let mut store = desk.create(algorithm).await.unwrap();
        let ca = authority(&mut store).await;
        let ticket = store.new_ticket(&at(1), &wish("alice", Approval::Auto)).await.unwrap();
        let device = Device::new(&ticket, 1);
        let incoming = store.read_request(&device.request).await.unwrap();
        let form = ReplyForm::Usual;
        let accepted = store.accept(&at(2), &incoming, Approvals::Code, Some(&ca), 398, form).await.unwrap();
        let blocks = pem_blocks(&accepted.blocks);
        let complete = algorithm == AuthorityAlgorithm::Ed25519;
        assert_eq!((blocks.is_empty(), accepted.lines.len() > 2), (complete, complete), "{algorithm:?}");
        if let [own, above, _] = blocks.as_slice() {
            enroll::signed_by(own, above).unwrap();
        }
        for kind in [CertificateKind::Client, CertificateKind::Gateway, CertificateKind::Node] {
            let name = format!("{}.example", kind.word());
            let wish = CertificateWish { kind, name: &name, days: 30 };
            let made = store.issue_with_key(&at(3), &ca, wish).await.unwrap();
            enroll::signed_by(&pem_blocks(&made.certificate)[0], ca.certificate()).unwrap();
        }
    }
}
