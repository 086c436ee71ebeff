//! Who proposes which view: removal of the silent, admission of joiners, promotion of learners.

use wire::{Slot, Time};

use super::absence::came_back;
use super::keepalive::NO_TABLE;
use super::seat::Seat;
use super::{Base, Event, Next};
use crate::datagram::{Ballot, Datagram};
use crate::slots::SlotMask;
use crate::view::{Role, View, ViewId};

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

impl Seat {
    /// Votes, proposes, or carries on what was proposed.
    pub(super) fn drive_change(&mut self, base: &mut Base, now: Time) -> Next {
        self.sent.evaluated_at = self.sent.evaluated_at.max(now);
        self.spare_the_needed(base, now);
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
            && !self.applicants.iter().any(|applicant| applicant.approved)
            && !self.forgets(base, now);
        if quiet && !undecided {
            return Next::Stay;
        }
        let Some(view) = self.wanted_view(base, now) else { return Next::Stay };
        if !undecided && view.members() == self.view.members() && view.absentees() == self.view.absentees() {
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
        let mut absentees = self.remembered(base, now);
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
                self.note_absent(base, member, &mut absentees);
                continue;
            }
            let mut member = member.clone();
            if member.role == Role::Learner && self.is_master() && self.is_ready(member.slot, full, hears) {
                member.role = Role::Full;
                came_back(&mut absentees, &member.identity.name);
            }
            members.push(member);
        }
        if self.is_master() {
            self.admit(base, &mut members);
        }
        if members != self.view.members() || absentees != self.view.absentees() {
            self.memory.tell_ages(&mut absentees, now);
        }
        let (lineage, before) = (self.view.lineage(), self.view.master());
        let view = View::new(self.view.id(), lineage, table.version().sequence, before, members, absentees)?;
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

    /// Of two full members that do not hear each other, and of those that hold up others, one is asked to go.
    fn shun_unheard(&mut self, base: &mut Base, now: Time) {
        let id = self.view.id();
        let policy = &base.config.policy;
        // The dead of the view before are removed first.
        let early = now < self.installed_at + policy.silence.saturating_mul(2);
        let full = self.view.full();
        let heard = self.hears(base, now).and(full);
        self.note_doubts(now, heard);
        // Who has just died is heard by some for a little longer than by others. Only who echoes a keepalive that was sent
        // since then surely lives.
        let lives = |slot: &Slot| {
            let (peer, since) = (&self.peers[*slot], self.doubted[*slot]);
            *slot == self.own || peer.echoed.is_some_and(|echoed| since.is_some_and(|since| echoed > since))
        };
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

    /// Remembers since when each member is not heard by everybody.
    fn note_doubts(&mut self, now: Time, heard: SlotMask) {
        let id = self.view.id();
        let others = heard.without(self.own).iter().map(|slot| &self.peers[slot].last).filter(|last| last.view == id);
        let by_all = others.fold(self.view.full(), |by_all, last| by_all.and(last.hears));
        for (slot, since) in self.doubted.iter_mut() {
            if by_all.contains(slot) {
                *since = None;
            } else {
                since.get_or_insert(now);
            }
        }
    }

    /// Whoever is to go stays if no quorum is heard without it: somebody else has died since, the master that asked for
    /// it perhaps, who would have taken that back. Votes count on silence alone, so to listen again is always safe; but
    /// what a proposal removes that may be decided already must fall silent here, or nothing else ever is decided.
    fn spare_the_needed(&mut self, base: &Base, now: Time) {
        let hears = self.hears(base, now);
        if !self.shun.is_empty() && !self.view.is_quorum(hears.minus(self.shun)) {
            self.shun = self.shun.and(self.acceptor.waits_to_remove(self.view.full())).and(hears);
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
