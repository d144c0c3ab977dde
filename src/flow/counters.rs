//! What a worker counts of flows. Names are metric labels, help is what the documents print.

use crate::path::Counter;

macro_rules! flow_counters {
    ($($(#[doc = $doc:literal])+ $name:ident,)*) => {
        /// One worker's counters of flows: it alone adds, anybody reads.
        #[derive(Debug, Default)]
        #[repr(align(128))]
        pub struct FlowCounters { $($(#[doc = $doc])+ pub $name: Counter,)* }

        /// [`FlowCounters`] at one moment.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
        pub struct FlowSnapshot { $($(#[doc = $doc])+ pub $name: u64,)* }

        impl FlowCounters {
            /// The values now.
            pub fn snapshot(&self) -> FlowSnapshot {
                FlowSnapshot { $($name: self.$name.get(),)* }
            }

            /// Something in every counter.
            #[cfg(test)]
            pub fn fill(&self) {
                $(self.$name.add(1 + stringify!($name).len() as u64);)*
            }
        }

        impl FlowSnapshot {
            /// Name and meaning of each, in the order of [`Self::values`].
            pub const HELP: &'static [(&'static str, &'static str)] =
                &[$((stringify!($name), concat!($($doc),+).trim_ascii()),)*];

            /// Name and value of each.
            pub fn values(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
                [$((stringify!($name), self.$name),)*].into_iter()
            }

            /// Flows that have begun and not ended.
            pub fn live(&self) -> u64 {
                let ended = [
                    self.incarnations,
                    self.ended_idle,
                    self.ended_closed,
                    self.ended_reset,
                    self.ended_evicted,
                    self.ended_flushed,
                    self.ended_taken_over,
                    self.ended_stopped,
                ];
                // Counters of a running worker are read one after the other.
                self.opened.saturating_sub(ended.iter().sum())
            }

            /// Both together.
            pub fn plus(self, other: FlowSnapshot) -> FlowSnapshot {
                FlowSnapshot { $($name: self.$name + other.$name,)* }
            }
        }
    };
}

flow_counters! {
    /// Packets whose flow is in the table of the worker that received them, or was opened there.
    local_hits,
    /// Packets whose flow another worker owns.
    directory_hits,
    /// Packets given to the worker that owns their flow.
    handed_out,
    /// Packets taken from other workers.
    handed_in,
    /// Flows of which some packets came to a worker that does not own them.
    misaligned,
    /// Packets whose flow's owner has no queue on their port, or which were handed on and found a third owner: looked at where they were, without their flow.
    astray,
    /// Flows for which the directory has no place; they live on the worker that their hash names.
    unclaimed,
    /// Flows opened.
    opened,
    /// Of those, TCP connections that were there before.
    picked_up,
    /// TCP packets of unknown connections that `flow.pickup` refused.
    pickup_refused,
    /// Flows whose tuple was taken into use again before they had expired: the old one ended, a new one began.
    incarnations,
    /// Flows that became established.
    established,
    /// Flows ended because nothing came for too long.
    ended_idle,
    /// TCP connections that ended as they should.
    ended_closed,
    /// TCP connections that ended by RST.
    ended_reset,
    /// Unanswered flows that made room for others.
    ended_evicted,
    /// TCP connections that were over and made room for others before their time; they are counted by how they ended, too.
    ended_early,
    /// Flows ended by command.
    ended_flushed,
    /// Flows that were live when the worker stopped and somebody listened to flow events.
    ended_stopped,
    /// Flows that a worker forgot because it hung and others took over.
    ended_taken_over,
    /// New flows that found the table, or their tenant's part of it, full of established flows.
    refused_full,
    /// New flows beyond `new_flows_per_s` of their tenant.
    refused_rate,
    /// New flows for which both buckets were full and nobody could move.
    refused_crowded,
    /// Packets that were looked at without a flow.
    stateless,
    /// Packets of flows that a stage had condemned.
    condemned,
    /// Changes of node, outer port or cookie in the middle of a flow.
    refreshed,
    /// TCP segments outside the window.
    out_of_window,
    /// RSTs that nobody would believe.
    bad_resets,
    /// ICMP errors that belong to a flow.
    related,
    /// ICMP errors that quote no flow we know.
    unrelated,
    /// First fragments remembered.
    first_fragments,
    /// First fragments forgotten before their time, because more came than `flow.fragments.entries` has room for.
    fragments_replaced,
    /// Later fragments that found their first, or that it was dropped.
    later_fragments,
    /// Later fragments that waited for their first.
    held_fragments,
    /// Later fragments whose first never came.
    orphan_fragments,
    /// Entries looked at for their age.
    swept,
    /// Flow events that found their ring full.
    events_lost,
}

#[cfg(all(test, not(loom)))]
mod tests;
