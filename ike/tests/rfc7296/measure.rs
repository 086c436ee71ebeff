//! What a login costs: figures for `--nocapture`, and a bound on memory.

use std::sync::Arc;

use ike::{Endpoint, Output, Path, RemoteIdentity, UniqueIds};
use wire::{Change, Tenure, Time, WorkSet};

use crate::pair::{config, initiator_connection, responder_connection};

const LOGINS: usize = 500;

/// Octets of the record of an SA that is up, its child included.
const RECORD_LEN_MAX: usize = 1500;

#[test]
fn a_login_is_cheap_and_its_record_small() {
    let mut initiator = initiator_connection();
    initiator.unique_ids = UniqueIds::Shared;
    let mut responder = responder_connection();
    (responder.unique_ids, responder.remote_identity) = (UniqueIds::Shared, RemoteIdentity::Any);
    let configs = [config(initiator), config(responder)].map(Arc::new);
    let mut ends = configs.map(|config| Endpoint::new(config, [5; 32]));
    let (home, now) = (WorkSet::new(3).unwrap(), Time::from_millis(1));
    for end in &mut ends {
        assert_eq!(end.adopt_set(now, home, Tenure::default(), &mut std::iter::empty()), []);
    }
    let mut spent = [std::time::Duration::ZERO; 2];
    let mut largest = 0;
    for login in 0..LOGINS {
        let port = u16::try_from(10_000 + login).unwrap();
        let path = Path {
            local: std::net::SocketAddr::new("192.0.2.1".parse().unwrap(), port),
            remote: "198.51.100.1:4500".parse().unwrap(),
        };
        ends[0].initiate(now, "home", path, home).unwrap();
        let mut at = 0;
        let mut quiet = 0;
        while quiet < 2 {
            let mut sent = Vec::new();
            while let Some(output) = ends[at].poll_output() {
                match output {
                    Output::Transmit { path, datagram, .. } => sent.push((path, datagram)),
                    Output::RequestAddress { request, .. } => {
                        let address = std::net::Ipv4Addr::from_bits(0x0a4d_0000 + u32::try_from(login).unwrap());
                        ends[at].handle_address(now, request, Ok(address.into()));
                    }
                    Output::Store { change: Change::Put(bytes), .. } if at == 1 => largest = bytes.len(),
                    Output::Store { .. }
                    | Output::InstallChild(_)
                    | Output::RemoveChild { .. }
                    | Output::MovePath { .. }
                    | Output::ReleaseAddress { .. }
                    | Output::Sign { .. }
                    | Output::Event(_) => {}
                }
            }
            quiet = if sent.is_empty() { quiet + 1 } else { 0 };
            at = 1 - at;
            for (path, datagram) in sent {
                let seen = Path { local: path.remote, remote: path.local };
                #[expect(clippy::disallowed_methods, reason = "a measurement")]
                let start = std::time::Instant::now();
                ends[at].handle_datagram(now, seen, home, &datagram);
                spent[at] += start.elapsed();
            }
        }
    }
    assert_eq!(ends[1].sessions(now).filter(|s| s.children.len() == 1).count(), LOGINS);
    assert!(largest <= RECORD_LEN_MAX, "{largest}");
    let each = spent.map(|s| s / u32::try_from(LOGINS).unwrap());
    println!("per login: initiator {:?}, responder {:?}; record {largest} octets", each[0], each[1]);
}
