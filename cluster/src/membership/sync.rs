//! How the master's table reaches every member.

use wire::{Slot, Time, WorkSet};

use super::keepalive::NO_TABLE;
use super::seat::Seat;
use super::{Base, How};
use crate::datagram::{DELTA_MAX, Datagram, PART_LEN, PARTS};
use crate::slots::SlotMask;
use crate::table::{Assignment, Table, TableVersion};
use crate::view::ViewId;

/// A whole table of which parts have come.
#[derive(Debug, Default)]
pub(super) struct PartialTable {
    version: TableVersion,
    have: u8,
    table: Table,
    asked_at: Time,
    asked: u32,
    /// A vote waits for this version, though a newer one that nobody acts on yet is held here.
    rewind: Option<(u32, Slot)>,
}

impl Seat {
    /// A vote needs the version that the proposal builds on: `from` holds it.
    pub(super) fn rewind_table(&mut self, sequence: u32, from: Slot) {
        self.partial.rewind = Some((sequence, from));
    }

    /// Sends what others lack, and asks for what this node lacks.
    pub(super) fn drive_sync(&mut self, base: &mut Base, now: Time) {
        let resend = base.config.policy.resend;
        if self.proposal.is_none() && !self.acceptor.is_waiting() {
            self.partial.rewind = None;
        }
        let wants = self.table.is_none() || self.partial.rewind.is_some();
        if wants && now.since(self.partial.asked_at) >= resend {
            self.partial.asked_at = now;
            self.partial.asked = self.partial.asked.wrapping_add(1);
            // The master first; when it does not answer, the others in turn.
            let holders = self.view.full().without(self.own);
            let turn = usize::try_from(self.partial.asked).unwrap_or(0).checked_rem(4).unwrap_or(0);
            let other = holders.iter().nth(turn).unwrap_or(self.view.master());
            let from = match self.partial.rewind {
                Some((_, from)) => from,
                None if turn == 0 => self.view.master(),
                None => other,
            };
            let view = self.view.id();
            self.mail_to(base, from, &Datagram::WantTable { view });
        }
        if !self.is_master() {
            return;
        }
        let Some(sequence) = self.table.as_ref().map(|table| table.version().sequence) else { return };
        let id = self.view.id();
        let mut all_hold = sequence;
        for slot in self.view.all().without(self.own).iter() {
            let peer = &self.peers[slot];
            let held = if peer.last.view == id { peer.last.table } else { NO_TABLE };
            let full = self.view.full().contains(slot);
            if full {
                all_hold = all_hold.min(if held == NO_TABLE { 0 } else { held });
            }
            if held < sequence && peer.last.voted == 0 && now.since(peer.table_sent_at) >= resend {
                self.peers[slot].table_sent_at = now;
                self.send_changes(base, slot, held);
            }
        }
        if all_hold > self.table_committed {
            self.table_committed = all_hold;
            self.begin_round(base, now);
        }
    }

    fn send_changes(&mut self, base: &mut Base, slot: Slot, from: u32) {
        let Some(table) = &self.table else { return };
        let to = table.version().sequence;
        let entries: Vec<(WorkSet, Assignment)> =
            table.iter().filter(|(set, _)| table.changed(*set) > from).map(|(set, entry)| (set, *entry)).collect();
        if entries.len() > DELTA_MAX {
            self.send_table(base, slot);
            return;
        }
        let view = self.view.id();
        self.mail_to(base, slot, &Datagram::TableDelta { view, from, to, entries });
    }

    fn send_table(&self, base: &mut Base, slot: Slot) {
        let Some(table) = &self.table else { return };
        for part in 0..PARTS {
            let first = usize::from(part).saturating_mul(usize::from(PART_LEN));
            let entries = table.iter().skip(first).take(usize::from(PART_LEN)).map(|(_, entry)| *entry).collect();
            self.mail_to(base, slot, &Datagram::TablePart { version: table.version(), part, entries });
        }
    }

    pub(super) fn on_want_table(&mut self, base: &mut Base, slot: Slot, view: ViewId) {
        let now = self.sent.evaluated_at;
        if view != self.view.id() || now.since(self.peers[slot].parts_sent_at) < base.config.policy.resend / 2 {
            return;
        }
        self.peers[slot].parts_sent_at = now;
        self.send_table(base, slot);
    }

    pub(super) fn on_table_part(
        &mut self,
        base: &mut Base,
        now: Time,
        version: TableVersion,
        part: u8,
        entries: &[Assignment],
    ) {
        let held = self.table.as_ref().map(|table| table.version().sequence);
        let newer = held.is_none_or(|held| held < version.sequence) && self.acceptor.accepted.is_none();
        let rewinds = self.partial.rewind.is_some_and(|(sequence, _)| sequence == version.sequence);
        if version.view != self.view.id() || !(newer || rewinds) {
            return;
        }
        let partial = &mut self.partial;
        if partial.version != version {
            partial.version = version;
            partial.have = 0;
        }
        let first = u16::from(part).saturating_mul(PART_LEN);
        for (index, entry) in (first..).zip(entries) {
            if let Some(set) = WorkSet::new(index) {
                partial.table.copy(set, *entry, version.sequence);
            }
        }
        partial.have |= 1_u8.checked_shl(u32::from(part)).unwrap_or(0);
        if partial.have == u8::MAX {
            partial.table.reach(version);
            self.table = Some(std::mem::take(&mut partial.table));
            self.partial = PartialTable::default();
            self.on_table(base, now);
        }
    }

    pub(super) fn on_table_delta(
        &mut self,
        base: &mut Base,
        now: Time,
        view: ViewId,
        from: u32,
        to: u32,
        entries: &[(WorkSet, Assignment)],
    ) {
        // Who has voted keeps the version that its vote builds on.
        let elsewhere = self.partial.rewind.is_some_and(|(sequence, _)| sequence != to);
        if view != self.view.id() || self.acceptor.accepted.is_some() || elsewhere {
            return;
        }
        let Some(table) = &mut self.table else { return };
        let held = table.version().sequence;
        if from > held || to <= held {
            return;
        }
        for (set, entry) in entries {
            table.copy(*set, *entry, to);
        }
        table.reach(TableVersion { view, sequence: to });
        self.partial.rewind = None;
        self.on_table(base, now);
    }

    /// Another version of the table is held: acts on it and says so.
    pub(super) fn on_table(&mut self, base: &mut Base, now: Time) {
        self.reconcile(base, now, How::Unplanned);
        self.begin_round(base, now);
        self.drive_moves(base, now);
    }

    /// The full members that can own work.
    pub(super) fn workers(&self) -> SlotMask {
        let workers = self.view.full().minus(self.drained);
        if workers.is_empty() { self.view.full() } else { workers }
    }
}
