//! What one worker's streams came to.

use crate::path::Counter;

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident,)*) => {
        /// One writer, the worker; any number of readers.
        #[derive(Debug, Default)]
        #[repr(align(128))]
        pub struct StreamCounters { $($(#[doc = $doc])+ pub $name: Counter,)* }

        /// [`StreamCounters`] at one moment. The fields mean the same.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
        #[allow(missing_docs)]
        pub struct StreamSnapshot { $(pub $name: u64,)* }

        impl StreamCounters {
            /// The values now.
            pub fn snapshot(&self) -> StreamSnapshot {
                StreamSnapshot { $($name: self.$name.get(),)* }
            }

            /// Something in every counter.
            #[cfg(test)]
            pub fn fill(&self) {
                $(self.$name.add(1 + stringify!($name).len() as u64);)*
            }
        }

        impl StreamSnapshot {
            /// Name and meaning of each.
            pub const HELP: &'static [(&'static str, &'static str)] =
                &[$((stringify!($name), concat!($($doc,)+).trim_ascii()),)*];

            /// Name and value of each, in the same order.
            pub fn values(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name),)*].into_iter()
            }

            /// Both together.
            pub fn plus(self, other: StreamSnapshot) -> StreamSnapshot {
                StreamSnapshot { $($name: self.$name + other.$name,)* }
            }
        }
    };
}

counters! {
    /// TCP segments of flows with which some stage that reads streams was not done.
    segments,
    /// Segments that came before others that they follow.
    out_of_order,
    /// Segments of which all bytes had been seen before.
    old,
    /// Segments that differ from bytes of the same numbers seen before.
    conflicts,
    /// Segments of which bytes could not be read: no block for them, too far ahead, or sent again where no copy is left to compare them with.
    unread,
    /// Segments that were read and of which no copy was kept to compare what is sent again with: more than half of the memory is in use, or the flow or its tenant has what it may have.
    uncompared,
    /// Segments with the URG flag.
    urgent,
    /// Fragments of TCP, and TCP without a flow: not read.
    unreadable,
    /// Bytes given to stages.
    bytes,
    /// Bytes copied into blocks before they were given.
    copied_bytes,
    /// Gaps reported.
    gaps,
    /// Bytes in those.
    gap_bytes,
    /// Directions whose waiting bytes were given up because they waited too long.
    overdue,
    /// Directions of which stages got all that `stream.depth_kb` lets them have.
    depths,
    /// Frames that waited for a stage's decision.
    held,
    /// Frames that should have waited and found no room.
    held_refused,
    /// Frames whose wait ended without a decision.
    held_overdue,
}
