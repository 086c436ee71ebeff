//! §2.19 Requesting an Internal Address, §2.9 Traffic Selector Negotiation.

use std::time::Duration;

use ike::{Reason, Refusal, RemoteSelectors};
use wire::TrafficSelector;

use crate::pair::{INITIATOR, Pair, RESPONDER, any_network, config, initiator_connection, responder_connection};

const LONG: Duration = Duration::from_secs(60);

fn network(text: &str) -> TrafficSelector {
    TrafficSelector::from_prefix(text.parse().unwrap())
}

#[test]
fn the_address_and_nothing_else_is_the_peers_side() {
    let mut pair = Pair::new();
    pair.initiate();
    pair.run(LONG);
    let child = pair.nodes[RESPONDER].children.values().next().unwrap();
    let address = child.inner_address.unwrap();
    assert_eq!(child.remote, [TrafficSelector::from_address(address)]);
    assert_eq!(child.local, [network("10.0.0.0/16")], "narrowed from everything");
}

#[test]
fn an_empty_pool_is_said_and_no_child_made() {
    let mut pair = Pair::new();
    pair.nodes[RESPONDER].pool_empty = true;
    pair.initiate();
    pair.run(LONG);
    assert_eq!(pair.nodes[RESPONDER].refused(), [Refusal::NoAddress]);
    assert_eq!(pair.nodes[INITIATOR].refused(), [Refusal::NoAddress]);
    assert_eq!(pair.nodes[INITIATOR].closed(), [Reason::NegotiationFailed]);
    pair.assert_children_fit(0);
    assert!(pair.nodes.iter().all(|n| n.records.is_empty()));
}

#[test]
fn who_asks_for_no_address_gets_no_child() {
    let mut initiator = initiator_connection();
    initiator.request_address = false;
    initiator.local_selectors = vec![network("10.77.0.0/16")];
    let mut pair = Pair::with(config(initiator), config(responder_connection()));
    pair.initiate();
    pair.run(LONG);
    assert_eq!(pair.nodes[RESPONDER].refused(), [Refusal::ConfigurationRequired]);
    pair.assert_children_fit(0);
}

#[test]
fn networks_behind_both_ends_are_narrowed_to_what_both_allow() {
    let mut initiator = initiator_connection();
    initiator.request_address = false;
    initiator.local_selectors = vec![network("10.1.0.0/16"), network("10.2.0.0/16")];
    initiator.remote_selectors = RemoteSelectors::Networks(vec![any_network()]);
    let mut responder = responder_connection();
    responder.remote_selectors = RemoteSelectors::Networks(vec![network("10.2.3.0/24"), network("10.9.0.0/16")]);
    let mut pair = Pair::with(config(initiator), config(responder));
    pair.initiate();
    pair.run(LONG);
    pair.assert_children_fit(1);
    let child = pair.nodes[INITIATOR].children.values().next().unwrap();
    assert_eq!(child.local, [network("10.2.3.0/24")]);
    assert_eq!(child.remote, [network("10.0.0.0/16")]);
}

#[test]
fn nothing_in_common_is_refused() {
    let mut initiator = initiator_connection();
    initiator.remote_selectors = RemoteSelectors::Networks(vec![network("172.16.0.0/12")]);
    let mut pair = Pair::with(config(initiator), config(responder_connection()));
    pair.initiate();
    pair.run(LONG);
    assert_eq!(pair.nodes[RESPONDER].refused(), [Refusal::TsUnacceptable]);
    assert_eq!(pair.nodes[INITIATOR].closed(), [Reason::NegotiationFailed]);
    assert_eq!(pair.nodes[RESPONDER].addresses_out, 0, "the address went back");
}
