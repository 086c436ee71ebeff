//! Bugs that are planted on purpose: each must be found, by the invariant that it breaks.

use std::time::Duration;

use cluster::LoneSurvivor;

use crate::world::{Plan, S, Script};

/// What a node, its kernel or its transport does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    None,
    /// Answers leave before the state behind them is committed.
    OutputBeforeCommit,
    /// What one other member holds counts as held by all.
    CommitByMajority,
    /// A sequence lease is used before it is committed.
    LeaseBeforeCommit,
    /// An heir begins one number below the committed edge.
    HeirBelowEdge,
    /// An heir works under the epoch of the owner before.
    EpochNotRaised,
    /// Nothing compares the lease's end with the clock.
    NoFence,
    /// The program compares it, when it happens to run: a paused node wakes up as the owner that it was.
    FenceInProcess,
    /// A transport loses a message in the middle of a stream.
    StreamLosesMessage,
    /// The last word of a move is not said again when the session that it was on has broken.
    HandOverSaidOnce,
    /// A node begins to work for what was handed to it without a look at its lease.
    BegunWithoutLease,
    /// Two parts that both go on use the same sequence numbers.
    SharedBlocks,
    /// A part that goes on alone finds nobody, although others hold the cluster's addresses, and takes itself for proven.
    DeafProbe,
}

/// A bug, how it is planted, and which invariant must break.
pub(crate) struct Plant {
    pub(crate) name: &'static str,
    pub(crate) breaks: &'static str,
    pub(crate) plant: fn(&mut Plan),
}

/// Five nodes of which two are removed in quick succession.
pub(crate) fn quick_views(plan: &mut Plan) {
    (plan.nodes, plan.networks, plan.script) = (5, 1, Script::QuickViews);
}

/// Sixteen numbers must do for all nodes that were lost within an association's life: here they are lost every few
/// seconds.
const LONE_LIFE: u64 = 12 * S;

/// Parts that go on alone.
pub(crate) fn lone(plan: &mut Plan) {
    plan.lone = LoneSurvivor::Serve;
    plan.life = LONE_LIFE;
    plan.policy.apart = Duration::from_nanos(LONE_LIFE + LONE_LIFE / 4);
    plan.nodes = match plan.seed % 4 {
        0 | 1 => 2,
        2 => 3,
        _ => 4,
    };
}

pub(crate) const PLANTS: [Plant; 14] = [
    Plant {
        name: "no wait between two view changes (L + 2 ms)",
        breaks: "I1",
        plant: |plan| {
            quick_views(plan);
            plan.policy.view_stands = Duration::ZERO;
        },
    },
    Plant {
        name: "no wait for silence before the vote",
        breaks: "I1",
        plant: |plan| plan.policy.silence = Duration::from_millis(15),
    },
    Plant { name: "no fence", breaks: "I1", plant: |plan| plan.bug = Bug::NoFence },
    Plant {
        name: "a fence in the program, not in the kernel",
        breaks: "I1",
        plant: |plan| plan.bug = Bug::FenceInProcess,
    },
    Plant { name: "epoch not raised at a take-over", breaks: "I1", plant: |plan| plan.bug = Bug::EpochNotRaised },
    Plant { name: "output before commit", breaks: "I6", plant: |plan| plan.bug = Bug::OutputBeforeCommit },
    Plant { name: "commit by a majority", breaks: "I6", plant: |plan| plan.bug = Bug::CommitByMajority },
    Plant { name: "lease used before commit", breaks: "I2", plant: |plan| plan.bug = Bug::LeaseBeforeCommit },
    Plant { name: "heir starts at the edge minus one", breaks: "I2", plant: |plan| plan.bug = Bug::HeirBelowEdge },
    Plant { name: "a stream loses a message", breaks: "I11", plant: |plan| plan.bug = Bug::StreamLosesMessage },
    Plant { name: "a hand-over is said once only", breaks: "I10", plant: |plan| plan.bug = Bug::HandOverSaidOnce },
    Plant {
        name: "a handed set is begun without a lease",
        breaks: "I1",
        plant: |plan| plan.bug = Bug::BegunWithoutLease,
    },
    Plant {
        name: "two unproven parts share their numbers",
        breaks: "I2",
        plant: |plan| {
            lone(plan);
            plan.bug = Bug::SharedBlocks;
        },
    },
    Plant {
        name: "a lone part takes itself for proven",
        breaks: "I10",
        plant: |plan| {
            lone(plan);
            plan.bug = Bug::DeafProbe;
        },
    },
];
