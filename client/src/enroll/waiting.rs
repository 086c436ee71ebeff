//! What is kept while a request waits for its reply: two keys, R and the private key, but not the code.

use enroll::{
    Message, Pending, PrivateKey, RejectKey, ReplyKey, RequestHash, RequestedKey, Role, TicketKeys, TicketNumber,
};
use serde::{Deserialize, Serialize};
use wire::Secret;
use zeroize::Zeroizing;

use crate::fault::Fault;
use crate::home::Home;

/// A request that waits.
pub(super) struct Waiting {
    pub(super) pending: Pending,
    pub(super) key: PrivateKey,
    pub(super) request: Message,
}

/// What is no secret.
#[derive(Serialize, Deserialize)]
struct Record {
    ticket: u32,
    node: bool,
    hash: Vec<u8>,
    request: String,
}

impl Waiting {
    /// Writes down what is needed to read the reply.
    pub(super) fn keep(
        home: &Home,
        keys: TicketKeys,
        hash: RequestHash,
        key: PrivateKey,
        request: &Message,
    ) -> Result<Self, Fault> {
        let pending = Pending { reply: keys.reply, reject: keys.reject, hash, key: RequestedKey::Whole(*key.public()) };
        let directory = directory(pending.ticket());
        let pkcs8 = key.to_pkcs8().map_err(|_| Fault::Library)?;
        let secrets = [pending.reply.secret(), pending.reject.secret(), &pkcs8].map(Secret::expose);
        let length = secrets.iter().map(|secret| secret.len()).sum();
        let mut blob = Zeroizing::new(Vec::with_capacity(length));
        secrets.iter().for_each(|secret| blob.extend_from_slice(secret));
        home.write(&format!("{directory}/{SECRETS}"), &blob)?;
        let record = Record {
            ticket: pending.ticket().value(),
            node: pending.role() == Role::Node,
            hash: hash.octets().to_vec(),
            request: request.to_string(),
        };
        let record = serde_json::to_vec(&record).map_err(|_| Fault::Library)?;
        home.write(&format!("{directory}/{RECORD}"), &record)?;
        Ok(Self { pending, key, request: request.clone() })
    }

    /// All requests that wait. One that was not written whole was never shown, and is left out.
    pub(super) fn all(home: &Home) -> Result<Vec<Self>, Fault> {
        let mut all = Vec::new();
        for name in home.names(PENDING)? {
            if home.path(&format!("{PENDING}/{name}/{RECORD}")).exists() {
                all.push(Self::load(home, &name)?);
            }
        }
        Ok(all)
    }

    fn load(home: &Home, name: &str) -> Result<Self, Fault> {
        let path = format!("{PENDING}/{name}/{RECORD}");
        let broken = || Fault::Record(home.path(&path));
        let record: Record = serde_json::from_slice(&home.read(&path)?).map_err(|_| broken())?;
        let secrets = home.read(&format!("{PENDING}/{name}/{SECRETS}"))?;
        let (reply, rest) = secrets.split_at_checked(32).ok_or_else(broken)?;
        let (reject, pkcs8) = rest.split_at_checked(32).ok_or_else(broken)?;
        let role = if record.node { Role::Node } else { Role::Client };
        let ticket = TicketNumber::new(record.ticket).ok_or_else(broken)?;
        let key = PrivateKey::from_pkcs8(pkcs8).map_err(|_| broken())?;
        let pending = Pending {
            reply: ReplyKey::from_parts(ticket, role, Secret::from_slice(reply)).ok_or_else(broken)?,
            reject: RejectKey::from_parts(ticket, role, Secret::from_slice(reject)).ok_or_else(broken)?,
            hash: RequestHash::from_octets(record.hash.as_slice().try_into().map_err(|_| broken())?),
            key: RequestedKey::Whole(*key.public()),
        };
        Ok(Self { pending, key, request: Message::from_stored(&record.request).ok_or_else(broken)? })
    }

    pub(super) const fn ticket(&self) -> TicketNumber {
        self.pending.ticket()
    }

    pub(super) const fn role(&self) -> Role {
        self.pending.role()
    }

    /// Erases all of it: the reply is kept, or its user gave up.
    pub(super) fn erase(&self, home: &Home) -> Result<(), Fault> {
        home.erase_all(&directory(self.ticket()))
    }
}

/// The tickets of requests that wait.
pub(crate) fn pending_tickets(home: &Home) -> Result<Vec<String>, Fault> {
    Ok(Waiting::all(home)?.iter().map(|waiting| waiting.ticket().to_string()).collect())
}

fn directory(ticket: TicketNumber) -> String {
    format!("{PENDING}/{ticket}")
}

/// The directory of what waits.
pub(crate) const PENDING: &str = "pending";
/// K_reply, K_reject, and the private key in PKCS#8.
const SECRETS: &str = "keys";
/// The rest; it is written last.
const RECORD: &str = "request.json";
