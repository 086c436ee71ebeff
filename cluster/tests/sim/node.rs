//! One simulated node: both cores, the application on them, and a clock of its own.

use std::collections::VecDeque;
use std::net::SocketAddr;

use cluster::membership::{Config, Peer};
use cluster::replication::Bounds;
use cluster::{Addresses, Identity, Membership, Name, Replication, StartId};
use wire::Time;

use crate::app::App;
use crate::queue::Dice;
use crate::world::{Arrival, Plan, S};

/// Datagrams that a paused node's sockets hold; the rest is lost.
pub(crate) const BACKLOG_MAX: usize = 300;

pub(crate) struct Node {
    pub(crate) alive: bool,
    pub(crate) paused: bool,
    pub(crate) membership: Membership,
    pub(crate) replication: Replication,
    pub(crate) app: App,
    /// When its timer is set for; `u64::MAX` for never.
    pub(crate) armed_at: u64,
    pub(crate) backlog: VecDeque<Arrival>,
    /// What the program itself thinks of its lease, as it last looked.
    pub(crate) thinks_leased: bool,
    /// Whether it was told that its outside link is down.
    pub(crate) carrier_down: bool,
    /// Parts per million that its clock runs fast.
    drift: i64,
    offset: u64,
}

pub(crate) fn address(node: usize, network: usize) -> SocketAddr {
    SocketAddr::from(([10, network as u8, 0, node as u8 + 1], 4600))
}

pub(crate) fn name(node: usize) -> Name {
    Name::new(&format!("n{node}")).unwrap()
}

impl Node {
    /// Starts the program of node number `node`.
    pub(crate) fn start(plan: &Plan, dice: &mut Dice, node: usize, now: u64) -> Self {
        let addresses = |node: usize| -> Addresses {
            let mut addresses = Addresses::default();
            for (network, slot) in addresses.iter_mut().enumerate().take(plan.networks) {
                *slot = Some(address(node, network));
            }
            addresses
        };
        let peers = (0..plan.nodes).filter(|peer| *peer != node);
        let start = StartId(dice.word());
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&dice.word().to_be_bytes());
        let config = Config {
            identity: Identity { name: name(node), start, addresses: addresses(node), weight: 100 },
            peers: peers.map(|peer| Peer { name: name(peer), addresses: addresses(peer) }).collect(),
            config_version: 1,
            config_hash: [7; 32],
            lone_survivor: plan.lone,
            policy: plan.policy.clone(),
            seed,
        };
        let drift = dice.below(2001) as i64 - 1000;
        let offset = S + dice.below(1000 * S);
        let clock = local(now, drift, offset);
        Self {
            alive: true,
            paused: false,
            membership: Membership::new(clock, config),
            replication: Replication::new(start, Vec::new(), Bounds::default()),
            app: App::new(plan.life),
            armed_at: u64::MAX,
            backlog: VecDeque::new(),
            thinks_leased: false,
            carrier_down: false,
            drift,
            offset,
        }
    }

    pub(crate) fn start_id(&self) -> StartId {
        self.membership.identity().start
    }

    pub(crate) fn is_running(&self) -> bool {
        self.alive && !self.paused
    }

    /// The node's own clock.
    pub(crate) fn clock(&self, now: u64) -> Time {
        local(now, self.drift, self.offset)
    }

    /// When the node's clock shows `at`, rounded up.
    pub(crate) fn real(&self, at: Time) -> u64 {
        let local = at.nanos.saturating_sub(self.offset);
        let rate = 1_000_000_u64.wrapping_add_signed(self.drift);
        local.saturating_mul(1_000_000) / rate + 1
    }

    /// Whether the kernel's fence lets anything of this node out.
    pub(crate) fn is_leased(&self, now: u64) -> bool {
        self.clock(now) < self.membership.lease_until()
    }

    /// Whether the view that this node is in names somebody who may be at work elsewhere.
    pub(crate) fn is_unproven(&self) -> bool {
        self.membership.view().is_some_and(|view| view.is_unproven())
    }
}

fn local(now: u64, drift: i64, offset: u64) -> Time {
    let skew = now as i64 * drift / 1_000_000;
    Time { nanos: now.wrapping_add_signed(skew) + offset }
}
