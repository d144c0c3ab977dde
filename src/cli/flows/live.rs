//! `sluicegate flows`: flows of a running instance: found, sorted, watched, flushed.

use std::io::{BufRead, IsTerminal, Write};
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::Value;

use super::super::instance::{Instance, refused};
use super::super::watch::Screen;
use super::super::{FAILED, Failure, OK, Outcome, show};
use super::{Endpoint, seconds};
use crate::event::protocol;
use crate::mgmt::admin::client::Client;

/// Flows of a running instance.
#[derive(Debug, Args)]
pub struct Flows {
    /// Terms that must all hold: tenant=, endpoint=, protocol=, address=, source=, destination=, port=, source-port=, destination-port=, state=,
    /// verdict= (undecided, settled, condemned), app= (what it speaks), age=, idle= (at least so long)
    #[arg(value_name = "TERM")]
    filter: Vec<String>,
    #[command(flatten)]
    instance: Instance,
    /// The most of this first
    #[arg(long, value_enum)]
    sort: Option<Sort>,
    /// At most so many, up to 10000
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: u32,
    /// How many there are, by tenant, state and verdict, instead of which
    #[arg(long, conflicts_with_all = ["sort", "flush"])]
    count: bool,
    /// Go on; ends with SIGINT
    #[arg(long, conflicts_with = "flush")]
    watch: bool,
    /// From one look to the next, with --watch
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "1s")]
    every: Duration,
    /// End the flows instead of listing them: their next packets open new ones, and are decided anew
    #[arg(long, conflicts_with = "sort")]
    flush: bool,
    /// Do not ask before all flows are ended
    #[arg(long, requires = "flush")]
    yes: bool,
    /// As JSON; one object a line with --watch
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Sort {
    /// Bytes of both directions
    Bytes,
    /// Packets of both directions
    Packets,
    /// Time since the flow began
    Age,
    /// Time since its last packet
    Idle,
}

impl Sort {
    fn word(self) -> &'static str {
        match self {
            Sort::Bytes => "bytes",
            Sort::Packets => "packets",
            Sort::Age => "age",
            Sort::Idle => "idle",
        }
    }
}

impl Flows {
    pub(crate) fn run(self) -> Outcome {
        let client = self.instance.client()?;
        let filter = self.filter.join(" ");
        if self.flush {
            return self.flush(&client, &filter);
        }
        let mut screen = Screen::new(self.watch && !self.json);
        let limit = self.limit.to_string();
        loop {
            let mut query = vec![("filter", filter.as_str())];
            let what = if self.count { "flows/count" } else { "flows" };
            if !self.count {
                query.push(("limit", &limit));
                query.extend(self.sort.map(|sort| ("sort", sort.word())));
            }
            let answer = client.get(what, &query).map_err(|error| refused(error, &filter))?;
            match (self.json, self.count) {
                (true, _) => show::print(format_args!("{answer}\n"))?,
                (false, true) => screen.show(counts(&answer))?,
                (false, false) => screen.show(table(&answer))?,
            }
            if !self.watch {
                return Ok(OK);
            }
            std::thread::sleep(self.every);
        }
    }

    fn flush(&self, client: &Client, filter: &str) -> Outcome {
        let all = filter.trim_ascii().is_empty();
        if all && !self.yes && !agreed(client)? {
            show::error("nothing was flushed");
            return Ok(FAILED);
        }
        let query = [("filter", filter), ("all", if all { "true" } else { "false" })];
        let answer = client.post("flows/flush", &query, "").map_err(|error| refused(error, filter))?;
        let n = |key: &str| answer[key].as_u64().unwrap_or(0);
        if self.json {
            show::print(format_args!("{answer}\n"))?;
        } else {
            show::print(format_args!("{} flows end\n", show::grouped(n("asked"))))?;
            if n("left") > 0 {
                show::error(format_args!("{} are left: the rings were full; flush again", n("left")));
            }
        }
        Ok(if n("left") == 0 { OK } else { FAILED })
    }
}

/// Asks a person whether all flows should end.
fn agreed(client: &Client) -> Result<bool, Failure> {
    let count = client.get("flows/count", &[])?;
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Err(Failure::Other("without a filter this ends every flow: say so with --yes".into()));
    }
    let mut out = anstream::stderr();
    let _ = write!(out, "this ends all {} flows; type yes to go on: ", count["flows"]);
    let _ = out.flush();
    let mut line = String::new();
    stdin.lock().read_line(&mut line).map_err(|error| Failure::Other(format!("standard input: {error}")))?;
    Ok(line.trim() == "yes")
}

fn counts(answer: &Value) -> String {
    let mut table = show::table(&["flows", "number"]);
    show::align_right(&mut table, &[1]);
    let n = |value: &Value| show::grouped(value.as_u64().unwrap_or(0));
    table.add_row(["all".into(), n(&answer["flows"])]);
    for (group, title) in [("tenants", "tenant"), ("states", "state"), ("verdicts", "verdict")] {
        for (name, value) in answer[group].as_object().into_iter().flatten() {
            table.add_row([format!("{title} {name}"), n(value)]);
        }
    }
    format!("{table}\n")
}

fn table(answer: &Value) -> String {
    let flows = answer["flows"].as_array().map_or(&[][..], Vec::as_slice);
    let tenants: std::collections::BTreeSet<_> = flows.iter().map(|flow| flow["tenant"].as_str()).collect();
    let mut header =
        vec!["from", "to", "", "state", "packets", "back", "bytes", "back", "age", "idle", "verdict"];
    let speaks = flows.iter().any(|flow| flow["app_proto"].is_string());
    if speaks {
        header.push("speaks");
    }
    if tenants.len() > 1 {
        header.push("tenant");
    }
    let mut table = show::table(&header);
    show::align_right(&mut table, &[4, 5, 6, 7, 8, 9]);
    for flow in flows {
        let number = flow["protocol"].as_u64().unwrap_or(0) as u8;
        let end = |address: &str, port: &str| {
            let address = flow[address].as_str().and_then(|text| text.parse().ok());
            let port = flow[port].as_u64().unwrap_or(0) as u16;
            address.map_or_else(String::new, |address| Endpoint(address, port, number).to_string())
        };
        let n = |key: &str, side: usize| show::grouped(flow[key][side].as_u64().unwrap_or(0));
        let time = |key: &str| seconds(flow[key].as_u64().unwrap_or(0) as u32);
        let verdict = flow["reason"].as_str().or(flow["verdict"].as_str()).unwrap_or_default().to_owned();
        let picked =
            if flow["picked_up"] == true && flow["state"] != "picked-up" { ", picked up" } else { "" };
        let mut row = vec![
            end("source", "source_port"),
            end("destination", "destination_port"),
            protocol(number).map_or_else(|| number.to_string(), str::to_owned),
            format!("{}{picked}", flow["state"].as_str().unwrap_or_default()),
            n("packets", 0),
            n("packets", 1),
            n("bytes", 0),
            n("bytes", 1),
            time("age_ms"),
            time("idle_ms"),
            verdict,
        ];
        if speaks {
            let words = [&flow["app_proto_orig"], &flow["app_proto"]];
            row.push(words.into_iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", "));
        }
        if tenants.len() > 1 {
            row.push(flow["tenant"].as_str().unwrap_or_default().to_owned());
        }
        table.add_row(row);
    }
    let all = answer["matching"].as_u64().unwrap_or(0);
    let (shown, all) = (show::grouped(flows.len() as u64), show::grouped(all));
    format!("{table}\n{shown} of {all} flows\n")
}
