//! A store in a directory of its own, and a device that writes requests.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use control::{
    Approvals, CaOrder, CertificateKind, CertificateStanding, CertificateWish, Context, ControlError, NewTicket,
    ReplyForm, RootKeeping, Store, TicketWish, Unlock,
};
use enroll::{
    Algorithm, AllowedKeys, Approval, Authority, AuthorityAlgorithm, ClusterName, Code, GatewayName, Opener, Pending,
    PrivateKey, Profile, Request, RequestedKey, Role, TicketKeys, UnixTime, Words,
};
use rand::SeedableRng;
use rand::rngs::StdRng;
use wire::Secret;

/// Noon of 2026-11-21.
pub(crate) const NOON: UnixTime = UnixTime { seconds: 1_795_219_200 + 43_200 };
/// What the CA's key is sealed under.
pub(crate) const KEY_FILE: [u8; 32] = [7; 32];

/// Opens with [`KEY_FILE`].
pub(crate) struct WithKeyFile;

impl Unlock for WithKeyFile {
    fn passphrase(&mut self) -> Result<Secret, ControlError> {
        panic!("no passphrase is asked for");
    }

    fn key_file(&mut self, _: &Path) -> Result<Secret, ControlError> {
        Ok(Secret::from_slice(&KEY_FILE))
    }
}

/// A directory for a store; it goes at the end.
pub(crate) struct Desk {
    pub(crate) directory: PathBuf,
}

impl Drop for Desk {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.directory).ok();
    }
}

impl Desk {
    /// A directory without a store.
    pub(crate) fn bare() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("control-{}-{number}", std::process::id()));
        Self { directory }
    }

    /// A directory with a store and a P-256 CA.
    pub(crate) async fn new() -> (Self, Store) {
        let desk = Self::bare();
        let store = desk.create(AuthorityAlgorithm::P256).await.unwrap();
        (desk, store)
    }

    pub(crate) async fn create(&self, algorithm: AuthorityAlgorithm) -> Result<Store, ControlError> {
        self.create_cluster("hq-vpn", algorithm).await
    }

    pub(crate) async fn create_cluster(
        &self,
        name: &str,
        algorithm: AuthorityAlgorithm,
    ) -> Result<Store, ControlError> {
        let (cluster, gateway) = (ClusterName::new(name).unwrap(), GatewayName::new("vpn.example.org").unwrap());
        let key = Secret::from_slice(&KEY_FILE);
        let opener = Opener::KeyFile(&key);
        let order = CaOrder { algorithm, days: 3650, opener, root: RootKeeping::None };
        Store::create(&at(0), &self.directory, &cluster, &gateway, &order).await
    }

    pub(crate) async fn open(&self) -> Store {
        Store::open(&self.directory).await.unwrap()
    }

    /// The database itself, as another program opens it.
    pub(crate) async fn raw(&self) -> sqlx::SqliteConnection {
        use sqlx::Connection as _;
        let path = format!("sqlite://{}", self.directory.join("store.db").display());
        sqlx::SqliteConnection::connect(&path).await.unwrap()
    }
}

/// So many seconds after noon.
pub(crate) fn at(seconds: u64) -> Context {
    Context { now: NOON.after(Duration::from_secs(seconds)), actor: "tester".to_owned() }
}

pub(crate) fn wish(name: &str, approval: Approval) -> TicketWish {
    TicketWish {
        role: Role::Client,
        name: name.to_owned(),
        profile: Profile::default(),
        expires: NOON.after(Duration::from_hours(24)),
        approval,
        keys: AllowedKeys::ALL,
    }
}

/// A client's certificate for a month, without a code.
pub(crate) const fn client(name: &str) -> CertificateWish<'_> {
    CertificateWish { kind: CertificateKind::Client, name, days: 30 }
}

/// A device: its key, its request, and what it keeps.
pub(crate) struct Device {
    pub(crate) key: PrivateKey,
    pub(crate) request: String,
    pub(crate) pending: Pending,
    pub(crate) words: Words,
}

impl Device {
    pub(crate) fn new(ticket: &NewTicket, seed: u64) -> Self {
        let key = PrivateKey::draw(Algorithm::P256, &mut StdRng::seed_from_u64(seed)).unwrap();
        Self::with(ticket, key)
    }

    pub(crate) fn with(ticket: &NewTicket, key: PrivateKey) -> Self {
        let keys = TicketKeys::derive(&Code::parse(&ticket.code).unwrap());
        let requested = RequestedKey::Whole(*key.public());
        let (message, hash) = Request::compose(&keys.request, &requested);
        let words = Words::of_request(Role::Client, &hash);
        let pending = Pending { reply: keys.reply, reject: keys.reject, hash, key: requested };
        Self { key, request: message.to_string(), pending, words }
    }
}

/// A node's certificate that is suspended, since another valid request came on its ticket; gives that request.
pub(crate) async fn suspended(store: &mut Store, ca: &Authority, name: &str) -> String {
    let expires = NOON.after(Duration::from_secs(3000));
    let wish = TicketWish { role: Role::Node, expires, ..wish(name, Approval::Ask) };
    let ticket = store.new_ticket(&at(2), &wish).await.unwrap();
    let (node, thief) = (Device::new(&ticket, 1), Device::new(&ticket, 2));
    let words = Approvals::Words(Words::of_request(Role::Node, &node.pending.hash));
    let incoming = store.read_request(&node.request).await.unwrap();
    store.accept(&at(3), &incoming, words, Some(ca), 30, ReplyForm::Complete).await.unwrap();
    let stolen = store.read_request(&thief.request).await.unwrap();
    store.accept(&at(4), &stolen, Approvals::Code, None, 30, ReplyForm::Complete).await.unwrap();
    assert_eq!(store.certificate(&at(5), name).await.unwrap().standing, CertificateStanding::Suspended);
    thief.request
}

/// The CA that issues.
pub(crate) async fn authority(store: &mut Store) -> Authority {
    store.open_authority(&mut WithKeyFile).await.unwrap()
}
