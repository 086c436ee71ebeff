//! Addresses out of pools. The owner of the pool's work set gives them; other nodes ask it.

use super::*;
use crate::node::pool::Given;
use crate::replicated::pool::{
    AddressAsked, AddressGiven, AddressReturned, PoolLease, Word as PoolWord, home_of_pool, record_of,
};
use crate::replicated::words::Word;
use cluster::StartId;
use tracing::info;

/// What was asked of other nodes and is not answered yet.
#[derive(Debug, Default)]
pub(super) struct Questions {
    last: u64,
    open: BTreeMap<u64, Question>,
}

#[derive(Debug)]
struct Question {
    request: RequestId,
    pool: String,
    word: Vec<u8>,
    repeat_at: Time,
    give_up_at: Time,
}

impl Questions {
    pub(super) fn poll_timeout(&self) -> Option<Time> {
        self.open.values().map(|question| question.repeat_at).min()
    }
}

impl Driver {
    pub(super) fn take_address(
        &mut self,
        request: RequestId,
        pool: String,
        identity: Identity,
        wish: Option<IpAddr>,
        session: u64,
    ) {
        let owner = home_of_pool(&pool);
        if self.tenures.contains_key(&owner) {
            match self.give(&pool, &identity, wish, session) {
                Some((address, commit)) => {
                    self.hold(commit, WorkSet::from_low_bits(session), Held::Address { request, address });
                }
                None => self.endpoint.handle_address(boot_time(), request, Err(NoAddress)),
            }
            return;
        }
        let now = boot_time();
        self.questions.last += 1;
        let question = self.questions.last;
        let word = Word::Pool(PoolWord::Asked(AddressAsked {
            question,
            pool: pool.clone(),
            id_type: identity.id_type(),
            id_data: identity.data().into(),
            wish,
            session,
            unknown: UnknownFields::default(),
        }));
        let word = word.to_bytes();
        if let Some(link) = &self.link {
            link.ask(owner, word.clone());
        }
        let open = Question { request, pool, word, repeat_at: now + REPEAT_EVERY, give_up_at: now + GIVE_UP_AFTER };
        self.questions.open.insert(question, open);
    }

    /// Takes an address out of a pool of this node and stores that.
    fn give(
        &mut self,
        pool: &str,
        identity: &Identity,
        wish: Option<IpAddr>,
        session: u64,
    ) -> Option<(IpAddr, CommitId)> {
        let now = boot_time();
        let Some(address) = self.pools.get_mut(pool).and_then(|pool| pool.take(now, identity, wish, session)) else {
            warn!(pool, "the pool has no free address; enlarge it, or end sessions");
            return None;
        };
        Some((address, self.put_lease_of_pool(pool, address, identity, session, true)))
    }

    fn put_lease_of_pool(
        &mut self,
        pool: &str,
        address: IpAddr,
        identity: &Identity,
        session: u64,
        in_use: bool,
    ) -> CommitId {
        let lease = PoolLease {
            pool: pool.to_owned(),
            id_type: identity.id_type(),
            id_data: identity.data().into(),
            in_use,
            session,
            unknown: UnknownFields::default(),
        };
        self.put(record_of(pool, address), Change::Put(lease.to_bytes()))
    }

    pub(super) fn give_back(&mut self, pool: String, address: IpAddr, session: u64) {
        let owner = home_of_pool(&pool);
        if self.tenures.contains_key(&owner) {
            self.take_back(&pool, address, session);
        } else if let Some(link) = &self.link {
            let returned = AddressReturned { pool, address, session, unknown: UnknownFields::default() };
            link.ask(owner, Word::Pool(PoolWord::Returned(returned)).to_bytes());
        }
    }

    fn take_back(&mut self, pool: &str, address: IpAddr, session: u64) {
        let Some(identity) = self.pools.get_mut(pool).and_then(|pool| pool.give_back(address, session)) else { return };
        self.put_lease_of_pool(pool, address, &identity, session, false);
    }

    pub(super) fn on_pool_word(&mut self, from: StartId, word: PoolWord) {
        match word {
            PoolWord::Asked(asked) => {
                // A question that came too late here is repeated to the owner of then.
                if !self.tenures.contains_key(&home_of_pool(&asked.pool)) {
                    return;
                }
                let Ok(identity) = Identity::decode(asked.id_type, &asked.id_data) else { return };
                let given = self.give(&asked.pool, &identity, asked.wish, asked.session);
                let answer = AddressGiven {
                    question: asked.question,
                    address: given.map(|(address, _)| address),
                    unknown: UnknownFields::default(),
                };
                let word = Word::Pool(PoolWord::Given(answer)).to_bytes();
                let commit = given.map_or(CommitId::default(), |(_, commit)| commit);
                self.hold(commit, home_of_pool(&asked.pool), Held::Say { to: from, word });
            }
            PoolWord::Given(given) => {
                // No question is open if a repetition was answered, too.
                if let Some(question) = self.questions.open.remove(&given.question) {
                    self.endpoint.handle_address(boot_time(), question.request, given.address.ok_or(NoAddress));
                }
            }
            PoolWord::Returned(returned) => {
                if self.tenures.contains_key(&home_of_pool(&returned.pool)) {
                    self.take_back(&returned.pool, returned.address, returned.session);
                }
            }
        }
    }

    pub(super) fn repeat_questions(&mut self, now: Time) {
        let due: Vec<u64> =
            self.questions.open.iter().filter(|(_, open)| open.repeat_at <= now).map(|(number, _)| *number).collect();
        for number in due {
            let Some(mut question) = self.questions.open.remove(&number) else { continue };
            if question.give_up_at <= now {
                warn!(pool = question.pool, "no node gives out the pool's addresses now");
                self.endpoint.handle_address(now, question.request, Err(NoAddress));
                continue;
            }
            if let Some(link) = &self.link {
                link.ask(home_of_pool(&question.pool), question.word.clone());
            }
            question.repeat_at = now + REPEAT_EVERY;
            self.questions.open.insert(number, question);
        }
    }

    /// Looks for addresses that were given and that no session came to use, because a node died in between: they come back.
    pub(super) fn reclaim(&mut self, now: Time) {
        if self.reclaim_at > now {
            return;
        }
        self.reclaim_at = now + RECLAIM_EVERY;
        let before = now.before(self.cluster.ike.half_open_time.saturating_add(RECLAIM_AFTER));
        let claims = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let mut doubtful = Vec::new();
        for (name, pool) in &self.pools {
            // What an SA carries is in use; only the others are worth a closer look.
            let loose = pool.given_before(before).filter(|given| claims.home(given.address) != Some(given.home()));
            doubtful.extend(loose.map(|given| (name.clone(), given)));
        }
        drop(claims);
        for (pool, given) in doubtful.into_iter().take(RECLAIM_MAX) {
            match &self.link {
                Some(link) if !self.tenures.contains_key(&given.home()) => {
                    let (link, answers) = (link.clone(), self.answers.clone());
                    tokio::spawn(async move {
                        // Every node holds the records of every session.
                        let Some(records) = link.records(given.home()).await else { return };
                        let ours = records.iter().filter(|(id, _)| id.kind == RecordKind::IKE_SA);
                        let named = ours.into_iter().any(|(_, octets)| match ike::Session::from_record(octets) {
                            Ok(session) => session.is_some_and(|session| session.inner_address == Some(given.address)),
                            // It may be the one that names it.
                            Err(_) => true,
                        });
                        if !named {
                            // Only a driver that has ended does not take it.
                            let _ended = answers.send(Answer::Unclaimed(pool, given));
                        }
                    });
                }
                Some(_) | None => {
                    let named = self.endpoint.sessions(now).any(|session| session.inner_address == Some(given.address));
                    if !named {
                        self.on_unclaimed(&pool, given);
                    }
                }
            }
        }
    }

    pub(super) fn on_unclaimed(&mut self, pool: &str, given: Given) {
        info!(
            pool,
            session = %format_args!("{:016x}", given.session),
            "an address was given to a session that never came up, and is free again"
        );
        self.take_back(pool, given.address, given.session);
    }

    /// Becomes the owner of a set in which pools may live: learns what was given.
    pub(super) fn adopt_pools(&mut self, leases: Vec<(RecordId, PoolLease)>) {
        for (id, lease) in leases {
            let Ok(identity) = Identity::decode(lease.id_type, &lease.id_data) else { continue };
            let Ok(bits) = u32::try_from(id.key) else { continue };
            let address = IpAddr::V4(bits.into());
            if let Some(pool) = self.pools.get_mut(&lease.pool) {
                pool.note_given(boot_time(), address, &identity, lease.session, lease.in_use);
            }
        }
    }

    /// Forgets the pools that live in a set which this node owns no more.
    pub(super) fn forget_pools(&mut self, set: WorkSet) {
        let cluster = Arc::clone(&self.cluster);
        for pool in cluster.pools.iter().filter(|pool| home_of_pool(&pool.name) == set) {
            self.pools.insert(pool.name.clone(), Pool::new(pool, reserved(&cluster)));
        }
    }
}

/// How often the owner of a pool looks for addresses that nobody uses.
const RECLAIM_EVERY: Duration = Duration::from_secs(10);
/// A login that is not complete so long after the time that it has for that never will be.
const RECLAIM_AFTER: Duration = Duration::from_secs(10);
/// Addresses that are looked at more closely at one time.
const RECLAIM_MAX: usize = 256;
/// A question that may have been lost with its node is asked again after so long …
const REPEAT_EVERY: Duration = Duration::from_millis(250);
/// … and given up after so long; the peer is then told that there is no address.
const GIVE_UP_AFTER: Duration = Duration::from_secs(5);
