//! Diffie-Hellman groups (RFC 3526, RFC 5903, RFC 8031).

use std::sync::LazyLock;

use aws_lc_rs::agreement::{self, ECDH_P256, UnparsedPublicKey};
use crypto_bigint::modular::{FixedMontyForm, FixedMontyParams};
use crypto_bigint::{Odd, U256, U2048};
use sha2::{Digest, Sha256};
use wire::Secret;
use zeroize::Zeroizing;

use crate::Group;

/// The peer's public value is no element of the group, or one of small order (RFC 6989 §2, RFC 7748 §6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the public value is no acceptable element of the group")]
pub struct InvalidPublic;

/// The private half of a key exchange, made of 32 random octets that the caller keeps secret; the same octets always
/// make the same key, so that an exchange in flight can go on elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DhPrivate {
    group: Group,
    seed: Secret,
}

impl DhPrivate {
    /// Octets of randomness that a private value needs.
    pub const SEED_LEN: usize = 32;

    /// Takes `seed` as the private value of `group`.
    #[must_use]
    pub fn new(group: Group, seed: &[u8; Self::SEED_LEN]) -> Self {
        Self { group, seed: Secret::from_slice(seed) }
    }

    /// The group.
    #[must_use]
    pub const fn group(&self) -> Group {
        self.group
    }

    /// The octets that it was made of, for the record that carries it to another node.
    #[must_use]
    pub const fn seed(&self) -> &Secret {
        &self.seed
    }

    /// The public value, as it stands in Key Exchange Data.
    #[must_use]
    pub fn public(&self) -> Vec<u8> {
        match self.group {
            Group::Curve25519 => x25519_dalek::PublicKey::from(&self.x25519()).as_bytes().to_vec(),
            Group::Ecp256 => match self.p256().and_then(|key| key.compute_public_key().ok()) {
                // RFC 5903 §7: x and y, without the octet that marks an uncompressed point.
                Some(public) => public.as_ref().get(1..).unwrap_or_default().to_vec(),
                None => Vec::new(),
            },
            Group::Modp2048 => modp_power(&U2048::from_u8(2), &self.exponent()).to_be_bytes().as_ref().to_vec(),
        }
    }

    /// The shared secret with the peer's public value.
    ///
    /// # Errors
    /// The value is not in the group, or of small order, so that the secret would be known to everybody.
    pub fn agree(&self, peer: &[u8]) -> Result<Secret, InvalidPublic> {
        if peer.len() != self.group.public_len() {
            return Err(InvalidPublic);
        }
        match self.group {
            Group::Curve25519 => {
                let peer: [u8; 32] = peer.try_into().map_err(|_| InvalidPublic)?;
                let shared = self.x25519().diffie_hellman(&peer.into());
                // RFC 8031 §3: the all-zero result must be refused.
                if shared.was_contributory() { Ok(Secret::from_slice(shared.as_bytes())) } else { Err(InvalidPublic) }
            }
            Group::Ecp256 => {
                let mut point = Vec::with_capacity(65);
                point.push(4);
                point.extend_from_slice(peer);
                let key = self.p256().ok_or(InvalidPublic)?;
                let peer = UnparsedPublicKey::new(&ECDH_P256, point);
                agreement::agree(&key, peer, InvalidPublic, |x| Ok(Secret::from_slice(x)))
            }
            Group::Modp2048 => {
                let peer = U2048::from_be_slice(peer);
                // RFC 6989 §2.1: 1 < r < p - 1.
                let last = MODP_2048.modulus().get().wrapping_sub(&U2048::ONE);
                if peer <= U2048::ONE || peer >= last {
                    return Err(InvalidPublic);
                }
                let shared = Zeroizing::new(modp_power(&peer, &self.exponent()));
                Ok(Secret::from_slice(shared.to_be_bytes().as_ref()))
            }
        }
    }

    fn seed_array(&self) -> Zeroizing<[u8; 32]> {
        // The only constructor takes 32 octets.
        Zeroizing::new(self.seed.expose().try_into().unwrap_or_default())
    }

    fn x25519(&self) -> x25519_dalek::StaticSecret {
        (*self.seed_array()).into()
    }

    /// The scalar is the seed, or the first of its iterated hashes that lies in the range 1 to n - 1.
    fn p256(&self) -> Option<agreement::PrivateKey> {
        let mut scalar = self.seed_array();
        for _ in 0..P256_ATTEMPTS_MAX {
            if let Ok(key) = agreement::PrivateKey::from_private_key(&ECDH_P256, &*scalar) {
                return Some(key);
            }
            *scalar = Sha256::digest(*scalar).into();
        }
        None
    }

    /// 256 bits, twice the strength of the group (RFC 7919 §5.2 asks for 225 at the least).
    fn exponent(&self) -> Zeroizing<U256> {
        Zeroizing::new(U256::from_be_slice(&*self.seed_array()))
    }
}

/// A value out of range has probability 2⁻³², eight in a row 2⁻²⁵⁶.
const P256_ATTEMPTS_MAX: usize = 8;

fn modp_power(base: &U2048, exponent: &U256) -> U2048 {
    FixedMontyForm::new(base, &MODP_2048).pow_bounded_exp(exponent, U256::BITS).retrieve()
}

/// The prime of RFC 3526 §3.
static MODP_2048: LazyLock<FixedMontyParams<{ U2048::LIMBS }>> = LazyLock::new(|| {
    const PRIME: Odd<U2048> = Odd::<U2048>::from_be_hex(concat!(
        "FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74",
        "020BBEA63B139B22514A08798E3404DDEF9519B3CD3A431B302B0A6DF25F1437",
        "4FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7ED",
        "EE386BFB5A899FA5AE9F24117C4B1FE649286651ECE45B3DC2007CB8A163BF05",
        "98DA48361C55D39A69163FA8FD24CF5F83655D23DCA3AD961C62F356208552BB",
        "9ED529077096966D670C354E4ABC9804F1746C08CA18217C32905E462E36CE3B",
        "E39E772C180E86039B2783A2EC07A28FB5C55DF06F4C52C9DE2BCBF695581718",
        "3995497CEA956AE515D2261898FA051015728E5A8AACAA68FFFFFFFFFFFFFFFF",
    ));
    FixedMontyParams::new_vartime(PRIME)
});

#[cfg(test)]
mod tests {
    use super::*;

    const GROUPS: [Group; 3] = [Group::Modp2048, Group::Ecp256, Group::Curve25519];

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
    }

    #[test]
    fn both_ends_agree_on_one_secret_of_the_right_length() {
        for group in GROUPS {
            let (a, b) = (DhPrivate::new(group, &[1; 32]), DhPrivate::new(group, &[2; 32]));
            assert_eq!(a.public().len(), group.public_len(), "{group:?}");
            let shared = a.agree(&b.public()).unwrap();
            assert_eq!(Ok(shared), b.agree(&a.public()), "{group:?}");
        }
    }

    #[test]
    fn x25519_gives_the_result_of_rfc_7748() {
        // RFC 7748 §6.1.
        let bob = hex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb");
        let alice_public = hex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a");
        let bob = DhPrivate::new(Group::Curve25519, &bob.try_into().unwrap());
        assert_eq!(bob.public(), hex("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"));
        let shared = hex("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742");
        assert_eq!(bob.agree(&alice_public).unwrap().expose(), shared);
    }

    #[test]
    fn values_that_are_no_group_element_or_of_small_order_are_refused() {
        let x = DhPrivate::new(Group::Curve25519, &[3; 32]);
        let mut one = [0; 32];
        one[0] = 1;
        for point in [[0_u8; 32], one] {
            assert_eq!(x.agree(&point), Err(InvalidPublic));
        }
        // A point of order 8 (RFC 7748 §6.1, the list in curve25519's security page).
        let order8 = hex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800");
        assert_eq!(x.agree(&order8), Err(InvalidPublic));

        let p = DhPrivate::new(Group::Ecp256, &[3; 32]);
        assert_eq!(p.agree(&[0; 64]), Err(InvalidPublic));
        let mut off_curve = p.public();
        off_curve[63] ^= 1;
        assert_eq!(p.agree(&off_curve), Err(InvalidPublic));

        let m = DhPrivate::new(Group::Modp2048, &[3; 32]);
        let prime = MODP_2048.modulus().get();
        for bad in [U2048::ZERO, U2048::ONE, prime.wrapping_sub(&U2048::ONE), prime, U2048::MAX] {
            assert_eq!(m.agree(bad.to_be_bytes().as_ref()), Err(InvalidPublic));
        }
        for group in GROUPS {
            let key = DhPrivate::new(group, &[3; 32]);
            assert_eq!(key.agree(&vec![2; group.public_len() - 1]), Err(InvalidPublic));
            assert_eq!(key.agree(&[]), Err(InvalidPublic));
        }
    }

    #[test]
    fn p256_gives_the_result_of_rfc_5903() {
        // RFC 5903 §8.1.
        let i = hex("C88F01F510D9AC3F70A292DAA2316DE544E9AAB8AFE84049C62A9C57862D1433");
        let r = hex("C6EF9C5D78AE012A011164ACB397CE2088685D8F06BF9BE0B283AB46476BEE53");
        let i = DhPrivate::new(Group::Ecp256, &i.try_into().unwrap());
        let r = DhPrivate::new(Group::Ecp256, &r.try_into().unwrap());
        assert_eq!(
            i.public(),
            hex(
                "DAD0B65394221CF9B051E1FECA5787D098DFE637FC90B9EF945D0C37725811805271A0461CDB8252D61F1C456FA3E59AB1F45B33ACCF5F58389E0577B8990BB3"
            )
        );
        let shared = hex("D6840F6B42F6EDAFD13116E0E12565202FEF8E9ECE7DCE03812464D04B9442DE");
        assert_eq!(i.agree(&r.public()).unwrap().expose(), shared);
    }

    #[test]
    fn a_p256_seed_out_of_range_still_makes_a_key() {
        for seed in [[0_u8; 32], [0xff; 32]] {
            let key = DhPrivate::new(Group::Ecp256, &seed);
            assert_eq!(key.public().len(), 64);
            let other = DhPrivate::new(Group::Ecp256, &[9; 32]);
            assert_eq!(key.agree(&other.public()), other.agree(&key.public()));
        }
    }
}
