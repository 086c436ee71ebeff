//! The invariants of ARCHITECTURE.md, judged at each packet that leaves a node (I1, I2, I10), at each request (I6) and ten
//! seconds after the faults have stopped (I11).

use std::collections::{BTreeMap, HashMap};

use cluster::ViewId;
use cluster::membership::How;
use wire::{Epoch, WorkSet};

use crate::app::{Request, Sent, home};
use crate::bugs::Bug;
use crate::world::{Event, MS, S, World};

/// Existing traffic goes on: no session may be silent for longer while a quorum is whole.
const SILENCE_MAX: u64 = S;

/// A run ends with its first violation; so many of what comes with it are told.
const VIOLATIONS_MAX: usize = 3;

/// What one run has shown, and what the invariants remember of it.
#[derive(Default)]
pub(crate) struct Check {
    pub(crate) violations: Vec<String>,
    pub(crate) counts: BTreeMap<&'static str, u64>,
    pub(crate) faults: BTreeMap<&'static str, u64>,
    /// The longest silence of a session, in nanoseconds.
    pub(crate) silence_max: u64,
    sessions: HashMap<u64, Memory>,
    numbers: HashMap<u64, Numbers>,
    /// The last counter of each vector's slot and epoch.
    vectors: HashMap<(u64, u8, Epoch), u64>,
    owners: HashMap<(WorkSet, Epoch), (usize, u64)>,
    newest: HashMap<WorkSet, (Epoch, usize)>,
    acquired: HashMap<WorkSet, Epoch>,
    /// The view of each number; where parts go on alone, each lineage counts for itself.
    views: HashMap<(u64, u64), ViewId>,
    /// When each set had an owner under a lease last.
    worked_at: Vec<u64>,
    /// Those whose nodes have sent as proven, in that order.
    lineages: Vec<u64>,
}

/// What was seen of one session.
#[derive(Default)]
struct Memory {
    /// The answer to each message.
    answers: Vec<Option<u64>>,
    heard_at: Option<u64>,
}

/// The sequence numbers that have left under one key, a bit each.
#[derive(Default)]
struct Numbers(Vec<u64>);

impl Check {
    pub(crate) fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// Adds another run's figures.
    pub(crate) fn add(&mut self, other: &Self) {
        for (what, count) in &other.counts {
            *self.counts.entry(what).or_default() += count;
        }
        for (fault, count) in &other.faults {
            *self.faults.entry(fault).or_default() += count;
        }
        self.silence_max = self.silence_max.max(other.silence_max);
    }
}

impl Numbers {
    /// Whether the number had not left before.
    fn is_new(&mut self, sequence: u64) -> bool {
        let (word, bit) = ((sequence / 64) as usize, 1 << (sequence % 64));
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        let before = self.0[word];
        self.0[word] |= bit;
        before & bit == 0
    }
}

impl Memory {
    /// Whether the message was answered with these bytes or not at all before.
    fn agrees(&mut self, message: u64, answer: u64) -> bool {
        let at = message as usize;
        if self.answers.len() <= at {
            self.answers.resize(at + 1, None);
        }
        *self.answers[at].get_or_insert(answer) == answer
    }
}

impl World {
    pub(crate) fn violate(&mut self, what: String) {
        let line = format!("seed {} at {} ms: {what}", self.plan.seed, self.now / MS);
        if self.check.violations.len() < VIOLATIONS_MAX {
            self.check.violations.push(line);
        }
    }

    /// Whether the fence lets something out, in the kernel or, with a bug, where the fence is built wrong.
    fn passes_fence(&self, node: usize) -> bool {
        let state = &self.nodes[node];
        let in_process = self.plan.bug == Bug::FenceInProcess && state.thinks_leased;
        self.plan.bug == Bug::NoFence || in_process || state.is_leased(self.now)
    }

    /// Something leaves the node, if the fence lets it: here the invariants are judged.
    pub(crate) fn leave(&mut self, node: usize, sent: Sent) {
        if !self.passes_fence(node) {
            self.check.count("packets stopped by the fence");
            return;
        }
        let (Sent::Answer { session, .. } | Sent::Data { session, .. }) = &sent;
        let (session, set) = (*session, home(*session));
        let Some(tenure) = self.nodes[node].app.tenure(set) else { return };
        let Some(view) = self.nodes[node].membership.view().cloned() else { return };
        self.check.count("packets");
        let certain = self.is_certain(node);
        if certain {
            self.judge_view(node, view.id(), view.lineage());
            self.judge_owner(node, set, tenure.epoch);
        } else {
            self.check.count("packets of unproven nodes");
        }
        match sent {
            Sent::Answer { key, message, answer, .. } => {
                if certain && !self.check.sessions.entry(session).or_default().agrees(message, answer) {
                    self.violate(format!("I1: request {message} of session {session:x} has two different answers"));
                }
                let delay = 100_000 + self.dice.below(MS);
                self.queue.push(self.now + delay, Event::Answer { from: node, of: Request { session, key, message } });
            }
            Sent::Data { key, sequence, counter, .. } => {
                let now = self.now;
                let heard_at = &mut self.check.sessions.entry(session).or_default().heard_at;
                let silence = now - heard_at.replace(now).unwrap_or(now);
                if !self.check.numbers.entry(key).or_default().is_new(sequence) {
                    self.violate(format!("I2: sequence number {sequence} of session {session:x} left twice"));
                }
                let vector = (key, tenure.slot.number(), tenure.epoch);
                if self.check.vectors.insert(vector, counter).is_some_and(|before| before >= counter) {
                    self.violate(format!("I2: vector {counter} of {vector:?} left twice"));
                }
                self.judge_silence(session, silence);
            }
        }
    }

    /// Whether nobody else can be at work for the same sets, as the node itself has it.
    fn is_certain(&self, node: usize) -> bool {
        !self.nodes[node].is_unproven() || self.plan.bug == Bug::DeafProbe
    }

    /// I10: one view for each number, and one part of the cluster that is at work as proven.
    fn judge_view(&mut self, node: usize, id: ViewId, lineage: u64) {
        // Where parts go on alone, one that yields may have used a number that the other reaches later.
        let counted = if self.plan.is_lone() { lineage } else { 0 };
        if *self.check.views.entry((counted, id.number)).or_insert(id) != id {
            self.violate(format!("I10: two views {} are in force", id.number));
        }
        if self.check.lineages.last() != Some(&lineage) {
            self.log(|| format!("n{node} is the first to send as proven in lineage {lineage:x}"));
            if self.check.lineages.contains(&lineage) {
                self.violate(format!("I10: n{node} sends as proven in lineage {lineage:x}, after another did"));
            }
            self.check.lineages.push(lineage);
        }
        let other = (0..self.nodes.len()).find(|other| self.is_proven_elsewhere(*other, lineage));
        if let Some(other) = other {
            self.violate(format!("I10: n{node} and n{other} are both at work as proven, in two parts"));
        }
    }

    /// Whether the node may send, as proven, in another part of the cluster.
    fn is_proven_elsewhere(&self, node: usize, lineage: u64) -> bool {
        let state = &self.nodes[node];
        let elsewhere = state.membership.view().is_some_and(|view| view.lineage() != lineage);
        elsewhere && state.alive && state.is_leased(self.now) && self.is_certain(node)
    }

    /// I1: one owner for each set and epoch; and none sends under an older epoch than another has before it.
    fn judge_owner(&mut self, node: usize, set: WorkSet, epoch: Epoch) {
        let (now, lone) = (self.now, self.plan.is_lone());
        let (other, at) = self.check.owners.entry((set, epoch)).or_insert((node, now));
        // Where all parts may go and one is founded anew, the epochs begin anew too.
        if *other == node || (lone && now - *at > 10 * S) {
            (*other, *at) = (node, now);
        } else {
            let other = *other;
            self.violate(format!("I1: n{node} and n{other} both send for set {set} under {epoch:?}"));
        }
        let newest = self.check.newest.entry(set).or_insert((epoch, node));
        let (other, by) = *newest;
        if epoch >= other {
            *newest = (epoch, node);
        } else if !self.plan.is_lone() || self.plan.bug == Bug::DeafProbe {
            self.violate(format!("I1: n{node} sends for set {set} under {epoch:?}, n{by} has under {other:?}"));
        }
    }

    /// I1: where a quorum stays whole, nobody takes a set under an older epoch than somebody has before; and none that moves
    /// before the old owner's last word.
    pub(crate) fn judge_acquisition(&mut self, node: usize, set: WorkSet, epoch: Epoch, how: How) {
        if how == How::Planned && !self.nodes[node].app.is_handed(set) {
            self.violate(format!("I1: n{node} takes set {set} under {epoch:?}, which nobody has handed over"));
        }
        let newest = self.check.acquired.entry(set).or_insert(epoch);
        let before = *newest;
        *newest = before.max(epoch);
        if epoch < before && !self.plan.is_lone() {
            self.violate(format!("I1: n{node} takes set {set} under {epoch:?}, somebody has under {before:?}"));
        }
    }

    /// I10: existing traffic goes on where ownership is certain.
    fn judge_silence(&mut self, session: u64, silence: u64) {
        if self.plan.is_lone() {
            return;
        }
        self.check.silence_max = self.check.silence_max.max(silence);
        if silence > SILENCE_MAX {
            self.violate(format!("I10: session {session:x} was silent for {} ms", silence / MS));
        }
    }

    /// I10: no set is without an owner that may send for longer than a session may be silent.
    pub(crate) fn judge_sets(&mut self) {
        if self.plan.is_lone() {
            return;
        }
        let now = self.now;
        let at_work: Vec<usize> = (0..self.nodes.len())
            .filter(|node| self.nodes[*node].is_running() && self.nodes[*node].is_leased(now))
            .collect();
        self.check.worked_at.resize(WorkSet::COUNT, 0);
        for set in WorkSet::all() {
            let worked = at_work.iter().any(|node| self.nodes[*node].app.tenure(set).is_some());
            let at = &mut self.check.worked_at[usize::from(set.index())];
            if worked {
                *at = now;
            } else if *at != 0 && now - *at > SILENCE_MAX {
                self.violate(format!("I10: nobody has worked for set {set} for {} ms", SILENCE_MAX / MS));
            }
        }
    }

    /// I11: the faults stopped ten seconds ago; everything must be whole again.
    pub(crate) fn judge_calm(&mut self) {
        self.check.count("calms judged");
        let views: Vec<_> = self.nodes.iter().map(|node| node.membership.view().map(|view| view.id())).collect();
        if views.iter().any(|view| view.is_none() || *view != views[0]) {
            self.violate(format!("I11: after the faults the nodes are in views {views:?}"));
            return;
        }
        let full = self.nodes[0].membership.view().map_or(0, |view| view.full().len());
        if full as usize != self.nodes.len() || self.nodes[0].is_unproven() {
            self.violate(format!("I11: only {full} members are full, or the view is unproven"));
            return;
        }
        for set in WorkSet::all() {
            let owners: Vec<usize> =
                (0..self.nodes.len()).filter(|node| self.nodes[*node].app.tenure(set).is_some()).collect();
            if owners.len() != 1 {
                let tables = self.nodes.iter().map(|node| (node.membership.table(), node.replication.epoch(set)));
                let known: Vec<_> =
                    tables.map(|(table, held)| (table.map(|table| *table.assignment(set)), held)).collect();
                self.violate(format!("I11: set {set} is owned by {owners:?}; the nodes know {known:?}"));
                return;
            }
        }
        self.judge_drain();
        for client in 0..self.clients.len() {
            self.judge_session(client);
        }
    }

    /// I11: all copies of a session's records agree, but for what is under way; I6: its client gets answers.
    fn judge_session(&mut self, client: usize) {
        let (session, asked) = (self.clients[client].session, self.clients[client].asked);
        let set = home(session);
        let copy = |node: usize| -> Vec<_> {
            let records = self.nodes[node].replication.records(set);
            records.map(|(id, bytes)| (id, bytes.to_vec())).collect()
        };
        let under_way = (0..self.nodes.len()).any(|node| self.nodes[node].app.is_waiting(set));
        if !under_way && (1..self.nodes.len()).any(|node| copy(node) != copy(0)) {
            self.violate(format!("I11: the copies of set {set} differ"));
        }
        if asked != 0 && self.now - asked > 2 * S {
            self.violate(format!("I6: session {session:x} gets no answer"));
        }
    }
}
