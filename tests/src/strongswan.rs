//! Debian's strongSwan as a peer that nobody here wrote: charon with ESP in user space (kernel-libipsec).

use std::fmt::Write as _;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::lab::Lab;
use crate::namespace::Namespace;
use crate::pki::Certificate;
use crate::process::Process;
use crate::run;

/// How one end proves who it is.
pub enum Credential<'a> {
    /// The identities of the two ends and the secret that they share.
    PreSharedKey(&'a str),
    /// A certificate, and the authority that the other end's must come from.
    Certificate {
        /// This end's own.
        own: &'a Certificate,
        /// The trusted authority, in PEM.
        authority: &'a str,
    },
}

/// What charon is to be.
pub struct Settings<'a> {
    /// Its own identity, a DNS name.
    pub local_id: &'a str,
    /// The other end's.
    pub remote_id: &'a str,
    /// How both prove it.
    pub credential: Credential<'a>,
    /// IKE proposal in strongSwan's words, such as `aes128gcm16-prfsha256-x25519`.
    pub ike_proposal: &'a str,
    /// ESP proposal.
    pub esp_proposal: &'a str,
    /// What is behind this end; `None`: an address that the other end gives.
    pub local_selector: Option<&'a str>,
    /// What is behind the other end; `None`: an address out of [`Role::Gateway`]'s pool.
    pub remote_selector: Option<&'a str>,
    /// Who begins.
    pub role: Role<'a>,
    /// More settings for the `charon` section of strongswan.conf.
    pub extra: &'a str,
    /// More settings for the connection, such as `rekey_time = 4s`; the last word on a key counts.
    pub connection_extra: &'a str,
    /// The same for its child.
    pub child_extra: &'a str,
    /// What it writes down.
    pub log: Log,
}

/// What charon writes down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Log {
    /// Each exchange, so that [`History`] can be read.
    Exchanges,
    /// Nothing, so that its processor time is spent on IKE alone.
    Nothing,
}

/// Who begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role<'a> {
    /// Connects to this address and asks for an inner address.
    Client {
        /// The gateway's address.
        gateway: IpAddr,
        /// Seconds of silence after which it asks whether the gateway lives; 0: never.
        liveness_s: u32,
    },
    /// Waits for clients and gives them addresses.
    Gateway {
        /// The pool, as a prefix.
        pool: &'a str,
    },
}

/// A running charon.
pub struct Charon {
    namespace: Namespace,
    directory: PathBuf,
    process: Process,
}

impl Charon {
    /// Starts charon in `namespace` and loads its connection, named `lab` like its child.
    ///
    /// # Errors
    /// strongSwan is not installed, or refuses the settings.
    pub fn start(lab: &Lab, namespace: &Namespace, name: &str, settings: &Settings<'_>) -> Result<Self> {
        let directory = lab.subdirectory(name)?;
        let run = lab.subdirectory(&format!("{name}/run"))?;
        settings.write(&directory)?;
        // charon has fixed names for its files in /run, so each gets a /run of its own.
        let script = format!("mount --bind {} /run && exec /usr/lib/ipsec/charon", run.display());
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", &script]);
        command.env("STRONGSWAN_CONF", directory.join("strongswan.conf"));
        let process = Process::start(namespace, &mut command, &directory.join("output"))?;
        let mut charon = Self { namespace: namespace.clone(), directory, process };
        let socket = run.join("charon.vici");
        run::wait_for("charon's control socket", START_MAX, || {
            (socket.exists() || charon.process.status().is_some()).then_some(())
        })?;
        if let Some(status) = charon.process.status() {
            bail!("charon ended at once with {status}: {}", charon.process.said());
        }
        charon.swanctl(&["--load-all", "--noprompt"])?;
        Ok(charon)
    }

    /// Runs `swanctl` against this charon.
    ///
    /// # Errors
    /// It fails; the error holds what it said.
    pub fn swanctl(&self, arguments: &[&str]) -> Result<String> {
        let socket = format!("unix://{}", self.directory.join("run/charon.vici").display());
        let mut command = Command::new("swanctl");
        command.args(arguments).args(["--uri", &socket]).env("SWANCTL_DIR", self.directory.join("swanctl"));
        self.namespace.within(|| run::output(&mut command))
    }

    /// Connects, and returns the inner address that the gateway gave.
    ///
    /// # Errors
    /// The gateway refuses or does not answer in 10 s.
    pub fn connect(&self) -> Result<IpAddr> {
        self.swanctl(&["--initiate", "--child", "lab", "--timeout", "10"])
            .with_context(|| format!("strongSwan connects; its log ends: {}", self.log_end()))?;
        self.inner_address().context("strongSwan is connected, but got no inner address")
    }

    /// The inner address that the gateway gave, while it is connected.
    #[must_use]
    pub fn inner_address(&self) -> Option<IpAddr> {
        let log = self.log();
        let line = log.lines().rev().find(|l| l.contains("installing new virtual IP"))?;
        line.split_whitespace().last()?.parse().ok()
    }

    /// The whole log so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.join("charon.log")).unwrap_or_default()
    }

    /// What the log says happened on the wire.
    #[must_use]
    pub fn history(&self) -> History {
        History::of(&self.log())
    }

    /// The running program.
    #[must_use]
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    fn log_end(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(8)..].join(" | ")
    }
}

impl Drop for Charon {
    fn drop(&mut self) {
        // It removes its routes, rules and TUN device only if it is asked to end.
        if self.process.status().is_none() {
            self.process.terminate(STOP_MAX).ok();
        }
    }
}

/// What a charon's log tells about its exchanges, as the one that began them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// IKE_SA_INIT requests made (retransmissions are not counted here).
    pub ike_sa_init: usize,
    /// IKE_AUTH requests made.
    pub ike_auth: usize,
    /// CREATE_CHILD_SA requests made or taken: rekeyings.
    pub create_child_sa: usize,
    /// Requests sent again since no answer came.
    pub retransmissions: usize,
    /// Times that it gave the SA up, was told that it is deleted, or began anew.
    pub losses: usize,
}

impl History {
    fn of(log: &str) -> Self {
        let count = |words: &str| log.lines().filter(|line| line.contains(words)).count();
        Self {
            ike_sa_init: count("generating IKE_SA_INIT request"),
            ike_auth: count("generating IKE_AUTH request"),
            create_child_sa: count("generating CREATE_CHILD_SA request") + count("parsed CREATE_CHILD_SA request"),
            retransmissions: count("retransmit "),
            losses: count("giving up after")
                + count("received DELETE")
                + count("restarting CHILD_SA")
                + count("reestablish"),
        }
    }

    /// Whether the log shows one log-in and nothing that renewed or ended it.
    #[must_use]
    pub const fn is_one_undisturbed_session(&self) -> bool {
        self.ike_sa_init == 1 && self.ike_auth == 1 && self.create_child_sa == 0 && self.losses == 0
    }
}

impl Settings<'_> {
    fn write(&self, directory: &Path) -> Result<()> {
        let swanctl = directory.join("swanctl");
        for sub in ["x509", "x509ca", "private"] {
            fs::create_dir_all(swanctl.join(sub))?;
        }
        let mut secrets = String::new();
        match &self.credential {
            Credential::PreSharedKey(secret) => {
                writeln!(secrets, "secrets {{ ike {{ secret = \"{secret}\" }} }}")?;
            }
            Credential::Certificate { own, authority } => {
                own.write(&swanctl.join("x509/own.pem"), &swanctl.join("private/own.pem"))?;
                fs::write(swanctl.join("x509ca/authority.pem"), authority)?;
            }
        }
        fs::write(swanctl.join("swanctl.conf"), self.connection() + &secrets)?;
        let log = directory.join("charon.log");
        fs::write(
            directory.join("strongswan.conf"),
            format!(
                "charon {{\n  load_modular = yes\n  install_virtual_ip_on = lo\n  {extra}\n  plugins {{\n    include /etc/strongswan.d/charon/*.conf\n    \
                 kernel-libipsec {{ load = yes }}\n    bypass-lan {{ load = no }}\n    \
                 vici {{ socket = unix:///run/charon.vici }}\n    stroke {{ load = no }}\n    resolve {{ load = no }}\n  }}\n  \
                 filelog {{ lab {{ path = {log}\n flush_line = yes\n default = {level}\n time_format = %T\n time_add_ms = yes }} }}\n  \
                 syslog {{ identifier = lab\n daemon {{ default = -1 }} }}\n}}\n",
                extra = self.extra,
                level = match self.log {
                    Log::Exchanges => 1,
                    Log::Nothing => -1,
                },
                log = log.display()
            ),
        )?;
        Ok(())
    }

    fn connection(&self) -> String {
        let (auth, certificate) = match self.credential {
            Credential::PreSharedKey(_) => ("psk", ""),
            Credential::Certificate { .. } => ("pubkey", "certs = own.pem"),
        };
        let (addresses, pool) = match self.role {
            Role::Client { gateway, liveness_s } => {
                (format!("remote_addrs = {gateway}\n vips = 0.0.0.0\n dpd_delay = {liveness_s}s"), String::new())
            }
            Role::Gateway { pool } => {
                ("pools = lab\n unique = never".to_owned(), format!("pools {{ lab {{ addrs = {pool} }} }}\n"))
            }
        };
        let local = self.local_selector.map_or(String::new(), |ts| format!("local_ts = {ts}"));
        let remote = self.remote_selector.map_or(String::new(), |ts| format!("remote_ts = {ts}"));
        format!(
            "connections {{ lab {{\n version = 2\n {addresses}\n encap = yes\n mobike = no\n rekey_time = 0\n \
             proposals = {ike}\n {connection_extra}\n local {{ auth = {auth}\n id = {local_id}\n {certificate} }}\n \
             remote {{ auth = {auth}\n id = {remote_id} }}\n \
             children {{ lab {{\n esp_proposals = {esp}\n rekey_time = 0\n {local}\n {remote}\n \
             {child_extra} }} }} }} }}\n{pool}",
            connection_extra = self.connection_extra,
            child_extra = self.child_extra,
            ike = self.ike_proposal,
            esp = self.esp_proposal,
            local_id = self.local_id,
            remote_id = self.remote_id,
        )
    }
}

/// Time that charon has to load its plugins.
const START_MAX: Duration = Duration::from_secs(20);
/// Time that charon has to send its deletes and clean up.
const STOP_MAX: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_with_one_login_is_told_from_one_with_a_rekeying() {
        let login = "13[ENC] generating IKE_SA_INIT request 0 [ SA KE No ]\n\
                     13[ENC] parsed IKE_SA_INIT response 0 [ SA KE No ]\n\
                     13[ENC] generating IKE_AUTH request 1 [ IDi AUTH ]\n05[IKE] retransmit 1 of request\n";
        assert!(History::of(login).is_one_undisturbed_session());
        assert_eq!(History::of(login).retransmissions, 1);
        let rekeyed = format!("{login}07[ENC] parsed CREATE_CHILD_SA request 0 [ SA No ]\n");
        assert!(!History::of(&rekeyed).is_one_undisturbed_session());
        let deleted = format!("{login}07[IKE] received DELETE for IKE_SA lab[1]\n");
        assert!(!History::of(&deleted).is_one_undisturbed_session());
    }
}
