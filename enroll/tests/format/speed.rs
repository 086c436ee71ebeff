//! How fast a gateway works through requests. `./bench` compares; this only prints, and fails far below the aim.

use std::time::Duration;

use enroll::{Approval, Authority, ClusterName, GatewayName, Rank, Request, Role, Serial, Terms, Validity};

use crate::fuzz::on_cpu;
use crate::scene::Scene;

fn per_round(rounds: u32, mut work: impl FnMut()) -> Duration {
    let start = on_cpu();
    for _ in 0..rounds {
        work();
    }
    (on_cpu() - start) / rounds
}

#[test]
fn requests_are_checked_issued_and_refused_quickly() {
    let mut scene = Scene::new(1, Role::Client, Approval::Auto);
    let (message, _) = scene.request_of(&scene.client);
    let request = scene.read(&message);
    let grant = scene.grant(&request);
    let cluster = ClusterName::new("hq-vpn").unwrap();
    let days = Validity::new(20_000, 4000).unwrap();
    let ca = Authority::create(cluster.clone(), Rank::Sole, scene.ca.into(), Serial::new(1).unwrap(), days).unwrap();
    let terms = Terms {
        serial: grant.serial,
        validity: grant.validity,
        cluster,
        client: scene.ticket.order().name.clone(),
        gateway: GatewayName::new("vpn.example.org").unwrap(),
        profile: scene.ticket.order().profile,
    };
    let (request_key, reply_key) = (scene.ticket.request_key().unwrap(), scene.ticket.reply_key().unwrap());
    let checked_and_issued = per_round(1000, || {
        let request = Request::decode(request_key, message.symbols()).unwrap();
        ca.reply(reply_key, &grant, &request.key.unwrap(), &terms, &[], b"profile").unwrap();
    });
    let foreign = Scene::new(2, Role::Client, Approval::Auto);
    let mut forged = message.symbols().to_vec();
    forged[20..].copy_from_slice(&foreign.request_of(&foreign.client).0.symbols()[20..]);
    let refused = per_round(20_000, || assert!(Request::decode(request_key, &forged).is_err()));
    println!("check and issue {checked_and_issued:?}, refuse a foreign request {refused:?}");
    assert!(checked_and_issued < Duration::from_millis(5), "{checked_and_issued:?}");
    assert!(refused < Duration::from_micros(500), "{refused:?}");
}
