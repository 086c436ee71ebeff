//! Certificates by text: asked for and delivered in lines that can be read out, photographed or mailed.
//!
//! A **code** ([`Code`]) travels by one channel and gives both ends three keys ([`TicketKeys`]). The client sends its
//! public key as a **request** ([`Request`]) by any other channel; the gateway answers with one of four **replies**
//! ([`Reply`]). Every text is a [`Message`] of numbered **lines** that repair themselves, and [`Reader`] finds them in
//! whatever mail made of them. The MAC alone decides what is accepted.
//!
//! Nothing here does I/O, reads a clock or draws randomness of its own: the driver passes text, days and a
//! [`rand::CryptoRng`].
//!
//! ```
//! use enroll::{Code, PublicKey, Reader, Request, RequestedKey, Role, TicketKeys, TicketNumber};
//! # use rand::SeedableRng;
//! # let mut rng = rand::rngs::StdRng::seed_from_u64(1);
//! # let octets = [0xd7, 0x5a, 0x98, 0x01, 0x82, 0xb1, 0x0a, 0xb7, 0xd5, 0x4b, 0xfe, 0xd3, 0xc9, 0x64, 0x07, 0x3a,
//! #     0x0e, 0xe1, 0x72, 0xf3, 0xda, 0xa6, 0x23, 0x25, 0xaf, 0x02, 0x1a, 0x68, 0xf7, 0x07, 0x51, 0x1a];
//! // The gateway shows a code and keeps the keys.
//! let code = Code::draw(Role::Client, TicketNumber::draw(&mut rng), &mut rng);
//! let gateway = TicketKeys::derive(&code);
//!
//! // The client types it and prints a request for its new key.
//! let client = TicketKeys::derive(&Code::parse(&code.expose())?);
//! let key = RequestedKey::Whole(PublicKey::ed25519(octets)?);
//! let (message, hash) = Request::compose(&client.request, &key);
//!
//! // The gateway finds it in a mail.
//! let mut reader = Reader::default();
//! reader.add(&format!("At 10:02 Alice wrote:\n> {}", message.to_string().replace('\n', "\n> ")));
//! let request = reader.resolve(|symbols| Request::decode(&gateway.request, symbols))?.message;
//! assert_eq!((request.hash, request.key), (hash, Ok(key)));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::as_conversions, clippy::panic)
)]

mod authority;
mod bits;
mod certificate;
mod cms;
mod code;
mod der;
mod key;
mod line;
mod mac;
mod message;
mod name;
mod pem;
mod pkcs10;
mod pkcs12;
mod private;
mod profile;
mod reader;
mod refusal;
mod reply;
mod request;
mod show;
mod symbol;
mod template;
mod ticket;
mod time;
mod words;

pub use authority::{
    Authority, AuthorityAlgorithm, AuthorityError, AuthorityKey, Opener, Rank, Revocation, RevocationCause,
    Revocations, SealCost, SealError, open_key, seal_key,
};
pub use certificate::{CertificateFacts, check_successor, signed_by};
pub use cms::signed;
pub use code::{Code, CodeError, Role, TicketNumber};
pub use key::{Algorithm, Parity, PublicKey, RequestedKey};
pub use line::{LineNumber, Repair};
pub use mac::{RejectKey, ReplyKey, RequestHash, RequestKey, TicketKeys};
pub use message::{Message, MessageKind, peek};
pub use name::{ClientName, ClusterName, GatewayName, Profile, ProfileNames};
pub use pem::{pem_block, pem_blocks};
pub use pkcs10::SigningRequest;
pub use pkcs12::{BundleCipher, BundleError, pkcs12};
pub use private::{PrivateKey, PrivateKeyError};
pub use profile::{
    Connection, ESP_PROPOSALS, IKE_PROPOSALS, Identity, ProfileBlock, ProfileError, ProfileFile, ProfileFormat,
    Settings, SettingsError,
};
pub use reader::{Read, ReadError, Reader};
pub use refusal::{KeyRefusal, Refusal};
pub use reply::{CompleteReply, FullReply, Pending, Rejection, RejectionReason, Reply, ShortReply, ShortTerms, Terms};
pub use request::Request;
pub use show::{Paper, large_words, qr_half_blocks, qr_modules, spelled};
pub use symbol::Symbol;
pub use template::{Serial, Template, Validity};
pub use ticket::{
    Alarm, AllowedKeys, Answer, Approval, ConsumeError, Effect, Grant, KeyStanding, Life, OrderError, Replies, State,
    Status, Ticket, TicketOrder, TicketParts, Use, VoidReason, Waiting,
};
pub use time::UnixTime;
pub use words::{Words, WordsError};
