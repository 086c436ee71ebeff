//! Requests by text: read, looked at, accepted or rejected.

use std::collections::{BTreeMap, BTreeSet};

use enroll::{
    Answer, Authority, GatewayName, Grant, KeyStanding, MessageKind, ProfileBlock, ReadError, Reader, Refusal,
    RejectionReason, Repair, Replies, Request, RequestHash, Role, Serial, ShortTerms, State, Terms, Ticket,
    TicketNumber, Validity, Words, peek, pem_block,
};
use sqlx::sqlite::SqliteConnection;

use crate::authority::issuing_as;
use crate::context::Context;
use crate::error::ControlError;
use crate::issue::{key_standing, validity};
use crate::journal;
use crate::record::TicketRecord;
use crate::row::{Row, seconds, serial_number};
use crate::store::{Store, rng};
use crate::ticket::{Stored, row_of, row_role};

/// A request whose MAC holds, and what it is for.
#[derive(Clone, Debug)]
pub struct Incoming {
    pub(crate) request: Request,
    /// The ticket.
    pub ticket: TicketNumber,
    /// Client or node.
    pub role: Role,
    /// Whom the ticket names.
    pub name: String,
    /// Lines that needed repair, and how.
    pub repairs: Vec<String>,
}

/// What would become of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preview {
    /// A certificate, if the words agree.
    Ask,
    /// A certificate.
    Issue,
    /// The same reply again.
    Again,
    /// A rejection.
    Reject(RejectionReason),
}

/// Who vouches for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Approvals {
    /// Its code alone.
    Code,
    /// These words too, which were heard.
    Words(Words),
}

/// The form of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyForm {
    /// The complete form if CA and key allow it, else the full one, else the short one.
    Usual,
    /// All that is needed, in about ten lines.
    Complete,
    /// Four lines; certificate and profile are fetched later.
    Short,
    /// One line and PEM blocks.
    Full,
}

/// The answer to a request. The store knew it before it was given.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// The ticket.
    pub ticket: TicketNumber,
    /// Whom the ticket names.
    pub name: String,
    /// The certificate's serial, unless it was rejected.
    pub serial: Option<Serial>,
    /// Why it was rejected, if it was.
    pub reason: Option<RejectionReason>,
    /// Whether the same reply was given before.
    pub again: bool,
    /// The numbered lines.
    pub lines: Vec<String>,
    /// The lines as a QR code holds them.
    pub compact: String,
    /// PEM blocks behind the lines, for the full form.
    pub blocks: String,
    /// The six words that both sides compare at the end.
    pub words: Option<Words>,
}

impl Store {
    /// Finds the request in a text, whatever a mail made of it. Nothing changes.
    ///
    /// # Errors
    /// No request of a ticket of this store is in it; lines that could not be read are named.
    pub async fn read_request(&mut self, text: &str) -> Result<Incoming, ControlError> {
        let mut reader = Reader::default();
        reader.add(text);
        let (mut numbers, mut reply) = (BTreeSet::new(), false);
        let looked = reader.resolve(|symbols| {
            let (kind, number) = peek(symbols)?;
            match kind {
                MessageKind::Request => numbers.insert(number),
                MessageKind::Complete | MessageKind::Rejection | MessageKind::Short | MessageKind::Full => {
                    reply = true;
                    false
                }
            };
            Err::<(), _>(Refusal::OtherTicket)
        });
        if numbers.is_empty() && reply {
            return Err(ControlError::NotARequest);
        }
        if let (true, Err(error)) = (numbers.is_empty(), looked) {
            return Err(read_error(error));
        }
        let mut keys = BTreeMap::new();
        for number in numbers {
            let Some(row) = row_of(&mut self.connection, number).await? else { continue };
            let Some(sealed) = row.octets_if("keys")? else { continue };
            if let Some(key) = TicketRecord::request_key(number, row_role(&row)?, &sealed, &self.key)? {
                keys.insert(number, (key, row));
            }
        }
        let read = reader.resolve(|symbols| {
            let (_, number) = peek(symbols)?;
            let (key, _) = keys.get(&number).ok_or(Refusal::OtherTicket)?;
            Request::decode(key, symbols)
        });
        let read = read.map_err(read_error)?;
        let request = read.message;
        let (_, row) = keys.get(&request.ticket).ok_or(ControlError::Foreign(Refusal::OtherTicket))?;
        let repairs = read.repairs.iter().map(|(line, repair)| format!("line {line}: {}", repair_words(*repair)));
        Ok(Incoming {
            request,
            ticket: request.ticket,
            role: row_role(row)?,
            name: row.text("name")?,
            repairs: repairs.collect(),
        })
    }

    /// Says what would become of a request. Nothing changes.
    ///
    /// # Errors
    /// The database fails.
    pub async fn preview(&mut self, context: &Context, incoming: &Incoming) -> Result<Preview, ControlError> {
        let key = self.key.clone();
        let mut stored = Stored::load(&mut self.connection, incoming.ticket, &key).await?;
        let standing = standing(&mut self.connection, incoming).await?;
        Ok(match stored.ticket.handle_request(context.now, &incoming.request, standing) {
            Answer::Compare(_) => Preview::Ask,
            Answer::Consume(_) | Answer::Finish(_) => Preview::Issue,
            Answer::Again(_) => Preview::Again,
            Answer::Reject(reason) => Preview::Reject(reason),
        })
    }

    /// Answers a request: consumes its ticket, issues, and gives the reply; or gives the one that was given before; or
    /// rejects it. The ticket's use is on the disk before anything is signed, the reply before it is given; who is
    /// killed between the two goes on with the same serial when the request comes again.
    ///
    /// # Errors
    /// Words are needed or differ, the CA is needed, or something cannot be written.
    pub async fn accept(
        &mut self,
        context: &Context,
        incoming: &Incoming,
        approvals: Approvals,
        authority: Option<&Authority>,
        days: u16,
        form: ReplyForm,
    ) -> Result<Accepted, ControlError> {
        self.sweep(context).await?;
        let key = self.key.clone();
        let mut transaction = self.begin(context).await?;
        let mut stored = Stored::load(&mut transaction, incoming.ticket, &key).await?;
        let standing = standing(&mut transaction, incoming).await?;
        let request = &incoming.request;
        let next = Next::of(stored.ticket.handle_request(context.now, request, standing));
        let next = match (next, approvals) {
            (Next::Compare, Approvals::Words(words)) => match stored.ticket.handle_words(context.now, &words) {
                Ok(hash) if hash == request.hash => Next::Consume,
                Ok(_) | Err(_) => Next::WordsDiffer,
            },
            (next, Approvals::Words(_) | Approvals::Code) => next,
        };
        let answer = match next {
            Next::Compare | Next::WordsDiffer => {
                // The waiting request is kept: words that are read out later choose among all that wait.
                note(&mut transaction, context, incoming, WAITS).await?;
                stored.save(&mut transaction, context, &key).await?;
                transaction.commit().await?;
                let given = matches!(next, Next::WordsDiffer);
                return Err(if given { ControlError::WordsDiffer } else { ControlError::NeedsWords });
            }
            Next::Reject(reason) => {
                note(&mut transaction, context, incoming, &format!("rejected: {reason}")).await?;
                stored.save(&mut transaction, context, &key).await?;
                let accepted = reject(&stored.ticket, incoming, reason)?;
                transaction.commit().await?;
                return Ok(accepted);
            }
            Next::Again => {
                note(&mut transaction, context, incoming, "answered again").await?;
                transaction.commit().await?;
                None
            }
            Next::Consume => {
                let authority = authority.ok_or(ControlError::NeedsAuthority)?;
                let validity = validity(context.now, days)?;
                let grant = Grant { hash: request.hash, serial: Serial::draw(&mut rng()?), validity };
                may_outlive(authority, validity)?;
                stored.ticket.consume(context.now, grant)?;
                stored.save(&mut transaction, context, &key).await?;
                register(&mut transaction, context, &stored.ticket, &grant, authority).await?;
                note(&mut transaction, context, incoming, "consumed the ticket").await?;
                transaction.commit().await?;
                Some((authority, grant))
            }
            Next::Finish(grant) => {
                transaction.commit().await?;
                Some((authority.ok_or(ControlError::NeedsAuthority)?, grant))
            }
        };
        let again = answer.is_none();
        if let Some((authority, grant)) = answer {
            self.finish(context, authority, incoming.ticket, &grant).await?;
        }
        self.reply(incoming, form, again).await
    }

    /// Signs what a ticket was consumed for, and stores all forms of the reply.
    async fn finish(
        &mut self,
        context: &Context,
        authority: &Authority,
        number: TicketNumber,
        grant: &Grant,
    ) -> Result<(), ControlError> {
        let (key, cluster, gateway) = (self.key.clone(), self.cluster.clone(), self.gateway.clone());
        let mut transaction = self.begin(context).await?;
        let mut stored = Stored::load(&mut transaction, number, &key).await?;
        let used = stored.ticket.state().used().cloned().ok_or(ControlError::Conflict)?;
        if used.replies.is_none() {
            let order = stored.ticket.order().clone();
            let terms = Terms {
                serial: grant.serial,
                validity: grant.validity,
                cluster,
                client: order.name,
                gateway,
                profile: order.profile,
            };
            // The CA may be another than when the ticket was consumed: its revocation list must name the certificate.
            let issuer = issuing_as(&mut transaction, authority).await?;
            let mac = stored.ticket.reply_key().ok_or(ControlError::Record("keys"))?;
            let settings = crate::profile::settings(&mut transaction, order.profile).await?;
            let chain = crate::issue::chain(&mut transaction).await?;
            let block = ProfileBlock { gateway: terms.gateway.clone(), profile: terms.profile, settings };
            let replies = authority.reply(mac, grant, &used.key, &terms, &chain, block.to_string().as_bytes())?;
            let der = replies.certificate.clone();
            stored.ticket.store_replies(grant, replies)?;
            stored.save(&mut transaction, context, &key).await?;
            sqlx::query("UPDATE certificate SET der = ?1, authority = ?2 WHERE serial = ?3")
                .bind(der)
                .bind(issuer)
                .bind(serial_number(grant.serial))
                .execute(&mut *transaction)
                .await?;
            let subject = grant.serial.to_string();
            let detail = format!("{} on ticket {number}", terms.client);
            journal::write(&mut transaction, context, "certificate.issue", &subject, &detail).await?;
        }
        transaction.commit().await?;
        Ok(())
    }

    /// The stored reply in the form asked for.
    async fn reply(&mut self, incoming: &Incoming, form: ReplyForm, again: bool) -> Result<Accepted, ControlError> {
        let key = self.key.clone();
        let stored = Stored::load(&mut self.connection, incoming.ticket, &key).await?;
        let used = stored.ticket.state().used().ok_or(ControlError::Conflict)?;
        let replies = used.replies.as_ref().ok_or(ControlError::Record("replies"))?;
        let words = final_words(&mut self.connection, &self.gateway, incoming, used.grant.serial).await?;
        let (message, blocks) = form_of(replies, form)?;
        Ok(Accepted {
            ticket: incoming.ticket,
            name: incoming.name.clone(),
            serial: Some(used.grant.serial),
            reason: None,
            again,
            lines: message.lines().collect(),
            compact: message.compact(),
            blocks,
            words: Some(words),
        })
    }

    /// Rejects a valid request by hand; its ticket stays open for another. Another request on a used ticket raises the
    /// alarm on both sides, whatever reason is given.
    ///
    /// # Errors
    /// The ticket's keys are gone, or something cannot be written.
    pub async fn reject(
        &mut self,
        context: &Context,
        incoming: &Incoming,
        reason: RejectionReason,
    ) -> Result<Accepted, ControlError> {
        let key = self.key.clone();
        let mut transaction = self.begin(context).await?;
        let mut stored = Stored::load(&mut transaction, incoming.ticket, &key).await?;
        let reason = if stored.ticket.state().used().is_some() {
            let standing = standing(&mut transaction, incoming).await?;
            let next = Next::of(stored.ticket.handle_request(context.now, &incoming.request, standing));
            stored.save(&mut transaction, context, &key).await?;
            match next {
                Next::Reject(of_ticket) => of_ticket,
                Next::Compare | Next::WordsDiffer | Next::Consume | Next::Finish(_) | Next::Again => reason,
            }
        } else {
            reason
        };
        note(&mut transaction, context, incoming, &format!("rejected: {reason}")).await?;
        let rejected = reject(&stored.ticket, incoming, reason)?;
        transaction.commit().await?;
        Ok(rejected)
    }
}

/// An [`Answer`] without what it borrows.
#[derive(Clone, Copy)]
enum Next {
    Compare,
    WordsDiffer,
    Consume,
    Finish(Grant),
    Again,
    Reject(RejectionReason),
}

impl Next {
    const fn of(answer: Answer<'_>) -> Self {
        match answer {
            Answer::Compare(_) => Self::Compare,
            Answer::Consume(_) => Self::Consume,
            Answer::Finish(grant) => Self::Finish(grant),
            Answer::Again(_) => Self::Again,
            Answer::Reject(reason) => Self::Reject(reason),
        }
    }
}

fn reject(ticket: &Ticket, incoming: &Incoming, reason: RejectionReason) -> Result<Accepted, ControlError> {
    let message = ticket.rejection(&incoming.request.hash, reason).ok_or(ControlError::Record("keys"))?;
    Ok(Accepted {
        ticket: incoming.ticket,
        name: incoming.name.clone(),
        serial: None,
        reason: Some(reason),
        again: false,
        lines: message.lines().collect(),
        compact: message.compact(),
        blocks: String::new(),
        words: None,
    })
}

fn form_of(replies: &Replies, form: ReplyForm) -> Result<(&enroll::Message, String), ControlError> {
    match form {
        ReplyForm::Usual if replies.complete.is_some() => form_of(replies, ReplyForm::Complete),
        ReplyForm::Usual if replies.full.is_some() => form_of(replies, ReplyForm::Full),
        ReplyForm::Usual | ReplyForm::Short => Ok((&replies.short, String::new())),
        ReplyForm::Complete => Ok((replies.complete.as_ref().ok_or(ControlError::NoForm("complete"))?, String::new())),
        ReplyForm::Full => {
            let (line, blocks) = replies.full.as_ref().ok_or(ControlError::NoForm("full"))?;
            let last = blocks.len().saturating_sub(1);
            let pem = blocks
                .iter()
                .enumerate()
                .map(|(at, block)| pem_block(if at == last { "PROFILE" } else { "CERTIFICATE" }, block));
            Ok((line, pem.collect()))
        }
    }
}

/// Whether the cluster met the key before, other than in this very request.
async fn standing(connection: &mut SqliteConnection, incoming: &Incoming) -> Result<KeyStanding, ControlError> {
    match incoming.request.key {
        Ok(key) => key_standing(connection, &key.spki_hash(), Some(incoming.ticket)).await,
        Err(_) => Ok(KeyStanding::New),
    }
}

/// Writes the certificate's row when its ticket is consumed, before anything is signed.
async fn register(
    connection: &mut SqliteConnection,
    context: &Context,
    ticket: &Ticket,
    grant: &Grant,
    authority: &Authority,
) -> Result<(), ControlError> {
    let State::Issued(used) = ticket.state() else {
        return Err(ControlError::Conflict);
    };
    let authority = issuing_as(connection, authority).await?;
    let order = ticket.order();
    sqlx::query(
        "INSERT INTO certificate (serial, authority, kind, name, profile, ticket, key_hash, issued, start_day, expiry_day) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
    )
    .bind(serial_number(grant.serial))
    .bind(authority)
    .bind(crate::record::role_word(order.role))
    .bind(order.name.as_str())
    .bind(i64::from(order.profile.value()))
    .bind(i64::from(ticket.number().value()))
    .bind(used.key.spki_hash().as_slice())
    .bind(seconds(context.now))
    .bind(i64::from(grant.validity.start_day()))
    .bind(i64::from(grant.validity.expiry_day()))
    .execute(&mut *connection)
    .await?;
    let subject = grant.serial.to_string();
    let detail = format!("{} on ticket {}", order.name, ticket.number());
    journal::write(connection, context, "ticket.consume", &subject, &detail).await
}

/// Keeps a valid request and what became of it.
async fn note(
    connection: &mut SqliteConnection,
    context: &Context,
    incoming: &Incoming,
    answer: &str,
) -> Result<(), ControlError> {
    let key_hash = incoming.request.key.map(|key| key.spki_hash()).unwrap_or_default();
    sqlx::query(
        "INSERT INTO request (ticket, hash, key_hash, came, answer) VALUES (?1, ?2, ?3, ?4, ?5) \
         ON CONFLICT (ticket, hash) DO UPDATE SET answer = ?5",
    )
    .bind(i64::from(incoming.ticket.value()))
    .bind(incoming.request.hash.octets().as_slice())
    .bind(key_hash.as_slice())
    .bind(seconds(context.now))
    .bind(answer)
    .execute(&mut *connection)
    .await?;
    let detail = format!("{}: {answer}", short_hash(&incoming.request.hash));
    journal::write(connection, context, "request", &incoming.ticket.to_string(), &detail).await
}

async fn final_words(
    connection: &mut SqliteConnection,
    gateway: &GatewayName,
    incoming: &Incoming,
    serial: Serial,
) -> Result<Words, ControlError> {
    use sha2::Digest as _;
    let row = sqlx::query(
        "SELECT a.certificate AS certificate, c.expiry_day AS expiry_day FROM certificate c \
         JOIN authority a ON a.id = c.authority WHERE c.serial = ?1",
    );
    let row = Row(row.bind(serial_number(serial)).fetch_one(connection).await?);
    let facts = enroll::CertificateFacts::decode(&row.octets("certificate")?)?;
    let terms = ShortTerms {
        ca_hash: ShortTerms::ca_hash(&sha2::Sha256::digest(&facts.spki).into()),
        serial,
        expiry_day: row.day("expiry_day")?,
        gateway: gateway.clone(),
    };
    Ok(Words::of_issue(incoming.role, &incoming.request.hash, &terms))
}

/// A certificate must end before its CA; said before a ticket is consumed for it.
fn may_outlive(authority: &Authority, validity: Validity) -> Result<(), ControlError> {
    if u64::from(validity.expiry_day()) > authority.expiry_day()? {
        return Err(enroll::AuthorityError::Outlives.into());
    }
    Ok(())
}

fn read_error(error: ReadError) -> ControlError {
    match error {
        ReadError::NoMessage(refusal) | ReadError::Refused(refusal) => ControlError::Foreign(refusal),
        ReadError::Unreadable(lines) => ControlError::Lines(lines),
    }
}

fn repair_words(repair: Repair) -> String {
    match repair {
        Repair::None => "nothing".to_owned(),
        Repair::Characters(1) => "1 character".to_owned(),
        Repair::Characters(count) => format!("{count} characters"),
        Repair::Missing => "a character was missing".to_owned(),
        Repair::Extra => "a character was too many".to_owned(),
    }
}

fn short_hash(hash: &RequestHash) -> String {
    crate::row::hex(hash.octets().get(..8).unwrap_or_default())
}

/// What became so far of a request whose words were not given yet.
pub(crate) const WAITS: &str = "waits for words";
