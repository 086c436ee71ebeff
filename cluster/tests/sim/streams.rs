//! The reliable, ordered streams between replication cores, as a transport would give them.

use std::collections::{HashSet, VecDeque};

use cluster::StartId;
use wire::CommitId;

use crate::bugs::Bug;
use crate::faults;
use crate::world::{Event, MS, S, World};

/// A node in one of its lives.
pub(crate) type End = (usize, StartId);

/// One connection: a queue each way.
pub(crate) struct Stream {
    id: u64,
    ends: [End; 2],
    queue: [VecDeque<Vec<u8>>; 2],
    free_at: [u64; 2],
    broken_since: Option<u64>,
}

/// The first octet of a message with entries, and of an acknowledgement.
const ENTRIES: u8 = 2;
const ACK: u8 = 3;

/// What the sender of an acknowledgement holds.
fn held_by_one(message: &[u8]) -> Option<CommitId> {
    let (kind, numbers) = message.split_first()?;
    let held = numbers.get(8..16)?.try_into().ok()?;
    (*kind == ACK).then_some(CommitId(u64::from_be_bytes(held)))
}

/// A message without the last words of moves that were said before.
fn without_repeated(message: &[u8], said: &mut HashSet<Vec<u8>>) -> Vec<u8> {
    const HAND_OVER: u8 = 4;
    if message.first() != Some(&ENTRIES) {
        return message.to_vec();
    }
    // Kind, range and the last entry's number; then each entry behind its number and its length.
    let (head, mut rest) = message.split_at(11);
    let mut kept = head.to_vec();
    while !rest.is_empty() {
        let length = u32::from_be_bytes(rest[8..12].try_into().unwrap()) as usize;
        let (entry, others) = rest.split_at(12 + length);
        if entry.get(12) != Some(&HAND_OVER) || said.insert(entry[12..].to_vec()) {
            kept.extend_from_slice(entry);
        }
        rest = others;
    }
    kept
}

impl World {
    /// Opens and closes streams.
    pub(crate) fn links(&mut self) {
        let (now, networks) = (self.now, self.plan.networks);
        let mut closed = Vec::new();
        for stream in &mut self.streams {
            let [a, b] = stream.ends;
            if self.air.linked(networks, a.0, b.0) {
                stream.broken_since = None;
            } else if now - *stream.broken_since.get_or_insert(now) > 2 * S {
                closed.push(stream.id);
            }
        }
        for id in closed {
            self.close(id);
        }
        for a in 0..self.nodes.len() {
            for b in a + 1..self.nodes.len() {
                if self.may_link(a, b) {
                    self.open(a, b);
                }
            }
        }
    }

    /// Whether two nodes know each other as members and have no stream yet.
    fn may_link(&self, a: usize, b: usize) -> bool {
        let (one, other) = (&self.nodes[a], &self.nodes[b]);
        let ends = [(a, one.start_id()), (b, other.start_id())];
        if !one.is_running() || !other.is_running() || self.streams.iter().any(|stream| stream.ends == ends) {
            return false;
        }
        let knows = |view: Option<&std::sync::Arc<cluster::View>>, start| {
            view.is_some_and(|view| view.by_start(start).is_some())
        };
        knows(one.membership.view(), ends[1].1)
            && knows(other.membership.view(), ends[0].1)
            && self.air.linked(self.plan.networks, a, b)
    }

    fn open(&mut self, a: usize, b: usize) {
        let ends = [(a, self.nodes[a].start_id()), (b, self.nodes[b].start_id())];
        self.streams_opened += 1;
        let id = self.streams_opened;
        self.streams.push(Stream { id, ends, queue: Default::default(), free_at: [0; 2], broken_since: None });
        for (node, peer) in [(a, ends[1].1), (b, ends[0].1)] {
            let now = self.nodes[node].clock(self.now);
            self.nodes[node].replication.handle_peer_connected(now, peer);
            self.flush(node);
        }
    }

    fn close(&mut self, id: u64) {
        let Some(at) = self.streams.iter().position(|stream| stream.id == id) else { return };
        let [a, b] = self.streams.remove(at).ends;
        for ((node, own), (_, peer)) in [(a, b), (b, a)] {
            if self.nodes[node].alive && self.nodes[node].replication.start() == own {
                let now = self.nodes[node].clock(self.now);
                self.nodes[node].replication.handle_peer_disconnected(now, peer);
            }
        }
    }

    /// Breaks the session between two nodes, if there is one, and lets them make a new one.
    pub(crate) fn break_stream(&mut self, one: usize, other: usize) -> bool {
        let between = |stream: &&Stream| stream.ends.iter().all(|end| end.0 == one || end.0 == other);
        let found = self.streams.iter().find(between).map(|stream| stream.id);
        if let Some(id) = found {
            self.close(id);
            self.links();
        }
        found.is_some()
    }

    pub(crate) fn drop_streams(&mut self, node: usize) {
        let of_node = |stream: &&Stream| stream.ends.iter().any(|end| end.0 == node);
        let gone: Vec<u64> = self.streams.iter().filter(of_node).map(|stream| stream.id).collect();
        for id in gone {
            self.close(id);
        }
    }

    pub(crate) fn send(&mut self, node: usize, to: StartId, message: Vec<u8>) {
        let own = (node, self.nodes[node].replication.start());
        let delay = 100_000 + self.dice.below(400_000);
        let side_of = |stream: &Stream| match stream.ends {
            [a, b] if a == own && b.1 == to => Some(0),
            [a, b] if b == own && a.1 == to => Some(1),
            _ => None,
        };
        let found = self.streams.iter_mut().find_map(|stream| side_of(stream).map(|side| (stream, side)));
        let Some((stream, side)) = found else { return };
        let once = self.plan.bug == Bug::HandOverSaidOnce;
        let message = if once { without_repeated(&message, &mut self.last_words) } else { message };
        stream.queue[side].push_back(message);
        let at = (self.now + delay).max(stream.free_at[side] + 1);
        stream.free_at[side] = at;
        let id = stream.id;
        self.queue.push(at, Event::Message { stream: id, side });
    }

    pub(crate) fn deliver(&mut self, id: u64, side: usize) {
        let Some(at) = self.streams.iter().position(|stream| stream.id == id) else { return };
        let ends = self.streams[at].ends;
        let (from, to) = (ends[side], ends[1 - side]);
        let lossy = self.dice.chance(self.air.loss);
        if !self.air.linked(self.plan.networks, from.0, to.0) || self.nodes[to.0].paused || lossy {
            // The transport repeats what was lost, in order.
            let wait = 3 * MS + self.dice.below(5 * MS);
            self.queue.push(self.now + wait, Event::Message { stream: id, side });
            return;
        }
        let Some(message) = self.streams[at].queue[side].pop_front() else { return };
        if self.plan.bug == Bug::StreamLosesMessage && self.dice.below(500) == 0 {
            return;
        }
        let now = self.nodes[to.0].clock(self.now);
        self.nodes[to.0].replication.handle_message(now, from.1, &message);
        if message.first() == Some(&ENTRIES) {
            faults::heard(self, from.0);
        }
        if let (Bug::CommitByMajority, Some(held)) = (self.plan.bug, held_by_one(&message)) {
            self.committed(to.0, held);
        }
        self.drain(to.0);
    }
}
