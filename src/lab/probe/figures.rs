//! What became of messages, datagrams and connections, by the window in which they began.
//!
//! Pure: time is what the caller says it is. A datagram is lost if it is not echoed within the patience for datagrams. A message over TCP is late until it
//! is echoed, and its connection is stuck when that takes longer than the patience for connections: what was lost on the way is sent again by
//! the kernel, at growing intervals, so its patience has to be the longer one.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Figures of one window.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figures {
    /// What the window is called.
    pub window: String,
    /// How long it was open.
    pub for_ms: u64,
    /// Datagrams sent.
    pub datagrams: u64,
    /// Those that were not echoed.
    pub lost: u64,
    /// Flows of datagrams that lost any.
    pub lossy_flows: u64,
    /// From the beginning of the window to the sending of the last datagram that was lost: nothing was lost after that. 0: none was.
    pub lost_until_ms: u64,
    /// The longest time for which all datagrams of one flow were lost.
    pub outage_ms: u64,
    /// TCP connections that were open during the window, or broke in it.
    pub connections: u64,
    /// Those that broke: reset, closed, stuck, or with bytes that were not those sent.
    pub broken: u64,
    /// Of these, reset.
    pub reset: u64,
    /// Of these, those on which nothing moves any more.
    pub stuck: u64,
    /// Messages sent over them.
    pub messages: u64,
    /// The slowest echo of a message, of those that came.
    pub slowest_ms: u64,
    /// Connections that were to be opened.
    pub opened: u64,
    /// Those that could not be, or that echoed nothing.
    pub failed: u64,
    /// The slowest of the others, from the first SYN to the end of its echo.
    pub slowest_open_ms: u64,
}

impl Figures {
    /// What can be asked for.
    pub const NAMES: [&str; 15] = [
        "for_ms",
        "datagrams",
        "lost",
        "lossy_flows",
        "lost_until_ms",
        "outage_ms",
        "connections",
        "broken",
        "reset",
        "stuck",
        "messages",
        "slowest_ms",
        "opened",
        "failed",
        "slowest_open_ms",
    ];

    /// One of them.
    pub fn get(&self, name: &str) -> Option<u64> {
        serde_json::to_value(self).ok()?.get(name)?.as_u64()
    }
}

/// Why a connection broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// RST, or the kernel gave up.
    Reset,
    /// FIN.
    Closed,
    /// What came back is not what was sent.
    Garbled,
}

/// How long one waits.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For the echo of a datagram.
    pub datagrams: Duration,
    /// For that of a message over TCP, and for a new connection.
    pub connections: Duration,
}

#[derive(Debug, Default)]
struct Window {
    figures: Figures,
    begin: Duration,
    end: Option<Duration>,
    /// Flows that lost a datagram in it.
    lossy: Vec<u32>,
}

/// A datagram or a message that is on its way.
#[derive(Clone, Copy, Debug)]
struct Sent {
    number: u64,
    at: Duration,
    window: usize,
    answered: bool,
}

/// What a flow of datagrams has on the way.
#[derive(Debug, Default)]
struct Flow {
    next: u64,
    on_the_way: VecDeque<Sent>,
    /// Since when everything is lost, and in which window that began.
    outage: Option<(Duration, usize)>,
}

/// What a connection has on the way.
#[derive(Debug, Default)]
struct Connection {
    next: u64,
    on_the_way: VecDeque<Sent>,
    is_over: bool,
}

/// A connection that is being opened.
#[derive(Clone, Copy, Debug)]
struct Opening {
    at: Duration,
    window: usize,
}

/// Everything that was sent, as far as it is not settled, and figures of what is.
#[derive(Debug)]
pub struct Ledger {
    patience: Patience,
    windows: Vec<Window>,
    flows: Vec<Flow>,
    connections: Vec<Connection>,
    /// By the number that the caller knows them by.
    openings: std::collections::BTreeMap<u64, Opening>,
}

impl Ledger {
    /// Of so many flows of datagrams and connections.
    pub fn new(flows: usize, connections: usize, patience: Patience, window: &str, now: Duration) -> Ledger {
        let mut ledger = Ledger {
            patience,
            windows: Vec::new(),
            flows: std::iter::repeat_with(Flow::default).take(flows).collect(),
            connections: std::iter::repeat_with(Connection::default).take(connections).collect(),
            openings: Default::default(),
        };
        ledger.mark(window, now);
        ledger
    }

    /// A new window begins.
    pub fn mark(&mut self, name: &str, now: Duration) {
        if let Some(last) = self.windows.last_mut() {
            last.end = Some(now);
        }
        let figures = Figures { window: name.to_owned(), ..Figures::default() };
        let open = self.connections.iter().filter(|connection| !connection.is_over).count() as u64;
        let figures = Figures { connections: open, ..figures };
        self.windows.push(Window { figures, begin: now, ..Window::default() });
    }

    /// The current window.
    fn current(&self) -> usize {
        self.windows.len().saturating_sub(1)
    }

    /// A datagram goes out: its number.
    pub fn datagram(&mut self, flow: u32, now: Duration) -> u64 {
        let window = self.current();
        let Some(flow) = self.flows.get_mut(flow as usize) else { return 0 };
        let number = flow.next;
        flow.next += 1;
        flow.on_the_way.push_back(Sent { number, at: now, window, answered: false });
        self.windows[window].figures.datagrams += 1;
        number
    }

    /// A datagram has come back.
    pub fn echoed(&mut self, flow: u32, number: u64, now: Duration) {
        let patience = self.patience.datagrams;
        if let Some(flow) = self.flows.get_mut(flow as usize)
            && let Ok(place) = flow.on_the_way.binary_search_by_key(&number, |sent| sent.number)
            && let Some(sent) = flow.on_the_way.get_mut(place)
            // What comes too late is lost, whether somebody has looked meanwhile or not.
            && now.saturating_sub(sent.at) <= patience
        {
            sent.answered = true;
        }
        self.settle_flow(flow, now);
    }

    /// What is answered or lost is counted, in the order in which it was sent.
    fn settle_flow(&mut self, number: u32, now: Duration) {
        let patience = self.patience.datagrams;
        let Some(flow) = self.flows.get_mut(number as usize) else { return };
        while let Some(sent) = flow.on_the_way.front().copied() {
            if !sent.answered && now.saturating_sub(sent.at) <= patience {
                return;
            }
            flow.on_the_way.pop_front();
            let (since, began) = *flow.outage.get_or_insert((sent.at, sent.window));
            if sent.answered {
                flow.outage = None;
                if since == sent.at {
                    continue; // there was none
                }
            }
            let outage = sent.at.saturating_sub(since).as_millis() as u64;
            let figures = &mut self.windows[began].figures;
            figures.outage_ms = figures.outage_ms.max(outage);
            if !sent.answered {
                let window = &mut self.windows[sent.window];
                window.figures.lost += 1;
                let until = sent.at.saturating_sub(window.begin).as_millis() as u64;
                // At least 1: 0 says that nothing was lost.
                window.figures.lost_until_ms = window.figures.lost_until_ms.max(until).max(1);
                if !window.lossy.contains(&number) {
                    window.lossy.push(number);
                    window.figures.lossy_flows += 1;
                }
            }
        }
    }

    /// A message goes out over a connection: its number.
    pub fn message(&mut self, connection: u32, now: Duration) -> u64 {
        let window = self.current();
        let Some(connection) = self.connections.get_mut(connection as usize) else { return 0 };
        let number = connection.next;
        connection.next += 1;
        connection.on_the_way.push_back(Sent { number, at: now, window, answered: false });
        self.windows[window].figures.messages += 1;
        number
    }

    /// The number of the message that comes back next over a connection.
    pub fn expected(&self, connection: u32) -> Option<u64> {
        self.connections.get(connection as usize)?.on_the_way.front().map(|sent| sent.number)
    }

    /// The next message of a connection has come back.
    pub fn answered(&mut self, connection: u32, now: Duration) {
        let Some(connection) = self.connections.get_mut(connection as usize) else { return };
        if let Some(sent) = connection.on_the_way.pop_front() {
            let took = now.saturating_sub(sent.at).as_millis() as u64;
            let figures = &mut self.windows[sent.window].figures;
            figures.slowest_ms = figures.slowest_ms.max(took);
        }
    }

    /// A connection broke. It counts where the first message was sent that is missing.
    pub fn broke(&mut self, connection: u32, how: Broken) {
        let current = self.current();
        let Some(connection) = self.connections.get_mut(connection as usize).filter(|c| !c.is_over) else {
            return;
        };
        let window = connection.on_the_way.front().map_or(current, |sent| sent.window);
        connection.is_over = true;
        connection.on_the_way.clear();
        let figures = &mut self.windows[window].figures;
        figures.broken += 1;
        figures.reset += u64::from(how == Broken::Reset);
    }

    /// A new connection is to be opened.
    pub fn opening(&mut self, id: u64, now: Duration) {
        let window = self.current();
        self.openings.insert(id, Opening { at: now, window });
        self.windows[window].figures.opened += 1;
    }

    /// It was, and it echoed.
    pub fn opened(&mut self, id: u64, now: Duration) {
        if let Some(opening) = self.openings.remove(&id) {
            let took = now.saturating_sub(opening.at).as_millis() as u64;
            let figures = &mut self.windows[opening.window].figures;
            figures.slowest_open_ms = figures.slowest_open_ms.max(took);
        }
    }

    /// It was not.
    pub fn not_opened(&mut self, id: u64) {
        if let Some(opening) = self.openings.remove(&id) {
            self.windows[opening.window].figures.failed += 1;
        }
    }

    /// Connections that have been opening for longer than anybody waits.
    pub fn overdue(&mut self, now: Duration) -> Vec<u64> {
        let patience = self.patience.connections;
        let late = |opening: &Opening| now.saturating_sub(opening.at) > patience;
        self.openings.iter().filter(|(_, opening)| late(opening)).map(|(id, _)| *id).collect()
    }

    /// Counts datagrams that nobody waits for any more.
    pub fn age(&mut self, now: Duration) {
        (0..self.flows.len() as u32).for_each(|flow| self.settle_flow(flow, now));
    }

    /// Is everything that was sent until then answered or given up?
    pub fn is_settled(&self, until: Duration, now: Duration) -> bool {
        let sent = |sent: &Sent| sent.at <= until;
        let waits = |sent: &Sent| now.saturating_sub(sent.at) <= self.patience.connections;
        let flows = self.flows.iter().all(|flow| !flow.on_the_way.front().is_some_and(sent));
        let open =
            self.connections.iter().all(|c| !c.on_the_way.front().is_some_and(|s| sent(s) && waits(s)));
        flows && open && self.openings.values().all(|opening| opening.at > until)
    }

    /// Figures of all windows, in their order.
    pub fn figures(&self, now: Duration) -> Vec<Figures> {
        let figures = self.windows.iter().map(|window| {
            let end = window.end.unwrap_or(now);
            Figures { for_ms: end.saturating_sub(window.begin).as_millis() as u64, ..window.figures.clone() }
        });
        let mut figures: Vec<Figures> = figures.collect();
        for connection in &self.connections {
            // It may move again; until then it is as good as broken.
            if let Some(sent) =
                connection.on_the_way.front().filter(|s| now.saturating_sub(s.at) > self.patience.connections)
                && let Some(figures) = figures.get_mut(sent.window)
            {
                figures.broken += 1;
                figures.stuck += 1;
            }
        }
        figures
    }
}

#[cfg(test)]
mod tests;
