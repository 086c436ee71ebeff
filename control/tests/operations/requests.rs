//! Tickets and requests.

use std::time::Duration;

use control::{
    Approvals, CertificateKind, CertificateStanding, CertificateWish, ControlError, Preview, ReplyForm, Store,
};
use enroll::{
    AllowedKeys, Approval, Profile, Reader, Refusal, RejectionReason, Reply, Role, Settings, SigningRequest, pem_blocks,
};

use crate::desk::{Desk, Device, NOON, at, authority, client, wish};

fn open(device: &Device, text: &str) -> Reply {
    let mut reader = Reader::default();
    reader.add(text);
    let blocks = pem_blocks(text);
    reader.resolve(|symbols| device.pending.open(symbols, &blocks)).unwrap().message
}

#[tokio::test]
async fn a_ticket_runs_from_code_to_certificate_in_every_form_of_the_reply() {
    let (_desk, mut store) = Desk::new().await;
    let ticket = store.new_ticket(&at(1), &wish("alice-laptop", Approval::Auto)).await.unwrap();
    let device = Device::new(&ticket, 1);
    let incoming = store.read_request(&format!("> Dear Bob,\n> {}", device.request)).await.unwrap();
    assert_eq!(store.preview(&at(2), &incoming).await.unwrap(), Preview::Issue);
    let ca = authority(&mut store).await;
    let mut serials = Vec::new();
    for (number, form) in [ReplyForm::Usual, ReplyForm::Short, ReplyForm::Full].into_iter().enumerate() {
        let accepted = store.accept(&at(3), &incoming, Approvals::Code, Some(&ca), 398, form).await.unwrap();
        assert_eq!(accepted.again, number > 0);
        serials.push(accepted.serial.unwrap());
        let text = format!("{}\n{}", accepted.lines.join("\n"), accepted.blocks);
        let reply = open(&device, &text);
        match (form, reply) {
            (ReplyForm::Usual, Reply::Complete(reply)) => {
                reply.certificate(Role::Client, *device.key.public()).unwrap();
            }
            (ReplyForm::Short, Reply::Short(reply)) => assert_eq!(reply.terms.serial, serials[0]),
            (ReplyForm::Full, Reply::Full(reply)) => {
                assert_eq!(reply.blocks.len(), 3);
                reply.certificate(&device.pending.key).unwrap();
                let profile = String::from_utf8_lossy(&reply.blocks[2]);
                assert_eq!(profile, "gateway=vpn.example.org\nprofile=0\n");
            }
            (form, reply) => panic!("{form:?} gave {reply:?}"),
        }
    }
    serials.dedup();
    assert_eq!(serials.len(), 1);
    let listed = store.certificates(&at(4)).await.unwrap();
    assert_eq!((listed.len(), listed[0].standing), (1, CertificateStanding::Unproven));
    assert_eq!(store.confirm(&at(5), "alice-laptop").await.unwrap().standing, CertificateStanding::Good);
    store.verify_journal(None).await.unwrap();
}

#[tokio::test]
async fn nothing_in_the_database_lets_a_thief_answer_or_ask() {
    let (desk, mut store) = Desk::new().await;
    let ticket = store.new_ticket(&at(1), &wish("alice-laptop", Approval::Auto)).await.unwrap();
    let device = Device::new(&ticket, 1);
    let incoming = store.read_request(&device.request).await.unwrap();
    let ca = authority(&mut store).await;
    let holds = |secret: &[u8]| {
        let database = std::fs::read(desk.directory.join("store.db")).unwrap();
        database.windows(secret.len()).any(|window| window == secret)
    };
    store.accept(&at(2), &incoming, Approvals::Code, Some(&ca), 398, ReplyForm::Complete).await.unwrap();
    assert!(!holds(device.pending.reply.secret().expose()) && !holds(device.pending.reject.secret().expose()));
    assert!(!holds(ticket.code.as_bytes()) && !holds(&ticket.code.replace('-', "").as_bytes()[5..23]));
    assert!(!holds(&ca.key().to_pkcs8().unwrap().expose()[36..68]));
}

#[tokio::test]
async fn asked_for_words_choose_among_waiting_requests_and_wrong_ones_issue_nothing() {
    let (_desk, mut store) = Desk::new().await;
    let ticket = store.new_ticket(&at(1), &wish("alice-laptop", Approval::Ask)).await.unwrap();
    let (alice, thief) = (Device::new(&ticket, 1), Device::new(&ticket, 2));
    let ca = authority(&mut store).await;
    let stolen = store.read_request(&thief.request).await.unwrap();
    let honest = store.read_request(&alice.request).await.unwrap();
    let form = ReplyForm::Complete;
    for incoming in [&stolen, &honest] {
        assert_eq!(store.preview(&at(2), incoming).await.unwrap(), Preview::Ask);
        let refused = store.accept(&at(2), incoming, Approvals::Code, Some(&ca), 398, form).await;
        assert!(matches!(refused, Err(ControlError::NeedsWords)));
    }
    let words = Approvals::Words(alice.words);
    let refused = store.accept(&at(3), &stolen, words, Some(&ca), 398, form).await;
    assert!(matches!(refused, Err(ControlError::WordsDiffer)), "Alice's words do not issue for the thief's key");
    assert_eq!(store.certificates(&at(3)).await.unwrap().len(), 0);
    let accepted = store.accept(&at(4), &honest, words, Some(&ca), 398, form).await.unwrap();
    assert!(accepted.serial.is_some());
    let entries = store.journal(1).await.unwrap();
    assert!(entries.iter().any(|entry| entry.act == "alarm" && entry.detail.contains("two different requests")));
}

#[tokio::test]
async fn a_second_request_on_a_used_ticket_is_rejected_with_an_alarm() {
    let (_desk, mut store) = Desk::new().await;
    let ticket = store.new_ticket(&at(1), &wish("alice-laptop", Approval::Auto)).await.unwrap();
    let (alice, thief) = (Device::new(&ticket, 1), Device::new(&ticket, 2));
    let ca = authority(&mut store).await;
    let honest = store.read_request(&alice.request).await.unwrap();
    let first = store.accept(&at(2), &honest, Approvals::Code, Some(&ca), 398, ReplyForm::Complete).await.unwrap();
    let stolen = store.read_request(&thief.request).await.unwrap();
    let rejected = store.accept(&at(3), &stolen, Approvals::Code, None, 398, ReplyForm::Complete).await.unwrap();
    assert_eq!((rejected.reason, rejected.serial), (Some(RejectionReason::Used), None));
    assert!(matches!(open(&thief, &rejected.lines.join("\n")), Reply::Rejection(_)));
    let ticket = store.ticket(&at(4), &ticket.number).await.unwrap();
    assert_eq!(ticket.status, "used again");
    assert_eq!(ticket.serial, Some(first.serial.unwrap().to_string()));
    let entries = store.journal(1).await.unwrap();
    assert!(entries.iter().any(|entry| entry.act == "alarm" && entry.detail.contains("used ticket")));
    let again = store.accept(&at(5), &honest, Approvals::Code, None, 398, ReplyForm::Complete).await.unwrap();
    assert_eq!((again.serial, again.again), (first.serial, true));
}

#[tokio::test]
async fn a_second_request_that_is_rejected_by_hand_raises_the_alarm_too() {
    let (_desk, mut store) = Desk::new().await;
    let ticket = store.new_ticket(&at(1), &wish("alice-laptop", Approval::Auto)).await.unwrap();
    let (alice, thief) = (Device::new(&ticket, 1), Device::new(&ticket, 2));
    let ca = authority(&mut store).await;
    let honest = store.read_request(&alice.request).await.unwrap();
    store.accept(&at(2), &honest, Approvals::Code, Some(&ca), 398, ReplyForm::Complete).await.unwrap();
    let again = store.reject(&at(3), &honest, RejectionReason::Policy).await.unwrap();
    assert_eq!(again.reason, Some(RejectionReason::Policy));
    let stolen = store.read_request(&thief.request).await.unwrap();
    let rejected = store.reject(&at(4), &stolen, RejectionReason::Policy).await.unwrap();
    assert_eq!(rejected.reason, Some(RejectionReason::Used));
    assert_eq!(store.ticket(&at(5), &ticket.number).await.unwrap().status, "used again");
    let entries = store.journal(1).await.unwrap();
    assert!(entries.iter().any(|entry| entry.act == "alarm" && entry.detail.contains("used ticket")));
}

#[tokio::test]
async fn two_halves_that_use_one_ticket_at_once_consume_it_once() {
    let (desk, mut store) = Desk::new().await;
    let mut other = desk.open().await;
    let ca = authority(&mut store).await;
    for round in 0..20 {
        let ticket = store.new_ticket(&at(round), &wish(&format!("a{round}"), Approval::Auto)).await.unwrap();
        let (one, two) = (Device::new(&ticket, 2 * round), Device::new(&ticket, 2 * round + 1));
        let first = store.read_request(&one.request).await.unwrap();
        let second = other.read_request(&two.request).await.unwrap();
        let context = at(round);
        let form = ReplyForm::Complete;
        let (a, b) = tokio::join!(
            store.accept(&context, &first, Approvals::Code, Some(&ca), 398, form),
            other.accept(&context, &second, Approvals::Code, Some(&ca), 398, form),
        );
        let issued = [a.unwrap(), b.unwrap()].iter().filter(|answer| answer.serial.is_some()).count();
        assert_eq!(issued, 1, "round {round}");
    }
    assert_eq!(store.certificates(&at(30)).await.unwrap().len(), 20);
    store.verify_journal(None).await.unwrap();
}

#[tokio::test]
async fn expired_voided_and_foreign_requests_are_told_apart() {
    let (_desk, mut store) = Desk::new().await;
    let (_elsewhere, mut foreign) = Desk::new().await;
    let ca = authority(&mut store).await;
    let late = store.new_ticket(&at(1), &wish("late", Approval::Auto)).await.unwrap();
    let voided = store.new_ticket(&at(1), &wish("voided", Approval::Auto)).await.unwrap();
    let (late, gone) = (Device::new(&late, 1), Device::new(&voided, 2));
    store.void_ticket(&at(2), &voided.number.to_lowercase()).await.unwrap();
    let entries = store.journal(1).await.unwrap();
    assert!(entries.iter().any(|entry| entry.act == "ticket.void" && entry.subject == voided.number));
    for (device, when, reason) in [(&gone, 3, RejectionReason::Voided), (&late, 2 * 86_400, RejectionReason::Expired)] {
        let incoming = store.read_request(&device.request).await.unwrap();
        let form = ReplyForm::Complete;
        let answer = store.accept(&at(when), &incoming, Approvals::Code, Some(&ca), 398, form).await.unwrap();
        assert_eq!(answer.reason, Some(reason));
    }
    assert!(matches!(foreign.read_request(&late.request).await, Err(ControlError::Foreign(Refusal::OtherTicket))));
    let half: String = late.request.lines().take(2).collect::<Vec<_>>().join("\n");
    let Err(ControlError::Lines(lines)) = store.read_request(&half).await else { panic!("half a message is read") };
    assert_eq!(lines.iter().map(|line| line.value()).collect::<Vec<_>>(), [3]);
}

#[tokio::test]
async fn keys_are_kept_until_thirty_days_after_the_tickets_end_and_unproven_certificates_lapse_after_fourteen() {
    let (_desk, mut store) = Desk::new().await;
    let ca = authority(&mut store).await;
    let ticket = store.new_ticket(&at(1), &wish("alice-laptop", Approval::Auto)).await.unwrap();
    let device = Device::new(&ticket, 1);
    let incoming = store.read_request(&device.request).await.unwrap();
    store.accept(&at(2), &incoming, Approvals::Code, Some(&ca), 398, ReplyForm::Complete).await.unwrap();
    let standing =
        async |store: &mut Store, day: u64| store.certificates(&at(day * 86_400 + 10)).await.unwrap()[0].standing;
    assert_eq!(standing(&mut store, 13).await, CertificateStanding::Unproven);
    assert_eq!(standing(&mut store, 14).await, CertificateStanding::Revoked);
    assert!(store.read_request(&device.request).await.is_ok());
    assert_eq!(standing(&mut store, 32).await, CertificateStanding::Revoked);
    assert!(matches!(store.read_request(&device.request).await, Err(ControlError::Foreign(_))));
}

#[tokio::test]
async fn a_clock_behind_the_journal_stops_everything_with_a_sentence() {
    let (_desk, mut store) = Desk::new().await;
    store.new_ticket(&at(90_000), &wish("alice", Approval::Auto)).await.unwrap_err();
    store.new_ticket(&at(10_000), &wish("alice", Approval::Auto)).await.unwrap();
    let behind = store.new_ticket(&at(9_000), &wish("bob", Approval::Auto)).await.unwrap_err();
    assert!(matches!(behind, ControlError::Clock { .. }), "{behind}");
    store.new_ticket(&at(9_500), &wish("bob", Approval::Auto)).await.unwrap();
}

#[tokio::test]
async fn names_of_gateways_and_of_open_tickets_and_known_keys_are_refused() {
    let (_desk, mut store) = Desk::new().await;
    let ca = authority(&mut store).await;
    let gateway = CertificateWish { kind: CertificateKind::Gateway, name: "gw.example.org", days: 398 };
    let made = store.issue_with_key(&at(1), &ca, gateway).await.unwrap();
    for name in ["gw.example.org", "vpn.example.org"] {
        let refused = store.new_ticket(&at(2), &wish(name, Approval::Auto)).await;
        assert!(matches!(refused, Err(ControlError::NameOfGateway(_))), "{name}");
        let refused = store.issue_with_key(&at(2), &ca, client(name)).await;
        assert!(matches!(refused, Err(ControlError::NameOfGateway(_))), "{name} without a code");
    }
    let ticket = store.new_ticket(&at(2), &wish("alice", Approval::Auto)).await.unwrap();
    let again = store.new_ticket(&at(3), &wish("alice", Approval::Auto)).await;
    assert!(matches!(again, Err(ControlError::NameOpen { .. })));
    let stolen_key = enroll::PrivateKey::from_pkcs8(made.key.unwrap().expose()).unwrap();
    let device = Device::with(&ticket, stolen_key);
    let incoming = store.read_request(&device.request).await.unwrap();
    let form = ReplyForm::Complete;
    let rejected = store.accept(&at(4), &incoming, Approvals::Code, Some(&ca), 398, form).await.unwrap();
    assert_eq!(rejected.reason, Some(RejectionReason::Key));
    let request = SigningRequest::compose(&device.key).unwrap();
    let refused = store.issue_pkcs10(&at(5), &ca, client("eve"), &request).await;
    assert!(matches!(refused, Err(ControlError::KnownKey)));
}

#[tokio::test]
async fn a_key_that_waits_on_one_ticket_is_issued_on_no_other() {
    let (_desk, mut store) = Desk::new().await;
    let ca = authority(&mut store).await;
    let first = store.new_ticket(&at(1), &wish("alice", Approval::Ask)).await.unwrap();
    let second = store.new_ticket(&at(1), &wish("eve", Approval::Auto)).await.unwrap();
    let alice = Device::new(&first, 1);
    // A public key is no secret: Eve reads Alice's out of her mail, and asks for it under her own code.
    let eve = Device::new(&second, 1);
    let form = ReplyForm::Complete;
    let honest = store.read_request(&alice.request).await.unwrap();
    let waits = store.accept(&at(2), &honest, Approvals::Code, Some(&ca), 398, form).await;
    assert!(matches!(waits, Err(ControlError::NeedsWords)));
    let copied = store.read_request(&eve.request).await.unwrap();
    let rejected = store.accept(&at(3), &copied, Approvals::Code, Some(&ca), 398, form).await.unwrap();
    assert_eq!(rejected.reason, Some(RejectionReason::Key));
    let words = Approvals::Words(alice.words);
    let accepted = store.accept(&at(4), &honest, words, Some(&ca), 398, form).await.unwrap();
    assert!(accepted.serial.is_some(), "{:?}", accepted.reason);
}

#[tokio::test]
async fn a_profile_is_found_by_its_number_first_and_shares_its_name_with_no_other() {
    let (_desk, mut store) = Desk::new().await;
    let (one, two) = (Profile::new(1).unwrap(), Profile::new(2).unwrap());
    store.set_profile(&at(1), one, "2", &Settings::default()).await.unwrap();
    store.set_profile(&at(1), two, "office", &Settings::default()).await.unwrap();
    assert_eq!(store.find_profile("2").await.unwrap(), two);
    assert_eq!(store.find_profile("office").await.unwrap(), two);
    let taken = store.set_profile(&at(2), one, "office", &Settings::default()).await;
    assert!(matches!(taken, Err(ControlError::ProfileName { number: 2, .. })), "{taken:?}");
    store.set_profile(&at(3), two, "office", &Settings::default()).await.unwrap();
}

#[tokio::test]
async fn a_node_ticket_lives_an_hour_asks_always_and_is_alone() {
    let (_desk, mut store) = Desk::new().await;
    let hour = NOON.after(Duration::from_secs(3000));
    let node = |name: &str, approval| control::TicketWish {
        role: Role::Node,
        expires: hour,
        keys: AllowedKeys::ALL,
        ..wish(name, approval)
    };
    assert!(store.new_ticket(&at(1), &node("n1", Approval::Auto)).await.is_err());
    let ticket = store.new_ticket(&at(1), &node("n1", Approval::Ask)).await.unwrap();
    assert_eq!(ticket.code.len(), 35);
    assert!(store.new_ticket(&at(2), &node("n2", Approval::Ask)).await.is_err());
    store.void_ticket(&at(3), &ticket.number).await.unwrap();
    store.new_ticket(&at(4), &node("n2", Approval::Ask)).await.unwrap();
}
