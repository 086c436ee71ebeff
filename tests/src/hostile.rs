//! A hostile host: datagrams that were seen on the wire, damaged in a thousand ways, sent as fast as it goes.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

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

    /// Sends `count` damaged datagrams from `host` to `target`, each to the port of its specimen. Equal seeds give equal
    /// datagrams.
    ///
    /// # Errors
    /// The host cannot send.
    pub fn attack(&self, host: &Namespace, target: std::net::IpAddr, count: usize, seed: u64) -> Result<()> {
        ensure!(!self.datagrams.is_empty(), "there is no specimen");
        let socket = host.within(|| UdpSocket::bind(("0.0.0.0", 0)).context("a socket for the attack"))?;
        let mut rng = StdRng::seed_from_u64(seed);
        for _ in 0..count {
            let (port, specimen) = &self.datagrams[below(&mut rng, self.datagrams.len())];
            let mut datagram = specimen.clone();
            damage(&mut datagram, &mut rng);
            // A full queue, or an ICMP error for an earlier one, is what an attacker lives with.
            socket.send_to(&datagram, SocketAddr::new(target, *port)).ok();
        }
        Ok(())
    }
}

/// Changes one to six things in a datagram.
fn damage(datagram: &mut Vec<u8>, rng: &mut StdRng) {
    for _ in 0..=below(rng, 6) {
        if datagram.is_empty() {
            datagram.push(0);
        }
        let at = below(rng, datagram.len());
        match below(rng, 8) {
            0 => datagram[at] ^= 1 << below(rng, 8),
            1 => datagram[at] = 0,
            2 => datagram[at] = 0xff,
            3 => datagram[at] = rng.next_u32().to_le_bytes()[0],
            4 => datagram.truncate(at),
            5 => datagram.extend(std::iter::repeat_n(0xa5, below(rng, 64))),
            // A field of 16 bits, as lengths are, becomes a small or a huge one.
            6 => {
                let value = if below(rng, 2) == 0 { below(rng, 16) } else { 0xfff0 + below(rng, 16) };
                let bytes = u16::try_from(value).unwrap_or(u16::MAX).to_be_bytes();
                for (octet, new) in datagram[at..].iter_mut().zip(bytes) {
                    *octet = new;
                }
            }
            _ => {
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

const PER_PORT_MAX: usize = 64;
const DATAGRAM_MAX: usize = 1_472;
const COLLECT_MAX: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_changes_datagrams_and_is_the_same_for_the_same_seed() {
        let specimen = vec![7; 100];
        let damaged = |seed| {
            let mut datagram = specimen.clone();
            damage(&mut datagram, &mut StdRng::seed_from_u64(seed));
            datagram
        };
        let changed = (0..1_000).filter(|seed| damaged(*seed) != specimen).count();
        assert!(changed > 900, "{changed}");
        assert_eq!(damaged(5), damaged(5));
    }
}
