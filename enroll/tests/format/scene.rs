//! A gateway, a client and what passes between them, for the tests.

use std::time::Duration;

use enroll::{
    Algorithm, AllowedKeys, Approval, ClientName, ClusterName, Code, CompleteReply, GatewayName, Grant, Message,
    Pending, PrivateKey, Profile, Replies, Request, RequestedKey, Role, Serial, ShortReply, ShortTerms, Terms, Ticket,
    TicketKeys, TicketNumber, TicketOrder, UnixTime, Validity,
};
use rand::SeedableRng;
use rand::rngs::StdRng;

/// 2026-11-21, 00:00 UTC.
pub(crate) const START: UnixTime = UnixTime { seconds: 1_795_219_200 };

/// One ticket, its client, and a thief who has the same code.
pub(crate) struct Scene {
    pub(crate) rng: StdRng,
    pub(crate) code: Code,
    pub(crate) ticket: Ticket,
    pub(crate) client: PrivateKey,
    pub(crate) thief: PrivateKey,
    pub(crate) ca: PrivateKey,
}

impl Scene {
    pub(crate) fn new(seed: u64, role: Role, approval: Approval) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let ticket = TicketNumber::draw(&mut rng);
        let code = Code::draw(role, ticket, &mut rng);
        let order = TicketOrder {
            role,
            name: ClientName::new("alice-laptop").unwrap(),
            profile: Profile::new(1).unwrap(),
            expires: START.after(Duration::from_secs(3600)),
            approval,
            keys: AllowedKeys::ALL,
        };
        let ticket = Ticket::open(START, order, TicketKeys::derive(&code), []).unwrap();
        let mut key = |algorithm| PrivateKey::draw(algorithm, &mut rng).unwrap();
        let (client, thief, ca) = (key(Algorithm::P256), key(Algorithm::Ed25519), key(Algorithm::P256));
        Self { rng, code, ticket, client, thief, ca }
    }

    pub(crate) fn keys(&self) -> TicketKeys {
        TicketKeys::derive(&self.code)
    }

    /// The request that the holder of a key writes, and what the holder keeps.
    pub(crate) fn request_of(&self, key: &PrivateKey) -> (Message, Pending) {
        let keys = self.keys();
        let key = RequestedKey::Whole(*key.public());
        let (message, hash) = Request::compose(&keys.request, &key);
        (message, Pending { reply: keys.reply, reject: keys.reject, hash, key })
    }

    /// The request as the gateway reads it.
    pub(crate) fn read(&self, message: &Message) -> Request {
        Request::decode(self.ticket.request_key().unwrap(), message.symbols()).unwrap()
    }

    pub(crate) fn grant(&mut self, request: &Request) -> Grant {
        let serial = Serial::draw(&mut self.rng);
        Grant { hash: request.hash, serial, validity: Validity::new(20_777, 398).unwrap() }
    }

    /// All forms of the reply to a grant.
    pub(crate) fn replies(&self, grant: &Grant, key: &PrivateKey) -> Replies {
        let keys = self.keys();
        let terms = Terms {
            serial: grant.serial,
            validity: grant.validity,
            cluster: ClusterName::new("hq-vpn").unwrap(),
            client: self.ticket.order().name.clone(),
            gateway: GatewayName::new("vpn.example.org").unwrap(),
            profile: self.ticket.order().profile,
        };
        let template = terms.template(self.code.role(), *key.public(), *self.ca.public());
        let signature = self.ca.sign(&template.tbs()).unwrap();
        let certificate = template.certificate(&signature).unwrap();
        let short = ShortReply {
            terms: ShortTerms {
                ca_hash: ShortTerms::ca_hash(&self.ca.public().spki_hash()),
                serial: grant.serial,
                expiry_day: grant.validity.expiry_day(),
                gateway: terms.gateway.clone(),
            },
        };
        let complete = CompleteReply { issuer_key: *self.ca.public(), terms, signature };
        let full = enroll::FullReply { blocks: vec![certificate.clone(), b"profile".to_vec()] };
        Replies {
            certificate: Some(certificate),
            complete: Some(complete.compose(&keys.reply, &grant.hash)),
            short: short.compose(&keys.reply, &grant.hash),
            full: Some((full.compose(&keys.reply, &grant.hash).unwrap(), full.blocks)),
        }
    }
}
