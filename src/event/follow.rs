//! Followers: readers who come while the program runs, see records as they are made, and go.
//!
//! ```text
//! writer thread: what was said --> [queue of one follower] --> thread of its connection: socket
//! ```
//!
//! A follower costs nobody anything while it is not there: workers make only what somebody wants at that moment ([`Asked`]), and the writer writes
//! lines only for who takes them. While it is there its queue is bounded, and the writer never waits for it. What does not fit is lost to that
//! follower alone; it is counted, and told to it at the place where it is missing.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};
use parking_lot::Mutex;

use super::kind::{Asked, TYPES, Type, Types};

/// Followers at a time: half of the connections that there can be, so that others can still ask.
pub const MOST: usize = 8;
/// Pieces that wait for a follower.
const QUEUE: usize = 32;
/// Bytes of a piece; one line may go beyond. So about 2 MB wait for a follower.
const PIECE: usize = 64 << 10;

/// What is known of something that was said, for who chooses.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Its type.
    pub kind: Type,
    /// Both ends as the record has them: the originator's first where the flow is known.
    pub ends: Option<[(IpAddr, u16); 2]>,
    /// IANA number.
    pub protocol: Option<u8>,
    /// Name of the tenant.
    pub tenant: Option<&'a str>,
    /// Endpoint.
    pub endpoint: Option<u64>,
    /// Name of the stage that tells.
    pub stage: Option<&'a str>,
    /// Why it was dropped.
    pub reason: Option<&'a str>,
}

/// Does a follower want this? Called on the writer's thread.
pub type Choice = Box<dyn Fn(&Subject<'_>) -> bool + Send>;

/// Why nobody more can follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// There are as many as there can be.
    #[error("{MOST} follow already; there can be no more at a time")]
    Many,
    /// The program ends.
    #[error("the program is ending")]
    Over,
}

/// Lines that follow each other.
#[derive(Debug, Default)]
pub struct Piece {
    /// Records that are missing in front of these.
    pub missing: u64,
    /// Whole lines.
    pub bytes: Vec<u8>,
    /// How many of which type.
    counts: [u32; TYPES],
}

impl Piece {
    /// How many records it has.
    pub fn records(&self) -> u64 {
        self.counts.iter().map(|n| u64::from(*n)).sum()
    }
}

/// What followers came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FollowSnapshot {
    /// Followers that are there.
    pub now: usize,
    /// Records given to followers, by type.
    pub given: [u64; TYPES],
    /// Records that a follower wanted and had no room for, by type.
    pub lost: [u64; TYPES],
}

/// One follower, as the writer sees it.
struct Place {
    number: u64,
    types: Types,
    choice: Choice,
    pending: Piece,
    queue: Sender<Piece>,
}

#[derive(Default)]
struct Places {
    next: u64,
    there: Vec<Place>,
    over: bool,
}

/// All followers.
pub struct Following {
    asked: Arc<Asked>,
    /// What sinks take.
    always: Types,
    /// What can be followed.
    open: Types,
    places: Mutex<Places>,
    given: [AtomicU64; TYPES],
    lost: [AtomicU64; TYPES],
}

impl std::fmt::Debug for Following {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} followers", self.places.lock().there.len())
    }
}

impl Following {
    /// Nobody follows yet. `always` is what sinks take, and `open` what can be followed.
    pub fn new(always: Types, open: Types) -> Arc<Self> {
        Arc::new(Following {
            asked: Arc::new(Asked::of(always)),
            always,
            open,
            places: Mutex::default(),
            given: Default::default(),
            lost: Default::default(),
        })
    }

    /// What can be followed.
    pub fn open(&self) -> Types {
        self.open
    }

    /// What somebody wants at this moment, for those who make it.
    pub fn asked(&self) -> Arc<Asked> {
        self.asked.clone()
    }

    /// One more. It gets what is said from now on: of these types, as far as they can be followed, what it chooses.
    pub fn follow(self: &Arc<Self>, types: Types, choice: Choice) -> Result<Follower, Full> {
        let mut places = self.places.lock();
        if places.over {
            return Err(Full::Over);
        }
        if places.there.len() >= MOST {
            return Err(Full::Many);
        }
        let (queue, waiting) = bounded(QUEUE);
        places.next += 1;
        let number = places.next;
        let types = types.within(self.open);
        places.there.push(Place { number, types, choice, pending: Piece::default(), queue });
        self.ask(&places);
        Ok(Follower { number, waiting, following: self.clone() })
    }

    /// What they came to.
    pub fn snapshot(&self) -> FollowSnapshot {
        let values = |counts: &[AtomicU64; TYPES]| counts.each_ref().map(|n| n.load(Ordering::Relaxed));
        FollowSnapshot {
            now: self.places.lock().there.len(),
            given: values(&self.given),
            lost: values(&self.lost),
        }
    }

    /// Nobody gets anything any more but what waits for him.
    pub fn close(&self) {
        let mut places = self.places.lock();
        places.over = true;
        places.there.iter_mut().for_each(|place| self.give(place));
        places.there.clear();
        self.ask(&places);
    }

    /// Does anybody follow?
    pub(super) fn any(&self) -> bool {
        !self.places.lock().there.is_empty()
    }

    /// Is anything of this type wanted by a follower?
    pub(super) fn wants(&self, kind: Type) -> bool {
        self.places.lock().there.iter().any(|place| place.types.has(kind))
    }

    /// Gives a record to those who want it. `line` is its line, if somebody has made it already.
    pub(super) fn tell(&self, subject: &Subject<'_>, line: &mut Option<Vec<u8>>, make: impl Fn() -> Vec<u8>) {
        for place in &mut self.places.lock().there {
            if place.types.has(subject.kind) && (place.choice)(subject) {
                place.pending.bytes.extend_from_slice(line.get_or_insert_with(&make));
                if let Some(n) = place.pending.counts.get_mut(subject.kind as usize) {
                    *n += 1;
                }
                if place.pending.bytes.len() >= PIECE {
                    self.give(place);
                }
            }
        }
    }

    /// Gives followers what there is for them. For who has not taken what was there before, it waits until it is a whole piece: not the number
    /// of looks, but of bytes is the measure of who is too slow.
    pub(super) fn flush(&self) {
        for place in &mut self.places.lock().there {
            if !place.queue.is_full() {
                self.give(place);
            }
        }
    }

    fn give(&self, place: &mut Place) {
        if place.pending.bytes.is_empty() && place.pending.missing == 0 {
            return;
        }
        match place.queue.try_send(std::mem::take(&mut place.pending)) {
            Ok(()) => {}
            Err(TrySendError::Full(piece) | TrySendError::Disconnected(piece)) => {
                for (lost, n) in self.lost.iter().zip(piece.counts) {
                    lost.fetch_add(n.into(), Ordering::Relaxed);
                }
                place.pending.missing = piece.missing + piece.records();
            }
        }
    }

    fn leave(&self, number: u64) {
        let mut places = self.places.lock();
        places.there.retain(|place| place.number != number);
        self.ask(&places);
    }

    fn ask(&self, places: &Places) {
        self.asked.set(places.there.iter().fold(self.always, |all, place| all.and(place.types)));
    }
}

/// What waited for.
#[derive(Debug)]
pub enum Came {
    /// Lines, or word of lines that are missing.
    Piece(Piece),
    /// Nothing, in all that time.
    Nothing,
    /// Nothing will come any more.
    Over,
}

/// A follower's own end. Who drops it has left.
#[derive(Debug)]
pub struct Follower {
    number: u64,
    waiting: Receiver<Piece>,
    following: Arc<Following>,
}

impl Follower {
    /// Waits so long for more.
    pub fn wait(&self, time: Duration) -> Came {
        match self.waiting.recv_timeout(time) {
            Ok(piece) => {
                for (given, n) in self.following.given.iter().zip(piece.counts) {
                    given.fetch_add(n.into(), Ordering::Relaxed);
                }
                Came::Piece(piece)
            }
            Err(RecvTimeoutError::Timeout) => Came::Nothing,
            Err(RecvTimeoutError::Disconnected) => Came::Over,
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.following.leave(self.number);
    }
}

#[cfg(test)]
mod tests;
