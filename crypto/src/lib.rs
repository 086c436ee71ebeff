//! Transforms by IANA number: which library does what, in one place, with vectors.
//!
//! Protocol crates name a transform ([`Encryption`], [`Integrity`], [`Prf`], [`Group`]) and never a library.
//! Nothing here draws randomness of its own, except where a signature scheme does so inside its library;
//! there the caller is a driver, not a protocol core.

#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::as_conversions, clippy::panic)
)]

mod dh;
mod hash;
mod iv;
mod message;
mod packet;
mod prf;
mod signature;
mod transform;

pub use dh::{DhPrivate, InvalidPublic};
pub use hash::{sha1, sha256};
pub use iv::{Iv, IvSource, IvSpace};
pub use message::MessageCipher;
pub use packet::{CbcIvSource, KeyError, PacketError, PacketKey};
pub use prf::PrfKey;
pub use signature::{
    KeyKind, SIGNATURE_HASHES, SignatureError, SignatureScheme, SigningKey, verify, verify_ecdsa_p256_raw,
};
pub use transform::{Encryption, Group, Integrity, Prf};
