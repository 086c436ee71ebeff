//! The cipher of ESP packets, keyed once per SA (RFC 4106, RFC 3602, RFC 4868).
