//! The cipher of IKE messages: the Encrypted payload (RFC 7296 §3.14, RFC 5282).
