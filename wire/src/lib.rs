//! The vocabulary that all crates use: bytes, time, secrets, identifiers and records.
//!
//! Nothing here does I/O, reads a clock or draws randomness. [`Reader`] and [`Writer`] carry every codec;
//! [`Time`] is what drivers hand to the sans-IO cores; [`Secret`] holds key material; [`WorkSet`], [`Epoch`],
//! [`Slot`], [`Tenure`] and [`Spi`] are the identifiers that the cluster and the protocols share; [`record!`] declares
//! state that crosses from node to node; [`TrafficSelector`] is what IKE negotiates and ESP enforces.

mod ids;
mod reader;
mod record;
mod secret;
mod selector;
mod time;
mod writer;

pub use ids::{CommitId, Epoch, RecordId, RecordKind, Slot, Spi, Tenure, WorkSet};
pub use reader::{Cause, DecodeError, Reader};
pub use record::{Change, Field, Record, RecordFields, UnknownFields};
pub use secret::Secret;
pub use selector::{Prefix, TrafficSelector};
pub use time::Time;
pub use writer::Writer;

#[doc(hidden)]
pub use record::{decode_fields, encode_field};
