//! What is inside a packet that comes back.

use super::super::frames::read::masked;
use super::super::session::{Outcome, Session, Stop, seen, seen_inner};
use super::Level::{Must, Should};
use super::envelope::returned;
use super::{AWS_GUIDE, Check};

/// The group.
pub const CHECKS: &[Check] = &[
    Check {
        id: "inner.tuple",
        level: Must,
        demand: "The inner addresses, protocol and ports come back: a load balancer takes back packets of flows that it knows.",
        source: AWS_GUIDE,
        needs: &[],
        run: tuple,
    },
    Check {
        id: "inner.checksums",
        level: Must,
        demand: "The checksums of the inner packet are right.",
        source: "RFC 791, 768, 9293",
        needs: &[],
        run: checksums,
    },
    Check {
        id: "inner.bytes",
        level: Should,
        demand: "Plain packets come back as they were, but for the hop limit.",
        source: "a transparent appliance is no end of a connection",
        needs: &[],
        run: bytes,
    },
];

fn tuple(session: &mut Session<'_>) -> Outcome {
    for (sent, back) in returned(session)? {
        let (sent, back) = (seen(&sent)?, seen(&back)?);
        let (sent, back) = (seen_inner(&sent)?, seen_inner(&back)?);
        let was = (sent.source, sent.destination, sent.protocol, sent.ports);
        let is = (back.source, back.destination, back.protocol, back.ports);
        if was != is {
            return Err(Stop::Wrong(format!("it was {was:?} and came back as {is:?}")));
        }
    }
    Ok(None)
}

fn checksums(session: &mut Session<'_>) -> Outcome {
    for (_, back) in returned(session)? {
        let back = seen(&back)?;
        let back = seen_inner(&back)?;
        if !back.header_ok {
            return Err(Stop::Wrong("the inner IPv4 header checksum is wrong".into()));
        }
        if !back.transport_ok {
            let protocol = back.protocol;
            return Err(Stop::Wrong(format!("the checksum of the inner protocol {protocol} is wrong")));
        }
    }
    Ok(None)
}

fn bytes(session: &mut Session<'_>) -> Outcome {
    for (sent, back) in returned(session)? {
        let (sent, back) = (seen(&sent)?, seen(&back)?);
        let (was, is) = (masked(sent.inner), masked(back.inner));
        if was.len() != is.len() {
            return Err(Stop::Wrong(format!("{} bytes came back as {}", was.len(), is.len())));
        }
        if let Some(at) = was.iter().zip(&is).position(|(was, is)| was != is) {
            return Err(Stop::Wrong(format!("it differs from byte {at} of the inner packet on")));
        }
    }
    Ok(None)
}
