use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use proptest::prelude::*;

use super::*;

/// Longer than anything takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn book(names: &[&str]) -> Book {
    let mut book = Book::default();
    book.want(names.iter().map(ToString::to_string).collect());
    book
}

fn ip(n: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, n])
}

fn said(book: &mut Book, answer: Result<&[u8], &str>) -> Vec<String> {
    let answer = answer.map(|found| found.iter().map(|n| ip(*n)).collect()).map_err(ToOwned::to_owned);
    book.note("fw.example", answer).iter().map(ToString::to_string).collect()
}

#[test]
fn addresses_come_at_once_and_go_after_three_answers_without_them() {
    let mut book = book(&["fw.example"]);
    assert_eq!(said(&mut book, Ok(&[2, 1, 2])), ["fw.example has 2 addresses: +10.0.0.1 +10.0.0.2"]);
    assert_eq!(said(&mut book, Ok(&[1, 2])), [""; 0], "no news");
    assert_eq!(said(&mut book, Ok(&[1, 3])), ["fw.example has 3 addresses: +10.0.0.3"]);
    assert_eq!(said(&mut book, Ok(&[1, 3])), [""; 0]);
    assert_eq!(said(&mut book, Ok(&[1])), ["fw.example has 2 addresses: -10.0.0.2"]);
    assert_eq!(said(&mut book, Ok(&[1])), [""; 0]);
    assert_eq!(said(&mut book, Ok(&[1, 3])), [""; 0], "3 was missed twice, and is there again");
    let names = book.note("another", Ok(vec![ip(1)]));
    assert_eq!(names, [], "nobody wants to know");
}

#[test]
fn a_resolver_that_is_down_takes_nothing_away() {
    let mut book = book(&["fw.example"]);
    said(&mut book, Ok(&[1, 2]));
    let down = ["fw.example cannot be resolved, its addresses stay as they are: no answer"];
    assert_eq!(said(&mut book, Err("no answer")), down);
    for _ in 0..10 {
        assert_eq!(said(&mut book, Err("no answer")), [""; 0], "told once");
        assert_eq!(said(&mut book, Ok(&[])), [""; 0], "nor does an answer without addresses");
    }
    assert_eq!(said(&mut book, Ok(&[2, 1])), ["fw.example can be resolved again"]);
    assert_eq!(
        said(&mut book, Ok(&[])),
        ["fw.example cannot be resolved, its addresses stay as they are: it has no addresses"]
    );
}

#[test]
fn addresses_and_names_are_bounded() {
    let many: Vec<u8> = (0..=MOST_ADDRESSES as u8 + 5).collect();
    let mut book = book(&["fw.example"]);
    let said_first = said(&mut book, Ok(&many));
    assert_eq!(said_first[0], "fw.example has 70 addresses; 64 of them are taken");
    assert!(said_first[1].starts_with("fw.example has 64 addresses: +10.0.0.0 +10.0.0.1"), "{said_first:?}");
    assert_eq!(said(&mut book, Ok(&many)), [""; 0], "told once");
    book.want((0..1000).map(|n| n.to_string()).collect());
    assert_eq!(book.names().len(), MOST_NAMES);
}

proptest! {
    /// Whoever follows the changes knows what the book knows, which is the addresses of the last three answers.
    #[test]
    fn changes_add_up(answers in proptest::collection::vec(proptest::option::of(proptest::collection::vec(0u8..8, 0..6)), 1..60)) {
        let mut book = book(&["fw.example"]);
        let mut told: BTreeSet<IpAddr> = BTreeSet::new();
        let mut good: Vec<BTreeSet<IpAddr>> = Vec::new();
        for answer in answers {
            let answer = answer.map(|found| found.iter().map(|n| ip(*n)).collect::<Vec<IpAddr>>());
            if let Some(found) = answer.as_ref().filter(|found| !found.is_empty()) {
                good.push(found.iter().copied().collect());
            }
            for change in book.note("fw.example", answer.ok_or_else(|| "down".into())) {
                if let NameChange::Addresses { added, removed, all, .. } = change {
                    prop_assert!(removed.iter().all(|address| told.remove(address)));
                    prop_assert!(added.iter().all(|address| told.insert(*address)));
                    prop_assert!(told.iter().eq(&all));
                }
            }
            let recent = good.iter().rev().take(MISSED as usize).flatten().copied().collect::<BTreeSet<IpAddr>>();
            prop_assert_eq!(&told, &recent);
        }
    }
}

/// The next change.
fn next(names: &Names) -> NameChange {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(change) = names.poll().next() {
            return change;
        }
        assert!(Instant::now() < deadline, "nothing comes");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn names_are_asked_again_and_follow_what_is_wanted() {
    let asked = Arc::new(AtomicU32::new(0));
    let count = asked.clone();
    let resolve = move |name: &str| match (name, count.fetch_add(1, Ordering::Relaxed)) {
        ("a", 0) => Ok(vec![ip(1)]),
        ("a", _) => Ok(vec![ip(1), ip(2)]),
        (name, _) => Err(format!("no {name}")),
    };
    let names = Names::start_with(vec!["a".into()], LEAST, resolve).unwrap();
    let addresses = |added: &[u8], all: &[u8]| NameChange::Addresses {
        name: "a".into(),
        added: added.iter().map(|n| ip(*n)).collect(),
        removed: vec![],
        all: all.iter().map(|n| ip(*n)).collect(),
    };
    assert_eq!(next(&names), addresses(&[1], &[1]));
    assert_eq!(next(&names), addresses(&[2], &[1, 2]));
    names.set(vec!["b".into()]);
    assert_eq!(next(&names), NameChange::Failed { name: "b".into(), why: "no b".into() });
    drop(names);
    // The thread ends: it asks no more.
    let deadline = Instant::now() + PATIENCE;
    loop {
        let before = asked.load(Ordering::Relaxed);
        std::thread::sleep(LEAST * 3);
        if asked.load(Ordering::Relaxed) == before {
            break;
        }
        assert!(Instant::now() < deadline, "it goes on");
    }
}

#[test]
fn the_systems_resolver_is_asked() {
    let names = Names::start(vec!["localhost".into()], EVERY).unwrap();
    let NameChange::Addresses { name, added, removed, all } = next(&names) else { panic!("localhost") };
    assert!(name == "localhost" && removed.is_empty() && added == all, "{all:?}");
    assert!(!all.is_empty() && all.iter().all(IpAddr::is_loopback), "{all:?}");
    assert!(system(&"x".repeat(300)).is_err(), "no name is that long (RFC 1035 section 2.3.4)");
}
