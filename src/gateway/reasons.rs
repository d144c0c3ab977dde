//! Why a gateway drops a frame, beside the framework's own reasons ([`DropReason`]): malformed frames die of those.

use crate::packet::{DropReason, ReasonId, ReasonTable};

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident $label:literal,)*) => {
        /// Why the gateway dropped a frame. Labels begin with `gateway.`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Why { $($(#[doc = $doc])+ $variant,)* }

        impl Why {
            /// Label behind `gateway.`, and meaning, in the order of the variants.
            pub const ALL: &'static [(&'static str, &'static str)] =
                &[$(($label, concat!($($doc,)+).trim_ascii()),)*];
        }
    };
}

reasons! {
    /// From a leg: no endpoint has a leg on this port with the frame's VLAN, or without one.
    StrangeLeg "strange_leg",
    /// From a leg: a second VLAN tag, behind which an IP packet could pass by unseen.
    StackedTags "stacked_tags",
    /// From a leg: neither IP nor ARP, and `gateway.non_ip` is "drop".
    NonIp "non_ip",
    /// From a leg: an ICMP error about no flow that is known.
    Unrelated "unrelated",
    /// From a leg: a TCP packet that opens nothing, of no flow that is known, and `flow.unknown_tcp` is "drop". Connections that were idle for too long end here.
    UnknownTcp "unknown_tcp",
    /// From a leg: a new flow, and no target may have any (all drain, or none stands in this zone).
    NoTarget "no_target",
    /// From a leg: a new flow that found the table full of flows of two directions.
    TableFull "table_full",
    /// From a leg: nobody knows the MAC address of the flow's target.
    Unresolved "unresolved",
    /// Larger than a load balancer of the profile carries (AWS: 8500 bytes), than the targets' port takes with its envelope, or than the leg's port takes without.
    TooBig "too_big",
    /// From a target's side: the outer source is no target.
    StrangeTarget "strange_target",
    /// From a target: the endpoint in its envelope is none of ours.
    StrangeEndpoint "strange_endpoint",
    /// From a target: a packet of no flow that is known. Targets cannot open flows.
    NoFlow "no_flow",
    /// From a target: a packet of a flow that is another target's; the flow may have moved a moment ago.
    OtherTarget "other_target",
    /// From a target: the cookie is not the flow's. Its tuple may have been taken into use again.
    WrongCookie "wrong_cookie",
}

impl Why {
    /// Its number in [`table`].
    #[inline(always)]
    pub const fn id(self) -> ReasonId {
        ReasonId(DropReason::ALL.len() as u16 + self as u16)
    }
}

impl From<Why> for ReasonId {
    #[inline(always)]
    fn from(why: Why) -> Self {
        why.id()
    }
}

/// The framework's reasons and the gateway's.
pub fn table() -> ReasonTable {
    let mut table = ReasonTable::framework();
    table.add("gateway", Why::ALL);
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_table() {
        let table = table();
        assert_eq!(table.label(Why::StrangeLeg.id()), "gateway.strange_leg");
        assert_eq!(table.label(Why::WrongCookie.into()), "gateway.wrong_cookie");
        assert_eq!(usize::from(Why::WrongCookie.id().0) + 1, table.len());
    }
}
