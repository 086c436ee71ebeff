//! What a node may send: the other half of the fence.

use std::net::Ipv4Addr;

use wire::{Reader, Time};

use super::arp::Arp;
use super::ingress::{ICMP, TCP, ethernet};
use super::{Action, Reason, Side, Tables, Verdict};

/// Where a packet that leaves came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// This node itself.
    Local,
    /// Another interface: it is forwarded.
    Forwarded,
}

impl Tables {
    /// Says whether an Ethernet frame may leave on `side`.
    #[must_use]
    pub fn egress(&self, side: Side, frame: &[u8], origin: Origin, now: Time) -> Verdict {
        let reason = self.egress_by_table(side, frame, origin).unwrap_or(Reason::OutOwn);
        match reason.action() {
            Action::Take if now >= self.lease_until => Verdict::of(Reason::OutLeaseOver),
            Action::Take | Action::Answer | Action::Pass | Action::Drop => Verdict::of(reason),
        }
    }

    /// `None` if the frame is nothing that the rule knows.
    fn egress_by_table(&self, side: Side, frame: &[u8], origin: Origin) -> Option<Reason> {
        let (_, protocol, payload) = ethernet(frame)?;
        match protocol {
            0x0806 => self.egress_arp(side, payload),
            0x0800 => self.egress_ipv4(payload, origin),
            _ => None,
        }
    }

    fn egress_arp(&self, side: Side, payload: &[u8]) -> Option<Reason> {
        let arp = Arp::parse(payload)?;
        self.is_cluster_address(arp.asking)
            .then(|| if arp.asking_mac == self.side(side).cluster_mac { Reason::OutCluster } else { Reason::OutArp })
    }

    fn egress_ipv4(&self, packet: &[u8], origin: Origin) -> Option<Reason> {
        let mut r = Reader::new(packet);
        let ihl = r.u8("IHL").ok()? & 0x0f;
        r.bytes("Type of Service to Identification", 5).ok()?;
        let place = r.u16("Flags and Fragment Offset").ok()?;
        r.u8("Time to Live").ok()?;
        let protocol = r.u8("Protocol").ok()?;
        r.u16("Header Checksum").ok()?;
        let source: Ipv4Addr = r.array("Source Address").ok()?.into();
        let destination = r.array("Destination Address").ok()?.into();
        if self.is_cluster_address(source) {
            let payload = match (ihl, place & 0x1fff) {
                (5.., 0) => packet.get(usize::from(ihl).saturating_mul(4)..).unwrap_or_default(),
                (0..5, _) | (5.., _) => &[],
            };
            return Some(from_cluster(protocol, payload));
        }
        let leaks = self.inner.lookup(destination).is_some_and(|inner| origin == Origin::Forwarded || !inner.default);
        Some(if leaks {
            Reason::OutUnprotected
        } else if self.is_inner_source(source) {
            Reason::OutInner
        } else {
            Reason::OutOwn
        })
    }
}

/// A kernel must not speak for the cluster of what it knows only by halves: a socket of a dead process, a reassembly
/// that all nodes try.
fn from_cluster(protocol: u8, payload: &[u8]) -> Reason {
    match (protocol, payload) {
        (TCP, [_, _, _, _, _, _, _, _, _, _, _, _, _, flags, ..]) if flags & 0x04 != 0 => Reason::OutReset,
        // Protocol or port unreachable; reassembly time exceeded (RFC 792).
        (ICMP, [3, 2 | 3, ..] | [11, 1, ..]) => Reason::OutIcmp,
        _ => Reason::OutCluster,
    }
}
