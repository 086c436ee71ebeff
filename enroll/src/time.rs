//! Wall-clock time, as the driver tells it: tickets and certificates outlive boots and nodes.

use std::time::Duration;

/// Whole seconds since 1970, UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixTime {
    /// The seconds.
    pub seconds: u64,
}

impl UnixTime {
    /// The moment `duration` later; parts of a second are dropped.
    #[must_use]
    pub const fn after(self, duration: Duration) -> Self {
        Self { seconds: self.seconds.saturating_add(duration.as_secs()) }
    }

    /// Whole days since 1970.
    #[must_use]
    pub const fn day(self) -> u64 {
        self.seconds / SECONDS_OF_DAY
    }
}

/// The days of certificates have no leap seconds.
pub(crate) const SECONDS_OF_DAY: u64 = 86_400;
