//! What a peer that means harm can do, or somebody on the way who has recorded what others said.

use std::time::Duration;

use ike::{Event, Path, Reason, Refusal, RemoteIdentity};

use crate::pair::{CBC, GCM, INITIATOR, Pair, RESPONDER, config, initiator_connection, psk, responder_connection};

/// The way of the initiator's datagrams, as the responder sees it.
fn path(port: u16) -> Path {
    Path { local: ([198, 51, 100, 1], port).into(), remote: ([192, 0, 2, 1], port).into() }
}

fn requests(pair: &Pair) -> Vec<Vec<u8>> {
    pair.wire.iter().filter(|(from, _)| *from == INITIATOR).map(|(_, datagram)| datagram.clone()).collect()
}

#[test]
fn an_old_request_that_somebody_repeats_is_no_sign_of_life() {
    let mut responder = responder_connection();
    responder.liveness_interval = Duration::from_secs(10);
    let mut pair = Pair::with(config(initiator_connection()), config(responder));
    pair.initiate();
    pair.run(Duration::from_secs(1));
    let recorded = requests(&pair).pop().unwrap();
    // The peer has gone without a word.
    pair.loss = 256;
    for _ in 0..200 {
        pair.deliver(RESPONDER, path(4500), &recorded);
        pair.run(Duration::from_secs(1));
    }
    assert_eq!(pair.nodes[RESPONDER].closed(), [Reason::PeerSilent]);
    assert_eq!(pair.nodes[RESPONDER].addresses_out, 0);
}

#[test]
fn recorded_requests_make_no_flood_of_answers() {
    for place in [0, 1] {
        let mut pair = Pair::new();
        pair.initiate();
        pair.run(Duration::from_millis(if place == 0 { 15 } else { 1000 }));
        pair.cut();
        let recorded = requests(&pair).swap_remove(place);
        let before = pair.wire.len();
        for _ in 0..100 {
            pair.deliver(RESPONDER, path(if place == 0 { 500 } else { 4500 }), &recorded);
            pair.now += Duration::from_millis(1);
        }
        let answers = pair.wire.len() - before;
        assert_eq!(answers, 1, "of request {place}");
        assert_eq!(pair.nodes[RESPONDER].endpoint.counters().refused(Refusal::RepeatedTooSoon), 99);
        pair.now += Duration::from_millis(100);
        pair.deliver(RESPONDER, path(if place == 0 { 500 } else { 4500 }), &recorded);
        assert_eq!(pair.wire.len() - before, 2, "an honest repetition later is answered");
    }
}

#[test]
fn a_first_request_with_a_stolen_spi_does_not_lock_its_owner_out() {
    let mut pair = Pair::new();
    pair.initiate();
    let request = requests(&pair).remove(0);
    let mut forged = request.clone();
    // Another nonce: its last octets stand before the notifications.
    let at = forged.windows(4).position(|w| w == [0, 31, 0, 0]).unwrap() + 4 + 32 + 4;
    forged[at] ^= 1;
    pair.deliver(RESPONDER, path(500), &forged);
    // The answer to that is lost.
    pair.cut();
    pair.deliver(RESPONDER, path(500), &request);
    pair.run(Duration::from_millis(400));
    assert_eq!((pair.nodes[INITIATOR].ups(), pair.nodes[RESPONDER].ups()), (1, 1));
    assert_eq!(pair.nodes[INITIATOR].endpoint.counters().requests_repeated, 0);
}

#[test]
fn a_first_request_of_any_length_is_not_kept() {
    let mut pair = Pair::new();
    pair.initiate();
    let mut request = requests(&pair).remove(0);
    pair.cut();
    // A vendor id payload in front, as long as a datagram allows.
    let first = std::mem::replace(&mut request[16], 43);
    let filler = [&[first, 0], &60_004_u16.to_be_bytes()[..], &[7; 60_000]].concat();
    request.splice(28..28, filler);
    let len = u32::try_from(request.len()).unwrap().to_be_bytes();
    request[24..28].copy_from_slice(&len);
    pair.deliver(RESPONDER, path(500), &request);
    assert!(pair.nodes[RESPONDER].records.is_empty());
    assert_eq!(pair.nodes[RESPONDER].endpoint.counters().refused(Refusal::TooLong), 1);
}

#[test]
fn a_cookie_cannot_be_kept_for_later() {
    let mut responder = config(responder_connection());
    responder.cookie_threshold = 0;
    for (wait, valid) in [(1, true), (55, true), (200, false)] {
        let mut pair = Pair::with(config(initiator_connection()), responder.clone());
        pair.initiate();
        pair.run(Duration::from_millis(25));
        let with_cookie = requests(&pair).remove(1);
        pair.cut();
        pair.loss = 256;
        pair.run(Duration::from_secs(wait));
        let before = pair.nodes[RESPONDER].records.len();
        pair.deliver(RESPONDER, path(500), &with_cookie);
        assert_eq!(pair.nodes[RESPONDER].records.len() > before, valid, "after {wait} s");
    }
}

#[test]
fn whoever_knows_a_weaker_secret_ends_no_session_of_that_name_by_a_better_one() {
    let (mut strong, mut weak) = (responder_connection(), responder_connection());
    (strong.name, strong.ike_proposals) = ("strong".into(), vec![GCM]);
    (weak.name, weak.ike_proposals, weak.remote_identity) = ("weak".into(), vec![CBC], RemoteIdentity::Any);
    (weak.local_auth, weak.remote_auth) = psk(b"everybody knows it");
    let mut responder = config(strong);
    responder.connections.push(weak);
    let mut initiator = config(initiator_connection());
    let mut impostor = initiator_connection();
    (impostor.name, impostor.ike_proposals) = ("impostor".into(), vec![CBC]);
    (impostor.local_auth, impostor.remote_auth) = psk(b"everybody knows it");
    initiator.connections.push(impostor);
    let mut pair = Pair::with(initiator, responder);
    pair.initiate();
    pair.run(Duration::from_secs(1));
    let way = Path { local: "192.0.2.1:500".parse().unwrap(), remote: "198.51.100.1:500".parse().unwrap() };
    pair.nodes[INITIATOR].endpoint.initiate(pair.now, "impostor", way, pair.home).unwrap();
    pair.drive(INITIATOR);
    pair.run(Duration::from_secs(1));
    let contact = |e: &&Event| matches!(e, Event::Up { initial_contact: true, .. });
    assert_eq!(pair.nodes[RESPONDER].events.iter().filter(contact).count(), 2);
    assert_eq!(pair.nodes[RESPONDER].closed(), []);
}

#[test]
fn a_datagram_whose_ports_somebody_changed_does_not_bring_esp_to_port_500() {
    let mut pair = Pair::new();
    let session = pair.initiate();
    pair.run(Duration::from_secs(1));
    pair.nodes[INITIATOR].endpoint.probe(pair.now, session).unwrap();
    pair.drive(INITIATOR);
    pair.cut();
    let probe = requests(&pair).pop().unwrap();
    pair.deliver(RESPONDER, path(500), &probe);
    assert!(pair.nodes[RESPONDER].children.values().all(|child| child.path.local.port() == 4500));
}
