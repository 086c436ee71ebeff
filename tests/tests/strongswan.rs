//! strongSwan to strongSwan: the lab itself works, with no part of ours in the path.

use std::time::Duration;

use lab::http::{Download, Server, expected_sha256};
use lab::pair::StrongSwanPair;
use lab::strongswan::History;

#[test]
fn strongswan_downloads_through_a_strongswan_gateway() {
    let pair = StrongSwanPair::start().unwrap();
    let address = pair.client.connect().unwrap();
    let _server = Server::start(&pair.inside, pair.server_address()).unwrap();
    let bytes = 5_000_000;
    let download =
        Download::start(&pair.outside, address, pair.server_address(), bytes, Duration::from_millis(500)).unwrap();
    assert_eq!(download.finish().unwrap().sha256, expected_sha256(bytes));
    let history = pair.client.history();
    assert_eq!(history, History { ike_sa_init: 1, ike_auth: 1, ..History::default() });
}
