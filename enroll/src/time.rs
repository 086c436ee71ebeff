//! Wall-clock time, as the driver tells it: tickets and certificates outlive boots and nodes.

use std::fmt;
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

    /// Midnight of a day since 1970.
    #[must_use]
    pub const fn of_day(day: u64) -> Self {
        Self { seconds: day.saturating_mul(SECONDS_OF_DAY) }
    }

    /// The day as ISO 8601 writes it, such as `2026-11-21`.
    #[must_use]
    pub fn date(self) -> String {
        let (year, month, day) = crate::der::civil(self.day());
        format!("{year:04}-{month:02}-{day:02}")
    }

    /// Whole days since 1970.
    #[must_use]
    pub const fn day(self) -> u64 {
        self.seconds / SECONDS_OF_DAY
    }
}

impl fmt::Display for UnixTime {
    /// As ISO 8601 writes it, UTC: `2026-11-21T06:30:00Z`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of_day = self.seconds % SECONDS_OF_DAY;
        write!(f, "{}T{:02}:{:02}:{:02}Z", self.date(), of_day / 3600, of_day / 60 % 60, of_day % 60)
    }
}

/// The days of certificates have no leap seconds.
pub(crate) const SECONDS_OF_DAY: u64 = 86_400;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_has_a_date_however_far_off() {
        assert_eq!(UnixTime { seconds: 1_795_219_200 + 3_661 }.to_string(), "2026-11-21T01:01:01Z");
        // A ticket's life may be any number of days that somebody types.
        assert_eq!(UnixTime::of_day(4_294_900_000).date(), "11761006-10-22");
        assert!(UnixTime { seconds: u64::MAX }.date().starts_with("584554"));
    }
}
