//! What a load balancer's health checks see. They are ordinary connections, not in the tunnel.

use super::super::Health;
use super::super::session::{Outcome, Session, Stop};
use super::super::wire::{Ask, Asked};
use super::Check;
use super::Level::Must;

/// Statuses that are taken for healthy (AWS's default).
const HEALTHY: std::ops::RangeInclusive<u16> = 200..=399;
/// Checks in a row, and connections that are open beside each.
const ROW: usize = 5;
const BESIDE: usize = 3;

/// The group.
pub const CHECKS: &[Check] = &[
    Check {
        id: "health.tcp",
        level: Must,
        demand: "The health port takes TCP connections.",
        source: "AWS Gateway Load Balancers guide: health checks",
        needs: &[],
        run: tcp,
    },
    Check {
        id: "health.http",
        level: Must,
        demand: "A GET is answered with a status of 200 to 399.",
        source: "AWS Gateway Load Balancers guide: health checks",
        needs: &["health.tcp"],
        run: http,
    },
    Check {
        id: "health.several",
        level: Must,
        demand: "Checks in a row are answered, also while other connections are open: nodes check one by one, and several times in an interval.",
        source: "AWS Gateway Load Balancers guide: health checks",
        needs: &["health.tcp"],
        run: several,
    },
];

fn settings(session: &Session<'_>) -> Result<Health, Stop> {
    session.settings.health.clone().ok_or_else(|| Stop::Unjudged("health is not to be asked for".into()))
}

fn ask(session: &mut Session<'_>, health: &Health, beside: usize, get: bool) -> Result<Asked, Stop> {
    let appliance = session.wire().appliance();
    let path = health.path.as_deref().filter(|_| get);
    let request = path.map(|path| {
        format!("GET {path} HTTP/1.1\r\nHost: {appliance}\r\nUser-Agent: sluicegate-conform\r\nConnection: close\r\n\r\n")
    });
    let wait = session.settings.wait;
    let ask = Ask { port: health.port, beside, request: request.as_deref(), wait };
    session.wire().ask(ask).map_err(Stop::Broken)
}

fn tcp(session: &mut Session<'_>) -> Outcome {
    let health = settings(session)?;
    let asked = ask(session, &health, 0, false)?;
    connected(&asked, health.port)?;
    Ok(None)
}

fn connected(asked: &Asked, port: u16) -> Result<(), Stop> {
    match asked {
        Asked::Answer(_) | Asked::Hangs => Ok(()),
        Asked::Refused => Err(Stop::Wrong(format!("port {port} refuses connections"))),
        Asked::Silent => Err(Stop::Silent(format!("port {port} does not answer"))),
    }
}

fn http(session: &mut Session<'_>) -> Outcome {
    let health = settings(session)?;
    if health.path.is_none() {
        return Err(Stop::Unjudged("health is asked for by connections only".into()));
    }
    let asked = ask(session, &health, 0, true)?;
    judged(&asked, health.port).map(Some)
}

/// The status of an answer that is healthy.
fn judged(asked: &Asked, port: u16) -> Result<String, Stop> {
    connected(asked, port)?;
    let Asked::Answer(bytes) = asked else {
        return Err(Stop::Wrong(format!("port {port} takes the connection, and the GET is not answered")));
    };
    let text = String::from_utf8_lossy(bytes);
    let line: String = text.lines().next().unwrap_or_default().chars().take(80).collect();
    let mut words = line.split(' ');
    let version = words.next().unwrap_or_default();
    let status = words.next().and_then(|word| word.parse::<u16>().ok());
    match status.filter(|_| version.starts_with("HTTP/1.")) {
        Some(status) if HEALTHY.contains(&status) => Ok(format!("status {status}")),
        Some(status) => Err(Stop::Wrong(format!("the answer has the status {status}"))),
        None => Err(Stop::Wrong(format!("the answer is not HTTP: {line:?}"))),
    }
}

fn several(session: &mut Session<'_>) -> Outcome {
    let health = settings(session)?;
    let get = health.path.is_some();
    for n in 1..=ROW {
        let asked = ask(session, &health, BESIDE, get)?;
        let answered = match asked {
            Asked::Answer(bytes) => !get || !bytes.is_empty(),
            Asked::Refused | Asked::Silent | Asked::Hangs => false,
        };
        if !answered {
            return Err(Stop::Wrong(format!(
                "check {n} of {ROW}, beside {BESIDE} open connections, was not answered"
            )));
        }
    }
    Ok(None)
}
