//! Two threads around one UDP socket: numbers out at an even rate, what comes back in.

use std::io::ErrorKind;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Result;

/// How long a receiver waits before it looks whether it is to stop.
pub(crate) const WAIT: Duration = Duration::from_millis(20);

/// A sender and a receiver that run until this is dropped.
pub(crate) struct Paced {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Paced {
    /// Calls `send` with 0, 1, 2 … `rate` times per second, and `take` with the number that each datagram begins with.
    ///
    /// # Errors
    /// The socket cannot be shared.
    pub(crate) fn start(
        socket: UdpSocket,
        rate: u32,
        mut send: impl FnMut(&UdpSocket, u32) + Send + 'static,
        mut take: impl FnMut(u32) + Send + 'static,
    ) -> Result<Self> {
        socket.set_read_timeout(Some(WAIT))?;
        let stop = Arc::new(AtomicBool::new(false));
        let sender = {
            let (socket, stop) = (socket.try_clone()?, Arc::clone(&stop));
            thread::spawn(move || {
                let (start, interval) = (Instant::now(), Duration::from_secs(1) / rate.max(1));
                let mut number: u32 = 0;
                while !stop.load(Ordering::Relaxed) {
                    if let Some(early) = (start + interval * number).checked_duration_since(Instant::now()) {
                        thread::sleep(early);
                    }
                    send(&socket, number);
                    number += 1;
                }
            })
        };
        let receiver = {
            let stop = Arc::clone(&stop);
            thread::spawn(move || {
                let mut buffer = [0; 2048];
                while !stop.load(Ordering::Relaxed) {
                    match socket.recv(&mut buffer) {
                        Ok(_) => take(u32::from_be_bytes([buffer[0], buffer[1], buffer[2], buffer[3]])),
                        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                        // An ICMP error came back: refused or unreachable. The account shows what was lost.
                        Err(_) => thread::sleep(Duration::from_millis(1)),
                    }
                }
            })
        };
        Ok(Self { stop, threads: vec![sender, receiver] })
    }
}

impl Drop for Paced {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().ok();
        }
    }
}
