//! The datagrams of membership, as they stand inside the seal.
//!
//! The first octet names the kind. A keepalive is small, of fixed size, and written and read without allocating; all
//! others are rare. Every list is bounded, so a datagram stays below [`DATAGRAM_MAX`].

use std::net::SocketAddr;

use wire::{Cause, DecodeError, Epoch, Reader, Slot, WorkSet, Writer};

use crate::identity::{Addresses, Identity, Name, StartId};
use crate::membership::{Act, Refusal};
use crate::slots::SlotMask;
use crate::table::{Assignment, TableVersion};
use crate::view::{View, ViewId, decode_slot};

/// The version that every joiner must speak.
pub(crate) const PROTOCOL: u8 = 1;
/// The largest datagram: a view of 16 members with addresses on four networks, and of what is remembered of others.
pub(crate) const DATAGRAM_MAX: usize = 3600;
/// Entries in one part of a whole table.
pub(crate) const PART_LEN: u16 = 128;
/// Parts of a whole table.
pub(crate) const PARTS: u8 = 8;
/// Changed entries in one datagram.
pub(crate) const DELTA_MAX: usize = 100;
/// Sets in one report about moves.
pub(crate) const MOVES_MAX: usize = 128;

/// The number of a proposal within one view: round ‖ slot of the proposer (4 bits). 0 is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ballot(pub(crate) u32);

impl Ballot {
    /// The proposer's first ballot above `self`.
    pub(crate) fn next(self, proposer: Slot) -> Self {
        Self((self.0 >> 4).saturating_add(1).saturating_mul(16) | u32::from(proposer.number()))
    }

    /// Who proposes.
    pub(crate) fn proposer(self) -> Option<Slot> {
        Slot::new(u8::try_from(self.0 & 0xf).unwrap_or(0))
    }
}

/// The heart-beat, with everything that each member must know of each other at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Keepalive {
    /// Rises by one with each round; the copies over all networks share it.
    pub(crate) counter: u64,
    /// The view in force at the sender.
    pub(crate) view: ViewId,
    /// Digest of the next view that the sender has voted for; 0 if none. It then echoes in that one only.
    pub(crate) voted: u64,
    /// The highest counter that the sender has accepted from the receiver.
    pub(crate) echo: u64,
    /// The table held in `view`; `u32::MAX` if none.
    pub(crate) table: u32,
    /// From the master: the table that all full members hold.
    pub(crate) table_committed: u32,
    /// Full members that the sender hears.
    pub(crate) hears: SlotMask,
    /// Learners that hold all that the sender owns.
    pub(crate) counted: SlotMask,
    /// Members that hold up the sender's commits.
    pub(crate) slow: SlotMask,
    /// From the master: members that nobody shall listen to any more.
    pub(crate) shun: SlotMask,
    /// From the master: members that get no work.
    pub(crate) drained: SlotMask,
    /// How many keepalives per lease the sender wants from the receiver.
    pub(crate) wanted: u8,
    /// The sender's capacity.
    pub(crate) weight: u16,
}

impl Keepalive {
    const KIND: u8 = 1;

    pub(crate) fn encode(&self, w: &mut Writer) {
        w.u8(Self::KIND);
        w.u64(self.counter);
        self.view.encode(w);
        w.u64(self.voted);
        w.u64(self.echo);
        w.u32(self.table);
        w.u32(self.table_committed);
        for mask in [self.hears, self.counted, self.slow, self.shun, self.drained] {
            w.u16(mask.0);
        }
        w.u8(self.wanted);
        w.u16(self.weight);
    }

    /// Reads the counter alone, if `datagram` is a keepalive: most copies over a second network end here.
    pub(crate) fn peek(datagram: &[u8]) -> Option<u64> {
        let mut r = Reader::new(datagram);
        if r.u8("Kind").ok()? == Self::KIND { r.u64("Counter").ok() } else { None }
    }

    pub(crate) fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let keepalive = Self {
            counter: r.u64("Counter")?,
            view: ViewId::decode(r)?,
            voted: r.u64("Voted")?,
            echo: r.u64("Echo")?,
            table: r.u32("Table")?,
            table_committed: r.u32("Table committed")?,
            hears: SlotMask(r.u16("Hears")?),
            counted: SlotMask(r.u16("Counted")?),
            slow: SlotMask(r.u16("Slow")?),
            shun: SlotMask(r.u16("Shun")?),
            drained: SlotMask(r.u16("Drained")?),
            wanted: r.u8("Wanted")?,
            weight: r.u16("Weight")?,
        };
        Ok(keepalive)
    }
}

/// A request to join, or, among nodes without a view, a sign of life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Join {
    pub(crate) protocol: u8,
    pub(crate) config_version: u64,
    pub(crate) config_hash: [u8; 32],
    pub(crate) identity: Identity,
}

/// How far a planned move has come, as its new owner reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// To the old owner: packets of these sets are queued.
    Queueing,
    /// To the master: these sets are taken.
    Taken,
}

/// Every datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Datagram {
    Keepalive(Keepalive),
    Prepare { base: ViewId, ballot: Ballot },
    Promise { base: ViewId, ballot: Ballot, accepted: Option<(Ballot, Box<View>)> },
    Propose { base: ViewId, ballot: Ballot, inherited: bool, view: Box<View> },
    Accept { base: ViewId, ballot: Ballot, view: ViewId },
    View(Box<View>),
    WantTable { view: ViewId },
    TablePart { version: TableVersion, part: u8, entries: Vec<Assignment> },
    TableDelta { view: ViewId, from: u32, to: u32, entries: Vec<(WorkSet, Assignment)> },
    Join(Box<Join>),
    JoinProgress,
    JoinRefused(Box<Refusal>),
    JoinMaster(Addresses),
    Offer,
    Grant { offered: StartId },
    Announce { view: ViewId, members: u8, leased: bool, address: Option<SocketAddr>, answer: u64 },
    Hail { nonce: u64 },
    Moves { view: ViewId, step: Step, sets: Vec<(WorkSet, Epoch)> },
    Act { view: ViewId, slot: Slot, act: Act },
}

impl Datagram {
    pub(crate) fn encode(&self, w: &mut Writer) {
        match self {
            Self::Keepalive(keepalive) => keepalive.encode(w),
            Self::Prepare { base, ballot } => {
                w.u8(2);
                base.encode(w);
                w.u32(ballot.0);
            }
            Self::Promise { base, ballot, accepted } => {
                w.u8(3);
                base.encode(w);
                w.u32(ballot.0);
                match accepted {
                    None => w.u32(0),
                    Some((ballot, view)) => {
                        w.u32(ballot.0);
                        view.encode(w);
                    }
                }
            }
            Self::Propose { base, ballot, inherited, view } => {
                w.u8(4);
                base.encode(w);
                w.u32(ballot.0);
                w.u8(u8::from(*inherited));
                view.encode(w);
            }
            Self::Accept { base, ballot, view } => {
                w.u8(5);
                base.encode(w);
                w.u32(ballot.0);
                view.encode(w);
            }
            Self::View(view) => {
                w.u8(6);
                view.encode(w);
            }
            Self::WantTable { view } => {
                w.u8(7);
                view.encode(w);
            }
            Self::TablePart { version, part, entries } => {
                w.u8(8);
                version.view.encode(w);
                w.u32(version.sequence);
                w.u8(*part);
                for entry in entries {
                    entry.encode(w);
                }
            }
            Self::TableDelta { view, from, to, entries } => {
                w.u8(9);
                view.encode(w);
                w.u32(*from);
                w.u32(*to);
                for (set, entry) in entries {
                    w.u16(set.index());
                    entry.encode(w);
                }
            }
            Self::Join(join) => {
                w.u8(10);
                w.u8(join.protocol);
                w.u64(join.config_version);
                w.bytes(&join.config_hash);
                join.identity.encode(w);
            }
            Self::JoinProgress => w.u8(11),
            Self::JoinRefused(refusal) => {
                w.u8(12);
                encode_refusal(refusal, w);
            }
            Self::JoinMaster(addresses) => {
                w.u8(13);
                for address in addresses {
                    crate::identity::encode_address(w, *address);
                }
            }
            Self::Offer => w.u8(14),
            Self::Grant { offered } => {
                w.u8(15);
                w.u64(offered.0);
            }
            Self::Announce { view, members, leased, address, answer } => {
                w.u8(16);
                view.encode(w);
                w.u8(*members);
                w.u8(u8::from(*leased));
                crate::identity::encode_address(w, *address);
                w.u64(*answer);
            }
            Self::Hail { nonce } => {
                w.u8(20);
                w.u64(*nonce);
            }
            Self::Moves { view, step, sets } => {
                w.u8(match step {
                    Step::Queueing => 17,
                    Step::Taken => 18,
                });
                view.encode(w);
                for (set, epoch) in sets {
                    w.u16(set.index());
                    w.u32(epoch.count);
                    w.u8(epoch.master.number());
                }
            }
            Self::Act { view, slot, act } => {
                w.u8(19);
                view.encode(w);
                w.u8(slot.number());
                w.u8(match act {
                    Act::Drain => 1,
                    Act::Undrain => 2,
                });
            }
        }
    }

    /// Reads a datagram that spans all of `bytes`.
    ///
    /// # Errors
    /// It is malformed, of an unknown kind, or has octets left over.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(bytes);
        let unknown = r.error("Kind", Cause::Unknown);
        let datagram = match r.u8("Kind")? {
            Keepalive::KIND => Self::Keepalive(Keepalive::decode(&mut r)?),
            2 => Self::Prepare { base: ViewId::decode(&mut r)?, ballot: Ballot(r.u32("Ballot")?) },
            3 => {
                let base = ViewId::decode(&mut r)?;
                let ballot = Ballot(r.u32("Ballot")?);
                let accepted = match r.u32("Accepted")? {
                    0 => None,
                    accepted => Some((Ballot(accepted), Box::new(View::decode(&mut r)?))),
                };
                Self::Promise { base, ballot, accepted }
            }
            4 => Self::Propose {
                base: ViewId::decode(&mut r)?,
                ballot: Ballot(r.u32("Ballot")?),
                inherited: decode_flag(&mut r)?,
                view: Box::new(View::decode(&mut r)?),
            },
            5 => Self::Accept {
                base: ViewId::decode(&mut r)?,
                ballot: Ballot(r.u32("Ballot")?),
                view: ViewId::decode(&mut r)?,
            },
            6 => Self::View(Box::new(View::decode(&mut r)?)),
            7 => Self::WantTable { view: ViewId::decode(&mut r)? },
            8 => decode_part(&mut r)?,
            9 => decode_delta(&mut r)?,
            10 => Self::Join(Box::new(Join {
                protocol: r.u8("Protocol")?,
                config_version: r.u64("Configuration version")?,
                config_hash: r.array("Configuration hash")?,
                identity: Identity::decode(&mut r)?,
            })),
            11 => Self::JoinProgress,
            12 => Self::JoinRefused(Box::new(decode_refusal(&mut r)?)),
            13 => {
                let mut addresses = Addresses::default();
                for address in &mut addresses {
                    *address = crate::identity::decode_address(&mut r)?;
                }
                Self::JoinMaster(addresses)
            }
            14 => Self::Offer,
            15 => Self::Grant { offered: StartId(r.u64("Offered")?) },
            16 => Self::Announce {
                view: ViewId::decode(&mut r)?,
                members: r.u8("Members")?,
                leased: decode_flag(&mut r)?,
                address: crate::identity::decode_address(&mut r)?,
                answer: r.u64("Answer")?,
            },
            20 => Self::Hail { nonce: r.u64("Nonce")? },
            17 => decode_moves(&mut r, Step::Queueing)?,
            18 => decode_moves(&mut r, Step::Taken)?,
            19 => {
                let view = ViewId::decode(&mut r)?;
                let slot = decode_slot(&mut r)?;
                let range = r.error("Act", Cause::Range);
                let act = match r.u8("Act")? {
                    1 => Act::Drain,
                    2 => Act::Undrain,
                    _ => return Err(range),
                };
                Self::Act { view, slot, act }
            }
            _ => return Err(unknown),
        };
        r.finish("Datagram")?;
        Ok(datagram)
    }
}

fn decode_flag(r: &mut Reader<'_>) -> Result<bool, DecodeError> {
    let range = r.error("Flag", Cause::Range);
    match r.u8("Flag")? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(range),
    }
}

fn decode_set(r: &mut Reader<'_>) -> Result<WorkSet, DecodeError> {
    let range = r.error("Work set", Cause::Range);
    WorkSet::new(r.u16("Work set")?).ok_or(range)
}

fn decode_part(r: &mut Reader<'_>) -> Result<Datagram, DecodeError> {
    let version = TableVersion { view: ViewId::decode(r)?, sequence: r.u32("Table")? };
    let range = r.error("Part", Cause::Range);
    let part = r.u8("Part")?;
    if part >= PARTS || r.remaining() != Assignment::LEN.saturating_mul(usize::from(PART_LEN)) {
        return Err(range);
    }
    let mut entries = Vec::with_capacity(usize::from(PART_LEN));
    while !r.is_empty() {
        entries.push(Assignment::decode(r)?);
    }
    Ok(Datagram::TablePart { version, part, entries })
}

fn decode_delta(r: &mut Reader<'_>) -> Result<Datagram, DecodeError> {
    let view = ViewId::decode(r)?;
    let from = r.u32("From")?;
    let range = r.error("To", Cause::Range);
    let to = r.u32("To")?;
    if to <= from || r.remaining() > DELTA_MAX.saturating_mul(Assignment::LEN.saturating_add(2)) {
        return Err(range);
    }
    let mut entries = Vec::new();
    while !r.is_empty() {
        entries.push((decode_set(r)?, Assignment::decode(r)?));
    }
    Ok(Datagram::TableDelta { view, from, to, entries })
}

fn decode_moves(r: &mut Reader<'_>, step: Step) -> Result<Datagram, DecodeError> {
    let view = ViewId::decode(r)?;
    if r.remaining() > MOVES_MAX.saturating_mul(7) {
        return Err(r.error("Sets", Cause::Range));
    }
    let mut sets = Vec::new();
    while !r.is_empty() {
        let set = decode_set(r)?;
        let count = r.u32("Epoch count")?;
        sets.push((set, Epoch { count, master: decode_slot(r)? }));
    }
    Ok(Datagram::Moves { view, step, sets })
}

/// Longest reason of a veto that is sent, in octets.
const VETO_MAX: usize = 512;

fn encode_refusal(refusal: &Refusal, w: &mut Writer) {
    match refusal {
        Refusal::Configuration { ours_version, ours, theirs_version, theirs } => {
            w.u8(1);
            w.u64(*ours_version);
            w.bytes(ours);
            w.u64(*theirs_version);
            w.bytes(theirs);
        }
        Refusal::SameIdentity { name, address } => {
            w.u8(2);
            name.encode(w);
            crate::identity::encode_address(w, Some(*address));
        }
        Refusal::Version { ours, theirs } => {
            w.u8(3);
            w.u8(*ours);
            w.u8(*theirs);
        }
        Refusal::Full => w.u8(4),
        Refusal::Veto(reason) => {
            w.u8(5);
            let end = reason.floor_char_boundary(VETO_MAX);
            w.bytes(reason.get(..end).unwrap_or("").as_bytes());
        }
    }
}

fn decode_refusal(r: &mut Reader<'_>) -> Result<Refusal, DecodeError> {
    let range = r.error("Reason", Cause::Range);
    match r.u8("Reason")? {
        1 => Ok(Refusal::Configuration {
            ours_version: r.u64("Version")?,
            ours: r.array("Hash")?,
            theirs_version: r.u64("Version")?,
            theirs: r.array("Hash")?,
        }),
        2 => {
            let name = Name::decode(r)?;
            let address: SocketAddr = crate::identity::decode_address(r)?.ok_or(range)?;
            Ok(Refusal::SameIdentity { name, address })
        }
        3 => Ok(Refusal::Version { ours: r.u8("Version")?, theirs: r.u8("Version")? }),
        4 => Ok(Refusal::Full),
        5 => {
            let bytes = r.take_rest();
            let bytes = bytes.get(..VETO_MAX.min(bytes.len())).unwrap_or(&[]);
            std::str::from_utf8(bytes).map(|text| Refusal::Veto(text.into())).map_err(|_| range)
        }
        _ => Err(range),
    }
}

#[cfg(test)]
mod tests;
