//! `./demo [--once] [--json FILE]`
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

/// Shows the cluster at work.
#[derive(Parser)]
#[command(name = "demo")]
struct Arguments {
    /// Run the scenario once and exit with 0 if all went well.
    #[arg(long)]
    once: bool,
    /// Where to write the figures as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    anyhow::ensure!(arguments.once, "only ./demo --once works so far");
    let figures = lab::demo::once()?;
    if let Some(path) = &arguments.json {
        figures.write(path)?;
    }
    Ok(if figures.all_met() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
