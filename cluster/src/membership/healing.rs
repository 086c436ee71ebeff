//! Parts that went on alone: how one begins, and how two find each other and become one again.

use std::net::SocketAddr;

use rand::Rng;
use wire::Time;

use super::absence::share_of;
use super::seat::Seat;
use super::{Base, Destination, Event, LeaveReason, Link, Next, Output, Probe};
use crate::datagram::Datagram;
use crate::policy::LoneSurvivor;
use crate::view::{Absentee, Member, Role, View};

/// Another master, as it announces itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rival {
    pub(super) members: u8,
    pub(super) number: u64,
    pub(super) leased: bool,
    pub(super) address: Option<SocketAddr>,
    /// The question of ours that it answers; 0 if none.
    pub(super) answer: u64,
}

impl Seat {
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
    pub(super) fn on_announce(&mut self, base: &mut Base, now: Time, back: Destination, rival: Rival) -> Next {
        let Some(reason) = self.yields_to(base, now, &rival) else { return Next::Stay };
        if rival.answer != 0 {
            return if rival.answer == self.hail { Next::Leave(reason) } else { Next::Stay };
        }
        // One question at a time: the copies of an announcement over several networks would make the answer to each
        // the answer to a question that was asked before the last.
        if now < self.hail_at {
            return Next::Stay;
        }
        self.hail_at = now + base.config.policy.resend;
        self.hail = base.rng.next_u64().max(1);
        base.reply(back, &Datagram::Hail { nonce: self.hail });
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
        let master = self.view.member(self.view.master());
        let own = master.and_then(|member| member.identity.addresses.into_iter().flatten().next());
        let ours = (self.view.full().len(), self.view.id().number);
        let theirs = (u32::from(rival.members), rival.number);
        // Of equal parts the one that has seen more views: a part founded anew has no sessions.
        (theirs > ours || (theirs == ours && rival.address < own)).then_some(LeaveReason::Healing)
    }

    /// Of a view of two, either goes on alone; the smaller part of a larger one does if its policy and the probes allow.
    pub(super) fn go_alone(&mut self, base: &mut Base, now: Time) -> Next {
        let part = self.hears(base, now).and(self.view.full());
        let cut_off = base.lease_until <= now && self.ever_leased && !self.view.is_quorum(part);
        // Who has no link hears nobody because of that, and would serve nobody.
        let could = self.is_full() && base.link == Link::Up && self.view.full().len() >= 2;
        if !cut_off || !could {
            self.lone_since = None;
            self.probing = false;
            return Next::Stay;
        }
        let since = *self.lone_since.get_or_insert(now);
        if self.view.full().len() == 2 {
            return self.go_on_without_the_other(base, now);
        }
        // The lowest of the part goes first, so that not each goes on its own.
        let rank = self.view.full().iter().position(|slot| slot == self.own).unwrap_or(0);
        let policy = &base.config.policy;
        let wait =
            policy.lone_wait.saturating_add(policy.lone_wait.saturating_mul(u32::try_from(rank).unwrap_or(0)) / 4);
        if base.config.lone_survivor == LoneSurvivor::Serve && !self.probing && now.since(since) >= wait {
            self.probing = true;
            base.outputs.push_back(Output::Probe);
        }
        Next::Stay
    }

    fn go_on_without_the_other(&mut self, base: &mut Base, now: Time) -> Next {
        // Who voted for a larger view may have made it: that one can go on without this node, and proven.
        let Some((_, view)) = self.acceptor.accepted.clone().filter(|(_, view)| view.full().len() > 2) else {
            return self.continue_alone(base, now);
        };
        // It may have been decided, or the other went on alone: in either case this node goes on in that view, and if
        // the other is removed from it unheard, as unproven.
        base.event(Event::WentOnAlone);
        let other = self.view.full().without(self.own);
        let next = self.install(base, now, *view);
        self.unheard = other;
        next
    }

    pub(super) fn handle_probe(&mut self, base: &mut Base, now: Time, probe: Probe) -> Next {
        if !std::mem::take(&mut self.probing) {
            return Next::Stay;
        }
        match probe {
            Probe::Free if base.link == Link::Down => Next::Stay,
            Probe::Free => self.continue_alone(base, now),
            Probe::Held => {
                self.lone_since = Some(now);
                Next::Stay
            }
        }
    }

    /// Makes the view of those that this node hears, without asking for a quorum.
    fn continue_alone(&mut self, base: &mut Base, now: Time) -> Next {
        let Some(sequence) = self.table.as_ref().map(|table| table.version().sequence) else { return Next::Stay };
        let part = self.hears(base, now).and(self.view.full());
        let (here, gone): (Vec<&Member>, Vec<&Member>) =
            self.view.members().iter().filter(|member| member.role == Role::Full).partition(|m| part.contains(m.slot));
        let mut absentees = self.remembered(base, now);
        absentees.extend(gone.iter().map(|member| Absentee {
            name: member.identity.name.clone(),
            slot: Some(member.slot),
            missing: true,
            apart: true,
            drained: self.drained.contains(member.slot),
            age_ms: 0,
        }));
        for learner in self.view.members().iter().filter(|member| member.role == Role::Learner) {
            self.note_absent(base, learner, &mut absentees);
        }
        // What this part may give out is its founder's share; that of every other node is not.
        let own = &base.config.identity.name;
        absentees.retain(|absentee| absentee.slot.is_some() || absentee.name != *own);
        absentees.extend(base.config.peers.iter().map(|peer| share_of(peer.name.clone())));
        let here = here.into_iter().cloned().collect();
        self.memory.tell_ages(&mut absentees, now);
        let (lineage, before) = (base.rng.next_u64(), self.view.master());
        let view = View::new(self.view.id(), lineage, sequence, before, here, absentees);
        let Some(view) = view else { return Next::Stay };
        base.event(Event::WentOnAlone);
        self.install(base, now, view)
    }
}
