//! Twenty failures and ten drains with a thousand sessions up: what is lost, and for how long nothing flows.

use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::cluster::{Cluster, SERVER, Session};
use crate::echo::EchoServer;
use crate::figures::{Bound, Figures, median};
use crate::load::{InsideEnd, Load, Streamed};
use crate::observer::{Observer, Rule};

/// Runs all failures and drains under one observer.
pub(super) fn run() -> Result<Figures> {
    let mut bench = Bench::start()?;
    let observer = Observer::start(&bench.cluster.outside, bench.cluster.rules())?;
    bench.load.open(SESSIONS, 50, OPEN_LIMIT)?;
    bench.await_listed()?;
    println!("  {SESSIONS} sessions are up; the failures begin");

    let control = bench.control()?;
    let mut failures = Failures::default();
    for number in 0..FAILURES {
        bench.fail(number, control, &mut failures)?;
    }
    let mut drains = Drains::default();
    for _ in 0..DRAINS {
        bench.drain(&mut drains)?;
    }
    bench.pause()?;

    let mut figures = Figures::new("failover");
    figures.add("control_gap_ms", control.as_secs_f64() * 1e3, "ms", None);
    failures.report(&mut figures);
    figures.add("drains", f64::from(drains.count), "", Some(Bound::AtLeast(f64::from(DRAINS))));
    figures.add("drain_lost", drains.lost as f64, "packets", Some(Bound::AtMost(0.0)));
    figures.add("drain_duplicated", drains.doubled as f64, "packets", Some(Bound::AtMost(0.0)));
    let counts = bench.load.counts();
    let renegotiations = counts.rekeyed + counts.closed + counts.opened.saturating_sub(SESSIONS);
    figures.add("renegotiations", renegotiations as f64, "", Some(Bound::AtMost(0.0)));
    let report = observer.finish()?;
    report.print();
    figures.add("violations", report.broken as f64, "", Some(Bound::AtMost(0.0)));
    figures.add("packets_judged", report.judged as f64, "packets", Some(Bound::AtLeast(1.0)));
    figures.add("observer_dropped", report.dropped as f64, "frames", Some(Bound::AtMost(0.0)));
    figures.add("stale_packets", report.count(Rule::StaleOwner) as f64, "packets", Some(Bound::AtMost(0.0)));
    figures.add("planted_double_use_found", bench.plant()? as f64, "", Some(Bound::AtLeast(1.0)));
    Ok(figures)
}

struct Bench {
    load: Load,
    _echo: EchoServer,
    ports: std::ops::RangeFrom<u16>,
    outside: crate::namespace::Namespace,
    cluster: Cluster,
}

/// A stream in both directions through one session.
struct Watched {
    address: Ipv4Addr,
    inside: InsideEnd,
}

/// What came out of a [`Watched`] stream.
struct BothWays {
    inward: Streamed,
    outward: Streamed,
}

#[derive(Default)]
struct Failures {
    gaps_ms: Vec<f64>,
    survivor_gaps_ms: Vec<f64>,
    sessions_lost: usize,
    sessions_judged: usize,
    masters: usize,
    cuts: usize,
}

#[derive(Default)]
struct Drains {
    count: u32,
    lost: u64,
    doubled: u64,
}

impl Bench {
    fn start() -> Result<Self> {
        let mut cluster = Cluster::build(3)?;
        let outside = cluster.outside_host("load", 200)?;
        cluster.start()?;
        let echo = EchoServer::start(&cluster.server, ECHO.into())?;
        let load = cluster.load(&outside, 200, cluster.pre_shared_key())?;
        Ok(Self { load, _echo: echo, ports: 20_000.., outside, cluster })
    }

    /// Waits until the operator's view shows all sessions.
    fn await_listed(&self) -> Result<()> {
        crate::run::wait_for("all sessions to be listed", Duration::from_secs(10), || {
            (self.cluster.sessions().len() >= SESSIONS).then_some(())
        })
    }

    /// The longest gap of an undisturbed stream of the same length.
    fn control(&mut self) -> Result<Duration> {
        let sessions = self.cluster.sessions();
        let address = address_of(sessions.first().context("no session is listed")?)?;
        let stream = self.watch(address)?;
        observe(WARM_UP);
        let start = Instant::now();
        observe(WINDOW);
        let end = Instant::now();
        Ok(self.unwatch(stream).gap_max(start, end))
    }

    fn fail(&mut self, number: usize, control: Duration, failures: &mut Failures) -> Result<()> {
        let (hits_master, cuts) = (number.is_multiple_of(2), (number / 2).is_multiple_of(2));
        let master = self.cluster.master()?;
        let sessions = self.cluster.sessions();
        let on_victim = sessions.iter().find(|session| (session.owner == master) == hits_master);
        let on_victim = on_victim.context("no session is homed on such a node")?;
        let victim = on_victim.owner.clone();
        let survivor = sessions.iter().find(|session| session.owner != victim).context("one node owns all sessions")?;
        let hit = self.watch(address_of(on_victim)?)?;
        let spared = self.watch(address_of(survivor)?)?;
        observe(WARM_UP);

        let start = Instant::now();
        let node = self.cluster.node(&victim)?;
        if cuts {
            node.cut()?;
        } else {
            node.kill();
        }
        observe(WINDOW);
        let end = Instant::now();
        let gap = self.unwatch(hit).gap_max(start, end).saturating_sub(control);
        let spared_gap = self.unwatch(spared).gap_max(start, end).saturating_sub(control);

        let silent = self.load.echo_all(ECHO, SILENCE_MAX)?.max(self.load.probe_all(SILENCE_MAX)?);
        failures.gaps_ms.push(gap.as_secs_f64() * 1e3);
        failures.survivor_gaps_ms.push(spared_gap.as_secs_f64() * 1e3);
        failures.sessions_lost += silent + SESSIONS.saturating_sub(self.load.counts().up);
        failures.sessions_judged += SESSIONS;
        failures.masters += usize::from(hits_master);
        failures.cuts += usize::from(cuts);
        println!(
            "  failure {:>2}: {victim}{} {}: gap {:.0} ms, on survivors {:.0} ms, sessions lost {silent}",
            number + 1,
            if hits_master { ", the master," } else { "" },
            if cuts { "cut off" } else { "killed" },
            gap.as_secs_f64() * 1e3,
            spared_gap.as_secs_f64() * 1e3,
        );

        let node = self.cluster.node(&victim)?;
        if cuts {
            node.restore()?;
        } else {
            node.start()?;
        }
        self.cluster.await_formed(RETURN_MAX)
    }

    fn drain(&mut self, drains: &mut Drains) -> Result<()> {
        let sessions = self.cluster.sessions();
        let session = sessions.first().context("no session is listed")?;
        let owner = session.owner.clone();
        let stream = self.watch(address_of(session)?)?;
        observe(WARM_UP);
        let start = Instant::now();
        let moved = self.cluster.node(&owner)?.drain(&owner)?.moved_sets;
        let took = start.elapsed();
        observe(WARM_UP);
        let streamed = self.unwatch(stream);
        let (lost, doubled) = (streamed.missing(), streamed.doubled());
        println!(
            "  drain of {owner}: {moved} work sets in {:.0} ms, lost {lost}, doubled {doubled}",
            took.as_secs_f64() * 1e3
        );
        drains.count += 1;
        drains.lost += lost;
        drains.doubled += doubled;
        self.cluster.node(&owner)?.undrain(&owner)?;
        self.cluster.await_formed(RETURN_MAX)
    }

    /// Stops an owner for two seconds under load and lets it go on: it must not send as if it still owned anything.
    fn pause(&mut self) -> Result<()> {
        let sessions = self.cluster.sessions();
        let session = sessions.first().context("no session is listed")?;
        let owner = session.owner.clone();
        let stream = self.watch(address_of(session)?)?;
        observe(WARM_UP);
        self.cluster.node(&owner)?.process().context("the owner does not run")?.pause();
        observe(PAUSE);
        self.cluster.node(&owner)?.process().context("the owner does not run")?.resume();
        observe(WINDOW);
        let received = self.unwatch(stream).received();
        println!("  {owner} was stopped for {PAUSE:?} and went on; {received} packets came through all the same");
        self.cluster.await_formed(RETURN_MAX)
    }

    /// Repeats a packet on purpose; returns how many broken rules a second observer finds.
    fn plant(&mut self) -> Result<u64> {
        let observer = Observer::start(&self.cluster.outside, self.cluster.rules())?;
        self.load.echo_all(ECHO, SILENCE_MAX)?;
        observer.plant(&self.outside, "out")?;
        Ok(observer.finish()?.broken)
    }

    fn watch(&mut self, address: Ipv4Addr) -> Result<Watched> {
        let port = self.ports.next().context("all ports are used")?;
        let inside = InsideEnd::start(&self.cluster.server, SocketAddrV4::new(SERVER, port), address, RATE)?;
        self.load.stream(address, &inside, RATE)?;
        Ok(Watched { address, inside })
    }

    fn unwatch(&self, watched: Watched) -> BothWays {
        let outward = self.load.end_stream(watched.address);
        BothWays { inward: watched.inside.finish(), outward }
    }
}

impl BothWays {
    fn gap_max(&self, start: Instant, end: Instant) -> Duration {
        self.inward.gap_max(start, end).max(self.outward.gap_max(start, end))
    }

    fn missing(&self) -> u64 {
        self.inward.missing() + self.outward.missing()
    }

    fn doubled(&self) -> u64 {
        self.inward.doubled() + self.outward.doubled()
    }

    fn received(&self) -> usize {
        self.inward.received() + self.outward.received()
    }
}

impl Failures {
    fn report(&self, figures: &mut Figures) {
        let maximum = |values: &[f64]| values.iter().copied().fold(0.0, f64::max);
        let within = self.gaps_ms.iter().filter(|gap| **gap <= 150.0).count();
        figures.add("failures", self.gaps_ms.len() as f64, "", Some(Bound::AtLeast(FAILURES as f64)));
        figures.add("failures_of_the_master", self.masters as f64, "", None);
        figures.add("failures_by_cut_cable", self.cuts as f64, "", None);
        figures.add("sessions_judged", self.sessions_judged as f64, "", None);
        figures.add("sessions_lost", self.sessions_lost as f64, "", Some(Bound::AtMost(0.0)));
        figures.add("gap_ms_median", median(&self.gaps_ms), "ms", Some(Bound::AtMost(80.0)));
        figures.add("gaps_within_150_ms", within as f64, "", Some(Bound::AtLeast(19.0)));
        figures.add("gap_ms_max", maximum(&self.gaps_ms), "ms", Some(Bound::AtMost(250.0)));
        figures.add("survivor_gap_ms_max", maximum(&self.survivor_gaps_ms), "ms", Some(Bound::AtMost(50.0)));
    }
}

fn address_of(session: &Session) -> Result<Ipv4Addr> {
    match session.inner_address {
        Some(IpAddr::V4(address)) => Ok(address),
        Some(IpAddr::V6(_)) | None => bail!("session {} has no IPv4 inner address", session.session),
    }
}

/// Lets traffic flow for a measured time.
fn observe(time: Duration) {
    thread::sleep(time);
}

const SESSIONS: usize = 1_000;
const FAILURES: usize = 20;
const DRAINS: u32 = 10;
/// Packets per second, each way.
const RATE: u32 = 1_000;
const ECHO: SocketAddrV4 = SocketAddrV4::new(SERVER, 7);
const WARM_UP: Duration = Duration::from_millis(400);
const WINDOW: Duration = Duration::from_millis(1_500);
const PAUSE: Duration = Duration::from_secs(2);
const OPEN_LIMIT: Duration = Duration::from_secs(60);
const RETURN_MAX: Duration = Duration::from_secs(30);
/// A session that answers nothing for this long is lost.
const SILENCE_MAX: Duration = Duration::from_secs(8);
