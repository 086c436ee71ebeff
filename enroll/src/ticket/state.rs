//! What each moment of a ticket's life knows.

use crate::key::RequestedKey;
use crate::mac::RequestHash;
use crate::message::Message;
use crate::reply::RejectionReason;
use crate::template::{Serial, Validity};
use crate::time::UnixTime;

/// Where a ticket stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// No valid request yet.
    Open,
    /// Valid requests wait for approval or for issue.
    Requested {
        /// The requests, in order of arrival.
        waiting: Vec<Waiting>,
        /// The one that may be issued.
        approved: Option<RequestHash>,
    },
    /// Consumed; possession of the key is not proven yet.
    Issued(Use),
    /// Possession of the key is proven.
    Proven(Use),
    /// Not proven in time; the serial is revoked.
    Lapsed(Use),
    /// Another valid request came afterwards.
    UsedAgain(Use, Life),
    /// Withdrawn, with what was granted before, if anything.
    Voided(VoidReason, Option<Grant>),
}

/// How far a certificate had come when its ticket was used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// Not proven yet.
    Issued,
    /// Proven.
    Proven,
    /// Never proven; revoked.
    Lapsed,
}

/// The state's name, for lists and logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Status {
    /// See [`State::Open`].
    Open,
    /// See [`State::Requested`].
    Requested,
    /// See [`State::Issued`].
    Issued,
    /// See [`State::Proven`].
    Proven,
    /// See [`State::Lapsed`].
    Lapsed,
    /// See [`State::UsedAgain`].
    UsedAgain,
    /// See [`State::Voided`].
    Voided,
}

impl State {
    /// The state's name.
    #[must_use]
    pub const fn status(&self) -> Status {
        match self {
            Self::Open => Status::Open,
            Self::Requested { .. } => Status::Requested,
            Self::Issued(_) => Status::Issued,
            Self::Proven(_) => Status::Proven,
            Self::Lapsed(_) => Status::Lapsed,
            Self::UsedAgain(_, _) => Status::UsedAgain,
            Self::Voided(_, _) => Status::Voided,
        }
    }

    /// What the ticket was used for, if it was and was not voided.
    #[must_use]
    pub const fn used(&self) -> Option<&Use> {
        match self {
            Self::Issued(used) | Self::Proven(used) | Self::Lapsed(used) | Self::UsedAgain(used, _) => Some(used),
            Self::Open | Self::Requested { .. } | Self::Voided(_, _) => None,
        }
    }

    pub(super) const fn used_mut(&mut self) -> Option<&mut Use> {
        match self {
            Self::Issued(used) | Self::Proven(used) | Self::Lapsed(used) | Self::UsedAgain(used, _) => Some(used),
            Self::Open | Self::Requested { .. } | Self::Voided(_, _) => None,
        }
    }
}

/// A valid request that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// R.
    pub hash: RequestHash,
    /// The key.
    pub key: RequestedKey,
}

/// What a ticket is consumed with: enough for a successor to finish the same issue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// R of the request.
    pub hash: RequestHash,
    /// The certificate's serial, drawn after the request was fixed.
    pub serial: Serial,
    /// The certificate's days.
    pub validity: Validity,
}

/// What a ticket was used for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Use {
    /// What was granted.
    pub grant: Grant,
    /// The key.
    pub key: RequestedKey,
    /// When.
    pub issued: UnixTime,
    /// All forms of the reply, once signed.
    pub replies: Option<Replies>,
    /// The serial that another master granted to the same request during a partition.
    pub twin: Option<Serial>,
}

/// All forms of one reply, stored at issue so that K_reply can be deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replies {
    /// The certificate in DER; none until a key comes that was requested by its hash.
    pub certificate: Option<Vec<u8>>,
    /// The complete reply; none where CA or client have a key that it cannot carry.
    pub complete: Option<Message>,
    /// The short reply.
    pub short: Message,
    /// The full reply's line and its blocks; none without a certificate.
    pub full: Option<(Message, Vec<Vec<u8>>)>,
}

/// Why a ticket was voided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum VoidReason {
    /// An administrator withdrew it.
    Administrator,
    /// Its time was over before it was used.
    Expired,
    /// The store was restored from a backup while it was open.
    Restored,
    /// Two masters issued different requests.
    TwoIssues,
}

impl VoidReason {
    /// What a later valid request is told.
    #[must_use]
    pub const fn rejection(self) -> RejectionReason {
        match self {
            Self::Expired => RejectionReason::Expired,
            Self::TwoIssues => RejectionReason::Used,
            Self::Administrator | Self::Restored => RejectionReason::Voided,
        }
    }
}
