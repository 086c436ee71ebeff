//! What kept an operation from being done: one sentence, with the next step.

use std::path::PathBuf;

use enroll::{
    AuthorityError, BundleError, CodeError, ConsumeError, LineNumber, OrderError, PrivateKeyError, ProfileError,
    Refusal, SealError, Serial, SettingsError, UnixTime, WordsError,
};

/// What an exit code or an HTTP status is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// What was asked for is refused; asking otherwise may help.
    Refused,
    /// What was named does not exist.
    Unknown,
    /// The store or the machine is at fault.
    Store,
}

/// Why an operation was not done. Unless it says otherwise, nothing changed.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// There is no store.
    #[error(
        "there is no store in {0}: make one with `cryptocluster init --ca-only`, or name its directory with --store"
    )]
    NoStore(
        /// The directory.
        PathBuf,
    ),
    /// There is a store already.
    #[error("there is a store in {0} already: name another directory with --store")]
    StoreExists(
        /// The directory.
        PathBuf,
    ),
    /// The disk is full.
    #[error("the disk is full and nothing was changed: free some space where the store is, then do it again")]
    DiskFull,
    /// Another program writes.
    #[error("another program holds the store and nothing was changed: wait for it to end, then do it again")]
    Busy,
    /// The database cannot be read or written.
    #[error("the store's database fails ({0}): look at the disk, or restore a backup with `cryptocluster restore`")]
    Database(
        /// What it says.
        String,
    ),
    /// The store that a backup is to replace cannot be read.
    #[error(
        "the store that is here cannot be read, so its revocations are unknown: move {0} away, and restore with --crl and the lists that were published last"
    )]
    DamagedStore(
        /// Its database.
        PathBuf,
    ),
    /// A file cannot be read or written.
    #[error("{path}: {error}: see that it exists and that you may read and write it", path = .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// Others can read a secret.
    #[error("others can read {0}: make it yours alone with `chmod 600`, then do it again")]
    Mode(
        /// The file.
        PathBuf,
    ),
    /// A record is not understood.
    #[error("a record of the store is not understood ({0}): it was written by a newer program, or changed by hand")]
    Record(
        /// Which.
        &'static str,
    ),
    /// The machine's clock is behind the journal.
    #[error(
        "this machine's clock says {now}, but the journal's last entry is of {last}: set the clock, then do it again"
    )]
    Clock {
        /// The clock.
        now: UnixTime,
        /// The journal's last entry.
        last: UnixTime,
    },
    /// The journal's chain is broken.
    #[error("journal entry {0} is not the one that was written: the store was changed by hand; restore a backup")]
    JournalBroken(
        /// The first entry that does not fit.
        u64,
    ),
    /// The journal does not hold what was noted.
    #[error("the journal does not contain the head {0}: entries were cut off, or it is another store's journal")]
    JournalHead(
        /// What was noted.
        String,
    ),
    /// A certificate stands in the store without an entry of its issue.
    #[error("certificate {0} has no journal entry: the store was changed by hand; restore a backup")]
    JournalLacks(
        /// The serial.
        Serial,
    ),
    /// No such ticket.
    #[error("there is no ticket {0}: `cryptocluster ticket list` shows those that there are")]
    NoTicket(
        /// What was given.
        String,
    ),
    /// No such certificate.
    #[error("there is no certificate {0}: `cryptocluster cert list` shows those that there are")]
    NoCertificate(
        /// What was given.
        String,
    ),
    /// The certificate's ticket is consumed, and nothing is signed yet.
    #[error("certificate {0} is not signed yet: give its request to `cryptocluster enroll accept` again")]
    Unsigned(
        /// The serial.
        String,
    ),
    /// A name stands for several certificates.
    #[error("{0} has several certificates: give the serial that `cryptocluster cert list` shows")]
    SeveralCertificates(
        /// The name.
        String,
    ),
    /// No such profile.
    #[error("there is no profile {0}: `cryptocluster profile list` shows those that there are")]
    NoProfile(
        /// What was given.
        String,
    ),
    /// Another profile has the name.
    #[error("profile {number} has the name {name} already: choose another, or give that one another first")]
    ProfileName {
        /// The name.
        name: String,
        /// The number that has it.
        number: i64,
    },
    /// The ticket's name is taken.
    #[error("{0} is the name of a gateway or node: choose another")]
    NameOfGateway(
        /// The name.
        String,
    ),
    /// An open ticket has the name.
    #[error(
        "an open ticket ({ticket}) has the name {name} already: use it, or void it with `cryptocluster ticket void {ticket}`"
    )]
    NameOpen {
        /// The name.
        name: String,
        /// The ticket.
        ticket: String,
    },
    /// A name breaks the rules of names.
    #[error(
        "{0:?} is no name: use a to z, 0 to 9, `.`, `_`, `-` and at most one `@`, at most 31 characters, letters or digits at both ends"
    )]
    Name(
        /// What was given.
        String,
    ),
    /// The days are out of range.
    #[error("{0} days are out of range: a certificate is valid for 1 to 4095 days, and ends before its CA")]
    Days(
        /// What was given.
        u16,
    ),
    /// Not from the holder of a code.
    #[error(
        "this is no request of any ticket here: see that all lines are there, and that it is for this cluster ({0})"
    )]
    Foreign(
        /// What the format says.
        Refusal,
    ),
    /// Lines are damaged or missing.
    #[error("{} of the request cannot be read or is missing: compare it with what was sent, then paste the whole request again", lines(.0))]
    Lines(
        /// Which.
        Vec<LineNumber>,
    ),
    /// A reply, not a request, was given.
    #[error("this is a reply of a gateway, not a request: give what `ccvpn enroll` printed")]
    NotARequest,
    /// Words are needed.
    #[error("this ticket asks for approval: have the six words read out by telephone, then give them with --words")]
    NeedsWords,
    /// The typed words are those of no waiting request.
    #[error(
        "no waiting request has these words: have them read out again; if they still differ, reject with `cryptocluster enroll reject --reason words`"
    )]
    WordsDiffer,
    /// Typed words were not read.
    #[error("{0}")]
    Words(#[from] WordsError),
    /// The form was not written at issue.
    #[error(
        "this reply has no {0} form, since the CA's or client's key has no number in the format: ask for another with --form"
    )]
    NoForm(
        /// The form.
        &'static str,
    ),
    /// The CA is needed.
    #[error("the CA's key is needed for this")]
    NeedsAuthority,
    /// The CA's key is kept elsewhere.
    #[error("the key of this CA is not in this store: give the file that it was written to")]
    KeyElsewhere,
    /// A rollover below a root needs the root's key.
    #[error(
        "the CA that issues here is signed by a root, whose key is not in this store: give its file with --root, and take it \
         away again afterwards"
    )]
    RootNeeded,
    /// A root was named where there is none.
    #[error("the CA that issues here has no root above it: leave --root out")]
    NoRoot,
    /// The certificate is revoked.
    #[error("certificate {0} is revoked already, and stays so: a new one needs a new ticket")]
    Revoked(
        /// The serial.
        Serial,
    ),
    /// The certificate is suspended.
    #[error(
        "certificate {0} is suspended, since its ticket was used twice: see `cryptocluster journal list`, then revoke it and make a new ticket, or release it if its holder is honest (`cryptocluster cert release {0}`)"
    )]
    Suspended(
        /// The serial.
        Serial,
    ),
    /// The certificate is not suspended.
    #[error("certificate {0} is not suspended: see with `cryptocluster cert show {0}` how it stands")]
    NotSuspended(
        /// The serial.
        Serial,
    ),
    /// Somebody else changed the ticket.
    #[error("the ticket was changed at the same moment by somebody else and nothing was done: do it again")]
    Conflict,
    /// Another CA issues than the one that was opened.
    #[error("another CA took this one's place at the same moment, and nothing was signed: do it again")]
    AuthorityChanged,
    /// The key is known.
    #[error("the cluster has met this key before and takes it no second time: make a new key")]
    KnownKey,
    /// The backup is none.
    #[error("{0} is no backup of a store, or it is damaged: take another")]
    NotABackup(
        /// The file.
        PathBuf,
    ),
    /// The backup is of another cluster.
    #[error("the backup is of cluster {found}, this store of {expected}: name another directory with --store")]
    OtherCluster {
        /// The backup's.
        found: String,
        /// The store's.
        expected: String,
    },
    /// A published list is not of this CA.
    #[error("{0} is no revocation list of this cluster's CAs: give one that `cryptocluster cert crl` wrote")]
    ForeignList(
        /// The file.
        PathBuf,
    ),
    /// There is no randomness.
    #[error("the system gives no random numbers: see `dmesg`")]
    Random,
    /// An order breaks a rule.
    #[error("{0}")]
    Order(#[from] OrderError),
    /// The ticket cannot be consumed.
    #[error("{0}")]
    Consume(#[from] ConsumeError),
    /// The CA could not do it.
    #[error("{0}")]
    Authority(#[from] AuthorityError),
    /// A key cannot be sealed or opened.
    #[error("{0}")]
    Seal(#[from] SealError),
    /// A private key cannot be used.
    #[error("{0}")]
    PrivateKey(#[from] PrivateKeyError),
    /// A code was not read.
    #[error("{0}")]
    Code(#[from] CodeError),
    /// Settings were not read.
    #[error("{0}")]
    Settings(#[from] SettingsError),
    /// A profile could not be written.
    #[error("{0}")]
    Profile(#[from] ProfileError),
    /// A PKCS#12 file could not be written.
    #[error("{0}")]
    Bundle(#[from] BundleError),
    /// A value of the format is refused.
    #[error("{0}")]
    Refused(#[from] Refusal),
}

impl ControlError {
    /// What an exit code is made of.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::NoTicket(_) | Self::NoCertificate(_) | Self::NoProfile(_) | Self::NoStore(_) => Kind::Unknown,
            Self::DiskFull
            | Self::Busy
            | Self::Database(_)
            | Self::DamagedStore(_)
            | Self::File { .. }
            | Self::Mode(_)
            | Self::Record(_)
            | Self::Clock { .. }
            | Self::JournalBroken(_)
            | Self::JournalHead(_)
            | Self::JournalLacks(_)
            | Self::Random => Kind::Store,
            Self::StoreExists(_)
            | Self::Unsigned(_)
            | Self::SeveralCertificates(_)
            | Self::ProfileName { .. }
            | Self::NameOfGateway(_)
            | Self::NameOpen { .. }
            | Self::Name(_)
            | Self::Days(_)
            | Self::Foreign(_)
            | Self::Lines(_)
            | Self::NotARequest
            | Self::NeedsWords
            | Self::WordsDiffer
            | Self::Words(_)
            | Self::NoForm(_)
            | Self::NeedsAuthority
            | Self::KeyElsewhere
            | Self::RootNeeded
            | Self::NoRoot
            | Self::Revoked(_)
            | Self::Suspended(_)
            | Self::NotSuspended(_)
            | Self::Conflict
            | Self::AuthorityChanged
            | Self::KnownKey
            | Self::NotABackup(_)
            | Self::OtherCluster { .. }
            | Self::ForeignList(_)
            | Self::Order(_)
            | Self::Consume(_)
            | Self::Authority(_)
            | Self::Seal(_)
            | Self::PrivateKey(_)
            | Self::Code(_)
            | Self::Settings(_)
            | Self::Profile(_)
            | Self::Bundle(_)
            | Self::Refused(_) => Kind::Refused,
        }
    }

    pub(crate) fn file(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self {
        move |error| {
            if error.kind() == std::io::ErrorKind::StorageFull {
                return Self::DiskFull;
            }
            Self::File { path: path.to_owned(), error }
        }
    }
}

impl From<sqlx::Error> for ControlError {
    fn from(error: sqlx::Error) -> Self {
        let code = error.as_database_error().and_then(|error| error.code());
        let code: i64 = code.and_then(|code| code.parse().ok()).unwrap_or_default();
        // The low octet is SQLite's primary result code, the rest details it.
        match code & 0xff {
            SQLITE_FULL => Self::DiskFull,
            SQLITE_BUSY | SQLITE_LOCKED => Self::Busy,
            _ => Self::Database(error.to_string()),
        }
    }
}

impl From<sqlx::migrate::MigrateError> for ControlError {
    fn from(error: sqlx::migrate::MigrateError) -> Self {
        use sqlx::migrate::MigrateError;
        if let MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) = error {
            return error.into();
        }
        Self::Database(error.to_string())
    }
}

/// `line 3`, `lines 1, 2`.
fn lines(lines: &[LineNumber]) -> String {
    let numbers = lines.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if lines.len() == 1 { format!("line {numbers}") } else { format!("each of the lines {numbers}") }
}

const SQLITE_BUSY: i64 = 5;
const SQLITE_LOCKED: i64 = 6;
const SQLITE_FULL: i64 = 13;
