//! The 32 characters of the text, which are also the elements of GF(32).

use std::ops::{Add, Mul};

use zeroize::DefaultIsZeroes;

/// One character of a code or a line: five bits, and an element of GF(32) with x^5 + x^2 + 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Symbol(u8);

impl Symbol {
    /// The element 0, written `0`.
    pub const ZERO: Self = Self(0);
    /// The element 1.
    pub(crate) const ONE: Self = Self(1);
    /// The element x, a generator of the multiplicative group.
    pub(crate) const ALPHA: Self = Self(2);

    /// Makes a symbol from the five low bits of `value`; the others are dropped.
    #[must_use]
    pub const fn from_low_bits(value: u8) -> Self {
        Self(value & 31)
    }

    /// Reads a character as a person may write it: any case, I and L for 1, O for 0, U for V.
    #[must_use]
    pub fn from_char(character: char) -> Option<Self> {
        let canonical = match character.to_ascii_uppercase() {
            'I' | 'L' => b'1',
            'O' => b'0',
            'U' => b'V',
            other => u8::try_from(other).ok()?,
        };
        // The alphabet is in the order of ASCII.
        let place = ALPHABET.binary_search(&canonical).ok()?;
        u8::try_from(place).ok().map(Self)
    }

    /// The canonical character, a digit or a capital.
    #[must_use]
    pub fn to_char(self) -> char {
        ALPHABET.get(usize::from(self.0)).map_or('?', |&c| char::from(c))
    }

    /// The five bits.
    #[must_use]
    pub const fn value(self) -> u8 {
        self.0
    }

    /// Raises to a power; 0^0 is 1.
    pub(crate) fn power(self, exponent: u8) -> Self {
        (0..exponent).fold(Self::ONE, |product, _| product * self)
    }

    /// The multiplicative inverse, or 0 for 0.
    pub(crate) fn inverse(self) -> Self {
        // The group has 31 elements, so a^30 = 1/a.
        let a2 = self * self;
        let a6 = a2 * a2 * a2;
        a6 * a6 * a6 * a6 * a6
    }
}

/// A code's symbols are a secret.
impl DefaultIsZeroes for Symbol {}

/// The field's addition is exclusive or.
impl Add for Symbol {
    type Output = Self;

    #[expect(clippy::suspicious_arithmetic_impl, reason = "addition in a field of characteristic 2 is exclusive or")]
    fn add(self, other: Self) -> Self {
        Self(self.0 ^ other.0)
    }
}

impl Mul for Symbol {
    type Output = Self;

    fn mul(self, other: Self) -> Self {
        let wide = u16::from(self.0);
        let product =
            (0..5).fold(0, |product, bit| if other.0 >> bit & 1 == 1 { product ^ (wide << bit) } else { product });
        // x^5 = x^2 + 1; a product has nine bits, so that two folds leave five.
        let folded = (product & 31) ^ (product >> 5) ^ (product >> 5 << 2);
        let folded = (folded & 31) ^ (folded >> 5) ^ (folded >> 5 << 2);
        Self(folded.to_le_bytes()[0])
    }
}

/// Crockford's base 32.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_character_comes_back_and_the_confusable_ones_are_read() {
        for value in 0..32 {
            let symbol = Symbol::from_low_bits(value);
            assert_eq!(Symbol::from_char(symbol.to_char()), Some(symbol));
            assert_eq!(Symbol::from_char(symbol.to_char().to_ascii_lowercase()), Some(symbol));
        }
        for (written, meant) in [('O', '0'), ('o', '0'), ('I', '1'), ('l', '1'), ('u', 'V')] {
            assert_eq!(Symbol::from_char(written).unwrap().to_char(), meant);
        }
        assert_eq!(Symbol::from_char('-'), None);
        assert_eq!(Symbol::from_char('é'), None);
    }

    #[test]
    fn alpha_generates_the_field_and_inverses_are_inverse() {
        let powers: std::collections::BTreeSet<_> = (0..31).map(|e| Symbol::ALPHA.power(e)).collect();
        assert_eq!(powers.len(), 31);
        for symbol in powers {
            assert_eq!(symbol * symbol.inverse(), Symbol::ONE);
        }
    }
}
