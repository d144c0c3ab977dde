use super::*;
use crate::dpdk::{Mempool, PoolConfig};
use crate::traffic::{self, Identity};
use crate::wire::geneve::{AWS, GOOGLE, Geneve, PLAIN, TENCENT};
use proptest::prelude::*;

const OURS: ([u8; 6], Ipv4Addr) = ([2, 0, 0, 0, 1, 7], Ipv4Addr::new(10, 254, 11, 107));
const MTU: u16 = 9001;

fn pool(data_room: u16) -> Mempool {
    Mempool::soft(&PoolConfig { name: "t".into(), buffers: 2, data_room, cache: 0, numa: None })
}

fn to(endpoint: u64, cookie: u32) -> Address {
    Address {
        mac: [2, 0, 0, 0, 1, 2],
        target: Ipv4Addr::new(10, 254, 11, 102),
        source_port: 60_123,
        endpoint,
        cookie,
        reply: false,
        ipv6: false,
    }
}

/// A packet of this length, as far as an envelope looks at it.
fn packet(len: usize, ipv6: bool) -> Vec<u8> {
    let mut packet: Vec<u8> = (0..len).map(|n| (n * 7 + n / 256) as u8).collect();
    packet[0] = if ipv6 { 0x60 } else { 0x45 };
    packet
}

/// The same by the encoder of `traffic`, which is another one.
fn by_traffic(profile: &'static Profile, packet: &[u8], to: &Address) -> Vec<u8> {
    let envelope = traffic::Envelope {
        gateway_mac: OURS.0,
        appliance_mac: to.mac,
        node: OURS.1,
        appliance: to.target,
        endpoint: to.endpoint,
        profile,
        ..traffic::Envelope::default()
    };
    envelope.wrap_as(packet, Identity { port: to.source_port, cookie: to.cookie }).unwrap()
}

proptest! {
    /// What goes to a target is what another encoder makes; a reader finds endpoint and cookie in it; and it comes back on a leg byte for byte.
    #[test]
    fn there_and_back(
        n in 0usize..4, len in 20usize..2000, tagged in any::<bool>(), ipv6 in any::<bool>(),
        endpoint in any::<u64>(), cookie in any::<u32>(), port in any::<u16>()
    ) {
        let profile = Profile::ALL[n];
        // What a profile has no room for.
        let endpoint = if profile.scope == Scope::Vni { endpoint & 0xff_ffff } else { endpoint };
        let cookie = if profile == &TENCENT { cookie & 0x1fff_ffff } else { cookie };
        let to = Address { source_port: port, ipv6, ..to(endpoint, cookie) };
        let packet = packet(len, ipv6);
        let mut link = vec![9, 9, 9, 9, 9, 9, 8, 8, 8, 8, 8, 8];
        if tagged {
            link.extend([0x81, 0, 0x60, 7]);
        }
        link.extend(if ipv6 { [0x86, 0xdd] } else { [0x08, 0] });
        let mut sent = [&link[..], &packet].concat();
        sent.resize(sent.len().max(SHORTEST), 0);

        let (pool, wrapper) = (pool(2100), Wrapper::new(profile, OURS, 6081, MTU).unwrap());
        let mut frame = pool.alloc().unwrap();
        prop_assert!(frame.write(&sent));
        prop_assert_eq!(wrapper.wrap(&mut frame, link.len(), len as u16, &to), Ok(()));
        prop_assert_eq!(frame.data(), by_traffic(profile, &packet, &to));
        let geneve = Geneve::new_checked(&frame.data()[42..]).unwrap();
        let found = profile.read(&geneve).unwrap();
        prop_assert_eq!((found.endpoint, found.cookie), (endpoint, wrapper.cookie(cookie, false)));
        prop_assert_eq!(geneve.payload(), &packet[..]);

        let inner = frame.len() - packet.len();
        prop_assert!(strip(&mut frame, inner, len as u16, &link));
        prop_assert_eq!(frame.data(), &sent[..]);
    }
}

/// As RFC 768 has it: zero is none.
#[test]
fn without_a_checksum_there_is_none() {
    let (pool, wrapper) = (pool(512), Wrapper::new(&GOOGLE, OURS, 6081, MTU).unwrap().without_checksum());
    let mut frame = pool.alloc().unwrap();
    let sent = [&[0; 12][..], &[8, 0], &packet(100, false)].concat();
    assert!(frame.write(&sent));
    wrapper.wrap(&mut frame, 14, 100, &to(7, 9)).unwrap();
    let mut expected = by_traffic(&GOOGLE, &packet(100, false), &to(7, 9));
    expected[40..42].fill(0);
    assert_eq!(frame.data(), expected);
}

/// Both sides of each bound: what a load balancer takes, what the port takes, what the buffer has room for.
#[test]
fn what_does_not_fit_stays_as_it_was() {
    let pool = pool(9100);
    let wrapper = |mtu| Wrapper::new(&AWS, OURS, 6081, mtu).unwrap();
    for (len, mtu, fits) in [
        (8500, 9001, true),
        (8501, 9001, false),
        (8500, 8568, true),
        (8500, 8567, false),
        (1432, 1500, true),
        (1433, 1500, false),
    ] {
        let mut frame = pool.alloc().unwrap();
        let sent = [&[0; 12][..], &[8, 0], &packet(len, false)].concat();
        assert!(frame.write(&sent));
        let wrapped = wrapper(mtu).wrap(&mut frame, 14, len as u16, &to(7, 9));
        assert_eq!(wrapped.is_ok(), fits, "{len} in {mtu}");
        assert_eq!(frame.data() == sent, !fits);
    }
    let mut frame = pool.alloc().unwrap();
    assert!(frame.write(&[7; 100]));
    // 82 bytes go in front, 14 of which are the frame's own.
    let spare = frame.headroom();
    frame.prepend(spare - 67).unwrap();
    let before = frame.data().to_vec();
    assert_eq!(wrapper(9001).wrap(&mut frame, 14, 80, &to(7, 9)), Err(DropReason::TooBig));
    assert_eq!(frame.data(), before);
    frame.cut_front(1);
    assert_eq!(wrapper(9001).wrap(&mut frame, 14, 80, &to(7, 9)), Ok(()));
    assert_eq!(
        wrapper(9001).wrap(&mut frame, 14, 8000, &to(7, 9)),
        Err(DropReason::TooBig),
        "longer than it is"
    );
    let before = frame.data().to_vec();
    assert!(!strip(&mut frame, 82, 8000, &[0; 14]), "likewise");
    assert!(!strip(&mut frame, 82, 80, &[0; 255]), "no room for such a header");
    assert_eq!(frame.data(), before);
}

/// Tencent's three upper bits are a direction, Google's network id has one bit for it; AWS's cookie is the same both ways.
#[test]
fn directions_are_marked_as_the_profile_has_it() {
    let sent = |profile: &'static Profile, reply| {
        let (pool, wrapper) = (pool(512), Wrapper::new(profile, OURS, 6081, MTU).unwrap());
        let mut frame = pool.alloc().unwrap();
        assert!(frame.write(&[0x45; 100]));
        wrapper.wrap(&mut frame, 14, 86, &Address { reply, ..to(7, 0xffff_fff1) }).unwrap();
        frame.data()[50..].to_vec()
    };
    assert_eq!(sent(&AWS, false), sent(&AWS, true));
    assert_eq!((sent(&AWS, false)[28..32].to_vec(), AWS.turned_cookie(5)), (vec![0xff, 0xff, 0xff, 0xf1], 5));
    assert_eq!(sent(&TENCENT, false)[28..32], [0x1f, 0xff, 0xff, 0xf1]);
    assert_eq!(sent(&TENCENT, true)[28..32], [0x3f, 0xff, 0xff, 0xf1]);
    assert_eq!(
        (sent(&GOOGLE, false)[4..8].to_vec(), sent(&GOOGLE, true)[4..8].to_vec()),
        (vec![0; 4], vec![0, 0, 0, 1])
    );
    assert_eq!(Wrapper::new(&PLAIN, OURS, 6081, MTU).unwrap().cookie(5, true), 0, "it has none");
}

/// Ports are those of AWS, all of them, and evenly.
#[test]
fn flows_spread_over_source_ports() {
    let mut counts = vec![0u32; 5536];
    for n in 0..553_600u64 {
        let hash = (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        counts[usize::from(source_port(hash ^ hash >> 32) - 60_000)] += 1;
    }
    // 100 expected in each; six standard deviations are 60.
    assert!(counts.iter().all(|n| (40..=160).contains(n)), "{:?}", counts.iter().max());
    assert_eq!((source_port(0), source_port(u64::MAX)), (60_000, 65_535));
}
