use std::time::Instant;

use proptest::prelude::*;

use super::*;
use crate::path::Differences;

const GOOD: &str = r#"{"version":1,"command":"reload"}"#;

fn code(line: &str) -> &'static str {
    parse(line.as_bytes()).expect_err("a refusal").error
}

#[test]
fn requests_are_read_and_everything_else_is_refused_with_a_word() {
    assert_eq!(parse(GOOD.as_bytes()), Ok(Command::Reload));
    assert_eq!(request(Command::Reload), format!("{GOOD}\n"));
    assert_eq!(parse(format!(" {GOOD} ").as_bytes()), Ok(Command::Reload));
    for line in
        ["", "reload", "[]", "1", "{}", "null", r#"{"version":1}"#, r#"{"version":1,"command":"stop"}"#]
    {
        assert_eq!(code(line), "bad-request", "{line}");
    }
    assert_eq!(code(r#"{"version":1,"command":"reload","more":1}"#), "bad-request");
    assert_eq!(code(r#"{"version":"1","command":"reload"}"#), "bad-request");
    assert_eq!(code(r#"{"version":2,"whatever":[]}"#), "version");
    assert_eq!(code(&format!("{GOOD}{}", " ".repeat(LONGEST))), "too-long");
    assert_eq!(code(&"[".repeat(LONGEST)), "bad-request", "deep is not too deep for the stack");
    assert_eq!(parse(format!("{GOOD}{}", " ".repeat(LONGEST - GOOD.len())).as_bytes()), Ok(Command::Reload));
}

proptest! {
    #[test]
    fn anything_is_a_command_or_a_refusal(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        arbitrary_input(&bytes);
    }

    #[test]
    fn so_is_a_damaged_request(at in 0..GOOD.len(), byte in any::<u8>()) {
        let mut bytes = GOOD.as_bytes().to_vec();
        bytes[at] = byte;
        arbitrary_input(&bytes);
    }
}

fn open(folder: &Path) -> Control {
    let plan = ControlSocket::At(folder.join("control.sock"));
    Control::open(&plan, &[]).expect("a socket").expect("asked for")
}

fn done() -> Reloaded {
    Reloaded::Done {
        stages: Differences { kept: 2, ..Differences::default() },
        changed: Vec::new(),
        warnings: Vec::new(),
        took_ms: 7,
        behind: Vec::new(),
    }
}

/// What a client hears while `control` is served by hand.
fn served(control: &Control, bytes: &[u8], outcome: Result<Reloaded, Refusal>) -> Value {
    let mut stream = UnixStream::connect(control.path()).unwrap();
    let _ = stream.write_all(bytes); // it may be refused before it is through
    let _ = stream.shutdown(std::net::Shutdown::Write);
    stream.set_nonblocking(true).unwrap();
    let (begun, mut heard) = (Instant::now(), Vec::new());
    while !heard.ends_with(b"\n") {
        assert!(begun.elapsed() < Duration::from_secs(20));
        if let Some(asked) = control.asked() {
            assert_eq!(asked.command, Command::Reload);
            asked.answer(outcome.clone());
        }
        let mut part = [0; 4096];
        match stream.read(&mut part) {
            Ok(0) => break,
            Ok(n) => heard.extend_from_slice(&part[..n]),
            Err(_) => thread::sleep(Duration::from_millis(1)),
        }
    }
    serde_json::from_slice(&heard).unwrap_or(Value::Null)
}

#[test]
fn one_line_is_asked_and_one_answered() {
    let folder = tempfile::tempdir().unwrap();
    let control = open(folder.path());
    let mode = fs::metadata(control.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let line = request(Command::Reload);
    let answer = served(&control, line.as_bytes(), Ok(done()));
    assert_eq!(
        (&answer["version"], &answer["ok"], &answer["outcome"]),
        (&json!(1), &json!(true), &json!("done"))
    );
    assert_eq!(answer["lines"], json!(["reload: done in 7 ms; 2 stages as they were"]));
    let refused = Reloaded::Refused { problems: vec!["no".into()], restart: Vec::new() };
    let answer = served(&control, line.as_bytes(), Ok(refused));
    assert_eq!((&answer["ok"], &answer["problems"]), (&json!(false), &json!(["no"])));
    let answer = served(&control, line.as_bytes(), Err(Refusal::new("busy", "wait")));
    assert_eq!((&answer["error"], &answer["text"]), (&json!("busy"), &json!("wait")));
    for (bytes, error) in [
        (&b"nonsense\n"[..], "bad-request"),
        (b"", "bad-request"),
        (&[b'x'; 3 * LONGEST], "too-long"),
        (b"{\"version\":9}\n", "version"),
    ] {
        assert_eq!(served(&control, bytes, Ok(done()))["error"], json!(error));
    }
    let path = control.path().to_owned();
    drop(control);
    assert!(!path.exists());
}

#[test]
fn slow_and_many_clients_hold_up_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let control = open(folder.path());
    let mut slow: Vec<UnixStream> =
        (0..CONNECTIONS).map(|_| UnixStream::connect(control.path()).unwrap()).collect();
    slow.iter_mut().for_each(|stream| stream.write_all(b"{").unwrap());
    thread::sleep(Duration::from_millis(300)); // so that they are the first
    let line = request(Command::Reload);
    assert_eq!(served(&control, line.as_bytes(), Ok(done()))["error"], json!("busy"));
    // They are cut, and there is room again.
    let begun = Instant::now();
    for stream in &mut slow {
        let mut said = String::new();
        let _ = stream.read_to_string(&mut said);
        assert!(said.contains("bad-request"), "{said}");
    }
    assert!(begun.elapsed() < 2 * PATIENCE);
    assert_eq!(served(&control, line.as_bytes(), Ok(done()))["ok"], json!(true));
}

#[test]
fn only_what_is_left_over_is_taken_away() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("control.sock");
    fs::write(&path, "a file").unwrap();
    let plan = ControlSocket::At(path.clone());
    assert!(Control::open(&plan, &[]).unwrap_err().unwrap().to_string().contains("a file of that name"));
    fs::remove_file(&path).unwrap();
    drop(UnixListener::bind(&path).unwrap()); // nobody listens any more
    let first = Control::open(&plan, &[]).unwrap();
    assert!(Control::open(&plan, &[]).unwrap_err().unwrap().to_string().contains("another instance"));
    let note = Control::open(&ControlSocket::Usual(path.clone()), &[]).unwrap_err().unwrap_err();
    assert!(note.contains("another instance"), "{note}");
    drop(first);
    assert!(Control::open(&ControlSocket::Off, &[]).unwrap().is_none());
}
