//! Certificates without a code: for gateways, for PKCS#10 requests, for devices that cannot make their own key.

use enroll::{
    Algorithm, Authority, ClientName, KeyStanding, PrivateKey, PublicKey, Role, Serial, SigningRequest, TicketNumber,
    UnixTime, Validity, Words, pem_block,
};
use sha2::{Digest as _, Sha256};
use sqlx::sqlite::SqliteConnection;
use wire::Secret;

use crate::authority::issuing_as;
use crate::certificate::CertificateKind;
use crate::context::Context;
use crate::enrollment::WAITS;
use crate::error::ControlError;
use crate::journal;
use crate::revocation::{refuse_revoked, serial_of};
use crate::row::{Row, seconds, serial_number};
use crate::store::{Store, rng};
use crate::ticket::refuse_name_of_gateway;

/// A certificate that was issued without a code.
#[derive(Clone, Debug)]
pub struct Issued {
    /// The serial.
    pub serial: Serial,
    /// The certificate in PEM.
    pub certificate: String,
    /// The CAs above it in PEM, the issuing one first.
    pub chain: String,
    /// The six words of its key: the requester's program shows the same.
    pub key_words: Words,
    /// The six words of the CA's key.
    pub authority_words: Words,
    /// The private key in PKCS#8, if it was made here. It is kept nowhere.
    pub key: Option<Secret>,
}

/// What a certificate without a code is to be.
#[derive(Clone, Copy, Debug)]
pub struct CertificateWish<'a> {
    /// What it is for.
    pub kind: CertificateKind,
    /// Whom it names.
    pub name: &'a str,
    /// For how many days it is valid.
    pub days: u16,
}

/// What is renewed, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Renewal<'a> {
    /// Serial or name of the certificate.
    pub which: &'a str,
    /// Days of the new one.
    pub days: u16,
}

/// What goes into a certificate beside its key.
struct Plan<'a> {
    wish: CertificateWish<'a>,
    profile: i64,
    renews: Option<Serial>,
}

impl Store {
    /// Issues for a PKCS#10 request in DER; its signature proves that the requester has the key.
    ///
    /// # Errors
    /// The request is malformed, its key is known already, or the name is refused.
    pub async fn issue_pkcs10(
        &mut self,
        context: &Context,
        authority: &Authority,
        wish: CertificateWish<'_>,
        request: &[u8],
    ) -> Result<Issued, ControlError> {
        let request = SigningRequest::decode(request)?;
        let plan = Plan { wish, profile: 0, renews: None };
        self.issue(context, authority, &plan, request.spki(), None).await
    }

    /// Issues for a key that is made here, for a device that cannot make its own.
    ///
    /// # Errors
    /// The name is refused, or something cannot be written.
    pub async fn issue_with_key(
        &mut self,
        context: &Context,
        authority: &Authority,
        wish: CertificateWish<'_>,
    ) -> Result<Issued, ControlError> {
        let key = PrivateKey::draw(Algorithm::P256, &mut rng()?)?;
        let plan = Plan { wish, profile: 0, renews: None };
        let pkcs8 = key.to_pkcs8()?;
        self.issue(context, authority, &plan, &key.public().spki(), Some(pkcs8)).await
    }

    /// Issues again for the same name, profile and kind, for a new key. The old certificate stays good until it ends or
    /// is revoked, so that a reply that is lost on its way locks nobody out.
    ///
    /// # Errors
    /// The old certificate is revoked, suspended or unknown, the key is not new, or something cannot be written.
    pub async fn renew(
        &mut self,
        context: &Context,
        authority: &Authority,
        renewal: Renewal<'_>,
        request: &[u8],
    ) -> Result<Issued, ControlError> {
        let old = self.certificate(context, renewal.which).await?;
        let serial = serial_of(&old.serial).ok_or(ControlError::Record("serial"))?;
        let request = SigningRequest::decode(request)?;
        let wish = CertificateWish { kind: old.kind, name: &old.name, days: renewal.days };
        let plan = Plan { wish, profile: i64::from(old.profile), renews: Some(serial) };
        self.issue(context, authority, &plan, request.spki(), None).await
    }

    async fn issue(
        &mut self,
        context: &Context,
        authority: &Authority,
        plan: &Plan<'_>,
        spki: &[u8],
        key: Option<Secret>,
    ) -> Result<Issued, ControlError> {
        let CertificateWish { kind, name, days } = plan.wish;
        let gateway = self.gateway.clone();
        let mut transaction = self.begin(context).await?;
        if let Some(old) = plan.renews {
            refuse_withdrawn(&mut transaction, old).await?;
        }
        let hash: [u8; 32] = Sha256::digest(spki).into();
        if key_standing(&mut transaction, &hash, None).await? == KeyStanding::Known {
            return Err(ControlError::KnownKey);
        }
        let serial = Serial::draw(&mut rng()?);
        let validity = validity(context.now, days)?;
        let client = || ClientName::new(name).map_err(|_| ControlError::Name(name.to_owned()));
        let der = match kind {
            CertificateKind::Client => {
                refuse_name_of_gateway(&mut transaction, &gateway, name).await?;
                authority.issue_plain(Role::Client, spki, &client()?, serial, validity)?
            }
            CertificateKind::Node => authority.issue_plain(Role::Node, spki, &client()?, serial, validity)?,
            CertificateKind::Gateway => {
                let gateway = enroll::GatewayName::new(name).map_err(|_| ControlError::Name(name.to_owned()))?;
                let key = PublicKey::from_spki(spki).map_err(enroll::Refusal::from)?;
                authority.issue_gateway(&gateway, &key, serial, validity)?
            }
            CertificateKind::Signer => {
                let key = PublicKey::from_spki(spki).map_err(enroll::Refusal::from)?;
                authority.issue_signer(&key, serial, validity)?
            }
        };
        let issuer = issuing_as(&mut transaction, authority).await?;
        sqlx::query(
            "INSERT INTO certificate \
             (serial, authority, kind, name, profile, renews, key_hash, issued, start_day, expiry_day, proven, der) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?8, ?11)",
        )
        .bind(serial_number(serial))
        .bind(issuer)
        .bind(kind.word())
        .bind(name)
        .bind(plan.profile)
        .bind(plan.renews.map(serial_number))
        .bind(hash.as_slice())
        .bind(seconds(context.now))
        .bind(i64::from(validity.start_day()))
        .bind(i64::from(validity.expiry_day()))
        .bind(der.as_slice())
        .execute(&mut *transaction)
        .await?;
        let subject = serial.to_string();
        let detail = match plan.renews {
            Some(old) => format!("{} {name}, renews {old}", kind.word()),
            None => format!("{} {name}", kind.word()),
        };
        journal::write(&mut transaction, context, "certificate.issue", &subject, &detail).await?;
        let chain = chain(&mut transaction).await?;
        transaction.commit().await?;
        let chain = std::iter::once(authority.certificate()).chain(chain.iter().map(Vec::as_slice));
        Ok(Issued {
            serial,
            certificate: pem_block("CERTIFICATE", &der),
            chain: chain.map(|der| pem_block("CERTIFICATE", der)).collect(),
            key_words: Words::of_key(&hash),
            authority_words: Words::of_key(&authority.key().spki_hash()),
            key,
        })
    }
}

/// What is revoked, or suspended until somebody decides, does not come back as a renewed certificate.
async fn refuse_withdrawn(connection: &mut SqliteConnection, serial: Serial) -> Result<(), ControlError> {
    refuse_revoked(connection, serial).await?;
    let suspended = sqlx::query("SELECT 1 FROM suspension WHERE serial = ?1").bind(serial_number(serial));
    if suspended.fetch_optional(connection).await?.is_some() {
        return Err(ControlError::Suspended(serial));
    }
    Ok(())
}

/// A validity of `days` from yesterday on, for clocks that are behind.
pub(crate) fn validity(now: UnixTime, days: u16) -> Result<Validity, ControlError> {
    let start = u16::try_from(now.day().saturating_sub(1)).map_err(|_| ControlError::Days(days))?;
    Validity::new(start, days).map_err(|_| ControlError::Days(days))
}

/// Whether the cluster met a key: in a certificate or a request that waits (but for those of `ticket`), as a CA's, as a
/// revoked one. A request that was rejected does not count: else a thief of a public key could have its owner refused.
pub(crate) async fn key_standing(
    connection: &mut SqliteConnection,
    hash: &[u8; 32],
    ticket: Option<TicketNumber>,
) -> Result<KeyStanding, ControlError> {
    let known = sqlx::query(
        "SELECT 1 FROM certificate WHERE key_hash = ?1 AND (?2 IS NULL OR ticket IS NOT ?2) \
         UNION ALL SELECT 1 FROM request WHERE key_hash = ?1 AND answer = ?3 AND (?2 IS NULL OR ticket <> ?2) \
         UNION ALL SELECT 1 FROM revoked_key WHERE key_hash = ?1",
    )
    .bind(hash.as_slice())
    .bind(ticket.map(|ticket| i64::from(ticket.value())))
    .bind(WAITS)
    .fetch_optional(&mut *connection)
    .await?;
    if known.is_some() {
        return Ok(KeyStanding::Known);
    }
    for row in sqlx::query("SELECT certificate FROM authority").fetch_all(connection).await? {
        let facts = enroll::CertificateFacts::decode(&Row(row).octets("certificate")?)?;
        if <[u8; 32]>::from(Sha256::digest(&facts.spki)) == *hash {
            return Ok(KeyStanding::Known);
        }
    }
    Ok(KeyStanding::New)
}

/// What goes behind the issuing CA's certificate: its root, or its key's certificate by the CA before it.
pub(crate) async fn chain(connection: &mut SqliteConnection) -> Result<Vec<Vec<u8>>, ControlError> {
    let bridge = crate::authority::issuing(connection).await?.octets_if("bridge")?;
    let roots = sqlx::query("SELECT certificate FROM authority WHERE standing = 'root'").fetch_all(connection).await?;
    let roots = roots.into_iter().map(|row| Row(row).octets("certificate"));
    bridge.into_iter().map(Ok).chain(roots).collect()
}
