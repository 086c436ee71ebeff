//! Keys derived from a code, and the MACs under them (HKDF RFC 5869, HMAC RFC 2104, SHA-256).

use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use wire::Secret;
use zeroize::Zeroizing;

use crate::code::{Code, Role, TicketNumber};
use crate::refusal::Refusal;

/// The three keys of one ticket. The code itself is not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TicketKeys {
    /// Authenticates requests.
    pub request: RequestKey,
    /// Authenticates replies; deleted at issue by the gateway, at the reply by the client.
    pub reply: ReplyKey,
    /// Authenticates rejections.
    pub reject: RejectKey,
}

impl TicketKeys {
    /// Derives the keys.
    #[must_use]
    pub fn derive(code: &Code) -> Self {
        let input = length_prefixed(&[b"code", &code.ticket_text(), code.secret().expose()]);
        let prk = Hkdf::<Sha256>::new(Some(LABEL), &input);
        let key = |purpose: &[u8]| {
            let info = length_prefixed(&[LABEL, purpose, code.role().label()]);
            let mut output = Zeroizing::new([0; KEY_LEN]);
            let fits = prk.expand(&info, output.as_mut()).is_ok();
            // RFC 5869 §2.3: at most 255 hash lengths can be had, and this is one.
            assert!(fits, "HKDF gives 32 octets");
            MacKey { ticket: code.ticket(), role: code.role(), secret: Secret::from_slice(output.as_ref()) }
        };
        Self { request: RequestKey(key(b"request")), reply: ReplyKey(key(b"reply")), reject: RejectKey(key(b"reject")) }
    }
}

/// K_request of one ticket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestKey(pub(crate) MacKey);

/// K_reply of one ticket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplyKey(pub(crate) MacKey);

/// K_reject of one ticket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RejectKey(pub(crate) MacKey);

/// What the three kinds of keys have in common: a store seals it and brings it back.
macro_rules! stored_key {
    ($name:ident) => {
        impl $name {
            /// Brings back a key from a store; `None` unless it has 32 octets.
            #[must_use]
            pub fn from_parts(ticket: TicketNumber, role: Role, secret: Secret) -> Option<Self> {
                (secret.len() == KEY_LEN).then_some(Self(MacKey { ticket, role, secret }))
            }

            /// The ticket that the key belongs to.
            #[must_use]
            pub const fn ticket(&self) -> TicketNumber {
                self.0.ticket
            }

            /// The role that the key belongs to.
            #[must_use]
            pub const fn role(&self) -> Role {
                self.0.role
            }

            /// The 32 octets, for a store that seals them.
            #[must_use]
            pub const fn secret(&self) -> &Secret {
                &self.0.secret
            }
        }
    };
}

stored_key!(RequestKey);
stored_key!(ReplyKey);
stored_key!(RejectKey);

/// R: names one request, and binds every answer to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestHash([u8; 32]);

impl RequestHash {
    /// Brings back R from a store.
    #[must_use]
    pub const fn from_octets(octets: [u8; 32]) -> Self {
        Self(octets)
    }

    /// R of a request's body and tag.
    pub(crate) fn of(request: &[u8]) -> Self {
        Self(Sha256::digest(length_prefixed(&[LABEL, b"request-hash", request])).into())
    }

    /// The 32 octets.
    #[must_use]
    pub const fn octets(&self) -> &[u8; 32] {
        &self.0
    }
}

/// A key with the ticket and role that it is good for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MacKey {
    pub(crate) ticket: TicketNumber,
    pub(crate) role: Role,
    secret: Secret,
}

impl MacKey {
    /// HMAC over LP(label, kind, role, fields…), cut to `N` octets by the caller's type.
    pub(crate) fn tag<const N: usize>(&self, kind: &[u8], fields: &[&[u8]]) -> [u8; N] {
        let head: [&[u8]; 3] = [LABEL, kind, self.role.label()];
        let mut padded = Zeroizing::new([0; HMAC_BLOCK_LEN]);
        for (to, from) in padded.iter_mut().zip(self.secret.expose()) {
            *to = *from;
        }
        // RFC 2104 §2: a key shorter than a block is filled with zeros.
        let mut mac = <Hmac<Sha256> as KeyInit>::new(&(*padded).into());
        for field in head.iter().chain(fields) {
            mac.update(&length(field));
            mac.update(field);
        }
        let mut tag = [0; N];
        for (to, from) in tag.iter_mut().zip(mac.finalize().into_bytes()) {
            *to = from;
        }
        tag
    }

    /// Compares a received tag, whole and in constant time.
    ///
    /// # Errors
    /// The tag differs.
    pub(crate) fn verify<const N: usize>(&self, kind: &[u8], fields: &[&[u8]], tag: &[u8; N]) -> Result<(), Refusal> {
        let expected = self.tag::<N>(kind, fields);
        if bool::from(expected.ct_eq(tag)) { Ok(()) } else { Err(Refusal::Mac) }
    }
}

/// LP: each field behind its length in two octets.
pub(crate) fn length_prefixed(fields: &[&[u8]]) -> Zeroizing<Vec<u8>> {
    let len = fields.iter().fold(0_usize, |sum, field| sum.saturating_add(field.len()).saturating_add(2));
    let mut octets = Zeroizing::new(Vec::with_capacity(len));
    for field in fields {
        octets.extend(length(field));
        octets.extend_from_slice(field);
    }
    octets
}

/// A field's length in two octets. What a peer may make long, the blocks of a full reply, is checked before.
fn length(field: &[u8]) -> [u8; 2] {
    let len = u16::try_from(field.len());
    assert!(len.is_ok(), "a field of a MAC is at most 65535 octets long");
    len.unwrap_or(u16::MAX).to_be_bytes()
}

/// The format's name, in every key and MAC.
pub(crate) const LABEL: &[u8] = b"cryptocluster-enroll/1";
/// Octets of each key.
const KEY_LEN: usize = 32;
/// SHA-256 works on blocks of so many octets.
const HMAC_BLOCK_LEN: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worked_example_keys_come_out() {
        let keys = TicketKeys::derive(&Code::parse("BHP5N-40BAQ-PAAQS-PP7FT-4Y575").unwrap());
        assert_eq!(keys.request.secret().expose()[..8], 0xfd39_2964_aacb_4505_u64.to_be_bytes());
        assert_eq!(keys.reply.secret().expose()[..8], 0x3fe3_15f5_dd59_d680_u64.to_be_bytes());
        assert_eq!(keys.reject.secret().expose()[..8], 0xbd15_c407_c617_29e9_u64.to_be_bytes());
    }

    #[test]
    fn one_changed_bit_of_a_tag_is_refused() {
        let keys = TicketKeys::derive(&Code::parse("BHP5N-40BAQ-PAAQS-PP7FT-4Y575").unwrap());
        let mut tag = keys.request.0.tag::<10>(b"request", &[b"body"]);
        assert_eq!(keys.request.0.verify(b"request", &[b"body"], &tag), Ok(()));
        tag[9] ^= 1;
        assert_eq!(keys.request.0.verify(b"request", &[b"body"], &tag), Err(Refusal::Mac));
    }
}
