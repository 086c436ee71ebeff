//! §2.4 State Synchronization and Connection Timeouts: what is not authenticated ends nothing.

use std::time::Duration;

use ike::{Event, Path, Reason, Refusal, UniqueIds};

use crate::pair::{INITIATOR, Pair, RESPONDER, config, initiator_connection, responder_connection};

fn path() -> Path {
    Path { local: "192.0.2.1:500".parse().unwrap(), remote: "198.51.100.1:500".parse().unwrap() }
}

/// An unprotected answer with one notification.
fn notify_answer(spi_i: u64, spi_r: u64, exchange: u8, message_id: u32, kind: u16) -> Vec<u8> {
    let mut d = [spi_i.to_be_bytes(), spi_r.to_be_bytes()].concat();
    d.extend([41, 0x20, exchange, 0x20]);
    d.extend(message_id.to_be_bytes());
    d.extend(36_u32.to_be_bytes());
    d.extend([0, 0, 0, 8, 0, 0]);
    d.extend(kind.to_be_bytes());
    d
}

#[test]
fn a_forged_refusal_of_the_first_request_does_not_end_the_attempt() {
    for kind in [7, 14, 24, 17, 5, 11] {
        let mut pair = Pair::new();
        let session = pair.initiate();
        pair.deliver(INITIATOR, path(), &notify_answer(session, 0, 34, 0, kind));
        pair.deliver(INITIATOR, path(), &notify_answer(session, 99, 34, 0, kind));
        pair.run(Duration::from_secs(2));
        assert_eq!(pair.nodes[INITIATOR].ups(), 1, "notify {kind}");
    }
}

#[test]
fn a_forged_notification_does_not_end_a_session() {
    let mut pair = Pair::new();
    pair.initiate();
    pair.run(Duration::from_secs(1));
    let header = pair.wire[3].1.clone();
    let spi = |at: usize| u64::from_be_bytes(header[at..at + 8].try_into().unwrap());
    for exchange in [34, 35, 36, 37] {
        for message_id in 0..4 {
            pair.deliver(INITIATOR, path(), &notify_answer(spi(0), spi(8), exchange, message_id, 24));
        }
    }
    pair.run(Duration::from_secs(100));
    assert_eq!(pair.nodes[INITIATOR].closed(), []);
    pair.assert_children_fit(1);
}

#[test]
fn a_refusal_that_nobody_contradicted_is_named_when_we_give_up() {
    let mut pair = Pair::new();
    pair.loss = 256;
    let session = pair.initiate();
    pair.deliver(INITIATOR, path(), &notify_answer(session, 0, 34, 0, 14));
    pair.run(Duration::from_secs(100));
    assert_eq!(pair.nodes[INITIATOR].closed(), [Reason::NegotiationFailed]);
    assert_eq!(pair.nodes[INITIATOR].endpoint.counters().refused(Refusal::Unauthenticated), 1);
}

#[test]
fn initial_contact_ends_older_sessions_of_the_same_identity() {
    let mut pair = Pair::new();
    pair.initiate();
    pair.run(Duration::from_secs(1));
    pair.initiate();
    pair.run(Duration::from_secs(1));
    assert_eq!(pair.nodes[RESPONDER].closed(), [Reason::Superseded]);
    assert_eq!(pair.nodes[RESPONDER].endpoint.sessions(pair.now).count(), 1);
    let contact = |e: &Event| matches!(e, Event::Up { initial_contact: true, .. });
    assert_eq!(pair.nodes[RESPONDER].events.iter().filter(|e| contact(e)).count(), 2);
}

#[test]
fn devices_that_share_an_identity_do_not_end_each_other() {
    let mut responder = responder_connection();
    responder.unique_ids = UniqueIds::Shared;
    let mut pair = Pair::with(config(initiator_connection()), config(responder));
    pair.initiate();
    pair.run(Duration::from_secs(1));
    pair.initiate();
    pair.run(Duration::from_secs(1));
    assert_eq!(pair.nodes[RESPONDER].endpoint.sessions(pair.now).count(), 2);
}

#[test]
fn a_newer_major_version_is_told_ours_and_an_older_one_nothing() {
    // §2.5.
    let mut pair = Pair::new();
    pair.initiate();
    let mut request = pair.wire[0].1.clone();
    pair.cut();
    request[17] = 0x30;
    pair.deliver(RESPONDER, path(), &request);
    assert_eq!(pair.wire.len(), 2);
    assert_eq!(pair.wire[1].1[34..36], 5_u16.to_be_bytes());
    request[17] = 0x10;
    pair.deliver(RESPONDER, path(), &request);
    assert_eq!(pair.wire.len(), 2);
    assert_eq!(pair.nodes[RESPONDER].endpoint.counters().refused(Refusal::Version), 2);
}

#[test]
fn what_is_for_a_set_that_is_not_ours_is_not_answered() {
    let mut pair = Pair::new();
    pair.initiate();
    let request = pair.wire[0].1.clone();
    let other = wire::WorkSet::new(8).unwrap();
    pair.nodes[RESPONDER].endpoint.handle_datagram(pair.now, path(), other, &request);
    assert_eq!(pair.nodes[RESPONDER].endpoint.poll_output(), None);
    assert_eq!(pair.nodes[RESPONDER].endpoint.counters().refused(Refusal::NotOwned), 1);
}
