//! What an endpoint has counted since its start.

use crate::fault::Refusal;

/// Counts since the endpoint was made; they never go back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    refused: Vec<(Refusal, u64)>,
    /// Datagrams taken in.
    pub datagrams_in: u64,
    /// Datagrams handed out, repetitions included.
    pub datagrams_out: u64,
    /// Requests of ours that were sent again.
    pub requests_repeated: u64,
    /// Requests of peers that came again and were answered from the cache.
    pub answers_repeated: u64,
    /// IKE SAs that became established, rekeyed ones not counted.
    pub established: u64,
    /// IKE SAs that were rekeyed.
    pub ike_rekeyed: u64,
    /// Child SAs that were rekeyed.
    pub child_rekeyed: u64,
    /// IKE SAs taken over from records.
    pub adopted: u64,
    /// Datagrams that asked for a cookie.
    pub cookies_sent: u64,
}

impl Counters {
    /// How often something was refused for that reason.
    #[must_use]
    pub fn refused(&self, refusal: Refusal) -> u64 {
        self.refused.iter().find(|(r, _)| *r == refusal).map_or(0, |(_, count)| *count)
    }

    /// Every reason that occurred, with its count.
    pub fn refusals(&self) -> impl Iterator<Item = (Refusal, u64)> {
        self.refused.iter().copied()
    }

    pub(crate) fn count(&mut self, refusal: Refusal) {
        match self.refused.iter_mut().find(|(r, _)| *r == refusal) {
            Some((_, count)) => *count = count.saturating_add(1),
            None => self.refused.push((refusal, 1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_has_its_own_count() {
        let mut counters = Counters::default();
        counters.count(Refusal::Integrity);
        counters.count(Refusal::Integrity);
        counters.count(Refusal::Version);
        assert_eq!(counters.refused(Refusal::Integrity), 2);
        assert_eq!(counters.refused(Refusal::Version), 1);
        assert_eq!(counters.refused(Refusal::Malformed), 0);
        assert_eq!(counters.refusals().count(), 2);
    }
}
