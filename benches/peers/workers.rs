//! What a second worker adds, with every flow on the queue of one worker, and with half of the flows on both.
//!
//! Three times the same program over net_pcap with some queues for each worker and a capture for each. All captures have as many frames, and in each lap of a
//! capture every flow comes along twice, however many workers there are: so a worker of any row does as much for its packets, has as many
//! flows, and differs only in what others do beside it. With half of the flows misaligned, each of these has one of its two frames in
//! either capture. So half of its packets come to the worker that does not own it: a quarter of all packets change cores.
//!
//! There are two CPUs and three lcores: the one that manages shares a CPU with a worker. It sleeps, but for four lines of figures a second.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sluicegate::dpdk::soft::pcap::Writer;
use sluicegate::traffic::{MAX_FRAME, Mix, Sizes, Traffic};

use crate::gate::{self, Setup};
use crate::live::{Live, Tongue};
use crate::machine::Machine;
use crate::report::{self, Row, Table};
use crate::{LEAST_SENT, Options, Rules, SETTLE, WORKING_BUFFERS};

/// Flows of each worker.
const FLOWS: u32 = 1 << 10;

/// Queues of each worker, a capture with twice as many frames as flows for each. net_pcap keeps what it knows of its queues in one array of
/// structures of 4,240 bytes, so that for two of four neighbours the pointer that one reads for each packet lies in the line in which the other
/// counts. With four queues for each worker, the fourth and the fifth are not such neighbours, and no line of the driver is shared.
pub const QUEUES: u32 = 4;

/// Share of the packets that may be lost between workers. A worker whose CPU does something else for longer than 10 ms, as happens where
/// the manager and this bench share it, is not waited for.
const MOST_LOST: f64 = 0.001;

/// Who gets which frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spread {
    /// A flow's frames come to one queue.
    Aligned,
    /// Half of all flows have every other frame on the other queue.
    HalfMisaligned,
}

const CASES: [(&str, u32, Spread); 3] = [
    (report::ONE_WORKER, 1, Spread::Aligned),
    (report::TWO_WORKERS, 2, Spread::Aligned),
    (report::MISALIGNED, 2, Spread::HalfMisaligned),
];

/// The whole table, or nothing if none of its rows is wanted.
pub fn measure(options: &Options, machine: &Machine, folder: &Path) -> Result<Option<Table>, String> {
    let mut programs = Vec::new();
    for (name, workers, spread) in CASES.into_iter().filter(|(name, ..)| options.wants(name)) {
        eprintln!("bench: {}: starting {name}", report::WORKERS);
        programs.push((workers, spread, start(name, workers, spread, machine, folder)?, Row::new(name)));
    }
    if programs.is_empty() {
        return Ok(None);
    }
    // Flows settle, and no window shows how.
    for (_, _, program, _) in &mut programs {
        program.window(SETTLE)?;
    }
    let window = Duration::from_secs_f64(options.seconds);
    for round in 1..=options.windows {
        eprintln!("bench: {}: window {round} of {}", report::WORKERS, options.windows);
        for (_, _, program, row) in &mut programs {
            row.add(&program.window(window)?);
            row.round_trips.push(machine.round_trip());
        }
    }
    let mut rows = Vec::new();
    for (workers, spread, program, row) in programs {
        let last = program.end()?;
        let trouble = |trouble| format!("{}: {trouble}", row.program);
        let handed = gate::handed(&last, workers as usize).map_err(trouble)?;
        eprintln!(
            "bench: {}: {:.1?} Mpps; core {:.2?}; round trip {:.0?} ns; handed on {handed:.4?}",
            row.program, row.mpps, row.shares, row.round_trips
        );
        if (row.sent as f64) < row.received as f64 * LEAST_SENT {
            return Err(trouble(format!("sent {} of {} packets", row.sent, row.received)));
        }
        let right = |part: &f64| match spread {
            // Flows for which the directory has no place live with whom their hash names; at half its capacity one in 10,000.
            Spread::Aligned => *part < 0.002,
            // Who owns how many is decided in the first moments, by who sees them first: both each half of them, or one all. It is a
            // quarter of all packets in any case.
            Spread::HalfMisaligned => *part < 0.52,
        };
        let all = handed.iter().sum::<f64>() / handed.len() as f64;
        if !handed.iter().all(right) || (spread == Spread::HalfMisaligned && (all - 0.25).abs() > 0.02) {
            return Err(trouble(format!("its workers handed on {handed:.4?} of what they received")));
        }
        gate::verify(&last, if workers > 1 { MOST_LOST } else { 0.0 }).map_err(trouble)?;
        rows.push(row);
    }
    Ok(Some(Table { capture: report::WORKERS.into(), note: None, rows, frame: 0.0 }))
}

fn start(name: &str, workers: u32, spread: Spread, machine: &Machine, folder: &Path) -> Result<Live, String> {
    // A device's arguments are separated by commas.
    let own = name.replace(", ", "-").replace(' ', "-");
    let mut device = String::from("net_pcap0");
    for queue in 0..workers * QUEUES {
        let path = capture(&folder.join(format!("{own}-{queue}.pcap")), spread, queue)?;
        device += &format!(",rx_pcap={}", path.display());
    }
    // The worker that is alone with its CPU first: the thread that launches them is then on its way to the other.
    let (main, worker) = (machine.main_cpu, machine.worker_cpu);
    let setup = Setup {
        name: &own,
        device: &(device + ",infinite_rx=1"),
        lcores: &[main, worker, main][..workers as usize + 1],
        queues: workers * QUEUES,
        buffers: workers * 2 * FLOWS + WORKING_BUFFERS,
        flows: workers * FLOWS * 2,
        rules: Rules::EachFlow(1_000),
    };
    let command = &mut gate::command(&gate::pipeline(folder, machine, &setup)?);
    Live::start(name, Tongue::Sluicegate, command, "", workers as usize)
}

/// Writes the capture of one queue. Flows 0 to FLOWS are the first worker's, the rest the second's.
fn capture(path: &Path, spread: Spread, queue: u32) -> Result<PathBuf, String> {
    let trouble = |e| format!("{}: {e}", path.display());
    let traffic = Traffic::new(&Mix::bench(2 * FLOWS, Sizes::Fixed(64)));
    let mut writer = Writer::create(path).map_err(trouble)?;
    let mut frame = vec![0; MAX_FRAME];
    for (n, (flow, lap)) in (1..).zip(order(spread, queue)) {
        let len = traffic.frame(flow, lap, &mut frame).ok_or("a frame that does not fit")?;
        writer.write(1_000_000_000 + n * 1_000, frame.get(..len).unwrap_or(&[])).map_err(trouble)?;
    }
    writer.finish().map_err(trouble)?;
    Ok(path.into())
}

/// Flow and number of each frame of a queue. The second quarter is of misaligned flows that come here first, the last of those
/// that have come to a queue of the other worker in its second quarter.
fn order(spread: Spread, queue: u32) -> impl Iterator<Item = (u32, u64)> {
    let here = FLOWS / QUEUES;
    let (own, other) = (queue * here, (queue + QUEUES) % (2 * QUEUES) * here);
    let fourth = if spread == Spread::Aligned { own } else { other };
    let quarter = |first: u32, lap: u64| (first..first + here / 2).map(move |flow| (flow, lap));
    let half = here / 2;
    quarter(own, 0).chain(quarter(own + half, 0)).chain(quarter(own, 1)).chain(quarter(fourth + half, 1))
}
