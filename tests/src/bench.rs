//! The benchmarks: each runs us and the peer in turn, and prints medians, ratios and the bars that they have to meet.

use std::path::Path;

use anyhow::Result;

use crate::figures::Figures;

/// The names that [`run`] knows.
pub const NAMES: [&str; 7] = ["dispatch", "drain", "enroll", "esp", "failover", "ike", "reference"];

/// Runs the benchmark `name`, prints its figures and writes them to `json`.
///
/// # Errors
/// There is no such benchmark, or it could not be carried out. A missed bar is no error: see [`Figures::all_met`].
pub fn run(name: &str, json: Option<&Path>) -> Result<Figures> {
    let figures = match name {
        "dispatch" => dispatch::run()?,
        "drain" => failover::drains()?,
        "enroll" => enroll::run()?,
        "esp" => esp::run()?,
        "failover" => failover::run()?,
        "ike" => ike::run()?,
        "reference" => reference::run()?,
        _ => anyhow::bail!("there is no benchmark {name:?}; there are: {}", NAMES.join(", ")),
    };
    if let Some(path) = json {
        figures.write(path)?;
    }
    Ok(figures)
}

mod dispatch;
mod enroll;
mod esp;
mod failover;
mod ike;
mod reference;
