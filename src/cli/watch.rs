//! What is shown again and again: in place on a terminal, one after the other elsewhere.

use std::io::IsTerminal;

use super::{Failure, show};

/// Clears the screen, and goes to its first place (ECMA-48: ED, CUP).
const CLEAR: &str = "\x1b[2J\x1b[H";

/// Where it is shown.
#[derive(Debug)]
pub struct Screen {
    in_place: bool,
}

impl Screen {
    /// `again`: what is shown will be shown again.
    pub fn new(again: bool) -> Self {
        Screen { in_place: again && std::io::stdout().is_terminal() }
    }

    /// Shows this.
    pub fn show(&mut self, text: String) -> Result<(), Failure> {
        let clear = if self.in_place { CLEAR } else { "" };
        show::print(format_args!("{clear}{text}"))
    }
}
