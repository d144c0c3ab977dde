//! Settings, formats, and who decides. What is compiled is held to `plain` in tests/blocklist_differential.rs.

use std::path::Path;

use proptest::prelude::*;

use super::text::{Column, Counts, Format};
use super::*;
use crate::config::{Problem, parse_stage};

fn parsed(text: &str) -> Result<Box<dyn Parsed>, Vec<String>> {
    parse_stage(&KIND, text, Path::new("")).map_err(|wrong| wrong.iter().map(Problem::to_string).collect())
}

/// What a text of this format lists.
fn nets(format: &Format, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let counts = text::read("t", text.as_bytes(), format, false, 1000, |net| found.push(net.to_string()));
    assert_eq!(counts.map_err(|wrong| wrong[0].to_string()).unwrap().entries, found.len());
    found
}

fn wrong(format: &Format, text: &str) -> Vec<String> {
    let read = text::read("t", text.as_bytes(), format, false, 1000, |_| ());
    read.unwrap_err().iter().map(Problem::to_string).collect()
}

/// Heads of files as their publishers serve them.
#[test]
fn public_feeds_are_read() {
    let drop = "; Spamhaus DROP List 2026/11/25 - (c) 2026 The Spamhaus Project SLU\n\
                ; https://www.spamhaus.org/drop/drop.txt\n\
                1.10.16.0/20 ; SBL256894\r\n1.19.0.0/16 ; SBL434604\n";
    assert_eq!(nets(&Format::Text, drop), ["1.10.16.0/20", "1.19.0.0/16"]);
    let json = "{\"cidr\":\"1.10.16.0/20\",\"sblid\":\"SBL256894\",\"rir\":\"apnic\"}\n\
                {\"cidr\":\"2a06:5280::/29\",\"sblid\":\"SBL1\",\"rir\":\"ripencc\"}\n\
                {\"type\":\"metadata\",\"timestamp\":1764000000,\"size\":2}\n";
    assert_eq!(nets(&Format::Json("cidr".into()), json), ["1.10.16.0/20", "2a06:5280::/29"]);
    let firehol = "#\n# firehol_level1\n#\n# ipv4 hash:net ipset\n0.0.0.0/8\n1.2.3.4\n";
    assert_eq!(nets(&Format::Text, firehol), ["0.0.0.0/8", "1.2.3.4/32"]);
    let abuse = "################\n# abuse.ch Feodo Tracker #\n\
                 \"first_seen_utc\",\"dst_ip\",\"dst_port\",\"c2_status\",\"last_online\",\"malware\"\n\
                 \"2022-06-04 21:24:53\",\"162.243.103.246\",\"8080\",\"online\",\"2026-11-25\",\"Emotet\"\n\
                 # END (1) entries\n";
    let named = Format::Csv { column: Column::Named("dst_ip".into()), separator: b',' };
    assert_eq!(nets(&named, abuse), ["162.243.103.246/32"]);
    let plain = "time,DST_IP ,port\n1, 192.0.2.7 ,80\n";
    assert_eq!(nets(&named, plain), ["192.0.2.7/32"]);
    let dshield = "# DShield.org Recommended Block List\n192.0.2.0\t192.0.2.255\t24\t2000\n";
    let first = Format::Csv { column: Column::Number(0), separator: b'\t' };
    assert_eq!(nets(&first, dshield), ["192.0.2.0/32"]);
}

#[test]
fn entries_of_every_form() {
    let text = "\u{feff}192.0.2.1\n  192.0.2.0/25 # half\n\n// note\n192.0.2.1-192.0.2.4//range\n2001:db8::/32\n2001:db8::1\n\
                10.0.0.0/255.255.0.0\n2001:db8::1 - 2001:db8::2\n0.0.0.0/0";
    let expected = [
        "192.0.2.1/32",
        "192.0.2.0/25",
        "192.0.2.1/32",
        "192.0.2.2/31",
        "192.0.2.4/32",
        "2001:db8::/32",
        "2001:db8::1/128",
        "10.0.0.0/16",
        "2001:db8::1/128",
        "2001:db8::2/128",
        "0.0.0.0/0",
    ];
    assert_eq!(nets(&Format::Text, text), expected);
}

#[test]
fn mistakes_name_file_line_and_remedy() {
    let found = wrong(&Format::Text, "192.0.2.1\nexample.com\n10.0.0.1/8\n10.0.0.9-10.0.0.1\n192.0.2.1 80\n");
    assert!(
        found[0].starts_with("t:2: \"example.com\" is neither an address nor a prefix; write "),
        "{found:?}"
    );
    assert_eq!(
        found[1],
        "t:3: \"10.0.0.1/8\" has bits behind its prefix length; write 10.0.0.0/8 for the prefix or 10.0.0.1 for the one address"
    );
    assert!(found[2].starts_with("t:4: \"10.0.0.9-10.0.0.1\" is no range"), "{found:?}");
    assert!(found[3].starts_with("t:5: ") && found.len() == 4, "{found:?}");
    let named = Format::Csv { column: Column::Named("ip".into()), separator: b',' };
    let found = wrong(&named, "# x\naddress,port\n192.0.2.1,80\n");
    assert!(found[0].starts_with("t:2: the first line does not name a column \"ip\"; ") && found.len() == 1);
    assert!(wrong(&named, "ip,port\n\"192.0.2.1,80\n")[0].starts_with("t:2: a quoted value does not end"));
    let third = Format::Csv { column: Column::Number(2), separator: b',' };
    assert!(wrong(&third, "1,2\n")[0].starts_with("t:1: the line has no value 3"));
    let json = Format::Json("cidr".into());
    assert!(wrong(&json, "{\"cidr\":7}\n")[0].starts_with("t:1: \"7\" is no address"));
    assert!(wrong(&json, "192.0.2.1\n")[0].starts_with("t:1: \"192.0.2.1\" is no JSON"));
    assert_eq!(wrong(&Format::Text, &"x\n".repeat(1000)).len(), text::MOST_PROBLEMS + 1);
    let many = text::read("t", b"1.1.1.1\n1.1.1.2\n", &Format::Text, false, 1, |_| ()).unwrap_err();
    assert!(many[0].to_string().starts_with("t:2: these are more than the 4000000 entries"), "{many:?}");
}

#[test]
fn lines_that_cannot_be_read_are_passed_over_where_the_list_says_so() {
    let mut found = Vec::new();
    let text = b"192.0.2.1\n\xff\nexample.com\n192.0.2.2\n";
    let counts = text::read("t", text, &Format::Text, true, 9, |net| found.push(net.to_string())).unwrap();
    assert_eq!(counts, Counts { entries: 2, skipped: 2, first_skipped: 2 });
    assert_eq!(found, ["192.0.2.1/32", "192.0.2.2/32"]);
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("l.txt"), text).unwrap();
    let stage = |bad: &str| {
        let text = format!("[[list]]\nname = \"l\"\nfile = \"l.txt\"\nbad_lines = \"{bad}\"\n");
        parse_stage(&KIND, &text, folder.path())
    };
    let warnings = stage("skip").unwrap().warnings();
    assert!(warnings[0].ends_with("l.txt: 2 lines cannot be read, the first is line 2"), "{warnings:?}");
    assert_eq!(stage("refuse").unwrap_err().len(), 2);
}

#[test]
fn settings_are_read() {
    let stage = parsed(EXAMPLE.split_once("use = \"blocklist\"").unwrap().1.replace("stage.", "").as_str());
    let stage = stage.unwrap();
    assert!(
        stage.wants_flows() && stage.settles() && stage.judges_any_packet() && stage.warnings().is_empty()
    );
    assert!(parsed("").unwrap().warnings()[0].contains("no lists"));
    let warned =
        parsed("[[list]]\nname = \"all\"\nentries = [\"0.0.0.0/0\", \"::/0\"]\n[[list]]\nname = \"no\"\n");
    let warned = warned.unwrap().warnings();
    assert_eq!(
        warned,
        [
            "the list \"no\" has no entries",
            "the list \"all\" has every IPv4 address",
            "the list \"all\" has every IPv6 address"
        ]
    );
    for (text, expected) in [
        ("", "list[0].name: a list needs a name"),
        ("name = \"a\"\naction = \"deny\"", "deny"),
        ("name = \"a\"\nend = \"both\"", "both"),
        ("name = \"a\"\nentries = [\"192.0.2.1\", \"x\"]", "list[0].entries[1]: \"x\" is neither"),
        ("name = \"a\"\nfile = \"none.txt\"", "list[0].file: cannot read none.txt"),
        ("name = \"a\"\nformat = \"csv\"", "list[0].column: is missing"),
        ("name = \"a\"\nformat = \"json\"", "list[0].column: is missing"),
        ("name = \"a\"\ncolumn = \"ip\"", "list[0].column: text has no columns"),
        ("name = \"a\"\nformat = \"csv\"\ncolumn = 0", "list[0].column: 0 is no column"),
        ("name = \"a\"\nseparator = \",\"", "list[0].separator: only csv has separators"),
        ("name = \"a\"\nformat = \"csv\"\ncolumn = 1\nseparator = \"::\"", "is not one character"),
        ("name = \"a\"\nid = 0", "list[0].id: 0 is none"),
        ("name = \"a\"\nseverity = 0", "list[0].severity: 0 is none"),
        ("name = \"a\"\n[[list]]\nname = \"a\"", "list[1].name: \"a\" is the name of another list"),
    ] {
        let wrong = parsed(&format!("[[list]]\n{text}\n")).map(|_| ()).unwrap_err().join("\n");
        assert!(wrong.contains(expected), "{text}: {wrong}");
    }
    let many: String = (0..32).map(|n| format!("[[list]]\nname = \"l{n}\"\n")).collect();
    assert!(parsed(&many).unwrap_err()[0].contains("more than the 31"));
}

/// Lists in order: `allow` wins, then the first that denies; each that has an end counts.
#[test]
fn who_decides() {
    let text = "[[list]]\nname = \"a\"\naction = \"alert\"\nentries = [\"10.0.0.0/8\"]\n\
                [[list]]\nname = \"r\"\naction = \"reject\"\nend = \"destination\"\nentries = [\"10.1.0.0/16\"]\n\
                [[list]]\nname = \"d\"\nend = \"source\"\nentries = [\"10.1.2.0/24\", \"2001:db8::/32\"]\n\
                [[list]]\nname = \"w\"\naction = \"allow\"\nentries = [\"10.1.2.3\"]\n";
    let built = parsed(text).unwrap().build(Backend::Soft).unwrap();
    let judge = |source: &str, destination: &str| {
        let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
        let ends = Tuple { source, destination, source_port: 1, destination_port: 2, protocol: 6 };
        let Judged { verdict, rule, also } = built.judge(&ends).unwrap();
        format!("{verdict} {} {}", rule.unwrap(), also.join(","))
    };
    assert_eq!(judge("192.0.2.1", "192.0.2.2"), "allow not listed ");
    assert_eq!(judge("192.0.2.1", "10.2.0.1"), "allow a alert ");
    assert_eq!(judge("10.1.0.1", "192.0.2.1"), "allow a alert ", "the other end is r's");
    assert_eq!(judge("192.0.2.1", "10.1.0.1"), "reject r reject a alert");
    assert_eq!(judge("10.1.2.1", "10.1.0.1"), "reject r reject a alert,d drop");
    assert_eq!(judge("10.1.2.1", "192.0.2.1"), "drop d drop a alert");
    assert_eq!(judge("10.1.2.3", "10.1.0.1"), "allow w allow ");
    assert_eq!(judge("2001:db8::1", "2001:db9::1"), "drop d drop ");
    assert_eq!(judge("2001:db9::1", "2001:db8::1"), "allow not listed ");
    let labels: Vec<String> = built.counts().into_iter().map(|(label, _)| label).collect();
    assert_eq!(labels, ["a alert", "r reject", "d drop", "w allow", "not listed"]);
    let signatures = built.signatures();
    assert_eq!((signatures[2].signature.as_str(), signatures[2].signature_id), ("d", 3));
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        text::arbitrary_input(&bytes);
    }

    /// Text that is nearly right.
    #[test]
    fn any_text_of_such_words_is_read_or_refused(
        kind in any::<u8>(),
        words in prop::collection::vec(prop::sample::select(vec![
            "192.0.2.1", "/24", "/33", "::", "2001:db8::", "-", ",", ";", "#", "\n", "\"", "ip", "cidr", "{", "}", ":", " ", "\t",
            "0.0.0.0-255.255.255.255", "255.255.0.0", "{\"cidr\":\"10.0.0.0/8\"}",
        ]), 0..40),
    ) {
        let text = [&[kind][..], words.concat().as_bytes()].concat();
        text::arbitrary_input(&text);
    }
}
