//! What the operator decides. Every value comes from the caller; nothing here hides a default from the operator.

use std::time::Duration;

use auth::Identity;
use auth::x509::TrustAnchors;
use crypto::{Encryption, Group, Integrity, KeyKind, Prf};
use wire::{Secret, TrafficSelector};

/// Everything that an [`Endpoint`](crate::Endpoint) is told by the operator; the same on all nodes of a cluster.
///
/// `Config::default()` serves nobody: no connections, no half-open SAs.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Who may connect, and to whom we connect; the first that fits is taken.
    pub connections: Vec<Connection>,
    /// The CAs that may vouch for peers, with their revocation lists.
    pub trust_anchors: TrustAnchors,
    /// Key of the stateless cookies (RFC 7296 §2.6), the same on all nodes.
    pub cookie_secret: Secret,
    /// From this many half-open SAs on, an initiator must return a cookie first.
    pub cookie_threshold: usize,
    /// No more half-open SAs as responder than this.
    pub half_open_max: usize,
    /// Time a peer has to finish IKE_AUTH.
    pub half_open_time: Duration,
    /// No more IKE SAs than this, half-open ones included.
    pub sas_max: usize,
    /// When a request is sent again, and when we give up.
    pub retransmission: Retransmission,
    /// Longest IKE message in octets before it is fragmented (RFC 7383), if the peer can; UDP and IP headers not counted.
    pub fragment_len_max: usize,
    /// Whether NAT_DETECTION_SOURCE_IP never matches, so that every peer floats to port 4500 and uses UDP encapsulation.
    pub force_encapsulation: bool,
}

/// When a request is sent again (RFC 7296 §2.4 leaves the times open).
#[derive(Clone, Copy, Debug)]
pub struct Retransmission {
    /// Time to the first repetition; each later one waits twice as long.
    pub first: Duration,
    /// Longest wait between two repetitions.
    pub interval_max: Duration,
    /// Repetitions until the peer counts as gone.
    pub attempts: u8,
}

impl Default for Retransmission {
    fn default() -> Self {
        Self { first: Duration::from_millis(500), interval_max: Duration::from_secs(16), attempts: 8 }
    }
}

/// One kind of peer and what it may do.
#[derive(Clone, Debug)]
pub struct Connection {
    /// The operator's name for it; records refer to it.
    pub name: String,
    /// Who we are to this peer.
    pub local_identity: Identity,
    /// Who the peer may be.
    pub remote_identity: RemoteIdentity,
    /// How we prove who we are.
    pub local_auth: LocalAuth,
    /// How the peer proves who it is.
    pub remote_auth: RemoteAuth,
    /// Suites for the IKE SA, the best first.
    pub ike_proposals: Vec<IkeProposal>,
    /// Suites for the child SA, the best first.
    pub esp_proposals: Vec<EspProposal>,
    /// What lies on our side of the tunnel. As initiator with [`Connection::request_address`], the address we get.
    pub local_selectors: Vec<TrafficSelector>,
    /// What lies on the peer's side.
    pub remote_selectors: RemoteSelectors,
    /// As initiator: whether to ask for an inner address (RFC 7296 §2.19).
    pub request_address: bool,
    /// As responder: name servers that a peer with a pool address is told.
    pub dns: Vec<std::net::IpAddr>,
    /// When keys are replaced.
    pub lifetimes: Lifetimes,
    /// After so long without an authenticated message of the peer we ask whether it is alive; zero: never.
    pub liveness_interval: Duration,
    /// What a second SA with the same identity means.
    pub unique_ids: UniqueIds,
}

/// What happens to older SAs of the same identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UniqueIds {
    /// They go when the peer says INITIAL_CONTACT (RFC 7296 §2.4).
    OnInitialContact,
    /// They stay, whatever the peer says: many devices share an identity.
    Shared,
}

/// Who the peer may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RemoteIdentity {
    /// Anybody who can prove the identity that they claim.
    Any,
    /// Exactly this one.
    Exact(Identity),
    /// Any RFC 822 address that ends so, if it begins with `@`, as `@example.org` does; else any FQDN that ends so, for
    /// example `.branch.example.org`.
    Suffix(String),
}

impl RemoteIdentity {
    /// Whether a peer of that identity may use the connection.
    pub(crate) fn allows(&self, identity: &Identity) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(exact) => exact == identity,
            // One kind of name never stands for the other: a CA may give out addresses in a domain more freely than hosts.
            Self::Suffix(suffix) => match identity {
                Identity::Fqdn(name) => !suffix.starts_with('@') && ends_in(name, suffix),
                Identity::Rfc822(name) => suffix.starts_with('@') && ends_in(name, suffix),
                Identity::Address(_) | Identity::DistinguishedName(_) | Identity::KeyId(_) => false,
            },
        }
    }
}

/// A suffix must stand behind something, and names ignore the case of ASCII letters.
fn ends_in(name: &str, suffix: &str) -> bool {
    name.len() > suffix.len() && name.to_ascii_lowercase().ends_with(&suffix.to_ascii_lowercase())
}

/// How we prove who we are.
#[derive(Clone, Debug)]
pub enum LocalAuth {
    /// Shared Key Message Integrity Code (RFC 7296 §2.15).
    Psk(Secret),
    /// Digital signature (RFC 7427), made by the driver.
    Certificate {
        /// Our certificate first, then what leads towards the anchor; DER.
        chain: Vec<Vec<u8>>,
        /// The driver's name for the private key.
        key: String,
        /// What the key can do.
        kind: KeyKind,
    },
}

/// How the peer proves who it is.
#[derive(Clone, Debug)]
pub enum RemoteAuth {
    /// Shared Key Message Integrity Code.
    Psk(Secret),
    /// Digital signature by a certificate under one of [`Config::trust_anchors`].
    Certificate,
}

/// One suite for an IKE SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IkeProposal {
    /// Cipher of the Encrypted payload.
    pub encryption: Encryption,
    /// Integrity; `None` exactly if `encryption` is an AEAD.
    pub integrity: Option<Integrity>,
    /// Pseudo-random function.
    pub prf: Prf,
    /// Key exchange.
    pub group: Group,
}

/// One suite for a child SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EspProposal {
    /// Cipher.
    pub encryption: Encryption,
    /// Integrity; `None` exactly if `encryption` is an AEAD.
    pub integrity: Option<Integrity>,
    /// Key exchange of its own at a rekey (perfect forward secrecy); the first child takes its keys from the IKE SA.
    pub group: Option<Group>,
}

/// What lies on the peer's side of the tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RemoteSelectors {
    /// These networks.
    Networks(Vec<TrafficSelector>),
    /// The one address that it is given from this pool.
    Pool(String),
}

/// When keys are replaced. A rekey starts up to `jitter` earlier, so that SAs that began together do not end together.
#[derive(Clone, Copy, Debug)]
pub struct Lifetimes {
    /// Age at which an IKE SA is rekeyed.
    pub ike_rekey: Duration,
    /// Age at which an IKE SA that was not rekeyed ends.
    pub ike_max: Duration,
    /// Age at which a child SA is rekeyed.
    pub child_rekey: Duration,
    /// Age at which a child SA that was not rekeyed ends.
    pub child_max: Duration,
    /// Largest random part that is taken off a rekey time.
    pub jitter: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ending_takes_names_of_its_own_kind_only() {
        let host = RemoteIdentity::Suffix(".branch.example.org".into());
        let mail = RemoteIdentity::Suffix("@example.org".into());
        for (identity, by_host, by_mail) in [
            ("gw.Branch.example.ORG", true, false),
            ("branch.example.org", false, false),
            ("mallory@x.branch.example.org", false, false),
            ("carol@example.org", false, true),
            ("192.0.2.1", false, false),
        ] {
            let identity: Identity = identity.parse().unwrap();
            assert_eq!((host.allows(&identity), mail.allows(&identity)), (by_host, by_mail), "{identity}");
        }
        assert!(!mail.allows(&Identity::Fqdn("carol@example.org".into())));
        assert!(!mail.allows(&Identity::Rfc822("@example.org".into())));
    }
}
