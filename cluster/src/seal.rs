//! The seal of the membership datagrams: AES-256-GCM under a key of each sender's own.
//!
//! ```text
//! version (1) ‖ generation (1) ‖ sender's name (8, hashed) ‖ start id (8) ‖ counter (8) ‖ sealed datagram ‖ tag (16)
//! ```
//! The key is HKDF-SHA-256 of the group key over the sender's hashed name and start id, the nonce is the counter, and
//! everything before the sealed part is authenticated. A start id is random and new at each start, so no (key, counter)
//! comes twice. During a change of the group key both generations open; the sender uses the newer once told to.

use std::collections::HashMap;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use hkdf::Hkdf;
use sha2::Sha256;
use wire::{Cause, DecodeError, Reader, Secret};

use crate::identity::{Name, StartId};
use crate::view::fnv1a;

/// Octets in front of the sealed part.
pub const HEADER_LEN: usize = 26;
/// Octets behind it.
pub const TAG_LEN: usize = 16;
/// Senders whose keys are kept; more than two views' worth.
pub const SENDERS_MAX: usize = 64;
/// Counters behind the highest that are still accepted once.
pub const WINDOW: u64 = 1024;
/// Group keys that open datagrams at one time: as many as there may be parts of a cluster that were founded apart.
pub const GROUPS_MAX: usize = 16;
const VERSION: u8 = 1;

/// A key that all members of the cluster share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupKey {
    /// Tells keys apart in a datagram, mostly: of two drawn at random, one in 256 pairs has the same.
    pub generation: u8,
    /// At least 32 random octets.
    pub secret: Secret,
}

/// Why a datagram was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// It is too short or of another version.
    #[error("the datagram is malformed: {0}")]
    Malformed(#[from] DecodeError),
    /// It was sealed under a group key that is not in use.
    #[error("group key generation {0} is not in use")]
    Generation(u8),
    /// It was changed on the way, or its sender does not hold the group key.
    #[error("the datagram is not authentic")]
    Forged,
    /// It was opened before, or is too old to tell.
    #[error("the datagram is a repeat")]
    Replayed,
    /// The key cannot seal another datagram.
    #[error("the sender's counter is used up")]
    Exhausted,
}

struct Sender {
    key: LessSafeKey,
    highest: u64,
    seen: [u64; 16],
    used: u64,
}

/// Seals this node's datagrams and opens the others'.
pub struct Seal {
    groups: Vec<GroupKey>,
    name: u64,
    own: Option<(GroupKey, LessSafeKey)>,
    start: StartId,
    counter: u64,
    senders: HashMap<(u8, u64, StartId), Sender>,
    clock: u64,
}

impl Seal {
    /// Starts with one group key.
    ///
    /// # Errors
    /// The key derivation failed: [`SealError::Exhausted`] never, [`SealError::Forged`] if the key is unusable.
    pub fn new(name: &Name, start: StartId, group: GroupKey) -> Result<Self, SealError> {
        let mut seal = Self {
            groups: Vec::new(),
            name: fnv1a(name.as_str().as_bytes()),
            own: None,
            start,
            counter: 0,
            senders: HashMap::new(),
            clock: 0,
        };
        seal.use_group(group)?;
        Ok(seal)
    }

    /// Opens datagrams under `group` too from now on. Of more than [`GROUPS_MAX`] keys the oldest is forgotten, but not the
    /// one that this node seals with.
    pub fn accept_group(&mut self, group: GroupKey) {
        self.groups.retain(|known| *known != group);
        self.groups.push(group);
        let is_own = |known: &GroupKey| self.own.as_ref().is_some_and(|(own, _)| own == known);
        let oldest = self.groups.iter().position(|known| !is_own(known));
        if let Some(oldest) = oldest.filter(|_| self.groups.len() > GROUPS_MAX) {
            let old = self.groups.remove(oldest).generation;
            self.senders.retain(|(generation, _, _), _| *generation != old);
        }
    }

    /// Seals under `group` from now on, once all members accept it, and opens under it.
    ///
    /// # Errors
    /// The key derivation failed: [`SealError::Forged`].
    pub fn use_group(&mut self, group: GroupKey) -> Result<(), SealError> {
        let key = derive(&group.secret, self.name, self.start)?;
        self.own = Some((group.clone(), key));
        self.accept_group(group);
        Ok(())
    }

    /// Forgets all group keys but that of `generation`.
    pub fn retire_others(&mut self, generation: u8) {
        self.groups.retain(|group| group.generation == generation);
        self.senders.retain(|(sealed, _, _), _| *sealed == generation);
    }

    /// Sends under another start id from now on. The counter goes on.
    ///
    /// # Errors
    /// As for [`use_group`](Self::use_group).
    pub fn set_start(&mut self, start: StartId) -> Result<(), SealError> {
        self.start = start;
        let Some((group, _)) = &self.own else { return Err(SealError::Forged) };
        self.use_group(group.clone())
    }

    /// Seals `datagram` into `buffer`; what that held is dropped. Allocates only while `buffer` grows.
    ///
    /// # Errors
    /// [`SealError::Exhausted`] after 2^64 datagrams.
    pub fn seal(&mut self, datagram: &[u8], buffer: &mut Vec<u8>) -> Result<(), SealError> {
        let counter = self.counter;
        self.counter = counter.checked_add(1).ok_or(SealError::Exhausted)?;
        let Some((group, key)) = &self.own else { return Err(SealError::Forged) };
        buffer.clear();
        buffer.extend_from_slice(&[VERSION, group.generation]);
        buffer.extend_from_slice(&self.name.to_be_bytes());
        buffer.extend_from_slice(&self.start.0.to_be_bytes());
        buffer.extend_from_slice(&counter.to_be_bytes());
        buffer.extend_from_slice(datagram);
        let (header, body) = buffer.split_at_mut_checked(HEADER_LEN).ok_or(SealError::Forged)?;
        let tag =
            key.seal_in_place_separate_tag(nonce(counter), Aad::from(&*header), body).map_err(|_| SealError::Forged)?;
        buffer.extend_from_slice(tag.as_ref());
        Ok(())
    }

    /// Opens a sealed datagram in place; returns who sent it and what it says.
    ///
    /// # Errors
    /// Each case of [`SealError`] but [`SealError::Exhausted`]; the datagram then counts for nothing.
    pub fn open<'a>(&mut self, sealed: &'a mut [u8]) -> Result<(StartId, &'a [u8]), SealError> {
        let mut r = Reader::new(sealed);
        let version = r.error("Seal version", Cause::Range);
        if r.u8("Seal version")? != VERSION {
            return Err(version.into());
        }
        let generation = r.u8("Group key generation")?;
        let name = r.u64("Sender")?;
        let start = StartId(r.u64("Start id")?);
        let counter = r.u64("Counter")?;
        self.clock = self.clock.wrapping_add(1);
        let id = (generation, name, start);
        let (header, body) = sealed.split_at_mut_checked(HEADER_LEN).ok_or(SealError::Forged)?;
        let known = self.senders.get(&id);
        if known.is_some_and(|sender| !sender.is_fresh(counter)) {
            return Err(SealError::Replayed);
        }
        let groups = || self.groups.iter().filter(move |group| group.generation == generation);
        let count = groups().count();
        // A failed attempt spoils the octets.
        let spare = if count > 1 { body.to_vec() } else { Vec::new() };
        let open = |key: &LessSafeKey, body: &mut [u8]| {
            if !spare.is_empty() {
                body.copy_from_slice(&spare);
            }
            key.open_in_place(nonce(counter), Aad::from(&*header), body).ok().map(|plain| plain.len())
        };
        let mut key = None;
        let mut opened = known.and_then(|sender| open(&sender.key, body));
        if count == 0 {
            return Err(SealError::Generation(generation));
        }
        if opened.is_none() && (count > 1 || known.is_none()) {
            for group in groups() {
                let derived = derive(&group.secret, name, start)?;
                opened = open(&derived, body);
                if opened.is_some() {
                    key = Some(derived);
                    break;
                }
            }
        }
        let len = opened.ok_or(SealError::Forged)?;
        if let Some(key) = key {
            self.keep(id, key);
        }
        if let Some(sender) = self.senders.get_mut(&id) {
            sender.note(counter);
            sender.used = self.clock;
        }
        Ok((start, sealed.get(HEADER_LEN..HEADER_LEN.saturating_add(len)).unwrap_or_default()))
    }

    /// Keeps the key of a sender, who is new or has taken another group key of the same number.
    fn keep(&mut self, id: (u8, u64, StartId), key: LessSafeKey) {
        if let Some(sender) = self.senders.get_mut(&id) {
            sender.key = key;
            return;
        }
        if self.senders.len() >= SENDERS_MAX {
            let oldest = self.senders.iter().min_by_key(|(_, sender)| sender.used).map(|(id, _)| *id);
            if let Some(oldest) = oldest {
                self.senders.remove(&oldest);
            }
        }
        self.senders.insert(id, Sender { key, highest: 0, seen: [0; 16], used: self.clock });
    }
}

impl Sender {
    fn is_fresh(&self, counter: u64) -> bool {
        if counter > self.highest {
            return true;
        }
        if self.highest.saturating_sub(counter) >= WINDOW {
            return false;
        }
        let (word, bit) = place(counter);
        self.seen.get(word).is_some_and(|word| word & bit == 0)
    }

    fn note(&mut self, counter: u64) {
        let (last, next) = (self.highest >> 6, counter >> 6);
        if next > last {
            for block in last.saturating_add(1)..=next.min(last.saturating_add(16)) {
                let word = usize::try_from(block & 0xf).unwrap_or(0);
                if let Some(word) = self.seen.get_mut(word) {
                    *word = 0;
                }
            }
        }
        self.highest = self.highest.max(counter);
        let (word, bit) = place(counter);
        if let Some(word) = self.seen.get_mut(word) {
            *word |= bit;
        }
    }
}

fn place(counter: u64) -> (usize, u64) {
    (usize::try_from((counter >> 6) & 0xf).unwrap_or(0), 1_u64 << (counter & 0x3f))
}

fn nonce(counter: u64) -> Nonce {
    let mut bytes = [0; 12];
    if let Some(tail) = bytes.last_chunk_mut::<8>() {
        *tail = counter.to_be_bytes();
    }
    Nonce::assume_unique_for_key(bytes)
}

fn derive(group: &Secret, name: u64, start: StartId) -> Result<LessSafeKey, SealError> {
    let mut info = b"cryptocluster keepalive".to_vec();
    info.extend_from_slice(&name.to_be_bytes());
    info.extend_from_slice(&start.0.to_be_bytes());
    let mut key = zeroize::Zeroizing::new([0; 32]);
    Hkdf::<Sha256>::new(None, group.expose()).expand(&info, key.as_mut()).map_err(|_| SealError::Forged)?;
    Ok(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key.as_ref()).map_err(|_| SealError::Forged)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(generation: u8) -> GroupKey {
        GroupKey { generation, secret: Secret::from_slice(&[generation; 32]) }
    }

    fn seal(name: &str, start: u64) -> Seal {
        Seal::new(&Name::new(name).unwrap(), StartId(start), group(1)).unwrap()
    }

    #[test]
    fn a_sealed_datagram_opens_once() {
        let (mut a, mut b) = (seal("a", 1), seal("b", 2));
        let mut buffer = Vec::new();
        a.seal(b"hello", &mut buffer).unwrap();
        let mut again = buffer.clone();
        assert_eq!(b.open(&mut buffer), Ok((StartId(1), b"hello".as_slice())));
        assert_eq!(b.open(&mut again), Err(SealError::Replayed));
    }

    #[test]
    fn any_changed_octet_is_refused() {
        let (mut a, mut b) = (seal("a", 1), seal("b", 2));
        let mut buffer = Vec::new();
        a.seal(b"hello", &mut buffer).unwrap();
        for at in 0..buffer.len() {
            let mut changed = buffer.clone();
            changed[at] ^= 1;
            assert!(b.open(&mut changed).is_err(), "octet {at}");
        }
        for len in 0..buffer.len() {
            assert!(b.open(&mut buffer[..len].to_vec()).is_err(), "cut at {len}");
        }
        assert!(b.open(&mut buffer).is_ok());
    }

    #[test]
    fn reordered_datagrams_open_within_the_window_only() {
        let (mut a, mut b) = (seal("a", 1), seal("b", 2));
        let mut sealed = Vec::new();
        for _ in 0..=WINDOW {
            let mut buffer = Vec::new();
            a.seal(b"x", &mut buffer).unwrap();
            sealed.push(buffer);
        }
        let first = sealed.remove(0);
        let mut last = sealed.pop().unwrap();
        assert!(b.open(&mut last).is_ok());
        for mut buffer in sealed.into_iter().rev() {
            assert!(b.open(&mut buffer.clone()).is_ok());
            assert_eq!(b.open(&mut buffer), Err(SealError::Replayed));
        }
        assert_eq!(b.open(&mut first.clone()), Err(SealError::Replayed));
    }

    #[test]
    fn both_group_keys_open_while_they_overlap() {
        let (mut a, mut b) = (seal("a", 1), seal("b", 2));
        b.accept_group(group(2));
        let mut buffer = Vec::new();
        a.seal(b"old", &mut buffer).unwrap();
        assert!(b.open(&mut buffer).is_ok());
        a.use_group(group(2)).unwrap();
        a.seal(b"new", &mut buffer).unwrap();
        assert!(b.open(&mut buffer).is_ok());
        b.retire_others(1);
        a.seal(b"new", &mut buffer).unwrap();
        assert_eq!(b.open(&mut buffer), Err(SealError::Generation(2)));
    }

    #[test]
    fn keys_of_one_number_are_told_apart_by_what_they_open() {
        let (mut a, mut b, mut c) = (seal("a", 1), seal("b", 2), seal("c", 3));
        let other = GroupKey { generation: 1, secret: Secret::from_slice(&[9; 32]) };
        let mut buffer = Vec::new();
        a.seal(b"old", &mut buffer).unwrap();
        let mut recorded = buffer.clone();
        assert!(b.open(&mut buffer).is_ok());
        a.use_group(other.clone()).unwrap();
        b.accept_group(other);
        assert_eq!(b.open(&mut recorded), Err(SealError::Replayed), "nothing is forgotten");
        for round in 0..3 {
            a.seal(b"new", &mut buffer).unwrap();
            assert_eq!(b.open(&mut buffer), Ok((StartId(1), b"new".as_slice())), "{round}");
            c.seal(b"under the first", &mut buffer).unwrap();
            assert_eq!(b.open(&mut buffer), Ok((StartId(3), b"under the first".as_slice())), "{round}");
        }
        b.set_start(StartId(4)).unwrap();
        b.seal(b"as before", &mut buffer).unwrap();
        assert!(c.open(&mut buffer).is_ok(), "it still seals under the first");
        a.seal(b"x", &mut buffer).unwrap();
        for at in 0..buffer.len() {
            let mut changed = buffer.clone();
            changed[at] ^= 1;
            assert!(b.open(&mut changed).is_err(), "octet {at}");
        }
        assert!(b.open(&mut buffer).is_ok());
    }

    #[test]
    fn the_oldest_of_many_keys_is_forgotten_but_not_ones_own() {
        let (mut a, mut b) = (seal("a", 1), seal("b", 2));
        for generation in 2..=40 {
            b.accept_group(group(generation));
        }
        assert_eq!(b.groups.len(), GROUPS_MAX);
        let mut buffer = Vec::new();
        for (generation, opens) in [(1, true), (2, false), (25, false), (26, true), (40, true)] {
            a.use_group(group(generation)).unwrap();
            a.seal(b"x", &mut buffer).unwrap();
            assert_eq!(b.open(&mut buffer).is_ok(), opens, "{generation}");
        }
    }

    #[test]
    fn the_memory_of_senders_is_bounded() {
        let mut b = seal("b", 0);
        let mut buffer = Vec::new();
        for start in 1..200 {
            seal("a", start).seal(b"x", &mut buffer).unwrap();
            assert!(b.open(&mut buffer).is_ok());
        }
        assert_eq!(b.senders.len(), SENDERS_MAX);
    }
}
