//! The full reply: one line, and blocks of any length behind it.

use crate::bits::MessageBits;
use crate::mac::{ReplyKey, RequestHash};
use crate::message::{Header, Message, MessageKind, open, seal};
use crate::refusal::Refusal;
use crate::symbol::Symbol;

/// A full reply whose MAC holds over line and blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FullReply {
    /// The decoded blocks: certificate, issuing CA, chain, profile.
    pub blocks: Vec<Vec<u8>>,
}

impl FullReply {
    /// The most blocks that a line can announce.
    pub const BLOCKS_MAX: usize = 15;

    /// Writes the line that goes before the blocks.
    ///
    /// # Errors
    /// There are no blocks or more than 15, or one is longer than 65,535 octets.
    pub fn compose(&self, mac: &ReplyKey, hash: &RequestHash) -> Result<Message, Refusal> {
        let blocks = checked(&self.blocks)?;
        let mut body = Header::without_key(MessageKind::Full).start(mac.ticket());
        body.push(u64::try_from(blocks.len()).map_err(|_| Refusal::Blocks)?, COUNT_BITS);
        Ok(seal::<TAG_LEN>(body, &mac.0, LABEL, &[hash.octets()], &blocks).0)
    }

    /// Reads the line together with the decoded blocks behind it.
    ///
    /// # Errors
    /// The line is malformed or for another ticket, the blocks are not as many as announced, one is too long, or the
    /// MAC does not hold over the line, R and the blocks.
    pub fn decode(mac: &ReplyKey, hash: &RequestHash, symbols: &[Symbol], blocks: &[Vec<u8>]) -> Result<Self, Refusal> {
        let message = MessageBits::new(symbols);
        let mut bits = message.reader();
        let header = Header::expect(&mut bits, MessageKind::Full, &mac.0)?;
        if usize::from(bits.take_u8(COUNT_BITS)?) != blocks.len() {
            return Err(Refusal::Blocks);
        }
        open::<TAG_LEN>(bits, &mac.0, LABEL, &[hash.octets()], &checked(blocks)?)?;
        header.has_no_key()?;
        Ok(Self { blocks: blocks.to_vec() })
    }
}

fn checked(blocks: &[Vec<u8>]) -> Result<Vec<&[u8]>, Refusal> {
    if blocks.is_empty() || blocks.len() > FullReply::BLOCKS_MAX {
        return Err(Refusal::Blocks);
    }
    if blocks.iter().any(|block| u16::try_from(block.len()).is_err()) {
        return Err(Refusal::BlockLength);
    }
    Ok(blocks.iter().map(Vec::as_slice).collect())
}

const LABEL: &[u8] = b"full-reply";
/// Octets of the tag.
const TAG_LEN: usize = 10;
/// Bits of the number of blocks.
const COUNT_BITS: u32 = 4;
