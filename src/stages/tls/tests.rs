use proptest::prelude::*;
use tls_parser::{TlsExtension, TlsMessage, TlsMessageHandshake, parse_tls_extensions, parse_tls_plaintext};

use super::hello::{ClientHello, ServerHello, words};
use super::*;
use crate::config::parse_stage;

fn problems(text: &str) -> Vec<String> {
    let wrong = parse_stage(&KIND, text, std::path::Path::new("")).expect_err(text);
    wrong.iter().map(ToString::to_string).collect()
}

#[test]
fn mistakes_in_settings_are_named() {
    for (text, wrong) in [
        ("deny_below = \"1.4\"", "\"1.4\" is no version"),
        ("deny_names = [\"a b\"]", "deny_names[0]"),
        ("deny_ja3 = [\"abc\"]", "is not a JA3"),
        ("deny_ja4 = [\"t13d1516h2-8daaf6152771-e5627efa2ab1\"]", "is not a JA4"),
        ("sessions = 0", "0 is not between 1 and 65535"),
        ("memory_kb = 1", "1 is not between 64"),
        ("denybelow = \"1.2\"", "deny_below"),
        ("allow_names_file = \"nowhere.txt\"", "cannot read nowhere.txt"),
        ("unnamed = \"maybe\"", "maybe"),
    ] {
        let found = problems(text);
        assert!(found.iter().any(|line| line.contains(wrong)), "{text}: {found:?}");
    }
}

#[test]
fn the_example_is_the_documents() {
    assert!(parse_stage(&KIND, EXAMPLE_BODY, std::path::Path::new("")).is_ok());
}

const EXAMPLE_BODY: &str = "deny_below = \"1.2\"\ndeny_names = [\".ads.example\", \"tracker.example\"]\n";

/// Names in a file: one a line, with comments.
#[test]
fn names_come_from_files() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("names.txt"), "# ads\n.ads.example\n\n  tracker.example  \n").unwrap();
    let read = |text: &str| parse_stage(&KIND, text, folder.path());
    assert!(read("deny_names_file = \"names.txt\"").is_ok());
    std::fs::write(folder.path().join("names.txt"), "good.example\nbad name\n").unwrap();
    let wrong = read("deny_names_file = \"names.txt\"").expect_err("a bad line");
    assert!(wrong[0].to_string().contains("names.txt:2"), "{wrong:?}");
}

fn list(words: &[u16]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

fn long(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat()
}

fn record(kind: u8, body: &[u8]) -> Vec<u8> {
    let message = [&[kind, 0][..], &long(body)].concat();
    [&[22, 3, 1][..], &long(&message)].concat()
}

/// A handshake of which a part was read while nobody wanted to be told is not told later, rather than without its name.
#[test]
fn what_was_read_for_nobody_is_not_told() {
    let mut body = vec![3, 3];
    body.extend([5; 32]);
    body.extend([0, 0, 2, 0x13, 1, 1, 0]);
    let hello = ClientHello::read(&body, false).expect("a hello");
    for (record, fingerprints) in [(true, true), (true, false), (false, true), (false, false)] {
        let client = Client::of(&hello, Over::Tcp, Wanted { record, fingerprints });
        assert_eq!(client.fingerprints.is_some(), record || fingerprints);
        let facts = Facts { dtls: false, client: Some(&client), server: None, denied: false };
        assert_eq!(facts.are_whole(), record);
    }
}

proptest! {
    /// Another reader sees the same in well-formed hellos.
    #[test]
    fn tls_parser_reads_the_same(
        version in prop_oneof![Just(0x0301u16), Just(0x0303), any::<u16>()],
        session in proptest::collection::vec(any::<u8>(), 0..=32),
        ciphers in proptest::collection::vec(any::<u16>(), 1..40),
        name in "[a-z]{1,20}\\.example",
        alpn in proptest::collection::vec("[a-z0-9/.]{1,8}", 1..4),
        groups in proptest::collection::vec(any::<u16>(), 1..8),
        versions in proptest::collection::vec(any::<u16>(), 1..6),
    ) {
        let protocols: Vec<u8> =
            alpn.iter().flat_map(|name| [&[name.len() as u8][..], name.as_bytes()].concat()).collect();
        let extension = |kind: u16, content: &[u8]| [&kind.to_be_bytes()[..], &long(content)].concat();
        let extensions = [
            extension(0, &long(&[&[0][..], &long(name.as_bytes())].concat())),
            extension(10, &long(&list(&groups))),
            extension(16, &long(&protocols)),
            extension(43, &[&[versions.len() as u8 * 2][..], &list(&versions)].concat()),
        ]
        .concat();
        let mut body = version.to_be_bytes().to_vec();
        body.extend([5; 32]);
        body.push(session.len() as u8);
        body.extend(&session);
        body.extend(long(&list(&ciphers)));
        body.extend([1, 0]);
        body.extend(long(&extensions));

        let stream = record(1, &body);
        let (_, theirs) = parse_tls_plaintext(&stream).expect("a record");
        let TlsMessage::Handshake(TlsMessageHandshake::ClientHello(theirs)) = &theirs.msg[0] else {
            panic!("{theirs:?}")
        };
        let ours = ClientHello::read(&body, false).expect("a hello");
        prop_assert!(!ours.is_malformed);
        prop_assert_eq!(ours.version, theirs.version.0);
        prop_assert!(words(ours.ciphers).eq(theirs.ciphers.iter().map(|cipher| cipher.0)));
        let (_, known) = parse_tls_extensions(theirs.ext.expect("extensions")).expect("extensions");
        for extension in known {
            match extension {
                TlsExtension::SNI(names) => prop_assert_eq!(ours.sni(), Some(names[0].1)),
                TlsExtension::ALPN(names) => prop_assert!(ours.extensions.alpn().eq(names)),
                TlsExtension::EllipticCurves(list) => {
                    prop_assert!(words(ours.extensions.list(10)).eq(list.iter().map(|group| group.0)));
                }
                TlsExtension::SupportedVersions(list) => {
                    let plain = list.iter().map(|v| v.0).filter(|v| !hello::is_grease(*v));
                    prop_assert!(ours.versions().eq(plain));
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn a_server_hello_is_read_the_same(version in Just(0x0303u16), cipher: u16, chosen: u16) {
        let extension = [&[0, 43][..], &long(&chosen.to_be_bytes())].concat();
        let mut body = version.to_be_bytes().to_vec();
        body.extend([6; 32]);
        body.push(0);
        body.extend(cipher.to_be_bytes());
        body.push(0);
        body.extend(long(&extension));
        let stream = record(2, &body);
        let (_, theirs) = parse_tls_plaintext(&stream).expect("a record");
        let TlsMessage::Handshake(TlsMessageHandshake::ServerHello(theirs)) = &theirs.msg[0] else {
            panic!("{theirs:?}")
        };
        let ours = ServerHello::read(&body).expect("a hello");
        prop_assert_eq!((ours.version, ours.cipher), (theirs.version.0, theirs.cipher.0));
        prop_assert_eq!(ours.negotiated(), chosen);
    }

    #[test]
    fn any_bytes_keep_the_promises(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        arbitrary_input::hellos(&bytes);
    }

    /// Hellos with a byte changed here and there, and cut.
    #[test]
    fn damaged_hellos_keep_the_promises(
        cut: u8,
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..4),
        keep in any::<proptest::sample::Index>(),
    ) {
        let extensions = [&[0, 0][..], &long(&long(&[&[0][..], &long(b"a.example")].concat()))].concat();
        let mut body = vec![3, 3];
        body.extend([5; 32]);
        body.extend([0, 0, 4, 0x13, 1, 0xc0, 0x2f, 1, 0]);
        body.extend(long(&extensions));
        let mut stream = [&[cut][..], &record(1, &body), &record(11, &[1; 40]), &record(2, &body)].concat();
        for (at, byte) in changes {
            let at = at.index(stream.len());
            stream[at] = byte;
        }
        stream.truncate(keep.index(stream.len()) + 1);
        arbitrary_input::hellos(&stream);
    }
}
