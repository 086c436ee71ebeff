//! A moment, as the driver tells it.

use std::ops::{Add, AddAssign, Sub};
use std::time::Duration;

/// A moment on the driver's boot-time clock, in nanoseconds since an origin that only the driver knows.
///
/// It never goes back and keeps running while the machine sleeps. It means nothing on another node:
/// deadlines travel as time left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time {
    /// Nanoseconds since the clock's origin.
    pub nanos: u64,
}

impl Time {
    /// The clock's origin.
    pub const ZERO: Self = Self { nanos: 0 };

    /// Makes a moment from whole milliseconds since the origin.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self { nanos: millis.saturating_mul(1_000_000) }
    }

    /// Returns how long ago `earlier` was, or zero if it lies ahead.
    #[must_use]
    #[inline]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.nanos.saturating_sub(earlier.nanos))
    }

    /// Returns the moment `duration` before this one, or the origin.
    #[must_use]
    #[inline]
    pub fn before(self, duration: Duration) -> Self {
        Self { nanos: self.nanos.saturating_sub(nanos_of(duration)) }
    }
}

impl Add<Duration> for Time {
    type Output = Self;

    #[inline]
    fn add(self, duration: Duration) -> Self {
        Self { nanos: self.nanos.saturating_add(nanos_of(duration)) }
    }
}

impl AddAssign<Duration> for Time {
    #[inline]
    fn add_assign(&mut self, duration: Duration) {
        *self = *self + duration;
    }
}

impl Sub for Time {
    type Output = Duration;

    #[inline]
    fn sub(self, earlier: Self) -> Duration {
        self.since(earlier)
    }
}

#[inline]
fn nanos_of(duration: Duration) -> u64 {
    duration.as_secs().saturating_mul(1_000_000_000).saturating_add(u64::from(duration.subsec_nanos()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates_at_both_ends() {
        assert_eq!(Time { nanos: u64::MAX } + Duration::from_secs(1), Time { nanos: u64::MAX });
        assert_eq!(Time::ZERO - Time::from_millis(1), Duration::ZERO);
        assert_eq!(Time::from_millis(1).before(Duration::from_secs(1)), Time::ZERO);
    }
}
