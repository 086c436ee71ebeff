//! One session with one neighbour: frames, and the queue in front of the stream.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use quinn::{Connection, ReadExactError, RecvStream, SendStream};
use rustls_pki_types::CertificateDer;
use tokio::sync::mpsc;
use wire::Record;

use super::super::hello::{Hello, Refusal, Refused};
use super::{MESSAGE_MAX, SessionStatus};

/// Octets of a [`Hello`] at most: what an unproven neighbour may make us hold.
const HELLO_MAX: usize = 4096;
/// Octets of the length in front of each frame.
const PREFIX: usize = 4;

/// What all who hold the session share.
#[derive(Clone, Debug)]
pub(super) struct Session {
    pub(super) id: u64,
    /// What the neighbour drew at its start.
    pub(super) start: u64,
    /// Whether the side with the lower name dialled.
    pub(super) by_lower: bool,
    pub(super) connection: Connection,
    outbox: mpsc::UnboundedSender<Vec<u8>>,
    queued: Arc<AtomicUsize>,
    /// When it began.
    pub(super) since: Instant,
}

impl Session {
    pub(super) fn new(
        id: u64,
        start: u64,
        by_lower: bool,
        connection: Connection,
    ) -> (Self, mpsc::UnboundedReceiver<Vec<u8>>) {
        let (outbox, frames) = mpsc::unbounded_channel();
        (Self { id, start, by_lower, connection, outbox, queued: Arc::default(), since: Instant::now() }, frames)
    }

    /// Queues a message; returns how many octets wait now.
    pub(super) fn send(&self, message: &[u8]) -> usize {
        let mut frame = Vec::with_capacity(PREFIX + message.len());
        // `MESSAGE_MAX` fits in 32 bits.
        frame.extend_from_slice(&u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
        frame.extend_from_slice(message);
        let len = frame.len();
        if self.outbox.send(frame).is_err() {
            return 0; // The session is about to end.
        }
        self.queued.fetch_add(len, Ordering::Relaxed) + len
    }

    pub(super) fn queued(&self) -> usize {
        self.queued.load(Ordering::Relaxed)
    }

    /// Datagrams received so far.
    pub(super) fn received(&self) -> u64 {
        self.connection.stats().udp_rx.datagrams
    }

    pub(super) fn status(&self) -> SessionStatus {
        let address: SocketAddr = self.connection.remote_address();
        SessionStatus { address, queued: self.queued(), round_trip: self.connection.rtt() }
    }

    /// Writes what is queued until the session ends.
    pub(super) async fn write(self, mut stream: SendStream, mut frames: mpsc::UnboundedReceiver<Vec<u8>>) {
        // A keepalive and an answer go before a snapshot only if the core orders them so: one stream, one order.
        loop {
            let frame = tokio::select! {
                frame = frames.recv() => frame,
                _ = self.connection.closed() => return,
            };
            let Some(frame) = frame else { return };
            if stream.write_all(&frame).await.is_err() {
                return; // The reader sees why.
            }
            self.queued.fetch_sub(frame.len(), Ordering::Relaxed);
        }
    }
}

/// Writes one frame and does not wait for it to arrive.
pub(super) async fn write_frame(stream: &mut SendStream, bytes: &[u8]) -> Result<(), Refused> {
    let broken = |_| Refused::ours(Refusal::Silent, "the session ended in its first message".into());
    let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes();
    stream.write_all(&len).await.map_err(broken)?;
    stream.write_all(bytes).await.map_err(broken)
}

/// Reads the first frame.
pub(super) async fn read_hello(connection: &Connection, stream: &mut RecvStream) -> Result<Hello, Refused> {
    let bytes = read_bounded(connection, stream, HELLO_MAX).await?;
    let hello =
        Hello::from_bytes(&bytes).map_err(|error| Refused::ours(Refusal::Protocol, format!("its hello: {error}")));
    hello.inspect_err(|refused| refused.close(connection))
}

/// Reads one frame.
pub(super) async fn read_frame(connection: &Connection, stream: &mut RecvStream) -> Result<Vec<u8>, Refused> {
    read_bounded(connection, stream, MESSAGE_MAX).await
}

async fn read_bounded(connection: &Connection, stream: &mut RecvStream, max: usize) -> Result<Vec<u8>, Refused> {
    let mut prefix = [0; PREFIX];
    stream.read_exact(&mut prefix).await.map_err(|error| ended(connection, &error))?;
    let len = usize::try_from(u32::from_be_bytes(prefix)).unwrap_or(usize::MAX);
    if len > max {
        let refused = Refused::ours(Refusal::Protocol, format!("a message of {len} octets, {max} are allowed"));
        refused.close(connection);
        return Err(refused);
    }
    let mut bytes = vec![0; len];
    stream.read_exact(&mut bytes).await.map_err(|error| ended(connection, &error))?;
    Ok(bytes)
}

fn ended(connection: &Connection, error: &ReadExactError) -> Refused {
    match connection.close_reason() {
        Some(reason) => Refused::from_connection(&reason),
        None => Refused::ours(Refusal::Protocol, format!("its stream: {error}")),
    }
}

/// The certificates that the other side showed.
pub(super) fn certificates(connection: &Connection) -> Vec<CertificateDer<'static>> {
    let identity = connection.peer_identity();
    identity.and_then(|identity| identity.downcast().ok()).map(|chain| *chain).unwrap_or_default()
}
