//! `cryptocluster enroll`.

use std::path::PathBuf;
use std::process::ExitCode;

use control::{Accepted, Approvals, ControlError, Incoming, Preview, ReplyForm};
use enroll::{Paper, RejectionReason, Words, large_words, qr_half_blocks, spelled};
use serde::Serialize;

use super::store::{StoreArgs, UnlockArgs, at_terminal, prompt, read_text};
use crate::fault::REFUSED;
use command::{output, say};

/// Answer the requests that devices print.
#[derive(Debug, clap::Subcommand)]
pub(super) enum EnrollVerb {
    /// Check a request, issue its certificate, and print the reply.
    Accept(Accept),
    /// Refuse a request, and print the rejection.
    Reject(Reject),
}

#[derive(Debug, clap::Args)]
pub(super) struct Accept {
    /// A file with the request, or a mail around it; without one it is pasted.
    file: Option<PathBuf>,
    /// The six words that were read out to you, if the ticket asks for them; four letters of each are enough.
    #[arg(long, value_name = "WORDS")]
    words: Option<String>,
    /// The form of the reply; without it complete, or full where the CA's key has no place in a complete one.
    #[arg(long, value_enum)]
    form: Option<Form>,
    /// For how many days the certificate is valid.
    #[arg(long, value_name = "DAYS", default_value_t = 398)]
    days: u16,
    #[command(flatten)]
    look: Look,
    #[command(flatten)]
    unlock: UnlockArgs,
    #[command(flatten)]
    store: StoreArgs,
}

#[derive(Debug, clap::Args)]
pub(super) struct Reject {
    /// A file with the request, or a mail around it; without one it is pasted.
    file: Option<PathBuf>,
    /// Why.
    #[arg(long, value_enum, default_value = "other")]
    reason: Reason,
    #[command(flatten)]
    look: Look,
    #[command(flatten)]
    store: StoreArgs,
}

/// How a reply is shown.
#[derive(Debug, clap::Args)]
struct Look {
    /// Also show the reply as a QR code.
    #[arg(long)]
    qr: bool,
    /// Also spell the reply, to be read out.
    #[arg(long)]
    speak: bool,
}

/// The form of a reply.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Form {
    /// All that is needed, in about ten lines.
    Complete,
    /// Four lines for the telephone; the certificate is to be fetched from the gateway, which cannot give it yet.
    Short,
    /// One line and PEM blocks, for mail.
    Full,
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Reason {
    /// The words that were read out are not those of the request.
    Words,
    /// The cluster's policy forbids it.
    Policy,
    /// No more certificates may be issued.
    Quota,
    /// Something else.
    Other,
}

#[derive(Serialize)]
struct Answer {
    outcome: &'static str,
    ticket: String,
    name: String,
    serial: Option<String>,
    reason: Option<String>,
    repaired: Vec<String>,
    reply: String,
    qr: String,
    words: Option<String>,
}

impl EnrollVerb {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Accept(accept) => accept.run(),
            Self::Reject(reject) => reject.run(),
        }
    }
}

impl Accept {
    fn run(self) -> anyhow::Result<ExitCode> {
        let text = read_text(self.file.as_deref(), "the request")?;
        let (accepted, incoming) = self.store.with(async |control, context| {
            let incoming = control.read_request(&text).await?;
            let preview = control.preview(context, &incoming).await?;
            let approvals = match &self.words {
                Some(words) => Approvals::Words(Words::parse(words).map_err(ControlError::from)?),
                None if preview == Preview::Ask && at_terminal() => {
                    say!("A request for {} on ticket {}.", incoming.name, incoming.ticket);
                    let typed = prompt("Let its six words be read out by telephone, and type them here: ")?;
                    Approvals::Words(Words::parse(&typed).map_err(ControlError::from)?)
                }
                None => Approvals::Code,
            };
            let signs = match preview {
                Preview::Issue => true,
                Preview::Ask => approvals != Approvals::Code,
                Preview::Again | Preview::Reject(_) => false,
            };
            let authority = if signs { Some(control.open_authority(&mut self.unlock.opening()).await?) } else { None };
            let form = match self.form {
                None => ReplyForm::Usual,
                Some(Form::Complete) => ReplyForm::Complete,
                Some(Form::Short) => ReplyForm::Short,
                Some(Form::Full) => ReplyForm::Full,
            };
            let accepted = control.accept(context, &incoming, approvals, authority.as_ref(), self.days, form).await?;
            Ok((accepted, incoming))
        })?;
        show(&self.store, &self.look, &accepted, &incoming)
    }
}

impl Reject {
    fn run(self) -> anyhow::Result<ExitCode> {
        let text = read_text(self.file.as_deref(), "the request")?;
        let reason = match self.reason {
            Reason::Words => RejectionReason::WordsDiffer,
            Reason::Policy => RejectionReason::Policy,
            Reason::Quota => RejectionReason::Quota,
            Reason::Other => RejectionReason::Other,
        };
        let (rejected, incoming) = self.store.with(async |control, context| {
            let incoming = control.read_request(&text).await?;
            Ok((control.reject(context, &incoming, reason).await?, incoming))
        })?;
        show(&self.store, &self.look, &rejected, &incoming)?;
        Ok(ExitCode::SUCCESS)
    }
}

fn show(store: &StoreArgs, look: &Look, accepted: &Accepted, incoming: &Incoming) -> anyhow::Result<ExitCode> {
    let lines: String = accepted.lines.iter().map(|line| format!("{line}\n")).collect();
    let answer = Answer {
        outcome: match (accepted.reason, accepted.again) {
            (Some(_), _) => "rejected",
            (None, true) => "again",
            (None, false) => "issued",
        },
        ticket: accepted.ticket.to_string(),
        name: accepted.name.clone(),
        serial: accepted.serial.map(|serial| serial.to_string()),
        reason: accepted.reason.map(|reason| reason.to_string()),
        repaired: incoming.repairs.clone(),
        reply: format!("{lines}{}", accepted.blocks),
        qr: accepted.compact.clone(),
        words: accepted.words.map(|words| words.to_string()),
    };
    store.show(&answer, |answer| {
        say!("A request for {} on ticket {}.", answer.name, answer.ticket);
        for repair in &answer.repaired {
            say!("  repaired: {repair}");
        }
        match (&answer.serial, &answer.reason) {
            (Some(serial), _) if accepted.again => {
                say!("It was answered before, with certificate {serial}. The same reply again:\n")
            }
            (Some(serial), _) => say!("Certificate {serial} is issued. Send this reply:\n"),
            (None, reason) => say!(
                "It is REJECTED: {}. Send this rejection, so that its sender knows:\n",
                reason.as_deref().unwrap_or_default()
            ),
        }
        for line in &accepted.lines {
            say!("    {line}");
        }
        if !accepted.blocks.is_empty() {
            output::write(&format!("\n{}", accepted.blocks));
        }
        if look.qr {
            output::write(&format!("\n{}", qr_half_blocks(&answer.qr, Paper::Colours)));
        }
        if look.speak {
            say!("");
            for line in &accepted.lines {
                say!("  {}", spelled(line));
            }
        }
        if let Some(words) = accepted.words {
            say!("\nBoth sides now compare these six words:\n\n{}", large_words(&words));
        }
    })?;
    Ok(if accepted.reason.is_some() { ExitCode::from(REFUSED) } else { ExitCode::SUCCESS })
}
