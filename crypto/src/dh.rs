//! Diffie-Hellman groups (RFC 3526, RFC 5903, RFC 8031).
