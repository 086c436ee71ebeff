//! Work sets on their way from one owner to another.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use ike::Path;
use wire::Time;

/// Octets that one worker queues for one held set.
const HOLD_BYTES_MAX: usize = 16 << 20;
/// Digests that a hand-over has, and that one worker keeps of one watched set, at most: with all pairs they fit into one
/// message of the link. Some 50 ms of what a machine carries at most; an overlap lasts 20.
const DIGESTS_MAX: usize = 3 << 14;
/// How long after its start a set still looks for packets that the old owner has processed: they may be on their way
/// through this node's kernel.
pub(super) const SETTLE: Duration = Duration::from_millis(100);

/// What a worker does with packets of a set that is moving.
pub(super) enum Mode {
    /// Old owner: process, and note what was processed.
    Watched(Vec<u64>),
    /// New owner: wait.
    Held(Hold),
    /// Old owner, afterwards: drop.
    Stopped,
    /// New owner, afterwards: process what the old one has not.
    Settling(Processed, Time),
}

/// A packet that waits for its set to start.
pub(super) enum Held {
    /// From the outside.
    Outer { path: Path, tos: u8, datagram: Box<[u8]> },
    /// From the inside, behind its offload header.
    Inner(Box<[u8]>),
}

/// Packets of a held set, in order.
#[derive(Default)]
pub(super) struct Hold {
    packets: VecDeque<Held>,
    bytes: usize,
}

impl Hold {
    /// Takes in a packet; `false` if there is no room.
    pub(super) fn push(&mut self, packet: Held) -> bool {
        let len = match &packet {
            Held::Outer { datagram, .. } => datagram.len(),
            Held::Inner(packet) => packet.len(),
        };
        if self.bytes + len > HOLD_BYTES_MAX {
            return false;
        }
        self.bytes += len;
        self.packets.push_back(packet);
        true
    }

    pub(super) fn into_packets(self) -> VecDeque<Held> {
        self.packets
    }
}

/// Notes the digest of a processed packet. Of a move that stalls, what came last counts: before, the new owner did not
/// queue yet.
pub(super) fn note(digests: &mut Vec<u64>, packet: &[u8]) {
    if digests.len() >= DIGESTS_MAX {
        digests.drain(..DIGESTS_MAX / 2);
    }
    digests.push(digest_of(packet));
}

/// The digests that a hand-over has, out of those of all workers: the last of each, in proportion.
pub(super) fn last_of(noted: &[Vec<u64>]) -> Vec<u64> {
    let total: usize = noted.iter().map(Vec::len).sum();
    let mut last = Vec::with_capacity(total.min(DIGESTS_MAX));
    for digests in noted {
        let kept = digests.len() * total.min(DIGESTS_MAX) / total.max(1);
        last.extend_from_slice(&digests[digests.len() - kept..]);
    }
    last
}

/// The plain packets that the old owner processed in the overlap; each is looked for once. Shared by the workers, because
/// the two nodes may have spread the packets over their workers differently.
#[derive(Clone, Debug, Default)]
pub(super) struct Processed(Arc<Mutex<HashMap<u64, u32>>>);

impl Processed {
    pub(super) fn new(digests: &[u64]) -> Self {
        let mut counts = HashMap::new();
        for digest in digests {
            *counts.entry(*digest).or_insert(0) += 1;
        }
        Self(Arc::new(Mutex::new(counts)))
    }

    /// Whether the old owner has processed this packet, taking it off the list.
    pub(super) fn take(&self, packet: &[u8]) -> bool {
        let digest = digest_of(packet);
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match counts.get_mut(&digest) {
            Some(0) | None => false,
            Some(count) => {
                *count -= 1;
                true
            }
        }
    }
}

/// A digest of what is the same on every node that got the packet. Time to live and header checksum are left out; so is the
/// identification where nothing may depend on it (RFC 6864 §4.1), because offloads number segments anew.
fn digest_of(packet: &[u8]) -> u64 {
    let mut head = [0; 20];
    let len = packet.len().min(head.len());
    head[..len].copy_from_slice(&packet[..len]);
    head[8] = 0;
    head[10..12].fill(0);
    if head[6] & 0x60 == 0x40 && head[6] & 0x1f == 0 && head[7] == 0 {
        head[4..6].fill(0);
    }
    let mut context = Context::new(&SHA256);
    context.update(&head);
    context.update(&packet[len..]);
    let digest = context.finish();
    digest.as_ref().first_chunk().map_or(0, |chunk| u64::from_be_bytes(*chunk))
}

#[cfg(test)]
mod tests {
    use wire::{Record, UnknownFields};

    use super::super::offload::tests::tcp;
    use super::*;
    use crate::link::HAND_OVER_MAX;
    use crate::replicated::adopt::FinalState;

    #[test]
    fn a_digest_ignores_what_nodes_change_and_nothing_else() {
        let packet = tcp(1, 0x10, 5, &[1, 2, 3]);
        let mut aged = tcp(1, 0x10, 9, &[1, 2, 3]);
        aged[8] -= 1;
        assert_eq!(digest_of(&packet), digest_of(&aged));
        assert_ne!(digest_of(&packet), digest_of(&tcp(2, 0x10, 5, &[1, 2, 3])));
        assert_ne!(digest_of(&packet), digest_of(&tcp(1, 0x10, 5, &[1, 2, 4])));
        let (mut first, mut second) = (packet.clone(), aged);
        first[6] = 0;
        second[6] = 0;
        assert_ne!(digest_of(&first), digest_of(&second), "without \"don't fragment\" the identification counts");
    }

    #[test]
    fn a_packet_that_came_twice_is_taken_twice() {
        let (a, b) = (tcp(1, 0x10, 5, &[1]), tcp(1, 0x10, 5, &[2]));
        let mut digests = Vec::new();
        note(&mut digests, &a);
        note(&mut digests, &a);
        let processed = Processed::new(&digests);
        assert_eq!([&a, &b, &a, &a].map(|packet| processed.take(packet)), [true, false, true, false]);
    }

    #[test]
    fn of_a_long_overlap_the_last_packets_are_handed_over_and_fit_into_a_message() {
        let packet = |number: u32| number.to_be_bytes();
        let mut digests = Vec::new();
        for number in 0..100_000 {
            note(&mut digests, &packet(number));
        }
        assert!(digests.len() <= DIGESTS_MAX, "{}", digests.len());
        assert_eq!(last_of(&[digests.clone()]), digests);
        let handed = last_of(&[digests.clone(), vec![1, 2, 3], Vec::new(), digests.clone()]);
        assert!((DIGESTS_MAX - 4..=DIGESTS_MAX).contains(&handed.len()), "{}", handed.len());
        assert_eq!(handed.last(), Some(&digest_of(&packet(99_999))));
        assert_eq!(last_of(&[vec![7], Vec::new(), vec![8, 9]]), [7, 8, 9]);
        assert!(last_of(&[]).is_empty());
        let state = FinalState { pairs: Vec::new(), digests: handed, unknown: UnknownFields::default() };
        assert!(state.to_bytes().len() < HAND_OVER_MAX * 4 / 5, "there is room for the pairs");
    }

    #[test]
    fn a_hold_is_bounded() {
        let mut hold = Hold::default();
        let taken = (0..1000).filter(|_| hold.push(Held::Inner(vec![0; 65_000].into()))).count();
        assert_eq!(taken, HOLD_BYTES_MAX / 65_000);
        assert_eq!(hold.into_packets().len(), taken);
    }
}
