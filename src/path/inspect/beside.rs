//! A candidate beside the pipeline in force: it judges the same packets, on copies, and nothing comes of it but counts and examples.
//!
//! Everything that a pipeline can do it does to a batch, so the candidate gets a batch of its own, with copies of the frames as they came from track:
//! what it edits, rejects, drops or holds ends with the copy. It is an [`Inspect`] like any other, with running stages, streams and counters of its
//! own, and with its own mask for each flow ([`Seen`]). One bit of the flow's own mask, behind those of the stages in force, says that the
//! candidate is done with the flow: while it is clear track leaves the flow open, and its packets pass here even if every stage in force is done.
//! Nothing of this exists where no candidate is loaded; it comes and goes with a [`super::Next`], as pipelines do.
//!
//! Flows from before are judged as a reload would have them judged: by the stages that would ask them again. What a stage knows of them that the
//! two pipelines share is not known here, so its bit is set, and where *it* drops a packet of such a flow nothing is compared.

use std::sync::Arc;

use parking_lot::Mutex;

use super::next::is_alike;
use super::settle::Settle;
use super::{Inspect, Pipeline};
use crate::config::Plan;
use crate::dpdk::{BURST, Mempool, PoolConfig};
use crate::event::{About, Limit};
use crate::flow::refit::Refit;
use crate::packet::{Batch, DropReason, FlowFlags, FlowSlot, Mask, Meta, NO_RULE, ReasonId, Spoken};
use crate::path::counters::{Counter, WorkerCounters};
use crate::stage::{MOST_STAGES, WorkerId};

/// Examples that a worker gives in a second, and that wait for the management side.
const EXAMPLES_PER_S: u32 = 10;
const EXAMPLES: usize = 64;

/// A pipeline that is to be judged by what it would do.
pub struct Candidate {
    pipeline: Pipeline,
    /// Drop reasons, those of the pipeline in force included.
    reasons: usize,
    /// Stages that are given their answer where connections from before are allowed.
    allowed: u16,
    data_room: u16,
    plan: Arc<Plan>,
    ends: Mutex<Vec<Arc<End>>>,
}

/// The management side's end of one worker's candidate.
pub struct End {
    /// The worker.
    pub worker: WorkerId,
    /// How verdicts compared.
    pub counts: Comparison,
    /// What the candidate's stages did.
    pub stages: Arc<WorkerCounters>,
    examples: Mutex<rtrb::Consumer<Example>>,
}

/// How verdicts compared, on one worker: it alone adds.
#[derive(Debug)]
#[repr(align(128))]
pub struct Comparison {
    /// Packets of which both say the same: to pass, or to be dropped.
    pub agree: Counter,
    /// Packets that passed and would be dropped.
    pub would_drop: Counter,
    /// Packets that were dropped and would pass.
    pub would_pass: Counter,
    /// Packets on which one of the two had not decided: it held them.
    pub waiting: Counter,
    /// Packets of flows from before that were dropped by what both have, and packets that could not be copied.
    pub not_compared: Counter,
    /// Flows that the candidate was shown.
    pub flows: Counter,
    /// Those of them with a packet that would be dropped.
    pub flows_would_drop: Counter,
    /// Those of them with a packet that would pass.
    pub flows_would_pass: Counter,
    /// Differences of which no example was given.
    pub skipped: Counter,
    /// What would be dropped, by the candidate's reason, and what would pass, by the reason for which it was dropped.
    pub by_reason: [Box<[Counter]>; 2],
}

/// One difference.
#[derive(Clone, Copy, Debug)]
pub struct Example {
    /// Nanoseconds of the worker's clock.
    pub at: u64,
    /// The packet.
    pub about: About,
    /// What was done, and what would be.
    pub verdicts: [Verdict; 2],
    /// Differences since the last example of which none was given.
    pub skipped: u32,
}

/// What a pipeline says of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Why it does not pass.
    pub reason: Option<ReasonId>,
    /// The rule that decided, by its place in its stage, where a stage said so for this packet.
    pub rule: Option<u32>,
}

impl Candidate {
    /// Of a plan that was checked, and its pipeline.
    pub fn new(plan: Arc<Plan>, pipeline: Pipeline) -> Self {
        let settles = pipeline.stages.iter().enumerate().take(MOST_STAGES).filter(|(_, stage)| stage.settles);
        Candidate {
            reasons: plan.reasons.len(),
            allowed: settles.fold(0, |bits, (n, _)| bits | 1 << n),
            data_room: plan.pool.config.data_room,
            pipeline,
            plan,
            ends: Mutex::default(),
        }
    }

    /// The plan.
    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// The pipeline.
    pub fn pipeline(&self) -> &Pipeline {
        &self.pipeline
    }

    /// One for each worker that has it, or had it.
    pub fn ends(&self) -> Vec<Arc<End>> {
        self.ends.lock().clone()
    }

    /// Bytes that it takes on the heap for so many workers, rule sets left out.
    pub fn bytes(plan: &Plan, workers: usize) -> u64 {
        let flows = if plan.flow.tracking { u64::from(plan.flow.per_worker) } else { 0 };
        let kept: u64 = plan.stages.iter().map(|stage| stage.parsed.flow_state_bytes()).sum();
        let streams = if plan.reads_streams() {
            (crate::stream::FLOW_BYTES + super::HOLD_BYTES) * flows + plan.stream.memory
        } else {
            0
        };
        let copies = BURST as u64 * (u64::from(plan.pool.config.data_room) + 512);
        workers as u64 * (flows * (kept + size_of::<Seen>() as u64) + streams + copies)
    }
}

impl std::fmt::Debug for Candidate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Candidate").field("pipeline", &self.pipeline).finish_non_exhaustive()
    }
}

impl End {
    /// The next example, if there is one.
    pub fn example(&self) -> Option<Example> {
        self.examples.lock().pop().ok()
    }
}

impl Comparison {
    fn new(reasons: usize) -> Self {
        let zero = Counter::default;
        let by_reason = || (0..reasons).map(|_| zero()).collect();
        Comparison {
            agree: zero(),
            would_drop: zero(),
            would_pass: zero(),
            waiting: zero(),
            not_compared: zero(),
            flows: zero(),
            flows_would_drop: zero(),
            flows_would_pass: zero(),
            skipped: zero(),
            by_reason: [by_reason(), by_reason()],
        }
    }
}

/// What the candidate has made of one flow.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    incarnation: u32,
    /// Its stages that are done with the flow.
    settled: u16,
    /// The reason for which it would be dropped, plus one.
    condemned: u16,
    flags: u8,
}

impl Seen {
    /// It was there before the candidate.
    const FROM_BEFORE: u8 = 1;
    /// To the candidate the other side opened it.
    const TURNED: u8 = 2;
    /// It was counted as one of which a packet would be dropped, or would pass.
    const DIFFERS: [u8; 2] = [4, 8];

    fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// The candidate on one worker.
pub(in crate::path) struct Beside {
    inspect: Inspect,
    batch: Box<Batch>,
    pool: Mempool,
    /// By entry of the flow table.
    seen: Box<[Seen]>,
    /// Bits of its stages, and those of them whose answer is given where connections from before are allowed.
    all: u16,
    allowed: u16,
    /// The bit of flows' own masks that says it is done.
    mine: u16,
    /// Stages in force that are not for a tenant, by its number, and its own.
    foreign: [Arc<[u16]>; 2],
    /// Flows from before, as a reload would have them.
    refit: Refit,
    /// Its stages that are those of the pipeline in force.
    shared: u16,
    /// Reasons of stages that it has as they are: of flows from before they say nothing.
    says_nothing: Box<[bool]>,
    /// Where each slot of the batch in force has its copy.
    copies: [u8; BURST],
    copied: Mask,
    /// Slots of flows that it is done with, and slots that could not be copied.
    done: Mask,
    lost: Mask,
    end: Arc<End>,
    examples: rtrb::Producer<Example>,
    limit: Limit,
}

impl std::fmt::Debug for Beside {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Beside").field("inspect", &self.inspect).finish_non_exhaustive()
    }
}

impl Pipeline {
    /// The same stages, with a candidate beside them, or without one.
    #[must_use]
    pub fn beside(&self, candidate: Option<Arc<Candidate>>) -> Self {
        Pipeline { candidate, ..self.clone() }
    }

    /// The candidate beside it.
    pub fn candidate(&self) -> Option<&Arc<Candidate>> {
        self.candidate.as_ref()
    }

    /// Is there a bit left in flows' masks?
    pub fn has_room_beside(&self) -> bool {
        self.stages.len() < MOST_STAGES
    }
}

impl Beside {
    /// For a worker whose pipeline is `active`. Allocates all that it will ever need.
    pub(super) fn new(candidate: &Candidate, active: &Pipeline, worker: WorkerId) -> Self {
        let pipeline = &candidate.pipeline;
        let counters = Arc::new(WorkerCounters::new(worker, &candidate.plan.reasons, pipeline.stages.len()));
        let mut inspect = pipeline.make(worker);
        inspect.count_in(&counters);
        let (examples, taken) = rtrb::RingBuffer::new(EXAMPLES);
        let end = Arc::new(End {
            worker,
            counts: Comparison::new(candidate.reasons),
            stages: counters,
            examples: Mutex::new(taken),
        });
        candidate.ends.lock().push(end.clone());
        // What streams are dropped for is said by whoever began to read them.
        let mut says_nothing: Box<[bool]> =
            (0..candidate.reasons).map(|n| n < DropReason::ALL.len()).collect();
        let mut shared = 0;
        for (n, stage) in pipeline.stages.iter().enumerate().take(MOST_STAGES) {
            if active.stages.iter().any(|other| is_alike(other, stage)) {
                shared |= 1 << n;
                for reason in stage.reasons.iter() {
                    if let Some(place) = says_nothing.get_mut(usize::from(reason.0)) {
                        *place = true;
                    }
                }
            }
        }
        let mut batch = Box::new(Batch::new());
        batch.swap_rules(&mut Some(Box::new([NO_RULE; BURST])));
        let pool = PoolConfig {
            name: "beside".into(),
            buffers: BURST as u32,
            data_room: candidate.data_room,
            cache: 0,
            numa: None,
        };
        Beside {
            inspect,
            batch,
            pool: Mempool::soft(&pool),
            seen: vec![Seen::default(); pipeline.flows].into(),
            all: bits(pipeline.stages.len()),
            allowed: candidate.allowed,
            mine: 1u16.checked_shl(active.stages.len() as u32).unwrap_or(0),
            foreign: [active.foreign.clone(), pipeline.foreign.clone()],
            refit: pipeline.would_refit(active),
            shared,
            says_nothing,
            copies: [0; BURST],
            copied: Mask::NONE,
            done: Mask::NONE,
            lost: Mask::NONE,
            end,
            examples,
            limit: Limit::default(),
        }
    }

    /// Copies what is open, before any stage in force has seen it.
    pub(super) fn look<F: Settle>(&mut self, batch: &mut Batch, flows: Option<&F>) {
        (self.copied, self.done, self.lost) = (Mask::NONE, Mask::NONE, Mask::NONE);
        batch.forget_rules();
        self.batch.forget_rules();
        for slot in batch.open() {
            let mut meta = *batch.meta(slot);
            let [was_foreign, foreign] = self.foreign_to(meta.tenant);
            let own = meta.flow.entry().map(|entry| entry as usize);
            // Of a packet without a flow nothing else is known.
            let settled = std::mem::replace(&mut meta.settled, foreign);
            if let Some(seen) = own.and_then(|entry| self.seen.get_mut(entry)) {
                if seen.incarnation != meta.incarnation {
                    let before = Meta { settled: settled & !was_foreign, ..meta };
                    *seen = begin(&before, flows, &self.refit, self.shared, self.allowed);
                    seen.settled |= foreign;
                    self.end.counts.flows.add(1);
                }
                if seen.condemned != 0 || settled & self.mine != 0 {
                    self.done.insert(slot);
                    continue;
                }
                meta.settled = seen.settled;
                if seen.has(Seen::TURNED) {
                    meta.flow_flags.0 ^= FlowFlags::REPLY;
                }
            }
            let (frame, place) = (batch.frame(slot), self.batch.len());
            let copy = self.pool.alloc().and_then(|mut copy| copy.write(frame).then_some(copy));
            match copy.map(|copy| self.batch.put(copy, meta)) {
                Some(Ok(())) => {
                    if let Some(at) = self.copies.get_mut(slot) {
                        *at = place as u8;
                    }
                    self.copied.insert(slot);
                }
                _ => self.lost.insert(slot),
            }
        }
        self.batch.begin();
    }

    fn foreign_to(&self, tenant: u16) -> [u16; 2] {
        self.foreign.each_ref().map(|tenants| tenants.get(usize::from(tenant)).copied().unwrap_or(0))
    }

    /// The stages in force are done with the batch: the candidate judges its copies, and verdicts are compared. `held`: slots that the stages in force hold.
    pub(super) fn judge<F: Settle>(
        &mut self,
        batch: &Batch,
        mut flows: Option<&mut F>,
        held: Mask,
        now: u64,
    ) {
        let mut waits = Mask::NONE;
        if !self.batch.is_empty() {
            let Beside { inspect, batch: copies, seen, end, .. } = self;
            match flows.as_deref_mut() {
                Some(real) => {
                    let mut own = Own { seen, real };
                    inspect.run_alone(copies, Some(&mut own), now, &end.stages);
                    if let Some(streams) = inspect.streams() {
                        streams.housekeeping(Some(&mut own), now, false, &end.stages);
                    }
                }
                None => inspect.run_alone(copies, None::<&mut Own<'_, F>>, now, &end.stages),
            }
            waits = inspect.streams().map_or(Mask::NONE, |streams| streams.wanted());
        }
        for slot in self.copied | self.done | self.lost {
            self.compare(slot, batch, (held, waits), now);
        }
        if let Some(flows) = flows {
            for slot in self.copied | self.done {
                let meta = batch.meta(slot);
                let seen = meta.flow.entry().and_then(|entry| self.seen.get(entry as usize));
                let is_done = seen.is_some_and(|seen| {
                    seen.incarnation == meta.incarnation
                        && (seen.condemned != 0 || seen.settled & self.all == self.all)
                });
                if is_done && !meta.flow_flags.has(FlowFlags::RELATED) && flows.holds(meta) {
                    flows.settle(meta.flow, self.mine);
                }
            }
        }
        self.batch.frames.free();
    }

    fn compare(&mut self, slot: usize, batch: &Batch, (held, waits): (Mask, Mask), now: u64) {
        let counts = &self.end.counts;
        let meta = batch.meta(slot);
        let seen = meta.flow.entry().and_then(|entry| self.seen.get_mut(entry as usize));
        let seen = seen.filter(|seen| seen.incarnation == meta.incarnation);
        let copy = usize::from(self.copies.get(slot).copied().unwrap_or(0));
        let is_copied = self.copied.has(slot);
        if held.has(slot) || is_copied && waits.has(copy) {
            return counts.waiting.add(1);
        }
        let was = (!batch.live().has(slot)).then(|| batch.reason(slot));
        let would = match &seen {
            _ if is_copied => (!self.batch.live().has(copy)).then(|| self.batch.reason(copy)),
            Some(seen) => seen.condemned.checked_sub(1).map(ReasonId),
            None => None,
        };
        let says_nothing = |reason: ReasonId| self.says_nothing.get(usize::from(reason.0)) == Some(&true);
        let from_before = seen.as_ref().is_some_and(|seen| seen.has(Seen::FROM_BEFORE));
        let (total, flow_total, which) = match (was, would) {
            _ if self.lost.has(slot) => return counts.not_compared.add(1),
            (Some(reason), None) if from_before && says_nothing(reason) => return counts.not_compared.add(1),
            (Some(_), Some(_)) | (None, None) => return counts.agree.add(1),
            (None, Some(_)) => (&counts.would_drop, &counts.flows_would_drop, 0),
            (Some(_), None) => (&counts.would_pass, &counts.flows_would_pass, 1),
        };
        total.add(1);
        let reason = would.or(was).map_or(0, |reason| usize::from(reason.0));
        if let Some(counter) = counts.by_reason.get(which).and_then(|counters| counters.get(reason)) {
            counter.add(1);
        }
        let flag = Seen::DIFFERS.get(which).copied().unwrap_or(0);
        if let Some(seen) = seen.filter(|seen| !seen.has(flag)) {
            seen.flags |= flag;
            flow_total.add(1);
        }
        let Some(skipped) = self.limit.take(now, EXAMPLES_PER_S) else { return counts.skipped.add(1) };
        let rule = |batch: &Batch, slot| Some(batch.rule(slot)).filter(|rule| *rule != NO_RULE);
        let would_rule = if is_copied { rule(&self.batch, copy) } else { None };
        let about = About::packet(meta, batch.inner(slot), self.end.worker);
        let verdicts =
            [Verdict { reason: was, rule: rule(batch, slot) }, Verdict { reason: would, rule: would_rule }];
        if self.examples.push(Example { at: now, about, verdicts, skipped }).is_err() {
            counts.skipped.add(1);
        }
    }

    pub(super) fn idle(&mut self, now: u64) {
        self.inspect.idle(now);
    }

    pub(super) fn stop(&mut self, now: u64) {
        self.inspect.stop(now);
    }
}

/// A flow that the candidate meets for the first time.
fn begin<F: Settle>(meta: &Meta, flows: Option<&F>, refit: &Refit, shared: u16, allowed: u16) -> Seen {
    let seen = Seen { incarnation: meta.incarnation, ..Seen::default() };
    if meta.flow_flags.has(FlowFlags::NEW) {
        // A connection that was there before us, and that the plan allows without a question.
        let given = meta.flow_flags.has(FlowFlags::PICKED_UP) && meta.settled != 0;
        return Seen { settled: if given { allowed } else { 0 }, ..seen };
    }
    let (settled, cut) = flows.map_or((0, false), |flows| flows.refitted(refit, meta));
    let condemned = if cut { ReasonId::from(DropReason::OnReload).0 + 1 } else { 0 };
    Seen { settled: settled | shared, condemned, flags: Seen::FROM_BEFORE, ..seen }
}

/// What the candidate's stages say of flows goes here, and nowhere else.
struct Own<'a, F> {
    seen: &'a mut [Seen],
    real: &'a F,
}

impl<F> Own<'_, F> {
    fn of(&mut self, flow: FlowSlot) -> Option<&mut Seen> {
        self.seen.get_mut(flow.entry()? as usize)
    }
}

impl<F: Settle> Settle for Own<'_, F> {
    fn holds(&self, meta: &Meta) -> bool {
        self.real.holds(meta)
    }

    fn settle(&mut self, flow: FlowSlot, stages: u16) {
        if let Some(seen) = self.of(flow) {
            seen.settled |= stages;
        }
    }

    fn forward(&mut self, flow: FlowSlot, stages: u16, _: usize) {
        self.settle(flow, stages);
    }

    fn condemn(&mut self, flow: FlowSlot, reason: ReasonId, _: bool) {
        if let Some(seen) = self.of(flow) {
            seen.condemned = reason.0.saturating_add(1);
        }
    }

    fn turn(&mut self, flow: FlowSlot) {
        if let Some(seen) = self.of(flow) {
            seen.flags ^= Seen::TURNED;
        }
    }

    /// What a candidate thinks of a flow is its own.
    fn name(&mut self, _: FlowSlot, _: Spoken) {}

    fn is_reset(&self, meta: &Meta) -> bool {
        self.real.is_reset(meta)
    }

    fn refitted(&self, _: &Refit, _: &Meta) -> (u16, bool) {
        (0, false)
    }
}

/// The bits of the first `n` stages.
fn bits(n: usize) -> u16 {
    u16::MAX.checked_shr(u16::BITS.saturating_sub(n as u32)).unwrap_or(0)
}
