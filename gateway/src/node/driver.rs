//! The task that carries things between IKE, the datapath and replication. It alone owns the IKE engine, so nothing here is
//! locked.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use auth::Identity;
use cluster::dispatch::HashKey;
use crypto::{KeyKind, SignatureScheme, SigningKey};
use esp::{InboundEdges, Initial, LEASE_MIN, OutboundLease, Start};
use ike::{ChildSa, Endpoint, NoAddress, Output, Path, RequestId, Role, SignError};
use tokio::sync::mpsc;
use tracing::{debug, error, warn};
use wire::{Change, CommitId, Prefix, Record, RecordId, RecordKind, Spi, Tenure, Time, UnknownFields, WorkSet};

use super::pool::{Given, Pool};
use super::replicas::{Held, Waiting};
use super::sessions::Sessions;
use super::tidings::Tidings;
use super::wall_time;
use crate::config::Cluster;
use crate::datapath::{self, Datapath, SaPair};
use crate::dispatch::Dispatch;
use crate::link;
use crate::link::lan::Lan;
use crate::link::realtime::thread::boot_time;
use crate::replicated::inner::InnerPrefixes;
use crate::replicated::words::Stray;

mod addresses;
mod ask;
mod gather;
mod moves;
mod moves_in;
mod outputs;

pub(super) use ask::Ask;
pub(super) use gather::Moved;

use addresses::Questions;
use gather::Gathering;
use moves::Stopped;
use moves_in::MovesIn;

/// The state behind everything that a peer sees of this node.
pub(super) struct Driver {
    name: String,
    cluster: Arc<Cluster>,
    endpoint: Endpoint,
    datapath: Arc<Datapath>,
    hash: HashKey,
    tenures: HashMap<WorkSet, Tenure>,
    waiting: Waiting,
    /// The last number that replication gave.
    last_commit: CommitId,
    children: HashMap<Spi, Child>,
    edges: HashMap<WorkSet, InboundEdges>,
    /// How many pairs of each set carry an inner prefix.
    carried: HashMap<(WorkSet, Prefix), usize>,
    pools: BTreeMap<String, Pool>,
    questions: Questions,
    sessions: Sessions,
    answers: mpsc::UnboundedSender<Answer>,
    answered: Option<mpsc::UnboundedReceiver<Answer>>,
    /// The other nodes; `None` if this one runs alone.
    link: Option<link::Handle>,
    view: Option<link::CurrentView>,
    inner: Arc<Mutex<InnerPrefixes>>,
    /// Where somebody else could hold the cluster's addresses.
    lans: Vec<Lan>,
    /// The filter, for what it counts.
    dispatch: Option<Arc<Dispatch>>,
    /// Sets that are to move here.
    moves_in: MovesIn,
    /// Sets that went, until packets on their way through this node are gone, too.
    outgoing: Vec<(Time, WorkSet)>,
    /// When the pools are next looked through for addresses that nobody uses.
    reclaim_at: Time,
    /// Questions to all members, and how many there were.
    gatherings: Vec<Gathering>,
    gathered: u64,
    tidings: Tidings,
    strays: Strays,
    started: Time,
}

/// Packets of which this node has no pair, counted.
#[derive(Clone, Copy, Debug, Default)]
struct Strays {
    /// Sent to the owner of their set.
    handed_on: u64,
    /// Taken in for another node.
    taken: u64,
    /// Of a set of this node's own, or one that moves here and can queue no more, or nobody's; or taken in for a set that has
    /// gone, unreadable, or without room.
    dropped: u64,
}

/// A pair of ESP SAs that is installed or about to be.
struct Child {
    initial: Initial,
}

/// What a thread answers that did something which takes too long for this task.
enum Answer {
    Signed(RequestId, Result<Vec<u8>, SignError>),
    Stopped(Stopped),
    Unclaimed(String, Given),
    Waited(WorkSet, anyhow::Result<()>),
}

/// What the driver listens to.
pub(super) struct Inputs {
    /// IKE datagrams and strangers: as many as fit, the rest is lost as on any network.
    pub(super) datagrams: mpsc::Receiver<datapath::Event>,
    /// Everything else that the workers notice; the number of SAs bounds it.
    pub(super) events: mpsc::UnboundedReceiver<datapath::Event>,
    /// Questions of the operator.
    pub(super) asks: mpsc::Receiver<Ask>,
    /// What the cluster link tells, until it ends; not listened to if the node runs alone.
    pub(super) cluster: mpsc::UnboundedReceiver<link::Event>,
}

impl Driver {
    /// Starts without a work set.
    pub(super) fn new(
        name: &str,
        cluster: Arc<Cluster>,
        datapath: Arc<Datapath>,
        inner: Arc<Mutex<InnerPrefixes>>,
        seed: [u8; 32],
    ) -> Self {
        let endpoint = Endpoint::new(Arc::clone(&cluster.ike), seed);
        let pools = cluster.pools.iter().map(|pool| (pool.name.clone(), Pool::new(pool, reserved(&cluster)))).collect();
        let (answers, answered) = mpsc::unbounded_channel();
        Self {
            name: name.to_owned(),
            endpoint,
            datapath,
            hash: hash_key(&cluster),
            tenures: HashMap::new(),
            waiting: Waiting::default(),
            last_commit: CommitId::default(),
            children: HashMap::new(),
            edges: HashMap::new(),
            carried: HashMap::new(),
            pools,
            questions: Questions::default(),
            sessions: Sessions::default(),
            answers,
            answered: Some(answered),
            link: None,
            view: None,
            inner,
            lans: Vec::new(),
            dispatch: None,
            moves_in: MovesIn::default(),
            outgoing: Vec::new(),
            reclaim_at: boot_time(),
            gatherings: Vec::new(),
            gathered: 0,
            tidings: Tidings::default(),
            strays: Strays::default(),
            started: boot_time(),
            cluster,
        }
    }

    /// Owns every work set: a node that runs alone.
    pub(super) fn own_all(&mut self) {
        let tenure = Tenure::default();
        let now = boot_time();
        for set in WorkSet::all() {
            self.tenures.insert(set, tenure);
            self.endpoint.adopt_set(now, set, tenure, &mut std::iter::empty());
        }
    }

    /// Works for the sets that the cluster gives it.
    pub(super) fn join(&mut self, link: link::Handle, lans: Vec<Lan>, dispatch: Arc<Dispatch>) {
        self.link = Some(link);
        self.lans = lans;
        self.dispatch = Some(dispatch);
    }

    /// Works until the API asks it to stop, or a worker or the link has failed.
    ///
    /// # Errors
    /// The datapath or the cluster link cannot go on.
    pub(super) async fn run(mut self, mut inputs: Inputs) -> anyhow::Result<()> {
        let Some(mut answered) = self.answered.take() else {
            anyhow::bail!("the driver was started twice");
        };
        self.endpoint.set_wall_clock(boot_time(), wall_time());
        let mut wall_clock = tokio::time::interval(WALL_CLOCK_EVERY);
        loop {
            let due = self.poll_timeout().map(|at| at.since(boot_time()));
            tokio::select! {
                biased;
                event = inputs.cluster.recv(), if self.link.is_some() => {
                    // A node that lives on without its link would serve nobody and never join again.
                    let Some(event) = event else {
                        anyhow::bail!("a thread of the cluster link has failed; its last words stand above");
                    };
                    self.on_link(event);
                    while let Ok(event) = inputs.cluster.try_recv() {
                        self.carry_out();
                        self.on_link(event);
                    }
                }
                Some(event) = inputs.events.recv() => {
                    self.on_event(event)?;
                    while let Ok(event) = inputs.events.try_recv() {
                        self.on_event(event)?;
                    }
                }
                Some(answer) = answered.recv() => self.on_answer(answer),
                Some(ask) = inputs.asks.recv() => {
                    if self.on_ask(ask).is_break() {
                        return Ok(());
                    }
                }
                Some(event) = inputs.datagrams.recv() => {
                    self.on_event(event)?;
                    // Outputs are carried out after each datagram, so a burst cannot grow the queue of them.
                    for _ in 0..BURST {
                        self.carry_out();
                        let Ok(event) = inputs.datagrams.try_recv() else { break };
                        self.on_event(event)?;
                    }
                }
                () = tokio::time::sleep(due.unwrap_or(IDLE_MAX)), if due.is_some() => {
                    self.handle_timeout(boot_time());
                }
                _ = wall_clock.tick() => {
                    self.endpoint.set_wall_clock(boot_time(), wall_time());
                }
            }
            self.carry_out();
        }
    }

    fn poll_timeout(&self) -> Option<Time> {
        let outgoing = self.outgoing.iter().map(|(at, _)| *at).min();
        let gathering = self.gatherings.iter().map(Gathering::give_up_at).min();
        let own =
            [outgoing, gathering, self.moves_in.poll_timeout(), Some(self.reclaim_at), self.tidings.poll_timeout()];
        let asked = [self.endpoint.poll_timeout(), self.questions.poll_timeout()];
        asked.into_iter().chain(own).flatten().min()
    }

    fn handle_timeout(&mut self, now: Time) {
        self.endpoint.handle_timeout(now);
        self.repeat_questions(now);
        self.ask_again(now);
        self.await_workers(now);
        self.forget_outgoing(now);
        self.reclaim(now);
        self.finish_gatherings(now);
        let endpoint = &self.endpoint;
        self.tidings.tell(now, || endpoint.sessions(now).map(|session| (session.home, session.session)).collect());
    }

    fn on_answer(&mut self, answer: Answer) {
        match answer {
            Answer::Signed(request, signature) => self.endpoint.handle_signature(boot_time(), request, signature),
            Answer::Stopped(stopped) => self.on_stopped(stopped),
            Answer::Unclaimed(pool, given) => self.on_unclaimed(&pool, given),
            Answer::Waited(set, outcome) => self.on_waited(set, outcome),
        }
    }

    fn on_event(&mut self, event: datapath::Event) -> anyhow::Result<()> {
        let now = boot_time();
        match event {
            datapath::Event::Ike { path, datagram } => {
                if let Some(home) = self.home_of(path, &datagram) {
                    if self.endpoint.owns(home) {
                        self.endpoint.handle_datagram(now, path, home, &datagram);
                    } else if let Some(moving) = self.moves_in.of(home) {
                        moving.queue(path, datagram);
                    } else {
                        self.hand_on(home, &Stray::ike(path, datagram));
                    }
                }
            }
            datapath::Event::LeaseLow { spi_in, edge } => self.extend_lease(spi_in, edge),
            datapath::Event::PathChanged { spi_in, path } => self.endpoint.handle_path_change(now, spi_in, path),
            datapath::Event::Exhausted { spi_in } => self.endpoint.handle_exhaustion(now, spi_in),
            datapath::Event::InboundEdges(edges) => self.store_inbound_edges(&edges),
            datapath::Event::UnknownSpi { spi, path, datagram } => {
                self.hand_on(spi.work_set(), &Stray::esp(path, datagram));
            }
            datapath::Event::UnknownDestination { packet } => {
                if let Some(home) = self.home_of_inner(&packet) {
                    let queued = self.moves_in.of(home).is_some_and(|moving| moving.queue_inner(&packet));
                    if !queued {
                        self.hand_on(home, &Stray::inner(packet));
                    }
                }
            }
            datapath::Event::WorkerFailed { worker, error } => {
                error!(worker, error, "a datapath worker has failed");
                anyhow::bail!("datapath worker {worker} has failed: {error}");
            }
        }
        Ok(())
    }

    /// The work set that the dispatch rule names for an IKE datagram: by our SPI where there is one, else by the hash.
    fn home_of(&self, path: Path, datagram: &[u8]) -> Option<WorkSet> {
        let (spi_i, rest) = datagram.split_first_chunk::<8>()?;
        let (spi_r, rest) = rest.split_first_chunk::<8>()?;
        let flags = *rest.get(3)?;
        let (spi_i, spi_r) = (u64::from_be_bytes(*spi_i), u64::from_be_bytes(*spi_r));
        // RFC 7296 §3.1: the I flag tells whether the sender is the original initiator.
        Some(match (flags & 0x08 != 0, spi_r) {
            (true, 0) => self.hash.home_of_new_ike(spi_i, path.remote.ip()),
            (true, ours) => WorkSet::from_low_bits(ours),
            (false, _) => WorkSet::from_low_bits(spi_i),
        })
    }

    /// Stores a change and returns the number under which replication took it.
    fn put(&mut self, id: RecordId, change: Change) -> CommitId {
        self.last_commit = CommitId(self.last_commit.0.saturating_add(1));
        if let Some(link) = &self.link {
            link.put(ENGINE, self.last_commit, id, change);
        }
        self.last_commit
    }

    /// A node that runs alone holds everything at once.
    fn commit_alone(&mut self) {
        if self.link.is_none() {
            self.on_committed(self.last_commit);
        }
    }

    fn on_committed(&mut self, commit: CommitId) {
        for held in self.waiting.release(commit) {
            self.let_go(held);
        }
    }

    /// Sends what another node must handle to it. A node that runs alone has nobody to send it to.
    fn hand_on(&mut self, home: WorkSet, stray: &Stray) {
        match &self.link {
            // The old owner of a set that moves here gets its own copy of each packet.
            Some(link) if !self.tenures.contains_key(&home) && !self.moves_in.contains(home) => {
                link.hand_on(home, stray.to_bytes().into());
                self.strays.handed_on += 1;
            }
            Some(_) | None => self.strays.dropped += 1,
        }
    }

    fn home_of_inner(&self, packet: &[u8]) -> Option<WorkSet> {
        let destination: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).home(IpAddr::from(destination))
    }

    fn extend_lease(&mut self, spi_in: Spi, edge: u64) {
        if !self.children.contains_key(&spi_in) {
            return;
        }
        let commit = self.put_lease(spi_in, edge);
        self.hold(commit, spi_in.work_set(), Held::Extend { spi_in, edge });
    }

    fn put_lease(&mut self, spi_in: Spi, edge: u64) -> CommitId {
        let lease = OutboundLease { edge, unknown: UnknownFields::default() };
        self.put(esp_record(RecordKind::ESP_OUTBOUND, spi_in), Change::Put(lease.to_bytes()))
    }

    fn store_inbound_edges(&mut self, edges: &[(Spi, u64)]) {
        let mut touched = Vec::new();
        for (spi_in, edge) in edges {
            if self.children.contains_key(spi_in) {
                let set = spi_in.work_set();
                self.edges.entry(set).or_default().advance(*spi_in, *edge);
                if !touched.contains(&set) {
                    touched.push(set);
                }
            }
        }
        for set in touched {
            self.put_edges(set);
        }
    }

    fn put_edges(&mut self, set: WorkSet) {
        if let Some(edges) = self.edges.get(&set) {
            let bytes = edges.to_bytes();
            self.put(RecordId { set, kind: RecordKind::ESP_INBOUND, key: 0 }, Change::Put(bytes));
        }
    }

    fn hold(&mut self, commit: CommitId, set: WorkSet, what: Held) {
        if let Some(now) = self.waiting.hold(commit, set, what) {
            self.let_go(now);
        }
    }

    fn let_go(&mut self, held: Held) {
        match held {
            Held::Transmit { path, datagram } => {
                // A full socket buffer loses the datagram, as the network may; IKE sends it again.
                if let Err(error) = self.datapath.send_ike(path, &datagram) {
                    debug!(to = %path.remote, %error, "an IKE datagram was not sent");
                }
            }
            Held::Install(pair) => {
                let spi_in = pair.initial.spi_in;
                // A pair that was removed while it waited is not installed any more.
                if self.children.contains_key(&spi_in)
                    && let Err(error) = self.datapath.install(&pair)
                {
                    warn!(%spi_in, %error, "a pair of ESP SAs cannot be installed");
                }
            }
            Held::Extend { spi_in, edge } => self.datapath.extend_lease(spi_in, edge),
            Held::Address { request, address } => {
                self.endpoint.handle_address(boot_time(), request, Ok(address));
                self.carry_out();
            }
            Held::Say { to, word } => {
                if let Some(link) = &self.link {
                    link.say(to, word);
                }
            }
        }
    }
}

/// The key of the dispatch hash, the same in the kernel and on all nodes.
pub(super) fn hash_key(cluster: &Cluster) -> HashKey {
    let mut key = [0; 16];
    for (octet, secret) in key.iter_mut().zip(cluster.secrets.dispatch.expose()) {
        *octet = *secret;
    }
    HashKey::new(key)
}

/// Addresses that no pool gives.
fn reserved(cluster: &Cluster) -> Vec<IpAddr> {
    let own = [Some(cluster.outside), cluster.inside].into_iter().flatten().map(|shared| shared.address);
    own.chain(cluster.members.iter().flat_map(|member| [member.outside, member.inside])).collect()
}

fn esp_record(kind: RecordKind, spi_in: Spi) -> RecordId {
    RecordId { set: spi_in.work_set(), kind, key: u128::from(spi_in.0) }
}

/// The driver is the one source of records in this process.
const ENGINE: link::Engine = link::Engine(0);
/// How often the IKE engine is told the time of day, which somebody may set.
const WALL_CLOCK_EVERY: Duration = Duration::from_secs(30);
/// Sleep without a deadline.
const IDLE_MAX: Duration = Duration::from_secs(3600);
/// Datagrams in a row before other inputs are looked at again.
const BURST: usize = 64;
