//! TCP bytes in order. Pure: segments in, pieces of streams out; no frames, no clock, and nothing allocated after the start.
//!
//! [`Reassembly`] is one worker's, for all stages that read streams. A segment that comes in its turn is given on where it lies, in the
//! frame. One that comes early is copied into blocks of a slab of fixed size (`slab.rs`), and given on from there when its turn has come.
//!
//! - *Overlaps.* Of bytes that were sent twice the first copy counts (`overlap = "first"`), or the last, as long as nobody has got it. To
//!   see that a copy differs, bytes are kept until their receiver has acknowledged them (`compare`). A segment that differs can be refused
//!   whole (`conflict = "drop"`). Where no copy could be kept (half of the slab is in use, a flow has what it may have), or it was given up after
//!   `wait`, what is sent again cannot be compared, and its segment is unread like one without a block. So what was read is all that anybody
//!   gets, and no second copy, no wrong checksum and no short TTL makes a receiver see what we have not, as long as some stage reads the flow.
//! - *Gaps.* What was never seen, though its sender has gone beyond it and its receiver acknowledges it, was lost before us or took
//!   another way: it is reported as a gap, and the stream goes on behind. Not at once, since segments of the two directions may overtake each other
//!   on their way to us.
//! - *Bounds.* Blocks of one flow, of one tenant, of the worker; numbers that a segment may be ahead; pieces that one segment may set free
//!   (more come with the next one); time that a block is lent. What finds no block is not read, and its segment says so.
//! - *Depth.* Of each direction the first so many bytes are given on, then its end. When both have ended, or all stages are done with
//!   the flow, nothing of it is looked at any more.
//! - *Beginnings.* A direction begins with its SYN, or else with the first segment seen, and then says that there may have been bytes before.
//! - *A FIN* ends a direction when all bytes before it were given on; bytes behind it show that it did not.
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

mod slab;
mod half;
mod counters;
mod reassembly;
#[cfg(any(test, fuzzing))]
#[allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a broken promise must panic"
)]
pub mod arbitrary_input;
#[cfg(test)]
mod tests;

pub use counters::{StreamCounters, StreamSnapshot};
pub use half::{Segment, Taken};
pub use reassembly::{FLOW_BYTES, Of, Reassembly, Sizes};
pub(crate) use slab::BLOCK_BYTES;

/// Why no more comes of a direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Its FIN, with all bytes before it.
    Finished,
    /// A RST that was believed.
    Reset,
    /// `stream.depth` bytes were given on.
    Depth,
}

/// Where a piece of a stream stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spot {
    /// It travels against the packet that opened the flow.
    pub reply: bool,
    /// Bytes of this direction before it, gaps included.
    pub offset: u32,
    /// The direction was seen from its SYN on: nothing came before offset 0.
    pub from_syn: bool,
}

/// A piece of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece<'a> {
    /// Where it stands.
    pub spot: Spot,
    /// What it is.
    pub what: PieceKind<'a>,
}

/// What a piece is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PieceKind<'a> {
    /// The next bytes, at least one.
    Data(&'a [u8]),
    /// So many bytes that were never seen.
    Gap(u32),
    /// No more comes.
    End(End),
}

/// How streams are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Bytes of each direction that are given on.
    pub depth: u32,
    /// How far a segment may be ahead of what comes next, in bytes.
    pub reach: u32,
    /// Milliseconds from the acknowledgment of a hole until it is given up.
    pub patience: u32,
    /// And segments of the connection that must have come meanwhile: where hardly any come, time says little.
    pub gap_segments: u8,
    /// Milliseconds that bytes wait at most, or are kept to be compared.
    pub wait: u32,
    /// The last copy counts, rather than the first.
    pub last_wins: bool,
    /// Segments that differ from what was seen before are not taken.
    pub refuse_conflicts: bool,
    /// Bytes are kept until they are acknowledged.
    pub compare: bool,
}
