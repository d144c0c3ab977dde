//! Hop 2, decap: outer Ethernet / IPv4 / UDP / GENEVE and the inner headers -> [`Meta`]. Bytes do not move.
//!
//! A frame as the load balancer usually sends it is recognised by one masked compare at fixed offsets; every other frame takes
//! the general walk, which also finds the reason for a drop. Both end in the same checks, so they cannot disagree.
//!
//! What is not tunnel traffic for us (ARP, health checks, ICMP to us, ...) is *punted*: it belongs to the host stack.
//!
//! Receiver rules: RFC 8926 sections 3.3 to 3.5, RFC 1122 section 3.2.1 for the outer header. May drop: every reason whose
//! hop is `decap`.

use std::net::Ipv4Addr;

use super::counters::WorkerCounters;
use super::rx;
use crate::config::{Tunnel, VerifyChecksum};
use crate::dpdk::{Checksum, Mbuf};
use crate::packet::{Batch, DropReason, Mask, Meta};
use crate::wire::eth::{self, Eth};
use crate::wire::geneve::{FixedShape, Geneve, SHAPE_LEN, Scope};
use crate::wire::inner::Inner;
use crate::wire::ipv4::{self, Ipv4};
use crate::wire::udp::{self, Udp};
use crate::wire::{Malformed, checksum};

/// Outer IPv4 header in a frame without a VLAN tag.
const OUTER: usize = 14;
/// GENEVE options in a frame without a VLAN tag and IP options: Ethernet 14, IPv4 20, UDP 8, GENEVE 8.
const OPTIONS: usize = 50;
/// What the usual frame is recognised by: its headers, and as much of what follows as the widest option block.
const HEAD: usize = OPTIONS + SHAPE_LEN;
/// IP protocol UDP.
const UDP: u8 = 17;
/// An address that a host may have: 1.0.0.0, the first of them.
const ANY_HOST: u32 = 1 << 24;
/// The O bit of GENEVE's second byte.
const CONTROL: u8 = 0x80;

/// The hop with what it knows of the tunnel.
#[derive(Clone, Debug)]
pub struct Decap {
    tunnel: Tunnel,
    sources: Sources,
    usual: Option<Usual>,
}

/// What becomes of a frame here.
enum Outcome {
    Live,
    Punt,
    Drop(DropReason),
}

/// Where the envelope's parts are, and what it says.
struct Envelope<'a> {
    outer: usize,
    outer_header_len: usize,
    /// Outer IPv4 header without options.
    ip: &'a [u8; 20],
    udp: &'a [u8; udp::HEADER_LEN],
    /// Behind the GENEVE options.
    inner: usize,
    /// End of the UDP payload.
    end: usize,
    protocol: u16,
    endpoint: u64,
    cookie: u32,
}

/// What the usual frame looks like, and where its parts are.
#[derive(Clone, Copy, Debug)]
struct Usual {
    /// The headers as masks and values of three words, in the machine's byte order.
    headers: [(u64, u64); 3],
    /// The options.
    shape: FixedShape,
    /// Behind the options.
    inner: usize,
    /// The scope is the VNI.
    vni: bool,
}

impl Usual {
    fn new(port: u16, shape: FixedShape, scope: Scope) -> Self {
        let word = |bytes: [u8; 8]| u64::from_ne_bytes(bytes);
        let [p0, p1] = port.to_be_bytes();
        // Version 0 and the length of the options share a byte.
        let options = (shape.len / 4) as u8;
        let headers = [
            // EtherType, version and header length; any TOS, length, id.
            (word([0xff, 0xff, 0xff, 0, 0, 0, 0, 0]), word([0x08, 0x00, 0x45, 0, 0, 0, 0, 0])),
            // Not a fragment (any DF), any TTL, protocol; any checksum.
            (word([0x3f, 0xff, 0, 0xff, 0, 0, 0, 0]), word([0, 0, 0, UDP, 0, 0, 0, 0])),
            // Port; any length and checksum; GENEVE's first byte, O bit.
            (word([0xff, 0xff, 0, 0, 0, 0, 0xff, CONTROL]), word([p0, p1, 0, 0, 0, 0, options, 0])),
        ];
        Usual { headers, shape, inner: OPTIONS + shape.len, vni: scope == Scope::Vni }
    }

    /// Zero for the usual frame.
    #[inline(always)]
    fn differs(&self, head: &[u8; HEAD]) -> u64 {
        let [first, second, third] = &self.headers;
        let differs = |at: usize, (mask, value): &(u64, u64)| {
            let word = head.get(at..at + 8).and_then(|b| b.first_chunk()).copied().unwrap_or_default();
            (u64::from_ne_bytes(word) & mask) ^ value
        };
        // From the EtherType on, from the fragment field on, from the UDP destination port on.
        differs(12, first) | differs(20, second) | differs(36, third)
    }
}

impl Decap {
    /// The hop for this tunnel.
    pub fn new(tunnel: Tunnel) -> Self {
        let sources = Sources::new(&tunnel);
        let usual = tunnel.profile.fixed.map(|shape| Usual::new(tunnel.port, shape, tunnel.profile.scope));
        Decap { tunnel, sources, usual }
    }

    /// The tunnel it knows.
    #[inline(always)]
    pub fn tunnel(&self) -> &Tunnel {
        &self.tunnel
    }

    /// The usual frame is looked at in one piece, so that its facts go from registers to `meta`; the unusual one has a
    /// function of its own instead of joining in the middle.
    #[inline(always)]
    fn frame(&mut self, frame: &Mbuf, meta: &mut Meta, unknown: &mut u64) -> Outcome {
        let data = frame.data();
        match self.usual(data) {
            Some(envelope) => self.accept(data, frame, envelope, meta, unknown),
            None => self.unusual(data, frame, meta, unknown),
        }
    }

    #[cold]
    #[inline(never)]
    fn unusual(&mut self, data: &[u8], frame: &Mbuf, meta: &mut Meta, unknown: &mut u64) -> Outcome {
        match self.general(data, frame) {
            Ok(envelope) => self.accept(data, frame, envelope, meta, unknown),
            Err(outcome) => outcome,
        }
    }

    /// The usual frame: no tag, no IP options, no fragment, the profile's option block in its usual order.
    #[inline(always)]
    fn usual<'a>(&self, data: &'a [u8]) -> Option<Envelope<'a>> {
        let usual = self.usual.as_ref()?;
        let head = data.first_chunk::<HEAD>()?;
        let (_, options) = head.split_last_chunk::<SHAPE_LEN>()?;
        let total = u16::from_be_bytes([head[16], head[17]]);
        let udp_len = u16::from_be_bytes([head[38], head[39]]);
        let end = OUTER + usize::from(total);
        let lengths = usize::from(udp_len) + 20 == usize::from(total) && end <= data.len();
        if usual.differs(head) | usual.shape.differs(options) != 0 || !lengths {
            return None;
        }
        let found = usual.shape.found(options);
        let vni = u32::from_be_bytes([0, head[46], head[47], head[48]]);
        let endpoint = if usual.vni { u64::from(vni) } else { found.endpoint };
        Some(Envelope {
            outer: OUTER,
            outer_header_len: 20,
            ip: head.get(OUTER..)?.first_chunk()?,
            udp: head.get(OUTER + 20..)?.first_chunk()?,
            inner: usual.inner,
            end,
            protocol: u16::from_be_bytes([head[44], head[45]]),
            endpoint,
            cookie: found.cookie,
        })
    }

    /// Any frame: finds the envelope, or says what becomes of the frame without one.
    fn general<'a>(&self, data: &'a [u8], frame: &Mbuf) -> Result<Envelope<'a>, Outcome> {
        use DropReason as R;
        let drop = Outcome::Drop;
        let eth = Eth::new_checked(data).map_err(|_| drop(R::OuterTruncated))?;
        if eth.ethertype() != eth::IPV4 {
            return Err(Outcome::Punt);
        }
        let outer = eth.header_len();
        let ip = Ipv4::new_checked(eth.payload()).map_err(|bad| drop(outer_reason(bad)))?;
        if frame.ip_checksum() != Checksum::Good && !ip.header_checksum_ok() {
            return Err(drop(R::OuterChecksum));
        }
        if !self.is_ours(ip.destination().octets()) || ip.protocol() != UDP {
            return Err(Outcome::Punt);
        }
        if ip.is_fragment() {
            return Err(drop(R::OuterFragment));
        }
        // The port decides whether it is tunnel traffic, even if the header that it stands in lies about its length.
        let Some(header) = ip.payload().first_chunk::<{ udp::HEADER_LEN }>() else {
            return Err(drop(R::UdpLength));
        };
        if u16::from_be_bytes([header[2], header[3]]) != self.tunnel.port {
            return Err(Outcome::Punt);
        }
        if !self.sources.has(ip.source()) {
            return Err(drop(R::ForeignSource));
        }
        let udp = Udp::new_checked(ip.payload()).map_err(|_| drop(R::UdpLength))?;
        let geneve = Geneve::new_checked(udp.payload()).map_err(|bad| drop(geneve_reason(bad)))?;
        if geneve.control() {
            return Err(drop(R::GeneveControl));
        }
        let found = self.tunnel.profile.read(&geneve).map_err(drop)?;
        let start = outer + ip.header_len() + udp::HEADER_LEN;
        let Some(fixed) = eth.payload().first_chunk() else { return Err(drop(R::OuterTruncated)) };
        Ok(Envelope {
            outer,
            outer_header_len: ip.header_len(),
            ip: fixed,
            udp: header,
            inner: start + geneve.header_len(),
            end: start + udp.payload().len(),
            protocol: geneve.protocol(),
            endpoint: found.endpoint,
            cookie: found.cookie,
        })
    }

    /// What both ways have in common: is it right, is it from a friend, and what is in it?
    #[inline(always)]
    fn accept(
        &mut self,
        data: &[u8],
        frame: &Mbuf,
        envelope: Envelope<'_>,
        meta: &mut Meta,
        unknown: &mut u64,
    ) -> Outcome {
        let Envelope { outer, outer_header_len, ip, udp, inner, end, protocol, endpoint, cookie } = envelope;
        // The general walk has summed its header (and options) already.
        if outer_header_len == 20 && frame.ip_checksum() != Checksum::Good && !ipv4::header_sum_ok(ip) {
            return Outcome::Drop(DropReason::OuterChecksum);
        }
        let (node, destination) = (four(ip, 12), four(ip, 16));
        if !self.is_ours(destination) {
            return Outcome::Punt;
        }
        if !self.sources.accepts(node) {
            return Outcome::Drop(DropReason::ForeignSource);
        }
        // Zero is none (RFC 768).
        let sum = u16::from_ne_bytes([udp[6], udp[7]]);
        if sum != 0 && !self.checksum_passes(data.get(outer + outer_header_len..end), ip, frame, unknown) {
            return Outcome::Drop(DropReason::UdpChecksum);
        }
        let Some(packet) = data.get(inner..end) else { return Outcome::Drop(DropReason::GeneveTruncated) };
        meta.endpoint = endpoint;
        meta.cookie = cookie;
        meta.outer = outer as u8;
        meta.outer_header_len = outer_header_len as u8;
        meta.inner = inner as u16; // at most 18 + 60 + 8 + 260
        meta.outer_tos = ip[1];
        meta.outer_source_port = u16::from_be_bytes([udp[0], udp[1]]);
        meta.node = node;
        match Inner::usual(packet, protocol) {
            Some(found) => {
                note(meta, packet, &found);
                Outcome::Live
            }
            None => unusual_inner(packet, protocol, meta),
        }
    }

    #[inline(always)]
    fn is_ours(&self, destination: [u8; 4]) -> bool {
        match self.tunnel.addresses.as_slice() {
            // Unicast: classes A to C (RFC 1112 section 4 for the rest).
            [] => destination[0] < 224,
            ours => ours.contains(&Ipv4Addr::from(destination)),
        }
    }

    /// `tunnel.verify_checksum`, for a datagram that has a checksum.
    #[inline(always)]
    fn checksum_passes(
        &self,
        datagram: Option<&[u8]>,
        ip: &[u8; 20],
        frame: &Mbuf,
        unknown: &mut u64,
    ) -> bool {
        match (self.tunnel.verify_checksum, frame.l4_checksum()) {
            (VerifyChecksum::Never, _) | (_, Checksum::Good) => true,
            (_, Checksum::Bad) => false,
            (VerifyChecksum::Always, Checksum::Unknown) => sum_ok(ip, datagram),
            (VerifyChecksum::Auto, Checksum::Unknown) => {
                *unknown += 1;
                true
            }
        }
    }
}

#[inline(never)]
fn sum_ok(ip: &[u8; 20], datagram: Option<&[u8]>) -> bool {
    let [.., s0, s1, s2, s3, d0, d1, d2, d3] = *ip;
    datagram.is_some_and(|d| checksum::verify_udp_v4([s0, s1, s2, s3].into(), [d0, d1, d2, d3].into(), d))
}

/// Four bytes of a header as they stand. One load, where four indices would be taken apart and put together again.
#[inline(always)]
fn four(header: &[u8; 20], at: usize) -> [u8; 4] {
    header.get(at..at + 4).and_then(|bytes| bytes.first_chunk()).copied().unwrap_or_default()
}

/// Writes down what is in the envelope.
#[inline(always)]
fn note(meta: &mut Meta, packet: &[u8], found: &Inner) {
    meta.protocol = found.protocol;
    meta.flags = found.flags;
    meta.inner_len = found.len;
    meta.transport = meta.inner + found.transport;
    meta.transport_len = found.transport_len;
    meta.source_port = found.source_port;
    meta.destination_port = found.destination_port;
    meta.tcp_flags = found.tcp_flags;
    // While they are at hand: track would have to look for the frame and check its length again.
    meta.addresses = packet.get(12..).and_then(|bytes| bytes.first_chunk()).copied().unwrap_or_default();
}

#[cold]
#[inline(never)]
fn unusual_inner(packet: &[u8], protocol: u16, meta: &mut Meta) -> Outcome {
    match Inner::any(packet, protocol) {
        Ok(found) => {
            note(meta, packet, &found);
            if found.transport_len == 0 {
                meta.transport = 0;
            }
            Outcome::Live
        }
        Err(reason) => Outcome::Drop(reason),
    }
}

/// Looks at every frame of the batch.
#[inline(always)]
pub(super) fn run(decap: &mut Decap, batch: &mut Batch, counters: &WorkerCounters) {
    let (mut bytes, mut unknown) = (0, 0);
    let (mut punted, mut dropped) = (Mask::NONE, Mask::NONE);
    let (frames, meta, reasons) = batch.slots();
    for (slot, ((frame, meta), reason)) in frames.iter().zip(meta).zip(reasons).enumerate() {
        if let Some(later) = frames.get(slot + rx::ahead()) {
            later.prefetch();
        }
        bytes += frame.len() as u64;
        match decap.frame(frame, meta, &mut unknown) {
            Outcome::Live => continue,
            Outcome::Punt => punted.insert(slot),
            Outcome::Drop(why) => {
                *reason = why.into();
                dropped.insert(slot);
            }
        }
        *meta = Meta::default(); // not what is left of an earlier frame in this slot
    }
    batch.leave(punted, dropped, bytes);
    counters.received_bytes.add(bytes);
    if unknown > 0 {
        counters.checksum_unknown.add(unknown);
    }
}

/// What is wrong with an outer IPv4 header.
fn outer_reason(bad: Malformed) -> DropReason {
    match bad {
        Malformed::Truncated | Malformed::Length => DropReason::OuterTruncated,
        _ => DropReason::OuterHeader,
    }
}

/// What is wrong with a GENEVE header.
fn geneve_reason(bad: Malformed) -> DropReason {
    match bad {
        Malformed::Version => DropReason::GeneveVersion,
        _ => DropReason::GeneveTruncated,
    }
}

/// `tunnel.allowed_sources`. A load balancer has few nodes, so the last friend is remembered.
#[derive(Clone, Debug)]
struct Sources {
    /// Network and mask.
    prefixes: Vec<(u32, u32)>,
    last: [u8; 4],
}

impl Sources {
    fn new(tunnel: &Tunnel) -> Self {
        let prefix = |net: &ipnet::Ipv4Net| (net.network().to_bits(), net.netmask().to_bits());
        let prefixes: Vec<_> = tunnel.allowed_sources.iter().map(prefix).collect();
        // Somebody who is a friend.
        let last = prefixes.first().map_or(ANY_HOST, |(net, _)| *net);
        Sources { prefixes, last: last.to_be_bytes() }
    }

    #[inline(always)]
    fn accepts(&mut self, source: [u8; 4]) -> bool {
        source == self.last || self.another(source)
    }

    #[inline(never)]
    fn another(&mut self, source: [u8; 4]) -> bool {
        let has = self.has(source.into());
        if has {
            self.last = source;
        }
        has
    }

    fn has(&self, source: Ipv4Addr) -> bool {
        match self.prefixes.as_slice() {
            // Everyone, but who answers multicast, broadcast, loopback or "this network" answers many or nobody (RFC 1122
            // section 3.2.1.3).
            [] => matches!(source.octets()[0], 1..=126 | 128..=223),
            prefixes => prefixes.iter().any(|(net, mask)| source.to_bits() & mask == *net),
        }
    }
}
