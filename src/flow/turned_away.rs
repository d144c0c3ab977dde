//! Until when a TCP segment of a connection that nobody knows may be of one for which there was no room.
//!
//! `flow.pickup = drop | reset` cuts connections that nobody saw begin. But one whose SYN found the table full, or whose half-open entry made room,
//! was seen to begin, and `flow.when_full` says what becomes of it. No table remembers which these were. So from such a moment on, for as long as
//! one of them may go on (the load balancer forgets it after its idle time, a handshake is over sooner), segments that nobody knows are taken as under
//! `pickup = policy`: by then there may be room. If there is none, that is such a moment again.
//!
//! One word for each tenant, of all workers, since what one of them turns away may go on at another. It is written once in a millisecond at most.

use super::sync::{AtomicU64, Ordering};

#[derive(Debug)]
#[repr(align(64))]
struct Until(AtomicU64);

/// The words of all tenants: milliseconds.
#[derive(Debug)]
pub(crate) struct TurnedAway(Box<[Until]>);

impl TurnedAway {
    pub fn new(tenants: usize) -> Self {
        TurnedAway((0..tenants).map(|_| Until(AtomicU64::new(0))).collect())
    }

    /// A connection has lost its place, and may go on until then.
    #[inline]
    pub fn note(&self, tenant: u16, until: u64) {
        if let Some(Until(word)) = self.0.get(usize::from(tenant))
            && word.load(Ordering::Relaxed) < until
        {
            word.fetch_max(until, Ordering::Relaxed);
        }
    }

    /// May a segment that nobody knows be of one of those?
    #[inline]
    pub fn may_be(&self, tenant: u16, now: u64) -> bool {
        self.0.get(usize::from(tenant)).is_some_and(|Until(word)| word.load(Ordering::Relaxed) > now)
    }
}

#[cfg(all(test, loom))]
mod models {
    use super::*;

    /// Whoever looks has the latest of what was noted before, whoever noted it.
    #[test]
    fn loom_the_latest_counts() {
        loom::model(|| {
            let away = loom::sync::Arc::new(TurnedAway::new(1));
            let note = |until| {
                let away = away.clone();
                loom::thread::spawn(move || away.note(0, until))
            };
            let others = [note(20), note(350)];
            away.note(0, 100);
            assert!(away.may_be(0, 99));
            others.into_iter().for_each(|other| other.join().unwrap());
            assert!(away.may_be(0, 349) && !away.may_be(0, 350));
        });
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn each_tenant_has_its_own_time_and_the_latest_counts() {
        let away = TurnedAway::new(2);
        assert!(!away.may_be(0, 0) && !away.may_be(1, 0) && !away.may_be(7, 0));
        away.note(1, 350);
        away.note(1, 20);
        away.note(7, 350);
        assert!(away.may_be(1, 349) && !away.may_be(1, 350));
        assert!(!away.may_be(0, 0) && !away.may_be(7, 0));
    }
}
