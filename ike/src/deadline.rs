//! Deadlines, which travel as time left.

use std::time::Duration;

use wire::{DecodeError, Field, Reader, Time, Writer};

/// A moment at which something is due, or never. In a record it is the time left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Deadline(Time);

impl Deadline {
    pub(crate) const NEVER: Self = Self(Time { nanos: u64::MAX });

    pub(crate) const fn at(time: Time) -> Self {
        Self(time)
    }

    /// `duration` after `now`; never if the duration is zero, as configuration spells "off".
    pub(crate) fn after(now: Time, duration: Duration) -> Self {
        if duration.is_zero() { Self::NEVER } else { Self(now + duration) }
    }

    pub(crate) fn is_due(self, now: Time) -> bool {
        self != Self::NEVER && self.0 <= now
    }

    /// The moment; `None` for never.
    pub(crate) fn time(self) -> Option<Time> {
        (self != Self::NEVER).then_some(self.0)
    }

    /// The deadline as the time left at `now`.
    pub(crate) fn left_at(self, now: Time) -> Self {
        match self.time() {
            None => Self::NEVER,
            Some(time) => Self(Time::ZERO + time.since(now)),
        }
    }

    /// The time left as a deadline from `now` on.
    pub(crate) fn counted_from(self, now: Time) -> Self {
        match self.time() {
            None => Self::NEVER,
            Some(left) => Self(now + left.since(Time::ZERO)),
        }
    }

    /// How long ago it was.
    pub(crate) fn age_at(self, now: Time) -> Duration {
        self.time().map_or(Duration::ZERO, |time| now.since(time))
    }
}

impl Field for Deadline {
    fn write(&self, w: &mut Writer) -> bool {
        w.u64(self.0.nanos);
        *self != Self::NEVER
    }

    fn read(name: &'static str, r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        r.u64(name).map(|nanos| Self(Time { nanos }))
    }

    fn absent() -> Option<Self> {
        Some(Self::NEVER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_left_crosses_from_one_clock_to_another() {
        let (here, there) = (Time::from_millis(5_000), Time::from_millis(90));
        let deadline = Deadline::after(here, Duration::from_millis(700));
        assert_eq!(deadline.left_at(here).counted_from(there), Deadline::at(Time::from_millis(790)));
        assert_eq!(Deadline::NEVER.left_at(here).counted_from(there), Deadline::NEVER);
    }

    #[test]
    fn what_is_past_is_due_at_once_on_the_other_clock() {
        let deadline = Deadline::at(Time::from_millis(1));
        let moved = deadline.left_at(Time::from_millis(9)).counted_from(Time::from_millis(3));
        assert!(moved.is_due(Time::from_millis(3)));
    }
}
