//! What the pages tell to type works as they say, and what they point to is there.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use lab::cluster::gateway_program;
use lab::enrollment::{Party, Scratch, make_ca};
use lab::run;

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

fn page(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The fenced blocks of a page that are written in `language`.
fn blocks<'a>(page: &'a str, language: &str) -> Vec<&'a str> {
    let fence = format!("```{language}\n");
    page.split(&fence).skip(1).filter_map(|rest| rest.split("```").next()).collect()
}

#[test]
fn the_page_on_starting_a_cluster_leads_to_files_that_are_accepted() {
    let page = page("docs/operating/start.md");
    let directory = std::env::temp_dir().join(format!("cc-docs-{}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    let here = directory.display().to_string();
    for file in blocks(&page, "toml") {
        let name = file.lines().next().and_then(|line| line.strip_prefix("# /etc/cryptocluster/")).unwrap();
        fs::write(directory.join(name), file).unwrap();
    }
    // The commands, as they stand, but for the directory and the place of the program.
    let program = gateway_program().unwrap();
    let script = blocks(&page, "sh").concat().replace("/etc/cryptocluster", &here);
    let script = script.replace("cryptocluster config", &format!("{} config", program.display()));
    let said = run::output(Command::new("bash").args(["-e", "-c", &script])).unwrap();
    println!("{said}");
    assert!(said.contains("node n1; cluster example version 1 hash"), "{said}");
    assert!(said.contains("3 members, 1 connections"), "{said}");
    // Each node's certificate names it, and comes from the nodes' authority.
    for node in ["n1", "n2", "n3"] {
        let verify = format!("openssl verify -CAfile cluster-ca.crt -verify_hostname {node} {node}.crt");
        run::output(Command::new("bash").args(["-c", &verify]).current_dir(&directory)).unwrap();
    }
    // A file of another node is found before a start.
    for (file, words) in
        [("n1.crt", "does not name this node"), ("n1.key", "TLS cannot use"), ("n1.key", "cannot read")]
    {
        let good = fs::read(directory.join(file)).unwrap();
        let other =
            if words == "cannot read" { Vec::new() } else { fs::read(directory.join(file.replace('1', "2"))).unwrap() };
        fs::write(directory.join(file), other).unwrap();
        let check = ["config", "check", "--config", &format!("{here}/node.toml")];
        let refused = Command::new(&program).args(check).output().unwrap();
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(refused.status.code() == Some(3) && said.contains(words), "{:?}: {said}", refused.status);
        fs::write(directory.join(file), good).unwrap();
    }
    fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn the_page_on_certificates_by_text_leads_to_a_gateway_that_takes_them() {
    let scratch = Scratch::new("docs").unwrap();
    let (start, enrollment) = (page("docs/operating/start.md"), page("docs/operating/enrollment.md"));
    let put = |name: &str, text: &str| scratch.put(name, text).unwrap();
    let admin = Party::administrator(&scratch.path("store")).unwrap();
    make_ca(&admin, "hq-vpn", "vpn.example.org").unwrap();
    let here = scratch.path("").display().to_string();
    let program = gateway_program().unwrap().display().to_string();
    // The files of the first page, in which the lines and the connection of this one take the place of theirs.
    let files: Vec<&str> = blocks(&start, "toml");
    let (top, connection) = blocks(&enrollment, "toml")[0].split_once("\n\n").unwrap();
    let cluster = files[0].replace("trust = [\"clients-ca.crt\"]", top);
    put("cluster.toml", &format!("{}{connection}", cluster.split("[[connections]]").next().unwrap()));
    put("node.toml", files[1]);
    let script = [blocks(&start, "sh")[0], blocks(&enrollment, "sh")[0]].concat();
    let script = script.replace("/etc/cryptocluster", &here);
    let with_store = format!("cryptocluster() {{ {program} \"$@\" --store {here}/store; }}\n{script}");
    run::output(Command::new("bash").args(["-e", "-c", &with_store])).unwrap();
    let check = Command::new(&program).args(["config", "check", "--config", &format!("{here}/node.toml")]).output();
    let check = check.unwrap();
    let said = String::from_utf8_lossy(&check.stdout);
    assert!(said.contains("3 members, 1 connections"), "{said}{}", String::from_utf8_lossy(&check.stderr));
}

#[test]
fn every_page_is_reached_from_the_first_one_and_every_link_leads_somewhere() {
    let index = page("docs/operating/README.md");
    let mut names = vec!["README.md".to_owned(), "ARCHITECTURE.md".to_owned()];
    for entry in fs::read_dir(root().join("docs/operating")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(name == "README.md" || index.contains(&format!("({name})")), "{name} is not in the index");
        names.push(format!("docs/operating/{name}"));
    }
    for name in names {
        let text = page(&name);
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let (file, place) = link.split_once('#').unwrap_or((link, ""));
            let to =
                if file.is_empty() { root().join(&name) } else { root().join(&name).with_file_name("").join(file) };
            assert!(to.exists(), "{name} links to {link}");
            let found = place.is_empty() || fs::read_to_string(to).unwrap().lines().any(|line| anchor(line) == place);
            assert!(found, "{name} links to {link}, and there is no such heading");
        }
    }
}

/// What a link calls a heading.
fn anchor(line: &str) -> String {
    let title = line.trim_start_matches('#').trim().to_lowercase();
    let kept = title.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    if line.starts_with('#') { kept.collect::<String>().replace(' ', "-") } else { String::new() }
}

#[test]
fn files_that_the_architecture_names_are_there() {
    let text = page("ARCHITECTURE.md");
    let top = |name: &str| root().join(name.split('/').next().unwrap_or_default()).is_dir();
    let paths: Vec<&str> = text.split('`').skip(1).step_by(2).filter(|name| name.contains('/') && top(name)).collect();
    assert!(paths.len() > 20, "{paths:?}");
    for path in paths {
        assert!(root().join(path).exists(), "{path}");
    }
}

#[test]
fn each_decision_has_a_number_of_its_own_and_says_it() {
    let mut numbers = BTreeSet::new();
    for entry in fs::read_dir(root().join("docs/decisions")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let number = name.split('-').next().unwrap().to_owned();
        assert!(page(&format!("docs/decisions/{name}")).starts_with(&format!("# {number} ")), "{name}");
        assert!(numbers.insert(number), "a second decision has the number of {name}");
    }
}
