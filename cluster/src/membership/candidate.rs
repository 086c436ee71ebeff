//! A node without a view: it asks to join, and, if nobody answers, founds the cluster with others that ask.

use rand::Rng;
use wire::{Slot, Time};

use super::seat::Seat;
use super::{Base, Destination, Event, Next, Output, Probe, Refusal};
use crate::datagram::{Datagram, Join, PROTOCOL};
use crate::identity::{Addresses, Identity, StartId};
use crate::policy::LoneSurvivor;
use crate::view::{Absentee, Member, Role, View, ViewId};

/// Other candidates that are remembered.
const HEARD_MAX: usize = 16;
/// A refused node asks this many times less often.
const REFUSED_SLOWDOWN: u32 = 25;

#[derive(Debug)]
struct Heard {
    identity: Identity,
    at: Time,
}

#[derive(Debug)]
struct Offer {
    since: Time,
    granted: Vec<StartId>,
}

/// The state of a node without a view.
#[derive(Debug)]
pub(super) struct Candidate {
    since: Time,
    ask_at: Time,
    heard: Vec<Heard>,
    /// When a cluster that exists was heard of last.
    cluster_at: Option<Time>,
    /// Where its master is.
    master: Option<Addresses>,
    refused: Option<Refusal>,
    granted: Option<(StartId, Time)>,
    offer: Option<Offer>,
    probing: bool,
    /// The probes found nobody, and the policy allows to go on with fewer than half of the known nodes.
    free: bool,
    told_alone: bool,
}

impl Candidate {
    pub(super) fn new(now: Time) -> Self {
        Self {
            since: now,
            ask_at: now,
            heard: Vec::new(),
            cluster_at: None,
            master: None,
            refused: None,
            granted: None,
            offer: None,
            probing: false,
            free: false,
            told_alone: false,
        }
    }

    pub(super) fn poll_timeout(&self) -> Time {
        self.ask_at
    }

    pub(super) fn handle_datagram(
        &mut self,
        base: &mut Base,
        now: Time,
        back: Destination,
        sender: StartId,
        datagram: Datagram,
    ) -> Next {
        match datagram {
            Datagram::View(view) => return self.on_view(base, now, *view),
            Datagram::Join(join) => self.on_join(base, now, sender, *join),
            Datagram::JoinProgress => self.cluster_at = Some(now),
            Datagram::JoinMaster(addresses) => {
                self.cluster_at = Some(now);
                self.master = Some(addresses);
            }
            Datagram::JoinRefused(refusal) => {
                self.cluster_at = Some(now);
                if self.refused.as_ref() != Some(&*refusal) {
                    base.event(Event::Refused((*refusal).clone()));
                    self.refused = Some(*refusal);
                }
            }
            Datagram::Announce { leased, .. } => {
                if leased {
                    self.cluster_at = Some(now);
                }
            }
            Datagram::Offer => self.on_offer(base, now, back, sender),
            Datagram::Grant { offered } => {
                if let Some(offer) = &mut self.offer
                    && offered == base.config.identity.start
                    && !offer.granted.contains(&sender)
                    && offer.granted.len() < HEARD_MAX
                {
                    offer.granted.push(sender);
                }
            }
            // All these are between members.
            Datagram::Keepalive(_)
            | Datagram::Prepare { .. }
            | Datagram::Promise { .. }
            | Datagram::Propose { .. }
            | Datagram::Accept { .. }
            | Datagram::WantTable { .. }
            | Datagram::TablePart { .. }
            | Datagram::TableDelta { .. }
            | Datagram::Hail { .. }
            | Datagram::Moves { .. }
            | Datagram::Act { .. } => {}
        }
        Next::Stay
    }

    fn on_view(&mut self, base: &mut Base, now: Time, view: View) -> Next {
        self.cluster_at = Some(now);
        let Some(own) = view.by_start(base.config.identity.start) else { return Next::Stay };
        // A founder may count on this node only while the grant holds.
        let founder = view.member(view.master()).map(|master| master.identity.start);
        let granted = self.granted.filter(|(_, until)| now < *until).map(|(to, _)| to);
        if own.role == Role::Full && (view.base() != ViewId::default() || granted != founder) {
            return Next::Stay;
        }
        Seat::new(now, view, base.config.identity.start).map_or(Next::Stay, |seat| Next::Seat(Box::new(seat)))
    }

    fn on_join(&mut self, base: &Base, now: Time, sender: StartId, join: Join) {
        let config = &base.config;
        let fits = join.protocol == PROTOCOL
            && join.config_hash == config.config_hash
            && join.config_version == config.config_version
            && join.identity.start == sender
            && join.identity.name != config.identity.name;
        if !fits {
            return;
        }
        self.heard.retain(|heard| heard.identity.name != join.identity.name);
        if self.heard.len() < HEARD_MAX {
            self.heard.push(Heard { identity: join.identity, at: now });
        }
    }

    fn on_offer(&mut self, base: &mut Base, now: Time, back: Destination, sender: StartId) {
        let bound = self.granted.is_some_and(|(to, until)| to != sender && now < until);
        let known = self.heard.iter().any(|heard| heard.identity.start == sender);
        if bound || !known || self.cluster_is_there(base, now) {
            return;
        }
        // Two offers at once: the lower name stands, and the other one yields to it.
        if self.offer.is_some() {
            let lower = self
                .heard
                .iter()
                .any(|heard| heard.identity.start == sender && heard.identity.name < base.config.identity.name);
            if !lower {
                return;
            }
            self.offer = None;
        }
        self.granted = Some((sender, now + base.config.policy.grant));
        base.reply(back, &Datagram::Grant { offered: sender });
    }

    pub(super) fn handle_timeout(&mut self, base: &mut Base, now: Time) -> Next {
        if now < self.ask_at {
            return Next::Stay;
        }
        let policy = &base.config.policy;
        let interval = policy.join_interval;
        let slowed = self.refused.is_some() && self.cluster_is_there(base, now);
        self.ask_at = now + if slowed { interval.saturating_mul(REFUSED_SLOWDOWN) } else { interval };
        let fresh = interval.saturating_mul(10);
        self.heard.retain(|heard| now.since(heard.at) < fresh);
        self.ask(base);
        self.found(base, now)
    }

    pub(super) fn handle_probe(&mut self, base: &mut Base, now: Time, probe: Probe) -> Next {
        if std::mem::take(&mut self.probing) {
            self.free = probe == Probe::Free;
            self.since = now;
            return self.found(base, now);
        }
        Next::Stay
    }

    fn ask(&self, base: &mut Base) {
        let join = Datagram::Join(Box::new(Join {
            protocol: PROTOCOL,
            config_version: base.config.config_version,
            config_hash: base.config.config_hash,
            identity: base.config.identity.clone(),
        }));
        let mut addresses: Vec<Addresses> = base.config.peers.iter().map(|peer| peer.addresses).collect();
        addresses.extend(self.master.filter(|master| !addresses.contains(master)));
        for to in addresses {
            base.mail(&to, &join);
        }
    }

    fn cluster_is_there(&self, base: &Base, now: Time) -> bool {
        let wait = base.config.policy.grant;
        self.cluster_at.is_some_and(|at| now.since(at) < wait.saturating_mul(2))
    }

    /// Founds the cluster with those that ask as well, if nobody answers: by an offer that stands for 100 ms, and that
    /// more than half of the known nodes, this one included, must grant.
    fn found(&mut self, base: &mut Base, now: Time) -> Next {
        let policy = &base.config.policy;
        if self.cluster_is_there(base, now) || self.granted.is_some_and(|(_, until)| now < until) {
            self.offer = None;
            return Next::Stay;
        }
        let known = base.config.peers.len().saturating_add(1);
        let enough = |count: usize| count.saturating_mul(2) > known;
        if let Some(offer) = &self.offer {
            if now < offer.since + policy.offer {
                return Next::Stay;
            }
            let granted = self.offer.take().map(|offer| offer.granted).unwrap_or_default();
            let agreed = granted.len().saturating_add(1);
            if enough(agreed) || self.free {
                return self.make_view(base, now, &granted);
            }
            return Next::Stay;
        }
        let heard = self.heard.len().saturating_add(1);
        let waited = now >= self.since + policy.founding_wait;
        let complete = heard >= known && now >= self.since + policy.offer;
        let first = self.heard.iter().all(|heard| base.config.identity.name < heard.identity.name);
        if !(waited || complete) || !first {
            return Next::Stay;
        }
        if !enough(heard) && !self.free {
            if !self.told_alone {
                self.told_alone = true;
                base.event(Event::Alone);
            }
            if base.config.lone_survivor == LoneSurvivor::Serve && !self.probing {
                self.probing = true;
                base.outputs.push_back(Output::Probe);
            }
            return Next::Stay;
        }
        self.offer = Some(Offer { since: now, granted: Vec::new() });
        for heard in &self.heard {
            base.mail(&heard.identity.addresses, &Datagram::Offer);
        }
        Next::Stay
    }

    fn make_view(&self, base: &mut Base, now: Time, granted: &[StartId]) -> Next {
        let own = base.config.identity.clone();
        let others = self.heard.iter().filter(|heard| granted.contains(&heard.identity.start));
        let mut identities: Vec<Identity> = others.map(|heard| heard.identity.clone()).chain([own.clone()]).collect();
        identities.sort_by(|a, b| a.name.cmp(&b.name));
        let members: Vec<Member> = (0..)
            .map_while(Slot::new)
            .zip(identities)
            .map(|(slot, identity)| Member { slot, role: Role::Full, identity })
            .collect();
        let Some(master) = members.iter().find(|member| member.identity.start == own.start).map(|member| member.slot)
        else {
            return Next::Stay;
        };
        let known = base.config.peers.len().saturating_add(1);
        // Founded by fewer than half: the others may be alive elsewhere. They share no session with this part.
        let few = members.len().saturating_mul(2) <= known;
        let names = base.config.peers.iter().map(|peer| peer.name.clone());
        let absent = names.filter(|name| few && !members.iter().any(|member| member.identity.name == *name));
        let absentee = |name| Absentee { name, slot: None, missing: true, apart: false, drained: false, age_ms: 0 };
        let absentees = absent.map(absentee).collect();
        let Some(view) = View::new(ViewId::default(), base.rng.next_u64(), 0, master, members, absentees) else {
            return Next::Stay;
        };
        for member in view.members() {
            if member.identity.start != own.start {
                base.mail(&member.identity.addresses, &Datagram::View(Box::new(view.clone())));
            }
        }
        Seat::new(now, view, own.start).map_or(Next::Stay, |seat| Next::Seat(Box::new(seat)))
    }
}
