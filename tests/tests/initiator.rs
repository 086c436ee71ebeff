//! Our initiator and our ESP against strongSwan: what the load tool does is what a peer that nobody here wrote accepts.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use lab::cluster::{GATEWAY_ID, OUTSIDE_ADDRESS, SERVER};
use lab::echo::EchoServer;
use lab::load::{Counts, Load, LoadSettings, Proof};
use lab::pair::{Method, StrongSwanGateway};
use lab::strongswan::Log;

const CLIENT_ID: &str = "load.lab.test";

fn pass_sessions_through(method: Method, local_id: &str, sessions: usize) {
    let gateway = StrongSwanGateway::start("*.lab.test", method, Log::Exchanges).unwrap();
    let outside = gateway.outside_host("load", 200).unwrap();
    let echo = SocketAddrV4::new(SERVER, 7);
    let _server = EchoServer::start(&gateway.inside, echo.into()).unwrap();
    let own = gateway.issue(CLIENT_ID).unwrap();
    let authority = gateway.authority();
    let settings = LoadSettings {
        local: Ipv4Addr::new(198, 51, 100, 200),
        gateway: OUTSIDE_ADDRESS,
        gateway_id: GATEWAY_ID,
        local_id,
        proof: match method {
            Method::PreSharedKey => Proof::PreSharedKey(StrongSwanGateway::SECRET),
            Method::Ecdsa => Proof::Ecdsa { own: &own, authority: &authority },
        },
    };
    let load = Load::start(&outside, &settings).unwrap();
    load.open(sessions, 5, Duration::from_secs(20)).unwrap();
    assert_eq!(load.echo_all(echo, Duration::from_secs(5)).unwrap(), 0, "sessions without an echo");
    assert_eq!(load.probe_all(Duration::from_secs(5)).unwrap(), 0, "sessions without a liveness exchange");
    assert_eq!(load.counts(), Counts { up: sessions, opened: sessions, ..Counts::default() });
    load.close_all(Duration::from_secs(10)).unwrap();
}

#[test]
fn our_initiator_opens_sessions_with_strongswan_by_pre_shared_key() {
    pass_sessions_through(Method::PreSharedKey, "load-*.lab.test", 20);
}

#[test]
fn our_initiator_opens_sessions_with_strongswan_by_certificate() {
    // A certificate names one client.
    pass_sessions_through(Method::Ecdsa, CLIENT_ID, 1);
}
