//! What a view remembers of nodes that are not in it: that they may be at work elsewhere, that they may have used
//! numbers on their own, and that an operator has drained them.

use std::time::Duration;

use wire::{Slot, Time};

use super::Base;
use super::seat::Seat;
use crate::identity::Name;
use crate::policy::LoneSurvivor;
use crate::slots::SlotMask;
use crate::view::{Absentee, Member, Role, View};

/// Since when this node knows of each part that may have worked on its own.
#[derive(Debug, Default)]
pub(super) struct Memory(Vec<(Name, Option<Slot>, Time)>);

impl Memory {
    pub(super) fn follow(&mut self, view: &View, now: Time) {
        let known = std::mem::take(&mut self.0);
        for absentee in view.absentees().iter().filter(|absentee| absentee.apart) {
            let same = |(name, slot, _): &&(Name, Option<Slot>, Time)| *name == absentee.name && *slot == absentee.slot;
            let age = Duration::from_millis(absentee.age_ms.into());
            let since = known.iter().find(same).map_or_else(|| now.before(age), |(_, _, since)| *since);
            self.0.push((absentee.name.clone(), absentee.slot, since));
        }
    }

    /// How long ago each went, for those who hear of them first from the next view.
    pub(super) fn tell_ages(&self, absentees: &mut [Absentee], now: Time) {
        for absentee in absentees {
            let same = |(name, slot, _): &&(Name, Option<Slot>, Time)| *name == absentee.name && *slot == absentee.slot;
            if let Some((_, _, since)) = self.0.iter().find(same) {
                absentee.age_ms = u32::try_from(now.since(*since).as_millis()).unwrap_or(u32::MAX);
            }
        }
    }

    /// Since when the number was perhaps used by another part.
    fn used_since(&self, slot: Slot) -> Option<Time> {
        self.0.iter().filter(|(_, used, _)| *used == Some(slot)).map(|(_, _, since)| *since).max()
    }

    fn is_over(&self, base: &Base, now: Time, (name, slot): (&Name, Option<Slot>)) -> bool {
        self.0.iter().any(|(n, s, since)| (n, *s) == (name, slot) && now.since(*since) >= base.config.policy.apart)
    }
}

/// A node that was missing is a full member again: its program has begun anew, so nobody works there on its own.
pub(super) fn came_back(absentees: &mut [Absentee], name: &Name) {
    for absentee in absentees.iter_mut().filter(|absentee| absentee.name == *name) {
        absentee.missing = false;
    }
}

impl Seat {
    /// Whether the master has something to forget.
    pub(super) fn forgets(&self, base: &Base, now: Time) -> bool {
        let absentees = self.view.absentees().iter();
        self.is_master() && absentees.clone().any(|absentee| self.is_forgotten(base, now, absentee))
    }

    fn is_forgotten(&self, base: &Base, now: Time, absentee: &Absentee) -> bool {
        let is_in = self.names().any(|name| *name == absentee.name);
        let over = absentee.apart && self.memory.is_over(base, now, (&absentee.name, absentee.slot));
        (absentee.drained && is_in) || (over && !absentee.missing)
    }

    /// What the next view remembers of those that are not in this one.
    pub(super) fn remembered(&self, base: &Base, now: Time) -> Vec<Absentee> {
        let mut absentees = self.view.absentees().to_vec();
        for absentee in absentees.iter_mut().filter(|absentee| self.is_forgotten(base, now, absentee)) {
            // Who is a member is drained by the master's word, and no longer by its memory.
            absentee.drained &= !self.names().any(|name| *name == absentee.name);
            absentee.apart &= absentee.missing || !self.memory.is_over(base, now, (&absentee.name, absentee.slot));
        }
        absentees
    }

    /// What is to be remembered of a member that goes.
    pub(super) fn note_absent(&self, base: &Base, member: &Member, absentees: &mut Vec<Absentee>) {
        let (name, full) = (member.identity.name.clone(), member.role == Role::Full);
        let missing = full && self.unheard.contains(member.slot);
        // The smaller part of a split may go on where the policy lets it, and nobody here would know.
        let apart = missing || (full && base.config.lone_survivor == LoneSurvivor::Serve);
        let drained = self.drained.contains(member.slot);
        if apart {
            absentees.push(share_of(name.clone()));
        }
        absentees.push(Absentee { name, slot: Some(member.slot), missing, apart, drained, age_ms: 0 });
    }

    /// Those that come in although an operator has drained them stay drained.
    pub(super) fn drain_returned(&mut self, before: SlotMask) {
        for member in self.view.members().iter().filter(|member| !before.contains(member.slot)) {
            let mut absentees = self.view.absentees().iter();
            if absentees.any(|absentee| absentee.drained && absentee.name == member.identity.name) {
                self.drained = self.drained.with(member.slot);
            }
        }
    }

    /// Gives a number to each approved applicant, as a learner.
    pub(super) fn admit(&self, base: &Base, members: &mut Vec<Member>) {
        for applicant in self.applicants.iter().filter(|applicant| applicant.approved) {
            if let Some(slot) = self.free_slot(base, members) {
                members.push(Member { slot, role: Role::Learner, identity: applicant.identity.clone() });
            }
        }
    }

    /// A number for a new member. Sequence numbers and vectors of two parts stay apart by their members' numbers, so
    /// none is given out, as long as there are others, that another part used, or that is another part's to give out.
    fn free_slot(&self, base: &Base, members: &[Member]) -> Option<Slot> {
        // A slot that was freed by this very change is not given out again in it.
        let taken = members.iter().map(|member| member.slot).collect::<SlotMask>().or(self.view.all());
        let mut names: Vec<&Name> = base.config.peers.iter().map(|peer| &peer.name).collect();
        names.push(&base.config.identity.name);
        names.sort();
        let theirs = |slot: Slot| {
            let rank = usize::from(slot.number()).checked_rem(names.len()).unwrap_or(0);
            let shares = self.view.absentees().iter().filter(|absentee| absentee.apart && absentee.slot.is_none());
            names.get(rank).is_some_and(|name| shares.clone().any(|share| share.name == **name))
        };
        let free = (0..).map_while(Slot::new).filter(|slot| !taken.contains(*slot));
        free.min_by_key(|slot| (self.memory.used_since(*slot), theirs(*slot), *slot))
    }
}

/// The share of that node: the numbers that leave its rank among the configured nodes when divided by how many those
/// are. A part that it founds gives out these and no others.
pub(super) const fn share_of(name: Name) -> Absentee {
    Absentee { name, slot: None, missing: false, apart: true, drained: false, age_ms: 0 }
}
