//! What the log says of sessions and of refused logins.

use std::collections::HashMap;
use std::mem::{self, Discriminant};
use std::time::Duration;

use auth::x509;
use ike::{Event, Reason, Refusal};
use tracing::{debug, info};
use wire::Time;

use crate::api::SessionEntry;
use crate::config::{spell_esp, spell_ike};

/// Tells the log of sessions. What anybody outside can cause at any rate is told once in a while for each reason, with the
/// number of those in between.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    refused: HashMap<Why, Quiet>,
}

/// What an operator does something else about: what is wrong with a certificate, not only that something is.
type Why = (Refusal, Option<Discriminant<x509::Refusal>>);

/// Since when a reason is not told, and how often it has occurred since.
#[derive(Debug)]
struct Quiet {
    until: Time,
    untold: u64,
}

impl Sessions {
    /// Logs an event. Identities and addresses stand at the level DEBUG only.
    pub(super) fn on_event(&mut self, now: Time, event: Event) {
        match event {
            Event::Up { session, connection, identity, path, inner_address, .. } => {
                info!(session = %hex(session), connection, "session is up");
                debug!(session = %hex(session), %identity, peer = %path.remote, inner = ?inner_address, "session's peer");
            }
            Event::IkeRekeyed { session, .. } => info!(session = %hex(session), "session's IKE SA was rekeyed"),
            Event::ChildRekeyed { session, spi_in, replaces } => {
                info!(session = %hex(session), %spi_in, %replaces, "session's ESP SAs were rekeyed");
            }
            Event::Moved { session, path } => {
                info!(session = %hex(session), "session's peer has another address or port");
                debug!(session = %hex(session), peer = %path.remote, "session's peer");
            }
            Event::Closed { session, reason } if is_of_a_stranger(reason) => {
                debug!(session = %hex(session), reason = reason.label(), "login has ended");
            }
            Event::Closed { session, reason } => {
                info!(session = %hex(session), reason = reason.label(), "session has ended: {}", why_ended(reason));
            }
            Event::Refused { path, refusal, identity, certificate } => {
                let untold = self.is_to_be_told(now, refusal, certificate.as_ref());
                let certificate = certificate.map(|refusal| refusal.to_string());
                let why = certificate.as_deref().unwrap_or_else(|| sentence(refusal));
                let identity = identity.map(|identity| identity.to_string());
                debug!(peer = %path.remote, refusal = refusal.label(), identity, "refused: {why}");
                if let Some(untold) = untold {
                    let more =
                        if untold > 0 { format!(" ({untold} more since the last such line)") } else { String::new() };
                    info!(refusal = refusal.label(), "login refused: {why}{more}");
                }
            }
        }
    }

    /// Whether a refusal is told now, and how many like it were not.
    fn is_to_be_told(&mut self, now: Time, refusal: Refusal, certificate: Option<&x509::Refusal>) -> Option<u64> {
        if is_ordinary(refusal) {
            return None;
        }
        let why = (refusal, certificate.map(mem::discriminant));
        let quiet = self.refused.entry(why).or_insert(Quiet { until: now, untold: 0 });
        if quiet.until > now {
            quiet.untold = quiet.untold.saturating_add(1);
            return None;
        }
        quiet.until = now + QUIET_FOR;
        Some(mem::take(&mut quiet.untold))
    }
}

/// What is wrong, and what to do about it.
pub(super) const fn sentence(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::Malformed => "what came is no IKE message",
        Refusal::Version => "the peer speaks another version of IKE; set it to IKEv2",
        Refusal::Exchange => "a message came that has no place at this point of a session",
        Refusal::UnknownSpi => "no IKE SA here has that number; its session has ended, and the peer must connect anew",
        Refusal::NotOwned => "another node owns that session's work set",
        Refusal::Integrity => "a message was changed on its way, or is not from the peer",
        Refusal::MessageId => "a message came out of order",
        Refusal::RepeatedTooSoon => "a request came again before an answer is repeated; somebody may be replaying it",
        Refusal::TooLong => "a first request is longer than any honest one",
        Refusal::Syntax => "the peer's program breaks the protocol; look for an update of it",
        Refusal::UnsupportedCriticalPayload => {
            "the peer insists on an extension of IKE that this gateway does not have; turn it off there"
        }
        Refusal::NoProposalChosen => {
            "no common proposal: none of the suites that the peer offers is allowed here; compare its proposals with ike and \
             esp of the connections in cluster.toml"
        }
        Refusal::InvalidKe => "the peer began with another group, and was told which one to take",
        Refusal::InvalidPublicValue => "the peer's public value for the key exchange is none; its program is faulty",
        Refusal::CookieRequired => "many logins are open, and the peer must show its address first",
        Refusal::Full => "no room for another login; raise sas_max or half_open_max in cluster.toml, or add a node",
        Refusal::UnknownIdentity => {
            "unknown peer: no connection in cluster.toml takes the identity that it names; add one whose remote.id fits, or \
             correct the peer's own identity"
        }
        Refusal::AuthMethod => {
            "the peer proves who it is in another way than its connection asks for; compare remote.auth in cluster.toml with \
             the peer's setting (psk or certificate)"
        }
        Refusal::AuthFailed => {
            "the peer's proof is wrong: the pre-shared keys of the two sides differ, or its signature is not by its \
             certificate's key; compare the file psk_file names with the peer's secret"
        }
        Refusal::Certificate => "the peer's certificate is not accepted",
        Refusal::OwnSignature => "this gateway's private key cannot sign; run cryptocluster config check",
        Refusal::TsUnacceptable => {
            "the peer asks for networks that its connection does not give; compare them with local_networks, and \
             remote_networks or the pool, in cluster.toml"
        }
        Refusal::NoAddress => "the pool has no free address, or no node gives it out now; enlarge it, or end sessions",
        Refusal::ConfigurationRequired => {
            "the peer did not ask for an inner address, and its connection gives one; let it ask (strongSwan: vips = 0.0.0.0)"
        }
        Refusal::Fragment => "a fragment does not fit those before it",
        Refusal::ChildSaNotFound => "the peer speaks of ESP SAs that are gone",
        Refusal::TemporaryFailure => "the peer's request crossed one of ours, and it will ask again",
        Refusal::NoAdditionalSas => {
            "the peer asks for a second pair of ESP SAs in one session, which is not served yet; put all its networks into one"
        }
        Refusal::Unauthenticated => "anybody could have sent that answer, so it changes nothing",
    }
}

/// What happens in a healthy cluster, too.
const fn is_ordinary(refusal: Refusal) -> bool {
    matches!(
        refusal,
        Refusal::InvalidKe
            | Refusal::CookieRequired
            | Refusal::TemporaryFailure
            | Refusal::ChildSaNotFound
            | Refusal::Unauthenticated
    )
}

/// Whether only a login that was never complete ends so. What was wrong with it was told when it was refused.
const fn is_of_a_stranger(reason: Reason) -> bool {
    matches!(reason, Reason::HalfOpenTimeout | Reason::AuthenticationFailed)
}

const fn why_ended(reason: Reason) -> &'static str {
    match reason {
        Reason::PeerDeleted => "the peer ended it",
        Reason::OperatorDeleted => "an operator ended it",
        Reason::PeerSilent => "the peer does not answer",
        Reason::HalfOpenTimeout => "the login was not completed in time",
        Reason::Expired => "its time was up, or its last ESP SAs went, before they were replaced",
        Reason::Rekeyed => "a new one has taken its place",
        Reason::Superseded => "the same identity has connected anew",
        Reason::IvExhausted => "its keys can encrypt no more; the peer will connect anew",
        Reason::AuthenticationFailed => "the peer could not prove who it is",
        Reason::AuthenticationRefused => {
            "the peer does not accept this gateway's proof; compare local of the connection with it"
        }
        Reason::NegotiationFailed => "the two sides have no suite, address or network in common",
        Reason::OwnSignature => "this gateway's private key cannot sign; run cryptocluster config check",
        Reason::ProtocolError => "the peer's program breaks the protocol",
        Reason::ChildSaNotFound => "the peer has lost its ESP SAs",
        Reason::RecordLost => "a take-over did not find all of its records",
    }
}

/// A session as a list shows it; `owner` with the epoch under which it holds the work set.
pub(super) fn entry(session: &ike::Session, owner: (&str, u32), as_of: &str) -> SessionEntry {
    let state = match session.state {
        ike::SessionState::Connecting => "connecting",
        ike::SessionState::Established => "up",
        ike::SessionState::Closing => "closing",
    };
    let seconds = |span: Option<Duration>| span.map(|span| span.as_secs());
    SessionEntry {
        session: hex(session.session),
        set: session.home.index(),
        owner: owner.0.to_owned(),
        epoch: owner.1,
        as_of: as_of.to_owned(),
        connection: session.connection.clone(),
        identity: session.identity.as_ref().map(ToString::to_string),
        peer: session.path.remote.to_string(),
        inner_address: session.inner_address,
        state: state.to_owned(),
        ike_suite: session.suite.as_ref().map(spell_ike),
        esp_suite: session.child_suite.as_ref().map(spell_esp),
        children: session.children.len(),
        ike_rekeys: session.ike_rekeys,
        child_rekeys: session.child_rekeys,
        established_s: seconds(session.established),
        rekey_in_s: seconds(session.rekey_in),
        idle_s: seconds(session.idle),
    }
}

/// A session's number as logs and lists show it.
pub(super) fn hex(session: u64) -> String {
    format!("{session:016x}")
}

/// A reason for refusals is told this often at most.
const QUIET_FOR: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_refusals_is_told_once_with_their_number() {
        let mut sessions = Sessions::default();
        let second = Duration::from_secs(1);
        let told: Vec<_> =
            (0..25).map(|i| sessions.is_to_be_told(Time::ZERO + second * i, Refusal::AuthFailed, None)).collect();
        let lines: Vec<_> = told.iter().enumerate().filter_map(|(i, untold)| Some((i, (*untold)?))).collect();
        assert_eq!(lines, [(0, 0), (10, 9), (20, 9)]);
        let another = sessions.is_to_be_told(Time::ZERO, Refusal::UnknownIdentity, None);
        assert_eq!(another, Some(0), "another reason is told");
        assert_eq!(sessions.is_to_be_told(Time::ZERO, Refusal::InvalidKe, None), None, "that is no fault");
    }

    #[test]
    fn what_is_wrong_with_one_certificate_hides_nothing_else_that_is_wrong_with_the_next() {
        let mut sessions = Sessions::default();
        let mut told =
            |refusal: x509::Refusal| sessions.is_to_be_told(Time::ZERO, Refusal::Certificate, Some(&refusal));
        let begins_in = |seconds| x509::Refusal::NotYetValid { until: Duration::from_secs(seconds) };
        assert_eq!(told(begins_in(1)), Some(0));
        assert_eq!(told(x509::Refusal::UnknownIssuer), Some(0), "to be mended in another way");
        assert_eq!(told(begins_in(2)), None, "the same again");
    }

    #[test]
    fn the_operators_table_has_every_refusal_with_its_sentence() {
        let table = include_str!("../../../docs/operating/refusals.md");
        for refusal in Refusal::ALL {
            let label = format!("`{}`", refusal.label());
            assert!(table.contains(&label), "{label} is missing in docs/operating/refusals.md");
            let row = format!("| {label} | {} |", sentence(*refusal));
            assert!(
                !table.contains(&format!("| {label} |")) || table.contains(&row),
                "the sentence of {label} differs"
            );
        }
    }

    #[test]
    fn each_refusal_has_a_sentence_of_its_own() {
        let mut sentences: Vec<_> = Refusal::ALL.iter().map(|refusal| sentence(*refusal)).collect();
        sentences.sort_unstable();
        sentences.dedup();
        assert_eq!(sentences.len(), Refusal::ALL.len());
    }
}
