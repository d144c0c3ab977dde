//! The fence over real DPDK: ordinary pages and virtual devices, so that it runs everywhere.
//!
//! DPDK starts once per process, so every test runs in a process of its own: the test starts this program again for
//! itself alone. That holds under `cargo test` and `cargo nextest` alike.
#![cfg(feature = "dpdk")]
#![allow(clippy::print_stderr, reason = "a test that is skipped says so")]

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use pcap_file::pcap::{PcapPacket, PcapReader, PcapWriter};
use sluicegate::dpdk::eal::{self, Eal};
use sluicegate::dpdk::{
    BURST, Burst, Mempool, PoolConfig, Port, PortConfig, QueuePair, RssConfig, RunningPort, RxQueue, TxQueue,
};
use sluicegate::dpdk::{EalPlan, LcorePlan, Memory};

const INSIDE: &str = "SLUICEGATE_TEST_ALONE";

/// Runs `body` in a process of its own and checks that it left nothing in DPDK's directory.
fn alone(test: &str, body: fn()) {
    if std::env::var_os(INSIDE).is_some() {
        return body();
    }
    let program = std::env::current_exe().unwrap();
    let output =
        Command::new(program).args(["--exact", test, "--nocapture"]).env(INSIDE, test).output().unwrap();
    let text =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(output.status.success(), "{test} in its own process:\n{text}");
    assert!(text.contains("1 passed"), "{test} did not run:\n{text}");
    for base in ["/var/run/dpdk", "/tmp/dpdk"] {
        assert!(!Path::new(base).join(prefix(test)).exists(), "{test} left {base}/{}", prefix(test));
    }
}

macro_rules! alone {
    ($(#[doc = $doc:literal] fn $name:ident() $body:block)*) => {$(
        #[doc = $doc]
        #[test]
        fn $name() {
            alone(stringify!($name), || $body);
        }
    )*};
}

fn prefix(test: &str) -> String {
    format!("sluicegate-test-{test}")
}

fn cpu() -> u32 {
    // SAFETY: no precondition.
    let cpu = unsafe { libc::sched_getcpu() };
    cpu as u32
}

/// Two lcores on one CPU, 64 MB of ordinary pages.
fn plan() -> EalPlan {
    let cpu = cpu();
    EalPlan {
        memory: Memory::NoHuge,
        memory_mb: 64,
        file_prefix: prefix(&std::env::var(INSIDE).unwrap()),
        lcores: vec![LcorePlan { lcore: 0, cpu }, LcorePlan { lcore: 1, cpu }],
        args: vec![],
    }
}

fn start(devices: &[&str]) -> Eal {
    let devices: Vec<String> = devices.iter().map(|device| device.to_string()).collect();
    Eal::init(&plan(), &devices).unwrap()
}

fn pool(eal: &Eal, buffers: u32) -> Mempool {
    let config = PoolConfig { name: "test".into(), buffers, data_room: 2048, cache: 0, numa: None };
    eal.pool(&config).unwrap()
}

fn run(port: Port, pool: &Mempool, queues: u16) -> (RunningPort, Vec<QueuePair>) {
    let config = PortConfig { queues, rx_descriptors: 64, tx_descriptors: 64, ..PortConfig::default() };
    port.start(&config, pool).unwrap()
}

fn frame(pool: &Mempool, bytes: &[u8]) -> sluicegate::dpdk::Mbuf {
    let mut frame = pool.alloc().unwrap();
    assert!(frame.write(bytes));
    frame
}

/// A frame of 60 to 1500 bytes that differs from its neighbours.
fn bytes(n: usize) -> Vec<u8> {
    (0..60 + n * 37 % 1441).map(|i| (i * 7 + n * 13) as u8).collect()
}

fn send_all(tx: &mut TxQueue, burst: &mut Burst) {
    let all = burst.len();
    assert_eq!(tx.send(burst), all);
    assert!(burst.is_empty());
}

fn receive_all(rx: &mut RxQueue) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    let mut burst = Burst::new();
    while rx.receive(&mut burst, BURST) > 0 {
        assert_eq!(burst.drop_chained().0, 0);
        frames.extend(burst.drain().map(|frame| frame.data().to_vec()));
    }
    frames
}

alone! {
    /// Without the timer library's set-up this is refused (EINVAL), and ENA's watchdog would never run.
    fn timers_of_drivers_can_be_run() {
        let eal = start(&[]);
        assert_eq!(eal.tick(), Ok(()));
    }

    /// Memory facts, lcores, and the files it leaves (checked by `alone`).
    fn starts_and_ends() {
        let eal = start(&[]);
        assert_eq!(eal.memory().mode, Memory::NoHuge);
        assert!(eal.memory().sentence.contains("half the speed"), "{}", eal.memory().sentence);
        assert_eq!((eal.main_lcore(), eal.workers()), (0, vec![1]));
        assert!(eal.devices().is_empty());
        assert!(eal::version().starts_with("DPDK "), "{}", eal::version());
    }

    /// DPDK starts once per process.
    fn a_second_start_is_refused() {
        drop(start(&[]));
        let text = Eal::init(&plan(), &[]).unwrap_err().to_string();
        assert!(text.starts_with("DPDK was already started in this process"), "{text}");
    }

    /// Every buffer can be out once, comes back once, one by one and in bulk.
    fn a_pool_gives_and_takes() {
        let eal = start(&[]);
        let pool = pool(&eal, 127);
        assert_eq!((pool.capacity(), pool.available(), pool.data_room()), (127, 127, 2048));
        let mut frames: Vec<_> = std::iter::from_fn(|| pool.alloc()).collect();
        assert_eq!((frames.len(), pool.available()), (127, 0));
        let mut first = frames.pop().unwrap();
        assert!(!first.write(&[0; 2049]));
        assert!(first.write(&[1; 2048]));
        assert_eq!((first.len(), first.tailroom(), first.segments()), (2048, 0, 1));
        drop(first);
        assert_eq!(pool.available(), 1);
        let mut burst = Burst::new();
        for frame in frames.drain(..BURST) {
            burst.push(frame).unwrap();
        }
        burst.free();
        assert_eq!(pool.available(), 65);
        drop(frames);
        assert_eq!(pool.available(), 127);
    }

    /// A pool is a stack.
    fn what_was_given_back_last_is_taken_first() {
        let eal = start(&[]);
        let pool = pool(&eal, 64);
        let place = |frame: &sluicegate::dpdk::Mbuf| frame.data().as_ptr() as usize;
        let (first, second) = (pool.alloc().expect("a buffer"), pool.alloc().expect("a buffer"));
        let (at, other) = (place(&first), place(&second));
        drop(second);
        drop(first);
        // Out of a ring, whoever asks goes round all of the pool before he gets these again.
        let again: Vec<_> = (0..2).map(|_| pool.alloc().expect("a buffer")).collect();
        assert_eq!(again.iter().map(place).collect::<Vec<_>>(), [at, other]);
    }

    /// A pool too large for the memory names both.
    fn a_pool_that_does_not_fit_says_what_it_needs() {
        let eal = start(&[]);
        let config = PoolConfig { name: "big".into(), buffers: 100_000, data_room: 9216, cache: 0, numa: None };
        let text = eal.pool(&config).unwrap_err().to_string();
        assert!(text.contains("Cannot allocate memory"), "{text}");
        assert!(text.contains("it needs about 913 MB and the EAL has 64 MB in all"), "{text}");
        let config = PoolConfig { name: "cache".into(), buffers: 100, data_room: 64, cache: 67, numa: None };
        let text = eal.pool(&config).unwrap_err().to_string();
        assert!(text.contains("a cache of 67 buffers per lcore is too large; at most 66"), "{text}");
    }

    /// Buffers that outlive every handle stay valid: the EAL's memory stays with them.
    fn a_buffer_outlives_the_eal() {
        let eal = start(&[]);
        let pool = pool(&eal, 7);
        let kept = frame(&pool, b"still here");
        drop((pool, eal));
        assert_eq!(kept.data(), b"still here");
        drop(kept);
    }

    /// net_null receives endless zeroes and swallows what is sent; it starts again after a stop.
    fn a_null_port_runs_stops_and_runs_again() {
        let eal = start(&["net_null0,size=100"]);
        let pool = pool(&eal, 511);
        let mut port = eal::Port::open(&eal, "net_null0,size=100").unwrap();
        for _ in 0..2 {
            let (running, mut queues) = run(port, &pool, 1);
            let facts = running.facts();
            assert_eq!((facts.driver.as_str(), facts.queues, facts.mtu), ("net_null", 1, 1500));
            let mut burst = Burst::new();
            assert_eq!(queues[0].rx.receive(&mut burst, 32), 32);
            assert_eq!(queues[0].rx.receive(&mut burst, BURST), 32, "no more than there is room for");
            assert!(burst.as_slice().iter().all(|frame| frame.data() == [0; 100]));
            send_all(&mut queues[0].tx, &mut burst);
            let stats = running.stats();
            assert_eq!((stats.rx_packets, stats.tx_packets), (64, 64));
            assert!(running.xstats().contains(&("rx_good_packets".to_string(), 64)));
            assert!(running.link().up);
            assert_eq!(running.events(), Default::default());
            port = running.stop(queues).unwrap();
            assert_eq!(pool.available(), pool.capacity());
        }
    }

    /// The handles must come back, and they must be the right ones.
    fn a_port_stops_only_with_its_own_queues() {
        let eal = start(&["net_null0", "net_null1"]);
        let pool = pool(&eal, 511);
        let (a, mut a_queues) = run(eal::Port::open(&eal, "net_null0").unwrap(), &pool, 2);
        let (b, mut b_queues) = run(eal::Port::open(&eal, "net_null1").unwrap(), &pool, 2);
        assert_eq!((a_queues.len(), b_queues.len()), (2, 2));

        let missing = a_queues.pop().unwrap();
        let refused = a.stop(a_queues).unwrap_err();
        assert!(refused.error.to_string().contains("1 of its 2 queue pairs"), "{}", refused.error);
        let (a, mut a_queues) = (refused.port, refused.queues);
        a_queues.push(missing);

        std::mem::swap(&mut a_queues[0].rx, &mut b_queues[0].rx);
        let refused = a.stop(a_queues).unwrap_err();
        assert!(refused.error.to_string().contains("a queue of another port"), "{}", refused.error);
        let (a, mut a_queues) = (refused.port, refused.queues);
        std::mem::swap(&mut a_queues[0].rx, &mut b_queues[0].rx);

        a.stop(a_queues).unwrap();
        b.stop(b_queues).unwrap();
    }

    /// A device has one owner.
    fn a_device_is_opened_once() {
        let eal = start(&["net_null0"]);
        let port = eal::Port::open(&eal, "net_null0").unwrap();
        let text = eal::Port::open(&eal, "net_null0").unwrap_err().to_string();
        assert!(text.starts_with("net_null0 is open already"), "{text}");
        drop(port);
        eal::Port::open(&eal, "net_null0").unwrap();
    }

    /// A running device stays taken when its port is dropped: whoever opened it again could reset it under its workers.
    fn a_running_device_is_not_opened_again() {
        let eal = start(&["net_null0"]);
        let pool = pool(&eal, 127);
        let (running, mut queues) = run(eal::Port::open(&eal, "net_null0").unwrap(), &pool, 1);
        drop(running);
        let text = eal::Port::open(&eal, "net_null0").unwrap_err().to_string();
        assert!(text.starts_with("net_null0 is open already"), "{text}");
        let mut burst = Burst::new();
        assert_eq!(queues[0].rx.receive(&mut burst, 8), 8);
    }

    /// A value that nobody waits for goes on the lcore, while the EAL is still up: it may hold buffers.
    fn the_eal_outlives_the_values_of_its_lcores() {
        struct Value(std::sync::mpsc::Sender<bool>);
        impl Drop for Value {
            fn drop(&mut self) {
                let _ = self.0.send(Eal::running().is_some());
            }
        }
        let eal = start(&[]);
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let (seen, up) = std::sync::mpsc::channel();
        drop(eal.launch(1, move || (wait.recv(), Value(seen))).unwrap());
        drop(eal);
        go.send(()).unwrap();
        assert_eq!(up.recv(), Ok(true));
        // The lcore has the last handle now and removes the EAL's files.
        let left = || ["/var/run/dpdk", "/tmp/dpdk"].iter().any(|base| Path::new(base).join(plan().file_prefix).exists());
        for _ in 0..5000 {
            if !left() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }

    /// What is not there is named, with what is.
    fn a_device_that_is_not_there_says_what_is() {
        let eal = start(&["net_null0"]);
        let text = eal::Port::open(&eal, "net_tap7,iface=x").unwrap_err().to_string();
        assert!(text.starts_with("open device net_tap7 failed: No such device"), "{text}");
        assert!(text.contains("DPDK has: net_null0"), "{text}");
        let text = eal::Port::open(&eal, "0000:ff:1f.7").unwrap_err().to_string();
        assert!(text.contains("there is no PCI device 0000:ff:1f.7"), "{text}");
    }

    /// A start that fails carries DPDK's own words, and leaves nothing (checked by `alone`).
    fn a_vdev_without_a_driver_stops_the_start() {
        let text = Eal::init(&plan(), &["net_nonsense0".into()]).unwrap_err().to_string();
        assert!(text.starts_with("start DPDK (rte_eal_init) failed: "), "{text}");
        assert!(text.contains("net_nonsense0"), "{text}");
    }

    /// A device that its driver could not open does not stop the start; whoever opens it learns why.
    fn a_vdev_that_failed_says_why() {
        let device = "net_pcap0,rx_pcap=/nonexistent/in.pcap,tx_pcap=/dev/null";
        let text = match Eal::init(&plan(), &[device.into()]) {
            Ok(eal) => eal::Port::open(&eal, device).unwrap_err().to_string(),
            Err(error) => error.to_string(),
        };
        assert!(text.contains("/nonexistent/in.pcap"), "{text}");
    }

    /// Hugepages through memfd, where the machine has some free.
    fn hugepages_without_files() {
        on_hugepages(Memory::InMemory);
    }

    /// Hugepages of a mounted hugetlbfs, where the machine has one.
    fn hugepages_of_a_mount() {
        on_hugepages(Memory::Hugepages);
    }

    /// Refused before DPDK is called, so the same process can still start it.
    fn bad_plans_are_refused_before_the_start() {
        let mut bad = plan();
        bad.lcores[1].cpu = 1023;
        let text = Eal::init(&bad, &[]).unwrap_err().to_string();
        assert!(text.starts_with("lcore 1 is to run on CPU 1023, which this process may not use"), "{text}");

        let mut bad = plan();
        bad.lcores[1].lcore = 100_000;
        let text = Eal::init(&bad, &[]).unwrap_err().to_string();
        assert!(text.starts_with("lcore 100000 does not exist"), "{text}");

        let bad = EalPlan { memory: Memory::InMemory, memory_mb: 4_000_000, ..plan() };
        let text = Eal::init(&bad, &[]).unwrap_err().to_string();
        assert!(text.starts_with("4000000 MB of EAL memory need "), "{text}");
        start(&[]);
    }

    /// Frames are never split, so the buffers must hold them.
    fn an_mtu_beyond_the_buffers_is_refused() {
        let eal = start(&["net_null0"]);
        let pool = pool(&eal, 127);
        let port = eal::Port::open(&eal, "net_null0").unwrap();
        let config = PortConfig { mtu: 9001, ..PortConfig::default() };
        let text = port.start(&config, &pool).unwrap_err().to_string();
        assert!(text.contains("buffers of 2048 B cannot hold frames of MTU 9001"), "{text}");
        assert!(text.contains("at least 9023 B"), "{text}");
        let config = PortConfig { mtu: 2026, ..config };
        let (running, _queues) = eal::Port::open(&eal, "net_null0").unwrap().start(&config, &pool).unwrap();
        assert_eq!(running.facts().mtu, 2026);
    }

    /// net_null takes a key and a table; both are read back, and refusals become notes.
    fn rss_is_set_and_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("in.pcap");
        write_pcap(&file, &[bytes(0)]);
        let one_queue = format!("net_pcap0,rx_pcap={},tx_pcap=/dev/null", file.display());
        let eal = start(&["net_null0", &one_queue]);
        let pool = pool(&eal, 511);
        let reta = vec![1, 0, 0];
        let rss = RssConfig { key: Some(vec![0x6d; 52]), reta: Some(vec![2]) };
        let config = PortConfig { queues: 2, rss, ..PortConfig::default() };
        let text = eal::Port::open(&eal, "net_null0").unwrap().start(&config, &pool).unwrap_err().to_string();
        assert!(text.contains("names queue 2, and the port has 2"), "{text}");

        let rss = RssConfig { key: Some(vec![0x6d; 52]), reta: Some(reta.clone()) };
        let config = PortConfig { rss, ..config };
        let (running, queues) = eal::Port::open(&eal, "net_null0").unwrap().start(&config, &pool).unwrap();
        let facts = &running.facts().rss;
        let table = facts.reta.as_ref().unwrap();
        assert!(table.len() >= 64 && table.iter().zip(reta.iter().cycle()).all(|(a, b)| a == b), "{table:?}");
        assert!(facts.functions.contains(&"ipv4-udp".to_string()), "{facts:?}");
        running.stop(queues).unwrap();

        let config = PortConfig { queues: 2, ..PortConfig::default() };
        let (running, queues) = eal::Port::open(&eal, "net_pcap0").unwrap().start(&config, &pool).unwrap();
        let facts = running.facts();
        assert_eq!((facts.queues, facts.max_queues), (1, 1));
        assert!(facts.notes.iter().any(|note| note.starts_with("2 queue pairs were asked for")), "{:?}", facts.notes);
        assert!(facts.rss.functions.is_empty());
        running.stop(queues).unwrap();
    }

    /// Frames of a capture go through to another one, byte for byte.
    fn a_capture_goes_through_unchanged() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("in.pcap"), dir.path().join("out.pcap"));
        let sent: Vec<_> = (0..150).map(bytes).collect();
        write_pcap(&from, &sent);
        let device = format!("net_pcap0,rx_pcap={},tx_pcap={}", from.display(), to.display());
        let eal = start(&[&device]);
        let pool = pool(&eal, 511);
        let (running, mut queues) = run(eal::Port::open(&eal, &device).unwrap(), &pool, 1);
        let mut burst = Burst::new();
        while queues[0].rx.receive(&mut burst, 32) > 0 {
            send_all(&mut queues[0].tx, &mut burst);
        }
        assert_eq!(running.stats().tx_packets, 150);
        let stopped = running.stop(queues).unwrap();
        assert_eq!(pool.available(), pool.capacity());
        drop((stopped, pool, eal));
        assert_eq!(read_pcap(&to), sent);
    }

    /// Two net_ring ports back to back, two queues: bytes and order are kept, buffers are handed over.
    fn rings_connect_two_ports() {
        let eal = start(&[]);
        let pool = pool(&eal, 511);
        let (a, b) = eal::cross_connect(&eal, "left", "right", 2, 128).unwrap();
        let ((a, mut a_queues), (b, mut b_queues)) = (run(a, &pool, 2), run(b, &pool, 2));
        for queue in 0..2 {
            let sent: Vec<_> = (0..100).map(|n| bytes(n + 1000 * queue)).collect();
            for chunk in sent.chunks(50) {
                let mut burst = Burst::new();
                chunk.iter().for_each(|bytes| burst.push(frame(&pool, bytes)).unwrap());
                send_all(&mut a_queues[queue].tx, &mut burst);
            }
            assert_eq!(receive_all(&mut b_queues[1 - queue].rx), Vec::<Vec<u8>>::new(), "queues do not mix");
            assert_eq!(receive_all(&mut b_queues[queue].rx), sent);
        }
        // What is still in a ring at the end goes back to its pool as well.
        let mut burst = Burst::new();
        burst.push(frame(&pool, b"on the way back")).unwrap();
        send_all(&mut b_queues[0].tx, &mut burst);
        a.stop(a_queues).unwrap();
        b.stop(b_queues).unwrap();
    }

    /// A ring of 128 holds 127; the frames it does not take stay in the burst, in order.
    fn a_full_queue_leaves_the_rest() {
        let eal = start(&[]);
        let pool = pool(&eal, 511);
        let (a, b) = eal::cross_connect(&eal, "left", "right", 1, 128).unwrap();
        let ((_a, mut a_queues), (_b, mut b_queues)) = (run(a, &pool, 1), run(b, &pool, 1));
        let mut burst = Burst::new();
        for round in 0..2 {
            for n in 0..BURST {
                burst.push(frame(&pool, &[round, n as u8])).unwrap();
            }
            let taken = a_queues[0].tx.send(&mut burst);
            assert_eq!(taken, if round == 0 { 64 } else { 63 });
        }
        assert_eq!(burst.as_slice().iter().map(|f| f.data().to_vec()).collect::<Vec<_>>(), [[1, 63]]);
        assert_eq!(a_queues[0].tx.send(&mut burst), 0);
        assert_eq!(burst.len(), 1);
        assert_eq!(receive_all(&mut b_queues[0].rx).len(), 127);
        burst.free();
        assert_eq!(pool.available(), pool.capacity());
    }

    /// A soft buffer never reaches a driver, which would free it into a pool that is none.
    fn soft_frames_do_not_reach_a_driver() {
        let eal = start(&["net_null0"]);
        let (pool, soft) = (pool(&eal, 127), soft_pool());
        let (_running, mut queues) = run(eal::Port::open(&eal, "net_null0").unwrap(), &pool, 1);
        let mut burst = Burst::new();
        for from in [&pool, &soft, &pool, &soft] {
            burst.push(frame(from, b"x")).unwrap();
        }
        send_all(&mut queues[0].tx, &mut burst);
        assert_eq!((pool.available(), soft.available()), (127, 4));
    }

    /// Values and panics come back; a busy lcore and one that is not there are refused; a dropped handle harms nobody.
    fn work_runs_on_lcores() {
        let eal = start(&[]);
        let pool = pool(&eal, 127);
        let frames = pool.clone();
        let work = move || frames.alloc().map(|frame| frame.tailroom());
        assert_eq!(eal.launch(1, work).unwrap().join(), Ok(Some(2048)));

        let panicked = eal.launch(1, || -> u32 { panic!("lost {} frames", 3) }).unwrap().join().unwrap_err();
        assert_eq!(panicked.to_string(), "lcore 1 panicked: lost 3 frames");

        let (go, wait) = std::sync::mpsc::channel::<()>();
        let busy = eal.launch(1, move || wait.recv().is_ok()).unwrap();
        let text = eal.launch(1, || ()).unwrap_err().to_string();
        assert!(text.starts_with("launch on lcore 1 failed: Device or resource busy"), "{text}");
        assert!(!busy.is_finished());
        go.send(()).unwrap();
        assert_eq!(busy.join(), Ok(true));

        for lcore in [0, 2, u32::MAX] {
            let text = eal.launch(lcore, || ()).unwrap_err().to_string();
            assert!(text.contains("cannot be given work"), "{text}");
        }
        let (done, wait) = std::sync::mpsc::channel();
        drop(eal.launch(1, move || done.send(7)).unwrap());
        assert_eq!(wait.recv(), Ok(7));
    }
}

/// A frame through rings on hugepages. Skipped loudly where there are none.
fn on_hugepages(memory: Memory) {
    let eal = match Eal::init(&EalPlan { memory, ..plan() }, &[]) {
        Ok(eal) => eal,
        Err(error) => return eprintln!("SKIPPED: {error}"),
    };
    assert_eq!(eal.memory().mode, memory);
    let pool = pool(&eal, 511);
    let (a, b) = eal::cross_connect(&eal, "left", "right", 1, 128).unwrap();
    let ((a, mut a_queues), (b, mut b_queues)) = (run(a, &pool, 1), run(b, &pool, 1));
    let mut burst = Burst::new();
    burst.push(frame(&pool, b"on a large page")).unwrap();
    send_all(&mut a_queues[0].tx, &mut burst);
    assert_eq!(receive_all(&mut b_queues[0].rx), [b"on a large page"]);
    drop((a.stop(a_queues).unwrap(), b.stop(b_queues).unwrap(), pool, eal));
}

fn soft_pool() -> Mempool {
    Mempool::soft(&PoolConfig { name: "soft".into(), buffers: 4, data_room: 64, cache: 0, numa: None })
}

fn write_pcap(path: &PathBuf, frames: &[Vec<u8>]) {
    let mut writer = PcapWriter::new(File::create(path).unwrap()).unwrap();
    for frame in frames {
        let packet = PcapPacket::new(std::time::Duration::ZERO, frame.len() as u32, frame);
        writer.write_packet(&packet).unwrap();
    }
}

fn read_pcap(path: &PathBuf) -> Vec<Vec<u8>> {
    let mut reader = PcapReader::new(File::open(path).unwrap()).unwrap();
    let mut frames = Vec::new();
    while let Some(packet) = reader.next_packet() {
        frames.push(packet.unwrap().data.into_owned());
    }
    frames
}
