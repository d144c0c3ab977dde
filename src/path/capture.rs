//! Copies of frames for whoever wants to look at them: not a hop, but what a batch does beside its work while a capture is on.
//!
//! ```text
//! management --Capture--> [one place] --> worker: copies what is chosen --> [ring of bytes] --> whoever writes it down
//!            <--------------- [back] <--- when it is over
//! ```
//!
//! While none is on, a batch looks at one word ([`Lens::is_on`]). A capture is made and dropped on the management side; the worker allocates and frees
//! nothing, and waits for nobody: what its ring has no room for, and what is beyond the rate, is counted and gone.
//!
//! A frame *before* the pipeline is copied when decap has read it and written down when its fate is known, so that one record has both: the bytes as
//! they came, and what became of them. *After* it there is what goes home, as it leaves, and what was made here in answer to a frame that was chosen.
//! Frames that another worker gets are that worker's to copy. What is held for a stage is written down as held, and not once more when it goes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam::utils::CachePadded;

use super::Counter;
use super::answer::Bucket;
use super::frames::{FrameReader, FrameWriter, ring};
use crate::dpdk::{BURST, Burst};
use crate::flow::flow_id;
use crate::packet::{Batch, Mask, Meta, ReasonId, View};
use crate::stage::WorkerId;

/// Bytes of a frame that are copied, at most: the largest frame of a port with MTU 9001, and some.
pub const LARGEST: usize = 9216;
/// Bytes of what is known of a frame, in front of its copy.
const HEAD: usize = 32;

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Became {
    /// It goes home.
    Home,
    /// It was dropped for this reason.
    Dropped(ReasonId),
    /// It is for the host stack.
    Punted,
    /// It waits for a stage.
    Held,
    /// It was made here.
    Made,
}

/// Which frames are wanted. Asked on a worker, of each frame while the capture is on: it must not block or allocate.
pub trait Choice: Send {
    /// By what decap has read; `None`: it has read nothing (no tunnel traffic, or broken).
    fn wants(&self, packet: Option<View<'_>>) -> bool;

    /// By what became of it. `meta` has its flow and tenant, if it has any.
    fn keeps(&self, meta: &Meta, became: Became) -> bool;
}

/// What a capture wants.
pub struct Wanted {
    /// Which frames.
    pub choice: Box<dyn Choice>,
    /// As they came.
    pub before: bool,
    /// As they leave.
    pub after: bool,
    /// Bytes of each, [`LARGEST`] at most.
    pub snap: usize,
    /// Frames of one worker in a second.
    pub rate: u32,
    /// Bytes of a worker's ring.
    pub ring: usize,
}

/// What one worker has counted; it alone adds.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct CaptureCounts {
    /// Records in the ring.
    pub copied: Counter,
    /// Frames for which the ring had no room.
    pub lost: Counter,
    /// Frames beyond the rate.
    pub limited: Counter,
}

/// A capture on one worker.
pub struct Capture {
    wanted: Wanted,
    bucket: Bucket,
    out: FrameWriter,
    counts: Arc<CaptureCounts>,
    /// A place for each slot: what is known, and the bytes.
    staged: Box<[u8]>,
    /// What is staged, and how many bytes of each.
    chosen: Mask,
    lens: [u16; BURST],
    /// Fragments that wait for their first: they come again.
    waiting: Mask,
}

impl std::fmt::Debug for Capture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Capture")
    }
}

/// What of a frame is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shot {
    /// Nanoseconds on the workers' clock: of the poll.
    pub at: u64,
    /// Its port.
    pub port: u16,
    /// Bytes that the frame has.
    pub wire_len: u32,
    /// Its fate.
    pub became: Became,
    /// As it leaves, not as it came.
    pub leaves: bool,
    /// A stage has changed it.
    pub edited: bool,
    /// Number of its flow, if that is known.
    pub flow_id: Option<u64>,
    /// Number of its tenant.
    pub tenant: u16,
}

impl Capture {
    /// A capture for one worker, and where its records come out.
    pub fn new(mut wanted: Wanted) -> (Box<Capture>, FrameReader, Arc<CaptureCounts>) {
        wanted.snap = wanted.snap.min(LARGEST);
        let (out, records) = ring(wanted.ring.max(4 * LARGEST));
        let counts = Arc::<CaptureCounts>::default();
        let staged = vec![0; BURST * (HEAD + wanted.snap)].into_boxed_slice();
        let bucket = Bucket::new(wanted.rate);
        let counting = counts.clone();
        let (chosen, lens, waiting) = (Mask::NONE, [0; BURST], Mask::NONE);
        let capture = Capture { wanted, bucket, out, counts: counting, staged, chosen, lens, waiting };
        (Box::new(capture), records, counts)
    }

    /// Decap has read the batch: what is wanted of it is copied as it came.
    #[cold]
    #[inline(never)]
    pub(super) fn begin(&mut self, batch: &Batch) {
        let Capture { wanted, staged, chosen, lens, .. } = self;
        *chosen = Mask::NONE;
        for slot in Mask::first(batch.len()) {
            let view = batch.live().has(slot).then(|| batch.view(slot));
            if !wanted.choice.wants(view) {
                continue;
            }
            chosen.insert(slot);
            let (frame, room) = (batch.frame(slot), HEAD + wanted.snap);
            let place = staged.get_mut(slot * room + HEAD..(slot + 1) * room).unwrap_or_default();
            let len = frame.len().min(place.len());
            if let (Some(to), Some(from)) = (place.get_mut(..len), frame.get(..len)) {
                to.copy_from_slice(from);
            }
            if let Some(kept) = lens.get_mut(slot) {
                *kept = len as u16; // LARGEST fits
            }
        }
    }

    /// Track has seen the batch: what waits now comes again, and is written down then.
    #[inline(always)]
    pub(super) fn tracked(&mut self, batch: &Batch) {
        self.waiting = batch.held();
    }

    /// The fates of all slots are known, and encap has turned around what goes home. `made`: frames in answer to slots of the batch.
    #[cold]
    #[inline(never)]
    pub(super) fn end(&mut self, batch: &Batch, made: &Burst, port: u16, now: u64, worker: WorkerId) {
        let mut answered = false;
        for slot in self.chosen.without(batch.away() | self.waiting) {
            let became = if batch.live().has(slot) {
                Became::Home
            } else if batch.punted().has(slot) {
                Became::Punted
            } else if batch.held().has(slot) {
                Became::Held
            } else {
                answered = true;
                Became::Dropped(batch.reason(slot))
            };
            let meta = batch.meta(slot);
            if !self.wanted.choice.keeps(meta, became) {
                continue;
            }
            let wire_len = batch.frame(slot).len() as u32;
            let flow = meta.flow.entry().map(|entry| flow_id(worker, (entry, meta.incarnation)));
            // What decap did not read has what an earlier frame left there.
            let known = became != Became::Punted && !batch.inner(slot).is_empty();
            let shot = Shot {
                at: now,
                port,
                wire_len,
                became,
                leaves: false,
                edited: batch.edited().has(slot),
                flow_id: flow.filter(|_| known),
                tenant: if known { meta.tenant } else { u16::MAX },
            };
            if self.wanted.before {
                let len = self.lens.get(slot).copied().unwrap_or(0);
                self.put_staged(&shot, slot, usize::from(len));
            }
            if self.wanted.after && became == Became::Home {
                self.put(&Shot { leaves: true, ..shot }, slot, batch.frame(slot));
            }
        }
        if self.wanted.after && answered {
            for frame in made.as_slice() {
                let (wire_len, became) = (frame.len() as u32, Became::Made);
                let (leaves, edited, flow_id, tenant) = (true, false, None, u16::MAX);
                let shot = Shot { at: now, port, wire_len, became, leaves, edited, flow_id, tenant };
                self.put(&shot, 0, frame.data());
            }
        }
    }

    /// Writes a frame down by way of a place whose own copy is not needed any more.
    fn put(&mut self, shot: &Shot, slot: usize, frame: &[u8]) {
        let room = HEAD + self.wanted.snap;
        let place = self.staged.get_mut(slot * room + HEAD..(slot + 1) * room).unwrap_or_default();
        let len = frame.len().min(place.len());
        if let (Some(to), Some(from)) = (place.get_mut(..len), frame.get(..len)) {
            to.copy_from_slice(from);
        }
        self.put_staged(shot, slot, len);
    }

    fn put_staged(&mut self, shot: &Shot, slot: usize, len: usize) {
        if !self.bucket.has_one(shot.at) {
            return self.counts.limited.add(1);
        }
        let start = slot * (HEAD + self.wanted.snap);
        let Some(record) = self.staged.get_mut(start..start + HEAD + len) else { return };
        if let Some(head) = record.first_chunk_mut() {
            *head = shot.to_bytes();
        }
        match self.out.write(shot.port, record) {
            true => {
                self.bucket.take();
                self.counts.copied.add(1);
            }
            false => self.counts.lost.add(1),
        }
    }
}

impl Shot {
    fn to_bytes(self) -> [u8; HEAD] {
        let (word, reason) = match self.became {
            Became::Home => (0, 0),
            Became::Dropped(reason) => (1, reason.0),
            Became::Punted => (2, 0),
            Became::Held => (3, 0),
            Became::Made => (4, 0),
        };
        let flags =
            u8::from(self.leaves) | u8::from(self.edited) << 1 | u8::from(self.flow_id.is_some()) << 2;
        let mut bytes = [0; HEAD];
        let parts: [&[u8]; 7] = [
            &self.at.to_ne_bytes(),
            &self.flow_id.unwrap_or(0).to_ne_bytes(),
            &self.wire_len.to_ne_bytes(),
            &reason.to_ne_bytes(),
            &self.tenant.to_ne_bytes(),
            &self.port.to_ne_bytes(),
            &[word, flags],
        ];
        bytes.iter_mut().zip(parts.into_iter().flatten()).for_each(|(to, from)| *to = *from);
        bytes
    }

    /// What is known of a frame, and the frame, out of a record of the ring.
    pub fn read(record: &[u8]) -> Option<(Shot, &[u8])> {
        let (at, rest) = record.split_first_chunk()?;
        let (flow, rest) = rest.split_first_chunk()?;
        let (wire_len, rest) = rest.split_first_chunk()?;
        let (reason, rest) = rest.split_first_chunk()?;
        let (tenant, rest) = rest.split_first_chunk()?;
        let (port, rest) = rest.split_first_chunk()?;
        let ([word, flags], _) = rest.split_first_chunk::<2>()?;
        let became = match word {
            0 => Became::Home,
            1 => Became::Dropped(ReasonId(u16::from_ne_bytes(*reason))),
            2 => Became::Punted,
            3 => Became::Held,
            4 => Became::Made,
            _ => return None,
        };
        let shot = Shot {
            at: u64::from_ne_bytes(*at),
            port: u16::from_ne_bytes(*port),
            wire_len: u32::from_ne_bytes(*wire_len),
            became,
            leaves: flags & 1 != 0,
            edited: flags & 2 != 0,
            flow_id: (flags & 4 != 0).then(|| u64::from_ne_bytes(*flow)),
            tenant: u16::from_ne_bytes(*tenant),
        };
        Some((shot, record.get(HEAD..)?))
    }
}

/// Where a worker gets its captures.
#[derive(Debug)]
pub struct Lens {
    /// There is one, or one comes or goes. A hint: what comes goes through the rings.
    on: Arc<CachePadded<AtomicBool>>,
    next: rtrb::Consumer<Option<Box<Capture>>>,
    back: rtrb::Producer<Box<Capture>>,
    now: Option<Box<Capture>>,
}

/// The management side's end.
#[derive(Debug)]
pub struct LensEnd {
    /// The worker.
    pub worker: WorkerId,
    on: Arc<CachePadded<AtomicBool>>,
    next: rtrb::Producer<Option<Box<Capture>>>,
    back: rtrb::Consumer<Box<Capture>>,
    /// The worker has one, or will have.
    out: bool,
}

/// Both ends for one worker.
pub fn lens(worker: WorkerId) -> (Lens, LensEnd) {
    let ((next, taken), (back, came)) = (rtrb::RingBuffer::new(2), rtrb::RingBuffer::new(2));
    let on = Arc::<CachePadded<AtomicBool>>::default();
    let lens = Lens { on: on.clone(), next: taken, back, now: None };
    (lens, LensEnd { worker, on, next, back: came, out: false })
}

impl Lens {
    /// Is there anything to do?
    #[inline(always)]
    pub(super) fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    /// The capture in force, after what has come is taken.
    #[cold]
    #[inline(never)]
    pub(super) fn look(&mut self) -> Option<&mut Capture> {
        while let Ok(next) = self.next.pop() {
            if let Some(before) = std::mem::replace(&mut self.now, next) {
                // There is room: one is out at a time.
                let _ = self.back.push(before);
            }
        }
        self.now.as_deref_mut()
    }
}

impl LensEnd {
    /// Begins a capture; it comes back if the worker still has the one before.
    pub fn begin(&mut self, capture: Box<Capture>) -> Result<(), Box<Capture>> {
        if !self.is_back() || self.next.is_full() {
            return Err(capture);
        }
        let _ = self.next.push(Some(capture)); // there is room
        self.out = true;
        self.on.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Ends it. [`Self::is_back`] says when the worker has given it back, with its next batch.
    pub fn end(&mut self) {
        if self.out {
            let _ = self.next.push(None); // there is room for one beside it
        }
    }

    /// Has the worker nothing any more? What it gave back is dropped here.
    pub fn is_back(&mut self) -> bool {
        if self.out && self.back.pop().is_ok() {
            self.out = false;
            self.on.store(false, Ordering::Relaxed);
        }
        !self.out
    }
}
