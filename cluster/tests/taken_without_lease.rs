//! Sets fall to a node that was paused and installs an old view when it wakes up: others may have gone on without it since,
//! and with the sets, so it begins to work for them under a lease only.

#[path = "nodes/air.rs"]
mod air;
mod nodes;

use std::collections::BTreeSet;
use std::time::Duration;

use cluster::Membership;
use cluster::membership::{How, Output};
use wire::{Time, WorkSet};

use air::{deliver, said};
use nodes::node;

const NODES: u8 = 3;
const STEP: Duration = Duration::from_micros(500);

struct Cluster {
    nodes: Vec<Membership>,
    now: Time,
    dead: Option<usize>,
    paused: Option<usize>,
    /// What came for the paused node: from whom, and what.
    backlog: Vec<(usize, Vec<u8>)>,
    owned: Vec<BTreeSet<WorkSet>>,
    /// Sets that fell to a node which had no lease when it heard so.
    waited: usize,
}

impl Cluster {
    fn formed() -> Self {
        let nodes: Vec<Membership> = (0..NODES).map(|number| node(number, NODES)).collect();
        let owned = vec![BTreeSet::new(); nodes.len()];
        let (now, backlog) = (Time::ZERO, Vec::new());
        let mut cluster = Self { nodes, now, dead: None, paused: None, backlog, owned, waited: 0 };
        cluster.run(Duration::from_secs(1));
        let members = |node: &Membership| node.view().map_or(0, |view| view.full().len());
        assert!(cluster.nodes.iter().all(|node| members(node) == NODES.into()), "all form a cluster");
        cluster
    }

    fn take_outputs(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        while let Some(output) = node.poll_output() {
            if let Output::Acquire { set, how, .. } = output {
                assert!(
                    how != How::Unplanned || node.lease_until() > self.now,
                    "n{at} begins to work for {set} without a lease"
                );
                self.owned[at].insert(set);
            } else if let Output::Release { set } = output {
                self.owned[at].remove(&set);
            } else if let Output::Left { .. } = output {
                self.owned[at].clear();
            } else if let Output::JoinAsked(identity) = output {
                node.handle_join_verdict(self.now, identity.start, Ok(()));
            } else if let Output::View { view, own } = output {
                self.waited += usize::from(node.lease_until() <= self.now && view.full().len() == 2);
                // What replication would say.
                for member in view.members().iter().filter(|member| member.slot != own) {
                    node.handle_counted(self.now, member.identity.start);
                }
            }
        }
    }

    fn deliver(&mut self, from: usize, to: usize, datagram: &[u8]) {
        deliver(&mut self.nodes, self.now, (from, to, datagram));
        self.take_outputs(to);
    }

    fn step(&mut self) {
        self.now += STEP;
        let mut under_way = Vec::new();
        let idle = [self.dead, self.paused];
        for at in (0..self.nodes.len()).filter(|at| !idle.contains(&Some(*at))) {
            let node = &mut self.nodes[at];
            if node.poll_timeout() <= self.now {
                node.handle_timeout(self.now);
            }
            self.take_outputs(at);
            under_way.extend(said(&mut self.nodes[at]).into_iter().map(|(to, datagram)| (at, to, datagram)));
        }
        for (from, to, datagram) in under_way {
            if self.paused == Some(to) {
                self.backlog.push((from, datagram));
            } else if self.dead != Some(to) {
                self.deliver(from, to, &datagram);
            }
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.step();
        }
    }

    /// Wakes the paused node up: what came meanwhile is there before its timers.
    fn resume(&mut self) {
        let Some(at) = self.paused.take() else { return };
        for (from, datagram) in std::mem::take(&mut self.backlog) {
            self.deliver(from, at, &datagram);
        }
    }
}

/// One node dies, another is paused so many steps later for so long; returns how often a view was entered without a lease.
fn dies_and_pauses(dead: usize, paused: usize, after: u32, long: Duration) -> usize {
    let mut cluster = Cluster::formed();
    cluster.dead = Some(dead);
    cluster.run(STEP * after);
    cluster.paused = Some(paused);
    cluster.run(long);
    cluster.resume();
    let waited = cluster.waited;
    cluster.run(Duration::from_secs(3));
    let left: Vec<usize> = (0..cluster.nodes.len()).filter(|at| *at != dead).collect();
    let (one, other) = (&cluster.owned[left[0]], &cluster.owned[left[1]]);
    assert!(one.is_disjoint(other), "a set has one owner: n{dead} died, n{paused} was paused after {after} steps");
    let owned = one.len() + other.len();
    assert_eq!(owned, WorkSet::all().count(), "every set has: n{dead} died, n{paused} was paused after {after} steps");
    waited
}

#[test]
fn sets_that_fall_to_a_node_without_a_lease_wait_for_one() {
    let mut waited = 0;
    for dead in 0..3 {
        for paused in (0..3).filter(|paused| *paused != dead) {
            for after in (60..110).step_by(2) {
                for long in [30, 60, 120, 400].map(Duration::from_millis) {
                    waited += dies_and_pauses(dead, paused, after, long);
                }
            }
        }
    }
    assert!(waited > 0, "a view was entered without a lease");
}
