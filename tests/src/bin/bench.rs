//! `./bench NAME [--json FILE]`
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

/// Runs one benchmark and prints its figures. Exits with 1 if a bar is missed.
#[derive(Parser)]
#[command(name = "bench")]
struct Arguments {
    /// Which one.
    #[arg(value_parser = clap::builder::PossibleValuesParser::new(lab::bench::NAMES))]
    name: String,
    /// Where to write the figures as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let figures = lab::bench::run(&arguments.name, arguments.json.as_deref())?;
    Ok(if figures.all_met() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
