//! Reading bytes that somebody else wrote.

/// What was wrong with bytes, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} at octet {offset}: {cause}")]
pub struct DecodeError {
    /// The field's name, as the format's document spells it.
    pub field: &'static str,
    /// Octets from the start of the outermost buffer to where the field begins.
    pub offset: usize,
    /// Why the field was refused.
    pub cause: Cause,
}

/// Why a field was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    /// The bytes end before the field does.
    #[error("the bytes end early")]
    Short,
    /// The value lies outside what the format allows.
    #[error("the value is out of range")]
    Range,
    /// Something stands twice, in the wrong place, or contradicts another field.
    #[error("it contradicts what stands elsewhere")]
    Conflict,
    /// A reader that must understand this does not.
    #[error("it is of an unknown kind that must be understood")]
    Unknown,
    /// Bytes are left where the format has none.
    #[error("bytes are left over")]
    Trailing,
    /// Something that must be there is not.
    #[error("it is missing")]
    Missing,
}

/// A cursor over received bytes; every read is checked, none can panic.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
    offset: usize,
}

impl<'a> Reader<'a> {
    /// Starts at the first octet of `bytes`.
    #[must_use]
    #[inline]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, offset: 0 }
    }

    /// Octets from the start of the outermost buffer.
    #[must_use]
    #[inline]
    pub const fn offset(&self) -> usize {
        self.offset
    }

    /// Octets not yet read.
    #[must_use]
    #[inline]
    pub const fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Whether all octets were read.
    #[must_use]
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Makes an error that points at the current octet.
    #[must_use]
    #[inline]
    pub const fn error(&self, field: &'static str, cause: Cause) -> DecodeError {
        DecodeError { field, offset: self.offset, cause }
    }

    /// Reads `len` octets.
    ///
    /// # Errors
    /// Fewer than `len` octets are left.
    #[inline]
    pub fn bytes(&mut self, field: &'static str, len: usize) -> Result<&'a [u8], DecodeError> {
        let Some((head, tail)) = self.rest.split_at_checked(len) else {
            return Err(self.error(field, Cause::Short));
        };
        self.rest = tail;
        self.offset = self.offset.saturating_add(len);
        Ok(head)
    }

    /// Reads all octets that are left.
    #[inline]
    pub fn take_rest(&mut self) -> &'a [u8] {
        let rest = self.rest;
        self.offset = self.offset.saturating_add(rest.len());
        self.rest = &[];
        rest
    }

    /// Reads an array of `N` octets.
    ///
    /// # Errors
    /// Fewer than `N` octets are left.
    #[inline]
    pub fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], DecodeError> {
        let short = self.error(field, Cause::Short);
        self.bytes(field, N)?.try_into().map_err(|_| short)
    }

    /// Splits off a reader over the next `len` octets; offsets stay those of the outermost buffer.
    ///
    /// # Errors
    /// Fewer than `len` octets are left.
    #[inline]
    pub fn sub(&mut self, field: &'static str, len: usize) -> Result<Self, DecodeError> {
        let offset = self.offset;
        Ok(Self { rest: self.bytes(field, len)?, offset })
    }

    /// Reads one octet.
    ///
    /// # Errors
    /// No octet is left.
    #[inline]
    pub fn u8(&mut self, field: &'static str) -> Result<u8, DecodeError> {
        self.array(field).map(u8::from_be_bytes)
    }

    /// Reads two octets, network byte order.
    ///
    /// # Errors
    /// Fewer than two octets are left.
    #[inline]
    pub fn u16(&mut self, field: &'static str) -> Result<u16, DecodeError> {
        self.array(field).map(u16::from_be_bytes)
    }

    /// Reads four octets, network byte order.
    ///
    /// # Errors
    /// Fewer than four octets are left.
    #[inline]
    pub fn u32(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        self.array(field).map(u32::from_be_bytes)
    }

    /// Reads eight octets, network byte order.
    ///
    /// # Errors
    /// Fewer than eight octets are left.
    #[inline]
    pub fn u64(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        self.array(field).map(u64::from_be_bytes)
    }

    /// Reads sixteen octets, network byte order.
    ///
    /// # Errors
    /// Fewer than sixteen octets are left.
    #[inline]
    pub fn u128(&mut self, field: &'static str) -> Result<u128, DecodeError> {
        self.array(field).map(u128::from_be_bytes)
    }

    /// Checks that all octets were read.
    ///
    /// # Errors
    /// Octets are left over.
    #[inline]
    pub const fn finish(&self, field: &'static str) -> Result<(), DecodeError> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.error(field, Cause::Trailing)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_read_names_field_and_place_and_consumes_nothing() {
        let mut r = Reader::new(&[1, 2, 3]);
        assert_eq!(r.u16("a"), Ok(0x0102));
        assert_eq!(r.u32("b"), Err(DecodeError { field: "b", offset: 2, cause: Cause::Short }));
        assert_eq!(r.u8("c"), Ok(3));
        assert_eq!(r.finish("end"), Ok(()));
    }

    #[test]
    fn a_sub_reader_keeps_outer_offsets() {
        let mut r = Reader::new(&[0, 1, 2, 3, 4]);
        r.u8("skip").unwrap();
        let mut inner = r.sub("inner", 2).unwrap();
        inner.u8("x").unwrap();
        assert_eq!(inner.offset(), 2);
        assert_eq!(inner.u16("y").unwrap_err().offset, 2);
        assert_eq!(r.u8("after"), Ok(3));
    }
}
