//! Pseudo-random functions and `prf+` (RFC 7296 §2.13).
