//! Writing bytes for somebody else.

/// Appends fields in network byte order to a buffer that it owns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// Starts with an empty buffer.
    #[must_use]
    #[inline]
    pub const fn new() -> Self {
        Self { bytes: Vec::new() }
    }

    /// Starts with room for `capacity` octets.
    #[must_use]
    #[inline]
    pub fn with_capacity(capacity: usize) -> Self {
        Self { bytes: Vec::with_capacity(capacity) }
    }

    /// Starts empty in the room of `bytes`, so that a sender need not allocate for each datagram.
    #[must_use]
    #[inline]
    pub fn reuse(mut bytes: Vec<u8>) -> Self {
        bytes.clear();
        Self { bytes }
    }

    /// Appends one octet.
    #[inline]
    pub fn u8(&mut self, value: u8) {
        self.bytes.push(value);
    }

    /// Appends two octets.
    #[inline]
    pub fn u16(&mut self, value: u16) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    /// Appends four octets.
    #[inline]
    pub fn u32(&mut self, value: u32) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    /// Appends eight octets.
    #[inline]
    pub fn u64(&mut self, value: u64) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    /// Appends sixteen octets.
    #[inline]
    pub fn u128(&mut self, value: u128) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    /// Appends octets as they are.
    #[inline]
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Octets written so far.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing was written yet.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Appends what `body` writes behind its own length in two octets, the length field counted in.
    ///
    /// # Panics
    /// `body` wrote more than 65,533 octets: our own bug, since callers bound what they encode.
    pub fn prefixed_u16_inclusive(&mut self, body: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.u16(0);
        body(self);
        self.patch_u16(start, self.bytes.len().saturating_sub(start));
    }

    /// Appends what `body` writes behind its own length in two octets, the length field not counted.
    ///
    /// # Panics
    /// `body` wrote more than 65,535 octets: our own bug, since callers bound what they encode.
    pub fn prefixed_u16(&mut self, body: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.u16(0);
        body(self);
        self.patch_u16(start, self.bytes.len().saturating_sub(start).saturating_sub(2));
    }

    /// Overwrites the two octets at `offset` with `value`.
    ///
    /// # Panics
    /// `offset + 2` lies beyond what was written, or `value` above 65,535: our own bug.
    pub fn patch_u16(&mut self, offset: usize, value: usize) {
        let value = u16::try_from(value);
        let field = self.bytes.get_mut(offset..offset.saturating_add(2));
        match (field, value) {
            (Some(field), Ok(value)) => field.copy_from_slice(&value.to_be_bytes()),
            _ => panic!("patch of two octets at {offset} does not fit"),
        }
    }

    /// Overwrites the four octets at `offset` with `value`.
    ///
    /// # Panics
    /// `offset + 4` lies beyond what was written: our own bug.
    pub fn patch_u32(&mut self, offset: usize, value: u32) {
        match self.bytes.get_mut(offset..offset.saturating_add(4)) {
            Some(field) => field.copy_from_slice(&value.to_be_bytes()),
            None => panic!("patch of four octets at {offset} does not fit"),
        }
    }

    /// What was written so far.
    #[must_use]
    #[inline]
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes
    }

    /// Hands over the buffer.
    #[must_use]
    #[inline]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_length_prefixes_count_what_they_say() {
        let mut w = Writer::new();
        w.prefixed_u16_inclusive(|w| w.u32(7));
        w.prefixed_u16(|w| w.u32(7));
        assert_eq!(w.into_bytes(), [0, 6, 0, 0, 0, 7, 0, 4, 0, 0, 0, 7]);
    }
}
