//! The cluster's durable records and the operations on them. Command, API and console use the same ones.
//!
//! A [`Store`] is a directory with an SQLite database and a key. Every operation is one transaction that also writes the
//! [journal](Store::journal), so that a kill at any point leaves all of it or nothing. Ticket life, format and CA are in
//! `enroll`; here is what must survive.
//!
//! ```no_run
//! # async fn example() -> Result<(), control::ControlError> {
//! use control::{Context, Store};
//! let mut store = Store::open("/var/lib/cryptocluster".as_ref()).await?;
//! let context = Context::now("root");
//! for ticket in store.tickets(&context).await? {
//!     println!("{} {}", ticket.number, ticket.name);
//! }
//! # Ok(())
//! # }
//! ```

mod authority;
mod backup;
mod certificate;
mod context;
mod enrollment;
mod error;
mod files;
mod issue;
mod journal;
mod profile;
mod record;
mod revocation;
mod row;
mod store;
mod ticket;

pub use authority::{AuthorityEntry, CaOrder, RootKeeping, Unlock};
pub use backup::{Backup, Restored};
pub use certificate::{CalendarEntry, CertificateEntry, CertificateKind, CertificateStanding};
pub use context::Context;
pub use enrollment::{Accepted, Approvals, Incoming, Preview, ReplyForm};
pub use error::{ControlError, Kind};
pub use files::{Draft, read_secret, write_private, write_public};
pub use issue::{CertificateWish, Issued, Renewal};
pub use journal::{JournalEntry, JournalHead};
pub use profile::{ProfileEntry, ProfileKey};
pub use revocation::{ReleaseReport, RevocationReport};
pub use store::Store;
pub use ticket::{NewTicket, TicketEntry, TicketWish};
