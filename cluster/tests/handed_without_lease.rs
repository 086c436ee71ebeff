//! A planned move that ends at a node without a lease: others may have gone on without it, and with the set.

#[path = "nodes/air.rs"]
mod air;
mod nodes;

use std::time::Duration;

use cluster::membership::{Act, How, Output};
use cluster::{Membership, StartId};
use wire::{Epoch, Time, WorkSet};

use air::{deliver, said};
use nodes::node;

const NODES: u8 = 3;
const STEP: Duration = Duration::from_micros(500);

/// Three nodes and what their drivers were told.
struct Cluster {
    nodes: Vec<Membership>,
    now: Time,
    /// Hears nobody; the others hear it.
    deaf: Option<usize>,
    /// Under which epoch new owners say that they queue, given that of the move.
    prepared_under: fn(Epoch) -> Epoch,
    /// Stopped for the node with that start id; the hand-over is the test's.
    stopped: Vec<(StartId, WorkSet, Epoch)>,
    /// Taken by planned moves.
    taken: Vec<(usize, WorkSet, Epoch)>,
}

impl Cluster {
    fn step(&mut self) {
        self.now += STEP;
        let (now, mut under_way) = (self.now, Vec::new());
        for (at, node) in self.nodes.iter_mut().enumerate() {
            if node.poll_timeout() <= now {
                node.handle_timeout(now);
            }
            while let Some(output) = node.poll_output() {
                if let Output::Prepare { set, tenure, .. } = output {
                    node.handle_prepared(now, set, (self.prepared_under)(tenure.epoch));
                } else if let Output::Stop { set, to, tenure } = output {
                    self.stopped.push((to, set, tenure.epoch));
                } else if let Output::JoinAsked(identity) = output {
                    node.handle_join_verdict(now, identity.start, Ok(()));
                } else if let Output::Acquire { set, tenure, how: How::Planned } = output {
                    self.taken.push((at, set, tenure.epoch));
                }
            }
            under_way.extend(said(node).into_iter().map(|(to, datagram)| (at, to, datagram)));
        }
        for (from, to, datagram) in under_way {
            if self.deaf != Some(to) {
                deliver(&mut self.nodes, now, (from, to, &datagram));
            }
        }
    }

    fn step_until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        let end = self.now + Duration::from_secs(5);
        while !done(self) {
            assert!(self.now < end, "{what}");
            self.step();
        }
    }
}

/// A cluster in which a set was handed to a node whose lease ended before; which node and set, under which epoch.
fn handed_without_lease() -> (Cluster, usize, WorkSet, Epoch) {
    let mut cluster = drained(|epoch| epoch);
    cluster.step_until("a set is stopped for another node", |cluster| !cluster.stopped.is_empty());

    let (to, set, epoch) = cluster.stopped[0];
    let new = cluster.nodes.iter().position(|node| node.identity().start == to).unwrap();
    cluster.deaf = Some(new);
    cluster.step_until("its lease ends", |cluster| cluster.nodes[new].lease_until() <= cluster.now);
    let now = cluster.now;
    cluster.nodes[new].handle_taken(now, set, epoch);
    (cluster, new, set, epoch)
}

/// A cluster whose first node is to give all its sets away.
fn drained(prepared_under: fn(Epoch) -> Epoch) -> Cluster {
    let nodes: Vec<Membership> = (0..NODES).map(|number| node(number, NODES)).collect();
    let (stopped, taken) = (Vec::new(), Vec::new());
    let mut cluster = Cluster { nodes, now: Time::ZERO, deaf: None, prepared_under, stopped, taken };
    cluster.step_until("all form a cluster", |cluster| {
        cluster
            .nodes
            .iter()
            .all(|node| members(node) == NODES.into() && node.lease_until() > cluster.now && node.table().is_some())
    });
    let view = cluster.nodes[0].view().unwrap().clone();
    let drained = view.full().iter().next().unwrap();
    let now = cluster.now;
    for node in &mut cluster.nodes {
        node.handle_act(now, drained, Act::Drain);
    }
    cluster
}

/// The full members of the view that a node is in.
fn members(node: &Membership) -> u32 {
    node.view().map_or(0, |view| view.full().len())
}

/// Hears nobody for so many steps more; whether the others have gone on without it by then.
fn heals_after(steps: usize) -> bool {
    let (mut cluster, new, set, epoch) = handed_without_lease();
    for step in 0..steps {
        cluster.step();
        let begun = cluster.taken.contains(&(new, set, epoch));
        assert!(!begun, "a node without a lease begins to work for nothing, in step {step} of {steps}");
    }
    let others: Vec<usize> = (0..cluster.nodes.len()).filter(|node| *node != new).collect();
    let gone_on = others.iter().any(|node| members(&cluster.nodes[*node]) == 2);
    cluster.deaf = None;
    if gone_on {
        let identity = cluster.nodes[new].identity().start;
        cluster.step_until("it leaves", |cluster| cluster.nodes[new].identity().start != identity);
        for node in others {
            let owned = *cluster.nodes[node].table().unwrap().assignment(set);
            assert!(owned.epoch > epoch, "another owns it: {owned:?}");
        }
        // It comes back as a learner.
        cluster.step_until("it is back", |cluster| members(&cluster.nodes[new]) == 2);
        assert!(!cluster.taken.contains(&(new, set, epoch)), "it took what others had gone on with");
    } else {
        cluster.step_until("it takes the set, or the others go on", |cluster| {
            cluster.taken.contains(&(new, set, epoch)) || others.iter().any(|node| members(&cluster.nodes[*node]) == 2)
        });
        let taken = cluster.taken.contains(&(new, set, epoch));
        assert!(!taken || cluster.nodes[new].lease_until() > cluster.now, "under a lease");
        assert!(taken || steps > 2, "nobody had begun to go on without it after {steps} steps");
    }
    gone_on
}

#[test]
fn what_is_handed_to_a_node_without_a_lease_waits_for_one_or_goes_with_the_view() {
    let gone_on: Vec<bool> = (0..200).map(heals_after).collect();
    assert!(!gone_on[0] && gone_on[199], "both ends were seen: {gone_on:?}");
    assert!(gone_on.is_sorted(), "the longer it waits the less it gets: {gone_on:?}");
}

#[test]
fn who_queued_for_a_move_that_has_ended_is_not_taken_to_queue_for_the_next() {
    let mut cluster = drained(|epoch| Epoch { count: epoch.count - 1, ..epoch });
    for _ in 0..1000 {
        cluster.step();
    }
    assert!(cluster.stopped.is_empty(), "its old owner stops a set that nobody queues for: {:?}", cluster.stopped);
}
