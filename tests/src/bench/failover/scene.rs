//! The cluster under measurement, its sessions, and streams through them.

use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use wire::Spi;

use crate::cluster::{Cluster, OUTSIDE_ADDRESS, SERVER, planted_program};
use crate::echo::EchoServer;
use crate::load::{InsideEnd, Load, Streamed};
use crate::namespace::Namespace;
use crate::observer::{Observer, Repeater, Report, Rules, Sender};
use crate::run;
use crate::vitals::Vitals;

/// Three nodes, one address, and a load tool with all its sessions before it, under an observer.
pub(super) struct Scene {
    pub(super) load: Load,
    _echo: EchoServer,
    ports: std::ops::RangeFrom<u16>,
    pub(super) outside: Namespace,
    observer: Option<Observer>,
    repeater: Option<Repeater>,
    pub(super) cluster: Cluster,
}

/// A stream in both directions through one session.
pub(super) struct Watched {
    pub(super) address: Ipv4Addr,
    spi: Spi,
    pub(super) inside: InsideEnd,
}

/// What came out of a [`Watched`] stream.
pub(super) struct BothWays {
    /// From the client to the inside.
    pub(super) inward: Streamed,
    /// From the inside to the client.
    pub(super) outward: Streamed,
}

impl Scene {
    /// Starts the cluster and opens `sessions`. The observer sees all of it.
    pub(super) fn set(sessions: usize) -> Result<Self> {
        Self::set_in(Cluster::build(3)?, sessions)
    }

    /// The same with a program that commits double use.
    pub(super) fn set_with_planted_fault(sessions: usize) -> Result<Self> {
        let mut cluster = Cluster::build(3)?;
        cluster.run_program(&planted_program()?);
        Self::set_in(cluster, sessions)
    }

    fn set_in(mut cluster: Cluster, sessions: usize) -> Result<Self> {
        let outside = cluster.outside_host("load", LOAD_HOST)?;
        let attacker = cluster.outside_host(ATTACKER, ATTACKER_HOST)?;
        let rules = Rules { attackers: vec![ATTACKER.to_owned()], ..cluster.rules() };
        let observer = Some(Observer::start(&cluster.outside, rules)?);
        let repeater =
            Some(Repeater::start(&cluster.outside, OUTSIDE_ADDRESS, &attacker, "out", REPEAT_NTH, REPEAT_AGE)?);
        cluster.start()?;
        let echo = EchoServer::start(&cluster.server, ECHO.into())?;
        let load = cluster.load(&outside, LOAD_HOST, cluster.pre_shared_key())?;
        load.open(sessions, 50, OPEN_LIMIT)?;
        let scene = Self { load, _echo: echo, ports: 20_000.., outside, observer, repeater, cluster };
        run::wait_for("all sessions to be listed", Duration::from_secs(10), || {
            (scene.cluster.sessions().len() >= sessions).then_some(())
        })?;
        println!("  {sessions} sessions are up");
        Ok(scene)
    }

    /// Inner addresses of sessions that live on the node `owner`, or, if `elsewhere`, on any other.
    pub(super) fn sessions_at(&self, owner: &str, elsewhere: bool) -> impl Iterator<Item = Ipv4Addr> {
        let sessions = self.cluster.sessions();
        let owner = owner.to_owned();
        sessions.into_iter().filter(move |session| (session.owner == owner) != elsewhere).filter_map(|session| {
            match session.inner_address {
                Some(IpAddr::V4(address)) => Some(address),
                Some(IpAddr::V6(_)) | None => None,
            }
        })
    }

    /// Starts a stream of `rate` packets per second each way through the session with that inner address.
    pub(super) fn watch(&mut self, address: Ipv4Addr, rate: u32) -> Result<Watched> {
        let port = self.ports.next().context("all ports are used")?;
        let inside = InsideEnd::start(&self.cluster.server, SocketAddrV4::new(SERVER, port), address, rate)?;
        self.load.stream(address, &inside, rate)?;
        Ok(Watched { address, spi: self.load.spi_of(address)?, inside })
    }

    /// Ends a stream.
    pub(super) fn unwatch(&self, watched: Watched) -> BothWays {
        let outward = self.load.end_stream(watched.address);
        BothWays { inward: watched.inside.finish(), outward }
    }

    /// Who owns the session of a stream, by the epoch and the port of what is on the wire.
    pub(super) fn owner_of(&self, watched: &Watched) -> Result<String> {
        let local = self.load.local();
        let sender = self.observer.as_ref().and_then(|observer| observer.sender(local, watched.spi));
        sender
            .map(|Sender { port, .. }| port)
            .with_context(|| format!("nobody has sent to {local} with the SPI {}", watched.spi))
    }

    /// Rules broken so far.
    pub(super) fn broken(&self) -> u64 {
        self.observer.as_ref().map_or(0, Observer::broken)
    }

    /// ESP packets that came in from the port of that node so far.
    pub(super) fn sent_by(&self, node: &str) -> u64 {
        self.observer.as_ref().and_then(|observer| observer.sent().get(node).copied()).map_or(0, |sent| sent.esp)
    }

    pub(super) fn vitals(&self) -> Vitals {
        Vitals::take(&self.cluster, &[&self.outside])
    }

    /// Once the run's own observation has ended: repeats a packet in the cluster's name, and returns how many broken rules
    /// a second observer finds.
    pub(super) fn plant(&mut self) -> Result<u64> {
        let observer = Observer::start(&self.cluster.outside, self.cluster.rules())?;
        self.load.echo_all(ECHO, SILENCE_MAX)?;
        observer.plant(&self.outside, "out")?;
        Ok(observer.finish()?.broken)
    }

    /// Ends attack and observation; returns what the observer says, and how many packets were repeated.
    pub(super) fn judgement(&mut self) -> Result<(Report, u64)> {
        let repeated = self.repeater.take().context("the attack has ended already")?.finish()?;
        let report = self.observer.take().context("the observation has ended already")?.finish()?;
        Ok((report, repeated))
    }
}

impl BothWays {
    pub(super) fn gap_max(&self, start: Instant, end: Instant) -> Duration {
        self.inward.gap_max(start, end).max(self.outward.gap_max(start, end))
    }

    pub(super) fn missing(&self) -> u64 {
        (self.inward.missing().count() + self.outward.missing().count()) as u64
    }

    pub(super) fn doubled(&self) -> u64 {
        self.inward.doubled() + self.outward.doubled()
    }

    pub(super) fn overtaken(&self) -> u64 {
        self.inward.overtaken() + self.outward.overtaken()
    }

    pub(super) fn received(&self) -> usize {
        self.inward.received() + self.outward.received()
    }
}

/// Lets traffic flow for a measured time.
pub(super) fn observe(time: Duration) {
    thread::sleep(time);
}

const LOAD_HOST: u8 = 200;
/// The attacker's port, and its place in the subnet.
const ATTACKER: &str = "evil";
const ATTACKER_HOST: u8 = 66;
/// Every so many packets of the clients are sent again …
const REPEAT_NTH: u64 = 20;
/// … after this time.
const REPEAT_AGE: Duration = Duration::from_millis(100);

/// How many repetitions of one stream an unplanned take-over may let in: those of the packets that came in the last 20 ms
/// before it, whose edge no other node had yet (I3).
pub(super) fn exempt(rate: u32) -> f64 {
    (f64::from(rate) * 0.020 / REPEAT_NTH as f64).ceil()
}
pub(super) const ECHO: SocketAddrV4 = SocketAddrV4::new(SERVER, 7);
const OPEN_LIMIT: Duration = Duration::from_secs(60);
/// A session that answers nothing for this long is lost.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(8);
