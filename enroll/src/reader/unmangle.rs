//! Undoes what mail programs do to text.

/// Undoes quoted-printable, HTML tags and entities, full-width characters, invisible characters and odd spaces.
pub(crate) fn unmangle(text: &str) -> String {
    let text = without_quoted_printable(text);
    let text = without_html(&text);
    text.chars().filter_map(plain).collect()
}

/// RFC 2045 §6.7: `=` and a line end is nothing, `=` and two hexadecimal digits is an octet.
fn without_quoted_printable(text: &str) -> String {
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&octet, tail)) = rest.split_first() {
        rest = match (octet, tail) {
            (b'=', [b'\r', b'\n', after @ ..] | [b'\n', after @ ..]) => after,
            (b'=', [high, low, after @ ..]) => {
                let digits = (char::from(*high).to_digit(16), char::from(*low).to_digit(16));
                if let (Some(high), Some(low)) = digits {
                    octets.push((high << 4 | low).to_le_bytes()[0]);
                    after
                } else {
                    octets.push(octet);
                    tail
                }
            }
            (other, tail) => {
                octets.push(other);
                tail
            }
        };
    }
    String::from_utf8_lossy(&octets).into_owned()
}

/// Puts a space for each tag, and its character for each entity.
fn without_html(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(['<', '&']) {
        let (before, markup) = rest.split_at(at);
        plain.push_str(before);
        let (text, after) = tag(markup).or_else(|| entity(markup)).unwrap_or_else(|| {
            let mut characters = markup.chars();
            (characters.next(), characters.as_str())
        });
        plain.extend(text);
        rest = after;
    }
    plain.push_str(rest);
    plain
}

/// A tag at the start of `markup`, and what follows it.
fn tag(markup: &str) -> Option<(Option<char>, &str)> {
    let inside = markup.strip_prefix('<')?;
    let name = inside.strip_prefix('/').unwrap_or(inside);
    if !name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '!') {
        return None;
    }
    let near = inside.get(..inside.floor_char_boundary(TAG_MAX))?;
    let end = near.find(['<', '>']).filter(|&end| near.get(end..).is_some_and(|rest| rest.starts_with('>')))?;
    inside.get(end..)?.strip_prefix('>').map(|after| (Some(' '), after))
}

/// An entity at the start of `markup`, and what follows it.
fn entity(markup: &str) -> Option<(Option<char>, &str)> {
    let inside = markup.strip_prefix('&')?;
    let near = inside.get(..inside.floor_char_boundary(ENTITY_MAX))?;
    let (name, _) = near.split_once(';')?;
    let character = match name.strip_prefix('#') {
        Some(number) => {
            let code = match number.strip_prefix(['x', 'X']) {
                Some(hexadecimal) => u32::from_str_radix(hexadecimal, 16),
                None => number.parse(),
            };
            code.ok().and_then(char::from_u32)?
        }
        None => ENTITIES.iter().find(|(known, _)| *known == name)?.1,
    };
    inside.get(name.len()..)?.strip_prefix(';').map(|after| (Some(character), after))
}

/// A character as the scanner knows it, or nothing.
fn plain(character: char) -> Option<char> {
    match character {
        // Zero-width characters, direction marks, word joiner, byte order mark, soft hyphen.
        '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2064}' | '\u{feff}' | '\u{ad}' => None,
        // Full-width forms of the printable ASCII characters.
        '\u{ff01}'..='\u{ff5e}' => u32::from(character).checked_sub(FULL_WIDTH_OFFSET).and_then(char::from_u32),
        '\u{2236}' | '\u{fe55}' | '\u{a789}' => Some(':'),
        other if other.is_ascii() => Some(other),
        // Other spaces, smart quotes, bullets, dashes, and letters that no line has.
        _ => Some(' '),
    }
}

/// U+FF01 less `!`.
const FULL_WIDTH_OFFSET: u32 = 0xfee0;
/// Octets within which a tag must end to be taken for one.
const TAG_MAX: usize = 2000;
/// Octets within which an entity must end to be taken for one.
const ENTITY_MAX: usize = 12;

/// Entities that mail programs put into text like ours; others are rare enough to be left alone.
const ENTITIES: &[(&str, char)] = &[
    ("nbsp", ' '),
    ("ensp", ' '),
    ("emsp", ' '),
    ("thinsp", ' '),
    ("lt", '<'),
    ("gt", '>'),
    ("amp", '&'),
    ("quot", '"'),
    ("apos", '\''),
    ("colon", ':'),
    ("quest", '?'),
    ("shy", '\u{ad}'),
    ("zwnj", '\u{200c}'),
    ("zwj", '\u{200d}'),
    ("bull", '\u{2022}'),
    ("middot", '\u{b7}'),
    ("ndash", '\u{2013}'),
    ("mdash", '\u{2014}'),
    ("lsquo", '\u{2018}'),
    ("rsquo", '\u{2019}'),
    ("ldquo", '\u{201c}'),
    ("rdquo", '\u{201d}'),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mangling_is_undone() {
        let cases = [
            ("01: 42B=\r\nHP", "01: 42BHP"),
            ("01=3A 42BHP=20", "01: 42BHP "),
            ("01:=C2=A042BHP", "01: 42BHP"),
            ("a=b =", "a=b ="),
            ("01:&nbsp;42BHP&#160;5N58N&#xA0;X", "01: 42BHP 5N58N X"),
            ("&gt; 01: &unknown; &", "> 01: &unknown; &"),
            ("<p class=\"x\">01: <b>42BHP</b><br/>5N58N", " 01:  42BHP  5N58N"),
            ("1 < 2 <3 <", "1 < 2 <3 <"),
            ("42\u{200b}B\u{ad}HP\u{2009}5N58N\u{feff}", "42BHP 5N58N"),
            ("\u{ff10}\u{ff11}\u{ff1a}\u{3000}\u{ff34}", "01: T"),
        ];
        for (mangled, plain) in cases {
            assert_eq!(unmangle(mangled), plain, "{mangled:?}");
        }
    }
}
