//! Many runs on both cores: what they must have shown, and whether planted bugs are found.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use cluster::{LoneSurvivor, Policy};

use crate::bugs::{self, Bug, PLANTS, Plant};
use crate::faults::REQUIRED;
use crate::judge::Check;
use crate::world::{MS, Plan, S, Script, World};

/// How often a hunt says how far it is.
const PROGRESS: Duration = Duration::from_secs(10);
/// Fewer seeds than this may lack a fault.
const SEEDS_FOR_ALL_FAULTS: usize = 20;
/// Seeds in which a planted bug must be found, and minutes of each.
const PLANT_SEEDS: u64 = 64;
const PLANT_MINUTES: u64 = 5;

/// What a hunt has come to.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
}

impl Tally {
    pub(crate) fn note(&mut self, good: bool) {
        self.passed += usize::from(good);
        self.failed += usize::from(!good);
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

/// A seed says everything about its run.
pub(crate) fn plan(seed: u64, minutes: u64) -> Plan {
    let nodes = match seed % 8 {
        0..=4 => 3,
        5 | 6 => 4,
        _ => 5,
    };
    let networks = if seed.is_multiple_of(3) { 2 } else { 1 };
    let (policy, lone) = (Policy::default(), LoneSurvivor::Wait);
    let (bug, script, life) = (Bug::None, Script::Random, 60 * S);
    Plan { seed, nodes, networks, minutes, policy, lone, life, bug, script }
}

/// The same for a run in which parts may go on alone.
pub(crate) fn lone_plan(seed: u64, minutes: u64) -> Plan {
    let mut plan = plan(seed, minutes);
    bugs::lone(&mut plan);
    plan
}

/// The same for a run in which nodes fail while the processors of all are stolen in bursts.
pub(crate) fn stolen_plan(seed: u64, minutes: u64) -> Plan {
    Plan { script: Script::Stolen, ..plan(seed, minutes) }
}

fn run(plan: Plan) -> Check {
    let mut world = World::new(plan);
    world.run();
    world.check
}

#[expect(clippy::disallowed_methods, reason = "a hunt tells how long it took; no core sees this")]
fn clock() -> Instant {
    Instant::now()
}

/// Runs plans on two threads and gives each outcome to `seen`, until that says that it is enough.
fn run_all(plans: &[Plan], mut seen: impl FnMut(usize, Check) -> bool) {
    let (next, enough) = (AtomicUsize::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let (tell, told) = mpsc::channel();
        for _ in 0..2 {
            let (tell, next, enough) = (tell.clone(), &next, &enough);
            scope.spawn(move || {
                while !enough.load(Ordering::Relaxed) {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(plan) = plans.get(at) else { break };
                    if tell.send((at, run(plan.clone()))).is_err() {
                        break;
                    }
                }
            });
        }
        drop(tell);
        for (at, check) in told {
            if !seen(at, check) {
                enough.store(true, Ordering::Relaxed);
            }
        }
    });
}

/// Hunts through all of `plans`; says how far it is, and what was seen.
pub(crate) fn hunt(name: &str, plans: &[Plan]) -> Tally {
    let started = clock();
    let (mut total, mut tally, mut told_at) = (Check::default(), Tally::default(), started);
    let mut replay = BTreeMap::new();
    run_all(plans, |at, check| {
        tally.note(check.violations.is_empty());
        total.add(&check);
        if !check.violations.is_empty() {
            replay.insert(at, check.violations);
        }
        if told_at.elapsed() >= PROGRESS {
            told_at = clock();
            let (done, of) = (tally.passed + tally.failed, plans.len());
            println!("sim: {name}: {done} of {of} runs in {} s, {} failed", started.elapsed().as_secs(), tally.failed);
        }
        true
    });
    for (at, violations) in &replay {
        let plan = &plans[*at];
        for violation in violations {
            println!("VIOLATION {violation} ({} nodes, {} networks)", plan.nodes, plan.networks);
        }
        let lone = match (plan.is_lone(), plan.script) {
            (true, _) => " --lone 1",
            (false, Script::Stolen) => " --stolen 1",
            (false, Script::Random | Script::QuickViews) => "",
        };
        let (seed, minutes) = (plan.seed, plan.minutes);
        println!("  replay: cargo test --release -p cluster --test sim -- --seed {seed} --minutes {minutes}{lone}");
    }
    let minutes: u64 = plans.iter().map(|plan| plan.minutes).sum();
    println!(
        "sim: {name}: {} runs, {minutes} simulated minutes in {:.1} s, {} runs with violations",
        plans.len(),
        started.elapsed().as_secs_f64(),
        tally.failed
    );
    println!("sim: {name}: {}", listed(&total.counts));
    println!("sim: {name}: faults: {}", listed(&total.faults));
    println!("sim: {name}: longest silence of a session {} ms", total.silence_max / MS);
    if plans.len() >= SEEDS_FOR_ALL_FAULTS && plans.iter().all(|plan| plan.script == Script::Random) {
        for fault in REQUIRED {
            if !total.faults.keys().any(|name| name.starts_with(fault)) {
                println!("NOT INJECTED: {fault}");
                tally.note(false);
            }
        }
    }
    tally
}

fn listed(counts: &BTreeMap<&'static str, u64>) -> String {
    let counts: Vec<String> = counts.iter().map(|(what, count)| format!("{what} {count}")).collect();
    counts.join(", ")
}

/// Plants each bug; it must be found, by the invariant that it breaks.
pub(crate) fn plant_all() -> Tally {
    let mut tally = Tally::default();
    for plant in &PLANTS {
        tally.note(finds(plant));
    }
    tally
}

fn finds(plant: &Plant) -> bool {
    let started = clock();
    let plans: Vec<Plan> = (1..=PLANT_SEEDS)
        .map(|seed| {
            let mut plan = plan(seed, PLANT_MINUTES);
            (plant.plant)(&mut plan);
            plan
        })
        .collect();
    let (mut found, mut others) = (None, BTreeMap::<String, u64>::new());
    let mut runs = 0;
    run_all(&plans, |_, check| {
        runs += 1;
        for violation in check.violations {
            let invariant = violation.split(": ").nth(1).unwrap_or_default().to_owned();
            if invariant == plant.breaks {
                found.get_or_insert(violation);
            } else {
                *others.entry(invariant).or_default() += 1;
            }
        }
        found.is_none()
    });
    let took = started.elapsed().as_secs_f64();
    match &found {
        Some(violation) => println!("planted bug \"{}\" found in {runs} runs, {took:.1} s: {violation}", plant.name),
        None => println!(
            "planted bug \"{}\" NOT FOUND by {} in {runs} runs, {took:.1} s; others: {others:?}",
            plant.name, plant.breaks
        ),
    }
    found.is_some()
}
