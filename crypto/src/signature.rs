//! Signatures for IKE authentication (RFC 7427).
