//! The operator's command: one table of verbs over the API.

mod backup;
mod cert;
mod enroll;
mod init;
mod journal;
mod profile;
mod store;
mod ticket;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, anyhow};
use axum::http::{Method, Request, StatusCode, header};
use clap::{Parser, Subcommand};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use crate::api::{DrainReport, InitiateOrder, LogOrder, Problem, SessionList, SessionName, Status, UndrainReport};
use crate::config::{Cluster, Node};
use crate::fault;
use crate::logs::Level;
use crate::node;
use command::{output, program, say, shell};

mod show;

/// A clustered VPN gateway: many nodes, one address.
#[derive(Debug, Parser)]
#[command(name = "cryptocluster", version)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run this machine's node in the foreground.
    Run {
        /// The node's file.
        #[arg(long, value_name = "FILE", default_value = NODE_FILE)]
        config: PathBuf,
    },
    /// Look at configuration files.
    #[command(subcommand)]
    Config(ConfigVerb),
    /// Show how the node and its cluster stand.
    Status(Reach),
    /// Look at sessions, open and end them.
    #[command(subcommand)]
    Session(SessionVerb),
    /// Give orders for nodes.
    #[command(subcommand)]
    Node(NodeVerb),
    /// Make a store with a CA.
    Init(init::Init),
    /// Make, list and withdraw tickets: each lets one device ask for one certificate.
    #[command(subcommand)]
    Ticket(ticket::TicketVerb),
    /// Answer the requests that devices print.
    #[command(subcommand)]
    Enroll(enroll::EnrollVerb),
    /// Look at certificates, issue, renew, revoke and release them.
    #[command(subcommand)]
    Cert(cert::CertVerb),
    /// Look at the cluster's CAs, and roll over to a new one.
    #[command(subcommand)]
    Ca(cert::CaVerb),
    /// Read and check the journal of who did what.
    #[command(subcommand)]
    Journal(journal::JournalVerb),
    /// Write the store into one file.
    Backup(backup::BackupVerb),
    /// Put a backup in the place of the store.
    Restore(backup::RestoreVerb),
    /// Say what profiles stand for, and write them for a client's own system.
    #[command(subcommand)]
    Profile(profile::ProfileVerb),
    /// Print completions for a shell.
    Completions(shell::Completions),
    /// Write the manual pages.
    Manual(shell::Manual),
    /// Set the level of the running node's log: error, warn, info, debug or trace.
    Log {
        /// The level.
        #[arg(value_parser = level)]
        level: Level,
        #[command(flatten)]
        reach: Reach,
    },
}

#[derive(Debug, Subcommand)]
enum ConfigVerb {
    /// Read node.toml, cluster.toml and all files that they name, and say what is wrong.
    Check {
        /// The node's file.
        #[arg(long, value_name = "FILE", default_value = NODE_FILE)]
        config: PathBuf,
        /// Answer in JSON.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Subcommand)]
enum SessionVerb {
    /// List the sessions of the cluster.
    List(Reach),
    /// Open a session from this side.
    Open {
        /// The connection's name in cluster.toml.
        connection: String,
        /// The peer's address.
        peer: IpAddr,
        #[command(flatten)]
        reach: Reach,
    },
    /// End a session and tell the peer.
    Close {
        /// The session's number, as the list shows it.
        session: String,
        #[command(flatten)]
        reach: Reach,
    },
}

#[derive(Debug, Subcommand)]
enum NodeVerb {
    /// Move all work away from a node, without loss, and give it none until it is undrained.
    Drain {
        /// The node's name.
        #[arg(value_parser = node_name)]
        name: String,
        #[command(flatten)]
        reach: Reach,
    },
    /// Give a drained node work again.
    Undrain {
        /// The node's name.
        #[arg(value_parser = node_name)]
        name: String,
        #[command(flatten)]
        reach: Reach,
    },
}

/// How to reach the running node.
#[derive(Debug, clap::Args)]
struct Reach {
    /// The node's API socket.
    #[arg(long, value_name = "PATH", default_value = "/run/cryptocluster/api.sock")]
    socket: PathBuf,
    /// Answer in JSON.
    #[arg(long)]
    json: bool,
}

/// Does what the command line asks, and says how that ended.
#[must_use]
pub fn main() -> ExitCode {
    program::run(Cli::run, fault::exit_code)
}

impl Cli {
    fn run(self) -> anyhow::Result<ExitCode> {
        match self.verb {
            Verb::Run { config } => node::run(&config)?,
            Verb::Config(ConfigVerb::Check { config, json }) => check(&config, json)?,
            Verb::Status(reach) => {
                let status: Status = reach.ask(Method::GET, "/v1/status", &())?;
                reach.show(&status, |status| say!("{}", show::status(status)))?;
            }
            Verb::Session(SessionVerb::List(reach)) => {
                let list: SessionList = reach.ask(Method::GET, "/v1/sessions", &())?;
                reach.show(&list, |list| say!("{}", show::sessions(&list.sessions)))?;
            }
            Verb::Session(SessionVerb::Open { connection, peer, reach }) => {
                let session: SessionName =
                    reach.ask(Method::POST, "/v1/sessions", &InitiateOrder { connection, peer })?;
                reach.show(&session, |session| say!("session {} begins", session.session))?;
            }
            Verb::Session(SessionVerb::Close { session, reach }) => {
                let closed: SessionName = reach.ask(Method::POST, &format!("/v1/sessions/{session}/close"), &())?;
                reach.show(&closed, |closed| say!("session {} ends", closed.session))?;
            }
            Verb::Node(NodeVerb::Drain { name, reach }) => {
                let report = reach.drain(&name)?;
                reach.show(&report, |report| say!("{}", show::drained(report)))?;
            }
            Verb::Node(NodeVerb::Undrain { name, reach }) => {
                let report: UndrainReport = reach.ask(Method::POST, &format!("/v1/nodes/{name}/undrain"), &())?;
                reach.show(&report, |report| say!("{}", show::undrained(report)))?;
            }
            Verb::Init(init) => init.run()?,
            Verb::Ticket(verb) => verb.run()?,
            Verb::Enroll(verb) => return verb.run(),
            Verb::Cert(verb) => verb.run()?,
            Verb::Ca(verb) => verb.run()?,
            Verb::Journal(verb) => verb.run()?,
            Verb::Backup(verb) => verb.run()?,
            Verb::Restore(verb) => verb.run()?,
            Verb::Profile(verb) => verb.run()?,
            Verb::Completions(completions) => completions.run::<Self>(),
            Verb::Manual(manual) => manual.run::<Self>()?,
            Verb::Log { level, reach } => {
                let done: LogOrder = reach.ask(Method::PUT, "/v1/log", &LogOrder { level })?;
                reach.show(&done, |done| say!("the log's level is {}", done.level.word()))?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Reach {
    fn show<T: Serialize>(&self, value: &T, text: impl FnOnce(&T)) -> anyhow::Result<()> {
        if self.json {
            say!("{}", serde_json::to_string(value).context("write JSON")?);
        } else {
            text(value);
        }
        Ok(())
    }

    /// Has a node drained, and tells how far that is while it is waited for.
    fn drain(&self, name: &str) -> anyhow::Result<DrainReport> {
        runtime()?.block_on(async {
            let path = format!("/v1/nodes/{name}/drain");
            let mut drained = std::pin::pin!(self.ask_async(Method::POST, &path, &()));
            let mut told = None;
            loop {
                tokio::select! {
                    report = &mut drained => return report,
                    () = tokio::time::sleep(PROGRESS_EVERY), if !self.json => {}
                }
                // A node that does not answer now will end the drain with a sentence.
                let status = self.ask_async::<_, Status>(Method::GET, "/v1/status", &()).await.ok();
                let progress = status.and_then(|status| show::progress(name, &status));
                if progress.is_some() && progress != told {
                    output::tell(progress.as_deref().unwrap_or_default());
                    told = progress;
                }
            }
        })
    }

    fn ask<Q: Serialize, A: DeserializeOwned>(&self, method: Method, path: &str, question: &Q) -> anyhow::Result<A> {
        runtime()?.block_on(self.ask_async(method, path, question))
    }

    async fn ask_async<Q: Serialize, A: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        question: &Q,
    ) -> anyhow::Result<A> {
        let body = serde_json::to_vec(question).context("write JSON")?;
        let (status, answer) = exchange(&self.socket, method, path, body).await?;
        if status == StatusCode::OK {
            return serde_json::from_slice(&answer).context("the node's answer is not of this program's version");
        }
        let problem: Problem =
            serde_json::from_slice(&answer).with_context(|| format!("the node answers with HTTP status {status}"))?;
        Err(anyhow!(problem.error))
    }
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("start")
}

async fn exchange(socket: &Path, method: Method, path: &str, body: Vec<u8>) -> anyhow::Result<(StatusCode, Bytes)> {
    let stream = UnixStream::connect(socket).await.with_context(|| {
        format!("no node answers at {}; is it running, and are you its user or root?", socket.display())
    })?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "node")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body)))?;
    let response = sender.send_request(request).await.context("the node has closed the connection")?;
    let status = response.status();
    let body = response.into_body().collect().await.context("the node's answer is cut short")?.to_bytes();
    Ok((status, body))
}

fn check(file: &Path, json: bool) -> anyhow::Result<()> {
    let node = Node::load(file)?;
    let cluster = Cluster::load(&node.cluster_file)?;
    node::check_together(&node, &cluster)?;
    node::check_certificates(&node, &cluster)?;
    if json {
        let answer = serde_json::json!({
            "node": node.name, "cluster": cluster.name, "version": cluster.version, "hash": cluster.hash.to_string(),
            "members": cluster.members.len(), "connections": cluster.ike.connections.len(),
        });
        say!("{answer}");
    } else {
        say!(
            "{}: node {}; cluster {} version {} hash {}: {} members, {} connections",
            file.display(),
            node.name,
            cluster.name,
            cluster.version,
            cluster.hash,
            cluster.members.len(),
            cluster.ike.connections.len()
        );
    }
    Ok(())
}

fn node_name(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    if !text.is_empty() && text.chars().all(fits) {
        Ok(text.to_owned())
    } else {
        Err("a node's name has letters, digits, hyphens, dots and underscores; `cryptocluster status` lists them"
            .to_owned())
    }
}

fn level(text: &str) -> Result<Level, String> {
    match text {
        "error" => Ok(Level::Error),
        "warn" => Ok(Level::Warn),
        "info" => Ok(Level::Info),
        "debug" => Ok(Level::Debug),
        "trace" => Ok(Level::Trace),
        _ => Err("use error, warn, info, debug or trace".to_owned()),
    }
}

/// How often the progress of a drain is told.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);
/// Where a node's file is looked for.
const NODE_FILE: &str = "/etc/cryptocluster/node.toml";
