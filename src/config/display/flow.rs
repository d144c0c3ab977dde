//! The flow engine's part of a plan in words and as data.

use std::fmt;

use serde_json::{Value, json};

use super::row;
use crate::config::flow::span;
use crate::config::tenants::spelled;
use crate::config::{
    DEFAULT_PIPELINE, FLOW_BYTES, FlowPlan, Orphans, Pickup, Scope, TenantPlan, UnknownEndpoint, WhenFull,
    WindowCheck,
};

/// Tenants that are printed one by one; all of them are in the JSON.
const TENANTS_SHOWN: usize = 20;

impl FlowPlan {
    /// Bytes that one worker's flows take if all were IPv4: all shares of the table, and what stages keep.
    pub fn bytes_per_worker(&self) -> u64 {
        u64::from(self.per_worker) * (FLOW_BYTES + self.stage_bytes)
    }

    pub(super) fn write(&self, f: &mut fmt::Formatter<'_>, workers: usize) -> fmt::Result {
        if !self.tracking {
            return writeln!(f, "\nflows: not followed; every packet is looked at by itself");
        }
        let mb = |bytes: u64| bytes.div_ceil(1 << 20);
        let all = workers as u64 * self.bytes_per_worker();
        writeln!(f, "\nflows: {} of the process, {} MB beside the EAL's memory", self.capacity, mb(all))?;
        let stages = match self.stage_bytes {
            0 => String::new(),
            bytes => format!(" + {bytes} of stages"),
        };
        let (flows, bytes) = (self.per_worker, self.bytes_per_worker());
        let each = format!("{flows} flows, {} MB at {FLOW_BYTES}{stages} bytes", mb(bytes));
        match workers {
            0 | 1 => row(f, "worker", each)?,
            _ => row(f, "each worker", format!("{each}: {} / {workers} x 1.25", self.capacity))?,
        }
        row(
            f,
            "addresses",
            match self.scope {
                Scope::Endpoint => "mean the same within an endpoint",
                Scope::Tenant => "mean the same within a tenant",
            },
        )?;
        let (tcp, other, margin) = (span(self.tcp_idle), span(self.other_idle), span(self.margin));
        row(f, "idle", format!("TCP {tcp}, other {other}; remembered {margin} longer"))?;
        let short = [
            ("half-open", self.half_open),
            ("closing", self.closing),
            ("after RST", self.reset),
            ("dropped", self.denied),
        ];
        row(f, "short", short.map(|(name, time)| format!("{name} {}", span(time))).join(", "))?;
        row(
            f,
            "when full",
            match self.when_full {
                WhenFull::Stateless => "new flows are decided packet by packet",
                WhenFull::Drop => "new flows are dropped",
                WhenFull::Forward => "new flows go home without having been looked at",
            },
        )?;
        row(
            f,
            "TCP pickup",
            match self.pickup {
                Pickup::Policy => "if the rules allow it in either orientation",
                Pickup::Allow => "always, past the stages that decide once for a flow",
                Pickup::Drop => "never: dropped",
                Pickup::Reset => "never: dropped, and answered by a RST",
            },
        )?;
        row(
            f,
            "TCP window",
            match self.window_check {
                WindowCheck::Off => "not looked at",
                WindowCheck::Log => "segments outside it are counted",
                WindowCheck::Drop => "segments outside it are dropped",
            },
        )?;
        let fragments = &self.fragments;
        let (entries, lifetime) = (fragments.entries, span(fragments.lifetime));
        let (hold, hold_time) = (fragments.hold, span(fragments.hold_time));
        let orphans = match fragments.orphans {
            Orphans::Drop => "dropped",
            Orphans::Forward => "forwarded",
        };
        let waiting = match hold {
            0 => format!("without their first they are {orphans}"),
            _ => {
                format!("up to {hold} of a worker wait {hold_time} for their first, then they are {orphans}")
            }
        };
        row(f, "fragments", format!("{entries} first ones for {lifetime}; {waiting}"))?;
        let events = format!("{} events", self.events_ring);
        match workers {
            0 | 1 => row(f, "rings", events)?,
            _ => row(f, "rings", format!("{} parcels to each other worker, {events}", self.handoff_ring))?,
        }
        row(f, "answers", format!("{} a second by each worker", self.answers_per_s))?;
        self.write_tenants(f)
    }

    fn write_tenants(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unknown = match self.unknown_endpoint {
            UnknownEndpoint::Default => "packets of unknown endpoints are the first tenant's",
            UnknownEndpoint::Drop => "packets of unknown endpoints are dropped",
        };
        row(f, "tenants", unknown)?;
        let shown = self.tenants.iter().take(TENANTS_SHOWN);
        let width = shown.clone().map(|tenant| tenant.name.len()).max().unwrap_or(0).max("tenant".len());
        let heads = ["endpoints", "guaranteed", "at most", "new/s"];
        let [endpoints, guaranteed, most, new] = heads;
        let own = self.tenants.iter().any(|tenant| tenant.pipeline != DEFAULT_PIPELINE);
        writeln!(
            f,
            "  {:width$} {endpoints:>10} {guaranteed:>12} {most:>12} {new:>10}  flows of each worker",
            "tenant"
        )?;
        for tenant in shown {
            let new = tenant.new_flows_per_s.map_or_else(|| "-".to_owned(), |n| n.to_string());
            let TenantPlan { name, endpoints, guaranteed, ceiling, pipeline, .. } = tenant;
            write!(f, "  {name:width$} {:>10} {guaranteed:>12} {ceiling:>12} {new:>10}", endpoints.len())?;
            match own {
                true => writeln!(f, "  pipeline {pipeline}")?,
                false => writeln!(f)?,
            }
        }
        match self.tenants.len().saturating_sub(TENANTS_SHOWN) {
            0 => Ok(()),
            more => writeln!(f, "  and {more} more: check --json has them all"),
        }
    }

    /// As data. Names are those of the configuration file where there is one.
    pub(in crate::config) fn to_json(&self) -> Value {
        let fragments = &self.fragments;
        json!({
            "tracking": self.tracking,
            "capacity": self.capacity,
            "per_worker": self.per_worker,
            "bytes_per_worker": self.bytes_per_worker(),
            "scope": self.scope,
            "tcp_idle": span(self.tcp_idle),
            "other_idle": span(self.other_idle),
            "margin": span(self.margin),
            "half_open": span(self.half_open),
            "closing": span(self.closing),
            "reset": span(self.reset),
            "denied": span(self.denied),
            "when_full": self.when_full,
            "pickup": self.pickup,
            "window_check": self.window_check,
            "fragments": {
                "hold": fragments.hold,
                "hold_time": span(fragments.hold_time),
                "lifetime": span(fragments.lifetime),
                "entries": fragments.entries,
                "orphans": fragments.orphans,
            },
            "handoff_ring": self.handoff_ring,
            "events_ring": self.events_ring,
            "answers_per_s": self.answers_per_s,
        })
    }

    /// The tenants as data; shares are flows of one worker.
    pub(super) fn tenants_to_json(&self) -> Value {
        let tenant = |tenant: &TenantPlan| {
            json!({
                "name": tenant.name,
                "endpoints": tenant.endpoints.iter().map(|id| spelled(*id)).collect::<Vec<_>>(),
                "guaranteed_per_worker": tenant.guaranteed,
                "ceiling_per_worker": tenant.ceiling,
                "new_flows_per_s": tenant.new_flows_per_s,
            })
        };
        self.tenants.iter().map(tenant).collect()
    }
}
