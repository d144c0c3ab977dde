//! A long day: two workers at full tables, a SYN flood, a tenant that floods, ports that are used again under new cookies, rejected
//! connections, packets that are too big to go home; and in the midst of it connections that must all survive. `SOAK_SECONDS` (600) of it: `ci/check-long.sh`.
//!
//! Time is the test's: a millisecond a round, so that what idle times do in an hour happens in minutes.

mod common;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use common::inner::{End, tcp, udp, v4, wrap_from};
use common::team::Team;
use common::{TUNNEL, plan, say};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sluicegate::flow::Filter;

/// Connections that must survive; the last of them say something every 340 s only, GWLB's idle time being 350 s.
const LASTING: usize = 3000;
const QUIET: usize = 200;
/// Ports that are used again and again.
const REUSED: usize = 400;
/// Connections that are refused, one after the other.
const REFUSED: usize = 64;
/// Endpoints of the tenant that behaves and is attacked, and of the one that floods.
const GOOD: u64 = 0xa1;
const BAD: u64 = 0xb1;
const SECOND: u64 = 1000;
/// Of the envelope and in the inner IPv4 packet.
const COOKIE: usize = 78;
const INNER: usize = 82;
const LIMITS: &str = "
[flow]
capacity = 16384
window_check = \"drop\"
answers_per_s = 1000000
[[tenant]]
name = \"good\"
endpoints = [\"0xa1\"]
limits = { guaranteed = \"50%\", flows = \"80%\" }
[[tenant]]
name = \"bad\"
endpoints = [\"0xb1\"]
limits = { flows = \"50%\" }
[[stage]]
use = \"acl\"
default = \"allow\"
[[stage.rule]]
action = \"reject\"
protocol = \"tcp\"
destination_port = 22
";

/// One TCP connection.
#[derive(Clone, Debug)]
struct Connection {
    ends: [End; 2],
    cookie: u32,
    /// The newest that the load balancer has used, by direction: what is sent back that way must have it.
    used: [u32; 2],
    ports: [u16; 2],
    /// Packets that were sent of it.
    step: u32,
    sequence: [u32; 2],
    /// Round of its last packet.
    last: u64,
}

impl Connection {
    fn new(client: End, random: &mut ChaCha8Rng) -> Connection {
        let ports = [random.random_range(60_000..=65_535), random.random_range(60_000..=65_535)];
        let sequence = [random.random(), random.random()];
        Connection {
            ends: [client, v4(192, 0, 2, 1, 443)],
            cookie: random.random(),
            used: [0; 2],
            ports,
            step: 0,
            sequence,
            last: 0,
        }
    }

    /// A segment that is too big to go home, and must not be cut up. It does not arrive, so what comes next has its numbers.
    fn too_big(&mut self, side: usize) -> Vec<u8> {
        let [from, to] = if side == 0 { self.ends } else { [self.ends[1], self.ends[0]] };
        let mut inner = tcp(from, to, "PA", self.sequence[side], self.sequence[1 - side], &[0; 8600]);
        inner[6] = 0x40;
        let sum = etherparse::Ipv4Header::from_slice(&inner).unwrap().0.calc_header_checksum();
        inner[10..12].copy_from_slice(&sum.to_be_bytes());
        self.used[side] = self.cookie;
        wrap_from(GOOD, &inner, self.cookie, self.ports[side])
    }

    /// The same ports, another connection.
    fn again(&mut self, random: &mut ChaCha8Rng) {
        let jump =
            self.sequence.map(|old| old.wrapping_add(1 << 24).wrapping_add(random.random_range(0..1 << 28)));
        (self.cookie, self.step, self.sequence) = (random.random(), 0, jump);
    }

    /// Handshake, then `side`'s data; with `fin` its last.
    fn next(&mut self, side: usize, fin: bool) -> Vec<u8> {
        let (side, flags) = match self.step {
            0 => (0, "S"),
            1 => (1, "SA"),
            2 => (0, "A"),
            _ if fin => (side, "FA"),
            _ => (side, "PA"),
        };
        self.step += 1;
        let [from, to] = if side == 0 { self.ends } else { [self.ends[1], self.ends[0]] };
        let payload = self.cookie.to_be_bytes();
        let inner = tcp(from, to, flags, self.sequence[side], self.sequence[1 - side], &payload);
        self.used[side] = self.cookie;
        let marks = u32::from(flags.contains('S')) + u32::from(fin && self.step > 3);
        self.sequence[side] = self.sequence[side].wrapping_add(payload.len() as u32 + marks);
        wrap_from(GOOD, &inner, self.cookie, self.ports[side])
    }
}

#[derive(Debug, Default)]
struct Seen {
    rounds: u64,
    sent: u64,
    back: u64,
    answers: u64,
    too_big: u64,
    stale: u64,
    reused: u64,
    most_idle_over: u64,
}

struct Soak {
    team: Team,
    random: ChaCha8Rng,
    lasting: Vec<Connection>,
    reused: Vec<Connection>,
    /// Of these, such in the middle of their handshake.
    shaking: Vec<usize>,
    /// Newest cookie of each refused connection, by its client.
    refused: HashMap<std::net::Ipv4Addr, u32>,
    flood: u32,
    seen: Seen,
}

impl Soak {
    fn new() -> Soak {
        let mut random = ChaCha8Rng::seed_from_u64(7);
        let team = Team::of(&plan(&format!("{TUNNEL}{LIMITS}")), 2, 1024);
        let mut connection =
            |net: u8, n: usize| Connection::new(v4(10, net, (n >> 8) as u8, n as u8, 40_000), &mut random);
        let lasting = (0..LASTING).map(|n| connection(1, n)).collect();
        let reused = (0..REUSED).map(|n| connection(2, n)).collect();
        Soak {
            team,
            random,
            lasting,
            reused,
            shaking: Vec::new(),
            refused: HashMap::new(),
            flood: 0,
            seen: Seen::default(),
        }
    }

    fn send(&mut self, frame: Vec<u8>) {
        self.team.wire.send(frame);
        self.seen.sent += 1;
    }

    /// Polls both workers until all is done; no poll looks at more than its share of entries.
    fn poll(&mut self) {
        loop {
            let mut found = 0;
            for worker in &mut self.team.workers {
                let before = worker.counters().flows.swept.get();
                found += worker.poll();
                let swept = worker.counters().flows.swept.get() - before;
                assert!(swept <= 256, "{swept} entries in one poll");
            }
            if found == 0 {
                break;
            }
        }
        let mut frame = Vec::new();
        while self.team.wire.receive_into(&mut frame) {
            self.came(&frame);
        }
    }

    /// A frame that came home: under the newest cookie of its direction?
    fn came(&mut self, frame: &[u8]) {
        let word = |at: usize| u32::from_be_bytes(frame[at..at + 4].try_into().unwrap());
        let cookie = word(COOKIE);
        let is_reset = frame[INNER + 9] == 6 && frame[INNER + 33] & 4 != 0;
        let newest = if is_reset {
            self.seen.answers += 1;
            self.refused.get(&std::net::Ipv4Addr::from(word(INNER + 16))).copied()
        } else if frame[INNER + 9] == 1 {
            // It quotes what was too big, and travels the other way.
            self.seen.answers += 1;
            let quoted = INNER + 28;
            let client = |word: u32| (word >> 16 == 0x0a01).then_some((word & 0xffff) as usize);
            let (client, back) = match (client(word(quoted + 12)), client(word(quoted + 16))) {
                (Some(n), _) => (n, 1),
                (_, n) => (n.expect("a connection that lasts"), 0),
            };
            Some(self.lasting[client].used[back])
        } else {
            self.seen.back += 1;
            Some(word(frame.len() - 4))
        };
        self.seen.stale += u64::from(newest != Some(cookie));
    }

    fn connect(&mut self) {
        for step in 0..3 {
            for n in 0..LASTING {
                let frame = self.lasting[n].next(step % 2, false);
                self.send(frame);
                if n % 64 == 0 {
                    self.poll();
                }
            }
            self.poll();
        }
    }

    /// One millisecond.
    fn round(&mut self) {
        self.seen.rounds += 1;
        let now = self.seen.rounds;
        self.team.hand.store(now * 1_000_000, Ordering::Relaxed);
        let quiet = LASTING - QUIET;
        for _ in 0..16 {
            let n = self.random.random_range(0..quiet);
            self.lasting_says(n, now);
        }
        // Each of these in a round of its own, every 340 s.
        let n = now % (340 * SECOND);
        if n < QUIET as u64 {
            self.lasting_says(quiet + n as usize, now);
        }
        // Handshakes go on at once: half-open connections are what a flood pushes out.
        let mut talking = std::mem::take(&mut self.shaking);
        talking.extend([0; 4].map(|_| self.random.random_range(0..REUSED)));
        for n in talking {
            let (side, fin) = (self.random.random_range(0..2), self.random.random_ratio(1, 12));
            let connection = &mut self.reused[n];
            if connection.last == now {
                continue;
            }
            connection.last = now;
            // A client that closed, or that has forgotten.
            let over = connection.step > 3 && self.random.random_ratio(1, 6);
            if over {
                connection.again(&mut self.random);
                self.seen.reused += 1;
            }
            let frame = connection.next(side, fin && !over);
            if fin && connection.step > 3 {
                connection.again(&mut self.random);
                self.seen.reused += 1;
            } else if (1..3).contains(&connection.step) {
                self.shaking.push(n);
            }
            self.send(frame);
        }
        for _ in 0..24 {
            // A SYN of nobody to the tenant that behaves, and a flow both ways of the other one.
            self.flood = self.flood.wrapping_add(1);
            let n = self.flood;
            let cookie: u32 = self.random.random();
            let port = self.random.random_range(60_000..=65_535);
            let from = v4(10, 128 | (n >> 16) as u8 & 0x7f, (n >> 8) as u8, n as u8, (n >> 20) as u16 + 1024);
            let syn = tcp(from, v4(192, 0, 2, 1, 443), "S", n, 0, &cookie.to_be_bytes());
            self.send(wrap_from(GOOD, &syn, cookie, port));
        }
        for _ in 0..4 {
            self.flood = self.flood.wrapping_add(1);
            let (n, cookie): (u32, u32) = (self.flood, self.random.random());
            let port = self.random.random_range(60_000..=65_535);
            let ends = [v4(10, (n >> 16) as u8, (n >> 8) as u8, n as u8, 5000), v4(192, 0, 2, 9, 53)];
            for [from, to] in [ends, [ends[1], ends[0]]] {
                self.send(wrap_from(BAD, &udp(from, to, &cookie.to_be_bytes()), cookie, port));
            }
        }
        // Refused, again and again, under a cookie that changes.
        let n = (now % REFUSED as u64) as u8;
        let cookie: u32 = self.random.random();
        let refused = tcp(v4(10, 3, 0, n, 40_000), v4(192, 0, 2, 1, 22), "S", 77, 0, &cookie.to_be_bytes());
        self.refused.insert([10, 3, 0, n].into(), cookie);
        let port = self.random.random_range(60_000..=65_535);
        self.send(wrap_from(GOOD, &refused, cookie, port));
        self.poll();
        // Too big, once all others of its connection are home.
        let (n, side) = (self.random.random_range(0..quiet), self.random.random_range(0..2));
        let big = self.lasting[n].too_big(side);
        self.send(big);
        self.seen.too_big += 1;
        self.poll();
    }

    fn lasting_says(&mut self, n: usize, now: u64) {
        let connection = &mut self.lasting[n];
        if connection.last == now {
            return;
        }
        connection.last = now;
        if self.random.random_ratio(1, 100) {
            // The load balancer has another node, and makes up another cookie.
            connection.cookie = self.random.random();
        }
        let frame = connection.next(self.random.random_range(0..2), false);
        self.send(frame);
    }

    /// Flows that must be there, by number; and none that should be gone.
    fn check(&mut self) -> HashSet<u64> {
        let (mut lasting, mut reused) = (HashSet::new(), HashSet::new());
        for flow in self.team.view.iter(&Filter::default()) {
            let std::net::IpAddr::V4(client) = flow.tuple.source else { panic!("{flow:?}") };
            if client.octets()[..2] == [10, 1] && flow.tenant == "good" && flow.tuple.source_port == 40_000 {
                assert_eq!((flow.state, flow.picked_up), ("established", false), "{flow:?}");
                lasting.insert(flow.flow_id);
            }
            for end in [flow.tuple.source, flow.tuple.destination] {
                if flow.tenant == "good" {
                    reused.insert(end);
                }
            }
            let timeout: u64 = match (flow.reason.is_some(), flow.state) {
                (true, _) => 10 * SECOND,
                (_, "syn-sent" | "syn-received" | "closing" | "time-wait") => 20 * SECOND,
                (_, _) if flow.tuple.protocol == 17 => 125 * SECOND,
                _ => 355 * SECOND,
            };
            // A lap of the sweep is a second.
            let over = u64::from(flow.idle_ms).saturating_sub(timeout);
            assert!(over < SECOND + 100, "{flow:?}");
            self.seen.most_idle_over = self.seen.most_idle_over.max(over);
        }
        assert_eq!(lasting.len(), LASTING, "none is missing");
        // New ones of the tenant that is attacked find room, whatever the other one does.
        let recent = self.seen.rounds.saturating_sub(5 * SECOND);
        for connection in self.reused.iter().filter(|c| c.step > 2 && c.last > recent) {
            assert!(reused.contains(&connection.ends[0].0), "{connection:?}");
        }
        lasting
    }
}

/// Resident memory in kB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
    line.split_whitespace().nth(1).and_then(|kb| kb.parse().ok()).expect("a number")
}

/// For so long, and so many rounds at least.
fn soak(time: Duration, least: u64) {
    let mut soak = Soak::new();
    soak.connect();
    let first = soak.check();
    let begun = Instant::now();
    let (mut settled, mut most) = (None, 0);
    while begun.elapsed() < time || soak.seen.rounds < least {
        for _ in 0..500 {
            soak.round();
        }
        assert_eq!(soak.check(), first, "the flows that were opened first, and no others");
        let now = resident();
        // The tables fill at first.
        if begun.elapsed() > time / 4 {
            settled.get_or_insert(now);
        }
        most = most.max(now);
    }
    soak.team.settle();
    let (flows, ledger) = (soak.team.flows(), soak.team.ledger());
    let Seen { rounds, sent, back, answers, too_big, stale, reused, most_idle_over } = soak.seen;
    let settled = settled.unwrap_or(most);
    say(&format!(
        "{} s, {rounds} ms of its own time: {sent} packets, {back} home, {answers} answers, {stale} stale cookies; {} flows opened, {} \
         evicted, {} aged, {} refused, {reused} ports used again, {} new incarnations, {} refreshed, {} handed over; entries looked at \
         {}, {most_idle_over} ms late at most; {settled} kB resident after a quarter, {most} kB at most",
        begun.elapsed().as_secs(),
        flows.opened,
        flows.ended_evicted,
        flows.ended_idle + flows.ended_closed,
        flows.refused_full,
        flows.incarnations,
        flows.refreshed,
        flows.handed_in,
        flows.swept,
    ));
    assert_eq!(stale, 0);
    assert_eq!((ledger.received, ledger.sent), (sent, back + answers));
    let drops = soak.team.snapshots().into_iter().map(|worker| worker.drops).collect::<Vec<_>>();
    assert_eq!(
        (answers, ledger.dropped),
        (rounds + too_big, rounds + too_big),
        "each refused once, each too big answered, and nothing else lost: {drops:?}"
    );
    assert_eq!((flows.picked_up, flows.out_of_window, flows.refused_crowded), (0, 0, 0));
    let [good, bad] = ["good", "bad"].map(|name| -> u32 {
        soak.team.view.live().filter(|(_, tenant, _)| *tenant == name).map(|(_, _, live)| live).sum()
    });
    assert!(flows.ended_idle > 1000 || least < 150_000, "and what is over ends");
    assert!(flows.ended_evicted > 0 && good + bad > 16_384, "{good} and {bad}: the tables are full");
    assert!(most < settled + 16 * 1024, "memory grew from {settled} to {most} kB");
}

/// The count of stale cookies counts them.
#[test]
fn a_stale_cookie_would_be_seen() {
    let mut soak = Soak::new();
    soak.connect();
    soak.round();
    assert_eq!((soak.seen.answers, soak.seen.stale), (2, 0));
    // What would be if the engine did not notice that the load balancer has changed a cookie.
    let mut answers = Vec::new();
    for side in [0, 1] {
        let big = soak.lasting[0].too_big(side);
        soak.team.wire.send(big);
        soak.team.settle();
        answers.push(soak.team.wire.receive().expect("an answer"));
    }
    for answer in &answers {
        soak.came(answer);
    }
    assert_eq!(soak.seen.stale, 0);
    soak.lasting[0].cookie ^= 1;
    soak.lasting[0].next(0, false);
    soak.came(&answers[0]);
    assert_eq!(soak.seen.stale, 0, "that of the other direction is another matter");
    soak.came(&answers[1]);
    assert_eq!(soak.seen.stale, 1);
}

#[test]
fn a_short_soak() {
    soak(Duration::ZERO, 8000);
}

#[test]
#[ignore = "minutes; ci/check-long.sh runs it"]
fn a_long_soak() {
    let seconds = std::env::var("SOAK_SECONDS").map_or(600, |text| text.parse().expect("SOAK_SECONDS"));
    soak(Duration::from_secs(seconds), 150_000);
}
