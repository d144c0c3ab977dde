//! The envelope as a load balancer puts it on, and how it comes off again.
//!
//! ```text
//! frame of a leg:   [Ethernet 14 or 18][packet][padding]
//! to the target:    [Ethernet 14][IPv4 20][UDP 8][GENEVE 8][options][packet]      wrap
//! back on a leg:    [Ethernet as it was][packet][padding]                         strip
//! ```
//!
//! The packet does not move: headers go in front of it, into the headroom, and come off there. The outer header is what AWS sends: ID 0, DF
//! clear, TTL 255, TOS 0; a valid UDP checksum, or none where the caller wants none; all options of the profile in its order.
//!
//! May assume: `link` and `inner` lie inside the frame, and the packet is as long as its IP header says. Promises: no allocation, no panic, and
//! a frame that is refused is as it was. Who gets a frame, and under which cookie, is others' business.

use std::net::Ipv4Addr;

use crate::dpdk::Mbuf;
use crate::packet::DropReason;
use crate::wire::geneve::{self, Profile, Role, SHAPE_LEN, Scope};
use crate::wire::{checksum, eth, ipv4, udp};

/// Headers in front of the options: Ethernet, IPv4, UDP, GENEVE.
const HEADERS: usize = UDP + udp::HEADER_LEN + geneve::HEADER_LEN;
/// Where the UDP header is.
const UDP: usize = eth::HEADER_LEN + ipv4::HEADER_LEN;
/// The longest envelope: no profile's options are longer.
const LONGEST: usize = HEADERS + SHAPE_LEN;
/// Shortest frame that goes out on a leg (IEEE 802.3 without the check sequence).
const SHORTEST: usize = 60;
/// Ports that AWS sends from begin here.
const FIRST_SOURCE_PORT: u16 = 60_000;

/// What all envelopes of a gateway have in common.
#[derive(Clone, Debug)]
pub struct Wrapper {
    profile: &'static Profile,
    /// Our MAC address on the side of the targets.
    mac: [u8; 6],
    /// Our address there: the outer source.
    address: Ipv4Addr,
    /// UDP destination port.
    port: u16,
    /// Largest inner packet, in bytes: the profile's, or what the port's MTU leaves room for.
    max_inner: u16,
    /// With a UDP checksum.
    sums: bool,
    /// Bits of a cookie that are the flow's own, and those that mark the direction.
    own: u32,
    turn: u32,
}

/// What is a packet's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// MAC address of the target, or of the router to it.
    pub mac: [u8; 6],
    /// Address of the target: the outer destination.
    pub target: Ipv4Addr,
    /// UDP source port ([`source_port`]).
    pub source_port: u16,
    /// The endpoint by which the packet came in. Of a profile without an option for it, the lower 24 bits are the VNI.
    pub endpoint: u64,
    /// The flow's cookie, the same in both directions ([`Wrapper::cookie`] makes of it what is sent).
    pub cookie: u32,
    /// The packet travels against the one that opened the flow.
    pub reply: bool,
    /// The packet is IPv6.
    pub ipv6: bool,
}

/// The outer source port of a flow: the same for both directions, as its hash is, and for as long as it lives. 60000 to 65535, as AWS has it.
#[inline(always)]
pub fn source_port(hash: u64) -> u16 {
    let ports = u64::from(u16::MAX - FIRST_SOURCE_PORT) + 1;
    // Bits that Maglev's choice does not depend on much: flows of one target have all ports.
    FIRST_SOURCE_PORT + ((u64::from(hash as u32) * ports) >> 32) as u16
}

impl Wrapper {
    /// A gateway of this profile, whose side of the targets has these addresses and this MTU, and whose targets listen on this UDP port. `None` for a
    /// profile whose options are longer than an envelope has room for.
    pub fn new(
        profile: &'static Profile,
        (mac, address): ([u8; 6], Ipv4Addr),
        port: u16,
        mtu: u16,
    ) -> Option<Self> {
        let options: usize = profile.options.iter().map(|rule| 4 + usize::from(rule.len)).sum();
        let around = (HEADERS - eth::HEADER_LEN + options) as u16;
        let max_inner = profile.max_return.min(mtu.saturating_sub(around));
        let rule = profile.options.iter().find(|rule| rule.role == Role::Cookie);
        // What lies above the lowest bit of the direction is the direction's.
        let (own, turn) = match rule.map(|rule| rule.turn) {
            None => (0, 0),
            Some(0) => (u32::MAX, 0),
            Some(turn) => ((1 << turn.trailing_zeros()) - 1, turn),
        };
        (options <= SHAPE_LEN).then_some(Wrapper {
            profile,
            mac,
            address,
            port,
            max_inner,
            sums: true,
            own,
            turn,
        })
    }

    /// The same without a UDP checksum (RFC 768: zero), as Google's sends.
    #[must_use]
    pub fn without_checksum(self) -> Self {
        Wrapper { sums: false, ..self }
    }

    /// The cookie as it stands in packets of a direction: some profiles mark the direction in its upper bits.
    #[inline(always)]
    pub fn cookie(&self, cookie: u32, reply: bool) -> u32 {
        cookie & self.own ^ if reply { self.turn } else { 0 }
    }

    /// Is a cookie that came back this one? What marks the direction is not looked at: appliances send packets of their own under the cookie that they
    /// have, and AWS's are the same both ways.
    #[inline(always)]
    pub fn is_cookie(&self, cookie: u32, came: u32) -> bool {
        (cookie ^ came) & self.own == 0
    }

    /// Largest inner packet, in bytes.
    #[inline(always)]
    pub fn max_inner(&self) -> u16 {
        self.max_inner
    }

    /// Puts the packet that stands behind `link` bytes of Ethernet header, `len` bytes long, into an envelope. Padding behind it goes.
    #[inline]
    pub fn wrap(&self, frame: &mut Mbuf, link: usize, len: u16, to: &Address) -> Result<(), DropReason> {
        let mut head = [0; LONGEST];
        let options = self.options(&mut head, to);
        let around = ipv4::HEADER_LEN + udp::HEADER_LEN + geneve::HEADER_LEN + options;
        let total = len.checked_add(around as u16).filter(|_| len <= self.max_inner);
        let Some(total) = total else { return Err(DropReason::TooBig) };
        let before = eth::HEADER_LEN + around;
        if frame.len() < link + usize::from(len) || frame.headroom() + link < before {
            return Err(DropReason::TooBig);
        }
        self.headers(&mut head, to, total, options);
        frame.truncate(link + usize::from(len));
        frame.cut_front(link);
        let (Some(room), Some(head)) = (frame.prepend(before), head.get(..before)) else {
            return Err(DropReason::TooBig); // asked above
        };
        room.copy_from_slice(head);
        if self.sums
            && let Some(datagram) = frame.data_mut().get_mut(UDP..)
        {
            let sum = checksum::udp_v4(self.address, to.target, datagram);
            if let Some(place) = datagram.get_mut(6..8) {
                place.copy_from_slice(&sum.to_be_bytes());
            }
        }
        Ok(())
    }

    /// Writes the options, and says how many bytes they have.
    #[inline(always)]
    fn options(&self, head: &mut [u8; LONGEST], to: &Address) -> usize {
        let mut at = HEADERS;
        for rule in self.profile.options {
            let len = usize::from(rule.len);
            let [high, low] = rule.class.to_be_bytes();
            put(head, at, &[high, low, rule.kind, rule.len / 4]);
            let turned = if to.reply { rule.turn } else { 0 };
            match rule.role {
                // One of 16 bytes is folded by its reader: the other half is zero.
                Role::Endpoint => put(head, at + 4, &to.endpoint.to_be_bytes()),
                Role::Cookie => put(head, at + 4, &self.cookie(to.cookie, to.reply).to_be_bytes()),
                Role::Attachment | Role::Other => put(head, at + 4, &turned.to_be_bytes()),
            }
            at += 4 + len;
        }
        at - HEADERS
    }

    /// Writes everything in front of them.
    #[inline(always)]
    fn headers(&self, head: &mut [u8; LONGEST], to: &Address, total: u16, options: usize) {
        let link = eth::Fields { destination: to.mac, source: self.mac, ethertype: eth::IPV4 };
        let ip = ipv4::Fields {
            tos: 0,
            total_len: total,
            id: 0,
            dont_fragment: false,
            ttl: 255,
            protocol: 17,
            source: self.address,
            destination: to.target,
        };
        let datagram = udp::Fields {
            source_port: to.source_port,
            destination_port: self.port,
            len: total - ipv4::HEADER_LEN as u16,
            checksum: 0,
        };
        let tunnel = geneve::Fields {
            options_len: options,
            protocol: if to.ipv6 { eth::IPV6 } else { eth::IPV4 },
            vni: if self.profile.scope == Scope::Vni { to.endpoint as u32 } else { 0 },
        };
        put(head, 0, &link.emit());
        put(head, eth::HEADER_LEN, &ip.emit());
        put(head, UDP, &datagram.emit());
        put(head, UDP + udp::HEADER_LEN, &tunnel.emit());
    }
}

/// Takes the packet at `inner`, `len` bytes long, out of its envelope, and puts an Ethernet header in front of it. A short frame is padded with zeros, as
/// a card would. False, and nothing changed, if there is no room.
#[inline]
pub fn strip(frame: &mut Mbuf, inner: usize, len: u16, link: &[u8]) -> bool {
    let end = inner + usize::from(len);
    let padding = SHORTEST.saturating_sub(link.len() + usize::from(len));
    let room = frame.tailroom() + frame.len().saturating_sub(end);
    if frame.len() < end || frame.headroom() + inner < link.len() || room < padding {
        return false;
    }
    frame.truncate(end);
    frame.cut_front(inner);
    if let Some(head) = frame.prepend(link.len()) {
        head.copy_from_slice(link);
    }
    frame.append(padding).is_some()
}

#[inline(always)]
fn put(head: &mut [u8; LONGEST], at: usize, bytes: &[u8]) {
    if let Some(place) = head.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests;
