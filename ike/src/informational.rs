//! INFORMATIONAL (RFC 7296 §1.4): deletes and liveness, both roles.

use wire::{DecodeError, Spi, Time};

use crate::child;
use crate::core::{Command, Core, MessageKind};
use crate::deadline::Deadline;
use crate::fault::{Reason, Refusal};
use crate::message::delete::Delete;
use crate::message::header::ExchangeType;
use crate::message::notify::{Notify, NotifyType};
use crate::message::payload::{PayloadType, PayloadWriter, Payloads};
use crate::output::Path;
use crate::sa::{ChildFate, RequestKind, Sa};

/// What an INFORMATIONAL request asks.
#[derive(Default)]
struct Asked {
    delete_ike: bool,
    /// Their inbound SPIs, our outbound ones.
    children: Vec<Spi>,
    /// The peer says that it never believed us (RFC 7296 §2.21.2).
    authentication_failed: bool,
}

impl Asked {
    fn decode(payloads: &Payloads<'_>) -> Result<Self, DecodeError> {
        let mut asked = Self::default();
        for payload in payloads.all(PayloadType::Delete) {
            match Delete::decode(payload)? {
                Delete::IkeSa => asked.delete_ike = true,
                Delete::Children(spis) => asked.children.extend(spis),
            }
        }
        for payload in payloads.all(PayloadType::Notify) {
            asked.authentication_failed |= Notify::decode(payload)?.kind == NotifyType::AUTHENTICATION_FAILED;
        }
        Ok(asked)
    }
}

/// Takes an INFORMATIONAL request.
pub(crate) fn on_request(core: &mut Core, now: Time, sa: &mut Sa, path: Path, payloads: &Payloads<'_>) {
    let Ok(asked) = Asked::decode(payloads) else {
        core.refuse(path, Refusal::Syntax, None);
        let mut w = PayloadWriter::new();
        // RFC 7296 §2.21.3: INVALID_SYNTAX, and the SA is over on both sides.
        w.payload(PayloadType::Notify, |w| Notify::new(NotifyType::INVALID_SYNTAX, &[]).encode(w));
        last_answer(core, sa, path, ExchangeType::Informational, &w, Reason::ProtocolError);
        return;
    };
    if asked.delete_ike || asked.authentication_failed {
        let rival = sa.state.in_flight.as_deref().and_then(|f| match f.kind {
            RequestKind::RekeyIke => f.exchange.as_deref().and_then(|e| e.rival),
            RequestKind::Init
            | RequestKind::Auth
            | RequestKind::RekeyChild(_)
            | RequestKind::DeleteChild(_)
            | RequestKind::DeleteIke
            | RequestKind::Liveness => None,
        });
        if let Some(to) = rival {
            // RFC 7296 §2.8.2: the peer did not see our rekey and deletes the SA that its own rekey replaced.
            core.commands.push(Command::InheritAndEnd { from: sa.state.our_spi(), to, path });
            return;
        }
        let reason = match (asked.delete_ike, sa.state.closing) {
            (_, Some(reason)) => reason,
            (true, None) => Reason::PeerDeleted,
            (false, None) => Reason::AuthenticationRefused,
        };
        last_answer(core, sa, path, ExchangeType::Informational, &PayloadWriter::new(), reason);
        return;
    }
    let deleted = delete_children(core, sa, &asked.children);
    if sa.state.children.is_empty() && !deleted.is_empty() {
        // We take no further child SAs: a session without any carries nothing more, and is only a name and an address.
        sa.state.end_at = sa.state.end_at.min(Deadline::after(now, core.config.half_open_time));
    }
    let mut w = PayloadWriter::new();
    if !deleted.is_empty() {
        w.payload(PayloadType::Delete, |w| Delete::Children(deleted).encode(w));
    }
    core.answer(now, sa, path, ExchangeType::Informational, &w);
}

/// Answers and ends the SA: the answer leaves when its end is known everywhere.
pub(crate) fn last_answer(
    core: &mut Core,
    sa: &mut Sa,
    path: Path,
    exchange: ExchangeType,
    payloads: &PayloadWriter,
    reason: Reason,
) {
    let message_id = sa.state.next_expected;
    let datagrams = core.seal(sa, exchange, message_id, MessageKind::Response, payloads).unwrap_or_default();
    let commit = core.end(sa, reason);
    core.transmit(path, &datagrams, Some(commit));
}

/// Removes the children that the peer deletes; gives our SPIs of them for the answer.
fn delete_children(core: &mut Core, sa: &mut Sa, spis_out: &[Spi]) -> Vec<Spi> {
    let in_flight = sa.state.in_flight.as_deref().map(|f| f.kind);
    let mut deleted = Vec::new();
    for spi_out in spis_out {
        let Some((spi_in, fate)) = sa.state.children.iter().find(|c| c.spi_out == *spi_out).map(|c| (c.spi_in, c.fate))
        else {
            continue;
        };
        // RFC 7296 §1.4.1: where both deletes crossed, the answer names no SPI.
        if in_flight != Some(RequestKind::DeleteChild(spi_in)) {
            deleted.push(spi_in);
        }
        let reason = match fate {
            ChildFate::Active => Reason::PeerDeleted,
            ChildFate::PeerDeletes => Reason::Rekeyed,
            ChildFate::WeDelete(reason) => reason,
        };
        child::remove(core, sa, spi_in, reason);
    }
    deleted
}

/// Asks the peer whether it is alive.
pub(crate) fn send_liveness(core: &mut Core, now: Time, sa: &mut Sa) {
    core.request(now, sa, ExchangeType::Informational, RequestKind::Liveness, &PayloadWriter::new(), None);
}

/// Deletes a child.
pub(crate) fn send_delete_child(core: &mut Core, now: Time, sa: &mut Sa, spi_in: Spi) {
    let mut w = PayloadWriter::new();
    w.payload(PayloadType::Delete, |w| Delete::Children(vec![spi_in]).encode(w));
    core.request(now, sa, ExchangeType::Informational, RequestKind::DeleteChild(spi_in), &w, None);
}

/// Deletes the IKE SA.
pub(crate) fn send_delete_ike(core: &mut Core, now: Time, sa: &mut Sa) {
    let mut w = PayloadWriter::new();
    w.payload(PayloadType::Delete, |w| Delete::IkeSa.encode(w));
    core.request(now, sa, ExchangeType::Informational, RequestKind::DeleteIke, &w, None);
}

/// Takes the answer to our delete of a child.
pub(crate) fn on_child_deleted(core: &mut Core, sa: &mut Sa, spi_in: Spi) {
    let reason = match sa.state.child_mut(spi_in).map(|c| c.fate) {
        Some(ChildFate::WeDelete(reason)) => reason,
        Some(ChildFate::Active | ChildFate::PeerDeletes) | None => Reason::Rekeyed,
    };
    child::remove(core, sa, spi_in, reason);
    // A child that went without a successor leaves a session that carries nothing.
    if sa.state.children.is_empty() && matches!(reason, Reason::Expired | Reason::RecordLost) {
        sa.state.closing = Some(reason);
    }
}
