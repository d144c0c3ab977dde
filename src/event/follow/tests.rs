use super::*;

const DROPS: Types = Types::NONE.with(Type::Drop);
const WAIT: Duration = Duration::from_millis(1);

fn of(kind: Type, stage: &'static str) -> Subject<'static> {
    Subject {
        kind,
        ends: None,
        protocol: None,
        tenant: None,
        endpoint: None,
        stage: Some(stage),
        reason: None,
    }
}

fn all() -> Choice {
    Box::new(|_| true)
}

fn tell(following: &Following, kind: Type, stage: &'static str, line: &str) {
    following.tell(&of(kind, stage), &mut None, || line.as_bytes().to_vec());
}

/// What waits: records that are missing, and lines, in their order.
fn taken(follower: &Follower) -> Vec<(u64, String)> {
    let mut all = Vec::new();
    while let Came::Piece(piece) = follower.wait(WAIT) {
        all.push((piece.missing, String::from_utf8(piece.bytes).unwrap()));
    }
    all
}

/// What is made goes by who is there; sinks have theirs always.
#[test]
fn types_are_wanted_while_somebody_follows() {
    let sinks = Types::NONE.with(Type::Alert);
    let following = Following::new(sinks, DROPS.with(Type::Tls));
    let asked = following.asked();
    assert_eq!(asked.types(), sinks);
    let first = following.follow(DROPS, all()).unwrap();
    // What has no ring cannot be asked for.
    let second = following.follow(Types::ALL, all()).unwrap();
    assert_eq!(asked.types(), sinks.and(DROPS).with(Type::Tls));
    drop(second);
    assert_eq!(asked.types(), sinks.and(DROPS));
    drop(first);
    assert_eq!((asked.types(), following.snapshot().now), (sinks, 0));
}

#[test]
fn each_gets_what_it_chose() {
    let following = Following::new(Types::NONE, Types::ALL);
    let drops = following.follow(DROPS, all()).unwrap();
    let edge = following.follow(Types::ALL, Box::new(|event| event.stage == Some("edge"))).unwrap();
    let made = std::cell::Cell::new(0);
    for (kind, stage, line) in [
        (Type::Drop, "edge", "1\n"),
        (Type::Alert, "edge", "2\n"),
        (Type::Drop, "dns", "3\n"),
        (Type::Tls, "tls", "4\n"),
    ] {
        following.tell(&of(kind, stage), &mut None, || {
            made.set(made.get() + 1);
            line.as_bytes().to_vec()
        });
    }
    following.flush();
    assert_eq!(taken(&drops), [(0, "1\n3\n".to_owned())]);
    assert_eq!(taken(&edge), [(0, "1\n2\n".to_owned())]);
    assert_eq!(made.get(), 3, "a line is made once, and not for nobody");
    let snapshot = following.snapshot();
    assert_eq!((snapshot.given[Type::Drop as usize], snapshot.given[Type::Alert as usize]), (3, 1));
}

/// Who does not read loses what does not fit, is told how much, and holds up nobody else.
#[test]
fn a_slow_follower_is_told_what_it_missed() {
    let following = Following::new(Types::NONE, Types::ALL);
    let slow = following.follow(DROPS, all()).unwrap();
    let quick = following.follow(DROPS, all()).unwrap();
    let long = |n: usize| format!("{n}{}\n", "x".repeat(PIECE));
    let mut read = 0;
    for n in 0..QUEUE + 10 {
        tell(&following, Type::Drop, "edge", &long(n));
        following.flush();
        read += taken(&quick).len();
    }
    assert_eq!(read, QUEUE + 10);
    assert_eq!(following.snapshot().lost[Type::Drop as usize], 10);
    let first = taken(&slow);
    assert_eq!((first.len(), first[0].clone(), first[QUEUE - 1].0), (QUEUE, (0, long(0)), 0));
    // Word of it comes by itself, or with the next line.
    following.flush();
    assert_eq!(taken(&slow), [(10, String::new())]);
    tell(&following, Type::Drop, "edge", "more\n");
    following.flush();
    assert_eq!(taken(&slow), [(0, "more\n".to_owned())]);
}

/// A terminal that is stopped for a while misses nothing of what is said now and then: the writer may look very often meanwhile.
#[test]
fn many_small_looks_are_not_lost() {
    let following = Following::new(Types::NONE, Types::ALL);
    let slow = following.follow(DROPS, all()).unwrap();
    let mut said = String::new();
    for n in 0..QUEUE * 20 {
        let line = format!("{n}\n");
        said.push_str(&line);
        tell(&following, Type::Drop, "edge", &line);
        following.flush();
    }
    let mut came = taken(&slow);
    following.flush();
    came.extend(taken(&slow));
    assert_eq!(came.iter().map(|(_, text)| text.as_str()).collect::<String>(), said);
    assert!(came.iter().all(|(missing, _)| *missing == 0));
    assert_eq!(following.snapshot().lost[Type::Drop as usize], 0);
}

/// What had no room when the program ends is counted, as at any other time.
#[test]
fn what_the_end_cuts_is_counted() {
    let following = Following::new(Types::NONE, Types::ALL);
    let slow = following.follow(DROPS, all()).unwrap();
    for _ in 0..QUEUE + 3 {
        tell(&following, Type::Drop, "edge", "a line\n");
        following.flush();
    }
    assert_eq!(following.snapshot().lost[Type::Drop as usize], 0);
    following.close();
    assert_eq!(following.snapshot().lost[Type::Drop as usize], 3);
    assert_eq!(taken(&slow).len(), QUEUE);
}

/// What waits has a bound in bytes as well: a look with very many records is given in pieces.
#[test]
fn pieces_are_bounded() {
    let following = Following::new(Types::NONE, Types::ALL);
    let follower = following.follow(DROPS, all()).unwrap();
    let line = format!("{}\n", "x".repeat(999));
    for _ in 0..10_000 {
        tell(&following, Type::Drop, "edge", &line);
    }
    following.flush();
    let mut pieces = taken(&follower);
    assert_eq!(pieces.len(), QUEUE);
    // And the one that was not whole yet.
    following.flush();
    pieces.extend(taken(&follower));
    assert!(pieces.iter().all(|(_, text)| text.len() < PIECE + line.len()));
    let came: usize = pieces.iter().map(|(_, text)| text.len() / line.len()).sum();
    assert_eq!(following.snapshot().lost[Type::Drop as usize] as usize, 10_000 - came);
}

#[test]
fn there_are_only_so_many() {
    let following = Following::new(Types::NONE, Types::ALL);
    let mut there: Vec<Follower> = (0..MOST).map(|_| following.follow(DROPS, all()).unwrap()).collect();
    assert_eq!(following.follow(DROPS, all()).unwrap_err(), Full::Many);
    there.pop();
    there.push(following.follow(DROPS, all()).unwrap());
    tell(&following, Type::Drop, "edge", "last\n");
    following.flush();
    following.close();
    assert_eq!(following.follow(DROPS, all()).unwrap_err(), Full::Over);
    assert!(following.asked().types().is_empty());
    // What waits is there still, and then it is over.
    let Came::Piece(piece) = there[0].wait(WAIT) else { panic!("a piece") };
    assert_eq!(piece.records(), 1);
    assert!(matches!(there[0].wait(WAIT), Came::Over));
}
