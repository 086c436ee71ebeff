//! Damage as people, scanners and mail programs do it.

use rand::RngExt;
use rand::rngs::StdRng;

const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// What happens to one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Damage {
    /// So many characters become others.
    Wrong(usize),
    /// So many characters become `?`.
    Unknown(usize),
    /// A character is left out.
    Missing,
    /// A character is put in.
    Extra,
    /// Two neighbours change places.
    Swapped,
}

/// Damages one printed line (`01: XXXXX …`); the number stays.
pub(crate) fn line(rng: &mut StdRng, line: &str, damage: Damage) -> String {
    let (number, groups) = line.split_once(": ").expect("a line");
    let mut text: Vec<u8> = groups.bytes().filter(|octet| *octet != b' ').collect();
    match damage {
        Damage::Wrong(count) => {
            for place in places(rng, text.len(), count) {
                let before = text[place];
                while text[place] == before {
                    text[place] = ALPHABET[rng.random_range(0..32)];
                }
            }
        }
        Damage::Unknown(count) => {
            for place in places(rng, text.len(), count) {
                text[place] = b'?';
            }
        }
        Damage::Missing => drop(text.remove(rng.random_range(0..text.len()))),
        Damage::Extra => text.insert(rng.random_range(0..=text.len()), ALPHABET[rng.random_range(0..32)]),
        Damage::Swapped => {
            let place = rng.random_range(0..text.len() - 1);
            text.swap(place, place + 1);
        }
    }
    let groups: Vec<_> = text.chunks(5).map(|group| String::from_utf8_lossy(group).into_owned()).collect();
    format!("{number}: {}", groups.join(" "))
}

/// Damages every line of a message the same way.
pub(crate) fn message(rng: &mut StdRng, text: &str, damage: Damage) -> String {
    text.lines().map(|printed| line(rng, printed, damage) + "\n").collect()
}

/// A mail that quotes a message, each line damaged a little.
pub(crate) fn mail(rng: &mut StdRng, text: &str) -> String {
    let all = [
        Damage::Wrong(0),
        Damage::Wrong(1),
        Damage::Wrong(2),
        Damage::Unknown(3),
        Damage::Unknown(5),
        Damage::Missing,
        Damage::Extra,
        Damage::Swapped,
    ];
    let mut mail = String::from("Hi Bob,\nOn Nov 21 at 10:02 Alice wrote:\n");
    for printed in text.lines() {
        let damage = all[rng.random_range(0..all.len())];
        mail += &format!("> {}\n", line(rng, printed, damage));
    }
    mail + "> regards\nSent from my phone\n"
}

fn places(rng: &mut StdRng, len: usize, count: usize) -> Vec<usize> {
    let mut all: Vec<_> = (0..len).collect();
    (0..count).map(|_| all.swap_remove(rng.random_range(0..all.len()))).collect()
}
