//! Plays a scenario in a lab that is up.
//!
//! A step that fails ends the scenario, unless it is only an expectation: the rest is played then, so that a report has all that did not hold. Traffic is a
//! process of its own in the client's namespace ([`probe`](super::probe)); a window of its figures begins with each thing that is done to the lab.

use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use super::layout::{self, Room, appliance};
use super::network::{GATEWAY, Lab, Stop};
use super::probe::{Figures, Ports};
use super::report::{Done, How, Report};
use super::scenario::{Action, Ask, Bound, Run, Scenario, Traffic};
use super::{Error, command, files, process};
use crate::mgmt::control;

/// From one look to the next.
const LOOK: Duration = Duration::from_millis(50);
/// For the probe to answer, beside the patience of its traffic.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes of a command's output that are looked at.
const MOST_OUTPUT: u64 = 1 << 20;
/// Lines of that which are shown when something is wrong.
const SHOWN: usize = 12;

/// Plays it. The lab comes back, to be taken down or kept.
pub fn play(lab: Lab, scenario: &Scenario, stop: Stop<'_>, show: &dyn Fn(&Done)) -> (Lab, Report) {
    let begin = Instant::now();
    let mut report = Report {
        file: scenario.file.clone(),
        about: scenario.about.clone(),
        of: scenario.steps.len(),
        ..Report::default()
    };
    let mut player = Player { lab, stop, sending: None, windows: Vec::new(), background: Vec::new() };
    for step in &scenario.steps {
        let how = match player.step(&step.name, &step.action) {
            Ok(how) => how,
            Err(error) => How::Badly(error.to_string()),
        };
        let done = Done { line: step.line, name: step.name.clone(), at: begin.elapsed(), how };
        show(&done);
        let goes_on = !matches!(done.how, How::Badly(_)) || is_expectation(&step.action);
        report.steps.push(done);
        if !goes_on || stop() {
            break;
        }
    }
    if player.sending.is_some()
        && let Err(error) = player.end_traffic()
    {
        report.said.push(("probe".into(), error.to_string()));
    }
    if !report.holds() {
        let names = std::iter::once(GATEWAY.to_owned()).chain((1..=layout::MOST_APPLIANCES).map(appliance));
        let of = |name: String| {
            let log = files::log(player.lab.name(), &name);
            let said = if name == GATEWAY { files::told(&log, SHOWN) } else { process::tail(&log) };
            (!said.trim().is_empty()).then_some((name, said))
        };
        report.said.extend(names.filter_map(of));
    }
    report.windows = std::mem::take(&mut player.windows);
    (player.end(), report)
}

fn is_expectation(action: &Action) -> bool {
    matches!(action, Action::Expect(_) | Action::Total(_) | Action::Ask(_) | Action::Run(_))
}

struct Player<'a> {
    lab: Lab,
    stop: Stop<'a>,
    sending: Option<Sending>,
    /// Figures of traffic that has ended.
    windows: Vec<Figures>,
    background: Vec<Child>,
}

/// The probe in the client.
struct Sending {
    child: Child,
    to: ChildStdin,
    from: Receiver<Value>,
    patience: Duration,
}

impl Player<'_> {
    fn step(&mut self, name: &str, action: &Action) -> Result<How, Error> {
        if action.marks() {
            self.mark(name)?;
        }
        let nothing = || Ok(How::Well(String::new()));
        match action {
            Action::Traffic(traffic) => self.start_traffic(traffic),
            Action::Mark(_) => nothing(),
            Action::Wait(time) => {
                self.wait(*time, &mut || Ok(false))?;
                nothing()
            }
            Action::Kill(number) => {
                self.lab.kill(&appliance(*number));
                nothing()
            }
            Action::Start(number) => {
                self.lab.start_appliance(*number)?;
                self.lab.wait_ready(&appliance(*number), self.stop)?;
                nothing()
            }
            Action::Pause(number) => {
                self.lab.signal(&appliance(*number), Signal::STOP);
                nothing()
            }
            Action::Resume(number) => {
                self.lab.signal(&appliance(*number), Signal::CONT);
                nothing()
            }
            Action::Drain(number) => {
                self.lab.ask(&appliance(*number), control::Command::Drain { deadline_ms: None })?;
                nothing()
            }
            Action::Reload(number, file) => {
                self.lab.reload(*number, file.as_deref())?;
                nothing()
            }
            Action::Run(run) => self.run(run),
            Action::Ask(ask) => self.ask(ask),
            Action::Expect(bounds) => {
                let patience = self.patience();
                let answer = self.tell("settle", "settled", patience)?;
                let figures: Figures = serde_json::from_value(answer["figures"].clone()).unwrap_or_default();
                Ok(compare(&figures, bounds))
            }
            Action::Total(bounds) => {
                let windows = self.end_traffic()?;
                Ok(compare(&in_all(&windows), bounds))
            }
        }
    }

    /// Waits so long, or until something is so, or until somebody says stop.
    fn wait(&self, time: Duration, is_so: &mut dyn FnMut() -> Result<bool, Error>) -> Result<bool, Error> {
        let deadline = Instant::now() + time;
        loop {
            if is_so()? {
                return Ok(true);
            }
            if (self.stop)() {
                return Err(Error::Interrupted);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            std::thread::sleep(left.min(LOOK));
        }
    }

    fn start_traffic(&mut self, traffic: &Traffic) -> Result<How, Error> {
        if self.sending.is_some() {
            self.end_traffic()?;
        }
        let program =
            std::env::current_exe().map_err(|error| Error::file("/proc/self/exe".as_ref(), error))?;
        let mut arguments: Vec<String> = vec![program.display().to_string()];
        arguments.extend(["lab", "probe", "send", "--to"].map(str::to_owned));
        arguments.push(layout::SERVER.to_string());
        if traffic.ipv6 {
            arguments.extend(["--to".to_owned(), layout::SERVER6.to_string()]);
        }
        let numbers = [
            ("--port", u64::from(Ports::default().echo)),
            ("--connections", traffic.connections.into()),
            ("--datagrams", traffic.datagrams.into()),
            ("--opens-per-s", traffic.opens_per_s.into()),
            ("--interval-ms", traffic.interval.as_millis() as u64),
            ("--patience-ms", traffic.patience.as_millis() as u64),
            ("--datagram-patience-ms", traffic.datagram_patience.as_millis() as u64),
        ];
        arguments.extend(numbers.iter().flat_map(|(key, n)| [(*key).to_owned(), n.to_string()]));
        let mut command = self.lab.command(Room::Client, &arguments);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut child = child.map_err(|error| broken(&error.to_string()))?;
        let (Some(to), Some(from)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(broken("has no pipes"));
        };
        let from = lines_of(from);
        self.sending =
            Some(Sending { child, to, from, patience: traffic.patience.max(traffic.datagram_patience) });
        let ready = self.hear("ready", traffic.patience)?;
        let (open, of) = (ready["connections"].as_u64().unwrap_or(0), ready["of"].as_u64().unwrap_or(0));
        Ok(match open == of {
            true => How::Well(String::new()),
            false => How::Badly(format!("{open} of {of} connections could be opened")),
        })
    }

    fn mark(&mut self, name: &str) -> Result<(), Error> {
        match &mut self.sending {
            None => Ok(()),
            Some(sending) => sending.say(&format!("mark {name}")),
        }
    }

    /// Longer than anybody waits for an echo.
    fn patience(&self) -> Duration {
        self.sending.as_ref().map_or(Duration::ZERO, |sending| sending.patience)
    }

    fn tell(&mut self, what: &str, answer: &str, patience: Duration) -> Result<Value, Error> {
        let Some(sending) = &mut self.sending else { return Err(broken("is not running")) };
        sending.say(what)?;
        self.hear(answer, patience)
    }

    fn hear(&mut self, event: &str, patience: Duration) -> Result<Value, Error> {
        let Some(sending) = &self.sending else { return Err(broken("is not running")) };
        let deadline = Instant::now() + patience + PATIENCE;
        loop {
            match sending.from.recv_timeout(LOOK) {
                Ok(line) if line["event"] == event => return Ok(line),
                Ok(line) => return Err(broken(&format!("said {line}"))),
                Err(RecvTimeoutError::Disconnected) => return Err(broken("ended")),
                Err(RecvTimeoutError::Timeout) if Instant::now() > deadline => {
                    return Err(broken("does not answer"));
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
            if (self.stop)() {
                return Err(Error::Interrupted);
            }
        }
    }

    /// Its figures are the report's.
    fn end_traffic(&mut self) -> Result<Vec<Figures>, Error> {
        let patience = self.patience();
        let answer = self.tell("stop", "stopped", patience);
        if let Some(mut sending) = self.sending.take() {
            drop(sending.to);
            let _ = sending.child.kill();
            let _ = sending.child.wait();
        }
        let windows: Vec<Figures> = serde_json::from_value(answer?["windows"].clone()).unwrap_or_default();
        self.windows.extend(windows.iter().cloned());
        Ok(windows)
    }

    fn ask(&self, ask: &Ask) -> Result<How, Error> {
        let mut said = String::new();
        let holds = self.wait(ask.within, &mut || {
            match self.lab.answer(&ask.of, &ask.what) {
                Ok(answer) => match find(&answer, &ask.at) {
                    Some(value) => {
                        said = value.to_string();
                        return Ok(ask.is.holds(value));
                    }
                    None => said = format!("there is no {} in what {} answers", ask.at, ask.of),
                },
                Err(error) => said = error,
            }
            Ok(false)
        })?;
        Ok(if holds { How::Well(said) } else { How::Badly(said) })
    }

    fn run(&mut self, run: &Run) -> Result<How, Error> {
        let folder = self.lab.name().folder();
        let arguments: Vec<String> =
            run.command.iter().map(|word| put_in(word, &folder.display().to_string())).collect();
        let Some(program) = arguments.first() else { return Ok(How::Badly("no program".into())) };
        if !command::is_there(program) {
            let why = format!("{program} is not installed here");
            return Ok(if run.optional { How::LeftOut(why) } else { How::Badly(why) });
        }
        let log = files::log(self.lab.name(), "run");
        let failed = |error: std::io::Error| Error::file(&log, error);
        let mut command = self.lab.command(run.room, &arguments);
        if run.background {
            let log = files::log(self.lab.name(), &format!("run-{}", self.background.len() + 1));
            self.background.push(process::start(&mut command, &log)?);
            return Ok(How::Well("in the background".into()));
        }
        let mut child = process::start(&mut command, &log)?;
        let mut status = None;
        let over = self.wait(run.timeout, &mut || {
            status = child.try_wait().map_err(failed)?;
            Ok(status.is_some())
        });
        if !matches!(over, Ok(true)) {
            // With all that it started: it has a process group of its own.
            if let Some(group) = rustix::process::Pid::from_raw(child.id() as i32) {
                let _ = rustix::process::kill_process_group(group, Signal::KILL);
            }
            let _ = child.wait();
            over?;
            return Ok(How::Badly(format!(
                "it took longer than {}",
                humantime::format_duration(run.timeout)
            )));
        }
        let mut file = std::fs::File::open(&log).map_err(failed)?;
        let length = file.seek(SeekFrom::End(0)).map_err(failed)?;
        file.seek(SeekFrom::Start(length.saturating_sub(MOST_OUTPUT))).map_err(failed)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(failed)?;
        let code = status.and_then(|status| status.code());
        Ok(judge(run, code, &String::from_utf8_lossy(&bytes)))
    }

    fn end(mut self) -> Lab {
        for child in &mut self.background {
            let _ = child.kill();
            let _ = child.wait();
        }
        self.lab
    }
}

impl Sending {
    fn say(&mut self, line: &str) -> Result<(), Error> {
        writeln!(self.to, "{line}").map_err(|error| broken(&error.to_string()))
    }
}

fn broken(what: &str) -> Error {
    Error::Process { name: "the probe".into(), what: what.to_owned(), said: String::new() }
}

/// Reads lines on a thread of its own, since that waits.
fn lines_of(from: impl Read + Send + 'static) -> Receiver<Value> {
    let (to, lines) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            let line = serde_json::from_str(&line).unwrap_or(Value::String(line));
            if to.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

/// What a command ended with, against what was expected of it.
fn judge(run: &Run, code: Option<i32>, output: &str) -> How {
    let last = |output: &str| {
        let lines: Vec<&str> = output.lines().collect();
        lines.get(lines.len().saturating_sub(SHOWN)..).unwrap_or_default().join("\n")
    };
    match code {
        None => How::Badly(format!("it was ended by a signal\n{}", last(output))),
        Some(code) if !run.exit.holds(code.into()) => {
            How::Badly(format!("exit code {code}, expected {}\n{}", run.exit, last(output)))
        }
        Some(_) => match &run.output {
            Some(wanted) if !output.contains(wanted.as_str()) => {
                How::Badly(format!("{wanted:?} is not in what it said\n{}", last(output)))
            }
            Some(wanted) => {
                let line = output.lines().find(|line| line.contains(wanted.trim_end()));
                How::Well(line.unwrap_or_default().trim().to_owned())
            }
            None => How::Well(String::new()),
        },
    }
}

/// Puts addresses and folders into a word.
fn put_in(word: &str, folder: &str) -> String {
    word.replace("{server}", &layout::SERVER.to_string())
        .replace("{server6}", &layout::SERVER6.to_string())
        .replace("{client}", &layout::CLIENT.to_string())
        .replace("{client6}", &layout::CLIENT6.to_string())
        .replace("{folder}", folder)
}

/// A place in an answer: a JSON pointer (RFC 6901) in which `key=value` is the first element of a list that has that.
fn find<'a>(value: &'a Value, at: &str) -> Option<&'a Value> {
    at.split('/').skip(1).try_fold(value, |value, part| match (value, part.split_once('=')) {
        (Value::Array(list), Some((key, wanted))) => list.iter().find(|element| match &element[key] {
            Value::String(text) => text == wanted,
            // As JSON writes it.
            other => wanted.parse::<Value>().is_ok_and(|wanted| wanted == *other),
        }),
        (Value::Array(list), None) => list.get(part.parse::<usize>().ok()?),
        _ => value.get(part),
    })
}

/// Figures against bounds.
fn compare(figures: &Figures, bounds: &[(String, Bound)]) -> How {
    let mut all = true;
    let told: Vec<String> = bounds
        .iter()
        .map(|(name, bound)| {
            let n = figures.get(name).unwrap_or(0);
            let holds = bound.holds(i64::try_from(n).unwrap_or(i64::MAX));
            all &= holds;
            format!("{name} {n}{}", if holds { String::new() } else { format!(" is not {bound}") })
        })
        .collect();
    let told = told.join(", ");
    if all { How::Well(told) } else { How::Badly(told) }
}

/// All windows together: sums, but the longest of times, and the connections of the first.
fn in_all(windows: &[Figures]) -> Figures {
    let mut all = Figures { connections: windows.first().map_or(0, |w| w.connections), ..Figures::default() };
    for w in windows {
        all.for_ms += w.for_ms;
        all.datagrams += w.datagrams;
        all.lost += w.lost;
        all.lossy_flows = all.lossy_flows.max(w.lossy_flows);
        all.lost_until_ms = all.lost_until_ms.max(w.lost_until_ms);
        all.outage_ms = all.outage_ms.max(w.outage_ms);
        all.broken += w.broken;
        all.reset += w.reset;
        all.stuck += w.stuck;
        all.messages += w.messages;
        all.slowest_ms = all.slowest_ms.max(w.slowest_ms);
        all.opened += w.opened;
        all.failed += w.failed;
        all.slowest_open_ms = all.slowest_open_ms.max(w.slowest_open_ms);
    }
    all
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn run(exit: i64, output: Option<&str>) -> Run {
        Run {
            command: vec!["x".into()],
            room: Room::Client,
            background: false,
            exit: Bound::exactly(exit),
            output: output.map(str::to_owned),
            timeout: Duration::from_secs(1),
            optional: false,
        }
    }

    #[test]
    fn commands_are_judged_by_exit_and_output() {
        assert_eq!(judge(&run(0, None), Some(0), "x"), How::Well(String::new()));
        assert_eq!(
            judge(&run(28, Some("timed out")), Some(28), "it timed out\n"),
            How::Well("it timed out".into())
        );
        assert_eq!(
            judge(&run(0, None), Some(7), "a\nb"),
            How::Badly("exit code 7, expected = 0\na\nb".into())
        );
        assert_eq!(
            judge(&run(0, Some("y")), Some(0), "x"),
            How::Badly("\"y\" is not in what it said\nx".into())
        );
        assert!(matches!(judge(&run(0, None), None, ""), How::Badly(text) if text.contains("signal")));
        let long: String = (0..100).map(|n| format!("{n}\n")).collect();
        let How::Badly(said) = judge(&run(1, None), Some(0), &long) else { panic!() };
        assert!(said.contains("\n88\n") && !said.contains("\n87\n"), "{said}");
    }

    #[test]
    fn places_in_answers_are_found() {
        let answer = json!({ "a": { "b": [1, 2] }, "targets": [{ "address": "x", "n": 1 }, { "address": "y", "n": 2 }] });
        assert_eq!(find(&answer, "/a/b/1"), Some(&json!(2)));
        assert_eq!(find(&answer, "/targets/address=y/n"), Some(&json!(2)));
        assert_eq!(find(&answer, "/targets/n=1/address"), Some(&json!("x")));
        assert_eq!(find(&answer, ""), Some(&answer));
        for nowhere in ["/c", "/a/b/2", "/a/b/x", "/targets/address=z/n", "/a/b/1/c"] {
            assert_eq!(find(&answer, nowhere), None, "{nowhere}");
        }
    }

    #[test]
    fn figures_are_compared_with_all_bounds() {
        let figures = Figures { lost: 3, broken: 1, ..Figures::default() };
        let bound = |n| Bound::exactly(n);
        assert_eq!(compare(&figures, &[("lost".into(), bound(3))]), How::Well("lost 3".into()));
        let both = [("lost".into(), bound(3)), ("broken".into(), bound(0))];
        assert_eq!(compare(&figures, &both), How::Badly("lost 3, broken 1 is not = 0".into()));
    }

    #[test]
    fn windows_add_up() {
        let one =
            Figures { lost: 3, connections: 10, broken: 1, slowest_ms: 5, opened: 2, ..Figures::default() };
        let two =
            Figures { lost: 4, connections: 9, broken: 2, slowest_ms: 4, opened: 3, ..Figures::default() };
        let all = in_all(&[one, two]);
        assert_eq!((all.lost, all.connections, all.broken, all.slowest_ms, all.opened), (7, 10, 3, 5, 5));
    }

    #[test]
    fn addresses_are_put_in() {
        assert_eq!(put_in("http://{server}/{folder}", "/f"), "http://10.99.0.2//f");
        assert_eq!(put_in("[{server6}] {client} {client6}", ""), "[fd99::2] 10.99.0.1 fd99::1");
    }
}
