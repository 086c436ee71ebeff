//! How a view is agreed on: single-decree Paxos for each view number, with the lease's waits in the acceptor.
//!
//! Whoever would be master of what it hears proposes. A promise binds to no older ballot; an acceptance is the vote,
//! given only when everybody that the new view removes has been silent for L + 2 ms, and the view before has stood as
//! long. Any quorum of the view before decides; every member counts for itself.

use wire::{Slot, Time};

use super::seat::Seat;
use super::{Base, Next};
use crate::datagram::{Ballot, Datagram};
use crate::slots::SlotMask;
use crate::view::{View, ViewId};

/// Ballots whose votes are counted at the same time.
const TALLIES_MAX: usize = 8;

/// What a voter is bound to, for the view that follows its own.
#[derive(Debug, Default)]
pub(super) struct Acceptor {
    promised: Ballot,
    pub(super) accepted: Option<(Ballot, Box<View>)>,
    /// When it voted first: from then on it echoes in its old view no more.
    pub(super) voted_at: Option<Time>,
    waiting: Option<(Ballot, Box<View>)>,
    tallies: Vec<(Ballot, ViewId, SlotMask)>,
}

impl Acceptor {
    /// The highest ballot that this voter has heard of.
    pub(super) fn highest(&self) -> Ballot {
        self.tallies.iter().map(|(ballot, _, _)| *ballot).fold(self.promised, Ballot::max)
    }

    /// Whether a proposal waits for its conditions.
    pub(super) fn is_waiting(&self) -> bool {
        self.waiting.is_some()
    }

    /// When a vote that waits becomes possible.
    pub(super) fn due(&self, seat: &Seat, base: &Base) -> Option<Time> {
        let (_, view) = self.waiting.as_ref()?;
        let policy = &base.config.policy;
        let removed = seat.view.full().minus(view.full());
        let silent = removed.iter().map(|slot| seat.is_harmless_at(base, slot)).max()?;
        Some(silent.max(seat.installed_at + policy.view_stands))
    }

    /// Whether this voter has voted for a view without that member: it was harmless then, and this node echoes nothing in
    /// the old view since.
    pub(super) fn has_voted_out(&self, slot: Slot) -> bool {
        self.accepted.as_ref().is_some_and(|(_, view)| !view.full().contains(slot))
    }

    /// Those of `full` that the proposal removes which waits for its conditions.
    pub(super) fn waits_to_remove(&self, full: SlotMask) -> SlotMask {
        self.waiting.as_ref().map_or(SlotMask::EMPTY, |(_, view)| full.minus(view.full()))
    }

    /// Promises to vote in no older ballot; returns what it has voted for.
    pub(super) fn promise(&mut self, ballot: Ballot) -> Option<Option<(Ballot, Box<View>)>> {
        if ballot < self.promised {
            return None;
        }
        if ballot > self.promised {
            self.promised = ballot;
            self.waiting = None;
        }
        Some(self.accepted.clone())
    }

    fn tally(&mut self, ballot: Ballot, view: ViewId, slot: Slot) -> SlotMask {
        if let Some((_, _, mask)) = self.tallies.iter_mut().find(|(b, v, _)| *b == ballot && *v == view) {
            *mask = mask.with(slot);
            return *mask;
        }
        if self.tallies.len() >= TALLIES_MAX {
            // The oldest ballot has the least chance to be decided still; a view that is decided unseen is told by others.
            let oldest = self.tallies.iter().enumerate().min_by_key(|(_, (ballot, _, _))| *ballot).map(|(at, _)| at);
            if let Some(oldest) = oldest {
                self.tallies.swap_remove(oldest);
            }
        }
        self.tallies.push((ballot, view, SlotMask::only(slot)));
        SlotMask::only(slot)
    }
}

impl Seat {
    pub(super) fn on_prepare(&mut self, base: &mut Base, slot: Slot, of: ViewId, ballot: Ballot) {
        // Who lacks the table could not tell what follows from a vote.
        if of != self.view.id() || !self.is_full() || self.table.is_none() || !self.view.full().contains(slot) {
            return;
        }
        let (ballot, accepted) = match self.acceptor.promise(ballot) {
            Some(accepted) => (ballot, accepted),
            None => (self.acceptor.promised, None),
        };
        self.mail_to(base, slot, &Datagram::Promise { base: of, ballot, accepted });
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one datagram")]
    pub(super) fn on_propose(
        &mut self,
        base: &mut Base,
        now: Time,
        slot: Slot,
        of: ViewId,
        ballot: Ballot,
        inherited: bool,
        view: View,
    ) -> Next {
        if of != self.view.id() || view.base() != of || !self.is_full() || ballot.proposer() != Some(slot) {
            return Next::Stay;
        }
        if let Some((voted, mine)) = &self.acceptor.accepted
            && *voted == ballot
        {
            // It has not heard of our vote.
            let view = mine.id();
            self.mail_to(base, slot, &Datagram::Accept { base: of, ballot, view });
            return Next::Stay;
        }
        if ballot < self.acceptor.promised {
            return Next::Stay;
        }
        self.acceptor.promised = ballot;
        // The master may ask everybody to stop listening; so may a proposer that must finish what another began.
        if slot == self.view.master() || inherited {
            self.shun = self.shun.or(self.view.full().minus(view.full())).without(self.own);
        }
        self.acceptor.waiting = Some((ballot, Box::new(view)));
        self.vote(base, now)
    }

    /// From when on this voter can say that a member which a view removes sends no more. It may be needed to vote itself
    /// out: of three, one has voted for a view without it and another died, and no other view can be decided.
    fn is_harmless_at(&self, base: &Base, removed: Slot) -> Time {
        let policy = &base.config.policy;
        if removed == self.own {
            return base.lease_until + policy.silence.saturating_sub(policy.lease);
        }
        self.peers[removed].accepted_at + policy.silence
    }

    /// Votes for the proposal that waits, once nothing stands against it.
    pub(super) fn vote(&mut self, base: &mut Base, now: Time) -> Next {
        let Some((ballot, view)) = &self.acceptor.waiting else { return Next::Stay };
        let policy = &base.config.policy;
        let removed = self.view.full().minus(view.full());
        let stands = removed.is_empty() || now >= self.installed_at + policy.view_stands;
        let silent =
            removed.iter().all(|slot| self.acceptor.has_voted_out(slot) || now >= self.is_harmless_at(base, slot));
        let same_table = self.table.as_ref().is_some_and(|table| table.version().sequence == view.base_table());
        if !same_table {
            // A voter keeps the version that its vote builds on, so a newer one held here was never acted on.
            let (sequence, from) = (view.base_table(), ballot.proposer().filter(|slot| *slot != self.own));
            if let Some(from) = from {
                self.rewind_table(sequence, from);
            }
            return Next::Stay;
        }
        if !stands || !silent || *ballot < self.acceptor.promised {
            return Next::Stay;
        }
        let (ballot, id) = (*ballot, view.id());
        self.acceptor.accepted = self.acceptor.waiting.take();
        self.acceptor.voted_at.get_or_insert(now);
        let of = self.view.id();
        self.mail_full(base, &Datagram::Accept { base: of, ballot, view: id });
        self.count(base, now, self.own, ballot, id)
    }

    pub(super) fn on_accept(
        &mut self,
        base: &mut Base,
        now: Time,
        slot: Slot,
        of: ViewId,
        ballot: Ballot,
        view: ViewId,
    ) -> Next {
        if of != self.view.id() || !self.view.full().contains(slot) {
            return Next::Stay;
        }
        self.count(base, now, slot, ballot, view)
    }

    fn count(&mut self, base: &mut Base, now: Time, slot: Slot, ballot: Ballot, id: ViewId) -> Next {
        let mut votes = self.acceptor.tally(ballot, id, slot);
        // Who has voted itself out stays until it is told: those that go on may not have heard its vote yet.
        if self.acceptor.has_voted_out(self.own) {
            votes = votes.without(self.own);
        }
        if !self.view.is_quorum(votes) {
            return Next::Stay;
        }
        let accepted = self.acceptor.accepted.iter().chain(&self.acceptor.waiting).map(|(_, view)| view);
        let known = accepted.chain(self.proposal.iter().filter_map(|proposal| proposal.view.as_ref()));
        let Some(view) = known.into_iter().find(|view| view.id() == id) else { return Next::Stay };
        let view = (**view).clone();
        self.install(base, now, view)
    }
}
