//! What the workers count, readable by anyone without a lock.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use esp::Refusal;

/// Why a packet was not passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DropReason {
    /// An ESP packet was refused by its SA.
    Refused(Refusal),
    /// An ESP packet whose SPI names no pair here, beyond those that are told as events.
    UnknownSpi,
    /// A datagram on port 4500 that is neither IKE nor ESP.
    NotEsp,
    /// A NAT keepalive (RFC 3948 §2.3).
    Keepalive,
    /// An inner packet that no pair leads to, beyond those that are told as events.
    UnknownDestination,
    /// An inner packet that no selector of the pairs to its destination permits.
    SelectorOutbound,
    /// Something from the TUN device that is no IPv4 packet, or whose offload header contradicts it.
    MalformedInner,
    /// The queue of packets that wait for a sequence lease was full.
    LeaseQueue,
    /// The sequence numbers of the SA are used up.
    SequenceEnd,
    /// The queue of a held work set was full.
    HoldQueue,
    /// A packet of a stopped work set: its new owner has it too.
    Stopped,
    /// A plain packet of a held work set that the old owner had processed.
    HandedOver,
    /// The queue to the worker that has the SA was full.
    WorkerQueue,
    /// The outer header said congestion, the inner one cannot (RFC 6040 §4.2).
    Congestion,
    /// The socket did not take a datagram.
    Send,
    /// The TUN device did not take a packet.
    TunWrite,
}

impl DropReason {
    const OWN: [Self; 15] = [
        Self::UnknownSpi,
        Self::NotEsp,
        Self::Keepalive,
        Self::UnknownDestination,
        Self::SelectorOutbound,
        Self::MalformedInner,
        Self::LeaseQueue,
        Self::SequenceEnd,
        Self::HoldQueue,
        Self::Stopped,
        Self::HandedOver,
        Self::WorkerQueue,
        Self::Congestion,
        Self::Send,
        Self::TunWrite,
    ];
    const COUNT: usize = Self::OWN.len() + Refusal::ALL.len();

    /// All reasons.
    pub fn all() -> impl Iterator<Item = Self> {
        Refusal::ALL.into_iter().map(Self::Refused).chain(Self::OWN)
    }

    /// The name under which metrics and logs show it.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Refused(Refusal::Length) => "esp_length",
            Self::Refused(Refusal::Spi) => "esp_spi",
            Self::Refused(Refusal::Replayed) => "esp_replayed",
            Self::Refused(Refusal::TooOld) => "esp_too_old",
            Self::Refused(Refusal::Integrity) => "esp_integrity",
            Self::Refused(Refusal::Padding) => "esp_padding",
            Self::Refused(Refusal::NextHeader) => "esp_next_header",
            Self::Refused(Refusal::Dummy) => "esp_dummy",
            Self::Refused(Refusal::Inner) => "esp_inner",
            Self::Refused(Refusal::Selector) => "esp_selector",
            Self::UnknownSpi => "unknown_spi",
            Self::NotEsp => "not_esp",
            Self::Keepalive => "nat_keepalive",
            Self::UnknownDestination => "unknown_destination",
            Self::SelectorOutbound => "selector_outbound",
            Self::MalformedInner => "malformed_inner",
            Self::LeaseQueue => "lease_queue",
            Self::SequenceEnd => "sequence_end",
            Self::HoldQueue => "hold_queue",
            Self::Stopped => "stopped",
            Self::HandedOver => "handed_over",
            Self::WorkerQueue => "worker_queue",
            Self::Congestion => "congestion",
            Self::Send => "send",
            Self::TunWrite => "tun_write",
        }
    }

    fn index(self) -> usize {
        Self::all().position(|reason| reason == self).unwrap_or(0)
    }
}

/// One pair's traffic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PairCounters {
    /// Packets from the peer that were passed on.
    pub packets_in: u64,
    /// Octets of the inner packets in them.
    pub bytes_in: u64,
    /// Packets to the peer.
    pub packets_out: u64,
    /// Octets of the inner packets in them.
    pub bytes_out: u64,
}

/// A worker's sign of life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// Rises with each turn of the worker's loop.
    pub turns: u64,
    /// Whether the worker has nothing to do and waits for the kernel.
    pub idle: bool,
}

/// What one worker shows to others; only the worker writes it.
#[derive(Debug)]
pub(super) struct WorkerCounters {
    drops: [AtomicU64; DropReason::COUNT],
    /// Twice the number of turns, plus 1 while idle.
    progress: AtomicU64,
}

impl WorkerCounters {
    pub(super) fn new() -> Self {
        Self { drops: std::array::from_fn(|_| AtomicU64::new(0)), progress: AtomicU64::new(0) }
    }

    /// Counts dropped packets. One writer, so no atomic addition is needed.
    pub(super) fn count_drop(&self, reason: DropReason, packets: u64) {
        let counter = &self.drops[reason.index()];
        counter.store(counter.load(Relaxed) + packets, Relaxed);
    }

    pub(super) fn drops(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        DropReason::all().zip(&self.drops).map(|(reason, count)| (reason, count.load(Relaxed)))
    }

    /// Marks a turn of the loop; `idle` while it waits.
    pub(super) fn beat(&self, idle: bool) {
        let turns = self.progress.load(Relaxed) / 2 + 1;
        self.progress.store(turns * 2 + u64::from(idle), Relaxed);
    }

    pub(super) fn heartbeat(&self) -> Heartbeat {
        let progress = self.progress.load(Relaxed);
        Heartbeat { turns: progress / 2, idle: progress % 2 == 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_its_own_counter_and_name() {
        let counters = WorkerCounters::new();
        for (i, reason) in (1..).zip(DropReason::all()) {
            counters.count_drop(reason, i);
        }
        assert!(counters.drops().map(|(_, count)| count).eq(1..=DropReason::COUNT as u64));
        let mut labels: Vec<_> = DropReason::all().map(DropReason::label).collect();
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), DropReason::COUNT);
    }
}
