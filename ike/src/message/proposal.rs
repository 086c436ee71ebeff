//! The Security Association payload (RFC 7296 §3.3): proposals, transforms, attributes.

use crypto::{Encryption, Integrity};
use wire::{Cause, DecodeError, Reader, Spi, Writer};

use crate::config::{EspProposal, IkeProposal};

/// Proposals in one SA payload, and transforms in one proposal, at the most. strongSwan's default offers 3 and 30.
const PROPOSALS_MAX: usize = 32;
const TRANSFORMS_MAX: usize = 128;

const PROTOCOL_IKE: u8 = 1;
const PROTOCOL_ESP: u8 = 3;

const ENCR: u8 = 1;
const PRF: u8 = 2;
const INTEG: u8 = 3;
const DH: u8 = 4;
const ESN: u8 = 5;

/// One transform: type, number, and its Key Length if it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Transform {
    kind: u8,
    id: u16,
    key_bits: Option<u16>,
    /// Whether it carries an attribute that we do not know: then it is not what we would choose.
    unknown_attribute: bool,
}

/// One proposal as it was offered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Proposal<'a> {
    /// Proposal Num.
    pub(crate) number: u8,
    protocol: u8,
    /// SPI: 0, 4 or 8 octets.
    spi: &'a [u8],
    transforms: Vec<Transform>,
}

/// Reads a Security Association payload.
///
/// # Errors
/// A length does not fit, or there are more proposals or transforms than our bounds.
pub(crate) fn decode<'a>(mut r: Reader<'a>) -> Result<Vec<Proposal<'a>>, DecodeError> {
    let mut proposals = Vec::new();
    loop {
        if proposals.len() >= PROPOSALS_MAX {
            return Err(r.error("Proposal", Cause::Range));
        }
        let last = match r.u8("Last Substruc")? {
            0 => true,
            2 => false,
            _ => return Err(r.error("Last Substruc", Cause::Range)),
        };
        r.u8("RESERVED")?;
        let len = usize::from(r.u16("Proposal Length")?);
        let Some(len) = len.checked_sub(4) else {
            return Err(r.error("Proposal Length", Cause::Range));
        };
        proposals.push(decode_proposal(r.sub("Proposal", len)?)?);
        if last {
            r.finish("Proposals")?;
            return Ok(proposals);
        }
    }
}

fn decode_proposal<'a>(mut r: Reader<'a>) -> Result<Proposal<'a>, DecodeError> {
    let number = r.u8("Proposal Num")?;
    let protocol = r.u8("Protocol ID")?;
    let spi_len = usize::from(r.u8("SPI Size")?);
    let count = usize::from(r.u8("Num Transforms")?);
    let spi = r.bytes("SPI", spi_len)?;
    if count > TRANSFORMS_MAX {
        return Err(r.error("Num Transforms", Cause::Range));
    }
    let mut transforms = Vec::with_capacity(count);
    for index in 1..=count {
        let last = r.u8("Last Substruc")?;
        if last != if index == count { 0 } else { 3 } {
            return Err(r.error("Last Substruc", Cause::Conflict));
        }
        r.u8("RESERVED")?;
        let len = usize::from(r.u16("Transform Length")?);
        let Some(len) = len.checked_sub(4) else {
            return Err(r.error("Transform Length", Cause::Range));
        };
        transforms.push(decode_transform(r.sub("Transform", len)?)?);
    }
    r.finish("Transforms")?;
    Ok(Proposal { number, protocol, spi, transforms })
}

fn decode_transform(mut r: Reader<'_>) -> Result<Transform, DecodeError> {
    let kind = r.u8("Transform Type")?;
    r.u8("RESERVED")?;
    let id = r.u16("Transform ID")?;
    let mut transform = Transform { kind, id, key_bits: None, unknown_attribute: false };
    while !r.is_empty() {
        let attribute = r.u16("Attribute Type")?;
        // RFC 7296 §3.3.5: the high bit marks a value in the place of the length.
        if attribute & 0x8000 == 0 {
            let len = usize::from(r.u16("Attribute Length")?);
            r.bytes("Attribute Value", len)?;
            transform.unknown_attribute = true;
        } else if attribute == 0x800e && transform.key_bits.is_none() {
            transform.key_bits = Some(r.u16("Key Length")?);
        } else {
            r.u16("Attribute Value")?;
            transform.unknown_attribute = true;
        }
    }
    Ok(transform)
}

impl Proposal<'_> {
    fn offers(&self, kind: u8, id: u16, key_bits: Option<u16>) -> bool {
        self.transforms.iter().any(|t| t.kind == kind && t.id == id && t.key_bits == key_bits && !t.unknown_attribute)
    }

    fn has(&self, kind: u8) -> bool {
        self.transforms.iter().any(|t| t.kind == kind)
    }

    /// Whether it offers no integrity, or NONE (0), as it must beside an AEAD (RFC 7296 §3.3).
    fn integrity_fits(&self, integrity: Option<Integrity>) -> bool {
        match integrity {
            Some(i) => self.offers(INTEG, i.iana(), None),
            None => !self.has(INTEG) || self.offers(INTEG, 0, None),
        }
    }

    fn only_known_kinds(&self, known: &[u8]) -> bool {
        // RFC 7296 §3.3.6: a proposal with a transform type that we do not know must be refused as a whole.
        self.transforms.iter().all(|t| known.contains(&t.kind))
    }

    fn encryption_fits(&self, encryption: Encryption) -> bool {
        self.offers(ENCR, encryption.iana(), Some(encryption.key_bits()))
    }

    fn fits_ike(&self, ours: &IkeProposal) -> bool {
        self.protocol == PROTOCOL_IKE
            && self.only_known_kinds(&[ENCR, PRF, INTEG, DH])
            && self.encryption_fits(ours.encryption)
            && self.integrity_fits(ours.integrity)
            && self.offers(PRF, ours.prf.iana(), None)
            && self.offers(DH, ours.group.iana(), None)
    }

    fn fits_esp(&self, ours: &EspProposal, with_group: WithGroup) -> bool {
        let group_fits = match (with_group, ours.group) {
            // RFC 7296 §1.2: the first child has no key exchange of its own, whatever stands in the proposal.
            (WithGroup::No, _) => true,
            (WithGroup::Yes, Some(group)) => self.offers(DH, group.iana(), None),
            (WithGroup::Yes, None) => !self.has(DH) || self.offers(DH, 0, None),
        };
        self.protocol == PROTOCOL_ESP
            && self.spi.len() == 4
            && self.only_known_kinds(&[ENCR, INTEG, DH, ESN])
            && self.encryption_fits(ours.encryption)
            && self.integrity_fits(ours.integrity)
            && self.esn_fits()
            && group_fits
    }

    /// RFC 7296 §3.3.2: 0 is "no extended sequence numbers", which is all we take: our SAs end before 2³² packets.
    fn esn_fits(&self) -> bool {
        !self.has(ESN) || self.offers(ESN, 0, None)
    }

    /// The sender's SPI of a child SA.
    pub(crate) fn child_spi(&self) -> Option<Spi> {
        let spi = u32::from_be_bytes(self.spi.try_into().ok()?);
        // RFC 4303 §2.1: 0 to 255 are reserved.
        (spi > 0xff).then_some(Spi(spi))
    }

    /// The sender's SPI of an IKE SA that replaces one.
    pub(crate) fn ike_spi(&self) -> Option<u64> {
        let spi = u64::from_be_bytes(self.spi.try_into().ok()?);
        (spi != 0).then_some(spi)
    }

    /// An SPI of 8 octets in a first exchange, or none where one must be, is a contradiction.
    pub(crate) const fn has_spi(&self) -> bool {
        !self.spi.is_empty()
    }
}

/// Whether a proposal for a child SA has a key exchange of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WithGroup {
    Yes,
    No,
}

/// What we choose for an IKE SA: the first of ours that the peer offers; `None` if there is none.
pub(crate) fn choose_ike<'p, 'a>(
    offered: &'p [Proposal<'a>],
    ours: &[IkeProposal],
) -> Option<(&'p Proposal<'a>, IkeProposal)> {
    ours.iter().find_map(|own| offered.iter().find(|p| p.fits_ike(own)).map(|p| (p, *own)))
}

/// What we choose for a child SA: the first of ours that the peer offers; `None` if there is none.
pub(crate) fn choose_esp<'p, 'a>(
    offered: &'p [Proposal<'a>],
    ours: &[EspProposal],
    with_group: WithGroup,
) -> Option<(&'p Proposal<'a>, EspProposal)> {
    ours.iter().find_map(|own| {
        let own = if with_group == WithGroup::No { EspProposal { group: None, ..*own } } else { *own };
        offered.iter().find(|p| p.fits_esp(&own, with_group)).map(|p| (p, own))
    })
}

/// Writes an SA payload that offers `suites` for an IKE SA; `spi` only at a rekey.
pub(crate) fn encode_ike(w: &mut Writer, suites: &[IkeProposal], spi: Option<u64>) {
    for (index, suite) in suites.iter().enumerate() {
        let number = u8::try_from(index.saturating_add(1)).unwrap_or(u8::MAX);
        encode_ike_numbered(w, suite, spi, number, index.saturating_add(1) == suites.len());
    }
}

/// Writes an SA payload that accepts `suite` as proposal `number`.
pub(crate) fn encode_ike_choice(w: &mut Writer, suite: &IkeProposal, spi: Option<u64>, number: u8) {
    encode_ike_numbered(w, suite, spi, number, true);
}

fn encode_ike_numbered(w: &mut Writer, suite: &IkeProposal, spi: Option<u64>, number: u8, last: bool) {
    let mut transforms = vec![encr(suite.encryption), plain(PRF, suite.prf.iana())];
    transforms.extend(suite.integrity.map(|i| plain(INTEG, i.iana())));
    transforms.push(plain(DH, suite.group.iana()));
    let spi = spi.map(u64::to_be_bytes);
    encode_proposal(w, number, PROTOCOL_IKE, spi.as_ref().map_or(&[], <[u8; 8]>::as_slice), &transforms, last);
}

/// Writes an SA payload that offers `suites` for a child SA with our inbound `spi`.
pub(crate) fn encode_esp(w: &mut Writer, suites: &[EspProposal], spi: Spi, with_group: WithGroup) {
    for (index, suite) in suites.iter().enumerate() {
        let number = u8::try_from(index.saturating_add(1)).unwrap_or(u8::MAX);
        encode_esp_numbered(w, suite, spi, with_group, number, index.saturating_add(1) == suites.len());
    }
}

/// Writes an SA payload that accepts `suite` as proposal `number`.
pub(crate) fn encode_esp_choice(w: &mut Writer, suite: &EspProposal, spi: Spi, number: u8) {
    encode_esp_numbered(w, suite, spi, WithGroup::Yes, number, true);
}

fn encode_esp_numbered(w: &mut Writer, suite: &EspProposal, spi: Spi, with_group: WithGroup, number: u8, last: bool) {
    let mut transforms = vec![encr(suite.encryption)];
    transforms.extend(suite.integrity.map(|i| plain(INTEG, i.iana())));
    if with_group == WithGroup::Yes {
        transforms.extend(suite.group.map(|g| plain(DH, g.iana())));
    }
    transforms.push(plain(ESN, 0));
    encode_proposal(w, number, PROTOCOL_ESP, &spi.0.to_be_bytes(), &transforms, last);
}

const fn plain(kind: u8, id: u16) -> Transform {
    Transform { kind, id, key_bits: None, unknown_attribute: false }
}

const fn encr(encryption: Encryption) -> Transform {
    Transform { kind: ENCR, id: encryption.iana(), key_bits: Some(encryption.key_bits()), unknown_attribute: false }
}

fn encode_proposal(w: &mut Writer, number: u8, protocol: u8, spi: &[u8], transforms: &[Transform], last: bool) {
    w.u8(if last { 0 } else { 2 });
    w.u8(0);
    let start = w.len();
    w.u16(0);
    w.u8(number);
    w.u8(protocol);
    // At most 8 octets and 5 transforms: our own suites.
    w.u8(u8::try_from(spi.len()).unwrap_or(u8::MAX));
    w.u8(u8::try_from(transforms.len()).unwrap_or(u8::MAX));
    w.bytes(spi);
    for (index, transform) in transforms.iter().enumerate() {
        w.u8(if index.saturating_add(1) == transforms.len() { 0 } else { 3 });
        w.u8(0);
        w.u16(if transform.key_bits.is_some() { 12 } else { 8 });
        w.u8(transform.kind);
        w.u8(0);
        w.u16(transform.id);
        if let Some(bits) = transform.key_bits {
            w.u16(0x800e);
            w.u16(bits);
        }
    }
    // The length counts the two octets before its own field too.
    w.patch_u16(start, w.len().saturating_sub(start).saturating_add(2));
}

#[cfg(test)]
mod tests;
