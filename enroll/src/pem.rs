//! PEM blocks (RFC 7468) in and out of text that mail may have re-wrapped and quoted.

use crate::reader::unmangle;
use crate::reply::FullReply;

/// The decoded contents of all blocks of a text, in order, at most 15; what is malformed, or the mail's own signature
/// (RFC 9580 §7), is left out.
#[must_use]
pub fn pem_blocks(text: &str) -> Vec<Vec<u8>> {
    let text = unmangle(text);
    let mut blocks = Vec::new();
    let mut rest = text.as_str();
    while let Some((_, begun)) = rest.split_once("-----BEGIN")
        && blocks.len() < FullReply::BLOCKS_MAX
    {
        rest = begun;
        let Some((label, body)) = begun.split_once("-----").filter(|(label, _)| label.len() < LABEL_MAX) else {
            continue;
        };
        // The dashes that come next end a block, or begin one inside a text that was signed as a whole.
        let ended = body.split_once("-----").and_then(|(body, after)| Some((body, after.strip_prefix("END")?)));
        let Some((body, after)) = ended else {
            continue;
        };
        let ends_alike = after.split_once("-----").is_some_and(|(end, _)| words(end).eq(words(label)));
        let of_the_mail = words(label).next() == Some("PGP");
        blocks.extend(decode(body).filter(|_| ends_alike && !of_the_mail));
        rest = after;
    }
    blocks
}

/// A block as PEM, lines of 64 characters.
#[must_use]
pub fn pem_block(label: &str, octets: &[u8]) -> String {
    let mut text = format!("-----BEGIN {label}-----\n");
    for line in octets.chunks(LINE_OCTETS) {
        text.push_str(&base64(line));
        text.push('\n');
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}

/// Base64 (RFC 4648 §4) with padding, in one line.
pub(crate) fn base64(octets: &[u8]) -> String {
    let mut text = String::with_capacity(octets.len().div_ceil(3).saturating_mul(4));
    for group in octets.chunks(3) {
        let wide = [0, 1, 2].iter().fold(0_u32, |wide, &at| wide << 8 | u32::from(*group.get(at).unwrap_or(&0)));
        for (at, shift) in [18, 12, 6, 0].into_iter().enumerate() {
            let place = usize::try_from(wide >> shift & 63).unwrap_or(0);
            let character = ALPHABET.get(place).map_or('=', |&octet| char::from(octet));
            text.push(if at > group.len() { '=' } else { character });
        }
    }
    text
}

/// Base64 without regard to padding, white space, quoting and the dashes of a signed text (RFC 9580 §7.1); `None` if
/// another character stands in it.
fn decode(body: &str) -> Option<Vec<u8>> {
    let mut octets = Vec::with_capacity(body.len());
    let (mut wide, mut bits) = (0_u32, 0_u32);
    for octet in body.bytes() {
        if octet.is_ascii_whitespace() || matches!(octet, b'>' | b'|' | b'=' | b'-') {
            continue;
        }
        let place = ALPHABET.iter().position(|&known| known == octet)?;
        wide = (wide << 6 | u32::try_from(place).ok()?) & 0xffff;
        bits = bits.saturating_add(6);
        if bits >= 8 {
            bits = bits.saturating_sub(8);
            octets.push((wide >> bits).to_le_bytes()[0]);
        }
    }
    Some(octets)
}

fn words(label: &str) -> impl Iterator<Item = &str> {
    label.split_whitespace().filter(|word| *word != ">" && *word != "|")
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
/// Octets of a line of 64 characters.
const LINE_OCTETS: usize = 48;
/// Longer labels are no labels.
const LABEL_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_of_every_length_come_back_quoted_and_rewrapped() {
        let blocks: Vec<Vec<u8>> = (0..15).map(|len| (0..len * 13).map(|at| (at * 7 % 256) as u8).collect()).collect();
        let text: String = blocks.iter().map(|block| pem_block("CERTIFICATE", block)).collect();
        assert_eq!(pem_blocks(&text), blocks);
        let quoted: String = text.lines().map(|line| format!("> {line}\r\n")).collect();
        assert_eq!(pem_blocks(&quoted), blocks);
        let printable = text.replace('=', "=3D");
        assert_eq!(pem_blocks(&printable), blocks);
        let rewrapped = pem_block("PROFILE", &blocks[9]).replace("\nA", "A\n");
        assert_eq!(pem_blocks(&pem_block("PROFILE", &blocks[9])), [blocks[9].clone()]);
        assert_eq!(pem_blocks(&rewrapped).len(), 1);
    }

    #[test]
    fn rfc_4648_vectors_of_section_10() {
        for (plain, encoded) in
            [("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("foobar", "Zm9vYmFy")]
        {
            assert!(pem_block("X", plain.as_bytes()).contains(&format!("\n{encoded}\n")), "{plain}");
            assert_eq!(decode(encoded).unwrap(), plain.as_bytes());
        }
    }

    #[test]
    fn blocks_in_a_signed_mail_are_found_and_its_signature_is_not_one() {
        let blocks = [vec![7; 300], vec![8; 20]];
        let text: String = blocks.iter().map(|block| pem_block("CERTIFICATE", block)).collect();
        let escaped = text.replace("-----BEGIN", "- -----BEGIN").replace("-----END", "- -----END");
        let mail = format!(
            "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\nDear Alice,\n{escaped}\
             -----BEGIN PGP SIGNATURE-----\n\niHUEARYKAB0WIQ\n=ABCD\n-----END PGP SIGNATURE-----\n"
        );
        assert_eq!(pem_blocks(&mail), blocks);
    }

    #[test]
    fn a_broken_block_is_left_out() {
        assert_eq!(pem_blocks("-----BEGIN X-----\nZm9v\n-----END Y-----"), Vec::<Vec<u8>>::new());
        assert_eq!(pem_blocks("-----BEGIN X-----\nZm9v"), Vec::<Vec<u8>>::new());
        assert_eq!(pem_blocks("-----BEGIN X-----\nZm$v\n-----END X-----"), Vec::<Vec<u8>>::new());
    }
}
