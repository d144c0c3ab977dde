use loom::sync::Arc;
use loom::thread;

use super::*;

/// Three workers ask at once, each for a batch, of a bucket that has five pieces: five are let in, whoever they are.
#[test]
fn loom_no_more_is_let_in_than_may() {
    loom::model(|| {
        let word = Arc::new(AtomicU64::new(0));
        let rate = Rate::new(1_000, 5_000_000);
        let ask = |pieces: &'static [u32]| {
            let word = word.clone();
            move || Bucket(&word).take(&rate, SECOND, pieces).count_ones()
        };
        let others = [thread::spawn(ask(&[1, 1])), thread::spawn(ask(&[1, 1, 1]))];
        let own = ask(&[1, 1])();
        let all = others.into_iter().map(|other| other.join().unwrap()).sum::<u32>() + own;
        assert_eq!(all, 5);
    });
}

/// Two workers bring somebody new each into a set in which one bucket is in use. Each finds a bucket that is not the one in use, and afterwards everybody is
/// found where all would look.
#[test]
fn loom_newcomers_never_get_a_bucket_in_use() {
    loom::model(|| {
        let table = Arc::new(Table { seed: Seed::fixed(1), ..Table::keyed(1, 1) });
        let idle = |table: &Table, place| table.word(place, 0).is_some_and(|word| Bucket(word).is_full(0));
        let busy = table.find([1, 0, 0, 0], |_| true).unwrap();
        table.word(busy, 0).unwrap().store(SECOND, Ordering::Relaxed);
        let ask = |name: u64| {
            let table = table.clone();
            move || table.find([name, 0, 0, 0], |place| idle(&table, place))
        };
        let other = thread::spawn(ask(2));
        let own = ask(3)();
        let places = [own, other.join().unwrap()];
        assert!(places.iter().all(|place| place.is_some_and(|place| place != busy)), "{places:?}");
        assert_eq!(table.known([1, 0, 0, 0]), Some(busy));
    });
}

/// Two workers meet the same newcomer: from then on both find one bucket.
#[test]
fn loom_two_who_bring_the_same_agree_afterwards() {
    loom::model(|| {
        let table = Arc::new(Table { seed: Seed::fixed(1), ..Table::keyed(1, 1) });
        let ask = || {
            let table = table.clone();
            move || table.find([7, 0, 0, 0], |_| true)
        };
        let other = thread::spawn(ask());
        let own = ask()();
        let other = other.join().unwrap();
        assert!(own.is_some() && other.is_some());
        assert_eq!(ask()(), table.known([7, 0, 0, 0]));
    });
}
