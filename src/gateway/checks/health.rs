//! What checks make of a target: a pure function of their results.
//!
//! | state | goes to | when |
//! |---|---|---|
//! | initial | healthy | a check succeeds, the first one will do |
//! | initial, healthy | unhealthy | `unhealthy_threshold` checks in a row have failed |
//! | unhealthy | healthy | `healthy_threshold` checks in a row have succeeded |
//!
//! A new target needs one success only, as AWS's do ("must pass one health check"): nothing speaks against it yet, and a group that has just
//! started would be without targets for a minute.

use std::time::Duration;

use crate::gateway::targets::State;

/// One target's state, and how it came to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    state: State,
    /// When it came to be so.
    since: Duration,
    /// Results in a row that speak for another state.
    against: u32,
}

impl Health {
    /// Not judged yet.
    pub fn new(now: Duration) -> Self {
        Health { state: State::Initial, since: now, against: 0 }
    }

    /// Takes the result of a check. True if the state is another now.
    pub fn note(&mut self, passed: bool, [healthy, unhealthy]: [u32; 2], now: Duration) -> bool {
        let (against, needed, other) = match (self.state, passed) {
            (State::Initial, true) => (true, 1, State::Healthy),
            (State::Initial | State::Healthy, false) => (true, unhealthy, State::Unhealthy),
            (State::Unhealthy, true) => (true, healthy, State::Healthy),
            // What confirms the state, and targets that drain, which nobody judges.
            (state, _) => (false, 1, state),
        };
        self.against = if against { self.against + 1 } else { 0 };
        let turns = against && self.against >= needed;
        if turns {
            *self = Health { state: other, since: now, against: 0 };
        }
        turns
    }

    /// The state.
    pub fn state(&self) -> State {
        self.state
    }

    /// Since when.
    pub fn since(&self) -> Duration {
        self.since
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// The states after each of these results.
    fn states(results: &[bool], thresholds: [u32; 2]) -> Vec<State> {
        let mut health = Health::new(Duration::ZERO);
        let results = results.iter().zip(1u32..);
        results
            .map(|(passed, n)| {
                let before = health.state();
                let turned = health.note(*passed, thresholds, SECOND * n);
                assert_eq!(turned, health.state() != before);
                assert_eq!(turned, health.since() == SECOND * n);
                health.state()
            })
            .collect()
    }

    /// What the results say, written down from the table above and not from the code: the last state that some run of results led to.
    fn expected(results: &[bool], [healthy, unhealthy]: [u32; 2]) -> State {
        let run_before = |end: usize| {
            let last = results[end];
            results[..=end].iter().rev().take_while(|passed| **passed == last).count() as u32
        };
        let mut state = State::Initial;
        let mut turned = 0; // results that led to the state count no more
        for (end, passed) in results.iter().enumerate() {
            let run = run_before(end).min((end + 1 - turned) as u32);
            state = match (state, passed) {
                (State::Initial, true) => State::Healthy,
                (State::Unhealthy, true) if run >= healthy => State::Healthy,
                (State::Initial | State::Healthy, false) if run >= unhealthy => State::Unhealthy,
                _ => continue,
            };
            turned = end + 1;
        }
        state
    }

    use State::{Healthy, Initial, Unhealthy};

    #[test]
    fn a_target_lives_dies_and_recovers() {
        let [yes, no] = [true, false];
        assert_eq!(states(&[yes], [5, 2]), [Healthy], "one success makes a new target healthy");
        assert_eq!(states(&[no, no, no], [5, 2]), [Initial, Unhealthy, Unhealthy]);
        assert_eq!(states(&[no, yes], [5, 3]), [Initial, Healthy]);
        assert_eq!(states(&[yes, no, yes, no, no], [5, 2])[1..], [Healthy, Healthy, Healthy, Unhealthy]);
        let back = states(&[no, no, yes, yes, no, yes, yes, yes], [3, 2]);
        assert_eq!(back[1..], [Unhealthy, Unhealthy, Unhealthy, Unhealthy, Unhealthy, Unhealthy, Healthy]);
    }

    proptest! {
        #[test]
        fn states_follow_the_table(
            results in proptest::collection::vec(any::<bool>(), 1..80),
            healthy in 1u32..10,
            unhealthy in 1u32..10,
        ) {
            let states = states(&results, [healthy, unhealthy]);
            for end in 0..results.len() {
                prop_assert_eq!(states[end], expected(&results[..=end], [healthy, unhealthy]), "after {}", end);
            }
        }

        /// One whose checks change faster than the thresholds does not flap: it stays what it was.
        #[test]
        fn who_flaps_below_the_thresholds_stays_as_it_was(runs in proptest::collection::vec(1usize..5, 1..40)) {
            let mut results = vec![true];
            for (n, run) in runs.into_iter().enumerate() {
                results.extend(std::iter::repeat_n(n % 2 == 1, run));
            }
            prop_assert!(states(&results, [5, 5]).iter().all(|state| *state == Healthy));
        }
    }
}
