//! The node and the operator's command.

use std::process::ExitCode;

use clap::Parser;
use gateway::cli::Cli;
use gateway::fault;

fn main() -> ExitCode {
    match Cli::parse().run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("cryptocluster: {}", fault::sentence(&error));
            fault::exit_code(&error)
        }
    }
}
