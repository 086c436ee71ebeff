//! What `./demo` shows.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::figures::{Bound, Figures};
use crate::http::{Download, Server, expected_sha256};
use crate::pair::StrongSwanPair;

/// Downloads through strongSwan at both ends. No part of the cluster takes part yet, and the report says so.
///
/// # Errors
/// The lab cannot be built, the download fails, or a figure misses its bar.
pub fn once() -> Result<Figures> {
    println!("The gateway is not in this picture yet: strongSwan stands in its place, to show that the lab works.");
    let mut figures = Figures::new("demo-strongswan-pair");
    let pair = StrongSwanPair::start()?;
    let address = pair.client.connect()?;
    println!("strongSwan is connected and was given {address}");
    let _server = Server::start(&pair.inside, pair.server_address())?;
    let outcome =
        Download::start(&pair.outside, address, pair.server_address(), BYTES, Duration::from_secs(3))?.finish()?;
    ensure!(outcome.sha256 == expected_sha256(BYTES), "the download arrived damaged");
    let history = pair.client.history();
    figures.add("download_bytes", outcome.bytes as f64, "B", Some(Bound::AtLeast(BYTES as f64)));
    figures.add("longest_gap", outcome.gap_max.as_secs_f64() * 1e3, "ms", None);
    figures.add("logins", history.ike_auth as f64, "", Some(Bound::AtMost(1.0)));
    Ok(figures)
}

const BYTES: u64 = 15_000_000;
