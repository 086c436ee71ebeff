//! What keeps the client from doing what was asked: one sentence, with the next step.

use std::path::PathBuf;

use enroll::{CodeError, LineNumber, Refusal, RejectionReason};

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// A code was not read.
    #[error("{0}: compare it with what you were given, and type it again")]
    Code(#[from] CodeError),
    /// A code was given on the command line.
    #[error(
        "a code on the command line can be read by every user of this machine, and stays in the shell's history: ask for a new ticket, then type its code when asked, or give a file or a photograph"
    )]
    CodeOnCommandLine,
    /// Nothing waits for a reply.
    #[error("no enrollment waits for a reply: begin with `ccvpn enroll` and the code that you were given")]
    NothingPending,
    /// Several enrollments wait.
    #[error("several enrollments wait ({0}): say which with --ticket")]
    SeveralPending(String),
    /// No enrollment of this ticket waits.
    #[error("no enrollment with ticket {0} waits: `ccvpn profile list` shows those that do")]
    NoSuchPending(String),
    /// An enrollment of this ticket waits.
    #[error(
        "an enrollment with ticket {0} waits already: give the reply to it, or show its request again, with `ccvpn enroll --ticket {0}`"
    )]
    AlreadyPending(String),
    /// Lines of the reply are missing or damaged.
    #[error("{} of the reply cannot be read or is missing: compare it with what was sent, then give all of the reply again", lines(.0))]
    Lines(Vec<LineNumber>),
    /// The text has no reply to this request.
    #[error(
        "this is no reply to your request ({0}): see that it is for this device and this cluster, and that all of it is there"
    )]
    Foreign(Refusal),
    /// The programs build certificates differently.
    #[error("the gateway's program builds certificates differently: ask for the full reply (`--form full`)")]
    ProgramsDiffer,
    /// The reply is proven but unusable.
    #[error("the reply comes from the gateway, but cannot be used ({0}): ask the administrator")]
    Unusable(Refusal),
    /// The gateway said no.
    #[error("the gateway rejects the request: {0}")]
    Rejected(RejectionReason),
    /// The certificate is not valid yet.
    #[error(
        "the certificate begins on {starts}, and this device's clock says {now}: set the clock, then give the reply again"
    )]
    ClockBehind {
        /// The certificate's first day.
        starts: String,
        /// The device's day.
        now: String,
    },
    /// The certificate is over already.
    #[error(
        "the certificate ended on {ended}, and this device's clock says {now}: if the clock is right, ask for a new ticket"
    )]
    Expired {
        /// The certificate's end.
        ended: String,
        /// The device's day.
        now: String,
    },
    /// The words do not agree.
    #[error("the words differ, so nothing was kept: tell the administrator that somebody may stand between you")]
    WordsDiffer,
    /// No such profile.
    #[error("there is no profile {0}: `ccvpn profile list` shows those that there are")]
    NoProfile(String),
    /// A profile cannot have this name.
    #[error(
        "{0:?} is no name of a profile: use one without `/`, without a dot at its beginning, and without `.new` at its end"
    )]
    ProfileName(String),
    /// A file cannot be read or written.
    #[error("{path}: {error}: see that it exists and that you may read and write it", path = .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The disk is full.
    #[error("the disk is full and nothing was kept: free some space, then do it again")]
    DiskFull,
    /// Others can read a secret.
    #[error("others can read {0}: make it yours alone with `chmod go-rwx`, then do it again")]
    Mode(PathBuf),
    /// A file is not what it should be.
    #[error("{0} is not understood: it was written by a newer program, or changed by hand")]
    Record(PathBuf),
    /// A photograph was not read.
    #[error(
        "there is no QR code to be read in {0}: take the photograph again, straight on, with even light and the whole code in it, or type the text"
    )]
    Photo(PathBuf),
    /// The file is no picture.
    #[error("{0} is no PNG or JPEG picture: take a photograph of the QR code, or give the text with --file")]
    Picture(PathBuf),
    /// The certificate is for another key.
    #[error(
        "this certificate is for another key than the one that was made here: give the one that answers this request"
    )]
    OtherKey,
    /// The certificate is not from the CA that comes with it.
    #[error("there is no CA's certificate behind the certificate: ask for the chain too")]
    NoAuthority,
    /// The CA is another than before.
    #[error(
        "the certificate comes from another CA than the one of this profile: compare the words with the administrator first"
    )]
    OtherAuthority,
    /// Nobody is there to compare the words.
    #[error("there is no terminal to compare the six words on: compare them, then do it again with --yes")]
    NeedsYes,
    /// There is no terminal.
    #[error("there is no terminal to ask on: give the code with --file, or with --file - on the standard input")]
    NoTerminal,
    /// There is no randomness.
    #[error("the system gives no random numbers: see `dmesg`")]
    Random,
    /// A library failed.
    #[error("the cryptographic library failed: do it again; if it stays so, the program or the machine is damaged")]
    Library,
}

impl Fault {
    pub(crate) fn file(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self {
        move |error| {
            if error.kind() == std::io::ErrorKind::StorageFull {
                return Self::DiskFull;
            }
            Self::File { path: path.to_owned(), error }
        }
    }

    const fn code(&self) -> u8 {
        match self {
            Self::CodeOnCommandLine => 2,
            Self::File { .. } | Self::DiskFull | Self::Mode(_) | Self::Record(_) | Self::Random | Self::Library => 4,
            Self::NothingPending | Self::NoSuchPending(_) | Self::NoProfile(_) => 6,
            Self::Code(_)
            | Self::SeveralPending(_)
            | Self::AlreadyPending(_)
            | Self::Lines(_)
            | Self::Foreign(_)
            | Self::ProgramsDiffer
            | Self::Unusable(_)
            | Self::Rejected(_)
            | Self::ClockBehind { .. }
            | Self::Expired { .. }
            | Self::WordsDiffer
            | Self::ProfileName(_)
            | Self::Photo(_)
            | Self::Picture(_)
            | Self::OtherKey
            | Self::NoAuthority
            | Self::OtherAuthority
            | Self::NeedsYes
            | Self::NoTerminal => 5,
        }
    }
}

/// 4: this machine is at fault; 5: what was given is refused; 6: what was named does not exist; 1: anything else. The
/// command line itself is refused with 2.
pub(crate) fn exit_code(error: &anyhow::Error) -> u8 {
    error.downcast_ref::<Fault>().map_or(1, Fault::code)
}

/// `line 3`, `each of the lines 1, 2`.
fn lines(lines: &[LineNumber]) -> String {
    let numbers = lines.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if lines.len() == 1 { format!("line {numbers}") } else { format!("each of the lines {numbers}") }
}
