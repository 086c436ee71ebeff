//! What a member of a cluster has besides the node that runs alone: the dispatch program and the link.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use cluster::dispatch::{ClusterAddress, Owner, PortUse, Side, Subnet};
use cluster::membership::Link;
use cluster::replication::Bounds;
use cluster::{LoneSurvivor, Policy};
use tokio::sync::mpsc;
use tracing::{error, info, warn};
use wire::{RecordKind, Time, WorkSet};

use super::driver::hash_key;
use crate::config::{self, Cluster, InterfaceAddress, Membership, Node};
use crate::datapath::{Datapath, Heartbeat};
use crate::dispatch::{Dispatch, DispatchConfig, InterfaceConfig, cluster_mac};
use crate::link::identity::Identity;
use crate::link::lan::{self, Lan};
use crate::link::realtime::Hooks;
use crate::link::{Apply, ClusterLink, Config, Event, Handle, Member};
use crate::replicated::inner::{InnerChange, InnerPrefixes};

/// Loads and attaches the dispatch program. Until the link says otherwise, nothing passes for the cluster.
pub(super) fn attach(node: &Node, cluster: &Cluster) -> anyhow::Result<Dispatch> {
    let directory =
        node.pin_directory.clone().unwrap_or_else(|| PathBuf::from(PINS).join(&cluster.name).join(&node.name));
    let outside = v4(cluster.outside.address)?;
    let mut addresses = vec![ClusterAddress { address: outside, side: Side::Outside }];
    // Without an inside address of the cluster the outside one names the shared MAC address inside, too.
    let mut inside = outside;
    if let Some(shared) = &cluster.inside {
        inside = v4(shared.address)?;
        addresses.push(ClusterAddress { address: inside, side: Side::Inside });
    }
    let interface = |interface: &config::Interface, mac_of, carries_inner| -> anyhow::Result<InterfaceConfig> {
        Ok(InterfaceConfig {
            name: interface.name.clone(),
            cluster_mac: cluster_mac(mac_of),
            subnet: Some(subnet(interface.address)?),
            carries_inner,
        })
    };
    let dispatch = Dispatch::attach(&DispatchConfig {
        directory,
        key: hash_key(cluster),
        addresses,
        outside: interface(&node.outside, outside, false)?,
        inside: Some(interface(&node.inside, inside, true)?),
        keeper: node.attachment,
    })?;
    for pool in &cluster.pools {
        dispatch.protect(pool.prefix)?;
    }
    Ok(dispatch)
}

/// Joins the cluster: from now on the link gives and takes work sets.
pub(super) fn join(
    node: &Node,
    membership: &Membership,
    cluster: &Cluster,
    dispatch: &Arc<Dispatch>,
    datapath: &Arc<Datapath>,
    inner: &Arc<Mutex<InnerPrefixes>>,
    events: mpsc::UnboundedSender<Event>,
) -> anyhow::Result<ClusterLink> {
    // The workers' sockets are open.
    dispatch.set_services(&[(500, PortUse::UdpServiceQueueing), (4500, PortUse::UdpServiceQueueing)]);
    let identity = Identity::load(&membership.certificate, &membership.key, &membership.ca)?;
    let own = cluster.members.iter().find(|member| member.name == node.name).context("this node is no member")?;
    let others = cluster.members.iter().filter(|member| member.name != node.name);
    let config = Config {
        cluster: cluster.name.clone(),
        name: node.name.clone(),
        configuration_version: cluster.version,
        configuration_hash: cluster.hash.0,
        networks: networks(own).into_iter().flatten().collect(),
        members: others
            .map(|member| Member {
                name: member.name.clone(),
                // In the order of this node's networks: where it has none, nobody is looked for.
                addresses: networks(own)
                    .into_iter()
                    .zip(networks(member))
                    .filter_map(|(ours, theirs)| ours.map(|_| theirs))
                    .collect(),
            })
            .collect(),
        port: cluster.port,
        weight: 1,
        lone_survivor: match cluster.lone_survivor {
            config::LoneSurvivor::Serve => LoneSurvivor::Serve,
            config::LoneSurvivor::Wait => LoneSurvivor::Wait,
        },
        policy: Policy::default(),
        bounds: Bounds::default(),
        applied: vec![RecordKind::INNER_PREFIX],
    };
    ClusterLink::start(config, &identity, hooks(dispatch, datapath), apply(dispatch, inner), events)
}

/// The three networks of a member: between the nodes, inside, outside; the best first.
fn networks(member: &config::Member) -> [Option<IpAddr>; 3] {
    [member.cluster, Some(member.inside), Some(member.outside)]
}

/// The LANs on which the cluster has an address.
pub(super) fn lans(node: &Node, cluster: &Cluster) -> Vec<Lan> {
    let sides = [(&node.outside, Some(&cluster.outside)), (&node.inside, cluster.inside.as_ref())];
    let lans = sides.into_iter().filter_map(|(interface, shared)| {
        Some(Lan { interface: interface.name.clone(), address: v4(shared?.address).ok()? })
    });
    lans.collect()
}

/// Tells the link when the outside interface loses its carrier, and when it has it again. Ends with the runtime.
pub(super) fn watch_carrier(interface: String, link: Handle) {
    tokio::spawn(async move {
        let mut last = Link::Up;
        loop {
            let now = lan::link(&interface);
            if now != last {
                match now {
                    Link::Up => info!(interface, "the outside interface has its carrier again"),
                    Link::Down => warn!(interface, "the outside interface has lost its carrier; look at its cable"),
                }
                link.outside_link(now);
                last = now;
            }
            tokio::time::sleep(CARRIER_EVERY).await;
        }
    });
}

fn hooks(dispatch: &Dispatch, datapath: &Arc<Datapath>) -> Hooks {
    let (lease, owner) = (dispatch.fence(), dispatch.fence());
    let mut progress = Progress::new(Arc::clone(datapath));
    Hooks {
        lease: Box::new(move |until| lease.set_lease(until)),
        owner: Box::new(move |set: WorkSet, has: Owner| owner.set_owner(set, has)),
        progress: Box::new(move |now| progress.check(now)),
    }
}

fn apply(dispatch: &Arc<Dispatch>, inner: &Arc<Mutex<InnerPrefixes>>) -> Apply {
    let (dispatch, inner) = (Arc::clone(dispatch), Arc::clone(inner));
    Box::new(move |id, change| {
        let follows = inner.lock().unwrap_or_else(PoisonError::into_inner).apply(id, change);
        let outcome = match follows {
            Some(InnerChange::Put(prefix, home)) => dispatch.put_inner(prefix, home),
            Some(InnerChange::Remove(prefix)) => dispatch.remove_inner(prefix),
            None => Ok(()),
        };
        if let Err(error) = outcome {
            error!(%error, "the dispatch table of inner addresses cannot be changed");
        }
    })
}

/// Whether the workers carry packets: each is idle, or its loop turns.
struct Progress {
    datapath: Arc<Datapath>,
    workers: Vec<(Heartbeat, Time)>,
    checked: Time,
    well: bool,
}

impl Progress {
    fn new(datapath: Arc<Datapath>) -> Self {
        Self { datapath, workers: Vec::new(), checked: Time::ZERO, well: true }
    }

    fn check(&mut self, now: Time) -> bool {
        if now.since(self.checked) < CHECK_EVERY {
            return self.well;
        }
        self.checked = now;
        let beats = self.datapath.heartbeats();
        if self.workers.len() != beats.len() {
            self.workers = beats.iter().map(|beat| (*beat, now)).collect();
        }
        for ((known, since), beat) in self.workers.iter_mut().zip(beats) {
            if beat.idle || beat.turns != known.turns {
                *since = now;
            }
            *known = beat;
        }
        self.well = self.workers.iter().all(|(_, since)| now.since(*since) < STUCK_AFTER);
        self.well
    }
}

fn v4(address: IpAddr) -> anyhow::Result<Ipv4Addr> {
    match address {
        IpAddr::V4(address) => Ok(address),
        IpAddr::V6(address) => anyhow::bail!("the address {address} is IPv6, which is not served yet"),
    }
}

fn subnet(address: InterfaceAddress) -> anyhow::Result<Subnet> {
    Ok(Subnet { address: v4(address.address)?, length: address.len })
}

/// Where nodes pin their programs if node.toml does not say.
const PINS: &str = "/sys/fs/bpf/cryptocluster";
/// How often the workers' signs of life are looked at.
const CHECK_EVERY: Duration = Duration::from_millis(20);
/// A worker that has work and does not turn for so long is stuck: this node must not claim to serve. Our policy.
const STUCK_AFTER: Duration = Duration::from_millis(500);
/// How often the carrier of the outside interface is looked at.
const CARRIER_EVERY: Duration = Duration::from_millis(20);
