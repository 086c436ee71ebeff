//! The reliable half of the link: one mutual-TLS session with each neighbour, and in it one ordered stream of
//! framed messages each way.
//!
//! Both sides dial; of two sessions at once the one that the lower name dialled stays. A session tells nothing about
//! whether the neighbour lives: keepalives do. It ends when another takes its place, when the neighbour closes it,
//! or when nothing came through it for [`IDLE_MAX`]; then all networks are tried again, at once when a keepalive
//! shows that the neighbour is back.

mod endpoint;
mod forming;
mod session;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc};
use wire::Record;

use self::session::Session;
use super::hello::{Hello, Refusal, Refused, VERSION};
use super::identity::Identity;

/// Octets of the largest message. Larger state is the sender's to cut.
pub const MESSAGE_MAX: usize = 1 << 20;
/// Octets that may wait for one neighbour; who lets more gather is cut off and starts again from a snapshot.
const QUEUED_MAX: usize = 64 << 20;
/// A session through which nothing came for so long is given up, and other networks are tried.
const IDLE_MAX: Duration = Duration::from_millis(1500);
/// How often an idle session shows that it works.
const PING_EVERY: Duration = Duration::from_millis(250);
/// Messages that may wait for the core.
const INBOX_MAX: usize = 256;
/// How often the refusal of somebody unknown is reported.
const STRANGERS_EVERY: Duration = Duration::from_secs(10);

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
    /// Drawn at this start of the program, until [`Transport::set_start`] says another.
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
    /// No session could be formed. Reported once for each new reason; of those who are not known to be members only once in
    /// ten seconds, since anybody can come at any rate.
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
    /// This node's own start id.
    start: AtomicU64,
    /// Refusals by their codes.
    refused: [AtomicU64; Refusal::ALL.len()],
    /// Attempts that found no place.
    crowded: AtomicU64,
    /// When the refusal of somebody unknown was reported last.
    stranger_told: Mutex<Option<Instant>>,
}

#[derive(Debug, Default)]
struct PeerState {
    session: Mutex<Option<Session>>,
    installing: tokio::sync::Mutex<()>,
    dialling: tokio::sync::Mutex<()>,
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
        let shared = Arc::new(Shared {
            start: AtomicU64::new(config.start),
            config,
            endpoints,
            peers,
            events,
            sessions: AtomicU64::new(0),
            refused: Default::default(),
            crowded: AtomicU64::new(0),
            stranger_told: Mutex::default(),
        });
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

    /// The network in which that neighbour is at `address` carries nothing more from it.
    pub fn network_silent(&self, peer: Peer, address: IpAddr) {
        if let Some(session) = self.shared.session(peer).as_ref()
            && session.connection.remote_address().ip() == address
        {
            Refused::ours(Refusal::Silent, "its network fell silent".into()).close(&session.connection);
        }
    }

    /// This node is another member from now on: all sessions end, and new ones begin under that start id.
    pub fn set_start(&self, start: u64) {
        self.shared.start.store(start, Ordering::SeqCst);
        for peer in 0..self.shared.peers.len() {
            if let Some(session) = self.shared.session(peer).as_ref() {
                Refused::ours(Refusal::Replaced, "this node begins anew".into()).close(&session.connection);
            }
        }
    }

    /// The session with that neighbour, if there is one.
    #[must_use]
    pub fn status(&self, peer: Peer) -> Option<SessionStatus> {
        self.shared.session(peer).as_ref().map(Session::status)
    }

    /// How many sessions were refused, by whichever side, for each reason; `crowded` are those that found no place.
    #[must_use]
    pub fn refusals(&self) -> Vec<(&'static str, u64)> {
        let words = Refusal::ALL.into_iter().map(Refusal::word);
        let counts = self.shared.refused.iter().map(|count| count.load(Ordering::Relaxed));
        words.zip(counts).chain([("crowded", self.shared.crowded.load(Ordering::Relaxed))]).collect()
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

    /// What this node says of itself, and under which start id.
    fn hello(&self) -> (u64, Box<[u8]>) {
        let start = self.start.load(Ordering::SeqCst);
        let hello = Hello {
            version: VERSION,
            cluster: self.config.cluster.clone(),
            name: self.config.name.clone(),
            start,
            configuration: self.config.configuration,
            unknown: wire::UnknownFields::default(),
        };
        (start, hello.to_bytes())
    }

    /// Counts a refusal and reports it, unless it is the same as the one before or no fault.
    async fn report(&self, peer: Option<Peer>, address: Option<SocketAddr>, why: Refused) {
        let place = usize::try_from(why.refusal.code()).ok();
        if let Some(count) = place.and_then(|place| self.refused.get(place)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        if matches!(why.refusal, Refusal::Replaced | Refusal::Goodbye) || !self.is_to_be_told(peer, &why) {
            return;
        }
        let _ = self.events.send((0, Event::Refused { peer, address, why })).await;
    }

    fn is_to_be_told(&self, peer: Option<Peer>, why: &Refused) -> bool {
        if let Some(peer) = peer {
            let mut reported = self.peer(peer).reported.lock().unwrap_or_else(PoisonError::into_inner);
            return reported.replace(why.clone()).as_ref() != Some(why);
        }
        let mut told = self.stranger_told.lock().unwrap_or_else(PoisonError::into_inner);
        let quiet = told.is_some_and(|at| at.elapsed() < STRANGERS_EVERY);
        if !quiet {
            *told = Some(Instant::now());
        }
        !quiet
    }
}

#[cfg(test)]
pub(super) mod tests;
