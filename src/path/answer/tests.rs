use proptest::prelude::*;

use super::*;
use crate::dpdk::PoolConfig;
use crate::path::arbitrary_input;
use crate::path::arbitrary_input::answers::{Bench, QUESTION};
use crate::path::arbitrary_input::tests::golden;
use crate::wire::geneve::AWS;

#[allow(dead_code, reason = "shared with the tests from outside")]
#[path = "../../../tests/common/answers.rs"]
mod answers;

#[test]
fn a_bucket_holds_a_tenth_and_fills_at_its_rate() {
    let mut bucket = Bucket::new(1000);
    let mut take =
        |now: u64| (0..).take_while(|_| bucket.has_one(now).then(|| bucket.take()).is_some()).count();
    assert_eq!(take(5 * SECOND), 100, "full at first, and no fuller");
    assert_eq!(take(5 * SECOND), 0);
    assert_eq!(take(5 * SECOND + SECOND / 1000 - 1), 0);
    assert_eq!(take(5 * SECOND + SECOND / 1000), 1);
    assert_eq!(take(5 * SECOND), 0, "a clock that went back earns nothing");
    assert_eq!(take(5 * SECOND + SECOND / 100), 9);
    assert_eq!(take(u64::MAX), 100, "an age earns no more than it holds");
    // 0.7 of an answer per step: nothing is rounded away in ten thousand seconds.
    let mut bucket = Bucket::new(70);
    let sent = (0..=1_000_000_u64).filter(|step| {
        let has = bucket.has_one(step * 10_000_000);
        if has {
            bucket.take();
        }
        has
    });
    assert_eq!(sent.count(), 7 + 700_000, "what it held at first, and seventy a second");
    assert!(!Bucket::new(0).has_one(u64::MAX));
    assert!(Bucket::new(u32::MAX).has_one(0));
}

/// What a case asks for.
#[test]
fn a_bucket_that_takes_over_has_earned_nothing() {
    let mut old = Bucket::new(100);
    while old.has_one(SECOND) {
        old.take();
    }
    for rate in [0, 1, 100, 10_000] {
        let mut new = Bucket::new(rate);
        new.take_over(&old);
        assert!(!new.has_one(SECOND), "{rate} a second");
        assert_eq!(new.has_one(3 * SECOND), rate > 0, "{rate} a second");
    }
    let mut one = Bucket::new(1);
    one.take_over(&Bucket::new(10_000));
    assert!(one.has_one(0));
    one.take();
    assert!(!one.has_one(0), "and what is left is no more than fits");
}

fn asked(ask: &str) -> Answer {
    let (what, number) =
        ask.split_once(' ').map_or((ask, None), |(what, number)| (what, number.parse().ok()));
    match (what, number) {
        ("reset-sender", None) => Answer::ResetSender,
        ("reset-receiver", next_sequence) => Answer::ResetReceiver { next_sequence },
        ("prohibited", None) => Answer::Prohibited,
        ("too-big", Some(mtu)) => Answer::TooBig { mtu: mtu as u16 },
        _ => panic!("what is {ask:?}?"),
    }
}

/// Every case of `tests/golden/answers.txt`, byte for byte.
#[test]
fn answers_are_what_scapy_makes_of_them() {
    let mut wrong = Vec::new();
    let cases = answers::cases();
    for case in &cases {
        let setting = |key: &str, default: &str| case.settings.get(key).map_or(default, |s| s).to_owned();
        let mut bench =
            Bench::new(&setting("profile", "aws"), setting("max_return", "8500").parse().unwrap());
        let what = asked(&case.ask);
        let newest = case.seen.map(|(node, port, cookie)| Envelope { node, cookie, port });
        let seen = match what.is_back() {
            true => Seen { on: None, back: newest },
            false => Seen { on: newest, back: None },
        };
        let Some((_, found)) = bench.ask(&case.frame, what, seen) else {
            panic!("{}: decap does not let it in", case.name)
        };
        if found != case.back {
            wrong.push(format!(
                "{}: {}\n  expected {:02x?}\n  found    {found:02x?}",
                case.name, case.why, case.back
            ));
        }
    }
    assert!(wrong.is_empty(), "{} of {} differ\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

/// Requests that are refused for our own reasons, each counted as what it is; what gets no answer costs neither rate nor buffer.
#[test]
fn requests_beyond_rate_pool_and_burst_are_counted() {
    let (mut tried, counters) = (Vec::new(), AnswerCounters::default());
    let cases = answers::cases();
    let of = |name: &str| cases.iter().find(|case| case.name == name).unwrap().frame.clone();
    let (good, silent) = (of("sender/data-v4"), of("silence/later-fragment4-reset"));
    let good_meta = Bench::new("aws", 8500).ask(&good, Answer::ResetSender, Seen::default()).unwrap().0;
    let silent_meta = Bench::new("aws", 8500).ask(&silent, Answer::ResetSender, Seen::default()).unwrap().0;
    let ask = |frame, meta| Request { what: Answer::ResetSender, frame, meta, seen: Seen::default() };
    let good = ask(&good, &good_meta);
    let silent = ask(&silent, &silent_meta);

    let config = PoolConfig { name: "a".into(), buffers: 3, data_room: 256, cache: 0, numa: None };
    let pool = Mempool::soft(&config);
    let mut answers = Answers::new(pool.clone(), &AWS, 8500, 20);
    let mut out = Burst::new();
    for request in [&silent, &good, &silent, &good, &good, &silent] {
        tried.push(answers.answer(0, request, &mut out, &counters));
    }
    use Outcome::*;
    assert_eq!(tried, [NotAnswerable, Made, NotAnswerable, Made, RateLimited, NotAnswerable]);
    assert_eq!((out.len(), pool.available()), (2, 1));
    // Half a second is worth ten; one buffer is left. A failure for want of buffers costs no rate.
    assert_eq!(answers.answer(SECOND / 2, &good, &mut out, &counters), Made);
    for _ in 0..20 {
        assert_eq!(answers.answer(SECOND / 2, &good, &mut out, &counters), NoBuffer);
    }
    out.free();
    assert_eq!(answers.answer(SECOND / 2, &good, &mut out, &counters), Made);
    assert_eq!(answers.answer(SECOND / 2, &good, &mut out, &counters), RateLimited);
    let plenty = Mempool::soft(&PoolConfig { buffers: 100, ..config });
    while out.room() > 0 {
        out.push(plenty.alloc().unwrap()).unwrap();
    }
    assert_eq!(answers.answer(SECOND, &good, &mut out, &counters), NoBuffer);
    assert_eq!(pool.available(), 2, "a full burst costs no buffer");

    // Rooms that are too small for the head, or for what is behind it.
    for (data_room, expected) in [(0, NoBuffer), (81, NoBuffer), (82, NotAnswerable), (121, NotAnswerable)] {
        let small = PoolConfig { name: "s".into(), buffers: 1, data_room, cache: 0, numa: None };
        let pool = Mempool::soft(&small);
        let mut answers = Answers::new(pool.clone(), &AWS, 8500, 20);
        let outcome = answers.answer(0, &good, &mut Burst::new(), &counters);
        assert_eq!((outcome, pool.available()), (expected, 1), "{data_room}");
    }
    assert_eq!((counters.made(), counters.resets.get()), (4, 4));
    assert_eq!(counters.rate_limited.get(), 2);
    assert_eq!(counters.not_answerable.get(), 3 + 2);
    assert_eq!(counters.no_buffer.get(), 21 + 2);
    let mut never = Answers::new(
        Mempool::soft(&PoolConfig { name: "n".into(), buffers: 1, data_room: 256, cache: 0, numa: None }),
        &AWS,
        8500,
        0,
    );
    assert_eq!(never.answer(u64::MAX, &good, &mut Burst::new(), &counters), RateLimited);
}

/// An answer as an independent parser sees it.
fn parses(frame: &[u8]) {
    use etherparse::{NetSlice, SlicedPacket, TransportSlice};
    let outer = SlicedPacket::from_ethernet(frame).unwrap();
    let Some(TransportSlice::Udp(udp)) = outer.transport else { panic!("{outer:?}") };
    let options = usize::from(udp.payload()[0] & 0x3f) * 4;
    let packet = &udp.payload()[8 + options..];
    let inner = SlicedPacket::from_ip(packet).unwrap();
    let stated = match &inner.net {
        Some(NetSlice::Ipv4(ip)) => {
            assert_eq!(ip.header().header_checksum(), ip.header().to_header().calc_header_checksum());
            assert_eq!((ip.header().identification(), ip.header().dont_fragment()), (0, true));
            usize::from(ip.header().total_len())
        }
        Some(NetSlice::Ipv6(ip)) => 40 + usize::from(ip.header().payload_length()),
        other => panic!("{other:?}"),
    };
    assert_eq!(stated, packet.len());
    match inner.transport {
        Some(TransportSlice::Tcp(tcp)) => assert!(tcp.rst() && tcp.payload().is_empty()),
        Some(TransportSlice::Icmpv4(icmp)) => assert_eq!(icmp.type_u8(), 3),
        Some(TransportSlice::Icmpv6(icmp)) => {
            let Some(NetSlice::Ipv6(ip)) = &inner.net else { panic!("ICMPv6 in IPv4") };
            let (source, destination) = (ip.header().source(), ip.header().destination());
            assert!(icmp.is_checksum_valid(source, destination));
        }
        other => panic!("{other:?}"),
    }
}

/// Inner packets of the golden cases, to start from.
fn inner_packets() -> Vec<Vec<u8>> {
    let frames = answers::cases().into_iter().map(|case| case.frame);
    let frames = frames.chain(golden::cases().into_iter().map(|case| case.frame));
    let inner = |frame: Vec<u8>| {
        let options = 4 * usize::from(frame.get(42)? & 0x3f);
        frame.get(50 + options..).map(<[u8]>::to_vec).filter(|inner| (20..4000).contains(&inner.len()))
    };
    frames.filter_map(inner).collect()
}

/// Inner packets as they are and damaged; most of those with a header checksum have a right one.
fn damaged() -> impl Strategy<Value = Vec<u8>> {
    let change = (any::<prop::sample::Index>(), any::<u8>());
    let changes = prop::collection::vec(change, 0..4);
    (prop::sample::select(inner_packets()), changes, any::<[u8; QUESTION]>(), 0..8u8).prop_map(
        |(mut packet, changes, question, wrong)| {
            for (at, value) in changes {
                let last = packet.len().min(80);
                packet[at.index(last)] = value;
            }
            let header = usize::from(packet[0] & 0x0f) * 4;
            if packet[0] >> 4 == 4 && wrong != 0 && (20..=packet.len()).contains(&header) {
                packet[10..12].fill(0);
                let sum = crate::wire::checksum::finish(crate::wire::checksum::sum(&packet[..header]).into());
                packet[10..12].copy_from_slice(&sum.to_be_bytes());
            }
            [&question[..], &packet].concat()
        },
    )
}

/// The golden packets under every question: enough of them are answered for the property to mean something.
#[test]
fn golden_packets_keep_the_promises_of_answers() {
    let packets = inner_packets();
    let (mut asked, mut made) = (0, 0);
    for packet in &packets {
        for (what, setting) in (0..8).flat_map(|what| (0..4).map(move |setting| (what, setting))) {
            asked += 1;
            let input = [&[what, setting, 5, 100], &packet[..]].concat();
            if let Some(frame) = arbitrary_input::answer(&input) {
                parses(&frame);
                made += 1;
            }
        }
    }
    assert!(packets.len() > 200 && made * 4 > asked, "{made} answers to {asked} questions");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn damaged_packets_keep_the_promises_of_answers(input in damaged()) {
        if let Some(frame) = arbitrary_input::answer(&input) {
            parses(&frame);
        }
    }

    #[test]
    fn any_bytes_keep_the_promises_of_answers(input: Vec<u8>) {
        if let Some(frame) = arbitrary_input::answer(&input) {
            parses(&frame);
        }
    }
}
