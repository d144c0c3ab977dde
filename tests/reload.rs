//! Another plan for a worker at work, by hand: which flows ask again, who is shown what, and what stays.

mod common;

use std::sync::Arc;

use sluicegate::config::{Plan, Settings};
use sluicegate::packet::{Packet, Verdict};
use sluicegate::stage::{Backend, Cx, Inspect, Make, Parsed, PerFlow, PerPacket, Shared, Stage, StageKind};

use common::inner::{End, tcp, udp, v4, wrap};
use common::{Fate, Rig, TUNNEL, plan_with};

/// Settles every flow with the verdict of its table, and remembers by flow how many packets it was shown.
#[derive(Clone, Debug)]
struct Says {
    says: &'static str,
    needs_beginning: bool,
}

struct Running {
    says: &'static str,
    seen: PerFlow<u64>,
}

impl Inspect for Running {
    fn inspect(&mut self, packet: &mut Packet<'_>, cx: &mut Cx<'_>) -> Verdict {
        let seen = self.seen.of(packet.meta()).map_or(0, |seen| std::mem::replace(seen, *seen + 1));
        match self.says {
            "pass" => cx.settle(),
            "home" => {
                cx.settle();
                return Verdict::Forward;
            }
            "deny" => {
                cx.settle();
                return Verdict::Drop(cx.reason(0));
            }
            // From its third packet on, a flow's packets are dropped; nothing is settled.
            "two" if seen >= 2 => return Verdict::Drop(cx.reason(0)),
            _ => {}
        }
        Verdict::Next
    }
}

impl Parsed for Says {
    fn wants_flows(&self) -> bool {
        true
    }
    fn judges_any_packet(&self) -> bool {
        !self.needs_beginning
    }
    fn flow_state_bytes(&self) -> u64 {
        PerFlow::<u64>::BYTES
    }
    fn build(&self, _: Backend) -> Result<Arc<dyn Shared>, sluicegate::dpdk::Error> {
        Ok(Arc::new(self.clone()))
    }
}

impl Shared for Says {
    fn make(&self, make: &Make) -> Box<dyn Stage> {
        Box::new(PerPacket(Running { says: self.says, seen: PerFlow::new(make) }))
    }
}

static SAYS: StageKind = StageKind {
    name: "says",
    summary: "",
    help: "",
    example: "",
    reasons: &[("no", "it does not pass")],
    parse: |settings: &Settings<'_>| {
        let table: std::collections::BTreeMap<String, String> = settings.read()?;
        let says = ["pass", "home", "deny", "two", "every"];
        let says = says.into_iter().find(|says| table.get("says").is_some_and(|given| given == says));
        let needs_beginning = table.contains_key("needs");
        Ok(Box::new(Says { says: says.expect("a known word"), needs_beginning }))
    },
};

/// A plan of stages `name says more`, in that order.
fn plan(stages: &[&str]) -> Plan {
    plan_with(&text(stages), &[&SAYS])
}

fn text(stages: &[&str]) -> String {
    let mut text = TUNNEL.to_owned();
    for stage in stages {
        let mut words = stage.splitn(3, ' ');
        let (name, says, more) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap_or(""));
        text += &format!("\n[[stage]]\nuse = \"says\"\nname = \"{name}\"\nsays = \"{says}\"\n{more}\n");
    }
    text + "\n[flow]\ntracking = true\n"
}

fn after(before: &Plan, stages: &[&str]) -> Plan {
    let mut plan = plan(stages);
    plan.join_reasons(&before.reasons);
    plan
}

fn client(n: u8) -> End {
    v4(10, 1, 0, n, 40_000)
}

fn server() -> End {
    v4(10, 2, 0, 9, 443)
}

/// "home", or why not.
fn send(rig: &mut Rig, n: u8) -> String {
    match rig.fate(&wrap(&udp(client(n), server(), b"x"), 7, 60_001)) {
        Fate::Home(_) => "home".into(),
        Fate::Dropped(reason) => reason,
        other => format!("{other:?}"),
    }
}

fn seen(rig: &Rig) -> Vec<u64> {
    rig.settled().stages.iter().map(|stage| stage.seen).collect()
}

/// What becomes of a flow's next two packets after a reload, and what each stage has been shown by then. Before it the flow had two packets.
fn changed(before: &[&str], now: &[&str]) -> (Vec<String>, Vec<u64>) {
    let mut all = Vec::new();
    // Found by its packet, and by the sweep.
    for swept in [false, true] {
        let first = plan(before);
        let second = after(&first, now);
        let mut rig = Rig::new(&first);
        let _ = [send(&mut rig, 1), send(&mut rig, 1)];
        match swept {
            true => rig.reload(&second),
            false => rig.send(&second),
        }
        let fates = vec![send(&mut rig, 1), send(&mut rig, 1)];
        all.push((fates, seen(&rig)));
    }
    if all[0].0[0] != "on_reload" {
        assert_eq!(all[0], all[1], "{before:?} -> {now:?}");
    }
    all.swap_remove(0)
}

fn home(fates: (Vec<String>, Vec<u64>)) -> Vec<u64> {
    assert_eq!(fates.0, ["home", "home"]);
    fates.1
}

#[test]
fn stages_that_stay_keep_what_they_know_and_what_they_settled() {
    assert_eq!(home(changed(&["a pass", "b every"], &["a pass", "b every"])), [1, 4]);
    // Moved, with something new in front, and without what was in front.
    assert_eq!(home(changed(&["a pass", "b every"], &["b every", "a pass"])), [4, 1]);
    assert_eq!(home(changed(&["a pass"], &["n every", "a pass"])), [2, 1]);
    assert_eq!(home(changed(&["n every", "a pass"], &["a pass"])), [1]);
    // The state of its flow is there: the third packet is the third.
    assert_eq!(changed(&["a pass", "t two"], &["t two"]).0, ["t.no", "t.no"]);
    assert_eq!(changed(&["t two"], &["a pass", "t two"]).0, ["t.no", "t.no"]);
    // Of one that changed it is not, but its counters go on.
    assert_eq!(home(changed(&["t two"], &["t two more = \"1\""])), [4]);
}

#[test]
fn stages_that_changed_ask_again_and_only_they() {
    assert_eq!(home(changed(&["a pass", "b pass"], &["a pass more = \"1\"", "b pass"])), [2, 1]);
    assert_eq!(home(changed(&["a pass", "b pass"], &["a pass", "b pass", "c pass"])), [1, 1, 1]);
    let denied = ["b.no", "flow_condemned"];
    assert_eq!(changed(&["a pass", "b pass"], &["a pass", "b deny"]).0, denied);
    assert_eq!(changed(&["a pass", "b pass"], &["b deny", "a pass"]).0, denied);
    assert_eq!(changed(&["a pass"], &["a pass", "b deny"]).0, denied);
}

#[test]
fn a_denied_flow_lives_when_whoever_denied_it_is_gone_or_thinks_better_of_it() {
    let condemned = ["flow_condemned", "flow_condemned"];
    assert_eq!(home(changed(&["a pass", "b deny"], &["a pass", "b pass"])), [1, 2]);
    assert_eq!(home(changed(&["a deny", "b pass"], &["b pass"])), [1]);
    assert_eq!(changed(&["a pass", "b deny"], &["b deny", "a pass"]).0, condemned, "it stays");
    assert_eq!(changed(&["a pass", "b deny"], &["a pass more = \"1\"", "b deny"]).0, condemned);
    let keep = "a pass on_reload = \"keep\"";
    assert_eq!(changed(&["a deny"], &[keep]).0, condemned);
    assert_eq!(changed(&["a deny"], &["a deny more = \"1\""]).0, ["a.no", "flow_condemned"], "asked again");
}

#[test]
fn what_was_sent_home_is_seen_by_those_behind_when_nobody_sends_it_home_any_more() {
    // Kept: those behind it are passed by as before, and new ones, too.
    assert_eq!(home(changed(&["a home", "b deny"], &["a home", "b deny", "c deny"])), [1, 0, 0]);
    assert_eq!(home(changed(&["a home", "b deny"], &["a home", "c deny", "b deny"])), [1, 0, 0]);
    for now in [&["b deny"][..], &["a pass", "b deny"], &["b deny", "a home"]] {
        assert_eq!(changed(&["a home", "b deny"], now).0, ["b.no", "flow_condemned"], "{now:?}");
    }
    assert_eq!(home(changed(&["a home", "b deny"], &["a home more = \"1\"", "b deny"])), [2, 0]);
}

#[test]
fn a_stage_that_needs_the_beginning_of_a_flow_does_as_it_is_told() {
    let needs = |more: &str| format!("a deny needs = \"1\"\n{more}");
    let to = |more: &str| changed(&["a pass needs = \"1\""], &[needs(more).as_str()]).0;
    assert_eq!(to(""), ["home", "home"]);
    assert_eq!(to("on_reload = \"keep\""), ["home", "home"]);
    assert_eq!(to("on_reload = \"redecide\""), ["a.no", "flow_condemned"]);
    assert_eq!(to("on_reload = \"drop\""), ["on_reload", "flow_condemned"]);
    // Likewise one that was not there; but one that need not see the beginning is asked.
    let new = |stage: &str| changed(&["a pass"], &["a pass", stage]).0;
    assert_eq!(new("b deny needs = \"1\""), ["home", "home"]);
    assert_eq!(new("b deny"), ["b.no", "flow_condemned"]);
    assert_eq!(new("b deny on_reload = \"keep\""), ["home", "home"]);
    // The words alone change nothing.
    let said = ["a pass on_reload = \"drop\"\non_error = \"pass\""];
    assert_eq!(home(changed(&["a pass"], &said)), [1]);
    assert_eq!(home(changed(&["a pass"], &["a pass on_unread = \"drop\""])), [2]);
    // New flows meet the stage as it is.
    let first = plan(&["a pass needs = \"1\""]);
    let mut rig = Rig::new(&first);
    rig.reload(&after(&first, &[needs("").as_str()]));
    assert_eq!(send(&mut rig, 2), "a.no");
}

#[test]
fn a_flow_from_before_that_nobody_can_judge_is_dropped_if_it_is_to_be() {
    let first = plan(&["a pass needs = \"1\""]);
    let mut rig = Rig::new(&first);
    assert_eq!(send(&mut rig, 1), "home");
    rig.send(&after(&first, &["a pass needs = \"2\"\non_reload = \"drop\""]));
    assert_eq!(
        [send(&mut rig, 1), send(&mut rig, 1), send(&mut rig, 2)],
        ["on_reload", "flow_condemned", "home"]
    );
}

#[test]
fn values_that_a_reload_can_change_take_effect() {
    let other = |text: String| plan_with(&text, &[&SAYS]);
    let mut rig = Rig::new(&plan(&["a pass"]));
    assert_eq!(send(&mut rig, 1), "home");
    let mut seconds = 0;
    let mut pass = |rig: &mut Rig| {
        for _ in 0..10 {
            seconds += 1;
            rig.set_clock(seconds * 1_000_000_000);
            rig.worker.poll();
        }
        rig.settled().flows.live()
    };
    assert_eq!(pass(&mut rig), 1, "it lives for two minutes");
    rig.reload(&other(text(&["a pass"]) + "other_idle = \"5s\"\nmargin = \"0s\"\n"));
    assert_eq!(pass(&mut rig), 0);
    // A connection that nobody saw begin; and a load balancer in another subnet.
    let middle = wrap(&tcp(client(1), server(), "A", 7, 7, b"x"), 7, 60_001);
    rig.reload(&other(text(&["a pass"]) + "pickup = \"drop\"\n"));
    assert_eq!(rig.fate(&middle), Fate::Dropped("pickup".into()));
    rig.reload(&other(text(&["a pass"]).replace("10.254.11.0/24", "10.254.12.0/24")));
    assert_eq!(send(&mut rig, 1), "foreign_source");
    rig.reload(&plan(&["a pass"]));
    assert_eq!(send(&mut rig, 1), "home");
}

#[test]
fn hundreds_of_reloads_keep_flows_counters_and_reasons() {
    let plans =
        [&["a pass", "b two"][..], &["b two", "c every", "a pass"], &["c every", "b two"], &["d pass"]];
    let mut last = plan(plans[0]);
    let mut rig = Rig::new(&last);
    for flow in 1..=200 {
        assert_eq!(send(&mut rig, flow), "home");
    }
    let most = last.reasons.len();
    for round in 0..400 {
        let next = after(&last, plans[(round + 1) % plans.len()]);
        rig.reload(&next);
        assert!(next.reasons.len() <= most + 2, "c and d have come, once: {}", next.reasons.len());
        last = next;
        assert_eq!(rig.settled().flows.live(), 200);
    }
    for flow in 1..=200 {
        assert_eq!(send(&mut rig, flow), "home");
    }
    let now = rig.settled();
    assert_eq!((now.flows.opened, now.dropped(), now.stages[0].seen, now.stages[1].seen), (200, 0, 400, 400));
}

#[test]
fn acl_asks_again_in_the_orientation_of_who_opened_the_flow() {
    let acl = |rules: &str, default: &str| {
        let text = format!("{TUNNEL}\n[[stage]]\nuse = \"acl\"\ndefault = \"{default}\"\nrule = [{rules}]\n");
        plan_with(&text, &[])
    };
    let web = "{ action = \"allow\", protocol = \"tcp\", destination_port = 443 }";
    let first = acl(web, "deny");
    let mut rig = Rig::new(&first);
    let frames = |n: u8| {
        let (from, to) = (client(n), server());
        [
            tcp(from, to, "S", 100, 0, &[]),
            tcp(to, from, "SA", 500, 101, &[]),
            tcp(from, to, "A", 101, 501, &[]),
            tcp(to, from, "PA", 501, 101, b"first after the reload"),
        ]
        .map(|inner| wrap(&inner, 7, 60_001))
    };
    let fate = |rig: &mut Rig, frame: &[u8]| match rig.fate(frame) {
        Fate::Home(_) => "home".to_owned(),
        Fate::Dropped(reason) => reason,
        other => format!("{other:?}"),
    };
    for frame in &frames(1)[..3] {
        assert_eq!(fate(&mut rig, frame), "home");
    }
    // Rules that still allow it, asked by an answer; then rules that do not; then rules that do again.
    let steps = [
        (acl(&format!("{web}, {{ action = \"deny\", protocol = \"udp\" }}"), "deny"), ["home", "home"]),
        (acl("{ action = \"allow\", protocol = \"udp\" }", "deny"), ["acl.default_deny", "flow_condemned"]),
        (acl("", "allow"), ["home", "home"]),
    ];
    for (plan, fates) in steps {
        rig.reload(&plan);
        assert_eq!([fate(&mut rig, &frames(1)[3]), fate(&mut rig, &frames(1)[2])], fates);
    }
}
