//! `cryptocluster profile`.

use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::Context as _;
use control::{ControlError, ProfileKey, write_private, write_public};
use enroll::{Profile, ProfileFormat, Settings};
use serde::Serialize;
use wire::Prefix;

use super::cert::{Protection, private_key};
use super::store::{StoreArgs, UnlockArgs};
use command::say;

/// Say what profiles stand for, and write them for a client's own system.
#[derive(Debug, clap::Subcommand)]
pub(super) enum ProfileVerb {
    /// List the profiles.
    List(StoreArgs),
    /// Say what a profile's number stands for.
    Set(Set),
    /// Write a client's profile in the form of its system.
    Export(Export),
}

#[derive(Debug, clap::Args)]
pub(super) struct Set {
    /// The number, 0 to 15.
    #[arg(value_parser = clap::value_parser!(u8).range(0..16))]
    number: u8,
    /// The name.
    name: String,
    /// Networks behind the gateway; none means that all traffic goes there.
    #[arg(long, value_name = "NETWORK", value_delimiter = ',')]
    routes: Vec<Prefix>,
    /// Name servers behind the gateway.
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    dns: Vec<IpAddr>,
    #[command(flatten)]
    store: StoreArgs,
}

#[derive(Debug, clap::Args)]
pub(super) struct Export {
    /// Serial or name of the client's certificate.
    which: String,
    /// The form.
    #[arg(long, value_enum)]
    format: Format,
    /// The client's private key, PEM or DER; Windows and Apple need it in the profile.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// The directory that the files are written into.
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,
    #[command(flatten)]
    protection: Protection,
    #[command(flatten)]
    unlock: UnlockArgs,
    #[command(flatten)]
    store: StoreArgs,
}

/// The form of a profile.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Format {
    /// strongSwan on Linux: swanctl.conf and the files that it names.
    Swanctl,
    /// Windows: a PowerShell script.
    Powershell,
    /// iOS and macOS: a signed configuration profile.
    Mobileconfig,
    /// Android: a profile of the strongSwan app.
    Sswan,
    /// Linux desktops: a script for NetworkManager.
    Networkmanager,
    /// PEM files for everything else.
    Pem,
}

#[derive(Serialize)]
struct Written {
    files: Vec<PathBuf>,
}

impl ProfileVerb {
    pub(super) fn run(self) -> anyhow::Result<()> {
        match self {
            Self::List(store) => {
                let list = store.with(async |control, _| Ok(control.profiles().await?))?;
                store.show(&list, |list| {
                    for profile in list {
                        let routes =
                            if profile.routes.is_empty() { "everything".to_owned() } else { profile.routes.join(",") };
                        say!(
                            "{:>2}  {:<16} routes {routes}  dns {}",
                            profile.number,
                            profile.name,
                            profile.dns.join(",")
                        );
                    }
                })
            }
            Self::Set(set) => {
                let settings = Settings { routes: set.routes, dns: set.dns };
                let number = Profile::new(set.number).context("profiles have the numbers 0 to 15")?;
                set.store.with(async |control, context| {
                    Ok(control.set_profile(context, number, &set.name, &settings).await?)
                })?;
                set.store.show(&serde_json::json!({ "number": set.number, "name": set.name }), |_| {
                    say!("Profile {} is {}.", set.number, set.name);
                })
            }
            Self::Export(export) => export.run(),
        }
    }
}

impl Export {
    fn run(self) -> anyhow::Result<()> {
        let format = match self.format {
            Format::Swanctl => ProfileFormat::Swanctl,
            Format::Powershell => ProfileFormat::PowerShell,
            Format::Mobileconfig => ProfileFormat::MobileConfig,
            Format::Sswan => ProfileFormat::Sswan,
            Format::Networkmanager => ProfileFormat::NetworkManager,
            Format::Pem => ProfileFormat::Pem,
        };
        let key = self.key.as_deref().map(private_key).transpose()?;
        let bundled = matches!(self.format, Format::Powershell | Format::Mobileconfig | Format::Sswan);
        let passphrase = if bundled && key.is_some() { self.protection.passphrase()? } else { wire::Secret::default() };
        let files = self.store.with(async |control, context| {
            let key =
                key.as_ref().map(|key| ProfileKey { key, cipher: self.protection.cipher(), passphrase: &passphrase });
            let authority = match format {
                ProfileFormat::MobileConfig => Some(control.open_authority(&mut self.unlock.opening()).await?),
                ProfileFormat::Swanctl
                | ProfileFormat::PowerShell
                | ProfileFormat::Sswan
                | ProfileFormat::NetworkManager
                | ProfileFormat::Pem => None,
            };
            Ok(control.export_profile(context, &self.which, format, key, authority.as_ref()).await?)
        })?;
        let mut written = Written { files: Vec::new() };
        for file in files {
            let path = self.out.join(&file.path);
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent)
                    .map_err(|error| ControlError::File { path: parent.to_owned(), error })?;
            }
            if file.secret {
                write_private(&path, &file.content)?
            } else {
                write_public(&path, &file.content)?
            }
            written.files.push(path);
        }
        self.store.show(&written, |written| {
            for path in &written.files {
                say!("{}", path.display());
            }
        })
    }
}
