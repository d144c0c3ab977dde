//! What is said of flows: that one began, that one ended, and how.
//!
//! A worker writes into a bounded ring of its own and never waits: what finds no room is counted (`events_lost`). Who reads makes
//! JSON of it (`crate::event`), or whatever is wanted, on a thread of its own.

use super::{Key, Tuple};
use crate::packet::{ReasonId, Spoken};
use crate::stage::WorkerId;

/// Why a flow ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// Nothing came for too long.
    Idle,
    /// TCP: both sides finished.
    Closed,
    /// TCP: a RST.
    Reset,
    /// Its tuple was taken into use by a new flow.
    Replaced,
    /// Unanswered, it made room for another.
    Evicted,
    /// By command.
    Flushed,
    /// Its worker hung, and others took over.
    TakenOver,
    /// The program stopped.
    Stopped,
}

impl End {
    /// The word.
    pub const fn word(self) -> &'static str {
        match self {
            End::Idle => "idle",
            End::Closed => "closed",
            End::Reset => "reset",
            End::Replaced => "replaced",
            End::Evicted => "evicted",
            End::Flushed => "flushed",
            End::TakenOver => "taken-over",
            End::Stopped => "stopped",
        }
    }
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A flow began.
    Start,
    /// A flow ended.
    End(End),
}

/// A flow began or ended.
#[derive(Clone, Copy, Debug)]
pub struct FlowEvent {
    /// What happened.
    pub what: What,
    /// The worker that owns it.
    pub worker: WorkerId,
    /// Milliseconds of the worker's clock, wrapping.
    pub at: u32,
    /// When it began, on the same clock.
    pub began: u32,
    /// When its last packet came.
    pub seen: u32,
    /// Which flow.
    pub key: Key,
    /// Its entry, and the entry's version: the same when it begins and when it ends, others for every other flow of the worker.
    pub place: (u32, u32),
    /// The higher end of the key opened it.
    pub from_high: bool,
    /// A TCP connection that was there before we were: who opened it is a guess.
    pub picked_up: bool,
    /// State, as a word.
    pub state: &'static str,
    /// Number of the tenant.
    pub tenant: u16,
    /// Stages that are done with it, a bit each.
    pub settled: u16,
    /// Why a stage drops it, if one does.
    pub condemned: Option<ReasonId>,
    /// What it speaks, if a stage has found that out.
    pub spoken: Spoken,
    /// Packets and bytes of the originator, then of the responder.
    pub counts: [(u64, u64); 2],
}

impl FlowEvent {
    /// A number for the flow: the same when it begins, lives and ends, and no other flow's for a long time.
    pub fn flow_id(&self) -> u64 {
        flow_id(self.worker, self.place)
    }

    /// The ends, as the originator sees them.
    pub fn tuple(&self) -> Tuple {
        self.key.tuple(self.from_high)
    }
}

/// Of worker, entry and version, in 53 bits, so that who reads numbers as floating point gets it right.
pub(crate) fn flow_id(worker: WorkerId, (entry, version): (u32, u32)) -> u64 {
    u64::from(worker.0 & 0xff) << 45
        | u64::from(entry & 0x03ff_ffff) << 19
        | u64::from(version >> 1) & 0x7_ffff
}
