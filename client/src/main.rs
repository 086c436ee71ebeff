//! The remote-access client's command: `ccvpn`.

use std::process::ExitCode;

use clap::Parser as _;

mod cli;
mod enroll;
mod fault;
mod home;
mod photo;
mod profile;
mod request;
mod shell;
mod terminal;

fn main() -> ExitCode {
    match cli::Cli::parse().run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("ccvpn: {error:#}");
            fault::exit_code(&error)
        }
    }
}
