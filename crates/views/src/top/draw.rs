// SPDX-License-Identifier: MIT OR Apache-2.0
//! Draws the screen.

use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::Line;
use ratatui::text::Span;
use unicode_width::UnicodeWidthChar as _;

use super::Top;
use super::head;
use super::notes::Notes;
use super::notes::notes;
use super::opened::Depth;
use super::opened::Opened;
use super::paint;
use super::paint::Canvas;
use super::table::Cell;
use super::table::Row;
use super::table::Selection;
use super::table::Table;
use super::views;
use crate::cell;
use crate::look::Look;

/// The cells of a bar in a table.
const BAR: usize = 10;

/// Which of the first lines there are, by the height of the screen, which is this at least.
const RATES_FROM: u16 = 6;
const SHARES_FROM: u16 = 9;
const APART_FROM: u16 = 11;
const BLANK_FROM: u16 = 14;

/// From which height on the last line has the keys, and the table a heading.
const KEYS_FROM: u16 = 4;
const HEADING_FROM: u16 = 3;

/// From how many lines on a waterfall has all of its facts above its bars, and the help has blank lines.
const FACTS_FROM: usize = 12;

/// The least lines of notes, with the blank one above them.
const NOTES_MIN: usize = 3;

/// The keys that the help has, but those of the views.
const HELP: [(&str, &str); 11] = [
    (
        "Up Down j k",
        "select a row; PageUp, PageDown, Home, End as well",
    ),
    ("Enter", "open: its requests, one waterfall, its JSON"),
    ("Backspace Esc", "back"),
    ("q Ctrl-C", "leave"),
    ("1 to 9", "sort by a column; again: reversed"),
    ("s", "sort by the next column"),
    ("/", "only rows that contain a text"),
    ("p", "freeze; records are counted all the same"),
    (
        "i",
        "the requests in flight; again: read anew (while tracing)",
    ),
    ("Tab", "the next view"),
    ("Ctrl-Z Ctrl-L", "suspend; draw anew"),
];

impl Top {
    /// Draws the screen on all of a frame, whatever its size.
    pub fn draw(&self, frame: &mut Frame<'_>) {
        let area = frame.area();
        self.paint(area, frame.buffer_mut());
    }

    /// Draws the screen on a part of a buffer.
    fn paint(&self, area: Rect, buffer: &mut Buffer) {
        let has_keys = area.height >= KEYS_FROM;
        let body = Rect {
            height: area.height - u16::from(has_keys),
            ..area
        };
        let mut canvas = Canvas::new(buffer, body, self.settings.look);
        let title = head::title(self, canvas.width());
        canvas.line(&Line::styled(title, paint::strong()));
        match (&self.hanging, &self.opened) {
            _ if self.is_help => self.paint_help(&mut canvas),
            (Some(hanging), _) => hanging.paint(&mut canvas),
            (None, Some(opened)) => self.paint_opened(&mut canvas, opened),
            (None, None) => self.paint_view(&mut canvas, area.height),
        }
        if has_keys {
            let last = Rect {
                y: area.y + body.height,
                height: 1,
                ..area
            };
            let mut canvas = Canvas::new(buffer, last, self.settings.look);
            canvas.text(&head::keys(self, last.width.into()));
        }
    }

    /// Draws a view.
    fn paint_view(&self, canvas: &mut Canvas<'_>, height: u16) {
        let totals = self.shown().totals();
        let (look, width) = (canvas.look(), canvas.width());
        if height >= RATES_FROM {
            canvas.text(&paint::fitting(&head::rates(self, &totals), width, look));
        }
        if height >= APART_FROM {
            canvas.text(&paint::fitting(
                &head::apart(self, &totals, width),
                width,
                look,
            ));
        }
        if height >= SHARES_FROM {
            canvas.line(&head::shares(&totals, width, look));
        }
        if height >= BLANK_FROM {
            canvas.text("");
        }
        let table = self.table();
        let shown = table.shown(&self.filter);
        if height >= HEADING_FROM {
            paint_heading(canvas, &table, &self.heading());
        }
        let below = canvas.left().saturating_sub(shown.len());
        let notes = (below >= NOTES_MIN).then(|| {
            let place = self.selection.place(&shown);
            notes(self, &totals, shown.get(place).map(|(row, _)| *row))
        });
        paint_rows(canvas, &table, &shown, Some(&self.selection));
        match notes {
            Some(Notes::Slowest(slowest)) if !slowest.rows.is_empty() => {
                canvas.text("");
                canvas.line(&Line::styled(" slowest in the window", paint::strong()));
                paint_rows(canvas, &slowest, &slowest.shown(""), None);
            }
            Some(Notes::Services(services)) => {
                canvas.text("");
                paint_heading(canvas, &services, "SERVICE OF THE POD");
                paint_rows(canvas, &services, &services.shown(""), None);
            }
            Some(Notes::Lines(lines)) => {
                canvas.text("");
                let lines = lines.iter();
                let lines = lines.flat_map(|line| wrapped(line, width.saturating_sub(1), look));
                lines.for_each(|line| canvas.text(&format!(" {line}")));
            }
            _ => {}
        }
    }

    /// Draws a row that was opened.
    fn paint_opened(&self, canvas: &mut Canvas<'_>, opened: &Opened) {
        if opened.depth == Depth::Requests {
            let table = opened.table();
            let shown = table.shown("");
            let name = format!(
                "{}: {} requests that were kept, the latest and the slowest",
                opened.name,
                shown.len()
            );
            canvas.text(&name);
            paint_heading(canvas, &table, "");
            paint_rows(canvas, &table, &shown, Some(&opened.selection));
            return;
        }
        let (look, width) = (canvas.look(), canvas.width());
        let text = opened.text(self.settings.waterfall, Look { width, ..look });
        /* On a low screen its first line is followed by its bars: the facts between them are in its JSON. */
        let is_low = opened.depth == Depth::Waterfall && canvas.left() < FACTS_FROM;
        let blank = text.lines().position(str::is_empty).filter(|_| is_low);
        let lines: Vec<String> = text
            .lines()
            .enumerate()
            .filter(|(n, _)| *n == 0 || blank.is_none_or(|blank| *n > blank))
            .flat_map(|(_, line)| wrapped(line, width, look))
            .collect();
        let first = opened.scroll.min(lines.len().saturating_sub(canvas.left()));
        for line in lines.iter().skip(first) {
            canvas.line(&paint::glyphs(line, look));
        }
    }

    /// Draws the help.
    fn paint_help(&self, canvas: &mut Canvas<'_>) {
        let look = canvas.look();
        let views = views::all(self.shown().keys());
        let views = views.iter().map(|(key, name, _)| format!("{key} {name}"));
        let views: Vec<String> = views.collect();
        let has_blanks = canvas.left() >= FACTS_FROM;
        let blank = |canvas: &mut Canvas<'_>| {
            if has_blanks {
                canvas.text("");
            }
        };
        blank(canvas);
        let views = cell::list(
            " ",
            &views,
            Look {
                width: canvas.width(),
                ..look
            },
        );
        views.lines().for_each(|line| canvas.text(line));
        blank(canvas);
        for (key, what) in HELP {
            canvas.text(&format!(" {} {what}", cell::left(key, 14, look)));
        }
        blank(canvas);
        canvas.text(" Times are from the first byte of a request to its end. Requests are counted");
        canvas.text(" when they end, tunnels (101) apart. lost: since the beginning.");
    }
}

/// Draws the heading of a table, with this name for a column without one.
fn paint_heading(canvas: &mut Canvas<'_>, table: &Table, name: &str) {
    let look = canvas.look();
    let mark = match (table.order.is_descending, look.ascii) {
        (true, false) => '▾',
        (false, false) => '▴',
        (true, true) => 'v',
        (false, true) => '^',
    };
    let mut text = String::new();
    for (n, width) in table.fitting(canvas.width()) {
        let column = &table.columns[n];
        let name = if column.name.is_empty() {
            name
        } else {
            column.name
        };
        let heading = match (n == table.order.column, column.is_left) {
            (false, _) => name.to_owned(),
            (true, false) => format!("{mark}{name}"),
            (true, true) => format!("{name}{mark}"),
        };
        text += &in_column(&heading, width, column.is_left, look);
    }
    canvas.line(&Line::styled(text, paint::strong()));
}

/// Returns a text of a column, after a space.
fn in_column(text: &str, width: usize, is_left: bool, look: Look) -> String {
    let Some(inner) = width.checked_sub(1) else {
        return String::new();
    };
    let cell = if is_left { cell::left } else { cell::right };
    format!(" {}", cell(text, inner, look))
}

/// Draws rows: those that have room, with the selected one among them.
fn paint_rows(
    canvas: &mut Canvas<'_>,
    table: &Table,
    shown: &[(&Row, bool)],
    selection: Option<&Selection>,
) {
    let columns = table.fitting(canvas.width());
    let selected = selection.map(|selection| selection.place(shown));
    let room = canvas.left();
    let first = (selected.unwrap_or_default() + 1).saturating_sub(room);
    for (n, (row, is_child)) in shown.iter().enumerate().skip(first).take(room) {
        let mut line = Line::default();
        let mark = if selected == Some(n) { ">" } else { " " };
        for (place, (column, width)) in columns.iter().enumerate() {
            let is_left = table.columns[*column].is_left;
            let cell = row.cells.get(*column).unwrap_or(&Cell::Absent);
            let mut spans = spans(
                cell,
                *width,
                is_left,
                *is_child && place == 0,
                canvas.look(),
            );
            if place == 0 && !spans.is_empty() {
                let rest = spans[0].content.get(1..).unwrap_or_default();
                spans[0].content = format!("{mark}{rest}").into();
            }
            /* A bar in reverse would say the opposite. */
            let is_reversed = selected == Some(n) && !matches!(cell, Cell::Bar(_));
            for span in spans {
                let style = if is_reversed {
                    paint::selected()
                } else {
                    span.style
                };
                line.push_span(span.style(style));
            }
        }
        canvas.line(&line);
    }
}

/// Returns a cell of a row.
fn spans(
    cell: &Cell,
    width: usize,
    is_left: bool,
    is_child: bool,
    look: Look,
) -> Vec<Span<'static>> {
    let text = |text: &str| vec![Span::raw(in_column(text, width, is_left, look))];
    match cell {
        Cell::Text(name) if is_child => text(&format!(" {name}")),
        Cell::Text(name) => text(name),
        Cell::Number(number, _) => text(number),
        Cell::Absent => text("-"),
        Cell::Bar(_) if width <= BAR => text(""),
        Cell::Bar(shares) => {
            let mut spans = vec![Span::raw(" ".repeat(width.saturating_sub(BAR + 1)))];
            spans.extend(paint::bar(*shares, BAR, look));
            spans.push(Span::raw(" "));
            spans
        }
    }
}

/// Returns a text as it is shown, in lines of this width.
fn wrapped(text: &str, width: usize, look: Look) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut taken = 0;
    for c in cell::at_most(text, usize::MAX, look).chars() {
        let columns = c.width().unwrap_or_default();
        if taken + columns > width && taken > 0 {
            lines.push(String::new());
            taken = 0;
        }
        taken += columns;
        if let Some(line) = lines.last_mut() {
            line.push(c);
        }
    }
    lines
}
