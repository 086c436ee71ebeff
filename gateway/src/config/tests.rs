use std::path::Path;
use std::{fs, process};

use super::cluster::Cluster;
use super::document::{ConfigError, Document};
use super::node::Node;

const NODE: &str = r#"
name = "n1"
cluster_config = "cluster.toml"
[outside]
interface = "out"
address = "198.51.100.11/24"
[inside]
interface = "in"
address = "10.1.0.11/24"
"#;

const CLUSTER: &str = r#"
version = 3
name = "lab"
outside_address = "198.51.100.1/24"
inside_address = "10.1.0.1/24"
secret_file = "cluster.secret"

[[members]]
name = "n1"
outside = "198.51.100.11"
inside = "10.1.0.11"

[[pools]]
name = "clients"
prefix = "10.2.0.0/16"

[[connections]]
name = "road"
local = { id = "vpn.lab.test", psk_file = "road.psk" }
remote = { id = "*.lab.test", auth = "psk" }
local_networks = ["10.1.0.0/24"]
pool = "clients"
ike = ["aes128gcm16-prfsha256-x25519"]
"#;

const MEMBER_OF_ANOTHER_NETWORK: &str = r#"
[[members]]
name = "n2"
outside = "198.51.100.12"
inside = "10.1.0.12"
cluster = "10.255.0.12"
[[pools]]"#;

fn node(text: &str) -> Result<Node, ConfigError> {
    Node::from_document(&Document::from_text(Path::new("/etc/cc/node.toml"), text))
}

/// A directory with the secrets that the document names.
struct Directory(std::path::PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("cc-config-{name}-{}", process::id()));
        fs::create_dir_all(&path).unwrap();
        let directory = Self(path);
        directory.secret("cluster.secret", "0123456789abcdef0123456789abcdef\n", 0o600);
        directory.secret("road.psk", "swordfish\n", 0o600);
        directory
    }

    fn secret(&self, name: &str, content: &str, mode: u32) {
        use std::os::unix::fs::PermissionsExt;
        fs::write(self.0.join(name), content).unwrap();
        fs::set_permissions(self.0.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }

    fn cluster(&self, text: &str) -> Result<Cluster, ConfigError> {
        Cluster::from_document(Document::from_text(&self.0.join("cluster.toml"), text))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _left = fs::remove_dir_all(&self.0);
    }
}

fn refusal(result: Result<Cluster, ConfigError>) -> ConfigError {
    result.err().expect("refused")
}

#[test]
fn a_small_node_file_takes_documented_values_for_the_rest() {
    let node = node(NODE).unwrap();
    assert_eq!(node.cluster_file, Path::new("/etc/cc/cluster.toml"));
    assert_eq!(node.run_directory, Path::new("/run/cryptocluster"));
    assert_eq!((node.tun.mtu, node.workers, node.membership), (1400, 0, None));
}

#[test]
fn a_refusal_names_line_column_field_and_what_is_allowed() {
    let error = node(&NODE.replace("198.51.100.11/24", "198.51.100.11")).unwrap_err();
    assert_eq!(error.place, Some((6, 11)));
    assert_eq!(error.field.as_deref(), Some("outside.address"));
    assert_eq!(
        error.to_string(),
        "/etc/cc/node.toml:6:11: outside.address: \"198.51.100.11\" is not allowed; write an IPv4 address with its \
         prefix length, such as \"192.0.2.11/24\""
    );
    let error = node(&NODE.replace("interface = \"in\"", "interfaces = \"in\"")).unwrap_err();
    assert_eq!((error.place, error.field.as_deref()), (Some((8, 1)), Some("inside.interfaces")));
    assert!(error.advice.contains("`interface`"), "{error}");
    let error = node(&NODE.replace("name = \"n1\"", "name = 7")).unwrap_err();
    assert_eq!((error.place, error.field.as_deref()), (Some((2, 8)), Some("name")));
    let error = node("name = ").unwrap_err();
    assert_eq!(error.place.map(|(line, _)| line), Some(1), "{error}");
}

#[test]
fn a_cluster_document_reads_whole() {
    let directory = Directory::new("whole");
    let cluster = directory.cluster(CLUSTER).unwrap();
    let connection = &cluster.ike.connections[0];
    assert_eq!((cluster.version, cluster.members.len(), connection.ike_proposals.len()), (3, 1, 1));
    assert!(!connection.esp_proposals.is_empty() && cluster.ike.half_open_max > 0);
    assert_ne!(cluster.secrets.dispatch, cluster.ike.cookie_secret);
}

#[test]
fn the_hash_follows_the_document_and_its_files() {
    let directory = Directory::new("hash");
    let first = directory.cluster(CLUSTER).unwrap().hash;
    assert_eq!(first, directory.cluster(CLUSTER).unwrap().hash);
    assert_ne!(first, directory.cluster(&CLUSTER.replace("version = 3", "version = 4")).unwrap().hash);
    directory.secret("road.psk", "another\n", 0o600);
    assert_ne!(first, directory.cluster(CLUSTER).unwrap().hash);
}

#[test]
fn every_mistake_in_a_cluster_document_is_told_with_its_place() {
    let directory = Directory::new("mistakes");
    directory.secret("open.psk", "swordfish", 0o644);
    directory.secret("short", "abc", 0o600);
    let rows = [
        ("pool = \"clients\"", "pool = \"guests\"", "connections.pool", "declared are: clients"),
        ("aes128gcm16-prfsha256-x25519", "3des-md5-modp1024", "connections.ike", "aes128gcm16"),
        ("psk_file = \"road.psk\"", "psk_file = \"open.psk\"", "connections.local.psk_file", "chmod 600"),
        ("psk_file = \"road.psk\"", "psk_file = \"none.psk\"", "connections.local.psk_file", "existing file"),
        ("secret_file = \"cluster.secret\"", "secret_file = \"short\"", "secret_file", "openssl rand"),
        ("auth = \"psk\"", "auth = \"certificate\"", "connections.remote.auth", "trust"),
        ("auth = \"psk\"", "auth = \"eap\"", "connections.remote.auth", "`psk` or `certificate`"),
        ("*.lab.test", "*lab.test", "connections.remote.id", "any"),
        ("10.2.0.0/16", "10.2.0.1/16", "pools.prefix", "10.9.0.0/16"),
        ("10.2.0.0/16", "0.0.0.0/4", "pools.prefix", "prefix length"),
        ("[[pools]]", "[[pools]]\nname = \"a\"\nprefix = \"10.2.9.0/24\"\n[[pools]]", "pools.prefix", "of its own"),
        ("version = 3", "version = 3\nport = 65535", "port", "65534"),
        ("[[pools]]", MEMBER_OF_ANOTHER_NETWORK, "members.name", "all members"),
        ("pool = \"clients\"", "pool = \"clients\"\nike_rekey = \"6h\"", "connections.ike_rekey", "rekeyed before"),
        ("pool = \"clients\"", "pool = \"clients\"\nliveness = \"6\"", "connections.liveness", "90s"),
    ];
    for (good, bad, field, advice) in rows {
        let error = refusal(directory.cluster(&CLUSTER.replacen(good, bad, 1)));
        assert!(error.field.as_deref().is_some_and(|found| found == field), "{bad}: {error}");
        assert!(error.advice.contains(advice), "{bad}: {error}");
        assert!(error.place.is_some(), "{bad}: {error}");
        assert!(!error.to_string().contains("swordfish"), "{bad}: {error}");
    }
}
