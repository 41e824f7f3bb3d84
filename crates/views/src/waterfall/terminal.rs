// SPDX-License-Identifier: MIT OR Apache-2.0
//! A waterfall at a terminal.

use ngx_bpf_record::Request;
use ngx_bpf_record::statistics::has_failed;

use crate::cell;
use crate::look;
use crate::look::Look;
use crate::units;
use crate::waterfall::axis;
use crate::waterfall::facts;
use crate::waterfall::line::Line;
use crate::waterfall::line::Style;
use crate::waterfall::line::flow;
use crate::waterfall::line::sentence;
use crate::waterfall::rows::Heading;
use crate::waterfall::rows::Row;
use crate::waterfall::rows::Rows;
use crate::waterfall::rows::Span;
use crate::waterfall::rows::rows;
use crate::waterfall::why::why;

/// The lines that a URL takes at most.
const URL_LINES_MAX: usize = 3;

/// The columns that a label of the axis takes with the space after it.
const LABEL: usize = 8;

/// The least width at which times have a space before their unit.
const SPACIOUS: usize = 60;

/// Returns a request as a waterfall, in lines that are no wider than the look.
pub fn terminal(request: &Request<'_>, look: Look) -> String {
    let rows = rows(request);
    let mut lines = head(request, look);
    lines.push(Line::default());
    lines.extend(rows.note.iter().flat_map(|note| sentence("", note, look)));
    lines.extend(table(&rows, look));
    let mut rest = shares(request, look);
    let also = facts::also(request).join(", ");
    if !also.is_empty() {
        rest.extend(sentence("also   ", &also, look));
    }
    let mut label = "why    ";
    for text in why(request) {
        rest.extend(sentence(label, &text, look));
        label = "       ";
    }
    if !rest.is_empty() {
        lines.push(Line::default());
        lines.extend(rest);
    }
    let mut screen = String::new();
    lines.iter().for_each(|line| line.print(&mut screen, look));
    screen
}

/// Returns the first lines: what was asked for and what came of it, and where it belongs to.
fn head(request: &Request<'_>, look: Look) -> Vec<Line> {
    let method = request.request_method.as_deref();
    let method = method.map_or_else(String::new, |method| format!("{method} "));
    let asked = method + &facts::asked(request);
    let result = facts::result(request).join("  ");
    let style = if has_failed(request) {
        Style::Failure
    } else {
        Style::Strong
    };
    let taken = cell::width(&asked, look) + 2 + cell::width(&result, look);
    let mut lines = Vec::new();
    if taken <= look.width {
        let space = " ".repeat(look.width - taken + 2);
        let line = Line::new(Style::Strong, asked).with(Style::Plain, space);
        lines.push(line.with(style, result));
    } else {
        lines.extend(folded(&asked, look));
        lines.push(Line::new(style, result));
    }
    lines.extend(flow(&facts::place(request), look));
    lines
}

/// Returns a text in lines as long as the width; what is too long for them is cut.
fn folded(text: &str, look: Look) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut rest = text;
    while !rest.is_empty() && lines.len() + 1 < URL_LINES_MAX {
        let mut columns = 0;
        let end = rest.char_indices().find(|(at, c)| {
            columns += cell::width(&rest[*at..at + c.len_utf8()], look);
            columns > look.width
        });
        let end = end.map_or(rest.len(), |(at, _)| at);
        if end == 0 {
            break;
        }
        let (line, after) = rest.split_at(end);
        lines.push(Line::new(Style::Strong, line));
        rest = after;
    }
    if !rest.is_empty() {
        lines.push(Line::new(Style::Strong, rest));
    }
    lines
}

/// The columns of a table.
struct Columns {
    name: usize,
    at: usize,
    took: usize,
    bar: usize,
    look: Look,
}

impl Columns {
    /// Divides the width.
    fn new(look: Look) -> Self {
        let name = (look.width * 3 / 10).clamp(18, 30);
        let (at, took) = if look.width < SPACIOUS {
            (7, 7)
        } else {
            (9, 9)
        };
        let bar = look.width.saturating_sub(name + at + took + 2);
        Self {
            name,
            at,
            took,
            bar,
            look,
        }
    }

    /// Returns a time, aligned to the right in this number of columns.
    fn time(&self, ns: u64, columns: usize) -> String {
        let text = if self.look.width < SPACIOUS {
            units::short_time(ns)
        } else {
            units::time(ns)
        };
        cell::right(&text, columns, self.look)
    }
}

/// Returns the rows with a scale above them.
fn table(rows: &Rows, look: Look) -> Vec<Line> {
    if rows.rows.is_empty() {
        return Vec::new();
    }
    let columns = Columns::new(look);
    let mut scale = " ".repeat(columns.name) + &cell::right("at", columns.at, look);
    scale += &cell::right("took", columns.took, look);
    if let Some(end) = rows.end {
        scale.push_str("  ");
        let begin = scale.len();
        for (at, label) in axis::marks(end, columns.bar / LABEL) {
            let (place, _) = axis::cells(at, at, end, columns.bar);
            if place + label.len() <= columns.bar {
                let space = (begin + place).saturating_sub(scale.len());
                scale.push_str(&" ".repeat(space));
                scale.push_str(&label);
            }
        }
    }
    let mut lines = vec![Line::new(Style::Plain, scale)];
    lines.extend(rows.rows.iter().map(|row| match row {
        Row::Heading(heading) => title(heading, look),
        Row::Span(span) => row_of(span, rows.end, &columns),
    }));
    lines
}

/// Returns the line of a heading, with the outcome at its end.
fn title(heading: &Heading, look: Look) -> Line {
    let mut parts = vec![heading.title.clone()];
    parts.extend(heading.about.iter().cloned());
    let text = "  ".repeat(heading.depth) + &parts.join("  ");
    let outcome = heading.outcome.as_deref().unwrap_or_default();
    let columns = look.width.saturating_sub(cell::width(outcome, look) + 2);
    let style = if heading.has_failed {
        Style::Failure
    } else {
        Style::Plain
    };
    Line::new(Style::Plain, cell::left(&text, columns, look))
        .with(Style::Plain, "  ")
        .with(style, outcome)
}

/// Returns the line of a part of the time.
fn row_of(span: &Span, end: Option<u64>, columns: &Columns) -> Line {
    let look = columns.look;
    let name = "  ".repeat(span.depth) + span.name;
    let mut text = cell::left(&name, columns.name, look);
    text += &columns.time(span.from, columns.at);
    let Some(to) = span.to else {
        return Line::new(Style::Plain, text);
    };
    text += &columns.time(to - span.from, columns.took);
    let Some(end) = end else {
        return Line::new(Style::Plain, text);
    };
    let (from, to) = axis::cells(span.from, to, end, columns.bar);
    text += &" ".repeat(2 + from);
    let line = Line::new(Style::Plain, text);
    match span.class {
        Some(class) => {
            let bar = look.glyph(class).to_string().repeat(to - from);
            line.with(Style::Of(class), bar)
        }
        None => line.with(Style::Plain, "-".repeat(to - from)),
    }
}

/// Returns the line of the shares. Where it has no room it goes on in the next one.
fn shares(request: &Request<'_>, look: Look) -> Vec<Line> {
    let Some((shares, sum)) = facts::shares(request) else {
        return Vec::new();
    };
    let mut lines = Vec::new();
    let mut line = Line::new(Style::Plain, "time ");
    let last = format!("= {}", units::time(sum));
    let parts = shares.into_iter().map(|(class, percent)| {
        let text = format!("{} {} {percent}", look.glyph(class), look::name(class));
        (Style::Of(class), text)
    });
    for (style, text) in parts.chain([(Style::Plain, last)]) {
        if line.width(look) + 2 + cell::width(&text, look) > look.width {
            lines.push(line);
            line = Line::new(Style::Plain, "     ");
        }
        line = line.with(Style::Plain, "  ").with(style, text);
    }
    lines.push(line);
    lines
}
