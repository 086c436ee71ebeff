//! What an endpoint asks of its driver, and what a driver may ask of it.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use auth::Identity;
use crypto::{Encryption, Integrity, SignatureScheme};
use wire::{Change, CommitId, RecordId, Secret, Spi, TrafficSelector, WorkSet};

use crate::fault::{Reason, Refusal};

/// The two ends of a UDP flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Path {
    /// Our address and port.
    pub local: SocketAddr,
    /// The peer's address and port, as we see them.
    pub remote: SocketAddr,
}

/// Names a question to the driver; its answer carries the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// What the driver shall do, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send a datagram. With a local port of 4500 the driver puts the non-ESP marker before it (RFC 3948 §2.2).
    Transmit {
        /// From where to where.
        path: Path,
        /// One IKE message or fragment.
        datagram: Vec<u8>,
        /// Not before this is committed.
        after: Option<CommitId>,
    },
    /// Replicate a record.
    Store {
        /// Which one.
        id: RecordId,
        /// How it reads now, or that it is gone.
        change: Change,
        /// The number of this change.
        commit: CommitId,
    },
    /// Install a pair of ESP SAs.
    InstallChild(Box<ChildSa>),
    /// Remove a pair of ESP SAs.
    RemoveChild {
        /// Its inbound SPI.
        spi_in: Spi,
        /// Why it goes.
        reason: Reason,
    },
    /// The peer of a pair of ESP SAs is now elsewhere (RFC 7296 §2.23).
    MovePath {
        /// The pair's inbound SPI.
        spi_in: Spi,
        /// Where its packets go from now on.
        path: Path,
    },
    /// Take an address out of a pool and answer with [`Endpoint::handle_address`](crate::Endpoint::handle_address).
    RequestAddress {
        /// Names the question.
        request: RequestId,
        /// The pool's name.
        pool: String,
        /// Who asks.
        identity: Identity,
        /// The address that the peer would like.
        previous: Option<IpAddr>,
        /// The session that the address will belong to. It lives in the work set that its number names.
        session: u64,
    },
    /// Give an address back.
    ReleaseAddress {
        /// The pool's name.
        pool: String,
        /// The address.
        address: IpAddr,
        /// The session that it belonged to.
        session: u64,
    },
    /// Sign and answer with [`Endpoint::handle_signature`](crate::Endpoint::handle_signature).
    Sign {
        /// Names the question.
        request: RequestId,
        /// The private key's name ([`LocalAuth::Certificate`](crate::LocalAuth)).
        key: String,
        /// How to sign.
        scheme: SignatureScheme,
        /// What to sign; not yet hashed.
        message: Vec<u8>,
    },
    /// Tell the operator.
    Event(Event),
}

/// A pair of ESP SAs in tunnel mode, ready to install.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildSa {
    /// Our SPI of the login's first IKE SA.
    pub session: u64,
    /// Our SPI of the IKE SA that made it.
    pub ike: u64,
    /// SPI of packets to us; names the home work set.
    pub spi_in: Spi,
    /// SPI of packets to the peer.
    pub spi_out: Spi,
    /// Cipher of both directions.
    pub encryption: Encryption,
    /// Integrity of both directions; `None` for an AEAD.
    pub integrity: Option<Integrity>,
    /// Cipher key of packets to us; an AEAD's salt stands behind the key.
    pub key_in: Secret,
    /// Cipher key of packets to the peer; an AEAD's salt stands behind the key.
    pub key_out: Secret,
    /// Integrity key of packets to us; empty for an AEAD.
    pub integ_in: Secret,
    /// Integrity key of packets to the peer; empty for an AEAD.
    pub integ_out: Secret,
    /// Inner addresses on our side.
    pub local: Vec<TrafficSelector>,
    /// Inner addresses on the peer's side.
    pub remote: Vec<TrafficSelector>,
    /// Where the peer is.
    pub path: Path,
    /// Whether packets go in UDP (RFC 3948).
    pub encapsulated: bool,
    /// The address that was given: to the peer if we are the gateway, to us if we asked.
    pub inner_address: Option<IpAddr>,
    /// The inbound SPI of the pair that this one replaces.
    pub replaces: Option<Spi>,
    /// Who opened it. The responder of a rekey sends on the old pair until the peer sends on the new one, or until the
    /// old one is removed (RFC 7296 §2.8); the initiator sends on the new one at once.
    pub role: Role,
    /// Age at which it ends if nothing replaces it; IKE keeps this time itself.
    pub lifetime_max: Duration,
}

/// Which end of an exchange we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// We asked.
    Initiator,
    /// We were asked.
    Responder,
}

/// What logs and the console show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A session is up: authenticated, with its first child.
    Up {
        /// The session.
        session: u64,
        /// The connection's name.
        connection: String,
        /// The proven identity of the peer.
        identity: Identity,
        /// Where it is.
        path: Path,
        /// Its inner address, if it got one.
        inner_address: Option<IpAddr>,
        /// Whether it said INITIAL_CONTACT; other nodes then end older sessions of this identity
        /// ([`Endpoint::end_identity`](crate::Endpoint::end_identity)).
        initial_contact: bool,
    },
    /// The IKE SA of a session was replaced.
    IkeRekeyed {
        /// The session.
        session: u64,
        /// Our SPI of the new SA.
        ike: u64,
    },
    /// A child SA was replaced.
    ChildRekeyed {
        /// The session.
        session: u64,
        /// The new inbound SPI.
        spi_in: Spi,
        /// The old one.
        replaces: Spi,
    },
    /// The peer is reached elsewhere.
    Moved {
        /// The session.
        session: u64,
        /// Where it is now.
        path: Path,
    },
    /// A session, or an attempt to open one, ended.
    Closed {
        /// The session.
        session: u64,
        /// Why.
        reason: Reason,
    },
    /// Something a peer sent was refused. Bounded by nothing but the peer's rate: log with a limit.
    Refused {
        /// From where it came.
        path: Path,
        /// Why.
        refusal: Refusal,
        /// Who it claimed to be, where that was readable.
        identity: Option<Identity>,
        /// What is wrong with its certificate, if that is why.
        certificate: Option<auth::x509::Refusal>,
    },
}

/// A pool has no address to give, or the driver cannot ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no inner address is available")]
pub struct NoAddress;

/// The private key could not be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the private key could not be used")]
pub struct SignError;

/// No session of that number lives here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no such session on this node")]
pub struct NoSession;

/// Why a connection could not be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InitiateError {
    /// No connection has that name.
    #[error("no connection has that name")]
    UnknownConnection,
    /// This node does not own the work set.
    #[error("this node does not own the work set")]
    NotOwned,
    /// `sas_max` is reached.
    #[error("no room for another IKE SA")]
    Full,
    /// The connection has no IKE or no ESP proposal.
    #[error("the connection has no proposal")]
    NoProposal,
}

/// How far a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SessionState {
    /// Not yet authenticated.
    Connecting,
    /// Up.
    Established,
    /// Its end was decided; the peer is being told.
    Closing,
}

/// One session, for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Our SPI of the login's first IKE SA.
    pub session: u64,
    /// Our SPI of the IKE SA that carries it now.
    pub ike: u64,
    /// Its work set.
    pub home: WorkSet,
    /// The connection's name; empty while the peer is not yet known.
    pub connection: String,
    /// Who the peer is; `None` while not authenticated.
    pub identity: Option<Identity>,
    /// Who opened the IKE SA.
    pub role: Role,
    /// Where the peer is.
    pub path: Path,
    /// Its inner address.
    pub inner_address: Option<IpAddr>,
    /// How far it is.
    pub state: SessionState,
    /// Suite of the IKE SA, `None` before it was chosen.
    pub suite: Option<crate::IkeProposal>,
    /// Suite of its first child, if it has one.
    pub child_suite: Option<crate::EspProposal>,
    /// Inbound SPIs of its children.
    pub children: Vec<Spi>,
    /// Age of the IKE SA (not of the login).
    pub age: Duration,
    /// Age of the login; `None` while it is not complete. Taken over with the session, as are the two counts.
    pub established: Option<Duration>,
    /// How often the IKE SA was replaced since the login.
    pub ike_rekeys: u32,
    /// How often a child SA was replaced since the login.
    pub child_rekeys: u32,
    /// Time until the IKE SA is rekeyed.
    pub rekey_in: Option<Duration>,
    /// Time since the peer's last authenticated IKE message; only the owner knows it.
    pub idle: Option<Duration>,
}
