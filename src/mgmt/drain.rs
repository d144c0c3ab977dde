//! Leaving: no new flows are wanted, those that are there are waited for, and at some moment it is over.

use std::time::Duration;

use serde::Serialize;

use crate::config::DrainPlan;

/// Without flows to be counted, traffic that has been quiet for so long is over.
const QUIET: Duration = Duration::from_secs(10);

/// What is left, and what to wait for.
#[derive(Debug)]
pub struct Drain {
    plan: DrainPlan,
    began: Duration,
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
        Drain { plan, began: at, sent: 0, quiet_since: at }
    }

    /// Looks at what is left: flows, where they are followed, and frames that have gone home since the start.
    pub fn look(&mut self, at: Duration, flows: Option<u64>, sent: u64) -> Draining {
        if sent != self.sent {
            (self.sent, self.quiet_since) = (sent, at);
        }
        let spent = at.saturating_sub(self.began);
        let empty = match flows {
            Some(flows) => flows == 0,
            None => at.saturating_sub(self.quiet_since) >= QUIET,
        };
        if empty && spent >= self.plan.at_least {
            Draining::Done
        } else if spent >= self.plan.deadline {
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
