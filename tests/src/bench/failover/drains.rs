//! Planned moves: a node is drained under load, and not one packet may be lost, doubled or overtaken.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Result, ensure};
use serde::Serialize;

use super::scene::{Scene, observe};
use super::{RETURN_MAX, WARM_UP};
use crate::figures::{Bound, Figures};

/// What all drains gave.
#[derive(Default)]
pub(super) struct Drains {
    rows: Vec<Row>,
}

/// What one drain gave.
#[derive(Serialize)]
struct Row {
    node: String,
    moved_sets: u32,
    took_ms: f64,
    streams: usize,
    received: usize,
    lost: u64,
    doubled: u64,
    overtaken: u64,
    /// For a drain that lost something: which numbers of which stream, and all that was counted meanwhile.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    missing: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    counted: BTreeMap<String, i128>,
}

impl Drains {
    /// Drains the node `number` (counted round) while streams of `rate` run through `streams` of its sessions.
    pub(super) fn drain(&mut self, scene: &mut Scene, number: usize, streams: usize, rate: u32) -> Result<()> {
        let names: Vec<String> = scene.cluster.nodes.iter().map(|node| node.name().to_owned()).collect();
        let node = names[number % names.len()].clone();
        let addresses: Vec<_> = scene.sessions_at(&node, false).take(streams).collect();
        ensure!(addresses.len() == streams, "{node} has {} sessions only", addresses.len());
        let before = scene.vitals();
        let unsent = scene.load.counts().unsent;
        let watched = addresses.iter().map(|address| scene.watch(*address, rate)).collect::<Result<Vec<_>>>()?;
        observe(WARM_UP);
        for stream in &watched {
            let owner = scene.owner_of(stream)?;
            ensure!(owner == node, "the session is {owner}'s on the wire, not {node}'s");
        }
        let start = Instant::now();
        let moved_sets = scene.cluster.node(&node)?.drain(&node)?.moved_sets;
        let took_ms = start.elapsed().as_secs_f64() * 1e3;
        observe(WARM_UP);
        for stream in &watched {
            ensure!(scene.owner_of(stream)? != node, "{node} is drained and still sends for a session");
        }
        let ends: Vec<String> =
            watched.iter().map(|stream| format!("{} {}", stream.address, stream.inside.address())).collect();
        let ended: Vec<_> = watched.into_iter().map(|stream| scene.unwatch(stream)).collect();
        let sum = |what: fn(&super::scene::BothWays) -> u64| ended.iter().map(what).sum::<u64>();
        let mut row = Row {
            node: node.clone(),
            moved_sets,
            took_ms,
            streams,
            received: ended.iter().map(super::scene::BothWays::received).sum(),
            lost: sum(super::scene::BothWays::missing),
            doubled: sum(super::scene::BothWays::doubled),
            overtaken: sum(super::scene::BothWays::overtaken),
            missing: Vec::new(),
            counted: BTreeMap::new(),
        };
        println!(
            "  drain {:>2} of {node}: {moved_sets} work sets in {took_ms:.0} ms, {} packets received, lost {}, doubled {}, overtaken {}",
            self.rows.len() + 1,
            row.received,
            row.lost,
            row.doubled,
            row.overtaken
        );
        if row.lost + row.doubled + row.overtaken > 0 {
            for (address, both) in ends.iter().zip(&ended) {
                for (way, stream) in [("in", &both.inward), ("out", &both.outward)] {
                    let numbers: Vec<u32> = stream.missing().collect();
                    if !numbers.is_empty() {
                        row.missing.push(format!("{address} {way} {numbers:?}"));
                    }
                }
            }
            row.counted = scene.vitals().since(&before);
            row.counted.insert("load unsent".to_owned(), (scene.load.counts().unsent - unsent) as i128);
            row.counted.insert("load refused".to_owned(), scene.load.counts().refused as i128);
            println!("    missing: {:?}\n    counted: {:?}", row.missing, row.counted);
        }
        self.rows.push(row);
        scene.cluster.node(&node)?.undrain(&node)?;
        scene.cluster.await_formed(RETURN_MAX)?;
        scene.cluster.await_even(RETURN_MAX)
    }

    pub(super) fn report(&self, figures: &mut Figures, wanted: usize) -> Result<()> {
        let sum = |what: fn(&Row) -> u64| self.rows.iter().map(what).sum::<u64>() as f64;
        figures.add("drains", self.rows.len() as f64, "", Some(Bound::AtLeast(wanted as f64)));
        figures.add("drain_packets", sum(|row| row.received as u64), "packets", None);
        figures.add("drain_lost", sum(|row| row.lost), "packets", Some(Bound::AtMost(0.0)));
        figures.add("drain_duplicated", sum(|row| row.doubled), "packets", Some(Bound::AtMost(0.0)));
        // The two owners' last and first packets may pass each other on the way: no bar.
        figures.add("drain_overtaken", sum(|row| row.overtaken), "packets", None);
        self.rows.iter().try_for_each(|row| figures.row("drains", row))
    }
}
