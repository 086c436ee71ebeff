//! Mails as programs and people mangle them: each is read.

use enroll::{Approval, Reader, Request, Role};

use crate::scene::Scene;

/// The name of a mangling, and what it makes of a message and of an older one in the same mail.
type Mangling = (&'static str, fn(&str, &str) -> String);

fn each_line(text: &str, change: impl Fn(&str) -> String) -> String {
    text.lines().map(change).collect::<Vec<_>>().join("\n")
}

fn wrap(text: &str, width: usize, prefix: &str) -> String {
    let mut wrapped = String::from(prefix);
    let mut column = 0;
    for word in text.split_whitespace() {
        if column + word.len() > width {
            wrapped += &format!("\n{prefix}");
            column = 0;
        }
        wrapped += word;
        wrapped += " ";
        column += word.len() + 1;
    }
    wrapped
}

fn full_width(text: &str) -> String {
    let widen = |c: char| if c.is_ascii_graphic() { char::from_u32(u32::from(c) + 0xfee0).unwrap() } else { c };
    text.chars().map(widen).collect()
}

fn quoted_printable(text: &str) -> String {
    let mut printable = String::new();
    for line in text.lines() {
        let mut column = 0;
        for character in line.chars() {
            let piece = if character == ':' || character == ' ' && column % 3 == 0 {
                format!("={:02X}", u32::from(character))
            } else {
                character.to_string()
            };
            if column + piece.len() > 30 {
                printable += "=\r\n";
                column = 0;
            }
            column += piece.len();
            printable += &piece;
        }
        printable += "=20\r\n";
    }
    printable
}

const MANGLINGS: &[Mangling] = &[
    ("as it is", |m, _| m.to_owned()),
    ("quoted", |m, _| each_line(m, |l| format!("> {l}"))),
    ("quoted three times", |m, _| each_line(m, |l| format!("> > >{l}"))),
    ("quoted with bars", |m, _| each_line(m, |l| format!("| {l}"))),
    ("bullets", |m, _| each_line(m, |l| format!("  \u{2022} {l}"))),
    ("stars", |m, _| each_line(m, |l| format!("* **{l}**"))),
    ("dashes", |m, _| each_line(m, |l| format!("- {l} -"))),
    ("CRLF", |m, _| m.replace('\n', "\r\n")),
    ("NBSP", |m, _| m.replace(' ', "\u{a0}")),
    ("thin spaces", |m, _| m.replace(' ', "\u{2009}")),
    ("zero-width spaces", |m, _| m.replace(' ', " \u{200b}").replace("A", "A\u{200b}")),
    ("soft hyphens", |m, _| each_line(m, |l| format!("{}\u{ad}{}", &l[..17], &l[17..]))),
    ("full-width digits and letters", |m, _| full_width(m)),
    ("full-width space and colon", |m, _| m.replace(": ", "\u{ff1a}\u{3000}")),
    ("small letters", |m, _| m.to_lowercase()),
    ("O, I, l and U", |m, _| each_line(m, |l| l.replace('0', "O").replace('1', "l").replace('V', "u"))),
    ("capital I for 1", |m, _| m.replace('1', "I")),
    ("quoted-printable", |m, _| quoted_printable(m)),
    ("quoted-printable NBSP", |m, _| m.replace(": ", ":=C2=A0").replace('\n', "=20=\n\n")),
    ("HTML with entities", |m, _| format!("<html><pre>{}</pre>", m.replace(' ', "&nbsp;").replace('\n', "&#10;"))),
    ("HTML quoted", |m, _| each_line(m, |l| format!("<div class=\"x\">&gt; {l}<br></div>"))),
    ("HTML table", |m, _| each_line(m, |l| format!("<tr><td>{}</td></tr>", l.replace(' ', "</td><td>")))),
    ("re-wrapped", |m, _| wrap(m, 20, "")),
    ("re-wrapped and quoted", |m, _| wrap(m, 47, "> ")),
    ("one long line", |m, _| m.replace('\n', " ")),
    ("no spaces", |m, _| m.replace(' ', "")),
    ("tabs and empty lines", |m, _| m.replace(' ', "\t").replace('\n', "\n\n\n")),
    ("hyphens between groups", |m, _| each_line(m, |l| format!("{}{}", &l[..4], l[4..].replace(' ', "-")))),
    ("smart quotes", |m, _| each_line(m, |l| format!("\u{201c}{l}\u{201d} \u{2013}"))),
    ("space before the colon", |m, _| m.replace(':', " :")),
    ("lost spaces as question marks", |m, _| each_line(m, |l| format!("{}{}", &l[..4], l[4..].replace(' ', "?")))),
    ("byte order and direction marks", |m, _| format!("\u{feff}{}", each_line(m, |l| format!("\u{200e}{l}\u{200f}")))),
    ("clock times around", |m, _| {
        format!("On Nov 21 at 10:02:33 Alice wrote:\n{m}\nSent 03:15 from my phone\n-- \n02:30 CET")
    }),
    ("clock time at each line", |m, _| each_line(m, |l| format!("[10:02] Alice: {l}\n[02:01, 21/11/2026] "))),
    ("an older message below", |m, old| {
        format!("{m}\n\nOn 20.11. at 09:00 Alice wrote:\n{}", each_line(old, |l| format!("> {l}")))
    }),
    ("an older message above", |m, old| format!("first try:\n{old}\nsorry, this one:\n{m}")),
    ("lines in another order", |m, _| m.lines().rev().collect::<Vec<_>>().join("\n")),
    ("a bad copy first", |m, _| format!("{}\n\nagain:\n{m}", m.replace(['A', 'B', 'C', 'D', 'E'], "?"))),
];

fn mails(message: &str, older: &str, accept: impl Fn(&str, &Reader)) {
    assert!(MANGLINGS.len() >= 30);
    for (name, mangle) in MANGLINGS {
        let mut reader = Reader::default();
        reader.add(&mangle(message, older));
        accept(name, &reader);
    }
}

#[test]
fn every_mangled_request_is_read() {
    for seed in 0..20 {
        let scene = Scene::new(seed, Role::Client, Approval::Auto);
        let (message, pending) = scene.request_of(&scene.client);
        // The older one is for another ticket: its MAC does not hold here.
        let (older, _) = Scene::new(seed + 100, Role::Client, Approval::Auto).request_of(&scene.thief);
        mails(&message.to_string(), &older.to_string(), |name, reader| {
            let read = reader.resolve(|symbols| Request::decode(&scene.keys().request, symbols));
            let request = read.unwrap_or_else(|error| panic!("{name}, seed {seed}: {error}")).message;
            assert_eq!(request.hash, pending.hash, "{name}");
        });
    }
}

#[test]
fn every_mangled_reply_is_read() {
    let reply_of = |seed| {
        let mut scene = Scene::new(seed, Role::Client, Approval::Auto);
        let (message, pending) = scene.request_of(&scene.client);
        let request = scene.read(&message);
        let grant = scene.grant(&request);
        (scene.replies(&grant, &scene.client).complete.unwrap(), pending)
    };
    for seed in 0..20 {
        let (reply, pending) = reply_of(seed);
        let (older, _) = reply_of(seed + 100);
        let expected = pending.open(reply.symbols(), &[]).unwrap();
        mails(&reply.to_string(), &older.to_string(), |name, reader| {
            let read = reader.resolve(|symbols| pending.open(symbols, &[]));
            let found = read.unwrap_or_else(|error| panic!("{name}, seed {seed}: {error}")).message;
            assert_eq!(found, expected, "{name}");
        });
    }
}
