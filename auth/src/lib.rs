//! Who a peer is: identities and the X.509 rules that prove them.
//!
//! [`Identity`] is what a peer calls itself in IKE (RFC 7296 §3.5). [`x509::TrustAnchors`] decides whether a chain of
//! certificates proves it, at a moment that the caller names; nothing here reads a clock.
//! ```
//! use auth::{Identity, x509::{TrustAnchors, Usage, Refusal}};
//! use std::time::Duration;
//!
//! let trust = TrustAnchors::default();
//! let carol: Identity = "carol@example.org".parse()?;
//! let refused = trust.validate(&[], &carol, Usage::Initiator, Duration::from_secs(1_800_000_000));
//! assert_eq!(refused.unwrap_err(), Refusal::NoCertificate);
//! # Ok::<(), auth::IdentityError>(())
//! ```

#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::as_conversions, clippy::panic)
)]

mod identity;
pub mod x509;

pub use identity::{DistinguishedName, Identity, IdentityError};
