//! The host stack and health over soft ports: a client on the wire, an application on threads, and what can go wrong.

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::client::{Came, Client, turn, until};
use common::golden::cases;
use common::{inner, pool_config};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sluicegate::App;
use sluicegate::app::{Host, RunningApp};
use sluicegate::config::{Cause, Idle, WorkerPlan};
use sluicegate::dpdk::soft::{self, Setup, Wire};
use sluicegate::dpdk::{LcorePlan, Mempool};
use sluicegate::mgmt::{Draining, State};
use sluicegate::packet::{Packet, Verdict};
use sluicegate::path::Clock;
use sluicegate::stage::{Backend, Cx, Inspect, Make, Parsed, PerPacket, Shared, Stage, StageKind, WorkerId};

const SERVER: [u8; 4] = [10, 254, 11, 102];
const NODE: [u8; 4] = [10, 254, 11, 60];

struct Lab {
    app: RunningApp,
    wire: Wire,
    pool: Mempool,
    client: Client,
}

/// An application whose port has an address, with so many workers, and a client in the load balancer's subnet.
fn lab(workers: u16, idle: Idle, extra: &str, kinds: &[&'static StageKind]) -> Lab {
    let text = format!(
        "[[port]]\ndevice = \"net_null0\"\naddress = \"10.254.11.102/24\"\n{}\n{extra}",
        common::TUNNEL
    );
    let mut plan = common::plan_with(&text, kinds);
    plan.idle = idle;
    let cpu = plan.workers[0].lcore.cpu;
    plan.workers = (0..workers)
        .map(|n| WorkerPlan { id: WorkerId(n), lcore: LcorePlan { lcore: u32::from(n) + 1, cpu } })
        .collect();
    let pool = Mempool::soft(&pool_config(512));
    let (port, wire) = soft::Port::with(Setup { max_queues: workers, ..Setup::default() });
    let app =
        App::new(plan).start_on(Host::Threads, vec![port], pool.clone(), Clock::cycles()).expect("it starts");
    let client = Client::new(wire.clone(), NODE, SERVER);
    let mut lab = Lab { app, wire, pool, client };
    until("it is ready", &mut lab.app, &mut lab.client, |app| {
        app.health().is_some_and(|h| h.state == State::Ready)
    });
    lab
}

fn state(app: &RunningApp) -> State {
    app.health().expect("health").state
}

fn causes(app: &RunningApp) -> Vec<Cause> {
    app.health().expect("health").reasons.iter().map(|reason| reason.cause).collect()
}

/// Asks the socket of the kernel, from another thread, while the application goes on.
fn local(app: &mut RunningApp, path: &str) -> String {
    let address = app.management().and_then(|m| m.listens_at()).expect("it listens");
    let request = format!("GET {path} HTTP/1.1\r\n\r\n");
    let asking = std::thread::spawn(move || {
        let mut stream = TcpStream::connect(address).expect("a connection");
        stream.write_all(request.as_bytes()).expect("a request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    });
    while !asking.is_finished() {
        app.manage();
        std::thread::yield_now();
    }
    asking.join().expect("an answer")
}

/// In both ways of being idle: a worker that spins and one that sleeps notice a reply.
#[test]
fn health_is_told_over_the_data_port() {
    for idle in [Idle::Spin, Idle::Backoff] {
        let Lab { mut app, mut client, .. } = lab(1, idle, "", &[]);
        let answer = client.get(&mut app, 80, "/healthz");
        let Came::Answer(text) = &answer else { panic!("{answer:?}") };
        let body: serde_json::Value =
            serde_json::from_str(text.split("\r\n\r\n").nth(1).expect("a body")).expect("JSON");
        assert_eq!((answer.code(), &body["state"], &body["fit"]), (Some(200), &"ready".into(), &true.into()));
        for (request, code) in [
            ("GET / HTTP/1.0\r\n\r\n", 200),
            ("GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n", 200),
            ("HEAD /livez HTTP/1.1\r\n\r\n", 200),
            ("GET /nothing HTTP/1.1\r\n\r\n", 404),
            ("POST / HTTP/1.1\r\n\r\n", 405),
            ("hello\r\n\r\n", 400),
        ] {
            assert_eq!(client.ask(&mut app, 80, request).code(), Some(code), "{request:?}");
        }
        let long = format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "b".repeat(3000));
        assert_eq!(client.ask(&mut app, 80, &long).code(), Some(431));
        assert_eq!(client.get(&mut app, 81, "/"), Came::Refused, "nobody listens there");
        assert!(
            matches!(client.ask(&mut app, 80, ""), Came::Answer(text) if text.is_empty()),
            "a bare connect"
        );
        until("the bare connect is seen", &mut app, &mut client, |app| {
            app.management().expect("it").snapshot().host.checks.connects_only == 1
        });
        until("nothing is on its way", &mut app, &mut client, |app| {
            app.management().expect("it").snapshot().host.received == app.snapshot().workers[0].punt.copied
        });
        let counts = app.management().expect("it").snapshot().host;
        assert_eq!(counts.checks.requests[..8], [4, 0, 1, 1, 1, 1, 0, 0], "{counts:?}");
        assert_eq!((counts.checks.connections, counts.checks.cut, counts.no_room), (9, 0, 0));
        let report = app.stop();
        assert!(report.is_clean() && report.buffers_out == 0, "{:?}", report.failures);
        let worker = &report.snapshot.workers[0];
        assert_eq!(worker.punt.copied, worker.punted);
        assert_eq!((worker.punt.replies, worker.ledger().made), (counts.sent, counts.sent));
    }
}

/// A thousand checks in a row get their answer while every tunnel frame comes home.
#[test]
fn a_thousand_checks_in_a_row_under_tunnel_traffic() {
    let Lab { mut app, mut client, wire, .. } = lab(2, Idle::Backoff, "", &[]);
    let stop = Arc::new(AtomicBool::new(false));
    let frame = cases()
        .into_iter()
        .find(|case| case.verdict == "home" && case.settings.is_empty())
        .expect("one")
        .frame;
    let traffic = {
        let (stop, wire, frame) = (stop.clone(), wire.clone(), frame);
        std::thread::spawn(move || {
            let mut sent = 0u64;
            while !stop.load(Ordering::Relaxed) {
                // As many as the pool has buffers for, or checks would rightly fail.
                if wire.counts().waiting < 64 {
                    (0..32).for_each(|_| wire.send_copy(&frame));
                    sent += 32;
                }
                std::thread::yield_now();
            }
            sent
        })
    };
    let mut home = 0;
    for n in 0..1000 {
        let came = match n % 3 {
            0 => client.ask(&mut app, 80, ""),
            1 => client.get(&mut app, 80, "/"),
            _ => client.get(&mut app, 80, "/healthz"),
        };
        assert!(
            matches!(&came, Came::Answer(_)) && (n % 3 == 0 || came.code() == Some(200)),
            "{n}: {came:?}"
        );
        home += std::mem::take(&mut client.cable.tunnel).len() as u64;
    }
    stop.store(true, Ordering::Relaxed);
    let sent = traffic.join().expect("traffic");
    let deadline = Instant::now() + common::client::PATIENCE;
    while home < sent {
        turn(&mut app, &mut client);
        home += std::mem::take(&mut client.cable.tunnel).len() as u64;
        assert!(Instant::now() < deadline, "{home} of {sent}");
    }
    assert!(home == sent && sent > 1000, "{home} of {sent} tunnel frames came home");
    let counts = app.management().expect("it").snapshot();
    assert_eq!((counts.flips, counts.host.checks.connections), (1, 1000), "{counts:?}");
    assert!(app.stop().is_clean());
}

/// SYNs from everywhere in the subnet that nobody completes: counted, and a check in their midst gets its answer.
#[test]
fn a_flood_of_syns_does_not_keep_checks_out() {
    let Lab { mut app, mut client, wire, .. } =
        lab(1, Idle::Backoff, "[management]\nframes_per_s = 1000000\n", &[]);
    assert_eq!(
        client.get(&mut app, 80, "/").code(),
        Some(200),
        "a node of the load balancer comes all the time"
    );
    let mut random = ChaCha8Rng::seed_from_u64(7);
    let mut syns = 0u64;
    for _ in 0..30 {
        // More half-open connections than there are sockets, before each check and while it goes on.
        let handle = client.connect(80);
        let deadline = Instant::now() + common::client::PATIENCE;
        let mut said = false;
        loop {
            for _ in 0..40 {
                wire.send(syn(&mut random));
                syns += 1;
            }
            turn(&mut app, &mut client);
            let socket = client.socket(handle);
            if socket.may_send() && !said {
                socket.send_slice(b"GET / HTTP/1.1\r\n\r\n").expect("room");
                said = true;
            }
            let got = said && socket.can_recv();
            if got {
                break;
            }
            let open = socket.is_open();
            assert!(
                open,
                "it was thrown out for a SYN: said {said}, {:?} {:?}",
                app.management().map(|m| m.snapshot()),
                app.health()
            );
            assert!(Instant::now() < deadline, "no answer");
        }
        let mut answer = [0; 12];
        client.socket(handle).recv_slice(&mut answer).expect("bytes");
        assert_eq!(&answer, b"HTTP/1.1 200");
        client.forget(handle);
    }
    let counts = app.management().expect("it").snapshot().host;
    assert!(syns > 1000 && counts.checks.evicted > 500, "{syns} {counts:?}");
    assert_eq!(counts.checks.requests[0], 31);
    let report = app.stop();
    assert!(report.is_clean() && report.buffers_out == 0);
}

/// A SYN to the health port from somewhere in the subnet.
fn syn(random: &mut ChaCha8Rng) -> Vec<u8> {
    use etherparse::PacketBuilder;
    let source = [10, 254, 11, random.random_range(70..250)];
    let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 9, source[3]], [2, 0, 0, 0, 0, 1])
        .ipv4(source, SERVER, 64)
        .tcp(random.random_range(1024..65_535), 80, random.random(), 1000)
        .syn();
    let mut frame = Vec::new();
    builder.write(&mut frame, &[]).expect("a frame");
    frame
}

/// Clients that connect and then say nothing, or one byte: they lose their sockets to those who want something.
#[test]
fn slow_clients_do_not_keep_checks_out() {
    let Lab { mut app, mut client, .. } = lab(1, Idle::Backoff, "", &[]);
    let slow: Vec<_> = (0..200).map(|_| client.connect(80)).collect();
    let mut said = vec![false; slow.len()];
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(600) {
        turn(&mut app, &mut client);
        for (handle, said) in slow.iter().zip(&mut said) {
            let socket = client.socket(*handle);
            if socket.may_send() && !*said {
                *said = socket.send_slice(b"G").is_ok();
            }
        }
    }
    for _ in 0..20 {
        assert_eq!(client.get(&mut app, 80, "/").code(), Some(200));
    }
    until("the slow ones are cut", &mut app, &mut client, |app| {
        app.management().expect("it").snapshot().connections == 0
    });
    let counts = app.management().expect("it").snapshot().host.checks;
    assert!(counts.evicted >= 1 && counts.cut >= 100, "{counts:?}");
    assert_eq!(counts.requests[0], 20);
    assert!(app.stop().is_clean());
}

/// Frames of any kind, none of them right: nothing is lost, and checks are answered afterwards.
#[test]
fn hostile_frames_do_no_harm() {
    let Lab { mut app, mut client, wire, .. } =
        lab(1, Idle::Backoff, "[management]\nframes_per_s = 1000000\n", &[]);
    let mut random = ChaCha8Rng::seed_from_u64(11);
    for round in 0..200 {
        for _ in 0..50 {
            let mut frame = match random.random_range(0..4) {
                0 => syn(&mut random),
                1 => [&[0xff; 12][..], &[0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1], &[7; 24]].concat(),
                2 => [&[2, 0, 0, 0, 0, 1, 2, 2, 2, 2, 2, 2, 0x86, 0xdd, 0x60], &[0; 60][..]].concat(),
                _ => (0..random.random_range(0..200)).map(|_| random.random()).collect(),
            };
            for _ in 0..random.random_range(0..4) {
                if !frame.is_empty() {
                    let at = random.random_range(0..frame.len());
                    frame[at] = random.random();
                }
            }
            frame.truncate(random.random_range(0..=frame.len()));
            wire.send(frame);
        }
        turn(&mut app, &mut client);
        if round % 50 == 49 {
            assert_eq!(client.get(&mut app, 80, "/").code(), Some(200), "round {round}");
        }
    }
    let report = app.stop();
    assert!(report.is_clean() && report.buffers_out == 0, "{}", report.snapshot.ledger());
    assert!(report.snapshot.ledger().received > 10_000);
}

/// Sources that nobody named get no answer, not even a refusal.
#[test]
fn strangers_get_no_answer() {
    let Lab { mut app, mut client, wire, .. } =
        lab(1, Idle::Backoff, "[management]\nallowed_sources = [\"10.9.9.0/24\"]\n", &[]);
    assert_eq!(client.get(&mut app, 80, "/").code(), Some(200), "the port's own subnet is in it");
    let mut frame = syn(&mut ChaCha8Rng::seed_from_u64(1));
    frame[26..30].copy_from_slice(&[10, 1, 1, 1]);
    let sum = !etherparse::Ipv4Header::from_slice(&{
        let mut header = frame[14..34].to_vec();
        header[10..12].fill(0);
        header
    })
    .expect("a header")
    .0
    .calc_header_checksum();
    frame[24..26].copy_from_slice(&(!sum).to_be_bytes());
    wire.send(frame);
    until("it is refused", &mut app, &mut client, |app| app.snapshot().workers[0].punt.refused == 1);
    assert!(app.stop().is_clean());
}

// A stage that hangs when it is told to.

static HANG: AtomicBool = AtomicBool::new(false);
static HANGS: StageKind = StageKind {
    name: "hangs",
    summary: "waits",
    help: "",
    example: "",
    reasons: &[],
    parse: |_| Ok(Box::new(Hangs)),
};

#[derive(Debug)]
struct Hangs;

impl Parsed for Hangs {
    fn build(&self, _: Backend) -> Result<Arc<dyn Shared>, sluicegate::dpdk::Error> {
        Ok(Arc::new(Hangs))
    }
}

impl Shared for Hangs {
    fn make(&self, _: &Make) -> Box<dyn Stage> {
        Box::new(PerPacket(Hangs))
    }
}

impl Inspect for Hangs {
    fn inspect(&mut self, packet: &mut Packet<'_>, _: &mut Cx<'_>) -> Verdict {
        // Only for a packet that says so, so that one worker hangs and the other goes on.
        while packet.inner().ends_with(b"hang") && HANG.load(Ordering::Relaxed) {
            std::thread::yield_now();
        }
        Verdict::Next
    }
}

fn datagram(n: u8, payload: &[u8]) -> Vec<u8> {
    let (client, server) = (inner::v4(10, 1, 0, n, 40_000), inner::v4(10, 2, 0, 9, 53));
    inner::wrap(&inner::udp(client, server, payload), 7, 60_001)
}

/// A worker hangs in a stage: it is named with hop and stage within two seconds, connections are refused, the other worker takes over its
/// flows; and when it lives again, so does everything, after the hold.
#[test]
fn a_worker_that_hangs_is_named_and_its_flows_go_on_elsewhere() {
    let extra = "[flow]\ntracking = true\n[management]\nlisten = \"127.0.0.1:0\"\n[management.health]\nhold = \"1s\"\n\
                 [[stage]]\nuse = \"hangs\"\nname = \"molasses\"\n";
    let Lab { mut app, mut client, wire, .. } = lab(2, Idle::Backoff, extra, &[&HANGS]);
    // Everything to queue 0, whose worker owns the flow from then on.
    (0..128).for_each(|entry| assert!(wire.redirect(entry, 0)));
    wire.send(datagram(1, b"first"));
    until("the flow is there", &mut app, &mut client, |app| app.snapshot().workers[0].flows.opened == 1);
    HANG.store(true, Ordering::Relaxed);
    wire.send(datagram(1, b"hang"));
    let began = Instant::now();
    until("it fails", &mut app, &mut client, |app| state(app) == State::Failed);
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert_eq!(causes(&app), [Cause::WorkerStuck]);
    let text = app.health().expect("health").reasons[0].text.clone();
    assert!(
        text.starts_with("worker 0 has not polled for")
            && text.ends_with("it is in inspect, stage 0 \"molasses\""),
        "{text}"
    );
    // From now on by the other queue.
    (0..128).for_each(|entry| assert!(wire.redirect(entry, 1)));
    let answer = local(&mut app, "/healthz");
    assert!(
        answer.starts_with("HTTP/1.1 503") && answer.contains("worker-stuck") && answer.contains("molasses"),
        "{answer}"
    );
    assert!(local(&mut app, "/livez").starts_with("HTTP/1.1 200"));
    assert_eq!(client.get(&mut app, 80, "/"), Came::Refused, "what a check that only connects understands");
    client.cable.tunnel.clear();
    wire.send(datagram(1, b"goes on"));
    let deadline = Instant::now() + common::client::PATIENCE;
    while client.cable.tunnel.is_empty() {
        turn(&mut app, &mut client);
        assert!(Instant::now() < deadline, "the other worker does not take over");
    }
    assert!(client.cable.tunnel[0].ends_with(b"goes on"));
    assert_eq!(app.snapshot().workers[1].flows.opened, 1, "the flow is worker 1's now");
    HANG.store(false, Ordering::Relaxed);
    until("it recovers", &mut app, &mut client, |app| state(app) == State::Ready);
    assert_eq!(client.get(&mut app, 80, "/").code(), Some(200));
    let report = app.stop();
    assert!(report.is_clean() && report.buffers_out == 0, "{:?}", report.failures);
    assert_eq!(report.snapshot.workers[0].flows.ended_taken_over, 1, "worker 0 has found out");
}

/// Somebody keeps all buffers: degraded at once, failed after five seconds (one here), and named both times.
#[test]
fn an_empty_pool_is_named() {
    let extra = "[management]\nlisten = \"127.0.0.1:0\"\n[management.health]\npool_after = \"1s\"\nhold = \"0s\"\nwhen_failed = \"503\"\n";
    let Lab { mut app, mut client, pool, .. } = lab(1, Idle::Backoff, extra, &[]);
    let kept: Vec<_> = std::iter::from_fn(|| pool.alloc()).collect();
    let began = Instant::now();
    until("it is degraded", &mut app, &mut client, |app| state(app) == State::Degraded);
    assert_eq!(causes(&app), [Cause::PoolLow]);
    until("it fails", &mut app, &mut client, |app| state(app) == State::Failed);
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    let answer = local(&mut app, "/healthz");
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("pool-empty"), "{answer}");
    drop(kept);
    until("it recovers", &mut app, &mut client, |app| state(app).is_fit());
    assert_eq!(client.get(&mut app, 80, "/").code(), Some(200));
    assert!(app.stop().is_clean());
}

/// "503" goes on taking connections, and says why it is not fit.
#[test]
fn a_link_that_is_down_fails_and_503_says_so() {
    let extra =
        "[management]\nlisten = \"127.0.0.1:0\"\n[management.health]\nhold = \"2s\"\nwhen_failed = \"503\"\n";
    let Lab { mut app, mut client, wire, .. } = lab(1, Idle::Backoff, extra, &[]);
    wire.set_link(false);
    until("it fails", &mut app, &mut client, |app| state(app) == State::Failed);
    assert_eq!(causes(&app), [Cause::LinkDown]);
    wire.set_link(true);
    until("all is well again", &mut app, &mut client, |app| app.health().is_some_and(|h| h.recovering));
    let came = client.get(&mut app, 80, "/healthz");
    assert_eq!(came.code(), Some(503), "{came:?}");
    assert!(
        matches!(came, Came::Answer(text) if text.contains("\"recovering\":true") && text.contains("link-down"))
    );
    until("it recovers", &mut app, &mut client, |app| state(app) == State::Ready);
    assert!(app.stop().is_clean());
}

/// A device that wants a reset passes nothing: another appliance would do better until it has had it. The host stack is where it was then, with the
/// connections that it had.
#[test]
fn a_device_that_wants_a_reset_fails_until_it_has_had_it() {
    let extra = "[management.health]\nhold = \"1s\"\n";
    let Lab { mut app, mut client, wire, .. } = lab(2, Idle::Backoff, extra, &[]);
    let handle = client.connect(80);
    until_with(&mut app, &mut client, |client| client.socket(handle).may_send());
    wire.want_reset();
    until("it fails", &mut app, &mut client, |app| causes(app) == [Cause::DeviceReset]);
    assert_eq!(state(&app), State::Failed);
    until("it is reset", &mut app, &mut client, |app| app.ports()[0].resets().done == 1);
    until("it recovers", &mut app, &mut client, |app| state(app) == State::Ready);
    client.socket(handle).send_slice(b"GET / HTTP/1.1\r\n\r\n").expect("room");
    until_with(&mut app, &mut client, |client| client.socket(handle).can_recv());
    assert_eq!(client.get(&mut app, 80, "/").code(), Some(200));
    let report = app.stop();
    assert!(report.is_clean() && report.buffers_out == 0, "{:?}", report.failures);
}

/// Turns until the client has come so far.
fn until_with(app: &mut RunningApp, client: &mut Client, mut so: impl FnMut(&mut Client) -> bool) {
    let deadline = Instant::now() + common::client::PATIENCE;
    while !so(client) {
        turn(app, client);
        assert!(Instant::now() < deadline, "{:?}", app.health());
    }
}

/// Drain: new connections are refused at once, flows that are there are served, and it ends when they have.
#[test]
fn drain_refuses_checks_and_waits_for_flows() {
    let extra = "[flow]\ntracking = true\nother_idle = \"2s\"\nmargin = \"0s\"\n\
                 [management]\ndrain_at_least = \"1s\"\ndrain_deadline = \"60s\"\nlisten = \"127.0.0.1:0\"\n";
    let Lab { mut app, mut client, wire, .. } = lab(1, Idle::Backoff, extra, &[]);
    wire.send(datagram(1, b"a flow"));
    until("the flow is there", &mut app, &mut client, |app| app.snapshot().workers[0].flows.opened == 1);
    app.drain();
    let began = Instant::now();
    until("it drains", &mut app, &mut client, |app| state(app) == State::Draining);
    assert!(began.elapsed() < Duration::from_secs(1));
    assert_eq!(client.get(&mut app, 80, "/"), Came::Refused);
    assert!(local(&mut app, "/healthz").contains("\"cause\":\"draining\""));
    client.cable.tunnel.clear();
    wire.send(datagram(1, b"still served"));
    let (mut going, mut seen) = (Vec::new(), None);
    while seen.is_none() {
        client.poll();
        match app.manage().draining {
            Some(Draining::Going { flows }) => going.push(flows),
            Some(over) => seen = Some(over),
            None => {}
        }
        assert!(began.elapsed() < common::client::PATIENCE, "{going:?}");
        std::thread::yield_now();
    }
    assert_eq!((seen, going.first()), (Some(Draining::Done), Some(&Some(1))), "{going:?}");
    assert!(client.cable.tunnel.iter().any(|frame| frame.ends_with(b"still served")));
    assert!(app.stop().is_clean());
}

/// Somebody else has the address: a sentence, and nothing is left at work.
#[test]
fn an_address_that_is_taken_is_a_mistake_of_the_start() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a socket");
    let address = taken.local_addr().expect("an address");
    let plan = common::plan(&format!("{}\n[management]\nlisten = \"{address}\"\n", common::TUNNEL));
    let pool = Mempool::soft(&pool_config(64));
    let (port, wire) = soft::Port::with(Setup::default());
    let error =
        App::new(plan).start_on(Host::Threads, vec![port], pool.clone(), Clock::cycles()).expect_err("it");
    assert!(error.to_string().starts_with(&format!("management.listen = {address}: ")), "{error}");
    wire.send(vec![0; 60]);
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!((wire.counts().delivered, pool.available()), (0, pool.capacity()));
}
