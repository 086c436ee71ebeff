//! Views: the numbered list of members, and which parts of it may decide.

use wire::{Cause, DecodeError, Reader, Slot, Writer};

use crate::identity::{Identity, Name, StartId};
use crate::slots::SlotMask;

/// On the wire: it had no number here.
const NO_SLOT: u8 = 0xff;

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

/// A node that is no member, or was none for a while, and what is remembered of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Absentee {
    /// Its name.
    pub name: Name,
    /// The number that it had; `None` if it had none in this part of the cluster.
    pub slot: Option<Slot>,
    /// It may be alive and at work elsewhere: its part and this one went on without a quorum of their common view.
    pub missing: bool,
    /// It may have worked on its own, now or in an earlier life: numbers that it may have used, or given out, are
    /// avoided.
    pub apart: bool,
    /// An operator has drained it: when it comes back it gets no work.
    pub drained: bool,
    /// How long ago it went, in milliseconds, when the view was made.
    pub age_ms: u32,
}

impl Absentee {
    const fn says_anything(&self) -> bool {
        self.missing || self.apart || self.drained
    }
}

/// The numbered list of members that a quorum of the view before has agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    id: ViewId,
    base: ViewId,
    lineage: u64,
    base_table: u32,
    master: Slot,
    members: Vec<Member>,
    absentees: Vec<Absentee>,
    full: SlotMask,
    all: SlotMask,
}

impl View {
    /// More are not remembered.
    pub const ABSENTEES_MAX: usize = 32;

    /// Makes the view that follows `base`. The master is `before` if it is a full member, else the next full one
    /// behind it: the deputy that every node has known all along.
    ///
    /// Returns `None` without a full member, or with two members in one slot.
    #[must_use]
    pub fn new(
        base: ViewId,
        lineage: u64,
        base_table: u32,
        before: Slot,
        mut members: Vec<Member>,
        mut absentees: Vec<Absentee>,
    ) -> Option<Self> {
        members.sort_by_key(|member| member.slot);
        absentees.retain(Absentee::says_anything);
        absentees.sort();
        absentees.dedup_by(|again, known| {
            let same = again.name == known.name && again.slot == known.slot;
            if same {
                known.missing |= again.missing;
                known.apart |= again.apart;
                known.drained |= again.drained;
                known.age_ms = known.age_ms.min(again.age_ms);
            }
            same
        });
        if absentees.len() > Self::ABSENTEES_MAX {
            absentees.sort_by_key(|absentee| (!absentee.missing, absentee.age_ms));
            absentees.truncate(Self::ABSENTEES_MAX);
            absentees.sort();
        }
        let all: SlotMask = members.iter().map(|member| member.slot).collect();
        let full: SlotMask =
            members.iter().filter(|member| member.role == Role::Full).map(|member| member.slot).collect();
        if usize::try_from(all.len()).ok()? != members.len() {
            return None;
        }
        let master = if full.contains(before) { before } else { next_in(full, before)? };
        let number = base.number.checked_add(1)?;
        let mut view =
            Self { id: ViewId { number, digest: 0 }, base, lineage, base_table, master, members, absentees, full, all };
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

    /// Names the part of the cluster that this view is of: drawn when the cluster is founded, and anew by each part that
    /// goes on without a quorum. Views of two lineages may have the same number and do not follow each other.
    #[must_use]
    pub const fn lineage(&self) -> u64 {
        self.lineage
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

    /// Nodes that are no members, or were none for a while, as far as something is to be remembered of them.
    #[must_use]
    pub fn absentees(&self) -> &[Absentee] {
        &self.absentees
    }

    /// Whether somebody else may be at work for the same sets at this moment: two owners, and two answers to one
    /// question, cannot be excluded then.
    #[must_use]
    pub fn is_unproven(&self) -> bool {
        self.absentees.iter().any(|absentee| absentee.missing)
    }

    /// Whether somebody else may have used sequence numbers above the common edges, be it in an earlier life: above an
    /// edge only blocks of the own slot are used then.
    #[must_use]
    pub fn shares_numbers(&self) -> bool {
        self.absentees.iter().any(|absentee| absentee.missing || absentee.apart)
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
        w.u64(self.lineage);
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
        w.u8(u8::try_from(self.absentees.len()).unwrap_or(0));
        for absentee in &self.absentees {
            absentee.name.encode(w);
            w.u8(absentee.slot.map_or(NO_SLOT, Slot::number));
            w.u8(u8::from(absentee.missing) | u8::from(absentee.apart) << 1 | u8::from(absentee.drained) << 2);
            w.u32(absentee.age_ms);
        }
    }

    pub(crate) fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let error = r.error("View", Cause::Conflict);
        let number = r.u64("View number")?;
        let base = ViewId::decode(r)?;
        let lineage = r.u64("Lineage")?;
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
        let absent = r.error("Absentees", Cause::Range);
        let count = r.u8("Absentees")?;
        if usize::from(count) > Self::ABSENTEES_MAX {
            return Err(absent);
        }
        let mut absentees = Vec::new();
        for _ in 0..count {
            let name = Name::decode(r)?;
            let slot = match r.u8("Slot")? {
                NO_SLOT => None,
                number => Some(Slot::new(number).ok_or(absent)?),
            };
            let what = r.u8("What")?;
            let (missing, apart, drained) = (what & 1 != 0, what & 2 != 0, what & 4 != 0);
            absentees.push(Absentee { name, slot, missing, apart, drained, age_ms: r.u32("Age")? });
        }
        let view = Self::new(base, lineage, base_table, master, members, absentees).ok_or(error)?;
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
