// SPDX-License-Identifier: MIT OR Apache-2.0
//! The chart of a run: bars with intervals, as SVG. It is tested by tests/suite/bench.rs.

use super::interval::Interval;

/// The ratios of a row.
pub struct Bars<'a> {
    pub name: &'a str,
    pub worker: Interval,
    pub machine: Interval,
}

/// The width of the names, of the bars, and of what is written right of them.
pub const NAMES: f64 = 270.0;
pub const BARS: f64 = 460.0;
const NUMBERS: f64 = 150.0;

/// The height of a row, of one of its bars, and of what is above the first row.
const ROW: f64 = 30.0;
const BAR: f64 = 10.0;
const TOP: f64 = 62.0;

/// Ratios that may be marked on the axis, and the least distance of two marks.
const MARKS: [f64; 18] = [
    0.3, 0.5, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.7, 2.0, 3.0, 5.0, 10.0, 20.0, 50.0,
];
const APART: f64 = 34.0;

/// Colours that differ enough on either background.
const STYLE: &str = "<style>
text { font: 12px sans-serif; fill: #1f2328; }
.title { font-weight: bold; }
.paper { fill: #ffffff; }
.worker { fill: #0969da; }
.machine { fill: #d4a72c; }
.mark { stroke: #d0d7de; }
.one, .interval { stroke: #1f2328; }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3; }
.paper { fill: #0d1117; }
.worker { fill: #388bfd; }
.machine { fill: #9e6a03; }
.mark { stroke: #30363d; }
.one, .interval { stroke: #e6edf3; }
}
</style>
";

/// The axis of ratios. It is logarithmic, because rows differ by a few percent or by a factor.
struct Axis {
    least: f64,
    greatest: f64,
}

impl Axis {
    fn of(rows: &[Bars<'_>]) -> Self {
        let intervals = || rows.iter().flat_map(|row| [&row.worker, &row.machine]);
        let lows = intervals().map(|ratio| ratio.low);
        let highs = intervals().map(|ratio| ratio.high);
        Self {
            least: lows.fold(0.95, f64::min) * 0.98,
            greatest: highs.fold(1.5, f64::max) * 1.02,
        }
    }

    /// Returns the place of a ratio.
    fn x(&self, ratio: f64) -> f64 {
        let share = (ratio / self.least).ln() / (self.greatest / self.least).ln();
        NAMES + BARS * share
    }

    /// Returns the ratios to mark.
    fn marks(&self) -> Vec<f64> {
        let mut marks: Vec<f64> = Vec::new();
        for mark in MARKS {
            let is_seen = (self.least..self.greatest).contains(&mark);
            let is_apart = |last: &f64| self.x(mark) - self.x(*last) >= APART;
            if is_seen && marks.last().is_none_or(is_apart) {
                marks.push(mark);
            }
        }
        marks
    }
}

/// Returns the chart of some rows.
pub fn svg(rows: &[Bars<'_>]) -> String {
    let (width, height) = (NAMES + BARS + NUMBERS, TOP + ROW * rows.len() as f64 + 10.0);
    let axis = Axis::of(rows);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\">\n{STYLE}\
         <rect class=\"paper\" width=\"100%\" height=\"100%\" rx=\"6\"/>\n"
    );
    svg += &text(
        10.0,
        20.0,
        "title",
        "CPU time of a request, as a multiple of the time with nothing on",
    );
    for (class, x, what) in [
        ("worker", NAMES, "nginx's worker"),
        ("machine", NAMES + 140.0, "the whole machine"),
    ] {
        svg += &rect(class, x, 29.0, x + BAR);
        svg += &text(x + BAR + 5.0, 38.0, "", what);
    }
    svg += &text(NAMES + 290.0, 38.0, "", "lines: 95 % intervals");
    for mark in axis.marks() {
        let (x, class) = (axis.x(mark), if mark == 1.0 { "one" } else { "mark" });
        svg += &line(class, x, TOP - 4.0, x, height - 6.0);
        svg += &text(x - 8.0, TOP - 8.0, "", &mark.to_string());
    }
    for (n, row) in rows.iter().enumerate() {
        svg += &row_of(&axis, row, TOP + ROW * n as f64);
    }
    svg + "</svg>\n"
}

/// Returns a row whose upper edge is there.
fn row_of(axis: &Axis, row: &Bars<'_>, y: f64) -> String {
    let mut svg = text(10.0, y + 19.0, "", row.name);
    for (class, ratio, y) in [
        ("worker", &row.worker, y + 4.0),
        ("machine", &row.machine, y + 4.0 + BAR),
    ] {
        let middle = y + BAR / 2.0;
        let (low, high) = (axis.x(ratio.low), axis.x(ratio.high));
        svg += &rect(class, axis.x(1.0), y, axis.x(ratio.median));
        svg += &line("interval", low, middle, high, middle);
        for end in [low, high] {
            svg += &line("interval", end, middle - 3.0, end, middle + 3.0);
        }
    }
    let ratios = format!("{:.2}, {:.2}", row.worker.median, row.machine.median);
    svg + &text(NAMES + BARS + 14.0, y + 19.0, "", &ratios)
}

/// Returns a bar from one place to another one, which may be left of it.
fn rect(class: &str, from: f64, y: f64, to: f64) -> String {
    let (x, width) = (from.min(to), (to - from).abs());
    format!(
        "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{BAR}\"/>\n"
    )
}

fn line(class: &str, x1: f64, y1: f64, x2: f64, y2: f64) -> String {
    format!(
        "<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>\n"
    )
}

fn text(x: f64, y: f64, class: &str, content: &str) -> String {
    let content = content.replace('&', "&amp;").replace('<', "&lt;");
    let class = match class {
        "" => String::new(),
        class => format!(" class=\"{class}\""),
    };
    format!("<text{class} x=\"{x:.1}\" y=\"{y:.1}\">{content}</text>\n")
}
