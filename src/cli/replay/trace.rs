//! `sluicegate explain FILE --pcap CAPTURE`: a replay that says of each packet what each stage made of it, and what went back.

use serde_json::{Value, json};

use super::*;

/// Traces a capture.
pub fn run(config: ConfigArgs, input: PathBuf, json: bool) -> Outcome {
    let replay = Replay {
        config,
        input,
        output: None,
        wrap: Wrap::Auto,
        golden: None,
        update: false,
        packets: true,
        flows: false,
        events: None,
        json,
    };
    let plan = replay.config.plan(false)?;
    show::warnings(&plan.warnings);
    let names: Vec<String> = plan.stages.iter().map(|stage| stage.name.clone()).collect();
    let mut bench = Bench::new(plan, &replay)?;
    let counts =
        |bench: &Bench| bench.pipeline.stages().map(|(_, shared)| shared.counts()).collect::<Vec<_>>();
    let mut known = counts(&bench);
    let mut number = 0u64;
    loop {
        let (mut wrapped, mut came) = (false, Vec::new());
        let prepare = |frame: &pcap::Frame<'_>, put: &mut Vec<u8>| {
            let envelope = replay.envelope(frame, &bench.envelope);
            wrapped = envelope.is_some();
            put.extend_from_slice(envelope.as_deref().unwrap_or(frame.bytes));
            came.clone_from(put);
            true
        };
        let Some(now) = bench.capture.step(prepare).map_err(unreadable)? else { break };
        number += 1;
        let before = bench.counters.snapshot();
        let cycles = |bench: &Bench| -> Vec<u64> {
            let stages = bench.counters.stages();
            stages.iter().map(|stage| stage.cycles.read().iter().map(|(_, sum)| sum).sum()).collect()
        };
        let spent = cycles(&bench);
        bench.hand.store(now, Ordering::Relaxed);
        bench.worker.time_next_poll();
        bench.worker.poll();
        let back: Vec<Vec<u8>> = std::iter::from_fn(|| bench.capture.wire().receive()).collect();
        let (after, took) = (bench.counters.snapshot(), cycles(&bench));
        let verdict = verdict(&before, &after, &bench.plan.reasons);
        let mut stages = Vec::new();
        for (n, name) in names.iter().enumerate() {
            let (Some(old), Some(new)) = (before.stages.get(n), after.stages.get(n)) else { continue };
            let said = if new.seen == old.seen {
                "not asked"
            } else if new.would_drop > old.would_drop {
                "would drop it (shadow)"
            } else if new.would_send_home > old.would_send_home {
                "would send it home (shadow)"
            } else if new.dropped > old.dropped {
                "drops it"
            } else if new.forwarded > old.forwarded {
                "sends it home"
            } else {
                "lets it pass"
            };
            let mut hits = Vec::new();
            if new.seen > old.seen
                && let Some((_, shared)) = bench.pipeline.stages().nth(n)
            {
                let now = shared.counts();
                let old = known.get(n).map_or(&[][..], Vec::as_slice);
                let grew = now.iter().zip(old).filter(|((_, now), (_, old))| now > old);
                hits.extend(grew.map(|((label, _), _)| label.clone()));
                if let Some(place) = known.get_mut(n) {
                    *place = now;
                }
            }
            let cycles =
                took.get(n).zip(spent.get(n)).map(|(now, then)| now - then).filter(|_| said != "not asked");
            stages.push(json!({ "stage": name, "said": said, "counted": hits, "cycles": cycles }));
        }
        let made = json!(after.answers.made() - before.answers.made());
        let traced = json!({
            "packet": number, "wrapped": wrapped, "bytes": came.len(), "verdict": verdict, "stages": stages,
            "went_back": back.iter().map(|frame| went_back(&came, frame)).collect::<Vec<_>>(), "answers": made,
        });
        if json {
            show::print(format_args!("{traced}\n"))?;
        } else {
            show::print(text(&traced))?;
        }
    }
    let report = bench.finish()?;
    Ok(if report.is_clean() { OK } else { FAILED })
}

/// How a frame that went back differs from the one that came.
fn went_back(came: &[u8], back: &[u8]) -> &'static str {
    let mut turned = came.to_vec();
    if let Some(eth) = turned.get_mut(..12) {
        eth.rotate_left(6);
    }
    // Behind the EtherType, and a VLAN tag if there is one.
    let outer = if came.get(12..14) == Some(&[0x81, 0]) { 18 } else { 14 };
    if let Some(addresses) = turned.get_mut(outer + 12..outer + 20) {
        addresses.rotate_left(4);
    }
    if turned == back {
        "as it came, its envelope turned around"
    } else if turned.get(..outer + 20) == back.get(..outer + 20) {
        "its envelope turned around, what is inside edited"
    } else {
        "another frame"
    }
}

fn text(traced: &Value) -> String {
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let wrapped = if traced["wrapped"] == true { ", wrapped" } else { "" };
    let mut text = format!(
        "packet {}: {} ({} bytes{wrapped})\n",
        traced["packet"],
        word(&traced["verdict"]),
        traced["bytes"]
    );
    for stage in list(&traced["stages"]) {
        let counted: Vec<String> = list(&stage["counted"]).iter().map(word).collect();
        let counted = if counted.is_empty() { String::new() } else { format!(": {}", counted.join("; ")) };
        let cycles = stage["cycles"].as_u64().map_or(String::new(), |n| format!(" ({n} cycles)"));
        text += &format!("  {:<12} {}{counted}{cycles}\n", word(&stage["stage"]), word(&stage["said"]));
    }
    for back in list(&traced["went_back"]) {
        text += &format!("  {:<12} {}\n", "went back", word(&back));
    }
    text
}
