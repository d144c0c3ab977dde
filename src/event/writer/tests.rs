use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixListener;
use std::path::Path;

use super::*;
use crate::config::{Options, Overrides, Plan, load_text};
use crate::event::{About, Alert, Emitter, EventCounters, emitters};
use crate::packet::Meta;
use crate::stage::WorkerId;

fn plan(sinks: &str, folder: &Path) -> Plan {
    let text = format!(
        "[tunnel]\nallowed_sources = [\"10.0.0.0/8\"]\n[events]\naccount = \"123456789012\"\n{sinks}\n"
    );
    let options = Options { need_ports: false, ..Options::default() };
    load_text("t.toml", &text, folder, &Overrides::default(), &options).unwrap()
}

struct Bench {
    emitter: Emitter,
    counters: Arc<EventCounters>,
    writer: Writer,
    reopen: Arc<AtomicBool>,
    lost: Arc<AtomicU64>,
}

fn bench(plan: &Plan) -> Bench {
    let mut rings = Rings::default();
    let counters = Arc::<EventCounters>::default();
    let emitter =
        emitters(&plan.events, plan.events.wanted(), plan.reasons.len(), counters.clone(), &mut rings);
    let (reopen, lost) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
    let missing = lost.clone();
    let parts = Parts {
        rings,
        lines: Lines::new(Eve::of(plan), plan.events.flow_log.clone()),
        clock: Clock::manual().0,
        cpus: Vec::new(),
        reopen: reopen.clone(),
        lost: Box::new(move || missing.load(Ordering::Relaxed)),
        following: Following::new(plan.events.wanted(), Types::NONE),
    };
    let writer = Writer::start(&plan.events, parts).unwrap();
    Bench { emitter, counters, writer, reopen, lost }
}

impl Bench {
    fn alert(&mut self, rule: u32) {
        let about = || About::packet(&Meta::default(), &[0; 20], WorkerId(0));
        self.emitter.emit(0, about, Alert { rule, blocked: false }.into());
    }

    /// How often the sinks have written and lost alerts.
    fn alerts(&self) -> Vec<(u64, u64)> {
        let alert = Type::Alert as usize;
        self.writer.snapshot().iter().map(|sink| (sink.written[alert], sink.lost[alert])).collect()
    }

    fn wait(&self, what: &str, done: impl Fn(&Self) -> bool) {
        let begun = Instant::now();
        while !done(self) {
            assert!(begun.elapsed() < Duration::from_secs(20), "{what}: {:?}", self.alerts());
            thread::sleep(Duration::from_millis(2));
        }
    }
}

fn ids(text: &str) -> Vec<u64> {
    let id = |line: &str| {
        let record: Value = serde_json::from_str(line).unwrap();
        record["alert"]["signature_id"].as_u64().unwrap()
    };
    text.lines().map(id).collect()
}

#[test]
fn what_is_emitted_is_written_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let plan = plan(
        "types = [\"alert\", \"drop\"]\n[[events.sink]]\nto = \"file\"\npath = \"eve.json\"\n",
        folder.path(),
    );
    let mut bench = bench(&plan);
    assert!(
        bench.emitter.wants(Type::Alert) && !bench.emitter.wants(Type::Http),
        "what nobody asked for has no ring"
    );
    for rule in 0..500 {
        bench.alert(rule);
        if rule % 50 == 49 {
            bench.wait("written", |bench| bench.alerts() == [(u64::from(rule) + 1, 0)]);
        }
    }
    assert_eq!((bench.counters.emitted[2].get(), bench.counters.lost[2].get()), (500, 0));
    let (done, said) = bench.writer.finish();
    assert_eq!((done[0].written_of(Type::Alert), done[0].all_lost(), said), (500, 0, vec![]));
    let text = std::fs::read_to_string(folder.path().join("eve.json")).unwrap();
    assert_eq!(ids(&text), (1..=500).collect::<Vec<u64>>());
    assert_eq!(done[0].bytes, text.len() as u64);
}

/// A peer that reads nothing holds up its own lines and nobody else's; what it was to have is counted, and there is a bound to what waits
/// for it.
#[test]
fn a_sink_that_hangs_costs_its_own_lines() {
    let folder = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(folder.path().join("eve.sock")).unwrap();
    let sinks = "[[events.sink]]\nto = \"file\"\npath = \"eve.json\"\n[[events.sink]]\nto = \"unix\"\npath = \"eve.sock\"\n";
    let plan = plan(sinks, folder.path());
    let mut bench = bench(&plan);
    // Enough for the socket's buffer, the queue and more.
    let most = 60_000;
    let mut slowest = Duration::ZERO;
    for rule in 0..most {
        let begun = Instant::now();
        bench.alert(rule);
        slowest = slowest.max(begun.elapsed());
        if rule % 2048 == 2047 {
            bench.wait("the file keeps up", |bench| bench.alerts()[0] == (u64::from(rule) + 1, 0));
        }
    }
    let emitted = bench.counters.emitted[2].get();
    bench.wait("the file has all of it", |bench| bench.alerts()[0] == (emitted, 0));
    let (written, lost) = bench.alerts()[1];
    assert!(lost > 1000, "{written} written, {lost} lost");
    // The socket's buffer, one batch in hand, 32 in the queue and one to come, of 64 KiB each and at least 200 bytes a line.
    let waiting = emitted - written - lost;
    assert!(waiting < 35 * (BATCH as u64 + 4096) / 200, "{waiting} wait");
    assert!(slowest < Duration::from_secs(1), "nobody waited for the socket: {slowest:?}");
    let begun = Instant::now();
    let (done, said) = bench.writer.finish();
    assert!(begun.elapsed() < LAST_WAIT + Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!((done[0].written_of(Type::Alert), done[0].all_lost()), (emitted, 0));
    assert!(done[1].all_lost() >= lost, "{said:?}");
    // What did come through are whole lines, from the first one on.
    let (stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let mut first = String::new();
    BufReader::new(stream).read_line(&mut first).unwrap();
    assert_eq!(ids(&first), [1]);
}

#[test]
fn files_are_reopened_when_asked() {
    let folder = tempfile::tempdir().unwrap();
    let plan = plan("[[events.sink]]\nto = \"file\"\npath = \"eve.json\"\n", folder.path());
    let mut bench = bench(&plan);
    let (path, moved) = (folder.path().join("eve.json"), folder.path().join("eve.json-20261124"));
    bench.alert(0);
    bench.wait("the first", |bench| bench.alerts()[0].0 == 1);
    std::fs::rename(&path, &moved).unwrap();
    bench.alert(1);
    bench.wait("the second", |bench| bench.alerts()[0].0 == 2);
    bench.reopen.store(true, Ordering::Relaxed);
    bench.wait("a new file", |_| path.exists());
    bench.alert(2);
    bench.wait("the third", |bench| bench.alerts()[0].0 == 3);
    bench.writer.finish();
    let read = |path: &Path| ids(&std::fs::read_to_string(path).unwrap());
    assert_eq!((read(&moved), read(&path)), (vec![1, 2], vec![3]));
}

/// A disk that is full: said once, counted always, and the other sink goes on.
#[test]
fn a_full_disk_is_counted_and_said_once() {
    let folder = tempfile::tempdir().unwrap();
    let sinks = "[[events.sink]]\nto = \"file\"\npath = \"/dev/full\"\nname = \"full\"\n[[events.sink]]\nto = \"file\"\npath = \"eve.json\"\n";
    let mut bench = bench(&plan(sinks, folder.path()));
    for rule in 0..3 {
        bench.alert(rule);
        bench.wait("both have had it", |bench| {
            bench.alerts() == [(0, u64::from(rule) + 1), (u64::from(rule) + 1, 0)]
        });
    }
    let said = bench.writer.complaints();
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("event sink full") && said[0].contains("No space left"), "{said:?}");
    let (done, _) = bench.writer.finish();
    assert_eq!((done[0].errors, done[1].errors), (3, 0));
}

/// A folder that is not there is found when the program starts, not in the first alert.
#[test]
fn a_file_that_cannot_be_opened_is_an_error_at_start() {
    let folder = tempfile::tempdir().unwrap();
    let plan = plan("[[events.sink]]\nto = \"file\"\npath = \"nowhere/eve.json\"\n", folder.path());
    let parts = Parts {
        rings: Rings::default(),
        lines: Lines::new(Eve::of(&plan), FlowLog::default()),
        clock: Clock::manual().0,
        cpus: Vec::new(),
        reopen: Arc::default(),
        lost: Box::new(|| 0),
        following: Following::new(Types::NONE, Types::NONE),
    };
    let error = Writer::start(&plan.events, parts).unwrap_err().to_string();
    assert!(error.contains("event sink file") && error.contains("No such file"), "{error}");
}

/// Flow records that workers lost are missing in a flow log, and it says so.
#[test]
fn a_flow_log_says_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let sink = "[[events.sink]]\nto = \"file\"\npath = \"flows.log\"\nformat = \"vpc-flow-log\"\n";
    let bench = bench(&plan(sink, folder.path()));
    assert!(!bench.emitter.wants(Type::Alert));
    bench.lost.store(5, Ordering::Relaxed);
    bench.writer.finish();
    let text = std::fs::read_to_string(folder.path().join("flows.log")).unwrap();
    let words: Vec<&str> = text.split_whitespace().collect();
    assert_eq!((words.len(), words[1], words[13]), (14, "123456789012", "SKIPDATA"), "{text}");
}
