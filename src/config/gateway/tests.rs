//! What a gateway's file becomes, and what is said of a broken one.

use super::*;
use crate::config::Machine;

const GOOD: &str = r#"
[[port]]
name = "wan"
device = "net_null0"
[[port]]
name = "trunk"
device = "net_null1"
mtu = 1500
[[port]]
name = "targets"
device = "net_null2"

[tunnel]
profile = "aws"

[gateway]
port = "targets"
address = "10.0.8.2/24"
zone = "a"
failover = "rebalance"

[flow]
tcp_idle = "60s"

[[endpoint]]
id = "vpce-0123456789abcdef0"
legs = ["trunk.10", "trunk.20"]
[[endpoint]]
id = 7
legs = ["wan", "trunk"]

[[target]]
address = "10.0.8.11"
mac = "02:00:00:00:00:0b"
weight = 3
[[target]]
address = "10.0.8.12"
zone = "b"
"#;

fn check(text: &str) -> Result<GatewayPlan, Vec<Problem>> {
    let machine = Machine { cpus: vec![0, 1, 2, 3], worth: 4 };
    load_text("g.toml", text, &Overrides::default(), &Options { machine, ..Options::default() })
}

#[test]
fn health_checks_are_part_of_the_file() {
    assert_eq!(check(GOOD).unwrap().health_check, None);
    let plan = check(&format!("{GOOD}[health_check]\n")).unwrap();
    assert_eq!(plan.health_check, Some(HealthCheck::default()));
    let shown =
        "health check: a connection to port 80; every 10s, for 5s; healthy after 5, unhealthy after 2";
    assert!(plan.to_string().contains(shown), "{plan}");
    assert_eq!(plan.to_json()["health_check"]["interval_s"], 10.0);
    let plan =
        check(&format!("{GOOD}[health_check]\nprotocol = \"https\"\nmatcher = 204\ninterval = \"500ms\"\n"))
            .unwrap();
    assert!(plan.to_string().contains("https port 80, /, 204; every 500ms, for 500ms"), "{plan}");
    assert_eq!(
        plan.warnings,
        ["health_check.interval = 500ms is outside AWS's bounds, 5s to 300s: good for a laboratory"]
    );
    for (text, expected) in [
        ("port = 0", "health_check.port: 0 is not a port; ports are 1 to 65535"),
        ("timeout = \"11s\"", "health_check.timeout: 11s is longer than the interval, 10s"),
        ("protocol = \"udp\"", "health_check.protocol: \"udp\" is not one of tcp, http, https"),
        ("intervall = \"5s\"", "health_check.intervall: unknown key; did you mean \"interval\"?"),
        ("interval = 5", "health_check.interval: 5 is not a time with its unit"),
    ] {
        let problems = check(&format!("{GOOD}[health_check]\n{text}\n")).unwrap_err();
        assert!(problems.len() == 1 && problems[0].to_string().contains(expected), "{text}: {problems:?}");
    }
}

#[test]
fn a_good_file_is_a_plan() {
    let plan = check(GOOD).unwrap();
    assert_eq!(plan.names, ["wan", "trunk", "targets"]);
    assert_eq!((plan.targets_port, plan.workers.len(), plan.table), (2, 1, 65_537));
    let legs = |endpoint: &EndpointPlan| endpoint.legs.map(|leg| (leg.port, leg.vlan));
    assert_eq!(
        plan.endpoints.iter().map(legs).collect::<Vec<_>>(),
        [[(1, Some(10)), (1, Some(20))], [(0, None), (1, None)]]
    );
    assert_eq!(plan.endpoints[0].id, 0x1234_5678_9abc_def0);
    assert_eq!((plan.targets[0].mac, plan.targets[0].weight), (Some([2, 0, 0, 0, 0, 11]), 3));
    assert_eq!((plan.targets[1].mac, plan.targets[1].zone.as_str()), (None, "b"));
    assert!(plan.ports[0].config.promiscuous && plan.ports[1].config.promiscuous);
    assert!(!plan.ports[2].config.promiscuous);
    assert_eq!((plan.tcp_idle.as_secs(), plan.other_idle.as_secs()), (60, 120));
    assert!(plan.warnings.is_empty(), "{:?}", plan.warnings);
    let text = plan.to_string();
    for part in ["a gateway", "trunk.10 - trunk.20", "02:00:00:00:00:0b", "rebalance", "zone \"b\""] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    assert_eq!(plan.to_json()["gateway"]["stickiness"], "5-tuple");
    assert!(is_gateway(GOOD) && !is_gateway("[tunnel]\nport = 6081\n") && !is_gateway("["));
}

/// What is replaced in the good file, and place, mistake and remedy that this gives.
const MISTAKES: &[(&str, &str, &str)] = &[
    ("name = \"wan\"", "name = \"w.n\"", "port[0].name: \"w.n\" is not a name; use letters"),
    (
        "name = \"wan\"",
        "name = \"trunk\"",
        "port[1].name: \"trunk\" is port[0] already; give each a name of its own",
    ),
    ("device = \"net_null1\"", "device = \"net_null0\"", "port[1].device: \"net_null0\" is port[0] already"),
    ("mtu = 1500", "mtu = 99999", "port[1].mtu: 99999 is not between 68 and 9001"),
    ("mtu = 1500", "queues = 2", "port[1].queues: unknown key; known here: name, device"),
    (
        "profile = \"aws\"",
        "profile = \"awz\"",
        "tunnel.profile: \"awz\" is not one of aws, tencent, google, plain",
    ),
    (
        "profile = \"aws\"",
        "profile = \"plain\"",
        "endpoint[0].id: 1311768467463790320 does not fit into a VNI",
    ),
    ("port = \"targets\"", "", "gateway: \"port\" is missing; name the [[port]] on which targets are"),
    ("port = \"targets\"", "port = \"target\"", "gateway.port: there is no port \"target\"; "),
    (
        "port = \"targets\"",
        "port = \"wan\"",
        "gateway.port: \"wan\" has legs of endpoint[1]; targets need a port of their own",
    ),
    ("address = \"10.0.8.2/24\"", "", "gateway: \"address\" is missing"),
    ("10.0.8.2/24", "10.0.8.2", "gateway.address: \"10.0.8.2\" is not an address with its subnet"),
    ("10.0.8.2/24", "10.0.8.0/24", "gateway.address: 10.0.8.0 is not a host's address"),
    ("10.0.8.2/24", "224.0.8.2/24", "gateway.address: 224.0.8.2 is not a host's address"),
    ("zone = \"a\"", "zone = \"a\"\nrouter = \"10.0.9.1\"", "gateway.router: 10.0.9.1 is not another host"),
    ("zone = \"a\"", "table = 65536", "gateway.table: 65536 is not a prime number; take 65537"),
    ("zone = \"a\"", "table = 2\ncross_zone = true", "gateway.table: a weight is so small beside the others"),
    ("failover = \"rebalance\"", "failover = \"move\"", "gateway.failover: "),
    ("failover = \"rebalance\"", "deregistration_delay = \"2h\"", "gateway.deregistration_delay: "),
    ("failover = \"rebalance\"", "stickiness = \"4-tuple\"", "gateway.stickiness: "),
    ("tcp_idle = \"60s\"", "tcp_idle = \"59s\"", "flow.tcp_idle: "),
    ("tcp_idle = \"60s\"", "capacity = 1000", "flow.capacity: 1000 is not between 1024 and 67108864"),
    ("tcp_idle = \"60s\"", "unknown_tcp = \"reset\"", "flow.unknown_tcp: "),
    ("id = 7", "", "endpoint[1]: \"id\" is missing"),
    ("id = 7", "id = \"vpce-12\"", "endpoint[1].id: "),
    ("id = 7", "id = \"vpce-0123456789abcdef0\"", "endpoint[1].id: is that of endpoint[0]"),
    ("[\"wan\", \"trunk\"]", "[\"wan\"]", "endpoint[1].legs: has 1 legs; an endpoint has two"),
    ("[\"wan\", \"trunk\"]", "[\"wan\", \"lan\"]", "endpoint[1].legs[1]: there is no port \"lan\""),
    ("[\"wan\", \"trunk\"]", "[\"wan\", \"wan\"]", "endpoint[1].legs[1]: is the other leg, too"),
    (
        "[\"wan\", \"trunk\"]",
        "[\"wan\", \"trunk.20\"]",
        "endpoint[1].legs[1]: is a leg of endpoint[0]; a frame's port and VLAN",
    ),
    (
        "[\"wan\", \"trunk\"]",
        "[\"wan\", \"trunk.4095\"]",
        "endpoint[1].legs[1]: \"trunk.4095\" does not end in a VLAN",
    ),
    (
        "[\"wan\", \"trunk\"]",
        "[\"wan\", \"trunk.0\"]",
        "endpoint[1].legs[1]: \"trunk.0\" does not end in a VLAN",
    ),
    ("address = \"10.0.8.11\"", "", "target[0]: \"address\" is missing"),
    (
        "10.0.8.11",
        "fd00::1",
        "target[0].address: \"fd00::1\" is not a host's IPv4 address; the tunnel is IPv4",
    ),
    ("10.0.8.12", "10.0.8.11", "target[1].address: 10.0.8.11 is target[0] already"),
    (
        "10.0.8.12",
        "10.0.9.12",
        "target[1].address: 10.0.9.12 is not in the subnet of gateway.address, 10.0.8.0/24; set gateway.router",
    ),
    (
        "02:00:00:00:00:0b",
        "03:00:00:00:00:0b",
        "target[0].mac: \"03:00:00:00:00:0b\" is not the MAC address of one device",
    ),
    ("02:00:00:00:00:0b", "2:0:0:0:0:b", "target[0].mac: "),
    ("weight = 3", "weight = 1001", "target[0].weight: 1001 is not between 0 and 1000"),
    ("weight = 3", "weight = 0", "target: no target stands in gateway.zone \"a\", with a weight above 0"),
    (
        "[flow]",
        "[eal]\nlcores = [0, 1, 2]\n[flow]",
        "eal.lcores: these are 2 workers: a gateway has one so far; name two CPUs",
    ),
    ("[flow]", "[[stage]]\nuse = \"acl\"\n[flow]", "stage: unknown key"),
];

#[test]
fn each_mistake_says_where_and_what_to_do() {
    for (good, bad, said) in MISTAKES {
        assert!(GOOD.contains(good), "{good}");
        let problems = check(&GOOD.replacen(good, bad, 1)).expect_err(said);
        let text: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert!(text.iter().any(|line| line.contains(said)), "{said}\nnot in\n{}", text.join("\n"));
    }
    let empty = check("[gateway]\n").unwrap_err();
    let text: Vec<String> = empty.iter().map(ToString::to_string).collect();
    for said in
        ["no [[port]]", "no [[endpoint]]", "no [[target]]", "\"port\" is missing", "\"address\" is missing"]
    {
        assert!(text.iter().any(|line| line.contains(said)), "{said}\nnot in\n{}", text.join("\n"));
    }
}

#[test]
fn what_may_be_a_mistake_is_a_warning() {
    let of = |good: &str, more: &str| check(&GOOD.replacen(good, more, 1)).unwrap().warnings;
    let unused = of("[tunnel]", "[[port]]\ndevice = \"net_null9\"\n[tunnel]");
    assert!(unused[0].contains("port[3] \"port3\" is neither a leg nor the targets' port"), "{unused:?}");
    let small = of("device = \"net_null2\"", "device = \"net_null2\"\nmtu = 1500");
    assert!(small[0].contains("more than 1432 bytes"), "{small:?}");
}
