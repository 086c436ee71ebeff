//! What a run measured, as people read it and as JSON.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Serialize;

/// All figures of one run.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    name: String,
    figures: Vec<Figure>,
    /// What the figures were made of: one entry for each single measurement.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    rows: BTreeMap<String, Vec<serde_json::Value>>,
}

/// One measured figure, with the bar that it has to meet and the peer that it is compared with.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    figure: String,
    value: f64,
    unit: String,
    peer: Option<String>,
    peer_value: Option<f64>,
    ratio: Option<f64>,
    bar: Option<f64>,
    met: bool,
    #[serde(skip)]
    bound: Option<Bound>,
}

/// What a figure has to be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    /// This or more.
    AtLeast(f64),
    /// This or less.
    AtMost(f64),
}

impl Bound {
    const fn bar(self) -> f64 {
        match self {
            Self::AtLeast(bar) | Self::AtMost(bar) => bar,
        }
    }

    fn met_by(self, value: f64) -> bool {
        match self {
            Self::AtLeast(bar) => value >= bar,
            Self::AtMost(bar) => value <= bar,
        }
    }
}

impl Figures {
    /// Starts an empty list for the bench or scenario `name`.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), figures: Vec::new(), rows: BTreeMap::new() }
    }

    /// Adds a figure that stands for itself.
    pub fn add(&mut self, figure: &str, value: f64, unit: &str, bound: Option<Bound>) {
        self.push(Figure {
            figure: figure.to_owned(),
            value,
            unit: unit.to_owned(),
            peer: None,
            peer_value: None,
            ratio: None,
            bar: bound.map(Bound::bar),
            met: bound.is_none_or(|bound| bound.met_by(value)),
            bound,
        });
    }

    /// Adds one of the single measurements of `kind` that figures are made of; they are written, not printed.
    ///
    /// # Errors
    /// The row is nothing that JSON can hold.
    pub fn row(&mut self, kind: &str, row: &impl Serialize) -> Result<()> {
        self.rows.entry(kind.to_owned()).or_default().push(serde_json::to_value(row)?);
        Ok(())
    }

    /// Adds a figure next to a peer's; the bound applies to `ratio`, which says how much better we are.
    #[expect(clippy::too_many_arguments, reason = "one line of the table, in the table's order")]
    pub fn compare(
        &mut self,
        figure: &str,
        value: f64,
        unit: &str,
        peer: &str,
        peer_value: f64,
        ratio: f64,
        bound: Option<Bound>,
    ) {
        self.push(Figure {
            figure: figure.to_owned(),
            value,
            unit: unit.to_owned(),
            peer: Some(peer.to_owned()),
            peer_value: Some(peer_value),
            ratio: Some(ratio),
            bar: bound.map(Bound::bar),
            met: bound.is_none_or(|bound| bound.met_by(ratio)),
            bound,
        });
    }

    /// Whether every figure with a bound meets it.
    #[must_use]
    pub fn all_met(&self) -> bool {
        self.figures.iter().all(|figure| figure.met)
    }

    /// Writes the figures as JSON.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string(self)? + "\n";
        fs::write(path, text).with_context(|| format!("write {}", path.display()))
    }

    fn push(&mut self, figure: Figure) {
        println!("  {figure}");
        self.figures.push(figure);
    }
}

impl std::fmt::Display for Figure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:<28} {:>12} {:<8}", self.figure, rounded(self.value), self.unit)?;
        if let (Some(peer), Some(value), Some(ratio)) = (&self.peer, self.peer_value, self.ratio) {
            write!(f, " {peer} {}, ratio {}", rounded(value), rounded(ratio))?;
        }
        match self.bound {
            Some(Bound::AtLeast(bar)) => write!(f, " (at least {bar}: {})", verdict(self.met)),
            Some(Bound::AtMost(bar)) => write!(f, " (at most {bar}: {})", verdict(self.met)),
            None => Ok(()),
        }
    }
}

/// The middle value of `values`, or the mean of the middle two; zero if there are none.
#[must_use]
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match (sorted.get(sorted.len().saturating_sub(1) / 2), sorted.get(sorted.len() / 2)) {
        (Some(low), Some(high)) => f64::midpoint(*low, *high),
        (None, _) | (_, None) => 0.0,
    }
}

fn rounded(value: f64) -> String {
    let text = if value.abs() >= 100.0 { format!("{value:.0}") } else { format!("{value:.3}") };
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

const fn verdict(met: bool) -> &'static str {
    if met { "met" } else { "MISSED" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_value_or_the_mean_of_two() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(&[]), 0.0);
    }

    #[test]
    fn a_figure_below_its_bar_is_not_met() {
        let mut figures = Figures::new("test");
        figures.add("speed", 4.0, "Gbit/s", Some(Bound::AtLeast(4.0)));
        assert!(figures.all_met());
        figures.compare("cpu", 2.0, "s", "strongSwan", 4.0, 2.0, Some(Bound::AtLeast(5.0)));
        assert!(!figures.all_met());
    }

    #[test]
    fn json_has_the_agreed_names() {
        let mut figures = Figures::new("esp");
        figures.compare("throughput", 6.0, "Gbit/s", "strongSwan", 0.8, 7.5, Some(Bound::AtLeast(5.0)));
        let json = serde_json::to_value(&figures).unwrap();
        assert_eq!(json["name"], "esp");
        let line = &json["figures"][0];
        for (key, value) in [("value", 6.0), ("peer_value", 0.8), ("ratio", 7.5), ("bar", 5.0)] {
            assert_eq!(line[key], value, "{key}");
        }
        assert_eq!((&line["figure"], &line["unit"]), (&"throughput".into(), &"Gbit/s".into()));
        assert_eq!((&line["peer"], &line["met"]), (&"strongSwan".into(), &true.into()));
        assert_eq!(json.get("rows"), None);
        figures.row("pairs", &[1, 2]).unwrap();
        assert_eq!(serde_json::to_value(&figures).unwrap()["rows"]["pairs"][0][1], 2);
    }
}
