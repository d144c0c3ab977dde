//! Promises that documents make about the code.

use std::fmt::Write as _;
use std::path::Path;

use sluicegate::packet::DropReason;

const HEAD: &str = "# Drop reasons

Every packet that is not sent is counted under exactly one of these. They are the framework's; a stage adds its own as
`stage.reason` (`sluicegate stages NAME` lists them). This table is made from `DropReason` in `src/packet/verdict.rs`, and
a test compares the two: after a change there, run `SLUICEGATE_BLESS=1 cargo nextest run --test docs`.

| label | hop | meaning |
|---|---|---|
";

/// The table in the docs is the list in the code.
#[test]
fn drop_reasons_are_documented() {
    let mut expected = HEAD.to_owned();
    for reason in DropReason::ALL {
        writeln!(expected, "| `{}` | {} | {} |", reason.label(), reason.hop(), reason.help())
            .expect("a string");
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

/// Every key of a configuration file has its line in docs/configuration.md. The loader itself says which there are.
#[test]
fn configuration_keys_are_documented() {
    use sluicegate::config::{Options, Overrides, load_text};
    let document = include_str!("../docs/configuration.md");
    let sections = [
        ("[eal]", "## `[eal]`", 8),
        ("[[port]]", "## `[[port]]`", 11),
        ("[tunnel]", "## `[tunnel]`", 6),
        ("[flow]", "## `[flow]`", 17),
        ("[flow.fragments]", "### `[flow.fragments]`", 5),
        ("[stream]", "## `[stream]`", 11),
        ("[[tenant]]", "## `[[tenant]]`", 4),
        ("[[tenant]]\n[tenant.limits]", "### `[tenant.limits]`", 3),
        ("[tenants]", "## `[tenants]`", 2),
        ("[management]", "## `[management]`", 10),
        ("[management.health]", "### `[management.health]`", 6),
        ("[metrics]", "## `[metrics]`", 1),
        ("[events]", "## `[events]`", 7),
        ("[events.drop]", "### `[events.drop]`", 2),
        ("[events.anomaly]", "### `[events.drop]`", 2),
        ("[[events.sink]]", "### `[[events.sink]]`", 8),
    ];
    for (section, heading, count) in sections {
        let text = format!("{section}\nnot-a-key-of-any-section = 1\n");
        let wrong = load_text("t.toml", &text, Path::new(""), &Overrides::default(), &Options::default())
            .expect_err("an unknown key");
        let remedy = wrong.iter().find_map(|problem| problem.remedy.strip_prefix("known here: "));
        let keys: Vec<&str> = remedy.expect("a list of keys").split(", ").collect();
        assert_eq!(keys.len(), count, "{section} {keys:?}");
        let part = document.split_once(&format!("\n{heading}")).expect(heading).1;
        let part = part.split("\n#").next().unwrap_or(part);
        for key in keys {
            assert!(part.contains(&format!("`{key}`")), "{section} {key} is not in docs/configuration.md");
        }
    }
}
