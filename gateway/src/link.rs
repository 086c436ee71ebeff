//! The link between the nodes of a cluster: who they are to each other, and the sessions between them.

pub mod hello;
pub mod identity;
pub mod transport;
