//! Tickets: ordered, listed, voided; and how every change of one is stored.

use enroll::{
    Alarm, AllowedKeys, Approval, ClientName, Code, Effect, GatewayName, Profile, RevocationCause, Role, State, Ticket,
    TicketKeys, TicketNumber, TicketOrder, UnixTime, VoidReason,
};
use serde::Serialize;
use sqlx::sqlite::SqliteConnection;
use wire::Secret;
use zeroize::Zeroizing;

use crate::context::Context;
use crate::error::ControlError;
use crate::journal;
use crate::record::{TicketRecord, role_of, role_word, status_word, void_word};
use crate::revocation;
use crate::row::{Row, seconds, serial_number};
use crate::store::{Store, rng};

/// What an administrator wishes for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TicketWish {
    /// Client or node.
    pub role: Role,
    /// Whom the certificate names.
    pub name: String,
    /// The profile's number.
    pub profile: Profile,
    /// When the ticket ends.
    pub expires: UnixTime,
    /// Whether words are compared first.
    pub approval: Approval,
    /// Which keys are taken.
    pub keys: AllowedKeys,
}

/// A ticket with its code, which is shown once and stored nowhere.
#[derive(Debug)]
pub struct NewTicket {
    /// The ticket's number as it is written.
    pub number: String,
    /// The code.
    pub code: Zeroizing<String>,
    /// Whom the certificate will name.
    pub name: String,
    /// When the ticket ends.
    pub expires: UnixTime,
}

/// A ticket as a list shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TicketEntry {
    /// The ticket's number as it is written.
    pub number: String,
    /// `client` or `node`.
    pub role: String,
    /// Whom the certificate names.
    pub name: String,
    /// Where it stands.
    pub status: String,
    /// When it was made, UTC.
    pub made: String,
    /// When it ends, UTC.
    pub expires: String,
    /// The profile's number.
    pub profile: u8,
    /// Whether words are compared first.
    pub ask: bool,
    /// The serial of the certificate that was issued on it, in hexadecimal.
    pub serial: Option<String>,
    /// How many requests wait.
    pub waiting: usize,
    /// Why it was voided.
    pub voided: Option<String>,
}

impl Store {
    /// Makes a ticket and shows its code once.
    ///
    /// # Errors
    /// The order breaks a rule, or the name is taken.
    pub async fn new_ticket(&mut self, context: &Context, wish: &TicketWish) -> Result<NewTicket, ControlError> {
        let name = ClientName::new(&wish.name).map_err(|_| ControlError::Name(wish.name.clone()))?;
        let order = TicketOrder {
            role: wish.role,
            name,
            profile: wish.profile,
            expires: wish.expires,
            approval: wish.approval,
            keys: wish.keys,
        };
        let (key, gateway) = (self.key.clone(), self.gateway.clone());
        let mut transaction = self.begin(context).await?;
        sweep(&mut transaction, context, &key).await?;
        refuse_name_of_gateway(&mut transaction, &gateway, &wish.name).await?;
        refuse_open_name(&mut transaction, &wish.name).await?;
        let mut rng = rng()?;
        let number = loop {
            let number = TicketNumber::draw(&mut rng);
            let known = sqlx::query("SELECT 1 FROM ticket WHERE number = ?1").bind(i64::from(number.value()));
            if known.fetch_optional(&mut *transaction).await?.is_none() {
                break number;
            }
        };
        let code = Code::draw(wish.role, number, &mut rng);
        let others = if wish.role == Role::Node { open_nodes(&mut transaction, &key).await? } else { Vec::new() };
        let ticket = Ticket::open(context.now, order, TicketKeys::derive(&code), &others)?;
        insert(&mut transaction, context, &ticket, &key).await?;
        let detail = format!("{} {}, until {}", role_word(wish.role), wish.name, wish.expires);
        journal::write(&mut transaction, context, "ticket.new", &number.to_string(), &detail).await?;
        transaction.commit().await?;
        Ok(NewTicket {
            number: number.to_string(),
            code: code.expose(),
            name: wish.name.clone(),
            expires: wish.expires,
        })
    }

    /// All tickets, the newest first.
    ///
    /// # Errors
    /// The database fails.
    pub async fn tickets(&mut self, context: &Context) -> Result<Vec<TicketEntry>, ControlError> {
        self.sweep(context).await?;
        let rows = sqlx::query("SELECT * FROM ticket ORDER BY made DESC, number").fetch_all(&mut self.connection);
        rows.await?.into_iter().map(|row| self.entry(&Row(row))).collect()
    }

    /// One ticket.
    ///
    /// # Errors
    /// There is none of this number.
    pub async fn ticket(&mut self, context: &Context, number: &str) -> Result<TicketEntry, ControlError> {
        self.sweep(context).await?;
        let parsed = parse_number(number)?;
        let row = row_of(&mut self.connection, parsed).await?;
        self.entry(&row.ok_or_else(|| ControlError::NoTicket(number.to_owned()))?)
    }

    /// Withdraws a ticket; a certificate that was issued on it is revoked.
    ///
    /// # Errors
    /// There is none of this number.
    pub async fn void_ticket(&mut self, context: &Context, number: &str) -> Result<TicketEntry, ControlError> {
        let parsed = parse_number(number)?;
        let key = self.key.clone();
        let mut transaction = self.begin(context).await?;
        let mut stored = Stored::load(&mut transaction, parsed, &key).await?;
        stored.ticket.void(VoidReason::Administrator);
        stored.save(&mut transaction, context, &key).await?;
        journal::write(&mut transaction, context, "ticket.void", &parsed.to_string(), "").await?;
        transaction.commit().await?;
        self.ticket(context, number).await
    }

    /// Does what the clock demands of tickets: expiry, lapse, the end of keys.
    ///
    /// # Errors
    /// The database fails.
    pub async fn sweep(&mut self, context: &Context) -> Result<(), ControlError> {
        let key = self.key.clone();
        let mut transaction = self.begin(context).await?;
        sweep(&mut transaction, context, &key).await?;
        transaction.commit().await?;
        Ok(())
    }

    fn entry(&self, row: &Row) -> Result<TicketEntry, ControlError> {
        let ticket = ticket_of(row, &self.key)?;
        let (waiting, voided) = match ticket.state() {
            State::Requested { waiting, .. } => (waiting.len(), None),
            State::Voided(reason, _) => (0, Some(void_word(*reason).to_owned())),
            State::Open | State::Issued(_) | State::Proven(_) | State::Lapsed(_) | State::UsedAgain(_, _) => (0, None),
        };
        Ok(TicketEntry {
            number: ticket.number().to_string(),
            role: row.text("role")?,
            name: row.text("name")?,
            status: row.text("status")?,
            made: row.time("made")?.to_string(),
            expires: row.time("expires")?.to_string(),
            profile: ticket.order().profile.value(),
            ask: ticket.order().approval == Approval::Ask,
            serial: row.serial_if("serial")?.map(|serial| serial.to_string()),
            waiting,
            voided,
        })
    }
}

/// A ticket and the version that its next state is compared with.
pub(crate) struct Stored {
    pub(crate) ticket: Ticket,
    version: i64,
}

impl Stored {
    pub(crate) async fn load(
        connection: &mut SqliteConnection,
        number: TicketNumber,
        key: &Secret,
    ) -> Result<Self, ControlError> {
        let row = row_of(connection, number).await?;
        Self::of(&row.ok_or_else(|| ControlError::NoTicket(number.to_string()))?, key)
    }

    fn of(row: &Row, key: &Secret) -> Result<Self, ControlError> {
        Ok(Self { ticket: ticket_of(row, key)?, version: row.number("version")? })
    }

    /// Compares the version and sets the ticket's new state, with all that follows from it.
    pub(crate) async fn save(
        &mut self,
        connection: &mut SqliteConnection,
        context: &Context,
        key: &Secret,
    ) -> Result<(), ControlError> {
        let record = TicketRecord::of(&self.ticket, key)?;
        let serial = match self.ticket.state() {
            State::Voided(_, grant) => grant.as_ref().map(|grant| grant.serial),
            State::Open
            | State::Requested { .. }
            | State::Issued(_)
            | State::Proven(_)
            | State::Lapsed(_)
            | State::UsedAgain(_, _) => self.ticket.state().used().map(|used| used.grant.serial),
        };
        let changed = sqlx::query(
            "UPDATE ticket SET version = version + 1, status = ?1, serial = ?2, document = ?3, keys = ?4 \
             WHERE number = ?5 AND version = ?6",
        )
        .bind(status_word(self.ticket.state().status()))
        .bind(serial.map(serial_number))
        .bind(record.document)
        .bind(record.keys)
        .bind(i64::from(self.ticket.number().value()))
        .bind(self.version)
        .execute(&mut *connection)
        .await?;
        if changed.rows_affected() != 1 {
            return Err(ControlError::Conflict);
        }
        self.version = self.version.saturating_add(1);
        let subject = self.ticket.number().to_string();
        while let Some(effect) = self.ticket.poll_effect() {
            match effect {
                Effect::Alarm(alarm) => {
                    journal::write(connection, context, "alarm", &subject, alarm_words(alarm)).await?;
                }
                Effect::Suspend(serial) => revocation::suspend(connection, context, serial).await?,
                Effect::Revoke { serial, key } => {
                    revocation::revoke(connection, context, serial, RevocationCause::Withdrawn, key).await?;
                }
            }
        }
        Ok(())
    }
}

/// What an administrator is told.
pub(crate) const fn alarm_words(alarm: Alarm) -> &'static str {
    match alarm {
        Alarm::TwoRequests => "two different requests wait: two parties have the code",
        Alarm::UsedAgain => {
            "another valid request came on a used ticket: two parties have the code, and the first may have been the thief"
        }
        Alarm::TwoIssues => "two masters issued on this ticket: both certificates are revoked",
    }
}

pub(crate) fn parse_number(text: &str) -> Result<TicketNumber, ControlError> {
    let symbols: Option<Vec<_>> = text.trim().chars().map(enroll::Symbol::from_char).collect();
    let symbols = symbols.filter(|symbols| symbols.len() == 5);
    let number = symbols.map(|symbols| symbols.iter().fold(0, |number, s| number << 5 | u32::from(s.value())));
    number.and_then(TicketNumber::new).ok_or_else(|| ControlError::NoTicket(text.to_owned()))
}

pub(crate) async fn row_of(
    connection: &mut SqliteConnection,
    number: TicketNumber,
) -> Result<Option<Row>, ControlError> {
    let row = sqlx::query("SELECT * FROM ticket WHERE number = ?1").bind(i64::from(number.value()));
    Ok(row.fetch_optional(connection).await?.map(Row))
}

pub(crate) fn number_of(row: &Row) -> Result<TicketNumber, ControlError> {
    let number = u32::try_from(row.number("number")?).ok();
    number.and_then(TicketNumber::new).ok_or(ControlError::Record("number"))
}

fn ticket_of(row: &Row, key: &Secret) -> Result<Ticket, ControlError> {
    TicketRecord { document: row.text("document")?, keys: row.octets_if("keys")? }.ticket(number_of(row)?, key)
}

pub(crate) fn row_role(row: &Row) -> Result<Role, ControlError> {
    role_of(&row.text("role")?).ok_or(ControlError::Record("role"))
}

async fn insert(
    connection: &mut SqliteConnection,
    context: &Context,
    ticket: &Ticket,
    key: &Secret,
) -> Result<(), ControlError> {
    let record = TicketRecord::of(ticket, key)?;
    sqlx::query(
        "INSERT INTO ticket (number, version, role, name, status, made, expires, document, keys) \
         VALUES (?1, 1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )
    .bind(i64::from(ticket.number().value()))
    .bind(role_word(ticket.order().role))
    .bind(ticket.order().name.as_str())
    .bind(status_word(ticket.state().status()))
    .bind(seconds(context.now))
    .bind(seconds(ticket.order().expires))
    .bind(record.document)
    .bind(record.keys)
    .execute(connection)
    .await?;
    Ok(())
}

/// A name of a client must be no gateway's and no node's.
pub(crate) async fn refuse_name_of_gateway(
    connection: &mut SqliteConnection,
    gateway: &GatewayName,
    name: &str,
) -> Result<(), ControlError> {
    let taken = sqlx::query("SELECT 1 FROM certificate WHERE name = ?1 AND kind IN ('gateway', 'node')").bind(name);
    if name == gateway.as_str() || taken.fetch_optional(connection).await?.is_some() {
        return Err(ControlError::NameOfGateway(name.to_owned()));
    }
    Ok(())
}

/// A name must be in no other open ticket.
async fn refuse_open_name(connection: &mut SqliteConnection, name: &str) -> Result<(), ControlError> {
    let open = sqlx::query("SELECT number FROM ticket WHERE name = ?1 AND status IN ('open', 'requested')").bind(name);
    match open.fetch_optional(connection).await?.map(Row) {
        Some(row) => Err(ControlError::NameOpen { name: name.to_owned(), ticket: number_of(&row)?.to_string() }),
        None => Ok(()),
    }
}

async fn open_nodes(connection: &mut SqliteConnection, key: &Secret) -> Result<Vec<Ticket>, ControlError> {
    let rows = sqlx::query("SELECT * FROM ticket WHERE role = 'node' AND status IN ('open', 'requested')");
    rows.fetch_all(connection).await?.into_iter().map(|row| ticket_of(&Row(row), key)).collect()
}

/// Lets every ticket do what is due. Tickets whose keys are gone have nothing left to do.
async fn sweep(connection: &mut SqliteConnection, context: &Context, key: &Secret) -> Result<(), ControlError> {
    let rows = sqlx::query(
        "SELECT * FROM ticket WHERE (status IN ('open', 'requested') AND expires <= ?1) \
         OR status IN ('issued', 'used again') OR (keys IS NOT NULL AND expires <= ?2)",
    )
    .bind(seconds(context.now))
    .bind(seconds(context.now).saturating_sub(KEYS_KEPT_S))
    .fetch_all(&mut *connection)
    .await?;
    for row in rows {
        let mut stored = Stored::of(&Row(row), key)?;
        if stored.ticket.poll_timeout().is_some_and(|due| due <= context.now) {
            stored.ticket.handle_timeout(context.now);
            let status = status_word(stored.ticket.state().status());
            stored.save(connection, context, key).await?;
            journal::write(connection, context, "ticket.due", &stored.ticket.number().to_string(), status).await?;
        }
    }
    Ok(())
}

/// Seconds after a ticket's end after which its keys go; the ticket itself decides, this only finds it.
const KEYS_KEPT_S: i64 = 30 * 86_400;
