//! How codes, messages and words are shown to people: a QR code, large letters, the spelling alphabet.

use qrcode::{Color, EcLevel, QrCode};

use crate::words::Words;

/// How a QR code is drawn with characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paper {
    /// Black on white by terminal colours.
    Colours,
    /// Characters only; they show white for dark on a light terminal, which most readers take as well.
    Plain,
}

/// The modules of the smallest QR code that holds a text, rows from the top, true where dark. Correction is as strong
/// as that size allows. `None` if no QR code holds the text.
#[must_use]
pub fn qr_modules(text: &str) -> Option<Vec<Vec<bool>>> {
    let smallest = QrCode::with_error_correction_level(text, EcLevel::L).ok()?;
    let stronger = [EcLevel::H, EcLevel::Q, EcLevel::M].into_iter().find_map(|level| {
        QrCode::with_error_correction_level(text, level).ok().filter(|code| code.width() == smallest.width())
    });
    let code = stronger.unwrap_or(smallest);
    let width = code.width();
    Some(code.into_colors().chunks(width).map(|row| row.iter().map(|&color| color == Color::Dark).collect()).collect())
}

/// A QR code in half blocks, two modules in a character, with its quiet zone; empty if no QR code holds the text.
#[must_use]
pub fn qr_half_blocks(text: &str, paper: Paper) -> String {
    let Some(modules) = qr_modules(text) else {
        return String::new();
    };
    let last = modules.len().saturating_add(QUIET);
    let dark = |row: usize, column: usize| -> bool {
        let at = |row: usize| row.checked_sub(QUIET).and_then(|row| modules.get(row));
        at(row).and_then(|row| column.checked_sub(QUIET).and_then(|column| row.get(column))).copied().unwrap_or(false)
    };
    let mut drawn = String::new();
    for row in (0..last.saturating_add(QUIET)).step_by(2) {
        if paper == Paper::Colours {
            drawn.push_str("\x1b[38;5;16;48;5;231m");
        }
        for column in 0..last.saturating_add(QUIET) {
            let (upper, lower) = (dark(row, column), dark(row.saturating_add(1), column));
            // On plain paper light modules are inked, since terminals are dark.
            let (upper, lower) = if paper == Paper::Plain { (!upper, !lower) } else { (upper, lower) };
            drawn.push(match (upper, lower) {
                (true, true) => '█',
                (true, false) => '▀',
                (false, true) => '▄',
                (false, false) => ' ',
            });
        }
        drawn.push_str(if paper == Paper::Colours { "\x1b[0m\n" } else { "\n" });
    }
    drawn
}

/// Six words in large letters, one below the other, each numbered.
#[must_use]
pub fn large_words(words: &Words) -> String {
    let mut drawn = String::new();
    for (number, word) in (1..).zip(words.iter()) {
        for (place, rows) in [(0, 1), (2, 3), (4, 5)].into_iter().enumerate() {
            let head = if place == 1 { format!("  {number}  ") } else { "     ".to_owned() };
            let line: String = word.chars().map(|letter| half_row(letter, rows)).collect();
            drawn.push_str((head + &line).trim_end());
            drawn.push('\n');
        }
        drawn.push('\n');
    }
    drawn
}

/// Two pixel rows of a letter as half blocks, with the space behind it.
fn half_row(letter: char, (upper, lower): (usize, usize)) -> String {
    let place = u32::from(letter).checked_sub(u32::from('a')).and_then(|place| usize::try_from(place).ok());
    let glyph = place.and_then(|place| GLYPHS.get(place)).copied().unwrap_or_default();
    let row = |at: usize| glyph.split('/').nth(at).unwrap_or_default();
    let ink = |at: usize, column: usize| row(at).as_bytes().get(column) == Some(&b'#');
    let width = glyph.split('/').map(str::len).max().unwrap_or(0);
    let columns = (0..=width).map(|column| match (ink(upper, column), ink(lower, column)) {
        (true, true) => '█',
        (true, false) => '▀',
        (false, true) => '▄',
        (false, false) => ' ',
    });
    columns.collect()
}

/// How a line or a code is read out: each character as a word of the spelling alphabet, a comma after each group.
#[must_use]
pub fn spelled(text: &str) -> String {
    let groups = text.split([' ', '-']).filter(|group| !group.is_empty());
    let groups = groups.map(|group| group.chars().filter_map(spelling).collect::<Vec<_>>().join(" "));
    groups.filter(|group| !group.is_empty()).collect::<Vec<_>>().join(", ")
}

fn spelling(character: char) -> Option<&'static str> {
    let character = character.to_ascii_lowercase();
    if let Some(digit) = character.to_digit(10) {
        return DIGITS.get(usize::try_from(digit).ok()?).copied();
    }
    SPELLING.iter().find(|word| word.starts_with(character)).copied()
}

/// Light modules around a QR code.
const QUIET: usize = 4;

const DIGITS: [&str; 10] = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"];

/// The spelling alphabet of ICAO annex 10, volume II, §5.2.1.3.
const SPELLING: [&str; 26] = [
    "alfa", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel", "india", "juliett", "kilo", "lima",
    "mike", "november", "oscar", "papa", "quebec", "romeo", "sierra", "tango", "uniform", "victor", "whiskey", "x-ray",
    "yankee", "zulu",
];

/// The letters a to z in five rows.
const GLYPHS: [&str; 26] = [
    ".##./#..#/####/#..#/#..#",
    "###./#..#/###./#..#/###.",
    ".###/#.../#.../#.../.###",
    "###./#..#/#..#/#..#/###.",
    "####/#.../###./#.../####",
    "####/#.../###./#.../#...",
    ".###/#.../#.##/#..#/.###",
    "#..#/#..#/####/#..#/#..#",
    "###/.#./.#./.#./###",
    "..##/...#/...#/#..#/.##.",
    "#..#/#.#./##../#.#./#..#",
    "#.../#.../#.../#.../####",
    "#...#/##.##/#.#.#/#...#/#...#",
    "#..#/##.#/#.##/#..#/#..#",
    ".##./#..#/#..#/#..#/.##.",
    "###./#..#/###./#.../#...",
    ".##./#..#/#..#/#.#./.#.#",
    "###./#..#/###./#.#./#..#",
    ".###/#.../.##./...#/###.",
    "#####/..#../..#../..#../..#..",
    "#..#/#..#/#..#/#..#/.##.",
    "#...#/#...#/.#.#./.#.#./..#..",
    "#...#/#...#/#.#.#/##.##/#...#",
    "#...#/.#.#./..#../.#.#./#...#",
    "#...#/.#.#./..#../..#../..#..",
    "####/...#/.##./#.../####",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn qr_codes_have_the_sizes_that_the_format_names() {
        let line = "01:42BHP5N58NPH1H3R6A6HZD28VN67PW";
        let width = |text: &str| qr_modules(text).unwrap().len();
        assert_eq!(width("BHP5N-40BAQ-PAAQS-PP7FT-4Y575"), 25);
        for (lines, modules) in [(3, 33), (4, 37), (10, 57)] {
            assert_eq!(width(&vec![line; lines].join(" ")), modules, "{lines} lines");
        }
        assert_eq!(qr_modules(&"A".repeat(5000)), None);
    }

    #[test]
    fn a_half_block_drawing_has_a_quiet_zone_and_one_row_for_two() {
        let drawn = qr_half_blocks("BHP5N", Paper::Plain);
        let rows: Vec<_> = drawn.lines().collect();
        assert_eq!(rows.len(), (21 + 8_usize).div_ceil(2));
        assert!(rows.iter().all(|row| row.chars().count() == 21 + 8));
        assert!(rows[0].chars().all(|c| c == '█'), "{}", rows[0]);
        assert!(qr_half_blocks("BHP5N", Paper::Colours).starts_with("\x1b[38;5;16;48;5;231m     "));
    }

    #[test]
    fn a_line_is_spelled_in_groups_and_every_character_of_the_alphabet_has_a_word() {
        assert_eq!(spelled("42BHP 5N58N"), "four two bravo hotel papa, five november five eight november");
        assert_eq!(spelled("01: 4"), "zero one, four");
        let all = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
        assert_eq!(spelled(all).split(' ').count(), 32);
    }

    #[test]
    fn large_words_name_all_six_in_three_rows_each() {
        let words = Words::parse("abandon zoo jazz quick wolf mixed").unwrap();
        let drawn = large_words(&words);
        assert_eq!(drawn.lines().filter(|line| !line.is_empty()).count(), 18);
        assert!(drawn.lines().all(|line| line.chars().count() <= 60));
        assert!(drawn.contains("  6  "));
    }
}
