//! What keeps a node from starting: one clear sentence that says what is wrong and what to do, and a non-zero exit.

use std::fs;
use std::net::UdpSocket;

use lab::cluster::{Cluster, Ended, GATEWAY_ID};
use lab::pki::KeyKind;
use time::{Duration, OffsetDateTime};

const CONFIG: Option<i32> = Some(3);
const MACHINE: Option<i32> = Some(4);

#[track_caller]
fn assert_refused(ended: &Ended, code: Option<i32>, words: &[&str]) {
    assert_eq!(ended.code, code, "{}", ended.said);
    let sentences: Vec<&str> = ended.said.lines().filter(|line| line.starts_with("cryptocluster: ")).collect();
    let [sentence] = sentences[..] else { panic!("one sentence was expected: {}", ended.said) };
    for word in words {
        assert!(sentence.contains(word), "{word:?} is not in: {sentence}");
    }
}

/// Replaces `from` by `to` in a file.
fn edit(file: &std::path::Path, from: &str, to: &str) {
    let text = fs::read_to_string(file).unwrap();
    assert!(text.contains(from), "{from:?} is not in {}", file.display());
    fs::write(file, text.replace(from, to)).unwrap();
}

#[test]
fn a_broken_configuration_is_refused_with_file_line_field_and_remedy() {
    let cluster = Cluster::build(1).unwrap();
    let node = &cluster.nodes[0];
    edit(&cluster.config_file(), "prefix = \"10.2.0.0/16\"", "prefix = \"10.2.0.0/33\"");
    assert_refused(&node.run_to_end(&[]).unwrap(), CONFIG, &["cluster.toml:", "prefix", "10.9.0.0/16"]);
    edit(&node.config_file(), "[inside]", "[insid]");
    assert_refused(&node.run_to_end(&[]).unwrap(), CONFIG, &["node.toml:", "insid"]);
}

#[test]
fn a_taken_port_is_named() {
    let cluster = Cluster::build(1).unwrap();
    let node = &cluster.nodes[0];
    let _other = node.namespace().within(|| Ok(UdpSocket::bind("0.0.0.0:500")?)).unwrap();
    assert_refused(&node.run_to_end(&[]).unwrap(), MACHINE, &["port 500", "taken", "ss -ulpn"]);
}

#[test]
fn a_missing_capability_is_named_with_the_way_to_grant_it() {
    let cluster = Cluster::build(1).unwrap();
    let ended = cluster.nodes[0].run_to_end(&["setpriv", "--bounding-set=-net_admin", "--"]).unwrap();
    assert_refused(&ended, MACHINE, &["CAP_NET_ADMIN", "setcap"]);
}

#[test]
fn a_missing_tun_device_is_named() {
    let cluster = Cluster::build(1).unwrap();
    let hide = ["unshare", "--mount", "sh", "-c", "mount -t tmpfs none /dev/net && exec \"$0\" \"$@\""];
    let ended = cluster.nodes[0].run_to_end(&hide).unwrap();
    assert_refused(&ended, MACHINE, &["/dev/net/tun", "modprobe tun"]);
}

#[test]
fn a_missing_interface_is_named() {
    let cluster = Cluster::build(1).unwrap();
    let node = &cluster.nodes[0];
    edit(&node.config_file(), "interface = \"in\"", "interface = \"eth7\"");
    assert_refused(&node.run_to_end(&[]).unwrap(), MACHINE, &["eth7", "ip link"]);
}

#[test]
fn a_certificate_that_is_not_yet_valid_is_named() {
    let cluster = Cluster::build(1).unwrap();
    let tomorrow = OffsetDateTime::now_utc() + Duration::days(1);
    let late = cluster.authority().issue_from(GATEWAY_ID, KeyKind::EcdsaP256, &[], tomorrow).unwrap();
    let directory = cluster.config_file();
    let directory = directory.parent().unwrap();
    late.write(&directory.join("gateway.crt"), &directory.join("gateway.key")).unwrap();
    assert_refused(&cluster.nodes[0].run_to_end(&[]).unwrap(), MACHINE, &["gateway.crt", "not valid yet", "clock"]);
}
