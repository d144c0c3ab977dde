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
use crate::packet::{Batch, DropReason, Meta};
use crate::wire::eth::{self, Eth};
use crate::wire::geneve::{FixedShape, Geneve, Scope};
use crate::wire::inner::Inner;
use crate::wire::ipv4::{self, Ipv4};
use crate::wire::udp::{self, Udp};
use crate::wire::{Malformed, checksum};

/// Outer IPv4 header in a frame without a VLAN tag.
const OUTER: usize = 14;
/// GENEVE options in a frame without a VLAN tag and IP options: Ethernet 14, IPv4 20, UDP 8, GENEVE 8.
const OPTIONS: usize = 50;
/// IP protocol UDP.
const UDP: u8 = 17;
/// The O bit of GENEVE's second byte.
const CONTROL: u8 = 0x80;

/// The hop with what it knows of the tunnel.
#[derive(Clone, Debug)]
pub struct Decap {
    tunnel: Tunnel,
    sources: Sources,
}

/// What becomes of a frame here.
enum Outcome {
    Live,
    Punt,
    Drop(DropReason),
}

/// Where the envelope's parts are, and what it says.
struct Envelope {
    outer: usize,
    outer_header_len: usize,
    /// Behind the GENEVE options.
    inner: usize,
    /// End of the UDP payload.
    end: usize,
    protocol: u16,
    endpoint: u64,
    cookie: u32,
}

impl Decap {
    /// The hop for this tunnel.
    pub fn new(tunnel: Tunnel) -> Self {
        let sources = Sources::new(&tunnel);
        Decap { tunnel, sources }
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
            Some(envelope) => self.accept(data, frame, &envelope, meta, unknown),
            None => self.unusual(data, frame, meta, unknown),
        }
    }

    #[cold]
    #[inline(never)]
    fn unusual(&mut self, data: &[u8], frame: &Mbuf, meta: &mut Meta, unknown: &mut u64) -> Outcome {
        match self.general(data, frame) {
            Ok(envelope) => self.accept(data, frame, &envelope, meta, unknown),
            Err(outcome) => outcome,
        }
    }

    /// The usual frame: no tag, no IP options, no fragment, the profile's option block in its usual order.
    #[inline(always)]
    fn usual(&self, data: &[u8]) -> Option<Envelope> {
        let fixed: &FixedShape = self.tunnel.profile.fixed.as_ref()?;
        let (h, _) = data.split_first_chunk::<OPTIONS>()?;
        let total = u16::from_be_bytes([h[16], h[17]]);
        let udp_len = u16::from_be_bytes([h[38], h[39]]);
        let differs = (u16::from_be_bytes([h[12], h[13]]) ^ eth::IPV4)
            | u16::from(h[14] ^ 0x45)
            | (u16::from_be_bytes([h[20], h[21]]) & 0x3fff)
            | u16::from(h[23] ^ UDP)
            | (u16::from_be_bytes([h[36], h[37]]) ^ self.tunnel.port)
            | (udp_len.wrapping_add(20) ^ total)
            | u16::from(h[43] & CONTROL);
        let end = OUTER + usize::from(total);
        if differs != 0 {
            return None;
        }
        // Version and length of the options share a byte: another version cannot have the shape's length.
        let found = fixed.read(usize::from(h[42]) * 4, data.get(OPTIONS..end)?)?;
        let endpoint = match self.tunnel.profile.scope {
            Scope::Endpoint => found.endpoint,
            Scope::Vni => u64::from(u32::from_be_bytes([0, h[46], h[47], h[48]])),
        };
        Some(Envelope {
            outer: OUTER,
            outer_header_len: 20,
            inner: OPTIONS + fixed.len,
            end,
            protocol: u16::from_be_bytes([h[44], h[45]]),
            endpoint,
            cookie: found.cookie,
        })
    }

    /// Any frame: finds the envelope, or says what becomes of the frame without one.
    fn general(&self, data: &[u8], frame: &Mbuf) -> Result<Envelope, Outcome> {
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
        if !self.is_ours(ip.destination()) || ip.protocol() != UDP {
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
        Ok(Envelope {
            outer,
            outer_header_len: ip.header_len(),
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
        envelope: &Envelope,
        meta: &mut Meta,
        unknown: &mut u64,
    ) -> Outcome {
        let Envelope { outer, outer_header_len, inner, end, protocol, endpoint, cookie } = *envelope;
        let udp = outer + outer_header_len;
        let Some(ip) = data.get(outer..).and_then(|b| b.first_chunk::<20>()) else {
            return Outcome::Drop(DropReason::OuterTruncated);
        };
        // The general walk has summed its header (and options) already.
        if outer_header_len == 20 && frame.ip_checksum() != Checksum::Good && !ipv4::header_sum_ok(ip) {
            return Outcome::Drop(DropReason::OuterChecksum);
        }
        let node = [ip[12], ip[13], ip[14], ip[15]];
        if !self.is_ours(Ipv4Addr::new(ip[16], ip[17], ip[18], ip[19])) {
            return Outcome::Punt;
        }
        if !self.sources.accepts(Ipv4Addr::from(node)) {
            return Outcome::Drop(DropReason::ForeignSource);
        }
        let Some(datagram) = data.get(udp..end) else { return Outcome::Drop(DropReason::OuterTruncated) };
        if !self.checksum_passes(ip, datagram, frame, unknown) {
            return Outcome::Drop(DropReason::UdpChecksum);
        }
        let Some(packet) = data.get(inner..end) else { return Outcome::Drop(DropReason::GeneveTruncated) };
        meta.endpoint = endpoint;
        meta.cookie = cookie;
        meta.outer = outer as u8;
        meta.outer_header_len = outer_header_len as u8;
        meta.inner = inner as u16; // at most 18 + 60 + 8 + 260
        meta.outer_tos = ip[1];
        meta.outer_source_port = datagram.first_chunk().map_or(0, |b| u16::from_be_bytes(*b));
        meta.node = node;
        match Inner::usual(packet, protocol) {
            Some(found) => {
                note(meta, &found);
                Outcome::Live
            }
            None => unusual_inner(packet, protocol, meta),
        }
    }

    #[inline(always)]
    fn is_ours(&self, destination: Ipv4Addr) -> bool {
        match self.tunnel.addresses.as_slice() {
            // Unicast: classes A to C (RFC 1112 section 4 for the rest).
            [] => destination.octets()[0] < 224,
            ours => ours.contains(&destination),
        }
    }

    /// `tunnel.verify_checksum`; a checksum of zero is none (RFC 768).
    #[inline(always)]
    fn checksum_passes(&self, ip: &[u8; 20], datagram: &[u8], frame: &Mbuf, unknown: &mut u64) -> bool {
        let Some([.., high, low]) = datagram.first_chunk::<8>() else { return false };
        if high | low == 0 || self.tunnel.verify_checksum == VerifyChecksum::Never {
            return true;
        }
        match frame.l4_checksum() {
            Checksum::Good => true,
            Checksum::Bad => false,
            Checksum::Unknown if self.tunnel.verify_checksum == VerifyChecksum::Always => {
                let [.., s0, s1, s2, s3, d0, d1, d2, d3] = *ip;
                checksum::verify_udp_v4([s0, s1, s2, s3].into(), [d0, d1, d2, d3].into(), datagram)
            }
            Checksum::Unknown => {
                *unknown += 1;
                true
            }
        }
    }
}

/// Writes down what is in the envelope.
#[inline(always)]
fn note(meta: &mut Meta, found: &Inner) {
    meta.protocol = found.protocol;
    meta.flags = found.flags;
    meta.inner_len = found.len;
    meta.transport = if found.transport_len == 0 { 0 } else { meta.inner + found.transport };
    meta.transport_len = found.transport_len;
    meta.source_port = found.source_port;
    meta.destination_port = found.destination_port;
    meta.tcp_flags = found.tcp_flags;
}

#[cold]
#[inline(never)]
fn unusual_inner(packet: &[u8], protocol: u16, meta: &mut Meta) -> Outcome {
    match Inner::any(packet, protocol) {
        Ok(found) => {
            note(meta, &found);
            Outcome::Live
        }
        Err(reason) => Outcome::Drop(reason),
    }
}

/// Looks at every frame of the batch.
#[inline(always)]
pub(super) fn run(decap: &mut Decap, batch: &mut Batch, counters: &WorkerCounters) {
    let (mut bytes, mut unknown) = (0, 0);
    for slot in 0..batch.len() {
        if let Some(later) = batch.frames.as_slice().get(slot + rx::ahead()) {
            later.prefetch();
        }
        let Some((frame, meta)) = batch.slot(slot) else { continue };
        bytes += frame.len() as u64;
        match decap.frame(frame, meta, &mut unknown) {
            Outcome::Live => {}
            Outcome::Punt => batch.punt(slot),
            Outcome::Drop(reason) => batch.drop_slot(slot, reason),
        }
    }
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
    last: u32,
}

impl Sources {
    fn new(tunnel: &Tunnel) -> Self {
        let prefix = |net: &ipnet::Ipv4Net| (net.network().to_bits(), net.netmask().to_bits());
        let prefixes: Vec<_> = tunnel.allowed_sources.iter().map(prefix).collect();
        // Somebody who is a friend, or, if there are none, an address that nobody has (RFC 1122 section 3.2.1.3).
        let last = prefixes.first().map_or(0, |(net, _)| *net);
        Sources { prefixes, last }
    }

    #[inline(always)]
    fn accepts(&mut self, source: Ipv4Addr) -> bool {
        source.to_bits() == self.last || self.another(source)
    }

    #[inline(never)]
    fn another(&mut self, source: Ipv4Addr) -> bool {
        let has = self.has(source);
        if has {
            self.last = source.to_bits();
        }
        has
    }

    fn has(&self, source: Ipv4Addr) -> bool {
        self.prefixes.is_empty() || self.prefixes.iter().any(|(net, mask)| source.to_bits() & mask == *net)
    }
}
