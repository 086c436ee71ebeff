//! `ccvpn request`: plain PKI without a code, and renewal while there is no tunnel to renew over.

use std::path::PathBuf;

use enroll::{
    Algorithm, CertificateFacts, PrivateKey, ShortTerms, SigningRequest, UnixTime, Words, check_successor, large_words,
    pem_block, pem_blocks, signed_by,
};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::cli::Place;
use crate::enroll::draw_key;
use crate::fault::Fault;
use crate::home::Home;
use crate::profile::{Kept, Profile, ProfileName, hex, today};
use crate::terminal::{Verdict, attended, compare, read_text};
use command::say;

/// Ask for a certificate of plain PKI, without a code; or give the certificate that came.
#[derive(Debug, clap::Args)]
pub(crate) struct Request {
    /// Make a key and print a PKCS#10 request for it.
    #[arg(long, required_unless_present = "certificate")]
    pkcs10: bool,
    /// The certificate that came, PEM, with its CA behind it; - for the standard input.
    #[arg(long, value_name = "FILE", conflicts_with = "pkcs10")]
    certificate: Option<PathBuf>,
    /// The profile that is made; with --renew, the one that is renewed.
    #[arg(long, value_name = "NAME", default_value = "plain")]
    profile: ProfileName,
    /// Renew this profile: the certificate must come from the CA that it trusts already.
    #[arg(long)]
    renew: bool,
    /// The gateway to connect to, if the profile is new.
    #[arg(long, value_name = "NAME", default_value = "")]
    gateway: String,
    /// Do not ask whether the words agree: they were compared.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    place: Place,
}

#[derive(Serialize)]
struct Asked<'a> {
    outcome: &'static str,
    profile: &'a str,
    request: String,
    key_words: String,
}

#[derive(Serialize)]
struct Taken<'a> {
    outcome: &'static str,
    profile: &'a str,
    serial: String,
    expires: String,
    authority_words: String,
}

impl Request {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let home = self.place.home();
        match &self.certificate {
            Some(file) => self.take(&home, &read_text(file)?),
            None => self.ask(&home),
        }
    }

    /// Makes a key, or takes the one that waits already, and prints its request.
    fn ask(&self, home: &Home) -> anyhow::Result<()> {
        if self.renew {
            Profile::load(home, &self.profile)?;
        }
        let path = self.key_path();
        let key = if home.path(&path).exists() {
            self.waiting_key(home)?
        } else {
            let key = draw_key(Algorithm::P256)?;
            home.write(&path, key.to_pkcs8().map_err(|_| Fault::Library)?.expose())?;
            key
        };
        let request = SigningRequest::compose(&key).map_err(|_| Fault::Library)?;
        let words = Words::of_key(&key.public().spki_hash());
        let asked = Asked {
            outcome: "request",
            profile: self.profile.as_str(),
            request: pem_block("CERTIFICATE REQUEST", &request),
            key_words: words.to_string(),
        };
        self.place.show(&asked, |asked| {
            say!("Send this to the administrator:\n\n{}", asked.request);
            say!("These are the words of your key; the administrator sees the same:\n\n{}", large_words(&words));
            let renew = if self.renew { " --renew" } else { "" };
            say!("When the certificate comes: ccvpn request --certificate FILE --profile {}{renew}", asked.profile);
        })
    }

    fn take(&self, home: &Home, text: &str) -> anyhow::Result<()> {
        let path = self.key_path();
        if !home.path(&path).exists() {
            return Err(Fault::NothingPending.into());
        }
        let key = self.waiting_key(home)?;
        let mut blocks = pem_blocks(text).into_iter();
        let (Some(certificate), Some(authority)) = (blocks.next(), blocks.next()) else {
            return Err(Fault::NoAuthority.into());
        };
        let facts = CertificateFacts::decode(&certificate).map_err(Fault::Unusable)?;
        let ca = CertificateFacts::decode(&authority).map_err(Fault::Unusable)?;
        if facts.spki != key.public().spki() {
            return Err(Fault::OtherKey.into());
        }
        signed_by(&certificate, &authority).map_err(|_| Fault::NoAuthority)?;
        let now = today()?;
        if facts.starts.day() > now.day() {
            return Err(Fault::ClockBehind { starts: facts.starts.date(), now: now.date() }.into());
        }
        if facts.expires.day() <= now.day() {
            return Err(Fault::Expired { ended: facts.expires.date(), now: now.date() }.into());
        }
        let spki: [u8; 32] = Sha256::digest(&ca.spki).into();
        let words = Words::of_key(&spki);
        let old = if self.renew { Some(Profile::load(home, &self.profile)?) } else { None };
        match &old {
            Some(old) if old.authority == hex(&ShortTerms::ca_hash(&spki)) => {}
            Some(_) if !self.rolled_over(home, &authority, blocks.as_slice(), now)? => {
                return Err(Fault::OtherAuthority.into());
            }
            Some(_) => {}
            None => self.compare(&words)?,
        }
        let profile = Profile {
            cluster: ca.common_name.strip_suffix(" CA").unwrap_or(&ca.common_name).to_owned(),
            gateway: old.as_ref().map_or_else(|| self.gateway.clone(), |old| old.gateway.clone()),
            client: facts.common_name,
            // As the administrator's commands take it: with leading zeros.
            serial: format!("{:0>16}", hex(&facts.serial)),
            expires: facts.expires.date(),
            authority: hex(&ShortTerms::ca_hash(&spki)),
            routes: old.as_ref().map_or_else(Vec::new, |old| old.routes.clone()),
            dns: old.map_or_else(Vec::new, |old| old.dns),
            fetched: true,
        };
        let kept = Kept { certificate: Some(certificate), authority: Some(authority), chain: blocks.collect() };
        profile.write(home, &self.profile, &key, &kept)?;
        home.erase_all(&format!("requests/{}", self.profile))?;
        let taken = Taken {
            outcome: "enrolled",
            profile: self.profile.as_str(),
            serial: profile.serial.clone(),
            expires: profile.expires.clone(),
            authority_words: words.to_string(),
        };
        self.place.show(&taken, |taken| {
            say!("Done. Profile {} has certificate {}, good until {}.", taken.profile, taken.serial, taken.expires);
        })
    }

    /// Whether the CA that this profile trusts certified the new CA's key.
    fn rolled_over(&self, home: &Home, new: &[u8], chain: &[Vec<u8>], now: UnixTime) -> Result<bool, Fault> {
        let Some(old) = Profile::authority_certificate(home, &self.profile)? else {
            return Ok(false);
        };
        Ok(chain.iter().any(|bridge| check_successor(new, bridge, &old, now).is_ok()))
    }

    fn compare(&self, words: &Words) -> Result<(), Fault> {
        if self.yes {
            return Ok(());
        }
        say!("These are the words of the CA; let the administrator read out the same:\n\n{}", large_words(words));
        if !attended() {
            return Err(Fault::NeedsYes);
        }
        match compare()? {
            Verdict::Agree => Ok(()),
            Verdict::Differ => Err(Fault::WordsDiffer),
        }
    }

    fn waiting_key(&self, home: &Home) -> Result<PrivateKey, Fault> {
        let path = self.key_path();
        let pkcs8: Zeroizing<Vec<u8>> = home.read(&path)?;
        PrivateKey::from_pkcs8(&pkcs8).map_err(|_| Fault::Record(home.path(&path)))
    }

    fn key_path(&self) -> String {
        format!("requests/{}/key", self.profile)
    }
}
