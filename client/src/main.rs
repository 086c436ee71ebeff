//! The remote-access client's command: `ccvpn`.

// What is said goes through `output`, which outlives its reader.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

use std::process::ExitCode;

use clap::Parser as _;

mod cli;
mod enroll;
mod fault;
mod home;
mod photo;
mod profile;
mod request;
mod terminal;

fn main() -> ExitCode {
    let done = cli::Cli::parse().run().and_then(|code| command::output::check().map(|()| code));
    done.unwrap_or_else(|error| {
        command::output::tell(&format!("ccvpn: {error:#}"));
        fault::exit_code(&error)
    })
}
