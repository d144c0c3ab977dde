//! Errors of the fence: what was attempted, on what, and what the system said.

use std::fmt;

/// An errno value with its text, as DPDK and the kernel report it (always positive here).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Errno(pub i32);

impl Errno {
    /// DPDK functions return negative errno values; some callers see positive ones.
    pub fn from_return(code: i32) -> Self {
        Errno(code.unsigned_abs() as i32)
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The standard library appends " (os error N)" to the text of strerror.
        write!(f, "{}", std::io::Error::from_raw_os_error(self.0))
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Start-up and management errors of the fence. The packet path has none: there, outcomes are values.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A DPDK call failed.
    #[error("{action} failed: {errno}{}", hint(.remedy))]
    Call {
        /// What was attempted and on what: `start port 0 (net_pcap0)`.
        action: String,
        /// What the system said.
        errno: Errno,
        /// What the user can do, if it is known.
        remedy: Option<String>,
    },
    /// The request cannot be met, and no call was made.
    #[error("{what}{}", hint(.remedy))]
    Refused {
        /// What was asked for and why it cannot be.
        what: String,
        /// What the user can do.
        remedy: Option<String>,
    },
}

fn hint(remedy: &Option<String>) -> String {
    remedy.as_ref().map(|r| format!("; {r}")).unwrap_or_default()
}

impl Error {
    /// A failed call without a known remedy.
    pub fn call(action: impl Into<String>, errno: Errno) -> Self {
        Error::Call { action: action.into(), errno, remedy: None }
    }

    /// A refusal with what to do about it.
    pub fn refused(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Error::Refused { what: what.into(), remedy: Some(remedy.into()) }
    }

    /// The same error with a remedy.
    pub fn with_remedy(mut self, text: impl Into<String>) -> Self {
        match &mut self {
            Error::Call { remedy, .. } | Error::Refused { remedy, .. } => *remedy = Some(text.into()),
        }
        self
    }
}
