//! A plan for people (`Display`) and for programs ([`Plan::to_json`]): what `sluicegate check` prints.

mod flow;
mod stream;
mod management;
mod events;

use std::fmt;

use serde_json::{Value, json};

use super::{DEFAULT_PIPELINE, Idle, Mode, OnError, Plan, PortPlan, QueueCount, Tunnel, VerifyChecksum};
use crate::dpdk::Memory;
use crate::packet::DropReason;

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "plan of {}", self.file)?;
        self.write_ports(f)?;
        self.write_lcores(f)?;
        self.write_memory(f)?;
        self.tunnel.write(f)?;
        self.flow.write(f, self.workers.len())?;
        if self.reads_streams() {
            self.stream.write(f, self.workers.len())?;
        }
        self.management.write(f)?;
        self.events.write(f, self.flow.events_ring)?;
        self.write_stages(f)?;
        if !self.overrides.is_empty() {
            writeln!(f, "\noverrides")?;
            let width = self.overrides.iter().map(|(place, _)| place.len()).max().unwrap_or(0);
            for (place, origin) in &self.overrides {
                writeln!(f, "  {place:width$}  {origin}")?;
            }
        }
        if !self.warnings.is_empty() {
            writeln!(f, "\nwarnings")?;
            for warning in &self.warnings {
                writeln!(f, "  {warning}")?;
            }
        }
        Ok(())
    }
}

impl Plan {
    fn write_ports(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nports")?;
        if self.ports.is_empty() {
            writeln!(f, "  none: good for a replay only")?;
        }
        for (i, PortPlan { device, queues, mtu, config }) in self.ports.iter().enumerate() {
            writeln!(f, "  {i}  {device}")?;
            let asked = match queues {
                QueueCount::Auto => {
                    format!("auto: {}, one for each worker, as far as the device goes", config.queues)
                }
                QueueCount::Exactly(n) => n.to_string(),
            };
            row(f, "queues", asked)?;
            row(
                f,
                "descriptors",
                format!("{} rx, {} tx for each queue", config.rx_descriptors, config.tx_descriptors),
            )?;
            match mtu {
                None => row(f, "mtu", "auto: the largest that the device allows, up to 9001")?,
                Some(mtu) => row(f, "mtu", mtu)?,
            }
            let key = match &config.rss.key {
                None => "the driver's key".to_owned(),
                Some(key) => format!("a key of {} bytes", key.len()),
            };
            let reta = match &config.rss.reta {
                None => "queues spread evenly".to_owned(),
                Some(reta) => format!("a table of {} entries", reta.len()),
            };
            row(f, "rss", format!("{key}, {reta}"))?;
            if config.promiscuous {
                row(f, "receives", "every MAC address")?;
            }
        }
        Ok(())
    }

    fn write_lcores(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nlcores\n  lcore   cpu  role")?;
        for lcore in &self.eal.lcores {
            let worker = self.workers.iter().find(|worker| worker.lcore.lcore == lcore.lcore);
            let role =
                worker.map_or_else(|| "management".to_owned(), |worker| format!("worker {}", worker.id.0));
            writeln!(f, "  {:>5} {:>5}  {role}", lcore.lcore, lcore.cpu)?;
        }
        let idle = match self.idle {
            Idle::Spin => "poll again at once",
            Idle::Backoff => "pause, yield, then sleep up to 100 us",
        };
        writeln!(f, "  bursts of {}; idle workers {idle}", self.burst)
    }

    fn write_memory(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let from = match self.eal.memory {
            Memory::Auto => "hugepages if enough are free, otherwise ordinary pages",
            Memory::Hugepages => "hugepages of a mounted hugetlbfs",
            Memory::InMemory => "hugepages through memfd",
            Memory::NoHuge => "ordinary pages",
        };
        writeln!(f, "\nmemory: {} MB, {from}", self.eal.memory_mb)?;
        row(f, "file prefix", &self.eal.file_prefix)?;
        if !self.eal.args.is_empty() {
            row(f, "arguments", self.eal.args.join(" "))?;
        }
        for line in self.memory_formula.lines() {
            writeln!(f, "  {line}")?;
        }
        writeln!(f, "\npool: {} buffers of {} bytes", self.pool.config.buffers, self.pool.config.data_room)?;
        for line in self.pool.formula.lines() {
            writeln!(f, "  {line}")?;
        }
        Ok(())
    }

    fn write_stages(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nstages")?;
        if self.stages.is_empty() {
            writeln!(f, "  none: every packet goes home as it came")?;
        }
        for (i, stage) in self.stages.iter().enumerate() {
            match stage.name == stage.kind.name {
                true => writeln!(f, "  {i}  {}", stage.name)?,
                false => writeln!(f, "  {i}  {} ({})", stage.name, stage.kind.name)?,
            }
            for (key, value) in &stage.settings {
                row(f, key, value)?;
            }
            if stage.pipelines != [DEFAULT_PIPELINE] {
                row(f, "pipelines", stage.pipelines.join(", "))?;
            }
            if stage.mode == Mode::Shadow {
                row(f, "mode", "shadow: nothing comes of what it decides")?;
            }
            if stage.on_error == OnError::Pass {
                row(f, "on_error", "pass")?;
            }
            if stage.parsed.wants_streams() {
                let what = if stage.on_unread == OnError::Pass { "pass" } else { "drop" };
                row(f, "on_unread", what)?;
            }
        }
        writeln!(f, "  policy {}", self.policy)?;
        let own = DropReason::ALL.len();
        writeln!(
            f,
            "  {} drop reasons: {own} of the path, {} of stages",
            self.reasons.len(),
            self.reasons.len() - own
        )
    }

    /// The plan as data. Names are those of the configuration file where there is one.
    pub fn to_json(&self) -> Value {
        let ports = self.ports.iter().enumerate().map(|(i, port)| {
            let mut object = json!({
                "device": port.device,
                "queues": match port.queues { QueueCount::Auto => json!("auto"), QueueCount::Exactly(n) => json!(n) },
                "rx_descriptors": port.config.rx_descriptors,
                "tx_descriptors": port.config.tx_descriptors,
                "mtu": port.mtu.map_or(json!("auto"), |mtu| json!(mtu)),
                "promiscuous": port.config.promiscuous,
                "rss_key_bytes": port.config.rss.key.as_ref().map(Vec::len),
                "rss_reta": port.config.rss.reta,
            });
            for (key, value) in management::port_json(&self.management.host, i) {
                object[key] = value;
            }
            object
        });
        let lcores = self.eal.lcores.iter().map(|lcore| {
            let worker = self.workers.iter().find(|worker| worker.lcore.lcore == lcore.lcore);
            json!({ "lcore": lcore.lcore, "cpu": lcore.cpu, "worker": worker.map(|worker| worker.id) })
        });
        let stages = self.stages.iter().map(|stage| {
            json!({
                "use": stage.kind.name,
                "name": stage.name,
                "pipelines": stage.pipelines,
                "mode": stage.mode,
                "on_error": stage.on_error,
                "on_unread": stage.parsed.wants_streams().then_some(stage.on_unread),
                "settings": stage.settings.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
            })
        });
        json!({
            "file": self.file,
            "port": ports.collect::<Vec<_>>(),
            "eal": {
                "memory": self.eal.memory,
                "memory_mb": self.eal.memory_mb,
                "file_prefix": self.eal.file_prefix,
                "args": self.eal.args,
                "idle": self.idle,
                "burst": self.burst,
                "lcores": lcores.collect::<Vec<_>>(),
            },
            "pool": {
                "buffers": self.pool.config.buffers,
                "data_room": self.pool.config.data_room,
                "cache": self.pool.config.cache,
            },
            "tunnel": {
                "profile": self.tunnel.profile.name,
                "port": self.tunnel.port,
                "allowed_sources": self.tunnel.allowed_sources,
                "addresses": self.tunnel.addresses,
                "verify_checksum": self.tunnel.verify_checksum,
                "max_return": match self.tunnel.max_return { u16::MAX => json!("unlimited"), bytes => json!(bytes) },
            },
            "flow": self.flow.to_json(),
            "stream": self.reads_streams().then(|| self.stream.to_json()),
            "management": self.management.to_json(),
            "tenant": self.flow.tenants_to_json(),
            "tenants": { "unknown_endpoint": self.flow.unknown_endpoint },
            "events": self.events.to_json(&self.reasons),
            "metrics": { "max_tenants": self.metrics.max_tenants },
            "policy": self.policy,
            "stage": stages.collect::<Vec<_>>(),
            "drop_reasons": self.reasons.iter().map(|(_, label, _)| label).collect::<Vec<_>>(),
            "overrides": self.overrides.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
            "warnings": self.warnings,
        })
    }
}

impl Tunnel {
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\ntunnel: GENEVE as {} sends it, UDP port {}", self.profile.name, self.port)?;
        let list =
            |list: Vec<String>, none: &str| if list.is_empty() { none.to_owned() } else { list.join(", ") };
        let sources = self.allowed_sources.iter().map(ToString::to_string).collect();
        row(f, "from", list(sources, "anyone"))?;
        let addresses = self.addresses.iter().map(ToString::to_string).collect();
        row(f, "to", list(addresses, "any unicast address"))?;
        let checksum = match self.verify_checksum {
            VerifyChecksum::Auto => "as the driver says; what it does not know is passed and counted",
            VerifyChecksum::Always => "always verified, computed where the driver does not know",
            VerifyChecksum::Never => "not looked at",
        };
        row(f, "checksum", checksum)?;
        match self.max_return {
            u16::MAX => row(f, "returns", "inner packets of every size"),
            bytes => row(f, "returns", format!("inner packets of up to {bytes} bytes")),
        }
    }
}

/// A name and what it is, below a numbered line.
fn row(f: &mut fmt::Formatter<'_>, name: &str, what: impl fmt::Display) -> fmt::Result {
    writeln!(f, "     {name:<12} {what}")
}
