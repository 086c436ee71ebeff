//! Damage within the format's promise is repaired to the original, always; beyond it the line is named.

use enroll::{Approval, LineNumber, ReadError, Reader, Reply, Request, RequestedKey, Role};
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::damage::{self, Damage};
use crate::scene::Scene;

/// Random messages of each kind of damage.
const MESSAGES: u64 = 10_000;

fn every_message_comes_back(damage: Damage) {
    let mut rng = StdRng::seed_from_u64(1);
    let scene = Scene::new(1, Role::Client, Approval::Auto);
    let keys = scene.keys();
    for case in 0..MESSAGES {
        // Another hash makes another message: the key is named, not sent.
        let key = RequestedKey::Hashed(std::array::from_fn(|at| (case >> (at % 8 * 8)) as u8 ^ at as u8));
        let (message, hash) = Request::compose(&keys.request, &key);
        let mut reader = Reader::default();
        reader.add(&damage::message(&mut rng, &message.to_string(), damage));
        let read = reader.resolve(|symbols| Request::decode(&keys.request, symbols));
        let request = read.unwrap_or_else(|error| panic!("case {case}: {error}")).message;
        assert_eq!((request.hash, request.key), (hash, Ok(key)), "case {case}");
    }
}

#[test]
fn ten_thousand_messages_with_one_wrong_character_a_line_come_back() {
    every_message_comes_back(Damage::Wrong(1));
}

#[test]
fn ten_thousand_messages_with_two_wrong_characters_a_line_come_back() {
    every_message_comes_back(Damage::Wrong(2));
}

#[test]
fn ten_thousand_messages_with_up_to_five_unreadable_characters_a_line_come_back() {
    every_message_comes_back(Damage::Unknown(5));
    every_message_comes_back(Damage::Unknown(3));
}

#[test]
fn ten_thousand_messages_with_a_character_missing_in_every_line_come_back() {
    every_message_comes_back(Damage::Missing);
}

#[test]
fn ten_thousand_messages_with_a_character_too_many_in_every_line_come_back() {
    every_message_comes_back(Damage::Extra);
}

#[test]
fn ten_thousand_messages_with_neighbours_swapped_in_every_line_come_back() {
    every_message_comes_back(Damage::Swapped);
}

#[test]
fn a_line_that_cannot_be_read_is_named_the_others_are_kept_and_one_typed_again_completes_them() {
    let mut rng = StdRng::seed_from_u64(2);
    let mut named = 0;
    for seed in 0..200 {
        let mut scene = Scene::new(seed, Role::Client, Approval::Auto);
        let (request, pending) = scene.request_of(&scene.client);
        let request = scene.read(&request);
        let grant = scene.grant(&request);
        let complete = scene.replies(&grant, &scene.client).complete.unwrap().to_string();
        let bad = seed as usize % 10;
        let lines: Vec<_> = complete.lines().collect();
        let mut damaged: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        damaged[bad] = damage::line(&mut rng, lines[bad], Damage::Wrong(3));
        let mut reader = Reader::default();
        reader.add(&damaged.join("\n"));
        let open = |symbols: &[enroll::Symbol]| pending.open(symbols, &[]);
        let error = reader.resolve(open).expect_err("three wrong characters");
        let number = LineNumber::new(bad as u8 + 1).unwrap();
        // Seldom the damage lies within two characters of another line; then all lines can be read and the MAC fails.
        if error == ReadError::Unreadable(vec![number]) {
            named += 1;
            assert_eq!(reader.lines().count(), 9);
        } else {
            assert_eq!(error, ReadError::NoMessage(enroll::Refusal::Mac));
        }
        reader.add(lines[bad]);
        assert!(matches!(reader.resolve(open).unwrap().message, Reply::Complete(_)));
    }
    assert!(named > 180, "named {named} of 200");
}

#[test]
fn half_a_message_asks_for_the_lines_that_are_missing() {
    let scene = Scene::new(3, Role::Client, Approval::Auto);
    let (request, _) = scene.request_of(&scene.client);
    let lines: Vec<_> = request.lines().collect();
    let unreadable = |text: &str| {
        let mut reader = Reader::default();
        reader.add(text);
        match reader.resolve(|symbols| Request::decode(&scene.keys().request, symbols)) {
            Err(ReadError::Unreadable(lines)) => lines.into_iter().map(LineNumber::value).collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(unreadable(&lines[..2].join("\n")), [3]);
    assert_eq!(unreadable(&lines[1..].join("\n")), [1]);
    assert_eq!(unreadable(&[lines[0].as_str(), lines[2].as_str()].join("\n")), [2]);
    assert_eq!(unreadable("no line at all, at 10:02 or so"), [1]);
    let error = ReadError::Unreadable(vec![LineNumber::new(2).unwrap(), LineNumber::new(3).unwrap()]);
    assert_eq!(error.to_string(), "lines 02, 03 cannot be read: type them again, the others are kept");
}
