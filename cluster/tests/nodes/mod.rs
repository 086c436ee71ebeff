//! Nodes on one network, for tests that carry their datagrams themselves.

use std::net::SocketAddr;

use cluster::membership::{Config, Peer};
use cluster::{Addresses, Identity, LoneSurvivor, Membership, Name, Policy, StartId};
use wire::Time;

pub(crate) fn addresses(node: u8) -> Addresses {
    let mut addresses = Addresses::default();
    addresses[0] = Some(SocketAddr::from(([10, 0, 0, node], 4600)));
    addresses
}

/// One of so many.
pub(crate) fn node(number: u8, nodes: u8) -> Membership {
    let name = |number: u8| Name::new(&format!("n{number}")).unwrap();
    // Drawn at random in a node.
    let start = StartId(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(u64::from(number) + 1));
    let identity = Identity { name: name(number), start, addresses: addresses(number), weight: 1 };
    let peers = (0..nodes).filter(|peer| *peer != number);
    let config = Config {
        identity,
        peers: peers.map(|peer| Peer { name: name(peer), addresses: addresses(peer) }).collect(),
        config_version: 1,
        config_hash: [1; 32],
        lone_survivor: LoneSurvivor::Wait,
        policy: Policy::default(),
        seed: [number; 32],
    };
    Membership::new(Time::ZERO, config)
}
