//! The operator: drains a node, gives it work again some time later, and drains another.

use cluster::membership::Act;
use wire::{Slot, WorkSet};

use crate::node::name;
use crate::world::{Event, MS, S, World};

/// How often the operator looks.
const LOOK_EVERY: u64 = 500 * MS;

/// More time than it takes to move all work sets of a node.
const MOVES_TAKE: u64 = 5 * S;

/// What the operator wants, and whether all nodes have said that it is so.
#[derive(Default)]
pub(crate) struct Operator {
    target: usize,
    wants_drained: bool,
    done: bool,
    done_at: u64,
    change_at: u64,
}

impl World {
    pub(crate) fn operate(&mut self) {
        self.queue.push(self.now + LOOK_EVERY, Event::Operate);
        if self.now >= self.operator.change_at {
            if !self.operator.wants_drained {
                self.operator.target = self.dice.below(self.nodes.len() as u64) as usize;
            }
            self.operator.wants_drained = !self.operator.wants_drained;
            self.operator.done = false;
            self.operator.change_at = self.now + 10 * S + self.dice.below(60 * S);
        }
        if self.operator.done {
            return;
        }
        let act = if self.operator.wants_drained { Act::Drain } else { Act::Undrain };
        // Who was asked last must know by itself: an order is given until it is seen to be carried out, and then no more.
        let mut seen = 0;
        for node in 0..self.nodes.len() {
            let Some(slot) = self.slot_of_target(node) else { continue };
            let state = self.nodes[node].membership.status(slot);
            if state.is_some_and(|status| status.drained == self.operator.wants_drained) {
                seen += 1;
            } else {
                let now = self.nodes[node].clock(self.now);
                self.nodes[node].membership.handle_act(now, slot, act);
                self.drain(node);
            }
        }
        self.operator.done = seen == self.nodes.len();
        if self.operator.done {
            self.operator.done_at = self.now;
            self.check.count("orders carried out");
        }
    }

    /// The number of the operator's target, as a node that holds a lease knows it.
    fn slot_of_target(&self, node: usize) -> Option<Slot> {
        let state = &self.nodes[node];
        if !state.is_running() || !state.is_leased(self.now) {
            return None;
        }
        let name = name(self.operator.target);
        let members = state.membership.view()?.members();
        members.iter().find(|member| member.identity.name == name).map(|member| member.slot)
    }

    /// Who is drained owns nothing, also after its program or the master's was started again.
    pub(crate) fn judge_drain(&mut self) {
        let Operator { target, wants_drained: true, done: true, done_at, .. } = self.operator else { return };
        if self.now - done_at < MOVES_TAKE {
            return;
        }
        let owned = WorkSet::all().filter(|set| self.nodes[target].app.tenure(*set).is_some()).count();
        if owned > 0 {
            self.violate(format!("drain: n{target} is drained and owns {owned} sets"));
        }
        self.check.count("drains judged");
    }
}
