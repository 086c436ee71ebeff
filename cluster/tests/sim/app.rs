//! What runs on each simulated node: sessions with message ids and sequence leases, as the gateway has them.

use std::collections::{BTreeMap, VecDeque};

use cluster::Replication;
use cluster::membership::How;
use wire::{Change, CommitId, Epoch, RecordId, RecordKind, Slot, Tenure, Time, WorkSet};

use crate::bugs::Bug;
use crate::world::MS;

/// Sequence numbers in one lease: few, so that leases are renewed often.
const LEASE: u64 = 64;
/// Unproven owners share the numbers above the common edge in blocks of this many: few, so that they meet often.
const BLOCK: u64 = 16;
const SLOTS: u64 = 16;
/// Packets of a session that wants to send more than its lease allows.
const BURST: usize = 80;
const NEVER: u64 = u64::MAX;
/// Bits of a key that are drawn; those above say when.
const KEY_BITS: u32 = 32;
pub(crate) const IKE: RecordKind = RecordKind::IKE_SA;
const EDGE: RecordKind = RecordKind::ESP_OUTBOUND;

/// One session as its owner knows it.
#[derive(Clone, Debug)]
struct Session {
    /// Drawn by whoever let the client in: numbers and vectors count under it.
    key: u64,
    last: u64,
    answer: u64,
    next: u64,
    edge: u64,
    asked: u64,
    /// From this number on only blocks of the own slot are used.
    split: u64,
}

impl Session {
    const fn new() -> Self {
        Self { key: 0, last: 0, answer: 0, next: 0, edge: 0, asked: 0, split: NEVER }
    }

    /// The next number that may be used, if the lease reaches it.
    fn number(&self, slot: Option<Slot>) -> Option<u64> {
        let mut next = self.next;
        if let Some(slot) = slot.filter(|_| next >= self.split) {
            let ahead = u64::from(slot.number()).wrapping_sub(next / BLOCK) % SLOTS;
            if ahead != 0 {
                next = (next / BLOCK + ahead) * BLOCK;
            }
        }
        (next < self.edge).then_some(next)
    }
}

/// Something that leaves the node if the fence is open.
pub(crate) enum Sent {
    Answer { session: u64, key: u64, message: u64, answer: u64 },
    Data { session: u64, key: u64, sequence: u64, counter: u64 },
}

/// What a client asks.
#[derive(Clone, Copy)]
pub(crate) struct Request {
    pub(crate) session: u64,
    /// What the first answer said; 0 before.
    pub(crate) key: u64,
    pub(crate) message: u64,
}

/// What became of a client's request at one node.
pub(crate) enum Heard {
    /// Another node's work, or nothing new to say.
    Silent,
    /// This leaves at once.
    Sent(Sent),
    /// The client knows an answer that the owner does not.
    Lost(String),
}

/// The application of one node.
pub(crate) struct App {
    held: Box<[Option<Tenure>; WorkSet::COUNT]>,
    sessions: BTreeMap<u64, Session>,
    counters: BTreeMap<u64, u64>,
    waiting: VecDeque<(CommitId, WorkSet, Tenure, Waiting)>,
    /// What was adopted of these sets may leave once this is committed.
    adopted: BTreeMap<WorkSet, CommitId>,
    /// Sets that are to move here.
    coming: BTreeMap<WorkSet, Tenure>,
    /// The last words on them, until this node works for them.
    handed: BTreeMap<WorkSet, BTreeMap<u64, u64>>,
    /// Somebody elsewhere may use numbers of the same sessions: only blocks of this slot are used.
    apart: Option<Slot>,
    /// No association lives longer, in nanoseconds.
    life: u64,
}

enum Waiting {
    Answer { session: u64, key: u64, message: u64, answer: u64 },
    Edge { session: u64, edge: u64 },
}

/// When a key was drawn, as the key itself says: in milliseconds, and never 0.
fn born_at(real: u64) -> u64 {
    real / MS + 1
}

/// Whether an association under that key has lived as long as any may.
pub(crate) fn is_over(key: u64, real: u64, life: u64) -> bool {
    born_at(real) - (key >> KEY_BITS) > life / MS
}

pub(crate) fn home(session: u64) -> WorkSet {
    WorkSet::from_low_bits(session)
}

impl App {
    pub(crate) fn new(life: u64) -> Self {
        Self {
            held: Box::new([None; WorkSet::COUNT]),
            sessions: BTreeMap::new(),
            counters: BTreeMap::new(),
            waiting: VecDeque::new(),
            adopted: BTreeMap::new(),
            coming: BTreeMap::new(),
            handed: BTreeMap::new(),
            apart: None,
            life,
        }
    }

    pub(crate) fn tenure(&self, set: WorkSet) -> Option<Tenure> {
        self.held[usize::from(set.index())]
    }

    /// Whether something of `set` is not committed yet.
    pub(crate) fn is_waiting(&self, set: WorkSet) -> bool {
        self.waiting.iter().any(|(_, waiting, _, _)| *waiting == set)
    }

    /// Whether this node works for any session.
    pub(crate) fn is_busy(&self) -> bool {
        !self.sessions.is_empty()
    }

    /// A view is in force. Where others may go on with the same sessions, the own slot's blocks alone are used above what
    /// was committed together.
    pub(crate) fn enter(&mut self, apart: Option<Slot>) {
        self.apart = apart;
        if apart.is_some() {
            for session in self.sessions.values_mut() {
                session.split = session.split.min(session.edge);
            }
        }
    }

    pub(crate) fn acquire(&mut self, set: WorkSet, tenure: Tenure, how: How, replication: &Replication, bug: Bug) {
        let handed = self.handed.remove(&set).filter(|_| how == How::Planned).unwrap_or_default();
        self.release(set);
        let epoch = if bug == Bug::EpochNotRaised { Epoch { count: 1, master: Slot::default() } } else { tenure.epoch };
        let tenure = Tenure { epoch, ..tenure };
        self.held[usize::from(set.index())] = Some(tenure);
        for (id, bytes) in replication.records(set) {
            let session = self.sessions.entry(u64::try_from(id.key).unwrap()).or_insert(Session::new());
            let word = |at: usize| u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap());
            if id.kind == IKE {
                (session.key, session.last, session.answer) = (word(0), word(8), word(16));
            } else {
                let edge = word(0);
                (session.edge, session.asked, session.next) = (edge, edge, edge);
                if bug == Bug::HeirBelowEdge && how == How::Unplanned {
                    session.next = edge.saturating_sub(1);
                }
            }
            // What others sent above the common edge is unknown here, hand-over or not.
            session.split = if self.apart.is_some() { 0 } else { NEVER };
        }
        for (session, next) in handed {
            if let Some(session) = self.sessions.get_mut(&session) {
                session.next = next;
            }
        }
    }

    /// The set is gone, or does not come.
    pub(crate) fn release(&mut self, set: WorkSet) {
        self.coming.remove(&set);
        self.handed.remove(&set);
        if self.held[usize::from(set.index())].take().is_some() {
            self.sessions.retain(|session, _| home(*session) != set);
            self.counters.retain(|session, _| home(*session) != set);
            self.waiting.retain(|(_, waiting, _, _)| *waiting != set);
            self.adopted.remove(&set);
        }
    }

    /// The set is to move here.
    pub(crate) fn prepare(&mut self, set: WorkSet, tenure: Tenure) {
        self.coming.insert(set, tenure);
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

    /// Takes the last word on a set that is awaited, once; whether it was that.
    pub(crate) fn take(&mut self, set: WorkSet, tenure: Tenure, state: &[u8]) -> bool {
        let awaited = self.coming.get(&set) == Some(&tenure) && !self.handed.contains_key(&set);
        if awaited {
            let word = |bytes: &[u8]| u64::from_be_bytes(bytes.try_into().unwrap());
            self.handed.insert(set, state.chunks(16).map(|pair| (word(&pair[..8]), word(&pair[8..]))).collect());
        }
        awaited
    }

    /// Whether the last word on the set is here.
    pub(crate) fn is_handed(&self, set: WorkSet) -> bool {
        self.handed.contains_key(&set)
    }

    /// A client's request.
    pub(crate) fn request(
        &mut self,
        now: Time,
        replication: &mut Replication,
        bug: Bug,
        Request { session, key, message }: Request,
        (real, noise): (u64, u64),
    ) -> Heard {
        let set = home(session);
        let Some(tenure) = self.tenure(set) else { return Heard::Silent };
        let (key_here, last) = self.sessions.get(&session).map_or((0, 0), |known| (known.key, known.last));
        if message > last + 1 || (message > 1 && key_here != key) {
            return Heard::Lost(format!(
                "session {session:x}: request {message} came, but the owner knows only {last}"
            ));
        }
        let known = self.sessions.entry(session).or_insert(Session::new());
        if known.key == 0 {
            known.key = born_at(real) << KEY_BITS | noise >> (64 - KEY_BITS);
        }
        let key = known.key;
        if message <= known.last {
            let waits = |waiting: &Waiting| matches!(waiting, Waiting::Answer { session: s, .. } if *s == session);
            let again = message == known.last && !self.waiting.iter().any(|(_, _, _, waiting)| waits(waiting));
            let answer = known.answer;
            if again && let Some(commit) = self.adopted.get(&set) {
                let again = Waiting::Answer { session, key, message, answer };
                self.waiting.push_back((*commit, set, tenure, again));
                return Heard::Silent;
            }
            return if again { Heard::Sent(Sent::Answer { session, key, message, answer }) } else { Heard::Silent };
        }
        (known.last, known.answer) = (message, noise);
        let starts = known.asked == 0;
        let bytes = [key.to_be_bytes(), message.to_be_bytes(), noise.to_be_bytes()].concat();
        let id = RecordId { set, kind: IKE, key: session.into() };
        let Ok(commit) = replication.put(now, id, Change::Put(bytes.into())) else { return Heard::Silent };
        if starts {
            self.extend(now, replication, bug, session);
        }
        if bug == Bug::OutputBeforeCommit {
            return Heard::Sent(Sent::Answer { session, key, message, answer: noise });
        }
        self.waiting.push_back((commit, set, tenure, Waiting::Answer { session, key, message, answer: noise }));
        Heard::Silent
    }

    fn extend(&mut self, now: Time, replication: &mut Replication, bug: Bug, session: u64) {
        let set = home(session);
        let (Some(tenure), Some(known)) = (self.tenure(set), self.sessions.get_mut(&session)) else {
            return;
        };
        // One block in sixteen is ours while the numbers are shared.
        let spread = if known.split == NEVER { 1 } else { SLOTS };
        known.asked = known.next.max(known.edge) + LEASE * spread;
        let edge = known.asked;
        if bug == Bug::LeaseBeforeCommit {
            known.edge = edge;
        }
        let id = RecordId { set, kind: EDGE, key: session.into() };
        if let Ok(commit) = replication.put(now, id, Change::Put(edge.to_be_bytes().into())) {
            self.waiting.push_back((commit, set, tenure, Waiting::Edge { session, edge }));
        }
    }

    /// What this node has of a set is with all once this is committed.
    pub(crate) fn adopted(&mut self, set: WorkSet, published: CommitId) {
        self.adopted.insert(set, published);
    }

    pub(crate) fn committed(&mut self, upto: CommitId) -> Vec<Sent> {
        self.adopted.retain(|_, commit| *commit > upto);
        let mut sent = Vec::new();
        while self.waiting.front().is_some_and(|(commit, ..)| *commit <= upto) {
            let Some((_, set, tenure, waiting)) = self.waiting.pop_front() else { break };
            if self.tenure(set) != Some(tenure) {
                continue;
            }
            match waiting {
                Waiting::Answer { session, key, message, answer } => {
                    sent.push(Sent::Answer { session, key, message, answer });
                }
                Waiting::Edge { session, edge } => {
                    if let Some(known) = self.sessions.get_mut(&session) {
                        known.edge = known.edge.max(edge);
                    }
                }
            }
        }
        sent
    }

    /// Data of each session, as far as the committed leases reach: one packet, or, in a burst, more than they do.
    pub(crate) fn data(
        &mut self,
        now: Time,
        replication: &mut Replication,
        (real, bug): (u64, Bug),
        burst: bool,
    ) -> Vec<Sent> {
        let mut sent = Vec::new();
        let slot = if bug == Bug::SharedBlocks { None } else { self.apart };
        let (mut low, mut over) = (Vec::new(), Vec::new());
        for (session, known) in &mut self.sessions {
            if is_over(known.key, real, self.life) {
                over.push(*session);
                continue;
            }
            let counter = self.counters.entry(*session).or_default();
            for _ in 0..if burst { BURST } else { 1 } {
                let Some(sequence) = known.number(slot) else { break };
                *counter += 1;
                sent.push(Sent::Data { session: *session, key: known.key, sequence, counter: *counter });
                known.next = sequence + 1;
            }
            let spread = if known.split == NEVER { 1 } else { SLOTS };
            if known.asked == known.edge && known.edge.saturating_sub(known.next) < LEASE * spread / 2 {
                low.push(*session);
            }
        }
        for session in low {
            self.extend(now, replication, bug, session);
        }
        for session in over {
            self.end(now, replication, session);
        }
        sent
    }

    /// A session's time is over: its records go.
    fn end(&mut self, now: Time, replication: &mut Replication, session: u64) {
        self.sessions.remove(&session);
        self.counters.remove(&session);
        for kind in [IKE, EDGE] {
            let id = RecordId { set: home(session), kind, key: session.into() };
            let _ = replication.put(now, id, Change::Delete);
        }
    }
}
