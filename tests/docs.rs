//! Promises that documents make about the code.

use std::fmt::Write as _;
use std::path::Path;

use sluicegate::gateway::Why;
use sluicegate::packet::DropReason;

const HEAD: &str = "# Drop reasons

Every packet that is not sent is counted under exactly one of these. They are the framework's; a stage adds its own as
`stage.reason` (`sluicegate stages NAME` lists them). This table is made from `DropReason` in `src/packet/verdict.rs`, and
a test compares the two: after a change there, run `SLUICEGATE_BLESS=1 cargo nextest run --test docs`.

| label | hop | meaning |
|---|---|---|
";

const GATEWAY: &str = "
## Of a gateway

`sluicegate gateway` has the framework's reasons for what is malformed, and these (`Why` in `src/gateway/reasons.rs`).

| label | meaning |
|---|---|
";

/// The table in the docs is the list in the code.
#[test]
fn drop_reasons_are_documented() {
    let mut expected = HEAD.to_owned();
    for reason in DropReason::ALL {
        writeln!(expected, "| `{}` | {} | {} |", reason.label(), reason.hop(), reason.help())
            .expect("a string");
    }
    expected += GATEWAY;
    for (label, help) in Why::ALL {
        writeln!(expected, "| `gateway.{label}` | {help} |").expect("a string");
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/drops.md");
    if std::env::var_os("SLUICEGATE_BLESS").is_some() {
        std::fs::write(&path, &expected).expect("docs/drops.md");
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == expected,
        "docs/drops.md is out of date: SLUICEGATE_BLESS=1 cargo nextest run --test docs"
    );
}

const METRICS: &str = include_str!("docs/metrics-head.md");

/// The table in the docs is what is published.
#[test]
fn figures_are_documented() {
    let mut expected = METRICS.to_owned();
    for figure in sluicegate::app::figures() {
        let labels: Vec<String> = figure.labels.iter().map(|label| format!("`{label}`")).collect();
        let (name, labels) = (figure.name, labels.join(", "));
        writeln!(expected, "| `{name}` | {} | {labels} | {} |", figure.kind, figure.help).expect("a string");
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    if std::env::var_os("SLUICEGATE_BLESS").is_some() {
        std::fs::write(&path, &expected).expect("docs/metrics.md");
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == expected,
        "docs/metrics.md is out of date: SLUICEGATE_BLESS=1 cargo nextest run --test docs"
    );
}

/// The list of checks is what the judge does.
#[test]
fn checks_of_appliances_are_documented() {
    const BEGIN: &str = "| check | level | what is demanded | who says so |\n|---|---|---|---|\n";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/conform.md");
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    let (head, list) = found.split_once(BEGIN).expect("a table of checks in docs/conform.md");
    let tail = list.split_once("\n\n").map_or("", |(_, tail)| tail);
    let mut expected = format!("{head}{BEGIN}");
    for check in sluicegate::conform::checks::all() {
        let level = check.level.word();
        writeln!(expected, "| `{}` | {level} | {} | {} |", check.id, check.demand, check.source)
            .expect("a string");
    }
    expected += &format!("\n{tail}");
    if std::env::var_os("SLUICEGATE_BLESS").is_some() {
        std::fs::write(&path, &expected).expect("docs/conform.md");
    }
    assert!(
        found == expected || std::env::var_os("SLUICEGATE_BLESS").is_some(),
        "docs/conform.md is out of date: SLUICEGATE_BLESS=1 cargo nextest run --test docs"
    );
}

/// Labels are names in metrics: unique and made of small letters and underscores.
#[test]
fn drop_labels_are_metric_names() {
    let mut labels: Vec<_> = DropReason::ALL.iter().map(|r| r.label()).collect();
    assert!(labels.iter().all(|l| l.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')), "{labels:?}");
    labels.sort_unstable();
    labels.dedup();
    assert_eq!(labels.len(), DropReason::ALL.len());
}

/// Relative links of the documents lead somewhere.
#[test]
fn links_of_documents_resolve() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for document in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"] {
        let text = std::fs::read_to_string(root.join(document)).expect(document);
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = target.split('#').next().unwrap_or_default();
            if file.is_empty() || target.contains("://") {
                continue;
            }
            assert!(root.join(file).exists(), "{document} links to {file}, which does not exist");
        }
    }
}

/// Sections of a configuration file: how they begin, where they are documented, how many keys they have.
const SECTIONS: [(&str, &str, usize); 16] = [
    ("[eal]", "## `[eal]`", 8),
    ("[[port]]", "## `[[port]]`", 11),
    ("[tunnel]", "## `[tunnel]`", 6),
    ("[flow]", "## `[flow]`", 17),
    ("[flow.fragments]", "### `[flow.fragments]`", 5),
    ("[stream]", "## `[stream]`", 12),
    ("[[tenant]]", "## `[[tenant]]`", 4),
    ("[[tenant]]\n[tenant.limits]", "### `[tenant.limits]`", 3),
    ("[tenants]", "## `[tenants]`", 2),
    ("[management]", "## `[management]`", 13),
    ("[management.health]", "### `[management.health]`", 7),
    ("[metrics]", "## `[metrics]`", 1),
    ("[events]", "## `[events]`", 8),
    ("[events.drop]", "### `[events.drop]`", 2),
    ("[events.anomaly]", "### `[events.drop]`", 2),
    ("[[events.sink]]", "### `[[events.sink]]`", 8),
];

/// The keys of a section; the loader itself says which there are.
fn keys_of(section: &str) -> Vec<String> {
    use sluicegate::config::{Options, Overrides, load_text};
    let text = format!("{section}\nnot-a-key-of-any-section = 1\n");
    let wrong = load_text("t.toml", &text, Path::new(""), &Overrides::default(), &Options::default())
        .expect_err("an unknown key");
    let remedy = wrong.iter().find_map(|problem| problem.remedy.strip_prefix("known here: "));
    remedy.expect("a list of keys").split(", ").map(str::to_owned).collect()
}

/// Every key of a configuration file has its line in docs/configuration.md.
#[test]
fn configuration_keys_are_documented() {
    let document = include_str!("../docs/configuration.md");
    for (section, heading, count) in SECTIONS {
        let keys = keys_of(section);
        assert_eq!(keys.len(), count, "{section} {keys:?}");
        let part = document.split_once(&format!("\n{heading}")).expect(heading).1;
        let part = part.split("\n#").next().unwrap_or(part);
        for key in keys {
            assert!(part.contains(&format!("`{key}`")), "{section} {key} is not in docs/configuration.md");
        }
    }
}

/// Sections of a gateway's file: how they begin, and how many keys they have.
const GATEWAY_SECTIONS: [(&str, usize); 7] = [
    ("[[port]]", 5),
    ("[tunnel]", 4),
    ("[gateway]", 11),
    ("[flow]", 4),
    ("[[endpoint]]", 2),
    ("[[target]]", 4),
    ("[health_check]", 9),
];

/// The example of docs/gateway.md is a good file, and every key has its line there.
#[test]
fn a_gateways_file_is_documented() {
    use sluicegate::config::gateway::load_text;
    use sluicegate::config::{Machine, Options, Overrides};
    let document = include_str!("../docs/gateway.md");
    let example =
        document.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("an example");
    let options = Options { machine: Machine { cpus: vec![0, 1], worth: 2 }, ..Options::default() };
    let plan = load_text("g.toml", example, &Overrides::default(), &options).expect("a good file");
    assert!(plan.warnings.is_empty(), "{:?}", plan.warnings);
    for (section, count) in GATEWAY_SECTIONS {
        let text = format!("{section}\nnot-a-key-of-any-section = 1\n");
        let wrong = load_text("g.toml", &text, &Overrides::default(), &options).expect_err("an unknown key");
        let remedy = wrong.iter().find_map(|problem| problem.remedy.strip_prefix("known here: "));
        let keys: Vec<&str> = remedy.expect("a list of keys").split(", ").collect();
        assert_eq!(keys.len(), count, "{section} {keys:?}");
        let part = document.split_once(&format!("\n### `{section}`")).expect(section).1;
        let part = part.split("\n#").next().unwrap_or(part);
        for key in keys {
            assert!(part.contains(&format!("`{key}`")), "{section} {key} is not in docs/gateway.md");
        }
    }
}

/// A plan with one of everything.
const EVERYTHING: &str = r#"
[[port]]
device = "net_null0"
[tunnel]
allowed_sources = ["10.0.8.0/24"]
[[tenant]]
name = "payments"
endpoints = [7]
[[events.sink]]
to = "stdout"
"#;

/// Every key of a configuration file is in the table of docs/reload.md: what a reload can change, and what needs a restart.
#[test]
fn what_a_reload_can_change_is_documented() {
    use sluicegate::config::reload::settings;
    use sluicegate::config::{Options, Overrides, load_text};
    let plan = load_text("t.toml", EVERYTHING, Path::new(""), &Overrides::default(), &Options::default());
    // Places without numbers and names: `port[].mtu`.
    let plain = |place: &str| {
        let mut inside = false;
        let mut keep = |c: char| {
            inside = (inside || c == '[') && c != ']';
            !inside || c == '['
        };
        place.chars().filter(|c| keep(*c)).collect::<String>()
    };
    let mut rows: Vec<(String, bool)> = Vec::new();
    for setting in settings(&plan.expect("a good file")) {
        let row = (plain(&setting.place), setting.live);
        if !rows.contains(&row) {
            rows.push(row);
        }
    }
    // The loader's keys, each in one row: those of a table of its own are rows of that, and these go by other names.
    let elsewhere = ["fragments", "health", "drop", "anomaly", "sink"];
    let other = |place: &str| match place {
        "tenant[].name" => "tenant.name".to_owned(),
        "tenant[].pipeline" => String::new(), // not yet
        "tenant[].limits.flows" | "tenant[].limits.guaranteed" | "tenant[].limits.new_flows_per_s" => {
            "tenant[].limits".to_owned()
        }
        // Whatever the file says, they are tenants' endpoints and limits.
        "tenants.file" => "tenant[].endpoints".to_owned(),
        // Parts of where a sink writes.
        "events.sink[].path"
        | "events.sink[].rotate_mb"
        | "events.sink[].rotate_every"
        | "events.sink[].keep" => "events.sink[].to".to_owned(),
        place => place.to_owned(),
    };
    for (section, _, _) in SECTIONS {
        let name = section.rsplit('\n').next().expect("a line");
        let name = match name {
            "[tenant.limits]" => "tenant[].limits".to_owned(),
            _ if name.starts_with("[[") => name.replace("[[", "").replace("]]", "[]"),
            _ => name.replace(['[', ']'], ""),
        };
        for key in keys_of(section).iter().filter(|key| !elsewhere.contains(&key.as_str())) {
            let place = other(&format!("{name}.{key}"));
            assert!(
                place.is_empty() || rows.iter().any(|(row, _)| *row == place),
                "nobody says whether a reload can change {name}.{key}"
            );
        }
    }
    let mut table = String::from("| key | a reload changes it |\n|---|---|\n");
    for (place, live) in rows {
        writeln!(table, "| `{place}` | {} |", if live { "yes" } else { "no: restart" }).expect("a string");
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reload.md");
    let text = std::fs::read_to_string(&path).expect("docs/reload.md");
    let (head, found) = text.split_once("| key | a reload changes it |").unwrap_or((&text, ""));
    if std::env::var_os("SLUICEGATE_BLESS").is_some() {
        std::fs::write(&path, format!("{head}{table}")).expect("docs/reload.md");
        return;
    }
    let found = format!("| key | a reload changes it |{found}");
    assert!(
        found == table,
        "docs/reload.md is out of date: SLUICEGATE_BLESS=1 cargo nextest run --test docs"
    );
}
