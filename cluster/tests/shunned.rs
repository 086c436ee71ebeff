//! A member that is asked to go while somebody else dies is needed again: the rest must not stand still for ever.

mod nodes;

use std::net::SocketAddr;
use std::time::Duration;

use cluster::membership::Event;
use cluster::{Membership, Network, membership};
use wire::Time;

use nodes::{addresses, node};

const STEP: Duration = Duration::from_micros(500);
/// Twice what two views take, the one without who is silent and the one after it.
const SERVED_MAX: Duration = Duration::from_millis(200);
/// Who was voted out nevertheless has joined anew by then.
const WHOLE_MAX: Duration = Duration::from_secs(2);

struct Trio {
    nodes: [Membership; 3],
    now: Time,
    /// Who does not hear whom.
    deaf: Vec<(usize, usize)>,
    dead: Option<usize>,
    shunned: usize,
}

impl Trio {
    /// Three full members.
    fn formed() -> Self {
        let nodes = [node(0), node(1), node(2)];
        let mut trio = Self { nodes, now: Time::ZERO, deaf: Vec::new(), dead: None, shunned: 0 };
        trio.run(Duration::from_secs(1));
        assert!((0..3).all(|at| trio.full_in_view_of(at) == 3), "three nodes form a cluster");
        trio
    }

    fn full_in_view_of(&self, at: usize) -> u32 {
        self.nodes[at].view().map_or(0, |view| view.full().len())
    }

    /// The node whose number the master's name ends in.
    fn master(&self) -> usize {
        let view = self.nodes[0].view().unwrap();
        let master = view.member(view.master()).unwrap();
        (0..3).find(|at| self.nodes[*at].identity().start == master.identity.start).unwrap()
    }

    fn step(&mut self) {
        self.now += STEP;
        let mut said = Vec::new();
        let mut buffer = Vec::new();
        for (from, node) in self.nodes.iter_mut().enumerate().filter(|(at, _)| Some(*at) != self.dead) {
            if node.poll_timeout() <= self.now {
                node.handle_timeout(self.now);
            }
            while let Some(output) = node.poll_output() {
                if let membership::Output::Event(Event::Shunned(_)) = output {
                    self.shunned += 1;
                } else if let membership::Output::JoinAsked(identity) = output {
                    node.handle_join_verdict(self.now, identity.start, Ok(()));
                } else if let membership::Output::View { view, own } = output {
                    // What replication would say.
                    for member in view.members().iter().filter(|member| member.slot != own) {
                        node.handle_counted(self.now, member.identity.start);
                    }
                }
            }
            while let Some(to) = node.poll_transmit(&mut buffer) {
                let SocketAddr::V4(address) = to.to else { continue };
                said.push((from, usize::from(address.ip().octets()[3]), buffer.clone()));
            }
        }
        for (from, to, datagram) in said {
            if self.dead != Some(to) && !self.deaf.contains(&(to, from)) {
                let sender = self.nodes[from].identity().start;
                let source = addresses(u8::try_from(from).unwrap())[0].unwrap();
                self.nodes[to].handle_datagram(self.now, Network::new(0).unwrap(), source, sender, &datagram);
            }
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.step();
        }
    }
}

/// Two members do not hear each other, the master asks one to go, and `dies` dies, so much later; the two others hear
/// each other again.
fn goes_on_without(dies: impl Fn(usize, [usize; 2]) -> usize, later: Duration) {
    let mut trio = Trio::formed();
    let master = trio.master();
    let others: Vec<usize> = (0..3).filter(|at| *at != master).collect();
    let others = [others[0], others[1]];
    trio.deaf = vec![(others[0], others[1]), (others[1], others[0])];
    while trio.shunned == 0 {
        trio.step();
    }
    trio.run(later);
    if (0..3).any(|at| trio.full_in_view_of(at) != 3) {
        return;
    }
    let dead = dies(master, others);
    trio.dead = Some(dead);
    trio.deaf.clear();
    trio.run(SERVED_MAX);
    let left: Vec<usize> = (0..3).filter(|at| *at != dead).collect();
    let serves = |trio: &Trio, at: usize| trio.nodes[at].lease_until() > trio.now;
    assert!(left.iter().any(|at| serves(&trio, *at)), "n{dead} died {later:?} after somebody was asked to go");
    trio.run(WHOLE_MAX);
    for at in left {
        assert_eq!(trio.full_in_view_of(at), 2, "n{at}, n{dead} died {later:?} after somebody was asked to go");
        assert!(serves(&trio, at), "n{at} holds no lease");
    }
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
