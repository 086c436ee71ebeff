//! §1.2 The Initial Exchanges.

use std::time::Duration;

use crate::pair::{INITIATOR, Pair, RESPONDER};

#[test]
fn two_exchanges_make_a_session_with_a_child_on_both_sides() {
    let mut pair = Pair::new();
    pair.initiate();
    pair.run(Duration::from_secs(1));
    assert_eq!(pair.nodes[INITIATOR].events.len(), 1, "{:?}", pair.nodes[INITIATOR].events);
    assert_eq!((pair.nodes[INITIATOR].ups(), pair.nodes[RESPONDER].ups()), (1, 1));
    assert_eq!(pair.wire.len(), 4, "IKE_SA_INIT and IKE_AUTH, nothing else");
    pair.assert_children_fit(1);
    let child = pair.nodes[RESPONDER].children.values().next().unwrap();
    assert!(child.encapsulated);
    assert_eq!((child.path.local.port(), child.path.remote.port()), (4500, 4500));
    assert_eq!(child.remote, [wire::TrafficSelector::from_address(child.inner_address.unwrap())]);
}
