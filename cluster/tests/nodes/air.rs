//! Datagrams between the nodes of a test, by the last octets of their addresses.

use std::net::SocketAddr;

use cluster::{Membership, Network};
use wire::Time;

use crate::nodes::addresses;

/// What a node says now, and to whom.
pub(crate) fn said(node: &mut Membership) -> Vec<(usize, Vec<u8>)> {
    let (mut said, mut buffer) = (Vec::new(), Vec::new());
    while let Some(to) = node.poll_transmit(&mut buffer) {
        let SocketAddr::V4(address) = to.to else { continue };
        said.push((usize::from(address.ip().octets()[3]), buffer.clone()));
    }
    said
}

pub(crate) fn deliver(nodes: &mut [Membership], now: Time, (from, to, datagram): (usize, usize, &[u8])) {
    let sender = nodes[from].identity().start;
    let source = addresses(u8::try_from(from).unwrap())[0].unwrap();
    nodes[to].handle_datagram(now, Network::new(0).unwrap(), source, sender, datagram);
}
