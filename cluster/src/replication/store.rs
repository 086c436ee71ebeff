//! The records that this node holds, by work set.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};
use wire::{Change, Epoch, RecordId, RecordKind, WorkSet};

use super::message::Digest;

/// The records of one work set and under which epoch they are known.
#[derive(Debug, Default)]
pub(super) struct SetStore {
    pub(super) epoch: Epoch,
    pub(super) owned: bool,
    records: BTreeMap<(RecordKind, u128), Box<[u8]>>,
    digest: Digest,
}

impl SetStore {
    /// The sum of the digests of all records: it follows each change without reading the others.
    pub(super) const fn digest(&self) -> Digest {
        self.digest
    }

    pub(super) fn apply(&mut self, id: RecordId, change: Change) {
        let key = (id.kind, id.key);
        let before = match change {
            Change::Put(bytes) => {
                self.digest = self.digest.wrapping_add(digest(key, &bytes));
                self.records.insert(key, bytes)
            }
            Change::Delete => self.records.remove(&key),
        };
        if let Some(before) = before {
            self.digest = self.digest.wrapping_sub(digest(key, &before));
        }
    }

    /// Replaces all records; returns what changed.
    pub(super) fn replace(
        &mut self,
        set: WorkSet,
        records: BTreeMap<(RecordKind, u128), Box<[u8]>>,
    ) -> Vec<(RecordId, Change)> {
        let mut changes = Vec::new();
        let name = |(kind, key): (RecordKind, u128)| RecordId { set, kind, key };
        for key in self.records.keys().filter(|key| !records.contains_key(*key)) {
            changes.push((name(*key), Change::Delete));
        }
        for (key, bytes) in &records {
            if self.records.get(key) != Some(bytes) {
                changes.push((name(*key), Change::Put(bytes.clone())));
            }
        }
        self.digest = records.iter().fold(0, |sum: Digest, (key, bytes)| sum.wrapping_add(digest(*key, bytes)));
        self.records = records;
        changes
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (RecordKind, u128, &[u8])> {
        self.records.iter().map(|((kind, key), bytes)| (*kind, *key, &**bytes))
    }
}

fn digest((kind, key): (RecordKind, u128), bytes: &[u8]) -> Digest {
    let mut hash = Sha256::new();
    hash.update(kind.0.to_be_bytes());
    hash.update(key.to_be_bytes());
    hash.update(bytes);
    let hash: [u8; 32] = hash.finalize().into();
    hash.first_chunk::<16>().map_or(0, |head| u128::from_be_bytes(*head))
}
