//! The management side's part of a plan in words and as data.

use std::fmt;

use serde_json::{Value, json};

use super::row;
use crate::config::flow::span;
use crate::config::{AddressV4, Cause, HostKind, HostPlan, ManagementPlan, PortAddress, WhenFailed};

impl ManagementPlan {
    pub(super) fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nmanagement")?;
        self.host.write(f)?;
        let health = &self.health;
        if self.host.kind == HostKind::Stack {
            let failed = match health.when_failed {
                WhenFailed::Refuse => "a failed appliance refuses connections",
                WhenFailed::Status503 => "a failed appliance answers 503",
            };
            row(f, "health", format!("TCP port {}; {failed}", health.port))?;
        }
        match self.listen {
            Some(listen) => {
                let more = if self.api { "/metrics and /v1/" } else { "/metrics" };
                let figures = match (self.serves_figures(), &self.token) {
                    (true, None) => format!("health and {more}"),
                    (true, Some(_)) => format!("health, and {more} for those who show the token"),
                    (false, _) => format!("health; {more} needs management.token_file there"),
                };
                row(f, "listens", format!("{listen}: {figures}"))?;
            }
            None => row(
                f,
                "listens",
                "nowhere else: management.listen = \"127.0.0.1:9100\" gives health and /metrics to this machine",
            )?,
        }
        let (stuck, pool) = (span(health.stuck_after), span(health.pool_after));
        let also: String = health.fail_on.iter().map(|cause| format!(", {}", cause.name())).collect();
        row(
            f,
            "fails on",
            format!(
                "a worker stuck for {stuck}, the pool empty for {pool}, link down, TX stuck, drain{also}"
            ),
        )?;
        row(f, "recovers", format!("when all has been well for {}", span(health.hold)))?;
        let drain = &self.drain;
        let how = match drain.on_sigterm {
            true => "SIGTERM: ",
            false => "only when asked to: ",
        };
        let (least, deadline) = (span(drain.at_least), span(drain.deadline));
        row(
            f,
            "drain",
            format!("{how}at least {least}, then until no flow is left or {deadline} have passed"),
        )
    }

    pub(super) fn to_json(&self) -> Value {
        json!({
            "host": self.host.kind,
            "allowed_sources": self.host.allowed_sources,
            "frames_per_s": self.host.frames_per_s,
            "tap_name": self.host.tap_name,
            "listen": self.listen,
            "token": self.token.is_some(),
            "api": self.api,
            "socket": self.socket.path(),
            "group": self.group.as_ref().map(|group| &group.name),
            "drain_on_sigterm": self.drain.on_sigterm,
            "drain_deadline": span(self.drain.deadline),
            "drain_at_least": span(self.drain.at_least),
            "health": {
                "port": self.health.port,
                "when_failed": self.health.when_failed,
                "fail_on": self.health.fail_on.iter().map(|cause| cause.name()).collect::<Vec<_>>(),
                "always_on": Cause::ALL.into_iter().filter(|c| c.fails()).map(Cause::name).collect::<Vec<_>>(),
                "stuck_after": span(self.health.stuck_after),
                "pool_after": span(self.health.pool_after),
                "hold": span(self.health.hold),
            },
        })
    }
}

impl HostPlan {
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            HostKind::Off => {
                let given = self.ports.iter().any(|port| port.v4.is_some() || port.v6.is_some());
                let why = if given { "turned off" } else { "no port has an address" };
                return row(
                    f,
                    "host stack",
                    format!("none, {why}: ARP, ping and health checks get no answer"),
                );
            }
            HostKind::Stack => {
                for (i, port) in self.ports.iter().enumerate() {
                    row(f, &format!("port[{i}]"), port)?;
                }
            }
            HostKind::Tap => {
                let (name, last) = (&self.tap_name, self.ports.len().saturating_sub(1));
                row(f, "host stack", format!("the kernel's, by {name}0 to {name}{last}, one for each port"))?;
            }
        }
        let from = match &self.allowed_sources {
            None => "everybody".to_owned(),
            Some(sources) => sources.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
        };
        row(f, "reached by", from)?;
        row(f, "rate", format!("up to {} frames a second of each worker", self.frames_per_s))
    }
}

impl fmt::Display for PortAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.v4 {
            None => f.write_str("no IPv4 address")?,
            Some(AddressV4::Dhcp) => f.write_str("an address by DHCP")?,
            Some(AddressV4::Static(net)) => write!(f, "{net}")?,
        }
        if let Some(gateway) = self.gateway {
            write!(f, ", gateway {gateway}")?;
        }
        match self.v6 {
            Some(net) => write!(f, ", {net}"),
            None => Ok(()),
        }
    }
}

/// What `[[port]]` says of addresses, as data.
pub(super) fn port_json(plan: &HostPlan, i: usize) -> [(&'static str, Value); 3] {
    let port = plan.ports.get(i).cloned().unwrap_or_default();
    let address = match port.v4 {
        None => Value::Null,
        Some(AddressV4::Dhcp) => "dhcp".into(),
        Some(AddressV4::Static(net)) => net.to_string().into(),
    };
    [("address", address), ("gateway", json!(port.gateway)), ("address6", json!(port.v6))]
}
