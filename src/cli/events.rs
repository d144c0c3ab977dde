//! `sluicegate events`: what a running instance tells of packets and flows, as it tells it.

mod told;

pub use told::{line, plain};

use std::io::{BufRead, ErrorKind, Write};
use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::instance::{Instance, refused};
use super::{FAILED, Failure, OK, Outcome, show};

/// What a running instance tells, and how much.
#[derive(Debug, Args)]
pub struct Events {
    /// Terms that must all hold: type=alert,drop, stage=, tenant=, endpoint=, protocol=, address=, source=, destination=, port=, source-port=,
    /// destination-port=, reason= (why a packet was dropped)
    #[arg(value_name = "TERM")]
    filter: Vec<String>,
    #[command(flatten)]
    instance: Instance,
    /// Show each as it is told, until SIGINT; exit code 1 if the instance ends first. Without this, how many there were of each type
    #[arg(short, long)]
    follow: bool,
    /// Only of these types: type=
    #[arg(long = "type", value_name = "TYPE,...", requires = "follow")]
    types: Option<String>,
    /// Only of this tenant: tenant=
    #[arg(long, value_name = "NAME", requires = "follow")]
    tenant: Option<String>,
    /// Only what this stage tells: stage=
    #[arg(long, value_name = "NAME", requires = "follow")]
    stage: Option<String>,
    /// Stop after so many
    #[arg(short = 'c', long, value_name = "N", requires = "follow")]
    records: Option<u64>,
    /// Stop after so long
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, requires = "follow")]
    duration: Option<Duration>,
    /// As JSON: the records themselves, one a line
    #[arg(long)]
    json: bool,
}

impl Events {
    pub(super) fn run(self) -> Outcome {
        let client = self.instance.client()?;
        if !self.follow {
            if let Some(term) = self.filter.first() {
                return Err(Failure::Other(format!("{term}: a filter is for --follow")));
            }
            let stats = client.get("stats", &[])?;
            return match self.json {
                true => {
                    let told = serde_json::json!({
                        "events": stats["events"], "sinks": stats["sinks"], "followers": stats["followers"],
                    });
                    show::print(format_args!("{told}\n"))
                }
                false => show::print(counts(&stats)),
            }
            .map(|()| OK);
        }
        let named = [("type", &self.types), ("tenant", &self.tenant), ("stage", &self.stage)];
        let named = named.iter().filter_map(|(term, value)| Some(format!("{term}={}", value.as_ref()?)));
        let filter = self.filter.iter().cloned().chain(named).collect::<Vec<_>>().join(" ");
        let more = [("records", self.records), ("seconds", self.duration.map(|time| time.as_secs().max(1)))];
        let more: Vec<(&str, String)> =
            more.into_iter().filter_map(|(name, n)| Some((name, n?.to_string()))).collect();
        let mut query = vec![("filter", filter.as_str())];
        query.extend(more.iter().map(|(name, text)| (*name, text.as_str())));
        let begun = std::time::Instant::now();
        let mut stream = client.stream("events", &query).map_err(|error| refused(error, &filter))?;
        let (mut line, mut seen) = (Vec::new(), 0);
        loop {
            line.clear();
            match stream.read_until(b'\n', &mut line) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(Failure::Other(format!("the events broke off: {error}"))),
            }
            let text = String::from_utf8_lossy(&line);
            let record: Option<Value> = serde_json::from_str(&text).ok();
            let is_record = record.as_ref().is_none_or(|record| record["event_type"] != "missing");
            seen += u64::from(is_record);
            let shown = match record.filter(|_| !self.json) {
                Some(record) => told::line(&record) + "\n",
                None => text.into_owned(),
            };
            let mut out = std::io::stdout().lock();
            match out.write_all(shown.as_bytes()).and_then(|()| out.flush()) {
                // The reader has seen enough.
                Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(OK),
                written => written.map_err(|error| Failure::Other(format!("standard output: {error}")))?,
            }
        }
        let enough = self.records.is_some_and(|most| seen >= most)
            || self.duration.is_some_and(|time| begun.elapsed() >= time);
        if !enough {
            show::error("the instance has ended");
        }
        Ok(if enough { OK } else { FAILED })
    }
}

/// How many records there were of each type, and what became of them.
fn counts(stats: &Value) -> String {
    let n = |value: &Value| show::grouped(value.as_u64().unwrap_or(0));
    let mut table = show::table(&["type", "told", "lost", "left out"]);
    show::align_right(&mut table, &[1, 2, 3]);
    for (kind, counts) in stats["events"].as_object().into_iter().flatten() {
        // These do not go through rings of events, and have counters of their own.
        if !["flow", "flow_start", "stats", "reload", "health"].contains(&kind.as_str()) {
            table.add_row([kind.clone(), n(&counts["emitted"]), n(&counts["lost"]), n(&counts["limited"])]);
        }
    }
    let mut text = format!("{table}\n");
    for sink in stats["sinks"].as_array().into_iter().flatten() {
        let (name, written) = (sink["sink"].as_str().unwrap_or_default(), n(&sink["written"]));
        text += &format!("sink {name}: {written} written, {} lost\n", n(&sink["lost"]));
    }
    let followers = &stats["followers"];
    let (given, lost) = (n(&followers["given"]), n(&followers["lost"]));
    text + &format!("{} follow; {given} given to followers, {lost} lost\n", n(&followers["now"]))
}
