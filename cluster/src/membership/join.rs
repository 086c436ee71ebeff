//! Who asks to join, what learners need to become full, and what operators order.

use wire::{Slot, Time};

use super::seat::Seat;
use super::{Act, Base, Destination, Event, Output, Refusal};
use crate::datagram::{Datagram, Join, PROTOCOL};
use crate::identity::{Identity, StartId};
use crate::view::Role;

/// Nodes that wait to be let in.
const APPLICANTS_MAX: usize = 16;

/// A node that asks to join.
#[derive(Debug)]
pub(super) struct Applicant {
    pub(super) identity: Identity,
    pub(super) approved: bool,
    seen_at: Time,
}

/// What becomes of a request that fits.
enum Verdict {
    Ask,
    Wait,
}

impl Seat {
    pub(super) fn on_join(&mut self, base: &mut Base, now: Time, back: Destination, sender: StartId, join: Join) {
        if base.lease_until <= now || join.identity.start != sender {
            return;
        }
        if !self.is_master() {
            if let Some(master) = self.view.member(self.view.master()) {
                let addresses = master.identity.addresses;
                base.reply(back, &Datagram::JoinMaster(addresses));
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
        base.reply(back, &answer);
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
        // A program that was started again asks under a new number; its older question is void. But a request that
        // somebody has recorded and repeats does not keep out who may come in.
        let same = |applicant: &Applicant| applicant.identity.name == identity.name;
        if self.applicants.iter().any(|applicant| applicant.approved && same(applicant)) {
            return;
        }
        self.applicants.retain(|applicant| !same(applicant));
        if self.applicants.len() < APPLICANTS_MAX {
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
                if let Some(applicant) = self.applicants.get_mut(at).filter(|applicant| !applicant.approved) {
                    applicant.approved = true;
                    base.event(Event::JoinAsked(applicant.identity.name.clone()));
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
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use wire::Writer;

    use super::*;
    use crate::identity::{Addresses, Name, Network};
    use crate::membership::{Config, Membership};
    use crate::policy::{LoneSurvivor, Policy};

    const TICK: Duration = Duration::from_millis(1);
    const FROM: ([u8; 4], u16) = ([10, 0, 0, 2], 4600);

    fn identity(name: &str, start: u64) -> Identity {
        let mut addresses = Addresses::default();
        addresses[0] = Some(FROM.into());
        Identity { name: Name::new(name).unwrap(), start: StartId(start), addresses, weight: 1 }
    }

    /// The master of a cluster of one, at work.
    fn master(now: &mut Time) -> Membership {
        let config = Config {
            identity: identity("n1", 1 << 40),
            peers: Vec::new(),
            config_version: 1,
            config_hash: [1; 32],
            lone_survivor: LoneSurvivor::Wait,
            policy: Policy::default(),
            seed: [0; 32],
        };
        let mut master = Membership::new(*now, config);
        while master.lease_until() <= *now {
            *now += TICK;
            master.handle_timeout(*now);
        }
        master
    }

    fn news(master: &mut Membership) -> Vec<Output> {
        let outputs = std::iter::from_fn(|| master.poll_output());
        outputs.filter(|o| matches!(o, Output::JoinAsked(_) | Output::Event(Event::JoinAsked(_)))).collect()
    }

    fn ask(master: &mut Membership, now: Time, start: u64) -> Vec<Output> {
        let (config_version, config_hash) = (1, [1; 32]);
        let identity = identity("n2", start);
        let join = Join { protocol: PROTOCOL, config_version, config_hash, identity };
        let mut w = Writer::new();
        Datagram::Join(Box::new(join)).encode(&mut w);
        master.handle_datagram(now, Network::new(0).unwrap(), FROM.into(), StartId(start), w.as_slice());
        news(master)
    }

    #[test]
    fn a_repeated_request_of_an_earlier_life_keeps_nobody_out_and_fills_no_log() {
        let mut now = Time::ZERO;
        let mut master = master(&mut now);
        assert_eq!(ask(&mut master, now, 10), [Output::JoinAsked(identity("n2", 10))]);
        assert_eq!(ask(&mut master, now, 20), [Output::JoinAsked(identity("n2", 20))], "it may have started again");
        master.handle_join_verdict(now, StartId(10), Ok(()));
        master.handle_join_verdict(now, StartId(20), Ok(()));
        assert_eq!(news(&mut master), [Output::Event(Event::JoinAsked(Name::new("n2").unwrap()))]);
        assert!(ask(&mut master, now, 10).is_empty());
        while master.view().is_some_and(|view| view.members().len() == 1) && now < Time::from_millis(1000) {
            now += TICK;
            master.handle_timeout(now);
        }
        assert!(master.view().is_some_and(|view| view.by_start(StartId(20)).is_some()));
    }
}
