//! What came of a scenario.

use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

use super::probe::Figures;

/// How a step ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum How {
    /// It was done, and what was expected held. What there is to say of it.
    Well(String),
    /// It could not be done, or what was expected did not hold.
    Badly(String),
    /// It was left out: a program is not here that need not be.
    LeftOut(String),
}

/// A step that is over.
#[derive(Clone, Debug)]
pub struct Done {
    /// Its line in the file.
    pub line: usize,
    /// What it is called.
    pub name: String,
    /// From the beginning of the scenario to its end.
    pub at: Duration,
    /// How it ended.
    pub how: How,
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mark, text) = match &self.how {
            How::Well(text) => ("ok  ", text),
            How::Badly(text) => ("FAIL", text),
            How::LeftOut(text) => ("left out", text),
        };
        let mut lines = text.lines();
        let first = lines.next().unwrap_or_default();
        write!(f, "{:>7.1} s  {mark}  {}", self.at.as_secs_f64(), self.name)?;
        if !first.is_empty() {
            write!(f, ": {first}")?;
        }
        lines.try_for_each(|line| write!(f, "\n                 {line}"))
    }
}

/// All of it.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The scenario's file.
    pub file: String,
    /// What it is about.
    pub about: String,
    /// Steps, as far as it got.
    pub steps: Vec<Done>,
    /// Steps there are in all.
    pub of: usize,
    /// Figures of all traffic.
    pub windows: Vec<Figures>,
    /// The last that processes said, if something went wrong.
    pub said: Vec<(String, String)>,
}

impl Report {
    /// Was everything done, and did everything hold?
    pub fn holds(&self) -> bool {
        self.steps.len() == self.of && !self.steps.iter().any(|done| matches!(done.how, How::Badly(_)))
    }

    /// What was left out, one sentence each.
    pub fn left_out(&self) -> Vec<String> {
        let of = |done: &Done| match &done.how {
            How::LeftOut(why) => Some(format!("left out, line {}: {}: {why}", done.line, done.name)),
            _ => None,
        };
        self.steps.iter().filter_map(of).collect()
    }

    /// One sentence.
    pub fn verdict(&self) -> String {
        let bad = self.steps.iter().filter(|done| matches!(done.how, How::Badly(_))).count();
        let left = self.of.saturating_sub(self.steps.len());
        match (bad, left) {
            (0, 0) => format!("{}: everything held", self.file),
            (0, left) => format!("{}: ended {left} steps early", self.file),
            (bad, 0) => format!("{}: {bad} of {} steps did not hold", self.file, self.of),
            (bad, left) => format!("{}: {bad} steps did not hold, and {left} were not reached", self.file),
        }
    }

    /// As JSON.
    pub fn to_json(&self) -> Value {
        let steps: Vec<Value> = self
            .steps
            .iter()
            .map(|done| {
                let (outcome, text) = match &done.how {
                    How::Well(text) => ("ok", text),
                    How::Badly(text) => ("failed", text),
                    How::LeftOut(text) => ("left-out", text),
                };
                json!({ "line": done.line, "step": done.name, "at_ms": done.at.as_millis() as u64, "outcome": outcome, "text": text })
            })
            .collect();
        let said: Value =
            self.said.iter().map(|(name, said)| json!({ "process": name, "said": said })).collect();
        json!({
            "scenario": self.file, "about": self.about, "holds": self.holds(), "steps": steps, "of": self.of, "windows": self.windows,
            "said": said,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(hows: &[How], of: usize) -> Report {
        let done = |how: &How| Done {
            line: 7,
            name: "curl".into(),
            at: Duration::from_millis(1500),
            how: how.clone(),
        };
        Report { file: "s.toml".into(), steps: hows.iter().map(done).collect(), of, ..Report::default() }
    }

    #[test]
    fn only_what_was_done_and_held_is_well() {
        let (well, badly, left_out) =
            (How::Well("".into()), How::Badly("no".into()), How::LeftOut("no iperf3 here".into()));
        let all = report(&[well.clone(), left_out.clone()], 2);
        assert!(all.holds());
        assert_eq!(all.verdict(), "s.toml: everything held");
        assert_eq!(all.left_out(), ["left out, line 7: curl: no iperf3 here"]);
        let early = report(std::slice::from_ref(&well), 2);
        assert!(!early.holds());
        assert_eq!(early.verdict(), "s.toml: ended 1 steps early");
        let bad = report(&[well, badly.clone()], 2);
        assert!(!bad.holds());
        assert_eq!(bad.verdict(), "s.toml: 1 of 2 steps did not hold");
        assert_eq!(report(&[badly], 3).verdict(), "s.toml: 1 steps did not hold, and 2 were not reached");
        let json = bad.to_json();
        assert_eq!((&json["holds"], &json["steps"][1]["outcome"]), (&json!(false), &json!("failed")));
        assert_eq!(bad.steps[1].to_string(), "    1.5 s  FAIL  curl: no");
    }
}
