use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::Mutex;

use super::*;
use crate::dpdk::{Mempool, PoolConfig};
use crate::flow::Flows;
use crate::packet::{DropReason, FlowFlags, FlowSlot, Meta, ReasonTable, Verdict};

/// Panics wherever it can: at work, at rest, as it goes, in its payload, and now and then as it is made.
struct Hostile;
struct Payload;
struct Maker(AtomicU32);

impl Drop for Hostile {
    fn drop(&mut self) {
        std::panic::panic_any(Payload);
    }
}
impl Drop for Payload {
    fn drop(&mut self) {
        panic!("a payload goes");
    }
}
impl Stage for Hostile {
    fn run(&mut self, _: &mut Batch, _: &mut Cx<'_>) {
        std::panic::panic_any(Payload);
    }
    fn idle(&mut self, _: &mut Cx<'_>) {
        std::panic::panic_any(Payload);
    }
}
impl Shared for Maker {
    fn make(&self, _: &Make) -> Box<dyn Stage> {
        match self.0.fetch_add(1, Ordering::Relaxed) % 3 {
            1 => panic!("a stage is made"),
            _ => Box::new(Hostile),
        }
    }
}

fn plain(shared: Arc<dyn Shared>) -> Built {
    Built {
        name: "plain".into(),
        mark: [0; 32],
        number: 0,
        reads: false,
        settles: true,
        on_reload: OnReload::Redecide,
        asks_datagrams: false,
        asks_by_name: false,
        shared,
        reasons: [].into(),
        on_error: OnError::Drop,
        on_unread: OnError::Pass,
        mode: Mode::Enforce,
    }
}

#[test]
fn no_panic_of_a_stage_reaches_the_worker() {
    let shown = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let built = Built { name: "hostile".into(), ..plain(Arc::new(Maker(AtomicU32::new(0)))) };
    let mut inspect =
        Pipeline { stages: vec![built], flows: 0, streams: None, foreign: [].into(), candidate: None }
            .make(WorkerId(0));
    let counters = WorkerCounters::new(WorkerId(0), &ReasonTable::framework(), 1);
    inspect.count_in(&counters);
    let config = PoolConfig { name: "inspect".into(), buffers: 1, data_room: 64, cache: 0, numa: None };
    let pool = Mempool::soft(&config);
    for round in 1..=6 {
        let mut batch = Batch::new();
        batch.frames.push(pool.alloc().unwrap()).unwrap();
        batch.begin();
        inspect.run(&mut batch, None::<&mut Flows>, 0, &counters);
        assert!(batch.live().is_empty(), "the policy holds although there is no stage");
        let counted = counters.snapshot().stages.swap_remove(0);
        assert_eq!((counted.seen, counted.dropped, counted.panics), (round, round, round));
    }
    inspect.idle(0);
    assert_eq!(counters.stages()[0].panics.get(), 7);
    drop(inspect);
    std::panic::set_hook(shown);
}

// --- what stages settle ---

/// What a stage of a test says of every packet it is shown.
#[derive(Clone, Copy)]
enum Says {
    /// Nothing is ever settled: it must see every packet.
    Every,
    Settle(Verdict),
    /// Settles, then panics.
    Panic,
    /// The other side opened the flow; settled.
    Turn,
}

/// Slots that a stage was shown, and whether their packets were replies.
type Shown = Arc<Mutex<Vec<(usize, bool)>>>;

/// Notes slots it was shown, and which of them it took for replies.
struct Scripted {
    says: Says,
    seen: Shown,
}

impl Stage for Scripted {
    fn run(&mut self, batch: &mut Batch, _: &mut Cx<'_>) {
        for slot in batch.open() {
            self.seen.lock().push((slot, batch.meta(slot).is_reply()));
            match self.says {
                Says::Every => {}
                Says::Settle(verdict) => {
                    batch.settle(slot);
                    batch.decide(slot, verdict);
                }
                Says::Panic => {
                    batch.settle(slot);
                    batch.turn(slot);
                    panic!("in the middle");
                }
                Says::Turn => {
                    batch.turn(slot);
                    batch.settle(slot);
                }
            }
        }
    }
}
impl Shared for Scripted {
    fn make(&self, _: &Make) -> Box<dyn Stage> {
        Box::new(Scripted { says: self.says, seen: self.seen.clone() })
    }
}

/// Flows as track would show them to the next batch.
#[derive(Debug, Default, PartialEq, Eq)]
struct Remembered {
    settled: [u16; 4],
    condemned: [Option<ReasonId>; 4],
    turned: [u32; 4],
}

impl Settle for Remembered {
    fn holds(&self, _: &Meta) -> bool {
        true
    }
    fn settle(&mut self, flow: FlowSlot, stages: u16) {
        self.settled[flow.entry().unwrap() as usize] |= stages;
    }
    fn forward(&mut self, flow: FlowSlot, stages: u16, _: usize) {
        self.settle(flow, stages);
    }
    fn condemn(&mut self, flow: FlowSlot, reason: ReasonId, _: bool) {
        self.condemned[flow.entry().unwrap() as usize].get_or_insert(reason);
    }
    fn turn(&mut self, flow: FlowSlot) {
        self.turned[flow.entry().unwrap() as usize] += 1;
    }
    fn name(&mut self, _: FlowSlot, _: crate::packet::Spoken) {}
    fn is_reset(&self, _: &Meta) -> bool {
        false
    }

    fn refitted(&self, _: &crate::flow::refit::Refit, _: &Meta) -> (u16, bool) {
        (0, false)
    }
}

/// A pipeline of a test with its flows.
struct Line {
    inspect: Inspect,
    seen: Vec<Shown>,
    flows: Remembered,
    counters: WorkerCounters,
    pool: Mempool,
}

impl Line {
    fn of(stages: &[Says]) -> Line {
        let seen: Vec<_> = stages.iter().map(|_| Arc::default()).collect();
        let built = stages.iter().zip(&seen).map(|(&says, seen)| Built {
            name: "scripted".into(),
            on_error: OnError::Pass,
            ..plain(Arc::new(Scripted { says, seen: Arc::clone(seen) }))
        });
        let pipeline = Pipeline {
            stages: built.collect(),
            flows: 4,
            streams: None,
            foreign: [].into(),
            candidate: None,
        };
        let config = PoolConfig { name: "line".into(), buffers: 8, data_room: 64, cache: 0, numa: None };
        let counters = WorkerCounters::new(WorkerId(0), &ReasonTable::framework(), stages.len());
        let mut inspect = pipeline.make(WorkerId(0));
        inspect.count_in(&counters);
        Line { inspect, seen, flows: Remembered::default(), counters, pool: Mempool::soft(&config) }
    }

    /// One packet for each of these flows, as track would pass them on; `None` belongs to none.
    fn batch(&self, flows: &[Option<u32>]) -> Batch {
        let mut batch = Batch::new();
        flows.iter().for_each(|_| batch.frames.push(self.pool.alloc().unwrap()).unwrap());
        batch.begin();
        let complete = u16::MAX.checked_shr(16 - self.seen.len() as u32).unwrap_or(0);
        for (slot, entry) in flows.iter().enumerate() {
            let Some(entry) = *entry else { continue };
            let settled = self.flows.settled[entry as usize];
            let meta = batch.meta_mut(slot).unwrap();
            (meta.flow, meta.settled) = (FlowSlot::new(entry), settled);
            if self.flows.condemned[entry as usize].is_some() {
                batch.drop_slot(slot, DropReason::StagePanic);
            } else if settled == complete {
                batch.forward(Mask::one(slot));
            }
        }
        batch
    }

    /// Runs a batch; what each stage was shown of it.
    fn run(&mut self, batch: &mut Batch) -> Vec<Vec<usize>> {
        self.inspect.run(batch, Some(&mut self.flows), 0, &self.counters);
        self.seen
            .iter()
            .map(|seen| std::mem::take(&mut *seen.lock()).into_iter().map(|(slot, _)| slot).collect())
            .collect()
    }

    /// Two batches of one packet of flow 0: what each stage was shown of the second, and whether that went home.
    fn second(stages: &[Says]) -> (Vec<usize>, bool) {
        let mut line = Line::of(stages);
        let mut first = line.batch(&[Some(0)]);
        line.run(&mut first);
        let mut second = line.batch(&[Some(0)]);
        let seen = line.run(&mut second);
        assert_eq!(second.open() & second.live(), second.open());
        (seen.iter().map(Vec::len).collect(), second.live().has(0))
    }
}

const DROP: Says = Says::Settle(Verdict::Drop(ReasonId(77)));
const ALLOW: Says = Says::Settle(Verdict::Next);
const FORWARD: Says = Says::Settle(Verdict::Forward);

#[test]
fn a_stage_that_settled_sees_no_more_of_the_flow_and_one_that_never_does_sees_all() {
    use Says::Every;
    for (stages, shown, home) in [
        (&[ALLOW, Every][..], &[0, 1][..], true),
        (&[Every, ALLOW], &[1, 0], true),
        (&[Every, ALLOW, Every], &[1, 0, 1], true),
        (&[ALLOW, Every, ALLOW], &[0, 1, 0], true),
        (&[ALLOW, ALLOW], &[0, 0], true),
        // What is forwarded passes what is behind unseen, and what is in front sees it still.
        (&[FORWARD, Every], &[0, 0], true),
        (&[Every, FORWARD], &[1, 0], true),
        (&[Every, FORWARD, Every], &[1, 0, 0], true),
        (&[FORWARD, ALLOW, Every], &[0, 0, 0], true),
        // A drop is one for every stage.
        (&[DROP, Every], &[0, 0], false),
        (&[Every, DROP], &[0, 0], false),
        (&[Every, DROP, Every], &[0, 0, 0], false),
        (&[ALLOW, DROP], &[0, 0], false),
        // A packet that nobody settled is new to everybody.
        (&[Every, Every], &[1, 1], true),
    ] {
        assert_eq!(Line::second(stages), (shown.to_vec(), home), "{} stages", stages.len());
    }
}

#[test]
fn bits_are_those_of_the_stage_and_of_all_behind_it_if_it_forwards() {
    for (stages, settled) in [
        (&[ALLOW, Says::Every][..], 0b01),
        (&[Says::Every, ALLOW, Says::Every], 0b010),
        (&[Says::Every, FORWARD, Says::Every, Says::Every], 0b1110),
        (&[ALLOW, ALLOW, FORWARD], 0b111),
        (&[ALLOW; 16], 0xffff),
        (&[Says::Every; 16], 0),
    ] {
        let mut line = Line::of(stages);
        let mut batch = line.batch(&[Some(2)]);
        line.run(&mut batch);
        assert_eq!(line.flows.settled, [0, 0, settled, 0]);
    }
    let mut line = Line::of(&[Says::Every, DROP, Says::Every]);
    let mut batch = line.batch(&[Some(1)]);
    line.run(&mut batch);
    assert_eq!((line.flows.settled, line.flows.condemned), ([0; 4], [None, Some(ReasonId(77)), None, None]));
}

#[test]
fn two_packets_of_a_new_flow_in_one_batch_are_both_shown() {
    let mut line = Line::of(&[ALLOW, Says::Every]);
    let mut batch = line.batch(&[Some(0), None, Some(0), Some(1)]);
    assert_eq!(line.run(&mut batch), [[0, 1, 2, 3]; 2]);
    let mut batch = line.batch(&[Some(2), Some(0), None, Some(1)]);
    assert_eq!(line.run(&mut batch), [vec![0, 2], vec![0, 1, 2, 3]], "new, settled, without a flow, settled");
    assert_eq!((batch.open(), batch.live()), (Mask::first(4), Mask::first(4)));
    let seen: Vec<u64> = line.counters.snapshot().stages.iter().map(|s| s.seen).collect();
    assert_eq!(seen, [6, 8], "a stage counts what it is shown");
}

#[test]
fn a_packet_that_cannot_speak_for_a_flow_settles_none() {
    for says in [ALLOW, DROP, FORWARD, Says::Turn] {
        let mut line = Line::of(&[says]);
        let mut batch = line.batch(&[None, Some(3)]);
        batch.meta_mut(1).unwrap().flow_flags = FlowFlags(FlowFlags::RELATED);
        line.run(&mut batch);
        assert_eq!(line.flows, Remembered::default());
    }
}

#[test]
fn a_stage_that_panicked_settles_nothing() {
    let shown = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let mut line = Line::of(&[Says::Panic, Says::Every]);
    let mut batch = line.batch(&[Some(0), Some(1)]);
    let seen = line.run(&mut batch);
    std::panic::set_hook(shown);
    assert_eq!(seen, [vec![0], vec![0, 1]]);
    assert_eq!(line.flows, Remembered::default());
}

#[test]
fn a_flow_is_turned_once_and_the_stages_behind_know() {
    let mut line = Line::of(&[Says::Turn, Says::Every]);
    let mut batch = line.batch(&[Some(1), Some(0), Some(1)]);
    batch.meta_mut(2).unwrap().flow_flags = FlowFlags(FlowFlags::REPLY);
    batch.forward(Mask::one(1));
    line.inspect.run(&mut batch, Some(&mut line.flows), 0, &line.counters);
    assert_eq!(line.flows.turned, [0, 1, 0, 0]);
    assert_eq!(*line.seen[0].lock(), [(0, false), (2, true)]);
    assert_eq!(*line.seen[1].lock(), [(0, true), (2, false)]);
    assert!(!batch.meta(1).is_reply(), "not of that flow");
}

#[test]
fn without_tracking_masks_are_not_looked_at() {
    let mut line = Line::of(&[ALLOW]);
    let mut batch = line.batch(&[Some(0)]);
    batch.meta_mut(0).unwrap().settled = 1;
    line.inspect.run(&mut batch, None::<&mut Flows>, 0, &line.counters);
    assert_eq!(line.seen[0].lock().len(), 1);
}

/// Packet by packet, a verdict is settled only where the author said so for that packet.
#[test]
fn what_an_inspect_settles_is_the_packet_at_hand() {
    struct Odd(usize);
    impl crate::stage::Inspect for Odd {
        fn inspect(&mut self, _: &mut crate::packet::Packet<'_>, cx: &mut Cx<'_>) -> Verdict {
            self.0 += 1;
            if self.0.is_multiple_of(2) {
                cx.settle();
            }
            Verdict::Next
        }
    }
    let line = Line::of(&[Says::Every]);
    let mut batch = line.batch(&[Some(0), Some(1), Some(2), Some(3)]);
    crate::stage::PerPacket(Odd(0)).run(&mut batch, &mut Cx::new(0, WorkerId(0), &[]));
    assert_eq!(batch.take_settling(), (Mask::one(1) | Mask::one(3), Mask::NONE));
    assert_eq!(batch.take_settling(), (Mask::NONE, Mask::NONE));
}
