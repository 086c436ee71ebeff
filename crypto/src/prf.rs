//! Pseudo-random functions and `prf+` (RFC 7296 §2.13).

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Sha256, Sha384, Sha512};
use wire::Secret;
use zeroize::Zeroizing;

use crate::Prf;

/// A pseudo-random function with its key; the key is prepared once and used often.
#[derive(Clone)]
pub struct PrfKey(Keyed);

#[derive(Clone)]
enum Keyed {
    Sha256(Box<Hmac<Sha256>>),
    Sha384(Box<Hmac<Sha384>>),
    Sha512(Box<Hmac<Sha512>>),
}

impl PrfKey {
    /// Prepares `key`, of any length (RFC 2104 §2).
    #[must_use]
    pub fn new(prf: Prf, key: &[u8]) -> Self {
        // HMAC takes a key of any length: the error of `new_from_slice` cannot occur, and the empty key is as good.
        Self(match prf {
            Prf::HmacSha2_256 => Keyed::Sha256(Box::new(keyed(key))),
            Prf::HmacSha2_384 => Keyed::Sha384(Box::new(keyed(key))),
            Prf::HmacSha2_512 => Keyed::Sha512(Box::new(keyed(key))),
        })
    }

    /// `prf(key, parts[0] | parts[1] | …)`.
    #[must_use]
    pub fn compute(&self, parts: &[&[u8]]) -> Secret {
        match &self.0 {
            Keyed::Sha256(h) => mac(h.as_ref(), parts),
            Keyed::Sha384(h) => mac(h.as_ref(), parts),
            Keyed::Sha512(h) => mac(h.as_ref(), parts),
        }
    }

    /// `prf+ (key, seed)`, its first `len` octets.
    ///
    /// # Panics
    /// `len` above 255 times the output: our own bug (RFC 7296 §2.13 ends there).
    #[must_use]
    pub fn plus(&self, seed: &[&[u8]], len: usize) -> Secret {
        let mut out = Zeroizing::new(Vec::with_capacity(len.saturating_add(64)));
        let mut last = Secret::default();
        let mut counter = 1_u8;
        while out.len() < len {
            let number = [counter];
            let mut parts = Vec::with_capacity(seed.len().saturating_add(2));
            parts.push(last.expose());
            parts.extend_from_slice(seed);
            parts.push(&number);
            last = self.compute(&parts);
            out.extend_from_slice(last.expose());
            assert!(counter < u8::MAX || out.len() >= len, "prf+ ends after 255 blocks");
            counter = counter.saturating_add(1);
        }
        Secret::from_slice(out.get(..len).unwrap_or_default())
    }
}

fn keyed<M: KeyInit + Mac>(key: &[u8]) -> M {
    <M as KeyInit>::new_from_slice(key).unwrap_or_else(|_| <M as KeyInit>::new(&Default::default()))
}

fn mac<M: Mac + Clone>(keyed: &M, parts: &[&[u8]]) -> Secret {
    let mut mac = keyed.clone();
    for part in parts {
        Mac::update(&mut mac, part);
    }
    Secret::from_slice(&mac.finalize().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
    }

    #[test]
    fn prf_gives_the_results_of_rfc_4868() {
        // RFC 4868 §2.7.1, test case PRF-2: key "Jefe".
        let data: &[&[u8]] = &[b"what do ya want ", b"for nothing?"];
        for (prf, output) in [
            (Prf::HmacSha2_256, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"),
            (
                Prf::HmacSha2_384,
                "af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e8e2240ca5e69e2c78b3239ecfab21649",
            ),
            (
                Prf::HmacSha2_512,
                "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea2505549758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737",
            ),
        ] {
            assert_eq!(PrfKey::new(prf, b"Jefe").compute(data).expose(), hex(output), "{prf:?}");
        }
    }

    #[test]
    fn prf_plus_chains_as_the_rfc_says() {
        let key = PrfKey::new(Prf::HmacSha2_256, b"k");
        let t1 = key.compute(&[b"seed", &[1]]);
        let t2 = key.compute(&[t1.expose(), b"seed", &[2]]);
        let mut all = t1.expose().to_vec();
        all.extend_from_slice(t2.expose());
        for len in [0, 1, 32, 33, 64] {
            assert_eq!(key.plus(&[b"se", b"ed"], len).expose(), &all[..len], "{len}");
        }
    }
}
