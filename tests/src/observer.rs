//! An observer of the outside wire: it sees every frame that a node or a client sends, and judges it.
//!
//! It needs no keys: SPI, sequence number and the explicit IV of an AEAD travel in the clear. [`Rules`] say what is
//! protected, [`Report`] what was broken and how many packets were judged.
//!
//! That no (key, IV) leaves twice (I2) is judged without keys, too: a key belongs to one SPI. Each child SA draws its keys
//! from nonces of its own (RFC 7296 §2.17), one for each direction, which is the SPI that the receiver chose; so an IV
//! twice under one key is one twice under one SPI and destination. Of an IKE SA the pair of SPIs and the direction name the
//! key (SK_ei or SK_er, RFC 7296 §2.14). The AEADs' salt is part of the key.
//!
//! That no inbound packet comes out twice (I3, with its one exception) shows at the receivers' ends, by number, while a
//! [`Repeater`] sends again what the clients have sent.

mod capture;
mod frame;
mod judge;
mod repeater;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use wire::Spi;

use crate::namespace::{Namespace, Switch};
use crate::run;
use capture::{Capture, Injector, Patience};
use frame::Content;
pub use judge::{Judge, Rule, Rules, Sender, VIOLATIONS_MAX, Violation};
pub use repeater::Repeater;

/// A running observer.
pub struct Observer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Result<()>>>,
}

struct Shared {
    stop: AtomicBool,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    judge: Judge,
    ports: BTreeMap<String, Sent>,
    /// An ESP frame of the first port that sent one, kept to be planted.
    specimen: Option<Vec<u8>>,
    dropped: u64,
}

/// What one port has sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// ESP packets.
    pub esp: u64,
    /// IKE messages.
    pub ike: u64,
}

/// The observer's verdict.
#[derive(Clone, Debug)]
pub struct Report {
    /// Packets judged; each datagram of a train counts.
    pub judged: u64,
    /// How many of them were ESP.
    pub esp: u64,
    /// How many of them were IKE.
    pub ike: u64,
    /// Times that a rule was broken.
    pub broken: u64,
    /// The first of them.
    pub violations: Vec<Violation>,
    /// Frames that the observer could not keep, and so did not judge.
    pub dropped: u64,
    /// What each port sent.
    pub ports: BTreeMap<String, Sent>,
}

impl Report {
    /// How many of the kept violations are of `rule`.
    #[must_use]
    pub fn count(&self, rule: Rule) -> usize {
        self.violations.iter().filter(|violation| violation.rule == rule).count()
    }

    /// Prints the kept violations, one per line.
    pub fn print(&self) {
        for Violation { rule, port, packet, detail } in &self.violations {
            println!("  {rule:?} at port {port}: {detail} (packet {packet})");
        }
    }
}

impl Observer {
    /// Starts to observe all ports that `switch` has now.
    ///
    /// # Errors
    /// The packet socket cannot be opened.
    pub fn start(switch: &Switch, rules: Rules) -> Result<Self> {
        let capture = Capture::open(switch.namespace())?;
        let seen = Seen { judge: Judge::new(rules), ..Seen::default() };
        let shared = Arc::new(Shared { stop: AtomicBool::new(false), seen: Mutex::new(seen) });
        let told = Arc::clone(&shared);
        let thread = thread::Builder::new().name("observer".to_owned()).spawn(move || watch(capture, &told))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// What each port has sent so far.
    #[must_use]
    pub fn sent(&self) -> BTreeMap<String, Sent> {
        self.seen().ports.clone()
    }

    /// Who owns an SA of the cluster's, by what is on the wire: it has sent to the peer at `to` under the newest epoch.
    #[must_use]
    pub fn sender(&self, to: Ipv4Addr, spi: Spi) -> Option<Sender> {
        self.seen().judge.sender(to, spi.0).cloned()
    }

    /// Times that a rule was broken so far.
    #[must_use]
    pub fn broken(&self) -> u64 {
        self.seen().judge.broken()
    }

    /// Sends an ESP packet that was seen once more, from `interface` of `namespace`: a double use that must be found.
    ///
    /// # Errors
    /// No ESP came by in 5 s, or there is no such interface.
    pub fn plant(&self, namespace: &Namespace, interface: &str) -> Result<()> {
        let specimen =
            run::wait_for("an ESP packet to repeat", Duration::from_secs(5), || self.seen().specimen.clone())?;
        Injector::open(namespace, interface)?.send(&specimen)
    }

    /// Ends the observation once all that was received is judged.
    ///
    /// # Errors
    /// The packet socket failed while observing.
    pub fn finish(mut self) -> Result<Report> {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().map_err(|_| anyhow!("the observer panicked"))?.context("observe")?;
        }
        let seen = self.seen();
        Ok(Report {
            judged: seen.judge.judged(),
            esp: seen.judge.esp(),
            ike: seen.judge.ike(),
            broken: seen.judge.broken(),
            violations: seen.judge.violations().to_vec(),
            dropped: seen.dropped,
            ports: seen.ports.clone(),
        })
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.shared.seen()
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A socket that hears all ports of a switch, for those who want the datagrams themselves.
pub struct Tap {
    capture: Capture,
}

impl Tap {
    /// Starts to listen to all ports that `switch` has now.
    ///
    /// # Errors
    /// The packet socket cannot be opened.
    pub fn open(switch: &Switch) -> Result<Self> {
        Ok(Self { capture: Capture::open(switch.namespace())? })
    }

    /// The next UDP datagram over IPv4: its destination port and what it carries. `None` once nothing is left.
    ///
    /// # Errors
    /// The packet socket failed.
    pub fn next_udp(&mut self) -> Result<Option<(u16, Vec<u8>)>> {
        while let Some(frame) = self.capture.next(Patience::OnlyWhatIsThere)? {
            if let Ok(Some((port, payload))) = frame::read_udp(frame.bytes) {
                let wagon = frame.segment.map_or(payload.len(), usize::from).min(payload.len());
                return Ok(Some((port, payload.get(..wagon).unwrap_or_default().to_vec())));
            }
        }
        Ok(None)
    }
}

/// Judges until told to stop, and then on until nothing is left to receive.
fn watch(mut capture: Capture, shared: &Shared) -> Result<()> {
    loop {
        let stop = shared.stop.load(Ordering::Relaxed);
        let patience = if stop { Patience::OnlyWhatIsThere } else { Patience::Wait };
        match capture.next(patience)? {
            Some(frame) => shared.seen().take(&frame),
            None if stop => break,
            None => {
                capture.count_drops()?;
                shared.seen().dropped = capture.dropped;
            }
        }
    }
    capture.count_drops()?;
    shared.seen().dropped = capture.dropped;
    Ok(())
}

impl Seen {
    fn take(&mut self, frame: &capture::Frame<'_>) {
        let Self { judge, ports, specimen, .. } = self;
        if judge.is_attacker(frame.port) {
            return;
        }
        frame::read(frame.bytes, frame.segment, |packet| {
            let sent = match ports.get_mut(frame.port) {
                Some(sent) => sent,
                None => ports.entry(frame.port.to_owned()).or_default(),
            };
            match packet.content {
                Content::Esp(_) => {
                    sent.esp += 1;
                    if specimen.is_none() && frame.segment.is_none() {
                        *specimen = Some(frame.bytes.to_vec());
                    }
                }
                Content::Ike(_) => sent.ike += 1,
                Content::Quote { .. } | Content::Other => {}
            }
            judge.judge(frame.port, packet);
        });
    }
}
