//! Addresses out of pools: the same identity gets the same address again, if it can.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};

use auth::Identity;
use wire::{Prefix, Time, WorkSet};

use crate::config;

/// A pool of inner addresses, as the owner of its work set keeps it.
#[derive(Debug)]
pub(super) struct Pool {
    first: u32,
    last: u32,
    /// Never given, such as the cluster's own address.
    reserved: Vec<IpAddr>,
    /// Every address that was ever given: to whom last, and whether it is in use.
    given: HashMap<u32, Entry>,
    by_identity: HashMap<Identity, u32>,
    /// Where the search for an address that nobody had starts.
    next: u32,
}

#[derive(Debug)]
struct Entry {
    identity: Identity,
    /// The session that has it, or had it last.
    session: u64,
    in_use: bool,
    /// When it was given, or when this node learned that it was.
    since: Time,
}

/// An address that is in use, as far as the pool knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Given {
    /// The address.
    pub(super) address: IpAddr,
    /// The session that has it.
    pub(super) session: u64,
}

impl Given {
    /// The work set of the session.
    pub(super) const fn home(self) -> WorkSet {
        WorkSet::from_low_bits(self.session)
    }
}

impl Pool {
    pub(super) fn new(pool: &config::Pool, reserved: Vec<IpAddr>) -> Self {
        let (first, last) = bounds(pool.prefix);
        Self { first, last, reserved, given: HashMap::new(), by_identity: HashMap::new(), next: first }
    }

    /// Gives an address: the one that the session has already, whose answer was lost; else the one that the identity had
    /// before, else the one that the peer asks for, else one that nobody had, else one that nobody uses.
    pub(super) fn take(
        &mut self,
        now: Time,
        identity: &Identity,
        wish: Option<IpAddr>,
        session: u64,
    ) -> Option<IpAddr> {
        let wish = wish.and_then(|address| self.index(address));
        let before = self.by_identity.get(identity).copied();
        let holds = |entry: &Entry| entry.in_use && entry.session == session && entry.identity == *identity;
        if let Some(index) = before.filter(|index| self.given.get(index).is_some_and(holds)) {
            return Some(address(index));
        }
        let index = [before, wish]
            .into_iter()
            .flatten()
            .find(|index| self.is_free(*index))
            .or_else(|| self.fresh())
            .or_else(|| (self.first..=self.last).find(|index| self.is_free(*index)))?;
        self.note(now, index, identity, session);
        Some(address(index))
    }

    /// Notes an address that was given by an owner before this one.
    pub(super) fn note_given(&mut self, now: Time, given: IpAddr, identity: &Identity, session: u64, in_use: bool) {
        if let Some(index) = self.index(given) {
            self.note(now, index, identity, session);
            if !in_use {
                self.give_back(given, session);
            }
        }
    }

    /// Takes an address back and returns whose it was, who keeps the first claim to it; `None` if that session does not
    /// have it.
    pub(super) fn give_back(&mut self, returned: IpAddr, session: u64) -> Option<Identity> {
        let given = self.index(returned).and_then(|index| self.given.get_mut(&index));
        let given = given.filter(|given| given.in_use && given.session == session)?;
        given.in_use = false;
        Some(given.identity.clone())
    }

    /// Addresses that are in use and were given before that time.
    pub(super) fn given_before(&self, time: Time) -> impl Iterator<Item = Given> {
        let old = self.given.iter().filter(move |(_, entry)| entry.in_use && entry.since < time);
        old.map(|(index, entry)| Given { address: address(*index), session: entry.session })
    }

    /// How many are in use, and how many there are.
    pub(super) fn usage(&self) -> (usize, usize) {
        let size = usize::try_from(self.last - self.first + 1).unwrap_or(usize::MAX);
        (self.given.values().filter(|given| given.in_use).count(), size)
    }

    fn note(&mut self, now: Time, index: u32, identity: &Identity, session: u64) {
        let given = Entry { identity: identity.clone(), session, in_use: true, since: now };
        if let Some(before) = self.given.insert(index, given)
            && before.identity != *identity
            && self.by_identity.get(&before.identity) == Some(&index)
        {
            self.by_identity.remove(&before.identity);
        }
        self.by_identity.insert(identity.clone(), index);
    }

    fn fresh(&mut self) -> Option<u32> {
        while self.next <= self.last {
            let index = self.next;
            self.next += 1;
            if !self.given.contains_key(&index) && self.is_free(index) {
                return Some(index);
            }
        }
        None
    }

    fn is_free(&self, index: u32) -> bool {
        !self.reserved.contains(&address(index)) && self.given.get(&index).is_none_or(|given| !given.in_use)
    }

    fn index(&self, wanted: IpAddr) -> Option<u32> {
        match wanted {
            IpAddr::V4(wanted) => Some(wanted.to_bits()).filter(|index| (self.first..=self.last).contains(index)),
            IpAddr::V6(_) => None,
        }
    }
}

/// The addresses of a prefix without the first and the last, which name the network and its broadcast.
fn bounds(prefix: Prefix) -> (u32, u32) {
    match prefix.range() {
        (IpAddr::V4(first), IpAddr::V4(last)) => (first.to_bits().saturating_add(1), last.to_bits().saturating_sub(1)),
        // The configuration takes IPv4 only.
        (IpAddr::V4(_) | IpAddr::V6(_), IpAddr::V4(_) | IpAddr::V6(_)) => (1, 0),
    }
}

fn address(index: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_bits(index))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(prefix: &str, reserved: &[&str]) -> Pool {
        let pool = config::Pool { name: "clients".into(), prefix: prefix.parse().unwrap() };
        Pool::new(&pool, reserved.iter().map(|text| text.parse().unwrap()).collect())
    }

    const NOW: Time = Time::ZERO;

    fn take(pool: &mut Pool, identity: &str, wish: Option<&str>, session: u64) -> Option<String> {
        let wish = wish.map(|text| text.parse().unwrap());
        pool.take(NOW, &identity.parse().unwrap(), wish, session).map(|address| address.to_string())
    }

    fn give_back(pool: &mut Pool, address: &str, session: u64) -> bool {
        pool.give_back(address.parse().unwrap(), session).is_some()
    }

    #[test]
    fn an_identity_gets_its_address_again_and_nobody_elses() {
        let mut pool = pool("10.2.0.0/29", &["10.2.0.2"]);
        assert_eq!(take(&mut pool, "a", None, 1).as_deref(), Some("10.2.0.1"));
        assert_eq!(take(&mut pool, "b", None, 2).as_deref(), Some("10.2.0.3"));
        assert_eq!(take(&mut pool, "a", None, 3).as_deref(), Some("10.2.0.4"), "a second device of a");
        assert!(give_back(&mut pool, "10.2.0.3", 2));
        assert_eq!(take(&mut pool, "c", Some("10.2.0.5"), 4).as_deref(), Some("10.2.0.5"));
        assert_eq!(take(&mut pool, "b", Some("10.2.0.6"), 5).as_deref(), Some("10.2.0.3"));
    }

    #[test]
    fn a_full_pool_gives_nothing_until_one_comes_back() {
        let mut pool = pool("10.2.0.0/30", &[]);
        assert!(take(&mut pool, "a", None, 1).is_some() && take(&mut pool, "b", None, 2).is_some());
        assert_eq!(take(&mut pool, "c", None, 3), None);
        assert_eq!(pool.usage(), (2, 2));
        assert!(give_back(&mut pool, "10.2.0.1", 1));
        assert_eq!(take(&mut pool, "c", Some("192.0.2.1"), 3).as_deref(), Some("10.2.0.1"));
        assert_eq!(take(&mut pool, "a", None, 4), None, "a has lost its claim");
    }

    #[test]
    fn an_address_noted_from_an_owner_before_is_not_given_again() {
        let mut pool = pool("10.2.0.0/29", &[]);
        pool.note_given(NOW, "10.2.0.1".parse().unwrap(), &"a".parse().unwrap(), 1, true);
        assert_eq!(take(&mut pool, "b", None, 2).as_deref(), Some("10.2.0.2"));
        pool.note_given(NOW, "10.2.0.3".parse().unwrap(), &"c".parse().unwrap(), 3, false);
        assert_eq!(take(&mut pool, "c", None, 4).as_deref(), Some("10.2.0.3"), "c keeps its claim");
        pool.note_given(NOW, "192.0.2.1".parse().unwrap(), &"a".parse().unwrap(), 5, true);
    }

    #[test]
    fn a_session_that_asks_again_gets_the_address_that_it_has() {
        let mut pool = pool("10.2.0.0/29", &[]);
        assert_eq!(take(&mut pool, "a", None, 1).as_deref(), Some("10.2.0.1"));
        assert_eq!(take(&mut pool, "a", None, 1).as_deref(), Some("10.2.0.1"), "the answer was lost");
        assert_eq!(pool.usage().0, 1);
    }

    #[test]
    fn an_address_comes_back_from_the_session_that_has_it_only() {
        let mut pool = pool("10.2.0.0/30", &[]);
        assert!(take(&mut pool, "a", None, 1).is_some() && give_back(&mut pool, "10.2.0.1", 1));
        assert_eq!(take(&mut pool, "b", Some("10.2.0.1"), 2).as_deref(), Some("10.2.0.1"));
        assert!(!give_back(&mut pool, "10.2.0.1", 1), "a word that came late");
        assert_eq!(pool.usage().0, 1);
    }

    #[test]
    fn addresses_given_long_ago_are_told_with_their_session() {
        let mut pool = pool("10.2.0.0/29", &[]);
        take(&mut pool, "a", None, 7);
        pool.take(Time::from_millis(50), &"b".parse().unwrap(), None, 8);
        let old: Vec<Given> = pool.given_before(Time::from_millis(50)).collect();
        assert_eq!(old, [Given { address: "10.2.0.1".parse().unwrap(), session: 7 }]);
        assert_eq!(old[0].home(), WorkSet::from_low_bits(7));
        give_back(&mut pool, "10.2.0.1", 7);
        assert_eq!(pool.given_before(Time::from_millis(50)).count(), 0);
    }
}
