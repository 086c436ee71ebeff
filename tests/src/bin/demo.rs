//! `./demo [--once] [--json FILE]`
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

/// Shows the cluster at work, until Ctrl-C.
#[derive(Parser)]
#[command(name = "demo")]
struct Arguments {
    /// Run the scenario of failures once, and exit with 0 if all went well.
    #[arg(long)]
    once: bool,
    /// Where to write the figures as JSON.
    #[arg(long, value_name = "FILE", requires = "once")]
    json: Option<PathBuf>,
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    if !arguments.once {
        lab::demo::live()?;
        return Ok(ExitCode::SUCCESS);
    }
    let figures = lab::demo::once()?;
    if let Some(path) = &arguments.json {
        figures.write(path)?;
    }
    Ok(if figures.all_met() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
