// SPDX-License-Identifier: MIT OR Apache-2.0
//! The part of a page that shows one request, and what it is made of.

use ngx_bpf_record::Request;
use ngx_bpf_record::format::escape::is_unsafe;
use ngx_bpf_record::statistics::has_failed;
use ngx_bpf_record::timeline::Class;
use unicode_width::UnicodeWidthChar as _;

use crate::look;
use crate::units;
use crate::waterfall::axis;
use crate::waterfall::facts;
use crate::waterfall::rows::Heading;
use crate::waterfall::rows::Row;
use crate::waterfall::rows::Span;
use crate::waterfall::rows::rows;
use crate::waterfall::why::why;

/// The marks of an axis at most.
const MARKS_MAX: usize = 6;

/// The part of the axis, in per cent, after which a label has no room.
const LABEL_MAX: f64 = 92.0;

/// The same on a narrow screen.
const NARROW_MAX: f64 = 80.0;

/// The least width of a bar, in per cent.
const BAR_MIN: f64 = 0.3;

/// Returns a text in which what may turn its direction, or can't be seen, is escaped.
pub fn safe(text: &str) -> String {
    text.chars().fold(String::new(), |mut safe, c| {
        match c {
            c if is_unsafe(c) || c.width().unwrap_or_default() == 0 => {
                safe += &format!("\\u{{{:x}}}", u32::from(c));
            }
            c => safe.push(c),
        }
        safe
    })
}

/// Returns a text for a page, within an element or the value of an attribute.
pub fn escaped(text: &str) -> String {
    safe(text).chars().fold(String::new(), |mut escaped, c| {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
        escaped
    })
}

/// Returns the status of a request.
pub fn status(request: &Request<'_>) -> String {
    let class = if has_failed(request) { "bad" } else { "" };
    let status = request.status.map(|status| status.to_string());
    format!(
        "<span class=\"{class}\">{}</span>",
        status.unwrap_or_default()
    )
}

/// Returns a place on an axis in per cent.
fn percent(at: u64, end: u64) -> f64 {
    (at as f64 * 100.0 / end.max(1) as f64).min(100.0)
}

/// Returns the labels of an axis.
pub fn scale(end: u64) -> String {
    let mut svg = "<svg class=\"bar\" aria-hidden=\"true\">".to_owned();
    for (at, label) in axis::marks(end, MARKS_MAX) {
        let x = percent(at, end);
        svg += &format!("<line x1=\"{x:.2}%\" x2=\"{x:.2}%\" y1=\"4\" y2=\"18\"/>");
        if x <= LABEL_MAX {
            let class = if x > NARROW_MAX {
                " class=\"late\""
            } else {
                ""
            };
            svg += &format!("<text{class} x=\"{x:.2}%\" dx=\"3\" y=\"13\">{label}</text>");
        }
    }
    svg + "</svg>"
}

/// Bars on one axis.
pub struct Bars {
    end: u64,
    svg: String,
}

impl Bars {
    /// Creates the bars of an axis that ends at this moment.
    pub fn new(end: u64) -> Self {
        let mut svg = "<svg class=\"bar\">".to_owned();
        for (at, _) in axis::marks(end, MARKS_MAX) {
            let x = percent(at, end);
            svg += &format!("<line x1=\"{x:.2}%\" x2=\"{x:.2}%\" y1=\"0\" y2=\"18\"/>");
        }
        Self { end, svg }
    }

    /// Adds a bar. Its name is shown by a browser that points at it.
    pub fn add(&mut self, name: &str, class: Option<Class>, from: u64, to: u64) {
        let width = (percent(to, self.end) - percent(from, self.end)).max(BAR_MIN);
        let x = percent(from, self.end).min(100.0 - width);
        let class = class.map_or("tunnel", look::name);
        let time = units::time(to.saturating_sub(from));
        self.svg += &format!(
            "<rect class=\"{class}\" x=\"{x:.3}%\" y=\"3\" width=\"{width:.3}%\" height=\"12\">\
             <title>{name}: {time}</title></rect>"
        );
    }

    /// Returns them as SVG.
    pub fn svg(self) -> String {
        self.svg + "</svg>"
    }
}

/// Returns the section of a request, of this number.
pub fn of(request: &Request<'_>, n: usize) -> String {
    let method = request.request_method.as_deref().unwrap_or_default();
    let asked = format!("{method} {}", facts::asked(request));
    let mut section = format!(
        "<section id=\"r{n}\">\n<h2><bdi>{}</bdi></h2>\n",
        escaped(asked.trim())
    );
    section += &result(request);
    section += &list("facts soft", &facts::place(request));
    let rows = rows(request);
    if let Some(note) = rows.note {
        section += &format!("<p>{}</p>\n", escaped(note));
    }
    section += &table(&rows.rows, rows.end);
    if let Some((shares, sum)) = facts::shares(request) {
        let shares = shares.into_iter();
        let texts = shares.map(|(class, percent)| format!("{} {percent}", look::name(class)));
        let texts: Vec<_> = texts.collect();
        let (texts, sum) = (texts.join(", "), units::time(sum));
        section += &format!(
            "<p><span class=\"soft\">time</span> {} of {sum}</p>\n",
            escaped(&texts)
        );
    }
    let also = facts::also(request).join(", ");
    if !also.is_empty() {
        section += &format!(
            "<p><span class=\"soft\">also</span> {}</p>\n",
            escaped(&also)
        );
    }
    for text in why(request) {
        section += &format!(
            "<p><span class=\"soft\">why</span> <bdi>{}</bdi></p>\n",
            escaped(&text)
        );
    }
    section + "</section>\n"
}

/// Returns how a request ended, with the status of a failure emphasized.
fn result(request: &Request<'_>) -> String {
    let facts = facts::result(request);
    let class = if has_failed(request) { "bad" } else { "" };
    let (first, rest) = facts
        .split_first()
        .map_or(("", &facts[..]), |(first, rest)| (first.as_str(), rest));
    format!(
        "<p class=\"facts\"><span class=\"{class}\">{}</span> {}</p>\n",
        escaped(first),
        spans(rest)
    )
}

/// Returns facts beside each other.
fn list(class: &str, facts: &[String]) -> String {
    format!("<p class=\"{class}\">{}</p>\n", spans(facts))
}

/// Returns an element for each fact.
fn spans(facts: &[String]) -> String {
    let facts = facts.iter();
    facts
        .map(|fact| format!("<span><bdi>{}</bdi></span> ", escaped(fact)))
        .collect()
}

/// Returns the rows of a request.
fn table(rows: &[Row], end: Option<u64>) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let scale = end.map_or_else(String::new, scale);
    let mut table = "<table>\n<colgroup><col class=\"name\"><col class=\"for\"><col class=\"n\">\
                     <col class=\"n\"><col></colgroup>\n"
        .to_owned();
    table += &format!(
        "<tr><th></th><th class=\"for\">for</th><th class=\"n\">at</th><th class=\"n\">took</th><th>{scale}</th></tr>\n"
    );
    for row in rows {
        table += &match row {
            Row::Heading(heading) => title(heading),
            Row::Span(span) => row_of(span, end),
        };
    }
    table + "</table>\n"
}

/// Returns the row of a heading.
fn title(heading: &Heading) -> String {
    let about = heading.about.join(", ");
    let class = if heading.has_failed { "bad" } else { "" };
    let outcome = heading.outcome.as_deref().map(|outcome| {
        let outcome = escaped(outcome);
        format!(": <span class=\"{class}\">{outcome}</span>")
    });
    format!(
        "<tr class=\"of\"><td class=\"d{}\" colspan=\"5\"><b>{}</b> \
         <bdi>{}</bdi>{}</td></tr>\n",
        heading.depth,
        escaped(&heading.title),
        escaped(&about),
        outcome.unwrap_or_default()
    )
}

/// Returns the row of a part of the time.
fn row_of(span: &Span, end: Option<u64>) -> String {
    let Span {
        depth, name, from, ..
    } = span;
    let took = span.to.map(|to| units::time(to - from)).unwrap_or_default();
    let bar = span.to.zip(end).map(|(to, end)| {
        let mut bars = Bars::new(end);
        bars.add(name, span.class, *from, to);
        bars.svg()
    });
    let class = span.class.map(look::name).unwrap_or_default();
    format!(
        "<tr><td class=\"d{depth}\">{name}</td><td class=\"soft for\">{class}</td><td class=\"n\">{}</td>\
         <td class=\"n\">{took}</td><td>{}</td></tr>\n",
        units::time(*from),
        bar.unwrap_or_default()
    )
}
