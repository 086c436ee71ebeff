//! Keepalives, the lease that their echoes give, and how many of them the networks need.

use std::time::Duration;

use wire::{Slot, Time, Writer};

use super::seat::Seat;
use super::{Base, Destination, How, Next, address_on};
use crate::datagram::{Datagram, Keepalive};
use crate::identity::{Network, StartId};
use crate::policy::Policy;
use crate::slots::SlotMask;
use crate::view::ViewId;

/// Rounds whose send time is remembered; more than a lease holds.
const RING: u64 = 128;
/// Lost keepalives that count at once: after a cut the network is not taken for a lossy one.
const LOSS_MAX: u64 = 16;
/// A node that does not hold a table says so with this number.
pub(super) const NO_TABLE: u32 = u32::MAX;

/// What a member knows of another.
#[derive(Debug, Default)]
pub(super) struct PeerState {
    pub(super) start: StartId,
    /// When a keepalive of it was accepted last, or it became a member.
    pub(super) accepted_at: Time,
    /// The counter of that keepalive.
    pub(super) counter: u64,
    /// When the newest of our keepalives that it has echoed in our view was sent.
    pub(super) echoed: Option<Time>,
    /// The same for the view that it has voted for or entered before us.
    echoed_next: Option<(ViewId, Time)>,
    pub(super) last: Keepalive,
    pub(super) loss: f64,
    /// Keepalives per lease that we want from it.
    pub(super) wanted: u8,
    lossy_at: Time,
    pub(super) view_sent_at: Time,
    pub(super) table_sent_at: Time,
    pub(super) parts_sent_at: Time,
}

impl PeerState {
    pub(super) fn new(start: StartId, now: Time) -> Self {
        Self { start, accepted_at: now, ..Self::default() }
    }
}

/// The rounds that were sent, and when the next is due.
#[derive(Debug)]
pub(super) struct Sent {
    counter: u64,
    times: Box<[Time]>,
    pub(super) next_round: Time,
    pub(super) evaluated_at: Time,
}

impl Sent {
    /// Rounds are counted from the start id on, which is random, so that no round of one node is one of another's: an echo
    /// that somebody copies to a node which it was not sent to gives that one no lease.
    pub(super) fn new(now: Time, start: StartId) -> Self {
        Self { counter: start.0 >> 1, times: (0..RING).map(|_| now).collect(), next_round: now, evaluated_at: now }
    }

    fn note(&mut self, now: Time) {
        self.counter = self.counter.saturating_add(1);
        if let Some(time) =
            usize::try_from(self.counter & RING.wrapping_sub(1)).ok().and_then(|at| self.times.get_mut(at))
        {
            *time = now;
        }
    }

    /// When round `counter` was sent, if it was and is remembered.
    fn at(&self, counter: u64) -> Option<Time> {
        if counter == 0 || counter > self.counter || self.counter.saturating_sub(counter) >= RING {
            return None;
        }
        usize::try_from(counter & RING.wrapping_sub(1)).ok().and_then(|at| self.times.get(at)).copied()
    }
}

impl Seat {
    /// Whether this keepalive or a later one of the sender came over another network already.
    pub(super) fn is_repeat(&self, sender: StartId, counter: u64) -> bool {
        let Some(member) = self.view.by_start(sender) else { return false };
        self.peers[member.slot].counter >= counter
    }

    pub(super) fn on_keepalive(&mut self, base: &mut Base, now: Time, slot: Slot, keepalive: &Keepalive) -> Next {
        // What the master shuns goes silent here too, so that the vote without it is safe.
        if self.shun.contains(slot) || keepalive.counter <= self.peers[slot].counter {
            return Next::Stay;
        }
        let peer = &mut self.peers[slot];
        let missed = keepalive.counter.saturating_sub(peer.counter).saturating_sub(1);
        let first = peer.counter == 0;
        peer.counter = keepalive.counter;
        peer.accepted_at = now;
        let changed = peer.last.view != keepalive.view || peer.last.table != keepalive.table;
        peer.last = *keepalive;
        if !first {
            peer.judge_loss(now, missed.min(LOSS_MAX), &base.config.policy);
        }
        self.note_echo(base, now, slot, keepalive);
        let id = self.view.id();
        if keepalive.view.number < id.number {
            self.send_view(base, now, slot);
        } else if keepalive.view.number > id.number {
            // It has entered the view that this node has voted for.
            let accepted = self.acceptor.accepted.as_ref().filter(|(_, view)| view.id() == keepalive.view);
            if let Some((_, view)) = accepted {
                let view = (**view).clone();
                return self.install(base, now, view);
            }
        } else if slot == self.view.master() && keepalive.view == id {
            // A vote that waits needs silence whether the master does or not: it may wait for no vote of its own any more.
            let needed = self.shun.and(self.acceptor.waits_to_remove(self.view.full()));
            self.shun = keepalive.shun.or(needed).without(self.own);
            self.drained = keepalive.drained;
            if keepalive.table_committed > self.table_committed {
                self.table_committed = keepalive.table_committed;
                self.drive_moves(base, now);
            }
        }
        if changed {
            self.drive_sync(base, now);
            return self.drive_change(base, now);
        }
        Next::Stay
    }

    fn note_echo(&mut self, base: &mut Base, now: Time, slot: Slot, keepalive: &Keepalive) {
        let Some(sent) = self.sent.at(keepalive.echo) else { return };
        let named = match keepalive.voted {
            0 => keepalive.view,
            digest => ViewId { number: keepalive.view.number.saturating_add(1), digest },
        };
        let peer = &mut self.peers[slot];
        if named == self.view.id() {
            if peer.echoed.is_none_or(|before| before < sent) {
                peer.echoed = Some(sent);
                self.renew_lease(base, now);
            }
        } else if named.number > self.view.id().number {
            peer.echoed_next = Some((named, sent));
        }
    }

    /// Echoes that named this view before it was installed here count now; those of the view before do not.
    pub(super) fn adopt_echoes(&mut self) {
        let id = self.view.id();
        for (_, peer) in self.peers.iter_mut() {
            peer.echoed = peer.echoed_next.take().filter(|(named, _)| *named == id).map(|(_, sent)| sent);
        }
    }

    /// The lease runs for L from the moment at which the oldest of a quorum's echoed keepalives was *sent*.
    pub(super) fn renew_lease(&mut self, base: &mut Base, now: Time) {
        if !self.is_full() {
            return;
        }
        let mut times = [(Time::ZERO, self.own); Slot::COUNT];
        let mut filled = 0_usize;
        // Who has voted for the next view echoes in this one no more, not even itself.
        let own =
            (self.own, Some(self.acceptor.voted_at.unwrap_or(now)).filter(|_| !self.acceptor.has_voted_out(self.own)));
        let others = self.view.full().without(self.own).iter().map(|slot| (slot, self.peers[slot].echoed));
        for (slot, echoed) in others.chain([own]) {
            if let (Some(sent), Some(place)) = (echoed, times.get_mut(filled)) {
                *place = (sent, slot);
                filled = filled.saturating_add(1);
            }
        }
        let times = times.get_mut(..filled).unwrap_or_default();
        times.sort_unstable_by(|a, b| b.cmp(a));
        let mut have = SlotMask::EMPTY;
        for (sent, slot) in times {
            have = have.with(*slot);
            if self.view.is_quorum(have) {
                let until = *sent + base.config.policy.lease;
                if until > now {
                    self.ever_leased = true;
                }
                base.lease_until = base.lease_until.max(until);
                if base.lease_until > now && std::mem::take(&mut self.awaits_lease) {
                    self.reconcile(base, now, How::Unplanned);
                }
                return;
            }
        }
    }

    /// Starts a round: a keepalive to every member over every network.
    pub(super) fn begin_round(&mut self, base: &mut Base, now: Time) {
        self.sent.note(now);
        self.sent.evaluated_at = now;
        let policy = &base.config.policy;
        let mut per_lease = policy.keepalives_min;
        for member in self.view.members() {
            if member.slot == self.own {
                continue;
            }
            let networks = Network::all().zip(&member.identity.addresses);
            let reachable = networks.filter(|(network, to)| to.is_some() && base.has(*network));
            base.due[member.slot] = reachable.fold(0, |mask, (network, _)| mask | bit(network));
            per_lease = per_lease.max(self.peers[member.slot].last.wanted.min(policy.keepalives_max));
        }
        self.sent.next_round = now + policy.lease.checked_div(u32::from(per_lease)).unwrap_or(policy.lease);
    }

    /// Writes the next keepalive that is due.
    pub(super) fn poll_keepalive(&mut self, base: &mut Base, buffer: &mut Vec<u8>) -> Option<Destination> {
        for member in self.view.members() {
            let due = base.due[member.slot];
            if due == 0 {
                continue;
            }
            let network = Network::new(u8::try_from(due.trailing_zeros()).ok()?)?;
            base.due[member.slot] = due & !bit(network);
            let Some(to) = address_on(&member.identity.addresses, network) else { continue };
            let mut w = Writer::reuse(std::mem::take(buffer));
            self.keepalive_for(base, member.slot).encode(&mut w);
            *buffer = w.into_bytes();
            return Some(Destination { network, to });
        }
        None
    }

    fn keepalive_for(&self, base: &Base, slot: Slot) -> Keepalive {
        let peer = &self.peers[slot];
        Keepalive {
            counter: self.sent.counter,
            view: self.view.id(),
            voted: self.acceptor.accepted.as_ref().map_or(0, |(_, view)| view.id().digest),
            echo: peer.counter,
            table: self.table.as_ref().map_or(NO_TABLE, |table| table.version().sequence),
            table_committed: self.table_committed,
            hears: self.hears(base, self.sent.evaluated_at),
            counted: self.counted,
            slow: self.slow,
            shun: self.shun,
            drained: self.drained,
            wanted: peer.wanted,
            weight: base.config.identity.weight,
        }
    }

    /// Tells a member that is behind which view is in force.
    pub(super) fn send_view(&mut self, base: &mut Base, now: Time, slot: Slot) {
        let peer = &mut self.peers[slot];
        if now.since(peer.view_sent_at) < base.config.policy.resend {
            return;
        }
        peer.view_sent_at = now;
        self.mail_to(base, slot, &Datagram::View(Box::new((*self.view).clone())));
    }

    pub(super) fn mail_to(&self, base: &mut Base, slot: Slot, datagram: &Datagram) {
        if let Some(member) = self.view.member(slot) {
            base.mail(&member.identity.addresses, datagram);
        }
    }

    pub(super) fn mail_full(&self, base: &mut Base, datagram: &Datagram) {
        for slot in self.view.full().without(self.own).iter() {
            self.mail_to(base, slot, datagram);
        }
    }
}

impl PeerState {
    /// Seed 001: `P = P*127/128 + S/128`; the smallest n with n·Pⁿ below one false alarm in the time allowed is asked
    /// for, up at once and down slowly.
    fn judge_loss(&mut self, now: Time, missed: u64, policy: &Policy) {
        let missed_now = f64::from(u32::try_from(missed).unwrap_or(u32::MAX));
        self.loss = self.loss.mul_add(127.0 / 128.0, missed_now / 128.0);
        if missed == 0 && self.counter & 0x3f != 0 {
            return;
        }
        let wanted = keepalives_for(self.loss, policy);
        if wanted >= self.wanted {
            self.lossy_at = now;
            self.wanted = wanted;
        } else if now.since(self.lossy_at) >= policy.keepalives_hold {
            self.lossy_at = now;
            self.wanted = self.wanted.saturating_sub(1);
        }
    }
}

/// The smallest number of keepalives in one lease with which a lossy network is not mistaken for a dead node.
fn keepalives_for(loss: f64, policy: &Policy) -> u8 {
    let ratio = |a: Duration, b: Duration| a.as_secs_f64() / b.as_secs_f64();
    let bound = ratio(policy.lease, policy.false_alarm);
    let mut power = 1.0;
    for n in 1..policy.keepalives_max {
        power *= loss.min(1.0);
        if n >= policy.keepalives_min && f64::from(n) * power < bound {
            return n;
        }
    }
    policy.keepalives_max
}

fn bit(network: Network) -> u8 {
    1_u8.checked_shl(u32::from(network.number())).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_loss_asks_for_more_keepalives_within_bounds() {
        let policy = Policy::default();
        assert_eq!(keepalives_for(0.0, &policy), 8);
        let numbers: Vec<u8> = [0.05, 0.1, 0.2, 0.3, 0.5, 0.9].iter().map(|p| keepalives_for(*p, &policy)).collect();
        assert!(numbers.is_sorted(), "{numbers:?}");
        assert_eq!(numbers.last(), Some(&policy.keepalives_max));
    }
}
