//! Child SAs: what an exchange agreed on becomes a pair of ESP SAs.

use wire::{Secret, Spi, Time, TrafficSelector};

use crate::config::{Connection, EspProposal};
use crate::core::Core;
use crate::deadline::Deadline;
use crate::fault::{Reason, Refusal};
use crate::keys::ChildKeys;
use crate::message::payload::{PayloadType, PayloadWriter, Payloads};
use crate::message::proposal::{self, WithGroup};
use crate::message::selectors;
use crate::output::{ChildSa, Output, Role};
use crate::sa::{Child, ChildFate, Sa};

/// What both ends agreed on for a child SA.
pub(crate) struct Made<'n> {
    pub(crate) suite: EspProposal,
    pub(crate) spi_out: Spi,
    pub(crate) local: Vec<TrafficSelector>,
    pub(crate) remote: Vec<TrafficSelector>,
    /// Ni and Nr of the exchange.
    pub(crate) nonces: (&'n [u8], &'n [u8]),
    /// The secret of its own key exchange.
    pub(crate) shared: Option<Secret>,
}

/// Reads the answer to an offer of ours: one proposal out of ours, selectors within ours.
pub(crate) fn made<'n>(
    payloads: &Payloads<'_>,
    role: Role,
    offer: (&[EspProposal], WithGroup),
    selectors_offer: (&[TrafficSelector], &[TrafficSelector]),
    nonces: (&'n [u8], &'n [u8]),
) -> Result<Made<'n>, Refusal> {
    let syntax = |_| Refusal::Syntax;
    let chosen = payloads.exactly_one(PayloadType::SecurityAssociation).and_then(proposal::decode).map_err(syntax)?;
    let (proposal, suite) = proposal::choose_esp(&chosen, offer.0, offer.1)
        .filter(|_| chosen.len() == 1)
        .ok_or(Refusal::NoProposalChosen)?;
    let spi_out = proposal.child_spi().ok_or(Refusal::Syntax)?;
    let (ours, theirs) = sides(role);
    let local = payloads.exactly_one(ours).and_then(selectors::decode).map_err(syntax)?;
    let remote = payloads.exactly_one(theirs).and_then(selectors::decode).map_err(syntax)?;
    // RFC 7296 §2.9: the answer may only narrow; what is wider is cut back.
    let local = selectors::narrow(&local, selectors_offer.0);
    let remote = selectors::narrow(&remote, selectors_offer.1);
    if local.is_empty() || remote.is_empty() {
        return Err(Refusal::TsUnacceptable);
    }
    Ok(Made { suite, spi_out, local, remote, nonces, shared: None })
}

/// The payloads of our selectors and of the peer's, for our role in the exchange.
pub(crate) const fn sides(role: Role) -> (PayloadType, PayloadType) {
    match role {
        Role::Initiator => (PayloadType::TsInitiator, PayloadType::TsResponder),
        Role::Responder => (PayloadType::TsResponder, PayloadType::TsInitiator),
    }
}

/// Writes TSi and TSr of a child that stands.
pub(crate) fn write_selectors(w: &mut PayloadWriter, sa: &Sa, spi_in: Spi, role: Role) {
    let Some(child) = sa.state.children.iter().find(|c| c.spi_in == spi_in) else { return };
    let (initiator, responder) = match role {
        Role::Initiator => (&child.local, &child.remote),
        Role::Responder => (&child.remote, &child.local),
    };
    w.payload(PayloadType::TsInitiator, |w| selectors::encode(w, initiator));
    w.payload(PayloadType::TsResponder, |w| selectors::encode(w, responder));
}

/// Takes a child into the SA and has it installed.
#[expect(clippy::too_many_arguments, reason = "one place where all that makes a child meets")]
pub(crate) fn install(
    core: &mut Core,
    now: Time,
    sa: &mut Sa,
    connection: &Connection,
    role: Role,
    spi_in: Spi,
    made: Made<'_>,
    replaces: Option<Spi>,
) {
    let (Some(suite), Some(keys)) = (&sa.state.suite, &sa.state.keys) else { return };
    let derived = ChildKeys::derive((suite.prf, &keys.d), &made.suite, made.shared.as_ref(), made.nonces, role);
    let lifetimes = &connection.lifetimes;
    core.output(Output::InstallChild(Box::new(ChildSa {
        session: sa.state.session,
        ike: sa.state.our_spi(),
        spi_in,
        spi_out: made.spi_out,
        encryption: made.suite.encryption,
        integrity: made.suite.integrity,
        key_in: derived.key_in,
        key_out: derived.key_out,
        integ_in: derived.integ_in,
        integ_out: derived.integ_out,
        local: made.local.clone(),
        remote: made.remote.clone(),
        path: sa.state.path(),
        encapsulated: sa.state.encapsulated,
        inner_address: sa.state.inner_address,
        replaces,
        role,
        lifetime_max: lifetimes.child_max,
    })));
    sa.state.children.push(Child {
        spi_in,
        spi_out: made.spi_out,
        suite: made.suite,
        local: made.local,
        remote: made.remote,
        fate: ChildFate::Active,
        rekey_at: core.jittered(now, lifetimes.child_rekey, lifetimes.jitter),
        end_at: Deadline::after(now, lifetimes.child_max),
        unknown: Default::default(),
    });
    sa.state.children.shrink_to_fit();
}

/// Takes a child out of the SA and has it removed.
pub(crate) fn remove(core: &mut Core, sa: &mut Sa, spi_in: Spi, reason: Reason) {
    let before = sa.state.children.len();
    sa.state.children.retain(|c| c.spi_in != spi_in);
    if sa.state.children.len() < before {
        core.remove_child(spi_in, reason);
    }
}
