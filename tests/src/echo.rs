//! Probes: small UDP packets through the tunnel and back, at an even rate, to measure gaps, losses and doubles.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::namespace::Namespace;
use crate::pace::{Paced, WAIT};

/// A server that sends each datagram back.
pub struct EchoServer {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl EchoServer {
    /// Starts a server at `address` in `namespace`.
    ///
    /// # Errors
    /// The address is taken or not there.
    pub fn start(namespace: &Namespace, address: SocketAddr) -> Result<Self> {
        let socket =
            namespace.within(|| UdpSocket::bind(address).with_context(|| format!("listen for probes at {address}")))?;
        socket.set_read_timeout(Some(WAIT))?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut buffer = [0; 2048];
            while !stopped.load(Ordering::Relaxed) {
                if let Ok((length, from)) = socket.recv_from(&mut buffer) {
                    // A client that cannot be reached just now is what the probes are there to show.
                    socket.send_to(buffer.get(..length).unwrap_or_default(), from).ok();
                }
            }
        });
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for EchoServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// Sends numbered probes to an [`EchoServer`] until it is dropped, and keeps account of each.
pub struct Prober {
    record: Arc<Mutex<Record>>,
    _paced: Paced,
}

/// What happened to the probes of a time span.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Probes sent.
    pub sent: u64,
    /// Those that never came back.
    pub lost: u64,
    /// Answers beyond the first of each.
    pub doubled: u64,
    /// The longest time without an answer.
    pub gap_max: Duration,
}

/// All probes: when each was sent, and how many answers it got; all answers' moments, in order.
#[derive(Debug, Default)]
struct Record {
    sent: Vec<Instant>,
    answers: Vec<u32>,
    arrivals: Vec<Instant>,
}

impl Prober {
    /// Starts to send `rate` probes per second from `local` in `namespace`.
    ///
    /// # Errors
    /// The address is not there.
    pub fn start(namespace: &Namespace, local: IpAddr, server: SocketAddr, rate: u32) -> Result<Self> {
        let socket = namespace.within(|| {
            let socket = UdpSocket::bind((local, 0)).with_context(|| format!("send probes from {local}"))?;
            socket.connect(server).with_context(|| format!("send probes to {server}"))?;
            Ok(socket)
        })?;
        let record = Arc::new(Mutex::new(Record::default()));
        let (sent, heard) = (Arc::clone(&record), Arc::clone(&record));
        let send = move |socket: &UdpSocket, number: u32| {
            lock(&sent).note_sent();
            let mut probe = [0; PROBE_SIZE];
            probe[..4].copy_from_slice(&number.to_be_bytes());
            // An error is an earlier probe's; the account shows what was lost.
            socket.send(&probe).ok();
        };
        let paced = Paced::start(socket, rate, send, move |number| lock(&heard).note_answer(number))?;
        Ok(Self { record, _paced: paced })
    }

    /// The account of the probes sent from `start` to `end`. Answers under way still are counted as lost, so ask a
    /// little later.
    #[must_use]
    pub fn account(&self, start: Instant, end: Instant) -> Account {
        lock(&self.record).account(start, end)
    }
}

impl Record {
    fn note_sent(&mut self) {
        self.sent.push(Instant::now());
        self.answers.push(0);
    }

    fn note_answer(&mut self, number: u32) {
        if let Some(count) = usize::try_from(number).ok().and_then(|at| self.answers.get_mut(at)) {
            *count += 1;
            self.arrivals.push(Instant::now());
        }
    }

    fn account(&self, start: Instant, end: Instant) -> Account {
        let first = self.sent.partition_point(|at| *at < start);
        let last = self.sent.partition_point(|at| *at <= end);
        let answers = self.answers.get(first..last).unwrap_or_default();
        let from = self.arrivals.partition_point(|at| *at < start).saturating_sub(1);
        let to = (self.arrivals.partition_point(|at| *at <= end) + 1).min(self.arrivals.len());
        let arrivals = self.arrivals.get(from..to).unwrap_or_default();
        let mut gap_max = arrivals.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default();
        if to == self.arrivals.len()
            && let Some(last) = self.arrivals.last()
        {
            gap_max = gap_max.max(end.saturating_duration_since(*last));
        }
        Account {
            sent: answers.len() as u64,
            lost: answers.iter().filter(|count| **count == 0).count() as u64,
            doubled: answers.iter().map(|count| u64::from(count.saturating_sub(1))).sum(),
            gap_max,
        }
    }
}

fn lock(record: &Mutex<Record>) -> MutexGuard<'_, Record> {
    record.lock().unwrap_or_else(PoisonError::into_inner)
}

const PROBE_SIZE: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_account_of_a_span_counts_losses_doubles_and_the_longest_gap() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let record = Record {
            sent: (0..10).map(|n| at(n * 10)).collect(),
            answers: vec![1, 1, 1, 0, 0, 2, 1, 1, 1, 1],
            arrivals: [1, 11, 21, 51, 52, 61, 71, 81, 91].map(at).to_vec(),
        };
        let account = record.account(at(20), at(60));
        assert_eq!(account, Account { sent: 5, lost: 2, doubled: 1, gap_max: Duration::from_millis(30) });
        assert_eq!(record.account(at(0), at(20)).lost, 0);
        assert_eq!(record.account(at(50), at(291)).gap_max, Duration::from_millis(200));
    }
}
