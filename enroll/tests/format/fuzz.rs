//! Nothing without a valid MAC is accepted, whatever the input, and every input takes a bounded time.

use std::time::Duration;

use enroll::{Approval, Code, Pending, Reader, Request, Role, Symbol, TicketKeys, pem_blocks};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::scene::Scene;

/// Inputs of each run.
const INPUTS: u64 = 1_000_000;
/// Inputs of the long run.
const INPUTS_LONG: u64 = 10_000_000;
/// Of so many inputs one goes as text through the reader; the others are data symbols, as after repair.
const TEXT_EVERY: u64 = 4;

/// How long this thread has been on a processor: on a busy machine the wall clock says nothing about the library.
pub(crate) fn on_cpu() -> Duration {
    let statistics = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux counts a thread's time");
    Duration::from_nanos(statistics.split(' ').next().unwrap().parse().unwrap())
}

struct Target {
    keys: TicketKeys,
    pending: Pending,
    request: Vec<Symbol>,
    replies: Vec<(Vec<Symbol>, String)>,
    request_text: String,
}

fn target() -> Target {
    let mut scene = Scene::new(1, Role::Client, Approval::Auto);
    let (message, pending) = scene.request_of(&scene.client);
    let request = scene.read(&message);
    let grant = scene.grant(&request);
    let replies = scene.replies(&grant, &scene.client);
    let rejection = scene.ticket.rejection(&request.hash, enroll::RejectionReason::Used).unwrap();
    let replies = [replies.complete.unwrap(), replies.short, rejection];
    Target {
        keys: scene.keys(),
        pending,
        request: message.symbols().to_vec(),
        replies: replies.iter().map(|reply| (reply.symbols().to_vec(), reply.to_string())).collect(),
        request_text: message.to_string(),
    }
}

/// Changes a few symbols, swaps lines, cuts or lengthens.
fn change_symbols(rng: &mut StdRng, symbols: &[Symbol]) -> Vec<Symbol> {
    let mut changed = symbols.to_vec();
    for _ in 0..rng.random_range(1..=4) {
        match rng.random_range(0..10) {
            0 => changed.truncate(rng.random_range(0..=changed.len())),
            1 => changed.extend_from_slice(&symbols[..rng.random_range(0..symbols.len())]),
            2 if changed.len() >= 50 => {
                let line = rng.random_range(1..changed.len() / 25) * 25;
                changed.rotate_left(line);
            }
            _ if !changed.is_empty() => {
                let place = rng.random_range(0..changed.len());
                changed[place] = Symbol::from_low_bits(changed[place].value() ^ rng.random_range(1..32));
            }
            _ => {}
        }
    }
    changed
}

/// Changes a few octets of a text, or moves pieces.
fn change_text(rng: &mut StdRng, text: &str) -> String {
    let mut octets = text.as_bytes().to_vec();
    for _ in 0..rng.random_range(1..=8) {
        let place = rng.random_range(0..octets.len());
        match rng.random_range(0..8) {
            0 => drop(octets.remove(place)),
            1 => octets.insert(place, rng.random()),
            2 => octets.truncate(place.max(1)),
            3 => octets.extend_from_within(place..),
            4 => octets[place] = b'?',
            5 => octets[place] = b"&<=:0123456789"[rng.random_range(0..14)],
            _ => octets[place] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ"[rng.random_range(0..32)],
        }
        if octets.is_empty() {
            octets.push(b'0');
        }
    }
    String::from_utf8_lossy(&octets).into_owned()
}

fn run(inputs: u64, seed: u64) -> Duration {
    let target = target();
    let mut rng = StdRng::seed_from_u64(seed);
    let start = on_cpu();
    for input in 0..inputs {
        let reply = &target.replies[rng.random_range(0..target.replies.len())];
        if input % TEXT_EVERY == 0 {
            let mut reader = Reader::default();
            if rng.random() {
                reader.add(&change_text(&mut rng, &target.request_text));
                if let Ok(read) = reader.resolve(|symbols| Request::decode(&target.keys.request, symbols)) {
                    assert_eq!(read.message.hash, target.pending.hash, "seed {seed}, input {input}");
                }
            } else {
                reader.add(&change_text(&mut rng, &reply.1));
                let accepted = reader.resolve(|symbols| target.pending.open(symbols, &[]).map(|_| symbols.to_vec()));
                if let Ok(read) = accepted {
                    assert_eq!(read.message, reply.0, "seed {seed}, input {input}");
                }
            }
            continue;
        }
        let changed = change_symbols(&mut rng, &target.request);
        assert!(
            changed == target.request || Request::decode(&target.keys.request, &changed).is_err(),
            "seed {seed}, input {input}"
        );
        let changed = change_symbols(&mut rng, &reply.0);
        assert!(changed == reply.0 || target.pending.open(&changed, &[]).is_err(), "seed {seed}, input {input}");
    }
    on_cpu() - start
}

#[test]
fn of_a_million_inputs_none_is_accepted_without_a_valid_mac() {
    let seed = std::env::var("ENROLL_FUZZ_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let taken = run(INPUTS, seed);
    println!("{INPUTS} inputs in {taken:?}");
    assert!(taken < Duration::from_secs(30), "{INPUTS} inputs took {taken:?}");
}

#[test]
#[ignore = "ten million inputs, minutes: ./test full"]
fn of_ten_million_inputs_none_is_accepted_without_a_valid_mac() {
    println!("{INPUTS_LONG} inputs in {:?}", run(INPUTS_LONG, 2));
}

#[test]
fn typed_codes_and_blocks_of_any_octets_never_panic() {
    let mut rng = StdRng::seed_from_u64(3);
    let code = "BHP5N-40BAQ-PAAQS-PP7FT-4Y575";
    let block = enroll::pem_block("CERTIFICATE", &[7; 300]);
    for _ in 0..50_000 {
        let typed = change_text(&mut rng, code);
        if let Ok(read) = Code::parse(&typed) {
            assert_eq!(Code::parse(&read.expose()), Ok(read));
        }
        let _ = pem_blocks(&change_text(&mut rng, &block));
    }
}

#[test]
fn a_hostile_text_takes_a_bounded_time() {
    let texts = [
        "01: ".repeat(30_000),
        "01:".to_owned() + &"A".repeat(100_000),
        "01: 42BHP 5N58N PH1H3 R6A6H ZD28V N67P\n02: 42BHP 5N58N PH1H3 R6A6H ZD28V N67PWW\n".repeat(1_300),
        (0..3_000).map(|at| format!("{:02}: {:030}\n", at % 31 + 1, at)).collect(),
        "&#".repeat(50_000),
        "<a".repeat(50_000),
        "=".repeat(100_000),
        "-----BEGIN X-----".repeat(6_000),
        // The longest text that is looked at, each line with a character missing and four unknown: thirty readings.
        (0..31_000).map(|at| format!("{:02}:{at:05}5N58NPH1H3R6A6HZD28V????\n", at % 31 + 1)).collect(),
    ];
    let target = target();
    for text in texts {
        let start = on_cpu();
        let mut reader = Reader::default();
        reader.add(&text);
        let _ = pem_blocks(&text);
        let _ = reader.resolve(|symbols| target.pending.open(symbols, &[]));
        let taken = on_cpu() - start;
        println!("{:?}… {taken:?}", &text[..20]);
        assert!(taken < Duration::from_secs(2), "{:?} took {taken:?}", &text[..20]);
    }
}

#[test]
fn a_mail_of_100_kb_is_read_at_once() {
    let target = target();
    let prose = "On Nov 21 at 10:02 Alice wrote: the quick brown fox & 12: others <jumped> over =3D the lazy dog.\n";
    let mail = format!("{}{}{}", prose.repeat(500), target.replies[0].1, prose.repeat(520));
    let start = on_cpu();
    let mut reader = Reader::default();
    reader.add(&mail);
    let read = reader.resolve(|symbols| target.pending.open(symbols, &[]).map(|_| symbols.to_vec()));
    let taken = on_cpu() - start;
    assert_eq!(read.unwrap().message, target.replies[0].0);
    println!("{} octets in {taken:?}", mail.len());
    assert!(taken < Duration::from_millis(250), "{taken:?}");
}
