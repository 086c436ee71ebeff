//! CREATE_CHILD_SA for the IKE SA itself (RFC 7296 §1.3.2, §2.18), both roles.

use std::sync::Arc;

use crypto::{DhPrivate, Group};
use wire::{Secret, Time};

use crate::authenticate::{arm, error_notify};
use crate::config::Connection;
use crate::core::{Command, Core, connection};
use crate::deadline::Deadline;
use crate::fault::{Reason, Refusal};
use crate::init::successor_state;
use crate::keys::{Freshness, Keys};
use crate::message::header::ExchangeType;
use crate::message::notify::NotifyType;
use crate::message::payload::{KeyExchange, PayloadType, PayloadWriter, Payloads, decode_nonce};
use crate::message::proposal;
use crate::output::{Event, Path, Role};
use crate::rekey_child::{RETRY_AFTER, RETRY_AFTER_ERROR, RekeyRefusal, SUPERSEDED_MAX, agree, postpone, wanted_group};
use crate::sa::{Exchange, Group16, InFlight, Phase, RequestKind, Sa};

const NONCE_LEN: usize = 32;

/// Takes a request to rekey the IKE SA.
pub(crate) fn on_request(
    core: &mut Core,
    now: Time,
    sa: &mut Sa,
    payloads: &Payloads<'_>,
) -> Result<PayloadWriter, RekeyRefusal> {
    // RFC 7296 §2.25.2: not while a child is in change, or while the SA is closing.
    let busy = match sa.state.in_flight.as_deref().map(|f| f.kind) {
        Some(RequestKind::RekeyChild(_) | RequestKind::DeleteChild(_) | RequestKind::DeleteIke) => true,
        Some(RequestKind::RekeyIke | RequestKind::Liveness | RequestKind::Init | RequestKind::Auth) | None => false,
    };
    // A second rekey of an SA whose first is not yet decided would make an SA that nobody counts.
    let undecided =
        sa.state.in_flight.as_deref().and_then(|f| f.exchange.as_deref()).is_some_and(|e| e.rival.is_some());
    // As long as the peer keeps the SA that this one replaced, it gets no third.
    if busy || undecided || sa.state.predecessor.is_some() {
        return Err(Refusal::TemporaryFailure.into());
    }
    let config = Arc::clone(&core.config);
    let connection = connection(&config, &sa.state.connection).ok_or(Refusal::NoProposalChosen)?;
    let syntax = |_| RekeyRefusal::from(Refusal::Syntax);
    let offered = payloads.exactly_one(PayloadType::SecurityAssociation).and_then(proposal::decode).map_err(syntax)?;
    let peer_nonce = payloads.exactly_one(PayloadType::Nonce).and_then(decode_nonce).map_err(syntax)?;
    let ke = payloads.exactly_one(PayloadType::KeyExchange).and_then(KeyExchange::decode).map_err(syntax)?;
    let same_group: Vec<_> = connection.ike_proposals.iter().copied().filter(|s| s.group.iana() == ke.group).collect();
    let (chosen, suite) = proposal::choose_ike(&offered, &same_group)
        .or_else(|| proposal::choose_ike(&offered, &connection.ike_proposals))
        .ok_or(Refusal::NoProposalChosen)?;
    let spi_i = chosen.ike_spi().ok_or(Refusal::Syntax)?;
    let (_, public, shared) = agree(core, suite.group, Some(ke))?;
    let nonce = core.random::<NONCE_LEN>();
    let home = sa.state.home();
    let spi_r = core.draw_ike_spi(home);
    let mut w = PayloadWriter::new();
    w.payload(PayloadType::SecurityAssociation, |w| {
        proposal::encode_ike_choice(w, &suite, Some(spi_r), chosen.number);
    });
    w.payload(PayloadType::Nonce, |w| w.bytes(&nonce));
    w.payload(PayloadType::KeyExchange, |w| {
        KeyExchange { group: suite.group.iana(), data: &public }.encode(w);
    });
    let fresh = Freshness { nonce_i: peer_nonce, nonce_r: &nonce, spi_i, spi_r };
    let mut new = successor(core, now, sa, connection, Role::Responder, suite, fresh, &shared)
        .ok_or(Refusal::TemporaryFailure)?;
    let rival = match sa.state.in_flight.as_deref_mut() {
        Some(InFlight { kind: RequestKind::RekeyIke, exchange: Some(exchange), .. }) => {
            // RFC 7296 §2.8.2: both began; the answer to ours decides who inherits.
            exchange.rival = Some(spi_r);
            exchange.rival_nonce = Some(peer_nonce.min(&nonce[..]).into());
            true
        }
        Some(_) | None => false,
    };
    if !rival {
        hand_over(core, now, sa, &mut new);
    }
    core.store(now, &mut new);
    core.spawned.push(new);
    Ok(w)
}

/// The SA that an exchange made, without children yet.
#[expect(clippy::too_many_arguments, reason = "one place where all that makes an SA meets")]
fn successor(
    core: &mut Core,
    now: Time,
    sa: &Sa,
    connection: &Connection,
    role: Role,
    suite: crate::config::IkeProposal,
    fresh: Freshness<'_>,
    shared: &Secret,
) -> Option<Box<Sa>> {
    let (old_suite, old_keys) = (sa.state.suite.as_ref()?, sa.state.keys.as_ref()?);
    let keys = Keys::rekeyed((old_suite.prf, &old_keys.d), &suite, fresh, shared);
    let birth_count = core.birth_count(sa.state.home());
    let mut state = successor_state(&sa.state, role, fresh.spi_i, fresh.spi_r, birth_count);
    state.suite = Some(suite);
    state.keys = Some(Keys { pi: Secret::default(), pr: Secret::default(), ..keys });
    let mut new = Box::new(Sa::new(state, now));
    new.iv = core.iv_source(&new.state);
    arm(core, now, &mut new, connection);
    Some(new)
}

/// Children, session and address go over to the new SA.
fn hand_over(core: &mut Core, now: Time, old: &mut Sa, new: &mut Sa) {
    new.state.children = std::mem::take(&mut old.state.children);
    old.state.pool = None;
    new.state.session_age = old.state.session_age;
    new.state.ike_rekeys = old.state.ike_rekeys.saturating_add(1);
    new.state.child_rekeys = old.state.child_rekeys;
    let by = new.state.our_spi();
    supersede(now, old, by);
    core.counters.ike_rekeyed = core.counters.ike_rekeyed.saturating_add(1);
    core.event(Event::IkeRekeyed { session: new.state.session, ike: by });
}

/// Another SA carries the session now; this one waits for its deletion.
pub(crate) fn supersede(now: Time, sa: &mut Sa, by: u64) {
    sa.state.phase = Phase::Replaced { by };
    sa.state.rekey_at = Deadline::NEVER;
    sa.state.probe_at = Deadline::NEVER;
    sa.state.end_at = Deadline::after(now, SUPERSEDED_MAX);
}

/// The SA `to` takes over from `from`, whose own rekey came to nothing.
pub(crate) fn inherit(core: &mut Core, now: Time, from: &mut Sa, to: &mut Sa) {
    hand_over(core, now, from, to);
    core.store(now, to);
    if !from.over {
        core.store(now, from);
    }
}

/// Asks the peer to rekey the IKE SA.
pub(crate) fn send_request(core: &mut Core, now: Time, sa: &mut Sa, group: Option<Group>) {
    let config = Arc::clone(&core.config);
    let Some(connection) = connection(&config, &sa.state.connection) else {
        sa.state.rekey_at = Deadline::after(now, RETRY_AFTER_ERROR);
        return;
    };
    let Some(group) = group.or_else(|| connection.ike_proposals.first().map(|s| s.group)) else { return };
    let nonce = core.random::<NONCE_LEN>();
    let seed = core.random::<{ DhPrivate::SEED_LEN }>();
    let spi = core.draw_ike_spi(sa.state.home());
    let public = DhPrivate::new(group, &seed).public();
    let mut w = PayloadWriter::new();
    w.payload(PayloadType::SecurityAssociation, |w| proposal::encode_ike(w, &connection.ike_proposals, Some(spi)));
    w.payload(PayloadType::Nonce, |w| w.bytes(&nonce));
    w.payload(PayloadType::KeyExchange, |w| KeyExchange { group: group.iana(), data: &public }.encode(w));
    let exchange = Exchange {
        nonce: nonce.into(),
        seed: Some(Secret::from_slice(&seed)),
        group: Some(Group16(group)),
        spi,
        rival: None,
        rival_nonce: None,
        local: Vec::new(),
        remote: Vec::new(),
        unknown: Default::default(),
    };
    core.request(now, sa, ExchangeType::CreateChildSa, RequestKind::RekeyIke, &w, Some(Box::new(exchange)));
}

/// Takes the answer to our request to rekey the IKE SA.
pub(crate) fn on_answer(
    core: &mut Core,
    now: Time,
    sa: &mut Sa,
    path: Path,
    payloads: &Payloads<'_>,
    exchange: &Exchange,
) {
    if let Some(error) = error_notify(payloads) {
        match (exchange.rival, error) {
            (Some(rival), _) => core.commands.push(Command::Inherit { from: sa.state.our_spi(), to: rival }),
            (None, NotifyType::INVALID_KE_PAYLOAD) => {
                let wanted = wanted_group(payloads).filter(|g| exchange.group != Some(Group16(*g)));
                let config = Arc::clone(&core.config);
                let offered = connection(&config, &sa.state.connection)
                    .is_some_and(|c| c.ike_proposals.iter().any(|s| Some(s.group) == wanted));
                if offered {
                    send_request(core, now, sa, wanted);
                } else {
                    sa.state.rekey_at = Deadline::after(now, RETRY_AFTER_ERROR);
                }
            }
            (None, NotifyType::TEMPORARY_FAILURE) => postpone(core, now, sa, RETRY_AFTER),
            (None, _) => sa.state.rekey_at = Deadline::after(now, RETRY_AFTER_ERROR),
        }
        return;
    }
    match made(core, now, sa, payloads, exchange) {
        Ok((new, lowest)) => decide(core, now, sa, new, exchange, &lowest),
        Err(refusal) => {
            core.refuse(path, refusal, None);
            sa.state.closing = Some(Reason::ProtocolError);
        }
    }
}

fn made(
    core: &mut Core,
    now: Time,
    sa: &Sa,
    payloads: &Payloads<'_>,
    exchange: &Exchange,
) -> Result<(Box<Sa>, Box<[u8]>), Refusal> {
    let config = Arc::clone(&core.config);
    let connection = connection(&config, &sa.state.connection).ok_or(Refusal::NoProposalChosen)?;
    let syntax = |_| Refusal::Syntax;
    let chosen = payloads.exactly_one(PayloadType::SecurityAssociation).and_then(proposal::decode).map_err(syntax)?;
    let nonce_r = payloads.exactly_one(PayloadType::Nonce).and_then(decode_nonce).map_err(syntax)?;
    let ke = payloads.exactly_one(PayloadType::KeyExchange).and_then(KeyExchange::decode).map_err(syntax)?;
    let private = exchange.private().filter(|p| p.group().iana() == ke.group).ok_or(Refusal::InvalidKe)?;
    let (proposal, suite) = proposal::choose_ike(&chosen, &connection.ike_proposals)
        .filter(|(_, suite)| chosen.len() == 1 && suite.group == private.group())
        .ok_or(Refusal::NoProposalChosen)?;
    let spi_r = proposal.ike_spi().ok_or(Refusal::Syntax)?;
    let shared = private.agree(ke.data).map_err(|_| Refusal::InvalidPublicValue)?;
    let fresh = Freshness { nonce_i: &exchange.nonce, nonce_r, spi_i: exchange.spi, spi_r };
    let new = successor(core, now, sa, connection, Role::Initiator, suite, fresh, &shared).ok_or(Refusal::Exchange)?;
    Ok((new, exchange.nonce.as_ref().min(nonce_r).into()))
}

/// Decides who inherits (RFC 7296 §2.8.2): not the SA of the exchange with the lowest nonce.
fn decide(core: &mut Core, now: Time, sa: &mut Sa, mut new: Box<Sa>, exchange: &Exchange, lowest: &[u8]) {
    let from = sa.state.our_spi();
    let ours = new.state.our_spi();
    match (exchange.rival, &exchange.rival_nonce) {
        (Some(rival), Some(rival_nonce)) if lowest < rival_nonce.as_ref() => {
            supersede(now, &mut new, rival);
            new.state.closing = Some(Reason::Rekeyed);
            core.store(now, &mut new);
            core.spawned.push(new);
            core.commands.push(Command::Inherit { from, to: rival });
        }
        (rival, _) => {
            hand_over(core, now, sa, &mut new);
            sa.state.closing = Some(Reason::Rekeyed);
            core.store(now, &mut new);
            core.spawned.push(new);
            if let Some(rival) = rival {
                core.commands.push(Command::Supersede { ike: rival, by: ours });
            }
        }
    }
}
