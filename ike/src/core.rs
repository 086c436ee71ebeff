//! What every exchange needs: randomness, the record store, the way out, and the protection of messages.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use crypto::IvSource;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use wire::{Change, CommitId, RecordId, RecordKind, Spi, Tenure, Time, WorkSet, Writer};

use crate::children::Children;
use crate::config::{Config, Connection, RemoteSelectors};
use crate::counters::Counters;
use crate::deadline::Deadline;
use crate::fault::{Reason, Refusal};
use crate::message::fragment::FragmentHeader;
use crate::message::header::{ExchangeType, Header};
use crate::message::payload::{PayloadType, PayloadWriter};
use crate::output::{Event, Output, Path, RequestId, Role};
use crate::pending::{PendingExchange, Verified};
use crate::sa::{Direction, Exchange, InFlight, RequestKind, Sa, SaState};
use auth::Identity;

/// Everything that is not an SA.
pub(crate) struct Core {
    pub(crate) config: Arc<Config>,
    pub(crate) rng: StdRng,
    pub(crate) tenures: HashMap<WorkSet, Tenure>,
    pub(crate) wall_clock: Option<(Time, Duration)>,
    /// Which SA a child belongs to, by our SPI.
    pub(crate) children: Children,
    pub(crate) outputs: VecDeque<Output>,
    pub(crate) events: Vec<Event>,
    pub(crate) counters: Counters,
    /// Which SA waits for which answer of the driver, and for an address its pool. The driver answers each question once.
    pub(crate) waiting: HashMap<RequestId, (u64, Option<String>)>,
    /// SAs that an exchange made; the endpoint takes them in when the exchange is done.
    #[expect(clippy::vec_box, reason = "the endpoint keeps them boxed")]
    pub(crate) spawned: Vec<Box<Sa>>,
    /// What an exchange asks to do with other SAs.
    pub(crate) commands: Vec<Command>,
    /// Children that went: the driver is told when that is stored.
    pub(crate) removed: Vec<(Spi, Reason)>,
    /// Octets of fragments that all SAs keep.
    pub(crate) reassembling: Arc<AtomicUsize>,
    pub(crate) commits: u64,
    pub(crate) requests: u64,
}

/// What an exchange on one SA means for others.
#[derive(Debug)]
pub(crate) enum Command {
    /// The SA with that SPI of ours takes over the children of the SA `from`, which it replaced.
    Inherit { from: u64, to: u64 },
    /// The same, and then the peer's delete of `from` is answered and `from` is over.
    InheritAndEnd { from: u64, to: u64, path: Path },
    /// The SA `ike` lost a collision against `by`; the peer will delete it.
    Supersede { ike: u64, by: u64 },
    /// Older sessions of that identity by that connection end.
    EndIdentity { identity: Identity, connection: String, except: u64 },
}

impl Core {
    pub(crate) fn new(config: Arc<Config>, seed: [u8; 32]) -> Self {
        Self {
            config,
            rng: StdRng::from_seed(seed),
            tenures: HashMap::new(),
            wall_clock: None,
            children: Children::default(),
            outputs: VecDeque::new(),
            events: Vec::new(),
            counters: Counters::default(),
            waiting: HashMap::new(),
            spawned: Vec::new(),
            commands: Vec::new(),
            removed: Vec::new(),
            reassembling: Arc::default(),
            commits: 0,
            requests: 0,
        }
    }

    pub(crate) fn output(&mut self, output: Output) {
        self.outputs.push_back(output);
    }

    /// Tells the operator, behind everything else: what is told is stored.
    pub(crate) fn event(&mut self, event: Event) {
        self.events.push(event);
    }

    /// Counts a refusal and tells the operator.
    pub(crate) fn refuse(&mut self, path: Path, refusal: Refusal, identity: Option<Identity>) {
        self.counters.count(refusal);
        self.event(Event::Refused { path, refusal, identity, certificate: None });
    }

    pub(crate) fn request_id(&mut self, ike: u64, pool: Option<String>) -> RequestId {
        self.requests = self.requests.saturating_add(1);
        let request = RequestId(self.requests);
        self.waiting.insert(request, (ike, pool));
        request
    }

    pub(crate) fn transmit(&mut self, path: Path, datagrams: &[Box<[u8]>], after: Option<CommitId>) {
        for datagram in datagrams {
            self.counters.datagrams_out = self.counters.datagrams_out.saturating_add(1);
            self.outputs.push_back(Output::Transmit { path, datagram: datagram.to_vec(), after });
        }
    }

    /// Writes the SA's record; what is transmitted after the returned commit finds it on every node.
    pub(crate) fn store(&mut self, now: Time, sa: &mut Sa) -> CommitId {
        let bytes = sa.state.export(now);
        let commit = self.change(record_id(&sa.state), Change::Put(bytes));
        sa.commit = Some(commit);
        sa.refresh_at = self.next_refresh(now);
        commit
    }

    /// When a record that was written, or taken over, at `now` is written again. Spread, so that the SAs of one take-over do
    /// not all come due at once.
    pub(crate) fn next_refresh(&mut self, now: Time) -> Deadline {
        self.jittered(now, REFRESH_MAX, REFRESH_JITTER)
    }

    /// The commit that covers what the SA last said. After a take-over the heir's copy is published first: the record may
    /// have reached nobody else.
    pub(crate) fn committed(&mut self, now: Time, sa: &mut Sa) -> CommitId {
        match sa.commit {
            Some(commit) => commit,
            None => self.store(now, sa),
        }
    }

    /// Deletes the SA's record and marks it as over.
    pub(crate) fn forget(&mut self, sa: &mut Sa) -> CommitId {
        sa.over = true;
        self.change(record_id(&sa.state), Change::Delete)
    }

    pub(crate) fn change(&mut self, id: RecordId, change: Change) -> CommitId {
        self.commits = self.commits.saturating_add(1);
        let commit = CommitId(self.commits);
        self.outputs.push_back(Output::Store { id, change, commit });
        commit
    }

    /// Random octets.
    pub(crate) fn random<const N: usize>(&mut self) -> [u8; N] {
        let mut octets = [0; N];
        self.rng.fill_bytes(&mut octets);
        octets
    }

    /// Draws an IKE SPI of that work set. 54 random bits do not come twice.
    pub(crate) fn draw_ike_spi(&mut self, home: WorkSet) -> u64 {
        loop {
            let spi = (self.rng.next_u64() & !0x03ff) | u64::from(home.index());
            if spi > 0x03ff {
                return spi;
            }
        }
    }

    /// Draws an SPI that no child has: 22 random bits do come twice.
    pub(crate) fn draw_child_spi(&mut self, home: WorkSet) -> Spi {
        loop {
            let spi = Spi::draw(home, &mut self.rng);
            if self.children.get(spi).is_none() {
                return spi;
            }
        }
    }

    /// The count of epochs of that set now, with which new keys are born.
    pub(crate) fn birth_count(&self, home: WorkSet) -> u32 {
        self.tenures.get(&home).map_or(0, |t| t.epoch.count)
    }

    /// IVs of this tenure for the SA's keys.
    pub(crate) fn iv_source(&self, state: &SaState) -> Option<IvSource> {
        IvSource::new(*self.tenures.get(&state.home())?, state.birth_count)
    }

    /// A rekey time: up to `jitter` earlier than `age`.
    pub(crate) fn jittered(&mut self, now: Time, age: Duration, jitter: Duration) -> Deadline {
        let range = u64::try_from(jitter.as_nanos()).unwrap_or(u64::MAX);
        let off = if range == 0 { 0 } else { self.rng.next_u64() % range };
        Deadline::after(now, if age.is_zero() { age } else { age.saturating_sub(Duration::from_nanos(off)) })
    }

    /// Protects `payloads` and makes the datagrams of one message of them. `None` if the SA has no keys or no IV left.
    pub(crate) fn seal(
        &mut self,
        sa: &mut Sa,
        exchange: ExchangeType,
        message_id: u32,
        kind: MessageKind,
        payloads: &PayloadWriter,
    ) -> Option<Vec<Box<[u8]>>> {
        let max = self.config.fragment_len_max;
        let plain = payloads.as_slice();
        let (sealed_len, part_len) = {
            let cipher = sa.state.cipher(Direction::Out)?;
            let overhead = HEADERS_LEN.saturating_add(FRAGMENT_HEADER_LEN).saturating_add(cipher.sealed_len(0));
            // CBC pads each part to whole blocks: leave room for one.
            (cipher.sealed_len(plain.len()), max.saturating_sub(overhead).saturating_sub(16).max(PART_LEN_MIN))
        };
        if !sa.state.fragmentation || sealed_len.saturating_add(HEADERS_LEN) <= max {
            return Some(vec![self.seal_part(sa, exchange, message_id, kind, payloads.first(), None, plain)?]);
        }
        let parts: Vec<&[u8]> = plain.chunks(part_len).collect();
        let total = u16::try_from(parts.len()).ok()?;
        let mut datagrams = Vec::with_capacity(parts.len());
        for (part, number) in parts.into_iter().zip(1_u16..) {
            let first = if number == 1 { payloads.first() } else { 0 };
            let header = FragmentHeader { number, total };
            datagrams.push(self.seal_part(sa, exchange, message_id, kind, first, Some(header), part)?);
        }
        Some(datagrams)
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one message")]
    fn seal_part(
        &mut self,
        sa: &mut Sa,
        exchange: ExchangeType,
        message_id: u32,
        kind: MessageKind,
        first_payload: u8,
        fragment: Option<FragmentHeader>,
        plain: &[u8],
    ) -> Option<Box<[u8]>> {
        let encryption = sa.state.suite?.encryption;
        let iv: Vec<u8> =
            if encryption.is_aead() { sa.iv.as_mut()?.next()?.0.to_vec() } else { self.random::<16>().to_vec() };
        let cipher = sa.state.cipher(Direction::Out)?;
        let payload = if fragment.is_some() { PayloadType::EncryptedFragment } else { PayloadType::Encrypted };
        let fragment_len = if fragment.is_some() { FRAGMENT_HEADER_LEN } else { 0 };
        let payload_len = cipher.sealed_len(plain.len()).saturating_add(4).saturating_add(fragment_len);
        let length = payload_len.saturating_add(28);
        let from_initiator = if sa.state.role == Role::Initiator { Header::INITIATOR } else { 0 };
        let header = Header {
            spi_i: sa.state.spi_i,
            spi_r: sa.state.spi_r,
            next_payload: payload.iana(),
            version: Header::VERSION_2,
            exchange,
            flags: from_initiator | if kind == MessageKind::Response { Header::RESPONSE } else { 0 },
            message_id,
            length: u32::try_from(length).ok()?,
        };
        let mut w = Writer::with_capacity(length);
        header.encode(&mut w);
        w.u8(first_payload);
        w.u8(0);
        w.u16(u16::try_from(payload_len).ok()?);
        if let Some(fragment) = fragment {
            fragment.encode(&mut w);
        }
        let mut message = w.into_bytes();
        cipher.seal(&mut message, &iv, plain);
        Some(message.into_boxed_slice())
    }

    /// Answers the peer's request: the answer goes into the cache, the record is written, and then it leaves.
    pub(crate) fn answer(
        &mut self,
        now: Time,
        sa: &mut Sa,
        path: Path,
        exchange: ExchangeType,
        payloads: &PayloadWriter,
    ) {
        let message_id = sa.state.next_expected;
        let Some(datagrams) = self.seal(sa, exchange, message_id, MessageKind::Response, payloads) else {
            self.end(sa, Reason::IvExhausted);
            return;
        };
        sa.state.answer = datagrams;
        sa.state.next_expected = message_id.saturating_add(1);
        sa.reassembly = None;
        let commit = self.store(now, sa);
        self.transmit(path, &sa.state.answer, Some(commit));
    }

    /// Answers a repeated request from the cache, at a bounded rate: whoever recorded a request could else have the answer,
    /// which may be many times as long, sent to anybody.
    pub(crate) fn answer_again(&mut self, now: Time, sa: &mut Sa, path: Path) -> Result<(), Refusal> {
        if sa.state.answer.is_empty() {
            return Ok(());
        }
        if !sa.answer_again_at.is_due(now) {
            return Err(Refusal::RepeatedTooSoon);
        }
        sa.answer_again_at = Deadline::at(now + ANSWER_AGAIN_AFTER);
        self.counters.answers_repeated = self.counters.answers_repeated.saturating_add(1);
        let commit = self.committed(now, sa);
        self.transmit(path, &sa.state.answer, Some(commit));
        Ok(())
    }

    /// Sends a request of ours.
    pub(crate) fn request(
        &mut self,
        now: Time,
        sa: &mut Sa,
        exchange: ExchangeType,
        kind: RequestKind,
        payloads: &PayloadWriter,
        secrets: Option<Box<Exchange>>,
    ) {
        let message_id = sa.state.next_request;
        let Some(datagrams) = self.seal(sa, exchange, message_id, MessageKind::Request, payloads) else {
            self.end(sa, Reason::IvExhausted);
            return;
        };
        sa.state.next_request = message_id.saturating_add(1);
        self.launch(now, sa, message_id, kind, datagrams, secrets);
    }

    /// Puts a request in flight: stores it, then sends it.
    pub(crate) fn launch(
        &mut self,
        now: Time,
        sa: &mut Sa,
        message_id: u32,
        kind: RequestKind,
        datagrams: Vec<Box<[u8]>>,
        exchange: Option<Box<Exchange>>,
    ) {
        sa.reassembly = None;
        sa.state.in_flight = Some(Box::new(InFlight {
            message_id,
            datagrams,
            kind,
            repeated: 0,
            repeat_at: Deadline::after(now, self.config.retransmission.first),
            exchange,
            unknown: Default::default(),
        }));
        let commit = self.store(now, sa);
        if let Some(in_flight) = &sa.state.in_flight {
            let path = sa.state.path();
            // Cloned cheaply enough: requests are rare.
            let datagrams = in_flight.datagrams.clone();
            self.transmit(path, &datagrams, Some(commit));
        }
    }

    /// Has a child removed, once the record says so: a node that dies before removes it when its heir has taken over.
    pub(crate) fn remove_child(&mut self, spi_in: Spi, reason: Reason) {
        self.removed.push((spi_in, reason));
    }

    /// Gives back an address that a login did not come to use.
    pub(crate) fn give_back(&mut self, sa: &Sa, verified: &Verified) {
        let config = Arc::clone(&self.config);
        let pool = connection(&config, &verified.connection).map(|c| &c.remote_selectors);
        if let (Some(address), Some(RemoteSelectors::Pool(pool))) = (verified.address, pool) {
            let session = sa.state.session;
            self.output(Output::ReleaseAddress { pool: pool.clone(), address, session });
        }
    }

    /// Ends an SA on our side at once: children go, the address goes back, the record goes.
    pub(crate) fn end(&mut self, sa: &mut Sa, reason: Reason) -> CommitId {
        let commit = self.forget(sa);
        for child in std::mem::take(&mut sa.state.children) {
            self.remove_child(child.spi_in, reason);
        }
        if let Some(PendingExchange::AnswerSignature(verified, _)) = sa.pending.as_deref().map(|p| &p.exchange) {
            self.give_back(sa, verified);
        }
        let carries_session = !matches!(sa.state.phase, crate::sa::Phase::Replaced { .. });
        if carries_session && reason != Reason::Rekeyed {
            if let (Some(address), Some(pool)) = (sa.state.inner_address, sa.state.pool.take()) {
                self.output(Output::ReleaseAddress { pool, address, session: sa.state.session });
            }
            self.event(Event::Closed { session: sa.state.session, reason });
        }
        commit
    }
}

/// Whether a message asks or answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MessageKind {
    Request,
    Response,
}

/// A record is never older than this, and so no deadline or age that an heir reads in it is wrong by more. Our policy: the
/// default interval of liveness checks, which write the record, too.
const REFRESH_MAX: Duration = Duration::from_secs(60);
const REFRESH_JITTER: Duration = Duration::from_secs(15);

/// Between two repetitions of one answer lies this much time at the least. Our policy: no peer waits less for an answer.
const ANSWER_AGAIN_AFTER: Duration = Duration::from_millis(100);
/// Octets of the IKE header and the generic header of the Encrypted payload.
const HEADERS_LEN: usize = 32;
const FRAGMENT_HEADER_LEN: usize = 4;
/// Octets of payloads in a fragment at the least, however small the operator's bound.
const PART_LEN_MIN: usize = 512;

pub(crate) fn record_id(state: &SaState) -> RecordId {
    RecordId { set: state.home(), kind: RecordKind::IKE_SA, key: u128::from(state.our_spi()) }
}

/// The connection of that name.
pub(crate) fn connection<'c>(config: &'c Config, name: &str) -> Option<&'c Connection> {
    config.connections.iter().find(|c| c.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_spi_that_a_child_has_is_not_drawn_again() {
        let home = WorkSet::new(7).unwrap();
        let drawn = Core::new(Arc::default(), [1; 32]).draw_child_spi(home);
        let mut core = Core::new(Arc::default(), [1; 32]);
        core.children.insert(drawn, 1);
        let other = core.draw_child_spi(home);
        assert_ne!(other, drawn);
        assert_eq!(other.work_set(), home);
    }
}
