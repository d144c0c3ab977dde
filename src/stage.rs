//! The contract between the framework and inspection stages. Stages outside this repository use it (`examples/custom-stage`), so it
//! changes by the rules of semantic versioning only.
//!
//! A stage lives three times. *Parsed*: its settings, read and checked, cheap. *Shared*: what is heavy and read-only
//! (rule sets, pattern databases), built once per plan, off the packet path. *Running*: one light instance per worker.
//!
//! ```text
//! TOML table --StageKind::parse--> Parsed --build--> Shared --make(worker)--> Stage --run(batch)--> verdicts
//! ```
//!
//! # Flows
//!
//! Where flows are tracked ([`Parsed::wants_flows`]) a packet knows its flow, and who opened that ([`Packet::originator`],
//! [`crate::packet::Meta::is_reply`]). A stage that has seen enough of a flow *settles* it ([`Cx::settle`], or [`Batch::settle`] for a
//! stage that takes batches): what it decides on that packet then holds for the flow, and it is not shown the flow's packets again.
//!
//! | verdict on the packet that settles | later packets of the flow |
//! |---|---|
//! | `Next` | pass this stage unseen; other stages see them as before |
//! | `Forward` | pass this stage and all behind it unseen, as this packet did |
//! | `Drop`, `Reject` | are all dropped, before any stage |
//!
//! - Both directions of a flow are one flow, its fragments and the ICMP errors that speak of it belong to it.
//! - Stages settle independently of each other; one that must see every packet never does.
//! - Packets of the flow that are in the same batch are shown together: a verdict on one does not reach the others, which go by
//!   verdicts of their own. What was settled holds from the next batch on.
//! - Packets can be without a flow (`flow.when_full = "stateless"`, no tracking, fragments whose first is missing): settling does nothing
//!   then, and the stage sees each of them. Nor can an ICMP error settle the flow that it speaks of.
//! - A stage that panicked has settled nothing in that batch.
//! - What a stage wants to remember of a flow lies in [`PerFlow`].
//!
//! # Streams
//!
//! A stage that reads what TCP carries writes [`StreamInspect`] and says [`Parsed::wants_streams`]. The framework puts the bytes in order, once for
//! all stages, copies only what comes early, and holds back what must not arrive before it was judged ([`crate::stream`]).
//!
//! A stage is one file under `stages/` with: module doc with a TOML example (a test parses it), settings, the stage,
//! `KIND`, tests. It is listed in [`crate::stages::ALL`].

mod per_flow;
mod per_stream;

use std::fmt;
use std::sync::Arc;

pub use per_flow::PerFlow;
pub use per_stream::{PerStream, StreamInspect};

use crate::config::{OnError, Problem, Settings};
use crate::event::{About, Body, Emitter, Signature, Type};
use crate::flow::Tuple;
use crate::packet::{Batch, Meta, Packet, ReasonId, Spoken, Verdict};
use crate::stream::Reassembly;

/// Stages of a pipeline that follows flows: what a flow's mask of settled stages has bits for.
pub const MOST_STAGES: usize = u16::BITS as usize;

/// Number of a worker, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub struct WorkerId(pub u16);

/// What a stage sees beside the batch.
#[derive(Debug)]
pub struct Cx<'a> {
    /// Nanoseconds of a clock that never goes back, read once per poll. In a replay it is the capture's.
    pub now: u64,
    /// The worker it runs on.
    pub worker: WorkerId,
    /// Ids of the reasons that the stage's kind declares, in that order.
    reasons: &'a [ReasonId],
    /// The packet at hand settles its flow.
    settling: bool,
    /// What the flow of the packet at hand speaks, if that was found out now.
    spoken: Option<Spoken>,
    /// The streams of the batch, if anybody reads them.
    streams: Option<&'a Reassembly>,
    on_unread: OnError,
    /// What it says has no effect.
    shadow: bool,
    /// The stage's number, and where its events go.
    events: Option<(u8, &'a mut Emitter)>,
}

impl<'a> Cx<'a> {
    pub(crate) fn new(now: u64, worker: WorkerId, reasons: &'a [ReasonId]) -> Self {
        Cx {
            now,
            worker,
            reasons,
            settling: false,
            spoken: None,
            streams: None,
            on_unread: OnError::Pass,
            shadow: false,
            events: None,
        }
    }

    /// The same, with streams to read, and what becomes of what cannot be read of them.
    pub(crate) fn with_streams(self, streams: Option<&'a Reassembly>, on_unread: OnError) -> Self {
        Cx { streams, on_unread, ..self }
    }

    /// The same for a stage in shadow mode, or not.
    pub(crate) fn in_shadow(self, shadow: bool) -> Self {
        Cx { shadow, ..self }
    }

    /// The same for the stage of that number, whose events go there.
    pub(crate) fn with_events(mut self, stage: u8, events: &'a mut Emitter) -> Self {
        self.events = Some((stage, events));
        self
    }

    /// Does anybody want events of this type? Whoever would have to allocate for one asks first.
    #[inline(always)]
    pub fn wants(&self, kind: Type) -> bool {
        self.events.as_ref().is_some_and(|(_, events)| events.wants(kind))
    }

    /// Tells of something about a packet: an [`crate::event::Alert`], an anomaly, what a protocol said. Never waits, and allocates nothing;
    /// what finds no room is counted and gone. `meta` and `inner` are the packet's ([`Packet::meta`], [`Batch::meta`]): the record gets its ends,
    /// flow, tenant and direction from them, and the time of the poll.
    #[inline(always)]
    pub fn emit(&mut self, meta: &Meta, inner: &[u8], body: impl Into<Body>) {
        let (now, worker) = (self.now, self.worker);
        if let Some((stage, events)) = &mut self.events {
            let (stage, mut body) = (*stage, body.into());
            if let (true, Body::Alert(alert)) = (self.shadow, &mut body) {
                alert.blocked = false;
            }
            let spoken = self.spoken.unwrap_or(meta.spoken);
            events.emit(now, || About::packet(meta, inner, worker).by(stage).speaking(spoken), body);
        }
    }

    /// For an [`Inspect`]: it is done with the flow of the packet at hand. The verdict that it is about to give holds for the flow, as
    /// the head of this module says. A [`Stage`] has [`Batch::settle`] instead.
    #[inline(always)]
    pub fn settle(&mut self) {
        self.settling = true;
    }

    /// What the flow of the packet at hand speaks: its entry remembers it, stages behind find it in [`Meta::spoken`], and records have it from
    /// now on. A [`Stage`] has [`Batch::name`] instead.
    #[inline(always)]
    pub fn speaks(&mut self, spoken: Spoken) {
        self.spoken = Some(spoken);
    }

    /// The verdict on what a stage that reads streams cannot read, as the `on_unread` of its table says: a drop, or [`Verdict::Next`].
    pub fn unread(&self) -> Verdict {
        match self.on_unread {
            OnError::Drop => Verdict::Drop(crate::packet::DropReason::StreamUnread.into()),
            OnError::Pass => Verdict::Next,
        }
    }

    /// The id of the stage's `n`-th declared reason.
    #[inline(always)]
    pub fn reason(&self, n: usize) -> ReasonId {
        // A kind that asks for a reason it did not declare is a mistake in the stage; the policy still holds.
        self.reasons.get(n).copied().unwrap_or(crate::packet::DropReason::StagePanic.into())
    }
}

/// One running stage on one worker: it sees the batch and decides on its open slots.
pub trait Stage: Send {
    /// Looks at the open slots of the batch and decides ([`Batch::decide`], [`Batch::forward`]).
    ///
    /// Runs on the packet path: it must not block, and for passthrough, acl and settled flows must not allocate.
    fn run(&mut self, batch: &mut Batch, cx: &mut Cx<'_>);

    /// Called when a poll found nothing to do: housekeeping in small steps.
    fn idle(&mut self, _cx: &mut Cx<'_>) {}

    /// The worker stops: no more packets will come.
    fn stop(&mut self, _cx: &mut Cx<'_>) {}
}

/// One packet, one verdict: what most authors write. [`PerPacket`] makes a [`Stage`] of it.
pub trait Inspect: Send {
    /// Decides on one packet.
    fn inspect(&mut self, packet: &mut Packet<'_>, cx: &mut Cx<'_>) -> Verdict;
}

/// Runs an [`Inspect`] over every open packet of the batch.
#[derive(Debug)]
pub struct PerPacket<I>(pub I);

impl<I: Inspect> Stage for PerPacket<I> {
    fn run(&mut self, batch: &mut Batch, cx: &mut Cx<'_>) {
        for slot in batch.open() {
            if let Some(mut packet) = batch.packet(slot) {
                let verdict = self.0.inspect(&mut packet, cx);
                batch.decide(slot, verdict);
                if std::mem::take(&mut cx.settling) {
                    batch.settle(slot);
                }
                if let Some(spoken) = cx.spoken.take() {
                    batch.name(slot, spoken);
                }
            }
        }
    }
}

/// Settings of one stage of a plan: read, checked, not yet built.
pub trait Parsed: Send + Sync + fmt::Debug {
    /// Bytes of EAL memory that [`Self::build`] may need at most; 0 if it needs none.
    fn eal_memory(&self) -> u64 {
        0
    }

    /// Needs flows: where no stage does, `flow.tracking = "auto"` leaves the table out.
    fn wants_flows(&self) -> bool {
        false
    }

    /// Reads TCP streams ([`StreamInspect`]): they are put in order for it, which takes flows.
    fn wants_streams(&self) -> bool {
        false
    }

    /// Has to see all of a connection: wherever such a stage reads, `stream.depth_kb` bounds nothing.
    fn reads_whole_streams(&self) -> bool {
        false
    }

    /// Can decide on a flow by any packet of it. After a reload that changed the stage, flows ask it again then; of one that has to see a flow
    /// from its beginning, what it said of older flows holds. `on_reload` in its table says otherwise.
    fn judges_any_packet(&self) -> bool {
        !self.wants_streams()
    }

    /// Decides by what a flow speaks ([`Meta::spoken`]), which is remembered with it: after a reload that changed the stage, flows of which that is
    /// known are asked again where others go on as they were.
    fn judges_by_app(&self) -> bool {
        false
    }

    /// Decides on each datagram of a flow by itself, even if it has to see a TCP connection from its beginning: after a reload that changed the stage,
    /// flows other than TCP are asked again where connections go on as they were.
    fn judges_each_datagram(&self) -> bool {
        false
    }

    /// Bytes that a running stage keeps of each flow ([`PerFlow::BYTES`]); 0 if it keeps nothing.
    fn flow_state_bytes(&self) -> u64 {
        0
    }

    /// Decides once for a flow and is done with it then ([`Cx::settle`]): `flow.pickup = "allow"` takes its answer for given, and it is not shown
    /// connections from before. Stages that do not say so are shown them like any other, and decide.
    fn settles(&self) -> bool {
        false
    }

    /// Drops what it has no rule for: where packets pass it by, `check` says so.
    fn denies_by_default(&self) -> bool {
        false
    }

    /// Sends packets home that the stages behind it might have dropped: `check` says so where one of those denies by default.
    fn passes_by(&self) -> bool {
        false
    }

    /// What `check` should warn of, one sentence each (shadowed rules, duplicates, ...).
    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }

    /// Does the heavy work. Runs on a management thread; may take seconds.
    fn build(&self, backend: Backend) -> Result<Arc<dyn Shared>, crate::dpdk::Error>;
}

/// What heavy parts are built on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// Plain Rust: slow and obviously right.
    Soft,
    /// DPDK's libraries; the EAL must be up.
    Eal,
}

/// What a stage is told of the worker it is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Make {
    /// The worker.
    pub worker: WorkerId,
    /// Entries of its flow table; 0 where flows are not tracked.
    pub flows: usize,
}

/// The heavy, read-only part of a stage: one per plan, shared by all workers.
pub trait Shared: Send + Sync {
    /// An instance for one worker: light, but for what it keeps of each flow.
    fn make(&self, make: &Make) -> Box<dyn Stage>;

    /// What `check` and the final table print: name and value, in reading order.
    fn report(&self) -> Vec<(String, String)> {
        Vec::new()
    }

    /// What the stage's rules are called in records: an [`crate::event::Alert`] names its rule by the place in this list.
    fn signatures(&self) -> Vec<Signature> {
        Vec::new()
    }

    /// What the stage would say of the first packet of a flow between these ends, if they are all that it goes by.
    fn judge(&self, _ends: &Tuple) -> Option<Judged> {
        None
    }

    /// Counters over all workers: label (for example a rule) and hits.
    fn counts(&self) -> Vec<(String, u64)> {
        Vec::new()
    }

    /// Those of [`Self::counts`] that are published as `sluicegate_stage_counts_total`, once a second: all, unless a stage has very many.
    fn exported_counts(&self) -> Vec<(String, u64)> {
        self.counts()
    }

    /// Rules whose hits are published as `sluicegate_rule_hits_total`: those of which the user wants that.
    fn exported_rules(&self) -> Vec<(String, u64)> {
        Vec::new()
    }
}

/// What a stage would say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    /// One word: allow, deny, ...
    pub verdict: String,
    /// The rule that decides, as [`Shared::counts`] calls it.
    pub rule: Option<String>,
    /// What else was met on the way, likewise.
    pub also: Vec<String>,
}

/// What reading a stage's settings gives: the settings, or every mistake in them.
pub type ParseResult = Result<Box<dyn Parsed>, Vec<Problem>>;

/// A kind of stage: what a user can name in `use = "..."`.
#[derive(Clone, Copy)]
pub struct StageKind {
    /// The word in `use = "..."`.
    pub name: &'static str,
    /// One line.
    pub summary: &'static str,
    /// Every setting with type, default and meaning, for `sluicegate stages NAME`.
    pub help: &'static str,
    /// TOML of a `[[stage]]` that works as it is (without outside files).
    pub example: &'static str,
    /// Drop reasons: name and what it means.
    pub reasons: &'static [(&'static str, &'static str)],
    /// Reads and checks the settings.
    pub parse: fn(&Settings<'_>) -> ParseResult,
}

impl fmt::Debug for StageKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StageKind({})", self.name)
    }
}
