use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;
use crate::code::Code;
use crate::key::{Parity, PublicKey};
use crate::refusal::KeyRefusal;
use crate::template::Validity;

const START: UnixTime = UnixTime { seconds: 1_795_219_200 };

fn at(seconds: u64) -> UnixTime {
    START.after(Duration::from_secs(seconds))
}

fn keys(role: Role) -> TicketKeys {
    let mut rng = StdRng::seed_from_u64(1);
    TicketKeys::derive(&Code::draw(role, TicketNumber::draw(&mut rng), &mut rng))
}

fn order(role: Role, approval: Approval) -> TicketOrder {
    let name = ClientName::new("alice").unwrap();
    TicketOrder { role, name, profile: Profile::default(), expires: at(3600), approval, keys: AllowedKeys::ALL }
}

fn ticket(role: Role, approval: Approval) -> Ticket {
    Ticket::open(START, order(role, approval), keys(role), []).unwrap()
}

/// A valid request; another `x` makes another request.
fn request(role: Role, x: u8) -> Request {
    let mut octets = [0; 32];
    octets[31] = x;
    let key = PublicKey::p256(octets, Parity::Even).map(RequestedKey::Whole);
    let (_, hash) = Request::compose(&keys(role).request, &key.unwrap());
    Request { ticket: keys(role).request.ticket(), hash, key }
}

/// x coordinates that have points.
const ALICE: u8 = 5;
const THIEF: u8 = 6;

fn grant(request: &Request, serial: u64) -> Grant {
    Grant { hash: request.hash, serial: Serial::new(serial).unwrap(), validity: Validity::new(20_777, 398).unwrap() }
}

fn replies(ticket: &Ticket, request: &Request) -> Replies {
    let message = ticket.rejection(&request.hash, RejectionReason::Other).unwrap();
    Replies { certificate: Some(vec![1]), complete: None, short: message.clone(), full: Some((message, vec![vec![1]])) }
}

fn issued(role: Role) -> Ticket {
    let mut ticket = ticket(role, Approval::Ask);
    let request = request(role, ALICE);
    assert!(matches!(ticket.handle_request(START, &request, KeyStanding::New), Answer::Compare(_)));
    ticket.handle_words(START, &Words::of_request(role, &request.hash)).unwrap();
    ticket.consume(START, grant(&request, 7)).unwrap();
    let replies = replies(&ticket, &request);
    ticket.store_replies(&grant(&request, 7), replies).unwrap();
    ticket
}

fn effects(ticket: &mut Ticket) -> Vec<Effect> {
    std::iter::from_fn(|| ticket.poll_effect()).collect()
}

const REVOKE_7: Effect = Effect::Revoke { serial: Serial::new(7).unwrap(), key: None };

#[test]
fn the_same_request_gets_the_same_stored_reply_again() {
    let mut ticket = issued(Role::Client);
    let stored = replies(&ticket, &request(Role::Client, ALICE));
    for seconds in [0, 10, 4000] {
        let answer = ticket.handle_request(at(seconds), &request(Role::Client, ALICE), KeyStanding::Known);
        assert_eq!(answer, Answer::Again(&stored));
    }
    assert_eq!(effects(&mut ticket), []);
    assert_eq!(ticket.reply_key(), None, "K_reply is deleted once the replies are stored");
}

#[test]
fn another_valid_request_on_a_used_ticket_is_refused_with_an_alarm() {
    let mut ticket = issued(Role::Client);
    let answer = ticket.handle_request(at(1), &request(Role::Client, THIEF), KeyStanding::New);
    assert_eq!(answer, Answer::Reject(RejectionReason::Used));
    assert_eq!(effects(&mut ticket), [Effect::Alarm(Alarm::UsedAgain)]);
    assert_eq!(ticket.state().status(), Status::UsedAgain);
    ticket.void(VoidReason::Administrator);
    assert_eq!(effects(&mut ticket), [REVOKE_7]);
}

#[test]
fn thief_first_on_a_node_ticket_suspends_the_certificate_at_once() {
    let mut ticket = issued(Role::Node);
    let answer = ticket.handle_request(at(1), &request(Role::Node, THIEF), KeyStanding::New);
    assert_eq!(answer, Answer::Reject(RejectionReason::Used));
    let serial = Serial::new(7).unwrap();
    assert_eq!(effects(&mut ticket), [Effect::Alarm(Alarm::UsedAgain), Effect::Suspend(serial)]);
}

#[test]
fn words_choose_the_honest_request_and_a_second_one_raises_the_alarm() {
    let mut ticket = ticket(Role::Client, Approval::Ask);
    let (thief, honest) = (request(Role::Client, THIEF), request(Role::Client, ALICE));
    assert!(matches!(ticket.handle_request(START, &thief, KeyStanding::New), Answer::Compare(_)));
    assert_eq!(effects(&mut ticket), []);
    assert!(matches!(ticket.handle_request(START, &honest, KeyStanding::New), Answer::Compare(_)));
    assert_eq!(effects(&mut ticket), [Effect::Alarm(Alarm::TwoRequests)]);
    let wrong = Words::of_request(Role::Node, &honest.hash);
    assert_eq!(ticket.handle_words(at(1), &wrong), Err(ConsumeError::NoSuchWords));
    assert_eq!(ticket.consume(at(1), grant(&honest, 7)), Err(ConsumeError::NotApproved));
    assert_eq!(ticket.handle_words(at(1), &Words::of_request(Role::Client, &honest.hash)), Ok(honest.hash));
    assert_eq!(ticket.consume(at(1), grant(&thief, 7)), Err(ConsumeError::NotApproved));
    assert_eq!(ticket.consume(at(1), grant(&honest, 7)), Ok(honest.key.unwrap()));
    assert_eq!(ticket.consume(at(1), grant(&honest, 8)), Err(ConsumeError::NotOpen), "never twice");
}

#[test]
fn waiting_requests_are_bounded() {
    let mut ticket = ticket(Role::Client, Approval::Ask);
    let mut waiting = 0;
    for x in 0..=u8::MAX {
        let mut octets = [0; 32];
        octets[31] = x;
        if PublicKey::p256(octets, Parity::Even).is_err() || waiting > Ticket::WAITING_MAX {
            continue;
        }
        waiting += 1;
        let full = ticket.handle_request(START, &request(Role::Client, x), KeyStanding::New);
        assert_eq!(full == Answer::Reject(RejectionReason::Quota), waiting > Ticket::WAITING_MAX);
    }
}

#[test]
fn auto_approval_consumes_at_once_and_a_crash_before_signing_is_finished_with_the_same_grant() {
    let mut ticket = ticket(Role::Client, Approval::Auto);
    let request = request(Role::Client, ALICE);
    let answer = ticket.handle_request(START, &request, KeyStanding::New);
    assert_eq!(answer, Answer::Consume(request.hash));
    ticket.consume(START, grant(&request, 7)).unwrap();
    let answer = ticket.handle_request(at(1), &request, KeyStanding::Known);
    assert_eq!(answer, Answer::Finish(grant(&request, 7)));
    let replies = replies(&ticket, &request);
    assert_eq!(ticket.store_replies(&grant(&request, 8), replies.clone()), Err(ConsumeError::OtherGrant));
    assert_eq!(ticket.store_replies(&grant(&request, 7), replies.clone()), Ok(&replies));
}

#[test]
fn a_certificate_that_nobody_proved_lapses_at_its_time_not_before() {
    for (role, lapse) in [(Role::Client, 14 * 86_400), (Role::Node, 3600)] {
        let mut ticket = issued(role);
        assert_eq!(ticket.poll_timeout(), Some(at(lapse)));
        ticket.handle_timeout(at(lapse - 1));
        assert_eq!(ticket.state().status(), Status::Issued);
        ticket.handle_timeout(at(lapse));
        assert_eq!((ticket.state().status(), effects(&mut ticket)), (Status::Lapsed, vec![REVOKE_7]));
        ticket.handle_timeout(at(lapse + 1));
        assert_eq!(effects(&mut ticket), []);
    }
}

#[test]
fn a_proven_certificate_does_not_lapse_and_is_revoked_with_its_key() {
    let mut ticket = issued(Role::Client);
    let key = request(Role::Client, ALICE).key.unwrap().spki_hash();
    ticket.handle_proof(at(1), &[0; 32]);
    assert_eq!(ticket.state().status(), Status::Issued, "another key proves nothing");
    ticket.handle_proof(at(1), &key);
    ticket.handle_timeout(at(15 * 86_400));
    assert_eq!((ticket.state().status(), effects(&mut ticket)), (Status::Proven, vec![]));
    ticket.void(VoidReason::Administrator);
    assert_eq!(effects(&mut ticket), [Effect::Revoke { serial: Serial::new(7).unwrap(), key: Some(key) }]);
    ticket.void(VoidReason::Administrator);
    assert_eq!(effects(&mut ticket), []);
}

#[test]
fn a_used_again_certificate_can_still_be_proven_or_lapse() {
    let key = request(Role::Client, ALICE).key.unwrap().spki_hash();
    for (proof, expected) in [(true, Life::Proven), (false, Life::Lapsed)] {
        let mut ticket = issued(Role::Client);
        ticket.handle_request(at(1), &request(Role::Client, THIEF), KeyStanding::New);
        if proof {
            ticket.handle_proof(at(2), &key);
        }
        ticket.handle_timeout(at(15 * 86_400));
        assert!(matches!(ticket.state(), State::UsedAgain(_, life) if *life == expected));
    }
}

#[test]
fn each_refusal_has_its_reason() {
    let alice = request(Role::Client, ALICE);
    let mut known = ticket(Role::Client, Approval::Auto);
    assert_eq!(known.handle_request(START, &alice, KeyStanding::Known), Answer::Reject(RejectionReason::Key));
    assert_eq!(known.state().status(), Status::Open, "a refused key does not burn the ticket");
    let mut invalid = ticket(Role::Client, Approval::Auto);
    let bad = Request { key: Err(KeyRefusal::NoPoint), ..alice };
    assert_eq!(invalid.handle_request(START, &bad, KeyStanding::New), Answer::Reject(RejectionReason::Key));
    let mut narrow = ticket(Role::Client, Approval::Auto);
    narrow.order.keys.p256 = false;
    assert_eq!(narrow.handle_request(START, &alice, KeyStanding::New), Answer::Reject(RejectionReason::Key));
    let mut late = ticket(Role::Client, Approval::Auto);
    assert_eq!(late.handle_request(at(3600), &alice, KeyStanding::New), Answer::Reject(RejectionReason::Expired));
    let mut voided = ticket(Role::Client, Approval::Auto);
    voided.void(VoidReason::Administrator);
    assert_eq!(voided.handle_request(START, &alice, KeyStanding::New), Answer::Reject(RejectionReason::Voided));
}

#[test]
fn a_restored_backup_voids_what_was_open_and_leaves_what_was_used() {
    let mut open = ticket(Role::Client, Approval::Ask);
    open.handle_request(START, &request(Role::Client, ALICE), KeyStanding::New);
    open.handle_restore();
    assert_eq!(open.state(), &State::Voided(VoidReason::Restored, None));
    let mut used = issued(Role::Client);
    used.handle_restore();
    assert_eq!(used.state().status(), Status::Issued);
}

#[test]
fn after_a_partition_the_same_request_stands_twice_and_different_ones_are_voided() {
    let other = |x, serial| {
        let request = request(Role::Client, x);
        Use { grant: grant(&request, serial), key: request.key.unwrap(), issued: START, replies: None, twin: None }
    };
    let mut same = issued(Role::Client);
    same.handle_other_grant(&other(ALICE, 9));
    assert_eq!((same.state().status(), effects(&mut same)), (Status::Issued, vec![]));
    same.void(VoidReason::Administrator);
    assert_eq!(effects(&mut same).len(), 2, "both serials are revoked together");

    let mut different = issued(Role::Client);
    different.handle_other_grant(&other(THIEF, 9));
    let revoke_9 = Effect::Revoke { serial: Serial::new(9).unwrap(), key: None };
    assert_eq!(effects(&mut different), [REVOKE_7, revoke_9, Effect::Alarm(Alarm::TwoIssues)]);
    assert!(matches!(different.state(), State::Voided(VoidReason::TwoIssues, Some(_))));
    let late = different.handle_request(at(1), &request(Role::Client, ALICE), KeyStanding::Known);
    assert_eq!(late, Answer::Reject(RejectionReason::Used));
}

#[test]
fn the_keys_go_30_days_after_the_end() {
    let mut ticket = issued(Role::Client);
    ticket.handle_timeout(at(3600 + 30 * 86_400 - 1));
    assert!(ticket.request_key().is_some());
    ticket.handle_timeout(at(3600 + 30 * 86_400));
    assert!(ticket.request_key().is_none());
    assert_eq!(ticket.rejection(&request(Role::Client, ALICE).hash, RejectionReason::Used), None);
    assert_eq!(ticket.poll_timeout(), None);
}

#[test]
fn orders_for_nodes_are_narrow() {
    let open = |order, others: &[Ticket]| Ticket::open(START, order, keys(Role::Node), others).map(|_| ());
    let good = order(Role::Node, Approval::Ask);
    assert_eq!(open(good.clone(), &[]), Ok(()));
    assert_eq!(open(TicketOrder { expires: at(3601), ..good.clone() }, &[]), Err(OrderError::NodeLife));
    assert_eq!(open(TicketOrder { approval: Approval::Auto, ..good.clone() }, &[]), Err(OrderError::NodeApproval));
    assert_eq!(open(good.clone(), &[ticket(Role::Node, Approval::Ask)]), Err(OrderError::NodeOpen));
    assert_eq!(open(good.clone(), &[issued(Role::Node), ticket(Role::Client, Approval::Ask)]), Ok(()));
    assert_eq!(open(TicketOrder { expires: START, ..good }, &[]), Err(OrderError::Expired));
    assert_eq!(open(order(Role::Client, Approval::Ask), &[]), Err(OrderError::Code));
}
