//! Which IKE SA each child SA belongs to.

use std::collections::BTreeMap;

use wire::{Spi, WorkSet};

/// The children of all IKE SAs here, by our SPI, and together by work set: a take-over asks for those of hundreds of sets.
#[derive(Debug, Default)]
pub(crate) struct Children(BTreeMap<(WorkSet, Spi), u64>);

impl Children {
    /// Our SPI of the IKE SA that the child belongs to.
    pub(crate) fn get(&self, spi_in: Spi) -> Option<u64> {
        self.0.get(&key(spi_in)).copied()
    }

    pub(crate) fn insert(&mut self, spi_in: Spi, ike: u64) {
        self.0.insert(key(spi_in), ike);
    }

    pub(crate) fn remove(&mut self, spi_in: Spi) {
        self.0.remove(&key(spi_in));
    }

    /// Those that live in `set`.
    pub(crate) fn of(&self, set: WorkSet) -> impl Iterator<Item = Spi> {
        self.0.range((set, Spi(0))..=(set, Spi(u32::MAX))).map(|((_, spi_in), _)| *spi_in)
    }
}

fn key(spi_in: Spi) -> (WorkSet, Spi) {
    (spi_in.work_set(), spi_in)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_children_of_a_set_are_all_that_live_in_it_and_no_others() {
        let mut children = Children::default();
        for spi in [0x0000_0407, 0xffff_fc07, 0x0000_0408, 0x0000_0406, 0x1234_5407] {
            children.insert(Spi(spi), u64::from(spi));
        }
        children.remove(Spi(0x1234_5407));
        let of = |index| children.of(WorkSet::new(index).unwrap()).collect::<Vec<_>>();
        assert_eq!(of(7), [Spi(0x0000_0407), Spi(0xffff_fc07)]);
        assert_eq!(of(9), []);
        assert_eq!(children.get(Spi(0x0000_0408)), Some(0x0408));
        assert_eq!(children.get(Spi(0x1234_5407)), None);
    }
}
