//! Tickets as records: a JSON document for what may be read, a sealed blob for the keys.

use enroll::{
    AllowedKeys, Approval, ClientName, Grant, Life, Message, Profile, PublicKey, RejectKey, Replies, ReplyKey,
    RequestHash, RequestKey, RequestedKey, Role, Serial, State, Status, Ticket, TicketNumber, TicketOrder, TicketParts,
    UnixTime, Use, Validity, VoidReason, Waiting,
};
use serde::{Deserialize, Serialize};
use wire::Secret;

use crate::error::ControlError;
use crate::row::{hex, unhex};
use crate::store::Store;

/// What the store keeps of a ticket.
pub(crate) struct TicketRecord {
    pub(crate) document: String,
    /// The keys, sealed; none once all are gone.
    pub(crate) keys: Option<Vec<u8>>,
}

impl TicketRecord {
    pub(crate) fn of(ticket: &Ticket, key: &Secret) -> Result<Self, ControlError> {
        let parts = ticket.parts();
        let document = Document::of(&parts);
        let document = serde_json::to_string(&document).map_err(|_| ControlError::Record("document"))?;
        Ok(Self { document, keys: keys_of(&parts).map(|keys| Store::seal(key, &keys)).transpose()? })
    }

    pub(crate) fn ticket(&self, number: TicketNumber, key: &Secret) -> Result<Ticket, ControlError> {
        let document: Document = serde_json::from_str(&self.document).map_err(|_| ControlError::Record("document"))?;
        let mut parts = document.parts(number).ok_or(ControlError::Record("document"))?;
        if let Some(sealed) = &self.keys {
            let keys = Store::unseal(key, sealed)?;
            take_keys(&mut parts, keys.expose()).ok_or(ControlError::Record("keys"))?;
        }
        Ok(Ticket::from_parts(parts))
    }

    /// K_request alone, to read requests with.
    pub(crate) fn request_key(
        number: TicketNumber,
        role: Role,
        sealed: &[u8],
        key: &Secret,
    ) -> Result<Option<RequestKey>, ControlError> {
        let keys = Store::unseal(key, sealed)?;
        let (head, keys) = keys.expose().split_at_checked(4).ok_or(ControlError::Record("keys"))?;
        if head != number.value().to_be_bytes() {
            return Err(ControlError::Record("keys"));
        }
        let request = keys.split_first_chunk::<33>().filter(|(request, _)| request.first() == Some(&1));
        let secret = request.and_then(|(request, _)| request.get(1..)).map(Secret::from_slice);
        Ok(secret.and_then(|secret| RequestKey::from_parts(number, role, secret)))
    }
}

/// The ticket's number, so that a blob serves no other row, then each key behind an octet that says whether it is there.
fn keys_of(parts: &TicketParts) -> Option<Secret> {
    let keys = [
        parts.request.as_ref().map(RequestKey::secret),
        parts.reply.as_ref().map(ReplyKey::secret),
        parts.reject.as_ref().map(RejectKey::secret),
    ];
    if keys.iter().all(Option::is_none) {
        return None;
    }
    let mut blob = Vec::with_capacity(4 + 3 * 33);
    blob.extend(parts.number.value().to_be_bytes());
    for key in keys {
        blob.push(u8::from(key.is_some()));
        match key {
            Some(key) => blob.extend_from_slice(key.expose()),
            None => blob.extend([0; 32]),
        }
    }
    Some(Secret::new(blob))
}

fn take_keys(parts: &mut TicketParts, blob: &[u8]) -> Option<()> {
    let keys = blob.strip_prefix(&parts.number.value().to_be_bytes())?;
    let mut keys = keys.chunks_exact(33).map(|chunk| match chunk.split_first() {
        Some((1, secret)) => Some(Secret::from_slice(secret)),
        Some(_) | None => None,
    });
    let (number, role) = (parts.number, parts.order.role);
    parts.request = keys.next()?.and_then(|secret| RequestKey::from_parts(number, role, secret));
    parts.reply = keys.next()?.and_then(|secret| ReplyKey::from_parts(number, role, secret));
    parts.reject = keys.next()?.and_then(|secret| RejectKey::from_parts(number, role, secret));
    Some(())
}

/// The words that stand in the database.
pub(crate) const fn role_word(role: Role) -> &'static str {
    match role {
        Role::Client => "client",
        Role::Node => "node",
    }
}

pub(crate) fn role_of(word: &str) -> Option<Role> {
    [Role::Client, Role::Node].into_iter().find(|&role| role_word(role) == word)
}

pub(crate) const fn status_word(status: Status) -> &'static str {
    match status {
        Status::Open => "open",
        Status::Requested => "requested",
        Status::Issued => "issued",
        Status::Proven => "proven",
        Status::Lapsed => "lapsed",
        Status::UsedAgain => "used again",
        Status::Voided => "voided",
    }
}

#[derive(Serialize, Deserialize)]
struct Document {
    role: String,
    name: String,
    profile: u8,
    expires: u64,
    ask: bool,
    ed25519: bool,
    p256: bool,
    hashed: bool,
    state: StateRecord,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
enum StateRecord {
    Open,
    Requested { waiting: Vec<WaitingRecord>, approved: Option<String> },
    Issued { used: UseRecord },
    Proven { used: UseRecord },
    Lapsed { used: UseRecord },
    UsedAgain { used: UseRecord, life: String },
    Voided { reason: String, grant: Option<GrantRecord> },
}

#[derive(Serialize, Deserialize)]
struct WaitingRecord {
    hash: String,
    key: KeyRecord,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum KeyRecord {
    Spki(String),
    Hash(String),
}

#[derive(Serialize, Deserialize)]
struct GrantRecord {
    hash: String,
    serial: u64,
    start_day: u16,
    days: u16,
}

#[derive(Serialize, Deserialize)]
struct UseRecord {
    grant: GrantRecord,
    key: KeyRecord,
    issued: u64,
    replies: Option<RepliesRecord>,
    twin: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct RepliesRecord {
    certificate: Option<String>,
    complete: Option<String>,
    short: String,
    full: Option<(String, Vec<String>)>,
}

impl Document {
    fn of(parts: &TicketParts) -> Self {
        let order = &parts.order;
        Self {
            role: role_word(order.role).to_owned(),
            name: order.name.to_string(),
            profile: order.profile.value(),
            expires: order.expires.seconds,
            ask: order.approval == Approval::Ask,
            ed25519: order.keys.ed25519,
            p256: order.keys.p256,
            hashed: order.keys.hashed,
            state: StateRecord::of(&parts.state),
        }
    }

    fn parts(self, number: TicketNumber) -> Option<TicketParts> {
        let role = role_of(&self.role)?;
        let order = TicketOrder {
            role,
            name: ClientName::new(&self.name).ok()?,
            profile: Profile::new(self.profile)?,
            expires: UnixTime { seconds: self.expires },
            approval: if self.ask { Approval::Ask } else { Approval::Auto },
            keys: AllowedKeys { ed25519: self.ed25519, p256: self.p256, hashed: self.hashed },
        };
        let state = self.state.state()?;
        Some(TicketParts { number, order, request: None, reply: None, reject: None, state })
    }
}

impl StateRecord {
    fn of(state: &State) -> Self {
        match state {
            State::Open => Self::Open,
            State::Requested { waiting, approved } => Self::Requested {
                waiting: waiting
                    .iter()
                    .map(|waiting| WaitingRecord { hash: hex(waiting.hash.octets()), key: KeyRecord::of(&waiting.key) })
                    .collect(),
                approved: approved.map(|hash| hex(hash.octets())),
            },
            State::Issued(used) => Self::Issued { used: UseRecord::of(used) },
            State::Proven(used) => Self::Proven { used: UseRecord::of(used) },
            State::Lapsed(used) => Self::Lapsed { used: UseRecord::of(used) },
            State::UsedAgain(used, life) => {
                Self::UsedAgain { used: UseRecord::of(used), life: life_word(*life).to_owned() }
            }
            State::Voided(reason, grant) => {
                Self::Voided { reason: void_word(*reason).to_owned(), grant: grant.as_ref().map(GrantRecord::of) }
            }
        }
    }

    fn state(self) -> Option<State> {
        Some(match self {
            Self::Open => State::Open,
            Self::Requested { waiting, approved } => State::Requested {
                waiting: waiting.into_iter().map(WaitingRecord::waiting).collect::<Option<_>>()?,
                approved: match approved {
                    Some(hash) => Some(request_hash(&hash)?),
                    None => None,
                },
            },
            Self::Issued { used } => State::Issued(used.used()?),
            Self::Proven { used } => State::Proven(used.used()?),
            Self::Lapsed { used } => State::Lapsed(used.used()?),
            Self::UsedAgain { used, life } => {
                let life = [Life::Issued, Life::Proven, Life::Lapsed].into_iter().find(|&l| life_word(l) == life)?;
                State::UsedAgain(used.used()?, life)
            }
            Self::Voided { reason, grant } => {
                let reason = VOID_REASONS.into_iter().find(|&known| void_word(known) == reason)?;
                let grant = match grant {
                    Some(grant) => Some(grant.grant()?),
                    None => None,
                };
                State::Voided(reason, grant)
            }
        })
    }
}

impl WaitingRecord {
    fn waiting(self) -> Option<Waiting> {
        Some(Waiting { hash: request_hash(&self.hash)?, key: self.key.key()? })
    }
}

impl KeyRecord {
    fn of(key: &RequestedKey) -> Self {
        match key {
            RequestedKey::Whole(key) => Self::Spki(hex(&key.spki())),
            RequestedKey::Hashed(hash) => Self::Hash(hex(hash)),
        }
    }

    fn key(&self) -> Option<RequestedKey> {
        Some(match self {
            Self::Spki(spki) => RequestedKey::Whole(PublicKey::from_spki(&unhex(spki)?).ok()?),
            Self::Hash(hash) => RequestedKey::Hashed(unhex(hash)?.try_into().ok()?),
        })
    }
}

impl GrantRecord {
    fn of(grant: &Grant) -> Self {
        Self {
            hash: hex(grant.hash.octets()),
            serial: grant.serial.value(),
            start_day: grant.validity.start_day(),
            days: grant.validity.days(),
        }
    }

    fn grant(&self) -> Option<Grant> {
        Some(Grant {
            hash: request_hash(&self.hash)?,
            serial: Serial::new(self.serial)?,
            validity: Validity::new(self.start_day, self.days).ok()?,
        })
    }
}

impl UseRecord {
    fn of(used: &Use) -> Self {
        Self {
            grant: GrantRecord::of(&used.grant),
            key: KeyRecord::of(&used.key),
            issued: used.issued.seconds,
            replies: used.replies.as_ref().map(RepliesRecord::of),
            twin: used.twin.map(Serial::value),
        }
    }

    fn used(self) -> Option<Use> {
        Some(Use {
            grant: self.grant.grant()?,
            key: self.key.key()?,
            issued: UnixTime { seconds: self.issued },
            replies: match self.replies {
                Some(replies) => Some(replies.replies()?),
                None => None,
            },
            twin: match self.twin {
                Some(twin) => Some(Serial::new(twin)?),
                None => None,
            },
        })
    }
}

impl RepliesRecord {
    fn of(replies: &Replies) -> Self {
        let full = replies.full.as_ref();
        Self {
            certificate: replies.certificate.as_deref().map(hex),
            complete: replies.complete.as_ref().map(Message::to_string),
            short: replies.short.to_string(),
            full: full.map(|(line, blocks)| (line.to_string(), blocks.iter().map(|block| hex(block)).collect())),
        }
    }

    fn replies(self) -> Option<Replies> {
        Some(Replies {
            certificate: match self.certificate {
                Some(der) => Some(unhex(&der)?),
                None => None,
            },
            complete: match self.complete {
                Some(text) => Some(Message::from_stored(&text)?),
                None => None,
            },
            short: Message::from_stored(&self.short)?,
            full: match self.full {
                Some((line, blocks)) => {
                    let blocks = blocks.iter().map(|block| unhex(block)).collect::<Option<_>>()?;
                    Some((Message::from_stored(&line)?, blocks))
                }
                None => None,
            },
        })
    }
}

fn request_hash(text: &str) -> Option<RequestHash> {
    Some(RequestHash::from_octets(unhex(text)?.try_into().ok()?))
}

const fn life_word(life: Life) -> &'static str {
    match life {
        Life::Issued => "issued",
        Life::Proven => "proven",
        Life::Lapsed => "lapsed",
    }
}

pub(crate) const fn void_word(reason: VoidReason) -> &'static str {
    match reason {
        VoidReason::Administrator => "administrator",
        VoidReason::Expired => "expired",
        VoidReason::Restored => "restored",
        VoidReason::TwoIssues => "two issues",
    }
}

const VOID_REASONS: [VoidReason; 4] =
    [VoidReason::Administrator, VoidReason::Expired, VoidReason::Restored, VoidReason::TwoIssues];
