//! Membership: who is in, who may send, who owns what.
//!
//! [`Membership`] is driven by one real-time thread: every datagram that [`seal`](crate::seal) has opened goes into
//! [`Membership::handle_datagram`], the clock into [`Membership::handle_timeout`]; after either, the driver takes all
//! [`Output`]s and all datagrams, then sleeps until [`Membership::poll_timeout`].

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use wire::{Epoch, Slot, Tenure, Time, WorkSet};

use crate::identity::{Identity, Name, Network, StartId};
use crate::policy::{LoneSurvivor, Policy};
use crate::table::Table;
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
    /// A node asks to join.
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
    /// A node asks to join and fits: ask the applications, then say [`Membership::handle_join_verdict`].
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

/// The membership core of one node.
#[derive(Debug)]
pub struct Membership {
    config: Config,
    outputs: VecDeque<Output>,
    lease_until: Time,
    view: Option<Arc<View>>,
    table: Option<Table>,
}

impl Membership {
    /// Starts without a view.
    #[must_use]
    pub fn new(now: Time, config: Config) -> Self {
        Self { config, outputs: VecDeque::new(), lease_until: now, view: None, table: None }
    }

    /// Takes a datagram that the seal has proven to come from `sender`.
    pub fn handle_datagram(&mut self, now: Time, network: Network, from: SocketAddr, sender: StartId, datagram: &[u8]) {
        let _ = (now, network, from, sender, datagram);
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Time) {
        let _ = now;
    }

    /// When [`handle_timeout`](Self::handle_timeout) must be called next.
    #[must_use]
    pub fn poll_timeout(&self) -> Time {
        self.lease_until
    }

    /// Writes the next datagram to send into `buffer` (what it held is dropped) and says where it goes.
    pub fn poll_transmit(&mut self, buffer: &mut Vec<u8>) -> Option<Destination> {
        buffer.clear();
        None
    }

    /// Takes the next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// The applications' answer to [`Output::JoinAsked`].
    pub fn handle_join_verdict(&mut self, now: Time, start: StartId, verdict: Result<(), String>) {
        let _ = (now, start, verdict);
    }

    /// Replication says that the learner `start` holds all that this node owns, and that commits wait for it from now on.
    pub fn handle_counted(&mut self, now: Time, start: StartId) {
        let _ = (now, start);
    }

    /// Replication says that the member `start` does not keep up.
    pub fn handle_slow(&mut self, now: Time, start: StartId) {
        let _ = (now, start);
    }

    /// Planned move, new owner: its packets are queued from now on.
    pub fn handle_prepared(&mut self, now: Time, set: WorkSet) {
        let _ = (now, set);
    }

    /// Planned move, new owner: the final state of `set` has come under `epoch` and is in force.
    pub fn handle_taken(&mut self, now: Time, set: WorkSet, epoch: Epoch) {
        let _ = (now, set, epoch);
    }

    /// The link to the outside went up or down.
    pub fn handle_outside_link(&mut self, now: Time, link: Link) {
        let _ = (now, link);
    }

    /// The answer to [`Output::Probe`].
    pub fn handle_probe(&mut self, now: Time, probe: Probe) {
        let _ = (now, probe);
    }

    /// An operator's order for the member in `slot`, on whichever node it was given.
    pub fn handle_act(&mut self, now: Time, slot: Slot, act: Act) {
        let _ = (now, slot, act);
    }

    /// This node's own name, start id, addresses and weight.
    #[must_use]
    pub const fn identity(&self) -> &Identity {
        &self.config.identity
    }

    /// The view in force; `None` while this node is no member.
    #[must_use]
    pub const fn view(&self) -> Option<&Arc<View>> {
        self.view.as_ref()
    }

    /// The assignment of the work sets, while this node holds it.
    #[must_use]
    pub const fn table(&self) -> Option<&Table> {
        self.table.as_ref()
    }

    /// Until when this node may send.
    #[must_use]
    pub const fn lease_until(&self) -> Time {
        self.lease_until
    }
}

fn hex(hash: &[u8; 32]) -> String {
    hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}
