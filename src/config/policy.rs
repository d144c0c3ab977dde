//! A hash of what decides about packets, to compare appliances of a fleet by: `sluicegate_policy_info`, `check`.
//!
//! In it: the tunnel's profile and checks, flows, streams, tenants, and the stages in their order, with the contents of all files that they
//! name. Not in it: where an appliance stands and how large it is (ports, lcores, memory, addresses, allowed sources, rings),
//! who manages it and what it tells. Comments, the order of keys and where a value was given make no difference. A stage's settings go in as they are written,
//! since only its kind knows its defaults.

use config::{Value, ValueKind};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::Plan;

/// Hexadecimal digits of a policy's hash: 64 bits, enough to tell a fleet's apart and short enough to read.
const DIGITS: usize = 16;
/// What `[flow]` says of the size of a machine.
const OF_THE_MACHINE: [&str; 4] = ["per_worker", "bytes_per_worker", "handoff_ring", "events_ring"];

/// The digest of a file.
pub(super) fn digest(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// A stage's part.
pub(super) fn of_stage(settings: &Value, files: Vec<String>) -> serde_json::Value {
    json!({ "settings": plain(settings), "files": files })
}

/// The hash of a plan. `tenants` is what the file says of tenants, and the digest of their own file.
pub(super) fn hash(plan: &Plan, tenants: serde_json::Value) -> String {
    let mut flow = plan.flow.to_json();
    if let Some(flow) = flow.as_object_mut() {
        flow.retain(|key, _| !OF_THE_MACHINE.contains(&key.as_str()));
    }
    let stages = plan.stages.iter().map(|stage| {
        json!({
            "use": stage.kind.name,
            "name": stage.name,
            "pipelines": stage.pipelines,
            "mode": stage.mode,
            "on_error": stage.on_error,
            "on_unread": stage.on_unread,
            "policy": stage.policy,
        })
    });
    let tunnel = &plan.tunnel;
    let policy = json!({
        "tunnel": {
            "profile": tunnel.profile.name,
            "port": tunnel.port,
            "verify_checksum": tunnel.verify_checksum,
            "max_return": tunnel.max_return,
        },
        "flow": flow,
        "stream": plan.stream.to_json(),
        "tenants": tenants,
        "stages": stages.collect::<Vec<_>>(),
    });
    // Keys are in their order: serde_json keeps objects sorted.
    let mut hash = digest(policy.to_string().as_bytes());
    hash.truncate(DIGITS);
    hash
}

/// The tables of tenants, and the digest of the file that has more.
pub(super) fn of_tenants(root: &Value, file: Option<String>) -> serde_json::Value {
    let table = |name: &str| match &root.kind {
        ValueKind::Table(table) => table.get(name).map(plain),
        _ => None,
    };
    let mut tenants = table("tenants");
    if let Some(tenants) = tenants.as_mut().and_then(serde_json::Value::as_object_mut) {
        tenants.remove("file");
    }
    json!({ "tenant": table("tenant"), "tenants": tenants, "file": file })
}

/// A value without where it came from.
fn plain(value: &Value) -> serde_json::Value {
    match &value.kind {
        ValueKind::Nil => serde_json::Value::Null,
        ValueKind::Boolean(is) => json!(is),
        ValueKind::I64(n) => json!(n),
        ValueKind::I128(n) => json!(n.to_string()),
        ValueKind::U64(n) => json!(n),
        ValueKind::U128(n) => json!(n.to_string()),
        ValueKind::Float(x) => json!(x),
        ValueKind::String(text) => json!(text),
        ValueKind::Table(table) => table.iter().map(|(key, value)| (key.clone(), plain(value))).collect(),
        ValueKind::Array(list) => list.iter().map(plain).collect(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::{Options, Overrides, load_text};

    fn hash_in(folder: &Path, text: &str, sets: &[&str]) -> String {
        let options = Options { need_ports: false, ..Options::default() };
        let sets = sets.iter().map(|set| (*set).to_owned()).collect();
        let overrides = Overrides { environment: Vec::new(), sets };
        let plan = load_text("t.toml", text, folder, &overrides, &options);
        plan.unwrap_or_else(|problems| panic!("{}", problems[0])).policy
    }

    const POLICY: &str = "[tunnel]\nallowed_sources = [\"10.0.0.0/24\"]\n[flow]\ntracking = true\n\
        [[tenant]]\nname = \"a\"\nendpoints = [\"7\"]\n\
        [[stage]]\nuse = \"acl\"\nrules = \"edge.csv\"\n";

    /// What decides about packets changes the hash, and nothing else does.
    #[test]
    fn the_hash_tells_policies_apart() {
        let folder = tempfile::tempdir().unwrap();
        let rules = |text: &str| std::fs::write(folder.path().join("edge.csv"), text).unwrap();
        rules("action,protocol\nallow,tcp\n");
        let hash = |text: &str, sets: &[&str]| hash_in(folder.path(), text, sets);
        let usual = hash(POLICY, &[]);
        assert!(usual.len() == 16 && usual.bytes().all(|b| b.is_ascii_hexdigit()), "{usual}");
        assert_eq!(hash(POLICY, &[]), usual);

        let same = [
            POLICY.replace("10.0.0.0/24", "10.9.0.0/16"),
            POLICY.replace("[[tenant]]\n", "# a comment\n\n[[tenant]]\n"),
            POLICY.replace("name = \"a\"\nendpoints = [\"7\"]", "endpoints = [\"7\"]\nname = \"a\""),
            format!("[eal]\nburst = 16\n[metrics]\nmax_tenants = 7\n{POLICY}"),
            POLICY.replace("tracking = true", "tracking = true\nhandoff_ring = 2048\ntcp_idle = \"350s\""),
        ];
        for text in same {
            assert_eq!(hash(&text, &[]), usual, "{text}");
        }
        let others = [
            hash(&POLICY.replace("endpoints = [\"7\"]", "endpoints = [\"8\"]"), &[]),
            hash(&POLICY.replace("tracking = true", "tracking = true\ntcp_idle = \"351s\""), &[]),
            hash(&format!("{POLICY}default = \"allow\"\n"), &[]),
            hash(&format!("{POLICY}on_error = \"pass\"\n"), &[]),
            hash(&format!("{POLICY}name = \"edge\"\n"), &[]),
            hash(&format!("{POLICY}[[stage]]\nuse = \"count\"\n"), &[]),
            hash(POLICY, &["tunnel.verify_checksum=never"]),
            {
                rules("action,protocol\nallow,udp\n");
                hash(POLICY, &[])
            },
        ];
        let all: std::collections::BTreeSet<&String> = others.iter().chain([&usual]).collect();
        assert_eq!(all.len(), others.len() + 1, "{others:?}");
        rules("action,protocol\nallow,tcp\n");
        assert_eq!(hash(POLICY, &[]), usual);
    }

    #[test]
    fn a_file_of_tenants_goes_in_by_what_it_holds() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write("one.csv", "name,endpoint\na,7\n");
        write("two.csv", "name,endpoint\na,7\n");
        let hash = |name: &str| {
            let text =
                format!("[tunnel]\nallowed_sources = [\"10.0.0.0/24\"]\n[tenants]\nfile = \"{name}\"\n");
            hash_in(folder.path(), &text, &[])
        };
        let one = hash("one.csv");
        assert_eq!(one, hash("two.csv"));
        write("two.csv", "name,endpoint\na,8\n");
        assert_ne!(one, hash("two.csv"));
    }
}
