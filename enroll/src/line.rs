//! Lines: 25 data symbols, 5 check symbols, and what a reader can repair.

use std::collections::BTreeSet;
use std::fmt;

use crate::symbol::Symbol;

/// The number before a line's colon, 1 to 31. It is part of the check, so that swapped lines show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LineNumber(u8);

impl LineNumber {
    /// The largest: the code is 31 symbols long, and so is the longest message in lines.
    pub const MAX: u8 = 31;

    /// Makes a line number of 1 to 31.
    #[must_use]
    pub const fn new(number: u8) -> Option<Self> {
        if matches!(number, 1..=Self::MAX) { Some(Self(number)) } else { None }
    }

    /// The number.
    #[must_use]
    pub const fn value(self) -> u8 {
        self.0
    }

    const fn symbol(self) -> Symbol {
        Symbol::from_low_bits(self.0)
    }
}

impl fmt::Display for LineNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}", self.0)
    }
}

/// What a reader had to do to a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Repair {
    /// Nothing.
    None,
    /// So many characters were wrong or unreadable.
    Characters(u8),
    /// One character was missing.
    Missing,
    /// One character was too many.
    Extra,
}

impl Repair {
    /// How far the text was from the line; of several readings the cheaper comes first.
    pub(crate) const fn cost(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Characters(count) => count,
            Self::Missing | Self::Extra => 3,
        }
    }

    /// Of two ways to one line, the one that assumes less damage.
    pub(crate) const fn cheaper(self, other: Self) -> Self {
        if other.cost() < self.cost() { other } else { self }
    }
}

/// One reading of a line's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Decoded {
    /// The 25 data symbols.
    pub(crate) data: Vec<Symbol>,
    /// What was repaired.
    pub(crate) repair: Repair,
}

/// Data symbols of a line.
pub(crate) const DATA: usize = 25;
/// All symbols of a line's text.
pub(crate) const LINE: usize = DATA + CHECK_LEN;

/// Appends the five check symbols of Reed-Solomon over GF(32) with the roots a^1 to a^5.
pub(crate) fn encode(number: LineNumber, data: &[Symbol]) -> Vec<Symbol> {
    let mut remainder = [Symbol::ZERO; CHECK_LEN];
    for &symbol in std::iter::once(&number.symbol()).chain(data) {
        let [r0, r1, r2, r3, r4] = remainder;
        let [g1, g2, g3, g4, g5] = GENERATOR.map(|g| Symbol::from_low_bits(g) * (symbol + r0));
        remainder = [r1 + g1, r2 + g2, r3 + g3, r4 + g4, g5];
    }
    data.iter().chain(&remainder).copied().collect()
}

/// Finds the lines that `text` may stand for; `None` is an unreadable character.
///
/// Thirty symbols give at most one reading (2 · wrong + unknown ≤ 5, so no second line is as near). With one symbol
/// missing or too many every place is tried, and several readings are possible; the MAC chooses.
pub(crate) fn decode(number: LineNumber, text: &[Option<Symbol>]) -> Vec<Decoded> {
    if text.len() == LINE {
        return decode_exact(number, text).into_iter().collect();
    }
    let (readings, repair) = match text.len() {
        MISSING => (fill_missing(number, text), Repair::Missing),
        EXTRA => (drop_extra(number, text), Repair::Extra),
        _ => return Vec::new(),
    };
    readings.into_iter().map(|data| Decoded { data, repair }).collect()
}

/// One symbol is missing: it is put, unknown, into every place.
fn fill_missing(number: LineNumber, text: &[Option<Symbol>]) -> BTreeSet<Vec<Symbol>> {
    let filled = |place| {
        let (head, tail) = text.split_at(place);
        head.iter().chain(&[None]).chain(tail).copied().collect::<Vec<_>>()
    };
    let mut readings = BTreeSet::new();
    if text.contains(&None) {
        readings.extend((0..=text.len()).filter_map(|place| fill(number, &filled(place))));
        return readings;
    }
    // The syndromes follow the gap as it moves: the symbol behind it comes one place forward.
    let mut syndromes = Word::new(number, &filled(0)).syndromes;
    let moved = text.iter().map(Some).chain([None]).zip(locators().zip(locators().skip(1).chain([Symbol::ZERO])));
    for (place, (symbol, (here, behind))) in moved.enumerate() {
        if without(&syndromes, here).iter().all(|&sum| sum == Symbol::ZERO) {
            readings.extend(fill(number, &filled(place)));
        }
        let symbol = symbol.copied().flatten().unwrap_or_default();
        syndromes = shift(syndromes, symbol, here);
        syndromes = shift(syndromes, symbol, behind);
    }
    readings
}

/// One symbol is too many: every one is left out.
fn drop_extra(number: LineNumber, text: &[Option<Symbol>]) -> BTreeSet<Vec<Symbol>> {
    let shorter = |place| {
        let kept = text.iter().enumerate().filter(|&(at, _)| at != place);
        kept.map(|(_, &symbol)| symbol).collect::<Vec<_>>()
    };
    let mut readings = BTreeSet::new();
    if text.contains(&None) {
        readings.extend((0..text.len()).filter_map(|place| fill(number, &shorter(place))));
        return readings;
    }
    let mut syndromes = Word::new(number, &shorter(0)).syndromes;
    let pairs = text.iter().zip(text.iter().skip(1).map(Some).chain([None])).zip(locators().chain([Symbol::ZERO]));
    for (place, ((symbol, next), locator)) in pairs.enumerate() {
        if syndromes == [Symbol::ZERO; CHECK_LEN] {
            readings.extend(fill(number, &shorter(place)));
        }
        let change = symbol.unwrap_or_default() + next.copied().flatten().unwrap_or_default();
        syndromes = shift(syndromes, change, locator);
    }
    readings
}

/// What the syndromes become when `change` is added at a place.
fn shift(syndromes: [Symbol; CHECK_LEN], change: Symbol, locator: Symbol) -> [Symbol; CHECK_LEN] {
    let mut term = change;
    syndromes.map(|sum| {
        term = term * locator;
        sum + term
    })
}

/// Fills unreadable symbols without looking for wrong ones.
fn fill(number: LineNumber, text: &[Option<Symbol>]) -> Option<Vec<Symbol>> {
    let word = Word::new(number, text);
    if word.unknown.len() > CHECK_LEN {
        return None;
    }
    word.correct(&word.unknown)
}

fn decode_exact(number: LineNumber, text: &[Option<Symbol>]) -> Option<Decoded> {
    let word = Word::new(number, text);
    let unknown = word.unknown.len();
    if unknown > CHECK_LEN {
        return None;
    }
    if let Some(data) = word.correct(&word.unknown) {
        return Some(Decoded { data, repair: repair_of(unknown) });
    }
    let wrong = match CHECK_LEN.saturating_sub(unknown) {
        0 | 1 => return None,
        2 | 3 => word.locate_one()?,
        _ => match word.locate_one().filter(|one| word.correct(&word.with(one)).is_some()) {
            Some(one) => one,
            None => word.locate_two()?,
        },
    };
    let places = word.with(&wrong);
    Some(Decoded { data: word.correct(&places)?, repair: repair_of(places.len()) })
}

fn repair_of(characters: usize) -> Repair {
    match u8::try_from(characters).unwrap_or(u8::MAX) {
        0 => Repair::None,
        count => Repair::Characters(count),
    }
}

/// A received word: the line number and 30 symbols, unknown ones read as zero.
///
/// A place is named by its locator a^(30 - p), p counted from the line number; the line number itself, a^30, is known.
struct Word {
    symbols: Vec<Symbol>,
    /// Locators of the unreadable places.
    unknown: Vec<Symbol>,
    /// The word's value at a^1 to a^5.
    syndromes: [Symbol; CHECK_LEN],
}

impl Word {
    fn new(number: LineNumber, text: &[Option<Symbol>]) -> Self {
        let symbols: Vec<_> =
            std::iter::once(number.symbol()).chain(text.iter().map(|symbol| symbol.unwrap_or_default())).collect();
        let unknown =
            text.iter().zip(locators()).filter(|(symbol, _)| symbol.is_none()).map(|(_, locator)| locator).collect();
        let syndromes = ROOTS
            .map(|root| symbols.iter().fold(Symbol::ZERO, |sum, &symbol| sum * Symbol::from_low_bits(root) + symbol));
        Self { symbols, unknown, syndromes }
    }

    /// The unreadable places and those found to be wrong.
    fn with(&self, wrong: &[Symbol]) -> Vec<Symbol> {
        self.unknown.iter().chain(wrong).copied().collect()
    }

    /// Solves for the values at `places` (at most five); `None` if they cannot explain all syndromes.
    fn correct(&self, places: &[Symbol]) -> Option<Vec<Symbol>> {
        let mut errors = Vec::with_capacity(places.len());
        for (at, &place) in places.iter().enumerate() {
            let others = places.iter().enumerate().filter(|&(other, _)| other != at).map(|(_, &locator)| locator);
            let (mut sums, mut scale) = (self.syndromes.to_vec(), place);
            for other in others {
                sums = without(&sums, other);
                scale = scale * (place + other);
            }
            errors.push(*sums.first()? * scale.inverse());
        }
        let explained = ROOTS.iter().zip(&self.syndromes).zip(1..).all(|((_, &syndrome), power)| {
            places.iter().zip(&errors).fold(Symbol::ZERO, |sum, (place, &e)| sum + e * place.power(power)) == syndrome
        });
        if !explained {
            return None;
        }
        let data = self.symbols.iter().skip(1).zip(locators()).take(DATA);
        Some(
            data.map(|(&symbol, locator)| {
                places.iter().zip(&errors).filter(|&(place, _)| *place == locator).fold(symbol, |s, (_, &e)| s + e)
            })
            .collect(),
        )
    }

    /// The syndromes freed of what the unreadable places add.
    fn known_syndromes(&self) -> Vec<Symbol> {
        self.unknown.iter().fold(self.syndromes.to_vec(), |sums, &place| without(&sums, place))
    }

    /// The place of a single wrong symbol, if there may be one.
    fn locate_one(&self) -> Option<Vec<Symbol>> {
        let sums = self.known_syndromes();
        let (&first, &second) = (sums.first()?, sums.get(1)?);
        let place = second * first.inverse();
        self.may_be_wrong(place).then(|| vec![place])
    }

    /// The places of two wrong symbols, if there may be two (Peterson's equations, then every place is tried).
    fn locate_two(&self) -> Option<Vec<Symbol>> {
        let sums = self.known_syndromes();
        let &[t0, t1, t2, t3, ..] = sums.as_slice() else {
            return None;
        };
        let scale = (t1 * t1 + t0 * t2).inverse();
        let (sum, product) = ((t1 * t2 + t0 * t3) * scale, (t1 * t3 + t2 * t2) * scale);
        let places: Vec<_> =
            locators().filter(|&x| x * x + sum * x + product == Symbol::ZERO && self.may_be_wrong(x)).collect();
        (places.len() == 2).then_some(places)
    }

    fn may_be_wrong(&self, place: Symbol) -> bool {
        place != Symbol::ZERO && locators().any(|locator| locator == place) && !self.unknown.contains(&place)
    }
}

/// Locators of a line's 30 symbols in order: a^29 down to a^0.
fn locators() -> impl Iterator<Item = Symbol> {
    let inverse = Symbol::ALPHA.inverse();
    let last_but_line_number = inverse * inverse;
    std::iter::successors(Some(last_but_line_number), move |&locator| Some(locator * inverse)).take(LINE)
}

/// Power sums freed of what the place `locator` adds to them; one fewer.
fn without(sums: &[Symbol], locator: Symbol) -> Vec<Symbol> {
    sums.iter().zip(sums.iter().skip(1)).map(|(&sum, &next)| next + locator * sum).collect()
}

/// Symbols of a line that lost one.
const MISSING: usize = LINE - 1;
/// Symbols of a line with one too many.
const EXTRA: usize = LINE + 1;
/// Check symbols of a line.
const CHECK_LEN: usize = 5;

/// a^1 to a^5.
const ROOTS: [u8; CHECK_LEN] = [2, 4, 8, 16, 5];

/// The product of (x - a^i), i = 1 to 5, without its leading 1.
const GENERATOR: [u8; CHECK_LEN] = [27, 15, 23, 25, 31];

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    fn random_line(rng: &mut StdRng) -> (LineNumber, Vec<Symbol>, Vec<Option<Symbol>>) {
        let number = LineNumber::new(rng.random_range(1..=31)).unwrap();
        let data: Vec<_> = (0..DATA).map(|_| Symbol::from_low_bits(rng.random())).collect();
        let text = encode(number, &data).into_iter().map(Some).collect();
        (number, data, text)
    }

    fn spoil(rng: &mut StdRng, text: &mut [Option<Symbol>], wrong: usize, unknown: usize) {
        let mut places: Vec<_> = (0..text.len()).collect();
        for count in 0..wrong + unknown {
            let place = places.swap_remove(rng.random_range(0..places.len()));
            text[place] = if count < wrong {
                text[place].map(|symbol| symbol + Symbol::from_low_bits(rng.random_range(1..32)))
            } else {
                None
            };
        }
    }

    #[test]
    fn the_generator_has_the_roots() {
        for root in ROOTS.map(Symbol::from_low_bits) {
            let value = GENERATOR.iter().fold(Symbol::ONE, |sum, &g| sum * root + Symbol::from_low_bits(g));
            assert_eq!(value, Symbol::ZERO);
        }
    }

    #[test]
    fn every_damage_within_the_distance_is_repaired_to_the_original() {
        let mut rng = StdRng::seed_from_u64(1);
        for wrong in 0..=2 {
            for unknown in 0..=5 - 2 * wrong {
                for _ in 0..1000 {
                    let (number, data, mut text) = random_line(&mut rng);
                    spoil(&mut rng, &mut text, wrong, unknown);
                    let readings = decode(number, &text);
                    assert_eq!(readings.len(), 1, "{wrong} wrong, {unknown} unknown");
                    assert_eq!(readings[0].data, data, "{wrong} wrong, {unknown} unknown");
                }
            }
        }
    }

    #[test]
    fn three_wrong_characters_are_never_taken_for_the_original() {
        let mut rng = StdRng::seed_from_u64(2);
        for _ in 0..10_000 {
            let (number, data, mut text) = random_line(&mut rng);
            spoil(&mut rng, &mut text, 3, 0);
            assert!(decode(number, &text).iter().all(|reading| reading.data != data));
        }
    }

    #[test]
    fn one_character_missing_or_too_many_leaves_the_original_among_the_readings() {
        let mut rng = StdRng::seed_from_u64(5);
        for case in 0..2000 {
            let (number, data, text) = random_line(&mut rng);
            let mut shorter = text.clone();
            shorter.remove(rng.random_range(0..30));
            let mut longer = text;
            longer.insert(rng.random_range(0..=30), Some(Symbol::from_low_bits(rng.random())));
            for (damaged, repair) in [(shorter, Repair::Missing), (longer, Repair::Extra)] {
                let readings = decode(number, &damaged);
                assert!(readings.contains(&Decoded { data: data.clone(), repair }), "case {case} {repair:?}");
                let slow: BTreeSet<_> = (0..=30)
                    .filter_map(|place| {
                        let mut word = damaged.clone();
                        match repair {
                            Repair::Missing if place < 30 => word.insert(place, None),
                            Repair::Extra => drop(word.remove(place)),
                            Repair::Missing | Repair::None | Repair::Characters(_) => return None,
                        }
                        fill(number, &word)
                    })
                    .collect();
                assert_eq!(readings.into_iter().map(|reading| reading.data).collect::<BTreeSet<_>>(), slow);
            }
        }
    }

    #[test]
    fn a_line_under_another_number_shows() {
        let mut rng = StdRng::seed_from_u64(3);
        for _ in 0..1000 {
            let (number, data, text) = random_line(&mut rng);
            let other = LineNumber::new(number.value() % 31 + 1).unwrap();
            assert!(decode(other, &text).iter().all(|reading| reading.data != data));
        }
    }

    #[test]
    fn six_unknown_characters_are_too_many() {
        let mut rng = StdRng::seed_from_u64(4);
        let (number, _, mut text) = random_line(&mut rng);
        spoil(&mut rng, &mut text, 0, 6);
        assert_eq!(decode(number, &text), []);
        assert_eq!(decode(number, &text[..28]), []);
    }

    #[test]
    fn line_numbers_are_1_to_31() {
        assert_eq!((LineNumber::new(0), LineNumber::new(32)), (None, None));
        assert_eq!(LineNumber::new(7).unwrap().to_string(), "07");
    }
}
