//! What the API may do with the node: questions and orders, put together from the driver and the link.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use cluster::dispatch::Action;
use cluster::membership::Act;
use cluster::{Table, View};
use tokio::sync::{mpsc, oneshot};
use wire::{RecordKind, Slot, WorkSet};

use super::driver::{Ask, Moved};
use super::sessions::{self, entry};
use crate::api::{DispatchInterface, DispatchStatus, DrainReport, SessionEntry, Status, UndrainReport};
use crate::config::Cluster;
use crate::dispatch::{Dispatch, Hook, Keeper};
use crate::link;

/// What the API may do with the node.
#[derive(Clone)]
pub struct Control {
    node: Arc<str>,
    cluster: Arc<Cluster>,
    asks: mpsc::Sender<Ask>,
    link: Option<link::Handle>,
    /// Weak, since the node takes the filter off when nobody else has it any more.
    dispatch: Option<Weak<Dispatch>>,
}

impl Control {
    pub(super) fn new(
        node: &str,
        cluster: &Arc<Cluster>,
        asks: mpsc::Sender<Ask>,
        link: Option<link::Handle>,
        dispatch: Option<&Arc<Dispatch>>,
    ) -> Self {
        Self { node: node.into(), cluster: Arc::clone(cluster), asks, link, dispatch: dispatch.map(Arc::downgrade) }
    }

    /// How the node and its cluster stand.
    ///
    /// # Errors
    /// The node ends.
    pub async fn status(&self) -> anyhow::Result<Status> {
        let mut status: Status = self.ask(Ask::Status).await?;
        if let Some(dispatch) = self.dispatch.as_ref().and_then(Weak::upgrade) {
            status.dispatch = Some(dispatch_status(&dispatch)?);
        }
        let Some(link) = &self.link else { return Ok(status) };
        let by_owner = sessions_by_owner(link).await;
        status.cluster_sessions = by_owner.values().sum();
        for member in status.view.iter_mut().flat_map(|view| &mut view.members) {
            member.sessions = by_owner.get(&member.slot).copied().unwrap_or(0);
        }
        Ok(status)
    }

    /// All sessions of the cluster: those of this node as they are, those of others as of their records, which every node
    /// holds.
    ///
    /// # Errors
    /// The node ends.
    pub async fn sessions(&self) -> anyhow::Result<Vec<SessionEntry>> {
        let (own, mut sessions) = self.ask(Ask::Sessions).await?;
        let Some(link) = &self.link else { return Ok(sessions) };
        let status = link.status();
        // Set by set, so that the link is never held up for long.
        for set in WorkSet::all().filter(|set| !own.contains(set)) {
            let Some(records) = link.records(set).await else { break };
            let owner = status.report.owner(set).unwrap_or_default();
            let epoch = status.report.table.as_ref().map_or(0, |table| table.assignment(set).epoch.count);
            for (_, octets) in records.iter().filter(|(id, _)| id.kind == RecordKind::IKE_SA) {
                // A newer neighbour's record may be unreadable here; its node shows it.
                if let Ok(Some(session)) = ike::Session::from_record(octets) {
                    sessions.push(entry(&session, (&owner, epoch), "replica"));
                }
            }
        }
        // A session that moved meanwhile may have come twice; its node's own word is the better one.
        sessions.sort_by(|a, b| (&a.session, &a.as_of).cmp(&(&b.session, &b.as_of)));
        sessions.dedup_by(|a, b| a.session == b.session);
        Ok(sessions)
    }

    /// Opens a session from this side and returns its number.
    ///
    /// # Errors
    /// There is no such connection, or no room.
    pub async fn initiate(&self, connection: String, peer: IpAddr) -> anyhow::Result<u64> {
        self.ask(|answer| Ask::Initiate { connection, peer, answer }).await?.map_err(|error| anyhow!(error))
    }

    /// Ends a session and tells the peer.
    ///
    /// # Errors
    /// The session does not live here.
    pub async fn close(&self, session: u64) -> anyhow::Result<()> {
        let Err(error) = self.ask(|answer| Ask::Close { session, answer }).await? else { return Ok(()) };
        let owner = self.link.as_ref().and_then(|link| link.status().report.owner(WorkSet::from_low_bits(session)));
        match owner.filter(|owner| **owner != *self.node) {
            Some(owner) => bail!(
                "session {} cannot live on {}: its work set is with {owner}; give the order there",
                sessions::hex(session),
                self.node
            ),
            None => bail!("session {}: {error}; `cryptocluster session list` shows all", sessions::hex(session)),
        }
    }

    /// Moves all work away from a node, and returns once that is done.
    ///
    /// # Errors
    /// There is no such node, or nobody who could take its work, or it takes too long.
    pub async fn drain(&self, name: &str) -> anyhow::Result<DrainReport> {
        let link = self.linked(name, "no other node could take its work")?;
        let (slot, place) = self.member(link, name)?;
        if place.others_at_work == 0 {
            bail!(
                "{name} is the last node at work, and nobody could take its work: start another node, or let a drained one \
                 work again (cryptocluster node undrain NAME), and drain then"
            );
        }
        let begun = Instant::now();
        let before = self.moved().await?;
        let moved_sessions = sessions_by_owner(link).await.get(&slot.number()).copied().unwrap_or(0);
        link.act(name, Act::Drain).await?;
        loop {
            // A node that has left the view owns nothing.
            let left = place_of(link, name).map_or(0, |(_, place)| place.sets);
            if left == 0 {
                break;
            }
            if begun.elapsed() > MOVE_MAX {
                bail!(
                    "{name} still owns {left} of {} work sets after {} s. The drain goes on: look at `cryptocluster status`, \
                     and at the log of {name} if it does not end",
                    place.sets,
                    MOVE_MAX.as_secs()
                );
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let duration_ms = milliseconds(begun.elapsed());
        let after = self.moved().await?;
        let meanwhile = before.zip(after).map(|(before, after)| after.since(before));
        Ok(DrainReport {
            node: name.to_owned(),
            moved_sets: place.sets,
            moved_sessions,
            left_sets: 0,
            duration_ms,
            lost_packets: meanwhile.map(|moved| moved.lost),
            doubles_prevented: meanwhile.map(|moved| moved.doubles_prevented),
        })
    }

    /// Gives a drained node work again, and returns once it has some.
    ///
    /// # Errors
    /// There is no such node, it was not drained, or it gets no work.
    pub async fn undrain(&self, name: &str) -> anyhow::Result<UndrainReport> {
        let link = self.linked(name, "it was never drained")?;
        let (_, place) = self.member(link, name)?;
        if !place.drained {
            bail!("{name} was not drained; it owns {} work sets", place.sets);
        }
        let begun = Instant::now();
        link.act(name, Act::Undrain).await?;
        loop {
            let (_, place) = self.member(link, name)?;
            if !place.drained && place.sets > 0 {
                let duration_ms = milliseconds(begun.elapsed());
                return Ok(UndrainReport { node: name.to_owned(), sets: place.sets, duration_ms });
            }
            if begun.elapsed() > MOVE_MAX {
                bail!(
                    "{name} may work again, but has been given nothing in {} s; look at `cryptocluster status` and at the \
                     master's log",
                    MOVE_MAX.as_secs()
                );
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    fn linked(&self, name: &str, why: &str) -> anyhow::Result<&link::Handle> {
        self.link.as_ref().with_context(|| format!("{} runs alone, without a cluster: for {name} {why}", self.node))
    }

    /// The slot and place of a member, or what keeps it from being one.
    fn member(&self, link: &link::Handle, name: &str) -> anyhow::Result<(Slot, Place)> {
        let known: Vec<&str> = self.cluster.members.iter().map(|member| member.name.as_str()).collect();
        if !known.contains(&name) {
            bail!("there is no node {name}; cluster.toml names {}", known.join(", "));
        }
        if link.status().report.view.is_none() {
            bail!("{} is not in the cluster now and can give no orders to it: ask another node", self.node);
        }
        place_of(link, name).ok_or_else(|| link::ActError::Unknown(name.to_owned()).into())
    }

    /// What all nodes have counted of moves; `None` if one does not say.
    async fn moved(&self) -> anyhow::Result<Option<Moved>> {
        self.ask(Ask::Moved).await
    }

    async fn ask<T>(&self, ask: impl FnOnce(oneshot::Sender<T>) -> Ask) -> anyhow::Result<T> {
        let (answer, answered) = oneshot::channel();
        self.asks.send(ask(answer)).await.map_err(|_| anyhow!("the node is ending"))?;
        answered.await.context("the node is ending")
    }
}

/// A member's place in the cluster.
#[derive(Clone, Copy, Debug)]
struct Place {
    sets: usize,
    drained: bool,
    /// Full members besides it that are not drained.
    others_at_work: usize,
}

fn place_of(link: &link::Handle, name: &str) -> Option<(Slot, Place)> {
    let report = link.status().report;
    let (view, table) = (report.view.as_deref()?, report.table.as_ref()?);
    let slot = view.members().iter().find(|member| member.identity.name.as_str() == name)?.slot;
    let at_work = |other: Slot| other != slot && view.full().contains(other) && !report.drained.contains(&other);
    let place = Place {
        sets: sets_of(table, slot),
        drained: report.drained.contains(&slot),
        others_at_work: view.members().iter().filter(|member| at_work(member.slot)).count(),
    };
    Some((slot, place))
}

/// Work sets that a member owns.
pub(super) fn sets_of(table: &Table, slot: Slot) -> usize {
    table.iter().filter(|(_, assignment)| assignment.owner == slot).count()
}

/// A view's number and digest.
pub(super) fn view_name(view: &View) -> String {
    format!("{}-{:08x}", view.id().number, view.id().digest >> 32)
}

fn dispatch_status(dispatch: &Dispatch) -> anyhow::Result<DispatchStatus> {
    let interfaces = dispatch.attached().iter().map(|attached| DispatchInterface {
        interface: attached.interface.clone(),
        hook: match attached.hook {
            Hook::Tc => "tc".to_owned(),
            Hook::Xdp => "xdp".to_owned(),
        },
        keeper: match attached.keeper {
            Keeper::Tcx => "tcx".to_owned(),
            Keeper::Clsact => "clsact".to_owned(),
        },
        why: attached.why.clone(),
    });
    let mut frames: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
    for (reason, count) in dispatch.counters()? {
        let verdict = match reason.action() {
            Action::Pass => "pass",
            Action::Take => "take",
            Action::Answer => "answer",
            Action::Drop => "drop",
        };
        frames.entry(verdict.to_owned()).or_default().insert(reason.label().to_owned(), count);
    }
    Ok(DispatchStatus { interfaces: interfaces.collect(), frames })
}

/// Sessions by the slot of the node that they live on, logins that are not complete included.
async fn sessions_by_owner(link: &link::Handle) -> BTreeMap<u8, usize> {
    let mut counts = BTreeMap::new();
    let (Some(table), Some(tally)) = (link.status().report.table, link.tally(RecordKind::IKE_SA).await) else {
        return counts;
    };
    for (set, sessions) in tally {
        *counts.entry(table.assignment(set).owner.number()).or_default() += sessions;
    }
    counts
}

fn milliseconds(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// A drain or undrain is waited for no longer.
const MOVE_MAX: Duration = Duration::from_secs(60);
/// How often it is looked at: the link reports that often.
const LOOK_EVERY: Duration = Duration::from_millis(100);
