//! The running node: control on tokio, packets on threads of their own.

use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::path::Path as FilePath;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, anyhow};
use auth::x509::Certificate;
use ike::RemoteSelectors;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tracing::{info, warn};
use wire::Prefix;

use self::driver::{Ask, Driver, Inputs};
use self::machine::{Settings, SharedAddress};
use crate::api::{self, Shared, Socket};
use crate::config::{Cluster, ConfigError, Node};
use crate::datapath::{self, Datapath, DatapathConfig};
use crate::dispatch::Dispatch;
use crate::fault::Machine;
use crate::link::ClusterLink;
use crate::link::identity::Identity;
use crate::logs;
use crate::replicated::inner::InnerPrefixes;

mod clustered;
mod control;
mod driver;
mod machine;
mod pool;
mod privileges;
mod replicas;
mod sessions;
mod tidings;

pub use control::Control;

/// Runs a node until it is told to stop by SIGTERM or SIGINT.
///
/// # Errors
/// The configuration is refused, the machine lacks something, or the datapath or the cluster link has failed.
pub fn run(file: &FilePath) -> anyhow::Result<()> {
    let node = Node::load(file)?;
    let cluster = Cluster::load(&node.cluster_file)?;
    check_together(&node, &cluster)?;
    check_certificates(&node, &cluster)?;
    Socket::check_free(&node.run_directory)?;
    let logs = logs::start(node.log.0, node.log.1);
    machine::check(&node, &cluster)?;
    // The filter comes before the shared addresses, so that the kernel never answers for them by itself, and before rights
    // are given away that only its loading needs.
    let dispatch = match &node.membership {
        Some(_) => Some(Arc::new(clustered::attach(&node, &cluster)?)),
        None => None,
    };
    privileges::drop_the_rest()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CONTROL_THREADS)
        .thread_name("control")
        .enable_all()
        .build()
        .context("start the control plane")?;
    runtime.block_on(serve(node, cluster, logs, dispatch))
}

/// Checks what only both files together can tell.
///
/// # Errors
/// They do not fit each other.
pub fn check_together(node: &Node, cluster: &Cluster) -> Result<(), ConfigError> {
    let refuse = |problem: String, advice: String| {
        let file = node.cluster_file.clone();
        Err(ConfigError { file, place: None, field: Some("members".into()), problem, advice })
    };
    let member = cluster.members.iter().find(|member| member.name == node.name);
    match (&node.membership, member) {
        (None, None) if cluster.members.is_empty() => Ok(()),
        (None, _) => refuse(
            "the cluster has members, but node.toml has no [membership]".into(),
            "give node.toml the node's certificate, key and CA, or take the members out".into(),
        ),
        (Some(_), None) => {
            let known: Vec<&str> = cluster.members.iter().map(|member| member.name.as_str()).collect();
            refuse(
                format!("this node, \"{}\", is no member", node.name),
                format!("add it under [[members]]; members are: {}", known.join(", ")),
            )
        }
        (Some(_), Some(member)) => {
            for (ours, theirs, side) in [
                (Some(node.outside.address.address), Some(member.outside), "outside"),
                (Some(node.inside.address.address), Some(member.inside), "inside"),
                (node.cluster.as_ref().map(|interface| interface.address.address), member.cluster, "cluster"),
            ] {
                if ours != theirs {
                    let text =
                        |address: Option<IpAddr>| address.map_or("none".to_owned(), |address| address.to_string());
                    return refuse(
                        format!(
                            "member \"{}\" has {side} address {}, node.toml has {}",
                            node.name,
                            text(theirs),
                            text(ours)
                        ),
                        "write the same in both".into(),
                    );
                }
            }
            Ok(())
        }
    }
}

/// The time since 1970-01-01 UTC, as far as the machine knows it.
fn wall_time() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Checks that the files of the membership are good, and all own certificates valid now: else this node could serve nobody,
/// or not join.
///
/// # Errors
/// The first that is not.
pub fn check_certificates(node: &Node, cluster: &Cluster) -> anyhow::Result<()> {
    for (file, certificate) in &cluster.certificates {
        certificate
            .check_validity(wall_time())
            .map_err(|refusal| Machine::Certificate { file: file.clone(), refusal })?;
    }
    if let Some(membership) = &node.membership {
        Identity::load(&membership.certificate, &membership.key, &membership.ca)?.check(&node.name)?;
    }
    for file in node.membership.iter().flat_map(|membership| [&membership.certificate, &membership.ca]) {
        let pem = std::fs::read(file).with_context(|| format!("read {}", file.display()))?;
        for der in auth::x509::chain_from_pem(&pem).unwrap_or_default() {
            let valid = Certificate::from_der(&der).and_then(|certificate| certificate.check_validity(wall_time()));
            valid.map_err(|refusal| Machine::Certificate { file: file.clone(), refusal })?;
        }
    }
    Ok(())
}

async fn serve(
    node: Node,
    cluster: Cluster,
    logs: logs::Handle,
    dispatch: Option<Arc<Dispatch>>,
) -> anyhow::Result<()> {
    let cluster = Arc::new(cluster);
    let mut socket = Socket::bind(&node.run_directory)?;
    let settings = dispatch.is_none().then(|| Settings::apply(&node));
    let addresses = [Some(cluster.outside), cluster.inside].into_iter().flatten();
    let shared = addresses.map(|shared| SharedAddress::add(shared.address)).collect::<anyhow::Result<Vec<_>>>()?;
    let (events, sink) = Feed::new();
    let datapath = Arc::new(Datapath::start(&datapath_config(&node, &cluster), sink)?);
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| anyhow!("the kernel gives no random octets: {error}"))?;
    let inner = Arc::new(Mutex::new(InnerPrefixes::default()));
    let mut driver = Driver::new(&node.name, Arc::clone(&cluster), Arc::clone(&datapath), Arc::clone(&inner), seed);
    let (tell, told) = mpsc::unbounded_channel();
    let link = match (&node.membership, &dispatch) {
        (Some(membership), Some(dispatch)) => {
            Some(clustered::join(&node, membership, &cluster, dispatch, &datapath, &inner, tell)?)
        }
        (Some(_) | None, _) => None,
    };
    match (&link, &dispatch) {
        (Some(link), Some(dispatch)) => {
            driver.join(link.handle(), clustered::lans(&node, &cluster), Arc::clone(dispatch));
            clustered::watch_carrier(node.outside.name.clone(), link.handle());
        }
        (Some(_) | None, _) => driver.own_all(),
    }
    let (asks, asked) = mpsc::channel(ASKS_MAX);
    let handle = link.as_ref().map(ClusterLink::handle);
    let control = Control::new(&node.name, &cluster, asks.clone(), handle, dispatch.as_ref());
    socket.serve(api::router(Shared { control, logs }));
    if cfg!(feature = "planted-double-use") {
        warn!("this build uses sequence numbers twice on purpose, for the lab: never let it carry traffic of worth");
    }
    info!(
        node = node.name,
        cluster = cluster.name,
        version = cluster.version,
        hash = %cluster.hash,
        address = %cluster.outside.address,
        connections = cluster.ike.connections.len(),
        "this node is up"
    );
    let stopping = tokio::spawn(stop_on_signal(asks));
    let outcome =
        driver.run(Inputs { datagrams: events.datagrams, events: events.events, asks: asked, cluster: told }).await;
    stopping.abort();
    // In this order: the others hear the goodbye, no packet moves any more, the addresses go, and last the filter.
    drop(link);
    drop(datapath);
    drop(shared);
    if let Some(dispatch) = dispatch.and_then(Arc::into_inner) {
        dispatch.detach().context("take the filter off the interfaces")?;
    }
    drop(settings);
    info!(lost = events.lost.load(Ordering::Relaxed), "this node has ended");
    outcome
}

async fn stop_on_signal(asks: mpsc::Sender<Ask>) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    tokio::select! {
        _ = terminate.recv() => info!("told to stop by SIGTERM"),
        _ = interrupt.recv() => info!("told to stop by SIGINT"),
    }
    asks.send(Ask::Stop).await.context("stop the driver")
}

fn datapath_config(node: &Node, cluster: &Cluster) -> DatapathConfig {
    let mut routes: Vec<Prefix> = cluster.pools.iter().map(|pool| pool.prefix).collect();
    for connection in &cluster.ike.connections {
        match &connection.remote_selectors {
            RemoteSelectors::Networks(networks) => {
                routes.extend(networks.iter().filter_map(|network| Prefix::from_range(network.first, network.last)));
            }
            RemoteSelectors::Pool(_) => {}
        }
    }
    routes.sort_unstable();
    routes.dedup();
    let cores = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    DatapathConfig {
        tun: node.tun.name.clone(),
        mtu: node.tun.mtu,
        routes,
        addresses: vec![cluster.outside.address],
        workers: NonZeroUsize::new(node.workers).unwrap_or(cores),
    }
}

/// The ends at which the workers' events come out.
struct Feed {
    datagrams: mpsc::Receiver<datapath::Event>,
    events: mpsc::UnboundedReceiver<datapath::Event>,
    lost: Arc<AtomicU64>,
}

impl Feed {
    /// What anybody can send at will goes through a bounded queue; what the number of SAs bounds, through an unbounded one,
    /// because nothing of it may be lost.
    fn new() -> (Self, datapath::EventSink) {
        let (datagram_in, datagrams) = mpsc::channel(DATAGRAMS_MAX);
        let (event_in, events) = mpsc::unbounded_channel();
        let lost = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&lost);
        let sink: datapath::EventSink = Arc::new(move |event| match event {
            datapath::Event::Ike { .. }
            | datapath::Event::UnknownSpi { .. }
            | datapath::Event::UnknownDestination { .. } => {
                if datagram_in.try_send(event).is_err() {
                    counter.fetch_add(1, Ordering::Relaxed);
                }
            }
            datapath::Event::LeaseLow { .. }
            | datapath::Event::PathChanged { .. }
            | datapath::Event::Exhausted { .. }
            | datapath::Event::InboundEdges(_)
            | datapath::Event::WorkerFailed { .. } => {
                // Only a driver that has ended does not take it.
                let _ended = event_in.send(event);
            }
        });
        (Self { datagrams, events, lost }, sink)
    }
}

/// Threads of the control plane: one for the driver, one for the API and whatever signs.
const CONTROL_THREADS: usize = 2;
/// IKE datagrams that may wait for the driver: what it handles in some 50 ms.
const DATAGRAMS_MAX: usize = 8192;
/// Questions of the operator that may wait.
const ASKS_MAX: usize = 64;
