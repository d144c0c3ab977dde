//! What a packet does to its flow.

use super::engine::{Flows, Opening};
use super::event::End;
use super::line::{Entry, Life, Refresh};
use super::state::{self, FIRST, LASTING, ONE_WAY};
use super::tcp::{self, Segment, Step, Tracked, What, WindowCheck};
use super::{Envelope, Key};
use crate::packet::{FlowFlags, FlowSlot, InnerFlags, Meta};
use crate::wire::transport;

/// What became of a packet that has a flow.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Followed {
    /// Part of it.
    Passes,
    /// Part of a flow that is dropped, and rejected if that is set.
    Condemned { reject: bool },
    /// A TCP segment that is not part of it, and is not let through.
    Refused,
    /// It begins a new flow on the same tuple; the old one has ended.
    Begins { opening: Opening, from_high: bool },
}

impl Flows {
    /// A packet of the flow in entry `number`, which the caller has compared: whatever `carry_on` has left.
    pub(crate) fn follow(
        &mut self,
        number: u32,
        from_high: bool,
        meta: &mut Meta,
        frame: &[u8],
        check: WindowCheck,
    ) -> Followed {
        let now = self.now();
        let Some(entry) = self.entry(number) else { return Followed::Passes };
        let life = entry.life();
        let reply = from_high != life.has(Life::FROM_HIGH);
        let later = meta.flags.has(InnerFlags::LATER_FRAGMENT);
        let mut to = life.state();
        if let Some(state) = state::tcp(life.state())
            && !later
        {
            let mut segment = segment(meta, frame, reply);
            segment.new_cookie = entry.outer(reply).is_some_and(|outer| outer.cookie != meta.cookie);
            let mut tracked = Tracked::unpack(entry.tcp());
            let Step { state, what } = tcp::step(state, &mut tracked, &segment, check);
            match what {
                What::NewIncarnation { reversed, picked_up } => {
                    let opening = Opening::Tcp { state, tracked, picked_up };
                    let from_high = life.has(Life::FROM_HIGH) != reversed;
                    self.end(number, End::Replaced);
                    return Followed::Begins { opening, from_high };
                }
                What::OutOfWindow | What::BadReset | What::BadFlags => {
                    let bad = if what == What::BadReset {
                        &self.counters().bad_resets
                    } else {
                        &self.counters().out_of_window
                    };
                    bad.add(1);
                    if what.refused(check) {
                        // For whoever tells of it.
                        name(number, reply, life, meta);
                        place(entry, life, meta);
                        return Followed::Refused;
                    }
                }
                What::Normal | What::Retransmit | What::Stray => {}
            }
            entry.set_tcp(tracked.pack());
            to = state as u8;
        } else if reply && matches!(life.state(), FIRST | ONE_WAY) {
            to = LASTING;
        } else if life.state() == FIRST && now.wrapping_sub(entry.birth().created) >= state::ESTABLISHED_AFTER
        {
            to = ONE_WAY;
        }
        entry.set_life(life.at(now));
        entry.count(reply, meta.inner_len.into());
        // A later fragment has no ports by which the load balancer could know its flow: its envelope may be another one.
        if !later {
            let refresh = entry.refresh(reply, Envelope::of(meta));
            if refresh != Refresh::Same {
                self.refreshed(entry, refresh, reply, life);
            }
        }
        name(number, reply, life, meta);
        place(entry, life, meta);
        if to != life.state() {
            self.change_state(number, to);
        }
        judged(life)
    }

    /// One direction's envelope is another now, or was not known. If the flow was idle for longer than the load balancer remembers one, this
    /// is a new flow to it, and the other direction's envelope is one that it takes nothing back under.
    #[cold]
    fn refreshed(&self, entry: Entry<'_>, refresh: Refresh, reply: bool, before: Life) {
        self.counters().refreshed.add(u64::from(refresh == Refresh::Another));
        let idle = self.now().wrapping_sub(before.seen());
        // One that is the same both ways is not a new one.
        if idle >= self.timeouts.theirs(before.state()) && entry.outer(reply) != entry.outer(!reply) {
            entry.forget(!reply);
        }
    }

    /// The first packet of a flow that was just opened in entry `number`.
    pub(crate) fn begin_with(&mut self, number: u32, from_high: bool, meta: &mut Meta) {
        let Some(entry) = self.entry(number) else { return };
        let life = entry.life();
        // A SYN|ACK that was picked up is a reply from the start.
        let reply = from_high != life.has(Life::FROM_HIGH);
        entry.count(reply, meta.inner_len.into());
        entry.refresh(reply, Envelope::of(meta));
        name(number, reply, life, meta);
        place(entry, life, meta);
        meta.flow_flags.0 |= FlowFlags::NEW;
    }

    /// An ICMP error about a packet of the flow in entry `number`. It changes nothing.
    pub(crate) fn relate(&mut self, number: u32, from_high: bool, meta: &mut Meta) -> Followed {
        let Some(entry) = self.entry(number) else { return Followed::Passes };
        let life = entry.life();
        name(number, from_high != life.has(Life::FROM_HIGH), life, meta);
        place(entry, life, meta);
        meta.flow_flags.0 |= FlowFlags::RELATED;
        self.counters().related.add(1);
        judged(life)
    }

    /// How a flow begins with this packet; `None` for a TCP segment that begins none and belongs to none.
    pub(crate) fn opening(key: &Key, meta: &Meta, frame: &[u8]) -> Option<Opening> {
        if key.protocol() != transport::TCP {
            return Some(Opening::Other);
        }
        let mut segment = segment(meta, frame, false);
        if let Some((state, tracked)) = tcp::open(&segment) {
            return Some(Opening::Tcp { state, tracked, picked_up: false });
        }
        // What it ends is not here, and to remember it would let anybody fill the table.
        if segment.flags & crate::wire::tcp::RST != 0 {
            return None;
        }
        segment.reply = is_answer(meta);
        let (state, tracked) = tcp::pick_up(&segment)?;
        Some(Opening::Tcp { state, tracked, picked_up: true })
    }

    /// The number that the receiver of a packet of this flow expects next. `None` for one that nobody else has seen a packet of: a
    /// rejected SYN never got there.
    pub(crate) fn expected(&self, flow: FlowSlot, reply: bool) -> Option<u32> {
        let entry = self.entry(flow.entry()?)?;
        let state = state::tcp(entry.life().state())?;
        if matches!(state, tcp::State::SynSent | tcp::State::PickedUp) {
            return None;
        }
        Some(Tracked::unpack(entry.tcp()).expected(reply))
    }
}

#[inline(always)]
fn judged(life: Life) -> Followed {
    if life.has(Life::CONDEMNED) {
        Followed::Condemned { reject: life.has(Life::REJECTED) }
    } else {
        Followed::Passes
    }
}

/// A SYN|ACK: who receives it opened the connection.
pub(crate) fn is_answer(meta: &Meta) -> bool {
    use crate::wire::tcp::{ACK, SYN};
    meta.tcp_flags & (SYN | ACK) == SYN | ACK
}

/// The numbers of an established connection, moved by a segment in one piece; `None` if it is more than that.
#[inline(always)]
pub(super) fn quick(words: [u64; 3], reply: bool, meta: &Meta, frame: &[u8]) -> Option<[u64; 3]> {
    // Sender first, whoever that is: turning three words costs less than choosing between the sides of each number.
    let mut tracked = Tracked::unpack(turned_if(reply, words));
    tcp::quick(&mut tracked, &segment(meta, frame, false))?;
    Some(turned_if(reply, tracked.pack()))
}

#[inline(always)]
fn turned_if(reply: bool, [a, b, rest]: [u64; 3]) -> [u64; 3] {
    if reply { [b, a, rest.rotate_left(32)] } else { [a, b, rest] }
}

#[inline(always)]
fn segment(meta: &Meta, frame: &[u8], reply: bool) -> Segment {
    let start = usize::from(meta.transport);
    let transport = frame.get(start..start + usize::from(meta.transport_len)).unwrap_or(&[]);
    let partial = meta.flags.has(InnerFlags::FIRST_FRAGMENT);
    Segment { partial, ..Segment::read(transport, reply) }
}

/// Writes down where the packet belongs.
#[inline(always)]
pub(super) fn name(number: u32, reply: bool, life: Life, meta: &mut Meta) {
    meta.flow = FlowSlot::new(number);
    // The same bit in both, and the lowest one: no choices to make.
    const { assert!(Life::PICKED_UP == FlowFlags::PICKED_UP && FlowFlags::REPLY == 1) };
    meta.flow_flags = FlowFlags(life.flags() & Life::PICKED_UP | u8::from(reply));
}

/// And what stages want to know of its flow.
#[inline(always)]
pub(super) fn place(entry: Entry<'_>, life: Life, meta: &mut Meta) {
    meta.incarnation = entry.version();
    meta.settled = life.settled();
    meta.tenant = entry.tenant();
    meta.spoken = entry.spoken();
}
