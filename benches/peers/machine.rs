//! Where the bench runs: CPUs, memory, clock, and what identifies them in a record.

use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use crossbeam::utils::CachePadded;
use sluicegate::dpdk::run_on;

/// What every program of the bench is given, and what a reader must know beside the numbers.
#[derive(Clone, Debug)]
pub struct Machine {
    /// CPU of the main lcore, of the management lcore, and of nothing that is measured.
    pub main_cpu: u32,
    /// CPU of the one forwarding lcore.
    pub worker_cpu: u32,
    /// Free 2 MB pages are enough for every program at once.
    pub hugepages: bool,
    /// Time-stamp counter ticks per second.
    pub tsc_hz: f64,
    /// Name and value of what belongs in a record.
    pub facts: Vec<(&'static str, String)>,
}

impl Machine {
    /// Looks around. `pages` is the number of 2 MB pages that all programs together may take.
    pub fn find(pages: u64) -> Result<Machine, String> {
        let cpus = sluicegate::config::Machine::here().cpus;
        let (Some(&main_cpu), Some(&worker_cpu)) = (cpus.first(), cpus.last()) else {
            return Err("cannot read which CPUs this process may use".into());
        };
        if main_cpu == worker_cpu {
            return Err("needs two CPUs: one forwards, the other keeps out of its way".into());
        }
        let free = number(&read("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages"));
        let hugepages = free >= pages;
        let memory = if hugepages {
            "2 MB hugepages (in-memory), for all programs alike".to_owned()
        } else {
            format!(
                "ordinary pages (no-huge), for all programs alike: {free} of {pages} hugepages are free; about half the speed"
            )
        };
        let facts = vec![
            ("CPU", cpu_name()),
            ("kernel", read("/proc/sys/kernel/osrelease").trim().to_owned()),
            ("DPDK", output("pkg-config", &["--modversion", "libdpdk"])),
            ("revision", output("git", &["describe", "--always", "--dirty", "--abbrev=12"])),
            ("date", output("date", &["-u", "+%F %H:%M UTC"])),
            ("memory", memory),
            ("lcores", format!("forwarding on CPU {worker_cpu}, the rest on CPU {main_cpu}")),
        ];
        Ok(Machine { main_cpu, worker_cpu, hugepages, tsc_hz: tsc_hz(), facts })
    }
}

impl Machine {
    /// Nanoseconds in which a cache line goes from one of the two CPUs to the other and back: the best of ten times a thousand. Tells whether
    /// they share a cache, which under a hypervisor may change from one minute to the next.
    pub fn round_trip(&self) -> f64 {
        const TRIPS: u32 = 1_000;
        let ball = CachePadded::new(AtomicU32::new(0));
        // Odd numbers are this thread's to answer, even ones the other's; it ends at the last.
        let play = |cpu: u32, own: u32| {
            run_on(&[cpu]);
            let mut best = f64::INFINITY;
            for game in 0..10 {
                let begun = Instant::now();
                for trip in 0..TRIPS {
                    let next = (game * TRIPS + trip) * 2 + own;
                    while ball.load(Ordering::Acquire) != next {
                        std::hint::spin_loop();
                    }
                    ball.store(next + 1, Ordering::Release);
                }
                best = best.min(begun.elapsed().as_nanos() as f64 / f64::from(TRIPS));
            }
            best
        };
        std::thread::scope(|scope| {
            let other = scope.spawn(|| play(self.main_cpu, 1));
            let own = scope.spawn(|| play(self.worker_cpu, 0));
            let _ = other.join();
            own.join().unwrap_or(f64::NAN)
        })
    }
}

/// Spins for a tenth of a second: long enough to be right to a few parts in a million.
fn tsc_hz() -> f64 {
    let start = (std::time::Instant::now(), sluicegate::dpdk::cycles());
    while start.0.elapsed().as_millis() < 100 {
        std::hint::spin_loop();
    }
    let ticks = sluicegate::dpdk::cycles() - start.1;
    ticks as f64 / start.0.elapsed().as_secs_f64()
}

fn cpu_name() -> String {
    let text = read("/proc/cpuinfo");
    let field = |name: &str| {
        let line = text.lines().find(|l| l.starts_with(name)).and_then(|l| l.split_once(':'));
        line.map_or_else(|| "?".to_owned(), |(_, v)| v.trim().to_owned())
    };
    format!("{}, family {} model {}", field("model name"), field("cpu family"), field("model\t"))
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn number(text: &str) -> u64 {
    text.trim().parse().unwrap_or(0)
}

fn output(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().ok().filter(|o| o.status.success());
    output.map_or_else(|| "unknown".into(), |o| String::from_utf8_lossy(&o.stdout).trim().to_owned())
}
