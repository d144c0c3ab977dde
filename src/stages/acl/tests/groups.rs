//! Groups of addresses and ports, and rules that name several addresses.

use super::*;
use crate::config::parse_stage;

fn stage(text: &str) -> Result<Box<dyn Parsed>, String> {
    parse_stage(&KIND, text, std::path::Path::new(""))
        .map_err(|wrong| wrong.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n"))
}

const GROUPS: &str = "[addresses]\nservers = [\"10.0.0.0/24\", \"10.0.1.7\", \"2001:db8:1::/64\"]\nclients = [\"10.9.0.0/16\", \"10.9.1.0/24\", \"2001:db8:9::/48\"]\n\
                      [ports]\nweb = \"80|443|8000-8099\"\n";

fn with_groups(rules: &str) -> Arc<dyn Shared> {
    stage(&format!("{rules}\n{GROUPS}")).unwrap().build(Backend::Soft).unwrap()
}

fn says(built: &Arc<dyn Shared>, source: &str, destination: &str, port: u16) -> String {
    let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
    let ends = Tuple { source, destination, source_port: 40_000, destination_port: port, protocol: 6 };
    built.judge(&ends).unwrap().verdict
}

/// Both families, lists with groups in them, ports with groups in them; what is not of one family is no pair.
#[test]
fn rules_speak_of_groups() {
    let built = with_groups(
        "[[rule]]\naction = \"allow\"\nprotocol = \"tcp\"\nsource = \"clients|192.0.2.1\"\ndestination = \"servers\"\ndestination_port = \"web|22\"\ncomment = \"in\"\n\
         [[rule]]\naction = \"allow\"\nprotocol = \"tcp\"\ndestination = \"198.51.100.1, servers\"\ndestination_port = 25\n",
    );
    for (source, destination, port, expected) in [
        ("10.9.200.1", "10.0.0.1", 80, "allow"),
        ("10.9.1.1", "10.0.1.7", 8099, "allow"),
        ("192.0.2.1", "10.0.0.255", 22, "allow"),
        ("2001:db8:9:9::1", "2001:db8:1::1", 443, "allow"),
        ("10.9.1.1", "10.0.1.8", 80, "deny"),
        ("10.8.1.1", "10.0.1.7", 80, "deny"),
        ("10.9.1.1", "10.0.1.7", 8100, "deny"),
        ("2001:db8:8::1", "2001:db8:1::1", 443, "deny"),
        ("10.8.1.1", "198.51.100.1", 25, "allow"),
        ("2001:db8:8::1", "2001:db8:1::1", 25, "allow"),
    ] {
        assert_eq!(says(&built, source, destination, port), expected, "{source} {destination} {port}");
    }
    // Two sources of IPv4 (one is within the other) and one of IPv6, two and one destinations: 5 pairs; then 4.
    assert_eq!(built.report()[0].1, "2, for 9 pairs of addresses");
    let labels: Vec<String> = built.counts().into_iter().map(|(label, _)| label).collect();
    assert_eq!(labels, ["rule[0] allow (in)", "rule[1] allow", "default deny"]);
    let numbers: Vec<u32> = built.signatures().iter().map(|known| known.signature_id).collect();
    assert_eq!(numbers, [1, 1, 1, 1, 1, 2, 2, 2, 2]);
}

/// A rule counts and tells once, however many addresses it names and however they overlap.
#[test]
fn a_rule_with_groups_is_one_rule() {
    let built = with_groups(
        "[[rule]]\naction = \"log\"\nsource = \"clients|10.9.1.1\"\n[[rule]]\naction = \"allow\"\nsource = \"10.0.0.0/8\"\n",
    );
    let (mut running, mut ear) = (built.make(&on(0)), super::alerts::Ear::new());
    let mut batch = batch(&[
        packet(6, "10.9.1.1", "1.1.1.1", Some((9, 22))),
        packet(6, "10.8.1.1", "1.1.1.1", Some((9, 22))),
    ]);
    assert_eq!(
        ear.run(running.as_mut(), &mut batch),
        ["10.9.1.1 Some(9) 1.1.1.1 Some(22) rule 0 blocked false"]
    );
    assert_eq!(
        built.counts(),
        [("rule[0] log".to_owned(), 1), ("rule[1] allow".to_owned(), 2), ("default deny".to_owned(), 0)]
    );
}

/// Files know the groups of their stage.
#[test]
fn files_speak_of_groups() {
    let folder = tempfile::tempdir().unwrap();
    let file = "action,protocol,source,destination,destination_port\nallow,tcp,clients,servers,web\nlog,,servers|clients,,\nlog,,clients,,\n";
    std::fs::write(folder.path().join("r.csv"), file).unwrap();
    let parsed = parse_stage(&KIND, &format!("rules = \"r.csv\"\n{GROUPS}"), folder.path()).unwrap();
    assert_eq!(parsed.warnings(), Vec::<String>::new());
    let built = parsed.build(Backend::Soft).unwrap();
    assert_eq!(says(&built, "10.9.1.1", "10.0.0.7", 443), "allow");
    let labels: Vec<String> = built.counts().into_iter().map(|(label, _)| label).collect();
    assert_eq!(labels, ["r.csv:2 allow", "r.csv:3 log", "r.csv:4 log", "default deny"]);
}

/// Which way round a flow may be opened is a question to the whole rule: one that matches both ways says nothing of it.
#[test]
fn a_rule_between_the_members_of_a_group_does_not_say_who_opens() {
    let one_way = "[[rule]]\naction = \"deny\"\nsource = \"10.0.1.7\"\n[[rule]]\naction = \"allow\"\nsource = \"clients\"\ndestination = \"servers\"\n";
    let built = with_groups(one_way);
    assert_eq!(says(&built, "10.0.1.7", "10.9.1.1", 80), "allow, as an answer");
    let both_ways = one_way
        .replace("\"clients\"", "\"clients|servers\"")
        .replace("\"servers\"\n", "\"clients|servers\"\n");
    let built = with_groups(&both_ways);
    assert_eq!(says(&built, "10.0.1.7", "10.9.1.1", 80), "deny");
    assert_eq!(says(&built, "10.9.1.1", "10.0.1.7", 80), "allow");
}

/// A rule never applies if none of its pairs does.
#[test]
fn a_rule_with_groups_is_useless_as_a_whole() {
    let text = |first: &str| {
        format!(
            "[[rule]]\naction = \"deny\"\nsource = \"{first}\"\n[[rule]]\naction = \"allow\"\nsource = \"servers\"\n[[rule]]\naction = \"deny\"\nsource = \"2001:db8::/32\"\n{GROUPS}"
        )
    };
    let warnings = |first: &str| stage(&text(first)).unwrap().warnings();
    assert_eq!(warnings("10.0.0.0/16"), Vec::<String>::new());
    let found = warnings("10.0.0.0/8|2001:db8::/32");
    assert_eq!(found.len(), 2, "{found:?}");
    assert_eq!(found[0], "rule[1] allow: never applies, rule[0] deny takes all of its packets");
}

#[test]
fn mistakes_with_groups_are_named() {
    let rule = |rule: &str| {
        stage(&format!("[[rule]]\naction = \"allow\"\n{rule}\n{GROUPS}")).map(|_| ()).unwrap_err()
    };
    for (text, expected) in [
        (
            "source = \"server\"",
            "rule[0].source: \"server\" is neither an address nor a prefix; write 10.0.0.0/8, 192.0.2.1, 2001:db8::/32 or any; did you mean the group servers?",
        ),
        ("source = \"printers-of-all\"", "the groups are clients, servers"),
        ("source = \"servers|any\"", "rule[0].source: \"any\" is in a list, and is every address"),
        (
            "protocol = \"tcp\"\ndestination_port = \"wep\"",
            "\"wep\" is not a port; write 80, 1000-2000 or 80|443; ports go up to 65535; did you mean the group web?",
        ),
        (
            "source = \"10.0.0.1|10.0.0.9\"\ndestination = \"2001:db8::1\"",
            "rule[0].destination: no address of it is of the same family",
        ),
    ] {
        assert!(rule(text).contains(expected), "{text}: {}", rule(text));
    }
    for (text, expected) in [
        ("[addresses]\n\"7up\" = [\"10.0.0.1\"]", "\"7up\" cannot be the name of a group"),
        ("[addresses]\nany = [\"10.0.0.1\"]", "\"any\" cannot be the name of a group"),
        ("[addresses]\na = []", "addresses.a: is empty"),
        (
            "[addresses]\na = [\"10.0.0.1\", \"x\"]",
            "addresses.a[1]: \"x\" is neither an address nor a prefix",
        ),
        ("[addresses]\na = [\"any\"]", "addresses.a[0]: \"any\" is every address"),
        ("[ports]\nweb = \"70000\"", "ports.web: \"70000\" is not a port"),
        ("[ports]\nweb = \"any\"", "ports.web: is every port, or none"),
    ] {
        let wrong = stage(text).map(|_| ()).unwrap_err();
        assert!(wrong.contains(expected), "{text}: {wrong}");
    }
    let many: Vec<String> = (0..100).map(|n| format!("10.{n}.0.1")).collect();
    let wrong = rule(&format!("source = \"{0}\"\ndestination = \"{0}\"", many.join("|")));
    assert!(wrong.contains("make 10000 pairs, and one rule has at most 4096"), "{wrong}");
}

proptest! {
    /// A rule with lists matches what one of its pairs matches, and no packet matches two of them.
    #[test]
    fn pairs_are_the_rule(
        sources in prop::collection::vec((0u32..64, 24u8..=32), 1..6),
        destinations in prop::collection::vec((0u32..64, 24u8..=32), 1..6),
        keys in prop::collection::vec((0u32..512, 0u32..512), 1..50),
    ) {
        let net = |(n, len): &(u32, u8)| {
            ipnet::Ipv4Net::new(std::net::Ipv4Addr::from_bits(0x0a00_0000 + n * 5), *len).unwrap().trunc()
        };
        let (from, to): (Vec<_>, Vec<_>) = (sources.iter().map(net).collect(), destinations.iter().map(net).collect());
        let list = |nets: &[ipnet::Ipv4Net]| nets.iter().map(ToString::to_string).collect::<Vec<_>>().join("|");
        let (source, destination) = (list(&from), list(&to));
        let words = Words { action: "allow", source: &source, destination: &destination, ..Words::default() };
        let rules = Rule::parse_all(&words, Place::Inline(0), &Default::default()).unwrap();
        for (a, b) in keys {
            let address = |n: u32| std::net::Ipv4Addr::from_bits(0x0a00_0000 + n);
            let (a, b) = (address(a), address(b));
            let key = Key { protocol: 6, source: a.into(), destination: b.into(), ports: None, tenant: 0 };
            let expected = from.iter().any(|net| net.contains(&a)) && to.iter().any(|net| net.contains(&b));
            let matching = rules.iter().filter(|rule| rule.matches(&key)).count();
            prop_assert_eq!(matching, usize::from(expected));
            prop_assert!(rules.iter().all(|rule| rule.matches_as_written(&key) == expected));
        }
    }
}
