//! The parts of `cluster.toml` that IKE is told.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use auth::Identity;
use auth::x509::{self, Certificate, TrustAnchors};
use crypto::SigningKey;
use ike::{Connection, Lifetimes, LocalAuth, RemoteAuth, RemoteIdentity, RemoteSelectors, Retransmission, UniqueIds};
use serde::Deserialize;
use toml::Spanned;
use wire::{Secret, TrafficSelector};

use super::{RawCluster, Reader};
use crate::config::document::{ConfigError, Document};
use crate::config::values;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawIke {
    cookie_threshold: Option<usize>,
    half_open_max: Option<usize>,
    half_open_time: Option<Spanned<String>>,
    sas_max: Option<usize>,
    fragment_len_max: Option<usize>,
    retransmit_first: Option<Spanned<String>>,
    retransmit_interval_max: Option<Spanned<String>>,
    retransmit_attempts: Option<u8>,
}

impl RawIke {
    pub(super) fn into_config(
        self,
        document: &Document,
        connections: Vec<Connection>,
        trust: TrustAnchors,
        cookie_secret: Secret,
    ) -> Result<ike::Config, ConfigError> {
        let time = |text: &Option<Spanned<String>>, default| span(document, text.as_ref(), default);
        Ok(ike::Config {
            connections,
            trust_anchors: trust,
            cookie_secret,
            cookie_threshold: self.cookie_threshold.unwrap_or(500),
            half_open_max: self.half_open_max.unwrap_or(20_000),
            half_open_time: time(&self.half_open_time, Duration::from_secs(30))?,
            sas_max: self.sas_max.unwrap_or(200_000),
            retransmission: Retransmission {
                first: time(&self.retransmit_first, Duration::from_millis(500))?,
                interval_max: time(&self.retransmit_interval_max, Duration::from_secs(16))?,
                attempts: self.retransmit_attempts.unwrap_or(8),
            },
            fragment_len_max: self.fragment_len_max.unwrap_or(1280),
            // Plain protocol 50 is not served yet, so every peer is made to use UDP encapsulation.
            force_encapsulation: true,
        })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawConnection {
    name: Spanned<String>,
    local: RawLocal,
    remote: RawRemote,
    ike: Option<Vec<Spanned<String>>>,
    esp: Option<Vec<Spanned<String>>>,
    local_networks: Spanned<Vec<Spanned<String>>>,
    remote_networks: Option<Spanned<Vec<Spanned<String>>>>,
    pool: Option<Spanned<String>>,
    #[serde(default)]
    dns: Vec<Spanned<String>>,
    #[serde(default)]
    request_address: bool,
    ike_rekey: Option<Spanned<String>>,
    ike_max: Option<Spanned<String>>,
    child_rekey: Option<Spanned<String>>,
    child_max: Option<Spanned<String>>,
    jitter: Option<Spanned<String>>,
    liveness: Option<Spanned<String>>,
    #[serde(default)]
    unique: RawUnique,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLocal {
    id: Spanned<String>,
    psk_file: Option<Spanned<String>>,
    certificate: Option<Spanned<String>>,
    key: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRemote {
    id: Spanned<String>,
    auth: Spanned<RawAuth>,
    psk_file: Option<Spanned<String>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RawAuth {
    Psk,
    Certificate,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RawUnique {
    #[default]
    Replace,
    Keep,
}

impl Reader {
    pub(super) fn connection(
        &mut self,
        raw: &RawConnection,
        cluster: &RawCluster,
        keys: &mut BTreeMap<String, SigningKey>,
        certificates: &mut Vec<(PathBuf, Certificate)>,
    ) -> Result<Connection, ConfigError> {
        let name = self.document.value(&raw.name, values::NAME, values::name)?;
        if cluster.connections.iter().filter(|other| other.name.get_ref() == &name).count() > 1 {
            let problem = format!("a second connection is named \"{name}\"");
            return Err(self.document.refuse(raw.name.span(), problem, "give each connection a name of its own"));
        }
        let local_identity = self.document.value(&raw.local.id, IDENTITY, |text| text.parse().ok())?;
        let local_auth = self.local_auth(raw, &local_identity, keys, certificates)?;
        let remote_auth = self.remote_auth(raw, cluster)?;
        let document = &self.document;
        let time = |text: &Option<Spanned<String>>, default| span(document, text.as_ref(), default);
        let lifetimes = Lifetimes {
            ike_rekey: time(&raw.ike_rekey, hours(4))?,
            ike_max: time(&raw.ike_max, hours(5))?,
            child_rekey: time(&raw.child_rekey, hours(1))?,
            child_max: time(&raw.child_max, Duration::from_secs(75 * 60))?,
            jitter: time(&raw.jitter, Duration::from_secs(6 * 60))?,
        };
        self.check_lifetimes(raw, &lifetimes)?;
        Ok(Connection {
            name,
            local_identity,
            remote_identity: document.value(&raw.remote.id, REMOTE_IDENTITY, remote_identity)?,
            local_auth,
            remote_auth,
            ike_proposals: proposals(
                document,
                raw.ike.as_deref(),
                IKE_DEFAULT,
                values::IKE_PROPOSAL,
                values::ike_proposal,
            )?,
            esp_proposals: proposals(
                document,
                raw.esp.as_deref(),
                ESP_DEFAULT,
                values::ESP_PROPOSAL,
                values::esp_proposal,
            )?,
            local_selectors: self.networks(&raw.local_networks)?,
            remote_selectors: self.remote_selectors(raw, cluster)?,
            request_address: raw.request_address,
            dns: raw
                .dns
                .iter()
                .map(|address| document.value(address, values::HOST, values::host))
                .collect::<Result<_, _>>()?,
            lifetimes,
            liveness_interval: time(&raw.liveness, Duration::from_secs(60))?,
            unique_ids: match raw.unique {
                RawUnique::Replace => UniqueIds::OnInitialContact,
                RawUnique::Keep => UniqueIds::Shared,
            },
        })
    }

    fn local_auth(
        &mut self,
        raw: &RawConnection,
        identity: &Identity,
        keys: &mut BTreeMap<String, SigningKey>,
        certificates: &mut Vec<(PathBuf, Certificate)>,
    ) -> Result<LocalAuth, ConfigError> {
        let (certificate, key) = match (&raw.local.psk_file, &raw.local.certificate, &raw.local.key) {
            (Some(file), None, None) => return Ok(LocalAuth::Psk(self.secret(file)?)),
            (None, Some(certificate), Some(key)) => (certificate, key),
            (Some(_), _, _) | (None, _, _) => {
                let advice = "give local either psk_file, or certificate and key";
                return Err(self.document.refuse(raw.local.id.span(), "it is unclear how we prove who we are", advice));
            }
        };
        let (path, pem) = self.file(certificate)?;
        let chain = x509::chain_from_pem(&pem).map_err(|error| {
            self.unfit(certificate, &path, &error, "name our certificate in PEM, then its intermediates")
        })?;
        let own = chain.first().and_then(|der| Certificate::from_der(der).ok()).ok_or_else(|| {
            self.unfit(certificate, &path, &"no certificate can be read", "name our certificate in PEM")
        })?;
        let key_pem = self.secret(key)?;
        let key_path = self.document.beside(key.get_ref());
        let signing = SigningKey::from_pem(key_pem.expose())
            .map_err(|error| self.unfit(key, &key_path, &error, "name the certificate's private key"))?;
        if !signing.matches(own.public_key()) {
            let problem = format!("the key does not belong to {}", path.display());
            return Err(self.document.refuse(key.span(), problem, "name the private key of that certificate"));
        }
        if !own.names(identity) {
            let mut names: Vec<String> = own.alternative_names().iter().map(ToString::to_string).collect();
            names.extend(own.subject().map(|subject| format!("\"{subject}\"")));
            let problem = format!("the certificate does not name \"{identity}\"");
            let advice = format!("use one of its names: {}", names.join(", "));
            return Err(self.document.refuse(raw.local.id.span(), problem, advice));
        }
        let kind = signing.kind();
        certificates.push((path, own));
        keys.insert(key.get_ref().clone(), signing);
        Ok(LocalAuth::Certificate { chain, key: key.get_ref().clone(), kind })
    }

    fn remote_auth(&mut self, raw: &RawConnection, cluster: &RawCluster) -> Result<RemoteAuth, ConfigError> {
        match (raw.remote.auth.get_ref(), &raw.remote.psk_file, &raw.local.psk_file) {
            (RawAuth::Psk, Some(file), _) | (RawAuth::Psk, None, Some(file)) => Ok(RemoteAuth::Psk(self.secret(file)?)),
            (RawAuth::Psk, None, None) => {
                let advice = "name the file of the peer's pre-shared key in remote.psk_file";
                Err(self.document.refuse(raw.remote.auth.span(), "the pre-shared key is missing", advice))
            }
            (RawAuth::Certificate, Some(file), _) => {
                let advice = "take psk_file out, or write auth = \"psk\"";
                Err(self.document.refuse(file.span(), "a peer with a certificate has no pre-shared key", advice))
            }
            (RawAuth::Certificate, None, _) if cluster.trust.is_empty() => {
                let advice = "name the CA that certifies the peers in trust, at the top of the file";
                Err(self.document.refuse(raw.remote.auth.span(), "no CA is trusted", advice))
            }
            (RawAuth::Certificate, None, _) => Ok(RemoteAuth::Certificate),
        }
    }

    fn remote_selectors(&self, raw: &RawConnection, cluster: &RawCluster) -> Result<RemoteSelectors, ConfigError> {
        match (&raw.pool, &raw.remote_networks) {
            (Some(pool), None) => {
                let known: Vec<&str> = cluster.pools.iter().map(|pool| pool.name.get_ref().as_str()).collect();
                if known.contains(&pool.get_ref().as_str()) {
                    return Ok(RemoteSelectors::Pool(pool.get_ref().clone()));
                }
                let problem = format!("there is no pool \"{}\"", pool.get_ref());
                let advice = match known.as_slice() {
                    [] => "declare it under [[pools]]".to_owned(),
                    known => format!("declared are: {}", known.join(", ")),
                };
                Err(self.document.refuse(pool.span(), problem, advice))
            }
            (None, Some(networks)) => self.networks(networks).map(RemoteSelectors::Networks),
            (Some(_), Some(_)) | (None, None) => {
                let advice = "give the connection either a pool or remote_networks";
                Err(self.document.refuse(raw.name.span(), "it is unclear what lies behind the peer", advice))
            }
        }
    }

    fn networks(&self, raw: &Spanned<Vec<Spanned<String>>>) -> Result<Vec<TrafficSelector>, ConfigError> {
        if raw.get_ref().is_empty() {
            return Err(self.document.refuse(raw.span(), "the list is empty", values::PREFIX));
        }
        raw.get_ref()
            .iter()
            .map(|text| self.document.value(text, values::PREFIX, values::prefix).map(TrafficSelector::from_prefix))
            .collect()
    }

    fn check_lifetimes(&self, raw: &RawConnection, lifetimes: &Lifetimes) -> Result<(), ConfigError> {
        let rows = [
            (&raw.ike_rekey, &raw.ike_max, lifetimes.ike_rekey, lifetimes.ike_max),
            (&raw.child_rekey, &raw.child_max, lifetimes.child_rekey, lifetimes.child_max),
        ];
        for (rekey_text, max_text, rekey, max) in rows {
            let span = rekey_text.as_ref().or(max_text.as_ref()).map_or(raw.name.span(), Spanned::span);
            if rekey >= max {
                let advice = "an SA must be rekeyed before it ends: make the rekey time the smaller one";
                return Err(self.document.refuse(span, "the rekey time is not below the end", advice));
            }
            if lifetimes.jitter >= rekey {
                let advice = "make jitter smaller than each rekey time";
                return Err(self.document.refuse(span, "the jitter takes up all of the rekey time", advice));
            }
        }
        Ok(())
    }
}

fn proposals<T>(
    document: &Document,
    raw: Option<&[Spanned<String>]>,
    default: &[&str],
    allowed: &str,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<Vec<T>, ConfigError> {
    match raw {
        None | Some([]) => Ok(default.iter().filter_map(|text| parse(text)).collect()),
        Some(texts) => texts.iter().map(|text| document.value(text, allowed, &parse)).collect(),
    }
}

fn span(document: &Document, text: Option<&Spanned<String>>, default: Duration) -> Result<Duration, ConfigError> {
    text.map_or(Ok(default), |text| document.value(text, values::SPAN, values::span))
}

const fn hours(hours: u64) -> Duration {
    Duration::from_secs(hours * 3600)
}

fn remote_identity(text: &str) -> Option<RemoteIdentity> {
    match text.strip_prefix('*') {
        Some("") => Some(RemoteIdentity::Any),
        Some(suffix) => (suffix.starts_with(['@', '.']) && suffix.len() > 1 && !suffix.contains('*'))
            .then(|| RemoteIdentity::Suffix(suffix.to_owned())),
        None if text == "any" => Some(RemoteIdentity::Any),
        None => text.parse().ok().map(RemoteIdentity::Exact),
    }
}

const IDENTITY: &str = "write a host name, a mail address, an IP address, a distinguished name such as \
    \"C=CH, O=Example, CN=gw\", or keyid:HEX";
const REMOTE_IDENTITY: &str = "write \"any\", an identity (a host name, a mail address, an IP address, a distinguished name such as \
    \"C=CH, O=Example, CN=gw\", or keyid:HEX), or an ending such as \"*@example.org\" or \"*.branch.example.org\"";

/// What is offered if a connection names no suites (RFC 8221, RFC 8247).
const IKE_DEFAULT: &[&str] = &[
    "aes128gcm16-prfsha256-x25519",
    "aes256gcm16-prfsha384-x25519",
    "aes128gcm16-prfsha256-ecp256",
    "aes256gcm16-prfsha384-ecp256",
    "aes128-sha256-x25519",
    "aes256-sha256-ecp256",
    "aes128-sha256-modp2048",
    "aes256-sha256-modp2048",
];
const ESP_DEFAULT: &[&str] = &["aes128gcm16", "aes256gcm16", "aes128-sha256", "aes256-sha256"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_exported_profiles_offer_is_taken_by_default() {
        for (offered, taken) in [(enroll::IKE_PROPOSALS, IKE_DEFAULT), (enroll::ESP_PROPOSALS, ESP_DEFAULT)] {
            for suite in offered.split(',') {
                assert!(taken.contains(&suite), "{suite}");
            }
        }
    }
}
