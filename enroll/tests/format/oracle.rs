//! The Python model as a child process: one line asked, one line answered.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::OnceLock;

pub(crate) struct Oracle {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Oracle {
    /// Starts the model.
    ///
    /// # Panics
    /// There is no Python 3 with `cryptography`, and none can be made.
    pub(crate) fn start() -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/enroll_oracle.py");
        let mut child = Command::new(python())
            .arg("-B")
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start the model");
        let (input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Self { child, input, output }
    }

    /// Asks for one case.
    pub(crate) fn ask(&mut self, words: &[&str]) -> String {
        let mut line = words.join(" ");
        line.push('\n');
        self.input.write_all(line.as_bytes()).expect("ask the model");
        let mut answer = String::new();
        self.output.read_line(&mut answer).expect("hear the model");
        assert!(answer.ends_with('\n'), "the model ended after: {line}");
        answer.truncate(answer.len() - 1);
        answer
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A Python that runs the model: the system's, or one in `target/enroll-python`.
fn python() -> &'static Path {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND.get_or_init(|| {
        let system = PathBuf::from("python3");
        if runs_the_model(&system) {
            return system;
        }
        let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../enroll-python");
        let own = place.join("bin/python3");
        if !runs_the_model(&own) {
            let _ = Command::new(&system).args(["-m", "venv"]).arg(&place).status();
            let _ = Command::new(&own).args(["-m", "pip", "install", "--quiet", "cryptography>=45"]).status();
        }
        assert!(
            runs_the_model(&own),
            "the model of the enrollment format needs Python 3 with the package cryptography, version 45 or newer, and \
             pip could not put it into target/enroll-python: run `pip install cryptography` and test again"
        );
        own
    })
}

/// Whether the model prints its worked example: older versions of cryptography cannot.
fn runs_the_model(python: &Path) -> bool {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/enroll_model.py");
    let run =
        Command::new(python).arg("-B").arg(model).arg("example").stdout(Stdio::null()).stderr(Stdio::null()).status();
    run.is_ok_and(|status| status.success())
}

pub(crate) fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

pub(crate) fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}
