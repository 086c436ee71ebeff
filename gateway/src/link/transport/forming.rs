//! How sessions form and end: dialling, answering, the checks on both sides, and which of two stays.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;

use super::super::hello::{Hello, Refusal, Refused, VERSION};
use super::super::identity::names;
use super::session::{self, Session};
use super::{Event, PING_EVERY, Peer, Shared};

/// Time for a session to form on one network before the next is tried as well.
const DIAL_STAGGER: Duration = Duration::from_millis(100);
/// Time for a session to form at all.
const DIAL_MAX: Duration = Duration::from_secs(2);
/// The pause after a failed attempt doubles from here …
const RETRY_MIN: Duration = Duration::from_millis(50);
/// … to here.
const RETRY_MAX: Duration = Duration::from_secs(1);
/// The higher name waits so long before it dials, so that both rarely dial at once.
const POLITENESS: Duration = Duration::from_millis(150);
/// Handshakes at one time of inbound sessions from the addresses of neighbours.
const INBOUND_MAX: usize = 32;
/// The same from all other addresses, which are only to be told why they are refused.
const STRANGERS_MAX: usize = 4;

impl Shared {
    /// Dials that neighbour whenever there is no session with it.
    pub(super) async fn keep_connected(self: Arc<Self>, peer: Peer) {
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
        // The other networks' attempts end here if one of them has formed the session meanwhile.
        let _one = self.peer(peer).dialling.lock().await;
        if self.session(peer).is_some() {
            return Ok(());
        }
        let (mut send, mut recv) = connection.open_bi().await.map_err(|error| Refused::from_connection(&error))?;
        let (own, ours) = self.hello();
        session::write_frame(&mut send, &ours).await?;
        let hello = session::read_hello(&connection, &mut recv).await?;
        if hello.name != *name || !names(&session::certificates(&connection), name) {
            return Err(refuse(&connection, Refusal::Name, format!("{name} was dialled, {:?} answered", hello.name)));
        }
        self.check(&connection, &hello)?;
        self.install(peer, own, hello.start, Dialler::Us, connection, send, recv).await
    }

    /// Takes sessions that others dial.
    pub(super) async fn accept(self: Arc<Self>, endpoint: quinn::Endpoint) {
        let known: BTreeSet<IpAddr> =
            self.config.neighbours.iter().flat_map(|n| &n.addresses).flatten().map(SocketAddr::ip).collect();
        let neighbours = Arc::new(Semaphore::new(INBOUND_MAX));
        let strangers = Arc::new(Semaphore::new(STRANGERS_MAX));
        while let Some(incoming) = endpoint.accept().await {
            let is_known = known.contains(&incoming.remote_address().ip());
            let places = if is_known { &neighbours } else { &strangers };
            // Forged addresses take no place: a stranger's, or any when half of the places are taken, must answer first.
            let doubtful = !is_known || places.available_permits() <= INBOUND_MAX / 2;
            if doubtful && !incoming.remote_address_validated() {
                // Fails only for an address that has answered.
                let _ = incoming.retry();
                continue;
            }
            let Ok(place) = Arc::clone(places).try_acquire_owned() else {
                self.crowded.fetch_add(1, Ordering::Relaxed);
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
            let detail = format!(
                "{:?} is not a member of cluster {:?}; add it under [[members]] on all nodes",
                hello.name, self.config.cluster
            );
            return Err((None, refuse(&connection, Refusal::UnknownMember, detail)));
        };
        let named = |why| (Some(peer), why);
        self.check(&connection, &hello).map_err(named)?;
        self.check_alone(peer, hello.start, &connection).await.map_err(named)?;
        let (own, ours) = self.hello();
        session::write_frame(&mut send, &ours).await.map_err(named)?;
        self.install(peer, own, hello.start, Dialler::Them, connection, send, recv).await.map_err(named)
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
            let detail = format!(
                "the configuration of {} has hash {theirs}, that of {} {our}; give both the same cluster.toml and the same files \
                 that it names, and start again",
                hello.name, ours.name
            );
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

    /// Makes this session the one with that neighbour, unless a better one stands, or this node has another start id
    /// than it said.
    #[expect(clippy::too_many_arguments, reason = "a session is that many things")]
    async fn install(
        self: &Arc<Self>,
        peer: Peer,
        own: u64,
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
        // Two sessions that form at once are reported in the order in which they stand.
        let _one = self.peer(peer).installing.lock().await;
        let old = {
            let mut current = self.session(peer);
            if self.start.load(Ordering::SeqCst) != own {
                return Err(refuse(&session.connection, Refusal::Replaced, "this node begins anew".into()));
            }
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
