//! A stage from outside the crate: it is configured, runs, drops and reports like one of ours.

mod common;
#[path = "../examples/ttl.rs"]
mod ttl;

use std::path::Path;
use std::sync::Arc;

use sluicegate::config::{self, Settings};
use sluicegate::dpdk::{Error, PoolConfig};
use sluicegate::packet::{Packet, Verdict};
use sluicegate::stage::{
    Backend, Cx, Inspect, Make, ParseResult, Parsed, PerPacket, Shared, Stage, StageKind,
};
use sluicegate::traffic::{Envelope, wrap};

use common::{Fate, Rig, TUNNEL, plan_with, pool_config};

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

/// Puts bytes behind every packet, and looks at nothing if there are none to put.
static GROW: StageKind = StageKind {
    name: "grow",
    summary: "for tests",
    help: "",
    example: "",
    reasons: &[],
    parse: |settings: &Settings<'_>| -> ParseResult { Ok(Box::new(settings.read::<Grow>()?)) },
};

#[derive(Clone, Copy, Debug, serde::Deserialize)]
struct Grow {
    bytes: usize,
}

impl Parsed for Grow {
    fn build(&self, _: Backend) -> Result<Arc<dyn Shared>, Error> {
        Ok(Arc::new(*self))
    }
}

impl Shared for Grow {
    fn make(&self, _: &Make) -> Box<dyn Stage> {
        Box::new(PerPacket(*self))
    }
}

impl Inspect for Grow {
    fn inspect(&mut self, packet: &mut Packet<'_>, _: &mut Cx<'_>) -> Verdict {
        let len = packet.inner().len() + self.bytes;
        assert!(self.bytes == 0 || packet.resize(len), "the buffer has room");
        Verdict::Next
    }
}

/// The load balancer would take 8500 bytes, and the buffers hold some more than the MTU of the port; the port sends no more than that.
#[test]
fn what_a_stage_makes_too_long_for_the_port_is_dropped() {
    const MTU: usize = 2016; // of a rig whose buffers hold 2048 bytes
    const AROUND: usize = 68; // outer IP, UDP, GENEVE and three options
    let packet = |outer: usize| {
        let mut packet = v4(64);
        packet.resize(outer - AROUND, 0);
        let len = packet.len() as u16;
        packet[2..4].copy_from_slice(&len.to_be_bytes());
        packet[24..26].copy_from_slice(&(len - 20).to_be_bytes());
        wrap(&packet, &Envelope::default()).expect("a packet that fits")
    };
    let fate = |bytes: usize, frame: &[u8]| {
        let plan = plan_with(&format!("{TUNNEL}[[stage]]\nuse = \"grow\"\nbytes = {bytes}\n"), &[&GROW]);
        let pool = PoolConfig { data_room: 2048, ..pool_config(64) };
        Rig::with_pool(&plan, &pool).fate(frame)
    };
    let home = |fate: Fate| match fate {
        Fate::Home(bytes) => Ok(bytes.len()),
        other => Err(other),
    };
    let too_big = Err(Fate::Dropped("too_big".into()));
    assert_eq!(home(fate(4, &packet(MTU - 4))), Ok(14 + MTU), "as long as the port allows");
    assert_eq!(home(fate(4, &packet(MTU - 3))), too_big, "one byte more");
    assert_eq!(home(fate(1, &packet(MTU))), too_big);
    // A tag does not count.
    let mut tagged = packet(MTU - 4);
    tagged.splice(12..12, [0x81, 0x00, 0x00, 0x05]);
    assert_eq!(home(fate(4, &tagged)), Ok(18 + MTU));
    let mut tagged = packet(MTU - 3);
    tagged.splice(12..12, [0x81, 0x00, 0x00, 0x05]);
    assert_eq!(home(fate(4, &tagged)), too_big);
    // What came in a little longer than the MTU, as devices let it, and was not changed goes home.
    assert_eq!(home(fate(0, &packet(MTU + 4))), Ok(14 + MTU + 4));
}
