//! A cluster of our own nodes: three LANs, N gateways, a server behind them, and clients before them.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use gateway::api::{DispatchStatus, Rights};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::lab::{BPFFS, Lab};
use crate::load::{self, Load, LoadSettings};
use crate::namespace::{Cable, Namespace, Switch};
use crate::observer::Rules;
use crate::pki::{Authority, KeyKind};
use crate::process::Process;
use crate::run;
use crate::strongswan::{Charon, Credential, Log, Role, Settings};

mod guests;

pub use guests::{Guest, Proof};

/// A cluster in the lab.
pub struct Cluster {
    /// Its nodes, `n1` first.
    pub nodes: Vec<Node>,
    /// Where clients are.
    pub outside: Switch,
    /// What the cluster protects.
    pub inside: Switch,
    /// The network between the nodes.
    pub link: Switch,
    /// A host inside.
    pub server: Namespace,
    authority: Authority,
    directory: PathBuf,
    // Last, so that the programs end before their namespaces go.
    lab: Lab,
}

/// One node.
pub struct Node {
    name: String,
    namespace: Namespace,
    cables: Vec<Cable>,
    directory: PathBuf,
    /// Another program than the one that was built beside this one.
    program: Option<PathBuf>,
    process: Option<Process>,
}

/// How a program ended that was meant to stay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Its exit code, if no signal ended it.
    pub code: Option<i32>,
    /// All that it said.
    pub said: String,
}

/// A strongSwan client and the namespace that it is in.
pub struct Client {
    /// The client.
    pub charon: Charon,
    /// Where it is.
    pub namespace: Namespace,
}

/// What `cryptocluster status --json` says, as far as the lab needs it.
#[derive(Clone, Debug, Deserialize)]
pub struct Status {
    /// The node that answered.
    pub node: String,
    /// Its part in the cluster.
    pub state: String,
    /// The hash of its configuration.
    #[serde(default)]
    pub config_hash: String,
    /// The view that it is in.
    pub view: Option<View>,
    /// All that it counts, drop reasons included.
    #[serde(default)]
    pub counters: BTreeMap<String, u64>,
    /// Its filter.
    #[serde(default)]
    pub dispatch: Option<DispatchStatus>,
    /// What its process may still do.
    #[serde(default)]
    pub rights: Rights,
}

/// A view, as a node sees it.
#[derive(Clone, Debug, Deserialize)]
pub struct View {
    /// The master's name.
    pub master: String,
    /// All full members.
    pub members: Vec<Member>,
}

/// A member of a view.
#[derive(Clone, Debug, Deserialize)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// How many work sets it owns.
    pub sets: u32,
    /// Whether it takes part in full, not as a learner.
    pub full: bool,
}

/// A session, as its owner shows it.
#[derive(Clone, Debug, Deserialize)]
pub struct Session {
    /// The session's id.
    pub session: String,
    /// Its home.
    pub set: u16,
    /// The node that owns its home.
    pub owner: String,
    /// Under which epoch of that work set, counted.
    pub epoch: u32,
    /// Who says so: its `owner`, or another node from its `replica` of the record.
    pub as_of: String,
    /// Who the peer is, once that is proven.
    pub identity: Option<String>,
    /// How often a child SA was replaced.
    #[serde(default)]
    pub child_rekeys: u32,
    /// Since when it is up, in seconds.
    #[serde(default)]
    pub established_s: Option<u64>,
    /// The peer's inner address.
    #[serde(default)]
    pub inner_address: Option<IpAddr>,
}

/// What a drain did.
#[derive(Clone, Debug, Deserialize)]
pub struct Drain {
    /// Work sets that went to other nodes.
    pub moved_sets: u32,
    /// Sessions in them.
    pub moved_sessions: u32,
    /// How long it took.
    pub duration_ms: u64,
    /// Packets that found no room in a queue.
    pub lost_packets: Option<u64>,
    /// Packets that were kept from being passed on twice.
    pub doubles_prevented: Option<u64>,
}

#[derive(Deserialize)]
struct Sessions {
    sessions: Vec<Session>,
}

impl View {
    /// Whether the node `name` is a full member and owns work sets.
    #[must_use]
    pub fn has_at_work(&self, name: &str) -> bool {
        self.members.iter().any(|member| member.name == name && member.full && member.sets > 0)
    }
}

impl Cluster {
    /// Builds the network and writes the configuration of `size` nodes; none is started yet.
    ///
    /// # Errors
    /// The caller is not root, or there are more nodes than the lab has names for.
    pub fn build(size: u8) -> Result<Self> {
        let lab = Lab::new()?;
        let (outside, inside, link) = (lab.switch("out")?, lab.switch("in")?, lab.switch("clu")?);
        let server = lab.namespace("srv")?;
        inside.plug("srv", &server, "in")?;
        server.ip(&[format!("addr add {SERVER}/24 dev in"), format!("route add {POOL} via {INSIDE_ADDRESS}")])?;
        let authority = Authority::new("Lab CA")?;
        let directory = lab.subdirectory("cluster")?;
        mount_bpffs()?;
        let mut cluster = Self { nodes: Vec::new(), outside, inside, link, server, authority, directory, lab };
        cluster.write_files(size)?;
        for number in 1..=size {
            let node = cluster.build_node(&format!("n{number}"), number, size)?;
            cluster.nodes.push(node);
        }
        Ok(cluster)
    }

    /// Has all nodes run `program` from their next start on.
    pub fn run_program(&mut self, program: &Path) {
        for node in &mut self.nodes {
            node.program = Some(program.to_owned());
        }
    }

    /// Starts all nodes and waits until they form one view that owns all work sets.
    ///
    /// # Errors
    /// A node ends, or they do not agree in time; the error shows the end of the node's log.
    pub fn start(&mut self) -> Result<()> {
        for node in &mut self.nodes {
            node.start()?;
        }
        self.await_formed(FORM_MAX)
    }

    /// Waits until all running nodes are members of one view and each owns work sets.
    ///
    /// # Errors
    /// They do not within `limit`, or a node ends.
    pub fn await_formed(&mut self, limit: Duration) -> Result<()> {
        let names: Vec<String> = self.nodes.iter().filter(|n| n.process.is_some()).map(|n| n.name.clone()).collect();
        let is_single = self.nodes.len() == 1;
        for node in self.nodes.iter_mut().filter(|node| node.process.is_some()) {
            run::wait_for(&format!("{} to see all nodes at work", node.name), limit, || {
                if let Err(error) = node.check_running() {
                    return Some(Err(error));
                }
                let status = node.status().ok()?;
                let sees_all = match status.view {
                    Some(view) => names.iter().all(|name| view.has_at_work(name)),
                    None => is_single && status.state == "alone",
                };
                sees_all.then_some(Ok(()))
            })
            .with_context(|| format!("the log of {} ends: {}", node.name, node.log_end()))??;
        }
        Ok(())
    }

    /// Waits until no work set is on the move any more: all nodes agree on shares that differ by no more than one.
    ///
    /// # Errors
    /// They do not within `limit`.
    pub fn await_even(&self, limit: Duration) -> Result<()> {
        run::wait_for("the work to be spread evenly", limit, || {
            let mut shares = self.running().map(|node| {
                let view = node.status().ok()?.view?;
                Some(view.members.iter().map(|member| (member.name.clone(), member.sets)).collect::<BTreeMap<_, _>>())
            });
            let first = shares.next()??;
            let (least, most) = (first.values().min()?, first.values().max()?);
            (most - least <= 1 && shares.all(|other| other.as_ref() == Some(&first))).then_some(())
        })
    }

    fn running(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| node.process.is_some())
    }

    /// Starts a strongSwan client, the `number`th, that proves by certificate who it is; it is not connected yet.
    ///
    /// # Errors
    /// strongSwan is not installed.
    pub fn client(&self, number: u8) -> Result<Client> {
        self.guest(number, &Guest { identity: &format!("c{number}.lab.test"), ..Guest::default() })
    }

    /// Starts the `number`th strongSwan client, as `settings` say, which [`client_settings`] begins; it is not connected yet.
    ///
    /// # Errors
    /// strongSwan is not installed, or refuses the settings.
    pub fn client_as(&self, number: u8, settings: &Settings<'_>) -> Result<Client> {
        let name = format!("c{number}");
        let namespace = self.outside_host(&name, 100 + number)?;
        let charon = Charon::start(&self.lab, &namespace, &name, settings)?;
        Ok(Client { charon, namespace })
    }

    /// Starts a load tool in `outside`, with the address 198.51.100.`host`, whose sessions use `secret`.
    ///
    /// # Errors
    /// As [`Load::start`].
    pub fn load(&self, outside: &Namespace, host: u8, secret: &str) -> Result<Load> {
        let settings = LoadSettings {
            local: outside_host(host),
            gateway: OUTSIDE_ADDRESS,
            gateway_id: GATEWAY_ID,
            local_id: LOAD_ID,
            proof: load::Proof::PreSharedKey(secret),
        };
        Load::start(outside, &settings)
    }

    /// A namespace on the outside network, with the address 198.51.100.`host`, for a load tool.
    ///
    /// # Errors
    /// The name is taken.
    pub fn outside_host(&self, name: &str, host: u8) -> Result<Namespace> {
        let namespace = self.lab.namespace(name)?;
        self.outside.plug(name, &namespace, "out")?;
        namespace.ip(&[format!("addr add {} dev out", outside_prefix(host))])?;
        Ok(namespace)
    }

    /// The node of that name.
    ///
    /// # Errors
    /// There is none.
    pub fn node(&mut self, name: &str) -> Result<&mut Node> {
        self.nodes.iter_mut().find(|node| node.name == name).with_context(|| format!("there is no node {name:?}"))
    }

    /// All sessions of the cluster, as the running nodes show them.
    #[must_use]
    pub fn sessions(&self) -> Vec<Session> {
        let mut sessions: Vec<Session> = self.running().flat_map(|node| node.sessions().unwrap_or_default()).collect();
        // Of two that show the same one, the newer owner counts: a node that is cut off shows what it had. And its own word
        // counts more than another's copy of the record.
        let order = |session: &Session| (session.session.clone(), Reverse(session.epoch), session.as_of.clone());
        sessions.sort_by_key(order);
        sessions.dedup_by(|a, b| a.session == b.session);
        sessions
    }

    /// The name of the node that owns the session of `identity`.
    ///
    /// # Errors
    /// No running node knows such a session.
    pub fn owner_of(&self, identity: &str) -> Result<String> {
        let sessions = self.sessions();
        let is_it = |session: &&Session| session.identity.as_ref().is_some_and(|name| name.contains(identity));
        let owner = sessions.iter().find(is_it).map(|session| session.owner.clone());
        owner.with_context(|| format!("none of {} sessions is of {identity}", sessions.len()))
    }

    /// The name of the master, on which all running nodes that are in a view agree.
    ///
    /// # Errors
    /// They do not agree within five seconds.
    pub fn master(&self) -> Result<String> {
        run::wait_for("all nodes to name one master", Duration::from_secs(5), || {
            let mut masters = self.running().filter_map(|node| Some(node.status().ok()?.view?.master));
            let first = masters.next()?;
            masters.all(|other| other == first).then_some(first)
        })
    }

    /// What an observer of the outside has to know.
    #[must_use]
    pub fn rules(&self) -> Rules {
        let protected = [PROTECTED, POOL].iter().filter_map(|prefix| prefix.parse().ok()).collect();
        Rules { protected, cluster: Some(OUTSIDE_ADDRESS), attackers: Vec::new() }
    }

    /// Where a server inside can listen.
    #[must_use]
    pub fn server_address(&self, port: u16) -> SocketAddr {
        SocketAddr::from((SERVER, port))
    }

    /// The secret of the connection by pre-shared key, for load tools.
    #[must_use]
    pub const fn pre_shared_key(&self) -> &'static str {
        PRE_SHARED_KEY
    }

    /// The authority that clients' certificates come from.
    #[must_use]
    pub const fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The configuration that all nodes share, and beside it all the files that it names.
    #[must_use]
    pub fn config_file(&self) -> PathBuf {
        self.directory.join("cluster.toml")
    }

    /// The prefix of all names of its lab.
    #[must_use]
    pub fn prefix(&self) -> String {
        self.lab.prefix()
    }

    /// A namespace on the network between the nodes, with the address 10.255.0.`host`.
    ///
    /// # Errors
    /// The name is taken.
    pub fn link_host(&self, name: &str, host: u8) -> Result<Namespace> {
        let namespace = self.lab.namespace(name)?;
        self.link.plug(name, &namespace, "clu")?;
        namespace.ip(&[format!("addr add {} dev clu", link_prefix(host))])?;
        Ok(namespace)
    }

    fn write_files(&self, size: u8) -> Result<()> {
        let gateway = self.authority.issue(GATEWAY_ID, KeyKind::EcdsaP256, &[])?;
        gateway.write(&self.directory.join("gateway.crt"), &self.directory.join("gateway.key"))?;
        fs::write(self.directory.join("clients-ca.crt"), self.authority.pem())?;
        write_secret(&self.directory.join("cluster.secret"), &"5e".repeat(32))?;
        write_secret(&self.directory.join("bench.psk"), PRE_SHARED_KEY)?;
        let mut members = String::new();
        if size > 1 {
            for number in 1..=size {
                members += &format!(
                    "[[members]]\nname = \"n{number}\"\noutside = \"{}\"\ninside = \"{}\"\ncluster = \"{}\"\n",
                    outside_host(10 + number),
                    inside_host(10 + number),
                    link_host(10 + number)
                );
            }
            let authority = Authority::new("Lab cluster CA")?;
            fs::write(self.directory.join("cluster-ca.crt"), authority.pem())?;
            for number in 1..=size {
                let name = format!("n{number}");
                let own = authority.issue(&name, KeyKind::EcdsaP256, &[])?;
                own.write(&self.directory.join(format!("{name}.crt")), &self.directory.join(format!("{name}.key")))?;
            }
        }
        let text = format!(
            r#"version = 1
name = "{name}"
outside_address = "{OUTSIDE_ADDRESS}/24"
inside_address = "{INSIDE_ADDRESS}/24"
secret_file = "cluster.secret"
trust = ["clients-ca.crt"]
[ike]
cookie_threshold = 5000
half_open_max = 20000
{members}
[[pools]]
name = "clients"
prefix = "{POOL}"
[[connections]]
name = "road"
local = {{ id = "{GATEWAY_ID}", certificate = "gateway.crt", key = "gateway.key" }}
remote = {{ id = "*.lab.test", auth = "certificate" }}
unique = "keep"
local_networks = ["{PROTECTED}"]
pool = "clients"
ike = ["aes128gcm16-prfsha256-x25519"]
esp = ["aes128gcm16"]
[[connections]]
name = "bench"
local = {{ id = "{GATEWAY_ID}", psk_file = "bench.psk" }}
remote = {{ id = "any", auth = "psk" }}
unique = "keep"
local_networks = ["{PROTECTED}"]
pool = "clients"
ike = ["aes128gcm16-prfsha256-x25519"]
esp = ["aes128gcm16"]
"#,
            name = self.lab.prefix()
        );
        fs::write(self.config_file(), text)?;
        Ok(())
    }

    /// The `number`th node, on a machine named `machine`.
    fn build_node(&self, machine: &str, number: u8, size: u8) -> Result<Node> {
        let name = format!("n{number}");
        let namespace = self.lab.namespace(machine)?;
        let cables = vec![
            self.outside.plug(machine, &namespace, "out")?,
            self.inside.plug(machine, &namespace, "in")?,
            self.link.plug(machine, &namespace, "clu")?,
        ];
        let (outside, inside, cluster) =
            (outside_prefix(10 + number), inside_prefix(10 + number), link_prefix(10 + number));
        namespace.ip(&[
            format!("addr add {outside} dev out"),
            format!("addr add {inside} dev in"),
            format!("addr add {cluster} dev clu"),
        ])?;
        let directory = self.lab.subdirectory(machine)?;
        let pins = Path::new(BPFFS).join(self.lab.prefix()).join(machine);
        let membership = if size > 1 {
            format!(
                "[cluster]\ninterface = \"clu\"\naddress = \"{cluster}\"\n\
                 [membership]\ncertificate = \"{shared}/{name}.crt\"\nkey = \"{shared}/{name}.key\"\nca = \"{shared}/cluster-ca.crt\"\n",
                shared = self.directory.display()
            )
        } else {
            String::new()
        };
        let text = format!(
            "name = \"{name}\"\ncluster_config = \"{shared}/cluster.toml\"\nrun_directory = \"{run}\"\n\
             pin_directory = \"{pins}\"\n\
             [outside]\ninterface = \"out\"\naddress = \"{outside}\"\n\
             [inside]\ninterface = \"in\"\naddress = \"{inside}\"\n{membership}\
             [log]\nlevel = \"info\"\nformat = \"text\"\n",
            shared = self.directory.display(),
            run = directory.display(),
            pins = pins.display(),
        );
        let node = Node { name, namespace, cables, directory, program: None, process: None };
        fs::write(node.config_file(), text)?;
        Ok(node)
    }
}

impl Node {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it runs.
    #[must_use]
    pub const fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Starts the gateway program.
    ///
    /// # Errors
    /// It is not built, or ends at once.
    pub fn start(&mut self) -> Result<()> {
        let program = self.program.clone().map_or_else(gateway_program, Ok)?;
        let mut command = Command::new(program);
        command.args(["run", "--config"]).arg(self.config_file());
        self.process = Some(Process::start(&self.namespace, &mut command, &self.log_file())?);
        let socket = self.socket();
        run::wait_for(&format!("{} to answer its operator", self.name), START_MAX, || {
            if let Err(error) = self.check_running() {
                return Some(Err(error));
            }
            (socket.exists() && self.status().is_ok()).then_some(Ok(()))
        })?
    }

    /// Runs the program through `wrapper`, such as `setpriv …`, until it ends by itself.
    ///
    /// # Errors
    /// It still runs after 5 s.
    pub fn run_to_end(&self, wrapper: &[&str]) -> Result<Ended> {
        let program = gateway_program()?;
        let mut command = match wrapper {
            [] => Command::new(&program),
            [first, rest @ ..] => {
                let mut command = Command::new(first);
                command.args(rest).arg(&program);
                command
            }
        };
        command.args(["run", "--config"]).arg(self.config_file());
        let log = self.directory.join("ended");
        fs::write(&log, "")?;
        let mut process = Process::start(&self.namespace, &mut command, &log)?;
        let status = run::wait_for("the program to end by itself", Duration::from_secs(5), || process.status())?;
        Ok(Ended { code: status.code(), said: process.said() })
    }

    /// Its bootstrap file.
    #[must_use]
    pub fn config_file(&self) -> PathBuf {
        self.directory.join("node.toml")
    }

    /// The running program, if it runs.
    pub fn process(&mut self) -> Option<&mut Process> {
        self.process.as_mut()
    }

    /// Whether the program runs; one that ended by itself does not.
    pub fn is_running(&mut self) -> bool {
        self.check_running().is_ok()
    }

    /// Kills the program with SIGKILL.
    pub fn kill(&mut self) {
        // A killed program leaves its socket; without it, nothing is asked in vain.
        self.process = None;
        fs::remove_file(self.socket()).ok();
    }

    /// Takes all of its links down.
    ///
    /// # Errors
    /// The lab is gone.
    pub fn cut(&self) -> Result<()> {
        self.cables.iter().try_for_each(Cable::cut)
    }

    /// Brings all of its links up.
    ///
    /// # Errors
    /// The lab is gone.
    pub fn restore(&self) -> Result<()> {
        self.cables.iter().try_for_each(Cable::restore)
    }

    /// Its cables: outside, inside, cluster.
    #[must_use]
    pub fn cables(&self) -> &[Cable] {
        &self.cables
    }

    /// What it says of itself and its view.
    ///
    /// # Errors
    /// It does not answer, or not in the words that the lab knows.
    pub fn status(&self) -> Result<Status> {
        self.ask(&["status"])
    }

    /// The sessions that it knows.
    ///
    /// # Errors
    /// As [`status`](Self::status).
    pub fn sessions(&self) -> Result<Vec<Session>> {
        Ok(self.ask::<Sessions>(&["session", "list"])?.sessions)
    }

    /// Asks this node to have `name` drained, and waits until it is.
    ///
    /// # Errors
    /// The drain is refused or does not end.
    pub fn drain(&self, name: &str) -> Result<Drain> {
        self.ask(&["node", "drain", name])
    }

    /// Asks this node to let `name` have work again.
    ///
    /// # Errors
    /// It is refused.
    pub fn undrain(&self, name: &str) -> Result<()> {
        self.ask::<serde_json::Value>(&["node", "undrain", name])?;
        Ok(())
    }

    /// Sets the level of its log.
    ///
    /// # Errors
    /// It does not answer.
    pub fn log_level(&self, level: &str) -> Result<()> {
        self.ask::<serde_json::Value>(&["log", level])?;
        Ok(())
    }

    /// Datagrams that its kernel has dropped because a UDP socket was full.
    #[must_use]
    pub fn full_sockets(&self) -> u64 {
        let read = || Ok(fs::read_to_string("/proc/thread-self/net/snmp")?);
        let text = self.namespace.within(read).unwrap_or_default();
        // Two lines of each protocol: the names of its counters, and their values.
        let mut udp = text.lines().filter(|line| line.starts_with("Udp:"));
        let (Some(names), Some(values)) = (udp.next(), udp.next()) else { return 0 };
        let mut pairs = names.split_whitespace().zip(values.split_whitespace());
        pairs.find(|(name, _)| *name == "RcvbufErrors").and_then(|(_, value)| value.parse().ok()).unwrap_or(0)
    }

    /// All that the program has logged, over all of its lives.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    fn ask<T: DeserializeOwned>(&self, arguments: &[&str]) -> Result<T> {
        let mut command = Command::new(gateway_program()?);
        command.args(arguments).arg("--socket").arg(self.socket()).arg("--json");
        let answer = run::output(&mut command)?;
        serde_json::from_str(&answer).with_context(|| format!("{} answers {arguments:?} with {answer}", self.name))
    }

    fn check_running(&mut self) -> Result<()> {
        let Some(process) = &mut self.process else { bail!("{} does not run", self.name) };
        if let Some(status) = process.status() {
            bail!("{} ended with {status}; its log ends: {}", self.name, self.log_end());
        }
        Ok(())
    }

    fn log_end(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(12)..].join("\n    ")
    }

    fn log_file(&self) -> PathBuf {
        self.directory.join("log")
    }

    fn socket(&self) -> PathBuf {
        self.directory.join("api.sock")
    }
}

/// The gateway program: next to the running program, or what `CRYPTOCLUSTER` names.
///
/// # Errors
/// It is not built.
pub fn gateway_program() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("CRYPTOCLUSTER") {
        return Ok(path.into());
    }
    run::program("cryptocluster", "cargo build --release -p gateway")
}

/// The gateway program with a planted fault, which the observer must find: an heir uses sequence numbers again.
///
/// # Errors
/// It is not built.
pub fn planted_program() -> Result<PathBuf> {
    run::program("cryptocluster-planted", "scripts/build-planted --workspace")
}

/// What a strongSwan client is to be that connects to the cluster's address.
#[must_use]
pub const fn client_settings<'a>(id: &'a str, credential: Credential<'a>) -> Settings<'a> {
    Settings {
        local_id: id,
        remote_id: GATEWAY_ID,
        credential,
        ike_proposal: "aes128gcm16-prfsha256-x25519",
        esp_proposal: "aes128gcm16",
        local_selector: None,
        remote_selector: Some(PROTECTED),
        role: Role::Client { gateway: IpAddr::V4(OUTSIDE_ADDRESS), liveness_s: 10 },
        extra: "",
        connection_extra: "",
        child_extra: "",
        log: Log::Exchanges,
    }
}

fn mount_bpffs() -> Result<()> {
    let mounts = fs::read_to_string("/proc/mounts").context("read /proc/mounts")?;
    if !mounts.lines().any(|line| line.split_whitespace().nth(1) == Some(BPFFS)) {
        run::output(Command::new("mount").args(["-t", "bpf", "bpf", BPFFS]))?;
    }
    Ok(())
}

pub(crate) fn write_secret(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("write {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(())
}

fn outside_host(host: u8) -> Ipv4Addr {
    Ipv4Addr::new(198, 51, 100, host)
}

fn inside_host(host: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 1, 0, host)
}

fn link_host(host: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 255, 0, host)
}

fn outside_prefix(host: u8) -> String {
    format!("{}/24", outside_host(host))
}

fn inside_prefix(host: u8) -> String {
    format!("{}/24", inside_host(host))
}

fn link_prefix(host: u8) -> String {
    format!("{}/24", link_host(host))
}

/// The cluster's address outside.
pub const OUTSIDE_ADDRESS: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// The cluster's address inside.
pub const INSIDE_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);
/// The host inside.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 100);
/// What the cluster protects.
pub const PROTECTED: &str = "10.1.0.0/24";
/// Where clients' inner addresses come from.
pub const POOL: &str = "10.2.0.0/16";
/// Who the cluster is.
pub const GATEWAY_ID: &str = "vpn.lab.test";
/// Who the load tool's sessions are.
pub const LOAD_ID: &str = "load.lab.test";
const PRE_SHARED_KEY: &str = "a secret that only the lab knows";
const START_MAX: Duration = Duration::from_secs(10);
const FORM_MAX: Duration = Duration::from_secs(20);
