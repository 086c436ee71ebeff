//! `ccvpn profile`, and how a profile is kept.

mod name;

use std::time::{SystemTime, UNIX_EPOCH};

use enroll::{CertificateFacts, PrivateKey, ShortTerms, TicketNumber, UnixTime, pem_block, pem_blocks};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::cli::Place;
use crate::enroll::{PENDING, pending_tickets};
use crate::fault::Fault;
use crate::home::Home;
use command::say;

pub(crate) use name::ProfileName;

/// Look at the profiles of this device.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum ProfileVerb {
    /// List the profiles, and the enrollments that wait for a reply.
    List(Place),
    /// Show one profile.
    Show {
        /// The profile's name.
        name: ProfileName,
        #[command(flatten)]
        place: Place,
    },
    /// Erase a profile with its key, or an enrollment that waits.
    Forget {
        /// The profile's name, or the waiting ticket's number.
        name: ProfileName,
        #[command(flatten)]
        place: Place,
    },
}

/// What is kept of a profile beside key and certificates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Profile {
    pub(crate) cluster: String,
    pub(crate) gateway: String,
    pub(crate) client: String,
    pub(crate) serial: String,
    pub(crate) expires: String,
    /// The first 192 bits of SHA-256 of the CA's SPKI, in hexadecimal: whom this device trusts.
    pub(crate) authority: String,
    pub(crate) routes: Vec<String>,
    pub(crate) dns: Vec<String>,
    /// Whether the certificate is here; a short reply only names it.
    pub(crate) fetched: bool,
}

/// Certificates in DER.
pub(crate) struct Kept {
    pub(crate) certificate: Option<Vec<u8>>,
    pub(crate) authority: Option<Vec<u8>>,
    pub(crate) chain: Vec<Vec<u8>>,
}

#[derive(Serialize)]
struct Listed {
    profiles: Vec<Named>,
    waiting: Vec<String>,
}

#[derive(Serialize)]
struct Named {
    name: ProfileName,
    #[serde(flatten)]
    profile: Profile,
}

impl Kept {
    /// The hash of the CA's key: of its certificate where that came, else what the reply says.
    pub(crate) fn authority_hash(&self, terms: &ShortTerms) -> String {
        let known = self.authority.as_deref().and_then(|der| CertificateFacts::decode(der).ok());
        let hash = known.map_or(terms.ca_hash, |facts| ShortTerms::ca_hash(&Sha256::digest(&facts.spki).into()));
        hex(&hash)
    }
}

impl Profile {
    /// Keeps a profile with its key and certificates, under its cluster's name if that is free, else with the ticket's
    /// number behind it; gives the name. The record is written last: without it there is no profile.
    pub(crate) fn keep(
        &self,
        home: &Home,
        key: &PrivateKey,
        kept: &Kept,
        ticket: TicketNumber,
    ) -> Result<ProfileName, Fault> {
        let usual = ProfileName::of_cluster(&self.cluster);
        let free = match Self::load(home, &usual) {
            Ok(other) => other.serial == self.serial,
            // One that cannot be read is still somebody's key.
            Err(error) => matches!(error, Fault::NoProfile(_)),
        };
        let name = if free { usual } else { usual.with_ticket(ticket) };
        self.write(home, &name, key, kept)?;
        Ok(name)
    }

    /// Writes a profile's files.
    pub(crate) fn write(&self, home: &Home, name: &ProfileName, key: &PrivateKey, kept: &Kept) -> Result<(), Fault> {
        let file = |of: &str| format!("{PROFILES}/{name}/{of}");
        let pkcs8 = key.to_pkcs8().map_err(|_| Fault::Library)?;
        let pem = Zeroizing::new(pem_block("PRIVATE KEY", pkcs8.expose()));
        home.write(&file("key.pem"), pem.as_bytes())?;
        if let Some(certificate) = &kept.certificate {
            home.write(&file("certificate.pem"), pem_block("CERTIFICATE", certificate).as_bytes())?;
        }
        if let Some(authority) = &kept.authority {
            home.write(&file("ca.pem"), pem_block("CERTIFICATE", authority).as_bytes())?;
        }
        if !kept.chain.is_empty() {
            let chain: String = kept.chain.iter().map(|der| pem_block("CERTIFICATE", der)).collect();
            home.write(&file("chain.pem"), chain.as_bytes())?;
        }
        let record = serde_json::to_vec_pretty(self).map_err(|_| Fault::Library)?;
        home.write(&file(RECORD), &record)
    }

    pub(crate) fn load(home: &Home, name: &ProfileName) -> Result<Self, Fault> {
        let path = format!("{PROFILES}/{name}/{RECORD}");
        if !home.path(&path).exists() {
            return Err(Fault::NoProfile(name.to_string()));
        }
        serde_json::from_slice(&home.read(&path)?).map_err(|_| Fault::Record(home.path(&path)))
    }

    /// The CA's certificate, if it came with the reply.
    pub(crate) fn authority_certificate(home: &Home, name: &ProfileName) -> Result<Option<Vec<u8>>, Fault> {
        let path = format!("{PROFILES}/{name}/ca.pem");
        if !home.path(&path).exists() {
            return Ok(None);
        }
        Ok(pem_blocks(&String::from_utf8_lossy(&home.read(&path)?)).into_iter().next())
    }

    fn all(home: &Home) -> Result<Vec<Named>, Fault> {
        let mut all = Vec::new();
        // A directory with another name is none that the client made.
        for name in home.names(PROFILES)?.iter().filter_map(|name| name.parse::<ProfileName>().ok()) {
            match Self::load(home, &name) {
                Ok(profile) => all.push(Named { name, profile }),
                // It was not written whole, and its enrollment still waits.
                Err(Fault::NoProfile(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }
}

impl ProfileVerb {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        match self {
            Self::List(place) => {
                let home = place.home();
                let listed = Listed { profiles: Profile::all(&home)?, waiting: pending_tickets(&home)? };
                place.show(&listed, |listed| {
                    for Named { name, profile } in &listed.profiles {
                        say!("{name:<20} {} at {} until {}", profile.client, profile.gateway, profile.expires);
                    }
                    for ticket in &listed.waiting {
                        say!("{ticket:<20} waits for a reply");
                    }
                    if listed.profiles.is_empty() && listed.waiting.is_empty() {
                        say!("There are none. Begin with: ccvpn enroll");
                    }
                })
            }
            Self::Show { name, place } => {
                let home = place.home();
                let profile = Profile::load(&home, &name)?;
                let files = home.path(&format!("{PROFILES}/{name}"));
                place.show(&Named { name, profile }, |named| {
                    let Profile { cluster, gateway, client, serial, expires, authority, routes, dns, fetched } =
                        &named.profile;
                    say!("profile   {}", named.name);
                    say!("cluster   {cluster}");
                    say!("gateway   {gateway}");
                    say!("client    {client}");
                    say!("serial    {serial}{}", if *fetched { "" } else { " (not fetched yet)" });
                    say!("good      until {expires}");
                    say!("CA        {authority}");
                    say!("routes    {}", routes.join(", "));
                    say!("dns       {}", dns.join(", "));
                    say!("files     {}", files.display());
                })
            }
            Self::Forget { name, place } => {
                let home = place.home();
                let ticket =
                    pending_tickets(&home)?.into_iter().find(|ticket| ticket.eq_ignore_ascii_case(name.as_str()));
                let what = if let Some(ticket) = ticket {
                    home.erase_all(&format!("{PENDING}/{ticket}"))?;
                    "enrollment"
                } else {
                    Profile::load(&home, &name)?;
                    home.erase_all(&format!("{PROFILES}/{name}"))?;
                    "profile"
                };
                place.show(&serde_json::json!({ "forgotten": name, "kind": what }), |_| {
                    say!("The {what} {name} and its key are erased.");
                })
            }
        }
    }
}

/// Now, by this device's clock.
pub(crate) fn today() -> Result<UnixTime, Fault> {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_err(|_| Fault::ClockBehind { starts: UnixTime::default().date(), now: "a day before 1970".to_owned() })?;
    Ok(UnixTime { seconds: since.as_secs() })
}

pub(crate) fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

const PROFILES: &str = "profiles";
/// What makes a profile one; it is written last.
const RECORD: &str = "profile.json";

#[cfg(test)]
mod tests {
    use enroll::Algorithm;

    use super::*;
    use crate::enroll::draw_key;

    fn profile(cluster: &str, serial: &str) -> Profile {
        Profile {
            cluster: cluster.to_owned(),
            gateway: "vpn.example.org".to_owned(),
            client: "alice".to_owned(),
            serial: serial.to_owned(),
            expires: "2027-11-21".to_owned(),
            authority: String::new(),
            routes: Vec::new(),
            dns: Vec::new(),
            fetched: false,
        }
    }

    #[test]
    fn a_profile_stays_in_its_directory_and_writes_over_no_other() {
        let place = std::env::temp_dir().join(format!("ccvpn-profile-{}", std::process::id()));
        let home = Home::of(Some(&place));
        let key = draw_key(Algorithm::P256).unwrap();
        let kept = || Kept { certificate: None, authority: None, chain: Vec::new() };
        let ticket = TicketNumber::new(1).unwrap();
        let keep = |cluster: &str, serial: &str| {
            profile(cluster, serial).keep(&home, &key, &kept(), ticket).unwrap().to_string()
        };
        assert_eq!(keep("hq-vpn", "01"), "hq-vpn");
        assert_eq!(keep("hq-vpn", "01"), "hq-vpn", "the same certificate again");
        assert_eq!(keep("hq-vpn", "02"), "hq-vpn-00001");
        // A short reply names its gateway in the place of the cluster, and a gateway's name may have slashes.
        assert_eq!(keep("../../elsewhere", "03"), "-..-elsewhere");
        assert_eq!(keep("..", "04"), "profile");
        home.write("profiles/hq-vpn/profile.json", b"damaged").unwrap();
        assert_eq!(keep("hq-vpn", "01"), "hq-vpn-00001");
        assert_eq!(home.read("profiles/hq-vpn/profile.json").unwrap().as_slice(), b"damaged");
        assert_eq!(home.names("profiles").unwrap(), ["-..-elsewhere", "hq-vpn", "hq-vpn-00001", "profile"]);
        std::fs::remove_dir_all(place).unwrap();
    }
}
