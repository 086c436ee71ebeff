//! The names that stand in messages and certificates, and their six-bit alphabet.

use std::fmt;

use crate::bits::{BitReader, BitString};
use crate::refusal::Refusal;

/// A name of a client or node: `[a-z0-9._@-]`, first and last `[a-z0-9]`, no `..`, at most one `@`, 1 to 31 characters.
///
/// That it is no gateway's or node's name already is for the store to check.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientName(String);

impl ClientName {
    /// Checks a name.
    ///
    /// # Errors
    /// It breaks the rules of names.
    pub fn new(name: &str) -> Result<Self, Refusal> {
        let allowed = |c: char| is_alphanumeric(c) || matches!(c, '.' | '_' | '@' | '-');
        let single_at = name.chars().filter(|&c| c == '@').count() <= 1;
        if is_bounded(name, CLIENT_LENGTH_BITS, allowed) && single_at && !name.contains("..") {
            return Ok(Self(name.to_owned()));
        }
        Err(Refusal::Name)
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A cluster's name: `[a-z0-9-]`, first and last `[a-z0-9]`, 1 to 31 characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterName(String);

impl ClusterName {
    /// Checks a name.
    ///
    /// # Errors
    /// It breaks the rules of names.
    pub fn new(name: &str) -> Result<Self, Refusal> {
        if is_bounded(name, CLIENT_LENGTH_BITS, |c| is_alphanumeric(c) || c == '-') {
            return Ok(Self(name.to_owned()));
        }
        Err(Refusal::Name)
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The common name of the cluster's CA.
    #[must_use]
    pub fn ca_common_name(&self) -> String {
        format!("{} CA", self.0)
    }
}

/// Where the gateway is reached: a DNS name or an address, 1 to 63 characters of the format's alphabet.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GatewayName(String);

impl GatewayName {
    /// Checks a name.
    ///
    /// # Errors
    /// It is empty, too long, or has a character that the alphabet lacks.
    pub fn new(name: &str) -> Result<Self, Refusal> {
        let fits = !name.is_empty() && name.len() < 1 << GATEWAY_LENGTH_BITS;
        if fits && name.chars().all(|c| place_of(c).is_some()) {
            return Ok(Self(name.to_owned()));
        }
        Err(Refusal::Name)
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A profile's number, 0 to 15: which of the cluster's named sets of networks, servers and limits a client gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Profile(u8);

impl Profile {
    /// Bits of the number in a reply.
    pub(crate) const BITS: u32 = 4;

    /// Makes a number of 0 to 15.
    #[must_use]
    pub const fn new(number: u8) -> Option<Self> {
        if number >> Self::BITS == 0 { Some(Self(number)) } else { None }
    }

    /// The number.
    #[must_use]
    pub const fn value(self) -> u8 {
        self.0
    }
}

/// The cluster's profile names: what an administrator writes for a [`Profile`]'s number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProfileNames {
    names: [Option<ClusterName>; 16],
}

impl ProfileNames {
    /// Names a profile; a profile's name follows the rules of cluster names.
    ///
    /// # Errors
    /// The name breaks the rules, or another profile has it.
    pub fn set(&mut self, profile: Profile, name: &str) -> Result<(), Refusal> {
        let name = ClusterName::new(name)?;
        if self.find(name.as_str()).is_some_and(|other| other != profile) {
            return Err(Refusal::Name);
        }
        if let Some(place) = self.names.get_mut(usize::from(profile.0)) {
            *place = Some(name);
        }
        Ok(())
    }

    /// The name of a profile, if it has one.
    #[must_use]
    pub fn name(&self, profile: Profile) -> Option<&str> {
        self.names.get(usize::from(profile.0))?.as_ref().map(ClusterName::as_str)
    }

    /// The profile of a name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<Profile> {
        let place = self.names.iter().position(|n| n.as_ref().is_some_and(|n| n.as_str() == name))?;
        u8::try_from(place).ok().and_then(Profile::new)
    }
}

impl fmt::Display for ClientName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for ClusterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for GatewayName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Writes a text: its length, then six bits a character.
pub(crate) fn push_text(bits: &mut BitString, text: &str, length_bits: u32) {
    let places: Vec<_> = text.chars().filter_map(place_of).collect();
    bits.push(u64::try_from(places.len()).unwrap_or(u64::MAX), length_bits);
    for place in places {
        bits.push(u64::from(place), CHARACTER_BITS);
    }
}

/// Reads a text.
///
/// # Errors
/// It is empty, or a character is none.
pub(crate) fn take_text(bits: &mut BitReader<'_>, length_bits: u32) -> Result<String, Refusal> {
    let length = bits.take_u8(length_bits)?;
    if length == 0 {
        return Err(Refusal::EmptyText);
    }
    (0..length)
        .map(|_| {
            let place = usize::from(bits.take_u8(CHARACTER_BITS)?);
            ALPHABET.get(place).map(|&c| char::from(c)).ok_or(Refusal::Character)
        })
        .collect()
}

/// Bits of the length of a client's or cluster's name.
pub(crate) const CLIENT_LENGTH_BITS: u32 = 5;
/// Bits of the length of a gateway's name.
pub(crate) const GATEWAY_LENGTH_BITS: u32 = 6;

fn place_of(c: char) -> Option<u8> {
    let place = ALPHABET.iter().position(|&a| char::from(a) == c)?;
    u8::try_from(place).ok()
}

const fn is_alphanumeric(c: char) -> bool {
    matches!(c, 'a'..='z' | '0'..='9')
}

fn is_bounded(name: &str, length_bits: u32, allowed: impl Fn(char) -> bool) -> bool {
    let ends =
        name.chars().next().is_some_and(is_alphanumeric) && name.chars().next_back().is_some_and(is_alphanumeric);
    ends && name.len() < 1 << length_bits && name.chars().all(allowed)
}

/// Six-bit characters; the numbers 42 to 63 are refused.
const ALPHABET: &[u8; 42] = b"-.0123456789abcdefghijklmnopqrstuvwxyz_:/@";
const CHARACTER_BITS: u32 = 6;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bits::MessageBits;
    use crate::symbol::Symbol;

    #[test]
    fn client_names_follow_the_rules() {
        for good in ["a", "alice-laptop", "bob@example.org", "x_1.y", &"x".repeat(31)] {
            assert!(ClientName::new(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "a..b", "a@b@c", "Alice", "a b", "a/b", "@a", "é", &"x".repeat(32)] {
            assert_eq!(ClientName::new(bad), Err(Refusal::Name), "{bad}");
        }
    }

    #[test]
    fn cluster_and_gateway_names_follow_the_rules() {
        assert!(
            ClusterName::new("hq-vpn").is_ok() && ClusterName::new("hq.vpn").is_err() && ClusterName::new("-").is_err()
        );
        assert!(GatewayName::new("2001:db8::1").is_ok() && GatewayName::new("").is_err());
        assert!(GatewayName::new(&"a".repeat(63)).is_ok() && GatewayName::new(&"a".repeat(64)).is_err());
    }

    #[test]
    fn a_text_comes_back_and_a_character_that_is_none_is_refused() {
        let mut bits = BitString::default();
        push_text(&mut bits, "vpn.example.org", GATEWAY_LENGTH_BITS);
        let message = MessageBits::new(&bits.symbols());
        assert_eq!(take_text(&mut message.reader(), GATEWAY_LENGTH_BITS).unwrap(), "vpn.example.org");
        for place in 42..64 {
            let mut bits = BitString::default();
            bits.push(1, CLIENT_LENGTH_BITS);
            bits.push(place, 6);
            let message = MessageBits::new(&bits.symbols());
            assert_eq!(take_text(&mut message.reader(), CLIENT_LENGTH_BITS), Err(Refusal::Character));
        }
        let message = MessageBits::new(&[Symbol::ZERO; 25]);
        assert_eq!(take_text(&mut message.reader(), CLIENT_LENGTH_BITS), Err(Refusal::EmptyText));
    }

    #[test]
    fn profiles_have_unique_names_and_sixteen_numbers() {
        let mut names = ProfileNames::default();
        let (first, last) = (Profile::new(0).unwrap(), Profile::new(15).unwrap());
        assert_eq!(Profile::new(16), None);
        names.set(first, "staff").unwrap();
        names.set(last, "guests").unwrap();
        assert_eq!(names.set(last, "staff"), Err(Refusal::Name));
        assert_eq!((names.name(first), names.find("guests")), (Some("staff"), Some(last)));
        names.set(first, "staff").unwrap();
    }
}
