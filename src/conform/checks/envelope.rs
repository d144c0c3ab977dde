//! What is around a packet that comes back.

use super::super::frames::make;
use super::super::frames::read::Sum;
use super::super::session::{Flow, Kind, Outcome, Probe, Session, Stop, seen};
use super::Level::Must;
use super::{AWS_GUIDE, Check};

/// The group.
pub const CHECKS: &[Check] = &[
    Check {
        id: "envelope.returned",
        level: Must,
        demand: "A DNS query and the SYN of a TCP connection come back.",
        source: AWS_GUIDE,
        needs: &[],
        run: |session| returned(session).map(|_| None),
    },
    Check {
        id: "envelope.addresses",
        level: Must,
        demand: "The outer addresses change places: from the appliance, to the node that sent it.",
        source: "aws-samples/aws-gateway-load-balancer-tunnel-handler",
        needs: &[],
        run: addresses,
    },
    Check {
        id: "envelope.ports",
        level: Must,
        demand: "The outer UDP ports do not change places: the source port is the one that came, the destination is GENEVE's.",
        source: "captures of AWS; aws-samples/aws-gateway-load-balancer-tunnel-handler",
        needs: &[],
        run: ports,
    },
    Check {
        id: "envelope.outer-header",
        level: Must,
        demand: "The outer IPv4 header is right, its checksum included, and the outer packet is no fragment.",
        source: "RFC 791; AWS Gateway Load Balancers guide: no fragmentation",
        needs: &[],
        run: outer_header,
    },
    Check {
        id: "envelope.udp-checksum",
        level: Must,
        demand: "The outer UDP checksum is right, or zero.",
        source: "RFC 8926 section 3.3; RFC 768",
        needs: &[],
        run: udp_checksum,
    },
    Check {
        id: "envelope.base-header",
        level: Must,
        demand: "GENEVE's base header comes back: version, flags, protocol type and VNI.",
        source: "RFC 8926 section 3.4",
        needs: &[],
        run: base_header,
    },
    Check {
        id: "envelope.cookie",
        level: Must,
        demand: "The flow cookie comes back.",
        source: AWS_GUIDE,
        needs: &[],
        run: cookie,
    },
    Check {
        id: "envelope.no-checksum",
        level: Must,
        demand: "An outer packet whose UDP checksum is zero is taken.",
        source: "RFC 8926 section 3.3; RFC 768",
        needs: &[],
        run: no_checksum,
    },
    Check {
        id: "envelope.source-ports",
        level: Must,
        demand: "Any outer source port is taken.",
        source: "RFC 8926 section 3.3: the whole range may be used",
        needs: &[],
        run: source_ports,
    },
];

/// What was sent, and what came back of it.
type Pair = (Vec<u8>, Vec<u8>);

/// A DNS query and a SYN.
pub(super) fn returned(session: &mut Session<'_>) -> Result<Vec<Pair>, Stop> {
    let flow = session.flow(Kind::Dns, false);
    let query = query(session, &flow, "a DNS query");
    let mut flow = session.flow(Kind::Tcp, false);
    let (inner, token) = session.segment(&mut flow, false, make::SYN, false);
    let packet = session.wrap(&flow, false, &inner);
    let syn = Probe { what: "a SYN".into(), packet, token };
    let mut pairs = Vec::new();
    for probe in [query, syn] {
        pairs.push((probe.packet.clone(), session.exchange(probe)?));
    }
    Ok(pairs)
}

/// A DNS query of this flow.
pub(super) fn query(session: &mut Session<'_>, flow: &Flow, what: &str) -> Probe {
    let (inner, token) = session.dns(flow, false);
    Probe { what: what.into(), packet: session.wrap(flow, false, &inner), token }
}

fn wrong<T>(text: String) -> Result<T, Stop> {
    Err(Stop::Wrong(text))
}

fn addresses(session: &mut Session<'_>) -> Outcome {
    let (us, appliance) = (session.wire().us(), session.wire().appliance());
    for (_, back) in returned(session)? {
        let seen = seen(&back)?;
        if (seen.source, seen.destination) != (appliance, us) {
            let (from, to) = (seen.source, seen.destination);
            return wrong(format!("it came from {from} to {to}, not from {appliance} to {us}"));
        }
    }
    Ok(None)
}

fn ports(session: &mut Session<'_>) -> Outcome {
    for (sent, back) in returned(session)? {
        let (sent, seen) = (seen(&sent)?, seen(&back)?);
        if (seen.source_port, seen.port) != (sent.source_port, sent.port) {
            return wrong(format!(
                "it came from port {} to port {}, not from {} to {}",
                seen.source_port, seen.port, sent.source_port, sent.port
            ));
        }
    }
    Ok(None)
}

fn outer_header(session: &mut Session<'_>) -> Outcome {
    for (_, back) in returned(session)? {
        let seen = seen(&back)?;
        if !seen.header_ok {
            return wrong("the outer header checksum is wrong".into());
        }
        if seen.fragment {
            return wrong("the outer packet is a fragment".into());
        }
    }
    Ok(None)
}

fn udp_checksum(session: &mut Session<'_>) -> Outcome {
    for (_, back) in returned(session)? {
        if seen(&back)?.checksum == Sum::Bad {
            return wrong("the outer UDP checksum is wrong".into());
        }
    }
    Ok(None)
}

fn base_header(session: &mut Session<'_>) -> Outcome {
    for (sent, back) in returned(session)? {
        let (sent, seen) = (seen(&sent)?, seen(&back)?);
        let facts = |s: &super::super::frames::read::Seen<'_>| {
            [u32::from(s.version), u32::from(s.flags), u32::from(s.protocol), s.vni]
        };
        let names = ["version", "flags", "protocol type", "VNI"];
        for ((was, is), name) in facts(&sent).into_iter().zip(facts(&seen)).zip(names) {
            if was != is {
                return wrong(format!("{name} was {was:#x} and came back as {is:#x}"));
            }
        }
    }
    Ok(None)
}

fn cookie(session: &mut Session<'_>) -> Outcome {
    let profile = session.settings.profile;
    if !profile.has_cookie() {
        return Err(Stop::Unjudged(format!("the profile {} has no cookie", profile.name)));
    }
    for (sent, back) in returned(session)? {
        let (was, is) = (cookie_of(session, &sent)?, cookie_of(session, &back)?);
        if was != is {
            return wrong(format!("it was {} and came back as {}", cookie_text(was), cookie_text(is)));
        }
    }
    Ok(None)
}

/// The cookie of an outer packet; `None` if it has none.
pub(super) fn cookie_of(session: &Session<'_>, packet: &[u8]) -> Result<Option<u32>, Stop> {
    let profile = session.settings.profile;
    let seen = seen(packet)?;
    let option = seen.options.iter().find(|option| profile.is_cookie(option.class, option.kind));
    Ok(option.and_then(|option| option.data.first_chunk::<4>()).map(|bytes| u32::from_be_bytes(*bytes)))
}

/// For the report.
pub(super) fn cookie_text(cookie: Option<u32>) -> String {
    cookie.map_or("nothing".into(), |cookie| format!("{cookie:08x}"))
}

fn no_checksum(session: &mut Session<'_>) -> Outcome {
    let flow = session.flow(Kind::Dns, false);
    let (inner, token) = session.dns(&flow, false);
    let mut envelope = session.envelope(&flow, false);
    envelope.checksum = false;
    let probe =
        Probe { what: "a packet without UDP checksum".into(), packet: envelope.packet(&inner), token };
    session.exchange(probe)?;
    Ok(None)
}

fn source_ports(session: &mut Session<'_>) -> Outcome {
    for port in [1024, 6081, 32_768, 49_152, 65_535] {
        let mut flow = session.flow(Kind::Dns, false);
        flow.source_port = port;
        let probe = query(session, &flow, &format!("a packet with the outer source port {port}"));
        session.exchange(probe)?;
    }
    Ok(None)
}
