// SPDX-License-Identifier: MIT OR Apache-2.0
//! The first lines of the screen, and its last one.

use std::collections::BTreeMap;

use ngx_bpf_record::statistics::Peer;
use ngx_bpf_record::statistics::Times;
use ratatui::text::Line;
use ratatui::text::Span;

use super::Top;
use super::paint::fitting;
use super::paint::of_class;
use super::rows::Worker;
use super::views;
use super::views::View;
use super::window::Totals;
use super::window::Window;
use crate::cell;
use crate::clock::time_of_day;
use crate::look::CLASSES;
use crate::look::Look;
use crate::look::name;
use crate::units;

/// The least columns of the title; what stands at its right gives way.
const TITLE_MIN: usize = 11;

/// Returns the first line: what is traced, what was lost, the window, and the time.
pub fn title(top: &Top, width: usize) -> String {
    let look = top.settings.look;
    let window = top.shown();
    let seconds = window.seconds().round() as u64;
    let state = match &top.ended {
        _ if top.is_frozen() => "FROZEN",
        Some(Some(_)) => "FAILED",
        _ => "",
    };
    let at_right = [
        state.to_owned(),
        format!("lost {}", units::count(top.lost())),
        format!("window {seconds} s"),
        time_of_day(window.now(), &top.settings.zone, "%H:%M:%S"),
    ];
    let right = fitting(&at_right, width.saturating_sub(TITLE_MIN + 2), look);
    let room = width.saturating_sub(cell::width(&right, look));
    let title = format!("ngx-bpf top  {}", top.settings.title);
    let title = cell::at_most(&title, room.saturating_sub(2), look);
    cell::left(&title, room, look) + &right
}

/// Returns the second line: the rate, how long it took, and what failed; of the view.
pub fn rates(top: &Top, totals: &Totals) -> Vec<String> {
    let window = top.shown();
    match top.view {
        View::Group(_) => requests(totals, window.seconds()),
        View::Upstreams => attempts(window),
        View::Workers => workers(window),
    }
}

/// Returns percentiles and the maximum, each with its name before it.
fn percentiles(times: &Times) -> Vec<String> {
    let time = |name: &str, ns: Option<u64>| match ns {
        Some(ns) => format!("{name} {}", units::time(ns)),
        None => String::new(),
    };
    vec![
        time("p50", times.quantile(0.5)),
        time("p99", times.quantile(0.99)),
        time("max", times.max_ns()),
    ]
}

/// Returns the second line of requests.
fn requests(totals: &Totals, seconds: f64) -> Vec<String> {
    let all = &totals.all;
    let mut parts = vec![format!("{} req/s", units::rate(all.requests, seconds))];
    parts.extend(percentiles(&all.elapsed));
    if all.requests > 0 {
        let percent =
            |digit: usize| units::percent(all.statuses[digit].into(), all.requests.into());
        parts.extend([4, 5].map(|digit| format!("{digit}xx {}", percent(digit))));
    }
    parts
}

/// Returns the second line of upstreams.
fn attempts(window: &Window) -> Vec<String> {
    let rows = window.peers();
    let mut all = Peer::default();
    let named = rows.named().map(|(_, row)| row);
    named
        .chain(rows.other())
        .for_each(|row| all.merge(&row.what));
    let rate = units::rate(all.tries, window.seconds());
    let kept = units::percent(all.kept.into(), all.kept_known.into());
    let kept = match all.kept_known {
        0 => String::new(),
        _ => format!("kept {kept}"),
    };
    vec![
        format!("{rate} attempts/s"),
        format!("{} retried", units::count(all.retried)),
        format!("{} failed", units::count(all.failed())),
        kept,
    ]
}

/// Returns the second line of workers.
fn workers(window: &Window) -> Vec<String> {
    let rows = window.workers();
    let mut all = Worker::default();
    let named = rows.named().map(|(_, row)| row);
    named
        .chain(rows.other())
        .for_each(|row| all.merge(&row.what));
    let mut parts = percentiles(&all.read_wait);
    if all.read_wait.count() > 0 {
        parts[0].insert_str(0, "read wait ");
    }
    if let Some(longest) = all.blocked.max_ns() {
        let times = units::count(all.blocked.count());
        parts.push(format!("blocked {times}, longest {}", units::time(longest)));
    }
    parts
}

/// Returns the third line: what is counted apart.
pub fn apart(top: &Top, totals: &Totals, width: usize) -> Vec<String> {
    let tunnels = format!("tunnels {}", units::count(totals.tunnels));
    let counted = |name: &str, count: u64| match count {
        0 => String::new(),
        count => format!("{name} {}", units::count(count)),
    };
    let ended = match &top.ended {
        None => String::new(),
        Some(None) => "no more records".to_owned(),
        Some(Some(failure)) => {
            let room = width.saturating_sub(tunnels.len() + 2);
            cell::at_most(&format!("failed: {failure}"), room, top.settings.look)
        }
    };
    vec![
        tunnels,
        ended,
        counted("unreadable lines", top.unread.lines),
        counted("records read in part", top.unread.partly),
        counted("connections without a request", totals.connections),
    ]
}

/// Returns the fourth line: for whom requests waited, in shares that add up to 100 %; without names where they have no
/// room.
pub fn shares(totals: &Totals, width: usize, look: Look) -> Line<'static> {
    let percents = units::percents(&totals.all.shares);
    if percents.iter().all(|percent| *percent == 0) {
        return Line::raw("where  not known");
    }
    let line = |has_names: bool| {
        let mut line = Line::raw("where");
        for (class, percent) in CLASSES.into_iter().zip(&percents) {
            let glyph = look.glyph(class).to_string();
            line.push_span("  ");
            line.push_span(Span::styled(glyph, of_class(class, look)));
            let name = if has_names { name(class) } else { "" };
            let gap = if has_names { " " } else { "" };
            line.push_span(format!("{gap}{name} {percent} %"));
        }
        line
    };
    let whole = line(true);
    if whole.width() <= width {
        whole
    } else {
        line(false)
    }
}

/// Returns the last line: the keys, or what is typed.
pub fn keys(top: &Top, width: usize) -> String {
    let look = top.settings.look;
    if top.typing.is_some() {
        let typed = format!("/{}_  Enter keep  Esc as before", top.filter);
        return cell::at_most(&typed, width, look);
    }
    let parts = match &top.opened {
        _ if top.hanging.is_some() => ["i again", "Esc back", "q quit"].map(str::to_owned).into(),
        Some(opened) => opened_keys(opened.depth),
        None => view_keys(top),
    };
    let help = "? help";
    let rest = fitting(&parts, width.saturating_sub(help.len() + 3), look);
    cell::at_most(&format!(" {rest}  {help}"), width, look)
}

/// Returns the keys of the views.
fn view_keys(top: &Top) -> Vec<String> {
    if !top.filter.is_empty() {
        let filter = format!("filter: {}", top.filter);
        return vec![filter, "/ another".to_owned(), "Esc none".to_owned()];
    }
    let views = views::all(top.shown().keys());
    let shown = views.iter().filter(|(_, _, view)| *view != top.view);
    let names = shown.take(4).map(|(key, name, _)| format!("{key} {name}"));
    let inflight = top.settings.has_inflight.then_some("i in flight");
    let first = ["Enter requests", "/ filter"].into_iter();
    let others = first
        .chain(inflight)
        .chain(["s sort", "p freeze", "q quit"]);
    names.chain(others.map(str::to_owned)).collect()
}

/// Returns the keys of a row that was opened.
fn opened_keys(depth: super::opened::Depth) -> Vec<String> {
    let (enter, page) = match depth {
        super::opened::Depth::Requests => ("Enter waterfall", "s sort"),
        super::opened::Depth::Waterfall => ("Enter JSON", "Space more"),
        super::opened::Depth::Json => ("", "Space more"),
    };
    let parts = [enter, page, "Up/Down another", "Esc back", "q quit"];
    parts.map(str::to_owned).into()
}

/// Returns what the most frequent of some failures are: `timeout 3, closed 1`.
pub fn most<T: Copy + Ord + std::fmt::Display>(counts: &BTreeMap<T, u64>) -> String {
    let mut counts: Vec<_> = counts.iter().collect();
    counts.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
    let texts = counts
        .iter()
        .map(|(what, count)| format!("{what} {}", units::count(**count)));
    texts.collect::<Vec<_>>().join(", ")
}
