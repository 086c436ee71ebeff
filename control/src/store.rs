//! The store: a directory with a database and a key.

use std::path::{Path, PathBuf};
use std::time::Duration;

use enroll::{ClusterName, GatewayName, Opener, SealCost, open_key, seal_key};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{Connection as _, SqlSafeStr as _, Sqlite, Transaction};
use wire::Secret;
use zeroize::Zeroizing;

use crate::context::Context;
use crate::error::ControlError;
use crate::files::{PRIVATE, create, read_secret, write_private};
use crate::row::Row;

/// The store of one machine, opened for one operation after the other.
pub struct Store {
    pub(crate) directory: PathBuf,
    pub(crate) connection: SqliteConnection,
    /// Seals what others must not find in the database: the keys of tickets.
    pub(crate) key: Secret,
    pub(crate) cluster: ClusterName,
    pub(crate) gateway: GatewayName,
}

impl Store {
    /// Opens the store of a directory and brings its database up to date.
    ///
    /// # Errors
    /// There is none, it cannot be read, or it is of a newer program.
    pub async fn open(directory: &Path) -> Result<Self, ControlError> {
        let database = directory.join(DATABASE);
        if !database.exists() {
            return Err(ControlError::NoStore(directory.to_owned()));
        }
        let key = read_secret(&directory.join(KEY))?;
        Self::open_with(directory, &database, key).await
    }

    pub(crate) async fn open_with(directory: &Path, database: &Path, key: Secret) -> Result<Self, ControlError> {
        let mut connection = connect(database, Missing::Refuse).await?;
        migrate(&mut connection).await?;
        let cluster = String::from_utf8(fact(&mut connection, "cluster").await?).ok();
        let gateway = String::from_utf8(fact(&mut connection, "gateway").await?).ok();
        Ok(Self {
            directory: directory.to_owned(),
            connection,
            key,
            cluster: ClusterName::new(&cluster.unwrap_or_default()).map_err(|_| ControlError::Record("cluster"))?,
            gateway: GatewayName::new(&gateway.unwrap_or_default()).map_err(|_| ControlError::Record("gateway"))?,
        })
    }

    /// Makes an empty store under a temporary name; [`Self::settle`] gives it its own.
    pub(crate) async fn make(
        directory: &Path,
        cluster: &ClusterName,
        gateway: &GatewayName,
    ) -> Result<Self, ControlError> {
        let refuse = ControlError::StoreExists(directory.to_owned());
        if directory.join(DATABASE).exists() {
            return Err(refuse);
        }
        make_directory(directory)?;
        let unfinished = directory.join(UNFINISHED);
        remove_database(&unfinished)?;
        let mut random = Zeroizing::new([0; 32]);
        getrandom::fill(random.as_mut()).map_err(|_| ControlError::Random)?;
        let key = Secret::from_slice(random.as_ref());
        write_private(&directory.join(KEY), key.expose())?;
        let mut connection = connect(&unfinished, Missing::Create).await?;
        migrate(&mut connection).await?;
        for (name, value) in [("cluster", cluster.as_str()), ("gateway", gateway.as_str())] {
            set_fact(&mut connection, name, value.as_bytes()).await?;
        }
        Ok(Self {
            directory: directory.to_owned(),
            connection,
            key,
            cluster: cluster.clone(),
            gateway: gateway.clone(),
        })
    }

    /// Gives a store that [`Self::make`] began its own name: from now on it exists.
    pub(crate) async fn settle(self) -> Result<Self, ControlError> {
        let Self { directory, connection, key, cluster, gateway } = self;
        connection.close().await?;
        let database = directory.join(DATABASE);
        let renamed = std::fs::rename(directory.join(UNFINISHED), &database);
        renamed.and_then(|()| crate::files::sync_directory(&database)).map_err(ControlError::file(&database))?;
        let connection = connect(&database, Missing::Refuse).await?;
        Ok(Self { directory, connection, key, cluster, gateway })
    }

    /// The cluster whose records these are.
    #[must_use]
    pub const fn cluster(&self) -> &ClusterName {
        &self.cluster
    }

    /// Where clients connect to.
    #[must_use]
    pub const fn gateway(&self) -> &GatewayName {
        &self.gateway
    }

    /// Ends the use of the store.
    ///
    /// # Errors
    /// The database cannot be closed.
    pub async fn close(self) -> Result<(), ControlError> {
        Ok(self.connection.close().await?)
    }

    /// Begins an operation: from here on nobody else writes, and nothing is written until it is committed.
    pub(crate) async fn begin(&mut self, context: &Context) -> Result<Transaction<'_, Sqlite>, ControlError> {
        let mut transaction = self.connection.begin_with("BEGIN IMMEDIATE").await?;
        crate::journal::check_clock(&mut transaction, context).await?;
        Ok(transaction)
    }

    /// Seals what only this store may read.
    pub(crate) fn seal(key: &Secret, plain: &Secret) -> Result<Vec<u8>, ControlError> {
        Ok(seal_key(plain, Opener::KeyFile(key), SealCost::RECOMMENDED, &mut rng()?)?)
    }

    pub(crate) fn unseal(key: &Secret, sealed: &[u8]) -> Result<Secret, ControlError> {
        Ok(open_key(sealed, Opener::KeyFile(key))?)
    }
}

/// Whether a database that is not there is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    Create,
    Refuse,
}

/// Opens a database so that what is committed is on the disk, and what is deleted is overwritten.
pub(crate) async fn connect(database: &Path, missing: Missing) -> Result<SqliteConnection, ControlError> {
    if missing == Missing::Create {
        // An empty file is an empty database, and this one nobody else can ever read.
        create(database, PRIVATE).map_err(ControlError::file(database))?;
    }
    let options = SqliteConnectOptions::new()
        .filename(database)
        // One file and no log beside it, in which a deleted key would live on.
        .journal_mode(SqliteJournalMode::Delete)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(BUSY_MAX)
        .pragma("secure_delete", "ON")
        .pragma("trusted_schema", "OFF");
    Ok(SqliteConnection::connect_with(&options).await?)
}

/// Applies the migrations that the database lacks. One that a newer program applied is refused.
pub(crate) async fn migrate(connection: &mut SqliteConnection) -> Result<(), ControlError> {
    let migrations = MIGRATIONS.iter().map(|&(version, description, sql)| {
        Migration::new(version, description.into(), MigrationType::Simple, sql.into_sql_str(), false)
    });
    Migrator::with_migrations(migrations.collect()).run(connection).await?;
    Ok(())
}

pub(crate) async fn fact(connection: &mut SqliteConnection, name: &'static str) -> Result<Vec<u8>, ControlError> {
    let row = sqlx::query("SELECT value FROM fact WHERE name = ?1").bind(name).fetch_optional(connection).await?;
    row.map(Row).ok_or(ControlError::Record(name))?.octets("value")
}

pub(crate) async fn set_fact(
    connection: &mut SqliteConnection,
    name: &'static str,
    value: &[u8],
) -> Result<(), ControlError> {
    sqlx::query("INSERT INTO fact (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = ?2")
        .bind(name)
        .bind(value)
        .execute(connection)
        .await?;
    Ok(())
}

/// A generator seeded by the system.
pub(crate) fn rng() -> Result<StdRng, ControlError> {
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(seed.as_mut()).map_err(|_| ControlError::Random)?;
    Ok(StdRng::from_seed(*seed))
}

pub(crate) fn make_directory(directory: &Path) -> Result<(), ControlError> {
    use std::os::unix::fs::DirBuilderExt as _;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
    made.map_err(ControlError::file(directory))
}

/// Removes a file if it is there.
pub(crate) fn remove(path: &Path) -> Result<(), ControlError> {
    match std::fs::remove_file(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(ControlError::file(path)(error)),
    }
}

/// Removes a database and the journal of an interrupted operation, which would be rolled back into the next one.
pub(crate) fn remove_database(path: &Path) -> Result<(), ControlError> {
    let mut journal = path.as_os_str().to_owned();
    journal.push("-journal");
    remove(Path::new(&journal))?;
    remove(path)
}

pub(crate) const DATABASE: &str = "store.db";
pub(crate) const KEY: &str = "store.key";
/// The database while it is made or restored.
pub(crate) const UNFINISHED: &str = "store.db.unfinished";

/// How long an operation waits for another program to end its own.
const BUSY_MAX: Duration = Duration::from_secs(5);

/// Number, name and text of each step from an empty database to today's. A step that was ever released is not changed.
const MIGRATIONS: &[(i64, &str, &str)] = &[(1, "enrollment", include_str!("../migrations/0001_enrollment.sql"))];
