//! What can become of a packet. The only list of ways to die.

use std::fmt;

/// What a stage says of one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// Go on to the next stage.
    Next,
    /// Send it home; the remaining stages do not see it.
    Forward,
    /// Drop it, for a reason of the framework or of the stage ([`crate::stage::Cx::reason`]).
    Drop(ReasonId),
    /// Drop it and tell both ends: TCP by a reset each, anything else its sender by ICMP "administratively prohibited". Answers
    /// go out at a limited rate and only where they may (RFC 1122 section 3.2.2); the packet is dropped in any case.
    Reject(ReasonId),
    /// As `Next`, but the far end must not get the packet's bytes yet: the frame waits until the stage says something else of a later piece
    /// of the stream, or `stream.hold_time` is over. Only a packet that brings bytes of a stream can be held
    /// ([`crate::stage::StreamInspect`]); for any other this is `Next`.
    Hold,
}

/// A drop reason of the running plan: the framework's first, then each stage's own, in pipeline order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReasonId(pub u16);

macro_rules! drop_reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident $label:literal $hop:literal,)*) => {
        /// Why the framework dropped a packet. Adding a variant gives it a counter, a label and its line in
        /// `sluicegate stages drops`; a variant that no test can provoke fails a test.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum DropReason { $($(#[doc = $doc])+ $variant,)* }

        impl DropReason {
            /// Every reason, in the order of the hops that raise them.
            pub const ALL: &'static [DropReason] = &[$(DropReason::$variant,)*];

            /// The name used in metrics, tables and golden files.
            pub const fn label(self) -> &'static str {
                match self { $(DropReason::$variant => $label,)* }
            }

            /// The hop that raises it.
            pub const fn hop(self) -> &'static str {
                match self { $(DropReason::$variant => $hop,)* }
            }

            /// One sentence for the reader of a counter.
            pub const fn help(self) -> &'static str {
                match self { $(DropReason::$variant => concat!($($doc,)+).trim_ascii(),)* }
            }
        }
    };
}

drop_reasons! {
    /// The driver delivered a frame in several segments; the data room is too small for the port's MTU.
    Chained "chained" "rx",
    /// The frame ends before its outer headers, or before the length its outer IP header states.
    OuterTruncated "outer_truncated" "decap",
    /// The outer IPv4 header contradicts itself: version, header length or total length.
    OuterHeader "outer_header" "decap",
    /// The outer IPv4 header checksum is wrong.
    OuterChecksum "outer_checksum" "decap",
    /// The outer packet is a fragment; a gateway load balancer sends none, and a tunnel must not reassemble what it cannot trust.
    OuterFragment "outer_fragment" "decap",
    /// The outer source address is not in `tunnel.allowed_sources`, or cannot be a host's where that is empty.
    ForeignSource "foreign_source" "decap",
    /// The outer UDP length is shorter than its header or longer than the IP packet.
    UdpLength "udp_length" "decap",
    /// The outer UDP checksum is wrong.
    UdpChecksum "udp_checksum" "decap",
    /// The UDP payload ends inside the GENEVE header or its options (RFC 8926 section 3.4).
    GeneveTruncated "geneve_truncated" "decap",
    /// GENEVE version other than 0 (RFC 8926 section 3.4).
    GeneveVersion "geneve_version" "decap",
    /// GENEVE control packet (O bit): its payload must not be forwarded (RFC 8926 section 3.4).
    GeneveControl "geneve_control" "decap",
    /// A GENEVE option reaches beyond the stated length of all options (RFC 8926 section 3.5).
    OptionOverrun "option_overrun" "decap",
    /// An option that we do not know is marked critical (RFC 8926 section 3.5).
    OptionCritical "option_critical" "decap",
    /// An option that the profile requires is missing.
    OptionMissing "option_missing" "decap",
    /// An option of the profile has another length than the profile's.
    OptionLength "option_length" "decap",
    /// An option that identifies the flow appears twice.
    OptionDuplicate "option_duplicate" "decap",
    /// The GENEVE protocol type is neither IPv4 nor IPv6.
    GeneveProtocol "geneve_protocol" "decap",
    /// The inner packet's version contradicts the GENEVE protocol type.
    InnerVersion "inner_version" "decap",
    /// The inner packet ends inside its IP header.
    InnerTruncated "inner_truncated" "decap",
    /// The inner IPv4 header contradicts itself: header length or total length.
    InnerHeader "inner_header" "decap",
    /// The inner IP length is longer than what arrived.
    InnerLength "inner_length" "decap",
    /// The inner IPv6 extension headers are cut short or too many.
    InnerExtension "inner_extension" "decap",
    /// The inner fragment is impossible: past the largest packet, not a multiple of 8 bytes, or hiding its ports (RFC 1858, 3128).
    InnerFragment "inner_fragment" "decap",
    /// The inner TCP, UDP or ICMP header is cut short or contradicts itself.
    InnerTransport "inner_transport" "decap",
    /// A stage has dropped a packet of the flow, and thereby the flow.
    FlowCondemned "flow_condemned" "track",
    /// A flow from before a reload that a stage which has changed cannot judge any more, and the stage's `on_reload` is "drop". Later packets are `flow_condemned`.
    OnReload "on_reload" "track",
    /// The TCP segment is outside the window, or a RST that nobody would believe, and `flow.window_check` is "drop".
    TcpInvalid "tcp_invalid" "track",
    /// A TCP packet of a connection that nobody saw begin, and `flow.pickup` is "drop" or "reset".
    Pickup "pickup" "track",
    /// A new flow found no room, and `flow.when_full` is "drop".
    TableFull "table_full" "track",
    /// The endpoint belongs to no tenant, and `unknown_endpoint` is "drop".
    UnknownEndpoint "unknown_endpoint" "track",
    /// A later fragment whose first never came, and `flow.fragments.orphans` is "drop".
    FragmentOrphan "fragment_orphan" "track",
    /// The ring to the worker that owns the flow stayed full.
    HandoffFull "handoff_full" "track",
    /// A TCP segment that differs from bytes of the same numbers which stages have read, and `stream.conflict` is "drop".
    StreamConflict "stream_conflict" "inspect",
    /// A stage that reads streams could not read this one (a gap, no room, a hold that lasted too long), and its `on_unread` is "drop".
    StreamUnread "stream_unread" "inspect",
    /// A TCP segment with bytes of a frame that is held: they were sent again, and the held frame will do.
    HeldAgain "held_again" "inspect",
    /// A stage panicked while it held the batch.
    StagePanic "stage_panic" "inspect",
    /// The inner packet is larger than the load balancer takes back, or a stage made the outer one larger than the port's MTU.
    TooBig "too_big" "encap",
    /// The transmit queue stayed full through all retries.
    TxFull "tx_full" "tx",
    /// The port by which the frame goes home is being reset: a parcel from another worker, or a frame that has waited, or one of our own.
    PortReset "port_reset" "tx",
}

impl From<DropReason> for ReasonId {
    #[inline(always)]
    fn from(reason: DropReason) -> Self {
        ReasonId(reason as u16)
    }
}

/// All reasons of a plan, with their names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReasonTable {
    names: Vec<(String, &'static str)>,
}

impl ReasonTable {
    /// The framework's reasons.
    pub fn framework() -> Self {
        let names = DropReason::ALL.iter().map(|r| (r.label().to_owned(), r.help())).collect();
        ReasonTable { names }
    }

    /// Adds a stage's reasons as `stage.reason` and returns their ids in order.
    pub fn add(&mut self, stage: &str, reasons: &[(&'static str, &'static str)]) -> Vec<ReasonId> {
        let first = self.names.len();
        self.names.extend(reasons.iter().map(|(name, help)| (format!("{stage}.{name}"), *help)));
        (first..self.names.len()).map(|i| ReasonId(i as u16)).collect()
    }

    /// Ids of reasons with the labels of another table's, in its order; those that are not here yet are added.
    pub fn join(&mut self, other: &ReasonTable) -> Vec<ReasonId> {
        let mut known: std::collections::HashMap<String, usize> =
            self.names.iter().enumerate().map(|(id, (label, _))| (label.clone(), id)).collect();
        let mut id = |(label, help): &(String, &'static str)| {
            let next = self.names.len();
            let id = *known.entry(label.clone()).or_insert(next);
            if id == next {
                self.names.push((label.clone(), help));
            }
            ReasonId(id as u16)
        };
        other.names.iter().map(&mut id).collect()
    }

    /// Reasons in it.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Never true: the framework's are always in it.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Label of a reason.
    pub fn label(&self, id: ReasonId) -> &str {
        self.names.get(id.0 as usize).map_or("unknown", |(name, _)| name)
    }

    /// What a reason means.
    pub fn help(&self, id: ReasonId) -> &'static str {
        self.names.get(id.0 as usize).map_or("", |(_, help)| help)
    }

    /// All reasons in order.
    pub fn iter(&self) -> impl Iterator<Item = (ReasonId, &str, &'static str)> {
        self.names.iter().enumerate().map(|(i, (name, help))| (ReasonId(i as u16), name.as_str(), *help))
    }
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}
