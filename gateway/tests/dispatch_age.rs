//! The dispatch program needs nothing of the kernel that Linux 6.1, Debian 12's, does not have.
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test")]

use std::collections::BTreeSet;

const OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/dispatch.bpf.o"));
const SOURCE: &str = include_str!("../../cluster/bpf/frame.h");

/// The helpers of `linux/bpf.h` that the program may call, by number, with the version of Linux that brought them.
const HELPERS: [(i32, &str, (u8, u8)); 7] = [
    (1, "bpf_map_lookup_elem", (3, 19)),
    (9, "bpf_skb_store_bytes", (4, 1)),
    (23, "bpf_redirect", (4, 4)),
    (32, "bpf_skb_change_type", (4, 8)),
    (39, "bpf_skb_pull_data", (4, 9)),
    (118, "bpf_jiffies64", (5, 6)),
    (125, "bpf_ktime_get_boot_ns", (5, 8)),
];

/// The kinds of maps and their flags, likewise.
const MAPS: [(&str, (u8, u8)); 5] = [
    ("BPF_MAP_TYPE_ARRAY", (3, 19)),
    ("BPF_MAP_TYPE_HASH", (3, 19)),
    ("BPF_MAP_TYPE_PERCPU_ARRAY", (4, 6)),
    ("BPF_F_NO_PREALLOC", (4, 6)),
    ("BPF_F_MMAPABLE", (5, 5)),
];

const OLDEST: (u8, u8) = (6, 1);

/// What an instruction calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Callee {
    Helper(i32),
    /// Another function of the program: Linux 4.16.
    Function,
    /// A function of the kernel, which may change with every version.
    Kernel,
}

fn u16_at(at: usize) -> usize {
    u16::from_le_bytes(OBJECT[at..at + 2].try_into().unwrap()).into()
}

fn u64_at(at: usize) -> usize {
    u64::from_le_bytes(OBJECT[at..at + 8].try_into().unwrap()).try_into().unwrap()
}

/// What the sections with instructions hold (SHF_EXECINSTR of the ELF specification).
fn code() -> Vec<&'static [u8]> {
    assert_eq!(&OBJECT[..6], b"\x7fELF\x02\x01", "64 bits, little-endian");
    let (headers, size, count) = (u64_at(40), u16_at(58), u16_at(60));
    let headers = (0..count).map(|n| headers + n * size).filter(|at| u64_at(at + 8) & 0x4 != 0);
    headers.map(|at| &OBJECT[u64_at(at + 24)..u64_at(at + 24) + u64_at(at + 32)]).collect()
}

fn callees() -> BTreeSet<Callee> {
    let mut callees = BTreeSet::new();
    for section in code() {
        let mut instructions = section.chunks_exact(8);
        while let Some(instruction) = instructions.next() {
            match instruction[0] {
                // A constant of 64 bits takes the next one too.
                0x18 => drop(instructions.next()),
                0x85 => {
                    let number = i32::from_le_bytes(instruction[4..].try_into().unwrap());
                    callees.insert(match instruction[1] >> 4 {
                        0 => Callee::Helper(number),
                        1 => Callee::Function,
                        _ => Callee::Kernel,
                    });
                }
                _ => {}
            }
        }
    }
    callees
}

#[test]
fn every_helper_that_it_calls_is_in_linux_6_1() {
    let callees = callees();
    assert!(callees.contains(&Callee::Helper(1)), "no call was found: {callees:?}");
    for callee in callees {
        match callee {
            Callee::Function => {}
            Callee::Kernel => panic!("it calls a function of the kernel"),
            Callee::Helper(number) => {
                let known = HELPERS.iter().find(|(known, _, _)| *known == number);
                let (_, name, since) = known.unwrap_or_else(|| panic!("helper {number} is not in the list"));
                assert!(*since <= OLDEST, "{name} came with {since:?}");
            }
        }
    }
}

#[test]
fn every_kind_of_map_that_it_has_is_in_linux_6_1() {
    let words = SOURCE.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let used: BTreeSet<&str> =
        words.filter(|word| word.starts_with("BPF_MAP_TYPE_") || word.starts_with("BPF_F_")).collect();
    assert!(used.contains("BPF_MAP_TYPE_ARRAY"), "{used:?}");
    for name in used {
        let (_, since) =
            MAPS.iter().find(|(known, _)| *known == name).unwrap_or_else(|| panic!("{name} is not in the list"));
        assert!(*since <= OLDEST, "{name} came with {since:?}");
    }
}
