//! What there is to see: tables and figures, made of two answers of the admin API.
//!
//! Rates are differences of counters over the instance's own time, so a slow answer makes none wrong. An instance that has been up for less than
//! before has been started anew: there are no rates until the next answer. What an answer does not have (another version) is left out.

use std::collections::{HashMap, VecDeque};

use serde_json::Value;

use super::super::events::plain;
use super::super::show;

/// Looks that are remembered.
const REMEMBERED: usize = 512;

/// Answers of one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Sample {
    pub status: Value,
    pub stats: Value,
    /// Those with the most bytes; null where nobody looks at them.
    pub flows: Value,
    /// How many flows each tenant has; likewise.
    pub tenants: Value,
    pub why_no_flows: String,
}

/// Packets received and dropped in a second, of each look so far.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    pub received: VecDeque<f64>,
    pub dropped: VecDeque<f64>,
}

/// One place of a table: what is shown, and what it is sorted by. Words are sorted as words.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Cell {
    pub text: String,
    pub value: Option<f64>,
}

/// A table. Columns have a name, and figures stand to the right.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Table {
    pub columns: Vec<(&'static str, bool)>,
    pub rows: Vec<Vec<Cell>>,
    /// The column by which it is usually sorted, the most of it first.
    pub usual: Option<usize>,
    /// Why there is nothing.
    pub note: String,
}

/// Everything that can be seen.
#[derive(Clone, Debug, Default)]
pub(super) struct Picture {
    /// There has been an answer.
    pub known: bool,
    pub state: String,
    pub fit: bool,
    pub reasons: Vec<String>,
    /// Version, file and stages.
    pub what: String,
    pub up: String,
    pub policy: String,
    /// Events lost, pool and flows, in words: what matters most is first, because not all may have room.
    pub levels: Vec<String>,
    /// Of received, sent and dropped: packets and bytes in a second, as far as that is known.
    pub rates: [(f64, Option<f64>); 3],
    pub history: History,
    pub workers: Table,
    pub ports: Table,
    pub stages: Table,
    pub drops: Table,
    pub flows: Table,
    pub tenants: Table,
    pub events: VecDeque<String>,
    /// Why the picture is an old one.
    pub trouble: Option<String>,
}

fn word(value: &Value) -> Cell {
    let text = match value {
        Value::String(text) => plain(text),
        Value::Null => String::new(),
        other => other.to_string(),
    };
    Cell { value: value.as_f64(), text }
}

fn count(n: u64) -> Cell {
    Cell { text: show::grouped(n), value: Some(n as f64) }
}

fn rate(value: f64) -> Cell {
    Cell { text: show::si(value), value: Some(value) }
}

fn bits(bytes: f64) -> Cell {
    Cell { text: format!("{}bit/s", show::si(bytes * 8.0)), value: Some(bytes) }
}

fn percent(part: f64) -> Cell {
    Cell { text: format!("{:.1} %", part * 100.0), value: Some(part) }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

/// Two answers, and the time between them.
struct Between<'a> {
    before: &'a Value,
    seconds: Option<f64>,
}

impl Between<'_> {
    /// What a counter grew by in a second.
    fn rate(&self, now: &Value, before: &Value) -> f64 {
        match (self.seconds, before.as_u64()) {
            (Some(seconds), Some(before)) => number(now).saturating_sub(before) as f64 / seconds,
            _ => 0.0,
        }
    }

    /// The entry of a list that has the same name.
    fn same<'b>(&'b self, place: &str, key: &str, of: &Value) -> &'b Value {
        list(&self.before[place]).iter().find(|entry| entry[key] == of[key]).unwrap_or(&Value::Null)
    }
}

impl Picture {
    pub fn of(before: Option<&Sample>, now: &Sample, history: &mut History) -> Self {
        let (status, stats) = (&now.status, &now.stats);
        let old = before.map_or(&Value::Null, |before| &before.stats);
        let up = stats["uptime_s"].as_f64().unwrap_or(0.0);
        let passed = old["uptime_s"].as_f64().map(|old| up - old);
        let between = Between { before: old, seconds: passed.filter(|passed| *passed > 0.05) };
        if passed.is_some_and(|passed| passed < 0.0) {
            *history = History::default(); // another process
        }
        let of = |key: &str| between.rate(&stats[key], &old[key]);
        let rates = [
            (of("received"), Some(of("received_bytes"))),
            (of("sent"), Some(of("sent_bytes"))),
            (of("dropped"), None),
        ];
        if between.seconds.is_some() {
            for (list, rate) in [(&mut history.received, rates[0].0), (&mut history.dropped, rates[2].0)] {
                if list.len() >= REMEMBERED {
                    list.pop_front();
                }
                list.push_back(rate);
            }
        }
        let stages: Vec<String> = list(&status["stages"]).iter().map(|stage| word(stage).text).collect();
        let stages = if stages.is_empty() { "passthrough".into() } else { stages.join(" -> ") };
        let reason =
            |reason: &Value| format!("{}: {}", word(&reason["cause"]).text, word(&reason["text"]).text);
        Picture {
            known: true,
            state: word(&status["state"]).text,
            fit: status["fit"] == true,
            reasons: list(&status["reasons"]).iter().map(reason).collect(),
            what: format!("{}: {stages}", word(&status["file"]).text),
            up: humantime::format_duration(std::time::Duration::from_secs(up as u64)).to_string(),
            policy: word(&status["policy"]).text,
            levels: levels(status),
            rates,
            history: history.clone(),
            workers: workers(status, stats, &between),
            ports: ports(stats, &between),
            stages: self::stages(stats, &between),
            drops: drops(stats, &between),
            flows: flows(now, before, between.seconds),
            tenants: tenants(now),
            events: VecDeque::new(),
            trouble: None,
        }
    }
}

fn levels(status: &Value) -> Vec<String> {
    let n = |value: &Value| show::si(number(value) as f64).trim_end().to_owned();
    let flows = match &status["flows"] {
        Value::Null => "not followed".to_owned(),
        flows => format!("{} of {}", n(&flows["live"]), n(&flows["capacity"])),
    };
    let pool = &status["pool"];
    let free = number(&pool["available"]) as f64 / number(&pool["buffers"]).max(1) as f64 * 100.0;
    vec![
        format!("events lost {}", n(&status["events_lost"])),
        format!("pool {free:.0} %"),
        format!("flows {flows}"),
    ]
}

fn workers(status: &Value, stats: &Value, between: &Between<'_>) -> Table {
    let row = |worker: &Value| {
        let before = between.same("workers", "worker", worker);
        let told = list(&status["workers"]).iter().find(|told| told["worker"] == worker["worker"]);
        let told = told.unwrap_or(&Value::Null);
        let (received, cycles) = (
            between.rate(&worker["received"], &before["received"]),
            between.rate(&worker["busy_cycles"], &before["busy_cycles"]),
        );
        let per_packet = if received > 0.0 { cycles / received } else { 0.0 };
        let full =
            |of: &Value| list(&of["queues"]).iter().map(|queue| number(&queue["full_polls"])).sum::<u64>();
        let full = between.rate(&full(worker).into(), &full(before).into());
        vec![
            word(&worker["worker"]),
            word(&told["cpu"]),
            percent(told["rate"]["busy_ratio"].as_f64().unwrap_or(0.0)),
            rate(received),
            bits(between.rate(&worker["received_bytes"], &before["received_bytes"])),
            rate(per_packet),
            rate(full),
            rate(between.rate(&worker["handed_out"], &before["handed_out"])),
            count(number(&worker["flows"]["live"])),
            word(&told["place"]),
        ]
    };
    Table {
        columns: vec![
            ("worker", true),
            ("cpu", true),
            ("busy", true),
            ("packets/s", true),
            ("bits/s", true),
            ("cycles/pkt", true),
            ("full/s", true),
            ("handed/s", true),
            ("flows", true),
            ("at", false),
        ],
        rows: list(&stats["workers"]).iter().map(row).collect(),
        usual: None,
        note: "no worker".into(),
    }
}

fn ports(stats: &Value, between: &Between<'_>) -> Table {
    let row = |port: &Value| {
        let before = between.same("ports", "port", port);
        let (now, old) = (&port["stats"], &before["stats"]);
        let of = |key: &str| between.rate(&now[key], &old[key]);
        let link = if port["link"]["up"] == true { "up" } else { "down" };
        vec![
            word(&port["port"]),
            // Its arguments are no name of it, and take the room of figures.
            word(&port["device"].as_str().and_then(|device| device.split(',').next()).into()),
            word(&link.into()),
            rate(of("rx_packets")),
            bits(of("rx_bytes")),
            rate(of("rx_missed")),
            rate(of("tx_packets")),
            bits(of("tx_bytes")),
            rate(of("rx_no_buffer")),
            rate(of("rx_errors")),
        ]
    };
    Table {
        columns: vec![
            ("port", true),
            ("device", false),
            ("link", false),
            ("in/s", true),
            ("in", true),
            ("missed/s", true),
            ("out/s", true),
            ("out", true),
            ("no buffer/s", true),
            ("errors/s", true),
        ],
        rows: list(&stats["ports"]).iter().map(row).collect(),
        usual: None,
        note: "no port".into(),
    }
}

fn stages(stats: &Value, between: &Between<'_>) -> Table {
    let row = |stage: &Value| {
        let before = between.same("stages", "stage", stage);
        let of = |key: &str| rate(between.rate(&stage[key], &before[key]));
        vec![
            word(&stage["stage"]),
            of("seen"),
            of("passed_on"),
            of("sent_home"),
            of("dropped"),
            count(number(&stage["seen"])),
            count(number(&stage["dropped"])),
            count(number(&stage["panics"])),
        ]
    };
    Table {
        columns: vec![
            ("stage", false),
            ("seen/s", true),
            ("passed on/s", true),
            ("sent home/s", true),
            ("dropped/s", true),
            ("seen", true),
            ("dropped", true),
            ("panics", true),
        ],
        rows: list(&stats["stages"]).iter().map(row).collect(),
        usual: None,
        note: "no stage: everything passes".into(),
    }
}

fn drops(stats: &Value, between: &Between<'_>) -> Table {
    let row = |(label, n): (&String, &Value)| {
        // One that is not there yet has never happened.
        let before = between.before["drops"].get(label).cloned().unwrap_or_else(|| 0.into());
        vec![word(&label.clone().into()), rate(between.rate(n, &before)), count(number(n))]
    };
    Table {
        columns: vec![("drop reason", false), ("dropped/s", true), ("dropped", true)],
        rows: stats["drops"].as_object().into_iter().flatten().map(row).collect(),
        usual: Some(1),
        note: "nothing has been dropped".into(),
    }
}

fn flows(now: &Sample, before: Option<&Sample>, seconds: Option<f64>) -> Table {
    let sum = |flow: &Value, key: &str| list(&flow[key]).iter().map(number).sum::<u64>();
    let known: HashMap<u64, &Value> = before
        .map(|before| list(&before.flows["flows"]))
        .unwrap_or_default()
        .iter()
        .filter_map(|flow| Some((flow["flow_id"].as_u64()?, flow)))
        .collect();
    let row = |flow: &Value| {
        let old = flow["flow_id"].as_u64().and_then(|id| known.get(&id));
        let grown = |key: &str| match (old, seconds) {
            (Some(old), Some(seconds)) => sum(flow, key).saturating_sub(sum(old, key)) as f64 / seconds,
            _ => 0.0,
        };
        let end = |address: &str, port: &str| {
            let (address, port) = (word(&flow[address]).text, number(&flow[port]));
            let text = match (address.contains(':'), port) {
                (_, 0) => address,
                (true, _) => format!("[{address}]:{port}"),
                (false, _) => format!("{address}:{port}"),
            };
            Cell { text, value: None }
        };
        let protocol = number(&flow["protocol"]) as u8;
        let protocol = crate::event::protocol(protocol).map_or_else(|| protocol.to_string(), str::to_owned);
        let verdict = flow["reason"].as_str().or(flow["verdict"].as_str()).unwrap_or_default();
        vec![
            end("source", "source_port"),
            end("destination", "destination_port"),
            Cell { text: protocol, value: None },
            bits(grown("bytes")),
            rate(grown("packets")),
            count(sum(flow, "bytes")),
            word(&flow["state"]),
            word(&verdict.into()),
            word(&flow["tenant"]),
        ]
    };
    let note = match now.why_no_flows.as_str() {
        "" => "no flow".to_owned(),
        why => plain(why),
    };
    Table {
        columns: vec![
            ("flow from", false),
            ("to", false),
            ("", false),
            ("bits/s", true),
            ("packets/s", true),
            ("bytes", true),
            ("state", false),
            ("verdict", false),
            ("tenant", false),
        ],
        rows: list(&now.flows["flows"]).iter().map(row).collect(),
        usual: Some(3),
        note,
    }
}

fn tenants(now: &Sample) -> Table {
    let all = number(&now.tenants["flows"]).max(1) as f64;
    let row = |(name, n): (&String, &Value)| {
        vec![word(&name.clone().into()), count(number(n)), percent(number(n) as f64 / all)]
    };
    let note = match now.why_no_flows.as_str() {
        "" => "no flow".to_owned(),
        why => plain(why),
    };
    Table {
        columns: vec![("tenant", false), ("flows", true), ("part", true)],
        rows: now.tenants["tenants"].as_object().into_iter().flatten().map(row).collect(),
        usual: Some(1),
        note,
    }
}
