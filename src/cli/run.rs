//! `sluicegate run`: packets, until somebody says stop.
//!
//! The main thread manages: it answers for the ports, and must not wait. So what is printed goes to a thread of its own, which may.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use clap::Args;
use sd_notify::NotifyState;
use signal_hook::consts::{SIGHUP, SIGUSR1, SIGUSR2};
use signal_hook::flag;

use super::interrupt::{Interrupt, Signal};
use super::{ConfigArgs, FAILED, Failure, OK, Outcome, show};
use crate::App;
use crate::app::{Reloaded, RunningApp, Snapshot};
use crate::config::{self, Machine, Options, Overrides, Plan, Problem};
use crate::mgmt::control::{Asked, Command};
use crate::mgmt::{Draining, Flip, log, privileges};

/// Rest between two rounds in which there was nothing to do: a check that comes meanwhile waits that long.
const REST: Duration = Duration::from_micros(500);
/// How long a program that is drained stays, so that whoever asked for it sees how it went.
const LINGER: Duration = Duration::from_secs(1);
/// A deadline of a drain, at most.
const LONGEST_DRAIN: Duration = Duration::from_secs(86_400);
/// Lines that wait for a slow reader; more are not printed.
const LINES: usize = 64;

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
    /// Keep all capabilities and system calls after the start: for tools that start programs from within, and to see whether that is the trouble
    #[arg(long)]
    keep_privileges: bool,
    /// Everything on standard output as JSON, one object a line
    #[arg(long)]
    json: bool,
    /// Where to log
    #[arg(long, value_enum, default_value_t)]
    log: log::To,
    /// What lines on standard error look like
    #[arg(long, value_enum, default_value_t)]
    log_format: log::Form,
    /// How much: error, warn, info, debug, trace. SIGUSR1 is one more, SIGUSR2 one less
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log_level: String,
}

impl Run {
    pub(super) fn run(self) -> Outcome {
        // First, since rule sets may take seconds to read.
        let interrupt = Interrupt::install().map_err(|e| Failure::Other(format!("signals: {e}")))?;
        if !log::set_level(&self.log_level) {
            let text = format!("--log-level {}: write error, warn, info, debug or trace", self.log_level);
            return Err(Failure::Other(text));
        }
        log::start(self.log, self.log_format).map_err(Failure::Other)?;
        let mut renewal = Renewal::of(&self.config);
        let plan = renewal.source.load()?;
        plan.warnings.iter().for_each(|text| tracing::warn!(target: "config", "{text}"));
        // As logrotate and its like ask for it, and as a person does who has edited the file.
        let reopen = Arc::<AtomicBool>::default();
        for flag in [&reopen, &renewal.hangup] {
            flag::register(SIGHUP, flag.clone()).map_err(|e| Failure::Other(format!("signals: {e}")))?;
        }
        let verbosity = Verbosity::install().map_err(|e| Failure::Other(format!("signals: {e}")))?;
        let mut app = App::new(plan).with_reopen(reopen);
        if let Some(note) = app.open_admin()? {
            tracing::warn!(target: "admin", "{note}");
        }
        let app = start(app)?;
        show::started(&app, self.json);
        let (printer, printing) = printer(self.json)?;
        if !self.keep_privileges {
            let confined = privileges::confine(app.plan()).map_err(|error| {
                Failure::Other(format!("{error}; --keep-privileges runs with what it was started with"))
            })?;
            let (threads, kept) = (confined.threads, confined.kept.join(" "));
            tracing::info!(target: "privileges", threads, kept, "given up");
            if let Err(why) = &confined.refused {
                tracing::warn!(target: "privileges", "system calls are not filtered: {why}");
            }
        }
        let app = self.manage(app, (&interrupt, &verbosity), &mut renewal, &printer);
        // Before what may take its time: a worker that hangs is waited for, and systemd counts from its last sign of life.
        notify(&[NotifyState::Stopping]);
        notify(&[NotifyState::Watchdog]);
        let report = app.stop();
        drop(renewal);
        drop(printer);
        let _ = printing.join(); // it has nothing to say but what it has printed
        show::report(&report, self.json);
        Ok(if report.is_clean() { OK } else { FAILED })
    }

    /// Rounds of the management side, until it is time to stop.
    fn manage(
        &self,
        mut app: RunningApp,
        (interrupt, verbosity): (&Interrupt, &Verbosity),
        renewal: &mut Renewal,
        printer: &SyncSender<Said>,
    ) -> RunningApp {
        let begin = Instant::now();
        let end = self.duration.and_then(|d| begin.checked_add(d));
        let mut before = app.snapshot();
        let mut next = begin.checked_add(self.stats_interval).filter(|_| !self.stats_interval.is_zero());
        // Half of the time after which systemd would take us for dead.
        let watchdog = sd_notify::watchdog_enabled().map(|time| time / 2);
        let mut next_watchdog = watchdog.map(|_| begin);
        let mut ready = false;
        let mut draining = false;
        let mut drained: Option<Instant> = None;
        // A reader that is too slow loses lines; nobody waits for him.
        let say = |said| match printer.try_send(said) {
            Ok(()) | Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {}
        };
        loop {
            let round = app.manage();
            if !round.said.is_empty() {
                say(Said::Port(round.said));
            }
            if let Some(flip) = round.flip {
                say(Said::Health(flip));
            }
            if let Some(drain) = round.draining.filter(|_| drained.is_none()) {
                say(Said::Drain(drain));
                if drain.is_over() && !renewal.drains {
                    return app;
                }
                drained = drain.is_over().then(Instant::now);
            }
            if drained.is_some_and(|when| when.elapsed() >= LINGER) {
                return app;
            }
            if let Some(level) = verbosity.take() {
                say(Said::Level(level));
            }
            if let Some(asked) = renewal.look(&mut app) {
                say(Said::Asked(asked));
                notify(&[NotifyState::Status("draining")]);
            }
            if let Some(reloaded) = round.reloaded {
                renewal.answer(&reloaded);
                say(Said::Reload(Box::new(reloaded)));
            }
            if !ready && app.health().is_some_and(|status| status.state.is_fit()) {
                ready = true;
                notify(&[NotifyState::Ready]);
            }
            match interrupt.take() {
                Some(Signal::Terminate) if app.plan().management.drain.on_sigterm && !draining => {
                    draining = true;
                    interrupt.once_more();
                    notify(&[NotifyState::Stopping, NotifyState::Status("draining")]);
                    app.drain();
                }
                Some(_) => return app,
                None => {}
            }
            let now = Instant::now();
            if app.worker_ended() || end.is_some_and(|e| e <= now) {
                return app;
            }
            if let (Some(every), Some(moment)) = (watchdog, next_watchdog.as_mut())
                && *moment <= now
            {
                *moment = now + every;
                notify(&[NotifyState::Watchdog]);
            }
            if let Some(moment) = next.filter(|m| *m <= now) {
                let snapshot = app.snapshot();
                say(Said::Interval(Box::new((before, snapshot.clone()))));
                before = snapshot;
                next = moment.checked_add(self.stats_interval).map(|m| m.max(now));
            }
            if !round.busy {
                std::thread::sleep(REST);
            }
        }
    }
}

/// Where the configuration comes from.
#[derive(Clone)]
struct Source {
    file: PathBuf,
    sets: Vec<String>,
    /// As it was before this thread was pinned.
    machine: Machine,
}

impl Source {
    /// Reads the file as it is now, with the same values set over it.
    fn load(&self) -> Result<Plan, Vec<Problem>> {
        let options = Options { machine: self.machine.clone(), ..Options::default() };
        config::load(&self.file, &Overrides::here(&self.sets), &options)
    }
}

impl Source {
    /// Another file, named from where the first one is named: what both say of places is the same then.
    fn beside(self, file: PathBuf) -> Self {
        let here = std::env::current_dir().ok().filter(|_| self.file.is_relative());
        let short = here.and_then(|here| file.strip_prefix(here).ok().map(PathBuf::from));
        Source { file: short.unwrap_or(file), ..self }
    }
}

/// How the configuration gets in anew: SIGHUP and the admin API ask for it.
struct Renewal {
    source: Source,
    hangup: Arc<AtomicBool>,
    asked: Option<Asked>,
    /// Somebody has asked the program to leave, and waits for its end.
    drains: bool,
}

impl Renewal {
    fn of(config: &ConfigArgs) -> Self {
        let ConfigArgs { file, set } = config;
        let source = Source { file: file.clone(), sets: set.clone(), machine: Machine::here() };
        Renewal { source, hangup: Arc::default(), asked: None, drains: false }
    }

    /// Begins what somebody asks for: a reload, a drain. Says who wants the program to leave.
    fn look(&mut self, app: &mut RunningApp) -> Option<String> {
        let asked = app.asked();
        // One after the other: what a command needs the flag for would be lost.
        let hangup = asked.is_none() && self.hangup.swap(false, Ordering::Relaxed);
        if asked.is_none() && !hangup {
            return None;
        }
        let source = self.source.clone();
        let by = asked.as_ref().map_or_else(|| "SIGHUP".to_owned(), |asked| asked.by.clone());
        let command = asked.as_ref().map_or(Command::Reload, |asked| asked.command.clone());
        let begun = match command {
            Command::Reload => app.reload_for(&by, Box::new(move || source.load())),
            Command::Shadow { file } => {
                let source = source.beside(file);
                app.shadow(&by, Box::new(move || source.load()))
            }
            Command::Promote => app.promote(&by),
            Command::CancelShadow => app.cancel_shadow(&by),
            Command::Drain { deadline_ms } => return self.drain(app, asked?, deadline_ms),
            Command::Facts => {
                if let Some(asked) = asked {
                    asked.tell(serde_json::to_value(app.facts()).unwrap_or_default()); // plain data
                }
                return None;
            }
            Command::ShadowStatus => {
                if let Some(asked) = asked {
                    match app.shadow_status() {
                        Some(status) => asked.answer(Ok(Reloaded::Shadow(Box::new(status)))),
                        None => asked.is_absent("no candidate is loaded"),
                    }
                }
                return None;
            }
        };
        match (begun, asked) {
            (Ok(()), asked) => self.asked = asked,
            (Err(busy), Some(asked)) => asked.is_busy(busy),
            // Whatever changed since the one under way began is not lost.
            (Err(_), None) => self.hangup.store(true, Ordering::Relaxed),
        }
        None
    }

    fn drain(&mut self, app: &mut RunningApp, asked: Asked, deadline_ms: Option<u64>) -> Option<String> {
        let deadline = deadline_ms.map(Duration::from_millis);
        match deadline {
            Some(deadline) if deadline > LONGEST_DRAIN => {
                asked.is_wrong("a deadline is at most a day away".into());
                return None;
            }
            Some(deadline) => app.drain_within(deadline),
            None => app.drain(),
        }
        self.drains = true;
        let until = deadline.map(|time| format!(", within {}", humantime::format_duration(time)));
        let said = format!("asked for by {}{}", asked.by, until.unwrap_or_default());
        asked.drains(app.draining());
        Some(said)
    }

    /// Tells whoever asked.
    fn answer(&mut self, reloaded: &Reloaded) {
        if let Some(asked) = self.asked.take() {
            asked.answer(Ok(reloaded.clone()));
        }
    }
}

/// What is printed while it runs.
pub(super) enum Said {
    Level(&'static str),
    Reload(Box<Reloaded>),
    Port(Vec<String>),
    Health(Flip),
    Drain(Draining),
    Asked(String),
    Interval(Box<(Snapshot, Snapshot)>),
}

/// A thread that prints, until its channel closes.
pub(super) fn printer(json: bool) -> Result<(SyncSender<Said>, JoinHandle<()>), Failure> {
    let (printer, said) = sync_channel(LINES);
    let print = move || {
        loop {
            match said.recv_timeout(Duration::from_secs(1)) {
                Ok(said) => print_one(said, json),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            log::tell_skipped();
        }
    };
    let thread = std::thread::Builder::new().name("print".into()).spawn(print);
    let thread =
        thread.map_err(|e| Failure::Other(format!("no thread: {e}; raise the limit of processes")))?;
    Ok((printer, thread))
}

/// One thing that was said: into the log, and to standard output if that is read by a program.
fn print_one(said: Said, json: bool) {
    match said {
        Said::Level(level) => tracing::warn!(target: "log", level, "the level is another one now"),
        Said::Reload(reloaded) => {
            if json {
                show::reloaded(&reloaded);
            }
            // What came of it from a place of its own: of many problems not all are printed, and the last line is the answer.
            let lines: Vec<String> = reloaded.lines();
            let (last, others) =
                lines.split_last().map_or(("", &[][..]), |(last, others)| (last.as_str(), others));
            match reloaded.is_good() {
                true => {
                    others.iter().for_each(|line| tracing::info!(target: "reload", "{line}"));
                    tracing::info!(target: "reload", "{last}");
                }
                false => {
                    others.iter().for_each(|line| tracing::warn!(target: "reload", "{line}"));
                    tracing::warn!(target: "reload", "{last}");
                }
            }
        }
        Said::Port(texts) => {
            if json {
                show::events(&texts);
            }
            texts.iter().for_each(|text| tracing::warn!(target: "port", "{text}"));
        }
        Said::Health(flip) => {
            if json {
                show::flip(&flip);
            }
            let reasons: Vec<&str> = flip.reasons.iter().map(|reason| reason.text.as_str()).collect();
            let (from, to, reasons) = (flip.from.name(), flip.to.name(), reasons.join("; "));
            match flip.to.is_fit() {
                true => tracing::info!(target: "health", from, reasons, "{to}"),
                false => tracing::warn!(target: "health", from, reasons, "{to}"),
            }
        }
        Said::Drain(drain) => {
            if json {
                show::drain(drain);
            }
            tracing::info!(target: "drain", "{}", show::drained(drain));
        }
        Said::Asked(text) => tracing::info!(target: "drain", "{text}"),
        Said::Interval(pair) => show::interval(&pair.0, &pair.1, json),
    }
}

/// SIGUSR1 and SIGUSR2: more and less of the log.
struct Verbosity([Arc<AtomicBool>; 2]);

impl Verbosity {
    fn install() -> std::io::Result<Self> {
        let verbosity = Verbosity(Default::default());
        let Verbosity([more, less]) = &verbosity;
        for (signal, asked) in [(SIGUSR1, more), (SIGUSR2, less)] {
            flag::register(signal, asked.clone())?;
        }
        Ok(verbosity)
    }

    /// The level in force, if somebody changed it.
    fn take(&self) -> Option<&'static str> {
        let Verbosity([more, less]) = self;
        let step =
            |asked: &AtomicBool, is_more| asked.swap(false, Ordering::Relaxed).then(|| log::step(is_more));
        step(more, true).or_else(|| step(less, false))
    }
}

/// Tells systemd, if it asked to be told.
fn notify(state: &[NotifyState<'_>]) {
    let _ = sd_notify::notify(state); // who did not ask need not hear
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
