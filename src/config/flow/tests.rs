//! Mistakes in `[flow]` and what is said of them; what a good one becomes.

use super::*;
use crate::config::tests::{GOOD, good, overrides, says};
use crate::config::{Orphans, Overrides, Scope, WindowCheck};

const FOLLOW: &str = "[[stage]]\nuse = \"sieve\"\nfollow = true\n";

#[test]
fn each_mistake_has_its_message() {
    let table: &[(&str, &str)] = &[
        ("capcity = 5", r#"t.toml:6:1: flow.capcity: unknown key; did you mean "capacity"?"#),
        ("capacity = 1023", "t.toml:6:1: flow.capacity: 1023 is not between 1024 and 67108864"),
        ("capacity = 67_108_865", "t.toml:6:1: flow.capacity: 67108865 is not between 1024 and 67108864"),
        (
            "capacity = \"1M\"",
            r#"t.toml:6:1: flow.capacity: "1M" is not a whole number from 0 to 4294967295"#,
        ),
        ("tracking = \"yes\"", r#"t.toml:6:1: flow.tracking: "yes" is not true, false or "auto""#),
        ("tracking = 1", r#"t.toml:6:1: flow.tracking: 1 is not true, false or "auto""#),
        ("scope = \"vni\"", r#"t.toml:6:1: flow.scope: "vni" is not one of endpoint, tenant"#),
        (
            "tcp_idle = 350",
            r#"t.toml:6:1: flow.tcp_idle: 350 is not a time with its unit, such as "350s" or "200ms""#,
        ),
        (
            "tcp_idle = \"350\"",
            r#"t.toml:6:1: flow.tcp_idle: "350" is not a time with its unit, such as "350s" or "200ms""#,
        ),
        (
            "tcp_idle = \"59s\"",
            "t.toml:6:1: flow.tcp_idle: 59s is not between 60s and 6000s; give what the load balancer is set to, 350s unless \
             changed",
        ),
        (
            "tcp_idle = \"101m\"",
            "t.toml:6:1: flow.tcp_idle: 6060s is not between 60s and 6000s; give what the load balancer is set to, 350s unless \
             changed",
        ),
        ("other_idle = \"500ms\"", "t.toml:6:1: flow.other_idle: 500ms is not between 1s and 6000s"),
        ("margin = \"61s\"", "t.toml:6:1: flow.margin: 61s is not between 0s and 60s"),
        (
            "tcp_idle = \"60s\"\nhalf_open = \"61s\"",
            "t.toml:7:1: flow.half_open: 61s is not between 1s and 60s; the end of this range is flow.tcp_idle",
        ),
        (
            "closing = \"10m\"",
            "t.toml:6:1: flow.closing: 600s is not between 1s and 350s; the end of this range is flow.tcp_idle",
        ),
        ("reset = \"2h\"", "t.toml:6:1: flow.reset: 7200s is not between 0s and 60s"),
        ("denied = \"0s\"", "t.toml:6:1: flow.denied: 0s is not between 1s and 6000s"),
        (
            "when_full = \"evict\"",
            r#"t.toml:6:1: flow.when_full: "evict" is not one of stateless, drop, forward"#,
        ),
        ("pickup = \"deny\"", r#"t.toml:6:1: flow.pickup: "deny" is not one of policy, allow, drop, reset"#),
        ("window_check = true", "t.toml:6:1: flow.window_check: true is not one of off, log, drop"),
        (
            "handoff_ring = 1000",
            "t.toml:6:1: flow.handoff_ring: 1000 is not a power of two; write 512 or 1024",
        ),
        ("handoff_ring = 32", "t.toml:6:1: flow.handoff_ring: 32 is not between 64 and 65536"),
        ("events_ring = 100", "t.toml:6:1: flow.events_ring: 100 is not a power of two; write 64 or 128"),
        ("events_ring = 2097152", "t.toml:6:1: flow.events_ring: 2097152 is not between 64 and 1048576"),
        ("answers_per_s = 1000001", "t.toml:6:1: flow.answers_per_s: 1000001 is not between 0 and 1000000"),
        ("fragments = 5", "t.toml:6:1: flow.fragments: 5 is not a table"),
        (
            "fragments = { age = 5 }",
            "t.toml:6:15: flow.fragments.age: unknown key; known here: hold, hold_time, lifetime, entries, orphans",
        ),
        ("fragments = { hold = 4097 }", "t.toml:6:15: flow.fragments.hold: 4097 is not between 0 and 4096"),
        (
            "fragments.hold_time = \"11s\"",
            "t.toml:6:11: flow.fragments.hold_time: 11s is not between 1ms and 10s",
        ),
        (
            "fragments.lifetime = \"90s\"",
            "t.toml:6:11: flow.fragments.lifetime: 90s is not between 1s and 60s",
        ),
        ("fragments.entries = 5", "t.toml:6:11: flow.fragments.entries: 5 is not between 64 and 1048576"),
        (
            "fragments.orphans = \"hold\"",
            r#"t.toml:6:11: flow.fragments.orphans: "hold" is not one of drop, forward"#,
        ),
    ];
    for (lines, message) in table {
        says(&format!("{GOOD}[flow]\n{lines}\n"), &Overrides::default(), &[message]);
    }
    let without = format!("{GOOD}[flow]\ntracking = false\n{FOLLOW}");
    says(
        &without,
        &Overrides::default(),
        &[
            "t.toml:6:1: flow.tracking: is false, but stage[0] \"sieve\" decides by flow; leave it at \"auto\", or make the \
           stage stateless",
        ],
    );
}

#[test]
fn without_a_word_the_defaults_hold() {
    let plan = good(GOOD, &Overrides::default());
    assert_eq!(plan.flow, FlowPlan::sized(1 << 18, 3));
    // A key written with its default changes nothing.
    let written = "[flow]\ntracking = \"auto\"\ncapacity = 262_144\nscope = \"endpoint\"\ntcp_idle = \"350s\"\nother_idle = \"2m\"\n\
                   margin = \"5s\"\nhalf_open = \"20s\"\nclosing = \"20s\"\nreset = \"2s\"\ndenied = \"10s\"\n\
                   when_full = \"stateless\"\npickup = \"policy\"\nwindow_check = \"off\"\nhandoff_ring = 1024\n\
                   events_ring = 8192\nanswers_per_s = 1000\n[flow.fragments]\nhold = 64\nhold_time = \"200ms\"\n\
                   lifetime = \"4s\"\nentries = 4096\norphans = \"drop\"\n[tenants]\nunknown_endpoint = \"default\"\n";
    assert_eq!(good(&format!("{GOOD}{written}"), &Overrides::default()).flow, plan.flow);
}

#[test]
fn every_key_arrives() {
    let text = "[flow]\ntracking = true\ncapacity = 1_000_000\nscope = \"tenant\"\ntcp_idle = \"90s\"\nother_idle = \"30s\"\n\
                margin = \"0s\"\nhalf_open = \"3s\"\nclosing = \"4s\"\nreset = \"0s\"\ndenied = \"1m 30s\"\nwhen_full = \"forward\"\n\
                pickup = \"reset\"\nwindow_check = \"log\"\nhandoff_ring = 64\nevents_ring = 128\nanswers_per_s = 0\n\
                [flow.fragments]\nhold = 0\nhold_time = \"1ms\"\nlifetime = \"30s\"\nentries = 64\norphans = \"forward\"\n";
    let seconds = Duration::from_secs;
    let expected = FlowPlan {
        tracking: true,
        scope: Scope::Tenant,
        tcp_idle: seconds(90),
        other_idle: seconds(30),
        margin: seconds(0),
        half_open: seconds(3),
        closing: seconds(4),
        reset: seconds(0),
        denied: seconds(90),
        when_full: WhenFull::Forward,
        pickup: Pickup::Reset,
        window_check: WindowCheck::Log,
        fragments: Fragments {
            hold: 0,
            hold_time: Duration::from_millis(1),
            lifetime: seconds(30),
            entries: 64,
            orphans: Orphans::Forward,
        },
        handoff_ring: 64,
        events_ring: 128,
        answers_per_s: 0,
        ..FlowPlan::sized(1_000_000, 3)
    };
    let plan = good(&format!("{GOOD}{text}"), &Overrides::default());
    assert_eq!(plan.flow, expected);
    assert_eq!(plan.flow.per_worker, 416_667);
}

#[test]
fn the_environment_and_the_command_line_set_times() {
    let environment = [("SLUICEGATE_FLOW__TCP_IDLE", "90s"), ("SLUICEGATE_FLOW__FRAGMENTS__HOLD", "8")];
    let plan = good(GOOD, &overrides(&environment, &["flow.tracking=true", "flow.capacity=2_048"]));
    assert_eq!(plan.flow.tcp_idle, Duration::from_secs(90));
    assert_eq!((plan.flow.fragments.hold, plan.flow.tracking, plan.flow.capacity), (8, true, 2048));
    says(
        GOOD,
        &overrides(&[("SLUICEGATE_FLOW__TCP_IDLE", "90")], &["flow.margin=soon"]),
        &[
            r#"environment SLUICEGATE_FLOW__TCP_IDLE: flow.tcp_idle: 90 is not a time with its unit, such as "350s" or "200ms""#,
            r#"--set flow.margin=soon: flow.margin: "soon" is not a time with its unit, such as "350s" or "200ms""#,
        ],
    );
}

#[test]
fn flows_are_followed_where_somebody_asks() {
    let tracks = |text: &str| good(&format!("{GOOD}{text}"), &Overrides::default()).flow.tracking;
    assert!(!tracks(""), "nobody asks");
    assert!(!tracks("[[stage]]\nuse = \"sieve\"\n"), "a stage that needs no flow");
    assert!(tracks(FOLLOW), "a stage that does");
    assert!(tracks("[flow]\ntracking = true\n"));
    assert!(tracks("[[tenant]]\nname = \"a\"\nendpoints = [1]\n"), "tenants have shares of a table");
    assert!(!tracks("[flow]\ntracking = false\n[[tenant]]\nname = \"a\"\nendpoints = [1]\n"), "said so");
}

#[test]
fn what_is_probably_not_meant_is_warned_of() {
    let warnings = |text: &str| {
        let warnings = good(&format!("{GOOD}{text}"), &Overrides::default()).warnings;
        warnings.into_iter().filter(|w| !w.starts_with("CPU")).collect::<Vec<_>>()
    };
    let deny = "[[stage]]\nuse = \"sieve\"\nfollow = true\nkeep = \"none\"\n";
    let open = "[flow]\nwhen_full = \"forward\"\npickup = \"allow\"\n";
    let starts = [
        "flow.when_full = forward: while the table is full, new flows pass stage[0] \"sieve\" by",
        "flow.pickup = allow: TCP that does not begin with a SYN passes stage[0] \"sieve\" by",
    ];
    let found = warnings(&format!("{open}{deny}"));
    assert!(
        found.len() == 2 && found.iter().zip(starts).all(|(w, start)| w.starts_with(start)),
        "{found:#?}"
    );
    assert_eq!(
        warnings(&format!("{open}{FOLLOW}")),
        Vec::<String>::new(),
        "what is allowed anyway is no news"
    );
    assert_eq!(warnings(deny), Vec::<String>::new());
    let found = warnings(&format!("[flow]\nother_idle = \"30s\"\n{FOLLOW}"));
    assert!(found.len() == 1 && found[0].starts_with("flow.other_idle = 30s: a gateway"), "{found:?}");
    let found = warnings("[flow]\ntracking = false\n[[tenant]]\nname = \"a\"\nendpoints = [1]\n");
    assert!(found.len() == 1 && found[0].starts_with("flow.tracking is false: tenants have"), "{found:?}");
}

/// By hand: three workers have six rings between them.
#[test]
fn buffers_that_wait_between_workers_are_in_the_pool() {
    let plain = good(GOOD, &Overrides::default()).pool.config.buffers;
    let text = format!("{GOOD}[flow]\nhandoff_ring = 256\nfragments.hold = 100\n{FOLLOW}");
    let plan = good(&text, &Overrides::default());
    // Frames may have to wait for a stage that comes by a reload.
    assert_eq!(plan.pool.config.buffers, plain + 6 * 256 + 3 * 100 + 3 * 256);
    assert!(
        plan.pool.formula.contains("1536  hand-off rings: 6 x flow.handoff_ring, 256"),
        "{}",
        plan.pool.formula
    );
    let alone = format!("{text}[eal]\nlcores = \"0-1\"\n");
    assert!(
        !good(&alone, &Overrides::default()).pool.formula.contains("hand-off"),
        "one worker hands nothing over"
    );
}

#[test]
fn times_are_written_in_one_unit() {
    for (time, text) in [
        (Duration::ZERO, "0s"),
        (Duration::from_secs(350), "350s"),
        (Duration::from_millis(1500), "1500ms"),
        (Duration::from_micros(1500), "1ms 500us"),
    ] {
        assert_eq!(span(time), text);
        assert_eq!(humantime::parse_duration(text), Ok(time));
    }
}

#[test]
fn the_plan_of_flows_reads_well() {
    let text = format!(
        "{GOOD}[flow]\ncapacity = 1_000_000\nhalf_open = \"3s\"\n\
         [[tenant]]\nname = \"payments\"\nendpoints = [\"vpce-0123456789abcdef0\", 5]\n\
         limits = {{ flows = \"30%\", guaranteed = \"10%\", new_flows_per_s = 50_000 }}\n\
         [[tenant]]\nname = \"lab\"\nendpoints = [\"vpce-1a2b3c4d\"]\n"
    );
    let plan = good(&text, &Overrides::default());
    let printed = plan.to_string();
    let start = printed.find("\nflows").unwrap();
    let end = printed.find("\nmanagement").unwrap();
    assert_eq!(&printed[start + 1..end], include_str!("tests/plan.txt"));
    let json = plan.to_json();
    assert_eq!(json["flow"]["tcp_idle"], "350s");
    assert_eq!(json["flow"]["per_worker"], 416_667);
    assert_eq!(json["flow"]["bytes_per_worker"], 416_667 * crate::flow::FLOW_BYTES);
    assert_eq!(json["flow"]["fragments"]["hold_time"], "200ms");
    assert_eq!(json["tenants"]["unknown_endpoint"], "default");
    assert_eq!(json["tenant"].as_array().map(Vec::len), Some(3));
    assert_eq!(json["tenant"][1]["endpoints"], serde_json::json!(["5", "vpce-0123456789abcdef0"]));
    assert_eq!(json["tenant"][1]["new_flows_per_s"], 50_000);

    let staged = good(&format!("{GOOD}[eal]\nlcores = [0, 1]\n{FOLLOW}"), &Overrides::default());
    let line = "     worker       262144 flows, 50 MB at 189 + 8 of stages bytes\n";
    assert!(staged.to_string().contains(line), "{staged}");

    let many: String = (0..30).map(|i| format!("[[tenant]]\nname = \"t{i}\"\nendpoints = [{i}]\n")).collect();
    let printed = good(&format!("{GOOD}{many}"), &Overrides::default()).to_string();
    assert!(printed.contains("  and 11 more: check --json has them all\n"), "{printed}");
}
