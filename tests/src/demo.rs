//! What `./demo` shows: three nodes, one address, a client that nobody here wrote, and failures under load.

mod live;
mod once;

pub use live::{RESTART_AFTER, live};
pub use once::once;
