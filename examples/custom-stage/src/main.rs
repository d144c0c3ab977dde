//! Sluicegate with one more kind of stage, `quota`: a flow that has carried too much is dropped from then on.

use std::process::ExitCode;
use std::sync::Arc;

use serde::Deserialize;
use sluicegate::config::Settings;
use sluicegate::dpdk::Error;
use sluicegate::packet::{Packet, Verdict};
use sluicegate::stage::{
    Backend, Cx, Inspect, Make, ParseResult, Parsed, PerFlow, PerPacket, Shared, Stage, StageKind,
};

static KIND: StageKind = StageKind {
    name: "quota",
    summary: "drops flows that have carried too much",
    help: "kilobytes    of inner packets that a flow may carry, both directions together, at least 1\n",
    example: "[[stage]]\nuse = \"quota\"\nkilobytes = 1000000\n",
    reasons: &[("spent", "The flow has carried what it may.")],
    parse,
};

/// Settings: keys that are not here are refused. They are all that workers share.
#[derive(Clone, Copy, Debug, Deserialize)]
struct Quota {
    kilobytes: u64,
}

fn parse(settings: &Settings<'_>) -> ParseResult {
    let quota: Quota = settings.read()?;
    match quota.kilobytes {
        0 => Err(vec![settings.problem("kilobytes", "0 would drop everything", "use 1 or more")]),
        _ => Ok(Box::new(quota)),
    }
}

impl Parsed for Quota {
    fn wants_flows(&self) -> bool {
        true
    }

    fn flow_state_bytes(&self) -> u64 {
        PerFlow::<u64>::BYTES
    }

    fn build(&self, _: Backend) -> Result<Arc<dyn Shared>, Error> {
        Ok(Arc::new(*self))
    }
}

impl Shared for Quota {
    fn make(&self, make: &Make) -> Box<dyn Stage> {
        Box::new(PerPacket(OnWorker { most: self.kilobytes * 1000, carried: PerFlow::new(make) }))
    }
}

/// The stage on one worker: bytes that each of its flows has carried.
struct OnWorker {
    most: u64,
    carried: PerFlow<u64>,
}

impl Inspect for OnWorker {
    fn inspect(&mut self, packet: &mut Packet<'_>, cx: &mut Cx<'_>) -> Verdict {
        let bytes = packet.inner().len() as u64;
        let Some(carried) = self.carried.of(packet.meta()) else { return Verdict::Next };
        *carried += bytes;
        if *carried <= self.most {
            return Verdict::Next;
        }
        cx.settle(); // What follows of the flow is dropped before it comes here.
        Verdict::Drop(cx.reason(0))
    }
}

fn main() -> ExitCode {
    sluicegate::cli::main_with(&[&KIND])
}
