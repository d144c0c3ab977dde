//! A device that asks for a reset gets one, while the program runs.
//!
//! ```text
//!  AtWork --the device asks--> Calling --all lanes are here--> Working --it runs--> Dealing --all lanes are there--> AtWork
//!                              (letters to workers)            (a thread)  |  ^     (letters to workers)
//!                                                                          v  |later
//!                                                                        Waiting
//! ```
//!
//! Each worker that polls the port lends its lanes ([`crate::path::lend`]) and goes on with its others; flows, counters and stages stay where they
//! are. With all queue handles in hand (S5) the port is stopped, reset and started with the configuration that it had: key, table, MTU and the rest
//! are applied again. Then each worker gets the queues of the numbers that it had.
//!
//! The loop waits for nothing. Drivers may take long: ENA's reset takes the whole device down and brings it up again, which is
//! a good part of a second if all goes well and several if the device does not answer; so that is done on a thread, away from the workers' CPUs, and the
//! main lcore answers for the other ports and looks at the heartbeats meanwhile. A worker that hangs keeps its lanes; it is named after two seconds, and the
//! reset goes on when it lives again. What fails is tried again, at growing intervals; so is a reset that did not help for long.

mod letters;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{Builder, JoinHandle, sleep};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::Launched;
use super::ports::{AppPort, Held, Last};
use crate::config::Plan;
use crate::dpdk::{self, Mempool, Port, PortConfig, QueuePair, StopError};
use crate::path::LendEnd;
use letters::{Letters, queues_of};

/// From an attempt that failed to the next: it doubles each time, up to the longest.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);
/// A port that ran so long is well again: its next reset comes at once.
const CALM: Duration = Duration::from_secs(60);

/// What resets see of the application.
pub(super) struct Around<'a> {
    pub workers: &'a [Launched],
    pub plan: &'a Plan,
    pub pool: &'a Mempool,
    pub cpus: &'a [u32],
}

/// Resets of all ports.
#[derive(Debug, Default)]
pub(super) struct PortResets {
    /// In the order of the workers.
    ends: Vec<LendEnd>,
    /// In the order of the ports.
    ports: Vec<OfPort>,
}

#[derive(Debug, Default)]
struct OfPort {
    phase: Phase,
    /// When it began to be wanted.
    since: Option<Instant>,
    /// Attempts since the port was well.
    tries: u32,
    /// When the last one ended.
    ended: Option<Instant>,
    /// Why it failed.
    why: Option<String>,
    /// Queue pairs that no worker has.
    lanes: Vec<QueuePair>,
}

#[derive(Debug, Default)]
enum Phase {
    /// Its lanes are with the workers.
    #[default]
    AtWork,
    /// Workers are asked for them.
    Calling(Letters),
    /// It is stopped, reset and started.
    Working(JoinHandle<Tried>),
    /// That failed.
    Waiting(Instant),
    /// Workers are given the new ones.
    Dealing(Letters),
    /// The thread panicked, and the port with it.
    Lost,
}

/// What came of an attempt.
#[derive(Debug)]
struct Tried {
    held: Held,
    lanes: Vec<QueuePair>,
    /// If it was running.
    last: Option<Last>,
    /// Was it a reset of the driver's? Or why there was none.
    came: Result<bool, String>,
}

impl PortResets {
    /// For these workers and so many ports.
    pub fn new(ends: Vec<LendEnd>, ports: usize) -> Self {
        PortResets { ends, ports: (0..ports).map(|_| OfPort::default()).collect() }
    }

    /// One round, without waiting. Says what happened, one sentence each.
    pub fn round(&mut self, ports: &mut [AppPort], around: &Around<'_>) -> Vec<String> {
        let PortResets { ends, ports: own } = self;
        let mut said = Vec::new();
        for (own, port) in own.iter_mut().zip(ports) {
            // Mostly there is nothing to do.
            if !matches!(own.phase, Phase::AtWork) || port.wanted.load(Ordering::Relaxed) {
                own.round(port, ends, around, &mut said);
            }
        }
        said
    }

    /// What is wrong with each port, for whoever asks about health.
    pub fn reasons(&self, ports: &[AppPort], around: &Around<'_>) -> Vec<Option<String>> {
        self.ports.iter().zip(ports).map(|(own, port)| own.reason(port, around)).collect()
    }

    /// The workers have ended. Waits for what is under way, but not longer than that, and gives back all lanes that were in no worker's hands.
    pub fn finish(
        &mut self,
        ports: &mut [AppPort],
        deadline: Instant,
        failures: &mut Vec<String>,
    ) -> Vec<QueuePair> {
        let mut lanes: Vec<QueuePair> =
            self.ends.iter_mut().filter_map(LendEnd::take_back).flatten().collect();
        for (own, port) in self.ports.iter_mut().zip(ports) {
            if let Phase::Working(thread) = std::mem::take(&mut own.phase) {
                while !thread.is_finished() && Instant::now() < deadline {
                    sleep(Duration::from_millis(1));
                }
                match thread.is_finished().then(|| thread.join()) {
                    Some(Ok(tried)) => own.take(tried, port),
                    Some(Err(_)) => failures.push(format!("{}: its reset panicked", port.name())),
                    None => {
                        failures.push(format!("{}: its reset has not ended; it is left there", port.name()))
                    }
                }
            }
            lanes.append(&mut own.lanes);
        }
        lanes
    }
}

impl OfPort {
    fn round(
        &mut self,
        port: &mut AppPort,
        ends: &mut [LendEnd],
        around: &Around<'_>,
        said: &mut Vec<String>,
    ) {
        let now = Instant::now();
        self.phase = match std::mem::take(&mut self.phase) {
            Phase::AtWork => {
                self.since.get_or_insert(now);
                if self.ended.is_some_and(|ended| now - ended > CALM) {
                    self.tries = 0;
                }
                match self.ended {
                    Some(ended) if now < ended + pause(self.tries) => Phase::AtWork,
                    _ => Phase::Calling(Letters::to(port, around.workers)),
                }
            }
            Phase::Calling(mut letters) => {
                let away = |worker: &Launched| {
                    queues_of(worker, port.facts().id)
                        .map(|queue| QueuePair::away(port.facts().id, queue))
                        .collect()
                };
                letters.round(ends, around.workers, away, &mut self.lanes);
                match letters.is_over() {
                    true => self.try_it(port, around),
                    false => {
                        said.extend(letters.late(now).then(|| {
                            format!("{}: its reset waits for {}", port.name(), letters.whom(around))
                        }));
                        Phase::Calling(letters)
                    }
                }
            }
            Phase::Working(thread) if !thread.is_finished() => Phase::Working(thread),
            Phase::Working(thread) => match thread.join() {
                Ok(tried) => {
                    let before = port.facts().clone();
                    let came = tried.came.clone();
                    self.take(tried, port);
                    (self.tries, self.ended) = (self.tries.saturating_add(1), Some(now));
                    match came {
                        Ok(by_driver) => {
                            if !by_driver {
                                said.push(format!(
                                    "{}: its driver has no reset; it was stopped and started",
                                    port.name()
                                ));
                            }
                            said.extend(changes(&before, port));
                            self.why = None;
                            Phase::Dealing(Letters::to(port, around.workers))
                        }
                        Err(why) => {
                            let pause = pause(self.tries);
                            port.resets.failed += 1;
                            said.push(format!(
                                "{}: attempt {} to reset it failed: {why}; the next one is in {} s",
                                port.name(),
                                self.tries,
                                pause.as_secs()
                            ));
                            self.why = Some(why);
                            Phase::Waiting(now + pause)
                        }
                    }
                }
                Err(_) => {
                    port.resets.failed += 1;
                    said.push(format!(
                        "{}: its reset panicked, and the port is lost; restart sluicegate",
                        port.name()
                    ));
                    Phase::Lost
                }
            },
            Phase::Waiting(until) if now < until => Phase::Waiting(until),
            Phase::Waiting(_) => self.try_it(port, around),
            Phase::Dealing(mut letters) => {
                let (id, lanes) = (port.facts().id, &mut self.lanes);
                let mut stand_ins = Vec::new();
                let own = |worker: &Launched| {
                    let queues: Vec<u16> = queues_of(worker, id).collect();
                    lanes.extract_if(.., |pair| queues.contains(&pair.queue)).collect()
                };
                letters.round(ends, around.workers, own, &mut stand_ins);
                match letters.is_over() {
                    true => {
                        port.resets.done += 1;
                        let time =
                            self.since.take().map_or(Duration::ZERO, |since| now - since).as_secs_f64();
                        said.push(format!(
                            "{}: reset and started again, {time:.1} s after it was noticed; its queues are with their workers, flows are as they were",
                            port.name()
                        ));
                        Phase::AtWork
                    }
                    false => {
                        said.extend(letters.late(now).then(|| {
                            format!("{}: it was reset, and waits for {}", port.name(), letters.whom(around))
                        }));
                        Phase::Dealing(letters)
                    }
                }
            }
            Phase::Lost => Phase::Lost,
        };
    }

    /// Begins an attempt, on a thread of its own.
    fn try_it(&mut self, port: &mut AppPort, around: &Around<'_>) -> Phase {
        let held = std::mem::replace(&mut port.held, Held::Away);
        let lanes = std::mem::take(&mut self.lanes);
        let (config, queues) = (port.config.clone(), port.facts().queues);
        let (pool, cpus) = (around.pool.clone(), around.cpus.to_vec());
        // If there is no thread to be had, the port must not be gone with it.
        let waiting = Arc::new(Mutex::new(Some((held, lanes))));
        let taken = waiting.clone();
        let work = move || {
            dpdk::run_on(&cpus);
            let (held, lanes) = taken.lock().take().unwrap_or((Held::Away, Vec::new()));
            attempt(held, lanes, &config, queues, &pool)
        };
        match Builder::new().name("port-reset".into()).spawn(work) {
            Ok(thread) => Phase::Working(thread),
            Err(error) => {
                if let Some((held, lanes)) = waiting.lock().take() {
                    (port.held, self.lanes) = (held, lanes);
                }
                self.why = Some(format!("no thread: {error}"));
                Phase::Waiting(Instant::now() + FIRST)
            }
        }
    }

    /// The port is here again, in whatever state.
    fn take(&mut self, tried: Tried, port: &mut AppPort) {
        self.lanes.extend(tried.lanes);
        if let Some(last) = tried.last {
            port.counted(last);
        }
        match tried.held {
            Held::Running(running) if tried.came.is_ok() => {
                port.wanted.store(false, Ordering::Relaxed);
                port.restarted(running);
            }
            held => port.held = held,
        }
    }

    fn reason(&self, port: &AppPort, around: &Around<'_>) -> Option<String> {
        if matches!(self.phase, Phase::AtWork) && !port.wanted.load(Ordering::Relaxed) {
            return None;
        }
        let id = port.facts().id;
        let asks = format!("the device of port {id} asks for a reset and passes nothing until then");
        Some(match &self.phase {
            Phase::Calling(letters) if letters.named => {
                format!("{asks}, which waits for {}", letters.whom(around))
            }
            Phase::AtWork | Phase::Calling(_) => asks,
            Phase::Working(_) => match &self.why {
                None => format!("port {id} is being reset"),
                Some(why) => format!("port {id} is being reset; the last attempt failed: {why}"),
            },
            Phase::Waiting(_) => {
                let why = self.why.as_deref().unwrap_or_default();
                format!(
                    "port {id} could not be reset, and passes nothing: {why}; attempt {} follows",
                    self.tries + 1
                )
            }
            Phase::Dealing(letters) => match letters.named {
                false => format!("port {id} has been reset, and its queues go to their workers"),
                true => format!("port {id} has been reset, and waits for {}", letters.whom(around)),
            },
            Phase::Lost => format!("port {id} was lost in its reset"),
        })
    }
}

/// How long to wait after so many attempts.
fn pause(tries: u32) -> Duration {
    match tries.checked_sub(1) {
        None => Duration::ZERO,
        Some(doublings) => FIRST.saturating_mul(1 << doublings.min(16)).min(LONGEST),
    }
}

/// What is another than it was, one sentence each.
fn changes(before: &dpdk::PortFacts, port: &AppPort) -> Vec<String> {
    let (name, now) = (port.name(), port.facts());
    let mut said: Vec<String> = now
        .notes
        .iter()
        .filter(|note| !before.notes.contains(note))
        .map(|note| format!("{name}: {note}"))
        .collect();
    if before.mtu != now.mtu {
        said.push(format!("{name}: its MTU was {} and is {} after the reset", before.mtu, now.mtu));
    }
    if before.mac != now.mac {
        said.push(format!("{name}: its MAC address is another one after the reset; restart sluicegate if it has an address of its own"));
    }
    if before.rss != now.rss {
        said.push(format!("{name}: its RSS is another one after the reset"));
    }
    said
}

/// Stops the port if it runs, resets and starts it. Whatever happens, the port and its lanes are in what comes back.
fn attempt(held: Held, lanes: Vec<QueuePair>, config: &PortConfig, queues: u16, pool: &Mempool) -> Tried {
    let last = match &held {
        Held::Running(port) => Some(Last::of(port)),
        Held::Stopped(_) | Held::Away => None,
    };
    let (held, lanes, came) = match stop(held, lanes) {
        Ok(port) => start(port, config, queues, pool),
        Err(refused) => {
            let (held, lanes, why) = *refused;
            (held, lanes, Err(why))
        }
    };
    Tried { held, lanes, last, came }
}

fn stop(held: Held, lanes: Vec<QueuePair>) -> Result<Port, Box<(Held, Vec<QueuePair>, String)>> {
    match held {
        Held::Stopped(port) => Ok(port),
        Held::Away => Err(Box::new((Held::Away, lanes, "nobody has the port".into()))),
        Held::Running(port) => port.stop(lanes).map_err(|refused| {
            let StopError { port, queues, error } = *refused;
            Box::new((Held::Running(port), queues, error.to_string()))
        }),
    }
}

fn start(
    mut port: Port,
    config: &PortConfig,
    queues: u16,
    pool: &Mempool,
) -> (Held, Vec<QueuePair>, Result<bool, String>) {
    let by_driver = match port.reset() {
        Ok(by_driver) => by_driver,
        Err(error) => return (Held::Stopped(port), Vec::new(), Err(error.to_string())),
    };
    match port.try_start(config, pool) {
        Ok((port, lanes)) if port.facts().queues == queues => (Held::Running(port), lanes, Ok(by_driver)),
        Ok((port, lanes)) => {
            let why = format!("it has {} queue pairs now, and had {queues}", port.facts().queues);
            match stop(Held::Running(port), lanes) {
                Ok(port) => (Held::Stopped(port), Vec::new(), Err(why)),
                Err(refused) => (refused.0, refused.1, Err(why)),
            }
        }
        Err(refused) => (Held::Stopped(refused.port), Vec::new(), Err(refused.error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_come_ever_later_up_to_a_minute() {
        let seconds: Vec<u64> = (0..10).map(|tries| pause(tries).as_secs()).collect();
        assert_eq!(seconds, [0, 1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(pause(u32::MAX), LONGEST);
    }
}
