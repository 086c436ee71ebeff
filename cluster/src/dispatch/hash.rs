//! The keyed hash that spreads what carries no identifier of ours.

use std::net::{IpAddr, Ipv4Addr};

use wire::WorkSet;

/// The cluster's dispatch key: nobody without it can aim new work at one work set.
///
/// The hash is SipHash-1-3 of the numbers below, little-endian, and one octet that says what is hashed; the BPF program
/// has the same in `cluster/bpf/siphash.h`.
#[derive(Clone)]
pub struct HashKey {
    k0: u64,
    k1: u64,
}

/// What is hashed, so that equal words of another kind give another work set.
#[derive(Clone, Copy)]
enum Domain {
    NewIke,
    IkeV1Cookie,
    Source,
    Pair,
    Name,
}

impl HashKey {
    /// Takes the cluster's secret of 16 octets. It is never changed while sessions live.
    #[must_use]
    pub const fn new(octets: [u8; 16]) -> Self {
        let [a, b, c, d, e, f, g, h, rest @ ..] = octets;
        Self { k0: u64::from_le_bytes([a, b, c, d, e, f, g, h]), k1: u64::from_le_bytes(rest) }
    }

    /// SipHash's state v0 to v3 before the first word, for the BPF program: with what the first round does to v0 and v1
    /// before the word reaches them, so that the key alone decides it.
    #[must_use]
    pub const fn start(&self) -> [u64; 4] {
        let State { v0, v1, v2, v3 } = State::new(self);
        let v0 = v0.wrapping_add(v1);
        [v0.rotate_left(32), v1.rotate_left(13) ^ v0, v2, v3]
    }

    /// The work set of an IKE_SA_INIT request from `source` with that initiator SPI, in which our SPI must be drawn.
    #[must_use]
    pub fn home_of_new_ike(&self, spi_i: u64, source: IpAddr) -> WorkSet {
        match source {
            IpAddr::V4(v4) => self.set(&[spi_i], Some(Tail::four(v4.to_bits())), Domain::NewIke),
            IpAddr::V6(v6) => {
                let [high, low] = halves(v6.to_bits());
                self.set(&[spi_i, high, low], None, Domain::NewIke)
            }
        }
    }

    /// The work set of an IKEv1 conversation, by the initiator's cookie.
    #[must_use]
    pub fn home_of_ikev1(&self, cookie_i: u64) -> WorkSet {
        self.set(&[cookie_i], None, Domain::IkeV1Cookie)
    }

    /// The work set of what `source` sends from `port` to a service of the cluster.
    #[must_use]
    pub fn home_of_source(&self, source: Ipv4Addr, port: u16) -> WorkSet {
        self.set(&[], Some(Tail::six(source.to_bits(), port)), Domain::Source)
    }

    /// The work set of what two addresses send each other; the same for both directions.
    #[must_use]
    pub fn home_of_pair(&self, a: Ipv4Addr, b: Ipv4Addr) -> WorkSet {
        let (low, high) = (a.min(b), a.max(b));
        self.set(&[(u64::from(low.to_bits()) << 32) | u64::from(high.to_bits())], None, Domain::Pair)
    }

    /// The work set that a name stands for, such as the pool's whose owner gives out its addresses.
    #[must_use]
    pub fn home_of_name(&self, name: &str) -> WorkSet {
        let mut words = Vec::with_capacity(name.len().div_ceil(8).saturating_add(1));
        for chunk in name.as_bytes().chunks(8) {
            let mut word = [0; 8];
            word.iter_mut().zip(chunk).for_each(|(to, from)| *to = *from);
            words.push(u64::from_le_bytes(word));
        }
        words.push(u64::try_from(name.len()).unwrap_or(u64::MAX));
        self.set(&words, None, Domain::Name)
    }

    fn set(&self, words: &[u64], tail: Option<Tail>, domain: Domain) -> WorkSet {
        WorkSet::from_low_bits(self.siphash(words, tail, domain))
    }

    /// The SipHash paper's SipHash-1-3 of `words ‖ tail ‖ domain`.
    fn siphash(&self, words: &[u64], tail: Option<Tail>, domain: Domain) -> u64 {
        let mut h = State::new(self);
        let tail = tail.unwrap_or(Tail { value: 0, octets: 0 });
        let mut length = u64::from(tail.octets).wrapping_add(1);
        for word in words {
            h.compress(*word);
            length = length.wrapping_add(8);
        }
        h.compress((length << 56) | (domain.octet() << (u32::from(tail.octets) * 8)) | tail.value);
        h.v2 ^= 0xff;
        h.round();
        h.round();
        h.round();
        h.v0 ^ h.v1 ^ h.v2 ^ h.v3
    }
}

/// What is hashed after the last whole word: six octets at most.
#[derive(Clone, Copy)]
struct Tail {
    value: u64,
    octets: u8,
}

impl Tail {
    fn four(value: u32) -> Self {
        Self { value: value.into(), octets: 4 }
    }

    fn six(high: u32, low: u16) -> Self {
        Self { value: (u64::from(high) << 16) | u64::from(low), octets: 6 }
    }
}

impl Domain {
    const fn octet(self) -> u64 {
        match self {
            Self::NewIke => 1,
            Self::IkeV1Cookie => 2,
            Self::Source => 3,
            Self::Pair => 4,
            Self::Name => 5,
        }
    }
}

struct State {
    v0: u64,
    v1: u64,
    v2: u64,
    v3: u64,
}

impl State {
    const fn new(key: &HashKey) -> Self {
        Self {
            v0: key.k0 ^ 0x736f_6d65_7073_6575,
            v1: key.k1 ^ 0x646f_7261_6e64_6f6d,
            v2: key.k0 ^ 0x6c79_6765_6e65_7261,
            v3: key.k1 ^ 0x7465_6462_7974_6573,
        }
    }

    const fn compress(&mut self, word: u64) {
        self.v3 ^= word;
        self.round();
        self.v0 ^= word;
    }

    const fn round(&mut self) {
        self.v0 = self.v0.wrapping_add(self.v1);
        self.v1 = self.v1.rotate_left(13) ^ self.v0;
        self.v0 = self.v0.rotate_left(32);
        self.v2 = self.v2.wrapping_add(self.v3);
        self.v3 = self.v3.rotate_left(16) ^ self.v2;
        self.v0 = self.v0.wrapping_add(self.v3);
        self.v3 = self.v3.rotate_left(21) ^ self.v0;
        self.v2 = self.v2.wrapping_add(self.v1);
        self.v1 = self.v1.rotate_left(17) ^ self.v2;
        self.v2 = self.v2.rotate_left(32);
    }
}

fn halves(value: u128) -> [u64; 2] {
    let [a, b, c, d, e, f, g, h, rest @ ..] = value.to_be_bytes();
    [u64::from_be_bytes([a, b, c, d, e, f, g, h]), u64::from_be_bytes(rest)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;
    use std::hash::Hasher;

    /// The standard library's hasher is SipHash-1-3 with a key of zeros.
    #[test]
    fn the_hash_is_siphash_1_3() {
        let key = HashKey::new([0; 16]);
        let tails = [None, Some(Tail::four(0x89ab_cdef)), Some(Tail::six(0x0123_4567, 0x89ab))];
        for words in [&[][..], &[0x0123_4567_89ab_cdef], &[1, u64::MAX], &[7, 8, 9]] {
            for tail in tails {
                let mut oracle = std::hash::DefaultHasher::new();
                words.iter().for_each(|word| oracle.write(&word.to_le_bytes()));
                if let Some(Tail { value, octets }) = tail {
                    oracle.write(&value.to_le_bytes()[..octets.into()]);
                }
                oracle.write(&[4]);
                assert_eq!(key.siphash(words, tail, Domain::Pair), oracle.finish(), "{words:x?}");
            }
        }
    }

    #[test]
    fn the_key_decides() {
        let source = Ipv4Addr::new(192, 0, 2, 1);
        let homes: HashMap<_, _> =
            (0..64).map(|n| (HashKey::new([n; 16]).home_of_new_ike(1, source.into()), n)).collect();
        assert!(homes.len() > 50, "{}", homes.len());
    }

    #[test]
    fn both_directions_of_a_pair_meet() {
        let key = HashKey::new(*b"0123456789abcdef");
        let (a, b) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(172, 16, 0, 9));
        assert_eq!(key.home_of_pair(a, b), key.home_of_pair(b, a));
    }

    #[test]
    fn names_that_differ_by_a_zero_octet_are_two_names() {
        let key = HashKey::new(*b"0123456789abcdef");
        assert_ne!(key.home_of_name("pool"), key.home_of_name("pool\0"));
        assert_ne!(key.home_of_name("pool-one"), key.home_of_name("pool-two"));
    }

    #[test]
    fn ports_of_one_address_spread_evenly() {
        let key = HashKey::new(*b"0123456789abcdef");
        let mut load = vec![0_u32; WorkSet::COUNT];
        for port in 0..=u16::MAX {
            load[usize::from(key.home_of_source(Ipv4Addr::new(192, 0, 2, 7), port).index())] += 1;
        }
        // 64 each on average; Poisson gives 8 as its deviation.
        assert!(load.iter().all(|n| (24..=112).contains(n)), "{load:?}");
    }
}
