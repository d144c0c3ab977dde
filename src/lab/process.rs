//! Processes of a lab: started in a namespace, known by number and start time, ended.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use super::{Error, MARK, Name};

/// How long a process may take to end by itself.
const PATIENCE: Duration = Duration::from_secs(5);
/// From one look to the next.
const LOOK: Duration = Duration::from_millis(10);
/// Bytes at the end of a log that are shown.
const TAIL: usize = 1500;

/// A process: a number is given away again, a number with its start time is not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The number.
    pub pid: u32,
    /// When it was started, in ticks since the machine was.
    pub start: u64,
}

impl Identity {
    /// Of the process that has this number now.
    pub fn of(pid: u32) -> Option<Identity> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        start_time(&stat).map(|start| Identity { pid, start })
    }

    /// Ours.
    pub fn here() -> Option<Identity> {
        Identity::of(std::process::id())
    }

    /// Is it still there? One that has ended and waits to be asked for its exit code is not.
    pub fn is_alive(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        start_time(&stat) == Some(self.start) && !is_over(&stat)
    }

    /// Sends a signal, if it is still the same process.
    pub fn signal(&self, signal: Signal) {
        if self.is_alive()
            && let Some(pid) = Pid::from_raw(self.pid as i32)
        {
            let _ = kill_process(pid, signal); // it has ended meanwhile
        }
    }

    /// Ends it: it is asked first, unless there is no time for that.
    pub fn end(&self, politely: bool) {
        if politely {
            self.signal(Signal::TERM);
            self.wait(PATIENCE);
        }
        self.signal(Signal::KILL);
        self.wait(PATIENCE);
    }

    fn wait(&self, longest: Duration) {
        let deadline = Instant::now() + longest;
        while self.is_alive() && Instant::now() < deadline {
            std::thread::sleep(LOOK);
        }
    }
}

/// Field 22 of `/proc/PID/stat` (proc(5)). The name in field 2 may have blanks and brackets in it.
fn start_time(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(19)?.parse().ok()
}

fn is_over(stat: &str) -> bool {
    let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().next());
    matches!(state, Some("Z" | "X"))
}

/// Processes, other than this one, that carry the lab's mark.
pub fn marked(lab: &Name) -> Vec<Identity> {
    let mark = format!("{MARK}={}", lab.as_str());
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| *pid != std::process::id())
        .filter(|pid| {
            let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
        })
        .filter_map(Identity::of)
        .collect()
}

/// A command in one of the lab's namespaces, marked as the lab's. `ip netns exec` becomes the program, so the process is the program's.
pub fn command(lab: &Name, namespace: &str, arguments: &[String]) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace]).args(arguments).env(MARK, lab.as_str());
    command
}

/// Starts what goes on: nothing on its standard input, a log for what it says, and a process group of its own, so that a Ctrl-C for the lab is not one for it.
pub fn start(command: &mut Command, log: &Path) -> Result<Child, Error> {
    use std::os::unix::process::CommandExt;

    let out = File::create(log).map_err(|error| Error::file(log, error))?;
    let err = out.try_clone().map_err(|error| Error::file(log, error))?;
    command.stdin(Stdio::null()).stdout(out).stderr(err).process_group(0);
    command
        .spawn()
        .map_err(|error| Error::Command { command: "ip netns exec".into(), said: error.to_string() })
}

/// The end of a log.
pub fn tail(log: &Path) -> String {
    let bytes = std::fs::read(log).unwrap_or_default();
    let end = bytes.get(bytes.len().saturating_sub(TAIL)..).unwrap_or_default();
    let text = String::from_utf8_lossy(end);
    match (bytes.len() > TAIL, text.split_once('\n')) {
        (true, Some((_, whole))) => whole.to_owned(),
        _ => text.into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_start() {
        let stat =
            "12 (a (b) c) S 1 12 12 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4711 100 20 18446744073709551615";
        assert_eq!((start_time(stat), is_over(stat)), (Some(4711), false));
        assert!(is_over("12 (x) Z 1"));
        assert_eq!(start_time("12 (x) S 1"), None);
        let here = Identity::here().expect("this process");
        assert!(here.is_alive());
        assert!(!Identity { start: here.start + 1, ..here }.is_alive(), "another process with that number");
    }

    #[test]
    fn processes_are_ended() {
        let mut child = Command::new("sleep").arg("1000").spawn().expect("sleep");
        let identity = Identity::of(child.id()).expect("it runs");
        // Another one that had this number is not this one.
        Identity { start: identity.start + 1, ..identity.clone() }.end(false);
        assert!(identity.is_alive());
        identity.end(false);
        assert!(!identity.is_alive());
        child.wait().expect("it has ended");
        assert!(!identity.is_alive());
    }
}
