//! Sets of slots, and values by slot or by work set.

use std::ops::{Index, IndexMut};

use wire::{Slot, WorkSet};

/// Some of the 16 slots of a view.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SlotMask(pub u16);

impl SlotMask {
    /// No slot.
    pub const EMPTY: Self = Self(0);

    /// Only that slot.
    #[must_use]
    pub fn only(slot: Slot) -> Self {
        Self(1_u16.checked_shl(u32::from(slot.number())).unwrap_or(0))
    }

    /// Whether `slot` is one of them.
    #[must_use]
    pub fn contains(self, slot: Slot) -> bool {
        self.0 & Self::only(slot).0 != 0
    }

    /// With `slot`.
    #[must_use]
    pub fn with(self, slot: Slot) -> Self {
        Self(self.0 | Self::only(slot).0)
    }

    /// Without `slot`.
    #[must_use]
    pub fn without(self, slot: Slot) -> Self {
        Self(self.0 & !Self::only(slot).0)
    }

    /// Those in both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Those in either.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Those that are not in `other`.
    #[must_use]
    pub const fn minus(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// How many.
    #[must_use]
    pub const fn len(self) -> u32 {
        self.0.count_ones()
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The slots in rising order.
    pub fn iter(self) -> impl Iterator<Item = Slot> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let number = u8::try_from(rest.trailing_zeros()).ok()?;
            rest &= rest.wrapping_sub(1);
            Slot::new(number)
        })
    }
}

impl FromIterator<Slot> for SlotMask {
    fn from_iter<I: IntoIterator<Item = Slot>>(slots: I) -> Self {
        slots.into_iter().fold(Self::EMPTY, Self::with)
    }
}

/// One value for each of the 16 slots.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SlotMap<T>([T; Slot::COUNT]);

impl<T> SlotMap<T> {
    /// All values, each with its slot.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (Slot, &mut T)> {
        (0..16).filter_map(Slot::new).zip(self.0.iter_mut())
    }
}

impl<T> Index<Slot> for SlotMap<T> {
    type Output = T;

    #[expect(clippy::indexing_slicing, reason = "a slot is below 16 by construction")]
    fn index(&self, slot: Slot) -> &T {
        &self.0[usize::from(slot.number())]
    }
}

impl<T> IndexMut<Slot> for SlotMap<T> {
    #[expect(clippy::indexing_slicing, reason = "a slot is below 16 by construction")]
    fn index_mut(&mut self, slot: Slot) -> &mut T {
        &mut self.0[usize::from(slot.number())]
    }
}

/// One value for each of the 1024 work sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SetMap<T>(Box<[T]>);

impl<T: Default> Default for SetMap<T> {
    fn default() -> Self {
        Self((0..WorkSet::COUNT).map(|_| T::default()).collect())
    }
}

impl<T> SetMap<T> {
    /// All values, each with its work set.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (WorkSet, &T)> {
        WorkSet::all().zip(self.0.iter())
    }

    /// All values, each with its work set.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (WorkSet, &mut T)> {
        WorkSet::all().zip(self.0.iter_mut())
    }
}

impl<T> Index<WorkSet> for SetMap<T> {
    type Output = T;

    #[expect(clippy::indexing_slicing, reason = "a work set is below 1024 by construction")]
    fn index(&self, set: WorkSet) -> &T {
        &self.0[usize::from(set.index())]
    }
}

impl<T> IndexMut<WorkSet> for SetMap<T> {
    #[expect(clippy::indexing_slicing, reason = "a work set is below 1024 by construction")]
    fn index_mut(&mut self, set: WorkSet) -> &mut T {
        &mut self.0[usize::from(set.index())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_lists_its_slots_in_rising_order() {
        let mask = SlotMask(0b1000_0000_0000_0101);
        assert_eq!(mask.iter().map(Slot::number).collect::<Vec<_>>(), [0, 2, 15]);
        assert_eq!(mask.iter().collect::<SlotMask>(), mask);
        assert_eq!(mask.len(), 3);
    }
}
