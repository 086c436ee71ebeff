//! Records: state that crosses from node to node, readable by an older and a newer neighbour.
//!
//! A record is a list of fields, each `tag (2) ‖ length (4) ‖ bytes`, tags rising. A tag that the reader does
//! not know is kept and written out again, so state that passes through an old node loses nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use crate::{Cause, DecodeError, Epoch, Prefix, Reader, Secret, Slot, Spi, Tenure, TrafficSelector, WorkSet, Writer};

/// What happens to a replicated record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The record now reads so.
    Put(Box<[u8]>),
    /// The record is gone.
    Delete,
}

/// State that can be written to bytes and read back; declared with [`record!`](crate::record!).
pub trait Record: Sized {
    /// Appends the record's fields.
    fn encode(&self, w: &mut Writer);

    /// Reads a record that spans all of `r`.
    ///
    /// # Errors
    /// A field is malformed, stands twice, or is missing and has no default.
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError>;

    /// Writes the record alone.
    fn to_bytes(&self) -> Box<[u8]> {
        let mut w = Writer::new();
        self.encode(&mut w);
        w.into_bytes().into_boxed_slice()
    }

    /// Reads the record alone.
    ///
    /// # Errors
    /// As for [`Record::decode`].
    fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        Self::decode(&mut Reader::new(bytes))
    }
}

/// A value that can stand in a record's field.
pub trait Field: Sized {
    /// Appends the value's bytes; `false` leaves the field out.
    fn write(&self, w: &mut Writer) -> bool;

    /// Reads the value from all of `r`.
    ///
    /// # Errors
    /// The bytes are not such a value.
    fn read(name: &'static str, r: &mut Reader<'_>) -> Result<Self, DecodeError>;

    /// What the field is when the writer left it out; `None` if it must be there.
    fn absent() -> Option<Self> {
        None
    }
}

/// Fields that this version does not know, kept in order of their tags.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnknownFields(Vec<(u16, Box<[u8]>)>);

/// The fields of a record by tag, as [`decode_fields`] found them.
pub type RecordFields<'a> = Vec<(u16, Reader<'a>)>;

impl UnknownFields {
    /// Keeps what is left of a record after the known fields were taken.
    #[must_use]
    pub fn keep(fields: RecordFields<'_>) -> Self {
        Self(fields.into_iter().map(|(tag, mut r)| (tag, r.take_rest().into())).collect())
    }

    /// Writes the kept fields out again.
    pub fn encode(&self, w: &mut Writer) {
        for (tag, bytes) in &self.0 {
            encode_field(w, *tag, |w| {
                w.bytes(bytes);
                true
            });
        }
    }
}

/// Declares a record: a struct whose fields carry tags.
///
/// Tags are for ever. A new field is an `Option`, a `Vec` or carries `= default`, so that records of an older neighbour still read.
/// ```
/// wire::record! {
///     /// A session.
///     #[derive(Clone, Debug, PartialEq)]
///     pub struct Session {
///         /// Its SPI.
///         1 => pub spi: wire::Spi,
///         /// Packets sent; 0 from a neighbour that does not say.
///         2 => pub sent: u64 = 0,
///     }
/// }
/// use wire::Record;
/// let session = Session { spi: wire::Spi(0x1234), sent: 7, unknown: Default::default() };
/// assert_eq!(Session::from_bytes(&session.to_bytes()), Ok(session));
/// ```
#[macro_export]
macro_rules! record {
    (
        $(#[$meta:meta])*
        $vis:vis struct $name:ident {
            $( $(#[$field_meta:meta])* $tag:literal => $field_vis:vis $field:ident : $type:ty $(= $default:expr)? ),* $(,)?
        }
    ) => {
        $(#[$meta])*
        $vis struct $name {
            $( $(#[$field_meta])* $field_vis $field: $type, )*
            /// Fields of a newer version, kept and passed on.
            pub unknown: $crate::UnknownFields,
        }

        impl $crate::Record for $name {
            fn encode(&self, w: &mut $crate::Writer) {
                $( $crate::encode_field(w, $tag, |w| $crate::Field::write(&self.$field, w)); )*
                self.unknown.encode(w);
            }

            fn decode(r: &mut $crate::Reader<'_>) -> Result<Self, $crate::DecodeError> {
                let mut fields = $crate::decode_fields(r)?;
                $(
                    let $field: $type = match fields.iter().position(|(tag, _)| *tag == $tag) {
                        Some(place) => {
                            let (_, mut value) = fields.remove(place);
                            let read = $crate::Field::read(stringify!($field), &mut value)?;
                            value.finish(stringify!($field))?;
                            read
                        }
                        None => {
                            let default: Option<$type> = <$type as $crate::Field>::absent();
                            $( let default: Option<$type> = default.or(Some($default)); )?
                            match default {
                                Some(value) => value,
                                None => return Err(r.error(stringify!($field), $crate::Cause::Missing)),
                            }
                        }
                    };
                )*
                Ok(Self { $( $field, )* unknown: $crate::UnknownFields::keep(fields) })
            }
        }

        impl $crate::Field for $name {
            fn write(&self, w: &mut $crate::Writer) -> bool {
                $crate::Record::encode(self, w);
                true
            }

            fn read(_: &'static str, r: &mut $crate::Reader<'_>) -> Result<Self, $crate::DecodeError> {
                $crate::Record::decode(r)
            }
        }
    };
}

/// Appends one field; nothing if `body` says that it is left out.
#[doc(hidden)]
pub fn encode_field(w: &mut Writer, tag: u16, body: impl FnOnce(&mut Writer) -> bool) {
    let mut inner = Writer::new();
    if !body(&mut inner) {
        return;
    }
    w.u16(tag);
    prefix_u32(w, inner.as_slice());
}

/// Finds the fields of a record.
///
/// # Errors
/// A field ends early or tags do not rise.
#[doc(hidden)]
pub fn decode_fields<'a>(r: &mut Reader<'a>) -> Result<RecordFields<'a>, DecodeError> {
    let mut fields: RecordFields<'a> = Vec::new();
    while !r.is_empty() {
        let tag = r.u16("tag")?;
        if fields.last().is_some_and(|(last, _)| *last >= tag) {
            return Err(r.error("tag", Cause::Conflict));
        }
        let len = length(r)?;
        fields.push((tag, r.sub("field", len)?));
    }
    Ok(fields)
}

fn prefix_u32(w: &mut Writer, bytes: &[u8]) {
    // A record is bounded far below 4 GiB by the protocols that fill it.
    w.u32(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
    w.bytes(bytes);
}

fn length(r: &mut Reader<'_>) -> Result<usize, DecodeError> {
    let at = r.error("length", Cause::Range);
    usize::try_from(r.u32("length")?).map_err(|_| at)
}

macro_rules! integers {
    ($($type:ident),*) => { $(
        impl Field for $type {
            fn write(&self, w: &mut Writer) -> bool {
                w.$type(*self);
                true
            }

            fn read(name: &'static str, r: &mut Reader<'_>) -> Result<Self, DecodeError> {
                r.$type(name)
            }
        }
    )* };
}
integers!(u8, u16, u32, u64, u128);

impl Field for bool {
    fn write(&self, w: &mut Writer) -> bool {
        w.u8(u8::from(*self));
        true
    }

    fn read(name: &'static str, r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let range = r.error(name, Cause::Range);
        match r.u8(name)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(range),
        }
    }
}

impl Field for Secret {
    fn write(&self, w: &mut Writer) -> bool {
        w.bytes(self.expose());
        true
    }

    fn read(_: &'static str, r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self::from_slice(r.take_rest()))
    }
}

impl Field for Box<[u8]> {
    fn write(&self, w: &mut Writer) -> bool {
        w.bytes(self);
        true
    }

    fn read(_: &'static str, r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(r.take_rest().into())
    }
}

impl Field for String {
    fn write(&self, w: &mut Writer) -> bool {
        w.bytes(self.as_bytes());
        true
    }

    fn read(name: &'static str, r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let range = r.error(name, Cause::Range);
        std::str::from_utf8(r.take_rest()).map(Self::from).map_err(|_| range)
    }
}

impl<const N: usize> Field for [u8; N] {
    fn write(&self, w: &mut Writer) -> bool {
        w.bytes(self);
        true
    }

    fn read(name: &'static str, r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        r.array(name)
    }
}

impl<T: Field> Field for Option<T> {
    fn write(&self, w: &mut Writer) -> bool {
        self.as_ref().is_some_and(|value| value.write(w))
    }

    fn read(name: &'static str, r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        T::read(name, r).map(Some)
    }

    fn absent() -> Option<Self> {
        Some(None)
    }
}

impl<T: Field> Field for Vec<T> {
    fn write(&self, w: &mut Writer) -> bool {
        for item in self {
            let mut inner = Writer::new();
            item.write(&mut inner);
            prefix_u32(w, inner.as_slice());
        }
        !self.is_empty()
    }

    fn read(name: &'static str, r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut items = Self::new();
        while !r.is_empty() {
            let len = length(r)?;
            let mut item = r.sub(name, len)?;
            items.push(T::read(name, &mut item)?);
            item.finish(name)?;
        }
        Ok(items)
    }

    fn absent() -> Option<Self> {
        Some(Self::new())
    }
}

impl Field for Spi {
    fn write(&self, w: &mut Writer) -> bool {
        self.0.write(w)
    }

    fn read(name: &'static str, r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        r.u32(name).map(Self)
    }
}

impl Field for WorkSet {
    fn write(&self, w: &mut Writer) -> bool {
        self.index().write(w)
    }

    fn read(name: &'static str, r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let range = r.error(name, Cause::Range);
        Self::new(r.u16(name)?).ok_or(range)
    }
}

impl Field for Slot {
    fn write(&self, w: &mut Writer) -> bool {
        self.number().write(w)
    }

    fn read(name: &'static str, r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let range = r.error(name, Cause::Range);
        Self::new(r.u8(name)?).ok_or(range)
    }
}

impl Field for Epoch {
    fn write(&self, w: &mut Writer) -> bool {
        self.count.write(w) && self.master.write(w)
    }

    fn read(name: &'static str, r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { count: r.u32(name)?, master: Slot::read(name, r)? })
    }
}

impl Field for Tenure {
    fn write(&self, w: &mut Writer) -> bool {
        self.epoch.write(w) && self.slot.write(w)
    }

    fn read(name: &'static str, r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { epoch: Epoch::read(name, r)?, slot: Slot::read(name, r)? })
    }
}

/// Travels in whole nanoseconds; a deadline crosses as the time left.
impl Field for Duration {
    fn write(&self, w: &mut Writer) -> bool {
        u64::try_from(self.as_nanos()).unwrap_or(u64::MAX).write(w)
    }

    fn read(name: &'static str, r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        r.u64(name).map(Self::from_nanos)
    }
}

impl Field for IpAddr {
    fn write(&self, w: &mut Writer) -> bool {
        match self {
            Self::V4(a) => w.bytes(&a.octets()),
            Self::V6(a) => w.bytes(&a.octets()),
        }
        true
    }

    fn read(name: &'static str, r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match r.remaining() {
            4 => r.array(name).map(|octets| Self::V4(Ipv4Addr::from_octets(octets))),
            16 => r.array(name).map(|octets| Self::V6(Ipv6Addr::from_octets(octets))),
            _ => Err(r.error(name, Cause::Range)),
        }
    }
}

/// The port stands first. Scope and flow label are node-local and do not travel.
impl Field for SocketAddr {
    fn write(&self, w: &mut Writer) -> bool {
        self.port().write(w) && self.ip().write(w)
    }

    fn read(name: &'static str, r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let port = r.u16(name)?;
        IpAddr::read(name, r).map(|ip| Self::new(ip, port))
    }
}

impl Field for Prefix {
    fn write(&self, w: &mut Writer) -> bool {
        self.len().write(w) && self.address().write(w)
    }

    fn read(name: &'static str, r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let range = r.error(name, Cause::Range);
        let len = r.u8(name)?;
        Self::new(IpAddr::read(name, r)?, len).ok_or(range)
    }
}

impl Field for TrafficSelector {
    fn write(&self, w: &mut Writer) -> bool {
        w.u8(self.protocol);
        w.u16(self.port_first);
        w.u16(self.port_last);
        self.first.write(w) && self.last.write(w)
    }

    fn read(name: &'static str, r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let range = r.error(name, Cause::Range);
        let protocol = r.u8(name)?;
        let (port_first, port_last) = (r.u16(name)?, r.u16(name)?);
        let width = r.remaining() / 2;
        let first = IpAddr::read(name, &mut r.sub(name, width)?)?;
        let last = IpAddr::read(name, r)?;
        if first.is_ipv4() != last.is_ipv4() || first > last || port_first > port_last {
            return Err(range);
        }
        Ok(Self { protocol, port_first, port_last, first, last })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    record! {
        /// As an old node knows it.
        #[derive(Clone, Debug, PartialEq)]
        struct Old {
            1 => spi: Spi,
            3 => peer: Option<SocketAddr>,
        }
    }

    record! {
        /// As a new node knows it.
        #[derive(Clone, Debug, PartialEq)]
        struct New {
            1 => spi: Spi,
            3 => peer: Option<SocketAddr>,
            4 => selectors: Vec<TrafficSelector>,
            5 => limit: u64 = 42,
            6 => inner: Option<Old>,
            7 => left: Duration = Duration::ZERO,
        }
    }

    fn new() -> New {
        New {
            spi: Spi(0x0102_0304),
            peer: Some("192.0.2.1:4500".parse().unwrap()),
            selectors: vec![
                TrafficSelector::from_prefix("10.9.0.0/16".parse().unwrap()),
                TrafficSelector::from_prefix("2001:db8::/32".parse().unwrap()),
            ],
            limit: 7,
            inner: Some(Old { spi: Spi(9), peer: None, unknown: UnknownFields::default() }),
            left: Duration::from_millis(1500),
            unknown: UnknownFields::default(),
        }
    }

    #[test]
    fn a_record_reads_back_as_it_was() {
        assert_eq!(New::from_bytes(&new().to_bytes()), Ok(new()));
    }

    #[test]
    fn an_older_record_takes_the_defaults() {
        let old = Old { spi: Spi(5), peer: None, unknown: UnknownFields::default() };
        let read = New::from_bytes(&old.to_bytes()).unwrap();
        assert_eq!((read.limit, read.selectors.len(), read.inner), (42, 0, None));
    }

    #[test]
    fn a_newer_record_passes_through_an_older_node_whole() {
        let through = Old::from_bytes(&new().to_bytes()).unwrap();
        assert_eq!(New::from_bytes(&through.to_bytes()), Ok(new()));
    }

    #[test]
    fn a_record_cut_anywhere_is_an_error_or_lacks_whole_fields_never_a_panic() {
        let bytes = new().to_bytes();
        for len in 0..bytes.len() {
            if let Ok(read) = New::from_bytes(&bytes[..len]) {
                assert_ne!(read, new(), "cut at {len}");
            }
        }
    }

    #[test]
    fn a_missing_required_field_is_named() {
        let error = Old::from_bytes(&[]).unwrap_err();
        assert_eq!((error.field, error.cause), ("spi", Cause::Missing));
    }

    #[test]
    fn repeated_or_falling_tags_are_refused() {
        let mut w = Writer::new();
        Spi(1).write(&mut w);
        let mut twice = Writer::new();
        for _ in 0..2 {
            encode_field(&mut twice, 1, |w| Spi(1).write(w));
        }
        assert_eq!(Old::from_bytes(twice.as_slice()).unwrap_err().cause, Cause::Conflict);
    }
}
