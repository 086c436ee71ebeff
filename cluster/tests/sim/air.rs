//! The networks between the nodes, and the LANs that the clients are on: what is cut, lost, doubled and late.

/// More nodes than any run has.
const NODES: usize = 8;

/// What is wrong with the networks at the moment.
#[derive(Default)]
pub(crate) struct Air {
    /// From, to: the networks over which nothing comes through, as a mask.
    cut: [[u8; NODES]; NODES],
    /// Nodes that no client reaches.
    pub(crate) client_cut: u8,
    /// Those of them that see it: their outside links are down.
    pub(crate) carrier_down: u8,
    /// Which part of a split LAN each node is on; clients are on one, too.
    pub(crate) part: [u8; NODES],
    pub(crate) loss: u32,
    pub(crate) duplicate: u32,
    pub(crate) reorder: u32,
}

impl Air {
    pub(crate) fn cut(&mut self, network: usize, from: usize, to: usize) {
        self.cut[from][to] |= 1 << network;
    }

    pub(crate) fn is_cut(&self, network: usize, from: usize, to: usize) -> bool {
        self.cut[from][to] >> network & 1 == 1
    }

    /// Whether a stream between the two can carry anything: both ways over one of `networks`.
    pub(crate) fn linked(&self, networks: usize, a: usize, b: usize) -> bool {
        let all = (1_u8 << networks) - 1;
        (self.cut[a][b] | self.cut[b][a]) & all != all
    }

    /// Whether a node has lost anything of or to another.
    pub(crate) fn is_touched(&self, node: usize) -> bool {
        (0..NODES).any(|other| self.cut[node][other] | self.cut[other][node] != 0)
    }

    pub(crate) fn is_client_cut(&self, node: usize) -> bool {
        self.client_cut >> node & 1 == 1
    }

    /// Whether two nodes see each other on the LANs.
    pub(crate) fn share_lan(&self, a: usize, b: usize) -> bool {
        self.part[a] == self.part[b] && !self.is_client_cut(a) && !self.is_client_cut(b)
    }

    pub(crate) fn heal_cuts(&mut self) {
        self.cut = Default::default();
        (self.client_cut, self.carrier_down) = (0, 0);
        self.part = Default::default();
    }

    pub(crate) fn clear(&mut self) {
        (self.loss, self.duplicate, self.reorder) = (0, 0, 0);
    }
}
