//! `cryptocluster ticket`.

use std::time::Duration;

use control::{TicketEntry, TicketWish};
use enroll::{AllowedKeys, Approval, Paper, Role, qr_half_blocks, spelled};
use serde::Serialize;

use super::store::StoreArgs;
use command::say;

/// Make, list and withdraw tickets: each lets one device ask for one certificate.
#[derive(Debug, clap::Subcommand)]
pub(super) enum TicketVerb {
    /// Make a ticket and show its code, once.
    New(New),
    /// List all tickets.
    List(StoreArgs),
    /// Show one ticket.
    Show {
        /// The ticket's number, the first group of its code.
        number: String,
        #[command(flatten)]
        store: StoreArgs,
    },
    /// Withdraw a ticket, and revoke what was issued on it.
    Void {
        /// The ticket's number, the first group of its code.
        number: String,
        #[command(flatten)]
        store: StoreArgs,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct New {
    /// Whom the certificate names.
    name: String,
    /// For a node of the cluster instead of a client.
    #[arg(long)]
    node: bool,
    /// Number or name of the profile.
    #[arg(long, default_value = "0")]
    profile: String,
    /// How long the code can be used, such as 2h or 7d; a node's at most 1h.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    expires: Option<Duration>,
    /// Issue only after the six words of the request were read out to you; nodes always ask.
    #[arg(long)]
    ask: bool,
    /// Which keys are taken.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "p256,ed25519")]
    keys: Vec<KeyKind>,
    /// Also show the code as a QR code.
    #[arg(long)]
    qr: bool,
    #[command(flatten)]
    store: StoreArgs,
}

/// A key that a ticket takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum KeyKind {
    /// Ed25519.
    Ed25519,
    /// ECDSA on P-256.
    P256,
    /// A key that the request names by its hash: RSA, P-384.
    Hashed,
}

#[derive(Serialize)]
struct Made<'a> {
    number: &'a str,
    name: &'a str,
    code: &'a str,
    expires: String,
}

impl TicketVerb {
    pub(super) fn run(self) -> anyhow::Result<()> {
        match self {
            Self::New(new) => new.run(),
            Self::List(store) => {
                let tickets = store.with(async |control, context| Ok(control.tickets(context).await?))?;
                store.show(&tickets, |tickets| {
                    say!("{:<7} {:<7} {:<11} {:<20}  name", "ticket", "role", "status", "ends");
                    tickets.iter().for_each(line);
                })
            }
            Self::Show { number, store } => {
                let ticket = store.with(async |control, context| Ok(control.ticket(context, &number).await?))?;
                store.show(&ticket, show)
            }
            Self::Void { number, store } => {
                let ticket = store.with(async |control, context| Ok(control.void_ticket(context, &number).await?))?;
                store.show(&ticket, |ticket| say!("Ticket {} ({}) is void.", ticket.number, ticket.name))
            }
        }
    }
}

impl New {
    fn run(self) -> anyhow::Result<()> {
        let usual = if self.node { Duration::from_hours(1) } else { Duration::from_hours(7 * 24) };
        let life = self.expires.unwrap_or(usual);
        let has = |kind| self.keys.contains(&kind);
        let keys =
            AllowedKeys { ed25519: has(KeyKind::Ed25519), p256: has(KeyKind::P256), hashed: has(KeyKind::Hashed) };
        let made = self.store.with(async |control, context| {
            let wish = TicketWish {
                role: if self.node { Role::Node } else { Role::Client },
                name: self.name.clone(),
                profile: control.find_profile(&self.profile).await?,
                expires: context.now.after(life),
                approval: if self.ask || self.node { Approval::Ask } else { Approval::Auto },
                keys,
            };
            Ok(control.new_ticket(context, &wish).await?)
        })?;
        let answer =
            Made { number: &made.number, name: &made.name, code: &made.code, expires: made.expires.to_string() };
        self.store.show(&answer, |made| {
            say!("Ticket {} for {}, good until {}.\n", made.number, made.name, made.expires);
            say!("    {}\n", made.code);
            say!("  spoken: {}\n", spelled(made.code));
            if self.qr {
                say!("{}", qr_half_blocks(made.code, Paper::Colours));
            }
            say!(
                "Tell the code to {} by telephone, on paper or by SMS, never in the same mail as the request.",
                made.name
            );
            say!("It is not shown again. There: ccvpn enroll. Then here: cryptocluster enroll accept");
        })
    }
}

fn line(ticket: &TicketEntry) {
    say!(
        "{:<7} {:<7} {:<11} {:<20}  {}{}",
        ticket.number,
        ticket.role,
        ticket.status,
        ticket.expires,
        ticket.name,
        ticket.voided.as_ref().map_or_else(String::new, |why| format!("  ({why})"))
    );
}

fn show(ticket: &TicketEntry) {
    say!("ticket    {}", ticket.number);
    say!("role      {}", ticket.role);
    say!("name      {}", ticket.name);
    say!("status    {}", ticket.status);
    say!("made      {}", ticket.made);
    say!("ends      {}", ticket.expires);
    say!("profile   {}", ticket.profile);
    say!("approval  {}", if ticket.ask { "by the six words" } else { "by the code" });
    say!("waiting   {}", ticket.waiting);
    if let Some(serial) = &ticket.serial {
        say!("issued    {serial}");
    }
    if let Some(why) = &ticket.voided {
        say!("voided    {why}");
    }
}

/// Reads `90m`, `2h`, `7d`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no time: use minutes, hours or days, such as 30m, 2h, 7d");
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let seconds = match unit {
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    number.checked_mul(seconds).filter(|&seconds| seconds > 0).map(Duration::from_secs).ok_or_else(wrong)
}
