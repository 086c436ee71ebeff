//! The cipher of IKE messages: the Encrypted payload (RFC 7296 §3.14, RFC 5282).

use aes::{Aes128, Aes192, Aes256};
use aws_lc_rs::aead::{AES_128_GCM, AES_192_GCM, AES_256_GCM, Aad, Algorithm, LessSafeKey, Nonce, UnboundKey};
use cbc::cipher::block_padding::NoPadding;
use cbc::cipher::{BlockModeDecrypt, BlockModeEncrypt, KeyIvInit};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::{Encryption, Integrity, Prf, PrfKey};

/// The cipher of one direction of an IKE SA, with its keys. IKE is slow: nothing is prepared, so an SA at rest holds
/// only the octets of its keys.
#[derive(Clone, Copy)]
pub struct MessageCipher<'a> {
    encryption: Encryption,
    integrity: Option<Integrity>,
    key: &'a [u8],
    integrity_key: &'a [u8],
}

impl<'a> MessageCipher<'a> {
    /// Takes the keys SK_e (an AEAD's salt behind it) and SK_a; `None` if a length or the combination is wrong.
    #[must_use]
    pub fn new(
        encryption: Encryption,
        integrity: Option<Integrity>,
        key: &'a [u8],
        integrity_key: &'a [u8],
    ) -> Option<Self> {
        let fits = key.len() == encryption.key_material_len()
            && integrity_key.len() == integrity.map_or(0, Integrity::key_len)
            && integrity.is_none() == encryption.is_aead();
        fits.then_some(Self { encryption, integrity, key, integrity_key })
    }

    /// Octets that `plain_len` octets of payloads become: IV, ciphertext with padding and Pad Length, ICV.
    #[must_use]
    pub const fn sealed_len(&self, plain_len: usize) -> usize {
        let padded = plain_len.saturating_add(1).saturating_add(self.pad_len(plain_len));
        self.encryption.iv_len().saturating_add(padded).saturating_add(self.icv_len())
    }

    /// Appends `plain`, sealed, to `message`, which holds everything from the IKE header to the Encrypted payload's own
    /// generic header, all lengths filled in already.
    ///
    /// # Panics
    /// `iv` is not as long as the cipher's: our own bug.
    pub fn seal(&self, message: &mut Vec<u8>, iv: &[u8], plain: &[u8]) {
        assert_eq!(iv.len(), self.encryption.iv_len(), "the IV has the cipher's length");
        let mut body = Zeroizing::new(Vec::with_capacity(self.sealed_len(plain.len())));
        body.extend_from_slice(plain);
        let pad = self.pad_len(plain.len());
        body.resize(plain.len().saturating_add(pad), 0);
        // Fewer than 256 octets of padding: `pad_len` stays below the block length.
        body.push(u8::try_from(pad).unwrap_or(u8::MAX));
        match self.integrity {
            None => {
                let tag = self.gcm().zip(self.nonce(iv)).and_then(|(key, nonce)| {
                    key.seal_in_place_separate_tag(nonce, Aad::from(message.as_slice()), &mut body).ok()
                });
                assert!(tag.is_some(), "AES-GCM seals any message that IKE can carry");
                message.extend_from_slice(iv);
                message.extend_from_slice(&body);
                message.extend_from_slice(tag.as_ref().map_or(&[], AsRef::as_ref));
            }
            Some(integrity) => {
                assert!(self.cbc_encrypt(iv, &mut body), "AES-CBC takes whole blocks");
                message.extend_from_slice(iv);
                message.extend_from_slice(&body);
                let icv = self.icv(integrity, message);
                message.extend_from_slice(icv.get(..integrity.icv_len()).unwrap_or_default());
            }
        }
    }

    /// Opens the Encrypted payload of `message`, whose IV begins at octet `body`; gives the payloads within, without
    /// padding. `None` if the integrity check fails or nothing can stand there.
    #[must_use]
    pub fn open(&self, message: &[u8], body: usize) -> Option<Zeroizing<Vec<u8>>> {
        let (header, rest) = message.split_at_checked(body)?;
        let (iv, rest) = rest.split_at_checked(self.encryption.iv_len())?;
        let (text, icv) = rest.split_at_checked(rest.len().checked_sub(self.icv_len())?)?;
        let plain = match self.integrity {
            None => {
                let mut plain = Zeroizing::new(text.to_vec());
                self.gcm()?.open_in_place_separate_tag(self.nonce(iv)?, Aad::from(header), icv, &mut plain).ok()?;
                plain
            }
            Some(integrity) => {
                let covered = message.get(..message.len().checked_sub(icv.len())?)?;
                let expected = self.icv(integrity, covered);
                let equal: bool = expected.get(..integrity.icv_len())?.ct_eq(icv).into();
                if !equal || text.is_empty() {
                    return None;
                }
                let mut plain = Zeroizing::new(text.to_vec());
                if !self.cbc_decrypt(iv, &mut plain) {
                    return None;
                }
                plain
            }
        };
        strip_padding(plain)
    }

    const fn pad_len(&self, plain_len: usize) -> usize {
        match self.encryption {
            // RFC 5282 §3: no padding is needed.
            Encryption::AesGcm16(_) => 0,
            Encryption::AesCbc(_) => 15_usize.saturating_sub(plain_len % 16),
        }
    }

    const fn icv_len(&self) -> usize {
        match self.integrity {
            None => Encryption::AEAD_ICV_LEN,
            Some(integrity) => integrity.icv_len(),
        }
    }

    fn gcm(&self) -> Option<LessSafeKey> {
        let algorithm: &'static Algorithm = match self.encryption.key_bits() {
            128 => &AES_128_GCM,
            192 => &AES_192_GCM,
            _ => &AES_256_GCM,
        };
        let (key, _) = self.key.split_at_checked(self.key.len().checked_sub(Encryption::SALT_LEN)?)?;
        UnboundKey::new(algorithm, key).ok().map(LessSafeKey::new)
    }

    fn nonce(&self, iv: &[u8]) -> Option<Nonce> {
        let (_, salt) = self.key.split_at_checked(self.key.len().checked_sub(Encryption::SALT_LEN)?)?;
        let mut nonce = [0; 12];
        let (front, back) = nonce.split_at_mut(Encryption::SALT_LEN);
        front.copy_from_slice(salt);
        if iv.len() != back.len() {
            return None;
        }
        back.copy_from_slice(iv);
        Some(Nonce::assume_unique_for_key(nonce))
    }

    fn icv(&self, integrity: Integrity, covered: &[u8]) -> Vec<u8> {
        let prf = match integrity {
            Integrity::HmacSha2_256_128 => Prf::HmacSha2_256,
            Integrity::HmacSha2_384_192 => Prf::HmacSha2_384,
            Integrity::HmacSha2_512_256 => Prf::HmacSha2_512,
        };
        PrfKey::new(prf, self.integrity_key).compute(&[covered]).expose().to_vec()
    }

    fn cbc_encrypt(&self, iv: &[u8], text: &mut [u8]) -> bool {
        let len = text.len();
        match self.encryption.key_bits() {
            128 => cbc::Encryptor::<Aes128>::new_from_slices(self.key, iv)
                .is_ok_and(|c| c.encrypt_padded::<NoPadding>(text, len).is_ok()),
            192 => cbc::Encryptor::<Aes192>::new_from_slices(self.key, iv)
                .is_ok_and(|c| c.encrypt_padded::<NoPadding>(text, len).is_ok()),
            _ => cbc::Encryptor::<Aes256>::new_from_slices(self.key, iv)
                .is_ok_and(|c| c.encrypt_padded::<NoPadding>(text, len).is_ok()),
        }
    }

    fn cbc_decrypt(&self, iv: &[u8], text: &mut [u8]) -> bool {
        match self.encryption.key_bits() {
            128 => cbc::Decryptor::<Aes128>::new_from_slices(self.key, iv)
                .is_ok_and(|c| c.decrypt_padded::<NoPadding>(text).is_ok()),
            192 => cbc::Decryptor::<Aes192>::new_from_slices(self.key, iv)
                .is_ok_and(|c| c.decrypt_padded::<NoPadding>(text).is_ok()),
            _ => cbc::Decryptor::<Aes256>::new_from_slices(self.key, iv)
                .is_ok_and(|c| c.decrypt_padded::<NoPadding>(text).is_ok()),
        }
    }
}

/// RFC 7296 §3.14: the last octet counts the padding before it, whatever that contains.
fn strip_padding(mut plain: Zeroizing<Vec<u8>>) -> Option<Zeroizing<Vec<u8>>> {
    let pad = usize::from(*plain.last()?);
    let len = plain.len().checked_sub(1)?.checked_sub(pad)?;
    plain.truncate(len);
    Some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        let text: String = text.split_whitespace().collect();
        (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
    }

    const SUITES: [(Encryption, Option<Integrity>); 8] = [
        (Encryption::AesGcm16(128), None),
        (Encryption::AesGcm16(192), None),
        (Encryption::AesGcm16(256), None),
        (Encryption::AesCbc(128), Some(Integrity::HmacSha2_256_128)),
        (Encryption::AesCbc(192), Some(Integrity::HmacSha2_384_192)),
        (Encryption::AesCbc(256), Some(Integrity::HmacSha2_512_256)),
        (Encryption::AesCbc(128), Some(Integrity::HmacSha2_512_256)),
        (Encryption::AesCbc(256), Some(Integrity::HmacSha2_256_128)),
    ];

    fn with_cipher(suite: (Encryption, Option<Integrity>), check: impl FnOnce(MessageCipher<'_>)) {
        let key = vec![0x5a; suite.0.key_material_len()];
        let integrity_key = vec![0xa5; suite.1.map_or(0, Integrity::key_len)];
        check(MessageCipher::new(suite.0, suite.1, &key, &integrity_key).unwrap());
    }

    #[test]
    fn what_is_sealed_opens_and_is_as_long_as_foretold() {
        for suite in SUITES {
            with_cipher(suite, |cipher| {
                for len in [0, 1, 14, 15, 16, 17, 100] {
                    let plain = vec![7; len];
                    let mut message = b"header".to_vec();
                    cipher.seal(&mut message, &vec![1; suite.0.iv_len()], &plain);
                    assert_eq!(message.len(), 6 + cipher.sealed_len(len), "{suite:?} {len}");
                    assert_eq!(*cipher.open(&message, 6).unwrap(), plain, "{suite:?} {len}");
                }
            });
        }
    }

    #[test]
    fn a_changed_bit_anywhere_or_a_cut_is_refused() {
        for suite in SUITES {
            with_cipher(suite, |cipher| {
                let mut message = b"header".to_vec();
                cipher.seal(&mut message, &vec![1; suite.0.iv_len()], b"payloads");
                for octet in 0..message.len() {
                    let mut changed = message.clone();
                    changed[octet] ^= 0x10;
                    assert!(cipher.open(&changed, 6).is_none(), "{suite:?} octet {octet}");
                    assert!(cipher.open(&message[..octet], 6).is_none(), "{suite:?} cut at {octet}");
                }
                assert!(cipher.open(&message, message.len() + 1).is_none());
            });
        }
    }

    #[test]
    fn keys_of_a_wrong_length_and_misfit_combinations_make_no_cipher() {
        let gcm = Encryption::AesGcm16(128);
        let cbc = Encryption::AesCbc(128);
        let sha = Some(Integrity::HmacSha2_256_128);
        assert!(MessageCipher::new(gcm, None, &[0; 16], &[]).is_none(), "the salt is missing");
        assert!(MessageCipher::new(gcm, sha, &[0; 20], &[0; 32]).is_none());
        assert!(MessageCipher::new(cbc, None, &[0; 16], &[]).is_none());
        assert!(MessageCipher::new(cbc, sha, &[0; 16], &[0; 31]).is_none());
    }

    #[test]
    fn aes_gcm_gives_the_result_of_the_specification() {
        // Test case 4 of "The Galois/Counter Mode of Operation" (McGrew, Viega), its last plaintext octet 0x00 taken as
        // our Pad Length: the plaintext here is one octet shorter and one zero octet (no padding) follows it.
        let key = hex("feffe9928665731c6d6a8f9467308308 cafebabe");
        let aad = hex("feedfacedeadbeeffeedfacedeadbeefabaddad2");
        let plain = hex(
            "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
        );
        let cipher = MessageCipher::new(Encryption::AesGcm16(128), None, &key, &[]).unwrap();
        let mut message = aad.clone();
        cipher.seal(&mut message, &hex("facedbaddecaf888"), &plain);
        let text = hex(
            "42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e21d514b25466931c7d8f6a5aac84aa051ba30b396a0aac973d58e091",
        );
        assert_eq!(message[aad.len() + 8..][..text.len()], text[..], "counter mode does not depend on what follows");
    }

    #[test]
    fn aes_cbc_gives_the_result_of_rfc_3602() {
        // RFC 3602 §4, case 2: 32 octets, of which the last is our Pad Length only if it fits; so only block one is compared.
        let key = hex("c286696d887c9aa0611bbb3e2025a45a");
        let iv = hex("562e17996d093d28ddb3ba695a2e6f58");
        let plain = hex("000102030405060708090a0b0c0d0e0f");
        let cipher =
            MessageCipher::new(Encryption::AesCbc(128), Some(Integrity::HmacSha2_256_128), &key, &[0; 32]).unwrap();
        let mut message = Vec::new();
        cipher.seal(&mut message, &iv, &plain);
        assert_eq!(message[16..32], hex("d296cd94c2cccf8a3a863028b5e1dc0a")[..]);
    }
}
