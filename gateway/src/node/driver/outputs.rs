//! What the IKE engine asks for, carried out in its order.

use super::*;
use crate::replicated::inner;

impl Driver {
    /// Carries out everything that the engine wants, answers included.
    pub(super) fn carry_out(&mut self) {
        while let Some(output) = self.endpoint.poll_output() {
            self.on_output(output);
        }
        self.commit_alone();
    }

    fn on_output(&mut self, output: Output) {
        match output {
            Output::Transmit { path, datagram, after } => {
                let held = Held::Transmit { path, datagram };
                match after.and_then(|after| self.waiting.translate(after)) {
                    Some((commit, set)) => self.hold(commit, set, held),
                    None => self.let_go(held),
                }
            }
            Output::Store { id, change, commit } => {
                let replication = self.put(id, change);
                self.waiting.note(commit, replication, id.set);
            }
            Output::InstallChild(child) => self.on_install(*child),
            Output::RemoveChild { spi_in, reason } => {
                debug!(%spi_in, reason = reason.label(), "a pair of ESP SAs is removed");
                self.remove_child(spi_in);
            }
            Output::MovePath { spi_in, path } => self.on_move(spi_in, path),
            Output::RequestAddress { request, pool, identity, previous, session } => {
                self.take_address(request, pool, identity, previous, session);
            }
            Output::ReleaseAddress { pool, address, session } => self.give_back(pool, address, session),
            Output::Sign { request, key, scheme, message } => self.sign(request, &key, scheme, message),
            Output::Event(event) => {
                if let ike::Event::Up { session, connection, identity, initial_contact: true, .. } = &event {
                    self.supersede(identity, connection, *session);
                }
                self.sessions.on_event(boot_time(), event);
            }
        }
    }

    fn on_install(&mut self, child: ChildSa) {
        let set = child.spi_in.work_set();
        let Some(tenure) = self.tenures.get(&set).copied() else {
            // The engine makes SPIs of its own sets only.
            error!(spi_in = %child.spi_in, "a pair of ESP SAs of a work set that is not ours");
            return;
        };
        let initial = initial_of(child, tenure);
        let spi_in = initial.spi_in;
        let edge = LEASE_MIN.saturating_add(1);
        for prefix in prefixes(&initial) {
            if self.carry(set, prefix) {
                self.put(inner::record(set, prefix), Change::Put(Box::default()));
            }
        }
        self.put(esp_record(RecordKind::ESP_INITIAL, spi_in), Change::Put(initial.to_bytes()));
        let commit = self.put_lease(spi_in, edge);
        self.children.insert(spi_in, Child { initial: initial.clone() });
        self.hold(commit, set, Held::Install(Box::new(SaPair { initial, tenure, start: Start::New { edge } })));
    }

    /// Counts one more pair that carries the prefix; whether it is the first.
    pub(super) fn carry(&mut self, set: WorkSet, prefix: Prefix) -> bool {
        let pairs = self.carried.entry((set, prefix)).or_default();
        *pairs += 1;
        *pairs == 1
    }

    /// Counts one pair less; whether it was the last.
    fn drop_carried(&mut self, set: WorkSet, prefix: Prefix) -> bool {
        let Some(pairs) = self.carried.get_mut(&(set, prefix)) else { return false };
        *pairs = pairs.saturating_sub(1);
        if *pairs > 0 {
            return false;
        }
        self.carried.remove(&(set, prefix));
        true
    }

    pub(super) fn remove_child(&mut self, spi_in: Spi) {
        let Some(child) = self.children.remove(&spi_in) else { return };
        self.datapath.remove(spi_in);
        for prefix in prefixes(&child.initial) {
            if self.drop_carried(spi_in.work_set(), prefix) {
                self.put(inner::record(spi_in.work_set(), prefix), Change::Delete);
            }
        }
        self.put(esp_record(RecordKind::ESP_INITIAL, spi_in), Change::Delete);
        self.put(esp_record(RecordKind::ESP_OUTBOUND, spi_in), Change::Delete);
        let set = spi_in.work_set();
        if let Some(edges) = self.edges.get_mut(&set) {
            edges.remove(spi_in);
            self.put_edges(set);
        }
    }

    fn on_move(&mut self, spi_in: Spi, path: Path) {
        self.datapath.set_path(spi_in, path);
        if let Some(child) = self.children.get_mut(&spi_in) {
            child.initial.path_local = path.local;
            child.initial.path_remote = path.remote;
            let bytes = child.initial.to_bytes();
            self.put(esp_record(RecordKind::ESP_INITIAL, spi_in), Change::Put(bytes));
        }
    }

    fn sign(&mut self, request: RequestId, key: &str, scheme: SignatureScheme, message: Vec<u8>) {
        let cluster = Arc::clone(&self.cluster);
        let answers = self.answers.clone();
        let name = key.to_owned();
        let work = move || {
            let signature = cluster.keys.get(&name).ok_or(SignError).and_then(|key| {
                key.sign(scheme, &message).map_err(|error| {
                    warn!(key = name, %error, "the private key cannot sign");
                    SignError
                })
            });
            // Nobody waits for the answer once the driver has ended.
            let _ended = answers.send(Answer::Signed(request, signature));
        };
        match self.cluster.keys.get(key).map(SigningKey::kind) {
            // An RSA signature takes about a millisecond: too long for this task.
            Some(KeyKind::Rsa) => drop(tokio::task::spawn_blocking(work)),
            Some(KeyKind::EcdsaP256) | None => work(),
        }
    }
}

/// What lies behind the peer, as prefixes; ranges that are none stay out of dispatch, and their packets are handed on.
pub(super) fn prefixes(initial: &Initial) -> impl Iterator<Item = Prefix> {
    let mut prefixes: Vec<Prefix> =
        initial.remote.iter().filter_map(|selector| Prefix::from_range(selector.first, selector.last)).collect();
    prefixes.sort_unstable();
    prefixes.dedup();
    prefixes.into_iter()
}

fn initial_of(child: ChildSa, tenure: Tenure) -> Initial {
    Initial {
        session: child.session,
        spi_in: child.spi_in,
        spi_out: child.spi_out,
        encryption: child.encryption.iana(),
        key_bits: child.encryption.key_bits(),
        integrity: child.integrity.map(crypto::Integrity::iana),
        key_in: child.key_in,
        key_out: child.key_out,
        integrity_key_in: child.integ_in,
        integrity_key_out: child.integ_out,
        local: child.local,
        remote: child.remote,
        birth_count: tenure.epoch.count,
        replaces: child.replaces,
        opened_by_peer: child.role == Role::Responder,
        path_local: child.path.local,
        path_remote: child.path.remote,
        unknown: UnknownFields::default(),
    }
}
