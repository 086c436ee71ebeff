//! The four replies: complete, short, full, and the rejection.

mod complete;
mod full;
mod rejection;
mod short;

pub use complete::{CompleteReply, Terms};
pub use full::FullReply;
pub use rejection::{Rejection, RejectionReason};
pub use short::{ShortReply, ShortTerms};

use crate::code::{Role, TicketNumber};
use crate::key::RequestedKey;
use crate::mac::{RejectKey, ReplyKey, RequestHash};
use crate::message::{MessageKind, peek};
use crate::refusal::Refusal;
use crate::symbol::Symbol;

/// What a client keeps while it waits: two keys and R, but not the code.
///
/// Nothing that is received ends it; only its user does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// K_reply.
    pub reply: ReplyKey,
    /// K_reject.
    pub reject: RejectKey,
    /// R of the request.
    pub hash: RequestHash,
    /// The client's own key.
    pub key: RequestedKey,
}

/// A reply whose MAC holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// All that is needed to rebuild the certificate.
    Complete(CompleteReply),
    /// What to expect from a fetch over TLS.
    Short(ShortReply),
    /// Certificates, CA and profile as blocks.
    Full(FullReply),
    /// A gateway's no.
    Rejection(Rejection),
}

impl Pending {
    /// The ticket that the request was for.
    #[must_use]
    pub const fn ticket(&self) -> TicketNumber {
        self.reply.ticket()
    }

    /// The role that the code gave.
    #[must_use]
    pub const fn role(&self) -> Role {
        self.reply.role()
    }

    /// Reads a reply of any kind; `blocks` are those that came with the text, for a full reply.
    ///
    /// # Errors
    /// It is malformed, for another ticket or another request, or its MAC does not hold.
    pub fn open(&self, symbols: &[Symbol], blocks: &[Vec<u8>]) -> Result<Reply, Refusal> {
        match peek(symbols)?.0 {
            MessageKind::Request => Err(Refusal::Kind),
            MessageKind::Complete => CompleteReply::decode(&self.reply, &self.hash, symbols).map(Reply::Complete),
            MessageKind::Short => ShortReply::decode(&self.reply, &self.hash, symbols).map(Reply::Short),
            MessageKind::Full => FullReply::decode(&self.reply, &self.hash, symbols, blocks).map(Reply::Full),
            MessageKind::Rejection => Rejection::decode(&self.reject, &self.hash, symbols).map(Reply::Rejection),
        }
    }
}
