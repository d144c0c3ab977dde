//! `sluicegate gateway`: the load balancer's side.

#[cfg(feature = "dpdk")]
mod forward;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::{Failure, OK, Outcome, show};
use crate::config::{self, GatewayPlan, Options, Overrides};
use crate::gateway::simulate::{self, Answer, Ecmp, Question};
use crate::gateway::{TABLE, is_prime};

/// The load balancer's side: forward frames to appliances and back.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Gateway {
    #[command(subcommand)]
    command: Option<Command>,
    /// The gateway's file (TOML)
    #[arg(required = true)]
    file: Option<PathBuf>,
    /// Set one value over the file, e.g. --set flow.capacity=100000 (repeatable)
    #[arg(long = "set", value_name = "PATH=VALUE")]
    set: Vec<String>,
    /// Stop by itself after so long, e.g. 30s
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
    /// How often to print figures, e.g. 1s; 0s for never
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "1s")]
    stats_interval: Duration,
    /// Everything on standard output as JSON, one object a line
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Compute what is lost when one of many targets or gateways dies
    Simulate(Simulate),
}

/// What is simulated. Each number of targets is combined with each number of gateways.
#[derive(Debug, Args)]
struct Simulate {
    /// Targets, of one weight: 2 to 1000
    #[arg(long, value_delimiter = ',', default_values_t = [10, 100, 300, 1000], value_parser = clap::value_parser!(u16).range(2..=1000))]
    targets: Vec<u16>,
    /// Gateways behind ECMP: 2 to 64
    #[arg(long, value_delimiter = ',', default_values_t = [2, 8, 64], value_parser = clap::value_parser!(u16).range(2..=64))]
    gateways: Vec<u16>,
    /// Slots of the Maglev table: a prime number
    #[arg(long, default_value_t = TABLE)]
    table: u32,
    /// Flows
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1000..=100_000_000))]
    flows: u32,
    /// As JSON
    #[arg(long, conflicts_with = "markdown")]
    json: bool,
    /// As a table for a document
    #[arg(long)]
    markdown: bool,
}

impl Gateway {
    pub(super) fn run(self) -> Outcome {
        match self.command {
            Some(Command::Simulate(simulate)) => simulate.run(),
            None => self.forward(),
        }
    }

    #[cfg(not(feature = "dpdk"))]
    fn forward(self) -> Outcome {
        plan(&self.file.unwrap_or_default(), &self.set)?;
        let text = "this program was built without DPDK: it checks gateways' files and simulates, and opens no ports";
        Err(Failure::Other(text.into()))
    }
}

/// A gateway's plan, from its file.
pub(super) fn plan(file: &std::path::Path, set: &[String]) -> Result<GatewayPlan, Failure> {
    let plan = config::gateway::load(file, &Overrides::here(set), &Options::default())?;
    Ok(plan)
}

const COLUMNS: [&str; 11] = [
    "targets",
    "gateways",
    "fullest",
    "target dies",
    "others move",
    "removed: others move",
    "gateway dies: plain",
    "resilient",
    "change target",
    "after a removal: plain",
    "resilient ",
];

impl Simulate {
    fn run(self) -> Outcome {
        if !is_prime(self.table) {
            return Err(Failure::Other(format!("--table {}: not a prime number", self.table)));
        }
        let mut answers = Vec::new();
        for &targets in &self.targets {
            for &gateways in &self.gateways {
                let question = Question { targets, gateways, table: self.table, flows: self.flows };
                let answer = simulate::run(&question).map_err(|bad| Failure::Other(bad.to_string()))?;
                answers.push((question, answer));
            }
        }
        if self.json {
            let all: Vec<_> = answers
                .iter()
                .map(|(question, answer)| serde_json::json!({ "question": question, "answer": answer }))
                .collect();
            return show::print(format_args!("{}\n", serde_json::Value::Array(all))).map(|()| OK);
        }
        let rows = answers.iter().map(|(question, answer)| row(question, answer));
        if self.markdown {
            let mut text = format!("| {} |\n|{}\n", COLUMNS.join(" | "), "---|".repeat(COLUMNS.len()));
            for row in rows {
                text += &format!("| {} |\n", row.join(" | "));
            }
            return show::print(text).map(|()| OK);
        }
        let mut table = show::table(&COLUMNS);
        for row in rows {
            table.add_row(row);
        }
        show::print(format_args!(
            "{table}\nParts of {} flows, in percent; `fullest` for a mean of 1.\n",
            self.flows
        ))?;
        Ok(OK)
    }
}

fn row(question: &Question, answer: &Answer) -> Vec<String> {
    let percent = |part: f64| format!("{:.2}", 100.0 * part);
    let Ecmp { plain, resilient } = answer.change_target;
    vec![
        question.targets.to_string(),
        question.gateways.to_string(),
        format!("{:.3}", answer.fullest),
        percent(answer.unavoidable),
        percent(answer.unhealthy_moves),
        percent(answer.removal_moves),
        percent(answer.reach_another.plain),
        percent(answer.reach_another.resilient),
        percent(plain.max(resilient)),
        percent(answer.change_target_after_removal.plain),
        percent(answer.change_target_after_removal.resilient),
    ]
}
