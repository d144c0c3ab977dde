//! Settings. What limits do is tested through all hops in tests/ratelimit.rs, and what buckets promise in `buckets`.

use std::path::Path;

use super::*;
use crate::config::parse_stage;

fn parsed(text: &str) -> Result<Box<dyn Parsed>, String> {
    parse_stage(&KIND, text, Path::new(""))
        .map_err(|wrong| wrong.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
}

fn limit(text: &str) -> Result<Box<dyn Parsed>, String> {
    parsed(&format!("[[limit]]\nname = \"a\"\n{text}\n"))
}

#[test]
fn settings_are_read() {
    let packets = limit("per = \"source\"\npackets_per_s = 10\nbytes_per_s = 1000").unwrap();
    assert!(packets.wants_flows() && !packets.settles() && packets.flow_state_bytes() == 0);
    assert!(limit("per = \"tenant\"\nnew_flows_per_s = 10").unwrap().settles());
    assert_eq!(limit("per = \"flow\"\npackets_per_s = 10").unwrap().flow_state_bytes(), 40);
    let stateless =
        parsed("stateful = false\n[[limit]]\nname = \"a\"\nper = \"source\"\npackets_per_s = 1\n");
    assert!(!stateless.unwrap().wants_flows());
    let built = limit("per = \"service\"\npackets_per_s = 10\nnew_flows_per_s = 5\nbuckets = 1000").unwrap();
    let built = built.build(Backend::Soft).unwrap();
    let labels: Vec<String> = built.counts().into_iter().map(|(label, _)| label).collect();
    assert_eq!(labels, ["a: packets over", "a: new flows over", "a: no bucket"]);
    // 250 sets of four tags and eight words, in two lines.
    assert_eq!(built.report()[0].1, "per service, packets and new flows, police, 0.0 MB of buckets");
    assert_eq!(built.signatures()[0].signature, "a");
}

#[test]
fn every_mistake_is_named() {
    for (text, expected) in [
        ("packets_per_s = 1", "limit[0].per: is missing"),
        ("per = \"source\"", "limit[0]: limits nothing"),
        ("per = \"host\"\npackets_per_s = 1", "host"),
        ("per = \"source\"\npackets_per_s = 0", "limit[0].packets_per_s: 0 is not between 1 and 1000000000"),
        ("per = \"source\"\nbytes_per_s = 999", "limit[0].bytes_per_s: 999 is not between 1000 and"),
        (
            "per = \"source\"\npackets_per_s = 1\nburst = \"61s\"",
            "limit[0].burst: \"61s\" is no time of 1ms to 1m",
        ),
        ("per = \"source\"\npackets_per_s = 1\nburst = \"often\"", "limit[0].burst: \"often\" is no time"),
        (
            "per = \"source\"\npackets_per_s = 1\nprefix_v4 = 33",
            "limit[0].prefix_v4: 33 is not between 1 and 32",
        ),
        ("per = \"source\"\npackets_per_s = 1\nbuckets = 63", "limit[0].buckets: 63 is not between 64 and"),
        ("per = \"all\"\npackets_per_s = 1\nbuckets = 64", "limit[0].buckets: means nothing per all"),
        (
            "per = \"tenant\"\npackets_per_s = 1\nprefix_v6 = 64",
            "limit[0].prefix_v6: means nothing per tenant",
        ),
        ("per = \"flow\"\nnew_flows_per_s = 1", "limit[0].new_flows_per_s: a flow is opened once"),
        ("per = \"all\"\npackets_per_s = 1\nsource = \"x\"", "limit[0].source: \"x\" is neither an address"),
        (
            "per = \"all\"\npackets_per_s = 1\ndestination_port = 53",
            "limit[0].destination_port: \"53\" is set, but not",
        ),
        ("per = \"all\"\npackets_per_s = 1\nseverity = 0", "limit[0].severity: 0 is not between 1 and 255"),
        (
            "per = \"all\"\npackets_per_s = 1\n[[limit]]\nname = \"a\"\nper = \"all\"\npackets_per_s = 1",
            "limit[1].name: \"a\" is the name",
        ),
        ("per = \"all\"\npackets_per_s = 1\nrate = 1", "rate"),
    ] {
        let wrong = limit(text).map(|_| ()).unwrap_err();
        assert!(wrong.contains(expected), "{text}: {wrong}");
    }
    assert!(parsed("").unwrap_err().contains("there is no limit"));
    assert!(
        parsed("[[limit]]\nper = \"all\"\npackets_per_s = 1\n").unwrap_err().contains("a limit needs a name")
    );
    for needs in [
        "per = \"flow\"\npackets_per_s = 1",
        "per = \"all\"\nnew_flows_per_s = 1",
        "per = \"all\"\npackets_per_s = 1\ndirection = \"to_server\"",
    ] {
        let wrong =
            parsed(&format!("stateful = false\n[[limit]]\nname = \"a\"\n{needs}\n")).map(|_| ()).unwrap_err();
        assert!(wrong.contains("limit[0]: needs flows, and the stage is not stateful"), "{wrong}");
    }
    let many: String =
        (0..17).map(|n| format!("[[limit]]\nname = \"l{n}\"\nper = \"all\"\npackets_per_s = 1\n")).collect();
    assert!(parsed(&many).unwrap_err().contains("17 limits are more than the 16"));
    let flows: String = (0..3)
        .map(|n| {
            format!("[[limit]]\nname = \"l{n}\"\nper = \"flow\"\npackets_per_s = 1\nbytes_per_s = 1000\n")
        })
        .collect();
    assert!(parsed(&flows).unwrap_err().contains("limits per flow have 6 rates, and a flow keeps 4"));
}
