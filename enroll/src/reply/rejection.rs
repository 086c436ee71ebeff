//! The rejection: one line that says why not. Only a proven request gets one.

use crate::bits::MessageBits;
use crate::mac::{RejectKey, RequestHash};
use crate::message::{Header, Message, MessageKind, open, seal};
use crate::refusal::Refusal;
use crate::symbol::Symbol;

/// Why a gateway said no.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum RejectionReason {
    /// Another request used the ticket: somebody else has the code.
    #[error("another request used this ticket: somebody else has the code, tell the administrator")]
    Used,
    /// The administrator voided the ticket.
    #[error("the administrator withdrew this ticket: ask for a new one")]
    Voided,
    /// The ticket's time is over.
    #[error("the ticket has expired: ask for a new one")]
    Expired,
    /// The key or its algorithm is not accepted.
    #[error("the key or its algorithm is not accepted: make another and ask again")]
    Key,
    /// The cluster issued as many certificates as it may.
    #[error("the cluster may not issue more certificates: ask the administrator")]
    Quota,
    /// The cluster's policy forbids it.
    #[error("the cluster's policy forbids it: ask the administrator")]
    Policy,
    /// The words that were read out were not those of this request.
    #[error("the words read out were not those of this request: read them again from the screen")]
    WordsDiffer,
    /// Something else.
    #[error("the gateway gave no reason: ask the administrator")]
    Other,
}

impl RejectionReason {
    /// The number in a rejection.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Used => 1,
            Self::Voided => 2,
            Self::Expired => 3,
            Self::Key => 4,
            Self::Quota => 5,
            Self::Policy => 6,
            Self::WordsDiffer => 7,
            Self::Other => 31,
        }
    }

    const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Used),
            2 => Some(Self::Voided),
            3 => Some(Self::Expired),
            4 => Some(Self::Key),
            5 => Some(Self::Quota),
            6 => Some(Self::Policy),
            7 => Some(Self::WordsDiffer),
            31 => Some(Self::Other),
            _ => None,
        }
    }
}

/// A rejection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// Why.
    pub reason: RejectionReason,
}

impl Rejection {
    /// Writes the rejection of the request R.
    #[must_use]
    pub fn compose(self, mac: &RejectKey, hash: &RequestHash) -> Message {
        let mut body = Header::without_key(MessageKind::Rejection).start(mac.ticket());
        body.push(self.reason.number().into(), REASON_BITS);
        seal::<TAG_LEN>(body, &mac.0, LABEL, &[hash.octets()], &[]).0
    }

    /// Reads the rejection of the request R.
    ///
    /// # Errors
    /// It is malformed, for another ticket or request, or its MAC does not hold.
    pub fn decode(mac: &RejectKey, hash: &RequestHash, symbols: &[Symbol]) -> Result<Self, Refusal> {
        let message = MessageBits::new(symbols);
        let mut bits = message.reader();
        let header = Header::expect(&mut bits, MessageKind::Rejection, &mac.0)?;
        let number = bits.take_u8(REASON_BITS)?;
        open::<TAG_LEN>(bits, &mac.0, LABEL, &[hash.octets()], &[])?;
        header.has_no_key()?;
        Ok(Self { reason: RejectionReason::from_number(number).ok_or(Refusal::Reason)? })
    }
}

const LABEL: &[u8] = b"reject";
/// Octets of the tag.
const TAG_LEN: usize = 10;
/// Bits of the reason.
const REASON_BITS: u32 = 5;
