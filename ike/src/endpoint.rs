//! Every IKE SA that this node owns.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use auth::Identity;
use wire::{Change, DecodeError, Reader, RecordId, RecordKind, Spi, Tenure, Time, WorkSet};

use crate::authenticate::Taken;
use crate::config::Config;
use crate::core::{Command, Core, record_id};
use crate::counters::Counters;
use crate::deadline::Deadline;
use crate::fault::{Reason, Refusal};
use crate::init::{self, InitOutcome, Load};
use crate::message::header::{ExchangeType, Header};
use crate::message::notify::{Notify, NotifyType};
use crate::output::{InitiateError, NoAddress, NoSession, Output, Path, RequestId, Session, SessionState, SignError};
use crate::pending::PendingExchange;
use crate::sa::{ChildFate, Opened, Phase, Sa, SaState};
use crate::schedule::Followed;
use crate::{authenticate, informational, receive, rekey_ike, schedule};

/// Every IKE SA of the work sets that this node owns: no socket, no clock, no thread.
///
/// After each call the driver empties [`Endpoint::poll_output`] and then sleeps until [`Endpoint::poll_timeout`].
pub struct Endpoint {
    core: Core,
    /// By our SPI.
    sas: HashMap<u64, Box<Sa>>,
    /// Half-open SAs as responder, by the request that opened them. Bounded by `half_open_max`.
    half_open: HashMap<Opened, u64>,
    /// Sessions whose first IKE SA was replaced: our SPI of the one that carries them now.
    moved_sessions: HashMap<u64, u64>,
    /// One entry for each SA that has something to do.
    deadlines: BTreeSet<(Deadline, u64)>,
}

impl Endpoint {
    /// Starts without a work set. All randomness comes from `seed`, which must be unpredictable and used once.
    #[must_use]
    pub fn new(config: Arc<Config>, seed: [u8; 32]) -> Self {
        Self {
            core: Core::new(config, seed),
            sas: HashMap::new(),
            half_open: HashMap::new(),
            moved_sessions: HashMap::new(),
            deadlines: BTreeSet::new(),
        }
    }

    /// Takes a new configuration; SAs that are up keep what they negotiated.
    pub fn set_config(&mut self, config: Arc<Config>) {
        self.core.config = config;
    }

    /// Tells that `now` is `unix` after 1970-01-01; used for certificates only.
    pub fn set_wall_clock(&mut self, now: Time, unix: Duration) {
        self.core.wall_clock = Some((now, unix));
    }

    /// Becomes the owner of `set`: reads its IKE records, arms their timers again and repeats requests in flight.
    ///
    /// An empty iterator starts an empty set. Returns the records that could not be read. No two calls for one set may
    /// bring the same `tenure`: IVs are unique by it.
    pub fn adopt_set(
        &mut self,
        now: Time,
        set: WorkSet,
        tenure: Tenure,
        records: &mut dyn Iterator<Item = (RecordId, &[u8])>,
    ) -> Vec<(RecordId, DecodeError)> {
        self.core.tenures.insert(set, tenure);
        let mut refused = Vec::new();
        let mut adopted: HashMap<u64, SaState> = HashMap::new();
        for (id, bytes) in records.filter(|(id, _)| id.kind == RecordKind::IKE_SA && id.set == set) {
            match SaState::import(bytes, now) {
                Ok(state) if record_id(&state) == id => {
                    adopted.insert(state.our_spi(), state);
                }
                Ok(_) => {
                    let cause = wire::Cause::Conflict;
                    refused.push((id, DecodeError { field: "spi", offset: 0, cause }));
                }
                Err(error) => refused.push((id, error)),
            }
        }
        let orphans: Vec<u64> = adopted.values().filter(|s| is_orphan(s, &adopted)).map(SaState::our_spi).collect();
        for spi in orphans {
            if let Some(state) = adopted.remove(&spi) {
                self.core.change(record_id(&state), Change::Delete);
            }
        }
        let known: HashSet<u64> = adopted.keys().copied().collect();
        for mut state in adopted.into_values() {
            state.predecessor = state.predecessor.filter(|spi| known.contains(spi));
            self.adopt(now, state);
        }
        refused
    }

    fn adopt(&mut self, now: Time, mut state: SaState) {
        if let Some(in_flight) = &mut state.in_flight {
            in_flight.repeat_at = Deadline::at(now);
            in_flight.repeated = 0;
        }
        let ike = state.our_spi();
        let mut sa = Box::new(Sa::new(state, now));
        sa.iv = self.core.iv_source(&sa.state);
        sa.refresh_at = self.core.next_refresh(now);
        let needs_iv = sa.state.suite.is_some_and(|s| s.encryption.is_aead());
        if needs_iv && sa.iv.is_none() {
            self.core.end(&mut sa, Reason::IvExhausted);
        } else {
            self.core.counters.adopted = self.core.counters.adopted.saturating_add(1);
        }
        self.sas.insert(ike, sa);
        self.settle(now, ike);
    }

    /// Stops to own `set`, silently: its records live on in the cluster. Returns how many IKE SAs went.
    pub fn release_set(&mut self, set: WorkSet) -> usize {
        self.core.tenures.remove(&set);
        let released: Vec<u64> = self.sas.keys().copied().filter(|spi| WorkSet::from_low_bits(*spi) == set).collect();
        for ike in &released {
            self.drop_sa(*ike);
        }
        // An address that is still on its way belongs to the heir, who will ask for it again.
        self.core.waiting.retain(|_, (ike, _)| WorkSet::from_low_bits(*ike) != set);
        released.len()
    }

    /// Whether this endpoint owns `set`.
    #[must_use]
    pub fn owns(&self, set: WorkSet) -> bool {
        self.core.tenures.contains_key(&set)
    }

    /// Takes in one datagram, a non-ESP marker already off. `home` is the work set that the dispatch function names for
    /// it; it decides where a new SA lives.
    pub fn handle_datagram(&mut self, now: Time, path: Path, home: WorkSet, datagram: &[u8]) {
        self.core.counters.datagrams_in = self.core.counters.datagrams_in.saturating_add(1);
        let Ok(header) = Header::decode(&mut Reader::new(datagram)) else {
            self.core.counters.count(Refusal::Malformed);
            return;
        };
        if header.major_version() != 2 {
            self.core.refuse(path, Refusal::Version, None);
            // RFC 7296 §2.5: a newer peer is told the highest version that we speak.
            if header.major_version() > 2 && !header.is_response() && self.owns(home) {
                let notify = Notify::new(NotifyType::INVALID_MAJOR_VERSION, &[Header::VERSION_2 >> 4]);
                init::answer_stateless(&mut self.core, path, &header, &notify);
            }
            self.settle(now, 0);
            return;
        }
        let ours = if header.is_from_initiator() { header.spi_r } else { header.spi_i };
        if ours == 0 {
            self.on_first_request(now, path, home, &header, datagram);
            return;
        }
        let Some(sa) = self.sas.get_mut(&ours) else {
            let owned = self.owns(WorkSet::from_low_bits(ours));
            self.core.counters.count(if owned { Refusal::UnknownSpi } else { Refusal::NotOwned });
            return;
        };
        let awaits_init = matches!(sa.state.phase, Phase::AwaitInitAnswer(_));
        let peer_spi = if header.is_from_initiator() { header.spi_i } else { header.spi_r };
        let known_spi = if header.is_from_initiator() { sa.state.spi_i } else { sa.state.spi_r };
        let our_role_fits = header.is_from_initiator() == (sa.state.role == crate::output::Role::Responder);
        if !our_role_fits || (peer_spi != known_spi && !awaits_init) {
            self.core.counters.count(Refusal::UnknownSpi);
            return;
        }
        match (header.exchange, awaits_init) {
            (ExchangeType::IkeSaInit, true) => {
                // While our signature is made, the same answer again says nothing new.
                let answered = sa.pending.is_some() || !header.is_response() || header.message_id != 0;
                if !answered
                    && init::on_answer(&mut self.core, now, sa, path, &header, datagram) == InitOutcome::Complete
                {
                    authenticate::send_request(&mut self.core, now, sa);
                }
            }
            // Anybody can send this; the exchange is over.
            (ExchangeType::IkeSaInit, false) => self.core.counters.count(Refusal::Unauthenticated),
            (_, true) => self.core.counters.count(Refusal::Exchange),
            (_, false) => receive::on_message(&mut self.core, now, sa, path, &header, datagram),
        }
        self.settle(now, ours);
    }

    fn on_first_request(&mut self, now: Time, path: Path, home: WorkSet, header: &Header, datagram: &[u8]) {
        let first = header.exchange == ExchangeType::IkeSaInit && !header.is_response() && header.message_id == 0;
        if !first || !header.is_from_initiator() {
            self.core.counters.count(Refusal::UnknownSpi);
            return;
        }
        if !self.owns(home) {
            self.core.counters.count(Refusal::NotOwned);
            return;
        }
        // Before anything is done with its octets.
        if datagram.len() > init::REQUEST_LEN_MAX {
            self.core.counters.count(Refusal::TooLong);
            return;
        }
        if let Some(sa) = self.half_open.get(&Opened::of(path.remote, datagram)).and_then(|ike| self.sas.get_mut(ike)) {
            // Once IKE_AUTH was answered the cache holds that answer.
            let answered = if sa.state.next_expected == 1 {
                self.core.answer_again(now, sa, path)
            } else {
                Err(Refusal::MessageId)
            };
            if let Err(refusal) = answered {
                self.core.counters.count(refusal);
            }
            return;
        }
        let load = Load { half_open: self.half_open.len(), sas: self.sas.len() };
        let opened = init::on_request(&mut self.core, now, path, home, header, datagram, load);
        let ike = opened.as_ref().map_or(0, |sa| sa.state.our_spi());
        self.sas.extend(opened.map(|sa| (ike, sa)));
        self.settle(now, ike);
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Time) {
        let due: Vec<u64> = self.deadlines.iter().take_while(|(at, _)| at.is_due(now)).map(|(_, ike)| *ike).collect();
        for ike in due {
            if let Some(sa) = self.sas.get_mut(&ike) {
                schedule::on_timeout(&mut self.core, now, sa);
            }
            self.settle(now, ike);
        }
    }

    /// When [`Endpoint::handle_timeout`] is due next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        self.deadlines.first().and_then(|(at, _)| at.time())
    }

    /// The next thing for the driver to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.core.outputs.pop_front()
    }

    /// Answers [`Output::RequestAddress`]. An address that nobody waits for any more is given back.
    pub fn handle_address(&mut self, now: Time, request: RequestId, address: Result<IpAddr, NoAddress>) {
        let Some((ike, pool)) = self.core.waiting.remove(&request) else { return };
        let taken = match self.sas.get_mut(&ike) {
            Some(sa) => authenticate::on_address(&mut self.core, now, sa, request, address),
            None => Taken::No,
        };
        if let (Taken::No, Ok(address), Some(pool)) = (taken, address, pool) {
            // Only an SA that logs in asks, and that is the session's first.
            self.core.output(Output::ReleaseAddress { pool, address, session: ike });
        }
        self.settle(now, ike);
    }

    /// Answers [`Output::Sign`].
    pub fn handle_signature(&mut self, now: Time, request: RequestId, signature: Result<Vec<u8>, SignError>) {
        let Some((ike, _)) = self.core.waiting.remove(&request) else { return };
        if let Some(sa) = self.sas.get_mut(&ike) {
            match sa.pending.take_if(|p| p.request == request).map(|p| p.exchange) {
                Some(PendingExchange::AnswerSignature(verified, scheme)) => {
                    authenticate::on_answer_signature(&mut self.core, now, sa, *verified, scheme, signature);
                }
                Some(PendingExchange::RequestSignature(scheme)) => {
                    authenticate::on_request_signature(&mut self.core, now, sa, scheme, signature);
                }
                Some(PendingExchange::Address(_)) | None => {}
            }
        }
        self.settle(now, ike);
    }

    /// Tells that authenticated ESP of the child `spi_in` came from `path` (RFC 7296 §2.23).
    pub fn handle_path_change(&mut self, now: Time, spi_in: Spi, path: Path) {
        let Some(sa) = self.core.children.get(spi_in).and_then(|ike| self.sas.get_mut(&ike)) else { return };
        if schedule::follow(&mut self.core, sa, path) == Followed::Yes {
            self.core.store(now, sa);
        }
    }

    /// The datapath asks for new keys: bytes, packets, sequence numbers or IVs of that child run out.
    pub fn handle_exhaustion(&mut self, now: Time, spi_in: Spi) {
        let Some(ike) = self.core.children.get(spi_in) else { return };
        if let Some(sa) = self.sas.get_mut(&ike) {
            if let Some(child) = sa.state.child_mut(spi_in).filter(|c| c.fate == ChildFate::Active) {
                child.rekey_at = Deadline::at(now);
            }
            schedule::start(&mut self.core, now, sa);
        }
        self.settle(now, ike);
    }

    /// Opens a session with `connection`, at home in `home`; returns its number.
    ///
    /// # Errors
    /// See [`InitiateError`].
    pub fn initiate(&mut self, now: Time, connection: &str, path: Path, home: WorkSet) -> Result<u64, InitiateError> {
        if !self.owns(home) {
            return Err(InitiateError::NotOwned);
        }
        if self.sas.len() >= self.core.config.sas_max {
            return Err(InitiateError::Full);
        }
        let config = Arc::clone(&self.core.config);
        let connection = crate::core::connection(&config, connection).ok_or(InitiateError::UnknownConnection)?;
        let group = match (connection.ike_proposals.first(), connection.esp_proposals.first()) {
            (Some(suite), Some(_)) => suite.group,
            (None, _) | (_, None) => return Err(InitiateError::NoProposal),
        };
        let sa = init::initiate(&mut self.core, now, &connection.name, path, home, group);
        let ike = sa.state.our_spi();
        self.sas.insert(ike, sa);
        self.settle(now, ike);
        Ok(ike)
    }

    /// Replaces the IKE SA of a session.
    ///
    /// # Errors
    /// The session is not here.
    pub fn rekey_ike(&mut self, now: Time, session: u64) -> Result<(), NoSession> {
        self.act(now, session, |sa| sa.state.rekey_at = Deadline::at(now))
    }

    /// Replaces the child SAs of a session.
    ///
    /// # Errors
    /// The session is not here.
    pub fn rekey_child(&mut self, now: Time, session: u64) -> Result<(), NoSession> {
        self.act(now, session, |sa| {
            let active = sa.state.children.iter_mut().filter(|c| c.fate == ChildFate::Active);
            active.for_each(|c| c.rekey_at = Deadline::at(now));
        })
    }

    /// Ends a session and tells the peer.
    ///
    /// # Errors
    /// The session is not here.
    pub fn delete(&mut self, now: Time, session: u64) -> Result<(), NoSession> {
        self.close(now, session, Reason::OperatorDeleted)
    }

    fn close(&mut self, now: Time, session: u64, reason: Reason) -> Result<(), NoSession> {
        let ike = self.carrier(session).ok_or(NoSession)?;
        let Some(sa) = self.sas.get_mut(&ike) else { return Err(NoSession) };
        sa.state.closing.get_or_insert(reason);
        if matches!(sa.state.phase, Phase::Established) {
            if schedule::start(&mut self.core, now, sa) == schedule::Started::No {
                self.core.store(now, sa);
            }
        } else {
            self.core.end(sa, reason);
        }
        self.settle(now, ike);
        Ok(())
    }

    /// Asks the peer whether it is alive (RFC 7296 §2.4).
    ///
    /// # Errors
    /// The session is not here.
    pub fn probe(&mut self, now: Time, session: u64) -> Result<(), NoSession> {
        self.act(now, session, |sa| sa.state.probe_at = Deadline::at(now))
    }

    /// Ends the sessions of `identity` by `connection` other than `except`, after an INITIAL_CONTACT that another node
    /// received. Who proves an identity in one connection, perhaps by a secret of many, ends none that another asks a better
    /// proof for.
    pub fn end_identity(&mut self, now: Time, identity: &Identity, connection: &str, except: u64) {
        // RFC 7296 §2.4: the peer has forgotten them, so it is not asked.
        let ended: Vec<u64> = self
            .sas
            .values()
            .filter(|sa| sa.state.session != except && sa.state.connection == connection)
            .filter(|sa| sa.state.identity.as_ref().is_some_and(|own| own.0 == *identity))
            .map(|sa| sa.state.our_spi())
            .collect();
        for ike in ended {
            if let Some(sa) = self.sas.get_mut(&ike) {
                self.core.end(sa, Reason::Superseded);
            }
            self.settle(now, ike);
        }
    }

    /// Whether a child SA of an owned set has that inbound SPI; after a take-over, ESP SAs without one are removed.
    #[must_use]
    pub fn has_child(&self, spi_in: Spi) -> bool {
        self.core.children.get(spi_in).is_some()
    }

    /// Tells that the datapath has no such pair after a take-over, because its record was lost or cannot be read: the peer is
    /// told that it is gone, and a session without any pair ends.
    pub fn handle_missing_child(&mut self, now: Time, spi_in: Spi) {
        let Some(ike) = self.core.children.get(spi_in) else { return };
        if let Some(sa) = self.sas.get_mut(&ike) {
            if let Some(child) = sa.state.child_mut(spi_in) {
                child.fate = ChildFate::WeDelete(Reason::RecordLost);
                child.rekey_at = Deadline::NEVER;
            }
            schedule::start(&mut self.core, now, sa);
        }
        self.settle(now, ike);
    }

    /// The inbound SPIs of the child SAs that live in `set`.
    pub fn children_of(&self, set: WorkSet) -> impl Iterator<Item = Spi> {
        self.core.children.of(set)
    }

    /// Every session, for the operator.
    pub fn sessions(&self, now: Time) -> impl Iterator<Item = Session> {
        self.sas
            .values()
            .filter(|sa| !matches!(sa.state.phase, Phase::Replaced { .. }))
            .map(move |sa| Session { idle: Some(now.since(sa.heard)), ..session(&sa.state, now) })
    }

    /// What was counted since the start.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.core.counters
    }

    /// Our SPI of the IKE SA that carries a session.
    fn carrier(&self, session: u64) -> Option<u64> {
        Some(self.moved_sessions.get(&session).copied().unwrap_or(session)).filter(|ike| self.sas.contains_key(ike))
    }

    fn act(&mut self, now: Time, session: u64, act: impl FnOnce(&mut Sa)) -> Result<(), NoSession> {
        let ike = self.carrier(session).ok_or(NoSession)?;
        let Some(sa) = self.sas.get_mut(&ike) else { return Err(NoSession) };
        act(sa);
        schedule::start(&mut self.core, now, sa);
        self.settle(now, ike);
        Ok(())
    }

    /// Brings the indexes in line with an SA that something happened to, and with what it asked of others.
    fn settle(&mut self, now: Time, ike: u64) {
        let mut changed = vec![ike];
        loop {
            for (spi_in, reason) in std::mem::take(&mut self.core.removed) {
                self.core.children.remove(spi_in);
                self.core.output(Output::RemoveChild { spi_in, reason });
            }
            for sa in std::mem::take(&mut self.core.spawned) {
                changed.push(sa.state.our_spi());
                self.sas.insert(sa.state.our_spi(), sa);
            }
            for ike in std::mem::take(&mut changed) {
                self.index(ike);
            }
            let commands = std::mem::take(&mut self.core.commands);
            if commands.is_empty() {
                break;
            }
            for command in commands {
                self.carry_out(now, command, &mut changed);
            }
        }
        self.core.outputs.extend(std::mem::take(&mut self.core.events).into_iter().map(Output::Event));
    }

    fn index(&mut self, ike: u64) {
        let Some(sa) = self.sas.get_mut(&ike) else { return };
        if sa.over {
            self.drop_sa(ike);
            return;
        }
        for child in &sa.state.children {
            self.core.children.insert(child.spi_in, ike);
        }
        let key = sa.opened;
        match sa.state.phase {
            Phase::AwaitAuth(_) => {
                self.half_open.insert(key, ike);
            }
            Phase::Established if sa.state.session != ike => {
                self.moved_sessions.insert(sa.state.session, ike);
            }
            Phase::AwaitInitAnswer(_) | Phase::AwaitAuthAnswer(_) | Phase::Established | Phase::Replaced { .. } => {}
        }
        if !matches!(sa.state.phase, Phase::AwaitAuth(_)) && self.half_open.get(&key) == Some(&ike) {
            self.half_open.remove(&key);
        }
        let due = schedule::due(sa);
        if due != sa.due {
            self.deadlines.remove(&(sa.due, ike));
            if due != Deadline::NEVER {
                self.deadlines.insert((due, ike));
            }
            sa.due = due;
        }
    }

    fn drop_sa(&mut self, ike: u64) {
        let Some(sa) = self.sas.remove(&ike) else { return };
        self.deadlines.remove(&(sa.due, ike));
        let key = sa.opened;
        if self.half_open.get(&key) == Some(&ike) {
            self.half_open.remove(&key);
        }
        for child in &sa.state.children {
            self.core.children.remove(child.spi_in);
        }
        if self.moved_sessions.get(&sa.state.session) == Some(&ike) {
            self.moved_sessions.remove(&sa.state.session);
        }
        if let Phase::Replaced { by } = sa.state.phase
            && let Some(successor) = self.sas.get_mut(&by)
            && successor.state.predecessor == Some(ike)
        {
            successor.state.predecessor = None;
        }
    }

    fn carry_out(&mut self, now: Time, command: Command, changed: &mut Vec<u64>) {
        match command {
            Command::Inherit { from, to } => {
                self.inherit(now, from, to);
                changed.extend([from, to]);
            }
            Command::InheritAndEnd { from, to, path } => {
                self.inherit(now, from, to);
                if let Some(sa) = self.sas.get_mut(&from) {
                    let nothing = crate::message::payload::PayloadWriter::new();
                    let exchange = ExchangeType::Informational;
                    informational::last_answer(&mut self.core, sa, path, exchange, &nothing, Reason::Rekeyed);
                }
                changed.extend([from, to]);
            }
            Command::Supersede { ike, by } => {
                if let Some(sa) = self.sas.get_mut(&ike) {
                    rekey_ike::supersede(now, sa, by);
                    self.core.store(now, sa);
                }
                changed.push(ike);
            }
            Command::EndIdentity { identity, connection, except } => {
                self.end_identity(now, &identity, &connection, except);
            }
        }
    }

    fn inherit(&mut self, now: Time, from: u64, to: u64) {
        let Some(mut old) = self.sas.remove(&from) else { return };
        if let Some(new) = self.sas.get_mut(&to) {
            rekey_ike::inherit(&mut self.core, now, &mut old, new);
        }
        self.sas.insert(from, old);
    }
}

/// An SA whose predecessor does not know it: the node died between the two records, the peer never saw an answer, and
/// the exchange happens again.
fn is_orphan(state: &SaState, all: &HashMap<u64, SaState>) -> bool {
    let Some(old) = state.predecessor.and_then(|spi| all.get(&spi)) else { return false };
    let spi = state.our_spi();
    let rival = old.in_flight.as_deref().and_then(|f| f.exchange.as_deref()).and_then(|e| e.rival);
    let named = matches!(old.phase, Phase::Replaced { .. }) || rival == Some(spi);
    !named && matches!(state.phase, Phase::Established)
}

impl Session {
    /// Reads the session out of a record of an IKE SA, on whichever node; `None` if another SA carries it by now. Ages and
    /// times left are as of the record's writing, a minute ago at most.
    ///
    /// # Errors
    /// The octets are no such record.
    pub fn from_record(octets: &[u8]) -> Result<Option<Self>, DecodeError> {
        let state = SaState::import(octets, Time::ZERO)?;
        Ok((!matches!(state.phase, Phase::Replaced { .. })).then(|| session(&state, Time::ZERO)))
    }
}

fn session(state: &SaState, now: Time) -> Session {
    Session {
        session: state.session,
        ike: state.our_spi(),
        home: state.home(),
        connection: state.connection.clone(),
        identity: state.identity.as_ref().map(|i| i.0.clone()),
        role: state.role,
        path: state.path(),
        inner_address: state.inner_address,
        state: match (&state.phase, state.closing) {
            (_, Some(_)) => SessionState::Closing,
            (Phase::Established | Phase::Replaced { .. }, None) => SessionState::Established,
            (Phase::AwaitInitAnswer(_) | Phase::AwaitAuthAnswer(_) | Phase::AwaitAuth(_), None) => {
                SessionState::Connecting
            }
        },
        suite: state.suite,
        child_suite: state.children.first().map(|child| child.suite),
        children: state.children.iter().map(|c| c.spi_in).collect(),
        age: state.age.at(now),
        established: state.session_age.map(|age| age.at(now)),
        ike_rekeys: state.ike_rekeys,
        child_rekeys: state.child_rekeys,
        rekey_in: state.rekey_at.time().map(|at| at.since(now)),
        idle: None,
    }
}
