//! `cryptocluster init`.

use std::path::PathBuf;

use control::{CaOrder, ControlError, RootKeeping, Store, Unlock as _};
use enroll::{AuthorityAlgorithm, ClusterName, GatewayName, Opener};

use super::store::{StoreArgs, UnlockArgs, context, run};
use command::say;

/// Makes a store with a CA, for an administrator's machine without a node.
#[derive(Debug, clap::Args)]
pub(super) struct Init {
    /// Make the CA and its store only; this machine runs no node.
    #[arg(long, required = true)]
    ca_only: bool,
    /// The cluster's name.
    #[arg(long, value_name = "NAME")]
    cluster: String,
    /// The name or address that clients connect to.
    #[arg(long, value_name = "NAME")]
    gateway: String,
    /// The CA's key.
    #[arg(long, value_enum, default_value = "p256")]
    algorithm: CaAlgorithm,
    /// For how many days the CA is valid.
    #[arg(long, value_name = "DAYS", default_value_t = 3650)]
    days: u16,
    /// Put a root above the CA; its sealed key goes into this file, to be kept offline.
    #[arg(long, value_name = "FILE")]
    root: Option<PathBuf>,
    /// Seal the CA's key under a passphrase that is asked for, instead of a key file in the store.
    #[arg(long)]
    ask_passphrase: bool,
    #[command(flatten)]
    unlock: UnlockArgs,
    #[command(flatten)]
    store: StoreArgs,
}

/// The key of a CA.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(super) enum CaAlgorithm {
    /// ECDSA on P-256: understood by all.
    P256,
    /// Ed25519.
    Ed25519,
    /// ECDSA on P-384.
    P384,
    /// RSA of 3072 bits.
    Rsa3072,
}

impl CaAlgorithm {
    pub(super) const fn algorithm(self) -> AuthorityAlgorithm {
        match self {
            Self::P256 => AuthorityAlgorithm::P256,
            Self::Ed25519 => AuthorityAlgorithm::Ed25519,
            Self::P384 => AuthorityAlgorithm::P384,
            Self::Rsa3072 => AuthorityAlgorithm::Rsa3072,
        }
    }
}

impl Init {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let cluster = ClusterName::new(&self.cluster).map_err(|_| ControlError::Name(self.cluster.clone()))?;
        let gateway = GatewayName::new(&self.gateway).map_err(|_| ControlError::Name(self.gateway.clone()))?;
        let directory = &self.store.store;
        let passphrase = self.unlock.new_passphrase(self.ask_passphrase)?;
        let key_file = match (&passphrase, self.unlock.key_file()) {
            (Some(_), _) => None,
            (None, Some(file)) => Some(self.unlock.opening().key_file(file)?),
            (None, None) => Some(Store::draw_key_file(directory)?),
        };
        let opener = match (&passphrase, &key_file) {
            (Some(passphrase), _) => Opener::Passphrase(passphrase),
            (None, Some(file)) => Opener::KeyFile(file),
            (None, None) => anyhow::bail!("nothing seals the CA's key"),
        };
        let order = CaOrder {
            algorithm: self.algorithm.algorithm(),
            days: self.days,
            opener,
            root: self.root.as_deref().map_or(RootKeeping::None, RootKeeping::File),
        };
        let authorities = run(async {
            let mut store = Store::create(&context(), directory, &cluster, &gateway, &order).await?;
            let authorities = store.authorities().await?;
            store.close().await?;
            Ok(authorities)
        })?;
        self.store.show(&authorities, |authorities| {
            say!("The CA of {cluster} is made, in {}.", directory.display());
            for authority in authorities {
                say!("  {:<7} {:<8} until {}", authority.rank, authority.algorithm, authority.expires);
                say!("  fingerprint  {}", authority.fingerprint);
                say!("  words        {}", authority.words);
            }
            if let Some(root) = &self.root {
                say!("Take {} off this machine now: it is the root's key.", root.display());
            }
            say!("Next: cryptocluster ticket new NAME");
        })
    }
}
