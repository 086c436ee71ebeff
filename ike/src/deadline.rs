//! Deadlines, which travel as time left, and ages, which travel as they are.

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
}

/// How old something is. It may be older than the clock of the node that looks at it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Age {
    at_since: Duration,
    since: Time,
}

impl Age {
    /// Of something that begins now.
    pub(crate) const fn begun(now: Time) -> Self {
        Self { at_since: Duration::ZERO, since: now }
    }

    /// The age at `now`.
    pub(crate) fn at(self, now: Time) -> Duration {
        self.at_since.saturating_add(now.since(self.since))
    }

    /// The same age, as it is at `now`: so it can be written.
    pub(crate) fn counted_to(self, now: Time) -> Self {
        Self { at_since: self.at(now), since: now }
    }

    /// An age that was read, on a clock that says `now`.
    pub(crate) const fn counted_from(self, now: Time) -> Self {
        Self { at_since: self.at_since, since: now }
    }
}

impl Field for Age {
    fn write(&self, w: &mut Writer) -> bool {
        self.at_since.write(w)
    }

    fn read(name: &'static str, r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Duration::read(name, r).map(|at_since| Self { at_since, since: Time::ZERO })
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
    fn an_age_may_exceed_the_clock_of_the_node_that_takes_over() {
        let (day, minute) = (Duration::from_secs(86_400), Duration::from_secs(60));
        let here = Time::ZERO + day;
        let written = Age::begun(Time::ZERO).counted_to(here);
        let there = Time::ZERO + minute;
        assert_eq!(written.counted_from(there).at(there + minute), day + minute);
    }

    #[test]
    fn what_is_past_is_due_at_once_on_the_other_clock() {
        let deadline = Deadline::at(Time::from_millis(1));
        let moved = deadline.left_at(Time::from_millis(9)).counted_from(Time::from_millis(3));
        assert!(moved.is_due(Time::from_millis(3)));
    }
}
