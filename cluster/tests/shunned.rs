//! A member that is asked to go while somebody else dies is needed again: the rest must not stand still for ever.

#[path = "nodes/air.rs"]
mod air;
mod nodes;

use std::time::Duration;

use cluster::Membership;
use cluster::membership::{Event, Output};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use wire::Time;

use air::{deliver, said};
use nodes::node;

const STEP: Duration = Duration::from_micros(500);
/// Twice what two views take, the one without who is silent and the one after it.
const SERVED_MAX: Duration = Duration::from_millis(200);
/// Who was voted out nevertheless has joined anew by then.
const WHOLE_MAX: Duration = Duration::from_secs(4);
/// The first octet of a datagram: Prepare, Promise, Propose, Accept.
const DECISIONS: std::ops::RangeInclusive<u8> = 2..=5;
const PROPOSE: u8 = 4;

struct Cluster {
    nodes: Vec<Membership>,
    now: Time,
    /// Who does not hear whom.
    deaf: Vec<(usize, usize)>,
    dead: Vec<usize>,
    shunned: usize,
}

impl Cluster {
    /// So many full members.
    fn formed(count: u8) -> Self {
        let nodes: Vec<Membership> = (0..count).map(|number| node(number, count)).collect();
        let mut cluster = Self { nodes, now: Time::ZERO, deaf: Vec::new(), dead: Vec::new(), shunned: 0 };
        cluster.run(Duration::from_secs(2));
        assert!(cluster.is_whole(), "{count} nodes form a cluster");
        cluster
    }

    fn alive(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|at| !self.dead.contains(at)).collect()
    }

    fn serves(&self, at: usize) -> bool {
        self.nodes[at].lease_until() > self.now
    }

    /// All that live are in one view, and nobody else.
    fn is_whole(&self) -> bool {
        let alive = self.alive();
        let full = |at: &usize| self.nodes[*at].view().map_or(0, |view| view.full().len() as usize);
        alive.iter().all(|at| self.serves(*at) && full(at) == alive.len())
    }

    /// Everybody is in a view of all.
    fn is_untouched(&self) -> bool {
        let full = |node: &Membership| node.view().map_or(0, |view| view.full().len() as usize);
        self.nodes.iter().all(|node| full(node) == self.nodes.len())
    }

    fn master(&self) -> usize {
        let view = self.nodes[0].view().unwrap();
        let master = view.member(view.master()).unwrap();
        (0..self.nodes.len()).find(|at| self.nodes[*at].identity().start == master.identity.start).unwrap()
    }

    fn take_outputs(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        while let Some(output) = node.poll_output() {
            if let Output::Event(Event::Shunned(_)) = output {
                self.shunned += 1;
            } else if let Output::JoinAsked(identity) = output {
                node.handle_join_verdict(self.now, identity.start, Ok(()));
            } else if let Output::View { view, own } = output {
                // What replication would say.
                for member in view.members().iter().filter(|member| member.slot != own) {
                    node.handle_counted(self.now, member.identity.start);
                }
            }
        }
    }

    /// Half a millisecond, in which the datagrams that `passes` lets through (from, to, kind) are delivered.
    fn step(&mut self, mut passes: impl FnMut(usize, usize, u8) -> bool) {
        self.now += STEP;
        let mut under_way = Vec::new();
        for from in self.alive() {
            if self.nodes[from].poll_timeout() <= self.now {
                self.nodes[from].handle_timeout(self.now);
            }
            self.take_outputs(from);
            for (to, datagram) in said(&mut self.nodes[from]) {
                if passes(from, to, datagram[0]) {
                    under_way.push((from, to, datagram));
                }
            }
        }
        for (from, to, datagram) in under_way {
            if !self.dead.contains(&to) && !self.deaf.contains(&(to, from)) {
                deliver(&mut self.nodes, self.now, (from, to, &datagram));
            }
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.step(|_, _, _| true);
        }
    }

    /// Two members other than the master do not hear each other, and the master asks one to go.
    fn asked_to_go(count: u8, pair: [usize; 2]) -> (Self, usize, [usize; 2]) {
        let mut cluster = Self::formed(count);
        let master = cluster.master();
        let others: Vec<usize> = cluster.alive().into_iter().filter(|at| *at != master).collect();
        let pair = pair.map(|at| others[at]);
        cluster.deaf = vec![(pair[0], pair[1]), (pair[1], pair[0])];
        while cluster.shunned == 0 {
            cluster.step(|_, _, _| true);
        }
        (cluster, master, pair)
    }
}

/// Somebody is asked to go, and `dies` dies, so much later; all others hear each other again.
fn goes_on_without(dies: impl Fn(usize, [usize; 2]) -> usize, later: Duration) {
    let (mut cluster, master, others) = Cluster::asked_to_go(3, [0, 1]);
    cluster.run(later);
    if !cluster.is_untouched() {
        return;
    }
    let dead = dies(master, others);
    cluster.dead.push(dead);
    cluster.deaf.clear();
    cluster.run(SERVED_MAX);
    let serves = cluster.alive().iter().any(|at| cluster.serves(*at));
    assert!(serves, "n{dead} died {later:?} after somebody was asked to go");
    cluster.run(WHOLE_MAX);
    assert!(cluster.is_whole(), "n{dead} died {later:?} after somebody was asked to go");
}

#[test]
fn the_master_dies_that_asked_somebody_to_go() {
    for steps in 0..80 {
        goes_on_without(|master, _| master, STEP * steps);
    }
}

#[test]
fn another_dies_than_who_is_asked_to_go() {
    for steps in 0..80 {
        for other in [0, 1] {
            goes_on_without(|_, others| others[other], STEP * steps);
        }
    }
}

#[test]
fn the_master_dies_as_it_proposes_to_go_on_without_somebody() {
    for (count, pairs) in [(3, &[[0, 1]][..]), (4, &[[0, 1], [0, 2], [1, 2]]), (5, &[[0, 1], [0, 3], [1, 3]])] {
        for pair in pairs {
            for reached in 0..1_u32 << count {
                let (mut cluster, master, _) = Cluster::asked_to_go(count, *pair);
                let mut proposed = false;
                while !proposed {
                    cluster.step(|from, to, kind| {
                        let proposes = from == master && kind == PROPOSE;
                        proposed |= proposes;
                        !proposes || reached >> to & 1 == 1
                    });
                }
                cluster.dead.push(master);
                cluster.deaf.clear();
                cluster.run(WHOLE_MAX);
                assert!(cluster.is_whole(), "{count} nodes, {pair:?} deaf, the proposal reached {reached:b}");
            }
        }
    }
}

/// Decisions are lost at random, and somebody, the master mostly, dies at random, perhaps in the middle of what it says.
fn dies_at_random(seed: u64) {
    let mut dice = StdRng::seed_from_u64(seed);
    let count = dice.random_range(3..=5);
    let last = usize::from(count) - 2;
    let first = dice.random_range(0..last);
    let (mut cluster, master, pair) = Cluster::asked_to_go(count, [first, dice.random_range(first + 1..=last)]);
    if dice.random_range(0..3) == 0 {
        cluster.deaf.pop();
    }
    let dies = if dice.random_range(0..4) == 0 { pair[dice.random_range(0..2)] } else { master };
    let loss = [0, 10, 30, 60, 90][dice.random_range(0..5)];
    let mut is_lost = |kind: u8| DECISIONS.contains(&kind) && dice.random_range(0..100) < loss;
    let mut said_of_it = 0;
    let (last_word, last_step) = (1 + seed % 40, 1 + seed / 40 % 120);
    for _ in 0..last_step {
        cluster.step(|from, _, kind| {
            said_of_it += u64::from(from == dies && DECISIONS.contains(&kind));
            (from != dies || said_of_it < last_word) && !is_lost(kind)
        });
        if said_of_it >= last_word {
            break;
        }
    }
    cluster.dead.push(dies);
    for _ in 0..seed % 400 {
        cluster.step(|_, _, kind| !is_lost(kind));
    }
    cluster.deaf.clear();
    cluster.run(WHOLE_MAX);
    assert!(cluster.is_whole(), "seed {seed}: {count} nodes, {pair:?} deaf, n{dies} died, {loss} % of decisions lost");
}

#[test]
fn somebody_dies_at_any_moment_while_decisions_are_lost() {
    for seed in 0..400 {
        dies_at_random(seed);
    }
}
