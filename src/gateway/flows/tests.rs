use super::*;
use crate::flow::Tuple;

fn flows(entries: usize) -> Flows {
    let idle = Idle { tcp: 350_000, other: 120_000 };
    Flows::new(entries, idle, Seed::fixed(1), Seed::fixed(2), Arc::default())
}

fn key(n: u16) -> Key {
    let ends = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
    let (source_port, destination_port) = (n, 443);
    Key::of_tuple(
        7,
        &Tuple { source: ends.0, destination: ends.1, source_port, destination_port, protocol: 6 },
    )
    .unwrap()
}

fn open(flows: &mut Flows, n: u16, now: u32) -> u32 {
    let key = key(n);
    let (hash, _) = flows.ask(&key);
    let opening = Opening { target: TargetId(3), source_port: 60_001, endpoint: 5, from_high: false };
    let number = flows.open(hash, &key, opening, now).unwrap();
    flows.slot(number).unwrap().note(now, false, 0, Header::default(), true);
    number
}

fn find(flows: &Flows, n: u16) -> Option<u32> {
    let key = key(n);
    let (hash, spot) = flows.ask(&key);
    flows.find(flows.guess(spot), hash, &key)
}

#[test]
fn a_flow_is_found_until_it_ends() {
    let mut flows = flows(1024);
    assert_eq!(find(&flows, 1), None);
    let number = open(&mut flows, 1, 10);
    assert_eq!(find(&flows, 1), Some(number));
    assert_eq!(find(&flows, 2), None);
    flows.end(number, End::Idle);
    flows.end(number, End::Idle);
    assert_eq!(find(&flows, 1), None);
    let counted = flows.counters.snapshot();
    assert_eq!((counted.opened, counted.ended_idle, counted.live()), (1, 1, 0));
}

/// Both sides of each bound.
#[test]
fn limits_are_those_of_the_table() {
    let mut flows = flows(1024);
    let number = open(&mut flows, 1, 1000);
    let last = |flows: &Flows| (0..400_000).find(|ms| flows.is_expired(number, 1000 + ms)).unwrap() - 1;
    assert_eq!(last(&flows), UNANSWERED);
    flows.slot(number).unwrap().answered(true, tcp::ACK);
    assert_eq!(last(&flows), 350_000);
    flows.slot(number).unwrap().answered(false, tcp::FIN);
    assert_eq!(last(&flows), 350_000, "one end has more to say");
    flows.slot(number).unwrap().answered(true, tcp::FIN | tcp::ACK);
    assert_eq!(last(&flows), OVER);
    let number = open(&mut flows, 2, 1000);
    flows.slot(number).unwrap().answered(false, tcp::RST);
    assert!(!flows.is_expired(number, 1000 + OVER) && flows.is_expired(number, 1001 + OVER));
    // The clock wraps after seven weeks.
    let number = open(&mut flows, 3, u32::MAX - 5);
    assert!(!flows.is_expired(number, UNANSWERED - 6) && flows.is_expired(number, UNANSWERED - 5));
}

#[test]
fn the_sweep_takes_all_that_has_expired_and_nothing_else() {
    let mut flows = flows(4096);
    for n in 0..4000 {
        let number = open(&mut flows, n, if n % 2 == 0 { 0 } else { 25_000 });
        if n % 4 == 0 {
            flows.slot(number).unwrap().answered(true, 0);
        }
    }
    for now in 30_001..36_000 {
        flows.sweep(now);
    }
    let left: Vec<u16> = (0..4000).filter(|n| find(&flows, *n).is_some()).collect();
    assert_eq!(left, (0..4000).filter(|n| n % 2 == 1 || n % 4 == 0).collect::<Vec<_>>());
    assert_eq!(flows.index.live() as usize, left.len());
}

#[test]
fn cookies_differ_from_those_before_in_every_profile() {
    let mut flows = flows(1024);
    let number = open(&mut flows, 1, 0);
    let mut before = flows.slot(number).unwrap().cookie;
    for n in 0..1000 {
        flows.give(number, TargetId(n % 7));
        let now = flows.slot(number).unwrap().cookie;
        assert_ne!((now ^ before) << 3, 0, "Tencent has 29 bits");
        before = now;
    }
}

#[test]
fn the_way_out_is_the_other_leg() {
    let mut slot = Slot { endpoint: 5, ..Slot::default() };
    let mut frame = [0; 18];
    frame[..12].copy_from_slice(&[1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2]);
    let header = Header::of(&frame, 14);
    slot.note(0, true, 1, header, false);
    assert_eq!(slot.way_out(true), (LegId::new(5, 0), header));
    // Nothing came of the lower end yet: what goes its way goes back where the higher end is.
    assert_eq!(slot.way_out(false), (LegId::new(5, 1), header.turned()));
    slot.note(0, false, 0, header, false);
    assert_eq!(slot.way_out(false), (LegId::new(5, 1), header));
    // An error leaves as it came in, too.
    slot.note_related(false, 1, header.turned());
    assert_eq!(slot.way_out(false), (LegId::new(5, 0), header.turned()));
}
