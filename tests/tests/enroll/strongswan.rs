//! A real connection: strongSwan against strongSwan, with certificates of this CA, the client by its exported profile.

use std::net::IpAddr;

use lab::Lab;
use lab::enrollment::{Party, Scratch, make_ca, text};
use lab::pki::Certificate;
use lab::strongswan::{Charon, Credential, Log, Role, Settings};

use crate::desk::Desk;

/// Gateway and client on one wire.
const GATEWAY: &str = "198.51.100.10";
const CLIENT: &str = "198.51.100.101";

#[test]
fn strongswan_connects_with_the_exported_swanctl_profile_and_is_refused_once_revoked() {
    let scratch = Scratch::new("swan").unwrap();
    let admin = Party::administrator(&scratch.path("store")).unwrap();
    make_ca(&admin, "hq-vpn", GATEWAY).unwrap();
    admin.good(&["profile", "set", "1", "office", "--routes", "10.1.0.0/16"]).unwrap();
    let path = |name: &str| scratch.path(name).display().to_string();

    // The gateway's certificate, and a client's by text.
    let gateway_key = path("gateway.key");
    let gateway = admin.json(&["cert", "issue", GATEWAY, "--gateway", "--key-out", &gateway_key]).unwrap();
    let made = admin.json(&["ticket", "new", "alice-laptop", "--profile", "office"]).unwrap();
    let code = scratch.put("code", &text(&made, "code").unwrap()).unwrap();
    let alice = Party::device(&scratch.path("alice")).unwrap();
    let request = alice.json(&["enroll", "--file", &code]).unwrap();
    let request = scratch.put("request", &text(&request, "request").unwrap()).unwrap();
    let accepted = admin.json(&["enroll", "accept", &request, "--form", "full"]).unwrap();
    let reply = scratch.put("reply", &text(&accepted, "reply").unwrap()).unwrap();
    alice.good(&["enroll", "--yes", "--file", &reply]).unwrap();
    let key = path("alice/profiles/hq-vpn/key.pem");

    let lab = Lab::new().unwrap();
    let wire = lab.switch("out").unwrap();
    let (left, right) = (lab.namespace("gw").unwrap(), lab.namespace("c1").unwrap());
    for (namespace, name, address) in [(&left, "gw", GATEWAY), (&right, "c1", CLIENT)] {
        wire.plug(name, namespace, "out").unwrap();
        namespace.ip(&[format!("addr add {address}/24 dev out")]).unwrap();
    }
    // The user-space ESP of strongSwan wants an address in the network that it protects.
    left.ip(&["addr add 10.1.0.1/16 dev lo".to_owned()]).unwrap();
    let own = Certificate {
        certificate: text(&gateway, "certificate").unwrap(),
        key: std::fs::read_to_string(&gateway_key).unwrap(),
    };
    let authority = text(&gateway, "chain").unwrap();
    let common = Settings {
        local_id: GATEWAY,
        remote_id: "*.hq-vpn.invalid",
        credential: Credential::Certificate { own: &own, authority: &authority },
        ike_proposal: "aes256gcm16-prfsha384-x25519",
        esp_proposal: "aes256gcm16",
        local_selector: Some("10.1.0.0/16"),
        remote_selector: None,
        role: Role::Gateway { pool: "10.9.0.0/24" },
        extra: "",
        connection_extra: "",
        child_extra: "",
        log: Log::Exchanges,
    };
    let server = Charon::start(&lab, &left, "gateway", &common).unwrap();
    // The client begins with settings of the lab, which the exported files then replace.
    let role = Role::Client { gateway: GATEWAY.parse::<IpAddr>().unwrap(), liveness_s: 0 };
    let client = Charon::start(&lab, &right, "client", &Settings { role, local_selector: None, ..common }).unwrap();
    let swanctl = lab.directory().join("client/swanctl");
    std::fs::remove_dir_all(&swanctl).unwrap();
    let out = swanctl.display().to_string();
    admin.good(&["profile", "export", "alice-laptop", "--format", "swanctl", "--key", &key, "--out", &out]).unwrap();
    client.swanctl(&["--load-all", "--noprompt"]).unwrap();
    let connect = || client.swanctl(&["--initiate", "--child", "hq-vpn", "--timeout", "10"]);
    connect().unwrap_or_else(|error| panic!("{error:#}; {}", client.log()));
    assert!(client.inner_address().is_some_and(|address| address.to_string().starts_with("10.9.0.")));
    let log = server.log();
    assert!(log.contains("authentication of 'alice-laptop.hq-vpn.invalid' with ECDSA"), "{log}");
    client.swanctl(&["--terminate", "--ike", "hq-vpn"]).unwrap();

    // Revoked, the list published: the gateway, told to insist on a list, refuses.
    admin.good(&["cert", "revoke", "alice-laptop"]).unwrap();
    let list = lab.directory().join("gateway/swanctl/x509crl");
    std::fs::create_dir_all(&list).unwrap();
    admin.good(&["cert", "crl", "--out", &list.join("hq-vpn.pem").display().to_string()]).unwrap();
    server.swanctl(&["--load-creds", "--noprompt"]).unwrap();
    assert!(connect().is_err(), "a revoked certificate still connects: {}", server.log());
    assert!(server.log().contains("certificate was revoked"), "{}", server.log());
}

#[test]
fn every_profile_is_written_in_the_form_of_its_system() {
    let desk = Desk::new("profiles");
    let path = |name: &str| desk.scratch.path(name).display().to_string();
    let (key, out) = (path("carol.key"), path("out"));
    desk.admin.good(&["cert", "issue", "carol@example.org", "--key-out", &key]).unwrap();
    let passphrase = desk.scratch.put("passphrase", "correct horse\n").unwrap();
    for (format, file) in [
        ("swanctl", "swanctl.conf"),
        ("powershell", "carol@example.org.ps1"),
        ("mobileconfig", "carol@example.org.mobileconfig"),
        ("sswan", "carol@example.org.sswan"),
        ("networkmanager", "carol@example.org-networkmanager.sh"),
        ("pem", "carol@example.org.pem"),
    ] {
        let arguments = [
            "profile",
            "export",
            "carol@example.org",
            "--format",
            format,
            "--key",
            &key,
            "--out",
            &out,
            "--export-passphrase-file",
            &passphrase,
        ];
        desk.admin.good(&arguments).unwrap();
        assert!(desk.scratch.path("out").join(file).exists(), "{format}");
    }
    let openssl = |arguments: &[&str]| {
        lab::run::output(std::process::Command::new("openssl").args(arguments))
            .unwrap_or_else(|error| panic!("{error:#}"))
    };
    let ca = desk.admin.json(&["ca", "list"]).unwrap();
    let ca = desk.scratch.put("ca.pem", &text(&ca[0], "certificate").unwrap()).unwrap();
    let signed = format!("{out}/carol@example.org.mobileconfig");
    let plain = path("plain.mobileconfig");
    openssl(&["cms", "-verify", "-inform", "DER", "-in", &signed, "-CAfile", &ca, "-binary", "-out", &plain]);
    let python = "import plistlib,sys; p=plistlib.load(open(sys.argv[1],'rb')); print([c['PayloadType'] for c in p['PayloadContent']])";
    let parsed = lab::run::output(std::process::Command::new("python3").args(["-c", python, &plain])).unwrap();
    assert!(parsed.contains("com.apple.vpn.managed"), "{parsed}");
    // Of the groups that a gateway takes, these systems know P-256.
    let windows = std::fs::read_to_string(desk.scratch.path("out/carol@example.org.ps1")).unwrap();
    assert!(windows.contains("-IntegrityCheckMethod SHA384 -DHGroup ECP256 -PfsGroup ECP256"), "{windows}");
    let apple = std::fs::read_to_string(&plain).unwrap();
    assert!(apple.matches("<integer>19</integer>").count() == 2, "{apple}");
    let sswan = std::fs::read_to_string(desk.scratch.path("out/carol@example.org.sswan")).unwrap();
    let sswan: serde_json::Value = serde_json::from_str(&sswan).unwrap();
    assert_eq!(sswan["type"], "ikev2-cert");
    lab::run::output(
        std::process::Command::new("sh").args(["-n", &format!("{out}/carol@example.org-networkmanager.sh")]),
    )
    .unwrap();
    let bundle = path("carol.p12");
    for (cipher, legacy) in [("aes256-sha256", false), ("3des-sha1", true)] {
        let arguments = [
            "cert",
            "export",
            "carol@example.org",
            "--format",
            "pkcs12",
            "--key",
            &key,
            "--out",
            &bundle,
            "--cipher",
            cipher,
            "--export-passphrase-file",
            &passphrase,
        ];
        desk.admin.good(&arguments).unwrap();
        let read = ["pkcs12", "-in", &bundle, "-passin", "pass:correct horse", "-nodes", "-legacy"];
        let said = openssl(&read[..if legacy { 7 } else { 6 }]);
        assert!(said.contains("BEGIN PRIVATE KEY") && said.matches("BEGIN CERTIFICATE").count() == 2, "{cipher}");
    }
}
