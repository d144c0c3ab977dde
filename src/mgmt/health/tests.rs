use super::*;
use proptest::prelude::*;

const LOOK: Duration = Duration::from_millis(250);

/// An appliance that is looked at four times a second; what is wrong with it is set from outside.
struct Lab {
    health: Health,
    seen: Observation,
    /// Workers that poll, and ports that lose.
    polling: Vec<bool>,
    flips: Vec<(u128, State, Vec<Cause>)>,
}

impl Lab {
    fn new(plan: HealthPlan) -> Lab {
        let queue = |n| QueueSeen { port: 0, queue: n, sent: 0, tx_full: 0 };
        let worker = |id| {
            let queues = vec![queue(2 * id), queue(2 * id + 1)];
            WorkerSeen { id, ended: false, polls: 0, place: Place::Rx, tx_full: 0, queues }
        };
        let port = |id| PortSeen { id, link_up: true, reset: None, missed: 0, no_buffer: 0 };
        let seen = Observation {
            policy: true,
            workers: vec![worker(0), worker(1)],
            ports: vec![port(0)],
            pool_available: 100,
            ..Observation::default()
        };
        Lab {
            health: Health::new(plan, vec!["edge".into(), "tls".into()]),
            seen,
            polling: vec![true; 2],
            flips: Vec::new(),
        }
    }

    fn up() -> Lab {
        let mut lab = Lab::new(HealthPlan::default());
        lab.run(1.0, |_| {});
        assert_eq!(lab.state(), State::Ready);
        lab.flips.clear();
        lab
    }

    /// Goes on for so long; `each` changes what will be seen, before every look.
    fn run(&mut self, seconds: f64, mut each: impl FnMut(&mut Observation)) {
        let end = self.seen.at + Duration::from_secs_f64(seconds);
        while self.seen.at < end {
            self.seen.at += LOOK;
            for (worker, polls) in self.seen.workers.iter_mut().zip(&self.polling) {
                worker.polls += u64::from(*polls) * 1000;
            }
            each(&mut self.seen);
            if let Some(flip) = self.health.observe(self.seen.clone()) {
                let causes = flip.reasons.iter().map(|r| r.cause).collect();
                self.flips.push((self.seen.at.as_millis(), flip.to, causes));
            }
        }
    }

    fn state(&self) -> State {
        self.health.status().state
    }

    fn text(&self) -> String {
        self.health.status().reasons.iter().map(|r| r.text.clone()).collect::<Vec<_>>().join("; ")
    }
}

#[test]
fn it_starts_when_there_is_a_policy_and_every_worker_polls() {
    let mut lab = Lab::new(HealthPlan::default());
    lab.seen.policy = false;
    lab.polling = vec![true, false];
    lab.run(5.0, |_| {});
    assert_eq!((lab.state(), lab.flips.len()), (State::Starting, 0), "a slow start is no failure");
    assert!(lab.text().contains("no policy has been loaded yet"), "{}", lab.text());
    lab.seen.policy = true;
    lab.run(1.0, |_| {});
    assert_eq!(lab.state(), State::Starting);
    lab.polling[1] = true;
    lab.run(0.5, |_| {});
    assert_eq!(lab.flips.iter().map(|flip| flip.1).collect::<Vec<_>>(), [State::Ready]);
}

#[test]
fn a_worker_that_hangs_is_named_with_hop_and_stage_within_two_seconds() {
    let mut lab = Lab::up();
    let before = lab.seen.at.as_millis();
    lab.polling[1] = false;
    lab.seen.workers[1].place = Place::Inspect(1);
    lab.run(2.0, |_| {});
    let (at, to, causes) = lab.flips[0].clone();
    assert_eq!((to, causes), (State::Failed, vec![Cause::WorkerStuck]));
    assert!(at - before <= 2000, "{} ms", at - before);
    assert!(lab.text().contains("worker 1 has not polled for"), "{}", lab.text());
    assert!(lab.text().contains("it is in inspect, stage 1 \"tls\""), "{}", lab.text());
    assert_eq!(lab.health.stuck().collect::<Vec<_>>(), [1]);
    // Back: held for as long as the plan says, and then no longer.
    lab.polling[1] = true;
    lab.run(9.5, |_| {});
    assert_eq!((lab.state(), lab.health.status().recovering), (State::Failed, true));
    assert!(lab.text().contains("worker 1"), "whoever asks still learns why");
    assert_eq!(lab.health.stuck().count(), 0);
    lab.run(1.0, |_| {});
    assert_eq!((lab.state(), lab.flips.len(), lab.text().as_str()), (State::Ready, 2, ""));
}

/// The one who looks was not scheduled for ten seconds: nobody else is to blame.
#[test]
fn time_in_which_nobody_looked_is_not_held_against_anyone() {
    let mut lab = Lab::up();
    lab.seen.at += Duration::from_secs(10);
    lab.polling = vec![false; 2];
    lab.run(0.25, |_| {});
    lab.polling = vec![true; 2];
    lab.run(1.0, |_| {});
    assert!(lab.flips.is_empty(), "{:?}", lab.flips);
}

#[test]
fn each_cause_has_its_patience() {
    let second = 1000;
    let case = |name: &str,
                lab: &mut Lab,
                change: &mut dyn FnMut(&mut Observation),
                cause: Cause,
                least: u128,
                most: u128| {
        let before = lab.seen.at.as_millis();
        lab.run(8.0, change);
        let flip = lab.flips.iter().find(|flip| flip.1 == State::Failed);
        let (at, _, causes) = flip.unwrap_or_else(|| panic!("{name} does not fail")).clone();
        assert!(causes.contains(&cause), "{name}: {causes:?}");
        assert!((least..=most).contains(&(at - before)), "{name} after {} ms", at - before);
    };
    case("link", &mut Lab::up(), &mut |seen| seen.ports[0].link_up = false, Cause::LinkDown, 500, 1000);
    case(
        "reset",
        &mut Lab::up(),
        &mut |seen| seen.ports[0].reset = Some("reset".into()),
        Cause::DeviceReset,
        0,
        250,
    );
    case("ended", &mut Lab::up(), &mut |seen| seen.workers[0].ended = true, Cause::WorkerEnded, 0, 250);
    case("pool", &mut Lab::up(), &mut |seen| seen.pool_available = 0, Cause::PoolEmpty, 5 * second, 5250);
    case(
        "starved",
        &mut Lab::up(),
        &mut |seen| seen.ports[0].no_buffer += 3,
        Cause::PoolEmpty,
        5 * second,
        5250,
    );
    case("tx", &mut Lab::up(), &mut |seen| full(seen, 1, 1), Cause::TxStuck, second, 1250);
}

/// Drivers' counters are read once a second, and looked at four times.
#[test]
fn a_pool_is_empty_as_long_as_drivers_say_so_each_second() {
    let mut lab = Lab::up();
    lab.run(8.0, |seen| seen.ports[0].no_buffer += u64::from(seen.at.subsec_millis() == 0) * 9);
    assert_eq!((lab.state(), lab.health.status().reasons[0].cause), (State::Failed, Cause::PoolEmpty));
    // Every two seconds a few: lost, but not for want of a pool.
    let mut lab = Lab::up();
    lab.run(20.0, |seen| {
        let now = seen.at.subsec_millis() == 0 && seen.at.as_secs() % 2 == 0;
        seen.ports[0].no_buffer += u64::from(now) * 9;
    });
    assert_eq!(lab.flips.iter().map(|flip| flip.1).collect::<Vec<_>>(), [State::Degraded]);
}

/// A failed appliance gets no traffic, so a queue cannot show that it works again: some time later it is believed.
#[test]
fn a_queue_that_was_stuck_is_believed_later() {
    let mut lab = Lab::up();
    lab.run(2.0, |seen| full(seen, 1, 1));
    assert_eq!(lab.state(), State::Failed);
    lab.run(10.0, |_| {});
    assert_eq!(lab.state(), State::Failed);
    lab.run(20.0, |_| {});
    assert_eq!(lab.state(), State::Ready);
    // A trickle is enough to show that it is stuck.
    lab.run(12.0, |seen| full(seen, 1, u64::from(seen.at.subsec_millis() == 0)));
    assert_eq!(lab.state(), State::Failed);
}

/// Short of a failure it says so at once, and stays fit.
#[test]
fn an_empty_pool_degrades_before_it_fails() {
    let mut lab = Lab::up();
    lab.run(1.5, |seen| seen.pool_available = 0);
    assert_eq!((lab.state(), lab.flips[0].2.clone()), (State::Degraded, vec![Cause::PoolLow]));
    assert!(lab.state().is_fit() && lab.text().contains("the pool has no buffer"), "{}", lab.text());
    lab.run(1.0, |seen| seen.pool_available = 1);
    lab.run(4.0, |seen| seen.pool_available = 0);
    assert_eq!(lab.state(), State::Degraded, "not five seconds together");
}

#[test]
fn what_another_appliance_would_do_no_better_degrades_unless_told_otherwise() {
    type Change = fn(&mut Observation);
    let changes: [(Cause, Change); 3] = [
        (Cause::Overload, |seen| seen.ports[0].missed += 100),
        (Cause::StagePanics, |seen| seen.stage_panics += 1),
        (Cause::ReloadFailed, |seen| seen.reload_failed = Some("edge.toml:3".into())),
    ];
    for (cause, change) in changes {
        let mut lab = Lab::up();
        lab.run(5.0, change);
        assert_eq!(lab.flips.iter().map(|f| f.1).collect::<Vec<_>>(), [State::Degraded], "{cause:?}");
        assert_eq!(lab.health.status().reasons[0].cause, cause);
        lab.run(11.0, |seen| seen.reload_failed = None);
        assert_eq!(lab.state(), State::Ready);
        let mut lab = Lab::new(HealthPlan { fail_on: vec![cause], ..HealthPlan::default() });
        lab.run(1.0, |_| {});
        lab.run(1.0, change);
        assert_eq!(lab.state(), State::Failed, "{cause:?} in fail_on");
    }
    // One queue that is full now and then while frames go out is overload, not a stuck queue.
    let mut lab = Lab::up();
    lab.run(20.0, |seen| {
        full(seen, 0, 5);
        seen.workers[0].queues[1].sent += 1;
    });
    assert_eq!(lab.state(), State::Degraded);
    // One that takes nothing, beside another of the same worker that does.
    let mut lab = Lab::up();
    lab.run(2.0, |seen| {
        full(seen, 0, 5);
        seen.workers[0].queues[0].sent += 100;
    });
    assert_eq!(lab.state(), State::Failed);
    assert!(
        lab.text().starts_with("transmit queue 1 of port 0 (worker 0) has taken no frame for"),
        "{}",
        lab.text()
    );
}

/// The second queue of a worker does not take so many frames.
fn full(seen: &mut Observation, worker: usize, frames: u64) {
    seen.workers[worker].tx_full += frames;
    seen.workers[worker].queues[1].tx_full += frames;
}

#[test]
fn draining_is_at_once_and_a_failure_is_worse() {
    let mut lab = Lab::up();
    lab.run(0.25, |seen| seen.draining = Some("the appliance is leaving".into()));
    assert_eq!((lab.state(), lab.state().is_fit()), (State::Draining, false));
    assert_eq!(lab.text(), "the appliance is leaving");
    lab.polling[0] = false;
    lab.run(2.0, |_| {});
    assert_eq!(lab.state(), State::Failed);
    assert_eq!(
        lab.health.status().reasons.iter().map(|r| r.cause).collect::<Vec<_>>(),
        [Cause::WorkerStuck, Cause::Draining]
    );
    lab.polling[0] = true;
    lab.run(11.0, |_| {});
    assert_eq!(lab.state(), State::Draining);
}

#[test]
fn a_link_that_flaps_does_not_make_the_state_flap() {
    let mut lab = Lab::up();
    for round in 0..20 {
        lab.run(2.0, |seen| seen.ports[0].link_up = round % 2 == 1);
    }
    assert_eq!(lab.flips.len(), 1, "{:?}", lab.flips);
    lab.run(11.0, |seen| seen.ports[0].link_up = true);
    assert_eq!((lab.state(), lab.flips.len()), (State::Ready, 2));
}

proptest! {
    /// Whatever is seen, in whatever order: a failing cause in force is never called fit, the state never gets better sooner than the plan
    /// says, and every state but ready has a reason.
    #[test]
    fn it_never_calls_fit_what_is_not(
        steps in proptest::collection::vec((0u8..8, any::<bool>(), 0u64..2000), 1..200),
    ) {
        let mut lab = Lab::new(HealthPlan::default());
        let mut bad_at: Option<Duration> = None;
        for (what, on, millis) in steps {
            match what {
                0 => lab.polling[0] = on,
                1 => lab.seen.ports[0].link_up = on,
                2 => lab.seen.pool_available = u32::from(on),
                3 => lab.seen.draining = on.then(|| "leaving".into()),
                4 => lab.seen.reload_failed = on.then(|| "wrong".into()),
                5 => lab.seen.stage_panics += 1,
                _ => {}
            }
            lab.seen.at += Duration::from_millis(millis);
            lab.run(0.25, |_| {});
            let status = lab.health.status();
            let failing = status.reasons.iter().any(|r| r.cause.fails()) && !status.recovering;
            if failing {
                prop_assert!(!status.state.is_fit(), "{:?}", status);
            }
            if status.state.is_fit() && let Some(bad) = bad_at {
                prop_assert!(lab.seen.at - bad >= Duration::from_secs(10), "fit again after {:?}", lab.seen.at - bad);
            }
            if failing && status.state == State::Failed {
                bad_at = Some(lab.seen.at);
            }
            prop_assert!(status.state != State::Failed || !status.reasons.is_empty());
            prop_assert!(status.state != State::Ready || status.reasons.is_empty(), "{:?}", status);
        }
    }
}
