//! A unix stream socket that somebody listens on: connected when there is something to write, and anew after a while when the
//! listener has gone.

use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long to wait before the next try: at first, and at most.
const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(10);
/// A peer that takes nothing for so long has hung.
const PATIENCE: Duration = Duration::from_secs(5);

/// A connection, or the intention to have one.
#[derive(Debug)]
pub(super) struct Socket {
    path: PathBuf,
    stream: Option<UnixStream>,
    wait: Duration,
    next: Option<Instant>,
}

impl Socket {
    /// Not connected yet: who listens may come later.
    pub fn new(path: &Path) -> Self {
        Socket { path: path.to_owned(), stream: None, wait: FIRST, next: None }
    }

    /// Writes whole lines to a connection. If they could not be written whole, the connection is given up: the next one begins with a line.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let stream = self.connected()?;
        if let Err(error) = stream.write_all(bytes) {
            self.stream = None;
            self.next = Some(Instant::now() + self.wait);
            let error = match error.kind() {
                io::ErrorKind::WouldBlock => format!("the peer took nothing for {PATIENCE:?}"),
                _ => error.to_string(),
            };
            return Err(self.named(error));
        }
        Ok(())
    }

    fn connected(&mut self) -> io::Result<&mut UnixStream> {
        if self.stream.is_none() {
            if self.next.is_some_and(|next| Instant::now() < next) {
                return Err(self.named("not connected"));
            }
            let stream = UnixStream::connect(&self.path)
                .and_then(|stream| stream.set_write_timeout(Some(PATIENCE)).map(|()| stream));
            match stream {
                Ok(stream) => (self.stream, self.wait, self.next) = (Some(stream), FIRST, None),
                Err(error) => {
                    self.next = Some(Instant::now() + self.wait);
                    self.wait = (self.wait * 2).min(LONGEST);
                    return Err(self.named(error));
                }
            }
        }
        let none = || io::ErrorKind::NotConnected.into();
        self.stream.as_mut().ok_or_else(none)
    }

    fn named(&self, error: impl std::fmt::Display) -> io::Error {
        io::Error::other(format!("{}: {error}", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::os::unix::net::UnixListener;

    use super::*;

    /// Nobody listens, somebody does, goes away, and comes back.
    #[test]
    fn a_listener_may_come_and_go() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("eve.sock");
        let mut socket = Socket::new(&path);
        let error = socket.write(b"a\n").unwrap_err().to_string();
        assert!(error.contains("eve.sock"), "{error}");
        let soon = socket.write(b"b\n").unwrap_err().to_string();
        assert!(soon.contains("not connected"), "no second try at once: {soon}");
        for round in 0..2 {
            let listener = UnixListener::bind(&path).unwrap();
            let line = format!("line {round}\n");
            let written = (0..200).any(|_| {
                std::thread::sleep(Duration::from_millis(10));
                socket.write(line.as_bytes()).is_ok()
            });
            assert!(written);
            let (stream, _) = listener.accept().unwrap();
            let mut read = String::new();
            BufReader::new(stream).read_line(&mut read).unwrap();
            assert_eq!(read, line);
            drop(listener);
            std::fs::remove_file(&path).unwrap();
            assert!(socket.write(b"nobody\n").is_err());
        }
    }
}
