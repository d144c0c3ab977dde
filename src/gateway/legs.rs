//! Legs: where frames of an endpoint come in and go out, and the Ethernet header that they have there.
//!
//! An endpoint has two legs, and is transparent between them: a frame leaves by the other leg than the one that it came in by, under the MAC
//! addresses that it had. A leg is a port, or a VLAN of one; tags are put on, changed and taken off on the way, and priorities stay.

use crate::dpdk::Mbuf;
use crate::wire::eth;

/// VLANs of a port.
const VLANS: usize = 4096;
/// Priority and DEI of a tag; the rest is the VLAN.
const PRIORITY: u16 = 0xf000;
/// Bytes of a tag.
const TAG: usize = 4;
/// Where the addresses end.
const ADDRESSES: usize = 12;
/// The longest header: addresses, a tag, the EtherType.
const LONGEST: usize = eth::HEADER_LEN + TAG;

/// One leg of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leg {
    /// Place of its port among the worker's lanes.
    pub lane: u8,
    /// Its VLAN; none for frames without a tag.
    pub vlan: Option<u16>,
    /// Largest packet that its port takes.
    pub mtu: u16,
}

/// Which leg of which endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LegId(u16);

impl LegId {
    const NONE: LegId = LegId(u16::MAX);

    /// Leg 0 or 1 of the endpoint of that number.
    pub fn new(endpoint: u16, side: u8) -> Self {
        LegId(endpoint << 1 | u16::from(side & 1))
    }

    /// Number of the endpoint.
    #[inline(always)]
    pub fn endpoint(self) -> u16 {
        self.0 >> 1
    }

    /// 0 or 1.
    #[inline(always)]
    pub fn side(self) -> u8 {
        (self.0 & 1) as u8
    }
}

/// The legs of one port.
#[derive(Clone, Debug)]
pub struct Legs {
    untagged: LegId,
    /// By VLAN; empty where no leg has one.
    tagged: Box<[LegId]>,
}

impl Legs {
    /// No leg.
    pub fn none() -> Self {
        Legs { untagged: LegId::NONE, tagged: Box::default() }
    }

    /// Adds one. The configuration has made sure that nobody has the place.
    pub fn add(&mut self, vlan: Option<u16>, leg: LegId) {
        let Some(vlan) = vlan else {
            self.untagged = leg;
            return;
        };
        if self.tagged.is_empty() {
            self.tagged = vec![LegId::NONE; VLANS].into();
        }
        if let Some(place) = self.tagged.get_mut(usize::from(vlan)) {
            *place = leg;
        }
    }

    /// The leg of a frame with this VLAN, or none. VLAN 0 is none: such a tag only has a priority (IEEE 802.1Q).
    #[inline(always)]
    pub fn of(&self, vlan: Option<u16>) -> Option<LegId> {
        let leg = match vlan {
            None | Some(0) => self.untagged,
            Some(vlan) => self.tagged.get(usize::from(vlan)).copied().unwrap_or(LegId::NONE),
        };
        (leg != LegId::NONE).then_some(leg)
    }
}

/// What is remembered of an Ethernet header: both addresses as they stand, and the priority of its tag.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Header {
    addresses: [u8; ADDRESSES],
    priority: u16,
}

impl Header {
    /// Of a frame that was found to have one.
    #[inline(always)]
    pub fn of(frame: &[u8], link: usize) -> Header {
        let addresses = frame.first_chunk().copied().unwrap_or_default();
        let tag = if link > eth::HEADER_LEN { frame.get(14..16).and_then(|b| b.first_chunk()) } else { None };
        Header { addresses, priority: tag.map_or(0, |tag| u16::from_be_bytes(*tag) & PRIORITY) }
    }

    /// That of a frame the other way.
    pub fn turned(self) -> Header {
        let [a, b, c, d, e, f, g, h, i, j, k, l] = self.addresses;
        Header { addresses: [g, h, i, j, k, l, a, b, c, d, e, f], ..self }
    }

    /// As it is written on a leg.
    #[inline(always)]
    pub fn on(&self, leg: &Leg, ethertype: u16) -> (usize, [u8; LONGEST]) {
        let mut out = [0; LONGEST];
        let [e0, e1] = ethertype.to_be_bytes();
        let [_, _, _, _, _, _, _, _, _, _, _, _, rest @ ..] = &mut out;
        let len = match leg.vlan {
            None => {
                *rest = [e0, e1, 0, 0, 0, 0];
                eth::HEADER_LEN
            }
            Some(vlan) => {
                let [t0, t1] = (vlan | self.priority).to_be_bytes();
                let [v0, v1] = eth::VLAN.to_be_bytes();
                *rest = [v0, v1, t0, t1, e0, e1];
                LONGEST
            }
        };
        if let Some(place) = out.first_chunk_mut() {
            *place = self.addresses;
        }
        (len, out)
    }
}

/// Makes a frame that passes by a frame of the other leg: only its tag changes. False, and nothing changed, if there is no room for one.
pub fn pass_by(frame: &mut Mbuf, to: &Leg) -> bool {
    let data = frame.data_mut();
    let Some(&addresses) = data.first_chunk::<ADDRESSES>() else { return false };
    let is_tagged = data.get(ADDRESSES..ADDRESSES + 2) == Some(&eth::VLAN.to_be_bytes());
    match (is_tagged, to.vlan) {
        (true, Some(vlan)) => {
            let Some(tag) = data.get_mut(14..).and_then(|b| b.first_chunk_mut::<2>()) else { return false };
            *tag = (u16::from_be_bytes(*tag) & PRIORITY | vlan).to_be_bytes();
            true
        }
        (true, None) => {
            // A tag of VLAN 0 came in without being asked for, and goes out as it is.
            if data
                .get(14..16)
                .and_then(|b| b.first_chunk())
                .is_some_and(|t| u16::from_be_bytes(*t) & !PRIORITY == 0)
            {
                return true;
            }
            frame.cut_front(TAG);
            match frame.data_mut().first_chunk_mut() {
                Some(place) => *place = addresses,
                None => return false,
            }
            true
        }
        (false, Some(vlan)) => {
            let Some(head) = frame.prepend(TAG) else { return false };
            let _ = head; // what lies in front is written with the rest
            let [v0, v1] = eth::VLAN.to_be_bytes();
            let [t0, t1] = vlan.to_be_bytes();
            let data = frame.data_mut();
            if let Some(place) = data.first_chunk_mut() {
                *place = addresses;
            }
            if let Some(place) = data.get_mut(ADDRESSES..).and_then(|b| b.first_chunk_mut()) {
                *place = [v0, v1, t0, t1];
            }
            true
        }
        (false, None) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dpdk::{Mempool, PoolConfig};

    fn leg(vlan: Option<u16>) -> Leg {
        Leg { lane: 0, vlan, mtu: 1500 }
    }

    const ADDRESSES: [u8; 12] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];

    fn frame(tag: Option<u16>) -> Vec<u8> {
        let tag = tag.map(|tag| [0x81, 0x00, (tag >> 8) as u8, tag as u8]);
        [&ADDRESSES[..], tag.as_ref().map_or(&[], |tag| &tag[..]), &[0x08, 0x06], &[7; 46]].concat()
    }

    #[test]
    fn a_tag_is_changed_put_on_and_taken_off() {
        let config = PoolConfig { name: "t".into(), buffers: 1, data_room: 2048, cache: 0, numa: None };
        let pool = Mempool::soft(&config);
        for (from, to, want) in [
            (None, None, None),
            (None, Some(20), Some(20)),
            (Some(0x6000 | 10), Some(20), Some(0x6000 | 20)),
            (Some(0x6000 | 10), None, None),
            // A priority alone.
            (Some(0x6000), None, Some(0x6000)),
            (Some(0x6000), Some(20), Some(0x6000 | 20)),
        ] {
            let mut buffer = pool.alloc().unwrap();
            assert!(buffer.write(&frame(from)));
            assert!(pass_by(&mut buffer, &leg(to)));
            assert_eq!(buffer.data(), frame(want), "{from:?} {to:?}");
        }
        let mut runt = pool.alloc().unwrap();
        assert!(runt.write(&[1; 11]));
        assert!(!pass_by(&mut runt, &leg(Some(1))));
    }

    #[test]
    fn headers_come_out_as_they_went_in() {
        let tagged = frame(Some(0xe000 | 10));
        let header = Header::of(&tagged, 18);
        let (len, bytes) = header.on(&leg(Some(10)), eth::ARP);
        assert_eq!(bytes[..len], tagged[..18]);
        let (len, bytes) = header.on(&leg(None), eth::ARP);
        assert_eq!(bytes[..len], frame(None)[..14]);
        let (_, bytes) = header.turned().on(&leg(None), eth::ARP);
        assert_eq!(bytes[..12], [&ADDRESSES[6..], &ADDRESSES[..6]].concat());
        assert_eq!(header.turned().turned(), header);
    }

    #[test]
    fn legs_are_found_by_vlan() {
        let mut legs = Legs::none();
        assert_eq!(legs.of(None), None);
        assert_eq!(legs.of(Some(4095)), None);
        legs.add(None, LegId::new(3, 1));
        legs.add(Some(10), LegId::new(4, 0));
        assert_eq!(legs.of(Some(0)), legs.of(None));
        assert_eq!(legs.of(None).map(|leg| (leg.endpoint(), leg.side())), Some((3, 1)));
        assert_eq!(legs.of(Some(10)).map(|leg| (leg.endpoint(), leg.side())), Some((4, 0)));
        assert_eq!(legs.of(Some(11)), None);
    }
}
