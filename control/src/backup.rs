//! Backup and restore. A backup is a whole database in one file; its secrets are sealed under the CA's opener.

use std::path::{Path, PathBuf};

use enroll::Revocations;
use serde::Serialize;
use sqlx::Connection as _;
use sqlx::sqlite::SqliteConnection;
use wire::Secret;

use crate::authority::{CA_KEY_FILE, Unlock, open_sealed};
use crate::context::Context;
use crate::error::ControlError;
use crate::files::{PRIVATE, beside, create, read_secret, sync_directory, write_private};
use crate::journal::{self, JournalHead};
use crate::revocation::{merge, published, revocations};
use crate::row::Row;
use crate::store::{
    DATABASE, KEY, Missing, Store, UNFINISHED, connect, fact, make_directory, migrate, remove, remove_database,
};
use crate::ticket::{Stored, number_of};

/// A backup that was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Backup {
    /// The file.
    pub file: PathBuf,
    /// Its size in octets.
    pub octets: u64,
    /// The journal's end in it; worth noting elsewhere.
    pub journal: JournalHead,
}

/// What a restore did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Restored {
    /// The cluster.
    pub cluster: String,
    /// Open tickets that were voided: they may have been used since.
    pub voided: usize,
    /// Revocations that the backup did not know.
    pub merged: usize,
    /// Where the store that was there before is kept.
    pub before: Option<PathBuf>,
    /// The journal's end.
    pub journal: JournalHead,
}

impl Store {
    /// Writes a backup. The file appears whole or not at all.
    ///
    /// # Errors
    /// It cannot be written; nothing changed.
    pub async fn backup(&mut self, context: &Context, file: &Path) -> Result<Backup, ControlError> {
        let mut transaction = self.begin(context).await?;
        journal::write(&mut transaction, context, "backup", &file.display().to_string(), "").await?;
        transaction.commit().await?;
        let new = beside(file, "new");
        let written = self.write_backup(&new, file).await;
        if written.is_err() {
            // What was half written helps nobody; the error to tell is the first one.
            remove(&new).ok();
        }
        let octets = written?;
        let mut copy = connect(file, Missing::Refuse).await?;
        let journal = journal::verify(&mut copy, None).await?;
        copy.close().await?;
        Ok(Backup { file: file.to_owned(), octets, journal })
    }

    /// Writes the database into `new`, then gives that file its own name; gives its size in octets.
    async fn write_backup(&mut self, new: &Path, file: &Path) -> Result<u64, ControlError> {
        let path = new.to_str().ok_or_else(|| ControlError::NotABackup(file.to_owned()))?;
        // SQLite writes into a file that is empty, and from the beginning nobody else can read this one.
        let made = create(new, PRIVATE).map_err(ControlError::file(new))?;
        sqlx::query("VACUUM INTO ?1").bind(path).execute(&mut self.connection).await?;
        let settled = (|| {
            made.sync_all()?;
            std::fs::rename(new, file)?;
            sync_directory(file)?;
            Ok(made.metadata()?.len())
        })();
        settled.map_err(ControlError::file(file))
    }

    /// Puts a backup in the place of a store, or where there is none. Open tickets are voided, since they may have been
    /// used after the backup was made; revocations and suspensions of the store before, and of published lists, stay. What is
    /// suspended in the backup is so again, even if it was released since: see [`Store::release`].
    ///
    /// # Errors
    /// The backup is none, is of another cluster, or another program writes into the store; then the store before stays
    /// as it is.
    pub async fn restore(
        context: &Context,
        file: &Path,
        directory: &Path,
        lists: &[PathBuf],
        unlock: &mut dyn Unlock,
    ) -> Result<Restored, ControlError> {
        make_directory(directory)?;
        let restored = Self::restore_into(context, file, directory, lists, unlock).await;
        if restored.is_err() {
            // What was half restored helps nobody; the error to tell is the first one.
            remove_database(&directory.join(UNFINISHED)).ok();
        }
        restored
    }

    async fn restore_into(
        context: &Context,
        file: &Path,
        directory: &Path,
        lists: &[PathBuf],
        unlock: &mut dyn Unlock,
    ) -> Result<Restored, ControlError> {
        let not_one = || ControlError::NotABackup(file.to_owned());
        let unfinished = directory.join(UNFINISHED);
        remove_database(&unfinished)?;
        let content = std::fs::read(file).map_err(ControlError::file(file))?;
        if !content.starts_with(MAGIC) {
            return Err(not_one());
        }
        write_private(&unfinished, &content)?;
        let mut connection = connect(&unfinished, Missing::Refuse).await.map_err(|_| not_one())?;
        check(&mut connection).await.map_err(|_| not_one())?;
        migrate(&mut connection).await?;
        journal::verify(&mut connection, None).await?;
        let key = RestoredKey::find(&mut connection, directory, unlock).await?;
        connection.close().await?;
        let mut restored = Self::open_with(directory, &unfinished, key.secret().clone()).await?;

        let database = directory.join(DATABASE);
        let mut before = if database.exists() { Some(Self::open_before(directory, &database).await?) } else { None };
        let mut merged = Vec::new();
        let mut before_path = None;
        let mut held = None;
        if let Some(before) = &mut before {
            if before.cluster != restored.cluster {
                return Err(ControlError::OtherCluster {
                    found: restored.cluster.to_string(),
                    expected: before.cluster.to_string(),
                });
            }
            // Nobody writes into the store before until it is replaced: a revocation that came now would be lost.
            let mut transaction = before.connection.begin_with("BEGIN IMMEDIATE").await?;
            merged.push((database.clone(), revocations(&mut transaction, None).await?));
            before_path = Some(beside(&database, &format!("before-{}", context.now.seconds)));
            held = Some(transaction);
        }
        merged.extend(published(lists, &restored.authority_certificates().await?)?);
        let (voided, new) = restored.void_restored(context, &merged).await?;
        let journal = restored.verify_journal(None).await?;
        let cluster = restored.cluster.to_string();
        restored.close().await?;
        key.settle(directory)?;
        let moved = (|| {
            if let Some(kept) = &before_path {
                std::fs::hard_link(&database, kept)?;
            }
            std::fs::rename(&unfinished, &database)?;
            sync_directory(&database)
        })();
        moved.map_err(ControlError::file(&database))?;
        // Nothing was written into the store before; it only had to stand still.
        drop(held);
        if let Some(before) = before {
            before.close().await?;
        }
        Ok(Restored { cluster, voided, merged: new, before: before_path, journal })
    }

    /// Opens the store that is to be replaced, without its key: only what anybody may read of it is needed.
    async fn open_before(directory: &Path, database: &Path) -> Result<Self, ControlError> {
        Self::open_with(directory, database, Secret::default()).await.map_err(|error| {
            let damaged = matches!(error, ControlError::Database(_) | ControlError::Record(_));
            if damaged { ControlError::DamagedStore(database.to_owned()) } else { error }
        })
    }

    /// Voids what was open, and merges what is known to be revoked.
    async fn void_restored(
        &mut self,
        context: &Context,
        merged: &[(PathBuf, Revocations)],
    ) -> Result<(usize, usize), ControlError> {
        let (key, cluster) = (self.key.clone(), self.cluster.clone());
        // The clock may be behind the store that was lost, never behind the backup; `begin` checks that.
        let mut transaction = self.begin(context).await?;
        let rows = sqlx::query("SELECT * FROM ticket WHERE status IN ('open', 'requested')");
        let rows = rows.fetch_all(&mut *transaction).await?;
        let voided = rows.len();
        for row in rows {
            let mut stored = Stored::load(&mut transaction, number_of(&Row(row))?, &key).await?;
            stored.ticket.handle_restore();
            stored.save(&mut transaction, context, &key).await?;
        }
        let mut new = 0_usize;
        for (from, revocations) in merged {
            let count = merge(&mut transaction, context, revocations, &from.display().to_string()).await?;
            new = new.saturating_add(count);
        }
        let detail = format!("{voided} open tickets voided, {new} revocations merged");
        journal::write(&mut transaction, context, "restore", cluster.as_str(), &detail).await?;
        transaction.commit().await?;
        Ok((voided, new))
    }

    async fn authority_certificates(&mut self) -> Result<Vec<Vec<u8>>, ControlError> {
        let rows = sqlx::query("SELECT certificate FROM authority").fetch_all(&mut self.connection).await?;
        rows.into_iter().map(|row| Row(row).octets("certificate")).collect()
    }
}

/// The key that the restored database needs.
enum RestoredKey {
    /// The one that is here.
    Here(Secret),
    /// The one in the backup, which takes the place of the one here.
    InBackup(Secret),
}

impl RestoredKey {
    /// The one that is here, if it opens what is sealed, else the one in the backup.
    async fn find(
        connection: &mut SqliteConnection,
        directory: &Path,
        unlock: &mut dyn Unlock,
    ) -> Result<Self, ControlError> {
        let sealed = sqlx::query("SELECT keys FROM ticket WHERE keys IS NOT NULL LIMIT 1");
        let sealed = sealed.fetch_optional(&mut *connection).await?.map(|row| Row(row).octets("keys")).transpose()?;
        if let Ok(key) = read_secret(&directory.join(KEY))
            && sealed.is_none_or(|sealed| Store::unseal(&key, &sealed).is_ok())
        {
            return Ok(Self::Here(key));
        }
        let sealed = fact(connection, "store_key").await?;
        let opener = String::from_utf8(fact(connection, "store_key_opener").await?);
        let opener = opener.map_err(|_| ControlError::Record("store_key_opener"))?;
        Ok(Self::InBackup(open_sealed(&sealed, &opener, unlock, &directory.join(CA_KEY_FILE))?))
    }

    const fn secret(&self) -> &Secret {
        match self {
            Self::Here(key) | Self::InBackup(key) => key,
        }
    }

    /// Writes the key where the restored database looks for it; a kill before that database is there too is mended by
    /// restoring again.
    fn settle(self, directory: &Path) -> Result<(), ControlError> {
        let Self::InBackup(key) = self else {
            return Ok(());
        };
        let path = directory.join(KEY);
        // The store before is sealed under the key before.
        if path.exists() {
            write_private(&beside(&path, "before"), read_secret(&path)?.expose())?;
        }
        write_private(&path, key.expose())
    }
}

async fn check(connection: &mut SqliteConnection) -> Result<(), ControlError> {
    let row = sqlx::query("PRAGMA integrity_check").fetch_one(&mut *connection).await?;
    if Row(row).text("integrity_check")? != "ok" {
        return Err(ControlError::Record("integrity_check"));
    }
    fact(connection, "cluster").await?;
    Ok(())
}

/// What an SQLite database begins with.
const MAGIC: &[u8] = b"SQLite format 3\0";
