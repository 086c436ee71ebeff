//! What an SA does by itself: repeat requests, rekey, probe, delete, end. All of it follows from its state and deadlines.

use std::time::Duration;

use wire::Time;

use crate::core::Core;
use crate::deadline::Deadline;
use crate::fault::Reason;
use crate::informational::{send_delete_child, send_delete_ike, send_liveness};
use crate::output::{Event, Output, Path};
use crate::sa::{ChildFate, Phase, RequestKind, Sa};
use crate::{rekey_child, rekey_ike};

/// Repetitions of a Delete: it is a courtesy, and who does not answer is gone anyway.
const DELETE_ATTEMPTS_MAX: u8 = 4;

/// Whether a request was sent, and with it the record stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Started {
    Yes,
    No,
}

/// When the SA has something to do next.
pub(crate) fn due(sa: &Sa) -> Deadline {
    let state = &sa.state;
    let ends = state.children.iter().map(|c| c.end_at).fold(state.end_at, Deadline::min);
    let ends = if matches!(state.phase, Phase::Established) { ends.min(sa.refresh_at) } else { ends };
    if let Some(in_flight) = &state.in_flight {
        return if sa.pending.is_some() { ends } else { ends.min(in_flight.repeat_at) };
    }
    match state.phase {
        Phase::Established => {
            let rekeys = state.children.iter().map(|c| c.rekey_at).fold(state.rekey_at, Deadline::min);
            let next = rekeys.min(state.probe_at);
            // A request that must wait is due when the wait is over.
            let held = if state.hold_until == Deadline::NEVER { next } else { next.max(state.hold_until) };
            ends.min(held)
        }
        Phase::AwaitInitAnswer(_) | Phase::AwaitAuthAnswer(_) | Phase::AwaitAuth(_) | Phase::Replaced { .. } => ends,
    }
}

/// Does what is due.
pub(crate) fn on_timeout(core: &mut Core, now: Time, sa: &mut Sa) {
    if sa.state.end_at.is_due(now) {
        sa.state.end_at = Deadline::NEVER;
        match &sa.state.phase {
            Phase::AwaitAuth(_) | Phase::AwaitInitAnswer(_) | Phase::AwaitAuthAnswer(_) => {
                core.end(sa, sa.state.closing.unwrap_or(Reason::HalfOpenTimeout));
                return;
            }
            Phase::Established => {
                sa.state.closing.get_or_insert(Reason::Expired);
            }
            Phase::Replaced { .. } => {
                sa.state.closing.get_or_insert(Reason::Rekeyed);
            }
        }
    }
    for child in sa.state.children.iter_mut().filter(|c| c.end_at.is_due(now)) {
        child.end_at = Deadline::NEVER;
        child.rekey_at = Deadline::NEVER;
        child.fate = match child.fate {
            ChildFate::Active => ChildFate::WeDelete(Reason::Expired),
            ChildFate::PeerDeletes => ChildFate::WeDelete(Reason::Rekeyed),
            ChildFate::WeDelete(reason) => ChildFate::WeDelete(reason),
        };
    }
    if sa.pending.is_none() && sa.state.in_flight.as_ref().is_some_and(|f| f.repeat_at.is_due(now)) {
        repeat(core, now, sa);
    }
    start(core, now, sa);
    // What was sent has written the record already.
    if sa.refresh_at.is_due(now) && !sa.over && matches!(sa.state.phase, Phase::Established) {
        core.store(now, sa);
    }
}

/// Sends the request in flight again, or gives up.
fn repeat(core: &mut Core, now: Time, sa: &mut Sa) {
    let retransmission = core.config.retransmission;
    let commit = core.committed(now, sa);
    let Some(in_flight) = sa.state.in_flight.as_deref_mut() else { return };
    let attempts = match in_flight.kind {
        RequestKind::DeleteIke => retransmission.attempts.min(DELETE_ATTEMPTS_MAX),
        RequestKind::Init
        | RequestKind::Auth
        | RequestKind::RekeyIke
        | RequestKind::RekeyChild(_)
        | RequestKind::DeleteChild(_)
        | RequestKind::Liveness => retransmission.attempts,
    };
    if in_flight.repeated >= attempts {
        let reason = match (&sa.state.phase, sa.state.closing) {
            (_, Some(reason)) => reason,
            // Somebody refused us, unauthenticated; as nobody else answered, it was probably the peer.
            (Phase::AwaitInitAnswer(opening), None) if opening.refused => Reason::NegotiationFailed,
            (_, None) => Reason::PeerSilent,
        };
        core.end(sa, reason);
        return;
    }
    in_flight.repeated = in_flight.repeated.saturating_add(1);
    let factor = 1_u32.checked_shl(u32::from(in_flight.repeated)).unwrap_or(u32::MAX);
    let wait = retransmission.first.saturating_mul(factor).min(retransmission.interval_max);
    in_flight.repeat_at = Deadline::after(now, wait.max(Duration::from_millis(1)));
    let datagrams = in_flight.datagrams.clone();
    core.counters.requests_repeated = core.counters.requests_repeated.saturating_add(1);
    core.transmit(sa.state.path(), &datagrams, Some(commit));
}

/// Sends the next request that is wanted, if the window of one is free.
pub(crate) fn start(core: &mut Core, now: Time, sa: &mut Sa) -> Started {
    if sa.over || sa.state.in_flight.is_some() || sa.pending.is_some() {
        return Started::No;
    }
    match sa.state.phase {
        Phase::AwaitInitAnswer(_) | Phase::AwaitAuthAnswer(_) | Phase::AwaitAuth(_) => return Started::No,
        Phase::Established | Phase::Replaced { .. } => {}
    }
    if sa.state.closing.is_some() {
        send_delete_ike(core, now, sa);
        return Started::Yes;
    }
    if matches!(sa.state.phase, Phase::Replaced { .. }) {
        return Started::No;
    }
    let unwanted = sa.state.children.iter().find(|c| matches!(c.fate, ChildFate::WeDelete(_))).map(|c| c.spi_in);
    if let Some(spi_in) = unwanted {
        send_delete_child(core, now, sa, spi_in);
        return Started::Yes;
    }
    if sa.state.hold_until != Deadline::NEVER && !sa.state.hold_until.is_due(now) {
        return Started::No;
    }
    sa.state.hold_until = Deadline::NEVER;
    if sa.state.rekey_at.is_due(now) {
        rekey_ike::send_request(core, now, sa, None);
    } else if let Some(spi_in) = sa.state.children.iter().find(|c| c.rekey_at.is_due(now)).map(|c| c.spi_in) {
        rekey_child::send_request(core, now, sa, spi_in, None);
    } else if sa.state.probe_at.is_due(now) {
        sa.state.probe_at = Deadline::NEVER;
        send_liveness(core, now, sa);
    } else {
        return Started::No;
    }
    if sa.state.in_flight.is_some() || sa.over { Started::Yes } else { Started::No }
}

/// The peer has sent something with proven integrity.
pub(crate) fn heard(core: &mut Core, now: Time, sa: &mut Sa) {
    sa.heard = now;
    if matches!(sa.state.phase, Phase::Established) {
        let interval =
            crate::core::connection(&core.config, &sa.state.connection).map_or(Duration::ZERO, |c| c.liveness_interval);
        sa.state.probe_at = Deadline::after(now, interval);
    }
}

/// Whether the peer was moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Followed {
    Yes,
    No,
}

/// The peer may be reached elsewhere (RFC 7296 §2.23): its children follow. Nothing authenticates the ports of a datagram,
/// so our own end stays: ESP from port 500 would be taken for IKE.
pub(crate) fn follow(core: &mut Core, sa: &mut Sa, path: Path) -> Followed {
    if !sa.state.encapsulated || path.remote == sa.state.remote || path.local != sa.state.local {
        return Followed::No;
    }
    sa.state.remote = path.remote;
    for child in &sa.state.children {
        core.outputs.push_back(Output::MovePath { spi_in: child.spi_in, path });
    }
    core.event(Event::Moved { session: sa.state.session, path });
    Followed::Yes
}
