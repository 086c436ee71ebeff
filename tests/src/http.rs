//! A small web server inside, and its client: bytes that anybody can recompute, at a given pace.

use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use aws_lc_rs::digest;

use crate::namespace::Namespace;

/// A running server. `GET /BYTES/SECONDS` is answered with that many bytes, spread evenly over that time.
pub struct Server {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts a server at `address` in `namespace`.
    ///
    /// # Errors
    /// The address is taken or not there.
    pub fn start(namespace: &Namespace, address: SocketAddr) -> Result<Self> {
        let listener =
            namespace.within(|| TcpListener::bind(address).with_context(|| format!("listen for HTTP at {address}")))?;
        listener.set_nonblocking(true)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) => {
                        let stopped = Arc::clone(&stopped);
                        thread::spawn(move || {
                            if let Err(error) = serve(stream, &stopped) {
                                eprintln!("lab: the inside server: {error:#}");
                            }
                        });
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(ACCEPT_INTERVAL),
                    Err(error) => {
                        eprintln!("lab: the inside server: {error}");
                        return;
                    }
                }
            }
        });
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// A download in progress.
pub struct Download {
    progress: Arc<Progress>,
    thread: JoinHandle<Result<Outcome>>,
}

#[derive(Default)]
struct Progress {
    received: AtomicU64,
    gaps: Mutex<Vec<(Duration, Duration)>>,
}

/// What a finished download was like.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Bytes received.
    pub bytes: u64,
    /// SHA-256 of them, in hexadecimal.
    pub sha256: String,
    /// From the request to the last byte.
    pub took: Duration,
    /// The longest time in which nothing came.
    pub gap_max: Duration,
}

impl Download {
    /// Starts to download from a [`Server`], with the socket in `namespace` bound to `local`.
    ///
    /// # Errors
    /// The namespace is gone.
    pub fn start(
        namespace: &Namespace,
        local: std::net::IpAddr,
        server: SocketAddr,
        bytes: u64,
        over: Duration,
    ) -> Result<Self> {
        let progress = Arc::new(Progress::default());
        let told = Arc::clone(&progress);
        let thread = namespace.spawn("download", move || download(local, server, bytes, over, &told))?;
        Ok(Self { progress, thread })
    }

    /// Bytes received so far.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.progress.received.load(Ordering::Relaxed)
    }

    /// The longest time without a byte that ended after `since` (counted from the start of the download).
    #[must_use]
    pub fn gap_since(&self, since: Duration) -> Duration {
        let gaps = self.progress.gaps.lock().unwrap_or_else(PoisonError::into_inner);
        gaps.iter().filter(|(at, _)| *at >= since).map(|(_, gap)| *gap).max().unwrap_or_default()
    }

    /// Whether it has ended, well or not.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// The connection broke, or nothing came for [`STALL_MAX`].
    pub fn finish(self) -> Result<Outcome> {
        self.thread.join().map_err(|_| anyhow!("the download panicked"))?
    }
}

/// The SHA-256 of the first `bytes` bytes that a [`Server`] gives, in hexadecimal.
#[must_use]
pub fn expected_sha256(bytes: u64) -> String {
    let mut content = Content::default();
    let mut hash = digest::Context::new(&digest::SHA256);
    let mut left = bytes;
    let mut chunk = vec![0; 1 << 16];
    while left > 0 {
        let part = part_of(&mut chunk, left);
        content.fill(part);
        hash.update(part);
        left -= part.len() as u64;
    }
    hexadecimal(hash.finish().as_ref())
}

fn serve(mut stream: TcpStream, stopped: &AtomicBool) -> Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    let mut request = String::new();
    BufReader::new(stream.try_clone()?).read_line(&mut request)?;
    let path = request.split_whitespace().nth(1).unwrap_or_default();
    let Some((bytes, seconds)) = path.trim_start_matches('/').split_once('/') else {
        stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?;
        return Ok(());
    };
    let (bytes, over): (u64, f64) = (bytes.parse()?, seconds.parse()?);
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {bytes}\r\nConnection: close\r\n\r\n")?;
    let start = Instant::now();
    let mut content = Content::default();
    let mut chunk = vec![0; 1 << 16];
    let mut sent = 0;
    while sent < bytes && !stopped.load(Ordering::Relaxed) {
        let share = if over > 0.0 { (start.elapsed().as_secs_f64() / over).min(1.0) } else { 1.0 };
        let due = ((bytes as f64 * share) as u64).saturating_sub(sent);
        if due == 0 {
            thread::sleep(PACE_INTERVAL);
            continue;
        }
        let part = part_of(&mut chunk, due);
        content.fill(part);
        stream.write_all(part)?;
        sent += part.len() as u64;
        if over > 0.0 {
            thread::sleep(PACE_INTERVAL);
        }
    }
    Ok(())
}

fn download(
    local: std::net::IpAddr,
    server: SocketAddr,
    bytes: u64,
    over: Duration,
    progress: &Progress,
) -> Result<Outcome> {
    let socket = socket2::Socket::new(
        socket2::Domain::for_address(server),
        socket2::Type::STREAM,
        Some(socket2::Protocol::TCP),
    )?;
    socket.bind(&SocketAddr::new(local, 0).into()).with_context(|| format!("bind to {local}"))?;
    socket
        .connect_timeout(&server.into(), STALL_MAX)
        .with_context(|| format!("connect from {local} to http://{server}"))?;
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(STALL_MAX))?;
    let start = Instant::now();
    write!(stream, "GET /{bytes}/{} HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n", over.as_secs_f64())?;
    let mut reader = BufReader::with_capacity(1 << 16, stream);
    let length = read_head(&mut reader)?;
    ensure!(length == bytes, "the server offers {length} bytes, not {bytes}");
    let mut hash = digest::Context::new(&digest::SHA256);
    let mut chunk = vec![0; 1 << 16];
    let mut received = 0;
    let mut last = start;
    loop {
        let n = reader.read(&mut chunk).with_context(|| format!("after {received} of {bytes} bytes"))?;
        if n == 0 {
            break;
        }
        let now = Instant::now();
        let gap = now - last;
        last = now;
        if gap >= GAP_MIN {
            let mut gaps = progress.gaps.lock().unwrap_or_else(PoisonError::into_inner);
            gaps.push((now - start, gap));
        }
        hash.update(chunk.get(..n).unwrap_or_default());
        received += n as u64;
        progress.received.store(received, Ordering::Relaxed);
    }
    ensure!(received == bytes, "the connection ended after {received} of {bytes} bytes");
    let gaps = progress.gaps.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(Outcome {
        bytes: received,
        sha256: hexadecimal(hash.finish().as_ref()),
        took: start.elapsed(),
        gap_max: gaps.iter().map(|(_, gap)| *gap).max().unwrap_or_default(),
    })
}

fn read_head(reader: &mut impl std::io::BufRead) -> Result<u64> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    if !line.starts_with("HTTP/1.1 200 ") {
        bail!("the server answers {}", line.trim());
    }
    let mut length = None;
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        if line.trim().is_empty() {
            return length.context("the server names no length");
        }
        if let Some(value) = line.strip_prefix("Content-Length:") {
            length = Some(value.trim().parse()?);
        }
    }
}

/// The bytes that every server gives: a fixed pseudo-random stream (SplitMix64), so that a block that is missing,
/// doubled or moved changes the hash.
#[derive(Default)]
struct Content {
    state: u64,
    rest: Vec<u8>,
}

impl Content {
    fn fill(&mut self, buffer: &mut [u8]) {
        for byte in buffer {
            if self.rest.is_empty() {
                self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mut z = self.state;
                z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                self.rest.extend((z ^ (z >> 31)).to_le_bytes());
            }
            *byte = self.rest.pop().unwrap_or_default();
        }
    }
}

fn part_of(chunk: &mut [u8], most: u64) -> &mut [u8] {
    let length = chunk.len().min(usize::try_from(most).unwrap_or(usize::MAX));
    &mut chunk[..length]
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A client gives up after this long without a byte: longer than any failover may take, shorter than TCP's patience.
pub const STALL_MAX: Duration = Duration::from_secs(20);
const PACE_INTERVAL: Duration = Duration::from_millis(5);
const ACCEPT_INTERVAL: Duration = Duration::from_millis(5);
/// Shorter silences are the server's own pace.
const GAP_MIN: Duration = Duration::from_millis(15);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_content_does_not_depend_on_how_it_is_cut() {
        let mut whole = [0; 100];
        Content::default().fill(&mut whole);
        let mut parts = [0; 100];
        let mut content = Content::default();
        for part in parts.chunks_mut(7) {
            content.fill(part);
        }
        assert_eq!(whole, parts);
    }

    #[test]
    fn the_expected_hash_tells_lengths_apart() {
        assert_eq!(expected_sha256(100_000), expected_sha256(100_000));
        assert_ne!(expected_sha256(100_000), expected_sha256(100_001));
    }
}
