//! Even streams of packets in both directions, each with its own account, so that a gap can be told from its cause.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::packet::{PORT, Probe};
use crate::namespace::Namespace;

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
    stop: Arc<AtomicBool>,
    streamed: Arc<Mutex<Streamed>>,
    threads: Vec<JoinHandle<()>>,
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
        socket.set_read_timeout(Some(WAIT))?;
        let stop = Arc::new(AtomicBool::new(false));
        let streamed = Arc::new(Mutex::new(Streamed::default()));
        let sender = {
            let (socket, stop) = (socket.try_clone()?, Arc::clone(&stop));
            let to = SocketAddr::from((client, PORT));
            thread::spawn(move || send(&socket, to, &stop, rate))
        };
        let receiver = {
            let (stop, streamed) = (Arc::clone(&stop), Arc::clone(&streamed));
            thread::spawn(move || receive(&socket, &stop, &streamed))
        };
        Ok(Self { address, stop, streamed, threads: vec![sender, receiver] })
    }

    /// Where the client has to send to.
    #[must_use]
    pub const fn address(&self) -> SocketAddrV4 {
        self.address
    }

    /// Ends it and returns what came from the client.
    #[must_use]
    pub fn finish(mut self) -> Streamed {
        self.halt();
        std::mem::take(&mut *self.streamed.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn halt(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().ok();
        }
    }
}

impl Drop for InsideEnd {
    fn drop(&mut self) {
        self.halt();
    }
}

fn send(socket: &UdpSocket, to: SocketAddr, stop: &AtomicBool, rate: u32) {
    let interval = Duration::from_secs(1) / rate.max(1);
    let start = Instant::now();
    let mut number: u32 = 0;
    while !stop.load(Ordering::Relaxed) {
        let due = start + interval * number;
        let now = Instant::now();
        if due > now {
            thread::sleep(due - now);
        }
        // What cannot be sent now is missing at the other end, and counted there.
        socket.send_to(&number.to_be_bytes(), to).ok();
        number += 1;
    }
}

fn receive(socket: &UdpSocket, stop: &AtomicBool, streamed: &Mutex<Streamed>) {
    let mut buffer = [0; 2048];
    while !stop.load(Ordering::Relaxed) {
        match socket.recv(&mut buffer) {
            Ok(_) => {
                let number = u32::from_be_bytes([buffer[0], buffer[1], buffer[2], buffer[3]]);
                streamed.lock().unwrap_or_else(PoisonError::into_inner).take(number);
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => thread::sleep(Duration::from_millis(1)),
        }
    }
}

const WAIT: Duration = Duration::from_millis(20);

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
