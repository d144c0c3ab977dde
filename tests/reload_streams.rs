//! Reloads while a stage has read half of something: what waits for it is neither lost nor sent twice, and the half that was read counts where the
//! stage stays as it is. docs/reload.md says what becomes of it where it does not.

mod common;

use common::dns::{asked, over_tcp, query};
use common::hello::client_hello;
use common::inner::{End, tcp, v4, wrap};
use common::{Rig, TUNNEL, dropped, plan};
use sluicegate::config::Plan;

/// A protocol whose stage holds what it has not understood yet.
struct Spoken {
    /// The stage, denying names below `ads.example`.
    stage: &'static str,
    port: u16,
    /// What asks for that name, and what asks for another.
    bad: Vec<u8>,
    good: Vec<u8>,
}

fn spoken() -> [Spoken; 3] {
    let hello = |name| client_hello(0x0303, &[0x0304], Some(name));
    let question = |name| over_tcp(&[query(asked(7, name))]);
    let request = |name| format!("GET /a/long/path HTTP/1.1\r\nHost: {name}\r\n\r\n").into_bytes();
    [
        Spoken {
            stage: "[[stage]]\nuse = \"tls\"\ndeny_names = [\"x.ads.example\"]\n",
            port: 443,
            bad: hello("x.ads.example"),
            good: hello("www.example"),
        },
        Spoken {
            stage: "[[stage]]\nuse = \"dns\"\n[[stage.rule]]\naction = \"deny\"\nnames = [\"x.ads.example\"]\n",
            port: 53,
            bad: question("x.ads.example"),
            good: question("www.example"),
        },
        Spoken {
            stage: "[[stage]]\nuse = \"http\"\n[[stage.rule]]\naction = \"deny\"\nhosts = [\"x.ads.example\"]\n",
            port: 80,
            bad: request("x.ads.example"),
            good: request("www.example"),
        },
    ]
}

impl Spoken {
    /// The same stage with a setting in its table.
    fn with(&self, setting: &str) -> String {
        self.stage.replacen("[[stage]]\n", &format!("[[stage]]\n{setting}\n"), 1)
    }
}

const COUNT: &str = "[[stage]]\nuse = \"count\"\nby = \"direction\"\n";

fn of(text: &str) -> Plan {
    plan(&format!("{TUNNEL}[flow]\ntracking = true\n{text}"))
}

/// One connection, of which the client has sent half of what it says.
struct Half {
    rig: Rig,
    plan: Plan,
    ends: [End; 2],
    halves: [Vec<u8>; 2],
}

impl Half {
    fn new(spoken: &Spoken, stages: &str, says: &[u8]) -> Half {
        let plan = of(stages);
        let ends = [v4(10, 0, 0, 1, 40_000), v4(192, 0, 2, 1, spoken.port)];
        let cut = says.len() / 2;
        let halves = [says[..cut].to_vec(), says[cut..].to_vec()];
        let mut half = Half { rig: Rig::new(&plan), plan, ends, halves };
        let [client, server] = ends;
        for inner in [
            tcp(client, server, "S", 99, 0, b""),
            tcp(server, client, "SA", 499, 100, b""),
            tcp(client, server, "A", 100, 500, b""),
        ] {
            assert_eq!(half.send(&inner), (1, vec![]));
        }
        assert_eq!(half.first(), (0, vec![]));
        assert_eq!(half.rig.settled().held_for_stages, 1);
        half
    }

    /// How many frames came home, those of our own left out, and what was dropped.
    fn poll(&mut self) -> (u64, Vec<String>) {
        let before = self.rig.settled();
        self.rig.worker.poll();
        while self.rig.wire.receive().is_some() {}
        let after = self.rig.settled();
        let made = after.answers.made() - before.answers.made();
        (after.sent - before.sent - made, dropped(&self.rig.reasons, &before, &after))
    }

    fn send(&mut self, inner: &[u8]) -> (u64, Vec<String>) {
        self.rig.wire.send(wrap(inner, 7, 61_000));
        self.poll()
    }

    fn first(&mut self) -> (u64, Vec<String>) {
        let [client, server] = self.ends;
        self.send(&tcp(client, server, "PA", 100, 500, &self.halves[0].clone()))
    }

    fn second(&mut self) -> (u64, Vec<String>) {
        let [client, server] = self.ends;
        let at = 100 + self.halves[0].len() as u32;
        self.send(&tcp(client, server, "PA", at, 500, &self.halves[1].clone()))
    }

    /// Other stages from now on. What came home of it until every flow knew, and what was dropped.
    fn reload(&mut self, stages: &str) -> (u64, Vec<String>) {
        let mut next = of(stages);
        next.join_reasons(&self.plan.reasons);
        self.rig.send(&next);
        self.plan = next;
        let mut all = (0, Vec::new());
        while !self.rig.is_back() {
            let (home, gone) = self.poll();
            all.0 += home;
            all.1.extend(gone);
        }
        all
    }
}

#[test]
fn a_stage_that_stays_goes_on_where_it_was() {
    for spoken in spoken() {
        for reloads in [1, 100] {
            let kept = [spoken.stage.to_owned(), format!("{COUNT}{}", spoken.stage)];
            let through = |says: &[u8]| {
                let mut half = Half::new(&spoken, &kept[0], says);
                for n in 1..=reloads {
                    assert_eq!(half.reload(&kept[n % 2]), (0, vec![]), "it waits");
                    assert_eq!(half.rig.settled().held_for_stages, 1);
                }
                // What is sent again meanwhile is the frame that waits.
                assert_eq!(half.first(), (0, vec!["held_again".to_owned()]));
                let second = half.second();
                assert_eq!(half.rig.settled().held_for_stages, 0);
                second
            };
            assert_eq!(through(&spoken.good), (2, vec![]), "both, once");
            let (home, gone) = through(&spoken.bad);
            assert_eq!((home, gone.len()), (0, 2), "neither: {gone:?}");
            assert!(gone.iter().all(|reason| reason == &gone[0] && reason.contains('.')), "{gone:?}");
        }
    }
}

#[test]
fn what_waits_for_a_stage_that_goes_is_sent_once() {
    for spoken in spoken() {
        // Gone; another one of that name, which says of flows from before that it knows nothing.
        for next in [COUNT.to_owned(), spoken.stage.replace("x.ads", "y.ads")] {
            let mut half = Half::new(&spoken, spoken.stage, &spoken.bad);
            assert_eq!(half.reload(&next), (1, vec![]), "{next}");
            assert_eq!(half.rig.settled().held_for_stages, 0);
            assert_eq!(half.first(), (1, vec![]), "it is nobody's any more");
            assert_eq!(half.second(), (1, vec![]));
        }
        // A stage that asks begins to read where the stream is now: the half that it did not see makes no sense to it.
        let asks = spoken.with("on_reload = \"redecide\"").replace("x.ads", "y.ads");
        let mut half = Half::new(&spoken, spoken.stage, &spoken.bad);
        assert_eq!(half.reload(&asks), (1, vec![]));
        // If it takes that for the beginning of something longer, it waits for the rest for as long as any hold lasts.
        let (mut home, gone) = half.second();
        half.rig.set_clock(60_000_000_000);
        home += half.poll().0;
        assert_eq!((home, gone), (1, vec![]));
        assert_eq!(half.rig.settled().held_for_stages, 0);
    }
}

#[test]
fn what_waits_is_dropped_where_flows_from_before_are() {
    for spoken in spoken() {
        let cut = spoken.with("on_reload = \"drop\"").replace("x.ads", "y.ads");
        let mut half = Half::new(&spoken, spoken.stage, &spoken.good);
        assert_eq!(half.reload(&cut), (0, vec!["on_reload".to_owned()]));
        assert_eq!(half.rig.settled().held_for_stages, 0);
        assert_eq!(half.second(), (0, vec!["flow_condemned".to_owned()]));
    }
}
