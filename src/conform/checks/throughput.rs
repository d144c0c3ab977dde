//! How much comes back, at rising rates: small datagrams of many flows, as fast as one thread sends them.

use std::time::{Duration, Instant};

use super::super::frames::make;
use super::super::session::{Kind, Outcome, Session, Stop, contains};
use super::Check;
use super::Level::Remark;

/// Flows.
const FLOWS: usize = 256;
/// Rates, in packets a second: this one, then twice as much each time.
const SLOWEST: f64 = 1000.0;
const STEPS: u32 = 12;
/// Packets between looks at what came back.
const BURST: usize = 32;
/// How long the last ones may take.
const LATE: Duration = Duration::from_millis(200);
/// Loss that a rate may have: one packet in so many.
const LOSS: u64 = 100;

/// The group.
pub const CHECKS: &[Check] = &[Check {
    id: "throughput.rate",
    level: Remark,
    demand: "So many packets a second come back with a loss of one percent at most; a failure if it is less than --min-kpps.",
    source: "measured by one thread: a floor for the appliance, not its limit",
    needs: &["malformed.survives"],
    run: rate,
}];

fn rate(session: &mut Session<'_>) -> Outcome {
    let time = session.settings.throughput / STEPS;
    if time.is_zero() {
        return Err(Stop::Unjudged("throughput is not to be measured".into()));
    }
    let token = session.token();
    let packets: Vec<Vec<u8>> = (0..FLOWS)
        .map(|_| {
            let flow = session.flow(Kind::Data, false);
            session.wrap(&flow, false, &make::udp(flow.ends, &token))
        })
        .collect();
    let (mut best, mut worst) = (0.0f64, None);
    for step in 0..STEPS {
        let offered = SLOWEST * f64::from(1 << step);
        let (sent, back, took) = at_rate(session, &packets, &token, offered, time)?;
        let lost = sent.saturating_sub(back);
        if lost > sent / LOSS {
            worst = Some((sent as f64 / took.as_secs_f64(), lost * 100 / sent.max(1)));
            break;
        }
        best = best.max(back as f64 / took.as_secs_f64());
        // The sender is at its end.
        if (sent as f64) < 0.7 * offered * time.as_secs_f64() {
            break;
        }
    }
    let best = best / 1000.0;
    let mut text = format!("{best:.1} kpps came back");
    match worst {
        Some((rate, lost)) => text += &format!("; at {:.1} kpps {lost} % were lost", rate / 1000.0),
        None => text += ", as fast as they were sent",
    }
    match session.settings.min_kpps {
        Some(least) if best < least => Err(Stop::Wrong(format!("{text}; at least {least} were asked for"))),
        _ => Ok(Some(text)),
    }
}

/// Packets sent and come back, and how long the sending took.
fn at_rate(
    session: &mut Session<'_>,
    packets: &[Vec<u8>],
    token: &[u8],
    rate: f64,
    time: Duration,
) -> Result<(u64, u64, Duration), Stop> {
    let (mut sent, mut back) = (0u64, 0u64);
    let mut packet = packets.iter().cycle();
    let began = Instant::now();
    while began.elapsed() < time {
        let due = (began.elapsed().as_secs_f64() * rate) as u64 + 1;
        for packet in packet.by_ref().take(BURST.min(due.saturating_sub(sent) as usize)) {
            session.send(packet)?;
            sent += 1;
        }
        back += came(session, token, Duration::ZERO, u64::MAX)?;
    }
    let took = began.elapsed();
    // What is still on its way, until nothing comes for a while.
    let pause = session.settings.quiet.max(LATE);
    while back < sent {
        match came(session, token, pause, sent - back)? {
            0 => break,
            more => back += more,
        }
    }
    Ok((sent, back, took))
}

/// Packets that come within that time, until there are so many.
fn came(session: &mut Session<'_>, token: &[u8], wait: Duration, most: u64) -> Result<u64, Stop> {
    let mut came = Vec::new();
    session.listen(wait, &mut came, |came| came.len() as u64 >= most)?;
    Ok(came.iter().filter(|back| contains(back, token)).count() as u64)
}
