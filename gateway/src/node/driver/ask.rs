//! Questions and orders of the operator.

use std::ops::ControlFlow;

use tokio::sync::oneshot;

use super::*;
use crate::api::{MemberStatus, SessionEntry, Status, ViewStatus};

/// What the API asks of the driver.
#[derive(Debug)]
pub(in crate::node) enum Ask {
    /// How the node stands.
    Status(oneshot::Sender<Status>),
    /// The sessions that live here.
    Sessions(oneshot::Sender<Vec<SessionEntry>>),
    /// Opens a session as initiator.
    Initiate {
        /// The connection.
        connection: String,
        /// Where the peer is.
        peer: IpAddr,
        /// The session, or why not.
        answer: oneshot::Sender<Result<u64, String>>,
    },
    /// Ends a session.
    Close {
        /// Which one.
        session: u64,
        /// Whether it was here.
        answer: oneshot::Sender<Result<(), String>>,
    },
    /// Ends the driver.
    Stop,
}

impl Driver {
    pub(super) fn on_ask(&mut self, ask: Ask) -> ControlFlow<()> {
        let now = boot_time();
        // Who asked may be gone; then nobody misses the answer.
        match ask {
            Ask::Status(answer) => drop(answer.send(self.status(now))),
            Ask::Sessions(answer) => drop(answer.send(self.list_sessions(now))),
            Ask::Initiate { connection, peer, answer } => drop(answer.send(self.initiate(now, &connection, peer))),
            Ask::Close { session, answer } => {
                drop(answer.send(self.endpoint.delete(now, session).map_err(|error| error.to_string())));
            }
            Ask::Stop => return ControlFlow::Break(()),
        }
        ControlFlow::Continue(())
    }

    fn initiate(&mut self, now: Time, connection: &str, peer: IpAddr) -> Result<u64, String> {
        // Any work set of ours will do; a random one spreads them.
        let sets: Vec<WorkSet> = self.tenures.keys().copied().collect();
        let mut octets = [0; 8];
        getrandom::fill(&mut octets).map_err(|error| error.to_string())?;
        let draw = usize::try_from(u64::from_be_bytes(octets) >> 32).unwrap_or(0);
        let home = draw.checked_rem(sets.len()).and_then(|at| sets.get(at)).ok_or("this node owns no work set")?;
        let path =
            Path { local: SocketAddr::new(self.cluster.outside.address, 500), remote: SocketAddr::new(peer, 500) };
        self.endpoint.initiate(now, connection, path, *home).map_err(|error| error.to_string())
    }

    fn list_sessions(&self, now: Time) -> Vec<SessionEntry> {
        self.endpoint
            .sessions(now)
            .map(|session| SessionEntry {
                session: format!("{:016x}", session.session),
                set: session.home.index(),
                owner: self.name.clone(),
                connection: session.connection.clone(),
                identity: session.identity.as_ref().map(ToString::to_string),
                peer: session.path.remote.to_string(),
                inner_address: session.inner_address,
                state: state_word(session.state).to_owned(),
                children: session.children.len(),
                ike_rekeys: session.ike_rekeys,
                child_rekeys: session.child_rekeys,
                established_s: session.established.map(|age| age.as_secs()),
                rekey_in_s: session.rekey_in.map(|left| left.as_secs()),
            })
            .collect()
    }

    fn state(&self, now: Time) -> &'static str {
        let (Some(link), Some(current)) = (&self.link, &self.view) else {
            return if self.link.is_some() { "joining" } else { "alone" };
        };
        let full = current.view.full().contains(current.own);
        match (full, link.status().lease_until > now) {
            (false, _) => "learner",
            (true, true) => "member",
            (true, false) => "silent",
        }
    }

    fn view_status(&self) -> Option<ViewStatus> {
        let current = self.view.as_ref()?;
        let table = self.link.as_ref()?.status().report.table;
        let owned = |slot| {
            table.as_ref().map_or(0, |table| table.iter().filter(|(_, assignment)| assignment.owner == slot).count())
        };
        let members = current.view.members().iter().map(|member| MemberStatus {
            name: member.identity.name.as_str().to_owned(),
            slot: member.slot.number(),
            sets: owned(member.slot),
            full: current.view.full().contains(member.slot),
        });
        let master = current.view.member(current.view.master());
        Some(ViewStatus {
            number: format!("{:?}", current.view.id()),
            master: master.map_or_else(String::new, |member| member.identity.name.as_str().to_owned()),
            members: members.collect(),
        })
    }

    /// Work sets whose owner is in no view, as this node sees it.
    fn unowned(&self) -> usize {
        let Some(link) = &self.link else { return WorkSet::COUNT.saturating_sub(self.tenures.len()) };
        let report = link.status().report;
        match (report.view, report.table) {
            (Some(view), Some(table)) => {
                table.iter().filter(|(_, assignment)| view.member(assignment.owner).is_none()).count()
            }
            (_, None) | (None, _) => WorkSet::COUNT,
        }
    }

    fn status(&self, now: Time) -> Status {
        let mut counters: BTreeMap<String, u64> = BTreeMap::new();
        let ike = self.endpoint.counters();
        for (name, value) in [
            ("ike_datagrams_in", ike.datagrams_in),
            ("ike_datagrams_out", ike.datagrams_out),
            ("ike_requests_repeated", ike.requests_repeated),
            ("ike_answers_repeated", ike.answers_repeated),
            ("ike_established", ike.established),
            ("ike_rekeyed", ike.ike_rekeyed),
            ("ike_child_rekeyed", ike.child_rekeyed),
            ("ike_adopted", ike.adopted),
            ("ike_cookies_sent", ike.cookies_sent),
            ("commits_waiting", u64::try_from(self.waiting.len()).unwrap_or(u64::MAX)),
            ("esp_pairs", u64::try_from(self.children.len()).unwrap_or(u64::MAX)),
        ] {
            counters.insert(name.to_owned(), value);
        }
        for (refusal, count) in ike.refusals() {
            counters.insert(format!("ike_refused_{}", refusal.label()), count);
        }
        let drops = self.datapath.drops();
        counters.extend(drops.into_iter().map(|(reason, count)| (format!("drop_{}", reason.label()), count)));
        for (name, pool) in &self.pools {
            let (used, size) = pool.usage();
            counters.insert(format!("pool_{name}_used"), u64::try_from(used).unwrap_or(u64::MAX));
            counters.insert(format!("pool_{name}_size"), u64::try_from(size).unwrap_or(u64::MAX));
        }
        Status {
            node: self.name.clone(),
            cluster: self.cluster.name.clone(),
            config_version: self.cluster.version,
            config_hash: self.cluster.hash.to_string(),
            state: self.state(now).to_owned(),
            view: self.view_status(),
            unowned: self.unowned(),
            sessions: self.endpoint.sessions(now).count(),
            uptime_s: now.since(self.started).as_secs(),
            counters,
        }
    }
}

fn state_word(state: ike::SessionState) -> &'static str {
    match state {
        ike::SessionState::Connecting => "connecting",
        ike::SessionState::Established => "up",
        ike::SessionState::Closing => "closing",
    }
}
