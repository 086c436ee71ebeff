//! IKE_AUTH as responder.

use std::net::IpAddr;
use std::sync::Arc;

use auth::Identity;
use auth::x509::Usage;
use crypto::SignatureScheme;
use wire::{DecodeError, Secret, Time, TrafficSelector};

use super::proof::{Claim, Unproven, certificates, signature_auth, signed_octets, verify};
use crate::child;
use crate::config::{Config, Connection, LocalAuth, RemoteAuth, RemoteSelectors, UniqueIds};
use crate::core::{Command, Core, connection};
use crate::deadline::{Age, Deadline};
use crate::fault::{Reason, Refusal};
use crate::keys::shared_key_auth;
use crate::message::auth::{Auth, decode_identity, encode_certificate, encode_identity};
use crate::message::configuration::{Configuration, ConfigurationType};
use crate::message::header::ExchangeType;
use crate::message::notify::{Notify, NotifyType};
use crate::message::payload::{PayloadType, PayloadWriter, Payloads};
use crate::message::proposal::{self, WithGroup};
use crate::message::selectors;
use crate::output::{Event, NoAddress, Output, Path, RequestId, Role, SignError};
use crate::pending::{ChildOffer, Pending, PendingExchange, Verified};
use crate::sa::{PeerIdentity, Phase, Sa};

/// What an IKE_AUTH request says.
struct AuthRequest<'a> {
    identity: Option<Identity>,
    id_i: &'a [u8],
    wanted: Option<Identity>,
    auth: Option<Auth<'a>>,
    chain: Vec<Vec<u8>>,
    initial_contact: bool,
    configuration: Option<Configuration>,
}

impl<'a> AuthRequest<'a> {
    fn decode(payloads: &Payloads<'a>) -> Result<Self, DecodeError> {
        let (identity, id_i) = decode_identity(payloads.exactly_one(PayloadType::IdInitiator)?)?;
        let wanted = payloads.at_most_one(PayloadType::IdResponder)?.map(decode_identity).transpose()?;
        let auth = payloads.at_most_one(PayloadType::Authentication)?.map(Auth::decode).transpose()?;
        let mut initial_contact = false;
        for payload in payloads.all(PayloadType::Notify) {
            initial_contact |= Notify::decode(payload)?.kind == NotifyType::INITIAL_CONTACT;
        }
        let configuration = payloads
            .at_most_one(PayloadType::Configuration)?
            .map(Configuration::decode)
            .transpose()?
            .flatten()
            .and_then(|(kind, c)| (kind == ConfigurationType::Request).then_some(c));
        Ok(Self {
            identity,
            id_i,
            wanted: wanted.and_then(|(identity, _)| identity),
            auth,
            chain: certificates(payloads)?,
            initial_contact,
            configuration,
        })
    }
}

/// Takes an IKE_AUTH request whose integrity is proven, though not yet who sent it.
pub(crate) fn on_request(core: &mut Core, now: Time, sa: &mut Sa, path: Path, payloads: &Payloads<'_>) {
    if sa.pending.is_some() {
        // The same request again, while the driver still works on the first one.
        return;
    }
    match verified(core, now, sa, path, payloads) {
        Ok(verified) => proceed(core, now, sa, Box::new(verified)),
        Err((Unproven(refusal, certificate), identity)) => {
            core.counters.count(refusal);
            core.event(Event::Refused { path, refusal, identity, certificate });
            fail(core, now, sa, path, refusal);
        }
    }
}

type Refused = (Unproven, Option<Identity>);

fn verified(core: &Core, now: Time, sa: &Sa, path: Path, payloads: &Payloads<'_>) -> Result<Verified, Refused> {
    let no = |refusal| (Unproven(refusal, None), None);
    let request = AuthRequest::decode(payloads).map_err(|_| no(Refusal::Syntax))?;
    let (Phase::AwaitAuth(half_open), Some(suite), Some(keys)) = (&sa.state.phase, &sa.state.suite, &sa.state.keys)
    else {
        return Err(no(Refusal::Exchange));
    };
    let identity = request.identity.ok_or_else(|| no(Refusal::UnknownIdentity))?;
    let refused = |unproven| (unproven, Some(identity.clone()));
    let auth = request.auth.ok_or_else(|| refused(Unproven(Refusal::AuthMethod, None)))?;
    let candidates: Vec<&Connection> = core
        .config
        .connections
        .iter()
        .filter(|c| c.ike_proposals.contains(suite) && c.remote_identity.allows(&identity))
        .collect();
    // An initiator that names us in IDr wants that identity; one that we do not have is no reason to refuse (RFC 7296 §2.15 leaves
    // the choice to us), and its own policy judges our answer.
    let named = |c: &&Connection| request.wanted.as_ref().is_none_or(|wanted| *wanted == c.local_identity);
    let method_fits = |c: &&Connection| {
        matches!(
            (&c.remote_auth, auth),
            (RemoteAuth::Psk(_), Auth::SharedKey(_))
                | (RemoteAuth::Certificate, Auth::DigitalSignature { .. } | Auth::EcdsaP256(_))
        )
    };
    let chosen = candidates
        .iter()
        .copied()
        .find(|c| named(c) && method_fits(c))
        .or_else(|| candidates.iter().copied().find(method_fits));
    let Some(chosen) = chosen else {
        let refusal = if candidates.is_empty() { Refusal::UnknownIdentity } else { Refusal::AuthMethod };
        return Err(refused(Unproven(refusal, None)));
    };
    let octets = signed_octets(suite.prf, &half_open.request, &half_open.nonce, &keys.pi, request.id_i);
    let claim = Claim { identity: &identity, auth, chain: &request.chain, octets: &octets };
    verify(core, now, &chosen.remote_auth, suite.prf, &claim, Usage::Initiator).map_err(refused)?;
    let child = child_offer(payloads, chosen).map_err(|refusal| refused(Unproven(refusal, None)))?;
    Ok(Verified {
        path,
        connection: chosen.name.clone(),
        initial_contact: request.initial_contact && chosen.unique_ids == UniqueIds::OnInitialContact,
        child,
        address_wanted: request.configuration.as_ref().is_some_and(|c| c.wants_ipv4 || c.wants_ipv6),
        previous: request.configuration.and_then(|c| c.address),
        address: None,
        identity: identity.clone(),
    })
}

/// The child that the request offers. The outer error is a malformed request, the inner one a child that we do not take.
fn child_offer(payloads: &Payloads<'_>, connection: &Connection) -> Result<Result<ChildOffer, Refusal>, Refusal> {
    let syntax = |_| Refusal::Syntax;
    let offered = payloads.exactly_one(PayloadType::SecurityAssociation).map_err(syntax)?;
    let offered = proposal::decode(offered).map_err(syntax)?;
    let remote = payloads.exactly_one(PayloadType::TsInitiator).and_then(selectors::decode).map_err(syntax)?;
    let local = payloads.exactly_one(PayloadType::TsResponder).and_then(selectors::decode).map_err(syntax)?;
    let Some((chosen, suite)) = proposal::choose_esp(&offered, &connection.esp_proposals, WithGroup::No) else {
        return Ok(Err(Refusal::NoProposalChosen));
    };
    let Some(spi_out) = chosen.child_spi() else { return Err(Refusal::Syntax) };
    Ok(Ok(ChildOffer { number: chosen.number, suite, spi_out, remote, local }))
}

/// Asks for an address if the child needs one, else goes on to our own proof.
fn proceed(core: &mut Core, now: Time, sa: &mut Sa, mut verified: Box<Verified>) {
    let config = Arc::clone(&core.config);
    let Some(connection) = connection(&config, &verified.connection) else { return };
    let RemoteSelectors::Pool(pool) = &connection.remote_selectors else {
        return prove(core, now, sa, verified);
    };
    if verified.child.is_err() {
        return prove(core, now, sa, verified);
    }
    if !verified.address_wanted {
        // RFC 7296 §2.19: FAILED_CP_REQUIRED; without an address there is no traffic to select.
        verified.child = Err(Refusal::ConfigurationRequired);
        return prove(core, now, sa, verified);
    }
    let request = core.request_id(sa.state.our_spi(), Some(pool.clone()));
    core.output(Output::RequestAddress {
        request,
        pool: pool.clone(),
        identity: verified.identity.clone(),
        previous: verified.previous,
        session: sa.state.session,
    });
    sa.pending = Some(Box::new(Pending { request, exchange: PendingExchange::Address(verified) }));
}

/// Whether somebody waited for the driver's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    Yes,
    No,
}

/// Takes the driver's answer about an address.
pub(crate) fn on_address(
    core: &mut Core,
    now: Time,
    sa: &mut Sa,
    request: RequestId,
    address: Result<IpAddr, NoAddress>,
) -> Taken {
    match sa.pending.take().map(|p| (p.request, p.exchange)) {
        Some((asked, PendingExchange::Address(mut verified))) if asked == request => {
            match address {
                Ok(address) => verified.address = Some(address),
                Err(NoAddress) => verified.child = Err(Refusal::NoAddress),
            }
            prove(core, now, sa, verified);
            Taken::Yes
        }
        Some((request, exchange)) => {
            sa.pending = Some(Box::new(Pending { request, exchange }));
            Taken::No
        }
        None => Taken::No,
    }
}

/// Makes our own proof, or asks the driver to sign.
fn prove(core: &mut Core, now: Time, sa: &mut Sa, verified: Box<Verified>) {
    let config = Arc::clone(&core.config);
    let Some(connection) = connection(&config, &verified.connection) else { return };
    let Some(octets) = our_octets(sa, &connection.local_identity) else { return };
    let Some(prf) = sa.state.suite.map(|s| s.prf) else { return };
    match &connection.local_auth {
        LocalAuth::Psk(secret) => {
            let mac = shared_key_auth(prf, secret, &[&octets]);
            finish(core, now, sa, *verified, &config, &Auth::SharedKey(mac.expose()));
        }
        LocalAuth::Certificate { key, kind, .. } => {
            let Phase::AwaitAuth(half_open) = &sa.state.phase else { return };
            let Some(scheme) = SignatureScheme::choose(*kind, &half_open.peer_hashes) else {
                let path = verified.path;
                core.give_back(sa, &verified);
                core.refuse(path, Refusal::AuthMethod, Some(verified.identity));
                return fail(core, now, sa, path, Refusal::AuthMethod);
            };
            let request = core.request_id(sa.state.our_spi(), None);
            core.output(Output::Sign { request, key: key.clone(), scheme, message: octets });
            let exchange = PendingExchange::AnswerSignature(verified, scheme);
            sa.pending = Some(Box::new(Pending { request, exchange }));
        }
    }
}

/// What we sign: our answer to IKE_SA_INIT, the peer's nonce and our identity.
fn our_octets(sa: &Sa, identity: &Identity) -> Option<Vec<u8>> {
    let Phase::AwaitAuth(half_open) = &sa.state.phase else { return None };
    let mut id = wire::Writer::new();
    encode_identity(&mut id, identity);
    let (prf, keys) = (sa.state.suite?.prf, sa.state.keys.as_ref()?);
    // Until IKE_AUTH is answered the cache holds the answer to IKE_SA_INIT.
    let answer = sa.state.answer.first()?;
    Some(signed_octets(prf, answer, &half_open.peer_nonce, &keys.pr, id.as_slice()))
}

/// Takes the driver's signature.
pub(crate) fn on_answer_signature(
    core: &mut Core,
    now: Time,
    sa: &mut Sa,
    verified: Verified,
    scheme: SignatureScheme,
    signature: Result<Vec<u8>, SignError>,
) {
    let config = Arc::clone(&core.config);
    match signature {
        Ok(signature) => {
            let algorithm = scheme.algorithm_identifier();
            finish(core, now, sa, verified, &config, &signature_auth(scheme, &algorithm, &signature));
        }
        Err(SignError) => {
            let path = verified.path;
            core.give_back(sa, &verified);
            core.refuse(path, Refusal::OwnSignature, Some(verified.identity));
            fail(core, now, sa, path, Refusal::OwnSignature);
        }
    }
}

/// Establishes the SA and answers.
fn finish(core: &mut Core, now: Time, sa: &mut Sa, verified: Verified, config: &Config, auth: &Auth<'_>) {
    let Some(connection) = connection(config, &verified.connection) else { return };
    let Phase::AwaitAuth(half_open) = std::mem::replace(&mut sa.state.phase, Phase::Established) else { return };
    let Verified { path, identity, initial_contact, child: offer, address, .. } = verified;
    (sa.state.local, sa.state.remote) = (path.local, path.remote);
    sa.state.connection.clone_from(&connection.name);
    sa.state.identity = Some(PeerIdentity(identity.clone()));
    sa.state.inner_address = address;
    if let (RemoteSelectors::Pool(pool), Some(_)) = (&connection.remote_selectors, address) {
        sa.state.pool = Some(pool.clone());
    }

    let mut w = PayloadWriter::new();
    w.payload(PayloadType::IdResponder, |w| encode_identity(w, &connection.local_identity));
    write_chain(&mut w, &connection.local_auth);
    w.payload(PayloadType::Authentication, |w| auth.encode(w));
    let created = offer.and_then(|offer| {
        let (local, remote) = narrowed(connection, &offer, address)?;
        let nonces = (&half_open.peer_nonce[..], &half_open.nonce[..]);
        let made = child::Made { suite: offer.suite, spi_out: offer.spi_out, local, remote, nonces, shared: None };
        let spi_in = core.draw_child_spi(sa.state.home());
        child::install(core, now, sa, connection, Role::Responder, spi_in, made, None);
        Ok((offer.number, offer.suite, spi_in))
    });
    match created {
        Ok((number, suite, spi_in)) => {
            if let Some(address) = address {
                w.payload(PayloadType::Configuration, |w| Configuration::encode_reply(w, address, &connection.dns));
            }
            w.payload(PayloadType::SecurityAssociation, |w| proposal::encode_esp_choice(w, &suite, spi_in, number));
            child::write_selectors(&mut w, sa, spi_in, Role::Responder);
        }
        Err(refusal) => {
            // RFC 7296 §1.2: the IKE SA stands without its child, and the peer is told why. We give it a little time.
            core.refuse(path, refusal, Some(identity.clone()));
            let kind = NotifyType(refusal.notify().unwrap_or(NotifyType::NO_PROPOSAL_CHOSEN.0));
            w.payload(PayloadType::Notify, |w| Notify::new(kind, &[]).encode(w));
        }
    }
    established(core, now, sa, connection);
    if sa.state.children.is_empty() {
        sa.state.end_at = Deadline::after(now, config.half_open_time);
    }
    core.answer(now, sa, path, ExchangeType::IkeAuth, &w);
    if sa.over {
        return;
    }
    core.event(Event::Up {
        session: sa.state.session,
        connection: connection.name.clone(),
        identity: identity.clone(),
        path,
        inner_address: sa.state.inner_address,
        initial_contact,
    });
    if initial_contact {
        let connection = connection.name.clone();
        core.commands.push(Command::EndIdentity { identity, connection, except: sa.state.session });
    }
}

/// What both roles do when the last proof is in.
pub(super) fn established(core: &mut Core, now: Time, sa: &mut Sa, connection: &Connection) {
    if let Some(keys) = &mut sa.state.keys {
        // SK_p serves authentication only.
        (keys.pi, keys.pr) = (Secret::default(), Secret::default());
    }
    core.counters.established = core.counters.established.saturating_add(1);
    sa.state.session_age = Some(Age::begun(now));
    arm(core, now, sa, connection);
}

/// Sets the deadlines of an SA that is up.
pub(crate) fn arm(core: &mut Core, now: Time, sa: &mut Sa, connection: &Connection) {
    let lifetimes = &connection.lifetimes;
    sa.state.age = Age::begun(now);
    sa.state.rekey_at = core.jittered(now, lifetimes.ike_rekey, lifetimes.jitter);
    sa.state.end_at = Deadline::after(now, lifetimes.ike_max);
    sa.state.probe_at = Deadline::after(now, connection.liveness_interval);
}

/// Our side and the peer's, narrowed to what the connection allows (RFC 7296 §2.9).
fn narrowed(
    connection: &Connection,
    offer: &ChildOffer,
    address: Option<IpAddr>,
) -> Result<(Vec<TrafficSelector>, Vec<TrafficSelector>), Refusal> {
    let local = selectors::narrow(&offer.local, &connection.local_selectors);
    let allowed = match &connection.remote_selectors {
        RemoteSelectors::Networks(networks) => networks.clone(),
        RemoteSelectors::Pool(_) => address.map(TrafficSelector::from_address).into_iter().collect(),
    };
    let remote = selectors::narrow(&offer.remote, &allowed);
    if local.is_empty() || remote.is_empty() { Err(Refusal::TsUnacceptable) } else { Ok((local, remote)) }
}

pub(super) fn write_chain(w: &mut PayloadWriter, auth: &LocalAuth) {
    match auth {
        LocalAuth::Psk(_) => {}
        LocalAuth::Certificate { chain, .. } => {
            for der in chain {
                w.payload(PayloadType::Certificate, |w| encode_certificate(w, der));
            }
        }
    }
}

/// Answers with an error; the half-open SA ends, though its answer may be asked for again until its time is up.
fn fail(core: &mut Core, now: Time, sa: &mut Sa, path: Path, refusal: Refusal) {
    let mut w = PayloadWriter::new();
    let kind = NotifyType(refusal.notify().unwrap_or(NotifyType::AUTHENTICATION_FAILED.0));
    w.payload(PayloadType::Notify, |w| Notify::new(kind, &[]).encode(w));
    sa.state.closing = Some(Reason::AuthenticationFailed);
    core.answer(now, sa, path, ExchangeType::IkeAuth, &w);
}
