//! An administrator with a CA, and requests of devices that are only keys.

use enroll::{
    Algorithm, Code, Pending, PrivateKey, Reader, Reply, Request, RequestedKey, Role, TicketKeys, Words, pem_blocks,
};
use lab::enrollment::{Party, Scratch, make_ca, text};
use rand::SeedableRng;
use rand::rngs::StdRng;

pub(crate) struct Desk {
    pub(crate) admin: Party,
    pub(crate) scratch: Scratch,
}

impl Desk {
    pub(crate) fn new(name: &str) -> Self {
        Self::of(name, "hq-vpn")
    }

    pub(crate) fn of(name: &str, cluster: &str) -> Self {
        let scratch = Scratch::new(name).unwrap();
        let admin = Party::administrator(&scratch.path("store")).unwrap();
        make_ca(&admin, cluster, "vpn.example.org").unwrap();
        Self { admin, scratch }
    }

    pub(crate) fn device(&self, name: &str) -> Party {
        Party::device(&self.scratch.path(name)).unwrap()
    }

    /// A ticket's number and code.
    pub(crate) fn ticket(&self, name: &str, more: &[&str]) -> (String, String) {
        let arguments: Vec<&str> = ["ticket", "new", name].into_iter().chain(more.iter().copied()).collect();
        let made = self.admin.json(&arguments).unwrap();
        (text(&made, "number").unwrap(), text(&made, "code").unwrap())
    }

    /// A ticket, and the request of a device with a fresh key in a file.
    pub(crate) fn request(&self, name: &str, seed: u64) -> Asked {
        let (ticket, code) = self.ticket(name, &[]);
        self.request_with(name, ticket, &code, seed)
    }

    /// A node's certificate that is suspended: two requests, with two fresh keys, came on its ticket.
    pub(crate) fn suspended(&self, name: &str, seed: u64) {
        let (ticket, code) = self.ticket(name, &["--node"]);
        let node = self.request_with(name, ticket.clone(), &code, seed);
        let words = Words::of_request(Role::Node, &node.pending.hash).to_string();
        self.admin.good(&["enroll", "accept", &node.file, "--words", &words]).unwrap();
        let thief = self.request_with(name, ticket, &code, seed + 1);
        assert_eq!(self.admin.run(&["enroll", "accept", &thief.file], "").unwrap().code, Some(5));
    }

    /// The request of a device with a fresh key for a code.
    pub(crate) fn request_with(&self, name: &str, ticket: String, code: &str, seed: u64) -> Asked {
        let keys = TicketKeys::derive(&Code::parse(code).unwrap());
        let key = PrivateKey::draw(Algorithm::P256, &mut StdRng::seed_from_u64(seed)).unwrap();
        let key = RequestedKey::Whole(*key.public());
        let (message, hash) = Request::compose(&keys.request, &key);
        let file = self.scratch.put(&format!("{name}.request"), &message.to_string()).unwrap();
        Asked { ticket, file, pending: Pending { reply: keys.reply, reject: keys.reject, hash, key } }
    }
}

pub(crate) struct Asked {
    pub(crate) ticket: String,
    pub(crate) file: String,
    pub(crate) pending: Pending,
}

impl Asked {
    /// The reply in a text, whose MAC must hold.
    pub(crate) fn open(&self, text: &str) -> Reply {
        let mut reader = Reader::default();
        reader.add(text);
        let blocks = pem_blocks(text);
        reader.resolve(|symbols| self.pending.open(symbols, &blocks)).unwrap().message
    }
}
