//! `./demo [enroll] [--once] [--json FILE]`
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

/// Shows the cluster at work, until Ctrl-C.
#[derive(Parser)]
#[command(name = "demo")]
struct Arguments {
    /// What to show: the cluster, or with `enroll` a certificate by text (which ends by itself).
    scene: Option<Scene>,
    /// Run the scenario of failures once, and exit with 0 if all went well.
    #[arg(long)]
    once: bool,
    /// Where to write the figures as JSON.
    #[arg(long, value_name = "FILE", requires = "once")]
    json: Option<PathBuf>,
}

/// What to show.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Scene {
    /// A certificate by text, from ticket to revocation.
    Enroll,
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let figures = match arguments.scene {
        Some(Scene::Enroll) => lab::demo::enroll()?,
        None if arguments.once => lab::demo::once()?,
        None => {
            lab::demo::live()?;
            return Ok(ExitCode::SUCCESS);
        }
    };
    if let Some(path) = &arguments.json {
        figures.write(path)?;
    }
    Ok(if figures.all_met() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
