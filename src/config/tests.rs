use super::*;

#[test]
fn a_small_file_becomes_a_plan() {
    let text = r#"
[[port]]
device = "net_null0"
"#;
    let plan = load_text("t.toml", text, Path::new(""), &Overrides::default(), &Options::default()).unwrap();
    assert_eq!(plan.ports[0].device, "net_null0");
}
