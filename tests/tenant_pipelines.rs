//! Tenants with pipelines of their own: each packet passes the stages of its tenant's, whatever else is in the batch, with and without a flow,
//! and over reloads.

mod common;

use sluicegate::config::{Options, Overrides, load_text};

use common::inner::{End, tcp, udp, v4, wrap_from};
use common::{Fate, Rig, TUNNEL, plan};

/// Endpoints of the tenants `strict`, `open` and `free`; 9 is nobody's.
const STRICT: u64 = 1;
const OPEN: u64 = 2;
const FREE: u64 = 3;
const NOBODY: u64 = 9;

/// Strict tenants may ask for names only, over no TCP; everybody else may not use port 23; of the free nothing is asked.
const STAGES: &str = r#"
[[tenant]]
name = "strict"
endpoints = [1]
pipeline = "strict"

[[tenant]]
name = "open"
endpoints = [2]

[[tenant]]
name = "free"
endpoints = [3]
pipeline = "none"

[[stage]]
use = "count"
name = "all"
pipelines = ["strict", "default"]

[[stage]]
use = "acl"
name = "no-telnet"
default = "allow"
rule = [{ action = "deny", destination_port = 23, protocol = "tcp" }]

[[stage]]
use = "acl"
name = "strict"
pipelines = ["strict"]
rule = [{ action = "allow", protocol = "udp", destination_port = 53 }]
"#;

fn text(stages: &str) -> String {
    format!("{TUNNEL}{stages}")
}

fn client() -> End {
    v4(10, 1, 0, 5, 40_000)
}

fn server(port: u16) -> End {
    v4(10, 2, 0, 9, port)
}

fn syn(endpoint: u64, port: u16) -> Vec<u8> {
    wrap_from(endpoint, &tcp(client(), server(port), "S", 1, 0, b""), 7, 60_001)
}

fn query(endpoint: u64) -> Vec<u8> {
    wrap_from(endpoint, &udp(client(), server(53), b"question"), 7, 60_001)
}

fn passes(rig: &mut Rig, frame: &[u8]) -> bool {
    matches!(rig.fate(frame), Fate::Home(_))
}

fn dropped(why: &str) -> Fate {
    Fate::Dropped(why.into())
}

/// Packets that each stage was shown.
fn seen(rig: &Rig) -> Vec<u64> {
    rig.settled().stages.iter().map(|stage| stage.seen).collect()
}

/// The same addresses and ports, four tenants, four answers.
#[test]
fn each_tenant_passes_its_own_stages() {
    let mut rig = Rig::new(&plan(&text(STAGES)));
    for (endpoint, web, telnet) in [
        (STRICT, "strict.default_deny", "strict.default_deny"),
        (OPEN, "", "no-telnet.deny"),
        (FREE, "", ""),
        (NOBODY, "", "no-telnet.deny"),
    ] {
        assert!(passes(&mut rig, &query(endpoint)), "{endpoint}");
        for (port, why) in [(80, web), (23, telnet)] {
            let fate = rig.fate(&syn(endpoint, port));
            match why {
                "" => assert!(matches!(fate, Fate::Home(_)), "{endpoint}, {port}: {fate:?}"),
                why => assert_eq!(fate, dropped(why), "{endpoint}, {port}"),
            }
        }
    }
    // `free` is shown to nobody; `count` never settles; of each flow `acl` is asked once.
    assert_eq!(seen(&rig), [9, 6, 3]);
    assert!(passes(&mut rig, &query(STRICT)) && passes(&mut rig, &query(FREE)));
    assert_eq!(seen(&rig), [10, 6, 3]);
}

/// All in one batch.
#[test]
fn tenants_are_kept_apart_within_a_batch() {
    let mut rig = Rig::new(&plan(&text(STAGES)));
    for _ in 0..2 {
        for endpoint in [FREE, STRICT, OPEN, NOBODY, STRICT] {
            for port in [80, 23] {
                rig.wire.send(syn(endpoint, port));
            }
        }
    }
    while rig.worker.poll() > 0 {}
    let home = std::iter::from_fn(|| rig.wire.receive()).count();
    // free: 2, open and nobody: 1 each; twice.
    assert_eq!(home, 8);
    rig.settled();
}

/// Where a flow has no room, packets without a flow pass their tenant's stages all the same.
#[test]
fn packets_without_a_flow_pass_their_tenants_stages() {
    let slow = "limits = { new_flows_per_s = 1 }\n";
    let full = STAGES.replace("endpoints = [", &format!("{slow}endpoints = ["));
    let full = format!("[flow]\nwhen_full = \"stateless\"\n{full}");
    let mut rig = Rig::new(&plan(&text(&full)));
    let mut stateless = 0;
    for n in 0..2000u16 {
        let packet = |endpoint: u64, port: u16| {
            let from = v4(10, 3, (n >> 8) as u8, n as u8, 40_000);
            wrap_from(endpoint, &udp(from, server(port), b"x"), 7, 60_001)
        };
        assert_eq!(rig.fate(&packet(STRICT, 80)), dropped("strict.default_deny"), "{n}");
        assert!(passes(&mut rig, &packet(OPEN, 80)), "{n}");
        assert!(passes(&mut rig, &packet(FREE, 23)), "{n}");
        stateless = rig.settled().flows.stateless;
    }
    assert!(stateless > 5000, "{stateless}: nobody may open so many flows");
    let counted = seen(&rig);
    assert_eq!((counted[0], counted[2]), (4000, 2000), "{counted:?}");
}

/// A reload can give a tenant another pipeline: its flows ask the stages that are new to them, and what a stage said that is not theirs any more
/// does not count.
#[test]
fn a_tenant_can_be_given_another_pipeline() {
    let mut rig = Rig::new(&plan(&text(STAGES)));
    let denied = rig.fate(&syn(STRICT, 80));
    assert_eq!(denied, dropped("strict.default_deny"));
    assert!(
        passes(&mut rig, &syn(OPEN, 80))
            && passes(&mut rig, &query(OPEN))
            && passes(&mut rig, &syn(FREE, 23))
    );
    let swapped = STAGES
        .replace("endpoints = [1]\npipeline = \"strict\"", "endpoints = [1]")
        .replace("endpoints = [2]", "endpoints = [2]\npipeline = \"strict\"")
        .replace("pipeline = \"none\"", "pipeline = \"default\"");
    rig.reload(&plan(&text(&swapped)));
    assert!(passes(&mut rig, &syn(STRICT, 80)), "it was dropped by what is not asked any more");
    assert_eq!(rig.fate(&syn(OPEN, 80)), dropped("strict.default_deny"), "it was there before");
    assert!(passes(&mut rig, &query(OPEN)));
    assert_eq!(rig.fate(&syn(FREE, 23)), dropped("no-telnet.deny"));
    rig.reload(&plan(&text(STAGES)));
    assert_eq!(rig.fate(&syn(STRICT, 80)), dropped("strict.default_deny"));
    assert!(passes(&mut rig, &syn(OPEN, 80)) && passes(&mut rig, &syn(FREE, 23)));
}

/// Flows that no stage has to see any more are not open, whichever stages those are.
#[test]
fn settled_flows_are_shown_to_nobody() {
    let stages = STAGES
        .replace("use = \"count\"\nname = \"all\"", "use = \"acl\"\ndefault = \"allow\"\nname = \"all\"");
    let mut rig = Rig::new(&plan(&text(&stages)));
    for _ in 0..5 {
        assert!(
            passes(&mut rig, &query(STRICT))
                && passes(&mut rig, &query(OPEN))
                && passes(&mut rig, &query(FREE))
        );
    }
    assert_eq!(seen(&rig), [2, 1, 1]);
}

#[test]
fn mistakes_have_a_place_and_a_remedy() {
    let problems = |stages: &str| {
        let options = Options { need_ports: false, ..Options::default() };
        let plan = load_text("t.toml", &text(stages), "".as_ref(), &Overrides::default(), &options);
        let all: Vec<String> = match plan {
            Ok(plan) => plan.warnings.iter().map(|w| format!("warning: {w}")).collect(),
            Err(problems) => problems.iter().map(ToString::to_string).collect(),
        };
        all.join("\n")
    };
    let with = |from: &str, to: &str| {
        assert!(STAGES.contains(from));
        problems(&STAGES.replacen(from, to, 1))
    };
    assert_eq!(problems(STAGES), "");
    let said = with("pipeline = \"strict\"", "pipeline = \"strikt\"");
    assert!(
        said.contains(
            "tenant[0].pipeline: no stage is part of a pipeline \"strikt\"; did you mean \"strict\"?"
        ),
        "{said}"
    );
    let said = with("pipelines = [\"strict\"]", "pipelines = [\"none\"]");
    assert!(said.contains("stage[2].pipelines: \"none\" is the pipeline without stages"), "{said}");
    let said = with("pipelines = [\"strict\"]", "pipelines = []");
    assert!(said.contains("stage[2].pipelines: is empty"), "{said}");
    let said = with("pipelines = [\"strict\"]", "pipelines = [\"A b\"]");
    assert!(said.contains("\"A b\" cannot be a name"), "{said}");
    let said = with("pipelines = [\"strict\"]", "pipelines = [\"spare\"]");
    assert_eq!(said, "warning: pipeline \"spare\": no tenant has it");
    let said = problems(&format!(
        "[flow]\ntracking = false\n{}",
        STAGES.replace("use = \"acl\"", "use = \"acl\"\nstateful = false")
    ));
    assert!(said.contains("flow.tracking: is false, but tenants have pipelines of their own"), "{said}");
}
