use proptest::prelude::*;

use super::*;

const OURS: Mac = [2, 0, 0, 0, 0, 1];
const OWN: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 1);
const TARGET: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 7);
const ITS: Mac = [2, 0, 0, 0, 0, 7];
const OTHER: Mac = [2, 0, 0, 0, 0, 66];

fn at(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn table() -> Neighbours {
    let mut table = Neighbours::new(OURS, OWN);
    table.want([TARGET].into_iter(), at(0));
    table
}

/// To whom questions go at this time.
fn asked(table: &mut Neighbours, now: Duration) -> Vec<Mac> {
    let mut to = Vec::new();
    table.ask(now, |frame| {
        let arp = Arp::parse(&frame[14..]).unwrap();
        assert!(arp.asks && arp.sender == OWN && arp.sender_mac == OURS && arp.target == TARGET);
        to.push(*frame.first_chunk().unwrap());
    });
    to
}

fn reply(mac: Mac) -> Arp {
    Arp { asks: false, sender_mac: mac, sender: TARGET, target_mac: OURS, target: OWN }
}

/// "I am at this address", said to everybody without having been asked (RFC 5227 section 3).
fn announcement(mac: Mac) -> Arp {
    Arp { asks: true, sender_mac: mac, sender: TARGET, target_mac: [0; 6], target: TARGET }
}

fn known() -> Neighbours {
    let mut table = table();
    assert_eq!(asked(&mut table, at(0)), [BROADCAST]);
    let (news, answer) = table.take(&reply(ITS), OURS, at(1));
    assert_eq!(news, Some(News::Learned { neighbour: TARGET, was: None, mac: ITS }));
    assert_eq!(answer, None);
    table
}

#[test]
fn a_neighbour_is_asked_for_until_it_answers() {
    let mut table = table();
    let asked: Vec<u64> =
        (0..20_000).step_by(100).filter(|ms| !asked(&mut table, at(*ms)).is_empty()).collect();
    assert_eq!(asked, [0, 1000, 2000, 3000, 4000, 9000, 14_000, 19_000], "eagerly, then rarely");
    assert!(table.get(TARGET).unwrap().is_silent());
    table.take(&reply(ITS), OURS, at(19_500));
    assert_eq!(table.mac(TARGET), Some(ITS));
    assert!(!table.get(TARGET).unwrap().is_silent());
    assert_eq!(table.due(), Some(at(79_500)));
}

#[test]
fn one_that_shows_itself_is_asked_at_once() {
    let mut table = table();
    (0..15_500).step_by(500).for_each(|ms| drop(asked(&mut table, at(ms))));
    let (news, _) = table.take(&announcement(ITS), BROADCAST, at(15_600));
    assert_eq!((news, table.mac(TARGET)), (None, None), "an announcement is not learned from");
    assert_eq!(asked(&mut table, at(15_600)), [BROADCAST]);
}

#[test]
fn the_known_one_is_asked_alone_and_stays_in_use() {
    let mut table = known();
    assert!(asked(&mut table, at(60_000)).is_empty());
    assert_eq!(asked(&mut table, at(60_001)), [ITS]);
    assert_eq!(table.mac(TARGET), Some(ITS));
    assert_eq!(table.take(&reply(ITS), OURS, at(60_002)).0, None, "no news");
    assert_eq!(table.due(), Some(at(120_002)));
}

#[test]
fn everybody_is_asked_once_the_known_one_is_silent() {
    let mut table = known();
    let to: Vec<Mac> = (60_001..64_002).step_by(1000).flat_map(|ms| asked(&mut table, at(ms))).collect();
    assert_eq!(to, [ITS, ITS, ITS, BROADCAST, BROADCAST]);
    assert_eq!(table.mac(TARGET), Some(ITS), "in use until another is known");
    let (news, _) = table.take(&reply(OTHER), OURS, at(64_100));
    assert_eq!(news, Some(News::Learned { neighbour: TARGET, was: Some(ITS), mac: OTHER }));
    assert_eq!(table.get(TARGET).unwrap().changes, 1);
    // The second answer to the question comes too late, and is a claim.
    let (news, _) = table.take(&reply(ITS), OURS, at(64_200));
    assert_eq!(news, Some(News::Claim { neighbour: TARGET, mac: ITS }));
    assert_eq!(table.mac(TARGET), Some(OTHER));
}

#[test]
fn nobody_takes_over_an_address_whose_holder_answers() {
    let mut table = known();
    let claims = [
        (announcement(OTHER), BROADCAST, "an announcement"),
        (reply(OTHER), OURS, "an answer without a question"),
        (Arp { target: TARGET, target_mac: BROADCAST, ..reply(OTHER) }, BROADCAST, "a gratuitous answer"),
        (Arp { target: OWN, ..announcement(OTHER) }, OURS, "a question in its name"),
    ];
    for (n, (claim, to, why)) in claims.into_iter().enumerate() {
        let now = at(2000 + n as u64 * 100);
        let (news, answer) = table.take(&claim, to, now);
        assert_eq!(news.is_some(), n == 0, "{why}: told once a minute");
        assert_eq!(answer.is_some(), claim.target == OWN && claim.asks, "{why}");
        assert_eq!(table.mac(TARGET), Some(ITS), "{why}");
    }
    assert_eq!((table.counts.claims, table.get(TARGET).unwrap().claims), (4, 4));
    // It is asked, once, and by unicast: the other does not even hear it; if it guesses, it is not believed.
    assert_eq!(asked(&mut table, at(2400)), [ITS]);
    assert_eq!(table.take(&reply(OTHER), OURS, at(2450)).0, None);
    assert_eq!(table.mac(TARGET), Some(ITS));
    table.take(&reply(ITS), OURS, at(2500));
    table.take(&announcement(OTHER), BROADCAST, at(2600));
    assert!(asked(&mut table, at(2600)).is_empty(), "a storm of claims is no storm of questions");
    assert!(!asked(&mut table, at(62_500)).is_empty());
}

#[test]
fn a_target_that_moved_is_found_within_three_seconds() {
    let mut table = known();
    table.take(&announcement(OTHER), BROADCAST, at(10_000));
    let to: Vec<Mac> = (10_000..13_100).step_by(100).flat_map(|ms| asked(&mut table, at(ms))).collect();
    assert_eq!(to, [ITS, ITS, ITS, BROADCAST]);
    table.take(&reply(OTHER), OURS, at(13_050));
    assert_eq!(table.mac(TARGET), Some(OTHER));
}

#[test]
fn an_answer_that_is_not_for_us_is_not_learned_from() {
    for (arp, to, why) in [
        (reply(ITS), BROADCAST, "sent to everybody"),
        (Arp { target_mac: OTHER, ..reply(ITS) }, OURS, "for another host"),
        (Arp { target: TARGET, ..reply(ITS) }, OURS, "for another address"),
        (Arp { sender: Ipv4Addr::new(10, 0, 1, 8), ..reply(ITS) }, OURS, "from one that nobody asked"),
    ] {
        let mut table = table();
        asked(&mut table, at(0));
        assert_eq!(table.take(&arp, to, at(1)), (None, None), "{why}");
        assert_eq!(table.mac(TARGET), None, "{why}");
    }
    let mut early = table();
    early.take(&reply(ITS), OURS, at(0));
    assert_eq!(early.mac(TARGET), None, "nobody has been asked yet");
}

#[test]
fn questions_for_our_address_are_answered() {
    let mut table = table();
    let asks = |sender: [u8; 4]| Arp {
        asks: true,
        sender_mac: OTHER,
        sender: sender.into(),
        target_mac: [0; 6],
        target: OWN,
    };
    for sender in [[10, 0, 1, 9], [0, 0, 0, 0]] {
        let (news, answer) = table.take(&asks(sender), BROADCAST, at(0));
        let answer = answer.unwrap();
        assert_eq!((news, *answer.first_chunk().unwrap()), (None, OTHER));
        let expected =
            Arp { asks: false, sender_mac: OURS, sender: OWN, target_mac: OTHER, target: sender.into() };
        assert_eq!(Arp::parse(&answer[14..]), Some(expected));
    }
    assert_eq!(table.take(&announcement(OTHER), BROADCAST, at(0)).1, None, "not ours to answer");
    let ours = Arp { sender: OWN, ..announcement(OTHER) };
    assert_eq!(table.take(&ours, BROADCAST, at(5)).0, Some(News::Conflict { mac: OTHER }));
    assert_eq!(table.take(&ours, BROADCAST, at(6)).0, None, "told once a minute");
    assert_eq!(table.counts.conflicts, 2);
    let back = Arp { sender_mac: OURS, sender: OWN, ..announcement(OURS) };
    assert_eq!(table.take(&back, BROADCAST, at(7)), (None, None), "our own question, mirrored");
}

#[test]
fn who_is_wanted_no_more_is_forgotten_and_who_stays_stays_known() {
    let mut table = known();
    let other = Ipv4Addr::new(10, 0, 1, 8);
    table.want([other, TARGET, other].into_iter(), at(5000));
    assert_eq!((table.mac(TARGET), table.mac(other)), (Some(ITS), None));
    assert_eq!(table.due(), Some(at(5000)));
    table.want([other].into_iter(), at(6000));
    assert!(table.get(TARGET).is_none());
    assert_eq!(table.take(&reply(ITS), OURS, at(6001)), (None, None));
}

proptest! {
    /// Whatever others say and whenever: while the holder answers each question, its address stays.
    #[test]
    fn the_holder_keeps_its_address(steps in proptest::collection::vec((0u64..3000, 0usize..4), 1..300)) {
        let mut table = known();
        let mut now = 1;
        for (pause, what) in steps {
            now += pause;
            let (claim, to) = [
                (announcement(OTHER), BROADCAST),
                (reply(OTHER), OURS),
                (reply(OTHER), BROADCAST),
                (Arp { target: OWN, ..announcement(OTHER) }, OURS),
            ][what];
            table.take(&claim, to, at(now));
            for to in asked(&mut table, at(now)) {
                prop_assert_eq!(to, ITS, "never everybody");
                table.take(&claim, OURS, at(now)); // the other is quicker
                table.take(&reply(ITS), OURS, at(now + 1));
            }
            prop_assert_eq!(table.mac(TARGET), Some(ITS));
        }
    }

    /// Nobody is asked more than once a second, whatever comes.
    #[test]
    fn questions_keep_their_pace(steps in proptest::collection::vec((0u64..1500, 0usize..5), 1..300)) {
        let mut table = table();
        let (mut now, mut last) = (0, None);
        for (pause, what) in steps {
            now += pause;
            match what {
                0 => drop(table.take(&reply(ITS), OURS, at(now))),
                1 => drop(table.take(&reply(OTHER), OURS, at(now))),
                2 => drop(table.take(&announcement(OTHER), BROADCAST, at(now))),
                3 => table.doubt(TARGET, at(now)),
                _ => {}
            }
            for _ in asked(&mut table, at(now)) {
                prop_assert!(last.is_none_or(|last| now - last >= 1000), "{} after {:?}", now, last);
                last = Some(now);
            }
        }
    }
}
