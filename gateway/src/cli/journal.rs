//! `cryptocluster journal`.

use control::JournalEntry;
use enroll::UnixTime;

use super::store::StoreArgs;
use command::say;

/// Read and check the journal of who did what.
#[derive(Debug, clap::Subcommand)]
pub(super) enum JournalVerb {
    /// List the entries.
    List {
        /// The first entry to show.
        #[arg(long, value_name = "NUMBER", default_value_t = 1)]
        from: u64,
        #[command(flatten)]
        store: StoreArgs,
    },
    /// Check that no entry was changed or left out, and print the head.
    Verify {
        /// A head that was noted before: the journal must still contain it.
        #[arg(long, value_name = "HASH")]
        head: Option<String>,
        #[command(flatten)]
        store: StoreArgs,
    },
    /// Print the entries, one JSON object a line.
    Export {
        /// The first entry to print.
        #[arg(long, value_name = "NUMBER", default_value_t = 1)]
        from: u64,
        #[command(flatten)]
        store: StoreArgs,
    },
}

impl JournalVerb {
    pub(super) fn run(self) -> anyhow::Result<()> {
        match self {
            Self::List { from, store } => {
                let entries = store.with(async |control, _| Ok(control.journal(from).await?))?;
                store.show(&entries, |entries| entries.iter().for_each(line))
            }
            Self::Verify { head, store } => {
                let verified = store.with(async |control, _| Ok(control.verify_journal(head.as_deref()).await?))?;
                store.show(&verified, |verified| {
                    say!("The journal is whole: {} entries.", verified.entries);
                    say!("head  {}", verified.head);
                })
            }
            Self::Export { from, store } => {
                for entry in store.with(async |control, _| Ok(control.journal(from).await?))? {
                    say!("{}", serde_json::to_string(&entry)?);
                }
                Ok(())
            }
        }
    }
}

fn line(entry: &JournalEntry) {
    let at = UnixTime { seconds: entry.at };
    say!("{:>5}  {at}  {:<12} {:<18} {}  {}", entry.seq, entry.actor, entry.act, entry.subject, entry.detail);
}
