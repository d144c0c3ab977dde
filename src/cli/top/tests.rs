use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use serde_json::json;

use super::*;

/// What an instance answers; each counter is `n` times as high.
fn answers(n: u64) -> Sample {
    let status = json!({
        "state": "degraded", "fit": true, "reasons": [{ "cause": "reload-failed", "text": "edge.toml:7: there is no stage \"acll\"" }],
        "file": "edge.toml", "policy": "0c4f7ab19e5d2286", "stages": ["acl", "dns"], "flows": { "live": 1234, "capacity": 65536 },
        "pool": { "buffers": 8192, "available": 6144 }, "events_lost": 3,
        "workers": [
            { "worker": 0, "cpu": 2, "place": "rx", "rate": { "busy_ratio": 0.75 } },
            { "worker": 1, "cpu": 3, "place": "inspect, stage 0 \"acl\"", "rate": { "busy_ratio": 0.5 } },
        ],
    });
    let worker = |worker: u64, busy: u64| {
        json!({
            "worker": worker, "received": 1_000_000 * n * busy, "received_bytes": 800_000_000 * n * busy,
            "busy_cycles": 150_000_000 * n * busy, "handed_out": 7 * n, "flows": { "live": 617 },
            "queues": [{ "queue": 0, "full_polls": 1000 * n }],
        })
    };
    let port = json!({ "rx_packets": 3_000_000 * n, "rx_bytes": 2_400_000_000 * n, "tx_packets": 2_900_000 * n, "tx_bytes": 2_300_000_000 * n, "rx_missed": 12 * n, "rx_no_buffer": 0, "rx_errors": 0 });
    let stage = |name: &str, seen: u64| json!({ "stage": name, "seen": seen * n, "passed_on": seen * n - 5 * n, "sent_home": 0, "dropped": 5 * n, "panics": 0 });
    let stats = json!({
        "uptime_s": 3600.0 + n as f64, "received": 3_000_000 * n, "received_bytes": 2_400_000_000 * n, "sent": 2_900_000 * n,
        "sent_bytes": 2_300_000_000 * n, "dropped": 100_000 * n, "drops": { "acl.deny": 90_000 * n, "geneve_version": 10_000 * n },
        "workers": [worker(0, 2), worker(1, 1)], "stages": [stage("acl", 40_000), stage("dns", 300)],
        "ports": [{ "port": 0, "device": "0000:00:06.0", "link": { "up": true }, "stats": port }],
    });
    let flow = |id: u64, source: &str, bytes: u64| {
        json!({
            "flow_id": id, "source": source, "source_port": 40_000 + id, "destination": "10.2.0.9", "destination_port": 443, "protocol": 6,
            "bytes": [bytes * n, 10 * n], "packets": [100 * n, 100 * n], "state": "established", "verdict": "settled", "reason": null, "tenant": "payments",
        })
    };
    let flows = json!({ "flows": [flow(1, "10.1.0.1", 5000), flow(2, "2001:db8::1", 90_000), flow(3, "10.1.0.3", 200)] });
    let tenants = json!({ "flows": 1234, "tenants": { "payments": 1000, "lab": 234 } });
    Sample { status, stats, flows, tenants, why_no_flows: String::new() }
}

/// One second has passed between two answers.
fn picture() -> Picture {
    let mut history = History::default();
    let before = answers(1);
    Picture::of(None, &before, &mut history);
    let mut picture = Picture::of(Some(&before), &answers(2), &mut history);
    picture
        .events
        .push_back("12:00:00.050 drop     TCP 10.1.0.5:40001 > 10.2.0.9:22 acl: acl.deny, 40 bytes".into());
    picture
}

fn shown(view: &View, picture: &Picture, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal");
    terminal.draw(|frame| draw(view, picture, frame.buffer_mut())).expect("it is drawn");
    draw::text(terminal.backend().buffer())
}

fn view(pane: Pane) -> View {
    View { colour: false, ..View::of(pane) }
}

/// Golden pictures; SLUICEGATE_BLESS=1 writes them anew, to be looked at.
fn golden(name: &str, shown: &str) {
    let path = format!("{}/src/cli/top/tests/{name}.txt", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("SLUICEGATE_BLESS").is_some() {
        return std::fs::write(path, shown).expect("written");
    }
    assert_eq!(shown, std::fs::read_to_string(path).expect("a picture"), "{name}:\n{shown}");
}

#[test]
fn it_reads_well_on_80_columns() {
    golden("all-80x24", &shown(&view(Pane::All), &picture(), 80, 24));
}

#[test]
fn it_reads_well_on_120_columns() {
    golden("all-120x40", &shown(&view(Pane::All), &picture(), 120, 40));
}

/// Losses are seen on 80 columns, whatever else has no room, and no figure is cut in two.
#[test]
fn losses_have_room() {
    let mut now = answers(2);
    now.status["events_lost"] = 12_345.into();
    now.status["flows"] = json!({ "live": 1_000_000, "capacity": 4_194_304 });
    now.status["pool"] = json!({ "buffers": 100, "available": 100 });
    let picture = Picture::of(Some(&answers(1)), &now, &mut History::default());
    let sent = |width| shown(&view(Pane::All), &picture, width, 24).lines().nth(2).map(str::to_owned);
    assert!(
        sent(80).is_some_and(|line| line.ends_with("  events lost 12.3 k  pool 100 %")),
        "{:?}",
        sent(80)
    );
    assert!(sent(120).is_some_and(|line| line.ends_with("  flows 1.00 M of 4.19 M")), "{:?}", sent(120));
}

/// On a large terminal all workers are seen before flows get the rest.
#[test]
fn sixteen_workers_have_room() {
    let status = json!({ "state": "ready" });
    let workers: Vec<Value> = (0..16).map(|n| json!({ "worker": n, "received": 1 })).collect();
    let flows: Vec<Value> = (0..300).map(|n| json!({ "flow_id": n, "source": "10.1.0.1" })).collect();
    let now = Sample {
        status,
        stats: json!({ "uptime_s": 2.0, "workers": workers }),
        flows: json!({ "flows": flows }),
        ..Sample::default()
    };
    let picture = Picture::of(None, &now, &mut History::default());
    let text = shown(&view(Pane::All), &picture, 160, 60);
    assert!(text.lines().any(|line| line.trim_start().starts_with("15 ")), "{text}");
}

#[test]
fn each_pane_has_its_table() {
    let picture = picture();
    for (pane, parts) in [
        (
            Pane::Workers,
            &["worker", "75.0 %", "2.00 M", "12.80 Gbit/s", "75 ", "inspect, stage 0 \"acl\""][..],
        ),
        (Pane::Ports, &["0000:00:06.0", "up", "3.00 M", "19.20 Gbit/s", "12 "]),
        (Pane::Stages, &["acl", "40.0 k", "80 000"]),
        (Pane::Drops, &["acl.deny", "90.0 k", "180 000", "geneve_version"]),
        (Pane::Flows, &["10.1.0.1:40001", "[2001:db8::1]:40002", "TCP", "payments"]),
        (Pane::Tenants, &["payments", "1 000", "81.0 %", "lab"]),
        (Pane::Events, &["acl.deny, 40 bytes"]),
    ] {
        let text = shown(&view(pane), &picture, 150, 24);
        for part in parts {
            assert!(text.contains(part), "{part:?} in\n{text}");
        }
        let narrow = shown(&view(pane), &picture, 80, 24);
        assert!(narrow.lines().all(|line| line.chars().count() <= 80), "{narrow}");
    }
}

/// Whatever the size, and whatever is known: nothing panics, and nothing is beyond the edge.
#[test]
fn no_terminal_is_too_small() {
    for picture in [Picture::default(), picture()] {
        for pane in Pane::EACH {
            for (width, height) in [(1, 1), (1, 50), (200, 1), (2, 2), (7, 7), (20, 5), (79, 6), (500, 200)] {
                for above in [0, 1, usize::MAX] {
                    let text = shown(&View { above, colour: true, ..view(pane) }, &picture, width, height);
                    assert_eq!(text.lines().count(), usize::from(height));
                }
            }
        }
    }
}

fn rows(view: &View) -> Vec<String> {
    let text = shown(view, &picture(), 120, 24);
    let lines = text.lines().skip_while(|line| !line.starts_with("flow from")).skip(1);
    lines
        .take_while(|line| !line.is_empty())
        .map(|line| line.split_whitespace().next().unwrap_or_default().to_owned())
        .collect()
}

#[test]
fn rows_are_sorted_filtered_and_scrolled() {
    let flows = view(Pane::Flows);
    let [one, two, three] = ["10.1.0.1:40001", "[2001:db8::1]:40002", "10.1.0.3:40003"];
    assert_eq!(rows(&flows), [two, one, three], "by rate");
    assert_eq!(rows(&View { reversed: true, ..flows.clone() }), [three, one, two]);
    assert_eq!(rows(&View { sort: Some(0), ..flows.clone() }), [one, three, two], "words from the first");
    assert_eq!(rows(&View { sort: Some(9), ..flows.clone() }), [one, three, two], "round");
    assert_eq!(rows(&View { filter: "db8".into(), ..flows.clone() }), [two]);
    assert!(
        shown(&View { filter: "x".into(), ..flows.clone() }, &picture(), 80, 24).contains("no row has that")
    );
    let text = shown(&View { above: 9, ..flows }, &picture(), 120, 9);
    assert!(text.contains(three) && !text.contains(two), "{text}");
}

#[test]
fn keys_change_the_view() {
    let mut view = view(Pane::All);
    let type_in = |view: &mut View, keys: &str| {
        keys.chars()
            .map(|c| view.key(KeyEvent::new(KeyCode::Char(c), KeyModifiers::NONE)))
            .fold(false, |end, is| end | is)
    };
    assert!(!type_in(&mut view, "6sr"));
    assert_eq!((view.pane, view.sort, view.reversed), (Pane::Flows, Some(0), true));
    assert!(!type_in(&mut view, "/q1p"), "they are typed");
    assert_eq!((view.filter.as_str(), view.typing, view.paused), ("q1p", true, false));
    let press = |view: &mut View, code| view.key(KeyEvent::new(code, KeyModifiers::NONE));
    press(&mut view, KeyCode::Backspace);
    press(&mut view, KeyCode::Enter);
    assert_eq!((view.filter.as_str(), view.typing), ("q1", false));
    press(&mut view, KeyCode::Tab);
    assert_eq!(
        (view.pane, view.sort, view.reversed, view.filter.as_str()),
        (Pane::Tenants, None, false, "q1")
    );
    press(&mut view, KeyCode::Esc);
    press(&mut view, KeyCode::Up);
    type_in(&mut view, "p");
    assert_eq!((view.filter.as_str(), view.above, view.paused), ("", 0, true));
    assert!(type_in(&mut view, "q"));
    assert!(view.key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL)));
}

/// A program that was started anew has no rates yet, and what it says first is no difference to what the other one said last.
#[test]
fn another_process_begins_at_zero() {
    let mut history = History::default();
    Picture::of(Some(&answers(1)), &answers(2), &mut history);
    assert_eq!(history.received.len(), 1);
    let mut again = answers(1);
    again.stats["uptime_s"] = 1.0.into();
    let picture = Picture::of(Some(&answers(2)), &again, &mut history);
    assert_eq!((picture.rates[0].0, history.received.len()), (0.0, 0));
    // Another version says less.
    let less = Sample { status: json!({}), stats: json!({ "workers": 7 }), ..Sample::default() };
    let picture = Picture::of(Some(&again), &less, &mut history);
    assert!(picture.workers.rows.is_empty());
}

#[test]
fn trouble_is_said_over_the_old_picture() {
    let mut live = Live::new(view(Pane::All));
    live.take(Came::Sample(Box::new(answers(1))));
    live.take(Came::Sample(Box::new(answers(2))));
    live.take(Came::Trouble("admin.sock: nobody listens".into()));
    let text = shown(&live.view, &live.picture, 80, 24);
    assert!(text.contains("0c4f7ab19e5d2286") && text.contains("trying again: admin.sock: nobody"), "{text}");
    live.take(Came::Sample(Box::new(answers(3))));
    assert!(!shown(&live.view, &live.picture, 80, 24).contains("trying again"));
    // Nobody answers, and nobody refuses.
    live.waiting(Duration::ZERO);
    assert!(!shown(&live.view, &live.picture, 80, 24).contains("no answer"), "it is not late yet");
    live.heard = std::time::Instant::now().checked_sub(Duration::from_secs(9)).expect("a machine that is up");
    live.waiting(Duration::ZERO);
    assert!(shown(&live.view, &live.picture, 80, 24).contains("no answer for 9 s, still waiting"));
    live.take(Came::Sample(Box::new(answers(4))));
    assert!(!shown(&live.view, &live.picture, 80, 24).contains("no answer"));
    // A picture that stands still does so, and events wait for nobody.
    live.view.paused = true;
    live.take(Came::Told("{\"event_type\":\"stats\"}".into()));
    assert!(live.picture.events.is_empty() && shown(&live.view, &live.picture, 80, 24).contains("PAUSED"));
    live.view.paused = false;
    (0..=EVENTS).for_each(|_| live.take(Came::Told("not JSON".into())));
    assert_eq!(live.picture.events.len(), EVENTS);
}
