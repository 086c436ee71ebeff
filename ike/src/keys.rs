//! Keys of IKE SAs and child SAs (RFC 7296 §2.14, §2.17, §2.18).

use crypto::{Encryption, Integrity, Prf, PrfKey};
use wire::{Cause, DecodeError, Field, Reader, Secret, Writer};

use crate::config::{EspProposal, IkeProposal};
use crate::output::Role;

wire::record! {
    /// The seven keys of an IKE SA.
    #[derive(Clone, Debug)]
    pub(crate) struct Keys {
        /// SK_d.
        1 => pub(crate) d: Secret,
        /// SK_ai; empty for an AEAD.
        2 => pub(crate) ai: Secret,
        /// SK_ar; empty for an AEAD.
        3 => pub(crate) ar: Secret,
        /// SK_ei, a salt behind it for an AEAD.
        4 => pub(crate) ei: Secret,
        /// SK_er, a salt behind it for an AEAD.
        5 => pub(crate) er: Secret,
        /// SK_pi; empty once authentication is over.
        6 => pub(crate) pi: Secret,
        /// SK_pr; empty once authentication is over.
        7 => pub(crate) pr: Secret,
    }
}

/// Nonces and SPIs of the exchange that makes an IKE SA.
#[derive(Clone, Copy)]
pub(crate) struct Freshness<'a> {
    pub(crate) nonce_i: &'a [u8],
    pub(crate) nonce_r: &'a [u8],
    pub(crate) spi_i: u64,
    pub(crate) spi_r: u64,
}

impl Keys {
    /// Keys of a first IKE SA (RFC 7296 §2.14).
    pub(crate) fn first(suite: &IkeProposal, fresh: Freshness<'_>, shared: &Secret) -> Self {
        let nonces = [fresh.nonce_i, fresh.nonce_r].concat();
        let seed = PrfKey::new(suite.prf, &nonces).compute(&[shared.expose()]);
        Self::expand(suite, &seed, fresh)
    }

    /// Keys of an IKE SA that replaces the one with this SK_d and PRF (RFC 7296 §2.18).
    pub(crate) fn rekeyed(old: (Prf, &Secret), suite: &IkeProposal, fresh: Freshness<'_>, shared: &Secret) -> Self {
        let (prf, d) = old;
        let seed = PrfKey::new(prf, d.expose()).compute(&[shared.expose(), fresh.nonce_i, fresh.nonce_r]);
        Self::expand(suite, &seed, fresh)
    }

    fn expand(suite: &IkeProposal, seed: &Secret, fresh: Freshness<'_>) -> Self {
        let p = suite.prf.output_len();
        let a = suite.integrity.map_or(0, Integrity::key_len);
        let e = suite.encryption.key_material_len();
        let lens = [p, a, a, e, e, p, p];
        let all = PrfKey::new(suite.prf, seed.expose()).plus(
            &[fresh.nonce_i, fresh.nonce_r, &fresh.spi_i.to_be_bytes(), &fresh.spi_r.to_be_bytes()],
            lens.iter().sum(),
        );
        let [d, ai, ar, ei, er, pi, pr] = cut(&all, lens);
        Self { d, ai, ar, ei, er, pi, pr, unknown: Default::default() }
    }
}

/// Keys of a pair of ESP SAs.
pub(crate) struct ChildKeys {
    pub(crate) key_in: Secret,
    pub(crate) key_out: Secret,
    pub(crate) integ_in: Secret,
    pub(crate) integ_out: Secret,
}

impl ChildKeys {
    /// Derives them (RFC 7296 §2.17). `role` is ours in the exchange that makes the child.
    pub(crate) fn derive(
        old: (Prf, &Secret),
        suite: &EspProposal,
        shared: Option<&Secret>,
        nonces: (&[u8], &[u8]),
        role: Role,
    ) -> Self {
        let (prf, d) = old;
        let e = suite.encryption.key_material_len();
        let a = suite.integrity.map_or(0, Integrity::key_len);
        let lens = [e, a, e, a];
        let shared = shared.map_or(&[][..], Secret::expose);
        let all = PrfKey::new(prf, d.expose()).plus(&[shared, nonces.0, nonces.1], lens.iter().sum());
        let [key_ir, integ_ir, key_ri, integ_ri] = cut(&all, lens);
        match role {
            Role::Initiator => Self { key_in: key_ri, key_out: key_ir, integ_in: integ_ri, integ_out: integ_ir },
            Role::Responder => Self { key_in: key_ir, key_out: key_ri, integ_in: integ_ir, integ_out: integ_ri },
        }
    }
}

fn cut<const N: usize>(all: &Secret, lens: [usize; N]) -> [Secret; N] {
    let mut r = Reader::new(all.expose());
    // `all` was drawn with the sum of the lengths, so none of these reads is short.
    lens.map(|len| r.bytes("key", len).map(Secret::from_slice).unwrap_or_default())
}

/// `prf(prf(secret, "Key Pad for IKEv2"), octets)` (RFC 7296 §2.15).
pub(crate) fn shared_key_auth(prf: Prf, secret: &Secret, octets: &[&[u8]]) -> Secret {
    let inner = PrfKey::new(prf, secret.expose()).compute(&[b"Key Pad for IKEv2"]);
    PrfKey::new(prf, inner.expose()).compute(octets)
}

impl Field for IkeProposal {
    fn write(&self, w: &mut Writer) -> bool {
        write_encryption(w, self.encryption, self.integrity);
        w.u16(self.prf.iana());
        w.u16(self.group.iana());
        true
    }

    fn read(name: &'static str, r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let range = r.error(name, Cause::Range);
        let (encryption, integrity) = read_encryption(name, r)?;
        let prf = Prf::from_iana(r.u16(name)?).ok_or(range)?;
        let group = crypto::Group::from_iana(r.u16(name)?).ok_or(range)?;
        Ok(Self { encryption, integrity, prf, group })
    }
}

impl Field for EspProposal {
    fn write(&self, w: &mut Writer) -> bool {
        write_encryption(w, self.encryption, self.integrity);
        w.u16(self.group.map_or(0, crypto::Group::iana));
        true
    }

    fn read(name: &'static str, r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let range = r.error(name, Cause::Range);
        let (encryption, integrity) = read_encryption(name, r)?;
        let group = match r.u16(name)? {
            0 => None,
            number => Some(crypto::Group::from_iana(number).ok_or(range)?),
        };
        Ok(Self { encryption, integrity, group })
    }
}

fn write_encryption(w: &mut Writer, encryption: Encryption, integrity: Option<Integrity>) {
    w.u16(encryption.iana());
    w.u16(encryption.key_bits());
    w.u16(integrity.map_or(0, Integrity::iana));
}

fn read_encryption(name: &'static str, r: &mut Reader<'_>) -> Result<(Encryption, Option<Integrity>), DecodeError> {
    let range = r.error(name, Cause::Range);
    let encryption = Encryption::from_iana(r.u16(name)?, Some(r.u16(name)?)).ok_or(range)?;
    let integrity = match r.u16(name)? {
        0 => None,
        number => Some(Integrity::from_iana(number).ok_or(range)?),
    };
    if integrity.is_none() != encryption.is_aead() {
        return Err(range);
    }
    Ok((encryption, integrity))
}
