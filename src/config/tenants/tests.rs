//! Mistakes in tenants and what is said of them; how shares come out; the tenants' file.

use proptest::prelude::*;

use super::*;
use crate::config::tests::{GOOD, good, lines, options, overrides, says};
use crate::config::{Options, Overrides, Plan, Problem, load};

const A: &str = "[[tenant]]\nname = \"a\"\nendpoints = [\"vpce-0123456789abcdef0\"]\n";

/// One worker: its table is the process's.
fn alone(text: &str) -> Plan {
    good(&format!("{GOOD}[eal]\nlcores = [0, 1]\n[flow]\ncapacity = 100_000\n{text}"), &Overrides::default())
}

fn table(plan: &Plan) -> Vec<(&str, u32, u32)> {
    plan.flow.tenants.iter().map(|t| (t.name.as_str(), t.guaranteed, t.ceiling)).collect()
}

#[test]
fn each_mistake_has_its_message() {
    let cases: &[(&str, &str)] = &[
        ("[tenant]\nname = \"a\"", "t.toml:5:2: tenant: a table is not a list; write it as [...]"),
        (
            "[[tenant]]\nendpoint = 5\nname = \"a\"",
            r#"t.toml:6:1: tenant[0].endpoint: unknown key; did you mean "endpoints"?"#,
        ),
        (
            "[[tenant]]",
            r#"t.toml:5:1: tenant[0]: "name" is missing; every tenant needs one: name = "payments""#,
        ),
        (
            "[[tenant]]\nname = \"a b\"",
            r#"t.toml:6:1: tenant[0].name: "a b" cannot be a label; use up to 64 letters, digits, `-`, `_` or `.`"#,
        ),
        (
            "[[tenant]]\nname = \"a\"\npipeline = \"strict.toml\"",
            r#"t.toml:7:1: tenant[0].pipeline: no stage is part of a pipeline "strict.toml"; known here: default, none"#,
        ),
        (
            "[[tenant]]\nname = \"a\"\nendpoints = [\"vpce-123\"]",
            r#"t.toml:7:14: tenant[0].endpoints[0]: "vpce-123" does not have 8 or 17 hexadecimal digits; write "vpce-0123456789abcdef0", "0x123456789abcdef0" or a number"#,
        ),
        (
            "[[tenant]]\nname = \"a\"\nendpoints = [0, -1]",
            r#"t.toml:7:17: tenant[0].endpoints[1]: "-1" is not the id of an endpoint, a number of 64 bits; write "vpce-0123456789abcdef0", "0x123456789abcdef0" or a number"#,
        ),
        (
            "[[tenant]]\nname = \"a\"\nendpoints = [true]",
            "t.toml:7:14: tenant[0].endpoints[0]: true is not a string or a whole number",
        ),
        (
            "[[tenant]]\nname = \"default\"\nendpoints = [1]",
            r#"t.toml:7:14: tenant[0].endpoints[0]: "default" has the endpoints that nobody names; leave them out, or choose another name"#,
        ),
        (
            "[[tenant]]\nname = \"a\"\nendpoints = [0x123456789abcdef0, \"vpce-0123456789abcdef0\"]",
            r#"t.toml:7:34: tenant[0].endpoints[1]: vpce-0123456789abcdef0 is "a"'s already: t.toml:7:14: tenant[0].endpoints[0]; name it once"#,
        ),
        (
            "[[tenant]]\nname = \"a\"\nlimits = { flow = 5 }",
            r#"t.toml:7:12: tenant[0].limits.flow: unknown key; did you mean "flows"?"#,
        ),
        (
            "[[tenant]]\nname = \"a\"\nlimits = { flows = \"130%\" }",
            r#"t.toml:7:12: tenant[0].limits.flows: "130%" is neither a number of flows nor a part of flow.capacity; write 50_000, or "30%""#,
        ),
        (
            "[[tenant]]\nname = \"a\"\nlimits = { flows = 262_145 }",
            "t.toml:7:12: tenant[0].limits.flows: 262145 flows are more than flow.capacity, 262144; lower it, or raise \
             flow.capacity",
        ),
        (
            "[[tenant]]\nname = \"a\"\nlimits = { flows = 100, guaranteed = 101 }",
            "t.toml:7:25: tenant[0].limits.guaranteed: 101 flows are more than the 100 that the tenant may have; lower it, or \
             raise limits.flows",
        ),
        (
            "[[tenant]]\nname = \"a\"\nlimits.guaranteed = \"60%\"\n[[tenant]]\nname = \"b\"\nlimits.guaranteed = \"50%\"\n\
             [[tenant]]\nname = \"c\"\nlimits.guaranteed = 1",
            "t.toml:10:8: tenant[1].limits.guaranteed: with this, guarantees add up to 288358 flows, more than flow.capacity, \
             262144; lower some of them, or raise flow.capacity",
        ),
        (
            "[[tenant]]\nname = \"a\"\nlimits.new_flows_per_s = 0",
            "t.toml:7:8: tenant[0].limits.new_flows_per_s: 0 is not between 1 and 4294967295",
        ),
        ("[tenants]\nfiles = \"x\"", r#"t.toml:6:1: tenants.files: unknown key; did you mean "file"?"#),
        (
            "[tenants]\nunknown_endpoint = \"drop\"",
            "t.toml:6:1: tenants.unknown_endpoint: drops everything: no tenant has an endpoint; name endpoints in [[tenant]] or \
             [tenants] file, or let the default tenant have them",
        ),
        (
            "[tenants]\nunknown_endpoint = \"pass\"",
            r#"t.toml:6:1: tenants.unknown_endpoint: "pass" is not one of default, drop"#,
        ),
        (
            "[tenants]\nfile = \"/nonexistent/tenants.csv\"",
            "t.toml:6:1: tenants.file: /nonexistent/tenants.csv: there is no such file; paths start at the folder of the \
             configuration file",
        ),
    ];
    for (text, message) in cases {
        says(&format!("{GOOD}{text}\n"), &Overrides::default(), &[message]);
    }
}

#[test]
fn an_endpoint_of_two_tenants_is_refused_with_both_places() {
    let text = format!("{GOOD}{A}[[tenant]]\nname = \"b\"\nendpoints = [1, \"vpce-0123456789abcdef0\"]\n");
    says(
        &text,
        &Overrides::default(),
        &[
            r#"t.toml:10:17: tenant[1].endpoints[1]: vpce-0123456789abcdef0 is "a"'s already: t.toml:7:14: tenant[0].endpoints[0]; an endpoint has one tenant"#,
        ],
    );
    let twice = format!("{GOOD}{A}[[tenant]]\nname = \"a\"\nendpoints = [1]\n");
    says(
        &twice,
        &Overrides::default(),
        &[
            r#"t.toml:9:1: tenant[1].name: "a" is the name of another tenant already: t.toml:6:1: tenant[0].name; join the two, or give one of them another name"#,
        ],
    );
}

#[test]
fn a_value_from_outside_reaches_a_tenant() {
    let sets = ["tenant[0].limits.flows=30%", "tenant[0].endpoints=[\"vpce-1a2b3c4d\"]"];
    let plan = good(
        &format!("{GOOD}{A}"),
        &overrides(&[("SLUICEGATE_TENANT__0__LIMITS__GUARANTEED", "1000")], &sets),
    );
    let a = &plan.flow.tenants[1];
    assert_eq!(a.endpoints, [0x1a2b_3c4d]);
    // 1000 x 109227 / 262144 and 30 % of 109227, three workers
    assert_eq!((plan.flow.per_worker, a.guaranteed, a.ceiling), (109_227, 416, 32_769));
}

/// By hand, with 100,000 flows.
#[test]
fn half_is_dealt_out_and_a_ceiling_is_what_others_leave() {
    assert_eq!(table(&alone("")), [("default", 100_000, 100_000)]);
    // 50,000 for two: each keeps 25,000 and may take all but the other's.
    assert_eq!(table(&alone(A)), [("default", 25_000, 75_000), ("a", 25_000, 75_000)]);
    let b = "[[tenant]]\nname = \"b\"\nendpoints = [2]\n";
    assert_eq!(
        table(&alone(&format!("{A}{b}"))),
        [("default", 16_666, 66_668), ("a", 16_666, 66_668), ("b", 16_666, 66_668)]
    );
    // 60,000 are a's: half of the rest for two. A ceiling below the even part lowers it.
    let named =
        format!("{A}limits = {{ guaranteed = \"60%\", new_flows_per_s = 7 }}\n{b}limits.flows = 500\n");
    let plan = alone(&named);
    assert_eq!(table(&plan), [("default", 10_000, 39_500), ("a", 60_000, 89_500), ("b", 500, 500)]);
    assert_eq!(plan.flow.tenants[1].new_flows_per_s, Some(7));
    // The first tenant can be given limits as well.
    let first =
        format!("{A}[[tenant]]\nname = \"default\"\nlimits = {{ flows = \"10%\", guaranteed = 0 }}\n");
    assert_eq!(table(&alone(&first)), [("default", 0, 10_000), ("a", 50_000, 100_000)]);
    // What nobody may use is not kept.
    let drop = format!("{A}[tenants]\nunknown_endpoint = \"drop\"\n");
    assert_eq!(table(&alone(&drop)), [("default", 0, 50_000), ("a", 50_000, 100_000)]);
}

#[test]
fn what_is_probably_not_meant_is_warned_of() {
    let text =
        format!("{A}limits.flows = \"90%\"\n[[tenant]]\nname = \"b\"\n[tunnel]\nprofile = \"plain\"\n");
    let text = format!("[[port]]\ndevice = \"net_null0\"\n{text}allowed_sources = [\"10.0.8.0/24\"]\n");
    let starts = [
        "tenant \"b\" has no endpoints",
        "t.toml:5:14: tenant[0].endpoints[0]: vpce-0123456789abcdef0 never arrives: with tunnel.profile = \"plain\"",
        "tenant \"a\" may have 235929 flows, but the guarantees of the others leave 174764",
    ];
    let found = good(&text, &Overrides::default()).warnings;
    assert!(
        found.len() == 3 && found.iter().zip(starts).all(|(w, start)| w.starts_with(start)),
        "{found:#?}"
    );
}

/// A configuration with a tenants' file beside it.
fn with_file(csv: &[u8]) -> Result<Plan, Vec<Problem>> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("tenants.csv"), csv).unwrap();
    let text = format!(
        "{GOOD}{A}[tenants]\nfile = \"tenants.csv\"\n[eal]\nlcores = [0, 1]\n[flow]\ncapacity = 100_000\n"
    );
    let path = folder.path().join("t.toml");
    std::fs::write(&path, text).unwrap();
    load(&path, &Overrides::default(), &options()).map_err(|mut problems| {
        let folder = format!("{}/", folder.path().display());
        problems.iter_mut().for_each(|problem| {
            problem.what = problem.what.replace(&folder, "");
            if let Origin::File { file, .. } = &mut problem.origin {
                *file = file.replace(&folder, "");
            }
        });
        problems
    })
}

#[test]
fn a_file_names_tenants_line_by_line() {
    let csv = "\u{feff}# ours\r\n\r\nEndpoint,name,flows,new_flows_per_s,guaranteed\r\n\
               vpce-0123456789abcdef1,b,30%,50000\r\n\"0x5\",c\r\nvpce-0123456789abcdef2,b,,,\r\n7,b,30%,50000,\r\n,default,,,5%\r\n";
    let plan = with_file(csv.as_bytes()).unwrap();
    // 5,000 named; half of 95,000 for a, b and c.
    let expected =
        [("default", 5_000, 52_501), ("a", 15_833, 63_334), ("b", 15_833, 30_000), ("c", 15_833, 63_334)];
    assert_eq!(table(&plan), expected);
    assert_eq!(plan.flow.tenants[2].endpoints, [7, 0x1234_5678_9abc_def1, 0x1234_5678_9abc_def2]);
    assert_eq!(plan.flow.tenants[2].new_flows_per_s, Some(50_000));
    assert_eq!(plan.flow.tenants[3].endpoints, [5]);
}

#[test]
fn each_mistake_of_a_file_has_its_line() {
    let cases: &[(&str, &str)] = &[
        (
            "",
            "tenants.csv:1: the file names no columns; start it with a line such as: name,endpoint,flows,guaranteed,new_flows_per_s,pipeline",
        ),
        ("name,endpont\n", r#"tenants.csv:1: "endpont" is not a column; did you mean "endpoint"?"#),
        (
            "name,policy\n",
            r#"tenants.csv:1: "policy" is not a column; known here: name, endpoint, flows, guaranteed, new_flows_per_s, pipeline"#,
        ),
        (
            "endpoint,flows\n5,1%\n",
            "tenants.csv:1: name: the column is missing; add it: every line needs one",
        ),
        ("name,name\n", "tenants.csv:1: name: the column is named twice; keep one of them"),
        (
            "name,endpoint\nb,5,6\n",
            "tenants.csv:2: the line has 3 values for 2 columns; put values with commas in double quotes",
        ),
        (
            "name,endpoint\nb,\"5\n",
            "tenants.csv:2: a quoted value does not end on its line; close the double quote",
        ),
        ("name,endpoint\n,5\n", "tenants.csv:2: name: is blank; say whose the endpoint is"),
        (
            "name,endpoint\n# x\n\nb,vpce-5\n",
            r#"tenants.csv:4: endpoint: "vpce-5" does not have 8 or 17 hexadecimal digits; write "vpce-0123456789abcdef0", "0x123456789abcdef0" or a number"#,
        ),
        (
            "name,endpoint,flows\nb,5,many\n",
            r#"tenants.csv:2: flows: "many" is neither a number of flows nor a part of flow.capacity; write 50_000, or "30%""#,
        ),
        (
            "name,endpoint,flows\nb,5,10%\nb,6,11%\n",
            "tenants.csv:3: flows: \"11%\" is not what tenants.csv:2 says; say it once",
        ),
        (
            "name,endpoint,guaranteed\nb,5,100001\n",
            "tenants.csv:2: guaranteed: 100001 flows are more than flow.capacity, 100000; lower it, or raise flow.capacity",
        ),
        (
            "name,endpoint,new_flows_per_s\nb,5,0\n",
            r#"tenants.csv:2: new_flows_per_s: "0" is not between 1 and 4294967295; write a number, or nothing"#,
        ),
        (
            "name,endpoint,new_flows_per_s\nb,5,1\nb,6,2\n",
            "tenants.csv:3: new_flows_per_s: 2 is not what a line before says of \"b\"; say it once",
        ),
        (
            "name,endpoint\nb!,5\n",
            r#"tenants.csv:2: name: "b!" cannot be a label; use up to 64 letters, digits, `-`, `_` or `.`"#,
        ),
        (
            "name,endpoint\na,5\n",
            r#"tenants.csv:2: name: "a" is the name of another tenant already: t.toml:6:1: tenant[0].name; join the two, or give one of them another name"#,
        ),
        (
            "name,endpoint\nb,5\nc,5\n",
            r#"tenants.csv:3: endpoint: 5 is "b"'s already: tenants.csv:2: endpoint; an endpoint has one tenant"#,
        ),
        (
            "name,endpoint\nb,vpce-0123456789abcdef0\n",
            r#"tenants.csv:2: endpoint: vpce-0123456789abcdef0 is "a"'s already: t.toml:7:14: tenant[0].endpoints[0]; an endpoint has one tenant"#,
        ),
    ];
    for (csv, message) in cases {
        let found = lines(&with_file(csv.as_bytes()).expect_err(csv));
        assert_eq!(found.trim_end(), *message, "\n{csv}");
    }
    let binary = lines(&with_file(b"name,endpoint\n\xff,5\n").unwrap_err());
    assert!(
        binary.starts_with("t.toml:9:1: tenants.file: tenants.csv: is not UTF-8 text (byte 14)"),
        "{binary}"
    );
}

#[test]
fn a_file_that_is_wrong_throughout_ends_soon() {
    for (line, expected) in [("b,nothing\n", 101), ("b,5\n", 101), ("b,5,6\n", 101)] {
        let problems = with_file(format!("name,endpoint\n{}", line.repeat(50_000)).as_bytes()).unwrap_err();
        assert_eq!(problems.len(), expected, "{line}");
        assert!(problems.iter().any(|problem| problem.what == "too many mistakes to go on"), "{line}");
    }
}

#[test]
fn tables_that_are_wrong_throughout_end_soon() {
    for wrong in
        ["endpoints = [\"x\"]", "limits.flows = 300_000", "limits.new_flows_per_s = 0", "pipeline = \"x\""]
    {
        let tables: String = (0..300).map(|i| format!("[[tenant]]\nname = \"t{i}\"\n{wrong}\n")).collect();
        let problems =
            crate::config::tests::read(&format!("{GOOD}{tables}"), &Overrides::default()).unwrap_err();
        assert_eq!(problems.len(), 101, "{wrong}");
    }
    let over = "limits = { flows = \"90%\", guaranteed = 0 }";
    let tables: String = (0..300).map(|i| format!("[[tenant]]\nname = \"t{i}\"\n{over}\n")).collect();
    let plan = good(&format!("{GOOD}{tables}"), &Overrides::default());
    assert_eq!(plan.warnings.len(), 2 * MOST_WARNINGS, "no endpoints, and more than is left");
}

#[test]
fn more_than_can_be_is_refused() {
    let mut csv = String::from("name,endpoint\n");
    (0..=MOST_TENANTS).for_each(|i| csv += &format!("t{i},{i}\n"));
    let found = lines(&with_file(csv.as_bytes()).unwrap_err());
    assert!(found.contains("these are 10002 tenants; at most 10000 can be"), "{found}");
    let mut csv = String::from("name,endpoint\n");
    (0..=MOST_ENDPOINTS).for_each(|i| csv += &format!("b,{i}\n"));
    let found = lines(&with_file(csv.as_bytes()).unwrap_err());
    assert!(found.contains("these are 100002 endpoints; at most 100000 can be"), "{found}");
}

/// A text from anywhere may name files and gets none of them.
#[test]
fn files_are_not_opened_where_they_may_not_be() {
    let closed = Options { files: false, ..options() };
    let read = |text: &str| {
        crate::config::load_text("t.toml", text, "/".as_ref(), &Overrides::default(), &closed).unwrap_err()
    };
    let found = lines(&read(&format!("{GOOD}[tenants]\nfile = \"/dev/zero\"\n")));
    assert!(found.contains("tenants.file: /dev/zero: files are not read here"), "{found}");
    let kinds = Options { kinds: crate::stages::ALL, ..closed.clone() };
    let text = format!("{GOOD}[[stage]]\nuse = \"acl\"\nrules = \"/dev/zero\"\n");
    let found = crate::config::load_text("t.toml", &text, "/".as_ref(), &Overrides::default(), &kinds);
    assert!(lines(&found.unwrap_err()).contains("files are not read here"));
}

/// Guarantees hold in every worker, whatever the numbers: they fit beside each other, and no ceiling reaches into them.
fn shares_fit(plan: &Plan) -> Result<(), TestCaseError> {
    let flow = &plan.flow;
    let all: u64 = flow.tenants.iter().map(|t| u64::from(t.guaranteed)).sum();
    prop_assert!(all <= u64::from(flow.per_worker), "{all} > {}", flow.per_worker);
    for tenant in &flow.tenants {
        let others = all - u64::from(tenant.guaranteed);
        prop_assert!(tenant.guaranteed <= tenant.ceiling, "{tenant:?}");
        prop_assert!(u64::from(tenant.ceiling) + others <= u64::from(flow.per_worker), "{tenant:?} {others}");
    }
    Ok(())
}

proptest! {
    #[test]
    fn no_file_makes_the_reader_panic(words in prop::collection::vec(prop::sample::select(vec![
        "name", "endpoint", "flows", "guaranteed", "new_flows_per_s", ",", "\n", "\r\n", "\"", "#", "30%", "101%", "vpce-0123456789abcdef0",
        "0x5", "5", "a", "default", " ", "\u{feff}", "ä", "\u{0}",
    ]), 0..80), any in ".*") {
        for text in [words.concat(), format!("name,endpoint\n{}", words.concat()), any] {
            let (claims, problems) = file::parse("f.csv", &text);
            let all = text.lines().count().max(1);
            prop_assert!(claims.len() <= all && problems.len() <= MOST_PROBLEMS + 1);
            for problem in problems {
                prop_assert!(!problem.what.is_empty() && !problem.remedy.is_empty(), "{problem:?}");
                let there =
                    matches!(problem.origin, Origin::File { line, .. } if (1..=all).contains(&(line as usize)));
                prop_assert!(there && problem.what.len() < 1000, "{problem:?}");
            }
        }
    }

    #[test]
    fn guarantees_hold_in_every_worker(
        capacity in 1024u32..=1 << 26,
        workers in 1usize..5,
        limits in prop::collection::vec((prop::option::of(0.0f64..100.0), prop::option::of(0u32..100_000)), 0..20),
        drop in any::<bool>(),
    ) {
        let mut text = format!("{GOOD}[eal]\nlcores = \"0-3,6\"\n[flow]\ncapacity = {capacity}\n");
        text += if drop && !limits.is_empty() { "[tenants]\nunknown_endpoint = \"drop\"\n" } else { "" };
        for (i, (flows, guaranteed)) in limits.iter().enumerate() {
            text += &format!("[[tenant]]\nname = \"t{i}\"\nendpoints = [{i}]\n");
            if let Some(flows) = flows {
                text += &format!("limits.flows = \"{flows:.2}%\"\n");
            }
            if let Some(guaranteed) = guaranteed {
                text += &format!("limits.guaranteed = {guaranteed}\n");
            }
        }
        let text = text.replace("0-3,6", &format!("0-{}", workers.min(3)));
        // What does not fit is refused, and that is right too; most cases fit.
        if let Ok(plan) = crate::config::tests::read(&text, &Overrides::default()) {
            shares_fit(&plan)?;
        }
    }
}
