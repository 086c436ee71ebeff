//! The first frame in each direction of a session between two nodes, and every way to refuse one.

use std::fmt;

use quinn::{ConnectionError, VarInt};
use wire::record;

/// The version of everything that nodes say to each other; a node speaks with the version before its own.
pub(super) const VERSION: u16 = 1;

record! {
    /// What a node says about itself before anything else.
    #[derive(Clone, Debug, PartialEq)]
    pub(super) struct Hello {
        /// The protocol's version.
        1 => pub(super) version: u16,
        /// The cluster's name.
        2 => pub(super) cluster: String,
        /// The sender's name; its certificate must carry it.
        3 => pub(super) name: String,
        /// Drawn at each start of the program: a restarted node is a new member.
        4 => pub(super) start: u64,
        /// A hash of the cluster's configuration, the same on all nodes.
        5 => pub(super) configuration: [u8; 32],
    }
}

/// Why two nodes do not form a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refusal {
    /// Another session with the same node has taken this one's place: no fault.
    Replaced,
    /// The node ends its work: no fault.
    Goodbye,
    /// The other side's certificate comes from another CA.
    UnknownCa,
    /// The other side's certificate is expired, not yet valid, or not made for this use.
    Certificate,
    /// The certificate names somebody else than its holder says, or than was dialled.
    Name,
    /// The other side is not in the list of members.
    UnknownMember,
    /// The other side belongs to a cluster of another name.
    OtherCluster,
    /// The other side holds another configuration.
    OtherConfiguration,
    /// A live node has that identity already.
    SameIdentity,
    /// The other side speaks a version that this one does not.
    Version,
    /// The other side sent what the protocol does not allow.
    Protocol,
    /// The other side takes what is sent too slowly.
    TooSlow,
    /// The other side does not answer.
    Silent,
}

impl Refusal {
    pub(super) const ALL: [Self; 13] = [
        Self::Replaced,
        Self::Goodbye,
        Self::UnknownCa,
        Self::Certificate,
        Self::Name,
        Self::UnknownMember,
        Self::OtherCluster,
        Self::OtherConfiguration,
        Self::SameIdentity,
        Self::Version,
        Self::Protocol,
        Self::TooSlow,
        Self::Silent,
    ];

    /// The number that closes a connection for that reason. Numbers are for ever.
    pub(super) const fn code(self) -> u32 {
        match self {
            // What a connection says that is let go without a word.
            Self::Replaced => 0,
            Self::Goodbye => 1,
            Self::UnknownCa => 2,
            Self::Certificate => 3,
            Self::Name => 4,
            Self::UnknownMember => 5,
            Self::OtherCluster => 6,
            Self::OtherConfiguration => 7,
            Self::SameIdentity => 8,
            Self::Version => 9,
            Self::Protocol => 10,
            Self::TooSlow => 11,
            Self::Silent => 12,
        }
    }

    /// The word that logs, counters and the API use.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Replaced => "replaced",
            Self::Goodbye => "goodbye",
            Self::UnknownCa => "unknown_ca",
            Self::Certificate => "certificate",
            Self::Name => "name",
            Self::UnknownMember => "unknown_member",
            Self::OtherCluster => "other_cluster",
            Self::OtherConfiguration => "other_configuration",
            Self::SameIdentity => "same_identity",
            Self::Version => "version",
            Self::Protocol => "protocol",
            Self::TooSlow => "too_slow",
            Self::Silent => "silent",
        }
    }
}

/// Who refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusedBy {
    /// This node.
    Us,
    /// The other one.
    Them,
}

/// A session that was not formed, or ended, with a sentence for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Why.
    pub refusal: Refusal,
    /// By whom.
    pub by: RefusedBy,
    /// The particulars: names, hashes, addresses.
    pub detail: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by = match self.by {
            RefusedBy::Us => "refused here",
            RefusedBy::Them => "refused by the other node",
        };
        write!(f, "{by} ({}): {}", self.refusal.word(), self.detail)
    }
}

impl Refused {
    pub(super) const fn ours(refusal: Refusal, detail: String) -> Self {
        Self { refusal, by: RefusedBy::Us, detail }
    }

    /// Closes `connection` and tells the other side why.
    pub(super) fn close(&self, connection: &quinn::Connection) {
        connection.close(VarInt::from_u32(self.refusal.code()), self.detail.as_bytes());
    }

    /// Reads why a connection failed or ended.
    pub(super) fn from_connection(error: &ConnectionError) -> Self {
        match error {
            ConnectionError::ApplicationClosed(close) => {
                let code = close.error_code.into_inner();
                let refusal =
                    Refusal::ALL.into_iter().find(|r| u64::from(r.code()) == code).unwrap_or(Refusal::Protocol);
                Self { refusal, by: RefusedBy::Them, detail: said(&close.reason) }
            }
            // RFC 9000 §20.1: a side that ends a handshake says APPLICATION_ERROR and no more. A node does so when another of
            // its attempts, on another network, has formed the session.
            ConnectionError::ConnectionClosed(close) if u64::from(close.error_code) == APPLICATION_ERROR => {
                Self { refusal: Refusal::Replaced, by: RefusedBy::Them, detail: "it has given this attempt up".into() }
            }
            ConnectionError::ConnectionClosed(close) => {
                let refusal = tls_alert(u64::from(close.error_code));
                let detail = if refusal == Refusal::UnknownCa {
                    "it does not know the CA of this node's certificate; issue that anew with the cluster's CA".into()
                } else if refusal == Refusal::Certificate {
                    "it does not accept this node's certificate: expired, not yet valid (clock?), or made for another use".into()
                } else {
                    said(close.to_string().as_bytes())
                };
                Self { refusal, by: RefusedBy::Them, detail }
            }
            ConnectionError::TransportError(error) => {
                let refusal = tls_alert(u64::from(error.code));
                let detail = if refusal == Refusal::UnknownCa {
                    "its certificate comes from a CA that is not this cluster's; issue it anew with the cluster's CA, or correct \
                     membership.ca in node.toml"
                        .into()
                } else {
                    format!("its certificate or handshake is not acceptable: {}", said(error.reason.as_bytes()))
                };
                Self::ours(refusal, detail)
            }
            ConnectionError::Reset => Self::ours(Refusal::Silent, "it has restarted".into()),
            ConnectionError::TimedOut => Self::ours(Refusal::Silent, "it does not answer".into()),
            ConnectionError::LocallyClosed => Self::ours(Refusal::Goodbye, "closed here".into()),
            ConnectionError::VersionMismatch | ConnectionError::CidsExhausted => {
                Self::ours(Refusal::Protocol, error.to_string())
            }
        }
    }
}

/// What the other side says, fit for one line of a log: before a certificate is shown, it may be anybody's words.
fn said(words: &[u8]) -> String {
    String::from_utf8_lossy(words).chars().filter(|c| matches!(c, ' '..='~')).take(SAID_MAX).collect()
}

/// Characters of the other side's words that are kept; the longest sentence of a node is shorter.
const SAID_MAX: usize = 600;

/// RFC 9000 §20.1.
const APPLICATION_ERROR: u64 = 0x0c;

/// Reads a TLS alert (RFC 8446 §6) out of a QUIC error code (RFC 9001 §4.8).
const fn tls_alert(code: u64) -> Refusal {
    match code {
        // unknown_ca(48), and decrypt_error(51): a CA of the same name with another key.
        0x130 | 0x133 => Refusal::UnknownCa,
        // bad_certificate(42) to illegal_parameter(47), access_denied(49), certificate_required(116).
        0x12a..=0x12f | 0x131 | 0x174 => Refusal::Certificate,
        _ => Refusal::Protocol,
    }
}

#[cfg(test)]
mod tests {
    use quinn::{ApplicationClose, ConnectionClose, TransportErrorCode};

    use super::*;

    #[test]
    fn what_a_stranger_says_stands_in_one_line_of_the_log() {
        let words: Vec<u8> =
            b"no\n2026-01-01 INFO all is well\x1b[2J\xff ".iter().copied().cycle().take(10_000).collect();
        let application = ApplicationClose { error_code: VarInt::from_u32(99), reason: words.clone().into() };
        let connection =
            ConnectionClose { error_code: TransportErrorCode::NO_ERROR, frame_type: None, reason: words.into() };
        for error in [ConnectionError::ApplicationClosed(application), ConnectionError::ConnectionClosed(connection)] {
            let Refused { detail, refusal, by } = Refused::from_connection(&error);
            assert_eq!((refusal, by), (Refusal::Protocol, RefusedBy::Them));
            assert!(detail.contains("no2026-01-01 INFO") && !detail.contains(char::is_control), "{detail:?}");
            assert!(detail.len() <= SAID_MAX, "{} octets", detail.len());
        }
    }

    #[test]
    fn each_refusal_has_its_own_code_and_word() {
        for (index, refusal) in Refusal::ALL.into_iter().enumerate() {
            assert_eq!(usize::try_from(refusal.code()), Ok(index), "{refusal:?}");
            assert_eq!(Refusal::ALL.into_iter().filter(|r| r.word() == refusal.word()).count(), 1, "{refusal:?}");
        }
    }
}
