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
use crate::dpdk::{BURST, Checksum, Mbuf, Pattern};
use crate::packet::{Batch, DropReason, Mask, Meta, ReasonId};
use crate::wire::eth::{self, Eth};
use crate::wire::geneve::{FixedShape, Found, Geneve, SHAPE_LEN, Scope};
use crate::wire::inner::{Inner, PlainV4};
use crate::wire::ipv4::{self, Ipv4};
use crate::wire::udp::{self, Udp};
use crate::wire::{Malformed, checksum};

/// Outer IPv4 header in a frame without a VLAN tag.
const OUTER: usize = 14;
/// GENEVE options in a frame without a VLAN tag and IP options: Ethernet 14, IPv4 20, UDP 8, GENEVE 8.
const OPTIONS: usize = 50;
/// What the usual frame is recognised by: its headers, and as much of what follows as the widest option block.
const HEAD: usize = OPTIONS + SHAPE_LEN;
/// That, without the MAC addresses: from here on. A multiple of 16 bytes.
const COMPARED: usize = 10;
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
    friends: Friends,
    usual: Usual,
    plain: PlainV4,
    /// `verify_checksum = "auto"`: what the driver does not know is believed, and counted.
    believes: bool,
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
#[derive(Clone, Debug)]
struct Usual {
    /// From the EtherType to the end of the options.
    pattern: Pattern<{ HEAD - COMPARED }>,
    shape: FixedShape,
    /// Where the options have eight bytes of endpoint and four of cookie; `None` for a profile that has them otherwise.
    simple: Option<(u8, u8)>,
    /// Behind the options.
    inner: usize,
    /// The scope is the VNI.
    vni: bool,
}

impl Usual {
    fn new(port: u16, shape: FixedShape, scope: Scope) -> Self {
        let [p0, p1] = port.to_be_bytes();
        // Version 0 and the length of the options share a byte.
        let options = (shape.len / 4) as u8;
        let headers = [
            // EtherType, version and header length; any TOS, length, id.
            (12, [0xff, 0xff, 0xff, 0, 0, 0, 0, 0], [0x08, 0x00, 0x45, 0, 0, 0, 0, 0]),
            // Not a fragment (any DF), any TTL, protocol; any checksum.
            (20, [0x3f, 0xff, 0, 0xff, 0, 0, 0, 0], [0, 0, 0, UDP, 0, 0, 0, 0]),
            // Port; any length and checksum; GENEVE's first byte, O bit.
            (36, [0xff, 0xff, 0, 0, 0, 0, 0xff, CONTROL], [p0, p1, 0, 0, 0, 0, options, 0]),
        ];
        let options = shape
            .words
            .iter()
            .enumerate()
            .map(|(word, (mask, value))| (OPTIONS + 8 * word, mask.to_ne_bytes(), value.to_ne_bytes()));
        let mut pattern = Pattern { mask: [0; HEAD - COMPARED], value: [0; HEAD - COMPARED] };
        for (at, mask, value) in headers.into_iter().chain(options) {
            let part = at - COMPARED..at - COMPARED + 8;
            for (place, bytes) in [(&mut pattern.mask, mask), (&mut pattern.value, value)] {
                if let Some(place) = place.get_mut(part.clone()) {
                    place.copy_from_slice(&bytes);
                }
            }
        }
        let simple = match (scope, shape.endpoint, shape.cookie_at) {
            (Scope::Endpoint, (at @ 0..32, 8), Some(cookie @ 0..32)) => Some((at as u8, cookie as u8)),
            _ => None,
        };
        Usual { pattern, shape, simple, inner: OPTIONS + shape.len, vni: scope == Scope::Vni }
    }

    /// Of a profile that has no usual frame: nothing fits.
    fn none() -> Self {
        let pattern = Pattern { mask: [0; HEAD - COMPARED], value: [0xff; HEAD - COMPARED] };
        let shape = FixedShape { len: 0, words: Default::default(), endpoint: (0, 0), cookie_at: None };
        Usual { pattern, shape, simple: None, inner: OPTIONS, vni: false }
    }

    /// Scope and cookie of a frame that it is.
    #[inline(always)]
    fn found(&self, head: &[u8; HEAD]) -> Found {
        let Some((endpoint, cookie)) = self.simple else { return self.otherwise(head) };
        // The masks, beyond which neither lies, spare the checks.
        let (endpoint, cookie) = (OPTIONS + usize::from(endpoint & 31), OPTIONS + usize::from(cookie & 31));
        let eight = head.get(endpoint..endpoint + 8).and_then(|b| b.first_chunk()).copied();
        let four = head.get(cookie..cookie + 4).and_then(|b| b.first_chunk()).copied();
        Found { endpoint: eight.map_or(0, u64::from_be_bytes), cookie: four.map_or(0, u32::from_be_bytes) }
    }

    #[cold]
    #[inline(never)]
    fn otherwise(&self, head: &[u8; HEAD]) -> Found {
        let found =
            head.last_chunk().map_or(Found { endpoint: 0, cookie: 0 }, |block| self.shape.found(block));
        let vni = u32::from_be_bytes([0, head[46], head[47], head[48]]);
        Found { endpoint: if self.vni { vni.into() } else { found.endpoint }, ..found }
    }
}

impl Decap {
    /// The hop for this tunnel.
    pub fn new(tunnel: Tunnel) -> Self {
        let friends = Friends::new(&tunnel);
        let usual = tunnel.profile.fixed.map(|shape| Usual::new(tunnel.port, shape, tunnel.profile.scope));
        let usual = usual.unwrap_or_else(Usual::none);
        let believes = tunnel.verify_checksum == VerifyChecksum::Auto;
        Decap { tunnel, friends, usual, plain: PlainV4::NEW, believes }
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
        let usual = &self.usual;
        let head = data.first_chunk::<HEAD>()?;
        let total = u16::from_be_bytes([head[16], head[17]]);
        let udp_len = u16::from_be_bytes([head[38], head[39]]);
        let end = OUTER + usize::from(total);
        let lengths = usize::from(udp_len) + 20 == usize::from(total) && end <= data.len();
        if !lengths || !usual.pattern.fits(head.last_chunk()?) {
            return None;
        }
        let Found { endpoint, cookie } = usual.found(head);
        Some(Envelope {
            outer: OUTER,
            outer_header_len: 20,
            ip: head.get(OUTER..)?.first_chunk()?,
            udp: head.get(OUTER + 20..)?.first_chunk()?,
            inner: usual.inner,
            end,
            protocol: u16::from_be_bytes([head[44], head[45]]),
            endpoint,
            cookie,
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
        if !self.friends.is_ours(ip.destination().octets()) || ip.protocol() != UDP {
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
        if !self.friends.has(ip.source()) {
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
        let addresses = bytes::<8>(ip, 12);
        if let Some(outcome) = self.friends.judge(addresses) {
            return outcome;
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
        meta.outer_source_port = u16::from_be_bytes([udp[0], udp[1]]);
        meta.node = bytes(ip, 12);
        // Over IPv4 in line, the rest in a function of its own: together they would share code, and each would have to tell it
        // where everything is.
        match Inner::usual_v4(packet, &self.plain) {
            Some(found) if protocol == eth::IPV4 => {
                note(meta, packet, &found);
                Outcome::Live
            }
            _ => other_inner(packet, protocol, meta),
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
        // The usual answers first: the branches are the same for every frame of a driver.
        if frame.l4_checksum_unknown() {
            if self.believes {
                *unknown += 1;
                return true;
            }
            return self.tunnel.verify_checksum == VerifyChecksum::Never || sum_ok(ip, datagram);
        }
        frame.l4_checksum() == Checksum::Good || self.tunnel.verify_checksum == VerifyChecksum::Never
    }
}

#[inline(never)]
fn sum_ok(ip: &[u8; 20], datagram: Option<&[u8]>) -> bool {
    let [.., s0, s1, s2, s3, d0, d1, d2, d3] = *ip;
    datagram.is_some_and(|d| checksum::verify_udp_v4([s0, s1, s2, s3].into(), [d0, d1, d2, d3].into(), d))
}

/// Bytes of a header as they stand. One load, where indices would be taken apart and put together again.
#[inline(always)]
fn bytes<const N: usize>(header: &[u8; 20], at: usize) -> [u8; N] {
    header.get(at..at + N).and_then(|bytes| bytes.first_chunk()).copied().unwrap_or([0; N])
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

/// What is not TCP or UDP in plain IPv4.
#[inline(never)]
fn other_inner(packet: &[u8], protocol: u16, meta: &mut Meta) -> Outcome {
    match Inner::usual(packet, protocol) {
        Some(found) => {
            note(meta, packet, &found);
            Outcome::Live
        }
        None => unusual_inner(packet, protocol, meta),
    }
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

/// What became of frames that do not go on.
struct Fates<'a> {
    reasons: &'a mut [ReasonId; BURST],
    punted: Mask,
    dropped: Mask,
}

impl Fates<'_> {
    /// Out of line, so that the loop over frames has one way through.
    #[inline(never)]
    fn note(&mut self, slot: usize, outcome: Outcome, meta: &mut Meta) {
        match outcome {
            Outcome::Live => return,
            Outcome::Punt => self.punted.insert(slot),
            Outcome::Drop(why) => {
                self.dropped.insert(slot);
                if let Some(reason) = self.reasons.get_mut(slot) {
                    *reason = why.into();
                }
            }
        }
        *meta = Meta::default(); // not what is left of an earlier frame in this slot
    }
}

/// Looks at every frame of the batch. A function of its own, so that its loop has all registers.
#[inline(never)]
pub(crate) fn run(decap: &mut Decap, batch: &mut Batch, counters: &WorkerCounters) {
    let mut unknown = 0;
    let (frames, metas, reasons) = batch.slots();
    let mut fates = Fates { reasons, punted: Mask::NONE, dropped: Mask::NONE };
    for (slot, (frame, meta)) in frames.iter().zip(metas).enumerate() {
        if let Some(later) = frames.get(slot + rx::ahead()) {
            later.prefetch();
        }
        match decap.frame(frame, meta, &mut unknown) {
            Outcome::Live => {}
            other => fates.note(slot, other, meta),
        }
    }
    let Fates { punted, dropped, .. } = fates;
    batch.leave(punted, dropped);
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

/// Who may send to us, and what addresses we have: `tunnel.allowed_sources` and `tunnel.addresses`. A load balancer has few nodes, so
/// the pair of addresses that was let in last is remembered, as it stands in the header.
#[derive(Clone, Debug)]
struct Friends {
    /// Network and mask.
    sources: Vec<(u32, u32)>,
    ours: Vec<Ipv4Addr>,
    last: u64,
}

impl Friends {
    fn new(tunnel: &Tunnel) -> Self {
        let prefix = |net: &ipnet::Ipv4Net| (net.network().to_bits(), net.netmask().to_bits());
        let mut friends = Friends {
            sources: tunnel.allowed_sources.iter().map(prefix).collect(),
            ours: tunnel.addresses.clone(),
            last: 0,
        };
        // Somebody who is let in.
        let node = friends.sources.first().map_or(ANY_HOST, |(net, _)| *net);
        let own = friends.ours.first().map_or(ANY_HOST, |own| own.to_bits());
        friends.last = u64::from_be(u64::from(node) << 32 | u64::from(own));
        friends
    }

    /// What becomes of a packet with these outer addresses (source, destination) that is not let in.
    #[inline(always)]
    fn judge(&mut self, addresses: [u8; 8]) -> Option<Outcome> {
        if u64::from_ne_bytes(addresses) == self.last { None } else { self.another(addresses) }
    }

    #[cold]
    #[inline(never)]
    fn another(&mut self, addresses: [u8; 8]) -> Option<Outcome> {
        let [a, b, c, d, destination @ ..] = addresses;
        if !self.is_ours(destination) {
            return Some(Outcome::Punt);
        }
        if !self.has([a, b, c, d].into()) {
            return Some(Outcome::Drop(DropReason::ForeignSource));
        }
        self.last = u64::from_ne_bytes(addresses);
        None
    }

    fn is_ours(&self, destination: [u8; 4]) -> bool {
        match self.ours.as_slice() {
            // Unicast: classes A to C (RFC 1112 section 4 for the rest).
            [] => destination[0] < 224,
            ours => ours.contains(&Ipv4Addr::from(destination)),
        }
    }

    fn has(&self, source: Ipv4Addr) -> bool {
        match self.sources.as_slice() {
            // Everyone, but who answers multicast, broadcast, loopback or "this network" answers many or nobody (RFC 1122
            // section 3.2.1.3).
            [] => matches!(source.octets()[0], 1..=126 | 128..=223),
            prefixes => prefixes.iter().any(|(net, mask)| source.to_bits() & mask == *net),
        }
    }
}
