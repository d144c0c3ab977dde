//! Receive-side scaling as network cards do it: Toeplitz hash, 128-entry redirection table.
//!
//! Hashed are addresses and ports of TCP and UDP over IPv4 and IPv6, in the order of the packet. Everything else
//! (ARP, ICMP, fragments, ...) has no hash and goes where entry 0 points, as on ENA.

use super::offload::Outer;

/// Entries of the redirection table.
pub const RETA: usize = 128;
/// Key of Microsoft's verification suite, the default of many cards.
pub const MICROSOFT_KEY: [u8; 40] = [
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0,
    0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42,
    0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
];
/// Longest input: two IPv6 addresses and two ports.
const INPUT: usize = 36;

/// Key and redirection table of one port.
#[derive(Clone, Debug)]
pub(super) struct Rss {
    /// At least `INPUT + 4` bytes.
    pub key: Vec<u8>,
    pub reta: [u16; RETA],
}

impl Rss {
    /// Queue of a frame, and its hash if it has one.
    pub fn classify(&self, outer: Option<&Outer<'_>>) -> (u16, Option<u32>) {
        let ports = outer.and_then(|o| Some((o, o.transport?.first_chunk::<4>()?)));
        let Some((outer, ports)) = ports else { return (self.reta[0], None) };
        let hash = toeplitz(&self.key, outer.addresses.iter().chain(ports));
        (self.reta[hash as usize % RETA], Some(hash))
    }
}

/// The Toeplitz hash: for every bit of the input that is set, the 32 bits of the key that start at its place, all
/// added without carry. A key that is too short goes on with zeroes.
pub fn toeplitz<'a>(key: &[u8], input: impl IntoIterator<Item = &'a u8>) -> u32 {
    let mut key = key.iter().copied().chain(std::iter::repeat(0));
    let mut window = (0..4).fold(0u64, |w, _| w << 8 | u64::from(key.next().unwrap_or(0)));
    let mut hash = 0;
    for byte in input {
        // 40 bits: the window of each of the eight input bits lies in it.
        window = (window << 8 | u64::from(key.next().unwrap_or(0))) & 0xff_ffff_ffff;
        for bit in 0..8 {
            if byte & (0x80 >> bit) != 0 {
                hash ^= (window >> (8 - bit)) as u32;
            }
        }
    }
    hash
}

/// Shortest key that covers every input.
pub(super) const KEY: usize = INPUT + 4;

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::prelude::*;

    use super::*;

    /// "Verifying the RSS Hash Calculation", Microsoft: destination, source, hash of addresses, hash with TCP ports.
    const VECTORS: [(&str, u16, &str, u16, u32, u32); 8] = [
        ("161.142.100.80", 1766, "66.9.149.187", 2794, 0x323e_8fc2, 0x51cc_c178),
        ("65.69.140.83", 4739, "199.92.111.2", 14230, 0xd718_262a, 0xc626_b0ea),
        ("12.22.207.184", 38024, "24.19.198.95", 12898, 0xd2d0_a5de, 0x5c2b_394a),
        ("209.142.163.6", 2217, "38.27.205.30", 48228, 0x8298_9176, 0xafc7_327f),
        ("202.188.127.2", 1303, "153.39.163.191", 44251, 0x5d18_09c5, 0x10e8_28a2),
        ("3ffe:2501:200:3::1", 1766, "3ffe:2501:200:1fff::7", 2794, 0x2cc1_8cd5, 0x4020_7d3d),
        ("ff02::1", 4739, "3ffe:501:8::260:97ff:fe40:efab", 14230, 0x0f0c_461c, 0xdde5_1bbf),
        (
            "fe80::200:f8ff:fe21:67cf",
            38024,
            "3ffe:1900:4545:3:200:f8ff:fe21:67cf",
            44251,
            0x4b61_e985,
            0x02d1_feef,
        ),
    ];

    fn bytes(address: &str) -> Vec<u8> {
        match address.parse().unwrap() {
            IpAddr::V4(a) => a.octets().to_vec(),
            IpAddr::V6(a) => a.octets().to_vec(),
        }
    }

    fn frame(source: &[u8], destination: &[u8], ports: &[u8], protocol: u8, fragment: bool) -> Vec<u8> {
        let segment = [ports, &[0; 16]].concat();
        let ethernet: &[u8] = if source.len() == 4 { &[8, 0] } else { &[0x86, 0xdd] };
        let header = if source.len() == 4 {
            vec![0x45, 0, 0, 40, 0, 0, if fragment { 0x20 } else { 0 }, 0, 64, protocol, 0, 0]
        } else {
            vec![0x60, 0, 0, 0, 0, 20, protocol, 64]
        };
        [&[0; 12], ethernet, &header, source, destination, &segment].concat()
    }

    #[test]
    fn published_vectors() {
        let rss = Rss { key: MICROSOFT_KEY.to_vec(), reta: std::array::from_fn(|i| i as u16) };
        for (to, to_port, from, from_port, plain, with_ports) in VECTORS {
            let (from, to) = (bytes(from), bytes(to));
            let ports = [from_port.to_be_bytes(), to_port.to_be_bytes()].concat();
            assert_eq!(toeplitz(&MICROSOFT_KEY, from.iter().chain(&to)), plain);
            for protocol in [6, 17] {
                let frame = frame(&from, &to, &ports, protocol, false);
                let queue = (with_ports % 128) as u16;
                assert_eq!(rss.classify(Outer::parse(&frame).as_ref()), (queue, Some(with_ports)));
            }
        }
    }

    #[test]
    fn what_has_no_ports_goes_where_entry_0_points() {
        let rss =
            Rss { key: MICROSOFT_KEY.to_vec(), reta: std::array::from_fn(|i| if i == 0 { 7 } else { 1 }) };
        let classify = |frame: &[u8]| rss.classify(Outer::parse(frame).as_ref());
        let v4 =
            |protocol, fragment| frame(&[10, 0, 0, 1], &[10, 0, 0, 2], &[1, 2, 3, 4], protocol, fragment);
        assert_eq!(classify(&v4(1, false)), (7, None), "ICMP");
        assert_eq!(classify(&v4(17, true)), (7, None), "fragment");
        assert_eq!(classify(&[0; 60]), (7, None), "no IP");
        assert_eq!(classify(&[]), (7, None), "nothing");
        let mut tagged = v4(17, false);
        assert_eq!(classify(&tagged).0, 1);
        tagged.splice(12..12, [0x81, 0, 0, 5]);
        assert_eq!(classify(&tagged), classify(&v4(17, false)), "a VLAN tag changes nothing");
    }

    proptest! {
        /// A key of one repeated word hashes both directions alike (Woo and Park, 2012).
        #[test]
        fn a_periodic_key_is_symmetric(a in any::<[u8; 16]>(), b in any::<[u8; 16]>(), p in any::<[u8; 2]>(), q in any::<[u8; 2]>()) {
            let key = [0x6d, 0x5a].repeat(20);
            let there = [&a[..], &b, &p, &q].concat();
            let back = [&b[..], &a, &q, &p].concat();
            prop_assert_eq!(toeplitz(&key, &there), toeplitz(&key, &back));
        }

        #[test]
        fn no_frame_makes_it_panic(mut frame in prop::collection::vec(any::<u8>(), 0..120), v6 in any::<Option<bool>>()) {
            if let (Some(v6), true) = (v6, frame.len() > 15) {
                frame[12..15].copy_from_slice(if v6 { &[0x86, 0xdd, 0x60] } else { &[8, 0, 0x45] });
            }
            if let Some(outer) = Outer::parse(&frame) {
                outer.checksum_flags();
            }
        }
    }
}
