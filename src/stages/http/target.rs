//! What rules see of a request's target: a path in one form, however it was written, and the query behind it.
//!
//! `%41` is `A`, once; `\` is `/`; `//` and `/./` are `/`, and `/a/../` is gone, as RFC 3986 section 6.2.2 and servers have it. What is written in other
//! ways that some servers understand (`%2541`, `%u0041`, `/..;/`) stays as it is: a regex can name it.

use memchr::{memchr, memchr2};

use super::head::authority;

/// A target in parts. Buffers are the caller's and are as large as the longest head: nothing is allocated.
#[derive(Debug, Default)]
pub struct Target {
    decoded: Vec<u8>,
    path: Vec<u8>,
    query: Vec<u8>,
}

impl Target {
    /// For targets of so many bytes.
    pub fn with_room(most: usize) -> Self {
        // A path gets a slash in front that it may not have had.
        let room = || Vec::with_capacity(most + 1);
        Target { decoded: room(), path: room(), query: room() }
    }

    /// Of a request.
    pub fn read(&mut self, target: &[u8]) {
        let (path, query) = split(target);
        decode(path, &mut self.decoded);
        plain(&self.decoded, &mut self.path);
        decode(query, &mut self.query);
    }

    /// The path in its one form.
    pub fn path(&self) -> &[u8] {
        &self.path
    }

    /// What is behind `?`, decoded.
    pub fn query(&self) -> &[u8] {
        &self.query
    }
}

/// Path and query as they were written.
pub fn split(target: &[u8]) -> (&[u8], &[u8]) {
    let named = authority(target).and_then(|host| {
        let at = memchr(b':', target)? + 3 + host.len();
        target.get(at..)
    });
    let local = named.unwrap_or(target);
    let local = memchr(b'#', local).and_then(|at| local.get(..at)).unwrap_or(local);
    match memchr(b'?', local) {
        Some(at) => (local.get(..at).unwrap_or(local), local.get(at + 1..).unwrap_or(&[])),
        None => (local, &[]),
    }
}

fn push(out: &mut Vec<u8>, byte: u8) {
    if out.len() < out.capacity() {
        out.push(byte);
    }
}

fn decode(from: &[u8], out: &mut Vec<u8>) {
    out.clear();
    let mut rest = from;
    while let Some((&byte, more)) = rest.split_first() {
        let hex = |at: usize| more.get(at).and_then(|b| (*b as char).to_digit(16));
        match (byte, hex(0), hex(1)) {
            (b'%', Some(high), Some(low)) => {
                push(out, (high << 4 | low) as u8);
                rest = more.get(2..).unwrap_or(&[]);
            }
            _ => {
                push(out, byte);
                rest = more;
            }
        }
    }
}

fn plain(from: &[u8], out: &mut Vec<u8>) {
    out.clear();
    if from == b"*" {
        out.extend_from_slice(from);
        return;
    }
    let mut rest = Some(from);
    while let Some(now) = rest {
        let at = memchr2(b'/', b'\\', now);
        let segment = at.and_then(|at| now.get(..at)).unwrap_or(now);
        rest = at.and_then(|at| now.get(at + 1..));
        match segment {
            b"" | b"." => {}
            b".." => out.truncate(out.iter().rposition(|b| *b == b'/').unwrap_or(0)),
            name => {
                push(out, b'/');
                name.iter().for_each(|b| push(out, *b));
            }
        }
        // A folder stays one.
        if rest.is_none() && matches!(segment, b"" | b"." | b"..") {
            push(out, b'/');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_have_one_form() {
        let mut target = Target::with_room(100);
        for (written, path, query) in [
            ("/", "/", ""),
            ("", "/", ""),
            ("*", "*", ""),
            ("/admin", "/admin", ""),
            ("/admin/", "/admin/", ""),
            ("//admin//x", "/admin/x", ""),
            ("/./admin/.", "/admin/", ""),
            ("/x/../admin", "/admin", ""),
            ("/../../admin", "/admin", ""),
            ("/%61dmin%2fx", "/admin/x", ""),
            ("/x%2f..%2fadmin", "/admin", ""),
            ("\\x\\..\\admin", "/admin", ""),
            ("/%zz%4", "/%zz%4", ""),
            ("/%2561", "/%61", ""),
            ("/a?b=%2e#c", "/a", "b=."),
            ("/a#c?d", "/a", ""),
            ("http://h.example:80/a/../b?c", "/b", "c"),
            ("http://h.example", "/", ""),
            ("http://h.example?q", "/", "q"),
            ("/?u=http://x/y", "/", "u=http://x/y"),
            ("/a/..", "/", ""),
        ] {
            target.read(written.as_bytes());
            let found = (String::from_utf8_lossy(target.path()), String::from_utf8_lossy(target.query()));
            assert_eq!(found, (path.into(), query.into()), "{written}");
        }
        target.read(&[b'a'; 1000]);
        assert_eq!((target.path().len(), target.path.capacity()), (101, 101));
    }
}
