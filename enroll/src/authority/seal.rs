//! A CA's key at rest: under a passphrase (Argon2id, RFC 9106) or a key file, then AES-256-GCM.
//!
//! ```text
//! "ccca" | version 1 | opener (0 passphrase, 1 key file) | memory in KiB 4 | passes 4 | salt 16 | nonce 12 | sealed
//! ```

use argon2::{Algorithm, Argon2, Params, Version};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use hkdf::Hkdf;
use rand::CryptoRng;
use sha2::Sha256;
use wire::{Reader, Secret, Writer};
use zeroize::Zeroizing;

/// What opens a sealed key.
#[derive(Clone, Copy, Debug)]
pub enum Opener<'a> {
    /// A passphrase that somebody types.
    Passphrase(&'a Secret),
    /// The content of a key file, at least 32 random octets.
    KeyFile(&'a Secret),
}

/// What guessing a passphrase costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SealCost {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes over it.
    pub passes: u32,
}

impl SealCost {
    /// The second recommendation of RFC 9106 §4, on one lane: 64 MiB, three passes.
    pub const RECOMMENDED: Self = Self { memory_kib: 64 * 1024, passes: 3 };
}

/// Why a key could not be sealed or opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The octets are no sealed key.
    #[error("this is no sealed CA key")]
    Malformed,
    /// A key file was given.
    #[error("this key is sealed under a passphrase")]
    NeedsPassphrase,
    /// A passphrase was given.
    #[error("this key is sealed under a key file")]
    NeedsKeyFile,
    /// A passphrase is empty, or a key file shorter than 32 octets.
    #[error("the passphrase is empty, or the key file has fewer than 32 octets")]
    Weak,
    /// The cost is out of range.
    #[error("the sealing cost is out of range")]
    Cost,
    /// Passphrase or key file are wrong, or the octets were changed.
    #[error("wrong passphrase or key file, or the sealed key was changed")]
    Wrong,
}

/// Seals a key's PKCS#8.
///
/// # Errors
/// The opener is too weak, or the cost is out of range.
pub fn seal_key(
    pkcs8: &Secret,
    opener: Opener<'_>,
    cost: SealCost,
    rng: &mut impl CryptoRng,
) -> Result<Vec<u8>, SealError> {
    let (mut salt, mut nonce) = ([0; SALT_LEN], [0; NONCE_LEN]);
    rng.fill_bytes(&mut salt);
    rng.fill_bytes(&mut nonce);
    let mut header = Writer::new();
    header.bytes(MAGIC);
    header.u8(VERSION);
    header.u8(opener.number());
    header.u32(cost.memory_kib);
    header.u32(cost.passes);
    header.bytes(&salt);
    header.bytes(&nonce);
    let mut sealed = header.into_bytes();
    let key = derive(opener, cost, &salt)?;
    let mut text = Zeroizing::new(pkcs8.expose().to_vec());
    let tag = key
        .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(&sealed), text.as_mut_slice())
        .map_err(|_| SealError::Malformed)?;
    sealed.extend_from_slice(&text);
    sealed.extend_from_slice(tag.as_ref());
    Ok(sealed)
}

/// Opens a sealed key.
///
/// # Errors
/// The octets are malformed, or the opener does not open them.
pub fn open_key(sealed: &[u8], opener: Opener<'_>) -> Result<Secret, SealError> {
    let (header, text) = sealed.split_at_checked(HEADER_LEN).ok_or(SealError::Malformed)?;
    let mut r = Reader::new(header);
    let magic = r.array::<4>("magic").map_err(|_| SealError::Malformed)?;
    let version = r.u8("version").map_err(|_| SealError::Malformed)?;
    if magic != *MAGIC || version != VERSION {
        return Err(SealError::Malformed);
    }
    let kind = r.u8("opener").map_err(|_| SealError::Malformed)?;
    match (kind, opener) {
        (PASSPHRASE, Opener::Passphrase(_)) | (KEY_FILE, Opener::KeyFile(_)) => {}
        (PASSPHRASE, Opener::KeyFile(_)) => return Err(SealError::NeedsPassphrase),
        (KEY_FILE, Opener::Passphrase(_)) => return Err(SealError::NeedsKeyFile),
        (_, _) => return Err(SealError::Malformed),
    }
    let memory_kib = r.u32("memory").map_err(|_| SealError::Malformed)?;
    let passes = r.u32("passes").map_err(|_| SealError::Malformed)?;
    let salt = r.array::<SALT_LEN>("salt").map_err(|_| SealError::Malformed)?;
    let nonce = r.array::<NONCE_LEN>("nonce").map_err(|_| SealError::Malformed)?;
    let key = derive(opener, SealCost { memory_kib, passes }, &salt)?;
    let mut text = Zeroizing::new(text.to_vec());
    let plain = key
        .open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(header), text.as_mut_slice())
        .map_err(|_| SealError::Wrong)?;
    Ok(Secret::from_slice(plain))
}

impl Opener<'_> {
    const fn number(self) -> u8 {
        match self {
            Self::Passphrase(_) => PASSPHRASE,
            Self::KeyFile(_) => KEY_FILE,
        }
    }
}

fn derive(opener: Opener<'_>, cost: SealCost, salt: &[u8; SALT_LEN]) -> Result<LessSafeKey, SealError> {
    let mut key = Zeroizing::new([0; 32]);
    match opener {
        Opener::Passphrase(passphrase) => {
            if passphrase.is_empty() {
                return Err(SealError::Weak);
            }
            // A changed header must not make us spend without bound.
            if cost.memory_kib > MEMORY_KIB_MAX || cost.passes > PASSES_MAX {
                return Err(SealError::Cost);
            }
            let params = Params::new(cost.memory_kib, cost.passes, 1, Some(32)).map_err(|_| SealError::Cost)?;
            Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
                .hash_password_into(passphrase.expose(), salt, key.as_mut())
                .map_err(|_| SealError::Cost)?;
        }
        Opener::KeyFile(file) => {
            if file.len() < KEY_FILE_MIN {
                return Err(SealError::Weak);
            }
            Hkdf::<Sha256>::new(Some(salt), file.expose()).expand(INFO, key.as_mut()).map_err(|_| SealError::Cost)?;
        }
    }
    UnboundKey::new(&AES_256_GCM, key.as_ref()).map(LessSafeKey::new).map_err(|_| SealError::Malformed)
}

const MAGIC: &[u8; 4] = b"ccca";
const VERSION: u8 = 1;
const PASSPHRASE: u8 = 0;
const KEY_FILE: u8 = 1;
const SALT_LEN: usize = 16;
/// Octets before the sealed text.
const HEADER_LEN: usize = 4 + 1 + 1 + 4 + 4 + SALT_LEN + NONCE_LEN;
/// Fewer octets are no key.
const KEY_FILE_MIN: usize = 32;
/// 1 GiB.
const MEMORY_KIB_MAX: u32 = 1 << 20;
const PASSES_MAX: u32 = 16;
const INFO: &[u8] = b"cryptocluster-ca-key/1";

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    const CHEAP: SealCost = SealCost { memory_kib: 8, passes: 1 };

    #[test]
    fn a_sealed_key_opens_with_its_opener_only() {
        let mut rng = StdRng::seed_from_u64(1);
        let key = Secret::from_slice(b"pkcs8");
        let (right, wrong) = (Secret::from_slice(&[1; 32]), Secret::from_slice(&[2; 32]));
        for opener in [Opener::Passphrase as fn(_) -> _, Opener::KeyFile as fn(_) -> _] {
            let sealed = seal_key(&key, opener(&right), CHEAP, &mut rng).unwrap();
            assert_eq!(open_key(&sealed, opener(&right)), Ok(key.clone()));
            assert_eq!(open_key(&sealed, opener(&wrong)), Err(SealError::Wrong));
            assert!(!sealed.windows(5).any(|window| window == b"pkcs8"));
        }
        let sealed = seal_key(&key, Opener::KeyFile(&right), CHEAP, &mut rng).unwrap();
        assert_eq!(open_key(&sealed, Opener::Passphrase(&right)), Err(SealError::NeedsKeyFile));
    }

    #[test]
    fn every_changed_octet_and_every_cut_is_refused() {
        let mut rng = StdRng::seed_from_u64(2);
        let passphrase = Secret::from_slice(b"correct horse");
        let opener = Opener::Passphrase(&passphrase);
        let sealed = seal_key(&Secret::from_slice(b"pkcs8"), opener, CHEAP, &mut rng).unwrap();
        for place in 0..sealed.len() {
            assert!(open_key(&sealed[..place], opener).is_err(), "cut at {place}");
            let mut changed = sealed.clone();
            // The lowest bit: a higher one in the cost would only make the test slow.
            changed[place] ^= 1;
            assert!(open_key(&changed, opener).is_err(), "octet {place}");
        }
    }

    #[test]
    fn weak_openers_and_costs_out_of_range_are_refused() {
        let mut rng = StdRng::seed_from_u64(3);
        let key = Secret::from_slice(b"pkcs8");
        let (empty, short) = (Secret::from_slice(b""), Secret::from_slice(&[1; 31]));
        assert_eq!(seal_key(&key, Opener::Passphrase(&empty), CHEAP, &mut rng), Err(SealError::Weak));
        assert_eq!(seal_key(&key, Opener::KeyFile(&short), CHEAP, &mut rng), Err(SealError::Weak));
        for cost in [SealCost { memory_kib: 1 << 21, passes: 1 }, SealCost { memory_kib: 8, passes: 17 }] {
            assert_eq!(seal_key(&key, Opener::Passphrase(&short), cost, &mut rng), Err(SealError::Cost));
        }
    }
}
