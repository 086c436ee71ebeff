//! The HTTP API: JSON on a Unix socket that only its owner may open. The console serves the same router.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net;
use std::path::{Path as FilePath, PathBuf};

use anyhow::Context;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use rustix::fs::{Mode, fchmod};
use serde::{Deserialize, Serialize};
use socket2::{Domain, SockAddr, Type};
use tokio::net::UnixListener;

use crate::fault::Machine;
use crate::logs::{self, Level};
use crate::node::Control;

/// How a node stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The node's name.
    pub node: String,
    /// The cluster's name.
    pub cluster: String,
    /// Version of the cluster's configuration.
    pub config_version: u64,
    /// Its hash; the same on all nodes.
    pub config_hash: String,
    /// `alone` (a node without cluster), `joining`, `learner`, `member`, `silent` (no lease).
    pub state: String,
    /// The view in force.
    pub view: Option<ViewStatus>,
    /// Members that the configuration names and the view does not: they are down, cut off, or not let in.
    pub absent: Vec<String>,
    /// Work sets without an owner, as far as this node knows.
    pub unowned: usize,
    /// Sessions that live on this node.
    pub sessions: usize,
    /// Sessions of the whole cluster, logins that are not complete included.
    pub cluster_sessions: usize,
    /// This node's right to send; none if it runs alone.
    pub lease: Option<LeaseStatus>,
    /// What waits until every full member holds the state behind it.
    pub commits_waiting: usize,
    /// Seconds since the program's start.
    pub uptime_s: u64,
    /// Everything that is counted, drop reasons included.
    pub counters: BTreeMap<String, u64>,
    /// The filter on the interfaces; none if the node runs alone.
    pub dispatch: Option<DispatchStatus>,
    /// What the process may still do.
    pub rights: Rights,
}

/// The filter in the kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DispatchStatus {
    /// Where it is attached.
    pub interfaces: Vec<DispatchInterface>,
    /// Frames since this start, over all processors: by verdict (`pass`, `take`, `answer`, `drop`), then by reason.
    pub frames: BTreeMap<String, BTreeMap<String, u64>>,
}

/// The filter on one interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DispatchInterface {
    /// The interface.
    pub interface: String,
    /// `tc` or `xdp`: where the way in is judged.
    pub hook: String,
    /// `tcx` or `clsact`: what keeps the program while no process does.
    pub keeper: String,
    /// Why there, and why so.
    pub why: String,
}

/// What the process may do beyond what everybody may.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rights {
    /// Its capabilities.
    pub capabilities: Vec<String>,
    /// Whether it can gain more, by running another program.
    pub can_gain: bool,
}

/// A view of the cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ViewStatus {
    /// Its number.
    pub number: u64,
    /// Its number and a digest: two halves of a split cluster may count alike, but differ in this.
    pub id: String,
    /// The master's name.
    pub master: String,
    /// Who becomes master if that one goes.
    pub deputy: Option<String>,
    /// Whether this view went on without a majority of the one before.
    pub unproven: bool,
    /// The members.
    pub members: Vec<MemberStatus>,
}

/// A member in a view.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MemberStatus {
    /// Its name.
    pub name: String,
    /// Its number in the view.
    pub slot: u8,
    /// Whether it is a full member, not a learner.
    pub full: bool,
    /// Whether an operator has drained it.
    pub drained: bool,
    /// Work sets that it owns.
    pub sets: usize,
    /// Sessions that live on it, logins that are not complete included.
    pub sessions: usize,
    /// Round trip of the link to it in milliseconds; none for the node that answers, and while there is no link.
    pub round_trip_ms: Option<f64>,
}

/// A node's right to send.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LeaseStatus {
    /// Milliseconds that are left of it.
    pub left_ms: f64,
    /// The least that was left when it was renewed lately.
    pub margin_min_ms: Option<f64>,
}

/// A session, as a list shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionEntry {
    /// Its number in 16 hexadecimal digits.
    pub session: String,
    /// Its work set.
    pub set: u16,
    /// The node that it lives on.
    pub owner: String,
    /// Under which epoch of that work set, counted: of two nodes that list a session, the higher has it.
    pub epoch: u32,
    /// `owner`: its node says so itself. `replica`: as this node's copy of its record has it; ages and times left in that
    /// are wrong by a minute at most.
    pub as_of: String,
    /// The connection's name.
    pub connection: String,
    /// Who the peer is, once that is proven.
    pub identity: Option<String>,
    /// Where the peer is.
    pub peer: String,
    /// Its inner address.
    pub inner_address: Option<IpAddr>,
    /// `connecting`, `up` or `closing`.
    pub state: String,
    /// Suite of its IKE SA, as cluster.toml spells it.
    pub ike_suite: Option<String>,
    /// Suite of its ESP SAs.
    pub esp_suite: Option<String>,
    /// Pairs of ESP SAs.
    pub children: usize,
    /// How often its IKE SA was replaced.
    pub ike_rekeys: u32,
    /// How often a child SA was replaced.
    pub child_rekeys: u32,
    /// Seconds since its login; none while it is not complete.
    pub established_s: Option<u64>,
    /// Seconds until its IKE SA is rekeyed.
    pub rekey_in_s: Option<u64>,
    /// Seconds since its peer's last IKE message; only its own node knows that.
    pub idle_s: Option<u64>,
}

/// The sessions of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionList {
    /// One entry for each.
    pub sessions: Vec<SessionEntry>,
}

/// What a drain has moved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DrainReport {
    /// The node.
    pub node: String,
    /// Work sets that were moved away.
    pub moved_sets: usize,
    /// Sessions in them, as they were counted at the beginning.
    pub moved_sessions: usize,
    /// Work sets that it still owns.
    pub left_sets: usize,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
    /// Packets that found the queue of a moving set full, on all nodes meanwhile. None if a node did not say.
    pub lost_packets: Option<u64>,
    /// Packets that reached both owners and were kept from being passed on twice, on all nodes meanwhile.
    pub doubles_prevented: Option<u64>,
}

/// A drained node works again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UndrainReport {
    /// The node.
    pub node: String,
    /// Work sets that it has been given so far; the master gives it more until the load is even.
    pub sets: usize,
    /// How long that took, in milliseconds.
    pub duration_ms: u64,
}

/// Opens a session from this side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InitiateOrder {
    /// The connection's name.
    pub connection: String,
    /// Where the peer is.
    pub peer: IpAddr,
}

/// A session's number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionName {
    /// In 16 hexadecimal digits.
    pub session: String,
}

/// Another level for the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogOrder {
    /// The level.
    pub level: Level,
}

/// Why an order was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// One sentence.
    pub error: String,
}

/// What the handlers reach.
#[derive(Clone)]
pub struct Shared {
    /// The node.
    pub control: Control,
    /// The log.
    pub logs: logs::Handle,
}

/// All operations.
pub fn router(shared: Shared) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/sessions", get(sessions).post(initiate))
        .route("/v1/sessions/{session}/close", post(close))
        .route("/v1/nodes/{name}/drain", post(drain))
        .route("/v1/nodes/{name}/undrain", post(undrain))
        .route("/v1/log", put(set_log))
        .with_state(shared)
}

/// A bound socket that disappears with its holder.
pub struct Socket {
    listener: Option<UnixListener>,
    path: PathBuf,
}

impl Socket {
    /// Makes sure that no node answers in the run directory, before anything is changed that a running one has set up.
    ///
    /// # Errors
    /// One does.
    pub fn check_free(run_directory: &FilePath) -> Result<(), Machine> {
        match std::os::unix::net::UnixStream::connect(run_directory.join(SOCKET)) {
            Ok(_) => Err(Machine::Running(run_directory.to_owned())),
            Err(_) => Ok(()),
        }
    }

    /// Binds `api.sock` in the run directory. A socket that a dead process left behind is replaced.
    ///
    /// # Errors
    /// The directory cannot be made, or another node answers there.
    pub fn bind(run_directory: &FilePath) -> anyhow::Result<Self> {
        std::fs::create_dir_all(run_directory)
            .with_context(|| format!("make the run directory {}", run_directory.display()))?;
        let path = run_directory.join(SOCKET);
        Self::check_free(run_directory)?;
        if path.exists() {
            std::fs::remove_file(&path).with_context(|| format!("remove the old socket {}", path.display()))?;
        }
        let listener = listen(&path).and_then(UnixListener::from_std).with_context(|| {
            format!("listen at the API socket {}: run_directory in node.toml says where", path.display())
        })?;
        Ok(Self { listener: Some(listener), path })
    }

    /// Answers until the runtime ends.
    pub fn serve(&mut self, router: Router) {
        if let Some(listener) = self.listener.take() {
            tokio::spawn(async move {
                if let Err(error) = axum::serve(listener, router).await {
                    tracing::error!(%error, "the API has ended");
                }
            });
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // A socket that is gone already is no loss.
        let _gone = std::fs::remove_file(&self.path);
    }
}

/// Listens at a path that only its owner may connect to, from its first moment on.
fn listen(path: &FilePath) -> std::io::Result<net::UnixListener> {
    let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    // unix(7) leaves it open, Linux keeps it: the file that bind(2) makes has the socket's own mode, less the umask. A mode
    // that is set afterwards leaves a moment in which anybody who may enter the directory connects, and stays connected.
    fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    socket.bind(&SockAddr::unix(path)?)?;
    socket.listen(BACKLOG)?;
    Ok(OwnedFd::from(socket).into())
}

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 128;

/// The API's socket in the run directory.
pub const SOCKET: &str = "api.sock";

async fn status(State(shared): State<Shared>) -> Response {
    answer(shared.control.status().await)
}

async fn sessions(State(shared): State<Shared>) -> Response {
    answer(shared.control.sessions().await.map(|sessions| SessionList { sessions }))
}

async fn initiate(State(shared): State<Shared>, Json(order): Json<InitiateOrder>) -> Response {
    let session = shared.control.initiate(order.connection, order.peer).await;
    answer(session.map(|session| SessionName { session: format!("{session:016x}") }))
}

async fn close(State(shared): State<Shared>, Path(session): Path<String>) -> Response {
    match u64::from_str_radix(&session, 16) {
        Ok(number) => answer(shared.control.close(number).await.map(|()| SessionName { session })),
        Err(_) => problem(StatusCode::BAD_REQUEST, "a session is named by its 16 hexadecimal digits"),
    }
}

async fn drain(State(shared): State<Shared>, Path(name): Path<String>) -> Response {
    answer(shared.control.drain(&name).await)
}

async fn undrain(State(shared): State<Shared>, Path(name): Path<String>) -> Response {
    answer(shared.control.undrain(&name).await)
}

async fn set_log(State(shared): State<Shared>, Json(order): Json<LogOrder>) -> Response {
    shared.logs.set_level(order.level);
    answer(Ok(order))
}

fn answer<T: Serialize>(result: anyhow::Result<T>) -> Response {
    match result {
        Ok(value) => Json(value).into_response(),
        Err(error) => problem(StatusCode::CONFLICT, &format!("{error:#}")),
    }
}

fn problem(status: StatusCode, error: &str) -> Response {
    (status, Json(Problem { error: error.to_owned() })).into_response()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_socket_is_its_owners_alone_without_a_mode_that_is_set_afterwards() {
        let directory = std::env::temp_dir().join(format!("cc-api-{}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        let path = directory.join(SOCKET);
        let listener = listen(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        net::UnixStream::connect(&path).unwrap();
        listener.accept().unwrap();
        std::fs::remove_dir_all(directory).unwrap();
    }
}
