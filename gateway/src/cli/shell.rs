//! `cryptocluster completions` and `cryptocluster manual`, from the same definitions as the command itself.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::CommandFactory as _;

use super::{Cli, output};

/// Print completions for a shell.
#[derive(Debug, clap::Args)]
pub(super) struct Completions {
    /// The shell.
    #[arg(value_enum)]
    shell: clap_complete::Shell,
}

/// Write the manual pages.
#[derive(Debug, clap::Args)]
pub(super) struct Manual {
    /// The directory that they are written into.
    directory: PathBuf,
}

impl Completions {
    pub(super) fn run(self) {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "cryptocluster", &mut script);
        output::write(&String::from_utf8_lossy(&script));
    }
}

impl Manual {
    pub(super) fn run(self) -> anyhow::Result<()> {
        std::fs::create_dir_all(&self.directory).with_context(|| format!("make {}", self.directory.display()))?;
        clap_mangen::generate_to(Cli::command(), &self.directory)
            .with_context(|| format!("write manual pages into {}", self.directory.display()))
    }
}
