//! `./demo` without `--once`: a cluster to play with, until Ctrl-C.

use std::io::Write as _;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::cluster::Cluster;
use crate::echo::{EchoServer, Prober};

/// Runs three nodes and a client that is connected through them, and shows every second how they are. A node that
/// somebody kills is started again after [`RESTART_AFTER`].
///
/// # Errors
/// The cluster does not form, or the client cannot connect.
pub fn live() -> Result<()> {
    println!("building three LANs, three nodes and a client …");
    let mut cluster = Cluster::build(3)?;
    let client = cluster.client(1)?;
    cluster.start()?;
    let address = client.charon.connect()?;
    let echo = cluster.server_address(7);
    let _echo = EchoServer::start(&cluster.server, echo)?;
    let prober = Prober::start(&client.namespace, address, echo, PROBE_RATE)?;
    println!(
        "strongSwan is connected to {} and is {address} inside. Try, in another terminal:",
        crate::cluster::OUTSIDE_ADDRESS
    );
    for node in &mut cluster.nodes {
        let pid = node.process().map_or(0, |process| process.pid());
        println!("  kill -9 {pid}    # {}", node.name());
    }
    println!("  ip netns exec {} ping {}", client.namespace.name(), crate::cluster::SERVER);
    println!("Ctrl-C ends it and removes everything.\n");
    let mut died: Vec<Option<Instant>> = vec![None; cluster.nodes.len()];
    loop {
        thread::sleep(STATUS_INTERVAL);
        for (node, died) in cluster.nodes.iter_mut().zip(&mut died) {
            if node.is_running() {
                *died = None;
            } else if died.get_or_insert_with(Instant::now).elapsed() > RESTART_AFTER {
                node.kill();
                node.start()?;
            }
        }
        let owner = cluster.owner_of("c1.lab.test").unwrap_or_else(|_| "nobody".to_owned());
        // Probes of the last moment are still under way.
        let end = Instant::now().checked_sub(Duration::from_millis(200)).unwrap_or_else(Instant::now);
        let account = prober.account(end.checked_sub(STATUS_INTERVAL).unwrap_or(end), end);
        print!("\r\x1b[K{} | session at {owner} | ", members(&cluster));
        print!(
            "probes: {} of {} back, gap {} ms",
            account.sent - account.lost,
            account.sent,
            account.gap_max.as_millis()
        );
        std::io::stdout().flush()?;
    }
}

/// The members, their shares, and who is the master, in one line.
fn members(cluster: &Cluster) -> String {
    let view = cluster.nodes.iter().filter_map(|node| node.status().ok()?.view).next();
    let Some(view) = view else { return "no view".to_owned() };
    let member = |m: &crate::cluster::Member| {
        let star = if m.name == view.master { "*" } else { "" };
        format!("{}{star} {} sets", m.name, m.sets)
    };
    view.members.iter().map(member).collect::<Vec<_>>().join(", ")
}

/// A killed node comes back after this long.
pub const RESTART_AFTER: Duration = Duration::from_secs(5);
const STATUS_INTERVAL: Duration = Duration::from_secs(1);
const PROBE_RATE: u32 = 200;
