//! The rules: what may never be seen on the outside, whatever failed.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, Ipv4Addr};

use wire::Prefix;

use super::frame::{Content, Esp, IKE_SA_INIT, Ike, Packet};

/// What the judge has to know of the network.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// The addresses that the policy protects: none of them may be seen on the outside.
    pub protected: Vec<Prefix>,
    /// The cluster's outside address. ESP from there carries our IV layout, so that its epochs can be followed.
    pub cluster: Option<Ipv4Addr>,
    /// Ports of attackers: what they send is not judged.
    pub attackers: Vec<String>,
}

/// A rule that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which rule.
    pub rule: Rule,
    /// The port of the switch that the offending packet came in from.
    pub port: String,
    /// The packet's place among all packets of the run, counted from 1.
    pub packet: u64,
    /// What was seen.
    pub detail: String,
}

/// The rules, after the invariants of the fault catalogue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rule {
    /// I2: a sequence number of an SA was used twice.
    SequenceTwice,
    /// I2: an IV was used twice under one key.
    IvTwice,
    /// I1: two different answers, or requests, with one message id.
    MessageIdTwice,
    /// I1: a packet of an older epoch after one of a newer, or two senders in one epoch: one of them did not own the work
    /// set.
    StaleOwner,
    /// I4: an address that the policy protects was seen in the clear.
    InTheClear,
}

/// Applies the rules to packets in the order in which the switch took them.
#[derive(Debug, Default)]
pub struct Judge {
    rules: Rules,
    judged: u64,
    esp: u64,
    ike: u64,
    sequences: Marks<(Ipv4Addr, u32)>,
    ivs: Marks<(Ipv4Addr, u32)>,
    senders: HashMap<(Ipv4Addr, u32), Sender>,
    ike_ivs: HashMap<(u64, u64, bool, u64), u64>,
    ike_messages: HashMap<MessageKey, u64>,
    violations: Vec<Violation>,
    broken: u64,
}

/// Who sent for one of the cluster's SAs last, under the newest epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sender {
    /// The port that its packets came in from.
    pub port: String,
    /// The epoch, as the count of owners since the SA's birth.
    pub epoch: u64,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct MessageKey {
    spi_i: u64,
    spi_r: u64,
    from_initiator: bool,
    response: bool,
    message_id: u32,
    fragment: u16,
}

impl Judge {
    /// Starts with nothing seen.
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        Self { rules, ..Self::default() }
    }

    pub(super) fn is_attacker(&self, port: &str) -> bool {
        self.rules.attackers.iter().any(|attacker| attacker == port)
    }

    /// How many packets were judged; each datagram of a train counts.
    #[must_use]
    pub const fn judged(&self) -> u64 {
        self.judged
    }

    /// How many of them were ESP.
    #[must_use]
    pub const fn esp(&self) -> u64 {
        self.esp
    }

    /// How many of them were IKE.
    #[must_use]
    pub const fn ike(&self) -> u64 {
        self.ike
    }

    /// The first violations, [`VIOLATIONS_MAX`] at most.
    #[must_use]
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// How many times a rule was broken.
    #[must_use]
    pub const fn broken(&self) -> u64 {
        self.broken
    }

    /// Who owns an SA of the cluster's: it has sent to the peer at `to` under the newest epoch.
    #[must_use]
    pub fn sender(&self, to: Ipv4Addr, spi: u32) -> Option<&Sender> {
        self.senders.get(&(to, spi))
    }

    pub(super) fn judge(&mut self, port: &str, packet: Packet) {
        self.judged += 1;
        self.check_clear(port, packet.source, packet.destination);
        match packet.content {
            Content::Esp(esp) => self.check_esp(port, packet, esp),
            Content::Ike(ike) => self.check_ike(port, ike),
            Content::Quote { source, destination } => self.check_clear(port, source, destination),
            Content::Other => {}
        }
    }

    fn check_clear(&mut self, port: &str, source: Ipv4Addr, destination: Ipv4Addr) {
        let is_protected =
            |address: Ipv4Addr| self.rules.protected.iter().any(|prefix| prefix.contains(IpAddr::V4(address)));
        if is_protected(source) || is_protected(destination) {
            self.record(Rule::InTheClear, port, format!("a packet from {source} to {destination}"));
        }
    }

    fn check_esp(&mut self, port: &str, packet: Packet, esp: Esp) {
        self.esp += 1;
        let sa = (packet.destination, esp.spi);
        let Esp { spi, sequence, iv } = esp;
        if !self.sequences.mark(sa, u64::from(sequence)) {
            self.record(Rule::SequenceTwice, port, format!("SPI {spi:08x}, sequence number {sequence}"));
        }
        if !self.ivs.mark(sa, iv) {
            self.record(Rule::IvTwice, port, format!("SPI {spi:08x}, IV {iv:016x}"));
        }
        if self.rules.cluster == Some(packet.source) {
            let epoch = epoch_of(iv);
            let newest = self.senders.entry(sa).or_insert_with(|| Sender { port: port.to_owned(), epoch });
            let before = newest.epoch;
            if epoch > before {
                *newest = Sender { port: port.to_owned(), epoch };
            } else if epoch < before || newest.port != port {
                let detail = format!("SPI {spi:08x}, epoch {epoch} after {before} of {}", newest.port);
                self.record(Rule::StaleOwner, port, detail);
            }
        }
    }

    fn check_ike(&mut self, port: &str, ike: Ike) {
        self.ike += 1;
        // RFC 7296 §2.1: what is sent again is the same, bit by bit, and then its IV and message id are the same too.
        if let Some(iv) = ike.iv
            && differs(&mut self.ike_ivs, (ike.spi_i, ike.spi_r, ike.from_initiator, iv), ike.digest)
        {
            self.record(Rule::IvTwice, port, format!("IKE SPI {:016x}, IV {iv:016x}", ike.spi_i));
        }
        let is_init = ike.exchange == IKE_SA_INIT;
        // RFC 7296 §2.6: after COOKIE or INVALID_KE_PAYLOAD the request changes and its id does not; those answers
        // create nothing and name no SPI.
        if is_init && (!ike.response || ike.spi_r == 0) {
            return;
        }
        let key = MessageKey {
            spi_i: ike.spi_i,
            // Two nodes that answer one IKE_SA_INIT draw different SPIs: that too is two answers.
            spi_r: if is_init { 0 } else { ike.spi_r },
            from_initiator: ike.from_initiator,
            response: ike.response,
            message_id: ike.message_id,
            fragment: ike.fragment,
        };
        if differs(&mut self.ike_messages, key, ike.digest) {
            let kind = if ike.response { "answer" } else { "request" };
            let detail = format!("IKE SPI {:016x}, a second {kind} with id {}", ike.spi_i, ike.message_id);
            self.record(Rule::MessageIdTwice, port, detail);
        }
    }

    fn record(&mut self, rule: Rule, port: &str, detail: String) {
        self.broken += 1;
        if self.violations.len() < VIOLATIONS_MAX {
            self.violations.push(Violation { rule, port: port.to_owned(), packet: self.judged, detail });
        }
    }
}

/// Violations that are kept with their detail; the rest is only counted.
pub const VIOLATIONS_MAX: usize = 100;

/// Which numbers were seen, per SA. Numbers that rise cost a bit each.
#[derive(Debug)]
struct Marks<K> {
    words: HashMap<(K, u64), u64>,
}

impl<K> Default for Marks<K> {
    fn default() -> Self {
        Self { words: HashMap::new() }
    }
}

impl<K: std::hash::Hash + Eq> Marks<K> {
    /// Marks `number`; false if it was marked already.
    fn mark(&mut self, key: K, number: u64) -> bool {
        let word = self.words.entry((key, number / 64)).or_default();
        let bit = 1 << (number % 64);
        let fresh = *word & bit == 0;
        *word |= bit;
        fresh
    }
}

/// Whether `key` was seen before with another digest.
fn differs<K: std::hash::Hash + Eq>(seen: &mut HashMap<K, u64>, key: K, digest: u64) -> bool {
    match seen.entry(key) {
        Entry::Occupied(entry) => *entry.get() != digest,
        Entry::Vacant(entry) => {
            entry.insert(digest);
            false
        }
    }
}

/// The count of owners since the SA's birth: bits 4 to 19 of our explicit IV.
const fn epoch_of(iv: u64) -> u64 {
    (iv >> 44) & 0xffff
}

#[cfg(test)]
mod tests {
    use super::super::frame::{self, tests};
    use super::*;

    const CLUSTER: [u8; 4] = [198, 51, 100, 1];
    const CLIENT: [u8; 4] = [198, 51, 100, 101];

    fn judge() -> Judge {
        let protected = vec!["10.1.0.0/16".parse().unwrap(), "10.2.0.0/16".parse().unwrap()];
        Judge::new(Rules { protected, cluster: Some(CLUSTER.into()), attackers: Vec::new() })
    }

    fn see(judge: &mut Judge, port: &str, frame: &[u8]) {
        frame::read(frame, None, |packet| judge.judge(port, packet));
    }

    fn rules_broken(judge: &Judge) -> Vec<Rule> {
        judge.violations().iter().map(|violation| violation.rule).collect()
    }

    fn iv(slot: u64, epoch: u64, counter: u64) -> u64 {
        slot << 60 | epoch << 44 | counter
    }

    #[test]
    fn a_planted_double_use_is_found_also_when_two_nodes_commit_it() {
        let mut judge = judge();
        see(&mut judge, "n1", &tests::udp_frame(CLUSTER, CLIENT, &tests::esp(5, 1, iv(0, 1, 0))));
        see(&mut judge, "n2", &tests::udp_frame(CLUSTER, CLIENT, &tests::esp(5, 1, iv(1, 1, 0))));
        assert_eq!(rules_broken(&judge), [Rule::SequenceTwice, Rule::StaleOwner]);
        see(&mut judge, "n1", &tests::udp_frame(CLUSTER, CLIENT, &tests::esp(5, 2, iv(1, 1, 0))));
        assert_eq!(rules_broken(&judge), [Rule::SequenceTwice, Rule::StaleOwner, Rule::IvTwice]);
        assert_eq!((judge.judged(), judge.esp()), (3, 3));
    }

    #[test]
    fn the_same_numbers_in_another_sa_or_to_another_peer_are_no_double_use() {
        let mut judge = judge();
        for (peer, spi) in [(CLIENT, 5), (CLIENT, 6), ([198, 51, 100, 102], 5)] {
            see(&mut judge, "n1", &tests::udp_frame(CLUSTER, peer, &tests::esp(spi, 1, iv(0, 1, 0))));
        }
        assert_eq!(judge.broken(), 0);
    }

    #[test]
    fn a_stale_owner_is_found_by_its_epoch() {
        let mut judge = judge();
        for (port, sequence, epoch) in [("n1", 1, 1), ("n2", 70_000, 2), ("n1", 2, 1)] {
            see(
                &mut judge,
                port,
                &tests::udp_frame(CLUSTER, CLIENT, &tests::esp(5, sequence, iv(0, epoch, u64::from(sequence)))),
            );
        }
        assert_eq!(rules_broken(&judge), [Rule::StaleOwner]);
        assert_eq!(judge.violations()[0].port, "n1");
    }

    #[test]
    fn two_owners_in_one_epoch_are_found() {
        let mut judge = judge();
        for (port, sequence) in [("n1", 1), ("n2", 2)] {
            see(
                &mut judge,
                port,
                &tests::udp_frame(CLUSTER, CLIENT, &tests::esp(5, sequence, iv(0, 1, sequence.into()))),
            );
        }
        assert_eq!(rules_broken(&judge), [Rule::StaleOwner]);
        assert_eq!(judge.sender(CLIENT.into(), 5), Some(&Sender { port: "n1".into(), epoch: 1 }));
    }

    #[test]
    fn a_protected_address_in_the_clear_is_found() {
        let mut judge = judge();
        see(&mut judge, "n3", &tests::udp_frame([10, 1, 0, 100], [10, 2, 0, 1], b"data"));
        assert_eq!(rules_broken(&judge), [Rule::InTheClear]);
    }

    fn ike(flags: u8, exchange: u8, spi_r: u64, id: u8, iv: u64) -> Vec<u8> {
        let mut message = vec![0; 4];
        message.extend([1_u64.to_be_bytes(), spi_r.to_be_bytes()].concat());
        message.extend([46, 0x20, exchange, flags, 0, 0, 0, id, 0, 0, 0, 60, 0, 0, 0, 32]);
        message.extend(iv.to_be_bytes());
        message
    }

    #[test]
    fn a_repeated_ike_message_is_allowed_and_a_changed_one_is_not() {
        let mut judge = judge();
        let answer = tests::udp_frame(CLUSTER, CLIENT, &ike(0x20, 37, 2, 5, 7));
        see(&mut judge, "n1", &answer);
        see(&mut judge, "n2", &answer);
        assert_eq!(judge.broken(), 0);
        see(&mut judge, "n2", &tests::udp_frame(CLUSTER, CLIENT, &ike(0x20, 37, 2, 5, 8)));
        assert_eq!(rules_broken(&judge), [Rule::MessageIdTwice]);
        see(&mut judge, "n2", &tests::udp_frame(CLUSTER, CLIENT, &ike(0x20, 37, 2, 6, 8)));
        assert_eq!(rules_broken(&judge), [Rule::MessageIdTwice, Rule::IvTwice]);
    }

    #[test]
    fn two_nodes_that_answer_one_ike_sa_init_are_found_and_cookies_are_not_blamed() {
        let mut judge = judge();
        see(&mut judge, "n1", &tests::udp_frame(CLUSTER, CLIENT, &ike(0x20, IKE_SA_INIT, 0, 0, 1)));
        see(&mut judge, "n1", &tests::udp_frame(CLUSTER, CLIENT, &ike(0x20, IKE_SA_INIT, 8, 0, 2)));
        assert_eq!(judge.broken(), 0);
        see(&mut judge, "n2", &tests::udp_frame(CLUSTER, CLIENT, &ike(0x20, IKE_SA_INIT, 9, 0, 3)));
        assert_eq!(rules_broken(&judge), [Rule::MessageIdTwice]);
    }
}
