//! §2.6 cookies, §2.7 and §1.3 INVALID_KE_PAYLOAD, and the bounds that protect a responder.

use std::time::Duration;

use crypto::Group;
use ike::{IkeProposal, Path, Reason, Refusal};

use crate::pair::{CBC, GCM, INITIATOR, Pair, RESPONDER, config, initiator_connection, responder_connection};

#[test]
fn a_busy_responder_asks_for_a_cookie_and_keeps_nothing() {
    let mut responder = config(responder_connection());
    responder.cookie_threshold = 0;
    let mut pair = Pair::with(config(initiator_connection()), responder);
    pair.initiate();
    pair.run(Duration::from_millis(15));
    assert!(pair.nodes[RESPONDER].records.is_empty());
    assert_eq!(pair.nodes[RESPONDER].endpoint.poll_timeout(), None);
    pair.run(Duration::from_secs(1));
    pair.assert_children_fit(1);
    assert_eq!(pair.wire.len(), 6);
    assert_eq!(pair.nodes[RESPONDER].endpoint.counters().cookies_sent, 1);
}

#[test]
fn a_cookie_of_another_address_or_nonce_is_worth_nothing() {
    let mut responder = config(responder_connection());
    responder.cookie_threshold = 0;
    let mut pair = Pair::with(config(initiator_connection()), responder);
    pair.initiate();
    pair.run(Duration::from_millis(25));
    let with_cookie = pair.wire[2].1.clone();
    pair.cut();
    let elsewhere = Path { local: "198.51.100.1:500".parse().unwrap(), remote: "192.0.2.2:500".parse().unwrap() };
    pair.deliver(RESPONDER, elsewhere, &with_cookie);
    assert!(pair.nodes[RESPONDER].records.is_empty());
    let here = Path { remote: "192.0.2.1:500".parse().unwrap(), ..elsewhere };
    pair.deliver(RESPONDER, here, &with_cookie);
    assert_eq!(pair.nodes[RESPONDER].records.len(), 1);
}

#[test]
fn an_initiator_learns_the_group_that_the_responder_wants() {
    let mut initiator = initiator_connection();
    initiator.ike_proposals = vec![GCM, CBC];
    let mut responder = responder_connection();
    responder.ike_proposals = vec![CBC];
    let mut pair = Pair::with(config(initiator), config(responder));
    pair.initiate();
    pair.run(Duration::from_secs(1));
    pair.assert_children_fit(1);
    assert_eq!(pair.wire.len(), 6, "one attempt with each group");
    let suite = pair.nodes[RESPONDER].endpoint.sessions(pair.now).next().unwrap().suite.unwrap();
    assert_eq!(suite.group, Group::Ecp256);
}

#[test]
fn a_cookie_may_come_between_and_the_group_after_it() {
    let mut initiator = initiator_connection();
    initiator.ike_proposals = vec![GCM, IkeProposal { group: Group::Modp2048, ..CBC }];
    let mut responder = responder_connection();
    responder.ike_proposals = vec![IkeProposal { group: Group::Modp2048, ..CBC }];
    let mut responder = config(responder);
    responder.cookie_threshold = 0;
    let mut pair = Pair::with(config(initiator), responder);
    pair.initiate();
    pair.run(Duration::from_secs(1));
    pair.assert_children_fit(1);
}

#[test]
fn no_suite_in_common_is_said_and_nothing_kept() {
    let mut responder = responder_connection();
    responder.ike_proposals = vec![CBC];
    let mut pair = Pair::with(config(initiator_connection()), config(responder));
    pair.initiate();
    pair.run(Duration::from_secs(100));
    assert!(pair.nodes[RESPONDER].refused().contains(&Refusal::NoProposalChosen));
    assert!(pair.nodes[RESPONDER].records.is_empty());
    assert_eq!(pair.nodes[INITIATOR].closed(), [Reason::NegotiationFailed]);
}

#[test]
fn half_open_sas_are_bounded() {
    let mut responder = config(responder_connection());
    responder.half_open_max = 20;
    let mut pair = Pair::with(config(initiator_connection()), responder);
    pair.initiate();
    let mut request = pair.wire[0].1.clone();
    pair.cut();
    let path = Path { local: "198.51.100.1:500".parse().unwrap(), remote: "192.0.2.1:500".parse().unwrap() };
    for n in 0..100 {
        request[0] = n + 1;
        pair.deliver(RESPONDER, path, &request);
    }
    assert_eq!(pair.nodes[RESPONDER].records.len(), 20);
    assert_eq!(pair.nodes[RESPONDER].endpoint.counters().refused(Refusal::Full), 80);
    pair.cut();
    pair.loss = 256;
    pair.run(Duration::from_secs(60));
    assert!(pair.nodes[RESPONDER].records.is_empty());
}

#[test]
fn small_order_and_zero_public_values_are_refused() {
    let mut pair = Pair::new();
    pair.initiate();
    let mut request = pair.wire[0].1.clone();
    pair.cut();
    // The KE payload of group 31: 32 octets behind its header.
    let at = request.windows(4).position(|w| w == [0, 31, 0, 0]).unwrap() + 4;
    request[at..at + 32].fill(0);
    let path = Path { local: "198.51.100.1:500".parse().unwrap(), remote: "192.0.2.1:500".parse().unwrap() };
    pair.deliver(RESPONDER, path, &request);
    assert_eq!(pair.nodes[RESPONDER].refused(), [Refusal::InvalidPublicValue]);
    assert!(pair.nodes[RESPONDER].records.is_empty());
}
