//! Completions and manual pages, from the same definitions as the command itself.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::CommandFactory;

use crate::output;

/// Print completions for a shell.
#[derive(Debug, clap::Args)]
pub struct Completions {
    /// The shell.
    #[arg(value_enum)]
    shell: clap_complete::Shell,
}

/// Write the manual pages.
#[derive(Debug, clap::Args)]
pub struct Manual {
    /// The directory that they are written into.
    directory: PathBuf,
}

impl Completions {
    /// Prints the script for the command `C`.
    pub fn run<C: CommandFactory>(self) {
        let (mut command, mut script) = (C::command(), Vec::new());
        let name = command.get_name().to_owned();
        clap_complete::generate(self.shell, &mut command, name, &mut script);
        output::write(&String::from_utf8_lossy(&script));
    }
}

impl Manual {
    /// Writes the pages of the command `C`.
    ///
    /// # Errors
    /// The directory cannot be made or written.
    pub fn run<C: CommandFactory>(self) -> anyhow::Result<()> {
        std::fs::create_dir_all(&self.directory).with_context(|| format!("make {}", self.directory.display()))?;
        clap_mangen::generate_to(C::command(), &self.directory)
            .with_context(|| format!("write manual pages into {}", self.directory.display()))
    }
}
