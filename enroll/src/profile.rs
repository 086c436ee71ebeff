//! What a client needs to connect, from one model to the form that its system takes.

mod apple;
mod scripts;
mod settings;
mod strongswan;

use sha2::{Digest, Sha256};
use wire::Secret;

pub use settings::{ProfileBlock, Settings, SettingsError};

use crate::name::{ClientName, ClusterName, GatewayName};
use crate::pem::pem_block;
use crate::pkcs12::{BundleCipher, BundleError, pkcs12};

/// The form of a profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProfileFormat {
    /// strongSwan's `swanctl.conf` and the files that it names.
    Swanctl,
    /// A PowerShell script for Windows.
    PowerShell,
    /// Apple's configuration profile, not signed yet.
    MobileConfig,
    /// A profile of the strongSwan app for Android.
    Sswan,
    /// A shell script for NetworkManager with its strongSwan plug-in.
    NetworkManager,
    /// PEM files for everything else.
    Pem,
}

/// One file of a profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProfileFile {
    /// The path, relative to where the profile goes.
    pub path: String,
    /// The content.
    pub content: Vec<u8>,
    /// Whether a private key is in it, so that nobody else may read it.
    pub secret: bool,
}

/// Where and how a client connects.
#[derive(Clone, Debug)]
pub struct Connection<'a> {
    /// The cluster, which names the connection.
    pub cluster: &'a ClusterName,
    /// The gateway's address and identity.
    pub gateway: &'a GatewayName,
    /// The client.
    pub client: &'a ClientName,
    /// Networks and name servers.
    pub settings: &'a Settings,
    /// The CA's certificate in DER.
    pub authority: &'a [u8],
}

/// What the client proves itself with.
#[derive(Clone, Copy, Debug)]
pub struct Identity<'a> {
    /// The certificate in DER.
    pub certificate: &'a [u8],
    /// Certificates between it and the CA.
    pub chain: &'a [Vec<u8>],
    /// The private key in PKCS#8 and the passphrase of a PKCS#12 file, if the key is at hand.
    pub key: Option<(&'a Secret, BundleCipher, &'a Secret)>,
}

/// Why a profile could not be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProfileError {
    /// The form carries the private key, which is not at hand.
    #[error("this form carries the private key: give its file with --key, or export where the key is")]
    NeedsKey,
    /// No PKCS#12 file could be written.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The library failed.
    #[error("the property list could not be written")]
    Library,
}

impl Connection<'_> {
    /// Writes a profile.
    ///
    /// # Errors
    /// The form needs a private key, or a library failed.
    pub fn files(&self, format: ProfileFormat, identity: &Identity<'_>) -> Result<Vec<ProfileFile>, ProfileError> {
        match format {
            ProfileFormat::Swanctl => Ok(strongswan::swanctl(self, identity)),
            ProfileFormat::PowerShell => scripts::power_shell(self, identity),
            ProfileFormat::MobileConfig => apple::mobile_config(self, identity),
            ProfileFormat::Sswan => strongswan::sswan(self, identity),
            ProfileFormat::NetworkManager => Ok(scripts::network_manager(self, identity)),
            ProfileFormat::Pem => Ok(self.pem_files(identity, "", "", "")),
        }
    }

    /// The name that the certificate shows as its subject alternative name, which is the IKE identity.
    fn identity(&self) -> String {
        if self.client.as_str().contains('@') {
            return self.client.to_string();
        }
        format!("{}.{}.invalid", self.client, self.cluster)
    }

    /// Certificate, CA and key, each in its directory.
    fn pem_files(&self, identity: &Identity<'_>, own: &str, ca: &str, private: &str) -> Vec<ProfileFile> {
        let chain = identity.chain.iter().map(Vec::as_slice);
        let certificates = std::iter::once(identity.certificate).chain(chain);
        let certificates: String = certificates.map(|der| pem_block("CERTIFICATE", der)).collect();
        let mut files = vec![
            file(format!("{own}{}.pem", self.client), certificates),
            file(format!("{ca}{}-ca.pem", self.cluster), pem_block("CERTIFICATE", self.authority)),
        ];
        if let Some((key, _, _)) = identity.key {
            let content = pem_block("PRIVATE KEY", key.expose()).into_bytes();
            files.push(ProfileFile { path: format!("{private}{}-key.pem", self.client), content, secret: true });
        }
        files
    }

    /// The PKCS#12 file.
    fn bundle(&self, identity: &Identity<'_>) -> Result<Vec<u8>, ProfileError> {
        let (key, cipher, passphrase) = identity.key.ok_or(ProfileError::NeedsKey)?;
        let chain = identity.chain.iter().map(Vec::as_slice);
        let certificates: Vec<&[u8]> =
            std::iter::once(identity.certificate).chain(chain).chain([self.authority]).collect();
        Ok(pkcs12(cipher, passphrase, self.client.as_str(), key, &certificates)?)
    }

    /// A UUID (RFC 9562 §5.8) that stays the same for the same certificate and purpose.
    fn uuid(&self, identity: &Identity<'_>, purpose: &str) -> String {
        let mut hash = Sha256::new();
        hash.update(purpose);
        hash.update(identity.certificate);
        let mut hex: String = hash.finalize().iter().take(16).map(|octet| format!("{octet:02x}")).collect();
        hex.replace_range(12..13, "8");
        hex.replace_range(16..17, "a");
        let part = |range: std::ops::Range<usize>| hex.get(range).unwrap_or_default();
        [part(0..8), part(8..12), part(12..16), part(16..20), part(20..32)].join("-")
    }
}

fn file(path: String, content: String) -> ProfileFile {
    ProfileFile { path, content: content.into_bytes(), secret: false }
}

/// What a client offers for IKE, in strongSwan's words: the policy of RFC 8247, strongest first. A gateway takes each of
/// them by default. The second is what Windows and Apple's systems are told, which take one and do not all know X25519.
pub const IKE_PROPOSALS: &str = "aes256gcm16-prfsha384-x25519,aes256gcm16-prfsha384-ecp256,aes128gcm16-prfsha256-x25519,aes128gcm16-prfsha256-ecp256";
/// What a client offers for ESP, in strongSwan's words (RFC 8221).
pub const ESP_PROPOSALS: &str = "aes256gcm16,aes128gcm16";

#[cfg(test)]
mod tests;
