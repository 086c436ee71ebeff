//! Frames to feed to both twins: real ones, and structured ones from a seed.

use std::net::Ipv4Addr;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use wire::Prefix;

pub(crate) const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub(crate) const INSIDE: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);
pub(crate) const CLUSTER_MAC: [u8; 6] = [0x02, 0xcc, 192, 0, 2, 1];
pub(crate) const NODE_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x0b];

/// Inner prefixes with a home.
pub(crate) const INNER: [(&str, u16); 7] = [
    ("10.9.0.5", 0),
    ("10.9.0.6", 1),
    ("10.1.0.130", 4),
    ("10.1.0.131", 5),
    ("172.16.0.0/16", 8),
    ("172.16.7.0/24", 9),
    ("10.64.0.0/10", 12),
];
/// Prefixes that are never in the clear.
pub(crate) const PROTECTED: [&str; 3] = ["10.9.0.0/16", "10.1.0.128/25", "172.16.0.0/12"];

/// Frames that were on a wire, with their names.
pub(crate) fn captured() -> Vec<(&'static str, Vec<u8>)> {
    include_str!("captured.txt")
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(|line| {
            let (name, hex) = line.split_once(' ').unwrap();
            let octets = hex.as_bytes().chunks(2);
            (name, octets.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect())
        })
        .collect()
}

/// Makes frames that come close to every branch of the rule.
pub(crate) struct Maker {
    rng: StdRng,
}

impl Maker {
    pub(crate) fn new(seed: u64) -> Self {
        Self { rng: StdRng::seed_from_u64(seed) }
    }

    fn below(&mut self, bound: u32) -> u32 {
        self.rng.next_u32() % bound
    }

    fn one_in(&mut self, n: u32) -> bool {
        self.below(n) == 0
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        let len = u32::try_from(from.len()).unwrap();
        from[usize::try_from(self.below(len)).unwrap()]
    }

    fn octets(&mut self, len: usize) -> Vec<u8> {
        let mut octets = vec![0; len];
        self.rng.fill_bytes(&mut octets);
        octets
    }

    /// An address that the tables know, or one that they may not.
    fn address(&mut self) -> Ipv4Addr {
        let known = [
            OUTSIDE,
            INSIDE,
            Ipv4Addr::new(10, 9, 0, 5),
            Ipv4Addr::new(10, 9, 0, 6),
            Ipv4Addr::new(10, 9, 3, 3),
            Ipv4Addr::new(10, 1, 0, 50),
            Ipv4Addr::new(10, 1, 0, 130),
            Ipv4Addr::new(10, 1, 0, 131),
            Ipv4Addr::new(10, 1, 0, 200),
            Ipv4Addr::new(172, 16, 1, 1),
            Ipv4Addr::new(172, 16, 7, 7),
            Ipv4Addr::new(172, 20, 1, 1),
            Ipv4Addr::new(10, 70, 1, 1),
            Ipv4Addr::new(198, 51, 100, 7),
            Ipv4Addr::UNSPECIFIED,
        ];
        if self.one_in(4) { Ipv4Addr::from_bits(self.rng.next_u32()) } else { self.pick(&known) }
    }

    /// A frame of any kind.
    pub(crate) fn frame(&mut self) -> Vec<u8> {
        match self.below(16) {
            0..2 => self.arp(),
            2 => {
                let protocol = self.pick(&[0x8100, 0x88a8, 0x86dd, 0x0806, 0x0800, 0x88cc]);
                let len = usize::try_from(self.below(60)).unwrap();
                let payload = self.octets(len);
                self.ethernet(protocol, &payload)
            }
            3..6 => self.routed(),
            6..8 => {
                let (source, destination) = (self.pick(&[OUTSIDE, INSIDE]), self.address());
                self.ipv4(source, destination)
            }
            _ => {
                let (source, destination) = (self.address(), self.pick(&[OUTSIDE, INSIDE]));
                self.ipv4(source, destination)
            }
        }
    }

    /// A frame from any address to any other.
    pub(crate) fn routed(&mut self) -> Vec<u8> {
        let (source, destination) = (self.address(), self.address());
        self.ipv4(source, destination)
    }

    /// A first IKE request, with its initiator SPI and source.
    pub(crate) fn new_ike(&mut self) -> (u64, Ipv4Addr, Vec<u8>) {
        let (spi_i, source) = (self.rng.next_u64(), Ipv4Addr::from_bits(self.rng.next_u32()));
        let message = [&spi_i.to_be_bytes()[..], &[0; 8], &[33, 0x20, 34, 0x08], &[0; 8]].concat();
        let datagram = udp_datagram(500, 500, &message, 36);
        let packet = ipv4_packet(source, OUTSIDE, 17, 0, 5, &datagram);
        (spi_i, source, [&CLUSTER_MAC[..], &[2, 0, 0, 0, 0, 0x77], &[8, 0], &packet].concat())
    }

    /// A prefix near the addresses that frames have.
    pub(crate) fn inner_prefix(&mut self) -> Prefix {
        let length = self.pick(&[0, 8, 10, 12, 15, 16, 17, 20, 24, 25, 31, 32, 32, 32]);
        let mask = u32::MAX.checked_shr(u32::from(length)).map_or(u32::MAX, |host| !host);
        Prefix::new(Ipv4Addr::from_bits(self.address().to_bits() & mask).into(), length).unwrap()
    }

    fn ethernet(&mut self, protocol: u16, payload: &[u8]) -> Vec<u8> {
        let to = self.pick(&[CLUSTER_MAC, CLUSTER_MAC, CLUSTER_MAC, NODE_MAC, [0xff; 6], [2, 0, 0, 0, 0, 0x55]]);
        [&to[..], &[2, 0, 0, 0, 0, 0x77], &protocol.to_be_bytes(), payload].concat()
    }

    fn arp(&mut self) -> Vec<u8> {
        let operation = self.pick(&[1, 1, 1, 2, 3]);
        let mac = self.pick(&[CLUSTER_MAC, [2, 0, 0, 0, 0, 0x77], [2, 0, 0, 0, 0, 0x78], [3, 0, 0, 0, 0, 1]]);
        let mut head = [0, 1, 8, 0, 6, 4, 0, operation];
        if self.one_in(10) {
            head[usize::try_from(self.below(6)).unwrap()] ^= 1;
        }
        let (asking, asked) = (self.address(), self.address());
        let tail = self.octets(6);
        let padding = if self.one_in(2) { 18 } else { 0 };
        let body = [&head[..], &mac, &asking.octets(), &tail, &asked.octets(), &vec![0; padding]].concat();
        self.ethernet(0x0806, &body)
    }

    fn ipv4(&mut self, source: Ipv4Addr, destination: Ipv4Addr) -> Vec<u8> {
        let protocol = self.pick(&[1, 6, 6, 17, 17, 17, 17, 17, 47, 50, 51, 132]);
        let place = self.pick(&[0, 0, 0, 0, 0x4000, 0x2000, 0x2010, 0x0010, 0x8000]);
        let words = self.pick(&[5, 5, 5, 5, 6, 10, 15, 4, 0]);
        let payload = match protocol {
            17 => self.udp(),
            6 => self.tcp(),
            1 => {
                let (kind, code) = (self.pick(&[0, 3, 4, 5, 8, 11, 12, 13]), self.pick(&[0, 1, 2, 3, 4]));
                [&[kind, code][..], &self.octets(34)].concat()
            }
            47 => {
                let head =
                    self.pick(&[[0x30, 0x01, 0x88, 0x0b], [0x20, 0x81, 0x88, 0x0b], [0, 0, 8, 0], [0x30, 1, 8, 0]]);
                [&head[..], &self.octets(12)].concat()
            }
            _ => self.octets(24),
        };
        let packet = ipv4_packet(source, destination, protocol, place, words, &payload);
        self.ethernet(0x0800, &packet)
    }

    fn tcp(&mut self) -> Vec<u8> {
        let to: u16 = self.pick(&[443, 1723, 40_001, 80, 500]);
        let mut header = self.octets(20);
        header[2..4].copy_from_slice(&to.to_be_bytes());
        header[13] = self.pick(&[0x02, 0x10, 0x14, 0x04, 0x11]);
        header
    }

    fn udp(&mut self) -> Vec<u8> {
        let to = self.pick(&[500, 500, 4500, 4500, 4500, 1701, 443, 40_001, 53]);
        let from = u16::try_from(self.below(65_536)).unwrap();
        let payload = match to {
            500 => self.ike(),
            4500 => match self.below(6) {
                0 => vec![0xff],
                1 => {
                    let len = usize::try_from(self.below(5)).unwrap();
                    self.octets(len)
                }
                2..4 => [&[0; 4], &self.ike()[..]].concat(),
                _ => self.octets(40),
            },
            1701 => {
                let head = self.pick(&[[0xc8, 0x02], [0x00, 0x02], [0x40, 0x02], [0x00, 0x03], [0xc8, 0x03]]);
                let ids = if self.one_in(3) { vec![0; 6] } else { self.octets(6) };
                [&head[..], &ids, &self.octets(8)].concat()
            }
            _ => self.octets(16),
        };
        let length = u32::try_from(payload.len() + 8).unwrap();
        let length = if self.one_in(20) { self.below(24) } else { length };
        let mut datagram = udp_datagram(from, to, &payload, u16::try_from(length).unwrap());
        if self.one_in(8) {
            datagram.extend_from_slice(&[0; 18]);
        }
        datagram
    }

    fn ike(&mut self) -> Vec<u8> {
        let spi_i = self.rng.next_u64();
        let spi_r = if self.one_in(2) { 0 } else { self.rng.next_u64() };
        let (version, flags) = (self.pick(&[0x20, 0x20, 0x20, 0x10, 0x30]), self.pick(&[0x08, 0x00, 0x20, 0x28]));
        [&spi_i.to_be_bytes()[..], &spi_r.to_be_bytes(), &[33, version, 34, flags], &self.octets(24)].concat()
    }
}

fn udp_datagram(from: u16, to: u16, payload: &[u8], length: u16) -> Vec<u8> {
    [&from.to_be_bytes()[..], &to.to_be_bytes(), &length.to_be_bytes(), &[0, 0], payload].concat()
}

fn ipv4_packet(
    source: Ipv4Addr,
    destination: Ipv4Addr,
    protocol: u8,
    place: u16,
    words: u8,
    payload: &[u8],
) -> Vec<u8> {
    let options = vec![1; usize::from(words).saturating_sub(5) * 4];
    let length = u16::try_from(20 + options.len() + payload.len()).unwrap();
    let mut packet = vec![0x40 | words, 0];
    packet.extend_from_slice(&length.to_be_bytes());
    packet.extend_from_slice(&[0, 7]);
    packet.extend_from_slice(&place.to_be_bytes());
    packet.extend_from_slice(&[64, protocol, 0, 0]);
    packet.extend_from_slice(&source.octets());
    packet.extend_from_slice(&destination.octets());
    packet.extend_from_slice(&options);
    packet.extend_from_slice(payload);
    packet
}
