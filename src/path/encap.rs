//! Hop 5, encap: the envelope turns around.
//!
//! MAC and outer IP addresses change places; the UDP ports do not, nor does any other byte: the load balancer wants its envelope
//! back. Both outer checksums are sums over the same words and stay right by themselves. What stages edited was repaired
//! when they edited it ([`crate::packet::Packet::patch`]).
//!
//! May drop: [`DropReason::TooBig`].

use crate::config::Tunnel;
use crate::dpdk::Mbuf;
use crate::packet::{Batch, DropReason, Mask, Meta};

/// Outer IPv4 header without a VLAN tag in front.
const UNTAGGED: usize = 14;

/// Turns every live slot around. What the load balancer or the port (`mtu`) would not take is dropped, as it came; those slots are
/// returned.
#[inline(never)]
pub(super) fn run(tunnel: &Tunnel, mtu: u16, batch: &mut Batch) -> Mask {
    let edited = batch.edited() & batch.live();
    // What nobody changed came in through a port, and fits.
    let mut too_big = if edited.is_empty() { Mask::NONE } else { longer(batch, edited, mtu) };
    let live = batch.live().without(too_big);
    let (frames, meta) = batch.slots_mut();
    let mut turn = |slot: usize, frame: &mut Mbuf, meta: &Meta| {
        if meta.inner_len > tunnel.max_return {
            too_big.insert(slot);
        } else {
            turn_around(frame.data_mut(), usize::from(meta.outer));
        }
    };
    if live == Mask::first(frames.len()) {
        for (slot, (frame, meta)) in frames.iter_mut().zip(meta).enumerate() {
            turn(slot, frame, meta);
        }
    } else {
        for slot in live {
            if let (Some(frame), Some(meta)) = (frames.get_mut(slot), meta.get(slot)) {
                turn(slot, frame, meta);
            }
        }
    }
    if !too_big.is_empty() {
        batch.drop_all(too_big, DropReason::TooBig);
    }
    too_big
}

/// Those of the slots whose outer packet is longer than the MTU.
#[cold]
fn longer(batch: &Batch, slots: Mask, mtu: u16) -> Mask {
    let mut longer = Mask::NONE;
    for slot in slots {
        let packet = batch.frame(slot).len().saturating_sub(usize::from(batch.meta(slot).outer));
        if packet > usize::from(mtu) {
            longer.insert(slot);
        }
    }
    longer
}

/// Swaps MAC addresses, and the IPv4 addresses of the header at `outer`.
#[inline(always)]
fn turn_around(data: &mut [u8], outer: usize) {
    // decap passed this frame: the headers are there. The patterns only spare the checks, and one does for the usual frame.
    match data.first_chunk_mut::<{ UNTAGGED + 20 }>() {
        Some(head) if outer == UNTAGGED => swap(head, UNTAGGED),
        _ => swap(data, outer),
    }
}

#[inline(always)]
fn swap(data: &mut [u8], outer: usize) {
    if let Some(eth) = data.first_chunk_mut::<12>() {
        // Two words that overlap, each made of both: a byte at a time takes three times as many instructions.
        let (Some(first), Some(last)) = (eth.first_chunk(), eth.last_chunk()) else { return };
        let (first, last) = (u64::from_le_bytes(*first), u64::from_le_bytes(*last));
        if let Some(front) = eth.first_chunk_mut() {
            *front = (last >> 16 | first << 48).to_le_bytes();
        }
        if let Some(back) = eth.last_chunk_mut() {
            *back = (last >> 48 | first << 16).to_le_bytes();
        }
    }
    if let Some(addresses) = data.get_mut(outer + 12..).and_then(|b| b.first_chunk_mut::<8>()) {
        *addresses = u64::from_ne_bytes(*addresses).rotate_left(32).to_ne_bytes();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_change_places() {
        let mut frame: Vec<u8> = (0..60).collect();
        turn_around(&mut frame, 14);
        let mut want: Vec<u8> = (0..60).collect();
        want[0..12].rotate_left(6);
        want[26..34].rotate_left(4);
        assert_eq!(frame, want);
        turn_around(&mut frame, 14);
        assert_eq!(frame, (0..60).collect::<Vec<u8>>());
    }

    #[test]
    fn a_tag_moves_the_addresses_by_four() {
        let mut frame: Vec<u8> = (0..60).collect();
        turn_around(&mut frame, 18);
        assert_eq!(frame[30..38], [34, 35, 36, 37, 30, 31, 32, 33]);
        assert_eq!(frame[12..30], (12..30).collect::<Vec<u8>>());
    }
}
