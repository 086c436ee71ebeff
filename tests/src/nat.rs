//! A NAT in front of a client: it forwards the IKE ports to the gateway from mappings of its own, and can forget these.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::namespace::Namespace;

/// A running NAT. Clients take its address for the gateway's; the gateway sees the NAT's address and ports.
pub struct Nat {
    mappings: Arc<Mapped>,
    threads: Vec<JoinHandle<()>>,
}

struct Mapped {
    namespace: Namespace,
    gateway: Ipv4Addr,
    stop: AtomicBool,
    /// By port of the gateway and client.
    mappings: Mutex<HashMap<(u16, SocketAddr), Mapping>>,
    made: AtomicU64,
}

#[derive(Clone)]
struct Mapping {
    socket: Arc<UdpSocket>,
    live: Arc<AtomicBool>,
}

impl Nat {
    /// Starts it in `namespace`, for clients that send to ports 500 and 4500 of `address`.
    ///
    /// # Errors
    /// The address is not there, or the ports are taken.
    pub fn start(namespace: &Namespace, address: Ipv4Addr, gateway: Ipv4Addr) -> Result<Self> {
        let mappings = Arc::new(Mapped {
            namespace: namespace.clone(),
            gateway,
            stop: AtomicBool::new(false),
            mappings: Mutex::default(),
            made: AtomicU64::new(0),
        });
        let mut threads = Vec::new();
        for port in [500, 4500] {
            let inner = namespace
                .within(|| UdpSocket::bind((address, port)).with_context(|| format!("listen at {address}:{port}")))?;
            inner.set_read_timeout(Some(WAIT))?;
            let mapped = Arc::clone(&mappings);
            threads.push(thread::spawn(move || mapped.forward(port, &Arc::new(inner))));
        }
        Ok(Self { mappings, threads })
    }

    /// Forgets all mappings, as a NAT does that starts anew: the next packets come from other ports.
    pub fn forget(&self) {
        for (_, mapping) in self.mappings.lock().drain() {
            mapping.live.store(false, Ordering::Relaxed);
        }
    }

    /// How many mappings were made so far.
    #[must_use]
    pub fn mappings_made(&self) -> u64 {
        self.mappings.made.load(Ordering::Relaxed)
    }
}

impl Drop for Nat {
    fn drop(&mut self) {
        self.mappings.stop.store(true, Ordering::Relaxed);
        self.forget();
        for thread in self.threads.drain(..) {
            thread.join().ok();
        }
    }
}

impl Mapped {
    fn lock(&self) -> MutexGuard<'_, HashMap<(u16, SocketAddr), Mapping>> {
        self.mappings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Carries what clients send to the gateway.
    fn forward(&self, port: u16, inner: &Arc<UdpSocket>) {
        let mut buffer = vec![0; 65_536];
        while !self.stop.load(Ordering::Relaxed) {
            let Ok((length, client)) = inner.recv_from(&mut buffer) else { continue };
            let known = self.lock().get(&(port, client)).cloned();
            let mapping = match known {
                Some(mapping) => Some(mapping),
                None => self.map(port, client, inner),
            };
            if let Some(mapping) = mapping {
                // What cannot be sent is lost, as behind any NAT.
                mapping.socket.send(buffer.get(..length).unwrap_or_default()).ok();
            }
        }
    }

    fn map(&self, port: u16, client: SocketAddr, inner: &Arc<UdpSocket>) -> Option<Mapping> {
        let gateway = self.gateway;
        let socket = self.namespace.within(|| {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            socket.connect((gateway, port))?;
            socket.set_read_timeout(Some(WAIT))?;
            Ok(socket)
        });
        let mapping = Mapping { socket: Arc::new(socket.ok()?), live: Arc::new(AtomicBool::new(true)) };
        self.lock().insert((port, client), mapping.clone());
        self.made.fetch_add(1, Ordering::Relaxed);
        let (back, inner) = (mapping.clone(), Arc::clone(inner));
        thread::spawn(move || back.answer(&inner, client));
        Some(mapping)
    }
}

impl Mapping {
    /// Carries what the gateway sends to the client, as long as the mapping lives.
    fn answer(&self, inner: &UdpSocket, client: SocketAddr) {
        let mut buffer = vec![0; 65_536];
        while self.live.load(Ordering::Relaxed) {
            match self.socket.recv(&mut buffer) {
                Ok(length) => {
                    inner.send_to(buffer.get(..length).unwrap_or_default(), client).ok();
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                // The gateway is not there just now.
                Err(_) => thread::sleep(Duration::from_millis(1)),
            }
        }
    }
}

const WAIT: Duration = Duration::from_millis(20);
