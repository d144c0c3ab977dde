//! Scenarios that are right, and every mistake with its line.

use super::*;

fn read(text: &str) -> Result<Scenario, Vec<String>> {
    parse("s.toml", text, Path::new(env!("CARGO_MANIFEST_DIR")))
}

/// What a step that is right is called.
fn words(step: &str) -> String {
    let text = format!("[[step]]\ntraffic = {{ connections = 1 }}\n[[step]]\n{step}");
    read(&text).unwrap_or_else(|problems| panic!("{step}: {problems:?}")).steps[1].name.clone()
}

/// The only mistake.
fn mistake(text: &str) -> String {
    let problems = read(text).expect_err(text);
    assert_eq!(problems.len(), 1, "{problems:?}");
    problems[0].clone()
}

#[test]
fn a_whole_scenario_is_read() {
    let scenario = read(
        r#"
about = "something"
[lab]
appliances = 3
absent = ["app-2"]
mtu = 8500
pipeline = "pipelines/firewall.toml"
appliance = ["flow.tcp_idle=60s"]
gateway = ["gateway.failover=rebalance"]
[[step]]
traffic = { connections = 10, opens_per_s = 5, interval = "100ms", ipv6 = false }
[[step]]
name = "one goes"
kill = "app-3"
[[step]]
run = ["curl", "http://{server}/"]
exit = "22..28"
optional = true
"#,
    )
    .unwrap();
    assert_eq!(scenario.about, "something");
    assert_eq!(scenario.shape, Shape { appliances: 3, absent: vec![2], mtu: 8500, way: Way::Gateway });
    assert_eq!(scenario.settings.appliance, ["flow.tcp_idle=60s"]);
    assert_eq!(scenario.settings.gateway, ["gateway.failover=rebalance"]);
    assert!(scenario.settings.pipeline.unwrap().ends_with("pipelines/firewall.toml"));
    let [traffic, kill, run] = scenario.steps.as_slice() else { panic!() };
    assert_eq!((traffic.line, kill.line, run.line), (10, 12, 15));
    let Action::Traffic(load) = &traffic.action else { panic!() };
    assert_eq!((load.connections, load.datagrams, load.opens_per_s, load.ipv6), (10, 0, 5, false));
    assert_eq!((load.interval, load.patience), (Duration::from_millis(100), Duration::from_secs(20)));
    assert_eq!((kill.name.as_str(), &kill.action), ("one goes", &Action::Kill(3)));
    let Action::Run(run) = &run.action else { panic!() };
    assert!(run.exit.holds(22) && !run.exit.holds(0) && run.optional && !run.background);
    assert_eq!((run.room, run.timeout), (Room::Client, TIMEOUT));
}

#[test]
fn steps_have_words() {
    for (step, expected) in [
        (
            "traffic = { datagrams = 2, opens_per_s = 3 }",
            "traffic: 2 flows of datagrams, 3 new connections a second",
        ),
        ("mark = \"later\"", "later"),
        ("wait = \"1500ms\"", "wait 1s 500ms"),
        ("kill = \"app-1\"", "kill app-1"),
        ("pause = \"app-1\"", "pause app-1"),
        ("resume = \"app-1\"", "resume app-1"),
        ("drain = \"app-2\"", "drain app-2"),
        ("reload = \"app-1\"", "reload app-1"),
        ("reload = \"app-1\"\nfile = \"pipelines/dns-filter.toml\"", "reload app-1 with dns-filter.toml"),
        ("run = [\"ping\", \"-c1\", \"{server}\"]\nin = \"server\"", "ping -c1 {server}"),
        (
            "ask = \"status\"\nof = \"app-1\"\nat = \"/flows/live\"\nis = \">= 1\"",
            "app-1: status /flows/live is >= 1",
        ),
        (
            "ask = \"status\"\nof = \"gateway\"\nat = \"/state\"\nis = \"ready\"",
            "gateway: status /state is \"ready\"",
        ),
        ("expect = { lost = 0, broken = \"<= 3\" }", "expect broken <= 3, lost = 0"),
        ("total = { opened = \"> 3\" }", "in all opened >= 4"),
    ] {
        assert_eq!(words(step), expected);
    }
}

#[test]
fn mistakes_are_told_with_their_line() {
    let traffic = "[[step]]\ntraffic = { connections = 1 }\n";
    for (text, expected) in [
        ("", "s.toml:1: no [[step]]: nothing would happen"),
        ("[[step]]\nwait = \"x\"", "s.toml:1: wait = \"x\" is no time: write \"500ms\", \"10s\" or \"2m\""),
        (
            "\n\n[[step]]\nkill = \"app-3\"",
            "s.toml:3: there is no \"app-3\" at this step; there is app-1, app-2",
        ),
        (
            "[[step]]\nkill = \"app-1\"\n[[step]]\nkill = \"app-1\"",
            "s.toml:3: there is no \"app-1\" at this step; there is app-2",
        ),
        ("[[step]]\nstart = \"app-1\"", "s.toml:1: start = \"app-1\": it is running at this step"),
        (
            "[lab]\nabsent = [\"app-3\"]\n[[step]]\nwait = \"1s\"",
            "s.toml:2: absent: \"app-3\" is none of 2 appliances",
        ),
        (
            "[[step]]\nwait = \"1s\"\nkill = \"app-1\"",
            "s.toml:1: this step does 2 things: wait, kill; make a step of each",
        ),
        (
            "[[step]]\nwait = \"1s\"\nfile = \"x\"",
            "s.toml:1: \"file\" has no meaning beside \"wait\"; it belongs to reload",
        ),
        ("[[step]]\nmark = \"x\"", "s.toml:1: \"mark\" is about traffic, and there is none at this step"),
        (
            "[[step]]\nexpect = { lost = 0 }",
            "s.toml:1: \"expect\" is about traffic, and there is none at this step",
        ),
        (
            "[[step]]\ntraffic = {}",
            "s.toml:1: traffic of nothing: write connections, datagrams or opens_per_s",
        ),
        ("[[step]]\ntraffic = { connections = 10001 }", "s.toml:1: connections = 10001: at most 10000"),
        ("[[step]]\nrun = []", "s.toml:1: run = []: name a program"),
        ("[[step]]\nask = \"status\"\nof = \"gateway\"", "s.toml:1: \"is\" is missing: what should be there"),
        (
            "[[step]]\nreload = \"app-1\"\nfile = \"pipelines/none.toml\"",
            "pipelines/none.toml: there is no such file",
        ),
        ("[lab]\nmtu = 500\n[[step]]\nwait = \"1s\"", "s.toml:2: mtu = 500: write 1280 to 9001"),
        ("[lab]\n\nappliances = 17\n[[step]]\nwait = \"1s\"", "s.toml:3: appliances = 17: a lab has 1 to 16"),
        (
            "[lab]\ngateway = [\"x\"]\n[[step]]\nwait = \"1s\"",
            "\"x\": write it as for --set, \"flow.tcp_idle=60s\"",
        ),
        ("[lab]\npipeline = \"none.toml\"\n[[step]]\nwait = \"1s\"", "none.toml: there is no such file"),
        (
            "[lab]\nway = \"wire\"\n[[step]]\nkill = \"app-1\"",
            "s.toml:3: \"kill\": there are neither gateway nor appliances where lab.way is \"wire\"",
        ),
    ] {
        let said = mistake(text);
        assert!(said.contains(expected), "{text}: {said}");
    }
    let said = mistake("[[step]]\n");
    assert!(said.starts_with("s.toml:1: this step does nothing; write one of traffic, mark, wait"), "{said}");
    let said = mistake(&format!("{traffic}[[step]]\nexpect = {{ dropped = 0 }}"));
    assert!(
        said.starts_with("s.toml:3: \"dropped\" is no figure; there are for_ms, datagrams, lost"),
        "{said}"
    );
    let said = mistake(&format!("{traffic}[[step]]\nexpect = {{ lost = \"few\" }}"));
    assert_eq!(
        said,
        "s.toml:3: lost: \"few\" is no bound: write 5, \"<= 5\", \">= 5\", \"< 5\", \"> 5\" or \"2..5\""
    );
    // After the figures of all windows there is no traffic any more.
    let said = mistake(&format!("{traffic}[[step]]\ntotal = {{ lost = 0 }}\n[[step]]\nmark = \"x\""));
    assert!(said.starts_with("s.toml:5: \"mark\" is about traffic"), "{said}");
}

/// What is no TOML, or has keys that nobody knows, is told with its line, too.
#[test]
fn unknown_keys_are_mistakes() {
    let said = mistake("[[step]]\n[step");
    assert!(said.starts_with("s.toml:2: "), "{said}");
    let said = mistake("[[step]]\nwait = \"1s\"\n[[step]]\nkil = \"app-1\"");
    assert!(said.starts_with("s.toml:4: unknown field `kil`, expected one of `name`, `traffic`"), "{said}");
    let said = mistake("[lab]\ntargets = 2");
    assert!(said.starts_with("s.toml:2: unknown field `targets`"), "{said}");
    let said = mistake("[[step]]\nrun = [\"x\"]\nin = \"plane-\"");
    assert_eq!(said, "s.toml:1: in = \"plane-\": write client, server, gateway, fabric or app-1");
}

/// All mistakes at once.
#[test]
fn mistakes_are_collected() {
    let problems =
        read("[[step]]\nkill = \"app-9\"\n[[step]]\nwait = \"x\"\n[[step]]\nstart = \"app-2\"").unwrap_err();
    assert_eq!(problems.len(), 3, "{problems:?}");
}

/// Every step, figure and setting is in the document.
#[test]
fn scenarios_are_documented() {
    let text = include_str!("../../../docs/lab.md");
    let keys = [
        "appliances",
        "absent",
        "pipeline",
        "appliance",
        "gateway",
        "mtu",
        "way",
        "in",
        "exit",
        "output",
        "timeout",
    ];
    let more = [
        "background",
        "optional",
        "of",
        "at",
        "is",
        "within",
        "file",
        "interval",
        "ipv6",
        "patience",
        "datagram_patience",
    ];
    let names = RawStep::VERBS.iter().chain(&Figures::NAMES).chain(&keys).chain(&more);
    let missing: Vec<_> = names.filter(|name| !text.contains(&format!("`{name}`"))).collect();
    assert!(missing.is_empty(), "docs/lab.md: {missing:?}");
}

/// Scenarios that come with the program are right.
#[test]
fn scenarios_of_the_repository_are_read() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("lab");
    let mut found = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|end| end == "toml") {
            let text = std::fs::read_to_string(&path).unwrap();
            let scenario = parse(&path.display().to_string(), &text, &folder);
            let scenario = scenario.unwrap_or_else(|problems| panic!("{problems:#?}"));
            assert!(!scenario.about.is_empty(), "{}", path.display());
            found += 1;
        }
    }
    assert!(found >= 4, "{found}");
}
