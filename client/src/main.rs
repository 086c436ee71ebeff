//! The remote-access client's command: `ccvpn`.

// What is said goes through `output`, which outlives its reader.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

use std::process::ExitCode;

mod cli;
mod enroll;
mod fault;
mod home;
mod photo;
mod profile;
mod request;
mod terminal;

fn main() -> ExitCode {
    command::program::run(cli::Cli::run, fault::exit_code)
}
