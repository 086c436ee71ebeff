//! Addresses out of pools: the same identity gets the same address again, if it can.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};

use auth::Identity;
use wire::Prefix;

use crate::config;

/// A pool of inner addresses, as the owner of its work set keeps it.
#[derive(Debug)]
pub(super) struct Pool {
    first: u32,
    last: u32,
    /// Never given, such as the cluster's own address.
    reserved: Vec<IpAddr>,
    /// Every address that was ever given: to whom last, and whether it is in use.
    given: HashMap<u32, Given>,
    by_identity: HashMap<Identity, u32>,
    /// Where the search for an address that nobody had starts.
    next: u32,
}

#[derive(Debug)]
struct Given {
    identity: Identity,
    in_use: bool,
}

impl Pool {
    pub(super) fn new(pool: &config::Pool, reserved: Vec<IpAddr>) -> Self {
        let (first, last) = bounds(pool.prefix);
        Self { first, last, reserved, given: HashMap::new(), by_identity: HashMap::new(), next: first }
    }

    /// Gives an address: the one that the identity had before, else the one that the peer asks for, else one that nobody
    /// had, else one that nobody uses.
    pub(super) fn take(&mut self, identity: &Identity, wish: Option<IpAddr>) -> Option<IpAddr> {
        let wish = wish.and_then(|address| self.index(address));
        let before = self.by_identity.get(identity).copied();
        let index = [before, wish]
            .into_iter()
            .flatten()
            .find(|index| self.is_free(*index))
            .or_else(|| self.fresh())
            .or_else(|| (self.first..=self.last).find(|index| self.is_free(*index)))?;
        self.note(index, identity);
        Some(address(index))
    }

    /// Notes an address that was given by an owner before this one.
    pub(super) fn note_given(&mut self, given: IpAddr, identity: &Identity, in_use: bool) {
        if let Some(index) = self.index(given) {
            self.note(index, identity);
            if !in_use {
                self.give_back(given);
            }
        }
    }

    /// Takes an address back and returns whose it was, who keeps the first claim to it; `None` if it was not given.
    pub(super) fn give_back(&mut self, returned: IpAddr) -> Option<Identity> {
        let given = self.index(returned).and_then(|index| self.given.get_mut(&index)).filter(|given| given.in_use)?;
        given.in_use = false;
        Some(given.identity.clone())
    }

    /// How many are in use, and how many there are.
    pub(super) fn usage(&self) -> (usize, usize) {
        let size = usize::try_from(self.last - self.first + 1).unwrap_or(usize::MAX);
        (self.given.values().filter(|given| given.in_use).count(), size)
    }

    fn note(&mut self, index: u32, identity: &Identity) {
        let given = Given { identity: identity.clone(), in_use: true };
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

    fn take(pool: &mut Pool, identity: &str, wish: Option<&str>) -> Option<String> {
        let wish = wish.map(|text| text.parse().unwrap());
        pool.take(&identity.parse().unwrap(), wish).map(|address| address.to_string())
    }

    #[test]
    fn an_identity_gets_its_address_again_and_nobody_elses() {
        let mut pool = pool("10.2.0.0/29", &["10.2.0.2"]);
        assert_eq!(take(&mut pool, "a", None).as_deref(), Some("10.2.0.1"));
        assert_eq!(take(&mut pool, "b", None).as_deref(), Some("10.2.0.3"));
        assert_eq!(take(&mut pool, "a", None).as_deref(), Some("10.2.0.4"), "a second device of a");
        pool.give_back("10.2.0.3".parse().unwrap());
        assert_eq!(take(&mut pool, "c", Some("10.2.0.5")).as_deref(), Some("10.2.0.5"));
        assert_eq!(take(&mut pool, "b", Some("10.2.0.6")).as_deref(), Some("10.2.0.3"));
    }

    #[test]
    fn a_full_pool_gives_nothing_until_one_comes_back() {
        let mut pool = pool("10.2.0.0/30", &[]);
        assert!(take(&mut pool, "a", None).is_some() && take(&mut pool, "b", None).is_some());
        assert_eq!(take(&mut pool, "c", None), None);
        assert_eq!(pool.usage(), (2, 2));
        pool.give_back("10.2.0.1".parse().unwrap());
        assert_eq!(take(&mut pool, "c", Some("192.0.2.1")).as_deref(), Some("10.2.0.1"));
        assert_eq!(take(&mut pool, "a", None), None, "a has lost its claim");
    }

    #[test]
    fn an_address_noted_from_an_owner_before_is_not_given_again() {
        let mut pool = pool("10.2.0.0/29", &[]);
        pool.note_given("10.2.0.1".parse().unwrap(), &"a".parse().unwrap(), true);
        assert_eq!(take(&mut pool, "b", None).as_deref(), Some("10.2.0.2"));
        pool.note_given("10.2.0.3".parse().unwrap(), &"c".parse().unwrap(), false);
        assert_eq!(take(&mut pool, "c", None).as_deref(), Some("10.2.0.3"), "c keeps its claim");
        pool.note_given("192.0.2.1".parse().unwrap(), &"a".parse().unwrap(), true);
    }
}
