//! A gateway's plan for people, and for programs.

use std::fmt;

use serde_json::{Value, json};

use crate::config::{GatewayPlan, LegPlan, endpoint_name};
use crate::gateway::checks::HealthCheck;

/// Endpoints and targets that are printed; more are a number.
const SHOWN: usize = 20;

impl GatewayPlan {
    /// A leg as it is written.
    pub fn leg_name(&self, leg: &LegPlan) -> String {
        let port = self.names.get(leg.port).map_or("?", String::as_str);
        leg.vlan.map_or_else(|| port.to_owned(), |vlan| format!("{port}.{vlan}"))
    }

    /// The plan as JSON.
    pub fn to_json(&self) -> Value {
        let ports = self.ports.iter().zip(&self.names);
        let ports: Vec<Value> = ports
            .map(|(port, name)| json!({ "name": name, "device": port.device, "mtu": port.mtu }))
            .collect();
        let endpoints: Vec<Value> = self
            .endpoints
            .iter()
            .map(|endpoint| json!({ "id": endpoint_name(endpoint.id), "legs": endpoint.legs.map(|leg| self.leg_name(&leg)) }))
            .collect();
        let targets: Vec<Value> = self
            .targets
            .iter()
            .map(|t| json!({ "address": t.address, "mac": t.mac.map(spelled), "zone": t.zone, "weight": t.weight }))
            .collect();
        json!({
            "file": self.file, "ports": ports, "workers": self.workers.len(),
            "tunnel": { "profile": self.profile.name, "port": self.udp_port, "checksum": self.checksum },
            "gateway": {
                "port": self.names.get(self.targets_port), "address": self.address, "router": self.router, "zone": self.zone,
                "cross_zone": self.cross_zone, "stickiness": word(&self.stickiness), "table": self.table, "non_ip": word(&self.non_ip),
                "failover": self.failover, "deregistration_delay_s": self.deregistration_delay.as_secs(),
            },
            "flow": {
                "capacity": self.capacity, "tcp_idle_s": self.tcp_idle.as_secs(), "other_idle_s": self.other_idle.as_secs(),
                "unknown_tcp": self.unknown_tcp,
            },
            "endpoints": endpoints, "targets": targets, "health_check": self.health_check.as_ref().map(health_check),
            "memory_mb": self.eal.memory_mb, "buffers": self.pool.config.buffers,
        })
    }
}

impl fmt::Display for GatewayPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "plan of {}: a gateway", self.file)?;
        writeln!(f, "\nports")?;
        for (i, (port, name)) in self.ports.iter().zip(&self.names).enumerate() {
            let mtu = port.mtu.map_or("auto".into(), |mtu| mtu.to_string());
            let role = if i == self.targets_port { "targets" } else { "legs" };
            writeln!(f, "  {name:<12} {}  MTU {mtu}, {role}", port.device)?;
        }
        writeln!(f, "\nlcores")?;
        for lcore in &self.eal.lcores {
            let works = self.workers.iter().any(|worker| worker.lcore.lcore == lcore.lcore);
            writeln!(
                f,
                "  lcore {} on CPU {}  {}",
                lcore.lcore,
                lcore.cpu,
                if works { "works" } else { "manages" }
            )?;
        }
        writeln!(f, "\nmemory: {} MB", self.eal.memory_mb)?;
        for line in self.memory_formula.lines() {
            writeln!(f, "  {line}")?;
        }
        writeln!(f, "\npool: {} buffers of {} bytes", self.pool.config.buffers, self.pool.config.data_room)?;
        for line in self.pool.formula.lines() {
            writeln!(f, "  {line}")?;
        }
        let sums = if self.checksum { "with" } else { "without" };
        writeln!(f, "\ntunnel: profile {}, UDP port {}, {sums} checksums", self.profile.name, self.udp_port)?;
        writeln!(
            f,
            "\ngateway: {} in zone {:?}{}, {} stickiness, {} slots, {}",
            self.address,
            self.zone,
            if self.cross_zone { " and across zones" } else { "" },
            word(&self.stickiness),
            self.table,
            self.failover
        )?;
        writeln!(
            f,
            "\nflows: {}, {} MB; TCP idle {}, other {}; unknown TCP: {}",
            self.capacity,
            (u64::from(self.capacity) * (crate::config::FLOW_BYTES + 64)).div_ceil(1 << 20),
            humantime::format_duration(self.tcp_idle),
            humantime::format_duration(self.other_idle),
            word(&self.unknown_tcp)
        )?;
        writeln!(f, "\nendpoints: {}", self.endpoints.len())?;
        for endpoint in self.endpoints.iter().take(SHOWN) {
            let [one, two] = endpoint.legs.map(|leg| self.leg_name(&leg));
            writeln!(f, "  {}  {one} - {two}", endpoint_name(endpoint.id))?;
        }
        writeln!(f, "\ntargets: {}", self.targets.len())?;
        for target in self.targets.iter().take(SHOWN) {
            let mac = target.mac.map_or("asked for".into(), spelled);
            writeln!(f, "  {}  zone {:?}, weight {}, MAC {mac}", target.address, target.zone, target.weight)?;
        }
        match &self.health_check {
            Some(check) => writeln!(f, "\nhealth check: {check}")?,
            None => writeln!(f, "\nhealth check: none; targets are healthy once it is known where they are")?,
        }
        if !self.overrides.is_empty() {
            writeln!(f, "\noverrides")?;
            for (place, origin) in &self.overrides {
                writeln!(f, "  {place}  {origin}")?;
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

/// As files have it, times in seconds.
fn health_check(check: &HealthCheck) -> Value {
    json!({
        "protocol": check.protocol, "port": check.port, "path": check.path, "matcher": check.matcher.to_string(),
        "interval_s": check.interval.as_secs_f64(), "timeout_s": check.timeout.as_secs_f64(), "jitter_s": check.jitter.as_secs_f64(),
        "healthy_threshold": check.healthy_threshold, "unhealthy_threshold": check.unhealthy_threshold,
    })
}

/// As files have it.
fn spelled(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// What serde calls a value.
fn word(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(Value::String(word)) => word,
        _ => String::new(),
    }
}
