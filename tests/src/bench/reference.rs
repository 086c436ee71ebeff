//! What the machine gives with strongSwan at both ends, as the yardstick for everything else.

use std::time::Duration;

use anyhow::Result;

use crate::figures::Figures;
use crate::http::{Download, Server};
use crate::pair::StrongSwanPair;

/// Downloads through a pair of strongSwans as fast as it goes.
pub(super) fn run() -> Result<Figures> {
    let mut figures = Figures::new("reference");
    let mut pair = StrongSwanPair::start()?;
    let address = pair.client.connect()?;
    let web = pair.gateway.server_address(8080);
    let _server = Server::start(&pair.gateway.inside, web)?;
    let before = pair.client.process().cpu_time() + pair.gateway.charon.process().cpu_time();
    let outcome = Download::start(&pair.outside, address, web, BYTES, Duration::ZERO)?.finish()?;
    let cpu = pair.client.process().cpu_time() + pair.gateway.charon.process().cpu_time() - before;
    let gigabytes = BYTES as f64 / 1e9;
    figures.add("strongswan_throughput", gigabytes * 8.0 / outcome.took.as_secs_f64(), "Gbit/s", None);
    figures.add("strongswan_cpu_per_gb", cpu.as_secs_f64() / gigabytes, "s/GB", None);
    Ok(figures)
}

const BYTES: u64 = 500_000_000;
