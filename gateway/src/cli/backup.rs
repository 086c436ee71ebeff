//! `cryptocluster backup` and `cryptocluster restore`.

use std::path::PathBuf;

use control::Store;

use super::store::{StoreArgs, UnlockArgs, context, run};
use command::say;

/// Write the store into one file. What is secret in it is sealed as the CA's key is.
#[derive(Debug, clap::Args)]
pub(super) struct BackupVerb {
    /// The file.
    file: PathBuf,
    #[command(flatten)]
    store: StoreArgs,
}

/// Put a backup in the place of the store. Open tickets are voided, and nothing is un-revoked.
#[derive(Debug, clap::Args)]
pub(super) struct RestoreVerb {
    /// The backup.
    file: PathBuf,
    /// Published revocation lists, which may know more than the backup.
    #[arg(long, value_name = "FILE")]
    crl: Vec<PathBuf>,
    #[command(flatten)]
    unlock: UnlockArgs,
    #[command(flatten)]
    store: StoreArgs,
}

impl BackupVerb {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let backup = self.store.with(async |control, context| Ok(control.backup(context, &self.file).await?))?;
        self.store.show(&backup, |backup| {
            say!("The backup is in {}, {} octets.", backup.file.display(), backup.octets);
            say!("Note this head of its journal elsewhere: {}", backup.journal.head);
            say!("Keep the CA's passphrase or key file apart from it; without that its secrets stay closed.");
        })
    }
}

impl RestoreVerb {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let restored = run(async {
            let directory = &self.store.store;
            let mut opening = self.unlock.opening();
            Ok(Store::restore(&context(), &self.file, directory, &self.crl, &mut opening).await?)
        })?;
        self.store.show(&restored, |restored| {
            say!("The store of {} is restored.", restored.cluster);
            say!("  open tickets voided   {}", restored.voided);
            say!("  revocations taken in  {}", restored.merged);
            if let Some(before) = &restored.before {
                say!("  the store before      {}", before.display());
            }
            say!("Make new tickets for those that were voided, and publish: cryptocluster cert crl");
        })
    }
}
