//! Packets in the clear, from outside, in the name of a client or of a protected host: nothing enters that did not come
//! through a tunnel.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use lab::Namespace;
use lab::cluster::{Cluster, OUTSIDE_ADDRESS, POOL, PROTECTED, SERVER};
use lab::run;

const PORT: u16 = 4321;
const LIMIT: Duration = Duration::from_secs(5);

fn listen(namespace: &Namespace, address: IpAddr) -> UdpSocket {
    let socket = namespace.within(|| Ok(UdpSocket::bind((address, PORT))?)).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket
}

/// Sends `text` from `source`, which need not be an address of the namespace's own.
fn say(namespace: &Namespace, source: IpAddr, to: SocketAddr, text: &[u8]) {
    namespace
        .within(|| {
            UdpSocket::bind((source, 0))?.send_to(text, to)?;
            Ok(())
        })
        .unwrap();
}

/// All that `socket` hears until it hears the honest word, which `repeat` says over and over.
fn heard(socket: &UdpSocket, repeat: impl Fn()) -> Vec<Vec<u8>> {
    let mut heard = Vec::new();
    run::wait_for("the honest word", LIMIT, || {
        repeat();
        let mut buffer = [0; 64];
        while let Ok(len) = socket.recv(&mut buffer) {
            heard.push(buffer[..len].to_vec());
        }
        heard.iter().any(|word| word == b"honest").then_some(())
    })
    .unwrap();
    heard.retain(|word| word != b"honest");
    heard
}

#[test]
fn nobody_outside_speaks_in_the_name_of_a_client_or_of_a_protected_host() {
    for size in [1, 3] {
        let mut nodes = Cluster::build(size).unwrap();
        nodes.start().unwrap();
        let client = nodes.client(1).unwrap();
        let inner = client.charon.connect().unwrap();
        let server = IpAddr::from(SERVER);
        let attacker = nodes.outside_host("attacker", 250).unwrap();
        // Any host of the protected network.
        let protected = IpAddr::from(Ipv4Addr::from(u32::from(SERVER) + 1));
        attacker
            .ip(&[
                format!("addr add {protected}/32 dev lo"),
                "link set lo up".to_owned(),
                format!("route replace {PROTECTED} via {OUTSIDE_ADDRESS}"),
                format!("route replace {POOL} via {OUTSIDE_ADDRESS}"),
            ])
            .unwrap();
        let at_client = listen(&client.namespace, inner);
        let at_server = listen(&nodes.server, server);
        for _ in 0..20 {
            say(&attacker, protected, (inner, PORT).into(), b"spoofed");
        }
        let said = heard(&at_client, || say(&nodes.server, server, (inner, PORT).into(), b"honest"));
        assert!(said.is_empty(), "{size} nodes let {} packets into the tunnel", said.len());
        attacker.ip(&[format!("addr add {inner}/32 dev lo")]).unwrap();
        for _ in 0..20 {
            say(&attacker, inner, (server, PORT).into(), b"spoofed");
        }
        let said = heard(&at_server, || say(&client.namespace, inner, (server, PORT).into(), b"honest"));
        assert!(said.is_empty(), "{size} nodes let {} packets in from outside", said.len());
    }
}
