//! The exporter: a recorder of its own, and the page that it makes of it in Prometheus' text format.
//!
//! A thread publishes the newest picture once a second. The page is made when somebody asks for it, once for each publication: whoever
//! asks more often gets the same page again, so a storm of scrapes costs copies.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusRecorder};
use parking_lot::Mutex;

use super::publish::NANOSECONDS;
use super::{COUNTER, GAUGE, Names, Picture, Publisher, figures};
use crate::path::{CYCLES, TIMES};

/// A recorder with its page.
pub struct Exporter {
    state: Mutex<Recording>,
    /// Publications so far.
    published: AtomicU64,
    page: Mutex<(u64, Arc<[u8]>)>,
}

/// What is published, and what it was published of.
struct Recording {
    recorder: PrometheusRecorder,
    publisher: Publisher,
    names: Option<Arc<Names>>,
}

impl Exporter {
    /// One with nothing on its page yet.
    pub fn new() -> Self {
        Exporter {
            state: Mutex::new(Recording {
                recorder: recorder(),
                publisher: Publisher::default(),
                names: None,
            }),
            published: AtomicU64::new(0),
            page: Mutex::new((0, Arc::from([]))),
        }
    }

    /// Takes in a picture. Not on the main lcore: where there are many tenants and rules it takes milliseconds.
    pub(crate) fn publish(&self, picture: &Picture) {
        let mut state = self.state.lock();
        let Recording { recorder: own, publisher, names } = &mut *state;
        if names.as_ref().is_some_and(|names| !Arc::ptr_eq(names, &picture.names)) {
            // Another plan: stages, rules and policies that are gone must not go on as if they were there.
            *own = recorder();
            publisher.begin_anew();
        }
        *names = Some(picture.names.clone());
        metrics::with_local_recorder(own, || publisher.publish(picture));
        own.handle().run_upkeep();
        self.published.fetch_add(1, Ordering::Release);
    }

    /// The page as of the last publication; empty before the first.
    pub fn page(&self) -> Arc<[u8]> {
        let mut page = self.page.lock();
        let published = self.published.load(Ordering::Acquire);
        if page.0 != published {
            let begun = Instant::now();
            let handle = self.state.lock().recorder.handle();
            let text = in_order(&handle.render(), begun);
            *page = (published, text.into_bytes().into());
        }
        page.1.clone()
    }
}

/// A recorder that knows what figures mean.
fn recorder() -> PrometheusRecorder {
    let cycles: Vec<f64> = CYCLES.iter().map(|end| *end as f64).collect();
    let times: Vec<f64> = TIMES.iter().map(|end| *end as f64 / NANOSECONDS).collect();
    // Fails for no buckets only.
    let builder = [("sluicegate_stage_packet_cycles", cycles), ("sluicegate_residence_seconds", times)]
        .into_iter()
        .try_fold(PrometheusBuilder::new(), |builder, (name, ends)| {
            builder.set_buckets_for_metric(Matcher::Full(name.to_owned()), &ends)
        })
        .unwrap_or_else(|_| PrometheusBuilder::new());
    let recorder = builder.build_recorder();
    metrics::with_local_recorder(&recorder, describe);
    recorder
}

impl Default for Exporter {
    fn default() -> Self {
        Exporter::new()
    }
}

impl fmt::Debug for Exporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Exporter({} publications)", self.published.load(Ordering::Relaxed))
    }
}

/// Tells the recorder in force what figures mean.
fn describe() {
    for figure in figures() {
        let help = plain(figure.help);
        match figure.kind {
            COUNTER => describe_counter!(figure.name, Unit::Count, help),
            GAUGE => describe_gauge!(figure.name, Unit::Count, help),
            _ => describe_histogram!(figure.name, Unit::Count, help),
        }
    }
}

/// Help without the marks of a document: `[drops.md](drops.md)` is `drops.md`, and names stand without their quotes.
fn plain(help: &str) -> String {
    let mut out = String::with_capacity(help.len());
    let mut rest = help;
    while let Some((before, link)) = rest.split_once('[') {
        out.push_str(before);
        let Some((text, behind)) = link
            .split_once("](")
            .and_then(|(text, behind)| behind.split_once(')').map(|(_, behind)| (text, behind)))
        else {
            rest = link;
            continue;
        };
        out.push_str(text);
        rest = behind;
    }
    out.push_str(rest);
    out.replace('`', "")
}

/// The recorder writes figures in any order; people read them by name.
fn in_order(page: &str, begun: Instant) -> String {
    let mut figures: Vec<&str> = page.split("\n\n").filter(|figure| !figure.trim().is_empty()).collect();
    figures.sort_unstable();
    let mut out = String::with_capacity(page.len() + 256);
    for figure in figures {
        out.push_str(figure.trim_matches('\n'));
        out.push('\n');
    }
    let seconds = begun.elapsed().as_secs_f64();
    out.push_str("# The page took ");
    out.push_str(&format!("{seconds:.6} seconds to make.\n"));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_is_plain() {
        assert_eq!(plain("See [drops.md](drops.md) for `that`."), "See drops.md for that.");
        assert_eq!(plain("a [ b"), "a  b");
    }
}
