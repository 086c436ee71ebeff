//! §2.15 Authentication of the IKE SA, and §2.21.2 what failing means.

use std::time::Duration;

use ike::{Reason, Refusal, RemoteIdentity};

use crate::pair::{INITIATOR, Pair, RESPONDER, config, initiator_connection, psk, responder_connection};

const LONG: Duration = Duration::from_secs(60);

#[test]
fn a_wrong_secret_is_refused_by_the_responder() {
    let mut initiator = initiator_connection();
    (initiator.local_auth, _) = psk(b"another secret");
    let mut pair = Pair::with(config(initiator), config(responder_connection()));
    pair.initiate();
    pair.run(LONG);
    assert_eq!(pair.nodes[RESPONDER].refused(), [Refusal::AuthFailed]);
    assert_eq!(pair.nodes[INITIATOR].closed(), [Reason::AuthenticationRefused]);
    pair.assert_children_fit(0);
    assert!(pair.nodes.iter().all(|n| n.records.is_empty()));
    assert_eq!(pair.nodes[RESPONDER].addresses_out, 0);
}

#[test]
fn a_responder_with_a_wrong_secret_is_refused_by_the_initiator() {
    let mut responder = responder_connection();
    (responder.local_auth, _) = psk(b"another secret");
    let mut pair = Pair::with(config(initiator_connection()), config(responder));
    pair.initiate();
    pair.run(LONG);
    assert_eq!(pair.nodes[INITIATOR].refused(), [Refusal::AuthFailed]);
    assert_eq!(pair.nodes[INITIATOR].ups(), 0);
    assert_eq!(pair.nodes[INITIATOR].closed(), [Reason::AuthenticationFailed]);
    assert_eq!(pair.nodes[RESPONDER].closed(), [Reason::PeerDeleted]);
    pair.assert_children_fit(0);
}

#[test]
fn an_identity_that_fits_no_connection_is_refused() {
    let mut initiator = initiator_connection();
    initiator.local_identity = "carol@example.net".parse().unwrap();
    let mut pair = Pair::with(config(initiator), config(responder_connection()));
    pair.initiate();
    pair.run(LONG);
    assert_eq!(pair.nodes[RESPONDER].refused(), [Refusal::UnknownIdentity]);

    let mut initiator = initiator_connection();
    initiator.remote_identity = RemoteIdentity::Exact("other.example.org".parse().unwrap());
    let mut pair = Pair::with(config(initiator), config(responder_connection()));
    pair.initiate();
    pair.run(LONG);
    assert_eq!(pair.nodes[INITIATOR].refused(), [Refusal::UnknownIdentity]);
    assert_eq!(pair.nodes[INITIATOR].ups(), 0);
}

#[test]
fn a_suffix_alone_is_no_identity() {
    let mut initiator = initiator_connection();
    initiator.local_identity = "x@other.org".parse().unwrap();
    let mut responder = responder_connection();
    responder.remote_identity = RemoteIdentity::Suffix("x@other.org".into());
    let mut pair = Pair::with(config(initiator), config(responder));
    pair.initiate();
    pair.run(LONG);
    assert_eq!(pair.nodes[RESPONDER].refused(), [Refusal::UnknownIdentity]);
}

#[test]
fn a_failed_half_open_sa_takes_no_second_guess() {
    let mut initiator = initiator_connection();
    (initiator.local_auth, _) = psk(b"another secret");
    let mut pair = Pair::with(config(initiator), config(responder_connection()));
    pair.initiate();
    pair.run(Duration::from_secs(1));
    let request = pair.wire[2].1.clone();
    let path = ike::Path { local: "198.51.100.1:4500".parse().unwrap(), remote: "192.0.2.1:4500".parse().unwrap() };
    pair.deliver(RESPONDER, path, &request);
    assert_eq!(pair.nodes[RESPONDER].refused(), [Refusal::AuthFailed], "the answer came from the cache");
}
