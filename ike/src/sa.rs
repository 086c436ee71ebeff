//! One IKE SA: what it knows, and how that reads as a record.

use crypto::{DhPrivate, Group, IvSource, MessageCipher};
use std::net::{IpAddr, SocketAddr};
use wire::{Cause, CommitId, DecodeError, Field, Reader, Record, Secret, Spi, TrafficSelector, WorkSet, Writer};

use crate::config::{EspProposal, IkeProposal};
use crate::deadline::{Age, Deadline};
use crate::fault::Reason;
use crate::keys::Keys;
use crate::message::fragment::Reassembly;
use crate::output::{Path, Role};
use crate::pending::Pending;
use auth::Identity;

wire::record! {
    /// Everything of an IKE SA that must survive its node. It is the record [`wire::RecordKind::IKE_SA`], and the SA itself.
    #[derive(Clone, Debug)]
    pub(crate) struct SaState {
        /// Initiator's SPI.
        1 => pub(crate) spi_i: u64,
        /// Responder's SPI; 0 until it is known.
        2 => pub(crate) spi_r: u64,
        /// Whether we are the original initiator of this SA.
        3 => pub(crate) role: Role,
        /// Our SPI of the login's first IKE SA.
        4 => pub(crate) session: u64,
        /// How far it is.
        5 => pub(crate) phase: Phase,
        /// The connection's name; empty until it is known.
        6 => pub(crate) connection: String = String::new(),
        /// The suite, once chosen.
        7 => pub(crate) suite: Option<IkeProposal>,
        /// The keys, once derived.
        8 => pub(crate) keys: Option<Keys>,
        /// Message ID of our next request.
        9 => pub(crate) next_request: u32,
        /// Message ID of the peer's next request.
        10 => pub(crate) next_expected: u32,
        /// The datagrams that answered the peer's last request.
        11 => pub(crate) answer: Vec<Box<[u8]>>,
        /// Our request that waits for its answer.
        12 => pub(crate) in_flight: Option<Box<InFlight>>,
        /// Our end.
        13 => pub(crate) local: SocketAddr,
        /// The peer's end.
        14 => pub(crate) remote: SocketAddr,
        /// Whether ESP goes in UDP.
        15 => pub(crate) encapsulated: bool = false,
        /// Whether the peer takes fragments (RFC 7383).
        16 => pub(crate) fragmentation: bool = false,
        /// Who the peer proved to be.
        17 => pub(crate) identity: Option<PeerIdentity>,
        /// The inner address that was given.
        18 => pub(crate) inner_address: Option<IpAddr>,
        /// The pool that it is from, if we gave it.
        19 => pub(crate) pool: Option<String>,
        /// The child SAs.
        20 => pub(crate) children: Vec<Child>,
        /// Count of the work set's epochs when the keys were made.
        21 => pub(crate) birth_count: u32,
        /// Our SPI of the SA that this one replaces, until that one has said so too.
        22 => pub(crate) predecessor: Option<u64>,
        /// When it is rekeyed.
        24 => pub(crate) rekey_at: Deadline = Deadline::NEVER,
        /// When it ends.
        25 => pub(crate) end_at: Deadline = Deadline::NEVER,
        /// When the peer is asked whether it is alive.
        26 => pub(crate) probe_at: Deadline = Deadline::NEVER,
        /// No request before this, after TEMPORARY_FAILURE.
        27 => pub(crate) hold_until: Deadline = Deadline::NEVER,
        /// Why it is to be deleted, once that is decided.
        28 => pub(crate) closing: Option<Reason>,
        /// How old it is.
        29 => pub(crate) age: Age,
        /// How long ago the session's login was complete; `None` while it is not.
        30 => pub(crate) session_age: Option<Age>,
        /// How often the session's IKE SA was replaced.
        31 => pub(crate) ike_rekeys: u32 = 0,
        /// How often a child SA of the session was replaced.
        32 => pub(crate) child_rekeys: u32 = 0,
    }
}

/// How far an IKE SA is.
#[derive(Clone, Debug)]
pub(crate) enum Phase {
    /// We sent IKE_SA_INIT.
    AwaitInitAnswer(Box<Opening>),
    /// We sent IKE_AUTH.
    AwaitAuthAnswer(Box<Opening>),
    /// We answered IKE_SA_INIT.
    AwaitAuth(Box<HalfOpen>),
    /// Both ends are authenticated.
    Established,
    /// Another SA took over; this one waits for its deletion.
    Replaced {
        /// Our SPI of the other.
        by: u64,
    },
}

wire::record! {
    /// What an initiator knows until it is authenticated.
    #[derive(Clone, Debug)]
    pub(crate) struct Opening {
        /// Our nonce.
        1 => pub(crate) nonce: Box<[u8]>,
        /// The peer's nonce.
        2 => pub(crate) peer_nonce: Box<[u8]>,
        /// The group of our key exchange.
        3 => pub(crate) group: Group16,
        /// What the private value is made of.
        4 => pub(crate) seed: Secret,
        /// Our last IKE_SA_INIT request.
        5 => pub(crate) request: Box<[u8]>,
        /// The peer's answer to it.
        6 => pub(crate) answer: Box<[u8]>,
        /// The cookie to send back.
        7 => pub(crate) cookie: Box<[u8]>,
        /// How often the exchange began anew (COOKIE, INVALID_KE_PAYLOAD).
        8 => pub(crate) restarts: u8,
        /// Inbound SPI of the first child.
        9 => pub(crate) child_spi: Spi,
        /// Somebody answered with an error; anybody could have.
        10 => pub(crate) refused: bool,
        /// The peer's SIGNATURE_HASH_ALGORITHMS (RFC 7427 §4).
        11 => pub(crate) peer_hashes: Vec<u16>,
    }
}

wire::record! {
    /// What a responder knows until its peer is authenticated.
    #[derive(Clone, Debug)]
    pub(crate) struct HalfOpen {
        /// The peer's nonce.
        1 => pub(crate) peer_nonce: Box<[u8]>,
        /// Our nonce.
        2 => pub(crate) nonce: Box<[u8]>,
        /// The peer's IKE_SA_INIT request; the answer stands in the cache.
        3 => pub(crate) request: Box<[u8]>,
        /// The peer's SIGNATURE_HASH_ALGORITHMS (RFC 7427 §4).
        4 => pub(crate) peer_hashes: Vec<u16>,
    }
}

wire::record! {
    /// A request of ours that waits for its answer.
    #[derive(Clone, Debug)]
    pub(crate) struct InFlight {
        /// Its Message ID.
        1 => pub(crate) message_id: u32,
        /// Its datagrams.
        2 => pub(crate) datagrams: Vec<Box<[u8]>>,
        /// What it asks.
        3 => pub(crate) kind: RequestKind,
        /// How often it was repeated.
        4 => pub(crate) repeated: u8,
        /// When it is repeated next.
        5 => pub(crate) repeat_at: Deadline,
        /// What only we know of a CREATE_CHILD_SA exchange.
        6 => pub(crate) exchange: Option<Box<Exchange>>,
    }
}

/// What a request of ours asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RequestKind {
    /// IKE_SA_INIT.
    Init,
    /// IKE_AUTH.
    Auth,
    /// CREATE_CHILD_SA for a new IKE SA.
    RekeyIke,
    /// CREATE_CHILD_SA for the child with that inbound SPI.
    RekeyChild(Spi),
    /// Delete of the child with that inbound SPI.
    DeleteChild(Spi),
    /// Delete of the IKE SA.
    DeleteIke,
    /// An empty INFORMATIONAL request.
    Liveness,
}

wire::record! {
    /// What only we know of a CREATE_CHILD_SA exchange that we began.
    #[derive(Clone, Debug)]
    pub(crate) struct Exchange {
        /// Our nonce.
        1 => pub(crate) nonce: Box<[u8]>,
        /// What the private value is made of; absent without a key exchange.
        2 => pub(crate) seed: Option<Secret>,
        /// Its group.
        3 => pub(crate) group: Option<Group16>,
        /// Our new SPI: 8 octets of an IKE SA, 4 of a child.
        4 => pub(crate) spi: u64,
        /// Our new SPI of the exchange that the peer began for the same SA (RFC 7296 §2.8.1).
        5 => pub(crate) rival: Option<u64>,
        /// The lower nonce of the peer's exchange.
        6 => pub(crate) rival_nonce: Option<Box<[u8]>>,
        /// Inner addresses on our side, as offered for a child: the old one may be gone when the answer comes.
        7 => pub(crate) local: Vec<TrafficSelector>,
        /// Inner addresses on the peer's side, as offered.
        8 => pub(crate) remote: Vec<TrafficSelector>,
    }
}

wire::record! {
    /// A pair of ESP SAs, as far as IKE needs to know it.
    #[derive(Clone, Debug)]
    pub(crate) struct Child {
        /// Our inbound SPI.
        1 => pub(crate) spi_in: Spi,
        /// The peer's inbound SPI.
        2 => pub(crate) spi_out: Spi,
        /// The suite.
        3 => pub(crate) suite: EspProposal,
        /// Inner addresses on our side.
        4 => pub(crate) local: Vec<TrafficSelector>,
        /// Inner addresses on the peer's side.
        5 => pub(crate) remote: Vec<TrafficSelector>,
        /// What is to become of it.
        6 => pub(crate) fate: ChildFate,
        /// When it is rekeyed.
        7 => pub(crate) rekey_at: Deadline,
        /// When it ends.
        8 => pub(crate) end_at: Deadline,
    }
}

/// What is to become of a child SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChildFate {
    /// It carries traffic.
    Active,
    /// Another took over; the peer will delete it.
    PeerDeletes,
    /// We must delete it.
    WeDelete(Reason),
}

/// An identity in a record: ID Type and Identification Data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PeerIdentity(pub(crate) Identity);

/// A Diffie-Hellman group in a record, by IANA number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Group16(pub(crate) Group);

/// How a first request is known again (RFC 7296 §2.1): by its octets, not by its SPI, which somebody else may have seen and
/// used before the one who drew it is heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Opened {
    from: SocketAddr,
    digest: [u8; 16],
}

impl Opened {
    pub(crate) fn of(from: SocketAddr, request: &[u8]) -> Self {
        let mut digest = [0; 16];
        digest.iter_mut().zip(crypto::sha256(&[request])).for_each(|(octet, hashed)| *octet = hashed);
        Self { from, digest }
    }
}

/// One IKE SA in memory: its record, and what is rebuilt after a take-over.
#[derive(Debug)]
pub(crate) struct Sa {
    pub(crate) state: SaState,
    /// IVs of this tenure; `None` without keys, or once they are used up.
    pub(crate) iv: Option<IvSource>,
    /// What waits for an answer of the driver. Not replicated: the peer repeats its request to the heir.
    pub(crate) pending: Option<Box<Pending>>,
    /// Fragments of one message. Not replicated, for the same reason.
    pub(crate) reassembly: Option<Box<Reassembly>>,
    /// The entry in the endpoint's list of deadlines.
    pub(crate) due: Deadline,
    /// When the peer was last heard with integrity.
    pub(crate) heard: wire::Time,
    /// The commit of the record that was last written here.
    pub(crate) commit: Option<CommitId>,
    /// When the record is written again although nothing has changed: ages and times left in it are as of its writing.
    pub(crate) refresh_at: Deadline,
    /// The first request that opened it, by what [`Opened`] says of it.
    pub(crate) opened: Opened,
    /// Before this a repeated request gets no answer.
    pub(crate) answer_again_at: Deadline,
    /// Set when the SA is over; the endpoint then forgets it.
    pub(crate) over: bool,
}

impl Sa {
    pub(crate) fn new(state: SaState, now: wire::Time) -> Self {
        let request = match &state.phase {
            Phase::AwaitAuth(half_open) => &*half_open.request,
            Phase::AwaitInitAnswer(_) | Phase::AwaitAuthAnswer(_) | Phase::Established | Phase::Replaced { .. } => &[],
        };
        Self {
            opened: Opened::of(state.remote, request),
            answer_again_at: Deadline::at(now),
            state,
            iv: None,
            pending: None,
            reassembly: None,
            due: Deadline::NEVER,
            heard: now,
            commit: None,
            refresh_at: Deadline::NEVER,
            over: false,
        }
    }
}

impl SaState {
    /// The SPI that we chose.
    pub(crate) const fn our_spi(&self) -> u64 {
        match self.role {
            Role::Initiator => self.spi_i,
            Role::Responder => self.spi_r,
        }
    }

    /// The work set that it lives in.
    pub(crate) const fn home(&self) -> WorkSet {
        WorkSet::from_low_bits(self.our_spi())
    }

    pub(crate) const fn path(&self) -> Path {
        Path { local: self.local, remote: self.remote }
    }

    pub(crate) fn child_mut(&mut self, spi_in: Spi) -> Option<&mut Child> {
        self.children.iter_mut().find(|c| c.spi_in == spi_in)
    }

    /// Keys of what we send, then of what we receive.
    pub(crate) fn cipher(&self, direction: Direction) -> Option<MessageCipher<'_>> {
        let (suite, keys) = (self.suite.as_ref()?, self.keys.as_ref()?);
        let (e, a) = match (self.role, direction) {
            (Role::Initiator, Direction::Out) | (Role::Responder, Direction::In) => (&keys.ei, &keys.ai),
            (Role::Initiator, Direction::In) | (Role::Responder, Direction::Out) => (&keys.er, &keys.ar),
        };
        MessageCipher::new(suite.encryption, suite.integrity, e.expose(), a.expose())
    }

    /// All deadlines, to carry them to another clock.
    fn deadlines_mut(&mut self) -> impl Iterator<Item = &mut Deadline> {
        [&mut self.rekey_at, &mut self.end_at, &mut self.probe_at, &mut self.hold_until]
            .into_iter()
            .chain(self.in_flight.iter_mut().map(|f| &mut f.repeat_at))
            .chain(self.children.iter_mut().flat_map(|c| [&mut c.rekey_at, &mut c.end_at]))
    }

    /// The record's octets; deadlines stand in it as time left.
    pub(crate) fn export(&mut self, now: wire::Time) -> Box<[u8]> {
        let kept: Vec<Deadline> = self.deadlines_mut().map(|d| *d).collect();
        self.deadlines_mut().for_each(|d| *d = d.left_at(now));
        self.age = self.age.counted_to(now);
        self.session_age = self.session_age.map(|age| age.counted_to(now));
        let bytes = self.to_bytes();
        self.deadlines_mut().zip(kept).for_each(|(d, kept)| *d = kept);
        bytes
    }

    /// Reads a record; times left become deadlines from `now` on.
    pub(crate) fn import(bytes: &[u8], now: wire::Time) -> Result<Self, DecodeError> {
        let mut state = Self::from_bytes(bytes)?;
        state.deadlines_mut().for_each(|d| *d = d.counted_from(now));
        state.age = state.age.counted_from(now);
        state.session_age = state.session_age.map(|age| age.counted_from(now));
        Ok(state)
    }
}

/// Which way a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    In,
    Out,
}

impl Exchange {
    pub(crate) fn private(&self) -> Option<DhPrivate> {
        let seed = self.seed.as_ref()?.expose().try_into().ok()?;
        Some(DhPrivate::new(self.group?.0, seed))
    }
}

impl Opening {
    pub(crate) fn private(&self) -> Option<DhPrivate> {
        Some(DhPrivate::new(self.group.0, self.seed.expose().try_into().ok()?))
    }
}

macro_rules! boxed {
    ($($record:ty),*) => { $(
        impl Field for Box<$record> {
            fn write(&self, w: &mut Writer) -> bool {
                Record::encode(&**self, w);
                true
            }

            fn read(_: &'static str, r: &mut Reader<'_>) -> Result<Self, DecodeError> {
                Record::decode(r).map(Self::new)
            }
        }
    )* };
}
boxed!(InFlight, Exchange);

impl Field for Role {
    fn write(&self, w: &mut Writer) -> bool {
        w.u8(match self {
            Self::Initiator => 1,
            Self::Responder => 2,
        });
        true
    }

    fn read(name: &'static str, r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let range = r.error(name, Cause::Range);
        match r.u8(name)? {
            1 => Ok(Self::Initiator),
            2 => Ok(Self::Responder),
            _ => Err(range),
        }
    }
}

impl Field for Phase {
    fn write(&self, w: &mut Writer) -> bool {
        match self {
            Self::AwaitInitAnswer(opening) => {
                w.u8(1);
                opening.encode(w);
            }
            Self::AwaitAuthAnswer(opening) => {
                w.u8(2);
                opening.encode(w);
            }
            Self::AwaitAuth(half_open) => {
                w.u8(3);
                half_open.encode(w);
            }
            Self::Established => w.u8(4),
            Self::Replaced { by } => {
                w.u8(5);
                w.u64(*by);
            }
        }
        true
    }

    fn read(name: &'static str, r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let range = r.error(name, Cause::Range);
        Ok(match r.u8(name)? {
            1 => Self::AwaitInitAnswer(Box::new(Record::decode(r)?)),
            2 => Self::AwaitAuthAnswer(Box::new(Record::decode(r)?)),
            3 => Self::AwaitAuth(Box::new(Record::decode(r)?)),
            4 => Self::Established,
            5 => Self::Replaced { by: r.u64(name)? },
            _ => return Err(range),
        })
    }
}

impl Field for RequestKind {
    fn write(&self, w: &mut Writer) -> bool {
        let (number, spi) = match self {
            Self::Init => (1, None),
            Self::Auth => (2, None),
            Self::RekeyIke => (3, None),
            Self::RekeyChild(spi) => (4, Some(*spi)),
            Self::DeleteChild(spi) => (5, Some(*spi)),
            Self::DeleteIke => (6, None),
            Self::Liveness => (7, None),
        };
        w.u8(number);
        if let Some(spi) = spi {
            w.u32(spi.0);
        }
        true
    }

    fn read(name: &'static str, r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let range = r.error(name, Cause::Range);
        Ok(match r.u8(name)? {
            1 => Self::Init,
            2 => Self::Auth,
            3 => Self::RekeyIke,
            4 => Self::RekeyChild(Spi(r.u32(name)?)),
            5 => Self::DeleteChild(Spi(r.u32(name)?)),
            6 => Self::DeleteIke,
            7 => Self::Liveness,
            _ => return Err(range),
        })
    }
}

impl Field for ChildFate {
    fn write(&self, w: &mut Writer) -> bool {
        match self {
            Self::Active => w.u8(1),
            Self::PeerDeletes => w.u8(2),
            Self::WeDelete(reason) => {
                w.u8(3);
                reason.write(w);
            }
        }
        true
    }

    fn read(name: &'static str, r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let range = r.error(name, Cause::Range);
        Ok(match r.u8(name)? {
            1 => Self::Active,
            2 => Self::PeerDeletes,
            3 => Self::WeDelete(Reason::read(name, r)?),
            _ => return Err(range),
        })
    }
}

/// Travels as its label, so that reasons may be added in any order.
impl Field for Reason {
    fn write(&self, w: &mut Writer) -> bool {
        w.bytes(self.label().as_bytes());
        true
    }

    fn read(_: &'static str, r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let label = r.take_rest();
        // A newer neighbour may know more reasons; what matters here is that there is one.
        Ok(Self::ALL.iter().copied().find(|reason| reason.label().as_bytes() == label).unwrap_or(Self::OperatorDeleted))
    }
}

impl Field for Group16 {
    fn write(&self, w: &mut Writer) -> bool {
        w.u16(self.0.iana());
        true
    }

    fn read(name: &'static str, r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let range = r.error(name, Cause::Range);
        Group::from_iana(r.u16(name)?).map(Self).ok_or(range)
    }
}

impl Field for PeerIdentity {
    fn write(&self, w: &mut Writer) -> bool {
        w.u8(self.0.id_type());
        w.bytes(&self.0.data());
        true
    }

    fn read(name: &'static str, r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let range = r.error(name, Cause::Range);
        let id_type = r.u8(name)?;
        Identity::decode(id_type, r.take_rest()).map(Self).map_err(|_| range)
    }
}
