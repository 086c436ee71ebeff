//! An attacker on the outside who sends again what clients have sent: no packet may come out twice because of it.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

use super::capture::{Capture, Injector, Patience};
use super::frame::{self, Content};
use crate::namespace::{Namespace, Switch};

/// A running attacker.
pub struct Repeater {
    stop: Arc<AtomicBool>,
    repeated: Arc<AtomicU64>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Repeater {
    /// Repeats, from `interface` of `namespace`, every `nth` ESP packet that a port of `switch` sends to `gateway`, once
    /// it is `age` old.
    ///
    /// # Errors
    /// There is no such interface, or no packet socket.
    pub fn start(
        switch: &Switch,
        gateway: Ipv4Addr,
        namespace: &Namespace,
        interface: &str,
        nth: u64,
        age: Duration,
    ) -> Result<Self> {
        let capture = Capture::open(switch.namespace())?;
        let injector = Injector::open(namespace, interface)?;
        let (stop, repeated) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let work = Work { capture, injector, gateway, nth, age, waiting: VecDeque::new(), seen: 0 };
        let (told, count) = (Arc::clone(&stop), Arc::clone(&repeated));
        let thread = thread::Builder::new().name("repeater".to_owned()).spawn(move || work.run(&told, &count))?;
        Ok(Self { stop, repeated, thread: Some(thread) })
    }

    /// Ends it and tells how many packets it has repeated.
    ///
    /// # Errors
    /// It could not receive or send.
    pub fn finish(mut self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().map_err(|_| anyhow!("the repeater panicked"))??;
        }
        Ok(self.repeated.load(Ordering::Relaxed))
    }
}

impl Drop for Repeater {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

struct Work {
    capture: Capture,
    injector: Injector,
    gateway: Ipv4Addr,
    nth: u64,
    age: Duration,
    waiting: VecDeque<(Instant, Vec<u8>)>,
    seen: u64,
}

impl Work {
    fn run(mut self, stop: &AtomicBool, repeated: &AtomicU64) -> Result<()> {
        while !stop.load(Ordering::Relaxed) {
            if let Some(caught) = self.capture.next(Patience::Wait)? {
                let mut is_wanted = false;
                // A train would be one frame with many packets; clients of the lab send none.
                if caught.segment.is_none() && caught.source() != OWN_MAC {
                    frame::read(caught.bytes, None, |packet| {
                        is_wanted = packet.destination == self.gateway && matches!(packet.content, Content::Esp(_));
                    });
                }
                self.seen += u64::from(is_wanted);
                if is_wanted && self.seen.is_multiple_of(self.nth) {
                    let mut bytes = caught.bytes.to_vec();
                    // Under the client's own address the switch would look for the client here.
                    if let Some(source) = bytes.get_mut(6..12) {
                        source.copy_from_slice(&OWN_MAC);
                    }
                    forget_checksum(&mut bytes);
                    self.waiting.push_back((Instant::now(), bytes));
                }
            }
            while self.waiting.front().is_some_and(|(caught, _)| caught.elapsed() >= self.age) {
                if let Some((_, bytes)) = self.waiting.pop_front() {
                    self.injector.send(&bytes)?;
                    repeated.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        Ok(())
    }
}

/// Between namespaces nobody computes checksums, and the receiver of a repetition would drop it for that. A UDP checksum
/// of 0 is none (RFC 768), as ESP in UDP has it (RFC 3948 §2.1).
fn forget_checksum(frame: &mut [u8]) {
    let header_len = frame.get(ETHERNET).map_or(0, |octet| usize::from(octet & 0x0f) * 4);
    if let Some(checksum) = frame.get_mut(ETHERNET + header_len + 6..ETHERNET + header_len + 8) {
        checksum.fill(0);
    }
}

const ETHERNET: usize = 14;
/// Locally administered (IEEE 802): nobody else in the lab has it.
const OWN_MAC: [u8; 6] = [0x02, 0, 0, 0, 0x0e, 0x11];

#[cfg(test)]
mod tests {
    use super::super::frame::tests;
    use super::*;

    #[test]
    fn a_repetition_carries_no_checksum() {
        let mut frame = tests::udp_frame([198, 51, 100, 200], [198, 51, 100, 1], &tests::esp(5, 1, 1));
        let clean = frame.clone();
        frame[40..42].copy_from_slice(&[0xab, 0xcd]);
        forget_checksum(&mut frame);
        assert_eq!(frame, clean);
    }
}
