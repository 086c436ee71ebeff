//! What goes into the membership core and what comes out of it.

use std::net::SocketAddr;
use std::sync::Arc;

use wire::{Epoch, Slot, Tenure, Time, WorkSet};

use crate::identity::{Identity, Name, Network, StartId};
use crate::policy::{LoneSurvivor, Policy};
use crate::view::View;

/// What a node knows before it meets anybody.
#[derive(Clone, Debug)]
pub struct Config {
    /// The node's own name, addresses and weight, and the number drawn for this start of the program.
    pub identity: Identity,
    /// The nodes that the configuration names, this one left out. A cluster is founded by more than half of them and
    /// this node together, unless [`LoneSurvivor::Serve`] allows less.
    pub peers: Vec<Peer>,
    /// Version of the cluster configuration.
    pub config_version: u64,
    /// SHA-256 of the cluster configuration.
    pub config_hash: [u8; 32],
    /// What the smaller part of a split does.
    pub lone_survivor: LoneSurvivor,
    /// Waits and bounds.
    pub policy: Policy,
    /// All randomness comes from this.
    pub seed: [u8; 32],
}

/// A node that the configuration names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its name.
    pub name: Name,
    /// Its addresses by network; where it has none it is not asked.
    pub addresses: crate::identity::Addresses,
}

/// Where a datagram goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Destination {
    /// Over which network.
    pub network: Network,
    /// To which address.
    pub to: SocketAddr,
}

/// How a node comes to own a work set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// The cluster was founded; the set has no state yet.
    Founded,
    /// The owner before is silent: this node's copy of the state is the truth now.
    Unplanned,
    /// The owner before has handed over its final state, and the driver has taken it.
    Planned,
}

/// Why a joiner is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It runs another configuration.
    #[error("the cluster runs configuration {ours_version} ({}), this node has {theirs_version} ({}): copy the cluster's configuration here and start again", hex(.ours), hex(.theirs))]
    Configuration {
        /// Version that the cluster runs.
        ours_version: u64,
        /// Hash of what the cluster runs.
        ours: [u8; 32],
        /// Version that the joiner runs.
        theirs_version: u64,
        /// Hash of what the joiner runs.
        theirs: [u8; 32],
    },
    /// A node of the same name is alive.
    #[error(
        "a node named {name} is already a live member at {address}: stop it, or give this node a name and certificate of its own"
    )]
    SameIdentity {
        /// The name.
        name: Name,
        /// Where the first is.
        address: SocketAddr,
    },
    /// It speaks a protocol that the master does not.
    #[error(
        "the cluster speaks protocol version {ours}, this node {theirs}: upgrade the older side by one version at a time"
    )]
    Version {
        /// The master's version.
        ours: u8,
        /// The joiner's version.
        theirs: u8,
    },
    /// All 16 slots are taken.
    #[error("all 16 slots of the cluster are taken")]
    Full,
    /// An application objects.
    #[error("{0}")]
    Veto(String),
}

/// Why a node left its view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaveReason {
    /// A quorum went on without it.
    VotedOut,
    /// Another part of a split cluster goes on: it has more members, or the lower address.
    Healing,
    /// The founding view never came to life.
    FoundingFailed,
}

/// What an operator reads in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Nobody that this node knows answers yet; it waits.
    Alone,
    /// A node asks to join, and may.
    JoinAsked(Name),
    /// This node was refused.
    Refused(Refusal),
    /// Nothing was heard of that member for the detection time.
    Silent(Slot),
    /// That member is asked to stop, because another full member does not hear it or is held up by it.
    Shunned(Slot),
    /// This node goes on without the member of a view of two, or as the smaller part.
    WentOnAlone,
}

/// What membership asks its driver to do, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// This node may send until then: write it to the kernel's fence. It only ever rises.
    Lease(Time),
    /// This view is in force; `own` is this node's slot in it. Goes to replication and transport too.
    View {
        /// The view.
        view: Arc<View>,
        /// This node's slot.
        own: Slot,
    },
    /// The owner of a set as all nodes see it (for hand-on and forwarding; own sets come as `Acquire`).
    Owner {
        /// The set.
        set: WorkSet,
        /// Its owner.
        owner: Slot,
        /// Its owner's epoch.
        epoch: Epoch,
    },
    /// Start to work for a set, under this tenure.
    Acquire {
        /// The set.
        set: WorkSet,
        /// The epoch and slot under which it is held.
        tenure: Tenure,
        /// Where its state comes from.
        how: How,
    },
    /// Stop to work for a set at once; it is lost.
    Release {
        /// The set.
        set: WorkSet,
    },
    /// Planned move, new owner: queue the set's packets, then say [`Membership::handle_prepared`].
    Prepare {
        /// The set.
        set: WorkSet,
        /// The tenure that will follow.
        tenure: Tenure,
        /// Who owns it still.
        from: Slot,
    },
    /// Planned move, old owner: stop the set, empty its queues and send the final state with
    /// [`Replication::hand_over`](crate::Replication::hand_over) to `to` under `tenure`.
    Stop {
        /// The set.
        set: WorkSet,
        /// Who is to own it.
        to: StartId,
        /// The tenure that follows.
        tenure: Tenure,
    },
    /// The queue of a planned move that will not happen: stop to queue and drop.
    Abandon {
        /// The set.
        set: WorkSet,
    },
    /// A node asks to join and fits: find out whether it is who it says, since a request can be repeated, ask the
    /// applications, then say [`Membership::handle_join_verdict`].
    JoinAsked(Identity),
    /// This node is no member any more. All sets are lost; it joins again as `start`.
    Left {
        /// Why.
        reason: LeaveReason,
        /// The start id under which it sends from now on: seal and transport must change with it.
        start: StartId,
    },
    /// Probe the cluster's addresses on every LAN, then say [`Membership::handle_probe`].
    Probe,
    /// Something that an operator wants to read.
    Event(Event),
}

/// What the probes for the cluster's addresses found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// Somebody else holds them.
    Held,
    /// Nobody answers.
    Free,
}

/// Whether the link to the outside is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// Up.
    Up,
    /// Down.
    Down,
}

/// What an operator orders for a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Move all work away from it.
    Drain,
    /// Give it work again.
    Undrain,
}

fn hex(hash: &[u8; 32]) -> String {
    hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}
