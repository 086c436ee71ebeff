//! `cluster.toml`: the document that all nodes share.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use auth::x509::{self, Certificate};
use aws_lc_rs::hmac;
use crypto::SigningKey;
use serde::Deserialize;
use toml::Spanned;
use wire::{Prefix, Secret};

use super::document::{ConfigError, Document};
use super::values::{self, InterfaceAddress};

mod connection;

/// The cluster's configuration, with everything that it refers to.
#[derive(Clone)]
pub struct Cluster {
    /// Rises with each change; the operator writes it.
    pub version: u64,
    /// The cluster's name.
    pub name: String,
    /// Of the document and of the files that it names; all nodes must hold the same.
    pub hash: ConfigHash,
    /// The cluster's address towards the peers.
    pub outside: InterfaceAddress,
    /// The cluster's address in the protected network, if it has one.
    pub inside: Option<InterfaceAddress>,
    /// The UDP port that nodes use among themselves; the next one carries keepalives.
    pub port: u16,
    /// The nodes, in the order of the document.
    pub members: Vec<Member>,
    /// Where clients' addresses come from.
    pub pools: Vec<Pool>,
    /// What IKE is told.
    pub ike: Arc<ike::Config>,
    /// Private keys by the names that IKE uses.
    pub keys: Arc<BTreeMap<String, SigningKey>>,
    /// Own certificates by the file that holds them, for checks against the clock.
    pub certificates: Vec<(PathBuf, Certificate)>,
    /// What the survivor of a split does.
    pub lone_survivor: LoneSurvivor,
    /// Secrets that all nodes derive alike.
    pub secrets: Secrets,
}

/// Identifies a configuration with all its files.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ConfigHash(pub [u8; 32]);

impl fmt::Display for ConfigHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().take(8).try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

impl fmt::Debug for ConfigHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A node as the others know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Its own address outside.
    pub outside: IpAddr,
    /// Its own address inside.
    pub inside: IpAddr,
    /// Its address in the network between the nodes, if there is one.
    pub cluster: Option<IpAddr>,
}

/// A pool of inner addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// Its addresses; the first and the last are never given.
    pub prefix: Prefix,
}

/// What a node does that is left alone of a view of three or more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LoneSurvivor {
    /// It goes on after two seconds in which nobody else was found.
    #[default]
    Serve,
    /// It waits for the others.
    Wait,
}

/// Secrets that all nodes derive alike from one file.
#[derive(Clone, Debug)]
pub struct Secrets {
    /// Key of the dispatch hash, never rotated while sessions live.
    pub dispatch: Secret,
}

impl Cluster {
    /// Reads and checks the file and everything that it names.
    ///
    /// # Errors
    /// The first thing that is not allowed or cannot be read.
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        Self::from_document(Document::load(file)?)
    }

    pub(super) fn from_document(document: Document) -> Result<Self, ConfigError> {
        let raw: RawCluster = document.parse()?;
        let mut reader = Reader { document, files: Vec::new() };
        let secret = reader.secret(&raw.secret_file)?;
        if secret.len() < SECRET_LEN_MIN {
            return Err(reader.document.refuse(
                raw.secret_file.span(),
                format!("the file holds {} octets", secret.len()),
                format!("the cluster's secret needs {SECRET_LEN_MIN} or more; make it with `openssl rand -hex 32`"),
            ));
        }
        let derive = |label: &str| derive(&secret, label.as_bytes());
        let pools = reader.pools(&raw.pools)?;
        let members = reader.members(&raw.members)?;
        let mut keys = BTreeMap::new();
        let mut certificates = Vec::new();
        let trust = reader.trust(&raw.trust, &raw.revoked)?;
        let mut connections = Vec::new();
        for connection in &raw.connections {
            connections.push(reader.connection(connection, &raw, &mut keys, &mut certificates)?);
        }
        let document = &reader.document;
        let settings = raw.ike.unwrap_or_default();
        let ike = settings.into_config(document, connections, trust, derive("cookie"))?;
        let outside = document.value(&raw.outside_address, values::ADDRESS, values::interface_address)?;
        let inside = match &raw.inside_address {
            Some(address) => Some(document.value(address, values::ADDRESS, values::interface_address)?),
            None => None,
        };
        let ports = |port: &u16| (1024..u16::MAX).contains(port) && *port != 4500;
        let port = match u16::try_from(*raw.port.get_ref()).ok().filter(ports) {
            Some(port) => port,
            None => {
                let advice = "use 1024 to 65534 but for 4500, which IKE needs; the next port is used, too";
                return Err(document.refuse(raw.port.span(), "the port is out of range", advice));
            }
        };
        Ok(Self {
            version: raw.version,
            name: document.value(&raw.name, values::NAME, values::name)?,
            hash: reader.hash(&secret),
            outside,
            inside,
            port,
            members,
            pools,
            ike: Arc::new(ike),
            keys: Arc::new(keys),
            certificates,
            lone_survivor: raw.lone_survivor,
            secrets: Secrets { dispatch: derive("dispatch") },
        })
    }
}

/// The document while it is checked, with the contents of the files that it names.
struct Reader {
    document: Document,
    files: Vec<Secret>,
}

impl Reader {
    /// Reads a file that holds no secret.
    fn file(&mut self, name: &Spanned<String>) -> Result<(PathBuf, Vec<u8>), ConfigError> {
        let path = self.document.beside(name.get_ref());
        let bytes = std::fs::read(&path).map_err(|error| {
            let problem = format!("{} cannot be read ({error})", path.display());
            self.document.refuse(name.span(), problem, "name an existing file, seen from this file's directory")
        })?;
        self.files.push(Secret::from_slice(&bytes));
        Ok((path, bytes))
    }

    /// Reads a file that holds a secret and takes a final line break off.
    fn secret(&mut self, name: &Spanned<String>) -> Result<Secret, ConfigError> {
        let path = self.document.beside(name.get_ref());
        if std::fs::metadata(&path).is_ok_and(|data| data.permissions().mode() & 0o007 != 0) {
            let problem = format!("everybody can read {}", path.display());
            let advice = format!("take the right away: chmod 600 {}", path.display());
            return Err(self.document.refuse(name.span(), problem, advice));
        }
        let (_, bytes) = self.file(name)?;
        let secret = Secret::new(bytes);
        let text = secret.expose().trim_ascii_end();
        if text.is_empty() {
            return Err(self.document.refuse(
                name.span(),
                format!("{} is empty", path.display()),
                "write the secret into it",
            ));
        }
        Ok(Secret::from_slice(text))
    }

    fn pools(&self, raw: &[RawPool]) -> Result<Vec<Pool>, ConfigError> {
        let mut pools: Vec<Pool> = Vec::new();
        for pool in raw {
            let name = self.document.value(&pool.name, values::NAME, values::name)?;
            let prefix = self.document.value(&pool.prefix, values::PREFIX, values::prefix)?;
            if !(8..=30).contains(&prefix.len()) {
                let advice = "use a prefix length of 8 to 30";
                return Err(self.document.refuse(pool.prefix.span(), "the pool's size is out of range", advice));
            }
            let overlaps =
                |other: &Pool| other.prefix.contains(prefix.address()) || prefix.contains(other.prefix.address());
            if pools.iter().any(|other| other.name == name) {
                let advice = "give each pool a name of its own";
                return Err(self.document.refuse(
                    pool.name.span(),
                    format!("a second pool is named \"{name}\""),
                    advice,
                ));
            }
            if let Some(other) = pools.iter().find(|other| overlaps(other)) {
                let problem = format!("the pool overlaps with pool \"{}\"", other.name);
                return Err(self.document.refuse(pool.prefix.span(), problem, "give each pool addresses of its own"));
            }
            pools.push(Pool { name, prefix });
        }
        Ok(pools)
    }

    fn members(&self, raw: &[RawMember]) -> Result<Vec<Member>, ConfigError> {
        let mut members: Vec<Member> = Vec::new();
        for member in raw {
            let name = self.document.value(&member.name, values::NAME, values::name)?;
            if members.iter().any(|other| other.name == name) {
                let problem = format!("a second member is named \"{name}\"");
                return Err(self.document.refuse(member.name.span(), problem, "give each member a name of its own"));
            }
            if members.len() == wire::Slot::COUNT {
                let problem = format!("there are more than {} members", wire::Slot::COUNT);
                return Err(self.document.refuse(member.name.span(), problem, "take members out"));
            }
            // Members find each other by the order of their networks.
            if members.first().is_some_and(|first| first.cluster.is_some() != member.cluster.is_some()) {
                let problem = "some members have an address on the network between the nodes, and others have none";
                return Err(self.document.refuse(member.name.span(), problem, "give all members a `cluster`, or none"));
            }
            members.push(Member {
                name,
                outside: self.document.value(&member.outside, values::HOST, values::host)?,
                inside: self.document.value(&member.inside, values::HOST, values::host)?,
                cluster: match &member.cluster {
                    Some(address) => Some(self.document.value(address, values::HOST, values::host)?),
                    None => None,
                },
            });
        }
        Ok(members)
    }

    fn trust(
        &mut self,
        anchors: &[Spanned<String>],
        lists: &[Spanned<String>],
    ) -> Result<x509::TrustAnchors, ConfigError> {
        let mut trust = x509::TrustAnchors::default();
        for name in anchors {
            let (path, pem) = self.file(name)?;
            trust.add_pem(&pem).map_err(|error| self.unfit(name, &path, &error, "name a CA certificate in PEM"))?;
        }
        for name in lists {
            let (path, pem) = self.file(name)?;
            trust
                .add_crl_pem(&pem)
                .map_err(|error| self.unfit(name, &path, &error, "name a certificate revocation list in PEM"))?;
        }
        Ok(trust)
    }

    fn unfit(&self, name: &Spanned<String>, path: &Path, error: &dyn fmt::Display, advice: &str) -> ConfigError {
        self.document.refuse(name.span(), format!("{}: {error}", path.display()), advice)
    }

    /// Keyed, so that nobody who sees the hash can try pre-shared keys against it.
    fn hash(&self, secret: &Secret) -> ConfigHash {
        let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, secret.expose()));
        for part in std::iter::once(self.document.text().as_bytes()).chain(self.files.iter().map(Secret::expose)) {
            context.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            context.update(part);
        }
        let mut hash = [0; 32];
        hash.copy_from_slice(context.sign().as_ref());
        ConfigHash(hash)
    }
}

fn derive(secret: &Secret, label: &[u8]) -> Secret {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose());
    Secret::from_slice(hmac::sign(&key, &[b"cryptocluster ", label].concat()).as_ref())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCluster {
    version: u64,
    name: Spanned<String>,
    outside_address: Spanned<String>,
    inside_address: Option<Spanned<String>>,
    #[serde(default = "default_port")]
    port: Spanned<u32>,
    secret_file: Spanned<String>,
    #[serde(default)]
    lone_survivor: LoneSurvivor,
    #[serde(default)]
    trust: Vec<Spanned<String>>,
    #[serde(default)]
    revoked: Vec<Spanned<String>>,
    ike: Option<connection::RawIke>,
    #[serde(default)]
    members: Vec<RawMember>,
    #[serde(default)]
    pools: Vec<RawPool>,
    #[serde(default)]
    connections: Vec<connection::RawConnection>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawMember {
    name: Spanned<String>,
    outside: Spanned<String>,
    inside: Spanned<String>,
    cluster: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPool {
    name: Spanned<String>,
    prefix: Spanned<String>,
}

fn default_port() -> Spanned<u32> {
    Spanned::new(0..0, 4510)
}

/// Octets of the cluster's secret at the least.
const SECRET_LEN_MIN: usize = 32;
