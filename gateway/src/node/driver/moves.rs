//! Work sets that come and go, and what other nodes say.

use std::mem;

use cluster::StartId;
use cluster::membership::{How, Probe};
use ike::Reason;
use tracing::info;

use super::moves_in::{HandedOver, MoveIn, Waited};
use super::outputs::prefixes;
use super::*;
use crate::datapath::SetState;
use crate::link::{Event, HAND_OVER_MAX, lan};
use crate::node::tidings::{Cause, tell_note, tell_view};
use crate::replicated::adopt::{Adopted, FinalState};
use crate::replicated::words::{Superseded, Word};

/// A set that the workers have stopped, on its way to another node.
pub(super) struct Stopped {
    set: WorkSet,
    to: StartId,
    tenure: Tenure,
    state: anyhow::Result<SetState>,
}

impl Driver {
    pub(super) fn on_link(&mut self, event: Event) {
        match event {
            Event::View(view) => {
                // Why a view was left is noted next.
                if let Some(current) = &view {
                    tell_view(current);
                    let unproven = current.view.is_unproven().then_some(current.own);
                    self.datapath.set_unproven(unproven);
                }
                self.view = view;
            }
            Event::Acquire { set, tenure, how, records } => self.on_acquire(set, tenure, how, records),
            Event::Release(set) => self.on_release(set),
            Event::Prepare { set, tenure, records, .. } => {
                self.moves_in.announce(boot_time(), set, tenure, records);
                // The old owner must note what it processes before this node begins to queue.
                if let Some(link) = &self.link {
                    link.ask(set, Word::watch(set).to_bytes());
                }
            }
            Event::Stop { set, to, tenure } => self.on_stop(set, to, tenure),
            Event::HandOver { set, tenure, records, state } => self.on_hand_over(set, tenure, records, &state),
            Event::Abandon(set) => {
                self.moves_in.end(set);
                self.datapath.forget_set(set);
            }
            Event::Committed(_, commit) => self.on_committed(commit),
            Event::HandedOn { set, packet } => self.on_handed_on(set, &packet),
            Event::Said { from, word } => self.on_said(from, &word),
            Event::Probe => self.probe(),
            Event::Note(note) => tell_note(self.view.as_ref().map(|current| &*current.view), note),
        }
    }

    /// Looks for another holder of the cluster's addresses; that takes a while, on a thread of its own.
    fn probe(&self) {
        let (Some(link), lans) = (self.link.clone(), self.lans.clone()) else { return };
        drop(tokio::task::spawn_blocking(move || {
            // Who cannot look must not claim that nobody is there.
            let found = lan::probe(&lans).unwrap_or_else(|error| {
                warn!(%error, "cannot look for another holder of the cluster's addresses");
                Probe::Held
            });
            match found {
                Probe::Held => info!("another holder of the cluster's addresses answers: this node waits for it"),
                Probe::Free => info!("nobody else holds the cluster's addresses"),
            }
            link.probed(found);
        }));
    }

    fn on_acquire(&mut self, set: WorkSet, tenure: Tenure, how: How, records: link::Records) {
        let now = boot_time();
        let is_back = self.outgoing.iter().any(|(_, gone)| *gone == set);
        self.outgoing.retain(|(_, gone)| *gone != set);
        if is_back && how != How::Planned {
            // Of what was stopped here, the owner in between may have ended some, and used numbers of the rest.
            self.datapath.forget_set(set);
        }
        let mut moving = self.moves_in.end(set);
        let HandedOver { adopted, digests } = match how {
            How::Planned => moving.as_mut().and_then(|moving| moving.handed_over.take()).unwrap_or_default(),
            How::Founded | How::Unplanned => HandedOver { adopted: Adopted::read(records, None), digests: Vec::new() },
        };
        for (id, error) in &adopted.unreadable {
            error!(set = set.index(), kind = id.kind.0, key = %format!("{:x}", id.key), %error, "a record cannot be read");
        }
        self.tenures.insert(set, tenure);
        let ike = adopted.ike;
        self.tidings.note(now, how.into(), set, ike.len());
        for (id, error) in self.endpoint.adopt_set(now, set, tenure, &mut ike.iter().map(|(id, bytes)| (*id, &**bytes)))
        {
            error!(set = set.index(), key = %format!("{:x}", id.key), %error, "an IKE SA cannot be read");
        }
        self.edges.insert(set, adopted.edges);
        self.adopt_pools(adopted.leases);
        let mut orphans = Vec::new();
        for (initial, start) in adopted.pairs {
            let spi_in = initial.spi_in;
            for prefix in prefixes(&initial) {
                self.carry(set, prefix);
            }
            self.children.insert(spi_in, Child { initial: initial.clone() });
            match how {
                // Installed when it was handed over.
                How::Planned => {}
                How::Founded | How::Unplanned => self.take_over(SaPair { initial, tenure, start }),
            }
            if !self.endpoint.has_child(spi_in) {
                orphans.push(spi_in);
            }
        }
        for spi_in in orphans {
            debug!(%spi_in, reason = Reason::Superseded.label(), "a pair of ESP SAs without an IKE SA is removed");
            self.remove_child(spi_in);
        }
        let missing: Vec<Spi> =
            self.endpoint.children_of(set).filter(|spi_in| !self.children.contains_key(spi_in)).collect();
        for spi_in in missing {
            warn!(%spi_in, "the record of a pair of ESP SAs is lost; its peer is told that it is gone");
            self.endpoint.handle_missing_child(now, spi_in);
        }
        self.remove_provisional(moving.as_ref());
        self.datapath.start_set(set, &digests);
        let (ike, inner) = moving.map(|moving| (moving.ike, moving.inner)).unwrap_or_default();
        for (path, datagram) in ike {
            self.endpoint.handle_datagram(boot_time(), path, set, &datagram);
            self.carry_out();
        }
        for packet in inner {
            // One that finds no room is lost, as on any network.
            self.datapath.handle_inner(&packet);
        }
        self.carry_out();
    }

    /// Removes the pairs that were installed to tell a set's packets, and are none of it any more.
    fn remove_provisional(&self, moving: Option<&MoveIn>) {
        let pairs = moving.into_iter().flat_map(|moving| &moving.pairs);
        for spi_in in pairs.filter(|spi_in| !self.children.contains_key(spi_in)) {
            self.datapath.remove(*spi_in);
        }
    }

    /// Goes on with a pair whose owner is gone, and asks for a new lease at once: the old one counts as used.
    fn take_over(&mut self, pair: SaPair) {
        let spi_in = pair.initial.spi_in;
        let edge = match &pair.start {
            Start::New { edge } | Start::TakeOver { edge, .. } => *edge,
            Start::HandOver(state) => state.edge,
        };
        if let Err(error) = self.datapath.install(&pair) {
            error!(%spi_in, %error, "a pair of ESP SAs cannot be taken over");
            return;
        }
        self.extend_lease(spi_in, edge.saturating_add(LEASE_MIN));
    }

    fn on_release(&mut self, set: WorkSet) {
        self.let_set_go(set, Cause::Lost);
        self.moves_in.end(set);
        self.datapath.forget_set(set);
    }

    /// Stops to work for a set; its packets are the datapath's matter.
    fn let_set_go(&mut self, set: WorkSet, cause: Cause) {
        let sessions = self.endpoint.release_set(set);
        if self.tenures.remove(&set).is_some() {
            self.tidings.note(boot_time(), cause, set, sessions);
        }
        self.waiting.drop_set(set);
        self.children.retain(|spi_in, _| spi_in.work_set() != set);
        self.carried.retain(|(home, _), _| *home != set);
        self.edges.remove(&set);
        self.forget_pools(set);
    }

    fn on_stop(&mut self, set: WorkSet, to: StartId, tenure: Tenure) {
        self.carry_out();
        self.let_set_go(set, Cause::HandedAway);
        // Ordered here: this node may own the set again before the state is known, and then starts it behind this.
        let stopping = self.datapath.stop_set(set);
        let (datapath, answers) = (Arc::clone(&self.datapath), self.answers.clone());
        drop(tokio::task::spawn_blocking(move || {
            let state = datapath.stopped(&stopping);
            // Only a driver that has ended does not take it.
            let _ended = answers.send(Answer::Stopped(Stopped { set, to, tenure, state }));
        }));
    }

    pub(super) fn on_stopped(&mut self, stopped: Stopped) {
        let Stopped { set, to, tenure, state } = stopped;
        let state = state.unwrap_or_else(|error| {
            warn!(set = set.index(), %error, "the exact state is not known: the new owner goes on from the leases");
            SetState::default()
        });
        let mut state = FinalState::from(state).to_bytes();
        if state.len() > HAND_OVER_MAX {
            warn!(set = set.index(), "the exact state is too long to hand over: the new owner goes on from the leases");
            state = FinalState::from(SetState::default()).to_bytes();
        }
        if let Some(link) = &self.link {
            link.hand_over(set, to, tenure, state.into());
        }
        self.outgoing.retain(|(_, gone)| *gone != set);
        // It may be on its way back, or here, by now.
        if !self.moves_in.is_queueing(set) && !self.tenures.contains_key(&set) {
            self.outgoing.push((boot_time() + FORGET_AFTER, set));
        }
    }

    pub(super) fn forget_outgoing(&mut self, now: Time) {
        let due = mem::take(&mut self.outgoing);
        for (at, set) in due {
            if at > now {
                self.outgoing.push((at, set));
            } else if !self.tenures.contains_key(&set) && !self.moves_in.is_queueing(set) {
                self.datapath.forget_set(set);
            }
        }
    }

    /// Asks old owners again that have not said that they watch.
    pub(super) fn ask_again(&mut self, now: Time) {
        let Some(link) = &self.link else { return };
        for set in self.moves_in.poll_asks(now) {
            link.ask(set, Word::watch(set).to_bytes());
        }
    }

    /// A set is to move to the node `from`.
    fn on_watch(&self, from: StartId, set: WorkSet) {
        if self.tenures.contains_key(&set) {
            self.datapath.watch_set(set);
        }
        let (Some(link), datapath) = (self.link.clone(), Arc::clone(&self.datapath)) else { return };
        drop(tokio::task::spawn_blocking(move || {
            // Without an answer the move stays where it is.
            if let Err(error) = datapath.await_workers() {
                warn!(set = set.index(), %error, "the workers do not watch the set");
                return;
            }
            // Of a frame that the new owner queues, this node has the digest, also if it took it much earlier.
            std::thread::sleep(cluster::SKEW);
            link.say(from, Word::watching(set).to_bytes());
        }));
    }

    /// The old owner watches: now this node may queue. The workers must know whose packets those are before the filter
    /// lets them in.
    fn on_watching(&mut self, set: WorkSet) {
        let now = boot_time();
        let Some(moving) = self.moves_in.handle_watching(now, set) else { return };
        self.outgoing.retain(|(_, gone)| *gone != set);
        self.datapath.forget_set(set);
        self.datapath.hold_set(set);
        for (initial, start) in Adopted::read(mem::take(&mut moving.records), None).pairs {
            let pair = SaPair { initial, tenure: moving.tenure, start };
            if self.datapath.install(&pair).is_ok() {
                moving.pairs.push(pair.initial.spi_in);
            }
        }
        self.await_workers(now);
    }

    /// Waits, elsewhere, until the workers have what they were told of sets that move here.
    pub(super) fn await_workers(&mut self, now: Time) {
        for set in self.moves_in.poll_waits(now) {
            let (datapath, answers) = (Arc::clone(&self.datapath), self.answers.clone());
            drop(tokio::task::spawn_blocking(move || {
                let outcome = datapath.await_workers();
                // Only a driver that has ended does not take it.
                let _ended = answers.send(Answer::Waited(set, outcome));
            }));
        }
    }

    pub(super) fn on_waited(&mut self, set: WorkSet, outcome: anyhow::Result<()>) {
        match self.moves_in.handle_waited(boot_time(), set, outcome.is_ok()) {
            Waited::Prepared(tenure) => {
                if let Some(link) = &self.link {
                    link.prepared(set, tenure.epoch);
                }
            }
            Waited::Late => {
                if let Err(error) = outcome {
                    warn!(set = set.index(), %error, "packets cannot be queued yet; the set stays where it is until then");
                }
            }
            Waited::Nothing => {}
        }
    }

    fn on_hand_over(&mut self, set: WorkSet, tenure: Tenure, records: link::Records, state: &[u8]) {
        let Some(moving) = self.moves_in.awaiting(set, tenure) else {
            debug!(set = set.index(), "a hand-over that nobody waits for is left alone");
            return;
        };
        let state = match FinalState::from_bytes(state) {
            Ok(state) => SetState::from(state),
            Err(error) => {
                error!(set = set.index(), %error, "the old owner's final state cannot be read: going on from the leases");
                SetState::default()
            }
        };
        let digests = state.digests.clone();
        let adopted = Adopted::read(records, Some(state));
        for (initial, start) in &adopted.pairs {
            let pair = SaPair { initial: initial.clone(), tenure, start: start.clone() };
            if let Err(error) = self.datapath.install(&pair) {
                error!(spi_in = %initial.spi_in, %error, "a pair of ESP SAs cannot be taken");
            }
        }
        moving.handed_over = Some(HandedOver { adopted, digests });
        if let Some(link) = &self.link {
            link.taken(set, tenure.epoch);
        }
    }

    fn on_handed_on(&mut self, set: WorkSet, packet: &[u8]) {
        let stray = Stray::from_bytes(packet).ok().filter(|_| self.tenures.contains_key(&set));
        let Some(stray) = stray else {
            self.strays.dropped += 1;
            return;
        };
        self.strays.taken += 1;
        let has_room = match (stray.path(), stray.ike) {
            (Some(path), true) => {
                self.endpoint.handle_datagram(boot_time(), path, set, &stray.octets);
                true
            }
            (Some(path), false) => self.datapath.handle_esp(path, stray.octets.into()),
            (None, _) => self.datapath.handle_inner(&stray.octets),
        };
        // A packet that finds no room is lost, as on any network.
        self.strays.dropped += u64::from(!has_room);
    }

    fn on_said(&mut self, from: StartId, word: &[u8]) {
        let word = match Word::from_bytes(word) {
            Ok(Some(word)) => word,
            // A newer version's word.
            Ok(None) => return,
            Err(error) => {
                warn!(%from, %error, "another node says what cannot be read");
                return;
            }
        };
        match word {
            Word::Pool(word) => self.on_pool_word(from, word),
            Word::Watch(moving) => self.on_watch(from, moving.set),
            Word::Watching(moving) => self.on_watching(moving.set),
            Word::MovedAsked(asked) => self.on_moved_asked(from, &asked),
            Word::MovedTold(told) => self.on_moved_told(boot_time(), from, &told),
            Word::Superseded(superseded) => {
                if let Ok(identity) = Identity::decode(superseded.id_type, &superseded.id_data) {
                    self.endpoint.end_identity(boot_time(), &identity, &superseded.connection, superseded.session);
                }
            }
        }
    }

    /// Tells the other nodes that an identity has connected anew.
    pub(super) fn supersede(&self, identity: &Identity, connection: &str, session: u64) {
        let (Some(link), Some(current)) = (&self.link, &self.view) else { return };
        let word = Word::Superseded(Superseded::new(identity, connection, session)).to_bytes();
        for member in current.view.members().iter().filter(|member| member.slot != current.own) {
            link.say(member.identity.start, word.clone());
        }
    }
}

/// Packets of a set that went may still be on their way through this node's kernel for so long.
const FORGET_AFTER: Duration = Duration::from_millis(500);
