//! What the hops learned of one packet. Written by decap (and later track), read by everything behind it.

use super::Spoken;

/// Facts of the inner packet that are yes or no.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct InnerFlags(pub u8);

impl InnerFlags {
    /// IPv6; otherwise IPv4.
    pub const IPV6: u8 = 1;
    /// A fragment that is not the first: no transport header in it.
    pub const LATER_FRAGMENT: u8 = 2;
    /// The first of several fragments.
    pub const FIRST_FRAGMENT: u8 = 4;
    /// [`Meta::source_port`] and [`Meta::destination_port`] are ports (TCP, UDP, SCTP, UDP-Lite, DCCP).
    pub const PORTS: u8 = 8;
    /// [`Meta::source_port`] holds ICMP type (high byte) and code; [`Meta::destination_port`] the echo identifier or 0.
    pub const ICMP: u8 = 16;

    /// Is the bit set?
    #[inline(always)]
    pub fn has(self, bit: u8) -> bool {
        self.0 & bit != 0
    }
}

/// Facts of a packet's place in its flow that are yes or no. Written by track; none is set without flow tracking.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct FlowFlags(pub u8);

impl FlowFlags {
    /// It travels against the packet that opened the flow.
    pub const REPLY: u8 = 1;
    /// Its flow is a TCP connection that was there before we saw it: who opened that is a guess. All packets of the flow say so, since
    /// the first may never have reached the stage that has to know.
    pub const PICKED_UP: u8 = 2;
    /// It opened the flow.
    pub const NEW: u8 = 4;
    /// An ICMP error; the flow is that of the packet it quotes.
    pub const RELATED: u8 = 8;

    /// Is the bit set?
    #[inline(always)]
    pub fn has(self, bit: u8) -> bool {
        self.0 & bit != 0
    }
}

/// Where a flow stands in its worker's table; none for a packet that belongs to no flow.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct FlowSlot(u32);

impl FlowSlot {
    /// No flow.
    pub const NONE: FlowSlot = FlowSlot(0);

    /// The entry of that number.
    #[inline(always)]
    pub(crate) fn new(entry: u32) -> Self {
        FlowSlot(entry.wrapping_add(1))
    }

    /// Number of the entry.
    #[inline(always)]
    pub(crate) fn entry(self) -> Option<u32> {
        self.0.checked_sub(1)
    }
}

/// One packet's facts. Offsets are in bytes from the start of the frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct Meta {
    /// Scope of the flow: the endpoint id of the load balancer, or the VNI where a profile has no such option.
    pub endpoint: u64,
    /// Outer source address: the load balancer's node.
    pub node: [u8; 4],
    /// The load balancer's flow cookie, 0 where the profile has none. Beside the node: both are compared as one word.
    pub cookie: u32,
    /// Outer IP header: 14, or 18 behind an 802.1Q tag.
    pub outer: u8,
    /// Bytes of the outer IP header.
    pub outer_header_len: u8,
    /// Inner transport protocol (IANA), behind all IPv6 extension headers.
    pub protocol: u8,
    /// Yes-or-no facts.
    pub flags: InnerFlags,
    /// Inner IP header.
    pub inner: u16,
    /// Bytes of the inner packet as its IP header states them.
    pub inner_len: u16,
    /// Inner transport header; 0 in a later fragment.
    pub transport: u16,
    /// Bytes of inner payload behind the transport header start (header included), 0 in a later fragment.
    pub transport_len: u16,
    /// Source port in host order, or ICMP type and code; see the flags.
    pub source_port: u16,
    /// Destination port in host order.
    pub destination_port: u16,
    /// TCP flags byte (CWR ECE URG ACK PSH RST SYN FIN), 0 for other protocols.
    pub tcp_flags: u8,
    /// Outer UDP source port, host order: what the load balancer hashed the flow to.
    pub outer_source_port: u16,
    /// Inner source and destination address of IPv4 as they stand in the header; means nothing for IPv6.
    pub addresses: [u8; 8],
    /// Its flow. Written by track, like all that follows: of packets that stages see, and of those that may be too big to go home. What goes
    /// home at once keeps what an earlier packet left here.
    pub flow: FlowSlot,
    /// Stages that are done with the flow and do not see the packet: bit n for the n-th of the pipeline.
    pub settled: u16,
    /// The tenant to which the endpoint belongs; 0 is the default tenant.
    pub tenant: u16,
    /// Yes-or-no facts of its place in the flow.
    pub flow_flags: FlowFlags,
    /// What its flow speaks, as far as that is known ([`crate::stages::appid`]).
    pub spoken: Spoken,
    /// Which of the flows that the entry has had: what was kept for another number is not this flow's.
    pub incarnation: u32,
}

impl Meta {
    /// Does it travel against the packet that opened its flow?
    #[inline(always)]
    pub fn is_reply(&self) -> bool {
        self.flow_flags.has(FlowFlags::REPLY)
    }

    /// It belongs to no flow, and to this tenant.
    pub(crate) fn leave_flow(&mut self, tenant: u16) {
        (self.flow, self.incarnation, self.settled) = (FlowSlot::NONE, 0, 0);
        (self.flow_flags, self.spoken, self.tenant) = (FlowFlags::default(), Spoken::default(), tenant);
    }

    /// Is the inner packet IPv6?
    #[inline(always)]
    pub fn is_ipv6(&self) -> bool {
        self.flags.has(InnerFlags::IPV6)
    }
}

/// What goes with a packet from one worker to another: what decap found, and whose it is. The rest the owner's own track writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Facts {
    endpoint: u64,
    node: [u8; 4],
    /// [`Meta::cookie`].
    pub cookie: u32,
    outer: u8,
    outer_header_len: u8,
    protocol: u8,
    flags: InnerFlags,
    inner: u16,
    inner_len: u16,
    transport: u16,
    transport_len: u16,
    source_port: u16,
    destination_port: u16,
    tcp_flags: u8,
    outer_source_port: u16,
    addresses: [u8; 8],
    /// [`Meta::tenant`].
    pub tenant: u16,
}

impl From<Meta> for Facts {
    #[inline(always)]
    fn from(meta: Meta) -> Self {
        Facts {
            endpoint: meta.endpoint,
            node: meta.node,
            cookie: meta.cookie,
            outer: meta.outer,
            outer_header_len: meta.outer_header_len,
            protocol: meta.protocol,
            flags: meta.flags,
            inner: meta.inner,
            inner_len: meta.inner_len,
            transport: meta.transport,
            transport_len: meta.transport_len,
            source_port: meta.source_port,
            destination_port: meta.destination_port,
            tcp_flags: meta.tcp_flags,
            outer_source_port: meta.outer_source_port,
            addresses: meta.addresses,
            tenant: meta.tenant,
        }
    }
}

impl From<Facts> for Meta {
    #[inline(always)]
    fn from(facts: Facts) -> Self {
        Meta {
            endpoint: facts.endpoint,
            node: facts.node,
            cookie: facts.cookie,
            outer: facts.outer,
            outer_header_len: facts.outer_header_len,
            protocol: facts.protocol,
            flags: facts.flags,
            inner: facts.inner,
            inner_len: facts.inner_len,
            transport: facts.transport,
            transport_len: facts.transport_len,
            source_port: facts.source_port,
            destination_port: facts.destination_port,
            tcp_flags: facts.tcp_flags,
            outer_source_port: facts.outer_source_port,
            addresses: facts.addresses,
            flow: FlowSlot::NONE,
            settled: 0,
            tenant: facts.tenant,
            flow_flags: FlowFlags::default(),
            spoken: Spoken::default(),
            incarnation: 0,
        }
    }
}
