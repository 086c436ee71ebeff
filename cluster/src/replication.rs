//! Replication: every full member holds every record, and says so before anything that hangs on it leaves.
//!
//! [`Replication`] is driven off the real-time thread. Peers are connected by one reliable ordered stream each way; the
//! core names them by their start id.

use std::collections::VecDeque;
use std::sync::Arc;

use wire::{Change, CommitId, Epoch, RecordId, RecordKind, Slot, Tenure, Time, WorkSet};

use crate::identity::StartId;
use crate::view::View;

/// Bounds of replication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Octets sent to one peer and not acknowledged.
    pub window_max: usize,
    /// Octets kept for the slowest peer; who lags further is reported as slow and later starts from a snapshot.
    pub log_max: usize,
    /// Octets in one message.
    pub message_max: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { window_max: 4 << 20, log_max: 64 << 20, message_max: 64 << 10 }
    }
}

/// What replication asks its driver to do, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send on the ordered stream to that peer.
    Send {
        /// The peer.
        to: StartId,
        /// One message, with its length known to the stream's framing.
        message: Vec<u8>,
    },
    /// All up to this one is held by every full member.
    Committed(CommitId),
    /// A record of one of the kinds that were asked for has changed at its owner: put it into the dispatch tables, then
    /// call [`Replication::handle_applied`]. The acknowledgement waits for that.
    Apply {
        /// Which record.
        id: RecordId,
        /// What became of it.
        change: Change,
    },
    /// Planned move: the final state of a set, behind all its records; import it, then tell membership that it is taken.
    HandOver {
        /// The set.
        set: WorkSet,
        /// The tenure that begins.
        tenure: Tenure,
        /// What the old owner's application said.
        state: Vec<u8>,
    },
    /// The learner holds all that this node owns, and commits wait for it: tell membership.
    Counted(StartId),
    /// The peer does not keep up: tell membership.
    Slow(StartId),
    /// Another node holds the set under a newer epoch: stop it at once. Comes before any commit that it concerns.
    Deposed {
        /// The set.
        set: WorkSet,
        /// The newer epoch.
        epoch: Epoch,
    },
}

/// Why a record could not be put.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PutError {
    /// This node does not own the set.
    #[error("this node does not own work set {0}")]
    NotOwner(WorkSet),
}

/// The replication core of one node.
#[derive(Debug)]
pub struct Replication {
    start: StartId,
    applied: Vec<RecordKind>,
    bounds: Bounds,
    outputs: VecDeque<Output>,
}

impl Replication {
    /// Starts empty. Changes of records of the kinds in `applied` come out as [`Output::Apply`].
    #[must_use]
    pub fn new(start: StartId, applied: Vec<RecordKind>, bounds: Bounds) -> Self {
        Self { start, applied, bounds, outputs: VecDeque::new() }
    }

    /// Begins anew under another start id, after [`Left`](crate::membership::Output::Left). Records stay as a base for
    /// the next snapshot; nothing is owned.
    pub fn restart(&mut self, start: StartId) {
        self.start = start;
    }

    /// A view is in force (from [`membership::Output::View`](crate::membership::Output::View)).
    pub fn handle_view(&mut self, now: Time, view: &Arc<View>, own: Slot) {
        let _ = (now, view, own);
    }

    /// The streams to and from `peer` are open.
    pub fn handle_peer_connected(&mut self, now: Time, peer: StartId) {
        let _ = (now, peer);
    }

    /// The streams to and from `peer` are gone; what was on them may be lost.
    pub fn handle_peer_disconnected(&mut self, now: Time, peer: StartId) {
        let _ = (now, peer);
    }

    /// Takes one message of `peer`'s stream.
    pub fn handle_message(&mut self, now: Time, peer: StartId, message: &[u8]) {
        let _ = (now, peer, message);
    }

    /// This node owns `set` under `tenure` from now on (from [`membership::Output::Acquire`](crate::membership::Output::Acquire)):
    /// its copy is published under the new epoch.
    pub fn acquire(&mut self, now: Time, set: WorkSet, tenure: Tenure) {
        let _ = (now, set, tenure);
    }

    /// This node owns `set` no more.
    pub fn release(&mut self, set: WorkSet) {
        let _ = set;
    }

    /// Changes a record of a set that this node owns. The change is committed once every full member holds it.
    ///
    /// # Errors
    /// This node does not own the set.
    pub fn put(&mut self, now: Time, id: RecordId, change: Change) -> Result<CommitId, PutError> {
        let _ = (now, change);
        Err(PutError::NotOwner(id.set))
    }

    /// Planned move, old owner: sends the application's final `state` behind all records of the set, and owns it no more.
    ///
    /// # Errors
    /// This node does not own the set.
    pub fn hand_over(
        &mut self,
        now: Time,
        set: WorkSet,
        to: StartId,
        tenure: Tenure,
        state: &[u8],
    ) -> Result<(), PutError> {
        let _ = (now, to, tenure, state);
        Err(PutError::NotOwner(set))
    }

    /// All [`Output::Apply`] taken so far are in the dispatch tables.
    pub fn handle_applied(&mut self, now: Time) {
        let _ = now;
    }

    /// Takes the next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// All records of `set` that this node holds.
    pub fn records(&self, set: WorkSet) -> impl Iterator<Item = (RecordId, &[u8])> {
        let _ = set;
        std::iter::empty()
    }

    /// Up to where all own changes are committed.
    #[must_use]
    pub const fn committed(&self) -> CommitId {
        CommitId(0)
    }
}
