// SPDX-License-Identifier: MIT OR Apache-2.0
//! Lines of a terminal. Each is cut to the width, and its texts are escaped, when it is printed.

use ngx_bpf_record::timeline::Class;

use crate::cell;
use crate::look::Look;

/// How a part of a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// As it is.
    Plain,
    /// Emphasized.
    Strong,
    /// In the colour of a failure.
    Failure,
    /// In the colour of a class.
    Of(Class),
}

/// A line, from its parts.
#[derive(Clone, Debug, Default)]
pub struct Line(Vec<(Style, String)>);

impl Line {
    /// Creates a line of one part.
    pub fn new(style: Style, text: impl Into<String>) -> Self {
        Self::default().with(style, text)
    }

    /// Adds a part.
    pub fn with(mut self, style: Style, text: impl Into<String>) -> Self {
        self.0.push((style, text.into()));
        self
    }

    /// Returns the columns that it would take.
    pub fn width(&self, look: Look) -> usize {
        let parts = self.0.iter();
        parts.map(|(_, text)| cell::width(text, look)).sum()
    }

    /// Appends it, cut to the width, and a line end.
    pub fn print(&self, screen: &mut String, look: Look) {
        let mut left = look.width;
        let mut line = String::new();
        for (style, text) in &self.0 {
            let text = cell::at_most(text, left, look);
            left -= cell::width(&text, look).min(left);
            line.push_str(&match style {
                _ if text.trim().is_empty() => text,
                Style::Plain => text,
                Style::Strong => look.strong(&text),
                Style::Failure => look.failure(&text),
                Style::Of(class) => look.of_class(*class, &text),
            });
        }
        screen.push_str(line.trim_end());
        screen.push('\n');
    }
}

/// Divides items among lines, with two spaces between those of a line.
pub fn flow(items: &[String], look: Look) -> Vec<Line> {
    wrapped(items, "  ", "", "", look)
}

/// Divides a sentence among lines. The first begins with a label, and the others with as many spaces.
pub fn sentence(label: &str, text: &str, look: Look) -> Vec<Line> {
    let words: Vec<String> = text.split(' ').map(str::to_owned).collect();
    wrapped(&words, " ", label, &" ".repeat(label.len()), look)
}

/// Divides items among lines as long as the width.
fn wrapped(items: &[String], between: &str, first: &str, others: &str, look: Look) -> Vec<Line> {
    let (mut lines, mut line, mut is_empty) = (Vec::new(), first.to_owned(), true);
    for item in items {
        let width = cell::width(&line, look) + between.len() + cell::width(item, look);
        if !is_empty && width > look.width {
            lines.push(Line::new(Style::Plain, line));
            (line, is_empty) = (others.to_owned(), true);
        }
        if !is_empty {
            line.push_str(between);
        }
        line.push_str(item);
        is_empty = false;
    }
    if !is_empty {
        lines.push(Line::new(Style::Plain, line));
    }
    lines
}
