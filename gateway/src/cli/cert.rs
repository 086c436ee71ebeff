//! `cryptocluster cert` and `cryptocluster ca`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use control::{
    AuthorityEntry, CaOrder, CalendarEntry, CertificateEntry, CertificateKind, CertificateWish, ControlError, Draft,
    Issued, Renewal, RootKeeping, Unlock as _, write_private, write_public,
};
use enroll::{BundleCipher, Opener, RevocationCause, pem_block};
use serde::Serialize;

use super::init::CaAlgorithm;
use super::store::{StoreArgs, UnlockArgs, passphrase_file, prompt_secret, read_der, refuse_secret};
use super::ticket::duration;
use command::{output, say};

/// Look at certificates, issue, renew, revoke and release them.
#[derive(Debug, clap::Subcommand)]
pub(super) enum CertVerb {
    /// List all certificates.
    List(StoreArgs),
    /// Show one certificate.
    Show(Which),
    /// Issue without a code: for a PKCS#10 request, or with a key that is made here.
    Issue(IssueArgs),
    /// Issue again for the same name and a new key; the old certificate stays good until it ends or is revoked.
    Renew(RenewArgs),
    /// Note that the holder of a certificate showed to have its key, so that it does not lapse.
    Confirm(Which),
    /// Revoke a certificate.
    Revoke(RevokeArgs),
    /// End the suspension of a certificate whose ticket was used twice, once you know that its holder is honest.
    Release(Which),
    /// Sign and write the revocation lists.
    Crl(CrlArgs),
    /// Write a certificate as PEM, DER or PKCS#12.
    Export(ExportArgs),
    /// Show what ends when.
    Calendar(StoreArgs),
}

/// Look at the cluster's CAs, and roll over to a new one.
#[derive(Debug, clap::Subcommand)]
pub(super) enum CaVerb {
    /// List the CAs with fingerprints and words to compare.
    List(StoreArgs),
    /// Make a new CA that issues from now on; the old one stays trusted until it ends.
    Rollover(RolloverArgs),
}

#[derive(Debug, clap::Args)]
pub(super) struct Which {
    /// Its serial, or its name if only one that still counts has it.
    which: String,
    #[command(flatten)]
    store: StoreArgs,
}

#[derive(Debug, clap::Args)]
pub(super) struct IssueArgs {
    /// Whom it names: a client, or with --gateway the address of the gateway.
    name: String,
    /// For a gateway.
    #[arg(long)]
    gateway: bool,
    /// A PKCS#10 request, PEM or DER. Its key is taken, nothing else.
    #[arg(long, value_name = "FILE", required_unless_present = "key_out")]
    request: Option<PathBuf>,
    /// Make the key here, for a device that cannot, and write it into this file.
    #[arg(long, value_name = "FILE", conflicts_with = "request")]
    key_out: Option<PathBuf>,
    #[command(flatten)]
    new: NewCertificate,
}

#[derive(Debug, clap::Args)]
pub(super) struct RenewArgs {
    /// Serial or name of the certificate to renew.
    which: String,
    /// A PKCS#10 request of the new key, PEM or DER, as `ccvpn request --pkcs10` prints it.
    #[arg(long, value_name = "FILE")]
    request: PathBuf,
    #[command(flatten)]
    new: NewCertificate,
}

/// What issuing and renewing have in common: how long the new certificate lasts, where it goes, who signs it.
#[derive(Debug, clap::Args)]
struct NewCertificate {
    /// For how many days it is valid.
    #[arg(long, value_name = "DAYS", default_value_t = 398)]
    days: u16,
    /// Write certificate and chain into this file instead of printing them.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    unlock: UnlockArgs,
    #[command(flatten)]
    store: StoreArgs,
}

#[derive(Debug, clap::Args)]
pub(super) struct RevokeArgs {
    /// Its serial, or its name if only one that still counts has it.
    which: String,
    /// Why.
    #[arg(long, value_enum, default_value = "unspecified")]
    cause: Cause,
    #[command(flatten)]
    store: StoreArgs,
}

/// Why a certificate is revoked.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Cause {
    /// Nobody says.
    Unspecified,
    /// Somebody else has the key or the code.
    Compromise,
    /// A newer certificate took its place.
    Superseded,
    /// Its holder left.
    Withdrawn,
}

#[derive(Debug, clap::Args)]
pub(super) struct CrlArgs {
    /// Write the lists into this file instead of printing them.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// How long the lists are valid, such as 48h or 7d.
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "7d")]
    life: Duration,
    #[command(flatten)]
    unlock: UnlockArgs,
    #[command(flatten)]
    store: StoreArgs,
}

#[derive(Debug, clap::Args)]
pub(super) struct ExportArgs {
    /// Its serial, or its name if only one that still counts has it.
    which: String,
    /// The form.
    #[arg(long, value_enum, default_value = "pem")]
    format: Format,
    /// Where to; PEM is printed if nothing is given.
    #[arg(long, value_name = "FILE", required_if_eq_any([("format", "der"), ("format", "pkcs12")]))]
    out: Option<PathBuf>,
    /// The private key's file, PEM or DER, for PKCS#12.
    #[arg(long, value_name = "FILE", required_if_eq("format", "pkcs12"))]
    key: Option<PathBuf>,
    #[command(flatten)]
    protection: Protection,
    #[command(flatten)]
    store: StoreArgs,
}

/// How a private key is protected in a PKCS#12 file.
#[derive(Debug, clap::Args)]
pub(super) struct Protection {
    /// The ciphers of the PKCS#12 file.
    #[arg(long, value_enum, default_value = "aes256-sha256")]
    cipher: Cipher,
    /// A file with the passphrase of the PKCS#12 file; without it, it is asked for.
    #[arg(long, value_name = "FILE")]
    export_passphrase_file: Option<PathBuf>,
    /// Refused.
    #[arg(long, hide = true, value_parser = refuse_secret)]
    export_passphrase: Option<String>,
}

/// The ciphers of a PKCS#12 file.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Cipher {
    /// PBES2 with AES-256 and HMAC-SHA-256, for all that is not old.
    #[value(name = "aes256-sha256")]
    Modern,
    /// Weak: 3DES and HMAC-SHA-1, for systems that read nothing else.
    #[value(name = "3des-sha1")]
    Old,
}

/// The form of a certificate.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Format {
    /// PEM.
    Pem,
    /// DER.
    Der,
    /// PKCS#12, with the private key.
    Pkcs12,
}

#[derive(Debug, clap::Args)]
pub(super) struct RolloverArgs {
    /// The new CA's key.
    #[arg(long, value_enum, default_value = "p256")]
    algorithm: CaAlgorithm,
    /// For how many days the new CA is valid; below a root, until that ends at the latest.
    #[arg(long, value_name = "DAYS", default_value_t = 3650)]
    days: u16,
    /// The file with the sealed key of the root that stands above the CA, brought for this command.
    #[arg(long, value_name = "FILE")]
    root: Option<PathBuf>,
    #[command(flatten)]
    unlock: UnlockArgs,
    #[command(flatten)]
    store: StoreArgs,
}

#[derive(Serialize)]
struct Made<'a> {
    serial: String,
    name: &'a str,
    certificate: &'a str,
    chain: &'a str,
    key_words: String,
    authority_words: String,
    key_file: Option<&'a PathBuf>,
}

impl CertVerb {
    pub(super) fn run(self) -> anyhow::Result<()> {
        match self {
            Self::List(store) => {
                let list = store.with(async |control, context| Ok(control.certificates(context).await?))?;
                store.show(&list, |list| {
                    say!("{:<16}  {:<8} {:<10} {:<10}  name", "serial", "kind", "standing", "ends");
                    list.iter().for_each(line);
                })
            }
            Self::Show(Which { which, store }) => {
                let found = store.with(async |control, context| Ok(control.certificate(context, &which).await?))?;
                store.show(&found, show)
            }
            Self::Confirm(Which { which, store }) => {
                let found = store.with(async |control, context| Ok(control.confirm(context, &which).await?))?;
                store.show(&found, |found| say!("Certificate {} of {} is proven.", found.serial, found.name))
            }
            Self::Issue(issue) => issue.run(),
            Self::Renew(renew) => renew.run(),
            Self::Revoke(RevokeArgs { which, cause, store }) => {
                let cause = match cause {
                    Cause::Unspecified => RevocationCause::Unspecified,
                    Cause::Compromise => RevocationCause::Compromise,
                    Cause::Superseded => RevocationCause::Superseded,
                    Cause::Withdrawn => RevocationCause::Withdrawn,
                };
                let report = store.with(async |control, context| Ok(control.revoke(context, &which, cause).await?))?;
                store.show(&report, |report| {
                    let of = report.name.as_ref().map_or_else(String::new, |name| format!(" of {name}"));
                    let key = if report.key { ", and its key" } else { "" };
                    say!("Certificate {}{of} is revoked{key}. Publish it: cryptocluster cert crl", report.serial);
                })
            }
            Self::Release(Which { which, store }) => {
                let report = store.with(async |control, context| Ok(control.release(context, &which).await?))?;
                store.show(&report, |report| {
                    let of = report.name.as_ref().map_or_else(String::new, |name| format!(" of {name}"));
                    say!("Certificate {}{of} is released. Publish it: cryptocluster cert crl", report.serial);
                })
            }
            Self::Crl(crl) => crl.run(),
            Self::Export(export) => export.run(),
            Self::Calendar(store) => {
                let calendar = store.with(async |control, context| Ok(control.calendar(context).await?))?;
                store.show(&calendar, |calendar| {
                    say!("{:<10}  {:>5}  {:<10}  {:<8} {:<16}  name", "ends", "days", "renew from", "kind", "serial");
                    calendar.iter().for_each(date);
                })
            }
        }
    }
}

impl CaVerb {
    pub(super) fn run(self) -> anyhow::Result<()> {
        match self {
            Self::List(store) => {
                let list = store.with(async |control, _| Ok(control.authorities().await?))?;
                store.show(&list, |list| list.iter().for_each(show_ca))
            }
            Self::Rollover(RolloverArgs { algorithm, days, root, unlock, store }) => {
                let made = store.with(async |control, context| {
                    let mut opening = unlock.opening();
                    let (passphrase, key_file);
                    let opener = if unlock.key_file().is_none() && control.sealed_under_passphrase().await? {
                        passphrase = opening.passphrase()?;
                        Opener::Passphrase(&passphrase)
                    } else {
                        key_file = opening.key_file(&control.key_file())?;
                        Opener::KeyFile(&key_file)
                    };
                    let algorithm = algorithm.algorithm();
                    let root = root.as_deref().map_or(RootKeeping::None, RootKeeping::File);
                    let order = CaOrder { algorithm, days, opener, root };
                    Ok(control.roll_over(context, &order, &mut opening).await?)
                })?;
                store.show(&made, |made| {
                    say!("From now on this CA issues:");
                    show_ca(made);
                    say!("Give it to gateways and clients before the old one ends; full replies carry its certificate by the old one.");
                })
            }
        }
    }
}

impl IssueArgs {
    fn run(self) -> anyhow::Result<()> {
        let kind = if self.gateway { CertificateKind::Gateway } else { CertificateKind::Client };
        let request = self.request.as_deref().map(read_der).transpose()?;
        // Before a certificate is issued for it: a key that cannot be written is lost.
        let key_file = self.key_out.as_deref().map(Draft::private).transpose()?;
        let wish = CertificateWish { kind, name: &self.name, days: self.new.days };
        let issued = self.new.store.with(async |control, context| {
            let authority = control.open_authority(&mut self.new.unlock.opening()).await?;
            Ok(match &request {
                Some(request) => control.issue_pkcs10(context, &authority, wish, request).await?,
                None => control.issue_with_key(context, &authority, wish).await?,
            })
        })?;
        if let (Some(key), Some(file)) = (&issued.key, key_file) {
            let pem = zeroize::Zeroizing::new(pem_block("PRIVATE KEY", key.expose()));
            file.finish(pem.as_bytes())?;
        }
        self.new.show(&self.name, &issued, self.key_out.as_ref())
    }
}

impl RenewArgs {
    fn run(self) -> anyhow::Result<()> {
        let request = read_der(&self.request)?;
        let (issued, old) = self.new.store.with(async |control, context| {
            let authority = control.open_authority(&mut self.new.unlock.opening()).await?;
            let renewal = Renewal { which: &self.which, days: self.new.days };
            let old = control.certificate(context, &self.which).await?;
            Ok((control.renew(context, &authority, renewal, &request).await?, old))
        })?;
        self.new.show(&old.name, &issued, None)?;
        if !self.new.store.json {
            say!("The old certificate {} stays good; once the new one works:", old.serial);
            say!("  cryptocluster cert revoke {} --cause superseded", old.serial);
        }
        Ok(())
    }
}

impl NewCertificate {
    fn show(&self, name: &str, issued: &Issued, key_file: Option<&PathBuf>) -> anyhow::Result<()> {
        let text = format!("{}{}", issued.certificate, issued.chain);
        if let Some(path) = &self.out {
            write_public(path, text.as_bytes())?;
        }
        let made = Made {
            serial: issued.serial.to_string(),
            name,
            certificate: &issued.certificate,
            chain: &issued.chain,
            key_words: issued.key_words.to_string(),
            authority_words: issued.authority_words.to_string(),
            key_file,
        };
        self.store.show(&made, |made| {
            say!("Certificate {} for {} is issued.", made.serial, made.name);
            say!("  words of its key     {}", made.key_words);
            say!("  words of the CA      {}", made.authority_words);
            say!("Compare both with the requester by telephone before it is used.");
            if let Some(path) = made.key_file {
                say!("The private key is in {}: it is kept nowhere else.", path.display());
            }
            match &self.out {
                Some(path) => say!("Certificate and chain are in {}.", path.display()),
                None => output::write(&format!("\n{text}")),
            }
        })
    }
}

impl CrlArgs {
    fn run(self) -> anyhow::Result<()> {
        let lists = self.store.with(async |control, context| {
            Ok(control.revocation_lists(context, self.life, &mut self.unlock.opening()).await?)
        })?;
        let text: String = lists.iter().map(|list| pem_block("X509 CRL", list)).collect();
        if let Some(path) = &self.out {
            write_public(path, text.as_bytes())?;
        }
        self.store.show(&serde_json::json!({ "lists": lists.len(), "pem": text }), |_| match &self.out {
            Some(path) if lists.len() == 1 => say!("The revocation list is in {}.", path.display()),
            Some(path) => say!("{} revocation lists, one for each CA, are in {}.", lists.len(), path.display()),
            None => output::write(&text),
        })
    }
}

impl ExportArgs {
    fn run(self) -> anyhow::Result<()> {
        let found = self.store.with(async |control, context| Ok(control.certificate(context, &self.which).await?))?;
        let pem = found.certificate.clone().ok_or_else(|| ControlError::Unsigned(found.serial.clone()))?;
        let content = match (self.format, &self.key) {
            (Format::Pem, _) => pem.clone().into_bytes(),
            (Format::Der, _) => enroll::pem_blocks(&pem).into_iter().next().unwrap_or_default(),
            (Format::Pkcs12, Some(key)) => {
                let key = private_key(key)?;
                let (cipher, passphrase) = (self.protection.cipher(), self.protection.passphrase()?);
                self.store.with(async |control, context| {
                    Ok(control.export_pkcs12(context, &self.which, &key, cipher, &passphrase).await?)
                })?
            }
            (Format::Pkcs12, None) => anyhow::bail!("PKCS#12 carries the private key: give its file with --key"),
        };
        if let Some(path) = &self.out {
            match self.format {
                Format::Pem | Format::Der => write_public(path, &content)?,
                Format::Pkcs12 => write_private(path, &content)?,
            }
        }
        self.store.show(&found, |found| match &self.out {
            Some(path) => say!("Certificate {} of {} is in {}.", found.serial, found.name, path.display()),
            None => output::write(&pem),
        })
    }
}

impl Protection {
    pub(super) const fn cipher(&self) -> BundleCipher {
        match self.cipher {
            Cipher::Modern => BundleCipher::Modern,
            Cipher::Old => BundleCipher::Old,
        }
    }

    pub(super) fn passphrase(&self) -> anyhow::Result<wire::Secret> {
        match &self.export_passphrase_file {
            Some(file) => Ok(passphrase_file(file)?),
            None => prompt_secret("Passphrase for the exported key: ").context(
                "there is no terminal to ask for the passphrase of the exported key: give --export-passphrase-file",
            ),
        }
    }
}

/// A private key in PKCS#8, PEM or DER.
pub(super) fn private_key(path: &std::path::Path) -> anyhow::Result<wire::Secret> {
    let content = control::read_secret(path)?;
    let text = zeroize::Zeroizing::new(String::from_utf8_lossy(content.expose()).into_owned());
    let blocks = enroll::pem_blocks(&text).into_iter().next();
    Ok(blocks.map_or(content, wire::Secret::new))
}

fn line(entry: &CertificateEntry) {
    let standing = word(entry);
    say!("{}  {:<8} {standing:<10} {}  {}", entry.serial, entry.kind.word(), entry.expires, entry.name);
}

fn word(entry: &CertificateEntry) -> String {
    serde_json::to_value(entry.standing).ok().and_then(|word| word.as_str().map(str::to_owned)).unwrap_or_default()
}

fn show(entry: &CertificateEntry) {
    say!("serial    {}", entry.serial);
    say!("kind      {}", entry.kind.word());
    say!("name      {}", entry.name);
    say!("standing  {}", word(entry));
    say!("issued    {}", entry.issued);
    say!("good      {} to {}", entry.starts, entry.expires);
    if let Some(cause) = &entry.revoked {
        say!("revoked   {cause}");
    }
    if let Some(old) = &entry.renews {
        say!("renews    {old}");
    }
    say!("key       {}", entry.key);
    if let Some(pem) = &entry.certificate {
        output::write(&format!("\n{pem}"));
    }
}

fn date(entry: &CalendarEntry) {
    let due = if entry.due { "  RENEW NOW" } else { "" };
    say!(
        "{}  {:>5}  {}  {:<8} {}  {}{due}",
        entry.expires,
        entry.days,
        entry.renew_from,
        entry.kind,
        entry.serial,
        entry.name
    );
}

fn show_ca(ca: &AuthorityEntry) {
    say!("{:<9} {:<7} {:<8} until {}", ca.standing, ca.rank, ca.algorithm, ca.expires);
    say!("  fingerprint  {}", ca.fingerprint);
    say!("  words        {}", ca.words);
}
