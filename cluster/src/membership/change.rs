//! Who proposes which view: removal of the silent, admission of joiners, promotion of learners.

use std::net::SocketAddr;

use rand::Rng;
use wire::{Slot, Time};

use super::keepalive::NO_TABLE;
use super::seat::Seat;
use super::{Act, Base, Event, LeaveReason, Next, Output, Refusal};
use crate::datagram::{Ballot, Datagram, Join, PROTOCOL};
use crate::identity::{Identity, Network, StartId};
use crate::slots::SlotMask;
use crate::view::{Member, Role, View, ViewId};

/// Nodes that wait to be let in.
const APPLICANTS_MAX: usize = 16;
/// A proposal that was not decided after so many resends is begun anew under a higher ballot.
const RESENDS_MAX: u32 = 8;

/// A change of view that this node proposes.
#[derive(Debug)]
pub(super) struct Proposal {
    ballot: Ballot,
    promised: SlotMask,
    best: Option<(Ballot, Box<View>)>,
    best_from: Slot,
    /// Set once a quorum has promised.
    pub(super) view: Option<Box<View>>,
    inherited: bool,
    sent_at: Time,
    resends: u32,
}

/// A node that asks to join.
#[derive(Debug)]
pub(super) struct Applicant {
    pub(super) identity: Identity,
    approved: bool,
    seen_at: Time,
}

impl Seat {
    /// Votes, proposes, or carries on what was proposed.
    pub(super) fn drive_change(&mut self, base: &mut Base, now: Time) -> Next {
        self.sent.evaluated_at = self.sent.evaluated_at.max(now);
        let next = self.vote(base, now);
        if !matches!(next, Next::Stay) || !self.is_full() {
            return next;
        }
        if self.is_master() {
            self.shun_unheard(base, now);
        }
        if self.proposal.is_some() {
            return self.drive_proposal(base, now);
        }
        if now < self.retry_at {
            return Next::Stay;
        }
        // A vote that was given must lead to a view, whoever gave it: the voter echoes in the old one no more.
        let id = self.view.id();
        let voted = self.view.full().without(self.own).iter().any(|slot| {
            let last = &self.peers[slot].last;
            last.view == id && last.voted != 0
        });
        let undecided = voted || self.acceptor.accepted.is_some();
        let quiet = self.hears(base, now) == self.view.full()
            && self.view.all() == self.view.full()
            && !self.applicants.iter().any(|applicant| applicant.approved);
        if quiet && !undecided {
            return Next::Stay;
        }
        let Some(view) = self.wanted_view(base, now) else { return Next::Stay };
        if !undecided && view.members() == self.view.members() && view.missing() == self.view.missing() {
            return Next::Stay;
        }
        self.propose(base, now)
    }

    /// The view that this node would make, if it is the one to make it.
    fn wanted_view(&self, base: &Base, now: Time) -> Option<View> {
        let table = self.table.as_ref()?;
        let hears = self.hears(base, now);
        // Who is asked to go is not kept for the sake of a vote that it has given, or view after view would follow.
        let full = self.view.full().and(hears);
        let kept = if self.is_master() { full.minus(self.shun) } else { full };
        let full = if self.view.is_quorum(kept) { kept } else { full };
        if !self.view.is_quorum(full) {
            return None;
        }
        let policy = &base.config.policy;
        let mut missing = self.view.missing().to_vec();
        let mut members = Vec::new();
        let slow = full.iter().fold(self.slow, |slow, slot| slow.or(self.peers[slot].last.slow));
        for member in self.view.members() {
            let keep = match member.role {
                Role::Full => full.contains(member.slot),
                Role::Learner => {
                    now.since(self.peers[member.slot].accepted_at) < policy.learner_silence
                        && !slow.contains(member.slot)
                }
            };
            if !keep {
                if self.unheard.contains(member.slot) {
                    missing.push(member.identity.name.clone());
                }
                continue;
            }
            let mut member = member.clone();
            if member.role == Role::Learner && self.is_master() && self.is_ready(member.slot, full, hears) {
                member.role = Role::Full;
                missing.retain(|name| *name != member.identity.name);
            }
            members.push(member);
        }
        if self.is_master() {
            self.admit(&mut members);
        }
        let view = View::new(self.view.id(), table.version().sequence, self.view.master(), members, missing)?;
        (view.master() == self.own).then_some(view)
    }

    /// A learner is ready when every full member hears it and counts on it, and it hears them and holds the table.
    fn is_ready(&self, slot: Slot, full: SlotMask, hears: SlotMask) -> bool {
        let learner = &self.peers[slot].last;
        let id = self.view.id();
        let holds_table = self.table.as_ref().is_some_and(|table| learner.table == table.version().sequence);
        let others_agree = full.without(self.own).iter().all(|member| {
            let last = &self.peers[member].last;
            last.view == id && last.counted.contains(slot) && last.hears.contains(slot)
        });
        learner.view == id
            && holds_table
            && learner.hears.or(SlotMask::only(slot)).and(self.view.full()) == self.view.full()
            && hears.contains(slot)
            && self.counted.contains(slot)
            && others_agree
            && full == self.view.full()
    }

    /// Gives a slot to each approved applicant, as a learner.
    fn admit(&self, members: &mut Vec<Member>) {
        for applicant in self.applicants.iter().filter(|applicant| applicant.approved) {
            // A slot that was freed by this very change is not given out again in it.
            let taken = members.iter().map(|member| member.slot).collect::<SlotMask>().or(self.view.all());
            let free = (0..).map_while(Slot::new).find(|slot| !taken.contains(*slot));
            if let Some(slot) = free {
                members.push(Member { slot, role: Role::Learner, identity: applicant.identity.clone() });
            }
        }
    }

    /// Of two full members that do not hear each other, and of those that hold up others, one is asked to go.
    fn shun_unheard(&mut self, base: &mut Base, now: Time) {
        let id = self.view.id();
        let policy = &base.config.policy;
        // The dead of the view before are removed first.
        let early = now < self.installed_at + policy.silence.saturating_mul(2);
        let full = self.view.full();
        let heard = self.hears(base, now).and(full);
        // Who has just died is heard by some for a little longer than by others: only who spoke of late surely lives.
        let lives = |slot: &Slot| *slot == self.own || now.since(self.peers[*slot].accepted_at) < policy.silence / 2;
        let judged = if early { SlotMask::only(self.own) } else { heard.iter().filter(lives).collect() };
        let mut slow = self.slow;
        let mut unheard = None;
        for slot in heard.without(self.own).iter() {
            let last = &self.peers[slot].last;
            // Who votes against a master that others hear would do so in each view to come.
            let rebels = last.voted != 0 && !last.hears.contains(self.own);
            if last.view != id || (early && !rebels) {
                continue;
            }
            slow = slow.or(last.slow.without(slot));
            for other in judged.minus(last.hears).iter() {
                // The master stays; of two others the higher slot goes.
                unheard = Some(if other == self.own { slot } else { slot.max(other) });
            }
        }
        let slow = slow.and(full).without(self.own).iter().next().filter(|_| !early);
        // One at a time, and never so many that no quorum is left.
        let Some(victim) = unheard.or(slow).filter(|_| self.shun.is_empty()) else { return };
        if self.view.is_quorum(heard.without(victim)) {
            self.shun = SlotMask::only(victim);
            base.event(Event::Shunned(victim));
        }
    }

    fn propose(&mut self, base: &mut Base, now: Time) -> Next {
        let ballot = self.acceptor.highest().next(self.own);
        let Some(accepted) = self.acceptor.promise(ballot) else { return Next::Stay };
        self.proposal = Some(Proposal {
            ballot,
            promised: SlotMask::only(self.own),
            best: accepted,
            best_from: self.own,
            view: None,
            inherited: false,
            sent_at: now,
            resends: 0,
        });
        let of = self.view.id();
        self.mail_full(base, &Datagram::Prepare { base: of, ballot });
        self.advance_proposal(base, now)
    }

    pub(super) fn on_promise(
        &mut self,
        base: &mut Base,
        now: Time,
        slot: Slot,
        of: ViewId,
        ballot: Ballot,
        accepted: Option<(Ballot, View)>,
    ) -> Next {
        if of != self.view.id() || !self.view.full().contains(slot) {
            return Next::Stay;
        }
        let Some(proposal) = &mut self.proposal else { return Next::Stay };
        if ballot > proposal.ballot {
            // It is bound to a higher ballot: begin again above that one, a little later for higher slots.
            self.acceptor.promise(ballot);
            self.give_up(base, now);
            return Next::Stay;
        }
        if ballot < proposal.ballot || proposal.view.is_some() {
            return Next::Stay;
        }
        proposal.promised = proposal.promised.with(slot);
        if let Some((voted, view)) = accepted
            && proposal.best.as_ref().is_none_or(|(best, _)| *best < voted)
        {
            proposal.best = Some((voted, Box::new(view)));
            proposal.best_from = slot;
        }
        self.advance_proposal(base, now)
    }

    /// With a quorum of promises: proposes what somebody may have decided already, else what this node wants.
    fn advance_proposal(&mut self, base: &mut Base, now: Time) -> Next {
        let Some(proposal) = &self.proposal else { return Next::Stay };
        if proposal.view.is_some() || !self.view.is_quorum(proposal.promised) {
            return Next::Stay;
        }
        let ballot = proposal.ballot;
        let (view, inherited) = match proposal.best.clone() {
            Some((_, view)) => {
                let held = self.table.as_ref().map(|table| table.version().sequence);
                if held != Some(view.base_table()) && proposal.best_from != self.own {
                    let (sequence, from) = (view.base_table(), proposal.best_from);
                    self.rewind_table(sequence, from);
                }
                (view, true)
            }
            None => match self.wanted_view(base, now) {
                Some(view) => (Box::new(view), false),
                None => {
                    self.proposal = None;
                    return Next::Stay;
                }
            },
        };
        if let Some(proposal) = &mut self.proposal {
            proposal.view = Some(view.clone());
            proposal.inherited = inherited;
            proposal.sent_at = now;
        }
        let of = self.view.id();
        self.mail_full(base, &Datagram::Propose { base: of, ballot, inherited, view: view.clone() });
        self.on_propose(base, now, self.own, of, ballot, inherited, *view)
    }

    fn drive_proposal(&mut self, base: &mut Base, now: Time) -> Next {
        let resend = base.config.policy.resend;
        let Some(proposal) = &mut self.proposal else { return Next::Stay };
        if now.since(proposal.sent_at) < resend {
            return Next::Stay;
        }
        proposal.sent_at = now;
        proposal.resends = proposal.resends.saturating_add(1);
        // The wait for silence is part of a proposal's life.
        let waits = base.config.policy.silence.as_nanos().checked_div(resend.as_nanos()).unwrap_or(0);
        if u128::from(proposal.resends) > waits.saturating_add(u128::from(RESENDS_MAX)) {
            self.give_up(base, now);
            return Next::Stay;
        }
        let (ballot, of) = (proposal.ballot, self.view.id());
        let datagram = match &proposal.view {
            None => Datagram::Prepare { base: of, ballot },
            Some(view) => Datagram::Propose { base: of, ballot, inherited: proposal.inherited, view: view.clone() },
        };
        self.mail_full(base, &datagram);
        Next::Stay
    }

    /// Drops the proposal; the pause before the next grows with the slot, so that two proposers do not go on for ever.
    fn give_up(&mut self, base: &Base, now: Time) {
        self.proposal = None;
        let steps = u32::from(self.own.number()).saturating_add(1);
        self.retry_at = now + base.config.policy.resend.saturating_mul(steps.saturating_mul(2));
    }

    pub(super) fn on_join(
        &mut self,
        base: &mut Base,
        now: Time,
        network: Network,
        from: SocketAddr,
        sender: StartId,
        join: Join,
    ) {
        if base.lease_until <= now || join.identity.start != sender {
            return;
        }
        if !self.is_master() {
            if let Some(master) = self.view.member(self.view.master()) {
                let addresses = master.identity.addresses;
                base.reply(network, from, &Datagram::JoinMaster(addresses));
            }
            return;
        }
        if let Some(member) = self.view.by_start(sender) {
            let slot = member.slot;
            self.send_view(base, now, slot);
            return;
        }
        let answer = match self.judge(base, now, &join) {
            Err(refusal) => Datagram::JoinRefused(Box::new(refusal)),
            Ok(Verdict::Wait) => Datagram::JoinProgress,
            Ok(Verdict::Ask) => {
                self.ask(base, now, join.identity);
                Datagram::JoinProgress
            }
        };
        base.reply(network, from, &answer);
    }

    fn judge(&self, base: &Base, now: Time, join: &Join) -> Result<Verdict, Refusal> {
        let config = &base.config;
        if join.protocol != PROTOCOL {
            return Err(Refusal::Version { ours: PROTOCOL, theirs: join.protocol });
        }
        if join.config_hash != config.config_hash || join.config_version != config.config_version {
            return Err(Refusal::Configuration {
                ours_version: config.config_version,
                ours: config.config_hash,
                theirs_version: join.config_version,
                theirs: join.config_hash,
            });
        }
        let name = &join.identity.name;
        if let Some(member) = self.view.members().iter().find(|member| member.identity.name == *name) {
            let address = member.identity.addresses.iter().flatten().next();
            let live = member.slot == self.own || self.hears(base, now).contains(member.slot);
            return match address {
                Some(address) if live => Err(Refusal::SameIdentity { name: name.clone(), address: *address }),
                // The one before is silent and about to be voted out.
                Some(_) | None => Ok(Verdict::Wait),
            };
        }
        if usize::try_from(self.view.all().len()).is_ok_and(|members| members >= Slot::COUNT) {
            return Err(Refusal::Full);
        }
        Ok(Verdict::Ask)
    }

    fn ask(&mut self, base: &mut Base, now: Time, identity: Identity) {
        self.applicants.retain(|applicant| now.since(applicant.seen_at) < base.config.policy.grant);
        if let Some(applicant) = self.applicants.iter_mut().find(|known| known.identity.start == identity.start) {
            applicant.seen_at = now;
            return;
        }
        // A program that was started again asks under a new number; its older question is void.
        self.applicants.retain(|applicant| applicant.identity.name != identity.name);
        if self.applicants.len() < APPLICANTS_MAX {
            base.event(Event::JoinAsked(identity.name.clone()));
            base.outputs.push_back(Output::JoinAsked(identity.clone()));
            self.applicants.push(Applicant { identity, approved: false, seen_at: now });
        }
    }

    pub(super) fn handle_join_verdict(
        &mut self,
        base: &mut Base,
        now: Time,
        start: StartId,
        verdict: Result<(), String>,
    ) {
        let Some(at) = self.applicants.iter().position(|applicant| applicant.identity.start == start) else { return };
        match verdict {
            Ok(()) => {
                if let Some(applicant) = self.applicants.get_mut(at) {
                    applicant.approved = true;
                }
                // The proposal begins with the next round, at most a keepalive interval from now.
                self.retry_at = self.retry_at.max(now);
            }
            Err(reason) => {
                let identity = self.applicants.swap_remove(at).identity;
                base.mail(&identity.addresses, &Datagram::JoinRefused(Box::new(Refusal::Veto(reason))));
            }
        }
    }

    pub(super) fn on_counted(&mut self, now: Time, start: StartId) {
        if let Some(member) = self.view.by_start(start)
            && member.role == Role::Learner
        {
            self.counted = self.counted.with(member.slot);
            // The others learn of it at once.
            self.sent.next_round = self.sent.next_round.min(now);
        }
    }

    pub(super) fn on_slow(&mut self, now: Time, start: StartId) {
        if let Some(member) = self.view.by_start(start) {
            self.slow = self.slow.with(member.slot);
            self.sent.next_round = self.sent.next_round.min(now);
        }
    }

    pub(super) fn handle_act(&mut self, base: &mut Base, now: Time, slot: Slot, act: Act) {
        if !self.is_master() {
            let datagram = Datagram::Act { view: self.view.id(), slot, act };
            // Repeated, since nobody acknowledges it; the keepalives show the outcome.
            for _ in 0..3 {
                self.mail_to(base, self.view.master(), &datagram);
            }
            return;
        }
        self.drained = match act {
            Act::Drain => self.drained.with(slot),
            Act::Undrain => self.drained.without(slot),
        };
        self.balance_at = now;
    }

    /// The master tells the nodes that its view lacks that it is there.
    pub(super) fn announce(&mut self, base: &mut Base, now: Time) {
        if !self.is_master() || now < self.announce_at {
            return;
        }
        self.announce_at = now + base.config.policy.announce_interval;
        let outside: Vec<_> = base
            .config
            .peers
            .iter()
            .filter(|peer| !self.names().any(|name| *name == peer.name))
            .map(|peer| peer.addresses)
            .collect();
        let datagram = self.announcement(base, now, 0);
        for addresses in outside {
            base.mail(&addresses, &datagram);
        }
    }

    pub(super) fn announcement(&self, base: &Base, now: Time, answer: u64) -> Datagram {
        Datagram::Announce {
            view: self.view.id(),
            members: u8::try_from(self.view.full().len()).unwrap_or(0),
            leased: base.lease_until > now,
            address: base.config.identity.addresses.iter().flatten().next().copied(),
            answer,
        }
    }

    /// Another master of this cluster is there: the part that holds no lease, has fewer members, or the higher address,
    /// goes. An announcement can be old and its sender dead, so it counts only as the answer to a question of ours.
    pub(super) fn on_announce(
        &mut self,
        base: &mut Base,
        now: Time,
        (network, from): (Network, SocketAddr),
        rival: Rival,
    ) -> Next {
        let Some(reason) = self.yields_to(base, now, &rival) else { return Next::Stay };
        if rival.answer != 0 && rival.answer == self.hail {
            return Next::Leave(reason);
        }
        self.hail = base.rng.next_u64();
        base.reply(network, from, &Datagram::Hail { nonce: self.hail });
        Next::Stay
    }

    fn yields_to(&self, base: &Base, now: Time, rival: &Rival) -> Option<LeaveReason> {
        if !rival.leased {
            return None;
        }
        // A lease that has ended just now may be one round late; whoever was voted out is without one for longer than that.
        if base.lease_until + base.config.policy.silence <= now {
            return Some(LeaveReason::VotedOut);
        }
        let ours = self.view.full().len();
        let theirs = u32::from(rival.members);
        let master = self.view.member(self.view.master());
        let own = master.and_then(|member| member.identity.addresses.into_iter().flatten().next());
        (theirs > ours || (theirs == ours && rival.address < own)).then_some(LeaveReason::Healing)
    }

    /// Whether the master may change the table now: nothing is proposed, and all full members hold the last change.
    pub(super) fn is_settled(&self) -> bool {
        let Some(table) = &self.table else { return false };
        let sequence = table.version().sequence;
        sequence != NO_TABLE
            && self.is_master()
            && self.proposal.is_none()
            && self.acceptor.accepted.is_none()
            && self.table_committed == sequence
    }
}

/// Another master, as it announces itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rival {
    pub(super) members: u8,
    pub(super) leased: bool,
    pub(super) address: Option<SocketAddr>,
    /// The question of ours that it answers; 0 if none.
    pub(super) answer: u64,
}

/// What becomes of a request that fits.
enum Verdict {
    Ask,
    Wait,
}
