//! The client's files: `profiles/NAME/` with key and certificates, `pending/TICKET` while a request waits.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::fault::Fault;

/// The client's directory. Nobody else may look into it.
#[derive(Clone, Debug)]
pub(crate) struct Home(PathBuf);

impl Home {
    /// `--home`, else `$XDG_CONFIG_HOME/ccvpn`, else `~/.config/ccvpn`.
    pub(crate) fn of(given: Option<&Path>) -> Self {
        if let Some(given) = given {
            return Self(given.to_owned());
        }
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let home = || variable("HOME").unwrap_or_else(|| PathBuf::from("/root")).join(".config");
        Self(variable("XDG_CONFIG_HOME").unwrap_or_else(home).join("ccvpn"))
    }

    pub(crate) fn path(&self, of: &str) -> PathBuf {
        self.0.join(of)
    }

    /// Writes a file that only its owner may read; it appears whole or not at all.
    pub(crate) fn write(&self, of: &str, content: &[u8]) -> Result<(), Fault> {
        let path = self.path(of);
        let parent = path.parent().unwrap_or(&self.0);
        let made = DirBuilder::new().recursive(true).mode(0o700).create(parent);
        made.map_err(Fault::file(parent))?;
        let new = self.path(&format!("{of}.new"));
        let written = (|| {
            fs::remove_file(&new).or_else(absent)?;
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
            file.write_all(content)?;
            file.sync_all()?;
            fs::rename(&new, &path)?;
            File::open(parent)?.sync_all()
        })();
        written.map_err(|error| {
            // What was half written helps nobody; the error to tell is the first one.
            fs::remove_file(&new).ok();
            Fault::file(&path)(error)
        })
    }

    /// Reads a file that nobody else may read.
    pub(crate) fn read(&self, of: &str) -> Result<Zeroizing<Vec<u8>>, Fault> {
        let path = self.path(of);
        let file = File::open(&path).map_err(Fault::file(&path))?;
        let metadata = file.metadata().map_err(Fault::file(&path))?;
        if metadata.mode() & 0o077 != 0 {
            return Err(Fault::Mode(path));
        }
        let mut content = Zeroizing::new(Vec::with_capacity(FILE_MAX));
        let limit = u64::try_from(FILE_MAX).unwrap_or(u64::MAX);
        file.take(limit).read_to_end(&mut content).map_err(Fault::file(&path))?;
        Ok(content)
    }

    /// Overwrites a file with zeros and removes it.
    pub(crate) fn erase(&self, of: &str) -> Result<(), Fault> {
        let path = self.path(of);
        let erased = (|| {
            let length = usize::try_from(fs::metadata(&path)?.len()).unwrap_or(FILE_MAX);
            let mut file = OpenOptions::new().write(true).open(&path)?;
            file.write_all(&vec![0; length.min(FILE_MAX)])?;
            file.sync_all()?;
            fs::remove_file(&path)
        })();
        erased.or_else(absent).map_err(Fault::file(&path))
    }

    /// Erases all files of a directory, half-written ones too, and it.
    pub(crate) fn erase_all(&self, of: &str) -> Result<(), Fault> {
        for name in self.all_names(of)? {
            self.erase(&format!("{of}/{name}"))?;
        }
        let path = self.path(of);
        fs::remove_dir(&path).or_else(absent).map_err(Fault::file(&path))
    }

    /// The names in a directory, in order, without what was half written; none if there is no such directory.
    pub(crate) fn names(&self, of: &str) -> Result<Vec<String>, Fault> {
        let mut names = self.all_names(of)?;
        names.retain(|name| !name.ends_with(".new"));
        Ok(names)
    }

    fn all_names(&self, of: &str) -> Result<Vec<String>, Fault> {
        let path = self.path(of);
        let entries = match fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Fault::file(&path)(error)),
        };
        let entries: Vec<fs::DirEntry> = entries.collect::<Result<_, _>>().map_err(Fault::file(&path))?;
        let mut names: Vec<String> =
            entries.into_iter().filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        Ok(names)
    }
}

fn absent(error: std::io::Error) -> std::io::Result<()> {
    if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

/// No file of the client is longer; the buffer does not grow, so no key is left behind.
const FILE_MAX: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_private_replaced_whole_and_erased() {
        let place = std::env::temp_dir().join(format!("ccvpn-home-{}", std::process::id()));
        let home = Home::of(Some(&place));
        home.write("pending/A", b"one").unwrap();
        home.write("pending/A", b"two").unwrap();
        assert_eq!(home.read("pending/A").unwrap().as_slice(), b"two");
        assert_eq!(fs::metadata(home.path("pending/A")).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(home.path("pending")).unwrap().mode() & 0o777, 0o700);
        assert_eq!(home.names("pending").unwrap(), ["A"]);
        fs::set_permissions(home.path("pending/A"), std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
        assert!(matches!(home.read("pending/A"), Err(Fault::Mode(_))));
        home.erase("pending/A").unwrap();
        home.erase("pending/A").unwrap();
        assert_eq!(home.names("pending").unwrap(), Vec::<String>::new());
        assert_eq!(home.names("no").unwrap(), Vec::<String>::new());
        fs::remove_dir_all(place).unwrap();
    }

    #[test]
    fn a_key_that_was_half_written_is_erased_with_the_rest() {
        let place = std::env::temp_dir().join(format!("ccvpn-home-half-{}", std::process::id()));
        let home = Home::of(Some(&place));
        home.write("pending/A/keys", b"whole").unwrap();
        // As a kill between writing and renaming leaves it.
        fs::write(home.path("pending/A/keys.new"), b"half").unwrap();
        assert_eq!(home.names("pending/A").unwrap(), ["keys"]);
        home.erase_all("pending/A").unwrap();
        assert!(!home.path("pending/A").exists());
        fs::remove_dir_all(place).unwrap();
    }
}
