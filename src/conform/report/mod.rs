//! What was found: for people, as JSON, as JUnit XML.

mod junit;

use std::fmt::Write as _;

use serde_json::json;

use super::checks::{Check, Level};

pub use junit::junit;

/// What became of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// As demanded.
    Passed,
    /// Not as demanded.
    Failed,
    /// It could not be told.
    NotJudged,
}

/// One check.
#[derive(Clone, Debug)]
pub struct Found {
    /// Which.
    pub check: &'static Check,
    /// How much it is demanded.
    pub level: Level,
    /// What became of it.
    pub verdict: Verdict,
    /// Why, or a remark.
    pub text: String,
    /// How long it took.
    pub seconds: f64,
}

/// All of them.
#[derive(Clone, Debug)]
pub struct Report {
    /// The appliance.
    pub target: String,
    /// The load balancer that was played.
    pub profile: &'static str,
    /// What numbers came from.
    pub seed: u64,
    /// How long it took.
    pub seconds: f64,
    /// It was stopped before all checks had run.
    pub interrupted: bool,
    /// Each check, in their order.
    pub found: Vec<Found>,
}

/// Marks of one level.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Score {
    /// Checks that passed.
    pub passed: usize,
    /// Checks that were judged.
    pub judged: usize,
    /// Checks that could not be.
    pub not_judged: usize,
}

impl Report {
    /// The marks of a level.
    pub fn score(&self, level: Level) -> Score {
        let mut score = Score::default();
        for found in self.found.iter().filter(|found| found.level == level) {
            score.passed += usize::from(found.verdict == Verdict::Passed);
            score.judged += usize::from(found.verdict != Verdict::NotJudged);
            score.not_judged += usize::from(found.verdict == Verdict::NotJudged);
        }
        score
    }

    /// Is this one that makes the whole a failure? Strictly, whatever did not pass is one.
    pub fn fails(found: &Found, strict: bool) -> bool {
        match strict {
            true => found.verdict != Verdict::Passed && found.level != Level::Remark,
            false => found.verdict == Verdict::Failed && found.level == Level::Must,
        }
    }

    /// Nothing failed that had to pass, and something was judged.
    pub fn passes(&self, strict: bool) -> bool {
        !self.interrupted
            && self.found.iter().any(|found| found.verdict != Verdict::NotJudged)
            && !self.found.iter().any(|found| Self::fails(found, strict))
    }

    /// Everything passed.
    pub fn full_marks(&self) -> bool {
        self.passes(true)
    }

    /// The last lines for people.
    pub fn summary(&self) -> String {
        let (musts, shoulds) = (self.score(Level::Must), self.score(Level::Should));
        let mut text = format!(
            "{}: {} of {} musts, {} of {} shoulds",
            self.target, musts.passed, musts.judged, shoulds.passed, shoulds.judged
        );
        let unjudged = musts.not_judged + shoulds.not_judged;
        if unjudged > 0 {
            let _ = write!(text, ", {unjudged} not judged");
        }
        if self.interrupted {
            text += ", interrupted";
        } else if self.full_marks() {
            text += ": full marks";
        }
        text
    }

    /// As one JSON object.
    pub fn json(&self, strict: bool) -> serde_json::Value {
        let checks: Vec<_> = self.found.iter().map(one).collect();
        json!({
            "target": self.target, "profile": self.profile, "seed": self.seed, "seconds": self.seconds,
            "interrupted": self.interrupted, "passes": self.passes(strict), "full_marks": self.full_marks(),
            "score": { "musts": self.score(Level::Must), "shoulds": self.score(Level::Should) },
            "checks": checks,
        })
    }
}

fn one(found: &Found) -> serde_json::Value {
    let Check { id, demand, source, .. } = found.check;
    json!({
        "id": id, "level": found.level, "verdict": found.verdict, "text": found.text, "demand": demand,
        "source": source, "seconds": found.seconds,
    })
}
