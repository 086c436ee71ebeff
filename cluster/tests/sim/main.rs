//! The deterministic simulator: whole clusters of both cores under faults, their invariants judged at every event.
//!
//! Without arguments it takes a taste. `./test` runs `--seeds 200 --minutes 10 --lone-seeds 40 --stolen-seeds 8 --plants 1`;
//! `--seed 17 --minutes 10` replays one run (`--lone 1`: one of those in which parts may go on alone, `--stolen 1`: one in
//! which nodes fail while processors are stolen), and `SIM_TRACE=1` prints what happens in it.

mod air;
mod app;
mod bugs;
mod clients;
mod faults;
mod hunt;
mod judge;
mod node;
mod operator;
mod queue;
mod streams;
mod world;

use hunt::{Tally, hunt, lone_plan, plan, plant_all, stolen_plan};
use world::{Plan, Script};

fn argument(name: &str) -> Option<u64> {
    let mut arguments = std::env::args().skip_while(|argument| argument != name);
    arguments.nth(1).map(|value| value.parse().unwrap_or_else(|_| panic!("{name} wants a number, not {value}")))
}

/// Five nodes, two views in quick succession, again and again.
fn quick_plan(seed: u64) -> Plan {
    let mut plan = plan(seed, 2);
    bugs::quick_views(&mut plan);
    debug_assert_eq!(plan.script, Script::QuickViews);
    plan
}

fn main() {
    let minutes = argument("--minutes").unwrap_or(1);
    let mut tally = Tally::default();
    if let Some(seed) = argument("--seed") {
        let is_set = |name| argument(name).is_some_and(|value| value != 0);
        let plan = match (is_set("--lone"), is_set("--stolen")) {
            (true, _) => lone_plan(seed, minutes),
            (false, true) => stolen_plan(seed, minutes),
            (false, false) => plan(seed, minutes),
        };
        tally.add(&hunt("one seed", &[plan]));
    } else {
        let first = argument("--first").unwrap_or(1);
        let seeds = |count: u64| first..first + count;
        let certain: Vec<Plan> = seeds(argument("--seeds").unwrap_or(8)).map(|seed| plan(seed, minutes)).collect();
        if !certain.is_empty() {
            tally.add(&hunt("a quorum stays whole", &certain));
        }
        let lone: Vec<Plan> =
            seeds(argument("--lone-seeds").unwrap_or(4)).map(|seed| lone_plan(seed, minutes)).collect();
        if !lone.is_empty() {
            tally.add(&hunt("parts go on alone", &lone));
        }
        let stolen: Vec<Plan> =
            seeds(argument("--stolen-seeds").unwrap_or(2)).map(|seed| stolen_plan(seed, minutes)).collect();
        if !stolen.is_empty() {
            tally.add(&hunt("nodes fail while processors are stolen", &stolen));
        }
        if argument("--plants").is_some_and(|plants| plants != 0) {
            tally.add(&hunt("two views in quick succession", &(1..=8).map(quick_plan).collect::<Vec<_>>()));
            tally.add(&plant_all());
        }
    }
    let verdict = if tally.failed == 0 { "ok" } else { "FAILED" };
    println!("test result: {verdict}. {} passed; {} failed; 0 ignored", tally.passed, tally.failed);
    if tally.failed != 0 {
        std::process::exit(1);
    }
}
