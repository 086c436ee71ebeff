//! The seam between what is stored and what may leave: everything that waits for a commit, in order.

use std::collections::{BTreeMap, VecDeque};

use ike::Path;
use wire::{CommitId, Spi};

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
}

/// What waits for commits, and the translation of the IKE engine's commit numbers into those of replication.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    held: BTreeMap<CommitId, Vec<Held>>,
    /// Numbers of the IKE engine with those that replication gave, both rising.
    numbers: VecDeque<(CommitId, CommitId)>,
    /// The highest number of the IKE engine whose change is committed.
    engine_committed: CommitId,
    committed: CommitId,
}

impl Waiting {
    /// Notes under which number replication took a change of the IKE engine.
    pub(super) fn note(&mut self, engine: CommitId, replication: CommitId) {
        self.numbers.push_back((engine, replication));
    }

    /// Translates; `None` if that change is committed already.
    pub(super) fn translate(&self, engine: CommitId) -> Option<CommitId> {
        if engine <= self.engine_committed {
            return None;
        }
        let at = self.numbers.partition_point(|(known, _)| *known < engine);
        self.numbers.get(at).map(|(_, replication)| *replication)
    }

    /// Holds something until `commit`; gives it back if that has happened.
    pub(super) fn hold(&mut self, commit: CommitId, what: Held) -> Option<Held> {
        if commit <= self.committed {
            return Some(what);
        }
        self.held.entry(commit).or_default().push(what);
        None
    }

    /// All up to `commit` is held by every full member: returns what may leave now, in order.
    pub(super) fn release(&mut self, commit: CommitId) -> Vec<Held> {
        self.committed = self.committed.max(commit);
        let later = self.held.split_off(&CommitId(commit.0.saturating_add(1)));
        let due = std::mem::replace(&mut self.held, later);
        while let Some((engine, _)) = self.numbers.front().filter(|(_, replication)| *replication <= commit) {
            self.engine_committed = *engine;
            self.numbers.pop_front();
        }
        due.into_values().flatten().collect()
    }

    /// How much waits.
    pub(super) fn len(&self) -> usize {
        self.held.values().map(Vec::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extend(edge: u64) -> Held {
        Held::Extend { spi_in: Spi(0x1000), edge }
    }

    fn edges(held: Vec<Held>) -> Vec<u64> {
        let edge_of = |held| match held {
            Held::Extend { edge, .. } => edge,
            Held::Transmit { .. } | Held::Install(_) => 0,
        };
        held.into_iter().map(edge_of).collect()
    }

    #[test]
    fn what_waits_leaves_in_order_and_not_before_its_commit() {
        let mut waiting = Waiting::default();
        for (commit, edge) in [(2, 20), (1, 10), (2, 21), (3, 30)] {
            assert!(waiting.hold(CommitId(commit), extend(edge)).is_none());
        }
        assert_eq!(edges(waiting.release(CommitId(2))), [10, 20, 21]);
        assert!(waiting.hold(CommitId(2), extend(22)).is_some(), "committed already");
        assert_eq!(waiting.len(), 1);
        assert_eq!(edges(waiting.release(CommitId(9))), [30]);
    }

    #[test]
    fn the_engines_numbers_lead_to_those_of_replication() {
        let mut waiting = Waiting::default();
        waiting.note(CommitId(1), CommitId(11));
        waiting.note(CommitId(2), CommitId(15));
        assert_eq!(waiting.translate(CommitId(1)), Some(CommitId(11)));
        assert_eq!(waiting.translate(CommitId(2)), Some(CommitId(15)));
        waiting.release(CommitId(11));
        assert_eq!((waiting.translate(CommitId(1)), waiting.translate(CommitId(2))), (None, Some(CommitId(15))));
        waiting.release(CommitId(15));
        assert_eq!(waiting.translate(CommitId(2)), None);
    }
}
