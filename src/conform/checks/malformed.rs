//! What nobody should take: an appliance that lets it pass can be led around its own rules, and one that falls over it can be switched off.

use rand::RngExt;

use super::super::frames::make::{self, Envelope, TunnelOption};
use super::super::frames::{IPV6, OUTER};
use super::super::session::{Kind, Outcome, Probe, Session, Stop};
use super::Check;
use super::Level::{Must, Should};

/// Packets of noise, and how many of them come in a row: an appliance may have a short queue.
const NOISE: usize = 200;
const ROW: usize = 50;
/// Transparent Ethernet bridging.
const ETHERNET: u16 = 0x6558;
/// The O bit of the base header.
const CONTROL: u8 = 0x80;
/// Where the UDP length stands in an outer packet, and where GENEVE begins.
const UDP_LENGTH: usize = 24;
const GENEVE: usize = 28;

/// The group.
pub const CHECKS: &[Check] = &[
    Check {
        id: "malformed.version",
        level: Must,
        demand: "A GENEVE version other than 0 is dropped.",
        source: "RFC 8926 section 3.4",
        needs: &[],
        run: |session| drops(session, "a packet of GENEVE version 1", |packet| packet[GENEVE] |= 1 << 6),
    },
    Check {
        id: "malformed.control",
        level: Must,
        demand: "A control packet (O bit) is not forwarded.",
        source: "RFC 8926 section 3.4",
        needs: &[],
        run: |session| drops(session, "a control packet", |packet| packet[GENEVE + 1] |= CONTROL),
    },
    Check {
        id: "malformed.option-overrun",
        level: Must,
        demand: "A packet in which an option is longer than all options together is dropped.",
        source: "RFC 8926 section 3.5",
        needs: &[],
        run: option_overrun,
    },
    Check {
        id: "malformed.options-beyond",
        level: Must,
        demand: "A packet whose options are longer than itself is dropped.",
        source: "RFC 8926 section 3.4",
        needs: &[],
        run: options_beyond,
    },
    Check {
        id: "malformed.udp-checksum",
        level: Must,
        demand: "A packet whose outer UDP checksum is neither zero nor right is dropped.",
        source: "RFC 1122 section 4.1.3.4",
        needs: &[],
        run: udp_checksum,
    },
    Check {
        id: "malformed.ip-checksum",
        level: Must,
        demand: "A packet whose outer IPv4 header checksum is wrong is dropped.",
        source: "RFC 1122 section 3.2.1.2",
        needs: &[],
        run: ip_checksum,
    },
    Check {
        id: "malformed.udp-length",
        level: Must,
        demand: "A packet whose outer UDP length is more than came, or less than a header, is dropped.",
        source: "RFC 768",
        needs: &[],
        run: udp_length,
    },
    Check {
        id: "malformed.outer-fragment",
        level: Must,
        demand: "A fragment of an outer packet does not come back as if it were the whole.",
        source: "RFC 791 section 3.2",
        needs: &[],
        run: outer_fragment,
    },
    Check {
        id: "malformed.truncated",
        level: Must,
        demand: "What ends inside the GENEVE header, its options or the inner IP header is dropped.",
        source: "RFC 8926 section 3.4; RFC 1122 section 3.2.1",
        needs: &[],
        run: truncated,
    },
    Check {
        id: "malformed.inner-length",
        level: Should,
        demand: "An inner packet whose length is more than came is dropped.",
        source: "RFC 1812 section 5.2.2",
        needs: &[],
        run: inner_length,
    },
    Check {
        id: "malformed.inner-version",
        level: Should,
        demand: "A packet whose protocol type contradicts the version of the inner packet is dropped.",
        source: "RFC 1812 section 5.2.2; RFC 8926 section 3.4",
        needs: &[],
        run: |session| wrapped(session, "IPv4 under the protocol type of IPv6", |e| e.protocol = Some(IPV6)),
    },
    Check {
        id: "malformed.protocol-type",
        level: Should,
        demand: "A protocol type that the load balancer never sends (Ethernet) is dropped.",
        source: "aws-samples/aws-gateway-load-balancer-tunnel-handler: IPv4 and IPv6 only",
        needs: &[],
        run: |session| {
            wrapped(session, "IPv4 under the protocol type of Ethernet", |e| e.protocol = Some(ETHERNET))
        },
    },
    Check {
        id: "malformed.survives",
        level: Must,
        demand: "After packets of noise, plain traffic comes back.",
        source: "whoever reaches the port can send noise",
        needs: &[],
        run: survives,
    },
];

/// A DNS query of a new flow, in an envelope that was changed.
fn query(session: &mut Session<'_>, what: &str, change: impl FnOnce(&mut Envelope)) -> Probe {
    let flow = session.flow(Kind::Dns, false);
    let (inner, token) = session.dns(&flow, false);
    let mut envelope = session.envelope(&flow, false);
    change(&mut envelope);
    Probe { what: what.into(), packet: envelope.packet(&inner), token }
}

fn wrapped(session: &mut Session<'_>, what: &str, change: impl FnOnce(&mut Envelope)) -> Outcome {
    let probe = query(session, what, change);
    session.dropped(&[probe])?;
    Ok(None)
}

/// A packet that was changed, with right checksums, has to be dropped.
fn drops(session: &mut Session<'_>, what: &str, change: impl FnOnce(&mut [u8])) -> Outcome {
    let mut probe = query(session, what, |_| {});
    change(&mut probe.packet);
    if session.settings.profile.checksum {
        make::udp_sum(&mut probe.packet);
    }
    session.dropped(&[probe])?;
    Ok(None)
}

fn option_overrun(session: &mut Session<'_>) -> Outcome {
    let probe = query(session, "a packet with an option beyond all options", |envelope| {
        envelope.options.push(TunnelOption::new(0xfff7, 0x23, &[0; 4]));
    });
    let mut probe = probe;
    // The length of the last option, which is eight bytes in all.
    let at = OUTER + usize::from(probe.packet[GENEVE] & 0x3f) * 4 - 5;
    probe.packet[at] = probe.packet[at] & 0xe0 | 0x1f;
    if session.settings.profile.checksum {
        make::udp_sum(&mut probe.packet);
    }
    session.dropped(&[probe])?;
    Ok(None)
}

fn options_beyond(session: &mut Session<'_>) -> Outcome {
    drops(session, "a packet with options beyond its end", |packet| packet[GENEVE] |= 0x3f)
}

fn udp_checksum(session: &mut Session<'_>) -> Outcome {
    let mut probe = query(session, "a packet with a wrong UDP checksum", |envelope| envelope.checksum = true);
    let sum = u16::from_be_bytes([probe.packet[26], probe.packet[27]]);
    let wrong = if sum == 0x1234 { 0x4321 } else { 0x1234 };
    make::put(&mut probe.packet, 26, wrong);
    session.dropped(&[probe])?;
    Ok(None)
}

fn ip_checksum(session: &mut Session<'_>) -> Outcome {
    if !session.wire().keeps_header() {
        let why = "the kernel on this side makes outer header checksums right: judge it over a --port";
        return Err(Stop::Unjudged(why.into()));
    }
    let mut probe = query(session, "a packet with a wrong outer header checksum", |_| {});
    probe.packet[10] ^= 0x55;
    session.dropped(&[probe])?;
    Ok(None)
}

fn udp_length(session: &mut Session<'_>) -> Outcome {
    let mut probes = Vec::new();
    for (len, what) in
        [(None, "a packet whose UDP length is more than came"), (Some(7), "a packet of UDP length 7")]
    {
        let mut probe = query(session, what, |envelope| envelope.checksum = false);
        let len = len.unwrap_or((probe.packet.len() - 20 + 64) as u16);
        make::put(&mut probe.packet, UDP_LENGTH, len);
        probes.push(probe);
    }
    session.dropped(&probes)?;
    Ok(None)
}

fn outer_fragment(session: &mut Session<'_>) -> Outcome {
    let mut probe = query(session, "the first fragment of an outer packet", |_| {});
    // Of a number that nobody else uses; the rest of the packet never comes. Pieces are multiples of eight bytes.
    let len = probe.packet.len() - (probe.packet.len() - 20) % 8;
    probe.packet.truncate(len);
    make::put(&mut probe.packet, 2, len as u16);
    make::put(&mut probe.packet, UDP_LENGTH, (len - 20) as u16);
    let id: u16 = session.number();
    make::put(&mut probe.packet, 4, id | 1);
    make::put(&mut probe.packet, 6, 0x2000);
    if session.settings.profile.checksum {
        make::udp_sum(&mut probe.packet);
    }
    make::header_sum(&mut probe.packet);
    session.dropped(&[probe])?;
    Ok(None)
}

fn truncated(session: &mut Session<'_>) -> Outcome {
    let whole = query(session, "", |_| {});
    let to = OUTER + usize::from(whole.packet[GENEVE] & 0x3f) * 4 + 19;
    // Known by a source port that nothing else has.
    let port: u16 = session.number::<u16>() % 1000 + 2000;
    let mut probes = Vec::new();
    for len in GENEVE..=to {
        let mut packet = whole.packet[..len].to_vec();
        make::put(&mut packet, 20, port);
        make::put(&mut packet, 2, len as u16);
        make::put(&mut packet, UDP_LENGTH, (len - 20) as u16);
        make::header_sum(&mut packet);
        make::put(&mut packet, 26, 0);
        if session.settings.profile.checksum {
            make::udp_sum(&mut packet);
        }
        // Both ports and the length.
        let token = packet[20..26].to_vec();
        probes.push(Probe { what: format!("an outer packet cut off at {len} bytes"), packet, token });
    }
    session.dropped(&probes)?;
    Ok(None)
}

fn inner_length(session: &mut Session<'_>) -> Outcome {
    let flow = session.flow(Kind::Dns, false);
    let (mut inner, token) = session.dns(&flow, false);
    let len = inner.len() as u16 + 100;
    make::put(&mut inner, 2, len);
    make::header_sum(&mut inner);
    let packet = session.wrap(&flow, false, &inner);
    session.dropped(&[Probe { what: "an inner packet shorter than it says".into(), packet, token }])?;
    Ok(None)
}

/// Good packets with bytes that were changed at random, and pure noise behind a UDP header.
fn survives(session: &mut Session<'_>) -> Outcome {
    for n in 0..NOISE {
        let mut packet = query(session, "", |_| {}).packet;
        if n % 4 == 0 {
            packet[GENEVE..].fill_with(|| session.random().random());
            packet[GENEVE] |= if n % 8 == 0 { 0xc0 } else { 0 };
        } else {
            for _ in 0..=n % 16 {
                let at = session.random().random_range(GENEVE..packet.len());
                packet[at] = session.random().random();
            }
        }
        if session.settings.profile.checksum {
            make::udp_sum(&mut packet);
        }
        session.send(&packet)?;
        if n % ROW == ROW - 1 {
            let probe = query(session, "plain traffic behind noise", |_| {});
            session.exchange(probe)?;
        }
    }
    Ok(None)
}
