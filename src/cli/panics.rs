//! Panics on workers: the first few are shown, the rest only counted. A stage that panics is made anew and the worker goes
//! on, so whoever finds a packet that provokes it could otherwise fill the log and slow the worker down by its printing.

use std::panic::{self, PanicHookInfo};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

/// Panics of workers that are shown.
const SHOWN: u64 = 10;

/// Puts the limit in front of the panic hook that is there.
pub(super) fn limit() {
    let show = panic::take_hook();
    let more = || super::show::warnings(["more panics on workers are counted and not shown"]);
    panic::set_hook(Box::new(limited(show, more)));
}

/// A hook that calls `show` for the first panics and `more` for the next one.
fn limited(
    show: impl Fn(&PanicHookInfo<'_>) + Send + Sync,
    more: impl Fn() + Send + Sync,
) -> impl Fn(&PanicHookInfo<'_>) + Send + Sync {
    let seen = AtomicU64::new(0);
    move |info| {
        // The main thread panics once.
        let n =
            if thread::current().name() == Some("main") { 0 } else { seen.fetch_add(1, Ordering::Relaxed) };
        match n {
            0..SHOWN => show(info),
            SHOWN => more(),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_panics_are_shown() {
        static SAID: [AtomicU64; 2] = [AtomicU64::new(0), AtomicU64::new(0)];
        let add = |n: usize| {
            SAID[n].fetch_add(1, Ordering::Relaxed);
        };
        let before = panic::take_hook();
        panic::set_hook(Box::new(limited(move |_| add(0), move || add(1))));
        for _ in 0..SHOWN + 5 {
            assert!(thread::spawn(|| panic!("again")).join().is_err());
        }
        panic::set_hook(before);
        assert_eq!(SAID.each_ref().map(|n| n.load(Ordering::Relaxed)), [SHOWN, 1]);
    }
}
