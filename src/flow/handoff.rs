//! Hand-off: packets go from the worker that received them to the worker that owns their flow.
//!
//! One ring per ordered pair of workers, single producer, single consumer (crate `rtrb`), so packets of a flow stay in the order in
//! which the giver saw them, and nobody waits for anybody. A parcel carries what decap found, so the receiver starts at track. A ring
//! that is full gives the parcel back: what then becomes of it is the giver's decision, and counted by it.
//!
//! Nothing is lost in a ring. What is in it when workers stop is counted by [`Ends::waiting`] (the ledger's row "in the rings") and goes
//! back to its pool by [`Ends::free`], or with the last end of the ring. Buffers that rings can hold: [`buffers`], part of the pool's
//! formula.

use rtrb::{Consumer, Producer, RingBuffer};

use crate::dpdk::{Mbuf, prefetch_line, prefetch_line_to_write};
use crate::packet::{Batch, Facts};
use crate::stage::WorkerId;

/// Parcels that a ring holds, unless configured: at 10 Mpps of hand-offs into one ring, 0.2 ms.
pub const DEPTH: usize = 2048;

/// A frame on its way to the owner of its flow, in one cache line.
#[derive(Debug)]
#[repr(align(64))]
pub struct Parcel {
    /// The frame.
    pub frame: Mbuf,
    /// What decap found.
    pub meta: Facts,
    /// Which of its owner's lanes it goes home by: the port it came in on, by the order of the plan.
    pub lane: u8,
}

const _: () = assert!(size_of::<Parcel>() == 64);

/// Lines of a frame that track and encap look at: as a load balancer sends them, all headers end in the second or at the start of the third.
const FRAME_LINES: usize = 2;

/// Buffers that the rings between so many workers can hold.
pub fn buffers(workers: usize, depth: usize) -> usize {
    workers * workers.saturating_sub(1) * depth.next_power_of_two()
}

/// Rings between all workers; each gets its ends, in the order of their numbers. The depth is rounded up to a power of two.
pub fn mesh(workers: usize, depth: usize) -> Vec<Ends> {
    let depth = depth.next_power_of_two();
    let none = || Ends { out: Vec::with_capacity(workers), inward: Vec::with_capacity(workers) };
    let mut ends: Vec<Ends> = (0..workers).map(|_| none()).collect();
    for from in 0..workers {
        for to in 0..workers {
            let (giver, taker) = if from == to {
                (None, None)
            } else {
                let (giver, taker) = RingBuffer::new(depth);
                (Some(giver), Some(taker))
            };
            // Both are pushed in order: `out[to]` of the giver, `inward[from]` of the taker.
            if let Some(giver_ends) = ends.get_mut(from) {
                giver_ends.out.push(giver);
            }
            if let Some(taker_ends) = ends.get_mut(to) {
                taker_ends.inward.push(taker.map(|ring| Inward { ring, asked: 0 }));
            }
        }
    }
    ends
}

/// One worker's ends of all its rings. By the number of the peer; its own place is empty.
pub struct Ends {
    out: Vec<Option<Producer<Parcel>>>,
    inward: Vec<Option<Inward>>,
}

/// Where parcels of one peer come out.
struct Inward {
    ring: Consumer<Parcel>,
    /// So many of the next have been asked for.
    asked: usize,
}

impl Ends {
    /// Numbers of the other workers.
    pub fn peers(&self) -> impl Iterator<Item = WorkerId> {
        let out = self.out.iter().enumerate();
        out.filter(|(_, ring)| ring.is_some()).map(|(peer, _)| WorkerId(peer as u16))
    }

    /// Hands over the first of so many parcels, as many as the ring has room for, and says how many. They become visible together, so the
    /// line that both workers write is fetched once. The rest stays with the iterator.
    #[inline(always)]
    pub fn give(&mut self, to: WorkerId, count: usize, parcels: impl Iterator<Item = Parcel>) -> usize {
        let Some(Some(ring)) = self.out.get_mut(usize::from(to.0)) else { return 0 };
        let room = match ring.write_chunk_uninit(count) {
            Ok(chunk) => {
                let given = chunk.fill_from_iter(parcels);
                // The taker's core has the lines that come next, too: it read them a round of the ring ago.
                if let Ok(mut next) = ring.write_chunk_uninit(count) {
                    let (first, second) = next.as_mut_slices();
                    first.iter().chain(&*second).for_each(prefetch_line_to_write);
                }
                return given;
            }
            Err(rtrb::chunks::ChunkError::TooFewSlots(room)) => room,
        };
        ring.write_chunk_uninit(room).map_or(0, |chunk| chunk.fill_from_iter(parcels))
    }

    /// Parcels that [`Self::give`] will take for this peer, at least.
    #[inline(always)]
    pub fn room(&self, to: WorkerId) -> usize {
        self.out.get(usize::from(to.0)).and_then(Option::as_ref).map_or(0, Producer::slots)
    }

    /// Asks the cache for the next parcels of a peer, at most so many. What is in them comes later: [`Self::ask_for_frames`].
    ///
    /// The giver's core has all of these lines, and one of its lines takes as long to come as two packets take here. With something else
    /// to do between the three steps (parcels, frames, [`Self::take`]) nobody waits for them.
    #[inline(always)]
    pub(crate) fn ask_for_parcels(&mut self, from: WorkerId, most: usize) {
        let Some(Some(Inward { ring, asked })) = self.inward.get_mut(usize::from(from.0)) else { return };
        *asked = ring.slots().min(most);
        let Ok(chunk) = ring.read_chunk(*asked) else { return };
        let (first, second) = chunk.as_slices();
        first.iter().chain(second).for_each(prefetch_line);
    }

    /// Asks for the frames of the parcels that [`Self::ask_for_parcels`] has asked for.
    #[inline(always)]
    pub(crate) fn ask_for_frames(&mut self, from: WorkerId) {
        let Some(Some(Inward { ring, asked })) = self.inward.get_mut(usize::from(from.0)) else { return };
        let Ok(chunk) = ring.read_chunk(*asked) else { return };
        let (first, second) = chunk.as_slices();
        first.iter().chain(second).for_each(|parcel| parcel.frame.prefetch_usual::<FRAME_LINES>());
    }

    /// Takes parcels of one peer into an empty batch, at most `burst` and only as long as they go home by the same lane. Says which
    /// lane, and how many. The caller has [`Batch::begin`] follow.
    #[inline(always)]
    pub(crate) fn take(&mut self, from: WorkerId, batch: &mut Batch, burst: usize) -> Option<(u8, usize)> {
        let Inward { ring, asked } = self.inward.get_mut(usize::from(from.0))?.as_mut()?;
        let most = ring.slots().min(burst).min(batch.frames.room());
        let known = std::mem::take(asked);
        let chunk = ring.read_chunk(most).ok()?;
        let (first, second) = chunk.as_slices();
        for parcel in first.iter().chain(second).skip(known) {
            parcel.frame.prefetch_usual::<FRAME_LINES>();
        }
        let lane = first.first()?.lane;
        let alike = first.iter().chain(second).take_while(|parcel| parcel.lane == lane).count();
        // What is not iterated over stays in the ring.
        for Parcel { frame, meta, .. } in chunk.into_iter().take(alike) {
            let put = batch.put(frame, meta.into());
            debug_assert!(put.is_ok(), "there was room");
        }
        Some((lane, alike))
    }

    /// Parcels on their way to this worker. Exact while the peers stand still.
    pub fn waiting(&self) -> usize {
        self.inward.iter().flatten().map(|inward| inward.ring.slots()).sum()
    }

    /// Frees what is on its way to this worker, and says how much that was.
    pub fn free(&mut self) -> usize {
        let rings = self.inward.iter_mut().flatten();
        rings.map(|inward| std::iter::from_fn(|| inward.ring.pop().ok()).map(drop).count()).sum()
    }
}

impl std::fmt::Debug for Ends {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ends({} peers, {} waiting)", self.peers().count(), self.waiting())
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use crate::dpdk::{BURST, Mempool, PoolConfig};
    use crate::packet::Meta;

    const A: WorkerId = WorkerId(0);
    const B: WorkerId = WorkerId(1);
    const C: WorkerId = WorkerId(2);

    fn pool(buffers: u32) -> Mempool {
        Mempool::soft(&PoolConfig { name: "t".into(), buffers, data_room: 64, cache: 0, numa: None })
    }

    fn parcel(pool: &Mempool, number: u32, lane: u8) -> Parcel {
        let mut frame = pool.alloc().unwrap();
        assert!(frame.write(&number.to_be_bytes()));
        Parcel { frame, meta: Meta { cookie: number, ..Meta::default() }.into(), lane }
    }

    /// Gives one.
    fn give(ends: &mut Ends, to: WorkerId, parcel: Parcel) -> Result<(), Parcel> {
        let mut parcel = Some(parcel);
        ends.give(to, 1, std::iter::from_fn(|| parcel.take()));
        parcel.map_or(Ok(()), Err)
    }

    /// What is in the batch, which is emptied.
    fn numbers(batch: &mut Batch) -> Vec<u32> {
        batch.begin();
        assert_eq!(batch.bytes_home(), 4 * batch.len() as u64);
        let number = |slot: usize| {
            let number = u32::from_be_bytes(batch.frame(slot).try_into().unwrap());
            assert_eq!(batch.meta(slot).cookie, number, "facts travel with their frame");
            number
        };
        let numbers = (0..batch.len()).map(number).collect();
        batch.frames.free();
        numbers
    }

    #[test]
    fn a_pair_of_rings_between_every_two() {
        let mut ends = mesh(3, 3);
        assert_eq!(
            ends.iter().map(|e| e.peers().collect()).collect::<Vec<Vec<_>>>(),
            [[B, C], [A, C], [A, B]]
        );
        assert_eq!([A, B, C, WorkerId(3)].map(|to| ends[0].room(to)), [0, 4, 4, 0]);
        assert_eq!(buffers(3, 3), 24);
        let (pool, mut batch) = (pool(10), Batch::new());
        for (from, to, number) in [(A, B, 1), (B, A, 2), (C, A, 3), (A, C, 4)] {
            give(&mut ends[usize::from(from.0)], to, parcel(&pool, number, 0)).unwrap();
        }
        for (to, from, number) in [(A, B, 2), (A, C, 3), (B, A, 1), (C, A, 4)] {
            assert_eq!(ends[usize::from(to.0)].take(from, &mut batch, BURST), Some((0, 1)));
            assert_eq!(numbers(&mut batch), [number]);
        }
        assert!(ends.iter().all(|e| e.waiting() == 0));
    }

    #[test]
    fn one_worker_has_no_rings() {
        let mut ends = mesh(1, DEPTH);
        assert_eq!((ends.len(), ends[0].peers().count(), buffers(1, DEPTH)), (1, 0, 0));
        assert!(give(&mut ends[0], A, parcel(&pool(1), 1, 0)).is_err());
        assert_eq!(ends[0].take(A, &mut Batch::new(), BURST), None);
    }

    #[test]
    fn a_full_ring_gives_the_parcel_back() {
        let (pool, mut batch) = (pool(10), Batch::new());
        let mut ends = mesh(2, 4);
        for number in 0..4 {
            give(&mut ends[0], B, parcel(&pool, number, 0)).unwrap();
        }
        assert_eq!(ends[0].room(B), 0);
        let back = give(&mut ends[0], B, parcel(&pool, 4, 0)).unwrap_err();
        assert_eq!(back.frame.data(), 4u32.to_be_bytes());
        assert_eq!(ends[1].take(A, &mut batch, 3), Some((0, 3)));
        assert_eq!(numbers(&mut batch), [0, 1, 2]);
        give(&mut ends[0], B, back).unwrap();
        assert_eq!(ends[1].take(A, &mut batch, BURST), Some((0, 2))); // over the end of the ring
        assert_eq!(numbers(&mut batch), [3, 4]);
        assert_eq!(ends[1].take(A, &mut batch, BURST), None);
    }

    #[test]
    fn a_batch_has_one_lane_and_order_is_kept() {
        let (pool, mut batch) = (pool(200), Batch::new());
        let mut ends = mesh(2, 128);
        for (number, lane) in [0, 0, 1, 0, 1, 1, 1].into_iter().enumerate() {
            give(&mut ends[0], B, parcel(&pool, number as u32, lane)).unwrap();
        }
        for (lane, expected) in [(0, vec![0, 1]), (1, vec![2]), (0, vec![3]), (1, vec![4, 5, 6])] {
            assert_eq!(ends[1].take(A, &mut batch, BURST), Some((lane, expected.len())));
            assert_eq!(numbers(&mut batch), expected);
        }
        // A batch takes what it has room for.
        for number in 0..100 {
            give(&mut ends[0], B, parcel(&pool, number, 0)).unwrap();
        }
        assert_eq!(ends[1].take(A, &mut batch, 1000), Some((0, 64)));
        assert_eq!(ends[1].take(A, &mut batch, 1000), None);
        assert_eq!(numbers(&mut batch).len(), 64);
        assert_eq!(ends[1].waiting(), 36);
    }

    #[test]
    fn what_is_in_the_rings_comes_back() {
        let pool = pool(10);
        let fill = || {
            let mut ends = mesh(3, 4);
            for (from, to) in [(0, B), (0, C), (0, C), (1, A), (2, A)] {
                give(&mut ends[from], to, parcel(&pool, 0, 0)).unwrap();
            }
            assert_eq!(pool.available(), 5);
            ends
        };
        let mut ends = fill();
        assert_eq!(ends.iter().map(Ends::waiting).collect::<Vec<_>>(), [2, 1, 2]);
        assert_eq!(ends.iter_mut().map(Ends::free).collect::<Vec<_>>(), [2, 1, 2]);
        assert_eq!(pool.available(), 10);
        drop(ends);

        let mut ends = fill();
        ends.remove(2); // one worker is gone before the others
        drop(ends);
        assert_eq!(pool.available(), 10);
    }

    /// Every worker sends numbers to every other, as fast as they go, and takes what comes.
    #[test]
    fn nothing_is_lost_or_overtaken_between_threads() {
        const EACH: u32 = 20_000;
        const WORKERS: usize = 3;
        let pool = pool(1000);
        let work = |me: usize, mut ends: Ends, pool: &Mempool| {
            let peers: Vec<_> = ends.peers().collect();
            let (mut sent, mut taken) = ([0; WORKERS], [0; WORKERS]);
            let mut batch = Batch::new();
            while peers.iter().any(|p| sent[usize::from(p.0)] < EACH || taken[usize::from(p.0)] < EACH) {
                for &peer in &peers {
                    let sent = &mut sent[usize::from(peer.0)];
                    while *sent < EACH && ends.room(peer) > 0 {
                        let Some(mut frame) = pool.alloc() else { break };
                        frame.write(&sent.to_be_bytes());
                        let meta = Meta { cookie: *sent, endpoint: me as u64, ..Meta::default() };
                        let lane = (*sent >> 4 & 1) as u8;
                        give(&mut ends, peer, Parcel { frame, meta: meta.into(), lane }).unwrap();
                        *sent += 1;
                    }
                    let taken = &mut taken[usize::from(peer.0)];
                    if let Some((lane, n)) = ends.take(peer, &mut batch, 32) {
                        let numbers = numbers(&mut batch);
                        assert_eq!(numbers.len(), n);
                        for number in numbers {
                            assert_eq!((number, (number >> 4 & 1) as u8), (*taken, lane));
                            *taken += 1;
                        }
                    }
                }
                std::thread::yield_now();
            }
        };
        std::thread::scope(|scope| {
            for (me, ends) in mesh(WORKERS, 64).into_iter().enumerate() {
                let pool = &pool;
                scope.spawn(move || work(me, ends, pool));
            }
        });
        assert_eq!(pool.available(), pool.capacity());
    }
}
