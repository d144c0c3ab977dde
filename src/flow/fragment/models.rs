//! Loom models of the map: all datagrams share one entry here.

use std::sync::Arc;

use loom::thread;

use super::*;

/// Hashes far apart, as keyed ones are.
const A: u64 = 0x9e37_79b9_7f4a_7c15;
const B: u64 = 0xd1b5_4a32_d192_ed03;

fn ports(n: u16) -> First {
    First::Passed(Ports { source: n, destination: 1000 + n })
}

#[test]
fn loom_no_reader_sees_another_datagram() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let map = Arc::new(Fragments::new(1, LIFETIME_MS));
        assert_eq!(map.insert(A, ports(1), 0, 0), Inserted::New);
        let write = |hash, n| {
            let map = map.clone();
            thread::spawn(move || map.insert(hash, ports(n), 0, 1))
        };
        let writer = write(B, 2);
        assert!([None, Some(ports(1))].contains(&map.find(A, 1)));
        assert!([None, Some(ports(2))].contains(&map.find(B, 1)));
        assert_eq!(writer.join().unwrap(), Inserted::Replacing);
        assert_eq!((map.find(A, 1), map.find(B, 1)), (None, Some(ports(2))));
    });
}

#[test]
fn loom_two_writers_and_a_reader() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(2);
    model.check(|| {
        let map = Arc::new(Fragments::new(1, LIFETIME_MS));
        let write = |hash, n| {
            let map = map.clone();
            thread::spawn(move || map.insert(hash, ports(n), 0, 1))
        };
        let writers = [write(A, 1), write(B, 2)];
        let read = || {
            assert!([None, Some(ports(1))].contains(&map.find(A, 1)));
            assert!([None, Some(ports(2))].contains(&map.find(B, 1)));
        };
        read();
        for writer in writers {
            let _ = writer.join().unwrap();
        }
        read();
        assert!(map.find(A, 1).is_none() || map.find(B, 1).is_none());
    });
}

/// The entry is used for something else and comes back while a reader is between its two words.
#[test]
fn loom_an_entry_that_comes_back() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let map = Arc::new(Fragments::new(1, LIFETIME_MS));
        assert_eq!(map.insert(A, ports(1), 0, 0), Inserted::New);
        let writer = {
            let map = map.clone();
            thread::spawn(move || {
                assert_eq!(map.insert(B, ports(2), 0, 1), Inserted::Replacing);
                assert_eq!(map.insert(A, ports(3), 0, 2), Inserted::Replacing);
            })
        };
        assert!([None, Some(ports(1)), Some(ports(3))].contains(&map.find(A, 1)));
        writer.join().unwrap();
        assert_eq!(map.find(A, 2), Some(ports(3)));
    });
}

/// A first fragment that passes takes the place of a refused one of its name.
#[test]
fn loom_refused_and_then_let_through() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let map = Arc::new(Fragments::new(1, LIFETIME_MS));
        let refused = First::Refused(7);
        assert_eq!(map.insert(A, refused, 0, 0), Inserted::New);
        let writer = {
            let map = map.clone();
            thread::spawn(move || map.insert(A, ports(1), 0, 1))
        };
        assert!([None, Some(refused), Some(ports(1))].contains(&map.find(A, 1)));
        assert_eq!(map.find(B, 1), None);
        assert_eq!(writer.join().unwrap(), Inserted::New);
        assert_eq!(map.find(A, 1), Some(ports(1)));
    });
}
