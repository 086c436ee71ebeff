//! The command line.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use serde::Serialize;

use crate::enroll::Enroll;
use crate::home::Home;
use crate::profile::ProfileVerb;
use crate::request::Request;
use command::output;
use command::shell::{Completions, Manual};

/// The VPN client: gets a certificate by text and keeps what is needed to connect. It does not connect yet.
#[derive(Debug, Parser)]
#[command(name = "ccvpn", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Get a certificate: type the code, send the request, give the reply.
    Enroll(Enroll),
    /// Look at the profiles of this device.
    #[command(subcommand)]
    Profile(ProfileVerb),
    /// Ask for a certificate of plain PKI, without a code.
    Request(Request),
    /// Print completions for a shell.
    Completions(Completions),
    /// Write the manual pages.
    Manual(Manual),
}

/// Where the client's files are, and how to answer.
#[derive(Debug, clap::Args)]
pub(crate) struct Place {
    /// The client's directory.
    #[arg(long, value_name = "DIR")]
    home: Option<PathBuf>,
    /// Answer in JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

impl Place {
    pub(crate) fn home(&self) -> Home {
        Home::of(self.home.as_deref())
    }

    pub(crate) fn show<T: Serialize>(&self, value: &T, text: impl FnOnce(&T)) -> anyhow::Result<()> {
        output::answer(self.json, value, text)
    }
}

impl Cli {
    /// Does what was asked.
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        match self.verb {
            Verb::Enroll(enroll) => enroll.run()?,
            Verb::Profile(verb) => verb.run()?,
            Verb::Request(request) => request.run()?,
            Verb::Completions(completions) => completions.run::<Self>(),
            Verb::Manual(manual) => manual.run::<Self>()?,
        }
        Ok(ExitCode::SUCCESS)
    }
}
