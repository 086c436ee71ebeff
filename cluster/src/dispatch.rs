//! The dispatch rule: which node of the cluster takes a packet, and whether it may speak in the cluster's name.
//!
//! The kernel runs it as `cluster/bpf/dispatch.bpf.c`; this is the same rule in Rust. The gateway uses it to place new
//! work ([`HashKey::home_of_new_ike`]), to say what happens to a packet and why, and to find the owner of a packet that
//! only a kernel's reassembly made readable ([`Tables::datagram`], [`Tables::packet`]). A test feeds both the same packets.
//!
//! | packet | taken by |
//! |---|---|
//! | ESP, AH, also in UDP 4500 | owner of the low 10 bits of the SPI |
//! | IKEv2 | owner of the low 10 bits of our SPI; before we chose one, of a keyed hash of theirs and their address |
//! | L2TP, GRE of PPTP | owner of the low 10 bits of the tunnel or call id; L2TP without one: as a service |
//! | TCP, UDP to a service | owner of a keyed hash of source address and port |
//! | TCP, UDP to a port that we asked from | owner of the low 10 bits of that port |
//! | routed, for an inner address | owner of the work set that the inner table names |
//! | routed, other; ICMP echo; ARP | owner of a keyed hash of both addresses, whichever comes first |
//! | ICMP errors; fragments except TCP's | every node |

mod arp;
mod egress;
mod hash;
mod ingress;
mod reason;
mod tables;

pub use egress::Origin;
pub use hash::HashKey;
pub use ingress::Verdict;
pub use reason::{Action, Reason};
pub use tables::{
    ClusterAddress, Inner, InnerTable, Owner, Port, PortUse, Protocols, Side, SideConfig, Subnet, Tables,
};

#[cfg(test)]
mod tests;
