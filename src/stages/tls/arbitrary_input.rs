//! What the readers promise for any bytes, as code: property tests and the fuzz target `tls_hellos` call it; it panics when a promise is
//! broken. Compiled for tests and fuzzing only.

use super::datagram::Gathering;
use super::facts::{Client, Server, Wanted, version_name};
use super::fingerprint::Over;
use super::hello::{CLIENT_HELLO, ClientHello, ServerHello};
use super::record::{LONGEST, Seek, Side, Sought};

/// A byte that chooses how the rest is cut, then a stream: the same hellos, whatever the cuts. The rest is taken as one hello and as datagrams
/// as well.
pub fn hellos(bytes: &[u8]) {
    let Some((&cut, stream)) = bytes.split_first() else { return };
    let whole = read(stream, stream.len().max(1));
    assert_eq!(read(stream, usize::from(cut).max(1)), whole, "cut into {cut} bytes");
    assert_eq!(read(stream, 1), whole, "in single bytes");
    whole.iter().for_each(|(kind, body)| one(*kind, body));
    for kind in [1, 2] {
        one(kind, stream);
    }
    let mut gathering = Gathering::default();
    for datagram in stream.chunks(usize::from(cut).max(14)) {
        gathering.take(datagram, 1 << 20, &mut |(kind, body)| {
            one(kind, body);
            false
        });
        assert!(gathering.allocated() <= 4 * LONGEST);
    }
}

fn read(stream: &[u8], cut: usize) -> Vec<(u8, Vec<u8>)> {
    let (mut seek, mut side, mut all) = (Seek::default(), None::<Side>, Vec::new());
    for part in stream.chunks(cut) {
        let mut found = |(kind, body): (u8, &[u8])| {
            all.push((kind, body.to_vec()));
            false
        };
        match &mut side {
            Some(side) => drop(side.take(part, 1 << 20, &mut found)),
            None => {
                if let Sought::Found(head, at) = seek.take(part) {
                    let side = side.insert(Side::default());
                    side.take(&head, 1 << 20, &mut found);
                    side.take(&part[at..], 1 << 20, &mut found);
                    assert!(side.allocated() <= 2 * LONGEST + 64);
                }
            }
        }
    }
    all
}

fn one(kind: u8, body: &[u8]) {
    let all = Wanted { record: true, fingerprints: true };
    let none = Wanted { record: false, fingerprints: false };
    if kind == CLIENT_HELLO {
        for (dtls, over) in [(false, Over::Tcp), (true, Over::Datagrams)] {
            let Ok(hello) = ClientHello::read(body, dtls) else { continue };
            let client = Client::of(&hello, over, all);
            let less = Client::of(&hello, over, none);
            assert!(less.fingerprints.is_none() && less.sni.is_none());
            assert_eq!((less.highest, less.malformed), (client.highest, client.malformed));
            assert!(client.sni.as_ref().is_none_or(|name| name.len() <= body.len()));
            assert_eq!(client.malformed, client.fingerprints.is_none());
            if let Some(ja4) = client.ja4() {
                assert!(ja4.is_ascii() && ja4.len() == 36, "{ja4}");
            }
            assert!(!version_name(client.highest).is_empty());
        }
    } else if let Ok(hello) = ServerHello::read(body) {
        let server = Server::of(&hello, all);
        assert!(server.ja3s.unwrap().text.starts_with(&format!("{},{},", hello.version, hello.cipher)));
    }
}
