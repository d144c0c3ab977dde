//! What a packet is about that does not speak for itself: the packet that an ICMP error quotes, and the datagram that a fragment
//! is a piece of.

use super::key::{Key, Seed};
use crate::packet::{InnerFlags, Meta};
use crate::wire::icmp::{Family, Icmp};
use crate::wire::ipv4::Ipv4;
use crate::wire::ipv6::Ipv6;
use crate::wire::transport;

/// The key of the packet that an ICMP error quotes, and whether that was sent by the higher end. `None` for anything but an ICMP
/// error, and for a quote from which its flow cannot be told: a later fragment, or one cut off in front of its ports.
#[cold]
pub(crate) fn key(scope: u64, meta: &Meta, frame: &[u8]) -> Option<(Key, bool)> {
    let start = usize::from(meta.transport);
    let message = frame.get(start..start + usize::from(meta.transport_len))?;
    let family = if meta.is_ipv6() { Family::V6 } else { Family::V4 };
    let quote = Icmp::new_checked(family, message).ok()?.quoted()?;
    let (protocol, payload) = if meta.is_ipv6() {
        let upper = Ipv6::new_quoted(quote).ok()?.upper().ok()?;
        if upper.fragment.is_some_and(|fragment| fragment.offset != 0) {
            return None;
        }
        (upper.protocol, upper.payload)
    } else {
        let ip = Ipv4::new_quoted(quote).ok()?;
        if ip.fragment_offset() != 0 {
            return None;
        }
        (ip.protocol(), ip.payload())
    };
    let is_icmp = protocol == if meta.is_ipv6() { transport::ICMPV6 } else { transport::ICMP };
    let ports = if is_icmp {
        let id = Icmp::new_checked(family, payload).ok()?.echo_id().unwrap_or(0);
        (id, id)
    } else if transport::header_len(protocol).is_some() {
        transport::ports(payload)?
    } else {
        (0, 0)
    };
    Key::of_ends(scope, meta.is_ipv6(), protocol, quote, ports)
}

/// Is it an ICMP error?
#[inline(always)]
pub(crate) fn is_error(meta: &Meta) -> bool {
    if !meta.flags.has(InnerFlags::ICMP) {
        return false;
    }
    let kind = (meta.source_port >> 8) as u8;
    if meta.is_ipv6() { kind < 128 } else { matches!(kind, 3 | 4 | 5 | 11 | 12) }
}

/// Hash of the datagram of which the packet is a piece; the same for all its pieces.
#[cold]
pub(crate) fn datagram(seed: &Seed, scope: u64, meta: &Meta, frame: &[u8]) -> Option<u64> {
    let packet = frame.get(usize::from(meta.inner)..)?.get(..usize::from(meta.inner_len))?;
    if meta.is_ipv6() {
        let id = Ipv6::new_checked(packet).ok()?.upper().ok()?.fragment?.id;
        let words = packet.get(8..)?.first_chunk::<32>()?.as_chunks::<8>().0;
        let word = |n: usize| words.get(n).map_or(0, |w| u64::from_be_bytes(*w));
        // The protocol behind the fragment header is the first fragment's to say (RFC 8200 section 4.5): it is not part of the name.
        return Some(seed.datagram(scope, &[word(0), word(1), word(2), word(3)], 0, id));
    }
    let ip = Ipv4::new_checked(packet).ok()?;
    let addresses = [ip.source().to_bits().into(), 0, ip.destination().to_bits().into(), 0];
    Some(seed.datagram(scope, &addresses, ip.protocol(), ip.id().into()))
}
