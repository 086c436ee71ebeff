//! IKE_AUTH as initiator.

use std::sync::Arc;

use auth::Identity;
use auth::x509::Usage;
use crypto::SignatureScheme;
use wire::{DecodeError, Time, TrafficSelector};

use super::proof::{Claim, Unproven, certificates, signature_auth, signed_octets, verify};
use super::responder::{established, write_chain};
use crate::child;
use crate::config::{Connection, LocalAuth, RemoteSelectors, UniqueIds};
use crate::core::{Core, connection};
use crate::fault::{Reason, Refusal};
use crate::init::write_certificate_request;
use crate::keys::shared_key_auth;
use crate::message::auth::{Auth, decode_identity, encode_identity};
use crate::message::configuration::{Configuration, ConfigurationType};
use crate::message::header::ExchangeType;
use crate::message::notify::{Notify, NotifyType};
use crate::message::payload::{PayloadType, PayloadWriter, Payloads};
use crate::message::proposal::{self, WithGroup};
use crate::message::selectors;
use crate::output::{Event, Output, Path, Role, SignError};
use crate::pending::{Pending, PendingExchange};
use crate::sa::{PeerIdentity, Phase, RequestKind, Sa};

/// Proves who we are, now that the keys are there: at once, or when the driver has signed.
pub(crate) fn send_request(core: &mut Core, now: Time, sa: &mut Sa) {
    let config = Arc::clone(&core.config);
    let Some(connection) = connection(&config, &sa.state.connection) else {
        core.end(sa, Reason::NegotiationFailed);
        return;
    };
    let Some(octets) = our_octets(sa, &connection.local_identity) else { return };
    let Some(prf) = sa.state.suite.map(|s| s.prf) else { return };
    match &connection.local_auth {
        LocalAuth::Psk(secret) => {
            let mac = shared_key_auth(prf, secret, &[&octets]);
            send(core, now, sa, connection, &Auth::SharedKey(mac.expose()));
        }
        LocalAuth::Certificate { key, kind, .. } => {
            let Phase::AwaitInitAnswer(opening) = &sa.state.phase else { return };
            let Some(scheme) = SignatureScheme::choose(*kind, &opening.peer_hashes) else {
                core.end(sa, Reason::NegotiationFailed);
                return;
            };
            let request = core.request_id(sa.state.our_spi(), None);
            core.output(Output::Sign { request, key: key.clone(), scheme, message: octets });
            sa.pending = Some(Box::new(Pending { request, exchange: PendingExchange::RequestSignature(scheme) }));
        }
    }
}

fn our_octets(sa: &Sa, identity: &Identity) -> Option<Vec<u8>> {
    let Phase::AwaitInitAnswer(opening) = &sa.state.phase else { return None };
    let mut id = wire::Writer::new();
    encode_identity(&mut id, identity);
    let (prf, keys) = (sa.state.suite?.prf, sa.state.keys.as_ref()?);
    Some(signed_octets(prf, &opening.request, &opening.peer_nonce, &keys.pi, id.as_slice()))
}

/// Takes the driver's signature.
pub(crate) fn on_request_signature(
    core: &mut Core,
    now: Time,
    sa: &mut Sa,
    scheme: SignatureScheme,
    signature: Result<Vec<u8>, SignError>,
) {
    let config = Arc::clone(&core.config);
    match (signature, connection(&config, &sa.state.connection)) {
        (Ok(signature), Some(connection)) => {
            let algorithm = scheme.algorithm_identifier();
            send(core, now, sa, connection, &signature_auth(scheme, &algorithm, &signature));
        }
        (Ok(_) | Err(SignError), _) => {
            core.end(sa, Reason::OwnSignature);
        }
    }
}

fn send(core: &mut Core, now: Time, sa: &mut Sa, connection: &Connection, auth: &Auth<'_>) {
    let Phase::AwaitInitAnswer(opening) = std::mem::replace(&mut sa.state.phase, Phase::Established) else { return };
    let mut w = PayloadWriter::new();
    w.payload(PayloadType::IdInitiator, |w| encode_identity(w, &connection.local_identity));
    write_chain(&mut w, &connection.local_auth);
    write_certificate_request(&mut w, &core.config);
    w.payload(PayloadType::Authentication, |w| auth.encode(w));
    if connection.unique_ids == UniqueIds::OnInitialContact {
        w.payload(PayloadType::Notify, |w| Notify::new(NotifyType::INITIAL_CONTACT, &[]).encode(w));
    }
    if connection.request_address {
        w.payload(PayloadType::Configuration, Configuration::encode_request);
    }
    w.payload(PayloadType::SecurityAssociation, |w| {
        proposal::encode_esp(w, &connection.esp_proposals, opening.child_spi, WithGroup::No);
    });
    w.payload(PayloadType::TsInitiator, |w| selectors::encode(w, &local_offer(connection)));
    w.payload(PayloadType::TsResponder, |w| selectors::encode(w, &remote_offer(connection)));
    sa.state.phase = Phase::AwaitAuthAnswer(opening);
    core.request(now, sa, ExchangeType::IkeAuth, RequestKind::Auth, &w, None);
}

fn local_offer(connection: &Connection) -> Vec<TrafficSelector> {
    if connection.request_address && connection.local_selectors.is_empty() {
        // Whatever address we get: the responder narrows it (RFC 7296 §2.19).
        return vec![TrafficSelector {
            protocol: 0,
            port_first: 0,
            port_last: u16::MAX,
            first: [0, 0, 0, 0].into(),
            last: [255, 255, 255, 255].into(),
        }];
    }
    connection.local_selectors.clone()
}

fn remote_offer(connection: &Connection) -> Vec<TrafficSelector> {
    match &connection.remote_selectors {
        RemoteSelectors::Networks(networks) => networks.clone(),
        RemoteSelectors::Pool(_) => Vec::new(),
    }
}

/// What an IKE_AUTH answer says.
struct AuthAnswer<'a> {
    identity: Option<Identity>,
    id_r: &'a [u8],
    auth: Auth<'a>,
    chain: Vec<Vec<u8>>,
    configuration: Option<Configuration>,
}

impl<'a> AuthAnswer<'a> {
    fn decode(payloads: &Payloads<'a>) -> Result<Self, DecodeError> {
        let (identity, id_r) = decode_identity(payloads.exactly_one(PayloadType::IdResponder)?)?;
        let configuration = payloads
            .at_most_one(PayloadType::Configuration)?
            .map(Configuration::decode)
            .transpose()?
            .flatten()
            .and_then(|(kind, c)| (kind == ConfigurationType::Reply).then_some(c));
        Ok(Self {
            identity,
            id_r,
            auth: Auth::decode(payloads.exactly_one(PayloadType::Authentication)?)?,
            chain: certificates(payloads)?,
            configuration,
        })
    }
}

/// The first error notification of a message.
pub(crate) fn error_notify(payloads: &Payloads<'_>) -> Option<NotifyType> {
    payloads
        .all(PayloadType::Notify)
        .filter_map(|payload| Notify::decode(payload).ok())
        .map(|notify| notify.kind)
        .find(|kind| kind.is_error())
}

/// Takes the answer to our IKE_AUTH request.
pub(crate) fn on_answer(core: &mut Core, now: Time, sa: &mut Sa, path: Path, payloads: &Payloads<'_>) {
    let config = Arc::clone(&core.config);
    let Some(connection) = connection(&config, &sa.state.connection) else {
        core.end(sa, Reason::NegotiationFailed);
        return;
    };
    let error = error_notify(payloads);
    if payloads.at_most_one(PayloadType::Authentication).is_ok_and(|a| a.is_none()) && error.is_some() {
        core.end(sa, Reason::AuthenticationRefused);
        return;
    }
    let identity = match check(core, now, sa, connection, payloads) {
        Ok(identity) => identity,
        Err((Unproven(refusal, certificate), identity)) => {
            core.counters.count(refusal);
            core.event(Event::Refused { path, refusal, identity, certificate });
            // RFC 7296 §2.21.2: the peer believes that the SA is up, so it is told with a Delete.
            sa.state.phase = Phase::Established;
            sa.state.in_flight = None;
            sa.state.closing = Some(Reason::AuthenticationFailed);
            return;
        }
    };
    let Phase::AwaitAuthAnswer(opening) = std::mem::replace(&mut sa.state.phase, Phase::Established) else { return };
    sa.state.in_flight = None;
    sa.state.identity = Some(PeerIdentity(identity.clone()));
    let answer = AuthAnswer::decode(payloads);
    sa.state.inner_address = answer.ok().and_then(|a| a.configuration).and_then(|c| c.address);
    established(core, now, sa, connection);
    match made(sa, connection, payloads, &opening.nonce, &opening.peer_nonce) {
        Ok(made) => {
            child::install(core, now, sa, connection, Role::Initiator, opening.child_spi, made, None);
            core.event(Event::Up {
                session: sa.state.session,
                connection: connection.name.clone(),
                identity,
                path: sa.state.path(),
                inner_address: sa.state.inner_address,
                initial_contact: false,
            });
        }
        Err(refusal) => {
            core.refuse(path, refusal, Some(identity));
            sa.state.closing = Some(Reason::NegotiationFailed);
        }
    }
}

fn check(
    core: &Core,
    now: Time,
    sa: &Sa,
    connection: &Connection,
    payloads: &Payloads<'_>,
) -> Result<Identity, (Unproven, Option<Identity>)> {
    let no = |refusal| (Unproven(refusal, None), None);
    let answer = AuthAnswer::decode(payloads).map_err(|_| no(Refusal::Syntax))?;
    let (Phase::AwaitAuthAnswer(opening), Some(suite), Some(keys)) = (&sa.state.phase, &sa.state.suite, &sa.state.keys)
    else {
        return Err(no(Refusal::Exchange));
    };
    let identity = answer.identity.ok_or_else(|| no(Refusal::UnknownIdentity))?;
    if !connection.remote_identity.allows(&identity) {
        return Err((Unproven(Refusal::UnknownIdentity, None), Some(identity)));
    }
    let octets = signed_octets(suite.prf, &opening.answer, &opening.nonce, &keys.pr, answer.id_r);
    let claim = Claim { identity: &identity, auth: answer.auth, chain: &answer.chain, octets: &octets };
    match verify(core, now, &connection.remote_auth, suite.prf, &claim, Usage::Responder) {
        Ok(()) => Ok(identity),
        Err(unproven) => Err((unproven, Some(identity))),
    }
}

/// What the answer says of the child, checked against what we offered.
fn made<'n>(
    sa: &Sa,
    connection: &Connection,
    payloads: &Payloads<'_>,
    nonce_i: &'n [u8],
    nonce_r: &'n [u8],
) -> Result<child::Made<'n>, Refusal> {
    if let Some(error) = error_notify(payloads) {
        return Err(match error {
            NotifyType(38) => Refusal::TsUnacceptable,
            NotifyType(36 | 37) => Refusal::NoAddress,
            _ => Refusal::NoProposalChosen,
        });
    }
    let local_offer = local_offer(connection);
    let mut made = child::made(
        payloads,
        Role::Initiator,
        (&connection.esp_proposals, WithGroup::No),
        (&local_offer, &remote_offer(connection)),
        (nonce_i, nonce_r),
    )?;
    if let Some(address) = sa.state.inner_address {
        made.local = selectors::narrow(&made.local, &[TrafficSelector::from_address(address)]);
    }
    if made.local.is_empty() { Err(Refusal::TsUnacceptable) } else { Ok(made) }
}
