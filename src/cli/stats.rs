//! `sluicegate stats`: all counters of a running instance, and how fast they grow.

use std::time::{Duration, Instant};

use clap::Args;
use serde_json::Value;

use super::instance::Instance;
use super::watch::Screen;
use super::{OK, Outcome, show};

/// All counters of a running instance.
#[derive(Debug, Args)]
pub struct Stats {
    #[command(flatten)]
    instance: Instance,
    /// Counters whose name contains this
    #[arg(value_name = "PART")]
    only: Option<String>,
    /// Go on, with what each grew by in a second; ends with SIGINT
    #[arg(long)]
    watch: bool,
    /// From one look to the next, with --watch
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "1s")]
    every: Duration,
    /// Counters that are zero, too
    #[arg(long)]
    all: bool,
    /// As JSON, all of them; one object a line with --watch
    #[arg(long)]
    json: bool,
}

impl Stats {
    pub(super) fn run(self) -> Outcome {
        let client = self.instance.client()?;
        let mut screen = Screen::new(self.watch && !self.json);
        let mut before: Option<(Instant, Vec<(String, u64)>)> = None;
        loop {
            let (stats, now) = (client.get("stats", &[])?, Instant::now());
            if self.json {
                show::print(format_args!("{stats}\n"))?;
            } else {
                let counters = flat(&stats);
                screen.show(self.table(&counters, before.as_ref().map(|(at, old)| (now - *at, &old[..]))))?;
                before = Some((now, counters));
            }
            if !self.watch {
                return Ok(OK);
            }
            std::thread::sleep(self.every);
        }
    }

    fn table(&self, counters: &[(String, u64)], before: Option<(Duration, &[(String, u64)])>) -> String {
        let header: &[&str] = match self.watch {
            true => &["counter", "value", "a second"],
            false => &["counter", "value"],
        };
        let mut table = show::table(header);
        show::align_right(&mut table, &[1, 2]);
        let mut old = before.into_iter().flat_map(|(_, old)| old).peekable();
        for (name, n) in counters {
            // Both are in the same order, but for what is new.
            let was = old.next_if(|(other, _)| other == name).map(|(_, n)| *n);
            let asked = self.only.as_ref().is_none_or(|part| name.contains(part.as_str()));
            if !asked || (*n == 0 && !self.all) {
                continue;
            }
            let mut row = vec![name.clone(), show::grouped(*n)];
            if self.watch {
                let rate = before.zip(was).map(|((time, _), was)| {
                    show::si((*n).saturating_sub(was) as f64 / time.as_secs_f64().max(1e-3))
                        .trim_end()
                        .to_owned()
                });
                row.push(rate.unwrap_or_default());
            }
            table.add_row(row);
        }
        format!("{table}\n")
    }
}

/// Every whole number with its path: `stages.acl.dropped`. Elements of a list go by what they are called.
fn flat(stats: &Value) -> Vec<(String, u64)> {
    let mut counters = Vec::new();
    walk(String::new(), stats, &mut counters);
    counters.retain(|(name, _)| name != "version");
    counters
}

fn walk(path: String, value: &Value, into: &mut Vec<(String, u64)>) {
    let at = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                let names_itself = ["worker", "port", "queue", "stage", "sink"].contains(&key.as_str());
                if !names_itself || path.is_empty() {
                    walk(at(key), value, into);
                }
            }
        }
        Value::Array(list) => {
            for (n, element) in list.iter().enumerate() {
                let keys = ["stage", "sink", "queue", "worker", "port"];
                let name = keys.iter().find_map(|key| match element.get(*key)? {
                    Value::String(name) => Some(name.clone()),
                    Value::Number(n) => Some(n.to_string()),
                    _ => None,
                });
                walk(at(&name.unwrap_or_else(|| n.to_string())), element, into);
            }
        }
        value => into.extend(value.as_u64().map(|n| (path, n))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_a_name() {
        let stats = serde_json::json!({
            "version": 1, "ok": true, "received": 7, "uptime_s": 1.5, "drops": { "acl.deny": 2 },
            "stages": [{ "stage": "acl", "seen": 3, "counts": { "a rule": 1 } }],
            "workers": [{ "worker": 0, "queues": [{ "port": 0, "queue": 1, "received": 5 }] }],
        });
        let mut flat = flat(&stats);
        flat.sort();
        let named = flat.iter().map(|(name, n)| (name.as_str(), *n)).collect::<Vec<_>>();
        let expected = [
            ("drops.acl.deny", 2),
            ("received", 7),
            ("stages.acl.counts.a rule", 1),
            ("stages.acl.seen", 3),
            ("workers.0.queues.1.received", 5),
        ];
        assert_eq!(named, expected);
    }
}
