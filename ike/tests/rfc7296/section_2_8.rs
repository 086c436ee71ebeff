//! §2.8 Rekeying, with §2.8.1 and §2.8.2 (both ends at once) and §2.25 (collisions of other kinds).

use std::time::Duration;

use crypto::{Encryption, Group, Integrity};
use ike::{EspProposal, Event, Lifetimes, Reason, Role};

use crate::pair::{
    CBC, ESP_GCM, INITIATOR, Pair, RESPONDER, config, initiator_connection, lifetimes, responder_connection,
};

const LONG: Duration = Duration::from_secs(20);

fn up() -> Pair {
    let mut pair = Pair::new();
    pair.initiate();
    pair.run(LONG);
    pair.assert_children_fit(1);
    pair
}

fn session(pair: &Pair, end: usize) -> u64 {
    pair.nodes[end].endpoint.sessions(pair.now).next().unwrap().session
}

fn spis(pair: &Pair) -> Vec<wire::Spi> {
    pair.nodes[RESPONDER].children.keys().copied().collect()
}

#[test]
fn either_end_rekeys_the_child() {
    for end in [INITIATOR, RESPONDER] {
        let mut pair = up();
        let before = spis(&pair);
        let session = session(&pair, end);
        pair.nodes[end].endpoint.rekey_child(pair.now, session).unwrap();
        pair.drive(end);
        pair.run(LONG);
        pair.assert_children_fit(1);
        assert_ne!(spis(&pair), before);
        let (ours, theirs) = (&pair.nodes[end].children, &pair.nodes[1 - end].children);
        assert_eq!(ours.values().next().unwrap().role, Role::Initiator);
        assert_eq!(theirs.values().next().unwrap().role, Role::Responder);
        assert_eq!(theirs.values().next().unwrap().inner_address, ours.values().next().unwrap().inner_address);
    }
}

#[test]
fn either_end_rekeys_the_ike_sa_and_the_session_keeps_its_number_and_child() {
    for end in [INITIATOR, RESPONDER] {
        let mut pair = up();
        let before = spis(&pair);
        let numbers = [session(&pair, INITIATOR), session(&pair, RESPONDER)];
        for round in 0..3 {
            pair.nodes[end].endpoint.rekey_ike(pair.now, numbers[end]).unwrap();
            pair.drive(end);
            pair.run(LONG);
            assert_eq!(spis(&pair), before, "round {round}");
            assert_eq!([session(&pair, INITIATOR), session(&pair, RESPONDER)], numbers);
            assert!(pair.nodes.iter().all(|n| n.records.len() == 1), "the old SA is gone");
        }
        // The new SA works, whoever asks.
        for asking in [INITIATOR, RESPONDER] {
            pair.nodes[asking].endpoint.rekey_child(pair.now, numbers[asking]).unwrap();
            pair.drive(asking);
            pair.run(LONG);
            pair.assert_children_fit(1);
        }
        assert!(pair.nodes.iter().all(|n| n.closed().is_empty()));
    }
}

#[test]
fn lifetimes_alone_bring_rekeys_about() {
    let short = Lifetimes {
        ike_rekey: Duration::from_secs(100),
        ike_max: Duration::from_secs(150),
        child_rekey: Duration::from_secs(30),
        child_max: Duration::from_secs(50),
        jitter: Duration::from_secs(5),
    };
    let (mut initiator, mut responder) = (initiator_connection(), responder_connection());
    (initiator.lifetimes, responder.lifetimes) = (short, short);
    let mut pair = Pair::with(config(initiator), config(responder));
    (pair.loss, pair.duplicates) = (25, 25);
    pair.initiate();
    pair.run(Duration::from_secs(3000));
    // Whatever is in flight comes to its end.
    pair.loss = 0;
    pair.run(Duration::from_secs(8));
    assert!(pair.nodes.iter().all(|n| n.closed().is_empty()), "{:?}", pair.nodes[0].closed());
    assert_eq!(pair.nodes[RESPONDER].endpoint.sessions(pair.now).count(), 1);
    let rekeys = pair.nodes.iter().map(|n| n.endpoint.counters().ike_rekeyed).sum::<u64>();
    assert!(rekeys >= 50, "{rekeys}");
}

#[test]
fn both_ends_at_once_leave_one_child() {
    for seed in 0..40 {
        let mut pair = up();
        pair.seed(seed);
        (pair.loss, pair.duplicates) = if seed < 10 { (0, 0) } else { (60, 60) };
        for end in [INITIATOR, RESPONDER] {
            let session = session(&pair, end);
            pair.nodes[end].endpoint.rekey_child(pair.now, session).unwrap();
        }
        // Random bytes differ from run to run by who draws more of them.
        for _ in 0..seed {
            let session = session(&pair, INITIATOR);
            let _ = pair.nodes[INITIATOR].endpoint.rekey_child(pair.now, session);
        }
        pair.drive(INITIATOR);
        pair.drive(RESPONDER);
        pair.run(Duration::from_secs(120));
        assert!(
            pair.nodes.iter().all(|n| n.closed().is_empty()),
            "seed {seed} {:?} {:?}",
            pair.nodes[0].closed(),
            pair.nodes[1].closed()
        );
        pair.assert_children_fit(1);
    }
}

#[test]
fn both_ends_at_once_leave_one_ike_sa() {
    for seed in 0..40 {
        let mut pair = up();
        pair.seed(seed);
        (pair.loss, pair.duplicates) = if seed < 10 { (0, 0) } else { (60, 60) };
        // Different nonces in each round: some exchanges before.
        for _ in 0..seed % 10 {
            let session = session(&pair, INITIATOR);
            pair.nodes[INITIATOR].endpoint.rekey_child(pair.now, session).unwrap();
            pair.drive(INITIATOR);
            pair.run(LONG);
        }
        for end in [INITIATOR, RESPONDER] {
            let session = session(&pair, end);
            pair.nodes[end].endpoint.rekey_ike(pair.now, session).unwrap();
        }
        pair.drive(INITIATOR);
        pair.drive(RESPONDER);
        pair.run(Duration::from_secs(200));
        pair.assert_children_fit(1);
        for node in &pair.nodes {
            assert_eq!(node.records.len(), 1, "seed {seed}");
            assert_eq!(node.closed(), [], "seed {seed}");
        }
        // And it works.
        let session = session(&pair, RESPONDER);
        pair.nodes[RESPONDER].endpoint.rekey_child(pair.now, session).unwrap();
        pair.drive(RESPONDER);
        pair.run(Duration::from_secs(100));
        pair.assert_children_fit(1);
    }
}

#[test]
fn a_child_rekey_against_an_ike_rekey_waits_and_both_happen() {
    for (child_end, ike_end) in [(INITIATOR, RESPONDER), (RESPONDER, INITIATOR)] {
        let mut pair = up();
        let before = spis(&pair);
        let (a, b) = (session(&pair, child_end), session(&pair, ike_end));
        pair.nodes[child_end].endpoint.rekey_child(pair.now, a).unwrap();
        pair.nodes[ike_end].endpoint.rekey_ike(pair.now, b).unwrap();
        pair.drive(child_end);
        pair.drive(ike_end);
        pair.run(Duration::from_secs(60));
        pair.assert_children_fit(1);
        assert_ne!(spis(&pair), before);
        assert!(pair.nodes.iter().all(|n| n.closed().is_empty()));
        let rekeyed = |e: &Event| matches!(e, Event::IkeRekeyed { .. });
        assert!(pair.nodes[ike_end].events.iter().any(rekeyed));
    }
}

#[test]
fn a_delete_against_a_rekey_ends_the_session_on_both_sides() {
    for rekey_ike in [false, true] {
        let mut pair = up();
        let (a, b) = (session(&pair, INITIATOR), session(&pair, RESPONDER));
        pair.nodes[INITIATOR].endpoint.delete(pair.now, a).unwrap();
        let endpoint = &mut pair.nodes[RESPONDER].endpoint;
        if rekey_ike { endpoint.rekey_ike(pair.now, b) } else { endpoint.rekey_child(pair.now, b) }.unwrap();
        pair.drive(INITIATOR);
        pair.drive(RESPONDER);
        pair.run(Duration::from_secs(120));
        pair.assert_children_fit(0);
        assert!(pair.nodes.iter().all(|n| n.records.is_empty()));
    }
}

#[test]
fn both_ends_delete_at_once() {
    let mut pair = up();
    for end in [INITIATOR, RESPONDER] {
        let session = session(&pair, end);
        pair.nodes[end].endpoint.delete(pair.now, session).unwrap();
    }
    pair.drive(INITIATOR);
    pair.drive(RESPONDER);
    pair.run(Duration::from_secs(120));
    pair.assert_children_fit(0);
    assert!(pair.nodes.iter().all(|n| n.records.is_empty()));
}

#[test]
fn the_datapath_asks_for_new_keys_and_gets_them() {
    let mut pair = up();
    let before = spis(&pair);
    let spi = *pair.nodes[RESPONDER].children.keys().next().unwrap();
    pair.nodes[RESPONDER].endpoint.handle_exhaustion(pair.now, spi);
    pair.drive(RESPONDER);
    pair.run(LONG);
    pair.assert_children_fit(1);
    assert_ne!(spis(&pair), before);
}

#[test]
fn a_rekey_with_forward_secrecy_in_every_group_and_suite() {
    for group in [Group::Modp2048, Group::Ecp256, Group::Curve25519] {
        let cbc = EspProposal {
            encryption: Encryption::AesCbc(256),
            integrity: Some(Integrity::HmacSha2_256_128),
            group: Some(group),
        };
        let (mut initiator, mut responder) = (initiator_connection(), responder_connection());
        initiator.ike_proposals = vec![CBC];
        initiator.esp_proposals = vec![cbc];
        responder.esp_proposals = vec![ESP_GCM, cbc];
        let mut pair = Pair::with(config(initiator), config(responder));
        pair.initiate();
        pair.run(LONG);
        pair.assert_children_fit(1);
        for end in [INITIATOR, RESPONDER] {
            let before = spis(&pair);
            let session = session(&pair, end);
            pair.nodes[end].endpoint.rekey_child(pair.now, session).unwrap();
            pair.drive(end);
            pair.run(Duration::from_secs(200));
            pair.assert_children_fit(1);
            assert_ne!(spis(&pair), before, "{group:?} {end}");
        }
    }
}

#[test]
fn a_peer_that_demands_forward_secrecy_gets_it_where_we_do_not_ask_for_it() {
    for group in [Group::Modp2048, Group::Ecp256, Group::Curve25519] {
        for demanding in [INITIATOR, RESPONDER] {
            let mut connections = [initiator_connection(), responder_connection()];
            connections[demanding].esp_proposals = vec![EspProposal { group: Some(group), ..ESP_GCM }];
            let [initiator, responder] = connections;
            let mut pair = Pair::with(config(initiator), config(responder));
            pair.initiate();
            pair.run(LONG);
            for end in [INITIATOR, RESPONDER] {
                let before = spis(&pair);
                let session = session(&pair, end);
                pair.nodes[end].endpoint.rekey_child(pair.now, session).unwrap();
                pair.drive(end);
                pair.run(LONG);
                pair.assert_children_fit(1);
                assert_ne!(spis(&pair), before, "{group:?}, {demanding} demands, {end} asks");
            }
        }
    }
}

#[test]
fn a_child_that_was_not_rekeyed_in_time_ends_with_its_session() {
    let mut initiator = initiator_connection();
    initiator.lifetimes = Lifetimes { child_rekey: Duration::ZERO, child_max: Duration::from_secs(60), ..lifetimes() };
    let mut pair = Pair::with(config(initiator), config(responder_connection()));
    pair.initiate();
    pair.run(Duration::from_secs(100));
    assert_eq!(pair.nodes[INITIATOR].closed(), [Reason::Expired]);
    pair.assert_children_fit(0);
}
