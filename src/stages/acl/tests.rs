mod alerts;
mod groups;
mod flows;

use std::net::IpAddr;
use std::sync::Arc;

use proptest::prelude::*;

use super::linear::{self, Key};
use super::rule::{MAX_ENTRIES, Mistake, Nets};
use super::set::{MAX_LAYERS, MAX_OBSERVERS};
use super::*;
use crate::dpdk::{Mempool, PoolConfig};
use crate::packet::{Batch, DropReason, FlowFlags, FlowSlot, InnerFlags, Mask};
use crate::stage::WorkerId;

const FILE: &str = "action,protocol,source,destination,source_port,destination_port,icmp_type,comment\n";

fn rules(lines: &str) -> Vec<Rule> {
    csv::parse("t.csv", format!("{FILE}{lines}").as_bytes()).unwrap()
}

fn problems(text: &str) -> Vec<String> {
    csv::parse("t.csv", text.as_bytes()).unwrap_err().iter().map(Problem::to_string).collect()
}

fn key(protocol: u8, source: &str, destination: &str, ports: Option<(u16, u16)>) -> Key {
    Key {
        protocol,
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
        ports,
        tenant: 0,
    }
}

/// Number of the deciding rule, and of those seen before it.
fn decide(rules: &[Rule], key: &Key) -> (Option<usize>, Vec<usize>) {
    let mut seen = Vec::new();
    (linear::search(rules, key, |n| seen.push(n)), seen)
}

// --- rule files ---

#[test]
fn columns_come_in_any_order_and_missing_ones_are_any() {
    let text = "# edge\n\ndestination_port , ACTION\n# web\n 80|443 ,allow\n";
    let wrong = problems(text);
    assert_eq!(
        wrong,
        ["t.csv:5: destination_port: \"80|443\" is set, but not every protocol of the rule has one; \
          set protocol to tcp, udp, sctp or tcp|udp"]
    );
    let rules =
        csv::parse("t.csv", b"\xef\xbb\xbfprotocol,destination_port,action\r\nTCP,\"80, 443\",allow\r\n")
            .unwrap();
    assert_eq!(rules.len(), 1);
    assert_eq!(rules[0].place.to_string(), "t.csv:2");
    assert_eq!((rules[0].nets, &rules[0].destination_ports), (Nets::Any, &vec![(80, 80), (443, 443)]));
}

#[test]
fn three_mistakes_are_three_problems_with_line_column_and_remedy() {
    let wrong = problems(
        "action,source,protocol,destination_port\n\
         allow,10.0.0.0/8,tcp,22\n\
         # next is wrong\n\
         permit,,,\n\
         deny,10.0.0.1/8,,\n\
         deny,,udp,70000\n",
    );
    assert_eq!(
        wrong,
        [
            "t.csv:4: action: \"permit\" is not an action; write allow, deny, reject, log or count",
            "t.csv:5: source: \"10.0.0.1/8\" has bits behind its prefix length; write 10.0.0.0/8 for the prefix or 10.0.0.1 for the one address",
            "t.csv:6: destination_port: \"70000\" is not a port; write 80, 1000-2000 or 80|443; ports go up to 65535",
        ]
    );
}

#[test]
fn one_line_can_have_several_mistakes() {
    let wrong = problems(&format!("{FILE}drop,tpc,10.0.0.0/33,fe80::/10,9-1,,8,x\n"));
    let columns: Vec<&str> = wrong.iter().map(|w| w.split(": ").nth(1).unwrap()).collect();
    assert_eq!(columns, ["action", "protocol", "source", "source_port"]);
}

#[test]
fn headers_are_checked() {
    assert_eq!(
        problems("action,sorce\ndeny,\n"),
        ["t.csv:1: \"sorce\" is not a column; did you mean source?"]
    );
    assert_eq!(problems("action,action\n"), ["t.csv:1: action: the column is named twice; keep one of them"]);
    assert!(
        problems("source\n")
            .contains(&"t.csv:1: action: the column is missing; add it: every rule needs an action".into())
    );
    assert_eq!(problems("# nothing\n").len(), 1);
}

#[test]
fn mistakes_in_one_line_of_columns_are_bounded_too() {
    let text = format!("action{}\nallow\n", ",x".repeat(1000));
    csv::arbitrary_input(text.as_bytes());
    let problems = csv::parse("t.csv", text.as_bytes()).unwrap_err();
    assert_eq!(problems.len(), csv::MAX_PROBLEMS + 1);
    assert!(problems.last().unwrap().what.contains("too many"));
}

#[test]
fn lines_that_are_not_values_are_refused() {
    assert!(problems("action\ndeny,x\n")[0].starts_with("t.csv:2: the line has 2 values for 1 columns"));
    assert!(problems("action,comment\ndeny,\"two\nlines\"\n")[0].contains("does not end on its line"));
    assert!(csv::parse("t", b"action\n\xff\n").unwrap_err()[0].what.contains("UTF-8"));
}

#[test]
fn messages_are_bounded() {
    let text = format!("action\n{}", "nonsense\n".repeat(5000));
    assert_eq!(problems(&text).len(), csv::MAX_PROBLEMS + 1);
}

#[test]
fn values_that_contradict_each_other_are_refused() {
    let words = |protocol, source, destination, port, icmp| Words {
        action: "deny",
        protocol,
        source,
        destination,
        destination_port: port,
        icmp_type: icmp,
        ..Words::default()
    };
    let wrong = |w: Words<'_>| {
        let mistakes = Rule::parse(&w, Place::Inline(0)).unwrap_err();
        mistakes.iter().map(|Mistake { column, .. }| *column).collect::<Vec<_>>()
    };
    assert_eq!(wrong(words("tcp", "10.0.0.1", "::1", "", "")), ["destination"]);
    assert_eq!(wrong(words("icmp", "", "", "80", "")), ["destination_port"]);
    assert_eq!(wrong(words("tcp", "", "", "", "8")), ["icmp_type"]);
    assert_eq!(wrong(words("icmp", "", "", "", "8/300")), ["icmp_type"]);
    assert_eq!(wrong(words("tcp", "", "", "1--3", "")), ["destination_port"]);
    let many: Vec<String> = (0..=MAX_ENTRIES).map(|n| (n * 2).to_string()).collect();
    assert_eq!(wrong(words("tcp", "", "", &many.join(","), "")), ["destination_port"]);
}

#[test]
fn ranges_are_joined_and_all_ports_are_any() {
    let rules = rules("deny,tcp,,,,\"10-20,21,15-30,40\",,\ndeny,udp,,,0-100|101-65535,,,\n");
    assert_eq!(rules[0].destination_ports, [(10, 30), (40, 40)]);
    assert!(!rules[1].reads_ports());
}

proptest! {
    #[test]
    fn no_text_panics(text in proptest::collection::vec(any::<u8>(), 0..400)) {
        csv::arbitrary_input(&text);
    }

    #[test]
    fn no_table_panics(lines in proptest::collection::vec(
        proptest::collection::vec("(any|allow|deny|log|tcp|icmp|[0-9a-f:./|\",-]{0,12}|[ -~]{0,8})", 0..10), 0..20,
    )) {
        let text: String = lines.iter().map(|line| line.join(",") + "\n").collect();
        csv::arbitrary_input(format!("{FILE}{text}").as_bytes());
    }
}

// --- what rules mean ---

#[test]
fn the_first_deciding_rule_wins_and_observers_in_front_are_seen() {
    let rules = rules(
        "count,tcp,,,,,,all tcp\n\
         log,tcp,,,,22,,ssh\n\
         deny,tcp,10.0.0.0/8,,,22,,\n\
         count,,,,,,,behind\n\
         allow,,,,,,,\n",
    );
    assert_eq!(decide(&rules, &key(6, "10.1.1.1", "1.1.1.1", Some((5, 22)))), (Some(2), vec![0, 1]));
    assert_eq!(decide(&rules, &key(6, "11.1.1.1", "1.1.1.1", Some((5, 22)))), (Some(4), vec![0, 1, 3]));
    assert_eq!(decide(&rules, &key(17, "::1", "::2", Some((5, 22)))), (Some(4), vec![3]));
}

#[test]
fn a_packet_without_ports_matches_no_rule_with_ports() {
    let rules = rules("deny,tcp,,,,80,,\ndeny,icmp,,,,,8,\nallow,tcp|icmp,,,,,,\n");
    assert_eq!(decide(&rules, &key(6, "1.1.1.1", "2.2.2.2", Some((1, 80)))).0, Some(0));
    assert_eq!(decide(&rules, &key(6, "1.1.1.1", "2.2.2.2", None)).0, Some(2));
    assert_eq!(decide(&rules, &key(1, "1.1.1.1", "2.2.2.2", Some((0x0800, 7)))).0, Some(1));
    assert_eq!(decide(&rules, &key(1, "1.1.1.1", "2.2.2.2", Some((0x0801, 7)))).0, Some(1));
    assert_eq!(decide(&rules, &key(1, "1.1.1.1", "2.2.2.2", Some((0x0000, 7)))).0, Some(2));
    assert_eq!(decide(&rules, &key(50, "1.1.1.1", "2.2.2.2", None)).0, None);
}

#[test]
fn families_do_not_mix() {
    let rules = rules("deny,,0.0.0.0/0,,,,,\nreject,,,2001:db8::/32,,,,\nallow,,,,,,,\n");
    assert_eq!(decide(&rules, &key(6, "1.1.1.1", "2.2.2.2", None)).0, Some(0));
    assert_eq!(decide(&rules, &key(6, "::1", "2001:db8::2", None)).0, Some(1));
    assert_eq!(decide(&rules, &key(6, "::1", "2001:db9::2", None)).0, Some(2));
}

// --- sets ---

#[test]
fn overlapping_observers_are_layered() {
    let set = RuleSet::new(
        rules("count,tcp,,,,80,,\ncount,tcp,,,,443,,\nlog,tcp,10.0.0.0/8,,,,,\ncount,udp,,,,,,\n"),
        Action::Deny,
    );
    assert_eq!(set.unwrap().layers(), [vec![0, 1, 3], vec![2]]);
}

#[test]
fn too_many_layers_and_observers_are_refused_by_place() {
    let nested: String = (0..=MAX_LAYERS).map(|n| format!("count,,10.0.0.0/{},,,,,\n", n + 8)).collect();
    assert_eq!(RuleSet::new(rules(&nested), Action::Deny).unwrap_err().rule, MAX_LAYERS);
    let one = rules("count,,,,,,,\n").remove(0);
    let many = vec![one; MAX_OBSERVERS + 1];
    assert_eq!(RuleSet::new(many, Action::Deny).unwrap_err().rule, MAX_OBSERVERS);
}

#[test]
fn more_rules_than_the_limit_are_refused() {
    let one = rules("allow,,,,,,,\n").remove(0);
    assert!(RuleSet::new(vec![one.clone(); MAX_RULES], Action::Deny).is_ok());
    assert!(RuleSet::new(vec![one; MAX_RULES + 1], Action::Deny).is_err());
    let text = format!("action\n{}", "allow\n".repeat(MAX_RULES + 2));
    assert!(problems(&text)[0].contains("more than 30000 rules"));
}

// --- warnings ---

fn faults(lines: &str) -> Vec<(Fault, usize, usize)> {
    let list = analysis::search(&rules(lines)).list;
    list.into_iter().map(|f| (f.fault, f.rule, f.by)).collect()
}

#[test]
fn shadowed_and_duplicate_rules_are_found() {
    let found = faults(
        "allow,tcp,10.0.0.0/8,,,80-90,,\n\
         deny,tcp,10.1.0.0/16,,,85,,shadowed by 0\n\
         deny,tcp,10.1.0.0/16,,,91,,not\n\
         deny,tcp,10.1.0.0/16,,,91,,the same as 2\n\
         allow,udp|tcp,10.1.2.0/24,,,91,,not: udp\n\
         deny,,2001:db8::/32,,,,,\n\
         log,icmpv6,2001:db8::/48,,,,128,never sees a packet\n\
         count,tcp,,,,,,\n\
         count,tcp,,,,,,twice\n\
         deny,,,,,,,\n\
         allow,,,,,,,behind deny all\n",
    );
    use Fault::{Duplicate, Shadowed};
    assert_eq!(
        found,
        [(Shadowed, 1, 0), (Duplicate, 3, 2), (Shadowed, 6, 5), (Duplicate, 8, 7), (Shadowed, 10, 9)]
    );
}

#[test]
fn warnings_name_places_and_are_bounded() {
    let lines = "deny,,,,,,,\n".to_owned() + &"allow,,,,,,,\n".repeat(50);
    let all = warnings(&RuleSet::new(rules(&lines), Action::Deny).unwrap());
    assert_eq!(all.len(), MAX_WARNINGS + 1);
    assert_eq!(all[0], "t.csv:3 allow: never applies, t.csv:2 deny takes all of its packets");
    assert_eq!(all[MAX_WARNINGS], "50 rules in all never apply or are there twice");
    assert_eq!(warnings(&RuleSet::new(Vec::new(), Action::Deny).unwrap()).len(), 1);
}

#[test]
fn a_full_set_is_searched_within_the_bound() {
    let lines: String = (0..MAX_RULES as u32)
        .map(|n| {
            format!(
                "allow,tcp,10.{}.{}.0/24,172.16.0.0/{},,{},,\n",
                n >> 8 & 255,
                n & 255,
                12 + n % 9 / 3,
                n % 5000
            )
        })
        .collect();
    let rules = rules(&lines);
    let found = analysis::search(&rules);
    assert_eq!((found.searched, found.list.len()), (MAX_RULES, 0));
}

fn small_rule() -> impl Strategy<Value = Rule> {
    // Few values, so that random rules do cover each other.
    let net = prop_oneof![
        Just("any"),
        Just("10.0.0.0/8"),
        Just("10.1.0.0/16"),
        Just("10.1.1.1"),
        Just("::/0"),
        Just("fd00::/8")
    ];
    let ports = prop_oneof![Just(""), Just("80"), Just("80-90"), Just("80|443"), Just("443")];
    (
        0..5usize,
        prop_oneof![Just("tcp"), Just("udp"), Just("tcp|udp"), Just("any")],
        net.clone(),
        net,
        ports.clone(),
        ports,
    )
        .prop_filter_map(
            "contradiction",
            |(action, protocol, source, destination, source_port, destination_port)| {
                let action = Action::ALL[action].word();
                let words = Words {
                    action,
                    protocol,
                    source,
                    destination,
                    source_port,
                    destination_port,
                    ..Words::default()
                };
                Rule::parse(&words, Place::Inline(0)).ok()
            },
        )
}

proptest! {
    #[test]
    fn the_search_finds_what_comparing_all_pairs_finds(rules in proptest::collection::vec(small_rule(), 1..25)) {
        let found = analysis::search(&rules).list;
        for (n, rule) in rules.iter().enumerate() {
            let cover = rules[..n].iter().position(|earlier| earlier.action.decides() && earlier.covers(rule));
            let twin = rules[..n].iter().position(|earlier| earlier == rule && !rule.action.decides());
            let by = found.iter().find(|f| f.rule == n).map(|f| f.by);
            prop_assert_eq!(by, cover.or(twin));
        }
    }

    #[test]
    fn covering_and_overlap_agree_with_matching(
        a in small_rule(), b in small_rule(),
        v6 in any::<bool>(), source in 0..3usize, destination in 0..3usize, protocol in prop_oneof![Just(6u8), Just(17), Just(50)],
        ports in proptest::option::of((prop_oneof![Just(80u16), Just(85), Just(443), Just(1)], prop_oneof![Just(80u16), Just(90), Just(443)])),
    ) {
        let pool = if v6 { ["fd00::1", "::1", "2001::1"] } else { ["10.1.1.1", "10.1.2.3", "11.0.0.1"] };
        let key = key(protocol, pool[source], pool[destination], ports);
        if a.covers(&b) && b.matches(&key) {
            prop_assert!(a.matches(&key));
        }
        if a.matches(&key) && b.matches(&key) {
            prop_assert!(a.overlaps(&b) && b.overlaps(&a));
        }
    }
}

// --- the stage ---

#[derive(Clone, Copy)]
struct Packet {
    key: Key,
    flags: u8,
    tcp_flags: u8,
    /// Entry of its flow.
    flow: Option<u32>,
    flow_flags: u8,
}

impl Packet {
    fn of_flow(self, entry: u32, flow_flags: u8) -> Self {
        Packet { flow: Some(entry), flow_flags, ..self }
    }
}

fn packet(protocol: u8, source: &str, destination: &str, ports: Option<(u16, u16)>) -> Packet {
    let key = key(protocol, source, destination, ports);
    let shown = if matches!(protocol, 1 | 58) { InnerFlags::ICMP } else { InnerFlags::PORTS };
    let family = if key.source.is_ipv6() { InnerFlags::IPV6 } else { 0 };
    let flags = family | if ports.is_some() { shown } else { InnerFlags::LATER_FRAGMENT };
    Packet { key, flags, tcp_flags: 0, flow: None, flow_flags: 0 }
}

/// A batch of bare inner packets: only what the stage reads is filled in.
fn batch(packets: &[Packet]) -> Batch {
    let config = PoolConfig { name: "acl".into(), buffers: 64, data_room: 256, cache: 0, numa: None };
    let pool = Mempool::soft(&config);
    let mut batch = Batch::new();
    for packet in packets {
        let mut inner = [0; 40];
        match (packet.key.source, packet.key.destination) {
            (IpAddr::V4(s), IpAddr::V4(d)) => {
                inner[12..16].copy_from_slice(&s.octets());
                inner[16..20].copy_from_slice(&d.octets());
            }
            (IpAddr::V6(s), IpAddr::V6(d)) => {
                inner[8..24].copy_from_slice(&s.octets());
                inner[24..40].copy_from_slice(&d.octets());
            }
            _ => unreachable!("one family"),
        }
        let mut frame = pool.alloc().unwrap();
        assert!(frame.write(&inner));
        batch.frames.push(frame).unwrap();
    }
    for (slot, packet) in packets.iter().enumerate() {
        let meta = &mut batch.slots().1[slot];
        meta.flags = InnerFlags(packet.flags);
        meta.inner_len = 40;
        meta.protocol = packet.key.protocol;
        (meta.source_port, meta.destination_port) = packet.key.ports.unwrap_or_default();
        meta.tcp_flags = packet.tcp_flags;
        meta.flow = packet.flow.map_or(FlowSlot::NONE, FlowSlot::new);
        meta.flow_flags = FlowFlags(packet.flow_flags);
    }
    batch.begin();
    batch
}

const REASONS: [ReasonId; 3] = [ReasonId(100), ReasonId(101), ReasonId(102)];

/// A worker that tracks no flows.
fn on(worker: u16) -> Make {
    Make { worker: WorkerId(worker), flows: 0 }
}

fn run(stage: &mut dyn Stage, batch: &mut Batch) {
    let mut cx = Cx::new(0, WorkerId(0), &REASONS);
    stage.run(batch, &mut cx);
}

fn built(lines: &str, default: Action) -> Arc<dyn Shared> {
    Acl::new(RuleSet::new(rules(lines), default).unwrap()).build(Backend::Soft).unwrap()
}

#[test]
fn verdicts_reasons_and_counters() {
    let shared = built(
        "count,tcp,,,,,,tcp\n\
         deny,tcp,10.0.0.0/8,,,22,,no ssh\n\
         reject,udp,,,,53,,\n\
         allow,,10.0.0.0/8,,,,,\n",
        Action::Deny,
    );
    let mut batch = batch(&[
        packet(6, "10.0.0.1", "1.1.1.1", Some((9, 22))),
        packet(17, "10.0.0.1", "1.1.1.1", Some((9, 53))),
        packet(6, "10.0.0.1", "1.1.1.1", Some((9, 80))),
        packet(6, "11.0.0.1", "1.1.1.1", Some((9, 80))),
        packet(6, "10.0.0.1", "1.1.1.1", None),
        packet(58, "fd00::1", "fd00::2", Some((0x8000, 0))),
    ]);
    let mut stage = shared.make(&on(0));
    run(stage.as_mut(), &mut batch);
    assert_eq!(batch.live(), Mask::one(2) | Mask::one(4));
    assert_eq!(batch.open(), batch.live());
    assert_eq!([0, 1, 3, 5].map(|slot| batch.reason(slot).0), [100, 101, 102, 102]);
    let counts: Vec<(String, u64)> = shared.counts();
    let expected = [
        ("t.csv:2 count (tcp)", 4),
        ("t.csv:3 deny (no ssh)", 1),
        ("t.csv:4 reject", 1),
        ("t.csv:5 allow", 2),
        ("default deny", 2),
    ];
    assert_eq!(counts, expected.map(|(label, n)| (label.to_owned(), n)));
}

#[test]
fn only_open_slots_are_judged() {
    let shared = built("deny,,,,,,,\n", Action::Allow);
    let mut batch = batch(&[packet(6, "1.1.1.1", "2.2.2.2", None), packet(6, "1.1.1.1", "2.2.2.2", None)]);
    batch.forward(Mask::one(0));
    run(shared.make(&on(0)).as_mut(), &mut batch);
    assert_eq!(batch.live(), Mask::one(0));
    assert_eq!(shared.counts()[0].1, 1);
}

#[test]
fn counters_add_up_over_workers_and_survive_a_new_stage() {
    let shared = built("allow,,,,,,,\n", Action::Deny);
    for worker in [0, 1, 0] {
        let mut stage = shared.make(&on(worker));
        run(stage.as_mut(), &mut batch(&[packet(6, "1.1.1.1", "2.2.2.2", None)]));
    }
    assert_eq!(shared.counts()[0].1, 3);
}

#[test]
fn a_packet_that_ends_in_its_header_is_dropped() {
    let shared = built("allow,,,,,,,\n", Action::Allow);
    let mut batch = batch(&[packet(6, "::1", "::2", None)]);
    batch.slots().1[0].inner_len = 39;
    run(shared.make(&on(0)).as_mut(), &mut batch);
    assert_eq!(batch.reason(0), DropReason::InnerTruncated.into());
    assert!(batch.live().is_empty());
}

// --- words of the documentation ---

/// The settings of a `[[stage]]` of TOML, as the configuration would read them, and the rules in it.
fn inline_rules(text: &str) -> (Settings, Vec<Rule>) {
    let mut file: toml::Table = toml::from_str(text).unwrap();
    let stage = file.remove("stage").unwrap().as_array().unwrap()[0].clone();
    let mut table = stage.as_table().unwrap().clone();
    assert_eq!(table.remove("use").unwrap().as_str(), Some("acl"));
    let settings: Settings = table.try_into().unwrap();
    let place = Place::Inline;
    let rules =
        settings.rule.iter().enumerate().map(|(n, r)| Rule::parse(&r.words(), place(n)).unwrap()).collect();
    (settings, rules)
}

#[test]
fn the_examples_of_the_documentation_can_be_read() {
    assert_eq!(inline_rules(KIND.example).1.len(), 3);
    let module: String = include_str!("../acl.rs")
        .lines()
        .skip_while(|line| !line.contains("```toml"))
        .skip(1)
        .take_while(|line| !line.contains("```"))
        .map(|line| format!("{}\n", line.trim_start_matches("//!")))
        .collect();
    assert_eq!(inline_rules(&module).1.len(), 2);
    let file: String = HELP
        .lines()
        .skip_while(|line| !line.contains("A rule file:"))
        .skip(1)
        .map(|l| format!("{}\n", l.trim()))
        .collect();
    assert_eq!(csv::parse("help.csv", file.as_bytes()).unwrap().len(), 3);
}

#[test]
fn inline_values_may_be_numbers_and_files_a_list() {
    let text = "[[stage]]\nuse = \"acl\"\nrules = [\"a.csv\", \"b.csv\"]\ndefault = \"reject\"\n\
                rule = [{ action = \"allow\", protocol = 6, destination_port = 80 }]";
    let (settings, rules) = inline_rules(text);
    assert_eq!(settings.rules, ["a.csv", "b.csv"]);
    assert_eq!((&rules[0].protocols, &rules[0].destination_ports), (&vec![6], &vec![(80, 80)]));
    assert_eq!(Action::from(settings.default), Action::Reject);
}

// --- compiled rules ---

/// A CPU that this process may use.
#[cfg(feature = "dpdk")]
fn allowed_cpu() -> u32 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap();
    list.trim().split([',', '-']).next().unwrap().parse().unwrap()
}

/// DPDK starts once per process, so the test runs this program again for itself alone.
#[cfg(feature = "dpdk")]
#[test]
fn the_compiled_stage_does_what_the_linear_one_does() {
    const INSIDE: &str = "SLUICEGATE_TEST_ALONE";
    let name = "stages::acl::tests::the_compiled_stage_does_what_the_linear_one_does";
    if std::env::var_os(INSIDE).is_none() {
        let program = std::env::current_exe().unwrap();
        let out =
            std::process::Command::new(program).args(["--exact", name]).env(INSIDE, name).output().unwrap();
        let text = String::from_utf8_lossy(&out.stdout);
        assert!(
            out.status.success() && text.contains("1 passed"),
            "{text}{}",
            String::from_utf8_lossy(&out.stderr)
        );
        return;
    }
    use crate::dpdk::{EalPlan, LcorePlan, Memory};
    let plan = EalPlan {
        memory: Memory::NoHuge,
        memory_mb: 64,
        file_prefix: "sluicegate-test-acl-stage".into(),
        lcores: vec![LcorePlan { lcore: 0, cpu: allowed_cpu() }],
        args: Vec::new(),
    };
    let set = RuleSet::new(
        rules(
            "count,tcp,,,,,,\n\
             log,tcp|udp,10.0.0.0/8,,,22-53,,overlaps the first\n\
             deny,tcp,10.0.0.0/8,,,22,,\n\
             reject,udp,,,,53,,\n\
             allow,icmp,,,,,8,\n\
             allow,,10.0.0.0/8,,,,,\n\
             count,,,,,,,behind\n\
             allow,,2001:db8::/32,fd00::/8,,,,\n\
             deny,icmpv6,,,,,128/0,\n",
        ),
        Action::Deny,
    );
    let parsed = Acl::new(set.unwrap());
    assert!(parsed.build(Backend::Eal).is_err_and(|error| error.to_string().contains("EAL")));
    let _eal = crate::dpdk::eal::Eal::init(&plan, &[]).unwrap();
    let (soft, eal) = (parsed.build(Backend::Soft).unwrap(), parsed.build(Backend::Eal).unwrap());
    let (mut a, mut b) = (soft.make(&on(0)), eal.make(&on(0)));
    let (v4, v6) = (["10.0.0.1", "11.0.0.1"], ["2001:db8::1", "fd00::7"]);
    let mut all = Vec::new();
    for n in 0..2000u32 {
        let protocol = [6, 17, 1, 58, 50][n as usize % 5];
        let (from, to) =
            if n / 5 % 3 == 0 { (v6[n as usize % 2], v6[1]) } else { (v4[n as usize / 7 % 2], v4[1]) };
        let first = match protocol {
            1 | 58 => [0x0800, 0x8000, 0x0801][n as usize / 11 % 3],
            _ => 4000,
        };
        let ports = (protocol != 50 && n % 13 != 0).then_some((first, [22, 53, 80][n as usize / 3 % 3]));
        all.push(packet(protocol, from, to, ports));
    }
    let mut rest = all.as_slice();
    let (mut size, mut alerts, mut ears) = (0, 0, [alerts::Ear::new(), alerts::Ear::new()]);
    while !rest.is_empty() {
        size = size % 64 + 1;
        let (now, later) = rest.split_at(size.min(rest.len()));
        rest = later;
        let (mut x, mut y) = (batch(now), batch(now));
        x.forward(Mask::one(3));
        y.forward(Mask::one(3));
        let told = ears[0].run(a.as_mut(), &mut x);
        assert_eq!(told, ears[1].run(b.as_mut(), &mut y));
        alerts += told.len();
        assert_eq!((x.live(), x.open(), x.dropped()), (y.live(), y.open(), y.dropped()));
        assert!(x.dropped().iter().all(|slot| x.reason(slot) == y.reason(slot)));
    }
    assert_eq!(soft.counts(), eal.counts());
    assert_eq!(alerts as u64, soft.counts()[1].1, "one for each that the log rule counted");
    assert!(soft.counts().iter().all(|(_, packets)| *packets > 0), "{:?}", soft.counts());
    assert!(eal.report().iter().any(|(_, value)| value.starts_with("rte_acl")));
    flows::agree_on_flows(&parsed);
}
