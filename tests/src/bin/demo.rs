//! `./demo [enroll|clean] [--once] [--json FILE]`
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

/// Shows the cluster at work, until Ctrl-C.
#[derive(Parser)]
#[command(name = "demo")]
struct Arguments {
    /// What to show: the cluster, or with `enroll` a certificate by text (which ends by itself). `clean` only cleans up.
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
    /// Nothing: remove what demos, benches and tests have left behind that were killed. The next one does the same.
    Clean,
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let figures = match arguments.scene {
        Some(Scene::Enroll) => lab::demo::enroll()?,
        Some(Scene::Clean) => {
            match lab::sweep().len() {
                0 => println!("nothing was left behind"),
                labs => println!("removed what {labs} killed runs had left behind"),
            }
            return Ok(ExitCode::SUCCESS);
        }
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
