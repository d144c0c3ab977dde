//! Asks a running instance over its socket.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::VERSION;

/// For a request to be taken.
const PATIENCE: Duration = Duration::from_secs(3);
/// For an answer to begin: commands that build tens of thousands of rules take a while.
const LONGEST: Duration = Duration::from_secs(125);
/// Bytes in front of a body.
const HEAD: usize = 8192;
/// Bytes of an answer that are read: thousands of mistakes in a rule file, ten thousand flows.
const MOST: u64 = 64 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Nobody is there.
    #[error("{path}: there is no such socket; is the program running, and is that its management.socket?")]
    Absent {
        /// Where it should be.
        path: String,
    },
    /// Somebody was there.
    #[error("{path}: nobody listens; the program that made the socket is gone")]
    Stale {
        /// The socket.
        path: String,
    },
    /// We may not ask.
    #[error(
        "{path}: {what}; ask as root, as the user of the program, or as a member of its management.group"
    )]
    NotAllowed {
        /// The socket.
        path: String,
        /// Who says so.
        what: String,
    },
    /// Something else on the way.
    #[error("{path}: {source}; is the program alive?")]
    Io {
        /// The socket.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// Another program, or another version of this one.
    #[error("{path}: {what}; use the sluicegate that is running there")]
    Foreign {
        /// The socket.
        path: String,
        /// What it said.
        what: String,
    },
    /// It says no.
    #[error("{text}")]
    Refused {
        /// One word for programs.
        error: String,
        /// One sentence.
        text: String,
        /// The answer.
        answer: Value,
    },
}

/// An instance that can be asked.
#[derive(Clone, Debug)]
pub struct Client {
    path: PathBuf,
}

/// A body that goes on.
#[derive(Debug)]
pub struct Stream(BufReader<UnixStream>);

impl Read for Stream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.read(into)
    }
}

impl BufRead for Stream {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.0.fill_buf()
    }

    fn consume(&mut self, n: usize) {
        self.0.consume(n);
    }
}

impl Client {
    /// The instance with this socket.
    pub fn new(path: &Path) -> Self {
        Client { path: path.to_owned() }
    }

    /// The answer to a question: `status`, or `flows` with `filter=...`.
    pub fn get(&self, what: &str, query: &[(&str, &str)]) -> Result<Value, Error> {
        self.whole("GET", &target(what, query), "")
    }

    /// The answer to a request that changes something.
    pub fn post(&self, what: &str, query: &[(&str, &str)], body: &str) -> Result<Value, Error> {
        self.whole("POST", &target(what, query), body)
    }

    /// What goes on and on: there is no end to wait for, so reading has no timeout.
    pub fn stream(&self, what: &str, query: &[(&str, &str)]) -> Result<Stream, Error> {
        let (code, length, mut reader) = self.ask("GET", &target(what, query), "")?;
        if code != 200 {
            return Err(self.refused(&self.value(&mut reader, length)?));
        }
        reader.get_ref().set_read_timeout(None).map_err(|error| self.io(error))?;
        Ok(Stream(reader))
    }

    fn whole(&self, method: &str, target: &str, body: &str) -> Result<Value, Error> {
        let (code, length, mut reader) = self.ask(method, target, body)?;
        let answer = self.value(&mut reader, length)?;
        match answer.get("error") {
            Some(_) if code != 200 => Err(self.refused(&answer)),
            _ => Ok(answer),
        }
    }

    fn ask(
        &self,
        method: &str,
        target: &str,
        body: &str,
    ) -> Result<(u16, Option<u64>, BufReader<UnixStream>), Error> {
        let io = |error| self.io(error);
        let mut stream = UnixStream::connect(&self.path).map_err(io)?;
        stream.set_write_timeout(Some(PATIENCE)).map_err(io)?;
        stream.set_read_timeout(Some(LONGEST)).map_err(io)?;
        let length = body.len();
        let request = format!(
            "{method} {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        );
        // Who is not let in is answered at once, and may be told so before he has asked.
        match stream.write_all(request.as_bytes()) {
            Err(error) if error.kind() != ErrorKind::BrokenPipe => return Err(io(error)),
            _ => {}
        }
        let mut reader = BufReader::new(stream);
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let room = (HEAD - head.len()) as u64;
            let n = (&mut reader).take(room).read_until(b'\n', &mut head).map_err(io)?;
            if n == 0 && room == 0 {
                return Err(self.foreign("that is no answer over HTTP"));
            }
            if n == 0 {
                let why = "the connection ended without an answer";
                return Err(io(io::Error::new(ErrorKind::UnexpectedEof, why)));
            }
        }
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut response = httparse::Response::new(&mut headers);
        let code = match response.parse(&head) {
            Ok(httparse::Status::Complete(_)) => response.code,
            _ => None,
        };
        let Some(code) = code else { return Err(self.foreign("that is no answer over HTTP")) };
        let length =
            response.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
        let length = length.and_then(|header| std::str::from_utf8(header.value).ok()?.parse().ok());
        Ok((code, length, reader))
    }

    fn value(&self, reader: &mut BufReader<UnixStream>, length: Option<u64>) -> Result<Value, Error> {
        let mut body = Vec::new();
        reader
            .take(length.unwrap_or(MOST).min(MOST))
            .read_to_end(&mut body)
            .map_err(|error| self.io(error))?;
        if length.is_some_and(|length| body.len() as u64 != length) {
            return Err(self.foreign("the answer breaks off"));
        }
        let value: Value = match serde_json::from_slice(&body) {
            Ok(value) => value,
            // What the server itself refuses is said in a line of text.
            Err(_) => {
                let text = String::from_utf8_lossy(&body);
                return Err(self.foreign(text.lines().next().unwrap_or("the answer is empty")));
            }
        };
        match value.get("version").and_then(Value::as_u64) {
            Some(version) if version == u64::from(VERSION) => Ok(value),
            Some(other) => Err(self.foreign(&format!("it speaks version {other}, and this is {VERSION}"))),
            None => Err(self.foreign("the answer has another shape")),
        }
    }

    fn refused(&self, answer: &Value) -> Error {
        let said = |key: &str| answer.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (error, text) = (said("error"), said("text"));
        match error.as_str() {
            "not-allowed" => Error::NotAllowed { path: self.shown(), what: text },
            "version" => self.foreign(&text),
            _ => Error::Refused { error, text, answer: answer.clone() },
        }
    }

    fn io(&self, source: io::Error) -> Error {
        let path = self.shown();
        match source.kind() {
            ErrorKind::NotFound => Error::Absent { path },
            ErrorKind::ConnectionRefused => Error::Stale { path },
            ErrorKind::PermissionDenied => Error::NotAllowed { path, what: source.to_string() },
            _ => Error::Io { path, source },
        }
    }

    fn foreign(&self, what: &str) -> Error {
        Error::Foreign { path: self.shown(), what: what.to_owned() }
    }

    fn shown(&self) -> String {
        self.path.display().to_string()
    }
}

/// A path and a query, as they stand in a request.
fn target(what: &str, query: &[(&str, &str)]) -> String {
    if query.is_empty() {
        return format!("/v1/{what}");
    }
    let query: String = form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
    format!("/v1/{what}?{query}")
}
