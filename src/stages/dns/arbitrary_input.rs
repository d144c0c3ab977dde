//! What the readers promise for any bytes, as code: property tests and the fuzz target `dns_messages` call it; it panics when a promise is
//! broken. Compiled for tests and fuzzing only.

use super::event;
use super::gather::{PREFIX, Side, Step};
use super::message::{HEADER, Message, Name, State};
use super::shape;
use crate::stages::places::Places;

/// A byte that chooses how the rest is cut, then a stream: the same messages, whatever the cuts. The rest is taken as one datagram as well.
pub fn messages(bytes: &[u8]) {
    let Some((&cut, stream)) = bytes.split_first() else { return };
    let mut places = Places::new(2, PREFIX + 512);
    let whole = read(stream, stream.len().max(1), &mut places);
    for cut in [usize::from(cut).max(1), 1] {
        let found = read(stream, cut, &mut places);
        assert_eq!(found.len(), whole.len(), "cut into {cut} bytes");
        for (found, whole) in found.iter().zip(&whole) {
            assert_eq!(found[..], whole[..found.len()], "cut into {cut} bytes");
            assert!(found.len() == whole.len() || found.len() == 512);
        }
        assert_eq!(places.used(), 0);
    }
    whole.iter().for_each(|message| one(message));
    one(stream);
}

fn read(stream: &[u8], cut: usize, places: &mut Places) -> Vec<Vec<u8>> {
    let (mut side, mut all) = (Side::default(), Vec::new());
    for mut part in stream.chunks(cut) {
        loop {
            match side.take(&mut part, places, 0) {
                Step::Over => break,
                Step::Whole(message, len) => {
                    assert!(message.len() <= usize::from(len));
                    all.push(message.to_vec());
                }
                step @ Step::Part(_) => drop(shape::begins(&step, false, 512)),
                Step::Lost => panic!("there is room"),
            }
        }
    }
    side.clear(places);
    all
}

fn one(bytes: &[u8]) {
    let Some(message) = Message::read(bytes) else {
        assert!(bytes.len() < HEADER);
        return;
    };
    assert!(message.end <= bytes.len());
    let asked = message.questions().inspect(|question| name(&question.name)).count();
    assert!(asked <= usize::from(message.header.counts[0]));
    assert_eq!(message.question, message.questions().next());
    let count = |n: usize| usize::from(message.header.counts[n]);
    let (answers, authorities) = (message.answers().count(), message.authorities().count());
    assert!(answers <= count(1) && authorities <= count(2));
    if message.state == State::Whole && !message.header.is_truncated() {
        assert_eq!((asked, answers, authorities), (count(0), count(1), count(2)));
    }
    for record in message.answers().chain(message.authorities()) {
        name(&record.name());
        for at in [0, 2, 6] {
            if let Some((read, end)) = record.name_in_data(at) {
                name(&read);
                assert!(at < end && end <= record.data.len().max(at + 1), "{at} {end}");
            }
        }
    }
    shape::is_dns(&message, bytes.len());
    // What is cut anywhere is read as far as it goes, and never as something else.
    for end in [bytes.len() / 2, bytes.len() - 1] {
        if let Some(part) = Message::read(&bytes[..end])
            && let (Some(part), Some(whole)) = (part.question, message.question)
        {
            assert_eq!(part, whole);
        }
    }
    let records = [event::answer(&message), event::query(&message, message.question.as_ref(), 0)];
    records.iter().for_each(|record| drop(serde_json::to_string(record).unwrap()));
}

fn name(name: &Name) {
    assert!(name.as_bytes().len() <= 253 && name.longest <= 63);
    assert_eq!(name.lower().as_bytes(), name.as_bytes().to_ascii_lowercase());
}
