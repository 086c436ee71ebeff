//! Ciphers for ESP packets: keyed once per SA, then used without allocation for each packet.

use aes::cipher::{BlockCipherDecrypt, BlockCipherEncrypt, BlockModeDecrypt, BlockModeEncrypt, InnerIvInit};
use aes::{Aes128, Aes192, Aes256, Block};
use aws_lc_rs::aead::{AES_128_GCM, AES_192_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Sha256, Sha384, Sha512};
use subtle::ConstantTimeEq;
use wire::Secret;

use crate::{Encryption, Integrity};

/// The keyed transforms of one direction of an ESP SA.
///
/// One key may be used by many threads at once. What is authenticated is the ESP header (SPI and sequence number), the
/// IV and the ciphertext, as RFC 4106 §5 and RFC 4303 §3.3.2.2 say.
pub struct PacketKey {
    transform: Transform,
    iv_len: usize,
    icv_len: usize,
    block_len: usize,
}

/// The key material does not fit the algorithms: a wrong length, an AEAD with an integrity algorithm or a cipher without.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("key material does not fit the algorithms")]
pub struct KeyError;

/// The packet was not processed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PacketError {
    /// The ICV is wrong: these bytes are not from the peer. The buffer may be overwritten.
    #[error("the integrity check value is wrong")]
    Integrity,
    /// A part has a length that the algorithm cannot have.
    #[error("a part of the packet has an impossible length")]
    Length,
}

impl PacketKey {
    /// Keys the transforms. `key` ends with the salt if the algorithm is an AEAD (RFC 4106 §8.1).
    ///
    /// # Errors
    /// The key material does not fit the algorithms.
    pub fn new(
        encryption: Encryption,
        integrity: Option<Integrity>,
        key: &Secret,
        integrity_key: &Secret,
    ) -> Result<Self, KeyError> {
        if key.len() != encryption.key_material_len() || integrity_key.len() != integrity.map_or(0, Integrity::key_len)
        {
            return Err(KeyError);
        }
        let (transform, icv_len) = match (encryption, integrity) {
            (Encryption::AesGcm16(_), None) => (Transform::Gcm(Gcm::new(key)?), Encryption::AEAD_ICV_LEN),
            (Encryption::AesCbc(_), Some(integrity)) => {
                let cbc = Cbc { cipher: Aes::new(key)?, mac: HmacKey::new(integrity, integrity_key)? };
                (Transform::Cbc(Box::new(cbc)), integrity.icv_len())
            }
            (Encryption::AesGcm16(_), Some(_)) | (Encryption::AesCbc(_), None) => return Err(KeyError),
        };
        Ok(Self { transform, iv_len: encryption.iv_len(), icv_len, block_len: encryption.block_len() })
    }

    /// Octets of the IV in each packet.
    #[must_use]
    pub const fn iv_len(&self) -> usize {
        self.iv_len
    }

    /// Octets of the integrity check value at the end of each packet.
    #[must_use]
    pub const fn icv_len(&self) -> usize {
        self.icv_len
    }

    /// The plaintext's length is a multiple of this.
    #[must_use]
    pub const fn block_len(&self) -> usize {
        self.block_len
    }

    /// Encrypts `plaintext` into `ciphertext`, which is as long, and writes the ICV.
    ///
    /// # Errors
    /// [`PacketError::Length`]: a part is too long or too short; nothing usable was written.
    pub fn seal(
        &self,
        header: [u8; 8],
        iv: &[u8],
        plaintext: &[u8],
        ciphertext: &mut [u8],
        icv: &mut [u8],
    ) -> Result<(), PacketError> {
        if icv.len() != self.icv_len || ciphertext.len() != plaintext.len() {
            return Err(PacketError::Length);
        }
        match &self.transform {
            Transform::Gcm(gcm) => gcm
                .key
                .seal_out_of_place_scatter(gcm.nonce(iv)?, Aad::from(header), plaintext, ciphertext, &[], icv)
                .map_err(|_| PacketError::Length),
            Transform::Cbc(cbc) => {
                ciphertext.copy_from_slice(plaintext);
                cbc.cipher.encrypt(iv, ciphertext)?;
                cbc.mac.tag(header, iv, ciphertext, |tag| {
                    tag.get(..icv.len()).map(|tag| icv.copy_from_slice(tag)).ok_or(PacketError::Length)
                })
            }
        }
    }

    /// Checks the ICV and decrypts `data` in place.
    ///
    /// # Errors
    /// [`PacketError::Integrity`]: the packet is forged or damaged. [`PacketError::Length`]: it cannot be of this algorithm.
    pub fn open(&self, header: [u8; 8], iv: &[u8], data: &mut [u8], icv: &[u8]) -> Result<(), PacketError> {
        if icv.len() != self.icv_len {
            return Err(PacketError::Length);
        }
        match &self.transform {
            Transform::Gcm(gcm) => gcm
                .key
                .open_in_place_separate_tag(gcm.nonce(iv)?, Aad::from(header), icv, data)
                .map(|_| ())
                .map_err(|_| PacketError::Integrity),
            Transform::Cbc(cbc) => {
                cbc.mac.tag(header, iv, data, |tag| {
                    let right = tag.get(..icv.len()).is_some_and(|tag| tag.ct_eq(icv).into());
                    if right { Ok(()) } else { Err(PacketError::Integrity) }
                })?;
                cbc.cipher.decrypt(iv, data)
            }
        }
    }
}

/// Draws IVs for CBC, which must be unpredictable (RFC 3602 §3): a counter under a secret key of its own.
pub struct CbcIvSource {
    cipher: Aes256,
    counter: u128,
}

impl CbcIvSource {
    /// Starts from 32 random octets, which nobody else may use.
    #[must_use]
    pub fn new(seed: [u8; 32]) -> Self {
        Self { cipher: Aes256::new(&seed.into()), counter: 0 }
    }

    /// The next IV.
    pub fn draw(&mut self) -> [u8; 16] {
        let mut block = Block::from(self.counter.to_be_bytes());
        self.counter = self.counter.wrapping_add(1);
        self.cipher.encrypt_block(&mut block);
        block.into()
    }
}

enum Transform {
    Gcm(Gcm),
    Cbc(Box<Cbc>),
}

struct Gcm {
    key: LessSafeKey,
    salt: [u8; 4],
}

impl Gcm {
    fn new(material: &Secret) -> Result<Self, KeyError> {
        let (key, salt) = material.expose().split_last_chunk().ok_or(KeyError)?;
        let algorithm = match key.len() {
            16 => &AES_128_GCM,
            24 => &AES_192_GCM,
            32 => &AES_256_GCM,
            _ => return Err(KeyError),
        };
        let key = UnboundKey::new(algorithm, key).map_err(|_| KeyError)?;
        Ok(Self { key: LessSafeKey::new(key), salt: *salt })
    }

    /// RFC 4106 §4: the salt, then the packet's IV.
    fn nonce(&self, iv: &[u8]) -> Result<Nonce, PacketError> {
        let iv: [u8; 8] = iv.try_into().map_err(|_| PacketError::Length)?;
        let [s0, s1, s2, s3] = self.salt;
        let [i0, i1, i2, i3, i4, i5, i6, i7] = iv;
        Ok(Nonce::assume_unique_for_key([s0, s1, s2, s3, i0, i1, i2, i3, i4, i5, i6, i7]))
    }
}

struct Cbc {
    cipher: Aes,
    mac: HmacKey,
}

enum Aes {
    Aes128(Aes128),
    Aes192(Aes192),
    Aes256(Aes256),
}

impl Aes {
    fn new(key: &Secret) -> Result<Self, KeyError> {
        let key = key.expose();
        match key.len() {
            16 => Aes128::new_from_slice(key).map(Self::Aes128),
            24 => Aes192::new_from_slice(key).map(Self::Aes192),
            _ => Aes256::new_from_slice(key).map(Self::Aes256),
        }
        .map_err(|_| KeyError)
    }

    fn encrypt(&self, iv: &[u8], data: &mut [u8]) -> Result<(), PacketError> {
        match self {
            Self::Aes128(cipher) => encrypt_cbc(cipher, iv, data),
            Self::Aes192(cipher) => encrypt_cbc(cipher, iv, data),
            Self::Aes256(cipher) => encrypt_cbc(cipher, iv, data),
        }
    }

    fn decrypt(&self, iv: &[u8], data: &mut [u8]) -> Result<(), PacketError> {
        match self {
            Self::Aes128(cipher) => decrypt_cbc(cipher, iv, data),
            Self::Aes192(cipher) => decrypt_cbc(cipher, iv, data),
            Self::Aes256(cipher) => decrypt_cbc(cipher, iv, data),
        }
    }
}

fn encrypt_cbc<C>(cipher: &C, iv: &[u8], data: &mut [u8]) -> Result<(), PacketError>
where
    C: BlockCipherEncrypt<BlockSize = aes::cipher::consts::U16>,
{
    let (blocks, rest) = Block::slice_as_chunks_mut(data);
    let iv = <&Block>::try_from(iv).map_err(|_| PacketError::Length)?;
    if !rest.is_empty() {
        return Err(PacketError::Length);
    }
    cbc::Encryptor::inner_iv_init(cipher, iv).encrypt_blocks(blocks);
    Ok(())
}

fn decrypt_cbc<C>(cipher: &C, iv: &[u8], data: &mut [u8]) -> Result<(), PacketError>
where
    C: BlockCipherDecrypt<BlockSize = aes::cipher::consts::U16>,
{
    let (blocks, rest) = Block::slice_as_chunks_mut(data);
    let iv = <&Block>::try_from(iv).map_err(|_| PacketError::Length)?;
    if !rest.is_empty() {
        return Err(PacketError::Length);
    }
    cbc::Decryptor::inner_iv_init(cipher, iv).decrypt_blocks(blocks);
    Ok(())
}

/// HMAC with its pads already hashed; cloned for each packet.
enum HmacKey {
    Sha256(Hmac<Sha256>),
    Sha384(Hmac<Sha384>),
    Sha512(Hmac<Sha512>),
}

impl HmacKey {
    fn new(integrity: Integrity, key: &Secret) -> Result<Self, KeyError> {
        let key = key.expose();
        match integrity {
            Integrity::HmacSha2_256_128 => Hmac::new_from_slice(key).map(Self::Sha256),
            Integrity::HmacSha2_384_192 => Hmac::new_from_slice(key).map(Self::Sha384),
            Integrity::HmacSha2_512_256 => Hmac::new_from_slice(key).map(Self::Sha512),
        }
        .map_err(|_| KeyError)
    }

    /// Computes the whole tag and lends it to `use_tag`.
    fn tag(
        &self,
        header: [u8; 8],
        iv: &[u8],
        ciphertext: &[u8],
        use_tag: impl FnOnce(&[u8]) -> Result<(), PacketError>,
    ) -> Result<(), PacketError> {
        fn run<M: Mac + Clone>(mac: &M, parts: [&[u8]; 3]) -> impl AsRef<[u8]> + use<M> {
            let mut mac = mac.clone();
            for part in parts {
                mac.update(part);
            }
            mac.finalize().into_bytes()
        }
        let parts = [&header[..], iv, ciphertext];
        match self {
            Self::Sha256(mac) => use_tag(run(mac, parts).as_ref()),
            Self::Sha384(mac) => use_tag(run(mac, parts).as_ref()),
            Self::Sha512(mac) => use_tag(run(mac, parts).as_ref()),
        }
    }
}

#[cfg(test)]
mod tests;
