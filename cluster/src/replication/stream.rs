//! One node's stream: the log that all peers read, and what comes in on theirs.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use wire::{Epoch, RecordKind, Time, WorkSet};

use super::message::{Digest, Entry, Message};
use super::peer::Standing;
use super::{Output, Replication};
use crate::identity::StartId;

/// Numbered entries, oldest first.
#[derive(Debug, Default)]
pub(super) struct Log {
    entries: VecDeque<(Option<StartId>, Box<[u8]>)>,
    /// Entries that were dropped from the front; the first entry left has the next number.
    dropped: u64,
    octets: usize,
}

impl Log {
    /// The number of the newest entry; 0 before the first.
    pub(super) fn last(&self) -> u64 {
        self.dropped.saturating_add(u64::try_from(self.entries.len()).unwrap_or(u64::MAX))
    }

    pub(super) const fn octets(&self) -> usize {
        self.octets
    }

    pub(super) fn append(&mut self, only: Option<StartId>, entry: Box<[u8]>) -> u64 {
        self.octets = self.octets.saturating_add(entry.len());
        self.entries.push_back((only, entry));
        self.last()
    }

    /// Drops entries below number `needed`.
    pub(super) fn trim(&mut self, needed: u64) {
        while self.dropped.saturating_add(1) < needed {
            let Some((_, entry)) = self.entries.pop_front() else { break };
            self.dropped = self.dropped.saturating_add(1);
            self.octets = self.octets.saturating_sub(entry.len());
        }
    }

    /// The number behind which at most `octets` are kept.
    pub(super) fn middle(&self, octets: usize) -> u64 {
        let mut kept = 0_usize;
        let mut number = self.last();
        for (_, entry) in self.entries.iter().rev() {
            kept = kept.saturating_add(entry.len());
            if kept > octets {
                break;
            }
            number = number.saturating_sub(1);
        }
        number
    }

    fn after(&self, number: u64) -> impl Iterator<Item = (u64, Option<StartId>, &[u8])> {
        let skip = usize::try_from(number.saturating_sub(self.dropped)).unwrap_or(usize::MAX);
        let first = self.dropped.max(number).saturating_add(1);
        (first..).zip(self.entries.iter().skip(skip)).map(|(at, (only, entry))| (at, *only, &**entry))
    }
}

impl Replication {
    /// Takes a message that was `size` octets long.
    pub(super) fn on_message(&mut self, now: Time, from: StartId, message: Message, size: usize) {
        match message {
            Message::Hello { received } => self.on_hello(now, from, received),
            Message::Entries { range: _, entries, upto } => {
                let Some(peer) = self.peers.get_mut(&from) else { return };
                if !peer.is_early(&entries) {
                    self.on_entries(from, entries, upto);
                    return;
                }
                peer.early.push_back((entries, upto));
                peer.early_octets = peer.early_octets.saturating_add(size);
                // A peer stops at what is not acknowledged, with its last message beyond the window.
                if peer.early_octets > self.bounds.window_max.saturating_mul(2) {
                    self.drop_peer(now, from);
                }
            }
            Message::Ack { received, held } => {
                let last = self.log.last();
                if let Some(peer) = self.peers.get_mut(&from) {
                    peer.ack(now, received.min(last), held.min(last));
                }
                self.settle(now);
            }
            Message::Want { set, epoch } => {
                if self.sets[set].epoch == epoch
                    && let Some(peer) = self.peers.get_mut(&from)
                {
                    peer.wanted.insert(set);
                }
            }
            Message::Stale { set, epoch } => {
                // From anybody else it may be the epoch of another part.
                if self.peers.get(&from).is_none_or(|peer| peer.standing != Standing::Full) {
                    return;
                }
                let store = &mut self.sets[set];
                if store.owned && store.epoch < epoch {
                    store.owned = false;
                    self.outputs.push_back(Output::Deposed { set, epoch });
                }
                self.forget_handed(set, epoch);
            }
        }
    }

    pub(super) fn on_entries(&mut self, from: StartId, entries: Vec<(u64, Entry)>, upto: u64) {
        for (at, entry) in entries {
            let known = self.peers.get(&from).is_none_or(|peer| at <= peer.received);
            if !known {
                self.on_entry(from, at, entry);
            }
        }
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.received = peer.received.max(upto);
        }
    }

    /// The peer says where it stands: goes on from there, or, if that is not in the log any more, from the digests.
    fn on_hello(&mut self, now: Time, from: StartId, received: u64) {
        let first = self.log.dropped;
        let last = self.log.last();
        let Some(peer) = self.peers.get_mut(&from) else { return };
        peer.greeted = true;
        peer.wanted.clear();
        peer.received_by_peer = received;
        if received > 0 && received >= first && received <= last && peer.published <= last {
            peer.sent = received;
        } else {
            self.start_over(now, from);
        }
    }

    /// Brings a peer up from the digests of all that this node owns.
    pub(super) fn start_over(&mut self, now: Time, from: StartId) {
        let last = self.log.last();
        let Some(peer) = self.peers.get_mut(&from) else { return };
        peer.sent = last;
        peer.received_by_peer = last;
        peer.held = 0;
        peer.wanted.clear();
        if peer.is_counted() {
            peer.standing = Standing::Learner;
        }
        let owned: Vec<WorkSet> = self.sets.iter().filter(|(_, store)| store.owned).map(|(set, _)| set).collect();
        for set in owned {
            self.publish(now, set);
        }
        self.publish_handed(now, from);
        let mark = self.append(now, Some(from), &Entry::Mark);
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.published = mark;
        }
    }

    /// Nobody owns a set between its hand-over and the new owner's publication: whoever misses records of it then finds them
    /// here.
    fn publish_handed(&mut self, now: Time, to: StartId) {
        let mut entries = Vec::new();
        let mut to_repeat = BTreeSet::new();
        for (set, handed) in &self.handed {
            let store = &self.sets[*set];
            entries.push(Entry::Publish { set: *set, epoch: store.epoch, digest: store.digest() });
            if handed.to == to {
                to_repeat.insert(*set);
            }
        }
        for entry in entries {
            self.append(now, Some(to), &entry);
        }
        if let Some(peer) = self.peers.get_mut(&to) {
            peer.to_repeat = to_repeat;
        }
    }

    /// Somebody works on the set under this epoch: the last word on an older one is of no use any more.
    fn forget_handed(&mut self, set: WorkSet, epoch: Epoch) {
        if self.handed.get(&set).is_some_and(|handed| handed.tenure.epoch <= epoch) {
            self.handed.remove(&set);
        }
    }

    fn on_entry(&mut self, from: StartId, at: u64, entry: Entry) {
        match entry {
            Entry::Put { id, epoch, change } => {
                let store = &self.sets[id.set];
                // Under a newer epoch than the one published to us, the set's content is on its way.
                if epoch == store.epoch && !store.owned {
                    self.apply(id, change);
                } else if epoch < store.epoch {
                    self.refuse(from, id.set);
                }
            }
            Entry::Publish { set, epoch, digest } => self.on_publish(from, at, set, epoch, digest),
            Entry::Content { set, epoch, last, records } => {
                let Some(peer) = self.peers.get_mut(&from) else { return };
                peer.staged.extend(records.into_iter().map(|(kind, key, bytes)| ((kind, key), bytes)));
                if last {
                    let records = std::mem::take(&mut peer.staged);
                    self.on_content(from, set, epoch, records);
                }
            }
            Entry::HandOver { set, tenure, state } => {
                let Some(peer) = self.peers.get_mut(&from) else { return };
                if peer.wants.contains_key(&set) {
                    peer.deferred.push((set, tenure, state));
                } else if tenure.epoch > self.sets[set].epoch {
                    self.outputs.push_back(Output::HandOver { set, tenure, state });
                }
            }
            Entry::Mark => {}
        }
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.received = peer.received.max(at);
        }
    }

    fn on_publish(&mut self, from: StartId, at: u64, set: WorkSet, epoch: Epoch, digest: Digest) {
        let store = &mut self.sets[set];
        if epoch < store.epoch || (epoch == store.epoch && store.owned) {
            self.refuse(from, set);
            return;
        }
        if store.owned {
            store.owned = false;
            self.outputs.push_back(Output::Deposed { set, epoch });
        }
        store.epoch = epoch;
        let same = store.digest() == digest;
        self.forget_handed(set, epoch);
        for (start, peer) in &mut self.peers {
            if *start == from && !same {
                peer.wants.entry(set).or_insert(at.saturating_sub(1));
            } else {
                peer.forget_want(set);
            }
        }
        if !same {
            let message = Message::Want { set, epoch }.to_bytes();
            self.outputs.push_back(Output::Send { to: from, message });
        }
    }

    fn on_content(
        &mut self,
        from: StartId,
        set: WorkSet,
        epoch: Epoch,
        records: BTreeMap<(RecordKind, u128), Box<[u8]>>,
    ) {
        // An answer to what is asked for no more is older than what has come from the new owner since, whatever it says.
        let is_wanted = self.peers.get(&from).is_some_and(|peer| peer.wants.contains_key(&set));
        let store = &mut self.sets[set];
        if store.epoch != epoch || store.owned || !is_wanted {
            return;
        }
        for (id, change) in store.replace(set, records) {
            if self.applied.contains(&id.kind) {
                self.apply_pending = true;
                self.outputs.push_back(Output::Apply { id, change });
            }
        }
        let Some(peer) = self.peers.get_mut(&from) else { return };
        peer.wants.remove(&set);
        let ready: Vec<_> = peer.deferred.extract_if(.., |(deferred, _, _)| *deferred == set).collect();
        for (set, tenure, state) in ready {
            if tenure.epoch > self.sets[set].epoch {
                self.outputs.push_back(Output::HandOver { set, tenure, state });
            }
        }
    }

    fn refuse(&mut self, to: StartId, set: WorkSet) {
        let message = Message::Stale { set, epoch: self.sets[set].epoch }.to_bytes();
        self.outputs.push_back(Output::Send { to, message });
    }

    /// Packs the next message of entries or the next acknowledgement.
    pub(super) fn pack(&mut self) -> Option<Output> {
        self.serve_wants();
        let last = self.log.last();
        for (start, peer) in &mut self.peers {
            if !peer.connected {
                continue;
            }
            if peer.is_fed() && peer.sent < last && peer.flying < self.bounds.window_max {
                let mut size = 0_usize;
                let mut batch: Vec<(u64, &[u8])> = Vec::new();
                for (at, only, entry) in self.log.after(peer.sent) {
                    if size >= self.bounds.message_max {
                        break;
                    }
                    peer.sent = at;
                    if only.is_none_or(|only| only == *start) {
                        size = size.saturating_add(entry.len()).saturating_add(12);
                        batch.push((at, entry));
                    }
                }
                let message = Message::entries(0, batch.into_iter(), peer.sent);
                peer.in_flight.push_back((peer.sent, message.len()));
                peer.flying = peer.flying.saturating_add(message.len());
                return Some(Output::Send { to: *start, message });
            }
            let ack = (peer.received, peer.holds());
            if ack != peer.acked && !self.apply_pending {
                peer.acked = ack;
                let message = Message::Ack { received: ack.0, held: ack.1 }.to_bytes();
                return Some(Output::Send { to: *start, message });
            }
        }
        None
    }

    /// Answers requests for whole sets and says hand-overs again, one at a time for each peer, so that they never fill the log.
    fn serve_wants(&mut self) {
        if self.peers.values().all(|peer| peer.wanted.is_empty() && peer.to_repeat.is_empty()) {
            return;
        }
        let (mut contents, mut last_words) = (Vec::new(), Vec::new());
        let last = self.log.last();
        for (start, peer) in &mut self.peers {
            let has_room = peer.sent >= last && peer.flying < self.bounds.window_max / 2;
            if !peer.connected || !peer.is_fed() || !has_room {
                continue;
            }
            if let Some(set) = peer.wanted.pop_first() {
                contents.push((*start, set));
            } else if let Some(set) = peer.to_repeat.pop_first() {
                last_words.push((*start, set));
            }
        }
        for (start, set) in contents {
            self.append_content(start, set);
        }
        for (start, set) in last_words {
            if let Some(handed) = self.handed.get(&set).filter(|handed| handed.to == start) {
                let state = handed.state.clone();
                let last_word = Entry::HandOver { set, tenure: handed.tenure, state };
                self.append(self.now, Some(start), &last_word);
            }
        }
    }

    fn append_content(&mut self, to: StartId, set: WorkSet) {
        let store = &self.sets[set];
        let epoch = store.epoch;
        let mut chunks = Vec::new();
        let mut records = Vec::new();
        let mut size = 0_usize;
        for (kind, key, bytes) in store.iter() {
            if size >= self.bounds.message_max {
                chunks.push(Entry::Content { set, epoch, last: false, records: std::mem::take(&mut records) });
                size = 0;
            }
            size = size.saturating_add(bytes.len()).saturating_add(22);
            records.push((kind, key, bytes.into()));
        }
        chunks.push(Entry::Content { set, epoch, last: true, records });
        for chunk in chunks {
            self.append(self.now, Some(to), &chunk);
        }
    }
}
