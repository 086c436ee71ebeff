//! Work sets on their way from one owner to another.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use ike::Path;
use wire::Time;

/// Octets that one worker queues for one held set.
const HOLD_BYTES_MAX: usize = 16 << 20;
/// Digests that one worker keeps of one watched set.
const DIGESTS_MAX: usize = 1 << 20;
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

/// Notes the digest of a processed packet.
pub(super) fn note(digests: &mut Vec<u64>, packet: &[u8]) {
    if digests.len() < DIGESTS_MAX {
        digests.push(digest_of(packet));
    }
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
    use super::super::offload::tests::tcp;
    use super::*;

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
    fn a_hold_is_bounded() {
        let mut hold = Hold::default();
        let taken = (0..1000).filter(|_| hold.push(Held::Inner(vec![0; 65_000].into()))).count();
        assert_eq!(taken, HOLD_BYTES_MAX / 65_000);
        assert_eq!(hold.into_packets().len(), taken);
    }
}
