//! Neighbours on loopback addresses, certified by a CA made for the test.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::*;
use crate::link::hello::RefusedBy;

/// A CA of one test.
pub(in crate::link) struct Ca {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Ca {
    pub(in crate::link) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap() }
    }

    pub(in crate::link) fn identity(&self, name: &str) -> Identity {
        self.identity_with(CertificateParams::new(vec![name.into()]).unwrap())
    }

    fn identity_with(&self, params: CertificateParams) -> Identity {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        Identity::new(vec![certificate.der().clone()], key, vec![self.anchor()]).unwrap()
    }

    fn anchor(&self) -> CertificateDer<'static> {
        self.issuer.der().clone()
    }
}

/// Node `node` of test `test`: every pair has an address of its own, so that tests do not meet.
fn address(test: u8, node: u8) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 77, test, node)), 4700)
}

fn name(node: u8) -> String {
    format!("node{node}")
}

fn config(test: u8, node: u8, nodes: u8) -> Config {
    let neighbours = (1..=nodes).filter(|other| *other != node);
    Config {
        cluster: "lab".into(),
        name: name(node),
        start: rand_start(),
        configuration: [7; 32],
        networks: vec![address(test, node)],
        neighbours: neighbours.map(|n| Neighbour { name: name(n), addresses: vec![Some(address(test, n))] }).collect(),
    }
}

fn rand_start() -> u64 {
    let mut start = [0; 8];
    getrandom::fill(&mut start).unwrap();
    u64::from_be_bytes(start)
}

async fn expect(events: &mut Events) -> Event {
    tokio::time::timeout(Duration::from_secs(10), events.next()).await.expect("an event within ten seconds").unwrap()
}

async fn connected(events: &mut Events) -> Peer {
    loop {
        if let Event::Connected { peer, .. } = expect(events).await {
            return peer;
        }
    }
}

async fn refused(events: &mut Events) -> Refused {
    loop {
        if let Event::Refused { why, .. } = expect(events).await
            && why.refusal != Refusal::Silent
        {
            return why;
        }
    }
}

#[tokio::test]
async fn messages_arrive_in_order_and_a_round_trip_is_short() {
    let ca = Ca::new();
    let (a, mut a_events) = Transport::start(config(1, 1, 2), &ca.identity("node1")).unwrap();
    let (b, mut b_events) = Transport::start(config(1, 2, 2), &ca.identity("node2")).unwrap();
    let (at_a, at_b) = (connected(&mut a_events).await, connected(&mut b_events).await);
    for number in 0..1000_u32 {
        a.send(at_a, &number.to_be_bytes());
    }
    a.send(at_a, &vec![9; MESSAGE_MAX]);
    for number in 0..1000_u32 {
        let Event::Message { bytes, .. } = expect(&mut b_events).await else { panic!("a message") };
        assert_eq!(bytes, number.to_be_bytes());
    }
    let Event::Message { bytes, .. } = expect(&mut b_events).await else { panic!("a message") };
    assert_eq!(bytes.len(), MESSAGE_MAX);

    let mut trips = Vec::new();
    for _ in 0..200 {
        let sent = std::time::Instant::now();
        a.send(at_a, b"put");
        expect(&mut b_events).await;
        b.send(at_b, b"ack");
        expect(&mut a_events).await;
        trips.push(sent.elapsed());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    trips.sort();
    println!("round trip: median {:?}, 95 % {:?}, worst {:?}", trips[100], trips[190], trips[199]);
    assert!(trips[100] < Duration::from_millis(20), "median {:?}", trips[100]);
}

#[tokio::test]
async fn a_restarted_node_has_a_new_session_at_once() {
    let ca = Ca::new();
    let identity = ca.identity("node1");
    let (_b, mut b_events) = Transport::start(config(2, 2, 2), &ca.identity("node2")).unwrap();
    let first = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let old = {
        let _inside = first.enter();
        Transport::start(config(2, 1, 2), &identity).unwrap()
    };
    connected(&mut b_events).await;
    // The old program dies without a word: its tasks never run again.
    tokio::task::spawn_blocking(move || first.shutdown_timeout(Duration::from_secs(5))).await.unwrap();
    drop(old);
    let restart = std::time::Instant::now();
    let (_a, mut a_events) = Transport::start(config(2, 1, 2), &identity).unwrap();
    connected(&mut a_events).await;
    connected(&mut b_events).await;
    println!("session after a restart: {:?}", restart.elapsed());
}

#[tokio::test]
async fn a_stranger_of_another_ca_of_the_same_name_is_refused_by_both() {
    let (ca, other) = (Ca::new(), Ca::new());
    let (_a, mut a_events) = Transport::start(config(3, 1, 2), &ca.identity("node1")).unwrap();
    let (_b, mut b_events) = Transport::start(config(3, 2, 2), &other.identity("node2")).unwrap();
    assert_eq!(refused(&mut a_events).await.refusal, Refusal::UnknownCa);
    assert_eq!(refused(&mut b_events).await.refusal, Refusal::UnknownCa);
}

#[tokio::test]
async fn a_node_of_another_cluster_or_configuration_is_refused_with_the_reason() {
    let ca = Ca::new();
    let (_a, mut a_events) = Transport::start(config(4, 1, 3), &ca.identity("node1")).unwrap();
    let two = Config { cluster: "elsewhere".into(), ..config(4, 2, 3) };
    let (_b, mut b_events) = Transport::start(two, &ca.identity("node2")).unwrap();
    let why = refused(&mut b_events).await;
    assert_eq!(why.refusal, Refusal::OtherCluster);
    assert_eq!(refused(&mut a_events).await.refusal, Refusal::OtherCluster);
    let three = Config { configuration: [8; 32], ..config(4, 3, 3) };
    let (_c, mut c_events) = Transport::start(three, &ca.identity("node3")).unwrap();
    let why = refused(&mut c_events).await;
    assert!(matches!(why.refusal, Refusal::OtherConfiguration | Refusal::OtherCluster), "{why}");
}

#[tokio::test]
async fn a_second_live_node_with_one_identity_is_refused_with_the_first_ones_address() {
    let ca = Ca::new();
    let (_a, mut a_events) = Transport::start(config(5, 1, 2), &ca.identity("node1")).unwrap();
    let (_b, mut b_events) = Transport::start(config(5, 2, 2), &ca.identity("node2")).unwrap();
    connected(&mut a_events).await;
    connected(&mut b_events).await;
    let twin = Config { networks: vec![address(5, 9)], ..config(5, 2, 2) };
    let (_twin, mut twin_events) = Transport::start(twin, &ca.identity("node2")).unwrap();
    let why = refused(&mut twin_events).await;
    assert_eq!((why.refusal, why.by), (Refusal::SameIdentity, RefusedBy::Them));
    assert!(why.detail.contains("127.77.5.2"), "{why}");
}

#[tokio::test]
async fn a_certificate_that_names_somebody_else_is_refused() {
    let ca = Ca::new();
    let error = Transport::start(config(6, 1, 2), &ca.identity("node3")).unwrap_err();
    assert!(error.to_string().contains("node1"), "{error}");
    let of_a_domain = Config { name: "node1.lab.test".into(), ..config(6, 1, 2) };
    let error = Transport::start(of_a_domain, &ca.identity("*.lab.test")).unwrap_err();
    assert!(error.to_string().contains("node1.lab.test"), "a wildcard names no node: {error}");
}

#[tokio::test]
async fn an_expired_certificate_is_refused_as_such() {
    let ca = Ca::new();
    let mut params = CertificateParams::new(vec!["node2".into()]).unwrap();
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    let (_a, mut a_events) = Transport::start(config(7, 1, 2), &ca.identity("node1")).unwrap();
    let (_b, mut b_events) = Transport::start(config(7, 2, 2), &ca.identity_with(params)).unwrap();
    assert_eq!(refused(&mut a_events).await.refusal, Refusal::Certificate);
    assert_eq!(refused(&mut b_events).await.refusal, Refusal::Certificate);
}

#[tokio::test]
async fn another_network_carries_the_session_when_the_first_is_gone() {
    let ca = Ca::new();
    let second = |node| SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 78, 8, node)), 4700);
    let two_networks = |node: u8, other: u8| Config {
        networks: vec![address(8, node), second(node)],
        neighbours: vec![Neighbour {
            name: name(other),
            // Nobody listens in the first network.
            addresses: vec![Some(address(8, 99)), Some(second(other))],
        }],
        ..config(8, node, 2)
    };
    let (_a, mut a_events) = Transport::start(two_networks(1, 2), &ca.identity("node1")).unwrap();
    let (_b, mut b_events) = Transport::start(two_networks(2, 1), &ca.identity("node2")).unwrap();
    connected(&mut a_events).await;
    connected(&mut b_events).await;
}

#[tokio::test]
async fn strangers_are_all_counted_and_told_of_once_in_a_while() {
    let (ca, other) = (Ca::new(), Ca::new());
    let (a, mut a_events) = Transport::start(config(9, 1, 2), &ca.identity("node1")).unwrap();
    let stranger = Config { networks: vec![address(9, 66)], ..config(9, 2, 2) };
    let (_stranger, _its_events) = Transport::start(stranger, &other.identity("node2")).unwrap();
    let counted = || a.refusals().iter().find(|(word, _)| *word == "unknown_ca").map_or(0, |(_, count)| *count);
    let start = Instant::now();
    while counted() < 3 {
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", a.refusals());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let events = std::iter::from_fn(|| a_events.try_next());
    assert_eq!(events.filter(|event| matches!(event, Event::Refused { peer: None, .. })).count(), 1);
}
