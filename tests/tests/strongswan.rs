//! strongSwan to strongSwan: the lab itself works, with no part of ours in the path.

use std::time::Duration;

use lab::http::{Download, Server, expected_sha256};
use lab::observer::{Observer, Rule, Rules};
use lab::pair::StrongSwanPair;
use lab::strongswan::History;

#[test]
fn strongswan_downloads_through_a_strongswan_gateway() {
    let pair = StrongSwanPair::start().unwrap();
    let address = pair.client.connect().unwrap();
    let web = pair.gateway.server_address(8080);
    let _server = Server::start(&pair.gateway.inside, web).unwrap();
    let bytes = 5_000_000;
    let download = Download::start(&pair.outside, address, web, bytes, Duration::from_millis(500)).unwrap();
    assert_eq!(download.finish().unwrap().sha256, expected_sha256(bytes));
    let history = pair.client.history();
    assert_eq!(history, History { ike_sa_init: 1, ike_auth: 1, ..History::default() });
}

#[test]
fn the_observer_judges_every_packet_and_finds_a_planted_double_use() {
    let pair = StrongSwanPair::start().unwrap();
    let rules = Rules { protected: vec!["10.0.0.0/8".parse().unwrap()], ..Rules::default() };
    let observer = Observer::start(&pair.gateway.wire, rules).unwrap();
    let address = pair.client.connect().unwrap();
    let web = pair.gateway.server_address(8080);
    let _server = Server::start(&pair.gateway.inside, web).unwrap();
    let bytes = 5_000_000;
    let download = Download::start(&pair.outside, address, web, bytes, Duration::ZERO).unwrap();
    download.finish().unwrap();
    assert_eq!(observer.broken(), 0);
    observer.plant(&pair.gateway.middle, "out").unwrap();
    let report = observer.finish().unwrap();
    let rules: Vec<Rule> = report.violations.iter().map(|violation| violation.rule).collect();
    assert_eq!(rules, [Rule::SequenceTwice, Rule::IvTwice]);
    assert_eq!(report.dropped, 0);
    // Each full packet carries at most 1,360 octets of the download.
    assert!(report.ports["gw"].esp > bytes / 1_360, "{report:?}");
    assert_eq!(report.ike, 4);
}
