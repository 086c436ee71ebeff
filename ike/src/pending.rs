//! What an exchange keeps while the driver answers a question.

use std::net::IpAddr;

use auth::Identity;
use wire::{Spi, TrafficSelector};

use crate::config::EspProposal;
use crate::fault::Refusal;
use crate::output::{Path, RequestId};

/// An exchange that waits for the driver. It is not replicated: after a take-over the peer repeats its request, or we ours.
#[derive(Debug)]
pub(crate) struct Pending {
    /// The question that it waits for.
    pub(crate) request: RequestId,
    pub(crate) exchange: PendingExchange,
}

#[derive(Debug)]
pub(crate) enum PendingExchange {
    /// Responder: IKE_AUTH was verified, an address is asked for.
    Address(Box<Verified>),
    /// Responder: our signature is asked for.
    AnswerSignature(Box<Verified>, crypto::SignatureScheme),
    /// Initiator: the signature of our IKE_AUTH request is asked for.
    RequestSignature(crypto::SignatureScheme),
}

/// An IKE_AUTH request that proved who sent it.
#[derive(Debug)]
pub(crate) struct Verified {
    pub(crate) path: Path,
    pub(crate) connection: String,
    pub(crate) identity: Identity,
    pub(crate) initial_contact: bool,
    pub(crate) child: Result<ChildOffer, Refusal>,
    /// Whether a configuration payload asked for an address.
    pub(crate) address_wanted: bool,
    /// The address that the peer would like.
    pub(crate) previous: Option<IpAddr>,
    /// The address that it gets.
    pub(crate) address: Option<IpAddr>,
}

/// A child SA that the peer offered and we can take.
#[derive(Debug)]
pub(crate) struct ChildOffer {
    pub(crate) number: u8,
    pub(crate) suite: EspProposal,
    pub(crate) spi_out: Spi,
    /// The peer's side as it offered it.
    pub(crate) remote: Vec<TrafficSelector>,
    /// Our side as it offered it.
    pub(crate) local: Vec<TrafficSelector>,
}
