//! `sluicegate status`: how a running instance is.

use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::instance::Instance;
use super::{FAILED, OK, Outcome, show};

/// How a running instance is.
#[derive(Debug, Args)]
pub struct Status {
    #[command(flatten)]
    instance: Instance,
    /// As JSON
    #[arg(long)]
    json: bool,
}

impl Status {
    pub(super) fn run(self) -> Outcome {
        let status = self.instance.client()?.get("status", &[])?;
        match self.json {
            true => show::print(format_args!("{status}\n"))?,
            false => show::print(text(&status))?,
        }
        Ok(if status["fit"] == true { OK } else { FAILED })
    }
}

/// For people.
fn text(status: &Value) -> String {
    let word = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    let n = |value: &Value| show::grouped(value.as_u64().unwrap_or(0));
    let time = |seconds: u64| humantime::format_duration(Duration::from_secs(seconds)).to_string();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut lines = Vec::new();
    let mut row = |name: &str, text: String| lines.push(format!("{name:<9}{text}\n"));
    let fit = if status["fit"] == true { "" } else { ", not fit for traffic" };
    let since = time(status["since_s"].as_u64().unwrap_or(0));
    let recovering = if status["recovering"] == true { ", recovering" } else { "" };
    row("state", format!("{}{fit}{recovering}, for {since}", word(&status["state"])));
    for reason in list(&status["reasons"]) {
        row("", format!("{}: {}", word(&reason["cause"]), word(&reason["text"])));
    }
    if !status["drain"].is_null() {
        row("drain", super::drain::text(&status["drain"]));
    }
    let program = &status["program"];
    let up = time(status["uptime_s"].as_f64().unwrap_or(0.0) as u64);
    let (version, revision) = (word(&program["sluicegate"]), word(&program["revision"]));
    row("program", format!("sluicegate {version} ({revision}), process {}, up {up}", program["pid"]));
    let stages: Vec<String> = list(&status["stages"]).iter().map(word).collect();
    let stages = if stages.is_empty() { "passthrough".into() } else { stages.join(" -> ") };
    row("policy", format!("{} of {}: {stages}", word(&status["policy"]), word(&status["file"])));
    let rate = |key: &str| show::si(status["per_s"][key].as_f64().unwrap_or(0.0));
    let (received, sent, dropped) = (rate("received"), rate("sent"), rate("dropped"));
    row("traffic", format!("{received}received, {sent}sent, {dropped}dropped a second"));
    match &status["flows"] {
        Value::Null => row("flows", "not followed".into()),
        flows => row("flows", format!("{} of {}", n(&flows["live"]), n(&flows["capacity"]))),
    }
    let pool = &status["pool"];
    row("pool", format!("{} of {} buffers free", n(&pool["available"]), n(&pool["buffers"])));
    row("events", format!("{} lost", n(&status["events_lost"])));
    let reload = &status["reload"];
    let last = match (reload["last"]["outcome"].as_str(), reload["last"]["ago_s"].as_u64()) {
        (Some(outcome), Some(ago)) => format!("; the last {outcome}, {} ago", time(ago)),
        _ => String::new(),
    };
    row("reloads", format!("{} done, {} refused{last}", n(&reload["done"]), n(&reload["refused"])));
    let mut table =
        show::table(&["worker", "cpu", "busy", "received/s", "dropped/s", "received", "sent", "at"]);
    show::align_right(&mut table, &[0, 1, 2, 3, 4, 5, 6]);
    for worker in list(&status["workers"]) {
        let rate = |key: &str| worker["rate"][key].as_f64().unwrap_or(0.0);
        table.add_row([
            worker["worker"].to_string(),
            worker["cpu"].to_string(),
            format!("{:.1} %", rate("busy_ratio") * 100.0),
            show::si(rate("received_per_s")),
            show::si(rate("dropped_per_s")),
            n(&worker["received"]),
            n(&worker["sent"]),
            word(&worker["place"]),
        ]);
    }
    let mut ports = show::table(&["port", "device", "link", "received", "sent", "missed", "no buffer"]);
    show::align_right(&mut ports, &[0, 3, 4, 5, 6]);
    for port in list(&status["ports"]) {
        let link = &port["link"];
        let link = match (link["up"] == true, link["speed_mbps"].as_u64().filter(|speed| *speed > 0)) {
            (true, Some(speed)) => format!("up, {speed} Mbit/s"),
            (true, None) => "up".into(),
            (false, _) => "down".into(),
        };
        ports.add_row([
            port["port"].to_string(),
            word(&port["device"]),
            link,
            n(&port["received"]),
            n(&port["sent"]),
            n(&port["missed"]),
            n(&port["no_buffer"]),
        ]);
    }
    format!("{}{table}\n{ports}\n", lines.concat())
}
