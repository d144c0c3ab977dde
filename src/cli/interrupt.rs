//! SIGINT and SIGTERM: the first asks for a clean stop, the second ends the program at once.
//!
//! Where SIGTERM drains first, the program says so ([`Interrupt::once_more`]), and the next signal is a first one again.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// Which signal came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGINT: a person.
    Interrupt,
    /// SIGTERM: a service manager.
    Terminate,
}

/// Has the user asked to stop?
#[derive(Clone, Debug)]
pub struct Interrupt {
    asked: Arc<AtomicBool>,
    terminate: Arc<AtomicBool>,
}

impl Interrupt {
    /// Takes over both signals.
    pub fn install() -> io::Result<Self> {
        let (asked, terminate) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        for signal in [SIGINT, SIGTERM] {
            // The order matters: on the second signal the flag is already set, and this one ends the process.
            flag::register_conditional_shutdown(signal, 128 + signal, asked.clone())?;
            if signal == SIGTERM {
                flag::register(signal, terminate.clone())?;
            }
            flag::register(signal, asked.clone())?;
        }
        Ok(Interrupt { asked, terminate })
    }

    /// True after the first signal.
    pub fn asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    /// The first signal, if one came.
    pub fn take(&self) -> Option<Signal> {
        let which = || match self.terminate.load(Ordering::Relaxed) {
            true => Signal::Terminate,
            false => Signal::Interrupt,
        };
        self.asked().then(which)
    }

    /// The signal that came does not end the program: the next one is the first.
    pub fn once_more(&self) {
        self.terminate.store(false, Ordering::Relaxed);
        self.asked.store(false, Ordering::Relaxed);
    }
}
