//! One run of the lab: its namespaces, its directory, and their removal whatever happens.

use std::fs;
use std::hash::{BuildHasher as _, RandomState};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use anyhow::{Context as _, Result, ensure};

use crate::namespace::{Namespace, Switch};
use crate::{interrupt, run};

/// A lab. All that it made goes when it is dropped, when the process is interrupted, or, after a crash, when the next
/// lab of this machine starts.
#[derive(Debug)]
pub struct Lab {
    id: String,
    directory: PathBuf,
}

impl Lab {
    /// Removes what crashed labs left and starts an empty one.
    ///
    /// # Errors
    /// The caller is not root, or its directory cannot be made.
    pub fn new() -> Result<Self> {
        ensure!(rustix::process::geteuid().is_root(), "the lab makes network namespaces and needs to run as root");
        static INTERRUPT: Once = Once::new();
        INTERRUPT.call_once(|| {
            interrupt::on_interrupt(|| {
                for id in active().drain(..) {
                    tear_down(&id);
                }
            });
        });
        sweep();
        let id = format!("{:05x}", RandomState::new().hash_one(std::process::id()) & 0xf_ffff);
        let directory = root().join(&id);
        fs::create_dir_all(&directory).with_context(|| format!("make {}", directory.display()))?;
        fs::write(directory.join(PID_FILE), Identity::of_process(std::process::id()).unwrap_or_default().0)?;
        active().push(id.clone());
        Ok(Self { id, directory })
    }

    /// Five hexadecimal digits that no other lab of this machine has.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The prefix of all names that this lab gives out.
    #[must_use]
    pub fn prefix(&self) -> String {
        format!("{PREFIX}{}", self.id)
    }

    /// Where the lab keeps configurations, sockets and logs.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Makes a directory inside [`directory`](Self::directory).
    ///
    /// # Errors
    /// The disk is full.
    pub fn subdirectory(&self, name: &str) -> Result<PathBuf> {
        let path = self.directory.join(name);
        fs::create_dir_all(&path).with_context(|| format!("make {}", path.display()))?;
        Ok(path)
    }

    /// Makes a namespace.
    ///
    /// # Errors
    /// The name is taken.
    pub fn namespace(&self, name: &str) -> Result<Namespace> {
        Namespace::create(&format!("{}-{name}", self.prefix()))
    }

    /// Makes a switch.
    ///
    /// # Errors
    /// The name is taken.
    pub fn switch(&self, name: &str) -> Result<Switch> {
        Switch::create(&format!("{}-{name}", self.prefix()))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // Whoever takes the id out of the list tears it down: this, or the interrupt.
        let mut active = active();
        let Some(at) = active.iter().position(|id| *id == self.id) else { return };
        active.swap_remove(at);
        drop(active);
        // The directory goes last: as long as it is there, whoever ends up here half-way is found by the next lab.
        tear_down_network(&self.id);
        if std::thread::panicking() || std::env::var_os("LAB_KEEP").is_some() {
            let kept = PathBuf::from(KEPT);
            fs::create_dir_all(&kept).ok();
            if fs::rename(&self.directory, kept.join(&self.id)).is_ok() {
                eprintln!("lab: logs of this run are in {}", kept.join(&self.id).display());
            }
        }
        remove(&root().join(&self.id));
    }
}

/// Removes everything that belongs to labs whose process is gone, and names them.
pub fn sweep() -> Vec<String> {
    let Ok(entries) = fs::read_dir(root()) else { return Vec::new() };
    let mut swept = Vec::new();
    for entry in entries.flatten() {
        let id = entry.file_name().to_string_lossy().into_owned();
        let recorded = fs::read_to_string(entry.path().join(PID_FILE)).unwrap_or_default();
        let Some(pid) = recorded.split(' ').next().and_then(|pid| pid.parse().ok()) else {
            // Either it is being made just now, or it was cut off in that moment; an hour tells the two apart.
            if entry.metadata().and_then(|m| m.modified()).is_ok_and(|t| t.elapsed().is_ok_and(|age| age > STALE)) {
                tear_down(&id);
                swept.push(id);
            }
            continue;
        };
        if Identity::of_process(pid).is_none_or(|identity| identity.0 != recorded) {
            tear_down(&id);
            swept.push(id);
        }
    }
    swept
}

/// Removes all of lab `id`.
fn tear_down(id: &str) {
    tear_down_network(id);
    remove(&root().join(id));
}

/// Kills what runs in the namespaces of lab `id`, and removes them and its BPF pins.
fn tear_down_network(id: &str) {
    let prefix = format!("{PREFIX}{id}-");
    let listed = run::output(Command::new("ip").args(["netns", "list"])).unwrap_or_default();
    let names: Vec<&str> =
        listed.lines().filter_map(|l| l.split_whitespace().next()).filter(|n| n.starts_with(&prefix)).collect();
    for name in &names {
        let pids = run::output(Command::new("ip").args(["netns", "pids", name])).unwrap_or_default();
        let own = std::process::id().to_string();
        for pid in pids.split_whitespace().filter(|pid| **pid != own) {
            if let Some(pid) = pid.parse().ok().and_then(rustix::process::Pid::from_raw) {
                // It may have ended by itself since it was listed.
                rustix::process::kill_process(pid, rustix::process::Signal::KILL).ok();
            }
        }
    }
    for name in names {
        if let Err(error) = run::output(Command::new("ip").args(["netns", "del", name])) {
            eprintln!("lab: {error:#}");
        }
    }
    remove(&PathBuf::from(BPFFS).join(format!("{PREFIX}{id}")));
}

fn remove(directory: &Path) {
    if directory.exists()
        && let Err(error) = fs::remove_dir_all(directory)
    {
        eprintln!("lab: remove {}: {error}", directory.display());
    }
}

/// Tells a process from a later one that was given the same id: the id and the start time.
#[derive(Default)]
struct Identity(String);

impl Identity {
    fn of_process(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // proc(5): the command name, in parentheses, may hold anything. After it come the state, where Z and X mean that
        // the process has ended and is only waited for, and as the 20th field the start time.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        let ended = matches!(fields.next()?, "Z" | "X");
        let start = fields.nth(18)?;
        (!ended).then(|| Self(format!("{pid} {start}")))
    }
}

fn root() -> PathBuf {
    PathBuf::from(ROOT)
}

fn active() -> MutexGuard<'static, Vec<String>> {
    static ACTIVE: Mutex<Vec<String>> = Mutex::new(Vec::new());
    ACTIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

const PREFIX: &str = "cc-";
const ROOT: &str = "/var/lib/cryptocluster-lab";
const KEPT: &str = "/var/lib/cryptocluster-lab-kept";
const PID_FILE: &str = "pid";
/// Where a BPF file system is mounted, and nodes of the lab pin their programs.
pub(crate) const BPFFS: &str = "/sys/fs/bpf";
/// No lab needs this long from making its directory to writing its process id.
const STALE: std::time::Duration = std::time::Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_not_taken_for_a_later_one_with_its_id() {
        let own = Identity::of_process(std::process::id()).unwrap();
        assert_eq!(own.0, Identity::of_process(std::process::id()).unwrap().0);
        assert_ne!(own.0, Identity::of_process(1).unwrap().0);
        assert!(Identity::of_process(u32::MAX).is_none());
    }
}
