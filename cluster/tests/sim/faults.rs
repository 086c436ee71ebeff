//! The faults of FAULTS.md that a run injects, one every few seconds, some on top of another.

use crate::world::{Heal, MS, S, World};

/// The node that most think is master.
fn master(world: &World) -> Option<usize> {
    (0..world.nodes.len()).find(|node| {
        let node = &world.nodes[*node];
        node.alive
            && !node.paused
            && node.membership.view().is_some_and(|view| {
                view.member(view.master())
                    .is_some_and(|member| member.identity.start == node.membership.identity().start)
            })
    })
}

/// Whether the cluster must survive that these nodes fail: a quorum of the newest view stays whole. State that only
/// the failing ones hold would be lost rightly.
pub(crate) fn may_disturb(world: &World, victims: &[usize], dead: bool) -> bool {
    let Some(view) = world
        .nodes
        .iter()
        .filter(|node| node.alive)
        .filter_map(|node| node.membership.view())
        .max_by_key(|view| view.id().number)
    else {
        return false;
    };
    let fit = |node: usize| {
        let state = &world.nodes[node];
        let start = state.membership.identity().start;
        state.alive
            && !state.paused
            && !world.cut.iter().any(|(_, from, to)| *from == node || *to == node)
            && !victims.contains(&node)
            && state.membership.view().is_some_and(|own| own.id() == view.id())
            && view.by_start(start).is_some_and(|member| view.full().contains(member.slot))
    };
    let left: Vec<usize> = (0..world.nodes.len()).filter(|node| fit(*node)).collect();
    let slots = left.iter().filter_map(|node| view.by_start(world.nodes[*node].membership.identity().start));
    let slots = slots.map(|member| member.slot).collect();
    if view.full().len() == 2 { dead && left.len() == 1 } else { view.is_quorum(slots) }
}

pub(crate) fn inject(world: &mut World) {
    let count = world.nodes.len() as u64;
    let one = world.random(count) as usize;
    let other = (one + 1 + world.random(count - 1) as usize) % world.nodes.len();
    let length = 200 * MS + world.random(4 * S);
    let kind = world.random(12);
    let name = match kind {
        0 | 1 => {
            let Some(victim) = master(world) else { return };
            if !may_disturb(world, &[victim], true) {
                return;
            }
            world.kill(victim);
            world.heal_at(length, Heal::Start(victim));
            "F01 kill the master"
        }
        2 => {
            if !world.nodes[one].alive || !may_disturb(world, &[one], true) {
                return;
            }
            world.kill(one);
            world.heal_at(length, Heal::Start(one));
            "F02 kill a member"
        }
        3 => {
            if !world.nodes[one].alive || !may_disturb(world, &[one], false) {
                return;
            }
            world.pause(one);
            let length = if world.random(3) == 0 { 20 * MS + world.random(100 * MS) } else { S + world.random(9 * S) };
            world.heal_at(length, Heal::Resume(one));
            "F04 pause a node"
        }
        4 => {
            let side: Vec<usize> = (0..world.nodes.len()).filter(|_| world.random(2) == 0).collect();
            let rest: Vec<usize> = (0..world.nodes.len()).filter(|node| !side.contains(node)).collect();
            let (small, large) = if side.len() < rest.len() { (side, rest) } else { (rest, side) };
            if !may_disturb(world, &small, false) {
                return;
            }
            for a in &small {
                for b in &large {
                    cut(world, *a, *b);
                    cut(world, *b, *a);
                }
            }
            world.heal_at(length, Heal::Cuts);
            "F05 full partition"
        }
        5 => {
            if !may_disturb(world, &[one], false) {
                return;
            }
            let all = world.random(2) == 0;
            for node in 0..world.nodes.len() {
                if node != one && (all || node == other) {
                    cut(world, one, node);
                }
            }
            world.heal_at(length, Heal::Cuts);
            "F06 one-way cut"
        }
        6 => {
            if !may_disturb(world, &[one], false) {
                return;
            }
            cut(world, one, other);
            cut(world, other, one);
            world.heal_at(length, Heal::Cuts);
            "F07 partial cut"
        }
        7 => {
            world.loss = world.random(31) as u32;
            world.heal_at(length * 2, Heal::Air);
            "F09 loss"
        }
        8 => {
            world.duplicate = world.random(51) as u32;
            world.heal_at(length * 2, Heal::Air);
            "F10 duplicates"
        }
        9 => {
            world.reorder = 1 + world.random(20) as u32;
            world.heal_at(length * 2, Heal::Air);
            "F11 reordering"
        }
        10 => {
            let Some(victim) = master(world) else { return };
            if !may_disturb(world, &[victim], true) {
                return;
            }
            world.kill(victim);
            world.heal_at(length + S, Heal::Start(victim));
            let next = (victim + 1 + world.random(count - 1) as usize) % world.nodes.len();
            let soon = world.random(200 * MS);
            world.heal_at(soon, Heal::Kill(next));
            "F28 failover during failover"
        }
        _ => {
            if world.random(2) == 0 {
                world.client_cut.insert(one);
                world.heal_at(length, Heal::Cuts);
                "F08 client side cut"
            } else {
                if world.plan.networks < 2 {
                    return;
                }
                for a in 0..world.nodes.len() {
                    for b in 0..world.nodes.len() {
                        world.cut.insert((0, a, b));
                    }
                }
                world.heal_at(length, Heal::Cuts);
                "F05 one of two networks gone"
            }
        }
    };
    world.log(|| format!("fault {name} ({one}, {other}) for {} ms", length / MS));
    *world.check.faults.entry(name).or_default() += 1;
}

fn cut(world: &mut World, from: usize, to: usize) {
    for network in 0..world.plan.networks {
        world.cut.insert((network as u8, from, to));
    }
}

/// Cuts a pair, both ways.
pub(crate) fn split(world: &mut World, a: usize, b: usize) {
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
        let after = MS + world.random(5 * MS);
        world.heal_at(after, Heal::Split(node(4), node(other)));
    }
    world.heal_at(400 * MS, Heal::Cuts);
    *world.check.faults.entry("two views in quick succession").or_default() += 1;
}
