//! The reply: read, checked, and kept as a profile.

use enroll::{
    CertificateFacts, CompleteReply, FullReply, Pending, ProfileBlock, PublicKey, ReadError, Reader, Refusal, Reply,
    RequestedKey, Serial, Settings, ShortReply, ShortTerms, UnixTime, Words, large_words, pem_blocks, signed_by,
};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::waiting::Waiting;
use crate::cli::Place;
use crate::fault::Fault;
use crate::home::Home;
use crate::profile::{Kept, Profile, today};
use crate::terminal::{Verdict, attended, compare};
use command::say;

#[derive(Serialize)]
struct Enrolled<'a> {
    outcome: &'static str,
    form: &'static str,
    ticket: String,
    profile: &'a str,
    gateway: String,
    serial: String,
    expires: String,
    words: String,
}

/// What a reply gives, whatever its form.
struct Gift {
    form: &'static str,
    terms: ShortTerms,
    cluster: String,
    name: String,
    starts: UnixTime,
    kept: Kept,
    settings: Settings,
}

/// Finds the reply in a text, whatever a mail made of it.
pub(super) fn open(pending: &Pending, text: &str) -> Result<Reply, Fault> {
    let mut reader = Reader::default();
    reader.add(text);
    let blocks = pem_blocks(text);
    let read = reader.resolve(|symbols| pending.open(symbols, &blocks));
    match read {
        Ok(read) => Ok(read.message),
        Err(ReadError::Unreadable(lines)) => Err(Fault::Lines(lines)),
        Err(ReadError::NoMessage(refusal)) => Err(Fault::Foreign(refusal)),
        Err(ReadError::Refused(refusal)) => Err(unusable(refusal)),
    }
}

/// Checks a reply, compares the words, keeps the profile, and only then erases the keys that waited.
pub(super) fn finish(home: &Home, waiting: &Waiting, text: &str, compared: bool, place: &Place) -> anyhow::Result<()> {
    let gift = match open(&waiting.pending, text)? {
        Reply::Complete(reply) => Gift::of_complete(waiting, &reply)?,
        Reply::Short(reply) => Gift::of_short(&reply),
        Reply::Full(reply) => Gift::of_full(waiting, &reply)?,
        // Only the user ends a request that waits, not a rejection.
        Reply::Rejection(rejection) => return Err(Fault::Rejected(rejection.reason).into()),
    };
    let (now, expires) = (today()?, UnixTime::of_day(gift.terms.expiry_day.into()));
    if gift.starts.day() > now.day() {
        return Err(Fault::ClockBehind { starts: gift.starts.date(), now: now.date() }.into());
    }
    if expires.day() <= now.day() {
        return Err(Fault::Expired { ended: expires.date(), now: now.date() }.into());
    }
    let words = Words::of_issue(waiting.role(), &waiting.pending.hash, &gift.terms);
    if !compared && place.json {
        say!("{}", serde_json::json!({ "outcome": "compare", "words": words.to_string() }));
        return Err(Fault::NeedsYes.into());
    }
    if !compared {
        say!("\nThe reply is good. The administrator sees six words; here they are:\n\n{}", large_words(&words));
        if !attended() {
            return Err(Fault::NeedsYes.into());
        }
        if compare()? == Verdict::Differ {
            waiting.erase(home)?;
            return Err(Fault::WordsDiffer.into());
        }
    }
    let profile = Profile {
        cluster: gift.cluster,
        gateway: gift.terms.gateway.to_string(),
        client: gift.name,
        serial: gift.terms.serial.to_string(),
        expires: expires.date(),
        authority: gift.kept.authority_hash(&gift.terms),
        routes: gift.settings.routes.iter().map(ToString::to_string).collect(),
        dns: gift.settings.dns.iter().map(ToString::to_string).collect(),
        fetched: gift.kept.certificate.is_some(),
    };
    let name = profile.keep(home, &waiting.key, &gift.kept, waiting.ticket())?;
    waiting.erase(home)?;
    let enrolled = Enrolled {
        outcome: "enrolled",
        form: gift.form,
        ticket: waiting.ticket().to_string(),
        profile: name.as_str(),
        gateway: profile.gateway.clone(),
        serial: profile.serial.clone(),
        expires: profile.expires.clone(),
        words: words.to_string(),
    };
    place.show(&enrolled, |enrolled| {
        say!(
            "\nDone. Profile {} connects {} to {} until {}.",
            name,
            profile.client,
            enrolled.gateway,
            enrolled.expires
        );
        if compared {
            say!("The final words were: {words}");
        }
        if !profile.fetched {
            say!("Its certificate would be fetched from the gateway, which cannot give it yet: ask for a new ticket and a full reply.");
        }
        say!("Look at it: ccvpn profile show {name}");
    })
}

impl Gift {
    fn of_complete(waiting: &Waiting, reply: &CompleteReply) -> Result<Self, Fault> {
        let certificate = reply.certificate(waiting.role(), *waiting.key.public()).map_err(unusable)?;
        let terms = &reply.terms;
        Ok(Self {
            form: "complete",
            terms: short_terms(&reply.issuer_key, reply),
            cluster: terms.cluster.to_string(),
            name: terms.client.to_string(),
            starts: UnixTime::of_day(terms.validity.start_day().into()),
            kept: Kept { certificate: Some(certificate), authority: None, chain: Vec::new() },
            settings: Settings::default(),
        })
    }

    fn of_short(reply: &ShortReply) -> Self {
        let terms = reply.terms.clone();
        Self {
            form: "short",
            cluster: terms.gateway.to_string(),
            name: String::new(),
            terms,
            starts: UnixTime::default(),
            kept: Kept { certificate: None, authority: None, chain: Vec::new() },
            settings: Settings::default(),
        }
    }

    fn of_full(waiting: &Waiting, reply: &FullReply) -> Result<Self, Fault> {
        let own = RequestedKey::Whole(*waiting.key.public());
        let certificate = reply.certificate(&own).map_err(unusable)?.to_vec();
        let (Some(authority), Some(last)) = (reply.blocks.get(1), reply.blocks.last()) else {
            return Err(unusable(Refusal::Blocks));
        };
        signed_by(&certificate, authority).map_err(unusable)?;
        let facts = CertificateFacts::decode(&certificate).map_err(unusable)?;
        let ca = CertificateFacts::decode(authority).map_err(unusable)?;
        let block = ProfileBlock::parse(&String::from_utf8_lossy(last)).map_err(|_| unusable(Refusal::Blocks))?;
        let number = facts.serial.iter().fold(0_u64, |number, &octet| number << 8 | u64::from(octet));
        let middle = reply.blocks.get(2..reply.blocks.len().saturating_sub(1)).unwrap_or_default();
        Ok(Self {
            form: "full",
            terms: ShortTerms {
                ca_hash: ShortTerms::ca_hash(&Sha256::digest(&ca.spki).into()),
                serial: Serial::new(number).ok_or_else(|| unusable(Refusal::Serial))?,
                expiry_day: u16::try_from(facts.expires.day()).map_err(|_| unusable(Refusal::Days))?,
                gateway: block.gateway,
            },
            cluster: ca.common_name.strip_suffix(" CA").unwrap_or(&ca.common_name).to_owned(),
            name: facts.common_name,
            starts: facts.starts,
            kept: Kept { certificate: Some(certificate), authority: Some(authority.clone()), chain: middle.to_vec() },
            settings: block.settings,
        })
    }
}

fn short_terms(issuer: &PublicKey, reply: &CompleteReply) -> ShortTerms {
    ShortTerms {
        ca_hash: ShortTerms::ca_hash(&issuer.spki_hash()),
        serial: reply.terms.serial,
        expiry_day: reply.terms.validity.expiry_day(),
        gateway: reply.terms.gateway.clone(),
    }
}

fn unusable(refusal: Refusal) -> Fault {
    if refusal == Refusal::Signature { Fault::ProgramsDiffer } else { Fault::Unusable(refusal) }
}
