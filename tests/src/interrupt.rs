//! Ctrl-C and its like: what was built is taken down before the process ends.
#![allow(unsafe_code)]

use std::io::Read as _;
use std::os::fd::{IntoRawFd as _, RawFd};
use std::sync::atomic::{AtomicI32, Ordering};
use std::thread;

/// Calls `clean_up` once SIGINT, SIGTERM or SIGHUP arrives, and then ends the process with 130.
///
/// # Panics
/// The process has no file descriptor left.
pub(crate) fn on_interrupt(clean_up: impl FnOnce() + Send + 'static) {
    let (mut reader, writer) = std::io::pipe().expect("make a pipe");
    WAKE.store(writer.into_raw_fd(), Ordering::SeqCst);
    thread::spawn(move || {
        let mut byte = [0];
        while reader.read_exact(&mut byte).is_err() {}
        eprintln!("\nlab: interrupted, taking everything down");
        clean_up();
        std::process::exit(130);
    });
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: the action is fully initialised (zero is an empty mask and no flags), and the handler only calls
        // write(2), which is async-signal-safe.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_signal as *const () as usize;
            libc::sigaction(signal, &raw const action, std::ptr::null_mut());
        }
    }
}

/// The end of the pipe that the handler writes to.
static WAKE: AtomicI32 = AtomicI32::new(-1);

extern "C" fn on_signal(_: libc::c_int) {
    let fd: RawFd = WAKE.load(Ordering::SeqCst);
    // SAFETY: one byte from a static buffer; the result does not matter, a full pipe has woken the reader already.
    unsafe {
        libc::write(fd, c"x".as_ptr().cast(), 1);
    }
}
