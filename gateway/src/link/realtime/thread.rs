//! What makes a thread real-time: the scheduling class, locked memory, and a wait that a message, a datagram or a
//! deadline ends.
#![expect(unsafe_code, reason = "scheduling class and memory locking have no safe interface")]

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::time::{ClockId, Timespec, clock_gettime};
use wire::Time;

/// Above the ordinary threads, below the kernel's own real-time work.
const PRIORITY: libc::c_int = 40;
/// How much of its stack the thread may use, and touches at once so that no page of it is missing later.
const STACK: usize = 256 << 10;

/// The boot-time clock, which the kernel's fence reads too.
#[must_use]
pub fn boot_time() -> Time {
    let now = clock_gettime(ClockId::Boottime);
    let (seconds, nanos) = (u64::try_from(now.tv_sec).unwrap_or(0), u64::try_from(now.tv_nsec).unwrap_or(0));
    Time { nanos: seconds * 1_000_000_000 + nanos }
}

/// How the thread runs; the log and the API show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheduling {
    /// SCHED_FIFO: no ordinary thread delays it.
    RealTime,
    /// As everybody else: the kernel did not permit more (CAP_SYS_NICE). Under load a node may be voted out wrongly.
    Ordinary,
}

impl fmt::Display for Scheduling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RealTime => "SCHED_FIFO",
            Self::Ordinary => "ordinary scheduling: CAP_SYS_NICE is missing",
        })
    }
}

/// Makes the calling thread real-time, as far as the kernel permits.
pub(super) fn become_real_time() -> Scheduling {
    lock_stack();
    let parameters = libc::sched_param { sched_priority: PRIORITY };
    // SAFETY: 0 names the calling thread; `parameters` lives through the call.
    let result =
        unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, &raw const parameters) };
    if result == 0 { Scheduling::RealTime } else { Scheduling::Ordinary }
}

/// Touches and locks the stack below here, so that the thread never waits for a page of it. Best effort.
#[inline(never)]
fn lock_stack() {
    let mut stack = [0_u8; STACK];
    for place in (0..STACK).step_by(4096) {
        // SAFETY: `place` lies within the array; a volatile write is not optimised away.
        unsafe { stack.as_mut_ptr().add(place).write_volatile(0) };
    }
    // SAFETY: the range is this function's own array; locking changes no contents, and the thread keeps its stack to its end.
    let _ = unsafe { libc::mlock(stack.as_ptr().cast(), STACK) };
}

/// The sending end of a queue into the real-time thread. Sending never blocks.
#[derive(Debug)]
pub(super) struct Outside<T> {
    queue: mpsc::Sender<T>,
    bell: Arc<OwnedFd>,
}

impl<T> Clone for Outside<T> {
    fn clone(&self) -> Self {
        Self { queue: self.queue.clone(), bell: Arc::clone(&self.bell) }
    }
}

impl<T> Outside<T> {
    /// Queues a message and wakes the thread; nothing happens if the thread has ended.
    pub(super) fn send(&self, message: T) {
        if self.queue.send(message).is_ok() {
            // Fails only if the counter is full, and then the thread is about to wake anyway.
            let _ = rustix::io::write(&*self.bell, &1_u64.to_ne_bytes());
        }
    }
}

/// The receiving end.
#[derive(Debug)]
pub(super) struct Inside<T> {
    queue: mpsc::Receiver<T>,
    bell: Arc<OwnedFd>,
}

/// A queue whose arrival a poll sees.
pub(super) fn queue<T>() -> io::Result<(Outside<T>, Inside<T>)> {
    let bell = Arc::new(eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?);
    let (sender, receiver) = mpsc::channel();
    Ok((Outside { queue: sender, bell: Arc::clone(&bell) }, Inside { queue: receiver, bell }))
}

impl<T> Inside<T> {
    /// Takes the next message, if one waits.
    pub(super) fn take(&self) -> Option<T> {
        self.queue.try_recv().ok()
    }

    /// Waits until a message arrives, one of `others` is readable, or `span` has passed.
    pub(super) fn wait<'a>(&'a self, others: impl Iterator<Item = BorrowedFd<'a>>, span: Duration) {
        let mut fds: Vec<PollFd<'_>> = Vec::with_capacity(8);
        fds.push(PollFd::from_borrowed_fd(self.bell.as_fd(), PollFlags::IN));
        fds.extend(others.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        let timeout =
            Timespec { tv_sec: i64::try_from(span.as_secs()).unwrap_or(i64::MAX), tv_nsec: span.subsec_nanos().into() };
        // An interrupted wait is a short one.
        let _ = poll(&mut fds, Some(&timeout));
        // Reset before the queue is looked at: a bell that rings now is heard in the next wait.
        let _ = rustix::io::read(&*self.bell, &mut [0; 8]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_ends_the_wait() {
        let (outside, inside) = queue().unwrap();
        let sender = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            outside.send(7);
        });
        let start = boot_time();
        inside.wait(std::iter::empty(), Duration::from_secs(20));
        assert!(boot_time() - start < Duration::from_secs(10));
        assert_eq!(inside.take(), Some(7));
        sender.join().unwrap();
    }

    #[test]
    fn a_wait_ends_at_its_deadline() {
        let (_outside, inside) = queue::<()>().unwrap();
        let start = boot_time();
        inside.wait(std::iter::empty(), Duration::from_millis(5));
        assert!(boot_time() - start >= Duration::from_millis(5));
        assert_eq!(inside.take(), None);
    }
}
