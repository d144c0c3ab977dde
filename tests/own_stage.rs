//! A stage from outside the crate: it is configured, runs, drops and reports like one of ours.

mod common;
#[path = "../examples/ttl.rs"]
mod ttl;

use std::path::Path;

use sluicegate::config;
use sluicegate::traffic::{Envelope, wrap};

use common::{Fate, Rig, TUNNEL, plan_with};

fn fate(stage: &str, packet: &[u8]) -> Fate {
    let plan = plan_with(&format!("{TUNNEL}{stage}"), &[&ttl::KIND]);
    let frame = wrap(packet, &Envelope::default()).expect("a short packet");
    Rig::new(&plan).fate(&frame)
}

fn v4(ttl: u8) -> Vec<u8> {
    let mut packet = vec![0; 28];
    (packet[0], packet[3], packet[8], packet[9], packet[25]) = (0x45, 28, ttl, 17, 8);
    packet
}

fn v6(hops: u8) -> Vec<u8> {
    let mut packet = vec![0; 48];
    (packet[0], packet[5], packet[6], packet[7], packet[45]) = (0x60, 8, 17, hops, 8);
    packet
}

#[test]
fn it_drops_under_its_own_reason() {
    let expired = Fate::Dropped("ttl.expired".into());
    for packet in [v4(1), v4(0), v6(1)] {
        assert_eq!(fate(ttl::KIND.example, &packet), expired);
    }
    for packet in [v4(2), v4(64), v6(2)] {
        assert!(matches!(fate(ttl::KIND.example, &packet), Fate::Home(_)));
    }
}

#[test]
fn its_settings_are_checked_like_ours() {
    for (text, wrong) in
        [("least = 0", "0 would drop nothing"), ("leest = 3", "leest"), ("least = 256", "256")]
    {
        let problems = config::parse_stage(&ttl::KIND, text, Path::new("")).expect_err(text);
        assert!(problems.iter().any(|p| p.to_string().contains(wrong)), "{text}: {problems:?}");
    }
    assert!(matches!(fate("[[stage]]\nuse = \"ttl\"\nleast = 65\n", &v4(64)), Fate::Dropped(_)));
}
