//! Settings. What the stage does is tested through all hops in tests/synguard.rs.

use std::path::Path;

use super::*;
use crate::config::parse_stage;

fn parsed(text: &str) -> Result<Box<dyn Parsed>, String> {
    parse_stage(&KIND, text, Path::new(""))
        .map_err(|wrong| wrong.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
}

#[test]
fn settings_are_read() {
    let text = "half_open_time = \"5s\"\n[[limit]]\nname = \"a\"\nper = \"service\"\nhalf_open = 10\nsyn_per_s = 5\nbuckets = 64\n\
                [[limit]]\nname = \"b\"\nper = \"tenant\"\nhalf_open = 10\n";
    let stage = parsed(text).unwrap();
    assert!(stage.wants_flows() && !stage.settles() && stage.flow_state_bytes() <= 24);
    let built = stage.build(Backend::Soft).unwrap();
    let labels: Vec<String> = built.counts().into_iter().map(|(label, _)| label).collect();
    let of_limits = [
        "a: half-open over",
        "a: SYN rate over",
        "a: no bucket",
        "a: alarms",
        "b: half-open over",
        "b: alarms",
    ];
    assert_eq!(
        labels,
        OF_STAGE.iter().chain(&of_limits).map(|label| (*label).to_owned()).collect::<Vec<_>>()
    );
    assert_eq!(built.signatures()[1].signature, "b");
}

#[test]
fn every_mistake_is_named() {
    let limit = |text: &str| parsed(&format!("[[limit]]\nname = \"a\"\n{text}\n")).map(|_| ()).unwrap_err();
    for (text, expected) in [
        ("half_open = 1", "limit[0].per: is missing"),
        ("per = \"flow\"\nhalf_open = 1", "limit[0].per: a flow has one handshake"),
        ("per = \"source\"", "limit[0]: limits nothing"),
        ("per = \"source\"\nhalf_open = 0", "limit[0].half_open: 0 is not between 1 and 10000000"),
        ("per = \"source\"\nsyn_per_s = 0", "limit[0].syn_per_s: 0 is not between 1 and"),
        ("per = \"source\"\nhalf_open = 1\nburst = \"1h\"", "limit[0].burst: \"1h\" is no time of 1ms to 1m"),
        ("per = \"all\"\nhalf_open = 1\nbuckets = 64", "limit[0].buckets: means nothing per all"),
        ("per = \"source\"\nhalf_open = 1\nbuckets = 1", "limit[0].buckets: 1 is not between 64 and"),
        ("per = \"source\"\nhalf_open = 1\ndestination = \"x\"", "limit[0].destination: \"x\" is neither"),
        ("per = \"source\"\nhalf_open = 1\nseverity = 300", "limit[0].severity: 300 is not between"),
        ("per = \"source\"\nhalf_open = 1\nsyns = 1", "syns"),
    ] {
        assert!(limit(text).contains(expected), "{text}: {}", limit(text));
    }
    assert!(parsed("").unwrap_err().contains("there is no limit"));
    let early = "half_open_time = \"1ms\"\n[[limit]]\nname = \"a\"\nper = \"all\"\nhalf_open = 1\n";
    assert!(parsed(early).unwrap_err().contains("half_open_time: \"1ms\" is no time of 1s to 5m"));
    let many: String =
        (0..9).map(|n| format!("[[limit]]\nname = \"l{n}\"\nper = \"all\"\nhalf_open = 1\n")).collect();
    assert!(parsed(&many).unwrap_err().contains("9 limits are more than the 8"));
}
