//! The options: those that are known, and those that are not.

use super::super::frames::make::{Envelope, TunnelOption};
use super::super::session::{Kind, Outcome, Probe, Session, Stop, seen};
use super::Check;
use super::Level::{Must, Should};
use super::envelope::returned;

/// An experimental class (RFC 8926 section 7).
const EXPERIMENTAL: u16 = 0xfff7;
/// A critical option's type has this bit.
const CRITICAL: u8 = 0x80;
/// The C bit of the base header: there are critical options.
const HAS_CRITICAL: u8 = 0x40;

/// The group.
pub const CHECKS: &[Check] = &[
    Check {
        id: "options.values",
        level: Must,
        demand: "All options but the cookie come back with their values.",
        source: "AWS Gateway Load Balancers guide; aws-samples/aws-gateway-load-balancer-tunnel-handler",
        needs: &[],
        run: values,
    },
    Check {
        id: "options.order",
        level: Must,
        demand: "The options come back in their order, none missing, none added.",
        source: "RFC 8926 section 3.5.1: contents and ordering must not be modified on the way",
        needs: &[],
        run: order,
    },
    Check {
        id: "options.unknown",
        level: Must,
        demand: "An option that nobody knows and that is not critical is skipped, and comes back, wherever it stands.",
        source: "RFC 8926 section 3.5",
        needs: &[],
        run: unknown,
    },
    Check {
        id: "options.critical",
        level: Must,
        demand: "A packet with an unknown critical option is dropped.",
        source: "RFC 8926 section 3.5.1",
        needs: &[],
        run: critical,
    },
    Check {
        id: "options.any-order",
        level: Should,
        demand: "The known options are taken in any order.",
        source: "RFC 8926 section 3.5.1: options can be processed independently of one another",
        needs: &[],
        run: any_order,
    },
    Check {
        id: "options.reserved-bits",
        level: Must,
        demand: "Reserved bits of the base header and of options are ignored.",
        source: "RFC 8926 sections 3.4 and 3.5",
        needs: &[],
        run: reserved_bits,
    },
];

fn values(session: &mut Session<'_>) -> Outcome {
    let profile = session.settings.profile;
    none_of(profile.options.is_empty(), profile.name)?;
    for (sent, back) in returned(session)? {
        let (sent, back) = (seen(&sent)?, seen(&back)?);
        for was in sent.options.iter().filter(|option| !profile.is_cookie(option.class, option.kind)) {
            let (class, kind) = (was.class, was.kind);
            let is = back.options.iter().find(|option| (option.class, option.kind) == (class, kind));
            match is {
                Some(is) if is.data == was.data => {}
                Some(is) => {
                    let (was, is) = (hex(was.data), hex(is.data));
                    let text = format!("option {class:04x}/{kind:02x} was {was} and came back as {is}");
                    return Err(Stop::Wrong(text));
                }
                None => return Err(Stop::Wrong(format!("option {class:04x}/{kind:02x} is missing"))),
            }
        }
    }
    Ok(None)
}

fn order(session: &mut Session<'_>) -> Outcome {
    let profile = session.settings.profile;
    none_of(profile.options.is_empty(), profile.name)?;
    for (sent, back) in returned(session)? {
        let list = |packet: &[u8]| -> Result<Vec<String>, Stop> {
            let names =
                |o: &super::super::frames::read::SeenOption<'_>| format!("{:04x}/{:02x}", o.class, o.kind);
            Ok(seen(packet)?.options.iter().map(names).collect())
        };
        let (was, is) = (list(&sent)?, list(&back)?);
        if was != is {
            return Err(Stop::Wrong(format!("{} came back as {}", was.join(" "), is.join(" "))));
        }
    }
    Ok(None)
}

/// A DNS query of a new flow in an envelope that was changed.
fn changed(session: &mut Session<'_>, what: &str, change: impl FnOnce(&mut Envelope)) -> Probe {
    let flow = session.flow(Kind::Dns, false);
    let (inner, token) = session.dns(&flow, false);
    let mut envelope = session.envelope(&flow, false);
    change(&mut envelope);
    Probe { what: what.into(), packet: envelope.packet(&inner), token }
}

fn unknown(session: &mut Session<'_>) -> Outcome {
    for (first, what) in [(false, "behind the known ones"), (true, "in front of the known ones")] {
        let value: [u8; 8] = session.number();
        let option = TunnelOption::new(EXPERIMENTAL, 0x21, &value);
        let probe = changed(session, &format!("a packet with an unknown option {what}"), |envelope| {
            let at = if first { 0 } else { envelope.options.len() };
            envelope.options.insert(at, option);
        });
        let back = session.exchange(probe)?;
        let back = seen(&back)?;
        let is = back.options.iter().find(|option| (option.class, option.kind) == (EXPERIMENTAL, 0x21));
        if is.map(|option| option.data) != Some(&value) {
            let is = is.map_or("is missing".into(), |option| format!("came back as {}", hex(option.data)));
            return Err(Stop::Wrong(format!("the unknown option {what} was {} and {is}", hex(&value))));
        }
    }
    Ok(None)
}

fn critical(session: &mut Session<'_>) -> Outcome {
    let probe = changed(session, "a packet with an unknown critical option", |envelope| {
        envelope.flags = HAS_CRITICAL;
        envelope.options.push(TunnelOption::new(EXPERIMENTAL, CRITICAL | 0x22, &[0; 4]));
    });
    session.dropped(&[probe])?;
    Ok(None)
}

fn any_order(session: &mut Session<'_>) -> Outcome {
    let profile = session.settings.profile;
    none_of(profile.options.len() < 2, profile.name)?;
    let probe = changed(session, "a packet whose options are in another order", |e| e.options.reverse());
    session.exchange(probe)?;
    Ok(None)
}

fn reserved_bits(session: &mut Session<'_>) -> Outcome {
    let header = changed(session, "a packet with reserved bits in its base header", |envelope| {
        envelope.flags = 0x3f;
        envelope.vni.1 = 0xff;
    });
    session.exchange(header)?;
    let option = changed(session, "a packet with reserved bits in its options", |envelope| {
        for option in &mut envelope.options {
            option.reserved = 7;
        }
    });
    session.exchange(option)?;
    Ok(None)
}

fn none_of(none: bool, profile: &str) -> Result<(), Stop> {
    match none {
        true => Err(Stop::Unjudged(format!("the profile {profile} has too few options"))),
        false => Ok(()),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
