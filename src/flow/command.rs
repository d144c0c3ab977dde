//! What the management side asks of a worker: to end flows.
//!
//! A command names an entry and the version that the asker saw there. If the entry holds another flow by now, nothing happens: that
//! flow was not meant. Commands wait in a bounded ring; the worker takes a bounded number of them when it looks for what has
//! aged, at most once in a millisecond when it is idle, and never waits for anything.

use super::engine::Flows;
use super::event::End;

/// Commands that wait for one worker.
const RING: usize = 4096;
/// Of these, what one poll obeys.
const MOST_OBEYED: usize = 128;

/// End the flow in this entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Command {
    pub entry: u32,
    /// Of the entry, when it was read.
    pub version: u32,
}

/// The worker's end of the ring, if anybody holds the other.
#[derive(Debug, Default)]
pub(super) struct Commands(Option<rtrb::Consumer<Command>>);

impl Flows {
    /// The management side's end of a ring of commands. There is one: an earlier one is no longer heard.
    pub(super) fn commander(&mut self) -> rtrb::Producer<Command> {
        let (commander, commands) = rtrb::RingBuffer::new(RING);
        self.commands.0 = Some(commands);
        commander
    }

    /// Ends what is asked for.
    #[inline]
    pub(super) fn obey(&mut self) {
        for _ in 0..MOST_OBEYED {
            let Some(Ok(Command { entry, version })) = self.commands.0.as_mut().map(|ring| ring.pop()) else {
                return;
            };
            if self.entry(entry).is_some_and(|line| line.version() == version) {
                self.end(entry, End::Flushed);
            }
        }
    }
}
