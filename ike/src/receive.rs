//! Messages under the keys of an SA: integrity, order, fragments, and which exchange they belong to.

use wire::{Reader, Spi, Time};
use zeroize::Zeroizing;

use crate::core::Core;
use crate::fault::{Reason, Refusal};
use crate::message::fragment::{FragmentHeader, Reassembled, Reassembly};
use crate::message::header::{ExchangeType, Header};
use crate::message::notify::{Notify, NotifyType};
use crate::message::payload::{ChainError, PayloadType, PayloadWriter, Payloads};
use crate::output::Path;
use crate::rekey_child::RekeyRefusal;
use crate::sa::{Direction, Phase, RequestKind, Sa};
use crate::schedule::{self, Started};
use crate::{authenticate, informational, rekey_child, rekey_ike};

/// One message under its cipher.
enum Opened {
    Whole(u8, Zeroizing<Vec<u8>>),
    Fragment(FragmentHeader, u8, Zeroizing<Vec<u8>>),
}

/// Where a message stands in the order of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// The peer's next request.
    Request,
    /// Its last request again.
    Repetition,
    /// The answer to ours.
    Answer,
}

/// Takes a message for an SA that has keys. What fails here is counted and changes nothing (RFC 7296 §2.4).
pub(crate) fn on_message(core: &mut Core, now: Time, sa: &mut Sa, path: Path, header: &Header, datagram: &[u8]) {
    if let Err(refusal) = take(core, now, sa, path, header, datagram) {
        core.counters.count(refusal);
    }
}

fn take(core: &mut Core, now: Time, sa: &mut Sa, path: Path, header: &Header, datagram: &[u8]) -> Result<(), Refusal> {
    let place = place(sa, header).ok_or(Refusal::MessageId)?;
    let opened = open(sa, header, datagram)?;
    if place == Place::Repetition {
        // RFC 7383 §2.6.1: of a request in fragments only the first asks for the answer again.
        let asks = match &opened {
            Opened::Whole(..) => true,
            Opened::Fragment(header, ..) => header.number == 1,
        };
        return if asks { core.answer_again(now, sa, path) } else { Ok(()) };
    }
    let (first, plain) = match opened {
        Opened::Whole(first, plain) => (first, plain),
        Opened::Fragment(fragment, next, plain) => match reassemble(core, sa, header, fragment, next, plain) {
            Reassembled::Waiting => return Ok(()),
            Reassembled::Refused => return Err(Refusal::Fragment),
            Reassembled::Complete(first, plain) => (first, plain),
        },
    };
    // RFC 7296 §2.4: only a fresh message proves that the peer lives. A repetition, or a fragment of a message that never
    // becomes whole, may be an old one that somebody else sends again.
    schedule::heard(core, now, sa);
    follow(core, sa, path);
    let payloads = Payloads::decode(first, &mut Reader::new(&plain));
    match place {
        Place::Answer => on_answer(core, now, sa, path, header, payloads),
        Place::Request | Place::Repetition => on_request(core, now, sa, path, header, payloads),
    }
    Ok(())
}

/// RFC 7296 §2.23: the newest authenticated message says where a peer behind a NAT is.
fn follow(core: &mut Core, sa: &mut Sa, path: Path) {
    if matches!(sa.state.phase, Phase::Established) {
        schedule::follow(core, sa, path);
    }
}

fn place(sa: &Sa, header: &Header) -> Option<Place> {
    if header.is_response() {
        let in_flight = sa.state.in_flight.as_deref()?;
        let awaited = in_flight.message_id == header.message_id && in_flight.kind != RequestKind::Init;
        return awaited.then_some(Place::Answer);
    }
    if header.message_id == sa.state.next_expected {
        return Some(Place::Request);
    }
    let last = sa.state.next_expected.checked_sub(1)?;
    (header.message_id == last).then_some(Place::Repetition)
}

fn open(sa: &Sa, header: &Header, datagram: &[u8]) -> Result<Opened, Refusal> {
    let mut r = Reader::new(datagram);
    Header::decode(&mut r).map_err(|_| Refusal::Malformed)?;
    let payloads = Payloads::decode(header.next_payload, &mut r).map_err(|_| Refusal::Malformed)?;
    let cipher = sa.state.cipher(Direction::In).ok_or(Refusal::Integrity)?;
    if let Ok(Some(body)) = payloads.at_most_one(PayloadType::Encrypted) {
        let plain = cipher.open(datagram, body.offset()).ok_or(Refusal::Integrity)?;
        return Ok(Opened::Whole(payloads.inner, plain));
    }
    let Ok(Some(mut body)) = payloads.at_most_one(PayloadType::EncryptedFragment) else {
        return Err(Refusal::Integrity);
    };
    let fragment = FragmentHeader::decode(&mut body).map_err(|_| Refusal::Fragment)?;
    let plain = cipher.open(datagram, body.offset()).ok_or(Refusal::Integrity)?;
    Ok(Opened::Fragment(fragment, payloads.inner, plain))
}

fn reassemble(
    core: &Core,
    sa: &mut Sa,
    header: &Header,
    fragment: FragmentHeader,
    next: u8,
    plain: Zeroizing<Vec<u8>>,
) -> Reassembled {
    let total = usize::from(fragment.total);
    let kept = sa.reassembly.take().filter(|r| r.is_of(header.message_id, header.is_response()));
    let mut reassembly = match kept {
        // RFC 7383 §2.6: a larger total means that the peer has begun anew with smaller fragments.
        Some(kept) if kept.total() < total => Box::new(Reassembly::new(header, fragment.total, &core.reassembling)),
        Some(kept) if kept.total() > total => {
            sa.reassembly = Some(kept);
            return Reassembled::Refused;
        }
        Some(kept) => kept,
        None => Box::new(Reassembly::new(header, fragment.total, &core.reassembling)),
    };
    let result = reassembly.add(fragment, next, plain);
    match result {
        Reassembled::Complete(..) => {}
        Reassembled::Waiting | Reassembled::Refused => sa.reassembly = Some(reassembly),
    }
    result
}

fn on_request(
    core: &mut Core,
    now: Time,
    sa: &mut Sa,
    path: Path,
    header: &Header,
    payloads: Result<Payloads<'_>, ChainError>,
) {
    let payloads = match payloads {
        Ok(payloads) => payloads,
        Err(ChainError::UnknownCritical(kind)) => {
            core.refuse(path, Refusal::UnsupportedCriticalPayload, None);
            let mut w = PayloadWriter::new();
            let notify = Notify::new(NotifyType::UNSUPPORTED_CRITICAL_PAYLOAD, std::slice::from_ref(&kind));
            w.payload(PayloadType::Notify, |w| notify.encode(w));
            core.answer(now, sa, path, header.exchange, &w);
            return;
        }
        Err(ChainError::Decode(_)) => {
            core.refuse(path, Refusal::Syntax, None);
            let mut w = PayloadWriter::new();
            w.payload(PayloadType::Notify, |w| Notify::new(NotifyType::INVALID_SYNTAX, &[]).encode(w));
            // RFC 7296 §2.21.3: both ends give the SA up.
            informational::last_answer(core, sa, path, header.exchange, &w, Reason::ProtocolError);
            return;
        }
    };
    match (header.exchange, &sa.state.phase) {
        (ExchangeType::IkeAuth, Phase::AwaitAuth(_)) if sa.state.closing.is_none() => {
            authenticate::on_request(core, now, sa, path, &payloads);
        }
        (ExchangeType::CreateChildSa, Phase::Established | Phase::Replaced { .. }) => {
            on_create_child(core, now, sa, path, &payloads);
        }
        (ExchangeType::Informational, Phase::Established | Phase::Replaced { .. }) => {
            informational::on_request(core, now, sa, path, &payloads);
        }
        (
            ExchangeType::IkeSaInit
            | ExchangeType::IkeAuth
            | ExchangeType::CreateChildSa
            | ExchangeType::Informational
            | ExchangeType::Other(_),
            _,
        ) => core.counters.count(Refusal::Exchange),
    }
    if !sa.over && sa.pending.is_none() {
        schedule::start(core, now, sa);
    }
}

/// CREATE_CHILD_SA: which of the three it is (RFC 7296 §1.3).
fn on_create_child(core: &mut Core, now: Time, sa: &mut Sa, path: Path, payloads: &Payloads<'_>) {
    let rekeyed = payloads
        .all(PayloadType::Notify)
        .filter_map(|payload| Notify::decode(payload).ok())
        .find(|notify| notify.kind == NotifyType::REKEY_SA)
        .and_then(|notify| notify.spi);
    let has_selectors = payloads.all(PayloadType::TsInitiator).next().is_some();
    let unsettled = sa.state.closing.is_some() || matches!(sa.state.phase, Phase::Replaced { .. });
    let result: Result<PayloadWriter, RekeyRefusal> = match (unsettled, rekeyed, has_selectors) {
        (true, _, _) => Err(Refusal::TemporaryFailure.into()),
        (false, Some(spi_out), _) => rekey_child::on_request(core, now, sa, payloads, spi_out),
        (false, None, true) => Err(Refusal::NoAdditionalSas.into()),
        (false, None, false) => rekey_ike::on_request(core, now, sa, payloads),
    };
    let answer = result.unwrap_or_else(|RekeyRefusal(refusal, group)| {
        core.refuse(path, refusal, None);
        refusal_answer(refusal, group, rekeyed)
    });
    core.answer(now, sa, path, ExchangeType::CreateChildSa, &answer);
}

fn refusal_answer(refusal: Refusal, group: Option<crypto::Group>, rekeyed: Option<Spi>) -> PayloadWriter {
    let kind = NotifyType(refusal.notify().unwrap_or(NotifyType::NO_PROPOSAL_CHOSEN.0));
    let group = group.map(|g| g.iana().to_be_bytes());
    // RFC 7296 §2.25: CHILD_SA_NOT_FOUND names the SPI.
    let spi = rekeyed.filter(|_| kind == NotifyType::CHILD_SA_NOT_FOUND);
    let mut w = PayloadWriter::new();
    w.payload(PayloadType::Notify, |w| {
        Notify { spi, kind, data: group.as_ref().map_or(&[], <[u8; 2]>::as_slice) }.encode(w);
    });
    w
}

fn on_answer(
    core: &mut Core,
    now: Time,
    sa: &mut Sa,
    path: Path,
    header: &Header,
    payloads: Result<Payloads<'_>, ChainError>,
) {
    let Some(in_flight) = sa.state.in_flight.take() else { return };
    if exchange_of(in_flight.kind) != header.exchange {
        sa.state.in_flight = Some(in_flight);
        core.counters.count(Refusal::Exchange);
        return;
    }
    match payloads {
        Ok(payloads) => on_payloads(core, now, sa, path, &payloads, &in_flight),
        Err(_) => {
            core.refuse(path, Refusal::Syntax, None);
            if matches!(sa.state.phase, Phase::AwaitAuthAnswer(_)) {
                core.end(sa, Reason::ProtocolError);
            } else {
                sa.state.closing.get_or_insert(Reason::ProtocolError);
            }
        }
    }
    if !sa.over && schedule::start(core, now, sa) == Started::No {
        core.store(now, sa);
    }
}

fn on_payloads(
    core: &mut Core,
    now: Time,
    sa: &mut Sa,
    path: Path,
    payloads: &Payloads<'_>,
    in_flight: &crate::sa::InFlight,
) {
    match (in_flight.kind, in_flight.exchange.as_deref()) {
        (RequestKind::Auth, _) => authenticate::on_answer(core, now, sa, path, payloads),
        (RequestKind::RekeyIke, Some(exchange)) => rekey_ike::on_answer(core, now, sa, path, payloads, exchange),
        (RequestKind::RekeyChild(old), Some(exchange)) => {
            rekey_child::on_answer(core, now, sa, path, payloads, old, exchange);
        }
        (RequestKind::DeleteChild(spi), _) => informational::on_child_deleted(core, sa, spi),
        (RequestKind::DeleteIke, _) => {
            core.end(sa, sa.state.closing.unwrap_or(Reason::Rekeyed));
        }
        (RequestKind::Liveness | RequestKind::Init | RequestKind::RekeyIke | RequestKind::RekeyChild(_), _) => {}
    }
}

const fn exchange_of(kind: RequestKind) -> ExchangeType {
    match kind {
        RequestKind::Init => ExchangeType::IkeSaInit,
        RequestKind::Auth => ExchangeType::IkeAuth,
        RequestKind::RekeyIke | RequestKind::RekeyChild(_) => ExchangeType::CreateChildSa,
        RequestKind::DeleteChild(_) | RequestKind::DeleteIke | RequestKind::Liveness => ExchangeType::Informational,
    }
}
