//! Loom models: the directory's code in every order in which its steps can meet (`ci/loom.sh`).
//!
//! A bucket has two places here. `owners` counts who believes to own the flow; its steps are relaxed, so that they add no order of
//! their own to what the directory gives.

use std::sync::Arc;

use loom::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use loom::thread;

use super::*;

/// Flows in the one bucket: different tags.
const FLOW: u64 = 5;
const OTHER: u64 = 6;
const THIRD: u64 = 7;

fn directory(workers: u16) -> (Arc<Directory>, Vec<Seat>) {
    let directory = Directory::new(1, usize::from(workers));
    assert_eq!(directory.buckets.len(), 1);
    let seats = (0..workers).map(|w| directory.seat(WorkerId(w)).unwrap()).collect();
    (Arc::new(directory), seats)
}

/// Claims on threads, one per seat and the first here, and says what came of each.
fn claims(directory: &Arc<Directory>, seats: &[Seat]) -> Vec<Claim> {
    let spawn = |&seat: &Seat| {
        let directory = directory.clone();
        thread::spawn(move || directory.claim(FLOW, seat, false))
    };
    let others: Vec<_> = seats[1..].iter().map(spawn).collect();
    let mine = directory.claim(FLOW, seats[0], false);
    std::iter::once(mine).chain(others.into_iter().map(|t| t.join().unwrap())).collect()
}

/// One claim won, and the losers know whose.
fn one_owner(directory: &Directory, seats: &[Seat], claims: &[Claim]) {
    let owner = directory.look(FLOW).expect("an owner");
    for (seat, claim) in seats.iter().zip(claims) {
        let expected = if seat.worker() == owner { Claim::New } else { Claim::Owned(owner) };
        assert_eq!(*claim, expected, "{claims:?}");
    }
    assert_eq!(directory.count(), (0, 1));
}

#[test]
fn loom_two_claimants_one_owner() {
    loom::model(|| {
        let (directory, seats) = directory(2);
        let claims = claims(&directory, &seats);
        one_owner(&directory, &seats, &claims);
    });
}

#[test]
fn loom_three_claimants_one_owner() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(1);
    model.check(|| {
        let (directory, seats) = directory(3);
        let claims = claims(&directory, &seats);
        one_owner(&directory, &seats, &claims);
    });
}

/// The places fill in different orders: a flow that ends lets the two claimants meet in either.
#[test]
fn loom_claimants_meet_while_another_flow_ends() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(2);
    model.check(|| {
        let (directory, seats) = directory(3);
        assert_eq!(directory.claim(OTHER, seats[2], false), Claim::New);
        let ending = {
            let (directory, seat) = (directory.clone(), seats[2]);
            thread::spawn(move || directory.release(OTHER, seat))
        };
        let claims = claims(&directory, &seats[..2]);
        ending.join().unwrap();
        // With one place left the loser of a race for it may find the bucket full while the winner is still tentative: never two.
        let owner = directory.look(FLOW).expect("an owner");
        assert_eq!(claims.iter().filter(|c| c.is_mine()).count(), 1, "{claims:?}");
        assert!(claims[usize::from(owner.0)].is_mine());
        assert_eq!(directory.count(), (0, 1));
    });
}

/// Claims, holds, releases, `times` times over; never while another believes to own.
fn live(directory: &Directory, seat: Seat, owners: &AtomicUsize, times: usize) {
    for _ in 0..times {
        match directory.claim(FLOW, seat, false) {
            Claim::New => {
                assert_eq!(owners.fetch_add(1, Relaxed), 0, "two owners");
                owners.fetch_sub(1, Relaxed);
                directory.release(FLOW, seat);
            }
            Claim::Owned(owner) => assert_ne!(owner, seat.worker()),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn loom_claim_and_release_over_and_over() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(2);
    model.check(|| {
        let (directory, seats) = directory(2);
        let owners = Arc::new(AtomicUsize::new(0));
        let other = {
            let (directory, seat, owners) = (directory.clone(), seats[1], owners.clone());
            thread::spawn(move || live(&directory, seat, &owners, 2))
        };
        live(&directory, seats[0], &owners, 2);
        other.join().unwrap();
        assert_eq!(directory.count(), (0, 0));
    });
}

#[test]
fn loom_a_word_empties_with_its_last_flow() {
    loom::model(|| {
        let (directory, seats) = directory(2);
        assert_eq!(directory.claim(FLOW, seats[0], false), Claim::New);
        let flows = Arc::new(AtomicUsize::new(1));
        let owner = {
            let (directory, seat, flows) = (directory.clone(), seats[0], flows.clone());
            thread::spawn(move || {
                flows.fetch_add(1, Relaxed);
                assert_eq!(directory.claim(FLOW, seat, false), Claim::Shared);
                for _ in 0..2 {
                    flows.fetch_sub(1, Relaxed);
                    directory.release(FLOW, seat);
                }
            })
        };
        match directory.claim(FLOW, seats[1], false) {
            Claim::New => assert_eq!(flows.fetch_add(0, Relaxed), 0),
            claim => assert_eq!(claim, Claim::Owned(WorkerId(0))),
        }
        owner.join().unwrap();
    });
}

/// A full bucket with one half-open claim, of worker 0.
fn full() -> (Arc<Directory>, Vec<Seat>) {
    let (directory, seats) = directory(3);
    assert_eq!(directory.claim(FLOW, seats[0], true), Claim::New);
    assert_eq!(directory.claim(OTHER, seats[0], false), Claim::New);
    (directory, seats)
}

#[test]
fn loom_confirmed_or_evicted() {
    loom::model(|| {
        let (directory, seats) = full();
        let flood = {
            let (directory, seat) = (directory.clone(), seats[1]);
            thread::spawn(move || directory.claim(THIRD, seat, true))
        };
        let confirmed = directory.confirm(FLOW, seats[0]);
        let claim = flood.join().unwrap();
        assert_eq!(claim, if confirmed { Claim::Full } else { Claim::Evicting });
        assert_eq!(directory.look(FLOW), confirmed.then_some(WorkerId(0)));
        assert_eq!(directory.look(OTHER), Some(WorkerId(0)));
    });
}

#[test]
fn loom_evicted_while_a_second_flow_shares_it() {
    loom::model(|| {
        let (directory, seats) = full();
        let flood = {
            let (directory, seat) = (directory.clone(), seats[1]);
            thread::spawn(move || directory.claim(THIRD, seat, false))
        };
        // A firm share makes the word firm.
        match directory.claim(FLOW, seats[0], false) {
            Claim::Shared => assert_eq!(flood.join().unwrap(), Claim::Full),
            claim => {
                assert_eq!(claim, Claim::Full);
                assert_eq!(flood.join().unwrap(), Claim::Evicting);
            }
        }
    });
}

#[test]
fn loom_evicted_by_two() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(2);
    model.check(|| {
        let (directory, seats) = full();
        let claim = |seat: Seat| {
            let directory = directory.clone();
            thread::spawn(move || directory.claim(THIRD, seat, false))
        };
        let (one, two) = (claim(seats[1]), claim(seats[2]));
        directory.release(FLOW, seats[0]);
        let claims = [one.join().unwrap(), two.join().unwrap()];
        assert_eq!(claims.iter().filter(|c| c.is_mine()).count(), 1, "{claims:?}");
        assert_eq!(directory.count(), (0, 2));
    });
}

#[test]
fn loom_a_dead_owner_releases_while_its_flow_is_taken_over() {
    loom::model(|| {
        let (directory, seats) = directory(2);
        assert_eq!(directory.claim(FLOW, seats[0], false), Claim::New);
        let dead = {
            let (directory, seat) = (directory.clone(), seats[0]);
            thread::spawn(move || directory.release(FLOW, seat))
        };
        directory.retire(WorkerId(0));
        assert_eq!(directory.claim(FLOW, seats[1], false), Claim::New);
        dead.join().unwrap();
        assert_eq!(directory.look(FLOW), Some(WorkerId(1)));
        assert!(!directory.confirm(FLOW, seats[0]));
    });
}

#[test]
fn loom_two_take_over_while_the_owner_is_retired() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(2);
    model.check(|| {
        let (directory, seats) = directory(3);
        assert_eq!(directory.claim(FLOW, seats[2], false), Claim::New);
        let watchdog = {
            let directory = directory.clone();
            thread::spawn(move || directory.retire(WorkerId(2)))
        };
        let claims = claims(&directory, &seats[..2]);
        watchdog.join().unwrap();
        // Who does not know yet follows the old owner; of those who know, one takes over.
        assert!(claims.iter().filter(|c| c.is_mine()).count() <= 1, "{claims:?}");
        match directory.look(FLOW) {
            Some(owner) => assert!(claims[usize::from(owner.0)].is_mine()),
            None => assert_eq!(claims, [Claim::Owned(WorkerId(2)); 2]),
        }
    });
}

/// The owner is retired between the two steps of its claim, and goes on: what it gets is worth nothing, and hurts nobody.
#[test]
fn loom_retired_in_the_middle_of_a_claim() {
    loom::model(|| {
        let (directory, seats) = directory(2);
        let hung = {
            let (directory, seat) = (directory.clone(), seats[0]);
            thread::spawn(move || directory.claim(FLOW, seat, false))
        };
        directory.retire(WorkerId(0));
        assert_eq!(directory.claim(FLOW, seats[1], false), Claim::New);
        hung.join().unwrap();
        assert_eq!(directory.look(FLOW), Some(WorkerId(1)));
        assert!(!directory.seated(seats[0]));
    });
}

/// The bucket is full of firm claims: a flow that finds no place lives with the worker that stands in, and all agree on that one.
fn overfull() -> (Arc<Directory>, Vec<Seat>, WorkerId) {
    let (directory, seats) = directory(2);
    for flow in [FLOW, OTHER] {
        assert_eq!(directory.claim(flow, seats[0], false), Claim::New);
    }
    let stand_in = directory.stand_in(THIRD).expect("somebody is seated");
    (directory, seats, stand_in)
}

/// Where a worker that does not know THIRD takes it, as `Flows::open` and `Flows::owner` do: true if it lives here afterwards.
fn open(directory: &Directory, seat: Seat) -> bool {
    let me = seat.worker();
    if directory.is_overfull(THIRD) {
        let owner = directory.look(THIRD).or_else(|| directory.stand_in(THIRD));
        if owner != Some(me) {
            return false;
        }
    }
    match directory.claim(THIRD, seat, false) {
        Claim::Full if directory.stand_in(THIRD) == Some(me) => {
            directory.count_overflow(THIRD, true);
            true
        }
        claim => claim.is_mine(),
    }
}

#[test]
fn loom_nobody_but_the_stand_in_has_a_flow_without_a_place() {
    loom::model(|| {
        let (directory, seats, stand_in) = overfull();
        let other = {
            let (directory, seat) = (directory.clone(), seats[1]);
            thread::spawn(move || open(&directory, seat))
        };
        let here = [open(&directory, seats[0]), other.join().unwrap()];
        for (seat, here) in seats.iter().zip(here) {
            assert_eq!(here, seat.worker() == stand_in);
        }
        assert!(directory.is_overfull(THIRD));
    });
}

/// A place comes free while the flow lives with its stand-in: as long as that is counted, the other worker leaves the flow there.
#[test]
fn loom_a_place_comes_free_beside_a_flow_that_has_none() {
    loom::model(|| {
        let (directory, seats, stand_in) = overfull();
        let other = seats.iter().copied().find(|seat| seat.worker() != stand_in).unwrap();
        directory.count_overflow(THIRD, true);
        let late = {
            let directory = directory.clone();
            thread::spawn(move || open(&directory, other))
        };
        directory.release(FLOW, seats[0]);
        assert!(!late.join().unwrap(), "two workers have the flow");
        // Its owner enters it and stops counting: from then on the claim says where it is.
        let own = seats.iter().copied().find(|seat| seat.worker() == stand_in).unwrap();
        assert!(directory.claim(THIRD, own, false).is_mine());
        directory.count_overflow(THIRD, false);
        assert!(!open(&directory, other));
        assert!(!directory.is_overfull(THIRD));
    });
}

/// The owner enters its flow late, first the claim and then the count, while another worker asks: whichever of the two that sees, it
/// does not take the flow.
#[test]
fn loom_entered_late_while_another_asks() {
    loom::model(|| {
        let (directory, seats, stand_in) = overfull();
        let seat_of = |own: bool| seats.iter().copied().find(|s| (s.worker() == stand_in) == own).unwrap();
        directory.count_overflow(THIRD, true);
        directory.release(FLOW, seats[0]);
        let asks = {
            let (directory, other) = (directory.clone(), seat_of(false));
            thread::spawn(move || open(&directory, other))
        };
        assert!(directory.claim(THIRD, seat_of(true), false).is_mine());
        directory.count_overflow(THIRD, false);
        assert!(!asks.join().unwrap(), "two workers have the flow");
        assert_eq!(directory.look(THIRD), Some(stand_in));
    });
}

/// Counts of several workers for one bucket end at none: no increment is lost, and none goes below.
#[test]
fn loom_overflow_is_counted_by_all() {
    loom::model(|| {
        let (directory, ..) = overfull();
        let other = {
            let directory = directory.clone();
            thread::spawn(move || {
                directory.count_overflow(THIRD, true);
                assert!(directory.is_overfull(THIRD));
                directory.count_overflow(THIRD, false);
            })
        };
        directory.count_overflow(THIRD, true);
        assert!(directory.is_overfull(THIRD));
        directory.count_overflow(THIRD, false);
        other.join().unwrap();
        assert!(!directory.is_overfull(THIRD));
    });
}

/// A worker takes a seat while the watchdog ends its old one: afterwards it stands in for flows if and only if it sat down last, and
/// a seat that is good is never one that was ended.
#[test]
fn loom_seated_and_retired_at_once() {
    loom::model(|| {
        let directory = Arc::new(Directory::new(1, 1));
        assert_eq!(directory.stand_in(FLOW), None, "nobody is seated");
        let old = directory.seat(WorkerId(0)).unwrap();
        let watchdog = {
            let directory = directory.clone();
            thread::spawn(move || directory.retire(WorkerId(0)))
        };
        let new = directory.seat(WorkerId(0)).unwrap();
        watchdog.join().unwrap();
        assert!(!directory.seated(old));
        let standing = directory.stand_in(FLOW).is_some();
        assert_eq!(
            standing,
            directory.seated(new),
            "it stands in with a seat that is worth nothing, or does not with one that is good"
        );
        // Whatever happened, the next seat is good and it stands in again.
        let next = directory.seat(WorkerId(0)).unwrap();
        assert!(directory.seated(next));
        assert_eq!(directory.stand_in(FLOW), Some(WorkerId(0)));
    });
}
