//! `sluicegate run`: packets, until somebody says stop.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use clap::Args;
use signal_hook::consts::SIGHUP;
use signal_hook::flag;

use super::interrupt::Interrupt;
use super::{ConfigArgs, FAILED, Failure, OK, Outcome, show};
use crate::App;
use crate::app::RunningApp;

/// Longest time between looks at workers and ports, also where figures are printed rarely or never.
const LOOK: Duration = Duration::from_secs(1);

/// Run a pipeline on its ports.
#[derive(Debug, Args)]
pub struct Run {
    #[command(flatten)]
    config: ConfigArgs,
    /// Stop by itself after so long, e.g. 30s
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
    /// How often to print figures, e.g. 1s; 0s for never
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "1s")]
    stats_interval: Duration,
    /// Everything as JSON, one object a line
    #[arg(long)]
    json: bool,
}

impl Run {
    pub(super) fn run(self) -> Outcome {
        // First, since rule sets may take seconds to read.
        let interrupt = Interrupt::install().map_err(|e| Failure::Other(format!("signals: {e}")))?;
        let plan = self.config.plan(true)?;
        show::warnings(&plan.warnings);
        let reopen = Arc::<AtomicBool>::default();
        if !plan.events.sinks.is_empty() {
            // As logrotate and its like ask for it. Without sinks the signal means what it always does.
            flag::register(SIGHUP, reopen.clone()).map_err(|e| Failure::Other(format!("signals: {e}")))?;
        }
        let app = start(App::new(plan).with_reopen(reopen))?;
        show::started(&app, self.json);
        let begin = Instant::now();
        let end = self.duration.and_then(|d| begin.checked_add(d));
        let mut before = app.snapshot();
        let mut next = begin.checked_add(self.stats_interval).filter(|_| !self.stats_interval.is_zero());
        loop {
            let look = Some(Instant::now() + LOOK);
            let until = [next, end, look].into_iter().flatten().min().unwrap_or(begin);
            let asked = interrupt.wait_until(until);
            show::events(&app.events(), self.json);
            show::warnings(app.tick().err());
            if asked || app.worker_ended() || end.is_some_and(|e| e <= Instant::now()) {
                break;
            }
            if let Some(moment) = next.filter(|m| *m <= Instant::now()) {
                let now = app.snapshot();
                show::interval(&before, &now, self.json);
                before = now;
                next = moment.checked_add(self.stats_interval);
            }
        }
        let report = app.stop();
        show::report(&report, self.json);
        Ok(if report.is_clean() { OK } else { FAILED })
    }
}

#[cfg(feature = "dpdk")]
fn start(app: App) -> Result<RunningApp, Failure> {
    Ok(app.start()?)
}

#[cfg(not(feature = "dpdk"))]
fn start(_app: App) -> Result<RunningApp, Failure> {
    Err(Failure::Other(
        "built without DPDK: real ports need the feature `dpdk`; `replay` works without".into(),
    ))
}
