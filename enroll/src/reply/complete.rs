//! The complete reply: the fields of a certificate and the CA's signature, to rebuild it from.

use crate::bits::MessageBits;
use crate::code::Role;
use crate::key::{PublicKey, RequestedKey};
use crate::mac::{ReplyKey, RequestHash};
use crate::message::{Header, Message, MessageKind, open, seal};
use crate::name::{
    CLIENT_LENGTH_BITS, ClientName, ClusterName, GATEWAY_LENGTH_BITS, GatewayName, Profile, push_text, take_text,
};
use crate::refusal::Refusal;
use crate::symbol::Symbol;
use crate::template::{Serial, Template, Validity};

/// What a certificate is issued on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The certificate's serial.
    pub serial: Serial,
    /// From when to when.
    pub validity: Validity,
    /// The cluster.
    pub cluster: ClusterName,
    /// The client, as the ticket names it.
    pub client: ClientName,
    /// Where to connect.
    pub gateway: GatewayName,
    /// Which profile the client gets.
    pub profile: Profile,
}

impl Terms {
    /// The certificate to sign or to rebuild.
    #[must_use]
    pub fn template(&self, role: Role, key: PublicKey, issuer_key: PublicKey) -> Template {
        Template {
            role,
            cluster: self.cluster.clone(),
            name: self.client.clone(),
            key,
            serial: self.serial,
            validity: self.validity,
            issuer_key,
        }
    }
}

/// A complete reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompleteReply {
    /// The issuing CA's key.
    pub issuer_key: PublicKey,
    /// What the certificate says.
    pub terms: Terms,
    /// The CA's signature: r ‖ s, or Ed25519's 64 octets.
    pub signature: [u8; 64],
}

impl CompleteReply {
    /// Writes the reply to the request R.
    #[must_use]
    pub fn compose(&self, mac: &ReplyKey, hash: &RequestHash) -> Message {
        let key = RequestedKey::Whole(self.issuer_key);
        let (algorithm, parity, octets) = key.parts();
        let mut body = Header { kind: MessageKind::Complete, algorithm, parity }.start(mac.ticket());
        body.push_octets(octets);
        body.push(self.terms.serial.value(), Serial::BITS);
        body.push(self.terms.validity.start_day().into(), u16::BITS);
        body.push(self.terms.validity.days().into(), Validity::DAYS_BITS);
        push_text(&mut body, self.terms.cluster.as_str(), CLIENT_LENGTH_BITS);
        push_text(&mut body, self.terms.client.as_str(), CLIENT_LENGTH_BITS);
        push_text(&mut body, self.terms.gateway.as_str(), GATEWAY_LENGTH_BITS);
        body.push(self.terms.profile.value().into(), Profile::BITS);
        body.push_octets(&self.signature);
        seal::<TAG_LEN>(body, &mac.0, LABEL, &[hash.octets()], &[]).0
    }

    /// Reads the reply to the request R.
    ///
    /// # Errors
    /// It is malformed, for another ticket or request, its MAC does not hold, or what it says is out of range.
    pub fn decode(mac: &ReplyKey, hash: &RequestHash, symbols: &[Symbol]) -> Result<Self, Refusal> {
        let message = MessageBits::new(symbols);
        let mut bits = message.reader();
        let header = Header::expect(&mut bits, MessageKind::Complete, &mac.0)?;
        let octets = bits.take_octets::<32>()?;
        let serial = bits.take(Serial::BITS)?;
        let start_day = bits.take(u16::BITS)?;
        let days = bits.take(Validity::DAYS_BITS)?;
        let cluster = take_text(&mut bits, CLIENT_LENGTH_BITS)?;
        let client = take_text(&mut bits, CLIENT_LENGTH_BITS)?;
        let gateway = take_text(&mut bits, GATEWAY_LENGTH_BITS)?;
        let profile = bits.take_u8(Profile::BITS)?;
        let signature = bits.take_octets::<64>()?;
        open::<TAG_LEN>(bits, &mac.0, LABEL, &[hash.octets()], &[])?;
        // From here on the sender is proven, and what it says may be looked at.
        let issuer_key = match RequestedKey::from_parts(header.algorithm, header.parity, octets)? {
            RequestedKey::Whole(key) => key,
            RequestedKey::Hashed(_) => return Err(Refusal::Algorithm),
        };
        let day = |day: u64| u16::try_from(day).map_err(|_| Refusal::Days);
        let terms = Terms {
            serial: Serial::new(serial).ok_or(Refusal::Serial)?,
            validity: Validity::new(day(start_day)?, day(days)?)?,
            cluster: ClusterName::new(&cluster)?,
            client: ClientName::new(&client)?,
            gateway: GatewayName::new(&gateway)?,
            profile: Profile::new(profile).unwrap_or_default(),
        };
        Ok(Self { issuer_key, terms, signature })
    }

    /// Rebuilds the certificate for the client's own key.
    ///
    /// # Errors
    /// The CA's key is the client's own, or the signature does not hold over what was rebuilt; then the programs
    /// differ, and a full reply helps.
    pub fn certificate(&self, role: Role, own_key: PublicKey) -> Result<Vec<u8>, Refusal> {
        if self.issuer_key == own_key {
            return Err(Refusal::CaKey);
        }
        self.terms.template(role, own_key, self.issuer_key).certificate(&self.signature)
    }
}

const LABEL: &[u8] = b"reply";
/// Octets of the tag.
const TAG_LEN: usize = 16;
