//! Profiles: what a number in a reply stands for, and the files for a client's own system.

use enroll::{
    Algorithm, Authority, BundleCipher, ClientName, ClusterName, Connection, Identity, PrivateKey, Profile,
    ProfileFile, ProfileFormat, Settings, signed,
};
use serde::Serialize;
use sqlx::sqlite::SqliteConnection;
use wire::Secret;

use crate::certificate::{CertificateKind, check_key};
use crate::context::Context;
use crate::error::ControlError;
use crate::issue::CertificateWish;
use crate::journal;
use crate::row::Row;
use crate::store::{Store, rng};

/// A profile as a list shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ProfileEntry {
    /// Its number, 0 to 15.
    pub number: u8,
    /// Its name.
    pub name: String,
    /// Networks behind the gateway; none means all traffic.
    pub routes: Vec<String>,
    /// Name servers behind the gateway.
    pub dns: Vec<String>,
}

/// A private key for a profile, and how it is protected in it.
#[derive(Clone, Copy, Debug)]
pub struct ProfileKey<'a> {
    /// The key in PKCS#8.
    pub key: &'a Secret,
    /// The ciphers of a PKCS#12 file.
    pub cipher: BundleCipher,
    /// The passphrase of a PKCS#12 file.
    pub passphrase: &'a Secret,
}

impl Store {
    /// Names a profile number and says what it stands for.
    ///
    /// # Errors
    /// The name is refused, or another number has it.
    pub async fn set_profile(
        &mut self,
        context: &Context,
        number: Profile,
        name: &str,
        settings: &Settings,
    ) -> Result<(), ControlError> {
        ClusterName::new(name).map_err(|_| ControlError::Name(name.to_owned()))?;
        let mut transaction = self.begin(context).await?;
        let other = sqlx::query("SELECT number FROM profile WHERE name = ?1 AND number <> ?2")
            .bind(name)
            .bind(i64::from(number.value()))
            .fetch_optional(&mut *transaction)
            .await?;
        if let Some(other) = other.map(Row) {
            return Err(ControlError::ProfileName { name: name.to_owned(), number: other.number("number")? });
        }
        sqlx::query(
            "INSERT INTO profile (number, name, settings) VALUES (?1, ?2, ?3) \
             ON CONFLICT (number) DO UPDATE SET name = ?2, settings = ?3",
        )
        .bind(i64::from(number.value()))
        .bind(name)
        .bind(settings.to_string())
        .execute(&mut *transaction)
        .await?;
        let detail = format!("{name}: {}", settings.to_string().trim_end().replace('\n', " "));
        journal::write(&mut transaction, context, "profile.set", &number.value().to_string(), &detail).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// All profiles.
    ///
    /// # Errors
    /// The database fails.
    pub async fn profiles(&mut self) -> Result<Vec<ProfileEntry>, ControlError> {
        let rows = sqlx::query("SELECT * FROM profile ORDER BY number").fetch_all(&mut self.connection).await?;
        rows.into_iter()
            .map(|row| {
                let row = Row(row);
                let settings = Settings::parse(&row.text("settings")?)?;
                Ok(ProfileEntry {
                    number: u8::try_from(row.number("number")?).map_err(|_| ControlError::Record("number"))?,
                    name: row.text("name")?,
                    routes: settings.routes.iter().map(ToString::to_string).collect(),
                    dns: settings.dns.iter().map(ToString::to_string).collect(),
                })
            })
            .collect()
    }

    /// The profile of a number, or else of a name.
    ///
    /// # Errors
    /// There is none. Number 0 is always there.
    pub async fn find_profile(&mut self, which: &str) -> Result<Profile, ControlError> {
        let unknown = || ControlError::NoProfile(which.to_owned());
        if which == "0" {
            return Ok(Profile::default());
        }
        let profiles = self.profiles().await?;
        let numbered = profiles.iter().find(|profile| profile.number.to_string() == which);
        let found = numbered.or_else(|| profiles.iter().find(|profile| profile.name == which));
        Profile::new(found.ok_or_else(unknown)?.number).ok_or_else(unknown)
    }

    /// Writes a client's profile in the form of its system. An Apple profile is signed by a key that is drawn, certified
    /// and forgotten for this one signature.
    ///
    /// # Errors
    /// There is no such certificate, the form needs a key that is not given, or the CA is needed and not given.
    pub async fn export_profile(
        &mut self,
        context: &Context,
        which: &str,
        format: ProfileFormat,
        key: Option<ProfileKey<'_>>,
        authority: Option<&Authority>,
    ) -> Result<Vec<ProfileFile>, ControlError> {
        let found = self.certificate(context, which).await?;
        let certificate = self.der(&found).await?;
        if let Some(key) = key {
            check_key(&certificate, key.key)?;
        }
        let issuer = self.issuer_of(&found).await?;
        let number = Profile::new(found.profile).ok_or(ControlError::Record("profile"))?;
        let settings = settings(&mut self.connection, number).await?;
        let client = ClientName::new(&found.name).map_err(|_| ControlError::Name(found.name.clone()))?;
        let connection = Connection {
            cluster: &self.cluster.clone(),
            gateway: &self.gateway.clone(),
            client: &client,
            settings: &settings,
            authority: &issuer,
        };
        let identity = Identity {
            certificate: &certificate,
            chain: &[],
            key: key.map(|key| (key.key, key.cipher, key.passphrase)),
        };
        let mut files = connection.files(format, &identity)?;
        if format == ProfileFormat::MobileConfig {
            let authority = authority.ok_or(ControlError::NeedsAuthority)?;
            let signer = PrivateKey::draw(Algorithm::P256, &mut rng()?)?;
            let request = enroll::SigningRequest::compose(&signer)?;
            let wish = CertificateWish { kind: CertificateKind::Signer, name: "profiles", days: SIGNER_DAYS };
            let issued = self.issue_pkcs10(context, authority, wish, &request).await?;
            let own = enroll::pem_blocks(&issued.certificate);
            let own = own.first().ok_or(ControlError::Record("certificate"))?;
            for file in &mut files {
                file.content = signed(&file.content, &signer, &[own, authority.certificate()])?;
            }
        }
        Ok(files)
    }
}

/// What a profile number stands for; a number that nobody named routes everything.
pub(crate) async fn settings(connection: &mut SqliteConnection, number: Profile) -> Result<Settings, ControlError> {
    let row = sqlx::query("SELECT settings FROM profile WHERE number = ?1").bind(i64::from(number.value()));
    match row.fetch_optional(connection).await? {
        Some(row) => Ok(Settings::parse(&Row(row).text("settings")?)?),
        None => Ok(Settings::default()),
    }
}

/// For how long a profile's signature can be checked.
const SIGNER_DAYS: u16 = 90;
