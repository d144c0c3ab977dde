//! A record as one line for people.
//!
//! Names and URLs in records come from packets, so from anybody: what could move a cursor, or the reading direction, is written out.

use serde_json::Value;

use super::super::show;

/// The line: when, what, between whom, and the few words that matter.
pub fn line(record: &Value) -> String {
    let kind = word(&record["event_type"]);
    if kind == "missing" {
        let n = record["missing"]["records"].as_u64().unwrap_or(0);
        return format!("... {} records are missing here: this reader was too slow", show::grouped(n));
    }
    let time = record["timestamp"].as_str().unwrap_or_default();
    // 2026-11-24T12:00:00.010000+0000: the day is the reader's.
    let time = time.get(11..23).unwrap_or(time);
    let mut parts = vec![plain(time), format!("{kind:<8}")];
    parts.extend(ends(record));
    parts.extend(record["stage"].as_str().map(|stage| format!("{}:", plain(stage))));
    let body = &record[kind.as_str()];
    parts.push(match kind.as_str() {
        "flow" => flow(body),
        "flow_start" => "began".into(),
        "alert" => {
            format!("{} {:?} ({})", word(&body["action"]), word(&body["signature"]), body["signature_id"])
        }
        "drop" => format!("{}, {} bytes{}", word(&body["reason"]), body["len"], skipped(body)),
        "anomaly" => {
            let dropped = if body["dropped"] == true { ", dropped" } else { "" };
            format!("{} ({}){dropped}{}", word(&body["event"]), word(&body["type"]), skipped(body))
        }
        "tls" => some(&[&body["sni"], &body["version"], &body["ja4"]]),
        "dns" => dns(body),
        "ssh" => format!(
            "client {}, server {}",
            word(&body["client"]["software_version"]),
            word(&body["server"]["software_version"])
        ),
        "http" => some(&[&body["http_method"], &body["hostname"], &body["url"], &body["status"]]),
        "stats" => {
            let n = |value: &Value| show::grouped(value.as_u64().unwrap_or(0));
            let (taken, ips) = (n(&body["decoder"]["pkts"]), &body["ips"]);
            let (home, gone) = (n(&ips["accepted"]), n(&ips["blocked"]));
            format!("{taken} received, {home} sent, {gone} dropped, {} flows", n(&body["flow"]["active"]))
        }
        "reload" => {
            let (outcome, what) = (word(&body["outcome"]), word(&body["asked_for"]));
            format!(
                "{what} {outcome}, policy {} (by {})",
                word(&body["policy_after"]),
                word(&body["asked_by"])
            )
        }
        "health" => {
            let why: Vec<&str> = body["reasons"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|reason| reason["text"].as_str())
                .collect();
            let why = if why.is_empty() { String::new() } else { format!(": {}", plain(&why.join("; "))) };
            format!("{} -> {}{why}", word(&body["from"]), word(&body["to"]))
        }
        "shadow" => {
            let reason = body["reason"].as_str().or(body["candidate"]["reason"].as_str());
            let rule = body["candidate"]["rule"].as_str();
            let why: Vec<String> = reason.into_iter().chain(rule).map(plain).collect();
            format!("{} {}{}", word(&body["difference"]), why.join(", "), skipped(body))
        }
        _ => plain(&body.to_string()),
    });
    parts.extend(
        record["tenant"].as_str().filter(|name| *name != "default").map(|name| format!("[{}]", plain(name))),
    );
    parts.join(" ").trim_end().to_owned()
}

/// Protocol and both ends: of the inner packet, or of the outer one where that could not be read.
fn ends(record: &Value) -> Option<String> {
    let outer = record.get("outer");
    let from = if record["src_ip"].is_null() { outer? } else { record };
    let end = |address: &str, port: &str| match (from[address].as_str()?, from[port].as_u64()) {
        (address, Some(port)) if address.contains(':') => Some(format!("[{address}]:{port}")),
        (address, Some(port)) => Some(format!("{address}:{port}")),
        (address, None) => Some(address.to_owned()),
    };
    let (source, destination) = (end("src_ip", "src_port")?, end("dest_ip", "dest_port")?);
    let protocol = record["proto"].as_str().unwrap_or("outer");
    Some(plain(&format!("{protocol} {source} > {destination}")))
}

fn flow(body: &Value) -> String {
    let n = |key: &str| show::grouped(body[key].as_u64().unwrap_or(0));
    let why = body["drop_reason"].as_str().or(body["verdict"].as_str()).unwrap_or_default();
    format!(
        "ended ({}), {}: {}+{} packets, {}+{} bytes in {} s",
        word(&body["ended"]),
        plain(why),
        n("pkts_toserver"),
        n("pkts_toclient"),
        n("bytes_toserver"),
        n("bytes_toclient"),
        body["age"],
    )
}

fn dns(body: &Value) -> String {
    let answers = body["answers"].as_array().map_or(&[][..], Vec::as_slice);
    let data: Vec<String> =
        answers.iter().filter_map(|one| one["rdata"].as_str()).take(4).map(plain).collect();
    some(&[&body["type"], &body["rrtype"], &body["rrname"], &body["rcode"], &data.join(" ").into()])
}

fn skipped(body: &Value) -> String {
    match body["skipped"].as_u64() {
        Some(n) if n > 0 => format!(", {} more like it before", show::grouped(n)),
        _ => String::new(),
    }
}

/// Those that are there.
fn some(values: &[&Value]) -> String {
    let words = values.iter().map(|value| word(value)).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join(" ")
}

fn word(value: &Value) -> String {
    match value {
        Value::String(text) => plain(text),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// Without anything that a terminal would obey: control characters, and those that change the direction of writing.
pub fn plain(text: &str) -> String {
    let obeyed = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
    };
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if obeyed(c) { out.extend(c.escape_unicode()) } else { out.push(c) }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Examples of the document, as people see them.
    #[test]
    fn records_are_lines() {
        let document = include_str!("../../../docs/events.md");
        let shown: Vec<String> = document
            .lines()
            .filter(|text| text.starts_with("{\""))
            .map(|text| line(&serde_json::from_str(text).expect("JSON")))
            .collect();
        for expected in [
            "12:00:09.070 flow     TCP 10.1.0.5:40000 > 10.2.0.9:443 ended (reset), settled: 4+1 packets, 260+40 bytes in 0 s [payments]",
            "12:00:00.010 flow_start TCP 10.1.0.5:40000 > 10.2.0.9:443 began [payments]",
            "12:00:00.050 alert    TCP 10.1.0.5:40001 > 10.2.0.9:22 firewall: blocked \"ssh\" (1000022) [payments]",
            "12:00:00.050 drop     TCP 10.1.0.5:40001 > 10.2.0.9:22 firewall: firewall.default_deny, 40 bytes [payments]",
            "12:00:00.060 anomaly  outer 10.254.11.107:60001 > 10.254.11.102:6081 geneve_version (decode), dropped",
            "12:00:00.020 dns      UDP 10.1.0.5:40000 > 10.2.0.9:53 dns: answer A shop.example NOERROR 203.0.113.9 [payments]",
            "12:00:11.070 stats    7 received, 5 sent, 2 dropped, 0 flows",
            "12:00:11.070 reload   reload done, policy 0c4f7ab19e5d2286 (by socket, uid 0, pid 4711)",
        ] {
            assert!(shown.iter().any(|line| line == expected), "{expected}\nis not in\n{}", shown.join("\n"));
        }
        assert!(shown.iter().all(|line| line.len() < 200 && !line.contains("null")), "{shown:#?}");
    }

    #[test]
    fn nothing_of_a_packet_moves_the_cursor() {
        let record = serde_json::json!({
            "event_type": "tls", "timestamp": "2026-11-24T12:00:00.010000+0000",
            "tls": { "sni": "a\u{1b}[2J\u{9b}1m\u{202e}b", "version": "TLS 1.3" },
        });
        assert_eq!(line(&record), r"12:00:00.010 tls      a\u{1b}[2J\u{9b}1m\u{202e}b TLS 1.3");
        assert_eq!(plain("grüße.example"), "grüße.example");
    }

    #[test]
    fn what_is_missing_is_said() {
        let record = serde_json::json!({ "event_type": "missing", "missing": { "records": 12345 } });
        assert_eq!(line(&record), "... 12 345 records are missing here: this reader was too slow");
        assert_eq!(line(&serde_json::json!({ "event_type": "new-kind" })), " new-kind null");
    }
}
