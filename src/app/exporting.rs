//! The thread that publishes figures, once for each picture that the main lcore posts.

use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread::{Builder, JoinHandle};

use super::Exporter;
use super::figures::Picture;
use crate::dpdk::{self, Error};

/// A thread, and the way to it.
#[derive(Debug)]
pub(super) struct Exporting {
    pictures: Option<SyncSender<Box<Picture>>>,
    thread: Option<JoinHandle<()>>,
}

impl Exporting {
    /// A thread on these CPUs.
    pub fn start(exporter: Arc<Exporter>, cpus: Vec<u32>) -> Result<Self, Error> {
        let (sender, pictures) = sync_channel::<Box<Picture>>(1);
        let work = move || {
            dpdk::run_on(&cpus);
            for picture in pictures {
                exporter.publish(&picture);
            }
        };
        let thread = Builder::new().name("figures".into()).spawn(work);
        let thread =
            thread.map_err(|e| Error::refused(format!("no thread: {e}"), "raise the limit of processes"))?;
        Ok(Exporting { pictures: Some(sender), thread: Some(thread) })
    }

    /// Without waiting: if the last picture is still being published, this one is left out.
    pub fn post(&self, picture: Picture) {
        match self.pictures.as_ref().map(|pictures| pictures.try_send(Box::new(picture))) {
            None | Some(Ok(()) | Err(TrySendError::Full(_) | TrySendError::Disconnected(_))) => {}
        }
    }
}

impl Drop for Exporting {
    /// Afterwards nothing of the last picture is held any more: stages and flows lie in memory that goes with the EAL.
    fn drop(&mut self) {
        self.pictures = None;
        let _ = self.thread.take().map(JoinHandle::join);
    }
}
