//! Revocations: by serial, and by key once it was proven. They only ever grow; a suspension ends by a revocation or a release.

use std::path::{Path, PathBuf};
use std::time::Duration;

use enroll::{Revocation, RevocationCause, Revocations, Serial, UnixTime, pem_blocks};
use serde::Serialize;
use sqlx::sqlite::SqliteConnection;

use crate::authority::Unlock;
use crate::context::Context;
use crate::error::ControlError;
use crate::journal;
use crate::row::{Row, seconds, serial_number};
use crate::store::Store;

/// What revoking did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RevocationReport {
    /// The serial, in hexadecimal.
    pub serial: String,
    /// Whom it named, if the store knows the certificate.
    pub name: Option<String>,
    /// Whether its key is revoked as well, since its possession was proven.
    pub key: bool,
}

/// What releasing did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReleaseReport {
    /// The serial, in hexadecimal.
    pub serial: String,
    /// Whom it names, if the store knows the certificate.
    pub name: Option<String>,
    /// Since when it was suspended, UTC.
    pub suspended: String,
}

impl Store {
    /// Revokes a certificate by its serial or name; a serial that the store does not know is revoked as well.
    ///
    /// # Errors
    /// There is no such certificate, several have the name, or it is revoked already.
    pub async fn revoke(
        &mut self,
        context: &Context,
        which: &str,
        cause: RevocationCause,
    ) -> Result<RevocationReport, ControlError> {
        let serial = self.named(context, which).await?;
        let mut transaction = self.begin(context).await?;
        let known = sqlx::query("SELECT name, key_hash, proven FROM certificate WHERE serial = ?1")
            .bind(serial_number(serial))
            .fetch_optional(&mut *transaction)
            .await?
            .map(Row);
        refuse_revoked(&mut transaction, serial).await?;
        let key = match &known {
            Some(row) if row.number_if("proven")?.is_some() => Some(row.hash("key_hash")?),
            Some(_) | None => None,
        };
        revoke(&mut transaction, context, serial, cause, key).await?;
        transaction.commit().await?;
        let name = known.map(|row| row.text("name")).transpose()?;
        Ok(RevocationReport { serial: serial.to_string(), name, key: key.is_some() })
    }

    /// Ends a certificate's suspension, once somebody has decided that its holder is honest. The next revocation list leaves
    /// it out: removeFromCRL is for delta lists (RFC 5280 §5.3.1). Its key is proven no more than before, so it may lapse
    /// still. Further requests on its ticket do not suspend it again: that the code is out was known to who decided, and
    /// whoever has it could else end the certificate's use at will.
    ///
    /// Only the journal remembers a release, and a restore does not look there: what the backup, the store before or a
    /// published list has suspended is suspended afterwards, though it was released in between. Which of a suspension and
    /// a release came last cannot be told from two stores with one past and two futures, and a holder who waits for a
    /// second release is less harm than a thief who is let in.
    ///
    /// # Errors
    /// There is no such certificate, several have the name, it is revoked, or it is not suspended.
    pub async fn release(&mut self, context: &Context, which: &str) -> Result<ReleaseReport, ControlError> {
        let serial = self.named(context, which).await?;
        let mut transaction = self.begin(context).await?;
        refuse_revoked(&mut transaction, serial).await?;
        let known = sqlx::query("SELECT name FROM certificate WHERE serial = ?1").bind(serial_number(serial));
        let name = known.fetch_optional(&mut *transaction).await?.map(|row| Row(row).text("name")).transpose()?;
        let suspended = sqlx::query("SELECT at FROM suspension WHERE serial = ?1").bind(serial_number(serial));
        let Some(row) = suspended.fetch_optional(&mut *transaction).await?.map(Row) else {
            let unknown = || ControlError::NoCertificate(which.to_owned());
            return Err(name.map_or_else(unknown, |_| ControlError::NotSuspended(serial)));
        };
        let since = row.time("at")?.to_string();
        sqlx::query("DELETE FROM suspension WHERE serial = ?1")
            .bind(serial_number(serial))
            .execute(&mut *transaction)
            .await?;
        let (subject, detail) = (serial.to_string(), format!("suspended since {since}"));
        journal::write(&mut transaction, context, "certificate.release", &subject, &detail).await?;
        transaction.commit().await?;
        Ok(ReleaseReport { serial: subject, name, suspended: since })
    }

    /// The serial of the certificate that is meant; one that is given as such need not be known here.
    async fn named(&mut self, context: &Context, which: &str) -> Result<Serial, ControlError> {
        match serial_of(which) {
            Some(serial) => Ok(serial),
            None => serial_of(&self.certificate(context, which).await?.serial).ok_or(ControlError::Record("serial")),
        }
    }

    /// Signs the revocation list of every CA that has its key here, the issuing one first, each in DER.
    ///
    /// # Errors
    /// A CA's key cannot be opened.
    pub async fn revocation_lists(
        &mut self,
        context: &Context,
        life: Duration,
        unlock: &mut dyn Unlock,
    ) -> Result<Vec<Vec<u8>>, ControlError> {
        let mut authorities = self.open_authorities(unlock).await?;
        authorities.reverse();
        let mut transaction = self.begin(context).await?;
        let mut lists = Vec::new();
        for (id, authority) in authorities {
            let revocations = revocations(&mut transaction, Some(id)).await?;
            let last =
                sqlx::query("SELECT coalesce(max(number), 0) AS number FROM revocation_list WHERE authority = ?1")
                    .bind(id)
                    .fetch_one(&mut *transaction)
                    .await?;
            let number = Row(last).number("number")?.saturating_add(1);
            let unsigned = u64::try_from(number).map_err(|_| ControlError::Record("number"))?;
            let list = authority.revocation_list(&revocations, unsigned, context.now, life)?;
            sqlx::query("INSERT INTO revocation_list (authority, number, at, der) VALUES (?1, ?2, ?3, ?4)")
                .bind(id)
                .bind(number)
                .bind(seconds(context.now))
                .bind(list.as_slice())
                .execute(&mut *transaction)
                .await?;
            let detail = format!("number {number}, {} certificates", revocations.iter().count());
            journal::write(&mut transaction, context, "crl.sign", &id.to_string(), &detail).await?;
            lists.push(list);
        }
        transaction.commit().await?;
        Ok(lists)
    }
}

/// A serial as lists show it: 16 hexadecimal digits, so that no name is taken for one by mistake.
pub(crate) fn serial_of(text: &str) -> Option<Serial> {
    let digits: String = text.chars().filter(|c| *c != ':').collect();
    let number = u64::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == SERIAL_DIGITS)?;
    Serial::new(number)
}

/// What is revoked stays so.
pub(crate) async fn refuse_revoked(connection: &mut SqliteConnection, serial: Serial) -> Result<(), ControlError> {
    let revoked = sqlx::query("SELECT 1 FROM revocation WHERE serial = ?1").bind(serial_number(serial));
    match revoked.fetch_optional(connection).await? {
        Some(_) => Err(ControlError::Revoked(serial)),
        None => Ok(()),
    }
}

/// Writes a revocation down; the first stands.
pub(crate) async fn revoke(
    connection: &mut SqliteConnection,
    context: &Context,
    serial: Serial,
    cause: RevocationCause,
    key: Option<[u8; 32]>,
) -> Result<(), ControlError> {
    let revocation = Revocation { at: context.now, cause };
    if !keep(connection, serial, revocation).await? {
        return Ok(());
    }
    if let Some(key) = key {
        keep_key(connection, &key, context.now).await?;
    }
    let subject = serial.to_string();
    let detail = format!("{}{}", cause_word(cause), if key.is_some() { ", and its key" } else { "" });
    journal::write(connection, context, "certificate.revoke", &subject, &detail).await
}

/// Takes a certificate out of use until somebody decides.
pub(crate) async fn suspend(
    connection: &mut SqliteConnection,
    context: &Context,
    serial: Serial,
) -> Result<(), ControlError> {
    sqlx::query("INSERT OR IGNORE INTO suspension (serial, at) VALUES (?1, ?2)")
        .bind(serial_number(serial))
        .bind(seconds(context.now))
        .execute(&mut *connection)
        .await?;
    journal::write(connection, context, "certificate.suspend", &serial.to_string(), "").await
}

/// Reads what is revoked: all of it, or what one CA issued together with what nobody here issued.
pub(crate) async fn revocations(
    connection: &mut SqliteConnection,
    authority: Option<i64>,
) -> Result<Revocations, ControlError> {
    let mut all = Revocations::default();
    let of_authority =
        "(?1 IS NULL OR NOT EXISTS (SELECT 1 FROM certificate c WHERE c.serial = r.serial AND c.authority <> ?1))";
    let revoked = sqlx::AssertSqlSafe(format!("SELECT * FROM revocation r WHERE {of_authority}"));
    for row in sqlx::query(revoked).bind(authority).fetch_all(&mut *connection).await? {
        let row = Row(row);
        let cause = cause_of(&row.text("cause")?).ok_or(ControlError::Record("cause"))?;
        all.revoke(row.serial("serial")?, Revocation { at: row.time("at")?, cause });
    }
    let suspended = sqlx::AssertSqlSafe(format!("SELECT * FROM suspension r WHERE {of_authority}"));
    for row in sqlx::query(suspended).bind(authority).fetch_all(&mut *connection).await? {
        let row = Row(row);
        all.suspend(row.serial("serial")?, row.time("at")?);
    }
    for row in sqlx::query("SELECT key_hash FROM revoked_key").fetch_all(connection).await? {
        all.revoke_key(Row(row).hash("key_hash")?);
    }
    Ok(all)
}

/// Takes in what another store or a published list knows; says how many serials were new.
pub(crate) async fn merge(
    connection: &mut SqliteConnection,
    context: &Context,
    other: &Revocations,
    from: &str,
) -> Result<usize, ControlError> {
    let mut new = 0_usize;
    for (serial, revocation) in other.iter() {
        new = new.saturating_add(usize::from(keep(connection, serial, revocation).await?));
    }
    for (serial, at) in other.suspended() {
        sqlx::query("INSERT OR IGNORE INTO suspension (serial, at) SELECT ?1, ?2 WHERE NOT EXISTS (SELECT 1 FROM revocation WHERE serial = ?1)")
            .bind(serial_number(serial))
            .bind(seconds(at))
            .execute(&mut *connection)
            .await?;
    }
    for key in other.keys() {
        keep_key(connection, key, context.now).await?;
    }
    journal::write(connection, context, "revocation.merge", from, &format!("{new} new serials")).await?;
    Ok(new)
}

async fn keep(connection: &mut SqliteConnection, serial: Serial, revocation: Revocation) -> Result<bool, ControlError> {
    let inserted = sqlx::query("INSERT OR IGNORE INTO revocation (serial, at, cause) VALUES (?1, ?2, ?3)")
        .bind(serial_number(serial))
        .bind(seconds(revocation.at))
        .bind(cause_word(revocation.cause))
        .execute(&mut *connection)
        .await?;
    sqlx::query("DELETE FROM suspension WHERE serial = ?1").bind(serial_number(serial)).execute(connection).await?;
    Ok(inserted.rows_affected() == 1)
}

async fn keep_key(connection: &mut SqliteConnection, key: &[u8; 32], at: UnixTime) -> Result<(), ControlError> {
    sqlx::query("INSERT OR IGNORE INTO revoked_key (key_hash, at) VALUES (?1, ?2)")
        .bind(key.as_slice())
        .bind(seconds(at))
        .execute(connection)
        .await?;
    Ok(())
}

/// Reads published lists (PEM or DER) and keeps what a CA of this store signed.
pub(crate) fn published(
    files: &[PathBuf],
    authorities: &[Vec<u8>],
) -> Result<Vec<(PathBuf, Revocations)>, ControlError> {
    let mut lists = Vec::new();
    for path in files {
        let content = std::fs::read(path).map_err(ControlError::file(path))?;
        let text = String::from_utf8_lossy(&content);
        let blocks = pem_blocks(&text);
        let blocks = if blocks.is_empty() { vec![content.clone()] } else { blocks };
        for block in blocks {
            let read = authorities.iter().find_map(|ca| Revocations::of_list(&block, ca).ok());
            lists.push((path.clone(), read.ok_or_else(|| foreign(path))?));
        }
    }
    Ok(lists)
}

fn foreign(path: &Path) -> ControlError {
    ControlError::ForeignList(path.to_owned())
}

pub(crate) const fn cause_word(cause: RevocationCause) -> &'static str {
    match cause {
        RevocationCause::Unspecified => "unspecified",
        RevocationCause::Compromise => "compromise",
        RevocationCause::Superseded => "superseded",
        RevocationCause::Withdrawn => "withdrawn",
    }
}

pub(crate) fn cause_of(word: &str) -> Option<RevocationCause> {
    [RevocationCause::Unspecified, RevocationCause::Compromise, RevocationCause::Superseded, RevocationCause::Withdrawn]
        .into_iter()
        .find(|&cause| cause_word(cause) == word)
}

/// Hexadecimal digits of a serial.
const SERIAL_DIGITS: usize = 16;
