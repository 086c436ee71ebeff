//! Inner prefixes: which work set carries the traffic to an inner address. Every node's dispatch must know before the
//! SA that carries it is used.

use std::collections::BTreeMap;
use std::net::IpAddr;

use wire::{Change, Prefix, RecordId, RecordKind, WorkSet};

/// The record that says that the SAs of `set` carry `prefix`.
#[must_use]
pub fn record(set: WorkSet, prefix: Prefix) -> RecordId {
    RecordId { set, kind: RecordKind::INNER_PREFIX, key: key(prefix) }
}

/// What is to be changed in dispatch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InnerChange {
    /// The prefix leads to that set now.
    Put(Prefix, WorkSet),
    /// It leads nowhere.
    Remove(Prefix),
}

/// The prefixes that are known, with the set that claimed each last. A claim that is withdrawn by a set that does not
/// hold it any more changes nothing: the peer has come back in another set meanwhile.
#[derive(Debug, Default)]
pub struct InnerPrefixes {
    homes: BTreeMap<u128, WorkSet>,
}

impl InnerPrefixes {
    /// Takes a change of a record; returns what follows for dispatch.
    pub fn apply(&mut self, id: RecordId, change: &Change) -> Option<InnerChange> {
        let prefix = prefix(id.key)?;
        match change {
            Change::Put(_) => {
                self.homes.insert(id.key, id.set);
                Some(InnerChange::Put(prefix, id.set))
            }
            Change::Delete if self.homes.get(&id.key) == Some(&id.set) => {
                self.homes.remove(&id.key);
                Some(InnerChange::Remove(prefix))
            }
            Change::Delete => None,
        }
    }

    /// The set that carries the traffic to `address`: that of the longest prefix. Costs one look-up for each length, however
    /// many prefixes are known: it is asked for every packet that is handed on.
    #[must_use]
    pub fn home(&self, address: IpAddr) -> Option<WorkSet> {
        let widest = if address.is_ipv4() { 32 } else { 64 };
        (0..=widest).rev().find_map(|len| self.homes.get(&key_of(address, len)).copied())
    }
}

fn key(prefix: Prefix) -> u128 {
    key_of(prefix.address(), prefix.len())
}

/// Family, length and the high bits of the address, at most 64: IPv6 prefixes longer than /64 do not fit and share the key of
/// their /64, which goes to one work set as a whole.
fn key_of(address: IpAddr, len: u8) -> u128 {
    let (family, width, bits): (u128, u8, u128) = match address {
        IpAddr::V4(address) => (4, 32, u128::from(address.to_bits())),
        IpAddr::V6(address) => (6, 64, address.to_bits() >> 64),
    };
    let len = len.min(width);
    let rest = width - len;
    family << 120 | u128::from(len) << 112 | bits >> rest << rest
}

fn prefix(key: u128) -> Option<Prefix> {
    let [family, len, ..] = key.to_be_bytes();
    let low = u64::try_from(key & u128::from(u64::MAX)).ok()?;
    let address = match family {
        4 => IpAddr::V4(u32::try_from(low).ok()?.into()),
        6 => IpAddr::V6((u128::from(low) << 64).into()),
        _ => return None,
    };
    Prefix::new(address, len)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn set(index: u16) -> WorkSet {
        WorkSet::new(index).unwrap()
    }

    fn put() -> Change {
        Change::Put(Box::default())
    }

    #[test]
    fn keys_and_prefixes_lead_to_each_other() {
        for text in ["10.9.0.0/16", "10.9.1.4/32", "0.0.0.0/0", "2001:db8::/32", "::/0", "2001:db8:1:2::/64"] {
            let wanted: Prefix = text.parse().unwrap();
            assert_eq!(prefix(key(wanted)), Some(wanted), "{text}");
        }
        assert_eq!(prefix(0), None);
        assert_eq!(prefix(u128::MAX), None);
    }

    #[test]
    fn an_address_is_of_the_longest_prefix() {
        let mut known = InnerPrefixes::default();
        let prefixes = ["0.0.0.0/0", "10.9.0.0/16", "10.9.1.4/32", "2001:db8::/32", "2001:db8:1:2::/64"];
        for (index, text) in (0..).zip(prefixes) {
            known.apply(record(set(index), text.parse().unwrap()), &put());
        }
        for (address, home) in [
            ("192.0.2.1", Some(0)),
            ("10.9.7.7", Some(1)),
            ("10.9.1.4", Some(2)),
            ("10.9.1.5", Some(1)),
            ("2001:db8:7::1", Some(3)),
            ("2001:db8:1:2:3::4", Some(4)),
            ("2001:db9::1", None),
        ] {
            assert_eq!(known.home(address.parse().unwrap()), home.map(set), "{address}");
        }
    }

    #[test]
    fn a_look_up_takes_no_longer_with_many_prefixes() {
        let mut known = InnerPrefixes::default();
        let client = |number: u32| IpAddr::V4((0x0a08_0000 + number).into());
        for number in 0..50_000 {
            known.apply(record(set(5), Prefix::host(client(number))), &put());
        }
        let start = Instant::now();
        let found = (0..50_000).filter(|number| known.home(client(*number)).is_some()).count();
        assert_eq!(found, 50_000);
        // Going through all of them would take a minute.
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    }

    #[test]
    fn a_late_withdrawal_does_not_take_a_newer_claim_away() {
        let mut known = InnerPrefixes::default();
        let client: Prefix = "10.9.0.7/32".parse().unwrap();
        assert_eq!(known.apply(record(set(1), client), &put()), Some(InnerChange::Put(client, set(1))));
        assert_eq!(known.apply(record(set(2), client), &put()), Some(InnerChange::Put(client, set(2))));
        assert_eq!(known.apply(record(set(1), client), &Change::Delete), None);
        assert_eq!(known.home(client.address()), Some(set(2)));
        assert_eq!(known.apply(record(set(2), client), &Change::Delete), Some(InnerChange::Remove(client)));
        assert_eq!(known.home(client.address()), None);
    }
}
