//! Alerts of `log` rules.

use super::*;
use crate::config::EventsPlan;
use crate::event::{Alert, Body, Emitter, Rings, Said, Type, Types, emitters};

/// One worker's alerts.
pub(super) struct Ear {
    emitter: Emitter,
    rings: Rings,
}

impl Ear {
    pub fn new() -> Self {
        let mut rings = Rings::default();
        let plan = EventsPlan { ring: 4096, ..EventsPlan::default() };
        let wanted = Types::NONE.with(Type::Alert);
        let emitter = emitters(&plan, wanted, 0, Arc::default(), &mut rings);
        Ear { emitter, rings }
    }

    /// Shows a batch to a stage: which rules told of packets between which ends, and whether those were stopped, in an order of their own.
    pub fn run(&mut self, stage: &mut dyn Stage, batch: &mut Batch) -> Vec<String> {
        stage.run(batch, &mut Cx::new(0, WorkerId(0), &REASONS).with_events(0, &mut self.emitter));
        let mut alerts = Vec::new();
        while self.rings.take(|said| {
            let Said::Event(event) = said else { panic!("{said:?}") };
            let Body::Alert(Alert { rule, blocked }) = event.body else { panic!("{event:?}") };
            let [(from, from_port), (to, to_port)] = event.about.ends().unwrap();
            alerts.push(format!("{from} {from_port:?} {to} {to_port:?} rule {rule} blocked {blocked}"));
        }) {}
        alerts.sort();
        alerts
    }
}

/// A log rule tells of what it matches in front of the deciding rule, and what became of it; count rules and rules behind do not.
#[test]
fn log_rules_make_alerts() {
    let shared = built(
        "count,tcp,,,,,,\n\
         log,tcp,,,,22|80,,\n\
         log,,10.0.0.0/8,,,,,\n\
         deny,tcp,,,,22,,\n\
         log,,,,,,,behind\n\
         allow,,10.0.0.0/8,,,,,\n",
        Action::Deny,
    );
    let (mut stage, mut ear) = (shared.make(&on(0)), Ear::new());
    let mut batch = batch(&[
        packet(6, "10.0.0.1", "1.1.1.1", Some((9, 22))),
        packet(6, "11.0.0.1", "1.1.1.1", Some((9, 80))),
        packet(17, "10.0.0.2", "1.1.1.1", Some((9, 53))),
    ]);
    let expected = [
        "10.0.0.1 Some(9) 1.1.1.1 Some(22) rule 1 blocked true",
        "10.0.0.1 Some(9) 1.1.1.1 Some(22) rule 2 blocked true",
        "10.0.0.2 Some(9) 1.1.1.1 Some(53) rule 2 blocked false",
        "10.0.0.2 Some(9) 1.1.1.1 Some(53) rule 4 blocked false",
        "11.0.0.1 Some(9) 1.1.1.1 Some(80) rule 1 blocked true",
        "11.0.0.1 Some(9) 1.1.1.1 Some(80) rule 4 blocked true",
    ];
    assert_eq!(ear.run(stage.as_mut(), &mut batch), expected);
}

#[test]
fn alerts_have_names_and_numbers() {
    let text = "action,protocol,comment,id,severity\nlog,tcp,ssh,1000022,1\nallow,udp,,,\nlog,,,,\n";
    let rules = csv::parse("t.csv", text.as_bytes()).unwrap();
    let set = RuleSet::new(rules, Action::Deny).unwrap();
    let found: Vec<(String, u32, u8)> = super::super::alerts::signatures(&set)
        .into_iter()
        .map(|known| (known.signature, known.signature_id, known.severity))
        .collect();
    let expected = [("ssh", 1_000_022, 1), ("t.csv:3 allow", 2, 3), ("t.csv:4 log", 3, 3)];
    assert_eq!(found, expected.map(|(text, id, severity)| (text.to_owned(), id, severity)));
    for (column, value) in
        [("id", "0"), ("id", "x"), ("id", "4294967296"), ("severity", "0"), ("severity", "256")]
    {
        let wrong = problems(&format!("action,{column}\nlog,{value}\n"));
        assert!(wrong[0].starts_with(&format!("t.csv:2: {column}: \"{value}\"")), "{wrong:?}");
    }
}

#[test]
fn two_log_rules_cannot_have_one_number() {
    let parse = |rules: &str| crate::config::parse_stage(&KIND, rules, std::path::Path::new(""));
    let twice = "[[rule]]\naction = \"log\"\nid = 2\n[[rule]]\naction = \"log\"\n";
    let wrong = parse(twice).unwrap_err()[0].to_string();
    assert!(wrong.contains("rule[1]: 2 is the id of rule[0] as well"), "{wrong}");
    // Only alerts have numbers.
    assert!(parse(&twice.replacen("log", "allow", 1)).is_ok());
}
