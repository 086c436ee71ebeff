//! What the IKE engine asks for, carried out in its order.

use super::*;

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
                    Some(commit) => self.hold(commit, held),
                    None => self.let_go(held),
                }
            }
            Output::Store { id, change, commit } => {
                let replication = self.put(id, change);
                self.waiting.note(commit, replication);
            }
            Output::InstallChild(child) => self.on_install(*child),
            Output::RemoveChild { spi_in, reason } => {
                debug!(%spi_in, reason = reason.label(), "a pair of ESP SAs is removed");
                self.remove_child(spi_in);
            }
            Output::MovePath { spi_in, path } => self.on_move(spi_in, path),
            Output::RequestAddress { request, pool, identity, previous, home } => {
                let address = self.take_address(&pool, &identity, previous, home);
                self.endpoint.handle_address(boot_time(), request, address);
            }
            Output::ReleaseAddress { pool, address } => self.release_address(&pool, address),
            Output::Sign { request, key, scheme, message } => self.sign(request, &key, scheme, message),
            Output::Event(event) => self.sessions.on_event(boot_time(), event),
        }
    }

    fn on_install(&mut self, child: ChildSa) {
        let set = child.spi_in.work_set();
        let Some(tenure) = self.tenures.get(&set).copied() else {
            // The engine makes SPIs of its own sets only.
            error!(spi_in = %child.spi_in, "a pair of ESP SAs of a work set that is not ours");
            return;
        };
        let inner = child.inner_address;
        let initial = initial_of(child, tenure);
        let spi_in = initial.spi_in;
        let edge = LEASE_MIN.saturating_add(1);
        self.put(esp_record(RecordKind::ESP_INITIAL, spi_in), Change::Put(initial.to_bytes()));
        let commit = self.put_lease(spi_in, edge);
        self.children.insert(spi_in, Child { initial: initial.clone(), inner });
        self.hold(commit, Held::Install(Box::new(SaPair { initial, tenure, start: Start::New { edge } })));
    }

    pub(super) fn remove_child(&mut self, spi_in: Spi) {
        if self.children.remove(&spi_in).is_none() {
            return;
        }
        self.datapath.remove(spi_in);
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

    fn take_address(
        &mut self,
        pool: &str,
        identity: &Identity,
        previous: Option<IpAddr>,
        _home: WorkSet,
    ) -> Result<IpAddr, NoAddress> {
        let address = self.pools.get_mut(pool).and_then(|pool| pool.take(identity, previous));
        if address.is_none() {
            warn!(pool, "the pool has no free address; enlarge it, or end sessions");
        }
        address.ok_or(NoAddress)
    }

    fn release_address(&mut self, pool: &str, address: IpAddr) {
        if let Some(pool) = self.pools.get_mut(pool) {
            pool.give_back(address);
        }
    }

    fn sign(&mut self, request: RequestId, key: &str, scheme: SignatureScheme, message: Vec<u8>) {
        let cluster = Arc::clone(&self.cluster);
        let answers = self.signatures.clone();
        let name = key.to_owned();
        let work = move || {
            let signature = cluster.keys.get(&name).ok_or(SignError).and_then(|key| {
                key.sign(scheme, &message).map_err(|error| {
                    warn!(key = name, %error, "the private key cannot sign");
                    SignError
                })
            });
            // Nobody waits for the answer once the driver has ended.
            let _ended = answers.send((request, signature));
        };
        match self.cluster.keys.get(key).map(SigningKey::kind) {
            // An RSA signature takes about a millisecond: too long for this task.
            Some(KeyKind::Rsa) => drop(tokio::task::spawn_blocking(work)),
            Some(KeyKind::EcdsaP256) | None => work(),
        }
    }
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
