//! Views: the numbered list of members, and which parts of it may decide.

use wire::{Cause, DecodeError, Reader, Slot, Writer};

use crate::identity::{Identity, Name, StartId};
use crate::slots::SlotMask;

/// Names a view: its number, and a digest of its content, so that the views of two halves that went on alone differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ViewId {
    /// One more than that of the view before; the founding view is 1.
    pub number: u64,
    /// FNV-1a over the encoded view.
    pub digest: u64,
}

impl ViewId {
    pub(crate) fn encode(self, w: &mut Writer) {
        w.u64(self.number);
        w.u64(self.digest);
    }

    pub(crate) fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { number: r.u64("View number")?, digest: r.u64("View digest")? })
    }
}

/// What a member of a view may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It votes, owns work sets, and every commit waits for it.
    Full,
    /// It joins or lags: it owns nothing, has no vote, and nobody waits for it.
    Learner,
}

/// One member of a view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its number in the view; it keeps it as long as it stays.
    pub slot: Slot,
    /// Whether it counts.
    pub role: Role,
    /// Who it is.
    pub identity: Identity,
}

/// The numbered list of members that a quorum of the view before has agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    id: ViewId,
    base: ViewId,
    base_table: u32,
    master: Slot,
    members: Vec<Member>,
    missing: Vec<Name>,
    full: SlotMask,
    all: SlotMask,
}

impl View {
    /// Makes the view that follows `base`. The master is `before` if it is a full member, else the next full one
    /// behind it: the deputy that every node has known all along.
    ///
    /// Returns `None` without a full member, or with two members in one slot.
    #[must_use]
    pub fn new(
        base: ViewId,
        base_table: u32,
        before: Slot,
        mut members: Vec<Member>,
        mut missing: Vec<Name>,
    ) -> Option<Self> {
        members.sort_by_key(|member| member.slot);
        missing.sort();
        missing.dedup();
        missing.truncate(Slot::COUNT);
        let all: SlotMask = members.iter().map(|member| member.slot).collect();
        let full: SlotMask =
            members.iter().filter(|member| member.role == Role::Full).map(|member| member.slot).collect();
        if usize::try_from(all.len()).ok()? != members.len() {
            return None;
        }
        let master = if full.contains(before) { before } else { next_in(full, before)? };
        let number = base.number.checked_add(1)?;
        let mut view = Self { id: ViewId { number, digest: 0 }, base, base_table, master, members, missing, full, all };
        let mut w = Writer::new();
        view.encode(&mut w);
        view.id.digest = fnv1a(w.as_slice());
        Some(view)
    }

    /// Its name.
    #[must_use]
    pub const fn id(&self) -> ViewId {
        self.id
    }

    /// The view that it follows.
    #[must_use]
    pub const fn base(&self) -> ViewId {
        self.base
    }

    /// The version of that view's table from which this view's first table is derived.
    #[must_use]
    pub const fn base_table(&self) -> u32 {
        self.base_table
    }

    /// The member that assigns the work.
    #[must_use]
    pub const fn master(&self) -> Slot {
        self.master
    }

    /// The member that becomes master if this one goes; `None` if there is no other full member.
    #[must_use]
    pub fn deputy(&self) -> Option<Slot> {
        next_in(self.full.without(self.master), self.master)
    }

    /// All members, by rising slot.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The slots of the full members.
    #[must_use]
    pub const fn full(&self) -> SlotMask {
        self.full
    }

    /// The slots of all members.
    #[must_use]
    pub const fn all(&self) -> SlotMask {
        self.all
    }

    /// Names of nodes that may be alive and at work elsewhere: this view went on without a quorum of the one before.
    #[must_use]
    pub fn missing(&self) -> &[Name] {
        &self.missing
    }

    /// Whether somebody else may hold the same work: sequence numbers above the committed edge then come from blocks
    /// of the own slot only.
    #[must_use]
    pub fn is_unproven(&self) -> bool {
        !self.missing.is_empty()
    }

    /// The member in that slot.
    #[must_use]
    pub fn member(&self, slot: Slot) -> Option<&Member> {
        self.members.iter().find(|member| member.slot == slot)
    }

    /// The member with that start id.
    #[must_use]
    pub fn by_start(&self, start: StartId) -> Option<&Member> {
        self.members.iter().find(|member| member.identity.start == start)
    }

    /// Whether `slots` may decide for this view: more than half of the full members, or, of four or more, exactly half
    /// if the master is among them. Any two such sets share a member.
    #[must_use]
    pub fn is_quorum(&self, slots: SlotMask) -> bool {
        let have = slots.and(self.full).len();
        let twice = have.saturating_mul(2);
        let of = self.full.len();
        twice > of || (twice == of && of >= 4 && slots.contains(self.master))
    }

    pub(crate) fn encode(&self, w: &mut Writer) {
        w.u64(self.id.number);
        self.base.encode(w);
        w.u32(self.base_table);
        w.u8(self.master.number());
        w.u8(u8::try_from(self.members.len()).unwrap_or(0));
        for member in &self.members {
            w.u8(member.slot.number());
            w.u8(match member.role {
                Role::Full => 1,
                Role::Learner => 2,
            });
            member.identity.encode(w);
        }
        w.u8(u8::try_from(self.missing.len()).unwrap_or(0));
        for name in &self.missing {
            name.encode(w);
        }
    }

    pub(crate) fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let error = r.error("View", Cause::Conflict);
        let number = r.u64("View number")?;
        let base = ViewId::decode(r)?;
        let base_table = r.u32("Base table")?;
        let master = decode_slot(r)?;
        let count = r.u8("Members")?;
        let mut members = Vec::with_capacity(Slot::COUNT);
        for _ in 0..count {
            let slot = decode_slot(r)?;
            let range = r.error("Role", Cause::Range);
            let role = match r.u8("Role")? {
                1 => Role::Full,
                2 => Role::Learner,
                _ => return Err(range),
            };
            members.push(Member { slot, role, identity: Identity::decode(r)? });
        }
        let count = r.u8("Missing")?;
        let mut missing = Vec::new();
        for _ in 0..count.min(16) {
            missing.push(Name::decode(r)?);
        }
        let view = Self::new(base, base_table, master, members, missing).ok_or(error)?;
        if view.id.number == number && view.master == master { Ok(view) } else { Err(error) }
    }
}

pub(crate) fn decode_slot(r: &mut Reader<'_>) -> Result<Slot, DecodeError> {
    let error = r.error("Slot", Cause::Range);
    Slot::new(r.u8("Slot")?).ok_or(error)
}

/// The first slot of `mask` behind `slot`, going round.
fn next_in(mask: SlotMask, slot: Slot) -> Option<Slot> {
    mask.iter().find(|next| *next > slot).or_else(|| mask.iter().next())
}

/// FNV-1a, 64 bits: names content among members that trust each other, no more.
pub(crate) fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
