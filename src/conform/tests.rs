use proptest::prelude::*;

use super::frames::make::{Ends, Envelope, Segment, TunnelOption};
use super::frames::read::Sum;
use super::frames::{arbitrary_input, make, read};
use super::report::{Found, Report, Verdict, junit};
use super::{Level, Profile, checks, profile};

fn ends(v6: bool) -> Ends {
    match v6 {
        false => Ends { from: "10.0.0.1:1025".parse().unwrap(), to: "192.0.2.9:443".parse().unwrap() },
        true => {
            Ends { from: "[2001:db8::1]:1025".parse().unwrap(), to: "[2001:db8::9]:443".parse().unwrap() }
        }
    }
}

fn envelope(options: Vec<TunnelOption>) -> Envelope {
    Envelope {
        node: [10, 254, 11, 60].into(),
        appliance: [10, 254, 11, 102].into(),
        source_port: 60_000,
        port: 6081,
        ttl: 255,
        checksum: true,
        flags: 0,
        protocol: None,
        vni: (0, 0),
        options,
    }
}

/// Layout as in captures of AWS's load balancer; sums by hand, and by tshark (tests/tshark.rs).
#[test]
fn an_envelope_has_the_bytes_of_aws() {
    let options = profile::AWS.options(0x0123_4567_89ab_cdef, 0xdead_beef, false);
    let inner = make::udp(ends(false), b"");
    let packet = envelope(options).packet(&inner);
    let expected = concat!(
        "4500006000000000ff118eef0afe0b3c0afe0b66",
        "ea6017c1004c47da",
        "0800080000000000",
        "010801020123456789abcdef",
        "010802020000000000000000",
        "01080301deadbeef",
        "4500001c0000400040116ec70a000001c0000209",
        "040101bb00082e18"
    );
    assert_eq!(packet.iter().map(|b| format!("{b:02x}")).collect::<String>(), expected);
    let seen = read::outer(&packet).unwrap();
    assert!(seen.header_ok && seen.checksum == Sum::Good && seen.inner == inner);
}

#[test]
fn what_is_made_is_read() {
    for v6 in [false, true] {
        let data = Segment { flags: 0x18, sequence: 7, acknowledgment: 9, payload: b"abc" };
        for inner in [
            make::udp(ends(v6), b"x"),
            make::tcp(ends(v6), data),
            make::echo(ends(v6), true, 7, b"ping"),
            make::icmp(ends(v6).from.ip(), ends(v6).to.ip(), [3, 3], 0, &[1; 28]),
        ] {
            for profile in Profile::ALL {
                let packet = envelope(profile.options(5, 6, true)).packet(&inner);
                let seen = read::outer(&packet).unwrap();
                assert_eq!((seen.checksum, seen.header_ok, seen.version, seen.vni), (Sum::Good, true, 0, 0));
                assert_eq!(seen.options.len(), profile.options.len());
                let found = read::inner(seen.inner, seen.protocol).unwrap();
                assert!(found.header_ok && found.transport_ok && found.trailing == 0, "{found:?}");
                assert_eq!((found.source, found.destination), (ends(v6).from.ip(), ends(v6).to.ip()));
                let mut wrong = seen.inner.to_vec();
                *wrong.last_mut().unwrap() ^= 1;
                assert!(!read::inner(&wrong, seen.protocol).unwrap().transport_ok);
            }
        }
    }
}

/// The data plane's own reader, which shares no code with this one, finds the same.
#[test]
fn the_data_plane_reads_what_is_made() {
    use crate::wire::geneve;
    for (own, profile) in Profile::ALL.into_iter().zip(geneve::Profile::ALL) {
        assert_eq!(own.name, profile.name);
        assert_eq!(own.most.unwrap_or(usize::from(u16::MAX)), usize::from(profile.max_return));
        let packet = envelope(own.options(0xffff, 0x11, false)).packet(&make::udp(ends(false), b"x"));
        let found = profile.read(&geneve::Geneve::new_checked(&packet[28..]).unwrap()).unwrap();
        let (endpoint, cookie) = (own.options.is_empty(), own.has_cookie());
        assert_eq!(found.endpoint, if endpoint { 0 } else { 0xffff });
        assert_eq!(found.cookie, if cookie { 0x11 } else { 0 });
    }
}

/// etherparse, a library, finds the same, and puts pieces together.
#[test]
fn another_library_reads_what_is_made() {
    use etherparse::{NetSlice, SlicedPacket, TransportSlice};
    for v6 in [false, true] {
        let whole = make::udp(ends(v6), &[9; 100]);
        let sliced = SlicedPacket::from_ip(&whole).unwrap();
        assert!(matches!(sliced.transport, Some(TransportSlice::Udp(udp)) if udp.destination_port() == 443));
        let mut together: Vec<u8> = Vec::new();
        for piece in make::pieces(&whole, 77, 40) {
            let sliced = SlicedPacket::from_ip(&piece).unwrap();
            let payload = sliced.net.as_ref().and_then(NetSlice::ip_payload_ref).unwrap();
            assert!(payload.fragmented);
            together.extend(payload.payload);
        }
        assert_eq!(together, whole[if v6 { 40 } else { 20 }..]);
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        arbitrary_input::packet(&bytes);
    }

    /// Bytes that are nearly a packet.
    #[test]
    fn nearly_right_packets_are_read(
        v6: bool,
        profile in 0..4usize,
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
        is_cut: bool,
    ) {
        let mut packet =
            envelope(Profile::ALL[profile].options(1, 2, false)).packet(&make::udp(ends(v6), &[7; 40]));
        for (at, byte) in changes {
            let at = at.index(packet.len());
            packet[at] = byte;
        }
        if is_cut {
            packet.truncate(cut.index(packet.len()));
        }
        arbitrary_input::packet(&packet);
        arbitrary_input::packet(packet.get(68..).unwrap_or_default());
    }
}

#[test]
fn checks_have_names_of_their_own_and_need_earlier_ones() {
    let ids: Vec<&str> = checks::all().map(|check| check.id).collect();
    for (n, check) in checks::all().enumerate() {
        assert!(!ids[..n].contains(&check.id), "{} twice", check.id);
        assert!(check.needs.iter().all(|id| ids[..n].contains(id)), "{} needs a later one", check.id);
        assert!(check.demand.ends_with('.') && !check.source.is_empty(), "{}", check.id);
    }
}

fn report(verdicts: &[(usize, Level, Verdict, &str)]) -> Report {
    let found = verdicts.iter().map(|&(n, level, verdict, text)| Found {
        check: checks::all().nth(n).unwrap(),
        level,
        verdict,
        text: text.into(),
        seconds: 0.25,
    });
    Report {
        target: "10.0.0.5".into(),
        profile: "aws",
        seed: 1,
        seconds: 1.0,
        interrupted: false,
        found: found.collect(),
    }
}

#[test]
fn marks_are_counted() {
    use Level::{Must, Remark, Should};
    use Verdict::{Failed, NotJudged, Passed};
    let all = report(&[(0, Must, Passed, ""), (1, Should, Passed, ""), (2, Remark, Passed, "3 kpps")]);
    assert!(all.full_marks() && all.passes(false));
    assert_eq!(all.summary(), "10.0.0.5: 1 of 1 musts, 1 of 1 shoulds: full marks");
    let should = report(&[(0, Must, Passed, ""), (1, Should, Failed, "no")]);
    assert!(should.passes(false) && !should.passes(true) && !should.full_marks());
    let unjudged = report(&[(0, Must, Passed, ""), (1, Must, NotJudged, "how?")]);
    assert!(unjudged.passes(false) && !unjudged.passes(true));
    assert_eq!(unjudged.summary(), "10.0.0.5: 1 of 1 musts, 0 of 0 shoulds, 1 not judged");
    let none = report(&[(0, Must, NotJudged, "how?")]);
    assert!(!none.passes(false), "nothing was judged");
    let failed = report(&[(0, Must, Failed, "no"), (1, Should, Passed, "")]);
    assert!(!failed.passes(false));
    let mut stopped = all.clone();
    stopped.interrupted = true;
    assert!(!stopped.passes(false) && stopped.summary().ends_with("interrupted"));
}

/// What strangers say gets into reports.
#[test]
fn junit_is_xml_whatever_is_said() {
    use Level::{Must, Should};
    use Verdict::{Failed, NotJudged, Passed};
    let text = "<&\"'>\u{0}\u{1b}[31m\u{ffff}\u{fffd} ]]> é";
    let report = report(&[
        (0, Must, Passed, text),
        (1, Must, Failed, text),
        (2, Should, Failed, text),
        (3, Must, NotJudged, text),
    ]);
    for (strict, failures) in [(false, "1"), (true, "3")] {
        let xml = junit(&report, strict);
        let document = roxmltree::Document::parse(&xml).unwrap();
        let suite = document.descendants().find(|node| node.has_tag_name("testsuite")).unwrap();
        assert_eq!((suite.attribute("tests"), suite.attribute("failures")), (Some("4"), Some(failures)));
        let count = |tag: &str| document.descendants().filter(|node| node.has_tag_name(tag)).count();
        assert_eq!(count("testcase"), 4);
        assert_eq!(count("failure").to_string(), failures);
        assert_eq!(suite.attribute("skipped"), Some(count("skipped").to_string().as_str()));
        let failure = document.descendants().find(|node| node.has_tag_name("failure")).unwrap();
        assert_eq!(failure.attribute("message"), Some("<&\"'>??[31m?\u{fffd} ]]> é"));
    }
}
