//! Kill -9 at any moment, and a disk that is full.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use enroll::Reply;
use lab::enrollment::{Scratch, text};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::desk::Desk;

#[test]
fn a_hundred_random_kills_leave_every_ticket_open_or_used_and_no_reply_unknown() {
    kill_randomly(100, 1);
}

#[test]
#[ignore = "a thousand kills, minutes: ./test full"]
fn a_thousand_random_kills_leave_every_ticket_open_or_used_and_no_reply_unknown() {
    kill_randomly(1000, 2);
}

fn kill_randomly(kills: u64, seed: u64) {
    let desk = Desk::new("crash");
    let mut rng = StdRng::seed_from_u64(seed);
    let mut tally = Tally::default();
    let window = desk.undisturbed();
    for round in 0..kills {
        let after = window.mul_f64(rng.random_range(0.0..1.2));
        match round % 10 {
            0..6 => desk.kill_accept(round, after, &mut tally),
            6 => desk.kill_revoke(round, after, &mut tally),
            7 => desk.kill_release(round, after, &mut tally),
            _ => desk.kill_backup(round, after, &mut tally),
        }
        if round % 20 == 19 {
            desk.admin.good(&["journal", "verify"]).unwrap();
        }
    }
    desk.admin.good(&["journal", "verify"]).unwrap();
    println!("{kills} kills within {window:?}: {tally:?}");
    // Or the kills would all have come too early or too late to prove anything.
    let hit = |count: u64| count > 0;
    assert!(hit(tally.accept_left_open) && hit(tally.accept_used) && hit(tally.backup_absent), "{tally:?}");
}

/// What the kills hit.
#[derive(Debug, Default)]
struct Tally {
    accept_left_open: u64,
    accept_used: u64,
    accept_answered: u64,
    revoke_not_done: u64,
    revoke_done: u64,
    release_not_done: u64,
    release_done: u64,
    backup_absent: u64,
    backup_whole: u64,
}

impl Desk {
    /// How long an acceptance takes that nobody kills.
    fn undisturbed(&self) -> Duration {
        let asked = self.request("undisturbed", 0);
        let start = Instant::now();
        self.admin.good(&["enroll", "accept", &asked.file]).unwrap();
        start.elapsed()
    }

    fn kill_accept(&self, round: u64, after: Duration, tally: &mut Tally) {
        let name = format!("device-{round}");
        let asked = self.request(&name, round + 1);
        let arguments = ["enroll", "accept", &asked.file, "--json"];
        let shown = self.kill(&arguments, after);
        let ticket = self.admin.json(&["ticket", "show", &asked.ticket]).unwrap();
        let (status, used) = (text(&ticket, "status").unwrap(), ticket["serial"].as_str().map(str::to_owned));
        match (status.as_str(), &used) {
            ("open" | "requested", None) => tally.accept_left_open += 1,
            ("issued", Some(_)) => tally.accept_used += 1,
            other => panic!("round {round}: the ticket is neither open nor used: {other:?}"),
        }
        // The same request again finishes what was begun, or gets what was given.
        let answer = self.admin.run(&arguments, "").unwrap().json().unwrap();
        let (reply, serial) = (text(&answer, "reply").unwrap(), text(&answer, "serial").unwrap());
        assert!(matches!(asked.open(&reply), Reply::Complete(_)), "round {round}");
        assert!(used.is_none_or(|used| used == serial), "round {round}: another serial on the same ticket");
        if !shown.is_empty() {
            tally.accept_answered += 1;
            assert!(shown.contains(&serial), "round {round}: a reply was given that the store does not know: {shown}");
        }
        let listed = self.admin.json(&["cert", "list"]).unwrap();
        let count = listed.as_array().unwrap().iter().filter(|entry| entry["name"] == name.as_str()).count();
        assert_eq!(count, 1, "round {round}: the ticket was used twice");
    }

    fn kill_revoke(&self, round: u64, after: Duration, tally: &mut Tally) {
        let name = format!("leaver-{round}");
        let key = self.scratch.path("leaver.key").display().to_string();
        self.admin.good(&["cert", "issue", &name, "--key-out", &key]).unwrap();
        self.kill(&["cert", "revoke", &name], after);
        let shown = self.admin.json(&["cert", "show", &name]).unwrap();
        match shown["standing"].as_str() {
            Some("revoked") => tally.revoke_done += 1,
            Some("good") => {
                tally.revoke_not_done += 1;
                self.admin.good(&["cert", "revoke", &name]).unwrap();
            }
            other => panic!("round {round}: {other:?}"),
        }
    }

    fn kill_release(&self, round: u64, after: Duration, tally: &mut Tally) {
        let name = format!("node-{round}");
        self.suspended(&name, 1_000_000 + 2 * round);
        self.kill(&["cert", "release", &name], after);
        let shown = self.admin.json(&["cert", "show", &name]).unwrap();
        let journal = self.admin.json(&["journal", "list"]).unwrap();
        let of_release =
            |entry: &&serde_json::Value| entry["act"] == "certificate.release" && entry["subject"] == shown["serial"];
        let noted = journal.as_array().unwrap().iter().filter(of_release).count();
        match (shown["standing"].as_str(), noted) {
            (Some("unproven"), 1) => tally.release_done += 1,
            (Some("suspended"), 0) => {
                tally.release_not_done += 1;
                self.admin.good(&["cert", "release", &name]).unwrap();
            }
            other => panic!("round {round}: {other:?}"),
        }
    }

    fn kill_backup(&self, round: u64, after: Duration, tally: &mut Tally) {
        let file = self.scratch.path(&format!("backup-{round}"));
        self.kill(&["backup", &file.display().to_string()], after);
        if !file.exists() {
            tally.backup_absent += 1;
            return;
        }
        tally.backup_whole += 1;
        let elsewhere = Scratch::new("restored").unwrap();
        let party = lab::enrollment::Party::administrator(&elsewhere.path("store")).unwrap();
        let key = self.scratch.path("store/ca.key").display().to_string();
        party.good(&["restore", &file.display().to_string(), "--key-file", &key]).unwrap();
        party.good(&["journal", "verify"]).unwrap();
        std::fs::remove_file(file).unwrap();
    }

    /// Starts a command and kills it after a time; gives what it had shown by then.
    fn kill(&self, arguments: &[&str], after: Duration) -> String {
        let mut command = self.admin.command(arguments);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(after);
        child.kill().unwrap();
        String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
    }
}

#[test]
fn a_full_disk_is_told_in_a_sentence_and_loses_nothing() {
    let desk = Desk::new("full");
    let asked = desk.request("alice-laptop", 1);
    let small = desk.scratch.path("small").display().to_string();
    let store = desk.scratch.path("store").display().to_string();
    let line = |arguments: &[&str]| {
        let command = desk.admin.command(arguments);
        let program = command.get_program().to_string_lossy().into_owned();
        format!("{program} {} --store {small}", arguments.join(" "))
    };
    let accept = line(&["enroll", "accept", &asked.file]);
    let (show, verify) = (line(&["ticket", "show", &asked.ticket, "--json"]), line(&["journal", "verify"]));
    let backup = line(&["backup", &format!("{small}/backup")]);
    // A disk of half a megabyte in a mount namespace of its own; it goes with the shell.
    let script = format!(
        "mkdir {small} && mount -t tmpfs -o size=512k,mode=700 tmpfs {small} && cp -p {store}/* {small}\n\
         dd if=/dev/zero of={small}/filler bs=4k 2>/dev/null\n\
         {accept}; echo accept=$?\n{backup}; echo backup=$?\n{show}; {verify} >/dev/null; echo verify=$?\n\
         rm {small}/filler\n{accept} >/dev/null; echo again=$?; {show}\nls {small}"
    );
    let output = Command::new("unshare").args(["--mount", "sh", "-c", &script]).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let said = format!("{out}\n{err}");
    for expected in ["accept=4", "backup=4", "\"status\":\"open\"", "verify=0", "again=0", "\"status\":\"issued\""] {
        assert!(out.contains(expected), "{expected} is missing in {said}");
    }
    let full =
        "cryptocluster: the disk is full and nothing was changed: free some space where the store is, then do it again";
    assert_eq!(err.lines().filter(|line| *line == full).count(), 2, "{said}");
    assert!(!out.lines().any(|line| line.starts_with("backup.") || line == "backup"), "{said}");
}
