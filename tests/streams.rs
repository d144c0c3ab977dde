//! Streams through all hops: what stages read, what is held for them, what becomes of what nobody can read.

mod common;

use std::sync::{Arc, Mutex};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sluicegate::config::Settings;
use sluicegate::dpdk::soft::{Faults, Setup};
use sluicegate::packet::{Verdict, View};
use sluicegate::stage::{
    Backend, Cx, Make, ParseResult, Parsed, PerFlow, PerStream, Shared, Stage, StageKind, StreamInspect,
};
use sluicegate::stream::{End, Spot};

use common::inner::{End as Host, pieces, tcp, v4, wrap};
use common::{Fate, Rig, TUNNEL, dropped, plan_with, pool_config};

/// Reads both directions: `!` in a stream lets its flow pass for good, `?` rejects it; before either it waits, or holds.
static READER: StageKind = StageKind {
    name: "reader",
    summary: "for tests",
    help: "",
    example: "",
    reasons: &[("asked", "the stream has a question mark")],
    parse: |settings: &Settings<'_>| -> ParseResult { Ok(Box::new(settings.read::<Reader>()?)) },
};

#[derive(Clone, Copy, Debug, serde::Deserialize)]
struct Reader {
    hold: bool,
}

type Log = Arc<Mutex<Vec<(String, String)>>>;

struct Built(Reader, Log);

struct Running {
    reader: Reader,
    state: PerFlow<[Vec<u8>; 2]>,
    log: Log,
}

impl Parsed for Reader {
    fn wants_streams(&self) -> bool {
        true
    }

    fn build(&self, _: Backend) -> Result<Arc<dyn Shared>, sluicegate::dpdk::Error> {
        Ok(Arc::new(Built(*self, Log::default())))
    }
}

impl Shared for Built {
    fn make(&self, make: &Make) -> Box<dyn Stage> {
        Box::new(PerStream(Running { reader: self.0, state: PerFlow::new(make), log: self.1.clone() }))
    }

    fn report(&self) -> Vec<(String, String)> {
        self.1.lock().unwrap().clone()
    }
}

impl Running {
    fn log(&self, spot: &Spot, packet: &View<'_>, what: String) {
        let way = if spot.reply { "<" } else { ">" };
        self.log.lock().unwrap().push((format!("{}{way}", packet.originator().port()), what));
    }
}

impl StreamInspect for Running {
    fn data(&mut self, bytes: &[u8], spot: &Spot, packet: &View<'_>, cx: &mut Cx<'_>) -> Verdict {
        self.log(spot, packet, String::from_utf8_lossy(bytes).into_owned());
        let state = self.state.of(packet.meta()).expect("a flow");
        let side = &mut state[usize::from(spot.reply)];
        assert_eq!(side.len(), spot.offset as usize, "in order");
        side.extend(bytes);
        let says = |what| side.contains(&what);
        let (yes, no) = (says(b'!'), says(b'?'));
        if yes || no {
            cx.settle();
            return if no { Verdict::Reject(cx.reason(0)) } else { Verdict::Next };
        }
        if self.reader.hold { Verdict::Hold } else { Verdict::Next }
    }

    fn gap(&mut self, len: u32, spot: &Spot, packet: &View<'_>, cx: &mut Cx<'_>) -> Verdict {
        self.log(spot, packet, format!("gap {len}"));
        cx.settle();
        Verdict::Next
    }

    fn end(&mut self, why: End, spot: &Spot, packet: &View<'_>, _: &mut Cx<'_>) -> Verdict {
        self.log(spot, packet, format!("{why:?}"));
        Verdict::Next
    }
}

fn client() -> Host {
    v4(10, 0, 0, 1, 40_000)
}

fn server() -> Host {
    v4(192, 0, 2, 1, 443)
}

/// One connection through a rig.
struct Line {
    rig: Rig,
    now: u64,
}

impl Line {
    fn new(settings: &str, stage: &str) -> Line {
        let text =
            format!("{TUNNEL}[flow]\ncapacity = 1024\n{settings}\n[[stage]]\nuse = \"reader\"\n{stage}\n");
        let mut line = Line { rig: Rig::new(&plan_with(&text, &[&READER])), now: 0 };
        line.home("S", 99, b"");
        assert!(matches!(line.back("SA", 499, 100, b""), Fate::Home(_)));
        line.home("A", 100, b"");
        line
    }

    fn frame(flags: &str, sequence: u32, payload: &[u8]) -> Vec<u8> {
        wrap(&tcp(client(), server(), flags, sequence, 500, payload), 7, 61_000)
    }

    fn send(&mut self, flags: &str, sequence: u32, payload: &[u8]) -> Fate {
        self.rig.fate(&Self::frame(flags, sequence, payload))
    }

    /// Such a frame as it comes home untouched.
    fn like(&self, flags: &str, sequence: u32, payload: &[u8]) -> Fate {
        let text = format!("{TUNNEL}[flow]\ncapacity = 1024\n");
        Rig::new(&plan_with(&text, &[])).fate(&Self::frame(flags, sequence, payload))
    }

    fn home(&mut self, flags: &str, sequence: u32, payload: &[u8]) {
        let fate = self.send(flags, sequence, payload);
        assert!(matches!(fate, Fate::Home(_)), "{fate:?}");
    }

    fn back(&mut self, flags: &str, sequence: u32, acknowledgment: u32, payload: &[u8]) -> Fate {
        self.rig.fate(&wrap(&tcp(server(), client(), flags, sequence, acknowledgment, payload), 7, 61_000))
    }

    /// What comes home of frames that were sent together, by their sequence numbers; and what was dropped.
    fn together(&mut self, frames: &[Vec<u8>]) -> (Vec<u32>, Vec<String>) {
        let before = self.rig.settled();
        frames.iter().for_each(|frame| self.rig.wire.send(frame.clone()));
        self.rig.worker.poll();
        let after = self.rig.settled();
        let dropped = dropped(&self.rig.reasons, &before, &after);
        (self.came(), dropped)
    }

    fn came(&mut self) -> Vec<u32> {
        let frames = std::iter::from_fn(|| self.rig.wire.receive());
        frames.map(|frame| u32::from_be_bytes(frame[106..110].try_into().unwrap())).collect()
    }

    fn later(&mut self, millis: u64) {
        self.now += millis * 1_000_000;
        self.rig.set_clock(self.now);
        self.rig.worker.poll();
    }

    fn log(&self) -> Vec<(String, String)> {
        self.rig.pipeline.stages().flat_map(|(_, shared)| shared.report()).collect()
    }

    fn said(&self) -> String {
        self.log().iter().map(|(way, what)| format!("{}{what} ", &way[5..])).collect()
    }

    fn waiting(&self) -> u64 {
        self.rig.settled().held_for_stages
    }
}

#[test]
fn stages_read_both_directions_in_order() {
    let mut line = Line::new("", "hold = false");
    line.home("PA", 104, b"more");
    line.home("PA", 100, b"some");
    line.back("PA", 500, 108, b"answer");
    line.home("FA", 108, b"");
    assert_eq!(line.said(), ">some >more <answer >Finished ");
    let now = line.rig.settled();
    assert_eq!((now.streams.bytes, now.streams.copied_bytes, now.streams.out_of_order), (14, 4, 1));
    line.back("PA", 506, 109, b"!");
    line.back("PA", 507, 109, b"unseen");
    assert_eq!(line.rig.settled().streams.bytes, 15, "a settled flow is not read");
}

#[test]
fn what_is_held_goes_before_what_decided() {
    let mut line = Line::new("", "hold = true");
    assert_eq!(line.together(&[Line::frame("PA", 100, b"abc")]), (vec![], vec![]));
    assert_eq!(line.waiting(), 1);
    assert_eq!(line.together(&[Line::frame("PA", 103, b"def")]), (vec![103], vec![]), "of use only with 100");
    assert_eq!(line.together(&[Line::frame("A", 106, b"")]), (vec![106], vec![]));
    assert_eq!(line.waiting(), 1);
    assert_eq!(line.together(&[Line::frame("PA", 106, b"g!")]), (vec![100, 106], vec![]));
    assert_eq!(line.waiting(), 0);
    assert_eq!(line.rig.settled().streams.held, 1);
}

#[test]
fn what_is_held_is_dropped_with_what_decided() {
    let mut line = Line::new("", "hold = true");
    line.together(&[Line::frame("PA", 100, b"abc")]);
    let (came, dropped) = line.together(&[Line::frame("PA", 103, b"?")]);
    assert_eq!((came.len(), dropped), (2, vec!["reader.asked".to_owned(); 2]), "two resets");
    assert_eq!(line.waiting(), 0);
    assert_eq!(line.send("PA", 100, b"abc"), Fate::Dropped("flow_condemned".into()));
}

#[test]
fn nothing_waits_if_the_batch_decides() {
    let all = [Line::frame("PA", 100, b"abc"), Line::frame("PA", 103, b"def"), Line::frame("PA", 106, b"!")];
    let mut line = Line::new("", "hold = true");
    assert_eq!(line.together(&all), (vec![100, 103, 106], vec![]));
    assert_eq!(line.rig.settled().streams.held, 0);
    let mut line = Line::new("", "hold = true");
    let all = [
        Line::frame("PA", 100, b"ab"),
        Line::frame("PA", 102, b"cd"),
        Line::frame("PA", 104, b"?"),
        Line::frame("PA", 105, b"x"),
    ];
    let (came, dropped) = line.together(&all);
    assert_eq!(dropped, vec!["reader.asked".to_owned(); 4], "nothing of the flow gets through");
    assert_eq!(came.len(), 4, "two resets for each that was shown after the verdict");
}

#[test]
fn what_is_held_need_not_be_sent_again() {
    let mut line = Line::new("", "hold = true");
    line.together(&[Line::frame("PA", 100, b"abc")]);
    for (sequence, payload) in [(100, &b"abc"[..]), (102, b"cde"), (98, b"..a")] {
        assert_eq!(line.send("PA", sequence, payload), Fate::Dropped("held_again".into()), "{sequence}");
    }
    assert_eq!(line.together(&[Line::frame("PA", 103, b"!")]).0, [100, 103]);
}

#[test]
fn nothing_is_held_for_ever() {
    let mut line = Line::new("", "hold = true");
    line.together(&[Line::frame("PA", 100, b"abc")]);
    line.later(499);
    assert_eq!(line.came(), [0; 0]);
    line.later(2);
    assert_eq!((line.came(), line.waiting()), (vec![100], 0));
    assert_eq!(line.together(&[Line::frame("PA", 103, b"def")]).0, [103], "once is enough");
    assert_eq!(line.rig.settled().streams.held_refused, 1);

    let mut line = Line::new("", "hold = true\non_unread = \"drop\"");
    line.together(&[Line::frame("PA", 100, b"abc")]);
    let before = line.rig.settled();
    line.later(501);
    let after = line.rig.settled();
    assert_eq!(dropped(&line.rig.reasons, &before, &after), ["stream_unread"]);
    assert_eq!(line.send("PA", 103, b"def"), Fate::Dropped("flow_condemned".into()));
}

#[test]
fn what_finds_no_room_goes_by_on_unread() {
    let mut line = Line::new("[stream]\nhold = 0", "hold = true");
    assert_eq!(line.together(&[Line::frame("PA", 100, b"abc")]).0, [100]);
    let mut line = Line::new("[stream]\nhold = 0", "hold = true\non_unread = \"drop\"");
    assert_eq!(line.send("PA", 100, b"abc"), Fate::Dropped("stream_unread".into()));
    assert_eq!(line.send("PA", 100, b"abc"), Fate::Dropped("flow_condemned".into()));
}

#[test]
fn at_the_end_nothing_is_held() {
    let mut line = Line::new("", "hold = true");
    line.together(&[Line::frame("PA", 100, b"abc")]);
    line.rig.worker.finish();
    assert_eq!((line.came(), line.waiting()), (vec![100], 0));
    assert_eq!(line.rig.pool.available(), line.rig.pool.capacity());
}

#[test]
fn another_copy_does_not_pass() {
    let mut line = Line::new("", "hold = false");
    line.home("PA", 100, b"GET /good");
    assert_eq!(line.send("PA", 100, b"GET /evil"), Fate::Dropped("stream_conflict".into()));
    line.home("PA", 100, b"GET /good");
    line.back("A", 500, 109, b"");
    line.home("PA", 109, b" and more");
    assert_eq!((line.said().as_str(), line.rig.settled().streams.conflicts), (">GET /good > and more ", 1));
    let mut line = Line::new("[stream]\nconflict = \"pass\"", "hold = false");
    line.home("PA", 100, b"GET /good");
    line.home("PA", 100, b"GET /evil");
    assert_eq!((line.said().as_str(), line.rig.settled().streams.conflicts), (">GET /good ", 1));
}

/// Copies are not kept for ever; what is sent again then goes by on_unread, as long as its receiver may take it.
#[test]
fn a_late_copy_goes_by_on_unread() {
    for (on_unread, passes) in [("pass", true), ("drop", false)] {
        let stage = format!("hold = false\non_unread = {on_unread:?}");
        let mut line = Line::new("[stream]\nmemory_mb = 1", &stage);
        line.home("PA", 100, b"GET /good");
        for _ in 0..200 {
            line.later(100);
        }
        let fate = line.send("PA", 100, b"GET /evil");
        assert_eq!(matches!(fate, Fate::Home(_)), passes, "{fate:?}");
        assert!(passes || fate == Fate::Dropped("stream_unread".into()), "{fate:?}");
        assert_eq!(line.rig.settled().streams.unread, 1);
        line.back("A", 500, 109, b"");
        line.home("PA", 100, b"GET /good");
        line.home("PA", 109, b" more");
        assert_eq!(line.said(), ">GET /good > more ");
    }
}

/// A receiver takes an urgent byte out of its stream, so what it reads would not be what stages read.
#[test]
fn urgent_data_is_made_plain_or_is_not_read() {
    let bytes = b"GET /adXmin";
    for (urgent, on_unread, fate) in [
        ("inline", "pass", Some("PA")),
        ("unread", "pass", Some("PAU")),
        ("unread", "drop", None),
        ("pass", "drop", Some("PAU")),
    ] {
        let stage = format!("hold = false\non_unread = {on_unread:?}");
        let mut line = Line::new(&format!("[stream]\nurgent = {urgent:?}"), &stage);
        let came = line.send("PAU", 100, bytes);
        match fate {
            // Byte for byte, inner and outer checksums with it.
            Some(flags) => assert_eq!(came, line.like(flags, 100, bytes), "{urgent}"),
            None => assert_eq!(came, Fate::Dropped("stream_unread".into())),
        }
        assert_eq!(line.rig.settled().streams.urgent, 1);
        assert_eq!(line.said(), if fate.is_some() { ">GET /adXmin " } else { "" });
    }
    // What was let go by all stages is nobody's business, nor what only a stage in shadow mode reads.
    let mut line = Line::new("", "hold = false");
    line.home("PA", 100, b"!");
    let want = line.like("PAU", 101, bytes);
    assert_eq!(line.send("PAU", 101, bytes), want);
    let mut line = Line::new("", "hold = false\nmode = \"shadow\"");
    let want = line.like("PAU", 100, bytes);
    assert_eq!(line.send("PAU", 100, bytes), want);
}

#[test]
fn gaps_are_reported_or_end_the_flow() {
    for (on_unread, said) in [("pass", ">ab >gap 2 "), ("drop", ">ab ")] {
        let mut line = Line::new("", &format!("hold = false\non_unread = {on_unread:?}"));
        line.home("PA", 100, b"ab");
        line.home("PA", 104, b"ef");
        line.back("A", 500, 106, b"");
        for _ in 0..7 {
            line.back("A", 500, 106, b"");
        }
        line.later(101);
        assert_eq!(line.said(), ">ab ", "an eighth is missing");
        let fate = line.back("A", 500, 106, b"");
        assert_eq!(fate == Fate::Dropped("stream_unread".into()), on_unread == "drop", "{fate:?}");
        assert_eq!(line.said(), said);
        let next = line.send("PA", 106, b"gh");
        assert_eq!(next == Fate::Dropped("flow_condemned".into()), on_unread == "drop", "{next:?}");
    }
}

#[test]
fn fragments_and_what_has_no_flow_go_by_on_unread() {
    for (on_unread, passes) in [("pass", true), ("drop", false)] {
        let mut line = Line::new("", &format!("hold = false\non_unread = {on_unread:?}"));
        let whole = tcp(client(), server(), "PA", 100, 500, &[b'x'; 64]);
        for piece in pieces(&whole, 77) {
            let fate = line.rig.fate(&wrap(&piece, 7, 61_000));
            assert_eq!(matches!(fate, Fate::Home(_)), passes, "{fate:?}");
        }
        let reset = tcp(v4(10, 9, 9, 9, 5), server(), "R", 1, 0, b"");
        let fate = line.rig.fate(&wrap(&reset, 7, 61_000));
        assert_eq!(matches!(fate, Fate::Home(_)), passes, "{fate:?}");
        assert_eq!(line.rig.settled().streams.unreadable, 4);
    }
}

/// Many connections over a wire that loses, repeats, reorders and damages frames: the ledger balances after every poll, with frames held and
/// let go, and nothing is left at the end.
#[test]
fn holding_keeps_the_ledger_under_faults() {
    for (seed, on_unread) in [(1, "pass"), (2, "drop"), (3, "pass"), (4, "drop")] {
        let text = format!(
            "{TUNNEL}[flow]\ncapacity = 1024\n[stream]\nhold = 8\nmemory_mb = 1\nhold_time = \"20ms\"\n\
             [[stage]]\nuse = \"reader\"\nhold = true\non_unread = {on_unread:?}\n"
        );
        let (loss, duplicate, reorder, corrupt) = (100_000, 100_000, 200_000, 50_000);
        let (tx_full, tx_full_calls, pool_empty) = (20_000, 30, 10_000);
        let faults = Faults {
            seed,
            loss,
            duplicate,
            reorder,
            corrupt,
            tx_full,
            tx_full_calls,
            pool_empty,
            truncate: 10_000,
            tx_error: 10_000,
        };
        let setup = Setup { faults, ..Setup::default() };
        let mut rig = Rig::over(&plan_with(&text, &[&READER]), &pool_config(512), setup);
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut sent = [0u32; 40];
        // What a client says is a matter of its number: somewhere there is a mark.
        let byte = |n: u32, at: u32| match at == 30 + n % 5 * 40 {
            true if n.is_multiple_of(3) => b'?',
            true => b'!',
            false => b'w',
        };
        for round in 0..3000u64 {
            let generation = (round / 300) as u8;
            if round.is_multiple_of(300) {
                sent.fill(0);
            }
            for _ in 0..random.random_range(0..12) {
                let n = random.random_range(0..sent.len() as u32);
                let client = v4(10, 0, generation, n as u8, 1000);
                let next = &mut sent[n as usize];
                let inner = match (*next, random.random_range(0..5)) {
                    (0, _) => {
                        *next = 1;
                        tcp(client, server(), "S", 99, 0, b"")
                    }
                    (at, 0) => tcp(server(), client, "PA", 900, 100 + at / 2, b"server"),
                    (at, _) => {
                        let from = random.random_range(at.saturating_sub(60)..=at);
                        let len = random.random_range(1..60);
                        *next = at.max(from + len);
                        let payload: Vec<u8> = (from..from + len).map(|at| byte(n, at)).collect();
                        tcp(client, server(), "PA", 100 + from, 900, &payload)
                    }
                };
                rig.wire.send(wrap(&inner, n, 61_000));
            }
            rig.set_clock(round * 1_000_000);
            rig.worker.poll();
            rig.settled();
            while rig.wire.receive().is_some() {}
        }
        let now = rig.settled().streams;
        assert!(now.held > 100 && now.held_overdue > 10 && now.held_refused > 10, "{now:?}");
        rig.worker.finish();
        assert_eq!(rig.settled().held_for_stages, 0);
        assert_eq!(rig.pool.available(), rig.pool.capacity(), "the pool is full again");
    }
}

#[test]
fn settings_that_contradict_each_other_are_refused() {
    use sluicegate::config::{Options, Overrides, load_text};
    let options = Options { need_ports: false, ..Options::default() };
    let load = |stream: &str| {
        let text = format!("{TUNNEL}[stream]\n{stream}\n");
        load_text("t.toml", &text, std::path::Path::new(""), &Overrides::default(), &options)
    };
    for (stream, wrong) in [
        ("overlap = \"last\"\nconflict = \"drop\"", "stream.conflict"),
        ("gap_time = \"11s\"", "stream.gap_time"),
        ("memory_mb = 0", "stream.memory_mb"),
        ("hold_time = \"1us\"", "stream.hold_time"),
    ] {
        let problems = load(stream).expect_err(stream);
        assert!(problems.iter().any(|p| p.place == wrong), "{stream}: {problems:?}");
    }
    let plan = load("overlap = \"last\"\nmemory_mb = 1").expect("a plan");
    assert_eq!((plan.stream.memory, plan.stream.conflict), (1 << 20, sluicegate::config::Conflict::Pass));
}
