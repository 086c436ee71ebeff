//! Answers that come late: to a request for a set that somebody else owns by now, and of a peer that had nothing to answer
//! before.

mod replicas;

use std::collections::VecDeque;

use cluster::replication::{Bounds, Output};
use cluster::{Replication, Role, StartId};
use wire::{Change, CommitId, RecordId, RecordKind, Time, WorkSet};

use replicas::{slot, start, tenure, view};

const OLD: usize = 0;
const NEW: usize = 1;
const THIRD: usize = 2;
const BIG: WorkSet = WorkSet::from_low_bits(1);
const SET: WorkSet = WorkSet::from_low_bits(7);
const MESSAGE: usize = 8 << 10;

fn record(set: WorkSet, key: u128) -> RecordId {
    RecordId { set, kind: RecordKind(1), key }
}

/// Half a window holds few messages.
fn bounds() -> Bounds {
    Bounds { window_max: 4 * MESSAGE, message_max: MESSAGE, ..Bounds::default() }
}

/// Three full members and what is under way between them.
struct Trio {
    nodes: Vec<Replication>,
    streams: [[VecDeque<Vec<u8>>; 3]; 3],
    slow: Vec<(usize, StartId)>,
    now: Time,
}

impl Trio {
    fn new() -> Self {
        let nodes = (0..3).map(Self::node).collect();
        let mut trio = Self { nodes, streams: Default::default(), slow: Vec::new(), now: Time::ZERO };
        for (one, other) in [(OLD, NEW), (NEW, THIRD), (THIRD, OLD)] {
            trio.connect(one, other);
        }
        trio
    }

    fn node(at: usize) -> Replication {
        let mut node = Replication::new(start(at), Vec::new(), bounds());
        let members = [OLD, NEW, THIRD].map(|node| (node, Role::Full));
        node.handle_view(Time::ZERO, &view(&members), slot(at));
        node
    }

    fn connect(&mut self, one: usize, other: usize) {
        for (node, peer) in [(one, other), (other, one)] {
            self.streams[node][peer].clear();
            self.nodes[node].handle_peer_connected(self.now, start(peer));
        }
    }

    fn poll(&mut self, node: usize) {
        while let Some(output) = self.nodes[node].poll_output() {
            if let Output::Send { to, message } = output {
                let to = (0..3).find(|peer| start(*peer) == to).unwrap();
                self.streams[node][to].push_back(message);
            } else if let Output::Slow(peer) = output {
                self.slow.push((node, peer));
            }
        }
    }

    /// Delivers one message, if there is one.
    fn deliver(&mut self, from: usize, to: usize) -> bool {
        self.poll(from);
        let Some(message) = self.streams[from][to].pop_front() else { return false };
        self.nodes[to].handle_message(self.now, start(from), &message);
        self.poll(to);
        true
    }

    fn deliver_all(&mut self, from: usize, to: usize) {
        while self.deliver(from, to) {}
    }

    fn settle(&mut self) {
        let pairs = || (0..3).flat_map(|from| (0..3).map(move |to| (from, to))).filter(|(from, to)| from != to);
        while pairs().fold(false, |delivered, (from, to)| self.deliver(from, to) | delivered) {}
    }

    fn put(&mut self, node: usize, id: RecordId, bytes: &[u8]) -> CommitId {
        self.nodes[node].put(self.now, id, Change::Put(bytes.into())).unwrap()
    }

    fn count(&self, node: usize) -> usize {
        self.nodes[node].records(SET).count()
    }
}

#[test]
fn the_answer_to_a_request_that_another_has_answered_takes_nothing_away() {
    let mut trio = Trio::new();
    for set in [BIG, SET] {
        trio.nodes[OLD].acquire(trio.now, set, tenure(1, OLD));
    }
    for key in 0..6 {
        trio.put(OLD, record(BIG, key), &[1; MESSAGE]);
    }
    trio.put(OLD, record(SET, 1), b"one");
    trio.settle();

    // A third node that begins anew asks for both sets; the first fills half a window.
    trio.nodes[THIRD] = Trio::node(THIRD);
    trio.connect(THIRD, NEW);
    trio.connect(THIRD, OLD);
    trio.deliver_all(THIRD, OLD);
    trio.deliver_all(OLD, THIRD);
    trio.deliver_all(THIRD, OLD);
    trio.poll(OLD);

    // The second set moves on, and the third node gets it from the new owner, with a change that the old one lacks.
    trio.nodes[OLD].hand_over(trio.now, SET, start(NEW), tenure(2, NEW), &[]).unwrap();
    trio.deliver_all(OLD, NEW);
    trio.nodes[NEW].acquire(trio.now, SET, tenure(2, NEW));
    while trio.nodes[OLD].epoch(SET).0 != tenure(2, NEW).epoch {
        assert!(trio.deliver(NEW, OLD));
    }
    for _ in 0..2 {
        trio.deliver_all(NEW, THIRD);
        trio.deliver_all(THIRD, NEW);
    }
    let put = trio.put(NEW, record(SET, 2), b"two");
    trio.deliver_all(NEW, THIRD);
    assert_eq!(trio.count(THIRD), 2);

    // Only now does the old owner come to the second request; it has not heard of the change yet.
    for _ in 0..20 {
        trio.deliver_all(OLD, THIRD);
        trio.deliver_all(THIRD, OLD);
    }
    trio.settle();
    assert!(trio.nodes[NEW].committed() >= put);
    assert_eq!((trio.count(OLD), trio.count(NEW), trio.count(THIRD)), (2, 2, 2), "what is committed is everywhere");
}

#[test]
fn a_peer_that_had_nothing_to_acknowledge_is_not_slow_when_another_is_served() {
    let mut trio = Trio::new();
    trio.nodes[OLD].acquire(trio.now, SET, tenure(1, OLD));
    trio.put(OLD, record(SET, 1), b"one");
    trio.settle();
    trio.nodes[NEW] = Trio::node(NEW);
    trio.connect(OLD, NEW);
    trio.deliver(NEW, OLD);
    trio.deliver_all(OLD, THIRD);
    trio.deliver_all(THIRD, OLD);
    trio.deliver_all(OLD, NEW);

    // It asks late for what it lacks.
    trio.now = Time::from_millis(1000);
    trio.poll(NEW);
    while let Some(message) = trio.streams[NEW][OLD].pop_front() {
        trio.nodes[OLD].handle_message(trio.now, start(NEW), &message);
    }
    trio.poll(OLD);
    trio.nodes[OLD].handle_timeout(trio.now);
    trio.poll(OLD);
    assert!(!trio.slow.contains(&(OLD, start(THIRD))), "{:?}", trio.slow);
    trio.settle();
    assert_eq!(trio.count(NEW), 1);
}
