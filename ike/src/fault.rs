//! What a peer can do wrong, and why an SA ends.

/// Declares an enum without data together with the list and the label of its variants.
macro_rules! labelled {
    ($(#[$meta:meta])* pub enum $name:ident { $( $(#[$variant_meta:meta])* $variant:ident = $label:literal, )* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $( $(#[$variant_meta])* $variant, )* }

        impl $name {
            /// All of them, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The name in metrics and logs.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self { $(Self::$variant => $label,)* }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.label())
            }
        }
    };
}

labelled! {
    /// Why something that a peer sent was refused; each has a counter.
    pub enum Refusal {
        /// The bytes are no IKE message.
        Malformed = "malformed",
        /// A major version other than 2 (RFC 7296 §2.5).
        Version = "version",
        /// An exchange that we do not speak, or not in this state.
        Exchange = "exchange",
        /// No IKE SA has that SPI.
        UnknownSpi = "unknown_spi",
        /// This node does not own the work set.
        NotOwned = "not_owned",
        /// The integrity check failed.
        Integrity = "integrity",
        /// A message id outside the window of one.
        MessageId = "message_id",
        /// A request came again sooner than an answer is repeated.
        RepeatedTooSoon = "repeated_too_soon",
        /// A first request that is longer than any honest one.
        TooLong = "too_long",
        /// An authenticated message whose payloads are malformed (INVALID_SYNTAX).
        Syntax = "syntax",
        /// A critical payload of an unknown type (RFC 7296 §2.5).
        UnsupportedCriticalPayload = "unsupported_critical_payload",
        /// None of the offered suites is allowed.
        NoProposalChosen = "no_proposal_chosen",
        /// The key exchange is of another group than the chosen one.
        InvalidKe = "invalid_ke",
        /// The public value of the key exchange is no element of the group, or of small order.
        InvalidPublicValue = "invalid_public_value",
        /// A cookie was asked for.
        CookieRequired = "cookie_required",
        /// `half_open_max` or `sas_max` is reached.
        Full = "full",
        /// The peer's identity fits no connection.
        UnknownIdentity = "unknown_identity",
        /// The connection asks for another way of authentication.
        AuthMethod = "auth_method",
        /// The AUTH payload does not prove the identity.
        AuthFailed = "auth_failed",
        /// The certificate leads to no anchor, is out of date or does not name the identity.
        Certificate = "certificate",
        /// Our own key could not sign.
        OwnSignature = "own_signature",
        /// The traffic selectors have nothing in common with ours.
        TsUnacceptable = "ts_unacceptable",
        /// The pool has no address.
        NoAddress = "no_address",
        /// The peer did not ask for the address that it needs (FAILED_CP_REQUIRED).
        ConfigurationRequired = "configuration_required",
        /// The fragment does not fit those before it, or is beyond the bounds.
        Fragment = "fragment",
        /// A rekey or delete of a child SA that does not exist.
        ChildSaNotFound = "child_sa_not_found",
        /// It collides with what we are doing (TEMPORARY_FAILURE).
        TemporaryFailure = "temporary_failure",
        /// A further child SA, which we do not take.
        NoAdditionalSas = "no_additional_sas",
        /// An answer or notification that anybody could have sent.
        Unauthenticated = "unauthenticated",
    }
}

impl Refusal {
    /// The notification that tells the peer (RFC 7296 §3.10.1); `None` if it is told nothing.
    #[must_use]
    pub const fn notify(self) -> Option<u16> {
        match self {
            Self::UnsupportedCriticalPayload => Some(1),
            Self::Version => Some(5),
            Self::Syntax | Self::Exchange | Self::InvalidPublicValue => Some(7),
            Self::NoProposalChosen => Some(14),
            Self::InvalidKe => Some(17),
            Self::UnknownIdentity | Self::AuthMethod | Self::AuthFailed | Self::Certificate | Self::OwnSignature => {
                Some(24)
            }
            Self::NoAdditionalSas => Some(35),
            Self::NoAddress => Some(36),
            Self::ConfigurationRequired => Some(37),
            Self::TsUnacceptable => Some(38),
            Self::TemporaryFailure => Some(43),
            Self::ChildSaNotFound => Some(44),
            Self::CookieRequired => Some(16390),
            Self::Malformed
            | Self::UnknownSpi
            | Self::NotOwned
            | Self::Integrity
            | Self::MessageId
            | Self::RepeatedTooSoon
            | Self::TooLong
            | Self::Full
            | Self::Fragment
            | Self::Unauthenticated => None,
        }
    }
}

labelled! {
    /// Why an IKE SA or a child SA ended.
    pub enum Reason {
        /// The peer deleted it.
        PeerDeleted = "peer_deleted",
        /// The operator ended it.
        OperatorDeleted = "operator_deleted",
        /// The peer does not answer.
        PeerSilent = "peer_silent",
        /// The peer did not finish IKE_AUTH in time.
        HalfOpenTimeout = "half_open_timeout",
        /// Its time was up before a rekey succeeded.
        Expired = "expired",
        /// A new SA replaced it.
        Rekeyed = "rekeyed",
        /// The same identity connected anew.
        Superseded = "superseded",
        /// No IV is left for its key (its epochs or counter are used up).
        IvExhausted = "iv_exhausted",
        /// The peer could not prove who it is.
        AuthenticationFailed = "authentication_failed",
        /// The peer refused our proof of who we are.
        AuthenticationRefused = "authentication_refused",
        /// No suite, address or traffic selector in common.
        NegotiationFailed = "negotiation_failed",
        /// Our own key could not sign.
        OwnSignature = "own_signature",
        /// An authenticated message of the peer broke the protocol.
        ProtocolError = "protocol_error",
        /// The peer no longer knows it.
        ChildSaNotFound = "child_sa_not_found",
        /// A take-over did not find its record, or could not read it.
        RecordLost = "record_lost",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn no_two_share_a_label() {
        let labels: HashSet<_> = Refusal::ALL.iter().map(|r| r.label()).collect();
        assert_eq!(labels.len(), Refusal::ALL.len());
        let labels: HashSet<_> = Reason::ALL.iter().map(|r| r.label()).collect();
        assert_eq!(labels.len(), Reason::ALL.len());
    }
}
