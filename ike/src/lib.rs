//! IKEv2 (RFC 7296), both roles, sans-IO, with state that can leave one node and go on in another.
//!
//! [`Endpoint`] holds every IKE SA of the work sets that a node owns. It has no socket, no clock and no randomness
//! but the seed that it was given. A driver hands it what happened and carries out what it asks for, in order:
//!
//! ```
//! use std::sync::Arc;
//! use ike::{Config, Endpoint, Output};
//! use wire::Time;
//!
//! let mut endpoint = Endpoint::new(Arc::new(Config::default()), [7; 32]);
//! let now = Time::from_millis(1);
//! endpoint.handle_timeout(now); // or handle_datagram, handle_address, handle_signature …
//! while let Some(output) = endpoint.poll_output() {
//!     match output {
//!         Output::Transmit { path, datagram, after } => { /* send once `after` is committed */ }
//!         Output::Store { id, change, commit } => { /* replicate; `commit` names it */ }
//!         other => { /* install an ESP SA, sign, give an address, log … */ }
//!     }
//! }
//! let sleep_until = endpoint.poll_timeout();
//! # assert_eq!(sleep_until, None);
//! ```
//!
//! **Order is the contract.** [`Output::InstallChild`] stands before the [`Output::Store`] that makes its IKE SA name
//! the child, and the store before the [`Output::Transmit`] that waits for it. Stores take effect in order, so a commit
//! covers all that came before it. [`Output::RemoveChild`] of a rekeyed child comes only when the peer can no longer
//! send on it.
//!
//! **Everything is exportable.** Each IKE SA, a half-open one too, is one record ([`wire::RecordKind::IKE_SA`], key: our
//! SPI). [`Endpoint::adopt_set`] on another node reads the records and goes on in the middle of any exchange.

#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::as_conversions, clippy::panic)
)]

mod authenticate;
mod child;
mod children;
mod config;
mod core;
mod counters;
mod deadline;
mod endpoint;
mod fault;
mod informational;
mod init;
mod keys;
mod message;
mod output;
mod pending;
mod receive;
mod rekey_child;
mod rekey_ike;
mod sa;
mod schedule;

pub use config::{
    Config, Connection, EspProposal, IkeProposal, Lifetimes, LocalAuth, RemoteAuth, RemoteIdentity, RemoteSelectors,
    Retransmission, UniqueIds,
};
pub use counters::Counters;
pub use endpoint::Endpoint;
pub use fault::{Reason, Refusal};
pub use output::{
    ChildSa, Event, InitiateError, NoAddress, NoSession, Output, Path, RequestId, Role, Session, SessionState,
    SignError,
};
