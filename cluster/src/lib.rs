//! Who is in the cluster, who owns which share of the work, and who holds whose state.
//!
//! Two deterministic cores without sockets, clocks or threads, and the packet filter's rules:
//!
//! * [`Membership`]: views, leases, election, the owner of each work set, planned and unplanned moves. A real-time
//!   thread drives it, because the lease in the kernel lives on its keepalives.
//! * [`Replication`]: records, streams, snapshots and output commit. It runs off the real-time thread.
//! * [`dispatch`]: which node takes a packet; the twin of the BPF program in `cluster/bpf`.
//! * [`seal`]: the protection of every membership datagram under the group key.
//!
//! Both cores are driven alike: `handle_*(now, …)`, then take everything from `poll_output` (and, for membership,
//! `poll_transmit`), then sleep until `poll_timeout`. `README.md` has the protocol on one page.

#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::as_conversions, clippy::panic)
)]

mod datagram;
pub mod dispatch;
mod identity;
pub mod membership;
mod policy;
pub mod replication;
pub mod seal;
mod slots;
mod table;
mod view;

pub use identity::{Addresses, Identity, Name, NameError, Network, StartId};
pub use membership::{Config, Membership};
pub use policy::{LoneSurvivor, Policy, SKEW};
pub use replication::Replication;
pub use slots::{SlotMap, SlotMask};
pub use table::{Assignment, Handoff, Table, TableVersion};
pub use view::{Absentee, Member, Role, View, ViewId};
