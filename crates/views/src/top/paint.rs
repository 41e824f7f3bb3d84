// SPDX-License-Identifier: MIT OR Apache-2.0
//! Lines on the screen. Colour only repeats what glyphs and letters say; without colours there are modifiers only.

use ngx_bpf_record::timeline::Class;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Color;
use ratatui::style::Modifier;
use ratatui::style::Style;
use ratatui::text::Line;
use ratatui::text::Span;

use crate::bar::apportion;
use crate::cell;
use crate::look::CLASSES;
use crate::look::Look;

/// The lines of the screen, from the first one on.
pub struct Canvas<'b> {
    buffer: &'b mut Buffer,
    area: Rect,
    look: Look,
    /// The next line.
    at: u16,
}

impl<'b> Canvas<'b> {
    /// Creates the lines of a part of the screen.
    pub fn new(buffer: &'b mut Buffer, area: Rect, look: Look) -> Self {
        Self {
            buffer,
            area,
            look,
            at: 0,
        }
    }

    /// Returns the number of lines that are left.
    pub fn left(&self) -> usize {
        self.area.height.saturating_sub(self.at).into()
    }

    /// Returns the number of columns.
    pub fn width(&self) -> usize {
        self.area.width.into()
    }

    /// Returns how the screen looks.
    pub fn look(&self) -> Look {
        self.look
    }

    /// Adds a line, if there is room.
    pub fn line(&mut self, line: &Line<'_>) {
        if self.left() > 0 {
            let y = self.area.y + self.at;
            self.buffer.set_line(self.area.x, y, line, self.area.width);
            self.at += 1;
        }
    }

    /// Adds a text, cut to the screen.
    pub fn text(&mut self, text: &str) {
        let text = cell::at_most(text, self.width(), self.look);
        self.line(&Line::raw(text));
    }
}

/// Returns the style of a class.
pub fn of_class(class: Class, look: Look) -> Style {
    let colour = match class {
        Class::Client => Color::Cyan,
        Class::Nginx => Color::Yellow,
        Class::Upstream => Color::Blue,
        Class::Wait => Color::Magenta,
    };
    if look.colour {
        Style::new().fg(colour)
    } else {
        Style::new()
    }
}

/// Returns the style of headings.
pub fn strong() -> Style {
    Style::new().add_modifier(Modifier::BOLD)
}

/// Returns the style of the selected row.
pub fn selected() -> Style {
    Style::new().add_modifier(Modifier::REVERSED)
}

/// Returns a bar of shares (client, nginx, upstream, wait) with this number of cells.
pub fn bar(shares: [u128; 4], cells: usize, look: Look) -> Vec<Span<'static>> {
    let divided = apportion(&shares, u32::try_from(cells).unwrap_or_default());
    let parts = CLASSES.into_iter().zip(divided);
    parts
        .filter(|(_, n)| *n > 0)
        .map(|(class, n)| {
            let glyphs = look.glyph(class).to_string().repeat(n as usize);
            Span::styled(glyphs, of_class(class, look))
        })
        .collect()
}

/// Returns a text in which the glyphs of classes have their colours. Letters have none: they stand in words as well.
pub fn glyphs(text: &str, look: Look) -> Line<'static> {
    let class = |c: char| {
        let mut classes = CLASSES.into_iter();
        classes.find(|class| !look.ascii && look.colour && look.glyph(*class) == c)
    };
    let mut spans: Vec<Span<'static>> = Vec::new();
    let mut run = (None, String::new());
    for c in text.chars() {
        if class(c) != run.0 {
            spans.push(in_class(run, look));
            run = (class(c), String::new());
        }
        run.1.push(c);
    }
    spans.push(in_class(run, look));
    Line::from(spans)
}

/// Returns a text in the colour of a class.
fn in_class((class, text): (Option<Class>, String), look: Look) -> Span<'static> {
    match class {
        Some(class) => Span::styled(text, of_class(class, look)),
        None => Span::raw(text),
    }
}

/// Returns as many of these parts as a width has room for, from the first on, joined by two spaces.
pub fn fitting(parts: &[String], width: usize, look: Look) -> String {
    let mut text = String::new();
    for part in parts.iter().filter(|part| !part.is_empty()) {
        let gap = if text.is_empty() { "" } else { "  " };
        let next = cell::at_most(part, width, look);
        if cell::width(&text, look) + gap.len() + cell::width(&next, look) > width {
            break;
        }
        text.push_str(gap);
        text.push_str(&next);
    }
    text
}
