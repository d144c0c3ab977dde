//! A stage of one's own in a program of one's own: drops packets that are about to expire.
//!
//! ```toml
//! [[stage]]
//! use = "ttl"
//! least = 2
//! ```
//!
//! Place on the path: any place in the pipeline. Assumes that decap has checked the inner IP header. Promises: a packet
//! with fewer hops left than `least` is dropped as `ttl.expired`; nothing else is touched. It never settles a flow: hops are each
//! packet's own, so it must see them all.
//!
//! `cargo run --example ttl` sends three frames through it on a soft port; a program for real ports calls `App::start`
//! instead of `App::start_on`, or `sluicegate::cli` for the whole command line.

use std::sync::Arc;

use serde::Deserialize;

use sluicegate::config::Settings;
use sluicegate::dpdk::Error;
use sluicegate::packet::{Packet, Verdict};
use sluicegate::stage::{
    Backend, Cx, Inspect, Make, ParseResult, Parsed, PerPacket, Shared, Stage, StageKind,
};

/// The kind, as a pipeline file names it.
pub const KIND: StageKind = StageKind {
    name: "ttl",
    summary: "drops packets that are about to expire",
    help: "least    hops that a packet must have left, 1 to 255 (2)\n",
    example: "[[stage]]\nuse = \"ttl\"\nleast = 2\n",
    reasons: &[("expired", "Fewer hops are left than the setting `least` asks for.")],
    parse,
};

/// Number of the reason in [`KIND`].
const EXPIRED: usize = 0;
/// Where IPv4 has its TTL, and IPv6 its hop limit.
const TTL_V4: usize = 8;
const TTL_V6: usize = 7;

/// What the file says. Keys that are not here are mistakes.
#[derive(Debug, Deserialize)]
#[serde(default)]
struct Table {
    least: u8,
}

impl Default for Table {
    fn default() -> Self {
        Table { least: 2 }
    }
}

/// Settings that were found right.
#[derive(Clone, Copy, Debug)]
struct Ttl {
    least: u8,
}

fn parse(settings: &Settings<'_>) -> ParseResult {
    let table: Table = settings.read()?;
    if table.least == 0 {
        let problem = settings.problem("least", "0 would drop nothing", "use 1 to 255");
        return Err(vec![problem]);
    }
    Ok(Box::new(Ttl { least: table.least }))
}

impl Parsed for Ttl {
    /// Nothing heavy to build: the settings are all that workers share.
    fn build(&self, _backend: Backend) -> Result<Arc<dyn Shared>, Error> {
        Ok(Arc::new(*self))
    }
}

impl Shared for Ttl {
    fn make(&self, _make: &Make) -> Box<dyn Stage> {
        Box::new(PerPacket(*self))
    }
}

impl Inspect for Ttl {
    fn inspect(&mut self, packet: &mut Packet<'_>, cx: &mut Cx<'_>) -> Verdict {
        let at = if packet.meta().is_ipv6() { TTL_V6 } else { TTL_V4 };
        match packet.inner().get(at) {
            Some(ttl) if *ttl >= self.least => Verdict::Next,
            _ => Verdict::Drop(cx.reason(EXPIRED)),
        }
    }
}

#[allow(dead_code, clippy::print_stdout, reason = "a test takes the stage without the program")]
fn main() -> Result<(), String> {
    use sluicegate::App;
    use sluicegate::app::Host;
    use sluicegate::config::{self, Options, Overrides};
    use sluicegate::dpdk::{Mempool, soft};
    use sluicegate::path::Clock;
    use sluicegate::traffic::{Envelope, wrap};

    let options = Options { need_ports: false, kinds: &[&KIND], ..Options::default() };
    let plan = config::load_text("ttl.toml", KIND.example, "".as_ref(), &Overrides::default(), &options);
    let plan = plan.map_err(|problems| problems.iter().map(|p| format!("{p}\n")).collect::<String>())?;
    let pool = Mempool::soft(&plan.pool.config);
    let (port, wire) = soft::Port::new();
    let app = App::new(plan).start_on(Host::Threads, vec![port], pool, Clock::cycles());
    let app = app.map_err(|e| e.to_string())?;

    for ttl in [64, 2, 1] {
        let mut packet = [0; 28]; // IPv4 and an empty UDP datagram
        packet[0] = 0x45;
        packet[3] = 28;
        packet[TTL_V4] = ttl;
        packet[9] = 17;
        packet[25] = 8;
        wire.send(wrap(&packet, &Envelope::default()).ok_or("too long")?);
    }
    while app.snapshot().ledger().received < 3 {
        std::thread::yield_now();
    }
    let report = app.stop();
    println!("{}", report.snapshot.ledger());
    for (reason, help, packets) in report.drops() {
        println!("{reason}: {packets} ({help})");
    }
    Ok(())
}
