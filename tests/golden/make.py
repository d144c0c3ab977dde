#!/usr/bin/python3
"""Writes frames.txt: golden frames, what becomes of each, and what comes home.

    /usr/bin/python3 tests/golden/make.py > tests/golden/frames.txt          (needs scapy 2.5)

The answers come from outside: scapy encodes each frame twice, once as the load balancer sends it and once as an appliance
would build the reply by itself (lengths and checksums computed by scapy from its own fields). Nothing is swapped in bytes.

A case is: name, why, verdict (`home`, `punted`, `dropped LABEL`), settings that differ from the default (`with`), `in`, and for
`home` also `out`. Hex; `00*100` is a byte repeated. Defaults: profile aws, port 6081, sources 10.254.11.0/24, our address
10.254.11.102, verify_checksum auto, max_return 8500, no stages.
"""

import re
import sys

from scapy.all import (
    ARP, BOOTP, DHCP, Dot1Q, Ether, GRE, ICMP, ICMPv6EchoRequest, ICMPv6ND_NS, IP, IPOption_NOP, IPv6,
    IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop, IPv6ExtHdrRouting, LLC, Padding, Raw, SCTP, SNAP,
    TCP, UDP, VXLAN, AH, ESP,
)
from scapy.contrib.geneve import GENEVE, GeneveOptions

NODE, US = "10.254.11.107", "10.254.11.102"
NODE_MAC, OUR_MAC = "02:00:00:00:01:07", "02:00:00:00:01:02"
ENDPOINT, COOKIE = bytes.fromhex("0fedcba987654321"), bytes.fromhex("65efb5e1")


# --- parts -----------------------------------------------------------------------------------------------------------

def option(classid, kind, data, **kw):
    return GeneveOptions(classid=classid, type=kind, length=kw.pop("length", len(data) // 4), data=data, **kw)


def three(classid):
    return [option(classid, 1, ENDPOINT), option(classid, 2, bytes(8)), option(classid, 3, COOKIE)]


AWS, TENCENT = three(0x0108), three(0x0167)
GOOGLE = [option(0x0132, 1, b"\x00\x00\x0a\x01"), option(0x0132, 2, bytes(range(16))), option(0x0132, 3, bytes(8))]

C, S = "192.168.7.10", "172.16.5.80"
C6, S6 = "2001:db8:7::10", "2001:db8:5::80"
TEXT = b"a frame comes in, is inspected, and goes home"


def tcp(**kw):
    return TCP(**{"sport": 40000, "dport": 443, "flags": "PA", "seq": 1000, "ack": 2000, **kw})


def tcp4(**kw):
    return IP(src=C, dst=S, id=7, flags="DF") / tcp(**kw) / Raw(TEXT)


def udp4(**kw):
    return IP(src=C, dst=S, id=8) / UDP(**{"sport": 5000, "dport": 53, **kw}) / Raw(TEXT)


def tcp6():
    return IPv6(src=C6, dst=S6) / tcp() / Raw(TEXT)


def udp6():
    return IPv6(src=C6, dst=S6) / UDP(sport=5000, dport=53) / Raw(TEXT)


def envelope(inner, options=None, *, vlan=None, ip=None, udp=None, geneve=None, pad=b""):
    """A recipe: called with back=False it is the load balancer's frame, with back=True the appliance's answer."""
    options = AWS if options is None else options

    def build(back):
        (smac, dmac, src, dst) = (OUR_MAC, NODE_MAC, US, NODE) if back else (NODE_MAC, OUR_MAC, NODE, US)
        given = dict(ip or {})
        if "peer" in given:
            peer = given.pop("peer")
            (src, dst) = (US, peer) if back else (peer, US)
        if "us" in given:
            us = given.pop("us")
            (src, dst) = (us, NODE) if back else (NODE, us)
        frame = Ether(src=smac, dst=dmac)
        for tag in [vlan] if isinstance(vlan, dict) else vlan or []:
            frame /= Dot1Q(**tag)
        frame /= IP(**{"src": src, "dst": dst, "id": 0, "ttl": 255, **given})
        frame /= UDP(**{"sport": 60000, "dport": 6081, **(udp or {})})
        words = sum(len(bytes(o)) for o in options) // 4
        frame /= GENEVE(**{"optionlen": words, "vni": 0, "options": options, **(geneve or {})})
        if isinstance(inner, bytes):
            frame[GENEVE].proto = (geneve or {}).get("proto", 0x0800)
            frame /= Raw(inner)
        else:
            frame /= inner
        return frame / Padding(pad) if pad else frame

    return build


def cut(build, length):
    return lambda back: bytes(build(back))[:length]


def plain(frame):
    """A frame that is not tunnel traffic: nobody builds an answer to it."""
    return lambda back: frame


# --- cases -----------------------------------------------------------------------------------------------------------

cases = []


def case(name, why, verdict, build, **settings):
    assert re.fullmatch(r"[a-z0-9-]+(/[a-z0-9-]+)", name), name
    assert name not in {c[0] for c in cases}, name
    cases.append((name, why, verdict, build, settings))


def home(name, why, build, **settings):
    case(name, why, "home", build, **settings)


def drop(name, why, reason, build, **settings):
    case(name, why, f"dropped {reason}", build, **settings)


def punt(name, why, build, **settings):
    case(name, why, "punted", build, **settings)


def profiles():
    home("profile/aws-tcp4", "The frame that GWLB sends most: three options, IPv4 TCP inside.", envelope(tcp4()))
    home("profile/aws-udp4", "UDP inside.", envelope(udp4()))
    home("profile/aws-tcp6", "Dualstack: IPv6 inside, IPv4 outside.", envelope(tcp6()))
    home("profile/aws-udp6", "UDP over IPv6 inside.", envelope(udp6()))
    home("profile/aws-attachment", "The attachment id is opaque: any value comes back.",
         envelope(tcp4(), [AWS[0], option(0x0108, 2, b"\xff" * 8), AWS[2]]))
    home("profile/aws-cookie-zero", "Zero is a legal cookie.", envelope(tcp4(), [AWS[0], AWS[1], option(0x0108, 3, bytes(4))]))
    home("profile/aws-vni", "AWS sends VNI 0; nothing forbids another, and it comes back.",
         envelope(tcp4(), geneve={"vni": 0xABCDEF}))
    home("profile/tencent-tcp4", "The AWS layout under Tencent's class.", envelope(tcp4(), TENCENT), profile="tencent")
    home("profile/tencent-direction", "The upper bits of Tencent's cookie are the direction; they are not ours to judge.",
         envelope(tcp4(), [TENCENT[0], TENCENT[1], option(0x0167, 3, b"\xe0\x00\x00\x01")]), profile="tencent")
    home("profile/google-tcp4", "Ten words of options, no cookie, no outer UDP checksum, TTL 2.",
         envelope(tcp4(), GOOGLE, ip={"ttl": 2}, udp={"chksum": 0}), profile="google", max_return=65535)
    home("profile/google-endpoint-only", "Only the endpoint id is required of Google.",
         envelope(udp6(), GOOGLE[1:2]), profile="google", max_return=65535)
    home("profile/plain-no-options", "Plain GENEVE: the VNI is the scope, no option is needed.",
         envelope(tcp4(), [], geneve={"vni": 4096}), profile="plain", max_return=65535)
    home("profile/plain-any-options", "Plain GENEVE: options of anybody are echoed.",
         envelope(tcp6(), [option(0x0102, 0x80 - 1, b"\x01\x02\x03\x04"), *AWS]), profile="plain", max_return=65535)
    drop("profile/aws-under-tencent", "The class of another cloud is unknown, so ours is missing.", "option_missing",
         envelope(tcp4()), profile="tencent")
    drop("profile/google-under-aws", "As above, with options of other lengths.", "option_missing", envelope(tcp4(), GOOGLE))
    drop("profile/google-without-endpoint", "Google's endpoint id is what tells tenants apart.", "option_missing",
         envelope(tcp4(), [GOOGLE[0], GOOGLE[2]]), profile="google")
    drop("profile/google-endpoint-short", "Google's endpoint id has 16 bytes.", "option_length",
         envelope(tcp4(), [GOOGLE[0], option(0x0132, 2, bytes(8)), GOOGLE[2]]), profile="google")
    drop("profile/plain-critical", "Without a profile every critical option is unknown.", "option_critical",
         envelope(tcp4(), [option(0x0102, 0x80, bytes(4))], geneve={"critical": 1}), profile="plain")


def ethernet():
    home("eth/vlan", "One 802.1Q tag stays where it is.", envelope(tcp4(), vlan={"vlan": 100}))
    home("eth/vlan-priority", "A priority tag (VLAN 0) with its PCP bits stays as well.",
         envelope(udp6(), vlan={"vlan": 0, "prio": 5}))
    home("eth/padding", "Bytes behind the outer IP packet are link padding; they do not matter.", envelope(tcp4(), pad=bytes(6)))
    home("eth/padding-not-zero", "Padding is nobody's business, whatever it holds.", envelope(tcp4(), pad=b"\xa5" * 7))
    punt("eth/vlan-twice", "A second tag is not ours to open.", envelope(tcp4(), vlan=[{"vlan": 7}, {"vlan": 8}]))
    punt("eth/arp-request", "ARP for our address is the host stack's.",
         plain(Ether(src=NODE_MAC, dst="ff:ff:ff:ff:ff:ff") / ARP(op=1, hwsrc=NODE_MAC, psrc=NODE, pdst=US)))
    punt("eth/arp-reply", "So is the answer to our own request.",
         plain(Ether(src=NODE_MAC, dst=OUR_MAC) / ARP(op=2, hwsrc=NODE_MAC, psrc=NODE, hwdst=OUR_MAC, pdst=US)))
    punt("eth/lldp", "LLDP of the switch.",
         plain(Ether(src=NODE_MAC, dst="01:80:c2:00:00:0e", type=0x88CC) / Raw(b"\x02\x07\x04" + bytes(20))))
    punt("eth/llc", "An 802.3 frame: a length where the EtherType would be.",
         plain(Ether(src=NODE_MAC, dst="01:80:c2:00:00:00", type=38) / LLC() / Raw(bytes(35))))
    punt("eth/unknown-ethertype", "An EtherType that nobody here knows.",
         plain(Ether(src=NODE_MAC, dst=OUR_MAC, type=0x88B5) / Raw(bytes(46))))
    punt("eth/ipv6-neighbour-solicitation", "IPv6 outside is never tunnel traffic of a gateway load balancer.",
         plain(Ether(src=NODE_MAC, dst="33:33:ff:00:01:02") / IPv6(src="fe80::107", dst="ff02::1:ff00:102", hlim=255)
               / ICMPv6ND_NS(tgt="fe80::102")))
    punt("eth/geneve-over-ipv6", "Not even with our port in it.",
         plain(Ether(src=NODE_MAC, dst=OUR_MAC) / IPv6(src=C6, dst=S6) / UDP(sport=60000, dport=6081)
               / GENEVE(optionlen=8, options=AWS) / tcp4()))
    punt("eth/tunnel-under-another-ethertype", "The bytes of a tunnel, but not as IPv4.",
         lambda back: as_ethertype(envelope(tcp4()), back))
    drop("eth/runt", "Shorter than an Ethernet header.", "outer_truncated", cut(envelope(tcp4()), 13))
    drop("eth/cut-in-tag", "The frame ends inside its VLAN tag.", "outer_truncated",
         cut(envelope(tcp4(), vlan={"vlan": 100}), 16))


def as_ethertype(build, back):
    frame = build(back)
    frame.type = 0x88B5
    return frame


def outer_ip():
    home("outer/ip-options", "IP options in the envelope move everything behind them, and come back.",
         envelope(tcp4(), ip={"options": [IPOption_NOP()] * 4}))
    home("outer/ip-options-longest", "Forty bytes of IP options.", envelope(tcp6(), ip={"options": [IPOption_NOP()] * 40}))
    home("outer/ttl-1", "It is addressed to us: TTL 1 is enough, and comes back as it is.", envelope(tcp4(), ip={"ttl": 1}))
    home("outer/tos", "DSCP and ECN come back as they are.", envelope(tcp4(), ip={"tos": 0xBB}))
    home("outer/df", "DF is not a fragment.", envelope(tcp4(), ip={"flags": "DF", "id": 4660}))
    home("outer/reserved-flag", "The reserved bit of the flags (RFC 3514) is not a fragment either.",
         envelope(tcp4(), ip={"flags": "evil"}))
    home("outer/other-node", "Any address of the allowed prefix may send.", envelope(tcp4(), ip={"peer": "10.254.11.9"}))
    home("outer/any-source", "Without a list every source is accepted.", envelope(tcp4(), ip={"peer": "203.0.113.7"}),
         allowed_sources="")
    home("outer/second-prefix", "The list has several prefixes.", envelope(tcp4(), ip={"peer": "10.9.255.255"}),
         allowed_sources="10.254.11.0/24,10.8.0.0/15")
    home("outer/any-address", "Without a list of addresses every unicast destination is ours.",
         envelope(tcp4(), ip={"us": "10.254.11.55"}), addresses="")
    home("outer/second-address", "We may have several addresses.", envelope(tcp4(), ip={"us": "10.254.11.103"}),
         addresses="10.254.11.102,10.254.11.103")
    punt("outer/other-destination", "An address that is not ours.", envelope(tcp4(), ip={"us": "10.254.11.55"}))
    punt("outer/multicast", "Multicast is never ours, even without a list.", envelope(tcp4(), ip={"us": "239.1.2.3"}), addresses="")
    punt("outer/broadcast", "Nor is broadcast.", envelope(tcp4(), ip={"us": "255.255.255.255"}), addresses="")
    for name, protocol in (("tcp", 6), ("udp-lite", 136)):
        punt(f"outer/protocol-{name}", "The bytes of a tunnel under another IP protocol are not a tunnel.",
             envelope(tcp4(), ip={"proto": protocol}))
    drop("outer/foreign-source", "Only the load balancer's subnets may send into the tunnel.", "foreign_source",
         envelope(tcp4(), ip={"peer": "10.254.12.1"}))
    drop("outer/foreign-source-slow", "The same for a frame that takes the general walk.", "foreign_source",
         envelope(tcp4(), ip={"peer": "10.254.12.1", "options": [IPOption_NOP()] * 4}))
    for name, peer in (("broadcast", "255.255.255.255"), ("multicast", "224.0.0.1"), ("loopback", "127.0.0.1"), ("zero", "0.0.0.0")):
        drop(f"outer/source-{name}", "No host has this address, and an answer to it reaches many or nobody (RFC 1122 section 3.2.1.3).",
             "foreign_source", envelope(tcp4(), ip={"peer": peer}), allowed_sources="")
    drop("outer/source-broadcast-slow", "The same for a frame that takes the general walk.", "foreign_source",
         envelope(tcp4(), ip={"peer": "255.255.255.255", "options": [IPOption_NOP()] * 4}), allowed_sources="")
    punt("outer/foreign-source-not-tunnel", "Sources are checked for tunnel traffic only.",
         plain(Ether(src=NODE_MAC, dst=OUR_MAC) / IP(src="10.254.12.1", dst=US) / UDP(sport=53, dport=5353) / Raw(TEXT)))
    for version in (0, 5, 6, 15):
        drop(f"outer/version-{version}", "EtherType says IPv4, the header does not.", "outer_header",
             envelope(tcp4(), ip={"version": version}))
    for ihl in (0, 4):
        drop(f"outer/ihl-{ihl}", "A header shorter than a header.", "outer_header", envelope(tcp4(), ip={"ihl": ihl}))
    drop("outer/ihl-beyond", "A header longer than the packet.", "outer_header",
         plain(Ether(src=NODE_MAC, dst=OUR_MAC) / IP(src=NODE, dst=US, proto=17, ihl=15, len=40) / Raw(bytes(20))))
    for length in (0, 19):
        drop(f"outer/total-length-{length}", "A packet shorter than its header.", "outer_header",
             envelope(tcp4(), ip={"len": length}))
    drop("outer/total-length-beyond", "A packet longer than its frame.", "outer_truncated", envelope(tcp4(), ip={"len": 300}))
    for length in (14, 33, 34, 41, 42, 49, 50, 81, 82, 101, 102, 121):
        drop(f"outer/cut-at-{length}", "The frame ends before the length its IP header states.", "outer_truncated",
             cut(envelope(tcp4()), length))
    drop("outer/checksum", "A wrong header checksum.", "outer_checksum", envelope(tcp4(), ip={"chksum": 0x1234}))
    drop("outer/checksum-with-options", "A wrong header checksum over IP options.", "outer_checksum",
         envelope(tcp4(), ip={"chksum": 0x1234, "options": [IPOption_NOP()] * 4}))
    drop("outer/checksum-zero", "Zero is not a way to say none in IPv4.", "outer_checksum", envelope(tcp4(), ip={"chksum": 0}))
    drop("outer/first-fragment", "Outer fragments are not put together.", "outer_fragment", envelope(tcp4(), ip={"flags": "MF"}))
    drop("outer/later-fragment", "Nor is what follows them.", "outer_fragment", envelope(tcp4(), ip={"frag": 64}))


def outer_udp():
    for port in (0, 1, 521, 6081, 65535):
        home(f"udp/source-port-{port}", "Receivers do not judge by the source port (RFC 8926 section 3.3); it comes back.",
             envelope(tcp4(), udp={"sport": port}))
    home("udp/other-tunnel-port", "The tunnel port is a setting.", envelope(tcp4(), udp={"dport": 16081}), port=16081)
    home("udp/bytes-behind", "IP payload behind the UDP datagram is out of sight.",
         lambda back: behind_udp(envelope(tcp4()), back))
    home("udp/checksum-zero", "Zero means none over IPv4 (RFC 768).", envelope(tcp4(), udp={"chksum": 0}))
    home("udp/checksum-zero-always", "Even where checksums are always verified.", envelope(tcp4(), udp={"chksum": 0}),
         verify_checksum="always")
    home("udp/checksum-right-always", "A right checksum, computed here because the driver does not know.", envelope(tcp4()),
         verify_checksum="always")
    home("udp/checksum-right-odd", "A datagram of an odd length.", envelope(IP(src=C, dst=S) / UDP() / Raw(b"odd")),
         verify_checksum="always")
    home("udp/checksum-right-vlan", "A datagram behind a tag and IP options.",
         envelope(tcp6(), vlan={"vlan": 9}, ip={"options": [IPOption_NOP()] * 8}), verify_checksum="always")
    home("udp/checksum-wrong-auto", "auto passes what the driver does not know.", envelope(tcp4(), udp={"chksum": 0x1234}))
    home("udp/checksum-wrong-never", "never passes everything.", envelope(tcp4(), udp={"chksum": 0x1234}),
         verify_checksum="never")
    drop("udp/checksum-wrong-always", "A wrong checksum is refused (RFC 8926 section 3.3).", "udp_checksum",
         envelope(tcp4(), udp={"chksum": 0x1234}), verify_checksum="always")
    drop("udp/checksum-wrong-always-slow", "The same for a frame that takes the general walk.", "udp_checksum",
         envelope(tcp6(), ip={"options": [IPOption_NOP()] * 4}, udp={"chksum": 0x1234}), verify_checksum="always")
    drop("udp/checksum-covers-payload", "A flipped bit in the last byte of the payload.", "udp_checksum",
         lambda back: flip_last(envelope(tcp4()), back), verify_checksum="always")
    for length in (0, 7):
        drop(f"udp/length-{length}", "A datagram shorter than its header.", "udp_length", envelope(tcp4(), udp={"len": length}))
    drop("udp/length-beyond", "A datagram longer than its packet.", "udp_length", envelope(tcp4(), udp={"len": 400}))
    drop("udp/header-cut", "An IP packet that ends inside the UDP header.", "udp_length",
         plain(Ether(src=NODE_MAC, dst=OUR_MAC) / IP(src=NODE, dst=US, proto=17) / Raw(b"\xea\x60\x17\xc1")))
    to_us = Ether(src=NODE_MAC, dst=OUR_MAC) / IP(src=NODE, dst=US)
    punt("udp/other-port", "UDP to another port.", plain(to_us / UDP(sport=60000, dport=6080) / Raw(TEXT)))
    punt("udp/other-port-tunnel", "Even if it looks like a tunnel.", envelope(tcp4(), udp={"dport": 6082}))
    punt("udp/from-tunnel-port", "The tunnel port as a source means nothing.", plain(to_us / UDP(sport=6081, dport=9) / Raw(TEXT)))
    punt("udp/vxlan", "Another tunnel.", plain(to_us / UDP(sport=60000, dport=4789) / VXLAN(vni=1) / Ether() / tcp4()))
    punt("udp/dhcp", "An answer to our DHCP request.",
         plain(to_us / UDP(sport=67, dport=68) / BOOTP(op=2, xid=1, yiaddr=US) / DHCP(options=[("message-type", "ack"), "end"])))
    punt("udp/health-check", "A health check of the load balancer is plain TCP from the same node.",
         plain(to_us / TCP(sport=50000, dport=80, flags="S", seq=1)))
    punt("udp/tcp-6081", "TCP to the tunnel port is not a tunnel.", plain(to_us / TCP(sport=50000, dport=6081, flags="S", seq=1)))
    punt("udp/icmp-echo", "A ping to us.", plain(to_us / ICMP(id=1, seq=1) / Raw(TEXT)))


def behind_udp(build, back):
    """The same datagram in a longer IP packet."""
    frame = build(back)
    udp = frame[UDP]
    size = len(bytes(udp))
    frame[IP].len = 20 + size + 9
    udp.len = size
    # The checksum covers the datagram only, so it is taken from the frame without what is behind.
    udp.chksum = Ether(bytes(build(back)))[UDP].chksum
    return bytes(frame) + b"behind..."


def flip_last(build, back):
    frame = bytearray(bytes(build(back)))
    frame[-1] ^= 1
    return bytes(frame)


def geneve():
    home("geneve/c-bit", "C says only that there may be critical options; none is.", envelope(tcp4(), geneve={"critical": 1}))
    home("geneve/reserved-flags", "Reserved bits are ignored on receive (RFC 8926 section 3.4) and come back.",
         envelope(tcp4(), geneve={"reserved": 0x3F}))
    home("geneve/reserved-byte", "So is the reserved byte behind the VNI.", envelope(tcp4(), geneve={"reserved2": 0xFF}))
    for version in (1, 2, 3):
        drop(f"geneve/version-{version}", "An unknown version is refused.", "geneve_version",
             envelope(tcp4(), geneve={"version": version}))
    drop("geneve/control", "The payload of a control packet must not be forwarded.", "geneve_control",
         envelope(tcp4(), geneve={"oam": 1}))
    drop("geneve/control-and-critical", "Not with the C bit either.", "geneve_control",
         envelope(tcp4(), geneve={"oam": 1, "critical": 1}))
    for size in (0, 1, 7):
        drop(f"geneve/header-{size}-bytes", "The datagram ends inside the base header.", "geneve_truncated", short(size))
    for size in (8, 9, 39):
        drop(f"geneve/options-cut-at-{size}", "The datagram ends inside the options.", "geneve_truncated", short(size))
    drop("geneve/option-length-63", "Options longer than the datagram.", "geneve_truncated",
         envelope(udp4(), geneve={"optionlen": 63}))
    for name, proto in (("teb", 0x6558), ("arp", 0x0806), ("mpls", 0x8847), ("zero", 0), ("all-ones", 0xFFFF)):
        drop(f"geneve/protocol-{name}", "Only IPv4 and IPv6 travel in this tunnel.", "geneve_protocol",
             envelope(bytes(tcp4()), geneve={"proto": proto}))


def short(size):
    """A datagram with only the first bytes of its GENEVE packet; lengths and checksums are right."""
    def build(back):
        full = bytes(envelope(tcp4())(back)[GENEVE])
        return Ether(src=NODE_MAC, dst=OUR_MAC) / IP(src=NODE, dst=US, id=0) / UDP(sport=60000, dport=6081) / Raw(full[:size])
    return build


def options():
    e, a, c = AWS
    for order, opts in (("cookie-first", [c, e, a]), ("attachment-first", [a, c, e]), ("reversed", [c, a, e])):
        home(f"option/{order}", "The order of options has no meaning (RFC 8926 section 3.5); it comes back.", envelope(tcp4(), opts))
    unknown = option(0x0104, 0x60, bytes.fromhex("deadbeefcafef00d"))
    home("option/unknown-first", "An unknown option that is not critical is skipped and echoed.", envelope(tcp4(), [unknown, *AWS]))
    home("option/unknown-between", "Wherever it stands.", envelope(udp6(), [e, unknown, a, c]))
    home("option/unknown-last", "At the end.", envelope(tcp6(), [*AWS, unknown]))
    home("option/unknown-empty", "An option without data.", envelope(tcp4(), [option(0x0108, 4, b""), *AWS]))
    home("option/unknown-longest", "An option with 124 bytes.", envelope(tcp4(), [*AWS, option(0xFFFF, 0x7F, b"\x5a" * 124)]))
    home("option/most-bytes", "252 bytes of options.",
         envelope(tcp4(), [*AWS, option(0xFFFF, 1, b"\x11" * 124), option(0xFFFF, 2, b"\x22" * 88)]))
    home("option/most-options", "58 options: 55 of them empty.", envelope(tcp4(), [*AWS, *[option(0xFFF0, 5, b"")] * 55]))
    for bits in (1, 7):
        home(f"option/r-bits-{bits}", "R bits are ignored on receive and come back.",
             envelope(tcp4(), [option(0x0108, 1, ENDPOINT, reserved=bits), a, c]))
    for kind, critical in ((0x80, 1), (0x81, 1), (0xFF, 1), (0x90, 0)):
        drop(f"option/critical-{kind:02x}-c{critical}", "An unknown critical option is refused, whatever the C bit says.",
             "option_critical", envelope(tcp4(), [*AWS, option(0x0108, kind, bytes(4))], geneve={"critical": critical}))
    for name, opts in (("endpoint", [a, c]), ("attachment", [e, c]), ("cookie", [e, a]), ("all", []), ("but-unknown", [unknown])):
        drop(f"option/missing-{name}", "Without the three options a packet belongs to nobody.", "option_missing",
             envelope(tcp4(), opts))
    for name, size in (("empty", 0), ("short", 4), ("long", 12)):
        drop(f"option/endpoint-{name}", "An endpoint id has 8 bytes.", "option_length",
             envelope(tcp4(), [option(0x0108, 1, bytes(size)), a, c]))
    drop("option/attachment-short", "An attachment id has 8 bytes.", "option_length",
         envelope(tcp4(), [e, option(0x0108, 2, bytes(4)), c]))
    drop("option/cookie-long", "A cookie has 4 bytes.", "option_length", envelope(tcp4(), [e, a, option(0x0108, 3, bytes(8))]))
    drop("option/duplicate-endpoint", "Two endpoints: which tenant?", "option_duplicate",
         envelope(tcp4(), [e, option(0x0108, 1, bytes(8)), a, c]))
    drop("option/duplicate-same", "Not even if both say the same.", "option_duplicate", envelope(tcp4(), [e, a, c, c]))
    # The usual lengths in the usual places, with one word that is not usual.
    home("option/shape-swapped", "Endpoint and attachment have the same length; their order has no meaning either.",
         envelope(tcp4(), [a, e, c]))
    drop("option/shape-critical", "An unknown critical option where the cookie stands.", "option_critical",
         envelope(tcp4(), [e, a, option(0x0108, 0x83, COOKIE)]))
    drop("option/shape-other-type", "An unknown option where the cookie stands.", "option_missing",
         envelope(tcp4(), [e, a, option(0x0108, 4, COOKIE)]))
    for classid in (0x0109, 0x0208):
        drop(f"option/shape-class-{classid:04x}", "The endpoint id under another class.", "option_missing",
             envelope(tcp4(), [option(classid, 1, ENDPOINT), a, c]))
    drop("option/shape-duplicate", "Two endpoint ids and no attachment.", "option_duplicate",
         envelope(tcp4(), [e, option(0x0108, 1, bytes(8)), c]))
    drop("option/overrun-first", "The first option reaches beyond all options.", "option_overrun",
         envelope(tcp4(), [option(0x0108, 1, ENDPOINT, length=17), a, c]))
    drop("option/overrun-last", "The last option reaches beyond all options.", "option_overrun",
         envelope(tcp4(), [e, a, option(0x0108, 3, COOKIE, length=2)]))
    drop("option/overrun-unknown", "So does an unknown one, critical or not.", "option_overrun",
         envelope(tcp4(), [*AWS, option(0xFFFF, 0x80, b"", length=31)]))
    drop("option/overrun-cut", "The options end inside an option.", "option_overrun", envelope(tcp4(), geneve={"optionlen": 2}))
    drop("option/missing-cut", "The options end between two options.", "option_missing", envelope(tcp4(), geneve={"optionlen": 3}))


def inner4():
    ip = {"src": C, "dst": S, "id": 9}
    for name, packet in (
        ("tcp-syn", IP(**ip) / TCP(sport=40001, dport=22, flags="S", seq=5, options=[("MSS", 1460), ("WScale", 7)])),
        ("tcp-all-flags", IP(**ip) / tcp(flags=0xFF)),
        ("udp-empty", IP(**ip) / UDP(sport=1, dport=2)),
        ("udp-no-checksum", udp4(chksum=0)),
        ("udp-wrong-checksum", udp4(chksum=0x1234)),
        ("icmp-echo", IP(**ip) / ICMP(id=77, seq=1) / Raw(TEXT)),
        ("icmp-error", IP(**ip) / ICMP(type=3, code=4, nexthopmtu=1400) / IP(src=S, dst=C) / UDP(sport=53, dport=5000)),
        ("sctp", IP(**ip) / SCTP(sport=2905, dport=2905, tag=1, chksum=1) / Raw(bytes(16))),
        ("gre", IP(**ip) / GRE() / tcp4()),
        ("esp", IP(**ip) / ESP(spi=1, seq=1, data=bytes(24))),
        ("protocol-253", IP(**ip, proto=253) / Raw(TEXT)),
        ("protocol-0", IP(**ip, proto=0) / Raw(TEXT)),
        ("no-payload", IP(**ip, proto=59)),
        ("options", IP(**ip, options=[IPOption_NOP()] * 4) / tcp() / Raw(TEXT)),
        ("options-longest", IP(**ip, options=[IPOption_NOP()] * 40) / UDP(sport=5, dport=6) / Raw(TEXT)),
        ("ttl-0", IP(**ip, ttl=0) / tcp()),
        ("wrong-checksum", IP(**ip, chksum=0x1234) / tcp()),
        ("land", IP(src=C, dst=C) / tcp(sport=7, dport=7)),
        ("geneve-inside", IP(**ip) / UDP(sport=60000, dport=6081) / GENEVE(optionlen=8, options=AWS) / tcp4()),
        ("fragment-first", IP(**ip, flags="MF") / UDP(sport=5, dport=6, len=2000) / Raw(bytes(64))),
        ("fragment-middle", IP(**ip, flags="MF", frag=9, proto=17) / Raw(bytes(64))),
        ("fragment-last", IP(**ip, frag=17, proto=6) / Raw(bytes(5))),
        ("fragment-last-byte", IP(**ip, frag=8189, proto=17) / Raw(bytes(3))),
    ):
        home(f"inner4/{name}", "What an end host judges is left to the end host.", envelope(packet))
    home("inner4/trailing-bytes", "Bytes behind the inner packet come back with it.",
         envelope(bytes(tcp4()) + b"trailing bytes"))
    for version in (0, 5, 6):
        drop(f"inner4/version-{version}", "GENEVE says IPv4, the packet does not.", "inner_version",
             envelope(bytes(IP(**ip, version=version) / tcp()), geneve={"proto": 0x0800}))
    for size in (0, 1, 19):
        drop(f"inner4/cut-at-{size}", "The tunnel payload ends inside the IP header.", "inner_truncated",
             envelope(bytes(tcp4())[:size]))
    for ihl in (0, 4):
        drop(f"inner4/ihl-{ihl}", "A header shorter than a header.", "inner_header", envelope(IP(**ip, ihl=ihl) / tcp()))
    drop("inner4/ihl-beyond-packet", "A header longer than its packet.", "inner_header", envelope(IP(**ip, ihl=15, len=40) / tcp()))
    for length in (0, 19):
        drop(f"inner4/total-length-{length}", "A packet shorter than its header.", "inner_header",
             envelope(IP(**ip, len=length) / tcp()))
    for length in (41, 65535):
        drop(f"inner4/total-length-{length}", "A packet longer than what arrived.", "inner_length",
             envelope(IP(**ip, len=length) / tcp()))
    for size in (20, 40, 84):
        drop(f"inner4/cut-behind-header-{size}", "The tunnel payload ends inside the packet.", "inner_length",
             envelope(bytes(tcp4())[:size]))
    drop("inner4/fragment-not-8", "Only the last fragment may have any length.", "inner_fragment",
         envelope(IP(**ip, flags="MF", proto=17) / Raw(bytes(13))))
    drop("inner4/fragment-past-end", "A fragment past the largest packet (ping of death).", "inner_fragment",
         envelope(IP(**ip, frag=8191, proto=1) / Raw(bytes(64))))
    drop("inner4/fragment-tiny", "A first fragment that hides the TCP flags (RFC 1858).", "inner_fragment",
         envelope(IP(**ip, flags="MF", proto=6) / Raw(bytes(tcp())[:8])))
    drop("inner4/fragment-overwrites", "A second fragment that would overwrite them (RFC 3128).", "inner_fragment",
         envelope(IP(**ip, frag=1, proto=6) / Raw(bytes(16))))
    for size in (0, 4, 19):
        drop(f"inner4/tcp-{size}-bytes", "A TCP header that is not all there.", "inner_transport",
             envelope(IP(**ip, proto=6) / Raw(bytes(tcp())[:size])))
    for offset in (0, 4, 15):
        drop(f"inner4/tcp-offset-{offset}", "A TCP header that contradicts itself.", "inner_transport",
             envelope(IP(**ip) / tcp(dataofs=offset)))
    drop("inner4/udp-7-bytes", "A UDP header that is not all there.", "inner_transport", envelope(IP(**ip, proto=17) / Raw(bytes(7))))
    for length in (0, 7, 500):
        drop(f"inner4/udp-length-{length}", "A UDP length that contradicts the packet.", "inner_transport", envelope(udp4(len=length)))
    drop("inner4/icmp-3-bytes", "An ICMP header that is not all there.", "inner_transport",
         envelope(IP(**ip, proto=1) / Raw(b"\x08\x00\x00")))


def inner6():
    ip = {"src": C6, "dst": S6}
    tail = UDP(sport=5000, dport=53) / Raw(TEXT)
    for name, packet in (
        ("tcp-syn", IPv6(**ip) / TCP(sport=40001, dport=22, flags="S", seq=5)),
        ("icmpv6-echo", IPv6(**ip) / ICMPv6EchoRequest(id=3, seq=4, data=TEXT)),
        ("sctp", IPv6(**ip, nh=132) / SCTP(sport=1, dport=2, tag=1, chksum=1) / Raw(bytes(16))),
        ("protocol-253", IPv6(**ip, nh=253) / Raw(TEXT)),
        ("no-next-header", IPv6(**ip, nh=59)),
        ("esp", IPv6(**ip, nh=50) / Raw(bytes(32))),
        ("flow-label", IPv6(**ip, tc=0xB8, fl=0xFFFFF) / tail),
        ("hop-limit-0", IPv6(**ip, hlim=0) / tail),
        ("hop-by-hop", IPv6(**ip) / IPv6ExtHdrHopByHop() / tail),
        ("routing", IPv6(**ip) / IPv6ExtHdrRouting(addresses=["2001:db8::1"], segleft=0) / tail),
        ("destination-options", IPv6(**ip) / IPv6ExtHdrDestOpt() / tail),
        ("ah", IPv6(**ip) / AH(payloadlen=4, spi=1, seq=1, icv=bytes(12), padding=b"", nh=17) / tail),
        ("chain", IPv6(**ip) / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / IPv6ExtHdrRouting(segleft=0)
         / IPv6ExtHdrFragment(id=1) / IPv6ExtHdrDestOpt() / tail),
        ("fragment-atomic", IPv6(**ip) / IPv6ExtHdrFragment(id=7) / tail),
        ("fragment-first", IPv6(**ip) / IPv6ExtHdrFragment(id=7, m=1) / UDP(sport=5, dport=6, len=2000) / Raw(bytes(64))),
        ("fragment-later", IPv6(**ip) / IPv6ExtHdrFragment(id=7, offset=9, nh=17) / Raw(bytes(33))),
    ):
        home(f"inner6/{name}", "IPv6 in its legal forms passes as it is.", envelope(packet))
    home("inner6/trailing-bytes", "Bytes behind the inner packet come back with it.",
         envelope(bytes(tcp6()) + b"trailing", geneve={"proto": 0x86DD}))
    as6 = {"geneve": {"proto": 0x86DD}}
    for version in (0, 4, 7):
        drop(f"inner6/version-{version}", "GENEVE says IPv6, the packet does not.", "inner_version",
             envelope(bytes(IPv6(**ip, version=version) / tail), **as6))
    for size in (0, 20, 39):
        drop(f"inner6/cut-at-{size}", "The tunnel payload ends inside the IP header.", "inner_truncated",
             envelope(bytes(tcp6())[:size], **as6))
    for length in (54, 65535):
        drop(f"inner6/payload-length-{length}", "A packet longer than what arrived.", "inner_length",
             envelope(IPv6(**ip, plen=length) / tail))
    drop("inner6/chain-too-long", "A walk has an end: twenty extension headers.", "inner_extension",
         envelope(long_chain(IPv6(**ip), 20, tail)))
    drop("inner6/chain-cut", "An extension header that reaches beyond the packet.", "inner_extension",
         envelope(IPv6(**ip) / IPv6ExtHdrDestOpt(len=40, nh=17) / Raw(bytes(8))))
    drop("inner6/chain-cut-short", "An extension header of which one byte is there.", "inner_extension",
         envelope(IPv6(**ip, nh=60) / Raw(b"\x11")))
    drop("inner6/fragment-twice", "A fragment header in a fragment.", "inner_extension",
         envelope(IPv6(**ip) / IPv6ExtHdrFragment(id=7) / IPv6ExtHdrFragment(id=8) / tail))
    drop("inner6/fragment-not-8", "Only the last fragment may have any length.", "inner_fragment",
         envelope(IPv6(**ip) / IPv6ExtHdrFragment(id=7, m=1, nh=17) / Raw(bytes(13))))
    drop("inner6/fragment-past-end", "A fragment past the largest packet.", "inner_fragment",
         envelope(IPv6(**ip) / IPv6ExtHdrFragment(id=7, offset=8191, nh=17) / Raw(bytes(64))))
    drop("inner6/fragment-tiny", "A first fragment that hides its ports (RFC 7112).", "inner_fragment",
         envelope(IPv6(**ip) / IPv6ExtHdrFragment(id=7, m=1, nh=6) / Raw(bytes(8))))
    drop("inner6/tcp-8-bytes", "A TCP header that is not all there.", "inner_transport",
         envelope(IPv6(**ip, nh=6) / Raw(bytes(8))))
    drop("inner6/udp-length-500", "A UDP length that contradicts the packet.", "inner_transport",
         envelope(IPv6(**ip) / UDP(sport=1, dport=2, len=500) / Raw(TEXT)))


def long_chain(packet, n, tail):
    for _ in range(n):
        packet /= IPv6ExtHdrDestOpt()
    return packet / tail


def sizes():
    def sized4(n):
        return envelope(IP(src=C, dst=S) / UDP(sport=1, dport=2) / Raw(b"\x42" * (n - 28)))

    def sized6(n):
        return envelope(IPv6(src=C6, dst=S6) / UDP(sport=1, dport=2) / Raw(b"\x42" * (n - 48)))

    home("size/1500", "An ordinary large packet.", sized4(1500))
    home("size/8500", "The largest packet that AWS takes back.", sized4(8500), verify_checksum="always")
    drop("size/8501", "One byte more is refused on the way back.", "too_big", sized4(8501))
    home("size/8500-ipv6", "The limit is of the packet, not of its payload.", sized6(8500))
    drop("size/8501-ipv6", "One byte more.", "too_big", sized6(8501))
    home("size/8900-allowed", "The limit is the load balancer's: another takes more.", sized4(8900), max_return=65535)
    drop("size/limit-1400", "The limit is a setting.", "too_big", sized4(1401), max_return=1400)
    home("size/trailing-not-counted", "Bytes behind the inner packet do not count.",
         envelope(bytes(IP(src=C, dst=S) / UDP(sport=1, dport=2) / Raw(b"\x42" * 1372)) + bytes(50)), max_return=1400)


# --- text ------------------------------------------------------------------------------------------------------------

def text(data):
    """Hex, long runs of one byte as `42*8472`."""
    parts, at = [], 0
    for run in re.finditer(rb"(.)\1{39,}", data, re.DOTALL):
        parts += [data[at:run.start()].hex(), f"{run.group(1).hex()}*{run.end() - run.start()}"]
        at = run.end()
    return " ".join(p for p in [*parts, data[at:].hex()] if p)


def main():
    for part in (profiles, ethernet, outer_ip, outer_udp, geneve, options, inner4, inner6, sizes):
        part()
    print("# Made by make.py with scapy; do not edit. The format is described there.")
    for name, why, verdict, build, settings in cases:
        print(f"\ncase: {name}\nwhy: {why}\nverdict: {verdict}")
        if settings:
            print("with: " + " ".join(f"{key}={value}" for key, value in settings.items()))
        print("in: " + text(bytes(build(False))))
        if verdict == "home":
            print("out: " + text(bytes(build(True))))
    print(f"{len(cases)} cases", file=sys.stderr)


if __name__ == "__main__":
    main()
