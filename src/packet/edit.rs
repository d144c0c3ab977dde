//! One packet as a stage sees it, and the two ways to change it.
//!
//! Changes go through [`Packet::patch`] and [`Packet::resize`], so that the envelope stays right without a second look at the
//! payload: the outer UDP checksum is updated incrementally (RFC 1624) and zero stays zero (RFC 768, no checksum). The
//! inner checksums belong to whoever changes the inner packet.

use std::net::{IpAddr, SocketAddr};

use super::{Mask, Meta, View};
use crate::dpdk::Mbuf;
use crate::wire::checksum;

/// One packet of a batch.
#[derive(Debug)]
pub struct Packet<'a> {
    frame: &'a mut Mbuf,
    meta: &'a mut Meta,
    edited: &'a mut Mask,
    slot: usize,
    sealed: bool,
}

impl<'a> Packet<'a> {
    #[inline(always)]
    pub(crate) fn new(frame: &'a mut Mbuf, meta: &'a mut Meta, edited: &'a mut Mask, slot: usize) -> Self {
        Packet { frame, meta, edited, slot, sealed: false }
    }

    /// The same, as a stage in shadow mode sees it: what can be changed is said to be, and stays as it is.
    pub(super) fn sealed(self) -> Self {
        Packet { sealed: true, ..self }
    }

    /// What is known of it.
    #[inline(always)]
    pub fn meta(&self) -> &Meta {
        self.meta
    }

    /// The same packet, to look at only.
    #[inline(always)]
    pub fn view(&self) -> View<'_> {
        View::new(self.frame.data(), self.meta)
    }

    /// The inner packet, as long as its IP header says.
    #[inline(always)]
    pub fn inner(&self) -> &[u8] {
        self.view().inner()
    }

    /// The inner transport header and what follows it; empty in a later fragment.
    #[inline(always)]
    pub fn transport(&self) -> &[u8] {
        self.view().transport()
    }

    /// Inner source address.
    pub fn source(&self) -> IpAddr {
        self.view().source()
    }

    /// Inner destination address.
    pub fn destination(&self) -> IpAddr {
        self.view().destination()
    }

    /// As [`View::originator`].
    pub fn originator(&self) -> SocketAddr {
        self.view().originator()
    }

    /// As [`View::responder`].
    pub fn responder(&self) -> SocketAddr {
        self.view().responder()
    }

    /// Overwrites bytes of the inner packet, `at` bytes behind its start, and keeps the outer UDP checksum right.
    /// False (and nothing changed) if they do not fit into the inner packet.
    pub fn patch(&mut self, at: usize, bytes: &[u8]) -> bool {
        let inner = self.meta.inner as usize;
        let udp = self.meta.outer as usize + self.meta.outer_header_len as usize;
        if at.checked_add(bytes.len()).is_none_or(|end| end > self.meta.inner_len as usize) {
            return false;
        }
        if self.sealed {
            return true;
        }
        let data = self.frame.data_mut();
        // The payload is summed in 16-bit words from the UDP header on: widen the change to whole words.
        let from = inner + at;
        let start = from - (from - udp) % 2;
        let end = (udp + (from + bytes.len() - udp).next_multiple_of(2)).min(data.len());
        let Some(old) = data.get(start..end) else { return false };
        let before = checksum::sum(old);
        let Some(place) = data.get_mut(from..from + bytes.len()) else { return false };
        place.copy_from_slice(bytes);
        let after = checksum::sum(data.get(start..end).unwrap_or(&[]));
        change(data, udp + 6, before, after);
        self.edited.insert(self.slot);
        true
    }

    /// Cuts or extends (with zeros) the inner packet to `len` bytes; outer lengths and checksums follow, the inner IP length is
    /// the caller's. Bytes behind the inner packet go away. False (and nothing changed) if there is no room.
    pub fn resize(&mut self, len: usize) -> bool {
        let (outer, inner) = (self.meta.outer as usize, self.meta.inner as usize);
        let udp = outer + self.meta.outer_header_len as usize;
        let frame_len = self.frame.len();
        let want = inner.saturating_add(len);
        if want > u16::MAX as usize || (want > frame_len && want - frame_len > self.frame.tailroom()) {
            return false;
        }
        if self.sealed {
            return true;
        }
        let data = self.frame.data();
        let (Some(ip), Some(udp_old)) = (word(data, outer + 2), word(data, udp + 4)) else { return false };
        let udp_end = (udp + udp_old as usize).min(frame_len);
        // Zeros do not change the sum; what goes away does, also what lay behind the inner packet. An odd cut splits a word:
        // sum from its even start.
        let kept = want.min(inner + self.meta.inner_len as usize).min(udp_end);
        let start = kept - (kept - udp) % 2;
        let before = checksum::sum(data.get(start..udp_end).unwrap_or(&[]));
        let after = checksum::sum(data.get(start..kept).unwrap_or(&[]));
        if want > frame_len {
            if self.frame.append(want - frame_len).is_none() {
                return false;
            }
        } else {
            self.frame.truncate(want);
        }
        let data = self.frame.data_mut();
        if let Some(added) = data.get_mut(kept..) {
            added.fill(0);
        }
        let (ip_new, udp_new) = ((want - outer) as u16, (want - udp) as u16);
        put(data, outer + 2, ip_new);
        put(data, udp + 4, udp_new);
        change(data, outer + 10, ip as u32, ip_new as u32);
        change(data, udp + 6, before, after);
        // The length counts twice: in the header and in the pseudo header.
        change(data, udp + 6, udp_old as u32 * 2, udp_new as u32 * 2);
        self.meta.inner_len = len as u16;
        if self.meta.transport != 0 {
            self.meta.transport_len = (want as u16).saturating_sub(self.meta.transport);
        }
        self.edited.insert(self.slot);
        true
    }
}

fn word(data: &[u8], at: usize) -> Option<u16> {
    data.get(at..)?.first_chunk().copied().map(u16::from_be_bytes)
}

fn put(data: &mut [u8], at: usize, value: u16) {
    if let Some(place) = data.get_mut(at..at + 2) {
        place.copy_from_slice(&value.to_be_bytes());
    }
}

/// Updates the checksum at `at` for a change of the summed words; zero means "none" and stays.
fn change(data: &mut [u8], at: usize, before: u32, after: u32) {
    if let Some(old) = word(data, at).filter(|&c| c != 0) {
        let new = checksum::update(old, before, after);
        put(data, at, if new == 0 { 0xffff } else { new });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dpdk::{Mempool, PoolConfig};
    use crate::packet::{Batch, DropReason, FlowFlags, InnerFlags};

    /// A frame of 70 bytes that is a later fragment: outer IPv4 at 14, UDP at 34, 20 bytes of inner packet at 50.
    fn batch() -> Batch {
        let config = PoolConfig { name: "edit".into(), buffers: 1, data_room: 256, cache: 0, numa: None };
        let mut frame = Mempool::soft(&config).alloc().unwrap();
        let mut bytes: Vec<u8> = (0..70).collect();
        bytes[16..18].copy_from_slice(&56u16.to_be_bytes());
        bytes[38..40].copy_from_slice(&36u16.to_be_bytes());
        assert!(frame.write(&bytes));
        let mut batch = Batch::new();
        batch.frames.push(frame).unwrap();
        batch.begin();
        let flags = InnerFlags(InnerFlags::LATER_FRAGMENT);
        let facts =
            Meta { outer: 14, outer_header_len: 20, inner: 50, inner_len: 20, flags, ..Meta::default() };
        batch.slots().1[0] = facts;
        batch
    }

    #[test]
    fn offsets_past_every_number_are_refused() {
        let mut batch = batch();
        let before = batch.frame(0).to_vec();
        let mut packet = batch.packet(0).unwrap();
        assert!(!packet.patch(usize::MAX, &[0xee]));
        assert!(!packet.patch(20, &[0xee]));
        assert!(!packet.resize(usize::MAX));
        assert_eq!((batch.frame(0), batch.edited()), (&before[..], Mask::NONE));
    }

    #[test]
    fn a_later_fragment_has_no_transport_header_at_any_length() {
        for len in [8, 20, 40] {
            let mut batch = batch();
            let mut packet = batch.packet(0).unwrap();
            assert!(packet.resize(len));
            assert_eq!((packet.inner().len(), packet.transport()), (len, &[][..]));
        }
    }

    /// 10.0.0.1:1000 opened a connection to 10.0.0.2:443; each direction of it, and what shows no ports.
    #[test]
    fn the_originator_is_who_opened_the_flow_whichever_way_a_packet_travels() {
        let (client, server) = ("10.0.0.1:1000".parse().unwrap(), "10.0.0.2:443".parse().unwrap());
        let ends = |reply: bool, flags: u8, flow_flags: u8| {
            let mut batch = batch();
            let (from, to) =
                if reply { ([10, 0, 0, 2], [10, 0, 0, 1]) } else { ([10, 0, 0, 1], [10, 0, 0, 2]) };
            assert!(batch.packet(0).unwrap().patch(12, &[from, to].concat()));
            let meta = batch.meta_mut(0).unwrap();
            (meta.source_port, meta.destination_port) = if reply { (443, 1000) } else { (1000, 443) };
            meta.flags = InnerFlags(flags);
            meta.flow_flags = FlowFlags(flow_flags);
            let packet = batch.packet(0).unwrap();
            (packet.originator(), packet.responder())
        };
        assert_eq!(ends(false, InnerFlags::PORTS, 0), (client, server));
        assert_eq!(ends(false, InnerFlags::PORTS, FlowFlags::NEW), (client, server));
        assert_eq!(ends(true, InnerFlags::PORTS, FlowFlags::REPLY), (client, server));
        assert_eq!(
            ends(true, InnerFlags::PORTS, 0),
            (server, client),
            "who sends opens, unless told otherwise"
        );
        let without = |mut end: SocketAddr| {
            end.set_port(0);
            end
        };
        assert_eq!(ends(true, InnerFlags::ICMP, FlowFlags::REPLY), (without(client), without(server)));
        let error = FlowFlags::REPLY | FlowFlags::RELATED;
        assert_eq!(ends(true, InnerFlags::ICMP, error), (without(server), without(client)));
    }

    #[test]
    fn only_live_slots_can_be_changed() {
        let mut dropped = batch();
        dropped.drop_slot(0, DropReason::TooBig);
        assert!(dropped.packet(0).is_none());
        let mut punted = batch();
        punted.leave(Mask::one(0), Mask::NONE);
        assert!(punted.packet(0).is_none());
        assert!(batch().packet(1).is_none());
    }
}
