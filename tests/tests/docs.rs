//! What the operator's pages tell to type works as they say.

use std::fs;
use std::path::Path;
use std::process::Command;

use lab::cluster::gateway_program;
use lab::run;

/// The fenced blocks of a page that are written in `language`.
fn blocks<'a>(page: &'a str, language: &str) -> Vec<&'a str> {
    let fence = format!("```{language}\n");
    page.split(&fence).skip(1).filter_map(|rest| rest.split("```").next()).collect()
}

#[test]
fn the_page_on_starting_a_cluster_leads_to_files_that_are_accepted() {
    let pages = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operating");
    let page = fs::read_to_string(pages.join("start.md")).unwrap();
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
fn every_page_is_reached_from_the_first_one_and_every_link_leads_somewhere() {
    let pages = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operating");
    let index = fs::read_to_string(pages.join("README.md")).unwrap();
    for entry in fs::read_dir(&pages).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(name == "README.md" || index.contains(&format!("({name})")), "{name} is not in the index");
        let page = fs::read_to_string(pages.join(&name)).unwrap();
        for link in page.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = link.split('#').next().unwrap_or_default();
            assert!(file.is_empty() || pages.join(file).exists(), "{name} links to {link}");
        }
    }
}
