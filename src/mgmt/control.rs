//! Commands for the management loop, by the admin API: `POST /v1/command`, with a line of JSON for each.
//!
//! ```text
//! {"version":1,"command":"reload"}
//! {"version":1,"ok":true,"outcome":"done","stages":{...},...}
//! {"version":1,"ok":false,"error":"busy","text":"a reload is under way"}
//! ```
//!
//! What is asked goes to the loop through a bounded channel, and the connection's thread waits for what becomes of it: no client can hold up the
//! management side or another client.

use std::path::PathBuf;
use std::time::Duration;

use crossbeam::channel::Sender;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::admin::VERSION;
use crate::app::Reloaded;

/// Bytes of a command.
pub const LONGEST: usize = super::http::LONGEST_BODY;
/// Commands that wait.
pub const WAITING: usize = 8;
/// How long a command may take: tens of thousands of rules take a while to build.
pub const LONGEST_COMMAND: Duration = Duration::from_secs(120);

/// What can be asked.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Command {
    /// Load the configuration anew.
    Reload,
    /// Load a candidate beside it.
    Shadow {
        /// Its file, from the root of the file system.
        file: PathBuf,
    },
    /// What has the candidate come to?
    ShadowStatus,
    /// Put the candidate in force.
    Promote,
    /// Let the candidate go.
    CancelShadow,
    /// Leave: no new flows are wanted, and when those that are there are over, or at the deadline, the program ends.
    Drain {
        /// Milliseconds from now; `None`: the plan's, or what was said before.
        deadline_ms: Option<u64>,
    },
    /// What `doctor` wants to know of ports and queues.
    Facts,
}

/// What is answered to a command that was obeyed.
#[derive(Debug)]
pub enum Answer {
    /// What became of a reload, or of a candidate.
    Reloaded(Reloaded),
    /// What was asked for.
    Facts(Value),
    /// How leaving is.
    Drain(Value),
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Request {
    version: u32,
    command: Command,
}

/// Why a request is not obeyed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// One word for programs.
    pub error: &'static str,
    /// One sentence for people.
    pub text: String,
    /// The place of a mistake in what was asked: of its first byte, and how many bytes.
    pub place: Option<(usize, usize)>,
}

impl Refusal {
    /// Why, in a word and in a sentence.
    pub fn new(error: &'static str, text: impl Into<String>) -> Self {
        Refusal { error, text: text.into(), place: None }
    }

    /// A mistake at a place of what was asked.
    pub fn at(text: String, at: usize, len: usize) -> Self {
        Refusal { error: "bad-request", text, place: Some((at, len)) }
    }

    /// As it is answered.
    pub fn to_json(&self) -> Value {
        let mut refusal = json!({ "version": VERSION, "ok": false, "error": self.error, "text": self.text });
        if let Some((at, len)) = self.place {
            (refusal["at"], refusal["length"]) = (at.into(), len.into());
        }
        refusal
    }
}

/// Reads one line.
pub fn parse(line: &[u8]) -> Result<Command, Refusal> {
    if line.len() > LONGEST {
        return Err(Refusal::new("too-long", format!("a command has at most {LONGEST} bytes")));
    }
    let refused = |error: serde_json::Error| Refusal::new("bad-request", format!("not a command: {error}"));
    // The version first: what another one looks like is not known.
    let value: Value = serde_json::from_slice(line).map_err(refused)?;
    match value.get("version").and_then(Value::as_u64) {
        Some(version) if version == u64::from(VERSION) => {}
        Some(other) => {
            return Err(Refusal::new("version", format!("version {other} is not spoken here; {VERSION} is")));
        }
        None => return Err(Refusal::new("bad-request", "\"version\" is missing")),
    }
    serde_json::from_value::<Request>(value).map(|request| request.command).map_err(refused)
}

/// A command as a client writes it, with its line end.
pub fn request(command: Command) -> String {
    let request = serde_json::to_string(&Request { version: VERSION, command });
    request.unwrap_or_default() + "\n" // plain data: it cannot fail
}

/// What became of a command, as it is answered.
pub fn answer(outcome: &Result<Reloaded, Refusal>) -> Value {
    match outcome {
        Err(refusal) => refusal.to_json(),
        Ok(reloaded) => {
            let mut answer = serde_json::to_value(reloaded).unwrap_or_default(); // likewise
            if let Some(fields) = answer.as_object_mut() {
                fields.insert("version".into(), VERSION.into());
                fields.insert("ok".into(), reloaded.is_good().into());
                fields.insert("lines".into(), reloaded.lines().into());
            }
            answer
        }
    }
}

/// What is answered to a command that was obeyed.
pub fn reply(outcome: Answer) -> Value {
    match outcome {
        Answer::Reloaded(reloaded) => answer(&Ok(reloaded)),
        Answer::Drain(drain) => json!({ "version": VERSION, "ok": true, "drain": drain }),
        Answer::Facts(facts) => json!({ "version": VERSION, "ok": true, "facts": facts }),
    }
}

/// A command that waits for what becomes of it.
#[derive(Debug)]
pub struct Asked {
    /// What is asked.
    pub command: Command,
    /// By whom: the user and the process at the other end.
    pub by: String,
    answer: Sender<Result<Answer, Refusal>>,
}

impl Asked {
    /// A command; what becomes of it goes there.
    pub fn new(command: Command, by: &str, answer: Sender<Result<Answer, Refusal>>) -> Self {
        Asked { command, by: by.to_owned(), answer }
    }

    /// Says what became of it.
    pub fn answer(self, outcome: Result<Reloaded, Refusal>) {
        let _ = self.answer.try_send(outcome.map(Answer::Reloaded)); // whoever asked may be gone
    }

    /// Gives the facts.
    pub fn tell(self, facts: Value) {
        let _ = self.answer.try_send(Ok(Answer::Facts(facts))); // likewise
    }

    /// Says how leaving is.
    pub fn drains(self, drain: Value) {
        let _ = self.answer.try_send(Ok(Answer::Drain(drain))); // likewise
    }

    /// It is not done, for this reason.
    pub fn is_wrong(self, text: String) {
        self.answer(Err(Refusal::new("bad-request", text)));
    }

    /// Something else is under way.
    pub fn is_busy(self, text: String) {
        self.answer(Err(Refusal::new("busy", text)));
    }

    /// There is nothing of that kind.
    pub fn is_absent(self, text: &str) {
        self.answer(Err(Refusal::new("none", text)));
    }
}

/// One case of the fuzz target `mgmt_control`: any bytes are a command or a refusal that can be said in one line.
#[doc(hidden)]
pub fn arbitrary_input(bytes: &[u8]) {
    match parse(bytes) {
        Ok(command) => {
            assert!(bytes.len() <= LONGEST);
            assert_eq!(parse(request(command.clone()).trim_end().as_bytes()), Ok(command));
        }
        Err(refusal) => {
            let said = answer(&Err(refusal)).to_string();
            assert!(said.starts_with('{') && !said.contains('\n') && said.len() < 2 * LONGEST, "{said}");
        }
    }
}

#[cfg(test)]
mod tests;
