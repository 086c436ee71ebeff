//! Nobody reads what a command says: its work is done all the same, and it makes no noise. A full disk is another matter.

use std::fs::File;
use std::io::{PipeWriter, pipe};
use std::process::{Command, Stdio};

use lab::enrollment::{Party, Said, text};

use crate::desk::Desk;

/// The end of a pipe whose other end is closed.
fn closed() -> PipeWriter {
    pipe().unwrap().1
}

fn run(command: &mut Command) -> Said {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = |octets: Vec<u8>| String::from_utf8(octets).unwrap();
    Said { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

fn unread(party: &Party, arguments: &[&str]) -> Said {
    run(party.command(arguments).stdout(closed()))
}

#[test]
fn a_reader_that_is_gone_keeps_no_command_from_its_work() {
    let desk = Desk::new("unread");
    let device = desk.device("alice");
    let quiet = Said { code: Some(0), out: String::new(), err: String::new() };
    for arguments in
        [&["journal", "list"][..], &["journal", "export"], &["ca", "list"], &["ca", "list", "--json"], &["cert", "crl"]]
    {
        assert_eq!(unread(&desk.admin, arguments), quiet, "{arguments:?}");
    }
    assert_eq!(unread(&device, &["profile", "list"]), quiet);
    for party in [&desk.admin, &device] {
        let program = party.command(&[]).get_program().to_owned();
        for arguments in [&["completions", "bash"][..], &["--help"]] {
            assert_eq!(run(Command::new(&program).args(arguments).stdout(closed())), quiet, "{arguments:?}");
        }
    }
    // What is done behind the first line that is said is done, too.
    let (key, out) = (desk.scratch.path("carol.key"), desk.scratch.path("carol.pem"));
    let files = [&key, &out].map(|path| path.display().to_string());
    let issue = ["cert", "issue", "carol", "--key-out", &files[0], "--out", &files[1]];
    assert_eq!(unread(&desk.admin, &issue), quiet);
    assert!(key.exists() && out.exists());
    let (_, code) = desk.ticket("alice", &[]);
    let code = desk.scratch.put("code", &code).unwrap();
    assert_eq!(unread(&device, &["enroll", "--file", &code]), quiet);
    assert_eq!(device.json(&["profile", "list"]).unwrap()["waiting"].as_array().unwrap().len(), 1);
}

#[test]
fn nobody_at_standard_error_changes_no_exit_code() {
    let desk = Desk::new("untold");
    for (party, arguments) in
        [(&desk.admin, ["cert", "show", "nobody"]), (&desk.device("alice"), ["profile", "show", "nothing"])]
    {
        assert_eq!(run(party.command(&arguments).stderr(closed())).code, Some(6), "{arguments:?}");
    }
}

#[test]
fn an_answer_that_a_full_disk_swallows_is_told() {
    let desk = Desk::new("swallowed");
    let full = || File::options().write(true).open("/dev/full").unwrap();
    let said = run(desk.admin.command(&["ticket", "new", "alice"]).stdout(full()));
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.err.starts_with("cryptocluster: what was asked for is done, but") && said.err.lines().count() == 1);
    let said = run(desk.admin.command(&["ca", "list", "--json"]).stdout(full()));
    assert!(said.code == Some(1) && said.err.starts_with("{\"error\":\"what was asked for is done, but"), "{said:?}");
    let tickets = desk.admin.json(&["ticket", "list"]).unwrap();
    assert_eq!(text(&tickets[0], "name").unwrap(), "alice");
}
