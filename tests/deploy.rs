//! What `deploy/` has for Prometheus and Grafana asks for what is exported.

mod common;

use std::collections::BTreeMap;
use std::path::Path;

use common::promtool::promtool;

/// Rules and dashboard ask for figures that there are, by labels that they have.
#[test]
fn alerts_and_dashboard_ask_for_what_is_exported() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let figures: BTreeMap<String, Vec<&str>> = sluicegate::app::figures()
        .into_iter()
        .flat_map(|figure| {
            let labels = figure.labels.to_vec();
            let ends: &[&str] =
                if figure.kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
            ends.iter().map(|end| (format!("{}{end}", figure.name), labels.clone())).collect::<Vec<_>>()
        })
        .collect();
    let dashboard =
        std::fs::read_to_string(root.join("deploy/grafana/sluicegate.json")).expect("a dashboard");
    let dashboard: serde_json::Value = serde_json::from_str(&dashboard).expect("JSON");
    let mut asked: Vec<(String, String)> = Vec::new();
    let mut ids = std::collections::BTreeSet::new();
    for panel in dashboard["panels"].as_array().expect("panels") {
        assert!(ids.insert(panel["id"].as_u64().expect("an id")), "{panel}");
        let title = panel["title"].as_str().expect("a title");
        let grid = &panel["gridPos"];
        assert!(
            grid["x"].as_u64().zip(grid["w"].as_u64()).is_some_and(|(x, w)| x + w <= 24),
            "{title}: {grid}"
        );
        if panel["type"] == "row" {
            continue;
        }
        assert!(panel["description"].as_str().is_some_and(|text| text.ends_with('.')), "{title}");
        let targets = panel["targets"].as_array().expect("targets");
        assert!(!targets.is_empty(), "{title}");
        for target in targets {
            asked.push((title.to_owned(), target["expr"].as_str().expect("an expression").to_owned()));
        }
    }
    let rules = std::fs::read_to_string(root.join("deploy/prometheus/alerts.yml")).expect("rules");
    let mut alert = String::new();
    for line in rules.lines() {
        if let Some(name) = line.trim().strip_prefix("- alert: ") {
            alert = name.to_owned();
        } else if let Some(expression) = line.trim().strip_prefix("expr: ") {
            asked.push((alert.clone(), expression.to_owned()));
        }
    }
    let alerts = rules.matches("- alert: ").count();
    assert!(alerts >= 12 && alerts == rules.matches("expr: ").count(), "each on a line of its own");
    assert_eq!(alerts, rules.matches("severity: ").count());
    assert_eq!(alerts, rules.matches("summary: ").count());
    let mut used = std::collections::BTreeSet::new();
    for (whose, expression) in &asked {
        let mut found = 0;
        for (at, _) in expression.match_indices("sluicegate_") {
            let rest = &expression[at..];
            let end = rest.find(|c: char| !(c.is_ascii_lowercase() || c == '_')).unwrap_or(rest.len());
            let (name, behind) = rest.split_at(end);
            let labels = figures.get(name).unwrap_or_else(|| panic!("{whose}: {name} is not exported"));
            found += 1;
            used.insert(name.to_owned());
            if let Some(matchers) = behind.strip_prefix('{').and_then(|behind| behind.split('}').next()) {
                for matcher in matchers.split(',') {
                    let label = matcher.split(['=', '!']).next().unwrap_or_default().trim();
                    let known = ["instance", "job", "le"].contains(&label) || labels.contains(&label);
                    assert!(known, "{whose}: {name} has no label {label}");
                }
            }
        }
        assert!(found > 0, "{whose}: {expression}");
        let opened = expression.matches('(').count();
        assert_eq!(opened, expression.matches(')').count(), "{whose}: {expression}");
    }
    assert!(used.len() > 30, "{used:?}");
    // As recording rules, the dashboard's expressions can be read by Prometheus.
    let folder = tempfile::tempdir().expect("a folder");
    let mut recording = "groups:\n- name: dashboard\n  rules:\n".to_owned();
    for (_, expression) in asked.iter().filter(|(_, expression)| expression.contains("$instance")) {
        let plain = expression.replace("$__rate_interval", "5m").replace("$instance", ".*");
        recording += &format!(
            "  - record: a:b\n    expr: {}\n    labels: {{ n: \"{}\" }}\n",
            serde_json::json!(plain),
            recording.len()
        );
    }
    let path = folder.path().join("dashboard.yml");
    std::fs::write(&path, recording).expect("a file");
    promtool(&["check", "rules", &path.display().to_string()], None);
    let file = |name: &str| root.join("deploy/prometheus").join(name).display().to_string();
    promtool(&["check", "rules", &file("alerts.yml")], None);
    promtool(&["test", "rules", &file("alerts-test.yml")], None);
    promtool(&["check", "config", &file("prometheus.yml")], None);
}

/// The unit is one that systemd reads, and that leaves the program little, as systemd counts it.
#[test]
fn the_unit_is_valid_and_tight() {
    let systemd = |args: &[&str]| std::process::Command::new("systemd-analyze").args(args).output();
    let Ok(version) = systemd(&["--version"]) else {
        return common::skipped("the_unit_is_valid_and_tight", "systemd-analyze is not installed");
    };
    assert!(version.status.success());
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("deploy/systemd/sluicegate.service")).expect("a unit");
    let folder = tempfile::tempdir().expect("a folder");
    let unit = folder.path().join("sluicegate.service");
    // `verify` looks for the program.
    std::fs::write(&unit, text.replace("/usr/local/bin/sluicegate", "/bin/true")).expect("a file");
    let unit = unit.to_str().expect("UTF-8");
    let said = |output: std::io::Result<std::process::Output>| {
        let output = output.expect("it runs");
        let text = [&output.stdout[..], &output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&text).into_owned())
    };
    let (is_valid, text) = said(systemd(&["verify", "--man=no", unit]));
    assert!(is_valid && !text.contains("sluicegate.service:"), "{text}");
    let (is_tight, text) = said(systemd(&["security", "--offline=true", "--threshold=45", unit]));
    assert!(is_tight, "{text}");
}
