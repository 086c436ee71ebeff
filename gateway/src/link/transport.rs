//! The reliable half of the link: one mutual-TLS session with each neighbour, and in it one ordered stream of
//! framed messages each way.
//!
//! Both sides dial; of two sessions at once the one that the lower name dialled stays. A session tells nothing about
//! whether the neighbour lives: keepalives do. It ends when another takes its place, when the neighbour closes it,
//! or when nothing came through it for [`IDLE_MAX`]; then all networks are tried again, at once when a keepalive
//! shows that the neighbour is back.

mod endpoint;
mod session;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use wire::Record;

use self::session::Session;
use super::hello::{Hello, Refusal, Refused, VERSION};
use super::identity::{Identity, names};

/// Octets of the largest message. Larger state is the sender's to cut.
pub const MESSAGE_MAX: usize = 1 << 20;
/// Octets that may wait for one neighbour; who lets more gather is cut off and starts again from a snapshot.
const QUEUED_MAX: usize = 64 << 20;
/// A session through which nothing came for so long is given up, and other networks are tried.
const IDLE_MAX: Duration = Duration::from_millis(1500);
/// How often an idle session shows that it works.
const PING_EVERY: Duration = Duration::from_millis(250);
/// Time for a session to form on one network before the next is tried as well.
const DIAL_STAGGER: Duration = Duration::from_millis(60);
/// Time for a session to form at all.
const DIAL_MAX: Duration = Duration::from_secs(2);
/// The pause after a failed attempt doubles from here …
const RETRY_MIN: Duration = Duration::from_millis(50);
/// … to here.
const RETRY_MAX: Duration = Duration::from_secs(1);
/// The higher name waits so long before it dials, so that both rarely dial at once.
const POLITENESS: Duration = Duration::from_millis(150);
/// Messages that may wait for the core.
const INBOX_MAX: usize = 256;
/// Handshakes of inbound sessions at one time.
const INBOUND_MAX: usize = 32;

/// A neighbour and where it can be reached.
#[derive(Clone, Debug)]
pub struct Neighbour {
    /// Its name, which its certificate must carry.
    pub name: String,
    /// Its address in each of the networks, in the order of [`Config::networks`].
    pub addresses: Vec<Option<SocketAddr>>,
}

/// What the transport must know.
#[derive(Debug)]
pub struct Config {
    /// The cluster's name.
    pub cluster: String,
    /// This node's name.
    pub name: String,
    /// Drawn at this start of the program.
    pub start: u64,
    /// A hash of the cluster's configuration.
    pub configuration: [u8; 32],
    /// This node's own address in each network, the best network first.
    pub networks: Vec<SocketAddr>,
    /// Everybody else.
    pub neighbours: Vec<Neighbour>,
}

/// Names one of [`Config::neighbours`] by its place.
pub type Peer = usize;

/// What the transport reports.
#[derive(Debug)]
pub enum Event {
    /// A session with that neighbour has begun; what was sent to it before is lost.
    Connected {
        /// The neighbour.
        peer: Peer,
        /// What it drew at its start.
        start: u64,
        /// Where it is.
        address: SocketAddr,
    },
    /// The session has ended.
    Disconnected {
        /// The neighbour.
        peer: Peer,
        /// Why.
        why: Refused,
    },
    /// A message, in the order in which it was sent in this session.
    Message {
        /// From whom.
        peer: Peer,
        /// What.
        bytes: Vec<u8>,
    },
    /// No session could be formed. Reported once for each new reason.
    Refused {
        /// With whom, if that is known.
        peer: Option<Peer>,
        /// At which address.
        address: Option<SocketAddr>,
        /// Why.
        why: Refused,
    },
}

/// An event with the session that it belongs to, so that the last words of an ended session are not taken for the next one's.
type Tagged = (u64, Event);

/// The sending half. Cheap to clone; usable from any task.
#[derive(Clone, Debug)]
pub struct Transport {
    shared: Arc<Shared>,
}

/// The receiving half.
#[derive(Debug)]
pub struct Events {
    inbox: mpsc::Receiver<Tagged>,
    current: BTreeMap<Peer, u64>,
}

#[derive(Debug)]
struct Shared {
    config: Config,
    endpoints: Vec<quinn::Endpoint>,
    peers: Vec<PeerState>,
    events: mpsc::Sender<Tagged>,
    sessions: AtomicU64,
}

#[derive(Debug, Default)]
struct PeerState {
    session: Mutex<Option<Session>>,
    /// Wakes the dialling task: the session is gone, or the neighbour was heard.
    wake: Notify,
    /// The last refusal that was reported, so that each is reported once.
    reported: Mutex<Option<Refused>>,
}

/// A session as the operator sees it.
#[derive(Clone, Copy, Debug)]
pub struct SessionStatus {
    /// Where the neighbour is.
    pub address: SocketAddr,
    /// Octets that wait to be written.
    pub queued: usize,
    /// Measured round trip.
    pub round_trip: Duration,
}

impl Transport {
    /// Opens a socket in each network and starts to dial everybody. Runs on the current tokio runtime.
    ///
    /// # Errors
    /// The identity is not usable or a socket cannot be opened.
    pub fn start(config: Config, identity: &Identity) -> anyhow::Result<(Self, Events)> {
        identity.check_own_name(&config.name)?;
        let endpoints = endpoint::open(&config.networks, identity)?;
        let (events, inbox) = mpsc::channel(INBOX_MAX);
        let peers = config.neighbours.iter().map(|_| PeerState::default()).collect();
        let shared = Arc::new(Shared { config, endpoints, peers, events, sessions: AtomicU64::new(0) });
        for peer in 0..shared.peers.len() {
            tokio::spawn(Arc::clone(&shared).keep_connected(peer));
        }
        for endpoint in &shared.endpoints {
            tokio::spawn(Arc::clone(&shared).accept(endpoint.clone()));
        }
        Ok((Self { shared }, Events { inbox, current: BTreeMap::new() }))
    }

    /// Queues a message for that neighbour. Without a session it is dropped: the next one begins afresh.
    ///
    /// # Panics
    /// The message is longer than [`MESSAGE_MAX`]: our own bug.
    pub fn send(&self, peer: Peer, message: &[u8]) {
        assert!(message.len() <= MESSAGE_MAX, "a message of {} octets is too long for the link", message.len());
        let session = self.shared.session(peer);
        let Some(session) = session.as_ref() else { return };
        if session.send(message) > QUEUED_MAX {
            Refused::ours(Refusal::TooSlow, format!("more than {QUEUED_MAX} octets wait for it"))
                .close(&session.connection);
        }
    }

    /// Octets that wait to be written to that neighbour.
    #[must_use]
    pub fn queued(&self, peer: Peer) -> usize {
        self.shared.session(peer).as_ref().map_or(0, Session::queued)
    }

    /// A keepalive of that neighbour came after such a silence. A session from before it waits for retransmission
    /// timers that have doubled all the while, so a new one is faster.
    pub fn returned(&self, peer: Peer, silence: Duration) {
        if let Some(session) = self.shared.session(peer).as_ref()
            && session.since.elapsed() > silence
        {
            Refused::ours(Refusal::Silent, "it returns after a silence".into()).close(&session.connection);
        }
        self.shared.peer(peer).wake.notify_one();
    }

    /// The session with that neighbour, if there is one.
    #[must_use]
    pub fn status(&self, peer: Peer) -> Option<SessionStatus> {
        self.shared.session(peer).as_ref().map(Session::status)
    }

    /// Says goodbye to everybody and gives that a moment to reach them.
    pub async fn close(&self) {
        let goodbye = Refused::ours(Refusal::Goodbye, "this node ends its work".into());
        for endpoint in &self.shared.endpoints {
            endpoint.close(quinn::VarInt::from_u32(goodbye.refusal.code()), goodbye.detail.as_bytes());
        }
        for endpoint in &self.shared.endpoints {
            let _ = tokio::time::timeout(Duration::from_millis(200), endpoint.wait_idle()).await;
        }
    }
}

impl Events {
    /// Waits for the next event; `None` when the transport is gone.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            let (session, event) = self.inbox.recv().await?;
            if let Some(event) = self.admit(session, event) {
                return Some(event);
            }
        }
    }

    /// Takes an event that already waits.
    pub fn try_next(&mut self) -> Option<Event> {
        loop {
            let (session, event) = self.inbox.try_recv().ok()?;
            if let Some(event) = self.admit(session, event) {
                return Some(event);
            }
        }
    }

    /// Drops what belongs to a session that has ended.
    fn admit(&mut self, session: u64, event: Event) -> Option<Event> {
        match &event {
            Event::Connected { peer, .. } => {
                self.current.insert(*peer, session);
                Some(event)
            }
            Event::Message { peer, .. } => (self.current.get(peer) == Some(&session)).then_some(event),
            Event::Disconnected { peer, .. } => {
                if self.current.get(peer) != Some(&session) {
                    return None;
                }
                self.current.remove(peer);
                Some(event)
            }
            Event::Refused { .. } => Some(event),
        }
    }
}

impl Shared {
    fn session(&self, peer: Peer) -> MutexGuard<'_, Option<Session>> {
        self.peer(peer).session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn peer(&self, peer: Peer) -> &PeerState {
        &self.peers[peer]
    }

    fn hello(&self) -> Box<[u8]> {
        Hello {
            version: VERSION,
            cluster: self.config.cluster.clone(),
            name: self.config.name.clone(),
            start: self.config.start,
            configuration: self.config.configuration,
            unknown: wire::UnknownFields::default(),
        }
        .to_bytes()
    }

    /// Reports a refusal, unless it is the same as the one before or no fault.
    async fn report(&self, peer: Option<Peer>, address: Option<SocketAddr>, why: Refused) {
        if matches!(why.refusal, Refusal::Replaced | Refusal::Goodbye) {
            return;
        }
        if let Some(peer) = peer {
            let mut reported = self.peer(peer).reported.lock().unwrap_or_else(PoisonError::into_inner);
            if reported.as_ref() == Some(&why) {
                return;
            }
            *reported = Some(why.clone());
        }
        let _ = self.events.send((0, Event::Refused { peer, address, why })).await;
    }

    /// Dials that neighbour whenever there is no session with it.
    async fn keep_connected(self: Arc<Self>, peer: Peer) {
        let neighbour = &self.config.neighbours[peer];
        let polite = self.config.name > neighbour.name;
        let mut pause = RETRY_MIN;
        loop {
            let wake = self.peer(peer).wake.notified();
            if self.session(peer).is_some() {
                pause = RETRY_MIN;
                wake.await;
                continue;
            }
            if polite && tokio::time::timeout(POLITENESS, wake).await.is_ok() && self.session(peer).is_some() {
                continue;
            }
            match Arc::clone(&self).dial(peer).await {
                Ok(()) => pause = RETRY_MIN,
                Err((address, why)) => {
                    self.report(Some(peer), address, why).await;
                    // A neighbour that is heard again is dialled at once.
                    if tokio::time::timeout(pause, self.peer(peer).wake.notified()).await.is_ok() {
                        pause = RETRY_MIN;
                    } else {
                        pause = (pause * 2).min(RETRY_MAX);
                    }
                }
            }
        }
    }

    /// Tries all networks, each a little later than the one before, until a session is formed.
    async fn dial(self: Arc<Self>, peer: Peer) -> Result<(), (Option<SocketAddr>, Refused)> {
        let mut attempts = tokio::task::JoinSet::new();
        let addresses = self.config.neighbours[peer]
            .addresses
            .iter()
            .zip(&self.endpoints)
            .filter_map(|(a, e)| Some((a.as_ref()?, e)));
        for (place, (address, endpoint)) in (0_u32..).zip(addresses) {
            let (shared, endpoint, address) = (Arc::clone(&self), endpoint.clone(), *address);
            attempts.spawn(async move {
                tokio::time::sleep(DIAL_STAGGER * place).await;
                let attempt = tokio::time::timeout(DIAL_MAX, shared.dial_address(peer, &endpoint, address)).await;
                let silent = || Err(Refused::ours(Refusal::Silent, "it does not answer".into()));
                attempt.unwrap_or_else(|_| silent()).map_err(|why| (address, why))
            });
        }
        let mut last = (None, Refused::ours(Refusal::Silent, "it has no address in a network of this node".into()));
        while let Some(attempt) = attempts.join_next().await {
            match attempt {
                Ok(Ok(())) => return Ok(()),
                // A reason says more than silence does.
                Ok(Err((address, why))) if last.0.is_none() || why.refusal != Refusal::Silent => {
                    last = (Some(address), why)
                }
                Ok(Err(_)) | Err(_) => {}
            }
        }
        Err(last)
    }

    async fn dial_address(
        self: &Arc<Self>,
        peer: Peer,
        endpoint: &quinn::Endpoint,
        address: SocketAddr,
    ) -> Result<(), Refused> {
        let name = &self.config.neighbours[peer].name;
        let connecting = endpoint
            .connect(address, name)
            .map_err(|error| Refused::ours(Refusal::Protocol, format!("cannot dial {address}: {error}")))?;
        let connection = connecting.await.map_err(|error| Refused::from_connection(&error))?;
        let (mut send, mut recv) = connection.open_bi().await.map_err(|error| Refused::from_connection(&error))?;
        session::write_frame(&mut send, &self.hello()).await?;
        let hello = session::read_hello(&connection, &mut recv).await?;
        if hello.name != *name {
            return Err(refuse(&connection, Refusal::Name, format!("{name} was dialled, {} answered", hello.name)));
        }
        self.check(&connection, &hello)?;
        self.install(peer, hello.start, Dialler::Us, connection, send, recv).await
    }

    /// Takes sessions that others dial.
    async fn accept(self: Arc<Self>, endpoint: quinn::Endpoint) {
        let places = Arc::new(tokio::sync::Semaphore::new(INBOUND_MAX));
        while let Some(incoming) = endpoint.accept().await {
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                incoming.ignore();
                continue;
            };
            let shared = Arc::clone(&self);
            tokio::spawn(async move {
                let address = incoming.remote_address();
                // Who does not finish in time is forgotten: it may be anybody.
                if let Ok(Err((peer, why))) = tokio::time::timeout(DIAL_MAX, shared.accept_one(incoming)).await {
                    shared.report(peer, Some(address), why).await;
                }
                drop(place);
            });
        }
    }

    async fn accept_one(self: &Arc<Self>, incoming: quinn::Incoming) -> Result<(), (Option<Peer>, Refused)> {
        let unknown = |error: &quinn::ConnectionError| (None, Refused::from_connection(error));
        let connection = incoming.await.map_err(|error| unknown(&error))?;
        let (mut send, mut recv) = connection.accept_bi().await.map_err(|error| unknown(&error))?;
        let hello = session::read_hello(&connection, &mut recv).await.map_err(|why| (None, why))?;
        if !names(&session::certificates(&connection), &hello.name) {
            let detail = format!("it says that it is {:?}, its certificate does not", hello.name);
            return Err((None, refuse(&connection, Refusal::Name, detail)));
        }
        if hello.name == self.config.name {
            let detail = format!("this node at {} is {:?} already", self.config.networks[0], hello.name);
            return Err((None, refuse(&connection, Refusal::SameIdentity, detail)));
        }
        let Some(peer) = self.config.neighbours.iter().position(|n| n.name == hello.name) else {
            let detail = format!("{:?} is not a member of cluster {:?}", hello.name, self.config.cluster);
            return Err((None, refuse(&connection, Refusal::UnknownMember, detail)));
        };
        let named = |why| (Some(peer), why);
        self.check(&connection, &hello).map_err(named)?;
        self.check_alone(peer, hello.start, &connection).await.map_err(named)?;
        session::write_frame(&mut send, &self.hello()).await.map_err(named)?;
        self.install(peer, hello.start, Dialler::Them, connection, send, recv).await.map_err(named)
    }

    /// Refuses a neighbour of another version, cluster or configuration.
    fn check(&self, connection: &quinn::Connection, hello: &Hello) -> Result<(), Refused> {
        let ours = &self.config;
        if hello.version.abs_diff(VERSION) > 1 {
            let detail = format!("{} speaks version {}, {} version {VERSION}", hello.name, hello.version, ours.name);
            return Err(refuse(connection, Refusal::Version, detail));
        }
        if hello.cluster != ours.cluster {
            let detail =
                format!("{} is in cluster {:?}, {} in {:?}", hello.name, hello.cluster, ours.name, ours.cluster);
            return Err(refuse(connection, Refusal::OtherCluster, detail));
        }
        if hello.configuration != ours.configuration {
            let (theirs, our) = (hex(&hello.configuration), hex(&ours.configuration));
            let detail = format!("the configuration of {} has hash {theirs}, that of {} {our}", hello.name, ours.name);
            return Err(refuse(connection, Refusal::OtherConfiguration, detail));
        }
        Ok(())
    }

    /// Refuses a second live node with the identity of a neighbour. A session whose node is gone makes room.
    async fn check_alone(&self, peer: Peer, start: u64, connection: &quinn::Connection) -> Result<(), Refused> {
        let holder = |old: &Session| (old.start != start).then(|| (old.connection.clone(), old.received()));
        let Some((old, received)) = self.session(peer).as_ref().and_then(holder) else {
            return Ok(());
        };
        if old.remote_address().ip() == connection.remote_address().ip() {
            return Ok(()); // One host: it has restarted.
        }
        tokio::time::sleep(PING_EVERY * 2).await;
        if old.close_reason().is_none() && old.stats().udp_rx.datagrams > received {
            let name = &self.config.neighbours[peer].name;
            let detail = format!("a live node at {} is {name:?} already", old.remote_address());
            return Err(refuse(connection, Refusal::SameIdentity, detail));
        }
        Ok(())
    }

    /// Makes this session the one with that neighbour, unless a better one stands.
    async fn install(
        self: &Arc<Self>,
        peer: Peer,
        start: u64,
        dialler: Dialler,
        connection: quinn::Connection,
        send: quinn::SendStream,
        recv: quinn::RecvStream,
    ) -> Result<(), Refused> {
        let id = self.sessions.fetch_add(1, Ordering::Relaxed) + 1;
        let by_lower = match dialler {
            Dialler::Us => self.config.name < self.config.neighbours[peer].name,
            Dialler::Them => self.config.neighbours[peer].name < self.config.name,
        };
        let address = connection.remote_address();
        let (session, outbox) = Session::new(id, start, by_lower, connection);
        let old = {
            let mut current = self.session(peer);
            let better = |old: &Session| {
                old.start == start && old.by_lower && !by_lower && old.connection.close_reason().is_none()
            };
            if current.as_ref().is_some_and(better) {
                return Err(refuse(&session.connection, Refusal::Replaced, "another session stands".into()));
            }
            current.replace(session.clone())
        };
        if let Some(old) = old {
            let why = Refused::ours(Refusal::Replaced, "another session takes its place".into());
            why.close(&old.connection);
            let _ = self.events.send((old.id, Event::Disconnected { peer, why })).await;
        }
        *self.peer(peer).reported.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let _ = self.events.send((id, Event::Connected { peer, start, address })).await;
        tokio::spawn(session.clone().write(send, outbox));
        tokio::spawn(Arc::clone(self).read(peer, session, recv));
        self.peer(peer).wake.notify_one();
        Ok(())
    }

    /// Takes messages until the session ends, then makes room for the next.
    async fn read(self: Arc<Self>, peer: Peer, session: Session, mut recv: quinn::RecvStream) {
        let why = loop {
            match session::read_frame(&session.connection, &mut recv).await {
                Ok(bytes) => {
                    if self.events.send((session.id, Event::Message { peer, bytes })).await.is_err() {
                        return;
                    }
                }
                Err(why) => break why,
            }
        };
        why.close(&session.connection);
        {
            let mut current = self.session(peer);
            if current.as_ref().is_some_and(|current| current.id == session.id) {
                *current = None;
            }
        }
        let _ = self.events.send((session.id, Event::Disconnected { peer, why })).await;
        self.peer(peer).wake.notify_one();
    }
}

/// Who opened a session.
#[derive(Clone, Copy)]
enum Dialler {
    Us,
    Them,
}

fn refuse(connection: &quinn::Connection, refusal: Refusal, detail: String) -> Refused {
    let refused = Refused::ours(refusal, detail);
    refused.close(connection);
    refused
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
pub(super) mod tests;
