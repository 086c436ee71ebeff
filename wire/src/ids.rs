//! Identifiers that more than one crate hands around.

use std::fmt;

use rand::Rng;

/// One of the 1024 shares into which all work is divided; each has one owner at a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkSet(u16);

impl WorkSet {
    /// How many there are.
    pub const COUNT: usize = 1024;
    const MASK: u16 = 0x03ff;

    /// Takes the low 10 bits of `value`.
    #[must_use]
    #[inline]
    pub const fn from_low_bits(value: u64) -> Self {
        let [.., high, low] = value.to_be_bytes();
        Self(u16::from_be_bytes([high, low]) & Self::MASK)
    }

    /// Makes the work set with that index.
    #[must_use]
    #[inline]
    pub const fn new(index: u16) -> Option<Self> {
        if index <= Self::MASK { Some(Self(index)) } else { None }
    }

    /// The index, 0 to 1023.
    #[must_use]
    #[inline]
    pub const fn index(self) -> u16 {
        self.0
    }

    /// All work sets, in order.
    #[inline]
    pub fn all() -> impl Iterator<Item = Self> {
        (0..=Self::MASK).map(Self)
    }
}

impl fmt::Display for WorkSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A member's number in its view, 0 to 15. No two members of one view share it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(u8);

impl Slot {
    /// How many members a view can number.
    pub const COUNT: usize = 16;

    /// Makes the slot with that number.
    #[must_use]
    #[inline]
    pub const fn new(number: u8) -> Option<Self> {
        if number < 16 { Some(Self(number)) } else { None }
    }

    /// The number, 0 to 15.
    #[must_use]
    #[inline]
    pub const fn number(self) -> u8 {
        self.0
    }
}

/// How often a work set has changed hands, with the slot of the master that gave it: a higher one is newer, and no two
/// masters ever give the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch {
    /// Changes of owner since the cluster began, also back to the same node.
    pub count: u32,
    /// The slot of the master that made this change.
    pub master: Slot,
}

/// Under which epoch, and by which member, a work set is held: no two holders ever have the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tenure {
    /// The epoch that made this member the owner.
    pub epoch: Epoch,
    /// The owner's slot in its view.
    pub slot: Slot,
}

/// A Security Parameters Index of ESP or AH (RFC 4303 §2.1). One that we chose names its work set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Spi(pub u32);

impl Spi {
    /// Draws an SPI of the work set `home`. Values 0 to 255 are reserved (RFC 4303 §2.1) and never drawn.
    #[must_use]
    pub fn draw(home: WorkSet, rng: &mut impl Rng) -> Self {
        let index = u32::from(home.index());
        loop {
            let spi = (rng.next_u32() & !u32::from(WorkSet::MASK)) | index;
            if spi > 0xff {
                return Self(spi);
            }
        }
    }

    /// The work set that an SPI of ours belongs to.
    #[must_use]
    pub const fn work_set(self) -> WorkSet {
        let [_, _, high, low] = self.0.to_be_bytes();
        WorkSet(u16::from_be_bytes([high, low]) & WorkSet::MASK)
    }
}

impl fmt::Display for Spi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

/// Names a change of state that a datagram may have to wait for; numbers rise within one engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommitId(pub u64);

/// What a replicated record describes. Numbers are for ever: a neighbour of another version reads them too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordKind(pub u16);

impl RecordKind {
    /// An IKE SA, half-open ones too; key: our SPI.
    pub const IKE_SA: Self = Self(1);
    /// What never changes in a pair of ESP SAs; key: the inbound SPI.
    pub const ESP_INITIAL: Self = Self(2);
    /// The outbound sequence lease of an ESP SA; key: the inbound SPI of its pair.
    pub const ESP_OUTBOUND: Self = Self(3);
    /// The inbound edges of a work set's ESP SAs, batched; key: 0.
    pub const ESP_INBOUND: Self = Self(4);
    /// An inner prefix and the work set that carries it; key: the prefix.
    pub const INNER_PREFIX: Self = Self(5);
    /// An address given out of a pool; key: the address.
    pub const POOL_LEASE: Self = Self(6);
}

/// Names one replicated record. The owner of `set` alone writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordId {
    /// The work set that the record lives in.
    pub set: WorkSet,
    /// What it describes.
    pub kind: RecordKind,
    /// Which one; the kind says how to read it.
    pub key: u128,
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    #[test]
    fn a_drawn_spi_names_its_work_set_and_is_never_reserved() {
        let mut rng = StdRng::seed_from_u64(1);
        for home in WorkSet::all() {
            let spi = Spi::draw(home, &mut rng);
            assert_eq!(spi.work_set(), home);
            assert!(spi.0 > 0xff, "{spi}");
        }
    }

    #[test]
    fn only_1024_work_sets_exist() {
        assert_eq!(WorkSet::new(1023).map(WorkSet::index), Some(1023));
        assert_eq!(WorkSet::new(1024), None);
        assert_eq!(WorkSet::all().count(), WorkSet::COUNT);
        assert_eq!(WorkSet::from_low_bits(0xffff_fc05).index(), 5);
    }

    #[test]
    fn a_later_epoch_is_greater_whoever_gave_it() {
        let old = Epoch { count: 4, master: Slot(9) };
        let new = Epoch { count: 5, master: Slot(0) };
        assert!(new > old);
    }
}
