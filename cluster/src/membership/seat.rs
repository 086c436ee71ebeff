//! A node's place in a view, and how it changes from view to view.

use std::collections::BTreeMap;
use std::sync::Arc;

use wire::{Epoch, Slot, Tenure, Time, WorkSet};

use super::absence::Memory;
use super::change::Proposal;
use super::healing::Rival;
use super::join::Applicant;
use super::keepalive::{PeerState, Sent};
use super::moves::{MoveIn, MoveOut};
use super::sync::PartialTable;
use super::vote::Acceptor;
use super::{Base, Destination, Event, How, LeaveReason, MemberStatus, Next, Output, PAUSE};
use crate::datagram::Datagram;
use crate::identity::{Name, StartId};
use crate::slots::{SetMap, SlotMap, SlotMask};
use crate::table::{Table, TableVersion};
use crate::view::{View, ViewId};

/// The state of a member.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) view: Arc<View>,
    pub(super) own: Slot,
    pub(super) installed_at: Time,
    pub(super) table: Option<Table>,
    pub(super) partial: PartialTable,
    pub(super) peers: SlotMap<PeerState>,
    pub(super) sent: Sent,
    pub(super) acceptor: Acceptor,
    pub(super) proposal: Option<Proposal>,
    pub(super) retry_at: Time,
    /// Members that the master told everybody not to listen to.
    pub(super) shun: SlotMask,
    /// Since when a member is not heard by everybody, as far as the master knows.
    pub(super) doubted: SlotMap<Option<Time>>,
    pub(super) drained: SlotMask,
    /// Learners that hold all that this node owns.
    pub(super) counted: SlotMask,
    pub(super) slow: SlotMask,
    pub(super) table_committed: u32,
    pub(super) ever_leased: bool,
    /// Sets fell to this node while it had no lease: it takes them when it has one.
    pub(super) awaits_lease: bool,
    pub(super) applicants: Vec<Applicant>,
    pub(super) balance_at: Time,
    pub(super) announce_at: Time,
    pub(super) moves_at: Time,
    /// The table and the version held by all with which moves to this node were last looked for.
    pub(super) moves_seen: Option<(TableVersion, u32)>,
    /// The sets that this node works for, as its driver was told.
    pub(super) held: SetMap<Option<Epoch>>,
    pub(super) told: SetMap<Option<(Slot, Epoch)>>,
    pub(super) moves_in: BTreeMap<WorkSet, MoveIn>,
    pub(super) moves_out: BTreeMap<WorkSet, MoveOut>,
    /// Sets that their new owners report as taken; the master writes them into the next table.
    pub(super) taken: Vec<(WorkSet, Slot, Epoch)>,
    pub(super) lone_since: Option<Time>,
    pub(super) probing: bool,
    pub(super) memory: Memory,
    /// Members of this view that may not know it: it was entered without their votes.
    pub(super) unheard: SlotMask,
    /// What another master must answer before this node yields to it.
    pub(super) hail: u64,
    /// Not before then is it asked again.
    pub(super) hail_at: Time,
}

impl Seat {
    /// Takes a seat in `view`; `None` if the node is not in it.
    pub(super) fn new(now: Time, view: View, start: StartId) -> Option<Self> {
        let own = view.by_start(start)?.slot;
        let table = (view.base() == ViewId::default()).then(|| Table::founding(&view));
        let mut seat = Self {
            view: Arc::new(view),
            own,
            installed_at: now,
            table,
            partial: PartialTable::default(),
            peers: SlotMap::default(),
            sent: Sent::new(now, start),
            acceptor: Acceptor::default(),
            proposal: None,
            retry_at: now,
            shun: SlotMask::EMPTY,
            doubted: SlotMap::default(),
            drained: SlotMask::EMPTY,
            counted: SlotMask::EMPTY,
            slow: SlotMask::EMPTY,
            table_committed: 0,
            ever_leased: false,
            awaits_lease: false,
            applicants: Vec::new(),
            balance_at: now,
            announce_at: now,
            moves_at: now,
            moves_seen: None,
            held: SetMap::default(),
            told: SetMap::default(),
            moves_in: BTreeMap::new(),
            moves_out: BTreeMap::new(),
            taken: Vec::new(),
            lone_since: None,
            probing: false,
            memory: Memory::default(),
            unheard: SlotMask::EMPTY,
            hail: 0,
            hail_at: now,
        };
        seat.meet(now);
        seat.memory.follow(&seat.view, now);
        Some(seat)
    }

    /// Tells the driver where it sits.
    pub(super) fn on_seated(&mut self, base: &mut Base, now: Time) {
        base.outputs.push_back(Output::View { view: Arc::clone(&self.view), own: self.own });
        let how = if self.view.base() == ViewId::default() { How::Founded } else { How::Unplanned };
        self.reconcile(base, now, how);
        self.begin_round(base, now);
        self.renew_lease(base, now);
    }

    /// Enters the next view. The lease granted so far stays: it ends before anybody can be voted out of the new view
    /// by those who granted it.
    pub(super) fn install(&mut self, base: &mut Base, now: Time, view: View) -> Next {
        let Some(own) = view.by_start(base.config.identity.start).map(|member| member.slot) else {
            return Next::Leave(LeaveReason::VotedOut);
        };
        if self
            .table
            .as_ref()
            .is_some_and(|table| view.base() == self.view.id() && table.version().sequence == view.base_table())
        {
            self.table = self.table.as_ref().map(|table| table.derive(&view));
        } else {
            self.table = None;
        }
        let gone = self.view.all().minus(view.all());
        let before = std::mem::replace(&mut self.view, Arc::new(view));
        for slot in gone.iter() {
            self.peers[slot] = PeerState::default();
            base.due[slot] = 0;
            self.drained = self.drained.without(slot);
            self.taken.retain(|(_, by, _)| *by != slot);
        }
        // A learner that has become full is waited for as such; one that is gone is counted no more.
        self.counted = self.counted.and(self.view.all()).minus(self.view.full());
        self.slow = self.slow.and(self.view.all());
        self.shun = SlotMask::EMPTY;
        self.doubted = SlotMap::default();
        self.own = own;
        self.installed_at = now;
        self.acceptor = Acceptor::default();
        self.proposal = None;
        self.retry_at = now;
        self.table_committed = 0;
        self.partial = PartialTable::default();
        self.balance_at = now + base.config.policy.resend;
        self.lone_since = None;
        self.probing = false;
        self.unheard = SlotMask::EMPTY;
        self.applicants.retain(|applicant| self.view.by_start(applicant.identity.start).is_none());
        self.meet(now);
        self.memory.follow(&self.view, now);
        self.drain_returned(before.all());
        self.adopt_echoes();
        for slot in before.full().minus(self.view.full()).iter().filter(|slot| *slot != own) {
            base.event(Event::Silent(slot));
        }
        base.outputs.push_back(Output::View { view: Arc::clone(&self.view), own });
        self.reconcile(base, now, How::Unplanned);
        self.begin_round(base, now);
        self.renew_lease(base, now);
        Next::Stay
    }

    /// Gets to know the members that are new.
    fn meet(&mut self, now: Time) {
        let view = Arc::clone(&self.view);
        for member in view.members() {
            let peer = &mut self.peers[member.slot];
            if peer.start != member.identity.start {
                *peer = PeerState::new(member.identity.start, now);
            }
        }
    }

    pub(super) fn handle_datagram(
        &mut self,
        base: &mut Base,
        now: Time,
        back: Destination,
        sender: StartId,
        datagram: Datagram,
    ) -> Next {
        let slot = self.view.by_start(sender).map(|member| member.slot);
        match (datagram, slot) {
            (Datagram::Keepalive(keepalive), Some(slot)) => return self.on_keepalive(base, now, slot, &keepalive),
            // It was voted out, or it is ahead of us; if the former, the view tells it so.
            (Datagram::Keepalive(keepalive), None) => {
                if keepalive.view.number < self.view.id().number {
                    base.reply(back, &Datagram::View(Box::new((*self.view).clone())));
                }
            }
            (Datagram::Prepare { base: of, ballot }, Some(slot)) => self.on_prepare(base, slot, of, ballot),
            (Datagram::Promise { base: of, ballot, accepted }, Some(slot)) => {
                return self.on_promise(base, now, slot, of, ballot, accepted.map(|(ballot, view)| (ballot, *view)));
            }
            (Datagram::Propose { base: of, ballot, inherited, view }, Some(slot)) => {
                return self.on_propose(base, now, slot, of, ballot, inherited, *view);
            }
            (Datagram::Accept { base: of, ballot, view }, Some(slot)) => {
                return self.on_accept(base, now, slot, of, ballot, view);
            }
            (Datagram::View(view), Some(_) | None) => return self.on_view(base, now, *view),
            (Datagram::WantTable { view }, Some(slot)) => self.on_want_table(base, slot, view),
            (Datagram::TablePart { version, part, entries }, Some(_)) => {
                self.on_table_part(base, now, version, part, &entries);
            }
            (Datagram::TableDelta { view, from, to, entries }, Some(_)) => {
                self.on_table_delta(base, now, view, from, to, &entries);
            }
            (Datagram::Join(join), Some(_) | None) => self.on_join(base, now, back, sender, *join),
            (Datagram::Announce { view, members, leased, address, answer }, None) => {
                return self.on_announce(
                    base,
                    now,
                    back,
                    Rival { members, number: view.number, leased, address, answer },
                );
            }
            (Datagram::Hail { nonce }, None) => {
                if self.is_master() {
                    let announce = self.announcement(base, now, nonce);
                    base.reply(back, &announce);
                }
            }
            (Datagram::Moves { view, step, sets }, Some(slot)) => self.on_moves(base, now, slot, view, step, &sets),
            (Datagram::Act { view, slot: of, act }, Some(_)) => {
                if view == self.view.id() && self.view.master() == self.own {
                    self.handle_act(base, now, of, act);
                }
            }
            // An offer to found a cluster: there is one, and its master answers the join request.
            (Datagram::Offer | Datagram::Grant { .. } | Datagram::JoinProgress, _)
            | (Datagram::JoinRefused(_) | Datagram::JoinMaster(_), _)
            | (Datagram::Announce { .. } | Datagram::Hail { .. }, Some(_)) => {}
            // Only members have a say.
            (Datagram::Prepare { .. } | Datagram::Promise { .. } | Datagram::Propose { .. }, None)
            | (Datagram::Accept { .. } | Datagram::WantTable { .. } | Datagram::TablePart { .. }, None)
            | (Datagram::TableDelta { .. } | Datagram::Moves { .. } | Datagram::Act { .. }, None) => {}
        }
        Next::Stay
    }

    pub(super) fn handle_timeout(&mut self, base: &mut Base, now: Time) -> Next {
        self.sent.evaluated_at = self.sent.evaluated_at.max(now);
        if now.since(self.sent.next_round) > PAUSE {
            for (_, peer) in self.peers.iter_mut() {
                peer.accepted_at = peer.accepted_at.max(now);
            }
        }
        if now >= self.sent.next_round {
            self.begin_round(base, now);
            self.renew_lease(base, now);
        }
        if self.view.id().number == 1 && !self.ever_leased && now >= self.installed_at + base.config.policy.grant {
            return Next::Leave(LeaveReason::FoundingFailed);
        }
        let next = self.go_alone(base, now);
        if !matches!(next, Next::Stay) {
            return next;
        }
        let next = self.drive_change(base, now);
        self.drive_sync(base, now);
        self.drive_moves(base, now);
        self.announce(base, now);
        next
    }

    pub(super) fn poll_timeout(&self, base: &Base) -> Time {
        let mut at = self.sent.next_round;
        let silence = base.config.policy.silence;
        for slot in self.view.full().without(self.own).iter() {
            let due = self.peers[slot].accepted_at + silence;
            if due > self.sent.evaluated_at {
                at = at.min(due);
            }
        }
        if let Some(due) = self.acceptor.due(self, base).filter(|due| *due > self.sent.evaluated_at) {
            at = at.min(due);
        }
        at
    }

    /// Members whose keepalives were accepted within the detection time, this one included.
    pub(super) fn hears(&self, base: &Base, now: Time) -> SlotMask {
        let silence = base.config.policy.silence;
        let heard = self.view.all().without(self.own).iter();
        heard.filter(|slot| now.since(self.peers[*slot].accepted_at) < silence).collect::<SlotMask>().with(self.own)
    }

    pub(super) fn is_full(&self) -> bool {
        self.view.full().contains(self.own)
    }

    pub(super) fn is_master(&self) -> bool {
        self.view.master() == self.own
    }

    /// A view that somebody else has in force.
    pub(super) fn on_view(&mut self, base: &mut Base, now: Time, view: View) -> Next {
        if view.id().number <= self.view.id().number {
            return Next::Stay;
        }
        // A part that went on alone may name this node as well: into that one it comes only by leaving its own.
        let follows = view.base() == self.view.id() || view.lineage() == self.view.lineage();
        if follows && view.by_start(base.config.identity.start).is_some() {
            return self.install(base, now, view);
        }
        // Who holds a lease was not voted out, nor who is one round late with it; two halves that both went on are healed by
        // announcements.
        if base.lease_until + base.config.policy.silence <= now {
            Next::Leave(LeaveReason::VotedOut)
        } else {
            Next::Stay
        }
    }

    /// Brings the driver's picture of owned sets in line with the table.
    pub(super) fn reconcile(&mut self, base: &mut Base, now: Time, how: How) {
        let Some(table) = &self.table else { return };
        let own = self.own;
        for (set, entry) in table.iter() {
            let owner = Some((entry.owner, entry.epoch));
            if self.told[set] != owner {
                self.told[set] = owner;
                base.outputs.push_back(Output::Owner { set, owner: entry.owner, epoch: entry.epoch });
            }
            let arriving = entry.handoff.filter(|handoff| handoff.to == own).map(|handoff| handoff.epoch);
            if let Some(moving) = self.moves_in.get(&set).copied() {
                let settled = entry.owner == own && entry.epoch == moving.epoch;
                if settled || arriving != Some(moving.epoch) {
                    self.moves_in.remove(&set);
                    if !settled && !moving.is_taken() {
                        base.outputs.push_back(Output::Abandon { set });
                    }
                }
            }
            let leaving = entry.owner == own
                && entry.handoff.is_some()
                && self
                    .moves_out
                    .get(&set)
                    .is_some_and(|stopped| Some(stopped.epoch) == entry.handoff.map(|to| to.epoch));
            // Kept while the version that shows the move's end may be taken back for a vote: the new owner works already.
            if self.moves_out.get(&set).is_some_and(|stopped| entry.epoch > stopped.epoch) {
                self.moves_out.remove(&set);
            }
            let held = self.held[set];
            if entry.owner == own && !leaving {
                // Others may have gone on without a node that has no lease, and with the set.
                if held != Some(entry.epoch) && how == How::Unplanned && base.lease_until <= now {
                    self.awaits_lease = true;
                } else if held != Some(entry.epoch) {
                    self.held[set] = Some(entry.epoch);
                    let tenure = Tenure { epoch: entry.epoch, slot: own };
                    base.outputs.push_back(Output::Acquire { set, tenure, how });
                }
            } else if held.is_some() && held != arriving {
                self.held[set] = None;
                base.outputs.push_back(Output::Release { set });
            }
        }
    }

    /// Nothing is owned any more.
    pub(super) fn release_all(&mut self, base: &mut Base) {
        for (set, held) in self.held.iter_mut() {
            if held.take().is_some() {
                base.outputs.push_back(Output::Release { set });
            } else if self.moves_in.contains_key(&set) {
                base.outputs.push_back(Output::Abandon { set });
            }
        }
    }

    pub(super) fn status(&self, slot: Slot) -> Option<MemberStatus> {
        self.view.member(slot)?;
        let peer = &self.peers[slot];
        let now = self.sent.evaluated_at;
        let silent_for = if slot == self.own { std::time::Duration::ZERO } else { now.since(peer.accepted_at) };
        let drained = self.drained.contains(slot);
        Some(MemberStatus { silent_for, loss: peer.loss, keepalives: peer.wanted, drained })
    }

    /// The names of the full members.
    pub(super) fn names(&self) -> impl Iterator<Item = &Name> {
        self.view.members().iter().map(|member| &member.identity.name)
    }
}
