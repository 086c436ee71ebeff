//! `node.toml`: what only this node knows.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;

use super::document::{ConfigError, Document};
use super::values::{self, InterfaceAddress};
use crate::dispatch::Keeper;
use crate::logs::{Format, Level};

/// The bootstrap of one node.
#[derive(Clone, Debug)]
pub struct Node {
    /// The node's name, as in the members of the cluster.
    pub name: String,
    /// The cluster's configuration file.
    pub cluster_file: PathBuf,
    /// Where the API's socket is.
    pub run_directory: PathBuf,
    /// The directory in a BPF file system where the dispatch programs are pinned; one per node.
    pub pin_directory: Option<PathBuf>,
    /// What keeps the filter on the interfaces; `None` for what this kernel does best.
    pub attachment: Option<Keeper>,
    /// The network of the peers.
    pub outside: Interface,
    /// The protected network.
    pub inside: Interface,
    /// The network between the nodes, if they have one of their own.
    pub cluster: Option<Interface>,
    /// The certificate that makes this node a member; `None` if it runs alone.
    pub membership: Option<Membership>,
    /// The tunnel device.
    pub tun: Tun,
    /// Threads that carry packets; one per core if the file says 0 or nothing.
    pub workers: usize,
    /// What is logged, and how.
    pub log: (Level, Format),
}

/// A network interface and this node's own address on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// The kernel's name for it.
    pub name: String,
    /// The node's own address, not the cluster's.
    pub address: InterfaceAddress,
}

/// Certificate, key and CA of the cluster link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// The certificate chain, PEM.
    pub certificate: PathBuf,
    /// Its private key, PKCS#8 in PEM.
    pub key: PathBuf,
    /// The cluster's CA, PEM.
    pub ca: PathBuf,
}

/// The tunnel device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tun {
    /// Its name.
    pub name: String,
    /// Octets of the longest inner packet.
    pub mtu: u16,
}

impl Node {
    /// Reads and checks the file.
    ///
    /// # Errors
    /// The first thing in it that is not allowed.
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        Self::from_document(&Document::load(file)?)
    }

    pub(super) fn from_document(document: &Document) -> Result<Self, ConfigError> {
        let raw: RawNode = document.parse()?;
        let interface = |raw: &RawInterface| -> Result<Interface, ConfigError> {
            Ok(Interface {
                name: document.value(&raw.interface, INTERFACE, interface_name)?,
                address: document.value(&raw.address, values::ADDRESS, values::interface_address)?,
            })
        };
        let tun = match raw.tun {
            Some(tun) => Tun {
                name: document.value(&tun.name, INTERFACE, interface_name)?,
                mtu: match u16::try_from(*tun.mtu.get_ref()).ok().filter(|mtu| (576..=9000).contains(mtu)) {
                    Some(mtu) => mtu,
                    None => return Err(document.refuse(tun.mtu.span(), "the MTU is out of range", "use 576 to 9000")),
                },
            },
            None => Tun { name: "ccluster0".into(), mtu: 1400 },
        };
        let log = raw.log.unwrap_or_default();
        Ok(Self {
            name: document.value(&raw.name, values::NAME, values::name)?,
            cluster_file: document.beside(&raw.cluster_config),
            run_directory: document.beside(raw.run_directory.as_deref().unwrap_or("/run/cryptocluster")),
            pin_directory: raw.pin_directory.map(|path| document.beside(&path)),
            attachment: raw.attachment.map(|attachment| match attachment {
                RawAttachment::Tcx => Keeper::Tcx,
                RawAttachment::Clsact => Keeper::Clsact,
            }),
            outside: interface(&raw.outside)?,
            inside: interface(&raw.inside)?,
            cluster: raw.cluster.as_ref().map(interface).transpose()?,
            membership: raw.membership.map(|files| Membership {
                certificate: document.beside(&files.certificate),
                key: document.beside(&files.key),
                ca: document.beside(&files.ca),
            }),
            tun,
            workers: raw.workers.unwrap_or(0),
            log: (log.level, log.format),
        })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawNode {
    name: Spanned<String>,
    cluster_config: String,
    run_directory: Option<String>,
    pin_directory: Option<String>,
    attachment: Option<RawAttachment>,
    workers: Option<usize>,
    outside: RawInterface,
    inside: RawInterface,
    cluster: Option<RawInterface>,
    membership: Option<RawMembership>,
    tun: Option<RawTun>,
    log: Option<RawLog>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RawAttachment {
    Tcx,
    Clsact,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawInterface {
    interface: Spanned<String>,
    address: Spanned<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawMembership {
    certificate: String,
    key: String,
    ca: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTun {
    name: Spanned<String>,
    mtu: Spanned<u32>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawLog {
    level: Level,
    format: Format,
}

const INTERFACE: &str = "name an interface as `ip link` does, in 1 to 15 characters without spaces and slashes";

fn interface_name(text: &str) -> Option<String> {
    let fits = (1..=15).contains(&text.len()) && !text.contains(|c: char| c.is_whitespace() || c == '/');
    fits.then(|| text.to_owned())
}
