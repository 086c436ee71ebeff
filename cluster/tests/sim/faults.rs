//! The faults that a run injects (numbers: cluster/README.md), one every few seconds, some on top of another.

use std::sync::Arc;

use cluster::membership::Link;
use cluster::{StartId, View};

use crate::node::Node;
use crate::world::{MS, S, Script, World};

/// What ends a fault, or carries it on.
#[derive(Clone, Debug)]
pub(crate) enum Heal {
    Start(usize),
    Resume(usize),
    Pause(usize),
    Cuts,
    Air,
    Kill(usize),
    Split(usize, usize),
    Break(usize, usize, &'static str),
}

/// In 100 datagrams.
const LOSS_OF_A_PAIR: u32 = 10;

/// What every hunt must have injected.
pub(crate) const REQUIRED: [&str; 12] =
    ["F01", "F02", "F04", "F05", "F06", "F07", "F09", "F10", "F11", "F28", BROKEN, BROKEN_AT_MOVE];

const BROKEN: &str = "a session broken";
const BROKEN_AT_MOVE: &str = "the session of a hand-over broken";
/// With each fault so many hand-overs go well.
const MOVES_PER_FAULT: u64 = 500;
/// One node in so many that enter a view loses its sessions with another then.
const VIEWS_PER_BREAK: u64 = 8;

pub(crate) fn heal(world: &mut World, heal: Heal) {
    match heal {
        Heal::Start(node) => world.start(node),
        Heal::Resume(node) => world.resume(node),
        Heal::Pause(node) => {
            if world.nodes[node].is_running() {
                world.pause(node);
            }
        }
        Heal::Cuts => {
            world.air.heal_cuts();
            world.log(|| "cuts healed".into());
        }
        Heal::Air => world.air.clear(),
        Heal::Split(a, b) => {
            if world.now >= world.calm_until {
                split(world, a, b);
            }
        }
        Heal::Break(a, b, name) => {
            if world.now >= world.calm_until && world.break_stream(a, b) {
                count(world, name);
            }
        }
        Heal::Kill(node) => {
            let stolen = world.plan.script == Script::Stolen;
            if world.now >= world.calm_until && (stolen || may_kill(world, node)) {
                world.kill(node);
                world.heal_at(2 * S, Heal::Start(node));
                count(world, if stolen { "a member killed" } else { "F28 another killed during a take-over" });
            }
        }
    }
    tell_carriers(world);
}

/// Everything is as it should be from now on.
pub(crate) fn heal_all(world: &mut World) {
    world.air.heal_cuts();
    world.air.clear();
    for node in 0..world.nodes.len() {
        world.start(node);
        world.resume(node);
    }
    tell_carriers(world);
}

/// Tells the nodes that run what their outside links have become.
fn tell_carriers(world: &mut World) {
    for node in 0..world.nodes.len() {
        let down = world.air.carrier_down >> node & 1 == 1;
        if world.nodes[node].is_running() && world.nodes[node].carrier_down != down {
            world.nodes[node].carrier_down = down;
            let now = world.nodes[node].clock(world.now);
            let link = if down { Link::Down } else { Link::Up };
            world.nodes[node].membership.handle_outside_link(now, link);
            world.drain(node);
        }
    }
}

/// The node that most think is master.
fn master(world: &World) -> Option<usize> {
    (0..world.nodes.len()).find(|node| {
        let node = &world.nodes[*node];
        node.is_running()
            && node.membership.view().is_some_and(|view| {
                view.member(view.master()).is_some_and(|member| member.identity.start == node.start_id())
            })
    })
}

fn newest_view(world: &World) -> Option<&Arc<View>> {
    let views = world.nodes.iter().filter(|node| node.alive).filter_map(|node| node.membership.view());
    views.max_by_key(|view| view.id().number)
}

/// How many datagrams of 100 between nodes are lost. A view of two has no third voter: what keeps the two from hearing each
/// other for as long as a dead node is silent is a cut between them, which is not fair where parts may not go on alone, and
/// 30 % is that once in some hours.
pub(crate) fn loss(world: &World) -> u32 {
    let loss = world.air.loss;
    if loss <= LOSS_OF_A_PAIR || world.plan.is_lone() || newest_view(world).is_none_or(|view| view.full().len() != 2) {
        return loss;
    }
    LOSS_OF_A_PAIR
}

/// Whether the cluster must survive that these nodes fail: a quorum of the newest view stays whole. State that only
/// the failing ones hold would be lost rightly.
fn may_disturb(world: &World, victims: &[usize], dead: bool) -> bool {
    let Some(view) = newest_view(world) else { return false };
    let fit = |node: usize| {
        let state = &world.nodes[node];
        state.is_running()
            && !world.air.is_touched(node)
            && world.air.carrier_down >> node & 1 == 0
            && !victims.contains(&node)
            && state.membership.view().is_some_and(|own| own.id() == view.id())
            && view.by_start(state.start_id()).is_some_and(|member| view.full().contains(member.slot))
    };
    let left: Vec<usize> = (0..world.nodes.len()).filter(|node| fit(*node)).collect();
    let slots = left.iter().filter_map(|node| view.by_start(world.nodes[*node].start_id()));
    let slots = slots.map(|member| member.slot).collect();
    if view.full().len() == 2 { dead && left.len() == 1 } else { view.is_quorum(slots) }
}

fn may_kill(world: &World, victim: usize) -> bool {
    world.nodes[victim].alive && may_disturb(world, &[victim], true)
}

/// Where parts may go on alone, any cut is allowed.
fn may_cut(world: &World, victims: &[usize]) -> bool {
    world.plan.is_lone() || may_disturb(world, victims, false)
}

fn count(world: &mut World, name: &'static str) {
    *world.check.faults.entry(name).or_default() += 1;
}

/// Injects one fault, if the one that the dice show is fair at the moment.
pub(crate) fn inject(world: &mut World) {
    let nodes = world.nodes.len() as u64;
    let one = world.dice.below(nodes) as usize;
    let other = (one + 1 + world.dice.below(nodes - 1) as usize) % world.nodes.len();
    let length = 200 * MS + world.dice.below(4 * S);
    let name = match world.dice.below(13) {
        0 | 1 => kill_master(world, length),
        2 => kill_member(world, one, length),
        3 => pause(world, one),
        4 => partition(world, length),
        5 => one_way(world, one, other, length),
        6 => partial(world, one, other, length),
        7 => {
            world.air.loss = 1 + world.dice.below(30) as u32;
            air_heals(world, length, "F09 loss")
        }
        8 => {
            world.air.duplicate = 1 + world.dice.below(50) as u32;
            air_heals(world, length, "F10 duplicates")
        }
        9 => {
            world.air.reorder = 1 + world.dice.below(20) as u32;
            air_heals(world, length, "F11 reordering")
        }
        10 => kill_twice(world, length),
        11 => break_sessions(world, one, other),
        _ => cut_side(world, one, length),
    };
    let Some(name) = name else { return };
    world.log(|| format!("fault {name} ({one}, {other}) for {} ms", length / MS));
    count(world, name);
    tell_carriers(world);
}

fn air_heals(world: &mut World, length: u64, name: &'static str) -> Option<&'static str> {
    world.heal_at(length * 2, Heal::Air);
    Some(name)
}

fn kill_master(world: &mut World, length: u64) -> Option<&'static str> {
    let victim = master(world).filter(|victim| may_kill(world, *victim))?;
    world.kill(victim);
    world.heal_at(length, Heal::Start(victim));
    Some("F01 master killed")
}

fn kill_member(world: &mut World, one: usize, length: u64) -> Option<&'static str> {
    if !may_kill(world, one) {
        return None;
    }
    world.kill(one);
    world.heal_at(length, Heal::Start(one));
    Some("F02 member killed")
}

fn kill_twice(world: &mut World, length: u64) -> Option<&'static str> {
    let victim = master(world).filter(|victim| may_kill(world, *victim))?;
    world.kill(victim);
    world.heal_at(length + S, Heal::Start(victim));
    let others = world.nodes.len() as u64 - 1;
    let next = (victim + 1 + world.dice.below(others) as usize) % world.nodes.len();
    let soon = world.dice.below(200 * MS);
    world.heal_at(soon, Heal::Kill(next));
    Some("F01 master killed")
}

fn pause(world: &mut World, one: usize) -> Option<&'static str> {
    if !world.nodes[one].is_running() || !may_cut(world, &[one]) {
        return None;
    }
    world.pause(one);
    let length = match world.dice.below(8) {
        0 | 1 => 20 * MS + world.dice.below(100 * MS),
        2 => 10 * S + world.dice.below(60 * S),
        _ => S + world.dice.below(9 * S),
    };
    world.heal_at(length, Heal::Resume(one));
    Some("F04 node paused")
}

fn partition(world: &mut World, length: u64) -> Option<&'static str> {
    let side: Vec<usize> = (0..world.nodes.len()).filter(|_| world.dice.below(2) == 0).collect();
    let rest: Vec<usize> = (0..world.nodes.len()).filter(|node| !side.contains(node)).collect();
    let (small, large) = if side.len() < rest.len() { (side, rest) } else { (rest, side) };
    if small.is_empty() || !may_cut(world, &small) {
        return None;
    }
    for a in &small {
        for b in &large {
            split(world, *a, *b);
        }
    }
    let mut length = length;
    if world.plan.is_lone() {
        length += world.dice.below(6 * S);
        if world.dice.below(2) == 0 {
            // The LANs fall apart along the same line, so that each part has clients of its own.
            for node in &small {
                world.air.part[*node] = 1;
            }
        }
    }
    world.heal_at(length, Heal::Cuts);
    Some("F05 partition")
}

fn one_way(world: &mut World, one: usize, other: usize, length: u64) -> Option<&'static str> {
    if !may_cut(world, &[one]) {
        return None;
    }
    let all = world.dice.below(2) == 0;
    for node in 0..world.nodes.len() {
        if node != one && (all || node == other) {
            cut(world, one, node);
        }
    }
    world.heal_at(length, Heal::Cuts);
    Some("F06 one-way cut")
}

fn partial(world: &mut World, one: usize, other: usize, length: u64) -> Option<&'static str> {
    if !may_cut(world, &[one]) {
        return None;
    }
    split(world, one, other);
    world.heal_at(length, Heal::Cuts);
    Some("F07 partial cut")
}

/// F08: the clients' side of one node, or one of two networks between the nodes.
fn cut_side(world: &mut World, one: usize, length: u64) -> Option<&'static str> {
    let clients = world.dice.below(2) == 0;
    if !clients && world.plan.networks < 2 {
        return None;
    }
    // The last of two would serve nobody.
    if clients && !may_cut(world, &[one]) {
        return None;
    }
    world.heal_at(length, Heal::Cuts);
    if clients {
        world.air.client_cut |= 1 << one;
        if world.dice.below(2) == 0 {
            world.air.carrier_down |= 1 << one;
        }
        return Some("F08 client side cut");
    }
    for a in 0..world.nodes.len() {
        for b in 0..world.nodes.len() {
            world.air.cut(0, a, b);
        }
    }
    Some("F08 one of two cluster networks cut")
}

/// The session between two nodes breaks, with what is under way on it, and so do the next ones, while both go on to hear
/// each other.
fn break_sessions(world: &mut World, one: usize, other: usize) -> Option<&'static str> {
    for _ in 0..world.dice.below(4) {
        let soon = world.dice.below(20 * MS);
        world.heal_at(soon, Heal::Break(one, other, BROKEN));
    }
    world.break_stream(one, other).then_some(BROKEN)
}

/// The session between two nodes breaks, and so do the next ones, each within so many nanoseconds.
fn break_repeatedly(world: &mut World, pair: (usize, usize), count: u64, each: u64) {
    let mut after = 0;
    for _ in 0..count {
        after += world.dice.below(each);
        world.heal_at(after, Heal::Break(pair.0, pair.1, BROKEN_AT_MOVE));
    }
}

fn may_disturb_moves(world: &World) -> bool {
    world.plan.script == Script::Random && world.now >= world.calm_until
}

/// A node has stopped a set for another one. The last word on it may be lost with their session, which says it again with
/// the next; it may come when others have long gone on; or a third node may die with half of what it wanted to say.
pub(crate) fn hand_over(world: &mut World, from: usize, to: StartId) {
    let to = (0..world.nodes.len()).find(|node| world.nodes[*node].start_id() == to);
    let Some(to) = to.filter(|_| may_disturb_moves(world)) else { return };
    let third = (0..world.nodes.len()).find(|node| *node != from && *node != to);
    match (world.dice.below(MOVES_PER_FAULT), third) {
        (0, _) => {
            let times = 1 + world.dice.below(3);
            break_repeatedly(world, (from, to), times, 2 * MS);
        }
        (1, Some(third)) => world.doomed = Some(third),
        (2, _) if world.nodes[to].is_running() && may_cut(world, &[to]) => {
            world.pause(to);
            let length = 50 * MS + world.dice.below(500 * MS);
            world.heal_at(length, Heal::Resume(to));
            count(world, "F04 node paused in a hand-over");
        }
        _ => {}
    }
}

/// A node has entered a view. What it takes over it compares with what others hold of it, and moves go on at once.
pub(crate) fn view_entered(world: &mut World, node: usize) {
    if may_disturb_moves(world) && world.dice.below(VIEWS_PER_BREAK) == 0 {
        let other = (node + 1 + world.dice.below(world.nodes.len() as u64 - 1) as usize) % world.nodes.len();
        break_repeatedly(world, (node, other), 10, MS);
    }
}

/// Something of a node has arrived at another; the rest of it may never.
pub(crate) fn heard(world: &mut World, from: usize) {
    if world.doomed == Some(from) {
        world.doomed = None;
        world.heal_at(0, Heal::Kill(from));
    }
}

fn cut(world: &mut World, from: usize, to: usize) {
    for network in 0..world.plan.networks {
        world.air.cut(network, from, to);
    }
}

/// Cuts a pair, both ways.
fn split(world: &mut World, a: usize, b: usize) {
    cut(world, a, b);
    cut(world, b, a);
}

/// Of five nodes under master 0, node 3 is heard by node 4 alone. A few milliseconds later 0 and 1 lose node 4, which 2
/// and 3 still echo: the view without 3 is made while 0 still counts 4 in, and the next one removes 4 with the votes of
/// 0 and 1, half of four with the master. The lease that 2 and 3 gave to 4 then runs on for L, but for the rule that a
/// view stands L + 2 ms.
pub(crate) fn quick_views(world: &mut World) {
    let Some(master) = master(world) else { return };
    if world.nodes.iter().any(|node| node.membership.view().is_none_or(|view| view.full().len() != 5)) {
        return;
    }
    let node = |offset: usize| (master + offset) % 5;
    for other in 0..3 {
        split(world, node(3), node(other));
    }
    for other in 0..2 {
        let after = MS + world.dice.below(5 * MS);
        world.heal_at(after, Heal::Split(node(4), node(other)));
    }
    world.heal_at(400 * MS, Heal::Cuts);
    count(world, "two views in quick succession");
}

/// For so long the processors are stolen; within it, a node fails.
const STOLEN: u64 = 1_500 * MS;

/// A node fails, the master every second time, while a hypervisor takes the processors of all away in bursts, each shorter
/// than what a member may be silent for.
pub(crate) fn steal(world: &mut World) {
    let whole =
        |node: &Node| node.membership.view().is_some_and(|view| view.full().len() as usize == world.nodes.len());
    let Some(master) = master(world).filter(|_| world.nodes.iter().all(whole)) else { return };
    let nodes = world.nodes.len();
    let (burst_max, percent) = if world.plan.seed.is_multiple_of(2) { (32 * MS, 30) } else { (17 * MS, 50) };
    for node in 0..nodes {
        let mut at = 0;
        while at < STOLEN {
            let burst = 2 * MS + world.dice.below(burst_max - 2 * MS);
            world.heal_at(at, Heal::Pause(node));
            world.heal_at(at + burst, Heal::Resume(node));
            at += burst * 100 / percent;
        }
    }
    let offset = if world.dice.below(2) == 0 { 0 } else { 1 + world.dice.below(nodes as u64 - 1) as usize };
    let victim = (master + offset) % nodes;
    if world.dice.below(2) == 0 {
        let soon = world.dice.below(600 * MS);
        world.heal_at(soon, Heal::Kill(victim));
    } else {
        for node in (0..nodes).filter(|node| *node != victim) {
            split(world, victim, node);
        }
        world.air.client_cut |= 1 << victim;
        world.air.carrier_down |= 1 << victim;
        world.heal_at(STOLEN + 400 * MS, Heal::Cuts);
        count(world, "a member cut off");
    }
    count(world, "processors stolen");
}
