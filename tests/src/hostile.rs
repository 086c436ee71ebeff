//! A hostile host: datagrams that were seen on the wire, damaged in a thousand ways, sent as fast as it goes.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use socket2::{Domain, Protocol, Socket, Type};

use crate::namespace::{Namespace, Switch};
use crate::observer::Tap;

/// Datagrams to damage, each with the port that it was sent to.
#[derive(Clone, Debug, Default)]
pub struct Specimens {
    datagrams: Vec<(u16, Vec<u8>)>,
}

impl Specimens {
    /// Listens on a switch while `meanwhile` runs, and keeps some datagrams to each of `ports`.
    ///
    /// # Errors
    /// `meanwhile` fails, or nothing was sent to one of the ports.
    pub fn collect(switch: &Switch, ports: &[u16], meanwhile: impl FnOnce() -> Result<()>) -> Result<Self> {
        let mut tap = Tap::open(switch)?;
        meanwhile()?;
        let mut specimens = Self::default();
        let end = Instant::now() + COLLECT_MAX;
        while let Some(datagram) = tap.next_udp()? {
            let (port, payload) = datagram;
            let known = specimens.datagrams.iter().filter(|(to, _)| *to == port).count();
            if ports.contains(&port) && known < PER_PORT_MAX {
                specimens.datagrams.push((port, payload));
            }
            if Instant::now() > end {
                break;
            }
        }
        for port in ports {
            let seen = specimens.datagrams.iter().any(|(to, _)| to == port);
            ensure!(seen, "nothing was sent to port {port} while specimens were collected");
        }
        Ok(specimens)
    }

    /// Sends `count` damaged datagrams from `host` to the `targets` in turn, each to the port of its specimen, no faster than
    /// [`RATE`], and tells what was sent. Equal seeds give equal datagrams. What goes to `forged`'s port comes from that address
    /// and port, whosever it is.
    ///
    /// # Errors
    /// The host cannot send.
    pub fn attack(
        &self,
        host: &Namespace,
        targets: &[IpAddr],
        forged: Option<SocketAddr>,
        count: usize,
        seed: u64,
    ) -> Result<Tally> {
        ensure!(!self.datagrams.is_empty() && !targets.is_empty(), "there is no specimen or no target");
        let socket = host.within(|| UdpSocket::bind(("0.0.0.0", 0)).context("a socket for the attack"))?;
        let forger = forged.map(|source| host.within(|| forger(source))).transpose()?;
        let classes = self.classes();
        let mut rng = StdRng::seed_from_u64(seed);
        let mut tally = Tally::default();
        let start = Instant::now();
        for (number, target) in (0..count).zip(targets.iter().cycle()) {
            let (port, specimens) = &classes[below(&mut rng, classes.len())];
            let specimen = specimens[below(&mut rng, specimens.len())];
            let (_, other) = &self.datagrams[below(&mut rng, self.datagrams.len())];
            let mut datagram = specimen.to_vec();
            damage(&mut datagram, other, &mut rng, &mut tally);
            *tally.sent.entry(*port).or_default() += 1;
            // A full queue, or an ICMP error for an earlier one, is what an attacker lives with.
            let forger = forger.as_ref().filter(|_| forged.is_some_and(|source| source.port() == *port));
            forger.unwrap_or(&socket).send_to(&datagram, SocketAddr::new(*target, *port)).ok();
            if number % BURST == 0 {
                let due = start + Duration::from_secs(1) * u32::try_from(number).unwrap_or(u32::MAX) / RATE;
                thread::sleep(due.saturating_duration_since(Instant::now()));
            }
        }
        Ok(tally)
    }
}

impl Specimens {
    /// The specimens by port and protocol, so that each protocol gets its share of an attack, however seldom it was seen.
    fn classes(&self) -> Vec<(u16, Vec<&[u8]>)> {
        let mut classes: BTreeMap<(u16, bool), Vec<&[u8]>> = BTreeMap::new();
        for (port, datagram) in &self.datagrams {
            // RFC 3948 §2.2: on port 4500, IKE stands behind four octets of zero, and ESP does not.
            let is_esp = *port == 4500 && !datagram.starts_with(&[0; 4]);
            classes.entry((*port, is_esp)).or_default().push(datagram);
        }
        classes.into_iter().map(|((port, _), specimens)| (port, specimens)).collect()
    }
}

/// A socket that sends in the name of an address which this host does not have.
fn forger(source: SocketAddr) -> Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)).context("a socket to forge with")?;
    socket.set_ip_transparent_v4(true).context("ask to send in another's name")?;
    socket.bind(&source.into()).with_context(|| format!("send in the name of {source}"))?;
    Ok(socket.into())
}

/// What an attack has sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Datagrams by the port that they were sent to.
    pub sent: BTreeMap<u16, u64>,
    /// Damages by kind; each datagram has up to six.
    pub damages: BTreeMap<&'static str, u64>,
}

impl Tally {
    /// Adds what another attack has sent.
    pub fn add(&mut self, other: &Self) {
        for (port, count) in &other.sent {
            *self.sent.entry(*port).or_default() += count;
        }
        for (kind, count) in &other.damages {
            *self.damages.entry(kind).or_default() += count;
        }
    }

    /// All datagrams.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.sent.values().sum()
    }
}

/// Changes one to six things in a datagram, or, rarely, nothing: then it is one that was sent before.
fn damage(datagram: &mut Vec<u8>, other: &[u8], rng: &mut StdRng, tally: &mut Tally) {
    let mut note = |kind: &'static str| *tally.damages.entry(kind).or_default() += 1;
    if below(rng, 50) == 0 {
        note("repeated as it was");
        return;
    }
    for _ in 0..=below(rng, 6) {
        if datagram.is_empty() {
            datagram.push(0);
        }
        let at = below(rng, datagram.len());
        match below(rng, 10) {
            0 => {
                note("bit turned");
                datagram[at] ^= 1 << below(rng, 8);
            }
            1 => {
                note("octet 00");
                datagram[at] = 0;
            }
            2 => {
                note("octet ff");
                datagram[at] = 0xff;
            }
            3 => {
                note("octet random");
                datagram[at] = rng.next_u32().to_le_bytes()[0];
            }
            4 => {
                note("cut off");
                datagram.truncate(at);
            }
            5 => {
                note("lengthened");
                datagram.extend(std::iter::repeat_n(0xa5, below(rng, 64)));
            }
            // Headers stand in front, and are what parsers look at first.
            6 => {
                note("header octet random");
                let at = below(rng, datagram.len().min(48));
                datagram[at] = rng.next_u32().to_le_bytes()[0];
            }
            // A field of 16 bits, as lengths are, becomes a small or a huge one.
            7 => {
                note("length field");
                let value = if below(rng, 2) == 0 { below(rng, 16) } else { 0xfff0 + below(rng, 16) };
                let bytes = u16::try_from(value).unwrap_or(u16::MAX).to_be_bytes();
                for (octet, new) in datagram[at..].iter_mut().zip(bytes) {
                    *octet = new;
                }
            }
            8 => {
                note("end of another");
                datagram.truncate(at);
                datagram.extend_from_slice(&other[at.min(other.len())..]);
            }
            _ => {
                note("part doubled");
                let length = below(rng, datagram.len() - at) + 1;
                let part = datagram[at..at + length.min(200)].to_vec();
                datagram.splice(at..at, part);
            }
        }
    }
    datagram.truncate(DATAGRAM_MAX);
}

fn below(rng: &mut StdRng, bound: usize) -> usize {
    usize::try_from(rng.next_u64() % bound.max(1) as u64).unwrap_or(0)
}

const PER_PORT_MAX: usize = 128;
const DATAGRAM_MAX: usize = 1_472;
/// Datagrams per second: what nodes that share two cores with the attacker take in without losing many at their sockets.
const RATE: u32 = 25_000;
/// Datagrams in a row.
const BURST: usize = 32;
const COLLECT_MAX: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_changes_datagrams_and_is_the_same_for_the_same_seed() {
        let specimen = vec![7; 100];
        let damaged = |seed| {
            let mut datagram = specimen.clone();
            damage(&mut datagram, &[9; 50], &mut StdRng::seed_from_u64(seed), &mut Tally::default());
            datagram
        };
        let changed = (0..1_000).filter(|seed| damaged(*seed) != specimen).count();
        assert!(changed > 900, "{changed}");
        assert_eq!(damaged(5), damaged(5));
    }

    #[test]
    fn every_kind_of_damage_occurs_and_is_counted() {
        let mut rng = StdRng::seed_from_u64(1);
        let mut tally = Tally::default();
        for _ in 0..2_000 {
            damage(&mut vec![7; 100], &[9; 50], &mut rng, &mut tally);
        }
        assert_eq!(tally.damages.len(), 11, "{tally:?}");
    }
}
