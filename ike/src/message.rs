//! What travels: IKE messages and their payloads (RFC 7296 §3).

pub(crate) mod auth;
pub(crate) mod configuration;
pub(crate) mod delete;
pub(crate) mod fragment;
pub(crate) mod header;
pub(crate) mod notify;
pub(crate) mod payload;
pub(crate) mod proposal;
pub(crate) mod selectors;

#[cfg(test)]
mod oracle;
