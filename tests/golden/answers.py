#!/usr/bin/python3
"""Writes answers.txt: frames, what is asked for, and the frame of our own that goes home.

    /usr/bin/python3 tests/golden/answers.py > tests/golden/answers.txt          (needs scapy 2.5)

As in make.py the answers come from outside: scapy encodes each from its own fields, lengths and checksums computed. The
numbers of resets are written down here, from the rules of RFC 9293 section 3.5.2 and RFC 5961 section 3.2.

A case is: name, why, `ask` (`reset-sender`, `reset-receiver [NEXT]`, `prohibited`, `too-big MTU`), settings that differ from make.py's
default (`with`), the newest envelope of the direction in which the answer travels, if one was seen (`seen: NODE PORT COOKIE`), `in`,
and `out` or `none`.
"""

import sys

from scapy.all import (
    Dot1Q, Ether, GRE, ICMP, ICMPv6DestUnreach, ICMPv6EchoReply, ICMPv6EchoRequest, ICMPv6ND_Redirect,
        ICMPv6PacketTooBig, IP,
    IPOption_NOP, IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop, Raw, TCP, UDP,
)

import make
from make import AWS, C, C6, GOOGLE, S, S6, TENCENT, TEXT, envelope, option, tcp4, tcp6, text, udp4, udp6

cases = []


def case(name, why, ask, build, out, seen=None, **settings):
    assert name not in {c[0] for c in cases}, name
    cases.append((name, why, ask, build, out, seen, settings))


def tcp(flags, seq=1000, ack=2000, **kw):
    return TCP(**{"sport": 40000, "dport": 443, "flags": flags, "seq": seq, "ack": ack, "window": 8192, **kw})


def v4(inner, **kw):
    return IP(**{"src": C, "dst": S, "id": 7, "flags": "DF", **kw}) / inner


def v6(inner, **kw):
    return IPv6(**{"src": C6, "dst": S6, **kw}) / inner


def ours4(back, tos=0):
    src, dst = (S, C) if back else (C, S)
    return IP(src=src, dst=dst, tos=tos, id=0, flags="DF", ttl=64)


def ours6(back, tc=0):
    src, dst = (S6, C6) if back else (C6, S6)
    return IPv6(src=src, dst=dst, tc=tc, hlim=64)


def reset(back, flags, seq, ack):
    sport, dport = (443, 40000) if back else (40000, 443)
    return TCP(sport=sport, dport=dport, flags=flags, seq=seq, ack=ack, window=0)


def prohibited4(packet, most=576):
    return ours4(True, 0xC0) / ICMP(type=3, code=13) / Raw(bytes(packet)[:most - 28])


def prohibited6(packet, most=1280):
    return ours6(True, 0xC0) / ICMPv6DestUnreach(code=1) / Raw(bytes(packet)[:most - 48])


def big4(packet, mtu, most=576):
    return ours4(True, 0xC0) / ICMP(type=3, code=4, nexthopmtu=mtu) / Raw(bytes(packet)[:most - 28])


def big6(packet, mtu):
    return ours6(True, 0xC0) / ICMPv6PacketTooBig(mtu=mtu) / Raw(bytes(packet)[:1280 - 48])


# --- resets ----------------------------------------------------------------------------------------------------------

def resets():
    # Name, what it shows, the segment, then flags, sequence and acknowledgment of the answer each way.
    table = [
        ("syn", "a first SYN: acknowledged and reset; its receiver has not seen it", tcp("S", ack=0), ("RA", 0, 1001), None),
        ("syn-ecn", "ECE and CWR say nothing about the numbers", tcp("SEC", ack=0), ("RA", 0, 1001), None),
        ("syn-data", "data on a SYN takes numbers, too", tcp("S", ack=0) / Raw(TEXT), ("RA", 0, 1001 + len(TEXT)), None),
        ("syn-wraps", "numbers wrap", tcp("S", seq=0xFFFFFFFF, ack=0), ("RA", 0, 0), None),
        ("syn-ack", "an answer to a SYN: its receiver believes the ACK", tcp("SA"), ("R", 2000, 0), ("RA", 1000, 2000)),
        ("data", "the middle of a connection", tcp("PA") / Raw(TEXT), ("R", 2000, 0), ("RA", 1000, 2000)),
        ("ack", "an ACK alone", tcp("A"), ("R", 2000, 0), ("RA", 1000, 2000)),
        ("fin", "the end of a connection", tcp("FA"), ("R", 2000, 0), ("RA", 1000, 2000)),
        ("options", "options of the segment are not copied", tcp("PA", options=[("Timestamp", (1, 2)), ("NOP", None),
         ("NOP", None)]) / Raw(TEXT),
         ("R", 2000, 0), ("RA", 1000, 2000)),
        ("no-ack", "data without ACK", tcp("P", ack=0) / Raw(TEXT), ("RA", 0, 1000 + len(TEXT)), ("R", 1000, 0)),
        ("fin-no-ack", "a FIN takes a number", tcp("F", ack=5) / Raw(b"odd"), ("RA", 0, 1004), ("R", 1000, 0)),
        ("no-flags", "no flag at all", tcp(0, ack=5), ("RA", 0, 1000), ("R", 1000, 0)),
        ("rst", "a reset is never answered", tcp("R"), None, None),
        ("rst-ack", "a reset is never answered", tcp("RA"), None, None),
    ]
    for name, why, segment, sender, receiver in table:
        for family, wrap, ours in (("v4", v4, ours4), ("v6", v6, ours6)):
            for way, ask, numbers in (("sender", "reset-sender", sender), ("receiver", "reset-receiver", receiver)):
                out = numbers and ours(way == "sender") / reset(way == "sender", *numbers)
                case(f"{way}/{name}-{family}", why[0].upper() + why[1:] + ".", ask, envelope(wrap(segment)),
                     out and envelope(out))
    case("receiver/next-known", "Whoever follows the connection knows better than a retransmitted segment.",
         "reset-receiver 4242", envelope(v4(tcp("PA") / Raw(TEXT))), envelope(ours4(False) / reset(False, "RA", 4242, 2000)))
    case("receiver/syn-next-known", "A SYN in the middle of a connection: the receiver knows of that.",
         "reset-receiver 4242", envelope(v6(tcp("S", ack=0))), envelope(ours6(False) / reset(False, "R", 4242, 0)))
    case("sender/dscp", "DSCP is kept, ECN is not.", "reset-sender", envelope(v4(tcp("PA") / Raw(TEXT), tos=0xB9)),
         envelope(ours4(True, 0xB8) / reset(True, "R", 2000, 0)))
    case("sender/dscp-v6", "The same in IPv6; the flow label is not ours to copy.", "reset-sender",
         envelope(v6(tcp("PA") / Raw(TEXT), tc=0xB9, fl=0x54321)), envelope(ours6(True, 0xB8) / reset(True, "R", 2000, 0)))
    case("sender/ip-options", "IP options are not copied.", "reset-sender", envelope(v4(tcp("PA"),
         options=[IPOption_NOP()] * 8)),
         envelope(ours4(True) / reset(True, "R", 2000, 0)))
    case("sender/extensions", "Extension headers are not copied.", "reset-sender",
         envelope(v6(IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / tcp("PA"))), envelope(ours6(True) / reset(True, "R",
         2000, 0)))
    case("sender/first-fragment", "A first fragment has all that is needed.", "reset-sender",
         envelope(v4(tcp("PA") / Raw(bytes(44)), flags="MF")), envelope(ours4(True) / reset(True, "R", 2000, 0)))
    case("sender/udp", "Only TCP has resets.", "reset-sender", envelope(udp4()), None)
    case("receiver/udp", "Only TCP has resets.", "reset-receiver 1", envelope(udp6()), None)


# --- ICMP ------------------------------------------------------------------------------------------------------------

def errors():
    large4 = v4(UDP(sport=5000, dport=53) / Raw(b"\x42" * 2000))
    large6 = v6(UDP(sport=5000, dport=53) / Raw(b"\x42" * 2000))
    for name, why, packet in [
        ("udp4", "All of a small packet is quoted.", udp4()),
        ("odd", "An odd number of bytes is quoted.", v4(UDP(sport=1, dport=2) / Raw(b"odd"))),
        ("tcp4", "TCP can be answered so, too.", tcp4()),
        ("large4", "No more than 576 bytes.", large4),
        ("options4", "The longest IP header is quoted whole.", v4(UDP(sport=1, dport=2) / Raw(bytes(600)),
         options=[IPOption_NOP()] * 40)),
        ("echo4", "An echo request is no error.", v4(ICMP(type=8, id=1, seq=2) / Raw(TEXT))),
        ("echo-reply4", "Neither is its reply.", v4(ICMP(type=0, id=1, seq=2) / Raw(TEXT))),
        ("gre4", "A protocol without ports.", v4(GRE() / Raw(TEXT))),
        ("empty4", "A header alone.", v4(Raw(b""), proto=253)),
        ("first-fragment4", "A first fragment.", v4(UDP(sport=1, dport=2, len=500) / Raw(bytes(40)), flags="MF")),
    ]:
        case(f"prohibited/{name}", why, "prohibited", envelope(packet), envelope(prohibited4(packet)))
    for name, why, packet in [
        ("udp6", "All of a small packet is quoted.", udp6()),
        ("tcp6", "TCP can be answered so, too.", tcp6()),
        ("large6", "No more than 1280 bytes.", large6),
        ("echo6", "An echo request is no error.", v6(ICMPv6EchoRequest(id=1, seq=2, data=TEXT))),
        ("echo-reply6", "Neither is its reply.", v6(ICMPv6EchoReply(id=1, seq=2, data=TEXT))),
        ("extensions6", "Extension headers are quoted.", v6(IPv6ExtHdrHopByHop() / UDP(sport=1, dport=2) / Raw(TEXT))),
        ("first-fragment6", "A first fragment.", v6(IPv6ExtHdrFragment(id=7, m=1) / UDP(sport=1, dport=2,
         len=500) / Raw(bytes(40)))),
    ]:
        case(f"prohibited/{name}", why, "prohibited", envelope(packet), envelope(prohibited6(packet)))
    case("prohibited/limited4", "Not more than the load balancer takes back.", "prohibited", envelope(large4),
         envelope(prohibited4(large4, 300)), max_return=300)
    case("prohibited/limited6", "Not more than the load balancer takes back.", "prohibited", envelope(large6),
         envelope(prohibited6(large6, 700)), max_return=700)
    case("prohibited/no-room", "With so little room no flow can be named.", "prohibited", envelope(large4), None,
         max_return=50)
    wide = [option(0x0102, 1, bytes(124)), option(0x0102, 2, bytes(116))]
    case("prohibited/wide-options",
         "The whole fits into 1500 bytes, whatever the options: 20 + 8 + 8 + 248 of them are the tunnel's.", "prohibited",
         envelope(large6, wide), envelope(prohibited6(large6, 1500 - 284), wide), profile="plain", max_return=65535)

    tcp_large4 = v4(tcp("PA") / Raw(b"\x42" * 8600))
    tcp_large6 = v6(tcp("PA") / Raw(b"\x42" * 8600))
    case("too-big/tcp4", "A packet larger than the load balancer takes back.", "too-big 8500", envelope(tcp_large4),
         envelope(big4(tcp_large4, 8500)))
    case("too-big/tcp6", "The same in IPv6.", "too-big 8500", envelope(tcp_large6), envelope(big6(tcp_large6, 8500)))
    case("too-big/by-one4", "One byte too many.", "too-big 2027", envelope(large4), envelope(big4(large4, 2027)))
    case("too-big/fits4", "It is not too big.", "too-big 2028", envelope(large4), None)
    case("too-big/fits6", "It is not too big.", "too-big 2048", envelope(large6), None)
    case("too-big/may-fragment", "Without DF nobody asked.", "too-big 1400", envelope(v4(UDP(sport=1,
         dport=2) / Raw(bytes(2000)), flags=0)), None)
    case("too-big/below-1280", "IPv6 hosts go down to 1280 bytes.", "too-big 600", envelope(large6),
         envelope(big6(large6, 1280)))
    case("too-big/below-1280-fits", "And cannot go below.", "too-big 600", envelope(v6(UDP(sport=1,
         dport=2) / Raw(bytes(1200)))), None)


def silence():
    def both(name, why, packet):
        case(f"silence/{name}", why, "prohibited", envelope(packet), None)

    def reset4(name, why, packet):
        both(name, why, packet)
        case(f"silence/{name}-reset", why, "reset-sender", envelope(packet), None)

    for kind in (3, 4, 5, 11, 12):
        both(f"icmp-error-{kind}", "An ICMP error is never answered (RFC 1122 section 3.2.2).",
            v4(ICMP(type=kind) / Raw(bytes(udp4()))))
    both("icmp-unknown", "ICMP of an unknown type may be an error.", v4(ICMP(type=40) / Raw(TEXT)))
    for kind in (1, 2, 3, 4, 100, 127):
        both(f"icmp6-error-{kind}", "An ICMPv6 error, known or not, is never answered (RFC 4443 section 2.4).",
             v6(Raw(bytes([kind]) + bytes(7) + bytes(udp6())), nh=58))
    both("icmp6-redirect", "Neither is a redirect.", v6(ICMPv6ND_Redirect(tgt=S6, dst=S6)))
    for name, address in [("unspecified", "0.0.0.0"), ("this-network", "0.1.2.3"), ("loopback", "127.0.0.1"),
        ("multicast", "224.0.0.251"),
                          ("broadcast", "255.255.255.255"), ("class-e", "240.0.0.1")]:
        reset4(f"from-{name}4", "The source is not one host's.", v4(tcp("PA"), src=address))
        reset4(f"to-{name}4", "The destination is not one host's, so nobody could be the sender of an answer.",
            v4(tcp("PA"), dst=address))
    for name, address in [("unspecified", "::"), ("loopback", "::1"), ("multicast", "ff02::fb")]:
        reset4(f"from-{name}6", "The source is not one host's.", v6(tcp("PA"), src=address))
        reset4(f"to-{name}6", "The destination is not one host's, so nobody could be the sender of an answer.",
            v6(tcp("PA"), dst=address))
    reset4("to-itself4", "A packet to its own sender has no other end.", v4(tcp("PA"), dst=C))
    reset4("to-itself6", "A packet to its own sender has no other end.", v6(tcp("PA"), dst=C6))
    reset4("checksum4", "With a wrong header checksum the source may be anybody.", v4(tcp("PA"), chksum=0x1234))
    reset4("later-fragment4", "A later fragment.", v4(Raw(bytes(40)), proto=6, frag=20))
    reset4("later-fragment6", "A later fragment.", v6(IPv6ExtHdrFragment(id=7, offset=20, nh=6) / Raw(bytes(40))))
    case("silence/rst", "A reset ends the matter; there is nobody to be told.", "prohibited", envelope(v4(tcp("R"))), None)


# --- envelopes -------------------------------------------------------------------------------------------------------

def envelopes():
    packet, answer = tcp4(), ours4(True) / reset(True, "R", 2000, 0)
    onward = ours4(False) / reset(False, "RA", 1000, 2000)
    seen = ("10.254.11.109", 61001, "a1b2c3d4")
    cookie = bytes.fromhex(seen[2])
    moved = {"ip": {"peer": seen[0]}, "udp": {"sport": seen[1]}}

    def ask(name, why, given, wanted, inner=packet, ours=answer, what="reset-sender", seen=None, back=None, forth=None,
        **settings):
        case(f"envelope/{name}", why, what, envelope(inner, given, **(forth or {})), envelope(ours, wanted,
             **(back or {})), seen, **settings)

    newest = [AWS[0], AWS[1], option(0x0108, 3, cookie)]
    ask("aws", "Nothing seen of the other direction: AWS gives both the same cookie.", AWS, AWS)
    ask("aws-seen", "The newest node, port and cookie of the direction in which it travels.", AWS, newest, seen=seen,
        back=moved)
    ask("aws-on", "The same for an answer that travels on.", AWS, newest, ours=onward, what="reset-receiver", seen=seen,
        back=moved)
    ask("aws-order", "Options in another order, one of somebody else among them, all kept.", [AWS[2], option(0x0102, 9,
        b"keep"), AWS[1], AWS[0]],
        [newest[2], option(0x0102, 9, b"keep"), AWS[1], AWS[0]], seen=seen, back=moved)
    ask("aws-attachment", "The attachment is kept.", [AWS[0], option(0x0108, 2, b"\xff" * 8), AWS[2]], [AWS[0],
        option(0x0108, 2, b"\xff" * 8), AWS[2]])

    def tencent(value):
        return [TENCENT[0], TENCENT[1], option(0x0167, 3, bytes.fromhex(value))]

    ask("tencent-first", "Tencent's cookie knows its direction: turned for the answer to a first packet.",
        tencent("05efb5e1"), tencent("25efb5e1"), profile="tencent", max_return=65535)
    ask("tencent-reply", "And back.", tencent("25efb5e1"), tencent("05efb5e1"), profile="tencent", max_return=65535)
    ask("tencent-seen", "What was seen is not turned.", tencent("05efb5e1"), tencent("a1b2c3d4"), seen=seen, back=moved,
        profile="tencent", max_return=65535)
    ask("tencent-on", "An answer that travels on has the packet's own cookie.", tencent("05efb5e1"),
        tencent("05efb5e1"), ours=onward, what="reset-receiver", profile="tencent", max_return=65535)

    google = {"ip": {"ttl": 2}, "udp": {"chksum": 0}}
    turned = [option(0x0132, 1, b"\x00\x00\x0a\x00"), GOOGLE[1], GOOGLE[2]]
    zero = {"udp": {"chksum": 0}}
    ask("google-back", "Google's network id has a direction bit. No UDP checksum came, none goes.", GOOGLE, turned,
        forth=google, back=zero, profile="google", max_return=65535)
    ask("google-on", "Onward it stays.", GOOGLE, GOOGLE, ours=onward, what="reset-receiver", forth=google, back=zero,
        profile="google", max_return=65535)
    ask("google-seen", "It is turned whatever was seen: it came with this packet.", GOOGLE, turned, seen=(seen[0],
        seen[1], "00000000"), forth=google,
        back={"ip": moved["ip"], "udp": {**moved["udp"], "chksum": 0}}, profile="google", max_return=65535)
    vni = {"geneve": {"vni": 0xABCDEF}}
    ask("plain", "Plain GENEVE: the VNI is kept.", [], [], forth=vni, back=vni, profile="plain", max_return=65535)
    ask("plain-ipv6", "The protocol type is that of the answer.", [], [], inner=tcp6(), ours=ours6(True) / reset(True,
        "R", 2000, 0), forth=vni, back=vni, profile="plain", max_return=65535)
    ask("vlan", "The VLAN tag is kept.", AWS, AWS, forth={"vlan": {"vlan": 100, "prio": 3}}, back={"vlan": {"vlan": 100,
        "prio": 3}})
    ask("outer-header", "TOS, id and TTL are our own, DF the template's.", AWS, AWS, forth={"ip": {"tos": 0xB9,
        "id": 77, "ttl": 9, "flags": "DF"}}, back={"ip": {"flags": "DF"}})
    ask("outer-options", "Outer IP options are left out.", AWS, AWS, forth={"ip": {"options": [IPOption_NOP()] * 8}})
    ask("reserved", "Reserved GENEVE bits come back as they came.", AWS, AWS, forth={"geneve": {"reserved": 0x15}},
        back={"geneve": {"reserved": 0x15}})
    ask("trailing", "Bytes behind the inner packet are nobody's.", AWS, AWS, forth={"pad": b"trailing"})
    ask("zero-checksum", "No UDP checksum came, none goes.", AWS, AWS, forth=zero, back=zero)
    ask("icmp6", "Both checksums over an odd number of bytes.", AWS, newest, inner=v6(UDP(sport=1, dport=2) / Raw(b"odd")),
        ours=prohibited6(v6(UDP(sport=1, dport=2) / Raw(b"odd"))), what="prohibited", seen=seen, back=moved)


def main():
    for part in (resets, errors, silence, envelopes):
        part()
    print("# Made by answers.py with scapy; do not edit. The format is described there.")
    for name, why, what, build, out, seen, settings in cases:
        print(f"\ncase: {name}\nwhy: {why}\nask: {what}")
        if settings:
            print("with: " + " ".join(f"{key}={value}" for key, value in settings.items()))
        if seen:
            print("seen: " + " ".join(map(str, seen)))
        print("in: " + text(bytes(build(False))))
        print("out: " + text(bytes(out(True))) if out else "none")
    print(f"{len(cases)} cases", file=sys.stderr)


main()
