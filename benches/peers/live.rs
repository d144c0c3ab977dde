//! A program that is alive for the whole of a table and runs in some of its windows only.
//!
//! A stopped program keeps its memory, its warm code and its place in the capture; nothing is started or set up
//! between windows. Stopping and going on is the kernel's SIGSTOP and SIGCONT.

use std::collections::{HashMap, VecDeque};
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// Longest time for a program to come up: 30,000 rules and 64k frames included.
const START: Duration = Duration::from_secs(90);
/// Longest silence of a program that runs.
const SILENCE: Duration = Duration::from_secs(10);
/// Caches and branch predictors fill again after another program had the core.
const WARM: Duration = Duration::from_millis(300);

/// Packets since the start, at a time.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    /// Nanoseconds of the program's or of our own clock; only differences count.
    pub at: u64,
    /// Packets taken from the port.
    pub received: u64,
    /// Packets given to it.
    pub sent: u64,
}

/// What happened between two readings.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// Packets taken from the port.
    pub received: u64,
    /// Packets given to it.
    pub sent: u64,
    /// Nanoseconds between the readings.
    pub nanos: u64,
    /// Share of that time in which the busiest threads, which are the forwarding lcores, had their cores: the mean.
    pub share: f64,
    /// The same of the one that had the least.
    pub least_share: f64,
}

/// How a program tells what it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tongue {
    /// dpdk-testpmd: asked on its command line.
    Testpmd,
    /// `sluicegate run --json`: one line per interval, unasked.
    Sluicegate,
}

/// One running program.
pub struct Live {
    name: String,
    tongue: Tongue,
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    last: VecDeque<String>,
    born: Instant,
    forwarding: usize,
}

impl Live {
    /// Starts it, waits for the first packets and stops it. `first` is what it is told at the start; so many lcores forward.
    pub fn start(
        name: &str,
        tongue: Tongue,
        command: &mut Command,
        first: &str,
        forwarding: usize,
    ) -> Result<Live, String> {
        let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child =
            spawned.map_err(|e| format!("{name}: cannot start {:?}: {e}", command.get_program()))?;
        let (sender, lines) = channel();
        let pipes: [Option<Box<dyn Read + Send>>; 2] =
            [child.stdout.take().map(|p| Box::new(p) as _), child.stderr.take().map(|p| Box::new(p) as _)];
        for pipe in pipes.into_iter().flatten() {
            let sender = sender.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                    if sender.send(line).is_err() {
                        break;
                    }
                }
            });
        }
        let stdin = child.stdin.take();
        let born = Instant::now();
        let (name, last) = (name.into(), VecDeque::new());
        let mut live = Live { name, tongue, child, stdin, lines, last, born, forwarding };
        live.say(first)?;
        while live.read(START)?.received == 0 {
            std::thread::sleep(Duration::from_millis(50));
        }
        live.signal("STOP")?;
        Ok(live)
    }

    /// Lets it run alone for `window`.
    pub fn window(&mut self, window: Duration) -> Result<Window, String> {
        self.signal("CONT")?;
        std::thread::sleep(WARM);
        // What was said before the pause or in the first moments after it.
        while self.lines.try_recv().is_ok() {}
        let first = self.read(SILENCE)?;
        let (begin, before) = (Instant::now(), self.time_on_core());
        if self.tongue == Tongue::Testpmd {
            std::thread::sleep(window);
        }
        let mut second = self.read(SILENCE)?;
        while second.at < first.at + window.as_nanos() as u64 * 99 / 100 {
            second = self.read(SILENCE)?;
        }
        let (took, after) = (begin.elapsed(), self.time_on_core());
        self.signal("STOP")?;
        let spent = after.iter().map(|(thread, ns)| ns - before.get(thread).unwrap_or(ns));
        let mut shares: Vec<f64> = spent.map(|ns| (ns as f64 / took.as_nanos() as f64).min(1.0)).collect();
        shares.sort_by(f64::total_cmp);
        // Where the kernel does not tell, none.
        let busiest = &shares[shares.len().saturating_sub(self.forwarding)..];
        Ok(Window {
            received: second.received - first.received,
            sent: second.sent - first.sent,
            nanos: second.at - first.at,
            share: if busiest.is_empty() { 1.0 } else { busiest.iter().sum::<f64>() / busiest.len() as f64 },
            least_share: busiest.first().copied().unwrap_or(1.0),
        })
    }

    /// Nanoseconds that each thread has had a core so far; empty where the kernel does not tell.
    fn time_on_core(&self) -> HashMap<OsString, u64> {
        let Ok(threads) = std::fs::read_dir(format!("/proc/{}/task", self.child.id())) else {
            return HashMap::new();
        };
        let spent = |thread: std::fs::DirEntry| {
            let text = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
            Some((thread.file_name(), text.split(' ').next()?.parse().ok()?))
        };
        threads.filter_map(|thread| spent(thread.ok()?)).collect()
    }

    /// Ends it in its own way and returns the last lines that it printed.
    pub fn end(mut self) -> Result<Vec<String>, String> {
        self.signal("CONT")?;
        match self.tongue {
            Tongue::Testpmd => self.say("stop\nquit\n")?,
            Tongue::Sluicegate => self.signal("TERM")?,
        }
        let deadline = Instant::now() + SILENCE;
        while let Ok(line) = self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            self.keep(line);
        }
        let status = self.child.wait().map_err(|e| self.trouble(&e.to_string()))?;
        if !status.success() {
            return Err(self.trouble(&format!("ended with {status}")));
        }
        Ok(std::mem::take(&mut self.last).into())
    }

    fn read(&mut self, patience: Duration) -> Result<Reading, String> {
        let deadline = Instant::now() + patience;
        if self.tongue == Tongue::Testpmd {
            self.say("show port stats 0\n")?;
        }
        let mut received = None;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = match self.lines.recv_timeout(left) {
                Ok(line) => line,
                Err(RecvTimeoutError::Timeout) => return Err(self.trouble("says nothing")),
                Err(RecvTimeoutError::Disconnected) => return Err(self.trouble("is gone")),
            };
            match self.tongue {
                Tongue::Testpmd => {
                    received = field(&line, "RX-packets:").or(received);
                    if let (Some(received), Some(sent)) = (received, field(&line, "TX-packets:")) {
                        return Ok(Reading { at: self.born.elapsed().as_nanos() as u64, received, sent });
                    }
                }
                Tongue::Sluicegate => {
                    if let Some(reading) = crate::gate::reading(&line) {
                        return Ok(reading);
                    }
                }
            }
            self.keep(line);
        }
    }

    fn keep(&mut self, line: String) {
        if self.last.len() == 200 {
            self.last.pop_front();
        }
        self.last.push_back(line);
    }

    fn say(&mut self, text: &str) -> Result<(), String> {
        let Some(stdin) = self.stdin.as_mut() else { return Ok(()) };
        let said = stdin.write_all(text.as_bytes()).and_then(|()| stdin.flush());
        said.or_else(|e| if text.is_empty() { Ok(()) } else { Err(self.trouble(&e.to_string())) })
    }

    /// The shell's `kill`: there on every system, and no unsafe call here.
    fn signal(&self, signal: &str) -> Result<(), String> {
        let pid = self.child.id().to_string();
        let status = Command::new("sh").args(["-c", "kill -s \"$1\" \"$2\"", "sh", signal, &pid]).status();
        match status {
            Ok(status) if status.success() => Ok(()),
            _ => Err(self.trouble("cannot be signalled")),
        }
    }

    fn trouble(&self, what: &str) -> String {
        let last: Vec<_> = self.last.iter().rev().take(15).rev().map(String::as_str).collect();
        format!("{} {what}; it last said:\n  {}", self.name, last.join("\n  "))
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        // After an error: nothing that we started may stay behind, least of all a stopped process with its pages.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The number behind a label of testpmd's table.
fn field(line: &str, label: &str) -> Option<u64> {
    let (_, rest) = line.split_once(label)?;
    rest.split_whitespace().next()?.parse().ok()
}
