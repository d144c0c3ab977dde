//! What of a running plan another one can change, key by key, and what needs a restart.
//!
//! The values are those in effect, so a default and the same value written down are no difference, and what follows from something else (an address that
//! a port gets, a tenant's share) is seen as well.

use std::collections::HashMap;
use std::fmt::{Debug, Write as _};

use sha2::{Digest, Sha256};

use super::flow::span;
use super::{HostKind, Plan, TenantPlan};

/// One value in effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its place in a file: `eal.burst`, `port[0].mtu`, `tenant["payments"].limits.flows`.
    pub place: String,
    /// The value, for people.
    pub value: String,
    /// A reload can change it.
    pub live: bool,
}

/// A value that is another one now.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Changed {
    /// Its place in a file.
    pub key: String,
    /// What it was.
    pub old: String,
    /// What it is, or would be.
    pub new: String,
}

impl std::fmt::Display for Changed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {} -> {}", self.key, self.old, self.new)
    }
}

/// What a plan would change of a running one, stages left out: what it can, and what needs a restart.
pub fn changes(running: &Plan, next: &Plan) -> (Vec<Changed>, Vec<Changed>) {
    let (old, new) = (settings(running), settings(next));
    let by_place = |all: &'_ [Setting]| -> HashMap<String, String> {
        all.iter().map(|setting| (setting.place.clone(), setting.value.clone())).collect()
    };
    let (had, has) = (by_place(&old), by_place(&new));
    let places = old.iter().chain(new.iter().filter(|setting| !had.contains_key(&setting.place)));
    let (mut live, mut fixed) = (Vec::new(), Vec::new());
    for Setting { place, live: is_live, .. } in places {
        let value = |all: &HashMap<String, String>| all.get(place).map_or("none", String::as_str).to_owned();
        let (old, new) = (value(&had), value(&has));
        if old != new {
            let list = if *is_live { &mut live } else { &mut fixed };
            list.push(Changed { key: place.clone(), old, new });
        }
    }
    // No secret is among the values: that it is another one is all that is said.
    let tokens = (&running.management.token, &next.management.token);
    if let (Some(old), Some(new)) = tokens
        && old != new
    {
        let (old, new) = ("given".into(), "given, another secret".into());
        fixed.push(Changed { key: "management.token_file".into(), old, new });
    }
    (live, fixed)
}

/// All values in effect but those of stages, in the order of the documentation.
pub fn settings(plan: &Plan) -> Vec<Setting> {
    let mut list = List { out: Vec::new(), section: String::new() };
    eal(plan, &mut list);
    ports(plan, &mut list);
    tunnel(plan, &mut list);
    flow(plan, &mut list);
    stream(plan, &mut list);
    tenants(plan, &mut list);
    management(plan, &mut list);
    list.section("metrics");
    list.fixed("max_tenants", plan.metrics.max_tenants);
    events(plan, &mut list);
    list.out
}

struct List {
    out: Vec<Setting>,
    section: String,
}

impl List {
    fn section(&mut self, name: impl Into<String>) {
        self.section = name.into();
    }

    fn put(&mut self, key: &str, value: String, live: bool) {
        self.out.push(Setting { place: format!("{}.{key}", self.section), value, live });
    }

    /// Needs a restart.
    fn fixed(&mut self, key: &str, value: impl Debug) {
        self.put(key, format!("{value:?}"), false);
    }

    /// Can be changed.
    fn live(&mut self, key: &str, value: impl Debug) {
        self.put(key, format!("{value:?}"), true);
    }

    fn fixed_time(&mut self, key: &str, time: std::time::Duration) {
        self.put(key, span(time), false);
    }

    fn live_time(&mut self, key: &str, time: std::time::Duration) {
        self.put(key, span(time), true);
    }
}

fn eal(plan: &Plan, list: &mut List) {
    list.section("eal");
    let cpus: Vec<u32> = plan.eal.lcores.iter().map(|lcore| lcore.cpu).collect();
    list.fixed("memory", plan.eal.memory);
    list.put("memory_mb", plan.asked.memory_mb.map_or("auto".into(), |mb| mb.to_string()), false);
    list.fixed("file_prefix", &plan.eal.file_prefix);
    list.fixed("lcores", cpus);
    list.fixed("idle", plan.idle);
    list.fixed("burst", plan.burst);
    list.fixed("extra_buffers", plan.asked.extra_buffers);
    list.fixed("args", &plan.eal.args);
}

fn ports(plan: &Plan, list: &mut List) {
    for (n, port) in plan.ports.iter().enumerate() {
        list.section(format!("port[{n}]"));
        list.fixed("device", &port.device);
        list.fixed("queues", port.queues);
        list.fixed("rx_descriptors", port.config.rx_descriptors);
        list.fixed("tx_descriptors", port.config.tx_descriptors);
        list.put("mtu", port.mtu.map_or("auto".into(), |mtu| mtu.to_string()), false);
        list.fixed("promiscuous", port.config.promiscuous);
        list.fixed("rss_key", &port.config.rss.key);
        list.fixed("rss_reta", &port.config.rss.reta);
        let address = plan.management.host.ports.get(n).cloned().unwrap_or_default();
        list.fixed("address", address.v4);
        list.fixed("gateway", address.gateway);
        list.fixed("address6", address.v6);
    }
}

fn tunnel(plan: &Plan, list: &mut List) {
    list.section("tunnel");
    let tunnel = &plan.tunnel;
    list.fixed("profile", tunnel.profile.name);
    list.fixed("port", tunnel.port);
    list.live("allowed_sources", &tunnel.allowed_sources);
    list.live("addresses", &tunnel.addresses);
    list.live("verify_checksum", tunnel.verify_checksum);
    list.live("max_return", tunnel.max_return);
}

fn flow(plan: &Plan, list: &mut List) {
    list.section("flow");
    let flow = &plan.flow;
    list.fixed("tracking", flow.tracking);
    list.fixed("capacity", flow.capacity);
    list.fixed("scope", flow.scope);
    list.live_time("tcp_idle", flow.tcp_idle);
    list.live_time("other_idle", flow.other_idle);
    list.live_time("margin", flow.margin);
    list.live_time("half_open", flow.half_open);
    list.live_time("closing", flow.closing);
    list.live_time("reset", flow.reset);
    list.live_time("denied", flow.denied);
    list.live("when_full", flow.when_full);
    list.live("pickup", flow.pickup);
    list.live("window_check", flow.window_check);
    list.fixed("handoff_ring", flow.handoff_ring);
    list.fixed("events_ring", flow.events_ring);
    list.live("answers_per_s", flow.answers_per_s);
    list.section("flow.fragments");
    list.fixed("hold", flow.fragments.hold);
    list.live_time("hold_time", flow.fragments.hold_time);
    list.fixed_time("lifetime", flow.fragments.lifetime);
    list.fixed("entries", flow.fragments.entries);
    list.live("orphans", flow.fragments.orphans);
}

fn stream(plan: &Plan, list: &mut List) {
    list.section("stream");
    let stream = &plan.stream;
    list.fixed("memory_mb", stream.memory >> 20);
    list.fixed("flow_kb", stream.per_flow >> 10);
    list.fixed("tenant_percent", stream.tenant_percent);
    list.fixed("depth_kb", stream.depth >> 10);
    list.fixed("overlap", stream.overlap);
    list.fixed("conflict", stream.conflict);
    list.fixed("compare", stream.compare);
    list.fixed("urgent", stream.urgent);
    list.fixed_time("wait", stream.wait);
    list.fixed_time("gap_time", stream.gap_time);
    list.fixed("hold", stream.hold);
    list.fixed_time("hold_time", stream.hold_time);
}

/// Their numbers are in the entries of flows, and their shares in the tables: all of them need a restart, but for which pipeline is whose.
fn tenants(plan: &Plan, list: &mut List) {
    let names: Vec<&str> = plan.flow.tenants.iter().map(|tenant| tenant.name.as_str()).collect();
    list.section("tenant");
    list.fixed("name", names);
    for tenant in &plan.flow.tenants {
        let TenantPlan { name, endpoints, guaranteed, ceiling, new_flows_per_s, pipeline } = tenant;
        list.section(format!("tenant[{name:?}]"));
        let mut spelled = String::new();
        for endpoint in endpoints.iter().take(4) {
            let _ = write!(spelled, "{} ", super::endpoint_name(*endpoint));
        }
        // Of many, what tells them from others.
        let more = if endpoints.len() > 4 {
            let mut sum = Sha256::new();
            endpoints.iter().for_each(|id| sum.update(id.to_be_bytes()));
            let [a, b, c, d, e, f, g, h, ..]: [u8; 32] = sum.finalize().into();
            format!("and others ({}, {:016x})", endpoints.len(), u64::from_be_bytes([a, b, c, d, e, f, g, h]))
        } else {
            String::new()
        };
        list.put("endpoints", format!("[{}]", (spelled + &more).trim_end()), false);
        let rate = new_flows_per_s.map_or("any number of".into(), |n| n.to_string());
        let limits = format!("{guaranteed} to {ceiling} flows of a worker, {rate} new ones a second");
        list.put("limits", limits, false);
        list.put("pipeline", pipeline.clone(), true);
    }
    list.section("tenants");
    list.fixed("unknown_endpoint", plan.flow.unknown_endpoint);
}

fn management(plan: &Plan, list: &mut List) {
    list.section("management");
    let management = &plan.management;
    let host = &management.host;
    list.fixed("host", host.kind);
    // Where there is no host, nobody asks.
    list.fixed("allowed_sources", host.allowed_sources.as_ref().filter(|_| host.kind != HostKind::Off));
    list.fixed("frames_per_s", host.frames_per_s);
    list.fixed("tap_name", &host.tap_name);
    list.fixed("listen", management.listen);
    list.fixed("api", management.api);
    list.fixed("socket", &management.socket);
    list.fixed("group", &management.group);
    // What is in the file is not for logs; `changes` compares it.
    list.put("token_file", management.token.as_ref().map_or("none", |_| "given").into(), false);
    list.live("drain_on_sigterm", management.drain.on_sigterm);
    list.live_time("drain_deadline", management.drain.deadline);
    list.live_time("drain_at_least", management.drain.at_least);
    list.section("management.health");
    let health = &management.health;
    list.fixed("port", health.port);
    list.fixed("listen", health.listen);
    list.live("when_failed", health.when_failed);
    let causes: Vec<&str> = health.fail_on.iter().map(|cause| cause.name()).collect();
    list.live("fail_on", causes);
    list.live_time("stuck_after", health.stuck_after);
    list.live_time("pool_after", health.pool_after);
    list.live_time("hold", health.hold);
}

fn events(plan: &Plan, list: &mut List) {
    list.section("events");
    let events = &plan.events;
    list.fixed("types", events.types);
    list.fixed("follow", events.follow);
    list.fixed("ring", events.ring);
    list.live_time("stats_every", events.stats_every);
    list.fixed("account", &events.flow_log.account);
    for (section, report) in [("events.drop", &events.drop), ("events.anomaly", &events.anomaly)] {
        list.section(section);
        let reasons: Vec<&str> = report.reasons.iter().map(|id| plan.reasons.label(*id)).collect();
        list.live("reasons", reasons);
        list.live("per_s", report.per_s);
    }
    for (n, sink) in events.sinks.iter().enumerate() {
        list.section(format!("events.sink[{n}]"));
        list.fixed("name", &sink.name);
        list.fixed("to", &sink.to);
        list.fixed("types", sink.types);
        list.fixed("format", sink.format);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Options, Overrides, load_text};

    fn plan(folder: &std::path::Path, more: &str) -> Plan {
        let text =
            format!("[[port]]\ndevice = \"net_null0\"\n[tunnel]\nallowed_sources = [\"10.0.0.0/8\"]\n{more}");
        load_text("t.toml", &text, folder, &Overrides::default(), &Options::default()).expect("a plan")
    }

    #[test]
    fn another_secret_in_the_same_file_needs_a_restart_and_is_not_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let with = |secret: &str| {
            std::fs::write(folder.path().join("token"), secret).expect("written");
            plan(folder.path(), "[management]\nlisten = \"127.0.0.1:9100\"\ntoken_file = \"token\"\n")
        };
        let (old, same, new) = (
            with("a-secret-of-some-length"),
            with("a-secret-of-some-length"),
            with("another-one-of-the-length"),
        );
        assert_eq!(changes(&old, &same), (vec![], vec![]));
        let (live, fixed) = changes(&old, &new);
        assert!(live.is_empty() && fixed.len() == 1 && fixed[0].key == "management.token_file", "{fixed:?}");
        assert!(!format!("{fixed:?}").contains("secret-of") && !format!("{fixed:?}").contains("another-one"));
    }

    #[test]
    fn any_endpoint_of_many_counts() {
        let folder = tempfile::tempdir().expect("a folder");
        let of = |last: u64| {
            let ids: Vec<String> = (1..9).chain([last]).map(|id| format!("\"0x{id:016x}\"")).collect();
            plan(
                folder.path(),
                &format!("[flow]\n[[tenant]]\nname = \"a\"\nendpoints = [{}]\n", ids.join(", ")),
            )
        };
        assert_eq!(changes(&of(9), &of(9)), (vec![], vec![]));

        let (_, fixed) = changes(&of(9), &of(9 + (1 << 7)));
        assert_eq!(fixed.len(), 1, "{fixed:?}");
    }
}
