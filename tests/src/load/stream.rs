//! Even streams of packets in both directions, each with its own account, so that a gap can be told from its cause.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::packet::{PORT, Probe};
use crate::namespace::Namespace;
use crate::pace::Paced;

/// What came out at one end of a stream.
#[derive(Clone, Debug, Default)]
pub struct Streamed {
    arrivals: Vec<Instant>,
    numbers: BTreeMap<u32, u32>,
    overtaken: u64,
}

impl Streamed {
    /// The longest time without a packet, between `start` and `end`.
    #[must_use]
    pub fn gap_max(&self, start: Instant, end: Instant) -> Duration {
        let within = self.arrivals.iter().copied().filter(|at| *at > start && *at < end);
        let moments: Vec<Instant> = [start].into_iter().chain(within).chain([end]).collect();
        moments.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
    }

    /// How many packets came more than once.
    #[must_use]
    pub fn doubled(&self) -> u64 {
        self.numbers.values().map(|count| u64::from(count - 1)).sum()
    }

    /// The numbers between the first and the last that came which are missing.
    pub fn missing(&self) -> impl Iterator<Item = u32> + '_ {
        let first = self.numbers.keys().next().copied().unwrap_or_default();
        let end = self.numbers.keys().next_back().map_or(first, |last| last + 1);
        (first..end).filter(|number| !self.numbers.contains_key(number))
    }

    /// How many packets came behind one with a higher number.
    #[must_use]
    pub const fn overtaken(&self) -> u64 {
        self.overtaken
    }

    /// How many packets came.
    #[must_use]
    pub fn received(&self) -> usize {
        self.arrivals.len()
    }

    fn take(&mut self, number: u32) {
        self.arrivals.push(Instant::now());
        self.overtaken += u64::from(self.numbers.keys().next_back().is_some_and(|last| *last > number));
        *self.numbers.entry(number).or_default() += 1;
    }
}

/// The client's end.
pub(super) struct Stream {
    to: SocketAddrV4,
    interval: Duration,
    start: Instant,
    next: u32,
    streamed: Streamed,
}

impl Stream {
    pub(super) fn new(to: SocketAddrV4, rate: u32) -> Self {
        let interval = Duration::from_secs(1) / rate.max(1);
        Self { to, interval, start: Instant::now(), next: 0, streamed: Streamed::default() }
    }

    pub(super) const fn to(&self) -> SocketAddrV4 {
        self.to
    }

    pub(super) fn due(&self) -> Instant {
        self.start + self.interval * self.next
    }

    pub(super) fn take_due(&mut self, now: Instant) -> Option<Probe> {
        if self.due() > now {
            return None;
        }
        self.next += 1;
        Some(Probe { number: self.next - 1 })
    }

    pub(super) fn take(&mut self, probe: &Probe) {
        self.streamed.take(probe.number);
    }

    pub(super) fn finish(self) -> Streamed {
        self.streamed
    }
}

/// The inside end of a stream: sends to one client and accounts for what comes from it.
pub struct InsideEnd {
    address: SocketAddrV4,
    streamed: Arc<Mutex<Streamed>>,
    paced: Paced,
}

impl InsideEnd {
    /// Starts to send `rate` packets per second from `address` in `namespace` to the client at `client`.
    ///
    /// # Errors
    /// The address is taken or not there.
    pub fn start(namespace: &Namespace, address: SocketAddrV4, client: Ipv4Addr, rate: u32) -> Result<Self> {
        let socket = namespace.within(|| {
            UdpSocket::bind(address).with_context(|| format!("bind the inside end of a stream to {address}"))
        })?;
        let streamed = Arc::new(Mutex::new(Streamed::default()));
        let to = SocketAddr::from((client, PORT));
        let send = move |socket: &UdpSocket, number: u32| {
            // What cannot be sent now is missing at the other end, and counted there.
            socket.send_to(&number.to_be_bytes(), to).ok();
        };
        let taken = Arc::clone(&streamed);
        let paced = Paced::start(socket, rate, send, move |number| lock(&taken).take(number))?;
        Ok(Self { address, streamed, paced })
    }

    /// Where the client has to send to.
    #[must_use]
    pub const fn address(&self) -> SocketAddrV4 {
        self.address
    }

    /// Ends it and returns what came from the client.
    #[must_use]
    pub fn finish(self) -> Streamed {
        drop(self.paced);
        std::mem::take(&mut *lock(&self.streamed))
    }
}

fn lock(streamed: &Mutex<Streamed>) -> MutexGuard<'_, Streamed> {
    streamed.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_doubles_and_missing_numbers_are_told() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut streamed = Streamed { arrivals: [1, 2, 52, 53].map(at).to_vec(), ..Streamed::default() };
        for number in [1, 2, 2, 5] {
            *streamed.numbers.entry(number).or_default() += 1;
        }
        assert_eq!(streamed.gap_max(at(0), at(60)), Duration::from_millis(50));
        assert_eq!(streamed.gap_max(at(0), at(200)), Duration::from_millis(147));
        assert_eq!((streamed.doubled(), streamed.received()), (1, 4));
        assert_eq!(streamed.missing().collect::<Vec<_>>(), [3, 4]);
        assert_eq!(Streamed::default().missing().count(), 0);
    }
}
