use proptest::prelude::*;

use super::*;
use crate::wire::geneve::{Fields, HEADER_LEN};

/// Class, type, R bits and length, data.
type Raw<'a> = (u16, u8, u8, &'a [u8]);

/// Options written out by hand rather than by the code under test.
fn block(options: &[Raw<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    for (class, kind, len, data) in options {
        out.extend(class.to_be_bytes());
        out.extend([*kind, *len]);
        out.extend(*data);
    }
    out
}

fn packet(options: &[u8], vni: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = Fields { options_len: options.len(), protocol: 0x0800, vni }.emit().to_vec();
    assert_eq!(out.len(), HEADER_LEN);
    out.extend(options);
    out.extend(payload);
    out
}

const ENDPOINT: &[u8] = &[0x0f, 0xed, 0xcb, 0xa9, 0x87, 0x65, 0x43, 0x21];
const ATTACHMENT: &[u8] = &[0; 8];
const COOKIE: &[u8] = &[0x67, 0x42, 0xcc, 0x6d];

fn aws() -> Vec<u8> {
    block(&[(0x108, 1, 2, ENDPOINT), (0x108, 2, 2, ATTACHMENT), (0x108, 3, 1, COOKIE)])
}

fn shape_and_walk(profile: &Profile, options: &[u8]) -> (Option<Found>, Result<Found, DropReason>) {
    let bytes = packet(options, 0, &[0x45; 20]);
    let geneve = Geneve::new_checked(&bytes).unwrap();
    let shape = profile.fixed.unwrap().read(geneve.options_bytes().len(), geneve.behind());
    (shape, profile.walk(geneve.options_bytes()))
}

#[test]
fn a_captured_aws_block_hits_the_shape() {
    let found = Found { endpoint: 0x0fed_cba9_8765_4321, cookie: 0x6742_cc6d };
    assert_eq!(aws().len(), 32);
    assert_eq!(shape_and_walk(&AWS, &aws()), (Some(found), Ok(found)));
    for bits in [0x20, 0x40, 0x80, 0xe0] {
        let mut options = aws();
        options[3] |= bits;
        options[27] |= bits;
        assert_eq!(shape_and_walk(&AWS, &options), (Some(found), Ok(found)), "R bits {bits:02x} are ignored");
    }
}

#[test]
fn tencent_and_google_hit_theirs() {
    let tencent =
        block(&[(0x167, 1, 2, ENDPOINT), (0x167, 2, 2, ATTACHMENT), (0x167, 3, 1, &[0xe0, 0, 0, 7])]);
    let found = Found { endpoint: 0x0fed_cba9_8765_4321, cookie: 0xe000_0007 };
    assert_eq!(shape_and_walk(&TENCENT, &tencent), (Some(found), Ok(found)));
    assert_eq!(shape_and_walk(&AWS, &tencent), (None, Err(DropReason::OptionMissing)));
    let id: Vec<u8> = (1..=16).collect();
    let google = block(&[(0x132, 1, 1, &[0, 0, 1, 1]), (0x132, 2, 4, &id), (0x132, 3, 2, &[9; 8])]);
    assert_eq!(google.len(), 40, "Opt Len of 10 words");
    let found = Found { endpoint: 0x0102_0304_0506_0708 ^ 0x090a_0b0c_0d0e_0f10, cookie: 0 };
    assert_eq!(shape_and_walk(&GOOGLE, &google), (Some(found), Ok(found)));
}

#[test]
fn plain_takes_the_vni_with_and_without_options() {
    for options in [block(&[]), block(&[(0x102, 0x01, 1, &[1, 2, 3, 4])])] {
        let bytes = packet(&options, 0x00ab_cdef, &[0x45; 40]);
        let found = PLAIN.read(&Geneve::new_checked(&bytes).unwrap());
        assert_eq!(found, Ok(Found { endpoint: 0x00ab_cdef, cookie: 0 }));
    }
    let critical = packet(&block(&[(0x102, 0x80, 0, &[])]), 1, &[0x45; 40]);
    assert_eq!(PLAIN.read(&Geneve::new_checked(&critical).unwrap()), Err(DropReason::OptionCritical));
}

#[test]
fn order_has_no_meaning_and_unknown_options_are_skipped() {
    let found = Ok(Found { endpoint: 0x0fed_cba9_8765_4321, cookie: 0x6742_cc6d });
    let own = [(0x108, 1, 2, ENDPOINT), (0x108, 2, 2, ATTACHMENT), (0x108, 3, 1, COOKIE)];
    for order in [[0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        assert_eq!(AWS.walk(&block(&order.map(|i| own[i]))), found);
    }
    let unknown = (0xffff, 0x7f, 31, &[0xab; 124][..]);
    assert_eq!(AWS.walk(&block(&[unknown, own[0], own[1], own[2]])), found);
    assert_eq!(AWS.walk(&block(&[own[0], own[1], own[2], (0x108, 4, 0, &[])])), found);
}

#[test]
fn refusals() {
    let (e, a, c) = ((0x108, 1, 2, ENDPOINT), (0x108, 2, 2, ATTACHMENT), (0x108, 3, 1, COOKIE));
    let cases: &[(&[Raw<'_>], DropReason)] = &[
        (&[], DropReason::OptionMissing),
        (&[e, a], DropReason::OptionMissing),
        (&[e, c], DropReason::OptionMissing),
        (&[a, c], DropReason::OptionMissing),
        (&[e, a, c, c], DropReason::OptionDuplicate),
        (&[e, e, a, c], DropReason::OptionDuplicate),
        (&[(0x108, 1, 4, &[0; 16]), a, c], DropReason::OptionLength),
        (&[(0x108, 1, 0, &[]), a, c], DropReason::OptionLength),
        (&[e, a, (0x108, 3, 2, &[0; 8])], DropReason::OptionLength),
        (&[e, a, c, (0x108, 0x81, 0, &[])], DropReason::OptionCritical),
        (&[e, a, c, (0, 0x80, 0, &[])], DropReason::OptionCritical),
        (&[e, a, (0x108, 3, 31, COOKIE)], DropReason::OptionOverrun),
        (&[e, a, c, (0x102, 1, 1, &[])], DropReason::OptionOverrun),
    ];
    for (options, reason) in cases {
        assert_eq!(AWS.walk(&block(options)), Err(*reason), "{options:x?}");
    }
}

#[test]
fn an_option_length_that_does_not_fit_the_header_overruns() {
    let mut cut = aws();
    cut.truncate(30);
    assert_eq!(AWS.walk(&cut), Err(DropReason::OptionOverrun));
    cut.truncate(26);
    assert_eq!(AWS.walk(&cut), Err(DropReason::OptionOverrun), "half an option header");
}

#[test]
fn every_profile_is_found_by_its_name_and_has_a_shape() {
    for profile in Profile::ALL {
        assert_eq!(Profile::by_name(profile.name), Some(profile));
        let sum: usize = profile.options.iter().map(|o| 4 + usize::from(o.len)).sum();
        assert_eq!(profile.fixed.map(|s| s.len), Some(sum));
        assert!(profile.options.len() <= 32, "the walk remembers them in 32 bits");
        assert!(profile.options.iter().all(|o| o.len % 4 == 0 && o.kind & 0x80 == 0));
    }
    assert_eq!(Profile::by_name("azure"), None);
}

proptest! {
    /// Starts from a usual block and breaks a few bytes of it, so that both outcomes are frequent.
    #[test]
    fn a_hit_of_the_shape_is_the_walks_answer(
        which in 0usize..3,
        data in any::<[u8; 16]>(),
        breaks in proptest::collection::vec((0usize..48, any::<u8>()), 0..3),
    ) {
        let profile = Profile::ALL[which];
        let mut options = Vec::new();
        for rule in profile.options {
            options.extend(rule.class.to_be_bytes());
            options.extend([rule.kind, rule.len / 4]);
            options.extend(&data[..rule.len.into()]);
        }
        for (at, value) in breaks {
            if let Some(byte) = options.get_mut(at) { *byte = value }
        }
        let (shape, walk) = shape_and_walk(profile, &options);
        if let Some(found) = shape {
            prop_assert_eq!(walk, Ok(found));
        }
        let bytes = packet(&options, 0, &[0x45; 20]);
        prop_assert_eq!(profile.read(&Geneve::new_checked(&bytes).unwrap()), walk);
    }
}
