//! What the commands on a store have in common: where it is, who asks, how the CA's key is opened, how answers look.

use std::fs;
use std::io::{BufRead as _, IsTerminal as _, Read as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use control::{Context, ControlError, Store, Unlock};
use rustix::process::Uid;
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use serde::Serialize;
use wire::Secret;
use zeroize::Zeroizing;

use command::output::{self, tell};

/// Where the store is, and how to answer.
#[derive(Debug, clap::Args)]
pub(super) struct StoreArgs {
    /// The store's directory.
    #[arg(long, value_name = "DIR", default_value = STORE)]
    pub(super) store: PathBuf,
    /// Answer in JSON.
    #[arg(long)]
    pub(super) json: bool,
}

/// How the CA's key is opened. Without an option the store's own key file is taken, or the passphrase asked for.
#[derive(Debug, clap::Args)]
pub(super) struct UnlockArgs {
    /// A file with the CA's passphrase.
    #[arg(long, value_name = "FILE", conflicts_with = "key_file")]
    passphrase_file: Option<PathBuf>,
    /// The CA's key file.
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// Refused.
    #[arg(long, hide = true, value_parser = refuse_secret)]
    passphrase: Option<String>,
}

/// Refuses a secret on the command line.
pub(super) fn refuse_secret(_: &str) -> Result<String, String> {
    Err("a secret on the command line can be read by every user of this machine, and stays in the shell's history: \
         type it when asked, or put it into a file that only you can read"
        .to_owned())
}

impl StoreArgs {
    /// Opens the store, does the work, and closes it.
    pub(super) fn with<T>(
        &self,
        work: impl AsyncFnOnce(&mut Store, &Context) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        run(async {
            let mut store = Store::open(&self.store).await?;
            let done = work(&mut store, &context()).await;
            store.close().await?;
            done
        })
    }

    pub(super) fn show<T: Serialize>(&self, value: &T, text: impl FnOnce(&T)) -> anyhow::Result<()> {
        output::answer(self.json, value, text)
    }
}

/// Runs an operation to its end.
pub(super) fn run<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("start")?.block_on(work)
}

/// Now, and who asks.
pub(super) fn context() -> Context {
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    Context::now(&actor(rustix::process::getuid(), std::env::var("SUDO_USER").ok(), &users))
}

/// The person behind `sudo`, else the user's name. Under sudo the user is root; anybody else who sets the variable wants
/// the journal to name another.
fn actor(user: Uid, sudo: Option<String>, users: &str) -> String {
    if let Some(person) = sudo.filter(|name| user.is_root() && !name.is_empty()) {
        return person;
    }
    let uid = user.as_raw().to_string();
    let name = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, _, id) = (fields.next()?, fields.next()?, fields.next()?);
        (id == uid).then(|| name.to_owned())
    });
    name.unwrap_or_else(|| format!("uid {uid}"))
}

/// Asks once and remembers: several CAs may be opened in one command.
pub(super) struct Opening<'a> {
    arguments: &'a UnlockArgs,
    passphrase: Option<Secret>,
}

impl UnlockArgs {
    pub(super) const fn opening(&self) -> Opening<'_> {
        Opening { arguments: self, passphrase: None }
    }

    /// The passphrase for a new CA key, if one is wished for; typed twice on a terminal.
    pub(super) fn new_passphrase(&self, ask: bool) -> anyhow::Result<Option<Secret>> {
        if let Some(file) = &self.passphrase_file {
            return Ok(Some(passphrase_file(file)?));
        }
        if !ask {
            return Ok(None);
        }
        let first = prompt_secret("New passphrase of the CA's key: ")?;
        let second = prompt_secret("The same again: ")?;
        anyhow::ensure!(first == second, "the two passphrases differ: do it again");
        Ok(Some(first))
    }

    pub(super) fn key_file(&self) -> Option<&Path> {
        self.key_file.as_deref()
    }
}

impl Unlock for Opening<'_> {
    fn passphrase(&mut self) -> Result<Secret, ControlError> {
        if let Some(known) = &self.passphrase {
            return Ok(known.clone());
        }
        let given = match &self.arguments.passphrase_file {
            Some(file) => passphrase_file(file)?,
            None => prompt_secret("Passphrase of the CA's key: ")
                .map_err(|error| ControlError::File { path: PathBuf::from("/dev/tty"), error })?,
        };
        self.passphrase = Some(given.clone());
        Ok(given)
    }

    fn key_file(&mut self, usual: &Path) -> Result<Secret, ControlError> {
        control::read_secret(self.arguments.key_file.as_deref().unwrap_or(usual))
    }
}

/// A passphrase's file; the line end is not part of it.
pub(super) fn passphrase_file(file: &Path) -> Result<Secret, ControlError> {
    let content = control::read_secret(file)?;
    let end = content.expose().iter().rposition(|octet| !matches!(octet, b'\n' | b'\r')).map_or(0, |last| last + 1);
    Ok(Secret::from_slice(content.expose().get(..end).unwrap_or_default()))
}

/// Asks on the terminal, without showing what is typed.
pub(super) fn prompt_secret(question: &str) -> std::io::Result<Secret> {
    let mut terminal = fs::OpenOptions::new().read(true).write(true).open("/dev/tty")?;
    write!(terminal, "{question}")?;
    let before = tcgetattr(&terminal)?;
    let mut silent = before.clone();
    silent.local_modes.remove(LocalModes::ECHO);
    tcsetattr(&terminal, OptionalActions::Flush, &silent)?;
    let mut typed = Zeroizing::new(Vec::with_capacity(TYPED_MAX));
    let mut octet = [0];
    let read = loop {
        match terminal.read(&mut octet) {
            Ok(0) => break Ok(()),
            Ok(_) if octet == *b"\n" || typed.len() >= TYPED_MAX => break Ok(()),
            Ok(_) => typed.extend(octet),
            Err(error) => break Err(error),
        }
    };
    tcsetattr(&terminal, OptionalActions::Flush, &before)?;
    writeln!(terminal)?;
    read.map(|()| Secret::from_slice(&typed))
}

/// Asks on the terminal, also after what was pasted there has ended.
pub(super) fn prompt(question: &str) -> anyhow::Result<String> {
    let mut terminal = fs::OpenOptions::new().read(true).write(true).open("/dev/tty").context("open the terminal")?;
    write!(terminal, "{question}")?;
    let mut typed = String::new();
    std::io::BufReader::new(terminal).read_line(&mut typed).context("read what is typed")?;
    Ok(typed.trim().to_owned())
}

/// Whether a person sits at both ends.
pub(super) fn at_terminal() -> bool {
    std::io::stdin().is_terminal() && std::io::stdout().is_terminal()
}

/// The text of a file, or of the standard input for none and for `-`; a person is told how to end it.
pub(super) fn read_text(file: Option<&Path>, what: &str) -> anyhow::Result<String> {
    let mut octets = Vec::new();
    match file.filter(|file| *file != Path::new("-")) {
        Some(file) => {
            let file_error = |error| ControlError::File { path: file.to_owned(), error };
            let opened = fs::File::open(file).map_err(file_error)?;
            opened.take(TEXT_MAX).read_to_end(&mut octets).map_err(file_error)?;
        }
        None => {
            if std::io::stdin().is_terminal() {
                tell(&format!("Paste {what}, then press Enter and Ctrl-D:"));
            }
            std::io::stdin().take(TEXT_MAX).read_to_end(&mut octets).context("read the standard input")?;
        }
    }
    // Mail may come in any encoding; the lines are ASCII.
    Ok(String::from_utf8(octets).unwrap_or_else(|error| {
        error.into_bytes().into_iter().map(|octet| if octet.is_ascii() { char::from(octet) } else { ' ' }).collect()
    }))
}

/// A DER file, or the first block of a PEM file.
pub(super) fn read_der(file: &Path) -> anyhow::Result<Vec<u8>> {
    let content = fs::read(file).map_err(|error| ControlError::File { path: file.to_owned(), error })?;
    let blocks = enroll::pem_blocks(&String::from_utf8_lossy(&content));
    Ok(blocks.into_iter().next().unwrap_or(content))
}

/// Where the store is, if nobody says otherwise.
pub(super) const STORE: &str = "/var/lib/cryptocluster";
/// Octets of a text that are read.
const TEXT_MAX: u64 = 4 << 20;
/// Octets of a passphrase that are read; the buffer does not grow, so nothing is left behind.
const TYPED_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_journal_names_the_person_behind_sudo_and_nobody_whom_a_user_claims_to_be() {
        let users = "root:x:0:0:root:/root:/bin/sh\nbob:x:1000:1000::/home/bob:/bin/sh\n";
        let actor = |uid: u32, sudo: Option<&str>| actor(Uid::from_raw(uid), sudo.map(str::to_owned), users);
        assert_eq!(actor(0, Some("alice")), "alice");
        assert_eq!(actor(0, Some("")), "root");
        assert_eq!(actor(0, None), "root");
        assert_eq!(actor(1000, Some("alice")), "bob");
        assert_eq!(actor(1001, None), "uid 1001");
    }
}
