//! Every pipeline that we ship can be used as it is.

use std::path::{Path, PathBuf};

use sluicegate::config::{Machine, Options, Overrides, load};

fn pipelines() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines");
    let files = std::fs::read_dir(folder).expect("pipelines/").map(|entry| entry.expect("an entry").path());
    let mut files: Vec<PathBuf> =
        files.filter(|path| path.extension().is_some_and(|e| e == "toml")).collect();
    files.sort();
    files
}

/// A pipeline that says it needs a device gets a virtual one in its place.
fn device(text: &str) -> Vec<String> {
    match text.starts_with("# needs a device") {
        true => vec!["port[0].device=net_null0".to_owned()],
        false => Vec::new(),
    }
}

#[test]
fn every_pipeline_makes_a_plan_without_warnings() {
    let options = Options { machine: Machine { cpus: vec![0, 1], worth: 2 }, ..Options::default() };
    let files = pipelines();
    assert!(files.len() >= 5, "{files:?}");
    for file in files {
        let text = std::fs::read_to_string(&file).expect("a pipeline");
        let overrides = Overrides { sets: device(&text), ..Overrides::default() };
        let plan = load(&file, &overrides, &options).unwrap_or_else(|problems| {
            let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
            panic!("{}", problems.join("\n"))
        });
        assert_eq!(plan.warnings, Vec::<String>::new(), "{}", file.display());
        assert_eq!(plan.workers.len(), 1, "{}", file.display());
    }
}
