//! Every IKE SA that this node owns.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use wire::{DecodeError, RecordId, Spi, Tenure, Time, WorkSet};

use crate::config::Config;
use crate::counters::Counters;
use crate::fault::Refusal;
use crate::output::{InitiateError, NoAddress, NoSession, Output, Path, RequestId, Session, SignError};
use auth::Identity;

/// Every IKE SA of the work sets that this node owns: no socket, no clock, no thread.
///
/// After each call the driver empties [`Endpoint::poll_output`] and then sleeps until [`Endpoint::poll_timeout`].
pub struct Endpoint {
    config: Arc<Config>,
    rng: StdRng,
    tenures: HashMap<WorkSet, Tenure>,
    wall_clock: Option<(Time, Duration)>,
    outputs: VecDeque<Output>,
    counters: Counters,
}

impl Endpoint {
    /// Starts without a work set. All randomness comes from `seed`, which must be unpredictable and used once.
    #[must_use]
    pub fn new(config: Arc<Config>, seed: [u8; 32]) -> Self {
        Self {
            config,
            rng: StdRng::from_seed(seed),
            tenures: HashMap::new(),
            wall_clock: None,
            outputs: VecDeque::new(),
            counters: Counters::default(),
        }
    }

    /// Takes a new configuration; SAs that are up keep what they negotiated.
    pub fn set_config(&mut self, config: Arc<Config>) {
        self.config = config;
    }

    /// Tells that `now` is `unix` after 1970-01-01; used for certificates only.
    pub fn set_wall_clock(&mut self, now: Time, unix: Duration) {
        self.wall_clock = Some((now, unix));
    }

    /// Becomes the owner of `set`: reads its IKE records, arms their timers again and repeats requests in flight.
    ///
    /// An empty iterator starts an empty set. Returns the records that could not be read.
    pub fn adopt_set(
        &mut self,
        _now: Time,
        set: WorkSet,
        tenure: Tenure,
        _records: &mut dyn Iterator<Item = (RecordId, &[u8])>,
    ) -> Vec<(RecordId, DecodeError)> {
        self.tenures.insert(set, tenure);
        Vec::new()
    }

    /// Stops to own `set`, silently: its records live on in the cluster.
    pub fn release_set(&mut self, set: WorkSet) {
        self.tenures.remove(&set);
    }

    /// Whether this endpoint owns `set`.
    #[must_use]
    pub fn owns(&self, set: WorkSet) -> bool {
        self.tenures.contains_key(&set)
    }

    /// Takes in one datagram, a non-ESP marker already off. `home` is the work set that the dispatch function names for
    /// it; it decides where a new SA lives.
    pub fn handle_datagram(&mut self, _now: Time, _path: Path, home: WorkSet, _datagram: &[u8]) {
        self.counters.datagrams_in = self.counters.datagrams_in.saturating_add(1);
        self.counters.count(if self.owns(home) { Refusal::UnknownSpi } else { Refusal::NotOwned });
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, _now: Time) {}

    /// When [`Endpoint::handle_timeout`] is due next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        None
    }

    /// The next thing for the driver to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Answers [`Output::RequestAddress`].
    pub fn handle_address(&mut self, _now: Time, _request: RequestId, _address: Result<IpAddr, NoAddress>) {}

    /// Answers [`Output::Sign`].
    pub fn handle_signature(&mut self, _now: Time, _request: RequestId, _signature: Result<Vec<u8>, SignError>) {}

    /// Tells that authenticated ESP of the child `spi_in` came from `path` (RFC 7296 §2.23).
    pub fn handle_path_change(&mut self, _now: Time, _spi_in: Spi, _path: Path) {}

    /// The datapath asks for new keys: bytes, packets, sequence numbers or IVs of that child run out.
    pub fn handle_exhaustion(&mut self, _now: Time, _spi_in: Spi) {}

    /// Opens a session with `connection`, at home in `home`; returns its number.
    ///
    /// # Errors
    /// See [`InitiateError`].
    pub fn initiate(&mut self, _now: Time, connection: &str, _path: Path, home: WorkSet) -> Result<u64, InitiateError> {
        if !self.owns(home) {
            return Err(InitiateError::NotOwned);
        }
        if !self.config.connections.iter().any(|c| c.name == connection) {
            return Err(InitiateError::UnknownConnection);
        }
        let _ = &self.rng;
        Err(InitiateError::Full)
    }

    /// Replaces the IKE SA of a session.
    ///
    /// # Errors
    /// The session is not here.
    pub fn rekey_ike(&mut self, _now: Time, _session: u64) -> Result<(), NoSession> {
        Err(NoSession)
    }

    /// Replaces the child SAs of a session.
    ///
    /// # Errors
    /// The session is not here.
    pub fn rekey_child(&mut self, _now: Time, _session: u64) -> Result<(), NoSession> {
        Err(NoSession)
    }

    /// Ends a session and tells the peer.
    ///
    /// # Errors
    /// The session is not here.
    pub fn delete(&mut self, _now: Time, _session: u64) -> Result<(), NoSession> {
        Err(NoSession)
    }

    /// Asks the peer whether it is alive (RFC 7296 §2.4).
    ///
    /// # Errors
    /// The session is not here.
    pub fn probe(&mut self, _now: Time, _session: u64) -> Result<(), NoSession> {
        Err(NoSession)
    }

    /// Ends the sessions of `identity` other than `except`, after an INITIAL_CONTACT that another node received.
    pub fn end_identity(&mut self, _now: Time, _identity: &Identity, _except: u64) {}

    /// Whether a child SA of an owned set has that inbound SPI; after a take-over, ESP SAs without one are removed.
    #[must_use]
    pub fn has_child(&self, _spi_in: Spi) -> bool {
        false
    }

    /// Every session, for the operator.
    pub fn sessions(&self, _now: Time) -> impl Iterator<Item = Session> {
        std::iter::empty()
    }

    /// What was counted since the start.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }
}
