//! What `./demo` shows: three nodes, one address, a client that nobody here wrote, and failures under load.

mod enroll;
mod live;
mod once;

pub use enroll::enroll;
pub use live::{RESTART_AFTER, live};
pub use once::once;
