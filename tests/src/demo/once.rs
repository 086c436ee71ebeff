//! The scenario of `./demo --once`: a download of a minute, in which the owner of its work set dies, the master dies,
//! both come back, and the session is moved on purpose.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::cluster::{Client, Cluster};
use crate::echo::{EchoServer, Prober};
use crate::figures::{Bound, Figures};
use crate::http::{Download, Server, expected_sha256};
use crate::observer::{Observer, Report};
use crate::run;

/// Runs the scenario and says, as it goes, what happens.
///
/// # Errors
/// A node does not start, does not come back in time, or the client loses its connection. A figure that misses its
/// bar is no error: see [`Figures::all_met`].
pub fn once() -> Result<Figures> {
    let mut story = Story { start: Instant::now() };
    story.tell("building three LANs, three nodes and a client");
    let mut cluster = Cluster::build(3)?;
    let client = cluster.client(1)?;
    // It sees the ports that are there by now, so it comes after the client and before the first packet.
    let observer = Observer::start(&cluster.outside, cluster.rules())?;
    cluster.start()?;
    story.tell(&format!("three nodes form a cluster; master: {}", cluster.master()?));
    let address = client.charon.connect()?;
    story.tell(&format!("strongSwan is connected by certificate to the one address, its inner address is {address}"));

    let web = cluster.server_address(8080);
    let echo = cluster.server_address(7);
    let _server = Server::start(&cluster.server, web)?;
    let _echo = EchoServer::start(&cluster.server, echo)?;
    let prober = Prober::start(&client.namespace, address, echo, PROBE_RATE)?;
    run::wait_for("the first probe to come back", Duration::from_secs(5), || {
        let account = prober.account(story.start, Instant::now());
        (account.lost < account.sent).then_some(())
    })?;
    story.start = Instant::now();
    let download = Download::start(&client.namespace, address, web, DOWNLOAD_BYTES, DOWNLOAD_TIME)?;
    story.tell(&format!("download of {} MB over {} s begins", DOWNLOAD_BYTES / 1_000_000, DOWNLOAD_TIME.as_secs()));

    let mut figures = Figures::new("demo");
    story.at(10)?;
    let victim = cluster.owner_of(CLIENT_ID)?;
    let gap = fail(&mut story, &mut cluster, &prober, &victim, Blow::KillAndCut)?;
    figures.add("owner_killed_gap", milliseconds(gap), "ms", None);
    story.at(15)?;
    come_back(&mut story, &mut cluster, &victim, 25)?;

    story.at(30)?;
    let master = cluster.master()?;
    let gap = fail(&mut story, &mut cluster, &prober, &master, Blow::Kill)?;
    figures.add("master_killed_gap", milliseconds(gap), "ms", None);
    story.at(35)?;
    come_back(&mut story, &mut cluster, &master, 45)?;

    story.at(50)?;
    let owner = cluster.owner_of(CLIENT_ID)?;
    let drained = drain(&mut story, &mut cluster, &prober, &owner)?;
    figures.add("drain_lost", drained.lost as f64, "packets", Some(Bound::AtMost(0.0)));
    figures.add("drain_duplicated", drained.doubled as f64, "packets", Some(Bound::AtMost(0.0)));
    figures.add("drain_gap", milliseconds(drained.gap_max), "ms", None);

    let outcome = download.finish().context("the download")?;
    story.tell(&format!("the download ended after {:.1} s; SHA-256 {}", outcome.took.as_secs_f64(), outcome.sha256));
    let intact = outcome.sha256 == expected_sha256(DOWNLOAD_BYTES);
    figures.add("download_bytes", outcome.bytes as f64, "B", Some(Bound::AtLeast(DOWNLOAD_BYTES as f64)));
    figures.add("download_damaged", f64::from(u8::from(!intact)), "", Some(Bound::AtMost(0.0)));
    figures.add("download_gap_max", milliseconds(outcome.gap_max), "ms", None);
    let whole = prober.account(story.start, story.start + outcome.took);
    figures.add("probes_sent", whole.sent as f64, "packets", None);
    figures.add("probes_lost", whole.lost as f64, "packets", None);
    figures.add("probes_duplicated", whole.doubled as f64, "packets", Some(Bound::AtMost(0.0)));
    judge_client(&mut figures, &client);
    drop(prober);
    judge_wire(&mut figures, &observer.finish()?);
    Ok(figures)
}

/// How a node is made to fail.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Blow {
    Kill,
    KillAndCut,
}

fn fail(story: &mut Story, cluster: &mut Cluster, prober: &Prober, name: &str, blow: Blow) -> Result<Duration> {
    let was_master = cluster.master()? == name;
    let owned = cluster.owner_of(CLIENT_ID)? == name;
    let node = cluster.node(name)?;
    let before = Instant::now();
    node.kill();
    if blow == Blow::KillAndCut {
        node.cut()?;
    }
    let how = if blow == Blow::KillAndCut { "killed with SIGKILL and its cables cut" } else { "killed with SIGKILL" };
    let role = match (was_master, owned) {
        (true, true) => "the master, which owns the client's work set,",
        (true, false) => "the master",
        (false, _) => "the owner of the client's work set",
    };
    story.tell(&format!("{name}, {role} is {how}"));
    let heir = run::wait_for("another node to own the session", Duration::from_secs(5), || {
        cluster.owner_of(CLIENT_ID).ok().filter(|owner| owner != name)
    })?;
    run::wait_for("probes to flow again", Duration::from_secs(5), || {
        let now = Instant::now();
        let last = prober.account(now.checked_sub(Duration::from_millis(100))?, now);
        (last.gap_max < Duration::from_millis(60)).then_some(())
    })?;
    let gap = prober.account(before, Instant::now()).gap_max;
    story.tell(&format!("{heir} owns the session; longest gap of the probes: {:.0} ms", milliseconds(gap)));
    Ok(gap)
}

fn come_back(story: &mut Story, cluster: &mut Cluster, name: &str, by: u64) -> Result<()> {
    let node = cluster.node(name)?;
    node.restore()?;
    node.start()?;
    let left = (story.start + Duration::from_secs(by)).saturating_duration_since(Instant::now());
    cluster.await_formed(left).with_context(|| format!("{name} comes back by second {by}"))?;
    story.tell(&format!("{name} is back in the cluster and has work"));
    Ok(())
}

fn drain(story: &mut Story, cluster: &mut Cluster, prober: &Prober, name: &str) -> Result<crate::echo::Account> {
    let before = Instant::now();
    let drain = cluster.node(name)?.drain(name)?;
    let after = Instant::now();
    let owner = cluster.owner_of(CLIENT_ID)?;
    ensure!(owner != name, "{name} is drained and still owns the session");
    story.tell(&format!(
        "{name} is drained: {} work sets moved in {:.0} ms, the session to {owner}",
        drain.moved_sets,
        milliseconds(after - before)
    ));
    // What was under way has a moment to arrive.
    let settle = after + Duration::from_millis(500);
    run::wait_for("the last probes", Duration::from_secs(2), || (Instant::now() > settle).then_some(()))?;
    cluster.node(name)?.undrain(name)?;
    Ok(prober.account(before, after))
}

fn judge_client(figures: &mut Figures, client: &Client) {
    let history = client.charon.history();
    figures.add("ike_sa_init", history.ike_sa_init as f64, "", Some(Bound::AtMost(1.0)));
    figures.add("ike_auth", history.ike_auth as f64, "", Some(Bound::AtMost(1.0)));
    figures.add("rekeyings", history.create_child_sa as f64, "", Some(Bound::AtMost(0.0)));
    figures.add("reconnects", history.losses as f64, "", Some(Bound::AtMost(0.0)));
    let undisturbed = f64::from(u8::from(history.is_one_undisturbed_session()));
    figures.add("one_undisturbed_session", undisturbed, "", Some(Bound::AtLeast(1.0)));
    figures.add("ike_retransmissions", history.retransmissions as f64, "", None);
}

fn judge_wire(figures: &mut Figures, report: &Report) {
    report.print();
    figures.add("packets_judged", report.judged as f64, "packets", Some(Bound::AtLeast(1.0)));
    figures.add("violations", report.broken as f64, "", Some(Bound::AtMost(0.0)));
    figures.add("observer_dropped", report.dropped as f64, "frames", Some(Bound::AtMost(0.0)));
}

/// Tells what happens, with the second of the download in which it does.
struct Story {
    start: Instant,
}

impl Story {
    fn tell(&mut self, what: &str) {
        println!("{:6.2} s  {what}", self.start.elapsed().as_secs_f64());
    }

    /// Waits for a second of the script.
    fn at(&self, second: u64) -> Result<()> {
        let due = self.start + Duration::from_secs(second);
        let late = Instant::now().saturating_duration_since(due);
        ensure!(late < Duration::from_secs(5), "the script is {late:?} late at second {second}");
        run::wait_for("the script", Duration::from_secs(120), || (Instant::now() >= due).then_some(()))
    }
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

const CLIENT_ID: &str = "c1.lab.test";
const DOWNLOAD_BYTES: u64 = 300_000_000;
const DOWNLOAD_TIME: Duration = Duration::from_secs(60);
/// What strongSwan's user-space ESP carries beside the download without falling behind.
const PROBE_RATE: u32 = 500;
