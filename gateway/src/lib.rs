//! The node: everything that has sockets, threads and files around the sans-IO engines.

pub mod config;
pub mod datapath;
pub mod link;
pub mod logs;
pub mod replicated;
