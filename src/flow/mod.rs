//! What is remembered: flows, who owns them, and what workers share about them.
//!
//! The names in the order in which a packet meets them: its [`Key`], the worker's table, entries that anybody may read, the
//! directory that says which worker a flow belongs to.
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

pub(crate) mod sync;
mod key;
mod line;
mod table;
mod index;
mod room;
mod rate;
mod turned_away;
mod envelope;
pub mod directory;
pub mod fragment;
pub mod handoff;
pub mod tcp;
mod state;
mod counters;
mod event;
pub(crate) mod quoted;
mod engine;
mod follow;
mod lookup;
pub mod refit;
mod command;
mod view;

use std::net::IpAddr;

pub use counters::{FlowCounters, FlowSnapshot};
pub use engine::{Flows, FlowsShared};
pub(crate) use engine::{Newcomer, Opened, Opening};
pub use envelope::{Envelope, Home, head_len, seal};
pub(crate) use event::flow_id;
pub use event::{End, FlowEvent, What};
pub(crate) use follow::{Followed, is_answer};
pub(crate) use index::Index;
pub use key::{Key, Seed};
pub(crate) use lookup::{About, Lookup};
pub(crate) use state::Timeouts;
pub use state::WORDS as STATES;
#[cfg(all(test, not(loom)))]
pub(crate) use state::name as state_name;
pub(crate) use table::Spot;
pub(crate) use view::Names;
pub use view::{Count, Detail, Filter, FlowView, Flushed, LiveFlow, Order, Picture, Shown, Standing};

/// Bytes that a flow takes, all shares included: the two lines of its entry and room for IPv6 addresses, its places in a bucket, and
/// two words of the directory. Whatever it speaks: entries are all alike.
pub const FLOW_BYTES: u64 = (line::ENTRY_BYTES + table::BUCKET_SHARE + directory::FLOW_SHARE) as u64;

/// The two ends of a flow and their protocol, as the originator sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
pub struct Tuple {
    /// Who opened the flow.
    pub source: IpAddr,
    /// To whom.
    pub destination: IpAddr,
    /// Port, or the identifier of an ICMP echo; 0 where there is none.
    pub source_port: u16,
    /// Likewise.
    pub destination_port: u16,
    /// IANA protocol number.
    pub protocol: u8,
}

impl Tuple {
    /// The other end's view.
    pub fn reversed(self) -> Self {
        Tuple {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
            protocol: self.protocol,
        }
    }
}
