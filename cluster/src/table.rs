//! The assignment of the work sets: owner, heir and epoch of each, and how a new view's table follows from the old one.

use wire::{DecodeError, Epoch, Reader, Slot, WorkSet, Writer};

use crate::slots::{SetMap, SlotMap, SlotMask};
use crate::view::{View, ViewId, decode_slot};

/// Names one state of the table: the view, and how often its master has changed the table since.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableVersion {
    /// The view whose master wrote it.
    pub view: ViewId,
    /// Changes since the view began.
    pub sequence: u32,
}

/// A planned move that has begun: from the set's owner to another member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handoff {
    /// Who is to own the set.
    pub to: Slot,
    /// Under which epoch.
    pub epoch: Epoch,
}

/// Who owns one work set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Assignment {
    /// The one member that may send for it.
    pub owner: Slot,
    /// Who takes it if the owner goes; the owner itself if there is nobody else.
    pub heir: Slot,
    /// Under which epoch the owner holds it.
    pub epoch: Epoch,
    /// A planned move that has begun.
    pub handoff: Option<Handoff>,
}

impl Assignment {
    /// Encoded size in octets.
    pub(crate) const LEN: usize = 9;
    const NO_SLOT: u8 = 0xff;

    pub(crate) fn encode(&self, w: &mut Writer) {
        w.u8(self.owner.number());
        w.u8(self.heir.number());
        w.u32(self.epoch.count);
        w.u8(self.epoch.master.number());
        match self.handoff {
            None => w.u16(u16::from_be_bytes([Self::NO_SLOT, 0])),
            Some(handoff) => {
                w.u8(handoff.to.number());
                w.u8(handoff.epoch.master.number());
            }
        }
    }

    pub(crate) fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let owner = decode_slot(r)?;
        let heir = decode_slot(r)?;
        let count = r.u32("Epoch count")?;
        let epoch = Epoch { count, master: decode_slot(r)? };
        let mut peek = *r;
        let handoff = if peek.u8("Handoff")? == Self::NO_SLOT {
            r.u16("Handoff")?;
            None
        } else {
            let to = decode_slot(r)?;
            Some(Handoff { to, epoch: Epoch { count: count.saturating_add(1), master: decode_slot(r)? } })
        };
        Ok(Self { owner, heir, epoch, handoff })
    }
}

/// The owner, heir and epoch of all work sets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    version: TableVersion,
    entries: SetMap<Assignment>,
    changed: SetMap<u32>,
    arrivals: SlotMask,
}

impl Table {
    /// The first table of a founding view: the work spread over all its full members.
    #[must_use]
    pub fn founding(view: &View) -> Self {
        let mut table = Self::default();
        table.version.view = view.id();
        for (set, entry) in table.entries.iter_mut() {
            entry.owner = pick(set, view.full(), view.master());
            entry.heir = pick_heir(set, view.full(), entry.owner);
            entry.epoch = Epoch { count: 1, master: view.master() };
        }
        table
    }

    /// The first table of the view that follows this table's: what a removed member owned goes to its heir. All
    /// members derive the same, because all that count held this very table when they voted.
    #[must_use]
    pub fn derive(&self, view: &View) -> Self {
        let mut table = self.clone();
        let full = view.full();
        for (set, entry) in table.entries.iter_mut() {
            let source = full.contains(entry.owner);
            let target = entry.handoff.is_some_and(|handoff| full.contains(handoff.to));
            // A hand-off of which one end is gone ends with the other end as owner, whether or not the state had
            // crossed: the one that is gone is silent, and the epoch rises above both.
            let owner = match (entry.handoff, source, target) {
                (None | Some(_), true, true) | (None, true, false) => None,
                (Some(_), true, false) => Some(entry.owner),
                (Some(handoff), false, true) => Some(handoff.to),
                (None | Some(_), false, _) if full.contains(entry.heir) => Some(entry.heir),
                (None | Some(_), false, _) => Some(pick(set, full, view.master())),
            };
            if let Some(owner) = owner {
                entry.owner = owner;
                entry.handoff = None;
                entry.epoch = Epoch { count: entry.epoch.count.saturating_add(2), master: view.master() };
            }
            if !full.contains(entry.heir) || entry.heir == entry.owner {
                entry.heir = pick_heir(set, full, entry.owner);
            }
        }
        for (_, changed) in table.changed.iter_mut() {
            *changed = 0;
        }
        table.version = TableVersion { view: view.id(), sequence: 0 };
        table.note_arrivals();
        table
    }

    /// Which state of the table this is.
    #[must_use]
    pub const fn version(&self) -> TableVersion {
        self.version
    }

    /// Who owns `set`.
    #[must_use]
    pub fn assignment(&self, set: WorkSet) -> &Assignment {
        &self.entries[set]
    }

    /// All work sets with their assignments.
    pub fn iter(&self) -> impl Iterator<Item = (WorkSet, &Assignment)> {
        self.entries.iter()
    }

    /// How many sets each slot owns; a set on the move counts for its target.
    #[must_use]
    pub fn owned(&self) -> SlotMap<u16> {
        let mut owned = SlotMap::<u16>::default();
        for (_, entry) in self.entries.iter() {
            let slot = entry.handoff.map_or(entry.owner, |handoff| handoff.to);
            owned[slot] = owned[slot].saturating_add(1);
        }
        owned
    }

    /// Opens the next version; the master then writes its changes.
    pub(crate) fn advance(&mut self) {
        self.version.sequence = self.version.sequence.saturating_add(1);
    }

    /// Whether a set may be on the move to `slot`.
    pub(crate) fn has_handoff_to(&self, slot: Slot) -> bool {
        self.arrivals.contains(slot)
    }

    /// Finds out again where sets are on the move to.
    fn note_arrivals(&mut self) {
        self.arrivals = self.entries.iter().filter_map(|(_, entry)| entry.handoff).map(|handoff| handoff.to).collect();
    }

    /// Writes one entry under the version opened last.
    pub(crate) fn write(&mut self, set: WorkSet, entry: Assignment) {
        if let Some(handoff) = entry.handoff {
            self.arrivals = self.arrivals.with(handoff.to);
        }
        self.entries[set] = entry;
        self.changed[set] = self.version.sequence;
    }

    /// When `set` last changed, as a sequence number of this view.
    pub(crate) fn changed(&self, set: WorkSet) -> u32 {
        self.changed[set]
    }

    /// Takes over an entry from the master; it changed at `sequence` or before.
    pub(crate) fn copy(&mut self, set: WorkSet, entry: Assignment, sequence: u32) {
        if self.entries[set] != entry {
            self.entries[set] = entry;
            self.changed[set] = sequence;
        }
    }

    /// Takes over the master's version, once all entries up to it were copied.
    pub(crate) fn reach(&mut self, version: TableVersion) {
        self.version = version;
        self.note_arrivals();
    }
}

/// Chooses one of `full` for `set`, the sets spread evenly.
fn pick(set: WorkSet, full: SlotMask, otherwise: Slot) -> Slot {
    let count = usize::try_from(full.len()).unwrap_or(0).max(1);
    full.iter().nth(usize::from(set.index()).checked_rem(count).unwrap_or(0)).unwrap_or(otherwise)
}

/// Chooses the heir of `set`: one of `full` but its owner, spread so that each owner's sets have all others as heirs.
pub(crate) fn pick_heir(set: WorkSet, full: SlotMask, owner: Slot) -> Slot {
    let others = full.without(owner);
    let count = usize::try_from(others.len()).unwrap_or(0);
    if count == 0 {
        return owner;
    }
    let mixed = usize::from(set.index()).wrapping_mul(0x9e37) >> 6;
    others.iter().nth(mixed.checked_rem(count).unwrap_or(0)).unwrap_or(owner)
}
