//! The node: everything that has sockets, threads and files around the sans-IO engines.

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
