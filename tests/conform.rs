//! The judge before appliances that are right, and that are wrong on purpose: Sluicegate gets full marks, and for each check there is an
//! appliance that fails this one and no other.

mod common;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use common::{Rig, plan};
use sluicegate::conform::frames::make::{self, Envelope, TunnelOption};
use sluicegate::conform::frames::read::{self, Sum};
use sluicegate::conform::wire::{Ask, Asked, Sent};
use sluicegate::conform::{Check, Level, Profile, Report, Settings, Verdict, Wire, checks, judge, profile};

const NODE: Ipv4Addr = Ipv4Addr::new(10, 254, 11, 60);
const APPLIANCE: Ipv4Addr = Ipv4Addr::new(10, 254, 11, 102);

/// Where things stand in a packet of AWS's usual form.
const VNI: usize = 32;
const ENDPOINT: std::ops::Range<usize> = 40..48;
const COOKIE: std::ops::Range<usize> = 64..68;
const INNER: usize = 68;

/// An appliance: the data plane on a soft port, with a fault in front of it.
struct Appliance {
    rig: Rig,
    fault: Fault,
    health: Healthy,
    out: VecDeque<Vec<u8>>,
    memory: HashMap<Vec<u8>, Vec<u8>>,
    held: Option<Vec<u8>>,
    count: u64,
}

/// What comes back of a packet; `None`: what is right.
type Fault = fn(&mut Appliance, &[u8]) -> Option<Vec<Vec<u8>>>;
type Healthy = fn(Ask<'_>) -> Asked;

impl Appliance {
    fn new(profile: &str, fault: Fault, health: Healthy) -> Self {
        let text = format!(
            "{}verify_checksum = \"always\"\nprofile = \"{profile}\"\n[flow]\ntracking = true\n",
            common::TUNNEL
        );
        Appliance {
            rig: Rig::new(&plan(&text)),
            fault,
            health,
            out: VecDeque::new(),
            memory: HashMap::new(),
            held: None,
            count: 0,
        }
    }

    /// What the data plane makes of it.
    fn right(&mut self, packet: &[u8]) -> Vec<Vec<u8>> {
        let frame = [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 9, 8, 0][..], packet].concat();
        self.rig.wire.send(frame);
        // What waited for it goes in the next round.
        for _ in 0..2 {
            self.rig.worker.poll();
        }
        std::iter::from_fn(|| self.rig.wire.receive()).map(|frame| frame[14..].to_vec()).collect()
    }

    /// The same, changed.
    fn changed(&mut self, packet: &[u8], change: impl Fn(&mut Vec<u8>)) -> Option<Vec<Vec<u8>>> {
        let mut back = self.right(packet);
        for packet in &mut back {
            change(packet);
        }
        Some(back)
    }
}

impl Wire for Appliance {
    fn us(&self) -> Ipv4Addr {
        NODE
    }

    fn appliance(&self) -> Ipv4Addr {
        APPLIANCE
    }

    fn keeps_header(&self) -> bool {
        true
    }

    fn send(&mut self, packet: &[u8]) -> io::Result<Sent> {
        // Faults are of those who read a GENEVE header.
        let fault = if packet.len() < 36 { None } else { (self.fault)(self, packet) };
        let back = fault.unwrap_or_else(|| self.right(packet));
        self.out.extend(back);
        Ok(Sent::Yes)
    }

    fn receive(&mut self, _: Duration) -> io::Result<Option<Vec<u8>>> {
        Ok(self.out.pop_front())
    }

    fn ask(&mut self, ask: Ask<'_>) -> io::Result<Asked> {
        Ok((self.health)(ask))
    }
}

fn settings(profile: &'static Profile) -> Settings {
    let throughput = Duration::from_millis(60);
    Settings { profile, throughput, min_kpps: Some(1e-9), ..Settings::default() }
}

fn all() -> Vec<&'static Check> {
    checks::all().collect()
}

fn found(report: &Report, verdict: Verdict) -> Vec<&'static str> {
    report.found.iter().filter(|found| found.verdict == verdict).map(|found| found.check.id).collect()
}

fn texts(report: &Report) -> Vec<&str> {
    let failed = report.found.iter().filter(|found| found.verdict == Verdict::Failed);
    failed.map(|found| found.text.as_str()).collect()
}

fn healthy(ask: Ask<'_>) -> Asked {
    Asked::Answer(ask.request.map_or_else(Vec::new, |_| b"HTTP/1.1 200 OK\r\n\r\n".to_vec()))
}

/// Only the outer addresses change places, whatever the packet is.
fn echo(packet: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut back = packet.to_vec();
    back[12..20].rotate_left(4);
    Some(vec![back])
}

fn nothing() -> Option<Vec<Vec<u8>>> {
    Some(Vec::new())
}

/// GENEVE's second to fourth byte and the length of the options are AWS's usual ones, and there is an inner IPv4 header.
fn usual(packet: &[u8]) -> bool {
    packet[28..32] == [8, 0, 8, 0] && packet.len() >= INNER + 20
}

fn protocol(packet: &[u8]) -> Option<u8> {
    usual(packet).then(|| packet[INNER + 9])
}

fn word(packet: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([packet[at], packet[at + 1]])
}

/// The inner packet's length, if it is IPv4.
fn length(packet: &[u8]) -> usize {
    if usual(packet) { usize::from(word(packet, INNER + 2)) } else { 0 }
}

/// Inner UDP from or to this port, no fragment.
fn udp(packet: &[u8], port: u16) -> bool {
    protocol(packet) == Some(17)
        && word(packet, INNER + 6) & 0x3fff == 0
        && packet.len() >= INNER + 28
        && [INNER + 20, INNER + 22].iter().any(|at| word(packet, *at) == port)
}

/// Flags of inner TCP.
fn tcp(packet: &[u8]) -> Option<u8> {
    (protocol(packet) == Some(6)).then(|| packet[INNER + 33])
}

/// Type and code of inner ICMP.
fn icmp(packet: &[u8]) -> Option<[u8; 2]> {
    (protocol(packet) == Some(1)).then(|| [packet[INNER + 20], packet[INNER + 21]])
}

/// Inner addresses and ports, the same for both directions.
fn tuple(packet: &[u8]) -> Vec<u8> {
    let end = |address: usize, port: usize| {
        [&packet[INNER + address..INNER + address + 4], &packet[INNER + port..INNER + port + 2]].concat()
    };
    let mut ends = [end(12, 20), end(16, 22)];
    ends.sort();
    ends.concat()
}

fn edited(packet: &mut Vec<u8>, edit: impl Fn(&mut Vec<u8>)) {
    edit(packet);
    make::header_sum(packet);
    make::udp_sum(packet);
}

/// The options again, without some.
fn rebuilt(packet: &mut Vec<u8>, keep: impl Fn(&TunnelOption) -> bool) {
    let seen = read::outer(packet).expect("a packet");
    let options = seen.options.iter().map(|o| TunnelOption::new(o.class, o.kind, o.data)).filter(keep);
    let envelope = Envelope {
        node: seen.source,
        appliance: seen.destination,
        source_port: seen.source_port,
        port: seen.port,
        ttl: seen.ttl,
        checksum: true,
        flags: seen.flags,
        protocol: Some(seen.protocol),
        vni: (seen.vni, 0),
        options: options.collect(),
    };
    *packet = envelope.packet(seen.inner);
}

fn has_option(packet: &[u8], class: u16, kind: u8) -> bool {
    let [high, low] = class.to_be_bytes();
    packet.windows(3).any(|bytes| bytes == [high, low, kind])
}

/// An appliance for each check, which fails this one only.
const WRONG: &[(&str, Fault)] = &[
    ("envelope.returned", |_, _| nothing()),
    ("envelope.addresses", |a, p| a.changed(p, |back| edited(back, |b| b[15] += 1))),
    ("envelope.ports", |a, p| a.changed(p, |back| back[20..24].rotate_left(2))),
    ("envelope.outer-header", |a, p| a.changed(p, |back| back[10] ^= 1)),
    ("envelope.udp-checksum", |a, p| a.changed(p, |back| back[27] ^= 1)),
    ("envelope.base-header", |a, p| a.changed(p, |back| edited(back, |b| b[VNI + 2] ^= 1))),
    ("envelope.cookie", |a, p| {
        usual(p).then(|| a.changed(p, |back| edited(back, |b| b[COOKIE.start] ^= 0x80)))?
    }),
    ("envelope.no-checksum", |_, p| (p[26..28] == [0, 0]).then(nothing)?),
    ("envelope.source-ports", |_, p| (word(p, 20) < 49_152).then(nothing)?),
    ("inner.tuple", |a, p| {
        udp(p, 53).then(|| {
            a.changed(p, |back| {
                edited(back, |b| {
                    b[INNER + 21] ^= 1;
                    make::put(b, INNER + 26, 0);
                })
            })
        })?
    }),
    ("inner.checksums", |a, p| {
        udp(p, 53).then(|| a.changed(p, |back| edited(back, |b| b[INNER + 26] ^= 1)))?
    }),
    ("inner.bytes", |a, p| {
        udp(p, 53).then(|| {
            a.changed(p, |back| {
                edited(back, |b| {
                    b[INNER + 30] ^= 0x20; // a flag of DNS
                    make::put(b, INNER + 26, 0);
                })
            })
        })?
    }),
    ("options.values", |a, p| {
        usual(p).then(|| a.changed(p, |back| edited(back, |b| b[ENDPOINT.start] ^= 0x10)))?
    }),
    ("options.order", |a, p| {
        usual(p).then(|| {
            a.changed(p, |back| edited(back, |b| *b = [&b[..36], &b[60..68], &b[36..60], &b[68..]].concat()))
        })?
    }),
    ("options.unknown", |a, p| {
        has_option(p, 0xfff7, 0x21)
            .then(|| a.changed(p, |back| rebuilt(back, |option| option.kind != 0x21)))?
    }),
    ("options.critical", |_, p| has_option(p, 0xfff7, 0xa2).then(|| echo(p))?),
    ("options.any-order", |_, p| (usual(p) && p[38] == 3).then(nothing)?),
    ("options.reserved-bits", |_, p| (p[29] & 0x3f != 0).then(nothing)?),
    // The server's FIN is lost.
    ("flow.directions", |_, p| {
        tcp(p).filter(|flags| flags & 1 != 0 && word(p, INNER + 20) == 80).map(|_| Vec::new())
    }),
    // The first envelope of a flow serves for ever.
    ("flow.newest-envelope", |a, p| {
        udp(p, 5001).then(|| {
            let first = [&p[20..22], &p[COOKIE]].concat();
            let first = a.memory.entry(tuple(p)).or_insert(first).clone();
            a.changed(p, |back| {
                edited(back, |b| {
                    b[20..22].copy_from_slice(&first[..2]);
                    b[COOKIE].copy_from_slice(&first[2..]);
                })
            })
        })?
    }),
    // What gwlbtun did: a new connection finds the old one's cookie.
    ("flow.cookie-renewal", |a, p| {
        tcp(p).filter(|flags| *flags == 2).and_then(|_| {
            let first = a.memory.entry(tuple(p)).or_insert(p[COOKIE].to_vec()).clone();
            a.changed(p, |back| edited(back, |b| b[COOKIE].copy_from_slice(&first)))
        })
    }),
    // Flows are known by their inner addresses only.
    ("flow.endpoints", |a, p| {
        udp(p, 5001).then(|| {
            let first = a.memory.entry(tuple(p)).or_insert(p[ENDPOINT].to_vec()).clone();
            a.changed(p, |back| edited(back, |b| b[ENDPOINT].copy_from_slice(&first)))
        })?
    }),
    ("flow.icmp-echo", |_, p| icmp(p).filter(|kind| matches!(kind[0], 0 | 8)).map(|_| Vec::new())),
    ("flow.ipv6", |_, p| (p[30..32] == [0x86, 0xdd]).then(nothing)?),
    ("flow.other-protocols", |_, p| protocol(p).filter(|p| !matches!(p, 1 | 6 | 17)).map(|_| Vec::new())),
    ("flow.once", |a, p| {
        udp(p, 5001).then(|| {
            let back = a.right(p);
            Some([back.clone(), back].concat())
        })?
    }),
    // Neighbours change places.
    ("flow.order", |a, p| {
        (udp(p, 5001) && length(p) == 48).then(|| {
            let back = a.right(p);
            match a.held.take() {
                Some(held) => Some([back, vec![held]].concat()),
                None => {
                    a.held = back.into_iter().next();
                    nothing()
                }
            }
        })?
    }),
    ("fragments.all", |_, p| (usual(p) && word(p, INNER + 6) & 0x1fff != 0).then(nothing)?),
    ("fragments.out-of-order", |a, p| {
        let place = if usual(p) { word(p, INNER + 6) & 0x3fff } else { 0 };
        let id = [&p[INNER.min(p.len())..], &[0; 20]].concat()[4..6].to_vec();
        match place {
            0 => None,
            0x2000 => {
                a.memory.insert(id, Vec::new());
                None
            }
            _ => (!a.memory.contains_key(&id)).then(nothing)?,
        }
    }),
    ("fragments.ipv6", |_, p| {
        (p[28..32] == [8, 0, 0x86, 0xdd] && p.get(INNER + 6) == Some(&44)).then(nothing)?
    }),
    ("icmp.unreachable", |_, p| icmp(p).filter(|kind| *kind == [3, 3]).map(|_| Vec::new())),
    ("icmp.too-big", |_, p| icmp(p).filter(|kind| *kind == [3, 4]).map(|_| Vec::new())),
    ("icmp.ipv6-too-big", |_, p| {
        (p[28..32] == [8, 0, 0x86, 0xdd] && p.get(INNER + 40) == Some(&2)).then(nothing)?
    }),
    ("mtu.shortest", |_, p| (udp(p, 5001) && length(p) == 28).then(nothing)?),
    ("mtu.1500", |_, p| (length(p) == 1500).then(nothing)?),
    ("mtu.largest", |_, p| (8400..=8500).contains(&length(p)).then(nothing)?),
    ("mtu.over", |_, p| (length(p) == 8501).then(|| echo(p))?),
    ("mtu.tells", |_, p| (length(p) > 8501).then(nothing)?),
    ("malformed.version", |_, p| (p[28] >> 6 == 1).then(|| echo(p))?),
    ("malformed.control", |_, p| (p[29] & 0x80 != 0).then(|| echo(p))?),
    ("malformed.option-overrun", |_, p| has_option(p, 0xfff7, 0x23).then(|| echo(p))?),
    ("malformed.options-beyond", |_, p| (p[28] == 0x3f).then(|| echo(p))?),
    ("malformed.udp-checksum", |_, p| {
        read::outer(p).is_ok_and(|seen| seen.checksum == Sum::Bad).then(|| echo(p))?
    }),
    ("malformed.ip-checksum", |_, p| read::outer(p).is_ok_and(|seen| !seen.header_ok).then(|| echo(p))?),
    ("malformed.udp-length", |_, p| (usize::from(word(p, 24)) != p.len() - 20).then(|| echo(p))?),
    ("malformed.outer-fragment", |_, p| (p[6] & 0x20 != 0).then(|| echo(p))?),
    ("malformed.truncated", |_, p| (p[28] == 8 && p.len() < INNER + 20).then(|| echo(p))?),
    ("malformed.inner-length", |_, p| {
        (usual(p) && p[6] == 0 && p.len() >= INNER + 60 && length(p) > p.len() - INNER).then(|| echo(p))?
    }),
    ("malformed.inner-version", |_, p| {
        (p[28..32] == [8, 0, 0x86, 0xdd] && p.get(INNER) == Some(&0x45)).then(|| echo(p))?
    }),
    ("malformed.protocol-type", |_, p| (p[28..32] == [8, 0, 0x65, 0x58]).then(|| echo(p))?),
    // It dies of a version.
    ("malformed.survives", |a, p| {
        a.count += u64::from(p[28] >> 6 == 3);
        (a.count > 0).then(nothing)?
    }),
    ("throughput.rate", |_, p| (udp(p, 5001) && length(p) == 44).then(nothing)?),
];

/// Health of an appliance whose packets are right.
const UNHEALTHY: &[(&str, Healthy)] = &[
    ("health.tcp", |_| Asked::Refused),
    ("health.tcp", |_| Asked::Silent),
    ("health.http", |ask| match ask.request {
        Some(_) if ask.beside == 0 => Asked::Answer(b"HTTP/1.1 500 Internal Server Error\r\n\r\n".to_vec()),
        _ => healthy(ask),
    }),
    ("health.http", |ask| match ask.request {
        Some(_) if ask.beside == 0 => Asked::Answer(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()),
        _ => healthy(ask),
    }),
    ("health.http", |ask| if ask.request.is_some() && ask.beside == 0 { Asked::Hangs } else { healthy(ask) }),
    ("health.several", |ask| if ask.beside > 0 { Asked::Hangs } else { healthy(ask) }),
];

/// The data plane behind a wire, under every profile.
#[test]
fn sluicegate_gets_full_marks() {
    for profile in Profile::ALL {
        let mut right = Appliance::new(profile.name, |_, _| None, healthy);
        let report = judge(&mut right, &settings(profile), &all(), &mut ()).expect("a judgement");
        assert_eq!(found(&report, Verdict::Failed), [""; 0], "{}: {:?}", profile.name, texts(&report));
        assert_eq!(report.found.len(), all().len());
        let unjudged = found(&report, Verdict::NotJudged);
        // What a profile does not have.
        let expected: &[&str] = match profile.name {
            "aws" => &[],
            "tencent" => &["mtu.largest", "mtu.over", "mtu.tells"],
            "google" => &["envelope.cookie", "flow.cookie-renewal", "mtu.largest", "mtu.over", "mtu.tells"],
            _ => &[
                "envelope.cookie",
                "options.values",
                "options.order",
                "options.any-order",
                "flow.cookie-renewal",
                "mtu.largest",
                "mtu.over",
                "mtu.tells",
            ],
        };
        assert_eq!(unjudged, expected, "{}", profile.name);
        assert_eq!(report.full_marks(), profile.name == "aws");
    }
}

/// Exactly that check fails; what could not be judged needs it.
fn fails(id: &str, report: &Report) {
    assert_eq!(found(report, Verdict::Failed), [id], "{id}: {:?}", texts(report));
    for other in found(report, Verdict::NotJudged) {
        let needs = all().into_iter().find(|check| check.id == other).expect("a check").needs;
        let by = |needed: &&str| *needed == id || found(report, Verdict::NotJudged).contains(needed);
        let first = id == "envelope.returned" && !other.starts_with("health.");
        assert!(first || needs.iter().any(by), "{id}: {other} was not judged");
    }
    let failed = report.found.iter().find(|found| found.check.id == id).expect("it");
    assert!(!failed.text.is_empty());
    assert_eq!(report.passes(false), failed.level == Level::Should, "{id}");
    assert!(!report.full_marks());
}

#[test]
fn every_check_fails_for_an_appliance_that_is_wrong_in_this() {
    for check in checks::all() {
        let known =
            WRONG.iter().any(|(id, _)| *id == check.id) || UNHEALTHY.iter().any(|(id, _)| *id == check.id);
        assert!(known, "no appliance fails {}", check.id);
    }
    for (id, fault) in WRONG {
        let mut wrong = Appliance::new("aws", *fault, healthy);
        let report = judge(&mut wrong, &settings(&profile::AWS), &all(), &mut ()).expect("a judgement");
        fails(id, &report);
    }
}

#[test]
fn every_sick_appliance_is_found_out() {
    for (id, health) in UNHEALTHY {
        let mut wrong = Appliance::new("aws", |_, _| None, *health);
        let report = judge(&mut wrong, &settings(&profile::AWS), &all(), &mut ()).expect("a judgement");
        fails(id, &report);
    }
}

/// One packet lost is no fault; the report says that it was tried again.
#[test]
fn a_lost_packet_is_tried_again() {
    let fault: Fault = |a, _| {
        a.count += 1;
        (a.count == 1).then(nothing)?
    };
    let mut lossy = Appliance::new("aws", fault, healthy);
    let report = judge(&mut lossy, &settings(&profile::AWS), &all()[..2], &mut ()).expect("a judgement");
    assert_eq!(found(&report, Verdict::Failed), [""; 0]);
    assert_eq!(report.found[0].text, "at attempt 2");
    let mut lossy = Appliance::new("aws", fault, healthy);
    let once = Settings { attempts: 1, ..settings(&profile::AWS) };
    let report = judge(&mut lossy, &once, &all()[..1], &mut ()).expect("a judgement");
    assert_eq!(found(&report, Verdict::Failed), ["envelope.returned"]);
    assert_eq!(report.found[0].text, "a DNS query did not come back");
}

/// A policy against the judge's traffic is said to be one.
#[test]
fn a_policy_is_named() {
    let fault: Fault = |a, p| {
        let mut back = a.right(p);
        if udp(p, 53) {
            let inner = &back[0][INNER..];
            let address =
                |at: usize| Ipv4Addr::new(inner[at], inner[at + 1], inner[at + 2], inner[at + 3]).into();
            let error = make::icmp(address(16), address(12), [3, 13], 0, inner);
            back[0].truncate(INNER);
            back[0].extend(error);
            let (total, len) = (back[0].len() as u16, back[0].len() as u16 - 20);
            make::put(&mut back[0], 2, total);
            make::put(&mut back[0], 24, len);
            edited(&mut back[0], |_| {});
        }
        Some(back)
    };
    let mut strict = Appliance::new("aws", fault, healthy);
    let report = judge(&mut strict, &settings(&profile::AWS), &all()[..1], &mut ()).expect("a judgement");
    let why = "a DNS query did not come back, but an ICMP error about it did (type 3, code 13): is it against a policy?";
    assert_eq!(report.found[0].text, why);
}

/// Any garbage in answer to everything: the judge goes on.
#[test]
fn garbage_that_comes_back_is_no_trouble() {
    let fault: Fault = |a, p| {
        a.count += 1;
        let mut back = p.to_vec();
        back[12..20].rotate_left(4);
        let at = (a.count as usize * 7) % back.len();
        back[at] ^= 0xff;
        back.truncate(1 + (a.count as usize * 31) % p.len());
        Some(vec![back, Vec::new(), vec![0x45], vec![0xff; 40]])
    };
    let mut wild = Appliance::new("aws", fault, healthy);
    let report = judge(&mut wild, &settings(&profile::AWS), &all(), &mut ()).expect("a judgement");
    assert!(!report.passes(false));
}

/// One that never stops sending: the judge does.
#[test]
fn an_appliance_that_sends_without_end_is_judged() {
    struct Endless;
    impl Wire for Endless {
        fn us(&self) -> Ipv4Addr {
            NODE
        }
        fn appliance(&self) -> Ipv4Addr {
            APPLIANCE
        }
        fn keeps_header(&self) -> bool {
            true
        }
        fn send(&mut self, _: &[u8]) -> io::Result<Sent> {
            Ok(Sent::Yes)
        }
        fn receive(&mut self, _: Duration) -> io::Result<Option<Vec<u8>>> {
            Ok(Some(vec![0x45; 100]))
        }
        fn ask(&mut self, ask: Ask<'_>) -> io::Result<Asked> {
            Ok(healthy(ask))
        }
    }
    let short = Duration::from_millis(1);
    let settings =
        Settings { wait: short, quiet: short, throughput: short, attempts: 1, ..Settings::default() };
    // Each by itself, so that none is left out.
    for check in checks::all() {
        let report = judge(&mut Endless, &settings, &[check], &mut ()).expect("a judgement");
        let passes = check.id.starts_with("health.") || check.level == Level::Remark;
        assert_eq!(report.found[0].verdict == Verdict::Passed, passes, "{}", check.id);
    }
}
