//! What the admin API answers; docs/admin.md lists every request and answer.
//!
//! ```text
//! connection's thread: path ──> query ──> answer
//!                                 │ ^
//!             counters and flows ─┘ │ what only the main lcore can see: a Scene, asked for through a channel
//! ```
//!
//! An answer is made on the thread of its connection. Counters and flows are read where they are; ports, health and reloads are the main lcore's, which
//! copies them when it is asked, once for each request that needs them, and does nothing while nobody asks.

mod capture;
mod events;
mod explain;
mod flows;
mod query;
mod stats;
mod status;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};
use parking_lot::RwLock;
use serde_json::{Value, json};

use super::figures::Picture;
use super::pace::Rate;
use super::reload::Reloaded;
use crate::config::Plan;
use crate::event::Following;
use crate::flow::FlowView;
use crate::mgmt::admin::{Api, Request, Rights, page};
use crate::mgmt::control::{self, Asked, LONGEST_COMMAND, Refusal, WAITING};
use crate::mgmt::http::{Method, Outcome};
#[cfg(feature = "program")]
use crate::mgmt::log;
use crate::mgmt::server::Reply;
use crate::path::Clock;
pub(super) use capture::Lenses;
use query::Query;

/// How long the main lcore may take to say how things are.
const PATIENCE: Duration = Duration::from_secs(3);
/// From one look at whether the program ends to the next.
const SLICE: Duration = Duration::from_millis(50);

/// Everything, at one moment.
#[derive(Clone, Debug)]
pub(super) struct Scene {
    pub picture: Picture,
    pub plan: Arc<Plan>,
    pub rates: Vec<Rate>,
    /// State of health, with reasons.
    pub health: Value,
    pub uptime: Duration,
    /// How leaving is; null if nobody leaves.
    pub drain: Value,
    /// When the newest reload ended, and how.
    pub reloaded: Option<(Instant, Reloaded)>,
}

/// A request for a [`Scene`].
pub(super) struct Wish(Sender<Box<Scene>>);

impl Wish {
    /// Obeys it.
    pub fn grant(self, scene: Scene) {
        let _ = self.0.try_send(Box::new(scene)); // whoever asked may be gone
    }
}

/// What can be asked without the main lcore, once there is a running application.
#[derive(Clone)]
pub(super) struct Here {
    pub flows: Option<FlowView>,
    /// The workers'.
    pub clock: Clock,
    pub lenses: Lenses,
    /// Who follows what is told; none where nothing is.
    pub following: Option<Arc<Following>>,
}

/// Where requests and answers meet.
pub(super) struct Desk {
    commands: (Sender<Asked>, Receiver<Asked>),
    wishes: (Sender<Wish>, Receiver<Wish>),
    here: RwLock<Option<Here>>,
    closed: AtomicBool,
}

impl std::fmt::Debug for Desk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Desk")
    }
}

impl Desk {
    pub fn new() -> Arc<Self> {
        Arc::new(Desk {
            commands: bounded(WAITING),
            wishes: bounded(WAITING),
            here: RwLock::default(),
            closed: AtomicBool::new(false),
        })
    }

    /// There is a running application from now on.
    pub fn open(&self, here: Here) {
        *self.here.write() = Some(here);
    }

    /// There is none any more: whoever waits for an answer is told so.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        *self.here.write() = None;
        self.wishes.1.try_iter().for_each(drop);
        self.commands.1.try_iter().for_each(drop);
    }

    /// The next command for the main lcore.
    pub fn asked(&self) -> Option<Asked> {
        self.commands.1.try_recv().ok()
    }

    /// The next request for a scene.
    pub fn wish(&self) -> Option<Wish> {
        self.wishes.1.try_recv().ok()
    }

    fn here(&self) -> Result<Here, Refusal> {
        let starting = || match self.closed.load(Ordering::Acquire) {
            true => Refusal::new("stopping", "the program is ending"),
            false => Refusal::new("starting", "the program is starting; ask again"),
        };
        self.here.read().clone().ok_or_else(starting)
    }

    /// How things are now.
    fn scene(&self) -> Result<Box<Scene>, Refusal> {
        self.here()?;
        let (answer, answered) = bounded(1);
        self.wishes
            .0
            .try_send(Wish(answer))
            .map_err(|_| Refusal::new("busy", "too much is asked at once"))?;
        self.wait(&answered, PATIENCE, "the management side does not answer: it hangs")
    }

    fn wait<T>(&self, answered: &Receiver<T>, time: Duration, late: &str) -> Result<T, Refusal> {
        let begun = Instant::now();
        loop {
            match answered.recv_timeout(SLICE) {
                Ok(answer) => return Ok(answer),
                Err(RecvTimeoutError::Timeout) if self.closed.load(Ordering::Acquire) => {
                    return Err(Refusal::new("stopping", "the program is ending"));
                }
                Err(RecvTimeoutError::Timeout) if begun.elapsed() < time => {}
                Err(RecvTimeoutError::Timeout) => return Err(Refusal::new("late", late)),
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Refusal::new("stopping", "the program is ending"));
                }
            }
        }
    }

    /// A command for the management loop, and what became of it.
    fn command(&self, body: &[u8], who: &str) -> Reply {
        let asked = control::parse(body).and_then(|command| {
            self.here()?;
            let (answer, answered) = bounded(1);
            let busy = |_| Refusal::new("busy", "too much is asked at once");
            self.commands.0.try_send(Asked::new(command, who, answer)).map_err(busy)?;
            self.wait(&answered, LONGEST_COMMAND, "no answer; the log of the program may know more")?
        });
        match asked {
            Err(refusal) => refusal.reply(),
            Ok(answer) => {
                let answer = control::reply(answer);
                Reply::text(Outcome::Fit, crate::mgmt::admin::JSON, &format!("{answer}\n"))
            }
        }
    }

    fn route(&self, request: &Request<'_>) -> Result<Reply, Refusal> {
        let asked = request.asked;
        let path = asked.path.strip_prefix("/v1/").unwrap_or_default();
        let Some((_, method, _)) = ROUTES.iter().find(|(known, ..)| *known == path) else {
            let known: Vec<&str> = ROUTES.iter().map(|(path, ..)| *path).collect();
            let text = format!("there is no {:?}; behind /v1/ are {}", asked.path, known.join(", "));
            return Err(Refusal::new("not-found", text));
        };
        if (asked.method == Method::Post) != (*method == "POST") {
            return Err(Refusal::new("method", format!("/v1/{path} wants {method}")));
        }
        if *method == "POST" && request.rights < Rights::Change {
            return Err(Refusal::new("not-allowed", "only management.socket takes what changes something"));
        }
        let query = Query::read(asked.query)?;
        match path {
            "" => {
                let list = ROUTES.iter().filter(|(path, ..)| !path.is_empty()).map(|(path, method, what)| {
                    json!({ "path": format!("/v1/{path}"), "method": method, "what": what })
                });
                query.done()?;
                Ok(page(Outcome::Fit, true, json!({ "paths": list.collect::<Vec<_>>() })))
            }
            "status" => {
                query.done()?;
                Ok(page(Outcome::Fit, true, status::status(&*self.scene()?)))
            }
            "stats" => {
                query.done()?;
                Ok(page(Outcome::Fit, true, stats::stats(&*self.scene()?)))
            }
            "flows" => flows::list(&self.here()?, query),
            "flows/count" => flows::count(&self.here()?, query),
            "flows/flush" => flows::flush(&self.here()?, query),
            "explain" => explain::explain(&self.here()?, &*self.scene()?, query),
            "capture" | "events" if request.rights < Rights::Change => {
                Err(Refusal::new("not-allowed", format!("/v1/{path} is for management.socket only")))
            }
            "events" => events::events(&self.here()?, &*self.scene()?, query),
            "capture" => capture::capture(&self.here()?, &*self.scene()?, query),
            #[cfg(feature = "program")]
            "level" => level(query),
            "command" => {
                query.done()?;
                Ok(self.command(request.body, request.who))
            }
            _ => Err(Refusal::new("not-found", "there is no such path")),
        }
    }
}

/// `/v1/level`: how much is logged, without a question to the management loop: it is one word of the process.
#[cfg(feature = "program")]
fn level(mut query: Query<'_>) -> Result<Reply, Refusal> {
    let to =
        query.take("to").ok_or_else(|| Refusal::new("bad-request", "to: which level? As in to=debug"))?;
    query.done()?;
    let before = log::level();
    if !log::set_level(&to) {
        let text = format!("to: {to:?} is not one of error, warn, info, debug, trace");
        return Err(Refusal::new("bad-request", text));
    }
    Ok(page(Outcome::Fit, true, json!({ "level": log::level(), "before": before })))
}

/// Path behind `/v1/`, method, and what it is.
const ROUTES: &[(&str, &str, &str)] = &[
    ("", "GET", "this list"),
    ("status", "GET", "health with reasons, workers, ports, flows, losses, the last reload"),
    ("stats", "GET", "all counters"),
    ("flows", "GET", "flows: filter, sort, limit"),
    ("flows/count", "GET", "how many flows a filter takes, by tenant, state and verdict"),
    ("flows/flush", "POST", "ends the flows that a filter takes"),
    ("explain", "GET", "what becomes of the packets between two ends, and why"),
    ("events", "GET", "what is told of packets and flows, as it is told: filter, records, seconds"),
    ("capture", "GET", "frames of a filter, as pcapng, while they go through"),
    #[cfg(feature = "program")]
    ("level", "POST", "how much is logged from now on"),
    ("command", "POST", "a command for the management loop, in the body"),
];

impl Api for Desk {
    fn answer(&self, request: &Request<'_>) -> Reply {
        self.route(request).unwrap_or_else(|refusal| refusal.reply())
    }
}
