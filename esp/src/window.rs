//! The anti-replay window (RFC 4303 §3.4.3), as a ring of words that never shifts (RFC 6479).

use wire::{Reader, Writer};

const WORD_BITS: u64 = 64;
/// One word more than the window has bits for: the word that the right edge is filling (RFC 6479 §2).
const WORDS: usize = 65;
const WORDS_U64: u64 = 65;

/// Which sequence numbers were authenticated, within [`ReplayWindow::SIZE`] of the highest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplayWindow {
    edge: u64,
    words: [u64; WORDS],
}

/// The sequence number was seen before, lies left of the window, or is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Replayed {
    /// It was authenticated before.
    #[error("the sequence number was seen before")]
    Seen,
    /// It is too old to tell.
    #[error("the sequence number lies left of the window")]
    TooOld,
}

impl ReplayWindow {
    /// How many sequence numbers back from the highest are told apart.
    pub const SIZE: u64 = 4096;

    /// A window in which everything up to `edge` counts as seen; 0 for a new SA.
    #[must_use]
    pub fn seen_up_to(edge: u64) -> Self {
        let mut window = Self { edge, words: [u64::MAX; WORDS] };
        // What lies right of the edge in its word is not seen.
        if let Some(word) = window.words.get_mut(slot(edge / WORD_BITS)) {
            *word = bit(edge) | bit(edge).wrapping_sub(1);
        }
        window
    }

    /// The highest sequence number that was authenticated.
    #[must_use]
    pub const fn edge(&self) -> u64 {
        self.edge
    }

    /// Tells whether a packet with that number may be new; costs no cryptography.
    ///
    /// # Errors
    /// It is not new, or too old to tell.
    pub fn check(&self, sequence: u64) -> Result<(), Replayed> {
        if sequence > self.edge {
            return Ok(());
        }
        // The sender's first number is 1 (RFC 4303 §3.3.3), so 0 counts as seen for ever.
        if sequence == 0 {
            return Err(Replayed::Seen);
        }
        if self.edge.saturating_sub(sequence) >= Self::SIZE {
            return Err(Replayed::TooOld);
        }
        let word = self.words.get(slot(sequence / WORD_BITS)).copied().unwrap_or(u64::MAX);
        if word & bit(sequence) == 0 { Ok(()) } else { Err(Replayed::Seen) }
    }

    /// Marks the number of an authenticated packet as seen; `true` if it is the new right edge.
    ///
    /// # Errors
    /// As for [`ReplayWindow::check`]; the window is unchanged.
    pub fn mark(&mut self, sequence: u64) -> Result<bool, Replayed> {
        self.check(sequence)?;
        let advanced = sequence > self.edge;
        if advanced {
            let (old, new) = (self.edge / WORD_BITS, sequence / WORD_BITS);
            for block in old.saturating_add(1).max(new.saturating_sub(WORDS_U64 - 1))..=new {
                if let Some(word) = self.words.get_mut(slot(block)) {
                    *word = 0;
                }
            }
            self.edge = sequence;
        }
        if let Some(word) = self.words.get_mut(slot(sequence / WORD_BITS)) {
            *word |= bit(sequence);
        }
        Ok(advanced)
    }

    /// Writes the whole window, for an exact hand-over.
    #[must_use]
    pub fn to_bytes(&self) -> Box<[u8]> {
        let mut w = Writer::new();
        w.u64(self.edge);
        for word in self.words {
            w.u64(word);
        }
        w.into_bytes().into_boxed_slice()
    }

    /// Reads what [`ReplayWindow::to_bytes`] wrote.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut r = Reader::new(bytes);
        let mut window = Self { edge: r.u64("edge").ok()?, words: [0; WORDS] };
        for word in &mut window.words {
            *word = r.u64("words").ok()?;
        }
        r.is_empty().then_some(window)
    }
}

fn slot(block: u64) -> usize {
    usize::try_from(block % WORDS_U64).unwrap_or(0)
}

const fn bit(sequence: u64) -> u64 {
    1 << (sequence % WORD_BITS)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    /// Every number that was ever seen, and nothing clever.
    struct Naive {
        edge: u64,
        start: u64,
        seen: HashSet<u64>,
    }

    impl Naive {
        fn mark(&mut self, sequence: u64) -> Result<bool, Replayed> {
            if sequence == 0 {
                return Err(Replayed::Seen);
            }
            if sequence <= self.edge && self.edge - sequence >= ReplayWindow::SIZE {
                return Err(Replayed::TooOld);
            }
            if sequence <= self.start || !self.seen.insert(sequence) {
                return Err(Replayed::Seen);
            }
            let advanced = sequence > self.edge;
            self.edge = self.edge.max(sequence);
            Ok(advanced)
        }
    }

    proptest! {
        #[test]
        fn the_window_agrees_with_a_naive_one(
            start in 0_u64..20_000,
            steps in proptest::collection::vec((0_u8..10, 0_u64..9000), 1..400),
        ) {
            let mut window = ReplayWindow::seen_up_to(start);
            let mut naive = Naive { edge: start, start, seen: HashSet::new() };
            for (kind, distance) in steps {
                let sequence = match kind {
                    0..=3 => naive.edge + 1 + distance % 3,
                    4 => naive.edge + distance,
                    5 => naive.edge + distance % 200,
                    _ => naive.edge.saturating_sub(distance),
                };
                prop_assert_eq!(window.mark(sequence), naive.mark(sequence), "sequence {}", sequence);
                prop_assert_eq!(window.edge(), naive.edge);
                let copy = ReplayWindow::from_bytes(&window.to_bytes());
                prop_assert_eq!(copy.as_ref(), Some(&window));
            }
        }
    }

    #[test]
    fn the_window_is_exactly_4096_wide() {
        let mut window = ReplayWindow::seen_up_to(0);
        assert_eq!(window.mark(5000), Ok(true));
        assert_eq!(window.mark(5000 - 4095), Ok(false));
        assert_eq!(window.mark(5000 - 4096), Err(Replayed::TooOld));
        assert_eq!(window.mark(5000), Err(Replayed::Seen));
    }

    #[test]
    fn after_a_take_over_everything_up_to_the_edge_counts_as_seen() {
        let mut window = ReplayWindow::seen_up_to(1000);
        for sequence in 0..=1000 {
            assert_eq!(window.mark(sequence), Err(Replayed::Seen), "{sequence}");
        }
        assert_eq!(window.mark(1002), Ok(true));
        assert_eq!(window.mark(1001), Ok(false));
    }

    #[test]
    fn a_window_of_another_length_is_refused() {
        let bytes = ReplayWindow::seen_up_to(9).to_bytes();
        assert_eq!(ReplayWindow::from_bytes(&bytes[1..]), None);
        assert_eq!(ReplayWindow::from_bytes(&[&bytes[..], &[0]].concat()), None);
    }
}
