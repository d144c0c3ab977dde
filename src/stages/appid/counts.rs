//! Flows by what they speak.

use crate::packet::App;
use crate::path::Counter;

/// What one worker counts.
#[derive(Debug)]
pub struct Counts {
    /// Flows by what they speak (first), in the order of [`App::ALL`].
    pub flows: [Counter; App::ALL.len()],
    /// Flows that changed over to TLS.
    pub encrypted: Counter,
    /// Flows that are in the clear, where that is asked.
    pub plaintext: Counter,
    /// SSH connections whose banners made room for others.
    pub given_up: Counter,
}

impl Default for Counts {
    fn default() -> Self {
        Counts {
            flows: std::array::from_fn(|_| Counter::default()),
            encrypted: Counter::default(),
            plaintext: Counter::default(),
            given_up: Counter::default(),
        }
    }
}

/// Name and number, over all workers.
pub fn sums<'a>(all: impl Iterator<Item = &'a Counts> + Clone) -> Vec<(String, u64)> {
    let sum = |pick: &dyn Fn(&Counts) -> u64| all.clone().map(pick).sum();
    let apps = App::ALL
        .iter()
        .enumerate()
        .map(|(n, app)| (app.word().to_owned(), sum(&|counts| counts.flows.get(n).map_or(0, Counter::get))));
    let others = [
        ("changed to tls", sum(&|counts| counts.encrypted.get())),
        ("plaintext", sum(&|counts| counts.plaintext.get())),
        ("ssh banners given up", sum(&|counts| counts.given_up.get())),
    ];
    apps.chain(others.map(|(label, count)| (label.to_owned(), count))).collect()
}
