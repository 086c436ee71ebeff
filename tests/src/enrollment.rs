//! The two commands of an enrollment, each with a directory of its own, and a terminal for a person before them.

mod terminal;

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::cluster::gateway_program;
use crate::run;
pub use terminal::Terminal;

/// A directory that goes with all that is in it.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// Makes one that only its owner may look into.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn new(name: &str) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("ccluster-{name}-{}-{number}", std::process::id()));
        fs::DirBuilder::new().mode(0o700).create(&path).with_context(|| format!("make {}", path.display()))?;
        Ok(Self(path))
    }

    /// A path in it.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes a file that only its owner may read, and gives its path as text.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn put(&self, name: &str, content: &str) -> Result<String> {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.path(name);
        fs::write(&path, content).with_context(|| format!("write {}", path.display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        Ok(path.display().to_string())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Nothing can be done about what cannot be removed.
        fs::remove_dir_all(&self.0).ok();
    }
}

/// What a command said, and how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// The exit code; none if it was killed.
    pub code: Option<i32>,
    /// On standard output.
    pub out: String,
    /// On standard error.
    pub err: String,
}

impl Said {
    /// Its standard output as JSON.
    ///
    /// # Errors
    /// It is none, or the command failed.
    pub fn json(&self) -> Result<Value> {
        ensure!(self.code == Some(0), "ended with {:?}: {}", self.code, self.err.trim());
        serde_json::from_str(&self.out).with_context(|| format!("read as JSON: {}", self.out))
    }
}

/// One of the two commands, with its directory.
#[derive(Clone, Debug)]
pub struct Party {
    program: PathBuf,
    place: [String; 2],
}

impl Party {
    /// The administrator: `cryptocluster` with a store.
    ///
    /// # Errors
    /// The program is not built.
    pub fn administrator(store: &Path) -> Result<Self> {
        let place = ["--store".to_owned(), store.display().to_string()];
        Ok(Self { program: gateway_program()?, place })
    }

    /// A device: `ccvpn` with a directory.
    ///
    /// # Errors
    /// The program is not built.
    pub fn device(home: &Path) -> Result<Self> {
        Ok(Self {
            program: run::program("ccvpn", "cargo build --release -p client")?,
            place: ["--home".to_owned(), home.display().to_string()],
        })
    }

    /// The command with these arguments; those with white space stay one.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments).args(&self.place).env("RUST_BACKTRACE", "0").env_remove("SUDO_USER");
        command
    }

    /// Runs the command to its end, with this on its standard input.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn run(&self, arguments: &[&str], input: &str) -> Result<Said> {
        let mut command = self.command(arguments);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        if let Some(mut pipe) = child.stdin.take() {
            // A command that refuses at once does not read.
            pipe.write_all(input.as_bytes()).ok();
        }
        let output = child.wait_with_output()?;
        let text = |octets: Vec<u8>| String::from_utf8_lossy(&octets).into_owned();
        Ok(Said { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) })
    }

    /// Runs the command, which must succeed, and gives what it said.
    ///
    /// # Errors
    /// It fails.
    pub fn good(&self, arguments: &[&str]) -> Result<String> {
        let said = self.run(arguments, "")?;
        ensure!(said.code == Some(0), "{arguments:?} ended with {:?}: {}{}", said.code, said.err, said.out);
        Ok(said.out)
    }

    /// Runs the command with `--json`, which must succeed, and gives its answer.
    ///
    /// # Errors
    /// It fails.
    pub fn json(&self, arguments: &[&str]) -> Result<Value> {
        let arguments: Vec<&str> = arguments.iter().copied().chain(["--json"]).collect();
        self.run(&arguments, "")?.json().with_context(|| format!("{arguments:?}"))
    }

    /// The command on a terminal of its own.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn on_terminal(&self, arguments: &[&str]) -> Result<Terminal> {
        Terminal::start(&self.command(arguments))
    }
}

/// Makes a CA without asking anything, sealed under a key file.
///
/// # Errors
/// It fails.
pub fn make_ca(administrator: &Party, cluster: &str, gateway: &str) -> Result<()> {
    administrator.good(&["init", "--ca-only", "--cluster", cluster, "--gateway", gateway]).map(drop)
}

/// A text out of an answer in JSON.
///
/// # Errors
/// There is none of this name.
pub fn text(answer: &Value, name: &str) -> Result<String> {
    let found = answer.get(name).and_then(Value::as_str).map(str::to_owned);
    found.with_context(|| format!("{name} in {answer}"))
}
