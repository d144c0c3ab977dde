//! What becomes of messages, told by hand; the expected figures are counted by hand, too.

use proptest::prelude::*;

use super::*;

const PATIENCE: Patience =
    Patience { datagrams: Duration::from_secs(3), connections: Duration::from_secs(20) };

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn ledger(flows: usize, connections: usize) -> Ledger {
    Ledger::new(flows, connections, PATIENCE, "start", ms(0))
}

/// Ten datagrams, a hundred milliseconds apart, of which the third to the fifth and the eighth are lost.
#[test]
fn lost_datagrams_are_counted_where_they_were_sent() {
    let mut ledger = ledger(2, 0);
    for n in 0..10 {
        assert_eq!(ledger.datagram(0, ms(n * 100)), n);
        ledger.datagram(1, ms(n * 100));
        if n == 5 {
            ledger.mark("kill", ms(550));
        }
    }
    for n in (0..10).filter(|n| ![2, 3, 4, 7].contains(n)) {
        ledger.echoed(0, n, ms(1000));
    }
    (0..10).for_each(|n| ledger.echoed(1, n, ms(1000)));
    let now = ms(4000);
    assert!(!ledger.is_settled(ms(1000), ms(1000)));
    ledger.age(now);
    assert!(ledger.is_settled(ms(1000), now));
    let figures = ledger.figures(now);
    let [start, kill] = figures.as_slice() else { panic!("{figures:?}") };
    assert_eq!((start.window.as_str(), start.datagrams, start.lost, start.lossy_flows), ("start", 12, 3, 1));
    // From the third datagram to the sixth, which came.
    assert_eq!((start.outage_ms, start.lost_until_ms, start.for_ms), (300, 400, 550));
    assert_eq!((kill.window.as_str(), kill.datagrams, kill.lost, kill.lossy_flows), ("kill", 8, 1, 1));
    assert_eq!((kill.outage_ms, kill.lost_until_ms, kill.for_ms), (100, 150, 3450));
}

/// An outage that begins in one window and ends in the next belongs to the first, and one without an end is as long as it was seen to be.
#[test]
fn outages_belong_to_where_they_began() {
    let mut ledger = ledger(1, 0);
    for n in 0..6 {
        ledger.datagram(0, ms(n * 1000));
        if n == 2 {
            ledger.mark("later", ms(2500));
        }
    }
    ledger.echoed(0, 0, ms(100));
    ledger.age(ms(60_000));
    let figures = ledger.figures(ms(60_000));
    assert_eq!(figures.iter().map(|f| (f.lost, f.outage_ms)).collect::<Vec<_>>(), [(2, 4000), (3, 0)]);
}

/// The first datagram of a window may be lost at once: that is not nothing.
#[test]
fn a_loss_at_the_very_beginning_is_told() {
    let mut ledger = ledger(1, 0);
    ledger.datagram(0, ms(0));
    ledger.age(ms(3001));
    let figures = &ledger.figures(ms(3001))[0];
    assert_eq!((figures.lost, figures.lost_until_ms, figures.outage_ms), (1, 1, 0));
}

/// What comes after the patience is lost, even if nobody has looked meanwhile; what comes twice is one.
#[test]
fn late_and_double_echoes_change_nothing() {
    let mut ledger = ledger(1, 0);
    let (a, b) = (ledger.datagram(0, ms(0)), ledger.datagram(0, ms(10)));
    ledger.echoed(0, b, ms(20));
    ledger.echoed(0, b, ms(21));
    ledger.echoed(0, a, ms(3001));
    ledger.echoed(0, 77, ms(3001));
    ledger.echoed(9, 0, ms(3001));
    let figures = &ledger.figures(ms(4000))[0];
    assert_eq!((figures.datagrams, figures.lost), (2, 1));
}

#[test]
fn connections_break_once_where_the_first_message_is_missing() {
    let mut ledger = ledger(0, 4);
    for connection in 0..4 {
        ledger.message(connection, ms(0));
    }
    (0..3).for_each(|connection| ledger.answered(connection, ms(7)));
    ledger.mark("kill", ms(100));
    (0..3).for_each(|connection| assert_eq!(ledger.message(connection, ms(200)), 1));
    ledger.broke(0, Broken::Reset);
    ledger.broke(0, Broken::Reset);
    ledger.broke(1, Broken::Garbled);
    ledger.broke(3, Broken::Closed);
    ledger.mark("after", ms(300));
    assert!(!ledger.is_settled(ms(300), ms(20_200)));
    assert!(ledger.is_settled(ms(300), ms(20_201)));
    let told = |ledger: &Ledger, now| -> Vec<_> {
        let figures = ledger.figures(now);
        figures.iter().map(|f| (f.connections, f.broken, f.reset, f.stuck, f.slowest_ms)).collect()
    };
    assert_eq!(told(&ledger, ms(20_200)), [(4, 1, 0, 0, 7), (4, 2, 1, 0, 0), (1, 0, 0, 0, 0)]);
    // The second has waited for too long; when it moves again it is not stuck any more.
    assert_eq!(told(&ledger, ms(20_201)), [(4, 1, 0, 0, 7), (4, 3, 1, 1, 0), (1, 0, 0, 0, 0)]);
    ledger.answered(2, ms(25_200));
    assert_eq!(told(&ledger, ms(25_200)), [(4, 1, 0, 0, 7), (4, 2, 1, 0, 25_000), (1, 0, 0, 0, 0)]);
}

#[test]
fn new_connections_count_where_they_began() {
    let mut ledger = ledger(0, 0);
    ledger.opening(1, ms(0));
    ledger.opening(2, ms(10));
    ledger.mark("kill", ms(20));
    ledger.opening(3, ms(30));
    ledger.opened(1, ms(40));
    assert!(ledger.overdue(ms(20_010)).is_empty());
    assert_eq!(ledger.overdue(ms(20_011)), [2]);
    ledger.not_opened(2);
    ledger.not_opened(2);
    assert!(ledger.is_settled(ms(29), ms(20_011)) && !ledger.is_settled(ms(30), ms(20_011)));
    ledger.opened(3, ms(31));
    let figures = ledger.figures(ms(50));
    let told: Vec<_> = figures.iter().map(|f| (f.opened, f.failed, f.slowest_open_ms)).collect();
    assert_eq!(told, [(2, 1, 40), (1, 0, 1)]);
}

/// Every name that can be asked for is a figure, and every figure can be asked for.
#[test]
fn figures_have_names() {
    let value = serde_json::to_value(Figures::default()).unwrap();
    let mut names: Vec<&str> =
        value.as_object().unwrap().keys().map(String::as_str).filter(|n| *n != "window").collect();
    let mut expected = Figures::NAMES.to_vec();
    names.sort_unstable();
    expected.sort_unstable();
    assert_eq!(names, expected);
    assert!(Figures::NAMES.iter().all(|name| Figures::default().get(name) == Some(0)));
    assert_eq!(Figures::default().get("window"), None);
}

proptest! {
    /// Whatever is answered, in whatever order: everything sent is counted once, and lost is what was not answered in time.
    #[test]
    fn everything_is_counted_once(
        answered in prop::collection::vec((any::<bool>(), 0u64..5000), 1..200),
        marks in prop::collection::vec(0usize..200, 0..4),
    ) {
        let mut ledger = ledger(3, 0);
        for n in 0..answered.len() {
            if marks.contains(&n) {
                ledger.mark("m", ms(n as u64 * 10));
            }
            ledger.datagram(n as u32 % 3, ms(n as u64 * 10));
        }
        let mut echoes: Vec<(u64, u32, u64)> = Vec::new();
        for (n, (comes, after)) in answered.iter().enumerate() {
            if *comes {
                echoes.push((n as u64 * 10 + after, n as u32 % 3, n as u64 / 3));
            }
        }
        echoes.sort_unstable();
        for (at, flow, number) in echoes {
            ledger.echoed(flow, number, ms(at));
        }
        let end = ms(1_000_000);
        ledger.age(end);
        prop_assert!(ledger.is_settled(end, end));
        let figures = ledger.figures(end);
        let sum = |get: fn(&Figures) -> u64| figures.iter().map(get).sum::<u64>();
        let lost = answered.iter().filter(|(comes, after)| !comes || *after > 3000).count();
        prop_assert_eq!(sum(|f| f.datagrams), answered.len() as u64);
        prop_assert_eq!(sum(|f| f.lost), lost as u64);
        for window in &figures {
            prop_assert_eq!(window.lost > 0, window.lost_until_ms > 0);
            prop_assert_eq!(window.lost > 0, window.lossy_flows > 0);
            prop_assert!(window.lossy_flows <= window.lost.min(3));
        }
    }
}
