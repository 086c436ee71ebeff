//! The Internet checksum (RFC 1071), fast enough to be taken over every octet that passes.

use std::net::Ipv4Addr;

/// A sum of 16-bit words, not yet folded; sums of parts of even length add up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sum(u64);

impl Sum {
    /// Adds `bytes`, which stand at an even place of what is summed.
    #[inline]
    pub(super) fn add(self, bytes: &[u8]) -> Self {
        Self(self.0 + sum(bytes))
    }

    /// Adds the pseudo-header of TCP and UDP over IPv4 (RFC 9293 §3.1).
    #[inline]
    pub(super) fn add_pseudo(self, source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, len: u16) -> Self {
        let [high, low] = len.to_be_bytes();
        self.add(&source.octets()).add(&destination.octets()).add(&[0, protocol, high, low])
    }

    /// The folded sum as it stands in a packet, not complemented: what an offload header wants to find there.
    #[inline]
    pub(super) fn partial(self) -> [u8; 2] {
        let mut sum = self.0;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        // RFC 1071 §2 (B): the sum is the same in either byte order, so it was taken in the machine's.
        u16::try_from(sum).unwrap_or(0).to_ne_bytes()
    }

    /// The checksum as it stands in a packet.
    #[inline]
    pub(super) fn checksum(self) -> [u8; 2] {
        self.partial().map(|octet| !octet)
    }

    /// Whether the summed octets, their checksum among them, are undamaged.
    #[inline]
    pub(super) fn verifies(self) -> bool {
        self.partial() == [0xff, 0xff]
    }
}

fn sum(bytes: &[u8]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    if bytes.len() >= 128 && std::arch::is_x86_feature_detected!("avx2") {
        return wide(bytes);
    }
    sum_portable(bytes)
}

#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "calls a function that is compiled for AVX2")]
fn wide(bytes: &[u8]) -> u64 {
    #[target_feature(enable = "avx2")]
    fn sum_avx2(bytes: &[u8]) -> u64 {
        sum_portable(bytes)
    }
    // SAFETY: the caller has found that the processor has AVX2.
    unsafe { sum_avx2(bytes) }
}

/// Written so that the compiler makes vectors of it.
#[inline(always)]
fn sum_portable(bytes: &[u8]) -> u64 {
    let mut lanes = [0_u64; 16];
    let (chunks, rest) = bytes.as_chunks::<64>();
    for chunk in chunks {
        let (words, _) = chunk.as_chunks::<4>();
        for (lane, word) in lanes.iter_mut().zip(words) {
            *lane += u64::from(u32::from_ne_bytes(*word));
        }
    }
    let (words, rest) = rest.as_chunks::<4>();
    let mut total = lanes.iter().sum::<u64>();
    for word in words {
        total += u64::from(u32::from_ne_bytes(*word));
    }
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    total + u64::from(u32::from_ne_bytes(last))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn naive(bytes: &[u8]) -> u16 {
        let mut sum = 0_u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !u16::try_from(sum).unwrap()
    }

    #[test]
    fn the_sum_agrees_with_the_definition_at_every_length() {
        let bytes: Vec<u8> = (0..1500_u32).map(|i| ((i * 7919) >> 3) as u8 | 0x80).collect();
        for len in 0..bytes.len() {
            assert_eq!(u16::from_be_bytes(Sum::default().add(&bytes[..len]).checksum()), naive(&bytes[..len]), "{len}");
        }
        let halves = Sum::default().add(&bytes[..500]).add(&bytes[500..]);
        assert_eq!(halves.checksum(), Sum::default().add(&bytes).checksum());
    }

    #[test]
    fn a_header_with_its_checksum_verifies() {
        // RFC 1071 §3: the example's octets.
        let words = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        let sum = Sum::default().add(&words);
        assert_eq!(sum.partial(), [0xdd, 0xf2]);
        assert!(sum.add(&sum.checksum()).verifies());
    }
}
