//! How lanes change hands: a worker lends what it has of a port, so that the port can be stopped, and gets it back, by a mailbox with one place,
//! between two polls.
//!
//! ```text
//! management --pairs of a port that does not run--> [one place] --> worker: swaps them for its lanes
//!            <--its lanes of that port------------- [one place] <--
//!            --the lanes of the port, running again-> ...           and the other way round
//! ```
//!
//! There is one kind of letter, and one thing to do with it: each pair takes the place of the lane of its number, and what was there goes
//! back. So lanes keep their places, a worker without its lanes goes on with all others, and whatever would leave by a lane that is away is
//! counted at tx (`port_reset`). The worker looks at one word in each poll, swaps, and allocates and frees nothing; a worker that hangs takes nothing, and nobody
//! waits for it. The places are rings of `rtrb`: nothing here is shared in any other way.

use super::Lane;
use crate::dpdk::QueuePair;

/// Pairs of one worker.
pub type Letter = Vec<QueuePair>;

/// The worker's end.
#[derive(Debug)]
pub struct Lend {
    asked: rtrb::Consumer<Letter>,
    back: rtrb::Producer<Letter>,
}

/// The management side's end.
#[derive(Debug)]
pub struct LendEnd {
    asked: rtrb::Producer<Letter>,
    back: rtrb::Consumer<Letter>,
    out: bool,
}

/// One worker's mailbox for lanes.
pub fn lend() -> (Lend, LendEnd) {
    let ((asked, taken), (back, came)) = (rtrb::RingBuffer::new(1), rtrb::RingBuffer::new(1));
    (Lend { asked: taken, back }, LendEnd { asked, back: came, out: false })
}

impl LendEnd {
    /// Is the worker still at a letter? Then it gets no other.
    pub fn is_out(&self) -> bool {
        self.out
    }

    /// Sends pairs; they come back if there is a letter out.
    pub fn send(&mut self, letter: Letter) -> Result<(), Letter> {
        if self.out {
            return Err(letter);
        }
        self.asked.push(letter).map_err(|rtrb::PushError::Full(letter)| letter)?;
        self.out = true;
        Ok(())
    }

    /// What the worker had in their places, once it has taken them.
    pub fn take_back(&mut self) -> Option<Letter> {
        let letter = self.back.pop().ok()?;
        self.out = false;
        Some(letter)
    }
}

impl Lend {
    /// Is there a letter?
    #[inline(always)]
    pub(super) fn is_due(&self) -> bool {
        !self.asked.is_empty()
    }

    /// Obeys it. There is room to give back: the other side sends nothing before it has taken what came.
    #[cold]
    pub(super) fn exchange(&mut self, lanes: &mut [Lane]) {
        let Ok(mut letter) = self.asked.pop() else { return };
        for pair in &mut letter {
            let place = |Lane(own): &&mut Lane| (own.port, own.queue) == (pair.port, pair.queue);
            if let Some(Lane(own)) = lanes.iter_mut().find(place) {
                std::mem::swap(own, pair);
            }
        }
        if let Err(rtrb::PushError::Full(letter)) = self.back.push(letter) {
            // It cannot be. The pairs would be gone with it, and their port could not be stopped any more.
            debug_assert!(letter.is_empty(), "two letters at a time");
        }
    }

    /// A letter that the worker did not come to. It has ended.
    pub(crate) fn unread(&mut self) -> Letter {
        self.asked.pop().unwrap_or_default()
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    fn places(lanes: &[Lane]) -> Vec<(u16, u16, u16)> {
        lanes.iter().map(|Lane(pair)| (pair.port, pair.queue, pair.mtu)).collect()
    }

    /// A pair that can be told from others by its MTU.
    fn pair(port: u16, queue: u16, mtu: u16) -> QueuePair {
        QueuePair { mtu, ..QueuePair::away(port, queue) }
    }

    #[test]
    fn lanes_keep_their_places() {
        let (mut worker, mut end) = lend();
        let mut lanes =
            vec![Lane(pair(0, 1, 1)), Lane(pair(3, 0, 2)), Lane(pair(3, 4, 3)), Lane(pair(1, 0, 4))];
        let before = places(&lanes);
        assert!(!worker.is_due() && end.take_back().is_none());
        end.send(vec![pair(3, 4, 10), pair(3, 0, 11)]).expect("room");
        assert!(worker.is_due() && end.is_out());
        assert_eq!(end.send(Vec::new()).expect_err("one at a time").len(), 0);
        worker.exchange(&mut lanes);
        assert_eq!(places(&lanes), [(0, 1, 1), (3, 0, 11), (3, 4, 10), (1, 0, 4)]);
        assert!(!worker.is_due() && end.send(Vec::new()).is_err(), "it has not been taken back");
        let own = end.take_back().expect("its lanes");
        assert_eq!(own.iter().map(|pair| pair.mtu).collect::<Vec<_>>(), [3, 2]);
        end.send(own).expect("room");
        worker.exchange(&mut lanes);
        assert_eq!(places(&lanes), before);
    }

    #[test]
    fn a_pair_that_is_not_the_workers_comes_back_as_it_went() {
        let (mut worker, mut end) = lend();
        let mut lanes = vec![Lane(pair(0, 0, 1))];
        end.send(vec![pair(0, 1, 9)]).expect("room");
        worker.exchange(&mut lanes);
        assert_eq!((places(&lanes), end.take_back().expect("it")[0].mtu), (vec![(0, 0, 1)], 9));
    }

    #[test]
    fn what_a_worker_did_not_read_is_found_with_it() {
        let (mut worker, mut end) = lend();
        assert!(worker.unread().is_empty());
        end.send(vec![pair(0, 0, 5)]).expect("room");
        assert_eq!(worker.unread().len(), 1);
    }
}
