//! Membership: who is in, who may send, who owns what.
//!
//! [`Membership`] is driven by one real-time thread: every datagram that [`seal`](crate::seal) has opened goes into
//! [`Membership::handle_datagram`], the clock into [`Membership::handle_timeout`]; after either, the driver takes all
//! [`Output`]s and all datagrams, then sleeps until [`Membership::poll_timeout`].

mod absence;
mod api;
mod candidate;
mod change;
mod healing;
mod join;
mod keepalive;
mod moves;
mod seat;
mod sync;
mod vote;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use wire::{Epoch, Slot, Time, WorkSet, Writer};

pub use api::{Act, Config, Destination, Event, How, LeaveReason, Link, Output, Peer, Probe, Refusal};

use crate::datagram::{DATAGRAM_MAX, Datagram, Keepalive};
use crate::identity::{Addresses, Identity, Network, StartId};
use crate::slots::SlotMap;
use crate::table::Table;
use crate::view::View;
use candidate::Candidate;
use seat::Seat;

/// A timer that fires this late tells that the program or the machine was stopped: nobody is judged silent by a clock
/// that ran on while nothing could be received.
const PAUSE: Duration = Duration::from_millis(10);
/// Rare datagrams that wait for the driver; a driver that takes none loses the oldest.
const MAIL_MAX: usize = 1024;

#[derive(Debug)]
enum State {
    /// Without a view.
    Candidate(Box<Candidate>),
    /// A member of a view.
    Seated(Box<Seat>),
}

/// What a node keeps whether or not it is a member.
#[derive(Debug)]
struct Base {
    config: Config,
    rng: StdRng,
    outputs: VecDeque<Output>,
    mail: VecDeque<(Destination, Vec<u8>)>,
    /// Networks over which a keepalive is due, by slot.
    due: SlotMap<u8>,
    lease_until: Time,
    lease_told: Time,
    link: Link,
}

/// The membership core of one node.
#[derive(Debug)]
pub struct Membership {
    base: Base,
    state: State,
}

impl Base {
    fn event(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }

    /// Queues a rare datagram for all of a node's addresses.
    fn mail(&mut self, to: &Addresses, datagram: &Datagram) {
        let mut w = Writer::new();
        datagram.encode(&mut w);
        debug_assert!(w.len() <= DATAGRAM_MAX, "a datagram of {} octets", w.len());
        for (network, address) in Network::all().zip(to) {
            if let (Some(to), true) = (*address, self.has(network)) {
                self.post(Destination { network, to }, w.as_slice().to_vec());
            }
        }
    }

    /// Queues a rare datagram for where another came from.
    fn reply(&mut self, back: Destination, datagram: &Datagram) {
        let mut w = Writer::new();
        datagram.encode(&mut w);
        self.post(back, w.into_bytes());
    }

    fn post(&mut self, to: Destination, datagram: Vec<u8>) {
        if self.mail.len() >= MAIL_MAX {
            self.mail.pop_front();
        }
        self.mail.push_back((to, datagram));
    }

    fn has(&self, network: Network) -> bool {
        address_on(&self.config.identity.addresses, network).is_some()
    }
}

impl Membership {
    /// Starts without a view.
    #[must_use]
    pub fn new(now: Time, config: Config) -> Self {
        let rng = StdRng::from_seed(config.seed);
        let candidate = Candidate::new(now);
        let base = Base {
            config,
            rng,
            outputs: VecDeque::new(),
            mail: VecDeque::new(),
            due: SlotMap::default(),
            lease_until: Time::ZERO,
            lease_told: Time::ZERO,
            link: Link::Up,
        };
        Self { base, state: State::Candidate(Box::new(candidate)) }
    }

    /// Takes a datagram that the seal has proven to come from `sender`. What cannot be read is dropped.
    pub fn handle_datagram(&mut self, now: Time, network: Network, from: SocketAddr, sender: StartId, datagram: &[u8]) {
        if sender == self.base.config.identity.start {
            return;
        }
        if let Some(counter) = Keepalive::peek(datagram) {
            let State::Seated(seat) = &mut self.state else { return };
            if seat.is_repeat(sender, counter) {
                return;
            }
        }
        let Ok(datagram) = Datagram::decode(datagram) else { return };
        let back = Destination { network, to: from };
        let next = match &mut self.state {
            State::Candidate(candidate) => candidate.handle_datagram(&mut self.base, now, back, sender, datagram),
            State::Seated(seat) => seat.handle_datagram(&mut self.base, now, back, sender, datagram),
        };
        self.enter(now, next);
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Time) {
        let next = match &mut self.state {
            State::Candidate(candidate) => candidate.handle_timeout(&mut self.base, now),
            State::Seated(seat) => seat.handle_timeout(&mut self.base, now),
        };
        self.enter(now, next);
    }

    /// When [`handle_timeout`](Self::handle_timeout) must be called next.
    #[must_use]
    pub fn poll_timeout(&self) -> Time {
        match &self.state {
            State::Candidate(candidate) => candidate.poll_timeout(),
            State::Seated(seat) => seat.poll_timeout(&self.base),
        }
    }

    /// Writes the next datagram to send into `buffer` (what it held is dropped) and says where it goes. It must leave at
    /// once: what it says is true now.
    pub fn poll_transmit(&mut self, buffer: &mut Vec<u8>) -> Option<Destination> {
        if let Some((to, datagram)) = self.base.mail.pop_front() {
            buffer.clear();
            buffer.extend_from_slice(&datagram);
            return Some(to);
        }
        match &mut self.state {
            State::Candidate(_) => None,
            State::Seated(seat) => seat.poll_keepalive(&mut self.base, buffer),
        }
    }

    /// Takes the next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        if self.base.lease_told < self.base.lease_until {
            self.base.lease_told = self.base.lease_until;
            return Some(Output::Lease(self.base.lease_until));
        }
        self.base.outputs.pop_front()
    }

    /// The applications' answer to [`Output::JoinAsked`].
    pub fn handle_join_verdict(&mut self, now: Time, start: StartId, verdict: Result<(), String>) {
        if let State::Seated(seat) = &mut self.state {
            seat.handle_join_verdict(&mut self.base, now, start, verdict);
        }
    }

    /// Replication says that the learner `start` holds all that this node owns, and that commits wait for it from now on.
    pub fn handle_counted(&mut self, now: Time, start: StartId) {
        if let State::Seated(seat) = &mut self.state {
            seat.on_counted(now, start);
        }
    }

    /// Replication says that the member `start` does not keep up.
    pub fn handle_slow(&mut self, now: Time, start: StartId) {
        if let State::Seated(seat) = &mut self.state {
            seat.on_slow(now, start);
        }
    }

    /// Planned move, new owner: the set's packets are queued from now on, for the move that [`Output::Prepare`] announced
    /// under `epoch`; of one that has ended since it counts for nothing.
    pub fn handle_prepared(&mut self, now: Time, set: WorkSet, epoch: Epoch) {
        if let State::Seated(seat) = &mut self.state {
            seat.on_prepared(&mut self.base, now, set, epoch);
        }
    }

    /// Planned move, new owner: the final state of `set` has come under `epoch` and is in force. The new owner works from
    /// the [`Output::Acquire`] that this causes; none comes if the cluster has decided otherwise in between.
    pub fn handle_taken(&mut self, now: Time, set: WorkSet, epoch: Epoch) {
        if let State::Seated(seat) = &mut self.state {
            seat.on_taken(&mut self.base, now, set, epoch);
        }
    }

    /// The link to the outside went up or down.
    pub fn handle_outside_link(&mut self, now: Time, link: Link) {
        self.base.link = link;
        self.handle_timeout(now);
    }

    /// The answer to [`Output::Probe`].
    pub fn handle_probe(&mut self, now: Time, probe: Probe) {
        let next = match &mut self.state {
            State::Candidate(candidate) => candidate.handle_probe(&mut self.base, now, probe),
            State::Seated(seat) => seat.handle_probe(&mut self.base, now, probe),
        };
        self.enter(now, next);
    }

    /// An operator's order for the member in `slot`, on whichever node it was given.
    pub fn handle_act(&mut self, now: Time, slot: Slot, act: Act) {
        if let State::Seated(seat) = &mut self.state {
            seat.handle_act(&mut self.base, now, slot, act);
        }
    }

    /// This node's own name, start id, addresses and weight.
    #[must_use]
    pub const fn identity(&self) -> &Identity {
        &self.base.config.identity
    }

    /// The view in force; `None` while this node is no member.
    #[must_use]
    pub fn view(&self) -> Option<&Arc<View>> {
        match &self.state {
            State::Candidate(_) => None,
            State::Seated(seat) => Some(&seat.view),
        }
    }

    /// The assignment of the work sets, while this node holds it.
    #[must_use]
    pub fn table(&self) -> Option<&Table> {
        match &self.state {
            State::Candidate(_) => None,
            State::Seated(seat) => seat.table.as_ref(),
        }
    }

    /// Until when this node may send.
    #[must_use]
    pub const fn lease_until(&self) -> Time {
        self.base.lease_until
    }

    /// What this node knows of the member in `slot`, for the operator.
    #[must_use]
    pub fn status(&self, slot: Slot) -> Option<MemberStatus> {
        match &self.state {
            State::Candidate(_) => None,
            State::Seated(seat) => seat.status(slot),
        }
    }

    fn enter(&mut self, now: Time, next: Next) {
        match next {
            Next::Stay => {}
            Next::Seat(seat) => {
                self.state = State::Seated(seat);
                if let State::Seated(seat) = &mut self.state {
                    seat.on_seated(&mut self.base, now);
                }
            }
            Next::Leave(reason) => {
                if let State::Seated(seat) = &mut self.state {
                    seat.release_all(&mut self.base);
                }
                let start = StartId(self.base.rng.next_u64());
                self.base.config.identity.start = start;
                self.base.due = SlotMap::default();
                // Nothing sent under the old start id may go out under the new one.
                self.base.mail.clear();
                self.base.outputs.push_back(Output::Left { reason, start });
                self.state = State::Candidate(Box::new(Candidate::new(now)));
            }
        }
    }
}

/// What an operator sees of a member.
#[derive(Clone, Debug, PartialEq)]
pub struct MemberStatus {
    /// How long ago a keepalive of it was accepted; zero for the node itself.
    pub silent_for: Duration,
    /// Keepalives lost between two that arrived, as a moving average.
    pub loss: f64,
    /// Keepalives that it is asked to send within one lease.
    pub keepalives: u8,
    /// Whether it is drained.
    pub drained: bool,
}

/// What follows for the node as a whole.
#[derive(Debug)]
enum Next {
    Stay,
    Seat(Box<Seat>),
    Leave(LeaveReason),
}

fn address_on(addresses: &Addresses, network: Network) -> Option<SocketAddr> {
    addresses.get(usize::from(network.number())).copied().flatten()
}
