//! IKE_SA_INIT (RFC 7296 §1.2), both roles, with COOKIE (§2.6), INVALID_KE_PAYLOAD (§1.3) and NAT detection (§2.23).

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crypto::{DhPrivate, Group, Prf, PrfKey, SIGNATURE_HASHES};
use wire::{DecodeError, Reader, Secret, Time, WorkSet, Writer};

use crate::config::{Config, IkeProposal, RemoteAuth};
use crate::core::{Core, connection};
use crate::deadline::{Age, Deadline};
use crate::fault::{Reason, Refusal};
use crate::keys::{Freshness, Keys};
use crate::message::auth::encode_certificate_request;
use crate::message::header::{ExchangeType, Header};
use crate::message::notify::{Notify, NotifyType};
use crate::message::payload::{ChainError, KeyExchange, PayloadType, PayloadWriter, Payloads, decode_nonce};
use crate::message::proposal;
use crate::output::{Output, Path, Role};
use crate::sa::{Group16, HalfOpen, Opening, Phase, RequestKind, Sa, SaState};

/// How often an initiator begins anew because it is told to. Our policy: a cookie, a group and a spare.
const RESTARTS_MAX: u8 = 4;
/// Octets of a cookie that we send back (RFC 7296 §2.6).
const COOKIE_LEN_MAX: usize = 64;
/// Seconds after which cookies change (RFC 7296 §2.6 asks for that), so that none can be collected for later.
const COOKIE_PERIOD_S: u64 = 60;
/// Octets of our nonces: at least half of the largest PRF key (RFC 7296 §2.10).
const NONCE_LEN: usize = 32;
/// Octets of a first request at the most: it is kept until its sender is authenticated, who may be anybody. Our bound;
/// strongSwan's default with all of its proposals has about 1,200.
pub(crate) const REQUEST_LEN_MAX: usize = 4096;
/// Hash algorithms of a peer that we remember. Our bound; IANA lists fewer.
const PEER_HASHES_MAX: usize = 16;

/// What stands in a first message of either side.
struct InitMessage<'a> {
    proposals: Vec<proposal::Proposal<'a>>,
    ke: KeyExchange<'a>,
    nonce: &'a [u8],
    notifies: InitNotifies<'a>,
}

#[derive(Default)]
struct InitNotifies<'a> {
    cookie: Option<&'a [u8]>,
    invalid_ke: Option<u16>,
    error: Option<NotifyType>,
    nat_sources: Vec<&'a [u8]>,
    nat_destination: Option<&'a [u8]>,
    fragmentation: bool,
    hashes: Vec<u16>,
}

impl<'a> InitNotifies<'a> {
    fn decode(payloads: &Payloads<'a>) -> Result<Self, DecodeError> {
        let mut all = Self::default();
        for payload in payloads.all(PayloadType::Notify) {
            let notify = Notify::decode(payload)?;
            match notify.kind {
                NotifyType::COOKIE => all.cookie = Some(notify.data),
                NotifyType::INVALID_KE_PAYLOAD => {
                    all.invalid_ke = Some(Reader::new(notify.data).u16("Diffie-Hellman Group Num")?);
                }
                NotifyType::NAT_DETECTION_SOURCE_IP => all.nat_sources.push(notify.data),
                NotifyType::NAT_DETECTION_DESTINATION_IP => all.nat_destination = Some(notify.data),
                NotifyType::IKEV2_FRAGMENTATION_SUPPORTED => all.fragmentation = true,
                NotifyType::SIGNATURE_HASH_ALGORITHMS => {
                    let mut r = Reader::new(notify.data);
                    while !r.is_empty() && all.hashes.len() < PEER_HASHES_MAX {
                        all.hashes.push(r.u16("Hash Algorithm")?);
                    }
                }
                kind if kind.is_error() => all.error = Some(kind),
                _ => {}
            }
        }
        Ok(all)
    }
}

impl<'a> InitMessage<'a> {
    fn decode(payloads: &Payloads<'a>, notifies: InitNotifies<'a>) -> Result<Self, DecodeError> {
        Ok(Self {
            proposals: proposal::decode(payloads.exactly_one(PayloadType::SecurityAssociation)?)?,
            ke: KeyExchange::decode(payloads.exactly_one(PayloadType::KeyExchange)?)?,
            nonce: decode_nonce(payloads.exactly_one(PayloadType::Nonce)?)?,
            notifies,
        })
    }
}

/// How busy the responder is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) half_open: usize,
    pub(crate) sas: usize,
}

/// Takes a first request; gives the half-open SA that it opened.
pub(crate) fn on_request(
    core: &mut Core,
    now: Time,
    path: Path,
    home: WorkSet,
    header: &Header,
    datagram: &[u8],
    load: Load,
) -> Option<Box<Sa>> {
    let mut r = Reader::new(datagram.get(28..)?);
    let payloads = match Payloads::decode(header.next_payload, &mut r) {
        Ok(payloads) => payloads,
        Err(ChainError::UnknownCritical(kind)) => {
            core.refuse(path, Refusal::UnsupportedCriticalPayload, None);
            answer_stateless(core, path, header, &Notify::new(NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD, &[kind]));
            return None;
        }
        Err(ChainError::Decode(_)) => {
            core.counters.count(Refusal::Malformed);
            return None;
        }
    };
    let Ok(notifies) = InitNotifies::decode(&payloads) else {
        core.counters.count(Refusal::Malformed);
        return None;
    };
    let config = Arc::clone(&core.config);
    if load.half_open >= config.cookie_threshold {
        // RFC 7296 §2.6: nothing is kept, and no key exchange computed, before the peer has shown its address.
        let nonce = payloads.exactly_one(PayloadType::Nonce).and_then(decode_nonce);
        let Ok(nonce) = nonce else {
            core.counters.count(Refusal::Malformed);
            return None;
        };
        let unix = core.wall_clock.map_or(Duration::ZERO, |(then, unix)| unix.saturating_add(now.since(then)));
        let period = unix.as_secs() / COOKIE_PERIOD_S;
        let cookie_of = |period| cookie(&config.cookie_secret, period, header.spi_i, path.remote.ip(), nonce);
        let cookie = cookie_of(period);
        // RFC 7296 §2.6: one that was drawn in the last period still counts, and one of a node whose clock is a little ahead.
        let valid = notifies.cookie.map(Secret::from_slice).is_some_and(|returned| {
            let near = [period.saturating_sub(1), period.saturating_add(1)];
            returned == cookie || near.into_iter().any(|period| returned == cookie_of(period))
        });
        if !valid {
            core.counters.count(Refusal::CookieRequired);
            core.counters.cookies_sent = core.counters.cookies_sent.saturating_add(1);
            answer_stateless(core, path, header, &Notify::new(NotifyType::COOKIE, cookie.expose()));
            return None;
        }
    }
    if load.half_open >= config.half_open_max || load.sas >= config.sas_max {
        core.refuse(path, Refusal::Full, None);
        return None;
    }
    let Ok(message) = InitMessage::decode(&payloads, notifies) else {
        core.counters.count(Refusal::Malformed);
        return None;
    };
    match open(core, now, path, home, header, datagram, &message) {
        Ok(sa) => Some(sa),
        Err(InitRefusal(refusal, group)) => {
            core.refuse(path, refusal, None);
            if let Some(kind) = refusal.notify() {
                let group = group.map(|g| g.iana().to_be_bytes());
                let data = group.as_ref().map_or(&[][..], <[u8; 2]>::as_slice);
                answer_stateless(core, path, header, &Notify::new(NotifyType(kind), data));
            }
            None
        }
    }
}

/// Why no SA was opened, and the group to use instead, if that is why.
struct InitRefusal(Refusal, Option<Group>);

fn open(
    core: &mut Core,
    now: Time,
    path: Path,
    home: WorkSet,
    header: &Header,
    datagram: &[u8],
    message: &InitMessage<'_>,
) -> Result<Box<Sa>, InitRefusal> {
    let config = Arc::clone(&core.config);
    let (number, suite) = choose(&config, message).ok_or(InitRefusal(Refusal::NoProposalChosen, None))?;
    if message.ke.group != suite.group.iana() {
        return Err(InitRefusal(Refusal::InvalidKe, Some(suite.group)));
    }
    let private = DhPrivate::new(suite.group, &core.random());
    let shared = private.agree(message.ke.data).map_err(|_| InitRefusal(Refusal::InvalidPublicValue, None))?;
    let nonce = core.random::<NONCE_LEN>();
    let spi_r = core.draw_ike_spi(home);
    let fresh = Freshness { nonce_i: message.nonce, nonce_r: &nonce, spi_i: header.spi_i, spi_r };
    let keys = Keys::first(&suite, fresh, &shared);

    let mut w = PayloadWriter::new();
    w.payload(PayloadType::SecurityAssociation, |w| proposal::encode_ike_choice(w, &suite, None, number));
    w.payload(PayloadType::KeyExchange, |w| {
        KeyExchange { group: suite.group.iana(), data: &private.public() }.encode(w);
    });
    w.payload(PayloadType::Nonce, |w| w.bytes(&nonce));
    let nat = nat_hashes(&config, header.spi_i, spi_r, path);
    write_notifies(&mut w, &nat);
    write_certificate_request(&mut w, &config);
    let answer =
        plain_message(Header { spi_r, flags: Header::RESPONSE, next_payload: w.first(), ..*header }, w.as_slice());

    let peer_behind_nat = !message.notifies.nat_sources.is_empty()
        && !message.notifies.nat_sources.contains(&&nat_hash(header.spi_i, 0, path.remote)[..]);
    let we_behind_nat = message.notifies.nat_destination.is_some_and(|d| d != nat_hash(header.spi_i, 0, path.local));
    let mut state = new_state(Role::Responder, header.spi_i, spi_r, path, core.birth_count(home));
    state.phase = Phase::AwaitAuth(Box::new(HalfOpen {
        peer_nonce: message.nonce.into(),
        nonce: nonce.into(),
        request: datagram.into(),
        peer_hashes: message.notifies.hashes.clone(),
        unknown: Default::default(),
    }));
    state.suite = Some(suite);
    state.keys = Some(keys);
    state.next_expected = 1;
    state.answer = vec![answer];
    state.encapsulated = config.force_encapsulation || peer_behind_nat || we_behind_nat;
    state.fragmentation = message.notifies.fragmentation;
    state.age = Age::begun(now);
    state.end_at = Deadline::after(now, config.half_open_time);
    let mut sa = Sa::new(state, now);
    sa.iv = core.iv_source(&sa.state);
    let commit = core.store(now, &mut sa);
    core.transmit(path, &sa.state.answer, Some(commit));
    Ok(Box::new(sa))
}

/// The suite for a peer that we do not know yet: the first of any connection's that it offers, one of its own group first,
/// which saves it a second attempt.
fn choose(config: &Config, message: &InitMessage<'_>) -> Option<(u8, IkeProposal)> {
    let all: Vec<IkeProposal> = config.connections.iter().flat_map(|c| c.ike_proposals.iter().copied()).collect();
    let same_group: Vec<IkeProposal> = all.iter().copied().filter(|s| s.group.iana() == message.ke.group).collect();
    proposal::choose_ike(&message.proposals, &same_group)
        .or_else(|| proposal::choose_ike(&message.proposals, &all))
        .filter(|(p, _)| !p.has_spi())
        .map(|(p, suite)| (p.number, suite))
}

/// Begins a first exchange as initiator.
pub(crate) fn initiate(core: &mut Core, now: Time, name: &str, path: Path, home: WorkSet, group: Group) -> Box<Sa> {
    let spi_i = core.draw_ike_spi(home);
    let mut state = new_state(Role::Initiator, spi_i, 0, path, core.birth_count(home));
    state.connection = name.to_owned();
    state.age = Age::begun(now);
    state.phase = Phase::AwaitInitAnswer(Box::new(Opening {
        nonce: core.random::<NONCE_LEN>().into(),
        peer_nonce: Box::default(),
        group: Group16(group),
        seed: Secret::from_slice(&core.random::<{ DhPrivate::SEED_LEN }>()),
        request: Box::default(),
        answer: Box::default(),
        cookie: Box::default(),
        restarts: 0,
        child_spi: core.draw_child_spi(home),
        refused: false,
        peer_hashes: Vec::new(),
        unknown: Default::default(),
    }));
    let mut sa = Box::new(Sa::new(state, now));
    sa.iv = core.iv_source(&sa.state);
    send_request(core, now, &mut sa);
    sa
}

/// Sends the IKE_SA_INIT request, anew after a COOKIE or INVALID_KE_PAYLOAD.
fn send_request(core: &mut Core, now: Time, sa: &mut Sa) {
    let config = Arc::clone(&core.config);
    let Some(connection) = connection(&config, &sa.state.connection) else {
        core.end(sa, Reason::NegotiationFailed);
        return;
    };
    let path = sa.state.path();
    let spi_i = sa.state.spi_i;
    let Phase::AwaitInitAnswer(opening) = &mut sa.state.phase else { return };
    let Some(private) = opening.private() else { return };
    let mut w = PayloadWriter::new();
    if !opening.cookie.is_empty() {
        // RFC 7296 §2.6: the cookie is the first payload, everything else unchanged.
        w.payload(PayloadType::Notify, |w| Notify::new(NotifyType::COOKIE, &opening.cookie).encode(w));
    }
    w.payload(PayloadType::SecurityAssociation, |w| proposal::encode_ike(w, &connection.ike_proposals, None));
    w.payload(PayloadType::KeyExchange, |w| {
        KeyExchange { group: opening.group.0.iana(), data: &private.public() }.encode(w);
    });
    w.payload(PayloadType::Nonce, |w| w.bytes(&opening.nonce));
    write_notifies(&mut w, &nat_hashes(&config, spi_i, 0, path));
    let header = Header {
        spi_i,
        spi_r: 0,
        next_payload: w.first(),
        version: Header::VERSION_2,
        exchange: ExchangeType::IkeSaInit,
        flags: Header::INITIATOR,
        message_id: 0,
        length: 0,
    };
    let request = plain_message(header, w.as_slice());
    opening.request = request.clone();
    sa.state.next_request = 1;
    core.launch(now, sa, 0, RequestKind::Init, vec![request], None);
}

/// Whether an answer completed the exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InitOutcome {
    /// Keys are there: IKE_AUTH is next.
    Complete,
    /// Nothing has changed that the caller must act on.
    Waiting,
}

/// Takes an answer to our first request. Nothing here is authenticated, so nothing here ends the SA.
pub(crate) fn on_answer(
    core: &mut Core,
    now: Time,
    sa: &mut Sa,
    path: Path,
    header: &Header,
    datagram: &[u8],
) -> InitOutcome {
    match take_answer(core, now, sa, path, header, datagram) {
        Ok(outcome) => outcome,
        Err(refusal) => {
            core.counters.count(refusal);
            InitOutcome::Waiting
        }
    }
}

fn take_answer(
    core: &mut Core,
    now: Time,
    sa: &mut Sa,
    path: Path,
    header: &Header,
    datagram: &[u8],
) -> Result<InitOutcome, Refusal> {
    let body = datagram.get(28..).ok_or(Refusal::Malformed)?;
    let payloads = Payloads::decode(header.next_payload, &mut Reader::new(body)).map_err(|_| Refusal::Malformed)?;
    let notifies = InitNotifies::decode(&payloads).map_err(|_| Refusal::Malformed)?;
    let config = Arc::clone(&core.config);
    let connection = connection(&config, &sa.state.connection).ok_or(Refusal::NoProposalChosen)?;
    let Phase::AwaitInitAnswer(opening) = &mut sa.state.phase else { return Err(Refusal::Exchange) };
    let restart = restart_of(opening, &notifies, &connection.ike_proposals);
    if restart == Restart::Yes {
        if let Some(group) = notifies.invalid_ke.and_then(Group::from_iana) {
            opening.group = Group16(group);
            opening.seed = Secret::from_slice(&core.random::<{ DhPrivate::SEED_LEN }>());
        }
        send_request(core, now, sa);
        return Ok(InitOutcome::Waiting);
    }
    if notifies.error.is_some() || notifies.invalid_ke.is_some() || header.spi_r == 0 {
        // RFC 7296 §2.21.1: anybody could have sent this; remember it for the day we give up.
        opening.refused = true;
        return Err(Refusal::Unauthenticated);
    }
    let message = InitMessage::decode(&payloads, notifies).map_err(|_| Refusal::Malformed)?;
    let (_, suite) = proposal::choose_ike(&message.proposals, &connection.ike_proposals)
        .filter(|(p, s)| !p.has_spi() && s.group == opening.group.0 && message.proposals.len() == 1)
        .ok_or(Refusal::NoProposalChosen)?;
    if message.ke.group != suite.group.iana() {
        return Err(Refusal::InvalidKe);
    }
    let shared =
        opening.private().and_then(|private| private.agree(message.ke.data).ok()).ok_or(Refusal::InvalidPublicValue)?;
    opening.peer_nonce = message.nonce.into();
    opening.answer = datagram.into();
    opening.peer_hashes.clone_from(&message.notifies.hashes);
    let fresh =
        Freshness { nonce_i: &opening.nonce, nonce_r: &opening.peer_nonce, spi_i: sa.state.spi_i, spi_r: header.spi_r };
    sa.state.keys = Some(Keys::first(&suite, fresh, &shared));
    sa.state.suite = Some(suite);
    sa.state.spi_r = header.spi_r;
    sa.state.fragmentation = message.notifies.fragmentation;
    let sources = &message.notifies.nat_sources;
    let peer_behind_nat =
        !sources.is_empty() && !sources.contains(&&nat_hash(sa.state.spi_i, sa.state.spi_r, path.remote)[..]);
    let we_behind_nat =
        message.notifies.nat_destination.is_some_and(|d| d != nat_hash(sa.state.spi_i, sa.state.spi_r, path.local));
    sa.state.encapsulated = config.force_encapsulation || peer_behind_nat || we_behind_nat;
    if sa.state.encapsulated {
        // RFC 7296 §2.23: from now on both ends use port 4500; who does not use port 500 is there already.
        for end in [&mut sa.state.local, &mut sa.state.remote] {
            if end.port() == 500 {
                end.set_port(4500);
            }
        }
    }
    Ok(InitOutcome::Complete)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Restart {
    Yes,
    No,
}

fn restart_of(opening: &mut Opening, notifies: &InitNotifies<'_>, ours: &[IkeProposal]) -> Restart {
    if opening.restarts >= RESTARTS_MAX {
        return Restart::No;
    }
    if let Some(cookie) = notifies.cookie.filter(|c| (1..=COOKIE_LEN_MAX).contains(&c.len())) {
        opening.cookie = cookie.into();
        opening.restarts = opening.restarts.saturating_add(1);
        return Restart::Yes;
    }
    // RFC 7296 §2.7: only a group that we offered ourselves.
    let acceptable =
        notifies.invalid_ke.is_some_and(|g| g != opening.group.0.iana() && ours.iter().any(|s| s.group.iana() == g));
    if acceptable {
        opening.restarts = opening.restarts.saturating_add(1);
        return Restart::Yes;
    }
    Restart::No
}

/// A message that carries one notification, nothing protected, nothing kept.
pub(crate) fn answer_stateless(core: &mut Core, path: Path, header: &Header, notify: &Notify<'_>) {
    let mut w = PayloadWriter::new();
    w.payload(PayloadType::Notify, |w| notify.encode(w));
    let flags = Header::RESPONSE | if header.is_from_initiator() { 0 } else { Header::INITIATOR };
    let header = Header { flags, version: Header::VERSION_2, next_payload: w.first(), ..*header };
    let datagram = plain_message(header, w.as_slice());
    core.counters.datagrams_out = core.counters.datagrams_out.saturating_add(1);
    core.output(Output::Transmit { path, datagram: datagram.into_vec(), after: None });
}

fn plain_message(header: Header, payloads: &[u8]) -> Box<[u8]> {
    let mut w = Writer::with_capacity(payloads.len().saturating_add(28));
    // Far below 4 GiB: our own payloads.
    let length = u32::try_from(payloads.len()).unwrap_or(0).saturating_add(Header::LEN);
    Header { length, ..header }.encode(&mut w);
    w.bytes(payloads);
    w.into_bytes().into_boxed_slice()
}

pub(crate) fn new_state(role: Role, spi_i: u64, spi_r: u64, path: Path, birth_count: u32) -> SaState {
    SaState {
        spi_i,
        spi_r,
        role,
        session: match role {
            Role::Initiator => spi_i,
            Role::Responder => spi_r,
        },
        phase: Phase::Established,
        connection: String::new(),
        suite: None,
        keys: None,
        next_request: 0,
        next_expected: 0,
        answer: Vec::new(),
        in_flight: None,
        local: path.local,
        remote: path.remote,
        encapsulated: false,
        fragmentation: false,
        identity: None,
        inner_address: None,
        pool: None,
        children: Vec::new(),
        birth_count,
        predecessor: None,
        rekey_at: Deadline::NEVER,
        end_at: Deadline::NEVER,
        probe_at: Deadline::NEVER,
        hold_until: Deadline::NEVER,
        closing: None,
        age: Age::default(),
        session_age: None,
        ike_rekeys: 0,
        child_rekeys: 0,
        unknown: Default::default(),
    }
}

/// The state of an SA that replaces `old` (RFC 7296 §2.18): the same peer and session, keys and SPIs of its own.
pub(crate) fn successor_state(old: &SaState, role: Role, spi_i: u64, spi_r: u64, birth_count: u32) -> SaState {
    SaState {
        session: old.session,
        connection: old.connection.clone(),
        encapsulated: old.encapsulated,
        fragmentation: old.fragmentation,
        identity: old.identity.clone(),
        inner_address: old.inner_address,
        pool: old.pool.clone(),
        predecessor: Some(old.our_spi()),
        ..new_state(role, spi_i, spi_r, old.path(), birth_count)
    }
}

fn cookie(secret: &Secret, period: u64, spi_i: u64, source: IpAddr, nonce: &[u8]) -> Secret {
    let (v4, v6);
    let source: &[u8] = match source {
        IpAddr::V4(a) => {
            v4 = a.octets();
            &v4
        }
        IpAddr::V6(a) => {
            v6 = a.octets();
            &v6
        }
    };
    PrfKey::new(Prf::HmacSha2_256, secret.expose()).compute(&[
        b"cookie",
        &period.to_be_bytes(),
        &spi_i.to_be_bytes(),
        source,
        nonce,
    ])
}

/// SHA-1 over SPIs, address and port (RFC 7296 §2.23).
fn nat_hash(spi_i: u64, spi_r: u64, end: SocketAddr) -> [u8; 20] {
    let (spi_i, spi_r, port) = (spi_i.to_be_bytes(), spi_r.to_be_bytes(), end.port().to_be_bytes());
    match end.ip() {
        IpAddr::V4(a) => crypto::sha1(&[&spi_i, &spi_r, &a.octets(), &port]),
        IpAddr::V6(a) => crypto::sha1(&[&spi_i, &spi_r, &a.octets(), &port]),
    }
}

/// Hashes of our end and of the peer's.
fn nat_hashes(config: &Config, spi_i: u64, spi_r: u64, path: Path) -> ([u8; 20], [u8; 20]) {
    let mut source = nat_hash(spi_i, spi_r, path.local);
    if config.force_encapsulation {
        // The hash of no address at all: the peer concludes that we are behind a NAT.
        source = nat_hash(spi_i, spi_r, SocketAddr::from(([0, 0, 0, 0], 0)));
    }
    (source, nat_hash(spi_i, spi_r, path.remote))
}

fn write_notifies(w: &mut PayloadWriter, nat: &([u8; 20], [u8; 20])) {
    let hashes: Vec<u8> = SIGNATURE_HASHES.iter().flat_map(|h| h.to_be_bytes()).collect();
    for (kind, data) in [
        (NotifyType::NAT_DETECTION_SOURCE_IP, &nat.0[..]),
        (NotifyType::NAT_DETECTION_DESTINATION_IP, &nat.1[..]),
        (NotifyType::IKEV2_FRAGMENTATION_SUPPORTED, &[]),
        (NotifyType::SIGNATURE_HASH_ALGORITHMS, &hashes),
    ] {
        w.payload(PayloadType::Notify, |w| Notify::new(kind, data).encode(w));
    }
}

/// Names the trust anchors to a peer that may authenticate by certificate.
pub(crate) fn write_certificate_request(w: &mut PayloadWriter, config: &Config) {
    let wanted = config.connections.iter().any(|c| matches!(c.remote_auth, RemoteAuth::Certificate));
    let authorities = config.trust_anchors.certification_authority();
    if wanted && !authorities.is_empty() {
        w.payload(PayloadType::CertificateRequest, |w| encode_certificate_request(w, &authorities));
    }
}
