//! What a worker is told, looked at once per batch.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::Context;
use ike::Path;
use rustix::event::{EventfdFlags, eventfd};
use wire::{Spi, WorkSet};

use super::moving::Processed;
use super::table::{Inbound, Outbound};

/// Packets that may wait for a worker in its mailbox.
const PACKETS_MAX: usize = 1024;

/// What a worker is told.
pub(super) enum Command {
    /// Put a pair in; the inbound half only to the worker that its SPI is pinned to.
    Install { outbound: Box<Outbound>, inbound: Option<Box<Inbound>> },
    /// Take a pair out.
    Remove(Spi),
    /// The peer of a pair is elsewhere now.
    Path(Spi, Path),
    /// The lease of a pair is longer: send what waited.
    LeaseExtended(Spi),
    /// An ESP packet that came by another worker or another node.
    Outer { path: Path, tos: u8, datagram: Box<[u8]>, origin: Origin },
    /// An inner packet that came by another node, behind an empty offload header.
    Inner(Box<[u8]>),
    /// Note digests of what is processed of the set.
    Watch(WorkSet),
    /// Queue packets of the set.
    Hold(WorkSet),
    /// Say that all before this is done.
    Answer(Sender<()>),
    /// Stop the set, and say where it stands.
    Stop(WorkSet, Sender<Stopped>),
    /// Go on with the set, without what the old owner has processed.
    Start(WorkSet, Processed),
    /// Take all pairs of the set out.
    Forget(WorkSet),
    /// End.
    Shutdown,
}

/// By whom a packet was handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// Another worker of this node.
    Worker,
    /// Another node; it is not handed on again.
    Node,
}

/// What one worker knows of a set that it has stopped.
#[derive(Debug, Default)]
pub(super) struct Stopped {
    /// The replay windows of the pairs pinned to it.
    pub(super) windows: Vec<(Spi, Box<[u8]>)>,
    /// Digests of the plain packets that it processed.
    pub(super) digests: Vec<u64>,
}

#[derive(Default)]
struct Queue {
    commands: Vec<Command>,
    /// How many of them are packets.
    packets: usize,
}

/// A worker's mailbox.
pub(super) struct Mailbox {
    queue: Mutex<Queue>,
    pending: AtomicBool,
    bell: OwnedFd,
}

impl Mailbox {
    pub(super) fn new() -> anyhow::Result<Self> {
        let bell = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).context("make an event descriptor")?;
        Ok(Self { queue: Mutex::default(), pending: AtomicBool::new(false), bell })
    }

    /// Tells the worker something, and wakes it.
    pub(super) fn put(&self, command: Command) {
        self.queue().commands.push(command);
        self.ring();
    }

    /// Puts a packet in, unless too many wait already.
    pub(super) fn put_packet(&self, command: Command) -> bool {
        let mut queue = self.queue();
        if queue.packets >= PACKETS_MAX {
            return false;
        }
        queue.packets += 1;
        queue.commands.push(command);
        drop(queue);
        self.ring();
        true
    }

    /// Takes everything out, in order; costs one load if there is nothing.
    pub(super) fn take(&self) -> Vec<Command> {
        if !self.pending.load(Ordering::Acquire) {
            return Vec::new();
        }
        let _ = rustix::io::read(&self.bell, &mut [0; 8]);
        self.pending.store(false, Ordering::Release);
        std::mem::take(&mut *self.queue()).commands
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ring(&self) {
        if !self.pending.swap(true, Ordering::AcqRel) {
            // The counter cannot overflow: it is read before the next ring.
            let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
        }
    }
}

impl AsFd for Mailbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_bounded_whoever_puts_them_in_and_taking_makes_room() {
        let mailbox = Mailbox::new().unwrap();
        let flood = || (0..50_000).filter(|_| mailbox.put_packet(Command::Inner(Box::default()))).count();
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(flood)).collect();
            while !threads.iter().all(|thread| thread.is_finished()) {
                assert!(mailbox.take().len() <= PACKETS_MAX);
            }
        });
        assert!(mailbox.take().len() <= PACKETS_MAX);
        for _ in 0..PACKETS_MAX {
            assert!(mailbox.put_packet(Command::Inner(Box::default())));
        }
        assert!(!mailbox.put_packet(Command::Inner(Box::default())));
        mailbox.put(Command::Shutdown);
        assert_eq!(mailbox.take().len(), PACKETS_MAX + 1);
        assert!(mailbox.put_packet(Command::Inner(Box::default())));
    }
}
