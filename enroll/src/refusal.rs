//! Why a message was not accepted.

/// Why a message was not accepted; each is also a counter's label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// Lines are missing at the end.
    #[error("the message ends early: a line is missing at its end")]
    Short,
    /// There are lines after the end.
    #[error("the message has a line too many")]
    Long,
    /// A version other than 1.
    #[error("the message is of a version that this program does not know")]
    Version,
    /// The message is of another type than asked for.
    #[error("the message is of another kind: a reply where a request belongs, or the other way round")]
    Kind,
    /// The ticket number is not that of the code.
    #[error("the message belongs to another code")]
    OtherTicket,
    /// A bit after the end is set.
    #[error("the filling after the message is not zero")]
    Padding,
    /// A six-bit group that is no character.
    #[error("a text in the message has a character that does not exist")]
    Character,
    /// A text of no characters.
    #[error("a text in the message is empty")]
    EmptyText,
    /// A number of blocks other than the blocks given.
    #[error("the message speaks of another number of blocks than were given")]
    Blocks,
    /// A block is longer than 65,535 octets.
    #[error("a block is longer than 65535 octets")]
    BlockLength,
    /// The MAC does not hold: wrong code, a changed message, or lines of two messages.
    #[error("the message is not from the holder of this code, or it was changed")]
    Mac,
    /// A rejection's reason that is not assigned.
    #[error("the reason is not assigned")]
    Reason,
    /// The key's algorithm is not assigned, or cannot stand in this message.
    #[error("the key's algorithm cannot be used here")]
    Algorithm,
    /// The octets are no key that may be used.
    #[error("the key is invalid: {0}")]
    Key(#[from] KeyRefusal),
    /// The issuing CA's key is the client's own.
    #[error("the CA's key is the client's own")]
    CaKey,
    /// A cluster's or client's name breaks the rules of names.
    #[error("a name breaks the rules of names")]
    Name,
    /// The serial is zero.
    #[error("the serial is zero")]
    Serial,
    /// The certificate is valid for no day, or beyond day 65535.
    #[error("the certificate's days are out of range")]
    Days,
    /// The MAC holds and the signature does not: the programs differ.
    #[error("the two programs build certificates differently")]
    Signature,
    /// The certificate in a full reply is for another key.
    #[error("the certificate is for another key")]
    OtherKey,
    /// A block of a full reply is no certificate.
    #[error("a block is no certificate")]
    Certificate,
    /// A certificate that should hand trust on is not a CA's.
    #[error("the certificate is not a CA's")]
    NoAuthority,
}

impl Refusal {
    /// How much the refusal says about a text as a whole, when its readings were refused for different reasons.
    pub(crate) const fn weight(self) -> u8 {
        match self {
            Self::Blocks | Self::BlockLength => 3,
            Self::Mac => 2,
            Self::Short => 1,
            Self::Long
            | Self::Version
            | Self::Kind
            | Self::OtherTicket
            | Self::Padding
            | Self::Character
            | Self::EmptyText => 0,
            Self::Reason
            | Self::Algorithm
            | Self::Key(_)
            | Self::CaKey
            | Self::Name
            | Self::Serial
            | Self::Days
            | Self::Signature
            | Self::OtherKey
            | Self::Certificate
            | Self::NoAuthority => PROVEN_WEIGHT,
        }
    }

    /// Whether the sender proved to know the code before this was found.
    ///
    /// Only then may an answer say more than one fixed sentence: else it would be an oracle.
    #[must_use]
    pub const fn is_of_a_proven_sender(self) -> bool {
        self.weight() == PROVEN_WEIGHT
    }
}

/// Why octets are no public key that may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum KeyRefusal {
    /// A P-256 x coordinate at or above the field's prime.
    #[error("the x coordinate is not reduced")]
    NotReduced,
    /// No point of the curve has this coordinate.
    #[error("there is no such point")]
    NoPoint,
    /// An Ed25519 key that RFC 8032 would write otherwise, or a parity where there is none.
    #[error("it is not written as the standard says")]
    NotCanonical,
    /// An Ed25519 point of small order.
    #[error("the point is of small order")]
    SmallOrder,
    /// An algorithm number that is not assigned.
    #[error("the algorithm is not assigned")]
    Algorithm,
}

/// The weight of what is found only after the MAC held.
const PROVEN_WEIGHT: u8 = 4;
