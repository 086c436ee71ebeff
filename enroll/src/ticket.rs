//! The life of a ticket.
//!
//! ```text
//! Open ──request──► Requested ──consume, signed──► Issued ──first contact──► Proven
//!  │                    │                            │ │                       │
//!  └──── expiry, void, restore ──► Voided ◄── void ──┘ └─ 14 days (node: 1 h) ─┼─► Lapsed
//!                                                      └─ another request ─────┴─► UsedAgain
//! ```
//!
//! The store keeps one [`Ticket`] per number and persists it after every call that takes `&mut self`, before anything
//! leaves: a consumed ticket is held by every live member before its reply is shown.

mod state;

use std::collections::VecDeque;
use std::time::Duration;

pub use state::{Grant, Life, Replies, State, Status, Use, VoidReason, Waiting};

use crate::code::{Role, TicketNumber};
use crate::key::{Algorithm, RequestedKey};
use crate::mac::{RejectKey, ReplyKey, RequestHash, RequestKey, TicketKeys};
use crate::message::Message;
use crate::name::{ClientName, Profile};
use crate::reply::{Rejection, RejectionReason};
use crate::request::Request;
use crate::template::Serial;
use crate::time::UnixTime;
use crate::words::Words;

/// What an administrator orders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TicketOrder {
    /// What the certificate is for.
    pub role: Role,
    /// Whom it names; checked by the store to be no gateway's and no node's.
    pub name: ClientName,
    /// Which profile it gets.
    pub profile: Profile,
    /// When the ticket ends, used or not.
    pub expires: UnixTime,
    /// Whether somebody compares words first.
    pub approval: Approval,
    /// Which keys are taken.
    pub keys: AllowedKeys,
}

/// Whether a request is issued at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Approval {
    /// A valid request is enough.
    Auto,
    /// An administrator types the request's six words as heard.
    Ask,
}

/// Which keys a ticket takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AllowedKeys {
    /// Ed25519.
    pub ed25519: bool,
    /// P-256.
    pub p256: bool,
    /// Keys that a request names by their hash; which, is checked when they come.
    pub hashed: bool,
}

impl AllowedKeys {
    /// Every key of the format.
    pub const ALL: Self = Self { ed25519: true, p256: true, hashed: true };

    const fn allows(self, key: &RequestedKey) -> bool {
        match key {
            RequestedKey::Whole(key) => match key.algorithm() {
                Algorithm::Ed25519 => self.ed25519,
                Algorithm::P256 => self.p256,
            },
            RequestedKey::Hashed(_) => self.hashed,
        }
    }
}

/// Whether the cluster ever met a key: another ticket's, a node's, a CA's, a revoked one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyStanding {
    /// Never.
    New,
    /// It did, and takes it no second time.
    Known,
}

/// All that a store keeps of a ticket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TicketParts {
    /// The ticket's number.
    pub number: TicketNumber,
    /// What was ordered.
    pub order: TicketOrder,
    /// K_request, to be sealed.
    pub request: Option<RequestKey>,
    /// K_reply, to be sealed.
    pub reply: Option<ReplyKey>,
    /// K_reject, to be sealed.
    pub reject: Option<RejectKey>,
    /// Where the ticket stands.
    pub state: State,
}

/// Why an order was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// A node's ticket lives an hour at most.
    #[error("a node's ticket lives for an hour at most")]
    NodeLife,
    /// A node's request is always approved by hand.
    #[error("a node's request must be approved by its words")]
    NodeApproval,
    /// There is an open node's ticket already.
    #[error("another node's ticket is open: use or void it first")]
    NodeOpen,
    /// It ends before it begins.
    #[error("the ticket would end before it begins")]
    Expired,
    /// The code is of the other role.
    #[error("the code does not belong to this order")]
    Code,
}

/// What to do with a valid request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer<'a> {
    /// The administrator compares these words, then [`Ticket::handle_words`].
    Compare(Words),
    /// Draw a serial and consume the ticket for this request.
    Consume(RequestHash),
    /// The ticket is consumed but no reply was signed yet: sign this grant and no other.
    Finish(Grant),
    /// The request was answered before: the same replies again.
    Again(&'a Replies),
    /// Refused; [`Ticket::rejection`] says so to the client.
    Reject(RejectionReason),
}

/// What the store must do beside keeping the ticket, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Tell the administrators.
    Alarm(Alarm),
    /// Take a node's certificate out of use until an administrator decides.
    Suspend(Serial),
    /// Revoke a serial and, where the key was proven, the key.
    Revoke {
        /// The serial.
        serial: Serial,
        /// SHA-256 of the SPKI of a key whose possession was proven. An unproven one is never revoked: else one
        /// enrolls another's key to have it revoked.
        key: Option<[u8; 32]>,
    },
}

/// What administrators must know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alarm {
    /// Two different valid requests wait: two parties have the code.
    TwoRequests,
    /// Another valid request came on a used ticket: the thief may have been first. One click voids the certificate.
    UsedAgain,
    /// Two masters issued different requests of one ticket; both are voided.
    TwoIssues,
}

/// Why a ticket could not be consumed or finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConsumeError {
    /// No request is approved, or another one.
    #[error("this request is not approved")]
    NotApproved,
    /// The ticket was used, voided, or has expired: the comparison failed and nothing was set.
    #[error("the ticket is no longer open")]
    NotOpen,
    /// The replies are for another grant.
    #[error("the ticket was consumed for another grant")]
    OtherGrant,
    /// No waiting request has these words.
    #[error("no waiting request has these words: ask for them again")]
    NoSuchWords,
}

/// One ticket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket {
    number: TicketNumber,
    order: TicketOrder,
    /// K_request, until 30 days after the ticket's end.
    request: Option<RequestKey>,
    /// K_reply, until the replies are stored.
    reply: Option<ReplyKey>,
    /// K_reject, as long as K_request.
    reject: Option<RejectKey>,
    state: State,
    effects: VecDeque<Effect>,
}

impl Ticket {
    /// Requests that wait for words; a thief's flood is not kept, and raised an alarm at the second.
    pub const WAITING_MAX: usize = 8;

    /// Opens a ticket for the code that was just drawn. `others` are the store's tickets.
    ///
    /// # Errors
    /// The order breaks a rule of nodes, ends before it begins, or is not for this code.
    pub fn open<'a>(
        now: UnixTime,
        order: TicketOrder,
        keys: TicketKeys,
        others: impl IntoIterator<Item = &'a Self>,
    ) -> Result<Self, OrderError> {
        if order.expires <= now {
            return Err(OrderError::Expired);
        }
        if keys.request.role() != order.role {
            return Err(OrderError::Code);
        }
        if order.role == Role::Node {
            if order.expires > now.after(NODE_TICKET_LIFE_MAX) {
                return Err(OrderError::NodeLife);
            }
            if order.approval != Approval::Ask {
                return Err(OrderError::NodeApproval);
            }
            if others.into_iter().any(|other| other.order.role == Role::Node && other.is_open(now)) {
                return Err(OrderError::NodeOpen);
            }
        }
        let number = keys.request.ticket();
        let (request, reply, reject) = (Some(keys.request), Some(keys.reply), Some(keys.reject));
        Ok(Self { number, order, request, reply, reject, state: State::Open, effects: VecDeque::new() })
    }

    /// Brings back a ticket that a store keeps. What it had queued for the store was done before it was stored.
    #[must_use]
    pub fn from_parts(parts: TicketParts) -> Self {
        let TicketParts { number, order, request, reply, reject, state } = parts;
        Self { number, order, request, reply, reject, state, effects: VecDeque::new() }
    }

    /// All that a store keeps of the ticket.
    #[must_use]
    pub fn parts(&self) -> TicketParts {
        TicketParts {
            number: self.number,
            order: self.order.clone(),
            request: self.request.clone(),
            reply: self.reply.clone(),
            reject: self.reject.clone(),
            state: self.state.clone(),
        }
    }

    /// Takes a request whose MAC holds; `standing` is what the cluster knows of its key.
    pub fn handle_request(&mut self, now: UnixTime, request: &Request, standing: KeyStanding) -> Answer<'_> {
        self.handle_timeout(now);
        if let Some(reason) = self.refuses(request, standing) {
            return Answer::Reject(reason);
        }
        if let State::Open | State::Requested { .. } = self.state {
            return match request.key {
                Ok(key) => self.on_request(request.hash, key),
                Err(_) => Answer::Reject(RejectionReason::Key),
            };
        }
        match self.state.used() {
            Some(Use { replies: Some(replies), .. }) => Answer::Again(replies),
            Some(used) => Answer::Finish(used.grant),
            None => Answer::Reject(RejectionReason::Voided),
        }
    }

    /// Why a valid request is refused, if it is; raises the alarms.
    fn refuses(&mut self, request: &Request, standing: KeyStanding) -> Option<RejectionReason> {
        if let Some(grant) = self.grant() {
            if grant.hash == request.hash {
                return None;
            }
            self.on_second_request();
            return Some(RejectionReason::Used);
        }
        if let State::Voided(reason, _) = &self.state {
            return Some(reason.rejection());
        }
        let usable = request.key.is_ok_and(|key| self.order.keys.allows(&key)) && standing == KeyStanding::New;
        (!usable).then_some(RejectionReason::Key)
    }

    /// A valid request on an open ticket.
    fn on_request(&mut self, hash: RequestHash, key: RequestedKey) -> Answer<'_> {
        if let State::Open = self.state {
            self.state = State::Requested { waiting: Vec::new(), approved: None };
        }
        let State::Requested { waiting, approved } = &mut self.state else {
            return Answer::Reject(RejectionReason::Other);
        };
        if !waiting.iter().any(|known| known.hash == hash) {
            if waiting.len() == 1 {
                self.effects.push_back(Effect::Alarm(Alarm::TwoRequests));
            }
            if waiting.len() >= Self::WAITING_MAX {
                return Answer::Reject(RejectionReason::Quota);
            }
            waiting.push(Waiting { hash, key });
        }
        match self.order.approval {
            // Words cost ten milliseconds: only who is asked for them pays that.
            Approval::Ask if *approved != Some(hash) => Answer::Compare(Words::of_request(self.order.role, &hash)),
            Approval::Ask => Answer::Consume(hash),
            Approval::Auto => {
                *approved = Some(hash);
                Answer::Consume(hash)
            }
        }
    }

    /// Another valid request on a used ticket: the thief may have been first.
    fn on_second_request(&mut self) {
        let (used, life) = match std::mem::replace(&mut self.state, State::Open) {
            State::Issued(used) => (used, Life::Issued),
            State::Proven(used) => (used, Life::Proven),
            State::Lapsed(used) => (used, Life::Lapsed),
            other @ (State::UsedAgain(_, _) | State::Open | State::Requested { .. } | State::Voided(_, _)) => {
                self.state = other;
                return;
            }
        };
        self.effects.push_back(Effect::Alarm(Alarm::UsedAgain));
        if self.order.role == Role::Node {
            self.effects.push_back(Effect::Suspend(used.grant.serial));
        }
        self.state = State::UsedAgain(used, life);
    }

    /// Takes the six words that an administrator typed as heard: they choose among the waiting requests.
    ///
    /// # Errors
    /// The ticket is not open, or no waiting request has these words.
    pub fn handle_words(&mut self, now: UnixTime, typed: &Words) -> Result<RequestHash, ConsumeError> {
        self.handle_timeout(now);
        let State::Requested { waiting, approved } = &mut self.state else {
            return Err(ConsumeError::NotOpen);
        };
        let words = |waiting: &Waiting| (Words::of_request(self.order.role, &waiting.hash), waiting.hash);
        let candidates: Vec<_> = waiting.iter().map(words).collect();
        let chosen = typed.choose(candidates.iter().map(|(words, hash)| (words, *hash)));
        *approved = chosen.or(*approved);
        chosen.ok_or(ConsumeError::NoSuchWords)
    }

    /// Consumes the ticket: compares that it is open for this request, and sets what will be signed.
    ///
    /// # Errors
    /// It is not open, or the request is not approved; nothing changed.
    pub fn consume(&mut self, now: UnixTime, grant: Grant) -> Result<RequestedKey, ConsumeError> {
        self.handle_timeout(now);
        let State::Requested { waiting, approved } = &self.state else {
            return Err(ConsumeError::NotOpen);
        };
        let granted = waiting.iter().find(|waiting| waiting.hash == grant.hash && *approved == Some(grant.hash));
        let key = granted.ok_or(ConsumeError::NotApproved)?.key;
        self.state = State::Issued(Use { grant, key, issued: now, replies: None, twin: None });
        Ok(key)
    }

    /// Stores the replies of the grant and deletes K_reply. Replies that are there already stay.
    ///
    /// # Errors
    /// The ticket is not consumed, or for another grant.
    pub fn store_replies(&mut self, grant: &Grant, replies: Replies) -> Result<&Replies, ConsumeError> {
        let used = self.state.used_mut().ok_or(ConsumeError::NotOpen)?;
        if used.grant != *grant {
            return Err(ConsumeError::OtherGrant);
        }
        self.reply = None;
        Ok(used.replies.get_or_insert(replies))
    }

    /// The client showed that it has the key: by its first IKE_AUTH, or by fetching its certificate.
    pub fn handle_proof(&mut self, now: UnixTime, spki_hash: &[u8; 32]) {
        self.handle_timeout(now);
        self.state = match std::mem::replace(&mut self.state, State::Open) {
            State::Issued(used) if used.key.spki_hash() == *spki_hash => State::Proven(used),
            State::UsedAgain(used, Life::Issued) if used.key.spki_hash() == *spki_hash => {
                State::UsedAgain(used, Life::Proven)
            }
            other @ (State::Open
            | State::Requested { .. }
            | State::Issued(_)
            | State::Proven(_)
            | State::Lapsed(_)
            | State::UsedAgain(_, _)
            | State::Voided(_, _)) => other,
        };
    }

    /// Does what is due: expiry, lapse of what was never proven, the end of the keys.
    pub fn handle_timeout(&mut self, now: UnixTime) {
        if now >= self.order.expires && matches!(self.state, State::Open | State::Requested { .. }) {
            self.state = State::Voided(VoidReason::Expired, None);
            self.reply = None;
        }
        if self.lapses().is_some_and(|lapse| now >= lapse) {
            self.state = match std::mem::replace(&mut self.state, State::Open) {
                State::Issued(used) => State::Lapsed(used),
                State::UsedAgain(used, _) => State::UsedAgain(used, Life::Lapsed),
                other @ (State::Open
                | State::Requested { .. }
                | State::Proven(_)
                | State::Lapsed(_)
                | State::Voided(_, _)) => other,
            };
            let serials = self.serials();
            self.effects.extend(serials.into_iter().map(|serial| Effect::Revoke { serial, key: None }));
        }
        if now >= self.order.expires.after(KEYS_KEPT) {
            (self.request, self.reply, self.reject) = (None, None, None);
        }
    }

    /// When [`Self::handle_timeout`] is due next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<UnixTime> {
        let expiry = matches!(self.state, State::Open | State::Requested { .. }).then_some(self.order.expires);
        let keys = self.request.is_some().then(|| self.order.expires.after(KEYS_KEPT));
        [expiry, self.lapses(), keys].into_iter().flatten().min()
    }

    /// Withdraws the ticket and whatever was issued on it.
    pub fn void(&mut self, reason: VoidReason) {
        if let State::Voided(_, _) = self.state {
            return;
        }
        let key = match &self.state {
            State::Proven(used) | State::UsedAgain(used, Life::Proven) => Some(used.key.spki_hash()),
            State::Open
            | State::Requested { .. }
            | State::Issued(_)
            | State::Lapsed(_)
            | State::UsedAgain(_, Life::Issued | Life::Lapsed)
            | State::Voided(_, _) => None,
        };
        let serials = self.serials();
        self.effects.extend(serials.into_iter().map(|serial| Effect::Revoke { serial, key }));
        let grant = self.grant().copied();
        self.state = State::Voided(reason, grant);
        self.reply = None;
    }

    /// The store was restored from a backup: what was open may have been used since, so it is voided.
    pub fn handle_restore(&mut self) {
        if let State::Open | State::Requested { .. } = self.state {
            self.void(VoidReason::Restored);
        }
    }

    /// Takes what another master granted on the same ticket during a partition. For the same request both
    /// certificates stand; for different ones both are voided.
    pub fn handle_other_grant(&mut self, other: &Use) {
        match &mut self.state {
            State::Open | State::Requested { .. } => self.state = State::Issued(other.clone()),
            State::Issued(used) | State::Proven(used) | State::Lapsed(used) | State::UsedAgain(used, _) => {
                if used.grant == other.grant {
                    return;
                }
                if used.grant.hash == other.grant.hash {
                    used.twin = Some(other.grant.serial);
                    return;
                }
                self.void(VoidReason::TwoIssues);
                self.effects.push_back(Effect::Revoke { serial: other.grant.serial, key: None });
                self.effects.push_back(Effect::Alarm(Alarm::TwoIssues));
            }
            State::Voided(_, grant) => {
                if *grant != Some(other.grant) {
                    self.effects.push_back(Effect::Revoke { serial: other.grant.serial, key: None });
                }
            }
        }
    }

    /// The next thing for the store to do.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// The ticket's number.
    #[must_use]
    pub const fn number(&self) -> TicketNumber {
        self.number
    }

    /// What was ordered.
    #[must_use]
    pub const fn order(&self) -> &TicketOrder {
        &self.order
    }

    /// Where the ticket stands.
    #[must_use]
    pub const fn state(&self) -> &State {
        &self.state
    }

    /// K_request, to read requests with, while it is kept.
    #[must_use]
    pub const fn request_key(&self) -> Option<&RequestKey> {
        self.request.as_ref()
    }

    /// K_reply, to write the replies with, until they are stored.
    #[must_use]
    pub const fn reply_key(&self) -> Option<&ReplyKey> {
        self.reply.as_ref()
    }

    /// Writes a rejection of a valid request; `None` once the keys are gone.
    #[must_use]
    pub fn rejection(&self, hash: &RequestHash, reason: RejectionReason) -> Option<Message> {
        self.reject.as_ref().map(|key| Rejection { reason }.compose(key, hash))
    }

    /// Whether a request could still be taken.
    #[must_use]
    pub fn is_open(&self, now: UnixTime) -> bool {
        now < self.order.expires && matches!(self.state, State::Open | State::Requested { .. })
    }

    fn grant(&self) -> Option<&Grant> {
        self.state.used().map(|used| &used.grant)
    }

    fn serials(&self) -> Vec<Serial> {
        self.state
            .used()
            .map(|used| [Some(used.grant.serial), used.twin].into_iter().flatten().collect())
            .unwrap_or_default()
    }

    /// When an unproven certificate lapses.
    fn lapses(&self) -> Option<UnixTime> {
        let used = match &self.state {
            State::Issued(used) | State::UsedAgain(used, Life::Issued) => used,
            State::Open
            | State::Requested { .. }
            | State::Proven(_)
            | State::Lapsed(_)
            | State::UsedAgain(_, Life::Proven | Life::Lapsed)
            | State::Voided(_, _) => return None,
        };
        Some(used.issued.after(match self.order.role {
            Role::Client => CLIENT_LAPSE,
            Role::Node => NODE_LAPSE,
        }))
    }
}

/// Longest life of a node's ticket.
const NODE_TICKET_LIFE_MAX: Duration = Duration::from_hours(1);
/// A client's certificate that nobody proved to have the key of is revoked after so long.
const CLIENT_LAPSE: Duration = Duration::from_hours(14 * 24);
/// A node's likewise.
const NODE_LAPSE: Duration = Duration::from_hours(1);
/// K_request and K_reject are kept so long after the ticket's end, to recognize a second request.
const KEYS_KEPT: Duration = Duration::from_hours(30 * 24);

#[cfg(test)]
mod tests;
