//! A planned move whose session breaks: the old owner's last word comes nevertheless, behind the records, and the copies of
//! all three nodes end alike.

mod replicas;

use std::collections::VecDeque;

use cluster::replication::{Bounds, Output};
use cluster::{Replication, Role};
use wire::{Change, RecordId, RecordKind, Time, WorkSet};

use replicas::{slot, start, tenure, view};

const OLD: usize = 0;
const NEW: usize = 1;
/// It owns nothing and holds a copy.
const THIRD: usize = 2;
const NODES: usize = 3;
const SET: WorkSet = WorkSet::from_low_bits(7);

fn record(key: u128) -> RecordId {
    RecordId { set: SET, kind: RecordKind(1), key }
}

/// Three full members and what is under way between them.
struct Cluster {
    nodes: [Replication; NODES],
    /// From, to.
    streams: [[VecDeque<Vec<u8>>; NODES]; NODES],
    /// The new owner's copy of the set at each hand-over.
    handed: Vec<Vec<(u128, Vec<u8>)>>,
    /// Messages that come before the new owner begins to work, once it was handed the set.
    delay: usize,
    begins_in: Option<usize>,
    turn: usize,
}

impl Cluster {
    fn new(delay: usize) -> Self {
        let view = view(&[OLD, NEW, THIRD].map(|node| (node, Role::Full)));
        let node = |at: usize| {
            let mut node = Replication::new(start(at), Vec::new(), Bounds::default());
            node.handle_view(Time::ZERO, &view, slot(at));
            node
        };
        let nodes = std::array::from_fn(node);
        let (streams, handed) = (Default::default(), Vec::new());
        let mut cluster = Self { nodes, streams, handed, delay, begins_in: None, turn: 0 };
        for (a, b) in [(OLD, NEW), (OLD, THIRD), (NEW, THIRD)] {
            cluster.connect(a, b);
        }
        cluster
    }

    fn connect(&mut self, a: usize, b: usize) {
        for (node, peer) in [(a, b), (b, a)] {
            self.nodes[node].handle_peer_connected(Time::ZERO, start(peer));
        }
    }

    /// Breaks a session, with what is under way on it, and makes a new one.
    fn break_session(&mut self, a: usize, b: usize) {
        self.take_outputs();
        for (node, peer) in [(a, b), (b, a)] {
            self.nodes[node].handle_peer_disconnected(Time::ZERO, start(peer));
            self.streams[node][peer].clear();
        }
        self.connect(a, b);
    }

    fn take_outputs(&mut self) {
        for node in 0..NODES {
            while let Some(output) = self.nodes[node].poll_output() {
                if let Output::Send { to, message } = output {
                    let to = (0..NODES).find(|peer| start(*peer) == to).unwrap();
                    self.streams[node][to].push_back(message);
                } else if let Output::HandOver { set, tenure: next, state } = output {
                    assert_eq!((node, set, next, &*state), (NEW, SET, tenure(2, NEW), &b"final"[..]));
                    self.handed.push(self.copy(NEW));
                    self.begins_in.get_or_insert(self.delay);
                }
            }
        }
    }

    fn copy(&self, node: usize) -> Vec<(u128, Vec<u8>)> {
        self.nodes[node].records(SET).map(|(id, bytes)| (id.key, bytes.to_vec())).collect()
    }

    /// The new owner begins to work when its time has come, or nothing else is left to do.
    fn begin(&mut self, idle: bool) -> bool {
        let due = self.begins_in.is_some_and(|left| left == 0 || idle);
        if due && self.nodes[NEW].epoch(SET) != (tenure(2, NEW).epoch, true) {
            self.nodes[NEW].acquire(Time::ZERO, SET, tenure(2, NEW));
            return true;
        }
        false
    }

    /// Delivers up to so many messages, the streams in turn; false if there were fewer.
    fn deliver(&mut self, count: usize) -> bool {
        for _ in 0..count {
            self.begin(false);
            self.take_outputs();
            let pairs = (0..NODES * NODES).map(|ahead| (self.turn + ahead) % (NODES * NODES));
            let ready = pairs.into_iter().find(|pair| !self.streams[pair / NODES][pair % NODES].is_empty());
            let Some(pair) = ready else { return self.begin(true) };
            self.turn = pair + 1;
            let (from, to) = (pair / NODES, pair % NODES);
            let message = self.streams[from][to].pop_front().unwrap();
            self.nodes[to].handle_message(Time::ZERO, start(from), &message);
            self.begins_in = self.begins_in.map(|left| left.saturating_sub(1));
        }
        true
    }

    fn deliver_all(&mut self) {
        while self.deliver(1) {}
    }

    fn put(&mut self, node: usize, key: u128, bytes: &[u8]) {
        self.nodes[node].put(Time::ZERO, record(key), Change::Put(bytes.into())).unwrap();
    }
}

/// Breaks the session of the move after each so many messages, the hand-over being said after `said_after` messages and
/// the new owner beginning `delay` later.
fn move_with_breaks(said_after: usize, delay: usize, breaks: &[usize]) {
    let what = format!("said after {said_after} messages, begun {delay} later, sessions of {breaks:?}");
    let mut cluster = Cluster::new(delay);
    cluster.nodes[OLD].acquire(Time::ZERO, SET, tenure(1, OLD));
    for key in 1..=3 {
        cluster.put(OLD, key, b"first");
    }
    cluster.deliver(said_after);
    cluster.put(OLD, 1, b"second");
    cluster.nodes[OLD].put(Time::ZERO, record(2), Change::Delete).unwrap();
    let last = cluster.copy(OLD);
    cluster.nodes[OLD].hand_over(Time::ZERO, SET, start(NEW), tenure(2, NEW), b"final").unwrap();
    for after in breaks {
        cluster.deliver(*after);
        cluster.break_session(OLD, NEW);
    }
    cluster.deliver_all();
    // It comes again if the session broke before the old owner heard that the new one works.
    assert!((1..=1 + breaks.len()).contains(&cluster.handed.len()), "{what}: handed {} times", cluster.handed.len());
    for copy in &cluster.handed {
        assert_eq!(*copy, last, "{what}: handed over behind all records");
    }
    for node in 0..NODES {
        assert_eq!(cluster.nodes[node].epoch(SET), (tenure(2, NEW).epoch, node == NEW), "{what}");
        assert_eq!(cluster.copy(node), last, "{what}: the copy of node {node}");
    }

    let handed = cluster.handed.len();
    cluster.put(NEW, 3, b"third");
    cluster.break_session(OLD, NEW);
    cluster.break_session(NEW, THIRD);
    cluster.deliver_all();
    assert_eq!(cluster.handed.len(), handed, "{what}: what has moved is not handed over again");
    let last = vec![(1, b"second".to_vec()), (3, b"third".to_vec())];
    for node in 0..NODES {
        assert_eq!(cluster.copy(node), last, "{what}: the copy of node {node} at the end");
    }
}

#[test]
fn a_hand_over_survives_its_session_wherever_that_breaks() {
    for said_after in 0..24 {
        for first in 0..24 {
            move_with_breaks(said_after, 0, &[first]);
            for second in 0..24 {
                move_with_breaks(said_after, 0, &[first, second]);
            }
        }
    }
}

#[test]
fn a_hand_over_survives_breaks_while_the_new_owner_has_not_begun_yet() {
    for delay in [1, 2, 5, 12, usize::MAX] {
        for said_after in 0..16 {
            for first in 0..16 {
                for second in 0..16 {
                    move_with_breaks(said_after, delay, &[first, second]);
                }
            }
        }
    }
}
