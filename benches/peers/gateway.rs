//! The gateway beside testpmd: plain frames come in by both legs, go to a target in envelopes, come back from it, and leave by the other legs.
//!
//! The target is a ring (`net_ring`) that gives back what it gets, which passes for an appliance's return because the target's address is the gateway's own. So
//! of all frames that are received and sent half come from captures by net_pcap, which copies each, as all of testpmd's do; the other half come from the
//! ring, which copies none. Both directions of every flow are in the captures, one for each leg.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use sluicegate::dpdk::soft::pcap::Writer;

use crate::live::{Live, Tongue};
use crate::machine::Machine;
use crate::report::{self, Row, Table};
use crate::{LEAST_SENT, Options, SETTLE, WORKING_BUFFERS, gate, testpmd};

/// Flows, and frames in each capture.
const FLOWS: u32 = 1 << 16;
/// Two captures' worth of buffers in one piece: on ordinary pages the formula leaves no room for pieces that do not fit.
const MEMORY_MB: u32 = 1024;
/// Bytes of a packet, and of its frame.
const PACKET: u8 = 64;
const FRAME: usize = 14 + PACKET as usize;

/// The whole table, or nothing if none of its rows is wanted.
pub fn measure(options: &Options, machine: &Machine, folder: &Path) -> Result<Option<Table>, String> {
    let names = [report::IO, report::GATEWAY].into_iter().filter(|name| options.wants(name));
    let mut programs = Vec::new();
    for name in names {
        eprintln!("bench: {}: starting {name}", report::FORWARDING);
        programs.push((start(name, machine, folder)?, Row::new(name)));
    }
    if programs.is_empty() {
        return Ok(None);
    }
    for (program, _) in &mut programs {
        program.window(SETTLE)?;
    }
    let window = Duration::from_secs_f64(options.seconds);
    for round in 1..=options.windows {
        eprintln!("bench: {}: window {round} of {}", report::FORWARDING, options.windows);
        for (program, row) in &mut programs {
            row.add(&program.window(window)?);
        }
    }
    let mut rows = Vec::new();
    for (program, row) in programs {
        let last = program.end()?;
        let trouble = |trouble| format!("{}: {trouble}", row.program);
        if (row.sent as f64) < row.received as f64 * LEAST_SENT {
            return Err(trouble(format!("sent {} of {} packets", row.sent, row.received)));
        }
        if row.program == report::GATEWAY {
            gate::verify(&last, 0.0).map_err(trouble)?;
            gate::live(&last, u64::from(FLOWS)).map_err(trouble)?;
        }
        rows.push(row);
    }
    Ok(Some(Table { capture: report::FORWARDING.into(), rows, frame: FRAME as f64, note: None }))
}

fn start(name: &str, machine: &Machine, folder: &Path) -> Result<Live, String> {
    let leg = |n: u8, back: bool| -> Result<String, String> {
        let file = capture(&folder.join(format!("leg{n}.pcap")), back)?;
        Ok(format!("net_pcap{n},rx_pcap={},infinite_rx=1", file.display()))
    };
    if name == report::IO {
        return testpmd(name, "io", false, machine, &leg(0, false)?, FLOWS + WORKING_BUFFERS);
    }
    let memory = if machine.hugepages { "in-memory" } else { "no-huge" };
    let text = format!(
        r#"
[eal]
memory = "{memory}"
memory_mb = {}
lcores = {:?}
idle = "spin"
burst = 32
extra_buffers = {}

[[port]]
name = "wan"
device = "{}"
rx_descriptors = 512
tx_descriptors = 512
mtu = 1500
[[port]]
name = "lan"
device = "{}"
rx_descriptors = 512
tx_descriptors = 512
mtu = 1500
[[port]]
name = "targets"
device = "net_ring0"
mtu = 1600

[gateway]
port = "targets"
address = "10.254.11.107/24"

[flow]
capacity = {}

[[endpoint]]
id = "vpce-0123456789abcdef0"
legs = ["wan", "lan"]

[[target]]
address = "10.254.11.107"
mac = "02:00:00:00:01:07"
"#,
        MEMORY_MB,
        [machine.main_cpu, machine.worker_cpu],
        2 * FLOWS + WORKING_BUFFERS,
        leg(0, false)?,
        leg(1, true)?,
        2 * FLOWS,
    );
    let path = folder.join("gateway.toml");
    std::fs::write(&path, text).map_err(|e| format!("{}: {e}", path.display()))?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluicegate"));
    command.arg("gateway").arg(path).args(["--json", "--stats-interval", "250ms"]);
    Live::start(name, Tongue::Sluicegate, &mut command, "", 1)
}

/// A frame of each flow, from clients to servers or back: UDP over IPv4 with as many clients, ports and servers as the other captures have.
fn capture(path: &Path, back: bool) -> Result<PathBuf, String> {
    let trouble = |e| format!("{}: {e}", path.display());
    let mut writer = Writer::create(path).map_err(trouble)?;
    for flow in 0..FLOWS {
        let [_, _, high, low] = flow.to_be_bytes();
        let (client, server) = ([10, 0, high & 0x3f, low], [172, 16, high >> 6, low ^ 0x5a]);
        let (client_port, server_port) = ((10_000 + flow % 4099) as u16, 7000 + u16::from(high));
        let mut frame = vec![2, 0, 0, 0, 2, 1 + u8::from(!back), 2, 0, 0, 0, 2, 1 + u8::from(back), 8, 0];
        frame.extend([0x45, 0, 0, PACKET, 0, 0, 0, 0, 64, 17, 0, 0]);
        let ends = if back {
            [(server, server_port), (client, client_port)]
        } else {
            [(client, client_port), (server, server_port)]
        };
        ends.iter().for_each(|(address, _)| frame.extend(address));
        ends.iter().for_each(|(_, port)| frame.extend(port.to_be_bytes()));
        frame.extend([0, PACKET - 20, 0, 0]);
        frame.resize(FRAME, low);
        writer.write(1_000_000_000 + u64::from(flow) * 1_000, &frame).map_err(trouble)?;
    }
    writer.finish().map_err(trouble)?;
    Ok(path.into())
}
