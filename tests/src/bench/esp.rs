//! One TCP stream through a pair of gateways: ours, as shipped, and Debian's strongSwan with its user-space ESP.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use crate::cluster::{Cluster, GATEWAY_ID, OUTSIDE_ADDRESS, PROTECTED, gateway_program, write_secret};
use crate::figures::{Bound, Figures, median};
use crate::lab::BPFFS;
use crate::load::Load;
use crate::namespace::Namespace;
use crate::pair::StrongSwanPair;
use crate::process::Process;
use crate::run;

/// Runs the pairs in turn, then ours with and without a crowd of other SAs.
pub(super) fn run() -> Result<Figures> {
    let mut figures = Figures::new("esp");
    let (mut ours, mut theirs) = (Runs::default(), Runs::default());
    for pair in 1..=PAIRS {
        let own = SitePair::start()?.stream()?;
        let peer = stream_strongswan()?;
        println!("  pair {pair}: {own} and {peer}");
        ours.push(&own);
        theirs.push(&peer);
    }
    let (own, peer) = (median(&ours.gbit_s), median(&theirs.gbit_s));
    figures.compare("throughput", own, "Gbit/s", PEER, peer, own / peer, None);
    figures.add("throughput_ratio", own / peer, "", Some(Bound::AtLeast(5.0)));
    let (own, peer) = (median(&ours.cpu_per_gb), median(&theirs.cpu_per_gb));
    figures.compare("cpu_per_gb", own, "s/GB", PEER, peer, peer / own, None);
    figures.add("cpu_per_gb_ratio", peer / own, "", Some(Bound::AtLeast(5.0)));

    // The crowd stays up; alone and in it are measured in turn on two pairs, so that the machine's moods hit both.
    let mut crowded = SitePair::start()?;
    let _crowd = crowded.crowd(CROWD)?;
    let (mut alone, mut within) = (Runs::default(), Runs::default());
    for _ in 0..CROWD_PAIRS {
        let mut single = SitePair::start()?;
        alone.push(&single.stream()?);
        drop(single);
        within.push(&crowded.stream()?);
    }
    let (single, crowd) = (median(&alone.cpu_per_gb), median(&within.cpu_per_gb));
    figures.add("cpu_per_gb_with_10000_other_sas", crowd, "s/GB", None);
    figures.add("growth_with_10000_other_sas", crowd / single, "", Some(Bound::AtMost(1.15)));
    Ok(figures)
}

/// What one run came to.
struct Stream {
    gbit_s: f64,
    cpu_per_gb: f64,
}

impl std::fmt::Display for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.2} Gbit/s at {:.2} s/GB", self.gbit_s, self.cpu_per_gb)
    }
}

#[derive(Default)]
struct Runs {
    gbit_s: Vec<f64>,
    cpu_per_gb: Vec<f64>,
}

impl Runs {
    fn push(&mut self, stream: &Stream) {
        self.gbit_s.push(stream.gbit_s);
        self.cpu_per_gb.push(stream.cpu_per_gb);
    }
}

/// Two of our gateways, each a cluster of one, with a tunnel between the networks behind them.
struct SitePair {
    left: Process,
    site: Namespace,
    directory: PathBuf,
    right: Cluster,
}

impl SitePair {
    fn start() -> Result<Self> {
        let mut right = Cluster::build(1)?;
        let config = right.config_file();
        let connection = connection(GATEWAY_ID, "site.lab.test", PROTECTED, SITE_NETWORK);
        // The first connection that fits is taken, and another one fits any peer.
        let text = fs::read_to_string(&config)?.replacen("[[connections]]", &(connection + "[[connections]]"), 1);
        fs::write(&config, text)?;
        write_secret(&config.with_file_name("site.psk"), SITE_SECRET)?;
        right.start()?;
        right.server.ip(&[format!("route add {SITE_NETWORK} via {}", crate::cluster::INSIDE_ADDRESS)])?;

        let site = right.outside_host("site", 150)?;
        site.ip(&[
            "link add in type veth peer name in-peer".to_owned(),
            "link set in up".to_owned(),
            "link set in-peer up".to_owned(),
            format!("addr add {SITE_HOST}/24 dev in"),
        ])?;
        let directory = config.parent().context("the configuration has no directory")?.join("site");
        fs::create_dir_all(&directory)?;
        write_site(&directory, &right)?;
        let mut command = Command::new(gateway_program()?);
        command.args(["run", "--config"]).arg(directory.join("node.toml"));
        let left = Process::start(&site, &mut command, &directory.join("log"))?;
        let mut pair = Self { left, site, directory, right };
        pair.connect().with_context(|| format!("the site's gateway says: {}", pair.left.said()))?;
        Ok(pair)
    }

    /// Has the site's gateway open the tunnel, and waits until it carries packets.
    fn connect(&mut self) -> Result<()> {
        let socket = self.directory.join("api.sock");
        run::wait_for("the site's gateway to answer its operator", START_MAX, || UnixStream::connect(&socket).ok())?;
        let order = format!(r#"{{"connection":"site","peer":"{OUTSIDE_ADDRESS}"}}"#);
        post(&socket, "/v1/sessions", &order)?;
        let server = self.right.server_address(ECHO_PORT);
        let _echo = crate::echo::EchoServer::start(&self.right.server, server)?;
        run::wait_for("the tunnel to carry packets", START_MAX, || {
            let probe = || {
                let socket = std::net::UdpSocket::bind(SocketAddr::new(IpAddr::V4(SITE_HOST), 0))?;
                socket.set_read_timeout(Some(Duration::from_millis(100)))?;
                socket.send_to(b"there?", server)?;
                Ok(socket.recv(&mut [0; 16])?)
            };
            self.site.within(probe).ok()
        })?;
        Ok(())
    }

    fn stream(&mut self) -> Result<Stream> {
        let server = self.right.server.clone();
        let own = self.left.pid();
        let peer = self.right.node("n1")?.process().context("the gateway does not run")?.pid();
        iperf(&server, &self.site, self.right.server_address(IPERF_PORT), SITE_HOST.into(), [own, peer])
    }

    /// Opens sessions of other clients at the right gateway.
    fn crowd(&self, count: usize) -> Result<Load> {
        let outside = self.right.outside_host("load", 200)?;
        let load = self.right.load(&outside, 200, self.right.pre_shared_key())?;
        load.open(count, 50, Duration::from_secs(120))?;
        Ok(load)
    }
}

/// The tunnel, as one of its ends sees it.
fn connection(own_id: &str, other_id: &str, own: &str, other: &str) -> String {
    format!(
        r#"[[connections]]
name = "site"
local = {{ id = "{own_id}", psk_file = "site.psk" }}
remote = {{ id = "{other_id}", auth = "psk" }}
local_networks = ["{own}"]
remote_networks = ["{other}"]
ike = ["aes128gcm16-prfsha256-x25519"]
esp = ["aes128gcm16"]
"#
    )
}

/// Writes the configuration of the site's gateway.
fn write_site(directory: &Path, right: &Cluster) -> Result<()> {
    write_secret(&directory.join("site.psk"), SITE_SECRET)?;
    write_secret(&directory.join("cluster.secret"), &"5f".repeat(32))?;
    let pins = Path::new(BPFFS).join(right.prefix()).join("site");
    let cluster = format!(
        "version = 1\nname = \"{prefix}-site\"\noutside_address = \"{SITE_ADDRESS}/24\"\n\
         secret_file = \"cluster.secret\"\n{}",
        connection("site.lab.test", GATEWAY_ID, SITE_NETWORK, PROTECTED),
        prefix = right.prefix()
    );
    fs::write(directory.join("cluster.toml"), cluster)?;
    let node = format!(
        "name = \"site\"\ncluster_config = \"cluster.toml\"\nrun_directory = \"{run}\"\npin_directory = \"{pins}\"\n\
         [outside]\ninterface = \"out\"\naddress = \"198.51.100.150/24\"\n\
         [inside]\ninterface = \"in\"\naddress = \"{SITE_HOST}/24\"\n\
         [log]\nlevel = \"info\"\nformat = \"text\"\n",
        run = directory.display(),
        pins = pins.display(),
    );
    Ok(fs::write(directory.join("node.toml"), node)?)
}

/// Gives an order to a gateway through its socket.
fn post(socket: &Path, path: &str, body: &str) -> Result<()> {
    let mut stream = UnixStream::connect(socket)?;
    let len = body.len();
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {len}\r\n\r\n{body}"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    if !answer.starts_with("HTTP/1.1 2") {
        bail!("{path} is answered with {answer}");
    }
    Ok(())
}

fn stream_strongswan() -> Result<Stream> {
    let mut pair = StrongSwanPair::start()?;
    let address = pair.client.connect()?;
    let pids = [pair.client.process().pid(), pair.gateway.charon.process().pid()];
    iperf(&pair.gateway.inside, &pair.outside, pair.gateway.server_address(IPERF_PORT), address, pids)
}

/// Runs iperf3 from `client` to `server`, and adds up the processor time of both gateways.
fn iperf(server: &Namespace, client: &Namespace, to: SocketAddr, from: IpAddr, gateways: [u32; 2]) -> Result<Stream> {
    let log = std::env::temp_dir().join(format!("{}-iperf3", server.name()));
    fs::remove_file(&log).ok();
    let mut command = Command::new("iperf3");
    command.args(["-s", "-1", "--forceflush", "-p", &to.port().to_string()]);
    let listener = Process::start(server, &mut command, &log)?;
    run::wait_for("iperf3 to listen", START_MAX, || listener.said().contains("listening").then_some(()))?;
    let cpu = || gateways.map(crate::process::cpu_time).iter().sum::<Duration>();
    let before = cpu();
    let (host, port, bind, seconds) =
        (to.ip().to_string(), to.port().to_string(), from.to_string(), SECONDS.to_string());
    let answer = client.output("iperf3", &["-c", &host, "-p", &port, "-B", &bind, "-t", &seconds, "-J"])?;
    let used = cpu() - before;
    fs::remove_file(&log).ok();
    let report: Report = serde_json::from_str(&answer).context("read what iperf3 says")?;
    let received = report.end.sum_received;
    Ok(Stream { gbit_s: received.bits_per_second / 1e9, cpu_per_gb: used.as_secs_f64() / (received.bytes / 1e9) })
}

#[derive(Deserialize)]
struct Report {
    end: End,
}

#[derive(Deserialize)]
struct End {
    sum_received: Received,
}

#[derive(Deserialize)]
struct Received {
    bytes: f64,
    bits_per_second: f64,
}

const PAIRS: usize = 5;
const CROWD: usize = 10_000;
const CROWD_PAIRS: usize = 3;
const SECONDS: u32 = 6;
const IPERF_PORT: u16 = 5201;
const ECHO_PORT: u16 = 7;
const START_MAX: Duration = Duration::from_secs(10);
const PEER: &str = "strongSwan";
const SITE_NETWORK: &str = "10.3.0.0/24";
const SITE_HOST: Ipv4Addr = Ipv4Addr::new(10, 3, 0, 11);
const SITE_ADDRESS: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 151);
const SITE_SECRET: &str = "a secret between the two sites of a benchmark";
