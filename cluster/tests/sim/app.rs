//! What runs on each simulated node: sessions with message ids and sequence leases, as DESIGN §4 has them.

use std::collections::{BTreeMap, VecDeque};

use cluster::Replication;
use wire::{Change, CommitId, RecordId, RecordKind, Tenure, Time, WorkSet};

/// Sequence numbers in one lease: few, so that leases are renewed often.
const LEASE: u64 = 64;
pub(crate) const IKE: RecordKind = RecordKind::IKE_SA;
const EDGE: RecordKind = RecordKind::ESP_OUTBOUND;

/// What a node does wrong on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AppBug {
    None,
    /// Answers leave before the state behind them is committed.
    OutputBeforeCommit,
}

/// One session as its owner knows it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Session {
    pub(crate) last: u64,
    pub(crate) answer: u64,
    pub(crate) next: u64,
    edge: u64,
    asked: u64,
}

/// Something that leaves the node if the fence is open.
pub(crate) enum Sent {
    Answer { session: u64, message: u64, answer: u64 },
    Data { session: u64, sequence: u64, counter: u64 },
}

/// The application of one node.
#[derive(Default)]
pub(crate) struct App {
    pub(crate) held: BTreeMap<WorkSet, Tenure>,
    pub(crate) sessions: BTreeMap<u64, Session>,
    counters: BTreeMap<u64, u64>,
    waiting: VecDeque<(CommitId, WorkSet, Tenure, Waiting)>,
    handed: BTreeMap<WorkSet, BTreeMap<u64, u64>>,
}

enum Waiting {
    Answer { session: u64, message: u64, answer: u64 },
    Edge { session: u64, edge: u64 },
}

pub(crate) fn home(session: u64) -> WorkSet {
    WorkSet::from_low_bits(session)
}

impl App {
    pub(crate) fn acquire(&mut self, set: WorkSet, tenure: Tenure, replication: &Replication) {
        self.release(set);
        self.held.insert(set, tenure);
        for (id, bytes) in replication.records(set) {
            let session = self.sessions.entry(u64::try_from(id.key).unwrap()).or_default();
            let word = |at: usize| u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap());
            if id.kind == IKE {
                (session.last, session.answer) = (word(0), word(8));
            } else {
                (session.edge, session.asked, session.next) = (word(0), word(0), word(0));
            }
        }
        for (session, next) in self.handed.remove(&set).unwrap_or_default() {
            if let Some(session) = self.sessions.get_mut(&session) {
                session.next = next;
            }
        }
    }

    pub(crate) fn release(&mut self, set: WorkSet) {
        self.held.remove(&set);
        self.sessions.retain(|session, _| home(*session) != set);
        self.counters.retain(|session, _| home(*session) != set);
        self.waiting.retain(|(_, waiting, _, _)| *waiting != set);
    }

    pub(crate) fn stop(&mut self, set: WorkSet) -> Vec<u8> {
        let mut state = Vec::new();
        for (session, known) in self.sessions.iter().filter(|(session, _)| home(**session) == set) {
            state.extend_from_slice(&session.to_be_bytes());
            state.extend_from_slice(&known.next.to_be_bytes());
        }
        self.release(set);
        state
    }

    pub(crate) fn take(&mut self, set: WorkSet, state: &[u8]) {
        let word = |bytes: &[u8]| u64::from_be_bytes(bytes.try_into().unwrap());
        self.handed.insert(set, state.chunks(16).map(|pair| (word(&pair[..8]), word(&pair[8..]))).collect());
    }

    /// A client's request. Returns what leaves at once, and whether state that the client has seen is missing.
    pub(crate) fn request(
        &mut self,
        now: Time,
        replication: &mut Replication,
        bug: AppBug,
        session: u64,
        message: u64,
        noise: u64,
    ) -> (Option<Sent>, Option<String>) {
        let set = home(session);
        let Some(tenure) = self.held.get(&set).copied() else { return (None, None) };
        let known = self.sessions.entry(session).or_default();
        if message > known.last + 1 {
            let lost = format!("session {session:x}: request {message} came, but the owner knows only {}", known.last);
            return (None, Some(lost));
        }
        if message <= known.last {
            let committed = self
                .waiting
                .iter()
                .all(|(_, _, _, waiting)| !matches!(waiting, Waiting::Answer { session: s, .. } if *s == session));
            let again = message == known.last && committed;
            return (again.then_some(Sent::Answer { session, message, answer: known.answer }), None);
        }
        (known.last, known.answer) = (message, noise);
        let bytes = [message.to_be_bytes(), noise.to_be_bytes()].concat();
        let id = RecordId { set, kind: IKE, key: session.into() };
        let Ok(commit) = replication.put(now, id, Change::Put(bytes.into())) else { return (None, None) };
        if known.asked == 0 {
            self.extend(now, replication, session);
        }
        match bug {
            AppBug::None => {
                self.waiting.push_back((commit, set, tenure, Waiting::Answer { session, message, answer: noise }));
                (None, None)
            }
            AppBug::OutputBeforeCommit => (Some(Sent::Answer { session, message, answer: noise }), None),
        }
    }

    fn extend(&mut self, now: Time, replication: &mut Replication, session: u64) {
        let set = home(session);
        let (Some(tenure), Some(known)) = (self.held.get(&set).copied(), self.sessions.get_mut(&session)) else {
            return;
        };
        known.asked = known.next.max(known.edge) + LEASE;
        let edge = known.asked;
        let id = RecordId { set, kind: EDGE, key: session.into() };
        if let Ok(commit) = replication.put(now, id, Change::Put(edge.to_be_bytes().into())) {
            self.waiting.push_back((commit, set, tenure, Waiting::Edge { session, edge }));
        }
    }

    pub(crate) fn committed(&mut self, upto: CommitId) -> Vec<Sent> {
        let mut sent = Vec::new();
        while self.waiting.front().is_some_and(|(commit, ..)| *commit <= upto) {
            let Some((_, set, tenure, waiting)) = self.waiting.pop_front() else { break };
            if self.held.get(&set) != Some(&tenure) {
                continue;
            }
            match waiting {
                Waiting::Answer { session, message, answer } => sent.push(Sent::Answer { session, message, answer }),
                Waiting::Edge { session, edge } => {
                    if let Some(known) = self.sessions.get_mut(&session) {
                        known.edge = known.edge.max(edge);
                    }
                }
            }
        }
        sent
    }

    /// One data packet of each session, as far as the committed leases reach.
    pub(crate) fn data(&mut self, now: Time, replication: &mut Replication) -> Vec<Sent> {
        let mut sent = Vec::new();
        let sessions: Vec<u64> = self.sessions.keys().copied().collect();
        for session in sessions {
            let Some(known) = self.sessions.get_mut(&session) else { continue };
            if known.next < known.edge {
                let counter = self.counters.entry(session).or_default();
                *counter += 1;
                sent.push(Sent::Data { session, sequence: known.next, counter: *counter });
                known.next += 1;
            }
            if known.asked == known.edge && known.edge - known.next < LEASE / 2 {
                self.extend(now, replication, session);
            }
        }
        sent
    }
}
