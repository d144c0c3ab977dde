//! Golden frames on soft ports: each frame alone, then all of a configuration in one stream.

mod common;

use std::collections::BTreeSet;

use sluicegate::dpdk::soft::Setup;
use sluicegate::packet::DropReason;

use common::golden::{Case, cases, groups};
use common::{Fate, Rig, plan, pool_config};

/// Every golden frame meets the fate that its case states, byte for byte.
#[test]
fn golden_frames_meet_their_fate() {
    let mut wrong = Vec::new();
    let mut checked = 0;
    for (table, cases) in groups() {
        let mut rig = Rig::new(&plan(&table));
        for case in cases {
            checked += 1;
            let (found, expected) = (rig.fate(&case.frame), expected(&case));
            if found != expected {
                wrong.push(format!(
                    "{}: {}\n  expected {expected:?}\n  found    {found:?}",
                    case.name, case.why
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {checked} differ\n{}", wrong.len(), wrong.join("\n"));
}

/// The same frames as a stream: full batches of mixed fates, the order of those that come home kept.
#[test]
fn golden_frames_keep_their_order_in_full_batches() {
    for (table, cases) in groups() {
        let mut rig = Rig::new(&plan(&table));
        for case in &cases {
            rig.wire.send(case.frame.clone());
        }
        let mut polled = 0;
        while polled < cases.len() {
            let n = rig.worker.poll();
            assert!(n > 0, "frames are left on the wire");
            polled += n;
            rig.settled();
        }
        let back: Vec<Vec<u8>> = std::iter::from_fn(|| rig.wire.receive()).collect();
        let expected: Vec<&Case> = cases.iter().filter(|c| c.verdict == "home").collect();
        let end = rig.settled();
        assert_eq!(back.len() as u64, expected.len() as u64 + end.answers.made(), "{table}");
        // Answers of our own stand between them.
        let mut home = back.iter();
        for case in expected {
            assert!(home.any(|found| *found == case.back), "{}", case.name);
        }
        let count = |verdict: &str| cases.iter().filter(|c| c.verdict.starts_with(verdict)).count() as u64;
        assert_eq!((end.punted, end.dropped()), (count("punted"), count("dropped")), "{table}");
    }
}

/// A driver that verifies checksums is believed under `auto`: what it calls bad is dropped, and nothing is unknown.
#[test]
fn a_driver_that_knows_checksums_is_believed() {
    let wrong = "udp/checksum-wrong-auto";
    let mut seen = 0;
    for (table, cases) in groups().into_iter().filter(|(table, _)| !table.contains("verify_checksum")) {
        let setup = Setup { checksums: true, ..Setup::default() };
        let mut rig = Rig::over(&plan(&table), &pool_config(64), setup);
        for case in cases {
            let expected = match case.name == wrong {
                true => Fate::Dropped("udp_checksum".into()),
                false => expected(&case),
            };
            assert_eq!(rig.fate(&case.frame), expected, "{}", case.name);
            seen += u32::from(case.name == wrong);
        }
        assert_eq!(rig.settled().checksum_unknown, 0, "{table}");
    }
    assert_eq!(seen, 1);
}

/// A driver that does not know: under `auto` each checksum that nobody looked at is counted.
#[test]
fn unknown_checksums_are_counted_under_auto() {
    let (table, cases) = groups().swap_remove(0);
    let mut rig = Rig::new(&plan(&table));
    for case in cases.iter().filter(|c| c.verdict == "home") {
        let before = rig.settled().checksum_unknown;
        rig.fate(&case.frame);
        let none = case.name == "udp/checksum-zero";
        assert_eq!(rig.settled().checksum_unknown - before, u64::from(!none), "{}", case.name);
    }
}

/// Reasons that no single frame can provoke, and the tests that do.
const NOT_BY_A_FRAME: [(&str, &str, &str); 15] = [
    ("chained", "a_chained_frame_is_dropped_whole", include_str!("golden_eal.rs")),
    ("flow_condemned", "a_condemned_flow_is_dropped_before_the_stages", include_str!("flow.rs")),
    (
        "on_reload",
        "a_flow_from_before_that_nobody_can_judge_is_dropped_if_it_is_to_be",
        include_str!("reload.rs"),
    ),
    (
        "tcp_invalid",
        "segments_outside_the_window_are_dropped_where_that_is_asked_for",
        include_str!("flow.rs"),
    ),
    ("pickup", "a_connection_from_before_is_refused_where_that_is_asked_for", include_str!("flow.rs")),
    ("table_full", "a_full_table_drops_new_flows_where_that_is_asked_for", include_str!("flow.rs")),
    (
        "unknown_endpoint",
        "endpoints_that_nobody_claims_are_dropped_where_that_is_asked_for",
        include_str!("flow.rs"),
    ),
    ("fragment_orphan", "a_fragment_whose_first_never_comes_waits_and_goes", include_str!("flow.rs")),
    ("handoff_full", "a_ring_that_stays_full_loses_what_it_must_and_says_so", include_str!("handoff.rs")),
    ("stream_conflict", "another_copy_does_not_pass", include_str!("streams.rs")),
    ("stream_unread", "fragments_and_what_has_no_flow_go_by_on_unread", include_str!("streams.rs")),
    ("held_again", "what_is_held_need_not_be_sent_again", include_str!("streams.rs")),
    ("stage_panic", "stage_panic_follows_on_error", include_str!("ledger.rs")),
    ("tx_full", "tx_full_is_counted", include_str!("ledger.rs")),
    ("port_reset", "a_parcel_for_a_port_that_is_away_is_counted", include_str!("reset.rs")),
];

/// Every reason is raised: by a golden frame, or by the test named above. Nothing else is a golden verdict.
#[test]
fn every_drop_reason_is_provoked() {
    let mut provoked: BTreeSet<String> =
        cases().iter().filter_map(|c| c.verdict.strip_prefix("dropped ").map(String::from)).collect();
    for (reason, test, source) in NOT_BY_A_FRAME {
        assert!(source.contains(&format!("#[test]\nfn {test}()")), "{reason}: there is no test {test}");
        assert!(provoked.insert(reason.into()), "{reason} is provoked by a golden frame");
    }
    let all: BTreeSet<String> = DropReason::ALL.iter().map(|r| r.label().into()).collect();
    assert_eq!(provoked, all);
}

fn expected(case: &Case) -> Fate {
    match case.verdict.split_once(' ') {
        None if case.verdict == "home" => Fate::Home(case.back.clone()),
        None if case.verdict == "punted" => Fate::Punted,
        Some(("dropped", reason)) => Fate::Dropped(reason.into()),
        _ => panic!("{}: what is {:?}?", case.name, case.verdict),
    }
}
