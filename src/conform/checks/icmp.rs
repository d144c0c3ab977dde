//! ICMP errors belong to the flow that they quote, whoever sends them.

use super::super::frames::make::{self, ACK};
use super::super::session::{Kind, Outcome, Probe, Session, seen};
use super::Check;
use super::Level::{Must, Should};
use super::envelope::query;

/// The group.
pub const CHECKS: &[Check] = &[
    Check {
        id: "icmp.unreachable",
        level: Must,
        demand: "A server's \"port unreachable\" about a client's datagram comes back.",
        source: "RFC 1122 section 3.2.2.1; RFC 5508 section 4",
        needs: &[],
        run: unreachable,
    },
    Check {
        id: "icmp.too-big",
        level: Must,
        demand: "A router's \"fragmentation needed\" about a TCP segment comes back: without it path MTU discovery fails.",
        source: "RFC 1191; RFC 2923 section 2.1",
        needs: &["flow.directions"],
        run: |session| too_big(session, false),
    },
    Check {
        id: "icmp.ipv6-too-big",
        level: Should,
        demand: "A router's \"packet too big\" about a TCP segment over IPv6 comes back.",
        source: "RFC 8201; RFC 4890 section 4.3.1",
        needs: &["flow.ipv6"],
        run: |session| too_big(session, true),
    },
];

fn unreachable(session: &mut Session<'_>) -> Outcome {
    let flow = session.flow(Kind::Dns, false);
    let probe = query(session, &flow, "a DNS query");
    let token = probe.token.clone();
    let asked = probe.packet.clone();
    session.exchange(probe)?;
    let quoted = seen(&asked)?.inner.to_vec();
    let inner = make::icmp(flow.ends.to.ip(), flow.ends.from.ip(), [3, 3], 0, &quoted);
    let packet = session.wrap(&flow, true, &inner);
    session.exchange_error(Probe { what: "\"port unreachable\" from the server".into(), packet, token })?;
    Ok(None)
}

fn too_big(session: &mut Session<'_>, ipv6: bool) -> Outcome {
    let mut flow = session.flow(Kind::Tcp, ipv6);
    session.open(&mut flow)?;
    session.say(&mut flow, false, ACK, true)?;
    let (segment, token) = session.segment(&mut flow, true, ACK, true);
    let packet = session.wrap(&flow, true, &segment);
    session.exchange(Probe { what: "a TCP segment with data".into(), packet, token: token.clone() })?;
    // From a router on the client's side.
    let router = session.stranger(flow.ends.from.ip());
    let kind = if ipv6 { [2, 0] } else { [3, 4] };
    let inner = make::icmp(router, flow.ends.to.ip(), kind, 1400, &segment);
    let packet = session.wrap(&flow, false, &inner);
    session.exchange_error(Probe { what: "a router's \"too big\"".into(), packet, token })?;
    Ok(None)
}
