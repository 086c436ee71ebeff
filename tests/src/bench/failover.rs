//! Twenty failures and ten drains with a thousand sessions up: what is lost, and for how long nothing flows.

mod drains;
mod failures;
mod pauses;
mod scene;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use self::drains::Drains;
use self::failures::Failures;
use self::pauses::Pauses;
use self::scene::{Scene, observe};
use crate::figures::{Bound, Figures};
use crate::observer::Report;

/// Runs all failures, drains and pauses under one observer.
pub(super) fn run() -> Result<Figures> {
    let mut scene = Scene::set(SESSIONS)?;
    let control = control(&mut scene)?;
    let mut failures = Failures::default();
    for number in 0..FAILURES {
        failures.fail(&mut scene, number, control)?;
    }
    let mut drains = Drains::default();
    for number in 0..DRAINS {
        drains.drain(&mut scene, number, 1, RATE)?;
    }
    let mut pauses = Pauses::default();
    for number in 0..PAUSES {
        pauses.pause(&mut scene, number)?;
    }

    let mut figures = Figures::new("failover");
    figures.add("control_gap_ms", control.as_secs_f64() * 1e3, "ms", None);
    failures.report(&mut figures)?;
    drains.report(&mut figures, DRAINS)?;
    renegotiations(&mut figures, &scene);
    let (report, repeated) = scene.judgement()?;
    pauses.report(&mut figures, &report)?;
    observed(&mut figures, &report, repeated);
    figures.add("planted_repetition_found", scene.plant()? as f64, "", Some(Bound::AtLeast(1.0)));
    drop(scene);
    let found = failures::planted_double_use()?;
    figures.add("planted_double_use_found", found as f64, "", Some(Bound::AtLeast(1.0)));
    Ok(figures)
}

/// Drains alone, many of them, with more packets in more sessions: the hunt for a lost one.
pub(super) fn drains() -> Result<Figures> {
    let mut scene = Scene::set(SESSIONS)?;
    let mut drains = Drains::default();
    for number in 0..HUNT_DRAINS {
        drains.drain(&mut scene, number, HUNT_STREAMS, HUNT_RATE)?;
    }
    let mut figures = Figures::new("drain");
    drains.report(&mut figures, HUNT_DRAINS)?;
    renegotiations(&mut figures, &scene);
    let (report, repeated) = scene.judgement()?;
    observed(&mut figures, &report, repeated);
    Ok(figures)
}

/// The longest gap of an undisturbed stream of the same length.
fn control(scene: &mut Scene) -> Result<Duration> {
    let address = scene.load.inner_addresses().first().copied().context("there is no session")?;
    let stream = scene.watch(address, RATE)?;
    observe(WARM_UP);
    let start = Instant::now();
    observe(WINDOW);
    let end = Instant::now();
    Ok(scene.unwatch(stream).gap_max(start, end))
}

fn renegotiations(figures: &mut Figures, scene: &Scene) {
    let counts = scene.load.counts();
    let renegotiations = counts.rekeyed + counts.closed + counts.opened.saturating_sub(SESSIONS);
    figures.add("renegotiations", renegotiations as f64, "", Some(Bound::AtMost(0.0)));
}

fn observed(figures: &mut Figures, report: &Report, repeated: u64) {
    report.print();
    figures.add("violations", report.broken as f64, "", Some(Bound::AtMost(0.0)));
    figures.add("packets_judged", report.judged as f64, "packets", Some(Bound::AtLeast(1.0)));
    figures.add("esp_judged", report.esp as f64, "packets", Some(Bound::AtLeast(1.0)));
    figures.add("ike_judged", report.ike as f64, "packets", Some(Bound::AtLeast(1.0)));
    // What an attacker sent again, of which the streams' doubles show none.
    figures.add("packets_repeated", repeated as f64, "packets", Some(Bound::AtLeast(1.0)));
    figures.add("observer_dropped", report.dropped as f64, "frames", Some(Bound::AtMost(0.0)));
}

const SESSIONS: usize = 1_000;
const FAILURES: usize = 20;
const DRAINS: usize = 10;
const PAUSES: usize = 3;
/// Packets per second, each way.
const RATE: u32 = 1_000;
const HUNT_DRAINS: usize = 30;
const HUNT_STREAMS: usize = 12;
const HUNT_RATE: u32 = 300;
const WARM_UP: Duration = Duration::from_millis(400);
const WINDOW: Duration = Duration::from_millis(1_500);
const RETURN_MAX: Duration = Duration::from_secs(30);
