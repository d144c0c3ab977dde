//! Lengths, from the shortest packet to what the load balancer does not take back.

use super::super::frames::make;
use super::super::session::{Kind, Outcome, Probe, Session, Stop, contains, error_kind, seen, seen_inner};
use super::Level::{Must, Should};
use super::{AWS_GUIDE, Check};

/// IPv4 and UDP headers.
const HEADERS: usize = 28;

/// The group.
pub const CHECKS: &[Check] = &[
    Check {
        id: "mtu.shortest",
        level: Must,
        demand: "A UDP datagram without payload comes back, with nothing behind its end.",
        source: "RFC 768",
        needs: &[],
        run: shortest,
    },
    Check {
        id: "mtu.1500",
        level: Must,
        demand: "An inner packet of 1500 bytes comes back whole.",
        source: AWS_GUIDE,
        needs: &[],
        run: |session| comes_back(session, 1500),
    },
    Check {
        id: "mtu.largest",
        level: Must,
        demand: "The largest inner packet that the load balancer takes (AWS: 8500 bytes) comes back whole.",
        source: AWS_GUIDE,
        needs: &[],
        run: |session| {
            let most = most(session)?;
            comes_back(session, most)
        },
    },
    Check {
        id: "mtu.over",
        level: Must,
        demand: "An inner packet larger than that does not come back: the load balancer would drop it, and nobody would know.",
        source: "AWS Gateway Load Balancers guide: maximum packet size",
        needs: &["mtu.largest"],
        run: over,
    },
    Check {
        id: "mtu.tells",
        level: Should,
        demand: "Its sender is told so inside the tunnel, by \"fragmentation needed\" with an MTU that fits: the load balancer sends none.",
        source: "RFC 1191; AWS Gateway Load Balancers guide: no ICMP for packets too large",
        needs: &["mtu.largest"],
        run: tells,
    },
];

fn shortest(session: &mut Session<'_>) -> Outcome {
    let flow = session.flow(Kind::Data, false);
    let packet = session.wrap(&flow, false, &make::udp(flow.ends, &[]));
    // Nothing else has this client and its port.
    let inner = seen(&packet)?.inner;
    let token = inner[12..22].to_vec();
    let back = session.exchange(Probe { what: "a datagram without payload".into(), packet, token })?;
    let back = seen(&back)?;
    match seen_inner(&back)?.trailing {
        0 => Ok(None),
        n => Err(Stop::Wrong(format!("{n} bytes came back behind the end of the inner packet"))),
    }
}

/// The profile's limit.
fn most(session: &Session<'_>) -> Result<usize, Stop> {
    let profile = session.settings.profile;
    let none = || Stop::Unjudged(format!("no limit of the profile {} is published", profile.name));
    profile.most.ok_or_else(none)
}

fn probe(session: &mut Session<'_>, len: usize) -> Probe {
    let flow = session.flow(Kind::Data, false);
    let (inner, token) = session.data(&flow, false, len - HEADERS);
    let what = format!("an inner packet of {len} bytes");
    Probe { what, packet: session.wrap(&flow, false, &inner), token }
}

fn comes_back(session: &mut Session<'_>, len: usize) -> Outcome {
    let probe = probe(session, len);
    let back = session.exchange(probe)?;
    match seen(&back)?.inner.len() {
        came if came == len => Ok(None),
        came => Err(Stop::Wrong(format!("an inner packet of {len} bytes came back with {came}"))),
    }
}

fn over(session: &mut Session<'_>) -> Outcome {
    let most = most(session)?;
    let probe = probe(session, most + 1);
    session.dropped(&[probe])?;
    Ok(None)
}

fn tells(session: &mut Session<'_>) -> Outcome {
    let most = most(session)?;
    let flow = session.flow(Kind::Data, false);
    let (inner, _) = session.data(&flow, false, most + 4 - HEADERS);
    let packet = session.wrap(&flow, false, &inner);
    // What is quoted begins with addresses and ports.
    let quote = inner[12..24].to_vec();
    let is = |back: &[u8]| contains(back, &quote) && error_kind(back) == Some([3, 4]);
    let came = session.gather(&[packet], |came| came.iter().any(|back| is(back)))?;
    let Some(back) = came.iter().find(|back| is(back)) else {
        return Err(Stop::Silent(format!("nobody told the sender of an inner packet of {} bytes", most + 4)));
    };
    let back = seen(back)?;
    let error = seen_inner(&back)?;
    let mtu = error.payload.get(6..8).map_or(0, |b| usize::from(b[0]) << 8 | usize::from(b[1]));
    if error.destination != flow.ends.from.ip() {
        return Err(Stop::Wrong(format!("it was told to {}, not to the sender", error.destination)));
    }
    match mtu {
        0 => Err(Stop::Wrong("the sender was told no MTU".into())),
        mtu if mtu > most => Err(Stop::Wrong(format!("the sender was told an MTU of {mtu}"))),
        mtu => Ok(Some(format!("it was told {mtu}"))),
    }
}
