//! The explicit IV of every AEAD: two senders of one key never use the same, whatever goes wrong between them.

use wire::Tenure;

/// The explicit IV of an AEAD in ESP and IKE (RFC 4106 §3.1, RFC 5282 §3): unique under its key, not secret.
///
/// `slot (4) ‖ epoch's count since the key's birth (16) ‖ epoch's master slot (4) ‖ counter (40)`, network byte order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Iv(pub [u8; 8]);

/// All IVs that one holder of a key may use in one tenure, by counter.
///
/// Who draws the counter, and that it draws none twice in this tenure, is the caller's matter: ESP takes its sequence
/// number, IKE an [`IvSource`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IvSpace {
    prefix: u64,
}

impl IvSpace {
    /// How many IVs a tenure has.
    pub const COUNTER_MAX: u64 = (1 << 40) - 1;

    /// The IVs of `tenure` for a key that was born when the count of its work set's epochs was `birth_count`.
    ///
    /// `None` once the epochs since then need more than 16 bits, or if the tenure is older than the key: the SA must end.
    #[must_use]
    pub fn new(tenure: Tenure, birth_count: u32) -> Option<Self> {
        let count = u16::try_from(tenure.epoch.count.checked_sub(birth_count)?).ok()?;
        let slot = u64::from(tenure.slot.number()) << 60;
        let master = u64::from(tenure.epoch.master.number()) << 40;
        Some(Self { prefix: slot | u64::from(count) << 44 | master })
    }

    /// The IV with that counter; `None` beyond 40 bits: the SA must end.
    #[must_use]
    pub const fn iv(self, counter: u64) -> Option<Iv> {
        if counter > Self::COUNTER_MAX { None } else { Some(Iv((self.prefix | counter).to_be_bytes())) }
    }
}

/// Gives out the IVs of one tenure, each once; ends when they are used up.
#[derive(Debug)]
pub struct IvSource {
    space: IvSpace,
    counter: u64,
}

impl IvSource {
    /// Starts the IVs of `tenure` at counter 0. A tenure must be started only once per key.
    ///
    /// `None` for the reasons of [`IvSpace::new`]: the SA must end.
    #[must_use]
    pub fn new(tenure: Tenure, birth_count: u32) -> Option<Self> {
        Some(Self { space: IvSpace::new(tenure, birth_count)?, counter: 0 })
    }

    /// How many IVs are left.
    #[must_use]
    pub const fn left(&self) -> u64 {
        (IvSpace::COUNTER_MAX + 1).saturating_sub(self.counter)
    }
}

impl Iterator for IvSource {
    type Item = Iv;

    fn next(&mut self) -> Option<Iv> {
        let iv = self.space.iv(self.counter)?;
        self.counter = self.counter.saturating_add(1);
        Some(iv)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use wire::{Epoch, Slot};

    fn tenure(count: u32, master: u8, slot: u8) -> Tenure {
        Tenure { epoch: Epoch { count, master: Slot::new(master).unwrap() }, slot: Slot::new(slot).unwrap() }
    }

    #[test]
    fn fields_stand_where_the_layout_says() {
        let space = IvSpace::new(tenure(0x1_0234, 0xb, 0xa), 0x1_0000).unwrap();
        assert_eq!(space.iv(0x12_3456_789a).unwrap().0, [0xa0, 0x23, 0x4b, 0x12, 0x34, 0x56, 0x78, 0x9a]);
    }

    #[test]
    fn an_sa_ends_before_its_epochs_or_counter_wrap() {
        assert!(IvSpace::new(tenure(7 + 0xffff, 0, 0), 7).is_some());
        assert_eq!(IvSpace::new(tenure(7 + 0x1_0000, 0, 0), 7), None);
        assert_eq!(IvSpace::new(tenure(6, 0, 0), 7), None);
        let mut source = IvSource::new(tenure(0, 0, 0), 0).unwrap();
        source.counter = IvSpace::COUNTER_MAX;
        assert!(source.next().is_some());
        assert_eq!((source.left(), source.next(), source.next()), (0, None, None));
    }

    proptest! {
        #[test]
        fn no_two_tenures_share_an_iv(
            a in (0_u32..=0xffff, 0_u8..16, 0_u8..16, 0_u64..=IvSpace::COUNTER_MAX),
            b in (0_u32..=0xffff, 0_u8..16, 0_u8..16, 0_u64..=IvSpace::COUNTER_MAX),
        ) {
            let iv = |(count, master, slot, counter)| IvSpace::new(tenure(count, master, slot), 0).unwrap().iv(counter);
            prop_assert_eq!(a == b, iv(a) == iv(b));
        }
    }
}
