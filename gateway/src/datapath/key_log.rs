//! Session keys in a file, for the wire observer of the lab. Compiled in only with the feature `key-log`.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use anyhow::Context;
use esp::Initial;

/// The file. One line per direction: `esp SPI ENCRYPTION KEY_BITS INTEGRITY KEY INTEGRITY_KEY`, numbers as IANA has them,
/// the rest in hexadecimal; `-` where there is none.
#[derive(Debug)]
pub(super) struct KeyLog(Mutex<File>);

impl KeyLog {
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        let file = File::options().create(true).append(true).open(path);
        Ok(Self(Mutex::new(file.with_context(|| format!("open the key log {}", path.display()))?)))
    }

    /// Writes both directions of a pair.
    pub(super) fn write(&self, initial: &Initial) {
        let integrity = initial.integrity.map_or_else(|| "-".into(), |id| id.to_string());
        let mut lines = String::new();
        for (spi, key, integrity_key) in [
            (initial.spi_in, &initial.key_in, &initial.integrity_key_in),
            (initial.spi_out, &initial.key_out, &initial.integrity_key_out),
        ] {
            let (encryption, bits) = (initial.encryption, initial.key_bits);
            let (key, integrity_key) = (hex(key.expose()), hex(integrity_key.expose()));
            lines += &format!("esp {spi} {encryption} {bits} {integrity} {key} {integrity_key}\n");
        }
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = file.write_all(lines.as_bytes()) {
            tracing::warn!(%error, "the key log cannot be written");
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    if bytes.is_empty() { "-".into() } else { bytes.iter().map(|octet| format!("{octet:02x}")).collect() }
}
