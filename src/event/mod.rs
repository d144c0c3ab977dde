//! What is told of packets and flows: records in the shape of Suricata's EVE log, and where they go.
//!
//! ```text
//! worker: cx.emit, drops --> [ring per type] --> writer thread: lines --> [queue per sink] --> sink thread: file, stdout, socket
//! worker: flows --> [ring of flow events] ----^
//! ```
//!
//! *Nobody waits.* A worker writes fixed-size events into bounded rings of its own, and counts by type what finds no room ([`Emitter`]).
//! The writer ([`Writer`]) makes lines of them and gives these to sinks through bounded queues; a sink that does not keep up loses
//! lines, counted by type, and neither the writer nor another sink waits for it. So memory is bounded by the plan, and a disk that hangs
//! costs records, not packets. Whoever follows what is told while the program runs ([`Following`]) has such a queue, too.
//!
//! *A ring for each type.* A flood makes one type boil over: a scan makes flows and drops, broken frames make anomalies. With a ring for
//! all, such a flood would push out the few alerts that say what it is. So each type that is wanted has a ring of its own, on
//! each worker; types that nobody wants have none, and cost their producers one compare. Flow events keep the ring that they have (`flow::event`):
//! the flow engine writes them where it opens and ends flows, whoever listens, and their size is another.
//!
//! *Names are not in events.* A worker writes numbers (tenant, stage, reason, rule); the writer knows what they are called ([`Eve`]). Bodies
//! of protocols (names, URLs) own boxed text of bounded length, which the stage allocates that read it ([`facts`]).
//!
//! Types in [`Type::PRODUCED`] are made by something; the others have their shape here and wait for their stage.
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

mod kind;
mod record;
pub mod facts;
mod emit;
mod eve;
mod stats;
mod vpc;
mod rings;
mod writer;
mod follow;
mod sink;

pub use emit::{Emitter, EventCounters, EventSnapshot};
pub(crate) use emit::{Limit, Reports};
pub use eve::{Eve, FlowRecord, Moment, Record, protocol};
pub(crate) use eve::{Renamed, about_json};
pub use follow::{Came, Choice, FollowSnapshot, Follower, Following, Full, Piece, Subject};
pub use kind::{Asked, Type, Types};
pub use record::{About, Alert, Anomaly, AnomalyKind, Body, Drop, Event, Signature, TcpHeader, WouldDrop};
pub use rings::{Rings, Said, emitters};
pub use sink::SinkSnapshot;
pub use stats::{StageStats, Stats};
pub(crate) use stats::{labelled, record_of};
pub use vpc::FlowLog;
pub(crate) use writer::by_type;
pub use writer::{Lines, Parts, Writer};
