//! The QUIC sockets, one in each network, tuned for the round trip that every commit waits for.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use aws_lc_rs::hkdf;
use quinn::congestion::CubicConfig;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    AckFrequencyConfig, ConnectionId, ConnectionIdGenerator, EndpointConfig, IdleTimeout, TransportConfig, VarInt,
};

use super::super::identity::Identity;
use super::{IDLE_MAX, PING_EVERY};

/// What a cluster network takes at once before anything was measured: its round trip is below a millisecond.
const INITIAL_WINDOW: u64 = 256 << 10;
/// Round trip before the first measurement; it sets the first retransmission.
const INITIAL_RTT: Duration = Duration::from_millis(10);
/// Octets in flight to one neighbour at most; a bulk snapshot fills this.
const IN_FLIGHT_MAX: u32 = 4 << 20;
/// Receive buffer asked for from the kernel, so that such a burst is not dropped.
const SOCKET_BUFFER: usize = 4 << 20;

/// Opens one endpoint in each network.
pub(super) fn open(networks: &[SocketAddr], identity: &Identity) -> anyhow::Result<Vec<quinn::Endpoint>> {
    let mut server = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(identity.server()?)?));
    let mut client = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(identity.client()?)?));
    let transport = Arc::new(transport()?);
    server.transport_config(Arc::clone(&transport));
    // A node's address never changes within a session; what claims so is not from the neighbour's host.
    server.migration(false);
    client.transport_config(transport);
    let stable = stable_key(identity.stable_secret())?;
    networks
        .iter()
        .map(|address| {
            let socket = socket(*address).with_context(|| format!("open the cluster link on UDP {address}"))?;
            let runtime = Arc::new(quinn::TokioRuntime);
            let mut endpoint = quinn::Endpoint::new(stable.clone(), Some(server.clone()), socket, runtime)
                .with_context(|| format!("start the cluster link on UDP {address}"))?;
            endpoint.set_default_client_config(client.clone());
            Ok(endpoint)
        })
        .collect()
}

fn transport() -> anyhow::Result<TransportConfig> {
    let mut cubic = CubicConfig::default();
    cubic.initial_window(INITIAL_WINDOW);
    let mut ack = AckFrequencyConfig::default();
    ack.ack_eliciting_threshold(VarInt::from_u32(0)).max_ack_delay(Some(Duration::from_millis(1)));
    let mut transport = TransportConfig::default();
    transport
        .max_idle_timeout(Some(IdleTimeout::try_from(IDLE_MAX)?))
        .keep_alive_interval(Some(PING_EVERY))
        .initial_rtt(INITIAL_RTT)
        .congestion_controller_factory(Arc::new(cubic))
        .ack_frequency_config(Some(ack))
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(IN_FLIGHT_MAX))
        .receive_window(VarInt::from_u32(IN_FLIGHT_MAX))
        .send_window(u64::from(IN_FLIGHT_MAX))
        .datagram_receive_buffer_size(None);
    Ok(transport)
}

/// A key that outlives a restart, so that the restarted node can tell its neighbours at once that their sessions are
/// void (RFC 9000 §10.3).
fn stable_key(secret: &[u8]) -> anyhow::Result<EndpointConfig> {
    struct Len(usize);
    impl hkdf::KeyType for Len {
        fn len(&self) -> usize {
            self.0
        }
    }
    let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, b"cryptocluster link").extract(secret);
    let mut reset = [0; 32];
    let unspecified = |_| anyhow::anyhow!("derive the keys of the cluster link");
    prk.expand(&[b"reset"], Len(reset.len())).and_then(|okm| okm.fill(&mut reset)).map_err(unspecified)?;
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &reset);
    let mut config = EndpointConfig::new(Arc::new(key));
    config.cid_generator(|| Box::new(RandomIds));
    Ok(config)
}

/// Connection ids that a restarted node cannot tell from its own: it answers an unknown one with a reset, where
/// quinn's own ids, which carry a checksum under a key of this process, would be dropped.
struct RandomIds;

impl ConnectionIdGenerator for RandomIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = [0; 8];
        getrandom::fill(&mut id).expect("the kernel gives random octets");
        ConnectionId::new(&id)
    }

    fn cid_len(&self) -> usize {
        8
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

fn socket(address: SocketAddr) -> std::io::Result<std::net::UdpSocket> {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    // Best effort: the kernel's limit may be lower.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}
