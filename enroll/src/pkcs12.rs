//! PKCS#12 (RFC 7292): a key with its certificates under a passphrase, for programs that take nothing else.

use p12_keystore::{
    Certificate, EncryptionAlgorithm, KeyStore, KeyStoreEntry, MacAlgorithm, PrivateKey, PrivateKeyChain,
};
use sha1::Sha1;
use sha2::Digest;
use wire::Secret;

/// Which ciphers protect a PKCS#12 file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BundleCipher {
    /// PBES2 with AES-256-CBC and HMAC-SHA-256: OpenSSL 3, Windows 10 1709, macOS 15, Android 14 and newer.
    Modern,
    /// 3DES and HMAC-SHA-1: what older systems read. Weak: the passphrase must carry it.
    Old,
}

impl BundleCipher {
    /// The name that a person chooses it by.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Modern => "aes256-sha256",
            Self::Old => "3des-sha1",
        }
    }
}

/// Why a PKCS#12 file could not be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// The passphrase is empty or no UTF-8.
    #[error("the passphrase is empty or not text")]
    Passphrase,
    /// Key or certificates were not taken by the library.
    #[error("the key or a certificate cannot stand in a PKCS#12 file")]
    Content,
}

/// Writes a key in PKCS#8 with its certificate and chain. The library draws salts and vectors itself.
///
/// # Errors
/// The passphrase is empty, or the library takes key or certificates not.
pub fn pkcs12(
    cipher: BundleCipher,
    passphrase: &Secret,
    name: &str,
    key: &Secret,
    certificates: &[&[u8]],
) -> Result<Vec<u8>, BundleError> {
    let passphrase = std::str::from_utf8(passphrase.expose()).map_err(|_| BundleError::Passphrase)?;
    if passphrase.is_empty() {
        return Err(BundleError::Passphrase);
    }
    let content = |_| BundleError::Content;
    let key = PrivateKey::from_der(key.expose()).map_err(content)?;
    let chain: Vec<Certificate> =
        certificates.iter().map(|der| Certificate::from_der(der)).collect::<Result<_, _>>().map_err(content)?;
    let local = Sha1::digest(certificates.first().ok_or(BundleError::Content)?).to_vec();
    let mut store = KeyStore::new();
    store.add_entry(name, KeyStoreEntry::PrivateKeyChain(PrivateKeyChain::new(local, key, chain)));
    let (encryption, mac) = match cipher {
        BundleCipher::Modern => (EncryptionAlgorithm::PbeWithHmacSha256AndAes256, MacAlgorithm::HmacSha256),
        BundleCipher::Old => (EncryptionAlgorithm::PbeWithShaAnd3KeyTripleDesCbc, MacAlgorithm::HmacSha1),
    };
    store
        .writer(passphrase)
        .encryption_algorithm(encryption)
        .encryption_iterations(ITERATIONS)
        .mac_algorithm(mac)
        .mac_iterations(ITERATIONS)
        .write()
        .map_err(content)
}

/// What guessing the passphrase costs; Windows takes at most 600,000 and phones are slow.
const ITERATIONS: u32 = 100_000;
