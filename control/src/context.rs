//! Who does something, and when.

use std::time::{SystemTime, UNIX_EPOCH};

use enroll::UnixTime;

/// Who does something, and when: every operation takes one and writes it into the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Context {
    /// The moment.
    pub now: UnixTime,
    /// The person or program, as the journal names it.
    pub actor: String,
}

impl Context {
    /// This moment by the machine's clock.
    #[must_use]
    pub fn now(actor: &str) -> Self {
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        Self { now: UnixTime { seconds }, actor: actor.to_owned() }
    }
}
