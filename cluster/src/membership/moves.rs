//! Planned moves, and the balance that asks for them.
//!
//! The master writes a hand-off into the table; nobody acts on it before all full members hold that version. Then the new
//! owner queues and says so to the old one; that one stops and sends the final state through its replication stream; the
//! new one takes it, works, and reports to the master, who writes it down as the owner. Until then the new owner is, by
//! the table, who takes the set if the old one dies.

use std::collections::BTreeMap;

use wire::{Epoch, Slot, Tenure, Time, WorkSet};

use super::seat::Seat;
use super::{Base, How, Output};
use crate::datagram::{DELTA_MAX, Datagram, MOVES_MAX, Step};
use crate::slots::{SlotMap, SlotMask};
use crate::table::{Handoff, pick_heir};
use crate::view::ViewId;

/// How far a move to this node has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Preparing,
    Queueing,
    /// The final state is here, and this node holds no lease: others may have gone on without it, and with the set.
    Handed,
    Taken,
}

/// A move to this node.
#[derive(Clone, Copy, Debug)]
pub(super) struct MoveIn {
    pub(super) epoch: Epoch,
    from: Slot,
    stage: Stage,
    /// When the old owner may hear that this node queues.
    tell_at: Time,
}

impl MoveIn {
    pub(super) fn is_taken(self) -> bool {
        self.stage == Stage::Taken
    }
}

/// A move away from this node that has stopped it.
#[derive(Clone, Copy, Debug)]
pub(super) struct MoveOut {
    pub(super) epoch: Epoch,
}

impl Seat {
    /// Carries moves on, and starts new ones if this node is master.
    pub(super) fn drive_moves(&mut self, base: &mut Base, now: Time) {
        self.begin_moves_in(base);
        self.take_handed(base, now);
        if now >= self.moves_at && !self.moves_in.is_empty() {
            self.moves_at = now + base.config.policy.resend;
            self.report_moves(base, now);
        }
        if self.is_settled() {
            if !self.taken.is_empty() {
                self.settle_taken(base, now);
            } else if now >= self.balance_at {
                self.balance_at = now + base.config.policy.balance_interval;
                self.balance(base, now);
            }
        }
    }

    fn begin_moves_in(&mut self, base: &mut Base) {
        let Some(table) = &self.table else { return };
        let seen = Some((table.version(), self.table_committed));
        if self.moves_seen == seen {
            return;
        }
        self.moves_seen = seen;
        if !table.has_handoff_to(self.own) {
            return;
        }
        for (set, entry) in table.iter() {
            let Some(handoff) = entry.handoff.filter(|handoff| handoff.to == self.own) else { continue };
            if self.table_committed < table.changed(set) || self.moves_in.contains_key(&set) {
                continue;
            }
            // A version that showed the end of this move was taken back for a vote: that it ended is to be told again.
            let is_taken = self.held[set] == Some(handoff.epoch);
            let stage = if is_taken { Stage::Taken } else { Stage::Preparing };
            self.moves_in.insert(set, MoveIn { epoch: handoff.epoch, from: entry.owner, stage, tell_at: Time::ZERO });
            if is_taken {
                continue;
            }
            let tenure = Tenure { epoch: handoff.epoch, slot: self.own };
            base.outputs.push_back(Output::Prepare { set, tenure, from: entry.owner });
        }
    }

    pub(super) fn on_prepared(&mut self, base: &mut Base, now: Time, set: WorkSet, epoch: Epoch) {
        if let Some(moving) = self.moves_in.get_mut(&set)
            && moving.epoch == epoch
            && moving.stage == Stage::Preparing
        {
            moving.stage = Stage::Queueing;
            // A frame that came too early for this node's queue has passed the old owner by then.
            moving.tell_at = now + base.config.policy.skew;
            let tell_at = moving.tell_at;
            self.report_when_done(base, now, tell_at, Stage::Preparing);
        }
    }

    pub(super) fn on_taken(&mut self, base: &mut Base, now: Time, set: WorkSet, epoch: Epoch) {
        let Some(moving) = self.moves_in.get_mut(&set) else { return };
        if moving.epoch == epoch && moving.stage == Stage::Queueing {
            moving.stage = Stage::Handed;
            self.report_when_done(base, now, now, Stage::Queueing);
        }
    }

    /// Begins to work for what was handed to this node.
    fn take_handed(&mut self, base: &mut Base, now: Time) {
        if base.lease_until <= now {
            return;
        }
        let is_master = self.is_master();
        for (set, moving) in self.moves_in.iter_mut().filter(|(_, moving)| moving.stage == Stage::Handed) {
            moving.stage = Stage::Taken;
            self.held[*set] = Some(moving.epoch);
            let tenure = Tenure { epoch: moving.epoch, slot: self.own };
            base.outputs.push_back(Output::Acquire { set: *set, tenure, how: How::Planned });
            if is_master {
                self.taken.push((*set, self.own, moving.epoch));
            }
        }
    }

    /// Reports at the time `at` when the last move has left `stage`; till then the next report in turn does, so that many moves
    /// at a time do not make a datagram each.
    fn report_when_done(&mut self, base: &mut Base, now: Time, at: Time, stage: Stage) {
        if !self.moves_in.values().any(|moving| moving.stage == stage) {
            self.moves_at = self.moves_at.min(at);
        }
        self.drive_moves(base, now);
    }

    fn report_moves(&mut self, base: &mut Base, now: Time) {
        let mut queueing: BTreeMap<Slot, Vec<(WorkSet, Epoch)>> = BTreeMap::new();
        let mut taken = Vec::new();
        for (set, moving) in &self.moves_in {
            match moving.stage {
                Stage::Preparing | Stage::Handed => {}
                Stage::Queueing if now < moving.tell_at => {}
                Stage::Queueing => queueing.entry(moving.from).or_default().push((*set, moving.epoch)),
                Stage::Taken => taken.push((*set, moving.epoch)),
            }
        }
        let view = self.view.id();
        for (slot, mut sets) in queueing {
            sets.truncate(MOVES_MAX);
            self.mail_to(base, slot, &Datagram::Moves { view, step: Step::Queueing, sets });
        }
        if self.is_master() {
            // What it took under the master before, it writes down itself.
            for (set, epoch) in taken {
                if !self.taken.contains(&(set, self.own, epoch)) {
                    self.taken.push((set, self.own, epoch));
                }
            }
        } else if !taken.is_empty() {
            taken.truncate(MOVES_MAX);
            self.mail_to(base, self.view.master(), &Datagram::Moves { view, step: Step::Taken, sets: taken });
        }
    }

    pub(super) fn on_moves(
        &mut self,
        base: &mut Base,
        now: Time,
        slot: Slot,
        view: ViewId,
        step: Step,
        sets: &[(WorkSet, Epoch)],
    ) {
        if view != self.view.id() {
            return;
        }
        for (set, epoch) in sets {
            let Some(table) = &self.table else { return };
            let entry = *table.assignment(*set);
            if entry.handoff != Some(Handoff { to: slot, epoch: *epoch }) {
                continue;
            }
            match step {
                Step::Queueing => {
                    let committed = self.table_committed >= table.changed(*set);
                    if entry.owner == self.own && committed && !self.moves_out.contains_key(set) {
                        self.stop(base, *set, slot, *epoch);
                    }
                }
                Step::Taken => {
                    if self.is_master() && !self.taken.contains(&(*set, slot, *epoch)) {
                        self.taken.push((*set, slot, *epoch));
                    }
                }
            }
        }
        self.drive_moves(base, now);
    }

    fn stop(&mut self, base: &mut Base, set: WorkSet, to: Slot, epoch: Epoch) {
        let Some(member) = self.view.member(to) else { return };
        self.moves_out.insert(set, MoveOut { epoch });
        self.held[set] = None;
        let tenure = Tenure { epoch, slot: to };
        base.outputs.push_back(Output::Stop { set, to: member.identity.start, tenure });
    }

    /// Writes those down as owners that have taken their sets.
    fn settle_taken(&mut self, base: &mut Base, now: Time) {
        let workers = self.workers();
        let Some(table) = &mut self.table else { return };
        let taken = self.taken.split_off(0);
        let valid = |table: &crate::table::Table, (set, by, epoch): &(WorkSet, Slot, Epoch)| {
            table.assignment(*set).handoff == Some(Handoff { to: *by, epoch: *epoch })
        };
        let mut taken: Vec<_> = taken.into_iter().filter(|report| valid(table, report)).collect();
        if taken.is_empty() {
            return;
        }
        self.taken = taken.split_off(taken.len().min(DELTA_MAX));
        table.advance();
        for (set, by, epoch) in taken {
            let mut entry = *table.assignment(set);
            entry.owner = by;
            entry.epoch = epoch;
            entry.handoff = None;
            entry.heir = heir(set, workers, self.view.full(), by);
            table.write(set, entry);
        }
        self.on_table(base, now);
        self.drive_sync(base, now);
    }

    /// Starts moves until each worker has its share by weight, with as few moves as that takes; spreads the heirs.
    fn balance(&mut self, base: &mut Base, now: Time) {
        let workers = self.workers();
        let full = self.view.full();
        let Some(table) = &self.table else { return };
        let mut owned = table.owned();
        let share = self.shares(base, workers);
        let running = table.iter().filter(|(_, entry)| entry.handoff.is_some()).count();
        let mut room = base.config.policy.moves_max.saturating_sub(running).min(DELTA_MAX);
        let mut changes = Vec::new();
        for (set, entry) in table.iter() {
            if changes.len() >= DELTA_MAX {
                break;
            }
            if entry.handoff.is_some() {
                continue;
            }
            let mut entry = *entry;
            let surplus = owned[entry.owner] > share[entry.owner];
            let target = workers.iter().find(|slot| owned[*slot] < share[*slot]);
            if let (true, true, Some(to)) = (surplus, room > 0, target) {
                room = room.saturating_sub(1);
                owned[entry.owner] = owned[entry.owner].saturating_sub(1);
                owned[to] = owned[to].saturating_add(1);
                let epoch = Epoch { count: entry.epoch.count.saturating_add(1), master: self.own };
                entry.handoff = Some(Handoff { to, epoch });
                changes.push((set, entry));
                continue;
            }
            let heir = heir(set, workers, full, entry.owner);
            if entry.heir != heir {
                entry.heir = heir;
                changes.push((set, entry));
            }
        }
        if changes.is_empty() {
            return;
        }
        // More may be left to do: look again as soon as this version is held by all.
        self.balance_at = now + base.config.policy.resend;
        if let Some(table) = &mut self.table {
            table.advance();
            for (set, entry) in changes {
                table.write(set, entry);
            }
        }
        self.on_table(base, now);
        self.drive_sync(base, now);
    }

    /// How many sets each worker is to own, by weight.
    fn shares(&self, base: &Base, workers: SlotMask) -> SlotMap<u16> {
        let weight = |slot: Slot| {
            let told = if slot == self.own { base.config.identity.weight } else { self.peers[slot].last.weight };
            u32::from(told.max(1))
        };
        let total: u32 = workers.iter().map(weight).sum();
        let mut share = SlotMap::<u16>::default();
        let (mut left, mut weight_left) = (u32::try_from(WorkSet::COUNT).unwrap_or(0), total);
        for slot in workers.iter() {
            let part = left.saturating_mul(weight(slot)).checked_div(weight_left).unwrap_or(left);
            share[slot] = u16::try_from(part).unwrap_or(u16::MAX);
            left = left.saturating_sub(part);
            weight_left = weight_left.saturating_sub(weight(slot));
        }
        share
    }
}

/// The heir of a set: a worker if there is another, else any full member.
fn heir(set: WorkSet, workers: SlotMask, full: SlotMask, owner: Slot) -> Slot {
    let others = if workers.without(owner).is_empty() { full } else { workers };
    pick_heir(set, others, owner)
}
