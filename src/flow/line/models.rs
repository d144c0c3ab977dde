//! Loom models: a reader and the owner of one line, in every order in which their steps can meet (`ci/loom.sh`).
//!
//! The rules of the version are checked on a few words, since each relaxed load doubles the ways in which a model can go on; then a
//! whole entry is read, with fewer interruptions.

use std::sync::Arc;

use loom::thread;

use super::*;

const EMPTY: u64 = 0;

/// The word with the version, and three words of a flow, written by [`change`] and [`keeping`] as an entry's are.
struct Small {
    version: AtomicU64,
    words: [AtomicU64; 3],
}

impl Small {
    fn new() -> Arc<Self> {
        Arc::new(Small { version: AtomicU64::new(0), words: std::array::from_fn(|_| AtomicU64::new(EMPTY)) })
    }

    fn become_flow(&self, flow: u64) {
        change(&self.version, || {
            for word in &self.words {
                word.store(flow, Ordering::Relaxed);
            }
            0
        });
    }

    /// As a packet counts: to a word of the flow, outside of any change.
    fn count(&self, flow: u64) {
        self.words[2].store(flow + 100, Ordering::Relaxed);
    }

    fn read(&self) -> Option<(u32, [u64; 3])> {
        unchanged(&self.version, || std::array::from_fn(|n| self.words[n].load(Ordering::Relaxed)))
    }

    /// Words of one flow, and the one that its version says.
    fn look(&self) {
        let Some((version, [a, b, c])) = self.read() else { return };
        let flow = u64::from(version / 2);
        assert_eq!((version % 2, a, b, c % 100), (0, flow, flow, flow), "words of two flows");
    }
}

#[test]
fn loom_a_reader_sees_one_flow() {
    loom::model(|| {
        let line = Small::new();
        let reader = {
            let line = line.clone();
            thread::spawn(move || line.look())
        };
        line.become_flow(1);
        line.count(1);
        line.become_flow(2);
        reader.join().unwrap();
        assert_eq!(line.read(), Some((4, [2, 2, 2])));
    });
}

#[test]
fn loom_a_refresh_does_not_show_a_flow_early() {
    loom::model(|| {
        let line = Small::new();
        let reader = {
            let line = line.clone();
            thread::spawn(move || line.look())
        };
        line.become_flow(1);
        keeping(&line.version, |_| 7);
        line.become_flow(2);
        keeping(&line.version, |_| 8);
        reader.join().unwrap();
    });
}

#[test]
fn loom_two_readers_look_twice() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(2);
    model.check(|| {
        let line = Small::new();
        let readers: Vec<_> = (0..2)
            .map(|_| {
                let line = line.clone();
                thread::spawn(move || line.look())
            })
            .collect();
        line.become_flow(1);
        for reader in readers {
            reader.join().unwrap();
        }
    });
}

/// A whole entry: closed, and opened again for another flow. It has too many words for all orders, but a thread that runs behind
/// another may still see any of the values that its relaxed loads may have.
#[test]
fn loom_an_entry_is_read_whole() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(0);
    model.check(|| {
        let lines = Arc::new(Lines::new(1));
        let flow = |n: u64| {
            let mut key = Key::of_tuple(n, &tuple(n)).unwrap();
            key.words[2] = n;
            (
                key,
                Life::new(n as u32, n as u8, 0),
                Birth { created: n as u32, condemned: 0, tenant: n as u16 },
            )
        };
        let entry = lines.get(0).unwrap();
        let (key, life, birth) = flow(1);
        entry.open(&key, life, birth);
        let reader = {
            let lines = lines.clone();
            thread::spawn(move || match lines.get(0).unwrap().read() {
                Ok(Some(record)) => {
                    let n = record.key.words[0];
                    assert!(n == 1 || n == 2);
                    assert_eq!((record.key, record.life, record.birth), flow(n));
                    assert_eq!(record.counts, [(0, 0); 2]);
                    assert_eq!(record.version, [2, 6][n as usize - 1]);
                }
                Ok(None) | Err(Torn) => {}
            })
        };
        entry.close();
        let (key, life, birth) = flow(2);
        entry.open(&key, life, birth);
        reader.join().unwrap();
    });
}

fn tuple(n: u64) -> crate::flow::Tuple {
    crate::flow::Tuple {
        source: std::net::Ipv4Addr::from(n as u32).into(),
        destination: std::net::Ipv4Addr::BROADCAST.into(),
        source_port: n as u16,
        destination_port: n as u16,
        protocol: 17,
    }
}
