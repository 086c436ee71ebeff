//! Numbers and octets in and out of SQLite's types.

use enroll::{Serial, UnixTime};
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use crate::error::ControlError;

/// A time as SQLite holds it.
pub(crate) fn seconds(time: UnixTime) -> i64 {
    i64::try_from(time.seconds).unwrap_or(i64::MAX)
}

/// A serial as SQLite holds it; serials have 63 bits.
pub(crate) fn serial_number(serial: Serial) -> i64 {
    i64::try_from(serial.value()).unwrap_or(i64::MAX)
}

/// A row whose columns are read as the types that the records have.
pub(crate) struct Row(pub(crate) SqliteRow);

impl Row {
    /// A whole number.
    pub(crate) fn number(&self, column: &'static str) -> Result<i64, ControlError> {
        Ok(self.0.try_get(column)?)
    }

    /// A whole number, if there is one.
    pub(crate) fn number_if(&self, column: &'static str) -> Result<Option<i64>, ControlError> {
        Ok(self.0.try_get(column)?)
    }

    /// A text.
    pub(crate) fn text(&self, column: &'static str) -> Result<String, ControlError> {
        Ok(self.0.try_get(column)?)
    }

    /// Octets.
    pub(crate) fn octets(&self, column: &'static str) -> Result<Vec<u8>, ControlError> {
        Ok(self.0.try_get(column)?)
    }

    /// Octets, if there are some.
    pub(crate) fn octets_if(&self, column: &'static str) -> Result<Option<Vec<u8>>, ControlError> {
        Ok(self.0.try_get(column)?)
    }

    /// A time.
    pub(crate) fn time(&self, column: &'static str) -> Result<UnixTime, ControlError> {
        let seconds = u64::try_from(self.number(column)?).map_err(|_| ControlError::Record(column))?;
        Ok(UnixTime { seconds })
    }

    /// A serial.
    pub(crate) fn serial(&self, column: &'static str) -> Result<Serial, ControlError> {
        let number = u64::try_from(self.number(column)?).ok();
        number.and_then(Serial::new).ok_or(ControlError::Record(column))
    }

    /// A serial, if there is one.
    pub(crate) fn serial_if(&self, column: &'static str) -> Result<Option<Serial>, ControlError> {
        self.number_if(column)?.map(|_| self.serial(column)).transpose()
    }

    /// A day.
    pub(crate) fn day(&self, column: &'static str) -> Result<u16, ControlError> {
        u16::try_from(self.number(column)?).map_err(|_| ControlError::Record(column))
    }

    /// A hash.
    pub(crate) fn hash(&self, column: &'static str) -> Result<[u8; 32], ControlError> {
        self.octets(column)?.try_into().map_err(|_| ControlError::Record(column))
    }
}

/// Octets as hexadecimal digits.
pub(crate) fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

/// Octets from hexadecimal digits.
pub(crate) fn unhex(text: &str) -> Option<Vec<u8>> {
    let octets = text.as_bytes().chunks(2);
    octets
        .map(|pair| {
            let pair = std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2)?;
            u8::from_str_radix(pair, 16).ok()
        })
        .collect()
}
