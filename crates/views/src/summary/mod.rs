// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ngx-bpf summary`: where the time went, on one screen.

use std::fmt::Write as _;

use ngx_bpf_record::read::Unread;
use ngx_bpf_record::statistics::Group;
use ngx_bpf_record::statistics::GroupKey;
use ngx_bpf_record::statistics::Statistics;
use ngx_bpf_record::statistics::Times;
use ngx_bpf_record::timeline::Stage;

use crate::cell;
use crate::look::CLASSES;
use crate::look::Look;
use crate::look::name;
use crate::units;
use crate::waterfall;
use crate::words;

mod groups;
mod incidents;
pub mod numbers;
mod room;

pub use numbers::Numbers;
use room::Room;

/// What a summary is of, besides its records.
#[derive(Clone, Debug, Default)]
pub struct About {
    /// Where the records come from: `nginx 1.26.3, pid 5874`, or files.
    pub source: String,
    /// How long they were taken. `None` for files: from the first request to the last.
    pub seconds: Option<f64>,
    /// The number of requests that a filter left out.
    pub filtered: u64,
    /// What could not be read.
    pub unread: Unread,
    /// Whether everything is shown, also what one screen has no room for.
    pub all: bool,
}

/// The bounds of the histogram's rows, in ns, and the columns of its longest row.
const DECADES: [u64; 8] = [
    1_000,
    10_000,
    100_000,
    1_000_000,
    10_000_000,
    100_000_000,
    1_000_000_000,
    10_000_000_000,
];
const HISTOGRAM: usize = 20;

/// The columns of a row of the histogram besides its bar.
const BESIDE: usize = 26;

/// The columns of a label, of a share, of a time, and of a number of requests.
const LABEL: usize = 22;
const SHARE: usize = 6;
const TIME: usize = 8;
const COUNT: usize = 9;

/// The columns of the table of stages. A narrower screen has fewer columns.
const STAGES: usize = LABEL + SHARE + 4 * (2 + TIME) + COUNT;

/// The columns of a label and of a time on a narrow screen.
const LABEL_MIN: usize = 20;
const TIME_MIN: usize = 7;

/// The least columns of the name of the records, and what a request is asked for has at least and at most.
const SOURCE_MIN: usize = 8;
const ASKED: (usize, usize) = (10, 34);

/// The columns of a line of the slowest requests besides what was asked for, with its id.
const OF_SLOWEST: usize = 30;

/// The columns that the shares need with their names.
const NAMED: usize = 76;

/// Returns the summary: everything, or what one screen has room for.
pub fn terminal(statistics: &Statistics, about: &About, look: Look) -> String {
    room::fitted(about.all, |room| screen(statistics, about, room, look))
}

/// Returns the summary, each part with as many rows as there is room for.
fn screen(statistics: &Statistics, about: &About, room: Room, look: Look) -> String {
    let mut text = head(statistics, about, look);
    if statistics.all.requests == 0 {
        return text;
    }
    if statistics.all.failed == statistics.all.requests {
        text += "\n";
        text += &incidents::all(statistics, room, look);
        if statistics.settings().group != GroupKey::Location {
            text += &groups::table(statistics, room.groups, look);
        }
        return text;
    }
    if statistics.all.shares.iter().any(|share| *share > 0) {
        text += &where_line(&statistics.all, look);
    }
    text += "\n";
    text += &elapsed(statistics, look);
    if room.histogram {
        text += &histogram(&statistics.all.elapsed, look);
    }
    text += &stages(statistics, room.stages, look);
    text += &groups::table(statistics, room.groups, look);
    text += &slowest(statistics, room.slowest, look);
    text += &incidents::few(statistics, room.failed, look);
    text + &tunnels(statistics, look)
}

/// Returns the line of the tunnels.
fn tunnels(statistics: &Statistics, look: Look) -> String {
    if statistics.tunnels == 0 {
        return String::new();
    }
    let most = statistics.tunnel_times.max_ns();
    let most = most.map(|ns| format!(", up to {}", units::time(ns)));
    let tunnels = units::counted(statistics.tunnels, "tunnel");
    let most = most.unwrap_or_default();
    let line = format!("{tunnels} ended{most}: not in these numbers");
    format!("\n{}\n", cell::at_most(&line, look.width, look))
}

/// Returns the first lines: how much there was, what was lost, and how it ended.
fn head(statistics: &Statistics, about: &About, look: Look) -> String {
    let requests = statistics.all.requests;
    let mut line = format!(": {}", units::counted(requests, "request"));
    if let Some(seconds) = numbers::seconds(statistics, about) {
        let rate = units::rate(requests, seconds);
        let window = units::time((seconds * 1e9) as u64);
        let _ = write!(line, " in {window}, {rate}/s");
    }
    let lost = units::count(statistics.lost().saturating_add(about.unread.lost));
    let _ = write!(line, "; lost {lost}");
    if about.filtered > 0 {
        let _ = write!(line, ", filtered {}", units::count(about.filtered));
    }
    /* The name gives way to the losses. */
    let rest = look.width.saturating_sub(cell::width(&line, look));
    let line = match rest < SOURCE_MIN {
        true => line.trim_start_matches(": ").to_owned(),
        false => cell::at_most(&about.source, rest, look) + &line,
    };
    let mut text = look.strong(&cell::at_most(&line, look.width, look)) + "\n";
    let Unread { lines, partly, .. } = about.unread;
    if lines > 0 {
        let line = format!("not records of ngx-bpf: {}", units::counted(lines, "line"));
        text += &format!("{}\n", cell::at_most(&line, look.width, look));
    }
    if partly > 0 {
        let partly = units::counted(partly, "record");
        let line = format!("read in part, since this version does not know some values: {partly}");
        text += &format!("{}\n", cell::at_most(&line, look.width, look));
    }
    if requests > 0 {
        text += &cell::list("", &statuses(statistics), look);
    }
    text
}

/// Returns how many requests have each kind of status, and those statuses that say what went wrong.
fn statuses(statistics: &Statistics) -> Vec<String> {
    let kinds = statistics.all.statuses.iter().enumerate();
    let kinds = kinds.filter(|(_, count)| **count > 0);
    let parts = kinds.map(|(digit, count)| {
        let named = [499, 500, 502, 503, 504].into_iter();
        let named = named.filter(|status| *status as usize / 100 == digit);
        let named = named.filter_map(|status| {
            let count = statistics.statuses.get(&status)?;
            Some(format!("{status}: {}", units::count(*count)))
        });
        let named: Vec<_> = named.collect();
        let named = match named.is_empty() {
            true => String::new(),
            false => format!(" ({})", named.join(", ")),
        };
        format!("{digit}xx {}{named}", units::count(*count))
    });
    let without = statistics.all.without_status;
    let without = (without > 0).then(|| format!("no status {}", units::count(without)));
    parts.chain(without).collect()
}

/// Returns for whom requests waited, in shares that add up to 100 %.
fn where_line(all: &Group, look: Look) -> String {
    let percents = units::percents(&all.shares);
    let has_names = look.width >= NAMED;
    let mut line = cell::at_most("where", look.width, look);
    let mut taken = line.len();
    for (n, (class, percent)) in CLASSES.into_iter().zip(percents).enumerate() {
        let gap = if n == 0 { 2 } else { 3 };
        let text = match has_names {
            true => format!(" {} {percent} %", name(class)),
            false => format!(" {percent} %"),
        };
        taken += gap + 1 + text.len();
        if taken > look.width {
            break;
        }
        let glyph = look.of_class(class, &look.glyph(class).to_string());
        line += &format!("{}{glyph}{text}", " ".repeat(gap));
    }
    line + "\n"
}

/// Returns the percentiles of all requests. The maximum stands with its request.
fn elapsed(statistics: &Statistics, look: Look) -> String {
    let times = &statistics.all.elapsed;
    let shares = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)];
    let is_told = |(_, share): &(&str, f64)| times.count() as f64 * (1.0 - share) >= 1.0;
    let shares = shares.into_iter().filter(is_told);
    let shares = shares.filter_map(|(name, share)| {
        let ns = times.quantile(share)?;
        Some(format!("{name} {}", units::time(ns)))
    });
    let most = times.max_ns().map(|ns| format!("max {}", units::time(ns)));
    let mut parts: Vec<_> = shares.chain(most).collect();
    let id = statistics.slowest.requests().next().map(waterfall::id);
    if let (Some(id), Some(most)) = (id, parts.last_mut()) {
        *most += &format!(" ({id})");
    }
    cell::list("elapsed  ", &parts, look)
}

/// Returns the histogram by powers of ten, without empty rows at its ends.
fn histogram(times: &Times, look: Look) -> String {
    let from = [0].into_iter().chain(DECADES);
    let to = DECADES.into_iter().chain([u64::MAX]);
    let rows = from.zip(to);
    let rows: Vec<_> = rows
        .map(|(from, to)| (from, times.count_between(from, to)))
        .collect();
    let first = rows.iter().position(|(_, count)| *count > 0);
    let last = rows.iter().rposition(|(_, count)| *count > 0);
    let most = rows
        .iter()
        .map(|(_, count)| *count)
        .max()
        .unwrap_or(1)
        .max(1);
    let columns = look.width.saturating_sub(BESIDE).min(HISTOGRAM);
    let mut text = String::new();
    for (from, count) in &rows[first.unwrap_or(0)..last.map_or(0, |last| last + 1)] {
        let cells = (u128::from(*count) * columns as u128).div_ceil(u128::from(most)) as usize;
        let bar = if *count > 0 && *count * 100 < most {
            ".".repeat(columns.min(1))
        } else {
            "#".repeat(cells)
        };
        let begin = match from {
            0 => "below 1 us".to_owned(),
            from => format!("{} {}", round(*from).0, round(*from).1),
        };
        let line = format!(
            "{}  {}  {}",
            cell::right(&begin, 10, look),
            cell::left(&bar, columns, look),
            cell::right(&units::count(*count), 12, look)
        );
        text += &format!("{}\n", cell::at_most(&line, look.width, look));
    }
    text
}

/// Returns the number and the unit of a power of ten.
fn round(ns: u64) -> (u64, &'static str) {
    match ns {
        0..1_000_000 => (ns / 1_000, "us"),
        1_000_000..1_000_000_000 => (ns / 1_000_000, "ms"),
        _ => (ns / 1_000_000_000, "s"),
    }
}

/// Returns the table of the stages that took the most time, this number of them at most, in the order in which a request
/// passes them. The shares of all add up to 100 %; what came before the request, or lies within another stage, has none.
fn stages(statistics: &Statistics, most: usize, look: Look) -> String {
    if statistics.with_stages == 0 || most == 0 {
        return String::new();
    }
    let before = [
        ("accept queue", &statistics.accept_queue),
        ("TLS handshake", &statistics.handshake),
        ("unread in the socket", &statistics.read_wait),
    ];
    let before = before.map(|(label, times)| (label, String::new(), times));
    let sums: Vec<u128> = statistics.stages.iter().map(Times::sum_ns).collect();
    let stages = Stage::ALL.into_iter().zip(&statistics.stages);
    let stages = stages.zip(units::percents(&sums));
    let stages = stages
        .map(|((stage, times), percent)| (words::title(stage), format!("{percent} %"), times));
    let rows = before.into_iter().chain(stages);
    let rows: Vec<_> = rows.filter(|(.., times)| times.count() > 0).collect();
    let mut sums: Vec<_> = rows.iter().map(|(.., times)| times.sum_ns()).collect();
    sums.sort_unstable_by(|one, other| other.cmp(one));
    let least = sums.get(most - 1).copied().unwrap_or_default();
    let percentiles = ["p50", "p90", "p99", "max"];
    let mut text = "\n".to_owned() + &row("stage", "share", percentiles, "requests", look);
    let shown = rows.iter().filter(|(.., times)| times.sum_ns() >= least);
    for (label, share, times) in shown.take(most) {
        text += &times_row(label, share, times, look);
    }
    text
}

/// Returns the row of some times.
fn times_row(label: &str, share: &str, times: &Times, look: Look) -> String {
    let show = match look.width < STAGES {
        true => units::short_time,
        false => units::time,
    };
    let at = |share| times.quantile(share).map(show).unwrap_or_default();
    let most = times.max_ns().map(show).unwrap_or_default();
    let [p50, p90, p99] = [at(0.5), at(0.9), at(0.99)];
    let count = units::count(times.count());
    row(label, share, [&p50, &p90, &p99, &most], &count, look)
}

/// Returns a row of the table of stages. On a narrow screen it has the median and the 99th percentile only.
fn row(label: &str, share: &str, times: [&str; 4], count: &str, look: Look) -> String {
    let is_narrow = look.width < STAGES;
    let of_label = if is_narrow { LABEL_MIN } else { LABEL };
    let mut line = cell::left(label, of_label, look) + &cell::right(share, SHARE, look);
    if is_narrow {
        for time in [times[0], times[2]] {
            line += &cell::right(time, TIME_MIN, look);
        }
    } else {
        for time in times {
            line += &format!("  {}", cell::right(time, TIME, look));
        }
        line += &cell::right(count, COUNT, look);
    }
    cell::at_most(line.trim_end(), look.width, look) + "\n"
}

/// Returns the slowest requests, this number of them at most, each with what finds it again.
fn slowest(statistics: &Statistics, most: usize, look: Look) -> String {
    if most == 0 {
        return String::new();
    }
    let (least, most_columns) = ASKED;
    let columns = look
        .width
        .saturating_sub(OF_SLOWEST)
        .clamp(least, most_columns);
    let mut text = String::from("\nslowest\n");
    for request in statistics.slowest.requests().take(most) {
        let elapsed = request.elapsed_ns.map(units::time).unwrap_or_default();
        let status = request.status.map_or("-".to_owned(), |s| s.to_string());
        let method = request.request_method.as_deref().unwrap_or("-");
        let uri = request.request_uri.as_deref().unwrap_or("-");
        let upstream = request.upstream_addr.as_deref().unwrap_or_default();
        let line = format!(
            "{}  {} {}  {}  {}",
            cell::right(&elapsed, TIME, look),
            cell::left(&status, 3, look),
            cell::left(&format!("{method} {uri}"), columns, look),
            cell::left(&waterfall::id(request), 14, look),
            upstream
        );
        text += &format!("{}\n", cell::at_most(line.trim_end(), look.width, look));
    }
    text
}

#[cfg(test)]
pub(crate) mod tests;
