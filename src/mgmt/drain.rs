//! Leaving: no new flows are wanted, those that are there are waited for, and at some moment it is over.

use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

use crate::config::DrainPlan;

/// Without flows to be counted, traffic that has been quiet for so long is over.
const QUIET: Duration = Duration::from_secs(10);

/// What is left, and what to wait for.
#[derive(Debug)]
pub struct Drain {
    at_least: Duration,
    began: Duration,
    /// It is over then, flows or not.
    ends: Duration,
    /// What the last look came to.
    last: Draining,
    /// Frames sent through the tunnel, and since when there have been no more.
    sent: u64,
    quiet_since: Duration,
}

/// How far it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "drain")]
pub enum Draining {
    /// There is something left.
    Going {
        /// Flows, where they are followed.
        flows: Option<u64>,
    },
    /// Nothing is left.
    Done,
    /// The deadline has passed.
    Deadline {
        /// Flows that are cut.
        flows: Option<u64>,
    },
}

impl Draining {
    /// Should the program end?
    pub fn is_over(self) -> bool {
        !matches!(self, Draining::Going { .. })
    }
}

impl Drain {
    /// It begins now.
    pub fn new(plan: DrainPlan, at: Duration) -> Self {
        let (ends, last) = (at.saturating_add(plan.deadline), Draining::Going { flows: None });
        Drain { at_least: plan.at_least, began: at, ends, last, sent: 0, quiet_since: at }
    }

    /// It is over so long from now.
    pub fn end_after(&mut self, at: Duration, deadline: Duration) {
        self.ends = at.saturating_add(deadline);
    }

    /// How it is, for whoever asks.
    pub fn to_json(&self, at: Duration) -> Value {
        let (state, flows) = match self.last {
            Draining::Going { flows } => ("going", flows),
            Draining::Done => ("done", Some(0)),
            Draining::Deadline { flows } => ("deadline", flows),
        };
        json!({
            "state": state, "flows": flows, "for_s": at.saturating_sub(self.began).as_secs_f64(),
            "left_s": self.ends.saturating_sub(at).as_secs_f64(), "at_least_s": self.at_least.as_secs_f64(),
        })
    }

    /// Looks at what is left: flows, where they are followed, and frames that have gone home since the start.
    pub fn look(&mut self, at: Duration, flows: Option<u64>, sent: u64) -> Draining {
        if sent != self.sent {
            (self.sent, self.quiet_since) = (sent, at);
        }
        self.last = self.now(at, flows);
        self.last
    }

    fn now(&self, at: Duration, flows: Option<u64>) -> Draining {
        let spent = at.saturating_sub(self.began);
        let empty = match flows {
            Some(flows) => flows == 0,
            None => at.saturating_sub(self.quiet_since) >= QUIET,
        };
        if empty && spent >= self.at_least {
            Draining::Done
        } else if at >= self.ends {
            Draining::Deadline { flows }
        } else {
            Draining::Going { flows }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn drain() -> Drain {
        Drain::new(DrainPlan { on_sigterm: true, deadline: 60 * SECOND, at_least: 30 * SECOND }, 5 * SECOND)
    }

    #[test]
    fn it_ends_when_no_flow_is_left_but_not_before_the_load_balancer_can_know() {
        let mut drain = drain();
        assert_eq!(drain.look(5 * SECOND, Some(2), 0), Draining::Going { flows: Some(2) });
        assert_eq!(drain.look(34 * SECOND, Some(0), 0), Draining::Going { flows: Some(0) });
        assert_eq!(drain.look(35 * SECOND, Some(1), 0), Draining::Going { flows: Some(1) });
        assert_eq!(drain.look(36 * SECOND, Some(0), 9), Draining::Done);
    }

    #[test]
    fn it_ends_at_the_deadline() {
        let mut drain = drain();
        assert!(!drain.look(64 * SECOND, Some(7), 0).is_over());
        assert_eq!(drain.look(65 * SECOND, Some(7), 0), Draining::Deadline { flows: Some(7) });
        assert_eq!(drain.look(65 * SECOND, Some(0), 0), Draining::Done);
    }

    /// Whoever asks again may mean another end, sooner or later; it counts from then.
    #[test]
    fn the_deadline_can_be_another_one() {
        let mut drain = drain();
        drain.end_after(10 * SECOND, 100 * SECOND);
        assert!(!drain.look(109 * SECOND, Some(7), 0).is_over());
        drain.end_after(109 * SECOND, Duration::ZERO);
        assert_eq!(drain.look(109 * SECOND, Some(7), 0), Draining::Deadline { flows: Some(7) });
        let said = drain.to_json(109 * SECOND);
        let expected =
            json!({ "state": "deadline", "flows": 7, "for_s": 104.0, "left_s": 0.0, "at_least_s": 30.0 });
        assert_eq!(said, expected);
        drain.end_after(SECOND, Duration::MAX);
        assert!(!drain.look(1000 * SECOND, Some(7), 0).is_over());
    }

    #[test]
    fn without_flows_it_waits_for_quiet() {
        let mut drain = drain();
        for second in 5..40 {
            assert_eq!(drain.look(second * SECOND, None, u64::from(second)), Draining::Going { flows: None });
        }
        assert!(!drain.look(48 * SECOND, None, 39).is_over());
        assert_eq!(drain.look(49 * SECOND, None, 39), Draining::Done);
    }
}
