//! §2.1 Use of Retransmission Timers, §2.2 message ids, §2.3 the window.

use std::time::Duration;

use ike::{Path, Reason, Refusal};

use crate::pair::{INITIATOR, Pair, RESPONDER};

#[test]
fn loss_and_duplicates_cost_time_and_nothing_else() {
    for seed in 0..60 {
        let mut pair = Pair::new();
        pair.seed(seed);
        (pair.loss, pair.duplicates) = (77, 64);
        let session = pair.initiate();
        pair.run(Duration::from_secs(40));
        assert_eq!((pair.nodes[INITIATOR].ups(), pair.nodes[RESPONDER].ups()), (1, 1), "seed {seed}");
        pair.assert_children_fit(1);
        pair.nodes[INITIATOR].endpoint.rekey_child(pair.now, session).unwrap();
        pair.drive(INITIATOR);
        pair.run(Duration::from_secs(60));
        pair.assert_children_fit(1);
        pair.nodes[RESPONDER].endpoint.rekey_ike(pair.now, responder_session(&pair)).unwrap();
        pair.drive(RESPONDER);
        pair.run(Duration::from_secs(200));
        pair.assert_children_fit(1);
        assert_eq!(pair.nodes[INITIATOR].closed(), [], "seed {seed}");
        assert_eq!(pair.nodes[INITIATOR].endpoint.sessions(pair.now).count(), 1);
        assert_eq!(pair.nodes[RESPONDER].endpoint.sessions(pair.now).count(), 1);
        assert_eq!(pair.nodes[RESPONDER].records.len(), 1, "seed {seed}");
    }
}

fn responder_session(pair: &Pair) -> u64 {
    pair.nodes[RESPONDER].endpoint.sessions(pair.now).next().unwrap().session
}

#[test]
fn a_repeated_request_gets_the_same_octets_again() {
    let mut pair = Pair::new();
    pair.initiate();
    pair.run(Duration::from_secs(1));
    let requests: Vec<_> = pair.wire.iter().filter(|(from, _)| *from == INITIATOR).map(|(_, d)| d.clone()).collect();
    let answers: Vec<_> = pair.wire.iter().filter(|(from, _)| *from == RESPONDER).map(|(_, d)| d.clone()).collect();
    let path = Path { local: "198.51.100.1:4500".parse().unwrap(), remote: "192.0.2.1:4500".parse().unwrap() };
    let before = pair.wire.len();
    pair.deliver(RESPONDER, path, &requests[1]);
    assert_eq!(pair.wire.len(), before + 1);
    assert_eq!(pair.wire[before].1, answers[1]);
    assert_eq!(pair.nodes[RESPONDER].ups(), 1);
    // An older one is outside the window.
    pair.deliver(RESPONDER, path, &requests[0]);
    assert_eq!(pair.nodes[RESPONDER].ups(), 1);
}

#[test]
fn a_repeated_first_request_gets_the_same_answer_and_no_second_half_open_sa() {
    let mut pair = Pair::new();
    pair.initiate();
    let request = pair.wire[0].1.clone();
    let path = Path { local: "198.51.100.1:500".parse().unwrap(), remote: "192.0.2.1:500".parse().unwrap() };
    pair.cut();
    for _ in 0..3 {
        pair.deliver(RESPONDER, path, &request);
        pair.now += Duration::from_millis(500);
    }
    let answers: Vec<_> = pair.wire.iter().filter(|(from, _)| *from == RESPONDER).map(|(_, d)| d.clone()).collect();
    assert_eq!(answers.len(), 3);
    assert!(answers.iter().all(|a| *a == answers[0]));
    assert_eq!(pair.nodes[RESPONDER].records.len(), 1);
}

#[test]
fn a_half_open_sa_closes_at_its_deadline() {
    let mut pair = Pair::new();
    pair.initiate();
    let request = pair.wire[0].1.clone();
    let path = Path { local: "198.51.100.1:500".parse().unwrap(), remote: "192.0.2.1:500".parse().unwrap() };
    pair.cut();
    pair.loss = 256;
    pair.deliver(RESPONDER, path, &request);
    let opened = pair.now;
    assert_eq!(pair.nodes[RESPONDER].endpoint.poll_timeout(), Some(opened + Duration::from_secs(30)));
    pair.run(Duration::from_secs(30));
    assert_eq!(pair.nodes[RESPONDER].closed(), [Reason::HalfOpenTimeout]);
    assert!(pair.nodes[RESPONDER].records.is_empty());
}

#[test]
fn an_initiator_that_nobody_answers_gives_up_after_its_last_attempt() {
    let mut pair = Pair::new();
    pair.loss = 256;
    pair.initiate();
    pair.run(Duration::from_secs(200));
    assert_eq!(pair.nodes[INITIATOR].closed(), [Reason::PeerSilent]);
    assert_eq!(pair.wire.len(), 9, "the first and eight repetitions");
    assert!(pair.nodes[INITIATOR].endpoint.poll_timeout().is_none());
}

#[test]
fn an_answer_that_nobody_waits_for_changes_nothing() {
    let mut pair = Pair::new();
    pair.initiate();
    pair.run(Duration::from_secs(1));
    let answer = pair.wire[3].1.clone();
    let path = Path { local: "192.0.2.1:4500".parse().unwrap(), remote: "198.51.100.1:4500".parse().unwrap() };
    pair.deliver(INITIATOR, path, &answer);
    assert_eq!(pair.nodes[INITIATOR].endpoint.counters().refused(Refusal::MessageId), 1);
    pair.assert_children_fit(1);
}
