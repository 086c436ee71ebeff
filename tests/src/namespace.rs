//! Network namespaces, and the switches (bridges) that join them.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::thread;

use anyhow::{Context as _, Result, anyhow};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::run;

/// A network namespace of the lab. The last handle to it does not remove it: the [`Lab`](crate::Lab) does.
#[derive(Clone, Debug)]
pub struct Namespace {
    name: Arc<str>,
}

impl Namespace {
    /// Makes the namespace and brings its loopback up.
    pub(crate) fn create(name: &str) -> Result<Self> {
        run::output(Command::new("ip").args(["netns", "add", name]))?;
        run::ip_batch(Some(name), &["link set lo up".to_owned()])?;
        Ok(Self { name: name.into() })
    }

    /// The name that `ip netns` knows.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Moves the calling thread into the namespace, for good.
    ///
    /// # Errors
    /// The namespace is gone, or the caller is not root.
    pub fn enter(&self) -> Result<()> {
        let path = PathBuf::from("/run/netns").join(&*self.name);
        let file = File::open(&path).with_context(|| format!("open {}", path.display()))?;
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
            .with_context(|| format!("enter the namespace {}", self.name))
    }

    /// Runs `work` in the namespace and returns what it returns. Sockets and processes made there stay there.
    ///
    /// # Errors
    /// The namespace cannot be entered, `work` fails, or it panics.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        thread::scope(|scope| {
            scope
                .spawn(|| {
                    self.enter()?;
                    work()
                })
                .join()
                .map_err(|_| anyhow!("the work in namespace {} panicked", self.name))?
        })
    }

    /// Starts a thread that lives in the namespace.
    ///
    /// # Errors
    /// The namespace cannot be entered.
    pub fn spawn<T: Send + 'static>(
        &self,
        name: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<thread::JoinHandle<T>> {
        let namespace = self.clone();
        let (entered, waits) = std::sync::mpsc::channel();
        let handle = thread::Builder::new().name(name.to_owned()).spawn(move || {
            // The receiver lives until it has this; a failed send could only mean that nobody cares.
            entered.send(namespace.enter()).ok();
            work()
        })?;
        waits.recv().context("the thread ended before it entered its namespace")??;
        Ok(handle)
    }

    /// Runs a command in the namespace to its end and returns its standard output.
    ///
    /// # Errors
    /// As [`run::output`].
    pub fn output(&self, program: &str, arguments: &[&str]) -> Result<String> {
        self.within(|| run::output(Command::new(program).args(arguments)))
    }

    /// Runs lines of `ip -batch` in the namespace.
    ///
    /// # Errors
    /// As [`run::ip_batch`].
    pub fn ip(&self, lines: &[String]) -> Result<()> {
        run::ip_batch(Some(&self.name), lines)
    }

    /// Writes kernel settings of the namespace, each as `net/ipv4/ip_forward` and its value.
    ///
    /// # Errors
    /// A setting does not exist.
    pub fn sysctl(&self, settings: &[(&str, &str)]) -> Result<()> {
        self.within(|| {
            for (key, value) in settings {
                std::fs::write(format!("/proc/sys/{key}"), value).with_context(|| format!("set {key} to {value}"))?;
            }
            Ok(())
        })
    }
}

/// A learning switch: a bridge in a namespace of its own, so that one packet socket there sees each frame once, as
/// it comes in from the port that sent it.
#[derive(Clone, Debug)]
pub struct Switch {
    namespace: Namespace,
}

impl Switch {
    pub(crate) fn create(name: &str) -> Result<Self> {
        let namespace = Namespace::create(name)?;
        namespace
            .ip(&[format!("link add name {BRIDGE} type bridge mcast_snooping 0"), format!("link set {BRIDGE} up")])?;
        Ok(Self { namespace })
    }

    /// The namespace that holds the bridge and the switch's side of each cable.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Plugs a cable from `to`, where it appears as `interface`, into a port of the switch named `port`.
    ///
    /// # Errors
    /// One of the two names is taken.
    pub fn plug(&self, port: &str, to: &Namespace, interface: &str) -> Result<Cable> {
        let here = self.namespace.name();
        let there = to.name();
        run::ip_batch(
            None,
            &[format!("link add name {port} netns {here} type veth peer name {interface} netns {there}")],
        )?;
        self.namespace.ip(&[format!("link set {port} master {BRIDGE}"), format!("link set {port} up")])?;
        to.ip(&[format!("link set {interface} up")])?;
        Ok(Cable { switch: self.clone(), port: port.into() })
    }
}

/// A cable between a switch and a namespace. Dropping the handle leaves it plugged.
#[derive(Clone, Debug)]
pub struct Cable {
    switch: Switch,
    port: Arc<str>,
}

impl Cable {
    /// The name of the port that it is plugged into.
    #[must_use]
    pub fn port(&self) -> &str {
        &self.port
    }

    /// Takes the link down: nothing passes either way, and the other end sees that its carrier is lost.
    ///
    /// # Errors
    /// The switch is gone.
    pub fn cut(&self) -> Result<()> {
        self.switch.namespace.ip(&[format!("link set {} down", self.port)])
    }

    /// Brings the link up again.
    ///
    /// # Errors
    /// The switch is gone.
    pub fn restore(&self) -> Result<()> {
        self.switch.namespace.ip(&[format!("link set {} up", self.port)])
    }

    /// Disturbs what the switch sends towards the far end, in the words of `tc … netem`, such as `loss 5%`.
    ///
    /// # Errors
    /// The kernel has no `netem`, or does not know the words.
    pub fn disturb(&self, netem: &str) -> Result<()> {
        let mut arguments = vec!["qdisc", "replace", "dev", &*self.port, "root", "netem"];
        arguments.extend(netem.split_whitespace());
        self.switch.namespace.output("tc", &arguments)?;
        Ok(())
    }

    /// Ends what [`disturb`](Self::disturb) began.
    ///
    /// # Errors
    /// Nothing disturbed it.
    pub fn calm(&self) -> Result<()> {
        self.switch.namespace.output("tc", &["qdisc", "del", "dev", &self.port, "root"])?;
        Ok(())
    }
}

const BRIDGE: &str = "br0";
