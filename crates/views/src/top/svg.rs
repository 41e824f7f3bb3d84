// SPDX-License-Identifier: MIT OR Apache-2.0
//! A picture of the screen, for documents.

use std::fmt::Write as _;

use ngx_bpf_record::format::escape::is_unsafe;
use ratatui::buffer::Buffer;
use ratatui::buffer::Cell;
use ratatui::style::Color;
use ratatui::style::Modifier;

/// The width and the height of a cell, and the space around all of them.
const CELL: (f64, f64) = (8.4, 17.0);
const MARGIN: f64 = 10.0;

/// The colours of texts, and of the background.
const TEXT: &str = "#d8dee4";
const GROUND: &str = "#0d1117";

/// Returns a picture of the cells of a screen, as a document of SVG that needs nothing else.
pub fn svg(buffer: &Buffer) -> String {
    let area = buffer.area;
    let width = f64::from(area.width) * CELL.0 + 2.0 * MARGIN;
    let height = f64::from(area.height) * CELL.1 + 2.0 * MARGIN;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.1}\" height=\"{height:.1}\" \
         viewBox=\"0 0 {width:.1} {height:.1}\" font-family=\"monospace\" font-size=\"14\">\n\
         <rect width=\"100%\" height=\"100%\" rx=\"6\" fill=\"{GROUND}\"/>\n"
    );
    for y in 0..area.height {
        let cells = (0..area.width).map(|x| &buffer[(area.x + x, area.y + y)]);
        row(&mut svg, &cells.collect::<Vec<_>>(), y);
    }
    svg + "</svg>\n"
}

/// Adds a line: each run of cells with one style is a text, stretched to its cells whatever the font is.
fn row(svg: &mut String, cells: &[&Cell], y: u16) {
    let mut at = 0;
    for run in cells.chunk_by(|a, b| look(a) == look(b)) {
        let (text, ground, is_bold) = look(run[0]);
        let x = MARGIN + f64::from(at) * CELL.0;
        let top = MARGIN + f64::from(y) * CELL.1;
        let width = run.len() as f64 * CELL.0;
        at += u16::try_from(run.len()).unwrap_or_default();
        if ground != GROUND {
            let height = CELL.1;
            let _ = writeln!(
                svg,
                "<rect x=\"{x:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{height}\" fill=\"{ground}\"/>"
            );
        }
        let symbols: String = run.iter().map(|cell| cell.symbol()).collect();
        if symbols.trim().is_empty() {
            continue;
        }
        let weight = if is_bold { " font-weight=\"bold\"" } else { "" };
        let base = top + CELL.1 * 0.75;
        let _ = writeln!(
            svg,
            "<text x=\"{x:.1}\" y=\"{base:.1}\" fill=\"{text}\"{weight} textLength=\"{width:.1}\" \
             lengthAdjust=\"spacingAndGlyphs\" xml:space=\"preserve\">{}</text>",
            escaped(&symbols)
        );
    }
}

/// Returns the colours of a cell's text and background, and whether it is bold.
fn look(cell: &Cell) -> (&'static str, &'static str, bool) {
    let text = match cell.fg {
        Color::Cyan => "#39c5cf",
        Color::Yellow => "#d29922",
        Color::Blue => "#58a6ff",
        Color::Magenta => "#bc8cff",
        Color::Red => "#ff7b72",
        _ => TEXT,
    };
    let is_bold = cell.modifier.contains(Modifier::BOLD);
    if cell.modifier.contains(Modifier::REVERSED) {
        return (GROUND, text, is_bold);
    }
    (text, GROUND, is_bold)
}

/// Returns a text in which nothing is markup, and no character is one that XML refuses.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            c if is_unsafe(c) => escaped.push('?'),
            c => escaped.push(c),
        }
    }
    escaped
}
