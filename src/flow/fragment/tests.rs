use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::AtomicBool;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::dpdk::{Mempool, PoolConfig};
use crate::packet::Meta;

fn ports(n: u64) -> First {
    First::Passed(Ports { source: n as u16, destination: (n >> 16) as u16 })
}

#[test]
fn later_fragments_find_the_ports_of_the_first() {
    let map = Fragments::new(CAPACITY, LIFETIME_MS);
    assert_eq!(map.find(7, 0), None);
    assert_eq!(map.insert(7, ports(53), 0, 0), Inserted::New);
    assert_eq!((map.find(7, 0), map.find(8, 0)), (Some(ports(53)), None));
}

#[test]
fn a_bucket_is_three_cache_lines() {
    assert_eq!(
        (size_of::<Bucket>(), Fragments::new(CAPACITY, LIFETIME_MS).buckets.len()),
        (192, CAPACITY / 8)
    );
}

#[test]
fn what_was_refused_stays_refused_unless_another_first_passes() {
    let map = Fragments::new(8, LIFETIME_MS);
    assert_eq!(map.insert(7, First::Refused(3), 0, 100), Inserted::New);
    assert_eq!(map.find(7, 100), Some(First::Refused(3)));
    assert_eq!(map.insert(7, First::Refused(4), 0, 101), Inserted::Known);
    assert_eq!(map.insert(7, ports(53), 0, 102), Inserted::New);
    assert_eq!(map.insert(7, First::Refused(3), 0, 103), Inserted::Known);
    assert_eq!(map.find(7, 101 + LIFETIME_MS), Some(ports(53)));
    assert_eq!(map.find(7, 102 + LIFETIME_MS), None);
}

#[test]
fn a_flood_takes_its_own_entries() {
    let map = Fragments::new(8, LIFETIME_MS);
    for n in 0..8 {
        map.insert(n, ports(n), 0, 0);
    }
    // Another tenant gets half of them, one after the other, and keeps them whatever comes.
    for n in 100..104 {
        assert_eq!(map.insert(n, ports(n), 1, 1), Inserted::Replacing);
    }
    for n in 1000..5000 {
        assert_eq!(map.insert(n, ports(n), 0, 2), Inserted::Replacing);
    }
    for n in 100..104 {
        assert_eq!(map.find(n, 2), Some(ports(n)));
    }
    // One more is one more than its part.
    map.insert(104, ports(104), 1, 3);
    assert_eq!((map.find(100, 3), map.find(104, 3)), (None, Some(ports(104))));
    // A third one takes of those that have most.
    for n in 200..202 {
        map.insert(n, ports(n), 2, 4);
    }
    let of = |numbers: std::ops::Range<u64>| numbers.filter(|&n| map.find(n, 4).is_some()).count();
    assert_eq!((of(100..105), of(1000..5000), of(200..202)), (3, 3, 2));
}

#[test]
fn a_flood_leaves_places_to_wait_in() {
    let mut places = Places::new(64, 4);
    let mut most = |tenant: u16| (0..1000).filter(|_| places.take(tenant)).count();
    assert_eq!([most(0), most(1), most(2), most(3)], [32, 16, 8, 4]);
    assert_eq!([most(0), most(3)], [0, 0]);
    places.give_back(0);
    assert!(places.take(3) && !places.take(0));
    let mut alone = Places::new(64, 1);
    assert_eq!((0..1000).filter(|_| alone.take(0)).count(), 64);
    assert!(!alone.take(1), "nobody");
}

#[test]
fn the_first_of_two_first_fragments_wins_for_a_lifetime() {
    let map = Fragments::new(1, LIFETIME_MS);
    for start in [0, 1, 12345, u32::MAX - LIFETIME_MS, u32::MAX - 1000, u32::MAX] {
        let at = |ms: u32| start.wrapping_add(ms);
        assert_eq!(map.insert(u64::from(start) + 7, ports(1), 0, start), Inserted::New);
        assert_eq!(map.insert(u64::from(start) + 7, ports(2), 0, at(LIFETIME_MS - 1)), Inserted::Known);
        assert_eq!(map.find(u64::from(start) + 7, at(LIFETIME_MS - 1)), Some(ports(1)));
        assert_eq!(map.find(u64::from(start) + 7, at(LIFETIME_MS)), None);
        assert_eq!(map.insert(u64::from(start) + 7, ports(2), 0, at(LIFETIME_MS)), Inserted::New);
        assert_eq!(map.find(u64::from(start) + 7, at(LIFETIME_MS)), Some(ports(2)));
    }
}

#[test]
fn no_ports_at_a_time_that_expires_at_zero_are_ports_too() {
    let map = Fragments::new(1, LIFETIME_MS);
    let now = 0u32.wrapping_sub(LIFETIME_MS);
    assert_eq!(map.insert(7, ports(0), 0, now), Inserted::New);
    assert_eq!(map.find(7, now), Some(ports(0)));
}

#[test]
fn a_reader_whose_clock_is_behind_finds_it_too() {
    let map = Fragments::new(4, LIFETIME_MS);
    map.insert(7, ports(53), 0, 1000);
    assert_eq!(map.find(7, 0), Some(ports(53)));
    assert_eq!(map.insert(7, ports(54), 0, 0), Inserted::Known);
}

#[test]
fn the_oldest_goes_when_a_bucket_is_full() {
    let map = Fragments::new(8, LIFETIME_MS);
    for (hash, ms) in [(1, 30), (2, 10), (3, 20), (4, 40), (10, 45), (11, 45), (12, 45), (13, 45)] {
        assert_eq!(map.insert(hash, ports(hash), 0, ms), Inserted::New);
    }
    assert_eq!(map.insert(5, ports(5), 0, 50), Inserted::Replacing);
    assert_eq!(map.find(2, 50), None);
    for hash in [1, 3, 4, 5] {
        assert_eq!(map.find(hash, 50), Some(ports(hash)));
    }
    // Those past their time go first, and nobody is said to have been replaced.
    assert_eq!(map.insert(6, ports(6), 0, 21 + LIFETIME_MS), Inserted::New);
    assert_eq!(map.find(3, 21 + LIFETIME_MS), None);
}

/// Against a map that forgets nothing: what is found was the first within a lifetime, and few are forgotten early.
#[test]
fn agrees_with_a_map_under_a_flood() {
    let (map, mut reference) = (Fragments::new(256, LIFETIME_MS), HashMap::<u64, (First, u32)>::new());
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let hashes: Vec<u64> = (0..400).map(|_| rng.random()).collect();
    let (mut found, mut missed, mut replaced) = (0, 0, 0);
    let mut now = 0;
    for _ in 0..200_000 {
        now += rng.random_range(0..30);
        let hash = hashes[rng.random_range(0..hashes.len())];
        let live = reference.get(&hash).filter(|(_, at)| now - at < LIFETIME_MS).copied();
        if rng.random_ratio(1, 2) {
            let new = ports(rng.random());
            match map.insert(hash, new, 0, now) {
                Inserted::Known => assert!(live.is_some()),
                inserted => {
                    replaced += u32::from(inserted == Inserted::Replacing);
                    reference.insert(hash, (new, now));
                }
            }
        } else if let Some(seen) = map.find(hash, now) {
            assert_eq!(Some(seen), live.map(|(ports, _)| ports));
            found += 1;
        } else {
            missed += u32::from(live.is_some());
        }
    }
    assert!(found > 10_000 && missed < found / 10 && replaced > 0, "{found} {missed} {replaced}");
}

/// Threads write and read all over a small map: ports always belong to the hash that was asked for.
#[test]
fn threads_never_see_ports_of_another_datagram() {
    let map = Fragments::new(8, LIFETIME_MS);
    let stop = AtomicBool::new(false);
    let of = |hash: u64| ports(hash >> 32);
    let found: usize = std::thread::scope(|scope| {
        let work = |seed: u64| {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let mut keys = ChaCha8Rng::seed_from_u64(99);
            let hashes: [u64; 40] = std::array::from_fn(|_| keys.random());
            let (mut found, mut now) = (0, 0);
            while !stop.load(Ordering::Relaxed) {
                now += 1;
                let hash = hashes[rng.random_range(0..hashes.len())];
                if rng.random_ratio(1, 2) {
                    map.insert(hash, of(hash), 0, now);
                } else if let Some(seen) = map.find(hash, now) {
                    assert_eq!(seen, of(hash));
                    found += 1;
                }
            }
            found
        };
        let threads: Vec<_> = (0..3).map(|seed| scope.spawn(move || work(seed))).collect();
        std::thread::sleep(std::time::Duration::from_millis(700));
        stop.store(true, Ordering::Relaxed);
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert!(found > 1000, "{found}");
}

fn pool(buffers: u32) -> Mempool {
    Mempool::soft(&PoolConfig { name: "t".into(), buffers, data_room: 64, cache: 0, numa: None })
}

fn parcel(pool: &Mempool, number: u32) -> Parcel {
    Parcel { frame: pool.alloc().unwrap(), meta: Meta { cookie: number, ..Meta::default() }.into(), lane: 0 }
}

#[test]
fn held_fragments_come_out_when_their_first_is_known() {
    let (pool, map, mut held) = (pool(10), Fragments::new(4, LIFETIME_MS), Held::new(4, 200));
    for (number, hash) in [(0, 70), (1, 80), (2, 70)] {
        held.hold(parcel(&pool, number), hash, 0).unwrap();
    }
    let out = RefCell::new(Vec::new());
    let ready = |held: &mut Held, now| {
        let take = |parcel: Parcel, ports| {
            out.borrow_mut().push((parcel.meta.cookie, ports));
            None
        };
        let n = held.ready(now, map.news(), |hash| map.find(hash, 0), take);
        (n, std::mem::take(&mut *out.borrow_mut()))
    };
    assert!(held.is_due(1, map.news()), "nobody has looked");
    assert_eq!(ready(&mut held, 1), (0, vec![]));
    assert!(!held.is_due(199, map.news()) && held.is_due(200, map.news()), "not at every poll");
    map.insert(70, ports(53), 0, 0);
    assert!(held.is_due(1, map.news()));
    assert_eq!(ready(&mut held, 199), (2, vec![(0, Some(ports(53))), (2, Some(ports(53)))]));
    assert_eq!(ready(&mut held, 199), (0, vec![]));
    assert_eq!(ready(&mut held, 200), (1, vec![(1, None)])); // given up
    assert!(held.is_empty());
    assert_eq!(pool.available(), 10);
}

#[test]
fn what_the_caller_gives_back_waits_on_in_order() {
    let (pool, mut held) = (pool(10), Held::new(4, 200));
    (0..4).for_each(|number| held.hold(parcel(&pool, number), 7, 0).unwrap());
    for expected in [vec![0, 1], vec![2, 3]] {
        let mut taken = Vec::new();
        let take = |parcel: Parcel, _| {
            if taken.len() == 2 {
                return Some(parcel);
            }
            taken.push(parcel.meta.cookie);
            None
        };
        assert_eq!(held.ready(1, 0, |_| Some(ports(1)), take), 2);
        assert_eq!(taken, expected);
        assert_eq!(held.is_due(1, 0), !held.is_empty(), "the rest is known, too");
    }
}

/// A flood of later fragments, some of whose first ones come: within the budget, without growing, each out exactly once.
#[test]
fn a_flood_stays_within_the_budget_and_everything_comes_out_once() {
    let (pool, mut held) = (pool(HELD as u32 + 1), Held::new(HELD, HELD_NS));
    let room = held.waiting.capacity();
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let (mut refused, mut came, mut gave_up, mut last) = (0, Vec::new(), 0, Vec::new());
    let total = 20_000;
    for number in 0..total {
        let now = u64::from(number) * 2_000_000;
        if held.hold(parcel(&pool, number), rng.random_range(0..100), now).is_err() {
            refused += 1;
        }
        assert!(held.len() <= HELD && held.waiting.capacity() == room);
        if rng.random_ratio(1, 20) {
            let known = rng.random_range(0..100);
            let take = |parcel: Parcel, first: Option<First>| {
                gave_up += u32::from(first.is_none());
                last.push(parcel.meta.cookie);
                None
            };
            held.ready(now, 0, |hash| (hash == known).then_some(ports(hash)), take);
            assert!(last.is_sorted(), "in order of arrival");
            came.append(&mut last);
        }
    }
    let left = held.free() as u32;
    assert_eq!(pool.available(), pool.capacity());
    assert_eq!(refused + came.len() as u32 + left, total);
    came.sort_unstable();
    came.dedup();
    assert_eq!(refused + came.len() as u32 + left, total, "none twice");
    assert!(gave_up > 1000 && came.len() as u32 > gave_up + 50, "{refused} {gave_up} {}", came.len());
}
