//! A worker's own tables: inbound SAs by SPI, outbound ones by inner destination.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, Hasher};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use esp::{Flow, InboundSa, OutboundSa, Selectors};
use ike::Path;
use wire::{Spi, Time, TrafficSelector, WorkSet};

/// What all workers and the control side share of a pair.
#[derive(Debug)]
pub(super) struct PairShared {
    /// Whether we send on it yet (RFC 7296 §2.8).
    pub(super) sending: AtomicBool,
    /// Packets from the peer that were passed on.
    pub(super) packets_in: AtomicU64,
    /// Octets of the inner packets in them.
    pub(super) bytes_in: AtomicU64,
}

/// The sending half of a pair.
pub(super) struct Outbound {
    pub(super) spi_in: Spi,
    pub(super) sa: Arc<OutboundSa>,
    pub(super) pair: Arc<PairShared>,
    pub(super) selectors: Arc<Selectors>,
    /// What lies behind the peer, for the routes.
    pub(super) remote: Arc<[TrafficSelector]>,
    pub(super) path: Path,
    /// Which of the worker's sockets sends from the path's local end.
    pub(super) socket: usize,
    pub(super) waiting: Waiting,
}

impl Outbound {
    pub(super) fn set(&self) -> WorkSet {
        self.spi_in.work_set()
    }
}

/// Packets that wait until the sequence lease is extended, in order.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    packets: VecDeque<Box<[u8]>>,
    bytes: usize,
}

impl Waiting {
    /// Octets that may wait for one pair in one worker.
    pub(super) const BYTES_MAX: usize = 1 << 20;

    pub(super) fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// Takes in a packet; `false` if there is no room.
    pub(super) fn push(&mut self, packet: &[u8]) -> bool {
        if self.bytes + packet.len() > Self::BYTES_MAX {
            return false;
        }
        self.bytes += packet.len();
        self.packets.push_back(packet.into());
        true
    }

    pub(super) fn take(&mut self) -> VecDeque<Box<[u8]>> {
        self.bytes = 0;
        std::mem::take(&mut self.packets)
    }
}

/// The receiving half of a pair; only in the worker that its SPI is pinned to.
pub(super) struct Inbound {
    pub(super) sa: InboundSa,
    pub(super) pair: Arc<PairShared>,
    pub(super) path: Path,
    /// When another path was told last.
    pub(super) told_at: Option<Time>,
    /// Whether the edge has risen since edges were told last.
    pub(super) dirty: bool,
}

impl Inbound {
    /// Time between two moves of one peer that are told: each is replicated, and a peer could else cause one by every packet.
    const MOVES_EVERY: Duration = Duration::from_secs(1);

    /// Whether to tell that the peer's newest packet came by `path`.
    #[inline]
    pub(super) fn tells_move(&mut self, now: Time, path: Path) -> bool {
        if self.path == path || self.told_at.is_some_and(|told| now < told + Self::MOVES_EVERY) {
            return false;
        }
        self.told_at = Some(now);
        true
    }
}

/// Why no pair was found for an inner packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoRoute {
    /// No pair leads to its destination.
    Destination,
    /// Pairs lead there, but no selector permits the packet.
    Selector,
}

/// The tables.
#[derive(Default)]
pub(super) struct Table {
    inbound: HashMap<Spi, Box<Inbound>, Spread>,
    outbound: Vec<Option<Box<Outbound>>>,
    free: Vec<usize>,
    places: HashMap<Spi, usize, Spread>,
    /// By prefix length; the lengths that are in use stand in `lengths`, longest first.
    routes: HashMap<u8, HashMap<u32, Vec<usize>, Spread>>,
    lengths: Vec<u8>,
}

impl Table {
    /// Puts an outbound half in, in place of one of the same SPI. Newer ones are found first.
    pub(super) fn put_outbound(&mut self, mut outbound: Outbound) {
        if let Some(old) = self.take_outbound(outbound.spi_in) {
            outbound.waiting = old.waiting;
        }
        let place = self.free.pop().unwrap_or_else(|| {
            self.outbound.push(None);
            self.outbound.len() - 1
        });
        for (address, len) in prefixes(&outbound.remote) {
            let routes = self.routes.entry(len).or_default();
            routes.entry(address).or_default().insert(0, place);
            if !self.lengths.contains(&len) {
                self.lengths.push(len);
                self.lengths.sort_unstable_by(|a, b| b.cmp(a));
            }
        }
        self.places.insert(outbound.spi_in, place);
        self.outbound[place] = Some(Box::new(outbound));
    }

    /// Takes an outbound half out.
    pub(super) fn take_outbound(&mut self, spi_in: Spi) -> Option<Box<Outbound>> {
        let place = self.places.remove(&spi_in)?;
        let outbound = self.outbound[place].take()?;
        self.free.push(place);
        for (address, len) in prefixes(&outbound.remote) {
            let Some(routes) = self.routes.get_mut(&len) else { continue };
            if let Some(places) = routes.get_mut(&address) {
                places.retain(|known| *known != place);
                if places.is_empty() {
                    routes.remove(&address);
                }
            }
            if routes.is_empty() {
                self.routes.remove(&len);
                self.lengths.retain(|known| *known != len);
            }
        }
        Some(outbound)
    }

    /// Puts an inbound half in, in place of one of the same SPI.
    pub(super) fn put_inbound(&mut self, inbound: Inbound) {
        self.inbound.insert(inbound.sa.spi(), Box::new(inbound));
    }

    /// Takes an inbound half out.
    pub(super) fn take_inbound(&mut self, spi: Spi) {
        self.inbound.remove(&spi);
    }

    /// The inbound half of that SPI.
    #[inline]
    pub(super) fn inbound(&mut self, spi: Spi) -> Option<&mut Inbound> {
        self.inbound.get_mut(&spi).map(Box::as_mut)
    }

    /// The inbound halves of a work set.
    pub(super) fn inbound_of(&self, set: WorkSet) -> impl Iterator<Item = &Inbound> {
        self.inbound.values().map(Box::as_ref).filter(move |inbound| inbound.sa.spi().work_set() == set)
    }

    /// The outbound half of the pair with that inbound SPI.
    pub(super) fn outbound(&mut self, spi_in: Spi) -> Option<&mut Outbound> {
        self.outbound.get_mut(*self.places.get(&spi_in)?)?.as_deref_mut()
    }

    /// All pairs of a work set.
    pub(super) fn pairs_of(&self, set: WorkSet) -> Vec<Spi> {
        self.places.keys().copied().filter(|spi| spi.work_set() == set).collect()
    }

    /// The pair that carries an inner packet: of the longest prefix, the newest whose selectors permit it.
    #[inline]
    pub(super) fn route(&mut self, flow: &Flow) -> Result<&mut Outbound, NoRoute> {
        let destination = flow.destination.to_bits();
        let mut failure = NoRoute::Destination;
        for len in &self.lengths {
            let address = destination & mask(*len);
            let Some(places) = self.routes.get(len).and_then(|routes| routes.get(&address)) else { continue };
            for place in places {
                let Some(outbound) = &self.outbound[*place] else { continue };
                failure = NoRoute::Selector;
                if outbound.pair.sending.load(Relaxed) && outbound.selectors.permit_outbound(flow) {
                    return self.outbound[*place].as_deref_mut().ok_or(failure);
                }
            }
        }
        Err(failure)
    }
}

const fn mask(len: u8) -> u32 {
    if len == 0 { 0 } else { u32::MAX << (32 - len) }
}

/// The prefixes that cover exactly the IPv4 addresses of the selectors.
fn prefixes(selectors: &[TrafficSelector]) -> Vec<(u32, u8)> {
    let mut found = Vec::new();
    for selector in selectors {
        let (IpAddr::V4(first), IpAddr::V4(last)) = (selector.first, selector.last) else { continue };
        cover(first, last, &mut found);
    }
    found.sort_unstable();
    found.dedup();
    found
}

fn cover(first: Ipv4Addr, last: Ipv4Addr, found: &mut Vec<(u32, u8)>) {
    let (mut next, last) = (u64::from(first.to_bits()), u64::from(last.to_bits()));
    while next <= last {
        // The widest block that starts here and ends in time.
        let aligned = if next == 0 { 32 } else { next.trailing_zeros().min(32) };
        let room = (last - next + 1).ilog2();
        let bits = aligned.min(room);
        let (Ok(address), Ok(len)) = (u32::try_from(next), u8::try_from(32 - bits)) else { return };
        found.push((address, len));
        next += 1 << bits;
    }
}

/// Spreads SPIs and addresses, which we have chosen ourselves; nobody else can aim them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Spread;

/// The state of [`Spread`].
#[derive(Debug, Default)]
pub(super) struct SpreadHasher(u64);

impl BuildHasher for Spread {
    type Hasher = SpreadHasher;

    fn build_hasher(&self) -> SpreadHasher {
        SpreadHasher(0)
    }
}

impl Hasher for SpreadHasher {
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u32(u32::from(*byte));
        }
    }

    fn write_u32(&mut self, value: u32) {
        // 2⁶⁴ divided by the golden ratio (Knuth, The Art of Computer Programming, 6.4).
        self.0 = (self.0 ^ u64::from(value)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::initial;
    use super::*;
    use esp::Start;
    use wire::Tenure;

    fn outbound(spi: u32, remote: &[&str], port: Option<u16>, sending: bool) -> Outbound {
        let mut initial = initial(spi, spi + 1);
        let ports = port.map_or((0, u16::MAX), |port| (port, port));
        initial.remote = remote
            .iter()
            .map(|text| TrafficSelector {
                port_first: ports.0,
                port_last: ports.1,
                ..TrafficSelector::from_prefix(text.parse().unwrap())
            })
            .collect();
        let sa = OutboundSa::new(&initial, Tenure::default(), &Start::New { edge: 100 }).unwrap();
        Outbound {
            spi_in: Spi(spi),
            sa: Arc::new(sa),
            pair: Arc::new(PairShared {
                sending: AtomicBool::new(sending),
                packets_in: AtomicU64::new(0),
                bytes_in: AtomicU64::new(0),
            }),
            selectors: Arc::new(Selectors::new(&initial.local, &initial.remote)),
            remote: initial.remote.into(),
            path: Path { local: initial.path_local, remote: initial.path_remote },
            socket: 0,
            waiting: Waiting::default(),
        }
    }

    fn flow(destination: &str) -> Flow {
        Flow {
            source: Ipv4Addr::new(10, 9, 0, 1),
            destination: destination.parse().unwrap(),
            protocol: 6,
            ports: Some((1000, 80)),
            header_len: 20,
            total_len: 40,
        }
    }

    fn route(table: &mut Table, destination: &str) -> Result<u32, NoRoute> {
        table.route(&flow(destination)).map(|outbound| outbound.spi_in.0)
    }

    #[test]
    fn the_longest_prefix_that_permits_the_packet_wins() {
        let mut table = Table::default();
        table.put_outbound(outbound(0x100, &["10.8.0.0/16"], None, true));
        table.put_outbound(outbound(0x200, &["10.8.1.0/24", "10.7.0.0/16"], None, true));
        table.put_outbound(outbound(0x300, &["10.8.1.1/32"], Some(443), true));
        assert_eq!(route(&mut table, "10.8.2.1"), Ok(0x100));
        assert_eq!(route(&mut table, "10.8.1.2"), Ok(0x200));
        assert_eq!(route(&mut table, "10.8.1.1"), Ok(0x200), "the host's own pair is for another port");
        assert_eq!(route(&mut table, "10.6.0.1"), Err(NoRoute::Destination));
        assert!(table.take_outbound(Spi(0x200)).is_some());
        assert_eq!(route(&mut table, "10.8.1.2"), Ok(0x100));
        assert_eq!(route(&mut table, "10.7.0.1"), Err(NoRoute::Destination));
        assert!(table.take_outbound(Spi(0x100)).is_some());
        assert_eq!(route(&mut table, "10.8.1.1"), Err(NoRoute::Selector));
    }

    #[test]
    fn a_rekeyed_pair_takes_over_when_it_may_send() {
        let mut table = Table::default();
        table.put_outbound(outbound(0x100, &["10.8.0.1/32"], None, true));
        table.put_outbound(outbound(0x200, &["10.8.0.1/32"], None, false));
        assert_eq!(route(&mut table, "10.8.0.1"), Ok(0x100));
        table.outbound(Spi(0x200)).unwrap().pair.sending.store(true, Relaxed);
        assert_eq!(route(&mut table, "10.8.0.1"), Ok(0x200));
    }

    #[test]
    fn a_peer_that_moves_with_every_packet_is_followed_at_a_bounded_rate() {
        let initial = initial(0x100, 0x101);
        let path = Path { local: initial.path_local, remote: initial.path_remote };
        let sa = InboundSa::new(&initial, &Start::New { edge: 100 }).unwrap();
        let pair = outbound(0x100, &["10.8.0.0/16"], None, true).pair;
        let mut inbound = Inbound { sa, pair, path, told_at: None, dirty: false };
        let elsewhere = |port: u16| Path { remote: ([192, 0, 2, 9], port).into(), ..path };
        assert!(!inbound.tells_move(Time::from_millis(0), path));
        let mut told = 0;
        for ms in 0..3000_u16 {
            if inbound.tells_move(Time::from_millis(ms.into()), elsewhere(ms)) {
                told += 1;
                inbound.path = elsewhere(ms);
            }
        }
        assert_eq!(told, 3);
    }

    #[test]
    fn a_range_is_covered_exactly() {
        for (first, last, expected) in [
            ("10.0.0.0", "10.0.0.255", 1),
            ("10.0.0.1", "10.0.0.6", 4),
            ("0.0.0.0", "255.255.255.255", 1),
            ("255.255.255.255", "255.255.255.255", 1),
        ] {
            let mut found = Vec::new();
            cover(first.parse().unwrap(), last.parse().unwrap(), &mut found);
            assert_eq!(found.len(), expected, "{first}-{last}: {found:?}");
            let covered: u64 = found.iter().map(|(_, len)| 1_u64 << (32 - len)).sum();
            let (first, last): (Ipv4Addr, Ipv4Addr) = (first.parse().unwrap(), last.parse().unwrap());
            assert_eq!(covered, u64::from(last.to_bits()) - u64::from(first.to_bits()) + 1);
        }
    }

    #[test]
    fn waiting_packets_are_bounded() {
        let mut waiting = Waiting::default();
        let packet = vec![0; 65_000];
        let taken = (0..100).filter(|_| waiting.push(&packet)).count();
        assert_eq!(taken, Waiting::BYTES_MAX / 65_000);
        assert_eq!(waiting.take().len(), taken);
        assert!(waiting.is_empty() && waiting.push(&packet));
    }

    #[test]
    fn ten_thousand_hosts_spread_over_the_table() {
        let mut low = std::collections::HashSet::new();
        for i in 0..10_000_u32 {
            low.insert(Spread.hash_one(0x0a08_0000 + i) & 0x3fff);
        }
        assert!(low.len() > 6000, "{} of 16384 buckets", low.len());
    }
}
