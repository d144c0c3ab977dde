use proptest::prelude::*;

use super::*;

const GOOD: &str = r#"{"version":1,"command":"reload"}"#;

fn code(line: &str) -> &'static str {
    parse(line.as_bytes()).expect_err("a refusal").error
}

#[test]
fn requests_are_read_and_everything_else_is_refused_with_a_word() {
    assert_eq!(parse(GOOD.as_bytes()), Ok(Command::Reload));
    assert_eq!(request(Command::Reload), format!("{GOOD}\n"));
    assert_eq!(parse(format!(" {GOOD} ").as_bytes()), Ok(Command::Reload));
    let drain = r#"{"version":1,"command":{"drain":{"deadline_ms":60000}}}"#;
    assert_eq!(parse(drain.as_bytes()), Ok(Command::Drain { deadline_ms: Some(60_000) }));
    assert_eq!(request(Command::Drain { deadline_ms: Some(60_000) }), format!("{drain}\n"));
    assert_eq!(code(&drain.replace("60000", "-1")), "bad-request");
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
