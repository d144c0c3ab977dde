use std::sync::atomic::AtomicBool;

use proptest::prelude::*;

use super::*;

const MS: u64 = SECOND / 1000;

/// Of what is offered in each millisecond, how much is let in.
fn admitted(rate: &Rate, ms: u64, pieces: &[u32]) -> u64 {
    let word = AtomicU64::new(0);
    let of = |ms: u64| {
        let taken = Bucket(&word).take(rate, ms * MS, pieces);
        pieces
            .iter()
            .enumerate()
            .filter(|(n, _)| taken >> n & 1 != 0)
            .map(|(_, p)| u64::from(*p))
            .sum::<u64>()
    };
    (1000..1000 + ms).map(of).sum()
}

#[test]
fn what_is_let_in_is_the_rate_and_once_the_burst() {
    for (per_s, burst_ms, pieces) in [
        (1_000u64, 100u64, vec![1u32; 3]),
        (50, 100, vec![1; 3]),
        (1, 10, vec![1]),
        (63_000, 5, vec![1; 64]),
        (12_500_000, 20, vec![1500; 60]),
        (100_000, 100, vec![64, 1500, 9000]),
    ] {
        let rate = Rate::new(per_s, burst_ms * 1_000_000);
        let got = admitted(&rate, 10_000, &pieces);
        let want = per_s * 10 + per_s * burst_ms / 1000;
        let largest = u64::from(*pieces.iter().max().unwrap());
        assert!(
            got <= want + largest && got + largest + want / 1000 >= want,
            "{per_s}/s, {burst_ms} ms: {got} of {want}"
        );
    }
}

/// The bound that the head of the file states, at a line that is faster than any port.
#[test]
fn a_byte_at_100_gbit_comes_out_within_the_stated_bound() {
    let rate = Rate::new(12_500_000_000, 1_000_000);
    for bytes in [64u32, 1500, 9000] {
        let exact = f64::from(bytes) / 12.5 * FRACTION as f64;
        assert!(
            (rate.of(bytes) as f64 / exact - 1.0).abs() < 0.004,
            "{bytes}: {} of {exact}",
            rate.of(bytes)
        );
    }
}

proptest! {
    /// Over every interval between two packets that are let in: never more than rate x time + burst, or one packet that is larger than the burst.
    #[test]
    fn no_interval_sees_more_than_rate_and_burst(
        per_s in 1_000u64..1_000_000_000,
        burst_ms in 1u64..200,
        steps in prop::collection::vec((0u64..2_000_000, 40u32..9_000), 1..300),
    ) {
        let (rate, word) = (Rate::new(per_s, burst_ms * 1_000_000), AtomicU64::new(0));
        let (mut now, mut let_in) = (SECOND, Vec::new());
        for (step, bytes) in steps {
            now += step * FRACTION;
            if Bucket(&word).take(&rate, now, &[bytes]) != 0 {
                let_in.push((now, u64::from(bytes)));
            }
        }
        let burst = per_s * burst_ms / 1000;
        for from in 0..let_in.len() {
            let mut sum = 0;
            for (at, bytes) in &let_in[from..] {
                sum += bytes;
                let time = (at - let_in[from].0) as f64 / SECOND as f64;
                let most = per_s as f64 * time + burst.max(9_000) as f64 + 9_000.0;
                prop_assert!(sum as f64 <= most, "{sum} in {time} s, {most}");
            }
        }
    }
}

#[test]
fn a_set_gives_away_what_is_full_and_nothing_else() {
    let table = Table::keyed(4, 1);
    assert_eq!(table.bytes(), 64);
    let now = std::cell::Cell::new(SECOND);
    let find = |name: u64| {
        table.find([name, 0, 0, 0], |place| Bucket(table.word(place, 0).unwrap()).is_full(now.get()))
    };
    let rate = Rate::new(10, 100_000_000);
    let take = |place| Bucket(table.word(place, 0).unwrap()).take(&rate, now.get(), &[1]);
    let place = |name| {
        let place = find(name).unwrap();
        assert_eq!(take(place), 1);
        place
    };
    let places: Vec<Place> = (1..=4).map(place).collect();
    assert!(places.iter().all(|place| places.iter().filter(|other| *other == place).count() == 1));
    // All in use: a newcomer finds none, and who was there finds their own.
    assert_eq!(find(5), None);
    assert_eq!(
        (find(2), table.known([2, 0, 0, 0]), table.known([5, 0, 0, 0])),
        (Some(places[1]), Some(places[1]), None)
    );
    // A tenth of a second later all are full again.
    now.set(now.get() + SECOND / 10);
    assert!(places.contains(&find(5).unwrap()));
}

#[test]
fn entries_by_number_have_lines_of_their_own() {
    let table = Table::numbered(3, 3);
    assert_eq!(table.bytes(), 3 * 64);
    let first = table.numbered_place(1).unwrap();
    table.word(first, 2).unwrap().store(7, Ordering::Relaxed);
    assert_eq!(table.word(table.numbered_place(1).unwrap(), 2).unwrap().load(Ordering::Relaxed), 7);
    assert_eq!(table.word(table.numbered_place(2).unwrap(), 2).unwrap().load(Ordering::Relaxed), 0);
    assert_eq!(table.numbered_place(3), None);
}

/// Two threads ask for more than there is, under a clock that a third moves: together they get the rate, and no more.
#[test]
fn two_threads_get_the_rate_together() {
    let (word, clock, stop) = (AtomicU64::new(0), AtomicU64::new(SECOND), AtomicBool::new(false));
    let rate = Rate::new(2_000_000, 10_000_000);
    let ask = || {
        let mut got = 0;
        loop {
            let last = stop.load(Ordering::Acquire);
            let now = clock.load(Ordering::Acquire);
            got += u64::from(Bucket(&word).take(&rate, now, &[1; 32]).count_ones());
            if last {
                return got;
            }
        }
    };
    let got: u64 = std::thread::scope(|scope| {
        let threads = [scope.spawn(ask), scope.spawn(ask)];
        for _ in 0..300 {
            clock.fetch_add(MS, Ordering::Release);
            std::thread::sleep(std::time::Duration::from_micros(300));
        }
        stop.store(true, Ordering::Release);
        threads.map(|thread| thread.join().unwrap()).iter().sum()
    });
    // 0.3 s and the burst; a thread that slept through more than a burst lost some of it.
    let want = 600_000 + 20_000;
    assert!(got <= want + 1 && got >= want * 6 / 10, "{got} of {want}");
}

/// The clock of a capture, of a worker that is behind, and of one that is ahead.
#[test]
fn time_begins_with_the_first_packet() {
    let since = Since::new();
    assert_eq!(since.at(1_764_000_000_000_000_000), 0);
    assert_eq!(since.at(1_764_000_000_000_000_000 - 5), 0);
    assert_eq!(since.at(1_764_000_000_000_000_001), FRACTION);
}
