//! What the program logs: to standard error, as text or JSON, as much as it is told to, and more or less of it while it runs. Over DPDK.
#![cfg(all(feature = "dpdk", feature = "program"))]

mod common;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::Value;

/// The program at work, and what it logs.
struct Logged {
    child: Child,
    lines: Receiver<String>,
    prefix: String,
    _folder: tempfile::TempDir,
}

impl Logged {
    fn start(name: &str, more: &[&str]) -> Logged {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("edge.toml");
        let prefix = common::prefix(name);
        let text = format!(
            "[tunnel]\nallowed_sources = [\"10.254.11.0/24\"]\n[eal]\nmemory = \"no-huge\"\nidle = \"backoff\"\nfile_prefix = \"{prefix}\"\n\
             [[port]]\ndevice = \"net_null0\"\n[management]\nsocket = \"off\"\n[management.health]\nhold = \"0s\"\n[[stage]]\nuse = \"count\"\nby = \"direction\"\n"
        );
        std::fs::write(&file, text).expect("a file");
        let mut child = Command::new(env!("CARGO_BIN_EXE_sluicegate"))
            .arg("run")
            .arg(&file)
            .args(["--stats-interval", "0s"])
            .args(more)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let error = BufReader::new(child.stderr.take().expect("a pipe"));
        let (say, lines) = channel();
        std::thread::spawn(move || error.lines().map_while(Result::ok).try_for_each(|line| say.send(line)));
        Logged { child, lines, prefix, _folder: folder }
    }

    /// The next line with this in it.
    fn line(&self, what: &str) -> String {
        loop {
            let line =
                self.lines.recv_timeout(Duration::from_secs(20)).unwrap_or_else(|_| panic!("no {what:?}"));
            if line.contains(what) {
                return line;
            }
        }
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill").args([name, &self.child.id().to_string()]).status();
        assert!(status.expect("kill").success());
    }

    /// Ends it; what it logged until then.
    fn stop(mut self) -> Vec<String> {
        self.signal("-TERM");
        assert_eq!(self.child.wait().expect("it ends").code(), Some(0));
        common::assert_nothing_left(&self.prefix);
        self.lines.iter().collect()
    }
}

#[test]
fn json_lines_have_level_target_and_fields() {
    let logged = Logged::start("json", &["--log-format", "json"]);
    let given_up: Value = serde_json::from_str(&logged.line("given up")).expect("JSON");
    assert_eq!((&given_up["level"], &given_up["target"]), (&"INFO".into(), &"privileges".into()));
    assert!(given_up["threads"].as_u64() > Some(2), "{given_up}");
    let ready: Value = serde_json::from_str(&logged.line("\"health\"")).expect("JSON");
    assert_eq!((&ready["message"], &ready["from"]), (&"ready".into(), &"starting".into()), "{ready}");
    // A reload is logged as well, by the level that it deserves.
    logged.signal("-HUP");
    let same: Value = serde_json::from_str(&logged.line("nothing has changed")).expect("JSON");
    assert_eq!((&same["level"], &same["target"]), (&"INFO".into(), &"reload".into()));
    std::fs::write(logged._folder.path().join("edge.toml"), "nonsense = 1\n").expect("a file");
    logged.signal("-HUP");
    let wrong: Value = serde_json::from_str(&logged.line("refused")).expect("JSON");
    assert_eq!(wrong["level"], "WARN");
    for line in logged.stop() {
        assert!(serde_json::from_str::<Value>(&line).is_ok(), "{line}");
    }
}

#[test]
fn the_level_is_what_was_asked_for_and_changes_by_signals() {
    let logged = Logged::start("level", &["--log-level", "error"]);
    std::thread::sleep(Duration::from_millis(800));
    assert!(logged.lines.try_iter().all(|line| line.starts_with("EAL:")), "an error is not to be had");
    logged.signal("-USR1");
    assert!(logged.line("the level is another one now").contains("level=\"warn\""));
    logged.signal("-USR1");
    assert!(logged.line("the level is another one now").contains("level=\"info\""));
    logged.signal("-HUP");
    assert!(logged.line("nothing has changed").contains(" INFO reload: "));
    logged.signal("-USR2");
    assert!(logged.line("the level is another one now").contains("level=\"warn\""));
    logged.stop();
    // Nothing at all; and words that are none.
    let quiet = Logged::start("off", &["--log", "off"]);
    std::thread::sleep(Duration::from_millis(800));
    assert!(quiet.stop().iter().all(|line| line.starts_with("EAL:")));
    let mut wrong = Logged::start("wrong", &["--log-level", "loud"]);
    assert_eq!(wrong.child.wait().expect("it ends").code(), Some(2));
    assert!(wrong.line("--log-level loud").contains("write error, warn, info, debug or trace"));
}

/// The journal's socket, as the program sees it, is this test's: in a mount namespace of its own. Needs root.
#[test]
fn the_journal_gets_messages_with_their_fields() {
    const TEST: &str = "the_journal_gets_messages_with_their_fields";
    let folder = tempfile::tempdir().expect("a folder");
    let journal = std::os::unix::net::UnixDatagram::bind(folder.path().join("socket")).expect("a socket");
    journal.set_read_timeout(Some(Duration::from_secs(20))).expect("a time");
    let prefix = common::prefix("journal");
    let file = folder.path().join("edge.toml");
    let text = format!(
        "[tunnel]\nallowed_sources = [\"10.254.11.0/24\"]\n[eal]\nmemory = \"no-huge\"\nidle = \"backoff\"\nfile_prefix = \"{prefix}\"\n\
         [[port]]\ndevice = \"net_null0\"\n[management]\nsocket = \"off\"\n"
    );
    std::fs::write(&file, text).expect("a file");
    let run = format!(
        "mount -t tmpfs none /run && mkdir -p /run/systemd/journal && mount --bind {} /run/systemd/journal && \
         exec {} run {} --stats-interval 0s --log journald --duration 1s",
        folder.path().display(),
        env!("CARGO_BIN_EXE_sluicegate"),
        file.display()
    );
    let may = Command::new("unshare").args(["-m", "true"]).stderr(Stdio::null()).status();
    if !may.is_ok_and(|status| status.success()) {
        return common::skipped(TEST, "it needs root to make a mount namespace");
    }
    let output = Command::new("unshare").args(["-m", "sh", "-c", &run]).output().expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut bytes = [0; 65536];
    let mut all = String::new();
    while !all.contains("given up") {
        let n = journal.recv(&mut bytes).expect("a message");
        all = String::from_utf8_lossy(&bytes[..n]).into_owned();
    }
    assert!(
        ["PRIORITY", "TARGET", "privileges", "SLUICEGATE_THREADS"].iter().all(|word| all.contains(word)),
        "{all}"
    );
}
