//! The six hops: rx -> decap -> (track) -> inspect -> encap -> tx, each one file.
//!
//! A worker owns its queues, its batch and its running stages; nothing on this path is shared but counters that it
//! alone writes. The path allocates nothing, takes no lock, makes no system call and reads the clock once per poll.
//! The hop `track` comes with the flow engine; its place is marked in [`Worker::poll`].
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod clock;
mod counters;
mod samples;
pub(crate) mod rx;
pub(crate) mod decap;
mod track;
mod inspect;
mod encap;
mod respond;
mod answer;
mod frames;
mod guests;
mod punt;
mod capture;
pub(crate) mod tx;
mod heartbeat;
mod mesh;
mod hops;
mod change;
mod lend;
pub(crate) mod worker;
#[cfg(any(test, fuzzing))]
#[allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a broken promise must panic"
)]
pub mod arbitrary_input;

pub use answer::{Answer, AnswerCounters, Answers, Outcome, Request, Seen};
pub use capture::{Became, Capture, CaptureCounts, Choice, LARGEST, Lens, LensEnd, Shot, Wanted, lens};
pub use change::{Change, Mail, MailEnd, mailbox};
pub use clock::Clock;
pub use counters::{
    Counter, Drops, Ledger, QueueCounters, StageCounters, StageSnapshot, TenantCounters, WorkerCounters,
    WorkerSnapshot,
};
pub use decap::Decap;
#[cfg(test)]
pub(crate) use frames::ring;
pub use frames::{FrameReader, FrameWriter};
#[cfg(fuzzing)]
pub use guests::arbitrary_input as arbitrary_guest;
pub use guests::{Guest, Guests};
pub use heartbeat::{Heartbeat, Place};
pub use inspect::{
    Candidate, Comparison, Differences, End, Example, HOLD_BYTES, Inspect, Pipeline, Running, Verdict,
};
pub use lend::{Lend, LendEnd, Letter, lend};
pub use mesh::Mesh;
pub use punt::{HostEnd, Punt, PuntCounters, PuntSnapshot};
pub use respond::Respond;
pub use samples::{Buckets, CYCLES, EVERY, Samples, TIMES};
pub use track::Track;
pub use tx::RETRIES;
pub use worker::{Lane, Stop, Worker};
