//! A scenario: what a lab looks like, and what happens in it, one step after the other.
//!
//! ```
//! # fn main() -> Result<(), Vec<String>> {
//! let text = r#"
//! [lab]
//! appliances = 2
//!
//! [[step]]
//! traffic = { connections = 100, datagrams = 10 }
//!
//! [[step]]
//! kill = "app-1"
//!
//! [[step]]
//! wait = "5s"
//!
//! [[step]]
//! expect = { broken = 0, lost = "<= 20" }
//! "#;
//! let scenario = sluicegate::lab::scenario::parse("dies.toml", text, std::path::Path::new("."))?;
//! assert_eq!(scenario.steps.len(), 4);
//! # Ok(())
//! # }
//! ```
//!
//! All mistakes are reported, each with its line: unknown keys, steps that do two things or none, names of appliances that are not there at that
//! moment, figures that do not exist, files that cannot be found.

mod bound;
mod raw;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use bound::{Bound, Wanted};

use self::raw::{Raw, RawStep, RawTraffic};
use super::files::Settings;
use super::layout::{MOST_APPLIANCES, Room, Shape, Way, appliance, number};
use super::probe::Figures;

/// Most connections, and flows of datagrams.
const MOST_FLOWS: u32 = 10_000;
/// Most new connections in a second.
const MOST_OPENS: u32 = 1_000;
/// A command in the client or the server is given up after so long, unless its step says otherwise.
const TIMEOUT: Duration = Duration::from_secs(120);
/// Smallest and largest MTU of client and server: IPv6 wants 1280 (RFC 8200), and DPDK's ports take 9001.
const MTU: std::ops::RangeInclusive<u16> = 1280..=9001;

/// A scenario that was found right.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The file.
    pub file: String,
    /// What it is about.
    pub about: String,
    /// What is to be made.
    pub shape: Shape,
    /// What runs in it.
    pub settings: Settings,
    /// What happens.
    pub steps: Vec<Step>,
}

/// One step.
#[derive(Clone, Debug)]
pub struct Step {
    /// Line in the file.
    pub line: usize,
    /// What it is called in the report; the action in words where nobody says.
    pub name: String,
    /// What is done.
    pub action: Action,
}

/// What a step does.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Starts traffic from the client to the server, in place of what there was.
    Traffic(Traffic),
    /// Begins a window of figures.
    Mark(String),
    /// Waits.
    Wait(Duration),
    /// Ends an appliance at once, as a machine that loses power.
    Kill(usize),
    /// Starts an appliance that has ended, or that was absent so far.
    Start(usize),
    /// An appliance stands still, as a machine that hangs.
    Pause(usize),
    /// It goes on.
    Resume(usize),
    /// An appliance leaves when its flows are over: its health says no, and what is there is served.
    Drain(usize),
    /// An appliance gets another pipeline file, or the one that it has anew.
    Reload(usize, Option<PathBuf>),
    /// A command in the client or in the server.
    Run(Run),
    /// A question to an instance.
    Ask(Ask),
    /// Bounds for figures of the current window.
    Expect(Vec<(String, Bound)>),
    /// Ends the traffic; bounds for its figures, all windows together.
    Total(Vec<(String, Bound)>),
}

/// Traffic from the client to the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traffic {
    /// TCP connections that stay open, each of which sends a message per interval.
    pub connections: u32,
    /// Flows of datagrams, the same.
    pub datagrams: u32,
    /// New connections in a second.
    pub opens_per_s: u32,
    /// From one message to the next.
    pub interval: Duration,
    /// Half of it over IPv6.
    pub ipv6: bool,
    /// How long an echo over TCP, and a new connection, may take.
    pub patience: Duration,
    /// How long the echo of a datagram may.
    pub datagram_patience: Duration,
}

/// A command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Program and arguments; `{server}`, `{server6}`, `{client}`, `{client6}` and `{folder}` are put in.
    pub command: Vec<String>,
    /// Where.
    pub room: Room,
    /// It goes on while the next steps happen, and is ended with the lab.
    pub background: bool,
    /// The exit code that it should have.
    pub exit: Bound,
    /// What it should say, somewhere in what it says.
    pub output: Option<String>,
    /// When it is given up.
    pub timeout: Duration,
    /// Where the program is not installed, the step is left out, which is said; otherwise it fails.
    pub optional: bool,
}

/// A question to an instance, over its socket.
#[derive(Clone, Debug, PartialEq)]
pub struct Ask {
    /// `gateway`, `app-1`.
    pub of: String,
    /// `status`, `stats`.
    pub what: String,
    /// Where in the answer: `/flows/live`, `/targets/address=10.98.0.11/state`.
    pub at: String,
    /// What should be there.
    pub is: Wanted,
    /// How long to ask again until it is.
    pub within: Duration,
}

/// Reads and checks a scenario. Paths in it are relative to the folder.
pub fn parse(name: &str, text: &str, folder: &Path) -> Result<Scenario, Vec<String>> {
    let raw: Raw = toml::from_str(text).map_err(|error| {
        let line = error.span().map_or(1, |span| line_of(text, span.start));
        vec![format!("{name}:{line}: {}", error.message())]
    })?;
    let mut check = Check {
        name,
        folder,
        text,
        problems: Vec::new(),
        line: 1,
        appliances: 0,
        there: BTreeSet::new(),
        way: raw.lab.way,
        has_traffic: false,
    };
    let (shape, settings) = check.lab(&raw);
    check.appliances = shape.appliances;
    check.there = (1..=shape.appliances).filter(|number| !shape.absent.contains(number)).collect();
    if raw.step.is_empty() {
        check.problem("no [[step]]: nothing would happen".into());
    }
    let mut steps = Vec::new();
    for step in raw.step {
        check.line = line_of(text, step.span().start);
        if let Some((name, action)) = check.step(step.into_inner()) {
            steps.push(Step { line: check.line, name, action });
        }
    }
    match check.problems.is_empty() {
        true => Ok(Scenario {
            file: name.to_owned(),
            about: raw.about.unwrap_or_default(),
            shape,
            settings,
            steps,
        }),
        false => Err(check.problems),
    }
}

/// Counted from 1.
fn line_of(text: &str, at: usize) -> usize {
    1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count()
}

struct Check<'a> {
    name: &'a str,
    folder: &'a Path,
    text: &'a str,
    problems: Vec<String>,
    line: usize,
    appliances: usize,
    /// Appliances that run at this step.
    there: BTreeSet<usize>,
    way: Way,
    has_traffic: bool,
}

impl Check<'_> {
    fn problem(&mut self, what: String) {
        self.problems.push(format!("{}:{}: {what}", self.name, self.line));
    }

    /// The line of the first place where something is written.
    fn at(&mut self, what: &str) {
        self.line = self.text.find(what).map_or(1, |at| line_of(self.text, at));
    }

    fn lab(&mut self, raw: &Raw) -> (Shape, Settings) {
        let lab = &raw.lab;
        let appliances = lab.appliances.unwrap_or(2);
        let mut absent = Vec::new();
        for name in &lab.absent {
            match number(name).filter(|number| *number <= appliances) {
                Some(number) => absent.push(number),
                None => {
                    self.at("absent");
                    self.problem(format!("absent: {name:?} is none of {appliances} appliances"));
                }
            }
        }
        let shape = Shape { appliances, absent, mtu: lab.mtu.unwrap_or(1500), way: lab.way };
        if !(1..=MOST_APPLIANCES).contains(&shape.appliances) {
            self.at("appliances");
            self.problem(format!("appliances = {}: a lab has 1 to {MOST_APPLIANCES}", shape.appliances));
        }
        if !MTU.contains(&shape.mtu) {
            self.at("mtu");
            self.problem(format!("mtu = {}: write {} to {}", shape.mtu, MTU.start(), MTU.end()));
        }
        self.at("pipeline");
        let pipeline = lab.pipeline.as_ref().and_then(|path| self.file(path));
        for set in lab.appliance.iter().chain(&lab.gateway) {
            if !set.contains('=') {
                self.at(set);
                self.problem(format!("{set:?}: write it as for --set, \"flow.tcp_idle=60s\""));
            }
        }
        (shape, Settings { pipeline, appliance: lab.appliance.clone(), gateway: lab.gateway.clone() })
    }

    fn file(&mut self, path: &Path) -> Option<PathBuf> {
        let path = self.folder.join(path);
        let is_file = path.is_file();
        if !is_file {
            self.problem(format!("{}: there is no such file", path.display()));
        }
        is_file.then_some(path)
    }

    /// Its name and what it does.
    fn step(&mut self, mut raw: RawStep) -> Option<(String, Action)> {
        let given = raw.actions();
        let verb = match given.as_slice() {
            [one] => *one,
            [] => {
                let verbs = RawStep::VERBS.join(", ");
                self.problem(format!("this step does nothing; write one of {verbs}"));
                return None;
            }
            many => {
                self.problem(format!(
                    "this step does {} things: {}; make a step of each",
                    many.len(),
                    many.join(", ")
                ));
                return None;
            }
        };
        for (key, verbs) in raw.beside() {
            if !verbs.contains(&verb) {
                self.problem(format!(
                    "{key:?} has no meaning beside {verb:?}; it belongs to {}",
                    verbs.join(", ")
                ));
            }
        }
        let name = raw.name.take();
        let action = self.action(raw, verb)?;
        if self.way == Way::Wire && action.needs_gateway() {
            self.problem(format!(
                "{verb:?}: there are neither gateway nor appliances where lab.way is \"wire\""
            ));
        }
        Some((name.unwrap_or_else(|| action.words()), action))
    }

    fn action(&mut self, raw: RawStep, verb: &str) -> Option<Action> {
        if let Some(traffic) = raw.traffic {
            self.has_traffic = true;
            return self.traffic(&traffic).map(Action::Traffic);
        }
        if let Some(name) = raw.mark {
            self.need_traffic(verb);
            return Some(Action::Mark(name));
        }
        if let Some(time) = raw.wait {
            return self.duration("wait", &time).map(Action::Wait);
        }
        if let Some(name) = raw.kill {
            let number = self.appliance(&name)?;
            self.there.remove(&number);
            return Some(Action::Kill(number));
        }
        if let Some(name) = raw.start {
            let number = self.known(&name, 1..=self.appliances)?;
            if !self.there.insert(number) {
                self.problem(format!("start = {name:?}: it is running at this step"));
            }
            return Some(Action::Start(number));
        }
        if let Some(name) = raw.pause {
            return self.appliance(&name).map(Action::Pause);
        }
        if let Some(name) = raw.resume {
            return self.appliance(&name).map(Action::Resume);
        }
        if let Some(name) = raw.drain {
            return self.appliance(&name).map(Action::Drain);
        }
        if let Some(name) = raw.reload {
            let file = raw.file.and_then(|path| self.file(&path));
            return self.appliance(&name).map(|number| Action::Reload(number, file));
        }
        if let Some(command) = raw.run {
            let place = raw.r#in.unwrap_or_else(|| "client".into());
            let room = match Room::named(&place) {
                Some(room @ (Room::Gateway | Room::Appliance(_)))
                    if self.way == Way::Wire || matches!(room, Room::Appliance(n) if n > self.appliances) =>
                {
                    None
                }
                room => room,
            };
            let Some(room) = room else {
                self.problem(format!("in = {place:?}: write client, server, gateway, fabric or app-1"));
                return None;
            };
            if command.is_empty() {
                self.problem("run = []: name a program".into());
            }
            let exit = match raw.exit {
                None => Bound::exactly(0),
                Some(exit) => self.bound("exit", &exit)?,
            };
            let timeout = match raw.timeout {
                None => TIMEOUT,
                Some(text) => self.duration("timeout", &text)?,
            };
            let (background, output, optional) = (raw.background, raw.output, raw.optional);
            return Some(Action::Run(Run { command, room, background, exit, output, timeout, optional }));
        }
        if let Some(what) = raw.ask {
            let of = raw.of.unwrap_or_default();
            if of != super::network::GATEWAY {
                self.appliance(&of)?;
            }
            let Some(is) = raw.is.as_ref().map(Wanted::of) else {
                self.problem("\"is\" is missing: what should be there".into());
                return None;
            };
            let is = self.said("is", is)?;
            let within = raw.within.map_or(Some(Duration::ZERO), |text| self.duration("within", &text))?;
            let at = raw.at.unwrap_or_default();
            return Some(Action::Ask(Ask { of, what, at, is, within }));
        }
        self.need_traffic(verb);
        if let Some(bounds) = raw.expect {
            return self.bounds(&bounds).map(Action::Expect);
        }
        self.has_traffic = false; // it ends here
        self.bounds(&raw.total?).map(Action::Total)
    }

    fn need_traffic(&mut self, verb: &str) {
        if !self.has_traffic {
            self.problem(format!("{verb:?} is about traffic, and there is none at this step"));
        }
    }

    fn traffic(&mut self, raw: &RawTraffic) -> Option<Traffic> {
        let numbers = [
            ("connections", raw.connections, MOST_FLOWS),
            ("datagrams", raw.datagrams, MOST_FLOWS),
            ("opens_per_s", raw.opens_per_s, MOST_OPENS),
        ];
        for (key, n, most) in numbers {
            if n > most {
                self.problem(format!("{key} = {n}: at most {most}"));
            }
        }
        if raw.connections + raw.datagrams + raw.opens_per_s == 0 {
            self.problem("traffic of nothing: write connections, datagrams or opens_per_s".into());
        }
        let mut time = |key: &str, text: &Option<String>, default: u64| match text {
            None => Some(Duration::from_millis(default)),
            Some(text) => self.duration(key, text),
        };
        let (interval, patience) =
            (time("interval", &raw.interval, 500)?, time("patience", &raw.patience, 20_000)?);
        let datagram_patience = time("datagram_patience", &raw.datagram_patience, 3_000)?;
        if interval < Duration::from_millis(1) {
            self.problem("interval: at least 1ms".into());
        }
        Some(Traffic {
            connections: raw.connections,
            datagrams: raw.datagrams,
            opens_per_s: raw.opens_per_s,
            interval,
            ipv6: raw.ipv6.unwrap_or(true),
            patience,
            datagram_patience,
        })
    }

    fn duration(&mut self, key: &str, text: &str) -> Option<Duration> {
        let time = humantime::parse_duration(text);
        if time.is_err() {
            self.problem(format!("{key} = {text:?} is no time: write \"500ms\", \"10s\" or \"2m\""));
        }
        time.ok()
    }

    /// An appliance that is there at this step.
    fn appliance(&mut self, name: &str) -> Option<usize> {
        self.known(name, self.there.clone())
    }

    fn known(&mut self, name: &str, known: impl IntoIterator<Item = usize>) -> Option<usize> {
        let known: Vec<usize> = known.into_iter().collect();
        let number = number(name).filter(|number| known.contains(number));
        if number.is_none() {
            let known: Vec<String> = known.iter().map(|number| appliance(*number)).collect();
            self.problem(format!("there is no {name:?} at this step; there is {}", known.join(", ")));
        }
        number
    }

    fn bound(&mut self, key: &str, value: &toml::Value) -> Option<Bound> {
        self.said(key, Bound::of(value))
    }

    fn said<T>(&mut self, key: &str, outcome: Result<T, String>) -> Option<T> {
        outcome.map_err(|what| self.problem(format!("{key}: {what}"))).ok()
    }

    fn bounds(&mut self, table: &toml::Table) -> Option<Vec<(String, Bound)>> {
        let mut bounds = Vec::new();
        for (name, value) in table {
            if !Figures::NAMES.contains(&name.as_str()) {
                self.problem(format!("{name:?} is no figure; there are {}", Figures::NAMES.join(", ")));
                continue;
            }
            bounds.push((name.clone(), self.bound(name, value)?));
        }
        Some(bounds)
    }
}

impl Action {
    fn needs_gateway(&self) -> bool {
        use Action::*;
        matches!(self, Kill(_) | Start(_) | Pause(_) | Resume(_) | Drain(_) | Reload(..) | Ask(_))
    }

    /// Does a window of figures begin with it?
    pub fn marks(&self) -> bool {
        matches!(self, Action::Mark(_)) || self.needs_gateway() && !matches!(self, Action::Ask(_))
    }

    /// In words.
    pub fn words(&self) -> String {
        let listed = |bounds: &[(String, Bound)]| {
            let bounds: Vec<String> = bounds.iter().map(|(name, bound)| format!("{name} {bound}")).collect();
            bounds.join(", ")
        };
        match self {
            Action::Traffic(t) => {
                let parts = [
                    (t.connections, "connections"),
                    (t.datagrams, "flows of datagrams"),
                    (t.opens_per_s, "new connections a second"),
                ];
                let parts: Vec<String> =
                    parts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
                format!("traffic: {}", parts.join(", "))
            }
            Action::Mark(name) => name.clone(),
            Action::Wait(time) => format!("wait {}", humantime::format_duration(*time)),
            Action::Kill(number) => format!("kill {}", appliance(*number)),
            Action::Start(number) => format!("start {}", appliance(*number)),
            Action::Pause(number) => format!("pause {}", appliance(*number)),
            Action::Resume(number) => format!("resume {}", appliance(*number)),
            Action::Drain(number) => format!("drain {}", appliance(*number)),
            Action::Reload(number, None) => format!("reload {}", appliance(*number)),
            Action::Reload(number, Some(file)) => {
                format!(
                    "reload {} with {}",
                    appliance(*number),
                    file.file_name().unwrap_or_default().display()
                )
            }
            Action::Run(run) => run.command.join(" "),
            Action::Ask(ask) => format!("{}: {} {} is {}", ask.of, ask.what, ask.at, ask.is),
            Action::Expect(bounds) => format!("expect {}", listed(bounds)),
            Action::Total(bounds) => format!("in all {}", listed(bounds)),
        }
    }
}

#[cfg(test)]
mod tests;
