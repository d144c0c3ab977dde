//! What the recognisers promise for any bytes, as code: property tests and the fuzz target `appid_flows` call it; it panics when a promise is
//! broken. Compiled for tests and fuzzing only.

use super::banners::{Banners, parts};
use super::fit::{Fit, HEAD, Is, Like, No, NotYet};
use super::follow::{Follow, Turn};
use super::recognise::{Answer, Datagrams, Ends, Heads};
use super::table::{DATAGRAMS, MIDDLES, STREAMS};
use crate::packet::App;

/// A byte that chooses how the rest is cut, another for ports and direction; then a client's stream and a server's, or datagrams.
pub fn flows(bytes: &[u8]) {
    let Some((&[cut, way], rest)) = bytes.split_first_chunk::<2>() else { return };
    let (client, server) = rest.split_at(rest.len().min(usize::from(way >> 1)));
    let ends = Ends { ports: [40_000, 25], is_guess: way & 1 == 1 };
    for stream in [client, server] {
        looks(stream);
        assert_eq!(
            one_side(stream, usize::from(cut).max(1), &ends),
            one_side(stream, stream.len().max(1), &ends)
        );
        assert_eq!(one_side(stream, 1, &ends), one_side(stream, stream.len().max(1), &ends));
    }
    let mut heads = Heads::default();
    for (reply, stream) in [(false, client), (true, server)] {
        for part in stream.chunks(usize::from(cut).max(1)) {
            let spoken = heads.take(reply, part);
            assert!(part.ends_with(spoken));
            heads.answer(&ends);
            let (kept, lost) = heads.before(reply, spoken.len());
            assert!(kept.len() + lost as usize + spoken.len() <= stream.len());
        }
        assert!(heads.before(reply, 0).0.len() <= HEAD);
    }
    heads.give_up();
    assert_ne!(heads.answer(&ends), Answer::NotYet);
    let mut seen = Datagrams::default();
    for (n, datagram) in rest.chunks(usize::from(cut).max(8)).enumerate() {
        if seen.take(n % 3 == 1, datagram, [40_000, u16::from(way)], 16) != Answer::NotYet {
            break;
        }
    }
    for app in App::ALL {
        let whole = turn(*app, client, client.len().max(1));
        assert_eq!(turn(*app, client, 1), whole, "{app:?} in single bytes");
        assert_eq!(turn(*app, client, usize::from(cut).max(1)), whole, "{app:?} cut into {cut}");
    }
    let mut banners = Banners::new(1);
    if let Some(ticket) = banners.begin() {
        for part in client.chunks(usize::from(cut).max(1)) {
            banners.take(ticket, false, part);
        }
        banners.take(ticket, true, server);
        for line in banners.finish(ticket).expect("it is there").into_iter().flatten() {
            assert!(line.starts_with(b"SSH-") && line.len() <= 255);
            parts(line);
        }
    }
}

/// With more bytes an answer stays, or says more.
fn looks(stream: &[u8]) {
    let stream = &stream[..stream.len().min(HEAD)];
    let all = STREAMS.iter().flat_map(|shape| [(shape.app, shape.client), (shape.app, shape.server)]);
    for (app, look) in all.chain(MIDDLES.iter().copied()) {
        let mut before = look(&[]);
        assert_eq!(before, NotYet, "{app:?} without a byte");
        for len in 1..=stream.len() {
            let now = look(&stream[..len]);
            let fine: &[Fit] = match before {
                No => &[No],
                NotYet => &[No, NotYet, Like, Is],
                Like => &[Like, Is],
                Is => &[Is],
            };
            assert!(fine.contains(&now), "{app:?}: {before:?} became {now:?} at {len} of {stream:?}");
            before = now;
        }
    }
    for shape in DATAGRAMS {
        assert_ne!((shape.look)(stream), NotYet, "a datagram of {:?} has no more", shape.app);
    }
}

/// The answer as soon as there is one, of a stream alone.
fn one_side(stream: &[u8], cut: usize, ends: &Ends) -> Answer {
    let mut heads = Heads::default();
    for part in stream.chunks(cut) {
        heads.take(false, part);
        match heads.answer(ends) {
            Answer::NotYet => {}
            answer => return answer,
        }
    }
    Answer::NotYet
}

fn turn(app: App, stream: &[u8], cut: usize) -> Option<Turn> {
    let mut follow = Follow::of(app, stream)?;
    let turns = stream.chunks(cut).map(|part| follow.take(part));
    Some(turns.into_iter().find(|turn| *turn != Turn::Open).unwrap_or(Turn::Open))
}
