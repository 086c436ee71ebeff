//! Every wait and bound of the protocol, by name.

use std::time::Duration;

/// The waits and bounds of the protocol. The defaults are the product's; a test plants a bug by setting one to zero.
///
/// Safety rests on [`lease`](Self::lease), [`silence`](Self::silence) and [`view_stands`](Self::view_stands), which
/// all members must share: the configuration's hash covers them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// How long a member may send after it sent a keepalive that a quorum has echoed (L).
    pub lease: Duration,
    /// How long nothing of a member was accepted before somebody votes for a view without it: L + 2 ms.
    pub silence: Duration,
    /// How long a view stands before another removes a full member: L + 2 ms.
    pub view_stands: Duration,
    /// The fewest keepalives sent within one lease.
    pub keepalives_min: u8,
    /// The most keepalives sent within one lease, however lossy the networks are.
    pub keepalives_max: u8,
    /// One false alarm in this time is allowed, per member.
    pub false_alarm: Duration,
    /// How long the number of keepalives stays up after the last loss that demanded it.
    pub keepalives_hold: Duration,
    /// After this an unanswered protocol step is sent again.
    pub resend: Duration,
    /// How often a node without a view asks to join.
    pub join_interval: Duration,
    /// How long an offer to found the cluster stands open for objection.
    pub offer: Duration,
    /// How long a node that starts without a view waits for those that it knows.
    pub founding_wait: Duration,
    /// How long a grant or a founded view without a lease binds.
    pub grant: Duration,
    /// How long the smaller part of a split waits before it may go on alone; its members one after the other.
    pub lone_wait: Duration,
    /// How long it is remembered that a node may have worked on its own: longer than any security association lives.
    pub apart: Duration,
    /// How long a silent learner stays in the view.
    pub learner_silence: Duration,
    /// How often the master looks whether the work is spread evenly.
    pub balance_interval: Duration,
    /// How many work sets are on the move at a time.
    pub moves_max: usize,
    /// How far apart two nodes may take one frame in; a planned move overlaps by as much: see [`SKEW`].
    pub skew: Duration,
    /// How often the master tells nodes outside its view that it is there.
    pub announce_interval: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        let lease = Duration::from_millis(40);
        let margin = Duration::from_millis(2);
        Self {
            lease,
            silence: lease.saturating_add(margin),
            view_stands: lease.saturating_add(margin),
            keepalives_min: 8,
            keepalives_max: 40,
            false_alarm: Duration::from_secs(30 * 24 * 3600),
            keepalives_hold: Duration::from_secs(10),
            resend: Duration::from_millis(4),
            join_interval: Duration::from_millis(20),
            offer: Duration::from_millis(100),
            founding_wait: Duration::from_secs(3),
            grant: Duration::from_secs(1),
            lone_wait: Duration::from_secs(2),
            apart: Duration::from_secs(48 * 3600),
            learner_silence: Duration::from_millis(500),
            balance_interval: Duration::from_millis(200),
            moves_max: 64,
            skew: SKEW,
            announce_interval: Duration::from_millis(200),
        }
    }
}

/// How far apart in time two nodes may take the same frame in: interrupts, queues and processors of theirs differ. In a
/// planned move the old owner keeps digests for so long before the new one queues, and works on for so long after that, so
/// that no frame is too early for the one and too late for the other.
pub const SKEW: Duration = Duration::from_millis(5);

/// What the smaller part of a split does once nobody else holds the cluster's addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoneSurvivor {
    /// It goes on, unproven.
    Serve,
    /// It waits for the others.
    Wait,
}
