use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;
use crate::dpdk::{Checksum, PoolConfig, RssConfig};
use crate::traffic::{Envelope, Generator, MAX_FRAME, Mix, Sizes, Traffic};

fn pool(buffers: u32) -> Mempool {
    Mempool::soft(&PoolConfig { name: "t".into(), buffers, data_room: 2048, cache: 0, numa: None })
}

fn config(queues: u16) -> PortConfig {
    PortConfig { queues, ..PortConfig::default() }
}

/// All frames of a queue, each freed at once.
fn drain(queue: &mut QueuePair) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    let mut burst = Burst::new();
    while queue.rx.receive(&mut burst, 32) > 0 {
        all.extend(burst.drain().map(|f| f.data().to_vec()));
    }
    all
}

fn frames(n: u64) -> Vec<Vec<u8>> {
    let mix = Mix { sizes: Sizes::Fixed(100), ..Mix::default() };
    let mut generator = Generator::new(Arc::new(Traffic::new(&mix)));
    let mut buffer = vec![0; MAX_FRAME];
    (0..n).map(|_| generator.next(&mut buffer).map(|s| buffer[..s.len].to_vec()).unwrap()).collect()
}

#[test]
fn frames_come_in_and_go_out_in_order() {
    let pool = pool(64);
    let (port, wire) = Port::new();
    wire.send(vec![0; 60]); // waits for the port
    let (port, mut queues) = port.start(&config(1), &pool).unwrap();
    (1..40).for_each(|n| wire.send_copy(&[n; 60]));
    let mut burst = Burst::new();
    assert_eq!(queues[0].rx.receive(&mut burst, 32), 32);
    assert_eq!(queues[0].rx.receive(&mut burst, 64), 8);
    assert_eq!(queues[0].tx.send(&mut burst), 40);
    assert!(burst.is_empty());
    let mut frame = Vec::new();
    for n in 0..40 {
        assert!(wire.receive_into(&mut frame));
        assert_eq!(frame, [n; 60]);
    }
    assert!(!wire.receive_into(&mut frame) && wire.receive().is_none());
    let stats = port.stats();
    assert_eq!((stats.rx_packets, stats.tx_packets, stats.rx_bytes, stats.tx_bytes), (40, 40, 2400, 2400));
    assert_eq!(pool.available(), pool.capacity());
}

#[test]
fn a_port_starts_again_after_stop() {
    let (port, wire) = Port::new();
    let (port, mut queues) = port.start(&config(2), &pool(64)).unwrap();
    wire.send(vec![1; 60]);
    assert_eq!(drain(&mut queues[0]).len(), 1);
    wire.send(vec![2; 60]); // in the ring when the port stops
    let port = port.stop(queues).unwrap();
    wire.send(vec![3; 60]); // while it is stopped
    assert_eq!((wire.counts().stopped, wire.counts().waiting), (1, 1));
    let (port, mut queues) = port.start(&config(1), &pool(64)).unwrap();
    assert_eq!(port.facts().queues, 1);
    assert_eq!(drain(&mut queues[0]), [[3; 60]]);
    assert_eq!(port.stats().rx_packets, 1, "counted since the start");
    assert!(wire.counts().balances());
}

#[test]
fn nobody_polls_a_stopped_port() {
    let (port, _wire) = Port::with(Setup { id: 1, ..Setup::default() });
    let (port, mut queues) = port.start(&config(2), &pool(64)).unwrap();
    let kept = queues.pop().unwrap();
    let refused = port.stop(queues).unwrap_err();
    assert!(refused.error.to_string().contains("1 of its 2 queue pairs"), "{}", refused.error);
    let mut queues = refused.queues;
    queues.push(kept);
    assert!(refused.port.stop(queues).is_ok());

    // Two ports with one number: the type cannot tell their handles apart, the wire can.
    let (a, wire_a) = Port::new();
    let (b, _wire_b) = Port::new();
    let (a, mut queues_a) = a.start(&config(1), &pool(64)).unwrap();
    let (_b, queues_b) = b.start(&config(1), &pool(64)).unwrap();
    let a = a.stop(queues_b).unwrap();
    let (_a, mut fresh) = a.start(&config(1), &pool(64)).unwrap();
    wire_a.send(vec![1; 60]);
    assert!(drain(&mut queues_a[0]).is_empty(), "a handle of a stopped port finds nothing");
    assert_eq!(drain(&mut fresh[0]).len(), 1);
}

#[test]
fn what_cannot_be_is_refused() {
    let start = |config: PortConfig| {
        let (port, _wire) = Port::with(Setup { max_queues: 4, ..Setup::default() });
        port.start(&config, &pool(1)).unwrap_err().to_string()
    };
    let rss = |key, reta| PortConfig { rss: RssConfig { key, reta }, ..config(2) };
    assert_eq!(start(config(5)), "soft0: 5 queues asked for, it has 4; ask for fewer queues");
    assert!(start(config(0)).contains("0 queues"));
    assert!(start(rss(Some(vec![1; 39]), None)).contains("39 bytes; give at least 40"));
    assert!(start(rss(None, Some(vec![0, 1, 2]))).contains("queues below 2"));
    assert!(start(rss(None, Some(vec![]))).contains("0 entries"));
    assert!(start(rss(None, Some(vec![0; 129]))).contains("129 entries"));
}

#[test]
fn flows_spread_over_queues_and_stay_there() {
    let (port, wire) = Port::new();
    let (port, mut queues) = port.start(&config(4), &pool(64)).unwrap();
    let reta = port.facts().rss.reta.clone().unwrap();
    assert_eq!((reta.len(), &reta[..5]), (128, &[0, 1, 2, 3, 0][..]));
    frames(4000).into_iter().for_each(|f| wire.send(f));
    let mut home = std::collections::HashMap::new();
    for (n, queue) in queues.iter_mut().enumerate() {
        let mut burst = Burst::new();
        let mut count = 0;
        while queue.rx.receive(&mut burst, 32) > 0 {
            for frame in burst.drain() {
                let hash = frame.rss_hash().unwrap();
                assert_eq!(reta[hash as usize % 128] as usize, n);
                let tuple = (frame.data()[26..36].to_vec(), hash);
                assert_eq!(*home.entry(tuple).or_insert(n), n);
                count += 1;
            }
        }
        assert!((600..1500).contains(&count), "queue {n} got {count} of 4000");
    }
    // No ports, no hash: entry 0, wherever that points.
    let (port, wire) = Port::new();
    let rss = RssConfig { key: None, reta: Some(vec![2, 0, 1]) };
    let (_port, mut queues) = port.start(&PortConfig { rss, ..config(3) }, &pool(64)).unwrap();
    wire.send(vec![0; 60]);
    let mut burst = Burst::new();
    assert_eq!(queues[2].rx.receive(&mut burst, 8), 1);
    assert_eq!(burst.as_slice()[0].rss_hash(), None);
}

#[test]
fn checksum_verdicts_are_true() {
    let inner = [&[0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17][..], &[0; 18]].concat();
    let envelope = Envelope { node: Ipv4Addr::new(10, 0, 0, 9), ..Envelope::default() };
    let good = crate::traffic::wrap(&inner, &envelope).unwrap();
    let with = |at: usize, bytes: &[u8]| {
        let mut frame = good.clone();
        frame[at..at + bytes.len()].copy_from_slice(bytes);
        frame
    };
    let fragment = |word: [u8; 2]| {
        let mut frame = with(20, &word);
        let sum = crate::wire::checksum::update(
            u16::from_be_bytes([frame[24], frame[25]]),
            0,
            u16::from_be_bytes(word).into(),
        );
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
        frame
    };
    use Checksum::{Bad, Good, Unknown};
    let cases = [
        ("as sent", good.clone(), Good, Good),
        ("TTL changed", with(22, &[9]), Bad, Good),
        ("payload changed", with(100, &[9]), Good, Bad),
        ("no UDP checksum", with(40, &[0, 0]), Good, Unknown),
        ("more fragments", fragment([0x20, 0]), Good, Unknown),
        ("later fragment", fragment([0, 9]), Good, Unknown),
        ("IP length cuts UDP", with(16, &[0, 90]), Bad, Bad),
        ("IP behind the end", with(16, &[9, 99]), Bad, Unknown),
        ("no IP", with(12, &[8, 6]), Unknown, Unknown),
    ];
    for checksums in [true, false] {
        let (port, wire) = Port::with(Setup { checksums, ..Setup::default() });
        let (port, mut queues) = port.start(&config(1), &pool(64)).unwrap();
        assert_eq!((port.facts().rx_ip_checksum, port.facts().rx_udp_checksum), (checksums, checksums));
        for (name, frame, ip, l4) in &cases {
            wire.send_copy(frame);
            let mut burst = Burst::new();
            assert_eq!(queues[0].rx.receive(&mut burst, 1), 1);
            let got = (burst.as_slice()[0].ip_checksum(), burst.as_slice()[0].l4_checksum());
            assert_eq!(got, if checksums { (*ip, *l4) } else { (Unknown, Unknown) }, "{name}");
        }
    }
}

#[test]
fn every_loss_has_its_counter() {
    let pool = pool(4);
    let setup = Setup { rx_depth: Some(6), tx_depth: Some(3), ..Setup::default() };
    let (port, wire) = Port::with(setup);
    let (port, mut queues) = port.start(&config(1), &pool).unwrap();
    (0..8).for_each(|n| wire.send(vec![n; 60]));
    assert_eq!(port.stats().rx_missed, 2);
    let mut burst = Burst::new();
    assert_eq!(queues[0].rx.receive(&mut burst, 32), 4);
    assert_eq!(port.stats().rx_no_buffer, 1, "the frame that found the pool empty");
    wire.send(vec![0; 1519]);
    assert_eq!(port.stats().rx_errors, 1, "longer than the MTU");
    assert_eq!(queues[0].tx.send(&mut burst), 3);
    assert_eq!(burst.as_slice()[0].data(), [3; 60], "the rest stays, in order");
    assert_eq!(queues[0].tx.send(&mut burst), 0);
    wire.set_link(false);
    assert!(!port.link().up);
    wire.send(vec![0; 60]);
    assert!(wire.receive().is_some());
    assert_eq!(queues[0].tx.send(&mut burst), 0, "no link");
    wire.set_link(true);
    assert_eq!(queues[0].tx.send(&mut burst), 1);
    let xstats = port.xstats();
    assert!(xstats.contains(&("soft_link_down".into(), 1)), "{xstats:?}");
    let counts = wire.counts();
    assert_eq!((counts.missed, counts.no_buffer, counts.too_long, counts.link_down), (2, 1, 1, 1));
    assert_eq!((counts.taken, counts.refused, counts.waiting), (4, 3, 1));
    assert!(counts.balances(), "{counts:?}");
}

/// One run over a port with faults: what was delivered, what came out, and the account.
fn faulty(faults: Faults, n: u64) -> (Vec<Vec<u8>>, Vec<Vec<u8>>, FaultCounts, PortStats) {
    let pool = pool(256);
    let (port, wire) = Port::with(Setup { faults, ..Setup::default() });
    let (port, mut queues) = port.start(&config(2), &pool).unwrap();
    let (mut delivered, mut out) = (Vec::new(), Vec::new());
    let mut held: [Burst; 2] = Default::default();
    for (i, frame) in frames(n).into_iter().enumerate() {
        wire.send(frame);
        if i as u64 == n - 1 {
            wire.flush();
        }
        for (queue, burst) in queues.iter_mut().zip(&mut held) {
            let old = burst.len();
            queue.rx.receive(burst, 32);
            delivered.extend(burst.as_slice()[old..].iter().map(|f| f.data().to_vec()));
            queue.tx.send(burst);
        }
    }
    for (queue, burst) in queues.iter_mut().zip(&mut held) {
        // An empty receive may be the pool's fault, and a refused send the ring's.
        for _ in 0..200 {
            let old = burst.len();
            queue.rx.receive(burst, 32);
            delivered.extend(burst.as_slice()[old..].iter().map(|f| f.data().to_vec()));
            queue.tx.send(burst);
        }
        assert!(burst.is_empty());
    }
    out.extend(std::iter::from_fn(|| wire.receive()));
    let (counts, stats) = (wire.counts(), port.stats());
    drop(port.stop(queues));
    assert_eq!(pool.available(), pool.capacity());
    (delivered, out, counts, stats)
}

fn all_faults(seed: u64) -> Faults {
    Faults {
        seed,
        loss: 30_000,
        duplicate: 30_000,
        reorder: 30_000,
        corrupt: 30_000,
        truncate: 30_000,
        pool_empty: 20_000,
        tx_full: 20_000,
        tx_full_calls: 3,
        tx_error: 20_000,
    }
}

#[test]
fn faults_happen_as_often_as_asked_and_balance() {
    let (delivered, out, counts, stats) = faulty(all_faults(7), 5000);
    let about = |n: u64| (75..300).contains(&n); // 3 % of 5000, six deviations and more around
    for (name, n) in [
        ("lost", counts.lost),
        ("duplicated", counts.duplicated),
        ("reordered", counts.reordered),
        ("corrupted", counts.corrupted),
        ("truncated", counts.truncated),
    ] {
        assert!(about(n), "{name}: {n}");
    }
    assert!(counts.no_buffer > 20 && counts.tx_lost > 20 && counts.refused > 20, "{counts:?}");
    assert!(counts.balances() && counts.waiting == 0 && counts.held == 0, "{counts:?}");
    assert_eq!(delivered.len() as u64, counts.delivered);
    assert_eq!((out.len() as u64 + counts.tx_lost, counts.taken), (counts.taken, counts.delivered));
    let want = (counts.delivered, counts.no_buffer, counts.tx_lost, out.len() as u64);
    assert_eq!((stats.rx_packets, stats.rx_no_buffer, stats.tx_errors, stats.tx_packets), want);
}

#[test]
fn the_same_seed_gives_the_same_faults() {
    let (a, b, c) = (faulty(all_faults(7), 1500), faulty(all_faults(7), 1500), faulty(all_faults(8), 1500));
    assert_eq!(a, b);
    assert_ne!(a.0, c.0);
}

#[test]
fn one_fault_leaves_the_victims_of_another_as_they_were() {
    let only_loss = Faults { seed: 3, loss: 100_000, ..Faults::default() };
    let (lost, ..) = faulty(only_loss, 800);
    let (more, ..) = faulty(Faults { duplicate: 200_000, ..only_loss }, 800);
    let mut distinct = more.clone();
    distinct.sort();
    distinct.dedup();
    let mut lost = lost.clone();
    lost.sort();
    lost.dedup();
    assert_eq!(distinct, lost);
}

#[test]
fn a_corrupt_frame_differs_in_one_byte() {
    let sent = frames(300);
    let (delivered, _, counts, _) = faulty(Faults { corrupt: 1_000_000, ..Faults::default() }, 300);
    assert_eq!((counts.corrupted, delivered.len()), (300, 300));
    // Which queue a frame goes to may have changed with it, so compare as sets.
    for frame in delivered {
        let near = sent
            .iter()
            .any(|s| s.len() == frame.len() && s.iter().zip(&frame).filter(|(a, b)| a != b).count() == 1);
        assert!(near);
    }
}

#[test]
fn reordered_frames_are_overtaken_by_at_most_eight() {
    let (port, wire) =
        Port::with(Setup { faults: Faults { reorder: 300_000, ..Faults::default() }, ..Setup::default() });
    let (_port, mut queues) = port.start(&config(1), &pool(64)).unwrap();
    (0..250).for_each(|n| wire.send(vec![n; 60]));
    wire.flush();
    let order: Vec<i32> = drain(&mut queues[0]).iter().map(|f| f[0].into()).collect();
    assert_eq!(order.len(), 250);
    assert_ne!(order, (0..250).collect::<Vec<_>>());
    for (at, n) in order.iter().enumerate() {
        let overtaken_by = order[..at].iter().filter(|m| *m > n).count();
        assert!(overtaken_by <= 8, "{n} was overtaken by {overtaken_by}");
    }
}

#[test]
fn a_replay_keeps_the_time_of_the_capture() {
    let capture = |frames: &[(u64, Vec<u8>)]| {
        let mut writer = pcap::Writer::new("t", Vec::new()).unwrap();
        frames.iter().for_each(|(time, f)| writer.write(*time, f).unwrap());
        writer.finish().unwrap()
    };
    let input = capture(&[(5_000, vec![1; 60]), (4_000, vec![2; 60]), (9_000, vec![3; 60])]);
    let reader = pcap::Reader::new("in", &input[..]).unwrap();
    let writer = pcap::Writer::new("out", Vec::new()).unwrap();
    let (port, mut replay) = Port::from_pcap(Setup::default(), reader, writer);
    let (_port, mut queues) = port.start(&config(1), &pool(64)).unwrap();
    let mut times = Vec::new();
    let mut burst = Burst::new();
    let prepare = |frame: &pcap::Frame<'_>, out: &mut Vec<u8>| {
        out.extend_from_slice(frame.bytes);
        frame.bytes[0] != 2 // left out
    };
    while let Some(now) = replay.step(prepare).unwrap() {
        times.push(now);
        queues[0].rx.receive(&mut burst, 32);
        queues[0].tx.send(&mut burst);
        replay.collect().unwrap();
    }
    assert_eq!(times, [5_000, 5_000, 9_000]);
    assert!(replay.wire().counts().balances());
    assert_eq!(replay.finish().unwrap(), capture(&[(5_000, vec![1; 60]), (9_000, vec![3; 60])]));
}

#[test]
fn a_warm_wire_allocates_no_more() {
    let (port, wire) = Port::new();
    let (_port, mut queues) = port.start(&config(1), &pool(64)).unwrap();
    let mut burst = Burst::new();
    let mut back = Vec::new();
    let mut places = std::collections::HashSet::new();
    for _ in 0..100 {
        wire.send_copy(&[1; 60]);
        queues[0].rx.receive(&mut burst, 32);
        queues[0].tx.send(&mut burst);
        assert!(wire.receive_into(&mut back));
        places.insert(back.as_ptr() as usize);
    }
    assert!(places.len() <= 3, "buffers go round: {}", places.len());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn the_account_balances_at_every_moment(
        seed in any::<u64>(), rates in prop::array::uniform7(0u32..400_000), depth in prop::option::of(1usize..20),
        steps in prop::collection::vec((0u8..5, any::<u8>()), 1..200),
    ) {
        let [loss, duplicate, reorder, corrupt, truncate, pool_empty, tx_full] = rates;
        let faults = Faults { seed, loss, duplicate, reorder, corrupt, truncate, pool_empty, tx_full, tx_full_calls: 2, tx_error: loss };
        let pool = pool(24);
        let (port, wire) = Port::with(Setup { rx_depth: depth, tx_depth: depth, faults, ..Setup::default() });
        let (mut port, mut queues) = port.start(&config(2), &pool).unwrap();
        let mut burst = Burst::new();
        let mut out = 0;
        for (what, n) in steps {
            match what {
                0 => frames(u64::from(n) % 30).into_iter().for_each(|f| wire.send(f)),
                1 => _ = queues[usize::from(n & 1)].rx.receive(&mut burst, usize::from(n) % 33),
                2 => _ = queues[usize::from(n & 1)].tx.send(&mut burst),
                3 if n < 40 => {
                    let (again, q) = port.stop(queues).unwrap().start(&config(2), &pool).unwrap();
                    (port, queues) = (again, q);
                }
                3 => wire.set_link(n > 80),
                _ => out += u64::from(wire.receive().is_some()),
            }
            let counts = wire.counts();
            prop_assert!(counts.balances(), "{counts:?}");
            prop_assert_eq!(counts.delivered, counts.taken + burst.len() as u64);
        }
        out += std::iter::from_fn(|| wire.receive()).count() as u64;
        prop_assert_eq!(out + wire.counts().tx_lost, wire.counts().taken);
        drop(burst);
        prop_assert_eq!(pool.available(), pool.capacity());
    }
}
