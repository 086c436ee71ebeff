//! What AUTH covers, and whether it proves an identity.

use auth::Identity;
use auth::x509::Usage;
use crypto::{Prf, PrfKey, SignatureScheme};
use wire::{DecodeError, Secret, Time};

use crate::config::RemoteAuth;
use crate::core::Core;
use crate::fault::Refusal;
use crate::keys::shared_key_auth;
use crate::message::auth::{Auth, decode_certificate};
use crate::message::payload::{PayloadType, Payloads};

/// The octets that one end signs (RFC 7296 §2.15): its first message, the other's nonce, and its identity under SK_p.
pub(crate) fn signed_octets(prf: Prf, message: &[u8], other_nonce: &[u8], sk_p: &Secret, id: &[u8]) -> Vec<u8> {
    let maced = PrfKey::new(prf, sk_p.expose()).compute(&[id]);
    [message, other_nonce, maced.expose()].concat()
}

/// Certificates in one message at the most. Our bound; the path rules have a lower one.
const CERTIFICATES_MAX: usize = 16;

/// The certificates of a message, the peer's own first.
pub(crate) fn certificates(payloads: &Payloads<'_>) -> Result<Vec<Vec<u8>>, DecodeError> {
    let mut chain = Vec::new();
    for payload in payloads.all(PayloadType::Certificate).take(CERTIFICATES_MAX) {
        if let Some(der) = decode_certificate(payload)? {
            chain.push(der.to_vec());
        }
    }
    Ok(chain)
}

/// Why a proof was refused.
pub(crate) struct Unproven(pub(crate) Refusal, pub(crate) Option<auth::x509::Refusal>);

/// What a peer brings forward to prove its identity.
pub(crate) struct Claim<'a> {
    pub(crate) identity: &'a Identity,
    pub(crate) auth: Auth<'a>,
    pub(crate) chain: &'a [Vec<u8>],
    pub(crate) octets: &'a [u8],
}

/// Checks the peer's proof.
pub(crate) fn verify(
    core: &Core,
    now: Time,
    method: &RemoteAuth,
    prf: Prf,
    claim: &Claim<'_>,
    usage: Usage,
) -> Result<(), Unproven> {
    match (method, claim.auth) {
        (RemoteAuth::Psk(secret), Auth::SharedKey(mac)) => {
            let expected = shared_key_auth(prf, secret, &[claim.octets]);
            // `Secret` compares in constant time.
            if Secret::from_slice(mac) == expected { Ok(()) } else { Err(Unproven(Refusal::AuthFailed, None)) }
        }
        (RemoteAuth::Certificate, Auth::DigitalSignature { algorithm, signature }) => {
            let key = certified_key(core, now, claim, usage)?;
            crypto::verify(algorithm, &key, claim.octets, signature).map_err(|_| Unproven(Refusal::AuthFailed, None))
        }
        (RemoteAuth::Certificate, Auth::EcdsaP256(signature)) => {
            let key = certified_key(core, now, claim, usage)?;
            crypto::verify_ecdsa_p256_raw(&key, claim.octets, signature)
                .map_err(|_| Unproven(Refusal::AuthFailed, None))
        }
        (
            RemoteAuth::Psk(_) | RemoteAuth::Certificate,
            Auth::SharedKey(_) | Auth::DigitalSignature { .. } | Auth::EcdsaP256(_) | Auth::Other(_),
        ) => Err(Unproven(Refusal::AuthMethod, None)),
    }
}

fn certified_key(core: &Core, now: Time, claim: &Claim<'_>, usage: Usage) -> Result<Vec<u8>, Unproven> {
    // Without a wall clock no certificate is valid.
    let unix = match core.wall_clock {
        Some((then, unix)) => unix.saturating_add(now.since(then)),
        None => std::time::Duration::ZERO,
    };
    core.config
        .trust_anchors
        .validate(claim.chain, claim.identity, usage, unix)
        .map(|proof| proof.public_key)
        .map_err(|refusal| Unproven(Refusal::Certificate, Some(refusal)))
}

/// The AUTH payload of a signature that the driver made.
pub(crate) fn signature_auth<'a>(scheme: SignatureScheme, algorithm: &'a [u8], signature: &'a [u8]) -> Auth<'a> {
    if scheme.auth_method() == 9 { Auth::EcdsaP256(signature) } else { Auth::DigitalSignature { algorithm, signature } }
}
