//! Faults on purpose, the same ones for the same seed, and an account of what became of every frame.
//!
//! Frames towards the port are struck in the order in which they enter the wire, from one stream of random numbers;
//! each queue has streams of its own for full transmit rings and exhausted pools. So what happens does not depend
//! on how threads take turns, as long as one thread feeds the wire.

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

/// Most frames that overtake a frame which is held back.
const MOST_OVERTAKING: u64 = 8;

/// How often what goes wrong, in a million.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Everything random comes from it.
    pub seed: u64,
    /// Frames lost on their way to the port.
    pub loss: u32,
    /// Frames that arrive twice.
    pub duplicate: u32,
    /// Frames that one to eight later ones overtake.
    pub reorder: u32,
    /// Frames with one to eight flipped bits in one byte.
    pub corrupt: u32,
    /// Frames cut somewhere.
    pub truncate: u32,
    /// Calls of `receive` that find the pool exhausted and lose a frame.
    pub pool_empty: u32,
    /// Calls of `send` that find the ring almost full: part of the burst is taken.
    pub tx_full: u32,
    /// Calls of `send` after such a one that take nothing.
    pub tx_full_calls: u32,
    /// Frames taken by `send` that the device then fails to send.
    pub tx_error: u32,
}

/// What became of every frame since the port was made. Restarts do not reset it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct FaultCounts {
    /// Frames put on the wire by the far end.
    pub entered: u64,
    /// More frames by duplication.
    pub duplicated: u64,
    /// Frames handed to a worker.
    pub delivered: u64,
    /// Lost by [`Faults::loss`].
    pub lost: u64,
    /// Lost because the link was down.
    pub link_down: u64,
    /// Lost because the receive ring was full.
    pub missed: u64,
    /// Lost because the pool was exhausted, really or by [`Faults::pool_empty`].
    pub no_buffer: u64,
    /// Lost because they were longer than the MTU or the buffers.
    pub too_long: u64,
    /// Lost because they were in the receive ring when the port stopped.
    pub stopped: u64,
    /// Now on the wire or in a receive ring.
    pub waiting: u64,
    /// Now held back by [`Faults::reorder`].
    pub held: u64,
    /// Struck by [`Faults::reorder`], [`Faults::corrupt`] and [`Faults::truncate`]; such frames go on.
    pub reordered: u64,
    /// See [`Self::reordered`].
    pub corrupted: u64,
    /// See [`Self::reordered`].
    pub truncated: u64,
    /// Frames that `send` took.
    pub taken: u64,
    /// Of these, not sent by [`Faults::tx_error`].
    pub tx_lost: u64,
    /// Frames that `send` was offered and left in the burst.
    pub refused: u64,
}

impl FaultCounts {
    /// Every frame that entered was delivered, was lost for a reason, or is still there.
    pub fn balances(&self) -> bool {
        let gone = self.lost + self.link_down + self.missed + self.no_buffer + self.too_long + self.stopped;
        self.entered + self.duplicated == self.delivered + gone + self.waiting + self.held
    }

    pub(super) fn named(&self) -> [(&'static str, u64); 17] {
        [
            ("entered", self.entered),
            ("duplicated", self.duplicated),
            ("delivered", self.delivered),
            ("lost", self.lost),
            ("link_down", self.link_down),
            ("missed", self.missed),
            ("no_buffer", self.no_buffer),
            ("too_long", self.too_long),
            ("stopped", self.stopped),
            ("waiting", self.waiting),
            ("held", self.held),
            ("reordered", self.reordered),
            ("corrupted", self.corrupted),
            ("truncated", self.truncated),
            ("taken", self.taken),
            ("tx_lost", self.tx_lost),
            ("refused", self.refused),
        ]
    }
}

/// Strikes frames on their way to the port.
#[derive(Debug)]
pub(super) struct Inbound {
    faults: Faults,
    random: ChaCha8Rng,
    entered: u64,
    /// Frames held back, and how many must have entered before they go on.
    held: Vec<(u64, Vec<u8>)>,
}

impl Inbound {
    pub fn new(faults: Faults) -> Self {
        Inbound { faults, random: ChaCha8Rng::seed_from_u64(faults.seed), entered: 0, held: Vec::new() }
    }

    /// Passes on `frame`, and what it sets free, by `arrive`.
    pub fn enter(
        &mut self,
        mut frame: Vec<u8>,
        counts: &mut FaultCounts,
        mut arrive: impl FnMut(&mut FaultCounts, Vec<u8>),
    ) {
        if self.faults == Faults::default() {
            arrive(counts, frame);
            return;
        }
        // The same number of draws for every frame: changing one rate leaves the others' victims as they were.
        let [loss, duplicate, reorder, corrupt, truncate] = std::array::from_fn(|_| self.random.next_u32());
        let detail = self.random.next_u64();
        self.entered += 1;
        if hit(loss, self.faults.loss) {
            counts.lost += 1;
        } else {
            if hit(corrupt, self.faults.corrupt) && !frame.is_empty() {
                let at = (detail >> 16) as usize % frame.len();
                frame[at] ^= 1 + (detail & 0xff) as u8 % 255;
                counts.corrupted += 1;
            }
            if hit(truncate, self.faults.truncate) && !frame.is_empty() {
                frame.truncate((detail >> 32) as usize % frame.len());
                counts.truncated += 1;
            }
            if hit(duplicate, self.faults.duplicate) {
                counts.duplicated += 1;
                arrive(counts, frame.clone());
            }
            if hit(reorder, self.faults.reorder) {
                counts.reordered += 1;
                self.held.push((self.entered + 1 + (detail >> 8) % MOST_OVERTAKING, frame));
            } else {
                arrive(counts, frame);
            }
        }
        self.release(self.entered, counts, &mut arrive);
    }

    /// Passes on the frames held back whose time has come.
    pub fn release(
        &mut self,
        entered: u64,
        counts: &mut FaultCounts,
        mut arrive: impl FnMut(&mut FaultCounts, Vec<u8>),
    ) {
        for (_, frame) in self.held.extract_if(.., |(at, _)| *at <= entered) {
            arrive(counts, frame);
        }
    }

    pub fn held(&self) -> u64 {
        self.held.len() as u64
    }
}

/// The faults of one queue.
#[derive(Debug)]
pub(super) struct Local {
    faults: Faults,
    random: ChaCha8Rng,
    full_for: u32,
}

impl Local {
    pub fn new(faults: Faults, stream: u64) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(faults.seed);
        random.set_stream(stream);
        Local { faults, random, full_for: 0 }
    }

    pub fn pool_empty(&mut self) -> bool {
        self.faults.pool_empty > 0 && hit(self.random.next_u32(), self.faults.pool_empty)
    }

    /// How many of `offered` frames the ring has room for.
    pub fn room(&mut self, offered: usize) -> usize {
        if self.full_for > 0 {
            self.full_for -= 1;
            return 0;
        }
        if self.faults.tx_full > 0 && hit(self.random.next_u32(), self.faults.tx_full) {
            self.full_for = self.faults.tx_full_calls;
            return self.random.next_u32() as usize % offered.max(1);
        }
        offered
    }

    pub fn tx_error(&mut self) -> bool {
        self.faults.tx_error > 0 && hit(self.random.next_u32(), self.faults.tx_error)
    }
}

fn hit(draw: u32, in_a_million: u32) -> bool {
    u64::from(draw) * 1_000_000 < u64::from(in_a_million) << 32
}
