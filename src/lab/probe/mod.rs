//! Traffic of a lab: real sockets of the kernel, and figures of what became of it.
//!
//! The server gives bytes over HTTP and echoes what it gets over TCP and UDP. The client keeps TCP connections open and sends numbered messages over
//! them, sends numbered datagrams, and opens new connections; each message belongs to the window in which it was sent. Whoever runs the client
//! begins windows and asks for figures over its standard input, and gets them as JSON, one object a line, on its standard output:
//!
//! ```text
//! mark kill app-1      a new window begins
//! settle               figures of the current window, once everything that was sent in it is answered or given up
//! stop                 the same for all windows, and the end
//! ```
//!
//! The client ends when its standard input does, so it does not outlive who started it.

pub mod figures;
mod sockets;
mod client;
mod server;

pub use client::{Client, Load};
pub use figures::Figures;
pub use server::{Server, bytes_of, sum_of};

/// Where the server listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// HTTP: `/bytes/100M` has so many bytes, always the same; `/sum/100M` their SHA-256.
    pub web: u16,
    /// Echo, over TCP and UDP. Not port 7, which firewalls refuse.
    pub echo: u16,
}

impl Default for Ports {
    fn default() -> Self {
        Ports { web: 80, echo: 853 }
    }
}

/// Bytes of a message: its number, and as many again that are made from it.
pub const MESSAGE: usize = 32;

/// The message of a number. What comes back is compared with it byte for byte.
pub fn message(flow: u32, number: u64) -> [u8; MESSAGE] {
    let mut bytes = [0; MESSAGE];
    let words = [number, u64::from(flow), number.wrapping_mul(0x9e37_79b9_7f4a_7c15), !number];
    for (place, word) in bytes.chunks_exact_mut(8).zip(words) {
        place.copy_from_slice(&word.to_be_bytes());
    }
    bytes
}

/// The number of a message.
pub fn number_of(bytes: &[u8]) -> Option<u64> {
    bytes.first_chunk::<8>().map(|b| u64::from_be_bytes(*b))
}

/// Lets this process have as many sockets as it may.
pub fn raise_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }); // what there is, is enough for few
}
