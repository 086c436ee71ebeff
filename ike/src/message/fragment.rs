//! The Encrypted Fragment payload (RFC 7383 §2.5) and the putting together of fragments.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use wire::{Cause, DecodeError, Reader, Writer};
use zeroize::Zeroizing;

use crate::message::header::Header;

/// Fragments of one message at the most. Our bound: 64 fragments carry more than any chain of certificates.
pub(crate) const FRAGMENTS_MAX: u16 = 64;
/// Octets of one message put together at the most. Our bound.
pub(crate) const REASSEMBLED_LEN_MAX: usize = 65_535;
/// Octets of all unfinished messages of all SAs at the most, most of whose peers may be unknown yet. Our bound: 5,000 long
/// chains of certificates at a time.
pub(crate) const REASSEMBLING_LEN_MAX: usize = 32 << 20;

/// Where a fragment belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FragmentHeader {
    /// Fragment Number, from 1.
    pub(crate) number: u16,
    /// Total Fragments.
    pub(crate) total: u16,
}

impl FragmentHeader {
    /// Reads the two fields and leaves `r` at the IV.
    ///
    /// # Errors
    /// A number is 0, above the total, or above our bound.
    pub(crate) fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let header = Self { number: r.u16("Fragment Number")?, total: r.u16("Total Fragments")? };
        if header.number == 0 || header.number > header.total || header.total > FRAGMENTS_MAX {
            return Err(r.error("Fragment Number", Cause::Range));
        }
        Ok(header)
    }

    pub(crate) fn encode(self, w: &mut Writer) {
        w.u16(self.number);
        w.u16(self.total);
    }
}

/// Fragments of one message that came so far, each with its integrity proven.
#[derive(Debug)]
pub(crate) struct Reassembly {
    /// The message that they belong to.
    message_id: u32,
    response: bool,
    /// Type of the first payload, from fragment 1.
    first_payload: u8,
    parts: Vec<Option<Zeroizing<Vec<u8>>>>,
    octets: usize,
    /// Octets of all reassemblies.
    all: Arc<AtomicUsize>,
}

/// What came of a further fragment.
#[derive(Debug)]
pub(crate) enum Reassembled {
    /// Others are missing.
    Waiting,
    /// All are there: the type of the first payload and the payloads.
    Complete(u8, Zeroizing<Vec<u8>>),
    /// It exceeds a bound.
    Refused,
}

impl Reassembly {
    /// Starts with nothing. `all` counts what this and all others keep.
    pub(crate) fn new(header: &Header, total: u16, all: &Arc<AtomicUsize>) -> Self {
        Self {
            message_id: header.message_id,
            response: header.is_response(),
            first_payload: 0,
            parts: vec![None; usize::from(total.min(FRAGMENTS_MAX))],
            octets: 0,
            all: Arc::clone(all),
        }
    }

    /// Whether these are fragments of that message.
    pub(crate) const fn is_of(&self, message_id: u32, response: bool) -> bool {
        self.message_id == message_id && self.response == response
    }

    /// How many fragments the message has.
    pub(crate) fn total(&self) -> usize {
        self.parts.len()
    }

    /// Takes a fragment. One that is there already changes nothing.
    pub(crate) fn add(&mut self, header: FragmentHeader, next_payload: u8, plain: Zeroizing<Vec<u8>>) -> Reassembled {
        let octets = self.octets.saturating_add(plain.len());
        let Some(part) = self.parts.get_mut(usize::from(header.number).saturating_sub(1)) else {
            return Reassembled::Refused;
        };
        if part.is_none() {
            let all = self.all.load(Relaxed).saturating_add(plain.len());
            if octets > REASSEMBLED_LEN_MAX || all > REASSEMBLING_LEN_MAX {
                return Reassembled::Refused;
            }
            self.octets = octets;
            self.all.store(all, Relaxed);
            *part = Some(plain);
            if header.number == 1 {
                self.first_payload = next_payload;
            }
        }
        if self.parts.iter().any(Option::is_none) {
            return Reassembled::Waiting;
        }
        let mut whole = Zeroizing::new(Vec::with_capacity(self.octets));
        self.parts.iter().flatten().for_each(|part| whole.extend_from_slice(part));
        Reassembled::Complete(self.first_payload, whole)
    }
}

impl Drop for Reassembly {
    fn drop(&mut self) {
        self.all.fetch_sub(self.octets, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reassembly(total: u16) -> Reassembly {
        reassembly_of(total, &Arc::default())
    }

    fn reassembly_of(total: u16, all: &Arc<AtomicUsize>) -> Reassembly {
        let bytes = [1; 28];
        let mut header = Header::decode(&mut Reader::new(&[&bytes[..24], &[0, 0, 0, 28]].concat())).unwrap();
        header.message_id = 1;
        Reassembly::new(&header, total, all)
    }

    fn part(number: u16, total: u16) -> FragmentHeader {
        FragmentHeader { number, total }
    }

    fn octets(len: usize) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(vec![1; len])
    }

    #[test]
    fn a_header_round_trips_and_numbers_out_of_range_are_refused() {
        let mut w = Writer::new();
        part(2, 3).encode(&mut w);
        assert_eq!(w.as_slice(), [0, 2, 0, 3]);
        assert_eq!(FragmentHeader::decode(&mut Reader::new(w.as_slice())), Ok(part(2, 3)));
        for bad in [[0, 0, 0, 1], [0, 2, 0, 1], [0, 1, 0, 65], [0, 0, 0, 0]] {
            assert!(FragmentHeader::decode(&mut Reader::new(&bad)).is_err(), "{bad:?}");
        }
        for len in 0..4 {
            assert!(FragmentHeader::decode(&mut Reader::new(&w.as_slice()[..len])).is_err());
        }
    }

    #[test]
    fn fragments_in_any_order_make_the_message_and_doubles_change_nothing() {
        let mut r = reassembly(3);
        assert!(matches!(r.add(part(3, 3), 0, Zeroizing::new(vec![3])), Reassembled::Waiting));
        assert!(matches!(r.add(part(1, 3), 35, Zeroizing::new(vec![1])), Reassembled::Waiting));
        assert!(matches!(r.add(part(1, 3), 36, Zeroizing::new(vec![9])), Reassembled::Waiting));
        match r.add(part(2, 3), 0, Zeroizing::new(vec![2])) {
            Reassembled::Complete(first, whole) => assert_eq!((first, &**whole), (35, &[1, 2, 3][..])),
            other @ (Reassembled::Waiting | Reassembled::Refused) => panic!("{other:?}"),
        }
    }

    #[test]
    fn no_more_than_the_bounds_are_kept() {
        let mut r = reassembly(FRAGMENTS_MAX);
        assert!(matches!(r.add(part(1, 64), 35, octets(REASSEMBLED_LEN_MAX)), Reassembled::Waiting));
        assert!(matches!(r.add(part(2, 64), 0, octets(1)), Reassembled::Refused));
        assert!(matches!(r.add(part(65, 65), 0, octets(0)), Reassembled::Refused));
    }

    #[test]
    fn all_reassemblies_together_are_bounded_and_give_back_what_they_kept() {
        let all = Arc::default();
        let mut kept = Vec::new();
        for _ in 0..REASSEMBLING_LEN_MAX / REASSEMBLED_LEN_MAX {
            let mut r = reassembly_of(2, &all);
            assert!(matches!(r.add(part(1, 2), 35, octets(REASSEMBLED_LEN_MAX)), Reassembled::Waiting));
            kept.push(r);
        }
        let mut late = reassembly_of(2, &all);
        assert!(matches!(late.add(part(1, 2), 35, octets(REASSEMBLED_LEN_MAX)), Reassembled::Refused));
        kept.pop();
        assert!(matches!(late.add(part(1, 2), 35, octets(REASSEMBLED_LEN_MAX)), Reassembled::Waiting));
        kept.clear();
        drop(late);
        assert_eq!(all.load(Relaxed), 0);
    }
}
