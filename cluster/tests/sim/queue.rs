//! What happens next: events by time, in the order in which they were set for the same moment.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Events that are yet to come.
pub(crate) struct Queue<T> {
    /// Time (64 bits) ‖ order (40) ‖ place of the body (24): one comparison of integers.
    heap: BinaryHeap<Reverse<u128>>,
    bodies: Vec<Option<T>>,
    free: Vec<usize>,
    order: u64,
}

impl<T> Queue<T> {
    pub(crate) fn new() -> Self {
        Self { heap: BinaryHeap::new(), bodies: Vec::new(), free: Vec::new(), order: 0 }
    }

    pub(crate) fn push(&mut self, at: u64, event: T) {
        self.order += 1;
        let place = self.free.pop().unwrap_or_else(|| {
            self.bodies.push(None);
            self.bodies.len() - 1
        });
        assert!(place < 1 << 24 && self.order < 1 << 40, "too many events for the queue's keys");
        self.bodies[place] = Some(event);
        self.heap.push(Reverse(u128::from(at) << 64 | u128::from(self.order) << 24 | place as u128));
    }

    pub(crate) fn len(&self) -> usize {
        self.heap.len()
    }

    pub(crate) fn pop(&mut self) -> Option<(u64, T)> {
        let Reverse(key) = self.heap.pop()?;
        let place = (key & 0xff_ffff) as usize;
        self.free.push(place);
        Some(((key >> 64) as u64, self.bodies[place].take()?))
    }
}

/// The run's randomness: SplitMix64, every bit of it from the seed.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0xd134_2543_de82_ef95))
    }

    pub(crate) fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `below`; 0 if that is 0.
    pub(crate) fn below(&mut self, below: u64) -> u64 {
        ((u128::from(self.word()) * u128::from(below)) >> 64) as u64
    }

    pub(crate) fn chance(&mut self, percent: u32) -> bool {
        percent > 0 && self.below(100) < u64::from(percent)
    }
}
