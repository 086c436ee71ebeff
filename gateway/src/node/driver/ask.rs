//! Questions and orders of the operator.

use std::collections::HashSet;
use std::ops::ControlFlow;

use tokio::sync::oneshot;

use super::gather::Moved;
use super::*;
use crate::api::{LeaseStatus, MemberStatus, SessionEntry, Status, ViewStatus};
use crate::node::control::{sets_of, view_name};
use crate::node::privileges;
use crate::node::sessions::entry;
use crate::replicated::pool::home_of_pool;

/// What the API asks of the driver.
#[derive(Debug)]
pub(in crate::node) enum Ask {
    /// How the node stands.
    Status(oneshot::Sender<Status>),
    /// The work sets that this node owns, and the sessions that live here.
    Sessions(oneshot::Sender<(HashSet<WorkSet>, Vec<SessionEntry>)>),
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
    /// What all nodes have counted of moves.
    Moved(oneshot::Sender<Option<Moved>>),
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
            Ask::Moved(answer) => self.gather_moved(now, answer),
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

    fn list_sessions(&self, now: Time) -> (HashSet<WorkSet>, Vec<SessionEntry>) {
        let epoch = |set| self.tenures.get(&set).map_or(0, |tenure| tenure.epoch.count);
        let sessions = self.endpoint.sessions(now);
        let sessions = sessions.map(|session| entry(&session, (&self.name, epoch(session.home)), "owner"));
        (self.tenures.keys().copied().collect(), sessions.collect())
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
        let view = &current.view;
        let status = self.link.as_ref()?.status();
        let name = |slot| view.member(slot).map(|member| member.identity.name.as_str().to_owned());
        let round_trip = |name: &str| {
            let neighbour = status.neighbours.iter().find(|neighbour| neighbour.name == name)?;
            Some(neighbour.session?.round_trip.as_secs_f64() * 1e3)
        };
        let members = view.members().iter().map(|member| MemberStatus {
            name: member.identity.name.as_str().to_owned(),
            slot: member.slot.number(),
            full: view.full().contains(member.slot),
            drained: status.report.drained.contains(&member.slot),
            sets: status.report.table.as_ref().map_or(0, |table| sets_of(table, member.slot)),
            // Counted from the records, by who asks.
            sessions: 0,
            round_trip_ms: round_trip(member.identity.name.as_str()),
        });
        Some(ViewStatus {
            number: view.id().number,
            id: view_name(view),
            master: name(view.master()).unwrap_or_default(),
            deputy: view.deputy().and_then(name),
            unproven: view.is_unproven(),
            members: members.collect(),
        })
    }

    /// Members of the configuration that are in no view, as this node sees it.
    fn absent(&self) -> Vec<String> {
        let view = self.view.as_ref().map(|current| &current.view);
        let is_in = |name: &str| {
            view.is_some_and(|view| view.members().iter().any(|member| member.identity.name.as_str() == name))
        };
        let names = self.cluster.members.iter().map(|member| &member.name);
        names.filter(|name| !is_in(name)).cloned().collect()
    }

    fn lease(&self, now: Time) -> Option<LeaseStatus> {
        let milliseconds = |span: Duration| span.as_secs_f64() * 1e3;
        let status = self.link.as_ref()?.status();
        Some(LeaseStatus {
            left_ms: milliseconds(status.lease_until.since(now)),
            margin_min_ms: status.report.margin_min.map(milliseconds),
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
            ("strays_handed_on", self.strays.handed_on),
            ("strays_taken", self.strays.taken),
            ("strays_dropped", self.strays.dropped),
            ("esp_pairs", u64::try_from(self.children.len()).unwrap_or(u64::MAX)),
        ] {
            counters.insert(name.to_owned(), value);
        }
        for (refusal, count) in ike.refusals() {
            counters.insert(format!("ike_refused_{}", refusal.label()), count);
        }
        let drops = self.datapath.drops();
        counters.extend(drops.into_iter().map(|(reason, count)| (format!("drop_{}", reason.label()), count)));
        counters.extend(self.dispatch.iter().flat_map(|dispatch| dispatch_counters(dispatch)));
        counters.extend(self.link.iter().flat_map(|link| link_counters(link.status())));
        // Only the owner of a pool's set knows how much of it is used.
        for (name, pool) in self.pools.iter().filter(|(name, _)| self.tenures.contains_key(&home_of_pool(name))) {
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
            absent: self.absent(),
            unowned: self.unowned(),
            sessions: self.endpoint.sessions(now).count(),
            cluster_sessions: self.endpoint.sessions(now).count(),
            lease: self.lease(now),
            commits_waiting: self.waiting.len(),
            uptime_s: now.since(self.started).as_secs(),
            counters,
            dispatch: None,
            rights: privileges::rights(),
        }
    }
}

fn dispatch_counters(dispatch: &Dispatch) -> BTreeMap<String, u64> {
    let counters = dispatch.counters().unwrap_or_else(|error| {
        debug!(%error, "the filter's counters cannot be read");
        BTreeMap::new()
    });
    counters.into_iter().map(|(reason, count)| (format!("dispatch_{}", reason.label()), count)).collect()
}

fn link_counters(status: link::Status) -> impl Iterator<Item = (String, u64)> {
    let micros = |span: Duration| u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
    let (report, datagrams) = (&status.report, status.report.datagrams);
    let refused = status.refusals.iter().map(|(word, count)| (format!("link_refused_{word}"), *count));
    let refused: Vec<_> = refused.collect();
    [
        ("link_lease_margin_min_us", report.renewals.margin_min.map_or(0, micros)),
        ("link_lease_lapses", report.renewals.lapses),
        ("link_lease_lapsed_us", micros(report.renewals.lapsed)),
        ("link_late_max_us", micros(report.late_max)),
        ("link_keepalives_out", datagrams.sent),
        ("link_keepalives_in", datagrams.received),
        ("link_keepalives_unsent", datagrams.unsent),
        ("link_keepalives_forged", datagrams.forged),
        ("link_keepalives_malformed", datagrams.malformed),
        ("link_keepalives_other_key", datagrams.other_key),
        ("link_keepalives_repeated", datagrams.repeated),
        ("link_keepalives_strange", datagrams.strange),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .chain(refused)
}
