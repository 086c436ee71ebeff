//! A node that stands still for two seconds under load and goes on: it must not send as if it still owned anything.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;

use super::scene::{Scene, exempt, observe};
use super::{RETURN_MAX, WARM_UP, WINDOW};
use crate::figures::{Bound, Figures};
use crate::observer::{Report, Rule};

/// What all pauses gave.
#[derive(Default)]
pub(super) struct Pauses {
    rows: Vec<Row>,
}

/// What one pause gave.
#[derive(Serialize)]
struct Row {
    node: String,
    streams: usize,
    /// Packets that came through while the node stood still and after it went on.
    received: usize,
    doubled: u64,
    /// Packets that the fence in the node's kernel stopped once it went on.
    fenced: i128,
    /// ESP packets from the node's port, from the moment it went on until it had work again.
    sent_after: u64,
    /// Broken rules meanwhile.
    violations: u64,
}

impl Pauses {
    /// Stops an owner of busy sessions with SIGSTOP, and lets it go on with SIGCONT.
    pub(super) fn pause(&mut self, scene: &mut Scene, number: usize) -> Result<()> {
        let names: Vec<String> = scene.cluster.nodes.iter().map(|node| node.name().to_owned()).collect();
        let node = names[number % names.len()].clone();
        let addresses: Vec<_> = scene.sessions_at(&node, false).take(STREAMS).collect();
        ensure!(addresses.len() == STREAMS, "{node} has {} sessions only", addresses.len());
        let watched = addresses.iter().map(|address| scene.watch(*address, RATE)).collect::<Result<Vec<_>>>()?;
        observe(WARM_UP);
        for stream in &watched {
            let owner = scene.owner_of(stream)?;
            ensure!(owner == node, "the session is {owner}'s on the wire, not {node}'s");
        }
        let (before, broken) = (scene.vitals(), scene.broken());
        scene.cluster.node(&node)?.process().context("the owner does not run")?.pause();
        observe(PAUSE);
        for stream in &watched {
            ensure!(scene.owner_of(stream)? != node, "{node} stands still and still owns a session");
        }
        let sent = scene.sent_by(&node);
        scene.cluster.node(&node)?.process().context("the owner does not run")?.resume();
        observe(WINDOW);
        let sent_after = scene.sent_by(&node) - sent;
        let ended: Vec<_> = watched.into_iter().map(|stream| scene.unwatch(stream)).collect();
        let counted = scene.vitals().since(&before);
        let row = Row {
            streams: STREAMS,
            received: ended.iter().map(super::scene::BothWays::received).sum(),
            doubled: ended.iter().map(super::scene::BothWays::doubled).sum(),
            fenced: counted.get(&format!("{node} dispatch_out_lease_over")).copied().unwrap_or_default(),
            sent_after,
            violations: scene.broken() - broken,
            node,
        };
        println!(
            "  {} stood still for {PAUSE:?} and went on: {} packets came through, the fence stopped {}, {} rules broken",
            row.node, row.received, row.fenced, row.violations
        );
        self.rows.push(row);
        scene.cluster.await_formed(RETURN_MAX)?;
        scene.cluster.await_even(RETURN_MAX)
    }

    pub(super) fn report(&self, figures: &mut Figures, report: &Report) -> Result<()> {
        let fenced = self.rows.iter().map(|row| row.fenced).sum::<i128>() as f64;
        let doubled = self.rows.iter().map(|row| row.doubled).sum::<u64>() as f64;
        // A node that stands still is taken over unplanned: see `exempt`.
        let allowed = self.rows.iter().map(|row| row.streams as f64).sum::<f64>() * exempt(RATE);
        let stale = report.count(Rule::StaleOwner) as f64;
        figures.add("pauses", self.rows.len() as f64, "", Some(Bound::AtLeast(super::PAUSES as f64)));
        figures.add("pause_fenced", fenced, "packets", None);
        figures.add("pause_duplicated", doubled, "packets", Some(Bound::AtMost(allowed)));
        figures.add("stale_packets", stale, "packets", Some(Bound::AtMost(0.0)));
        self.rows.iter().try_for_each(|row| figures.row("pauses", row))
    }
}

/// Busy sessions of the node that stands still.
const STREAMS: usize = 8;
/// Packets per second through each, each way.
const RATE: u32 = 300;
const PAUSE: Duration = Duration::from_secs(2);
