use super::*;

fn with_profile<T>(run: impl FnOnce(&Connection<'_>, &Identity<'_>) -> T) -> T {
    let names = (
        ClusterName::new("hq-vpn").unwrap(),
        GatewayName::new("vpn.example.org").unwrap(),
        ClientName::new("alice-laptop").unwrap(),
    );
    let settings = Settings::parse("routes=10.0.0.0/8,192.168.1.0/24\ndns=10.0.0.53\ncolour=red\n").unwrap();
    let connection = Connection {
        cluster: &names.0,
        gateway: &names.1,
        client: &names.2,
        settings: &settings,
        authority: b"authority",
    };
    run(&connection, &Identity { certificate: b"certificate", chain: &[], key: None })
}

#[test]
fn settings_come_back_from_their_text_and_say_what_is_wrong() {
    let text = "routes=10.0.0.0/8,192.168.1.0/24\ndns=10.0.0.53\n";
    assert_eq!(Settings::parse(text).unwrap().to_string(), text);
    assert_eq!(Settings::parse("").unwrap(), Settings::default());
    assert_eq!(Settings::parse("routes"), Err(SettingsError::Line));
    assert_eq!(Settings::parse("routes=10.0.0.1/8"), Err(SettingsError::Route));
    assert_eq!(Settings::parse("dns=ns"), Err(SettingsError::Dns));
}

#[test]
fn a_profile_block_comes_back_from_its_text_and_needs_a_gateway() {
    let text = "gateway=vpn.example.org\nprofile=3\nroutes=10.0.0.0/8\n";
    let block = ProfileBlock::parse(text).unwrap();
    assert_eq!((block.to_string().as_str(), block.profile.value()), (text, 3));
    assert_eq!(ProfileBlock::parse("routes=10.0.0.0/8"), Err(SettingsError::Gateway));
}

#[test]
fn forms_that_carry_the_key_are_refused_without_it_and_the_others_leave_it_out() {
    with_profile(|connection, identity| {
        for format in [ProfileFormat::PowerShell, ProfileFormat::MobileConfig] {
            assert_eq!(connection.files(format, identity).unwrap_err(), ProfileError::NeedsKey);
        }
        for format in [ProfileFormat::Swanctl, ProfileFormat::Sswan, ProfileFormat::NetworkManager, ProfileFormat::Pem]
        {
            let files = connection.files(format, identity).unwrap();
            assert!(files.iter().all(|file| !file.secret), "{format:?}");
            let all: String = files.iter().map(|file| String::from_utf8_lossy(&file.content)).collect();
            assert!(!all.contains("PRIVATE KEY-----"), "{format:?}");
        }
    });
}

#[test]
fn every_form_names_gateway_networks_and_identity() {
    with_profile(|connection, identity| {
        for (format, path) in [
            (ProfileFormat::Swanctl, "swanctl.conf"),
            (ProfileFormat::Sswan, "alice-laptop.sswan"),
            (ProfileFormat::NetworkManager, "alice-laptop-networkmanager.sh"),
        ] {
            let files = connection.files(format, identity).unwrap();
            assert_eq!(files[0].path, path);
            let text = String::from_utf8(files[0].content.clone()).unwrap();
            for needed in ["vpn.example.org", "10.0.0.0/8", "192.168.1.0/24", "alice-laptop.hq-vpn.invalid"] {
                assert!(text.contains(needed), "{format:?} lacks {needed}: {text}");
            }
        }
    });
}

#[test]
fn network_manager_gets_each_network_and_server_in_its_family_and_no_default_route_beside_them() {
    with_profile(|connection, identity| {
        let script = |settings: &Settings| {
            let files = Connection { settings, ..connection.clone() }.files(ProfileFormat::NetworkManager, identity);
            String::from_utf8(files.unwrap()[0].content.clone()).unwrap()
        };
        let both = script(&Settings::parse("routes=10.0.0.0/8,2001:db8::/32\ndns=2001:db8::53,10.0.0.53").unwrap());
        for line in [
            "    ipv4.never-default yes ipv6.never-default yes \\",
            "    +ipv4.routes '10.0.0.0/8' \\",
            "    +ipv6.routes '2001:db8::/32' \\",
            "    +ipv6.dns '2001:db8::53' \\",
            "    +ipv4.dns '10.0.0.53' \\",
        ] {
            assert_eq!(both.lines().filter(|found| *found == line).count(), 1, "{line} in {both}");
        }
        assert!(!script(&Settings::default()).contains("never-default"));
    });
}

#[test]
fn identifiers_are_stable_and_of_version_8() {
    with_profile(|connection, identity| {
        let uuid = connection.uuid(identity, "vpn");
        assert_eq!(uuid, connection.uuid(identity, "vpn"));
        assert_ne!(uuid, connection.uuid(identity, "ca"));
        assert_eq!((uuid.len(), &uuid[14..15], &uuid[19..20]), (36, "8", "a"));
    });
}
