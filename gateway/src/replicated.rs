//! What the gateway itself replicates, what its runtimes say to each other, and how an heir reads a work set's records.

pub mod adopt;
pub mod inner;
pub mod pool;
pub mod words;
