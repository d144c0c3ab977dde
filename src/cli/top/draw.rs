//! A picture on so many columns and lines: a pure function. Everything is cut to its place, so that no terminal is too small.

use std::cmp::Ordering;
use std::collections::VecDeque;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Span;

use super::super::show;
use super::picture::{Cell, Picture, Table};
use super::view::{Pane, View};

/// Between two columns.
const GAP: u16 = 2;
/// A first column of words is cut down to this before others are left out.
const LEAST: u16 = 24;
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Draws all of it.
pub(super) fn draw(view: &View, picture: &Picture, buffer: &mut Buffer) {
    let area = buffer.area;
    let colour = |colour: Color| if view.colour { Style::new().fg(colour) } else { Style::new() };
    let health = match (picture.fit, picture.state.as_str()) {
        (true, "ready") => colour(Color::Green),
        (true, _) => colour(Color::Yellow),
        (false, _) => colour(Color::Red),
    };
    let mut pen = Pen { buffer, area, line: 0 };
    head(view, picture, &mut pen, health.add_modifier(Modifier::BOLD));
    tabs(view, &mut pen);
    let foot = u16::from(area.height > pen.line + 1);
    let body = Rect {
        y: area.y + pen.line.min(area.height),
        height: area.height.saturating_sub(pen.line + foot),
        ..area
    };
    match view.pane {
        Pane::All => all(view, picture, body, pen.buffer),
        Pane::Events => told(view, &picture.events, body, pen.buffer),
        Pane::Workers => table(view, &picture.workers, body, pen.buffer),
        Pane::Ports => table(view, &picture.ports, body, pen.buffer),
        Pane::Stages => table(view, &picture.stages, body, pen.buffer),
        Pane::Drops => table(view, &picture.drops, body, pen.buffer),
        Pane::Flows => table(view, &picture.flows, body, pen.buffer),
        Pane::Tenants => table(view, &picture.tenants, body, pen.buffer),
    }
    if foot == 1 {
        pen.line = area.height - 1;
        match (&picture.trouble, view.typing) {
            (Some(trouble), false) => pen.text(trouble, colour(Color::Red).add_modifier(Modifier::REVERSED)),
            (_, true) => {
                pen.text(&format!("rows with: {}_   enter: done  esc: all rows", view.filter), Style::new())
            }
            _ => {
                let filter = if view.filter.is_empty() {
                    String::new()
                } else {
                    format!("   rows with {:?}", view.filter)
                };
                let keys = "q quit  1-8 tab pane  s sort  r reverse  / filter  p pause  up down scroll";
                pen.text(&format!("{keys}{filter}"), Style::new().add_modifier(Modifier::DIM));
            }
        }
    }
}

/// Writes line by line.
struct Pen<'a> {
    buffer: &'a mut Buffer,
    area: Rect,
    line: u16,
}

impl Pen<'_> {
    fn text(&mut self, text: &str, style: Style) {
        if self.line < self.area.height {
            put(self.buffer, self.area.x, self.area.y + self.line, self.area.width, text, style);
        }
        self.line += 1;
    }
}

fn put(buffer: &mut Buffer, x: u16, y: u16, width: u16, text: &str, style: Style) {
    if buffer.area.contains((x, y).into()) {
        let width = width.min(buffer.area.right() - x);
        buffer.set_stringn(x, y, text, width.into(), style);
    }
}

fn head(view: &View, picture: &Picture, pen: &mut Pen<'_>, health: Style) {
    let width = usize::from(pen.area.width);
    if !picture.known {
        return pen.text("sluicegate top: waiting for the first answer", Style::new());
    }
    let paused = if view.paused { "  PAUSED" } else { "" };
    let right = format!("policy {}  up {}{paused}", picture.policy, picture.up);
    let left = format!("{}  {}", picture.state, picture.what);
    let room = width.saturating_sub(right.chars().count() + 2);
    let left: String = left.chars().take(room).collect();
    let state = picture.state.chars().count();
    pen.text(&format!("{left:<room$}  {right}"), Style::new());
    // Over it, in its colour.
    put(
        pen.buffer,
        pen.area.x,
        pen.area.y,
        pen.area.width,
        &left.chars().take(state).collect::<String>(),
        health,
    );
    for (name, (packets, bytes), history) in [
        ("received", picture.rates[0], Some(&picture.history.received)),
        ("sent", picture.rates[1], None),
        ("dropped", picture.rates[2], Some(&picture.history.dropped)),
    ] {
        let bits = bytes.map_or_else(String::new, |bytes| format!("{}bit/s", show::si(bytes * 8.0)));
        let text = format!("{name:<9}{:>7} pkt/s{bits:>14}  ", show::si(packets).trim_end());
        let rest = match history {
            Some(history) => bars(history, width.saturating_sub(text.chars().count())),
            None => fitting(&picture.levels, width.saturating_sub(text.chars().count())),
        };
        pen.text(&format!("{text}{rest}"), Style::new());
    }
    for reason in &picture.reasons {
        pen.text(reason, health);
    }
}

/// The first of them that have room, whole: half a figure is a wrong one.
fn fitting(parts: &[String], room: usize) -> String {
    let mut text = String::new();
    for part in parts {
        let gap = if text.is_empty() { "" } else { "  " };
        if text.chars().count() + gap.len() + part.chars().count() > room {
            break;
        }
        text.push_str(gap);
        text.push_str(part);
    }
    text
}

/// The newest looks at the right, as high as they are of the highest.
fn bars(history: &VecDeque<f64>, width: usize) -> String {
    let shown = history.iter().skip(history.len().saturating_sub(width));
    let most = shown.clone().fold(0.0, |most: f64, value| most.max(*value));
    let bar = |value: &f64| match (*value / most * 8.0).ceil() {
        high if most > 0.0 && high >= 1.0 => BARS.get((high as usize - 1).min(7)).copied().unwrap_or(' '),
        _ => ' ',
    };
    shown.map(bar).collect()
}

fn tabs(view: &View, pen: &mut Pen<'_>) {
    let (mut x, y) = (pen.area.x, pen.area.y + pen.line);
    for (n, pane) in Pane::EACH.into_iter().enumerate() {
        let text = format!(" {} {} ", n + 1, pane.name());
        let style = if pane == view.pane { Modifier::REVERSED } else { Modifier::UNDERLINED };
        put(pen.buffer, x, y, text.len() as u16, &text, Style::new().add_modifier(style));
        x = x.saturating_add(text.len() as u16);
    }
    pen.line += 1;
}

/// The first rows of each table.
fn all(view: &View, picture: &Picture, body: Rect, buffer: &mut Buffer) {
    let tables = [&picture.workers, &picture.ports, &picture.stages, &picture.drops, &picture.flows];
    let wanted = tables.map(|table| table.rows.len().clamp(1, 200) as u16 + 1);
    let mut y = body.y;
    for (table, height) in tables.into_iter().zip(share(body.height, wanted)) {
        let area = Rect { y, height, ..body };
        // Sorted as usual: which column should it be?
        let plain = View { above: 0, sort: None, reversed: false, ..view.clone() };
        self::table(&plain, table, area, buffer);
        y = y.saturating_add(height);
    }
}

/// Lines for each: all get a few, and what is left goes to those who want more, the last ones first.
fn share<const N: usize>(lines: u16, wanted: [u16; N]) -> [u16; N] {
    let mut given = [0; N];
    let mut left = lines;
    for least in [2, 3, 4, 6, 9, 13, 18, 34, u16::MAX] {
        for n in (0..N).rev() {
            let more = wanted[n].min(least).saturating_sub(given[n]).min(left);
            given[n] += more;
            left -= more;
        }
    }
    given
}

/// What was told, the newest at the bottom.
fn told(view: &View, events: &VecDeque<String>, body: Rect, buffer: &mut Buffer) {
    let rows: Vec<&String> = events.iter().filter(|line| line.contains(&view.filter)).collect();
    if rows.is_empty() {
        let note = if events.is_empty() { "nothing has been told yet" } else { "no event has that" };
        return put(buffer, body.x, body.y, body.width, note, Style::new().add_modifier(Modifier::DIM));
    }
    let lines = usize::from(body.height);
    let end = rows.len() - view.above.min(rows.len().saturating_sub(lines));
    for (n, line) in rows[end.saturating_sub(lines)..end].iter().enumerate() {
        put(buffer, body.x, body.y + n as u16, body.width, line, Style::new());
    }
}

fn order(a: &Cell, b: &Cell) -> Ordering {
    match (a.value, b.value) {
        (Some(a), Some(b)) => b.total_cmp(&a),
        _ => a.text.cmp(&b.text),
    }
}

fn table(view: &View, table: &Table, area: Rect, buffer: &mut Buffer) {
    if area.height == 0 || area.width == 0 {
        return;
    }
    let has =
        |row: &&Vec<Cell>| view.filter.is_empty() || row.iter().any(|cell| cell.text.contains(&view.filter));
    let mut rows: Vec<&Vec<Cell>> = table.rows.iter().filter(has).collect();
    let by = view.sort.map(|n| n % table.columns.len().max(1)).or(table.usual);
    if let Some(by) = by {
        rows.sort_by(|a, b| a.get(by).zip(b.get(by)).map_or(Ordering::Equal, |(a, b)| order(a, b)));
    }
    if view.reversed {
        rows.reverse();
    }
    let lines = usize::from(area.height - 1);
    let above = view.above.min(rows.len().saturating_sub(lines));
    let shown = &rows[above..(above + lines).min(rows.len())];
    let widths = widths(table, shown, area.width);
    let line = |y: u16,
                cells: &mut dyn Iterator<Item = (&str, Option<Style>)>,
                style: Style,
                buffer: &mut Buffer| {
        let mut x = area.x;
        for ((text, own), ((_, right), width)) in cells.zip(table.columns.iter().zip(&widths)) {
            let Some(width) = width else { continue };
            let used = (Span::raw(text).width() as u16).min(*width);
            let at = if *right { x + width - used } else { x };
            put(buffer, at, y, *width, text, own.unwrap_or(style));
            x += width + GAP;
        }
    };
    let marked =
        |n: usize| (by == Some(n)).then(|| Style::new().add_modifier(Modifier::BOLD | Modifier::UNDERLINED));
    let mut names = table.columns.iter().enumerate().map(|(n, (name, _))| (*name, marked(n)));
    line(area.y, &mut names, Style::new().add_modifier(Modifier::BOLD), buffer);
    for (n, row) in shown.iter().enumerate() {
        let mut cells = row.iter().map(|cell| (cell.text.as_str(), None));
        line(area.y + 1 + n as u16, &mut cells, Style::new(), buffer);
    }
    if shown.is_empty() && lines > 0 {
        let note = if table.rows.is_empty() { table.note.as_str() } else { "no row has that" };
        put(buffer, area.x, area.y + 1, area.width, note, Style::new().add_modifier(Modifier::DIM));
    }
}

/// How wide each column is; those for which there is no room are left out, from the right, after the first one of words was cut.
fn widths(table: &Table, shown: &[&Vec<Cell>], room: u16) -> Vec<Option<u16>> {
    let mut widths: Vec<Option<u16>> = table
        .columns
        .iter()
        .enumerate()
        .map(|(n, (name, _))| {
            let cells =
                shown.iter().filter_map(|row| row.get(n)).map(|cell| Span::raw(cell.text.as_str()).width());
            Some(cells.chain([name.len()]).max().unwrap_or(0).min(1000) as u16)
        })
        .collect();
    let sum = |widths: &[Option<u16>]| {
        let shown = widths.iter().flatten();
        (shown.clone().map(|width| u32::from(*width)).sum::<u32>()
            + (shown.count() as u32).saturating_sub(1) * u32::from(GAP)) as u16
    };
    let flexible = table.columns.iter().position(|(_, right)| !right);
    while sum(&widths) > room {
        let over = sum(&widths) - room;
        match flexible.and_then(|n| widths.get_mut(n)?.as_mut().filter(|width| **width > LEAST)) {
            Some(width) => *width = width.saturating_sub(over).max(LEAST),
            None => match widths.iter().rposition(Option::is_some) {
                Some(0) | None => break,
                Some(last) => widths[last] = None,
            },
        }
    }
    widths
}

/// What is drawn, as lines without blanks at their ends.
pub(super) fn text(buffer: &Buffer) -> String {
    let area = buffer.area;
    let mut text = String::new();
    for y in area.top()..area.bottom() {
        let line: String = (area.left()..area.right())
            .filter_map(|x| buffer.cell((x, y)))
            .map(|cell| cell.symbol())
            .collect();
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}
