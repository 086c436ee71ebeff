//! What the runtimes of two nodes say to each other, besides records.

use std::net::SocketAddr;

use auth::Identity;
use ike::Path;
use wire::{DecodeError, Record, UnknownFields, WorkSet, record};

use super::pool;

record! {
    /// About the move of a set.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Moving {
        /// The set.
        1 => pub set: WorkSet,
    }
}

record! {
    /// An identity has connected anew and said INITIAL_CONTACT: its other sessions end (RFC 7296 §2.4).
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Superseded {
        /// ID type.
        1 => pub id_type: u8,
        /// ID data.
        2 => pub id_data: Box<[u8]>,
        /// The session that stays.
        3 => pub session: u64,
        /// The connection by which it came, and the others that end.
        4 => pub connection: String,
    }
}

record! {
    /// What has a node counted of moves?
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct MovedAsked {
        /// Names the question at the node that asks.
        1 => pub question: u64,
    }
}

record! {
    /// The answer; counts since the node's start.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct MovedTold {
        /// The question.
        1 => pub question: u64,
        /// Packets that found the queue of a moving set full.
        2 => pub lost: u64,
        /// Packets that both owners got and the new one dropped.
        3 => pub doubles_prevented: u64,
    }
}

impl Superseded {
    /// Names the identity, its connection and the session that stays.
    #[must_use]
    pub fn new(identity: &Identity, connection: &str, session: u64) -> Self {
        let (id_data, connection) = (identity.data().into(), connection.to_owned());
        Self { id_type: identity.id_type(), id_data, session, connection, unknown: UnknownFields::default() }
    }
}

/// A word from node to node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    /// About addresses out of pools.
    Pool(pool::Word),
    /// New owner of a planned move to the old one: keep digests of what you process from now on.
    Watch(Moving),
    /// The old owner does.
    Watching(Moving),
    /// To all members.
    Superseded(Superseded),
    /// To each member.
    MovedAsked(MovedAsked),
    /// To who asked.
    MovedTold(MovedTold),
}

impl Word {
    /// The new owner's word in a planned move.
    #[must_use]
    pub fn watch(set: WorkSet) -> Self {
        Self::Watch(Moving { set, unknown: UnknownFields::default() })
    }

    /// The old owner's answer.
    #[must_use]
    pub fn watching(set: WorkSet) -> Self {
        Self::Watching(Moving { set, unknown: UnknownFields::default() })
    }

    /// Writes it, behind a number that tells the kinds apart.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let (kind, body) = match self {
            Self::Pool(word) => return word.to_bytes(),
            Self::Watch(word) => (WATCH, word.to_bytes()),
            Self::Watching(word) => (WATCHING, word.to_bytes()),
            Self::Superseded(word) => (SUPERSEDED, word.to_bytes()),
            Self::MovedAsked(word) => (MOVED_ASKED, word.to_bytes()),
            Self::MovedTold(word) => (MOVED_TOLD, word.to_bytes()),
        };
        let mut bytes = vec![kind];
        bytes.extend_from_slice(&body);
        bytes
    }

    /// Reads it; `None` for a kind of a newer version.
    ///
    /// # Errors
    /// The bytes are no such word.
    pub fn from_bytes(bytes: &[u8]) -> Result<Option<Self>, DecodeError> {
        let Some((kind, body)) = bytes.split_first() else { return Ok(None) };
        Ok(match *kind {
            WATCH => Some(Self::Watch(Moving::from_bytes(body)?)),
            WATCHING => Some(Self::Watching(Moving::from_bytes(body)?)),
            SUPERSEDED => Some(Self::Superseded(Superseded::from_bytes(body)?)),
            MOVED_ASKED => Some(Self::MovedAsked(MovedAsked::from_bytes(body)?)),
            MOVED_TOLD => Some(Self::MovedTold(MovedTold::from_bytes(body)?)),
            _ => pool::Word::from_bytes(bytes)?.map(Self::Pool),
        })
    }
}

record! {
    /// A packet that reached a node which does not own its work set, on its one hop to the owner.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Stray {
        /// From where an outer datagram came; an inner packet has none.
        1 => remote: Option<SocketAddr>,
        /// The cluster's address and port that it was for.
        2 => local: Option<SocketAddr>,
        /// Whether an outer datagram is IKE; else it is ESP.
        3 => pub ike: bool = false,
        /// Its octets.
        4 => pub octets: Box<[u8]>,
    }
}

impl Stray {
    /// An IKE message, its marker off.
    #[must_use]
    pub fn ike(path: Path, octets: Vec<u8>) -> Self {
        Self { ike: true, ..Self::esp(path, octets) }
    }

    /// An ESP packet.
    #[must_use]
    pub fn esp(path: Path, octets: Vec<u8>) -> Self {
        let (remote, local) = (Some(path.remote), Some(path.local));
        Self { remote, local, ike: false, octets: octets.into(), unknown: UnknownFields::default() }
    }

    /// A packet for an inner address.
    #[must_use]
    pub fn inner(octets: Vec<u8>) -> Self {
        Self { remote: None, local: None, ike: false, octets: octets.into(), unknown: UnknownFields::default() }
    }

    /// The way of an outer datagram.
    #[must_use]
    pub fn path(&self) -> Option<Path> {
        Some(Path { local: self.local?, remote: self.remote? })
    }
}

/// Kinds of words; those of [`pool::Word`] lie below.
const WATCH: u8 = 16;
const WATCHING: u8 = 17;
const SUPERSEDED: u8 = 18;
const MOVED_ASKED: u8 = 19;
const MOVED_TOLD: u8 = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_reads_back_as_it_was_said() {
        let set = WorkSet::from_low_bits(7);
        let identity: Identity = "carol@example.org".parse().unwrap();
        let returned = pool::AddressReturned {
            pool: "staff".into(),
            address: "10.2.0.1".parse().unwrap(),
            session: 7,
            unknown: UnknownFields::default(),
        };
        for word in [
            Word::watch(set),
            Word::watching(set),
            Word::Superseded(Superseded::new(&identity, "road", 5)),
            Word::MovedAsked(MovedAsked { question: 1, unknown: UnknownFields::default() }),
            Word::MovedTold(MovedTold {
                question: 1,
                lost: 2,
                doubles_prevented: 3,
                unknown: UnknownFields::default(),
            }),
            Word::Pool(pool::Word::Returned(returned)),
        ] {
            assert_eq!(Word::from_bytes(&word.to_bytes()), Ok(Some(word)));
        }
        assert_eq!(Word::from_bytes(&[99, 0]), Ok(None));
        assert_eq!(Word::from_bytes(&[]), Ok(None));
    }

    #[test]
    fn a_stray_keeps_its_way() {
        let path = Path { local: "192.0.2.1:4500".parse().unwrap(), remote: "192.0.2.9:1027".parse().unwrap() };
        let stray = Stray::ike(path, vec![1, 2, 3]);
        let read = Stray::from_bytes(&stray.to_bytes()).unwrap();
        assert_eq!((read.path(), read.ike, &*read.octets), (Some(path), true, &[1, 2, 3][..]));
        assert_eq!(Stray::inner(vec![4]).path(), None);
    }
}
