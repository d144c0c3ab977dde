//! The frames of one poll. Slots keep their frame until tx; what is decided is a bit per slot.

use super::{DropReason, Mask, Meta, Packet, ReasonId, Spoken, Verdict, View};
use crate::dpdk::{BURST, Burst, Mbuf};

/// No stage has said which rule decided.
pub(crate) const NO_RULE: u32 = u32::MAX;

/// Which rule decided, by slot.
pub(crate) type Rules = [u32; BURST];

/// At most [`BURST`] frames with their facts and fates.
///
/// Every slot that holds a frame is exactly one of *live* (goes home), *punted* (for the host stack) or *dropped* (has
/// a reason). *Open* slots are the live ones that stages still look at.
#[derive(Debug)]
pub struct Batch {
    /// The frames, one per slot.
    pub(crate) frames: Burst,
    meta: [Meta; BURST],
    reasons: [ReasonId; BURST],
    live: Mask,
    open: Mask,
    punted: Mask,
    edited: Mask,
    rejected: Mask,
    away: Mask,
    held: Mask,
    settling: Mask,
    turning: Mask,
    /// Slots of whose flow a stage has found out what it speaks.
    naming: Mask,
    holding: Mask,
    /// Packets cannot be changed.
    sealed: bool,
    /// Of all frames, as they came.
    bytes: u64,
    /// There if somebody wants to know.
    rules: Option<Box<Rules>>,
}

impl Batch {
    /// An empty batch. Large: make it once and keep it. Not for stages: one that could put another batch in the place of
    /// its own would take frames out of the ledger.
    pub(crate) fn new() -> Self {
        Batch {
            frames: Burst::new(),
            meta: [Meta::default(); BURST],
            reasons: [ReasonId(0); BURST],
            live: Mask::NONE,
            open: Mask::NONE,
            punted: Mask::NONE,
            edited: Mask::NONE,
            rejected: Mask::NONE,
            away: Mask::NONE,
            held: Mask::NONE,
            settling: Mask::NONE,
            turning: Mask::NONE,
            naming: Mask::NONE,
            holding: Mask::NONE,
            sealed: false,
            bytes: 0,
            rules: None,
        }
    }

    /// Notes how many bytes the frames in [`Self::frames`] have, where they did not come by [`Self::put`].
    #[inline(always)]
    pub(crate) fn weigh(&mut self, bytes: u64) {
        self.bytes = bytes;
    }

    /// Declares every frame in [`Self::frames`] live and open.
    #[inline(always)]
    pub(crate) fn begin(&mut self) {
        self.live = Mask::first(self.frames.len());
        self.open = self.live;
        self.punted = Mask::NONE;
        self.edited = Mask::NONE;
        self.rejected = Mask::NONE;
        self.away = Mask::NONE;
        self.held = Mask::NONE;
        self.settling = Mask::NONE;
        self.turning = Mask::NONE;
        self.naming = Mask::NONE;
        self.holding = Mask::NONE;
    }

    /// Adds a frame whose facts are known already to a batch that holds nothing else; [`Self::begin`] follows. Gives it back
    /// if there is no room.
    #[inline(always)]
    pub(crate) fn put(&mut self, frame: Mbuf, meta: Meta) -> Result<(), Mbuf> {
        let (slot, bytes) = (self.frames.len(), frame.len() as u64);
        self.frames.push(frame)?;
        self.meta[slot & (BURST - 1)] = meta;
        self.bytes = bytes + if slot == 0 { 0 } else { self.bytes };
        Ok(())
    }

    /// Slots in use.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// True without frames.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Slots that go home as things stand.
    #[inline(always)]
    pub fn live(&self) -> Mask {
        self.live
    }

    /// Slots that stages still look at.
    #[inline(always)]
    pub fn open(&self) -> Mask {
        self.open
    }

    /// Slots for the host stack.
    #[inline(always)]
    pub fn punted(&self) -> Mask {
        self.punted
    }

    /// Slots whose inner packet a stage changed.
    #[inline(always)]
    pub fn edited(&self) -> Mask {
        self.edited
    }

    /// Dropped slots whose ends are to be told.
    #[inline(always)]
    pub(crate) fn rejected(&self) -> Mask {
        self.rejected
    }

    /// The stage at work is done with the flow of this slot: it will not be shown that flow's packets again. What it decides on this
    /// packet, in this call, holds for the flow: [`Verdict::Next`] and [`Verdict::Forward`] let later packets pass, a drop drops them
    /// all. On a packet without a flow it does nothing, nor on an ICMP error: what becomes of that is not said of the flow.
    ///
    /// Other packets of the flow in the same batch were shown as well, and each has its own verdict.
    #[inline(always)]
    pub fn settle(&mut self, slot: usize) {
        self.settling.insert(slot);
    }

    /// The flow of this slot was opened by the other side: what counted as a reply is none, and the other way round. For stages that
    /// know better than the order of arrival. On a packet without a flow it does nothing, nor on an ICMP error.
    #[inline(always)]
    pub fn turn(&mut self, slot: usize) {
        self.turning.insert(slot);
    }

    /// The flow of a packet speaks this: stages behind learn it with the packet, and everybody from its entry later on.
    #[inline(always)]
    pub fn name(&mut self, slot: usize, spoken: Spoken) {
        if let Some(meta) = self.meta.get_mut(slot) {
            meta.spoken = spoken;
            self.naming.insert(slot);
        }
    }

    /// Whoever wants to know which rules decide gives the place for it; what was there comes back.
    pub(crate) fn swap_rules(&mut self, rules: &mut Option<Box<Rules>>) {
        std::mem::swap(&mut self.rules, rules);
    }

    /// No rule has decided.
    pub(crate) fn forget_rules(&mut self) {
        if let Some(rules) = &mut self.rules {
            rules.fill(NO_RULE);
        }
    }

    /// Does anybody want to know which rules decide? Then [`Self::note_rule`] says so.
    #[inline(always)]
    pub(crate) fn asks_for_rules(&self) -> bool {
        self.rules.is_some()
    }

    /// This rule of the stage at work has decided on a slot: its place among [`crate::stage::Shared::signatures`]; behind them the default.
    #[inline(always)]
    pub(crate) fn note_rule(&mut self, slot: usize, rule: usize) {
        if let Some(place) = self.rules.as_mut().and_then(|rules| rules.get_mut(slot)) {
            *place = rule as u32;
        }
    }

    /// The last rule that was noted.
    pub(crate) fn rule(&self, slot: usize) -> u32 {
        self.rules.as_ref().and_then(|rules| rules.get(slot)).copied().unwrap_or(NO_RULE)
    }

    /// Slots settled, and slots whose flows were turned, since the last call.
    #[inline(always)]
    pub(crate) fn take_settling(&mut self) -> (Mask, Mask) {
        let used = Mask::first(self.frames.len());
        (std::mem::take(&mut self.settling) & used, std::mem::take(&mut self.turning) & used)
    }

    /// Slots that were named since the last time.
    #[inline(always)]
    pub(crate) fn take_naming(&mut self) -> Mask {
        std::mem::take(&mut self.naming) & Mask::first(self.frames.len())
    }

    /// Slots of which a stage said [`Verdict::Hold`] since the last call.
    #[inline(always)]
    pub(crate) fn take_holding(&mut self) -> Mask {
        std::mem::take(&mut self.holding)
    }

    /// Takes slots out of the open ones for a while; returns those that were open. [`Self::show`] ends the while.
    #[inline(always)]
    pub(crate) fn hide(&mut self, slots: Mask) -> Mask {
        let hidden = self.open & slots;
        self.open = self.open.without(hidden);
        hidden
    }

    /// While it is sealed, packets cannot be changed: who tries is told that it was done.
    pub(crate) fn seal(&mut self, sealed: bool) {
        self.sealed = sealed;
    }

    /// What was decided on slots that were open is undone, but for what was settled.
    pub(crate) fn take_back(&mut self, slots: Mask) {
        self.live = self.live | slots;
        self.open = self.open | slots;
        self.rejected = self.rejected.without(slots);
        (self.holding, self.turning) = (Mask::NONE, Mask::NONE);
    }

    /// Slots that were hidden are open again.
    #[inline(always)]
    pub(crate) fn show(&mut self, hidden: Mask) {
        self.open = self.open | hidden;
    }

    /// What is known of a slot, to be written.
    #[inline(always)]
    pub(crate) fn meta_mut(&mut self, slot: usize) -> Option<&mut Meta> {
        self.meta.get_mut(slot)
    }

    /// Bytes of all frames that go home.
    #[inline(always)]
    pub(crate) fn bytes_home(&self) -> u64 {
        if self.edited.is_empty() && self.live == Mask::first(self.frames.len()) {
            return self.bytes;
        }
        let frames = self.frames.as_slice().iter().enumerate();
        frames.filter(|(slot, _)| self.live.has(*slot)).map(|(_, frame)| frame.len() as u64).sum()
    }

    /// Slots that were dropped, each with a [`Self::reason`].
    #[inline(always)]
    pub fn dropped(&self) -> Mask {
        Mask::first(self.frames.len()).without(self.live | self.punted | self.away | self.held)
    }

    /// What is known of a slot; all zero for one that decap did not pass.
    #[inline(always)]
    pub fn meta(&self, slot: usize) -> &Meta {
        &self.meta[slot & (BURST - 1)]
    }

    /// Every slot's frame to read, its facts and its reason to write: what decap needs, in one pass.
    #[inline(always)]
    pub(crate) fn slots(&mut self) -> (&[Mbuf], &mut [Meta; BURST], &mut [ReasonId; BURST]) {
        (self.frames.as_slice(), &mut self.meta, &mut self.reasons)
    }

    /// What that pass found: slots for the host stack, and slots that have a reason now.
    #[inline(always)]
    pub(crate) fn leave(&mut self, punted: Mask, dropped: Mask) {
        self.live = self.live.without(punted | dropped);
        self.open = self.open.without(punted | dropped);
        self.punted = self.punted | punted;
    }

    /// Every slot's frame to write and its facts to read: what encap needs, in one pass.
    #[inline(always)]
    pub(crate) fn slots_mut(&mut self) -> (&mut [Mbuf], &[Meta; BURST]) {
        (self.frames.as_mut_slice(), &self.meta)
    }

    /// Slots that a hop dropped, each with a reason already, and those of them whose ends are to be told.
    pub(crate) fn lose(&mut self, dropped: Mask, rejected: Mask) {
        self.live = self.live.without(dropped);
        self.open = self.open.without(dropped);
        self.rejected = self.rejected | rejected;
    }

    /// Slots that another worker gets, and slots that wait.
    pub(crate) fn part(&mut self, away: Mask, held: Mask) {
        self.live = self.live.without(away | held);
        self.open = self.open.without(away | held);
        (self.away, self.held) = (away, held);
    }

    /// Slots for another worker.
    #[inline(always)]
    pub(crate) fn away(&self) -> Mask {
        self.away
    }

    /// A live slot waits from now on: encap has turned it around already.
    pub(crate) fn park(&mut self, slots: Mask) {
        self.live = self.live.without(slots);
        self.open = self.open.without(slots);
        self.held = self.held | slots;
    }

    /// Slots that wait: for their first fragment, or for a stage.
    #[inline(always)]
    pub(crate) fn held(&self) -> Mask {
        self.held
    }

    /// Why a slot was dropped; means nothing for other slots.
    #[inline(always)]
    pub fn reason(&self, slot: usize) -> ReasonId {
        self.reasons[slot & (BURST - 1)]
    }

    /// The frame of a slot, envelope included; empty for a slot that is not in use.
    #[inline(always)]
    pub fn frame(&self, slot: usize) -> &[u8] {
        self.frames.as_slice().get(slot).map_or(&[], |f| f.data())
    }

    /// The inner packet of a slot, as long as its IP header says; empty for a slot that decap did not pass.
    #[inline(always)]
    pub fn inner(&self, slot: usize) -> &[u8] {
        let m = self.meta(slot);
        self.frame(slot).get(m.inner as usize..m.inner as usize + m.inner_len as usize).unwrap_or(&[])
    }

    /// One packet, for looking at.
    #[inline(always)]
    pub fn view(&self, slot: usize) -> View<'_> {
        View::new(self.frame(slot), self.meta(slot))
    }

    /// One packet, for looking at and changing; `None` unless it is live.
    #[inline(always)]
    pub fn packet(&mut self, slot: usize) -> Option<Packet<'_>> {
        if !self.live.has(slot) {
            return None;
        }
        let frame = self.frames.as_mut_slice().get_mut(slot)?;
        let packet = Packet::new(frame, self.meta.get_mut(slot)?, &mut self.edited, slot);
        Some(if self.sealed { packet.sealed() } else { packet })
    }

    /// Carries out a verdict on an open slot. On any other slot it does nothing: the first decision stands.
    #[inline(always)]
    pub fn decide(&mut self, slot: usize, verdict: Verdict) {
        if !self.open.has(slot) {
            return;
        }
        match verdict {
            Verdict::Next => {}
            Verdict::Forward => self.open.remove(slot),
            Verdict::Drop(reason) => self.drop_slot(slot, reason),
            Verdict::Reject(reason) => {
                self.drop_slot(slot, reason);
                self.rejected.insert(slot);
            }
            Verdict::Hold => self.holding.insert(slot),
        }
    }

    /// The slots leave the pipeline and go home.
    #[inline(always)]
    pub fn forward(&mut self, slots: Mask) {
        self.open = self.open.without(slots);
    }

    #[inline(always)]
    pub(crate) fn drop_slot(&mut self, slot: usize, reason: impl Into<ReasonId>) {
        self.live.remove(slot);
        self.open.remove(slot);
        self.reasons[slot & (BURST - 1)] = reason.into();
    }

    pub(crate) fn drop_all(&mut self, slots: Mask, reason: DropReason) {
        for slot in slots & self.live {
            self.drop_slot(slot, reason);
        }
    }
}
