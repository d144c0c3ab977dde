use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use proptest::prelude::*;

use super::flow::{cookie, from_cookie};
use super::*;

fn traffic(mix: &Mix) -> Arc<Traffic> {
    Arc::new(Traffic::new(mix))
}

fn frames(mix: &Mix, n: u64) -> Vec<(Sent, Vec<u8>)> {
    let mut generator = Generator::new(traffic(mix));
    let mut buffer = vec![0; MAX_FRAME];
    (0..n)
        .map(|_| {
            let sent = generator.next(&mut buffer).unwrap();
            (sent, buffer[..sent.len].to_vec())
        })
        .collect()
}

/// What an appliance must do with a frame that it lets through, in other words than the checker's.
fn home(frame: &[u8]) -> Vec<u8> {
    [&frame[6..12], &frame[..6], &frame[12..26], &frame[30..34], &frame[26..30], &frame[34..]].concat()
}

fn mixes() -> impl Strategy<Value = Mix> {
    let sizes = prop_oneof![Just(Sizes::Imix), (0u16..9000).prop_map(Sizes::Fixed)];
    let tcp = prop_oneof![Just(Tcp::DataOnly), (0u32..40).prop_map(|data| Tcp::Connections { data })];
    (any::<u64>(), 1u32..60, 0u8..=100, 0u8..=100, 0u8..=50, sizes, 1u16..5, any::<bool>(), tcp).prop_map(
        |(seed, flows, tcp_percent, ipv6_percent, denied_percent, sizes, endpoints, both_directions, tcp)| {
            Mix {
                seed,
                flows,
                tcp_percent,
                ipv6_percent,
                denied_percent,
                sizes,
                endpoints,
                nodes: 3,
                both_directions,
                tcp,
                envelope: Envelope::default(),
            }
        },
    )
}

/// Sum of a header or of a pseudo header and segment, checksum included: all ones if it is right.
fn sums_to_ones(parts: &[&[u8]]) -> bool {
    let mut bytes = parts.concat();
    bytes.resize(bytes.len().next_multiple_of(2), 0);
    let sum: u32 = bytes.chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(w[1])).sum();
    sum.is_multiple_of(0xffff) && sum != 0
}

fn assert_checksums(frame: &[u8]) {
    let segment = |addresses: &[u8], protocol: u8, segment: &[u8]| {
        let tail = [&(segment.len() as u32).to_be_bytes()[..], &[0, 0, 0, protocol]].concat();
        sums_to_ones(&[addresses, &tail, segment])
    };
    assert!(sums_to_ones(&[&frame[14..34]]), "outer IP");
    assert!(segment(&frame[26..34], 17, &frame[34..]), "outer UDP");
    let inner = &frame[ENVELOPE..];
    if inner[0] >> 4 == 4 {
        assert!(sums_to_ones(&[&inner[..20]]), "inner IP");
        assert!(segment(&inner[12..20], inner[9], &inner[20..]), "inner segment");
    } else {
        assert!(segment(&inner[8..40], inner[6], &inner[40..]), "inner segment");
    }
}

#[test]
fn a_frame_says_what_its_flow_says() {
    let mix = Mix { flows: 200, denied_percent: 30, ..Mix::default() };
    let traffic = traffic(&mix);
    for (sent, frame) in frames(&mix, 2000) {
        assert_checksums(&frame);
        let flow = traffic.flow(sent.flow);
        let outer = SlicedPacket::from_ethernet(&frame).unwrap();
        let Some(TransportSlice::Udp(udp)) = outer.transport else { panic!("no UDP") };
        let Some(NetSlice::Ipv4(ip)) = outer.net else { panic!("no IPv4") };
        let header = ip.header();
        assert_eq!((header.ttl(), header.identification(), header.dont_fragment()), (255, 0, false));
        assert_eq!(
            (header.source_addr(), udp.source_port(), udp.destination_port()),
            (flow.node, flow.outer_port, 6081)
        );
        assert!(udp.source_port() >= 60_000);

        let inner = SlicedPacket::from_ip(&frame[ENVELOPE..]).unwrap();
        let (from, to) = match inner.net.unwrap() {
            NetSlice::Ipv4(ip) => {
                (IpAddr::V4(ip.header().source_addr()), ip.header().destination_addr().into())
            }
            NetSlice::Ipv6(ip) => {
                (IpAddr::V6(ip.header().source_addr()), ip.header().destination_addr().into())
            }
            NetSlice::Arp(_) => panic!("ARP"),
        };
        let (ports, protocol) = match inner.transport.unwrap() {
            TransportSlice::Udp(udp) => ((udp.source_port(), udp.destination_port()), 17),
            TransportSlice::Tcp(tcp) => ((tcp.source_port(), tcp.destination_port()), 6),
            other => panic!("{other:?}"),
        };
        assert_eq!(protocol, flow.protocol);
        let there = ((flow.client, flow.client_port), (flow.server, flow.server_port));
        let seen = ((from, ports.0), (to, ports.1));
        assert!(seen == there || (!flow.denied && seen == (there.1, there.0)), "{seen:?} of {flow:?}");
    }
}

#[test]
fn endpoints_share_addresses_and_nothing_else() {
    let traffic = traffic(&Mix { flows: 400, endpoints: 4, ..Mix::default() });
    let mut by_tuple: HashMap<_, Vec<Flow>> = HashMap::new();
    for flow in (0..400).map(|n| traffic.flow(n)) {
        let tuple = (flow.protocol, flow.client, flow.server, flow.client_port, flow.server_port);
        by_tuple.entry(tuple).or_default().push(flow);
    }
    assert_eq!(by_tuple.len(), 100);
    for flows in by_tuple.values() {
        let mut endpoints: Vec<_> = flows.iter().map(|f| f.endpoint).collect();
        endpoints.sort_unstable();
        endpoints.dedup();
        assert_eq!(endpoints.len(), 4);
    }
}

#[test]
fn a_connection_is_a_connection() {
    let mix = Mix {
        flows: 1,
        tcp_percent: 100,
        denied_percent: 0,
        tcp: Tcp::Connections { data: 4 },
        ..Mix::default()
    };
    let all = frames(&mix, 20);
    let tcp = |frame: &[u8]| {
        let ip = if frame[ENVELOPE] >> 4 == 4 { 20 } else { 40 };
        let t = &frame[ENVELOPE + ip..];
        let word = |at: usize| u32::from_be_bytes(t[at..at + 4].try_into().unwrap());
        (u16::from_be_bytes([t[2], t[3]]), t[13], word(4), word(8), t.len() as u32 - 20)
    };
    let flags: Vec<u8> = all.iter().map(|(_, f)| tcp(f).1).collect();
    let once = [0x02, 0x12, 0x10, 0x18, 0x18, 0x18, 0x18, 0x11, 0x11, 0x10];
    assert_eq!(flags, [once, once].concat());
    for connection in all.chunks(10) {
        // What each side has sent is what the other acknowledges next.
        let mut next: HashMap<bool, u32> = HashMap::new();
        let service = tcp(&connection[0].1).0;
        for (_, frame) in connection {
            let (to, flags, seq, ack, len) = tcp(frame);
            let from_client = to == service;
            if let Some(due) = next.get(&from_client) {
                assert_eq!(seq, *due);
            }
            if let Some(due) = next.get(&!from_client) {
                assert_eq!(ack, *due);
            }
            let length = len + u32::from(flags & 1) + u32::from(flags >> 1 & 1);
            next.insert(from_client, seq.wrapping_add(length));
        }
    }
    let cookies: Vec<&[u8]> = all.iter().map(|(_, f)| &f[78..82]).collect();
    assert!(
        cookies[..10].iter().all(|c| *c == cookies[0]) && cookies[10..].iter().all(|c| *c == cookies[10])
    );
    assert_ne!(cookies[0], cookies[10]);
}

#[test]
fn the_checker_finds_each_kind_of_mistake() {
    let mix = Mix { flows: 50, denied_percent: 20, ..Mix::default() };
    let traffic = traffic(&mix);
    let all = frames(&mix, 500);
    let good: Vec<Vec<u8>> =
        all.iter().filter(|(s, _)| !traffic.flow(s.flow).denied).map(|(_, f)| home(f)).collect();
    let denied = all.iter().find(|(s, _)| traffic.flow(s.flow).denied).map(|(_, f)| home(f)).unwrap();
    let run = |change: &dyn Fn(&mut Vec<Vec<u8>>)| {
        let mut back = good.clone();
        change(&mut back);
        let mut checker = Checker::new(traffic.clone(), |flow| !flow.denied);
        back.iter().for_each(|frame| _ = checker.check(frame));
        checker.finish(500)
    };
    let clean = run(&|_| {});
    assert_eq!((clean.good, clean.missing, clean.wrong(), clean.reordered), (good.len() as u64, 0, 0, 0));
    assert!(clean.examples.is_empty());

    let lost = run(&|back| drop(back.drain(10..17)));
    assert_eq!((lost.missing, lost.wrong()), (7, 0));
    let twice = run(&|back| back.insert(100, back[50].clone()));
    assert_eq!((twice.duplicates, twice.wrong(), twice.missing), (1, 1, 0));
    let later = run(&|back| {
        let frame = back.remove(3);
        back.push(frame);
    });
    assert_eq!((later.reordered, later.wrong(), later.missing), (1, 0, 0));
    let through = run(&|back| back.push(denied.clone()));
    assert_eq!((through.not_denied, through.wrong()), (1, 1));
    let not_swapped = run(&|back| back[5] = home(&back[5]));
    assert_eq!((not_swapped.changed, not_swapped.missing), (1, 0));
    assert!(not_swapped.examples[0].sentence.starts_with("byte 5 (destination MAC)"), "{not_swapped:?}");
    let ttl = run(&|back| back[5][22] = 254);
    assert!(ttl.examples[0].sentence.contains("byte 22 (outer IP header) is fe and must be ff"), "{ttl:?}");
    let short = run(&|back| {
        back[5].pop();
    });
    assert_eq!(short.changed, 1);
    let stranger = run(&|back| back.push(vec![0; 60]));
    assert_eq!((stranger.unknown, stranger.missing), (1, 0));
}

#[test]
fn the_bytes_of_a_seed_never_change() {
    // FNV-1a over frames of the default mix: a change means that recorded results no longer compare.
    let hash = frames(&Mix::default(), 5000)
        .iter()
        .flat_map(|(_, f)| f)
        .fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3));
    assert_eq!(hash, 0x2f07_7bb2_3df8_0a02, "{hash:#x}");
}

#[test]
fn bench_captures_have_the_sizes_they_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bench.pcap");
    for (sizes, want) in [(Sizes::Fixed(64), 64), (Sizes::Fixed(1400), 1400), (Sizes::Imix, 3896 / 12)] {
        pcap::write(&path, &Mix::bench(1024, sizes), 1200).unwrap();
        let mut reader = crate::dpdk::soft::pcap::Reader::open(&path).unwrap();
        let (mut frames, mut bytes, mut last) = (0, 0, 0);
        while let Some(frame) = reader.next().unwrap() {
            assert!(frame.time > last);
            last = frame.time;
            frames += 1;
            bytes += frame.bytes.len() - ENVELOPE;
        }
        assert_eq!((frames, bytes / frames), (1200, want));
    }
}

#[test]
fn wrapping_is_the_same_both_ways() {
    let mix = Mix { flows: 40, denied_percent: 0, ..Mix::default() };
    let mut by_flow: HashMap<u32, Vec<u8>> = HashMap::new();
    for (sent, frame) in frames(&mix, 400) {
        let wrapped = wrap(&frame[ENVELOPE..], &Envelope::default()).unwrap();
        assert_checksums(&wrapped);
        assert!(
            is_tunnel(&wrapped, 6081)
                && !is_tunnel(&wrapped, 4789)
                && !is_tunnel(&wrapped[ENVELOPE - 14..], 6081)
        );
        assert_eq!(wrapped[ENVELOPE..], frame[ENVELOPE..]);
        let identity = [&wrapped[34..36], &wrapped[78..82]].concat();
        assert_eq!(by_flow.entry(sent.flow).or_insert_with(|| identity.clone()), &identity);
    }
    let mut all: Vec<_> = by_flow.into_values().collect();
    all.sort();
    all.dedup();
    assert!(all.len() >= 10, "{}", all.len()); // 40 flows of 4 endpoints: 10 tuples
    assert_eq!(wrap(&[], &Envelope::default()), None);
    assert_eq!(wrap(&[0x55; 40], &Envelope::default()), None);
}

#[test]
fn plain_frames_lose_tags_and_padding() {
    let packet = [&[0x45, 0, 0, 21][..], &[0; 16], &[7]].concat();
    let frame = |tags: &[u8]| [&[9; 12], tags, &packet, &[0; 25]].concat();
    assert_eq!(inner_packet(&frame(&[8, 0])), Some(&packet[..]));
    assert_eq!(inner_packet(&frame(&[0x81, 0, 0, 5, 8, 0])), Some(&packet[..]));
    assert_eq!(inner_packet(&frame(&[0x88, 0xa8, 0, 5, 0x81, 0, 0, 6, 8, 0])), Some(&packet[..]));
    assert_eq!(inner_packet(&frame(&[8, 6])), None);
    assert_eq!(inner_packet(&[9; 13]), None);
}

/// The corpus's own encapsulation, written by somebody else, gives the same bytes under the same port and cookie.
#[test]
#[allow(clippy::print_stderr, reason = "a skipped test says so")]
fn envelopes_are_those_of_the_corpus() {
    let Some(corpus) = std::env::var_os("SLUICEGATE_CORPUS") else {
        eprintln!("SKIPPED envelopes_are_those_of_the_corpus: SLUICEGATE_CORPUS does not name the corpus");
        return;
    };
    let corpus = Path::new(&corpus);
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.pcap");
    // The script keeps the low 64 bits of the 17 digits.
    let envelope = Envelope { endpoint: 0x1234_5678_9abc_def0, attachment: 5, ..Envelope::default() };
    let mut compared = 0;
    for plain in std::fs::read_dir(corpus.join("pcap/ndpi")).unwrap().take(12).map(|e| e.unwrap().path()) {
        let done = Command::new("python3")
            .arg(corpus.join("encap.py"))
            .args([&plain, &out])
            .args(["--endpoint", "vpce-0123456789abcdef0", "--attachment", "5"])
            .output()
            .unwrap();
        assert!(done.status.success(), "{done:?}");
        let mut reader = crate::dpdk::soft::pcap::Reader::open(&out).unwrap();
        while let Some(frame) = reader.next().unwrap() {
            let identity = Identity {
                port: u16::from_be_bytes(frame.bytes[34..36].try_into().unwrap()),
                cookie: u32::from_be_bytes(frame.bytes[78..82].try_into().unwrap()),
            };
            let own = envelope.wrap_as(&frame.bytes[ENVELOPE..], identity).unwrap();
            assert_eq!(own, frame.bytes, "{}", plain.display());
            compared += 1;
        }
    }
    assert!(compared > 100, "{compared}");
}

/// An independent decoder reads every field as it is meant, and finds every checksum right.
#[test]
#[allow(clippy::print_stderr, reason = "a skipped test says so")]
fn tshark_agrees() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mix.pcap");
    let mix = Mix { flows: 60, endpoints: 1, nodes: 1, tcp: Tcp::Connections { data: 9 }, ..Mix::default() };
    let traffic = traffic(&mix);
    pcap::write(&path, &mix, 60 * 15).unwrap();
    let fields = [
        "ip.checksum.status",
        "udp.checksum.status",
        "tcp.checksum.status",
        "geneve.vni",
        "geneve.option.length",
        "ip.ttl",
        "udp.srcport",
        "tcp.analysis.flags",
        "_ws.malformed",
        "geneve.version",
    ];
    let mut tshark = Command::new("tshark");
    tshark.arg("-r").arg(&path).args(["-T", "fields", "-E", "separator=;"]);
    for check in ["ip.check_checksum", "udp.check_checksum", "tcp.check_checksum"] {
        tshark.args(["-o", &format!("{check}:TRUE")]);
    }
    fields.iter().for_each(|f| _ = tshark.args(["-e", f]));
    let Ok(done) = tshark.output() else {
        eprintln!("SKIPPED tshark_agrees: tshark is not installed");
        return;
    };
    assert!(done.status.success(), "{done:?}");
    let text = String::from_utf8(done.stdout).unwrap();
    assert_eq!(text.lines().count(), 900);
    for (n, line) in text.lines().enumerate() {
        let flow = traffic.flow(n as u32 % 60);
        let v6 = flow.client.is_ipv6();
        let mut want = vec![if v6 { "1" } else { "1,1" }];
        want.extend(if flow.protocol == 6 { ["1", "1"] } else { ["1,1", ""] });
        want.extend(["0x000000", "32,12,12,8", if v6 { "255" } else { "255,64" }]);
        let got: Vec<&str> = line.split(';').collect();
        assert_eq!(got[..6], want, "frame {}: {line}", n + 1);
        assert!(got[6].starts_with(&flow.outer_port.to_string()), "{line}");
        // Only the SYNs of denied flows look like retransmissions.
        assert!(got[7].is_empty() || flow.denied, "frame {}: {line}", n + 1);
        // Random payload is no NTP or TLS; what is ours must be well formed.
        for ours in ["IPv4", "IPv6", "UDP", "TCP", "GENEVE"] {
            assert!(!got[8].contains(&format!("Malformed Packet: {ours}")), "{line}");
        }
        assert_eq!(got[9], "0", "{line}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn what_goes_home_unchanged_is_good(mix in mixes()) {
        let traffic = traffic(&mix);
        let mut checker = Checker::new(traffic.clone(), |flow| !flow.denied);
        let n = u64::from(mix.flows) * 100 + 7;
        let mut kept = 0;
        for (sent, frame) in frames(&mix, n) {
            if !traffic.flow(sent.flow).denied {
                prop_assert!(checker.check(&home(&frame)), "{:?}", checker.report());
                kept += 1;
            }
        }
        let report = checker.finish(n);
        prop_assert_eq!((report.good, report.missing, report.wrong(), report.reordered), (kept, 0, 0, 0));
    }

    #[test]
    fn every_checksum_is_right(mix in mixes()) {
        for (_, frame) in frames(&mix, 150) {
            assert_checksums(&frame);
        }
    }

    #[test]
    fn no_changed_bit_is_missed(mix in mixes(), nth in 0u64..300, at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let traffic = traffic(&Mix { denied_percent: 0, ..mix });
        let mut generator = Generator::new(traffic.clone());
        let mut buffer = vec![0; MAX_FRAME];
        let mut len = 0;
        for _ in 0..=nth {
            len = generator.next(&mut buffer).unwrap().len;
        }
        let mut frame = home(&buffer[..len]);
        let mut checker = Checker::new(traffic, |_| true);
        frame[at.index(len)] ^= 1 << bit;
        prop_assert!(!checker.check(&frame));
        prop_assert_eq!(checker.report().wrong(), 1);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), near in any::<u64>()) {
        let mut checker = Checker::new(traffic(&Mix::default()), |_| true);
        checker.check(&bytes);
        let _ = (inner_packet(&bytes), is_tunnel(&bytes, 6081), wrap(&bytes, &Envelope { seed: near, ..Envelope::default() }));
    }

    #[test]
    fn cookies_lead_back(seed in any::<u64>(), flow in 0..MAX_FLOWS, life in 0u64..1 << 40) {
        let want = (flow, (life & 0xfff) as u32);
        prop_assert_eq!(from_cookie(seed, cookie(seed, flow, life)), want);
    }
}

/// What is wrapped for a profile is what the profile's receiver reads.
#[test]
fn every_profile_reads_its_own_envelope() {
    use crate::wire::geneve::{Geneve, Profile, Scope};
    let inner = [[0x45, 0, 0, 20, 0, 0, 0, 0, 64, 59, 0, 0].as_slice(), &[10, 0, 0, 1, 10, 0, 0, 2]].concat();
    for profile in Profile::ALL {
        let envelope = Envelope { profile, ..Envelope::default() };
        let frame = wrap(&inner, &envelope).unwrap();
        let geneve = Geneve::new_checked(&frame[42..]).unwrap();
        let found = profile.read(&geneve).unwrap();
        let scope =
            if profile.scope == Scope::Vni { envelope.endpoint & 0xff_ffff } else { envelope.endpoint };
        assert_eq!(found.endpoint, scope, "{}", profile.name);
        assert_eq!(geneve.payload(), inner, "{}", profile.name);
    }
}
