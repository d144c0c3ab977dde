use super::*;
use crate::wire::eth;

/// RFC 9293 section 3.5.2, group 1: no connection, no ACK in the segment.
#[test]
fn a_first_syn_is_reset_by_its_acknowledgment() {
    let mut packet = ipv4::Fields {
        tos: 0x2e << 2 | 1,
        total_len: 44,
        id: 9,
        dont_fragment: true,
        ttl: 3,
        protocol: 6,
        source: [10, 0, 0, 1].into(),
        destination: [10, 0, 0, 2].into(),
    }
    .emit()
    .to_vec();
    let syn = tcp::Fields {
        source_port: 1025,
        destination_port: 80,
        sequence: u32::MAX - 1,
        acknowledgment: 77,
        flags: tcp::SYN,
        window: 1000,
        checksum: 0,
    };
    packet.extend(syn.emit());
    packet.extend(*b"data");
    let inner = Inner::parse(&packet, eth::IPV4).unwrap();
    let offending = Offending::new(&packet, &inner);
    let mut out = [0xaa; 100];
    let len = reset_to_sender(&offending, &mut out).unwrap();
    let ip = Ipv4::new_checked(&out[..len]).unwrap();
    assert!(ip.header_checksum_ok() && ip.tos() == 0x2e << 2 && ip.total_len() == 40);
    let reset = Tcp::new_checked(ip.payload()).unwrap();
    assert_eq!((reset.flags(), reset.sequence()), (tcp::RST | tcp::ACK, 0));
    assert_eq!(reset.acknowledgment(), 3, "a SYN and four bytes behind 2^32 - 2");
    assert_eq!(reset_to_receiver(&offending, None, &mut out), None, "it has not seen the SYN");
    assert_eq!(reset_to_receiver(&offending, Some(5), &mut out), Some(40));
    assert_eq!(reset_to_sender(&offending, &mut out[..39]), None);
}
