//! `sluicegate gateway` as a program.
#![cfg(feature = "program")]

use std::process::{Command, Output};

fn simulate(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluicegate"));
    command.args(["gateway", "simulate"]).args(arguments).output().expect("the program runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn each_number_of_targets_meets_each_number_of_gateways() {
    let output = simulate(&["--targets", "10,20", "--gateways", "2,4", "--flows", "20000", "--json"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let rows: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let rows = rows.as_array().expect("a list");
    let asked = |row: &serde_json::Value| {
        (row["question"]["targets"].as_u64().unwrap(), row["question"]["gateways"].as_u64().unwrap())
    };
    assert_eq!(rows.iter().map(asked).collect::<Vec<_>>(), [(10, 2), (10, 4), (20, 2), (20, 4)]);
    for row in rows {
        let (targets, gateways) = asked(row);
        let part = |name: &str| row["answer"][name].as_f64().unwrap();
        // Six standard deviations of 20,000 flows, at most.
        assert!((part("unavoidable") - 1.0 / targets as f64).abs() < 0.013, "{row}");
        assert_eq!(part("unhealthy_moves"), 0.0);
        let reach = &row["answer"]["reach_another"];
        assert!((reach["resilient"].as_f64().unwrap() - 1.0 / gateways as f64).abs() < 0.022, "{row}");
        assert_eq!(row["answer"]["change_target"], serde_json::json!({"plain": 0.0, "resilient": 0.0}));
    }
}

#[test]
fn rows_are_for_documents_or_for_people() {
    let few = ["--targets", "3", "--gateways", "2", "--flows", "1000"];
    let document = text(&simulate(&[&few[..], &["--markdown"]].concat()).stdout);
    let cells: Vec<usize> = document.lines().map(|line| line.matches('|').count()).collect();
    assert_eq!(cells, [12, 12, 12], "{document}");
    let table = text(&simulate(&few).stdout);
    assert!(table.contains("Parts of 1000 flows"), "{table}");
}

#[test]
fn what_cannot_be_simulated_is_said() {
    for (arguments, said) in [
        (["--table", "65536"], "65536: not a prime number"),
        (["--table", "7"], "do not fit"),
        (["--targets", "1"], "1 is not in 2..=1000"),
        (["--targets", "1001"], "1001 is not in 2..=1000"),
        (["--gateways", "65"], "65 is not in 2..=64"),
        (["--table", "4294967291"], "not a prime number up to 5000011"),
    ] {
        let output = simulate(&arguments);
        assert!(!output.status.success(), "{arguments:?}");
        assert!(text(&output.stderr).contains(said), "{arguments:?}: {}", text(&output.stderr));
    }
}
