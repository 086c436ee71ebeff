//! A node dies at any moment; its heir has what was stored, and the peer does not notice.

use std::time::Duration;

use ike::{Reason, Session, SessionState};

use crate::pair::{CBC, INITIATOR, Pair, RESPONDER, config, initiator_connection, responder_connection};

/// A life: opened, child rekeyed by each end, IKE SA rekeyed by each end, probed, deleted.
const ACTS: usize = 7;

fn act(pair: &mut Pair, number: usize) {
    let session = |pair: &Pair, end: usize| pair.nodes[end].endpoint.sessions(pair.now).next().map(|s| s.session);
    let (end, now) = (if number.is_multiple_of(2) { INITIATOR } else { RESPONDER }, pair.now);
    if number == 0 {
        pair.initiate();
        return;
    }
    let Some(session) = session(pair, end) else { panic!("act {number}: the session is gone") };
    let endpoint = &mut pair.nodes[end].endpoint;
    match number {
        1 | 2 => endpoint.rekey_child(now, session).unwrap(),
        3 | 4 => endpoint.rekey_ike(now, session).unwrap(),
        5 => endpoint.probe(now, session).unwrap(),
        _ => endpoint.delete(now, session).unwrap(),
    }
    pair.drive(end);
}

fn live(pair: &mut Pair, label: &str) {
    for number in 0..ACTS {
        act(pair, number);
        pair.run(Duration::from_secs(20));
        if number + 1 < ACTS {
            assert!(pair.nodes[INITIATOR].ups() <= 1, "{label}, act {number}");
            for node in &pair.nodes {
                assert_eq!(node.closed(), [], "{label}, act {number}");
                let states: Vec<_> = node.endpoint.sessions(pair.now).map(|s| s.state).collect();
                assert_eq!(states, [SessionState::Established], "{label}, act {number}");
            }
            // Nobody who died between two outputs may be left with another child than its peer.
            pair.assert_children_fit(1);
        }
    }
    pair.assert_children_fit(0);
    assert!(pair.nodes.iter().all(|n| n.records.is_empty()), "{label}");
}

fn pairs() -> [fn() -> Pair; 2] {
    [Pair::new, || {
        let mut initiator = initiator_connection();
        initiator.ike_proposals = vec![CBC];
        Pair::with(config(initiator), config(responder_connection()))
    }]
}

#[test]
fn a_life_without_deaths() {
    for make in pairs() {
        live(&mut make(), "no death");
    }
}

#[test]
fn a_node_may_die_after_any_output_and_the_peer_does_not_notice() {
    for make in pairs() {
        for end in [INITIATOR, RESPONDER] {
            let mut calm = make();
            live(&mut calm, "calm");
            for at in 1..calm.nodes[end].outputs_seen {
                let mut pair = make();
                pair.nodes[end].dies_at = Some(at);
                live(&mut pair, &format!("node {end} dies after output {at}"));
                assert_eq!(pair.nodes[end].deaths, 1);
            }
        }
    }
}

/// The responder's only session.
fn session(pair: &Pair) -> Session {
    let mut sessions = pair.nodes[RESPONDER].endpoint.sessions(pair.now);
    let session = sessions.next().expect("the session lives");
    assert_eq!(sessions.next(), None);
    session
}

#[test]
fn an_heir_knows_the_age_of_a_session_its_rekeyings_and_when_the_next_is_due() {
    let mut pair = Pair::new();
    for number in [0, 1, 3] {
        act(&mut pair, number);
        pair.run(Duration::from_secs(100));
    }
    // Nobody says anything for half an hour, so nothing but the passing of time changes the record.
    pair.run(Duration::from_secs(1800));
    let before = session(&pair);
    assert_eq!((before.ike_rekeys, before.child_rekeys), (1, 1));
    assert!(before.established.is_some_and(|age| age > Duration::from_secs(2000)), "{before:?}");
    let (now, home) = (pair.now, pair.home);
    pair.nodes[RESPONDER].fail_over(now, home);
    pair.drive(RESPONDER);
    let after = session(&pair);
    assert_eq!((after.session, after.ike_rekeys, after.child_rekeys), (before.session, 1, 1));
    let error_max = Duration::from_secs(60);
    for (what, before, after) in [
        ("age of the session", before.established, after.established),
        ("age of the IKE SA", Some(before.age), Some(after.age)),
        ("time until the rekeying", before.rekey_in, after.rekey_in),
    ] {
        let (before, after) = (before.unwrap(), after.unwrap());
        assert!(before.abs_diff(after) <= error_max, "{what}: {before:?} became {after:?}");
    }
    // What any other node reads in the record is the same.
    let records = &pair.nodes[RESPONDER].records;
    let read: Vec<Session> = records.values().filter_map(|bytes| Session::from_record(bytes).unwrap()).collect();
    assert_eq!(read, [Session { idle: None, ..read[0].clone() }]);
    assert_eq!((read[0].session, &read[0].identity, read[0].ike_rekeys), (before.session, &before.identity, 1));
}

#[test]
fn a_session_whose_pair_was_lost_in_a_take_over_ends_and_the_peer_is_told() {
    let mut pair = Pair::new();
    act(&mut pair, 0);
    pair.run(Duration::from_secs(20));
    let (now, home) = (pair.now, pair.home);
    pair.nodes[RESPONDER].fail_over(now, home);
    let lost: Vec<_> = pair.nodes[RESPONDER].endpoint.children_of(home).collect();
    assert_eq!(lost.len(), 1);
    pair.nodes[RESPONDER].endpoint.handle_missing_child(now, lost[0]);
    pair.drive(RESPONDER);
    pair.run(Duration::from_secs(20));
    pair.assert_children_fit(0);
    assert_eq!(pair.nodes[RESPONDER].closed(), [Reason::RecordLost]);
    assert_eq!(pair.nodes[INITIATOR].closed(), [Reason::PeerDeleted]);
    assert_eq!(pair.nodes[RESPONDER].addresses_out, 0);
}

#[test]
fn a_session_whose_last_child_the_peer_deletes_ends_soon_also_after_a_take_over() {
    let mut pair = Pair::new();
    act(&mut pair, 0);
    pair.run(Duration::from_secs(20));
    let (now, home) = (pair.now, pair.home);
    let child = pair.nodes[INITIATOR].endpoint.children_of(home).next().unwrap();
    // The initiator deletes the child, and dies before it can delete the IKE SA too.
    pair.nodes[INITIATOR].endpoint.handle_missing_child(now, child);
    pair.drive(INITIATOR);
    while pair.nodes[RESPONDER].endpoint.children_of(home).next().is_some() {
        assert!(pair.step(now + Duration::from_secs(5)));
    }
    pair.cut();
    pair.loss = 256;
    assert_eq!(session(&pair).state, SessionState::Established);
    let now = pair.now;
    pair.nodes[RESPONDER].fail_over(now, home);
    pair.run(Duration::from_secs(200));
    assert_eq!(pair.nodes[RESPONDER].closed(), [Reason::Expired]);
    assert_eq!(pair.nodes[RESPONDER].addresses_out, 0);
}
