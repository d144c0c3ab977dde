use std::path::Path;

use domain::base::iana::{Class, Rcode, Rtype};
use domain::base::name::ToLabelIter;
use domain::base::{
    Message as Theirs, MessageBuilder, Name as TheirName, ParsedName, ToName, TreeCompressor, Ttl,
};
use domain::rdata::{A, AllRecordData, Cname, Mx, Soa, Srv, Txt};
use proptest::prelude::*;
use serde_json::json;

use super::message::HEADER;
use super::*;
use crate::config::parse_stage;

fn problems(text: &str) -> Vec<String> {
    let wrong = parse_stage(&KIND, text, Path::new("")).expect_err(text);
    wrong.iter().map(ToString::to_string).collect()
}

#[test]
fn mistakes_in_settings_are_named() {
    for (text, wrong) in [
        ("[[rule]]\nnames = [\"a\"]", "rule[0].action: is missing"),
        ("[[rule]]\naction = \"drop\"", "drop"),
        ("[[rule]]\naction = \"deny\"\nnames = [\"a b\"]", "rule[0].names[0]"),
        ("[[rule]]\naction = \"deny\"\nnames = []", "rule[0].names: names nothing"),
        ("[[rule]]\naction = \"deny\"\ntypes = [\"TXT\", \"QQ\"]", "rule[0].types[1]: \"QQ\" is no type"),
        ("[[rule]]\naction = \"deny\"\ntypes = []", "rule[0].types: names nothing"),
        ("[[rule]]\naction = \"deny\"\nnames_file = \"nowhere.txt\"", "cannot read nowhere.txt"),
        ("[[rule]]\naction = \"log\"\nseverity = 0", "0 is not between 1 and 255"),
        (
            "[[rule]]\naction = \"log\"\nid = 7\n[[rule]]\naction = \"log\"\nid = 7",
            "7 is the id of rule[0] as well",
        ),
        ("default = \"log\"", "\"log\" decides nothing"),
        ("ports = []", "are not 1 to 16 ports"),
        ("ports = [0]", "are not 1 to 16 ports"),
        ("messages = 0", "0 is not between 1 and 65535"),
        ("message_bytes = 100", "100 is not between 512 and 65535"),
        ("malformed = \"maybe\"", "maybe"),
        ("rules = 1", "rules"),
        ("[tunnel]\naction = \"block\"", "block"),
        ("[tunnel]\nentropy = 9.0", "9 is not between 0 and 8"),
        ("[tunnel]\nlabel_bytes = 64", "tunnel.label_bytes: 64 is not between 0 and 63"),
        ("[tunnel]\nnames_per_minute = 501", "tunnel.names_per_minute: 501"),
        ("[tunnel]\nexcept = [\"*\"]", "tunnel.except[0]"),
        ("[tunnel]\nsources = 1", "tunnel.sources: 1 is not between 16"),
    ] {
        let found = problems(text);
        assert!(found.iter().any(|line| line.contains(wrong)), "{text}: {found:?}");
    }
}

#[test]
fn what_can_be_denied_decides_what_waits() {
    let hold = |text: &str| {
        let value = parse_stage(&KIND, text, Path::new("")).unwrap();
        format!("{value:?}").contains("hold: true")
    };
    for (text, holds) in [
        ("", false),
        ("[[rule]]\naction = \"log\"", false),
        ("[[rule]]\naction = \"deny\"\nnames = [\"a.example\"]", true),
        ("hold = false\n[[rule]]\naction = \"deny\"", false),
        ("default = \"reject\"", true),
        ("malformed = \"deny\"", true),
        ("[tunnel]\naction = \"deny\"", true),
    ] {
        assert_eq!(hold(text), holds, "{text}");
    }
}

#[test]
fn rules_that_nobody_reaches_are_warned_of() {
    let of = |text: &str| parse_stage(&KIND, text, Path::new("")).unwrap().warnings();
    let all = "[[rule]]\naction = \"allow\"\n";
    assert_eq!(of(&format!("{all}{all}")), ["rule[0] decides on everything: no rule behind it is asked"]);
    assert_eq!(of(all), Vec::<String>::new());
    assert_eq!(of(&format!("[[rule]]\naction = \"log\"\n{all}")), Vec::<String>::new());
}

type TheirVec = TheirName<Vec<u8>>;

fn named(labels: &[String]) -> TheirVec {
    labels.join(".").parse().unwrap()
}

/// An answer as another library writes it, compressed.
fn answer(id: u16, question: &TheirVec, other: &TheirVec, kind: Rtype, ttl: u32) -> Vec<u8> {
    let mut message = MessageBuilder::from_target(TreeCompressor::new(Vec::new())).unwrap();
    message.header_mut().set_id(id);
    message.header_mut().set_qr(true);
    message.header_mut().set_rd(true);
    message.header_mut().set_rcode(Rcode::NXDOMAIN);
    let mut message = message.question();
    message.push((question, kind)).unwrap();
    let mut message = message.answer();
    message.push((question, ttl, Cname::new(other.clone()))).unwrap();
    message.push((other, ttl, A::from_octets(192, 0, 2, 7))).unwrap();
    message.push((other, ttl, Mx::new(10, question.clone()))).unwrap();
    message.push((other, ttl, Srv::new(1, 2, 443, other.clone()))).unwrap();
    message.push((other, ttl, Txt::<Vec<u8>>::build_from_slice(&[b'x'; 300]).unwrap())).unwrap();
    let mut message = message.authority();
    let ttl = Ttl::from_secs(ttl);
    message
        .push((other, ttl, Soa::new(question.clone(), other.clone(), 7.into(), ttl, ttl, ttl, ttl)))
        .unwrap();
    message.finish().into_target()
}

fn text(name: &Name) -> String {
    String::from_utf8(name.as_bytes().to_vec()).unwrap()
}

proptest! {
    /// What `domain` writes we read, name by name and record by record, and our records say what its own reader says.
    #[test]
    fn domain_reads_the_same(
        id: u16,
        question in proptest::collection::vec("[a-z0-9_-]{1,20}", 1..5),
        other in proptest::collection::vec("[a-zA-Z]{1,20}", 1..5),
        kind: u16,
        ttl in 0u32..0x7fff_ffff,
    ) {
        let (question, other) = (named(&question), named(&other));
        let bytes = answer(id, &question, &other, Rtype::from_int(kind), ttl);
        let ours = Message::read(&bytes).unwrap();
        prop_assert_eq!(ours.state, State::Whole);
        prop_assert_eq!(ours.end, bytes.len());
        prop_assert_eq!((ours.header.id, ours.header.rcode(), ours.header.is_answer()), (id, 3, true));
        prop_assert!(ours.header.wants_recursion() && !ours.header.has_recursion());
        let asked = ours.question.unwrap();
        prop_assert_eq!((text(&asked.name), asked.kind, asked.class), (question.to_string(), kind, Class::IN.to_int()));
        let theirs = Theirs::from_octets(&bytes[..]).unwrap();
        let records = theirs.answer().unwrap().limit_to::<AllRecordData<_, ParsedName<_>>>();
        let mut count = 0;
        for (ours, theirs) in ours.answers().zip(records) {
            let theirs = theirs.unwrap();
            prop_assert_eq!(text(&ours.name()), theirs.owner().to_string());
            prop_assert_eq!((ours.kind, ours.ttl), (theirs.rtype().to_int(), theirs.ttl().as_secs()));
            let in_data = |at| ours.name_in_data(at).map(|(name, _)| text(&name));
            match theirs.data() {
                AllRecordData::Cname(of) => prop_assert_eq!(in_data(0), Some(of.cname().to_string())),
                AllRecordData::Mx(of) => prop_assert_eq!(in_data(2), Some(of.exchange().to_string())),
                AllRecordData::Srv(of) => prop_assert_eq!(in_data(6), Some(of.target().to_string())),
                AllRecordData::A(of) => prop_assert_eq!(ours.data, of.addr().octets()),
                AllRecordData::Txt(of) => prop_assert_eq!(ours.data[1..].len() - 1, of.text::<Vec<u8>>().len()),
                other => panic!("{other:?}"),
            }
            count += 1;
        }
        prop_assert_eq!(count, 5);
        let record = event::answer(&ours);
        let value = serde_json::to_value(&record).unwrap();
        let (name, other) = (question.to_string(), other.to_string());
        prop_assert_eq!(&value["grouped"]["A"], &json!(["192.0.2.7"]));
        prop_assert_eq!(&value["grouped"]["CNAME"], &json!([other]));
        prop_assert_eq!(&value["grouped"]["MX"], &json!([name]));
        prop_assert_eq!(&value["grouped"]["SRV"], &json!([{ "priority": 1, "weight": 2, "port": 443, "name": other }]));
        prop_assert_eq!(value["grouped"]["TXT"].as_array().map(Vec::len), Some(2), "two strings");
        prop_assert_eq!(&value["authorities"][0]["soa"]["mname"], &json!(name));
        prop_assert_eq!(&value["authorities"][0]["soa"]["minimum"], &json!(ttl));
        prop_assert_eq!(&value["rcode"], &json!("NXDOMAIN"));
    }

    /// Bytes changed here and there, and cut: where both readers find a question it is the same, and what `domain` reads to its end so do we.
    #[test]
    fn damaged_messages_are_read_the_same(
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..5),
        keep in any::<proptest::sample::Index>(),
        cut: u8,
    ) {
        let names = [["www", "example", "com"], ["cdn", "Example", "net"]].map(|n| named(&n.map(String::from)));
        let mut bytes = answer(7, &names[0], &names[1], Rtype::A, 60);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.truncate(keep.index(bytes.len()) + 1);
        arbitrary_input::messages(&[&[cut], &bytes[..]].concat());
        let prefixed = [&[cut][..], &(bytes.len() as u16).to_be_bytes(), &bytes, &[0, 3, 1, 2, 3]].concat();
        arbitrary_input::messages(&prefixed);
        let (Some(ours), Ok(theirs)) = (Message::read(&bytes), Theirs::from_octets(&bytes[..])) else {
            prop_assert!(bytes.len() < HEADER);
            return Ok(());
        };
        if let (Some(ours), Some(theirs)) = (ours.question, theirs.first_question()) {
            prop_assert_eq!((ours.kind, ours.class), (theirs.qtype().to_int(), theirs.qclass().to_int()));
            prop_assert!(theirs.qname().iter_labels().map(|l| l.as_slice()).filter(|l| !l.is_empty())
                .eq(ours.name.as_bytes().split(|b| *b == b'.').filter(|l| !l.is_empty())) || !ours.name.is_plain);
        }
        let to_the_end = theirs.iter().all(|record| record.is_ok_and(|(record, _)| record.owner().to_name::<Vec<u8>>().len() > 0));
        let questions: Vec<_> = theirs.question().collect();
        if to_the_end && theirs.header_counts().qdcount() == 1 && questions.iter().all(Result::is_ok) && theirs.sections().is_ok() {
            prop_assert_eq!(ours.state, State::Whole, "{:?}", bytes);
        }
    }

    #[test]
    fn any_bytes_keep_the_promises(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        arbitrary_input::messages(&bytes);
    }
}

fn message(counts: [u16; 4], rest: &[u8]) -> Vec<u8> {
    let head = [7, 0x8180, counts[0], counts[1], counts[2], counts[3]];
    [&head.iter().flat_map(|word: &u16| word.to_be_bytes()).collect::<Vec<u8>>()[..], rest].concat()
}

/// Pointers that loop, point ahead, out of the message, or make a name too long; counts and lengths that lie.
#[test]
fn lies_are_seen_and_what_is_before_them_is_read() {
    let question = b"\x01a\x07example\x00\x00\x01\x00\x01";
    let long = [&[63u8][..], &[b'x'; 63]].concat().repeat(4);
    let with = |rest: &[u8]| message([1, 1, 0, 0], &[&question[..], rest].concat());
    let record = |name: &[u8], len: u16, data: &[u8]| {
        with(&[name, &[0, 1, 0, 1, 0, 0, 0, 9], &len.to_be_bytes(), data].concat())
    };
    let at = (HEADER + question.len()) as u8;
    let chain: Vec<u8> = (0..200u16).flat_map(|n| (0xc000 | (HEADER as u16 + 2 * n)).to_be_bytes()).collect();
    for (what, bytes, state, asked) in [
        ("itself", record(&[0xc0, at], 4, &[1; 4]), State::Broken, true),
        ("ahead", record(&[0xc0, at + 5], 4, &[1; 4]), State::Broken, true),
        ("each other", record(&[1, b'a', 0xc0, at], 4, &[1; 4]), State::Broken, true),
        ("good", record(&[0xc0, 12], 4, &[1; 4]), State::Whole, true),
        ("length", record(&[0xc0, 12], 5, &[1; 4]), State::Cut, true),
        ("long", record(&long, 4, &[1; 4]), State::Broken, true),
        ("kind of label", record(&[0x41, 1], 4, &[1; 4]), State::Broken, true),
        ("count", message([1, 2, 0, 0], question), State::Cut, true),
        ("two questions", message([2, 0, 0, 0], &question.repeat(2)), State::Broken, true),
        ("many questions", message([9, 0, 0, 0], &question.repeat(9)), State::Broken, true),
        ("no question", message([0, 0, 0, 0], &[]), State::Whole, false),
        ("its question loops", message([1, 0, 0, 0], &[0xc0, 12, 0, 1, 0, 1]), State::Broken, false),
        ("its question is cut", message([1, 0, 0, 0], &question[..9]), State::Cut, false),
        (
            "a chain",
            message([1, 1, 0, 0], &[&[0, 0, 1, 0, 1][..], &chain[2..], &[0xc0, 0xff, 0, 1]].concat()),
            State::Broken,
            true,
        ),
    ] {
        let read = Message::read(&bytes).unwrap();
        assert_eq!((read.state, read.question.is_some()), (state, asked), "{what}");
        arbitrary_input::messages(&[&[3], &bytes[..]].concat());
    }
}

/// As long as a name may be, and one byte more.
#[test]
fn names_have_255_bytes_at_most() {
    let labels = |last: usize| {
        let mut wire = [&[63u8][..], &[b'x'; 63]].concat().repeat(3);
        wire.extend([&[last as u8][..], &vec![b'y'; last]].concat());
        wire.push(0);
        wire
    };
    assert_eq!(labels(61).len(), 255);
    assert_eq!(Name::read(&labels(61), 0).unwrap().0.as_bytes().len(), 253);
    assert_eq!(Name::read(&labels(62), 0), Err(State::Broken));
    assert!(TheirVec::from_octets(labels(61)).is_ok() && TheirVec::from_octets(labels(62)).is_err());
}

/// What other protocols send does not look like DNS, and DNS does.
#[test]
fn dns_is_told_by_its_shape() {
    let query = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03www\x07example\x00\x00\x1c\x00\x01";
    let of = |bytes: &[u8]| Message::read(bytes).is_some_and(|message| shape::is_dns(&message, bytes.len()));
    assert!(of(query));
    let changed = |at: usize, to: u8| {
        let mut bytes = query.to_vec();
        bytes[at] = to;
        bytes
    };
    for (what, bytes) in [
        ("operation", changed(2, 0x29)),
        ("outcome of a query", changed(3, 3)),
        ("two questions", changed(5, 2)),
        ("a query with answers", changed(7, 1)),
        ("class", changed(28, 3)),
        ("type", changed(25, 0x7f)),
        ("name", changed(13, 7)),
        ("more behind it", [&query[..], &[0]].concat()),
        ("NTP", vec![0x23; 48]),
        ("STUN", [&[0, 1, 0, 8, 0x21, 0x12, 0xa4, 0x42][..], &[7; 20]].concat()),
        ("QUIC", [&[0xc3, 0, 0, 0, 1, 8][..], &[9; 60]].concat()),
    ] {
        assert!(!of(&bytes), "{what}");
    }
    let stream = [&(query.len() as u16).to_be_bytes()[..], query].concat();
    let begins = |bytes: &[u8], listed| shape::begins(&Step::Part(bytes), listed, 4096);
    assert_eq!(
        (begins(&stream, true), begins(&stream[..13], true), begins(&stream, false)),
        (Some(true), None, None)
    );
    let whole = Step::Whole(query, query.len() as u16);
    assert_eq!(
        (shape::begins(&whole, false, 4096), shape::begins(&whole, true, 4096)),
        (Some(true), Some(true))
    );
    for other in [
        &b"GET / HTTP/1.1\r\n"[..],
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x01\x02\x03",
        b"220 mail.example ESMTP\r\n",
        b"\x13BitTorrent protocol",
    ] {
        assert_eq!((begins(other, true), begins(other, false)), (Some(false), Some(false)), "{other:?}");
    }
}
