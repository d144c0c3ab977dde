//! `/v1/events`: what is told, as it is told.

use std::time::{Duration, Instant};

use serde_json::json;

use super::query::Query;
use super::{Here, Scene};
use crate::event::{Came, Choice, Follower, Full, Type, Types};
use crate::mgmt::admin::filter::OF_EVENTS;
use crate::mgmt::control::Refusal;
use crate::mgmt::server::{Pipe, Reply};

/// The kind of the answer: an object a line.
const KIND: &str = "application/x-ndjson";
/// From one look at whether the reader is gone to the next, while there is nothing to tell.
const LOOK: Duration = Duration::from_millis(50);
/// And how long that look takes.
const GLANCE: Duration = Duration::from_millis(1);

/// When it is over by itself.
struct Limits {
    records: u64,
    time: Duration,
}

/// The answer: a line for each record, until a limit is reached or the reader has had enough.
pub(super) fn events(here: &Here, scene: &Scene, mut query: Query<'_>) -> Result<Reply, Refusal> {
    let bad = |text: String| Refusal::new("bad-request", text);
    let filter = query.filter(OF_EVENTS)?;
    let limits = Limits {
        records: query.number("records", 1, u64::MAX)?.unwrap_or(u64::MAX),
        time: query.number("seconds", 1, 86_400)?.map_or(Duration::MAX, Duration::from_secs),
    };
    query.done()?;
    let none = || Refusal::new("not-found", "nothing can be followed: events.follow is empty");
    let following = here.following.as_ref().ok_or_else(none)?;
    let open = following.open();
    if open.is_empty() {
        return Err(none());
    }
    if let Some(closed) = filter.types.and_then(|types| types.without(open).iter().next()) {
        let of_flows = matches!(closed, Type::Flow | Type::FlowStart) && here.flows.is_none();
        let why = if of_flows { "no flow is followed here" } else { "events.follow does not name it" };
        return Err(Refusal::new("not-found", format!("{closed} records cannot be followed: {why}")));
    }
    let tenants = &scene.plan.flow.tenants;
    if let Some(name) = filter.tenant.as_ref().filter(|name| !tenants.iter().any(|own| own.name == **name)) {
        return Err(bad(format!("there is no tenant {name:?}")));
    }
    let stages = &scene.picture.names.stages;
    if let Some(name) = filter.stage.as_ref().filter(|name| !stages.contains(name)) {
        return Err(bad(format!("there is no stage {name:?}; there are {}", stages.join(", "))));
    }
    // Where flows come and go by the thousand, whoever wants to see each begin says so.
    let usual = open.without(Types::NONE.with(Type::FlowStart));
    let types = filter.types.unwrap_or(usual);
    let choice: Choice = Box::new(move |subject| filter.takes_event(subject));
    let follower = following.follow(types, choice).map_err(|full| match full {
        Full::Many => Refusal::new("busy", full.to_string()),
        Full::Over => Refusal::new("stopping", full.to_string()),
    })?;
    Ok(Reply::Stream(KIND, Box::new(move |pipe| run(pipe, &follower, &limits))))
}

fn run(pipe: &mut Pipe<'_>, follower: &Follower, limits: &Limits) {
    let (begun, mut left) = (Instant::now(), limits.records);
    while left > 0 {
        let time = limits.time.saturating_sub(begun.elapsed());
        if time.is_zero() {
            return;
        }
        let piece = match follower.wait(time.min(LOOK)) {
            Came::Piece(piece) => piece,
            Came::Nothing if pipe.wait(GLANCE) => continue,
            Came::Nothing | Came::Over => return,
        };
        if piece.missing > 0 {
            let missing = json!({ "event_type": "missing", "missing": { "records": piece.missing } });
            if !pipe.send(format!("{missing}\n").as_bytes()) {
                return;
            }
        }
        let lines = first(&piece.bytes, left);
        left = left.saturating_sub(piece.records());
        if !pipe.send(lines) {
            return;
        }
    }
}

/// The first so many lines.
fn first(lines: &[u8], most: u64) -> &[u8] {
    let ends = lines.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1);
    let end = ends.take(usize::try_from(most).unwrap_or(usize::MAX)).last().unwrap_or(0);
    lines.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::first;

    #[test]
    fn whole_lines_are_taken() {
        for (most, lines) in [(1, "a\n"), (2, "a\nbc\n"), (9, "a\nbc\n")] {
            assert_eq!(first(b"a\nbc\n", most), lines.as_bytes());
        }
        assert_eq!(first(b"", 3), b"");
    }
}
