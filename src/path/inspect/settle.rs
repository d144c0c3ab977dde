//! What stages settle, between a batch and its flows.
//!
//! Bit n of a flow's mask stands for the n-th stage: it is done with the flow. A batch comes with the masks as track found them;
//! bits that stages set now go to the flows and meet the next batch. After a reload, track has refitted the masks before they come here
//! (`crate::flow::refit`).

use std::ops::Range;

use crate::flow::Flows;
use crate::flow::refit::Refit;
use crate::packet::{Batch, FlowFlags, FlowSlot, Mask, Meta, ReasonId, Spoken};

/// What the flow engine hears.
pub(in crate::path) trait Settle {
    /// Is the packet's flow still there? A later packet of its batch may have ended it and taken its place.
    fn holds(&self, meta: &Meta) -> bool;

    /// These stages are done with the flow, beside those that already were.
    fn settle(&mut self, flow: FlowSlot, stages: u16);

    /// The stage of that number sends the flow home: its own bit and those of all behind it.
    fn forward(&mut self, flow: FlowSlot, stages: u16, by: usize);

    /// Packets of the flow are dropped from now on, and rejected if this one was.
    fn condemn(&mut self, flow: FlowSlot, reason: ReasonId, reject: bool);

    /// The other side opened the flow.
    fn turn(&mut self, flow: FlowSlot);

    /// What the flow speaks.
    fn name(&mut self, flow: FlowSlot, spoken: Spoken);

    /// Is the packet's flow a TCP connection that was reset?
    fn is_reset(&self, meta: &Meta) -> bool;

    /// Stages of another pipeline that would be done with the packet's flow after this refit, and whether it would be dropped.
    fn refitted(&self, refit: &Refit, meta: &Meta) -> (u16, bool);
}

impl Settle for Flows {
    #[inline(always)]
    fn holds(&self, meta: &Meta) -> bool {
        Flows::holds(self, meta)
    }

    #[inline(always)]
    fn settle(&mut self, flow: FlowSlot, stages: u16) {
        Flows::settle(self, flow, stages);
    }

    fn forward(&mut self, flow: FlowSlot, stages: u16, by: usize) {
        Flows::forward(self, flow, stages, Some(by));
    }

    fn condemn(&mut self, flow: FlowSlot, reason: ReasonId, reject: bool) {
        Flows::condemn(self, flow, reason, reject);
    }

    fn turn(&mut self, flow: FlowSlot) {
        Flows::turn(self, flow);
    }

    fn name(&mut self, flow: FlowSlot, spoken: Spoken) {
        Flows::name(self, flow, spoken);
    }

    fn is_reset(&self, meta: &Meta) -> bool {
        Flows::is_reset(self, meta)
    }

    fn refitted(&self, refit: &Refit, meta: &Meta) -> (u16, bool) {
        Flows::refitted(self, refit, meta)
    }
}

/// Open slots with whose flow at least one stage is done.
#[inline(always)]
pub(super) fn settled(batch: &Batch) -> Mask {
    let mut settled = Mask::NONE;
    for slot in batch.open() {
        settled = settled | Mask(u64::from(batch.meta(slot).settled != 0) << slot);
    }
    settled
}

/// Hides from the n-th stage what it has settled; returns what is hidden.
#[inline(never)]
pub(super) fn hide(batch: &mut Batch, settled: Mask, n: usize) -> Mask {
    let mine_alone = bits(n + 1) & !bits(n);
    let mut mine = Mask::NONE;
    for slot in settled & batch.open() {
        mine = mine | Mask(u64::from(batch.meta(slot).settled & mine_alone != 0) << slot);
    }
    batch.hide(mine)
}

/// Writes to the flows what the first of these stages said of slots that it was shown.
#[inline(never)]
pub(super) fn write(
    batch: &mut Batch,
    flows: &mut impl Settle,
    stages: Range<usize>,
    settling: Mask,
    turning: Mask,
) {
    turn(batch, flows, turning);
    let from = |end| bits(end) & !bits(stages.start);
    let (this, all) = (from(stages.start + 1), from(stages.end));
    for slot in settling {
        let Some(flow) = own_flow(batch, flows, slot) else { continue };
        if batch.open().has(slot) {
            flows.settle(flow, this);
        } else if batch.live().has(slot) {
            flows.forward(flow, all, stages.start);
        } else {
            flows.condemn(flow, batch.reason(slot), batch.rejected().has(slot));
        }
    }
}

/// Each flow once, however many of its packets say so, and all of its packets in the batch know.
fn turn(batch: &mut Batch, flows: &mut impl Settle, mut turning: Mask) {
    while let Some(slot) = turning.iter().next() {
        turning.remove(slot);
        let Some(flow) = own_flow(batch, flows, slot) else { continue };
        let incarnation = batch.meta(slot).incarnation;
        flows.turn(flow);
        for other in Mask::first(batch.len()) {
            if let Some(meta) = batch.meta_mut(other)
                && (meta.flow, meta.incarnation) == (flow, incarnation)
            {
                meta.flow_flags.0 ^= FlowFlags::REPLY;
                turning.remove(other);
            }
        }
    }
}

/// Writes to the flows what they speak; all of their packets in the batch know.
#[inline(never)]
pub(super) fn name(batch: &mut Batch, flows: &mut impl Settle, naming: Mask) {
    for slot in naming {
        let Some(flow) = own_flow(batch, flows, slot) else { continue };
        let (incarnation, spoken) = (batch.meta(slot).incarnation, batch.meta(slot).spoken);
        flows.name(flow, spoken);
        for other in Mask::first(batch.len()) {
            if let Some(meta) = batch.meta_mut(other)
                && (meta.flow, meta.incarnation) == (flow, incarnation)
            {
                meta.spoken = spoken;
            }
        }
    }
}

/// The flow of a packet that can speak for it.
#[inline(always)]
fn own_flow(batch: &Batch, flows: &impl Settle, slot: usize) -> Option<FlowSlot> {
    let meta = batch.meta(slot);
    let speaks = meta.flow != FlowSlot::NONE && !meta.flow_flags.has(FlowFlags::RELATED);
    (speaks && flows.holds(meta)).then_some(meta.flow)
}

/// The bits of the first `n` stages.
fn bits(n: usize) -> u16 {
    u16::MAX.checked_shr(u16::BITS.saturating_sub(n as u32)).unwrap_or(0)
}
