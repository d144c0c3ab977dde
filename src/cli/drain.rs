//! `sluicegate drain`: asks a running instance to leave, and says how far it has come.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::instance::Instance;
use super::{FAILED, OK, Outcome, show};
use crate::mgmt::admin::client::{Client, Error};
use crate::mgmt::control::{self, Command};

/// From one look to the next: an instance that is done waits for a second, so that this sees it.
const LOOK: Duration = Duration::from_millis(250);

/// Ask a running instance to leave.
#[derive(Debug, Args)]
pub struct Drain {
    /// The pipeline file with which it was started, to find its socket; the only instance if there is neither this nor --socket
    file: Option<PathBuf>,
    /// Where it takes commands: its management.socket
    #[arg(long, value_name = "PATH", env = "SLUICEGATE_MANAGEMENT__SOCKET", conflicts_with = "file")]
    socket: Option<PathBuf>,
    /// It ends so long from now, flows or not: up to a day. Without this its management.drain_deadline; for one that drains already, what it has
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    deadline: Option<Duration>,
    /// Only ask: do not wait for its end
    #[arg(long)]
    no_wait: bool,
    /// As JSON, one object a line
    #[arg(long)]
    json: bool,
}

impl Drain {
    pub(super) fn run(self) -> Outcome {
        let client = Instance::named(self.file.clone(), self.socket.clone()).client()?;
        let deadline_ms = self.deadline.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        let answer = client.post("command", &[], &control::request(Command::Drain { deadline_ms }))?;
        self.show(&answer["drain"])?;
        if self.no_wait {
            return Ok(OK);
        }
        self.wait(&client, answer["drain"].clone())
    }

    /// Until it is gone.
    fn wait(&self, client: &Client, mut last: Value) -> Outcome {
        loop {
            std::thread::sleep(LOOK);
            let now = match client.get("status", &[]) {
                Ok(status) => status["drain"].clone(),
                // It is busy: what it says next will do.
                Err(Error::Refused { error, .. }) if matches!(error.as_str(), "busy" | "late") => continue,
                // It is gone, or is going.
                Err(_) => break,
            };
            let told = |drain: &Value| (drain["state"].clone(), drain["flows"].clone());
            let is_new = told(&now) != told(&last);
            last = now;
            if is_new {
                self.show(&last)?;
            }
            if last["state"] != "going" {
                break;
            }
        }
        match (last["state"].as_str(), last["flows"].as_u64()) {
            (Some("done"), _) | (Some("deadline"), Some(0)) => Ok(OK),
            (Some("deadline"), _) => Ok(FAILED),
            _ => {
                show::error("the instance ended before it was drained");
                Ok(FAILED)
            }
        }
    }

    fn show(&self, drain: &Value) -> Result<(), super::Failure> {
        if self.json {
            return show::print(format_args!("{drain}\n"));
        }
        let again = std::io::stdout().is_terminal() && drain["state"] == "going";
        let end = if again { "\x1b[K\r" } else { "\n" };
        show::print(format_args!("{}{end}", text(drain)))
    }
}

/// How far it has come, in a sentence.
pub fn text(drain: &Value) -> String {
    let flows = match drain["flows"].as_u64() {
        Some(1) => "1 flow".to_owned(),
        Some(n) => format!("{} flows", show::grouped(n)),
        None => "traffic".to_owned(),
    };
    let time = |key: &str| {
        let seconds = drain[key].as_f64().unwrap_or(0.0).ceil() as u64;
        humantime::format_duration(Duration::from_secs(seconds)).to_string()
    };
    match drain["state"].as_str() {
        Some("going") if drain["flows"] == 0 => {
            format!(
                "draining: no flow is left; it waits until load balancers know, {} at most",
                time("left_s")
            )
        }
        Some("going") => format!("draining: {flows} left, {} to the deadline", time("left_s")),
        Some("done") => format!("drained after {}: nothing is left", time("for_s")),
        Some("deadline") => format!("the deadline has passed after {}; cut: {flows}", time("for_s")),
        _ => "not draining".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_drain_is_told_in_sentences() {
        for (drain, said) in [
            (
                json!({ "state": "going", "flows": 1200, "left_s": 59.4 }),
                "draining: 1 200 flows left, 1m to the deadline",
            ),
            (
                json!({ "state": "going", "flows": 1, "left_s": 3.0 }),
                "draining: 1 flow left, 3s to the deadline",
            ),
            (
                json!({ "state": "going", "flows": null, "left_s": 3.0 }),
                "draining: traffic left, 3s to the deadline",
            ),
            (
                json!({ "state": "going", "flows": 0, "left_s": 9.0 }),
                "draining: no flow is left; it waits until load balancers know, 9s at most",
            ),
            (json!({ "state": "done", "flows": 0, "for_s": 30.0 }), "drained after 30s: nothing is left"),
            (
                json!({ "state": "deadline", "flows": 7, "for_s": 60.2 }),
                "the deadline has passed after 1m 1s; cut: 7 flows",
            ),
            (Value::Null, "not draining"),
        ] {
            assert_eq!(text(&drain), said);
        }
    }
}
