//! A poll allocates nothing, for passthrough and acl, over frames that go home, are dropped and are punted.
//!
//! The counter is the process's allocator; it counts on the polling thread only while a poll runs.

mod common;
#[path = "common/counting.rs"]
mod counting;

use std::sync::Arc;

use sluicegate::config::Settings;
use sluicegate::event::Type;
use sluicegate::packet::{Verdict, View};
use sluicegate::path::WorkerSnapshot;
use sluicegate::stage::{
    Backend, Cx, Make, ParseResult, Parsed, PerStream, Shared, Stage, StageKind, StreamInspect,
};
use sluicegate::stream::Spot;
use sluicegate::traffic::{Generator, MAX_FRAME, Mix, Traffic};

use common::golden::cases;
use common::{Rig, TUNNEL, plan};

/// Rules that cover every action, over golden addresses and generated ones.
const ACL: &str = r#"
[[stage]]
use = "acl"
default = "deny"

[[stage.rule]]
action = "count"
source = "192.168.0.0/16"

[[stage.rule]]
action = "log"
protocol = "udp"

[[stage.rule]]
action = "deny"
protocol = "tcp"
destination_port = "23"

[[stage.rule]]
action = "reject"
protocol = "udp"
destination_port = "53"

[[stage.rule]]
action = "allow"
protocol = "tcp"
destination = "172.16.0.0/12"

[[stage.rule]]
action = "allow"
source = "2001:db8::/32"
"#;

/// Calls of the allocator while `work` runs on this thread. Freeing is as much a call as allocating.
fn calls(work: impl FnOnce()) -> u64 {
    let counting::Calls { allocations, frees, .. } = counting::during(work);
    allocations + frees
}

/// The counter sees what it should see.
#[test]
fn the_counter_counts() {
    assert_eq!(calls(|| drop(Box::new(7u64))), 2);
    assert_eq!(calls(|| ()), 0);
}

/// A worker that gets another plan, with stages that come, go, change and stay, and readers of streams, swaps it in and gives back what it had.
#[test]
fn another_plan_costs_the_worker_no_call_of_the_allocator() {
    let first = plan(&format!("{TUNNEL}{ACL}"));
    let mut second = plan(&format!(
        "{TUNNEL}[[stage]]\nuse = \"count\"\n[[stage]]\nuse = \"tls\"\ndeny_below = \"1.2\"\n{}",
        ACL.replace("default = \"deny\"", "default = \"allow\"")
    ));
    second.join_reasons(&first.reasons);
    let mut rig = Rig::new(&first);
    for case in cases().iter().filter(|case| case.verdict == "home") {
        rig.wire.send(case.frame.clone());
        rig.worker.poll();
    }
    assert!(rig.settled().flows.live() > 0);
    for next in [&second, &first, &second, &first] {
        rig.send(next);
        let mut polls = 0;
        while !rig.is_back() {
            assert_eq!(calls(|| _ = rig.worker.poll()), 0);
            polls += 1;
        }
        assert!(polls > 1, "flows are refitted after the swap");
    }
}

/// Answers of every kind, made, refused and freed.
#[test]
fn answers_do_not_allocate() {
    use sluicegate::dpdk::{Burst, Mempool};
    use sluicegate::path::{Answer, AnswerCounters, Answers, Request, Seen};
    use sluicegate::wire::geneve::AWS;

    let pool = Mempool::soft(&common::pool_config(16));
    let mut answers = Answers::new(pool.clone(), &AWS, 8500, 1000);
    let (mut out, counters) = (Burst::new(), AnswerCounters::default());
    let frames = ["sender/data-v4", "receiver/data-v6", "prohibited/large6", "too-big/tcp4", "silence/rst"];
    let frames = frames.map(common::usual);
    let kinds = [
        Answer::ResetSender,
        Answer::ResetReceiver { next_sequence: None },
        Answer::Prohibited,
        Answer::TooBig { mtu: 1400 },
    ];
    let asked = calls(|| {
        for round in 0..1000 {
            for (frame, meta) in &frames {
                for what in kinds {
                    let request = Request { what, frame, meta, seen: Seen::default() };
                    let _ = answers.answer(round * 10_000_000, &request, &mut out, &counters);
                }
            }
            out.free();
        }
    });
    assert_eq!(asked, 0);
    let refused = [&counters.rate_limited, &counters.not_answerable].map(|counter| counter.get());
    let made = [&counters.resets, &counters.prohibited, &counters.too_big].map(|counter| counter.get());
    assert!(refused.iter().chain(&made).all(|count| *count > 1000), "{counters:?}");
    assert_eq!(refused.iter().chain(&made).sum::<u64>() + counters.no_buffer.get(), 20_000);
    assert_eq!(pool.available(), 16);
}

/// Frames for the host stack, let in, refused and too many; and its replies.
#[test]
fn punting_does_not_allocate() {
    use sluicegate::path::{Guests, Punt};
    use sluicegate::stage::WorkerId;

    let plan = plan(&format!("{TUNNEL}\n[management]\nframes_per_s = 20000\n"));
    let rig = Rig::new(&plan);
    let host = &plan.management.host;
    let guests = Guests::new(host.allowed_sources.as_deref(), &[]);
    let (punt, mut end) = Punt::of(host, &guests, &rig.pool, WorkerId(0), vec![0]);
    let mut rig = rig.with_punt(Some(punt));
    let punted: Vec<_> = cases().into_iter().filter(|case| case.verdict == "punted").collect();
    let (mut back, mut spent) = (Vec::with_capacity(9000), 0);
    for round in 0..200u64 {
        for case in &punted {
            rig.wire.send_copy(&case.frame);
        }
        let wrote = (0..20).all(|_| end.replies.write(0, &[1; 60]));
        // The wire is not the path: it grows its buffers in the first rounds.
        let calls = calls(|| while rig.worker.poll() > 0 {});
        spent += if round < 10 { 0 } else { calls };
        while rig.wire.receive_into(&mut back) {}
        if round % 2 == 0 {
            while end.punted.take(&mut []) {}
        }
        assert!(wrote);
    }
    let now = rig.settled().punt;
    assert!(
        now.copied > 100 && now.refused > 100 && now.rate_limited > 100 && now.replies == 4000,
        "{now:?}"
    );
    assert_eq!(spent, 0);
}

/// Passthrough over soft ports.
#[test]
fn passthrough_does_not_allocate() {
    soft_polls_do_not_allocate(TUNNEL);
}

/// The acl's linear reference over soft ports.
#[test]
fn acl_does_not_allocate() {
    soft_polls_do_not_allocate(&format!("{TUNNEL}{ACL}"));
}

/// A capture of everything, as it comes and as it leaves: copies go into a ring, and what finds no room there is counted.
#[test]
fn being_captured_does_not_allocate() {
    use sluicegate::packet::Meta;
    use sluicegate::path::{Became, Capture, Choice, LARGEST, Wanted, lens};
    use sluicegate::stage::WorkerId;

    struct All;
    impl Choice for All {
        fn wants(&self, _: Option<View<'_>>) -> bool {
            true
        }
        fn keeps(&self, _: &Meta, _: Became) -> bool {
            true
        }
    }
    for read in [true, false] {
        let wanted = Wanted {
            choice: Box::new(All),
            before: true,
            after: true,
            snap: 2048,
            rate: u32::MAX,
            ring: 1 << 20,
        };
        let (capture, mut records, counts) = Capture::new(wanted);
        let (lens, mut end) = lens(WorkerId(0));
        assert!(end.begin(capture).is_ok());
        let mut rig = Rig::new(&plan(&format!("{TUNNEL}{ACL}")));
        rig.worker = rig.worker.with_lens(lens);
        let mut taken = 0u64;
        let mut record = vec![0; 4 * LARGEST];
        polls_do_not_allocate(rig, || {
            while read && records.take(&mut record) {
                taken += 1;
            }
        });
        let (copied, lost) = (counts.copied.get(), counts.lost.get());
        assert_eq!((taken, lost > 0), if read { (copied, false) } else { (0, true) }, "{copied} copied");
        assert!(copied > 300);
    }
}

/// A candidate that judges copies of everything, with rules and readers of streams of its own.
#[test]
fn a_candidate_does_not_allocate() {
    let mut rig = Rig::new(&plan(&format!("{TUNNEL}{ACL}")));
    let other = ACL.replace("default = \"deny\"", "default = \"allow\"");
    let tls = "[[stage]]\nuse = \"tls\"\ndeny_below = \"1.2\"\n[[stage]]\nuse = \"count\"\n";
    let candidate = rig.beside(&plan(&format!("{TUNNEL}{ACL}")), plan(&format!("{TUNNEL}{other}{tls}")));
    polls_do_not_allocate(rig, || ());
    let counts = candidate.ends();
    let Some(end) = counts.first() else { panic!("one worker has it") };
    assert!(end.counts.would_pass.get() > 10 && end.counts.agree.get() > 100, "{:?}", end.counts);
}

/// Lists of addresses that some of the frames are on, asked for each packet.
#[test]
fn blocklist_does_not_allocate() {
    let lists = r#"
[[stage]]
use = "blocklist"
stateful = false
[[stage.list]]
name = "some"
entries = ["192.168.0.0/17", "2001:db8::/33"]
[[stage.list]]
name = "told"
action = "alert"
entries = ["0.0.0.0/0", "::/0"]
"#;
    soft_polls_do_not_allocate(&format!("{TUNNEL}{lists}"));
}

/// Handshakes that are counted, and too many of them.
#[test]
fn synguard_does_not_allocate() {
    let mut text = format!("{TUNNEL}[[stage]]\nuse = \"synguard\"\n");
    for per in ["source", "destination", "service", "tenant", "all"] {
        text +=
            &format!("[[stage.limit]]\nname = \"{per}\"\nper = \"{per}\"\nhalf_open = 2\nsyn_per_s = 100\n");
    }
    let now = soft_polls_do_not_allocate(&text);
    assert!(now.stages[0].dropped > 10, "{:?}", now.stages[0]);
}

/// Limits of every kind, most of them passed.
#[test]
fn ratelimit_does_not_allocate() {
    let mut text = format!("{TUNNEL}[[stage]]\nuse = \"ratelimit\"\n");
    for (per, what) in [
        ("source", "new_flows_per_s = 1000"),
        ("service", "packets_per_s = 300\nbytes_per_s = 100000\nbuckets = 64"),
        ("flow", "bytes_per_s = 20000\nprotocol = \"udp\""),
        ("tenant", "packets_per_s = 1000000"),
        ("all", "packets_per_s = 10\nmode = \"report\""),
    ] {
        text += &format!("[[stage.limit]]\nname = \"{per}\"\nper = \"{per}\"\n{what}\n");
    }
    let now = soft_polls_do_not_allocate(&text);
    assert!(now.stages[0].dropped > 10, "{:?}", now.stages[0]);
}

/// Somebody reads all counters again and again meanwhile, as the exporter does: the worker allocates nothing for that, waits for nobody, and
/// counts what it would have counted.
#[test]
fn being_read_costs_a_worker_nothing() {
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    let tenants = "[flow]\ncapacity = 1024\n[[tenant]]\nname = \"a\"\nendpoints = [\"1\"]\n[[tenant]]\nname = \"b\"\nendpoints = [\"2\"]\n";
    let work = |read: bool| {
        let mut rig = Rig::new(&plan(&format!("{TUNNEL}{tenants}{ACL}")));
        let counters = rig.worker.counters().clone();
        let (stop, reads) = (AtomicBool::new(false), AtomicU64::new(0));
        let mut generator = Generator::new(Arc::new(Traffic::new(&Mix { flows: 300, ..Mix::default() })));
        let (mut frame, mut back) = (vec![0; MAX_FRAME], Vec::with_capacity(9000));
        let mut spent = 0;
        std::thread::scope(|scope| {
            if read {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        let _ = (counters.snapshot(), counters.samples.times.read());
                        let stages = counters.stages();
                        let tenants = stages.iter().flat_map(|stage| &stage.tenants);
                        assert!(tenants.map(|tenant| tenant.seen.get()).sum::<u64>() < u64::MAX);
                        reads.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            for round in 0..2400u64 {
                rig.set_clock(round * 1_000_000);
                let len = generator.next(&mut frame).map_or(0, |sent| sent.len);
                rig.wire.send_copy(&frame[..len]);
                let calls = calls(|| while rig.worker.poll() > 0 {});
                spent += if round < 300 { 0 } else { calls };
                while rig.wire.receive_into(&mut back) {}
            }
            // On a busy machine the reader may not have had its turn yet.
            while read && reads.load(Ordering::Relaxed) < 10 {
                std::thread::yield_now();
            }
            stop.store(true, Ordering::Relaxed);
        });
        assert_eq!(spent, 0, "calls of the allocator");
        let stage = &counters.stages()[0];
        let by_tenant = stage.tenants.iter().map(|t| (t.seen.get(), t.forwarded.get(), t.dropped.get()));
        let by_tenant: Vec<_> = by_tenant.collect();
        assert_eq!(
            by_tenant.iter().map(|t| t.0).sum::<u64>(),
            stage.seen.get(),
            "each packet is some tenant's"
        );
        assert_eq!(by_tenant.iter().map(|t| t.2).sum::<u64>(), stage.dropped.get());
        let timed = counters.samples.polls.get();
        assert_eq!(timed, (counters.busy_polls.get() - 17) / 1021 + 1);
        let mut snapshot = counters.snapshot();
        (snapshot.busy_cycles, snapshot.idle_polls) = (0, 0);
        (snapshot, by_tenant, timed)
    };
    assert_eq!(work(true), work(false));
}

/// Flows are opened, followed, aged and opened again, in a table that is too small for all of them.
#[test]
fn flows_come_and_go_without_allocating() {
    let flow = "[flow]\ncapacity = 1024\ntcp_idle = \"60s\"\nanswers_per_s = 1_000_000\n";
    let rules = ACL.replace("\"deny\"\nprotocol", "\"reject\"\nprotocol");
    let mut rig = Rig::new(&plan(&format!("{TUNNEL}{flow}{rules}")));
    let mut generator = Generator::new(Arc::new(Traffic::new(&Mix { flows: 3000, ..Mix::default() })));
    let mut frame = vec![0; MAX_FRAME];
    let mut back = Vec::with_capacity(9000);
    let mut spent = 0;
    for round in 0..600u64 {
        rig.set_clock(round * 1_000_000_000);
        for _ in 0..64 {
            let len = generator.next(&mut frame).map_or(0, |sent| sent.len);
            rig.wire.send_copy(&frame[..len]);
        }
        let calls = calls(|| while rig.worker.poll() > 0 {});
        // The soft wire grows its buffers in the first half.
        spent += if round < 300 { 0 } else { calls };
        while rig.wire.receive_into(&mut back) {}
    }
    let now = rig.settled();
    let flows = now.flows;
    assert!(flows.opened > 3000 && flows.ended_idle > 1000 && flows.ended_evicted > 100, "{flows:?}");
    assert!(now.answers.made() > 100, "{:?}", now.answers);
    assert_eq!(spent, 0, "calls of the allocator");
}

/// A gateway: flows opened, found, moved, aged and refused, both ways, in a table that is too small for all of them; news of targets on the way.
#[test]
fn a_gateway_does_not_allocate() {
    use common::gateway::{Gateway, LAN, PLAIN, TARGETS, WAN, framed};
    use common::inner::{udp, v4};
    use sluicegate::gateway::{State, TargetId};
    let text = PLAIN.replace("[gateway]", "[gateway]\nfailover = \"rebalance\"");
    let mut gateway = Gateway::new(&text);
    let (client, server) = (|n: u16| v4(10, 1, (n >> 8) as u8, n as u8, 1000), v4(10, 2, 0, 2, 53));
    let there: Vec<_> = (0..3000).map(|n| framed(1, 2, None, &udp(client(n), server, b"question"))).collect();
    let back: Vec<_> = (0..3000).map(|n| framed(2, 1, None, &udp(server, client(n), b"answer"))).collect();
    let mut frame = Vec::with_capacity(9000);
    let mut spent = 0;
    for round in 0..600usize {
        gateway.at(round as u64 * 1000);
        for n in 0..32 {
            let flow = (round * 7 + n * 3) % 3000;
            gateway.wires[WAN].send_copy(&there[flow]);
            gateway.wires[LAN].send_copy(&back[flow]);
            gateway.wires[WAN].send_copy(&[7; 13]);
        }
        let mut worked = calls(|| while gateway.worker.poll() > 0 {});
        while gateway.wires[TARGETS].receive_into(&mut frame) {
            frame[..12].rotate_left(6);
            frame[26..34].rotate_left(4);
            gateway.wires[TARGETS].send_copy(&frame);
        }
        worked += calls(|| while gateway.worker.poll() > 0 {});
        for leg in [WAN, LAN] {
            while gateway.wires[leg].receive_into(&mut frame) {}
        }
        if round % 50 == 0 {
            let state = if round % 100 == 0 { State::Unhealthy } else { State::Healthy };
            gateway.balance.set_health(TargetId(1), state);
            gateway.outbox.post(gateway.balance.news());
        }
        worked += calls(|| {
            gateway.worker.poll();
        });
        gateway.outbox.look();
        // The soft wires grow their buffers in the first half.
        spent += if round < 300 { 0 } else { worked };
    }
    let now = gateway.settled();
    assert!(now.flows.opened > 3000 && now.flows.ended_idle > 1000, "{:?}", now.flows);
    assert!(now.sent > 60_000 && now.dropped() > 10_000, "{} {}", now.sent, now.dropped());
    assert_eq!(spent, 0, "calls of the allocator");
}

/// Packets go to the worker that owns their flow: usual ones, first and later fragments, such that wait, errors; into rings with room and
/// into full ones.
#[test]
fn handing_packets_over_does_not_allocate() {
    use common::inner::{pieces, udp, unreachable, v4, wrap};
    use common::team::Team;

    for depth in [64, 1024] {
        let mut team = Team::new(3, "capacity = 4096\n", depth);
        let server = v4(192, 0, 2, 1, 443);
        let mut back = Vec::with_capacity(9000);
        let mut spent = 0;
        for round in 0..400u64 {
            team.hand.store(round * 10_000_000, std::sync::atomic::Ordering::Relaxed);
            for n in 0..100u16 {
                let client = v4(10, 0, (n / 8) as u8, (round % 50) as u8, 40_000);
                let port = 60_000 + n * 37 + round as u16;
                let packet = udp(client, server, &[1; 64]);
                let [first, second, third] = pieces(&packet, n / 8);
                let inner = match n % 8 {
                    0 => second,
                    1 => first,
                    2 => third,
                    3 => unreachable(server, client, &packet),
                    _ => packet,
                };
                team.wire.send_copy(&wrap(&inner, n.into(), port));
            }
            // One of them is slow, now and then.
            let slow = if round % 10 < 5 { 0 } else { 3 };
            let calls = calls(|| {
                for _ in 0..8 {
                    for (n, worker) in team.workers.iter_mut().enumerate() {
                        if n != slow {
                            worker.poll();
                        }
                    }
                }
            });
            // The soft wire grows its buffers in the first half.
            spent += if round < 200 { 0 } else { calls };
            while team.wire.receive_into(&mut back) {}
        }
        team.settle();
        let flows = team.flows();
        assert!(flows.handed_in > 5000 && flows.related > 100 && flows.held_fragments > 100, "{flows:?}");
        assert_eq!(spent, 0, "calls of the allocator, rings of {depth}");
    }
}

/// Alerts, drops and anomalies go into rings with room and into full ones, and flows are told.
#[test]
fn events_do_not_allocate() {
    let rules = ACL.replace("default", "stateful = false\ndefault");
    for (ring, full) in [(64, true), (65_536, false)] {
        let sinks = format!(
            "[flow]\ntracking = true\n[events]\ntypes = [\"flow\", \"flow_start\", \"alert\", \"drop\", \"anomaly\"]\nring = {ring}\n\
             drop = {{ reasons = [\"*\"], per_s = 1000000 }}\nanomaly = {{ per_s = 1000000 }}\n[[events.sink]]\nto = \"stdout\"\n"
        );
        let events = soft_polls_do_not_allocate(&format!("{TUNNEL}{sinks}{rules}")).events;
        for kind in [Type::Alert, Type::Drop, Type::Anomaly].map(|kind| kind as usize) {
            let (emitted, lost) = (events.emitted[kind], events.lost[kind]);
            assert!(
                if full { emitted == 64 && lost > 100 } else { emitted > 164 && lost == 0 },
                "{events:?}"
            );
        }
    }
}

/// A stage that reads streams, holds, and is done with a flow at its hundredth byte.
static READER: StageKind = StageKind {
    name: "reader",
    summary: "for tests",
    help: "",
    example: "",
    reasons: &[],
    parse: |_: &Settings<'_>| -> ParseResult { Ok(Box::new(Reader)) },
};

#[derive(Debug)]
struct Reader;

impl Parsed for Reader {
    fn wants_streams(&self) -> bool {
        true
    }

    fn build(&self, _: Backend) -> Result<Arc<dyn Shared>, sluicegate::dpdk::Error> {
        Ok(Arc::new(Reader))
    }
}

impl Shared for Reader {
    fn make(&self, _: &Make) -> Box<dyn Stage> {
        Box::new(PerStream(Reader))
    }
}

impl StreamInspect for Reader {
    fn data(&mut self, bytes: &[u8], spot: &Spot, _: &View<'_>, cx: &mut Cx<'_>) -> Verdict {
        if spot.offset as usize + bytes.len() > 100 {
            cx.settle();
            return Verdict::Next;
        }
        if spot.offset < 50 { Verdict::Hold } else { Verdict::Next }
    }
}

/// Segments in their turn and out of it, twice, with gaps; frames that wait for the stage, and go when it says so or when their time is over.
#[test]
fn streams_do_not_allocate() {
    use common::inner::{tcp, v4, wrap};
    let text = format!(
        "{TUNNEL}[flow]\ncapacity = 1024\n[stream]\nhold = 16\nmemory_mb = 1\n[[stage]]\nuse = \"reader\"\n"
    );
    let mut rig = Rig::new(&common::plan_with(&text, &[&READER]));
    let server = v4(192, 0, 2, 1, 443);
    let mut back = Vec::with_capacity(9000);
    let mut spent = 0;
    for round in 0..1200u64 {
        let client = v4(10, 0, 0, (round % 64) as u8, 1000 + (round / 64) as u16);
        let say = |at: u32, len: usize| tcp(client, server, "PA", 100 + at, 500, &vec![b'x'; len]);
        let mut frames = vec![tcp(client, server, "S", 99, 0, b"")];
        match round % 4 {
            0 => frames.extend([say(0, 40), say(40, 40), say(80, 40)]),
            1 => frames.extend([say(80, 40), say(40, 60), say(0, 40)]),
            2 => frames.extend([say(0, 30)]), // and never decided
            _ => frames.extend([say(0, 30), say(3000, 1400), tcp(server, client, "A", 500, 4500, b"")]),
        }
        for frame in &frames {
            rig.set_clock(round * 20_000_000);
            rig.wire.send_copy(&wrap(frame, round as u32, 61_000));
            let calls = calls(|| while rig.worker.poll() > 0 {});
            // The soft wire grows its buffers in the first half.
            spent += if round < 600 { 0 } else { calls };
            while rig.wire.receive_into(&mut back) {}
        }
    }
    let streams = rig.settled().streams;
    assert!(streams.held > 500 && streams.held_overdue > 100 && streams.copied_bytes > 1000, "{streams:?}");
    assert_eq!(spent, 0, "calls of the allocator");
}

/// Queries and answers over UDP and TCP, whole and in pieces, allowed, denied, malformed and long: reading and deciding allocates nothing; what a record of
/// each costs is said.
#[test]
fn dns_does_not_allocate() {
    use common::dns::{answer, asked, over_tcp, query};
    use common::inner::{tcp, udp, v4, wrap};
    let stage = "[[stage]]\nuse = \"dns\"\nmessages = 64\n[[stage.rule]]\naction = \"deny\"\nnames = [\".ads.example\"]\n\
                 [[stage.rule]]\naction = \"log\"\ntypes = [\"A\"]\n[stage.tunnel]\nnames_per_minute = 10\n";
    let sink = "[events]\ntypes = [\"dns\", \"alert\", \"anomaly\"]\n[[events.sink]]\nto = \"stdout\"\n";
    let flow = "[flow]\ncapacity = 1024\n[stream]\nhold = 16\nmemory_mb = 1\n";
    let server = v4(192, 0, 2, 1, 53);
    let names: Vec<String> = (0..50).map(|n| format!("host{n}.example.com")).collect();
    for (sink, most) in [("", 0), (sink, 50)] {
        let mut rig = Rig::new(&plan(&format!("{TUNNEL}{sink}{flow}{stage}")));
        let mut back = Vec::with_capacity(9000);
        let (mut spent, mut messages) = (0, 0);
        for round in 0..1200u64 {
            let client = v4(10, 0, 0, (round % 64) as u8, 1000 + (round / 64) as u16);
            let question = asked(round as u16, &names[round as usize % names.len()]);
            let (query, answer) = (query(question), answer(question, &[[192, 0, 2, 9]; 8]));
            let lie = [&query[..12], &[0xc0, 12, 0, 1, 0, 1]].concat();
            let bad = self::common::dns::query(asked(1, "x.ads.example"));
            let mut sent = [100, 500];
            let mut say = |reply: bool, bytes: &[u8]| {
                let [own, other] = if reply { [sent[1], sent[0]] } else { sent };
                let (from, to) = if reply { (server, client) } else { (client, server) };
                sent[usize::from(reply)] += bytes.len() as u32;
                tcp(from, to, "PA", own, other, bytes)
            };
            let streams =
                [over_tcp(&[query.clone(), query.clone()]), over_tcp(&[answer.clone(), answer.clone()])];
            let handshake = [tcp(client, server, "S", 99, 0, b""), tcp(server, client, "SA", 499, 100, b"")];
            let frames = match round % 4 {
                0 => [&query, &lie, &bad]
                    .map(|bytes| udp(client, server, bytes))
                    .into_iter()
                    .chain([udp(server, client, &answer)])
                    .collect::<Vec<_>>(),
                1 => handshake.into_iter().chain([say(false, &streams[0]), say(true, &streams[1])]).collect(),
                2 => {
                    let parts = streams[0].chunks(7).map(|part| (false, part));
                    let parts = parts.chain(streams[1].chunks(90).map(|part| (true, part)));
                    handshake.into_iter().chain(parts.map(|(reply, part)| say(reply, part))).collect()
                }
                _ => handshake.into_iter().chain([say(false, &streams[0][..9])]).collect(), // and nothing more
            };
            for frame in &frames {
                rig.set_clock(round * 20_000_000);
                rig.wire.send_copy(&wrap(frame, round as u32, 61_000));
                let calls = calls(|| while rig.worker.poll() > 0 {});
                // The soft wire grows its buffers in the first half.
                spent += if round < 600 { 0 } else { calls };
                while rig.wire.receive_into(&mut back) {}
            }
            messages += if round < 600 { 0 } else { [4, 4, 4, 0][round as usize % 4] };
            while rig.rings.take(|_| ()) {}
        }
        let counts: Vec<(String, u64)> =
            rig.pipeline.stages().flat_map(|(_, shared)| shared.counts()).collect();
        let count =
            |what: &str| counts.iter().find(|(label, _)| label == what).map_or(0, |(_, count)| *count);
        assert!(count("queries") > 1900 && count("answers") > 1200 && count("malformed") > 200, "{counts:?}");
        assert!(count("tunnel: rate") > 0 && count("given up") > 100, "{counts:?}");
        common::say(&format!(
            "{spent} calls of the allocator for {messages} messages of DNS{}",
            if most > 0 { " and their records" } else { "" }
        ));
        assert!(spent <= most * messages, "{spent}");
    }
}

/// Flows of all kinds, whole and in pieces, allowed, denied, changing over to TLS and in the clear, known and unknown: to find out what they speak allocates nothing; what
/// an SSH record costs is said.
#[test]
fn appid_does_not_allocate() {
    use common::hello::{client_hello, server_hello};
    use common::inner::{tcp, udp, v4, wrap};
    let stage = "[[stage]]\nuse = \"appid\"\nbanners = 8\ndeny = [\"telnet\"]\nplaintext = \"deny\"\nplaintext_allow = [\"http\"]\n";
    let sink = "[events]\ntypes = [\"ssh\", \"alert\"]\n[[events.sink]]\nto = \"stdout\"\n";
    let flow = "[flow]\ncapacity = 1024\n[stream]\nhold = 16\nmemory_mb = 1\n";
    let (hello, server) = (client_hello(0x0303, &[0x0304], Some("a.example")), v4(192, 0, 2, 1, 9999));
    let answer = server_hello(0x0303);
    let upgrade = [&b"EHLO a\r\nSTARTTLS\r\n"[..], &hello].concat();
    let talks: [(&[u8], &[u8]); 8] = [
        (b"GET / HTTP/1.1\r\n", b"HTTP/1.1 200 OK\r\n"),
        (&hello, b""),
        (b"SSH-2.0-Go\r\n", b"SSH-2.0-OpenSSH_9.6p1 Debian-3\r\n"),
        (&upgrade, b"220 mail ESMTP\r\n"),
        (b"EHLO a\r\nMAIL FROM:<a@b>\r\n", b"220 mail ESMTP\r\n"),
        (b"\xff\xfd\x18", b"\xff\xfb\x01login: "),
        (&[7; 40], &[9; 40]),
        (b"USER bob\r\nPASS x\r\n", b"220 welcome\r\n"),
    ];
    for (sink, most) in [("", 0), (sink, 6)] {
        let mut rig = Rig::new(&plan(&format!("{TUNNEL}{sink}{flow}{stage}")));
        let mut back = Vec::with_capacity(9000);
        let (mut spent, mut shells) = (0, 0);
        for round in 0..1600u64 {
            let client = v4(10, 0, 0, (round % 64) as u8, 1000 + (round / 64) as u16);
            let (asks, answers) = talks[round as usize % talks.len()];
            let cut = [1400, 3, 1][round as usize % 3];
            let mut frames =
                vec![tcp(client, server, "S", 99, 0, b""), tcp(server, client, "SA", 499, 100, b"")];
            for (reply, stream) in [(true, answers), (false, asks)] {
                for (n, part) in stream.chunks(cut).enumerate() {
                    let at = (n * cut) as u32;
                    frames.push(match reply {
                        true => tcp(server, client, "PA", 500 + at, 100, part),
                        false => tcp(client, server, "PA", 100 + at, 500 + answers.len() as u32, part),
                    });
                }
            }
            // It goes on with the handshake.
            if asks == upgrade {
                let (at, next) = (500 + answers.len() as u32, 100 + asks.len() as u32);
                frames.push(tcp(server, client, "PA", at, next, &answer));
            }
            frames.push(udp(client, server, asks));
            for frame in &frames {
                rig.set_clock(round * 20_000_000);
                rig.wire.send_copy(&wrap(frame, round as u32, 61_000));
                let calls = calls(|| while rig.worker.poll() > 0 {});
                // The soft wire grows its buffers in the first half.
                spent += if round < 800 { 0 } else { calls };
                while rig.wire.receive_into(&mut back) {}
            }
            shells += u64::from(round >= 800 && asks.starts_with(b"SSH"));
            while rig.rings.take(|_| ()) {}
        }
        let counts: Vec<(String, u64)> =
            rig.pipeline.stages().flat_map(|(_, shared)| shared.counts()).collect();
        let count =
            |what: &str| counts.iter().find(|(label, _)| label == what).map_or(0, |(_, count)| *count);
        for (what, least) in [
            ("http", 170),
            ("tls", 170),
            ("ssh", 170),
            ("smtp", 340),
            ("ftp", 170),
            ("telnet", 170),
            ("failed", 170),
        ] {
            assert!(count(what) >= least, "{what}: {counts:?}");
        }
        assert!(count("changed to tls") > 170 && count("plaintext") > 340, "{counts:?}");
        common::say(&format!(
            "{spent} calls of the allocator for {shells} connections of SSH{}",
            if most > 0 { " and their records" } else { "" }
        ));
        assert!(spent <= most * shells, "{spent}");
    }
}

/// Requests and answers, whole and in pieces, allowed, denied, malformed and never ended: reading and deciding allocates nothing; what a record of
/// each request with its answer costs is said.
#[test]
fn http_does_not_allocate() {
    use common::inner::{tcp, v4, wrap};
    let stage = "[[stage]]\nuse = \"http\"\nheads = 16\nrequests = 64\n[[stage.rule]]\naction = \"log\"\nquery_regex = ['x=\\d+']\n\
                 [[stage.rule]]\naction = \"deny\"\nhosts = [\".ads.example\"]\n[[stage.rule]]\naction = \"deny\"\npaths = [\"/admin\"]\n\
                 header = [{ name = \"User-Agent\", regex = [\"(?i)curl\"] }]\n";
    let sink = "[events]\ntypes = [\"http\", \"alert\", \"anomaly\"]\n[[events.sink]]\nto = \"stdout\"\n";
    let flow = "[flow]\ncapacity = 1024\n[stream]\nhold = 16\nmemory_mb = 1\n";
    let server = v4(192, 0, 2, 1, 80);
    for (sink, most) in [("", 0), (sink, 30)] {
        let mut rig = Rig::new(&plan(&format!("{TUNNEL}{sink}{flow}{stage}")));
        let mut back = Vec::with_capacity(9000);
        let (mut spent, mut requests) = (0, 0);
        for round in 0..1200u64 {
            let client = v4(10, 0, 0, (round % 64) as u8, 1000 + (round / 64) as u16);
            let head = |host: &str, more: &str| {
                format!(
                    "GET /a/../b%41?x={round} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: Mozilla/5.0\r\n{more}\r\n"
                )
            };
            let good = head("www.example.com", "");
            let answer = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n01234\r\n0\r\n\r\n";
            let mut sent = [100, 500];
            let mut say = |reply: bool, bytes: &[u8]| {
                let [own, other] = if reply { [sent[1], sent[0]] } else { sent };
                let (from, to) = if reply { (server, client) } else { (client, server) };
                sent[usize::from(reply)] += bytes.len() as u32;
                tcp(from, to, "PA", own, other, bytes)
            };
            let mut frames =
                vec![tcp(client, server, "S", 99, 0, b""), tcp(server, client, "SA", 499, 100, b"")];
            match round % 4 {
                0 => {
                    let twice = [good.as_bytes(), good.as_bytes()].concat();
                    frames.extend([say(false, &twice), say(true, answer.repeat(2).as_bytes())]);
                }
                1 => {
                    frames.extend(good.as_bytes().chunks(9).map(|part| say(false, part)));
                    frames.extend(answer.as_bytes().chunks(40).map(|part| say(true, part)));
                    frames.push(say(false, head("www.example.com", "no colon\r\nHost: b\r\n").as_bytes()));
                }
                2 => frames.push(say(false, head("x.ads.example", "").as_bytes())),
                _ => frames.push(say(false, &good.as_bytes()[..30])), // and nothing more
            }
            for frame in &frames {
                rig.set_clock(round * 20_000_000);
                rig.wire.send_copy(&wrap(frame, round as u32, 61_000));
                let calls = calls(|| while rig.worker.poll() > 0 {});
                // The soft wire grows its buffers in the first half.
                spent += if round < 600 { 0 } else { calls };
                while rig.wire.receive_into(&mut back) {}
            }
            requests += if round < 600 { 0 } else { [2, 2, 1, 0][round as usize % 4] };
            while rig.rings.take(|_| ()) {}
        }
        let counts: Vec<(String, u64)> =
            rig.pipeline.stages().flat_map(|(_, shared)| shared.counts()).collect();
        let count =
            |what: &str| counts.iter().find(|(label, _)| label == what).map_or(0, |(_, count)| *count);
        assert!(count("requests") > 1400 && count("answers") > 800, "{counts:?}");
        assert!(
            count("malformed") > 200 && count("ambiguous") > 200 && count("given up") > 100,
            "{counts:?}"
        );
        common::say(&format!(
            "{spent} calls of the allocator for {requests} requests of HTTP{}",
            if most > 0 { " and their records" } else { "" }
        ));
        assert!(spent <= most * requests, "{spent}");
    }
}

/// Golden frames of every fate and generated ones, in an order that mixes them.
fn mixed() -> Vec<Vec<u8>> {
    let mut generator = Generator::new(Arc::new(Traffic::new(&Mix { flows: 200, ..Mix::default() })));
    let mut frames: Vec<Vec<u8>> = cases().into_iter().map(|c| c.frame).collect();
    for _ in 0..400 {
        let mut frame = vec![0; MAX_FRAME];
        let len = generator.next(&mut frame).map_or(0, |sent| sent.len);
        frame.truncate(len);
        frames.push(frame);
    }
    // A stride that shares no factor with the count visits every frame once.
    let count = frames.len();
    (0..count).map(|i| frames[i * 331 % count].clone()).collect()
}

fn soft_polls_do_not_allocate(text: &str) -> WorkerSnapshot {
    polls_do_not_allocate(Rig::new(&plan(text)), || ())
}

/// The same for a worker that is made ready; `after` each round of polls somebody else does something.
fn polls_do_not_allocate(mut rig: Rig, mut after: impl FnMut()) -> WorkerSnapshot {
    let (frames, mut back) = (mixed(), Vec::with_capacity(9000));
    // The wire is not the path: let it grow its buffers to the largest frame first.
    for round in 0..3 {
        for batch in frames.chunks(128) {
            for frame in batch {
                let largest;
                let frame = if round == 0 {
                    largest = vec![0; 9000];
                    &largest
                } else {
                    frame
                };
                rig.wire.send_copy(frame);
            }
            while rig.worker.poll() > 0 {}
            while rig.wire.receive_into(&mut back) {}
            after();
        }
    }
    let before = rig.settled();
    let mut spent = 0;
    for batch in frames.chunks(128) {
        for frame in batch {
            rig.wire.send_copy(frame);
        }
        spent += calls(|| while rig.worker.poll() > 0 {});
        while rig.wire.receive_into(&mut back) {}
        after();
    }
    let now = rig.settled();
    assert_eq!(now.received - before.received, frames.len() as u64);
    assert!(
        now.sent > before.sent + 100
            && now.dropped() > before.dropped() + 100
            && now.punted > before.punted + 10
    );
    assert_eq!(spent, 0, "calls of the allocator in {} polls", now.busy_polls - before.busy_polls);
    now
}

/// The acl compiled by `rte_acl`, over a driver of DPDK. What DPDK itself does is not Rust's allocator's to see.
#[cfg(feature = "dpdk")]
#[test]
fn acl_over_dpdk_does_not_allocate() {
    use sluicegate::config::Machine;
    use sluicegate::dpdk::PortConfig;
    use sluicegate::dpdk::eal::{self, Eal};
    use sluicegate::dpdk::soft::pcap::Writer;
    use sluicegate::dpdk::{EalPlan, LcorePlan, Memory};
    use sluicegate::flow::{FlowsShared, Seed};
    use sluicegate::path::{Clock, Decap, Lane, Pipeline, Respond, Track, Worker, WorkerCounters};
    use sluicegate::stage::{Backend, WorkerId};

    common::alone("acl_over_dpdk_does_not_allocate", || {
        let folder = tempfile::tempdir().expect("a folder");
        let capture = folder.path().join("in.pcap");
        let mut writer = Writer::create(&capture).expect("a capture");
        for frame in mixed() {
            writer.write(0, &frame).expect("a capture");
        }
        writer.finish().expect("a capture");
        let device = format!("net_pcap0,rx_pcap={},infinite_rx=1", capture.display());
        let cpu = Machine::here().cpus.first().copied().unwrap_or(0);
        let eal_plan = EalPlan {
            memory: Memory::NoHuge,
            memory_mb: 128,
            file_prefix: common::prefix("acl_over_dpdk_does_not_allocate"),
            lcores: vec![LcorePlan { lcore: 0, cpu }],
            args: vec![],
        };
        let eal = Eal::init(&eal_plan, std::slice::from_ref(&device)).expect("DPDK starts");
        let pool = eal.pool(&common::pool_config(2048)).expect("a pool");
        let plan = plan(&format!("{TUNNEL}{ACL}"));
        let port = eal::Port::open(&eal, &device).expect("the port opens");
        let config = PortConfig { mtu: 9001, ..PortConfig::default() };
        let (port, queues) = port.start(&config, &pool).expect("the port starts");
        let counters = Arc::new(WorkerCounters::new(WorkerId(0), &plan.reasons, plan.stages.len()));
        let inspect = Pipeline::build(&plan, Backend::Eal).expect("the acl builds").make(WorkerId(0));
        let (lanes, decap) = (queues.into_iter().map(Lane).collect(), Decap::new(plan.tunnel.clone()));
        let shared = FlowsShared::of(&plan.flow, 1, Seed::random()).expect("acl follows flows");
        let mut worker: Worker =
            Worker::new(lanes, decap, inspect, plan.burst, plan.idle, Clock::cycles(), counters.clone())
                .with_flows(Some(Track::of(&plan, &shared, None, &counters)))
                .with_answers(Respond::of(&plan, &pool));
        worker.poll();
        let spent = calls(|| {
            for _ in 0..1000 {
                worker.poll();
            }
        });
        let now = counters.snapshot();
        assert!(now.ledger().balances() && now.received > 10_000 && now.dropped() > 1000 && now.punted > 100);
        assert_eq!(spent, 0, "calls of the allocator in 1000 polls of {} frames", now.received);
        drop(port.stop(worker.into_lanes().into_iter().map(|Lane(pair)| pair).collect()).expect("stops"));
    });
}
