//! The cluster's CAs: made, opened, rolled over.

use std::path::{Path, PathBuf};

use enroll::{
    Authority, AuthorityAlgorithm, AuthorityKey, ClusterName, GatewayName, Opener, Rank, SealCost, Serial, Validity,
    Words, open_key, seal_key,
};
use serde::Serialize;
use sqlx::sqlite::SqliteConnection;
use wire::Secret;

use crate::context::Context;
use crate::error::ControlError;
use crate::files::{read_secret, write_private};
use crate::issue::validity;
use crate::journal;
use crate::row::{Row, hex, seconds, serial_number};
use crate::store::{Store, rng, set_fact};

/// What a new CA is to be.
#[derive(Clone, Copy, Debug)]
pub struct CaOrder<'a> {
    /// Its key.
    pub algorithm: AuthorityAlgorithm,
    /// For how many days it is valid.
    pub days: u16,
    /// What its key is sealed under.
    pub opener: Opener<'a>,
    /// Whether a root stands above it.
    pub root: RootKeeping<'a>,
}

/// Whether a root stands above the CA that issues.
#[derive(Clone, Copy, Debug)]
pub enum RootKeeping<'a> {
    /// No: the CA signs itself.
    None,
    /// Yes: its sealed key is kept offline in this file, which is written with the store and read at a rollover.
    File(&'a Path),
}

/// How a CA's key is opened: what it asks for is given when it asks.
pub trait Unlock {
    /// The passphrase.
    ///
    /// # Errors
    /// Nobody gives one.
    fn passphrase(&mut self) -> Result<Secret, ControlError>;

    /// The key file's content; `usual` is where the store keeps one.
    ///
    /// # Errors
    /// It cannot be read.
    fn key_file(&mut self, usual: &Path) -> Result<Secret, ControlError> {
        read_secret(usual)
    }
}

/// A CA as a list shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AuthorityEntry {
    /// Its number in the store.
    pub id: i64,
    /// `sole`, `root` or `online`.
    pub rank: String,
    /// Its key.
    pub algorithm: String,
    /// `issuing`, `retiring` (it still signs its revocation lists) or `root`.
    pub standing: String,
    /// The day on which it ends.
    pub expires: String,
    /// SHA-256 of the certificate, in hexadecimal.
    pub fingerprint: String,
    /// The six words of its key, for who compares by telephone.
    pub words: String,
    /// The certificate in PEM.
    pub certificate: String,
    /// The certificate of its key by the CA before it, in PEM.
    pub bridge: Option<String>,
}

impl Store {
    /// Makes a store with a CA. Until all of it is written, there is none.
    ///
    /// # Errors
    /// There is one already, or something cannot be written.
    pub async fn create(
        context: &Context,
        directory: &Path,
        cluster: &ClusterName,
        gateway: &GatewayName,
        order: &CaOrder<'_>,
    ) -> Result<Self, ControlError> {
        let mut store = Self::make(directory, cluster, gateway).await?;
        let sealed_key = seal(&store.key, order.opener)?;
        let mut transaction = store.begin(context).await?;
        set_fact(&mut transaction, "store_key", &sealed_key).await?;
        set_fact(&mut transaction, "store_key_opener", opener_word(order.opener).as_bytes()).await?;
        let detail = format!("cluster {cluster}, gateway {gateway}");
        journal::write(&mut transaction, context, "store.create", cluster.as_str(), &detail).await?;
        make_authority(&mut transaction, context, cluster, order).await?;
        transaction.commit().await?;
        store.settle().await
    }

    /// All CAs, the issuing one first.
    ///
    /// # Errors
    /// The database fails.
    pub async fn authorities(&mut self) -> Result<Vec<AuthorityEntry>, ControlError> {
        let rows = sqlx::query("SELECT * FROM authority ORDER BY standing = 'issuing' DESC, id DESC")
            .fetch_all(&mut self.connection)
            .await?;
        rows.into_iter().map(|row| entry(&Row(row))).collect()
    }

    /// Opens the key of the CA that issues.
    ///
    /// # Errors
    /// What opens it is wrong, or the store is damaged.
    pub async fn open_authority(&mut self, unlock: &mut dyn Unlock) -> Result<Authority, ControlError> {
        let row = issuing(&mut self.connection).await?;
        load(&self.cluster, &row, unlock, &self.key_file())
    }

    /// Opens the keys of all CAs that are not kept elsewhere: each signs its own revocation list.
    pub(crate) async fn open_authorities(
        &mut self,
        unlock: &mut dyn Unlock,
    ) -> Result<Vec<(i64, Authority)>, ControlError> {
        let rows = sqlx::query("SELECT * FROM authority WHERE sealed_key IS NOT NULL ORDER BY id")
            .fetch_all(&mut self.connection)
            .await?;
        let usual = self.key_file();
        rows.into_iter()
            .map(|row| {
                let row = Row(row);
                Ok((row.number("id")?, load(&self.cluster, &row, unlock, &usual)?))
            })
            .collect()
    }

    /// Makes the CA that issues from now on; below a root, the root signs it, and it ends with the root at the latest. The
    /// one before it stays until it expires: what it issued stays good, it signs its own revocation list, and it certifies
    /// the new one's key for those who trust only it.
    ///
    /// # Errors
    /// A key cannot be opened, the order is silent about a root that there is or names one that there is not, or something
    /// cannot be written.
    pub async fn roll_over(
        &mut self,
        context: &Context,
        order: &CaOrder<'_>,
        unlock: &mut dyn Unlock,
    ) -> Result<AuthorityEntry, ControlError> {
        let old = self.open_authority(unlock).await?;
        let root = match (old.rank(), order.root) {
            (Rank::Sole, RootKeeping::None) => None,
            (Rank::Sole, RootKeeping::File(_)) => return Err(ControlError::NoRoot),
            (Rank::Online, RootKeeping::File(file)) => Some(self.open_root(file, order.opener).await?),
            (Rank::Online, RootKeeping::None) | (Rank::Root, _) => return Err(ControlError::RootNeeded),
        };
        let cluster = self.cluster.clone();
        let mut transaction = self.begin(context).await?;
        issuing_as(&mut transaction, &old).await?;
        sqlx::query("UPDATE authority SET standing = 'retiring' WHERE standing = 'issuing'")
            .execute(&mut *transaction)
            .await?;
        let (id, new) = match &root {
            None => make_authority(&mut transaction, context, &cluster, order).await?,
            Some(root) => {
                let days = order.days.min(days_until(context, root.expiry_day()?)?);
                make_online(&mut transaction, context, root, &CaOrder { days, ..*order }).await?
            }
        };
        let days = days_until(context, old.expiry_day()?.min(new.expiry_day()?))?;
        let serial = Serial::draw(&mut rng()?);
        let bridge = old.certify_successor(&new, serial, validity(context.now, days)?)?;
        sqlx::query("UPDATE authority SET bridge = ?1 WHERE id = ?2")
            .bind(bridge.as_slice())
            .bind(id)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        let mut authorities = self.authorities().await?.into_iter();
        authorities.next().ok_or(ControlError::Record("authority"))
    }

    /// Opens the root's key, which is kept in a file elsewhere.
    async fn open_root(&mut self, file: &Path, opener: Opener<'_>) -> Result<Authority, ControlError> {
        let row = sqlx::query("SELECT certificate FROM authority WHERE standing = 'root' ORDER BY id DESC")
            .fetch_optional(&mut self.connection)
            .await?;
        let certificate = Row(row.ok_or(ControlError::Record("authority"))?).octets("certificate")?;
        let pkcs8 = open_key(read_secret(file)?.expose(), opener)?;
        let key = AuthorityKey::from_pkcs8(pkcs8.expose())?;
        Ok(Authority::load(self.cluster.clone(), Rank::Root, certificate, key)?)
    }

    /// Whether the issuing CA's key is sealed under a passphrase, and not under a key file.
    ///
    /// # Errors
    /// The database fails.
    pub async fn sealed_under_passphrase(&mut self) -> Result<bool, ControlError> {
        Ok(issuing(&mut self.connection).await?.text("opener")? == PASSPHRASE)
    }

    /// Where the store keeps a key file that it made itself.
    #[must_use]
    pub fn key_file(&self) -> PathBuf {
        self.directory.join(CA_KEY_FILE)
    }

    /// Draws a key file for a CA in a directory that is to become a store. One that is there already is taken: a backup
    /// may be sealed under it.
    ///
    /// # Errors
    /// It cannot be read or written, or there is a store already.
    pub fn draw_key_file(directory: &Path) -> Result<Secret, ControlError> {
        if directory.join(crate::store::DATABASE).exists() {
            return Err(ControlError::StoreExists(directory.to_owned()));
        }
        crate::store::make_directory(directory)?;
        let path = directory.join(CA_KEY_FILE);
        if path.exists() {
            return read_secret(&path);
        }
        let mut random = zeroize::Zeroizing::new([0; 32]);
        getrandom::fill(random.as_mut()).map_err(|_| ControlError::Random)?;
        write_private(&path, random.as_ref())?;
        Ok(Secret::from_slice(random.as_ref()))
    }
}

/// The row of the CA that issues.
pub(crate) async fn issuing(connection: &mut SqliteConnection) -> Result<Row, ControlError> {
    let row = sqlx::query("SELECT * FROM authority WHERE standing = 'issuing'").fetch_optional(connection).await?;
    row.map(Row).ok_or(ControlError::Record("authority"))
}

/// The number of the CA that issues, which must be this one: another may have taken its place since it was opened.
pub(crate) async fn issuing_as(connection: &mut SqliteConnection, authority: &Authority) -> Result<i64, ControlError> {
    let row = issuing(connection).await?;
    if row.octets("certificate")? != authority.certificate() {
        return Err(ControlError::AuthorityChanged);
    }
    row.number("id")
}

fn load(cluster: &ClusterName, row: &Row, unlock: &mut dyn Unlock, usual: &Path) -> Result<Authority, ControlError> {
    let sealed = row.octets_if("sealed_key")?.ok_or(ControlError::KeyElsewhere)?;
    let pkcs8 = open_sealed(&sealed, &row.text("opener")?, unlock, usual)?;
    let key = AuthorityKey::from_pkcs8(pkcs8.expose())?;
    let word = row.text("rank")?;
    let rank = RANKS.into_iter().find(|&rank| rank_word(rank) == word).ok_or(ControlError::Record("rank"))?;
    Ok(Authority::load(cluster.clone(), rank, row.octets("certificate")?, key)?)
}

/// Opens what is sealed under the CA's opener.
pub(crate) fn open_sealed(
    sealed: &[u8],
    opener: &str,
    unlock: &mut dyn Unlock,
    usual: &Path,
) -> Result<Secret, ControlError> {
    match opener {
        PASSPHRASE => Ok(open_key(sealed, Opener::Passphrase(&unlock.passphrase()?))?),
        KEY_FILE => Ok(open_key(sealed, Opener::KeyFile(&unlock.key_file(usual)?))?),
        _ => Err(ControlError::KeyElsewhere),
    }
}

/// Draws a CA, writes it down as the one that issues, and gives its number.
async fn make_authority(
    connection: &mut SqliteConnection,
    context: &Context,
    cluster: &ClusterName,
    order: &CaOrder<'_>,
) -> Result<(i64, Authority), ControlError> {
    let validity = validity(context.now, order.days)?;
    let (key, serial) = draw(order.algorithm)?;
    match order.root {
        RootKeeping::None => {
            let sole = Authority::create(cluster.clone(), Rank::Sole, key, serial, validity)?;
            let id = insert_issuing(connection, context, &sole, serial, validity, order.opener).await?;
            Ok((id, sole))
        }
        RootKeeping::File(path) => {
            let root = Authority::create(cluster.clone(), Rank::Root, key, serial, validity)?;
            write_private(path, &seal(&root.key().to_pkcs8()?, order.opener)?)?;
            insert(connection, context, &root, serial, validity, None).await?;
            make_online(connection, context, &root, order).await
        }
    }
}

/// Draws an online CA below `root`, writes it down as the one that issues, and gives its number.
async fn make_online(
    connection: &mut SqliteConnection,
    context: &Context,
    root: &Authority,
    order: &CaOrder<'_>,
) -> Result<(i64, Authority), ControlError> {
    let validity = validity(context.now, order.days)?;
    let (key, serial) = draw(order.algorithm)?;
    let online = root.create_online(key, serial, validity)?;
    let id = insert_issuing(connection, context, &online, serial, validity, order.opener).await?;
    Ok((id, online))
}

fn draw(algorithm: AuthorityAlgorithm) -> Result<(AuthorityKey, Serial), ControlError> {
    let mut rng = rng()?;
    Ok((AuthorityKey::draw(algorithm, &mut rng)?, Serial::draw(&mut rng)))
}

/// Days that a certificate which begins now may have to end on the day `last` since 1970, at most [`DAYS_MAX`].
fn days_until(context: &Context, last: u64) -> Result<u16, ControlError> {
    let first = u64::from(validity(context.now, 1)?.start_day());
    Ok(u16::try_from(last.saturating_sub(first)).unwrap_or(DAYS_MAX).min(DAYS_MAX))
}

async fn insert_issuing(
    connection: &mut SqliteConnection,
    context: &Context,
    authority: &Authority,
    serial: Serial,
    validity: Validity,
    opener: Opener<'_>,
) -> Result<i64, ControlError> {
    let sealed = seal(&authority.key().to_pkcs8()?, opener)?;
    insert(connection, context, authority, serial, validity, Some((&sealed, opener_word(opener)))).await
}

async fn insert(
    connection: &mut SqliteConnection,
    context: &Context,
    authority: &Authority,
    serial: Serial,
    validity: Validity,
    sealed: Option<(&[u8], &str)>,
) -> Result<i64, ControlError> {
    let standing = if authority.rank() == Rank::Root { "root" } else { "issuing" };
    let algorithm = algorithm_word(authority.key().algorithm());
    let inserted = sqlx::query(
        "INSERT INTO authority (rank, algorithm, standing, certificate, sealed_key, opener, serial, expiry_day, made) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )
    .bind(rank_word(authority.rank()))
    .bind(algorithm)
    .bind(standing)
    .bind(authority.certificate())
    .bind(sealed.map(|(sealed, _)| sealed))
    .bind(sealed.map_or("absent", |(_, opener)| opener))
    .bind(serial_number(serial))
    .bind(i64::from(validity.expiry_day()))
    .bind(seconds(context.now))
    .execute(&mut *connection)
    .await?;
    let detail = format!("{} {algorithm}, {} days", rank_word(authority.rank()), validity.days());
    let subject = hex(&authority.key().spki_hash());
    journal::write(connection, context, "authority.create", &subject, &detail).await?;
    Ok(inserted.last_insert_rowid())
}

/// Seals under the CA's opener.
fn seal(plain: &Secret, opener: Opener<'_>) -> Result<Vec<u8>, ControlError> {
    Ok(seal_key(plain, opener, SealCost::RECOMMENDED, &mut rng()?)?)
}

fn entry(row: &Row) -> Result<AuthorityEntry, ControlError> {
    use sha2::Digest as _;
    let certificate = row.octets("certificate")?;
    let facts = enroll::CertificateFacts::decode(&certificate)?;
    let spki: [u8; 32] = sha2::Sha256::digest(&facts.spki).into();
    let bridge = row.octets_if("bridge")?;
    Ok(AuthorityEntry {
        id: row.number("id")?,
        rank: row.text("rank")?,
        algorithm: row.text("algorithm")?,
        standing: row.text("standing")?,
        expires: facts.expires.date(),
        fingerprint: hex(&sha2::Sha256::digest(&certificate)),
        words: Words::of_key(&spki).to_string(),
        certificate: enroll::pem_block("CERTIFICATE", &certificate),
        bridge: bridge.map(|der| enroll::pem_block("CERTIFICATE", &der)),
    })
}

const fn opener_word(opener: Opener<'_>) -> &'static str {
    match opener {
        Opener::Passphrase(_) => PASSPHRASE,
        Opener::KeyFile(_) => KEY_FILE,
    }
}

const fn rank_word(rank: Rank) -> &'static str {
    match rank {
        Rank::Sole => "sole",
        Rank::Root => "root",
        Rank::Online => "online",
    }
}

const fn algorithm_word(algorithm: AuthorityAlgorithm) -> &'static str {
    match algorithm {
        AuthorityAlgorithm::P256 => "p256",
        AuthorityAlgorithm::Ed25519 => "ed25519",
        AuthorityAlgorithm::P384 => "p384",
        AuthorityAlgorithm::Rsa3072 => "rsa3072",
    }
}

const RANKS: [Rank; 3] = [Rank::Sole, Rank::Root, Rank::Online];
const PASSPHRASE: &str = "passphrase";
const KEY_FILE: &str = "key file";
pub(crate) const CA_KEY_FILE: &str = "ca.key";
/// The most days that a validity can say.
const DAYS_MAX: u16 = 4095;
