//! What a node knows of one peer: how far it has come with this node's stream, and this node with the peer's.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use wire::{RecordKind, Tenure, Time, WorkSet};

use super::message::Entry;
use crate::view::Role;

/// A peer's standing for commits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Standing {
    /// Not in the view yet.
    #[default]
    Outside,
    /// It was in the view and is not any more: under this start id it never will be, and what it still says, perhaps as
    /// the owner of sets in a part of its own, is not for this one.
    Gone,
    /// A learner that still catches up.
    Learner,
    /// A learner that commits wait for, until it holds up to there what was committed without it.
    Joining(u64),
    /// A learner that holds everything, and commits wait for it.
    Counted,
    /// A full member.
    Full,
}

/// How far a peer is with this node's stream, and this node with the peer's.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) connected: bool,
    /// The peer has said where it stands; entries may flow.
    pub(super) greeted: bool,
    pub(super) standing: Standing,
    pub(super) sent: u64,
    pub(super) in_flight: VecDeque<(u64, usize)>,
    pub(super) flying: usize,
    pub(super) received_by_peer: u64,
    pub(super) held: u64,
    /// The last entry of what it needs to hold everything.
    pub(super) published: u64,
    pub(super) wanted: BTreeSet<WorkSet>,
    /// Sets whose hand-over to the peer may be lost: it is said again when there is room.
    pub(super) to_repeat: BTreeSet<WorkSet>,
    pub(super) progress_at: Time,
    pub(super) told_slow: bool,
    pub(super) received: u64,
    pub(super) acked: (u64, u64),
    /// Sets of the peer's that are asked for, and the number before their publication.
    pub(super) wants: BTreeMap<WorkSet, u64>,
    pub(super) staged: BTreeMap<(RecordKind, u128), Box<[u8]>>,
    /// Hand-overs that came before the set was complete.
    pub(super) deferred: Vec<(WorkSet, Tenure, Vec<u8>)>,
    /// Entries on sets from a peer that is no full member in this node's view: its view is ahead of ours, or another
    /// part's, and then what it owns there concerns nobody here. They wait for a view that decides.
    pub(super) early: VecDeque<(Vec<(u64, Entry)>, u64)>,
    pub(super) early_octets: usize,
}

impl Peer {
    pub(super) fn new(now: Time) -> Self {
        Self {
            connected: false,
            greeted: false,
            standing: Standing::Outside,
            sent: 0,
            in_flight: VecDeque::new(),
            flying: 0,
            received_by_peer: 0,
            held: 0,
            published: u64::MAX,
            wanted: BTreeSet::new(),
            to_repeat: BTreeSet::new(),
            progress_at: now,
            told_slow: false,
            received: 0,
            acked: (0, 0),
            wants: BTreeMap::new(),
            staged: BTreeMap::new(),
            deferred: Vec::new(),
            early: VecDeque::new(),
            early_octets: 0,
        }
    }

    /// Takes its place in the view; true if it was outside before and must be brought up.
    pub(super) fn enter(&mut self, now: Time, role: Role) -> bool {
        let before = self.standing;
        self.standing = match (role, before) {
            (Role::Full, _) => Standing::Full,
            (Role::Learner, Standing::Joining(_) | Standing::Counted) => before,
            (Role::Learner, Standing::Outside | Standing::Gone | Standing::Learner | Standing::Full) => {
                Standing::Learner
            }
        };
        if self.standing != before {
            self.progress_at = now;
        }
        matches!(before, Standing::Outside | Standing::Gone) && self.greeted
    }

    pub(super) fn leave(&mut self) {
        if self.standing != Standing::Outside {
            self.standing = Standing::Gone;
            self.forget_early();
        }
    }

    /// Whether what it says of its sets must wait. Nothing is taken before what came first.
    pub(super) fn is_early(&self, entries: &[(u64, Entry)]) -> bool {
        let on_sets = || entries.iter().any(|(_, entry)| !matches!(entry, Entry::Mark));
        self.standing != Standing::Full && (!self.early.is_empty() || on_sets())
    }

    /// What came early, once the peer is a full member.
    pub(super) fn take_early(&mut self) -> VecDeque<(Vec<(u64, Entry)>, u64)> {
        if self.standing != Standing::Full {
            return VecDeque::new();
        }
        self.early_octets = 0;
        std::mem::take(&mut self.early)
    }

    pub(super) fn forget_early(&mut self) {
        self.early.clear();
        self.early_octets = 0;
    }

    pub(super) fn is_gone(&self) -> bool {
        self.standing == Standing::Gone
    }

    pub(super) fn is_connected(&self) -> bool {
        self.connected
    }

    /// Whether entries flow to it.
    pub(super) fn is_fed(&self) -> bool {
        self.greeted && !matches!(self.standing, Standing::Outside | Standing::Gone)
    }

    pub(super) fn is_counted(&self) -> bool {
        matches!(self.standing, Standing::Joining(_) | Standing::Counted)
    }

    pub(super) fn held(&self) -> u64 {
        self.held
    }

    /// The first number that this peer may still need.
    pub(super) fn needs(&self) -> u64 {
        if self.is_fed() { self.received_by_peer.min(self.sent).saturating_add(1) } else { u64::MAX }
    }

    pub(super) fn received(&self) -> u64 {
        self.received
    }

    pub(super) fn connect(&mut self) {
        self.connected = true;
        self.greeted = false;
        self.acked = (0, 0);
        self.forget_early();
        // Half of a set may be lost with the old connection: what it misses is found out anew by the digests.
        if !self.wants.is_empty() || !self.staged.is_empty() {
            self.received = 0;
            self.wants.clear();
            self.staged.clear();
            self.deferred.clear();
        }
    }

    pub(super) fn disconnect(&mut self, now: Time) {
        self.connected = false;
        self.greeted = false;
        self.in_flight.clear();
        self.flying = 0;
        self.progress_at = now;
        self.forget_early();
    }

    /// Somebody else has the set now, and what waited for its records is of no use any more.
    pub(super) fn forget_want(&mut self, set: WorkSet) {
        self.wants.remove(&set);
        self.deferred.retain(|(deferred, _, _)| *deferred != set);
    }

    /// Something new is about to wait for this peer.
    pub(super) fn expect(&mut self, now: Time, last: u64) {
        if self.held >= last {
            self.progress_at = now;
        }
    }

    pub(super) fn stalls_at(&self, last: u64, stall: Duration) -> Option<Time> {
        // Commits wait for a learner that is counted, too, and it may have lost this node alone.
        let waited_for = self.standing == Standing::Full || self.is_counted();
        (waited_for && self.held < last && !self.told_slow).then(|| self.progress_at + stall)
    }

    pub(super) fn is_stalled(&mut self, now: Time, last: u64, stall: Duration) -> bool {
        let stalled = self.stalls_at(last, stall).is_some_and(|at| at <= now);
        self.told_slow |= stalled;
        stalled
    }

    /// Moves a learner on; true once, when commits wait for it and nothing committed is missing there.
    pub(super) fn catches_up(&mut self, committed: u64) -> bool {
        match self.standing {
            Standing::Learner if self.greeted && self.held >= self.published => {
                self.standing = Standing::Joining(committed);
                self.catches_up(committed)
            }
            Standing::Joining(mark) if self.held >= mark => {
                self.standing = Standing::Counted;
                true
            }
            Standing::Outside | Standing::Gone => false,
            Standing::Learner | Standing::Joining(_) | Standing::Counted | Standing::Full => false,
        }
    }

    pub(super) fn ack(&mut self, now: Time, received: u64, held: u64) {
        self.received_by_peer = self.received_by_peer.max(received);
        if held > self.held {
            self.held = held;
            self.progress_at = now;
            self.told_slow = false;
        }
        while let Some((_, size)) = self.in_flight.pop_front_if(|(at, _)| *at <= received) {
            self.flying = self.flying.saturating_sub(size);
        }
    }

    /// What may be acknowledged as held: nothing from the first set on that is still missing.
    pub(super) fn holds(&self) -> u64 {
        self.wants.values().copied().min().unwrap_or(self.received).min(self.received)
    }
}
