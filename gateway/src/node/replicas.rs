//! The seam between what is stored and what may leave: everything that waits for a commit, in order.

use std::collections::{BTreeMap, VecDeque};

use cluster::StartId;
use ike::Path;
use ike::RequestId;
use std::net::IpAddr;
use wire::{CommitId, Spi, WorkSet};

use crate::datapath::SaPair;

/// What leaves only after a commit.
#[derive(Debug)]
pub(super) enum Held {
    /// An IKE datagram.
    Transmit {
        /// Its way.
        path: Path,
        /// Its octets.
        datagram: Vec<u8>,
    },
    /// A pair of SAs with its first lease.
    Install(Box<SaPair>),
    /// A longer lease.
    Extend {
        /// The pair.
        spi_in: Spi,
        /// Its new edge.
        edge: u64,
    },
    /// An address for a peer of this node.
    Address {
        /// The engine's question.
        request: RequestId,
        /// The address.
        address: IpAddr,
    },
    /// A word to another node's runtime.
    Say {
        /// To whom.
        to: StartId,
        /// What.
        word: Vec<u8>,
    },
}

/// What waits for commits, and the translation of the IKE engine's commit numbers into those of replication.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    held: BTreeMap<CommitId, Vec<(WorkSet, Held)>>,
    /// Numbers of the IKE engine with those that replication gave, both rising, and the set whose record was changed.
    numbers: VecDeque<(CommitId, CommitId, WorkSet)>,
    /// The highest number of the IKE engine whose change is committed.
    engine_committed: CommitId,
    committed: CommitId,
}

impl Waiting {
    /// Notes under which number replication took a change of the IKE engine.
    pub(super) fn note(&mut self, engine: CommitId, replication: CommitId, set: WorkSet) {
        self.numbers.push_back((engine, replication, set));
    }

    /// Translates, and tells which set was changed; `None` if that change is committed already.
    pub(super) fn translate(&self, engine: CommitId) -> Option<(CommitId, WorkSet)> {
        if engine <= self.engine_committed {
            return None;
        }
        let at = self.numbers.partition_point(|(known, ..)| *known < engine);
        self.numbers.get(at).map(|(_, replication, set)| (*replication, *set))
    }

    /// Holds something of `set` until `commit`; gives it back if that has happened.
    pub(super) fn hold(&mut self, commit: CommitId, set: WorkSet, what: Held) -> Option<Held> {
        if commit <= self.committed {
            return Some(what);
        }
        self.held.entry(commit).or_default().push((set, what));
        None
    }

    /// All up to `commit` is held by every full member: returns what may leave now, in order.
    pub(super) fn release(&mut self, commit: CommitId) -> Vec<Held> {
        self.committed = self.committed.max(commit);
        let later = self.held.split_off(&CommitId(commit.0.saturating_add(1)));
        let due = std::mem::replace(&mut self.held, later);
        while let Some((engine, ..)) = self.numbers.front().filter(|(_, replication, _)| *replication <= commit) {
            self.engine_committed = *engine;
            self.numbers.pop_front();
        }
        due.into_values().flatten().map(|(_, held)| held).collect()
    }

    /// Drops what waits for a set that is lost: a commit of its records will be told, but never happens.
    pub(super) fn drop_set(&mut self, set: WorkSet) {
        for held in self.held.values_mut() {
            held.retain(|(home, _)| *home != set);
        }
        self.held.retain(|_, held| !held.is_empty());
    }

    /// How much waits.
    pub(super) fn len(&self) -> usize {
        self.held.values().map(Vec::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOME: WorkSet = WorkSet::from_low_bits(7);
    const OTHER: WorkSet = WorkSet::from_low_bits(8);

    fn extend(edge: u64) -> Held {
        Held::Extend { spi_in: Spi(0x1000), edge }
    }

    fn edges(held: Vec<Held>) -> Vec<u64> {
        let edge_of = |held| match held {
            Held::Extend { edge, .. } => edge,
            Held::Transmit { .. } | Held::Install(_) | Held::Address { .. } | Held::Say { .. } => 0,
        };
        held.into_iter().map(edge_of).collect()
    }

    #[test]
    fn what_waits_leaves_in_order_and_not_before_its_commit() {
        let mut waiting = Waiting::default();
        for (commit, edge) in [(2, 20), (1, 10), (2, 21), (3, 30)] {
            assert!(waiting.hold(CommitId(commit), HOME, extend(edge)).is_none());
        }
        assert_eq!(edges(waiting.release(CommitId(2))), [10, 20, 21]);
        assert!(waiting.hold(CommitId(2), HOME, extend(22)).is_some(), "committed already");
        assert_eq!(waiting.len(), 1);
        assert_eq!(edges(waiting.release(CommitId(9))), [30]);
    }

    #[test]
    fn what_waits_for_a_lost_set_never_leaves() {
        let mut waiting = Waiting::default();
        waiting.hold(CommitId(1), HOME, extend(10));
        waiting.hold(CommitId(1), OTHER, extend(11));
        waiting.drop_set(HOME);
        assert_eq!(edges(waiting.release(CommitId(1))), [11]);
    }

    #[test]
    fn the_engines_numbers_lead_to_those_of_replication() {
        let mut waiting = Waiting::default();
        waiting.note(CommitId(1), CommitId(11), HOME);
        waiting.note(CommitId(2), CommitId(15), OTHER);
        assert_eq!(waiting.translate(CommitId(1)), Some((CommitId(11), HOME)));
        assert_eq!(waiting.translate(CommitId(2)), Some((CommitId(15), OTHER)));
        waiting.release(CommitId(11));
        assert_eq!(waiting.translate(CommitId(1)), None);
        assert_eq!(waiting.translate(CommitId(2)), Some((CommitId(15), OTHER)));
        waiting.release(CommitId(15));
        assert_eq!(waiting.translate(CommitId(2)), None);
    }
}
