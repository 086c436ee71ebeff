//! What travels on the ordered streams.

use wire::{Cause, Change, DecodeError, Epoch, Reader, RecordId, RecordKind, Tenure, WorkSet, Writer};

use crate::view::decode_slot;

/// The digest of a work set's records: equal digests mean equal records.
pub(super) type Digest = u128;

/// One entry of a sender's stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// A record has changed.
    Put { id: RecordId, epoch: Epoch, change: Change },
    /// The sender owns the set under that epoch, and its records have that digest at this place of the stream.
    Publish { set: WorkSet, epoch: Epoch, digest: Digest },
    /// Records of a set, for a peer that asked; the last chunk ends the list.
    Content { set: WorkSet, epoch: Epoch, last: bool, records: Vec<(RecordKind, u128, Box<[u8]>)> },
    /// The old owner's last word on a set.
    HandOver { set: WorkSet, tenure: Tenure, state: Vec<u8> },
    /// A place in the stream, to be acknowledged.
    Mark,
}

/// One message of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Message {
    /// First on every connection: up to where the receiver's stream is known here.
    Hello { received: u64 },
    /// Entries with their numbers; all up to `upto` that concern the receiver are sent.
    Entries { range: u16, entries: Vec<(u64, Entry)>, upto: u64 },
    /// All up to `received` came; all up to `held` is held, dispatch tables included.
    Ack { received: u64, held: u64 },
    /// The digests differ: the whole set is wanted.
    Want { set: WorkSet, epoch: Epoch },
    /// The set is known under a newer epoch.
    Stale { set: WorkSet, epoch: Epoch },
}

impl Entry {
    pub(super) fn to_bytes(&self) -> Box<[u8]> {
        let mut w = Writer::new();
        match self {
            Self::Put { id, epoch, change } => {
                w.u8(1);
                w.u16(id.set.index());
                w.u16(id.kind.0);
                w.u128(id.key);
                encode_epoch(&mut w, *epoch);
                match change {
                    Change::Delete => w.u8(0),
                    Change::Put(bytes) => {
                        w.u8(1);
                        w.bytes(bytes);
                    }
                }
            }
            Self::Publish { set, epoch, digest } => {
                w.u8(2);
                w.u16(set.index());
                encode_epoch(&mut w, *epoch);
                w.u128(*digest);
            }
            Self::Content { set, epoch, last, records } => {
                w.u8(3);
                w.u16(set.index());
                encode_epoch(&mut w, *epoch);
                w.u8(u8::from(*last));
                for (kind, key, bytes) in records {
                    w.u16(kind.0);
                    w.u128(*key);
                    w.u32(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
                    w.bytes(bytes);
                }
            }
            Self::HandOver { set, tenure, state } => {
                w.u8(4);
                w.u16(set.index());
                encode_epoch(&mut w, tenure.epoch);
                w.u8(tenure.slot.number());
                w.bytes(state);
            }
            Self::Mark => w.u8(5),
        }
        w.into_bytes().into_boxed_slice()
    }

    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let unknown = r.error("Entry kind", Cause::Unknown);
        match r.u8("Entry kind")? {
            1 => {
                let set = decode_set(r)?;
                let id = RecordId { set, kind: RecordKind(r.u16("Record kind")?), key: r.u128("Key")? };
                let epoch = decode_epoch(r)?;
                let range = r.error("Change", Cause::Range);
                let change = match r.u8("Change")? {
                    0 => Change::Delete,
                    1 => Change::Put(r.take_rest().into()),
                    _ => return Err(range),
                };
                Ok(Self::Put { id, epoch, change })
            }
            2 => Ok(Self::Publish { set: decode_set(r)?, epoch: decode_epoch(r)?, digest: r.u128("Digest")? }),
            3 => {
                let set = decode_set(r)?;
                let epoch = decode_epoch(r)?;
                let last = r.u8("Last")? == 1;
                let mut records = Vec::new();
                while !r.is_empty() {
                    let kind = RecordKind(r.u16("Record kind")?);
                    let key = r.u128("Key")?;
                    let len = usize::try_from(r.u32("Length")?).unwrap_or(usize::MAX);
                    records.push((kind, key, r.bytes("Record", len)?.into()));
                }
                Ok(Self::Content { set, epoch, last, records })
            }
            4 => {
                let set = decode_set(r)?;
                let epoch = decode_epoch(r)?;
                let slot = decode_slot(r)?;
                Ok(Self::HandOver { set, tenure: Tenure { epoch, slot }, state: r.take_rest().into() })
            }
            5 => Ok(Self::Mark),
            _ => Err(unknown),
        }
    }
}

impl Message {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut w = Writer::new();
        match self {
            Self::Hello { received } => {
                w.u8(1);
                w.u64(*received);
            }
            Self::Entries { range, entries, upto } => {
                let encoded: Vec<(u64, Box<[u8]>)> =
                    entries.iter().map(|(at, entry)| (*at, entry.to_bytes())).collect();
                return Self::entries(*range, encoded.iter().map(|(at, bytes)| (*at, &**bytes)), *upto);
            }
            Self::Ack { received, held } => {
                w.u8(3);
                w.u64(*received);
                w.u64(*held);
            }
            Self::Want { set, epoch } => {
                w.u8(4);
                w.u16(set.index());
                encode_epoch(&mut w, *epoch);
            }
            Self::Stale { set, epoch } => {
                w.u8(5);
                w.u16(set.index());
                encode_epoch(&mut w, *epoch);
            }
        }
        w.into_bytes()
    }

    /// Writes entries that are encoded already.
    pub(super) fn entries<'a>(range: u16, entries: impl Iterator<Item = (u64, &'a [u8])>, upto: u64) -> Vec<u8> {
        let mut w = Writer::new();
        w.u8(2);
        w.u16(range);
        w.u64(upto);
        for (at, bytes) in entries {
            w.u64(at);
            w.u32(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
            w.bytes(bytes);
        }
        w.into_bytes()
    }

    /// Reads a message that spans all of `bytes`.
    ///
    /// # Errors
    /// It is malformed or of an unknown kind: the peer's stream cannot be trusted any further.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(bytes);
        let unknown = r.error("Message kind", Cause::Unknown);
        let message = match r.u8("Message kind")? {
            1 => Self::Hello { received: r.u64("Received")? },
            2 => {
                let range = r.u16("Range")?;
                let upto = r.u64("Upto")?;
                let mut entries = Vec::new();
                while !r.is_empty() {
                    let at = r.u64("Number")?;
                    let len = usize::try_from(r.u32("Length")?).unwrap_or(usize::MAX);
                    let mut entry = r.sub("Entry", len)?;
                    entries.push((at, Entry::decode(&mut entry)?));
                    entry.finish("Entry")?;
                }
                Self::Entries { range, entries, upto }
            }
            3 => Self::Ack { received: r.u64("Received")?, held: r.u64("Held")? },
            4 => Self::Want { set: decode_set(&mut r)?, epoch: decode_epoch(&mut r)? },
            5 => Self::Stale { set: decode_set(&mut r)?, epoch: decode_epoch(&mut r)? },
            _ => return Err(unknown),
        };
        r.finish("Message")?;
        Ok(message)
    }
}

fn encode_epoch(w: &mut Writer, epoch: Epoch) {
    w.u32(epoch.count);
    w.u8(epoch.master.number());
}

fn decode_epoch(r: &mut Reader<'_>) -> Result<Epoch, DecodeError> {
    Ok(Epoch { count: r.u32("Epoch count")?, master: decode_slot(r)? })
}

fn decode_set(r: &mut Reader<'_>) -> Result<WorkSet, DecodeError> {
    let range = r.error("Work set", Cause::Range);
    WorkSet::new(r.u16("Work set")?).ok_or(range)
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::Slot;

    fn samples() -> Vec<Message> {
        let set = WorkSet::from_low_bits(77);
        let epoch = Epoch { count: 9, master: Slot::new(3).unwrap() };
        let id = RecordId { set, kind: RecordKind(2), key: 5 };
        let entries = vec![
            (1, Entry::Put { id, epoch, change: Change::Put(Box::new([1, 2, 3])) }),
            (2, Entry::Put { id, epoch, change: Change::Delete }),
            (3, Entry::Publish { set, epoch, digest: 42 }),
            (4, Entry::Content { set, epoch, last: true, records: vec![(RecordKind(2), 5, Box::new([7]))] }),
            (5, Entry::HandOver { set, tenure: Tenure { epoch, slot: epoch.master }, state: vec![9] }),
            (6, Entry::Mark),
        ];
        vec![
            Message::Hello { received: 7 },
            Message::Entries { range: 0, entries, upto: 6 },
            Message::Ack { received: 8, held: 7 },
            Message::Want { set, epoch },
            Message::Stale { set, epoch },
        ]
    }

    #[test]
    fn messages_round_trip() {
        for message in samples() {
            assert_eq!(Message::decode(&message.to_bytes()), Ok(message));
        }
    }

    #[test]
    fn a_message_cut_anywhere_or_changed_never_panics() {
        for message in samples() {
            let bytes = message.to_bytes();
            for len in 0..bytes.len() {
                let _ = Message::decode(&bytes[..len]);
                let mut changed = bytes.clone();
                changed[len] ^= 0xff;
                let _ = Message::decode(&changed);
            }
            assert!(Message::decode(&[&bytes[..], &[0]].concat()) != Ok(message));
        }
    }
}
