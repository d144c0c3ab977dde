//! The tunnel header that a flow remembers of each direction, and frames of our own that go home under it.
//!
//! A load balancer takes back only what looks like the flow it knows: its node as destination, the UDP source port it chose, the
//! cookie it issued. Any of these may change in the middle of a flow, so the newest counts. A frame that we make ourselves
//! takes everything else from the frame it answers, the *template*: MAC addresses, VLAN tag, our own address, GENEVE header
//! and options, and whether there is a UDP checksum (zero stays zero, RFC 768).
//!
//! Which envelope: the newest of the direction in which the frame travels; if none was seen, the template's own, turned by the
//! profile ([`Home::back`], [`Home::on`]).
//!
//! The outer header is a new one of 20 bytes: TOS 0, id 0, DF as in the template, TTL 255 as AWS sends it (and takes any back).
//! Outer IP options, which no load balancer sends, are left out.
//!
//! Assumes of the template what decap promises: every offset of its [`Meta`] lies inside it.
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

use crate::packet::Meta;
use crate::wire::geneve::{self, Profile};
use crate::wire::{checksum, eth, ipv4, udp};

const TTL: u8 = 255;
const UDP: u8 = 17;

/// What a load balancer tells a flow by. The endpoint is not in it: it is the flow's scope. Where a scope is a tenant's and
/// the directions of a flow use two endpoints, the other direction's envelope is of no use to an answer made from this one's frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize)]
#[repr(C)]
pub struct Envelope {
    /// Outer address of the load balancer's node.
    #[serde(serialize_with = "address")]
    pub node: [u8; 4],
    /// Flow cookie, 0 where the profile has none.
    pub cookie: u32,
    /// UDP source port, host order.
    pub port: u16,
}

fn address<S: serde::Serializer>(node: &[u8; 4], to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&std::net::Ipv4Addr::from(*node))
}

impl Envelope {
    /// The envelope of a packet that came in.
    #[inline(always)]
    pub fn of(meta: &Meta) -> Self {
        Envelope { node: meta.node, cookie: meta.cookie, port: meta.outer_source_port }
    }

    /// What the other direction's is if nothing was seen of it: the same, but for a cookie that knows its direction.
    pub fn turned(self, profile: &Profile) -> Self {
        Envelope { cookie: profile.turned_cookie(self.cookie), ..self }
    }
}

/// How an answer goes home.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Home {
    /// Under which envelope.
    pub envelope: Envelope,
    /// It travels against the packet that it answers.
    pub against: bool,
}

impl Home {
    /// To the sender of the packet. `newest` is the envelope of that direction.
    pub fn back(meta: &Meta, newest: Option<Envelope>, profile: &Profile) -> Self {
        let envelope = newest.unwrap_or_else(|| Envelope::of(meta).turned(profile));
        Home { envelope, against: true }
    }

    /// To the receiver of the packet. `newest` is the envelope of that direction, at least as new as the packet's own.
    pub fn on(meta: &Meta, newest: Option<Envelope>) -> Self {
        Home { envelope: newest.unwrap_or(Envelope::of(meta)), against: false }
    }
}

/// Bytes in front of the inner packet of a frame made from this template.
pub fn head_len(meta: &Meta) -> usize {
    let options = usize::from(meta.outer_header_len).saturating_sub(ipv4::HEADER_LEN);
    usize::from(meta.inner).saturating_sub(options)
}

/// Writes the head of a frame whose inner packet is in place behind [`head_len`] bytes. `None`, with the frame in no
/// state to be sent, if that is no IP packet, the template is not what its facts say, or the whole is too long for IPv4.
pub fn seal(frame: &mut [u8], template: &[u8], meta: &Meta, profile: &Profile, home: Home) -> Option<()> {
    let outer = usize::from(meta.outer);
    let ethertype = match frame.get(head_len(meta))? >> 4 {
        4 => eth::IPV4,
        6 => eth::IPV6,
        _ => return None,
    };
    let ip: &[u8; ipv4::HEADER_LEN] = template.get(outer..)?.first_chunk()?;
    let tunnel = template.get(outer + usize::from(meta.outer_header_len)..usize::from(meta.inner))?;
    let (their_udp, their_geneve) = tunnel.split_first_chunk::<{ udp::HEADER_LEN }>()?;
    let [_, _, _, _, _, _, fragment, .., a, b, c, d] = *ip;

    let (link, packet) = frame.split_at_mut_checked(outer)?;
    link.copy_from_slice(template.get(..outer)?);
    let (macs, _) = link.split_first_chunk_mut::<12>()?;
    macs.rotate_left(6);

    let total = u16::try_from(packet.len()).ok()?;
    let header = ipv4::Fields {
        tos: 0,
        total_len: total,
        id: 0,
        dont_fragment: fragment & 0x40 != 0,
        ttl: TTL,
        protocol: UDP,
        source: [a, b, c, d].into(),
        destination: home.envelope.node.into(),
    };
    let (to, datagram) = packet.split_first_chunk_mut::<{ ipv4::HEADER_LEN }>()?;
    *to = header.emit();

    let (_, message) = datagram.split_first_chunk_mut::<{ udp::HEADER_LEN }>()?;
    let (head, _) = message.split_at_mut_checked(their_geneve.len())?;
    head.copy_from_slice(their_geneve);
    let (base, options) = head.split_first_chunk_mut::<{ geneve::HEADER_LEN }>()?;
    [base[2], base[3]] = ethertype.to_be_bytes();
    profile.rewrite(options, home.envelope.cookie, home.against)?;

    let mut fields = udp::Fields {
        source_port: home.envelope.port,
        destination_port: u16::from_be_bytes([their_udp[2], their_udp[3]]),
        len: total.checked_sub(ipv4::HEADER_LEN as u16)?,
        checksum: 0,
    };
    *datagram.first_chunk_mut()? = fields.emit();
    if their_udp[6..] != [0, 0] {
        fields.checksum = checksum::udp_v4(header.source, header.destination, datagram);
        *datagram.first_chunk_mut()? = fields.emit();
    }
    Some(())
}

#[cfg(test)]
mod tests;
