//! CREATE_CHILD_SA for a child SA (RFC 7296 §1.3.3, §2.8), both roles.

use std::sync::Arc;
use std::time::Duration;

use crypto::{DhPrivate, Group};
use wire::{Secret, Spi, Time};

use crate::authenticate::error_notify;
use crate::child::{self, Made};
use crate::config::{Connection, EspProposal};
use crate::core::{Core, connection};
use crate::deadline::Deadline;
use crate::fault::{Reason, Refusal};
use crate::message::header::ExchangeType;
use crate::message::notify::{Notify, NotifyType};
use crate::message::payload::{KeyExchange, PayloadType, PayloadWriter, Payloads, decode_nonce};
use crate::message::proposal::{self, WithGroup};
use crate::message::selectors;
use crate::output::{Event, Path, Role};
use crate::sa::{ChildFate, Exchange, Group16, InFlight, RequestKind, Sa};

/// Time a peer has to delete an SA that it replaced; then we do. Our policy.
pub(crate) const SUPERSEDED_MAX: Duration = Duration::from_secs(60);
/// Time until we try again after TEMPORARY_FAILURE; a random part up to as much again is added. RFC 7296 §2.25 asks for a wait.
pub(crate) const RETRY_AFTER: Duration = Duration::from_secs(3);
/// Time until we try again after another error. Our policy.
pub(crate) const RETRY_AFTER_ERROR: Duration = Duration::from_secs(60);
/// Child SAs of one IKE SA at the most, replaced ones included: a peer that deletes none has to wait. Our policy; two ends
/// that rekey at once and repeat it need four.
pub(crate) const CHILDREN_MAX: usize = 8;
/// Octets of our nonces.
const NONCE_LEN: usize = 32;
/// Groups that a peer may use for a rekey where we ask for none: more than we want is welcome.
const GROUPS: [Group; 3] = [Group::Curve25519, Group::Ecp256, Group::Modp2048];

/// Why a request was refused, with the group to use instead, if that is why.
pub(crate) struct RekeyRefusal(pub(crate) Refusal, pub(crate) Option<Group>);

impl From<Refusal> for RekeyRefusal {
    fn from(refusal: Refusal) -> Self {
        Self(refusal, None)
    }
}

/// Takes a request to rekey the child whose packets to the peer carry `spi_out`.
pub(crate) fn on_request(
    core: &mut Core,
    now: Time,
    sa: &mut Sa,
    payloads: &Payloads<'_>,
    spi_out: Spi,
) -> Result<PayloadWriter, RekeyRefusal> {
    let config = Arc::clone(&core.config);
    let connection = connection(&config, &sa.state.connection).ok_or(Refusal::NoProposalChosen)?;
    let old = sa.state.children.iter().find(|c| c.spi_out == spi_out).ok_or(Refusal::ChildSaNotFound)?;
    let (old_spi, old_local, old_remote, fate) = (old.spi_in, old.local.clone(), old.remote.clone(), old.fate);
    // RFC 7296 §2.25: what is being closed, or lies under a rekey of its IKE SA, must wait.
    let busy = match sa.state.in_flight.as_deref().map(|f| f.kind) {
        Some(RequestKind::RekeyIke | RequestKind::DeleteIke) => true,
        Some(RequestKind::DeleteChild(spi)) => spi == old_spi,
        Some(RequestKind::RekeyChild(_) | RequestKind::Liveness | RequestKind::Init | RequestKind::Auth) | None => {
            false
        }
    };
    if busy || fate != ChildFate::Active || sa.state.children.len() >= CHILDREN_MAX {
        return Err(Refusal::TemporaryFailure.into());
    }
    let syntax = |_| RekeyRefusal::from(Refusal::Syntax);
    let offered = payloads.exactly_one(PayloadType::SecurityAssociation).and_then(proposal::decode).map_err(syntax)?;
    let peer_nonce = payloads.exactly_one(PayloadType::Nonce).and_then(decode_nonce).map_err(syntax)?;
    let ke = payloads.at_most_one(PayloadType::KeyExchange).map_err(syntax)?;
    let ke = ke.map(KeyExchange::decode).transpose().map_err(syntax)?;
    let (chosen, suite) = proposal::choose_esp(&offered, &suites(connection, ke.map(|k| k.group)), WithGroup::Yes)
        .ok_or(Refusal::NoProposalChosen)?;
    let spi_peer = chosen.child_spi().ok_or(Refusal::Syntax)?;
    let remote = payloads.exactly_one(PayloadType::TsInitiator).and_then(selectors::decode).map_err(syntax)?;
    let local = payloads.exactly_one(PayloadType::TsResponder).and_then(selectors::decode).map_err(syntax)?;
    // RFC 7296 §2.9.2: a rekeyed child keeps its selectors, and with them the inner address.
    let (local, remote) = (selectors::narrow(&local, &old_local), selectors::narrow(&remote, &old_remote));
    if local.is_empty() || remote.is_empty() {
        return Err(Refusal::TsUnacceptable.into());
    }
    let agreed = match suite.group {
        None => None,
        Some(group) => Some(agree(core, group, ke)?),
    };
    let nonce = core.random::<NONCE_LEN>();
    let spi_in = core.draw_child_spi(sa.state.home());
    let mut w = PayloadWriter::new();
    w.payload(PayloadType::SecurityAssociation, |w| {
        proposal::encode_esp_choice(w, &suite, spi_in, chosen.number);
    });
    w.payload(PayloadType::Nonce, |w| w.bytes(&nonce));
    if let Some((group, public, _)) = &agreed {
        w.payload(PayloadType::KeyExchange, |w| KeyExchange { group: group.iana(), data: public }.encode(w));
    }
    let shared = agreed.map(|(_, _, shared)| shared);
    let made = Made { suite, spi_out: spi_peer, local, remote, nonces: (peer_nonce, &nonce), shared };
    child::install(core, now, sa, connection, Role::Responder, spi_in, made, Some(old_spi));
    child::write_selectors(&mut w, sa, spi_in, Role::Responder);
    if let Some(old) = sa.state.child_mut(old_spi) {
        old.fate = ChildFate::PeerDeletes;
        old.rekey_at = Deadline::NEVER;
        old.end_at = Deadline::after(now, SUPERSEDED_MAX);
    }
    if let Some(InFlight { kind: RequestKind::RekeyChild(spi), exchange: Some(exchange), .. }) =
        sa.state.in_flight.as_deref_mut()
        && *spi == old_spi
    {
        exchange.rival = Some(spi_in.0.into());
        exchange.rival_nonce = Some(peer_nonce.min(&nonce[..]).into());
    }
    core.counters.child_rekeyed = core.counters.child_rekeyed.saturating_add(1);
    sa.state.child_rekeys = sa.state.child_rekeys.saturating_add(1);
    core.event(Event::ChildRekeyed { session: sa.state.session, spi_in, replaces: old_spi });
    Ok(w)
}

/// Our suites for a rekey: those of the connection, and where they have no group, the same with the peer's.
fn suites(connection: &Connection, group: Option<u16>) -> Vec<EspProposal> {
    let group = group.and_then(Group::from_iana).filter(|g| GROUPS.contains(g));
    let own = connection.esp_proposals.iter().copied();
    let more = connection.esp_proposals.iter().filter(|s| s.group.is_none() && group.is_some());
    own.chain(more.map(|s| EspProposal { group, ..*s })).collect()
}

/// What we offer for a rekey: the suites of the connection, and behind them, where they have no group, the same with each
/// group, for a peer that demands forward secrecy.
fn offer(connection: &Connection) -> Vec<EspProposal> {
    let own = connection.esp_proposals.iter().copied();
    let plain = connection.esp_proposals.iter().filter(|s| s.group.is_none());
    own.chain(plain.flat_map(|s| GROUPS.map(|group| EspProposal { group: Some(group), ..*s }))).collect()
}

/// The responder's half of a key exchange: our public value and the secret.
pub(crate) fn agree(
    core: &mut Core,
    group: Group,
    ke: Option<KeyExchange<'_>>,
) -> Result<(Group, Vec<u8>, Secret), RekeyRefusal> {
    let ke = ke.filter(|ke| ke.group == group.iana()).ok_or(RekeyRefusal(Refusal::InvalidKe, Some(group)))?;
    let private = DhPrivate::new(group, &core.random());
    let shared = private.agree(ke.data).map_err(|_| Refusal::InvalidPublicValue)?;
    Ok((group, private.public(), shared))
}

/// Asks the peer to rekey a child; `group` if it asked for that one.
pub(crate) fn send_request(core: &mut Core, now: Time, sa: &mut Sa, spi_in: Spi, group: Option<Group>) {
    let config = Arc::clone(&core.config);
    let Some(connection) = connection(&config, &sa.state.connection) else {
        return try_later(now, sa, spi_in);
    };
    let offer = offer(connection);
    let Some(old) = sa.state.children.iter().find(|c| c.spi_in == spi_in) else { return };
    let (local, remote) = (old.local.clone(), old.remote.clone());
    let group = group.or_else(|| offer.iter().find_map(|s| s.group));
    let nonce = core.random::<NONCE_LEN>();
    let new = core.draw_child_spi(sa.state.home());
    let seed = core.random::<{ DhPrivate::SEED_LEN }>();
    let mut w = PayloadWriter::new();
    w.payload(PayloadType::Notify, |w| {
        // RFC 7296 §1.3.3: the SPI that we, who send this, expect in packets to us.
        Notify { spi: Some(spi_in), kind: NotifyType::REKEY_SA, data: &[] }.encode(w);
    });

    w.payload(PayloadType::SecurityAssociation, |w| {
        proposal::encode_esp(w, &offer, new, WithGroup::Yes);
    });
    w.payload(PayloadType::Nonce, |w| w.bytes(&nonce));
    if let Some(group) = group {
        let public = DhPrivate::new(group, &seed).public();
        w.payload(PayloadType::KeyExchange, |w| KeyExchange { group: group.iana(), data: &public }.encode(w));
    }
    w.payload(PayloadType::TsInitiator, |w| selectors::encode(w, &local));
    w.payload(PayloadType::TsResponder, |w| selectors::encode(w, &remote));
    let exchange = Exchange {
        nonce: nonce.into(),
        seed: group.map(|_| Secret::from_slice(&seed)),
        group: group.map(Group16),
        spi: new.0.into(),
        rival: None,
        rival_nonce: None,
        local,
        remote,
        unknown: Default::default(),
    };
    core.request(now, sa, ExchangeType::CreateChildSa, RequestKind::RekeyChild(spi_in), &w, Some(Box::new(exchange)));
}

/// Takes the answer to our request to rekey `old`.
pub(crate) fn on_answer(
    core: &mut Core,
    now: Time,
    sa: &mut Sa,
    path: Path,
    payloads: &Payloads<'_>,
    old: Spi,
    exchange: &Exchange,
) {
    if let Some(error) = error_notify(payloads) {
        on_error(core, now, sa, payloads, old, exchange, error);
        return;
    }
    let config = Arc::clone(&core.config);
    let made = match connection(&config, &sa.state.connection) {
        Some(connection) => made(connection, payloads, exchange).map(|made| (connection, made)),
        None => Err(Refusal::NoProposalChosen),
    };
    let (connection, made) = match made {
        Ok(made) => made,
        Err(refusal) => {
            // The peer has a child that we cannot have: only the end of the IKE SA brings both to one mind again.
            core.refuse(path, refusal, None);
            sa.state.closing = Some(Reason::ProtocolError);
            return;
        }
    };
    let Ok(new) = u32::try_from(exchange.spi).map(Spi) else { return };
    let lowest = made.nonces.0.min(made.nonces.1).to_vec();
    child::install(core, now, sa, connection, Role::Initiator, new, made, Some(old));
    core.counters.child_rekeyed = core.counters.child_rekeyed.saturating_add(1);
    sa.state.child_rekeys = sa.state.child_rekeys.saturating_add(1);
    core.event(Event::ChildRekeyed { session: sa.state.session, spi_in: new, replaces: old });
    let ours_lost = exchange.rival_nonce.as_ref().is_some_and(|rival| lowest < rival.to_vec());
    let rival = exchange.rival.and_then(|spi| u32::try_from(spi).ok()).map(Spi);
    // RFC 7296 §2.8.1: the exchange with the lowest of the four nonces made the superfluous SA, and who began that
    // exchange deletes it; who began the other one deletes the old SA.
    let (we_delete, peer_deletes) = if ours_lost { (new, None) } else { (old, rival) };
    if let Some(child) = sa.state.child_mut(we_delete) {
        child.fate = ChildFate::WeDelete(Reason::Rekeyed);
        child.rekey_at = Deadline::NEVER;
    }
    if let Some(child) = peer_deletes.and_then(|spi| sa.state.child_mut(spi)) {
        child.fate = ChildFate::PeerDeletes;
        child.rekey_at = Deadline::NEVER;
        child.end_at = Deadline::after(now, SUPERSEDED_MAX);
    }
}

fn made<'n>(connection: &Connection, payloads: &Payloads<'n>, exchange: &'n Exchange) -> Result<Made<'n>, Refusal> {
    let syntax = |_| Refusal::Syntax;
    let nonce_r = payloads.exactly_one(PayloadType::Nonce).and_then(decode_nonce).map_err(syntax)?;
    let group = exchange.group.map(|g| g.0);
    let offered: Vec<EspProposal> =
        offer(connection).into_iter().filter(|s| s.group.is_none() || s.group == group).collect();
    let mut made = child::made(
        payloads,
        Role::Initiator,
        (&offered, WithGroup::Yes),
        (&exchange.local, &exchange.remote),
        (&exchange.nonce, nonce_r),
    )?;
    if made.suite.group.is_some() {
        let ke = payloads.exactly_one(PayloadType::KeyExchange).and_then(KeyExchange::decode).map_err(syntax)?;
        let private = exchange.private().filter(|p| p.group().iana() == ke.group).ok_or(Refusal::InvalidKe)?;
        made.shared = Some(private.agree(ke.data).map_err(|_| Refusal::InvalidPublicValue)?);
    }
    Ok(made)
}

fn on_error(
    core: &mut Core,
    now: Time,
    sa: &mut Sa,
    payloads: &Payloads<'_>,
    old: Spi,
    exchange: &Exchange,
    error: NotifyType,
) {
    if exchange.rival.is_some() {
        // The peer's own rekey of the same child stands, and it deletes the old one.
        return;
    }
    match error {
        NotifyType::TEMPORARY_FAILURE => postpone(core, now, sa, RETRY_AFTER),
        NotifyType::CHILD_SA_NOT_FOUND => {
            // RFC 7296 §2.25: the peer has none; ours goes silently.
            child::remove(core, sa, old, Reason::ChildSaNotFound);
            if sa.state.children.is_empty() {
                sa.state.closing = Some(Reason::ChildSaNotFound);
            }
        }
        NotifyType::INVALID_KE_PAYLOAD => {
            let wanted = wanted_group(payloads);
            let config = Arc::clone(&core.config);
            let offered = connection(&config, &sa.state.connection)
                .is_some_and(|c| offer(c).iter().any(|s| s.group.is_some() && s.group == wanted));
            if offered && wanted != exchange.group.map(|g| g.0) {
                send_request(core, now, sa, old, wanted);
            } else {
                try_later(now, sa, old);
            }
        }
        _ => try_later(now, sa, old),
    }
}

/// The child is not rekeyed for a while; its lifetime goes on, and so does all else.
fn try_later(now: Time, sa: &mut Sa, spi_in: Spi) {
    if let Some(child) = sa.state.child_mut(spi_in) {
        child.rekey_at = Deadline::after(now, RETRY_AFTER_ERROR);
    }
}

/// The group that INVALID_KE_PAYLOAD names.
pub(crate) fn wanted_group(payloads: &Payloads<'_>) -> Option<Group> {
    payloads
        .all(PayloadType::Notify)
        .filter_map(|payload| Notify::decode(payload).ok())
        .find(|notify| notify.kind == NotifyType::INVALID_KE_PAYLOAD)
        .and_then(|notify| <[u8; 2]>::try_from(notify.data).ok())
        .and_then(|data| Group::from_iana(u16::from_be_bytes(data)))
}

/// No request of ours for a while, a random part added so that two ends do not collide again.
pub(crate) fn postpone(core: &mut Core, now: Time, sa: &mut Sa, wait: Duration) {
    let latest = Duration::from_nanos(u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX).saturating_mul(2));
    sa.state.hold_until = core.jittered(now, latest, wait);
}

#[cfg(test)]
mod tests;
