//! The node: everything that has sockets, threads and files around the sans-IO engines.

// What is said goes through `cli::output`, which outlives its reader.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

pub mod api;
pub mod cli;
pub mod config;
pub mod datapath;
pub mod dispatch;
pub mod fault;
pub mod link;
pub mod logs;
pub mod node;
pub mod replicated;
