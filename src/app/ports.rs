//! A port of a running application. It runs, or it is between a stop and the next start ([`super::reset`]); what was known of it stays known, and its
//! counters go on.

use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use serde::Serialize;

use crate::dpdk::{LinkStatus, Port, PortConfig, PortEvents, PortFacts, PortStats, RunningPort};

/// What ENA calls the counters of its allowances, behind which of them it is.
const ALLOWANCE: &str = "_allowance_exceeded";

/// Resets of a port, by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Resets {
    /// It ran again, and its queues were back with the workers.
    pub done: u64,
    /// Attempts after which it did not run.
    pub failed: u64,
}

/// Where the port is.
#[derive(Debug)]
pub(super) enum Held {
    Running(RunningPort),
    Stopped(Port),
    /// A thread has it.
    Away,
}

/// A port of an application.
#[derive(Debug)]
pub struct AppPort {
    /// As it was started last.
    facts: PortFacts,
    pub(super) config: PortConfig,
    pub(super) held: Held,
    /// Its device has asked for a reset.
    pub(super) wanted: AtomicBool,
    pub(super) resets: Resets,
    counted: Mutex<Counted>,
}

#[derive(Debug, Default)]
struct Counted {
    stats: [Tally; 8],
    /// Those of the driver's own counters that are published as counters, by name.
    allowances: Vec<(String, Tally)>,
}

impl AppPort {
    pub(super) fn new(port: RunningPort, config: PortConfig) -> Self {
        AppPort {
            facts: port.facts().clone(),
            config,
            held: Held::Running(port),
            wanted: AtomicBool::new(false),
            resets: Resets::default(),
            counted: Mutex::default(),
        }
    }

    /// What is in effect, or was when it ran last.
    pub fn facts(&self) -> &PortFacts {
        &self.facts
    }

    /// The driver's counters since the application began: after a reset they go on where they were.
    pub fn stats(&self) -> PortStats {
        self.counted.lock().stats(self.running().and_then(RunningPort::try_stats))
    }

    /// The driver's own counters by name; empty while it does not run. They begin anew with the device, but for those of allowances,
    /// which go on.
    pub fn xstats(&self) -> Vec<(String, u64)> {
        let named = self.running().map(RunningPort::xstats).unwrap_or_default();
        self.counted.lock().xstats(named)
    }

    /// The link, without waiting for it; down while the port does not run.
    pub fn link(&self) -> LinkStatus {
        self.running().map_or(LinkStatus { up: false, speed_mbps: None }, RunningPort::link)
    }

    /// How often it was reset.
    pub fn resets(&self) -> Resets {
        self.resets
    }

    /// Its name in sentences.
    pub(super) fn name(&self) -> String {
        format!("port {} ({})", self.facts.id, self.facts.device)
    }

    /// What its interrupts have said; asking clears it.
    pub(super) fn events(&self) -> PortEvents {
        self.running().map(RunningPort::events).unwrap_or_default()
    }

    pub(super) fn running(&self) -> Option<&RunningPort> {
        match &self.held {
            Held::Running(port) => Some(port),
            Held::Stopped(_) | Held::Away => None,
        }
    }

    /// Somebody wants it to be reset.
    pub(super) fn want_reset(&self) {
        self.wanted.store(true, Ordering::Relaxed);
    }

    /// The port, if it runs.
    pub(super) fn into_running(self) -> Option<RunningPort> {
        match self.held {
            Held::Running(port) => Some(port),
            Held::Stopped(_) | Held::Away => None,
        }
    }

    /// What its driver counted up to the end of a life.
    pub(super) fn counted(&mut self, last: Last) {
        let counted = self.counted.get_mut();
        counted.stats(last.stats);
        counted.xstats(last.xstats);
    }

    /// It has been started again.
    pub(super) fn restarted(&mut self, port: RunningPort) {
        self.facts = port.facts().clone();
        self.held = Held::Running(port);
        let Counted { stats, allowances } = self.counted.get_mut();
        stats.iter_mut().chain(allowances.iter_mut().map(|(_, tally)| tally)).for_each(Tally::restart);
        // The sooner a driver is asked, the surer it is whether it has forgotten.
        self.stats();
        self.xstats();
    }
}

/// What a driver counted, as it was when nobody polled its port any more.
#[derive(Debug)]
pub(super) struct Last {
    stats: Option<PortStats>,
    xstats: Vec<(String, u64)>,
}

impl Last {
    pub fn of(port: &RunningPort) -> Self {
        Last { stats: port.try_stats(), xstats: port.xstats() }
    }
}

impl Counted {
    /// Takes in what the driver says, if it says anything, and tells what that comes to.
    fn stats(&mut self, now: Option<PortStats>) -> PortStats {
        for (tally, n) in self.stats.iter_mut().zip(now.map(numbers).into_iter().flatten()) {
            tally.see(n);
        }
        stats(self.stats.map(|tally| tally.value()))
    }

    /// The same for what has a name.
    fn xstats(&mut self, mut named: Vec<(String, u64)>) -> Vec<(String, u64)> {
        for (name, n) in named.iter_mut().filter(|(name, _)| name.ends_with(ALLOWANCE)) {
            let known = self.allowances.iter().position(|(known, _)| known == name);
            let place = known.unwrap_or_else(|| {
                self.allowances.push((name.clone(), Tally::default()));
                self.allowances.len() - 1
            });
            if let Some((_, tally)) = self.allowances.get_mut(place) {
                tally.see(*n);
                *n = tally.value();
            }
        }
        named
    }
}

/// A counter of a driver that goes on over restarts of its port. Most drivers count from zero then, some go on, and some cannot tell while
/// their device is in trouble; in no case does the sum fall.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    /// What was counted before the driver forgot.
    before: u64,
    /// What it said last, or the most of it.
    last: u64,
    /// It has said nothing since a restart.
    fresh: bool,
}

impl Tally {
    /// The driver says so.
    fn see(&mut self, n: u64) {
        if self.fresh && n < self.last {
            self.before += self.last;
            self.last = 0;
        }
        self.fresh = false;
        self.last = self.last.max(n);
    }

    fn restart(&mut self) {
        self.fresh = true;
    }

    fn value(&self) -> u64 {
        self.before + self.last
    }
}

fn numbers(stats: PortStats) -> [u64; 8] {
    let PortStats {
        rx_packets,
        tx_packets,
        rx_bytes,
        tx_bytes,
        rx_missed,
        rx_no_buffer,
        rx_errors,
        tx_errors,
    } = stats;
    [rx_packets, tx_packets, rx_bytes, tx_bytes, rx_missed, rx_no_buffer, rx_errors, tx_errors]
}

fn stats(numbers: [u64; 8]) -> PortStats {
    let [rx_packets, tx_packets, rx_bytes, tx_bytes, rx_missed, rx_no_buffer, rx_errors, tx_errors] = numbers;
    PortStats { rx_packets, tx_packets, rx_bytes, tx_bytes, rx_missed, rx_no_buffer, rx_errors, tx_errors }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(tally: &mut Tally, n: u64) -> u64 {
        tally.see(n);
        tally.value()
    }

    #[test]
    fn a_counter_goes_on_whatever_its_driver_does_at_a_restart() {
        let mut forgets = Tally::default();
        assert_eq!(says(&mut forgets, 40), 40);
        forgets.restart();
        assert_eq!(forgets.value(), 40, "it cannot tell yet");
        assert_eq!((says(&mut forgets, 0), says(&mut forgets, 7)), (40, 47));
        forgets.restart();
        assert_eq!((says(&mut forgets, 1), says(&mut forgets, 50)), (48, 97));

        let mut goes_on = Tally::default();
        goes_on.see(40);
        goes_on.restart();
        assert_eq!((says(&mut goes_on, 41), says(&mut goes_on, 42)), (41, 42));
    }

    #[test]
    fn allowances_go_on_and_the_rest_begins_anew() {
        let named = |n| vec![("pps_allowance_exceeded".to_owned(), n), ("rx_q0_packets".to_owned(), n)];
        let values = |counted: &mut Counted, n| {
            counted.xstats(named(n)).into_iter().map(|(_, n)| n).collect::<Vec<_>>()
        };
        let mut counted = Counted::default();
        assert_eq!(values(&mut counted, 9), [9, 9]);
        counted.allowances[0].1.restart();
        assert_eq!(values(&mut counted, 1), [10, 1]);
        assert!(counted.xstats(Vec::new()).is_empty());
        assert_eq!(values(&mut counted, 2), [11, 2]);
    }

    #[test]
    fn a_counter_never_falls() {
        let mut tally = Tally::default();
        tally.see(40);
        assert_eq!(says(&mut tally, 3), 40, "no restart: the driver is in trouble");
        assert_eq!(says(&mut tally, 41), 41);
        let all = [1, 2, 3, 4, 5, 6, 7, 8];
        assert_eq!(numbers(stats(all)), all);
    }
}
