//! The two configuration files: `node.toml`, what only this node knows, and `cluster.toml`, what all nodes share.
//!
//! Every refusal names file, line, column and field, and says what is allowed. Secrets stand in files of their own.

mod cluster;
mod document;
mod node;
mod values;

pub use cluster::{Cluster, ConfigHash, LoneSurvivor, Member, Pool, Secrets};
pub use document::ConfigError;
pub use node::{Interface, Membership, Node, Tun};
pub use values::InterfaceAddress;
pub(crate) use values::{spell_esp, spell_ike};

#[cfg(test)]
mod tests;
