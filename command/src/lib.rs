//! What the commands `cryptocluster` and `ccvpn` have in common.

#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

pub mod output;
pub mod program;
pub mod shell;
