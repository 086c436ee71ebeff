//! The code that travels by a channel of its own: ticket number, secret, two check symbols.

use std::fmt;

use rand::CryptoRng;
use wire::Secret;
use zeroize::Zeroizing;

use crate::symbol::Symbol;

/// What a ticket makes its holder; part of every key and MAC, so that no message serves the other role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// A user's machine: 90 bits of secret.
    Client,
    /// A cluster's node: 115 bits of secret.
    Node,
}

impl Role {
    /// The word that stands in keys and MACs.
    pub(crate) const fn label(self) -> &'static [u8] {
        match self {
            Self::Client => b"client",
            Self::Node => b"node",
        }
    }

    /// Symbols of the secret.
    const fn secret_len(self) -> usize {
        match self {
            Self::Client => 18,
            Self::Node => 23,
        }
    }
}

/// A ticket's number: 25 random bits, public, never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TicketNumber(u32);

impl TicketNumber {
    /// Bits of the number.
    pub(crate) const BITS: u32 = 25;

    /// Draws a number; the caller draws again while the cluster ever had it.
    pub fn draw(rng: &mut impl CryptoRng) -> Self {
        Self(rng.next_u32() >> (u32::BITS - Self::BITS))
    }

    /// Makes a number below 2^25.
    #[must_use]
    pub const fn new(number: u32) -> Option<Self> {
        if number >> Self::BITS == 0 { Some(Self(number)) } else { None }
    }

    /// The number.
    #[must_use]
    pub const fn value(self) -> u32 {
        self.0
    }

    fn symbols(self) -> [Symbol; TICKET_LEN] {
        [20, 15, 10, 5, 0].map(|shift| Symbol::from_low_bits((self.0 >> shift).to_le_bytes()[0]))
    }

    fn from_symbols(symbols: &[Symbol]) -> Self {
        Self(symbols.iter().take(TICKET_LEN).fold(0, |number, symbol| number << 5 | u32::from(symbol.value())))
    }
}

impl fmt::Display for TicketNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.symbols().iter().try_for_each(|symbol| write!(f, "{}", symbol.to_char()))
    }
}

/// A code: shown once, typed once, stored nowhere; both ends keep only the keys derived from it.
#[derive(Clone)]
pub struct Code {
    ticket: TicketNumber,
    role: Role,
    /// The secret's symbols in canonical capitals.
    secret: Secret,
}

impl Code {
    /// Draws the secret of a ticket's code. Nobody may choose one.
    pub fn draw(role: Role, ticket: TicketNumber, rng: &mut impl CryptoRng) -> Self {
        let mut random = Zeroizing::new(vec![0; role.secret_len()]);
        rng.fill_bytes(&mut random);
        let secret = random.iter().map(|&octet| canonical(Symbol::from_low_bits(octet))).collect();
        Self { ticket, role, secret: Secret::new(secret) }
    }

    /// Reads a typed code: any case, any separators, the confusable characters for those they resemble.
    ///
    /// # Errors
    /// The length is neither a client's nor a node's, or the check symbols do not fit; then the group to look at
    /// first is named, and nothing is corrected silently.
    pub fn parse(text: &str) -> Result<Self, CodeError> {
        // With room for all, so that the buffer does not grow and leave a copy behind.
        let mut word: Zeroizing<Vec<Symbol>> = Zeroizing::new(Vec::with_capacity(text.len()));
        word.extend(text.chars().filter_map(Symbol::from_char));
        let secret_len = word.len().checked_sub(TICKET_LEN + CHECK_LEN);
        let role = [Role::Client, Role::Node].into_iter().find(|role| Some(role.secret_len()) == secret_len);
        let role = role.ok_or(CodeError::Length { found: word.len() })?;
        check(&word)?;
        let secret = word.iter().skip(TICKET_LEN).take(role.secret_len()).map(|&symbol| canonical(symbol)).collect();
        Ok(Self { ticket: TicketNumber::from_symbols(&word), role, secret: Secret::new(secret) })
    }

    /// The ticket's number.
    #[must_use]
    pub const fn ticket(&self) -> TicketNumber {
        self.ticket
    }

    /// The role, which the length tells.
    #[must_use]
    pub const fn role(&self) -> Role {
        self.role
    }

    /// T: the ticket number in canonical capitals.
    pub(crate) fn ticket_text(&self) -> Vec<u8> {
        self.ticket.symbols().map(canonical).to_vec()
    }

    /// S: the secret in canonical capitals.
    pub(crate) const fn secret(&self) -> &Secret {
        &self.secret
    }

    /// The code in groups of five, `TTTTT-SSSSS-SSSSS-SSSSS-SSSCC`; whoever shows it shows it once.
    #[must_use]
    pub fn expose(&self) -> Zeroizing<String> {
        let secret = self.secret.expose().iter().filter_map(|&octet| Symbol::from_char(char::from(octet)));
        let len = TICKET_LEN + self.role.secret_len() + CHECK_LEN;
        let mut symbols: Zeroizing<Vec<Symbol>> = Zeroizing::new(Vec::with_capacity(len));
        symbols.extend(self.ticket.symbols().into_iter().chain(secret));
        let check = symbols.iter().fold([Symbol::ZERO; CHECK_LEN], |[r0, r1], &symbol| {
            let [g1, g2] = GENERATOR.map(|g| Symbol::from_low_bits(g) * (symbol + r0));
            [r1 + g1, g2]
        });
        symbols.extend(check);
        let mut text = Zeroizing::new(String::with_capacity(36));
        for (at, symbol) in symbols.iter().enumerate() {
            if at > 0 && at.is_multiple_of(GROUP) {
                text.push('-');
            }
            text.push(symbol.to_char());
        }
        text
    }
}

impl PartialEq for Code {
    fn eq(&self, other: &Self) -> bool {
        self.ticket == other.ticket && self.role == other.role && self.secret == other.secret
    }
}

impl Eq for Code {}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Code({}-…)", self.ticket)
    }
}

/// Why a typed code was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodeError {
    /// A code has 25 characters, a node's 30.
    #[error("a code has 25 characters (a node's has 30), this one has {found}")]
    Length {
        /// Characters read, without separators.
        found: usize,
    },
    /// One wrong character would explain it, in this group, counted from 1.
    #[error("a character is wrong: look at group {group} first")]
    Group {
        /// The group of five characters.
        group: usize,
    },
    /// More than one character is wrong.
    #[error("more than one character is wrong: compare every group")]
    Check,
}

/// Evaluates the code at both roots. One wrong character at locator X with error e gives (eX, eX²).
fn check(word: &[Symbol]) -> Result<(), CodeError> {
    let [s1, s2] = [2, 4].map(|root| word.iter().fold(Symbol::ZERO, |s, &c| s * Symbol::from_low_bits(root) + c));
    if (s1, s2) == (Symbol::ZERO, Symbol::ZERO) {
        return Ok(());
    }
    let locator = s2 * s1.inverse();
    let places = word.iter().rev().zip(std::iter::successors(Some(Symbol::ONE), |&x| Some(x * Symbol::ALPHA)));
    let from_end = places.into_iter().position(|(_, x)| x == locator && s1 != Symbol::ZERO);
    match from_end.and_then(|from_end| word.len().checked_sub(from_end)) {
        Some(place) => Err(CodeError::Group { group: place.div_ceil(GROUP) }),
        None => Err(CodeError::Check),
    }
}

fn canonical(symbol: Symbol) -> u8 {
    u8::try_from(symbol.to_char()).unwrap_or(b'?')
}

/// Symbols of the ticket number.
const TICKET_LEN: usize = 5;
/// Check symbols of a code.
const CHECK_LEN: usize = 2;
/// Characters of a printed group.
const GROUP: usize = 5;
/// (x - a)(x - a²) without its leading 1.
const GENERATOR: [u8; CHECK_LEN] = [6, 8];

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn a_code_is_read_as_people_write_it() {
        let code = Code::parse("BHP5N-40BAQ-PAAQS-PP7FT-4Y575").unwrap();
        assert_eq!(code.expose().as_str(), "BHP5N-40BAQ-PAAQS-PP7FT-4Y575");
        assert_eq!(Code::parse(" bhp5n 4obaq\npaaqspp7ft 4y575.").unwrap(), code);
        assert_eq!((code.role(), code.ticket().to_string().as_str()), (Role::Client, "BHP5N"));
        assert_eq!(format!("{code:?}"), "Code(BHP5N-…)");
    }

    #[test]
    fn every_single_wrong_character_is_located_and_none_is_accepted() {
        let mut rng = StdRng::seed_from_u64(1);
        for role in [Role::Client, Role::Node] {
            let ticket = TicketNumber::draw(&mut rng);
            let text = Code::draw(role, ticket, &mut rng).expose().replace('-', "");
            for place in 0..text.len() {
                for value in 0..32 {
                    let wrong = Symbol::from_low_bits(value).to_char();
                    let mut typed: Vec<char> = text.chars().collect();
                    if typed[place] == wrong {
                        continue;
                    }
                    typed[place] = wrong;
                    let typed: String = typed.into_iter().collect();
                    assert_eq!(Code::parse(&typed).unwrap_err(), CodeError::Group { group: place / 5 + 1 });
                }
            }
        }
    }

    #[test]
    fn two_wrong_characters_are_never_accepted_and_lengths_are_checked() {
        assert!(Code::parse("BHP5N-40BAQ-PAAQS-PP7FT-4Y5ZZ").is_err());
        assert_eq!(Code::parse("BHP5N-40BAQ").unwrap_err(), CodeError::Length { found: 10 });
        assert_eq!(Code::parse("").unwrap_err(), CodeError::Length { found: 0 });
    }

    #[test]
    fn drawn_codes_read_back_with_role_and_ticket() {
        let mut rng = StdRng::seed_from_u64(2);
        for role in [Role::Client, Role::Node] {
            for _ in 0..100 {
                let code = Code::draw(role, TicketNumber::draw(&mut rng), &mut rng);
                assert_eq!(Code::parse(&code.expose()).unwrap(), code);
            }
        }
    }
}
