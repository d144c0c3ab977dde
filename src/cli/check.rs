//! `sluicegate check`: what a pipeline file would do, with its stages built for real.

use std::path::Path;

use clap::Args;
use serde_json::json;

use super::{ConfigArgs, Failure, OK, Outcome, show};
use crate::app::Estimate;
use crate::config::{self, Options, Overrides, Plan};
use crate::path::Pipeline;
use crate::stage::Backend;

/// Check a pipeline file and print the plan.
#[derive(Debug, Args)]
pub struct Check {
    #[command(flatten)]
    config: ConfigArgs,
    /// Read and check only; do not build the stages' rule sets
    #[arg(long)]
    no_build: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
}

impl Check {
    pub(super) fn run(self) -> Outcome {
        // Once: a pipe has nothing to be read twice.
        let text = config::read(&self.config.file)?;
        if config::gateway::is_gateway(&text) {
            return self.gateway(&text);
        }
        let (name, folder) = (self.config.file.display().to_string(), self.config.file.parent());
        let overrides = Overrides::here(&self.config.set);
        let folder = folder.unwrap_or(Path::new(""));
        let plan = config::load_text(&name, &text, folder, &overrides, &Options::default())?;
        if !self.json {
            show::print(format_args!("{plan}\n"))?;
        }
        let built = if self.no_build { None } else { Some(build(&plan)?) };
        let (reports, metrics) =
            built.map_or_else(|| (Vec::new(), None), |(reports, metrics)| (reports, Some(metrics)));
        if self.json {
            let stages: Vec<_> = reports
                .iter()
                .map(|(name, rows)| json!({ "name": name, "built": rows.iter().cloned().collect::<serde_json::Map<_, _>>() }))
                .collect();
            let all = json!({ "plan": plan.to_json(), "stages": stages, "metrics": metrics, "warnings": plan.warnings });
            show::print(format_args!("{all}\n"))?;
            return Ok(OK);
        }
        for (name, rows) in &reports {
            show::print(format_args!("built {name}\n"))?;
            for (what, value) in rows {
                show::print(format_args!("  {what:<24} {}\n", value.as_str().unwrap_or_default()))?;
            }
        }
        if let Some(metrics) = metrics {
            show::print(format_args!("metrics\n  {:<24} {metrics}\n", "a scrape"))?;
        }
        show::print(format_args!("{}: no mistakes\n", plan.file))?;
        Ok(OK)
    }
}

impl Check {
    fn gateway(self, text: &str) -> Outcome {
        let name = self.config.file.display().to_string();
        let overrides = Overrides::here(&self.config.set);
        let plan = config::gateway::load_text(&name, text, &overrides, &Options::default())?;
        if self.json {
            let all = json!({ "plan": plan.to_json(), "warnings": plan.warnings });
            return show::print(format_args!("{all}\n")).map(|()| OK);
        }
        show::print(format_args!("{plan}\n{}: no mistakes\n", plan.file))?;
        Ok(OK)
    }
}

type Rows = Vec<(String, serde_json::Value)>;

/// Builds the pipeline as `run` would and returns what each stage says of it, and how large its figures are.
fn build(plan: &Plan) -> Result<(Vec<(String, Rows)>, Estimate), Failure> {
    let say = |pipeline: Pipeline| {
        let row = |(what, value)| (what, serde_json::Value::String(value));
        let stages = pipeline
            .stages()
            .map(|(name, shared)| (name.to_owned(), shared.report().into_iter().map(row).collect()))
            .collect();
        (stages, Estimate::of(plan, &pipeline))
    };
    if plan.stages.is_empty() {
        return Ok(say(Pipeline::build(plan, Backend::Soft)?));
    }
    #[cfg(feature = "dpdk")]
    {
        use crate::dpdk::{EalPlan, Memory};
        // Ordinary pages and no device: a check must work beside a running instance and on a laptop.
        let need: u64 = plan.stages.iter().map(|s| s.parsed.eal_memory()).sum();
        let memory_mb = (need / (1 << 20)) as u32 + 64;
        let lcores = plan.eal.lcores.iter().take(1).copied().collect();
        let file_prefix = format!("{}-check", plan.eal.file_prefix);
        let eal = EalPlan { memory: Memory::NoHuge, memory_mb, file_prefix, lcores, args: Vec::new() };
        let eal = crate::dpdk::eal::Eal::init(&eal, &[])?;
        let reports = say(Pipeline::build(plan, Backend::Eal)?);
        drop(eal);
        Ok(reports)
    }
    #[cfg(not(feature = "dpdk"))]
    Ok(say(Pipeline::build(plan, Backend::Soft)?))
}
