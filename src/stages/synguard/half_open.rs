//! How many handshakes are half-open, of one entry: eight words, each for an eighth of the time after which a handshake counts as given up.
//!
//! A word has the number of its span of time (upper half) and how many handshakes began in it and are still half-open (lower half). Who begins counts
//! up in the word of the present span; who completes or resets counts down in that of the span in which it began. What is neither falls out
//! with its span, without anybody having to come back for it: so nothing leaks, whatever becomes of a flow. A handshake counts for the time that is set
//! at least, and for a seventh more at most.
//!
//! Workers count together. A word changes by compare-and-swap; nobody counts down what nobody counted up, and nothing of an old span counts in a
//! new one. The sum is read word by word: with w workers that let in at the same moment there may be w - 1 more than the limit.

use super::super::buckets::{Place, Table};
use crate::flow::sync::Ordering;

/// Spans that count.
pub(super) const SPANS: usize = 8;

/// Handshakes of one entry.
#[derive(Clone, Copy)]
pub(super) struct HalfOpen<'a> {
    pub table: &'a Table,
    pub place: Place,
}

impl HalfOpen<'_> {
    /// How many there are in this span of time and those before it that count.
    #[inline(always)]
    pub fn sum(self, span: u32) -> u32 {
        let words = (0..SPANS).filter_map(|n| self.table.word(self.place, n));
        words
            .map(|word| parts(word.load(Ordering::Relaxed)))
            .filter(|(of, _)| counts(*of, span))
            .map(|(_, n)| n)
            .sum()
    }

    /// One more begins. In which span: of a worker that is ahead, the one that it has reached.
    #[inline(always)]
    pub fn begin(self, span: u32) -> u32 {
        let Some(word) = self.table.word(self.place, span as usize % SPANS) else { return span };
        let mut of = span;
        let _ = word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
            let (has, count) = parts(word);
            // A span that is over makes room. One that is ahead by a whole round cannot be, while clocks are read once a poll.
            of = if has > span { has } else { span };
            let count = if has >= span { count } else { 0 };
            Some(whole(of, count.saturating_add(1)))
        });
        of
    }

    /// One that began in that span is half-open no longer.
    #[inline(always)]
    pub fn end(self, span: u32) {
        let Some(word) = self.table.word(self.place, span as usize % SPANS) else { return };
        let _ = word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
            let (has, count) = parts(word);
            (has == span && count > 0).then(|| whole(span, count - 1))
        });
    }
}

/// Does what began in a span still count in another?
#[inline(always)]
pub(super) fn counts(of: u32, span: u32) -> bool {
    of.saturating_add(SPANS as u32) > span
}

fn parts(word: u64) -> (u32, u32) {
    ((word >> 32) as u32, word as u32)
}

fn whole(span: u32, count: u32) -> u64 {
    u64::from(span) << 32 | u64::from(count)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_completes_falls_out_with_its_span() {
        let table = Table::numbered(1, SPANS);
        let half_open = HalfOpen { table: &table, place: table.numbered_place(0).unwrap() };
        for span in 10..14 {
            assert_eq!(half_open.begin(span), span);
            half_open.begin(span);
        }
        half_open.end(11);
        assert_eq!((half_open.sum(13), half_open.sum(17)), (7, 7));
        assert_eq!([18, 19, 20, 21].map(|span| half_open.sum(span)), [5, 4, 2, 0]);
        // The word of span 10 is 18's now: what began in 10 is not counted down in it.
        half_open.begin(18);
        half_open.end(10);
        assert_eq!(half_open.sum(18), 6);
        half_open.end(18);
        half_open.end(18);
        assert_eq!(half_open.sum(18), 5, "nothing is counted down twice");
        // A worker that is a span behind counts with the others.
        half_open.begin(26);
        assert_eq!((half_open.begin(18), half_open.sum(26)), (26, 2));
    }
}

#[cfg(all(test, loom))]
mod models {
    use loom::sync::Arc;
    use loom::thread;

    use super::*;

    /// One begins a new span while another completes what began in the old one of the same word, and a third begins as well: two remain.
    #[test]
    fn loom_a_new_span_has_what_began_in_it() {
        loom::model(|| {
            let table = Arc::new(Table::numbered(1, SPANS));
            let of = |table: &Table, work: &dyn Fn(HalfOpen<'_>)| {
                work(HalfOpen { table, place: table.numbered_place(0).unwrap() });
            };
            of(&table, &|half_open| _ = half_open.begin(10));
            let threads = [
                thread::spawn({
                    let table = table.clone();
                    move || of(&table, &|half_open| _ = half_open.begin(18))
                }),
                thread::spawn({
                    let table = table.clone();
                    move || of(&table, &|half_open| half_open.end(10))
                }),
            ];
            of(&table, &|half_open| _ = half_open.begin(18));
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            of(&table, &|half_open| assert_eq!(half_open.sum(18), 2));
        });
    }
}
