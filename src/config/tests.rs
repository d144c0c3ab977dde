//! Broken configurations and what is said of them; what a good one becomes; that nothing makes the loader panic.

use std::fmt::Write as _;
use std::sync::Arc;

use proptest::prelude::*;
use serde::Deserialize;

use super::*;
use crate::stage::{Backend, Shared};

/// A kind that exercises what kinds do: typed settings, a check of its own, memory, reasons.
static SIEVE: StageKind = StageKind {
    name: "sieve",
    summary: "for tests",
    help: "",
    example: "",
    reasons: &[("coarse", "too coarse")],
    parse: parse_sieve,
};

#[derive(Debug, Deserialize)]
#[serde(default)]
struct Sieve {
    mesh: u16,
    keep: Keep,
    hole: Vec<Hole>,
    /// Decides by flow.
    follow: bool,
    #[serde(rename = "files")]
    _files: Vec<String>,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Keep {
    #[default]
    All,
    None,
}

#[derive(Debug, Deserialize)]
struct Hole {
    size: u16,
    address: std::net::IpAddr,
}

impl Default for Sieve {
    fn default() -> Self {
        Sieve { mesh: 1, keep: Keep::All, hole: Vec::new(), follow: false, _files: Vec::new() }
    }
}

fn parse_sieve(settings: &Settings<'_>) -> Result<Box<dyn Parsed>, Vec<Problem>> {
    let sieve: Sieve = settings.read()?;
    let narrow = sieve.hole.iter().enumerate().filter(|(_, hole)| hole.size < sieve.mesh);
    let problems: Vec<Problem> = narrow
        .map(|(i, hole)| {
            let what = format!("{} is smaller than the mesh, {}", hole.size, sieve.mesh);
            settings.problem(&format!("hole[{i}].size"), what, "make it larger")
        })
        .collect();
    if problems.is_empty() { Ok(Box::new(sieve)) } else { Err(problems) }
}

impl Parsed for Sieve {
    fn eal_memory(&self) -> u64 {
        u64::from(self.mesh) << 20
    }

    fn wants_flows(&self) -> bool {
        self.follow
    }

    fn flow_state_bytes(&self) -> u64 {
        if self.follow { 8 } else { 0 }
    }

    fn settles(&self) -> bool {
        true
    }

    fn denies_by_default(&self) -> bool {
        self.keep == Keep::None
    }

    fn warnings(&self) -> Vec<String> {
        let loops_back = self.hole.iter().filter(|hole| hole.address.is_loopback());
        loops_back.map(|hole| format!("{} never arrives here", hole.address)).collect()
    }

    fn build(&self, _: Backend) -> Result<Arc<dyn Shared>, crate::dpdk::Error> {
        Err(crate::dpdk::Error::Refused { what: format!("{:?} is for tests", self.keep), remedy: None })
    }
}

static KINDS: &[&StageKind] = &[&SIEVE];
pub(super) const GOOD: &str =
    "[[port]]\ndevice = \"net_null0\"\n[tunnel]\nallowed_sources = [\"10.0.8.0/24\"]\n";

pub(super) fn options() -> Options<'static> {
    let machine = Machine { cpus: vec![0, 1, 2, 3, 6], worth: 4 };
    Options { need_ports: true, machine, kinds: KINDS, files: true }
}

pub(super) fn overrides(environment: &[(&str, &str)], sets: &[&str]) -> Overrides {
    Overrides {
        environment: environment.iter().map(|(name, text)| (name.into(), text.into())).collect(),
        sets: sets.iter().map(|&set| set.to_owned()).collect(),
    }
}

pub(super) fn read(text: &str, overrides: &Overrides) -> Result<Plan, Vec<Problem>> {
    load_text("t.toml", text, Path::new("/etc/sluicegate"), overrides, &options())
}

pub(super) fn good(text: &str, over: &Overrides) -> Plan {
    read(text, over).unwrap_or_else(|problems| panic!("{}", lines(&problems)))
}

pub(super) fn lines(problems: &[Problem]) -> String {
    let mut text = String::new();
    problems.iter().for_each(|problem| writeln!(text, "{problem}").unwrap());
    text
}

/// The messages for a text and what is laid over it.
#[track_caller]
pub(super) fn says(text: &str, over: &Overrides, expected: &[&str]) {
    let problems = read(text, over).expect_err("a mistake");
    assert_eq!(lines(&problems).lines().collect::<Vec<_>>(), expected, "\n{text}");
}

#[test]
fn a_flow_has_room_for_sixteen_stages() {
    let stages = |n: usize, settings: &str| -> String {
        let stage = |i| format!("[[stage]]\nuse = \"sieve\"\nname = \"s{i}\"\nmesh = 3\n{settings}\n");
        format!("{GOOD}{}", (0..n).map(stage).collect::<String>())
    };
    assert_eq!(good(&stages(16, "follow = true"), &Overrides::default()).stages.len(), 16);
    assert_eq!(good(&stages(40, ""), &Overrides::default()).stages.len(), 40, "no flows, no masks");
    says(
        &stages(17, "follow = true"),
        &Overrides::default(),
        &["t.toml:85:1: stage[16]: is one too many: a pipeline that follows flows has at most 16 stages; \
           join stages, or set flow.tracking = false if none decides by flow"],
    );
}

#[test]
fn each_mistake_has_its_message() {
    let table: &[(&str, &str)] = &[
        // Unknown keys, in every section.
        ("[tunel]", r#"t.toml:5:2: tunel: unknown key; did you mean "tunnel"?"#),
        ("[eal]\nlcore = 1", r#"t.toml:6:1: eal.lcore: unknown key; did you mean "lcores"?"#),
        (
            "[[port]]\ndevcie = \"net_null1\"\ndevice = \"net_null1\"",
            r#"t.toml:6:1: port[1].devcie: unknown key; did you mean "device"?"#,
        ),
        (
            "[[stage]]\nuse = \"sieve\"\nmsh = 1",
            r#"t.toml:7:1: stage[0] "sieve": msh: unknown key; did you mean "mesh"?"#,
        ),
        (
            "[[stage]]\nuse = \"sieve\"\non-error = \"pass\"",
            r#"t.toml:7:1: stage[0] "sieve": on-error: unknown key; did you mean "on_error"?"#,
        ),
        (
            "[[stage]]\nuse = \"sieve\"\nhole = [{size = 1, address = \"::1\", weight = 2}]",
            r#"t.toml:7:37: stage[0] "sieve": hole[0].weight: unknown key; known here: size, address, use, name, pipelines, mode, on_error, on_unread, on_reload"#,
        ),
        // Wrong types.
        (
            "[eal]\nburst = \"many\"",
            r#"t.toml:6:1: eal.burst: "many" is not a whole number from 0 to 4294967295"#,
        ),
        (
            "[eal]\nmemory = \"hugepage\"",
            r#"t.toml:6:1: eal.memory: "hugepage" is not one of auto, hugepages, in-memory, no-huge; did you mean "hugepages"?"#,
        ),
        ("[eal]\nargs = \"--log\"", r#"t.toml:6:1: eal.args: "--log" is not a list; write it as [...]"#),
        ("[eal]\nidle = 1979-05-27", r#"t.toml:6:1: eal.idle: "1979-05-27" is not one of spin, backoff"#),
        ("[[port]]\ndevice = 7", "t.toml:6:1: port[1].device: 7 is not a string; put it in quotes"),
        (
            "[[port]]\ndevice = \"net_null1\"\nmtu = \"large\"",
            r#"t.toml:7:1: port[1].mtu: "large" is not a whole number or "auto""#,
        ),
        (
            "[[port]]\ndevice = \"net_null1\"\nrss_reta = [0, \"one\"]",
            r#"t.toml:7:16: port[1].rss_reta[1]: "one" is not a whole number from 0 to 4294967295"#,
        ),
        (
            "[[port]]\ndevice = \"net_null1\"\nqueues = -1",
            r#"t.toml:7:1: port[1].queues: -1 is not a whole number or "auto""#,
        ),
        (
            "[[port]]\ndevice = \"net_null1\"\npromiscuous = 1.5",
            "t.toml:7:1: port[1].promiscuous: 1.5 is not true or false",
        ),
        (
            "[[stage]]\nuse = \"sieve\"\nmesh = 70000",
            r#"t.toml:7:1: stage[0] "sieve": mesh: 70000 is not a whole number from 0 to 65535"#,
        ),
        (
            "[[stage]]\nuse = \"sieve\"\nhole = [{size = 3, address = \"here\"}]",
            r#"t.toml:7:20: stage[0] "sieve": hole[0].address: "here": invalid IP address syntax"#,
        ),
        (
            "[[stage]]\nuse = \"sieve\"\nhole = [{size = 3}]",
            r#"t.toml:7:9: stage[0] "sieve": hole[0]: "address" is missing"#,
        ),
        // Meaning.
        ("[eal]\nburst = 65", "t.toml:6:1: eal.burst: 65 is not between 1 and 64"),
        (
            "[eal]\nlcores = \"0-1,x\"",
            r#"t.toml:6:1: eal.lcores: "x" is not a CPU or a range of CPUs; write "auto", a list such as [0, 1], or "0-3,5""#,
        ),
        (
            "[eal]\nlcores = \"0,4-6\"",
            "t.toml:6:1: eal.lcores: CPU 4-5 is not there or not allowed to this process; it may use 0-3,6",
        ),
        (
            "[eal]\nlcores = []",
            r#"t.toml:6:1: eal.lcores: is empty; name at least one CPU, or leave it at "auto""#,
        ),
        (
            "[eal]\nfile_prefix = \"a/b\"",
            r#"t.toml:6:1: eal.file_prefix: "a/b" cannot be part of a file name; use up to 64 letters, digits, `-`, `_` or `.`"#,
        ),
        (
            "[eal]\nargs = [\"--log-level=7\", \"-m\"]",
            "t.toml:6:26: eal.args[1]: -m is set by the plan; use eal.memory_mb instead",
        ),
        ("[eal]\nmemory_mb = 4", "t.toml:6:1: eal.memory_mb: 4 is not between 16 and 1048576"),
        ("[[port]]", r#"t.toml:5:1: port[1]: "device" is missing; name a PCI address or a virtual device"#),
        (
            "[[port]]\ndevice = \"eth1\"",
            r#"t.toml:6:1: port[1].device: "eth1" is neither a PCI address nor a virtual device; a kernel interface is "net_af_packet0,iface=eth1", a PCI device is "0000:00:06.0""#,
        ),
        (
            "[[port]]\ndevice = \"net_null0,size=9\"",
            r#"t.toml:6:1: port[1].device: "net_null0,size=9" is port[0] already; number virtual devices: net_null0, net_null1"#,
        ),
        (
            "[[port]]\ndevice = \"net_null1\"\nmtu = 67",
            "t.toml:7:1: port[1].mtu: 67 is not between 68 and 9001",
        ),
        (
            "[[port]]\ndevice = \"net_null1\"\nrss_key = \"6d:5a\"",
            "t.toml:7:1: port[1].rss_key: has 4 hexadecimal digits; a key is 40 bytes (80 digits) or, for some devices, 52 (104)",
        ),
        (
            "[[port]]\ndevice = \"net_null1\"\nqueues = 3\nrss_reta = [0, 3]",
            "t.toml:8:16: port[1].rss_reta[1]: queue 3 is not there: the port has 3; queues count from 0",
        ),
        ("[[stage]]", r#"t.toml:5:1: stage[0]: "use" is missing; say which kind of stage it is: sieve"#),
        (
            "[[stage]]\nuse = \"seive\"",
            r#"t.toml:6:1: stage[0].use: there is no kind of stage "seive"; did you mean "sieve"?"#,
        ),
        (
            "[[stage]]\nuse = \"ips\"",
            r#"t.toml:6:1: stage[0].use: there is no kind of stage "ips"; known here: sieve"#,
        ),
        (
            "[[stage]]\nuse = \"sieve\"\nname = \"A b\"",
            r#"t.toml:7:1: stage[0].name: "A b" cannot be a label; use up to 32 small letters, digits, `-` or `_`"#,
        ),
        (
            "[[stage]]\nuse = \"sieve\"\n[[stage]]\nuse = \"sieve\"",
            r#"t.toml:7:1: stage[1]: "sieve" is the name of stage[0] already; give one of them a name of its own: name = "...""#,
        ),
        (
            "[[stage]]\nuse = \"sieve\"\nmesh = 5\n[[stage.hole]]\nsize = 3\naddress = \"::1\"",
            r#"t.toml:9:1: stage[0] "sieve": hole[0].size: 3 is smaller than the mesh, 5; make it larger"#,
        ),
        (
            "stage = 5",
            "t.toml:5:1: tunnel.stage: unknown key; known here: profile, port, allowed_sources, addresses, verify_checksum, max_return",
        ),
    ];
    for (more, message) in table {
        says(&format!("{GOOD}{more}\n"), &Overrides::default(), &[message]);
    }
}

#[test]
fn tunnel_mistakes_have_their_messages() {
    let table: &[(&str, &str)] = &[
        (
            "profile = \"azure\"",
            r#"t.toml:2:1: tunnel.profile: "azure" is not one of aws, tencent, google, plain"#,
        ),
        (
            "profile = \"gogle\"",
            r#"t.toml:2:1: tunnel.profile: "gogle" is not one of aws, tencent, google, plain; did you mean "google"?"#,
        ),
        ("port = 0", "t.toml:2:1: tunnel.port: 0 is not between 1 and 65535"),
        (
            "allowed_sources = [\"10.0.8/24\"]",
            r#"t.toml:2:20: tunnel.allowed_sources[0]: "10.0.8/24" is not an IPv4 prefix; write it as "10.0.8.0/24""#,
        ),
        (
            "allowed_sources = [\"10.0.8.1/24\"]",
            "t.toml:2:20: tunnel.allowed_sources[0]: 10.0.8.1/24 has bits set behind the prefix; write 10.0.8.0/24 or 10.0.8.1/32",
        ),
        (
            "addresses = [\"fe80::1\"]",
            r#"t.toml:2:14: tunnel.addresses[0]: "fe80::1" is not an IPv4 address; write it as "10.0.8.5"; the tunnel is IPv4, what is inside may be IPv6"#,
        ),
        (
            "addresses = [\"224.0.0.1\"]",
            "t.toml:2:14: tunnel.addresses[0]: 224.0.0.1 is not the address of a port",
        ),
        (
            "max_return = \"none\"",
            r#"t.toml:2:1: tunnel.max_return: "none" is not a whole number or "unlimited""#,
        ),
        ("max_return = 100", "t.toml:2:1: tunnel.max_return: 100 is not between 576 and 65535"),
        (
            "verify_checksum = true",
            "t.toml:2:1: tunnel.verify_checksum: true is not one of auto, always, never",
        ),
    ];
    for (line, message) in table {
        let text = format!("[tunnel]\n{line}\n[[port]]\ndevice = \"net_null0\"\n");
        says(&text, &Overrides::default(), &[message]);
    }
}

#[test]
fn many_mistakes_are_reported_at_once_in_reading_order() {
    let text = r#"[[port]]
device = 5
mtu = "large"
rx_desc = 4
[[port]]
queues = "many"
[[stage]]
use = "seive"
[[stage]]
use = "sieve"
mesh = -1
hole = [{ size = "x", address = "y" }, { size = 1, address = "::1" }, 7]
[eal]
burst = "x"
"#;
    let over = overrides(&[("SLUICEGATE_TUNNEL__PROFIL", "aws")], &["eal.memory=none", "eal"]);
    says(
        text,
        &over,
        &[
            "t.toml:2:1: port[0].device: 5 is not a string; put it in quotes",
            r#"t.toml:3:1: port[0].mtu: "large" is not a whole number or "auto""#,
            "t.toml:4:1: port[0].rx_desc: unknown key; known here: device, queues, rx_descriptors, tx_descriptors, mtu, \
             promiscuous, rss_key, rss_reta, address, gateway, address6",
            r#"t.toml:6:1: port[1].queues: "many" is not a whole number or "auto""#,
            r#"t.toml:8:1: stage[0].use: there is no kind of stage "seive"; did you mean "sieve"?"#,
            r#"t.toml:11:1: stage[1] "sieve": mesh: -1 is not a whole number from 0 to 65535"#,
            r#"t.toml:12:11: stage[1] "sieve": hole[0].size: "x" is not a whole number from 0 to 65535"#,
            r#"t.toml:12:23: stage[1] "sieve": hole[0].address: "y": invalid IP address syntax"#,
            r#"t.toml:12:71: stage[1] "sieve": hole[2]: 7 is not a table"#,
            r#"t.toml:14:1: eal.burst: "x" is not a whole number from 0 to 4294967295"#,
            r#"environment SLUICEGATE_TUNNEL__PROFIL: tunnel.profil: unknown key; did you mean "profile"?"#,
            "--set eal: has no `=`; write it as --set tunnel.profile=tencent or --set port[0].mtu=9001",
            r#"--set eal.memory=none: eal.memory: "none" is not one of auto, hugepages, in-memory, no-huge"#,
        ],
    );
}

#[test]
fn a_file_that_is_wrong_throughout_ends_soon() {
    for hole in ["size = 1", "size = 1, address = \"::1\", weight = 2", "size = \"x\", address = \"::1\""] {
        let holes = format!("{{ {hole} }},\n").repeat(30_000);
        let text = format!("{GOOD}[[stage]]\nuse = \"sieve\"\nhole = [{holes}]\n");
        let problems = read(&text, &Overrides::default()).unwrap_err();
        assert_eq!(problems.len(), 51, "{hole}");
        assert_eq!(problems[50].to_string(), "too many mistakes to go on; mend those above first");
    }
}

#[test]
fn syntax_errors_show_the_line() {
    says(
        "[[port]]\ndevice = net_null0\n",
        &Overrides::default(),
        &[
            "t.toml:2:10: a value is a number, true, false, a list or a string in quotes",
            "  2 | device = net_null0",
            "               ^",
        ],
    );
}

#[test]
fn the_environment_wins_over_the_file_and_the_command_line_over_both() {
    let text = format!("{GOOD}profile = \"google\"\n[eal]\nburst = 8\n[[stage]]\nuse = \"sieve\"\n");
    let environment = [
        ("SLUICEGATE_TUNNEL__PROFILE", "tencent"),
        ("SLUICEGATE_EAL__BURST", "16"),
        ("SLUICEGATE_PORT__0__MTU", "1500"),
        ("SLUICEGATE_PORT__1__DEVICE", "net_null1"),
        ("SLUICEGATE_STAGE__0__KEEP", "none"),
        // Not settings: no `__`, another prefix.
        ("SLUICEGATE_CORPUS", "/corpus"),
        ("SLUICE__EAL__BURST", "99"),
    ];
    let sets = ["eal.burst=32", "stage[0].mesh=3", "tunnel.allowed_sources=[\"10.1.0.0/16\", \"10.2.0.1\"]"];
    let plan = good(&text, &overrides(&environment, &sets));
    assert_eq!(plan.tunnel.profile.name, "tencent");
    assert_eq!(plan.burst, 32);
    assert_eq!(plan.ports[0].mtu, Some(1500));
    assert_eq!(plan.ports[1].device, "net_null1");
    assert_eq!(format!("{:?}", plan.tunnel.allowed_sources), "[10.1.0.0/16, 10.2.0.1/32]");
    let settings = [("keep", "none"), ("mesh", "3")];
    assert_eq!(plan.stages[0].settings, settings.map(|(k, v)| (k.to_owned(), v.to_owned())));
    let overridden: Vec<&str> = plan.overrides.iter().map(|(place, _)| place.as_str()).collect();
    let expected = [
        "eal.burst",
        "port[0].mtu",
        "port[1].device",
        "stage[0].keep",
        "stage[0].mesh",
        "tunnel.allowed_sources",
        "tunnel.profile",
    ];
    assert_eq!(overridden, expected);
}

#[test]
fn a_value_from_outside_is_named_by_its_source() {
    /// Environment, `--set`, message.
    type Case = (&'static [(&'static str, &'static str)], &'static [&'static str], &'static str);
    let table: &[Case] = &[
        (
            &[("SLUICEGATE_PORT__0__MTU", "many")],
            &[],
            r#"environment SLUICEGATE_PORT__0__MTU: port[0].mtu: "many" is not a whole number or "auto""#,
        ),
        (
            &[("SLUICEGATE_PORT__0__MTU", "10")],
            &[],
            "environment SLUICEGATE_PORT__0__MTU: port[0].mtu: 10 is not between 68 and 9001",
        ),
        (
            &[("SLUICEGATE_PORT__0__MTU", "10")],
            &["port[0].mtu=11"],
            "--set port[0].mtu=11: port[0].mtu: 11 is not between 68 and 9001",
        ),
        (
            &[("SLUICEGATE_TUNEL__PORT", "1")],
            &[],
            r#"environment SLUICEGATE_TUNEL__PORT: tunel: unknown key; did you mean "tunnel"?"#,
        ),
        (
            &[("SLUICEGATE_0__X", "1")],
            &[],
            "environment SLUICEGATE_0__X: is not the path of a setting; write it as SLUICEGATE_TUNNEL__PROFILE or SLUICEGATE_PORT__0__MTU",
        ),
        (
            &[],
            &["port.mtu=5"],
            "--set port.mtu=5: port: is a list; say which one: port[0].mtu (in the environment SLUICEGATE_PORT__0__MTU)",
        ),
        (
            &[],
            &["port[4000000000].mtu=5"],
            "--set port[4000000000].mtu=5: port: [4000000000] is past the end of the list: it has 1",
        ),
        (
            &[],
            &["stage[1].use=sieve"],
            "--set stage[1].use=sieve: stage: [1] is past the end of the list: it is empty",
        ),
        (&[], &["tunnel[0]=5"], "--set tunnel[0]=5: tunnel: is not a list and has no [0]"),
        (
            &[],
            &["port[0].device.name=x"],
            "--set port[0].device.name=x: port[0].device: is a single value and has no `name`",
        ),
        (
            &[],
            &["port[-1].mtu=5"],
            "--set port[-1].mtu=5: `port[-1].mtu` is not the path of a setting; write it as --set tunnel.profile=tencent or --set port[0].mtu=9001",
        ),
        (&[], &["tunnel=5"], "--set tunnel=5: tunnel: \"5\" is not a table"),
        (
            &[],
            &["stage[0].use=sieve", "stage[0].mesh=x"],
            "--set stage[0].mesh=x: stage[0] \"sieve\": mesh: \"x\" is not a whole number from 0 to 65535",
        ),
    ];
    for (environment, sets, message) in table {
        says(GOOD, &overrides(environment, sets), &[message]);
    }
}

#[test]
fn text_from_outside_is_read_as_what_the_setting_wants() {
    let sets = ["eal.file_prefix=12", "port[0].promiscuous=true", "port[0].mtu=auto", "eal.lcores=[0, 1]"];
    let plan = good(GOOD, &overrides(&[("SLUICEGATE_PORT__0__RSS_RETA", "[0]")], &sets));
    assert_eq!(plan.eal.file_prefix, "12");
    assert!(plan.ports[0].config.promiscuous);
    assert_eq!(plan.ports[0].mtu, None);
    assert_eq!(plan.ports[0].config.rss.reta, Some(vec![0]));
    assert_eq!(plan.workers.len(), 1);
    let quoted = good(GOOD, &overrides(&[], &["eal.file_prefix=\"a\"", "eal.lcores=3"]));
    assert_eq!(quoted.eal.file_prefix, "a");
    assert_eq!(quoted.eal.lcores.iter().map(|l| (l.lcore, l.cpu)).collect::<Vec<_>>(), [(0, 3), (1, 3)]);
}

#[test]
fn the_first_cpu_manages_and_the_others_work() {
    let cpus = |text: &str| -> (Vec<u32>, usize) {
        let plan = good(&format!("{GOOD}[eal]\nidle = \"backoff\"\n{text}\n"), &Overrides::default());
        (plan.eal.lcores.iter().map(|lcore| lcore.cpu).collect(), plan.workers.len())
    };
    assert_eq!(cpus(""), (vec![0, 1, 2, 3], 3), "five CPUs allowed, the time of four");
    assert_eq!(cpus("lcores = \"3,0-2\""), (vec![3, 0, 1, 2], 3));
    assert_eq!(cpus("lcores = [6]"), (vec![6, 6], 1), "one CPU carries both");
    assert_eq!(cpus("lcores = [0, 1, 1]"), (vec![0, 1, 1], 2));
}

#[test]
fn what_is_probably_not_meant_is_warned_of() {
    let text = "[[port]]\ndevice = \"net_null0\"\nmtu = 1500\nqueues = 1\n[eal]\nlcores = [0, 1, 1]\nmemory_mb = 32\nburst = 7\n\
                [[stage]]\nuse = \"sieve\"\nhole = [{ size = 1, address = \"127.0.0.1\" }]\n";
    let plan = good(text, &Overrides::default());
    let starts = [
        "eal.burst = 7: vector receive",
        "port[0].queues = 1: of 2 workers the others never",
        "tunnel.allowed_sources is empty",
        "port[0].mtu = 1500: a gateway load balancer of AWS sends packets of up to 8568 bytes",
        "stage[0] \"sieve\": 127.0.0.1 never arrives here",
        "eal.memory_mb = 32 is less than the 7",
        "CPU 1 carries 2 lcores; eal.idle = \"backoff\"",
    ];
    assert_eq!(plan.warnings.len(), starts.len(), "{:#?}", plan.warnings);
    for (warning, start) in plan.warnings.iter().zip(starts) {
        assert!(warning.starts_with(start), "{warning}");
    }
}

/// Worked out by hand from the formula in the module doc of `memory`.
#[test]
fn the_pool_holds_every_buffer_that_can_be_out() {
    let text = "[[port]]\ndevice = \"net_null0\"\nqueues = 2\nrx_descriptors = 512\ntx_descriptors = 256\nmtu = 1500\n\
                [[port]]\ndevice = \"net_null1\"\nqueues = 1\nmtu = 9000\n\
                [eal]\nlcores = [0, 1, 2]\nburst = 64\nextra_buffers = 1000\n[[stage]]\nuse = \"sieve\"\nmesh = 11\n";
    let plan = good(text, &Overrides::default());
    let rings = 2 * (512 + 256) + (1024 + 1024);
    let caches = 3 * 384;
    let batches = 2 * 2 * 64;
    let counted = rings + caches + batches;
    assert_eq!(plan.pool.config.buffers, counted + counted / 16 + 1000);
    assert_eq!(plan.pool.config.data_room, 9216, "9000 + 18 + 4 is 9022, and 9 x 1024 is 9216");
    let pool_mb = (u64::from(plan.pool.config.buffers) * (9216 + 320)).div_ceil(1 << 20);
    assert_eq!(u64::from(plan.eal.memory_mb), pool_mb + 1 + 2 * 11 + 64);
    assert!(plan.pool.formula.contains("2 x (512 rx + 256 tx)"), "{}", plan.pool.formula);
}

#[test]
fn a_replay_needs_no_port() {
    let text = "[tunnel]\nallowed_sources = [\"10.0.0.0/8\"]\n";
    says(
        text,
        &Overrides::default(),
        &[
            "t.toml: no [[port]]: there is nothing to receive from; add a [[port]] with device = \"0000:00:06.0\" or device = \
         \"net_af_packet0,iface=eth1\"",
        ],
    );
    let options = Options { need_ports: false, ..options() };
    let plan = load_text("t.toml", text, Path::new(""), &Overrides::default(), &options).unwrap();
    assert!(plan.ports.is_empty() && plan.stages.is_empty());
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let say = |name: &str| {
        let path = folder.path().join(name);
        let problems = load(&path, &Overrides::default(), &options()).unwrap_err();
        lines(&problems).replace(&folder.path().display().to_string(), "DIR")
    };
    assert_eq!(
        say("edge.toml"),
        "DIR/edge.toml: there is no such file; pipelines/ has files to start from\n"
    );
    assert_eq!(say(""), "DIR/: is a folder; name a file in it\n");
    std::fs::write(folder.path().join("binary.toml"), [b'a', 0xff]).unwrap();
    assert_eq!(say("binary.toml"), "DIR/binary.toml: is not UTF-8 text (byte 1); TOML files are UTF-8\n");
}

#[test]
fn a_plan_reads_well() {
    let text =
        format!("{GOOD}[[stage]]\nuse = \"sieve\"\nname = \"fine\"\nmesh = 3\n[eal]\nfile_prefix = \"t\"\n");
    let plan = good(&text, &overrides(&[], &["tunnel.profile=tencent"]));
    let path = crate::packet::DropReason::ALL.len();
    let want = include_str!("tests/plan.txt").replace("ALL drop", &format!("{} drop", path + 1));
    let want = want.replace("0123456789abcdef", &plan.policy);
    assert_eq!(plan.to_string(), want.replace("PATH of", &format!("{path} of")));
    let json = plan.to_json();
    assert_eq!(json["stage"][0]["settings"]["mesh"], "3");
    assert_eq!(json["tunnel"]["max_return"], "unlimited");
    assert_eq!(json["drop_reasons"].as_array().unwrap().len(), plan.reasons.len());
}

#[test]
fn a_stage_is_parsed_alone() {
    assert!(parse_stage(&SIEVE, "mesh = 3\n", Path::new("")).is_ok());
    let problems = parse_stage(&SIEVE, "mesh = \"x\"\n", Path::new("")).unwrap_err();
    assert_eq!(
        lines(&problems),
        "sieve:1:1: stage[0] \"sieve\": mesh: \"x\" is not a whole number from 0 to 65535\n"
    );
}

/// Words of the format, so that random texts get past the parser.
fn toml_like() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec![
        "[",
        "]",
        "[[",
        "]]",
        "port",
        "stage",
        "tunnel",
        "eal",
        "=",
        "\n",
        ".",
        ",",
        "{",
        "}",
        "\"auto\"",
        "\"",
        "'",
        "use",
        "\"sieve\"",
        "device",
        "\"net_null0\"",
        "mtu",
        "mesh",
        "hole",
        "size",
        "address",
        "lcores",
        "\"0-3\"",
        "0",
        "-1",
        "1e9",
        "99999999999999999999",
        "true",
        "#",
        "1979-05-27",
        "rss_key",
        "rss_reta",
        "flow",
        "tenant",
        "tenants",
        "name",
        "endpoints",
        "limits",
        "guaranteed",
        "\"30%\"",
        "capacity",
        "tcp_idle",
        "\"90s\"",
        "allowed_sources",
        "\"10.0.0.0/8\"",
        "\u{0}",
        "ä",
    ]);
    prop::collection::vec(word, 0..60).prop_map(|words| words.join(" "))
}

proptest! {
    #[test]
    fn no_text_makes_the_loader_panic(text in prop_oneof![".*", toml_like()], set in ".*", variable in ".*", value in ".*") {
        let environment = format!("SLUICEGATE_{variable}");
        let over = overrides(&[(&environment, &value)], &[&set, &format!("port[0].{set}"), &format!("eal.lcores={value}")]);
        if let Err(problems) = read(&text, &over) {
            prop_assert!(!problems.is_empty());
        }
        arbitrary_input(format!("{text}\0{set}").as_bytes());
    }
}

/// A value of the wrong type does not hide what is wrong with the meaning of others, and is not reported twice.
#[test]
fn types_and_meanings_are_reported_together() {
    let text = "[eal]\nidle = \"x\"\nburst = 65\n[[port]]\ndevice = 5\nmtu = 99999\n[tunnel]\nport = 0\n";
    let wrong = load_text("t.toml", text, Path::new(""), &Overrides::default(), &options()).unwrap_err();
    let places: Vec<&str> = wrong.iter().map(|problem| problem.place.as_str()).collect();
    assert_eq!(
        places,
        ["eal.idle", "eal.burst", "port[0].device", "port[0].mtu", "tunnel.port"],
        "{wrong:?}"
    );
}

/// Trees are walked by recursion: a path of thousands of steps must not end the program.
#[test]
fn a_path_without_end_is_refused() {
    let path = "a.".repeat(100_000) + "b=1";
    let variable = format!("SLUICEGATE_{}B", "A__".repeat(100_000));
    for overrides in [
        Overrides { sets: vec![path], ..Overrides::default() },
        Overrides { environment: vec![(variable.into(), "1".into())], ..Overrides::default() },
    ] {
        let text = "[[port]]\ndevice = \"net_null0\"\n";
        let wrong = load_text("t.toml", text, Path::new(""), &overrides, &options()).unwrap_err();
        assert!(wrong.len() == 1 && wrong[0].what.contains("not the path of a setting"), "{}", wrong.len());
    }
}

#[test]
fn a_file_without_end_is_refused() {
    let wrong = load(Path::new("/dev/zero"), &Overrides::default(), &options()).unwrap_err();
    assert_eq!((wrong.len(), wrong[0].what.as_str()), (1, "does not end"));
}
