//! Addresses out of pools, cluster-wide: the owner of the work set that a pool's name hashes to gives them out; all
//! others ask it.

use std::net::IpAddr;

use wire::{DecodeError, RecordId, RecordKind, WorkSet, record};

record! {
    /// An address that was given: the record `POOL_LEASE`, by address, in the pool's set.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct PoolLease {
        /// The pool's name.
        1 => pub pool: String,
        /// ID type of who has it, as IKE numbers it.
        2 => pub id_type: u8,
        /// Its ID data.
        3 => pub id_data: Box<[u8]>,
        /// Whether it is in use; else it is kept for its last holder.
        4 => pub in_use: bool,
        /// The session that holds it, or held it last.
        5 => pub session: u64,
    }
}

record! {
    /// A question for an address.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct AddressAsked {
        /// Names the question at the node that asks.
        1 => pub question: u64,
        /// The pool.
        2 => pub pool: String,
        /// Who wants one: ID type.
        3 => pub id_type: u8,
        /// ID data.
        4 => pub id_data: Box<[u8]>,
        /// The address that it had or asks for.
        5 => pub wish: Option<IpAddr>,
        /// For which session. Asked again for the same one, the pool gives the same address.
        6 => pub session: u64,
    }
}

record! {
    /// The answer.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct AddressGiven {
        /// The question.
        1 => pub question: u64,
        /// The address; none if the pool is used up.
        2 => pub address: Option<IpAddr>,
    }
}

record! {
    /// An address comes back.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct AddressReturned {
        /// The pool.
        1 => pub pool: String,
        /// The address.
        2 => pub address: IpAddr,
        /// The session that had it; from any other it is not taken back.
        3 => pub session: u64,
    }
}

/// What two nodes' runtimes say to each other about addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    /// To the pool's owner.
    Asked(AddressAsked),
    /// To who asked.
    Given(AddressGiven),
    /// To the pool's owner.
    Returned(AddressReturned),
}

impl Word {
    /// Writes it, behind a number that tells the kinds apart.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        use wire::Record;
        let (kind, body) = match self {
            Self::Asked(word) => (1, word.to_bytes()),
            Self::Given(word) => (2, word.to_bytes()),
            Self::Returned(word) => (3, word.to_bytes()),
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
        use wire::Record;
        let Some((kind, body)) = bytes.split_first() else { return Ok(None) };
        Ok(Some(match kind {
            1 => Self::Asked(AddressAsked::from_bytes(body)?),
            2 => Self::Given(AddressGiven::from_bytes(body)?),
            3 => Self::Returned(AddressReturned::from_bytes(body)?),
            _ => return Ok(None),
        }))
    }
}

/// The work set whose owner gives out a pool's addresses.
#[must_use]
pub fn home_of_pool(name: &str) -> WorkSet {
    // FNV-1a: all nodes must agree, and nobody outside chooses a pool's name.
    let hash = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, octet| (hash ^ u64::from(octet)).wrapping_mul(0x0000_0100_0000_01b3));
    WorkSet::from_low_bits(hash ^ hash >> 32)
}

/// The record of an address.
#[must_use]
pub fn record_of(pool: &str, address: IpAddr) -> RecordId {
    let key = match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    };
    RecordId { set: home_of_pool(pool), kind: RecordKind::POOL_LEASE, key }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::UnknownFields;

    #[test]
    fn words_survive_the_way() {
        let words = [
            Word::Asked(AddressAsked {
                question: 5,
                pool: "staff".into(),
                id_type: 2,
                id_data: b"carol".as_slice().into(),
                wish: Some("10.9.0.4".parse().unwrap()),
                session: 77,
                unknown: UnknownFields::default(),
            }),
            Word::Given(AddressGiven { question: 5, address: None, unknown: UnknownFields::default() }),
            Word::Returned(AddressReturned {
                pool: "staff".into(),
                address: "10.9.0.4".parse().unwrap(),
                session: 77,
                unknown: UnknownFields::default(),
            }),
        ];
        for word in words {
            assert_eq!(Word::from_bytes(&word.to_bytes()), Ok(Some(word)));
        }
        assert_eq!(Word::from_bytes(&[99, 1, 2]), Ok(None));
        assert!(Word::from_bytes(&[1, 0]).is_err());
    }

    #[test]
    fn pools_of_different_names_have_different_homes() {
        assert_ne!(home_of_pool("staff"), home_of_pool("guests"));
    }
}
