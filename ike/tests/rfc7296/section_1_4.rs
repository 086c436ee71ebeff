//! §1.4 The INFORMATIONAL Exchange.

use std::time::Duration;

use ike::Reason;

use crate::pair::{INITIATOR, Pair, RESPONDER, config, initiator_connection, responder_connection};

const LONG: Duration = Duration::from_secs(5);

#[test]
fn a_delete_ends_the_session_on_both_sides_and_gives_the_address_back() {
    for end in [INITIATOR, RESPONDER] {
        let mut pair = Pair::new();
        pair.initiate();
        pair.run(LONG);
        let session = pair.nodes[end].endpoint.sessions(pair.now).next().unwrap().session;
        assert_eq!(pair.nodes[RESPONDER].addresses_out, 1);
        pair.nodes[end].endpoint.delete(pair.now, session).unwrap();
        pair.drive(end);
        pair.run(LONG);
        assert_eq!(pair.nodes[end].closed(), [Reason::OperatorDeleted]);
        assert_eq!(pair.nodes[1 - end].closed(), [Reason::PeerDeleted]);
        pair.assert_children_fit(0);
        assert_eq!(pair.nodes[RESPONDER].addresses_out, 0);
        assert!(pair.nodes.iter().all(|n| n.records.is_empty() && n.endpoint.poll_timeout().is_none()));
    }
}

#[test]
fn a_silent_session_is_asked_whether_it_lives_and_a_dead_one_ends() {
    let mut responder = responder_connection();
    responder.liveness_interval = Duration::from_secs(30);
    let mut pair = Pair::with(config(initiator_connection()), config(responder));
    pair.initiate();
    pair.run(LONG);
    let before = pair.wire.len();
    pair.run(Duration::from_secs(100));
    assert_eq!(pair.wire.len() - before, 6, "three questions, three answers");
    pair.loss = 256;
    pair.run(Duration::from_secs(200));
    assert_eq!(pair.nodes[RESPONDER].closed(), [Reason::PeerSilent]);
    assert!(pair.nodes[RESPONDER].children.is_empty());
    assert_eq!(pair.nodes[INITIATOR].closed(), [], "who asked nothing knows nothing");
}

#[test]
fn an_operator_can_probe_at_any_time() {
    let mut pair = Pair::new();
    let session = pair.initiate();
    pair.run(LONG);
    let before = pair.wire.len();
    pair.nodes[INITIATOR].endpoint.probe(pair.now, session).unwrap();
    pair.drive(INITIATOR);
    pair.run(LONG);
    assert_eq!(pair.wire.len() - before, 2);
    let session = pair.nodes[INITIATOR].endpoint.sessions(pair.now).next().unwrap();
    assert!(session.idle.is_some_and(|idle| idle < Duration::from_secs(6)));
}
