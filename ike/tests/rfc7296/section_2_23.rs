//! §2.23 NAT Traversal.

use std::time::Duration;

use ike::{Event, Path};

use crate::pair::{INITIATOR, Pair, RESPONDER, config, initiator_connection, responder_connection};

fn unforced() -> Pair {
    let (mut a, mut b) = (config(initiator_connection()), config(responder_connection()));
    (a.force_encapsulation, b.force_encapsulation) = (false, false);
    Pair::with(a, b)
}

#[test]
fn without_a_nat_nothing_floats() {
    let mut pair = unforced();
    pair.initiate();
    pair.run(Duration::from_secs(1));
    let child = pair.nodes[RESPONDER].children.values().next().unwrap();
    assert!(!child.encapsulated);
    assert_eq!(child.path.remote.port(), 500);
}

#[test]
fn behind_a_nat_both_ends_float_to_4500() {
    let mut pair = unforced();
    pair.nat_port = Some(61_000);
    pair.initiate();
    pair.run(Duration::from_secs(1));
    let child = pair.nodes[RESPONDER].children.values().next().unwrap();
    assert!(child.encapsulated);
    assert_eq!((child.path.local.port(), child.path.remote.port()), (4500, 61_000));
    assert!(pair.nodes[INITIATOR].children.values().all(|c| c.encapsulated && c.path.remote.port() == 4500));
}

#[test]
fn a_new_mapping_is_followed_when_an_authenticated_message_or_packet_shows_it() {
    let mut pair = Pair::new();
    pair.nat_port = Some(61_000);
    let session = pair.initiate();
    pair.run(Duration::from_secs(1));
    pair.nat_port = Some(62_000);
    pair.nodes[INITIATOR].endpoint.probe(pair.now, session).unwrap();
    pair.drive(INITIATOR);
    pair.run(Duration::from_secs(1));
    let (spi, child) = pair.nodes[RESPONDER].children.iter().next().map(|(s, c)| (*s, c.clone())).unwrap();
    assert_eq!(child.path.remote.port(), 62_000);
    let moved = |e: &Event| matches!(e, Event::Moved { .. });
    assert_eq!(pair.nodes[RESPONDER].events.iter().filter(|e| moved(e)).count(), 1);
    // ESP that was authenticated says the same.
    let path = Path { remote: "192.0.2.1:63000".parse().unwrap(), ..child.path };
    pair.nodes[RESPONDER].endpoint.handle_path_change(pair.now, spi, path);
    pair.drive(RESPONDER);
    assert_eq!(pair.nodes[RESPONDER].children[&spi].path, path);
    assert_eq!(pair.nodes[RESPONDER].endpoint.sessions(pair.now).next().unwrap().path, path);
}
