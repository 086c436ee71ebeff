//! What keeps a node from starting or going on, as one sentence and an exit code.

use control::{ControlError, Kind};

use crate::config::ConfigError;
use crate::dispatch::DispatchError;
use crate::link::identity::IdentityError;

/// Something about the machine that an operator must put right.
#[derive(Debug, thiserror::Error)]
pub enum Machine {
    /// The process lacks a capability.
    #[error(
        "the capability {0} is missing; run as root, or grant it (systemd: AmbientCapabilities={0}; by hand: setcap {0}+ep)"
    )]
    Capability(
        /// Its name.
        &'static str,
    ),
    /// The TUN device's control file is missing.
    #[error(
        "there is no TUN device: /dev/net/tun cannot be opened ({0}); load the module (modprobe tun), or let the container have the device"
    )]
    Tun(
        /// Why.
        std::io::Error,
    ),
    /// A UDP port is taken.
    #[error(
        "UDP port {port} of {address} is taken by another program; find it with `ss -ulpn sport = :{port}` and stop it (is another IKE daemon running?)"
    )]
    PortTaken {
        /// The address.
        address: std::net::IpAddr,
        /// The port.
        port: u16,
    },

    /// An interface does not exist.
    #[error("there is no network interface {0:?}; name one that `ip link` shows in node.toml")]
    Interface(
        /// Its name.
        String,
    ),
    /// The node's own address is not on its interface.
    #[error(
        "the address {address} is not on the interface {interface}; add it (ip address add {address} dev {interface}) or correct node.toml"
    )]
    Address {
        /// The address.
        address: crate::config::InterfaceAddress,
        /// The interface.
        interface: String,
    },
    /// Another machine answers for this node's own address.
    #[error(
        "another machine, {mac}, has the address {address} on {interface}, which is this node's own; if node {node} runs \
         there, stop it, or give this one a name, certificate and addresses of its own",
        mac = .holder.map(|octet| format!("{octet:02x}")).join(":")
    )]
    AddressTaken {
        /// The address.
        address: std::net::IpAddr,
        /// The interface.
        interface: String,
        /// This node's name.
        node: String,
        /// The other one's hardware address.
        holder: [u8; 6],
    },
    /// Another process of this program answers in the run directory.
    #[error(
        "another node runs here already, with the run directory {directory}; stop it (`cryptocluster status` shows it), or \
         set another run_directory in node.toml",
        directory = .0.display()
    )]
    Running(
        /// The directory.
        std::path::PathBuf,
    ),
    /// A certificate of this node is not valid now.
    #[error("{file}: {refusal}", file = .file.display())]
    Certificate {
        /// Its file.
        file: std::path::PathBuf,
        /// Why.
        refusal: auth::x509::Refusal,
    },
}

/// 3: a configuration or a file of the membership is refused; 4: the machine cannot run a node, or the store fails; 5: what was asked for is refused;
/// 6: what was named does not exist; 1: anything else. The command line itself is refused with 2.
#[must_use]
pub fn exit_code(error: &anyhow::Error) -> u8 {
    if error.is::<ConfigError>() || error.is::<IdentityError>() {
        3
    } else if error.is::<Machine>() || error.is::<DispatchError>() {
        4
    } else {
        match error.downcast_ref::<ControlError>().map(ControlError::kind) {
            Some(Kind::Refused) => REFUSED,
            Some(Kind::Unknown) => 6,
            Some(Kind::Store) => 4,
            None => 1,
        }
    }
}

/// The exit code of what was refused.
pub const REFUSED: u8 = 5;
