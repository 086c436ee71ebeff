//! What the gateway itself replicates, and how an heir reads a work set's records.

pub mod adopt;
pub mod inner;
pub mod pool;
