//! The node: everything that has sockets, threads and files around the sans-IO engines.

pub mod datapath;
pub mod link;
