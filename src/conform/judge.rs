//! Runs the checks, one after another.

use std::io;
use std::time::Instant;

use super::Settings;
use super::checks::{self, Check, Level};
use super::report::{Found, Report, Verdict};
use super::session::{Session, Stop};
use super::wire::Wire;

/// The check without which nothing can be judged, and groups that can be all the same.
const FIRST: &str = "envelope.returned";
const APART: [&str; 1] = ["health."];

/// Who looks on.
pub trait Watch {
    /// A check begins, the n-th of so many.
    fn begins(&mut self, check: &Check, n: usize, of: usize);
    /// It is over.
    fn found(&mut self, found: &Found);
    /// True: no more checks.
    fn stop(&self) -> bool;
}

/// Nobody.
impl Watch for () {
    fn begins(&mut self, _: &Check, _: usize, _: usize) {}
    fn found(&mut self, _: &Found) {}
    fn stop(&self) -> bool {
        false
    }
}

/// Runs these checks. Fails only if the way to the appliance is broken.
pub fn judge(
    wire: &mut dyn Wire,
    settings: &Settings,
    checks: &[&'static Check],
    watch: &mut dyn Watch,
) -> io::Result<Report> {
    let began = Instant::now();
    let target = wire.appliance().to_string();
    let mut found: Vec<Found> = Vec::new();
    for (n, check) in checks.iter().enumerate() {
        if watch.stop() {
            break;
        }
        watch.begins(check, n + 1, checks.len());
        let start = Instant::now();
        let (verdict, text) = match missing(check, &found) {
            Some(needed) => (Verdict::NotJudged, format!("it needs {needed}, which did not pass")),
            None => run(wire, settings, check)?,
        };
        let level = level(check, settings);
        let one = Found { check, level, verdict, text, seconds: start.elapsed().as_secs_f64() };
        watch.found(&one);
        found.push(one);
    }
    let interrupted = found.len() < checks.len();
    let seconds = began.elapsed().as_secs_f64();
    Ok(Report { target, profile: settings.profile.name, seed: settings.seed, seconds, interrupted, found })
}

/// A floor makes a demand of what is a remark otherwise.
fn level(check: &Check, settings: &Settings) -> Level {
    match check.level {
        Level::Remark if settings.min_kpps.is_some() => Level::Must,
        level => level,
    }
}

/// What a check needs and did not pass.
fn missing(check: &Check, found: &[Found]) -> Option<&'static str> {
    let apart = APART.iter().any(|group| check.id.starts_with(group));
    let first = (!apart && check.id != FIRST).then_some(FIRST);
    let failed = |id: &str| found.iter().any(|f| f.check.id == id && f.verdict != Verdict::Passed);
    first.into_iter().chain(check.needs.iter().copied()).find(|id| failed(id))
}

fn run(wire: &mut dyn Wire, settings: &Settings, check: &Check) -> io::Result<(Verdict, String)> {
    let number = checks::all().position(|other| other.id == check.id).unwrap_or(0) as u64;
    let mut attempt = 0;
    loop {
        attempt += 1;
        // Flows of its own in each attempt.
        let stream = number << 8 | u64::from(attempt);
        match (check.run)(&mut Session::new(wire, settings, stream)) {
            Ok(remark) => {
                let again = (attempt > 1).then(|| format!("at attempt {attempt}"));
                let texts: Vec<String> = remark.into_iter().chain(again).collect();
                return Ok((Verdict::Passed, texts.join("; ")));
            }
            Err(Stop::Silent(_)) if attempt < settings.attempts => {}
            Err(Stop::Silent(why) | Stop::Wrong(why)) => return Ok((Verdict::Failed, why)),
            Err(Stop::Unjudged(why)) => return Ok((Verdict::NotJudged, why)),
            Err(Stop::Broken(error)) => return Err(error),
        }
    }
}
