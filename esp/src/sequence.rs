//! Outbound sequence numbers, given out inside a lease that the cluster has committed.
//!
//! The **edge** of a lease is the first number that may not be used yet; whoever takes the SA over without a hand-over
//! starts there, so a number that one owner used is never used by the next.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use wire::{Slot, Time};

/// Numbers that a new lease adds at the least; our policy, about 16 ms of the fastest traffic that one SA carries.
pub const LEASE_MIN: u64 = 65_536;
/// A lease lasts about this long at the rate seen since the last one.
const LEASE_DURATION: Duration = Duration::from_secs(1);
/// First number that an SA without extended sequence numbers cannot use (RFC 4303 §3.3.3).
const END: u64 = 1 << 32;
/// From this number on the SA asks to be rekeyed; what is left lasts for minutes.
const REKEY_FROM: u64 = END - (1 << 29);
/// Unproven owners share the numbers above the common edge in blocks of this many.
const BLOCK_LEN: u64 = 4096;
/// Stands for "never" in the atomics below; no sequence number reaches it.
const NEVER: u64 = u64::MAX;

/// One sequence number, to be used for one packet.
#[derive(Debug, PartialEq, Eq)]
pub struct Sequence(pub(crate) u64);

/// Sequence numbers that nobody else will get; those that are not taken are skipped on the wire.
#[derive(Debug)]
pub struct SequenceRange {
    next: u64,
    end: u64,
    /// Whether this use should make the caller ask for a longer lease; said once per lease.
    pub lease_low: bool,
    /// Whether this use should make the caller ask for a rekey; said once.
    pub exhausted: bool,
}

impl SequenceRange {
    /// Takes the next number of the range.
    pub fn take(&mut self) -> Option<Sequence> {
        if self.next >= self.end {
            return None;
        }
        let sequence = Sequence(self.next);
        self.next = self.next.saturating_add(1);
        Some(sequence)
    }

    /// How many numbers are left in the range.
    #[must_use]
    pub const fn left(&self) -> u64 {
        self.end.saturating_sub(self.next)
    }
}

/// No sequence number can be given out now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Wait {
    /// The lease is used up: packets wait until it is extended.
    #[error("the sequence lease is used up")]
    Lease {
        /// Whether the caller should ask for a longer lease; said once per lease.
        ask: bool,
    },
    /// All numbers of the SA are used up (RFC 4303 §3.3.3): only a new SA helps.
    #[error("the sequence numbers of the SA are used up")]
    Exhausted,
}

/// The numbers of one outbound SA in one tenure. Shared by threads without a lock.
#[derive(Debug)]
pub(crate) struct Sequences {
    next: AtomicU64,
    edge: AtomicU64,
    /// Passing this number makes the lease low; [`NEVER`] once it was said.
    low_mark: AtomicU64,
    /// Likewise for the rekey.
    rekey_mark: AtomicU64,
    /// From this number on only blocks of `unproven_slot` may be used.
    unproven_from: AtomicU64,
    unproven_slot: AtomicU64,
    /// When the lease was last proposed, in nanoseconds, and what was the next number then.
    proposed_at: AtomicU64,
    proposed_next: AtomicU64,
}

impl Sequences {
    /// Starts at `next`, which is at least 1, inside a lease up to `edge`.
    pub(crate) fn new(next: u64, edge: u64) -> Self {
        let next = next.max(1);
        Self {
            next: AtomicU64::new(next),
            edge: AtomicU64::new(edge.min(END)),
            low_mark: AtomicU64::new(half_way(next, edge)),
            rekey_mark: AtomicU64::new(REKEY_FROM),
            unproven_from: AtomicU64::new(NEVER),
            unproven_slot: AtomicU64::new(0),
            proposed_at: AtomicU64::new(NEVER),
            proposed_next: AtomicU64::new(next),
        }
    }

    /// Gives out up to `count` consecutive numbers, at least one.
    pub(crate) fn reserve(&self, count: u64) -> Result<SequenceRange, Wait> {
        let mut seen = self.next.load(Relaxed);
        loop {
            let (start, end) = self.free(seen);
            if start >= end {
                if start >= END {
                    return Err(Wait::Exhausted);
                }
                return Err(Wait::Lease { ask: passes(&self.low_mark, NEVER - 1) });
            }
            let end = end.min(start.saturating_add(count.max(1)));
            match self.next.compare_exchange_weak(seen, end, Relaxed, Relaxed) {
                Ok(_) => {
                    let lease_low = passes(&self.low_mark, end);
                    let exhausted = passes(&self.rekey_mark, end);
                    return Ok(SequenceRange { next: start, end, lease_low, exhausted });
                }
                Err(now) => seen = now,
            }
        }
    }

    /// The first run of usable numbers from `next` on.
    fn free(&self, next: u64) -> (u64, u64) {
        let edge = self.edge.load(Relaxed);
        let from = self.unproven_from.load(Relaxed);
        if next < from {
            return (next, edge.min(from));
        }
        let slot = self.unproven_slot.load(Relaxed);
        let slots = 16;
        let block = next / BLOCK_LEN;
        let ahead = slot.wrapping_sub(block) % slots;
        if ahead == 0 {
            return (next, edge.min(block.saturating_add(1).saturating_mul(BLOCK_LEN)));
        }
        let start = block.saturating_add(ahead).saturating_mul(BLOCK_LEN);
        (start, edge.min(start.saturating_add(BLOCK_LEN)))
    }

    /// Moves the edge up; a lower one changes nothing.
    pub(crate) fn extend(&self, edge: u64) {
        let edge = edge.min(END);
        if self.edge.fetch_max(edge, Relaxed) < edge {
            self.low_mark.store(half_way(self.next.load(Relaxed), edge), Relaxed);
        }
    }

    /// From the committed edge on, uses only the blocks that are this slot's.
    pub(crate) fn restrict(&self, slot: Slot) {
        self.unproven_slot.store(u64::from(slot.number()), Relaxed);
        // A common edge of an earlier split still holds: what lies above it was never common.
        self.unproven_from.fetch_min(self.edge.load(Relaxed), Relaxed);
    }

    /// From the next number on, uses only the blocks that are this slot's.
    pub(crate) fn restrict_wholly(&self, slot: Slot) {
        self.unproven_slot.store(u64::from(slot.number()), Relaxed);
        self.unproven_from.store(0, Relaxed);
    }

    /// What the next lease's edge should be at the rate of late.
    pub(crate) fn propose(&self, now: Time) -> u64 {
        let next = self.next.load(Relaxed);
        let before = self.proposed_at.swap(now.nanos, Relaxed);
        let used = next.saturating_sub(self.proposed_next.swap(next, Relaxed));
        let elapsed = Duration::from_nanos(now.nanos.saturating_sub(before)).max(Duration::from_millis(1));
        let demand = match (LEASE_DURATION.as_micros(), elapsed.as_micros()) {
            (second, elapsed) if before != NEVER => u128::from(used).saturating_mul(second) / elapsed,
            _ => 0,
        };
        let demand = u64::try_from(demand).unwrap_or(u64::MAX).max(LEASE_MIN);
        // One block in sixteen is ours while we are unproven.
        let spread = if self.unproven_from.load(Relaxed) == NEVER { 1 } else { 16 };
        self.edge.load(Relaxed).max(next).saturating_add(demand.saturating_mul(spread)).min(END)
    }

    pub(crate) fn next(&self) -> u64 {
        self.next.load(Relaxed)
    }

    pub(crate) fn edge(&self) -> u64 {
        self.edge.load(Relaxed)
    }
}

fn half_way(next: u64, edge: u64) -> u64 {
    next.saturating_add(edge.saturating_sub(next) / 2)
}

/// Whether `value` has reached the mark, said to one caller only.
fn passes(mark: &AtomicU64, value: u64) -> bool {
    value >= mark.load(Relaxed) && mark.swap(NEVER, Relaxed) != NEVER
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn drain(sequences: &Sequences, count: u64) -> Vec<u64> {
        let mut numbers = Vec::new();
        while let Ok(mut range) = sequences.reserve(count) {
            while let Some(Sequence(number)) = range.take() {
                numbers.push(number);
            }
        }
        numbers
    }

    #[test]
    fn numbers_start_at_1_and_end_before_the_edge() {
        let sequences = Sequences::new(1, 11);
        assert_eq!(drain(&sequences, 4), (1..11).collect::<Vec<_>>());
        assert!(matches!(sequences.reserve(1), Err(Wait::Lease { .. })));
        sequences.extend(13);
        assert_eq!(drain(&sequences, 4), [11, 12]);
    }

    #[test]
    fn a_lease_is_low_at_half_and_says_so_once() {
        let sequences = Sequences::new(1, 101);
        assert!(!sequences.reserve(49).unwrap().lease_low);
        assert!(sequences.reserve(1).unwrap().lease_low);
        assert!(!sequences.reserve(1).unwrap().lease_low);
        sequences.extend(201);
        assert!(!sequences.reserve(10).unwrap().lease_low);
        assert!(sequences.reserve(80).unwrap().lease_low);
    }

    #[test]
    fn an_owner_without_a_lease_asks_once_and_waits() {
        let sequences = Sequences::new(500, 500);
        assert_eq!(sequences.reserve(1).unwrap_err(), Wait::Lease { ask: true });
        assert_eq!(sequences.reserve(1).unwrap_err(), Wait::Lease { ask: false });
    }

    #[test]
    fn an_edge_never_goes_back() {
        let sequences = Sequences::new(1, 100);
        sequences.extend(50);
        assert_eq!(sequences.edge(), 100);
    }

    #[test]
    fn the_32_bit_space_ends_and_asks_for_a_rekey_in_time() {
        let sequences = Sequences::new(REKEY_FROM - 2, u64::MAX);
        assert!(!sequences.reserve(1).unwrap().exhausted);
        assert!(sequences.reserve(1).unwrap().exhausted);
        assert!(!sequences.reserve(1).unwrap().exhausted);
        let last = Sequences::new(END - 1, u64::MAX);
        assert_eq!(drain(&last, 9), [END - 1]);
        assert_eq!(last.reserve(1).unwrap_err(), Wait::Exhausted);
    }

    #[test]
    fn who_takes_an_sa_over_while_numbers_are_shared_uses_its_own_blocks_inside_the_lease_too() {
        let taken = Sequences::new(100, 20 * BLOCK_LEN);
        taken.restrict_wholly(Slot::new(3).unwrap());
        let numbers = drain(&taken, 1 << 20);
        assert!(numbers.iter().all(|number| number / BLOCK_LEN % 16 == 3), "{numbers:?}");
        assert_eq!(numbers.len() as u64, 2 * BLOCK_LEN);
    }

    #[test]
    fn leases_follow_the_rate() {
        let sequences = Sequences::new(1, 1 << 20);
        assert_eq!(sequences.propose(Time::from_millis(0)), (1 << 20) + LEASE_MIN);
        sequences.reserve(300_000).unwrap();
        assert_eq!(sequences.propose(Time::from_millis(500)), (1 << 20) + 600_000);
    }

    #[test]
    fn two_sides_of_a_split_never_use_the_same_number() {
        let (ours, theirs) = (Sequences::new(1000, 70_000), Sequences::new(70_000, 70_000));
        ours.restrict(Slot::new(0).unwrap());
        theirs.restrict(Slot::new(5).unwrap());
        ours.extend(400_000);
        theirs.extend(300_000);
        let (ours, theirs) = (drain(&ours, 100), drain(&theirs, 100));
        let seen: HashSet<u64> = ours.iter().copied().collect();
        assert!(theirs.iter().all(|number| !seen.contains(number)));
        assert!(ours.contains(&69_999) && theirs.len() > 4096);
        assert!(theirs.iter().all(|number| number / BLOCK_LEN % 16 == 5));
    }

    proptest! {
        #[test]
        fn no_number_is_used_twice_over_take_overs(
            owners in proptest::collection::vec(proptest::collection::vec((1_u64..3000, 1_u64..100_000), 0..20), 1..8),
        ) {
            let (mut seen, mut committed) = (HashSet::new(), 1);
            for owner in owners {
                let sequences = Sequences::new(committed, committed);
                for (count, lease) in owner {
                    committed += lease;
                    sequences.extend(committed);
                    if let Ok(mut range) = sequences.reserve(count) {
                        while let Some(Sequence(number)) = range.take() {
                            prop_assert!(number < committed);
                            prop_assert!(seen.insert(number), "{} twice", number);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn threads_never_share_a_number() {
        let sequences = Sequences::new(1, 200_001);
        let parts: Vec<Vec<u64>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| drain(&sequences, 7))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let all: HashSet<u64> = parts.iter().flatten().copied().collect();
        assert_eq!((all.len(), parts.iter().map(Vec::len).sum()), (200_000, 200_000));
    }
}
