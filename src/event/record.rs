//! An event as a worker writes it: numbers, no names, nothing that has to be allocated but bodies of protocols.

use super::facts::{Dns, Http, Ssh, Tls};
use super::kind::Type;
use crate::flow::flow_id;
use crate::packet::{FlowFlags, FlowSlot, InnerFlags, Meta, ReasonId, Spoken};
use crate::stage::WorkerId;

/// No stage: the path itself.
pub(crate) const NO_STAGE: u8 = u8::MAX;

/// Facts of [`About`] that are yes or no.
const FLOW: u8 = 1;
const IPV6: u8 = 2;
const PORTS: u8 = 4;
const ICMP: u8 = 8;
const REPLY: u8 = 16;
const SHOWN: u8 = 32;
const OUTER: u8 = 64;

/// Something to be told.
#[derive(Debug)]
pub struct Event {
    /// Nanoseconds of the worker's clock.
    pub at: u64,
    /// Of which packet, flow, tenant and stage.
    pub about: About,
    /// What.
    pub body: Body,
}

/// What an event is about. Ends are the inner packet's, the originator's first where the flow is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct About {
    endpoint: u64,
    flow_id: u64,
    source: [u8; 16],
    destination: [u8; 16],
    /// Ports, or type and code of ICMP and 0.
    ports: (u16, u16),
    tenant: u16,
    worker: WorkerId,
    protocol: u8,
    stage: u8,
    flags: u8,
    spoken: Spoken,
}

impl About {
    /// About a packet that decap has passed. `inner` is its inner packet.
    pub fn packet(meta: &Meta, inner: &[u8], worker: WorkerId) -> Self {
        let mut about = About {
            endpoint: meta.endpoint,
            flow_id: 0,
            source: [0; 16],
            destination: [0; 16],
            ports: (meta.source_port, meta.destination_port),
            tenant: meta.tenant,
            worker,
            protocol: meta.protocol,
            stage: NO_STAGE,
            flags: SHOWN,
            spoken: meta.spoken,
        };
        if meta.is_ipv6() {
            about.flags |= IPV6;
            let ends = inner.get(8..).and_then(|rest| rest.first_chunk::<32>()).copied().unwrap_or_default();
            let (source, destination) = ends.split_at(16);
            about.source.copy_from_slice(source);
            about.destination.copy_from_slice(destination);
        } else {
            let ends = inner.get(12..).and_then(|rest| rest.first_chunk::<8>()).copied().unwrap_or_default();
            about.set_v4(ends);
        }
        if meta.flags.has(InnerFlags::PORTS) {
            about.flags |= PORTS;
        } else if meta.flags.has(InnerFlags::ICMP) {
            about.flags |= ICMP;
        }
        if let Some(entry) = meta.flow.entry() {
            about.flags |= FLOW;
            about.flow_id = flow_id(worker, (entry, meta.incarnation));
        }
        if meta.flow != FlowSlot::NONE && meta.is_reply() {
            about.flags |= REPLY;
            // An ICMP error is its sender's, whatever flow it speaks of; and types of ICMP have no other end.
            if !meta.flow_flags.has(FlowFlags::RELATED) {
                std::mem::swap(&mut about.source, &mut about.destination);
                if meta.flags.has(InnerFlags::PORTS) {
                    about.ports = (about.ports.1, about.ports.0);
                }
            }
        }
        about
    }

    /// About a frame that is no good, of which only the outer IPv4 header can be told, if that.
    pub fn frame(frame: &[u8], worker: WorkerId) -> Self {
        let mut about = About {
            endpoint: 0,
            flow_id: 0,
            source: [0; 16],
            destination: [0; 16],
            ports: (0, 0),
            tenant: 0,
            worker,
            protocol: 0,
            stage: NO_STAGE,
            flags: 0,
            spoken: Spoken::default(),
        };
        let tagged = frame.get(12..14) == Some(&[0x81, 0]);
        let ip = frame.get(if tagged { 18 } else { 14 }..).unwrap_or_default();
        let Some(header) = ip.first_chunk::<20>().filter(|header| header[0] >> 4 == 4) else { return about };
        let [.., a, b, c, d, e, f, g, h] = *header;
        about.set_v4([a, b, c, d, e, f, g, h]);
        about.protocol = header[9];
        about.flags = OUTER;
        let ports = ip.get(usize::from(header[0] & 15) * 4..).and_then(|udp| udp.first_chunk::<4>());
        if let (17, Some(&[a, b, c, d])) = (about.protocol, ports) {
            about.ports = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
            about.flags |= PORTS;
        }
        about
    }

    fn set_v4(&mut self, [a, b, c, d, e, f, g, h]: [u8; 8]) {
        for (to, from) in self.source.iter_mut().zip([a, b, c, d]) {
            *to = from;
        }
        for (to, from) in self.destination.iter_mut().zip([e, f, g, h]) {
            *to = from;
        }
    }

    /// The same, told by the stage of that number.
    #[must_use]
    pub(crate) fn by(self, stage: u8) -> Self {
        About { stage, ..self }
    }

    /// The same, of a flow that speaks this.
    #[must_use]
    pub(crate) fn speaking(self, spoken: Spoken) -> Self {
        About { spoken, ..self }
    }

    /// What the flow speaks, as far as that was known.
    pub fn spoken(&self) -> Spoken {
        self.spoken
    }

    fn has(&self, bit: u8) -> bool {
        self.flags & bit != 0
    }

    /// The number that all records of the flow have.
    pub fn flow_id(&self) -> Option<u64> {
        self.has(FLOW).then_some(self.flow_id)
    }

    /// Both ends: the originator's address and port, then the responder's; `None` if the inner packet could not be read.
    pub fn ends(&self) -> Option<[(std::net::IpAddr, Option<u16>); 2]> {
        self.has(SHOWN).then(|| self.addresses())
    }

    /// Both ends of the outer packet, for a frame whose inner packet could not be read.
    pub fn outer(&self) -> Option<[(std::net::IpAddr, Option<u16>); 2]> {
        self.has(OUTER).then(|| self.addresses())
    }

    fn addresses(&self) -> [(std::net::IpAddr, Option<u16>); 2] {
        let address = |bytes: [u8; 16]| -> std::net::IpAddr {
            match (self.has(IPV6), bytes) {
                (true, bytes) => bytes.into(),
                (false, [a, b, c, d, ..]) => [a, b, c, d].into(),
            }
        };
        let port = |port: u16| self.has(PORTS).then_some(port);
        [(address(self.source), port(self.ports.0)), (address(self.destination), port(self.ports.1))]
    }

    /// IANA number of the inner protocol, where it could be read.
    pub fn protocol(&self) -> Option<u8> {
        self.has(SHOWN).then_some(self.protocol)
    }

    /// Type and code.
    pub fn icmp(&self) -> Option<(u8, u8)> {
        let [kind, code] = self.ports.0.to_be_bytes();
        (self.has(ICMP)).then_some((kind, code))
    }

    /// Which way the packet travelled, where its flow is known: towards the responder, or back.
    pub fn direction(&self) -> Option<&'static str> {
        self.has(FLOW).then_some(if self.has(REPLY) { "to_client" } else { "to_server" })
    }

    /// Number of the tenant, where the inner packet could be read.
    pub fn tenant(&self) -> Option<u16> {
        self.has(SHOWN).then_some(self.tenant)
    }

    /// The endpoint, likewise.
    pub fn endpoint(&self) -> Option<u64> {
        self.has(SHOWN).then_some(self.endpoint)
    }

    /// The worker that tells.
    pub fn worker(&self) -> WorkerId {
        self.worker
    }

    /// Number of the stage that tells, in pipeline order.
    pub fn stage(&self) -> Option<usize> {
        (self.stage != NO_STAGE).then_some(self.stage.into())
    }
}

/// What an event says.
#[derive(Debug)]
pub enum Body {
    /// A rule matched.
    Alert(Alert),
    /// A packet was dropped.
    Drop(Drop),
    /// A packet that no honest sender makes.
    Anomaly(Anomaly),
    /// A TLS handshake.
    Tls(Box<Tls>),
    /// An HTTP transaction.
    Http(Box<Http>),
    /// A DNS query or answer.
    Dns(Box<Dns>),
    /// An SSH connection.
    Ssh(Box<Ssh>),
    /// A stage in shadow mode would have dropped a packet.
    WouldDrop(WouldDrop),
}

impl Body {
    /// Its type.
    #[inline(always)]
    pub fn kind(&self) -> Type {
        match self {
            Body::Alert(_) => Type::Alert,
            Body::Drop(_) => Type::Drop,
            Body::Anomaly(_) => Type::Anomaly,
            Body::Tls(_) => Type::Tls,
            Body::Http(_) => Type::Http,
            Body::Dns(_) => Type::Dns,
            Body::Ssh(_) => Type::Ssh,
            Body::WouldDrop(_) => Type::Shadow,
        }
    }
}

macro_rules! bodies {
    ($($variant:ident($inner:ty),)*) => {
        $(impl From<$inner> for Body {
            #[inline(always)]
            fn from(body: $inner) -> Body {
                Body::$variant(body)
            }
        })*
    };
}
bodies! { Alert(Alert), Drop(Drop), Anomaly(Anomaly), Tls(Box<Tls>), Http(Box<Http>), Dns(Box<Dns>), Ssh(Box<Ssh>), WouldDrop(WouldDrop), }

/// A rule of a stage matched, and is to be told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alert {
    /// Number of the rule: which of [`crate::stage::Shared::signatures`].
    pub rule: u32,
    /// The packet does not pass.
    pub blocked: bool,
}

/// What a rule is called in records: the keys of Suricata's `alert`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// The text.
    pub signature: String,
    /// Its number.
    pub signature_id: u32,
    /// Its revision.
    pub rev: u32,
    /// What kind of thing it speaks of; may be empty.
    pub category: String,
    /// 1 is worst, 3 the usual.
    pub severity: u8,
}

/// A packet was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drop {
    /// Why.
    pub reason: ReasonId,
    /// Packets dropped for the same reason on the same worker of which no record was made, since the last one.
    pub skipped: u32,
    /// Bytes of the inner packet, or of the frame if that could not be read.
    pub len: u16,
    /// TOS or traffic class.
    pub tos: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Identification, of IPv4.
    pub ip_id: Option<u16>,
    /// The TCP header's fields.
    pub tcp: Option<TcpHeader>,
}

/// A stage in shadow mode would have dropped a packet, or a flow by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WouldDrop {
    /// Why.
    pub reason: ReasonId,
    /// Such decisions of the stage on the same worker of which no record was made, since the last one.
    pub skipped: u32,
}

/// Fields of a TCP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpHeader {
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// Window, unscaled.
    pub window: u16,
    /// Urgent pointer.
    pub urgent: u16,
    /// CWR ECE URG ACK PSH RST SYN FIN.
    pub flags: u8,
}

impl Drop {
    /// Reads what a record says of a packet.
    pub fn of(reason: ReasonId, skipped: u32, meta: &Meta, inner: &[u8], frame: &[u8]) -> Self {
        let Some(ip) = inner.first_chunk::<20>() else {
            let len = frame.len().try_into().unwrap_or(u16::MAX);
            return Drop { reason, skipped, len, tos: 0, ttl: 0, ip_id: None, tcp: None };
        };
        let (tos, ttl, ip_id) = match meta.is_ipv6() {
            true => ((ip[0] << 4) | (ip[1] >> 4), ip[7], None),
            false => (ip[1], ip[8], Some(u16::from_be_bytes([ip[4], ip[5]]))),
        };
        let is_tcp = meta.protocol == 6 && meta.transport != 0;
        let header = frame.get(usize::from(meta.transport)..).and_then(|tcp| tcp.first_chunk::<20>());
        let tcp = header.filter(|_| is_tcp).map(|h| TcpHeader {
            sequence: u32::from_be_bytes([h[4], h[5], h[6], h[7]]),
            ack: u32::from_be_bytes([h[8], h[9], h[10], h[11]]),
            window: u16::from_be_bytes([h[14], h[15]]),
            urgent: u16::from_be_bytes([h[18], h[19]]),
            flags: h[13],
        });
        Drop { reason, skipped, len: meta.inner_len, tos, ttl, ip_id, tcp }
    }
}

/// Which layer an anomaly is of; Suricata's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnomalyKind {
    /// The packet's headers.
    Decode,
    /// The TCP connection.
    Stream,
    /// What is spoken on it.
    Applayer,
}

impl AnomalyKind {
    /// The word.
    pub const fn word(self) -> &'static str {
        match self {
            AnomalyKind::Decode => "decode",
            AnomalyKind::Stream => "stream",
            AnomalyKind::Applayer => "applayer",
        }
    }
}

/// A packet that no honest sender makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Anomaly {
    /// Of which layer.
    pub kind: AnomalyKind,
    /// What, as a word; empty: the label of `reason`.
    pub event: &'static str,
    /// The packet was dropped for this.
    pub reason: Option<ReasonId>,
    /// As in [`Drop::skipped`].
    pub skipped: u32,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever a frame is, and whatever its facts say.
        #[test]
        fn any_frame_can_be_told_of(
            frame in proptest::collection::vec(any::<u8>(), 0..120),
            (inner, inner_len, transport) in (0u16..150, 0u16..150, 0u16..150),
            (flags, protocol, flow_flags) in (any::<u8>(), any::<u8>(), any::<u8>()),
        ) {
            let meta = Meta {
                inner, inner_len, transport, protocol,
                flags: InnerFlags(flags),
                flow_flags: FlowFlags(flow_flags),
                flow: FlowSlot::new(u32::from(protocol) % 3),
                ..Meta::default()
            };
            let whole = usize::from(inner)..usize::from(inner) + usize::from(inner_len);
            let inside = frame.get(whole).unwrap_or_default();
            for about in [About::packet(&meta, inside, WorkerId(1)), About::frame(&frame, WorkerId(1))] {
                prop_assert!(about.ends().is_none() || about.outer().is_none());
                prop_assert!(about.icmp().is_none() || about.ends().is_some());
            }
            let drop = Drop::of(ReasonId(0), 0, &meta, inside, &frame);
            prop_assert!(drop.tcp.is_none() || protocol == 6);
        }
    }

    /// The rings' memory is what `check` says: an event is as large as it looks.
    #[test]
    fn an_event_is_two_lines() {
        assert!(size_of::<Event>() <= 128, "{}", size_of::<Event>());
    }
}
