//! What a person reads: status, lists and reports as text.

use std::time::Duration;

use crate::api::{DispatchStatus, DrainReport, MemberStatus, Rights, SessionEntry, Status, UndrainReport, ViewStatus};

/// How the node and its cluster stand.
pub(super) fn status(status: &Status) -> String {
    let mut lines = vec![
        format!("{} of cluster {}: {}", status.node, status.cluster, state(status)),
        format!(
            "configuration {} {}, up {}, {} here of {} in the cluster",
            status.config_version,
            status.config_hash,
            span(status.uptime_s),
            count(status.sessions, "session"),
            status.cluster_sessions
        ),
    ];
    if let Some(lease) = &status.lease {
        let margin =
            lease.margin_min_ms.map_or_else(String::new, |least| format!(", least margin lately {least:.1} ms"));
        lines.push(format!(
            "lease for {:.1} ms more{margin}; {} waiting for the other members",
            lease.left_ms,
            count(status.commits_waiting, "commit")
        ));
    }
    if let Some(view) = &status.view {
        lines.push(String::new());
        lines.push(members(status, view));
    }
    for problem in problems(status) {
        lines.push(format!("! {problem}"));
    }
    lines.extend(status.dispatch.as_ref().map(filter));
    lines.push(rights(&status.rights));
    lines.extend(counters(status));
    lines.join("\n")
}

fn filter(dispatch: &DispatchStatus) -> String {
    let of = |verdict: &str| dispatch.frames.get(verdict).map_or(0, |reasons| reasons.values().sum::<u64>());
    let dropped = dispatch.frames.get("drop").into_iter().flatten().filter(|(_, count)| **count > 0);
    let reasons: Vec<String> = dropped.map(|(reason, count)| format!("{reason} {count}")).collect();
    let reasons = if reasons.is_empty() { String::new() } else { format!(" ({})", reasons.join(", ")) };
    let (take, answer, pass, drop) = (of("take"), of("answer"), of("pass"), of("drop"));
    format!("filter: {take} frames for the cluster, {answer} answered, {pass} let by, {drop} dropped{reasons}")
}

fn rights(rights: &Rights) -> String {
    let more = if rights.can_gain { "it can gain more" } else { "none can be gained" };
    let held = if rights.capabilities.is_empty() { "none".to_owned() } else { rights.capabilities.join(", ") };
    format!("rights: {held}; {more}")
}

fn state(status: &Status) -> &'static str {
    match status.state.as_str() {
        "alone" => "it runs alone and owns all work",
        "joining" => "it is not in the cluster, and serves nobody until it has joined",
        "learner" => "it is let in, fetches the state, and serves nobody yet",
        "member" => "at work",
        "silent" => "it has no lease, and sends nothing: it does not hear a majority of the cluster",
        _ => "its state is unknown to this program, which is older than the node",
    }
}

fn members(status: &Status, view: &ViewStatus) -> String {
    let mut rows = vec![row(["node", "part", "work sets", "sessions", "link"].map(str::to_owned))];
    for member in &view.members {
        let here = member.name == status.node;
        let link = match member.round_trip_ms {
            Some(round_trip) => format!("{round_trip:.1} ms"),
            None if here => "this node".to_owned(),
            None => "none".to_owned(),
        };
        let cells =
            [member.name.clone(), part(member, view), member.sets.to_string(), member.sessions.to_string(), link];
        rows.push(row(cells));
    }
    for name in &status.absent {
        let cells = [name.as_str(), "not in the cluster", "-", "-", "-"];
        rows.push(row(cells.map(str::to_owned)));
    }
    format!("view {} ({})\n{}", view.number, view.id, table(&rows))
}

fn part(member: &MemberStatus, view: &ViewStatus) -> String {
    let mut parts = Vec::new();
    if !member.full {
        parts.push("learner");
    } else if member.name == view.master {
        parts.push("master");
    } else if view.deputy.as_ref() == Some(&member.name) {
        parts.push("deputy");
    } else {
        parts.push("member");
    }
    if member.drained {
        parts.push("drained");
    }
    parts.join(", ")
}

/// What an operator should do something about.
fn problems(status: &Status) -> Vec<String> {
    let mut problems = Vec::new();
    if !status.absent.is_empty() {
        problems.push(format!("{} not in the cluster: see whether it runs, and its log", status.absent.join(", ")));
    }
    if status.unowned > 0 && status.view.is_some() {
        problems.push(format!("{} work sets have no owner: their sessions stand still", status.unowned));
    }
    if status.view.as_ref().is_some_and(|view| view.unproven) {
        problems
            .push("this part of the cluster goes on without a majority: see to the networks between the nodes".into());
    }
    problems
}

/// Counters with a value, refusals and drops apart from the rest.
fn counters(status: &Status) -> Vec<String> {
    let groups = [
        ("ike_refused_", "IKE messages refused since this node's start"),
        ("drop_", "packets dropped by the datapath"),
        ("link_", "cluster link"),
        ("", "other counters"),
    ];
    let group_of = |name: &str| groups.iter().position(|(prefix, _)| name.starts_with(prefix)).unwrap_or(groups.len());
    let mut lines = Vec::new();
    for (index, (prefix, title)) in groups.iter().enumerate() {
        let rows: Vec<Vec<String>> = status
            .counters
            .iter()
            .filter(|(name, value)| **value > 0 && group_of(name) == index)
            .map(|(name, value)| vec![format!("  {}", &name[prefix.len()..]), value.to_string()])
            .collect();
        if !rows.is_empty() {
            lines.push(format!("\n{title}"));
            lines.push(table(&rows));
        }
    }
    lines
}

/// The sessions of the cluster.
pub(super) fn sessions(sessions: &[SessionEntry]) -> String {
    let heads =
        ["session", "node", "set", "state", "identity", "inner address", "peer", "since", "rekey in", "IKE / ESP"];
    let mut rows = vec![row(heads.map(str::to_owned))];
    for session in sessions {
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        rows.push(row([
            session.session.clone(),
            session.owner.clone(),
            session.set.to_string(),
            session.state.clone(),
            or_dash(session.identity.clone()),
            or_dash(session.inner_address.map(|address| address.to_string())),
            session.peer.clone(),
            or_dash(session.established_s.map(span)),
            or_dash(session.rekey_in_s.map(span)),
            [session.ike_suite.clone(), session.esp_suite.clone()].map(or_dash).join(" / "),
        ]));
    }
    let told = sessions.iter().filter(|session| session.as_of == "replica").count();
    let mut text = format!("{}\n{}", table(&rows), count(sessions.len(), "session"));
    if told > 0 {
        text += &format!("; {told} on other nodes, their times as of their records: right to a minute");
    }
    text
}

/// What a drain has done.
pub(super) fn drained(report: &DrainReport) -> String {
    if report.moved_sets == 0 {
        return format!("{} owns no work; it gets none until it is undrained", report.node);
    }
    let took = Duration::from_millis(report.duration_ms).as_secs_f64();
    let (sets, sessions) = (count(report.moved_sets, "work set"), count(report.moved_sessions, "session"));
    let packets = match (report.lost_packets, report.doubles_prevented) {
        (Some(lost), Some(doubles)) => format!("{lost} packets lost, {doubles} doubles prevented"),
        (None, _) | (_, None) => "a node did not say how many packets were lost".to_owned(),
    };
    format!(
        "{node} is drained: {sets} with {sessions} moved in {took:.1} s; {packets}\n\
         it can be stopped now; give it work again with: cryptocluster node undrain {node}",
        node = report.node
    )
}

/// A drained node is at work again.
pub(super) fn undrained(report: &UndrainReport) -> String {
    let took = Duration::from_millis(report.duration_ms).as_secs_f64();
    let sets = count(report.sets, "work set");
    format!("{} works again: {sets} so far, after {took:.1} s; it is given more until the load is even", report.node)
}

/// How far a drain is.
pub(super) fn progress(name: &str, status: &Status) -> Option<String> {
    let member = status.view.as_ref()?.members.iter().find(|member| member.name == name)?;
    Some(format!("{name} still owns {}", count(member.sets, "work set")))
}

fn count(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

/// Seconds as people say them.
fn span(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min"),
        (0, _, _) => format!("{hours} h {minutes:02} min"),
        (_, _, _) => format!("{days} d {hours} h"),
    }
}

fn row<const N: usize>(cells: [String; N]) -> Vec<String> {
    cells.into()
}

/// Columns as wide as their longest cell; numbers stand to the right.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let cells = |column: usize| rows.iter().filter_map(move |row| row.get(column));
    let widths: Vec<usize> =
        (0..columns).map(|c| cells(c).map(|cell| cell.chars().count()).max().unwrap_or(0)).collect();
    let is_number = |cell: &str| cell == "-" || cell.chars().all(|c| c.is_ascii_digit());
    let heads = usize::from(rows.len() > 1);
    let numeric: Vec<bool> = (0..columns).map(|c| cells(c).skip(heads).all(|cell| is_number(cell))).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(widths.iter().zip(&numeric)).map(|(cell, (width, numeric))| match numeric {
            true => format!("{cell:>width$}"),
            false => format!("{cell:<width$}"),
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::LeaseStatus;

    fn member(name: &str, sets: usize) -> MemberStatus {
        MemberStatus {
            name: name.into(),
            slot: 0,
            full: true,
            drained: false,
            sets,
            sessions: sets / 2,
            round_trip_ms: (name != "n1").then_some(0.31),
        }
    }

    fn a_status() -> Status {
        Status {
            node: "n1".into(),
            cluster: "example".into(),
            config_version: 7,
            config_hash: "c80344a82ae13bd1".into(),
            state: "member".into(),
            view: Some(ViewStatus {
                number: 4,
                id: "4-2a61f7a2".into(),
                master: "n1".into(),
                deputy: Some("n2".into()),
                unproven: false,
                members: vec![member("n1", 341), MemberStatus { drained: true, ..member("n2", 0) }],
            }),
            absent: vec!["n3".into()],
            unowned: 0,
            sessions: 1,
            cluster_sessions: 1000,
            lease: Some(LeaseStatus { left_ms: 31.24, margin_min_ms: Some(24.96) }),
            commits_waiting: 1,
            uptime_s: 7_380,
            counters: [
                ("ike_refused_auth_failed".to_owned(), 3),
                ("drop_send".to_owned(), 0),
                ("esp_pairs".to_owned(), 1),
            ]
            .into(),
            dispatch: Some(DispatchStatus {
                interfaces: Vec::new(),
                frames: [
                    ("take".to_owned(), [("owned".to_owned(), 40), ("fragment".to_owned(), 2)].into()),
                    ("drop".to_owned(), [("other_owner".to_owned(), 77), ("lease_over".to_owned(), 0)].into()),
                ]
                .into(),
            }),
            rights: Rights { capabilities: vec!["CAP_NET_ADMIN".into(), "CAP_BPF".into()], can_gain: false },
        }
    }

    #[test]
    fn a_status_reads_calmly() {
        let expected = "\
n1 of cluster example: at work
configuration 7 c80344a82ae13bd1, up 2 h 03 min, 1 session here of 1000 in the cluster
lease for 31.2 ms more, least margin lately 25.0 ms; 1 commit waiting for the other members

view 4 (4-2a61f7a2)
node  part                work sets  sessions  link
n1    master                    341       170  this node
n2    deputy, drained             0         0  0.3 ms
n3    not in the cluster          -         -  -
! n3 not in the cluster: see whether it runs, and its log
filter: 42 frames for the cluster, 0 answered, 0 let by, 77 dropped (other_owner 77)
rights: CAP_NET_ADMIN, CAP_BPF; none can be gained

IKE messages refused since this node's start
  auth_failed  3

other counters
  esp_pairs  1";
        assert_eq!(status(&a_status()), expected);
    }

    #[test]
    fn spans_read_as_people_say_them() {
        for (seconds, text) in [(0, "0 s"), (59, "59 s"), (125, "2 min"), (7_380, "2 h 03 min"), (180_000, "2 d 2 h")] {
            assert_eq!(span(seconds), text);
        }
    }

    #[test]
    fn a_drain_says_what_it_moved_and_what_comes_next() {
        let report = DrainReport {
            node: "n2".into(),
            moved_sets: 341,
            moved_sessions: 1,
            left_sets: 0,
            duration_ms: 1_234,
            lost_packets: Some(0),
            doubles_prevented: Some(12),
        };
        let text = drained(&report);
        assert!(
            text.contains("341 work sets with 1 session moved in 1.2 s; 0 packets lost, 12 doubles prevented"),
            "{text}"
        );
        assert!(text.contains("cryptocluster node undrain n2"), "{text}");
        assert!(drained(&DrainReport { moved_sets: 0, ..report.clone() }).contains("owns no work"));
        assert!(drained(&DrainReport { lost_packets: None, ..report }).contains("did not say"));
    }
}
