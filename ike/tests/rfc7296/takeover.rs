//! A node dies at any moment; its heir has what was stored, and the peer does not notice.

use std::time::Duration;

use ike::SessionState;

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
