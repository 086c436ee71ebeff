//! What nodes and kernels have counted, so that a lost packet can be told from its cause.

use std::collections::BTreeMap;
use std::fs;

use crate::cluster::Cluster;
use crate::namespace::Namespace;

/// All counters of a cluster's nodes and of the kernel in their namespaces, at one moment.
#[derive(Clone, Debug, Default)]
pub struct Vitals {
    counts: BTreeMap<String, u64>,
}

impl Vitals {
    /// Reads the counters of all running nodes, and the kernel's in the namespaces of nodes, server and `others`.
    #[must_use]
    pub fn take(cluster: &Cluster, others: &[&Namespace]) -> Self {
        let mut vitals = Self::default();
        for node in &cluster.nodes {
            // A node that does not answer has counted nothing.
            let counters = node.status().map(|status| status.counters).unwrap_or_default();
            vitals.counts.extend(counters.into_iter().map(|(name, count)| (format!("{} {name}", node.name()), count)));
        }
        let nodes = cluster.nodes.iter().map(|node| (node.name(), node.namespace()));
        let others = others.iter().map(|namespace| (namespace.name(), *namespace));
        for (name, namespace) in nodes.chain([("server", &cluster.server)]).chain(others) {
            let kernel = namespace.within(|| Ok(kernel_counts())).unwrap_or_default();
            vitals.counts.extend(kernel.into_iter().map(|(what, count)| (format!("{name} {what}"), count)));
        }
        vitals.counts.extend(softnet());
        vitals
    }

    /// What has changed since `earlier`, by name.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> BTreeMap<String, i128> {
        let change = |(name, count): (&String, &u64)| {
            let before = earlier.counts.get(name).copied().unwrap_or_default();
            (before != *count).then(|| (name.clone(), i128::from(*count) - i128::from(before)))
        };
        self.counts.iter().filter_map(change).collect()
    }
}

/// What the calling thread's namespace has dropped: `name count`, of which only names that tell of a loss are taken.
fn kernel_counts() -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    // Pairs of lines: names, then values.
    for file in ["snmp", "netstat"] {
        let text = fs::read_to_string(format!("/proc/thread-self/net/{file}")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        for pair in lines.chunks_exact(2) {
            let [names, values] = pair else { continue };
            for (name, value) in names.split_whitespace().zip(values.split_whitespace()).skip(1) {
                let tells = ["Errors", "Discards", "NoRoutes", "NoPorts", "Filter", "Fails", "Drop"];
                if let (true, Ok(value)) = (tells.iter().any(|word| name.contains(word)), value.parse()) {
                    let protocol = names.split(':').next().unwrap_or_default();
                    counts.insert(format!("kernel {protocol}.{name}"), value);
                }
            }
        }
    }
    let devices = fs::read_to_string("/proc/thread-self/net/dev").unwrap_or_default();
    for line in devices.lines().skip(2) {
        let Some((device, values)) = line.split_once(':') else { continue };
        let values: Vec<u64> = values.split_whitespace().filter_map(|value| value.parse().ok()).collect();
        // proc_net_dev(5): errors and drops are the third and fourth of eight columns in, and of those out.
        for (name, column) in [("rx_errors", 2), ("rx_dropped", 3), ("tx_errors", 10), ("tx_dropped", 11)] {
            if let Some(value) = values.get(column) {
                counts.insert(format!("kernel {}.{name}", device.trim()), *value);
            }
        }
    }
    counts
}

/// What the processors' queues for received frames have dropped, in all namespaces.
fn softnet() -> BTreeMap<String, u64> {
    let text = fs::read_to_string("/proc/net/softnet_stat").unwrap_or_default();
    let column = |line: &str, at: usize| {
        line.split_whitespace().nth(at).and_then(|value| u64::from_str_radix(value, 16).ok()).unwrap_or_default()
    };
    let sum = |at| text.lines().map(|line| column(line, at)).sum();
    [("kernel backlog dropped".to_owned(), sum(1)), ("kernel backlog squeezed".to_owned(), sum(2))].into()
}
