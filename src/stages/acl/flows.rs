//! Who asks the rules: each flow once, packets without a flow each for itself.
//!
//! The first packet of a flow in a batch asks for it, in the orientation of whoever opened the flow, and the verdict is settled. Others
//! of its flow in the same batch follow it: had they come a batch later, they would not have been shown. What cannot ask for its flow
//! follows too, or asks for itself alone and settles nothing, if nobody has asked:
//!
//! - a later fragment, which shows no ports;
//! - an ICMP error, which is judged by its own header then, not by what it quotes;
//! - ICMP that is not an echo with an identifier: without one, messages of every type are one flow, and rules look at types.
//!
//! # The other orientation
//!
//! Who opened a flow is a guess if its first packet is not the first there ever was: TCP picked up in the middle, and whatever else was
//! there before we were. So a flow that is denied asks once more, in reverse. What counts is a rule that allows the reverse and would
//! not have matched the other way round: that rule speaks of connections which the other side opens. A default that allows, or a rule
//! that matches both ways, says nothing of who opened it, and leaves the rule that denied in force.
//!
//! | denied, but allowed in reverse | |
//! |---|---|
//! | TCP that was picked up | allowed, and turned: the other side opened it |
//! | a packet of the other side that may open a flow (no TCP, or a SYN) | the same |
//! | anything else | this packet is dropped; nothing is settled, so that the other side can still open the flow |

use crate::dpdk::BURST;
use crate::packet::{Batch, FlowFlags, FlowSlot, InnerFlags, Mask, Meta, Verdict};
use crate::wire::transport::TCP;

/// Places for the packets that ask for their flows: a power of two, twice as many as there can be.
const PLACES: usize = 2 * BURST;
/// A place that is free.
const FREE: u8 = u8::MAX;
const SYN: u8 = 0x02;
/// FIN, SYN, RST, ACK.
const OPENING: u8 = 0x17;

/// How the packets of a batch ask.
#[derive(Debug)]
pub struct Asking {
    /// Slots that ask for their flows, by a hash of the flow.
    places: [u8; PLACES],
    /// For a slot that follows: the slot that asks.
    leaders: [u8; BURST],
    alone: Mask,
    for_flow: Mask,
    following: Mask,
}

/// What a flow does that is denied in its own orientation and allowed in the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reverse {
    /// It is allowed, and the other side opened it.
    Turn,
    /// Nothing is settled.
    Leave,
}

impl Default for Asking {
    fn default() -> Self {
        let none = Mask::NONE;
        Asking { places: [FREE; PLACES], leaders: [0; BURST], alone: none, for_flow: none, following: none }
    }
}

impl Asking {
    /// Sorts the open packets. Not stateful: each asks for itself.
    #[inline(always)]
    pub fn sort(&mut self, batch: &Batch, stateful: bool) {
        (self.alone, self.for_flow, self.following) = (batch.open(), Mask::NONE, Mask::NONE);
        if stateful {
            self.gather(batch);
        }
    }

    fn gather(&mut self, batch: &Batch) {
        self.places = [FREE; PLACES];
        let mut silent = Mask::NONE;
        for slot in batch.open() {
            let meta = batch.meta(slot);
            if meta.flow == FlowSlot::NONE {
                continue;
            }
            if !speaks_for_flow(meta) {
                silent.insert(slot);
                continue;
            }
            self.alone.remove(slot);
            match self.leader(batch, slot, true) {
                Some(leader) => self.follow(slot, leader),
                None => self.for_flow.insert(slot),
            }
        }
        for slot in silent {
            if let Some(leader) = self.leader(batch, slot, false) {
                self.alone.remove(slot);
                self.follow(slot, leader);
            }
        }
    }

    /// The slot that asks for the flow of this one. There is none yet: this one asks, if it may.
    #[inline(always)]
    fn leader(&mut self, batch: &Batch, slot: usize, may_ask: bool) -> Option<usize> {
        let meta = batch.meta(slot);
        // Fibonacci hashing: neighbours in the table are far from each other here.
        let start = (meta.flow.entry()?.wrapping_mul(0x9e37_79b9) >> 25) as usize;
        for place in start..start + PLACES {
            let place = self.places.get_mut(place % PLACES)?;
            if *place == FREE {
                if may_ask {
                    *place = slot as u8;
                }
                return None;
            }
            let other = batch.meta((*place).into());
            if (other.flow, other.incarnation) == (meta.flow, meta.incarnation) {
                return Some((*place).into());
            }
        }
        None
    }

    #[inline(always)]
    fn follow(&mut self, slot: usize, leader: usize) {
        if let Some(place) = self.leaders.get_mut(slot) {
            *place = leader as u8;
            self.following.insert(slot);
        }
    }

    /// Slots that ask.
    #[inline(always)]
    pub fn asking(&self) -> Mask {
        self.alone | self.for_flow
    }

    /// Slots that ask for their flows.
    #[inline(always)]
    pub fn for_flow(&self) -> Mask {
        self.for_flow
    }

    /// Does the slot ask as if the packet travelled the other way?
    #[inline(always)]
    pub fn turns_round(&self, batch: &Batch, slot: usize) -> bool {
        self.for_flow.has(slot) && batch.meta(slot).is_reply()
    }

    /// Carries out the verdict on a slot that asked.
    #[inline(always)]
    pub fn answer(&self, batch: &mut Batch, slot: usize, verdict: Verdict, reverse: Option<Reverse>) {
        batch.decide(slot, verdict);
        if self.for_flow.has(slot) && reverse != Some(Reverse::Leave) {
            batch.settle(slot);
            if reverse == Some(Reverse::Turn) {
                batch.turn(slot);
            }
        }
    }

    /// The others share the fate of those that asked. Who was rejected has been told once.
    #[inline(always)]
    pub fn follow_up(&self, batch: &mut Batch) {
        for slot in self.following {
            let leader = usize::from(self.leaders.get(slot).copied().unwrap_or_default());
            if !batch.live().has(leader) {
                batch.decide(slot, Verdict::Drop(batch.reason(leader)));
            }
        }
    }
}

/// Does the packet show all that rules look at in its flow?
#[inline(always)]
fn speaks_for_flow(meta: &Meta) -> bool {
    if meta.flow_flags.has(FlowFlags::RELATED) || meta.flags.has(InnerFlags::LATER_FRAGMENT) {
        return false;
    }
    // The identifier of an echo, 0 for all other types.
    !meta.flags.has(InnerFlags::ICMP) || meta.destination_port != 0
}

/// What becomes of a packet that asked for its flow, which is denied but allowed in reverse.
pub fn reverse(meta: &Meta) -> Reverse {
    let opens = meta.protocol != TCP || meta.tcp_flags & OPENING == SYN;
    match meta.flow_flags.has(FlowFlags::PICKED_UP) || (meta.is_reply() && opens) {
        true => Reverse::Turn,
        false => Reverse::Leave,
    }
}

/// The ICMP type that answers this one, of echoes; any other type is its own.
#[inline(always)]
pub fn answering_type(protocol: u8, icmp_type: u8) -> u8 {
    match (protocol, icmp_type) {
        (1, 0) => 8,
        (1, 8) => 0,
        (58, 128) => 129,
        (58, 129) => 128,
        _ => icmp_type,
    }
}
