//! How a worker learns of changes among targets: a mailbox with one place each way, as for plans ([`crate::path::Change`]).
//!
//! What comes is swapped for what was, which goes back to be dropped: the worker neither allocates nor frees, and looks at one word in each poll. A worker
//! that hangs takes nothing, and nobody waits for it: the newest news wait at the sender.

use super::forward::News;

/// The worker's end.
#[derive(Debug)]
pub struct Inbox {
    next: rtrb::Consumer<Box<News>>,
    back: rtrb::Producer<Box<News>>,
}

/// The management side's end.
#[derive(Debug)]
pub struct Outbox {
    next: rtrb::Producer<Box<News>>,
    back: rtrb::Consumer<Box<News>>,
    /// Newer than what is under way.
    waiting: Option<Box<News>>,
    /// Sent, and what was there before has not come back.
    under_way: bool,
}

/// One worker's mailbox.
pub fn news() -> (Inbox, Outbox) {
    let ((next, taken), (back, came)) = (rtrb::RingBuffer::new(1), rtrb::RingBuffer::new(1));
    (Inbox { next: taken, back }, Outbox { next, back: came, waiting: None, under_way: false })
}

impl Inbox {
    /// Is there anything?
    #[inline(always)]
    pub(super) fn is_due(&self) -> bool {
        !self.next.is_empty()
    }

    /// Takes what is there; `swap` puts what was into the same box.
    #[cold]
    pub(super) fn take(&mut self, swap: impl FnOnce(&mut Box<News>)) {
        // Whoever sends takes back what was before sending again, so there is room.
        if self.back.is_full() {
            return;
        }
        if let Ok(mut news) = self.next.pop() {
            swap(&mut news);
            let _ = self.back.push(news);
        }
    }
}

impl Outbox {
    /// Sends news, now or as soon as the worker has taken those before; what waits already is outdated.
    pub fn post(&mut self, news: News) {
        self.waiting = Some(Box::new(news));
        self.look();
    }

    /// Takes back what the worker is done with, and sends what waits. To be called now and then. True if nothing is left to do.
    pub fn look(&mut self) -> bool {
        while self.back.pop().is_ok() {
            self.under_way = false;
        }
        if !self.under_way
            && let Some(news) = self.waiting.take()
        {
            match self.next.push(news) {
                Ok(()) => self.under_way = true,
                Err(rtrb::PushError::Full(news)) => self.waiting = Some(news),
            }
        }
        !self.under_way && self.waiting.is_none()
    }
}
