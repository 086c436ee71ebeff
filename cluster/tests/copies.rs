//! Somebody without the group key copies datagrams to a node that they were not sent to: that gives it no lease.

#[path = "nodes/air.rs"]
mod air;
mod nodes;

use std::collections::VecDeque;
use std::time::Duration;

use cluster::Membership;
use wire::Time;

use air::{deliver, said};
use nodes::node;

const STEP: Duration = Duration::from_micros(500);

/// Lets the nodes do what is due; returns what each says to whom.
fn round(nodes: &mut [Membership], now: Time) -> Vec<(usize, usize, Vec<u8>)> {
    let mut spoken = Vec::new();
    for (from, node) in nodes.iter_mut().enumerate() {
        if node.poll_timeout() <= now {
            node.handle_timeout(now);
        }
        while node.poll_output().is_some() {}
        spoken.extend(said(node).into_iter().map(|(to, datagram)| (from, to, datagram)));
    }
    spoken
}

/// Cuts a node off, and brings to it, so much later, what the two others say to each other. Returns for how long it may
/// still send when they have gone on without it.
fn lease_of_a_cut_off_node(cut_off: usize, delay: Duration) -> Duration {
    let mut nodes: Vec<Membership> = (0..3).map(|number| node(number, 3)).collect();
    let mut now = Time::ZERO;
    while now < Time::from_millis(1000) {
        now += STEP;
        for (from, to, datagram) in round(&mut nodes, now) {
            deliver(&mut nodes, now, (from, to, &datagram));
        }
    }
    assert!(nodes.iter().all(|node| node.lease_until() > now), "every member holds a lease");

    let (cut_at, other) = (now, (cut_off + 1) % 3);
    let mut copies = VecDeque::new();
    while nodes[other].view().is_some_and(|view| view.full().len() == 3) {
        now += STEP;
        assert!(now < cut_at + Duration::from_secs(1), "the others go on without it");
        for (from, to, datagram) in round(&mut nodes, now) {
            if from != cut_off && to != cut_off {
                deliver(&mut nodes, now, (from, to, &datagram));
                copies.push_back((now + delay, from, datagram));
            }
        }
        while let Some((_, from, datagram)) = copies.pop_front_if(|(at, ..)| *at <= now) {
            deliver(&mut nodes, now, (from, cut_off, &datagram));
        }
    }
    nodes[cut_off].lease_until() - now
}

#[test]
fn an_echo_that_was_sent_to_another_node_renews_no_lease() {
    for cut_off in 0..3 {
        for delay in (0..100).step_by(5).map(Duration::from_millis) {
            let left = lease_of_a_cut_off_node(cut_off, delay);
            assert!(left.is_zero(), "node {cut_off} with copies {delay:?} old may send for {left:?} more");
        }
    }
}
