//! Regular expressions of rules: one automaton for each list of them, made when the plan is made, of bounded size.
//!
//! A dense automaton is walked a table look-up for each byte, whatever the pattern and the bytes; nothing is allocated or compiled on the packet path, and no
//! pattern can be made to backtrack. What would be too large is refused when the file is checked.

use regex_automata::dfa::{Automaton, StartKind, dense};
use regex_automata::util::syntax;
use regex_automata::{Input, MatchKind, nfa::thompson};

/// Bytes of one automaton.
const MOST_BYTES: usize = 1 << 20;
/// And of what it takes to make it.
const MOST_SCRATCH: usize = 8 << 20;

/// Any of a list of patterns. They are of bytes: `\w` is ASCII, `(?i)` folds ASCII.
#[derive(Clone, Debug)]
pub struct Pattern(dense::DFA<Vec<u32>>);

impl Pattern {
    /// Of these; or what is wrong with them, in one line.
    pub fn new(patterns: &[&str]) -> Result<Pattern, String> {
        let config = dense::Config::new()
            .match_kind(MatchKind::All)
            .start_kind(StartKind::Unanchored)
            .dfa_size_limit(Some(MOST_BYTES))
            .determinize_size_limit(Some(MOST_SCRATCH));
        let made = dense::Builder::new()
            .configure(config)
            .syntax(syntax::Config::new().unicode(false).utf8(false))
            .thompson(thompson::Config::new().utf8(false).nfa_size_limit(Some(MOST_BYTES)))
            .build_many(patterns);
        made.map(Pattern).map_err(|error| {
            let mut text = error.to_string();
            let mut source = std::error::Error::source(&error);
            while let Some(error) = source {
                text = error.to_string();
                source = error.source();
            }
            text.split_whitespace().collect::<Vec<_>>().join(" ")
        })
    }

    /// Does one of them match somewhere in the bytes?
    pub fn is_in(&self, bytes: &[u8]) -> bool {
        let input = Input::new(bytes).earliest(true);
        self.0.try_search_fwd(&input).is_ok_and(|found| found.is_some())
    }

    /// Bytes that it takes.
    pub fn memory(&self) -> usize {
        self.0.memory_usage()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_of_a_list_is_enough() {
        let pattern = Pattern::new(&[r"(?i)\.php$", r"^/admin(/|$)", r"\x00"]).unwrap();
        for (bytes, is) in [
            (&b"/a/b.PHP"[..], true),
            (b"/b.php5", false),
            (b"/admin", true),
            (b"/x/admin", false),
            (b"/admin/x", true),
            (b"/administrator", false),
            (b"\xff\x00\xfe", true),
            (b"", false),
        ] {
            assert_eq!(pattern.is_in(bytes), is, "{bytes:?}");
        }
        assert!(pattern.memory() < 100_000, "{}", pattern.memory());
    }

    #[test]
    fn what_is_wrong_or_too_large_is_said() {
        assert!(Pattern::new(&["("]).unwrap_err().contains("unclosed group"));
        assert!(Pattern::new(&["[ab]{0,100}a[ab]{30}c"]).is_err());
    }
}
