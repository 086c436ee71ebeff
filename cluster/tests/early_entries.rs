//! What a node says of its sets counts only where it is a full member: a node that two parts let in at the same time works
//! in one of them, and the other must not give its sets up for that; one whose view is only ahead is heard once ours follows.

mod replicas;

use std::collections::VecDeque;

use cluster::replication::{Bounds, Output};
use cluster::{Replication, Role};
use wire::{Change, RecordId, RecordKind, Time, WorkSet};

use replicas::{slot, start, tenure, view};

const HERE: usize = 0;
const JOINER: usize = 1;
const SET: WorkSet = WorkSet::from_low_bits(7);
const RECORD: RecordId = RecordId { set: SET, kind: RecordKind(1), key: 1 };

/// This node, the joiner, and what is under way to each.
struct Pair {
    nodes: [Replication; 2],
    streams: [VecDeque<Vec<u8>>; 2],
    deposed: [usize; 2],
    slow: [usize; 2],
}

impl Pair {
    /// Both full members in the joiner's view; here it still learns.
    fn new(window_of_joiner: usize) -> Self {
        let windows = [Bounds::default().window_max, window_of_joiner];
        let bounds = windows.map(|window_max| Bounds { window_max, ..Bounds::default() });
        let nodes = [HERE, JOINER].map(|at| Replication::new(start(at), Vec::new(), bounds[at].clone()));
        let mut pair = Self { nodes, streams: Default::default(), deposed: [0; 2], slow: [0; 2] };
        pair.enter(HERE, Role::Learner);
        pair.enter(JOINER, Role::Full);
        pair.connect();
        pair
    }

    fn enter(&mut self, at: usize, joiner: Role) {
        let view = view(&[(HERE, Role::Full), (JOINER, joiner)]);
        self.nodes[at].handle_view(Time::ZERO, &view, slot(at));
    }

    fn connect(&mut self) {
        for node in [HERE, JOINER] {
            self.nodes[node].handle_peer_connected(Time::ZERO, start(1 - node));
        }
    }

    fn break_session(&mut self) {
        for node in [HERE, JOINER] {
            self.nodes[node].handle_peer_disconnected(Time::ZERO, start(1 - node));
            self.streams[node].clear();
        }
    }

    fn deliver(&mut self) {
        loop {
            for node in [HERE, JOINER] {
                while let Some(output) = self.nodes[node].poll_output() {
                    if let Output::Send { message, .. } = output {
                        self.streams[node].push_back(message);
                    } else if let Output::Deposed { .. } = output {
                        self.deposed[node] += 1;
                    } else if let Output::Slow(_) = output {
                        self.slow[node] += 1;
                    }
                }
            }
            let Some(from) = [HERE, JOINER].into_iter().find(|node| !self.streams[*node].is_empty()) else { return };
            let message = self.streams[from].pop_front().unwrap();
            self.nodes[1 - from].handle_message(Time::ZERO, start(from), &message);
        }
    }

    fn owner_put(&mut self, node: usize, count: u32, bytes: &[u8]) {
        self.nodes[node].acquire(Time::ZERO, SET, tenure(count, node));
        self.nodes[node].put(Time::ZERO, RECORD, Change::Put(bytes.into())).unwrap();
    }

    fn copy(&self, node: usize) -> Vec<Vec<u8>> {
        self.nodes[node].records(SET).map(|(_, bytes)| bytes.to_vec()).collect()
    }
}

#[test]
fn what_a_learner_owns_in_another_part_deposes_nobody_here() {
    let mut pair = Pair::new(Bounds::default().window_max);
    pair.owner_put(HERE, 5, b"here");
    pair.owner_put(JOINER, 9, b"there");
    pair.deliver();
    assert_eq!(pair.nodes[HERE].epoch(SET), (tenure(5, HERE).epoch, true));
    // It refuses our older epoch, and that is the other part's word, too.
    pair.nodes[HERE].put(Time::ZERO, RECORD, Change::Put(b"here again".to_vec().into())).unwrap();
    pair.deliver();
    assert_eq!(pair.nodes[HERE].epoch(SET), (tenure(5, HERE).epoch, true));
    assert_eq!((pair.deposed[HERE], pair.copy(HERE)), (0, vec![b"here again".to_vec()]));

    // It is put out of our view: nothing of it comes up when it joins anew.
    pair.nodes[HERE].handle_view(Time::ZERO, &view(&[(HERE, Role::Full)]), slot(HERE));
    pair.enter(HERE, Role::Learner);
    pair.enter(HERE, Role::Full);
    assert_eq!((pair.deposed[HERE], pair.nodes[HERE].epoch(SET).1), (0, true));
}

#[test]
fn a_member_whose_view_is_ahead_is_heard_once_ours_follows() {
    let mut pair = Pair::new(Bounds::default().window_max);
    pair.owner_put(HERE, 5, b"old");
    pair.deliver();
    pair.owner_put(JOINER, 6, b"new");
    let committed = pair.nodes[JOINER].committed();
    pair.deliver();
    assert_eq!(pair.nodes[JOINER].committed(), committed, "nothing is acknowledged that may be forgotten");

    for breaks in 0..2 {
        if breaks > 0 {
            pair.break_session();
            pair.connect();
            pair.deliver();
        }
        assert_eq!((pair.deposed[HERE], pair.nodes[HERE].epoch(SET).1), (0, true));
    }
    pair.enter(HERE, Role::Full);
    pair.deliver();
    assert_eq!((pair.deposed[HERE], pair.nodes[HERE].epoch(SET)), (1, (tenure(6, JOINER).epoch, false)));
    assert_eq!(pair.copy(HERE), [b"new"]);
    assert!(pair.nodes[JOINER].committed() > committed);
}

/// Puts four windows full of changes at the joiner, which may have so many octets under way.
fn flooded(window_of_joiner: usize) -> Pair {
    let mut pair = Pair::new(window_of_joiner);
    let bounds = Bounds::default();
    pair.owner_put(JOINER, 6, b"first");
    let (mut sent, chunk) = (0, vec![7; bounds.message_max]);
    while sent < bounds.window_max * 4 {
        pair.nodes[JOINER].put(Time::ZERO, RECORD, Change::Put(chunk.clone().into())).unwrap();
        sent += chunk.len();
        pair.deliver();
    }
    pair
}

#[test]
fn a_member_that_stops_at_its_window_is_not_slow() {
    let mut pair = flooded(Bounds::default().window_max);
    assert_eq!(pair.slow[HERE], 0);
    pair.enter(HERE, Role::Full);
    pair.deliver();
    assert_eq!(pair.copy(HERE), pair.copy(JOINER));
}

#[test]
fn one_that_goes_on_beyond_what_may_wait_must_join_anew() {
    let mut pair = flooded(Bounds::default().window_max * 8);
    assert_eq!(pair.slow[HERE], 1);
    pair.enter(HERE, Role::Full);
    assert!(pair.copy(HERE).is_empty(), "nothing of it was kept");
}
