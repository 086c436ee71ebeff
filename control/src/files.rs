//! Files that are there whole or not at all.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use wire::Secret;
use zeroize::Zeroizing;

use crate::error::ControlError;

/// Writes a file that only its owner may read. It appears whole or not at all, and replaces the one before it.
///
/// # Errors
/// It cannot be written; the one before it stays.
pub fn write_private(path: &Path, content: &[u8]) -> Result<(), ControlError> {
    write(path, content, PRIVATE)
}

/// Writes a file that everybody may read, likewise.
///
/// # Errors
/// As [`write_private`].
pub fn write_public(path: &Path, content: &[u8]) -> Result<(), ControlError> {
    write(path, content, 0o644)
}

fn write(path: &Path, content: &[u8], mode: u32) -> Result<(), ControlError> {
    Draft::begin(path, mode)?.finish(content)
}

/// A file that has begun to be written, so that it is known that it can be. Dropped unfinished it leaves no trace.
#[derive(Debug)]
pub struct Draft {
    path: PathBuf,
    new: PathBuf,
    file: File,
}

impl Draft {
    /// Begins a file that only its owner may read.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn private(path: &Path) -> Result<Self, ControlError> {
        Self::begin(path, PRIVATE)
    }

    fn begin(path: &Path, mode: u32) -> Result<Self, ControlError> {
        let new = beside(path, "new");
        let file = create(&new, mode).map_err(ControlError::file(path))?;
        Ok(Self { path: path.to_owned(), new, file })
    }

    /// Writes it whole, and puts it in the place of the one before it.
    ///
    /// # Errors
    /// It cannot be written; the one before it stays.
    pub fn finish(mut self, content: &[u8]) -> Result<(), ControlError> {
        let written = (|| {
            self.file.write_all(content)?;
            self.file.sync_all()?;
            std::fs::rename(&self.new, &self.path)?;
            sync_directory(&self.path)
        })();
        written.map_err(ControlError::file(&self.path))
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // What was half written helps nobody, and what has its own name by now is not here any more.
        std::fs::remove_file(&self.new).ok();
    }
}

/// Makes an empty file in the place of what an interrupted program left there; no link is followed.
pub(crate) fn create(path: &Path, mode: u32) -> std::io::Result<File> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    OpenOptions::new().write(true).create_new(true).mode(mode).open(path)
}

/// Makes a rename in `path`'s directory survive a loss of power.
pub(crate) fn sync_directory(path: &Path) -> std::io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}

/// The path with another extension behind its own.
pub(crate) fn beside(path: &Path, extension: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(extension);
    PathBuf::from(name)
}

/// Reads a secret, at most 4096 octets, from a file that only its owner may read.
///
/// # Errors
/// Others may read it, or it cannot be read.
pub fn read_secret(path: &Path) -> Result<Secret, ControlError> {
    let file = File::open(path).map_err(ControlError::file(path))?;
    let metadata = file.metadata().map_err(ControlError::file(path))?;
    if metadata.is_file() && metadata.mode() & 0o077 != 0 {
        return Err(ControlError::Mode(path.to_owned()));
    }
    let mut content = Zeroizing::new(Vec::with_capacity(SECRET_MAX));
    let limit = u64::try_from(SECRET_MAX).unwrap_or(u64::MAX);
    file.take(limit).read_to_end(&mut content).map_err(ControlError::file(path))?;
    Ok(Secret::from_slice(&content))
}

/// The mode of a file that only its owner may read.
pub(crate) const PRIVATE: u32 = 0o600;
/// Octets of a key file or passphrase that are read; the buffer does not grow, so nothing is left behind.
const SECRET_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_a_secret_that_others_can_read_is_refused() {
        let directory = std::env::temp_dir().join(format!("control-files-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("secret");
        write_private(&path, b"one").unwrap();
        write_private(&path, b"two").unwrap();
        assert_eq!(read_secret(&path).unwrap().expose(), b"two");
        write_public(&path, b"three").unwrap();
        assert!(matches!(read_secret(&path), Err(ControlError::Mode(_))));
        assert!(write_private(&directory.join("no/such"), b"").is_err());
        // What somebody put in the place of the unfinished file is not followed, and an abandoned draft leaves nothing.
        std::os::unix::fs::symlink("elsewhere", directory.join("secret.new")).unwrap();
        drop(Draft::private(&path).unwrap());
        assert_eq!(std::fs::read(&path).unwrap(), b"three");
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 1);
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
