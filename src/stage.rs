//! The contract between the framework and inspection stages. **Unstable** until an out-of-tree stage has used it.
//!
//! A stage lives three times. *Parsed*: its settings, read and checked, cheap. *Shared*: what is heavy and read-only
//! (rule sets, pattern databases), built once per plan, off the packet path. *Running*: one light instance per worker.
//!
//! ```text
//! TOML table --StageKind::parse--> Parsed --build--> Shared --make(worker)--> Stage --run(batch)--> verdicts
//! ```
//!
//! A stage is one file under `stages/` with: module doc with a TOML example (a test parses it), settings, the stage,
//! `KIND`, tests. It is listed in [`crate::stages::ALL`].

use std::fmt;
use std::sync::Arc;

use crate::config::{Problem, Settings};
use crate::packet::{Batch, Packet, ReasonId, Verdict};

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
    pub(crate) reasons: &'a [ReasonId],
}

impl Cx<'_> {
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

/// The heavy, read-only part of a stage: one per plan, shared by all workers.
pub trait Shared: Send + Sync {
    /// A light instance for one worker.
    fn make(&self, worker: WorkerId) -> Box<dyn Stage>;

    /// What `check` and the final table print: name and value, in reading order.
    fn report(&self) -> Vec<(String, String)> {
        Vec::new()
    }

    /// Counters over all workers: label (for example a rule) and packets.
    fn counts(&self) -> Vec<(String, u64)> {
        Vec::new()
    }
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
