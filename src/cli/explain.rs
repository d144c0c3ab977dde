//! `sluicegate explain`: why packets become what they become: of a running instance by their ends, or of a capture, stage by stage.

use std::path::PathBuf;

use clap::Args;
use serde_json::Value;

use super::instance::Instance;
use super::{ConfigArgs, Failure, OK, Outcome, replay, show};

/// Why packets become what they become.
#[derive(Debug, Args)]
pub struct Explain {
    /// Protocol, source and destination: tcp 10.1.0.1:40000 10.2.0.9:443. With --pcap the pipeline file instead
    #[arg(value_name = "TUPLE", num_args = 1..=3, required = true)]
    what: Vec<String>,
    #[command(flatten)]
    instance: Instance,
    /// The endpoint (vpce-... or a number), where several have the same addresses
    #[arg(long, value_name = "ID")]
    endpoint: Option<String>,
    /// Explain the packets of a capture, without a running instance
    #[arg(long, value_name = "CAPTURE", conflicts_with = "endpoint")]
    pcap: Option<PathBuf>,
    /// Set one value over the pipeline file, with --pcap (repeatable)
    #[arg(long = "set", value_name = "PATH=VALUE", requires = "pcap")]
    set: Vec<String>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

impl Explain {
    pub(super) fn run(self) -> Outcome {
        if let Some(capture) = self.pcap {
            let [file] = &self.what[..] else {
                return Err(Failure::Other(
                    "with --pcap name the pipeline file: explain FILE --pcap CAPTURE".into(),
                ));
            };
            let config = ConfigArgs { file: file.into(), set: self.set };
            return replay::trace::run(config, capture, self.json);
        }
        let [protocol, source, destination] = &self.what[..] else {
            let text = "name protocol, source and destination: explain tcp 10.1.0.1:40000 10.2.0.9:443";
            return Err(Failure::Other(text.into()));
        };
        let mut query =
            vec![("protocol", protocol.as_str()), ("source", source), ("destination", destination)];
        query.extend(self.endpoint.as_deref().map(|id| ("endpoint", id)));
        let answer = self.instance.client()?.get("explain", &query)?;
        match self.json {
            true => show::print(format_args!("{answer}\n"))?,
            false => show::print(text(&answer))?,
        }
        Ok(OK)
    }
}

fn text(answer: &Value) -> String {
    let word = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut text = String::new();
    let mut line = |words: String| text += &(words + "\n");
    let flows = list(&answer["flows"]);
    if flows.is_empty() {
        let why = if answer["tracked"] == true { "there is no such flow" } else { "no flow is followed" };
        line(why.into());
    }
    for flow in flows {
        let (id, worker, tenant) = (&flow["flow_id"], &flow["worker"], word(&flow["tenant"]));
        let endpoint = flow["endpoint"].as_str().map_or(String::new(), |id| format!(", endpoint {id}"));
        line(format!("flow {id}, owned by worker {worker}, tenant {tenant}{endpoint}"));
        let end = |address: &str, port: &str| format!("{} port {}", word(&flow[address]), flow[port]);
        let (from, to) = (end("source", "source_port"), end("destination", "destination_port"));
        line(format!("  opened by   {from}, to {to}"));
        let (age, idle) = (flow["age_ms"].as_u64().unwrap_or(0), flow["idle_ms"].as_u64().unwrap_or(0));
        let picked = if flow["picked_up"] == true { ", picked up" } else { "" };
        let (age, idle) = (age as f64 / 1e3, idle as f64 / 1e3);
        line(format!("  state       {}{picked}, {age:.1} s old, idle for {idle:.1} s", word(&flow["state"])));
        let reason = flow["reason"].as_str().map_or(String::new(), |reason| format!(": {reason}"));
        line(format!("  verdict     {}{reason}", word(&flow["verdict"])));
        for stage in list(&flow["stages"]) {
            let rule = match stage["rule"].as_str() {
                Some(rule) => format!("; its rules say {}, by {rule}", word(&stage["says"])),
                None => String::new(),
            };
            let reason = stage["reason"].as_str().map_or(String::new(), |reason| format!(", as {reason}"));
            let cycles = cycles(&stage);
            line(format!(
                "  stage       {}: {}{reason}{rule}{cycles}",
                word(&stage["stage"]),
                word(&stage["is"])
            ));
        }
        for side in ["originator", "responder"] {
            let envelope = &flow["goes_back"][side];
            if envelope.is_null() {
                line(format!("  goes back   {side}: nothing is known of its envelope"));
            } else {
                let (node, port, cookie) = (word(&envelope["node"]), &envelope["port"], &envelope["cookie"]);
                line(format!("  goes back   {side}: to node {node}, outer port {port}, cookie {cookie}"));
            }
        }
        if flow["several_workers"] == true {
            line("  handed on   some of its packets come to other workers first".into());
        }
    }
    line("a first packet now:".into());
    for stage in list(&answer["first_packet"]) {
        let says = match (stage["says"].as_str(), stage["rule"].as_str()) {
            (Some(says), Some(rule)) => format!("{says}, by {rule}"),
            (Some(says), None) => says.to_owned(),
            (None, _) => "judges by more than the ends".into(),
        };
        let also: Vec<String> = list(&stage["also"]).iter().map(word).collect();
        let also = if also.is_empty() { String::new() } else { format!("; also met: {}", also.join(", ")) };
        let effect = if stage["mode"] == "shadow" { " (shadow: nothing comes of it)" } else { "" };
        line(format!("  stage       {}: {says}{also}{effect}{}", word(&stage["stage"]), cycles(&stage)));
    }
    text
}

/// What a packet costs in a stage, if that has been measured.
fn cycles(stage: &Value) -> String {
    stage["cycles"].as_u64().map_or(String::new(), |cycles| format!(" ({cycles} cycles a packet)"))
}
