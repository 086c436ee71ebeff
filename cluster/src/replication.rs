//! Replication: every full member holds every record, and says so before anything that hangs on it leaves.
//!
//! [`Replication`] is driven off the real-time thread. Peers are connected by one reliable ordered stream each way; the
//! core names them by their start id. A node's stream is one numbered list of entries for all peers; a number is a
//! [`CommitId`]. Who takes over a set publishes its digest: peers whose copy differs ask for the whole set. So a joiner
//! is brought up, and uncommitted rests disappear, by the same step.

mod message;
mod peer;
mod store;
mod stream;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use wire::{Change, CommitId, Epoch, RecordId, RecordKind, Slot, Tenure, Time, WorkSet};

use crate::identity::StartId;
use crate::slots::SetMap;
use crate::view::{Role, View, ViewId};
use message::{Entry, Message};
use peer::Peer;
use store::SetStore;
use stream::Log;

/// Bounds of replication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Octets sent to one peer and not yet received by it.
    pub window_max: usize,
    /// Octets kept for the slowest peer; who lags further is reported as slow and starts again from the digests.
    pub log_max: usize,
    /// Octets in one message, about.
    pub message_max: usize,
    /// How long a full member may leave entries unacknowledged before it is reported as slow.
    pub stall_max: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { window_max: 4 << 20, log_max: 64 << 20, message_max: 64 << 10, stall_max: Duration::from_millis(500) }
    }
}

/// What replication asks its driver to do, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send on the ordered stream to that peer.
    Send {
        /// The peer.
        to: StartId,
        /// One message; the stream's framing carries its length.
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
    /// The peer does not keep up, or sends what cannot be read: tell membership, which makes it join anew.
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

/// The last word on a set in a planned move. A session that breaks may lose it, and nobody owns the set then.
#[derive(Debug)]
struct Handed {
    to: StartId,
    tenure: Tenure,
    state: Vec<u8>,
}

/// The replication core of one node.
#[derive(Debug)]
pub struct Replication {
    start: StartId,
    applied: Vec<RecordKind>,
    bounds: Bounds,
    view: Option<Arc<View>>,
    own: Slot,
    sets: SetMap<SetStore>,
    log: Log,
    committed: u64,
    peers: BTreeMap<StartId, Peer>,
    /// Sets that this node has handed over, until somebody works on them.
    handed: BTreeMap<WorkSet, Handed>,
    apply_pending: bool,
    /// Something has happened since the last time when there was nothing to pack.
    pack_due: bool,
    /// When that was.
    now: Time,
    outputs: VecDeque<Output>,
}

impl Replication {
    /// Starts empty. Changes of records of the kinds in `applied` come out as [`Output::Apply`].
    #[must_use]
    pub fn new(start: StartId, applied: Vec<RecordKind>, bounds: Bounds) -> Self {
        Self {
            start,
            applied,
            bounds,
            view: None,
            own: Slot::default(),
            sets: SetMap::default(),
            log: Log::default(),
            committed: 0,
            peers: BTreeMap::new(),
            handed: BTreeMap::new(),
            apply_pending: false,
            pack_due: false,
            now: Time::ZERO,
            outputs: VecDeque::new(),
        }
    }

    /// Begins anew under another start id, after [`Left`](crate::membership::Output::Left). Records stay as a base for
    /// the next snapshot, but count for nothing; nothing is owned; all peers must connect again.
    pub fn restart(&mut self, start: StartId) {
        self.start = start;
        self.view = None;
        self.log = Log::default();
        self.committed = 0;
        self.peers.clear();
        self.handed.clear();
        self.apply_pending = false;
        self.outputs.clear();
        for (_, set) in self.sets.iter_mut() {
            set.owned = false;
            set.epoch = Epoch::default();
        }
    }

    /// The start id under which this node replicates.
    #[must_use]
    pub const fn start(&self) -> StartId {
        self.start
    }

    fn wake(&mut self, now: Time) {
        self.pack_due = true;
        self.now = now;
    }

    /// A view is in force (from [`membership::Output::View`](crate::membership::Output::View)). What waits is judged
    /// anew: a member that is gone is waited for no more.
    pub fn handle_view(&mut self, now: Time, view: &Arc<View>, own: Slot) {
        self.wake(now);
        if view.base() == ViewId::default() {
            self.forget();
        }
        self.view = Some(Arc::clone(view));
        self.own = own;
        self.handed.retain(|_, handed| view.by_start(handed.to).is_some());
        let mut entered = Vec::new();
        let mut early = Vec::new();
        for (start, peer) in &mut self.peers {
            match view.by_start(*start).map(|member| member.role) {
                Some(role) => {
                    if peer.enter(now, role) {
                        entered.push(*start);
                    }
                    early.push((*start, peer.take_early()));
                }
                None => peer.leave(),
            }
        }
        for start in entered {
            self.start_over(now, start);
        }
        for (start, messages) in early {
            for (entries, upto) in messages {
                self.on_entries(start, entries, upto);
            }
        }
        self.settle(now);
    }

    /// A cluster that is founded anew begins without state: its epochs do too, and state from before would be worked on
    /// under epochs that it knows already.
    fn forget(&mut self) {
        for set in WorkSet::all() {
            for (id, change) in self.sets[set].replace(set, BTreeMap::new()) {
                if self.applied.contains(&id.kind) {
                    self.apply_pending = true;
                    self.outputs.push_back(Output::Apply { id, change });
                }
            }
        }
    }

    /// The streams to and from `peer` are open.
    pub fn handle_peer_connected(&mut self, now: Time, peer: StartId) {
        self.wake(now);
        let role = self.view.as_ref().and_then(|view| view.by_start(peer)).map(|member| member.role);
        let state = self.peers.entry(peer).or_insert_with(|| Peer::new(now));
        state.connect();
        match role {
            Some(role) => {
                state.enter(now, role);
            }
            None => state.leave(),
        }
        let hello = Message::Hello { received: state.received() }.to_bytes();
        self.outputs.push_back(Output::Send { to: peer, message: hello });
    }

    /// The streams to and from `peer` are gone; what was on them may be lost.
    pub fn handle_peer_disconnected(&mut self, now: Time, peer: StartId) {
        if let Some(state) = self.peers.get_mut(&peer) {
            state.disconnect(now);
            if self.view.as_ref().is_none_or(|view| view.by_start(peer).is_none()) {
                self.peers.remove(&peer);
            }
        }
    }

    /// Takes one message of `peer`'s stream. After one that cannot be read nothing more is taken.
    pub fn handle_message(&mut self, now: Time, peer: StartId, message: &[u8]) {
        self.wake(now);
        if !self.peers.get(&peer).is_some_and(|peer| peer.is_connected() && !peer.is_gone()) {
            return;
        }
        match Message::decode(message) {
            Ok(decoded) => self.on_message(now, peer, decoded, message.len()),
            Err(_) => self.drop_peer(now, peer),
        }
    }

    fn drop_peer(&mut self, now: Time, peer: StartId) {
        self.handle_peer_disconnected(now, peer);
        self.outputs.push_back(Output::Slow(peer));
    }

    /// Looks for members that do not keep up.
    pub fn handle_timeout(&mut self, now: Time) {
        self.wake(now);
        self.judge_speed(now);
    }

    fn judge_speed(&mut self, now: Time) {
        let stall = self.bounds.stall_max;
        let last = self.log.last();
        for (start, peer) in &mut self.peers {
            if peer.is_stalled(now, last, stall) {
                self.outputs.push_back(Output::Slow(*start));
            }
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) should be called next; `None` while nothing waits.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        let last = self.log.last();
        self.peers.values().filter_map(|peer| peer.stalls_at(last, self.bounds.stall_max)).min()
    }

    /// This node owns `set` under `tenure` from now on (from
    /// [`membership::Output::Acquire`](crate::membership::Output::Acquire)): its copy is published under the new epoch.
    /// Returns the number of the publication. The copy may hold changes that only the last owner and this node knew of:
    /// nothing that tells of them may leave before that number is committed.
    pub fn acquire(&mut self, now: Time, set: WorkSet, tenure: Tenure) -> CommitId {
        self.wake(now);
        let store = &mut self.sets[set];
        store.epoch = tenure.epoch;
        store.owned = true;
        self.handed.remove(&set);
        for peer in self.peers.values_mut() {
            peer.forget_want(set);
        }
        self.publish(now, set);
        let published = CommitId(self.log.last());
        self.settle(now);
        published
    }

    /// This node owns `set` no more.
    pub fn release(&mut self, set: WorkSet) {
        self.sets[set].owned = false;
        self.handed.remove(&set);
    }

    /// Changes a record of a set that this node owns. The change is committed once every full member holds it.
    ///
    /// # Errors
    /// This node does not own the set.
    pub fn put(&mut self, now: Time, id: RecordId, change: Change) -> Result<CommitId, PutError> {
        self.wake(now);
        let store = &mut self.sets[id.set];
        if !store.owned {
            return Err(PutError::NotOwner(id.set));
        }
        let epoch = store.epoch;
        store.apply(id, change.clone());
        let at = self.append(now, None, &Entry::Put { id, epoch, change });
        self.settle(now);
        Ok(CommitId(at))
    }

    /// Planned move, old owner: sends the application's final `state` behind all records of the set, and owns it no more.
    /// Should the session with `to` break, both are sent again, until `to` has published the set.
    ///
    /// # Errors
    /// This node does not own the set, or owns it anew under an epoch as high.
    pub fn hand_over(
        &mut self,
        now: Time,
        set: WorkSet,
        to: StartId,
        tenure: Tenure,
        state: &[u8],
    ) -> Result<(), PutError> {
        self.wake(now);
        let store = &mut self.sets[set];
        // The move may have ended while the application was stopping, and the set be this node's again.
        if !store.owned || tenure.epoch <= store.epoch {
            return Err(PutError::NotOwner(set));
        }
        store.owned = false;
        let state = state.to_vec();
        self.append(now, Some(to), &Entry::HandOver { set, tenure, state: state.clone() });
        self.handed.insert(set, Handed { to, tenure, state });
        self.settle(now);
        Ok(())
    }

    /// All [`Output::Apply`] taken so far are in the dispatch tables.
    pub fn handle_applied(&mut self, now: Time) {
        self.wake(now);
        self.apply_pending = false;
        self.settle(now);
    }

    /// Takes the next thing to do. Entries and acknowledgements are packed only when everything else was taken, so that
    /// a driver that handles several inputs before it polls sends few, large messages.
    pub fn poll_output(&mut self) -> Option<Output> {
        if let Some(output) = self.outputs.pop_front() {
            return Some(output);
        }
        let packed = if self.pack_due { self.pack() } else { None };
        self.pack_due = packed.is_some();
        packed
    }

    /// All records of `set` that this node holds.
    pub fn records(&self, set: WorkSet) -> impl Iterator<Item = (RecordId, &[u8])> {
        self.sets[set].iter().map(move |(kind, key, bytes)| (RecordId { set, kind, key }, bytes))
    }

    /// Whether this node owns `set`, and under which epoch it knows it.
    #[must_use]
    pub fn epoch(&self, set: WorkSet) -> (Epoch, bool) {
        (self.sets[set].epoch, self.sets[set].owned)
    }

    /// Up to where all own changes are committed.
    #[must_use]
    pub const fn committed(&self) -> CommitId {
        CommitId(self.committed)
    }

    /// Octets that wait in the log for the slowest peer.
    #[must_use]
    pub const fn backlog(&self) -> usize {
        self.log.octets()
    }

    fn apply(&mut self, id: RecordId, change: Change) {
        if self.applied.contains(&id.kind) {
            self.apply_pending = true;
            self.outputs.push_back(Output::Apply { id, change: change.clone() });
        }
        self.sets[id.set].apply(id, change);
    }

    fn publish(&mut self, now: Time, set: WorkSet) {
        let store = &self.sets[set];
        let entry = Entry::Publish { set, epoch: store.epoch, digest: store.digest() };
        self.append(now, None, &entry);
    }

    fn append(&mut self, now: Time, only: Option<StartId>, entry: &Entry) -> u64 {
        let last = self.log.last();
        for peer in self.peers.values_mut() {
            peer.expect(now, last);
        }
        self.log.append(only, entry.to_bytes())
    }

    /// Judges anew what is committed, and who has caught up.
    fn settle(&mut self, now: Time) {
        let Some(view) = self.view.clone() else { return };
        let mut held_by_all = self.log.last();
        for member in view.members() {
            if member.slot == self.own {
                continue;
            }
            let peer = self.peers.get(&member.identity.start);
            let held = peer.map_or(0, Peer::held);
            if member.role == Role::Full || peer.is_some_and(Peer::is_counted) {
                held_by_all = held_by_all.min(held);
            }
        }
        if held_by_all > self.committed {
            self.committed = held_by_all;
            self.outputs.push_back(Output::Committed(CommitId(held_by_all)));
        }
        for (start, peer) in &mut self.peers {
            if peer.catches_up(self.committed) {
                self.outputs.push_back(Output::Counted(*start));
            }
        }
        let in_view = |start: &StartId| view.by_start(*start).is_some();
        let needed = self.peers.iter().filter(|(start, _)| in_view(start)).map(|(_, peer)| peer.needs()).min();
        self.log.trim(needed.unwrap_or(u64::MAX).min(self.committed.saturating_add(1)));
        if self.log.octets() > self.bounds.log_max {
            self.drop_laggards(now);
        }
        self.judge_speed(now);
    }

    /// The log is full: whoever is behind half of it is told slow and, should it come back, starts from the digests.
    fn drop_laggards(&mut self, now: Time) {
        let half = self.log.middle(self.bounds.log_max / 2);
        for (start, peer) in &mut self.peers {
            if peer.needs() < half {
                peer.disconnect(now);
                self.outputs.push_back(Output::Slow(*start));
            }
        }
        self.log.trim(half);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_of_a_move_that_has_ended_gives_nothing_away() {
        let mut node = Replication::new(StartId(1), Vec::new(), Bounds::default());
        let (set, now) = (WorkSet::from_low_bits(7), Time::ZERO);
        let tenure = |count| Tenure { epoch: Epoch { count, master: Slot::default() }, slot: Slot::default() };
        node.acquire(now, set, tenure(1));
        // The new owner, under epoch 2, is gone: the set is ours again.
        node.acquire(now, set, tenure(3));
        assert_eq!(node.hand_over(now, set, StartId(2), tenure(2), &[]), Err(PutError::NotOwner(set)));
        assert_eq!(node.epoch(set), (tenure(3).epoch, true));
        assert_eq!(node.hand_over(now, set, StartId(2), tenure(4), &[]), Ok(()));
        assert_eq!(node.epoch(set), (tenure(3).epoch, false));
    }
}
