//! `ccvpn enroll`: from a code to a request, from a reply to a profile.

mod reply;
mod waiting;

use std::path::PathBuf;

use enroll::{
    Algorithm, Code, PrivateKey, Reader, Request, RequestedKey, Role, TicketKeys, Words, large_words, qr_half_blocks,
    spelled,
};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use serde::Serialize;
use zeroize::Zeroizing;

use crate::cli::Place;
use crate::fault::Fault;
use crate::home::Home;
use crate::terminal::{attended, paper, prompt, read_text};
use command::say;
use waiting::Waiting;

/// Get a certificate: type the code, send the request, give the reply.
///
/// Without a file or photograph the code is asked for, the request shown, and the reply read as it is pasted. What was
/// begun goes on with the reply at any later time.
#[derive(Debug, clap::Args)]
pub(crate) struct Enroll {
    /// Refused: a code does not belong on the command line.
    #[arg(hide = true, value_parser = refuse_code)]
    code: Option<String>,
    /// A file with the code or with the reply, such as a mail; - for the standard input.
    #[arg(long, value_name = "FILE", conflicts_with = "photo")]
    file: Option<PathBuf>,
    /// A photograph (PNG, JPEG) of the code's or reply's QR code.
    #[arg(long, value_name = "FILE")]
    photo: Option<PathBuf>,
    /// The ticket whose enrollment goes on, if several wait: the first group of its code.
    #[arg(long, value_name = "NUMBER")]
    ticket: Option<String>,
    /// Begin with a new code although another enrollment waits.
    #[arg(long)]
    new: bool,
    /// The kind of key to make.
    #[arg(long, value_enum, default_value = "p256")]
    key: KeyKind,
    /// Also spell the request, to be read out.
    #[arg(long)]
    speak: bool,
    /// Do not ask whether the final words agree: they were compared.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    place: Place,
}

/// The kind of key to make.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum KeyKind {
    /// ECDSA on P-256.
    P256,
    /// Ed25519.
    Ed25519,
}

#[derive(Serialize)]
struct Begun {
    outcome: &'static str,
    ticket: String,
    role: &'static str,
    request: String,
    qr: String,
    words: String,
}

fn refuse_code(_: &str) -> Result<String, String> {
    Err(Fault::CodeOnCommandLine.to_string())
}

impl Enroll {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let home = self.place.home();
        let text = match (&self.file, &self.photo) {
            (Some(file), _) => Some(read_text(file)?),
            (None, Some(photo)) => Some(crate::photo::read(photo)?),
            (None, None) => None,
        };
        let waiting = Waiting::all(&home)?;
        let Some(text) = text else {
            return self.converse(&home, waiting);
        };
        match Code::parse(text.trim()) {
            Ok(code) => self.begin(&home, &code),
            Err(_) if !waiting.is_empty() => self.finish(&home, &self.choose(waiting)?, &text),
            Err(_) if has_lines(&text) => Err(Fault::NothingPending.into()),
            Err(error) => Err(Fault::Code(error).into()),
        }
    }

    /// With a person at the terminal.
    fn converse(&self, home: &Home, waiting: Vec<Waiting>) -> anyhow::Result<()> {
        if !waiting.is_empty() && !self.new {
            let waiting = self.choose(waiting)?;
            self.show(&waiting)?;
            return if attended() { self.receive(home, &waiting) } else { Ok(()) };
        }
        if !attended() {
            return Err(Fault::NoTerminal.into());
        }
        say!("Type the code that you were given. Capitals, spaces and dashes do not matter.\n");
        let code = loop {
            let typed = Zeroizing::new(prompt("  code: ")?);
            match Code::parse(&typed) {
                Ok(code) => break code,
                Err(error) => say!("  {}\n", Fault::Code(error)),
            }
        };
        self.begin(home, &code)
    }

    /// Makes a key and its request. What is kept is on the disk before the request is shown.
    fn begin(&self, home: &Home, code: &Code) -> anyhow::Result<()> {
        if Waiting::all(home)?.iter().any(|waiting| waiting.ticket() == code.ticket()) {
            return Err(Fault::AlreadyPending(code.ticket().to_string()).into());
        }
        let key = draw_key(match self.key {
            KeyKind::P256 => Algorithm::P256,
            KeyKind::Ed25519 => Algorithm::Ed25519,
        })?;
        let keys = TicketKeys::derive(code);
        let (message, hash) = Request::compose(&keys.request, &RequestedKey::Whole(*key.public()));
        let waiting = Waiting::keep(home, keys, hash, key, &message)?;
        self.show(&waiting)?;
        if attended() { self.receive(home, &waiting) } else { Ok(()) }
    }

    fn show(&self, waiting: &Waiting) -> anyhow::Result<()> {
        let words = Words::of_request(waiting.role(), &waiting.pending.hash);
        let begun = Begun {
            outcome: "request",
            ticket: waiting.ticket().to_string(),
            role: match waiting.role() {
                Role::Client => "client",
                Role::Node => "node",
            },
            request: waiting.request.to_string(),
            qr: waiting.request.compact(),
            words: words.to_string(),
        };
        self.place.show(&begun, |begun| {
            say!("\nYour request. Send it to the administrator by mail, chat, photograph or telephone:\n");
            for line in begun.request.lines() {
                say!("    {line}");
            }
            say!("\n{}", qr_half_blocks(&begun.qr, paper()));
            if self.speak {
                for line in begun.request.lines() {
                    say!("    {}", spelled(line));
                }
                say!("");
            }
            say!("If the administrator asks for words, read out these six:\n\n{}", large_words(&words));
            say!("Your key stays on this device. When the reply comes: ccvpn enroll");
        })
    }

    /// Reads the reply as it is pasted or typed, until it is whole.
    fn receive(&self, home: &Home, waiting: &Waiting) -> anyhow::Result<()> {
        say!("\nPaste or type the reply when it comes. To stop for now, press Ctrl-C: nothing is lost.\n");
        let (mut text, mut told) = (String::new(), 0);
        loop {
            let mut line = String::new();
            let read = std::io::stdin().read_line(&mut line).map_err(Fault::file("/dev/stdin".as_ref()))?;
            text.push_str(&line);
            match reply::open(&waiting.pending, &text) {
                Ok(_) => return self.finish(home, waiting, &text),
                // Ctrl-D: what was typed is all there is; the good lines are kept, and a second Ctrl-D ends it.
                Err(error) if read == 0 && told == text.len() => return Err(error.into()),
                Err(error) if read == 0 => {
                    say!("  {error}\n");
                    told = text.len();
                }
                Err(_) => {}
            }
        }
    }

    fn finish(&self, home: &Home, waiting: &Waiting, text: &str) -> anyhow::Result<()> {
        reply::finish(home, waiting, text, self.yes, &self.place)
    }

    fn choose(&self, mut waiting: Vec<Waiting>) -> Result<Waiting, Fault> {
        if let Some(ticket) = &self.ticket {
            let found = waiting.into_iter().find(|waiting| waiting.ticket().to_string().eq_ignore_ascii_case(ticket));
            return found.ok_or_else(|| Fault::NoSuchPending(ticket.clone()));
        }
        if waiting.len() > 1 {
            let numbers: Vec<String> = waiting.iter().map(|waiting| waiting.ticket().to_string()).collect();
            return Err(Fault::SeveralPending(numbers.join(", ")));
        }
        waiting.pop().ok_or(Fault::NothingPending)
    }
}

/// Draws a private key from the system's randomness.
pub(crate) fn draw_key(algorithm: Algorithm) -> Result<PrivateKey, Fault> {
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(seed.as_mut()).map_err(|_| Fault::Random)?;
    PrivateKey::draw(algorithm, &mut StdRng::from_seed(*seed)).map_err(|_| Fault::Library)
}

pub(crate) use waiting::{PENDING, pending_tickets};

/// Whether a text has numbered lines, as messages do.
fn has_lines(text: &str) -> bool {
    let mut reader = Reader::default();
    reader.add(text);
    reader.lines().next().is_some()
}
