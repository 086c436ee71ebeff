//! A planned move whose session breaks: the old owner's last word comes nevertheless, behind the records, and once.

use std::collections::VecDeque;
use std::sync::Arc;

use cluster::replication::{Bounds, Output};
use cluster::{Addresses, Identity, Member, Name, Replication, Role, StartId, View, ViewId};
use wire::{Change, Epoch, RecordId, RecordKind, Slot, Tenure, Time, WorkSet};

const OLD: usize = 0;
const NEW: usize = 1;
const SET: WorkSet = WorkSet::from_low_bits(7);
const RECORD: RecordId = RecordId { set: SET, kind: RecordKind(1), key: 1 };

fn start(node: usize) -> StartId {
    StartId(1 + node as u64)
}

fn tenure(count: u32, node: usize) -> Tenure {
    let slot = |number| Slot::new(number).unwrap();
    Tenure { epoch: Epoch { count, master: slot(0) }, slot: slot(u8::try_from(node).unwrap()) }
}

/// Two full members and what is under way between them.
struct Pair {
    nodes: [Replication; 2],
    streams: [VecDeque<Vec<u8>>; 2],
    /// The new owner's records of the set at each hand-over.
    handed: Vec<usize>,
}

impl Pair {
    fn new() -> Self {
        let member = |node: usize| {
            let number = u8::try_from(node).unwrap();
            let name = Name::new(&format!("n{node}")).unwrap();
            let identity = Identity { name, start: start(node), addresses: Addresses::default(), weight: 1 };
            Member { slot: Slot::new(number).unwrap(), role: Role::Full, identity }
        };
        let members = vec![member(OLD), member(NEW)];
        let view = Arc::new(View::new(ViewId::default(), 1, 0, Slot::default(), members, Vec::new()).unwrap());
        let node = |at: usize| {
            let mut node = Replication::new(start(at), Vec::new(), Bounds::default());
            node.handle_view(Time::ZERO, &view, Slot::new(u8::try_from(at).unwrap()).unwrap());
            node
        };
        let mut pair = Self { nodes: [node(OLD), node(NEW)], streams: Default::default(), handed: Vec::new() };
        pair.connect();
        pair
    }

    fn connect(&mut self) {
        for node in [OLD, NEW] {
            self.nodes[node].handle_peer_connected(Time::ZERO, start(1 - node));
        }
    }

    fn break_session(&mut self) {
        for node in [OLD, NEW] {
            self.take_outputs(node);
            self.nodes[node].handle_peer_disconnected(Time::ZERO, start(1 - node));
            self.streams[node].clear();
        }
    }

    fn take_outputs(&mut self, node: usize) {
        while let Some(output) = self.nodes[node].poll_output() {
            if let Output::Send { message, .. } = output {
                self.streams[node].push_back(message);
            } else if let Output::HandOver { set, tenure, state } = output {
                assert_eq!((node, set, &*state), (NEW, SET, &b"final"[..]));
                self.handed.push(self.nodes[NEW].records(SET).count());
                self.nodes[NEW].acquire(Time::ZERO, set, tenure);
            }
        }
    }

    /// Delivers up to so many messages, in turn; false if there were fewer.
    fn deliver(&mut self, count: usize) -> bool {
        for turn in 0..count {
            self.take_outputs(OLD);
            self.take_outputs(NEW);
            let from = if self.streams[turn % 2].is_empty() { 1 - turn % 2 } else { turn % 2 };
            let Some(message) = self.streams[from].pop_front() else { return false };
            self.nodes[1 - from].handle_message(Time::ZERO, start(from), &message);
        }
        true
    }
}

/// Breaks the session after `breaks` messages each, the hand-over being said after `said_after` messages.
fn move_with_breaks(said_after: usize, breaks: &[usize]) {
    let mut pair = Pair::new();
    pair.nodes[OLD].acquire(Time::ZERO, SET, tenure(1, OLD));
    pair.nodes[OLD].put(Time::ZERO, RECORD, Change::Put(b"state".to_vec().into())).unwrap();
    pair.deliver(said_after);
    pair.nodes[OLD].hand_over(Time::ZERO, SET, start(NEW), tenure(2, NEW), b"final").unwrap();
    for after in breaks {
        pair.deliver(*after);
        pair.break_session();
        pair.connect();
    }
    while pair.deliver(1) {}
    assert_eq!(pair.handed, [1], "said after {said_after} messages, sessions of {breaks:?}");
    assert_eq!(pair.nodes[OLD].epoch(SET), (tenure(2, NEW).epoch, false));

    pair.break_session();
    pair.connect();
    while pair.deliver(1) {}
    assert_eq!(pair.handed.len(), 1, "what has moved is not handed over again");
}

#[test]
fn a_hand_over_survives_its_session_wherever_that_breaks() {
    for said_after in 0..12 {
        for first in 0..12 {
            move_with_breaks(said_after, &[first]);
            for second in 0..12 {
                move_with_breaks(said_after, &[first, second]);
            }
        }
    }
}
