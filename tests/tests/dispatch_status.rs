//! What `cryptocluster status` tells of the filter and of the process's rights, against what the kernel says. Needs root.

use std::collections::BTreeSet;
use std::fs;

use lab::cluster::Cluster;

#[test]
fn status_shows_what_the_filter_did_and_what_the_process_may_still_do() {
    let mut cluster = Cluster::build(3).unwrap();
    cluster.start().unwrap();
    let client = cluster.client(1).unwrap();
    client.charon.connect().unwrap();
    let (mut owned, mut of_others) = (0, 0);
    for node in &mut cluster.nodes {
        let status = node.status().unwrap();
        let dispatch = status.dispatch.unwrap();
        let on: Vec<&str> = dispatch.interfaces.iter().map(|at| at.interface.as_str()).collect();
        assert_eq!(on, ["out", "in"], "{dispatch:?}");
        owned += dispatch.frames["take"]["owned"];
        of_others += dispatch.frames["drop"]["other_owner"];
        assert_eq!(dispatch.frames["drop"]["truncated"], 0, "{dispatch:?}");
        let rights = ["CAP_NET_BIND_SERVICE", "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_SYS_NICE", "CAP_BPF"];
        assert_eq!(status.rights.capabilities, rights);
        assert!(!status.rights.can_gain);
        let tasks = format!("/proc/{}/task", node.process().unwrap().pid());
        let threads: BTreeSet<String> = fs::read_dir(tasks)
            .unwrap()
            .map(|task| fs::read_to_string(task.unwrap().path().join("status")).unwrap())
            .map(|status| {
                let known = ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:", "NoNewPrivs:"];
                let lines = status.lines().filter(|line| known.iter().any(|name| line.starts_with(name)));
                lines.collect::<Vec<_>>().join(" ")
            })
            .collect();
        assert_eq!(threads.len(), 1, "all threads have the same: {threads:?}");
    }
    // IKE_SA_INIT and IKE_AUTH: the owner takes them, the two others leave them to it.
    assert!(owned >= 2 && of_others >= 4, "{owned} taken, {of_others} left to others");
}
