//! What a node needs of the machine: checks before the start, shared addresses and kernel settings while it runs.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::thread;

use anyhow::Context;
use rustix::net::netdevice::name_to_index;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, recv, sendto, socket};
use tracing::warn;

use crate::config::{Cluster, Interface, Node};
use crate::fault::Machine;
use crate::link::lan::{self, Lan};

/// Checks what can be checked before anything is changed.
///
/// # Errors
/// [`Machine`]: one sentence each.
pub(super) fn check(node: &Node, cluster: &Cluster) -> anyhow::Result<()> {
    let effective = effective_capabilities().unwrap_or(u64::MAX);
    for (number, name) in [(12, "CAP_NET_ADMIN"), (13, "CAP_NET_RAW"), (10, "CAP_NET_BIND_SERVICE")] {
        if effective & (1 << number) == 0 {
            return Err(Machine::Capability(name).into());
        }
    }
    if let Err(error) = fs::File::options().read(true).write(true).open("/dev/net/tun") {
        return Err(Machine::Tun(error).into());
    }
    for interface in interfaces(node) {
        check_interface(interface)?;
    }
    for port in [500, 4500] {
        // SO_REUSEPORT, which the workers' sockets carry, would share the port with a program that does the same. The
        // cluster's address is not there before the node has started; who has every address has it, too.
        check_port(cluster.outside.address, port)?;
        check_port(Ipv4Addr::UNSPECIFIED.into(), port).map_err(|_| taken(cluster.outside.address, port))?;
    }
    if node.membership.is_some() {
        for interface in interfaces(node) {
            for port in [cluster.port, cluster.port.saturating_add(1)] {
                check_port(interface.address.address, port)?;
            }
        }
        check_alone(node)?;
    }
    Ok(())
}

fn interfaces(node: &Node) -> impl Iterator<Item = &Interface> {
    [&node.outside, &node.inside].into_iter().chain(&node.cluster)
}

fn check_port(address: IpAddr, port: u16) -> Result<(), Machine> {
    match UdpSocket::bind(SocketAddr::new(address, port)) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(taken(address, port)),
        Ok(_) | Err(_) => Ok(()),
    }
}

const fn taken(address: IpAddr, port: u16) -> Machine {
    Machine::PortTaken { address, port }
}

/// A copy of this node elsewhere, with its name and addresses, would fight with it for every packet: it must not start. All
/// networks are asked at the same time.
fn check_alone(node: &Node) -> Result<(), Machine> {
    thread::scope(|scope| {
        let asked: Vec<_> = interfaces(node)
            .filter_map(|interface| {
                let IpAddr::V4(address) = interface.address.address else { return None };
                let lan = Lan { interface: interface.name.clone(), address };
                Some((scope.spawn(move || lan::holder(&lan)), interface))
            })
            .collect();
        for (holder, interface) in asked {
            // Who cannot look finds nobody; the interface itself was checked before.
            if let Ok(Ok(Some(holder))) = holder.join() {
                let (address, interface) = (interface.address.address, interface.name.clone());
                return Err(Machine::AddressTaken { address, interface, node: node.name.clone(), holder });
            }
        }
        Ok(())
    })
}

fn check_interface(interface: &Interface) -> anyhow::Result<()> {
    let any = socket(AddressFamily::INET, SocketType::DGRAM, None).context("open a socket")?;
    if name_to_index(&any, &interface.name).is_err() {
        return Err(Machine::Interface(interface.name.clone()).into());
    }
    if UdpSocket::bind(SocketAddr::new(interface.address.address, 0)).is_err() {
        return Err(Machine::Address { address: interface.address, interface: interface.name.clone() }.into());
    }
    Ok(())
}

fn effective_capabilities() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

/// An address of the cluster on the loopback interface: every node has it, and the dispatch program decides who answers
/// for it. It goes with its holder.
#[derive(Debug)]
pub(super) struct SharedAddress {
    address: Ipv4Addr,
}

impl SharedAddress {
    /// Adds the address. One that is there already is taken over: a node that was killed has left it.
    pub(super) fn add(address: IpAddr) -> anyhow::Result<Self> {
        let IpAddr::V4(address) = address else {
            anyhow::bail!("the cluster address {address} is IPv6, which is not served yet");
        };
        match change_loopback(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, address) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error).with_context(|| format!("put the cluster address {address} on lo")),
        }
        Ok(Self { address })
    }
}

impl Drop for SharedAddress {
    fn drop(&mut self) {
        if let Err(error) = change_loopback(RTM_DELADDR, 0, self.address) {
            warn!(address = %self.address, %error, "the cluster address stays on lo");
        }
    }
}

/// Adds or removes a /32 on the loopback interface and waits for the kernel's answer.
fn change_loopback(kind: u16, flags: u16, address: Ipv4Addr) -> io::Result<()> {
    // Protocol 0 is NETLINK_ROUTE.
    let route = socket(AddressFamily::NETLINK, SocketType::RAW, None)?;
    let index = name_to_index(&route, "lo")?;
    let mut message = Vec::with_capacity(40);
    message.extend_from_slice(&40_u32.to_ne_bytes());
    message.extend_from_slice(&kind.to_ne_bytes());
    message.extend_from_slice(&(NLM_F_REQUEST | NLM_F_ACK | flags).to_ne_bytes());
    // Sequence number and port.
    message.extend_from_slice(&[0; 8]);
    // struct ifaddrmsg: AF_INET, /32, no flags, scope host.
    message.extend_from_slice(&[2, 32, 0, 254]);
    message.extend_from_slice(&index.to_ne_bytes());
    for attribute in [IFA_ADDRESS, IFA_LOCAL] {
        message.extend_from_slice(&8_u16.to_ne_bytes());
        message.extend_from_slice(&attribute.to_ne_bytes());
        message.extend_from_slice(&address.octets());
    }
    sendto(&route, &message, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
    let mut answer = [0_u8; 256];
    let (len, _) = recv(&route, &mut answer[..], RecvFlags::empty())?;
    // struct nlmsgerr stands behind the header of 16 octets: a negative errno, or 0.
    match answer.get(16..20).filter(|_| len >= 20).and_then(|octets| <[u8; 4]>::try_from(octets).ok()) {
        Some([0, 0, 0, 0]) => Ok(()),
        Some(errno) => Err(io::Error::from_raw_os_error(i32::from_ne_bytes(errno).saturating_neg())),
        None => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the kernel's answer is cut short")),
    }
}

/// Kernel settings of this network namespace, put back when the node ends.
#[derive(Debug, Default)]
pub(super) struct Settings {
    before: Vec<(PathBuf, String)>,
}

impl Settings {
    /// Lets a node that runs alone forward packets, and its kernel answer for the shared addresses on lo. A member of a
    /// cluster leaves all that to the dispatch program.
    pub(super) fn apply(node: &Node) -> Self {
        let mut settings = Self::default();
        settings.set("ip_forward", "1");
        for interface in [&node.outside.name, &node.inside.name] {
            settings.set(&format!("conf/{interface}/send_redirects"), "0");
            // RFC 4301 §5.2: what is routed into tunnels, or lies on the other side, is no source of packets in the clear here.
            settings.set(&format!("conf/{interface}/rp_filter"), "1");
            // Announce the interface's own address, never the shared one.
            settings.set(&format!("conf/{interface}/arp_announce"), "2");
        }
        settings
    }

    fn set(&mut self, name: &str, value: &str) {
        let path = PathBuf::from("/proc/sys/net/ipv4").join(name);
        let Ok(before) = fs::read_to_string(&path) else {
            warn!(setting = name, "a kernel setting is not there");
            return;
        };
        if before.trim() == value {
            return;
        }
        match fs::write(&path, value) {
            Ok(()) => self.before.push((path, before)),
            Err(error) => warn!(setting = name, value, %error, "a kernel setting cannot be changed; set it by hand"),
        }
    }
}

impl Drop for Settings {
    fn drop(&mut self) {
        for (path, value) in self.before.drain(..).rev() {
            // What cannot be put back any more belongs to an interface that is gone.
            let _gone = fs::write(path, value);
        }
    }
}

const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const NLM_F_REQUEST: u16 = 0x001;
const NLM_F_ACK: u16 = 0x004;
const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_CREATE: u16 = 0x400;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
