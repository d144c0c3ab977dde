//! `sluicegate top`: a running instance on a terminal, live: workers, ports, stages, drops, flows, tenants, events.
//!
//! ```text
//! thread: asks the admin API ──> Sample ──┐
//! thread: follows events, while shown ────┼──> main thread: keys, Picture, draw
//! ```
//!
//! What is seen is a pure function of the answers and of what somebody has typed ([`draw`]), so that it is tested without a terminal. The terminal is given back
//! as it was, however this ends: by a key, a signal or a panic.

mod draw;
mod picture;
mod view;

use std::collections::VecDeque;
use std::io::{BufRead, IsTerminal};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use crossbeam::channel::{Receiver, Sender, bounded};
use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use ratatui::layout::Rect;
use serde_json::Value;

use super::instance::Instance;
use super::interrupt::Interrupt;
use super::{Failure, OK, Outcome, events, show};
use crate::mgmt::admin::client::Client;
use draw::draw;
use picture::{History, Picture, Sample};
use view::{Pane, View};

/// From one look at keys and signals to the next.
const LOOK: Duration = Duration::from_millis(100);
/// An answer that is later than this, after an interval, is said to be late.
const LATE: Duration = Duration::from_secs(4);
/// Flows that are looked at: those with the most bytes.
const FLOWS: &str = "1000";
/// Events that are kept.
const EVENTS: usize = 500;
/// How long one request for events goes on: whoever turns to another pane stops following within that time.
const FOLLOW: &str = "2";

/// A running instance on a terminal, live.
#[derive(Debug, Args)]
pub struct Top {
    #[command(flatten)]
    instance: Instance,
    /// From one look to the next, 200ms at least
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "1s")]
    every: Duration,
    /// One picture as text, of two looks
    #[arg(long)]
    once: bool,
    /// What is shown first: all, workers, ports, stages, drops, flows, tenants or events
    #[arg(long, value_name = "PANE", default_value = "all")]
    pane: Pane,
    /// Columns and lines of the picture, with --once
    #[arg(long, value_name = "COLUMNSxLINES", default_value = "80x24", value_parser = size, requires = "once")]
    size: (u16, u16),
}

fn size(text: &str) -> Result<(u16, u16), String> {
    let size = text.split_once('x').and_then(|(w, h)| Some((w.parse().ok()?, h.parse().ok()?)));
    size.filter(|(w, h)| (1..=500).contains(w) && (1..=500).contains(h))
        .ok_or_else(|| "write it as 80x24, up to 500x500".into())
}

/// What comes in from the threads that ask.
enum Came {
    Sample(Box<Sample>),
    Trouble(String),
    Told(String),
}

impl Top {
    pub(super) fn run(self) -> Outcome {
        let client = self.instance.client()?;
        let every = self.every.max(Duration::from_millis(200));
        if self.once {
            return self.once(&client, every);
        }
        if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
            return Err(Failure::Other("that is for a terminal; --once prints one picture".into()));
        }
        let interrupt = Interrupt::install().map_err(|e| Failure::Other(format!("signals: {e}")))?;
        let shown = Arc::new(AtomicUsize::new(self.pane as usize));
        let (sender, came) = bounded(64);
        start("top-ask", asking(client.clone(), every, shown.clone(), sender.clone()))?;
        start("top-events", following(client, shown.clone(), sender))?;
        let mut terminal =
            ratatui::try_init().map_err(|error| Failure::Other(format!("the terminal: {error}")))?;
        let mut live = Live::new(View::of(self.pane));
        let done = live.run(every, &mut terminal, &interrupt, &came, &shown);
        ratatui::restore();
        done.map(|()| OK).map_err(|error| Failure::Other(format!("the terminal: {error}")))
    }

    /// One picture as text.
    fn once(&self, client: &Client, every: Duration) -> Outcome {
        let mut live = Live::new(View::of(self.pane));
        live.take(Came::Sample(Box::new(sample(client, self.pane)?)));
        if self.pane == Pane::Events {
            let query = [("seconds", "1"), ("records", "100")];
            let stream = client.stream("events", &query)?;
            stream.lines().map_while(Result::ok).for_each(|line| live.take(Came::Told(line)));
        } else {
            std::thread::sleep(every);
        }
        live.take(Came::Sample(Box::new(sample(client, self.pane)?)));
        let (width, height) = self.size;
        let mut buffer = Buffer::empty(Rect::new(0, 0, width, height));
        draw(&live.view, &live.picture, &mut buffer);
        show::print(draw::text(&buffer))?;
        Ok(OK)
    }
}

fn start(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
    let thread = std::thread::Builder::new().name(name.into()).spawn(work);
    thread.map(drop).map_err(|error| Failure::Other(format!("no thread: {error}")))
}

/// What the instance says, as far as the pane needs it.
fn sample(client: &Client, pane: Pane) -> Result<Sample, crate::mgmt::admin::client::Error> {
    let mut sample = Sample {
        status: client.get("status", &[])?,
        stats: client.get("stats", &[])?,
        flows: Value::Null,
        tenants: Value::Null,
        why_no_flows: String::new(),
    };
    // A walk through the table: only for who looks at it.
    if matches!(pane, Pane::All | Pane::Flows) {
        match client.get("flows", &[("sort", "bytes"), ("limit", FLOWS)]) {
            Ok(flows) => sample.flows = flows,
            Err(error) => sample.why_no_flows = error.to_string(),
        }
    }
    if pane == Pane::Tenants {
        match client.get("flows/count", &[]) {
            Ok(count) => sample.tenants = count,
            Err(error) => sample.why_no_flows = error.to_string(),
        }
    }
    Ok(sample)
}

/// Asks again and again; ends when nobody wants to know any more.
fn asking(
    client: Client,
    every: Duration,
    shown: Arc<AtomicUsize>,
    to: Sender<Came>,
) -> impl FnOnce() + Send + 'static {
    move || {
        loop {
            let begun = Instant::now();
            let pane = Pane::at(shown.load(Ordering::Relaxed));
            let came = match sample(&client, pane) {
                Ok(sample) => Came::Sample(Box::new(sample)),
                Err(error) => Came::Trouble(error.to_string()),
            };
            if to.send(came).is_err() {
                return;
            }
            // Another pane wants something else: not a whole interval later.
            while begun.elapsed() < every && Pane::at(shown.load(Ordering::Relaxed)) == pane {
                std::thread::sleep(LOOK.min(every));
            }
        }
    }
}

/// Follows events, while they are shown.
fn following(client: Client, shown: Arc<AtomicUsize>, to: Sender<Came>) -> impl FnOnce() + Send + 'static {
    move || {
        loop {
            if Pane::at(shown.load(Ordering::Relaxed)) != Pane::Events {
                std::thread::sleep(LOOK);
                continue;
            }
            match client.stream("events", &[("seconds", FOLLOW)]) {
                Ok(stream) => {
                    for line in stream.lines().map_while(Result::ok) {
                        if to.send(Came::Told(line)).is_err() {
                            return;
                        }
                    }
                }
                Err(_) => std::thread::sleep(Duration::from_secs(1)), // who asks for counters says why
            }
        }
    }
}

/// What is known, and how it is looked at.
struct Live {
    view: View,
    picture: Picture,
    before: Option<Sample>,
    history: History,
    heard: Instant,
}

impl Live {
    fn new(view: View) -> Self {
        let (picture, history) = (Picture::default(), History::default());
        Live { view, picture, before: None, history, heard: Instant::now() }
    }

    fn take(&mut self, came: Came) {
        if self.view.paused {
            // The picture stands still; the next one counts from here.
            if let Came::Sample(sample) = came {
                (self.before, self.heard) = (Some(*sample), Instant::now());
            }
            return;
        }
        match came {
            Came::Sample(sample) => {
                let events = std::mem::take(&mut self.picture.events);
                self.picture = Picture::of(self.before.as_ref(), &sample, &mut self.history);
                self.picture.events = events;
                self.before = Some(*sample);
                self.heard = Instant::now();
            }
            Came::Trouble(why) => {
                let since = self.heard.elapsed().as_secs();
                self.picture.trouble = Some(format!("no answer for {since} s, trying again: {why}"));
            }
            Came::Told(line) => {
                let text = serde_json::from_str(&line).map_or(line, |record| events::line(&record));
                push(&mut self.picture.events, text);
            }
        }
    }

    /// Says that the picture is an old one. Who stands still answers nothing, and refuses nothing either.
    fn waiting(&mut self, every: Duration) {
        let since = self.heard.elapsed();
        if self.picture.trouble.is_none() && !self.view.paused && since > LATE + every {
            self.picture.trouble = Some(format!("no answer for {} s, still waiting", since.as_secs()));
        }
    }

    fn run(
        &mut self,
        every: Duration,
        terminal: &mut ratatui::DefaultTerminal,
        interrupt: &Interrupt,
        came: &Receiver<Came>,
        shown: &AtomicUsize,
    ) -> std::io::Result<()> {
        while !interrupt.asked() {
            terminal.draw(|frame| draw(&self.view, &self.picture, frame.buffer_mut()))?;
            if event::poll(LOOK)? {
                match event::read()? {
                    Event::Key(key) if key.kind != KeyEventKind::Release => {
                        if self.view.key(key) {
                            return Ok(());
                        }
                        shown.store(self.view.pane as usize, Ordering::Relaxed);
                    }
                    _ => {}
                }
            }
            came.try_iter().for_each(|came| self.take(came));
            self.waiting(every);
        }
        Ok(())
    }
}

fn push(events: &mut VecDeque<String>, text: String) {
    if events.len() >= EVENTS {
        events.pop_front();
    }
    events.push_back(text);
}

#[cfg(test)]
mod tests;
