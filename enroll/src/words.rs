//! Six words that two people compare by voice.

use std::fmt;
use std::num::NonZeroU32;

use aws_lc_rs::pbkdf2;
use subtle::ConstantTimeEq;

use crate::code::Role;
use crate::mac::{LABEL, RequestHash, length_prefixed};
use crate::reply::ShortTerms;

/// Six words of the BIP-39 English list: 66 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Words([u16; Words::COUNT]);

impl Words {
    /// Never fewer: a GPU finds in a day a key with three equal words.
    pub const COUNT: usize = 6;

    /// The words of a request, which an administrator types as heard.
    #[must_use]
    pub fn of_request(role: Role, hash: &RequestHash) -> Self {
        Self::derive(&[LABEL, b"request-words", role.label(), hash.octets()])
    }

    /// The words of an issued certificate, which both sides compare at the end.
    #[must_use]
    pub fn of_issue(role: Role, hash: &RequestHash, terms: &ShortTerms) -> Self {
        Self::derive(&[
            LABEL,
            b"final-words",
            role.label(),
            hash.octets(),
            &terms.ca_hash,
            &terms.serial.value().to_be_bytes(),
            &terms.expiry_day.to_be_bytes(),
            terms.gateway.as_str().as_bytes(),
        ])
    }

    /// The words of a key that was sent without a code, such as in a PKCS#10 request or a CA's certificate: both sides
    /// compare them by another channel. Not part of the exchange by text.
    #[must_use]
    pub fn of_key(spki_hash: &[u8; 32]) -> Self {
        Self::derive(&[LABEL, b"key-words", spki_hash])
    }

    /// Reads typed words: the first four letters of each are enough, as in the whole list.
    ///
    /// # Errors
    /// There are not exactly six, or one is not in the list.
    pub fn parse(text: &str) -> Result<Self, WordsError> {
        let typed: Vec<String> = text
            .split(|c: char| !c.is_alphabetic())
            .filter(|word| !word.is_empty())
            .map(str::to_ascii_lowercase)
            .collect();
        if typed.len() != Self::COUNT {
            return Err(WordsError::Count { found: typed.len() });
        }
        let mut words = [0; Self::COUNT];
        for ((to, word), place) in words.iter_mut().zip(&typed).zip(1..) {
            *to = number_of(word).ok_or(WordsError::Unknown { place })?;
        }
        Ok(Self(words))
    }

    /// Chooses the waiting request whose words were read out: all six must be equal.
    #[must_use]
    pub fn choose<'a, T>(&self, waiting: impl IntoIterator<Item = (&'a Self, T)>) -> Option<T> {
        waiting.into_iter().find(|(words, _)| self.equals(words)).map(|(_, choice)| choice)
    }

    /// Compares in constant time.
    #[must_use]
    pub fn equals(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).fold(subtle::Choice::from(1), |all, (a, b)| all & a.ct_eq(b)).into()
    }

    /// The places in the list, from 0.
    #[must_use]
    pub const fn numbers(&self) -> &[u16; Self::COUNT] {
        &self.0
    }

    /// The words.
    pub fn iter(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.0.iter().map(|&number| LIST.lines().nth(usize::from(number)).unwrap_or_default())
    }

    /// Stretched, so that a thief of the code pays 2^16 hashes for each try at a request with the same words.
    fn derive(fields: &[&[u8]]) -> Self {
        let mut bits = [0; 9];
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, ROUNDS, LABEL, &length_prefixed(fields), &mut bits);
        let wide = bits.iter().fold(0_u128, |wide, &octet| wide << 8 | u128::from(octet)) >> 6;
        // 11 bits always fit into 16.
        Self([55, 44, 33, 22, 11, 0].map(|shift| u16::try_from(wide >> shift & 0x7ff).unwrap_or(0)))
    }
}

impl fmt::Display for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, word) in self.iter().enumerate() {
            write!(f, "{}{word}", if at == 0 { "" } else { " " })?;
        }
        Ok(())
    }
}

/// Why typed words were not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WordsError {
    /// All six are needed.
    #[error("all six words are needed, these are {found}")]
    Count {
        /// Words read.
        found: usize,
    },
    /// A word is not in the list.
    #[error("word {place} is not in the list: type at least its first four letters as heard")]
    Unknown {
        /// Which word, from 1.
        place: usize,
    },
}

/// The place of a word, or of the only word that begins with these four letters or more.
fn number_of(typed: &str) -> Option<u16> {
    let begins = |word: &str| word == typed || (typed.len() >= UNIQUE_LEN && word.starts_with(typed));
    LIST.lines().position(begins).and_then(|place| u16::try_from(place).ok())
}

/// Rounds of PBKDF2 (RFC 8018 §5.2).
const ROUNDS: NonZeroU32 = match NonZeroU32::new(65_536) {
    Some(rounds) => rounds,
    None => NonZeroU32::MIN,
};

/// Letters that tell every word of the list from every other.
const UNIQUE_LEN: usize = 4;

/// The English list of BIP-39, 2048 words.
const LIST: &str = include_str!("../data/bip39_english.txt");

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use sha2::{Digest, Sha256};

    use super::*;

    #[test]
    fn the_list_is_the_published_one() {
        // SHA-256 of english.txt in the BIP-39 repository.
        let published = "2f5eed53a4727b4bf8880d8f3f199efc90e58503646d9ff8eff3a2ed3b24dbda";
        let hash: String = Sha256::digest(LIST).iter().map(|octet| format!("{octet:02x}")).collect();
        assert_eq!(hash, published);
        let beginnings: BTreeSet<_> = LIST.lines().map(|word| &word[..word.len().min(UNIQUE_LEN)]).collect();
        assert_eq!(beginnings.len(), 2048);
    }

    #[test]
    fn words_are_read_by_four_letters_and_all_six_are_needed() {
        let words = Words([712, 1234, 971, 1181, 980, 1690]);
        let text = words.to_string();
        assert_eq!(Words::parse(&text), Ok(words));
        let cut: Vec<_> = words.iter().map(|word| word[..word.len().min(4)].to_uppercase()).collect();
        assert_eq!(Words::parse(&cut.join(", ")), Ok(words));
        assert_eq!(Words::parse(&cut[..3].join(" ")), Err(WordsError::Count { found: 3 }));
        assert_eq!(Words::parse("zzzz a b c d e"), Err(WordsError::Unknown { place: 1 }));
        assert_eq!(Words::parse("abandon aband aba abandon abandon abandon"), Err(WordsError::Unknown { place: 3 }));
    }

    #[test]
    fn five_equal_words_choose_nothing() {
        let waiting = [Words([1, 2, 3, 4, 5, 6]), Words([7, 8, 9, 10, 11, 12])];
        let typed = Words([7, 8, 9, 10, 11, 12]);
        assert_eq!(typed.choose(waiting.iter().zip(["thief", "honest"])), Some("honest"));
        assert_eq!(Words([1, 2, 3, 4, 5, 7]).choose(waiting.iter().zip([0, 1])), None);
    }
}
