//! Key material.

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// Octets that nobody may log: zeroed when dropped, compared in constant time, without a readable `Debug`.
#[derive(Clone, Default)]
pub struct Secret {
    bytes: Zeroizing<Box<[u8]>>,
}

impl Secret {
    /// Takes over `bytes`. Spare capacity is zeroed and released first, so hand in a buffer that did not grow.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        if bytes.len() == bytes.capacity() {
            return Self { bytes: Zeroizing::new(bytes.into_boxed_slice()) };
        }
        let bytes = Zeroizing::new(bytes);
        Self::from_slice(&bytes)
    }

    /// Copies `bytes`; the caller zeroes its own copy.
    #[must_use]
    pub fn from_slice(bytes: &[u8]) -> Self {
        Self { bytes: Zeroizing::new(bytes.into()) }
    }

    /// The octets, for the function that needs them.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.bytes
    }

    /// How many octets.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.bytes.ct_eq(&other.bytes).into()
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({} octets)", self.bytes.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_the_length_only() {
        assert_eq!(format!("{:?}", Secret::from_slice(b"swordfish")), "Secret(9 octets)");
    }

    #[test]
    fn equality_looks_at_content_and_length() {
        assert_eq!(Secret::from_slice(b"ab"), Secret::new(b"ab".to_vec()));
        assert_ne!(Secret::from_slice(b"ab"), Secret::from_slice(b"abc"));
    }
}
