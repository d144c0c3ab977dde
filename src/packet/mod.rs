//! What travels: a batch of frames, what the hops learned of each, and what was decided.

mod batch;
mod view;
mod edit;
mod mask;
mod app;
mod meta;
mod verdict;

pub use app::{App, Apps, Spoken};
pub use batch::Batch;
pub(crate) use batch::{NO_RULE, Rules};
pub use edit::Packet;
pub use mask::Mask;
pub use meta::{Facts, FlowFlags, FlowSlot, InnerFlags, Meta};
pub use verdict::{DropReason, ReasonId, ReasonTable, Verdict};
pub use view::View;
