//! What all nodes have counted of moves, for the report of a drain.

use std::collections::HashSet;

use cluster::StartId;
use tokio::sync::oneshot;

use super::*;
use crate::datapath::DropReason;
use crate::replicated::words::{MovedAsked, MovedTold, Word};

/// Packets of work sets that moved, since the start of each node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::node) struct Moved {
    /// Found the queue of a moving set full.
    pub(in crate::node) lost: u64,
    /// Reached both owners, and were kept from being passed on twice.
    pub(in crate::node) doubles_prevented: u64,
}

impl Moved {
    /// What was added since `before`. A node that has restarted meanwhile counts from zero.
    pub(in crate::node) const fn since(self, before: Self) -> Self {
        Self {
            lost: self.lost.saturating_sub(before.lost),
            doubles_prevented: self.doubles_prevented.saturating_sub(before.doubles_prevented),
        }
    }

    const fn add(self, more: Self) -> Self {
        Self {
            lost: self.lost.saturating_add(more.lost),
            doubles_prevented: self.doubles_prevented.saturating_add(more.doubles_prevented),
        }
    }
}

/// A question to all members whose answers are awaited.
#[derive(Debug)]
pub(super) struct Gathering {
    question: u64,
    open: HashSet<StartId>,
    sum: Moved,
    give_up_at: Time,
    answer: oneshot::Sender<Option<Moved>>,
}

impl Gathering {
    pub(super) const fn give_up_at(&self) -> Time {
        self.give_up_at
    }
}

impl Driver {
    /// Asks all members; the answer is `None` if one of them does not say.
    pub(super) fn gather_moved(&mut self, now: Time, answer: oneshot::Sender<Option<Moved>>) {
        let mut open = HashSet::new();
        self.gathered = self.gathered.saturating_add(1);
        if let (Some(link), Some(current)) = (&self.link, &self.view) {
            let asked = MovedAsked { question: self.gathered, unknown: UnknownFields::default() };
            let word = Word::MovedAsked(asked).to_bytes();
            for member in current.view.members().iter().filter(|member| member.slot != current.own) {
                link.say(member.identity.start, word.clone());
                open.insert(member.identity.start);
            }
        }
        let (question, sum) = (self.gathered, self.own_moved());
        self.gatherings.push(Gathering { question, open, sum, give_up_at: now + GIVE_UP_AFTER, answer });
        self.finish_gatherings(now);
    }

    pub(super) fn on_moved_asked(&self, from: StartId, asked: &MovedAsked) {
        let Moved { lost, doubles_prevented } = self.own_moved();
        let told = MovedTold { question: asked.question, lost, doubles_prevented, unknown: UnknownFields::default() };
        if let Some(link) = &self.link {
            link.say(from, Word::MovedTold(told).to_bytes());
        }
    }

    pub(super) fn on_moved_told(&mut self, now: Time, from: StartId, told: &MovedTold) {
        if let Some(gathering) = self.gatherings.iter_mut().find(|gathering| gathering.question == told.question)
            && gathering.open.remove(&from)
        {
            let more = Moved { lost: told.lost, doubles_prevented: told.doubles_prevented };
            gathering.sum = gathering.sum.add(more);
        }
        self.finish_gatherings(now);
    }

    pub(super) fn finish_gatherings(&mut self, now: Time) {
        let is_over = |gathering: &mut Gathering| gathering.open.is_empty() || gathering.give_up_at <= now;
        for gathering in self.gatherings.extract_if(.., is_over) {
            // Who asked may be gone; then nobody misses the answer.
            let _gone = gathering.answer.send(gathering.open.is_empty().then_some(gathering.sum));
        }
    }

    fn own_moved(&self) -> Moved {
        let mut moved = Moved::default();
        for (reason, count) in self.datapath.drops() {
            if reason == DropReason::HoldQueue {
                moved.lost = moved.lost.saturating_add(count);
            } else if reason == DropReason::HandedOver {
                moved.doubles_prevented = moved.doubles_prevented.saturating_add(count);
            }
        }
        moved
    }
}

/// A node that has not answered by then does not say.
const GIVE_UP_AFTER: Duration = Duration::from_millis(500);
