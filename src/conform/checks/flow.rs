//! Flows: both directions, tuples that are used again, endpoints with the same addresses, other protocols, order.

use super::super::frames::GRE;
use super::super::frames::make::{self, ACK, FIN, SYN};
use super::super::profile::Holds;
use super::super::session::{Flow, Kind, Outcome, Probe, Session, Stop, contains, seen};
use super::Level::{Must, Should};
use super::envelope::{cookie_of, cookie_text, query};
use super::{AWS_GUIDE, Check};

/// The encapsulating security payload of IPsec.
const ESP: u8 = 50;
/// Packets in a row.
const ROW: u32 = 100;

/// The group.
pub const CHECKS: &[Check] = &[
    Check {
        id: "flow.directions",
        level: Must,
        demand: "Both directions of a TCP connection come back, from the handshake to the last FIN, and so do a DNS query and its answer.",
        source: AWS_GUIDE,
        needs: &[],
        run: directions,
    },
    Check {
        id: "flow.newest-envelope",
        level: Must,
        demand: "A packet goes home in the envelope that it came in, also if cookie and outer source port have changed in the middle of its flow.",
        source: "aws-samples/aws-gateway-load-balancer-tunnel-handler, pull request 15",
        needs: &[],
        run: newest_envelope,
    },
    Check {
        id: "flow.cookie-renewal",
        level: Must,
        demand: "A connection on a tuple that was used before comes back with its new cookie, not with the old one.",
        source: "aws-samples/aws-gateway-load-balancer-tunnel-handler, pull request 15",
        needs: &["flow.directions"],
        run: cookie_renewal,
    },
    Check {
        id: "flow.endpoints",
        level: Must,
        demand: "Flows with the same inner addresses and ports from two endpoints do not mix.",
        source: "AWS PrivateLink guide: address ranges of endpoints may overlap",
        needs: &[],
        run: endpoints,
    },
    Check {
        id: "flow.icmp-echo",
        level: Must,
        demand: "A ping and its answer come back.",
        source: "AWS Gateway Load Balancers guide: the listener takes all IP protocols",
        needs: &[],
        run: icmp_echo,
    },
    Check {
        id: "flow.ipv6",
        level: Should,
        demand: "TCP and DNS over inner IPv6 come back.",
        source: "AWS Gateway Load Balancers guide: dualstack",
        needs: &[],
        run: ipv6,
    },
    Check {
        id: "flow.other-protocols",
        level: Should,
        demand: "Packets of protocols without ports (GRE, ESP) come back.",
        source: "AWS Gateway Load Balancers guide: the listener takes all IP protocols",
        needs: &[],
        run: other_protocols,
    },
    Check {
        id: "flow.once",
        level: Must,
        demand: "No packet comes back twice.",
        source: "RFC 8200 section 5, RFC 791: a network may duplicate, an appliance has no reason to",
        needs: &[],
        run: once,
    },
    Check {
        id: "flow.order",
        level: Should,
        demand: "Packets of one flow come back in the order in which they were sent.",
        source: "RFC 4737: TCP takes reordering for loss",
        needs: &[],
        run: order,
    },
];

fn directions(session: &mut Session<'_>) -> Outcome {
    let mut flow = session.flow(Kind::Tcp, false);
    session.open(&mut flow)?;
    session.say(&mut flow, false, ACK, true)?;
    session.say(&mut flow, true, ACK, true)?;
    close(session, &mut flow)?;
    let flow = session.flow(Kind::Dns, false);
    ask_and_answer(session, &flow)
}

/// Both FINs, and the last ACK.
fn close(session: &mut Session<'_>, flow: &mut Flow) -> Result<(), Stop> {
    session.say(flow, false, ACK | FIN, false)?;
    session.say(flow, true, ACK | FIN, false)?;
    session.say(flow, false, ACK, false)?;
    Ok(())
}

fn ask_and_answer(session: &mut Session<'_>, flow: &Flow) -> Outcome {
    let probe = query(session, flow, "a DNS query");
    session.exchange(probe)?;
    let (inner, token) = session.dns(flow, true);
    let packet = session.wrap(flow, true, &inner);
    session.exchange(Probe { what: "the answer to a DNS query".into(), packet, token })?;
    Ok(None)
}

fn newest_envelope(session: &mut Session<'_>) -> Outcome {
    let mut flow = session.flow(Kind::Data, false);
    let (mut cookies, mut ports) = (Vec::new(), Vec::new());
    for (n, second) in [false, true, false, true].into_iter().enumerate() {
        if n > 0 {
            flow.cookie = session.number();
            flow.source_port = session.outer_port();
        }
        let (inner, token) = session.data(&flow, second, 32);
        let packet = session.wrap(&flow, second, &inner);
        let was = cookie_of(session, &packet)?;
        let back = session.exchange(Probe { what: format!("packet {} of a flow", n + 1), packet, token })?;
        let (is, port) = (cookie_of(session, &back)?, seen(&back)?.source_port);
        if is != was && cookies.contains(&is) {
            let is = cookie_text(is);
            return Err(Stop::Wrong(format!("packet {} came back with an earlier cookie, {is}", n + 1)));
        }
        if port != flow.source_port && ports.contains(&port) {
            return Err(Stop::Wrong(format!("packet {} came back with an earlier port, {port}", n + 1)));
        }
        cookies.push(was);
        ports.push(flow.source_port);
    }
    Ok(None)
}

fn cookie_renewal(session: &mut Session<'_>) -> Outcome {
    if !session.settings.profile.has_cookie() {
        return Err(Stop::Unjudged(format!("the profile {} has no cookie", session.settings.profile.name)));
    }
    let mut flow = session.flow(Kind::Tcp, false);
    session.open(&mut flow)?;
    close(session, &mut flow)?;
    let (first, old) = (flow.sequence, flow.cookie);
    // Another cookie in the bits that every profile has.
    flow.cookie = old ^ (session.number::<u32>() | 1);
    flow.source_port = session.outer_port();
    flow.sequence = [first[0].wrapping_add(1 << 20), session.number()];
    let steps = [(false, SYN), (true, SYN | ACK), (false, ACK)];
    for (second, flags) in steps {
        let back = session.say(&mut flow, second, flags, false)?;
        let is = cookie_of(session, &back)?;
        let stale = session.settings.profile.options(flow.endpoint, old, second);
        let mut stale = stale.iter().filter(|o| session.settings.profile.is_cookie(o.class, o.kind));
        let stale = stale.next().and_then(|o| o.data.first_chunk::<4>()).map(|b| u32::from_be_bytes(*b));
        if is == stale {
            let old = cookie_text(is);
            return Err(Stop::Wrong(format!("the new connection came back with the old cookie, {old}")));
        }
    }
    Ok(None)
}

fn endpoints(session: &mut Session<'_>) -> Outcome {
    let one = session.flow(Kind::Data, false);
    let endpoint = one.endpoint ^ (session.number::<u64>() | 1);
    let two = Flow { endpoint, cookie: session.number(), source_port: session.outer_port(), ..one };
    for (flow, other, second) in
        [(&one, &two, false), (&two, &one, false), (&one, &two, true), (&two, &one, true)]
    {
        let (inner, token) = session.data(flow, second, 32);
        let packet = session.wrap(flow, second, &inner);
        let what = format!("a packet of endpoint {:016x}", flow.endpoint);
        let other = endpoint_of(session, &session.wrap(other, second, &inner))?;
        let back = session.exchange(Probe { what: what.clone(), packet, token })?;
        let is = endpoint_of(session, &back)?;
        if is == other {
            return Err(Stop::Wrong(format!("{what} came back to endpoint {is:016x}")));
        }
    }
    Ok(None)
}

/// Which endpoint an outer packet is of; 0 if it does not say.
fn endpoint_of(session: &Session<'_>, packet: &[u8]) -> Result<u64, Stop> {
    let profile = session.settings.profile;
    let seen = seen(packet)?;
    let Some(known) = profile.options.iter().find(|known| known.holds == Holds::Endpoint) else {
        return Ok(seen.vni.into());
    };
    let option = seen.options.iter().find(|o| (o.class, o.kind) == (known.class, known.kind));
    Ok(option.and_then(|option| option.data.last_chunk::<8>()).map_or(0, |b| u64::from_be_bytes(*b)))
}

fn icmp_echo(session: &mut Session<'_>) -> Outcome {
    let flow = session.flow(Kind::Dns, false);
    echo(session, &flow)
}

fn echo(session: &mut Session<'_>, flow: &Flow) -> Outcome {
    let id = session.number();
    for (second, what) in [(false, "a ping"), (true, "the answer to a ping")] {
        let token = session.token();
        let ends = if second { flow.ends.turned() } else { flow.ends };
        let packet = session.wrap(flow, second, &make::echo(ends, !second, id, &token));
        session.exchange(Probe { what: what.into(), packet, token })?;
    }
    Ok(None)
}

fn ipv6(session: &mut Session<'_>) -> Outcome {
    let mut flow = session.flow(Kind::Tcp, true);
    session.open(&mut flow)?;
    session.say(&mut flow, false, ACK, true)?;
    session.say(&mut flow, true, ACK, true)?;
    let flow = session.flow(Kind::Dns, true);
    ask_and_answer(session, &flow)?;
    echo(session, &flow)
}

fn other_protocols(session: &mut Session<'_>) -> Outcome {
    for (protocol, name, head) in
        [(GRE, "a GRE packet", [0, 0, 8, 0]), (ESP, "an ESP packet", [0, 0, 0x10, 1])]
    {
        let flow = session.flow(Kind::Dns, false);
        for second in [false, true] {
            let ends = if second { flow.ends.turned() } else { flow.ends };
            let token = session.token();
            let payload = [&head[..], &token].concat();
            let packet =
                session.wrap(&flow, second, &make::ip(ends.from.ip(), ends.to.ip(), protocol, &payload));
            session.exchange(Probe { what: name.into(), packet, token })?;
        }
    }
    Ok(None)
}

/// So many numbered packets of one flow, and their numbers in the order in which they came.
fn row(session: &mut Session<'_>, quiet: bool) -> Result<Vec<u32>, Stop> {
    let flow = session.flow(Kind::Data, false);
    let token = session.token();
    let packets: Vec<Vec<u8>> = (0..ROW)
        .map(|n| {
            let inner = make::udp(flow.ends, &[&token[..], &n.to_be_bytes()].concat());
            session.wrap(&flow, false, &inner)
        })
        .collect();
    let ours = |came: &[Vec<u8>]| came.iter().filter(|back| contains(back, &token)).count();
    let mut came = session.gather(&packets, |came| ours(came) >= ROW as usize)?;
    if quiet {
        session.listen(session.settings.quiet, &mut came, |_| false)?;
    }
    let came = came.iter().filter(|back| contains(back, &token));
    Ok(came.filter_map(|back| back.last_chunk::<4>()).map(|b| u32::from_be_bytes(*b)).collect())
}

fn once(session: &mut Session<'_>) -> Outcome {
    let mut came = row(session, true)?;
    let all = came.len();
    came.sort_unstable();
    came.dedup();
    if came.len() < all {
        return Err(Stop::Wrong(format!("{} of {ROW} packets came back more than once", all - came.len())));
    }
    lost(all)
}

fn order(session: &mut Session<'_>) -> Outcome {
    let came = row(session, false)?;
    let late = came.windows(2).filter(|pair| pair[1] < pair[0]).count();
    if late > 0 {
        return Err(Stop::Wrong(format!("{late} of {ROW} packets came back behind a later one")));
    }
    lost(came.len())
}

/// Most of what was sent has to be there to judge the rest.
fn lost(came: usize) -> Outcome {
    match ROW as usize - came.min(ROW as usize) {
        0 => Ok(None),
        lost if lost > ROW as usize / 2 => {
            Err(Stop::Silent(format!("{lost} of {ROW} packets in a row did not come back")))
        }
        lost => Ok(Some(format!("{lost} of {ROW} were lost"))),
    }
}
