//! The key under which the cluster's keepalives are sealed: who draws it, and which of several stays.
//!
//! Each node draws one at its start and shows it to its neighbours inside their mutual-TLS sessions, in memory only. A
//! node without a view takes over a better one: that of a neighbour in a view, else one that such a neighbour once
//! vouched for, else the one with the smallest name. So a joiner takes the cluster's, and founders agree. Two parts that were
//! founded while they could not reach each other have a key each: both read the other's too, so that one can yield and join.

use std::cmp::Reverse;

use cluster::seal::GroupKey;
use wire::{Secret, record};

record! {
    /// A group key as a neighbour shows it.
    #[derive(Clone, Debug, PartialEq)]
    pub(super) struct Shown {
        /// Drawn with the key: its name.
        1 => pub(super) id: u64,
        /// The key.
        2 => pub(super) secret: Secret,
        /// Whether a node in a view has used it.
        3 => pub(super) proven: bool,
        /// Whether the one who shows it is in a view.
        4 => pub(super) in_view: bool,
    }
}

/// The key that this node seals with.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    own: Shown,
}

impl Keys {
    /// Starts with a key drawn here.
    pub(super) fn new(id: u64, secret: Secret) -> Self {
        Self { own: Shown { id, secret, proven: false, in_view: false, unknown: wire::UnknownFields::default() } }
    }

    /// What the neighbours are to be shown.
    pub(super) fn shown(&self) -> &Shown {
        &self.own
    }

    /// The key for the seal.
    pub(super) fn group(&self) -> GroupKey {
        group_of(&self.own)
    }

    /// The key of a neighbour whose part of the cluster was founded apart from this node's: its announcements must be read, or
    /// neither would ever yield.
    pub(super) fn founded_apart(&self, shown: &Shown) -> Option<GroupKey> {
        (self.own.in_view && shown.in_view && shown.id != self.own.id).then(|| group_of(shown))
    }

    /// This node has entered a view, or left all. Returns whether the neighbours must be shown the change.
    pub(super) fn handle_view(&mut self, in_view: bool) -> bool {
        let changed = self.own.in_view != in_view;
        self.own.in_view = in_view;
        self.own.proven |= in_view;
        changed
    }

    /// Looks at a neighbour's key. Returns whether this node takes it over, and must show that.
    pub(super) fn handle_shown(&mut self, shown: Shown) -> bool {
        let rank = |key: &Shown| (key.in_view, key.proven, Reverse(key.id));
        if self.own.in_view || rank(&shown) <= rank(&self.own) {
            return false;
        }
        let changed = shown.id != self.own.id || shown.proven != self.own.proven;
        let proven = shown.proven || shown.in_view;
        self.own = Shown { in_view: false, proven, ..shown };
        changed
    }
}

/// The generation tells keys apart in a datagram before it is opened.
fn group_of(shown: &Shown) -> GroupKey {
    let [.., generation] = shown.id.to_be_bytes();
    GroupKey { generation, secret: shown.secret.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(id: u64) -> Keys {
        Keys::new(id, Secret::from_slice(&id.to_be_bytes()))
    }

    /// Everybody shows everybody until nothing changes.
    fn settle(nodes: &mut [Keys]) {
        for _ in 0..10 {
            for from in 0..nodes.len() {
                let shown = nodes[from].shown().clone();
                for (to, node) in nodes.iter_mut().enumerate() {
                    if to != from {
                        node.handle_shown(shown.clone());
                    }
                }
            }
        }
    }

    #[test]
    fn founders_agree_on_the_smallest() {
        let mut nodes = [keys(9), keys(3), keys(5)];
        settle(&mut nodes);
        assert!(nodes.iter().all(|node| node.shown().id == 3));
    }

    #[test]
    fn a_joiner_takes_the_clusters_key_although_its_own_is_smaller() {
        let mut nodes = [keys(9), keys(9), keys(1)];
        nodes[0].handle_view(true);
        settle(&mut nodes);
        assert!(nodes.iter().all(|node| node.shown().id == 9));
    }

    #[test]
    fn who_left_its_view_keeps_the_key_against_strangers() {
        let mut nodes = [keys(9), keys(1)];
        nodes[0].handle_view(true);
        nodes[0].handle_view(false);
        settle(&mut nodes);
        assert!(nodes.iter().all(|node| node.shown().id == 9));
    }

    #[test]
    fn who_is_in_a_view_takes_none() {
        let mut node = keys(9);
        node.handle_view(true);
        let mut other = keys(1);
        other.handle_view(true);
        assert!(!node.handle_shown(other.shown().clone()));
        assert_eq!(node.shown().id, 9);
    }

    #[test]
    fn parts_that_were_founded_apart_read_each_other_until_one_has_yielded() {
        let mut nodes = [keys(9), keys(1)];
        assert!(nodes[0].founded_apart(nodes[1].shown()).is_none(), "who is in no view takes a key over");
        for node in &mut nodes {
            node.handle_view(true);
        }
        let theirs = nodes[0].founded_apart(nodes[1].shown());
        assert_eq!(theirs.map(|key| (key.generation, key.secret)), Some((1, nodes[1].shown().secret.clone())));
        assert!(nodes[0].founded_apart(nodes[0].shown()).is_none());
        nodes[1].handle_view(false);
        settle(&mut nodes);
        assert!(nodes.iter().all(|node| node.shown().id == 9));
    }
}
