use std::path::Path;

use crate::config::{Cause, HostKind, Machine, Options, Overrides, Plan, WhenFailed, load_text};

const PORT: &str = "[[port]]\ndevice = \"net_null0\"\n";
const TUNNEL: &str = "[tunnel]\nallowed_sources = [\"10.0.8.0/24\", \"10.0.9.0/24\"]\nprofile = \"plain\"\n";

fn load(text: &str) -> Result<Plan, Vec<String>> {
    let options = Options { machine: Machine { cpus: vec![0, 1], worth: 2 }, ..Options::default() };
    load_text("t.toml", text, Path::new("/"), &Overrides::default(), &options)
        .map_err(|problems| problems.iter().map(|problem| without_column(&problem.to_string())).collect())
}

/// `t.toml:3:11: what` -> `t.toml:3: what`.
fn without_column(text: &str) -> String {
    let parts: Vec<&str> = text.splitn(4, ':').collect();
    format!("{}:{}:{}", parts[0], parts[1], parts[3])
}

fn plan(port: &str, rest: &str) -> Plan {
    load(&format!("{PORT}{port}\n{TUNNEL}{rest}"))
        .unwrap_or_else(|problems| panic!("{}", problems.join("\n")))
}

fn management(plan: &Plan) -> String {
    let text = plan.to_string();
    let part = text.split("\nmanagement\n").nth(1).unwrap().split("\n\n").next().unwrap();
    part.lines().map(|line| format!("{}\n", line.trim())).collect()
}

#[test]
fn without_an_address_nobody_answers() {
    let plan = plan("", "");
    assert_eq!(plan.management.host.kind, HostKind::Off);
    assert_eq!(plan.warnings, Vec::<String>::new());
    assert_eq!(
        management(&plan),
        "host stack   none, no port has an address: ARP, ping and health checks get no answer\n\
         listens      nowhere else: management.listen = \"127.0.0.1:9100\" gives health and /metrics to this machine\n\
         fails on     a worker stuck for 1s, the pool empty for 5s, link down, TX stuck, drain\n\
         recovers     when all has been well for 10s\n\
         drain        only when asked to: at least 30s, then until no flow is left or 300s have passed\n"
    );
}

#[test]
fn with_an_address_the_stack_answers_the_load_balancer_and_the_neighbours() {
    let plan = plan("address = \"10.0.8.20/24\"\ngateway = \"10.0.8.1\"\naddress6 = \"2001:db8::20/64\"", "");
    let host = &plan.management.host;
    assert_eq!((host.kind, host.frames_per_s), (HostKind::Stack, 10_000));
    let sources: Vec<String> = host.allowed_sources.iter().flatten().map(ToString::to_string).collect();
    assert_eq!(sources, ["10.0.8.0/24", "10.0.9.0/24", "::/128", "2001:db8::/64", "fe80::/10"]);
    assert_eq!(plan.warnings, Vec::<String>::new());
    let shown = management(&plan);
    assert!(
        shown.starts_with(
            "port[0]      10.0.8.20/24, gateway 10.0.8.1, 2001:db8::20/64\nreached by   10.0.8.0/24, "
        ),
        "{shown}"
    );
    assert!(shown.contains("health       TCP port 80; a failed appliance refuses connections\n"), "{shown}");
    let json = plan.to_json();
    assert_eq!(json["port"][0]["address"], "10.0.8.20/24");
    assert_eq!(
        (&json["management"]["host"], &json["management"]["health"]["port"]),
        (&"stack".into(), &80.into())
    );
}

#[test]
fn every_setting_arrives() {
    let plan = plan(
        "address = \"dhcp\"",
        "[management]\nallowed_sources = [\"192.0.2.7\"]\nframes_per_s = 500\nlisten = \"127.0.0.1:9100\"\n\
         drain_on_sigterm = true\ndrain_deadline = \"20s\"\n\
         [management.health]\nport = 8080\nwhen_failed = \"503\"\nfail_on = [\"overload\", \"reload-failed\"]\n\
         stuck_after = \"2s\"\npool_after = \"3s\"\nhold = \"4s\"\n",
    );
    let m = &plan.management;
    assert_eq!(
        m.host.allowed_sources.iter().flatten().next().map(ToString::to_string),
        Some("192.0.2.7/32".into())
    );
    assert_eq!((m.host.frames_per_s, m.listen.map(|l| l.port())), (500, Some(9100)));
    assert_eq!((m.drain.on_sigterm, m.drain.deadline.as_secs(), m.drain.at_least.as_secs()), (true, 20, 20));
    assert_eq!((m.health.port, m.health.when_failed), (8080, WhenFailed::Status503));
    assert_eq!(m.health.fail_on, [Cause::Overload, Cause::ReloadFailed]);
    let times = [m.health.stuck_after, m.health.pool_after, m.health.hold].map(|time| time.as_secs());
    assert_eq!(times, [2, 3, 4]);
    assert_eq!(plan.warnings, Vec::<String>::new());
    let tap = self::plan("", "[management]\nhost = \"tap\"\ntap_name = \"gw\"\n");
    assert_eq!(
        (tap.management.host.kind, tap.management.host.allowed_sources.clone()),
        (HostKind::Tap, None)
    );
    assert!(management(&tap).starts_with(
        "host stack   the kernel's, by gw0 to gw0, one for each port\nreached by   everybody\n"
    ));
    let off = self::plan("address = \"10.0.8.20/24\"", "[management]\nhost = \"off\"\n");
    assert!(management(&off).starts_with("host stack   none, turned off: "));
}

/// Every mistake, with its place and what to do.
#[test]
fn mistakes_have_a_place_and_a_remedy() {
    for (port, rest, expected) in [
        (
            "address = \"10.0.8.20\"",
            "",
            "t.toml:3: port[0].address: \"10.0.8.20\" is not an IPv4 address with its prefix; write it as \"10.0.8.20/24\", or \"dhcp\"",
        ),
        (
            "address = \"10.0.8.0/24\"",
            "",
            "t.toml:3: port[0].address: 10.0.8.0/24 is not the address of a host in its subnet; give the address of the port itself",
        ),
        (
            "address = \"10.0.8.255/24\"",
            "",
            "t.toml:3: port[0].address: 10.0.8.255/24 is not the address of a host in its subnet; give the address of the port itself",
        ),
        (
            "address = \"224.0.0.1/4\"",
            "",
            "t.toml:3: port[0].address: 224.0.0.1/4 is not the address of a host in its subnet; give the address of the port itself",
        ),
        (
            "address = \"10.0.8.20/24\"\ngateway = \"10.0.9.1\"",
            "",
            "t.toml:4: port[0].gateway: 10.0.9.1 is not a neighbour in 10.0.8.0/24; a gateway is another host of the port's subnet",
        ),
        (
            "address = \"10.0.8.20/24\"\ngateway = \"10.0.8.20\"",
            "",
            "t.toml:4: port[0].gateway: 10.0.8.20 is not a neighbour in 10.0.8.0/24; a gateway is another host of the port's subnet",
        ),
        (
            "gateway = \"10.0.8.1\"",
            "",
            "t.toml:3: port[0].gateway: is there without an address; give the port an address",
        ),
        (
            "address = \"dhcp\"\ngateway = \"10.0.8.1\"",
            "",
            "t.toml:4: port[0].gateway: is told by DHCP; leave it out, or give an address",
        ),
        (
            "gateway = \"up\"",
            "",
            "t.toml:3: port[0].gateway: \"up\" is not an IPv4 address; write it as \"10.0.8.1\"",
        ),
        (
            "address6 = \"fe80::1\"",
            "",
            "t.toml:3: port[0].address6: \"fe80::1\" is not an IPv6 address with its prefix; write it as \"2001:db8::20/64\"",
        ),
        (
            "address6 = \"ff02::1/64\"",
            "",
            "t.toml:3: port[0].address6: ff02::1/64 is not the address of a host",
        ),
        (
            "",
            "[management]\nhost = \"stack\"",
            "t.toml:8: management.host: is \"stack\", but no port has an address; give a [[port]] an address = \"10.0.8.20/24\" or \"dhcp\"",
        ),
        (
            "",
            "[management]\nallowed_sources = [\"10.0.8.1/24\"]",
            "t.toml:8: management.allowed_sources[0]: 10.0.8.1/24 has bits set behind the prefix; write 10.0.8.0/24",
        ),
        (
            "",
            "[management]\nallowed_sources = [\"friends\"]",
            "t.toml:8: management.allowed_sources[0]: \"friends\" is not a prefix; write it as \"10.0.8.0/24\" or \"2001:db8::/64\"",
        ),
        (
            "",
            "[management]\nframes_per_s = 5",
            "t.toml:8: management.frames_per_s: 5 is not between 100 and 1000000",
        ),
        (
            "",
            "[management]\nlisten = \"9100\"",
            "t.toml:8: management.listen: \"9100\" is not an address with a port; write it as \"127.0.0.1:9100\"",
        ),
        (
            "",
            "[management]\ntap_name = \"much-too-long\"",
            "t.toml:8: management.tap_name: \"much-too-long\" cannot be the start of an interface's name; use up to 12 letters, digits, `-` or `_`",
        ),
        (
            "",
            "[management]\ndrain_deadline = \"0s\"",
            "t.toml:8: management.drain_deadline: 0s is not between 1s and 86400s",
        ),
        (
            "",
            "[management]\ndrain_deadline = \"5s\"\ndrain_at_least = \"6s\"",
            "t.toml:9: management.drain_at_least: 6s is not between 0s and 5s",
        ),
        (
            "",
            "[management.health]\nport = 0",
            "t.toml:8: management.health.port: 0 is not between 1 and 65535",
        ),
        (
            "",
            "[management.health]\nfail_on = [\"link-down\"]",
            "t.toml:8: management.health.fail_on[0]: \"link-down\" always fails; leave it out",
        ),
        (
            "",
            "[management.health]\nfail_on = [\"overlod\"]",
            "t.toml:8: management.health.fail_on[0]: \"overlod\" is not one of pool-low, overload, stage-panics, reload-failed; did you mean \"overload\"?",
        ),
        (
            "",
            "[management.health]\nstuck_after = \"100ms\"",
            "t.toml:8: management.health.stuck_after: 100ms is not between 500ms and 60s",
        ),
    ] {
        let problems = load(&format!("{PORT}{port}\n{TUNNEL}{rest}\n")).expect_err(expected);
        assert_eq!(problems, [expected], "{port} {rest}");
    }
    let two = "[[port]]\ndevice = \"net_null0\"\naddress = \"10.0.8.20/24\"\n[[port]]\ndevice = \"net_null1\"\naddress = \"10.0.8.20/16\"\n";
    let problems = load(&format!("{two}{TUNNEL}")).unwrap_err();
    assert_eq!(
        problems,
        ["t.toml:6: port[1].address: 10.0.8.20 is the address of port[0] already; each port has its own"]
    );
}

#[test]
fn what_is_probably_not_meant_is_said() {
    let no_gateway = plan("address = \"10.0.8.20/24\"", "");
    assert_eq!(
        no_gateway.warnings,
        [
            "port[0].gateway is missing: 10.0.9.0/24 may reach the host stack but is in another network, so it gets no answer"
        ]
    );
    let open = plan("", "[management]\nlisten = \"0.0.0.0:9100\"\n");
    assert!(open.warnings[0].starts_with("management.listen = 0.0.0.0:9100: anyone"), "{:?}", open.warnings);
    assert!(open.warnings[0].contains("figures are refused there without a management.token_file"));
    assert!(management(&open).contains("0.0.0.0:9100: health; /metrics needs management.token_file there\n"));
    assert!(!open.management.serves_figures());
    let tap = plan("address = \"10.0.8.20/24\"", "[management]\nhost = \"tap\"\n");
    assert!(
        tap.warnings[0].starts_with("management.host = tap: the kernel has addresses of its own"),
        "{:?}",
        tap.warnings
    );
}

/// A token is a line of a file that only its owner should read; what it is shows nowhere.
#[test]
fn a_token_is_read_from_its_file() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    let secret = "c2x1aWNlZ2F0ZQ-0123456789";
    let load = |text: &str, listen: &str| {
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let file = format!("{TUNNEL}[management]\ntoken_file = \"token\"\n{listen}");
        let options = Options { need_ports: false, ..Options::default() };
        load_text("t.toml", &file, folder.path(), &Overrides::default(), &options)
    };
    for text in [secret.to_owned(), format!("{secret}\n"), format!("{secret}\r\n")] {
        let plan = load(&text, "listen = \"0.0.0.0:9100\"\n").unwrap();
        let token = plan.management.token.as_ref().unwrap();
        assert!(token.is(secret.as_bytes()) && plan.management.serves_figures());
        for wrong in
            ["", "c", &secret[1..], &format!("{secret}0"), &secret.replace('9', "8"), &secret.to_uppercase()]
        {
            assert!(!token.is(wrong.as_bytes()), "{wrong:?}");
        }
        let shown = format!("{plan}{}{plan:?}", plan.to_json());
        assert!(!shown.contains(secret), "{shown}");
        assert!(shown.contains("health, and /metrics for those who show the token"), "{shown}");
        assert!(plan.warnings[0].contains("figures are for those who show the token"), "{:?}", plan.warnings);
    }
    for text in
        ["", "short", "two\nlines of text that is long", "with a space in it, but long", &"a".repeat(257)]
    {
        let problems = load(text, "").unwrap_err();
        assert!(problems[0].to_string().contains("holds no token"), "{text:?}: {}", problems[0]);
        assert!(text.is_empty() || !problems[0].to_string().contains(text), "a secret is not repeated");
    }
    assert!(
        load(secret, "").unwrap().warnings[0]
            .starts_with("management.token_file is there, but nothing listens")
    );
    let plan = load(secret, "listen = \"127.0.0.1:9100\"\n").unwrap();
    assert_eq!(plan.warnings, Vec::<String>::new());
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let file = format!("{TUNNEL}[management]\nlisten = \"127.0.0.1:9100\"\ntoken_file = \"token\"\n");
    let options = Options { need_ports: false, ..Options::default() };
    let open = load_text("t.toml", &file, folder.path(), &Overrides::default(), &options).unwrap();
    assert!(open.warnings[0].contains("everybody on this machine may read"), "{:?}", open.warnings);
    std::fs::remove_file(&path).unwrap();
    let problems = load_text("t.toml", &file, folder.path(), &Overrides::default(), &options).unwrap_err();
    assert!(problems[0].to_string().contains("management.token_file: cannot read"), "{}", problems[0]);
}
