//! How somebody looks at it: which pane, in which order, which rows.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

/// What is shown below the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
#[repr(usize)]
pub(super) enum Pane {
    /// The first few of everything
    All,
    Workers,
    Ports,
    Stages,
    Drops,
    Flows,
    Tenants,
    Events,
}

impl Pane {
    pub const EACH: [Pane; 8] = [
        Pane::All,
        Pane::Workers,
        Pane::Ports,
        Pane::Stages,
        Pane::Drops,
        Pane::Flows,
        Pane::Tenants,
        Pane::Events,
    ];

    pub fn at(place: usize) -> Pane {
        Pane::EACH.get(place).copied().unwrap_or(Pane::All)
    }

    pub fn name(self) -> &'static str {
        match self {
            Pane::All => "all",
            Pane::Workers => "workers",
            Pane::Ports => "ports",
            Pane::Stages => "stages",
            Pane::Drops => "drops",
            Pane::Flows => "flows",
            Pane::Tenants => "tenants",
            Pane::Events => "events",
        }
    }
}

/// What somebody has typed so far.
#[derive(Clone, Debug)]
pub(super) struct View {
    pub pane: Pane,
    /// Column by which rows are sorted; the pane's usual one if there is none.
    pub sort: Option<usize>,
    pub reversed: bool,
    /// Rows that contain this.
    pub filter: String,
    /// The filter is being typed.
    pub typing: bool,
    pub paused: bool,
    /// Rows that are above the first one shown.
    pub above: usize,
    /// Without colours, where the environment says NO_COLOR.
    pub colour: bool,
}

/// Characters of a filter.
const LONGEST: usize = 60;

impl View {
    pub fn of(pane: Pane) -> Self {
        let colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        View {
            pane,
            sort: None,
            reversed: false,
            filter: String::new(),
            typing: false,
            paused: false,
            above: 0,
            colour,
        }
    }

    fn turn(&mut self, pane: Pane) {
        if pane != self.pane {
            *self = View { pane, sort: None, reversed: false, above: 0, ..self.clone() };
        }
    }

    /// Takes a key; true if this is the end.
    pub fn key(&mut self, key: KeyEvent) -> bool {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return matches!(key.code, KeyCode::Char('c' | 'd'));
        }
        if self.typing {
            match key.code {
                KeyCode::Enter => self.typing = false,
                KeyCode::Esc => (self.typing, self.filter) = (false, String::new()),
                KeyCode::Backspace => drop(self.filter.pop()),
                KeyCode::Char(c) if self.filter.chars().count() < LONGEST => self.filter.push(c),
                _ => {}
            }
            self.above = 0;
            return false;
        }
        let place = self.pane as usize;
        match key.code {
            KeyCode::Char('q') => return true,
            KeyCode::Char(c @ '1'..='8') => self.turn(Pane::at(c as usize - '1' as usize)),
            KeyCode::Tab | KeyCode::Right => self.turn(Pane::at((place + 1) % Pane::EACH.len())),
            KeyCode::BackTab | KeyCode::Left => {
                self.turn(Pane::at((place + Pane::EACH.len() - 1) % Pane::EACH.len()));
            }
            KeyCode::Char('s') => (self.sort, self.above) = (Some(self.sort.map_or(0, |n| n + 1)), 0),
            KeyCode::Char('r') => self.reversed = !self.reversed,
            KeyCode::Char('/') => self.typing = true,
            KeyCode::Char('p' | ' ') => self.paused = !self.paused,
            KeyCode::Esc => self.filter.clear(),
            KeyCode::Down | KeyCode::Char('j') => self.above = self.above.saturating_add(1),
            KeyCode::Up | KeyCode::Char('k') => self.above = self.above.saturating_sub(1),
            KeyCode::PageDown => self.above = self.above.saturating_add(10),
            KeyCode::PageUp => self.above = self.above.saturating_sub(10),
            KeyCode::Home => self.above = 0,
            _ => {}
        }
        false
    }
}
