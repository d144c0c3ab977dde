//! What a worker notices of those who watch it: a million flows, figures scraped each second, `top` and a list of flows open; and nobody.
//!
//! Twice the same program with the same pipeline. The watchers run in the windows of one of them, on the CPU of its management, and each is checked to
//! have seen something in each window.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::gate::{self, Setup};
use crate::live::{Live, Tongue};
use crate::machine::Machine;
use crate::report::{self, Row, Table};
use crate::traffic::Capture;
use crate::{LEAST_SENT, Options, Rules, SETTLE, WORKING_BUFFERS};

/// From one scrape to the next, as Prometheus does it at most.
const SCRAPE: Duration = Duration::from_secs(1);
/// A scrape that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(5);

/// The whole table, or nothing if none of its rows is wanted. `capture` has the frames and `file` is it.
pub fn measure(
    options: &Options,
    machine: &Machine,
    folder: &Path,
    capture: &Capture,
    file: &Path,
) -> Result<Option<Table>, String> {
    let mut programs = Vec::new();
    for name in [report::UNWATCHED, report::WATCHED].into_iter().filter(|name| options.wants(name)) {
        eprintln!("bench: {}: starting {name}", report::WATCHING);
        let (live, place) = start(name, machine, folder, capture, file)?;
        programs.push((live, place, Row::new(name)));
    }
    if programs.is_empty() {
        return Ok(None);
    }
    for (program, ..) in &mut programs {
        program.window(SETTLE)?;
    }
    let window = Duration::from_secs_f64(options.seconds);
    for round in 1..=options.windows {
        eprintln!("bench: {}: window {round} of {}", report::WATCHING, options.windows);
        for (program, place, row) in &mut programs {
            let watchers = match row.program == report::WATCHED {
                true => Some(Watchers::begin(place, machine)?),
                false => None,
            };
            row.add(&program.window(window)?);
            if let Some(seen) = watchers.map(Watchers::end) {
                eprintln!("bench: {}: {}", report::WATCHING, seen?);
            }
        }
    }
    let mut rows = Vec::new();
    for (program, _, row) in programs {
        let last = program.end()?;
        let trouble = |trouble| format!("{}: {trouble}", row.program);
        gate::verify(&last, 0.0).map_err(trouble)?;
        if (row.sent as f64) < row.received as f64 * LEAST_SENT {
            return Err(trouble(format!("sent {} of {} packets", row.sent, row.received)));
        }
        rows.push(row);
    }
    Ok(Some(Table { capture: report::WATCHING.into(), note: None, rows, frame: 0.0 }))
}

/// Where a program answers.
struct Place {
    pipeline: PathBuf,
    address: SocketAddr,
}

fn start(
    name: &str,
    machine: &Machine,
    folder: &Path,
    capture: &Capture,
    file: &Path,
) -> Result<(Live, Place), String> {
    let own = name.replace(", ", "-").replace(' ', "-");
    let setup = Setup {
        name: &own,
        device: &format!("net_pcap0,rx_pcap={},infinite_rx=1", file.display()),
        lcores: &[machine.main_cpu, machine.worker_cpu],
        queues: 1,
        buffers: capture.frames + WORKING_BUFFERS,
        flows: capture.frames,
        rules: Rules::EachFlow(1_000),
    };
    let pipeline = gate::pipeline(folder, machine, &setup)?;
    let trouble = |e: std::io::Error| format!("{}: {e}", pipeline.display());
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
    let address = free.map_err(trouble)?;
    let text = std::fs::read_to_string(&pipeline).map_err(trouble)?;
    let management = format!("\n[management]\nlisten = \"{address}\"\nsocket = \"{own}.sock\"\n");
    std::fs::write(&pipeline, text + &management).map_err(trouble)?;
    let live = Live::start(name, Tongue::Sluicegate, &mut gate::command(&pipeline), "", 1)?;
    Ok((live, Place { pipeline, address }))
}

/// Who watches for the time of a window.
struct Watchers {
    screens: Vec<Screen>,
    scraper: Option<JoinHandle<Result<(), String>>>,
    over: Arc<AtomicBool>,
    scraped: Arc<AtomicU64>,
}

impl Watchers {
    fn begin(place: &Place, machine: &Machine) -> Result<Watchers, String> {
        let program = env!("CARGO_BIN_EXE_sluicegate");
        let file = place.pipeline.display();
        let cpu = machine.main_cpu;
        // A terminal for `top`, as wide as a large one.
        let top = format!(
            "stty cols 200 rows 60; exec taskset -c {cpu} env TERM=xterm-256color {program} top --of {file}"
        );
        let mut terminal = Command::new("script");
        terminal.args(["--quiet", "--flush", "--return", "--command", &top, "/dev/null"]);
        let mut list = Command::new("taskset");
        list.args(["-c", &cpu.to_string(), program, "flows", "--of"]).arg(&place.pipeline);
        list.args(["--sort", "bytes", "--watch"]);
        let screens = vec![Screen::open("top", &mut terminal)?, Screen::open("flows", &mut list)?];
        let (over, scraped) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (address, until, bytes) = (place.address, over.clone(), scraped.clone());
        let scraper = std::thread::spawn(move || {
            while !until.load(Ordering::Relaxed) {
                bytes.fetch_add(scrape(address)?, Ordering::Relaxed);
                std::thread::sleep(SCRAPE);
            }
            Ok(())
        });
        Ok(Watchers { screens, scraper: Some(scraper), over, scraped })
    }

    /// What they have seen; an error if one of them saw nothing. The program stands still by now, so nobody is waited for that waits for it.
    fn end(mut self) -> Result<String, String> {
        self.over.store(true, Ordering::Relaxed);
        let mut seen = Vec::new();
        for screen in &mut self.screens {
            seen.push((screen.name, screen.close()));
        }
        seen.push(("metrics", self.scraped.load(Ordering::Relaxed)));
        if let Some(scraper) = self.scraper.take_if(|scraper| scraper.is_finished()) {
            scraper.join().map_err(|_| "the scraper panicked")??;
        }
        match seen.iter().find(|(_, bytes)| *bytes < 1_000) {
            Some((name, bytes)) => Err(format!("{name} has shown {bytes} bytes")),
            None => Ok(seen
                .iter()
                .map(|(name, bytes)| format!("{name} {bytes} bytes"))
                .collect::<Vec<_>>()
                .join(", ")),
        }
    }
}

/// A program that shows something.
struct Screen {
    name: &'static str,
    child: Child,
    shown: Arc<AtomicU64>,
}

impl Screen {
    fn open(name: &'static str, command: &mut Command) -> Result<Screen, String> {
        let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut child = spawned.map_err(|e| format!("{name}: {:?}: {e}", command.get_program()))?;
        let shown = Arc::new(AtomicU64::new(0));
        if let Some(mut pipe) = child.stdout.take() {
            let shown = shown.clone();
            std::thread::spawn(move || {
                let mut bytes = [0; 16 << 10];
                while let Ok(n @ 1..) = pipe.read(&mut bytes) {
                    shown.fetch_add(n as u64, Ordering::Relaxed);
                }
            });
        }
        Ok(Screen { name, child, shown })
    }

    fn close(&mut self) -> u64 {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.shown.load(Ordering::Relaxed)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.close();
    }
}

/// Bytes of one page of figures, which has to say what flows there are.
fn scrape(address: SocketAddr) -> Result<u64, String> {
    let trouble = |e: std::io::Error| format!("scrape of {address}: {e}");
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).map_err(trouble)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(trouble)?;
    stream
        .write_all(b"GET /metrics HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n")
        .map_err(trouble)?;
    let mut page = String::new();
    stream.read_to_string(&mut page).map_err(trouble)?;
    if page.starts_with("HTTP/1.1 200") && page.contains("sluicegate_flows") {
        return Ok(page.len() as u64);
    }
    Err(format!("scrape of {address}: {}", page.lines().next().unwrap_or("nothing")))
}
