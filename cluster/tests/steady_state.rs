//! What a quiet cluster costs: a keepalive is handled without allocating.

mod nodes;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::SocketAddr;
use std::time::Duration;

use cluster::membership::Output;
use cluster::{Membership, Network};
use wire::Time;

use nodes::{addresses, node};

const NODES: u8 = 3;

struct Counting;

thread_local! {
    /// Of this thread: what the test's harness does beside it does not count.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

#[expect(unsafe_code, reason = "an allocator cannot be counted otherwise")]
// SAFETY: every call is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Lets a network without delay run for `span`; returns how many datagrams were handled.
fn run(nodes: &mut [Membership], now: &mut Time, span: Duration, buffer: &mut Vec<u8>) -> u64 {
    let end = *now + span;
    let mut handled = 0;
    while *now < end {
        *now += Duration::from_millis(1);
        for at in 0..nodes.len() {
            if nodes[at].poll_timeout() <= *now {
                nodes[at].handle_timeout(*now);
            }
            loop {
                while let Some(output) = nodes[at].poll_output() {
                    assert!(!matches!(output, Output::Left { .. }), "nobody leaves a quiet cluster");
                }
                let Some(to) = nodes[at].poll_transmit(buffer) else { break };
                let SocketAddr::V4(address) = to.to else { continue };
                let sender = nodes[at].identity().start;
                let from = addresses(u8::try_from(at).unwrap())[0].unwrap();
                let target = usize::from(address.ip().octets()[3]);
                nodes[target].handle_datagram(*now, Network::new(0).unwrap(), from, sender, buffer);
                handled += 1;
            }
        }
    }
    handled
}

#[test]
fn a_quiet_cluster_does_not_allocate() {
    let mut nodes: Vec<Membership> = (0..NODES).map(|number| node(number, NODES)).collect();
    let (mut now, mut buffer) = (Time::ZERO, Vec::with_capacity(4096));
    run(&mut nodes, &mut now, Duration::from_secs(5), &mut buffer);
    for node in &nodes {
        assert_eq!(node.view().map(|view| view.full().len()), Some(3));
        assert!(node.lease_until() > now, "every member holds a lease");
    }
    let before = ALLOCATIONS.get();
    let handled = run(&mut nodes, &mut now, Duration::from_secs(20), &mut buffer);
    let allocations = ALLOCATIONS.get() - before;
    assert!(handled > 20_000, "{handled} keepalives");
    assert_eq!(allocations, 0, "for {handled} keepalives");
}
