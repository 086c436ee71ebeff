//! The deterministic simulator: whole clusters of both cores under faults, their invariants judged at every event.
//!
//! `cargo test --release -p cluster --test sim -- --seeds 200 --minutes 10` is the long hunt;
//! `… -- --seed 17 --minutes 10` replays one run, `SIM_TRACE=1` prints what happens in it.

mod app;
mod faults;
mod world;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use app::AppBug;
use cluster::Policy;
use world::{Check, MS, Plan, Script, World};

/// A seed says everything about its run.
fn plan(seed: u64, minutes: u64) -> Plan {
    let nodes = match seed % 8 {
        0..=4 => 3,
        5 | 6 => 4,
        _ => 5,
    };
    let networks = if seed.is_multiple_of(3) { 2 } else { 1 };
    Plan { seed, nodes, networks, minutes, policy: Policy::default(), bug: AppBug::None, script: Script::Random }
}

fn run(plan: Plan) -> Check {
    let mut world = World::new(plan);
    world.run();
    world.check
}

/// Runs seeds on two threads; returns the checks in the order of the seeds.
fn run_all(plans: Vec<Plan>) -> Vec<Check> {
    let next = Arc::new(AtomicU64::new(0));
    let results = Arc::new(Mutex::new(Vec::new()));
    let plans = Arc::new(plans);
    let workers: Vec<_> = (0..2)
        .map(|_| {
            let (next, results, plans) = (Arc::clone(&next), Arc::clone(&results), Arc::clone(&plans));
            std::thread::spawn(move || {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed) as usize;
                    let Some(plan) = plans.get(at) else { break };
                    let check = run(plan.clone());
                    if let Ok(mut results) = results.lock() {
                        results.push((at, check));
                    }
                }
            })
        })
        .collect();
    for worker in workers {
        worker.join().expect("a run panicked; its seed is the last one printed");
    }
    let mut results = std::mem::take(&mut *results.lock().unwrap());
    results.sort_by_key(|(at, _)| *at);
    results.into_iter().map(|(_, check)| check).collect()
}

/// Whether a bug that was planted is found within so many seeds.
fn finds(name: &str, mutate: impl Fn(&mut Plan), seeds: u64, minutes: u64) -> bool {
    for batch in 0..seeds.div_ceil(8) {
        let plans = (batch * 8..batch * 8 + 8).map(|seed| {
            let mut plan = plan(seed + 1, minutes);
            mutate(&mut plan);
            plan
        });
        let found = run_all(plans.collect()).into_iter().flat_map(|check| check.violations).next();
        if let Some(violation) = found {
            println!("planted bug \"{name}\" found: {violation}");
            return true;
        }
    }
    println!("planted bug \"{name}\" NOT FOUND in {seeds} seeds");
    false
}

fn argument(name: &str) -> Option<u64> {
    let mut arguments = std::env::args().skip_while(|argument| argument != name);
    arguments.nth(1).map(|value| value.parse().unwrap_or_else(|_| panic!("{name} wants a number, not {value}")))
}

#[expect(clippy::disallowed_methods, reason = "the simulator tells how long it took; no core sees this")]
fn started() -> std::time::Instant {
    std::time::Instant::now()
}

fn main() {
    let started = started();
    let minutes = argument("--minutes").unwrap_or(2);
    let plans: Vec<Plan> = match argument("--seed") {
        Some(seed) => vec![plan(seed, minutes)],
        None => {
            let first = argument("--first").unwrap_or(1);
            (first..first + argument("--seeds").unwrap_or(16)).map(|seed| plan(seed, minutes)).collect()
        }
    };
    let single = plans.len() == 1;
    let checks = run_all(plans.clone());
    let mut failed = false;
    let mut total = Check::default();
    for (plan, check) in plans.iter().zip(&checks) {
        for violation in &check.violations {
            failed = true;
            println!("VIOLATION {violation} ({} nodes, {} networks)", plan.nodes, plan.networks);
            println!(
                "  replay: cargo test --release -p cluster --test sim -- --seed {} --minutes {minutes}",
                plan.seed
            );
        }
        total.packets += check.packets;
        total.answered += check.answered;
        total.takeovers += check.takeovers;
        total.moves += check.moves;
        total.events += check.events;
        total.datagrams += check.datagrams;
        total.gap_max = total.gap_max.max(check.gap_max);
        for (fault, count) in &check.faults {
            *total.faults.entry(fault).or_default() += count;
        }
    }
    let took = started.elapsed();
    println!(
        "sim: {} seeds x {minutes} min in {:.1} s: {} events, {} datagrams, {} packets and {} answers judged, {} sets taken over, {} moved, longest silence of a session {} ms, {} violations",
        plans.len(),
        took.as_secs_f64(),
        total.events,
        total.datagrams,
        total.packets,
        total.answered,
        total.takeovers,
        total.moves,
        total.gap_max / MS,
        checks.iter().map(|check| check.violations.len()).sum::<usize>(),
    );
    println!("sim: faults {:?}", total.faults);
    if !single && argument("--no-bugs").is_none() {
        let quick = |plan: &mut Plan| (plan.nodes, plan.networks, plan.script) = (5, 1, Script::QuickViews);
        let plans = (1..=8).map(|seed| {
            let mut plan = plan(seed, 2);
            quick(&mut plan);
            plan
        });
        for violation in run_all(plans.collect()).into_iter().flat_map(|check| check.violations) {
            failed = true;
            println!("VIOLATION {violation} (two views in quick succession)");
        }
        let hasty = |plan: &mut Plan| {
            quick(plan);
            plan.policy.view_stands = Duration::ZERO;
        };
        failed |= !finds("no wait between two view changes", hasty, 64, 2);
        failed |= !finds(
            "no wait for silence before the vote",
            |plan| plan.policy.silence = Duration::from_millis(15),
            64,
            5,
        );
        failed |= !finds("output before commit", |plan| plan.bug = AppBug::OutputBeforeCommit, 64, 5);
    }
    if failed {
        std::process::exit(1);
    }
}
