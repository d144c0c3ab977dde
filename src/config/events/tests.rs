use std::path::Path;

use super::*;
use crate::config::{Options, Overrides, Plan, load_text};

fn load(text: &str) -> Result<Plan, Vec<String>> {
    let text = format!("[tunnel]\nallowed_sources = [\"10.0.0.0/8\"]\n{text}");
    let options = Options { need_ports: false, ..Options::default() };
    let loaded = load_text("t.toml", &text, Path::new("/etc/sg"), &Overrides::default(), &options);
    loaded.map_err(|problems| problems.iter().map(ToString::to_string).collect())
}

#[test]
fn without_sinks_nothing_is_told() {
    let plan = load("").unwrap();
    assert!(plan.events.wanted().is_empty() && !plan.flow.tracking);
    // But for those who follow.
    assert_eq!(plan.events.rings().iter().count(), Type::PRODUCED.len());
    let text = plan.to_string();
    assert!(
        text.contains("events: to those who follow") && text.contains("follow       flow, flow_start,"),
        "{text}"
    );
    let plan = load("[events]\nfollow = []\n").unwrap();
    assert!(plan.events.rings().is_empty() && !plan.to_string().contains("events:"));
    let plan = load("[events]\nfollow = [\"alert\", \"drop\"]\n").unwrap();
    assert_eq!(plan.to_json()["events"]["follow"], serde_json::json!(["alert", "drop"]));
    assert!(load("[events]\nfollow = [\"smtp\"]\n").unwrap_err()[0].contains("events.follow[0]"));
}

#[test]
fn what_is_not_said_has_its_usual_value() {
    let plan = load("[[events.sink]]\nto = \"file\"\npath = \"eve.json\"\n").unwrap();
    let events = &plan.events;
    let words: Vec<&str> = events.wanted().iter().map(Type::word).collect();
    assert_eq!(
        words,
        [
            "flow", "alert", "drop", "anomaly", "tls", "http", "dns", "ssh", "stats", "reload", "health",
            "shadow"
        ]
    );
    assert_eq!((events.ring, events.stats_every), (4096, MINUTE));
    let SinkPlan { name, to, format, .. } = &events.sinks[0];
    assert_eq!((name.as_str(), *format), ("file", Format::Eve));
    let rotation = Rotation { size: Some(100 << 20), age: None, keep: 5 };
    assert_eq!(*to, To::File { path: "/etc/sg/eve.json".into(), rotation });
    // Whoever wants to hear of flows has them followed.
    assert!(plan.flow.tracking);
    // A reason tells as a drop or as an anomaly, once for each packet; later packets of a denied flow as neither.
    let all = plan.reasons.len();
    assert_eq!(events.drop.reasons.len() + events.anomaly.reasons.len(), all - 1);
    assert!(events.anomaly.reasons.contains(&DropReason::GeneveVersion.into()));
    assert!(events.drop.reasons.contains(&DropReason::TableFull.into()));
    let text = plan.to_string();
    assert!(text.contains("events: flow, alert, drop, anomaly, tls, http, dns, ssh, stats"), "{text}");
    assert!(text.contains("file /etc/sg/eve.json, a new one after 100 MB, 5 kept"), "{text}");
    assert_eq!(plan.to_json()["events"]["sink"][0]["rotate_mb"], 100);
}

#[test]
fn everything_can_be_said() {
    let plan = load(
        "[flow]\ntracking = false\n[events]\ntypes = [\"alert\", \"flow\"]\nring = 64\nstats_every = \"1s\"\naccount = \"123456789012\"\n\
         drop = { reasons = [\"table_full\", \"geneve_*\"], per_s = 7 }\nanomaly = { reasons = [], per_s = 0 }\n\
         [[events.sink]]\nto = \"file\"\npath = \"/var/log/a\"\nrotate_every = \"24h\"\nkeep = 2\ntypes = [\"alert\"]\nname = \"a\"\n\
         [[events.sink]]\nto = \"stdout\"\ntypes = [\"drop\"]\n\
         [[events.sink]]\nto = \"unix\"\npath = \"/run/eve.sock\"\n\
         [[events.sink]]\nto = \"file\"\npath = \"flows\"\nformat = \"vpc-flow-log\"\nrotate_mb = 1\nname = \"log\"\n",
    )
    .unwrap();
    let events = &plan.events;
    assert_eq!(events.flow_log.account, "123456789012");
    let labels: Vec<&str> = events.drop.reasons.iter().map(|id| plan.reasons.label(*id)).collect();
    let geneve = ["geneve_truncated", "geneve_version", "geneve_control", "geneve_protocol"];
    assert_eq!(labels, [&geneve[..], &["table_full"]].concat());
    assert_eq!((events.drop.per_s, events.anomaly.reasons.len()), (7, 0));
    let rotation = |sink: usize| match &events.sinks[sink].to {
        To::File { rotation, .. } => *rotation,
        _ => Rotation::default(),
    };
    assert_eq!(rotation(0), Rotation { size: None, age: Some(1440 * MINUTE), keep: 2 });
    assert_eq!(rotation(3).size, Some(1 << 20));
    assert_eq!(events.sinks[3].types, Types::NONE.with(Type::Flow));
    let warnings = plan.warnings.join("\n");
    assert!(warnings.contains("events.sink[1]: it waits for drop records"), "{warnings}");
    assert!(warnings.contains("there are no flow records"), "{warnings}");
}

#[test]
fn mistakes_are_named() {
    let cases = [
        (
            "[events]\ntypes = [\"flows\"]",
            "events.types[0]: there is no type \"flows\"; did you mean \"flow\"?",
        ),
        ("[events]\nring = 100", "events.ring: 100 is not a power of two; write 64 or 128"),
        (
            "[events]\naccount = \"12\"",
            "events.account: \"12\" is not an account of AWS; write its twelve digits",
        ),
        (
            "[events.drop]\nreasons = [\"table_fool\"]",
            "events.drop.reasons[0]: there is no drop reason \"table_fool\"; did you mean \"table_full\"?",
        ),
        ("[events.anomaly]\nper_s = 1000001", "events.anomaly.per_s: 1000001 is not between 0 and 1000000"),
        ("[events]\nstats_every = \"10ms\"", "events.stats_every: 10ms is not between 1s and 86400s"),
        ("[[events.sink]]\n", "events.sink[0]: \"to\" is missing; say where records go"),
        (
            "[[events.sink]]\nto = \"syslog\"",
            "events.sink[0].to: there is no sink \"syslog\"; known here: file",
        ),
        (
            "[[events.sink]]\nto = \"file\"",
            "events.sink[0]: \"path\" is missing; say which file or socket it is",
        ),
        (
            "[[events.sink]]\nto = \"stdout\"\npath = \"a\"",
            "events.sink[0].path: standard output has no path",
        ),
        ("[[events.sink]]\nto = \"stdout\"\nkeep = 3", "events.sink[0]: only a file can be rotated"),
        (
            "[[events.sink]]\nto = \"file\"\npath = \"a\"\nkeep = 0",
            "events.sink[0].keep: 0 is not between 1 and 1000",
        ),
        (
            "[[events.sink]]\nto = \"stdout\"\nname = \"A b\"",
            "events.sink[0].name: \"A b\" cannot be a label",
        ),
        (
            "[[events.sink]]\nto = \"stdout\"\n[[events.sink]]\nto = \"stdout\"",
            "events.sink[1]: \"stdout\" is the name of another sink",
        ),
        (
            "[[events.sink]]\nto = \"file\"\npath = \"a\"\n[[events.sink]]\nto = \"file\"\npath = \"a\"\nname = \"b\"\nkeep = 2",
            "events.sink[1]: another sink writes to the same place",
        ),
        (
            "[[events.sink]]\nto = \"stdout\"\nformat = \"vpc-flow-log\"\ntypes = [\"flow\"]",
            "events.sink[0].types: a flow log has flows and nothing else",
        ),
        ("[[events.sink]]\nto = \"stdout\"\nformat = \"csv\"", "format"),
        (
            "[[events.sink]]\nto = \"stdout\"\ncolour = 1",
            "events.sink[0].colour: unknown key; known here: to, name, path",
        ),
    ];
    for (text, expected) in cases {
        let problems = load(text).expect_err(text).join("\n");
        assert!(problems.contains(expected), "{text}\n{problems}");
    }
    let many: String = (0..9)
        .map(|n| format!("[[events.sink]]\nto = \"file\"\npath = \"{n}\"\nname = \"s{n}\"\n"))
        .collect();
    assert!(load(&many).expect_err("nine").join("\n").contains("events.sink[8]: is one too many"));
}
