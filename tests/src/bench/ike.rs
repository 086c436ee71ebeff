//! What a login costs the responder: our gateway and Debian's strongSwan, under the same initiator.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::cluster::{Cluster, GATEWAY_ID, OUTSIDE_ADDRESS};
use crate::figures::{Bound, Figures, median};
use crate::load::{Load, LoadSettings, Proof};
use crate::namespace::Namespace;
use crate::pair::{Method, StrongSwanGateway};
use crate::pki::{Certificate, KeyKind};
use crate::process::Process;
use crate::strongswan::Log;

/// Opens sessions against both, in turn, and compares processor time and memory.
pub(super) fn run() -> Result<Figures> {
    let mut figures = Figures::new("ike");
    for (method, bar) in [(Method::PreSharedKey, 3.0), (Method::Ecdsa, 2.5)] {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for pair in 1..=PAIRS {
            let own = Gateway::start_ours()?.cost(method, SESSIONS)?;
            let peer = Gateway::start_strongswan(method)?.cost(method, SESSIONS)?;
            println!("  {} pair {pair}: {:.3} ms and {:.3} ms", method.name(), own.cpu_ms, peer.cpu_ms);
            ours.push(own.cpu_ms);
            theirs.push(peer.cpu_ms);
        }
        let (own, peer) = (median(&ours), median(&theirs));
        let name = method.name();
        figures.compare(&format!("{name}_cpu_per_sa"), own, "ms", PEER, peer, peer / own, None);
        figures.add(&format!("{name}_ratio"), peer / own, "", Some(Bound::AtLeast(bar)));
    }
    let own = Gateway::start_ours()?.cost(Method::PreSharedKey, SESSIONS_LARGE)?.kib;
    let peer = Gateway::start_strongswan(Method::PreSharedKey)?.cost(Method::PreSharedKey, SESSIONS)?.kib;
    figures.compare("rss_kb_per_sa", own, "KiB", PEER, peer, peer / own, None);
    figures.add("rss_kb_per_sa_at_10000", own, "KiB", Some(Bound::AtMost(8.0)));
    Ok(figures)
}

impl Method {
    const fn name(self) -> &'static str {
        match self {
            Self::PreSharedKey => "psk",
            Self::Ecdsa => "ecdsa",
        }
    }
}

/// What one session costs the responder.
struct Cost {
    cpu_ms: f64,
    kib: f64,
}

/// A gateway, and a place outside for the initiators.
struct Gateway {
    outside: Namespace,
    client: Certificate,
    authority: String,
    responder: Responder,
}

enum Responder {
    Ours(Box<Cluster>),
    StrongSwan(Box<StrongSwanGateway>),
}

impl Gateway {
    fn start_ours() -> Result<Self> {
        let mut cluster = Box::new(Cluster::build(1)?);
        cluster.start()?;
        let outside = cluster.outside_host("load", 200)?;
        let client = cluster.authority().issue(CLIENT_ID, KeyKind::EcdsaP256, &[])?;
        let authority = cluster.authority().pem();
        Ok(Self { outside, client, authority, responder: Responder::Ours(cluster) })
    }

    fn start_strongswan(method: Method) -> Result<Self> {
        let gateway = Box::new(StrongSwanGateway::start("*.lab.test", method, Log::Nothing)?);
        let outside = gateway.outside_host("load", 200)?;
        let (client, authority) = (gateway.issue(CLIENT_ID)?, gateway.authority());
        Ok(Self { outside, client, authority, responder: Responder::StrongSwan(gateway) })
    }

    fn cost(mut self, method: Method, sessions: usize) -> Result<Cost> {
        let secret = match &self.responder {
            Responder::Ours(cluster) => cluster.pre_shared_key(),
            Responder::StrongSwan(_) => StrongSwanGateway::SECRET,
        };
        let settings = LoadSettings {
            local: CLIENT_ADDRESS,
            gateway: OUTSIDE_ADDRESS,
            gateway_id: GATEWAY_ID,
            local_id: match method {
                Method::PreSharedKey => "load-*.lab.test",
                Method::Ecdsa => CLIENT_ID,
            },
            proof: match method {
                Method::PreSharedKey => Proof::PreSharedKey(secret),
                Method::Ecdsa => Proof::Ecdsa { own: &self.client, authority: &self.authority },
            },
        };
        let load = Load::start(&self.outside, &settings)?;
        // The first login pays for what is made once.
        load.open(1, 1, LIMIT)?;
        let process = self.process()?;
        let (cpu, kib) = (process.cpu_time(), process.resident_kib());
        load.open(sessions, AT_ONCE, LIMIT)?;
        let process = self.process()?;
        let (cpu, grown) = (process.cpu_time() - cpu, process.resident_kib().saturating_sub(kib));
        let each = sessions as f64;
        Ok(Cost { cpu_ms: cpu.as_secs_f64() * 1e3 / each, kib: grown as f64 / each })
    }

    fn process(&mut self) -> Result<&mut Process> {
        match &mut self.responder {
            Responder::Ours(cluster) => cluster.node("n1")?.process().context("the gateway does not run"),
            Responder::StrongSwan(gateway) => Ok(gateway.charon.process()),
        }
    }
}

const PAIRS: usize = 5;
const SESSIONS: usize = 1_000;
const SESSIONS_LARGE: usize = 10_000;
const AT_ONCE: usize = 50;
const LIMIT: Duration = Duration::from_secs(120);
const PEER: &str = "strongSwan";
const CLIENT_ID: &str = "load.lab.test";
const CLIENT_ADDRESS: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 200);
