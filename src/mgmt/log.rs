//! What a running instance says of itself, for people and for whoever gathers logs: `tracing`, to standard error or to journald.
//!
//! Nothing on the packet path logs: workers count, and the management side says what came of it. It says so on a thread that may wait, at most
//! [`PER_S`] lines a second from one place in the program; how many were left out is said by [`tell_skipped`]. The level can be changed while it runs.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tracing::callsite::Identifier;
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Filter, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Layer, Registry};

/// Lines in a second from one place in the program.
pub const PER_S: u32 = 20;

/// Levels, from the fewest lines to the most.
const LEVELS: [(&str, Level); 5] = [
    ("error", Level::ERROR),
    ("warn", Level::WARN),
    ("info", Level::INFO),
    ("debug", Level::DEBUG),
    ("trace", Level::TRACE),
];
const INFO: u8 = 2;

/// The level in force: place among [`LEVELS`].
static LEVEL: AtomicU8 = AtomicU8::new(INFO);
/// What was left out, by place in the program.
static SKIPPED: Mutex<Option<HashMap<Identifier, Place>>> = Mutex::new(None);

#[derive(Debug)]
struct Place {
    since: Instant,
    lines: u32,
    skipped: u64,
    target: &'static str,
}

/// Where lines go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum To {
    /// Standard error.
    #[default]
    Stderr,
    /// The journal's own socket, with fields.
    Journald,
    /// Nowhere.
    Off,
}

/// What a line on standard error looks like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Form {
    /// For people.
    #[default]
    Text,
    /// An object a line.
    Json,
}

/// Begins to log; once in a process. An error in one sentence.
pub fn start(to: To, form: Form) -> Result<(), String> {
    let registry = Registry::default();
    let done = match (to, form) {
        (To::Off, _) => return Ok(()),
        (To::Stderr, form) => tracing::subscriber::set_global_default(registry.with(lines(form, io::stderr))),
        (To::Journald, _) => {
            let journal =
                tracing_journald::layer().map_err(|error| format!("journald: {error}; --log stderr"))?;
            tracing::subscriber::set_global_default(
                registry.with(journal.with_field_prefix(Some("SLUICEGATE".into())).with_filter(Limited)),
            )
        }
    };
    done.map_err(|error| error.to_string())
}

/// Lines to a writer.
fn lines<S, W>(form: Form, to: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'w> tracing_subscriber::fmt::MakeWriter<'w> + Send + Sync + 'static,
{
    let layer = tracing_subscriber::fmt::layer().with_writer(to);
    match form {
        Form::Text => layer.with_ansi(false).with_filter(Limited).boxed(),
        Form::Json => layer.json().flatten_event(true).with_filter(Limited).boxed(),
    }
}

/// The level in force.
pub fn level() -> &'static str {
    LEVELS.get(usize::from(LEVEL.load(Ordering::Relaxed))).map_or("info", |(word, _)| word)
}

/// Sets the level: `error`, `warn`, `info`, `debug`, `trace`. False, and nothing changes, if there is no such level.
pub fn set_level(word: &str) -> bool {
    let place = LEVELS.iter().position(|(known, _)| *known == word);
    if let Some(place) = place {
        LEVEL.store(place as u8, Ordering::Relaxed);
    }
    place.is_some()
}

/// One level more, or less; the one in force then.
pub fn step(more: bool) -> &'static str {
    let next = |at: u8| {
        let next = if more { at + 1 } else { at.saturating_sub(1) };
        Some(next.min(LEVELS.len() as u8 - 1))
    };
    let _ = LEVEL.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next); // it never refuses
    level()
}

/// Says how many lines were left out, of places that have been quiet for a second.
pub fn tell_skipped() {
    let told: Vec<(&str, u64)> = {
        let mut places = SKIPPED.lock();
        let over = places.iter_mut().flatten().filter(|(_, place)| place.since.elapsed() >= SECOND);
        over.map(|(_, place)| (place.target, std::mem::take(&mut place.skipped)))
            .filter(|(_, n)| *n > 0)
            .collect()
    };
    for (about, skipped) in told {
        tracing::warn!(target: "log", about, skipped, "more lines than are written in a second were left out");
    }
}

const SECOND: Duration = Duration::from_secs(1);

/// The level in force, and not too many of one kind.
struct Limited;

impl<S> Filter<S> for Limited {
    fn enabled(&self, metadata: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        let most =
            LEVELS.get(usize::from(LEVEL.load(Ordering::Relaxed))).map_or(Level::INFO, |(_, level)| *level);
        *metadata.level() <= most
    }

    fn event_enabled(&self, event: &tracing::Event<'_>, _: &Context<'_, S>) -> bool {
        let metadata = event.metadata();
        let mut places = SKIPPED.lock();
        let place = places.get_or_insert_default().entry(metadata.callsite()).or_insert_with(|| Place {
            since: Instant::now(),
            lines: 0,
            skipped: 0,
            target: metadata.target(),
        });
        if place.since.elapsed() >= SECOND {
            (place.since, place.lines) = (Instant::now(), 0);
        }
        let is_in = place.lines < PER_S;
        match is_in {
            true => place.lines += 1,
            false => place.skipped += 1,
        }
        is_in
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is written meanwhile.
    fn written(form: Form, work: impl FnOnce()) -> Vec<String> {
        let page = Page::default();
        let copy = page.clone();
        let subscriber = Registry::default().with(lines(form, move || copy.clone()));
        tracing::subscriber::with_default(subscriber, work);
        let bytes = page.0.lock().clone();
        String::from_utf8(bytes).expect("UTF-8").lines().map(str::to_owned).collect()
    }

    /// One test: level and limits are the process's.
    #[test]
    fn lines_have_a_level_a_limit_and_a_form() {
        let say = || {
            for n in 0..100 {
                tracing::info!(target: "flood", n, "again");
            }
            tracing::warn!(target: "port", port = 7, "link down");
            tracing::debug!(target: "port", "nobody wants to know");
        };
        let json = written(Form::Json, || {
            say();
            std::thread::sleep(SECOND + Duration::from_millis(20));
            tell_skipped();
            tell_skipped();
        });
        let json: Vec<serde_json::Value> =
            json.iter().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(json.len(), PER_S as usize + 2, "{json:?}");
        let last = |n: usize| &json[json.len() - n];
        assert_eq!(
            (&last(2)["message"], &last(2)["level"], &last(2)["port"]),
            (&"link down".into(), &"WARN".into(), &7.into())
        );
        assert_eq!((&last(1)["about"], &last(1)["skipped"]), (&"flood".into(), &80.into()), "{:?}", last(1));
        assert!(last(2)["timestamp"].as_str().is_some_and(|time| time.ends_with('Z')));

        assert_eq!((level(), step(false), step(false), step(false)), ("info", "warn", "error", "error"));
        assert!(written(Form::Text, say).is_empty());
        assert!(set_level("debug") && !set_level("loud"));
        assert_eq!((level(), step(true), step(true)), ("debug", "trace", "trace"));
        let text = written(Form::Text, || tracing::debug!(target: "port", port = 7, "link up"));
        assert!(text.len() == 1 && text[0].contains("DEBUG port: link up port=7"), "{text:?}");
        assert!(set_level("info"));
    }
}
