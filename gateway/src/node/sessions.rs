//! What is remembered of sessions for the operator, and what the log says of them.

use std::collections::HashMap;

use ike::Event;
use tracing::{debug, info};
use wire::Time;

/// What the IKE engine does not keep: when a session came up here, and how often it was rekeyed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Log {
    pub(super) since: Option<Time>,
    pub(super) ike_rekeys: u64,
    pub(super) child_rekeys: u64,
}

/// The sessions that came up on this node.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    logs: HashMap<u64, Log>,
}

impl Sessions {
    pub(super) fn of(&self, session: u64) -> Log {
        self.logs.get(&session).copied().unwrap_or_default()
    }

    /// Notes and logs an event. Identities and addresses stand at the level DEBUG only.
    pub(super) fn on_event(&mut self, now: Time, event: Event) {
        match event {
            Event::Up { session, connection, identity, path, inner_address, .. } => {
                self.logs.insert(session, Log { since: Some(now), ..Log::default() });
                info!(session = %hex(session), connection, "session up");
                debug!(session = %hex(session), %identity, peer = %path.remote, inner = ?inner_address, "session's peer");
            }
            Event::IkeRekeyed { session, .. } => {
                let log = self.logs.entry(session).or_default();
                log.ike_rekeys = log.ike_rekeys.saturating_add(1);
                info!(session = %hex(session), "IKE SA rekeyed");
            }
            Event::ChildRekeyed { session, spi_in, replaces } => {
                let log = self.logs.entry(session).or_default();
                log.child_rekeys = log.child_rekeys.saturating_add(1);
                info!(session = %hex(session), %spi_in, %replaces, "child SA rekeyed");
            }
            Event::Moved { session, path } => {
                info!(session = %hex(session), "peer has moved");
                debug!(session = %hex(session), peer = %path.remote, "peer's new place");
            }
            Event::Closed { session, reason } => {
                self.logs.remove(&session);
                info!(session = %hex(session), reason = reason.label(), "session closed");
            }
            // Anybody can cause these at any rate, so they stand at the level DEBUG and are counted.
            Event::Refused { path, refusal, identity, certificate } => {
                let identity = identity.map(|identity| identity.to_string());
                let certificate = certificate.map(|refusal| refusal.to_string());
                debug!(peer = %path.remote, refusal = refusal.label(), identity, certificate, "refused");
            }
        }
    }
}

fn hex(session: u64) -> String {
    format!("{session:016x}")
}
