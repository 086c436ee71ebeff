//! The node and the operator's command.

use std::process::ExitCode;

fn main() -> ExitCode {
    gateway::cli::main()
}
