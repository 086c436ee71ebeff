//! The journal: who did what, each entry's hash over the one before it.

use enroll::UnixTime;
use serde::Serialize;
use sha2::{Digest, Sha256};
use sqlx::sqlite::SqliteConnection;

use crate::context::Context;
use crate::error::ControlError;
use crate::row::{Row, hex, seconds};
use crate::store::Store;

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct JournalEntry {
    /// Its number, from 1.
    pub seq: u64,
    /// When, in seconds since 1970.
    pub at: u64,
    /// Who.
    pub actor: String,
    /// What was done, such as `ticket.new`.
    pub act: String,
    /// To what.
    pub subject: String,
    /// The rest, in words.
    pub detail: String,
    /// SHA-256 over the entry before and this one, in hexadecimal.
    pub hash: String,
}

/// The end of a journal that was found whole. Noted elsewhere, it proves later that nothing was cut off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct JournalHead {
    /// How many entries there are.
    pub entries: u64,
    /// The last entry's hash, in hexadecimal.
    pub head: String,
}

impl Store {
    /// The entries from number `from` on.
    ///
    /// # Errors
    /// The database fails.
    pub async fn journal(&mut self, from: u64) -> Result<Vec<JournalEntry>, ControlError> {
        let rows = sqlx::query("SELECT * FROM journal WHERE seq >= ?1 ORDER BY seq")
            .bind(i64::try_from(from).unwrap_or(i64::MAX))
            .fetch_all(&mut self.connection)
            .await?;
        rows.into_iter().map(|row| entry(&Row(row))).collect()
    }

    /// Checks every entry's hash, that no number is left out, and that every certificate's issue is in the journal.
    /// `noted` is a head that was noted before.
    ///
    /// # Errors
    /// The first entry that does not fit, or the database fails.
    pub async fn verify_journal(&mut self, noted: Option<&str>) -> Result<JournalHead, ControlError> {
        verify(&mut self.connection, noted).await
    }
}

pub(crate) async fn verify(
    connection: &mut SqliteConnection,
    noted: Option<&str>,
) -> Result<JournalHead, ControlError> {
    let rows = sqlx::query("SELECT * FROM journal ORDER BY seq").fetch_all(&mut *connection).await?;
    let (mut head, mut entries, mut seen) = ([0; 32], 0_u64, noted.is_none());
    for row in rows {
        let row = Row(row);
        let entry = entry(&row)?;
        entries = entries.saturating_add(1);
        let fields = Fields {
            seq: entry.seq,
            at: entry.at,
            actor: &entry.actor,
            act: &entry.act,
            subject: &entry.subject,
            detail: &entry.detail,
        };
        let hash = fields.hash(&head);
        if entry.seq != entries || row.octets("hash")? != hash {
            return Err(ControlError::JournalBroken(entries));
        }
        head = hash;
        seen |= noted.is_some_and(|noted| noted.eq_ignore_ascii_case(&entry.hash));
    }
    if let Some(noted) = noted.filter(|_| !seen) {
        return Err(ControlError::JournalHead(noted.to_owned()));
    }
    let lacking = sqlx::query(
        "SELECT serial FROM certificate WHERE NOT EXISTS \
         (SELECT 1 FROM journal WHERE act IN ('ticket.consume', 'certificate.issue') AND subject = printf('%016x', serial))",
    );
    if let Some(row) = lacking.fetch_optional(connection).await? {
        return Err(ControlError::JournalLacks(Row(row).serial("serial")?));
    }
    Ok(JournalHead { entries, head: hex(&head) })
}

/// Writes an entry into the operation that it is about.
pub(crate) async fn write(
    connection: &mut SqliteConnection,
    context: &Context,
    act: &str,
    subject: &str,
    detail: &str,
) -> Result<(), ControlError> {
    let last = sqlx::query("SELECT seq, hash FROM journal ORDER BY seq DESC LIMIT 1");
    let (seq, before) = match last.fetch_optional(&mut *connection).await?.map(Row) {
        Some(row) => (row.number("seq")?.saturating_add(1), row.hash("hash")?),
        None => (1, [0; 32]),
    };
    let number = u64::try_from(seq).map_err(|_| ControlError::Record("seq"))?;
    let fields = Fields { seq: number, at: context.now.seconds, actor: &context.actor, act, subject, detail };
    let hash = fields.hash(&before);
    sqlx::query("INSERT INTO journal (seq, at, actor, act, subject, detail, hash) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")
        .bind(seq)
        .bind(seconds(context.now))
        .bind(&context.actor)
        .bind(act)
        .bind(subject)
        .bind(detail)
        .bind(hash.as_slice())
        .execute(connection)
        .await?;
    Ok(())
}

/// Refuses to write into the past: dates of certificates and expiries would be wrong.
pub(crate) async fn check_clock(connection: &mut SqliteConnection, context: &Context) -> Result<(), ControlError> {
    let last = sqlx::query("SELECT at FROM journal ORDER BY seq DESC LIMIT 1").fetch_optional(connection).await?;
    let Some(last) = last.map(|row| Row(row).time("at")).transpose()? else {
        return Ok(());
    };
    if context.now.seconds.saturating_add(CLOCK_SLACK_S) < last.seconds {
        return Err(ControlError::Clock { now: context.now, last: UnixTime { seconds: last.seconds } });
    }
    Ok(())
}

/// What an entry's hash is made over.
struct Fields<'a> {
    seq: u64,
    at: u64,
    actor: &'a str,
    act: &'a str,
    subject: &'a str,
    detail: &'a str,
}

impl Fields<'_> {
    /// SHA-256 over the hash before, the numbers, and each text behind its length, so that no two entries read alike.
    fn hash(&self, before: &[u8; 32]) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(before);
        hash.update(self.seq.to_be_bytes());
        hash.update(self.at.to_be_bytes());
        for text in [self.actor, self.act, self.subject, self.detail] {
            hash.update(u64::try_from(text.len()).unwrap_or(u64::MAX).to_be_bytes());
            hash.update(text);
        }
        hash.finalize().into()
    }
}

fn entry(row: &Row) -> Result<JournalEntry, ControlError> {
    Ok(JournalEntry {
        seq: u64::try_from(row.number("seq")?).map_err(|_| ControlError::Record("seq"))?,
        at: row.time("at")?.seconds,
        actor: row.text("actor")?,
        act: row.text("act")?,
        subject: row.text("subject")?,
        detail: row.text("detail")?,
        hash: hex(&row.octets("hash")?),
    })
}

/// A clock that was set back by a few minutes is no reason to stop.
const CLOCK_SLACK_S: u64 = 600;
