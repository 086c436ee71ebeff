//! Bit strings, most significant bit first, in and out of symbols.

use crate::refusal::Refusal;
use crate::symbol::Symbol;

/// Bits being written; the last octet is filled with zeros.
#[derive(Clone, Debug, Default)]
pub(crate) struct BitString {
    octets: Vec<u8>,
    len: usize,
}

impl BitString {
    /// Appends the low `width` bits of `value`, at most 64.
    pub(crate) fn push(&mut self, value: u64, width: u32) {
        for bit in (0..width.min(64)).rev() {
            if self.len.is_multiple_of(8) {
                self.octets.push(0);
            }
            if value >> bit & 1 == 1
                && let Some(last) = self.octets.last_mut()
            {
                *last |= 0x80 >> (self.len % 8);
            }
            self.len = self.len.saturating_add(1);
        }
    }

    /// Appends whole octets.
    pub(crate) fn push_octets(&mut self, octets: &[u8]) {
        for &octet in octets {
            self.push(u64::from(octet), 8);
        }
    }

    /// All bits, filled up to whole octets with zeros.
    pub(crate) fn octets(&self) -> &[u8] {
        &self.octets
    }

    /// All bits, filled up to whole symbols with zeros.
    pub(crate) fn symbols(&self) -> Vec<Symbol> {
        let mut reader = BitReader { octets: &self.octets, len: self.octets.len().saturating_mul(8), position: 0 };
        let count = self.len.div_ceil(5);
        (0..count).map(|_| Symbol::from_low_bits(reader.next_bits(5).to_le_bytes()[0])).collect()
    }

    fn from_symbols(symbols: &[Symbol]) -> Self {
        let mut bits = Self::default();
        for symbol in symbols {
            bits.push(u64::from(symbol.value()), 5);
        }
        bits
    }
}

/// The bits of a message's symbols.
#[derive(Clone, Debug)]
pub(crate) struct MessageBits {
    bits: BitString,
}

impl MessageBits {
    /// Takes whole lines' data symbols.
    pub(crate) fn new(symbols: &[Symbol]) -> Self {
        Self { bits: BitString::from_symbols(symbols) }
    }

    /// Starts reading at the first bit.
    pub(crate) fn reader(&self) -> BitReader<'_> {
        BitReader { octets: &self.bits.octets, len: self.bits.len, position: 0 }
    }
}

/// A cursor over received bits; every read is checked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BitReader<'a> {
    octets: &'a [u8],
    len: usize,
    position: usize,
}

impl BitReader<'_> {
    /// Reads `width` bits, at most 64.
    ///
    /// # Errors
    /// Fewer bits are left.
    pub(crate) fn take(&mut self, width: u32) -> Result<u64, Refusal> {
        let wide = usize::try_from(width).map_err(|_| Refusal::Short)?;
        if self.len.saturating_sub(self.position) < wide {
            return Err(Refusal::Short);
        }
        Ok(self.next_bits(width))
    }

    /// Reads one octet's worth or less.
    ///
    /// # Errors
    /// Fewer bits are left.
    pub(crate) fn take_u8(&mut self, width: u32) -> Result<u8, Refusal> {
        let value = self.take(width.min(8))?;
        Ok(value.to_le_bytes()[0])
    }

    /// Reads `N` octets.
    ///
    /// # Errors
    /// Fewer bits are left.
    pub(crate) fn take_octets<const N: usize>(&mut self) -> Result<[u8; N], Refusal> {
        let mut octets = [0; N];
        for octet in &mut octets {
            *octet = self.take_u8(8)?;
        }
        Ok(octets)
    }

    /// The bits read so far, filled up to whole octets with zeros.
    pub(crate) fn so_far(&self) -> Vec<u8> {
        let mut copy = Self { position: 0, ..*self };
        let mut bits = BitString::default();
        for _ in 0..self.position {
            bits.push(copy.next_bits(1), 1);
        }
        bits.octets
    }

    /// Checks that what is left is the zero padding of the last line and nothing more.
    ///
    /// # Errors
    /// A padding bit is set, a whole line is left over, or the last line is not whole: there would be a second text of
    /// one message.
    pub(crate) fn finish(mut self) -> Result<(), Refusal> {
        if !self.len.is_multiple_of(LINE_BITS) {
            return Err(Refusal::Short);
        }
        let left = self.len.saturating_sub(self.position);
        if left >= LINE_BITS {
            return Err(Refusal::Long);
        }
        let padding = (0..left).fold(0, |any, _| any | self.next_bits(1));
        if padding == 0 { Ok(()) } else { Err(Refusal::Padding) }
    }

    /// Reads bits that the caller knows to be there; beyond the end there are zeros.
    fn next_bits(&mut self, width: u32) -> u64 {
        let mut value = 0;
        for _ in 0..width {
            let octet = self.octets.get(self.position / 8).copied().unwrap_or(0);
            value = value << 1 | u64::from(octet >> (7 - self.position % 8) & 1);
            self.position = self.position.saturating_add(1);
        }
        value
    }
}

/// Data bits of a line.
const LINE_BITS: usize = 125;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_back_whatever_their_width() {
        let mut bits = BitString::default();
        bits.push(0b101, 3);
        bits.push(0x1ff_ffff, 25);
        bits.push_octets(&[0xab, 0xcd]);
        let mut symbols = bits.symbols();
        symbols.resize(25, Symbol::ZERO);
        let message = MessageBits::new(&symbols);
        let mut reader = message.reader();
        assert_eq!(reader.take(3), Ok(0b101));
        assert_eq!(reader.take(25), Ok(0x1ff_ffff));
        assert_eq!(reader.take_octets(), Ok([0xab, 0xcd]));
        assert_eq!(reader.so_far(), bits.octets());
        assert_eq!(reader.finish(), Ok(()));
    }

    #[test]
    fn a_set_padding_bit_and_a_line_too_many_are_refused() {
        let mut symbols = vec![Symbol::ZERO; 25];
        symbols[24] = Symbol::from_low_bits(1);
        let message = MessageBits::new(&symbols);
        let mut reader = message.reader();
        reader.take(64).unwrap();
        assert_eq!(reader.finish(), Err(Refusal::Padding));
        let message = MessageBits::new(&[Symbol::ZERO; 25]);
        assert_eq!(message.reader().finish(), Err(Refusal::Long));
        let piece = MessageBits::new(&[Symbol::ZERO; 26]);
        assert_eq!(piece.reader().finish(), Err(Refusal::Short), "a piece of a line");
        let mut reader = message.reader();
        reader.take(64).unwrap();
        assert_eq!(reader.take(62), Err(Refusal::Short));
    }
}
