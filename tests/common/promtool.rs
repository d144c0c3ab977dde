//! Prometheus' own checker, where it is installed.

use std::io::Write;
use std::process::{Command, Stdio};

/// Success and output of a command that is given a text.
pub fn piped(command: &mut Command, text: &str) -> (bool, String) {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let (mut input, text) = (child.stdin.take().expect("a pipe"), text.to_owned());
    let writing = std::thread::spawn(move || input.write_all(text.as_bytes()));
    let output = child.wait_with_output().expect("its output");
    let _ = writing.join().expect("no panic"); // it may have seen enough
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    (output.status.success(), text.concat())
}

/// Runs Prometheus' own checker, if it is there.
pub fn promtool(args: &[&str], input: Option<&str>) {
    if Command::new("promtool").arg("--version").output().is_err() {
        super::skipped(&format!("promtool {}", args.join(" ")), "no promtool here");
        return;
    }
    let (fine, said) = piped(Command::new("promtool").args(args), input.unwrap_or_default());
    assert!(fine, "promtool {args:?}: {said}");
}
