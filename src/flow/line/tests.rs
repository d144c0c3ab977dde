use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

use super::*;
use crate::flow::Tuple;

fn key(n: u64) -> Key {
    let address = |last: u64| std::net::Ipv6Addr::from(u128::from(last) << 64 | u128::from(last)).into();
    let tuple = Tuple {
        source: address(n),
        destination: address(n + (1 << 40)),
        source_port: n as u16,
        destination_port: n as u16,
        protocol: 6,
    };
    Key::of_tuple(n, &tuple).unwrap()
}

fn outer(n: u64) -> Envelope {
    Envelope { node: (n as u32).to_be_bytes(), cookie: n as u32, port: 9 }
}

fn life(n: u64) -> Life {
    Life::new(n as u32, (n % 60) as u8, 0)
}

fn birth(n: u64) -> Birth {
    Birth { created: n as u32, condemned: (n % 60_000) as u16, tenant: (n % 1000) as u16 }
}

/// A writer that reuses one entry as fast as it can, and readers: no reader sees words of two flows, and most see some.
#[test]
fn readers_never_see_words_of_two_flows() {
    let (lines, done) = (Arc::new(Lines::new(1)), Arc::new(AtomicBool::new(false)));
    let read = |lines: Arc<Lines>, done: Arc<AtomicBool>| {
        let (mut whole, mut torn, mut last) = (0u64, 0u64, 0);
        while !done.load(Relaxed) || whole == 0 {
            match lines.get(0).unwrap().read() {
                Ok(None) => {}
                Err(Torn) => torn += 1,
                Ok(Some(record)) => {
                    let n = record.key.scope();
                    whole += 1;
                    assert!(n >= last, "flow {n} after {last}");
                    last = n;
                    assert_eq!((record.key, record.birth), (key(n), birth(n)));
                    assert_eq!(record.life.in_state(life(n).state()), life(n));
                    assert_eq!(u64::from(record.version), n * 4 - 2);
                    let [(packets, bytes), back] = record.counts;
                    assert!(
                        packets <= 3 && bytes % 1000 == 0 && bytes <= 3000 && back == (0, 0),
                        "{record:?}"
                    );
                    for seen in record.outer.into_iter().flatten() {
                        // Word by word: the port comes first, and the address and cookie in one.
                        assert!(seen == outer(n) || seen == Envelope { port: 9, ..Envelope::default() });
                    }
                }
            }
        }
        (whole, torn)
    };
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let (lines, done) = (lines.clone(), done.clone());
            thread::spawn(move || read(lines, done))
        })
        .collect();
    let entry = lines.get(0).unwrap();
    for n in 1..=200_000 {
        entry.open(&key(n), life(n), birth(n));
        for _ in 0..3 {
            entry.count(false, 1000);
        }
        entry.refresh(true, outer(n));
        if n < 200_000 {
            entry.close();
        }
    }
    done.store(true, Relaxed);
    for reader in readers {
        let (whole, _) = reader.join().unwrap();
        assert!(whole > 0);
    }
}

/// What a reader finds while an entry changes hands: nothing, and it says so.
#[test]
fn an_entry_that_changes_hands_is_torn() {
    let lines = Lines::new(1);
    let entry = lines.get(0).unwrap();
    assert!(matches!(entry.read(), Ok(None)), "nobody's");
    entry.open(&key(1), life(1), birth(1));
    let record = entry.read().unwrap().unwrap();
    assert_eq!((record.version, record.key), (2, key(1)));
    change(&entry.head.0[5], || {
        assert_eq!(entry.read().unwrap_err(), Torn, "odd");
        0
    });
    // Another flow came between the two looks at the version.
    assert_eq!(unchanged(&entry.head.0[5], || entry.open(&key(2), life(2), birth(2))), None);
    assert_eq!(entry.read().unwrap().unwrap().key, key(2));
    entry.close();
    assert!(matches!(entry.read(), Ok(None)));
}

/// Only what is said changes in the word that has the version.
#[test]
fn envelopes_and_turns_keep_the_version() {
    let lines = Lines::new(1);
    let entry = lines.get(0).unwrap();
    entry.open(&key(1), life(1), birth(1));
    let version = entry.version();
    let envelope = |port: u16, cookie: u32| Envelope { node: [10, 0, 0, 1], cookie, port };
    assert_eq!(entry.refresh(false, envelope(0xfffe, 1)), Refresh::First);
    assert_eq!(entry.refresh(true, envelope(0x8001, 2)), Refresh::First, "of the other side");
    assert_eq!(entry.refresh(true, envelope(0x8001, 2)), Refresh::Same);
    assert_eq!(entry.refresh(true, envelope(0x8002, 2)), Refresh::Another, "another port");
    assert_eq!([entry.outer(false), entry.outer(true)], [envelope(0xfffe, 1), envelope(0x8002, 2)].map(Some));
    entry.turn();
    assert_eq!([entry.outer(true), entry.outer(false)], [envelope(0xfffe, 1), envelope(0x8002, 2)].map(Some));
    assert_eq!(entry.version(), version);
}

/// What a flow speaks lies above its numbers of packets: neither disturbs the other, and the entry's next flow speaks nothing.
#[test]
fn what_is_spoken_and_packets_share_a_word() {
    use crate::packet::{App, Spoken};
    let lines = Lines::new(1);
    let entry = lines.get(0).unwrap();
    entry.open(&key(1), life(1), birth(1));
    assert_eq!(entry.spoken(), Spoken::default());
    let mail = Spoken::of(App::Smtp).became(App::Tls);
    entry.count(false, 100);
    entry.set_spoken(mail);
    entry.count(false, 100);
    entry.count(true, 7);
    assert_eq!((entry.spoken(), entry.counts()), (mail, [(2, 200), (1, 7)]));
    entry.turn();
    assert_eq!(
        (entry.spoken(), entry.counts()),
        (mail, [(1, 7), (2, 200)]),
        "who opened it makes no difference"
    );
    let record = entry.read().unwrap().unwrap();
    assert_eq!((record.spoken, record.counts), (mail, entry.counts()));
    entry.set_spoken(Spoken::of(App::Failed));
    assert_eq!((entry.spoken().words(), entry.counts()), ((Some("failed"), None), record.counts));
    entry.close();
    entry.open(&key(2), life(2), birth(2));
    assert_eq!((entry.spoken(), entry.counts()), (Spoken::default(), [(0, 0); 2]));
}
