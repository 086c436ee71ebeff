//! ARP in the cluster's name (RFC 826).

use std::net::Ipv4Addr;

use wire::Reader;

use super::{Reason, Side, Tables, Verdict};

/// An ARP packet for IPv4 over Ethernet.
pub(super) struct Arp {
    operation: u16,
    pub(super) asking_mac: [u8; 6],
    pub(super) asking: Ipv4Addr,
    asked: Ipv4Addr,
}

impl Arp {
    /// Reads the packet; `None` if it is cut.
    pub(super) fn parse(payload: &[u8]) -> Option<Self> {
        let mut r = Reader::new(payload);
        r.bytes("Hardware and Protocol", 6).ok()?;
        let operation = r.u16("Operation").ok()?;
        let asking_mac = r.array("Sender Hardware Address").ok()?;
        let asking = r.array("Sender Protocol Address").ok()?.into();
        r.bytes("Target Hardware Address", 6).ok()?;
        let asked = r.array("Target Protocol Address").ok()?.into();
        Some(Self { operation, asking_mac, asking, asked })
    }
}

impl Tables {
    /// Returns the frame that answers the question in `frame`, whoever has to give it.
    ///
    /// It comes from the node's own MAC address, so that no switch ever learns the cluster's.
    #[must_use]
    pub fn arp_answer(&self, side: Side, frame: &[u8]) -> Option<[u8; 42]> {
        let arp = Arp::parse(frame.get(14..)?)?;
        let here = self.side(side);
        let mut bytes = Vec::with_capacity(42);
        bytes.extend_from_slice(&arp.asking_mac);
        bytes.extend_from_slice(&here.node_mac);
        bytes.extend_from_slice(&[0x08, 0x06]);
        bytes.extend_from_slice(&[0, 1, 0x08, 0x00, 6, 4, 0, 2]);
        bytes.extend_from_slice(&here.cluster_mac);
        bytes.extend_from_slice(&arp.asked.octets());
        bytes.extend_from_slice(&arp.asking_mac);
        bytes.extend_from_slice(&arp.asking.octets());
        bytes.try_into().ok()
    }

    /// Of the cluster addresses, the owner of the pair (asking, asked) answers: one answer to each question, and a dead
    /// node's share of the questions is inherited with its work sets. Of an inner address, the owner of its session.
    pub(super) fn arp(&self, side: Side, payload: &[u8]) -> Verdict {
        const IPV4_OVER_ETHERNET: [u8; 6] = [0, 1, 0x08, 0x00, 6, 4];
        let Some(arp) = Arp::parse(payload).filter(|_| payload.starts_with(&IPV4_OVER_ETHERNET)) else {
            return Verdict::of(Reason::NotOurs);
        };
        let here = self.side(side);
        let [first_octet, ..] = arp.asking_mac;
        if self.is_cluster_address(arp.asking) {
            let peer = arp.asking_mac == here.cluster_mac;
            return Verdict::of(if peer { Reason::ArpPeer } else { Reason::ArpConflict });
        }
        if arp.operation != 1 || first_octet & 1 != 0 {
            return Verdict::of(Reason::NotOurs);
        }
        let verdict = if self.is_cluster_address(arp.asked) {
            if !self.addresses.iter().any(|a| a.address == arp.asked && a.side == side) {
                return Verdict::of(Reason::ArpNobody);
            }
            self.answered_by_owner(self.key.home_of_pair(arp.asking, arp.asked))
        } else {
            let attached = here.subnet.is_some_and(|subnet| subnet.contains(arp.asked));
            match self.inner.lookup(arp.asked).filter(|inner| attached && !inner.default) {
                None => return Verdict::of(Reason::NotOurs),
                Some(inner) => match inner.set {
                    None => return Verdict::of(Reason::ArpNobody),
                    Some(set) => self.answered_by_owner(set),
                },
            }
        };
        if verdict.reason == Reason::Owned {
            Verdict { reason: Reason::ArpAnswered, set: verdict.set }
        } else {
            verdict
        }
    }
}
