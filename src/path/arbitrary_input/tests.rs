//! Golden frames, as they are and damaged, through the function that the fuzz target runs.
//!
//! `SLUICEGATE_FRAMES=10000000` sets the number of damaged frames; `ci/frames.sh` runs that many in release mode.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Instant;

use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;

#[allow(dead_code, reason = "shared with the tests from outside")]
#[path = "../../../tests/common/golden.rs"]
pub(in crate::path) mod golden;

/// Damaged frames without `SLUICEGATE_FRAMES`.
const FRAMES: u64 = 10_000;
/// Values that lengths, offsets and numbers turn into: around zero, around 8 and 20, powers of two, protocols, ports.
const VALUES: [u16; 24] = [
    0, 1, 2, 3, 4, 5, 7, 8, 12, 19, 20, 28, 40, 60, 64, 0x80, 0xff, 0x100, 0x2000, 6081, 0x7fff, 0x8000,
    0x86dd, 0xffff,
];
/// Fields of the usual frame, where a changed value leads to another branch: EtherType, header length, total length, fragment,
/// protocol, addresses, UDP port, length and checksum, GENEVE bits and protocol, each option's class, type and length, inner
/// version and header length, lengths, fragment, protocol, and the transport header behind 20 and 40 bytes.
const FIELDS: [usize; 42] = [
    12, 14, 16, 17, 20, 21, 23, 26, 30, 36, 37, 38, 39, 40, 42, 43, 44, 45, 50, 51, 52, 53, 62, 64, 65, 74,
    76, 77, 82, 83, 84, 85, 86, 88, 89, 91, 102, 106, 114, 122, 126, 134,
];

/// A golden case with the choices that make its scene, if there are any.
fn cases() -> Vec<([u8; CHOICES], golden::Case)> {
    let cases = golden::cases().into_iter().filter(|case| case.frame.len() <= LONGEST);
    cases.filter_map(|case| Some((choices(&case)?, case))).collect()
}

/// Choices for the settings of a case, without repairs.
fn choices(case: &golden::Case) -> Option<[u8; CHOICES]> {
    let mut first = 0;
    for (key, value) in &case.settings {
        first |= match (key.as_str(), value.as_str()) {
            ("profile", "tencent") => 1,
            ("profile", "google") => 2,
            ("profile", "plain") => 3,
            ("verify_checksum", "always") => 1 << 2,
            ("verify_checksum", "never") => 2 << 2,
            ("allowed_sources", "") => 0x10,
            ("addresses", "") => 0x20,
            ("max_return", "1400") => 2 << 6,
            ("max_return", "65535") => 3 << 6,
            _ => return None,
        };
    }
    Some([first, 3])
}

/// The oracle and the golden verdicts come from different hands.
#[test]
fn the_oracle_agrees_with_the_golden_verdicts() {
    let mut open = Vec::new();
    let cases = cases();
    for (choices, case) in &cases {
        let opinion = oracle::opinion(&Scene::chosen(*choices).rules(), &case.frame);
        match case.verdict.split(' ').next() {
            _ if opinion == Opinion::Open => open.push(&case.name),
            Some("home") => assert_eq!(opinion, Opinion::Home, "{}", case.name),
            Some("punted") => assert_eq!(opinion, Opinion::Punt, "{}", case.name),
            _ => assert!(matches!(opinion, Opinion::Drop(_)), "{}: {opinion:?}", case.name),
        }
    }
    assert!(cases.len() > 200 && open.len() * 4 < cases.len(), "{} of {}: {open:?}", open.len(), cases.len());
}

/// What the judge is there for, it finds.
#[test]
fn a_broken_promise_is_found() {
    let (choices, case) = &cases()[0];
    let scene = Scene::chosen(*choices);
    assert_eq!(scene.judge(&case.frame, Fate::Home, Some(&case.back)), Ok(()));
    assert!(scene.judge(&case.frame, Fate::Home, Some(&case.frame)).is_err(), "not turned around");
    let mut longer = case.back.clone();
    longer.push(0);
    assert!(scene.judge(&case.frame, Fate::Home, Some(&longer)).is_err());
    assert!(scene.judge(&case.frame, Fate::Punted, None).is_err());
    assert!(scene.judge(&case.frame, Fate::Dropped(DropReason::TooBig), None).is_err());
    let mut version = case.frame.clone();
    version[42] |= 0x40;
    assert!(scene.judge(&version, Fate::Home, Some(&oracle::turned(&version))).is_err());
}

/// Golden frames with bits flipped, fields overwritten, ends cut off, pieces of other frames in them: under every configuration,
/// each has one fate, the one of the rules.
#[test]
fn damaged_frames_meet_the_fate_of_the_rules() {
    let frames = std::env::var("SLUICEGATE_FRAMES").map_or(FRAMES, |n| n.parse().expect("SLUICEGATE_FRAMES"));
    let cases = cases();
    // Mostly frames that would go home, and short ones: long ones take long to copy and say no more.
    let good: Vec<_> =
        cases.iter().filter(|(_, case)| case.verdict == "home" && case.frame.len() < 400).collect();
    let mut random = ChaCha8Rng::seed_from_u64(8926);
    let mut fates: BTreeMap<Fate, u64> = BTreeMap::new();
    let mut input = Vec::new();
    let start = Instant::now();
    for number in 0..frames {
        let (choices, case) = match number % 4 {
            0 => cases.choose(&mut random).expect("cases"),
            _ => *good.choose(&mut random).expect("good cases"),
        };
        let (_, other) = *good.choose(&mut random).expect("good cases");
        input.clear();
        input.extend(choices);
        input.extend(&case.frame);
        damage(&mut input, &other.frame, &mut random);
        *fates.entry(frame(&input)).or_default() += 1;
    }
    report(frames, start.elapsed().as_secs_f64(), &fates);
    let count = |wanted: fn(&Fate) -> bool| {
        fates.iter().filter(|(fate, _)| wanted(fate)).map(|(_, n)| n).sum::<u64>()
    };
    let home = count(|fate| *fate == Fate::Home);
    let deep =
        home + count(|fate| matches!(fate, Fate::Dropped(reason) if *reason >= DropReason::UdpChecksum));
    assert!(home * 5 > frames && deep * 3 > frames * 2, "{home} home, {deep} deep, of {frames}");
    let reasons = fates.keys().filter(|fate| matches!(fate, Fate::Dropped(_))).count();
    // All that a frame alone can provoke: not what needs tenants, stages or other workers, nor full queues and chains.
    let by_flows = [DropReason::TcpInvalid, DropReason::Pickup, DropReason::FragmentOrphan];
    let alone =
        DropReason::ALL.iter().filter(|r| matches!(r.hop(), "decap" | "encap") || by_flows.contains(r));
    assert!(frames < FRAMES || reasons == alone.count(), "{:?}", fates.keys());
}

/// One frame behind its choices, damaged once to four times, or not at all.
fn damage(input: &mut Vec<u8>, other: &[u8], random: &mut ChaCha8Rng) {
    // Mostly the scene that the frame is meant for, with lengths and both checksums repaired; now and then another driver.
    input[1] = u8::from(random.random_ratio(1, 32)) | u8::from(random.random_ratio(1, 8)) << 1;
    input[1] |= u8::from(random.random_ratio(1, 4)) << 2 | u8::from(random.random_ratio(3, 4)) << 3;
    // Every other one where flows are followed, in one way or another.
    if random.random() {
        input[1] |= random.random_range(1..16u8) << 4;
    }
    match random.random_range(0..8) {
        0 => input[0] = random.random(),
        1 => input[0] ^= 1 << random.random_range(2..8),
        _ => {}
    }
    let tagged = if input.get(CHOICES + 12..CHOICES + 14) == Some(&[0x81, 0]) { 4 } else { 0 };
    for _ in 0..[0, 1, 1, 1, 1, 2, 2, 4][random.random_range(0..8)] {
        let frame = input.len() - CHOICES;
        let field = CHOICES + tagged + *FIELDS.choose(random).expect("fields");
        let at = CHOICES + random.random_range(0..frame.clamp(1, 140));
        match random.random_range(0..16) {
            0..3 => overwrite(input, at, &[1 << random.random_range(0..8)], |old, new| old ^ new),
            3..6 => overwrite(input, field, &[1 << random.random_range(0..8)], |old, new| old ^ new),
            6..8 => overwrite(input, field, &[random.random()], |_, new| new),
            8 | 9 => {
                overwrite(input, field, &VALUES.choose(random).expect("values").to_be_bytes(), |_, new| new)
            }
            10 => overwrite(
                input,
                field,
                &[[1, 4, 8, 255, 252, 248][random.random_range(0..6)]],
                u8::wrapping_add,
            ),
            11 => overwrite(input, at, &[random.random()], |_, new| new),
            12 => input.truncate(CHOICES + random.random_range(0..=frame)),
            13 => input.extend(std::iter::repeat_n(0, random.random_range(1..32))),
            14 => {
                // The other frame's bytes from here on, or a few of them.
                let tail = other.get(at - CHOICES..).unwrap_or(&[]);
                if random.random() {
                    input.truncate(at);
                    input.extend(tail);
                } else {
                    overwrite(input, at, &tail[..tail.len().min(16)], |_, new| new);
                }
            }
            _ => {
                // Four bytes more or less: an option that comes or goes.
                if random.random() {
                    input.splice(at..at, [1, 2, random.random(), 0]);
                } else {
                    input.drain(at..(at + 4).min(input.len()));
                }
            }
        }
        if input.len() == CHOICES {
            break;
        }
    }
}

/// Combines bytes of the input with others, as far as it reaches.
fn overwrite(input: &mut [u8], at: usize, with: &[u8], how: fn(u8, u8) -> u8) {
    input.iter_mut().skip(at).zip(with).for_each(|(old, new)| *old = how(*old, *new));
}

/// One line for each fate, as `ci/frames.sh` keeps it.
fn report(frames: u64, seconds: f64, fates: &BTreeMap<Fate, u64>) {
    let mut text = format!("| frames | {frames} |\n| seconds | {seconds:.1} |\n");
    for (fate, count) in fates {
        let fate = match fate {
            Fate::Home => "home".to_owned(),
            Fate::Punted => "punted".to_owned(),
            Fate::Dropped(reason) => format!("dropped {reason}"),
        };
        text += &format!("| {fate} | {count} |\n");
    }
    std::io::stderr().lock().write_all(text.as_bytes()).expect("standard error");
}
