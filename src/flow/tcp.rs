//! The TCP connection in a flow: what its state is, and whether a segment belongs to it. Pure: no clock, no table, no allocation.
//!
//! [`open`] takes a flow's first segment if it is a SYN, [`pick_up`] one from the middle, [`step`] all that follow. We stand between
//! the two ends and see what one sends before the other gets it; what we saw may be lost behind us, and what was lost before us we
//! never see. So the state here is not that of either end (RFC 9293 section 3.3.2) but what both together have shown:
//!
//! ```text
//!           SYN            SYN|ACK (or SYN)         the SYNs of both acknowledged
//!     open ----> SynSent ------------> SynReceived ----> Established
//!  pick_up ----> PickedUp ----- the other side answers ------^ |
//!                                                             | FIN of one side
//!     TimeWait <--------- Closing <---------- FinSent <-------+          any state -- RST --> Reset
//!          both FINs acknowledged   FIN of the other
//! ```
//!
//! *Windows* (Guido van Rooij, "Real stateful TCP packet filtering in IP Filter", 2000). Of each side we remember how far it
//! has sent (`end`), how far the other has acknowledged that (`acked`), and the largest window it ever offered. A segment fits if
//!
//! 1. it ends at or before `acked` + the receiver's largest window: nobody sends beyond what he was allowed;
//! 2. it starts at most two such windows (at least 64 KiB) before `end`: nobody sends again what was acknowledged long ago;
//! 3. it acknowledges nothing that the other side has not sent;
//! 4. its acknowledgment is at most two windows of its sender (at least 64 KiB) older than the newest, after RFC 5961 section 5.2.
//!
//! Van Rooij keeps the highest "acknowledgment + window" for 1. We keep `acked` instead, because a RST is judged by it, and both
//! do not fit into 24 bytes; the bound is the same while windows do not shrink, and looser by the shrinkage otherwise. His 2 and 4
//! say one window; where segments overtake each other by up to a round trip, that refuses honest ones.
//!
//! *A RST* is believed if it starts between what its receiver has acknowledged and what its sender has sent, or up to 64 KiB
//! behind that (segments lost before us), and within the window; RFC 5961 section 3.2 would have a receiver believe only the first
//! number of these, but segments in flight may still move it there. Against a SYN alone it must acknowledge the SYN. Data beyond a
//! believed RST from its sender show that it was forged, and the connection lives on.
//!
//! *A SYN in a connection that lives* may be a spoof (RFC 5961 section 4.2) or a client that has forgotten. It passes and is
//! remembered; if the other side answers with a SYN|ACK that acknowledges it, that is a new incarnation, and if it answers with an
//! ACK or a RST it is not. (Only whoever can forge both ends can forge that proof.) A connection that is over, or a SYN under a new cookie of the load balancer, which a spoofer cannot
//! make, needs no such proof.
//!
//! *Picked up* connections have unknown window scales: bound 1 is void, 3 holds only for what was sent since. Where only one side
//! comes by us, 3 is void, and a SYN|ACK under a new cookie is a new incarnation, as a SYN is.
//!
//! Whoever wants to follow more than is written here: RFC 9293 section 3.10, RFC 5961, RFC 7323 section 2, RFC 6191.
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

mod segment;
mod tracked;
mod slow;
#[cfg(any(test, fuzzing))]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a broken promise must panic")]
pub mod arbitrary_input;
#[cfg(test)]
mod tests;

pub use crate::config::WindowCheck;
pub use segment::Segment;
pub use tracked::Tracked;

use crate::wire::tcp::{ACK, FIN, RST, SYN};
use tracked::{ack_fits, ahead, later, sequence_fits};

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum State {
    /// The originator's SYN was seen, no answer.
    SynSent,
    /// Seen first in the middle, and from one side only.
    PickedUp,
    /// SYNs of both sides were seen, but not both acknowledged.
    SynReceived,
    /// Both sides are synchronized.
    Established,
    /// One side has sent its FIN; the other may go on for as long as it likes.
    FinSent,
    /// Both have sent a FIN, but not both are acknowledged.
    Closing,
    /// Both FINs are acknowledged.
    TimeWait,
    /// A RST was believed.
    Reset,
}

/// What decides how long a silent connection is remembered, and who must go first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Class {
    /// One side alone can bring it about; a flood makes many of these.
    HalfOpen,
    /// Both sides take part, and data may flow; half closed connections are here, too.
    Established,
    /// Both sides are finished.
    Closing,
    /// A RST was believed.
    Reset,
}

impl State {
    /// All of them, in order of their numbers.
    pub const ALL: [State; 8] = [
        State::SynSent,
        State::PickedUp,
        State::SynReceived,
        State::Established,
        State::FinSent,
        State::Closing,
        State::TimeWait,
        State::Reset,
    ];

    /// The state of that number (`state as u8`); [`State::Reset`], which is forgotten first, for a number that none has.
    #[inline(always)]
    pub const fn from_u8(number: u8) -> State {
        match number {
            0 => State::SynSent,
            1 => State::PickedUp,
            2 => State::SynReceived,
            3 => State::Established,
            4 => State::FinSent,
            5 => State::Closing,
            6 => State::TimeWait,
            _ => State::Reset,
        }
    }

    /// Its class.
    #[inline(always)]
    pub const fn class(self) -> Class {
        match self {
            State::SynSent | State::PickedUp | State::SynReceived => Class::HalfOpen,
            State::Established | State::FinSent => Class::Established,
            State::Closing | State::TimeWait => Class::Closing,
            State::Reset => Class::Reset,
        }
    }

    /// Its name in events and on the screen.
    pub const fn name(self) -> &'static str {
        match self {
            State::SynSent => "syn-sent",
            State::PickedUp => "picked-up",
            State::SynReceived => "syn-received",
            State::Established => "established",
            State::FinSent => "fin-sent",
            State::Closing => "closing",
            State::TimeWait => "time-wait",
            State::Reset => "reset",
        }
    }
}

/// What a segment was to its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum What {
    /// Part of it.
    Normal,
    /// Part of it, but every number in it was seen before: sent again, duplicated, overtaken, or a keep-alive with a byte of data.
    Retransmit,
    /// Of another incarnation than the one that is followed, which goes on: a SYN that only the other side's answer can confirm, an
    /// answer to such a SYN that does not, or a RST in return for that answer. To be let through: this is how the ends find out.
    Stray,
    /// It does not fit the windows and has changed nothing that lies outside of them. Never reported with [`WindowCheck::Off`].
    OutOfWindow,
    /// A RST that its receiver should not believe; nothing has changed.
    BadReset,
    /// Flags that no segment of a connection has (SYN with FIN or RST; none of SYN, ACK, RST); nothing has changed.
    BadFlags,
    /// A new connection on the same ports. State and memory are those of the new one, counted from the new originator.
    NewIncarnation {
        /// The new originator is the old responder: from the next segment on [`Segment::reply`] means the opposite.
        reversed: bool,
        /// Its SYN went another way: all that was seen of it is its SYN|ACK.
        picked_up: bool,
    },
}

impl What {
    /// Should the segment be dropped?
    #[inline(always)]
    pub fn refused(self, check: WindowCheck) -> bool {
        check == WindowCheck::Drop && matches!(self, What::OutOfWindow | What::BadReset | What::BadFlags)
    }
}

/// A segment's outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Step {
    /// State of the connection from here on.
    pub state: State,
    /// What the segment was.
    pub what: What,
}

/// A flow's first segment: a SYN opens a connection. `None`: it is from the middle of one ([`pick_up`]), or from none.
#[inline]
pub fn open(segment: &Segment) -> Option<(State, Tracked)> {
    (segment.flags & (SYN | ACK | RST | FIN) == SYN).then(|| (State::SynSent, Tracked::opened(segment)))
}

/// Takes up a connection in the middle, from the one segment that was seen of it. [`Segment::reply`] should be set for a SYN|ACK:
/// its receiver is the originator. `None` if no connection has such a segment.
pub fn pick_up(segment: &Segment) -> Option<(State, Tracked)> {
    slow::pick_up(segment)
}

/// The next segment of a connection: follows it and says what it was.
#[inline(always)]
pub fn step(state: State, tracked: &mut Tracked, segment: &Segment, check: WindowCheck) -> Step {
    if state == State::Established
        && let Some(what) = quick(tracked, segment)
    {
        return Step { state, what };
    }
    slow::step(state, tracked, segment, check)
}

/// The same for a segment that only moves the numbers of an established connection; `None`, and nothing changed, if it does more.
#[inline(always)]
pub fn quick(tracked: &mut Tracked, segment: &Segment) -> Option<What> {
    if segment.flags & (SYN | FIN | RST | ACK) != ACK || segment.partial {
        return None;
    }
    let (sender, receiver) = tracked.sides(segment.reply);
    let end = segment.sequence.wrapping_add(segment.len);
    if !sequence_fits(sender, receiver, segment.sequence, end)
        || !ack_fits(sender, receiver, segment.acknowledgment)
    {
        return None;
    }
    let old = segment.len != 0 && ahead(end, sender.end) <= 0;
    sender.end = later(sender.end, end);
    sender.window = sender.window.max(segment.window);
    receiver.acked = later(receiver.acked, segment.acknowledgment);
    Some(if old { What::Retransmit } else { What::Normal })
}
