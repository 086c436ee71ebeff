//! The load tool: thousands of clients in one thread, made of our own initiator and our own ESP.
//!
//! Each session asks for an inner address and can then send probes through its tunnel. [`Load`] drives
//! [`ike::Endpoint`] as any driver does, over two sockets; it replicates nothing, so all is committed at once.

mod core;
mod packet;
mod stream;

use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use ike::{
    Config, Connection, EspProposal, IkeProposal, Lifetimes, LocalAuth, RemoteAuth, RemoteIdentity, RemoteSelectors,
    Retransmission, UniqueIds,
};
use wire::{Secret, Spi, TrafficSelector};

use self::core::Core;
use crate::namespace::Namespace;
use crate::pki::Certificate;
use crate::run;
pub use stream::{InsideEnd, Streamed};

/// What the clients are to be.
pub struct LoadSettings<'a> {
    /// The address that they all come from.
    pub local: Ipv4Addr,
    /// The gateway's address.
    pub gateway: Ipv4Addr,
    /// The gateway's identity.
    pub gateway_id: &'a str,
    /// The clients' identity. A `*` in it stands for the client's number: strongSwan gives one address per identity.
    pub local_id: &'a str,
    /// How both prove it.
    pub proof: Proof<'a>,
}

/// How both ends prove who they are.
pub enum Proof<'a> {
    /// By a secret that they share.
    PreSharedKey(&'a str),
    /// By ECDSA P-256 certificates of one authority.
    Ecdsa {
        /// The clients' own.
        own: &'a Certificate,
        /// The authority, in PEM.
        authority: &'a str,
    },
}

/// Running clients.
pub struct Load {
    core: Arc<Mutex<Core>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

/// What happened to all sessions so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Sessions that are up.
    pub up: usize,
    /// Sessions that came up, ever.
    pub opened: usize,
    /// Sessions that ended, or could not be opened.
    pub closed: usize,
    /// IKE SAs and child SAs that were replaced.
    pub rekeyed: usize,
    /// ESP packets that could not be opened.
    pub refused: usize,
    /// ESP packets that this machine's kernel did not take.
    pub unsent: usize,
}

impl Load {
    /// Opens the sockets in `namespace` and starts the thread that serves them; there are no sessions yet.
    ///
    /// # Errors
    /// Ports 500 and 4500 are taken, or the certificate cannot be read.
    pub fn start(namespace: &Namespace, settings: &LoadSettings<'_>) -> Result<Self> {
        let (config, key) = configuration(settings)?;
        let core = Core::open(namespace, config, key, settings.local, settings.gateway)?;
        let waiter = core.waiter()?;
        let core = Arc::new(Mutex::new(core));
        let stop = Arc::new(AtomicBool::new(false));
        let (shared, stopped) = (Arc::clone(&core), Arc::clone(&stop));
        let thread = thread::Builder::new().name("load".to_owned()).spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                waiter.wait(lock(&shared).idle_for())?;
                lock(&shared).turn()?;
            }
            Ok(())
        })?;
        Ok(Self { core, stop, thread: Some(thread) })
    }

    /// Opens `count` sessions, no more than `at_once` at the same time, and returns how long that took.
    ///
    /// # Errors
    /// One is refused, or they are not all up within `limit`.
    pub fn open(&self, count: usize, at_once: usize, limit: Duration) -> Result<Duration> {
        let start = Instant::now();
        let (wanted, closed) = {
            let mut core = self.core();
            let before = core.counts();
            core.open_sessions(count, at_once)?;
            (before.opened + count, before.closed)
        };
        run::wait_for(&format!("{count} sessions to come up"), limit, || {
            let counts = self.counts();
            (counts.opened >= wanted || counts.closed > closed).then_some(())
        })
        .with_context(|| format!("{:?}", self.counts()))?;
        let took = start.elapsed();
        if self.counts().opened < wanted {
            bail!("a session was refused: {}", self.core().complaint());
        }
        Ok(took)
    }

    /// The address that all sessions come from.
    #[must_use]
    pub fn local(&self) -> Ipv4Addr {
        self.core().local()
    }

    /// What happened so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.core().counts()
    }

    /// The inner addresses of all sessions that are up.
    #[must_use]
    pub fn inner_addresses(&self) -> Vec<Ipv4Addr> {
        self.core().inner_addresses()
    }

    /// The SPI under which the gateway sends to the session with that inner address.
    ///
    /// # Errors
    /// No session has that address.
    pub fn spi_of(&self, address: Ipv4Addr) -> Result<Spi> {
        self.core().spi_of(address).with_context(|| format!("no session has the inner address {address}"))
    }

    /// Has each session send one echo to `server` through its tunnel, and again every 200 ms until it is answered;
    /// returns the number of sessions that got no answer within `limit`.
    ///
    /// # Errors
    /// The socket fails.
    pub fn echo_all(&self, server: SocketAddrV4, limit: Duration) -> Result<usize> {
        let start = Instant::now();
        self.core().forget_echoes();
        let mut sent = None;
        run::wait_for("echoes", limit * 2, || {
            let mut core = self.core();
            let missing = core.sessions_without_echo();
            if missing == 0 || start.elapsed() > limit {
                return Some(missing);
            }
            if sent.is_none_or(|at: Instant| at.elapsed() > ECHO_INTERVAL) {
                sent = Some(Instant::now());
                core.send_echoes(server);
            }
            None
        })
    }

    /// Has each session ask the gateway whether it lives; returns the number of sessions that got no answer within
    /// `limit`.
    ///
    /// # Errors
    /// Never within twice the limit.
    pub fn probe_all(&self, limit: Duration) -> Result<usize> {
        let start = Instant::now();
        self.core().probe_sessions();
        run::wait_for("liveness exchanges", limit * 2, || {
            let silent = self.core().silent_since(start);
            (silent == 0 || start.elapsed() > limit).then_some(silent)
        })
    }

    /// Starts to send `rate` packets per second from the session with the inner address `from`, and to account for
    /// what `inside` sends to it. `inside` must send to that address and port.
    ///
    /// # Errors
    /// No session has that address.
    pub fn stream(&self, from: Ipv4Addr, inside: &InsideEnd, rate: u32) -> Result<()> {
        self.core().start_stream(from, inside.address(), rate)
    }

    /// Ends the stream of that session and returns when its packets came in.
    pub fn end_stream(&self, from: Ipv4Addr) -> Streamed {
        self.core().end_stream(from)
    }

    /// Ends all sessions and waits until the gateway knows.
    ///
    /// # Errors
    /// They are not gone within `limit`.
    pub fn close_all(&self, limit: Duration) -> Result<()> {
        self.core().delete_sessions();
        run::wait_for("all sessions to end", limit, || (self.counts().up == 0).then_some(()))
    }

    fn core(&self) -> MutexGuard<'_, Core> {
        lock(&self.core)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(Ok(Err(error))) = self.thread.take().map(JoinHandle::join) {
            eprintln!("lab: the load tool failed: {error:#}");
        }
    }
}

fn lock(core: &Mutex<Core>) -> MutexGuard<'_, Core> {
    core.lock().unwrap_or_else(PoisonError::into_inner)
}

fn configuration(settings: &LoadSettings<'_>) -> Result<(Config, Option<crypto::SigningKey>)> {
    let mut trust_anchors = auth::x509::TrustAnchors::default();
    let (local_auth, remote_auth, key) = match &settings.proof {
        Proof::PreSharedKey(secret) => {
            let secret = Secret::from_slice(secret.as_bytes());
            (LocalAuth::Psk(secret.clone()), RemoteAuth::Psk(secret), None)
        }
        Proof::Ecdsa { own, authority } => {
            trust_anchors.add_pem(authority.as_bytes())?;
            let chain = auth::x509::chain_from_pem(own.certificate.as_bytes())?;
            let key = crypto::SigningKey::from_pem(own.key.as_bytes())?;
            let kind = crypto::KeyKind::EcdsaP256;
            (LocalAuth::Certificate { chain, key: "own".to_owned(), kind }, RemoteAuth::Certificate, Some(key))
        }
    };
    let gcm = crypto::Encryption::AesGcm16(128);
    let protected: wire::Prefix = crate::cluster::PROTECTED.parse().ok().context("the protected prefix")?;
    let template = Connection {
        name: String::new(),
        local_identity: settings.gateway_id.parse()?,
        remote_identity: RemoteIdentity::Exact(settings.gateway_id.parse()?),
        local_auth,
        remote_auth,
        ike_proposals: vec![IkeProposal {
            encryption: gcm,
            integrity: None,
            prf: crypto::Prf::HmacSha2_256,
            group: crypto::Group::Curve25519,
        }],
        esp_proposals: vec![EspProposal { encryption: gcm, integrity: None, group: None }],
        local_selectors: Vec::new(),
        remote_selectors: RemoteSelectors::Networks(vec![TrafficSelector::from_prefix(protected)]),
        request_address: true,
        dns: Vec::new(),
        lifetimes: Lifetimes {
            ike_rekey: LONG,
            ike_max: LONG * 2,
            child_rekey: LONG,
            child_max: LONG * 2,
            jitter: Duration::ZERO,
        },
        liveness_interval: Duration::ZERO,
        unique_ids: UniqueIds::Shared,
    };
    let identities = if settings.local_id.contains('*') { IDENTITIES } else { 1 };
    let connections = (0..identities).map(|number| {
        let local_identity = settings.local_id.replace('*', &number.to_string()).parse()?;
        Ok(Connection { name: connection_name(number), local_identity, ..template.clone() })
    });
    let config = Config {
        connections: connections.collect::<Result<_>>()?,
        trust_anchors,
        cookie_secret: Secret::from_slice(&[7; 32]),
        cookie_threshold: usize::MAX,
        half_open_max: SESSIONS_MAX,
        half_open_time: Duration::from_secs(30),
        sas_max: SESSIONS_MAX,
        retransmission: Retransmission::default(),
        fragment_len_max: 1_200,
        force_encapsulation: true,
    };
    Ok((config, key))
}

/// The name of the connection for the `number`th identity.
fn connection_name(number: usize) -> String {
    format!("load-{number}")
}

/// How many identities the clients share among them, if they do not all have the same.
const IDENTITIES: usize = 4_096;
/// No rekeying comes from this side.
const LONG: Duration = Duration::from_secs(24 * 3600);
const SESSIONS_MAX: usize = 100_000;
const ECHO_INTERVAL: Duration = Duration::from_millis(200);

/// The gateway's address as the sockets know it.
fn socket_address(address: Ipv4Addr, port: u16) -> std::net::SocketAddr {
    (IpAddr::V4(address), port).into()
}
