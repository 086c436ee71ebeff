//! Names and views of nodes, for tests that carry the messages of replication themselves.

use std::sync::Arc;

use cluster::{Addresses, Identity, Member, Name, Role, StartId, View, ViewId};
use wire::{Epoch, Slot, Tenure};

pub(crate) fn start(node: usize) -> StartId {
    StartId(1 + node as u64)
}

pub(crate) fn slot(node: usize) -> Slot {
    Slot::new(u8::try_from(node).unwrap()).unwrap()
}

pub(crate) fn tenure(count: u32, node: usize) -> Tenure {
    Tenure { epoch: Epoch { count, master: slot(0) }, slot: slot(node) }
}

/// A view of these nodes; no founding one, which would begin without records.
pub(crate) fn view(members: &[(usize, Role)]) -> Arc<View> {
    let member = |(node, role): &(usize, Role)| {
        let name = Name::new(&format!("n{node}")).unwrap();
        let identity = Identity { name, start: start(*node), addresses: Addresses::default(), weight: 1 };
        Member { slot: slot(*node), role: *role, identity }
    };
    let members = members.iter().map(member).collect();
    Arc::new(View::new(ViewId { number: 1, digest: 1 }, 1, 0, slot(0), members, Vec::new()).unwrap())
}
