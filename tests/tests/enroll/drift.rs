//! What scripts and manuals rely on does not change by accident: help, manual pages, completions, names in JSON.
//!
//! A wanted change is written down with `UPDATE_GOLDEN=1 cargo test --release -p lab --test enroll drift`.

use std::fmt::Write as _;
use std::path::Path;

use lab::enrollment::Party;
use serde_json::Value;

use crate::desk::Desk;

/// The operator's nouns that are for certificates by text; the others are tested with what they drive.
const NOUNS: [&str; 11] =
    ["init", "ticket", "enroll", "cert", "ca", "journal", "backup", "restore", "profile", "completions", "manual"];

/// A command and all below it: the words that lead there, and the help.
type Tree = Vec<(Vec<String>, String)>;

fn golden(name: &str, found: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, found).unwrap();
        return;
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    for (number, (expected, found)) in (1..).zip(expected.lines().zip(found.lines())) {
        assert_eq!(found, expected, "line {number} of {} differs; is the change wanted?", path.display());
    }
    assert_eq!(found.lines().count(), expected.lines().count(), "{} is longer or shorter", path.display());
}

/// Runs a command without its directory: help needs none.
fn run(party: &Party, arguments: &[&str]) -> String {
    let program = party.command(&[]).get_program().to_owned();
    let output = std::process::Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The subcommands that a help text names.
fn subcommands(help: &str) -> Vec<String> {
    let listed = help.split("\nCommands:\n").nth(1).unwrap_or_default().lines().take_while(|line| !line.is_empty());
    let names = listed.filter_map(|line| line.strip_prefix("  ")?.split_whitespace().next());
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

/// The help of a command and of all below it, each behind its name.
fn help_tree(party: &Party, path: &[String], into: &mut Tree) {
    let arguments: Vec<&str> = path.iter().map(String::as_str).chain(["--help"]).collect();
    let help = run(party, &arguments);
    let below = subcommands(&help);
    into.push((path.to_vec(), help));
    for name in below {
        help_tree(party, &[path, &[name]].concat(), into);
    }
}

fn trees(desk: &Desk) -> [(&'static str, Party, Tree); 2] {
    let mut operator = Vec::new();
    for noun in NOUNS {
        help_tree(&desk.admin, &[noun.to_owned()], &mut operator);
    }
    let client = desk.device("alice");
    let mut device = Vec::new();
    help_tree(&client, &[], &mut device);
    [("cryptocluster", desk.admin.clone(), operator), ("ccvpn", client, device)]
}

#[test]
fn help_is_what_was_written_down() {
    let desk = Desk::new("help");
    for (program, _, tree) in trees(&desk) {
        let mut text = String::new();
        for (path, help) in tree {
            writeln!(text, "$ {program} {}--help\n{help}", path.iter().map(|p| format!("{p} ")).collect::<String>())
                .unwrap();
        }
        golden(&format!("{program}.help"), &text);
    }
}

#[test]
fn every_command_and_option_has_its_place_in_a_manual_page_and_in_completions() {
    let desk = Desk::new("manual");
    for (program, party, tree) in trees(&desk) {
        let pages = desk.scratch.path(&format!("man-{program}")).display().to_string();
        run(&party, &["manual", &pages]);
        let completions = run(&party, &["completions", "bash"]);
        for (path, help) in tree {
            let name: String = [&[program.to_owned()], path.as_slice()].concat().join("-");
            let page = std::fs::read_to_string(format!("{pages}/{name}.1")).unwrap_or_default().replace('\\', "");
            assert!(page.contains(".TH"), "{name} has no manual page");
            // Options stand at the beginning of their line, those that are only spoken of do not.
            let lines = help.lines().map(str::trim_start).filter(|line| line.starts_with('-'));
            let words = lines.flat_map(|line| line.split_whitespace().take(2)).map(|word| word.trim_matches(','));
            for option in words.filter(|word| word.starts_with("--")) {
                assert!(page.contains(option), "{option} is not in the manual page of {name}");
                assert!(completions.contains(option), "{option} is not in the completions");
            }
        }
    }
}

/// The names in a JSON answer and the types of what stands there.
fn shape(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) => "bool".to_owned(),
        Value::Number(_) => "number".to_owned(),
        Value::String(_) => "string".to_owned(),
        Value::Array(items) => format!("[{}]", items.first().map_or_else(String::new, shape)),
        Value::Object(fields) => {
            let fields: Vec<String> = fields.iter().map(|(name, value)| format!("{name}: {}", shape(value))).collect();
            format!("{{ {} }}", fields.join(", "))
        }
    }
}

#[test]
fn answers_in_json_have_the_names_that_were_written_down() {
    let desk = Desk::new("json");
    let mut text = String::new();
    let mut note = |party: &Party, arguments: &[&str]| -> Value {
        let answer = party.json(arguments).unwrap();
        let plain: Vec<&str> = arguments.iter().map(|word| if word.contains('/') { "PATH" } else { word }).collect();
        // Numbers that are drawn anew each time have no place in what is written down.
        let plain: Vec<&str> = plain
            .into_iter()
            .map(|word| if word.len() == 5 && word.to_uppercase() == word { "TICKET" } else { word })
            .collect();
        writeln!(text, "{}\n    {}", plain.join(" "), shape(&answer)).unwrap();
        answer
    };
    let string = |answer: &Value, name: &str| answer[name].as_str().unwrap().to_owned();
    let at = |name: &str| desk.scratch.path(name).display().to_string();
    let alice = desk.device("alice");
    note(&desk.admin, &["profile", "set", "1", "office", "--routes", "10.0.0.0/8"]);
    note(&desk.admin, &["profile", "list"]);
    let ticket = note(&desk.admin, &["ticket", "new", "alice"]);
    let spare = note(&desk.admin, &["ticket", "new", "bob"]);
    note(&desk.admin, &["ticket", "list"]);
    note(&desk.admin, &["ticket", "show", &string(&ticket, "number")]);
    let code = desk.scratch.put("code", &string(&ticket, "code")).unwrap();
    let request = note(&alice, &["enroll", "--file", &code]);
    let request = desk.scratch.put("request", &string(&request, "request")).unwrap();
    let accepted = note(&desk.admin, &["enroll", "accept", &request]);
    note(&desk.admin, &["enroll", "reject", &request]);
    let reply = desk.scratch.put("reply", &string(&accepted, "reply")).unwrap();
    note(&alice, &["enroll", "--yes", "--file", &reply]);
    note(&alice, &["profile", "list"]);
    note(&alice, &["profile", "show", "hq-vpn"]);
    let renewal = note(&alice, &["request", "--pkcs10", "--renew", "--profile", "hq-vpn"]);
    let renewal = desk.scratch.put("renewal", &string(&renewal, "request")).unwrap();
    note(&desk.admin, &["cert", "list"]);
    note(&desk.admin, &["cert", "confirm", "alice"]);
    let (out, key) = (at("out.pem"), at("key.pem"));
    note(&desk.admin, &["cert", "renew", "alice", "--request", &renewal, "--out", &out]);
    note(&alice, &["request", "--certificate", &out, "--renew", "--profile", "hq-vpn"]);
    note(&alice, &["profile", "forget", "hq-vpn"]);
    note(&desk.admin, &["cert", "issue", "carol", "--key-out", &key]);
    note(&desk.admin, &["cert", "show", "carol"]);
    note(&desk.admin, &["cert", "export", "carol"]);
    note(&desk.admin, &["profile", "export", "carol", "--format", "pem", "--out", &at("profile")]);
    note(&desk.admin, &["cert", "revoke", "carol"]);
    desk.suspended("n1", 1);
    note(&desk.admin, &["cert", "release", "n1"]);
    note(&desk.admin, &["cert", "crl"]);
    note(&desk.admin, &["cert", "calendar"]);
    note(&desk.admin, &["ca", "rollover"]);
    note(&desk.admin, &["ca", "list"]);
    note(&desk.admin, &["ticket", "void", &string(&spare, "number")]);
    note(&desk.admin, &["journal", "list"]);
    note(&desk.admin, &["journal", "verify"]);
    note(&desk.admin, &["backup", &at("backup")]);
    note(&desk.admin, &["restore", &at("backup")]);
    let refused = desk.admin.run(&["cert", "show", "nobody", "--json"], "").unwrap();
    let refused: Value = serde_json::from_str(&refused.err).unwrap();
    writeln!(text, "cert show nobody, on standard error\n    {}", shape(&refused)).unwrap();
    golden("enroll.json-shapes", &text);
}
