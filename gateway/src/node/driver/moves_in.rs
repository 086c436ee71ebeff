//! Planned moves of work sets to this node, from the announcement to the first packet: which hand-over is awaited, what waits
//! for it, who is to be asked again. No I/O, no clock.

use std::collections::{HashMap, HashSet};
use std::mem;
use std::time::Duration;

use ike::Path;
use wire::{Spi, Tenure, Time, WorkSet};

use crate::link::Records;
use crate::replicated::adopt::Adopted;

/// The moves to this node, one for a set at most.
#[derive(Default)]
pub(super) struct MovesIn {
    by_set: HashMap<WorkSet, MoveIn>,
    /// Sets for which somebody waits for the workers, be it for a move that has ended since.
    waited_for: HashSet<WorkSet>,
}

/// A set that is to move here and still has its old owner.
pub(super) struct MoveIn {
    /// Under which this node will own it.
    pub(super) tenure: Tenure,
    /// The state as it was when the move was announced: it tells whose packets are to be queued.
    pub(super) records: Records,
    /// Pairs installed from that state. Those that the final state does not have go again.
    pub(super) pairs: Vec<Spi>,
    /// IKE datagrams that wait.
    pub(super) ike: Vec<(Path, Vec<u8>)>,
    /// Plain packets of pairs that have come up since.
    pub(super) inner: Vec<Vec<u8>>,
    /// The final state, once it is here.
    pub(super) handed_over: Option<HandedOver>,
    stage: Stage,
    are_workers_late: bool,
}

/// A set that was handed over, and what its old owner processed in the overlap.
#[derive(Default)]
pub(super) struct HandedOver {
    pub(super) adopted: Adopted,
    pub(super) digests: Vec<u64>,
}

/// How far this node's queue has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The old owner does not watch yet, and is asked again at this time.
    AwaitWatch { ask_at: Time },
    /// The workers were told to queue: from this time on somebody is to wait for them.
    Told { wait_at: Time },
    /// Somebody waits for the workers.
    AwaitWorkers,
    /// The workers queue.
    Queueing,
}

/// What a wait for the workers has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waited {
    /// The workers queue, and the old owner may know.
    Prepared(Tenure),
    /// They are late, for the first time in this move.
    Late,
    /// They are late still, or the wait was for a move that has ended.
    Nothing,
}

impl MovesIn {
    /// A set is to move here. Whatever was known of an earlier move of it counts no more.
    pub(super) fn announce(&mut self, now: Time, set: WorkSet, tenure: Tenure, records: Records) {
        let announced = MoveIn {
            tenure,
            records,
            pairs: Vec::new(),
            ike: Vec::new(),
            inner: Vec::new(),
            handed_over: None,
            stage: Stage::AwaitWatch { ask_at: now + ASK_EVERY },
            are_workers_late: false,
        };
        self.by_set.insert(set, announced);
    }

    /// The move of a set, if it is to move here.
    pub(super) fn of(&mut self, set: WorkSet) -> Option<&mut MoveIn> {
        self.by_set.get_mut(&set)
    }

    pub(super) fn contains(&self, set: WorkSet) -> bool {
        self.by_set.contains_key(&set)
    }

    /// Whether the workers were told to queue for the set: what they have of it is no rest of an earlier time.
    pub(super) fn is_queueing(&self, set: WorkSet) -> bool {
        self.by_set.get(&set).is_some_and(|moving| !matches!(moving.stage, Stage::AwaitWatch { .. }))
    }

    /// The move ends: the set is this node's, or not to be.
    pub(super) fn end(&mut self, set: WorkSet) -> Option<MoveIn> {
        self.by_set.remove(&set)
    }

    /// When [`poll_asks`](Self::poll_asks) or [`poll_waits`](Self::poll_waits) has something next.
    pub(super) fn poll_timeout(&self) -> Option<Time> {
        let at = |(set, moving): (&WorkSet, &MoveIn)| match moving.stage {
            Stage::AwaitWatch { ask_at } => Some(ask_at),
            Stage::Told { wait_at } => Some(wait_at).filter(|_| !self.waited_for.contains(set)),
            Stage::AwaitWorkers | Stage::Queueing => None,
        };
        self.by_set.iter().filter_map(at).min()
    }

    /// Sets whose old owner has not said that it watches: words are lost with the session that they were on.
    pub(super) fn poll_asks(&mut self, now: Time) -> Vec<WorkSet> {
        let mut sets = Vec::new();
        for (set, moving) in &mut self.by_set {
            if let Stage::AwaitWatch { ask_at } = &mut moving.stage
                && *ask_at <= now
            {
                *ask_at = now + ASK_EVERY;
                sets.push(*set);
            }
        }
        sets
    }

    /// The old owner watches, and the workers are to be told to queue. `None` if they were: a second answer must not begin a
    /// second queue.
    pub(super) fn handle_watching(&mut self, now: Time, set: WorkSet) -> Option<&mut MoveIn> {
        let is_asked = |moving: &&mut MoveIn| matches!(moving.stage, Stage::AwaitWatch { .. });
        let moving = self.by_set.get_mut(&set).filter(is_asked)?;
        moving.stage = Stage::Told { wait_at: now };
        Some(moving)
    }

    /// Sets for which somebody is to wait for the workers from now on; one waits for each set.
    pub(super) fn poll_waits(&mut self, now: Time) -> Vec<WorkSet> {
        let mut sets = Vec::new();
        for (set, moving) in &mut self.by_set {
            let is_due = matches!(moving.stage, Stage::Told { wait_at } if wait_at <= now);
            if is_due && self.waited_for.insert(*set) {
                moving.stage = Stage::AwaitWorkers;
                sets.push(*set);
            }
        }
        sets
    }

    /// Whoever waited for the workers tells whether they have what they were told.
    pub(super) fn handle_waited(&mut self, now: Time, set: WorkSet, have_it: bool) -> Waited {
        self.waited_for.remove(&set);
        // Of an earlier move: what was held was started or forgotten when that one ended.
        let is_this = |moving: &&mut MoveIn| moving.stage == Stage::AwaitWorkers;
        let Some(moving) = self.by_set.get_mut(&set).filter(is_this) else { return Waited::Nothing };
        if have_it {
            moving.stage = Stage::Queueing;
            return Waited::Prepared(moving.tenure);
        }
        // They have it in their mailboxes: workers that are late, not stuck, take it yet. A stuck node is voted out.
        moving.stage = Stage::Told { wait_at: now + WAIT_AGAIN_AFTER };
        if mem::replace(&mut moving.are_workers_late, true) { Waited::Nothing } else { Waited::Late }
    }

    /// The move that awaits its hand-over under this tenure. One comes twice if the session broke before the old owner heard
    /// that this node works; and late, if the move was given up. Pairs that are at work must not be set back.
    pub(super) fn awaiting(&mut self, set: WorkSet, tenure: Tenure) -> Option<&mut MoveIn> {
        self.by_set.get_mut(&set).filter(|moving| moving.tenure == tenure && moving.handed_over.is_none())
    }
}

impl MoveIn {
    /// Queues an IKE datagram. The peers of a set have few requests open, and repeat what is lost.
    pub(super) fn queue(&mut self, path: Path, datagram: Vec<u8>) {
        if self.ike.len() < IKE_QUEUE_MAX {
            self.ike.push((path, datagram));
        }
    }

    /// Queues a plain packet for which the workers know no pair: the final state may bring it. `false` if there is no room.
    pub(super) fn queue_inner(&mut self, packet: &[u8]) -> bool {
        let has_room = self.inner.len() < INNER_QUEUE_MAX;
        if has_room {
            self.inner.push(packet.to_vec());
        }
        has_room
    }
}

/// An old owner that does not watch yet is asked this often.
const ASK_EVERY: Duration = Duration::from_millis(500);
/// So long after a vain wait for the workers the next one begins.
const WAIT_AGAIN_AFTER: Duration = Duration::from_millis(100);
/// IKE datagrams that wait for a set that moves here.
const IKE_QUEUE_MAX: usize = 256;
/// Plain packets of new pairs that wait for a set that moves here.
const INNER_QUEUE_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use wire::{Epoch, Slot};

    use super::*;

    const NOW: Time = Time { nanos: 1_000_000_000 };

    fn set() -> WorkSet {
        WorkSet::new(7).unwrap()
    }

    fn tenure(count: u32) -> Tenure {
        Tenure { epoch: Epoch { count, master: Slot::default() }, slot: Slot::default() }
    }

    /// A hand-over that can be told from others.
    fn handed_over(mark: u64) -> HandedOver {
        HandedOver { adopted: Adopted::default(), digests: vec![mark] }
    }

    /// Takes a hand-over as the driver does; whether it was awaited.
    fn take(moves: &mut MovesIn, tenure: Tenure, mark: u64) -> bool {
        moves.awaiting(set(), tenure).map(|moving| moving.handed_over = Some(handed_over(mark))).is_some()
    }

    fn announced(count: u32) -> MovesIn {
        let mut moves = MovesIn::default();
        moves.announce(NOW, set(), tenure(count), Vec::new());
        moves
    }

    /// What a set begins with.
    fn taken(moves: &mut MovesIn) -> Option<Vec<u64>> {
        moves.end(set()).and_then(|moving| moving.handed_over).map(|handed_over| handed_over.digests)
    }

    #[test]
    fn a_hand_over_that_is_awaited_is_taken() {
        let mut moves = announced(2);
        assert!(moves.of(set()).is_some_and(|moving| moving.handed_over.is_none()));
        assert!(take(&mut moves, tenure(2), 1));
        assert!(moves.of(set()).is_some_and(|moving| moving.handed_over.is_some()));
        assert_eq!(taken(&mut moves), Some(vec![1]));
    }

    #[test]
    fn a_hand_over_that_is_said_twice_is_taken_once() {
        let mut moves = announced(2);
        assert!(take(&mut moves, tenure(2), 1));
        assert!(!take(&mut moves, tenure(2), 2), "before this node works");
        assert_eq!(taken(&mut moves), Some(vec![1]));
        assert!(!take(&mut moves, tenure(2), 3), "while it works");
    }

    #[test]
    fn a_hand_over_that_nobody_awaits_is_ignored() {
        let mut moves = MovesIn::default();
        assert!(!take(&mut moves, tenure(2), 1));
        moves.announce(NOW, WorkSet::new(8).unwrap(), tenure(2), Vec::new());
        assert!(!take(&mut moves, tenure(2), 1), "another set's move");
    }

    #[test]
    fn a_hand_over_of_an_abandoned_move_is_ignored() {
        let mut moves = announced(2);
        assert!(moves.end(set()).is_some());
        assert!(!take(&mut moves, tenure(2), 1));
        assert_eq!((moves.contains(set()), moves.poll_timeout()), (false, None));
    }

    #[test]
    fn a_hand_over_under_another_tenure_is_ignored() {
        let mut moves = announced(3);
        assert!(!take(&mut moves, tenure(2), 1), "an older one");
        assert!(!take(&mut moves, tenure(4), 1), "one of a move that is not announced");
        assert!(take(&mut moves, tenure(3), 1));
    }

    #[test]
    fn a_newer_move_replaces_one_that_was_handed_over_already() {
        let mut moves = announced(2);
        assert!(take(&mut moves, tenure(2), 1));
        moves.announce(NOW, set(), tenure(4), Vec::new());
        assert!(moves.of(set()).is_some_and(|moving| moving.handed_over.is_none()));
        assert!(!take(&mut moves, tenure(2), 1));
        assert!(take(&mut moves, tenure(4), 2));
        assert_eq!(taken(&mut moves), Some(vec![2]));
    }

    #[test]
    fn an_old_owner_is_asked_until_it_watches_and_its_second_answer_begins_no_second_queue() {
        let mut moves = announced(2);
        assert_eq!((moves.poll_timeout(), moves.poll_asks(NOW)), (Some(NOW + ASK_EVERY), vec![]));
        let now = NOW + ASK_EVERY;
        assert_eq!((moves.poll_asks(now), moves.poll_asks(now)), (vec![set()], vec![]));
        assert!(moves.handle_watching(now, set()).is_some());
        assert!(moves.handle_watching(now, set()).is_none());
        assert_eq!(moves.poll_asks(now + ASK_EVERY), []);
    }

    #[test]
    fn late_workers_are_told_of_once_and_waited_for_again_after_a_pause() {
        let mut moves = announced(2);
        moves.handle_watching(NOW, set());
        assert_eq!(moves.poll_timeout(), Some(NOW));
        let mut now = NOW;
        for waited in [Waited::Late, Waited::Nothing, Waited::Nothing] {
            assert_eq!((moves.poll_waits(now), moves.poll_timeout()), (vec![set()], None));
            assert_eq!(moves.poll_waits(now), [], "one waits already");
            assert_eq!(moves.handle_waited(now, set(), false), waited);
            assert_eq!(moves.poll_waits(now), [], "a pause comes first");
            now += WAIT_AGAIN_AFTER;
            assert_eq!(moves.poll_timeout(), Some(now));
        }
        assert_eq!(moves.poll_waits(now), [set()]);
        assert_eq!(moves.handle_waited(now, set(), true), Waited::Prepared(tenure(2)));
        assert_eq!((moves.poll_timeout(), moves.poll_waits(now)), (None, vec![]));
    }

    #[test]
    fn a_wait_that_outlives_its_move_says_nothing_of_the_next_and_has_no_second_beside_it() {
        let mut moves = announced(2);
        moves.handle_watching(NOW, set());
        assert_eq!(moves.poll_waits(NOW), [set()]);
        moves.end(set());
        moves.announce(NOW, set(), tenure(2), Vec::new());
        moves.handle_watching(NOW, set());
        assert_eq!((moves.poll_waits(NOW), moves.poll_timeout()), (vec![], None));
        assert_eq!(moves.handle_waited(NOW, set(), true), Waited::Nothing);
        assert_eq!((moves.poll_timeout(), moves.poll_waits(NOW)), (Some(NOW), vec![set()]));
        assert_eq!(moves.handle_waited(NOW, set(), true), Waited::Prepared(tenure(2)));
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut moves = announced(2);
        let moving = moves.of(set()).unwrap();
        let path = Path { local: "192.0.2.1:500".parse().unwrap(), remote: "192.0.2.2:500".parse().unwrap() };
        for _ in 0..=IKE_QUEUE_MAX {
            moving.queue(path, vec![0]);
        }
        assert_eq!(moving.ike.len(), IKE_QUEUE_MAX);
        assert_eq!((0..1000).filter(|_| moving.queue_inner(&[0])).count(), INNER_QUEUE_MAX);
    }
}
