//! `sluicegate gateway FILE`: frames to appliances and back, until somebody says stop.

use std::time::{Duration, Instant};

use super::{Gateway, plan};
use crate::app::{GatewayApp, RunningGateway};
use crate::cli::interrupt::Interrupt;
use crate::cli::run::{Said, printer};
use crate::cli::{FAILED, Failure, OK, Outcome, show};
use crate::mgmt::log;

/// Rest between two rounds.
const REST: Duration = Duration::from_millis(1);

impl Gateway {
    pub(super) fn forward(self) -> Outcome {
        let interrupt = Interrupt::install().map_err(|e| Failure::Other(format!("signals: {e}")))?;
        log::start(log::To::default(), log::Form::default()).map_err(Failure::Other)?;
        let plan = plan(&self.file.clone().unwrap_or_default(), &self.set)?;
        show::warnings(&plan.warnings);
        let gateway = GatewayApp::new(plan).start()?;
        show::gateway_started(&gateway, self.json);
        let (printer, printing) = printer(self.json)?;
        let gateway = self.manage(gateway, &interrupt, &printer);
        drop(printer);
        let _ = printing.join(); // it has nothing to say but what it has printed
        let report = gateway.stop();
        show::report(&report, self.json);
        Ok(if report.is_clean() { OK } else { FAILED })
    }

    /// Rounds of the management side, until it is time to stop.
    fn manage(
        &self,
        mut gateway: RunningGateway,
        interrupt: &Interrupt,
        printer: &std::sync::mpsc::SyncSender<Said>,
    ) -> RunningGateway {
        let begin = Instant::now();
        let end = self.duration.and_then(|duration| begin.checked_add(duration));
        let mut before = gateway.snapshot();
        let mut next = begin.checked_add(self.stats_interval).filter(|_| !self.stats_interval.is_zero());
        loop {
            let said = gateway.manage();
            if !said.is_empty() {
                // A reader that is too slow loses lines; nobody waits for him.
                let _ = printer.try_send(Said::Port(said));
            }
            let now = Instant::now();
            if interrupt.asked() || gateway.worker_ended() || end.is_some_and(|end| end <= now) {
                return gateway;
            }
            if let Some(moment) = next.filter(|moment| *moment <= now) {
                let snapshot = gateway.snapshot();
                let _ = printer.try_send(Said::Interval(Box::new((before, snapshot.clone()))));
                before = snapshot;
                next = moment.checked_add(self.stats_interval).map(|moment| moment.max(now));
            }
            std::thread::sleep(REST);
        }
    }
}
