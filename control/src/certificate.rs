//! Certificates: found, listed, exported; what ends when.

use enroll::{BundleCipher, pem_block, pkcs12};
use serde::Serialize;
use wire::Secret;

use crate::context::Context;
use crate::error::ControlError;
use crate::journal;
use crate::revocation::serial_of;
use crate::row::{Row, hex, seconds, serial_number};
use crate::store::Store;
use crate::ticket::Stored;

/// What a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CertificateKind {
    /// A user's machine.
    Client,
    /// A node of the cluster.
    Node,
    /// What the clients connect to.
    Gateway,
    /// Signs profiles.
    Signer,
}

impl CertificateKind {
    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Node => "node",
            Self::Gateway => "gateway",
            Self::Signer => "signer",
        }
    }
}

/// How a certificate stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CertificateStanding {
    /// It is good.
    Good,
    /// It is good, but nobody showed yet to have its key.
    Unproven,
    /// Its ticket is consumed, and it is not signed yet: the same request again finishes it.
    Unsigned,
    /// It is out of use until somebody decides.
    Suspended,
    /// It is revoked.
    Revoked,
    /// Its time is over.
    Expired,
}

/// A certificate as a list shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CertificateEntry {
    /// The serial, 16 hexadecimal digits.
    pub serial: String,
    /// What it is for.
    pub kind: CertificateKind,
    /// Whom it names.
    pub name: String,
    /// The profile's number.
    pub profile: u8,
    /// How it stands.
    pub standing: CertificateStanding,
    /// When it was issued, UTC.
    pub issued: String,
    /// The first day on which it is good.
    pub starts: String,
    /// The day on which it ends.
    pub expires: String,
    /// Why it is revoked, if it is.
    pub revoked: Option<String>,
    /// The serial of the certificate that it renews.
    pub renews: Option<String>,
    /// SHA-256 of its SPKI, in hexadecimal.
    pub key: String,
    /// The certificate in PEM.
    pub certificate: Option<String>,
}

/// Something that ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CalendarEntry {
    /// The day on which it ends.
    pub expires: String,
    /// Days until then; 0 if it is over.
    pub days: u64,
    /// From when on it should be renewed: after two thirds of its life.
    pub renew_from: String,
    /// Whether that day has come.
    pub due: bool,
    /// `ca`, or what a certificate is for.
    pub kind: String,
    /// The serial.
    pub serial: String,
    /// Whom it names.
    pub name: String,
}

impl Store {
    /// All certificates, the newest first.
    ///
    /// # Errors
    /// The database fails.
    pub async fn certificates(&mut self, context: &Context) -> Result<Vec<CertificateEntry>, ControlError> {
        self.sweep(context).await?;
        let rows = sqlx::query(LIST).bind(None::<i64>).bind(None::<&str>).fetch_all(&mut self.connection).await?;
        rows.into_iter().map(|row| entry(context, &Row(row))).collect()
    }

    /// One certificate, by its serial, or by its name if that has only one that still counts.
    ///
    /// # Errors
    /// There is none, or several have the name.
    pub async fn certificate(&mut self, context: &Context, which: &str) -> Result<CertificateEntry, ControlError> {
        self.sweep(context).await?;
        let serial = serial_of(which).map(serial_number);
        let name = serial.is_none().then_some(which);
        let rows = sqlx::query(LIST).bind(serial).bind(name).fetch_all(&mut self.connection).await?;
        let entries: Vec<_> =
            rows.into_iter().map(|row| entry(context, &Row(row))).collect::<Result<_, ControlError>>()?;
        let counts = |entry: &&CertificateEntry| {
            !matches!(entry.standing, CertificateStanding::Revoked | CertificateStanding::Expired)
        };
        let counting: Vec<_> = entries.iter().filter(counts).collect();
        match (counting.as_slice(), entries.as_slice()) {
            ([one], _) => Ok((*one).clone()),
            ([], [one]) => Ok(one.clone()),
            (_, []) => Err(ControlError::NoCertificate(which.to_owned())),
            (_, _) => Err(ControlError::SeveralCertificates(which.to_owned())),
        }
    }

    /// Notes that a certificate's holder showed to have its key. A node does this by itself at the first contact; with
    /// an offline CA an administrator does it, or the certificate lapses.
    ///
    /// # Errors
    /// There is no such certificate, or it is revoked.
    pub async fn confirm(&mut self, context: &Context, which: &str) -> Result<CertificateEntry, ControlError> {
        let found = self.certificate(context, which).await?;
        let serial = serial_of(&found.serial).ok_or(ControlError::Record("serial"))?;
        if found.revoked.is_some() {
            return Err(ControlError::Revoked(serial));
        }
        let key = self.key.clone();
        let mut transaction = self.begin(context).await?;
        let row = sqlx::query("SELECT ticket, key_hash FROM certificate WHERE serial = ?1 AND proven IS NULL")
            .bind(serial_number(serial))
            .fetch_optional(&mut *transaction)
            .await?
            .map(Row);
        if let Some(row) = row {
            let hash = row.hash("key_hash")?;
            if let Some(number) = row.number_if("ticket")? {
                let number = u32::try_from(number).ok().and_then(enroll::TicketNumber::new);
                let number = number.ok_or(ControlError::Record("ticket"))?;
                let mut stored = Stored::load(&mut transaction, number, &key).await?;
                stored.ticket.handle_proof(context.now, &hash);
                stored.save(&mut transaction, context, &key).await?;
            }
            sqlx::query("UPDATE certificate SET proven = ?1 WHERE serial = ?2")
                .bind(seconds(context.now))
                .bind(serial_number(serial))
                .execute(&mut *transaction)
                .await?;
            journal::write(&mut transaction, context, "certificate.prove", &found.serial, &found.name).await?;
        }
        transaction.commit().await?;
        self.certificate(context, &found.serial).await
    }

    /// What ends, the earliest first: CAs and all certificates that are not revoked.
    ///
    /// # Errors
    /// The database fails.
    pub async fn calendar(&mut self, context: &Context) -> Result<Vec<CalendarEntry>, ControlError> {
        self.sweep(context).await?;
        let rows = sqlx::query(
            "SELECT 'ca' AS kind, serial, algorithm || ' ' || standing AS name, made / 86400 AS start_day, expiry_day FROM authority \
             UNION ALL SELECT kind, serial, name, start_day, expiry_day FROM certificate c \
             WHERE NOT EXISTS (SELECT 1 FROM revocation r WHERE r.serial = c.serial) ORDER BY expiry_day, serial",
        );
        let rows = rows.fetch_all(&mut self.connection).await?;
        let today = context.now.day();
        rows.into_iter()
            .map(|row| {
                let row = Row(row);
                let (start, end) = (u64::from(row.day("start_day")?), u64::from(row.day("expiry_day")?));
                let renew = start.saturating_add(end.saturating_sub(start).saturating_mul(2) / 3);
                Ok(CalendarEntry {
                    expires: enroll::UnixTime::of_day(end).date(),
                    days: end.saturating_sub(today),
                    renew_from: enroll::UnixTime::of_day(renew).date(),
                    due: today >= renew,
                    kind: row.text("kind")?,
                    serial: row.serial("serial")?.to_string(),
                    name: row.text("name")?,
                })
            })
            .collect()
    }

    /// Writes a certificate with its key and chain as PKCS#12.
    ///
    /// # Errors
    /// There is no such certificate, or the key is not its own.
    pub async fn export_pkcs12(
        &mut self,
        context: &Context,
        which: &str,
        key: &Secret,
        cipher: BundleCipher,
        passphrase: &Secret,
    ) -> Result<Vec<u8>, ControlError> {
        let found = self.certificate(context, which).await?;
        let certificate = self.der(&found).await?;
        check_key(&certificate, key)?;
        let issuer = self.issuer_of(&found).await?;
        Ok(pkcs12(cipher, passphrase, &found.name, key, &[&certificate, &issuer])?)
    }

    /// The certificate in DER.
    pub(crate) async fn der(&mut self, entry: &CertificateEntry) -> Result<Vec<u8>, ControlError> {
        let serial = serial_of(&entry.serial).ok_or(ControlError::Record("serial"))?;
        let row = sqlx::query("SELECT der FROM certificate WHERE serial = ?1").bind(serial_number(serial));
        let der = Row(row.fetch_one(&mut self.connection).await?).octets_if("der")?;
        der.ok_or_else(|| ControlError::Unsigned(entry.serial.clone()))
    }

    /// The certificate of the CA that issued it, in DER.
    pub(crate) async fn issuer_of(&mut self, entry: &CertificateEntry) -> Result<Vec<u8>, ControlError> {
        let serial = serial_of(&entry.serial).ok_or(ControlError::Record("serial"))?;
        let row = sqlx::query(
            "SELECT a.certificate FROM authority a JOIN certificate c ON c.authority = a.id WHERE c.serial = ?1",
        );
        Row(row.bind(serial_number(serial)).fetch_one(&mut self.connection).await?).octets("certificate")
    }
}

/// A key must be the certificate's.
pub(crate) fn check_key(certificate: &[u8], key: &Secret) -> Result<(), ControlError> {
    let facts = enroll::CertificateFacts::decode(certificate)?;
    let key = enroll::AuthorityKey::from_pkcs8(key.expose())?;
    if key.spki() == facts.spki { Ok(()) } else { Err(enroll::Refusal::OtherKey.into()) }
}

fn entry(context: &Context, row: &Row) -> Result<CertificateEntry, ControlError> {
    let serial = row.serial("serial")?;
    let revoked = row.text("cause")?;
    let revoked = (!revoked.is_empty()).then_some(revoked);
    let der = row.octets_if("der")?;
    let expiry_day = row.day("expiry_day")?;
    let standing = if revoked.is_some() {
        CertificateStanding::Revoked
    } else if row.number("suspended")? != 0 {
        CertificateStanding::Suspended
    } else if u64::from(expiry_day) <= context.now.day() {
        CertificateStanding::Expired
    } else if der.is_none() {
        CertificateStanding::Unsigned
    } else if row.number_if("proven")?.is_none() {
        CertificateStanding::Unproven
    } else {
        CertificateStanding::Good
    };
    let word = row.text("kind")?;
    let kinds = [CertificateKind::Client, CertificateKind::Node, CertificateKind::Gateway, CertificateKind::Signer];
    Ok(CertificateEntry {
        serial: serial.to_string(),
        kind: kinds.into_iter().find(|kind| kind.word() == word).ok_or(ControlError::Record("kind"))?,
        name: row.text("name")?,
        profile: u8::try_from(row.number("profile")?).map_err(|_| ControlError::Record("profile"))?,
        standing,
        issued: row.time("issued")?.to_string(),
        starts: enroll::UnixTime::of_day(row.day("start_day")?.into()).date(),
        expires: enroll::UnixTime::of_day(expiry_day.into()).date(),
        revoked,
        renews: row.serial_if("renews")?.map(|serial| serial.to_string()),
        key: hex(&row.hash("key_hash")?),
        certificate: der.map(|der| pem_block("CERTIFICATE", &der)),
    })
}

/// Certificates with what is known against them; of one serial or one name if these are given.
const LIST: &str = "SELECT c.*, coalesce(r.cause, '') AS cause, s.serial IS NOT NULL AS suspended FROM certificate c \
    LEFT JOIN revocation r ON r.serial = c.serial LEFT JOIN suspension s ON s.serial = c.serial \
    WHERE (?1 IS NULL OR c.serial = ?1) AND (?2 IS NULL OR c.name = ?2) ORDER BY c.issued DESC, c.serial";
