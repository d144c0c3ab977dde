//! Inner packets in fragments: they pass, in whatever order, in pieces or put together.

use super::super::frames::make;
use super::super::session::{Kind, Outcome, Session, Stop, contains};
use super::Check;
use super::Level::{Must, Should};

/// Bytes of a piece; there are three and a half.
const PIECE: usize = 512;

/// The group.
pub const CHECKS: &[Check] = &[
    Check {
        id: "fragments.all",
        level: Must,
        demand: "All fragments of an inner IPv4 packet come back, in pieces or put together.",
        source: "RFC 791; clients fragment, and later fragments have no ports",
        needs: &[],
        run: |session| all(session, false, &[0, 1, 2, 3]),
    },
    Check {
        id: "fragments.out-of-order",
        level: Should,
        demand: "They come back also if the first one comes last.",
        source: "RFC 791 section 3.2: fragments may arrive in any order",
        needs: &["fragments.all"],
        run: |session| all(session, false, &[3, 2, 1, 0]),
    },
    Check {
        id: "fragments.ipv6",
        level: Should,
        demand: "All fragments of an inner IPv6 packet come back, in pieces or put together.",
        source: "RFC 8200 section 4.5",
        needs: &["flow.ipv6"],
        run: |session| all(session, true, &[0, 1, 2, 3]),
    },
];

fn all(session: &mut Session<'_>, ipv6: bool, order: &[usize]) -> Outcome {
    let flow = session.flow(Kind::Data, ipv6);
    let tokens: Vec<Vec<u8>> = order.iter().map(|_| session.token()).collect();
    let mut payload = vec![0x55; PIECE * 7 / 2 - 8];
    for (n, token) in tokens.iter().enumerate() {
        let at = n * PIECE + 64;
        payload[at..at + token.len()].copy_from_slice(token);
    }
    let pieces = make::pieces(&make::udp(flow.ends, &payload), session.number(), PIECE);
    let packets: Vec<Vec<u8>> = order.iter().map(|&n| session.wrap(&flow, false, &pieces[n])).collect();
    let is_back = |came: &[Vec<u8>], token: &[u8]| came.iter().any(|back| contains(back, token));
    let came = session.gather(&packets, |came| tokens.iter().all(|token| is_back(came, token)))?;
    let missing: Vec<String> = tokens
        .iter()
        .enumerate()
        .filter(|(_, token)| !is_back(&came, token))
        .map(|(n, _)| (n + 1).to_string())
        .collect();
    match missing.is_empty() {
        true => Ok(None),
        false => Err(Stop::Silent(format!(
            "of {} fragments these did not come back: {}",
            pieces.len(),
            missing.join(", ")
        ))),
    }
}
