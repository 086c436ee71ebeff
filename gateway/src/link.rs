//! The link between the nodes of a cluster: it drives the membership and replication cores of the `cluster` crate.
//!
//! Two threads. [`realtime`] owns membership, the keepalives and the kernel's fence, and waits for nobody. [`control`]
//! owns replication and the sessions with the neighbours; the node's runtime speaks with it through [`Handle`] and
//! [`Event`].

pub mod control;
pub mod hello;
pub mod identity;
mod keys;
pub mod lan;
pub mod realtime;
pub mod transport;

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use cluster::membership::{Act, How, Link, Probe};
use cluster::replication::Bounds;
use cluster::{LoneSurvivor, Name, Network, Policy, StartId, View, membership};
use tokio::sync::{mpsc, oneshot};
use wire::{Change, CommitId, Epoch, RecordId, RecordKind, Secret, Slot, Tenure, Time, WorkSet};

use self::control::{Command, Control};
use self::hello::Refused;
use self::identity::Identity;
use self::realtime::thread::Scheduling;
use self::realtime::{Hooks, LeaseEnd, Report};

/// A member of the cluster besides this node.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its name, as its certificate states it.
    pub name: String,
    /// Its own address in each network, in the order of [`Config::networks`].
    pub addresses: Vec<Option<IpAddr>>,
}

/// What the link must know.
#[derive(Clone, Debug)]
pub struct Config {
    /// The cluster's name.
    pub cluster: String,
    /// This node's name, as its certificate states it.
    pub name: String,
    /// Version of the cluster's configuration.
    pub configuration_version: u64,
    /// SHA-256 of the cluster's configuration.
    pub configuration_hash: [u8; 32],
    /// This node's own address in each network, the cluster network first.
    pub networks: Vec<IpAddr>,
    /// All others.
    pub members: Vec<Member>,
    /// UDP port of the sessions; the keepalives use the next one.
    pub port: u16,
    /// This node's capacity in relation to the others'; at least 1.
    pub weight: u16,
    /// What the smaller part of a split does.
    pub lone_survivor: LoneSurvivor,
    /// Waits and bounds of membership.
    pub policy: Policy,
    /// Bounds of replication.
    pub bounds: Bounds,
    /// Kinds of records that dispatch needs: they go through [`Apply`].
    pub applied: Vec<RecordKind>,
}

/// Puts a changed record into the dispatch tables; called on the control thread before the change is acknowledged, for
/// the records of all owners, this node's included.
pub type Apply = Box<dyn FnMut(RecordId, &Change) + Send>;

/// Octets that [`Handle::hand_over`] takes: they go in one message, behind others.
pub const HAND_OVER_MAX: usize = transport::MESSAGE_MAX / 4 * 3;

/// Who put a record: each counts its commits alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Engine(pub u8);

/// The records of one work set.
pub type Records = Vec<(RecordId, Box<[u8]>)>;

/// What the node's runtime is told, in order.
#[derive(Debug)]
pub enum Event {
    /// A view is in force, or `None`: this node is in none, and owns nothing.
    View(Option<CurrentView>),
    /// This node owns the set: take the records over and work. After a planned move they have come with
    /// [`Event::HandOver`] already, and `records` is empty.
    Acquire {
        /// The set.
        set: WorkSet,
        /// The epoch and slot under which it is held.
        tenure: Tenure,
        /// Where its state comes from.
        how: How,
        /// The state.
        records: Records,
    },
    /// The set is lost: stop at once, drop what waits for a commit of it.
    Release(WorkSet),
    /// Planned move to this node: queue the set's packets, then say [`Handle::prepared`].
    Prepare {
        /// The set.
        set: WorkSet,
        /// The tenure that will follow.
        tenure: Tenure,
        /// Who owns it still.
        from: Slot,
        /// The state so far: enough to know whose packets are to be queued.
        records: Records,
    },
    /// Planned move away: stop the set, empty its queues, say [`Handle::hand_over`].
    Stop {
        /// The set.
        set: WorkSet,
        /// To whom it goes.
        to: StartId,
        /// The tenure that follows.
        tenure: Tenure,
    },
    /// Planned move to this node: the final state. Import it, then say [`Handle::taken`]; work begins with
    /// [`Event::Acquire`].
    HandOver {
        /// The set.
        set: WorkSet,
        /// The tenure that follows.
        tenure: Tenure,
        /// All records.
        records: Records,
        /// What the old owner said with [`Handle::hand_over`].
        state: Vec<u8>,
    },
    /// The queue of a planned move that will not happen.
    Abandon(WorkSet),
    /// All that this engine put up to here is held by every full member, but for sets that were released since.
    Committed(Engine, CommitId),
    /// A packet for a set of this node reached another one.
    HandedOn {
        /// The set.
        set: WorkSet,
        /// The packet, as the other side's runtime gave it.
        packet: Vec<u8>,
    },
    /// Another node's runtime, or this one's own, said something with [`Handle::ask`] or [`Handle::say`].
    Said {
        /// Who.
        from: StartId,
        /// What.
        word: Vec<u8>,
    },
    /// The cluster's addresses must be looked for on every LAN: say [`Handle::probed`].
    Probe,
    /// Something for the log.
    Note(Note),
}

/// Something for the log.
#[derive(Debug)]
pub enum Note {
    /// What membership says.
    Membership(membership::Event),
    /// This node is in no view any more.
    Left(membership::LeaveReason),
    /// A session with that member began.
    Connected {
        /// Its name.
        name: String,
        /// Its address.
        address: SocketAddr,
    },
    /// It ended.
    Disconnected {
        /// Its name.
        name: String,
        /// Why.
        why: Refused,
    },
    /// None could be formed.
    Refused {
        /// With that member, if known.
        name: Option<String>,
        /// At that address.
        address: Option<SocketAddr>,
        /// Why.
        why: Refused,
    },
}

/// A view, and this node's place in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CurrentView {
    /// The view.
    pub view: Arc<View>,
    /// This node's slot.
    pub own: Slot,
}

/// How the link stands, for the API.
#[derive(Clone, Debug)]
pub struct Status {
    /// Whether the keepalives' thread is real-time.
    pub scheduling: Scheduling,
    /// What that thread reported last.
    pub report: Report,
    /// Until when this node may send.
    pub lease_until: Time,
    /// The neighbours.
    pub neighbours: Vec<NeighbourStatus>,
    /// Changes put here that some full member does not hold yet.
    pub uncommitted: u64,
    /// Sessions that were refused, for each reason.
    pub refusals: Vec<(&'static str, u64)>,
}

/// How a neighbour stands.
#[derive(Clone, Debug)]
pub struct NeighbourStatus {
    /// Its name.
    pub name: String,
    /// The session with it.
    pub session: Option<transport::SessionStatus>,
}

/// The running link.
#[derive(Debug)]
pub struct ClusterLink {
    handle: Handle,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// What the node's runtime tells the link. Cheap to clone; nothing blocks.
#[derive(Clone, Debug)]
pub struct Handle {
    commands: mpsc::UnboundedSender<Command>,
    status: Arc<Mutex<Status>>,
    lease: LeaseEnd,
}

impl ClusterLink {
    /// Opens the sockets and starts both threads.
    ///
    /// # Errors
    /// The identity does not fit the name, an address cannot be bound, or a name is unusable.
    pub fn start(
        config: Config,
        identity: &Identity,
        hooks: Hooks,
        apply: Apply,
        events: mpsc::UnboundedSender<Event>,
    ) -> anyhow::Result<Self> {
        let start = StartId(random()?);
        let membership = membership_config(&config, start)?;
        let keys = keys::Keys::new(random()?, Secret::from_slice(&random_bytes::<32>()?));
        let (notices, inbox) = mpsc::unbounded_channel();
        let realtime = realtime::RealTime::start(membership, keys.group(), hooks, notices)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the link")?;
        let (session, session_events) = {
            let _inside = runtime.enter();
            transport::Transport::start(transport_config(&config, start), identity)?
        };
        let lease = realtime.lease();
        let status = Arc::new(Mutex::new(Status {
            scheduling: realtime.scheduling,
            report: Report::default(),
            lease_until: Time::ZERO,
            neighbours: Vec::new(),
            uncommitted: 0,
            refusals: Vec::new(),
        }));
        let (commands, orders) = mpsc::unbounded_channel();
        let control = Control::new(config, start, realtime, session, keys, apply, events, Arc::clone(&status));
        let thread = std::thread::Builder::new().name("link".into()).spawn(move || {
            runtime.block_on(control.run(inbox, session_events, orders));
        });
        let thread = Some(thread.context("start the link's thread")?);
        Ok(Self { handle: Handle { commands, status, lease }, thread })
    }

    /// What the runtime speaks through.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }
}

#[cfg(test)]
impl ClusterLink {
    /// Ends as a killed program does: nobody is told.
    fn kill(mut self) {
        self.handle.command(Command::Die);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for ClusterLink {
    fn drop(&mut self) {
        self.handle.command(Command::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Handle {
    /// Changes a record of a set that this node owns; [`Event::Committed`] tells when all full members hold it. Numbers
    /// of one engine rise. A change of a set that this node does not own (any more) is dropped.
    pub fn put(&self, engine: Engine, commit: CommitId, id: RecordId, change: Change) {
        self.command(Command::Put { engine, commit, id, change });
    }

    /// Planned move to this node: the set's packets are queued from now on, for the move that [`Event::Prepare`] announced
    /// under `epoch`.
    pub fn prepared(&self, set: WorkSet, epoch: Epoch) {
        self.command(Command::Prepared(set, epoch));
    }

    /// Planned move away: the set is stopped, and this is its final state besides the records, [`HAND_OVER_MAX`] octets at
    /// most.
    pub fn hand_over(&self, set: WorkSet, to: StartId, tenure: Tenure, state: Vec<u8>) {
        self.command(Command::HandOver { set, to, tenure, state });
    }

    /// Planned move to this node: the final state is imported.
    pub fn taken(&self, set: WorkSet, epoch: Epoch) {
        self.command(Command::Taken(set, epoch));
    }

    /// Sends a packet to the owner of `set`, unless that is unknown or too much waits for it already.
    pub fn hand_on(&self, set: WorkSet, packet: Vec<u8>) {
        self.command(Command::HandOn(set, packet));
    }

    /// Says something to the runtime of the node that owns `set`, which may be this one. Lost if there is none, or on
    /// its way to a node that dies.
    pub fn ask(&self, set: WorkSet, word: Vec<u8>) {
        self.command(Command::Ask(set, word));
    }

    /// Says something to the runtime of that node.
    pub fn say(&self, to: StartId, word: Vec<u8>) {
        self.command(Command::Say(to, word));
    }

    /// The records of `set` as this node holds them, whoever owns it; `None` once the link has ended.
    pub async fn records(&self, set: WorkSet) -> Option<Records> {
        let (answer, answered) = oneshot::channel();
        self.command(Command::Records { set, answer });
        answered.await.ok()
    }

    /// The outside link went up or down.
    pub fn outside_link(&self, link: Link) {
        self.command(Command::OutsideLink(link));
    }

    /// The answer to [`Event::Probe`].
    pub fn probed(&self, probe: Probe) {
        self.command(Command::Probed(probe));
    }

    /// Gives an operator's order for the member of that name, from whichever node.
    ///
    /// # Errors
    /// There is no such member, or this node is in no view.
    pub async fn act(&self, name: &str, act: Act) -> Result<(), ActError> {
        let (answer, answered) = oneshot::channel();
        self.command(Command::Act { name: name.into(), act, answer });
        answered.await.unwrap_or(Err(ActError::NoView))
    }

    /// How many records of a kind each work set has, as this node holds them; `None` once the link has ended.
    pub async fn tally(&self, kind: RecordKind) -> Option<Vec<(WorkSet, usize)>> {
        let (answer, answered) = oneshot::channel();
        self.command(Command::Tally { kind, answer });
        answered.await.ok()
    }

    /// How the link stands.
    #[must_use]
    pub fn status(&self) -> Status {
        // The rest is told ten times a second; a lease lasts less than that.
        let lease_until = self.lease.time();
        Status { lease_until, ..self.status.lock().unwrap_or_else(PoisonError::into_inner).clone() }
    }

    fn command(&self, command: Command) {
        // Fails only once the link has ended, and then nothing is left to tell.
        let _ = self.commands.send(command);
    }
}

/// Why an operator's order was not given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ActError {
    /// This node is in no view.
    #[error("this node is not in the cluster now: ask another node")]
    NoView,
    /// No member has that name.
    #[error(
        "{0} is not in the cluster now and owns nothing: nothing is to be moved. If it should be in, look whether it runs, and at \
         its log"
    )]
    Unknown(String),
}

fn membership_config(config: &Config, start: StartId) -> anyhow::Result<membership::Config> {
    let name = |name: &str| Name::new(name).with_context(|| format!("the name {name:?}"));
    let addresses = |list: &mut dyn Iterator<Item = Option<IpAddr>>| {
        let mut addresses = cluster::Addresses::default();
        for (place, address) in addresses.iter_mut().zip(list) {
            *place = address.map(|ip| SocketAddr::new(ip, config.port + 1));
        }
        addresses
    };
    anyhow::ensure!(
        (1..=Network::COUNT).contains(&config.networks.len()),
        "a node has 1 to {} networks to its neighbours",
        Network::COUNT
    );
    let own = addresses(&mut config.networks.iter().copied().map(Some));
    let peers = config.members.iter().map(|member| {
        let addresses = addresses(&mut member.addresses.iter().copied());
        Ok(membership::Peer { name: name(&member.name)?, addresses })
    });
    Ok(membership::Config {
        identity: cluster::Identity { name: name(&config.name)?, start, addresses: own, weight: config.weight },
        peers: peers.collect::<anyhow::Result<_>>()?,
        config_version: config.configuration_version,
        config_hash: config.configuration_hash,
        lone_survivor: config.lone_survivor,
        policy: config.policy.clone(),
        seed: random_bytes()?,
    })
}

fn transport_config(config: &Config, start: StartId) -> transport::Config {
    let session = |ip: &IpAddr| SocketAddr::new(*ip, config.port);
    let neighbours = config.members.iter().map(|member| transport::Neighbour {
        name: member.name.clone(),
        addresses: member.addresses.iter().map(|address| address.as_ref().map(session)).collect(),
    });
    transport::Config {
        cluster: config.cluster.clone(),
        name: config.name.clone(),
        start: start.0,
        configuration: config.configuration_hash,
        networks: config.networks.iter().map(session).collect(),
        neighbours: neighbours.collect(),
    }
}

fn random_bytes<const N: usize>() -> anyhow::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("draw random octets: {error}"))?;
    Ok(bytes)
}

fn random() -> anyhow::Result<u64> {
    Ok(u64::from_be_bytes(random_bytes()?))
}

#[cfg(test)]
mod tests;
